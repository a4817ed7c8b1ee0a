"""What hf-mixup calibrate does to models that mixed much, measured by plain transformers on rows that fitted nothing.

    python benchmarks/calibration.py --data DATA --seeds 1 2 --output docs/results/calibration.jsonl

DATA is the folder with trec_coarse/ and banking77/ (train.csv and test.csv). A model is fine-tuned on rows that the
seed draws from train.csv, calibrated on others of it, and measured on test.csv by the pipeline of transformers, as it
was and as the command wrote it. One JSON line a model; models that the file holds already are not made again, and with
`--scratch` trained ones are kept and used again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from transformers import AutoConfig, pipeline

import run_glue_mixup
from hf_mixup.calibrate.main import main as calibrate
from hf_mixup.compare.calibration import brier_score, expected_calibration_error
from hf_mixup.compare.run import where_it_ran
from hf_mixup.demo.run import minilm_folder

SETTINGS = {
    "mixup_method": "amplify-code",
    "mixup_ratio": "beta-max",
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 32,
    "num_train_epochs": 6,
    "max_seq_length": 64,
    "pad_to_max_length": "false",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": "true",
    "log_level": "error",
}
# Rows to train and to calibrate on.
TASKS = {"trec_coarse": (1000, 500), "banking77": (2000, 1000)}


def run(task: str, alpha: float, seed: int, data: Path, folder: Path) -> dict:
    """Train and calibrate a model in a folder, and measure it before and after."""
    train, validation = TASKS[task]
    rows = pd.read_csv(data / task / "train.csv", dtype=str, keep_default_na=False)
    order = np.random.default_rng(seed).permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    rows.iloc[order[:train]].to_csv(folder / "train.csv", index=False)
    rows.iloc[order[train : train + validation]].to_csv(folder / "validation.csv", index=False)
    model = folder / "model"
    if not (model / "model.safetensors").exists():
        flags = {
            **SETTINGS,
            "model_name_or_path": minilm_folder(),
            "train_file": folder / "train.csv",
            "output_dir": model,
            "mixup_alpha": alpha,
            "seed": seed,
        }
        run_glue_mixup.main([f"--{name}={value}" for name, value in flags.items()] + ["--do_train"])
    with tempfile.TemporaryDirectory() as out:
        new = Path(out, "calibrated")
        code = calibrate([str(model), str(folder / "validation.csv"), "--output_dir", str(new), "--precision", "0.95"])
        if code:
            raise RuntimeError(f"hf-mixup calibrate ended with code {code}.")
        test = pd.read_csv(data / task / "test.csv", dtype=str, keep_default_na=False)
        before, after = (measure(each, test) for each in (model, new))
        noted = AutoConfig.from_pretrained(new).calibration
    return {
        "task": task,
        "seed": seed,
        "rows": {"train": train, "calibration": validation, "test": len(test)},
        "options": {**SETTINGS, "mixup_alpha": alpha},
        "before": before,
        "after": after,
        # By the command itself, on the rows of the calibration.
        "noted": noted,
        "promised": promise(noted, after.pop("answers"), before.pop("answers")),
    }


def measure(folder: Path, test: pd.DataFrame) -> dict:
    """The measures of a checkpoint by the pipeline alone."""
    classify = pipeline("text-classification", model=str(folder), top_k=None, device=-1)
    names = AutoConfig.from_pretrained(folder).label2id
    probabilities = np.empty((len(test), len(names)))
    for row, answers in enumerate(classify(test["sentence"].tolist(), batch_size=32, truncation=True)):
        for answer in answers:
            probabilities[row, names[answer["label"]]] = answer["score"]
    labels = test["label"].map(names).to_numpy()
    right = probabilities.argmax(axis=1) == labels
    return {
        "nll": float(-np.log(probabilities[np.arange(len(labels)), labels]).mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "accuracy": float(right.mean()),
        "answers": (probabilities.max(axis=1), right),
    }


def promise(noted: dict, answers: tuple[np.ndarray, np.ndarray], before: tuple[np.ndarray, np.ndarray]) -> dict:
    """What the thresholds of the calibration rows do on the test rows."""
    if (answers[1] != before[1]).any():
        raise RuntimeError("The calibrated model predicts other classes.")
    found = {}
    for name, at in noted["thresholds"]["by_class"]["all classes"].items():
        if at is not None:
            accepted = answers[0] >= at
            found[name] = {
                "from": at,
                "coverage": float(accepted.mean()),
                "precision": float(answers[1][accepted].mean()),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--alpha", nargs="+", type=float, default=[0.4], help="how much is mixed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--output", type=Path, required=True, help="JSON lines are appended to it")
    parser.add_argument("--scratch", type=Path, help="keep the models in this folder (default: nowhere)")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    done = {(line["task"], line["options"]["mixup_alpha"], line["seed"]) for line in map(json.loads, lines)}
    wanted = [(task, alpha, seed) for task in options.tasks for alpha in options.alpha for seed in options.seeds]
    console = Console()
    for task, alpha, seed in [each for each in wanted if each not in done]:
        with ExitStack() as stack:
            scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            line = run(task, alpha, seed, options.data, scratch / f"{task}-{alpha:g}-{seed}")
        line |= where_it_ran()
        line["command"] = (
            f"python benchmarks/calibration.py --data DATA --tasks {task} --alpha {alpha:g} --seeds {seed} "
            f"--output docs/results/{options.output.name}"
        )
        with options.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        console.print(
            f"{task}, alpha {alpha:g}, seed {seed}: ECE {line['before']['ece']:.3f} {line['after']['ece']:.3f}"
        )


if __name__ == "__main__":
    main()
