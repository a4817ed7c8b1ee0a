"""The page on time and memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from docs.generator import gpu
from docs.generator.tables import DOCS, mixed_words, origin, raw_lines, table
from hf_mixup.compare import figures as drawing
from hf_mixup.compare.blocks import Picture

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
_LARGE_UNITS = (("cpu_seconds", "CPU seconds"), ("peak_mib", "MiB at the peak"))
LARGE_FILES = """
## Large files

One training step of MiniLM on a CSV file of texts of eight words, by the stock `run_glue.py` (of January 2026) and by
`run_glue_mixup.py` with the same flags, each run a process of its own: with an empty cache of `datasets` (cold, so
that all rows are read and turned into tokens), and started once more with the cache that the first run left (warm).
Such a run is the start of a training and little else. CPU time tells more than wall time here, because other work of
the host slows both; medians where there are several rounds.

The peak has the pages of mapped files in it, which the system takes back when it needs them; own memory is the peak
without them. Of this script the peak at {most} rows is {growth} MB above that at {few}, of stock {stock} MB.
With a warm cache this script takes {start} CPU seconds compared with stock at {least} rows, and {end} at {most}.

![CPU time and peak memory against the rows of the file](figures/large_files.svg)

"""


def pages() -> dict[Path, str]:
    """The page by its path."""
    times = raw_lines("step_time.jsonl")
    page = PERFORMANCE + _ratios(times) + COLUMNS + origin(times, "step_time.jsonl") + MEASURE + "\n" + gpu.timed()
    for name, head, numbers in (
        ("memory.jsonl", MEMORY, _memory),
        ("added_operators.jsonl", OPERATORS, _added),
        ("growth.jsonl", GROWTH, _slopes),
        ("large_files.jsonl", _large_files_head(raw_lines("large_files.jsonl")), _large_files),
        ("end_to_end.jsonl", WHOLE_RUNS.format(rows=raw_lines("end_to_end.jsonl")[0]["rows"]), _whole_runs),
    ):
        lines = raw_lines(name)
        page += head + numbers(lines) + origin(lines, name)
    return {DOCS / "performance.md": page}


def figures() -> dict[Path, Picture]:
    """The figures by path."""
    found = (
        ("step_time", figure_of_ratios, "Step-time ratios with their intervals and limits"),
        ("growth", figure_of_growth, "Seconds and memory on logarithmic axes"),
        ("large_files", figure_of_large_files, "CPU time and peak memory against the rows of the file"),
    )
    pictures = [Picture(name, partial(draw, raw_lines(f"{name}.jsonl")), label) for name, draw, label in found]
    return {DOCS / "figures" / f"{picture.name}.svg": picture for picture in pictures}


def _ratios(runs: list[dict]) -> str:
    head = ("method", "model", "batch x length", "threads", "pairs", "time", "95 % interval", "at most", "peak memory")
    head += ("frames (due)", "calls added", "waits added")
    cells = []
    for run in runs:
        options = run["options"]
        low, high = run["ratio_interval_95"]
        row = [
            f"`{mixed_words(run)}`",
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
    return table(head, cells)


def _memory(lines: list[dict]) -> str:
    head = ("method", "model", "batch x length", "freed blocks", "peak memory, plain, MiB", "ratio", "pairs")
    head += ("page faults, plain", "mixed", "plain step, s", "time", "95 % interval")
    settings = {"MALLOC_MMAP_MAX_": "all kept", "MALLOC_MMAP_THRESHOLD_": "over 64 kB given back"}
    cells = []
    for line in lines:
        options, (low, high) = line["options"], line["ratio_interval_95"]
        kept = settings.get(line["command"].split("=")[0], "over 32 MB given back")
        cell = [f"`{mixed_words(line)}`", options["model"], f"{options['batch']} x {options['length']}", kept]
        cell += [f"{line['memory_mib'][0]:.0f}", f"{line['memory_ratio']:.3f}", options["pairs"]]
        cell += [f"{each:.0f}" for each in line["page_faults_median"]]
        times = [f"{line['plain_step_median_seconds']:.2f}", f"{line['ratio_median']:.3f}", f"{low:.3f} to {high:.3f}"]
        # A few pairs tell of memory, not of time.
        cells.append(cell + (times if options["pairs"] >= 10 else [""] * 3))
    return table(head, cells)


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
        cells.append((f"`{mixed_words(line)}`", options["model"], shape, total, host, ", ".join(most[:4])))
    return table(head, cells)


def _slopes(runs: list[dict]) -> str:
    head = ("against", "from", "to", "time plain", "time mixed", "memory plain", "memory mixed")
    return table(
        head,
        (
            (run["axis"], run["sizes"][0], run["sizes"][-1], *(f"{each:.2f}" for each in run["slopes"].values()))
            for run in runs
        ),
    )


def _large_files_head(lines: list[dict]) -> str:
    few, most = 100_000, max(line["rows"] for line in lines)

    def megabytes(side: str) -> str:
        low, high = (
            max(_of_rows(lines, rows, side, state)["peak_mib"] for state in ("cold", "warm")) for rows in (few, most)
        )
        return f"{(high - low) * 2**20 / 1e6:.0f}"

    def more(rows: int) -> str:
        own, stock = (_of_rows(lines, rows, side, "warm")["cpu_seconds"] for side in ("hf_mixup", "stock"))
        return f"{own - stock:+.1f}"

    least = min(line["rows"] for line in lines)
    return LARGE_FILES.format(
        most=f"{most:,}",
        few=f"{few:,}",
        least=f"{least:,}",
        growth=megabytes("hf_mixup"),
        stock=megabytes("stock"),
        start=more(least),
        end=more(most),
    )


def _of_rows(lines: list[dict], rows: int, side: str, state: str) -> dict[str, float]:
    """The medians of all rounds of one kind of run."""
    own = [line for line in lines if (line["rows"], line["side"], line["state"]) == (rows, side, state)]
    names = ("seconds", "cpu_seconds", "peak_mib", "anonymous_mib")
    return {name: median(line[name] for line in own) for name in names}


def _large_files(lines: list[dict]) -> str:
    head = ("rows", "cache", "rounds", "CPU time, stock, s", "ratio", "wall time, stock, s", "ratio")
    head += ("peak memory, stock, MiB", "this script", "own memory, stock, MiB", "this script")
    cells = []
    for rows, state in sorted({(line["rows"], line["state"]) for line in lines}):
        stock, own = (_of_rows(lines, rows, side, state) for side in ("stock", "hf_mixup"))
        cell = [f"{rows:,}", state, max(line["round"] for line in lines if line["rows"] == rows)]
        for name in ("cpu_seconds", "seconds"):
            cell += [f"{stock[name]:.1f}", f"{own[name] / stock[name]:.3f}"]
        for name in ("peak_mib", "anonymous_mib"):
            cell += [f"{stock[name]:.0f}", f"{own[name]:.0f}"]
        cells.append(cell)
    return table(head, cells)


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
    return table(head, cells)


def figure_of_ratios(runs: list[dict]) -> Figure:
    names = [f"{mixed_words(run)}, {run['options']['model']} {run['options']['batch']}" for run in runs]
    ratios = [(run["ratio_median"], *run["ratio_interval_95"]) for run in runs]
    return drawing.draw_ratios(
        names, ratios, [run.get("ratio_target") for run in runs], "mixed step / plain step; bar: at most"
    )


def figure_of_large_files(lines: list[dict]) -> Figure:
    look = drawing.styles(["none", "hf_mixup"])
    look = {"stock": look["none"], "hf_mixup": look["hf_mixup"]}
    sizes = sorted({line["rows"] for line in lines})
    labels = ["run_glue.py", "run_glue_mixup.py"]
    with drawing.panel("", 4.8, look, list(look), columns=2, rows=2, width=7.0, labels=labels) as (figure, *all_axes):
        for number, axes in enumerate(all_axes):
            state, (name, unit) = ("cold", "warm")[number // 2], _LARGE_UNITS[number % 2]
            curves = {side: [_of_rows(lines, rows, side, state)[name] for rows in sizes] for side in look}
            for side, values in curves.items():
                _curve(axes, sizes, values, look[side])
            axes.set_title(f"{state} cache", fontsize=9.5, fontweight="normal")
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            axes.set_xlabel("rows of the file")
            axes.set_ylabel(unit)
            axes.set_ylim(0, 1.1 * max(map(max, curves.values())))
    return figure


def _curve(axes: Axes, sizes: list[int], values: list[float], style: drawing.Style) -> None:
    shape = {"color": style.colour, "marker": style.marker, "linestyle": style.dash}
    axes.plot(sizes, values, **shape, linewidth=1.6, markersize=5)


def figure_of_growth(runs: list[dict]) -> Figure:
    look = drawing.styles(["plain", "mixed"])
    look = {"plain": look["none"], "mixed": look["mixed"]}
    with drawing.panel("", 2.4 * len(runs), look, list(look), columns=2, rows=len(runs), width=7.0) as (
        figure,
        *all_axes,
    ):
        for number, axes in enumerate(all_axes):
            run, (what, unit) = runs[number // 2], (("seconds", "seconds"), ("mib", "MiB at the peak"))[number % 2]
            for side, style in look.items():
                _curve(axes, run["sizes"], run[f"{what}_{side}"], style)
            axes.set_xscale("log")
            axes.set_yscale("log")
            slopes = ", ".join(f"{side} {run['slopes'][f'{what}_{side}']:.2f}" for side in look)
            axes.set_title(f"slope: {slopes}", fontsize=9.5, fontweight="normal")
            axes.set_xlabel("rows of the training set" if run["axis"] == "rows" else run["axis"])
            axes.set_xticks(run["sizes"], [str(size) for size in run["sizes"]])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.set_ylabel(unit)
    return figure
