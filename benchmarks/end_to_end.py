"""Wall time, memory and accuracy of whole runs: stock run_glue.py, this script, and its fast settings.

    python benchmarks/end_to_end.py --stock run_glue.py --data DATA --output docs/results/end_to_end.jsonl

`--stock` names run_glue.py of transformers' examples, DATA the folder with sst2/ and mrpc/ (train.csv and
validation.csv). Each run is a fresh process with an empty cache; a round has one run of each side, in random order and
with the number of the round as seed. One JSON line a run; runs that the file holds already are not made again. At the
end: the ratio to the stock run of the same round, median and 95 % bootstrap interval.

Without `--stock` it measures who is mixed with whom, which takes seconds:

    python benchmarks/end_to_end.py --data DATA --output docs/results/partner_lengths.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap
from step_time import machine
from torch.utils.data import RandomSampler, Sampler
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_mixup.demo.run import minilm_folder
from hf_mixup.mixing.partners import PARTNERS
from hf_mixup.trainer import LengthGroupedPairSampler

ROOT = Path(__file__).resolve().parents[1]
FAST = ("--config", str(ROOT / "configs" / "fast.yaml"))
# What each side adds to the flags that all share.
SIDES = {
    "stock": (),
    "none": ("--mixup_method", "none"),
    "amplify": ("--mixup_method", "amplify"),
    "fast none": (*FAST, "--mixup_method", "none"),
    "fast amplify": (*FAST, "--mixup_method", "amplify", "--mixup_partner", "neighbour"),
}
SETTINGS = {
    "num_train_epochs": 1,
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 32,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": "true",
}
TASKS = ("sst2", "mrpc")


def run(side: str, task: str, seed: int, options: argparse.Namespace) -> dict:
    """One run in a process of its own: what it took, and how well it trained."""
    script = options.stock if side == "stock" else ROOT / "run_glue_mixup.py"
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            **SETTINGS,
            "model_name_or_path": minilm_folder(),
            "train_file": options.data / task / "train.csv",
            "validation_file": options.data / task / "validation.csv",
            "max_train_samples": options.rows,
            "output_dir": f"{folder}/out",
            "seed": seed,
        }
        bf16 = ("--bf16",) if options.bf16 and side.startswith("fast") else ()
        argv = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, str(script), *argv, "--do_train", "--do_eval", *SIDES[side], *bf16]
        with open(f"{folder}/log", "w+", encoding="utf-8") as log:
            start = time.perf_counter()
            environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache"}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            if status != 0:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
        results = json.loads(Path(folder, "out", "all_results.json").read_text(encoding="utf-8"))
    return {
        "side": side,
        "task": task,
        "seed": seed,
        "seconds": round(seconds, 2),
        "train_seconds": results["train_runtime"],
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "accuracy": results["eval_accuracy"],
        "rows": options.rows,
        "bf16": bool(bf16),
    }


def partner_lengths(task: str, options: argparse.Namespace) -> Iterator[dict]:
    """How alike in length partners are, and how much of a batch is padding, over ten epochs of each way."""
    frame = pd.read_csv(options.data / task / "train.csv", dtype=str, keep_default_na=False)
    texts = [frame[name].tolist() for name in frame.columns if name != "label"]
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    lengths = np.array([len(ids) for ids in tokenizer(*texts, truncation=True, max_length=128)["input_ids"]])
    size = SETTINGS["per_device_train_batch_size"]
    ways = {
        "random batches": (RandomSampler(range(len(lengths))), "random"),
        "group_by_length": (LengthGroupedSampler(size, lengths=lengths.tolist()), "random"),
        "group_by_length, neighbour": (LengthGroupedPairSampler(lengths, size, seed=0), "neighbour"),
    }
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    for way, (sampler, policy) in ways.items():
        own, theirs, padding = [], [], []
        for epoch in range(10):
            for batch in batches_of(sampler, epoch, size):
                partner = PARTNERS[policy](generator, len(batch))
                mixed = partner != np.arange(len(batch))
                own += lengths[batch][mixed].tolist()
                theirs += lengths[batch[partner]][mixed].tolist()
                padding.append((lengths[batch].max() * len(batch), lengths[batch].sum()))
        read, tokens = np.sum(padding, axis=0)
        yield {
            "way": way,
            "task": task,
            "correlation": round(float(np.corrcoef(own, theirs)[0, 1]), 4),
            "padding": round(float(1 - tokens / read), 4),
            "mean_length": round(float(lengths.mean()), 2),
            "mean_padded_length": round(float(read / len(lengths) / 10), 2),
        }


def batches_of(sampler: Sampler, epoch: int, size: int) -> Iterator[np.ndarray]:
    """The row numbers of each batch of an epoch."""
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    order = np.array(list(sampler))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def table(results: list[dict]) -> Table:
    """The ratios to stock, one row for each task and side."""
    found = Table("task", "side", "runs", "wall time", "95 % interval", "training", "CPU time", "memory", "accuracy")
    entries = {(entry["task"], entry["side"], entry["seed"]): entry for entry in results}
    for task in TASKS:
        for side in SIDES:
            seeds = [seed for name, kind, seed in entries if (name, kind) == (task, side)]
            pairs = [
                (entries[task, side, s], entries[task, "stock", s]) for s in seeds if (task, "stock", s) in entries
            ]
            if not pairs:
                continue
            ratios = {
                name: np.array([one[name] / stock[name] for one, stock in pairs])
                for name in ("seconds", "train_seconds", "cpu_seconds", "peak_mib")
            }
            interval = "-"
            if len(pairs) > 2 and side != "stock":
                ends = bootstrap((ratios["seconds"],), np.median, rng=0).confidence_interval
                interval = f"{ends.low:.3f} to {ends.high:.3f}"
            accuracy = np.array([one["accuracy"] for one, _ in pairs])
            medians = [f"{np.median(values):.3f}" for values in ratios.values()]
            spread = f" ± {accuracy.std(ddof=1):.3f}" if len(pairs) > 1 else ""
            found.add_row(
                task, side, str(len(pairs)), medians[0], interval, *medians[1:], f"{accuracy.mean():.3f}{spread}"
            )
    return found


def command_of(options: argparse.Namespace) -> str:
    """The command line, without where this machine keeps its files."""
    stock = f"--stock run_glue.py --rounds {options.rounds} --rows {options.rows} " if options.stock else ""
    bf16 = "--bf16 " if options.bf16 else ""
    return f"python benchmarks/end_to_end.py {stock}{bf16}--data DATA --output docs/results/{options.output.name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", type=Path, help="run_glue.py of transformers' examples")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000, help="training rows of each run")
    parser.add_argument("--bf16", action="store_true", help="the fast settings with --bf16, where the device has it")
    options = parser.parse_args()
    origin = {
        "command": command_of(options),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if options.stock is None:
        lines = [json.dumps(found | origin) for task in TASKS for found in partner_lengths(task, options)]
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    results = [json.loads(line) for line in lines]
    if any(entry["rows"] != options.rows or entry["bf16"] > options.bf16 for entry in results):
        parser.error(f"{options.output} holds runs with other --rows or --bf16; give another --output")
    done = {(entry["task"], entry["side"], entry["seed"]) for entry in results}
    order = np.random.default_rng(0)
    for seed in range(1, options.rounds + 1):
        for task in TASKS:
            for side in order.permutation(list(SIDES)).tolist():
                if (task, side, seed) not in done:
                    results.append(run(side, task, seed, options) | origin)
                    with options.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(results[-1]) + "\n")
    Console().print(table(results))


if __name__ == "__main__":
    main()
