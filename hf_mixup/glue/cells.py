"""What the cells of labels and weights hold: numbers, names, lists, or nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_mixup.errors import UsageError, cut, quoted
from hf_mixup.glue.loading import Split, parse_float, require_column

# Python reads no whole number of more than 4300 digits.
INTEGER = re.compile(r"[+-]?\d{1,4000}")
# What CSV files write for "no value"; among numbers such a word is a missing label and not a class of its own.
MISSING_WORDS = {"na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na"}
# Models compute in single precision.
LARGEST_SCORE = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Reading:
    """How the label columns are read where the data alone do not say it.

    Attributes:
        delimiter: the characters between the classes of a row that has several, such as `|`.
        is_regression: whether numbers are scores; None: those with a decimal point are.
        extra: classes that the train rows need not have.
    """

    delimiter: str | None = None
    is_regression: bool | None = None
    extra: tuple[str, ...] = ()


AS_THE_DATA_SAY = Reading()
"""Without a flag about labels."""


def label_values(split: Split, column: str, reading: Reading = AS_THE_DATA_SAY) -> list[Any]:
    """Return the labels of a column as numbers, names or lists, checked to be complete.

    The cells of a CSV file are all text: a column of whole numbers becomes ints, of numbers floats, of lists in square
    brackets lists; any other column stays text.

    Args:
        split: the rows.
        column: the column.
        reading: with a delimiter, texts become lists of classes; where numbers are no scores, 1.0 becomes 1.

    Raises:
        UsageError: if a label is missing; the sentence names the row.
    """
    values = split.values(column)
    for row, value in enumerate(values):
        if is_empty(value):
            raise UsageError(
                f"{split.row_name(row)} has no label in column {quoted(column)}; fill it in, drop the row, or drop "
                "all such rows with --drop_unlabelled"
            )
    if reading.delimiter is not None:
        return _divided(values, split, reading.delimiter)
    values = _typed(values, split) if split.kind == "csv" else values
    if reading.is_regression is False:
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return values


def _divided(values: list[Any], split: Split, delimiter: str) -> list[list[Any]]:
    """Divide texts at a delimiter; classes that are all whole numbers become ints."""
    rows = []
    for row, value in enumerate(values):
        words = [word.strip() for word in value.split(delimiter)] if isinstance(value, str) else None
        if words is None:
            raise UsageError(
                f"{split.row_name(row)}: the label {quoted(value)} is no text that --label_delimiter can divide"
            )
        if not all(words):
            raise UsageError(
                f"{split.row_name(row)}: the label {quoted(value)} has nothing on one side of {quoted(delimiter)}; "
                "correct it"
            )
        rows.append(words)
    are_numbers = all(INTEGER.fullmatch(word) for words in rows for word in words)
    return [[int(word) for word in words] for words in rows] if are_numbers else rows


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _typed(cells: list[str], split: Split) -> list[Any]:
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        return [_list_of(cell, split, row) for row, cell in enumerate(cells)]
    if all(INTEGER.fullmatch(cell.strip()) for cell in cells):
        return [int(cell) for cell in cells]
    is_word = [cell.strip().lower() in MISSING_WORDS for cell in cells]
    others = [parse_float(cell) for cell, word in zip(cells, is_word, strict=True) if not word]
    if None in others or not others:
        return cells
    if any(is_word):
        row = is_word.index(True)
        raise UsageError(
            f"{split.row_name(row)}: the label {quoted(cells[row])} is not a number, but the others are; drop the "
            "row, or drop all such rows with --drop_unlabelled"
        )
    return others


def row_weights(split: Split, column: str) -> NDArray[np.float32]:
    """Read the weight of each row in the loss, `[rows]`.

    Raises:
        UsageError: if the column does not exist, a weight is no number of at least 0 (the sentence names the row), or
            all are 0.
    """
    require_column(split, column, "weight column", "--weight_column_name")
    distinct, positions = split.distinct([column])
    weights = []
    for row, value in enumerate(distinct.values(column)):
        number = parse_float(value) if isinstance(value, str) else value
        if not is_number(number) or not 0 <= number <= LARGEST_SCORE:
            raise UsageError(
                f"{distinct.row_name(row)}: the weight {quoted(value)} in column {quoted(column)} should be a finite "
                "number of at least 0"
            )
        weights.append(number)
    if not any(weights):
        raise UsageError(
            f"{split.source} has the weight 0 in column {quoted(column)} in all rows to train on; give some of them a "
            "weight above 0"
        )
    return np.array(weights, dtype=np.float32)[positions]


def _list_of(cell: str, split: Split, row: int) -> list[Any]:
    try:
        # Python's own way to write a list, which is what pandas leaves in a CSV file, covers JSON's for these lists.
        return ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UsageError(
            f'{split.row_name(row)}: the label {cut(cell)} should be a list such as ["red", "round"] or [0, 2]'
        ) from error


def are_indicators(rows: Sequence[Sequence[Any]], size: int) -> bool:
    """Whether lists of labels have a 0 or 1 for each class, in place of the names or ids of the row's classes.

    Example:
        >>> are_indicators([[0, 1, 1], [0, 0, 0]], 3), are_indicators([[0, 2], [1]], 3)
        (True, False)
    """
    return size > 1 and all(len(row) == size and all(map(_is_bit, row)) for row in rows)


def _is_bit(value: Any) -> bool:
    return isinstance(value, (int, float)) and value in (0, 1)


def bit(value: Any) -> float | None:
    """The 0 or 1 that a cell holds, also as true or false."""
    if isinstance(value, str):
        return {"true": 1.0, "false": 0.0}.get(value.strip().lower())
    return float(value) if _is_bit(value) else None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
