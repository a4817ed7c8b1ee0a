"""What may be written over: the one place that decides it, for all files and folders that the project writes.

A file is written whole beside the older one and then takes its place, so that a link is replaced and never written
through, and an interruption leaves the older one. A folder that is a link is refused. Folders of an earlier run are
renamed. Two commands never write the same at once.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from hf_mixup.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has locks of another kind.
    fcntl = None

logger = logging.getLogger(__name__)

# Not uploaded, as everything whose name begins with an underscore.
PART_PREFIX = "_part-of-"
LOCK = "_in-use.lock"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


# ---- Folders ----


def check_writable(folder: Path, named: str) -> None:
    """Check that files can be written into a folder, which need not exist yet.

    Args:
        folder: the folder.
        named: what the sentence calls it, such as `--output_dir out`.

    Raises:
        UsageError: if not.
    """
    nearest_folder = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    if not nearest_folder.is_dir():
        raise UsageError(f"{named} cannot be made ({nearest_folder} is no folder); give another folder")
    if not os.access(nearest_folder, os.W_OK | os.X_OK):
        raise UsageError(f"{named} cannot be written (no permission for {nearest_folder}); give another folder")


def check_new(folder: Path, named: str) -> None:
    """Check that a folder can be made: there is nothing of that name, or an empty folder.

    Args:
        folder: the folder.
        named: what the sentence calls it, such as `--output_dir out`.

    Raises:
        UsageError: if not.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{named} is a file or a link; give a new or empty folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{named} is not empty; give a new or empty folder")
    check_writable(folder, named)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name `folder` once it is whole; until then nothing is there.

    Raises:
        UsageError: by then there is something of that name.
        OSError: a file could not be written, on a full disk for example.

    Example:
        >>> with new_folder(Path("new")) as beside:  # doctest: +SKIP
        ...     (beside / "a.txt").write_text("a")
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PART_PREFIX, dir=folder.parent) as part:
        beside = Path(part, "whole")
        beside.mkdir()
        yield beside
        check_new(folder, str(folder))
        if folder.exists():
            folder.rmdir()
        os.rename(beside, folder)


def refuse_links(paths: Iterable[Path]) -> None:
    """Check that none of these is a link: what is written there would be written somewhere else.

    Raises:
        UsageError: the first one that is.
    """
    for path in paths:
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link to {os.readlink(path)}, which would be written over; remove the link, or give "
                "another folder"
            )


def set_aside(folder: Path, prefix: str) -> Path:
    """Rename a checkpoint so that neither resuming nor the rotation of checkpoints sees it; returns its new path.

    Args:
        folder: the checkpoint.
        prefix: what its name begins with from now on: `broken`, or `old`.

    Example:
        >>> set_aside(Path("out/checkpoint-40"), "broken")  # doctest: +SKIP
        PosixPath('out/broken-checkpoint-40')
    """
    name = f"{prefix}-{folder.name}"
    paths = (folder.with_name(name if number == 1 else f"{name}-{number}") for number in count(1))
    return folder.rename(next(path for path in paths if not os.path.lexists(path)))


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds, if it exists.

    Raises:
        OSError: it is a link or a file, or something in it cannot be removed.
    """
    if os.path.lexists(folder):
        shutil.rmtree(folder)


# ---- Files ----


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A file to write into, which takes the place of `path` once it is whole: what was there is never lost.

    A link is replaced by the file; what it points to stays as it is.

    Raises:
        OSError: it could not be written, on a full disk for example; it names `path`.

    Example:
        >>> with written_beside(Path("results.json")) as file:  # doctest: +SKIP
        ...     file.write_text("{}")
    """
    beside = path.with_name(f"{PART_PREFIX}{path.name}")
    try:
        # Of a run that was killed, or a link.
        beside.unlink(missing_ok=True)
        yield beside
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def model_beside(folder: Path) -> Iterator[Path]:
    """A folder to save a model into, whose files take their places in `folder` once all of them are whole.

    Links in `folder` are replaced, and what they point to stays as it is. Weights of an older model that the new one
    does not have, such as those in several files, are removed: they would be loaded in place of the new ones.

    Raises:
        OSError: a file could not be written, on a full disk for example; `folder` is as before.

    Example:
        >>> with model_beside(Path("out")) as beside:  # doctest: +SKIP
        ...     model.save_pretrained(beside)
    """
    beside = folder / f"{PART_PREFIX}model"
    folder.mkdir(parents=True, exist_ok=True)
    if beside.is_symlink():
        beside.unlink()
    remove_folder(beside)
    beside.mkdir()
    try:
        yield beside
        weights = {path.name for path in beside.iterdir() if _WEIGHTS.fullmatch(path.name)}
        for path in sorted(beside.rglob("*")):
            _take_place(path, folder / path.relative_to(beside))
        for path in folder.iterdir() if weights else ():
            if _WEIGHTS.fullmatch(path.name) and path.name not in weights:
                path.unlink()
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _take_place(new: Path, old: Path) -> None:
    """Move a file to its place; of a folder, only make it, for the files in it."""
    if not new.is_dir():
        os.replace(new, old)
        return
    if old.is_symlink():
        old.unlink()
    old.mkdir(exist_ok=True)


