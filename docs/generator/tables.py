"""Tables in Markdown, and where their numbers come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1]


def table(head: Sequence[str], cells: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in cells)]) + "\n"


def raw_lines(name: str) -> list[dict]:
    """The lines of a file of raw output; none if it is not there."""
    path = DOCS / "results" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def origin(runs: list[dict], name: str) -> str:
    """On what, with what and by which commands numbers were measured, and where they stand."""
    machines = sorted({run["machine"] for run in runs})
    versions = sorted({", ".join(f"{key} {value}" for key, value in run["versions"].items()) for run in runs})
    commands = sorted({run["command"] for run in runs})
    return (
        f"\nMachine: {'; '.join(machines)}. Versions: {'; '.join(versions)}. Raw output: "
        f"[results/{name}](results/{name}), by\n\n```bash\n" + "\n".join(commands) + "\n```\n"
    )


def mixed_words(run: dict) -> str:
    """The method, with what was chosen otherwise than its defaults."""
    names = ("mixup_method", "mixup_site", "mixup_layers", "mixup_clean")
    return " ".join(str(run["options"][name]) for name in names if run["options"].get(name))
