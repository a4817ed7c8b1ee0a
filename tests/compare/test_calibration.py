"""Calibration measures against scikit-learn, loops written out, and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from hf_mixup.compare import (
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)


def random_case(seed: int, rows: int = 200, classes: int = 5, scale: float = 2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=scale, size=(rows, classes)), rng.integers(classes, size=rows)


def loop_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The paper's formula, bin by bin and row by row."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = []
        for row, label in zip(probabilities, labels, strict=True):
            confidence = max(row)
            if (m - 1) / bins < confidence <= m / bins:
                inside.append((confidence, int(np.argmax(row)) == label))
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_nll_equals_log_loss_of_scikit_learn(seed):
    logits, labels = random_case(seed)
    expected = log_loss(labels, softmax(logits, axis=1), labels=range(5))
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_nll_of_log_probabilities_equals_that_of_logits():
    logits, labels = random_case(7)
    log_probabilities = np.log(softmax(logits, axis=1))
    assert negative_log_likelihood(log_probabilities, labels) == pytest.approx(negative_log_likelihood(logits, labels))


def test_nll_by_hand():
    log_probabilities = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert negative_log_likelihood(log_probabilities, [1, 2]) == pytest.approx((math.log(4) - math.log(0.8)) / 2)
    assert negative_log_likelihood(np.zeros((3, 12)), [0, 5, 11]) == pytest.approx(math.log(12))


def test_nll_of_certain_predictions():
    scores = [[0.0, -np.inf], [-np.inf, 0.0]]
    assert str(negative_log_likelihood(scores, [0, 1])) == "0.0"
    assert negative_log_likelihood(scores, [0, 0]) == np.inf


def test_nll_is_stable_for_large_logits():
    assert negative_log_likelihood([[1e4, 0.0]], [1]) == pytest.approx(1e4)


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
@pytest.mark.parametrize("seed", range(3))
def test_ece_equals_the_loop(seed, bins):
    logits, labels = random_case(seed)
    probabilities = softmax(logits, axis=1)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(
        loop_ece(probabilities, labels, bins), abs=1e-12
    )


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(1, 20),
)
@settings(max_examples=100, deadline=None)
def test_ece_equals_the_loop_on_bin_edges(cases, bins):
    # Multiples of 1/60 fall on the edges of most numbers of bins; float error there must not move a row.
    first = np.array([numerator / 60 for numerator, _ in cases])
    probabilities = np.stack([first, (1 - first) / 2, (1 - first) / 2], axis=1)
    labels = np.array([label for _, label in cases])
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(
        loop_ece(probabilities, labels, bins), abs=1e-12
    )


def test_ece_by_hand():
    # Bin (0.8, 1]: confidences 0.9 and 1.0, both right: gap 0.05. Bin (0.4, 0.6]: 0.6 and 0.6, one right: gap 0.1.
    probabilities = [[0.9, 0.1], [0.0, 1.0], [0.6, 0.4], [0.6, 0.4]]
    labels = [0, 1, 0, 1]
    assert expected_calibration_error(probabilities, labels, bins=5) == pytest.approx(0.5 * 0.05 + 0.5 * 0.1)


@pytest.mark.parametrize(("label", "expected"), [(0, 0.0), (1, 1.0)])
def test_ece_of_probability_one(label, expected):
    assert expected_calibration_error([[1.0, 0.0]], [label]) == expected


def test_ece_with_one_bin_is_the_gap_of_the_means():
    logits, labels = random_case(3)
    probabilities = softmax(logits, axis=1)
    gap = abs((probabilities.argmax(1) == labels).mean() - probabilities.max(1).mean())
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(gap)


def test_ece_of_a_calibrated_model_is_small():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=50_000)
    labels = (rng.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert expected_calibration_error(probabilities, labels) < 0.02
    assert expected_calibration_error(probabilities, (labels + 1) % 3) > 0.2


def test_float32_probabilities_are_taken():
    logits, labels = random_case(5)
    probabilities = softmax(logits.astype(np.float32), axis=1)
    assert probabilities.dtype == np.float32
    assert expected_calibration_error(probabilities, labels) == pytest.approx(
        expected_calibration_error(softmax(logits, axis=1), labels), abs=1e-5
    )


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize("measure", [negative_log_likelihood, expected_calibration_error])
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        ([0.5, 0.5], [0, 1], ValueError, r"shape \(2,\)"),
        ([[1.0], [1.0]], [0, 0], ValueError, "2 classes or more"),
        (GOOD, [0, 1, 1], ValueError, "has 2 rows"),
        (GOOD, [[0], [1]], ValueError, "labels has the shape"),
        (np.empty((0, 2)), np.empty(0, dtype=int), ValueError, "no rows"),
        (GOOD, [0.0, 1.0], TypeError, "must be integers"),
        (GOOD, [0, 2], ValueError, "between 0 and 1"),
        (GOOD, [-1, 1], ValueError, "go from -1 to 1"),
        ([[np.nan, 0.5], [0.2, 0.8]], [0, 1], ValueError, "must"),
        ([[np.inf, 0.5], [0.2, 0.8]], [0, 1], ValueError, "must"),
        ([[-np.inf, -np.inf], [0.2, 0.8]], [0, 1], ValueError, "must"),
    ],
)
def test_what_does_not_fit_is_refused(measure, scores, labels, error, message):
    with pytest.raises(error, match=message):
        measure(scores, labels)


@pytest.mark.parametrize(
    ("probabilities", "bins", "error", "message"),
    [
        ([[1.2, -0.2]], 15, ValueError, "between 0 and 1"),
        ([[0.2, 0.2]], 15, ValueError, "sum to 1"),
        ([[0.5, 0.5]], 0, ValueError, "at least 1"),
        ([[0.5, 0.5]], 2.5, TypeError, "integer"),
        ([[0.5, 0.5]], True, TypeError, "integer"),
    ],
)
def test_ece_refuses_what_is_out_of_range(probabilities, bins, error, message):
    with pytest.raises(error, match=message):
        expected_calibration_error(probabilities, [0], bins)


def random_probabilities(seed: int, rows: int = 97, classes: int = 4):
    logits, labels = random_case(seed, rows, classes)
    return softmax(logits, axis=1), labels


@pytest.mark.parametrize("seed", range(3))
def test_brier_score_of_two_classes_is_twice_that_of_scikit_learn(seed):
    probabilities, labels = random_probabilities(seed, classes=2)
    assert brier_score(probabilities, labels) == pytest.approx(2 * brier_score_loss(labels, probabilities[:, 1]))


def test_brier_score_equals_a_loop():
    probabilities, labels = random_probabilities(3)
    total = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        total += sum((value - (1.0 if index == label else 0.0)) ** 2 for index, value in enumerate(row))
    assert brier_score(probabilities, labels) == pytest.approx(total / len(labels))


@pytest.mark.parametrize(("seed", "rows", "bins"), [(0, 90, 15), (1, 97, 15), (2, 7, 15), (3, 50, 1)])
def test_adaptive_error_equals_a_loop(seed, rows, bins):
    probabilities, labels = random_probabilities(seed, rows)
    ordered = sorted(
        (max(row), int(np.argmax(row)) == label) for row, label in zip(probabilities.tolist(), labels, strict=True)
    )
    total, start = 0.0, 0
    for number in range(bins):
        size = rows // bins + (number < rows % bins)
        part, start = ordered[start : start + size], start + size
        if part:
            accuracy = sum(hit for _, hit in part) / size
            total += size / rows * abs(accuracy - sum(value for value, _ in part) / size)
    assert adaptive_calibration_error(probabilities, labels, bins) == pytest.approx(total)


def test_reliability_bins_by_hand():
    probabilities = [[0.5, 0.5], [0.7, 0.3], [0.1, 0.9], [0.05, 0.95], [1.0, 0.0]]
    count, confidence, accuracy = reliability_bins(probabilities, [0, 1, 1, 0, 0], bins=4)
    # (0.25, 0.5]: the first row; (0.5, 0.75]: the second; above: the others, two of three right.
    assert count.tolist() == [0, 1, 1, 3]
    assert confidence == pytest.approx([0, 0.5, 0.7, 2.85 / 3])
    assert accuracy == pytest.approx([0, 1, 0, 2 / 3])


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_of_two_classes_is_a_logistic_regression(scale):
    """Without intercept and penalty, on the difference of the logits, its coefficient is 1 / T."""
    generator = np.random.default_rng(8)
    difference = generator.normal(0, 2, 400)
    labels = (generator.random(400) < 1 / (1 + np.exp(-difference))).astype(int)
    logits = scale * np.stack([np.zeros(400), difference], axis=1)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(logits[:, 1:] - logits[:, :1], labels)
    assert fit_temperature(logits, labels) == pytest.approx(1 / fitted.coef_[0, 0], rel=1e-3)


def test_temperature_of_many_classes_equals_gradient_descent_of_torch():
    logits, _ = random_case(9, rows=300, classes=6, scale=3.0)
    generator = np.random.default_rng(10)
    labels = np.array([generator.choice(6, p=row) for row in softmax(logits / 2.5, axis=1)])
    scores, targets = torch.tensor(logits), torch.tensor(labels)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(scores * inverse, targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(1 / inverse.item(), rel=1e-4)


def test_temperature_stays_in_its_range():
    assert fit_temperature([[1.0, 0.0]] * 3, [0, 0, 0]) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature([[1.0, 0.0]] * 4, [0, 0, 1, 1]) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("measure", [brier_score, adaptive_calibration_error, reliability_bins])
def test_new_measures_refuse_logits(measure):
    with pytest.raises(ValueError, match="softmax"):
        measure([[3.0, -2.0]], [0])
