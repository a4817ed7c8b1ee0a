"""What is allowed in the data but is likely a mistake: one sentence of warning for each."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_mixup.errors import cut, listed, quoted
from hf_mixup.glue.cells import label_values
from hf_mixup.glue.labels import Labels
from hf_mixup.glue.loading import Split, parse_float, text_columns

# A few rows may differ from the others: an empty date, a note in place of an address.
_MOST = 0.95
# Categories are short, and each is there in several rows.
_ROWS_OF_A_CATEGORY, _WORDS_OF_A_CATEGORY = 5, 3
# More different whole numbers than these are hardly classes.
_MOST_CLASSES = 20
_ADDRESS = re.compile(r"(https?://|www\.)\S+")
_NUMBER = re.compile(r"\d")
_LETTERS = re.compile(r"[^\W\d_]+")
# Letters that a date or a time may have: names of months and days, of time zones, and marks.
_DATE_WORD = re.compile(
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|june|july|august|september"
    r"|october|november|december|mon|tue|wed|thu|fri|sat|sun|(mon|tues|wednes|thurs|fri|satur|sun)day|t|z|am|pm|st|nd"
    r"|rd|th|of|utc|gmt|c?est|edt|c[sd]t|m[sd]t|p[sd]t|cet)",
    re.IGNORECASE,
)
# What holds for all rows shows in some thousands of them.
_SAMPLE = 20_000
# Scripts from here on (Thai, Chinese, Japanese, ...) may put no space between words.
_FIRST_WITHOUT_SPACES = "\u0e00"


def text_column_traps(split: Split, label_columns: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Warn of text columns that nobody named, where one of them does not look like texts or more texts are left out.

    Args:
        split: the split that the columns were chosen by.
        label_columns: the label columns.
        chosen: the one or two text columns that were chosen.

    Returns:
        no sentence or one.
    """
    split = split.sample(_SAMPLE)
    others = dict.fromkeys(split.columns)
    for name in label_columns:
        others.pop(name, None)
    found = text_columns(split, others)
    # With a single column there is no choice, and columns with these names are meant as a pair.
    if len(found) < 2 or tuple(chosen) == ("sentence1", "sentence2"):
        return []
    labels = next(([str(label) for label in split.values(name)] for name in label_columns if name in split), [])
    other = {name: _other_than_text(split.values(name), labels) for name in found}
    odd = [f"{cut(name)} looks like {other[name]}" for name in chosen if other[name]]
    left_out = [name for name in found if name not in chosen]
    if not odd and all(other[name] for name in left_out):
        return []
    reasons = odd + [f"{listed(left_out)} {'is' if len(left_out) == 1 else 'are'} left out"] * bool(left_out)
    return [
        f"The texts are read from the first text columns of {split.source}, {' and '.join(map(cut, chosen))}: "
        f"{', '.join(reasons)}; name the one or two columns that you mean with --text_column_names."
    ]


def class_name_traps(names: Sequence[str]) -> list[str]:
    """Warn of classes whose names differ only in upper and lower case, white space or the form of characters."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_folded(name), []).append(quoted(name))
    groups = [" and ".join(group) for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    return [
        f"Of the {len(names)} classes some differ only in upper and lower case, white space, or the way a character "
        f"or number is written: {listed(groups)}; each counts as a class of its own, so write them in one way if they "
        "are the same."
    ]


def missing_class_traps(labels: Labels, used: list[Any], whole: list[Any] | None, rows: str, cause: str) -> list[str]:
    """Warn of classes that occur in none of the rows that are used.

    Args:
        labels: kind and classes.
        used: the encoded labels of the rows that are used.
        whole: those of the rows that have all classes that are expected; None for all classes of `labels`.
        rows: what the rows are for, such as `training`.
        cause: what leaves rows out and what helps, or nothing.

    Returns:
        no sentence or one.
    """
    if labels.kind == "regression":
        return []
    expected = set(range(labels.num_labels)) if whole is None else _classes_in(labels, whole)
    there = _classes_in(labels, used)
    missing = [labels.names[index] for index in sorted(expected - there)]
    if not missing:
        return []
    return [
        f"The {len(used)} rows for {rows} have only {len(there)} of {len(expected)} classes, and none of "
        f"{listed(missing)}{cause and f'; {cause}'}."
    ]


def whole_score_traps(split: Split, column: str) -> list[str]:
    """Warn of scores that are all whole numbers: they may be classes that a table program wrote as 1.0 and 2.0."""
    values = {float(value) for value in label_values(split.distinct([column])[0], column)}
    if len(values) > _MOST_CLASSES or not all(value.is_integer() for value in values):
        return []
    return [
        f"The labels of {split.source} are whole numbers with a decimal point, {listed(sorted(values))}, and are "
        "learned as scores (regression); if they are classes, write them without it."
    ]


def _other_than_text(values: Sequence[Any], labels: Sequence[str]) -> str | None:
    """Say what a column of strings holds in place of texts, beside these labels; None for texts."""
    words = [str(value) for value in values]
    pairs = set(zip(words, labels, strict=False))
    if len(pairs) == len(set(words)) == len(set(labels)) < len(labels):
        return "the label in other words"
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    kinds = Counter(_kind(text) for text in texts)
    for kind in ("web addresses", "dates or numbers", "single words or ids"):
        if kinds[kind] >= _MOST * len(texts):
            return kind
    different = set(texts)
    length = sum(len(text.split()) for text in different) / len(different)
    if len(different) * _ROWS_OF_A_CATEGORY <= len(texts) and length <= _WORDS_OF_A_CATEGORY:
        return f"categories ({len(different)} different values)"
    return None


def _kind(text: str) -> str:
    if _ADDRESS.fullmatch(text):
        return "web addresses"
    if _NUMBER.search(text) and all(_DATE_WORD.fullmatch(word) for word in _LETTERS.findall(text)):
        return "dates or numbers"
    if len(text.split()) == 1 and max(text) < _FIRST_WITHOUT_SPACES:
        return "single words or ids"
    return "texts"


def _folded(name: str) -> str:
    """What two names have in common that a reader would take for one."""
    text = unicodedata.normalize("NFKC", name).casefold()
    # Characters of the category Cf cannot be seen: a byte order mark, a soft hyphen, a space of no width.
    text = " ".join("".join(letter for letter in text if unicodedata.category(letter) != "Cf").split())
    number = parse_float(text)
    return text if number is None else str(number)


def _classes_in(labels: Labels, encoded: list[Any]) -> set[int]:
    if labels.kind == "single":
        return set(encoded)
    return set(np.flatnonzero(np.any(np.array(encoded) > 0, axis=0)).tolist())
