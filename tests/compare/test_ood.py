"""Out-of-distribution scores against loops, SciPy, and numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from hf_mixup.compare.ood import auroc, fpr_at_95, max_probability, negative_energy


def test_scores_by_hand():
    logits = [[0.0, math.log(3)], [1000.0, 0.0]]
    assert max_probability(logits) == pytest.approx([0.75, 1.0])
    assert negative_energy(logits) == pytest.approx([math.log(4), 1000.0])


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_the_mann_whitney_statistic(seed):
    generator = np.random.default_rng(seed)
    inside, outside = generator.integers(3, 12, 40), generator.integers(0, 9, 25)  # with ties
    expected = mannwhitneyu(inside, outside).statistic / (40 * 25)
    assert auroc(inside, outside) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_fpr_equals_a_search_over_thresholds(seed):
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(1, 1, 57).round(1), generator.normal(0, 1, 31).round(1)
    thresholds = [t for t in np.unique(inside) if np.mean(inside >= t) >= 0.95]
    assert fpr_at_95(inside, outside) == pytest.approx(np.mean(outside >= max(thresholds)))


def test_perfect_and_no_separation():
    assert (auroc([2, 3], [0, 1]), fpr_at_95([2, 3], [0, 1])) == (1.0, 0.0)
    assert (auroc([1, 1], [1]), fpr_at_95([1, 1], [1])) == (0.5, 1.0)


def test_empty_scores_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        auroc([], [1.0])
