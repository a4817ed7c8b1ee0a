"""What a mixed training step computes that a plain one of stock Trainer does not, operator by operator.

    python benchmarks/added_operators.py --mixup_method amplify
    python benchmarks/added_operators.py --suite targets --output added_operators.jsonl

Whole steps differ by chance more than by mixing, see `step_time.py`. So here steps of both kinds are profiled, and the
calls of one are set against those of the other: an operator that one kind calls more often, with inputs of the same
shapes, counts with so many calls more and the mean time of these. What the mixed step leaves out counts negative.
Times are those of the device; on a CPU profiling makes short calls longer. Beside them stands what getting a batch
with its plan takes the host longer than without one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from step_time import (
    Side,
    append,
    command_of,
    groups_of_runs,
    in_a_process,
    mixed_words,
    on_gpu,
    origin,
    parser,
    random_batch,
    recorded,
)
from torch.profiler import ProfilerActivity, profile

STEPS, BATCHES = 3, 200
# So many operators are named, those that take or save most.
NAMED = 8
Calls = Mapping[tuple[str, str], tuple[float, float]]


def calls_and_seconds(options: argparse.Namespace, mixed: bool) -> Calls:
    """The calls of a step and their seconds, nested ones apart, by operator and shapes of its inputs."""
    return calls_and_seconds_of(options, Side(options, mixed))


def calls_and_seconds_of(options: argparse.Namespace, side: Side) -> Calls:
    """As `calls_and_seconds`, of a side that is there."""
    gpu = on_gpu(options)
    for seed in range(2):
        side.step(random_batch(options, seed))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities, record_shapes=True, acc_events=True) as watch:
        for seed in range(STEPS):
            side.step(random_batch(options, 2 + seed))
    found = {}
    for event in watch.key_averages(group_by_input_shape=True):
        microseconds = event.self_device_time_total if gpu else event.self_cpu_time_total
        if microseconds and event.key.startswith("aten::"):
            found[event.key, str(event.input_shapes)] = event.count / STEPS, microseconds / 1e6 / STEPS
    return found


def seconds_of_a_batch(options: argparse.Namespace, mixed: bool) -> float:
    """The median time of the host to get a batch, with its plan."""
    trainer = Side(options, mixed).trainer
    batch, times = random_batch(options, 0), []
    for step in range(BATCHES):
        trainer.state.global_step = step
        start = time.perf_counter()
        trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
        times.append(time.perf_counter() - start)
    return median(times)


def added(plain: Calls, mixed: Calls) -> list[dict[str, Any]]:
    """The calls and seconds that a mixed step has more (or, negative, less), by operator, the most first.

    Example:
        >>> added({("add", "[2]"): (3, 0.3)}, {("add", "[2]"): (5, 1.0), ("lerp", "[2]"): (1, 0.5)})
        [{'name': 'lerp', 'calls': 1, 'seconds': 0.5}, {'name': 'add', 'calls': 2, 'seconds': 0.4}]
    """
    names: dict[str, dict[str, Any]] = {}
    for key in {**plain, **mixed}:
        before, after = plain.get(key, (0, 0.0)), mixed.get(key, (0, 0.0))
        more = after[0] - before[0]
        calls, seconds = after if more > 0 else before
        if more:
            entry = names.setdefault(key[0], {"name": key[0], "calls": 0, "seconds": 0.0})
            entry["calls"] += more
            entry["seconds"] += more * seconds / calls
    return sorted(names.values(), key=lambda entry: -abs(entry["seconds"]))


def line_of(plain: Calls, mixed: Calls) -> dict[str, Any]:
    """What is reported of the operators of a plain and a mixed step."""
    operators = added(plain, mixed)
    return {
        "plain_seconds": sum(seconds for _, seconds in plain.values()),
        "added_seconds": sum(each["seconds"] for each in operators),
        "operators": operators[:NAMED],
    }


def table(lines: list[dict[str, Any]]) -> Table:
    """A row for each method: what a mixed step adds to a plain one, and by which operators."""
    threads = lines[0]["options"]["threads"]
    shown = Table(box=SIMPLE, title=f"Operators added to a plain step, {threads} thread(s), {lines[0]['machine']}")
    for head in ("method", "model", "added", "host, ms", "most of it"):
        shown.add_column(head)
    for line in lines:
        plain, options = line["plain_seconds"], line["options"]
        most = (f"{each['name'].removeprefix('aten::')} {each['seconds'] / plain:.2%}" for each in line["operators"])
        host, total = f"{1000 * line['host_seconds_added']:.2f}", f"{line['added_seconds'] / plain:.2%}"
        shown.add_row(mixed_words(options), options["model"], total, host, ", ".join(most))
    return shown


def main() -> None:
    known = parser(__doc__)
    given, groups = groups_of_runs(known)
    for runs in groups:
        plain = in_a_process(calls_and_seconds, runs[0], False)
        plain_host = in_a_process(seconds_of_a_batch, runs[0], False)
        lines = []
        for options in runs:
            line = {
                **origin(command_of(given, known)),
                "options": recorded(options),
                **line_of(plain, in_a_process(calls_and_seconds, options, True)),
                "host_seconds_added": in_a_process(seconds_of_a_batch, options, True) - plain_host,
            }
            lines.append(line)
        append(given.output, lines)
        Console().print(table(lines))


if __name__ == "__main__":
    main()
