"""What the labels of a data set are, and how they become numbers.

Four kinds: `single` (one class per row), `regression` (a score), `multi` (any number of classes per row) and `soft` (a
probability for each class, one column per class). The kind follows from the task, else from the train labels: floats
are scores; lists are several classes; several label columns are several classes if they hold 0 and 1 alone and some
row does not sum to 1, else probabilities; all else are classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import ClassLabel
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from hf_mixup.errors import UsageError, cut, listed, quoted, repeated
from hf_mixup.glue.cells import (
    AS_THE_DATA_SAY,
    INTEGER,
    LARGEST_SCORE,
    MISSING_WORDS,
    Reading,
    are_indicators,
    bit,
    is_empty,
    is_number,
    label_values,
)
from hf_mixup.glue.loading import Split, parse_float, require_column
from hf_mixup.glue.tasks import Task
from hf_mixup.shown import visible

_PROBLEM_TYPES = {
    "single": "single_label_classification",
    "regression": "regression",
    "multi": "multi_label_classification",
    "soft": "single_label_classification",
}
_SUM_TOLERANCE = 1e-3
_UNLABELLED = (
    "the label -1 stands for 'unlabelled' and is allowed in a test file only; drop such rows with --drop_unlabelled, "
    "or make it a class of its own with --extra_labels=-1"
)


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        kind: `single`, `regression`, `multi` or `soft`.
        names: the classes in the order of the model's outputs; empty for regression.
        data_names: the classes in the order of the integer ids in the data (see `ids`).
        columns: the label columns: one for each class, or one.
        ids: whether a column of integers may hold ids of `data_names` (a GLUE task, a Hub data set with named classes,
            a trained model) and not only names of classes themselves. See `encode`.
        origin: where the classes come from, for messages.
        reading: how the columns are read.
    """

    kind: str
    names: tuple[str, ...]
    data_names: tuple[str, ...]
    columns: tuple[str, ...]
    ids: bool
    origin: str
    reading: Reading = AS_THE_DATA_SAY

    def __post_init__(self) -> None:
        for name in self.data_names:
            if visible(name) != name:
                raise UsageError(
                    f"the class name {quoted(name)} in {self.origin} has a character that cannot be seen, such as a "
                    "tab or an end of a line, or looks like an access token; give the class another name"
                )

    @property
    def num_labels(self) -> int:
        """The number of outputs of the model: one for each class, a single one for regression."""
        return 1 if self.kind == "regression" else len(self.names)

    @property
    def problem_type(self) -> str:
        """The name transformers has for this kind."""
        return _PROBLEM_TYPES[self.kind]

    def ordered_as(self, id2label: dict[int, str]) -> Labels:
        """Return the same labels in the order that a trained model gives its outputs, if the names agree.

        Upper and lower case count as the same where no two names differ by it alone. Labels of other names, and
        scores, are returned unchanged.
        """
        position = None if self.kind == "regression" else _paired(self.names, model_names(id2label))
        if position is None:
            return self
        return replace(self, names=tuple(sorted(self.names, key=position.__getitem__)))

    def agrees_with(self, id2label: dict[int, str]) -> bool:
        """Whether a model's labels have the same names, but perhaps another order."""
        return _paired(self.names, model_names(id2label)) is not None

    def encode(self, split: Split) -> list[Any]:
        """Turn the labels of a split into what the model trains on.

        A column that the Hub describes as `ClassLabel` holds ids of its own class names, and these are looked up among
        the classes, whatever they look like. Any other column of classes is read in one way as a whole: as names, if
        all of its values are names; else as ids, if `ids` allows it, all values are ids and no name is a number.

        Returns:
            one entry per row: a class id (`single`), a float (`regression`), a list of 0.0 and 1.0, one for each class
            (`multi`), or a list of probabilities that sum to 1 (`soft`).

        Raises:
            UsageError: for a missing, unknown or impossible label; the sentence names the row.
        """
        for column in self.columns:
            require_column(split, column, "label column", "--label_column_name")
        # Rows with the same label are encoded once, and share what they get.
        distinct, positions = split.distinct(self.columns)
        encoded = self._encode(distinct)
        return [encoded[position] for position in positions.tolist()]

    def _encode(self, split: Split) -> list[Any]:
        if self.kind == "soft":
            return self._encode_soft(split)
        if len(self.columns) > 1:
            return self._encode_columns(split)
        values = label_values(split, self.columns[0], self.reading)
        if self.kind == "regression":
            return [self._score(value, split, row) for row, value in enumerate(values)]
        # A CSV cell as it is written: 01 may be a name, and 1 too.
        as_written = self.kind == "single" and self.reading.is_regression is None
        rows = self._classes(split.values(self.columns[0]) if as_written else values, split)
        described = class_feature(split, self.columns[0])
        if described is None and self.kind == "multi" and self._are_indicators(rows):
            return self._in_order([[float(hit) for hit in row] for row in rows])
        positions = self._own_ids(rows, described, split) if described else self._read_ids(rows, split)
        if self.kind == "single":
            return [own[0] for own in positions]
        return [
            self._indicator(own, classes, split, row)
            for row, (own, classes) in enumerate(zip(positions, rows, strict=True))
        ]

    def decode(self, prediction: Any) -> str:
        """Write one prediction as text: a class, a score, or a JSON list of classes."""
        if self.kind == "regression":
            return f"{prediction:3.3f}"
        if self.kind == "multi":
            chosen = [name for name, hit in zip(self.names, prediction, strict=True) if hit]
            return json.dumps(chosen, ensure_ascii=False)
        return self.names[int(prediction)]

    def _classes(self, values: list[Any], split: Split) -> list[list[Any]]:
        """The classes of each row as the data have them: one for `single`, any number for `multi`."""
        rows = []
        for row, value in enumerate(values):
            if self.kind == "single" and isinstance(value, (list, tuple, dict)):
                raise UsageError(
                    f"{split.row_name(row)}: the label {quoted(value)} should be one class like those of {self.origin}"
                )
            if self.kind == "multi" and not isinstance(value, (list, tuple)):
                raise UsageError(
                    f"{split.row_name(row)}: the label {quoted(value)} should be a list of classes like the others, "
                    "or a text that --label_delimiter divides"
                )
            if self.kind == "multi" and None in value:
                raise UsageError(f"{split.row_name(row)}: the list of labels holds an empty entry; drop it")
            rows.append([value] if self.kind == "single" else list(value))
        return rows

    def _are_indicators(self, rows: list[list[Any]]) -> bool:
        """Whether the rows have a 0 or 1 for each class, which here are no names of classes."""
        return not {"0", "1"} <= set(self.names) and are_indicators(rows, self.num_labels)

    def _own_ids(self, rows: list[list[int]], described: ClassLabel, split: Split) -> list[list[int]]:
        """Look up ids of a split's own class names."""
        position = {name: index for index, name in enumerate(self.names)}
        position |= _paired(described.names, self.names) or {}
        if not set(described.names) & set(position) and self._has_no_names and len(described.names) == self.num_labels:
            position = {name: index for index, name in enumerate(described.names)}
        for row, number in _flat(rows):
            if number == -1 and "-1" not in position:
                raise UsageError(f"{split.row_name(row)}: {_UNLABELLED}")
            if number != -1 and not 0 <= number < len(described.names):
                raise UsageError(
                    f"{split.row_name(row)}: the label {number} is not an id of the {len(described.names)} classes of "
                    f"{split.source}, which are {listed(described.names)}; correct it or drop the row"
                )
            if number != -1 and described.names[number] not in position:
                raise UsageError(
                    f"{split.row_name(row)}: the class {quoted(described.names[number])} is not one of {self.origin}, "
                    f"which are {listed(self.data_names)}; give the data those names, with "
                    "data.cast_column(column, ClassLabel(names=[...])), or drop the row"
                )
        return [[position["-1" if number == -1 else described.names[number]] for number in own] for own in rows]

    def _read_ids(self, rows: list[list[Any]], split: Split) -> list[list[int]]:
        """Look up classes that the data have as names, or as ids of `data_names`."""
        words = {str(entry) for _, entry in _flat(rows)}
        found = _positions(self.names, words)
        if len(found) < len(words):
            ids = self._ids_of(words)
            odd = {word for word in words if word not in found and word not in ids}
            for row, entry in _flat(rows):
                if str(entry) in odd:
                    raise UsageError(f"{split.row_name(row)}: {self._wrong_class(entry)}")
            if len(ids) < len(words):
                name, number = (
                    next((row, entry) for row, entry in _flat(rows) if str(entry) not in other)
                    for other in (ids, found)
                )
                raise UsageError(
                    f"{split.row_name(number[0])}: the label {quoted(number[1])} is an id, and the label "
                    f"{quoted(name[1])} of row {split.rows[name[0]]} is a name; write all of them as names or all as "
                    "ids"
                )
            found = ids
        return [[found[str(entry)] for entry in own] for own in rows]

    def _ids_of(self, words: Iterable[str]) -> dict[str, int]:
        """Those of the words that may be ids, with the position of their class; none where a class is a number."""
        if not self.ids or self._has_numbers:
            return {}
        position = {name: index for index, name in enumerate(self.names)}
        order = [position[name] for name in self.data_names]
        numbers = {word: int(word) for word in words if INTEGER.fullmatch(word.strip())}
        return {word: order[number] for word, number in numbers.items() if 0 <= number < len(order)}

    @property
    def _has_numbers(self) -> bool:
        return any(parse_float(name) is not None for name in self.names)

    @property
    def _has_no_names(self) -> bool:
        """Whether these are the names that transformers gives to classes without names."""
        return self.names == tuple(f"LABEL_{index}" for index in range(len(self.names)))

    def _wrong_class(self, entry: Any) -> str:
        word = str(entry)
        if word.strip() == "-1":
            return _UNLABELLED
        number = parse_float(word)
        if number is not None and math.isfinite(number) and not INTEGER.fullmatch(word.strip()):
            what = f"the label {cut(word)} is a fraction where a class is needed, one of {listed(self.data_names)}"
            if number.is_integer():
                # So pandas writes whole numbers where a cell of their column is empty.
                what = what.replace("is a fraction", "has a decimal point")
            return f"{what}; write classes as whole numbers or names"
        numbers = " (which are numbers, so that a number in the data is a name and not an id)"
        return (
            f"the label {quoted(word)} is not one of {self.origin}, which are {listed(self.data_names)}"
            f"{numbers if self.ids and self._has_numbers else ''}; correct it or drop the row"
        )

    def _indicator(self, positions: list[int], classes: list[Any], split: Split, row: int) -> list[float]:
        hits = [0.0] * self.num_labels
        for position, entry in zip(positions, classes, strict=True):
            if hits[position]:
                raise UsageError(
                    f"{split.row_name(row)}: the list of labels has {quoted(entry)} twice; it should name the classes "
                    "of the row, not have a 0 or 1 for each class"
                )
            hits[position] = 1.0
        return hits

    def _score(self, value: Any, split: Split, row: int) -> float:
        score = parse_float(value) if isinstance(value, str) else value
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise UsageError(
                f"{split.row_name(row)}: the label {quoted(value)} should be a number, this is a regression"
            )
        if not -LARGEST_SCORE <= score <= LARGEST_SCORE:
            raise UsageError(
                f"{split.row_name(row)}: the label {cut(str(value))} is not a finite number in single precision, "
                f"which ends at {LARGEST_SCORE:.4g}; correct it or drop the row"
            )
        # The one GLUE task with scores has them from 0 to 5, and marks the rows of its test set with -1.
        if self.ids and score == -1:
            raise UsageError(f"{split.row_name(row)}: {_UNLABELLED}")
        return float(score)

    def _encode_soft(self, split: Split) -> list[list[float]]:
        columns = [label_values(split, column) for column in self.columns]
        encoded = []
        for row, values in enumerate(zip(*columns, strict=True)):
            shares = [self._score(value, split, row) for value in values]
            total = math.fsum(shares)
            if min(shares) < 0 or abs(total - 1) > _SUM_TOLERANCE:
                raise UsageError(
                    f"{split.row_name(row)}: the probabilities {listed(shares)} in the columns {listed(self.columns)} "
                    "should be at least 0 and sum to 1"
                )
            encoded.append([share / total for share in shares])
        return self._in_order(encoded)

    def _encode_columns(self, split: Split) -> list[list[float]]:
        """Read a column of 0 and 1 for each class."""
        columns = [label_values(split, column) for column in self.columns]
        for row, values in enumerate(zip(*columns, strict=True)):
            for column, value in zip(self.columns, values, strict=True):
                if str(value) == "-1":
                    raise UsageError(f"{split.row_name(row)}: {_UNLABELLED}")
                if bit(value) is None:
                    raise UsageError(
                        f"{split.row_name(row)}: the label {quoted(value)} in column {quoted(column)} should be 0 or "
                        "1, as in the other rows"
                    )
        return self._in_order([list(map(bit, row)) for row in zip(*columns, strict=True)])

    def _in_order(self, rows: list[list[float]]) -> list[list[float]]:
        """Numbers for the classes as the data have them, in the order of the model's outputs."""
        position = {name: index for index, name in enumerate(self.data_names)}
        order = [position[name] for name in self.names]
        return [[row[index] for index in order] for row in rows]


