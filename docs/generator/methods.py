"""The table of methods with the options, and a page for each file of methods."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import hf_mixup.methods
from docs.generator.tables import DOCS, table
from hf_mixup.methods import METHODS
from hf_mixup.methods.table import rows
from hf_mixup.trainer import MixupTrainingArguments


def method_module(key: str) -> str:
    """The file of `hf_mixup.methods` that a method stands in."""
    for path in sorted(Path(hf_mixup.methods.__file__).parent.glob("*.py")):
        if re.search(rf'name="{key}"', path.read_text(encoding="utf-8")):
            return path.stem
    raise LookupError(f"No file of hf_mixup.methods defines {key}.")


# The files that define methods, in the order of METHODS; plain fine-tuning needs no page.
MODULES = tuple(dict.fromkeys(method_module(name) for name in METHODS if METHODS[name].paper))
HEADER = """# Methods

Each name goes to `--mixup_method`; the next three columns are its defaults, which the options below change. Layers are
counted as in `output_hidden_states`: 0 is the embedding output, k is block k, N the number of blocks. Generated from
the code by `python docs/generate.py`.

"""


def pages() -> dict[Path, str]:
    """The pages by path."""
    found = {DOCS / "methods.md": HEADER + _table() + "\n" + _options()}
    for name in MODULES:
        module = importlib.import_module(f"hf_mixup.methods.{name}")
        title, _, body = inspect.getdoc(module).partition("\n")
        names = ", ".join(f"`{key}`" for key in METHODS if method_module(key) == name)
        footer = f"\nMethods: {names}. All methods and their defaults: [methods.md](../methods.md).\n"
        found[DOCS / "methods" / f"{name}.md"] = f"# {title.rstrip('.')}\n{body.rstrip()}\n{footer}"
    return found


def _table() -> str:
    head = ("method", "where", "own share", "with whom", "cost", "paper")
    cells = []
    for row in rows():
        module = method_module(row.name)
        name = f"[`{row.name}`](methods/{module}.md)" if module in MODULES else f"`{row.name}`"
        cells.append((name, row.where, row.how_much, row.with_whom, row.cost, row.paper))
    return table(head, cells)


def _options() -> str:
    options = [field for field in fields(MixupTrainingArguments) if field.name.startswith("mixup_")]
    cells = ((f"`--{field.name}`", field.metadata["help"]) for field in options)
    return "## Options\n\n" + table(("option", "meaning"), cells)
