"""The files of predictions: stock's, with the answers alone, and one with the probability of each class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from hf_mixup.files import written_beside
from hf_mixup.glue.labels import Labels
from hf_mixup.glue.metrics import scores_to_predictions
from hf_mixup.shown import field_of_file, without_formula

# How many numbers are turned into text at a time.
_BLOCK = 2**16


def write_predictions(path: str, scores: np.ndarray, labels: Labels) -> None:
    """Write one line per row: its number from 0, and the class, the score, or the JSON list of classes.

    Args:
        path: the file, such as `predict_results_mrpc.txt`.
        scores: the model's outputs `[rows, outputs]`.
        labels: the labels, in the order of the outputs.
    """
    with written_beside(Path(path)) as beside, beside.open("w", encoding="utf-8") as file:
        file.write("index\tprediction\n")
        for start, block in _blocks(scores):
            for index, prediction in enumerate(scores_to_predictions(_answers(labels), block), start):
                file.write(f"{index}\t{field_of_file(labels.decode(prediction))}\n")


def write_scores(path: str, scores: np.ndarray, labels: Labels) -> None:
    """Write `predictions.csv`: one line per row with the answer, how sure it is, and the probability of each class.

    `index` is the number of the row, from 0. What follows depends on the kind of labels:

    - `single`, `soft`: `prediction` is the likeliest class, `probability` its probability, and `probability_CLASS`
      that of each class, the softmax of the logits.
    - `multi`: `prediction` is the JSON list of the classes above one half, and `probability_CLASS` the sigmoid of the
      logit of each class.
    - `regression`: `prediction` is the score with all of its digits.

    Probabilities have six digits. In the column `prediction` a class that a spreadsheet would run as a formula has an
    apostrophe before it, and so has one that begins with an apostrophe: to read the classes, remove one apostrophe
    where there is one. The headers and the lists of classes need none.

    Args:
        path: the file.
        scores: the model's outputs `[rows, outputs]`.
        labels: the labels, in the order of the outputs.

    Raises:
        OSError: the file could not be written, on a full disk for example; it names `path`.

    Example:
        >>> write_scores("out/predictions.csv", scores, labels)  # doctest: +SKIP
        >>> frame = pandas.read_csv(  # doctest: +SKIP
        ...     "out/predictions.csv", dtype={"prediction": str}, keep_default_na=False
        ... )
        >>> frame["prediction"] = frame["prediction"].str.removeprefix("'")  # doctest: +SKIP
    """
    with written_beside(Path(path)) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(labels))
        for start, block in _blocks(scores):
            writer.writerows(_lines(start, block, labels))


def _blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The scores in blocks of rows, each with the number of its first row."""
    step = max(1, _BLOCK // max(1, scores[:1].size))
    for start in range(0, len(scores), step):
        yield start, scores[start : start + step]


def _answers(labels: Labels) -> str:
    return "single" if labels.kind == "soft" else labels.kind


def _header(labels: Labels) -> list[str]:
    sure = ["probability"] if _answers(labels) == "single" else []
    return ["index", "prediction", *sure, *(f"probability_{name}" for name in labels.names)]


def _lines(start: int, scores: np.ndarray, labels: Labels) -> Iterator[list[int | float | str]]:
    """The lines of some rows, of which the first one has the number `start`."""
    kind = _answers(labels)
    predictions = scores_to_predictions(kind, scores)
    if kind == "regression":
        yield from ([index, score] for index, score in enumerate(predictions.tolist(), start))
        return
    logits = np.asarray(scores, dtype=np.float64)
    probabilities = (expit(logits) if kind == "multi" else softmax(logits, axis=1)).tolist()
    for index, (prediction, row) in enumerate(zip(predictions, probabilities, strict=True), start):
        shares = [f"{share:.6g}" for share in row]
        if kind == "multi":
            yield [index, labels.decode(prediction), *shares]
        else:
            yield [index, _reversible(labels.decode(prediction)), shares[prediction], *shares]


def _reversible(name: str) -> str:
    """A class as it is safe in a spreadsheet, with an apostrophe before it that can be told from one of its own."""
    return f"'{name}" if name.startswith("'") else without_formula(name)
