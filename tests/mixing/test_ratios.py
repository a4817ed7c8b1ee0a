"""The distributions of lambda."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_mixup.mixing import BatchWeights, Ratio

SIZE = 20_000


def draw(seed=0, **options):
    return Ratio(**options).draw(np.random.default_rng(seed), SIZE)


def test_beta():
    for alpha in (0.1, 0.4, 1.0, 8.0):
        drawn = draw(kind="beta", alpha=alpha)
        assert drawn.dtype == np.float32
        # Rounding to float32 ties the smallest and largest draws, so only the middle is compared.
        middle = drawn[(drawn > 1e-4) & (drawn < 1 - 1e-4)].astype(float)
        law = stats.beta(alpha, alpha)
        low, high = law.cdf(1e-4), law.cdf(1 - 1e-4)
        assert (
            stats.kstest(middle, lambda x, low=low, high=high, law=law: (law.cdf(x) - low) / (high - low)).pvalue
            > 1e-3
        )


def test_beta_max_keeps_the_own_row_ahead():
    drawn = draw(kind="beta-max", alpha=0.5)
    assert drawn.min() >= 0.5
    law = stats.beta(0.5, 0.5)
    assert (
        stats.kstest(drawn[drawn < 1 - 1e-4], lambda x: (2 * law.cdf(x) - 1) / (2 * law.cdf(1 - 1e-4) - 1)).pvalue
        > 1e-3
    )


def test_amplify_draws_a_float32_one_in_37_percent_of_the_batches():
    drawn = draw(kind="max-of-n", alpha=0.1, draws=5)
    # P(max of 5 <= x) = F(x)^5; a double rounds to the float32 1 above 1 - 2^-25.
    expected = 1 - stats.beta(0.1, 0.1).cdf(1 - 2.0**-25) ** 5
    assert expected == pytest.approx(0.37, abs=0.01)
    assert (drawn == 1).mean() == pytest.approx(expected, abs=0.012)
    assert drawn.mean() == pytest.approx(0.962, abs=0.005)
    assert (drawn < 0.5).mean() == pytest.approx(0.5**5, abs=0.005)


def test_max_of_one_is_beta():
    np.testing.assert_array_equal(draw(kind="max-of-n", alpha=0.7, draws=1), draw(kind="beta", alpha=0.7))


@given(st.floats(0, 1))
def test_constant(lam):
    assert (Ratio("constant", lam=lam).draw(np.random.default_rng(0), 3) == np.float32(lam)).all()


@given(st.sampled_from(["beta", "beta-max"]), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_every_ratio_is_a_share(kind, alpha, seed):
    drawn = Ratio(kind, alpha=alpha).draw(np.random.default_rng(seed), 16)
    assert ((drawn >= 0) & (drawn <= 1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "gauss", "alpha": 1.0},
            "mixup_ratio='gauss' is unknown: choose one of beta, beta-max, max-of-n, constant",
        ),
        ({"kind": "beta"}, "needs mixup_alpha"),
        ({"kind": "beta", "alpha": 0.0}, "mixup_alpha=0.0 is not allowed: give a finite number above 0"),
        ({"kind": "beta", "alpha": -1.0}, "mixup_alpha=-1.0 is not allowed"),
        ({"kind": "beta", "alpha": float("nan")}, "mixup_alpha=nan is not allowed"),
        ({"kind": "beta", "alpha": float("inf")}, "mixup_alpha=inf is not allowed"),
        ({"kind": "max-of-n", "alpha": 1.0}, "needs mixup_draws"),
        ({"kind": "max-of-n", "alpha": 1.0, "draws": 0}, "mixup_draws=0 is not allowed"),
        ({"kind": "beta", "alpha": 1.0, "draws": 3}, "mixup_draws=3 is not used by mixup_ratio='beta'"),
        ({"kind": "constant"}, "needs mixup_lambda"),
        ({"kind": "constant", "lam": 1.5}, "mixup_lambda=1.5 is not allowed: give a number from 0 to 1"),
        ({"kind": "constant", "lam": 0.5, "alpha": 1.0}, "mixup_alpha=1.0 is not used"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        Ratio(**options)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kind": "softmax-beta", "points": 6, "alpha": 0.5, "temperature": 1.0}, (6, 4, 3)),
        ({"kind": "softmax-beta", "points": 6, "alpha": 1.0, "temperature": 0.1}, (6, 4, 3)),
        ({"kind": "softmax-uniform", "points": 6, "temperature": 2.0}, (6, 4)),
        ({"kind": "pairs", "points": 2, "alpha": 0.4}, (32, 4)),
    ],
)
def test_batch_weights_sum_to_one_over_the_batch(options, shape):
    weights = BatchWeights(**options).draw(np.random.default_rng(0), rows=4, features=3)
    assert tuple(weights.shape) == shape and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(dim=1), 1, atol=1e-6)


def test_softmax_weights_are_the_softmax_of_the_draws():
    for temperature in (1.0, 0.2):
        weights = BatchWeights("softmax-uniform", points=3, temperature=temperature).draw(
            np.random.default_rng(5), 4, 9
        )
        seed = int(np.random.default_rng(5).integers(2**62))
        draws = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)).numpy() / temperature
        np.testing.assert_allclose(weights, np.exp(draws) / np.exp(draws).sum(axis=1, keepdims=True), rtol=1e-5)
        assert (weights.amax(dim=1) / weights.amin(dim=1)).max() <= np.exp(1 / temperature)
    beta = BatchWeights("softmax-beta", points=3, alpha=0.3, temperature=1.0).draw(np.random.default_rng(5), 4, 2)
    draws = np.random.default_rng(5).beta(0.3, 0.3, (3, 4, 2))
    np.testing.assert_allclose(beta, np.exp(draws) / np.exp(draws).sum(axis=1, keepdims=True), rtol=1e-5)


def test_pairs_are_all_ordered_pairs_with_one_ratio_a_draw():
    weights = BatchWeights("pairs", points=2, alpha=0.4).draw(np.random.default_rng(3), 3, 9).numpy()
    ratios = np.random.default_rng(3).beta(0.4, 0.4, (2, 1, 1)).ravel()
    expected = [
        [lam * (b == i) + (1 - lam) * (b == j) for b in range(3)] for lam in ratios for i in range(3) for j in range(3)
    ]
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dirichlet", "points": 1}, "kind='dirichlet' is unknown"),
        ({"kind": "pairs", "points": 0, "alpha": 1.0}, "mixup_points=0 is not allowed"),
        ({"kind": "pairs", "points": 1}, "mixup_alpha=None is not allowed"),
        ({"kind": "pairs", "points": 1, "alpha": 1.0, "temperature": 1.0}, "mixup_temperature=1.0 is not used"),
        ({"kind": "softmax-uniform", "points": 1, "temperature": 0.0}, "mixup_temperature=0.0 is not allowed"),
        ({"kind": "softmax-uniform", "points": 1, "temperature": 1.0, "alpha": 1.0}, "mixup_alpha=1.0 is not used"),
    ],
)
def test_batch_weights_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        BatchWeights(**options)
