"""How a run goes on from a checkpoint, as a mixin of the trainer: exactly, or it says in a line what differs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerState
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import has_length

from hf_mixup.errors import as_one_line, cut
from hf_mixup.files import refuse_links
from hf_mixup.trainer.checkpoints import STATE, CheckpointError, check_weights_fit, make_way
from hf_mixup.trainer.checksums import CHECKSUMS
from hf_mixup.trainer.label_gate import FILE, LabelGate
from hf_mixup.trainer.processes import by_one
from hf_mixup.trainer.rows import is_dataset
from hf_mixup.trainer.run_settings import (
    SETTINGS,
    lost_state,
    options_of,
    other_options,
    other_rate,
    other_settings,
    other_steps,
    read_settings,
    settings_of,
)

logger = logging.getLogger(__name__)

# By other batches or rows, or by a callback that ends them early.
_OTHER_EPOCHS = "has epochs of another length than this run: the undisturbed run went on with other rows"


class ResumingMixin:
    """`Trainer`'s loading, so that no checkpoint is taken for another run's, and nothing that differs stays unsaid."""

    # ---- Where it goes on ----

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """The epoch, and the batch in it, that come next; checkpoints of an earlier run are out of the way then."""
        if not self._made_way:
            # With auto_find_batch_size it is called again, for what are then checkpoints of this run.
            self._made_way = True
            self._make_way(checkpoint, Path(self._get_output_dir(trial)))
        epoch, batches = super()._init_training_state(max_steps, steps_per_epoch, epochs, checkpoint, trial)
        if checkpoint is None:
            return epoch, batches
        if any(
            isinstance(callback, EarlyStoppingCallback)
            and callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
        ):
            # The run had ended here: another epoch would train on.
            return epochs, 0
        if self.state.global_step >= max_steps:
            return epoch, batches
        inside = self.state.global_step % steps_per_epoch
        if not has_length(self.train_dataset):
            epoch, inside = self._position_in_stream(checkpoint)
            batches = 0 if self.args.ignore_data_skip else inside
        elif epoch != int(self.state.epoch):
            self._tell(checkpoint, [_OTHER_EPOCHS])
        self._tell(checkpoint, self._other_order(epoch, inside))
        return epoch, batches

    def _make_way(self, checkpoint: str | None, folder: Path) -> None:
        """A run that goes on from a checkpoint of its folder keeps the others: they are its own."""
        if folder != Path(self.args.output_dir):
            # That of a trial of a search; the output folder itself may be a link.
            by_one(self.args, lambda: refuse_links([folder]))
        if checkpoint is None or Path(checkpoint).resolve().parent != folder.resolve():
            by_one(self.args, lambda: make_way(folder, self.args.overwrite_output_dir))

    def _position_in_stream(self, checkpoint: str) -> tuple[int, int]:
        """How often a data set without a length was read to its end, and how many batches of it after that.

        `Trainer` takes the first pass for the only one.
        """
        saved = TrainerState.load_from_json(str(Path(checkpoint) / STATE))
        passes = int(saved.epoch)
        return passes, round((saved.epoch - passes) * saved.max_steps * self.args.gradient_accumulation_steps)

    def _other_order(self, epoch: int, inside: int) -> Iterator[str]:
        """What keeps the order of the rows from being repeated.

        Args:
            epoch: the epoch that the run goes on in, from 0.
            inside: 0 at its beginning.
        """
        args, processes = self.args, self.args.world_size
        if args.ignore_data_skip and inside:
            yield (
                "is of the middle of an epoch, which ignore_data_skip begins again from its first row: the run goes "
                "on, but is not the undisturbed one"
            )
        by_length = args.train_sampling_strategy == "group_by_length" and not args.groups_pairs()
        unseeded = args.train_sampling_strategy == "random" and not args.accelerator_config.use_seedable_sampler
        if (by_length or unseeded) and has_length(self.train_dataset) and epoch and (inside or processes > 1):
            what = "train_sampling_strategy=group_by_length" if by_length else "use_seedable_sampler=false"
            yield (
                f"is of an epoch whose order of rows {what} has drawn from random numbers that are gone: the run goes "
                "on with another order, and is not the undisturbed one"
            )

    def _load_callback_state(self) -> None:
        """As `Trainer`'s; without `restore_callback_states_from_checkpoint` too, callbacks go on counting.

        Their options stay those of this run, and they the same objects.
        """
        if self.args.restore_callback_states_from_checkpoint:
            super()._load_callback_state()
        kinds: dict[str, list[ExportableState]] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                kinds.setdefault(type(callback).__name__, []).append(callback)
        for name, callbacks in kinds.items():
            # `Trainer` adds to a list at each save, and wants to find every callback of the run.
            own = [callback.state() for callback in callbacks]
            saved = self.state.stateful_callbacks.setdefault(name, own if len(own) > 1 else own[0])
            for callback, state in zip(
                callbacks, (saved if isinstance(saved, list) else [saved])[-len(own) :], strict=False
            ):
                for attribute, value in state["attributes"].items():
                    setattr(callback, attribute, value)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.args.dataloader_persistent_workers and self.args.dataloader_num_workers:
            self._start_workers_apart()
        super()._load_rng_state(checkpoint)

    def _start_workers_apart(self) -> None:
        """Let workers that the undisturbed run had already start without a draw from the random numbers of the run."""
        loaders = [self.callback_handler.train_dataloader]
        if any(name.startswith("eval_") for entry in self.state.log_history for name in entry):
            names = self.eval_dataset if isinstance(self.eval_dataset, dict) else [None]
            loaders += [self.get_eval_dataloader(name) for name in names]
        for loader in loaders:
            inner: DataLoader = getattr(loader, "base_dataloader", loader)
            inner.generator = torch.Generator()

    # ---- What it goes on with ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_weights_fit(resume_from_checkpoint, self.model)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _warn_of_other_mixing(self, checkpoint: str) -> None:
        file = Path(checkpoint) / "config.json"
        if not file.is_file() or not self.is_world_process_zero():
            return
        mixup = self._current_mixup()
        before = json.loads(file.read_text(encoding="utf-8")).get("mixup")
        now = json.loads(json.dumps(mixup.settings())) if mixup.method.site is not None else None
        if before != now:
            names = [settings["method"] if settings else "none" for settings in (before, now)]
            what = f"by the method {names[0]}, this run has {names[1]}" if names[0] != names[1] else "by other options"
            logger.warning(
                f"{checkpoint} was trained {what}: the run goes on, but is not the undisturbed one; give the flags "
                "that it was started with to repeat it exactly."
            )

    def _settings(self) -> dict[str, Any]:
        """The settings of this run. The data set is looked at once a training."""
        if self._run_settings is None:
            self._run_settings = settings_of(self.args, self._model_columns(), self.optimizer, self.lr_scheduler)
        return self._run_settings

    def _model_columns(self) -> Any:
        """The training set, if it is a `datasets.Dataset` only with the columns that go into a batch."""
        dataset = self.train_dataset
        if not is_dataset(dataset) or not self.args.remove_unused_columns:
            return dataset
        self._set_signature_columns_if_needed()
        return dataset.select_columns([name for name in dataset.column_names if name in self._signature_columns])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        self._tell(checkpoint, self._other_settings(checkpoint))
        self._warn_of_other_mixing(checkpoint)
        # DeepSpeed has loaded its own already.
        compared = not self.is_deepspeed_enabled
        names = [set(group) for group in self.optimizer.param_groups] if compared else []
        given = options_of(self.optimizer) if compared else []
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"The optimizer.pt or scheduler.pt of {checkpoint} is that of another optimizer or model "
                f"({as_one_line(error)}): resume with the options that it was trained with."
            ) from error
        if compared:
            _check_groups(checkpoint, names, self.optimizer)
            self._tell(checkpoint, other_options(given, options_of(self.optimizer)))
            self._tell(checkpoint, lost_state(self.optimizer))
            self._tell(checkpoint, other_rate(self.lr_scheduler))
        if self._label_gate is not None:
            _load_gate(self._label_gate, checkpoint)
        self._saved_step = (self.state.global_step, self._train_batch_size)

    def _other_settings(self, checkpoint: str) -> Iterator[str]:
        """How the run differs from the one that the checkpoint is of, one sentence each."""
        folder = Path(checkpoint)
        if not (folder / CHECKSUMS).is_file():
            yield (
                f"has no {CHECKSUMS}, as those of the stock Trainer and of earlier versions: its files are taken as "
                "they are, and damage inside them would not be found"
            )
        before = read_settings(folder)
        if before is None:
            yield (
                f"has no {SETTINGS}, as those of the stock Trainer and of earlier versions: only its steps and the "
                "options of its optimizer are compared with those of this run"
            )
        else:
            yield from other_settings(before, self._settings())
        yield from other_steps(TrainerState.load_from_json(str(folder / STATE)).max_steps, self.state.max_steps)

    def _tell(self, checkpoint: str, sentences: Iterable[str]) -> None:
        if self.is_world_process_zero():
            for sentence in sentences:
                logger.warning(f"{checkpoint} {sentence}.")


def _load_gate(gate: LabelGate, checkpoint: str) -> None:
    try:
        gate.load(checkpoint)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The {FILE} of {checkpoint} does not fit the gate of this model ({cut(as_one_line(error), 200)}): resume "
            "with the model and the options that it was trained with."
        ) from error


def _check_groups(checkpoint: str, names: list[set[str]], optimizer: Any) -> None:
    """Check that the groups of a loaded optimizer have all that they were made with; those of another kind lack some.

    Its `defaults` tell less: loading adds to them what some kinds do not have at all.
    """
    missing = {
        name for wanted, group in zip(names, optimizer.param_groups, strict=True) for name in wanted - set(group)
    }
    if missing:
        raise CheckpointError(
            f"The optimizer.pt of {checkpoint} is that of another optimizer (it has no {min(missing)}): "
            "resume with the optim that it was trained with."
        )
