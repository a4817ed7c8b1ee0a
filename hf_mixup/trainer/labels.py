"""The labels of a data set, looked at before a training starts and not by the device in the middle of it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import torch

from hf_mixup.mixing import infer_problem_type
from hf_mixup.mixing.objectives import IGNORE_INDEX, MULTI_LABEL, check_labels, has_several
from hf_mixup.trainer.rows import is_dataset

SINGLE_LABEL = "single_label_classification"
COLUMNS = ("label", "labels", "label_ids")


def check_train_labels(dataset: Any, collator: Any, config: Any) -> bool | None:
    """Raise for labels that the model cannot be trained with, and say whether some are missing.

    Only what is sure and cheap to read is checked: the label column of a `datasets.Dataset` without a transform, that
    goes to the model through one of transformers' own collators.

    Args:
        dataset: what the training reads.
        collator: what makes batches of its rows.
        config: the model's.

    Returns:
        Whether some labels are -100, which means no label; None where the labels were not looked at.

    Raises:
        ValueError: in one sentence that names the first row that is wrong.
    """
    own_collator = (getattr(collator, "__module__", None) or "").split(".")[0] != "transformers"
    if own_collator or not is_dataset(dataset) or dataset.format["type"] == "custom":
        return None
    missing: list[bool] = []
    for column in (name for name in COLUMNS if name in dataset.column_names and len(dataset)):
        labels = _as_tensor(column, dataset.with_format(None)[column][:], config.problem_type)
        problem_type = config.problem_type or infer_problem_type(config.num_labels, labels)
        try:
            check_labels(labels, problem_type, config.num_labels)
        except ValueError as error:
            raise ValueError(f"train_dataset[{column!r}]: {error}") from error
        unlabelled = (labels == IGNORE_INDEX) & (problem_type != "regression")
        missing.append(bool(unlabelled.any()))
        if unlabelled.all():
            raise ValueError(
                f"No row of the train_dataset has a label: all values of its column {column!r} are {IGNORE_INDEX}; "
                "give the labels."
            )
    return any(missing) if missing else None


class CheckedClasses:
    """A collator that looks at the class ids of its batches, while they are on the CPU.

    A device would end the process for one that the model does not have, and say nothing of the row.

    Args:
        collator: what makes the batches.
        config: that of the model.
        what: which data set the sentence names.

    Raises:
        ValueError: in a call, for a class id that the model does not have.
    """

    def __init__(self, collator: Any, config: Any, what: str) -> None:
        self.collator, self.what = collator, what
        self.num_labels, self.problem_type = getattr(config, "num_labels", 1), getattr(config, "problem_type", None)

    def __call__(self, rows: list[Any]) -> Any:
        batch = self.collator(rows)
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        if isinstance(labels, torch.Tensor) and self.num_labels > 1 and self.problem_type in (None, SINGLE_LABEL):
            labels = as_loss_takes(labels, self.problem_type)
            if not labels.is_floating_point():
                try:
                    check_labels(labels, SINGLE_LABEL, self.num_labels)
                except ValueError as error:
                    raise ValueError(f"A batch of the {self.what}: {error}") from error
        return batch


def check_has_rows(dataset: Any, what: str) -> None:
    """Raise a ValueError for a data set without rows."""
    if isinstance(dataset, Sized) and len(dataset) == 0:
        raise ValueError(f"The {what} has no rows: give it at least one.")


def as_loss_takes(labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """The labels of a batch in the type that the loss of transformers' heads takes.

    Args:
        labels: class ids or scores `[batch]`, or one number for each class `[batch, classes]`, of any type.
        problem_type: the config's; None while the head has not inferred it.

    Returns:
        Floats where each row has several numbers or the problem is `multi_label_classification`; class ids as int64
        `[batch]`; floats as they are.

    Example:
        >>> as_loss_takes(torch.tensor([[1, 0]]), "multi_label_classification")
        tensor([[1., 0.]])
    """
    if labels.is_floating_point():
        return labels
    if problem_type == MULTI_LABEL or has_several(labels):
        return labels.float()
    # The heads take class ids `[batch, 1]` too.
    return labels.long() if problem_type == "regression" else labels.long().reshape(-1)


def _as_tensor(column: str, values: list[Any], problem_type: str | None) -> torch.Tensor:
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        raise ValueError(
            f"Row {missing} of the train_dataset has no label in its column {column!r}: drop the row, or give "
            f"{IGNORE_INDEX} for a row without label."
        )
    try:
        labels = torch.tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The column {column!r} of the train_dataset holds labels such as {values[0]!r}, which are not numbers of "
            "one shape: give class ids, such as dataset.class_encode_column makes, or lists of the same length."
        ) from error
    return as_loss_takes(labels, problem_type)
