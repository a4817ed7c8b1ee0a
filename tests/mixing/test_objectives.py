"""The losses of mixed batches, against torch's own losses and loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from hf_mixup.mixing import (
    BatchPlan,
    Objective,
    PairPlan,
    balanced_class_weights,
    infer_problem_type,
    mix_targets,
    weighted_mean,
)

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
# A class that does not count: its rows keep what label smoothing gives to the other classes.
WITHOUT_FIRST = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
class_weights_or_none = st.sampled_from([None, CLASS_WEIGHTS, WITHOUT_FIRST])


def pairs(partner, share):
    """A plan in which row i keeps the share i of its label."""
    return PairPlan(partner, share.reshape(-1, 1, 1), "logits")


@st.composite
def batches(draw, missing=True):
    rows = draw(st.integers(1, 7))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.integers(0, 3, rows)
    if missing:
        labels = np.where(generator.random(rows) < 0.3, -100, labels)
    return (
        torch.from_numpy(generator.normal(size=(rows, 3)) * 3),
        torch.from_numpy(labels),
        torch.from_numpy(generator.permutation(rows)),
        torch.from_numpy(generator.random(rows)),
    )


def smoothed(log_probabilities, label, smoothing, class_weights):
    """(1 - e) of the label's own term plus e / C of every class's term, each with its class's weight."""
    classes = len(log_probabilities)
    own = -class_weights[label] * log_probabilities[label]
    every = sum(-class_weights[c] * log_probabilities[c] for c in range(classes)) / classes
    return (1 - smoothing) * own + smoothing * every


def two_terms(logits, labels, partner, share, smoothing=0.0, class_weights=(1.0, 1.0, 1.0)):
    loss = weight = 0.0
    for i in range(len(labels)):
        log_probabilities = [z - math.log(sum(math.exp(y) for y in logits[i].tolist())) for z in logits[i].tolist()]
        for label, part in ((int(labels[i]), share[i]), (int(labels[partner[i]]), 1 - share[i])):
            if label != -100:
                loss += float(part) * smoothed(log_probabilities, label, smoothing, class_weights)
                weight += float(part) * class_weights[label]
    return loss / weight if weight else 0.0


@settings(deadline=None)
@given(batches(), st.sampled_from([0.0, 0.1]), class_weights_or_none)
def test_two_terms_with_missing_labels_smoothing_and_class_weights(batch, smoothing, class_weights):
    logits, labels, partner, share = batch
    objective = Objective(SINGLE, class_weights, smoothing)
    loss = weighted_mean(*objective(logits, labels, pairs(partner, share)))
    numbers = (1.0, 1.0, 1.0) if class_weights is None else class_weights.tolist()
    assert loss.item() == pytest.approx(two_terms(logits, labels, partner, share, smoothing, numbers), abs=1e-9)
    torch.testing.assert_close(
        objective.weights(labels, pairs(partner, share)).double(),
        objective(logits, labels, pairs(partner, share))[1],
        atol=1e-6,
        rtol=0,
    )


@settings(deadline=None)
@given(batches(), st.sampled_from([0.0, 0.2]), class_weights_or_none)
def test_a_plain_batch_is_torchs_cross_entropy(batch, smoothing, class_weights):
    logits, labels, _, _ = batch
    loss = weighted_mean(*Objective(SINGLE, class_weights, smoothing)(logits, labels))
    counted = labels != -100 if class_weights is None else (labels != -100) & (class_weights[labels.clamp(min=0)] > 0)
    if counted.any():
        expected = nn.CrossEntropyLoss(weight=class_weights, label_smoothing=smoothing)(logits, labels)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
    else:
        assert loss == 0


