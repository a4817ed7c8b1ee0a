"""`hf-mixup suggest`: which method to use on a training file, found by successive halving in a given time."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_mixup.compare.data import CellData, load_cell_data, split_off_test
from hf_mixup.compare.grid import Cell, Grid, Task, make_grid, parse_options
from hf_mixup.compare.results import Results, primary_metric
from hf_mixup.compare.run import check_runs, training_arguments
from hf_mixup.compare.runner import MOST_JOBS, run_grid, say
from hf_mixup.compare.statistics import BASELINE, Row, summarize
from hf_mixup.compare.timing import time_steps
from hf_mixup.demo.run import MINILM
from hf_mixup.errors import OneSentenceParser, UsageError, as_one_line, listed, quoted, whole_from
from hf_mixup.glue.loading import load_local_split
from hf_mixup.glue.tables import check_file
from hf_mixup.shown import visible
from run_glue_mixup import DataTrainingArguments

# Cheap ones that mix at different depths, and the two papers whose loss or ratio is another.
CANDIDATES = (
    "amplify",
    "amplify-code:alpha=0.4:ratio=beta-max",
    "embedmix:alpha=0.4",
    "tmix:alpha=0.4",
    "mixup-transformer",
    "ssmix",
)
_TEST_SHARE, _MOST_TEST_ROWS = 0.2, 1000
_VALIDATION_SHARE, _MOST_VALIDATION_ROWS = 0.2, 500
# Flags that need validation rows while it trains.
_EVALUATES = {"eval_strategy", "load_best_model_at_end", "early_stopping_patience", "metric_for_best_model"}
# A larger file is first tried with so many rows, which tell how long all of them would take.
_PILOT_ROWS = 500
_LEAST_ROWS, _LEAST_OF_A_CLASS = 50, 4
# The estimates are of plain steps; some methods take two of them.
_MARGIN = 1.2
# Fewer seeds than these in the last round hardly ever tell anything.
_LAST_SEEDS = 4
_UNITS = {"s": 1, "m": 60, "h": 3600}
# A year.
_LONGEST_BUDGET = 365 * 24 * 3600


@dataclass(frozen=True)
class Round:
    """A round of successive halving.

    Args:
        seeds: how many seeds all of its methods have at its end.
        validation: the mean of the task's metric on the validation rows, by method, over these seeds.
    """

    seeds: int
    validation: dict[str, float]


@dataclass(frozen=True)
class Suggestion:
    """What the rounds found.

    Args:
        method: what to use: the finalist if it is better than `none`, else `none`.
        finalist: the method that did best on the validation rows.
        row: the finalist against `none` on the test rows, which no choice was made by.
        metric: what it is compared by.
        unseen: whether the seeds of `row` took no part in the choice of the finalist; else it looks too good, and is
            not suggested.
        train_rows: how many rows a run trained on.
        rounds: what was kept, round by round.
        failed: the methods that were left out, with their errors.
    """

    method: str
    finalist: str
    row: Row
    metric: str
    unseen: bool
    train_rows: int
    rounds: Sequence[Round]
    failed: dict[str, str]

    @property
    def chance(self) -> float:
        """How sure it is that the finalist is better than `none`, from 0 to 1; nan for one seed."""
        if self.row.seeds < 2:
            return math.nan
        return 1 - self.row.p / 2 if self.row.difference > 0 else self.row.p / 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 2 after one sentence on stderr for a mistake of the user, or a time that is too short; 130
        after Ctrl-C.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> main(["train.csv", "--budget", "30m"])  # doctest: +SKIP
        0
    """
    options = _parser().parse_args(argv)
    console, until = Console(), time.monotonic() + options.budget
    try:
        with tempfile.TemporaryDirectory() as folder:
            grid = _grid(options, Path(folder))
            results = Results(options.output or Path(folder, "suggest.jsonl"))
            results.warn("hf-mixup suggest")
            results.check_grid(grid)
            check_runs(grid)
            found = suggest(grid, results, console, until, options.jobs)
    except UsageError as error:
        sys.stderr.write(f"hf-mixup suggest: {as_one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        kept = "the same command goes on with what is not done yet" if options.output else "nothing was kept"
        sys.stderr.write(f"hf-mixup suggest: stopped; {kept}\n")
        return 130
    console.print(table(found))
    sys.stdout.write(
        f"\n{visible(sentence(found))}\n\nTo train with it:\n\n  {visible(command(found, grid, options))}\n"
    )
    return 0


def suggest(grid: Grid, results: Results, console: Console, until: float, at_once: int = 1) -> Suggestion:
    """Find the method that does best, by successive halving over the seeds.

    Paper: Almost Optimal Exploration in Multi-Armed Bandits. Karnin, Koren, Somekh, 2013.
    https://proceedings.mlr.press/v28/karnin13.html

    The time is divided evenly among the rounds. In each, all methods that are left, and `none`, are trained with as
    many further seeds as it allows, at least one; then the better half by the mean on the validation rows goes on.
    The last one is compared with `none` on the test rows and the seeds of the last round, neither of which it was
    chosen by, with a bootstrap over both. A file that is too large for its time is cut to a subset.

    Args:
        grid: one task and model, and the methods; its seeds and sizes are set here.
        results: where the runs go; those that it has are not made again.
        console: where the progress is shown.
        until: the time of `time.monotonic()` by which it ends.
        at_once: how many runs at once.

    Returns:
        The suggestion.

    Raises:
        UsageError: plain fine-tuning fails, all methods fail, or the time is too short.
    """
    left = [method for method in grid.methods if method != BASELINE]
    rounds_to_go = all_rounds = math.ceil(math.log2(len(left))) + 1
    size, run_seconds, overhead = _choose_size(grid, results, console, until, len(left), rounds_to_go)
    seeds, rounds, failed = 0, [], {}
    chosen_by: set[int] = set()
    while left:
        share = (until - time.monotonic()) / rounds_to_go - overhead
        further = max(1, int(share / (run_seconds * (len(left) + 1))))
        asked = range(1, seeds + further + 1)
        number = all_rounds - rounds_to_go + 1
        say(console, f"Round {number} of {all_rounds}: none against {listed(left)}; seeds {_ends(seeds, further)}")
        start, before = time.monotonic(), len(results.lines)
        run_grid(_part(grid, [BASELINE, *left], asked, size), results, console, at_once, retry=True, until=until)
        made = len(results.lines) - before
        if made:
            run_seconds = max(time.monotonic() - start - overhead, 0.1) / made
        lines = _lines(results, grid, size)
        failed |= {method: error for method in left if (error := _error(results, grid, method, asked, size))}
        left = [method for method in left if method not in failed]
        common = set.intersection(*(set(lines[method]) for method in (BASELINE, *left)))
        if left and len(common) > seeds:
            seeds = len(common)
            worth = {
                method: np.mean([_validation(lines[method][seed]) for seed in common], axis=0).tolist()
                for method in (BASELINE, *left)
            }
            rounds.append(Round(seeds, {method: metric for method, (metric, _) in worth.items()}))
            if len(left) > 1:
                left.sort(key=worth.__getitem__, reverse=True)
                chosen_by = common
        rounds_to_go -= 1
        if rounds_to_go == 0 or time.monotonic() + run_seconds > until:
            break
        left = left[: math.ceil(len(left) / 2)]
    if not left:
        raise UsageError("; ".join(f"{method} failed with {error}" for method, error in failed.items()))
    if not rounds:
        raise UsageError("the time was up before every method was trained once; give more with --budget")
    return _compare(lines, left[0], rounds, chosen_by, failed)


def sentence(found: Suggestion) -> str:
    """The suggestion in words."""
    row, metric = found.row, found.metric.replace("_", " ")
    plain = row.mean - row.difference
    values = f"{metric} {row.mean:.3f} against {plain:.3f} of plain fine-tuning on the held-out test rows"
    seeds = f"{row.seeds} seed{'s' * (row.seeds > 1)}, trained on {found.train_rows} rows"
    text = f"Suggestion: {found.method}"
    if found.failed:
        text = f"Left out, because runs failed: {', '.join(found.failed)}. {text}"
    if row.seeds < 2:
        return (
            f"{text}. There was time for one seed only ({found.finalist}: {values}), which says nothing of others; "
            "give more with --budget."
        )
    gain = f"{row.difference:+.3f}, 95 % interval {row.low:+.3f} to {row.high:+.3f}"
    sure = (
        "more than 99 %" if found.chance > 0.99 else "less than 1 %" if found.chance < 0.01 else f"{found.chance:.0%}"
    )
    gain += f"; better with {sure} certainty ({seeds})"
    if found.method != BASELINE:
        return f"{text}. {values[0].upper()}{values[1:]}: {gain}."
    if row.low == row.high == 0:
        reason = "it makes no difference"
    elif row.verdict == "worse":
        reason = "it is worse"
    elif not found.unseen:
        reason = "it was also chosen by these seeds, which flatters it; more time is needed to tell"
    else:
        reason = "that may be chance; more time or more rows may tell"
    return (
        f"{text}, plain fine-tuning. The best of the others on the validation rows was {found.finalist}: {values}: "
        f"{gain}: {reason}."
    )


def table(found: Suggestion) -> Table:
    """The methods, with their means on the validation rows after each round."""
    shown = Table(box=None, title=f"{found.metric} on the validation rows, after each round")
    shown.add_column("method", overflow="fold")
    for number, each in enumerate(found.rounds, start=1):
        shown.add_column(f"round {number} ({each.seeds} seed{'s' * (each.seeds > 1)})", justify="right")
    methods = dict.fromkeys(method for each in found.rounds for method in each.validation)
    # Those that came further stand above.
    order = sorted(methods, key=lambda name: [each.validation.get(name, -math.inf) for each in found.rounds[::-1]])
    for method in order[::-1]:
        values = (each.validation.get(method) for each in found.rounds)
        shown.add_row(escape(method), *("" if value is None else f"{value:.3f}" for value in values))
    return shown


def command(found: Suggestion, grid: Grid, options: argparse.Namespace) -> str:
    """The command line that trains with the suggestion."""
    flags: dict[str, Any] = {"model_name_or_path": next(iter(grid.models.values())), "train_file": options.train_file}
    flags |= {name: getattr(options, name) for name in ("text_column_names", "label_column_name")}
    # The runs padded texts to the longest of their batch, which is not the script's default.
    flags |= {"pad_to_max_length": "false", **grid.options, **grid.methods[found.method]}
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    if _EVALUATES & set(grid.options):
        words += ["--validation_split", str(_VALIDATION_SHARE), "--do_eval"]
    words += ["--do_train", "--output_dir", _new_folder(f"{Path(options.train_file).stem}-{found.method}")]
    return f"hf-mixup train {shlex.join(words)}"


def _new_folder(words: str) -> str:
    """The name of a folder that is not there yet, of letters that need no quotes."""
    name = re.sub(r"[^\w.=-]+", "-", words).strip("-.") or "model"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(each for each in names if not os.path.lexists(each))


# ---- Its parts --------------------------------------------------------------------------------------------------


def _grid(options: argparse.Namespace, folder: Path) -> Grid:
    """The grid over the training file, a part of which becomes the test rows."""
    check_file(options.train_file, "the training file")
    columns = {name: getattr(options, name) for name in ("text_column_names", "label_column_name")}
    whole = Task(Path(options.train_file).stem, {"train": options.train_file}, **columns)
    # Large files give no more rows than tell enough: all of them are predicted in every run.
    task = split_off_test(whole, _TEST_SHARE, _MOST_TEST_ROWS, folder)
    entry = {"name": task.name, **{f"{split}_file": path for split, path in task.files.items()}, **columns}
    rows = len(load_local_split(task.files["train"]))
    share = min(_VALIDATION_SHARE, _MOST_VALIDATION_ROWS / rows)
    settings = {
        "tasks": [entry | {"validation_split": share}],
        "methods": list(dict.fromkeys([BASELINE, *(options.methods or CANDIDATES)])),
        "models": options.model,
        "options": parse_options(options.options or ()),
        "seeds": 1,
    }
    grid = make_grid(settings)
    if len(grid.methods) < 2:
        raise UsageError("--methods names none alone; add a method to compare it with, such as amplify")
    return grid


def _choose_size(
    grid: Grid, results: Results, console: Console, until: float, methods: int, rounds: int
) -> tuple[str, float, float]:
    """The training size for which all rounds fit into the time, the seconds of a run, and of what is beside the runs.

    It is found by plain fine-tuning, which is the first of the runs where the file is small. A file of results that
    has runs of several methods keeps their size.
    """
    (task,), (model,) = grid.tasks.values(), grid.models
    asked = until - time.monotonic()
    kept = [line for line in results.runs() if line["cell"]["method"] in grid.methods]
    size = next((line["cell"]["size"] for line in kept if line["cell"]["method"] != BASELINE), None)
    if size is not None:
        return size, float(np.mean([line["seconds"] for line in kept if line["cell"]["size"] == size])), 0.0
    whole = load_cell_data(task, Cell(task.name, model, "all", 0.0, BASELINE, 1))
    rows, size = len(whole.splits["train"]), "all"
    if rows > _PILOT_ROWS:
        size = str(max(_PILOT_ROWS, whole.labels.num_labels))
    least = min(rows, max(_LEAST_ROWS, _LEAST_OF_A_CLASS * whole.labels.num_labels))
    # The first round has the most runs. As long for the last one is enough for the seeds that an answer needs.
    runs = (methods + 1) * math.ceil(_LAST_SEEDS * 2 / (methods + 1))
    pilot_rows = rows if size == "all" else int(size)
    if Cell(task.name, model, size, 0.0, BASELINE, 1).key not in results.lines:
        _check_budget(grid, whole, console, asked, (pilot_rows, least, rows), rounds * runs)
    start = time.monotonic()
    say(console, f"First run: plain fine-tuning on {pilot_rows:,} rows, which tells how long the others take")
    run_grid(_part(grid, [BASELINE], [1], size), results, console, retry=True)
    pilot = _lines(results, grid, size)[BASELINE].get(1)
    if pilot is None:
        raise UsageError(f"plain fine-tuning failed with {_error(results, grid, BASELINE, [1], size)}")
    elapsed = time.monotonic() - start
    overhead = max(0.0, elapsed - pilot["seconds"])
    train_seconds = pilot["cost"]["steps"] * pilot["cost"]["step_seconds"]
    beside, of_a_row = pilot["seconds"] - train_seconds, train_seconds / pilot["rows"]["train"]
    if "max_steps" in grid.options:
        beside, of_a_row = pilot["seconds"], 0.0
    for_a_run = ((until - time.monotonic()) / rounds - overhead) / runs

    def seconds(count: int) -> float:
        return _MARGIN * (beside + of_a_row * count)

    if seconds(least) > for_a_run:
        needed = elapsed + rounds * (seconds(least) * runs + overhead)
        raise UsageError(
            f"the time is too short: plain fine-tuning on {pilot['rows']['train']} rows takes {pilot['seconds']:.0f} "
            f"seconds here; give --budget {_minutes(needed)} or more, or fewer --methods"
        )
    if seconds(rows) <= for_a_run:
        return "all", seconds(rows), overhead
    affordable = int((for_a_run / _MARGIN - beside) / of_a_row)
    # Two digits: a size that looks chosen, and not measured.
    unit = 10 ** max(0, len(str(affordable)) - 2)
    affordable = max(least, affordable // unit * unit)
    return str(affordable), seconds(affordable), overhead


def _check_budget(
    grid: Grid, whole: CellData, console: Console, budget: float, sizes: tuple[int, int, int], runs: int
) -> None:
    """Say which budget is the least, by an estimate from a few timed steps, before anything is trained.

    The estimate leaves out what cannot be known yet, such as how long processes take to start, so that no budget is
    refused that would do. The first run tells more.

    Args:
        grid: of one task and one model.
        whole: its data.
        console: where it is said.
        budget: the seconds that were given.
        sizes: the rows of the first run, the least that the others have, and all that there are.
        runs: how many others there are at least.

    Raises:
        UsageError: the budget is less.
    """
    (task,), (model,) = grid.tasks.values(), grid.models
    options = grid.run_options(Cell(task.name, model, "all", 0.0, BASELINE, 1))
    files = {"train_file": task.files["train"], "validation_file": task.files["test"]}
    arguments = training_arguments(options, files, task, grid.models[model])
    batch = arguments.per_device_train_batch_size
    length = int(options.get("max_seq_length", DataTrainingArguments.max_seq_length))
    try:
        timing = time_steps(grid.models[model], whole.labels.num_labels, whole.texts("train")[:batch], length)
    except (OSError, ValueError, RuntimeError):
        # The first run says what is wrong with the model.
        return
    held_out = 2 * len(whole.splits["validation"]) + len(whole.splits["test"])

    def seconds(rows: int) -> float:
        steps = math.ceil(arguments.num_train_epochs * math.ceil(rows / batch))
        if arguments.max_steps > 0:
            steps = arguments.max_steps * arguments.gradient_accumulation_steps
        # The trained model is loaded again to be measured.
        return 2 * timing.load + steps * timing.step + held_out * timing.row

    first, least, rows = sizes
    needed, ample = (seconds(first) + runs * seconds(count) for count in (least, rows))
    estimate = f"{runs} runs, {timing.step:.2g} seconds a training step as timed just now"
    if budget < needed:
        raise UsageError(
            f"the time is too short: the least budget is about {_minutes(needed)} ({estimate}; an estimate, on "
            f"{least:,} rows a run); give --budget {_minutes(needed)} or more, or fewer --methods"
        )
    more = f", and for all {rows:,} about {_minutes(ample)}" if rows > least else ""
    say(
        console,
        f"The least budget is about {_minutes(needed)} for {least:,} training rows a run{more} (an estimate: "
        f"{estimate}; starting and saving come on top)",
    )


def _minutes(seconds: float) -> str:
    """A time as the flag takes it, rounded up."""
    return f"{math.ceil(seconds)}s" if seconds <= 60 else f"{math.ceil(seconds / 60)}m"


def _ends(before: int, further: int) -> str:
    """The seeds of a round."""
    return f"{before + 1} to {before + further}" if further > 1 else f"{before + 1}"


def _part(grid: Grid, methods: Sequence[str], seeds: Sequence[int], size: str) -> Grid:
    kept = {name: grid.methods[name] for name in methods}
    return Grid(grid.tasks, kept, (size,), grid.noise, tuple(seeds), grid.models, grid.options)


def _lines(results: Results, grid: Grid, size: str) -> dict[str, dict[int, dict[str, Any]]]:
    """The runs of this size that ended well, by method and seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in grid.methods}
    for line in results.runs():
        if line["cell"]["size"] == size and line["cell"]["method"] in found:
            found[line["cell"]["method"]][line["cell"]["seed"]] = line
    return found


def _error(results: Results, grid: Grid, method: str, seeds: Sequence[int], size: str) -> str | None:
    """The error of the first of these runs that failed."""
    lines = (results.lines.get(cell.key) for cell in _part(grid, [method], seeds, size).cells())
    errors = (line["error"] for line in lines if line is not None and line["status"] == "failed")
    return next((error.removeprefix("UsageError: ") for error in errors), None)


def _validation(line: dict[str, Any]) -> tuple[float, float]:
    """What a run is worth on its validation rows: the task's metric, and the negative loss, which settles ties."""
    metrics = line["validation"]
    # A loss that is not finite is null.
    loss = math.inf if metrics["loss"] is None else metrics["loss"]
    return metrics[primary_metric(metrics)] or 0.0, -loss


def _compare(
    lines: dict[str, dict[int, dict[str, Any]]],
    finalist: str,
    rounds: Sequence[Round],
    chosen_by: set[int],
    failed: dict[str, str],
) -> Suggestion:
    seeds = set(lines[BASELINE]) & set(lines[finalist])
    # A method that was lucky in the seeds that chose it looks better in them than it is, on any rows.
    fresh = seeds - chosen_by
    unseen = len(fresh) > 1 or not chosen_by
    runs = [lines[method][seed] for seed in sorted(fresh if unseen else seeds) for method in (BASELINE, finalist)]
    metric = primary_metric(runs[0]["metrics"])
    row = next((row for row in summarize(runs, metric) if row.method == finalist), None)
    if row is None or row.difference is None:
        raise UsageError(
            f"the models have no {metric} on the test rows: their outputs, or the labels, are all the same"
        )
    method = finalist if row.verdict == "better" and unseen else BASELINE
    return Suggestion(method, finalist, row, metric, unseen, runs[0]["rows"]["train"], rounds, failed)


def _budget(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_BUDGET:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no time; give a number with a unit, such as 90s, 30m or 2h (s, m or h), at most "
            f"{_LONGEST_BUDGET // 3600}h"
        )
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(
        prog="hf-mixup suggest",
        description="Compare mixup methods with plain fine-tuning on a training file by successive halving, and say "
        "which one to use, what it is expected to gain and how sure that is. A fifth of the rows, at most 1000, is "
        "held out for that; a fifth of the rest, at most 500, chooses between the methods. Where nothing is clearly "
        "better it is none.",
    )
    parser.add_argument("train_file", metavar="TRAIN_FILE", help="a file as for hf-mixup train")
    parser.add_argument("--budget", required=True, type=_budget, metavar="TIME", help="such as 30m or 2h")
    parser.add_argument(
        "--methods",
        nargs="+",
        action="extend",
        metavar="METHOD",
        help=f"as for hf-mixup compare (default: {' '.join(CANDIDATES)})",
    )
    parser.add_argument("--model", default=MINILM, help="a folder or a name on the Hub (default: %(default)s)")
    parser.add_argument("--text_column_names", metavar="A,B", help="the text columns, if not found by themselves")
    parser.add_argument("--label_column_name", metavar="NAME", help="the label column (default: label)")
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        metavar="FLAG=VALUE",
        help="flags of run_glue_mixup.py for all runs, such as num_train_epochs=3",
    )
    parser.add_argument(
        "--jobs", type=whole_from(1, MOST_JOBS), default=1, metavar="N", help="runs at once (default: 1)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="keep the runs: the same command goes on, hf-mixup report shows them",
    )
    return parser
