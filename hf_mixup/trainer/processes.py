"""Several processes that are one run: what one of them does for all, and whether all of them do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig

from hf_mixup.errors import UsageError, quoted
from hf_mixup.files import LOCK, alone
from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.rows import is_dataset
from hf_mixup.trainer.run_settings import checksum_of

# Where files lie on a machine, how it reads them, what is shown and uploaded: processes may differ in that.
_OF_ONE_PROCESS = {
    *("debug", "deepspeed", "disable_tqdm", "fsdp_config", "local_rank", "output_dir", "project", "report_to"),
    *("dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_persistent_workers"),
    *("dataloader_pin_memory", "dataloader_prefetch_factor", "resume_from_checkpoint", "run_name"),
    *("skip_memory_metrics",),
}
_GROUPS_OF_ONE_PROCESS = ("hub_", "log_", "trackio_")
# Names of places and versions.
_OF_ONE_COPY = {"_name_or_path", "name_or_path", "transformers_version"}


class ProcessesMixin:
    """`Trainer`'s data loaders, which all processes of a run must make from the same rows."""

    def _check_same_run(self, resume: Any) -> None:
        """Look at the start of a training what the processes were started with."""
        if self.args.world_size == 1:
            return
        # Between the trials of a search there is no model.
        model = {} if self.model is None else facts_of_model(self._config())
        resumes = {"whether they resume from a checkpoint": resume not in (None, False)}
        check_alike(self.args, {**facts_of_options(self.args), **model, **resumes})
        if self.eval_dataset is not None and not self._is_overridden("get_eval_dataloader"):
            self._check_same_data("evaluation", self.eval_dataset)

    def _check_same_data(self, what: str, dataset: Any) -> None:
        """Look at rows that were not looked at before."""
        compared = self.__dict__.setdefault("_compared_data", [])
        if self.args.world_size > 1 and not any(dataset is each for each in compared):
            check_alike(self.args, facts_of_data(what, dataset))
            compared.extend([dataset, *(dataset.values() if isinstance(dataset, dict) else ())])

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As `Trainer.get_eval_dataloader`; the processes compare their rows first."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        self._check_same_data("evaluation", self.eval_dataset[dataset] if isinstance(dataset, str) else dataset)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As `Trainer.get_test_dataloader`; the processes compare their rows first."""
        self._check_same_data("test", test_dataset)
        return super().get_test_dataloader(test_dataset)


def by_one(args: MixupTrainingArguments, job: Callable[[], Any]) -> None:
    """Let the process that saves do something; a mistake of the user that it meets is raised in all processes.

    Args:
        args: the arguments of the run; with `save_on_each_node` one process of each machine does it.
        job: what is done.

    Raises:
        ValueError: what `job` raises.
    """
    error = None
    if args.should_save:
        try:
            job()
        except ValueError as raised:
            error = raised
    errors = gather_object([error]) if args.world_size > 1 else [error]
    for each in (error, *errors):
        if each is not None:
            raise each


@contextmanager
def alone_in_output_dir(args: MixupTrainingArguments) -> Iterator[None]:
    """No other run writes into the output folder inside; all processes of the run call this, also once more inside.

    Raises:
        UsageError: another run does, or the lock file cannot be made.
    """
    lock = Path(args.output_dir) / LOCK
    busy = (
        f"another run writes into {args.output_dir}, and one of the two models would be lost; wait until it ends, or "
        "give another output_dir"
    )
    with ExitStack() as stack:
        by_one(args, lambda: stack.enter_context(alone(lock, busy, again=True)))
        yield


def check_alike(args: MixupTrainingArguments, facts: dict[str, Any]) -> None:
    """Check that all processes of a run have the same; all of them call this.

    Args:
        args: the arguments of the run.
        facts: what to compare, by the words for it.

    Raises:
        UsageError: the first difference, in all processes.
    """
    first, *others = gather_object([facts]) if args.world_size > 1 else [facts]
    for process, other in enumerate(others, start=1):
        for name in sorted(first.keys() | other.keys()):
            values = first.get(name), other.get(name)
            if values[0] != values[1]:
                raise UsageError(
                    f"the processes of the run differ in {name} (process 0 has {quoted(values[0])}, process {process} "
                    f"has {quoted(values[1])}); start all of them with the same options, data and model"
                )


def facts_of_options(args: MixupTrainingArguments) -> dict[str, Any]:
    """The options that decide what is computed, and when processes wait for each other."""
    return {
        f"the option {name}": value
        for name, value in args.to_dict().items()
        if name not in _OF_ONE_PROCESS and not name.startswith(_GROUPS_OF_ONE_PROCESS)
    }


def facts_of_model(config: PreTrainedConfig | None) -> dict[str, Any]:
    """What the config says of the model and its labels."""
    content = {} if config is None else config.to_dict()
    return {f"the model's {name}": value for name, value in content.items() if name not in _OF_ONE_COPY}


def facts_of_data(what: str, dataset: Any) -> dict[str, Any]:
    """The number of rows, where there is one, and a checksum of a `datasets.Dataset`.

    Args:
        what: what the rows are for, such as "training".
        dataset: the rows; of several data sets by name, each.
    """
    if isinstance(dataset, dict):
        facts = [facts_of_data(f"{what} ({name})", each) for name, each in dataset.items()]
        return {name: value for each in facts for name, value in each.items()}
    # The number comes first in the alphabet.
    return {
        f"the {what} data: number of rows": len(dataset) if hasattr(dataset, "__len__") else None,
        f"the {what} data: their checksum": checksum_of(dataset) if is_dataset(dataset) else None,
    }
