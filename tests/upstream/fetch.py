"""The tests of the installed transformers, which only its source distribution holds; nothing of them is kept in git.

python tests/upstream/fetch.py      fetches them and prints the folder
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache"


class FetchError(RuntimeError):
    """pip could not get the source distribution."""


def fetch(cache: Path = CACHE) -> Path:
    """The folder of the tests of the installed version, from the cache or from the package index.

    pip is the one who fetches, so that its index, proxy and certificates are used, and the file's hash is checked
    against the one that the index announces.

    Raises:
        FetchError: pip failed; the message is its last line.
    """
    name = f"transformers-{version('transformers')}"
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _unpack_tests(_download(Path(scratch), name), Path(scratch))
            _move(Path(scratch) / name, folder)
    return folder / "tests"


def _download(scratch: Path, name: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--no-deps", "--no-binary", "transformers", "--dest", scratch, name.replace("-", "==")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if result.returncode:
        raise FetchError(result.stderr.strip().splitlines()[-1])
    return scratch / f"{name}.tar.gz"


def _unpack_tests(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        wanted = [member for member in opened if member.name.startswith(f"{archive.name[: -len('.tar.gz')]}/tests/")]
        opened.extractall(target, members=wanted, filter="data")


def _move(source: Path, target: Path) -> None:
    """In one step, so that nobody sees half a folder; another process may have been faster, with the same content."""
    try:
        os.rename(source, target)
    except OSError:
        if not target.is_dir():
            raise


if __name__ == "__main__":
    sys.stdout.write(f"{fetch()}\n")
