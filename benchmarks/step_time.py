"""Time and memory of a mixed training step against a plain one of stock Trainer, alternating in one process.

    python benchmarks/step_time.py --mixup_method amplify --pairs 100
    python benchmarks/step_time.py --suite full --output step_time.jsonl

Each round is one stock step (`Trainer` on the parent class) and one mixed step (`MixupTrainer` on the mixup class) on
the same batch, in random order; a step is everything from drawing the plan to the optimizer. A suite measures several
methods on one model: each round then has one mixed step of each, all against the same stock step. The mix is forced on
in every step, by a constant lambda where the method draws one. Reported, each for itself in a fresh process:

- the median of the rounds' ratios with a 95 % bootstrap interval;
- page faults of a step: pages of memory that the system had to give anew, since the C library had given them back;
- the ratio of the peak memory of model, optimizer and steps;
- compiled frames over steps of changing lambda, partner and layer, under `torch.compile`;
- what a mixed step adds to a plain one: kernel launches (on a CPU operator calls, the nested ones included), and waits
  of the host for the device (on a CPU reads of tensor values, outside of drawing plans, which happens on the host).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap
from torch._dynamo.testing import CompileCounter
from torch.profiler import ProfilerActivity, profile
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_mixup import METHODS, AutoMixupModelForSequenceClassification, MixupTrainer, MixupTrainingArguments
from hf_mixup.machine import processor
from hf_mixup.methods import Method
from hf_mixup.mixing.plan import AttentionProbe
from hf_mixup.mixing.ratios import Ratio, Spans
from hf_mixup.modeling.auto import MODELS

SHAPES = {
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "small": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512},
    "tiny": {"num_hidden_layers": 6, "hidden_size": 48, "num_attention_heads": 12, "intermediate_size": 96},
}
INTERMEDIATE_SIZE = {"distilbert": "hidden_dim", "gpt2": "n_inner"}
MIXED_OPTIONS = ("mixup_method", "mixup_site", "mixup_layers", "mixup_clean")
WHERE = ("scratch", "output", "cpu")
CLEAN = "tmix --mixup_layers 4 --mixup_clean average"
QUICK = ("amplify", "amplify-code", "embedmix", "attentionmix", "ssmix", "tmix", CLEAN)
FULL = (*QUICK, "sentmix", "manifold", "nonlinear")
# On two cores with nothing else to do some five minutes, two hours and three hours.
SUITES = {
    "quick": [f"--batch 16 --length 64 --pairs 20 --mixup_method {method}" for method in QUICK],
    "targets": [
        *(f"--mixup_method {method}" for method in QUICK),
        *(f"--model bert-base --batch 8 --mixup_method {method}" for method in QUICK),
    ],
    "full": [
        *(f"--mixup_method {method}" for method in FULL),
        *(f"--model bert-base --batch 8 --mixup_method {method}" for method in FULL),
    ],
}
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
READS = ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero")


def config_of(options: argparse.Namespace) -> PreTrainedConfig:
    """A config of the family in the given shape; all else as the family has it."""
    sizes = SHAPES[options.model] | {"num_hidden_layers": depth_of(options)}
    config_class = CONFIG_MAPPING[options.family]
    names = config_class.attribute_map | {"intermediate_size": INTERMEDIATE_SIZE.get(options.family)}
    named = {names.get(name) or name: size for name, size in sizes.items()}
    if options.family in ("llama", "qwen2", "qwen3"):
        heads = sizes["num_attention_heads"]
        named |= {"num_key_value_heads": heads, "head_dim": sizes["hidden_size"] // heads}
    return config_class(**named, num_labels=6, pad_token_id=0)


def on_gpu(options: argparse.Namespace) -> bool:
    """Whether it runs on a GPU."""
    return torch.cuda.is_available() and not options.cpu


def depth_of(options: argparse.Namespace) -> int:
    """The number of blocks."""
    return options.depth or SHAPES[options.model]["num_hidden_layers"]


class Side:
    """One trainer, driven step by step.

    Args:
        options: of the command line.
        mixed: `MixupTrainer` on the mixup class, or `Trainer` on its parent.
        like: another mixed side, whose model and optimizer this one trains too.
    """

    def __init__(self, options: argparse.Namespace, mixed: bool, like: Side | None = None) -> None:
        set_seed(0)
        config = config_of(options)
        common = {"output_dir": options.scratch, "max_steps": 10_000, "learning_rate": 2e-5, "use_cpu": options.cpu}
        common |= {"bf16": options.bf16, "report_to": "none", "dataloader_pin_memory": False, "disable_tqdm": True}
        common |= {"torch_compile": options.compile}
        if mixed:
            model = like.model if like else AutoMixupModelForSequenceClassification.from_config(config)
            mixup = {name: getattr(options, name) for name in MIXED_OPTIONS} | {"mixup_start": 0.0}
            if isinstance(METHODS[options.mixup_method].ratio, Ratio):
                mixup |= {"mixup_ratio": "constant", "mixup_lambda": 0.7}
            specials = SimpleNamespace(pad_token_id=0, cls_token_id=101, sep_token_id=102)
            arguments = MixupTrainingArguments(**common, **mixup)
            self.trainer = MixupTrainer(model, arguments, processing_class=specials)
        else:
            model = AutoModelForSequenceClassification.from_config(config)
            self.trainer = Trainer(model, TrainingArguments(**common))
        self.trainer.state.max_steps = 10_000
        if like:
            self.model, self.trainer.optimizer = model, like.trainer.optimizer
            self.trainer.create_scheduler(10_000)
        else:
            self.trainer.create_optimizer_and_scheduler(10_000)
            self.model, self.trainer.optimizer = self.trainer.accelerator.prepare(model, self.trainer.optimizer)
        self.trainer.current_gradient_accumulation_steps = 1

    def step(self, batch: dict[str, torch.Tensor], watch: AbstractContextManager | None = None) -> float:
        """Seconds for one step on a batch; `watch` is a context around it, on a CPU without drawing the plan."""
        trainer, model = self.trainer, self.model
        whole, rest = (watch, None) if torch.cuda.is_available() else (None, watch)
        start = time.perf_counter()
        with whole or nullcontext():
            batches, num_items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
            with rest or nullcontext():
                loss = trainer.training_step(model, batches[0], num_items)
                if trainer.args.logging_nan_inf_filter:
                    # What Trainer's loop asks after each step.
                    bool(torch.isnan(loss) or torch.isinf(loss))
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
    device = "cuda" if on_gpu(options) else "cpu"
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def in_a_process(function: Callable, options: argparse.Namespace, *arguments: Any) -> Any:
    """What the function returns in a fresh process: what one measurement leaves behind must not serve another."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_mixup.trainer", "scipy.stats"])
    with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(options.threads,)) as executor:
        return executor.submit(function, options, *arguments).result()


