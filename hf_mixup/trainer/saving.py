"""What a run saves, as a mixin of the trainer: whole checkpoints or a sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils.logging import get_logger

from hf_mixup.files import model_beside, remove_folder, written_beside
from hf_mixup.trainer.checkpoints import STATE, SaveError, saving
from hf_mixup.trainer.checksums import files_of_process, sums_of, write_checksums
from hf_mixup.trainer.run_settings import write_settings

ALL_RESULTS = "all_results.json"


class SavingMixin:
    """`Trainer`'s saving, so that no checkpoint is left half-written or passes for whole."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`, but files that are there are replaced only by whole ones, and links by files.

        Raises:
            SaveError: the disk is full, or broken.
        """
        with saving(output_dir or self.args.output_dir):
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = output_dir or self.args.output_dir
        if not self.args.should_save:
            super()._save(folder, state_dict)
            return
        with model_beside(Path(folder)) as beside, _named_in_log(beside, Path(folder)):
            super()._save(str(beside), state_dict)

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
        if folder.is_symlink() or folder.is_file():
            what = "a link, and what it leads to would be written over" if folder.is_symlink() else "a file"
            raise SaveError(
                f"{folder} could not be saved (it is {what}): remove it, and go on from the newest whole checkpoint "
                "with resume_from_checkpoint true."
            )
        with saving(str(folder)):
            if self.args.should_save:
                # Of a run that was stopped here: old and new files together would pass for whole.
                remove_folder(folder)
            self.accelerator.wait_for_everyone()
            with self._with_checksums(folder):
                super()._save_checkpoint(model, trial)
        self._saved_step = (self.state.global_step, self._train_batch_size)

    @contextmanager
    def _with_checksums(self, folder: Path) -> Iterator[None]:
        """Write the checksums right after the state: before the checkpoint is pushed, and older ones are removed."""
        state = self.state
        self._sums: list[Callable[[], dict[str, str]]] = []

        def save_with_checksums(path: str) -> None:
            write_settings(folder, self._settings())
            TrainerState.save_to_json(state, path)
            write_checksums(folder, {name: value for sums in self._sums for name, value in sums().items()})

        state.save_to_json = save_with_checksums
        try:
            with ThreadPoolExecutor(1) as self._summing:
                yield
        finally:
            del state.save_to_json

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # It also waits for all processes: then the main one marks the checkpoint as whole and removes old ones.
        if self.args.world_size > 1:
            own = sums_of(files_of_process(Path(output_dir), self.args.process_index))
            gathered = dict(gather_object(list(own.items())))
            self._sums.append(lambda: gathered)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            # The weights are there, and are summed while the optimizer is written.
            self._sums.append(self._summing.submit(sums_of, files_of_process(Path(output_dir), None)).result)
        super()._save_optimizer_and_scheduler(output_dir)
        if self._label_gate is not None and self.args.should_save:
            self._label_gate.save(output_dir)


@contextmanager
def _named_in_log(beside: Path, folder: Path) -> Iterator[None]:
    """Let transformers' messages on saved files name the folder that the files are moved to."""

    def rename(record: logging.LogRecord) -> bool:
        record.msg = str(record.msg).replace(str(beside), str(folder))
        return True

    handlers = get_logger().handlers[:]
    for handler in handlers:
        handler.addFilter(rename)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(rename)


def read_results(folder: str | Path) -> dict[str, float]:
    """The content of `all_results.json`; empty if no run has written it, or the disk was full when one did."""
    file = Path(folder) / ALL_RESULTS
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return json.loads(text) if text else {}
