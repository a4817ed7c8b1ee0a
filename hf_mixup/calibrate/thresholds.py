"""From which probability on answers are right as often as wished, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

CONFIDENCE = 0.95
# They are chosen without looking at any data, so that each bound below holds.
_CANDIDATES = (*(step / 20 for step in range(1, 19)), *(step / 100 for step in range(91, 100)))


@dataclass(frozen=True)
class Threshold:
    """What accepting the answers of at least some probability does.

    Attributes:
        at: the least probability that is accepted.
        accepted: how many rows that are.
        right: how many of them are answered rightly.
        at_least: what share of right answers there is at least among accepted rows of this kind, for all thresholds
            of one call at once with a confidence of 95 %.
    """

    at: float
    accepted: int
    right: int
    at_least: float

    @property
    def precision(self) -> float:
        """The share of right answers among the accepted rows."""
        return self.right / self.accepted


def thresholds(probabilities: NDArray[np.float64], right: NDArray[np.bool_], lowest: float = 0.0) -> list[Threshold]:
    r"""What each of some fixed thresholds accepts: 0 (everything), 0.05, 0.10, ... 0.90, 0.91, ... 0.99.

    The lower bound is that of Clopper and Pearson (1934). With m thresholds each has a confidence of $1 - 0.05 / m$
    (Bonferroni), so that it also holds for a threshold that is chosen among them by looking at the same rows.

    Args:
        probabilities: of the answers, `[rows]`.
        right: whether they are right, `[rows]`.
        lowest: the probability that every answer has at least: no threshold up to it but 0.

    Returns:
        The thresholds that accept a row, the lowest first.

    Example:
        >>> found = thresholds(np.array([0.6] * 50 + [0.98] * 400), np.array([False] * 50 + [True] * 400), lowest=0.5)
        >>> [(each.at, each.accepted, round(each.precision, 2), round(each.at_least, 2)) for each in found[:4:3]]
        [(0.0, 450, 0.89, 0.84), (0.65, 400, 1.0, 0.99)]
    """
    tried = [0.0, *(each for each in _CANDIDATES if each > lowest)]
    risk = (1 - CONFIDENCE) / len(tried)
    found = []
    for at in tried:
        accepted = probabilities >= at
        count, hits = int(accepted.sum()), int(right[accepted].sum())
        if count:
            bound = beta.ppf(risk, hits, count - hits + 1) if hits else 0.0
            found.append(Threshold(at, count, hits, float(bound)))
    return found
