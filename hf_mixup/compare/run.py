"""One cell of a grid: `run_glue_mixup.main` on its data, and everything that is measured of the model it saves."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import recall_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import hf_mixup
import run_glue_mixup
from hf_mixup.compare.calibration import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)
from hf_mixup.compare.data import CellData, check_task, load_cell_data
from hf_mixup.compare.grid import ARGUMENTS, Cell, Grid, Task
from hf_mixup.compare.ood import auroc, fpr_at_95, max_probability, negative_energy
from hf_mixup.compare.packing import pack
from hf_mixup.errors import UsageError, install_hint
from hf_mixup.glue.arguments import parse_arguments
from hf_mixup.glue.metrics import load_metric, scores_to_predictions
from hf_mixup.glue.options import check_length_and_schedule
from hf_mixup.machine import processor
from hf_mixup.trainer import MixupTrainingArguments

_BATCH = 64
_MIB = 2**20


def check_runs(grid: Grid) -> None:
    """Check data and flags of all runs, so that what is wrong shows before hours are spent.

    Raises:
        UsageError: a file, column, label or flag does not fit, or tuning is not possible, in one sentence.
    """
    if grid.tune and not find_spec("optuna"):
        raise UsageError(f"--tune needs the package optuna; {install_hint('compare')}")
    for task in grid.tasks.values():
        check_task(task, grid.sizes, grid.noise)
        for method, model in product(grid.methods, grid.models):
            cell = Cell(task.name, model, grid.sizes[0], grid.noise[0], method, grid.seeds[0])
            files = {"train_file": task.files["train"], "validation_file": task.files["test"]}
            try:
                training_arguments(grid.run_options(cell), files, task, grid.models[model])
            except UsageError as error:
                raise UsageError(f"{method} cannot be run on {task.name}: {error}") from error


def training_arguments(
    options: Mapping[str, Any], files: Mapping[str, str], task: Task, model: str
) -> MixupTrainingArguments:
    """The arguments that a run with these flags and files trains with, checked as the script checks them.

    Raises:
        UsageError: a flag does not fit.
    """
    argv = _argv(options, files, task, model, "unused", seed=0)
    (_, data_args, training_args), _ = parse_arguments(argv, ARGUMENTS)
    check_length_and_schedule(training_args)
    run_glue_mixup.check_request(data_args, training_args)
    return training_args


def run_cell(cell: Cell, task: Task, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Train and measure one cell.

    Args:
        cell: what is run.
        task: its task.
        model: the folder or the name of its model.
        options: the flags of the run.

    Returns:
        What `hf_mixup.compare.results` lists from `rows` on.

    Raises:
        UsageError, NonFiniteLossError: as `run_glue_mixup.main`.
    """
    data = load_cell_data(task, cell)
    with tempfile.TemporaryDirectory() as folder:
        memory = _PeakMemory()
        results = train(data, task, model, options, cell.seed, Path(folder))
        peak = memory.mib()
        state = json.loads(Path(folder, "run", "trainer_state.json").read_text(encoding="utf-8"))
        saved, tokenizer = _load_plain(Path(folder, "run"))
        wanted = [name for name in ("validation", "test", "ood") if name in data.splits]
        if data.true_classes is not None:
            wanted.append("train")
        length = run_glue_mixup.usable_length(
            int(options.get("max_seq_length", run_glue_mixup.DataTrainingArguments.max_seq_length)),
            tokenizer,
            saved,
            len(data.text_columns),
        )
        logits = {name: predict_logits(saved, tokenizer, data.texts(name), length) for name in wanted}
    if data.labels.kind == "single":
        # The script sorts the names of the classes in its own way.
        order = [saved.config.label2id[name] for name in data.labels.names]
        logits = {name: scores[:, order] for name, scores in logits.items()}

    kind, labels = data.labels.kind, data.encoded("test")
    predictions = scores_to_predictions(kind, logits["test"])
    metric = load_metric(kind, data.labels.num_labels, task.task_name, None, None)
    steps = state["global_step"]
    record = {
        "rows": {name: len(split) for name, split in data.splits.items() if name != "clean_train"},
        "wrong_train_labels": data.wrong_labels,
        "metrics": metric(logits["test"], labels),
        "validation": validation_metrics(results),
        "cost": {
            "steps": steps,
            "step_seconds": results["train_runtime"] / steps,
            "peak_memory_mib": peak,
        },
        "loss": [[entry["step"], entry["loss"]] for entry in state["log_history"] if "loss" in entry],
        "test": {"labels": pack(labels), "predictions": pack(predictions)},
    }
    return record if kind == "regression" else {**record, **measure(data, logits)}


def train(
    data: CellData, task: Task, model: str, options: Mapping[str, Any], seed: int, folder: Path
) -> dict[str, float]:
    """Run the script on the data of a cell: the model is then in `run` in the folder.

    Returns:
        What the script reports: `eval_*` are the numbers of the validation rows.
    """
    argv = _argv(options, data.write(folder), task, model, folder / "run", seed)
    argv += [f"--text_column_names={','.join(data.text_columns)}"]
    return run_glue_mixup.main(argv)


