"""What the labels of a data set are, and how they become numbers.

Four kinds: `single` (one class per row), `regression` (a score), `multi` (a list of classes per row) and `soft` (a
probability for each class, one column per class). The kind follows from the task, else from the train labels: floats
are scores, lists are several classes, several label columns are probabilities, all else are classes.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import ClassLabel
from transformers import PreTrainedConfig

from hf_mixup.errors import UsageError, listed
from hf_mixup.glue.loading import Split, parse_float, require_column
from hf_mixup.glue.tasks import Task

_PROBLEM_TYPES = {
    "single": "single_label_classification",
    "regression": "regression",
    "multi": "multi_label_classification",
    "soft": "single_label_classification",
}
_INTEGER = re.compile(r"[+-]?\d+")
# What CSV files write for "no value"; among numbers such a word is a missing label and not a class of its own.
_MISSING_WORDS = {"na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na"}
_SUM_TOLERANCE = 1e-3
_UNLABELLED = (
    "the label -1 stands for 'unlabelled' and is allowed in a test file only; "
    "drop the row, or give the class another name"
)


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        kind: `single`, `regression`, `multi` or `soft`.
        names: the classes in the order of the model's outputs; empty for regression.
        data_names: the classes in the order of the integer ids in the data (see `ids`).
        columns: the label columns, one for each class for `soft`, else one.
        ids: whether integers in the data may be ids of `data_names` (a GLUE task, a Hub data set with named classes,
            a trained model) and not only names of classes themselves.
        origin: where the classes come from, for messages.
    """

    kind: str
    names: tuple[str, ...]
    data_names: tuple[str, ...]
    columns: tuple[str, ...]
    ids: bool
    origin: str

    @property
    def num_labels(self) -> int:
        """The number of outputs of the model: one for each class, a single one for regression."""
        return 1 if self.kind == "regression" else len(self.names)

    @property
    def problem_type(self) -> str:
        """The name transformers has for this kind."""
        return _PROBLEM_TYPES[self.kind]

    def ordered_as(self, label2id: dict[str, int]) -> Labels:
        """Return the same labels in the order that a trained model gives its outputs, if the names agree.

        Upper and lower case count as the same. Labels of other names, and scores, are returned unchanged.
        """
        if self.kind == "regression" or not self.agrees_with(label2id):
            return self
        position = {str(name).lower(): int(index) for name, index in label2id.items()}
        return replace(self, names=tuple(sorted(self.names, key=lambda name: position[name.lower()])))

    def agrees_with(self, label2id: dict[str, int]) -> bool:
        """Whether a model's labels have the same names, but perhaps another order."""
        theirs = sorted(str(name).lower() for name in label2id)
        return theirs == sorted(name.lower() for name in self.names) and len(set(theirs)) == len(theirs)

    def encode(self, split: Split) -> list[Any]:
        """Turn the labels of a split into what the model trains on.

        Returns:
            one entry per row: a class id (`single`), a float (`regression`), a list of 0.0 and 1.0, one for each class
            (`multi`), or a list of probabilities that sum to 1 (`soft`).

        Raises:
            UsageError: for a missing, unknown or impossible label; the sentence names the row.
        """
        for column in self.columns:
            require_column(split, column, "label column", "--label_column_name")
        if self.kind == "soft":
            return self._encode_soft(split)
        values = label_values(split, self.columns[0])
        if self.kind == "regression":
            return [self._score(value, split, row) for row, value in enumerate(values)]
        ids = {name: index for index, name in enumerate(self.names)}
        if self.kind == "single":
            return [ids[self._class_name(value, split, row)] for row, value in enumerate(values)]
        return [self._indicator(value, ids, split, row) for row, value in enumerate(values)]

    def decode(self, prediction: Any) -> str:
        """Write one prediction as the file of predictions has it: a class, a score, or a JSON list of classes."""
        if self.kind == "regression":
            return f"{prediction:3.3f}"
        if self.kind == "multi":
            chosen = [name for name, hit in zip(self.names, prediction, strict=True) if hit]
            return json.dumps(chosen, ensure_ascii=False)
        return self.names[int(prediction)]

    def _class_name(self, value: Any, split: Split, row: int) -> str:
        if isinstance(value, (list, dict)):
            raise UsageError(
                f"{split.row_name(row)}: the label {value!r} should be one class like those of {self.origin}"
            )
        name = str(value)
        if name in self.names:
            return name
        if _INTEGER.fullmatch(name.strip()) and not isinstance(value, float):
            number = int(name)
            if str(number) in self.names:
                return str(number)
            if self.ids and 0 <= number < len(self.data_names):
                return self.data_names[number]
            if number == -1:
                raise UsageError(f"{split.row_name(row)}: {_UNLABELLED}")
        elif _is_fraction(value):
            raise UsageError(
                f"{split.row_name(row)}: the label {value} is a fraction where a class is needed, one of "
                f"{listed(self.data_names)}; write classes as whole numbers or names"
            )
        raise UsageError(
            f"{split.row_name(row)}: the label {name!r} is not one of {self.origin}, which are "
            f"{listed(self.data_names)}; correct it or drop the row"
        )

    def _indicator(self, value: Any, ids: dict[str, int], split: Split, row: int) -> list[float]:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{split.row_name(row)}: the label {value!r} should be a list of classes like the others")
        hits = [0.0] * len(ids)
        for entry in value:
            if entry is None:
                raise UsageError(f"{split.row_name(row)}: the list of labels holds an empty entry; drop it")
            position = ids[self._class_name(entry, split, row)]
            if hits[position]:
                raise UsageError(
                    f"{split.row_name(row)}: the list of labels has {entry!r} twice; it should name the classes of "
                    "the row, not have a 0 or 1 for each class"
                )
            hits[position] = 1.0
        return hits

    def _score(self, value: Any, split: Split, row: int) -> float:
        score = parse_float(value) if isinstance(value, str) else value
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise UsageError(f"{split.row_name(row)}: the label {value!r} should be a number, this is a regression")
        if not math.isfinite(score):
            raise UsageError(f"{split.row_name(row)}: the label {value} is not a finite number; drop the row")
        # The one GLUE task with scores has them from 0 to 5, and marks the rows of its test set with -1.
        if self.ids and score == -1:
            raise UsageError(f"{split.row_name(row)}: {_UNLABELLED}")
        return float(score)

    def _encode_soft(self, split: Split) -> list[list[float]]:
        columns = [label_values(split, column) for column in self.columns]
        order = [self.data_names.index(name) for name in self.names]
        encoded = []
        for row, values in enumerate(zip(*columns, strict=True)):
            shares = [self._score(value, split, row) for value in values]
            total = math.fsum(shares)
            if min(shares) < 0 or abs(total - 1) > _SUM_TOLERANCE:
                raise UsageError(
                    f"{split.row_name(row)}: the probabilities {listed(shares)} in the columns {listed(self.columns)} "
                    "should be at least 0 and sum to 1"
                )
            encoded.append([shares[index] / total for index in order])
        return encoded


