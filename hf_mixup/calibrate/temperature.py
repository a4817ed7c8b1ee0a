"""The temperature of a classifier, and what it changes on rows that did not fit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from hf_mixup.compare.calibration import (
    TEMPERATURES,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)

PARTS = 5
# What is found within a hundredth of an end of the range is that end.
_AT_THE_END = 1.01


@dataclass(frozen=True)
class Question:
    """What one temperature is fitted for.

    Attributes:
        name: the class that is answered with yes or no; None where the answer is one of all classes.
        logits: `[rows, answers]`; for yes or no they are 0 and the logit of the class, so that softmax gives the
            sigmoid of that logit.
        labels: the right answers, `[rows]`.
    """

    name: str | None
    logits: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which rows are answered rightly, `[rows]`."""
        return self.logits.argmax(axis=1) == self.labels


def questions(logits: NDArray[np.float64], labels: Sequence, names: Sequence[str] | None) -> list[Question]:
    """The questions that a model answers.

    Args:
        logits: its outputs `[rows, classes]`.
        labels: the class of each row; or, if it may have several, 0 or 1 for each class.
        names: the classes, if a row may have several; else None.

    Returns:
        One question; or one for each class.

    Example:
        >>> [asked.name for asked in questions(np.zeros((2, 3)), [[0, 1, 1], [0, 0, 1]], ["a", "b", "c"])]
        ['a', 'b', 'c']
    """
    labels = np.asarray(labels).astype(np.int64)
    if names is None:
        return [Question(None, logits, labels)]
    return [
        Question(name, np.stack([np.zeros(len(logits)), logits[:, index]], axis=1), labels[:, index])
        for index, name in enumerate(names)
    ]


def best_temperature(asked: Question) -> float | None:
    """The temperature that fits best; None if no temperature is the best one.

    If every row is right, a lower temperature always fits better. If the logits say nothing about the labels, a higher
    one always does. Both ends lie outside the range that is searched.

    Example:
        >>> best_temperature(Question(None, np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 0]))) is None
        True
    """
    if asked.right.all():
        return None
    found = fit_temperature(asked.logits, asked.labels)
    low, high = TEMPERATURES
    return found if low * _AT_THE_END < found < high / _AT_THE_END else None


def scaled_by_others(asked: Question, seed: int) -> NDArray[np.float64]:
    r"""The logits `[rows, answers]`, each divided by a temperature that its own row did not fit.

    The rows are divided by the seed into five parts, and the logits of a part by the temperature that fits the four
    others best. Wrong rows, without which there is no best temperature, are dealt to the parts in turn.

    Args:
        asked: with two wrong rows or more.
        seed: of the parts.
    """
    order = np.random.default_rng(seed).permutation(len(asked.labels))
    order = order[np.argsort(asked.right[order], kind="stable")]
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.arange(len(order)) % PARTS
    scaled = np.empty_like(asked.logits)
    for number in range(PARTS):
        own = part == number
        scaled[own] = asked.logits[own] / fit_temperature(asked.logits[~own], asked.labels[~own])
    return scaled


def measures(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """NLL, Brier score and expected calibration error over 15 bins.

    Args:
        logits: `[rows, answers]`.
        labels: the right answers, `[rows]`.

    Example:
        >>> {name: round(value, 3) for name, value in measures([[0.0, 0.0], [0.0, 0.0]], [0, 1]).items()}
        {'nll': 0.693, 'brier': 0.5, 'ece': 0.0}
    """
    probabilities = softmax(np.asarray(logits), axis=1)
    return {
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
    }