def _prepare(threads: int) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)


def measure_rounds(
    options: argparse.Namespace, others: Sequence[argparse.Namespace] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and page faults, each `[pairs, 2 + others]`: of the plain, the mixed and the other runs' mixed steps."""
    sides = [Side(options, mixed=False), Side(options, mixed=True)]
    return alternate(options, [*sides, *(Side(other, mixed=True, like=sides[1]) for other in others)])


def alternate(options: argparse.Namespace, sides: Sequence[Side]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and page faults, each `[pairs, sides]`, of steps on the same batches, after three to warm up."""
    for side in sides:
        for seed in range(3):
            side.step(random_batch(options, seed))
    order = np.random.default_rng(0)
    times, faults = np.empty((2, options.pairs, len(sides)))
    for pair in range(options.pairs):
        batch = random_batch(options, 100 + pair)
        for which in order.permutation(len(sides)):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            times[pair, which] = sides[which].step(batch)
            faults[pair, which] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return times, faults


def start_of_peak(options: argparse.Namespace, mixed: bool) -> Callable[[], float]:
    """Counts the memory of this process from here on; returns what gives the MiB at its peak since."""
    if on_gpu(options):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        return lambda: (torch.cuda.max_memory_allocated() - held) / 2**20
    # The code of the libraries, which a process reads in as it is used, is not to count.
    small = {"model": "tiny", "depth": depth_of(options), "batch": 2, "length": 8}
    small = argparse.Namespace(**vars(options) | small)
    Side(small, mixed).step(random_batch(small, 0))
    # From here on the kernel counts the highest use anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _process_memory("VmRSS")
    return lambda: _process_memory("VmHWM") - before


def peak_memory(options: argparse.Namespace, mixed: bool) -> float:
    """MiB that the model, its optimizer and a few steps take at their peak."""
    peak = start_of_peak(options, mixed)
    side = Side(options, mixed)
    for seed in range(4):
        side.step(random_batch(options, seed))
    return peak()


def _process_memory(name: str) -> float:
    """MiB of this process, from Linux's own account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def compiled_frames(options: argparse.Namespace) -> tuple[int, int]:
    """The frames that mixed and plain steps compile while lambda, partner and layer change, and how many are due."""
    # They depend on the depth of the model, not on its width.
    small = {"model": "tiny", "depth": depth_of(options), "batch": 6, "length": 16, "compile": False, "bf16": False}
    options = argparse.Namespace(**vars(options) | small)
    side = Side(options, mixed=True)
    counter = CompileCounter()
    side.model = torch.compile(side.model, backend=counter)
    arguments = side.trainer.args
    arguments.mixup_ratio = arguments.mixup_lambda = None
    method = arguments.mixup()
    for seed in range(8):
        side.step(random_batch(options, seed))
    arguments.mixup_prob = 0.0
    side.step(random_batch(options, 0))
    # The pooled vector among the layers is a site of its own; spans are swapped between two passes.
    sites = 1 + ("pooled" in method.resolve_layers(options.depth)) + isinstance(method.ratio, Spans)
    return counter.frame_count, sites + 1


def calls(options: argparse.Namespace, mixed: bool) -> dict[str, int]:
    """How many kernel launches and waits for the device a step has; on a CPU, operator calls and reads of a value."""
    return calls_of(options, Side(options, mixed))


def calls_of(options: argparse.Namespace, side: Side) -> dict[str, int]:
    """As `calls`, of a side that is there."""
    gpu = on_gpu(options)
    watched = {"operator_calls": None, "reads": READS}
    if gpu:
        watched = {"kernel_launches": LAUNCHES, "host_waits": WAITS}
    for seed in range(2):
        side.step(random_batch(options, seed))
    watch = profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU])
    # On the CPU values are checked, which is free there; those on a device are not looked at.
    checks = [patch(f"hf_mixup.mixing.{name}.can_read", return_value=False) for name in ("plan", "objectives")]
    with checks[0], checks[1]:
        side.step(random_batch(options, 2), watch)
    events = {event.key: event.count for event in watch.key_averages() if gpu or event.key.startswith("aten::")}
    return {name: sum(events.get(key, 0) for key in keys or events) for name, keys in watched.items()}


