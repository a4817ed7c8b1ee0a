"""The lines that `benchmarks/gpu.py` writes: which checkout they are of, what is done, and the table at the end.

The first line of each call (`kind` is `call`) says on what and with what it runs. A line of a check has its `part`,
`status`, `seconds`, what was `measured`, what that may be `at_most`, and what else is `told`; a later line takes the
place of an earlier one. A line of kind `part` lists the checks of a part.

- `passed`, `failed`: within the limits or not; neither is made again.
- `error`, with a traceback; `unfinished`; `skipped`, with a reason: the next call tries them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from hf_mixup.errors import UsageError
from tests.launching import ROOT

NAME = "gpu.jsonl"
DONE = ("passed", "failed")
WRONG = ("failed", "error")
# What stands for a check where a process ends before its first one.
BEGINNING = "its process"
STATES = ("passed", "failed", "error", "unfinished", "skipped", "not run")
CODE = ("hf_mixup/**/*.py", "benchmarks/**/*.py", "benchmarks/**/*.yaml", "configs/**/*.yaml", "tests/**/*.py")


class Lines:
    """The file of lines of a folder, which this process alone writes to.

    Args:
        out: the folder; it is made if it is not there.
        call: what the first line of this call says; `commit`, `code` and `device` are the same in all calls.

    Raises:
        UsageError: it holds something else, or lines of another checkout or device, or cannot be written.
    """

    def __init__(self, out: Path, call: dict[str, Any]) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._file = open(out / NAME, "a+b", buffering=0)
        except OSError as error:
            raise UsageError(f"{out} cannot be written ({error.strerror}): give another folder") from error
        self._file.seek(0)
        content = self._file.read()
        # What a killed call did not write to its end.
        whole = content[: content.rfind(b"\n") + 1]
        try:
            self.lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            raise UsageError(f"{out / NAME} does not hold lines of benchmarks/gpu.py: give another folder") from None
        for earlier in self.calls():
            check_same(out, earlier, call)
        self._file.truncate(len(whole))
        self.append({"kind": "call", **call})

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, by one write."""
        self._file.write(json.dumps(line).encode() + b"\n")
        os.fsync(self._file.fileno())
        self.lines.append(line)

    def calls(self) -> Iterator[dict[str, Any]]:
        """The first lines of all calls."""
        return (line for line in self.lines if line["kind"] == "call")

    def done(self, part: str) -> list[str]:
        """The checks of a part that need not be made again."""
        return [name for name, line in self.of(part).items() if line["status"] in DONE]

    def of(self, part: str) -> dict[str, dict[str, Any]]:
        """The last line of each check of a part."""
        return latest(self.lines).get(part, {})


def check_same(out: Path, earlier: dict[str, Any], call: dict[str, Any]) -> None:
    """Raise a UsageError if two calls must not write to one folder."""
    if any(earlier[name] != call[name] for name in ("commit", "code")):
        theirs, ours = (f"{each['commit'][:12]}, files {each['code']}" for each in (earlier, call))
        raise UsageError(f"{out} holds the lines of another commit ({theirs}; here {ours}): give a new folder")
    if earlier["device"] != call["device"]:
        raise UsageError(f"{out} holds lines of another device ({earlier['device']}): give a new folder")


def checkout() -> dict[str, str]:
    """The commit, or `unknown` where git does not tell, and what the files are that decide the results."""
    told = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    digest = hashlib.sha256()
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern)}):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return {"commit": told.stdout.strip() or "unknown", "code": digest.hexdigest()[:12]}


def latest(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The last line of each check, by part; a check that has none is `not run`."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        if line["kind"] == "part":
            found[line["part"]].pop(BEGINNING, None)
            for name in line["checks"]:
                found[line["part"]].setdefault(name, {"status": "not run"})
        elif line["kind"] == "check":
            found[line["part"]][line["check"]] = line
    return dict(found)


def too_much(line: dict[str, Any]) -> str:
    """Which numbers of a failed check are beyond their limits."""
    measured = line["measured"]
    pairs = ((name, measured[name], most) for name, most in line["at_most"].items())
    return ", ".join(
        f"{name} {value} (at most {most})" for name, value, most in pairs if value is None or value > most
    )


def tables(lines: Sequence[dict[str, Any]]) -> list[Table]:
    """How many checks of each part came to what, and what did not pass, with its reason."""
    counts = Table(box=SIMPLE, title="What was checked")
    for head in ("part", *STATES, "seconds"):
        counts.add_column(head)
    rest = Table(box=SIMPLE, title="What did not pass")
    for head in ("part", "check", "status", "why"):
        rest.add_column(head, overflow="fold")
    for part, found in latest(lines).items():
        states = Counter(line["status"] for line in found.values())
        seconds = sum(line.get("seconds", 0) for line in found.values())
        counts.add_row(part, *(str(states[state] or "") for state in STATES), f"{seconds:.0f}")
        reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, line in found.items():
            if line["status"] != "passed":
                reasons[line["status"], why(line)].append(name)
        for (status, reason), names in reasons.items():
            shown = names[0] if len(names) == 1 else f"{len(names)} checks, such as {names[0]}"
            rest.add_row(part, shown, status, reason)
    return [counts, rest] if rest.row_count else [counts]


def why(line: dict[str, Any]) -> str:
    """Why a check did not pass."""
    if line["status"] == "failed":
        return too_much(line)
    if line["status"] == "error":
        return line["traceback"].strip().splitlines()[-1][:300]
    if line["status"] == "unfinished":
        return "the time was up: the next call goes on"
    return line.get("reason", "the time was up")
