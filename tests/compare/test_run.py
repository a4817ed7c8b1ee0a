"""One cell against the script called by hand, stock predictions, and measures worked out from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import run_glue_mixup
from hf_mixup.compare import runner
from hf_mixup.compare.data import load_cell_data
from hf_mixup.compare.grid import Cell, make_grid
from hf_mixup.compare.packing import pack, unpack
from hf_mixup.compare.results import Results, jsonable
from hf_mixup.compare.run import measure, run_cell, train, where_it_ran
from hf_mixup.compare.schema import read_line
from tests.compare.conftest import OPTIONS
from tests.data_files import labelled_pairs, write_csv
from tests.script import QUIET
from tests.tiny import SENTENCES


def stock_logits(folder: Path, texts: list[str]) -> np.ndarray:
    """One row at a time, without padding, by plain transformers."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        rows = [tokenizer(text, truncation=True, max_length=16, return_tensors="pt") for text in texts]
        return np.stack([model.eval()(**row).logits[0].double().numpy() for row in rows])


def cell_of(grid, method="none", **changes):
    return replace(Cell("colours", "tiny", "all", 0.0, method, 1), **changes)


def run(grid, cell):
    found = run_cell(cell, grid.tasks[cell.task], grid.models[cell.model], grid.run_options(cell))
    # Whatever it gives makes a whole line of results.
    record = runner._job(grid, "run", cell, {}).record({"status": "done", "seconds": 1.0, **where_it_ran(), **found})
    line = jsonable(record)
    assert read_line(json.dumps(line).encode()) == line
    return found


@pytest.mark.parametrize("method", ["none", "amplify:alpha=1:ratio=beta"])
def test_a_cell_is_a_run_of_the_script(settings, task_folder, tmp_path, method):
    """Class names in the order of the alphabet, so that the first weights of the classifier are the same."""
    files = {name: str(Path(task_folder, f"{name}.csv")) for name in ("train", "test")}
    settings["tasks"] = [{"name": "colours", "folder": task_folder, "validation_file": files["test"]}]
    grid = make_grid(settings)
    found = run(grid, cell_of(grid, method))

    flags = {**OPTIONS, "model_name_or_path": grid.models["tiny"], "train_file": files["train"], "seed": 1}
    flags |= {"validation_file": files["test"], "output_dir": tmp_path / "by_hand", "pad_to_max_length": "false"}
    flags |= {"mixup_method": method.partition(":")[0]}
    argv = [f"--{name}={value}" for name, value in flags.items()]
    if method != "none":
        argv += ["--mixup_alpha=1", "--mixup_ratio=beta"]
    results = run_glue_mixup.main([*argv, "--do_train", "--do_eval", "--save_strategy=no", *QUIET])
    assert found["validation"]["loss"] == results["eval_loss"]
    assert found["validation"]["accuracy"] == results["eval_accuracy"]

    data = load_cell_data(grid.tasks["colours"], cell_of(grid))
    logits = stock_logits(tmp_path / "by_hand", [text for (text,) in data.texts("test")])
    labels = data.encoded("test")
    assert unpack(found["test"]["predictions"]).tolist() == logits.argmax(axis=1).tolist()
    assert unpack(found["test"]["labels"]).tolist() == labels.tolist()
    # Validation and test are the same file here.
    assert found["measures"]["nll"] == pytest.approx(results["eval_loss"], abs=1e-5)
    assert found["metrics"] == pytest.approx(
        {
            "accuracy": accuracy_score(labels, logits.argmax(axis=1)),
            "f1_macro": f1_score(labels, logits.argmax(axis=1), average="macro"),
        }
    )
    recalls = [(logits.argmax(axis=1)[labels == label] == label).mean() for label in range(4)]
    assert found["measures"]["worst_class_accuracy"] == pytest.approx(min(recalls))
    assert found["rows"] == {"train": 40, "validation": 21, "test": 21, "ood": 2}
    assert found["wrong_train_labels"] is None
    assert found["cost"]["steps"] == 2 and len(found["loss"]) == 2


