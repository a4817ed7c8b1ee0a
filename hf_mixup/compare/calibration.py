r"""Do the probabilities of a classifier mean what they say? Measures on held-out predictions, in plain numpy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_SUM_TOLERANCE = 1e-3
_RANGE_TOLERANCE = 1e-6
# Where the best temperature is looked for.
TEMPERATURES = (0.05, 20.0)


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
    count, confidence, accuracy = reliability_bins(probabilities, labels, bins)
    return float((count * np.abs(accuracy - confidence)).sum() / count.sum())


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    r"""What a reliability diagram shows: bins of equal width of the confidence, as for the expected calibration error.

    Args:
        probabilities: `[rows, classes]`, from 0 to 1, each row summing to 1 (within 0.001).
        labels: true classes as integers from 0 to classes - 1, `[rows]`.
        bins: number of bins, at least 1.

    Returns:
        For each bin, `[bins]`: the number of its rows, their mean confidence and their share of right predictions;
        the last two are 0 in an empty bin.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Example:
        >>> count, confidence, accuracy = reliability_bins([[0.9, 0.1], [0.9, 0.1]], [0, 1], bins=2)
        >>> count.tolist(), confidence.tolist(), accuracy.tolist()
        ([0, 2], [0.0, 0.9], [0.0, 0.5])
    """
    confidence, correct = _confidence(probabilities, labels, bins)
    # Comparing with the edges, and not multiplying by `bins`, keeps a confidence on an edge in the lower bin.
    members = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    count = np.bincount(members, minlength=bins)
    filled = np.maximum(count, 1)
    means = (np.bincount(members, weights=values, minlength=bins) / filled for values in (confidence, correct))
    return count, *means


def adaptive_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    r"""Calibration error over bins that hold equally many rows, and not equally much of the confidence.

    Paper: Posterior Calibration and Exploratory Analysis for Natural Language Processing Models. Nguyen, O'Connor,
    2015. https://arxiv.org/abs/1508.05154

    The formula is that of `expected_calibration_error`; the bins are the rows in the order of their confidence, cut
    into `bins` parts of equal size (the first ones hold one row more where that does not come out even). Rows of equal
    confidence stay in their order. With fewer rows than bins each row is a bin.

    Args:
        probabilities: `[rows, classes]`, from 0 to 1, each row summing to 1 (within 0.001).
        labels: true classes as integers from 0 to classes - 1, `[rows]`.
        bins: number of bins, at least 1.

    Returns:
        The error, from 0 (perfectly calibrated) to 1.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Example:
        >>> adaptive_calibration_error([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], [0, 0, 0, 1], bins=2)
        0.125
    """
    confidence, correct = _confidence(probabilities, labels, bins)
    order = np.argsort(confidence, kind="stable")
    gaps = [abs((correct[part] - confidence[part]).sum()) for part in np.array_split(order, bins)]
    return float(sum(gaps) / len(order))


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    r"""Mean squared distance of the probabilities from the true class, summed over the classes.

    Paper: Verification of Forecasts Expressed in Terms of Probability. Brier, 1950, Monthly Weather Review 78.

    $$BS = \frac{1}{N} \sum_{i=1}^{N} \sum_c \bigl( p_i(c) - [c = y_i] \bigr)^2$$

    Args:
        probabilities: `[rows, classes]`, from 0 to 1, each row summing to 1 (within 0.001).
        labels: true classes as integers from 0 to classes - 1, `[rows]`.

    Returns:
        The score, from 0 (certain and right) to 2 (certain and wrong).

    Raises:
        TypeError, ValueError: as `expected_calibration_error`.

    Example:
        >>> brier_score([[0.5, 0.5], [1.0, 0.0]], [0, 0])
        0.25
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    r"""The temperature that makes the probabilities of held-out rows fit best: $softmax(z / T)$ with the least NLL.

    Paper: On Calibration of Modern Neural Networks. Guo, Pleiss, Sun, Weinberger, 2017.
    https://arxiv.org/abs/1706.04599

    The NLL is convex in $1 / T$, so there is one minimum. It has none inside the range if every row is right (T goes
    to 0) or if the logits say nothing (T goes to infinity); the result then is an end of the range.

    Args:
        logits: `[rows, classes]` of rows that the model was not trained on.
        labels: true classes as integers from 0 to classes - 1, `[rows]`.

    Returns:
        The temperature, from 0.05 to 20. Dividing by it changes no prediction.

    Raises:
        TypeError, ValueError: as `negative_log_likelihood`.

    Example:
        >>> import math
        >>> temperature = fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1])  # sure of 88 %, right in 75 %
        >>> round(temperature, 3), round(2 / math.log(3), 3)
        (1.82, 1.82)
    """
    logits = np.asarray(logits, dtype=np.float64)
    bounds = np.log(TEMPERATURES)
    # The range is searched in log T, in which the minimum is just as single.
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits / np.exp(log_t), labels),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _confidence(
    probabilities: ArrayLike, labels: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The largest probability of each row, and whether its class is the true one, after checking the arguments."""
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer):
        raise TypeError(f"bins is {bins!r}, but it must be an integer of at least 1.")
    if bins < 1:
        raise ValueError(f"bins is {bins}, but it must be at least 1.")
    probabilities, labels = _checked_probabilities(probabilities, labels)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _checked_probabilities(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    probabilities, labels = _checked(probabilities, labels, "probabilities")
    # Written so that NaN fails the test too.
    if not ((probabilities >= -_RANGE_TOLERANCE) & (probabilities <= 1 + _RANGE_TOLERANCE)).all():
        raise ValueError("probabilities must lie between 0 and 1: apply softmax if these are logits.")
    if not (np.abs(probabilities.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        raise ValueError(f"Each row of probabilities must sum to 1 within {_SUM_TOLERANCE}, but some rows do not.")
    return probabilities, labels


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
