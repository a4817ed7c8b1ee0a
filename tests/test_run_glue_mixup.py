"""The script as a whole: against stock transformers, on every kind of data, and its answers to mistakes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, load_dataset
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

import run_glue_mixup
from hf_mixup.errors import UsageError
from hf_mixup.glue import loading
from hf_mixup.trainer import NonFiniteLossError
from tests.data_files import labelled_pairs, labelled_sentences, write_csv, write_json_lines
from tests.script import MIX, SHORT, flags


def predictions(path):
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(len(lines) - 1)]
    return [line.split("\t")[1] for line in lines[1:]]


# ---- Drop-in ----------------------------------------------------------------------------------------------------


def stock_run(model_folder, out, files, keys, names, pad, arguments):
    """The same steps by stock classes and the stock Trainer, in the order of `run_glue.py`."""
    args = TrainingArguments(output_dir=str(out), **arguments)
    set_seed(args.seed)
    raw = load_dataset("csv", data_files=files, cache_dir=str(out / "cache"))
    options = {"num_labels": len(names)} if names else {"num_labels": 1}
    config = AutoConfig.from_pretrained(model_folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, config=config)

    def encode(rows):
        return tokenizer(*(rows[key] for key in keys), padding=pad, max_length=48, truncation=True)

    data = raw.map(encode, batched=True)
    random.sample(range(len(data["train"])), 3)

    def metrics(prediction):
        if not names:
            return {"mse": float(np.mean((prediction.predictions.squeeze() - prediction.label_ids) ** 2))}
        hits = prediction.predictions.argmax(axis=1)
        return {
            "accuracy": accuracy_score(prediction.label_ids, hits),
            "f1": f1_score(prediction.label_ids, hits, average="binary" if len(names) == 2 else "macro"),
        }

    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=metrics,
        processing_class=tokenizer,
        data_collator=default_data_collator if pad else None,
    )
    results = trainer.train().metrics
    trainer.save_model()
    results.update(trainer.evaluate())
    return results, trainer.predict(data["test"].remove_columns("label")).predictions


SEEDED = {"num_train_epochs": 2, "learning_rate": 1e-3, "seed": 11, "per_device_train_batch_size": 4, "use_cpu": True}


@pytest.mark.parametrize(
    ("task", "labels", "pad"),
    [("mrpc", [1, 0], "max_length"), (None, [0, 1, 2], False), (None, [0.5, 2.25, 4.0], False)],
)
def test_without_mixup_it_is_the_stock_script_to_the_last_bit(tiny_bert_folder, tmp_path, task, labels, pad):
    columns = ("sentence1", "sentence2", "label")
    sizes = {"train": 14, "validation": 9, "test": 5}
    files = {
        name: write_csv(tmp_path / f"{name}.csv", columns, labelled_pairs(labels, size))
        for name, size in sizes.items()
    }
    names = [] if isinstance(labels[0], float) else labels
    arguments = {**SEEDED, "disable_tqdm": True, "report_to": "none", "logging_steps": 1}
    expected, scores = stock_run(tiny_bert_folder, tmp_path / "stock", files, columns[:2], names, pad, arguments)

    argv = ["--model_name_or_path", tiny_bert_folder, "--output_dir", str(tmp_path / "ours"), "--max_seq_length", "48"]
    argv += [f"--{key}={value}" for key, value in arguments.items()] + ["--log_level", "error"]
    argv += [f"--{name}_file={path}" for name, path in files.items()] + ["--do_train", "--do_eval", "--do_predict"]
    argv += ["--mixup_method", "none", "--pad_to_max_length", str(bool(pad))]
    results = run_glue_mixup.main(argv if task is None else [*argv, "--task_name", task])

    for name in ("train_loss", "eval_loss"):
        assert results[name] == expected[name]
    if not names:
        assert results["eval_mse"] == pytest.approx(expected["eval_mse"], rel=1e-6)
    else:
        assert results["eval_accuracy"] == expected["eval_accuracy"]
        assert results["eval_f1" if task else "eval_f1_macro"] == pytest.approx(expected["eval_f1"], abs=1e-12)
    if task:
        mean = (results["eval_accuracy"] + results["eval_f1"]) / 2
        assert results["eval_combined_score"] == pytest.approx(mean, abs=1e-12)
    ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in ("ours", "stock"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    if names:
        words = ["not_equivalent", "equivalent"] if task else [str(name) for name in names]
        wanted = [words[index] for index in scores.argmax(axis=1)]
    else:
        wanted = [f"{score:.3f}" for score in scores[:, 0]]
    assert predictions(tmp_path / "ours" / f"predict_results_{task}.txt") == wanted


def test_files_and_results_are_those_of_the_stock_script(run, sentences, tmp_path):
    results = run(*flags(sentences), "--do_train", "--do_eval", "--do_predict", "--mixup_method", "amplify")
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert names >= {"all_results.json", "train_results.json", "eval_results.json", "predict_results_None.txt"}
    assert names >= {"trainer_state.json", "README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert results == json.loads((out / "all_results.json").read_text())
    assert {"train_loss", "train_samples", "eval_loss", "eval_accuracy", "eval_f1_macro", "eval_samples"} <= set(
        results
    )
    assert (results["train_samples"], results["eval_samples"]) == (14, 7)
    assert set(predictions(out / "predict_results_None.txt")) <= {"red", "green", "blue"}


def test_the_result_loads_in_plain_transformers(run, sentences, tmp_path):
    run(*flags(sentences), "--do_train", "--do_predict", "--mixup_method", "amplify")
    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    assert model.config.architectures == ["BertForSequenceClassification"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [text for text, _ in labelled_sentences(["green", "?"], 5)]
    tokens = tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="pt")
    with torch.no_grad():
        best = model.eval()(**tokens).logits
    wanted = [model.config.id2label[i] for i in best.argmax(dim=1).tolist()]
    assert predictions(tmp_path / "out" / "predict_results_None.txt") == wanted


# ---- Kinds of data ----------------------------------------------------------------------------------------------

DYNAMIC = ["--pad_to_max_length", "false"]


SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PAIR = ("sentence1", "sentence2", "label")
SOFT_ROWS = [(text, 0.25, 0.75) if i % 2 else (text, 1, 0) for i, (text, _) in enumerate(labelled_sentences([0]))]
LIST_ROWS = [{"text": text, "label": label} for text, label in labelled_sentences([["a", "b"], [], ["c"]])]
# What is written (for CSV: the columns and the rows), flags, metrics, problem type, number of outputs.
KINDS = {
    "names": (("text", "label"), labelled_sentences(["x", "y"]), [], {"accuracy", "f1_macro"}, SINGLE, 2),
    "ids": (PAIR, labelled_pairs([2, 0, 7]), [], {"accuracy", "f1_macro"}, SINGLE, 3),
    "scores": (PAIR, labelled_pairs([0.5, 1, 3]), [], {"pearson", "spearmanr", "mse"}, REGRESSION, 1),
    "lists": (None, LIST_ROWS, [], {"f1_micro", "f1_macro", "subset_accuracy"}, MULTI, 3),
    "lists in csv": (
        ("text", "label"),
        labelled_sentences(["[0, 1]", "[2]"]),
        [],
        {"f1_micro", "f1_macro", "subset_accuracy"},
        MULTI,
        3,
    ),
    "soft": (
        ("text", "no", "yes"),
        SOFT_ROWS,
        ["--label_column_name", "no,yes"],
        {"accuracy", "cross_entropy"},
        SINGLE,
        2,
    ),
    "cola": (
        ("sentence", "label"),
        labelled_sentences(["acceptable", "unacceptable"]),
        ["--task_name", "cola"],
        {"matthews_correlation"},
        SINGLE,
        2,
    ),
    "stsb": (
        PAIR,
        labelled_pairs([5, 0, 2]),
        ["--task_name", "stsb"],
        {"pearson", "spearmanr", "combined_score"},
        REGRESSION,
        1,
    ),
    "mnli": (
        ("premise", "hypothesis", "label"),
        labelled_pairs([0, 1, 2]),
        ["--task_name", "MNLI"],
        {"accuracy"},
        SINGLE,
        3,
    ),
}


@pytest.mark.parametrize("options", [[], [*MIX, *DYNAMIC]], ids=["none", "amplify"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels_is_trained_evaluated_and_predicted(run, tmp_path, kind, options):
    columns, rows, extra, metrics, problem_type, outputs = KINDS[kind]
    if columns is None:
        file = write_json_lines(tmp_path / "data.jsonl", rows)
    else:
        file = write_csv(tmp_path / "data.csv", columns, rows)
    files = ["--train_file", file, "--validation_file", file, "--test_file", file]
    results = run(*files, "--do_train", "--do_eval", "--do_predict", *extra, *options)
    ordinary = {"loss", "samples", "runtime", "samples_per_second", "steps_per_second"}
    assert {name[5:] for name in results if name.startswith("eval_")} - ordinary == metrics
    assert np.isfinite([results["train_loss"], results["eval_loss"]]).all()
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.num_labels, config.problem_type) == (outputs, problem_type)
    (written,) = (tmp_path / "out").glob("predict_results_*.txt")
    words = predictions(written)
    assert len(words) == len(rows)
    for word in words:
        if problem_type == REGRESSION:
            assert np.isfinite(float(word))
        elif problem_type == MULTI:
            assert set(json.loads(word)) <= set(config.label2id)
        else:
            assert word in config.label2id


def logits_of(folder, rows, *columns):
    """The outputs of a saved model by plain transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [[row[i] for row in rows] for i in columns]
    with torch.no_grad():
        return model(**tokenizer(*texts, truncation=True, max_length=16, padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("kind", ["scores", "lists in csv", "soft"])
def test_evaluation_is_that_of_the_saved_model(run, tmp_path, kind):
    columns, rows, extra, *_ = KINDS[kind]
    file = write_csv(tmp_path / "data.csv", columns, rows)
    results = run("--train_file", file, "--validation_file", file, "--do_train", "--do_eval", *extra, *MIX)
    logits = logits_of(tmp_path / "out", rows, *((0, 1) if kind == "scores" else (0,)))
    if kind == "scores":
        loss = torch.nn.functional.mse_loss(logits[:, 0], torch.tensor([float(row[2]) for row in rows]))
        assert results["eval_mse"] == pytest.approx(loss.item(), rel=1e-4)
    elif kind == "soft":
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row[1:] for row in rows], dtype=torch.float32))
        assert results["eval_cross_entropy"] == pytest.approx(loss.item(), rel=1e-4)
    else:
        targets = torch.tensor([[float(str(i) in row[1]) for i in range(3)] for row in rows])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        right = ((logits > 0) == targets.bool()).all(dim=1).float().mean()
        assert results["eval_subset_accuracy"] == pytest.approx(right.item())
    assert results["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("options", [[], MIX], ids=["none", "amplify"])
def test_few_rows_and_odd_last_batches_train(run, tmp_path, rows, options):
    file = write_csv(tmp_path / "data.csv", ("sentence", "label"), labelled_sentences([1, 0], rows))
    task = ["--task_name", "sst2"]
    results = run("--train_file", file, "--validation_file", file, "--do_train", "--do_eval", *task, *options)
    assert results["train_samples"] == rows and np.isfinite(results["train_loss"])


def test_a_batch_of_one_row_trains(run, sentences):
    assert run(*flags(sentences, "train"), "--do_train", "--per_device_train_batch_size", "1", *MIX)["train_loss"] > 0


@pytest.mark.parametrize("name", ["tiny_roberta_folder", "tiny_distilbert_folder"])
def test_other_families(run, sentences, request, name):
    folder = request.getfixturevalue(name)
    results = run(*flags(sentences), "--do_train", "--do_eval", "--max_seq_length", "512", *MIX, model=folder)
    assert np.isfinite([results["train_loss"], results["eval_loss"]]).all()


def hub_data(monkeypatch, splits):
    """Let a data set of the Hub be these splits."""
    calls = []

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        return splits

    monkeypatch.setattr(loading, "load_dataset", load)
    return calls


def test_a_task_of_the_hub_with_two_validation_splits(run, monkeypatch, tmp_path):
    rows = labelled_pairs([0, 1, 2], 6)
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": Value("int64")})

    def split(labels):
        texts = {"premise": [row[0] for row in rows], "hypothesis": [row[1] for row in rows]}
        return Dataset.from_dict({**texts, "label": labels}, features)

    known, unknown = split([row[2] for row in rows]), split([-1] * 6)
    names = {"train": known, "validation_matched": known, "validation_mismatched": known.select(range(4))}
    calls = hub_data(
        monkeypatch, DatasetDict({**names, "test_matched": unknown, "test_mismatched": unknown.select(range(3))})
    )
    steps = ["--do_train", "--do_eval", "--do_predict", "--max_eval_samples", "5"]
    results = run("--task_name", "mnli", "--token", "hf_x", *steps)
    assert calls == [(("nyu-mll/glue", "mnli"), {"cache_dir": None, "token": "hf_x"})]
    assert (results["eval_samples"], results["eval_samples_mm"]) == (5, 4)
    assert {"eval_accuracy", "eval_accuracy_mm", "eval_loss_mm"} <= set(results)
    saved = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert {"eval_accuracy", "eval_accuracy_mm"} <= set(saved)
    classes = {"entailment", "neutral", "contradiction"}
    for name, size in (("mnli", 6), ("mnli-mm", 3)):
        words = predictions(tmp_path / "out" / f"predict_results_{name}.txt")
        assert len(words) == size and set(words) <= classes


def test_a_data_set_of_the_hub_without_a_validation_split(run, monkeypatch):
    rows = labelled_sentences([0, 1], 20)
    data = Dataset.from_dict({"text": [row[0] for row in rows], "label": [row[1] for row in rows]})
    calls = hub_data(monkeypatch, DatasetDict({"train": data}))
    named = ["--dataset_name", "me/data", "--dataset_config_name", "small", "--do_train", "--do_eval"]
    results = run(*named, "--validation_split", "0.2")
    assert calls[0][0] == ("me/data", "small")
    assert (results["train_samples"], results["eval_samples"]) == (16, 4)
    with pytest.raises(UsageError, match="--do_eval needs a validation split, the data have train"):
        run(*named)
    with pytest.raises(UsageError, match="--do_predict needs a test split"):
        run(*named, "--validation_split", "0.2", "--do_predict")


WORDS = ["awful", "weak", "okay", "good", "superb"]


def test_a_saved_data_set_whose_classes_are_called_1_to_5(run, tmp_path, caplog):
    """Its ids 0 to 4 were once read as names: 8 rows of the class 1, and none of the class 5."""
    data = Dataset.from_dict({"text": WORDS * 4, "label": ["1", "2", "3", "4", "5"] * 4}).class_encode_column("label")
    data.save_to_disk(tmp_path / "stars")
    saved = ["--dataset_name", tmp_path / "stars", "--log_level", "info"]
    results = run(*saved, "--do_train", "--do_eval", "--validation_split", "0.25", "--learning_rate", "0.1")
    assert (results["train_samples"], results["eval_samples"]) == (15, 5)
    counts = re.findall(r"(\d) (\d+) \(", caplog.text)
    assert sorted(counts) == sorted([(name, rows) for name in "12345" for rows in "31"])
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label == dict(enumerate("12345"))
    # Evaluated on a file of names, the model has what plain transformers gives for it.
    rows = list(zip(WORDS, "12345", strict=True))
    file = write_csv(tmp_path / "names.csv", ("text", "label"), rows)
    named = run("--validation_file", file, "--do_eval", model=tmp_path / "out", out=tmp_path / "named")
    best = logits_of(tmp_path / "out", rows, 0).argmax(dim=1)
    assert named["eval_accuracy"] == pytest.approx((best == torch.arange(5)).float().mean().item())
    # On a file of ids two classes fell together.
    file = write_csv(tmp_path / "ids.csv", ("text", "label"), [(word, number) for number, word in enumerate(WORDS)])
    with pytest.raises(UsageError, match="ids.csv, row 1: the label '0' is not one of the labels of the model"):
        run("--validation_file", file, "--do_eval", model=tmp_path / "out", out=tmp_path / "ids")


def test_splits_of_other_class_names_are_matched_by_name(run, tmp_path):
    texts = [text for text, _ in labelled_sentences([0], 12)]

    def split(names, ids):
        features = Features({"text": Value("string"), "label": Sequence(ClassLabel(names=names))})
        return Dataset.from_dict({"text": texts, "label": ids}, features)

    both = {"train": split(["1", "2", "3"], [[1, 2], [0], []] * 4), "test": split(["1", "2", "3"], [[]] * 12)}
    names = {"train": [[1, 2], [0], []] * 4, "validation": [[1, 0], [2], []] * 4}
    for order, name in ((["1", "2", "3"], "straight"), (["3", "2", "1"], "turned")):
        ids = names["train"] if name == "straight" else names["validation"]
        DatasetDict({**both, "validation": split(order, ids)}).save_to_disk(tmp_path / name)
    steps = ["--do_train", "--do_eval", "--do_predict"]
    straight, turned = (
        run("--dataset_name", tmp_path / name, *steps, out=tmp_path / f"out {name}") for name in ("straight", "turned")
    )
    assert turned["eval_loss"] == straight["eval_loss"]
    words = [json.loads(line) for line in predictions(tmp_path / "out turned" / "predict_results_None.txt")]
    hits = logits_of(tmp_path / "out turned", [(text,) for text in texts], 0) > 0
    assert words == [[name for name, hit in zip("123", row, strict=True) if hit] for row in hits.tolist()]


def warnings_in(caplog):
    """What the script itself warned of, without its first line about devices."""
    records = [record for record in caplog.records if record.name == "run_glue_mixup"]
    return [record.getMessage() for record in records if record.levelname == "WARNING"][1:]


def test_traps_in_a_file_are_warned_of_once(run, tmp_path, caplog):
    labels = ["TRUE"] * 6 + ["refund"] * 6 + ["refund "] * 6 + ["true"] * 6
    rows = [(f"u-{i}", f"2021-03-{i + 1:02}", f"a text, number {i}", label) for i, label in enumerate(labels)]
    file = write_csv(tmp_path / "data.csv", ("user", "day", "text", "label"), rows)
    files = ["--train_file", file, "--validation_file", file, "--do_train", "--do_eval", "--log_level", "info"]
    run(*files, "--max_train_samples", "9", "--max_eval_samples", "6")
    columns, classes, train, validation = warnings_in(caplog)
    assert (
        "user and day: user looks like single words or ids, day looks like dates or numbers, text is left" in columns
    )
    assert "'TRUE' and 'true', 'refund' and 'refund '" in classes
    assert (
        "The 9 rows for training have only 2 of 4 classes, and none of refund , true; --max_train_samples 9" in train
    )
    assert "The 6 rows for validation have only 1 of 4 classes, and none of refund, refund , true" in validation
    caplog.clear()
    rows = [(rows[i][2], ["yes", "no"][i % 2]) for i in range(24)]
    file = write_csv(tmp_path / "good.csv", ("text", "label"), rows)
    files = ["--train_file", file, "--do_train", "--do_eval", "--validation_split", "0.2", "--log_level", "info"]
    run(*files, "--max_train_samples", "9", "--max_eval_samples", "4", out=tmp_path / "good")
    assert warnings_in(caplog) == []


def test_other_processes_do_not_repeat_the_warnings(run, tmp_path, caplog, monkeypatch):
    file = write_csv(tmp_path / "data.csv", ("sentence", "label"), labelled_sentences(["a", "A"]))
    monkeypatch.setattr(run_glue_mixup.MixupTrainingArguments, "should_log", False)
    run("--train_file", file, "--do_train", "--log_level_replica", "info")
    assert "some differ only in" not in caplog.text


def test_scores_that_may_be_classes_are_warned_of(run, tmp_path, caplog):
    file = write_csv(tmp_path / "data.csv", ("sentence", "label"), labelled_sentences(["1.0", "2.0"]))
    run("--train_file", file, "--do_train", "--log_level", "info")
    assert "whole numbers with a decimal point, 1.0, 2.0, and are learned as scores (regression)" in caplog.text
    caplog.clear()
    texts = ["--task_name", "stsb", "--text_column_names", "sentence"]
    run("--train_file", file, "--do_train", *texts, "--log_level", "info", out=tmp_path / "task")
    assert "with a decimal point" not in caplog.text


# ---- Steps ------------------------------------------------------------------------------------------------------


def test_evaluation_and_prediction_alone_take_the_labels_of_the_model(run, sentences, tmp_path):
    trained = run(*flags(sentences), "--do_train", "--do_eval", "--do_predict")
    results = run(*flags(sentences, "validation"), "--do_eval", model=tmp_path / "out", out=tmp_path / "again")
    assert {name: results[name] for name in ("eval_loss", "eval_accuracy")} == {
        name: trained[name] for name in ("eval_loss", "eval_accuracy")
    }
    texts = [(text,) for text, _ in labelled_sentences(["green", "?"], 5)]
    unlabelled = write_csv(tmp_path / "unlabelled.csv", ("sentence",), texts)
    assert run("--test_file", unlabelled, "--do_predict", model=tmp_path / "out", out=tmp_path / "only") == {}
    written = [tmp_path / folder / "predict_results_None.txt" for folder in ("out", "only")]
    assert predictions(written[0]) == predictions(written[1])


def test_a_validation_split_is_held_out(run, sentences):
    results = run(*flags(sentences, "train"), "--do_train", "--do_eval", "--validation_split", "0.4")
    assert (results["train_samples"], results["eval_samples"]) == (8, 6)


def test_named_columns(run, tmp_path, caplog):
    rows = [(i, label, text, "aside") for i, (text, label) in enumerate(labelled_sentences(["x", "y"]))]
    file = write_csv(tmp_path / "data.csv", ("id", "topic", "body", "note"), rows)
    named = ["--label_column_name", "topic", "--text_column_names", "note, body", "--log_level", "info"]
    run("--train_file", file, "--do_train", *named)
    assert "Texts are read from note, body, labels (single) from topic." in caplog.text


def test_early_stopping(run, sentences, tmp_path):
    epochs = ["--max_steps", "-1", "--num_train_epochs", "30", "--learning_rate", "0"]
    best = [
        "--eval_strategy",
        "epoch",
        "--save_strategy",
        "epoch",
        "--load_best_model_at_end",
        "--save_total_limit",
        "1",
    ]
    run(*flags(sentences), "--do_train", "--early_stopping_patience", "2", *epochs, *best)
    # Nothing is learnt, so the first evaluation is the best one and the second one after it stops the run.
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["epoch"] == 3.0


def test_a_stopped_run_goes_on_where_it_was(run, sentences, tmp_path):
    steps = ["--do_train", "--save_steps", "2", "--max_steps", "6", *MIX]
    run(*flags(sentences, "train"), *steps, out=tmp_path / "straight")
    run(*flags(sentences, "train"), *steps, out=tmp_path / "stopped")
    for step in (4, 6):
        (tmp_path / "stopped" / f"checkpoint-{step}").rename(tmp_path / f"away-{step}")
    (tmp_path / "stopped" / "model.safetensors").unlink()
    written = (tmp_path / "stopped" / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns
    run(*flags(sentences, "train"), *steps, "--resume_from_checkpoint", "True", out=tmp_path / "stopped")
    # A fresh start would have written the checkpoints of the first steps (again).
    assert (tmp_path / "stopped" / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns == written
    named = ["--resume_from_checkpoint", tmp_path / "away-4"]
    run(*flags(sentences, "train"), *steps, *named, out=tmp_path / "named")
    assert [path.name for path in (tmp_path / "named").glob("checkpoint-*")] == ["checkpoint-6"]
    straight = load_file(tmp_path / "straight" / "model.safetensors")
    for folder in ("stopped", "named"):
        weights = load_file(tmp_path / folder / "model.safetensors")
        assert all(torch.equal(weights[name], straight[name]) for name in straight)


def test_a_folder_with_an_earlier_run_is_written_again(run, sentences, tmp_path):
    first = run(*flags(sentences), "--do_train", "--do_eval", "--seed", "1")
    second = run(*flags(sentences), "--do_train", "--do_eval", "--seed", "2")
    assert first["train_loss"] != second["train_loss"]
    saved = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert saved["train_loss"] == second["train_loss"]


def test_the_order_of_labels_of_a_trained_model_is_kept(run, tmp_path, tiny_bert_folder):
    config = AutoConfig.from_pretrained(tiny_bert_folder, num_labels=2)
    config.label2id, config.id2label = {"POSITIVE": 0, "NEGATIVE": 1}, {0: "POSITIVE", 1: "NEGATIVE"}
    config.problem_type = SINGLE
    set_seed(3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "trained")
    AutoTokenizer.from_pretrained(tiny_bert_folder).save_pretrained(tmp_path / "trained")
    rows = labelled_sentences([1, 1, 0])
    file = write_csv(tmp_path / "data.csv", ("sentence", "label"), rows)
    files = ["--train_file", file, "--validation_file", file, "--task_name", "sst2"]
    results = run(*files, "--do_eval", model=tmp_path / "trained")
    best = logits_of(tmp_path / "trained", rows, 0).argmax(dim=1).tolist()
    right = [index == {1: 0, 0: 1}[label] for index, (_, label) in zip(best, rows, strict=True)]
    assert results["eval_accuracy"] == pytest.approx(np.mean(right))


def test_the_fast_settings(run, sentences, tmp_path):
    """They group texts by length, to train on; predictions still stand in the order of the file."""
    fast = ["--config", Path(run_glue_mixup.__file__).parent / "configs" / "fast.yaml"]
    done = run(*fast, *flags(sentences), *MIX, "--mixup_partner", "neighbour", "--do_train", "--do_eval")
    assert done["train_samples"] == 14
    files, model = flags(sentences, "validation", "test"), tmp_path / "out"
    results = [
        run(*settings, *files, "--do_eval", "--do_predict", model=model, out=tmp_path / str(number))
        for number, settings in enumerate(([], fast))
    ]
    assert results[1]["eval_loss"] == pytest.approx(results[0]["eval_loss"], abs=1e-5)
    plain, grouped = (predictions(tmp_path / str(number) / "predict_results_None.txt") for number in range(2))
    assert grouped == plain


def test_a_config_file_with_flags_of_old(run, sentences, tmp_path, caplog):
    settings = tmp_path / "run.yaml"
    settings.write_text(
        f"train_file: {sentences['--train_file']}\nvalidation_file: {sentences['--validation_file']}\n"
        "do_train: true\noverwrite_output_dir: true\nevaluation_strategy: epoch\nmixup_method: amplify\n"
    )
    old = ["--warmup_ratio=0.5", "--logging_dir", tmp_path / "logs", "--log_level", "info"]
    results = run("--config", settings, *old)
    assert "eval_accuracy" in results
    for flag in ("evaluation_strategy", "warmup_ratio", "logging_dir"):
        assert caplog.text.count(f"--{flag} is n") == 1


def test_a_token_is_never_logged(run, sentences, caplog, capfd):
    secret = ["--use_auth_token", "hf_abcdef", "--hub_token=hf_ghijkl", "--log_level", "debug"]
    run(*flags(sentences, "train"), "--do_train", *secret)
    captured = capfd.readouterr()
    for text in (caplog.text, captured.out, captured.err):
        assert "hf_abcdef" not in text and "hf_ghijkl" not in text
    assert "--use_auth_token is now called --token." in caplog.text


@pytest.mark.parametrize("push", [False, True])
def test_the_model_card_or_the_upload_names_task_and_origin(run, tmp_path, monkeypatch, tiny_bert_folder, push):
    calls = []
    monkeypatch.setattr(run_glue_mixup.MixupTrainer, "init_hf_repo", lambda self, token=None: None)
    for name in ("push_to_hub", "create_model_card"):
        monkeypatch.setattr(
            run_glue_mixup.MixupTrainer, name, lambda self, name=name, **options: calls.append((name, options))
        )
    file = write_csv(tmp_path / "data.csv", ("sentence", "label"), labelled_sentences([1, 0]))
    upload = ["--push_to_hub", "--hub_strategy", "end"] if push else []
    run("--train_file", file, "--task_name", "sst2", "--do_train", *upload)
    card = {"finetuned_from": tiny_bert_folder, "tasks": "text-classification", "language": "en"}
    card |= {"dataset_tags": "glue", "dataset_args": "sst2", "dataset": "GLUE SST2", "evaluations": {}}
    (called, options), command = calls[-1], calls[-1][1].pop("command")
    assert (called, options) == ("push_to_hub" if push else "create_model_card", card)
    assert command[:2] == ["python", "run_glue_mixup.py"] and {file, "sst2", "--do_train"} <= set(command)


def test_columns_named_like_a_models_inputs_are_texts_and_labels(run, tmp_path):
    rows = [(label, text) for text, label in labelled_sentences(["x", "y"])]
    file = write_csv(tmp_path / "data.csv", ("input_ids", "label"), rows)
    named = ["--label_column_name", "input_ids", "--text_column_names", "label"]
    run("--train_file", file, "--do_train", *named)
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label == {0: "x", 1: "y"}


def test_metrics_of_unjoined_batches(run, sentences):
    joined = run(*flags(sentences), "--do_train", "--do_eval")
    unjoined = run(*flags(sentences), "--do_train", "--do_eval", "--do_predict", "--eval_do_concat_batches", "false")
    assert unjoined["eval_accuracy"] == joined["eval_accuracy"]


def test_a_run_that_diverges_is_one_sentence(run, sentences, capsys, monkeypatch, tiny_bert_folder, tmp_path):
    lost = ["--do_train", "--learning_rate", "1e38", "--max_steps", "8", "--max_grad_norm", "0"]
    with pytest.raises(NonFiniteLossError):
        run(*flags(sentences, "train"), *lost)
    argv = ["--model_name_or_path", tiny_bert_folder, "--output_dir", str(tmp_path / "lost"), *SHORT]
    assert run_glue_mixup.cli([*argv, *flags(sentences, "train"), *lost]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("The ")


def test_bugs_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr(run_glue_mixup, "check_request", broken)
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), [("a text", "yes"), ("another", "no")])
    with pytest.raises(ValueError, match="a bug") as caught:
        run_glue_mixup.cli(["--model_name_or_path", "m", "--train_file", train, "--do_train"])
    assert not isinstance(caught.value, UsageError)