@settings(deadline=None)
@given(batches(missing=False), st.sampled_from([0.0, 0.1]), class_weights_or_none)
def test_soft_labels_agree_with_hard_ones_and_with_the_mixed_soft_label(batch, smoothing, class_weights):
    logits, labels, partner, share = batch
    objective = Objective(SINGLE, class_weights, smoothing)
    one_hot = nn.functional.one_hot(labels, 3).double()
    hard, hard_weight = objective(logits, labels, pairs(partner, share))
    soft, soft_weight = objective(logits, one_hot, pairs(partner, share))
    torch.testing.assert_close(soft_weight, hard_weight)
    torch.testing.assert_close(soft, hard)
    mixed = share[:, None] * one_hot + (1 - share[:, None]) * one_hot[partner]
    expected = nn.functional.cross_entropy(logits, mixed, class_weights, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(soft, expected)


def test_a_class_of_weight_0_keeps_its_smoothing_as_in_torch():
    logits, labels, weights = torch.tensor([[1.0, 2.0, 0.0]] * 2), torch.tensor([0, 1]), torch.tensor([0.0, 1.0, 1.0])
    loss = weighted_mean(*Objective(SINGLE, weights, 0.1)(logits, labels))
    # log p = (-1.40761, -0.40761, -2.40761). Both rows: 0.1 / 3 * (0.40761 + 2.40761); the second also 0.9 * 0.40761.
    assert loss.item() == pytest.approx(2 * 0.1 / 3 * 2.81521 + 0.9 * 0.40761, abs=1e-5)
    assert loss.item() == pytest.approx(0.5545, abs=1e-4)
    # Rows of this class alone have no weight to be divided by.
    assert weighted_mean(*Objective(SINGLE, weights, 0.1)(logits, torch.zeros(2).long())) == 0


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("problem_type", "labels", "options"),
    [
        (SINGLE, [2, -100], {}),
        (SINGLE, [2, -100], {"label_smoothing": 0.1, "class_weights": torch.tensor([0.5, 2.0, 1.0])}),
        (SINGLE, [[0.0, 0.25, 0.75], [-100.0] * 3], {"label_smoothing": 0.1}),
        (MULTI, [[0.0, 1.0, 1.0], [-100.0] * 3], {}),
        (MULTI, [[0.0, 1.0, 1.0], [1.0, -100.0, 0.0]], {}),
    ],
    ids=str,
)
def test_a_row_without_label_costs_nothing_whatever_its_logits(problem_type, labels, options, mixed):
    # Infinite logits make every loss infinite that is only multiplied by 0.
    logits = torch.tensor([[1.0, 2.0, 0.0], [math.inf, -math.inf, math.inf]], requires_grad=True)
    # As its own partner the row has no label at all.
    plan = pairs(torch.tensor([0, 1]), torch.tensor([0.75, 0.75])) if mixed else None
    losses, weights = Objective(problem_type, **options)(logits, torch.tensor(labels), plan)
    assert losses[1] == 0 and weights[1] == 0 and losses[0] > 0
    total = weighted_mean(losses, weights)
    assert total.item() == pytest.approx((losses[0] / weights[0]).item())


def test_multi_label_is_binary_cross_entropy_in_two_terms():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (4, 3), generator=generator).double()
    partner, share = torch.tensor([1, 2, 3, 0]), torch.tensor([0.9, 0.2, 0.5, 0.7], dtype=torch.float64)
    objective = Objective(MULTI)
    torch.testing.assert_close(weighted_mean(*objective(logits, labels)), nn.BCEWithLogitsLoss()(logits, labels))
    expected = 0.0
    for i in range(4):
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[i, c].item()))
            for y, part in (
                (labels[i, c].item(), share[i].item()),
                (labels[partner[i], c].item(), 1 - share[i].item()),
            ):
                expected -= part * (y * math.log(p) + (1 - y) * math.log(1 - p)) / 12
    assert weighted_mean(*objective(logits, labels, pairs(partner, share))).item() == pytest.approx(
        expected, abs=1e-12
    )
    labels[2] = -100
    losses, weights = objective(logits, labels, pairs(partner, share))
    assert weights.tolist() == pytest.approx([1.0, 0.2, 0.5, 1.0])
    own = nn.functional.binary_cross_entropy_with_logits(logits[1], labels[1])
    assert losses[1].item() == pytest.approx(0.2 * own.item())


def test_regression_is_the_squared_error_to_the_mixed_target():
    logits = torch.tensor([[1.0], [2.0], [3.0]])
    labels, partner, share = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([2, 0, 1]), torch.tensor([0.5, 0.25, 1.0])
    # Targets: 0.5 * 0 + 0.5 * 5 = 2.5; 0.25 * 1 + 0.75 * 0 = 0.25; 5.
    losses, weights = Objective(REGRESSION)(logits, labels, pairs(partner, share))
    assert losses.tolist() == pytest.approx([1.5**2, 1.75**2, 4.0]) and weights.tolist() == [1, 1, 1]
    torch.testing.assert_close(
        weighted_mean(*Objective(REGRESSION)(logits, labels)), nn.MSELoss()(logits.squeeze(), labels)
    )
    assert mix_targets(labels, partner, share).tolist() == pytest.approx([2.5, 0.25, 5.0])


def test_half_precision_logits_give_float32_losses_and_double_stays_double():
    labels, partner, share = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.999, 0.999])
    logits = torch.tensor([[8.0, -8.0], [-8.0, 8.0]])
    half, _ = Objective(SINGLE)(logits.bfloat16(), labels, pairs(partner, share))
    assert half.dtype == torch.float32
    # 0.999 would round to 1 in bfloat16 and lose the partner's term, 0.001 * 16.
    assert half[0].item() == pytest.approx(0.016, rel=1e-3)
    assert Objective(SINGLE)(logits.double(), labels)[0].dtype == torch.float64


