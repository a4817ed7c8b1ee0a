"""Write the pages that follow from the code: the table of methods, and a page for each file of methods.

    python docs/generate.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields
from pathlib import Path

from hf_mixup.methods import METHODS
from hf_mixup.methods.table import rows
from hf_mixup.trainer import MixupTrainingArguments

DOCS = Path(__file__).parent
MODULES = (
    "amplify",
    "attentionmix",
    "batchmixup",
    "embedmix",
    "sentmix",
    "mixup_transformer",
    "manifold",
    "tmix",
    "nonlinear",
    "ssmix",
)
HEADER = """# Methods

Each name goes to `--mixup_method`; the other columns are its defaults, and each can be changed by an option.
Layers are counted as in `output_hidden_states`: 0 is the embedding output, k is block k, N the number of blocks.
Generated from the code by `python docs/generate.py`.

"""


def pages() -> dict[Path, str]:
    """The generated pages by path."""
    found = {DOCS / "methods.md": HEADER + _table() + "\n" + _options()}
    for name in MODULES:
        module = importlib.import_module(f"hf_mixup.methods.{name}")
        title, _, body = inspect.getdoc(module).partition("\n")
        names = ", ".join(f"`{key}`" for key in METHODS if _module_of(key) == name)
        footer = f"\nMethods: {names}. All methods and their defaults: [methods.md](../methods.md).\n"
        found[DOCS / "methods" / f"{name}.md"] = f"# {title.rstrip('.')}\n{body.rstrip()}\n{footer}"
    return found


def _module_of(key: str) -> str:
    """The file of `hf_mixup.methods` that a method stands in; none of its own for plain fine-tuning."""
    for name in MODULES:
        module = importlib.import_module(f"hf_mixup.methods.{name}")
        if any(value is METHODS[key] for value in vars(module).values()):
            return name
    return ""


def _table() -> str:
    head = ("method", "where", "own share", "with whom", "cost", "paper")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows():
        module = _module_of(row.name)
        name = f"[`{row.name}`](methods/{module}.md)" if module else f"`{row.name}`"
        cells = (name, row.where, row.how_much, row.with_whom, row.cost, row.paper)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _options() -> str:
    lines = ["## Options\n", "| option | meaning |", "|---|---|"]
    for field in fields(MixupTrainingArguments):
        if field.name.startswith("mixup_"):
            lines.append(f"| `--{field.name}` | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
