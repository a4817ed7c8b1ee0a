r"""What a file of results says: means over seeds, paired differences to plain fine-tuning, and how sure they are.

Every method is compared with `none` on the same seeds, and a seed has the same data and the same first weights for all
methods. For measures that each test row has (accuracy, squared error) the interval comes from a bootstrap over seeds
and rows together, for the others from Student's t over the seeds. No interval goes where accuracy would be below 0 or
above 100 %.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hf_mixup.compare.packing import unpack

BASELINE = "none"
LEVEL = 0.95
# Of these less is better; of all other measures more is.
LESS_IS_BETTER = {
    *(f"{name}{suffix}" for name in ("nll", "brier", "ece", "ace") for suffix in ("", "_scaled")),
    *("mse", "ood_fpr95_probability", "ood_fpr95_energy", "flipped_rows_memorized"),
    *("step_seconds", "peak_memory_mib"),
}
_BOTH = ("", "_scaled")
# From where to where a measure can go; those that are not here know no bounds.
_RANGES = {
    **dict.fromkeys(("accuracy", "subset_accuracy", "precision", "recall", "roc_auc"), (0.0, 1.0)),
    **dict.fromkeys(("f1", "f1_macro", "f1_micro", "worst_class_accuracy"), (0.0, 1.0)),
    **dict.fromkeys(("clean_rows_accuracy", "flipped_rows_accuracy", "flipped_rows_memorized"), (0.0, 1.0)),
    **dict.fromkeys(
        (f"ood_{kind}_{by}" for kind in ("auroc", "fpr95") for by in ("probability", "energy")), (0.0, 1.0)
    ),
    **dict.fromkeys((f"{name}{suffix}" for name in ("ece", "ace") for suffix in _BOTH), (0.0, 1.0)),
    **dict.fromkeys((f"{name}{suffix}" for name in ("nll", "brier") for suffix in _BOTH), (0.0, math.inf)),
    **dict.fromkeys(("mse", "cross_entropy", "temperature", "step_seconds", "peak_memory_mib"), (0.0, math.inf)),
    **dict.fromkeys(("pearson", "spearmanr", "matthews_correlation"), (-1.0, 1.0)),
}
# Draws at once, and the test rows that these may take together.
_CHUNK, _MOST_DRAWN = 200, 20_000_000


@dataclass(frozen=True)
class Setting:
    """What a comparison holds fixed."""

    task: str
    model: str
    size: str
    noise: float


@dataclass(frozen=True)
class Difference:
    """A mean difference and how sure it is.

    Args:
        mean: first minus second.
        p: the two-sided p-value of no difference; nan if one seed does not tell.
        interval: from a level such as 0.95 to the ends of the interval.
    """

    mean: float
    p: float
    interval: Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One method in one setting.

    Args:
        setting: the setting.
        method: the method.
        seeds: how many seeds it has.
        pairs: how many of them `none` has too.
        mean, sd: over the seeds; the standard deviation has the divisor n - 1, and is nan for one seed.
        difference: the mean difference to `none` over the seeds that both have; None for `none`, or without such.
        low, high: its 95 % interval; nan, like p, for a single pair, which tells nothing of other seeds.
        p: its p-value.
        p_holm: the same, corrected by Holm over the methods of the setting.
        corrected_low, corrected_high: its interval at the level that Holm's step for it asks for.
        verdict: `better` or `worse` where the corrected interval excludes 0, else, and for a single pair, `not clear`;
            empty for `none`.
    """

    setting: Setting
    method: str
    seeds: int
    pairs: int
    mean: float
    sd: float
    difference: float | None = None
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    corrected_low: float = math.nan
    corrected_high: float = math.nan
    verdict: str = ""


@dataclass(frozen=True)
class Ranks:
    """The average rank of methods over settings.

    Args:
        ranks: the average rank of each method, 1 being the best, ties sharing their ranks.
        settings: over how many settings.
        p: of the Friedman test that all methods are alike; nan for fewer than 3 methods or 2 settings.
        critical_difference: average ranks that differ by less are not different at the level of 5 % (Nemenyi).
    """

    ranks: Mapping[str, float]
    settings: int
    p: float
    critical_difference: float


def range_of(measure: str) -> tuple[float, float]:
    """From where to where a measure can go.

    Example:
        >>> range_of("accuracy"), range_of("pearson"), range_of("my own")
        ((0.0, 1.0), (-1.0, 1.0), (-inf, inf))
    """
    return _RANGES.get(measure, (-math.inf, math.inf))


def percent(share: float) -> str:
    """A share in percent, with the digits that it has.

    Example:
        >>> percent(0.2), percent(0.001)
        ('20%', '0.1%')
    """
    return f"{100 * share:.6g}%"


