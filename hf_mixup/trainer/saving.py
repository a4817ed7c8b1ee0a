"""What a run saves and what it goes on from, as a mixin of the trainer: whole checkpoints or a sentence."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_mixup.errors import as_one_line
from hf_mixup.trainer.checkpoints import (
    STATE,
    CheckpointError,
    check_weights_fit,
    saving,
    without_leftovers,
    written_beside,
)
from hf_mixup.trainer.checksums import CHECKSUMS, sums_of_process, write_checksums
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
    write_settings,
)

logger = logging.getLogger(__name__)

ALL_RESULTS = "all_results.json"


class SavingMixin:
    """`Trainer`'s saving and loading, so that no checkpoint is left half-written or taken for another run's."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`.

        Raises:
            SaveError: the disk is full, or broken.
        """
        folder = output_dir or self.args.output_dir
        with saving(folder), without_leftovers(Path(folder)):
            super().save_model(output_dir, _internal_call)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """As `Trainer.save_metrics`, but a results file that is there is replaced only by a whole one."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        files = {folder / f"{split}_results.json": metrics}
        if combined:
            files[folder / ALL_RESULTS] = {**read_results(folder), **metrics}
        for path, content in files.items():
            with written_beside(path) as beside:
                beside.write_text(json.dumps(content, indent=4, sort_keys=True), encoding="utf-8")

    def save_state(self) -> None:
        """As `Trainer.save_state`, but a file that is there is replaced only by a whole one."""
        if self.is_world_process_zero():
            path = Path(self.args.output_dir) / STATE
            with written_beside(path) as beside:
                self.state.save_to_json(str(beside))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._saved_step == (self.state.global_step, self._train_batch_size):
            # To write it again would break it for a moment. With another batch size, which auto_find_batch_size tries
            # from the start, it is another training's.
            return
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with saving(str(folder)):
            if self.args.should_save:
                # Of another run, or of one that was stopped here: old and new files together would pass for whole.
                shutil.rmtree(folder, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            with self._with_checksums(folder):
                super()._save_checkpoint(model, trial)
        self._saved_step = (self.state.global_step, self._train_batch_size)

    @contextmanager
    def _with_checksums(self, folder: Path) -> Iterator[None]:
        """Write the checksums right after the state: before the checkpoint is pushed, and older ones are removed."""
        state, self._sums_of_processes = self.state, {}

        def save_with_checksums(path: str) -> None:
            write_settings(folder, self._settings())
            TrainerState.save_to_json(state, path)
            write_checksums(folder, self._sums_of_processes)

        state.save_to_json = save_with_checksums
        try:
            yield
        finally:
            del state.save_to_json

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # It also waits for all processes: then the main one marks the checkpoint as whole and removes old ones.
        if self.args.world_size > 1:
            own = sums_of_process(Path(output_dir), self.args.process_index)
            self._sums_of_processes = dict(gather_object(list(own.items())))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._label_gate is not None and self.args.should_save:
            self._label_gate.save(output_dir)

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
        if not isinstance(dataset, Dataset) or not self.args.remove_unused_columns:
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
            self._label_gate.load(checkpoint)
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


def read_results(folder: str | Path) -> dict[str, float]:
    """The content of `all_results.json`; empty if no run has written it, or the disk was full when one did."""
    file = Path(folder) / ALL_RESULTS
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return json.loads(text) if text else {}
