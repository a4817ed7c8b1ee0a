"""Checkpoints: which files a run needs to go on exactly, whether they open, and the newest whole one of a folder."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import safe_globals

from hf_mixup.errors import listed
from hf_mixup.files import refuse_links, remove_folder, set_aside
from hf_mixup.mixing.checks import check_type
from hf_mixup.shown import visible
from hf_mixup.trainer import label_gate
from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.checksums import CHECKSUMS, differences, read_checksums
from hf_mixup.trainer.run_settings import SETTINGS
from hf_mixup.trainer.sharded import faults_of_shards, is_sharded

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# What is written of the run beside the model; without any of it a checkpoint holds a model and no more.
_RUN_FILES = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")
# What torch says of an object that is more than numbers and tensors.
_CODE = re.compile(r"Unsupported global: GLOBAL ([\w.]+)")
_TORCH_WRITERS = "inline_container|PytorchStreamWriter|basic_ios|iostream error"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class CheckpointError(ValueError):
    """A checkpoint that training cannot go on from; one sentence that names the file and what helps."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class SaveError(RuntimeError):
    """A model or a checkpoint that could not be written, on a full disk for example; earlier ones are untouched."""


# ---- Which checkpoint ----


def whole_checkpoint(args: MixupTrainingArguments, given: bool | str, has_config: bool = True) -> str:
    """Find the checkpoint to go on from; every process of the run calls this.

    Args:
        args: the arguments of the run that goes on.
        given: the folder of a checkpoint; or True for the newest whole one of `args.output_dir`: newer ones, which
            were not written to the end or are damaged, are then renamed to `broken-checkpoint-N`, with a warning.
        has_config: whether the model saves a `config.json`; a module that only holds a transformers model does not.

    Returns:
        The folder of a checkpoint that has every file of such a run, and all of them open.

    Raises:
        CheckpointError: if there is none; nothing is renamed then.
        TypeError: `given` is not the path of a folder.

    Example:
        >>> whole_checkpoint(MixupTrainingArguments(output_dir="out"), True)  # doctest: +SKIP
        'out/checkpoint-500'
    """
    if given is not True:
        check_type("resume_from_checkpoint", given, str | os.PathLike, "the folder of a checkpoint, or True")
    with args.main_process_first(local=args.save_on_each_node, desc="checking the checkpoints"):
        if given is True:
            folder, broken = _newest_whole(args, has_config)
            if args.should_save:
                for each, fault in broken.items():
                    name = set_aside(each, "broken").name
                    logger.warning(f"{each} is not whole ({fault}): it is now called {name}.")
        else:
            folder = Path(given)
            if checkpoints(given):
                raise CheckpointError(
                    f"{given} is the folder of a run, not one of its checkpoints: give {checkpoints(given)[0]}, or "
                    "true for the newest whole one of the output_dir."
                )
            fault = fault_of(folder, args, has_config)
            if fault is not None:
                raise CheckpointError(
                    f"The checkpoint {given} cannot be resumed from ({fault}): give the folder of another one, such "
                    "as out/checkpoint-500, or true for the newest whole one."
                )
    if _is_weights_only(folder):
        raise CheckpointError(
            f"The checkpoint {folder} was saved with save_only_model, without the state of optimizer, scheduler and "
            "random numbers: to train its weights anew, start from it as a model (model_name_or_path)."
        )
    saved_by = _saved_processes(folder, args.world_size)
    if saved_by != args.world_size:
        logger.warning(
            f"{folder} was saved with a world size of {saved_by}, this run has {args.world_size}: it goes on, but "
            "ends with other weights than an undisturbed run; only the same number of processes repeats it exactly."
        )
    return str(folder)


def _newest_whole(args: MixupTrainingArguments, has_config: bool) -> tuple[Path, dict[Path, str]]:
    """The newest whole checkpoint, and what is wrong with each newer one."""
    broken: dict[Path, str] = {}
    for folder in checkpoints(args.output_dir):
        fault = fault_of(folder, args, has_config)
        if fault is None:
            return folder, broken
        broken[folder] = fault
    which = "; ".join(f"{folder.name}: {fault}" for folder, fault in broken.items())
    raise CheckpointError(
        f"{args.output_dir} has no whole checkpoint to resume from{f' ({which})' if which else ''}: start afresh "
        "without resume_from_checkpoint, or give the folder of a checkpoint."
    )