def test_a_cell_gives_the_same_twice(grid):
    cell = cell_of(grid, "amplify:alpha=1:ratio=beta", noise=0.25)
    first, second = (jsonable(run(grid, cell)) for _ in range(2))
    del first["cost"], second["cost"]
    assert first == second
    assert first["wrong_train_labels"] == round(0.25 * first["rows"]["train"])


def test_all_methods_start_from_the_same_weights(settings, tmp_path):
    """With a learning rate of 0 the trained model is the one it started from."""
    methods = ["none", "amplify", "nonlinear", "ssmix"]
    options = {**OPTIONS, "learning_rate": 0, "max_steps": 1}
    grid = make_grid({**settings, "methods": methods, "options": options})
    data = load_cell_data(grid.tasks["colours"], cell_of(grid))
    weights = []
    for seed, method in [(1, method) for method in methods] + [(2, "none")]:
        options = grid.run_options(cell_of(grid, method))
        folder = tmp_path / f"{method}{seed}"
        folder.mkdir()
        train(data, grid.tasks["colours"], grid.models["tiny"], options, seed, folder)
        weights.append(AutoModelForSequenceClassification.from_pretrained(folder / "run").state_dict())
    first, *others, other_seed = weights
    for state in others:
        assert list(state) == list(first) and all(torch.equal(state[name], first[name]) for name in first)
    assert not torch.equal(other_seed["classifier.weight"], first["classifier.weight"])


def test_no_temperature_fits_validation_rows_best_that_are_all_right(grid):
    data = load_cell_data(grid.tasks["colours"], cell_of(grid))
    right = {name: 3 * np.eye(4)[data.encoded(name)] for name in ("validation", "test")}
    found = measure(data, {**right, "ood": np.eye(4)})
    assert (
        found["measures"]["temperature"] is found["measures"]["nll_scaled"] is found["measures"]["ace_scaled"] is None
    )
    assert found["measures"]["nll"] == pytest.approx(np.log(1 + 3 * np.exp(-3))) and list(found["reliability"]) == [
        "raw"
    ]
    # One wrong row is enough.
    right["validation"][0] = right["validation"][0][::-1]
    found = measure(data, {**right, "ood": np.eye(4)})
    assert found["measures"]["temperature"] > 0 and list(found["reliability"]) == ["raw", "scaled"]


def test_clean_and_wrong_rows_are_told_apart(grid):
    """A model that has learned the given labels by heart, one that sees through them, and one that guesses class 0."""
    data = load_cell_data(grid.tasks["colours"], cell_of(grid, noise=0.25))
    others = {name: np.eye(4)[data.encoded("test")] for name in ("validation", "test")}
    others["validation"] = np.eye(4)[data.encoded("validation")]
    wrong = data.encoded("train") != data.true_classes
    zero = np.zeros_like(data.true_classes)
    for guessed, clean, seen_through, memorized in (
        (data.encoded("train"), 1, 0, 1),
        (data.true_classes, 1, 1, 0),
        (
            zero,
            *(
                np.mean(zero[rows] == part[rows])
                for rows, part in (
                    (~wrong, data.true_classes),
                    (wrong, data.true_classes),
                    (wrong, data.encoded("train")),
                )
            ),
        ),
    ):
        measures = measure(data, {**others, "train": np.eye(4)[guessed]})["measures"]
        found = [
            measures[f"{name}"] for name in ("clean_rows_accuracy", "flipped_rows_accuracy", "flipped_rows_memorized")
        ]
        assert found == pytest.approx([clean, seen_through, memorized])


def test_scaled_measures_are_those_of_divided_logits(grid):
    data = load_cell_data(grid.tasks["colours"], cell_of(grid))
    generator = np.random.default_rng(0)
    logits = {name: generator.normal(0, 2, (len(data.splits[name]), 4)) for name in ("validation", "test", "ood")}
    found = measure(data, logits)
    measures, labels = found["measures"], data.encoded("test")
    divided = torch.tensor(logits["test"] / measures["temperature"])
    assert measures["nll_scaled"] == pytest.approx(
        torch.nn.functional.cross_entropy(divided, torch.tensor(labels)).item()
    )
    assert measures["nll"] != pytest.approx(measures["nll_scaled"])
    bins = {name: np.array(values) for name, values in found["reliability"]["scaled"].items()}
    assert bins["count"].sum() == len(labels)
    gap = np.abs(bins["accuracy"] - bins["confidence"])
    assert measures["ece_scaled"] == pytest.approx((bins["count"] * gap).sum() / len(labels))
    confidence = softmax(logits["test"], axis=1).max(axis=1), softmax(logits["ood"], axis=1).max(axis=1)
    pairs = [(first > second) + 0.5 * (first == second) for first in confidence[0] for second in confidence[1]]
    assert measures["ood_auroc_probability"] == pytest.approx(np.mean(pairs))


