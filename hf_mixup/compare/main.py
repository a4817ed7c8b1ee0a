"""`hf-mixup compare`: run a grid and say which methods are better than plain fine-tuning."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_mixup.compare.grid import Grid, make_grid, parse_options
from hf_mixup.compare.launchers import LAUNCHERS
from hf_mixup.compare.report import check_report, write_report
from hf_mixup.compare.results import Results, primary_metric
from hf_mixup.compare.run import check_runs
from hf_mixup.compare.runner import MOST_JOBS, run_grid
from hf_mixup.compare.statistics import Row, percent, summarize
from hf_mixup.errors import OneSentenceParser, UsageError, as_one_line, whole_from
from hf_mixup.glue.settings import read_settings
from hf_mixup.shown import visible


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the command line without the program's name; that of the process by default.

    Returns:
        The exit code: 0; 1 if a run failed; 2 after one sentence on stderr for a mistake of the user; 130 after
        Ctrl-C.

    Raises:
        SystemExit: code 2 for a mistake in the flags, code 0 after `--help`.

    Example:
        >>> main(["--tasks", "data/trec", "--methods", "none", "amplify", "--output", "trec.jsonl"])  # doctest: +SKIP
        0
    """
    options = _parser().parse_args(argv)
    console = Console()
    try:
        if options.report:
            check_report(options.report)
        grid = make_grid(_settings(options))
        results = Results(options.output)
        results.warn("hf-mixup compare")
        results.check_grid(grid, options.retry)
        check_runs(grid)
        run_grid(grid, results, console, options.jobs, options.launcher, options.retry)
    except UsageError as error:
        sys.stderr.write(f"hf-mixup compare: {as_one_line(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("hf-mixup compare: stopped; the same command goes on with what is not done yet\n")
        return 130
    keys = {cell.key for cell in grid.cells()}
    runs = [line for line in results.runs() if line["key"] in keys]
    for table in tables(runs):
        console.print(table)
    if options.report:
        try:
            for file in write_report(results, options.report):
                sys.stdout.write(f"{visible(file)}\n")
        except UsageError as error:
            sys.stderr.write(f"hf-mixup compare: {as_one_line(error)}\n")
            return 2
    if len(runs) < len(keys):
        file = visible(options.output)
        sys.stderr.write(
            f"hf-mixup compare: {len(keys) - len(runs)} of {len(keys)} runs failed; {file} has their errors, "
            f"{file}.log more; --retry makes them again\n"
        )
        return 1
    return 0


def tables(runs: Sequence[dict[str, Any]]) -> list[Table]:
    """The comparison of the methods in each setting, by the first metric of its task."""
    measures = dict.fromkeys(primary_metric(line["metrics"]) for line in runs)
    rows = [(measure, row) for measure in measures for row in summarize(runs, measure)]
    settings = dict.fromkeys((measure, row.setting) for measure, row in rows)
    return [
        _table(measure, [row for name, row in rows if (name, row.setting) == (measure, setting)])
        for measure, setting in settings
    ]


def _table(measure: str, rows: Sequence[Row]) -> Table:
    setting = rows[0].setting
    noise = f", {percent(setting.noise)} of their labels made wrong" if setting.noise else ""
    table = Table(
        box=None,
        title=escape(f"{setting.task}: {measure} ({setting.model}, {setting.size} train rows{noise})"),
        caption="mean and sd over the seeds; difference to none, with its 95 % interval; p and verdict are corrected "
        "for the number of methods",
    )
    table.add_column("method", overflow="fold")
    for column in ("seeds", "mean", "sd", "difference (interval)", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        compared = ["", "", ""]
        if row.difference is not None:
            compared[0] = f"{row.difference:+.3f}"
            # One seed says nothing of others: no spread, no interval, no p.
            if not math.isnan(row.p):
                compared = [f"{compared[0]} ({row.low:+.3f} to {row.high:+.3f})", f"{row.p_holm:.3f}", row.verdict]
        spread = "" if math.isnan(row.sd) else f"{row.sd:.3f}"
        table.add_row(escape(row.method), str(row.seeds), f"{row.mean:.3f}", spread, *compared)
    return table


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The grid file with the flags in place of what it says on the same axis."""
    settings = read_settings(options.grid, "grid file") if options.grid else {}
    given = {name: getattr(options, name) for name in Grid.__dataclass_fields__ if getattr(options, name) is not None}
    if "options" in given and isinstance(settings.get("options") or {}, dict):
        given["options"] = {**(settings.get("options") or {}), **parse_options(given["options"])}
    return {**settings, **given}


def _parser() -> argparse.ArgumentParser:
    parser = OneSentenceParser(
        prog="hf-mixup compare",
        description="Run tasks x methods x training sizes x label noise x seeds x models, each as one run of "
        "run_glue_mixup.py, and compare the methods with none. A run that the file of results has is not made again.",
    )
    parser.add_argument("grid", nargs="?", metavar="GRID.yaml", help="a file with the axes below; flags go before it")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the file of results, JSON lines")
    axes = {
        "tasks": ("TASK", "folders with train.csv, test.csv and perhaps validation.csv and ood.csv, or name=folder"),
        "methods": ("METHOD", "none, and others: amplify, amplify:alpha=0.4:layers=4,8 or name=amplify:alpha=0.4"),
        "sizes": ("SIZE", "training rows: all (default), a share such as 10%%, a number such as 600, or 8-shot"),
        "noise": ("SHARE", "shares of the training labels that are made wrong (default: 0)"),
        "seeds": ("SEED", "seeds, or ranges such as 1-5 (default: 1-5)"),
        "models": ("MODEL", "folders or names on the Hub, or name=folder (default: minilm, the weights of the demo)"),
        "options": ("FLAG=VALUE", "flags of run_glue_mixup.py for all runs, such as num_train_epochs=3"),
    }
    for name, (metavar, text) in axes.items():
        parser.add_argument(f"--{name}", nargs="+", action="extend", metavar=metavar, help=text)
    parser.add_argument("--tune", metavar="N", help="give each method N Optuna trials on the validation rows first")
    parser.add_argument(
        "--jobs", type=whole_from(1, MOST_JOBS), default=1, metavar="N", help="runs at once (default: 1)"
    )
    parser.add_argument("--launcher", choices=list(LAUNCHERS), default="local", help="where they run (default: local)")
    parser.add_argument("--retry", action="store_true", help="make runs that failed again")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html and report.md there, too")
    return parser
