"""Write the pages that follow from the code and from the raw results: the table of methods, a page for each file of
methods, the families, the accuracies, the step times, and the example of a model card.

    python docs/generate.py

A test fails when a page is not what this writes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

import hf_mixup.methods
from hf_mixup.compare.blocks import Section
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.grid import Cell, parse_seeds, read_grid_file
from hf_mixup.compare.report import markdown
from hf_mixup.compare.results import Results
from hf_mixup.compare.sections import sections
from hf_mixup.compare.statistics import BASELINE, Row, holm, percent, seed_difference, summarize
from hf_mixup.demo.run import MINILM
from hf_mixup.methods import METHODS, Mixup
from hf_mixup.methods.table import rows
from hf_mixup.mixing.plan import LAYER_SITES, SITES, PairPlan, Plan, SpanPlan, StepKey
from hf_mixup.modeling.auto import MODELS
from hf_mixup.trainer import MixupTrainingArguments
from hf_mixup.trainer.model_card import CardFacts, model_card
from tests.tiny import PAD, tiny_batch, tiny_model

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
RESULTS = """## Every method at its defaults

Every method with its own defaults, against plain fine-tuning, on the first {rows} training rows of TREC (six coarse
classes) and its 500 test rows: MiniLM weights (a 6-layer BERT), 10 epochs, learning rate 1e-4, batch 32, the last
model, no choice by the test set. Mean and standard deviation over the seeds, in percent; the differences are paired by
seed. The step time is that of a mixed step over a plain one, from [performance.md](performance.md).

With {seeds} seeds little is sure: p is that of the paired t over the seeds, corrected by Holm for the number of
methods, and clear are only differences with a p below 0.05. Nothing was tuned for any method: this shows how all of
them train at their defaults, not which is best.

What falls far behind: `batchmixup` ends near the share of the most frequent class (27.6 %). Its loss lets the rows of
the classifier collapse onto each other, and the plain second half does not bring them apart again;
`batchmixup-code` suffers from mixed points that are nearly alike ([why](methods/batchmixup.md)). `attentionmix` with
the head of its paper, which was chosen for other weights, loses accuracy, and macro F1 through a rare class.

"""
PERFORMANCE = """# Performance

The time of a mixed training step over that of a plain step of the stock `Trainer`, alternating in one process on the
same batches: median of the pairs with a 95 % bootstrap interval. The mix is forced on in every step, where AMPLIFY's
own draws leave 37 % of the steps plain. Peak memory is that of model, optimizer and steps, in a process of its own for
each side.

The machine is two cores of a shared host, on which one and the same step takes about 5 to 10 % more or less time from
round to round. A hundred rounds so tell 1 % from nothing hardly ever: read the intervals. The lines of a batch of 32 x
128, and `amplify` and `embedmix` on BERT-base, were measured with nothing else running but short commands of the
lowest priority, the other lines of BERT-base beside tests of that priority, which fill what time is left (its plain
steps then took 5.6 seconds at first and 7.6 in the end), most lines of 16 x 64 beside other work. Of one run all
methods share the plain steps, and so their noise.

"""
COLUMNS = """
"At most" is what the project aims at. Frames are what `torch.compile` compiles for mixed and plain steps together
while lambda, partner and layer change, with the number that is due: one for each site and one for plain steps. Added
are the calls of a mixed step that a plain one does not have: operators on a CPU, nested ones included, kernel launches
on a GPU; and the times that the host waits for a value of the device (on a CPU: reads the value of a tensor), where
`Trainer`'s own two looks at each loss give way to one of the guard against losses that are no numbers. Where whole
batches are mixed, torch's `one_hot` looks at its classes twice, on a CPU and there alone.

![Step-time ratios with their intervals and limits](figures/step_time.svg)
"""
MEASURE = """
`make bench` measures a small set in about five minutes. To measure anew, on a machine that has nothing else to
do (`--suite full` has all methods on both models, and takes hours):

