r"""Does a classifier notice texts that belong to none of its classes? Scores of texts, and how well they separate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve


def max_probability(logits: ArrayLike) -> NDArray[np.float64]:
    r"""The largest probability of each row: high for texts like those of the training.

    Paper: A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks. Hendrycks,
    Gimpel, 2017. https://arxiv.org/abs/1610.02136

    Args:
        logits: `[rows, classes]`.

    Returns:
        `[rows]`, from 1 / classes to 1.

    Example:
        >>> max_probability([[0.0, 0.0]]).tolist()
        [0.5]
    """
    return softmax(np.asarray(logits, dtype=np.float64), axis=1).max(axis=1)


def negative_energy(logits: ArrayLike) -> NDArray[np.float64]:
    r"""$\log \sum_c e^{z_c}$ of each row: high for texts like those of the training.

    Paper: Energy-based Out-of-distribution Detection. Liu, Wang, Owens, Li, 2020. https://arxiv.org/abs/2010.03759
    (its negative energy at temperature 1)

    Args:
        logits: `[rows, classes]`.

    Returns:
        `[rows]`, any number.

    Example:
        >>> negative_energy([[0.0, 0.0]]).round(6).tolist()  # log 2
        [0.693147]
    """
    return logsumexp(np.asarray(logits, dtype=np.float64), axis=1)


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """The chance that a text of the known classes scores higher than one of none; ties count half.

    Args:
        inside: scores of texts of the known classes, `[rows]`.
        outside: scores of texts of none, `[other rows]`.

    Returns:
        From 0 to 1; 0.5 if the scores tell nothing.

    Raises:
        ValueError: if one of them is empty or not finite.

    Example:
        >>> auroc([3.0, 2.0], [1.0, 2.0])
        0.875
    """
    return float(roc_auc_score(*_labelled(inside, outside)))


def fpr_at_95(inside: ArrayLike, outside: ArrayLike) -> float:
    """The share of foreign texts that pass, where the threshold lets at least 95 % of the texts of known classes pass.

    Args:
        inside: scores of texts of the known classes, `[rows]`.
        outside: scores of texts of none, `[other rows]`.

    Returns:
        From 0 to 1; less is better.

    Raises:
        ValueError: if one of them is empty or not finite.

    Example:
        >>> fpr_at_95([3.0, 2.0], [1.0, 2.0])  # 2 has to pass
        0.5
    """
    false_positives, true_positives, _ = roc_curve(*_labelled(inside, outside), drop_intermediate=False)
    return float(false_positives[np.argmax(true_positives >= 0.95)])


def _labelled(inside: ArrayLike, outside: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    inside, outside = (np.asarray(scores, dtype=np.float64).reshape(-1) for scores in (inside, outside))
    if not len(inside) or not len(outside):
        raise ValueError("inside and outside need at least one score each.")
    return np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