def infer_labels(
    train: Split, label_columns: tuple[str, ...], task: Task | None, reading: Reading = AS_THE_DATA_SAY
) -> Labels:
    """Find out kind and classes of the labels from the task and the train split.

    Raises:
        UsageError: if the label column does not exist, or the labels allow no training (one is missing, one class).
    """
    for column in label_columns:
        require_column(train, column, "label column", "--label_column_name")
    labels = _labels_of(train.distinct(label_columns)[0], label_columns, task, reading)
    _check_reading(labels, len(label_columns), task is not None)
    return labels


def _labels_of(train: Split, label_columns: tuple[str, ...], task: Task | None, reading: Reading) -> Labels:
    if task is not None:
        return replace(task_labels(task, label_columns), reading=reading)
    if len(label_columns) > 1:
        kind = "multi" if _are_bits(train, label_columns) else "soft"
        return Labels(kind, label_columns, label_columns, label_columns, False, "the label columns", reading)
    described = class_feature(train, label_columns[0])
    if described is None:
        return _labels_from_values(train, label_columns, reading)
    kind = "single" if isinstance(train.feature(label_columns[0]), ClassLabel) else "multi"
    names = (*described.names, *(name for name in reading.extra if name not in described.names))
    if len(names) < 2:
        raise UsageError(f"{train.source} has only one class, {listed(names)}; a classifier needs at least two")
    return Labels(kind, names, names, label_columns, True, f"the classes of {train.source}", reading)