def test_the_mean_over_a_group_of_batches_is_the_mean_of_the_whole():
    logits, labels = torch.randn(7, 3), torch.tensor([0, -100, 2, 1, -100, 1, 0])
    objective = Objective(SINGLE, CLASS_WEIGHTS.float())
    whole = weighted_mean(*objective(logits, labels))
    total = objective.weights(labels).sum()
    parts = [weighted_mean(*objective(logits[part], labels[part]), total) for part in (slice(0, 4), slice(4, 7))]
    torch.testing.assert_close(sum(parts), whole)


@settings(deadline=None)
@given(batches(), st.sampled_from([0.0, 0.1]), st.booleans(), st.booleans())
def test_a_mixed_batch_weighs_the_cross_entropy_to_every_label(batch, smoothing, weighted, soft):
    logits, labels, _, _ = batch
    rows = len(labels)
    generator = np.random.default_rng(rows)
    weights = torch.from_numpy(generator.dirichlet(np.ones(rows), 4))
    logits = torch.from_numpy(generator.normal(size=(4, 3)))
    class_weights = CLASS_WEIGHTS.tolist() if weighted else (1.0, 1.0, 1.0)
    objective = Objective(SINGLE, CLASS_WEIGHTS if weighted else None, smoothing)
    given_labels = labels
    if soft:
        given_labels = torch.nn.functional.one_hot(labels.clamp(min=0), 3).double()
        given_labels[labels == -100] = -100
    losses, totals = objective(logits, given_labels, BatchPlan(weights))
    for point in range(4):
        log_probabilities = torch.log_softmax(logits[point], dim=-1).tolist()
        loss = total = 0.0
        for row in range(rows):
            if labels[row] != -100:
                label = int(labels[row])
                loss += weights[point, row].item() * smoothed(log_probabilities, label, smoothing, class_weights)
                total += weights[point, row].item() * class_weights[label]
        assert losses[point].item() == pytest.approx(loss, abs=1e-9)
        assert totals[point].item() == pytest.approx(total, abs=1e-6)
    torch.testing.assert_close(objective.weights(given_labels, BatchPlan(weights)).double(), totals, atol=1e-6, rtol=0)


def test_the_dot_product_loss_weighs_points_by_their_labelled_rows():
    scores = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    labels = torch.tensor([1, -100, 3])
    class_weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    losses, totals = Objective(SINGLE, class_weights)(scores, labels, BatchPlan(weights, dot_product=True))
    for point in range(2):
        dot = scores[point, 0, 1] + scores[point, 2, 3]
        total = 2 * weights[point, 0] + 4 * weights[point, 2]
        assert totals[point].item() == pytest.approx(total.item())
        assert losses[point].item() == pytest.approx(total.item() * math.log(1 + math.exp(-dot)))
    with pytest.raises(ValueError, match="Label smoothing has no meaning for the dot-product loss"):
        Objective(SINGLE, label_smoothing=0.1)(scores, labels, BatchPlan(weights, dot_product=True))


def test_whole_batches_are_for_single_labels():
    for problem_type, labels in ((MULTI, torch.ones(2, 3)), (REGRESSION, torch.ones(2))):
        with pytest.raises(ValueError, match=f"has no meaning for {problem_type}"):
            Objective(problem_type)(torch.ones(1, 3), labels, BatchPlan(torch.ones(1, 2) / 2))


def test_balanced_class_weights_are_scikit_learns():
    labels = [0, 0, 0, 2, 2, -100]
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=[0, 0, 0, 2, 2])
    assert balanced_class_weights(labels, num_labels=3) == pytest.approx([expected[0], 1.0, expected[1]])


def test_what_has_no_meaning_is_refused():
    for problem_type in (MULTI, REGRESSION):
        with pytest.raises(ValueError, match="class_weights have no meaning"):
            Objective(problem_type, CLASS_WEIGHTS)
        with pytest.raises(ValueError, match="label smoothing has no meaning"):
            Objective(problem_type, label_smoothing=0.1)
    with pytest.raises(ValueError, match="problem_type='ranking' is unknown"):
        Objective("ranking")


def test_the_problem_type_is_the_one_the_heads_infer():
    assert infer_problem_type(1, torch.tensor([0.5])) == REGRESSION
    assert infer_problem_type(3, torch.tensor([0])) == SINGLE
    assert infer_problem_type(3, torch.tensor([[0.0, 1.0, 1.0]])) == MULTI