def checkpoints(output_dir: str) -> list[Path]:
    """The checkpoint folders of a run, newest step first."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if path.is_dir()]
    numbered = [(int(match[1]), path) for path in folders if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def make_way(folder: Path, overwrite: bool) -> None:
    """Put the checkpoints of an earlier run out of the way of a new one, with a line that says so.

    Args:
        folder: the folder of the new run.
        overwrite: whether they are removed, and not renamed to `old-checkpoint-N`.

    Raises:
        UsageError: one of them is a link.
        SaveError: one of them cannot be renamed or removed.
    """
    refuse_links(path for path in sorted(folder.glob("checkpoint-*")) if _CHECKPOINT.fullmatch(path.name))
    older = checkpoints(str(folder))[::-1]
    if not older:
        return
    with saving(str(folder)):
        if overwrite:
            for each in older:
                remove_folder(each)
            done = f"{listed(each.name for each in older)} are removed, as overwrite_output_dir says"
        else:
            names = [set_aside(each, "old").name for each in older]
            done = f"they are now called {listed(names)}; overwrite_output_dir removes them instead"
    logger.warning(f"{folder} holds the checkpoints of an earlier run: {done}.")


# ---- What is wrong with a checkpoint ----


def fault_of(folder: Path, args: MixupTrainingArguments, has_config: bool = True) -> str | None:
    """What keeps a run from going on exactly where a checkpoint was saved, such as "it has no optimizer.pt".

    Args:
        folder: the folder of the checkpoint.
        args: the arguments of the run that goes on: they decide which files it needs.
        has_config: as in `whole_checkpoint`.

    Returns:
        The first fault, or None for a whole checkpoint. One that was saved with `save_only_model` is whole.
    """
    return next(_faults(folder, args, has_config), None)


def _faults(folder: Path, args: MixupTrainingArguments, has_config: bool) -> Iterator[str]:
    # The state is written after all that is needed: where it is missing, nothing else tells more.
    yield from _fault_of_file(folder / STATE, _read_state)
    sharded = is_sharded(folder)
    if sharded:
        yield from faults_of_shards(folder, args.world_size)
    else:
        yield from _faults_of_weights(folder, has_config)
    if _is_weights_only(folder):
        return
    if not sharded:
        # Those of a user may look otherwise; with checksums it is known that they are what was saved.
        summed = (folder / CHECKSUMS).exists()
        wanted = {"optimizer.pt": ("state", "param_groups"), "scheduler.pt": ("last_epoch",)}
        for name, keys in wanted.items():
            yield from _fault_of_file(folder / name, _torch_reader(*(() if summed else keys)))
    if args.mixup().label_weight == "learned":
        yield from _fault_of_file(folder / label_gate.FILE, _read_tensors)
    if (folder / "scaler.pt").exists():
        yield from _fault_of_file(folder / "scaler.pt", _torch_reader("scale"))
    for name in _rng_files(_saved_processes(folder, args.world_size) or args.world_size):
        yield from _fault_of_file(folder / name, _torch_reader("python", "numpy", "cpu"))
    if (folder / SETTINGS).exists():
        yield from _fault_of_file(folder / SETTINGS, _read_object)
    if (folder / CHECKSUMS).exists():
        yield from _fault_of_file(folder / CHECKSUMS, read_checksums)
        yield from differences(folder)


def _faults_of_weights(folder: Path, has_config: bool) -> Iterator[str]:
    adapter, index = folder / "adapter_config.json", folder / "model.safetensors.index.json"
    if adapter.exists():
        yield from _fault_of_file(adapter, _read_object)
        yield from _fault_of_file(folder / "adapter_model.safetensors", _read_tensors)
        return
    if has_config:
        yield from _fault_of_file(folder / "config.json", _read_object)
    if index.exists():
        yield from _fault_of_file(index, _shards)
        for name in _shards(index):
            yield from _fault_of_file(folder / name, _read_tensors)
    elif (folder / "pytorch_model.bin").exists():
        yield from _fault_of_file(folder / "pytorch_model.bin", _torch_reader())
    else:
        yield from _fault_of_file(folder / "model.safetensors", _read_tensors)


def _fault_of_file(path: Path, read: Callable[[Path], Any]) -> Iterator[str]:
    if not path.is_file():
        yield f"it has no {path.name}"
        return
    try:
        read(path)
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror or error}"
    except UnpicklingError as error:
        code = _CODE.search(str(error))
        if code is None:
            yield f"{path.name} is damaged, or holds something else"
        else:
            yield (
                f"{path.name} holds a {code[1]}, which torch loads only after torch.serialization.add_safe_globals: "
                "call that if you trust the file, or train with another optim"
            )
    except Exception:  # Readers of damaged files raise nearly anything.
        yield f"{path.name} is damaged, or holds something else"


def _read_state(path: Path) -> None:
    state = TrainerState.load_from_json(str(path))
    if not isinstance(state.global_step, int) or not isinstance(state.max_steps, int) or state.max_steps < 1:
        raise ValueError(f"{path} is not the state of a training.")


def _read_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object.")
    return content


def _shards(index: Path) -> list[str]:
    return sorted(set(_read_object(index)["weight_map"].values()))


def _read_tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file, which is checked for its length but not read."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _torch_reader(*keys: str) -> Callable[[Path], None]:
    """A reader of a file by `torch.save` with a dictionary that has these keys."""

    def read(path: Path) -> None:
        with safe_globals():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        for key in keys:
            content[key]

    return read


def _is_weights_only(folder: Path) -> bool:
    return not is_sharded(folder) and not any(any(folder.glob(pattern)) for pattern in _RUN_FILES)


def _rng_files(processes: int) -> list[str]:
    return ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]


def _saved_processes(folder: Path, world_size: int) -> int:
    """How many processes saved their random state; 0 if none did."""
    matches = [re.fullmatch(r"rng_state_(\d+)\.pth", path.name) for path in folder.glob("rng_state_*.pth")]
    ranks = [int(match[1]) for match in matches if match]
    if (folder / "rng_state.pth").exists() and (world_size == 1 or not ranks):
        return 1
    return max(ranks, default=-1) + 1


def check_weights_fit(folder: str, model: nn.Module) -> None:
    """Check that the weights of a checkpoint are those of such a model, by their names and shapes.

    Args:
        folder: the checkpoint; without a file of the whole model, as with adapters, nothing is compared.
        model: the model that goes on, not wrapped.

    Raises:
        CheckpointError: they are not; `Trainer` would go on with what fits and leave the rest random.
    """
    index, single = Path(folder) / "model.safetensors.index.json", Path(folder) / "model.safetensors"
    files = [Path(folder) / name for name in _shards(index)] if index.is_file() else [single]
    if not all(file.is_file() for file in files):
        return
    saved = {name: shape for file in files for name, shape in _read_tensors(file).items()}
    tensors = model.state_dict()
    # Of tensors that share their memory one is saved.
    kept = {tensor.data_ptr() for name, tensor in tensors.items() if name in saved}
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    wanted = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if name in saved or (name not in ignored and tensor.data_ptr() not in kept)
    }
    if saved != wanted:
        name = min(name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name))
        has, wants = (_shape_or_nothing(shapes.get(name)) for shapes in (saved, wanted))
        raise CheckpointError(
            f"The weights of {folder} are those of another model ({files[0].name} has {has} for {name}, the model "
            f"{wants}): give a checkpoint of this model, or the model and the labels that it was trained with."
        )


def _shape_or_nothing(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"the shape {list(shape)}"


# ---- Saving ----


class SaveAfterEvaluation(TrainerCallback):
    """Saves the last step of an epoch after all that comes with the epoch's end, such as an evaluation.

    An evaluation draws a random number to read its data with: a run that went on from a checkpoint between the last
    step and the evaluation, which it would not make up for, would go on with other dropout masks. A callback that ends
    the run where an evaluation is no better would not have counted it.
    """

    def __init__(self) -> None:
        self._owed = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put off a save that is due now."""
        self._owed = control.should_save and state.epoch == int(state.epoch)
        control.should_save &= not self._owed

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make up for it; what other callbacks do at an epoch's end, and an evaluation, come first."""
        control.should_save |= self._owed


