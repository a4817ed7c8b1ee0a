"""What methods came to: the results of the grids, each with a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from docs.generator import gpu
from docs.generator.tables import DOCS, table
from hf_mixup.compare.blocks import Picture, Section
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.grid import Cell, method_name, parse_seeds
from hf_mixup.compare.report import markdown
from hf_mixup.compare.results import Results
from hf_mixup.compare.sections import opening, sections
from hf_mixup.demo.run import MINILM
from hf_mixup.glue.settings import read_settings

# The files of hf-mixup compare in docs/results, each with a page of its own in docs/evidence.
GRIDS = {
    "fast_settings": (
        "Batches of alike length",
        "Whether the [fast settings](fast_training.md) change how well models get: up to 1000 training rows, two "
        "epochs, learning rate 1e-4, batch 32, MiniLM weights; every text is padded to the longest of its batch, "
        "batches are random or grouped by length, and AMPLIFY then has the partner `neighbour`.",
    ),
    "label_noise": (
        "Wrong labels on TREC",
        "600 training rows (six classes), a share of which has labels that were made wrong at random; validation and "
        "test labels are right. MiniLM weights, 8 epochs, learning rate 1e-4, batch 32, the last model.",
    ),
    "alpha": (
        "How much to mix under wrong labels",
        "The settings of the section before with 40 % wrong labels, and alpha from 0.1 to 2 for two ways of mixing. "
        "`none` and `amplify-code:alpha=0.4:ratio=beta-max` were trained again, on another kind of processor.",
    ),
    "label_noise_confirmation": (
        "Wrong labels on TREC: what led, on ten other seeds",
        "The same settings with 40 % wrong labels, and seeds that chose nothing: the method and the number of seeds "
        "were fixed before any of these was run. Plain fine-tuning for half of the epochs, which learns fewer wrong "
        "labels by heart too, stands beside it.",
    ),
    "label_noise_hausa": (
        "The wrong labels of distant supervision",
        "Titles of Hausa news (five topics), 600 training rows whose labels were given by rules and are wrong for "
        "half of them, dependent on class and text. MiniLM weights, which hardly know the language; 8 epochs, "
        "learning rate 1e-4, batch 32, the last model.",
    ),
    "core_methods": (
        "Every method at its defaults",
        "TREC (six classes), RTE (pairs) and Banking77 (77 intents), 300 training rows of each. MiniLM weights, 8 "
        "epochs (RTE: 5, Banking77: 15), learning rate 1e-4, batch 32, the last model. Nothing was tuned for any "
        "method: this shows how all of them train at their defaults, not which is best.\n\n"
        "On RTE plain fine-tuning itself ends at the share of the more frequent class (52.7 %): from these rows "
        "nothing learns it, and it says nothing of mixup. `batchmixup` ends below the share of the most frequent "
        "class of TREC: its loss lets the rows of the classifier collapse onto each other, and the plain second half "
        "does not bring them apart again; `batchmixup-code` suffers from mixed points that are nearly alike "
        "([why](methods/batchmixup.md)). `attentionmix` has the head of its paper, which was chosen for other "
        "weights.",
    ),
    "batchmixup_fractions": (
        "BatchMixup on fractions of the training set",
        "The fractions of the paper's Table 1 on RTE and Banking77. MiniLM weights, 6 epochs, learning rate 1e-4, "
        "batch 32, the last model.",
    ),
    "amplify_tables": (
        "AMPLIFY's number of draws and layers",
        "The paper's Tables 1 and 4 on TREC, MRPC and SST-5, 300 training rows of each, with the thirds of the depth. "
        "MiniLM weights, 8 epochs, learning rate 1e-4, batch 32, the last model.",
    ),
    "more_tasks": (
        "Four more tasks",
        "MRPC, SST-2, SST-5 and TREC with 50 classes, up to 1000 training rows. MiniLM weights, 6 epochs (50 classes: "
        "12), learning rate 1e-4, batch 32, the last model.",
    ),
    "clinc150": (
        "150 intents, and texts of none of them",
        "CLINC150 with ten training texts of each intent, and its out-of-scope test texts. MiniLM weights, 12 epochs, "
        "learning rate 1e-4, batch 32, the last model.",
    ),
    "full_sizes": (
        "Whole training sets",
        "All training rows of seven tasks. MiniLM weights, 4 epochs, learning rate 1e-4, batch 32, the last model.",
    ),
}
PROGRESS = """## What was run, and what was not

