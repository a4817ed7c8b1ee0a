"""Local files as Arrow tables on the disk: read once, kept in the cache of `datasets`, and mapped into memory.

A table holds what its files hold. A column of texts has the type string; the cells of a CSV or TSV file are all texts.
Any other column of a JSON file has the type binary and holds each value as JSON, so that 1, 1.0 and "1" stay what they
are. The columns of a Parquet file keep their types. A column without a value has the type null.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features

from hf_mixup.errors import UsageError, as_one_line, cut, first_line, quoted, repeated
from hf_mixup.trainer.checkpoints import disk_fault

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".json.gz", ".jsonl.gz")
# Rows that are in memory while a file is read.
CHUNK = 10_000
# What an Arrow stream ends with.
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# Another one for readers that make something else of the same file.
_VERSION = 1
_KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_MARKS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def kind_of(path: str) -> str:
    """Return `csv` (also of TSV files), `json` or `parquet`, by the name of the file.

    Example:
        >>> kind_of("train.tsv.gz")
        'csv'
    """
    return _KINDS[_ending(path)]


def check_file(path: str, flag: str) -> None:
    """Check what can be known about a data file without reading all of it.

    Raises:
        UsageError: if it does not exist, is a folder, is empty, or has a name with another ending.
    """
    if not path.lower().endswith(ENDINGS):
        raise UsageError(f"{flag} {path} should be a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    file = Path(path)
    if not file.exists():
        raise UsageError(f"{flag} {path} does not exist; check the path")
    if not file.is_file():
        raise UsageError(f"{flag} {path} is not a file; give a CSV, TSV, JSON or Parquet file")
    if file.stat().st_size == 0:
        raise UsageError(f"{flag} {path} is empty; it should have rows with a text and a label")


def check_delimiter(text: str, paths: Sequence[str]) -> str:
    """Check a delimiter of CSV files, in which a tab may be written as `\\t`.

    Raises:
        UsageError: if it is not one character that can stand between cells, or a file has no cells.

    Example:
        >>> check_delimiter(";", ["train.csv"])
        ';'
    """
    mark = "\t" if text == "\\t" else text
    if len(mark) != 1 or mark in '"\r\n':
        raise UsageError(f"--delimiter {quoted(text)} should be one character, such as ';' or '\\t'")
    others = [path for path in paths if kind_of(path) != "csv"]
    if others or not paths:
        what = f"{others[0]} is of another kind" if others else "no file is given"
        raise UsageError(f"--delimiter is for CSV and TSV files, and {what}; leave it out")
    return mark


def read_file(path: str, delimiter: str | None = None, cache_dir: str | None = None) -> Dataset:
    """Read a file into a table.

    The table is a file in the cache of `datasets` (`cache_dir`, or `HF_DATASETS_CACHE`). It is used again as long as
    the file stays as it is, by its path, size, times of change and place on the disk.

    Args:
        path: the file, of a kind that `check_file` admits.
        delimiter: the character between the cells of a CSV or TSV file; default: a comma, in TSV files a tab.
        cache_dir: the folder of the cache.

    Raises:
        UsageError: the file cannot be read, is broken, has no rows or changes meanwhile, or the cache cannot be
            written.
        OSError: the disk is full.

    Example:
        >>> read_file("train.csv").column_names  # doctest: +SKIP
        ['sentence', 'label']
    """
    try:
        state = _state(path)
        place = _cache_file(json.dumps([_VERSION, delimiter, os.path.abspath(path), *state]), cache_dir)
        if not _is_whole(place):
            with _new_file(place) as file:
                _write(_READERS[kind_of(path)](path, delimiter), file, path)
                if _state(path) != state:
                    raise UsageError(f"{path} changed while it was read; start again when it stays as it is")
    except MemoryError as error:
        raise UsageError(f"{path} does not fit into the memory of this machine; give a part of it") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it with the encoding UTF-8") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{path} is not a whole gzip file; compress it again") from error
    except OSError as error:
        if disk_fault(error) is not None:
            raise
        raise UsageError(f"{path} cannot be read: {error.strerror or first_line(error)}") from error
    return Dataset.from_file(str(place))


def _state(path: str) -> list[int]:
    """What changes with the content of a file; programs may set back all of these but the last."""
    status = os.stat(path)
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _is_whole(place: Path) -> bool:
    """Whether a table is there, to its last byte: of one that is cut off, Arrow may read the rows that are left."""
    try:
        with place.open("rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


def _cache_file(key: str, cache_dir: str | None) -> Path:
    """The place in the cache for the table that the key describes; its folder exists."""
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE, "hf_mixup")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_cache(folder, error) from error
    return folder / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"


def _no_cache(folder: Path, error: OSError) -> Exception:
    """What to raise for a cache that cannot be written: a full disk is no mistake of the user."""
    if disk_fault(error) is not None:
        return error
    return UsageError(
        f"the cache {folder} cannot be written ({error.strerror}); set HF_DATASETS_CACHE to a folder that can be"
    )


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file that takes the name once it is whole; a run at the same time may write the same."""
    try:
        handle, name = tempfile.mkstemp(prefix="part-", suffix=".arrow", dir=path.parent)
    except OSError as error:
        raise _no_cache(path.parent, error) from error
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _ending(path: str) -> str:
    return Path(path.lower().removesuffix(".gz")).suffix


