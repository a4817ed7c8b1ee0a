"""The data of one cell: the same train subset, held-out rows and wrong labels for every method."""

from __future__ import annotations

import csv
import json
import logging
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hf_mixup.compare.grid import Cell, Task
from hf_mixup.errors import UsageError
from hf_mixup.glue.arguments import split_names
from hf_mixup.glue.labels import Labels, class_feature, infer_labels
from hf_mixup.glue.loading import Split, choose_text_columns, load_local_split, split_off_validation
from hf_mixup.glue.tasks import get_task
from hf_mixup.glue.traps import class_name_traps, text_column_traps, whole_score_traps

logger = logging.getLogger(__name__)

_TRIES = 1000
_LEAST_ROWS, _LEAST_OF_A_CLASS = 20, 5


@dataclass(frozen=True)
class CellData:
    """What a cell trains on and is measured on.

    Args:
        labels: kind and classes.
        text_columns: the one or two columns of the texts.
        splits: `train`, `validation`, `test`, and `ood` if the task has it.
        true_classes: the true class of each train row, where some of the train labels are known to be wrong, `[rows]`.
        given_classes: the classes that are trained on where they are not those of the file, `[rows]`.
    """

    labels: Labels
    text_columns: tuple[str, ...]
    splits: dict[str, Split]
    true_classes: NDArray[np.int64] | None
    given_classes: NDArray[np.int64] | None = None

    @property
    def wrong_labels(self) -> int | None:
        """How many of the train labels are wrong; None where that is not known."""
        return None if self.true_classes is None else int((self.encoded("train") != self.true_classes).sum())

    def texts(self, split: str) -> list[tuple[str, ...]]:
        """The texts of each row, one or two."""
        return list(zip(*(self.splits[split].values(column) for column in self.text_columns), strict=True))

    def encoded(self, split: str) -> NDArray:
        """The labels as the model has them: class ids, or scores; of the train rows those trained on. `[rows]`."""
        if split == "train" and self.given_classes is not None:
            return self.given_classes
        return np.array(self.labels.encode(self.splits[split]))

    def write(self, folder: Path) -> dict[str, Path]:
        """Write train and validation as the files that `run_glue_mixup.py` reads, and return their flags."""
        files = {}
        for name in ("train", "validation"):
            labels = self.encoded(name).tolist()
            if self.labels.kind == "single":
                labels = [self.labels.names[label] for label in labels]
            names = (*self.text_columns, self.labels.columns[0])
            rows = (
                dict(zip(names, (*texts, label), strict=True))
                for texts, label in zip(self.texts(name), labels, strict=True)
            )
            files[f"{name}_file"] = folder / f"{name}.jsonl"
            files[f"{name}_file"].write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return files


def load_cell_data(task: Task, cell: Cell) -> CellData:
    """Read the files of a task and draw what the cell trains on.

    The held-out rows, the subset and the wrong labels depend on the task and the seed, and not on the method or the
    model. Subsets are stratified and hold each class. Of those given as rows or shares a larger one holds the smaller
    one of the same seed, and so do those given as shots.

    Raises:
        UsageError: the files do not fit, or the subset is too small for its classes.
    """
    labels, text_columns, splits = _load(task)
    classes = labels.encode(splits["train"]) if labels.kind == "single" else None
    # Rows by their positions, so that true labels in another file can follow.
    rows = np.arange(len(splits["train"]))
    if "validation" not in splits:
        kept, held_out = split_off_validation(splits["train"], task.validation_split, cell.seed, classes)
        rows = np.asarray(kept.rows) - 1
        splits["validation"] = splits["train"].select(np.asarray(held_out.rows) - 1)
    if classes is not None:
        order = stratified_order(np.array(classes)[rows], _generator(task, cell, "subset"))
    else:
        order = _generator(task, cell, "subset").permutation(len(rows))
    rows = rows[_first_rows(order, cell.size, classes and np.array(classes)[rows], task)]
    train, true_classes, given = splits["train"].select(np.sort(rows)), None, None
    if "clean_train" in splits:
        true_classes = np.array(labels.encode(splits["clean_train"]))[np.sort(rows)]
    if cell.noise:
        own = np.array(labels.encode(train))
        true_classes = own if true_classes is None else true_classes
        given = flip_labels(own, labels.num_labels, cell.noise, _generator(task, cell, "noise"))
    return CellData(labels, text_columns, {**splits, "train": train}, true_classes, given)