```bash
python benchmarks/step_time.py --suite targets --threads 2 --output docs/results/step_time.jsonl
python benchmarks/step_time.py --suite quick --pairs 100 --threads 2 --output docs/results/step_time.jsonl
python benchmarks/growth.py --threads 2 --output docs/results/growth.jsonl
python docs/generate.py
```

Other models, methods and devices: `python benchmarks/step_time.py --help`.
"""
OPERATORS = """
## What a mixed step adds

Whole steps differ by chance more than by mixing. So here steps of both kinds are profiled, and their operators set
against each other: one that a mixed step calls more often, with inputs of the same shapes, counts with these calls and
their mean time; what it leaves out counts negative. Shares are of the time of all operators of a plain step. Host is
what it takes to get a batch with its plan longer than without one, whatever the model. The mix itself is the gather
(`index_select`) and the `lerp_`. Python's own time between operators is in neither number. Of two passes, or with
clean rows along, the whole steps above are the better measure: the matrix products vary more than all else.

"""
MEMORY = """
## What the C library does with memory

On a CPU the C library (glibc) takes every block of over 32 MB from the system anew, and gives it back when it is
freed; the system fills it with zeros, page by page, as it is touched. At 32 x 128 tensors of the feed-forward layers
have 25 MB, and with clean and mixed rows together 50 MB. So what is beyond 1 + (N - k) / N in such a step is the
allocator's, and goes away when it keeps memory ("all kept" below):

```bash
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python run_glue_mixup.py ...
```

Of smaller blocks it keeps some that are freed, more or fewer as they happen to lie. So the peak memory of the table
above differs by a percent or two where nothing more is alive: with every block of over 64 kB given back at once, the
peak is that of the tensors.

"""
WHOLE_RUNS = """
## Whole runs

`run_glue_mixup.py` against the stock `run_glue.py` of transformers' examples: MiniLM weights, {rows} training rows and
all validation rows, one epoch, each run a process of its own with an empty cache, so that start, tokenizing and
evaluation count. The defaults of both scripts pad every text to 128 tokens; the fast settings are those of
[fast_training.md](fast_training.md). The numbers are ratios to the stock run of the same round, the median of them
where there are several rounds. So short a training says nothing about accuracy; that is
[compared](evidence/fast_settings.md) on longer ones.

"""
GROWTH = """
## Growth

Seconds and peak memory of a step of a small model against batch, length and depth; and of an epoch without the model
against the rows of the training set: set-up, data and plans. The numbers are the slopes of lines through the
logarithms, where 1 is proportional and memory for every pair of rows would come near 2.

![Seconds and memory on logarithmic axes](figures/growth.svg)

"""
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
    "label_noise_hausa": (
        "The wrong labels of distant supervision",
        "Titles of Hausa news (five topics), 600 training rows whose labels were given by rules and are wrong for "
        "half of them, dependent on class and text. MiniLM weights, which hardly know the language; 8 epochs, "
        "learning rate 1e-4, batch 32, the last model.",
    ),
    "core_methods": (
        "Three tasks, every method at its defaults",
        "TREC (six classes), RTE (pairs) and Banking77 (77 intents), up to 1000 training rows. MiniLM weights, 6 "
        "epochs (Banking77: 12), learning rate 1e-4, batch 32, the last model.",
    ),
    "batchmixup_fractions": (
        "BatchMixup on fractions of the training set",
        "The fractions of the paper's Table 1 on RTE and Banking77. MiniLM weights, 6 epochs, learning rate 1e-4, "
        "batch 32, the last model.",
    ),
    "amplify_tables": (
        "AMPLIFY's number of draws and layers",
        "The paper's Tables 1 and 4 on TREC, MRPC and SST-5, up to 1000 training rows, with the thirds of the depth. "
        "MiniLM weights, 6 epochs, learning rate 1e-4, batch 32, the last model.",
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
# A grid whose runs stand in the file of another one.
RESULTS_OF = {"alpha": "label_noise"}
PROGRESS = """## What was run, and what was not