def _write(tables: Iterable[pa.Table], file: Path, path: str) -> None:
    """Write tables of one schema as an Arrow stream."""
    writer = None
    with pa.OSFile(str(file), "wb") as sink:
        for table in tables:
            writer = writer or pa.ipc.new_stream(sink, table.schema)
            writer.write_table(table)
        if writer is None:
            raise UsageError(f"{path} has no rows; it should have rows with a text and a label")
        writer.close()


def _opened(path: str, **options: Any) -> IO[str]:
    """A file of text, compressed or not."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", **options)


# ---- CSV --------------------------------------------------------------------------------------------------------


def _csv_tables(path: str, delimiter: str | None) -> Iterator[pa.Table]:
    """The cells as texts, with null for those that a short row lacks."""
    is_tsv = _ending(path) == ".tsv"
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    options["sep"] = delimiter or ("\t" if is_tsv else ",")
    try:
        header = pd.read_csv(path, header=None, nrows=1, **options).iloc[0].str.strip().tolist()
        _check_header(header, path, options["sep"])
        with pd.read_csv(path, chunksize=CHUNK, **options) as frames:
            for frame in frames:
                if not isinstance(frame.index, pd.RangeIndex):
                    raise UsageError(
                        f"{path} has rows with more cells than its header; quote the texts that hold commas"
                    )
                # A column without a name has the one that pandas gives it.
                names = [name or str(given) for name, given in zip(header, frame.columns, strict=True)]
                arrays = [pa.array(frame[given], pa.string(), from_pandas=True) for given in frame]
                if len(frame):
                    table = pa.table(dict(zip(names, arrays, strict=True)))
                    if is_tsv:
                        _check_quotes(table, path, frame.index.start, options["sep"])
                    yield table
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{path} is empty; it should have a header and rows with a text and a label") from error
    except pd.errors.ParserError as error:
        raise UsageError(
            f"{path} is not a valid CSV file: {cut(as_one_line(error).rpartition('error: ')[2], 400)}"
        ) from error


def _check_header(names: list[str], path: str, separator: str) -> None:
    twice = repeated(filter(None, names))
    if twice is not None:
        raise UsageError(f"{path} has the column {quoted(twice)} twice; rename or drop one of them")
    for mark, kind in _MARKS.items():
        if len(names) == 1 and mark != separator and mark in names[0]:
            remedy = "give it a name that ends in .tsv" if mark == "\t" else f"give --delimiter {quoted(mark)}"
            others = "tabs" if _ending(path) == ".tsv" else "commas"
            raise UsageError(
                f"{path} has only the column {quoted(names[0])}: it looks {kind}-separated; {remedy}, or save it with "
                f"{others}"
            )


def _check_quotes(table: pa.Table, path: str, start: int, separator: str) -> None:
    """Refuse a cell that has swallowed the rows after it: TSV files often have quotes that nothing closes."""
    for name in table.column_names:
        swallowed = pc.and_(
            *(pc.match_substring(table[name], mark).combine_chunks().fill_null(False) for mark in ("\n", separator))
        )
        row = pc.index(swallowed, True).as_py()
        if row >= 0:
            raise UsageError(
                f"{path}, row {start + row + 1} has a cell that begins with a quote and goes on over several rows; "
                'double the quotes of such a cell and put it in quotes, "like ""this""", or save the file as JSON'
            )


# ---- JSON -------------------------------------------------------------------------------------------------------


