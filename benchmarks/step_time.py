"""Time and memory of a mixed training step against a plain one of stock Trainer, alternating in one process.

    python benchmarks/step_time.py --mixup_method amplify --pairs 100

Each pair is one stock step (`Trainer` on the parent class) and one mixed step (`MixupTrainer` on the mixup class) on
the same batch, in random order; a step is everything from drawing the plan to the optimizer. The mix is forced on in
every step, by a constant lambda where the method draws one. Reported: the median of the pairs' ratios with a 95 %
bootstrap interval, and the ratio of the peak memory of model, optimizer and steps, in a process for each side.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import multiprocessing
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from rich.console import Console
from scipy.stats import bootstrap
from transformers import AutoModelForSequenceClassification, BertConfig, Trainer, TrainingArguments, set_seed

from hf_mixup import METHODS, AutoMixupModelForSequenceClassification, MixupTrainer, MixupTrainingArguments
from hf_mixup.mixing import Ratio

CONFIGS = {
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
}


class Side:
    """One trainer, driven step by step."""

    def __init__(self, options: argparse.Namespace, mixed: bool) -> None:
        set_seed(0)
        config = BertConfig(**CONFIGS[options.model], num_labels=6)
        common = {"output_dir": options.scratch, "max_steps": 10_000, "learning_rate": 2e-5, "use_cpu": options.cpu}
        common |= {"bf16": options.bf16, "report_to": "none", "dataloader_pin_memory": False, "disable_tqdm": True}
        if mixed:
            model = AutoMixupModelForSequenceClassification.from_config(config)
            mixup = {"mixup_method": options.mixup_method, "mixup_site": options.mixup_site}
            mixup |= {"mixup_layers": options.mixup_layers, "mixup_start": 0.0}
            if isinstance(METHODS[options.mixup_method].ratio, Ratio):
                mixup |= {"mixup_ratio": "constant", "mixup_lambda": 0.7}
            specials = SimpleNamespace(pad_token_id=0, cls_token_id=101, sep_token_id=102)
            arguments = MixupTrainingArguments(**common, **mixup)
            self.trainer = MixupTrainer(model, arguments, processing_class=specials)
        else:
            model = AutoModelForSequenceClassification.from_config(config)
            self.trainer = Trainer(model, TrainingArguments(**common))
        self.trainer.state.max_steps = 10_000
        self.trainer.create_optimizer_and_scheduler(10_000)
        self.model, self.trainer.optimizer = self.trainer.accelerator.prepare(model, self.trainer.optimizer)
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Seconds for one step on a batch."""
        trainer, model = self.trainer, self.model
        start = time.perf_counter()
        batches, num_items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
        trainer.training_step(model, batches[0], num_items)
        trainer._get_grad_norm(model, grad_norm=trainer._clip_grad_norm(model))
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        trainer.state.global_step += 1
        return time.perf_counter() - start


def random_batch(options: argparse.Namespace, seed: int) -> dict[str, torch.Tensor]:
    """Random ids with right padding, from half the length to the length."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(options.length // 2, options.length + 1, options.batch)
    mask = np.arange(options.length) < lengths[:, None]
    ids = generator.integers(1000, 30000, (options.batch, options.length)) * mask
    labels = generator.integers(0, 6, options.batch)
    batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "labels": labels}
    device = "cpu" if options.cpu or not torch.cuda.is_available() else "cuda"
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def measure_pairs(options: argparse.Namespace) -> np.ndarray:
    """`[pairs, 2]` seconds: plain, mixed."""
    sides = [Side(options, mixed=False), Side(options, mixed=True)]
    for side in sides:
        for seed in range(3):
            side.step(random_batch(options, seed))
    order = np.random.default_rng(0)
    times = np.empty((options.pairs, 2))
    for pair in range(options.pairs):
        batch = random_batch(options, 100 + pair)
        for which in order.permutation(2):
            times[pair, which] = sides[which].step(copy.copy(batch))
    return times


def peak_memory(options: argparse.Namespace, mixed: bool) -> float:
    """MiB that the model, its optimizer and a few steps take at their peak."""
    if torch.cuda.is_available() and not options.cpu:
        side = Side(options, mixed)
        torch.cuda.reset_peak_memory_stats()
        for seed in range(4):
            side.step(random_batch(options, seed))
        return torch.cuda.max_memory_allocated() / 2**20
    # What an allocator keeps of one side must not serve the other, so each gets a fresh process.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_this_process, (options, mixed))


def _peak_of_this_process(options: argparse.Namespace, mixed: bool) -> float:
    torch.set_num_threads(options.threads)
    # From here on the kernel counts the highest use anew: model, optimizer and activations, without the libraries.
    Path("/proc/self/clear_refs").write_text("5")
    before = _process_memory("VmRSS")
    side = Side(options, mixed)
    for seed in range(4):
        side.step(random_batch(options, seed))
    return _process_memory("VmHWM") - before


def _process_memory(name: str) -> float:
    """MiB of this process, from Linux's own account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def machine() -> str:
    """The processor, its cores, and the accelerator if one is used."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), platform.machine())
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{cpu}, {multiprocessing.cpu_count()} cores{gpu}"


def _flags(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """The flags that differ from their defaults, but for where files go."""
    flags = []
    for name, value in vars(options).items():
        if name not in ("scratch", "output", "cpu") and value != parser.get_default(name):
            flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(CONFIGS), default="minilm")
    parser.add_argument("--mixup_method", choices=[name for name in METHODS if name != "none"], default="amplify")
    parser.add_argument("--mixup_site")
    parser.add_argument("--mixup_layers")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--scratch", default="tmp_trainer", help="the trainers' output folder, left empty")
    parser.add_argument("--output", help="append the result to this JSON-lines file")
    options = parser.parse_args()
    options.cpu = options.cpu or not torch.cuda.is_available()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)

    times = measure_pairs(options)
    ratios = times[:, 1] / times[:, 0]
    interval = bootstrap((ratios,), np.median, confidence_level=0.95, rng=0).confidence_interval
    memory = [peak_memory(options, mixed) for mixed in (False, True)]
    result = {
        "command": " ".join(["python", "benchmarks/step_time.py", *_flags(options, parser)]),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "options": {name: value for name, value in vars(options).items() if name not in ("scratch", "output")},
        "ratio_median": float(np.median(ratios)),
        "ratio_interval_95": [float(interval.low), float(interval.high)],
        "plain_step_median_seconds": float(np.median(times[:, 0])),
        "memory_ratio": memory[1] / max(memory[0], 1.0),
        "memory_mib": memory,
        "seconds": times.round(5).tolist(),
    }
    if options.output:
        with open(options.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    Console().print(
        f"{options.mixup_method} / plain, {options.model}, batch {options.batch} x {options.length}, "
        f"{options.pairs} pairs, {options.threads} thread(s): time {result['ratio_median']:.3f} "
        f"[{interval.low:.3f}, {interval.high:.3f}], peak memory {result['memory_ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
