"""How much each row of the train data counts: their column `weight`, looked at before and while it is batched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hf_mixup.errors import quoted
from hf_mixup.mixing.objectives import check_row_weights
from hf_mixup.trainer.rows import is_dataset

WEIGHT = "weight"
_ALLOWED = "give finite numbers from 0 on, or rename the column or remove it"


def rows_differ(dataset: Any) -> bool | None:
    """Whether the rows count differently, by the column `weight` of the train data.

    Args:
        dataset: the train data; the values are read of a `datasets.Dataset` without a transform alone.

    Returns:
        False without the column, and where every weight is 1; None where only the batches will tell.

    Raises:
        ValueError: weights that are not finite numbers of at least 0, or all 0; the sentence names the first row.

    Example:
        >>> rows_differ([{"input_ids": [2, 3], "label": 0, "weight": 0.5}]) is None
        True
    """
    names = getattr(dataset, "column_names", None)
    if names is None or (is_dataset(dataset) and dataset.format["type"] == "custom"):
        return None
    if WEIGHT not in names:
        return False
    if not is_dataset(dataset):
        return True
    values = dataset.with_format(None)[WEIGHT][:]
    row = next((row for row, value in enumerate(values) if not isinstance(value, int | float)), None)
    if row is not None:
        raise _error(row, values[row])
    weights = np.asarray(values, dtype=np.float64)
    wrong = ~((weights >= 0) & (weights <= np.finfo(np.float32).max))
    if wrong.any():
        raise _error(int(wrong.argmax()), values[int(wrong.argmax())])
    if len(weights) and not weights.any():
        raise ValueError(
            f"Every row of the train_dataset has 0 in its column {WEIGHT!r}, so none would be trained on: "
            "give some rows a weight above 0."
        )
    return bool((weights != 1).any())


def _error(row: int, value: Any) -> ValueError:
    return ValueError(
        f"The column {WEIGHT!r} of the train_dataset says how much each row counts, but row {row} has "
        f"{quoted(value)}: {_ALLOWED}."
    )


class CheckedWeights:
    """A collator that looks at the weights of its rows, while they are on the CPU, and makes them float32.

    Args:
        collator: what makes the batches.

    Raises:
        ValueError: in a call, for weights that are not finite numbers of at least 0, or that the collator leaves out.
    """

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, rows: list[Any]) -> Any:
        given = [row[WEIGHT] for row in rows if isinstance(row, Mapping) and WEIGHT in row]
        odd = [value for value in given if value is None or isinstance(value, str)]
        if odd:
            raise ValueError(
                f"The column {WEIGHT!r} of the train_dataset says how much each row counts, but a row has "
                f"{quoted(odd[0])}: {_ALLOWED}."
            )
        batch = self.collator(rows)
        weights = batch.get(WEIGHT) if isinstance(batch, Mapping) else None
        if weights is None and not given:
            return batch
        if not isinstance(weights, Tensor):
            raise ValueError(
                f"The data_collator makes no tensor of numbers of the column {WEIGHT!r} of the train_dataset, which "
                "says how much each row counts: let it make one, or rename the column or remove it."
            )
        weights = weights.float()
        try:
            check_row_weights(weights, len(weights) if weights.ndim else 0)
        except ValueError as error:
            raise ValueError(f"A batch of the train_dataset: {error}") from error
        batch[WEIGHT] = weights
        return batch
