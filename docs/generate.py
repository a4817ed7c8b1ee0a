"""Write the pages that follow from the code and from the raw results: the table of methods, a page for each file of
methods, the accuracies and the step times.

    python docs/generate.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from statistics import mean, stdev

import hf_mixup.methods
from hf_mixup.methods import METHODS
from hf_mixup.methods.table import rows
from hf_mixup.trainer import MixupTrainingArguments

DOCS = Path(__file__).parent


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
RESULTS = """# Results

Every method with its own defaults, against plain fine-tuning, on the first {rows} training rows of TREC (six coarse
classes) and its 500 test rows: MiniLM weights (a 6-layer BERT), 10 epochs, learning rate 1e-4, batch 32, the last
model, no choice by the test set. Mean and standard deviation over the seeds, in percent; the differences are paired by
seed.

With {seeds} seeds a difference of less than about two standard deviations says nothing, and nothing was tuned for any
method: this shows how all of them train at their defaults, not which is best.

"""
PERFORMANCE = """# Performance

The time of a mixed training step over that of a plain step of the stock `Trainer`, alternating in one process on the
same batches: median of the pairs with a 95 % bootstrap interval. The mix is forced on in every step, where AMPLIFY's
own draws leave 37 % of the steps plain. Peak memory is that of model, optimizer and steps, in a process of its own for
each side.

"""


def pages() -> dict[Path, str]:
    """The generated pages by path."""
    found = {DOCS / "methods.md": HEADER + _table() + "\n" + _options()}
    for name in MODULES:
        module = importlib.import_module(f"hf_mixup.methods.{name}")
        title, _, body = inspect.getdoc(module).partition("\n")
        names = ", ".join(f"`{key}`" for key in METHODS if method_module(key) == name)
        footer = f"\nMethods: {names}. All methods and their defaults: [methods.md](../methods.md).\n"
        found[DOCS / "methods" / f"{name}.md"] = f"# {title.rstrip('.')}\n{body.rstrip()}\n{footer}"
    runs = _lines("methods_on_trec.jsonl")
    if runs:
        seeds = {run["seed"] for run in runs}
        header = RESULTS.format(rows=runs[0]["settings"]["max_train_samples"], seeds=len(seeds))
        found[DOCS / "results.md"] = header + _accuracies(runs) + _origin(runs, "methods_on_trec.jsonl")
    times = _lines("step_time.jsonl")
    if times:
        found[DOCS / "performance.md"] = PERFORMANCE + _ratios(times) + _origin(times, "step_time.jsonl")
    return found


def _lines(name: str) -> list[dict]:
    path = DOCS / "results" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _origin(runs: list[dict], name: str) -> str:
    machines = sorted({run["machine"] for run in runs})
    versions = sorted({", ".join(f"{key} {value}" for key, value in run["versions"].items()) for run in runs})
    commands = sorted({run["command"] for run in runs})
    return (
        f"\nMachine: {'; '.join(machines)}. Versions: {'; '.join(versions)}. Raw output: "
        f"[results/{name}](results/{name}), by\n\n```bash\n" + "\n".join(commands) + "\n```\n"
    )


def _accuracies(runs: list[dict]) -> str:
    accuracy = {(run["method"], run["seed"]): 100 * run["accuracy"] for run in runs}
    lines = ["| method | accuracy | macro F1 | difference to `none` in accuracy, by seed |", "|---|---|---|---|"]
    for method in METHODS:
        seeds = sorted(seed for name, seed in accuracy if name == method)
        values = [accuracy[method, seed] for seed in seeds]
        scores = [100 * run["f1_macro"] for run in runs if run["method"] == method]
        paired = [accuracy[method, seed] - accuracy["none", seed] for seed in seeds]
        each = ", ".join(f"{difference:+.1f}" for difference in paired)
        difference = "" if method == "none" else f"{mean(paired):+.1f} ({each})"
        lines.append(f"| `{method}` | {_spread(values)} | {_spread(scores)} | {difference} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def _ratios(runs: list[dict]) -> str:
    head = "| method | model | batch x length | threads | pairs | time | 95 % interval | peak memory |"
    lines = [head, "|" + "---|" * 8]
    for run in runs:
        options = run["options"]
        low, high = run["ratio_interval_95"]
        cells = (
            f"`{options['mixup_method']}`",
            options["model"],
            f"{options['batch']} x {options['length']}",
            options["threads"],
            options["pairs"],
            f"{run['ratio_median']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{run['memory_ratio']:.3f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _table() -> str:
    head = ("method", "where", "own share", "with whom", "cost", "paper")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows():
        module = method_module(row.name)
        name = f"[`{row.name}`](methods/{module}.md)" if module in MODULES else f"`{row.name}`"
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