def target(options: argparse.Namespace) -> float:
    """The ratio that a mixed step must not exceed."""
    method, depth = method_of(options), depth_of(options)
    if isinstance(method.ratio, Spans):
        return 2.1
    if method.clean == "average":
        layers = [layer for layer in method.resolve_layers(depth) if layer != "pooled"]
        # Attention mixes inside of its block, all of which clean and mixed rows then go through apart.
        first = min(layers, default=0 if "embeddings" in method.site else depth)
        first -= method.site in ("attention", "attention_block")
        return 1 + (depth - first) / depth + 0.03
    if isinstance(method.ratio, AttentionProbe):
        return 1.08
    if method.site in ("attention", "attention_block"):
        return (1.01 if options.compile else 1.03) if on_gpu(options) else 1.02
    return 1.01


def memory_target(options: argparse.Namespace) -> float | None:
    """The ratio of the peak memory that a mixed step must not exceed; None for two passes, and clean rows along."""
    method = method_of(options)
    return None if isinstance(method.ratio, Spans) or method.clean == "average" else 1.02


def method_of(options: argparse.Namespace) -> Method:
    """The method with the options of the command line."""
    given = {name.removeprefix("mixup_"): getattr(options, name) for name in MIXED_OPTIONS[1:]}
    return METHODS[options.mixup_method].with_options(**given)


def mixed_words(options: Mapping[str, Any]) -> str:
    """The method, with what was chosen otherwise than its defaults."""
    return " ".join(str(options[name]) for name in MIXED_OPTIONS if options.get(name))


def measure(runs: Sequence[argparse.Namespace], command: str) -> list[dict[str, Any]]:
    """One result for each run; they differ in what they mix alone."""
    times, faults = in_a_process(measure_rounds, runs[0], runs[1:])
    plain_memory = in_a_process(peak_memory, runs[0], False)
    plain_calls = in_a_process(calls, runs[0], False)
    results = []
    for column, options in enumerate(runs, start=1):
        memory = [plain_memory, in_a_process(peak_memory, options, True)]
        frames, due = in_a_process(compiled_frames, options)
        results.append(
            {
                **origin(command),
                **times_of(options, times[:, [0, column]]),
                "page_faults_median": np.median(faults[:, [0, column]], axis=0).tolist(),
                **memory_of(memory),
                "compiled_frames": frames,
                "compiled_frames_due": due,
                "added_per_step": added_calls(plain_calls, in_a_process(calls, options, True)),
            }
        )
    return results