def _check_reading(labels: Labels, columns: int, is_task: bool) -> None:
    """Check that the flags about labels have a meaning for these.

    Raises:
        UsageError: if one has none.
    """
    reading, kind = labels.reading, labels.kind
    is_regression = kind == "regression"
    if reading.is_regression is not None and reading.is_regression != is_regression:
        flag = f"--do_regression {str(reading.is_regression).lower()}"
        raise UsageError(f"{flag} does not go with {labels.origin}, which are of the kind {kind}; leave it out")
    if reading.extra and (is_task or columns > 1 or is_regression):
        what = "scores" if is_regression else labels.origin
        raise UsageError(f"--extra_labels adds classes to those of one column, and here are {what}; leave it out")
    if reading.delimiter is not None and (is_task or columns > 1 or kind != "multi"):
        raise UsageError("--label_delimiter divides the texts of one label column into classes; leave it out")


def class_feature(split: Split, column: str) -> ClassLabel | None:
    """Return the class names that the Hub has for a column of ids, or of lists of ids; None for any other column."""
    feature = split.feature(column)
    for described in (feature, getattr(feature, "feature", None)):
        if isinstance(described, ClassLabel):
            return described
    return None


def model_names(id2label: dict[int, str]) -> tuple[str, ...]:
    """Return the labels of a model in the order of its outputs."""
    return tuple(str(id2label[index]) for index in sorted(id2label))


