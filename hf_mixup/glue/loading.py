"""Reading the data: local CSV and JSON files, or data sets of the Hub, as splits with named columns."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, DatasetInfo, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from sklearn.model_selection import train_test_split

from hf_mixup.errors import UsageError, as_one_line, cut, first_line, listed, nearest, quoted, repeated
from hf_mixup.glue.tasks import Task

_ENDINGS = (".csv", ".json", ".jsonl")
_GLUE_DATASET = "nyu-mll/glue"
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One split of the data as it stands in its source, before anything is tokenized.

    Attributes:
        data: the columns: a data set of the Hub, or lists for a local file.
        source: what messages call it, for example `train.csv`.
        kind: `csv` (every cell is text), `json` or `hub`.
        rows: the numbers of its rows in the source, from 1, for messages.
    """

    data: Dataset | dict[str, list[Any]]
    source: str
    kind: str
    rows: Sequence[int]

    @property
    def columns(self) -> list[str]:
        """The names of the columns in their order."""
        return list(self.data.column_names) if isinstance(self.data, Dataset) else list(self.data)

    def __contains__(self, column: str) -> bool:
        return column in (self.data.column_names if isinstance(self.data, Dataset) else self.data)

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> list[Any]:
        """All values of a column."""
        return list(self.data[column])

    def feature(self, column: str) -> Any:
        """How the Hub describes a column (its class names, for example); None for a local file."""
        return self.data.features[column] if isinstance(self.data, Dataset) else None

    def row_name(self, position: int) -> str:
        """Name a row for a message, for example `train.csv, row 3`."""
        return f"{self.source}, row {self.rows[position]}"

    def select(self, positions: Sequence[int]) -> Split:
        """Return the split with these rows only, in this order."""
        if isinstance(self.data, Dataset):
            data: Dataset | dict[str, list[Any]] = self.data.select(positions)
        else:
            data = {name: [values[i] for i in positions] for name, values in self.data.items()}
        return Split(data, self.source, self.kind, [self.rows[i] for i in positions])

    def head(self, limit: int | None) -> Split:
        """Return the first `limit` rows; all of them for None."""
        return self if limit is None or limit >= len(self) else self.select(range(limit))

    def texts(self, text_columns: Sequence[str], split_name: str) -> Dataset:
        """Return a data set of the text columns alone.

        Raises:
            UsageError: if a text is missing (in a local file also: empty) or is no text.
        """
        for column in text_columns:
            require_column(self, column, "text column", "--text_column_names")
        checked = {column: self._checked_texts(column) for column in text_columns}
        if isinstance(self.data, Dataset):
            return self.data.select_columns(list(text_columns))
        return Dataset.from_dict(checked, info=DatasetInfo(builder_name=self.kind), split=split_name)

    def _checked_texts(self, column: str) -> list[str]:
        if not _may_hold_texts(self, column):
            raise UsageError(
                f"{self.source} has {cut(str(self.feature(column)))} in column {quoted(column)}, which is no text; "
                "name the columns that hold texts with --text_column_names"
            )
        texts = self.values(column)
        for position, text in enumerate(texts):
            if text is None or (self.kind != "hub" and isinstance(text, str) and not text.strip()):
                raise UsageError(
                    f"{self.row_name(position)} has no text in column {quoted(column)}; fill it in or drop the row"
                )
            if not isinstance(text, str):
                raise UsageError(
                    f"{self.row_name(position)} has {quoted(text)} in column {quoted(column)}, which is no text; "
                    "name the columns that hold texts with --text_column_names"
                )
        return texts


def require_column(split: Split, column: str, role: str, flag: str) -> None:
    """Check that a split has a column.

    Raises:
        UsageError: if not; the sentence lists the columns it has and names the nearest one.
    """
    if column in split:
        return
    if len(split.columns) == 1:
        raise UsageError(
            f"{split.source} has only the column {quoted(split.columns[0])}; a text column and a label column are "
            "needed"
        )
    guess = nearest(column, split.columns)
    hint = f"; did you mean {flag} {guess}?" if guess else f"; name yours with {flag}"
    raise UsageError(f"{split.source} has no {role} {quoted(column)}, its columns are {listed(split.columns)}{hint}")


