"""The data as splits with named columns: local files, or data sets of the Hub."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Value, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from hf_mixup.errors import UsageError, as_one_line, cut, listed, nearest, quoted
from hf_mixup.glue.tables import kind_of, one_object_sentence, read_file
from hf_mixup.glue.tasks import Task

_GLUE_DATASET = "nyu-mll/glue"
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")
_SPLITS = ("train", "validation", "test")
# Rows that are looked at together.
_BATCH = 10_000
# A character that is no white space: only texts without one are looked at in Python.
_VISIBLE = r"[!-~\pL\pN]"


@dataclass(frozen=True)
class Split:
    """One split of the data as it is in its source, before anything is tokenized.

    Attributes:
        data: all rows of the source; of a local file as `hf_mixup.glue.tables` reads them.
        source: what messages call it, for example `train.csv`.
        kind: `csv` (every cell is text), `json`, `parquet` or `hub`.
        rows: which of the rows of the source are in the split, counted from 1; a range where it is all of them.
        files: the files that it was read from, if there are several, each with its number of rows.
    """

    data: Dataset
    source: str
    kind: str
    rows: Sequence[int]
    files: tuple[tuple[str, int], ...] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns in their order."""
        return list(self._places)

    @cached_property
    def _places(self) -> dict[str, int]:
        """The position of each column, of which there may be thousands."""
        return {name: place for place, name in enumerate(self.data.column_names)}

    def __contains__(self, column: str) -> bool:
        return column in self._places

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_whole(self) -> bool:
        """Whether it has all rows of the source in their order."""
        return isinstance(self.rows, range)

    def values(self, column: str) -> list[Any]:
        """All values of a column."""
        return [value for array in self.arrays(column) for value in self.decoded(column, array)]

    def arrays(self, column: str) -> Iterator[pa.Array]:
        """A column as it is in its table, some thousands of values at a time."""
        chunks = self.data.data.column(self._places[column]).chunks
        if self.is_whole:
            yield from chunks
            return
        ends = np.cumsum([0, *map(len, chunks)])
        for start in range(0, len(self), _BATCH):
            positions = np.asarray(self.rows[start : start + _BATCH]) - 1
            places = np.searchsorted(ends, positions, side="right") - 1
            used = np.unique(places)
            found = [chunks[place].take(pa.array((positions - ends[place])[places == place])) for place in used]
            order = np.concatenate([np.flatnonzero(places == place) for place in used])
            yield pa.concat_arrays(found).take(pa.array(np.argsort(order)))

    def decoded(self, column: str, array: pa.Array) -> list[Any]:
        """The values of a part of a column."""
        values = array.to_pylist()
        is_json = self.kind == "json" and pa.types.is_binary(array.type)
        if is_json or type(self.feature(column)).__name__ == "Json":
            return [None if value is None else json.loads(value) for value in values]
        return values

    def distinct(self, columns: Sequence[str]) -> tuple[Split, NDArray[np.int64]]:
        """The rows that differ in some columns, each where it comes first, and which of them each row is like.

        Returns:
            those rows, in their order, and for each row of this split its position among them, `[rows]`.
        """
        codes = np.zeros(len(self), dtype=np.int64)
        for column in columns:
            codes = _ranked(codes * (len(self) + 1) + self._codes(column))
        first = np.full(codes.max(initial=-1) + 1, len(self))
        np.minimum.at(first, codes, np.arange(len(self)))
        return self.select(first), codes

    def _codes(self, column: str) -> NDArray[np.int64]:
        """A number for each row, the same for equal values."""
        known: dict[str, int] = {}
        codes = [np.empty(0, dtype=np.int64)]
        for array in self.arrays(column):
            if pa.types.is_nested(array.type):
                array = pa.array([repr(value) for value in array.to_pylist()])
            encoded = array.dictionary_encode(null_encoding="encode")
            numbers = [known.setdefault(repr(value), len(known)) for value in encoded.dictionary.to_pylist()]
            codes.append(np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)])
        return np.concatenate(codes)

    def feature(self, column: str) -> Any:
        """How the data describe a column (its class names, for example); None for a CSV or JSON file."""
        return None if self.kind in ("csv", "json") else self.data.features[column]

    def row_name(self, position: int) -> str:
        """Name a row for a message, for example `train.csv, row 3`."""
        row = int(self.rows[position])
        for (name, size), end in zip(self.files, accumulate(size for _, size in self.files), strict=True):
            if row <= end:
                return f"{name}, row {row - end + size}"
        return f"{self.source}, row {row}"

    def select(self, positions: Sequence[int] | NDArray[np.int64]) -> Split:
        """Return the split with these rows only, in this order."""
        return replace(self, rows=np.asarray(self.rows)[np.asarray(positions, dtype=np.int64)])

    def head(self, limit: int | None) -> Split:
        """Return the first `limit` rows; all of them for None."""
        return self if limit is None or limit >= len(self) else self.select(np.arange(limit))

    def sample(self, size: int) -> Split:
        """Return at most so many rows, at even distances, in their order."""
        return self if len(self) <= size else self.select(np.linspace(0, len(self) - 1, size, dtype=np.int64))

    def texts(self, text_columns: Sequence[str]) -> Dataset:
        """Return a data set of the text columns alone.

        Raises:
            UsageError: if a text is missing (in a local file also: empty) or is no text.
        """
        for column in text_columns:
            require_column(self, column, "text column", "--text_column_names")
        for column in text_columns:
            self._check_texts(column)
        data = self.data.select_columns(list(text_columns))
        return data if self.is_whole else data.select(np.asarray(self.rows) - 1)

    def _check_texts(self, column: str) -> None:
        if not _may_hold_texts(self, column):
            raise UsageError(
                f"{self.source} has {cut(str(self.feature(column)))} in column {quoted(column)}, which is no text; "
                "name the columns that hold texts with --text_column_names"
            )
        for position, text in self._odd_texts(column):
            if text is None or (self.kind != "hub" and isinstance(text, str) and not text.strip()):
                raise UsageError(
                    f"{self.row_name(position)} has no text in column {quoted(column)}; fill it in or drop the row"
                )
            if not isinstance(text, str):
                raise UsageError(
                    f"{self.row_name(position)} has {quoted(text)} in column {quoted(column)}, which is no text; "
                    "name the columns that hold texts with --text_column_names"
                )

    def _odd_texts(self, column: str) -> Iterator[tuple[int, Any]]:
        """The values that may be no texts, each with its position."""
        start = 0
        for array in self.arrays(column):
            size = len(array)
            if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                seen = pc.match_substring_regex(array, _VISIBLE).fill_null(False)
                rows = np.flatnonzero(~seen.to_numpy(zero_copy_only=False))
                array = array.take(pa.array(rows))
            else:
                rows = np.arange(size)
            yield from zip((start + rows).tolist(), self.decoded(column, array), strict=True)
            start += size