def disk_fault(error: BaseException) -> str | None:
    """Why a file could not be written, in a few words; None for errors that are not the disk's.

    Example:
        >>> disk_fault(OSError(28, "No space left on device"))
        'no space left on device'
    """
    number = error.errno if isinstance(error, OSError) else None
    # safetensors and tokenizers are written in Rust, and have no exception of Python for it.
    if number is None and (match := re.search(r"os error (\d+)", str(error))):
        number = int(match[1])
    if number in _DISK_ERRORS:
        return os.strerror(number).lower()
    # torch does not pass on what the system said when it could not write all of a file.
    if isinstance(error, RuntimeError) and re.search(_TORCH_WRITERS, str(error)):
        return "torch could not write all of a file, is the disk full?"
    return None


@contextmanager
def saving(folder: str) -> Iterator[None]:
    """Turn what a full or broken disk raises into a `SaveError` of one sentence.

    Raises:
        SaveError: the disk did not take what was to be written into the folder.
    """
    try:
        yield
    except Exception as error:
        reason = disk_fault(error)
        if reason is None:
            raise
        raise SaveError(
            f"{folder} could not be saved ({reason}): make room, save less often or keep fewer with save_total_limit, "
            "and go on from the newest whole checkpoint with resume_from_checkpoint true; earlier ones are untouched."
        ) from error