def _json_tables(path: str, delimiter: str | None) -> Iterator[pa.Table]:
    """Columns of texts as texts, all others as JSON; null for what a row lacks.

    What a column holds shows in its last row only, so the file is read twice.
    """
    types: dict[str, pa.DataType] = {}
    for rows in _json_chunks(path):
        for row in rows:
            for name, value in row.items():
                known = types.setdefault(name, pa.null())
                if value is not None and known != pa.binary():
                    types[name] = pa.string() if isinstance(value, str) else pa.binary()
    for rows in _json_chunks(path):
        arrays = {}
        for name, kind in types.items():
            values = [row.get(name) for row in rows]
            if kind == pa.binary():
                values = [None if value is None else json.dumps(value).encode() for value in values]
            arrays[name] = pa.array(values, kind)
        if arrays:
            yield pa.table(arrays)


def _json_chunks(path: str) -> Iterator[list[dict[str, Any]]]:
    rows = enumerate(_json_rows(path), start=1)
    while chunk := list(islice(rows, CHUNK)):
        for number, (row, has_escapes) in chunk:
            if not isinstance(row, dict):
                raise UsageError(f"{path}, row {number} is not an object with named values, such as {{...}}")
            if has_escapes and _has_half_character(row):
                raise UsageError(
                    f"{path}, row {number} has half of a character (a lone \\ud800 to \\udfff); correct it or "
                    "drop the row"
                )
        yield [row for _, (row, _) in chunk]


def _has_half_character(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _json_rows(path: str) -> Iterator[tuple[Any, bool]]:
    """The objects of a file, one a line, or all of them in one list; and whether they may have half a character."""
    with _opened(path, newline="\n") as file:
        start, first = next(((number, line) for number, line in enumerate(file, start=1) if line.strip()), (1, ""))
        if first.lstrip().startswith("["):
            text = first + file.read()
            try:
                rows = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path} is not valid JSON: {_json_fault(error)}") from error
            yield from ((row, "\\u" in text) for row in rows)
            return
        for number, line in enumerate(chain([first], file), start=start):
            if line.strip():
                yield _json_row(line, number, path), "\\u" in line


def _json_row(line: str, number: int, path: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        if number == 1 and _is_one_object(path):
            raise UsageError(one_object_sentence(path)) from error
        raise UsageError(
            f"{path}, line {number} is not valid JSON ({getattr(error, 'msg', _json_fault(error))}); "
            "the file should hold one object per line, or one list of objects"
        ) from error


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # Of the numbers, Python reads those of 4,300 digits and less.
    return "it has a number of too many digits" if "digits" in str(error) else first_line(error)


def _is_one_object(path: str) -> bool:
    with _opened(path) as file:
        try:
            return isinstance(json.loads(file.read()), dict)
        except (ValueError, RecursionError):
            return False


def one_object_sentence(source: str) -> str:
    """Say what is wrong with a file that holds all rows in one object, as `df.to_json(path)` writes them."""
    return (
        f"{source} holds all rows in one object, column by column or under one key; write one object per line, with "
        'pandas by df.to_json(path, orient="records", lines=True)'
    )


# ---- Parquet ----------------------------------------------------------------------------------------------------


def _parquet_tables(path: str, delimiter: str | None) -> Iterator[pa.Table]:
    """The columns with their types, but categories as the values they stand for, and all texts of one type.

    Without the index of pandas, and without columns of types that `datasets` has no name for, such as maps.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            twice = repeated(schema.names)
            if twice is not None:
                raise UsageError(f"{path} has the column {quoted(twice)} twice; rename or drop one of them")
            index = (schema.pandas_metadata or {}).get("index_columns", ())
            names = [field.name for field in schema if field.name not in index and _has_feature(field)]
            for batch in file.iter_batches(CHUNK, columns=names):
                table = pa.Table.from_batches([batch])
                for position, field in enumerate(table.schema):
                    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
                    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
                        kind = pa.string()
                    if kind != field.type:
                        table = table.set_column(position, field.name, table[position].cast(kind))
                if len(table):
                    yield table
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{path} is not a valid Parquet file: {cut(as_one_line(error), 400)}") from error


def _has_feature(field: pa.Field) -> bool:
    try:
        Features.from_arrow_schema(pa.schema([field]))
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[str, str | None], Iterator[pa.Table]]] = {
    "csv": _csv_tables,
    "json": _json_tables,
    "parquet": _parquet_tables,
}