def task_labels(task: Task, label_columns: tuple[str, ...]) -> Labels:
    """Return the labels of a GLUE task."""
    if len(label_columns) > 1:
        raise UsageError(f"task {task.name} has one label column, --label_column_name names {len(label_columns)}")
    kind = "regression" if task.is_regression else "single"
    return Labels(kind, task.label_names, task.label_names, label_columns, True, f"the labels of task {task.name}")


def labels_of_model(
    config: PreTrainedConfig, label_columns: tuple[str, ...], task: Task | None, reading: Reading = AS_THE_DATA_SAY
) -> Labels:
    """Take the labels from a trained model, for evaluation or prediction without a train split.

    Raises:
        UsageError: if the model has no trained classifier, or a flag about labels has no meaning for it.
    """
    if reading.extra:
        raise UsageError("--extra_labels adds classes to those of the train rows; give them, or leave it out")
    labels = _labels_of_model(config, label_columns, task, reading)
    _check_reading(labels, len(label_columns), task is not None)
    return labels


def _labels_of_model(
    config: PreTrainedConfig, label_columns: tuple[str, ...], task: Task | None, reading: Reading
) -> Labels:
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise UsageError(
            "the model has no trained classifier, so its labels are not known without --train_file; "
            "give the train file, or the folder of a model that this script trained"
        )
    if task is not None:
        return replace(task_labels(task, label_columns), reading=reading)
    names = model_names(config.id2label)
    twice = repeated(names)
    if twice is not None:
        raise UsageError(
            f"the model has two labels of the name {quoted(twice)}; give them different names in id2label of its "
            "config.json"
        )
    origin = "the labels of the model"
    is_multi = config.problem_type == "multi_label_classification"
    if not is_multi and (config.problem_type == "regression" or config.num_labels == 1):
        return Labels("regression", (), (), label_columns, False, origin, reading)
    if len(label_columns) > 1:
        if sorted(label_columns) != sorted(names):
            raise UsageError(
                f"--label_column_name has {listed(label_columns)}, but the labels of the model are {listed(names)}"
            )
        return Labels("multi" if is_multi else "soft", names, label_columns, label_columns, False, origin, reading)
    return Labels("multi" if is_multi else "single", names, names, label_columns, True, origin, reading)


