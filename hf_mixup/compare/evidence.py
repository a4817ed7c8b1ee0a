"""The runs of a file of results, sorted for a report, and how their measures are written."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from hf_mixup.compare import figures
from hf_mixup.compare.blocks import Entry
from hf_mixup.compare.results import primary_metric, words_of
from hf_mixup.compare.statistics import BASELINE, Row, Setting, percent, range_of, summarize
from hf_mixup.methods import METHODS

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """How the numbers of a measure are written: times `factor`, with so many digits."""

    name: str
    factor: float = 100.0
    digits: int = 1

    def number(self, value: float) -> str:
        return f"{value * self.factor:.{self.digits}f}"

    def signed(self, value: float) -> str:
        return f"{value * self.factor:+.{self.digits}f}".replace("-", "−")


# Those that are not here are shares or correlations, times 100.
_MEASURES = {
    **{f"nll{suffix}": Measure(f"NLL{after}", 1, 3) for suffix, after in (("", ""), ("_scaled", ", scaled"))},
    **{f"brier{suffix}": Measure(f"Brier{after}", 1, 3) for suffix, after in (("", ""), ("_scaled", ", scaled"))},
    **{f"ece{suffix}": Measure(f"ECE{after}") for suffix, after in (("", ""), ("_scaled", ", scaled"))},
    **{f"ace{suffix}": Measure(f"adaptive ECE{after}") for suffix, after in (("", ""), ("_scaled", ", scaled"))},
    "temperature": Measure("temperature", 1, 2),
    "mse": Measure("mean squared error", 1, 3),
    "f1": Measure("F1"),
    "f1_macro": Measure("macro F1"),
    "clean_rows_accuracy": Measure("rows with a right label"),
    "flipped_rows_accuracy": Measure("rows with a wrong label, by the true class"),
    "flipped_rows_memorized": Measure("rows with a wrong label, by the wrong class"),
    "ood_auroc_probability": Measure("AUROC, probability"),
    "ood_fpr95_probability": Measure("FPR@95, probability"),
    "ood_auroc_energy": Measure("AUROC, energy"),
    "ood_fpr95_energy": Measure("FPR@95, energy"),
    "step_seconds": Measure("ms per step", 1000),
    "peak_memory_mib": Measure("peak memory, MiB", 1, 0),
}


def measure(name: str) -> Measure:
    """How a measure is written."""
    return _MEASURES.get(name, Measure(name.replace("_", " ")))


class Evidence:
    """The lines of a file of results, sorted for a report.

    Args:
        lines: of `Results.lines`.

    Attributes:
        lines: the same.
        runs: those that ended well.
        settings: with at least one run, in the order of tasks, models, training rows and noise.
        names: of the settings, without what is the same in all of them.
        methods: `none` first, and those of one name together, by their options.
        words: each of them with its options, where it has a name of its own.
        look: their style in all figures.
        metric: the metric that each setting is judged by.
        rows: its comparison, by setting and method.
        failed: how many runs of each method failed.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self.runs = [line for line in self.lines if line["kind"] == "run" and line["status"] == "done"]
        self.by_setting: dict[Setting, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            self.by_setting[setting_of(run)][run["cell"]["method"]].append(run)
        tasks, models = (list(dict.fromkeys(run["cell"][name] for run in self.runs)) for name in ("task", "model"))
        self.settings = sorted(
            self.by_setting,
            key=lambda each: (tasks.index(each.task), models.index(each.model), self.train_rows(each), each.noise),
        )
        self.names = {setting: ", ".join(self.setting_words(setting).values()) for setting in self.settings}
        self.words = {run["cell"]["method"]: words_of(run) for run in self.runs}
        self.methods = _in_order(self.words)
        self.look = figures.styles(self.methods)
        self.metric = {
            setting: primary_metric(next(iter(by_method.values()))[0]["metrics"])
            for setting, by_method in self.by_setting.items()
        }
        self.rows = {
            (row.setting, row.method): row
            for name in dict.fromkeys(self.metric.values())
            for row in summarize(self.runs, name)
            if self.metric[row.setting] == name
        }
        self.failed = Counter(
            line["cell"]["method"] for line in self.lines if line["kind"] == "run" and line["status"] == "failed"
        )

    def train_rows(self, setting: Setting) -> float:
        """The mean number of train rows of the runs."""
        return mean(run["rows"]["train"] for runs in self.by_setting[setting].values() for run in runs)

    def varies(self, axis: str) -> bool:
        """Whether there are several values on an axis of `Setting`."""
        return len({getattr(setting, axis) for setting in self.settings}) > 1

    def axes(self) -> list[str]:
        """What differs between settings, the task in any case, and wrong labels that were made."""
        noisy = any(setting.noise for setting in self.settings)
        shown = {"task": True, "model": self.varies("model"), "size": self.varies("size"), "noise": noisy}
        return [name for name, is_shown in shown.items() if is_shown]

    def setting_words(self, setting: Setting) -> dict[str, str]:
        """What a setting is called on each of these axes."""
        rows = " rows" if setting.size == "all" or setting.size.isdigit() else ""
        words = {"task": setting.task, "model": setting.model, "size": setting.size + rows}
        words["noise"] = f"{percent(setting.noise)} made wrong"
        return {axis: words[axis] for axis in self.axes()}

    def setting_columns(self) -> list[str]:
        """The headings of the axes."""
        names = {"task": "task", "model": "model", "size": "train rows", "noise": "labels made wrong"}
        return [names[axis] for axis in self.axes()]

    def setting_entries(self, setting: Setting) -> list[Entry]:
        """What stands under them."""
        entries = {"task": Entry(setting.task), "model": Entry(setting.model)}
        entries["size"] = Entry(setting.size, self.train_rows(setting))
        entries["noise"] = Entry(percent(setting.noise), setting.noise)
        return [entries[axis] for axis in self.axes()]

    def same_seeds(self, setting: Setting) -> bool:
        """Whether all methods of a setting have the same seeds."""
        return len({frozenset(seeds_of(runs)) for runs in self.by_setting[setting].values()}) == 1

    def relative_time(self, setting: Setting, method: str) -> list[float]:
        """The time of a step over that of `none`, for each seed that both have on one machine."""
        plain, own = (
            {
                (run["cell"]["seed"], run["machine"]): run["cost"]["step_seconds"]
                for run in self.by_setting[setting].get(name, [])
            }
            for name in (BASELINE, method)
        )
        return [own[where] / plain[where] for where in sorted(own.keys() & plain.keys())]

    def in_order(self, setting: Setting) -> Iterator[tuple[str, list[Line]]]:
        """The methods of a setting, and their runs."""
        runs = self.by_setting[setting]
        return ((method, runs[method]) for method in self.methods if method in runs)

    def present(self, settings: Sequence[Setting], method: str) -> list[Row]:
        """The rows that a method has in these settings."""
        rows = (self.rows.get((setting, method)) for setting in settings)
        return [row for row in rows if row is not None]

    def is_sure(self, row: Row) -> bool:
        """Whether a row has an interval: one seed tells nothing of others."""
        return row.difference is not None and row.pairs > 1

    def spread(self, row: Row) -> tuple[float, float]:
        """One standard deviation to either side of a mean, as far as the metric can go; nan for one seed."""
        low, high = range_of(self.metric[row.setting])
        return tuple(float(np.clip(end, low, high)) for end in (row.mean - row.sd, row.mean + row.sd))

    def compared(self, setting: Setting) -> list[Row]:
        """The rows of a setting that have a difference to `none`."""
        rows = (self.rows.get((setting, method)) for method in self.methods)
        return [row for row in rows if row is not None and row.difference is not None]


def _in_order(words: Mapping[str, str]) -> list[str]:
    """Methods in an order that does not depend on which run ended first, as far as their words tell one."""
    first_seen = list(dict.fromkeys(each.split(":")[0] for each in words.values()))

    def place(name: str) -> tuple[bool, int, list[str | float], float]:
        family, alpha = family_and_alpha(words[name])
        # Texts and numbers in turn, the numbers as such: 3 draws come before 20.
        parts = re.split(r"(\d+(?:\.\d+)?)", family)
        options = [float(part) if index % 2 else part for index, part in enumerate(parts)]
        return name != BASELINE, first_seen.index(family.split(":")[0]), options, alpha or 0.0

    return sorted(words, key=place)


def setting_of(run: Line) -> Setting:
    """The setting of a run."""
    return Setting(*(run["cell"][name] for name in ("task", "model", "size", "noise")))


def family_and_alpha(method: str) -> tuple[str, float | None]:
    """A method without its alpha, and the alpha: the given one, else its default; None where it draws by none.

    Example:
        >>> family_and_alpha("amplify:alpha=0.4:layers=1,2")
        ('amplify:layers=1,2', 0.4)
    """
    name, *pairs = method.split(":")
    others = [pair for pair in pairs if not pair.startswith("alpha=")]
    given = next((pair.removeprefix("alpha=") for pair in pairs if pair.startswith("alpha=")), None)
    default = getattr(METHODS[name].ratio, "alpha", None) if name in METHODS else None
    alpha = default if given is None else float(given)
    return ":".join([name, *others]), alpha


def seeds_of(runs: Sequence[Line]) -> set[int]:
    """The seeds of runs."""
    return {run["cell"]["seed"] for run in runs}