def summarize(lines: Iterable[Mapping[str, Any]], measure: str) -> list[Row]:
    """Compare the methods of each setting by one measure.

    Args:
        lines: runs of a file of results, `Results.runs()`.
        measure: a name in their `metrics`, `measures` or `cost`, such as `accuracy` or `ece`; runs without it are
            left out.

    Returns:
        One row for each setting and method, in the order in which they first occur.

    Example:
        >>> rows = summarize(Results("results.jsonl").runs(), "accuracy")  # doctest: +SKIP
    """
    rows = []
    for setting, methods in _by_setting(lines, measure).items():
        plain = methods.get(BASELINE, {})
        differences = {
            method: _difference(runs, plain, measure)
            for method, runs in methods.items()
            if method != BASELINE and plain.keys() & runs.keys()
        }
        corrected = holm([difference.p for difference in differences.values()])
        levels = _holm_levels([difference.p for difference in differences.values()])
        verdicts = dict(zip(differences, zip(corrected, levels, strict=True), strict=True))
        for method, runs in methods.items():
            values = np.array([value_of(line, measure) for line in runs.values()])
            spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            pairs = len(plain.keys() & runs.keys())
            row = {"setting": setting, "method": method, "seeds": len(values), "pairs": pairs}
            row["mean"] = float(values.mean())
            if method in differences:
                difference, (p_holm, level) = differences[method], verdicts[method]
                low, high = difference.interval(LEVEL)
                corrected_low, corrected_high = difference.interval(level)
                row |= {"difference": difference.mean, "low": low, "high": high, "p": difference.p, "p_holm": p_holm}
                row |= {"corrected_low": corrected_low, "corrected_high": corrected_high}
                clear = p_holm < 1 - LEVEL and not corrected_low <= 0 <= corrected_high
                gains = (difference.mean < 0) == (measure in LESS_IS_BETTER)
                row["verdict"] = ("better" if gains else "worse") if clear else "not clear"
            rows.append(Row(**row, sd=spread))
    return rows


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    draws: int = 10_000,
    seed: int = 0,
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> Difference:
    r"""The difference of two methods on the same seeds and the same test rows, by a paired bootstrap over both.

    Each draw takes the test rows with replacement, averages the difference over them and all seeds, and adds what
    other seeds would have changed: $\bar d^* + t_{S-1} \, s / \sqrt S$, with the standard deviation s of the seeds'
    mean differences and a quantile of Student's t, each of as many as there are draws once. Seeds are not taken with
    replacement like the rows, because they are few: where they differ more than the rows do, that finds a difference
    where there is none more often than it says.
    A draw ends where the first would leave what is possible, the second being what it is on the drawn rows. To cut the
    finished interval at the observed mean of the second instead would hold the truth less often than the level says.
    A single seed says nothing about others, and the interval then is about the rows alone. Intervals are percentiles,
    and the p-value is the share of the draws beyond 0, doubled.

    Args:
        first, second: what each row is worth, `[seeds, rows]`.
        draws: how many, at least 1.
        seed: of the draws.
        possible: from where to where a mean can go, `(0, 1)` for accuracy.

    Raises:
        ValueError: the shapes differ or are not `[seeds, rows]`.

    Example:
        >>> bootstrap_difference([[1, 1, 0, 1]], [[1, 0, 0, 0]]).mean
        0.5
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(f"first {first.shape} and second {second.shape} need one shape [seeds, rows] and no zero.")
    difference, generator = first - second, np.random.default_rng(seed)
    seeds, rows = difference.shape
    by_row, of_second = difference.mean(axis=0), second.mean(axis=0)
    parts, chunk = [], max(1, min(_CHUNK, _MOST_DRAWN // rows))
    for start in range(0, draws, chunk):
        drawn = generator.integers(0, rows, (min(chunk, draws - start), rows))
        # One after the other: both at once take ten times as long.
        parts.append([values[drawn].mean(axis=1) for values in (by_row, of_second)])
    means, second_means = np.concatenate(parts, axis=1)
    if seeds > 1:
        quantiles = stats.t.ppf((generator.permutation(draws) + 0.5) / draws, seeds - 1)
        means += quantiles * difference.mean(axis=1).std(ddof=1) / math.sqrt(seeds)
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    bounded = np.clip(means, possible[0] - second_means, possible[1] - second_means)

    def interval(level: float) -> tuple[float, float]:
        low, high = np.quantile(bounded, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return Difference(float(difference.mean()), float(min(1.0, 2 * (beyond + 1) / (draws + 1))), interval)


def seed_difference(
    first: ArrayLike, second: ArrayLike, possible: tuple[float, float] = (-math.inf, math.inf)
) -> Difference:
    """The difference of two methods on the same seeds, by Student's paired t.

    Args:
        first, second: the value of each seed, `[seeds]`. One seed gives a difference without p-value and interval.
        possible: from where to where values can go; no interval is larger than what two of them can differ by.

    Example:
        >>> round(seed_difference([0.8, 0.9, 0.7], [0.7, 0.7, 0.6]).p, 4)
        0.0572
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    mean, freedom = float(difference.mean()), len(difference) - 1
    if not freedom:
        return Difference(mean, math.nan, lambda level: (math.nan, math.nan))
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    # Seeds that agree to the last digit, as where a method changes nothing.
    if error == 0:
        return Difference(mean, 1.0 if mean == 0 else 0.0, lambda level: (mean, mean))
    most = possible[1] - possible[0]

    def interval(level: float) -> tuple[float, float]:
        low, high = stats.t.interval(level, freedom, mean, error)
        return max(float(low), -most), min(float(high), most)

    return Difference(mean, float(2 * stats.t.sf(abs(mean) / error, freedom)), interval)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values that are looked at together.

    Paper: A Simple Sequentially Rejective Multiple Test Procedure. Holm, 1979, Scandinavian Journal of Statistics 6.

    The i-th smallest of m p-values is multiplied by m - i + 1 and is at least as large as those before it, at most 1.

    Args:
        p_values: in any order; nan stays nan and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p_values), math.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else steps
    return corrected.tolist()