def _labels_from_values(train: Split, label_columns: tuple[str, ...], reading: Reading) -> Labels:
    values = label_values(train, label_columns[0], reading)
    origin = f"the labels of {train.source}"
    if any(isinstance(value, (list, tuple)) for value in values):
        lists = [value for value in values if isinstance(value, (list, tuple))]
        entries = [entry for value in lists for entry in value]
        if len(lists) == len(values) and are_indicators(lists, len(lists[0])):
            names = tuple(f"LABEL_{index}" for index in range(len(lists[0])))
            if reading.extra:
                raise UsageError("--extra_labels adds names of classes, and lists of 0 and 1 have none; leave it out")
            return Labels("multi", names, names, label_columns, False, origin, reading)
        names = _sorted_names([entry for entry in entries if entry is not None], train, reading.extra)
        if len(names) < 2:
            raise UsageError(f"{train.source} has lists of labels with {len(names)} different classes; two are needed")
        if "-1" in names and "-1" not in reading.extra:
            row = next(row for row, value in enumerate(values) if "-1" in map(str, value))
            raise UsageError(f"{train.row_name(row)}: {_UNLABELLED}")
        return Labels("multi", names, names, label_columns, False, origin, reading)
    if reading.is_regression:
        for row, value in enumerate(values):
            if not is_number(value) and not (isinstance(value, str) and parse_float(value) is not None):
                raise UsageError(
                    f"{train.row_name(row)}: the label {quoted(value)} should be a number for --do_regression true"
                )
    are_scores = reading.is_regression is None and any(isinstance(value, float) for value in values)
    if reading.is_regression or (are_scores and all(map(is_number, values))):
        return Labels("regression", (), (), label_columns, False, origin, reading)
    names = _sorted_names(values, train, reading.extra)
    if len(names) < 2:
        raise UsageError(f"{train.source} has only one class, {listed(names)}; a classifier needs at least two")
    if "-1" in names and "-1" not in reading.extra:
        raise UsageError(f"{train.row_name([str(value) for value in values].index('-1'))}: {_UNLABELLED}")
    return Labels("single", names, names, label_columns, False, origin, reading)


def labelled_rows(
    split: Split,
    label_columns: Sequence[str],
    task: Task | None,
    reading: Reading = AS_THE_DATA_SAY,
    labels: Labels | None = None,
) -> NDArray[np.int64]:
    """Find the rows that have a label: those where it is neither -1 (also as a list of classes) nor empty.

    Where labels are scores, -1 is a score, but not for the GLUE task with scores, and not where all rows have it.
    Among numbers, words such as NA are empty too.

    Args:
        split: the rows.
        label_columns: the label columns; all of them must have a label.
        task: the GLUE task.
        reading: how the columns are read.
        labels: what the labels are, if that is known; else numbers with a decimal point are scores, and -1 is no class
            unless `reading` says so.

    Returns:
        their positions in the split.

    Raises:
        UsageError: if a column does not exist.
    """
    for column in label_columns:
        require_column(split, column, "label column", "--label_column_name")
    distinct, positions = split.distinct(label_columns)
    is_class = "-1" in (*reading.extra, *(labels.names if labels else ()))
    are_scores = reading.is_regression if labels is None else labels.kind == "regression"
    if task is not None or len(label_columns) > 1:
        are_scores = False
    labelled = np.ones(len(distinct), dtype=bool)
    for column in label_columns:
        labelled &= _labelled(distinct.values(column), is_class, are_scores)
    return np.flatnonzero(labelled[positions])