def infer_labels(train: Split, label_columns: tuple[str, ...], task: Task | None) -> Labels:
    """Find out kind and classes of the labels from the task and the train split.

    Raises:
        UsageError: if the label column does not exist, or the labels allow no training (one is missing, one class).
    """
    for column in label_columns:
        require_column(train, column, "label column", "--label_column_name")
    if task is not None:
        return task_labels(task, label_columns)
    if len(label_columns) > 1:
        return Labels("soft", label_columns, label_columns, label_columns, False, "the label columns")
    feature = train.feature(label_columns[0])
    inner = getattr(feature, "feature", None)
    for kind, described in (("single", feature), ("multi", inner)):
        if isinstance(described, ClassLabel):
            names = tuple(described.names)
            return Labels(kind, names, names, label_columns, True, f"the classes of {train.source}")
    return _labels_from_values(train, label_columns)


def task_labels(task: Task, label_columns: tuple[str, ...]) -> Labels:
    """Return the labels of a GLUE task."""
    if len(label_columns) > 1:
        raise UsageError(f"task {task.name} has one label column, --label_column_name names {len(label_columns)}")
    kind = "regression" if task.is_regression else "single"
    return Labels(kind, task.label_names, task.label_names, label_columns, True, f"the labels of task {task.name}")


def labels_of_model(config: PreTrainedConfig, label_columns: tuple[str, ...], task: Task | None) -> Labels:
    """Take the labels from a trained model, for evaluation or prediction without a train split.

    Raises:
        UsageError: if the model has no trained classifier.
    """
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise UsageError(
            "the model has no trained classifier, so its labels are not known without --train_file; "
            "give the train file, or the folder of a model that this script trained"
        )
    if task is not None:
        return task_labels(task, label_columns)
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    origin = "the labels of the model"
    if config.problem_type == "multi_label_classification":
        return Labels("multi", names, names, label_columns, True, origin)
    if config.problem_type == "regression" or config.num_labels == 1:
        return Labels("regression", (), (), label_columns, False, origin)
    if len(label_columns) > 1:
        if sorted(label_columns) != sorted(names):
            raise UsageError(
                f"--label_column_name has {listed(label_columns)}, but the labels of the model are {listed(names)}"
            )
        return Labels("soft", names, label_columns, label_columns, False, origin)
    return Labels("single", names, names, label_columns, True, origin)