def _ranked(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers from 0 in the order in which the codes come first."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[inverse]


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


def load_local_split(paths: str | Sequence[str], delimiter: str | None = None, cache_dir: str | None = None) -> Split:
    """Read a CSV, TSV, JSON or Parquet file, or several of one kind.

    CSV: UTF-8, comma-separated, with a header; every cell stays the text it is, so that `NA` or `None` may be a text
    or a class. TSV: the same with tabs. JSON: one object per line, or one list of objects; keys that a row lacks are
    missing values.

    Args:
        paths: the files, of kinds that `hf_mixup.glue.tables.check_file` admits.
        delimiter: the character between the cells of CSV and TSV files; default: a comma, in TSV files a tab.
        cache_dir: the folder of the cache of `datasets`.

    Raises:
        UsageError: if a file cannot be read, is broken, or has no rows, or the files do not go together.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    kinds = {kind_of(path) for path in paths}
    if len(kinds) > 1:
        raise UsageError(f"the files {listed(paths)} are of different kinds; give files of one kind")
    kind = kinds.pop()
    tables = [read_file(path, delimiter, cache_dir) for path in paths]
    names = [Path(path).name for path in paths]
    for table, name in zip(tables, names, strict=True):
        _check_rows(Split(table, name, kind, range(1, len(table) + 1)))
    _check_same_columns(paths, tables, kind)
    data = tables[0] if len(tables) == 1 else concatenate_datasets(tables)
    # So that transformers does not take it for a data set of the Hub.
    data.info.builder_name = kind
    source = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    files = tuple((name, len(table)) for name, table in zip(names, tables, strict=True)) if len(names) > 1 else ()
    return Split(data, source, kind, range(1, len(data) + 1), files)


def _check_same_columns(paths: Sequence[str], tables: Sequence[Dataset], kind: str) -> None:
    """Check that files can follow one another: the keys of JSON objects may be missing, columns may not.

    Raises:
        UsageError: if not.
    """
    found: dict[str, tuple[str, Any]] = {}
    for path, table in zip(paths, tables, strict=True):
        differing = set(tables[0].column_names) ^ set(table.column_names)
        if differing and kind != "json":
            raise UsageError(
                f"{paths[0]} and {path} do not have the same columns (only one has {listed(sorted(differing))}); give "
                "files with the same columns"
            )
        for name, feature in table.features.items():
            # A column without a value goes with all others.
            if feature != Value("null") and found.setdefault(name, (path, feature))[1] != feature:
                raise UsageError(
                    f"{found[name][0]} and {path} have values of different types in the column {quoted(name)}; write "
                    "them in one way"
                )


def _check_rows(split: Split) -> None:
    """Check that a split is not one object that holds all rows, as `df.to_json(path)` writes them.

    Raises:
        UsageError: if it is.
    """
    columns = [column for column in split.columns if len(split) == 1 and _may_hold_texts(split, column)]
    if columns and all(isinstance(split.values(column)[0], (dict, list)) for column in columns):
        raise UsageError(one_object_sentence(split.source))


# ---- Data sets of the Hub ---------------------------------------------------------------------------------------


def load_hub_splits(name: str, config_name: str | None, cache_dir: str | None, token: str | None) -> dict[str, Split]:
    """Load all splits of a data set of the Hub, or of a folder of data files or of `save_to_disk`.

    Raises:
        UsageError: if it does not exist, cannot be reached, is broken, has no such configuration, or an empty split.
    """
    if Path(name).is_file():
        raise UsageError(f"--dataset_name {name} is a file; give it with --train_file, or give a folder")
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
        # In memory: else what is computed from the rows would be written into that folder.
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


def named_splits(splits: dict[str, Split], removed: Sequence[str], names: dict[str, str]) -> dict[str, Split]:
    """Leave splits out, and give others the names train, validation and test.

    Args:
        splits: the splits by name.
        removed: names of splits that are left out.
        names: the split that becomes `train`, `validation` or `test`.

    Raises:
        UsageError: if there is no split of a name.
    """
    for flag, name in [
        *(("--remove_splits", name) for name in removed),
        *((f"--{split}_split_name", name) for split, name in names.items()),
    ]:
        if name not in splits or (name in removed and flag != "--remove_splits"):
            raise UsageError(f"{flag} {cut(name)} is no split of the data, which have {listed(splits)}")
    kept = {name: split for name, split in splits.items() if name not in removed and name not in names.values()}
    return kept | {split: splits[name] for split, name in names.items()}


def without_columns(splits: dict[str, Split], removed: Sequence[str]) -> dict[str, Split]:
    """Leave columns out of all splits that have them.

    Raises:
        UsageError: if no split has a column.
    """
    for column in removed:
        if not any(column in split for split in splits.values()):
            split = next(iter(splits.values()))
            raise UsageError(
                f"--remove_columns {cut(column)} is no column of {split.source}, its columns are "
                f"{listed(split.columns)}"
            )
    return {
        name: replace(split, data=split.data.remove_columns([column for column in removed if column in split]))
        for name, split in splits.items()
    }


# ---- Columns ----------------------------------------------------------------------------------------------------


def choose_text_columns(
    split: Split,
    label_columns: Sequence[str],
    requested: tuple[str, ...] | None,
    task: Task | None,
    are_joined: bool = False,
) -> tuple[str, ...]:
    """Decide which one or two columns hold the texts.

    The requested ones; else the task's; else `sentence1` and `sentence2`; else the first two, or the only one, of the
    columns that are neither labels nor numbers. Where texts are joined to one, any number may be requested.

    Raises:
        UsageError: if there are none, or a chosen one does not exist or is a label.
    """
    if requested is not None:
        if len(requested) > 2 and not are_joined:
            raise UsageError(
                f"--text_column_names takes one or two columns, got {len(requested)}: {listed(requested)}; "
                "--text_column_delimiter joins more to one text"
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
    return [name for name in columns if _may_hold_texts(split, name) and _looks_like_text(split, name)]


def _may_hold_texts(split: Split, column: str) -> bool:
    """Whether the values of a column may be texts; images and the like are not even decoded."""
    feature = split.feature(column)
    return feature is None or not hasattr(feature, "decode_example") or type(feature).__name__ == "Json"


def _looks_like_text(split: Split, column: str) -> bool:
    texts = (
        value for array in split.arrays(column) for value in split.decoded(column, array) if isinstance(value, str)
    )
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
    files = tuple((f"the validation part of {name}", size) for name, size in train.files)
    source = f"the validation part of {train.source}"
    return train.select(kept), replace(train.select(taken), source=source, files=files)


def _draw(
    total: int, size: int, seed: int, classes: Sequence[Any] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    positions = np.arange(total)
    if classes is not None:
        names, ids, counts = np.unique(np.asarray(classes), return_inverse=True, return_counts=True)
        # The draw depends on the order of the classes, which is that of their names.
        order = np.argsort(names.astype(str), kind="stable")
        ids = np.argsort(order)[ids]
        repeated = positions[counts[order][ids] > 1]
        number = int(np.sum(counts > 1))
        if number > 0 and size >= number and len(repeated) - size >= number:
            _, taken = train_test_split(repeated, test_size=size, random_state=seed, stratify=ids[repeated])
            return np.setdiff1d(positions, taken), np.sort(taken)
    _, taken = train_test_split(positions, test_size=size, random_state=seed)
    return np.setdiff1d(positions, taken), np.sort(taken)