# ---- Local files ------------------------------------------------------------------------------------------------


def check_file(path: str, flag: str) -> None:
    """Check what can be known about a data file without reading all of it.

    Raises:
        UsageError: if it does not exist, is a folder, is empty, or is neither CSV nor JSON by its name.
    """
    if not path.lower().endswith(_ENDINGS):
        raise UsageError(f"{flag} {path} should be a file that ends in .csv, .json or .jsonl")
    file = Path(path)
    if not file.exists():
        raise UsageError(f"{flag} {path} does not exist; check the path")
    if not file.is_file():
        raise UsageError(f"{flag} {path} is not a file; give a CSV or JSON file")
    if file.stat().st_size == 0:
        raise UsageError(f"{flag} {path} is empty; it should have rows with a text and a label")


def load_local_split(path: str) -> Split:
    """Read a CSV or JSON file.

    CSV: UTF-8, comma-separated, with a header; every cell stays the text it is, so that `NA` or `None` may be a text
    or a class. JSON: one object per line, or one list of objects; keys that a row lacks are missing values.

    Raises:
        UsageError: if the file cannot be read, is broken, or has no rows.
    """
    kind = "csv" if path.lower().endswith(".csv") else "json"
    read: Callable[[str], dict[str, list[Any]]] = _read_csv if kind == "csv" else _read_json
    try:
        data = read(path)
    except MemoryError as error:
        raise UsageError(f"{path} does not fit into the memory of this machine; give a part of it") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it with the encoding UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or first_line(error)}") from error
    size = len(next(iter(data.values()), []))
    if size == 0:
        raise UsageError(f"{path} has no rows; it should have rows with a text and a label")
    split = Split(data, Path(path).name, kind, range(1, size + 1))
    _check_rows(split)
    return split


