r"""Do the probabilities of a classifier mean what they say? Measures on held-out predictions, in plain numpy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

_SUM_TOLERANCE = 1e-3
_RANGE_TOLERANCE = 1e-6


def negative_log_likelihood(logits_or_log_probs: ArrayLike, labels: ArrayLike) -> float:
    r"""Mean negative log-likelihood of the true classes, in nats.

    $$NLL = -\frac{1}{N} \sum_{i=1}^{N} \log p_i(y_i), \qquad \log p_i = z_i - \log \sum_c e^{z_{ic}}$$

    A row of log-probabilities is its own log-softmax, so logits and log-probabilities may both be given.

    Args:
        logits_or_log_probs: `[rows, classes]`; minus infinity (a probability of 0) is allowed.
        labels: true classes as integers from 0 to classes - 1, `[rows]`.

    Returns:
        The mean, from 0 (certain and right) to infinity; log(classes) for uniform predictions.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if the shapes do not fit, there is no row, a score is NaN or plus infinity, a row has no finite
            score, or a label is out of range.

    Example:
        >>> round(negative_log_likelihood([[0.0, 0.0], [0.0, 0.0]], [0, 1]), 6)  # log 2
        0.693147
    """
    scores, labels = _checked(logits_or_log_probs, labels, "logits_or_log_probs")
    if np.isnan(scores).any() or np.isposinf(scores).any() or not np.isfinite(scores).any(axis=1).all():
        raise ValueError(
            "logits_or_log_probs must be free of NaN and plus infinity and have a finite number in every row, "
            "but some rows are not: look for a diverged training."
        )
    own = log_softmax(scores, axis=1)[np.arange(len(labels)), labels]
    # Adding 0.0 turns -0.0, which a certain and right prediction gives, into 0.0.
    return float(-own.mean()) + 0.0


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    r"""Expected calibration error: how far confidence and accuracy are apart, on average.

    Paper: On Calibration of Modern Neural Networks. Guo, Pleiss, Sun, Weinberger, 2017.
    https://arxiv.org/abs/1706.04599

    The confidence of a row is its largest probability. The rows are sorted into `bins` bins of equal width,
    $B_m$ holding the confidences in $(\frac{m-1}{M}, \frac{m}{M}]$, and

    $$ECE = \sum_{m=1}^{M} \frac{|B_m|}{N} \, \bigl| acc(B_m) - conf(B_m) \bigr|$$

    with the share of right predictions and the mean confidence in the bin. Empty bins add nothing.

    Args:
        probabilities: `[rows, classes]`, from 0 to 1, each row summing to 1 (within 0.001).
        labels: true classes as integers from 0 to classes - 1, `[rows]`.
        bins: number of bins, at least 1.

    Returns:
        The error, from 0 (perfectly calibrated) to 1.

    Raises:
        TypeError: if the labels or `bins` are not integers.
        ValueError: if the shapes do not fit, there is no row, a probability, a sum or a label is out of range, or
            `bins` is below 1.

    Example:
        >>> round(expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1]), 6)  # sure of 90 %, right in 50 %
        0.4
    """
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer):
        raise TypeError(f"bins is {bins!r}, but it must be an integer of at least 1.")
    if bins < 1:
        raise ValueError(f"bins is {bins}, but it must be at least 1.")
    probabilities, labels = _checked(probabilities, labels, "probabilities")
    # Written so that NaN fails the test too.
    if not ((probabilities >= -_RANGE_TOLERANCE) & (probabilities <= 1 + _RANGE_TOLERANCE)).all():
        raise ValueError("probabilities must lie between 0 and 1: apply softmax if these are logits.")
    if not (np.abs(probabilities.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        raise ValueError(f"Each row of probabilities must sum to 1 within {_SUM_TOLERANCE}, but some rows do not.")

    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # Comparing with the edges, and not multiplying by `bins`, keeps a confidence on an edge in the lower bin.
    members = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    gaps = np.bincount(members, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _checked(scores: ArrayLike, labels: ArrayLike, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return both as arrays, in float64 and int64, after checking shapes and labels."""
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(
            f"{name} has the shape {scores.shape}, but it must be [rows, classes] with 2 classes or more."
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels has the shape {labels.shape}, but {name} has {scores.shape[0]} rows: give one each.")
    if len(scores) == 0:
        raise ValueError(f"{name} has no rows: give at least one prediction.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels are of the type {labels.dtype}, but they must be integers (class numbers).")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}, but with {scores.shape[1]} classes they must lie "
            f"between 0 and {scores.shape[1] - 1}."
        )
    return scores, labels.astype(np.int64)
