"""How time and memory of plain and mixed training grow with batch, length, depth and training set.

    python benchmarks/growth.py --output growth.jsonl

Batch, length and depth: seconds of a step and peak memory, as `step_time.py` measures them, on a small model. Training
set: seconds and peak memory of an epoch without the model, that is of the data, the set-up of the trainer and its
loader, and all batches with their plans. Slopes are those of a line through the logarithms: 1 is proportional, and
what would need memory for each pair of rows would come near 2.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from scipy.stats import linregress
from step_time import (
    Side,
    append,
    command_of,
    in_a_process,
    machine,
    measure_rounds,
    on_gpu,
    origin,
    parser,
    peak_memory,
    start_of_peak,
)

STEP_AXES = {"batch": (4, 8, 16, 32, 64), "length": (32, 64, 128, 256), "depth": (1, 2, 4, 8)}
ROWS = (1000, 4000, 16000, 64000)


def epoch(options: argparse.Namespace, mixed: bool, rows: int) -> tuple[float, float]:
    """Seconds and peak MiB of an epoch over so many rows, without the model."""
    peak = start_of_peak(options, mixed)
    side = Side(options, mixed)
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 30000, (rows, 16)).tolist()
    side.trainer.train_dataset = Dataset.from_dict({"input_ids": ids, "labels": generator.integers(0, 6, rows)})
    side.trainer.state.max_steps = rows
    start = time.perf_counter()
    batches = iter(side.trainer.get_train_dataloader())
    while side.trainer.get_batch_samples(batches, 1, side.trainer.args.device)[0]:
        side.trainer.state.global_step += 1
    return time.perf_counter() - start, peak()


def measure(options: argparse.Namespace, axis: str, size: int) -> list[tuple[float, float]]:
    """Seconds and MiB of the plain and of the mixed side."""
    if axis == "rows":
        on_cpu = argparse.Namespace(**vars(options) | {"cpu": True})
        return [in_a_process(epoch, on_cpu, mixed, size) for mixed in (False, True)]
    options = argparse.Namespace(**vars(options) | {axis: size})
    seconds, _ = in_a_process(measure_rounds, options)
    medians = np.median(seconds, axis=0)
    return [(float(medians[mixed]), in_a_process(peak_memory, options, bool(mixed))) for mixed in (0, 1)]


def slope(sizes: tuple[int, ...], values: list[float]) -> float:
    """Of a line through the logarithms."""
    return float(linregress(np.log(sizes), np.log(values)).slope)


def main() -> None:
    known = parser(__doc__)
    known.set_defaults(model="small", batch=8, length=64, pairs=10)
    options = known.parse_args()
    options.cpu = not on_gpu(options)
    table = Table(title=f"Slopes, plain and mixed by {options.mixup_method}, {options.threads} thread(s), {machine()}")
    for head in ("against", "from", "to", "time plain", "time mixed", "memory plain", "memory mixed"):
        table.add_column(head)
    for axis, sizes in {**STEP_AXES, "rows": ROWS}.items():
        found = np.array([measure(options, axis, size) for size in sizes])
        values = {
            f"{what}_{side}": found[:, which, unit].tolist()
            for unit, what in enumerate(("seconds", "mib"))
            for which, side in enumerate(("plain", "mixed"))
        }
        slopes = {name: slope(sizes, each) for name, each in values.items()}
        table.add_row(axis, str(sizes[0]), str(sizes[-1]), *(f"{value:.2f}" for value in slopes.values()))
        line = {
            **origin(command_of(options, known)),
            "options": {name: getattr(options, name) for name in ("mixup_method", "threads", "batch", "length")},
            "axis": axis,
            "sizes": sizes,
            **values,
            "slopes": slopes,
        }
        append(options.output, [line])
    Console().print(table)


if __name__ == "__main__":
    main()
