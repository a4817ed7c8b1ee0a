"""SIGTERM, with which schedulers announce the end of a job: save a checkpoint, then end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from hf_mixup.mixing.checks import check_type

logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM


@contextmanager
def save_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Answer SIGTERM with a checkpoint, from which training goes on later as if nothing had happened.

    Inside, the signal is only noted, and a second one too. After the optimizer step in which it came, all processes
    save a checkpoint together, also if only one of them got the signal, and leave `train` by `SystemExit`, so that no
    half-trained model passes for a finished one. The step ends with the last of its `gradient_accumulation_steps`
    batches, or of its `mixup_updates` updates, of which there are 100 at most: a checkpoint between them could not be
    resumed exactly. In any other than the main thread, where Python allows no signal handlers, SIGTERM ends the
    process at once as usual.

    transformers' `enable_jit_checkpoint` asks each process for itself and may save in the middle of a step, whose
    random numbers are then drawn twice: it neither stops several processes together nor resumes exactly.

    Args:
        trainer: the trainer that is going to train.

    Raises:
        TypeError: it is no trainer.
        SystemExit: code 143 (128 + 15), out of `train`, after the checkpoint.

    Example:
        >>> with save_on_sigterm(trainer):  # doctest: +SKIP
        ...     trainer.train()
    """
    check_type("trainer", trainer, Trainer, "the trainer that is going to train, such as a MixupTrainer")
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    callback = _Stop()
    strategy = trainer.args.save_strategy
    previous = signal.signal(signal.SIGTERM, callback.note)
    trainer.add_callback(callback)
    try:
        yield
    finally:
        trainer.remove_callback(callback)
        trainer.args.save_strategy = strategy
        signal.signal(signal.SIGTERM, previous)


class _Stop(TrainerCallback):
    """Ends the training loop of all processes after the same step, with a checkpoint."""

    def __init__(self) -> None:
        self.received = False
        self.stopping = False

    def note(self, *_: Any) -> None:
        self.received = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if _in_any_process(self.received, args):
            self.stopping = True
            control.should_training_stop = True
            # It is saved once, when the loop is left, with what an evaluation that is due now finds.
            control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Also called when the loop is left in the middle of an epoch."""
        if self.stopping:
            control.should_save = True
            # A part of an epoch is not evaluated.
            control.should_evaluate &= state.epoch == int(state.epoch)
            # An evaluation would decide against saving what is not the best.
            args.save_strategy = SaveStrategy.EPOCH

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self.stopping:
            return
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            logger.warning(
                f"SIGTERM stopped the training after step {state.global_step} of {state.max_steps}; a checkpoint is "
                f"saved in {args.output_dir}: run the same again with resume_from_checkpoint true to go on."
            )
        raise SystemExit(EXIT_CODE)


def _in_any_process(received: bool, args: TrainingArguments) -> bool:
    if args.world_size == 1:
        return received
    flag = torch.tensor(float(received), device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)
