"""Small data files for the tests of the command-line script."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from hf_mixup.glue.loading import Split
from tests.tiny import SENTENCES


def split_of(columns: dict[str, Sequence[Any]], source: str = "train.json", kind: str = "json") -> Split:
    """Return a split as it is read from a CSV or JSON file with these columns."""
    texts = {
        name: kind == "csv" or all(value is None or isinstance(value, str) for value in values)
        for name, values in columns.items()
    }
    cells = {
        name: values if texts[name] else [None if value is None else json.dumps(value).encode() for value in values]
        for name, values in columns.items()
    }
    features = Features({name: Value("string" if is_text else "binary") for name, is_text in texts.items()})
    data = Dataset.from_dict({name: list(values) for name, values in cells.items()}, features)
    return Split(data, source, kind, range(1, len(data) + 1))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a CSV file with a header and return its path."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """Write one JSON object per line and return the path."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def labelled_sentences(labels: Sequence[Any], count: int = 12) -> list[tuple[str, Any]]:
    """Return sentences, all different, that carry the labels in turn."""
    return [(f"{SENTENCES[i % len(SENTENCES)]} {i}", labels[i % len(labels)]) for i in range(count)]


def labelled_pairs(labels: Sequence[Any], count: int = 12) -> list[tuple[str, str, Any]]:
    """Return pairs of sentences that carry the labels in turn."""
    return [
        (text, SENTENCES[(3 * i + 1) % len(SENTENCES)], label)
        for i, (text, label) in enumerate(labelled_sentences(labels, count))
    ]