def test_out_of_distribution_scores_are_there_with_a_file_alone(settings, task_folder, grid):
    names = {f"ood_{what}_{score}" for what in ("auroc", "fpr95") for score in ("probability", "energy")}
    assert names <= run(grid, cell_of(grid))["measures"].keys()
    Path(task_folder, "ood.csv").unlink()
    assert not names & run(make_grid(settings), cell_of(grid))["measures"].keys()


def test_a_glue_task_of_pairs_with_its_metrics(settings, tmp_path):
    names = ("sentence1", "sentence2", "label")
    files = {
        f"{split}_file": write_csv(tmp_path / f"{split}.csv", names, labelled_pairs([0, 1], count))
        for split, count in (("train", 20), ("test", 9))
    }
    settings["tasks"] = [{"name": "pairs", "task_name": "mrpc", "validation_split": 0.2, **files}]
    grid = make_grid(settings)
    found = run(grid, cell_of(grid, task="pairs"))
    assert found["rows"] == {"train": 16, "validation": 4, "test": 9}
    assert set(found["metrics"]) == {"accuracy", "f1"}
    assert unpack(found["test"]["labels"]).tolist() == [number % 2 for number in range(9)]


def test_classes_that_are_numbers_keep_their_order(settings, tmp_path):
    """The script sorts names by the alphabet, 10 before 2; labels and predictions have the numbers' order."""
    rows = [(SENTENCES[number % 3], (2, 10, 9)[number % 3]) for number in range(40)]
    files = {
        f"{split}_file": write_csv(tmp_path / f"{split}.csv", ("sentence", "label"), part)
        for split, part in (("train", rows[:30]), ("test", rows[30:]))
    }
    options = {**OPTIONS, "max_steps": 20, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
    settings |= {"tasks": [{"name": "numbers", **files}], "options": options}
    grid = make_grid(settings)
    found = run(grid, cell_of(grid, task="numbers"))
    assert unpack(found["test"]["labels"])[:3].tolist() == [0, 2, 1]
    assert found["metrics"]["accuracy"] == 1  # three sentences, the same as in train


def test_scores_for_labels(settings, tmp_path):
    rows = [(f"text {number}", number / 4 if number % 2 else number) for number in range(30)]
    files = {
        f"{split}_file": write_csv(tmp_path / f"{split}.csv", ("sentence", "label"), part)
        for split, part in (("train", rows[:20]), ("test", rows[20:]))
    }
    settings["tasks"] = [{"name": "scores", **files}]
    grid = make_grid(settings)
    found = run(grid, cell_of(grid, task="scores", size="10"))
    assert set(found["metrics"]) == {"pearson", "spearmanr", "mse"} and "measures" not in found
    labels, predictions = (unpack(found["test"][name]) for name in ("labels", "predictions"))
    assert labels.tolist() == [label for _, label in rows[20:]]
    assert found["metrics"]["mse"] == pytest.approx(np.mean((labels - predictions) ** 2), rel=1e-5)


def test_packed_arrays_come_back():
    for values in (np.array([0, 300, 2]), np.array([0.5, -1.25])):
        assert unpack(pack(values)).tolist() == values.tolist()


def test_numbers_that_do_not_exist_are_null(tmp_path):
    results = Results(tmp_path / "out.jsonl")
    results.append({"key": "a", "cell": {}, "metrics": {"pearson": float("nan")}, "list": [np.float64("inf"), 1]})
    assert results.path.read_text() == '{"key": "a", "cell": {}, "metrics": {"pearson": null}, "list": [null, 1]}\n'
