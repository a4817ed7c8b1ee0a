"""The statistics against SciPy, statsmodels, published tables, loops, and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hf_mixup.compare.packing import pack
from hf_mixup.compare.statistics import (
    Row,
    Setting,
    average_ranks,
    bootstrap_difference,
    holm,
    seed_difference,
    summarize,
)


def line(method: str, seed: int, correct: list[int], task: str = "trec", **measures: float) -> dict:
    """A run whose test rows are right where `correct` has a 1."""
    labels = np.arange(len(correct)) % 3
    predictions = np.where(correct, labels, labels + 1)
    cell = {"task": task, "model": "m", "size": "all", "noise": 0.0, "method": method, "seed": seed}
    return {
        "cell": cell,
        "rows": {"test": len(correct)},
        "metrics": {"accuracy": float(np.mean(correct))},
        "measures": measures,
        "cost": {"step_seconds": 0.1},
        "test": {"labels": pack(labels), "predictions": pack(predictions)},
    }


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed):
    p_values = np.random.default_rng(seed).uniform(0, 0.2, size=3 + seed)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-15)


def test_holm_by_hand():
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    missing = holm([0.02, math.nan, 0.03])
    assert (missing[0], missing[2]) == (0.04, 0.04) and math.isnan(missing[1])


def test_differences_over_seeds_equal_the_paired_t_test_of_scipy():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.82, 0.02, 5), generator.normal(0.80, 0.02, 5)
    expected = stats.ttest_rel(first, second)
    found = seed_difference(first, second)
    assert found.p == pytest.approx(expected.pvalue)
    for level in (0.95, 0.99):
        interval = expected.confidence_interval(level)
        assert found.interval(level) == pytest.approx((interval.low, interval.high))


def test_one_seed_and_equal_seeds():
    lone = seed_difference([0.8], [0.7])
    assert lone.mean == pytest.approx(0.1) and math.isnan(lone.p) and math.isnan(lone.interval(0.95)[0])
    same = seed_difference([0.5, 0.75], [0.5, 0.75])
    assert (same.mean, same.p, same.interval(0.95)) == (0.0, 1.0, (0.0, 0.0))


def test_bootstrap_of_one_seed_equals_that_of_scipy():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 2, (2, 1, 400)).astype(float)
    found = bootstrap_difference(first, second)
    resampled = stats.bootstrap(((first - second)[0],), np.mean, n_resamples=10_000, method="percentile")
    expected = resampled.confidence_interval
    assert found.mean == pytest.approx((first - second).mean())
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_bootstrap_equals_a_loop_over_draws():
    generator = np.random.default_rng(3)
    first = generator.normal(0.2, 1, (4, 30)) + generator.normal(0, 0.5, (4, 1))
    second = generator.normal(0, 1, (4, 30))
    error = stats.sem([np.mean(row) for row in first - second])
    means = []
    for _ in range(20_000):
        rows = generator.integers(0, 30, 30)
        means.append((first - second)[:, rows].mean() + error * generator.standard_t(3))
    found = bootstrap_difference(first, second, draws=20_000)
    for level in (0.5, 0.8, 0.95):
        expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
        assert list(found.interval(level)) == pytest.approx(expected, abs=0.1 * np.std(means))
    assert found.p == pytest.approx(2 * min(np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0)), abs=0.03)


def test_rows_that_all_say_the_same_leave_the_t_test_over_seeds():
    by_seed = np.array([0.1, 0.4, 0.2, 0.6, 0.3])
    found = bootstrap_difference(np.tile(by_seed[:, None], (1, 50)), np.zeros((5, 50)), draws=40_000)
    expected = stats.ttest_1samp(by_seed, 0)
    interval = expected.confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((interval.low, interval.high), abs=0.02)
    assert found.p == pytest.approx(expected.pvalue, rel=0.15)


@pytest.mark.parametrize(("of_seeds", "of_rows"), [(1.0, 0.3), (0.3, 1.0)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(of_seeds, of_rows):
    """Of a difference of 0 that seeds and rows both disturb; three standard errors of 400 trials are 3.3 %."""
    generator, hits = np.random.default_rng(4), 0
    for number in range(400):
        rows = generator.normal(0, of_rows * math.sqrt(80 / 5), (1, 80))
        disturbed = generator.normal(0, of_seeds, (5, 1)) + rows
        low, high = bootstrap_difference(disturbed, np.zeros((5, 80)), draws=400, seed=number).interval(0.95)
        hits += low <= 0 <= high
    assert 0.917 <= hits / 400 <= 0.99


@pytest.mark.parametrize(("plain", "mixed", "of_seeds"), [(0.99, 0.997, 0.002), (0.97, 0.02, 0.02)])
def test_bounded_intervals_of_accuracies_at_their_ends_cover_the_truth(plain, mixed, of_seeds):
    """Three seeds whose accuracies are near 0 or 1, on 300 rows that are about as hard for both methods."""
    generator, hits, most = np.random.default_rng(6), 0, []
    for number in range(300):
        hard, right = generator.normal(size=300), []
        for centre in (mixed, plain):
            accuracies = np.clip(generator.normal(centre, of_seeds, (3, 1)), 5e-4, 1 - 5e-4)
            noise = generator.normal(size=(3, 300))
            right.append((math.sqrt(0.9) * hard + math.sqrt(0.1) * noise < stats.norm.ppf(accuracies)).astype(float))
        low, high = bootstrap_difference(*right, draws=400, seed=number, possible=(0, 1)).interval(0.95)
        hits += low <= mixed - plain <= high
        most += [-low - right[1].mean(), high - (1 - right[1].mean())]
    # Three standard errors of 300 trials are 3.8 %.
    assert hits / 300 >= 0.912
    # Beyond what the mean of the second allows an interval goes by the noise of the rows alone.
    assert max(most) <= 3 * math.sqrt(0.25 / 300)


def test_intervals_stay_within_what_is_possible():
    # Two seeds, of which Student's t knows little: 0.99 and 0.7 against 0.98 and 0.9.
    def rows(accuracy: float) -> list[int]:
        return [1] * round(100 * accuracy) + [0] * round(100 * (1 - accuracy))

    runs = [line("none", seed, rows(each), pearson=each) for seed, each in ((1, 0.98), (2, 0.9))]
    runs += [line("amplify", seed, rows(each), pearson=each) for seed, each in ((1, 0.99), (2, 0.7))]
    mean, error = (0.01 - 0.2) / 2, 0.21 / 2
    assert mean - stats.t.ppf(0.975, 1) * error < -1  # without bounds
    found = {measure: summarize(runs, measure)[1] for measure in ("accuracy", "pearson")}
    # No accuracy is above 100 %, the rows of none being what they are: 94 % of them right, give or take.
    assert found["accuracy"].high == pytest.approx(1 - 0.94, abs=0.05)
    assert -1 <= found["accuracy"].low == pytest.approx(-0.94, abs=0.05)
    # Correlations differ by 2 at most.
    assert found["pearson"].low == pytest.approx(mean - stats.t.ppf(0.975, 1) * error)
    assert seed_difference([0.99, 0.7], [0.98, -0.9], possible=(-1, 1)).interval(0.95) == (-2, 2)


def test_bounds_change_no_p_value_and_no_draw_that_is_inside():
    generator = np.random.default_rng(7)
    first, second = generator.integers(0, 2, (2, 4, 60)).astype(float)
    free, bounded = bootstrap_difference(first, second), bootstrap_difference(first, second, possible=(0, 1))
    assert (free.mean, free.p) == (bounded.mean, bounded.p) and free.interval(0.95) == bounded.interval(0.95)


def test_one_seed_is_never_clear():
    runs = [line("none", 1, [0] * 50), line("amplify", 1, [1] * 50)]
    row = summarize(runs, "accuracy")[1]
    assert (row.difference, row.pairs, row.verdict) == (1.0, 1, "not clear")
    # Not even an interval: that over the rows would say nothing about other seeds.
    assert np.isnan([row.low, row.high, row.p, row.p_holm]).all()


def test_seeds_without_a_number_do_not_count():
    runs = [line("none", seed, [0, 1], pearson=0.5 + seed / 10) for seed in (1, 2, 3)]
    runs += [line("amplify", seed, [0, 1], pearson=value) for seed, value in ((1, 0.7), (2, None), (4, 0.9))]
    row = next(row for row in summarize(runs, "pearson") if row.method == "amplify")
    assert (row.seeds, row.pairs) == (2, 1) and row.difference == pytest.approx(0.1) and np.isnan(row.p)


def test_bootstrap_wants_equal_shapes():
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_difference(np.zeros((2, 3)), np.zeros((2, 4)))


def test_methods_that_change_nothing_are_not_clear_and_large_gains_are_better():
    generator = np.random.default_rng(5)
    runs = []
    for seed in range(1, 6):
        plain = (generator.random(300) < 0.6).astype(int)
        better = np.maximum(plain, (generator.random(300) < 0.4).astype(int))
        worse = np.minimum(plain, (generator.random(300) < 0.7).astype(int))
        for method, correct in (("none", plain), ("good", better), ("bad", worse), ("same", plain)):
            runs.append(line(method, seed, correct.tolist(), ece=1 - correct.mean()))
    rows = {row.method: row for row in summarize(runs, "accuracy")}
    assert {method: row.verdict for method, row in rows.items()} == {
        "none": "",
        "good": "better",
        "bad": "worse",
        "same": "not clear",
    }
    assert rows["same"].p_holm == 1 and rows["same"].difference == 0
    assert rows["good"].p_holm >= rows["good"].p
    # The smallest p-value of three is held against .05 / 3: a wider interval than that of 95 %.
    assert rows["good"].corrected_low <= rows["good"].low < rows["good"].high <= rows["good"].corrected_high
    # Of the calibration error less is better: the same runs the other way round.
    verdicts = {row.method: row.verdict for row in summarize(runs, "ece")}
    assert (verdicts["good"], verdicts["bad"]) == ("better", "worse")


def test_means_and_pairs_by_hand():
    runs = [
        line("none", 1, [1, 0, 0, 1]),
        line("none", 2, [1, 1, 0, 1]),
        line("amplify", 1, [1, 1, 0, 1]),
        line("amplify", 2, [1, 1, 1, 1]),
        line("amplify", 3, [0, 0, 0, 0]),  # none has no such seed
        line("none", 1, [1, 1, 1, 1], task="rte"),
    ]
    rows = summarize(runs, "accuracy")
    assert [(row.setting.task, row.method, row.seeds) for row in rows] == [
        ("trec", "none", 2),
        ("trec", "amplify", 3),
        ("rte", "none", 1),
    ]
    assert rows[0].mean == pytest.approx(0.625) and rows[0].sd == pytest.approx(math.sqrt(2) * 0.125)
    assert rows[1].mean == pytest.approx(1.75 / 3) and rows[1].difference == pytest.approx(0.25)
    assert math.isnan(rows[2].sd) and rows[2].difference is None


def rank_rows(table: dict[str, list[float]]) -> list[Row]:
    return [
        Row(Setting(f"task{number}", "m", "all", 0.0), method, 5, 5, value, 0.0)
        for method, values in table.items()
        for number, value in enumerate(values)
    ]


def test_average_ranks_by_hand_and_friedman_of_scipy():
    table = {"none": [0.7, 0.8, 0.6, 0.5], "a": [0.9, 0.8, 0.7, 0.6], "b": [0.6, 0.5, 0.65, 0.4]}
    found = average_ranks(rank_rows(table), "accuracy")
    # By task: none 2, 1.5, 3, 2; a 1, 1.5, 1, 1; b 3, 3, 2, 3.
    assert found.ranks == {"none": 2.125, "a": 1.125, "b": 2.75}
    assert found.settings == 4
    assert found.p == pytest.approx(stats.friedmanchisquare(*table.values()).pvalue)
    assert average_ranks(rank_rows(table), "nll").ranks["a"] == 2.875


# q at .05 for 2 to 10 classifiers, from table 5a of Demsar 2006.
@pytest.mark.parametrize(
    ("methods", "quantile"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_critical_difference_has_the_published_quantiles(methods, quantile):
    table = {str(method): [method / 100] * 6 for method in range(methods)}
    found = average_ranks(rank_rows(table), "accuracy").critical_difference
    assert found == pytest.approx(quantile * math.sqrt(methods * (methods + 1) / 36), rel=5e-4)


def test_ranks_that_are_all_tied_are_alike(recwarn):
    rows = [Row(Setting(task, "minilm", "all", 0.0), method, 2, 2, 0.5, 0.1) for task in "ab" for method in "xyz"]
    ranks = average_ranks(rows, "accuracy")
    assert ranks.p == 1.0 and set(ranks.ranks.values()) == {2.0} and not recwarn.list


def test_settings_without_all_methods_have_no_ranks():
    rows = rank_rows({"none": [0.5, 0.6], "a": [0.6]})
    assert average_ranks(rows, "accuracy").settings == 1
    with pytest.raises(ValueError, match="two methods"):
        average_ranks(rows[:1], "accuracy")