The planned grids, and how many runs of each are there. They are CPU runs; a grid goes on where it stopped,
`hf-mixup compare GRID.yaml --jobs 2 --output docs/results/NAME.jsonl` in the folder of the data sets and
`python docs/generate.py` after it.

"""


def pages() -> dict[Path, str]:
    """The pages by path."""
    found = {DOCS / "results.md": "# Results\n\n" + _evidence() + gpu.compared() + "\n" + PROGRESS + _progress()}
    for name, parts in _grids().items():
        found[DOCS / "evidence" / f"{name}.md"] = markdown(
            parts, GRIDS[name][0], opening(evidence()[name]), f"../figures/{name}_", ".svg"
        )
    return found


def figures() -> dict[Path, Picture]:
    """The figures by path."""
    return {
        DOCS / "figures" / f"{name}_{picture.name}.svg": picture
        for name, parts in _grids().items()
        for part in parts
        for picture in part.pictures
    }


@cache
def evidence() -> dict[str, Evidence]:
    """The runs of each file of results that is there, sorted for a report."""
    files = {name: DOCS / "results" / f"{name}.jsonl" for name in GRIDS}
    return {name: Evidence(Results(file).lines.values()) for name, file in files.items() if file.exists()}


@cache
def _grids() -> dict[str, list[Section]]:
    """The sections of the report on each of them."""
    return {name: sections(found, f"{name}.jsonl") for name, found in evidence().items()}


def _evidence() -> str:
    """The results of each grid, with the link to its page."""
    parts = []
    for name, found in _grids().items():
        title, text = GRIDS[name]
        due, there = _due_and_there(name)
        text += "" if there == due else f" {there} of the {due} runs are there."
        tables = [each for part in found if part.title in ("Results", "What came out") for each in part.tables]
        notes = [note for part in found if part.title == "Results" for note in part.text]
        _, _, body = markdown([Section(title, notes, tables)], "").partition(f"## {title}\n")
        page = f"[evidence/{name}.md](evidence/{name}.md)"
        parts.append(
            f"## {title}\n\n{text}\n\n{opening(evidence()[name])}\n\n{body.strip()}\n\n"
            f"Intervals, curves and how to run it again: {page}.\n\n"
        )
    return "".join(parts)


def _progress() -> str:
    """How many runs of each grid are there."""
    cells = []
    for name, (title, _) in GRIDS.items():
        results = f"[{name}](evidence/{name}.md)" if name in evidence() else ""
        cells.append((f"[{name}.yaml](../benchmarks/grids/{name}.yaml)", title, *_due_and_there(name), results))
    return table(("grid", "about", "runs", "of these made", "results"), cells)


def _due_and_there(name: str) -> tuple[int, int]:
    """How many runs a grid has, and how many of them are there."""
    due = cells_of(read_settings(str(DOCS.parent / "benchmarks" / "grids" / f"{name}.yaml"), "grid file"))
    done = {run["key"] for run in evidence()[name].runs} if name in evidence() else set()
    return len(due), sum(cell.key in done for cell in due)


def cells_of(settings: Mapping[str, Any]) -> list[Cell]:
    """The cells of a grid file, without a look at the data, which need not be there."""

    def entries(name: str, default: Any) -> list[Any]:
        found = settings.get(name, default)
        return found if isinstance(found, list) else [found]

    tasks = [task if isinstance(task, str) else task.get("name") or task["folder"] for task in entries("tasks", ())]
    sizes, noise = map(str, entries("sizes", "all")), map(float, entries("noise", 0))
    methods = [method_name(str(words))[0] for words in entries("methods", ())]
    axes = product(tasks, sizes, noise, methods, parse_seeds(entries("seeds", "1-5")))
    return [Cell(task, MINILM, size, share, method, seed) for task, size, share, method, seed in axes]
