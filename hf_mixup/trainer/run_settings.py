"""What a run is trained with, written into its checkpoints as plain JSON, and how the run that goes on differs."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import fields
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.rows import is_dataset

if TYPE_CHECKING:
    from datasets import Dataset

SETTINGS = "run_settings.json"
# Where files go, what is logged, saved and pushed, and how fast it is: none of it changes what is trained.
_WITHOUT_EFFECT = {
    *("auto_find_batch_size", "batch_eval_metrics", "bf16_full_eval", "dataloader_in_order"),
    *("dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_pin_memory"),
    *("dataloader_prefetch_factor", "debug", "deepspeed", "disable_tqdm", "enable_jit_checkpoint"),
    *("eval_accumulation_steps", "eval_do_concat_batches", "eval_on_start", "eval_use_gather_object"),
    *("fp16_full_eval", "fsdp", "fsdp_config", "ignore_data_skip", "include_for_metrics"),
    *("include_num_input_tokens_seen", "load_best_model_at_end", "local_rank", "output_dir", "overwrite_output_dir"),
    *("per_device_eval_batch_size", "prediction_loss_only", "project", "remove_unused_columns", "report_to"),
    *("restore_callback_states_from_checkpoint", "resume_from_checkpoint", "run_name", "skip_memory_metrics"),
    *("torch_empty_cache_steps",),
}
_GROUPS_WITHOUT_EFFECT = (
    *("activation_checkpointing", "ddp_", "do_", "gradient_checkpointing", "hub_", "log", "push_", "save_"),
    *("trackio_",),
)
# Other files of a checkpoint tell these: the config how it was mixed, optimizer and state the rest. Of another batch
# size and other eval_steps transformers warns itself.
_TOLD_ELSEWHERE = {
    *("adam_beta1", "adam_beta2", "adam_epsilon", "eval_steps", "learning_rate", "max_steps", "num_train_epochs"),
    *("per_device_train_batch_size", "weight_decay"),
}
_COMPARED = {
    option.name
    for option in fields(MixupTrainingArguments)
    if option.name not in _WITHOUT_EFFECT | _TOLD_ELSEWHERE
    and not option.name.startswith((*_GROUPS_WITHOUT_EFFECT, "mixup_"))
}
_OTHER_RUN = "the run goes on, but is not the undisturbed one; give what it was started with to repeat it exactly"
_OLD_VALUE = "the run goes on with the value of the checkpoint; to use another one, start from it as a model"


def settings_of(args: MixupTrainingArguments, train_dataset: Any, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """What decides how a run goes on, apart from what other files of its checkpoints tell.

    Args:
        args: the arguments; options that change nothing that is trained are left out.
        train_dataset: its rows are counted; those of a `datasets.Dataset` are summed too.
        optimizer, scheduler: their classes count.
    """
    settings = {name: value for name, value in args.to_dict().items() if name in _COMPARED}
    settings["optimizer"] = type(_unwrapped(optimizer)).__name__
    settings["lr_scheduler"] = type(scheduler).__name__
    settings["train_rows"] = len(train_dataset) if hasattr(train_dataset, "__len__") else None
    settings["train_checksum"] = checksum_of(train_dataset) if is_dataset(train_dataset) else None
    return json.loads(json.dumps(settings, default=lambda other: type(other).__name__))


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run into a checkpoint."""
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of a run from its checkpoint; None where there are none, as in those of the stock Trainer."""
    file = folder / SETTINGS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def other_settings(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """One sentence a difference, without the name of the checkpoint at its beginning.

    Example:
        >>> next(other_settings({"seed": 1}, {"seed": 2}))[:54]
        'was trained with seed=1, this run has 2: the run goes '
    """
    for name in sorted(before.keys() & now.keys()):
        if before[name] == now[name] or (name == "train_checksum" and before["train_rows"] != now["train_rows"]):
            continue
        if name == "train_checksum":
            yield f"was trained on other rows than this run, though as many: {_OTHER_RUN}"
        else:
            yield f"was trained with {name}={before[name]}, this run has {now[name]}: {_OTHER_RUN}"


def other_steps(before: int, now: int) -> Iterator[str]:
    """The sentence for another number of steps, on which the schedule of the learning rate is laid out."""
    if before != now:
        yield f"was trained with max_steps={before}, this run has {now}: {_OTHER_RUN}"


def options_of(optimizer: Any) -> list[dict[str, Any]]:
    """The options of the parameter groups of an optimizer, as they stand now.

    Some optimizers keep counters there too: what their constructor takes is an option.
    """
    # A scheduler keeps the rate that was given as `initial_lr`; `lr` is the one that it has reached.
    names = {*inspect.signature(type(_unwrapped(optimizer)).__init__).parameters, "initial_lr"} - {"params", "lr"}
    return [
        {name: _plain(value) for name, value in group.items() if name in names} for group in optimizer.param_groups
    ]


def other_options(given: list[dict[str, Any]], loaded: list[dict[str, Any]]) -> Iterator[str]:
    """One sentence for each option of the optimizer whose given value the checkpoint has replaced.

    Args:
        given: `options_of` the optimizer of the run, before the checkpoint was loaded into it.
        loaded: the same afterwards.
    """
    told = set()
    for group, after in zip(given, loaded, strict=True):
        for name in sorted(group.keys() & after.keys() - told):
            # What is given as None the optimizer chooses itself, some only in the first step.
            if group[name] is not None and group[name] != after[name]:
                told.add(name)
                called = "learning_rate" if name == "initial_lr" else name
                yield f"was trained with {called}={after[name]}, this run has {group[name]}: {_OLD_VALUE}"


def lost_state(optimizer: Any) -> Iterator[str]:
    """The sentence for an optimizer that keeps what it has gathered where a checkpoint does not bring it back."""
    optimizer = _unwrapped(optimizer)
    kept = [value for group in optimizer.param_groups for value in group.values() if isinstance(value, dict)]
    by_parameter = any(isinstance(key, Tensor) for value in kept for key in value)
    if by_parameter or isinstance(optimizer, LayerWiseDummyOptimizer):
        yield (
            f"does not bring back what the optimizer ({type(optimizer).__name__}) had gathered: it starts from "
            "nothing, and the run is not the undisturbed one; only another optim resumes exactly"
        )


def other_rate(scheduler: Any) -> Iterator[str]:
    """The sentence for a learning rate that jumps because the schedule is another one than that of the checkpoint."""
    if not isinstance(scheduler, LambdaLR):
        return
    reached = scheduler.get_last_lr()
    wanted = [
        rate * factor(scheduler.last_epoch)
        for rate, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for before, now in zip(reached, wanted, strict=True):
        if not math.isclose(before, now, rel_tol=1e-6, abs_tol=1e-12):
            yield (
                f"ends with a learning rate of {before:.4g}, where the schedule of this run has {now:.4g}: it jumps "
                "there; give the steps, the scheduler and the warm-up that it was started with to avoid that"
            )
            return


def checksum_of(dataset: Dataset) -> str:
    """A checksum of the rows of a data set and their order, the same however they are stored.

    Example:
        >>> rows = Dataset.from_dict({"label": [0, 1, 2]})  # doctest: +SKIP
        >>> checksum_of(rows) == checksum_of(rows.select([2, 1, 0]).select([2, 1, 0]))  # doctest: +SKIP
        True
    """
    # Comes with `datasets`, which need not be installed.
    import pyarrow

    sink = _Sink()
    writer = None
    for rows in dataset.with_format("arrow").iter(1000):
        # Copied together: parts of a larger table are written with some of what stands beside them.
        columns = {
            name: pyarrow.concat_arrays([*rows[name].chunks, rows[name].chunk(0).slice(0, 0)])
            for name in sorted(rows.column_names)
        }
        batch = pyarrow.table(columns)
        writer = writer or pyarrow.ipc.new_stream(sink, batch.schema)
        writer.write_table(batch)
    return sink.digest.hexdigest()


class _Sink(RawIOBase):
    """A file that keeps the checksum of what is written, and nothing else."""

    def __init__(self) -> None:
        self.digest = xxhash.xxh3_64()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return len(content)


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer inside that of Accelerate."""
    return getattr(optimizer, "optimizer", optimizer)


def _plain(value: Any) -> Any:
    """A tuple comes back from some files as a list, and a rate may be a tensor."""
    return value.tolist() if isinstance(value, Tensor) else list(value) if isinstance(value, tuple) else value
