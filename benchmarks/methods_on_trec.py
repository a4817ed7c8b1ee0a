"""Every method on 500 rows of TREC: accuracy over seeds, one JSON line a run.

    HF_MIXUP_DATA=DATA python benchmarks/methods_on_trec.py --output docs/results/methods_on_trec.jsonl

Each run is `run_glue_mixup.main` with the method's own defaults, on MiniLM weights: 10 epochs, learning rate 1e-4,
batch 32. Runs that the file holds already are not made again. `python docs/generate.py` writes the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
import transformers
from rich.console import Console
from step_time import machine

from hf_mixup.demo.run import minilm_folder
from hf_mixup.methods import METHODS
from run_glue_mixup import main as run_glue

SETTINGS = {
    "max_train_samples": 500,
    "num_train_epochs": 10,
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "max_seq_length": 64,
    "pad_to_max_length": "false",
    "save_strategy": "no",
    "disable_tqdm": "true",
    "log_level": "error",
}


def run(method: str, seed: int, data: Path) -> dict:
    """One run, with its settings and where it ran."""
    folder = tempfile.mkdtemp()
    files = {"train_file": data / "trec_coarse/train.csv", "validation_file": data / "trec_coarse/test.csv"}
    flags = {**SETTINGS, **files, "model_name_or_path": minilm_folder(), "output_dir": folder}
    flags |= {"mixup_method": method, "seed": seed}
    argv = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    start = time.perf_counter()
    results = run_glue([*argv, "--do_train", "--do_eval"])
    shutil.rmtree(folder)
    return {
        "method": method,
        "seed": seed,
        "accuracy": results["eval_accuracy"],
        "f1_macro": results["eval_f1_macro"],
        "train_loss": results["train_loss"],
        "seconds": round(time.perf_counter() - start, 1),
        "command": "python benchmarks/methods_on_trec.py --output docs/results/methods_on_trec.jsonl",
        "settings": SETTINGS,
        "machine": machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    options = parser.parse_args()
    data = Path(os.environ["HF_MIXUP_DATA"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    done = {(entry["method"], entry["seed"]) for entry in map(json.loads, lines)}
    logging.disable(logging.WARNING)
    for seed in options.seeds:
        for method in options.methods:
            if (method, seed) in done:
                continue
            result = run(method, seed, data)
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            Console().print(f"{method} seed {seed}: {result['accuracy']:.4f} in {result['seconds']} s")


if __name__ == "__main__":
    main()
