"""What FSDP and DeepSpeed write beside a checkpoint's own files: whether all of it is there, and whole."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from torch.distributed.checkpoint import FileSystemReader

_FSDP_MODEL, _FSDP_OPTIMIZER = "pytorch_model_fsdp", "optimizer"
# Where DeepSpeed writes the name of the folder with its files.
_LATEST = "latest"


def is_sharded(folder: Path) -> bool:
    """Whether FSDP or DeepSpeed saved weights and optimizer, in layouts of their own."""
    return _is_of_fsdp(folder) or any(folder.glob("global_step*"))


def faults_of_shards(folder: Path, processes: int) -> Iterator[str]:
    """What keeps FSDP or DeepSpeed from loading a checkpoint.

    Args:
        folder: the checkpoint.
        processes: of the run that goes on.
    """
    if not _is_of_fsdp(folder):
        yield from _faults_of_deepspeed(folder, processes)
        return
    for name in (_FSDP_MODEL, _FSDP_OPTIMIZER):
        # FULL_STATE_DICT makes one file of it, SHARDED_STATE_DICT a folder.
        whole, shards = folder / f"{name}.bin", folder / f"{name}_0"
        if shards.is_dir():
            yield from _faults_of_folder(shards)
        else:
            yield from _faults_of_file(whole)


def _is_of_fsdp(folder: Path) -> bool:
    return any(folder.glob(f"{_FSDP_MODEL}*"))


def _faults_of_deepspeed(folder: Path, processes: int) -> Iterator[str]:
    if not (folder / _LATEST).is_file():
        yield f"it has no {_LATEST}"
        return
    inner = folder / (folder / _LATEST).read_text(encoding="utf-8").strip()
    states = sorted(inner.glob("*_states.pt"))
    if not any(path.name.endswith("_model_states.pt") for path in states):
        yield f"{inner.name} has no model states"
    saved = sum(path.name.endswith("_optim_states.pt") for path in states)
    # At stage 0 the first process saves all, the optimizer too, and any number of processes can go on.
    if saved not in (0, processes):
        yield f"DeepSpeed saved its optimizer in {saved} parts, one a process, and this run has {processes}"
    for path in states:
        yield from _faults_of_file(path)


def _faults_of_file(path: Path) -> Iterator[str]:
    """Of a file by `torch.save`, a zip file whose end tells whether it was cut short."""
    if not path.is_file():
        yield f"it has no {path.name}"
    elif not zipfile.is_zipfile(path):
        yield f"{path.name} is damaged, or holds something else"


def _faults_of_folder(folder: Path) -> Iterator[str]:
    """Of a distributed checkpoint of PyTorch, whose metadata say where in which file each tensor lies."""
    try:
        parts = FileSystemReader(folder).read_metadata().storage_data.values()
    except Exception:  # Damaged pickles raise nearly anything.
        yield f"{folder.name} has no metadata that can be read"
        return
    ends: dict[str, int] = {}
    for part in parts:
        ends[part.relative_path] = max(ends.get(part.relative_path, 0), part.offset + part.length)
    for name, end in sorted(ends.items()):
        path = folder / name
        if not path.is_file():
            yield f"{folder.name} has no {name}"
        elif path.stat().st_size < end:
            yield f"{folder.name}/{name} is damaged"
