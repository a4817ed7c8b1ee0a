"""What a report is made of: sections with texts, tables, pictures and code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Args:
        text: what it shows.
        value: what it is sorted by; None for its text.
        better, worse: what its method is, against `none`.
    """

    text: str
    value: float | None = None
    better: bool = False
    worse: bool = False


NOTHING = Entry("–", math.nan)


@dataclass(frozen=True)
class Table:
    """A table; `rows` has as many entries in each as there are `columns`."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is that of its file, `label` says in words what it shows, `draw` draws it."""

    name: str
    draw: Callable[[], Figure]
    label: str


@dataclass(frozen=True)
class Code:
    """Something to copy, in a language such as `yaml`."""

    language: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    code: Sequence[Code] = ()
