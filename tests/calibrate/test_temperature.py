"""The temperature and its measures against scipy, scikit-learn and a grid."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import log_loss

from hf_mixup.calibrate.temperature import Question, best_temperature, measures, questions, scaled_by_others


def drawn(rows=300, classes=4, temperature=2.5, seed=0) -> Question:
    """Logits whose probabilities are right when they are divided by the temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, (rows, classes))
    labels = [generator.choice(classes, p=row) for row in softmax(logits / temperature, axis=1)]
    return Question(None, logits, np.array(labels))


def of_a_grid(logits, labels) -> float:
    """The temperature with the least NLL, to a thousandth."""

    def best(temperatures):
        losses = [-log_softmax(logits / each, axis=1)[np.arange(len(labels)), labels].mean() for each in temperatures]
        return temperatures[int(np.argmin(losses))]

    rough = best(np.exp(np.arange(np.log(0.1), np.log(10), 0.04)))
    return best(rough * np.exp(np.arange(-0.04, 0.04, 1e-3)))


def test_each_row_is_divided_by_what_fits_the_other_parts():
    asked = drawn(rows=103)
    divisors = (asked.logits / scaled_by_others(asked, seed=3)).mean(axis=1)
    different, part, counts = np.unique(divisors.round(9), return_inverse=True, return_counts=True)
    assert sorted(counts) == [20, 20, 21, 21, 21]
    for number, divisor in enumerate(different):
        others = part != number
        assert divisor == pytest.approx(of_a_grid(asked.logits[others], asked.labels[others]), rel=1e-3)
    again, other = (scaled_by_others(asked, seed) for seed in (3, 4))
    np.testing.assert_allclose(again, asked.logits / divisors[:, None])
    assert not np.allclose(again, other)


def test_two_wrong_rows_are_enough_for_every_part():
    logits = np.array([[3.0, 0.0]] * 30)
    labels = np.array([0] * 28 + [1] * 2)
    asked = Question(None, logits, labels)
    for seed in range(5):
        divisors = logits[:, 0] / scaled_by_others(asked, seed)[:, 0]
        # Right in 23 of 24 rows, with or without the other wrong row: 3 / log(23), 3 / log(11).
        assert set(divisors.round(4)) == {round(3 / np.log(23), 4), round(3 / np.log(11), 4)}


def test_there_is_no_best_temperature_where_all_is_right_or_nothing_fits():
    asked = drawn()
    assert best_temperature(asked) == pytest.approx(of_a_grid(asked.logits, asked.labels), rel=1e-3)
    assert best_temperature(asked) == pytest.approx(2.5, rel=0.15)
    assert best_temperature(Question(None, asked.logits, asked.logits.argmax(axis=1))) is None
    assert best_temperature(Question(None, asked.logits, asked.logits.argmin(axis=1))) is None


def test_a_class_of_several_is_a_question_of_yes_or_no():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 2, (50, 2)), generator.integers(0, 2, (50, 2)).astype(float)
    asked = questions(logits, labels.tolist(), ["a", "b"])
    assert [each.name for each in asked] == ["a", "b"]
    for index, each in enumerate(asked):
        np.testing.assert_allclose(softmax(each.logits, axis=1)[:, 1], expit(logits[:, index]))
        assert each.labels.tolist() == labels[:, index].tolist()
        wanted = log_loss(labels[:, index], expit(logits[:, index]))
        assert measures(each.logits, each.labels)["nll"] == pytest.approx(wanted)


def test_the_measures():
    # Sure of 3/4 in both rows, right in one: ECE 1/4, Brier (2/16 + 18/16) / 2, NLL of 3/4 and 1/4.
    found = measures([[np.log(3), 0.0]] * 2, [0, 1])
    assert found == pytest.approx({"nll": np.log(16 / 3) / 2, "ece": 0.25, "brier": 0.625})
