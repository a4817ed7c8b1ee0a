"""The script on the files that people have: kinds, several files, columns, missing labels, weights, long texts."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoTokenizer, TrainerCallback

from hf_mixup.errors import UsageError
from hf_mixup.glue.tokens import Encoder
from tests.data_files import labelled_sentences, write_csv
from tests.script import MIX

COLORS = ["red", "green", "blue"]
TRAIN = ["--do_train", "--save_strategy", "no"]


def frame(count=14, columns=("sentence", "label")):
    return pd.DataFrame(labelled_sentences(COLORS, count), columns=columns)


def trained(run, out, *words):
    """Train into a folder, and return the weights."""
    run(*TRAIN, *words, out=out)
    return load_file(out / "model.safetensors")


def same(first, second):
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def rows(tmp_path):
    """A file of rows, and the weights that they give."""
    frame().to_csv(tmp_path / "rows.csv", index=False)
    return str(tmp_path / "rows.csv")


WRITERS = {
    "a.tsv": lambda data, path: data.to_csv(path, index=False, sep="\t"),
    "a.csv.gz": lambda data, path: data.to_csv(path, index=False),
    "a.jsonl.gz": lambda data, path: data.to_json(path, orient="records", lines=True),
    "a.parquet": lambda data, path: data.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_every_kind_train_evaluate_and_predict_alike(run, rows, tmp_path, name):
    path = tmp_path / name
    WRITERS[name](frame(), path)
    words = ["--do_train", "--do_eval", "--do_predict", *MIX]
    results = []
    for file, out in ((rows, tmp_path / "one"), (path, tmp_path / "two")):
        results.append(run(*words, "--train_file", file, "--validation_file", file, "--test_file", file, out=out))
    assert same(*(load_file(tmp_path / out / "model.safetensors") for out in ("one", "two")))
    assert results[0]["eval_loss"] == results[1]["eval_loss"]
    for file in ("predictions.csv", "predict_results_None.txt"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()


def test_several_files_train_like_one(run, rows, tmp_path):
    data = frame()
    paths = [tmp_path / "a.csv", tmp_path / "b.tsv"]
    data[:5].to_csv(paths[0], index=False)
    data[5:].to_csv(paths[1], index=False, sep="\t")
    one = trained(run, tmp_path / "one", "--train_file", rows)
    assert same(one, trained(run, tmp_path / "two", "--train_file", *paths))
    settings = {"train_file": list(map(str, paths))}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert same(one, trained(run, tmp_path / "three", "--config", tmp_path / "settings.json"))
    card = (tmp_path / "two" / "README.md").read_text()
    assert "the files a.csv, b.tsv" in card


def test_columns_are_joined_to_one_text(run, tmp_path):
    data = frame().assign(title=[f"title {n}" for n in range(14)], note="the note")
    data.to_csv(tmp_path / "columns.csv", index=False)
    joined = data.title + " - " + data.sentence + " - " + data.note
    pd.DataFrame({"sentence": joined, "label": data.label}).to_csv(tmp_path / "joined.csv", index=False)
    flags = ["--text_column_names", "title,sentence,note", "--max_seq_length", 48]
    one = trained(
        run, tmp_path / "one", "--train_file", tmp_path / "columns.csv", *flags, "--text_column_delimiter", " - "
    )
    two = trained(run, tmp_path / "two", "--train_file", tmp_path / "joined.csv", "--max_seq_length", 48)
    assert same(one, two)
    with pytest.raises(UsageError, match="one or two columns, got 3.*--text_column_delimiter joins more"):
        run(*TRAIN, "--train_file", tmp_path / "columns.csv", *flags)


def test_rows_are_shuffled_as_datasets_shuffles_them(run, rows, tmp_path):
    shuffled = Dataset.from_pandas(frame()).shuffle(seed=7).select(range(8))
    shuffled.to_pandas().to_csv(tmp_path / "shuffled.csv", index=False)
    limit = ["--max_train_samples", 8]
    flags = ["--shuffle_train_dataset", "--shuffle_seed", 7]
    one = trained(run, tmp_path / "one", "--train_file", rows, *limit, *flags)
    assert same(one, trained(run, tmp_path / "two", "--train_file", tmp_path / "shuffled.csv"))
    assert not same(one, trained(run, tmp_path / "three", "--train_file", rows, *limit))


def test_rows_without_a_label_are_dropped_where_the_user_says_so(run, rows, tmp_path, caplog):
    data = pd.concat([frame()[:6], pd.DataFrame({"sentence": ["none", "minus"], "label": ["", "-1"]}), frame()[6:]])
    data.to_csv(tmp_path / "more.csv", index=False)
    files = ["--train_file", tmp_path / "more.csv", "--validation_file", tmp_path / "more.csv", "--do_eval"]
    with pytest.raises(UsageError, match="more.csv, row 7 has no label .*--drop_unlabelled"):
        run(*TRAIN, *files)
    one = trained(run, tmp_path / "one", *files, "--drop_unlabelled", "--log_level", "info")
    assert same(one, trained(run, tmp_path / "two", "--train_file", rows))
    assert caplog.text.count("2 of 16 rows of more.csv have no label and are left out.") == 2
    assert json.loads((tmp_path / "one" / "all_results.json").read_text())["eval_samples"] == 14
    # Or -1 is a class, and the empty one is still missing.
    data[data.label != ""].to_csv(tmp_path / "minus.csv", index=False)
    trained(run, tmp_path / "three", "--train_file", tmp_path / "minus.csv", "--extra_labels=-1,violet")
    names = json.loads((tmp_path / "three" / "config.json").read_text())["id2label"]
    assert list(names.values()) == ["-1", "blue", "green", "red", "violet"]


def test_weights_of_rows(run, rows, tmp_path):
    weighted = frame().assign(w=[1.0, 0.0] * 7)
    weighted.to_csv(tmp_path / "weighted.csv", index=False)
    weighted.assign(w=1).to_csv(tmp_path / "ones.csv", index=False)
    flags = ["--weight_column_name", "w", "--text_column_names", "sentence"]
    plain = trained(run, tmp_path / "one", "--train_file", rows)
    assert same(plain, trained(run, tmp_path / "two", "--train_file", tmp_path / "ones.csv", *flags))
    assert not same(plain, trained(run, tmp_path / "three", "--train_file", tmp_path / "weighted.csv", *flags))


def test_splits_and_columns_of_a_data_set(run, rows, tmp_path):
    features = Features({"sentence": Value("string"), "other": Value("string"), "label": ClassLabel(names=COLORS)})
    data = frame().assign(other="another text")
    data["label"] = data.label.map(COLORS.index)
    whole = Dataset.from_pandas(data[["sentence", "other", "label"]], features)
    splits = {"learn": whole, "check": whole.select(range(4)), "ask": whole.select(range(3)), "train": whole}
    DatasetDict(splits).save_to_disk(tmp_path / "data")
    flags = ["--dataset_name", tmp_path / "data", "--remove_columns", "other", "--do_eval", "--do_predict"]
    names = ["--train_split_name", "learn", "--validation_split_name", "check", "--test_split_name", "ask"]
    results = run(*TRAIN, *flags, *names, "--remove_splits", "train")
    assert (results["train_samples"], results["eval_samples"], results["predict_samples"]) == (14, 4, 3)
    # A split without labels that the run does not need is no reason to stop.
    unlabelled = whole.remove_columns("label").add_column("label", [-1] * 14).cast(features)
    DatasetDict({"train": whole, "unsupervised": unlabelled, "validation": unlabelled}).save_to_disk(tmp_path / "more")
    run(*TRAIN, "--dataset_name", tmp_path / "more", "--drop_unlabelled", out=tmp_path / "dropped")
    for words, sentence in (
        ([*names, "--remove_splits", "learn"], "--train_split_name learn is no split of the data"),
        (
            ["--remove_splits", "gone"],
            "--remove_splits gone is no split of the data, which have learn, check, ask, train",
        ),
        (
            ["--remove_columns", "gone"],
            "--remove_columns gone is no column of .*its columns are sentence, other, label",
        ),
    ):
        with pytest.raises(UsageError, match=sentence):
            run(*TRAIN, *flags, *words)
    with pytest.raises(UsageError, match="name splits of --dataset_name, and here files are given"):
        run(*TRAIN, "--train_file", rows, "--train_split_name", "learn")


def test_predictions_are_compared_with_the_labels_that_there_are(run, rows, tmp_path, caplog):
    test = frame(9)
    test.loc[[2, 5], "label"] = ["", "-1"]
    test.to_csv(tmp_path / "test.csv", index=False)
    out = tmp_path / "out"
    run(*TRAIN, "--train_file", rows, "--test_file", tmp_path / "test.csv", "--do_predict")
    answers = pd.read_csv(out / "predictions.csv")
    assert answers["index"].tolist() == list(range(9))
    assert list(answers.columns[:3]) == ["index", "prediction", "probability"]
    known = [0, 1, 3, 4, 6, 7, 8]
    results = json.loads((out / "predict_results.json").read_text())
    own, guess = test.label[known], answers.prediction[known]
    assert results["predict_accuracy"] == accuracy_score(own, guess)
    assert results["predict_f1_macro"] == pytest.approx(f1_score(own, guess, average="macro", zero_division=0))
    assert results["predict_samples"] == 7
    assert json.loads((out / "all_results.json").read_text())["predict_accuracy"] == results["predict_accuracy"]
    # Other labels are no reason not to predict.
    test.assign(label="violet").to_csv(tmp_path / "test.csv", index=False)
    words = ["--test_file", tmp_path / "test.csv", "--do_predict", "--log_level", "warning"]
    results = run(*words, model=out, out=tmp_path / "other")
    assert results == {} and (tmp_path / "other" / "predictions.csv").exists()
    assert "compared with no labels: test.csv, row 1: the label 'violet' is not one of" in caplog.text


def test_a_column_for_each_class_is_trained_and_predicted(run, tmp_path):
    data = frame()[["sentence"]].assign(toxic=[0, 1] * 7, insult=[1, 1, 0, 0, 0, 1, 1] * 2, threat=0)
    data.to_csv(tmp_path / "data.csv", index=False)
    flags = [word for split in ("train", "validation", "test") for word in (f"--{split}_file", tmp_path / "data.csv")]
    names = ["--label_column_name", "toxic,insult,threat", "--metric_name", "f1"]
    results = run(*TRAIN, *flags, *names, "--do_eval", "--do_predict")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    guesses = [
        [int(name in json.loads(line["prediction"])) for name in ("toxic", "insult", "threat")] for line in lines
    ]
    own = data[["toxic", "insult", "threat"]].to_numpy()
    assert results["eval_f1_micro"] == results["predict_f1_micro"]
    assert results["eval_f1_micro"] == pytest.approx(f1_score(own, guesses, average="micro", zero_division=0))
    assert [float(line["probability_toxic"]) > 0.5 for line in lines] == [row[0] == 1 for row in guesses]


def test_long_texts_are_counted_and_cut_as_the_user_says(run, tmp_path, caplog, tiny_bert_folder):
    data = frame()
    data.loc[:2, "sentence"] = data.sentence[:3] + " and a good film" * 20
    data.to_csv(tmp_path / "data.csv", index=False)
    info = ["--train_file", tmp_path / "data.csv", "--log_level", "info"]
    weights = [trained(run, tmp_path / "right", *info)]
    lengths = [
        len(ids) for ids in AutoTokenizer.from_pretrained(tiny_bert_folder)(data.sentence.tolist())["input_ids"]
    ]
    (line,) = [record.getMessage() for record in caplog.records if "--max_seq_length" in record.getMessage()]
    assert f"{sum(length > 16 for length in lengths)} of 14 train texts" in line
    assert f"need at most {sorted(lengths)[13]}" in line
    weights.append(trained(run, tmp_path / "left", *info, "--truncation_side", "left"))
    weights.append(trained(run, tmp_path / "both", *info, "--long_texts", "head_tail"))
    assert not any(same(weights[one], weights[two]) for one, two in ((0, 1), (0, 2), (1, 2)))
    assert AutoTokenizer.from_pretrained(tmp_path / "left").truncation_side == "left"


def test_tokens_of_a_file_are_kept(run, rows, tmp_path, monkeypatch):
    first = trained(run, tmp_path / "one", "--train_file", rows)
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "__call__", lambda self, rows: pytest.fail("the rows are tokenized again"))
        assert same(first, trained(run, tmp_path / "two", "--train_file", rows))
    # A changed file is another one.
    frame(13).to_csv(rows, index=False)
    assert not same(first, trained(run, tmp_path / "three", "--train_file", rows))
    assert same(
        trained(run, tmp_path / "four", "--train_file", rows, "--preprocessing_num_workers", 2, "--overwrite_cache"),
        load_file(tmp_path / "three" / "model.safetensors"),
    )


def test_tokens_that_are_cut_off_in_the_cache_are_not_used(run, rows, tmp_path, tiny_bert_folder):
    frame(2500).to_csv(tmp_path / "test.csv", index=False)
    flags = ["--test_file", tmp_path / "test.csv", "--do_predict", "--cache_dir", tmp_path / "cache"]
    trained(run, tmp_path / "model", "--train_file", rows)
    run(*flags, model=tmp_path / "model")
    (tokens,) = (tmp_path / "cache" / "hf_mixup").glob("cache-*.arrow")
    whole = tokens.read_bytes()
    with pa.OSFile(str(tokens)) as file:
        pa.ipc.open_stream(file).read_next_batch()
        end = file.tell()
    for size in (0, end, end + 9):
        tokens.write_bytes(whole[:size])
        with pytest.raises(
            UsageError, match="the tokens of the test texts in the cache are damaged; add --overwrite_c"
        ):
            run(*flags, model=tmp_path / "model", out=tmp_path / "other")
    run(*flags, "--overwrite_cache", model=tmp_path / "model", out=tmp_path / "other")
    assert len(pd.read_csv(tmp_path / "other" / "predictions.csv")) == 2500


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_the_texts_are_not_mapped_while_it_trains(run, rows, tmp_path):
    seen = []

    class Looks(TrainerCallback):
        def on_train_begin(self, *states, **others):
            seen.append(Path("/proc/self/maps").read_text())

    cache = tmp_path / "cache"
    files = ("--train_file", rows, "--validation_file", rows, "--test_file", rows, "--cache_dir", cache)
    for steps, texts in ((["--do_eval"], False), (["--do_eval", "--do_predict"], True)):
        run(*TRAIN, *steps, *files, out=tmp_path / str(texts), callbacks=[Looks()])
        # What is predicted is compared with the labels of its file in the end.
        assert (f"{cache}/hf_mixup/rows-" in seen.pop()) == texts


def test_a_file_with_another_delimiter(run, rows, tmp_path):
    frame().to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    with pytest.raises(UsageError, match="looks semicolon-separated; give --delimiter ';'"):
        run(*TRAIN, "--train_file", tmp_path / "semicolons.csv")
    weights = trained(run, tmp_path / "one", "--train_file", tmp_path / "semicolons.csv", "--delimiter", ";")
    assert same(weights, trained(run, tmp_path / "two", "--train_file", rows))


def test_whole_numbers_are_scores_where_the_user_says_so(run, tmp_path):
    rows = [(text, n % 5) for n, (text, _) in enumerate(labelled_sentences(COLORS, 10))]
    path = write_csv(tmp_path / "stars.csv", ("sentence", "label"), rows)
    files = ["--train_file", path, "--validation_file", path]
    results = run(
        *TRAIN,
        *files,
        "--do_eval",
        "--do_regression",
        "true",
        "--metric_name",
        "mse",
        "--do_predict",
        "--test_file",
        path,
    )
    answers = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(answers.columns) == ["index", "prediction"]
    mean = np.mean((answers.prediction - [label for _, label in rows]) ** 2)
    assert results["eval_mse"] == pytest.approx(mean, rel=1e-5) == results["predict_mse"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["problem_type"] == "regression"


def test_minus_one_is_a_score_in_every_file_where_it_is_one_in_the_train_file(run, tmp_path):
    texts = [text for text, _ in labelled_sentences(COLORS, 8)]
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), zip(texts, [-1, 0.5, 2, 1] * 2, strict=True))
    other = write_csv(tmp_path / "other.csv", ("sentence", "label"), zip(texts[:4], [2, -1, "", 1], strict=True))
    files = ["--train_file", train, "--validation_file", other, "--test_file", other]
    results = run(*TRAIN, *files, "--do_eval", "--do_predict", "--drop_unlabelled")
    assert results["train_samples"] == 8
    assert results["eval_samples"] == results["predict_samples"] == 3


def test_labels_and_texts_are_no_weights(run, rows):
    for column in ("label", "sentence"):
        with pytest.raises(UsageError, match=f"--weight_column_name '{column}' is the column of the labels or of the"):
            run(*TRAIN, "--train_file", rows, "--weight_column_name", column, "--text_column_names", "sentence")
