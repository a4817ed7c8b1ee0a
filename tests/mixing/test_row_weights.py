"""The losses of rows that count differently, against plain loops in float64."""

import math

import numpy as np
import pytest
import torch

from hf_mixup.mixing import BatchPlan, Objective, PairPlan, SpanPlan, weighted_mean

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
ROWS, CLASSES = 6, 3
PARTNER = [2, 0, 1, 5, 3, 4]
ROW_WEIGHTS = [2.0, 0.25, 0.0, 1.0, 3.5, 0.7]
CLASS_WEIGHTS = [0.5, 2.0, 1.0]
KINDS = {
    "ids": (SINGLE, {}),
    "ids, weighted classes, smoothed": (SINGLE, {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1}),
    "soft": (SINGLE, {}),
    "soft, weighted classes": (SINGLE, {"class_weights": CLASS_WEIGHTS}),
    "lists": (MULTI, {}),
    "scores": (REGRESSION, {}),
}


def labels_of(kind, generator):
    if kind.startswith("ids"):
        return np.array([0, -100, 2, 1, 1, 0])
    if kind.startswith("soft"):
        return generator.dirichlet(np.ones(CLASSES), ROWS)
    if kind == "lists":
        labels = generator.integers(0, 2, (ROWS, CLASSES)).astype(float)
        labels[1] = -100
        return labels
    return generator.normal(size=ROWS)


def term(kind, logits, label, options):
    """The loss of one row to one label, and the weight of that label."""
    classes = options.get("class_weights", [1.0] * CLASSES)
    smoothing = options.get("label_smoothing", 0.0)
    if kind == "scores":
        return (logits[0] - label) ** 2, 1.0
    if np.any(np.asarray(label) == -100):
        return 0.0, 0.0
    if kind == "lists":
        loss = 0.0
        for z, y in zip(logits, label, strict=True):
            p = 1 / (1 + math.exp(-z))
            loss -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / CLASSES
        return loss, 1.0
    log_p = [z - math.log(sum(math.exp(other) for other in logits)) for z in logits]
    target = label if np.ndim(label) else np.eye(CLASSES)[label]
    loss = -sum(((1 - smoothing) * target[c] + smoothing / CLASSES) * classes[c] * log_p[c] for c in range(CLASSES))
    return loss, sum(target[c] * classes[c] for c in range(CLASSES))


def plain_terms(kind, logits, labels, row_weights, options):
    rows = [term(kind, logits[i], labels[i], options) for i in range(len(labels))]
    return [[r * loss, r * weight] for r, (loss, weight) in zip(row_weights, rows, strict=True)]


def mixed_terms(kind, logits, labels, row_weights, options, share):
    rows = []
    for i, j in enumerate(PARTNER):
        if kind == "scores":
            weight = share[i] * row_weights[i] + (1 - share[i]) * row_weights[j]
            target = share[i] * labels[i] + (1 - share[i]) * labels[j]
            rows.append([weight * (logits[i][0] - target) ** 2, weight])
            continue
        own, theirs = (term(kind, logits[i], labels[row], options) for row in (i, j))
        rows.append(
            [
                share[i] * row_weights[i] * a + (1 - share[i]) * row_weights[j] * b
                for a, b in zip(own, theirs, strict=True)
            ]
        )
    return rows


def case(kind):
    problem_type, options = KINDS[kind]
    generator = np.random.default_rng(3)
    labels = labels_of(kind, generator)
    logits = generator.normal(size=(2 * ROWS, 1 if kind == "scores" else CLASSES)) * 2
    tensors = {"class_weights": torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)} if "weighted" in kind else {}
    return Objective(problem_type, **{**options, **tensors}), logits, labels, options, generator.random(ROWS)