# ---- Locks ----


# The locks of this process: the open file, None where there are no locks, and the thread that is inside.
_held: dict[Path, tuple[int | None, int]] = {}


@contextmanager
def alone(lock: Path, busy: str, again: bool = False) -> Iterator[None]:
    """No other process, and no other thread, is inside with the same lock file.

    The system gives the lock back when the process ends, however it ends. Where the file system has no locks, a
    warning says so.

    Args:
        lock: the lock file; it is made, with its folder, and removed at the end.
        busy: the sentence for the case that another one is inside.
        again: whether a thread that is inside may go in again.

    Raises:
        UsageError: another one is inside, or the file cannot be made.
        OSError: the disk is full.

    Example:
        >>> with alone(Path("out/_in-use.lock"), "another run writes into out"):  # doctest: +SKIP
        ...     ...
    """
    folder = lock.parent.resolve()
    lock = folder / lock.name
    if again and lock in _held and _held[lock][1] == threading.get_ident():
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _lock(lock, busy)
        try:
            yield
        finally:
            _unlock(lock)
    finally:
        for each in made:
            # Nothing was written, as when a later check refused the command.
            with suppress(OSError):
                each.rmdir()


def _lock(lock: Path, busy: str) -> None:
    """Lock the file, and note that in `_held`; where that is not possible at all, warn."""
    while True:
        descriptor = _opened(lock)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                os.close(descriptor)
                raise UsageError(busy) from None
            _remove(lock, descriptor)
            logger.warning(
                f"{lock.parent} cannot be locked ({error.strerror.lower()}): take care that no other command writes "
                "there at the same time."
            )
            _held[lock] = None, threading.get_ident()
            return
        # Another process may have removed the file between the two calls: that lock would be of no file.
        if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
            _held[lock] = descriptor, threading.get_ident()
            return
        os.close(descriptor)


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno in _FULL:
            raise
        if lock.is_symlink():
            refuse_links([lock])
        raise UsageError(
            f"the lock file {lock} cannot be made ({error.strerror.lower()}); allow that, or give another place"
        ) from error


def _unlock(lock: Path) -> None:
    # In a fork there is none.
    descriptor, _ = _held.pop(lock, (None, None))
    if descriptor is not None:
        _remove(lock, descriptor)


def _remove(lock: Path, descriptor: int) -> None:
    """Remove a lock file, before its lock is given back; one with content is something else's."""
    if not os.fstat(descriptor).st_size:
        lock.unlink(missing_ok=True)
    os.close(descriptor)


def _forget_locks() -> None:
    """In a fork, such as a process that loads data: it must not keep the lock when its parent is killed."""
    for descriptor, _ in _held.values():
        if descriptor is not None:
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