def _labels_from_values(train: Split, label_columns: tuple[str, ...]) -> Labels:
    values = label_values(train, label_columns[0])
    origin = f"the labels of {train.source}"
    if any(isinstance(value, (list, tuple)) for value in values):
        entries = [entry for value in values if isinstance(value, (list, tuple)) for entry in value]
        names = _sorted_names([entry for entry in entries if entry is not None], train)
        if len(names) < 2:
            raise UsageError(f"{train.source} has lists of labels with {len(names)} different classes; two are needed")
        return Labels("multi", names, names, label_columns, False, origin)
    if all(_is_number(value) for value in values) and any(isinstance(value, float) for value in values):
        return Labels("regression", (), (), label_columns, False, origin)
    names = _sorted_names(values, train)
    if len(names) < 2:
        raise UsageError(f"{train.source} has only one class, {listed(names)}; a classifier needs at least two")
    if "-1" in names:
        raise UsageError(f"{train.row_name([str(value) for value in values].index('-1'))}: {_UNLABELLED}")
    return Labels("single", names, names, label_columns, False, origin)


def label_values(split: Split, column: str) -> list[Any]:
    """Return the labels of a column as numbers, names or lists, checked to be complete.

    The cells of a CSV file are all text: a column of whole numbers becomes ints, of numbers floats, of lists in square
    brackets lists; any other column stays text.

    Raises:
        UsageError: if a label is missing; the sentence names the row.
    """
    values = split.values(column)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UsageError(f"{split.row_name(row)} has no label in column {column!r}; fill it in or drop the row")
    return _typed(values, split) if split.kind == "csv" else values


def _typed(cells: list[str], split: Split) -> list[Any]:
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        return [_json_list(cell, split, row) for row, cell in enumerate(cells)]
    if all(_INTEGER.fullmatch(cell.strip()) for cell in cells):
        return [int(cell) for cell in cells]
    words = [row for row, cell in enumerate(cells) if cell.strip().lower() in _MISSING_WORDS]
    others = [parse_float(cell) for row, cell in enumerate(cells) if row not in set(words)]
    if None in others or not others:
        return cells
    if words:
        raise UsageError(
            f"{split.row_name(words[0])}: the label {cells[words[0]]!r} is not a number, but the others are; "
            "drop the row"
        )
    return others


def _json_list(cell: str, split: Split, row: int) -> list[Any]:
    try:
        # Python's own way to write a list, which is what pandas leaves in a CSV file, covers JSON's for these lists.
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError) as error:
        raise UsageError(
            f'{split.row_name(row)}: the label {cell} should be a list such as ["red", "round"] or [0, 2]'
        ) from error


def _sorted_names(values: Sequence[Any], split: Split) -> tuple[str, ...]:
    """Return the different classes, numbers in the order of numbers and names in the order of the alphabet."""
    for value in values:
        if not isinstance(value, (str, int)):
            raise UsageError(f"{split.source} has the label {value!r}, which should be a name or a whole number")
    unique = set(values)
    if all(isinstance(value, int) for value in unique):
        return tuple(str(value) for value in sorted(unique))
    if not all(isinstance(value, str) for value in unique):
        raise UsageError(f"{split.source} has both names and numbers as labels; write them all in one way")
    return tuple(sorted(unique))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_fraction(value: Any) -> bool:
    number = parse_float(value) if isinstance(value, str) else value
    return isinstance(number, float) and math.isfinite(number)