def _read_csv(path: str) -> dict[str, list[str | None]]:
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        header = pd.read_csv(path, header=None, nrows=1, **options).iloc[0].str.strip().tolist()
        _check_header(header, path)
        frame = pd.read_csv(path, **options)
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{path} is empty; it should have a header and rows with a text and a label") from error
    except pd.errors.ParserError as error:
        raise UsageError(f"{path} is not a valid CSV file: {_quoted_parser_error(error)}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise UsageError(f"{path} has rows with more cells than its header; quote the texts that hold commas")
    # A column without a name has the one that pandas gives it.
    frame.columns = [name or given for name, given in zip(header, frame.columns, strict=True)]
    # Rows that are too short end in missing cells: nan, which would otherwise pass for a value.
    return {str(name): [cell if isinstance(cell, str) else None for cell in frame[name]] for name in frame}


def _quoted_parser_error(error: pd.errors.ParserError) -> str:
    return cut(as_one_line(error).rpartition("error: ")[2], 400)


def _check_header(names: list[str], path: str) -> None:
    twice = repeated(filter(None, names))
    if twice is not None:
        raise UsageError(f"{path} has the column {quoted(twice)} twice; rename or drop one of them")
    for mark, kind in ((";", "semicolon"), ("\t", "tab")):
        if len(names) == 1 and mark in names[0]:
            raise UsageError(
                f"{path} has only the column {quoted(names[0])}: it looks {kind}-separated; this script reads commas"
            )


def _read_json(path: str) -> dict[str, list[Any]]:
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else _read_json_lines(text, path)
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {_json_fault(error)}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{path}, row {number} is not an object with named values, such as {{...}}")
        if _has_half_character(row):
            raise UsageError(
                f"{path}, row {number} has half of a character (a lone \\ud800 to \\udfff); mend or drop the row"
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _has_half_character(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_json_lines(text: str, path: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                if number == 1 and _is_one_object(text):
                    raise UsageError(_one_object_sentence(path)) from error
                raise UsageError(
                    f"{path}, line {number} is not valid JSON ({getattr(error, 'msg', _json_fault(error))}); "
                    "the file should hold one object per line, or one list of objects"
                ) from error
    return rows


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # Of the numbers, Python reads those of 4,300 digits and less.
    return "it has a number of too many digits" if "digits" in str(error) else first_line(error)


def _is_one_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _one_object_sentence(source: str) -> str:
    return (
        f"{source} holds all rows in one object, column by column or under one key; write one object per line, with "
        'pandas by df.to_json(path, orient="records", lines=True)'
    )


def _check_rows(split: Split) -> None:
    """Check that a split is not one object that holds all rows, as `df.to_json(path)` writes them.

    Raises:
        UsageError: if it is.
    """
    columns = [column for column in split.columns if len(split) == 1 and _may_hold_texts(split, column)]
    if columns and all(isinstance(split.values(column)[0], (dict, list)) for column in columns):
        raise UsageError(_one_object_sentence(split.source))


# ---- Data sets of the Hub ---------------------------------------------------------------------------------------


def load_hub_splits(name: str, config_name: str | None, cache_dir: str | None, token: str | None) -> dict[str, Split]:
    """Load all splits of a data set of the Hub, or of a folder of data files or of `save_to_disk`.

    Raises:
        UsageError: if it does not exist, cannot be reached, is broken, has no such configuration, or an empty split.
    """
    if Path(name).is_file():
        raise UsageError(f"--dataset_name {name} is a file; give a CSV or JSON file with --train_file, or a folder")
    if not Path(name).exists() and (Path(name).is_absolute() or name.startswith((".", "~"))):
        raise UsageError(f"the folder {name} does not exist; check --dataset_name")
    what = f"{name} ({config_name})" if config_name else name
    saved = any((Path(name) / file).is_file() for file in _SAVED_TO_DISK)
    if saved and config_name:
        raise UsageError(
            f"--dataset_name {name} is a folder of save_to_disk, which has no configurations; leave "
            f"--dataset_config_name {config_name} out"
        )
    try:
        # In memory, as local files are: else what is computed from the rows would be written into that folder.
        loaded = (
            load_from_disk(name, keep_in_memory=True)
            if saved
            else load_dataset(name, config_name, cache_dir=cache_dir, token=token)
        )
    except Exception as error:
        # Beside its own exceptions there are those of every reader of files: pandas, pyarrow, zipfile, PyYAML, ...
        # This one says no more than that something happened; what the reader said is its cause.
        said = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        if isinstance(said, MemoryError) or getattr(said, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise said from None
        raise UsageError(f"the data set {what} could not be loaded{_reason(said, Path(name).exists())}") from error
    if isinstance(loaded, Dataset):
        # One that was cut out of a data set knows which split it was.
        loaded = DatasetDict({str(loaded.split) if loaded.split in _SPLITS else "train": loaded})
    splits = {}
    for split, data in loaded.items():
        splits[split] = Split(data.with_format(None), f"{name}, split {split}", "hub", range(1, len(data) + 1))
        if not len(data):
            raise UsageError(
                f"{splits[split].source} has no rows; give it rows, or leave the split out of the data set"
            )
        _check_rows(splits[split])
    return splits


def _reason(error: BaseException, is_local: bool) -> str:
    """Why a data set could not be loaded, and what helps."""
    said = as_one_line(error).removeprefix("An error occurred while generating the dataset ").rstrip(".! ")
    text = cut(said, 400) or type(error).__name__
    if isinstance(error, IndexError):
        # This is how load_from_disk fails for a split that was saved without rows.
        text = "one of its splits has no rows"
    if "Config name is missing" in text or "BuilderConfig" in text:
        return f": {text}; give its configuration with --dataset_config_name"
    if is_local:
        return f": {text}; correct the files in that folder"
    return f" from the Hub: {text}; without a network give local files with --train_file and --validation_file"


def load_glue_splits(task: Task, cache_dir: str | None, token: str | None) -> dict[str, Split]:
    """Load all splits of a GLUE task from the Hub; see `load_hub_splits`."""
    return load_hub_splits(_GLUE_DATASET, task.name, cache_dir, token)


# ---- Columns ----------------------------------------------------------------------------------------------------


def choose_text_columns(
    split: Split, label_columns: Sequence[str], requested: tuple[str, ...] | None, task: Task | None
) -> tuple[str, ...]:
    """Decide which one or two columns hold the texts.

    The requested ones; else the task's; else `sentence1` and `sentence2`; else the first two, or the only one, of the
    columns that are neither labels nor numbers.

    Raises:
        UsageError: if there are none, or a chosen one does not exist or is a label.
    """
    if requested is not None:
        if len(requested) > 2:
            raise UsageError(
                f"--text_column_names takes one or two columns, got {len(requested)}: {listed(requested)}"
            )
        for column in requested:
            if column in label_columns:
                raise UsageError(
                    f"column {quoted(column)} is named both by --text_column_names and --label_column_name"
                )
            require_column(split, column, "text column", "--text_column_names")
        return requested
    if task is not None:
        for column in task.text_columns:
            require_column(split, column, f"text column of task {task.name}", "--text_column_names")
        return task.text_columns
    labels = set(label_columns)
    others = [name for name in split.columns if name not in labels]
    if "sentence1" in others and "sentence2" in others:
        return ("sentence1", "sentence2")
    texts = text_columns(split, others)
    if not texts:
        raise UsageError(
            f"{split.source} has no text column beside the label, its columns are {listed(split.columns)}; "
            "a column of texts and a column of labels are needed"
        )
    return tuple(texts[:2])


def text_columns(split: Split, columns: Iterable[str]) -> list[str]:
    """Return those of the columns that hold texts, and not lists or (running) numbers, also written as text."""
    return [name for name in columns if _may_hold_texts(split, name) and _looks_like_text(split.values(name))]


def _may_hold_texts(split: Split, column: str) -> bool:
    """Whether the values of a column may be texts; images and the like are not even decoded."""
    feature = split.feature(column)
    return feature is None or not hasattr(feature, "decode_example") or type(feature).__name__ == "Json"


def _looks_like_text(values: Iterable[Any]) -> bool:
    texts = (value for value in values if isinstance(value, str))
    return any(text.strip() and parse_float(text) is None for text in texts)


def parse_float(text: str) -> float | None:
    """Read a number as it stands in a CSV cell; None if the cell is no number.

    Example:
        >>> parse_float("5.000"), parse_float("five")
        (5.0, None)
    """
    try:
        # float() also takes 1_000, which in a file is a name and not a number.
        return None if "_" in text else float(text)
    except ValueError:
        return None


# ---- A validation set out of train ------------------------------------------------------------------------------


def split_off_validation(train: Split, share: float, seed: int, classes: Sequence[Any] | None) -> tuple[Split, Split]:
    """Take a share of the train rows away as a validation set.

    The draw depends on the seed alone. With `classes` (one per row) it is stratified: each class gives its share; the
    only row of a class stays in train. Where there are too few rows for that, it is a plain draw. Both parts keep the
    order of the file.

    Args:
        train: the rows to divide.
        share: how much goes to validation, above 0 and below 1.
        seed: any non-negative integer.
        classes: the class of each row, or None for labels without classes.

    Returns:
        train and validation.

    Raises:
        UsageError: if the share is out of range or leaves one of the two parts empty.
    """
    if not 0.0 < share < 1.0:
        raise UsageError(f"--validation_split should be above 0 and below 1, got {share}")
    size = round(share * len(train))
    if not 0 < size < len(train):
        raise UsageError(
            f"--validation_split {share} of {len(train)} rows leaves no rows for "
            f"{'validation' if size == 0 else 'train'}; choose another share"
        )
    kept, taken = _draw(len(train), size, seed, classes)
    source = f"the validation part of {train.source}"
    validation = train.select(taken)
    return train.select(kept), Split(validation.data, source, validation.kind, validation.rows)


def _draw(total: int, size: int, seed: int, classes: Sequence[Any] | None) -> tuple[list[int], list[int]]:
    positions = np.arange(total)
    if classes is not None:
        _, ids, counts = np.unique(np.asarray(classes, dtype=str), return_inverse=True, return_counts=True)
        repeated = positions[counts[ids] > 1]
        number = int(np.sum(counts > 1))
        if number > 0 and size >= number and len(repeated) - size >= number:
            _, taken = train_test_split(repeated, test_size=size, random_state=seed, stratify=ids[repeated])
            return np.setdiff1d(positions, taken).tolist(), np.sort(taken).tolist()
    _, taken = train_test_split(positions, test_size=size, random_state=seed)
    return np.setdiff1d(positions, taken).tolist(), np.sort(taken).tolist()