def _labelled(values: list[Any], is_class: bool, are_scores: bool | None) -> NDArray[np.bool_]:
    words = [str(value).strip().lower() for value in values]
    empty = np.array([is_empty(value) for value in values], dtype=bool)
    missing = empty | np.array([word in MISSING_WORDS for word in words], dtype=bool)
    numbers = [parse_float(word) for word in words]
    others = [number for number, is_missing in zip(numbers, missing, strict=True) if not is_missing]
    if others and None not in others:
        empty = missing
    if are_scores is None:
        are_scores = None not in others and not all(map(INTEGER.fullmatch, np.array(words)[~missing]))
    if is_class or (are_scores and any(number != -1 for number in others)):
        return ~empty
    return ~empty & np.array([parse_float(word.strip("[]")) != -1 for word in words], dtype=bool)


def _sorted_names(values: Sequence[Any], split: Split, extra: Sequence[str]) -> tuple[str, ...]:
    """Return the different classes, numbers in the order of numbers and names in the order of the alphabet."""
    for value in values:
        if not isinstance(value, (str, int)):
            raise UsageError(f"{split.source} has the label {quoted(value)}, which should be a name or a whole number")
    # True equals 1 in Python, but not in a file.
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        words = [word for kind, word in ((str, "names"), (int, "numbers"), (bool, "true or false")) if kind in kinds]
        raise UsageError(f"{split.source} has both {' and '.join(words)} as labels; write them all in one way")
    classes = set(values)
    if kinds == {int} and all(INTEGER.fullmatch(name) for name in extra):
        classes.update(map(int, extra))
    elif extra and kinds - {str}:
        raise UsageError(
            f"--extra_labels {listed(extra)} should be written like the labels of {split.source}, such as "
            f"{quoted(values[0])}"
        )
    else:
        classes.update(extra)
    return tuple(str(value) for value in sorted(classes))


def _are_bits(split: Split, columns: Sequence[str]) -> bool:
    """Whether columns hold 0 and 1 alone, and are no probabilities of which one is 1 in each row."""
    rows = [list(map(bit, row)) for row in zip(*(label_values(split, column) for column in columns), strict=True)]
    return all(None not in row for row in rows) and any(sum(row) != 1 for row in rows)


def _flat(rows: list[list[Any]]) -> Iterable[tuple[int, Any]]:
    """All classes, each with the position of its row."""
    return ((row, entry) for row, own in enumerate(rows) for entry in own)


def _positions(names: Sequence[str], words: Iterable[str]) -> dict[str, int]:
    """Find words among the names of classes: as they are written, else as the same whole number.

    Returns:
        the position of the name for each word that is found.
    """
    exact = {name: index for index, name in enumerate(names)}
    same: dict[int, list[int]] = {}
    for index, name in enumerate(names):
        if INTEGER.fullmatch(name.strip()):
            same.setdefault(int(name), []).append(index)
    found = {}
    for word in words:
        alike = same.get(int(word), []) if INTEGER.fullmatch(word.strip()) else []
        if word in exact:
            found[word] = exact[word]
        elif len(alike) == 1:
            found[word] = alike[0]
    return found


def _paired(names: Sequence[str], others: Sequence[str]) -> dict[str, int] | None:
    """Find each of the names among as many others, in upper or lower case, and return its position there.

    Returns:
        a different position for each name, or None if the two do not have the same names. Names that differ by case
        alone are told apart.
    """
    for spelled in (str, str.casefold):
        position = {spelled(other): index for index, other in enumerate(others)}
        if len(position) == len(others) and sorted(position) == sorted(map(spelled, names)):
            return {name: position[spelled(name)] for name in names}
    return None