The grids below are what these results are to rest on, with the runs that are there. They are CPU runs; a grid goes on
where it stopped, `hf-mixup compare GRID.yaml --jobs 2 --output docs/results/NAME.jsonl` in the folder of the data sets
and `python docs/generate.py` after it.

"""
# The two claims are about right and wrong labels; batches of alike length say nothing of them.
CLAIM_GRIDS = tuple(name for name in GRIDS if name != "fast_settings")
CLAIMS = """# Two claims of the literature, checked

On the runs of the [results](results.md), every method against `none` on the same seeds. Better and worse are called
where the interval of the difference, corrected by Holm for the methods of a setting, excludes 0; the intervals in the
tables are these. Generated from the raw output by `python docs/generate.py`.

## Mixup halves the calibration error

The claim: mixup of inputs, hidden layers or sentence embeddings lowers the calibration error of BERT by up to 50 %
(Zhang and Vaidya 2021, [arXiv 2102.11402](https://arxiv.org/abs/2102.11402)).

Measured: the expected calibration error over 15 bins on the test rows, times 100, as trained and after dividing the
logits by the temperature that fits the validation rows best. The intervals are of Student's t over the seeds, on these
test rows.

{calibration}
## Mixup is robust to wrong labels

The claim: a network trained with mixup learns wrong labels by heart less, and is more accurate for it (Zhang et al.
2018, [arXiv 1710.09412](https://arxiv.org/abs/1710.09412), for images).

Measured: accuracy on the test rows, times 100, and the share of the rows with a wrong label whose wrong label the
model gives after the training. The intervals of the accuracy are of a bootstrap over seeds and test rows, those of
what was learned of Student's t over the seeds.

{noise}"""
FAMILIES = """# Families

`AutoMixupModelForSequenceClassification` takes these, by the `model_type` of their checkpoints. Each cell was run on a
tiny random model of the family: its sites, and each method with its defaults. Generated by `python docs/generate.py`.

{table}
What the sites mean:

- **Encoders like BERT** (ALBERT, BERT, CamemBERT, DeBERTa-v2 and v3, DistilBERT, ELECTRA, MPNet, RoBERTa,
  XLM-RoBERTa): `attention` is the output of multi-head self-attention, `attention_block` what comes after its dense
  layer, dropout, residual and LayerNorm, `hidden` k the output of block k. In DistilBERT and MPNet `attention` is
  after the dense layer, which is the same for every ratio but one per feature: an affine map commutes with a mix.
  ALBERT shares its weights between blocks: block k is pass k.
- **ModernBERT, GPT-2, Llama, Qwen2, Qwen3** normalise before attention: `attention` is the output of their attention
  module, after its dense layer and dropout, `attention_block` the residual stream to which it was added, `hidden` k
  the residual stream after block k. Nothing is normalised in between.
- **Decoders** (GPT-2, Llama, Qwen2, Qwen3): positions look back only, and the classifier reads the last token. After
  mixing that is the last position that the policy of the attention mask shows: with `own` the row's own last, so
  that nothing of a longer partner beyond it counts; with `union` the last of the longer of both. `pooled` mixes the
  vectors of both rows' own last tokens. Their tokenizers put nothing between the two texts of a pair, so SSMix swaps
  one span in both together. Mixed passes neither read nor fill a cache.

Activation checkpointing works wherever transformers has it: not in ALBERT and MPNet. DeBERTa checkpoints with a
convolution (`conv_kernel_size` above 0) do not mix. To add a family: [add_a_family.md](add_a_family.md).
"""
CARD = """# A model card

What `run_glue_mixup.py` and `MixupTrainer.create_model_card` write as `README.md` beside the model: here that of a
short run on the first 1000 rows of MRPC, from [its facts](results/model_card_example.json).

````markdown
{card}````
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
    seeds = {run["seed"] for run in runs}
    # A table of some of the methods, or of one seed, would mislead.
    if len(seeds) > 1 and len(runs) == len(seeds) * len(METHODS):
        header = RESULTS.format(rows=runs[0]["settings"]["max_train_samples"], seeds=len(seeds))
        own = header + _accuracies(runs) + _origin(runs, "methods_on_trec.jsonl")
        found[DOCS / "results.md"] = "# Results\n\n" + _evidence() + own + "\n" + PROGRESS + _progress()
    for name, parts in _grids().items():
        found[DOCS / "evidence" / f"{name}.md"] = markdown(parts, GRIDS[name][0], f"../figures/{name}_", ".svg")
    evidence = _claim_evidence()
    if evidence:
        calibration, noise = _calibration_claim(evidence), _noise_claim(evidence)
        found[DOCS / "claims.md"] = CLAIMS.format(calibration=calibration, noise=noise)
    times = _lines("step_time.jsonl")
    if times:
        page = PERFORMANCE + _ratios(times) + COLUMNS + _origin(times, "step_time.jsonl") + MEASURE
        memory = _lines("memory.jsonl")
        if memory:
            page += MEMORY + _memory(memory) + _origin(memory, "memory.jsonl")
        operators = _lines("added_operators.jsonl")
        if operators:
            page += OPERATORS + _added(operators) + _origin(operators, "added_operators.jsonl")
        growth = _lines("growth.jsonl")
        if growth:
            page += GROWTH + _slopes(growth) + _origin(growth, "growth.jsonl")
        whole = _lines("end_to_end.jsonl")
        if whole:
            page += WHOLE_RUNS.format(rows=whole[0]["rows"]) + _whole_runs(whole)
            page += _origin(whole, "end_to_end.jsonl")
        found[DOCS / "performance.md"] = page
    found[DOCS / "families.md"] = FAMILIES.format(table=_families())
    facts = json.loads((DOCS / "results" / "model_card_example.json").read_text(encoding="utf-8"))
    found[DOCS / "model_card_example.md"] = CARD.format(card=model_card(CardFacts(**facts)))
    return found


@cache
def _grids() -> dict[str, list[Section]]:
    """The sections of the report on each file of results that is there."""
    files = {name: DOCS / "results" / f"{name}.jsonl" for name in GRIDS}
    return {name: sections(Results(file).lines.values(), file.name) for name, file in files.items() if file.exists()}


def _evidence() -> str:
    """The results of each grid, with the link to its page."""
    parts = []
    for name, found in _grids().items():
        title, text = GRIDS[name]
        tables = [table for part in found if part.title in ("Results", "What came out") for table in part.tables]
        notes = [note for part in found if part.title == "Results" for note in part.text]
        _, _, body = markdown([Section(title, notes, tables)], "").partition(f"## {title}\n")
        page = f"[evidence/{name}.md](evidence/{name}.md)"
        parts.append(
            f"## {title}\n\n{text}\n\n{body.strip()}\n\nIntervals, curves and how to run it again: {page}.\n\n"
        )
    return "".join(parts)


def _progress() -> str:
    """How many runs of each grid are there."""
    cells = []
    for path in sorted((DOCS.parent / "benchmarks" / "grids").glob("*.yaml")):
        due = _cells_of(read_grid_file(str(path)))
        name = RESULTS_OF.get(path.stem, path.stem)
        file = DOCS / "results" / f"{name}.jsonl"
        done = {run["key"] for run in _lines(file.name) if run["kind"] == "run" and run["status"] == "done"}
        there = sum(cell.key in done for cell in due)
        results = f"[{name}](evidence/{name}.md)" if file.exists() else ""
        cells.append((f"[{path.name}](../benchmarks/grids/{path.name})", GRIDS[name][0], len(due), there, results))
    return _rows(("grid", "about", "runs", "of these made", "results"), cells)


def _cells_of(settings: Mapping[str, Any]) -> list[Cell]:
    """The cells of a grid file, without a look at the data, which need not be there."""

    def entries(name: str, default: Any) -> list[Any]:
        found = settings.get(name, default)
        return found if isinstance(found, list) else [found]

    tasks = [task if isinstance(task, str) else task.get("name") or task["folder"] for task in entries("tasks", ())]
    sizes, noise = map(str, entries("sizes", "all")), map(float, entries("noise", 0))
    axes = product(tasks, sizes, noise, entries("methods", ()), parse_seeds(entries("seeds", "1-5")))
    return [Cell(task, MINILM, size, share, method, seed) for task, size, share, method, seed in axes]


@cache
def _claim_evidence() -> list[Evidence]:
    """The runs that tell of the claims, a file at a time."""
    files = (DOCS / "results" / f"{name}.jsonl" for name in CLAIM_GRIDS)
    return [Evidence(Results(file).lines.values()) for file in files if file.exists()]


def _calibration_claim(found: Iterable[Evidence]) -> str:
    """How often the calibration error fell, in words and in a table."""
    head = ["data", "labels made wrong", "method", "seeds", "ECE, `none`", "ECE", "times", "difference", "verdict"]
    head += ["ECE scaled, `none`", "ECE scaled", "times", "difference", "verdict"]
    cells, verdicts, ratios = [], {"ece": [], "ece_scaled": []}, {"ece": [], "ece_scaled": []}
    for evidence in found:
        rows = {name: {(row.setting, row.method): row for row in summarize(evidence.runs, name)} for name in verdicts}
        for row in rows["ece"].values():
            if row.difference is None:
                continue
            cell = [row.setting.task, percent(row.setting.noise), f"`{row.method}`", row.pairs]
            for name, by_method in rows.items():
                own = by_method.get((row.setting, row.method))
                # Without a single wrong validation row no temperature fits, and nothing is scaled.
                if own is None or own.difference is None:
                    cell += [""] * 5
                    continue
                plain = by_method[row.setting, BASELINE]
                ratios[name].append(own.mean / plain.mean)
                verdicts[name].append(own.verdict)
                cell += [f"{100 * plain.mean:.1f}", f"{100 * own.mean:.1f}", f"{ratios[name][-1]:.2f}"]
                cell += [_difference(own), own.verdict]
            cells.append(cell)
    words = ""
    for name, label in (("ece", "As trained"), ("ece_scaled", "After temperature scaling")):
        times, clear = ratios[name], verdicts[name]
        words += (
            f"{label}, the error is clearly lower in {clear.count('better')} of {len(times)} comparisons and clearly "
            f"higher in {clear.count('worse')}. It is {min(times):.2f} to {max(times):.2f} times that of `none`, the "
            f"median is {median(times):.2f}; it is at most half in {sum(each <= 0.5 for each in times)}.\n\n"
        )
    return f"{words}{_rows(head, cells)}"


def _noise_claim(found: Iterable[Evidence]) -> str:
    """Accuracy and what was learned by heart of wrong labels, in words and in a table."""
    head = ("data", "labels made wrong", "method", "accuracy by seed", "mean", "difference", "verdict")
    head += ("wrong labels learned", "difference", "verdict")
    cells, verdicts, learned = [], [], []
    for evidence in found:
        by_heart = {(row.setting, row.method): row for row in summarize(evidence.runs, "flipped_rows_memorized")}
        for setting in evidence.settings:
            for method, runs in evidence.in_order(setting):
                if (setting, method) not in by_heart:
                    continue
                row, wrong = evidence.rows[setting, method], by_heart[setting, method]
                scores = sorted((run["cell"]["seed"], 100 * run["metrics"]["accuracy"]) for run in runs)
                cell = [setting.task, percent(setting.noise), f"`{method}`"]
                cell += [" / ".join(f"{score:.1f}" for _, score in scores), f"{100 * row.mean:.1f}"]
                cell += [_difference(row), row.verdict]
                cells.append([*cell, f"{100 * wrong.mean:.1f}", _difference(wrong), wrong.verdict])
                verdicts += [row.verdict] if row.verdict else []
                learned += [wrong.verdict] if wrong.verdict else []
    words = (
        f"Of {len(verdicts)} comparisons on wrong labels the accuracy is clearly better in {verdicts.count('better')} "
        f"and clearly worse in {verdicts.count('worse')}; fewer wrong labels are learned in "
        f"{learned.count('better')}, more in {learned.count('worse')}.\n"
    )
    return f"{words}\n{_rows(head, cells)}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    interval = f" [{100 * row.corrected_low:+.1f}, {100 * row.corrected_high:+.1f}]" if row.pairs > 1 else ""
    return f"{100 * row.difference:+.1f}{interval}"


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
    steps = {
        run["options"]["mixup_method"]: f"{run['ratio_median']:.2f}"
        for run in _lines("step_time.jsonl")
        if run["options"]["model"] == "minilm" and _mixed(run) == run["options"]["mixup_method"]
    }
    head = ("method", "accuracy", "macro F1", "difference to `none` in accuracy, by seed", "p, corrected", "step time")
    seeds = sorted({seed for _, seed in accuracy})
    values = {method: [accuracy[method, seed] for seed in seeds] for method in METHODS}
    mixing = [method for method in METHODS if method != "none"]
    p_values = holm([seed_difference(values[method], values["none"]).p for method in mixing])
    p = dict(zip(mixing, p_values, strict=True))
    cells = []
    for method in METHODS:
        scores = [100 * run["f1_macro"] for run in runs if run["method"] == method]
        row = [f"`{method}`", _spread(values[method]), _spread(scores)]
        if method == "none":
            row += ["", "", "1"]
        else:
            paired = [own - plain for own, plain in zip(values[method], values["none"], strict=True)]
            each = ", ".join(f"{difference:+.1f}" for difference in paired)
            row += [f"{mean(paired):+.1f} ({each})", f"{p[method]:.3f}", steps.get(method, "")]
        cells.append(row)
    return _rows(head, cells)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def _mixed(run: dict) -> str:
    """The method, with what was chosen otherwise than its defaults."""
    names = ("mixup_method", "mixup_site", "mixup_layers", "mixup_clean")
    return " ".join(str(run["options"][name]) for name in names if run["options"].get(name))


def _ratios(runs: list[dict]) -> str:
    head = ("method", "model", "batch x length", "threads", "pairs", "time", "95 % interval", "at most", "peak memory")
    head += ("frames (due)", "calls added", "waits added")
    cells = []
    for run in runs:
        options = run["options"]
        low, high = run["ratio_interval_95"]
        row = [
            f"`{_mixed(run)}`",
            options["model"],
            f"{options['batch']} x {options['length']}",
            options["threads"],
            options["pairs"],
            f"{run['ratio_median']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{run['ratio_target']:.3f}" if "ratio_target" in run else "",
            f"{run['memory_ratio']:.3f}",
            f"{run['compiled_frames']} ({run['compiled_frames_due']})" if "compiled_frames" in run else "",
            *run.get("added_per_step", {"calls": "", "waits": ""}).values(),
        ]
        cells.append(row)
    return _rows(head, cells)


def _memory(lines: list[dict]) -> str:
    head = ("method", "model", "batch x length", "freed blocks", "peak memory, plain, MiB", "ratio", "pairs")
    head += ("page faults, plain", "mixed", "plain step, s", "time", "95 % interval")
    settings = {"MALLOC_MMAP_MAX_": "all kept", "MALLOC_MMAP_THRESHOLD_": "over 64 kB given back"}
    cells = []
    for line in lines:
        options, (low, high) = line["options"], line["ratio_interval_95"]
        kept = settings.get(line["command"].split("=")[0], "over 32 MB given back")
        cell = [f"`{_mixed(line)}`", options["model"], f"{options['batch']} x {options['length']}", kept]
        cell += [f"{line['memory_mib'][0]:.0f}", f"{line['memory_ratio']:.3f}", options["pairs"]]
        cell += [f"{each:.0f}" for each in line["page_faults_median"]]
        times = [f"{line['plain_step_median_seconds']:.2f}", f"{line['ratio_median']:.3f}", f"{low:.3f} to {high:.3f}"]
        # A few pairs tell of memory, not of time.
        cells.append(cell + (times if options["pairs"] >= 10 else [""] * 3))
    return _rows(head, cells)


def _added(lines: list[dict]) -> str:
    head = ("method", "model", "batch x length", "added", "host, ms", "most of it")
    cells = []
    for line in lines:
        options, plain = line["options"], line["plain_seconds"]
        shares = {each["name"].removeprefix("aten::"): each["seconds"] / plain for each in line["operators"]}
        most = [f"{name} {share:.2%}" for name, share in shares.items() if abs(share) >= 5e-5]
        shape = f"{options['batch']} x {options['length']}"
        total = f"{line['added_seconds'] / plain:.2%}"
        host = f"{1000 * line['host_seconds_added']:.2f}"
        cells.append((f"`{_mixed(line)}`", options["model"], shape, total, host, ", ".join(most[:4])))
    return _rows(head, cells)


def _slopes(runs: list[dict]) -> str:
    head = ("against", "from", "to", "time plain", "time mixed", "memory plain", "memory mixed")
    return _rows(
        head,
        (
            (run["axis"], run["sizes"][0], run["sizes"][-1], *(f"{each:.2f}" for each in run["slopes"].values()))
            for run in runs
        ),
    )


def _whole_runs(runs: list[dict]) -> str:
    head = ("data", "script and settings", "rounds", "wall time", "training alone", "CPU time", "peak memory")
    cells = []
    stock = {(run["task"], run["seed"]): run for run in runs if run["side"] == "stock"}
    for task, side in sorted({(run["task"], run["side"]) for run in runs if run["side"] != "stock"}):
        mine = [run for run in runs if (run["task"], run["side"]) == (task, side)]
        ratios = [
            f"{median(run[name] / stock[task, run['seed']][name] for run in mine):.3f}"
            for name in ("seconds", "train_seconds", "cpu_seconds", "peak_mib")
        ]
        cells.append((task, side, len(mine), *ratios))
    return _rows(head, cells)


def figures() -> dict[Path, Figure]:
    """The figures of the performance page by path."""
    found = {DOCS / "figures" / "step_time.svg": _figure_of_ratios(_lines("step_time.jsonl"))}
    growth = _lines("growth.jsonl")
    if growth:
        found[DOCS / "figures" / "growth.svg"] = _figure_of_growth(growth)
    for name, parts in _grids().items():
        for picture in (picture for part in parts for picture in part.pictures):
            found[DOCS / "figures" / f"{name}_{picture.name}.svg"] = picture.draw()
    return found


def _figure_of_ratios(runs: list[dict]) -> Figure:
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for row, run in enumerate(runs):
        median, (low, high) = run["ratio_median"], run["ratio_interval_95"]
        axes.errorbar(median, row, xerr=[[median - low], [high - median]], fmt="o", color="tab:blue", capsize=3)
        if "ratio_target" in run:
            axes.plot(run["ratio_target"], row, "|", color="tab:red", markersize=14)
    names = [f"{_mixed(run)}, {run['options']['model']} {run['options']['batch']}" for run in runs]
    axes.set_yticks(range(len(runs)), names)
    axes.invert_yaxis()
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of a mixed step / plain step (median, 95 % interval; red: at most)")
    return figure


def _figure_of_growth(runs: list[dict]) -> Figure:
    figure = Figure(figsize=(3 * len(runs), 5.5), layout="constrained")
    panels = figure.subplots(2, len(runs), squeeze=False)
    for column, run in enumerate(runs):
        for row, (what, unit) in enumerate((("seconds", "seconds"), ("mib", "MiB at the peak"))):
            axes = panels[row, column]
            for side, line in (("plain", "o-"), ("mixed", "s--")):
                slope = run["slopes"][f"{what}_{side}"]
                axes.loglog(run["sizes"], run[f"{what}_{side}"], line, label=f"{side}, slope {slope:.2f}")
            axes.set_xlabel("rows of the training set" if run["axis"] == "rows" else run["axis"])
            axes.set_xticks(run["sizes"], [str(size) for size in run["sizes"]])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            axes.set_ylabel(unit)
            axes.legend()
    return figure


def _families() -> str:
    """What works in each family, found by running it on tiny models."""
    sites = [site for site in SITES if site != "input_ids"]
    methods = [name for name, method in METHODS.items() if method.site]
    cells = []
    for family in sorted(MODELS):
        model, batch = tiny_model(family), tiny_batch(family)
        works = [site for site in sites if _runs(model, batch, _plan_at(site))]
        drawn = [name for name in methods if _runs(model, batch, _plan_of(name, batch, PAD[family]))]
        row = (
            f"`{family}`",
            "all" if works == sites else ", ".join(works),
            "all" if drawn == methods else ", ".join(drawn),
            "yes" if model.supports_gradient_checkpointing else "no",
        )
        cells.append(row)
    return _rows(("family", "sites", "methods", "activation checkpointing"), cells)


def _plan_at(site: str) -> PairPlan:
    layers = (2,) if site in LAYER_SITES else ()
    return PairPlan(torch.tensor([2, 0, 1, 4, 3]), torch.tensor(0.7), site, layers)


def _plan_of(name: str, batch: dict[str, torch.Tensor], pad: int) -> Plan:
    options = {"attention_head": 0} if name == "attentionmix" else {}
    mixup = Mixup(METHODS[name].with_options(start=0.0, **options), 3, 32, 4, special_ids=[2, 3, pad])
    drawn = (mixup.plan(batch, torch.tensor([0, 1, 2, 0, 1]), StepKey(0, step=step)) for step in range(99))
    plan = next(plan for plan in drawn if plan is not None)
    return plan.tapped(torch.zeros(*batch["input_ids"].shape, 32)) if isinstance(plan, SpanPlan) else plan


def _runs(model: torch.nn.Module, batch: dict[str, torch.Tensor], plan: Plan) -> bool:
    """Whether the model runs the plan and it changes the logits (the clean pass of ssmix may not)."""
    try:
        with torch.no_grad():
            mixed, plain = model.eval()(**batch, mixup=plan).logits, model(**batch).logits
    except ValueError:
        return False
    return isinstance(plan, SpanPlan) or mixed.shape != plain.shape or not torch.allclose(mixed, plain)


def _table() -> str:
    head = ("method", "where", "own share", "with whom", "cost", "paper")
    cells = []
    for row in rows():
        module = method_module(row.name)
        name = f"[`{row.name}`](methods/{module}.md)" if module in MODULES else f"`{row.name}`"
        cells.append((name, row.where, row.how_much, row.with_whom, row.cost, row.paper))
    return _rows(head, cells)


def _options() -> str:
    options = [field for field in fields(MixupTrainingArguments) if field.name.startswith("mixup_")]
    table = _rows(("option", "meaning"), ((f"`--{field.name}`", field.metadata["help"]) for field in options))
    return f"## Options\n\n{table}"


def _rows(head: Sequence[str], cells: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in cells)]) + "\n"


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # The same input gives the same file: no random names, no date.
    with rc_context({"svg.hashsalt": "hf_mixup", "svg.fonttype": "none"}):
        for path, figure in figures().items():
            path.parent.mkdir(exist_ok=True)
            figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