def times_of(options: argparse.Namespace, times: np.ndarray) -> dict[str, Any]:
    """What is reported of the seconds `[pairs, 2]` of plain and mixed steps."""
    ratios = times[:, 1] / times[:, 0]
    interval = bootstrap((ratios,), np.median, confidence_level=0.95, rng=0).confidence_interval
    return {
        "options": recorded(options),
        "ratio_median": float(np.median(ratios)),
        "ratio_interval_95": [float(interval.low), float(interval.high)],
        "ratio_target": target(options),
        "plain_step_median_seconds": float(np.median(times[:, 0])),
        "seconds": times.round(5).tolist(),
    }


def memory_of(mib: Sequence[float]) -> dict[str, Any]:
    """What is reported of the peak memory of a plain and a mixed side."""
    return {"memory_ratio": mib[1] / mib[0], "memory_mib": list(mib)}


def added_calls(plain: Mapping[str, int], mixed: Mapping[str, int]) -> dict[str, int]:
    """The calls that a mixed step has more than a plain one, of each kind."""
    return {name: count - plain[name] for name, count in mixed.items()}


def origin(command: str) -> dict[str, Any]:
    """Where results come from."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"command": command, "machine": machine(), "versions": versions}


def recorded(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of a run, but for where things go."""
    return {name: value for name, value in vars(options).items() if name not in WHERE[:2]}


def machine() -> str:
    """The processor, its cores, and the accelerator if one is used."""
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{processor()}, {multiprocessing.cpu_count()} cores{gpu}"


def table(results: Sequence[dict[str, Any]]) -> Table:
    """What was measured on one model, one row for each result."""
    options = results[0]["options"]
    table = Table(
        box=SIMPLE,
        title=f"Mixed steps over plain ones: {options['model']} {options['family']}, batch {options['batch']} x "
        f"{options['length']}, {options['pairs']} pairs, {options['threads']} thread(s), {results[0]['machine']}",
    )
    for head in ("method", "time", "95 % interval", "at most", "memory", "frames"):
        table.add_column(head)
    for name in results[0]["added_per_step"]:
        table.add_column(f"{name.replace('_', ' ')} added")
    for result in results:
        low, high = result["ratio_interval_95"]
        table.add_row(
            mixed_words(result["options"]),
            f"{result['ratio_median']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{result['ratio_target']:.3f}",
            f"{result['memory_ratio']:.3f}",
            f"{result['compiled_frames']} of {result['compiled_frames_due']}",
            *(f"{count:g}" for count in result["added_per_step"].values()),
        )
    return table


def parser(description: str) -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="minilm", help="the shape; weights are random")
    parser.add_argument("--depth", type=int, help="the number of blocks, if not that of the shape")
    parser.add_argument("--family", choices=sorted(MODELS), default="bert")
    parser.add_argument("--mixup_method", choices=[name for name in METHODS if name != "none"], default="amplify")
    parser.add_argument("--mixup_site")
    parser.add_argument("--mixup_layers")
    parser.add_argument("--mixup_clean")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile, both sides")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--scratch", default="tmp_trainer", help="the trainers' output folder, left empty")
    parser.add_argument("--output", help="append the results to this JSON-lines file")
    return parser


def command_of(options: argparse.Namespace, known: argparse.ArgumentParser) -> str:
    """The command, with the flags that differ from their defaults, but for where things go."""
    # What tells the C library how long to keep memory belongs to a measurement.
    words = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")]
    words += ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for name, value in vars(options).items():
        if name not in WHERE and value != known.get_default(name):
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return " ".join(words)


def groups_of_runs(known: argparse.ArgumentParser) -> tuple[argparse.Namespace, Iterator[list[argparse.Namespace]]]:
    """The flags as given, and the runs they ask for: those that differ in what they mix alone stand together."""
    known.add_argument("--suite", choices=sorted(SUITES), help="several methods; the other flags hold for each")
    given = known.parse_args()
    entries = SUITES[given.suite] if given.suite else [""]
    runs = [known.parse_args([*entry.split(), *sys.argv[1:]]) for entry in entries]
    for options in runs:
        options.cpu = not on_gpu(options)

    def common(options: argparse.Namespace) -> list[Any]:
        return [value for name, value in vars(options).items() if name not in MIXED_OPTIONS]

    return given, (list(group) for _, group in groupby(runs, key=common))


def append(path: str | None, lines: Sequence[dict[str, Any]]) -> None:
    """Append to a JSON-lines file, if there is one."""
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def main() -> None:
    known = parser(__doc__)
    given, groups = groups_of_runs(known)
    for runs in groups:
        results = measure(runs, command_of(given, known))
        append(given.output, results)
        Console().print(table(results))


if __name__ == "__main__":
    main()