def average_ranks(rows: Sequence[Row], measure: str) -> Ranks:
    r"""Rank the methods in each setting by their means, and say from where on average ranks differ.

    Paper: Statistical Comparisons of Classifiers over Multiple Data Sets. Demsar, 2006.
    https://jmlr.org/papers/v7/demsar06a.html

    With k methods in N settings the critical difference is $q_{0.05, k} \sqrt{k (k + 1) / (6 N)}$, q being the 95 %
    point of the studentized range (for infinitely many degrees of freedom) over $\sqrt 2$.

    Args:
        rows: of `summarize`; settings that lack one of the methods are left out.
        measure: what the means are of.

    Raises:
        ValueError: no setting has all methods, or there is but one method.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    means: dict[Setting, dict[str, float]] = defaultdict(dict)
    for row in rows:
        means[row.setting][row.method] = row.mean
    table = np.array([[found[method] for method in methods] for found in means.values() if len(found) == len(methods)])
    count, settings = len(methods), len(table)
    if not settings or count < 2:
        raise ValueError("Ranks need two methods, and one setting that has all of them.")
    ranks = stats.rankdata(table if measure in LESS_IS_BETTER else -table, axis=1)
    p = math.nan
    if count > 2 and settings > 1:
        # Where all are tied everywhere, the statistic is 0 / 0.
        p = float(stats.friedmanchisquare(*ranks.T).pvalue) if np.ptp(ranks) else 1.0
    quantile = stats.studentized_range.ppf(LEVEL, count, np.inf) / math.sqrt(2)
    critical = float(quantile * math.sqrt(count * (count + 1) / (6 * settings)))
    return Ranks(dict(zip(methods, ranks.mean(axis=0).tolist(), strict=True)), settings, p, critical)


def value_of(line: Mapping[str, Any], measure: str) -> float | None:
    """A number of a run by its name, from `metrics`, `measures` or `cost`; None if it has none of that name."""
    return next((part[measure] for part in _parts(line) if measure in part), None)


def _parts(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [line.get(name, {}) for name in ("metrics", "measures", "cost")]


def _by_setting(lines: Iterable[Mapping[str, Any]], measure: str) -> dict[Setting, dict[str, dict[int, Mapping]]]:
    """The runs by setting, method and seed."""
    found: dict[Setting, dict[str, dict[int, Mapping]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        if value_of(line, measure) is not None:
            cell = line["cell"]
            setting = Setting(cell["task"], cell["model"], cell["size"], cell["noise"])
            found[setting][cell["method"]][cell["seed"]] = line
    return found


def _difference(runs: Mapping[int, Mapping], plain: Mapping[int, Mapping], measure: str) -> Difference:
    seeds = sorted(runs.keys() & plain.keys())
    pairs, possible = [(runs[seed], plain[seed]) for seed in seeds], range_of(measure)
    if len(pairs) == 1:
        return seed_difference(*([value_of(line, measure)] for line in pairs[0]))
    worth = {"accuracy": _correct, "mse": _squared_errors}.get(measure)
    if worth is not None and len({line["rows"]["test"] for pair in pairs for line in pair}) == 1:
        sides = (np.stack([worth(line) for line in side]) for side in zip(*pairs, strict=True))
        return bootstrap_difference(*sides, possible=possible)
    # Other measures have no rows, and runs on test rows that are not the same cannot be compared row by row.
    values = ([value_of(line, measure) for line in side] for side in zip(*pairs, strict=True))
    return seed_difference(*values, possible=possible)


def _correct(line: Mapping[str, Any]) -> NDArray[np.float64]:
    return (unpack(line["test"]["predictions"]) == unpack(line["test"]["labels"])).astype(np.float64)


def _squared_errors(line: Mapping[str, Any]) -> NDArray[np.float64]:
    predictions, labels = (unpack(line["test"][name]).astype(np.float64) for name in ("predictions", "labels"))
    return (predictions - labels) ** 2


def _holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level of the interval that agrees with Holm's step for each p-value."""
    ranks = stats.rankdata(p_values, method="ordinal", nan_policy="omit")
    count = np.count_nonzero(~np.isnan(p_values))
    return [1 - (1 - LEVEL) / max(1, count - rank + 1) if rank == rank else LEVEL for rank in ranks]
