"""Checksums of the files of a checkpoint: what a disk or a copy has damaged is found before a run goes on from it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

import xxhash

CHECKSUMS = "checksums.json"
_ALGORITHM = "xxh3_64 of blocks"
_BLOCK = 1 << 24
_THREADS = 4
# Nothing is resumed from this pickle, and uploads leave it out.
_LEFT_OUT = {CHECKSUMS, "training_args.bin"}
# Files that each process writes for itself: random numbers, the shards of FSDP and of DeepSpeed.
_OF_PROCESS = re.compile(r"rng_state_(\d+)\.pth|__(\d+)_\d+\.distcp|.*zero_pp_rank_(\d+)_.*")


def files_of_process(folder: Path, process: int | None) -> dict[str, Path]:
    """The files of a checkpoint that one process of several wrote for itself alone, by their names.

    Args:
        folder: the checkpoint.
        process: the number of the process; None for the files that belong to all.

    Example:
        >>> files_of_process(Path("out/checkpoint-40"), process=1)  # doctest: +SKIP
        {'rng_state_1.pth': PosixPath('out/checkpoint-40/rng_state_1.pth')}
    """
    return {name: path for name, path in _files(folder) if _process_of(path) == process}


def sums_of(files: dict[str, Path]) -> dict[str, str]:
    """The checksum of each of these files."""
    return {name: _sum(path) for name, path in files.items()}


def write_checksums(folder: Path, known: dict[str, str]) -> None:
    """Write the checksums of all files of a checkpoint, the last thing that is written there.

    Args:
        folder: the checkpoint.
        known: the checksums that have been found already, by the names of the files.
    """
    sums = {name: known.get(name) or _sum(path) for name, path in _files(folder)}
    content = {_ALGORITHM: sums, "of these": _sum_of_sums(sums)}
    (folder / CHECKSUMS).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_checksums(path: Path) -> dict[str, str]:
    """The checksums that `write_checksums` wrote.

    Raises:
        ValueError, KeyError: they are damaged themselves.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["of these"] != _sum_of_sums(content[_ALGORITHM]):
        raise ValueError(f"{path} is damaged.")
    return content[_ALGORITHM]


def differences(folder: Path) -> Iterator[str]:
    """What is no longer as it was saved, such as "it has no config.json"; nothing for a checkpoint without checksums.

    Args:
        folder: the checkpoint; files that were added to it later are not looked at.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    for name, wanted in sorted(read_checksums(folder / CHECKSUMS).items()):
        path = folder / name
        if not path.is_file():
            yield f"it has no {name}"
            continue
        about = path.stat()
        if _sum_as_of(path, about.st_size, about.st_mtime_ns) != wanted:
            yield (
                f"{name} is not what was saved, its checksum differs; if it was changed on purpose, delete "
                f"{CHECKSUMS} in that folder to use it as it is"
            )


def _sum_of_sums(sums: dict[str, str]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(sums, sort_keys=True).encode())


def _files(folder: Path) -> list[tuple[str, Path]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in files if path.name not in _LEFT_OUT]


def _process_of(path: Path) -> int | None:
    match = _OF_PROCESS.fullmatch(path.name)
    return int(next(filter(None, match.groups()))) if match else None


def _sum(path: Path) -> str:
    """XXH3 over the XXH3 of each block: blocks are read side by side, because a save waits for this."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return xxhash.xxh3_64_hexdigest(b"")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content, memoryview(content) as view:
            with ThreadPoolExecutor(_THREADS) as pool:
                sums = pool.map(
                    lambda start: xxhash.xxh3_64_digest(view[start : start + _BLOCK]), range(0, size, _BLOCK)
                )
                return xxhash.xxh3_64_hexdigest(b"".join(sums))


@lru_cache(maxsize=4096)
def _sum_as_of(path: Path, size: int, modified: int) -> str:
    """The script looks at a checkpoint before it reads its data, and `Trainer` before it loads it."""
    return _sum(path)
