"""From a grid to its file of results: what is still to be done, and how far it is."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from hf_mixup.compare.grid import Cell, Grid
from hf_mixup.compare.launchers import LAUNCHERS, Job
from hf_mixup.compare.results import Results, primary_metric
from hf_mixup.files import refuse_links
from hf_mixup.shown import visible

# Tunings share a seed, so that all methods are tuned on the same rows.
TUNING_SEED = 0
MOST_JOBS = 256


def run_grid(
    grid: Grid,
    results: Results,
    console: Console,
    at_once: int = 1,
    launcher: str = "local",
    retry: bool = False,
    until: float = math.inf,
) -> None:
    """Run what the file of results does not have yet, and add it line by line.

    Args:
        grid: what is run.
        results: where it goes; its lines are of this grid.
        console: where the progress is shown.
        at_once: how many runs at once.
        launcher: `local` or `ray`.
        retry: whether runs that failed are made again.
        until: the time of `time.monotonic()` by which all ends: what would take longer than that, by the mean of the
            runs so far, is not begun.

    Raises:
        UsageError: another process writes to the file of results, or it cannot be written.
    """
    log = results.path.with_name(f"{results.path.name}.log")
    refuse_links([log])
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(grid, results, at_once)
    live = Live(progress.table(), console=console, refresh_per_second=2, get_renderable=progress.table)
    with results.alone(), live:
        # The runs are listed when the tunings are done: they train with the flags that these found.
        for phase in (lambda: _tunings(grid), lambda: _runs(grid, results)):
            jobs = deque(job for job in phase() if _is_open(results, job, retry))
            if not jobs:
                continue
            # Closed at once, whatever happens here: its processes then end.
            with closing(LAUNCHERS[launcher](jobs, min(at_once, len(jobs)), log)) as events:
                for job, record in events:
                    if record is None:
                        progress.started(job)
                        continue
                    results.append(record)
                    progress.ended(job, record)
                    if record["status"] == "failed" or not console.is_terminal:
                        say(console, progress.line(job, record))
                    if time.monotonic() + progress.mean_seconds() > until:
                        # Those that have begun end.
                        jobs.clear()
    if not console.is_terminal:
        console.print()


def say(console: Console, text: str) -> None:
    """Write a line at once; it is broken in a terminal only."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=not console.is_terminal)
    console.file.flush()


class Progress:
    """The live table: how many runs of each task are done, running and failed, the time left, the best so far."""

    def __init__(self, grid: Grid, results: Results, at_once: int) -> None:
        self._grid, self._results, self._at_once = grid, results, at_once
        self._running: dict[str, str] = {}
        self._seconds: list[float] = []
        self._start = time.monotonic()
        cells, tunings = grid.cells(), _tunings(grid)
        self._wanted = Counter([*(cell.task for cell in cells), *(job.cell.task for job in tunings)])
        self._keys = {cell.key for cell in cells} | {job.key for job in tunings}

    def started(self, job: Job) -> None:
        """Note that a job began."""
        self._running[job.key] = job.cell.task

    def ended(self, job: Job, record: dict[str, Any]) -> None:
        """Note that a job ended."""
        del self._running[job.key]
        self._seconds.append(record["seconds"])

    def line(self, job: Job, record: dict[str, Any]) -> str:
        """What is said of a job that ended, where there is no live table: how many have, its metric, the time left."""
        if record["status"] == "failed":
            return f"{job.key} failed: {record['error']}"
        ended = [line for key, line in self._results.lines.items() if key in self._keys]
        said = f"{len(ended)} of {sum(self._wanted.values())}: {job.key}"
        if "metrics" in record:
            name = primary_metric(record["metrics"])
            value = record["metrics"][name]
            said += f": no {name}" if value is None else f": {name} {value:.3f}"
        return f"{said} ({record['seconds']:.0f} seconds, {self._left(len(ended))})"

    def mean_seconds(self) -> float:
        """How long a job took on average."""
        return float(np.mean(self._seconds))

    def table(self) -> Table:
        """The table as things stand."""
        lines = [line for key, line in self._results.lines.items() if key in self._keys]
        states = {
            state: Counter(line["cell"]["task"] for line in lines if line["status"] == state) for state in _STATES
        }
        running = Counter(self._running.values())
        table = Table(caption=f"{_clock(time.monotonic() - self._start)} so far, {self._left(len(lines))}")
        for column in ("task", "done", "running", "failed", "to do", "best so far"):
            table.add_column(column, justify="left" if column in ("task", "best so far") else "right")
        for task, wanted in self._wanted.items():
            done, failed = (states[state][task] for state in _STATES)
            counts = (done, running[task], failed, wanted - done - failed - running[task])
            table.add_row(escape(task), *map(str, counts), escape(_best(lines, task)))
        return table

    def _left(self, ended: int) -> str:
        open_runs = sum(self._wanted.values()) - ended
        if not open_runs or not self._seconds:
            return "nothing left" if not open_runs else "time left not known yet"
        return f"about {_clock(self.mean_seconds() * open_runs / self._at_once)} left"


_STATES = ("done", "failed")


def _tunings(grid: Grid) -> list[Job]:
    if not grid.tune:
        return []
    cells = dict.fromkeys(
        Cell(cell.task, cell.model, cell.size, cell.noise, cell.method, TUNING_SEED) for cell in grid.cells()
    )
    return [_job(grid, "tuning", cell, {}) for cell in cells]


def _runs(grid: Grid, results: Results) -> list[Job]:
    """The runs, those of methods whose tuning failed left out."""
    jobs = []
    for cell in grid.cells():
        tuned = {}
        if grid.tune:
            tuning = Cell(cell.task, cell.model, cell.size, cell.noise, cell.method, TUNING_SEED)
            tuned = results.lines[f"tuning {tuning.key}"].get("best")
        if tuned is not None:
            jobs.append(_job(grid, "run", cell, tuned))
    return jobs


def _job(grid: Grid, kind: str, cell: Cell, tuned: dict[str, Any]) -> Job:
    return Job(
        kind=kind,
        cell=cell,
        task=grid.tasks[cell.task],
        model=grid.models[cell.model],
        options=grid.run_options(cell),
        fixed=grid.methods[cell.method],
        tuned=tuned,
        tune=grid.tune,
        weights=grid.weights(cell.model),
    )


def _is_open(results: Results, job: Job, retry: bool) -> bool:
    line = results.lines.get(job.key)
    return line is None or (retry and line["status"] == "failed")


def _best(lines: Sequence[dict[str, Any]], task: str) -> str:
    """The setting with the best mean of a task's first metric so far."""
    values = defaultdict(list)
    for line in lines:
        if line["cell"]["task"] == task and "metrics" in line:
            cell, name = line["cell"], primary_metric(line["metrics"])
            where = " ".join([cell["method"], *([cell["size"]] if cell["size"] != "all" else [])])
            values[where, name].append(line["metrics"][name] or 0.0)
    if not values:
        return ""
    (where, name), best = max(values.items(), key=lambda entry: np.mean(entry[1]))
    return f"{where}: {name} {np.mean(best):.3f} ({len(best)})"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