def compare(objective, logits, labels, plan, expected):
    weights = torch.tensor(ROW_WEIGHTS, dtype=torch.float64)
    logits, labels = torch.from_numpy(logits), torch.from_numpy(labels)
    losses, totals = objective(logits, labels, plan, row_weights=weights)
    np.testing.assert_allclose(losses.numpy(), [loss for loss, _ in expected], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(totals.numpy(), [weight for _, weight in expected], rtol=1e-6, atol=1e-7)
    mean = sum(loss for loss, _ in expected) / sum(weight for _, weight in expected)
    assert weighted_mean(losses, totals).item() == pytest.approx(mean, rel=1e-7)
    np.testing.assert_allclose(objective.weights(labels, plan, weights).numpy(), totals.numpy(), rtol=1e-6, atol=1e-7)


def pairs(share, clean_weight=None):
    weight = torch.from_numpy(share).reshape(-1, 1, 1)
    return PairPlan(torch.tensor(PARTNER), weight, "logits", clean_weight=clean_weight)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_and_mixed_rows(kind):
    objective, logits, labels, options, share = case(kind)
    plain = plain_terms(kind, logits[:ROWS], labels, ROW_WEIGHTS, options)
    compare(objective, logits[:ROWS], labels, None, plain)
    mixed = mixed_terms(kind, logits[:ROWS], labels, ROW_WEIGHTS, options, share)
    compare(objective, logits[:ROWS], labels, pairs(share), mixed)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_rows_that_are_trained_along(kind):
    objective, logits, labels, options, share = case(kind)
    clean = plain_terms(kind, logits[:ROWS], labels, ROW_WEIGHTS, options)
    mixed = mixed_terms(kind, logits[ROWS:], labels, ROW_WEIGHTS, options, share)
    expected = 0.3 * np.array(clean) + 0.7 * np.array(mixed)
    compare(objective, logits, labels, pairs(share, clean_weight=0.3), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_both_passes_of_swapped_spans(kind):
    objective, logits, labels, options, share = case(kind)
    plan = SpanPlan(torch.tensor(PARTNER), torch.tensor([0]), clean_weight=0.4, label_weight=torch.from_numpy(share))
    weights, tensors = torch.tensor(ROW_WEIGHTS, dtype=torch.float64), torch.from_numpy(labels)
    clean_plan = SpanPlan(plan.partner, plan.special_ids, clean_weight=0.4)
    clean = objective(torch.from_numpy(logits[:ROWS]), tensors, clean_plan, row_weights=weights)
    mixed = objective(torch.from_numpy(logits[ROWS:]), tensors, plan, row_weights=weights)
    expected = 0.4 * np.array(plain_terms(kind, logits[:ROWS], labels, ROW_WEIGHTS, options))
    np.testing.assert_allclose(torch.stack(clean, dim=1).numpy(), expected, rtol=1e-6, atol=1e-7)
    expected_mixed = 0.6 * np.array(mixed_terms(kind, logits[ROWS:], labels, ROW_WEIGHTS, options, share))
    np.testing.assert_allclose(torch.stack(mixed, dim=1).numpy(), expected_mixed, rtol=1e-6, atol=1e-7)
    # The divisor of both passes together, before either of them.
    total = objective.weights(tensors, plan, weights).sum().item()
    assert total == pytest.approx((expected + expected_mixed)[:, 1].sum(), rel=1e-6)


@pytest.mark.parametrize("kind", [kind for kind, (problem_type, _) in KINDS.items() if problem_type == SINGLE])
def test_points_of_whole_batches(kind):
    objective, logits, labels, options, _ = case(kind)
    shares = np.random.default_rng(4).dirichlet(np.ones(ROWS), 5)
    expected = []
    for z, share in zip(logits, shares, strict=False):
        terms = [term(kind, z, labels[b], options) for b in range(ROWS)]
        expected.append([sum(share[b] * ROW_WEIGHTS[b] * terms[b][k] for b in range(ROWS)) for k in (0, 1)])
    compare(objective, logits[:5], labels, BatchPlan(torch.from_numpy(shares)), expected)


def test_points_of_dot_products_count_with_the_mean_of_their_rows():
    generator = np.random.default_rng(4)
    shares, scores = generator.dirichlet(np.ones(3), 2), generator.normal(size=(2, 3, CLASSES))
    labels, weights = [1, -100, 2], [0.5, 3.0, 4.0]
    losses, totals = Objective(SINGLE)(
        torch.from_numpy(scores),
        torch.tensor(labels),
        BatchPlan(torch.from_numpy(shares), dot_product=True),
        row_weights=torch.tensor(weights, dtype=torch.float64),
    )
    for point in range(2):
        total = shares[point, 0] * 0.5 + shares[point, 2] * 4.0
        dot = scores[point, 0, 1] + scores[point, 2, 2]
        assert totals[point].item() == pytest.approx(total)
        assert losses[point].item() == pytest.approx(total * math.log(1 + math.exp(-dot)))


@pytest.mark.parametrize("kind", KINDS)
def test_weight_0_is_the_absence_of_a_plain_row_whatever_its_loss(kind):
    objective, logits, labels, _, _ = case(kind)
    logits, labels = torch.from_numpy(logits[:ROWS]), torch.from_numpy(labels)
    logits[3] = math.inf
    kept = torch.tensor([0, 1, 2, 4, 5])
    weights = torch.ones(ROWS, dtype=torch.float64)
    weights[3] = 0
    without = weighted_mean(*objective(logits[kept], labels[kept]))
    assert weighted_mean(*objective(logits, labels, row_weights=weights)).item() == pytest.approx(without.item())


@pytest.mark.parametrize(
    ("kind", "plan"),
    [(kind, plan) for kind in KINDS for plan in ("none", "pairs", "clean")]
    + [(kind, "points") for kind, (problem_type, _) in KINDS.items() if problem_type == SINGLE],
)
def test_weights_of_1_change_no_bit(kind, plan):
    objective, logits, labels, _, share = case(kind)
    logits = torch.from_numpy(logits[: 2 * ROWS if plan == "clean" else ROWS]).float().requires_grad_()
    labels = torch.from_numpy(labels)
    shares = torch.from_numpy(np.random.default_rng(4).dirichlet(np.ones(ROWS), ROWS)).float()
    made = {
        "none": None,
        "pairs": pairs(share.astype(np.float32)),
        "clean": pairs(share.astype(np.float32), clean_weight=0.3),
        "points": BatchPlan(shares),
    }[plan]
    found = []
    for weights in (None, torch.ones(ROWS)):
        losses, totals = objective(logits, labels, made, row_weights=weights)
        (gradient,) = torch.autograd.grad(weighted_mean(losses, totals), logits)
        found.append((losses, totals, gradient, objective.weights(labels, made, weights)))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_learned_share_of_scores_gains_nothing_by_rows_that_count_little():
    logits, labels = torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 2.0])
    share = torch.tensor([0.5, 0.5], requires_grad=True)
    plan = PairPlan(torch.tensor([1, 0]), torch.full((2, 1, 1), 0.5), "logits")
    losses, _ = Objective(REGRESSION)(logits, labels, plan, share, torch.tensor([3.0, 1.0]))
    (gradient,) = torch.autograd.grad(losses.sum(), share)
    # Both rows weigh 2 and have the target 1: d/ds 2 (z - s y - (1 - s) y')^2 = -4 (z - 1) (y - y').
    assert gradient.tolist() == [-4 * 0.0 * -2, -4 * 3.0 * 2]


@pytest.mark.parametrize(
    ("weights", "error", "sentence"),
    [
        ([1.0, 2.0], TypeError, "row_weights=.* is a list: give a float tensor"),
        (
            torch.tensor([1, 2]),
            ValueError,
            "row_weights of torch.int64 and shape .2. do not fit 2 labels: give one float",
        ),
        (torch.ones(3), ValueError, "shape .3. do not fit 2 labels"),
        (torch.ones(2, 1), ValueError, "shape .2, 1. do not fit 2 labels"),
        (torch.tensor([1.0, -0.5]), ValueError, "weight -0.5 of row 1 is not allowed: give finite numbers from 0"),
        (torch.tensor([math.nan, 1.0]), ValueError, "weight nan of row 0"),
        (torch.tensor([1.0, math.inf]), ValueError, "weight inf of row 1"),
    ],
)
def test_what_is_no_weight_is_refused(weights, error, sentence):
    objective, labels = Objective(SINGLE), torch.tensor([0, 1])
    with pytest.raises(error, match=sentence):
        objective(torch.zeros(2, 3), labels, row_weights=weights)
    with pytest.raises(error, match=sentence):
        objective.weights(labels, row_weights=weights)