def split_off_test(task: Task, share: float, most: int, folder: Path) -> Task:
    """Divide the train file of a task without test file; the draw is the same each time, and stratified.

    A text that stands in several rows is in one of the two parts only, and once in the test rows: a model has not seen
    what it is tested on.

    Args:
        task: its `files` are `train` alone.
        share: how many of the different texts become test rows, above 0 and below 1.
        most: but not more of them than this.
        folder: where the two files go.

    Returns:
        The task with these files.

    Raises:
        UsageError: the file or its columns and labels do not fit.
    """
    labels, text_columns, splits = _load(task)
    whole = splits["train"]
    encoded = labels.encode(whole)
    if len(set(encoded)) < 2:
        raise UsageError(f"{whole.source} has the label {encoded[0]} in every row; there is nothing to learn")
    texts = list(zip(*map(whole.values, text_columns), strict=True))
    first = sorted({text: position for position, text in reversed(list(enumerate(texts)))}.values())
    needed = max(_LEAST_ROWS, _LEAST_OF_A_CLASS * labels.num_labels)
    if len(first) < needed:
        raise UsageError(
            f"{whole.source} has {len(first)} rows with different texts, some of which are held out; give at least "
            f"{needed} ({_LEAST_ROWS} in all and {_LEAST_OF_A_CLASS} for each of its {labels.num_labels} classes)"
        )
    classes = [encoded[position] for position in first] if labels.kind == "single" else None
    _, test = split_off_validation(whole.select(first), min(share, most / len(first)), 0, classes)
    tested = set(zip(*map(test.values, text_columns), strict=True))
    train = whole.select([position for position, text in enumerate(texts) if text not in tested])
    files = {}
    for name, part in (("train", train), ("test", test)):
        columns = {column: part.values(column) for column in (*text_columns, *labels.columns)}
        described = class_feature(part, labels.columns[0])
        if described is not None:
            columns[labels.columns[0]] = described.int2str(columns[labels.columns[0]])
        # Whether "1" is a name or a number depends on the format, which therefore stays.
        if whole.kind == "csv":
            files[name] = str(folder / f"{name}.csv")
            # All in quotation marks: a carriage return within a text would otherwise end its row.
            pd.DataFrame(columns, dtype=object).to_csv(files[name], index=False, quoting=csv.QUOTE_ALL)
        else:
            files[name] = str(folder / f"{name}.jsonl")
            rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
            Path(files[name]).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return replace(task, files=files)


def check_task(task: Task, sizes: Sequence[str], noise: Sequence[float]) -> None:
    """Check that the columns and labels of a task's files fit, and the sizes and the noise of the grid with them.

    What is allowed but likely a mistake is a warning in the log.

    Raises:
        UsageError: if not.
    """
    try:
        labels, text_columns, splits = _load(task)
    except UsageError as error:
        raise UsageError(_about(task, str(error))) from error
    warnings = class_name_traps(labels.names)
    if task.task_name is None:
        if task.text_column_names is None:
            warnings += text_column_traps(splits["train"], labels.columns, text_columns)
        if labels.kind == "regression":
            warnings += whole_score_traps(splits["train"], labels.columns[0])
    for warning in warnings:
        logger.warning(_about(task, warning))
    if labels.kind == "regression":
        shots = next((size for size in sizes if size.endswith("-shot")), None)
        if shots or any(noise):
            what = f"--sizes {shots}" if shots else "--noise"
            raise UsageError(f"{what} is for classes, and the labels of the task {task.name} are scores; leave it out")
    for size in sizes:
        # Stratified parts of other seeds have the same sizes, or nearly so.
        load_cell_data(task, Cell(task.name, "", size, max(noise), "", seed=1))


def _about(task: Task, sentence: str) -> str:
    # Its columns are named in the grid, where they are no flags.
    text = re.sub(r"--(text_column_names|label_column_name)", r"\1", sentence)
    return f"the task {task.name}: {text}"


