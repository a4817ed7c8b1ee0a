"""Thresholds: what they accept counted by hand, their bounds against the formula and against many draws."""

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_mixup.calibrate.thresholds import Threshold, thresholds

# 0, 0.05 to 0.90, and 0.91 to 0.99.
ALL = 1 + 18 + 9


def test_what_is_accepted_and_how_much_of_it_is_right():
    probabilities = np.array([0.3, 0.5, 0.5, 0.93, 0.99])
    right = np.array([False, True, False, True, True])
    found = {each.at: each for each in thresholds(probabilities, right)}
    assert len(found) == ALL
    for at, accepted, hits in ((0.0, 5, 3), (0.3, 5, 3), (0.35, 4, 3), (0.5, 4, 3), (0.55, 2, 2), (0.93, 2, 2)):
        assert (found[at].accepted, found[at].right) == (accepted, hits)
        assert found[at].precision == hits / accepted
    assert found[0.99].accepted == 1
    # What accepts nothing says nothing.
    assert [each.at for each in thresholds(np.array([0.4]), np.array([True]))][-1] == 0.4
    assert thresholds(np.array([]), np.array([], dtype=bool)) == []


@pytest.mark.parametrize(("lowest", "tried"), [(0.0, ALL), (0.5, 1 + 8 + 9)])
def test_the_bound_is_that_of_clopper_and_pearson_for_all_thresholds_at_once(lowest, tried):
    for hits in (95, 100, 1, 0):
        first = thresholds(np.full(100, 0.97), np.arange(100) < hits, lowest)[0]
        bound = binomtest(hits, 100, alternative="greater").proportion_ci(1 - 0.05 / tried, "exact").low
        assert first == Threshold(0.0, 100, hits, pytest.approx(bound))


def test_the_bound_holds_for_the_threshold_that_is_chosen_by_it():
    """Probabilities from 0.5 to 1 that are right as often as they say: from t on the precision is (1 + t) / 2."""
    generator = np.random.default_rng(0)
    missed = {"precision": 0, "at_least": 0}
    draws = 200
    for _ in range(draws):
        probabilities = generator.uniform(0.5, 1, 300)
        found = thresholds(probabilities, generator.random(300) < probabilities, lowest=0.5)
        for name in missed:
            chosen = next((each.at for each in found if getattr(each, name) >= 0.85), 1.0)
            missed[name] += (1 + max(chosen, 0.5)) / 2 < 0.85
    assert missed["at_least"] <= 0.05 * draws
    # The precision on the same rows is chosen for being high, and promises too much.
    assert missed["precision"] > 0.1 * draws