def validation_metrics(results: Mapping[str, float]) -> dict[str, float]:
    """The task's metrics and the loss among what the script reports of the validation rows, by their plain names."""
    others = ("runtime", "samples", "samples_per_second", "steps_per_second", "model_preparation_time")
    named = {name.removeprefix("eval_"): value for name, value in results.items() if name.startswith("eval_")}
    return {name: value for name, value in named.items() if name not in others}


def where_it_ran() -> dict[str, Any]:
    """The machine and the versions of a run."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    packages = ("torch", "transformers")
    versions = {"hf_mixup": hf_mixup.__version__, **{name: version(name) for name in packages}}
    return {"machine": f"{processor()}, {accelerator}, {torch.get_num_threads()} threads", "versions": versions}


def _argv(
    options: Mapping[str, Any], files: Mapping[str, Any], task: Task, model: str, folder: Path | str, seed: int
) -> list[str]:
    flags = {**options, **files, "model_name_or_path": model, "output_dir": folder, "seed": seed}
    flags |= {name: getattr(task, name) for name in ("text_column_names", "label_column_name", "task_name")}
    given = {name: value for name, value in flags.items() if value is not None}
    return [*(f"--{name}={value}" for name, value in given.items()), "--do_train", "--do_eval"]


def _load_plain(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The saved model as transformers alone loads it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def predict_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]], length: int
) -> NDArray[np.float64]:
    """The outputs `[rows, outputs]`."""
    encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, max_length=length)
    # Texts of like length share a batch, which saves most of the padding.
    order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
    outputs = np.empty((len(texts), model.config.num_labels))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        batch = tokenizer.pad(
            {name: [column[row] for row in rows] for name, column in encoded.items()}, return_tensors="pt"
        )
        outputs[rows] = model(**batch.to(model.device)).logits.double().cpu().numpy()
    return outputs


def measure(data: CellData, logits: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The measures of a classifier and what its reliability diagrams show.

    Args:
        data: what it was trained and is measured on.
        logits: its outputs `[rows, classes]` for `validation` and `test`, for `ood` if there is such a file, and for
            `train` if the true classes of the train rows are known.

    Returns:
        `measures` and `reliability`, as in `hf_mixup.compare.results`.
    """
    labels, held_out = data.encoded("test"), data.encoded("validation")
    # Where all validation rows are right, the lower the temperature the better it fits them: there is no best one.
    has_temperature = bool((logits["validation"].argmax(axis=1) != held_out).any())
    temperature = fit_temperature(logits["validation"], held_out) if has_temperature else None
    measures: dict[str, float | None] = {"temperature": temperature}
    reliability = {}
    for name, suffix, divisor in (("raw", "", 1.0), ("scaled", "_scaled", temperature)):
        if divisor is None:
            measures |= dict.fromkeys(f"{each}{suffix}" for each in ("nll", "brier", "ece", "ace"))
            continue
        scores = logits["test"] / divisor
        probabilities = softmax(scores, axis=1)
        measures |= {
            f"nll{suffix}": negative_log_likelihood(scores, labels),
            f"brier{suffix}": brier_score(probabilities, labels),
            f"ece{suffix}": expected_calibration_error(probabilities, labels),
            f"ace{suffix}": adaptive_calibration_error(probabilities, labels),
        }
        bins = reliability_bins(probabilities, labels)
        reliability[name] = dict(zip(("count", "confidence", "accuracy"), bins, strict=True))
    # The accuracy of a class is its recall; classes without test rows have none.
    recalls = recall_score(labels, logits["test"].argmax(axis=1), labels=np.unique(labels), average=None)
    measures["worst_class_accuracy"] = float(recalls.min())
    if data.true_classes is not None:
        given, guessed, true = data.encoded("train"), logits["train"].argmax(axis=1), data.true_classes
        wrong = given != true
        for name, rows, target in (
            ("clean_rows_accuracy", ~wrong, true),
            ("flipped_rows_accuracy", wrong, true),
            ("flipped_rows_memorized", wrong, given),
        ):
            measures[name] = float((guessed == target)[rows].mean()) if rows.any() else float("nan")
    if "ood" in logits:
        for name, score in (("probability", max_probability), ("energy", negative_energy)):
            inside, outside = score(logits["test"]), score(logits["ood"])
            measures |= {f"ood_auroc_{name}": auroc(inside, outside), f"ood_fpr95_{name}": fpr_at_95(inside, outside)}
    return {"measures": measures, "reliability": reliability}


class _PeakMemory:
    """The highest memory use from here on: that of the GPU, or of this process where the kernel keeps account."""

    def __init__(self) -> None:
        self._cuda, self._status = torch.cuda.is_available(), Path("/proc/self/status")
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self._status = None

    def mib(self) -> float | None:
        if self._cuda:
            return torch.cuda.max_memory_allocated() / _MIB
        if self._status is None:
            return None
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
