"""The files of predictions: what the csv module and pandas read in them, beside the probabilities of torch."""

from __future__ import annotations

import csv
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_mixup.glue import predictions
from hf_mixup.glue.labels import Labels
from hf_mixup.glue.predictions import write_predictions, write_scores
from hf_mixup.shown import visible

CLASSES = ("red", "-1", "=1+1")


def labels_of(kind, names=CLASSES):
    return Labels(kind, names, names, ("label",), False, "the train labels")


def logits(rows, outputs, scale=5.0):
    return (np.random.default_rng(0).normal(size=(rows, outputs)) * scale).astype(np.float32)


def read(path):
    """The table as the csv module reads it, which is as pandas does."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(frame.columns) == header and frame.to_numpy().tolist() == rows
    return header, rows


@pytest.mark.parametrize("kind", ["single", "soft"])
@pytest.mark.parametrize("block", [4, 2**16])
def test_one_class_has_its_probability_and_those_of_all(tmp_path, monkeypatch, kind, block):
    monkeypatch.setattr(predictions, "_BLOCK", block)
    scores = logits(50, 3)
    write_scores(str(tmp_path / "predictions.csv"), scores, labels_of(kind))
    header, rows = read(tmp_path / "predictions.csv")
    assert header == ["index", "prediction", "probability", *(f"probability_{name}" for name in CLASSES)]
    wanted = torch.softmax(torch.tensor(scores, dtype=torch.float64), dim=1)
    assert [row[0] for row in rows] == [str(index) for index in range(50)]
    assert [row[1].removeprefix("'") for row in rows] == [CLASSES[index] for index in wanted.argmax(dim=1)]
    read_back = np.array([row[2:] for row in rows], dtype=float)
    np.testing.assert_allclose(read_back[:, 1:], wanted, rtol=6e-6)
    np.testing.assert_array_equal(read_back[:, 0], read_back[:, 1:].max(axis=1))
    assert {row[1] for row in rows} == {"red", "-1", "'=1+1"}


@pytest.mark.parametrize("block", [4, 2**16])
def test_several_classes_have_a_probability_each(tmp_path, monkeypatch, block):
    monkeypatch.setattr(predictions, "_BLOCK", block)
    scores = logits(50, 3)
    write_scores(str(tmp_path / "predictions.csv"), scores, labels_of("multi"))
    header, rows = read(tmp_path / "predictions.csv")
    assert header == ["index", "prediction", *(f"probability_{name}" for name in CLASSES)]
    wanted = torch.sigmoid(torch.tensor(scores, dtype=torch.float64))
    np.testing.assert_allclose(np.array([row[2:] for row in rows], dtype=float), wanted, rtol=6e-6)
    for row, own in zip(rows, wanted, strict=True):
        assert json.loads(row[1]) == [name for name, share in zip(CLASSES, own, strict=True) if share > 0.5]


def test_logits_far_apart_give_probabilities(tmp_path):
    write_scores(str(tmp_path / "a.csv"), np.array([[1e4, 0, -1e4]], dtype=np.float32), labels_of("single"))
    write_scores(str(tmp_path / "b.csv"), np.array([[1e4, 0, -1e4]], dtype=np.float32), labels_of("multi"))
    assert read(tmp_path / "a.csv")[1] == [["0", "red", "1", "1", "0", "0"]]
    assert read(tmp_path / "b.csv")[1] == [["0", '["red"]', "1", "0.5", "0"]]


def test_scores_have_all_digits(tmp_path):
    scores = np.array([[0.1], [-1 / 3], [1e-30], [123456789.0]], dtype=np.float32)
    write_scores(str(tmp_path / "predictions.csv"), scores, labels_of("regression", ()))
    header, rows = read(tmp_path / "predictions.csv")
    assert header == ["index", "prediction"] and [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row[1]) for row in rows] == [float(score) for score in scores[:, 0]]


# Short, so that drawn names often differ in one mark only.
NAMES = st.text(st.sampled_from("=+-@＝＋－＠'\" ,;1aé|\u3000"), min_size=1, max_size=4)


@given(st.lists(NAMES | st.text(min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_classes_are_safe_in_spreadsheets_and_read_back(tmp_path_factory, drawn):
    names = tuple(name for name in drawn if visible(name) == name)
    path = tmp_path_factory.mktemp("scores") / "predictions.csv"
    write_scores(str(path), np.eye(len(names), dtype=np.float32), labels_of("single", names))
    header, rows = read(path)
    assert header[3:] == [f"probability_{name}" for name in names] and len(set(header)) == len(header)
    assert tuple(row[1].removeprefix("'") for row in rows) == names
    for cell in (*header, *(cell for row in rows for cell in row)):
        start = cell.lstrip()
        if len(start) > 1 and start[0] in "=+-@＝＋－＠":
            float(cell)  # runs nothing


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *(("=1+1", "'=1+1"), ("  @SUM(A1)", "'  @SUM(A1)"), ("＝1", "'＝1"), ("'=1+1", "''=1+1"), ("'tis", "''tis")),
        *(("-1", "-1"), ("+1.5", "+1.5"), ("a=b", "a=b"), ("refund, please", "refund, please"), ('"', '"')),
    ],
)
def test_what_is_written_for_a_class(tmp_path, name, written):
    write_scores(str(tmp_path / "p.csv"), np.array([[1.0, 0.0]]), labels_of("single", (name, "other")))
    assert read(tmp_path / "p.csv")[1][0][1] == written


def test_the_file_of_answers_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "_BLOCK", 4)
    scores = np.array([[2.0, 1.0, 0.5], [0.0, 1.0, 3.0], [-1.0, 2.0, 1.0]])
    path = tmp_path / "predict_results_None.txt"
    wanted = {
        "single": "0\tred\n1\t'=1+1\n2\t-1\n",
        "soft": "0\tred\n1\t'=1+1\n2\t-1\n",
        "multi": '0\t["red", "-1", "=1+1"]\n1\t["-1", "=1+1"]\n2\t["-1", "=1+1"]\n',
    }
    for kind, lines in wanted.items():
        write_predictions(str(path), scores, labels_of(kind))
        assert path.read_text(encoding="utf-8") == f"index\tprediction\n{lines}"
    write_predictions(str(path), scores[:, :1], labels_of("regression", ()))
    assert path.read_text(encoding="utf-8") == "index\tprediction\n0\t2.000\n1\t0.000\n2\t-1.000\n"


@pytest.mark.parametrize("write", [write_scores, write_predictions])
def test_rows_are_not_gathered_in_memory(tmp_path, monkeypatch, write):
    monkeypatch.setattr(predictions, "_BLOCK", 2**12)
    scores, labels = logits(30_000, 3), labels_of("single")
    tracemalloc.start()
    try:
        write(str(tmp_path / "file"), scores, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(1 for _ in (tmp_path / "file").open()) == 30_001
    # As a list the lines alone have 1.7 MB.
    assert peak < 2**20, peak


@pytest.mark.parametrize("write", [write_scores, write_predictions])
def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_text("older")
    decode = Labels.decode

    def failing(self, prediction):
        if self.names[int(prediction)] == "=1+1":
            raise OSError(28, "No space left on device")
        return decode(self, prediction)

    monkeypatch.setattr(Labels, "decode", failing)
    with pytest.raises(OSError, match=str(path)):
        write(str(path), np.eye(3), labels_of("single"))
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]