def stratified_order(classes: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Order rows at random so that the first ones, however many, have the classes in their shares.

    One row of each class comes first; after these the k-th row of a class with n rows stands at (k + 1/2) / n.

    Args:
        classes: the class of each row, `[rows]`.
        generator: the source of the draw.

    Returns:
        The positions of the rows in the new order, `[rows]`.

    Example:
        >>> order = stratified_order(np.array([0, 0, 0, 0, 1, 1]), np.random.default_rng(0))
        >>> sorted(np.array([0, 0, 0, 0, 1, 1])[order[:3]].tolist())
        [0, 0, 1]
    """
    shuffled = generator.permutation(len(classes))
    ranks, sizes = _ranks(classes[shuffled])
    place = np.where(ranks == 0, 0, (ranks + 0.5) / sizes)
    return shuffled[np.argsort(place, kind="stable")]


def _ranks(classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many rows of its class stand before each row, and how many its class has, each `[rows]`."""
    order = np.argsort(classes, kind="stable")
    _, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
    ranks, sizes = np.empty((2, len(classes)), dtype=np.int64)
    ranks[order] = np.arange(len(classes)) - np.repeat(starts, counts)
    sizes[order] = np.repeat(counts, counts)
    return ranks, sizes


def flip_labels(
    classes: NDArray[np.int64], num_classes: int, share: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Give a share of the rows, drawn at random, another class, each other class being equally likely.

    The rows of a smaller share are among those of a larger one of the same generator. Every class keeps a row: a draw
    that leaves one empty is made anew.

    Args:
        classes: the class of each row, `[rows]`.
        num_classes: the number of classes.
        share: how many of the rows, from 0 to 1; rounded to whole rows.
        generator: the source of the draw.

    Returns:
        The classes with the wrong ones in them, `[rows]`.

    Raises:
        UsageError: too few rows to keep each class.
    """
    present = np.unique(classes)
    for _ in range(_TRIES):
        wrong = generator.permutation(len(classes))[: round(share * len(classes))]
        shifts = generator.integers(1, num_classes, len(classes))
        flipped = classes.copy()
        flipped[wrong] = (classes + shifts)[wrong] % num_classes
        if np.bincount(flipped, minlength=num_classes)[present].all():
            return flipped
    raise UsageError(
        f"--noise {share:g} leaves no row of some class among {len(classes)} train rows; give less of it, or a larger "
        "--sizes"
    )


def _load(task: Task) -> tuple[Labels, tuple[str, ...], dict[str, Split]]:
    splits = {name: load_local_split(path) for name, path in task.files.items()}
    glue = get_task(task.task_name) if task.task_name else None
    columns = split_names(task.label_column_name, "label_column_name") or ("label",)
    labels = infer_labels(splits["train"], columns, glue)
    if labels.kind not in ("single", "regression"):
        raise UsageError(
            f"the labels of the task {task.name} are of the kind {labels.kind}; runs are compared on one class or one "
            "score a row"
        )
    requested = split_names(task.text_column_names, "text_column_names")
    text_columns = choose_text_columns(splits["train"], labels.columns, requested, glue)
    for name, split in splits.items():
        split.texts(text_columns)
        if name != "ood":
            labels.encode(split)
    clean = splits.get("clean_train")
    for column in text_columns if clean else ():
        if clean.values(column) != splits["train"].values(column):
            raise UsageError(
                f"clean_train_file of the task {task.name} should have the texts of train_file in the same order"
            )
    return labels, text_columns, splits


def _first_rows(
    order: NDArray[np.int64], size: str, classes: NDArray[np.int64] | None, task: Task
) -> NDArray[np.int64]:
    """The positions of the rows that a training size takes from the front of an order."""
    if size.endswith("-shot"):
        shots = int(size.removesuffix("-shot"))
        ranks, sizes = _ranks(classes[order])
        if sizes.min() < shots:
            raise UsageError(
                f"--sizes {size} asks for {shots} rows of each class, and the task {task.name} has a class with "
                f"{sizes.min()} beside its validation rows; give at most that"
            )
        return np.sort(order[ranks < shots])
    if size == "all":
        return order
    count = round(float(size[:-1]) / 100 * len(order)) if size.endswith("%") else int(size)
    needed = 1 if classes is None else len(np.unique(classes))
    if not needed <= count <= len(order):
        raise UsageError(
            f"--sizes {size} is {count} of the {len(order)} train rows that the task {task.name} has beside its "
            f"validation rows, and its {needed} classes need a row each; give another size"
        )
    return order[:count]


def _generator(task: Task, cell: Cell, purpose: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(f"{purpose} {task.name}".encode()), cell.seed])
