"""Each method from its name to its loss, against its formula written out in loops: one row of FORMULAS a method."""

import pytest
import torch

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import Objective, StepKey, weighted_mean
from tests.mixing.test_spans import loop as swap_loop
from tests.modeling import reference
from tests.tiny import NUM_LAYERS, PAD, tiny_batch, tiny_model

CLS, SEP = 2, 3
# The heads and the part of the training that the tiny models and a single step have.
OPTIONS = {"attentionmix": {"attention_head": 3}, "batchmixup": {"points": 4}, "batchmixup-code": {"points": 4}}


def pairs(family, model, batch, labels, plan):
    """lambda CE(own) + (1 - lambda) CE(partner), with a lambda for the batch, each row or each feature."""
    partner, rows = plan.partner.tolist(), len(labels)
    layers = plan.layers if plan.drawn is None else (plan.drawn.item(),)
    weight = plan.weight.item() if plan.weight.ndim == 0 else plan.weight
    shares = [weight] * rows if plan.weight.ndim == 0 else [weight[i].mean().item() for i in range(rows)]
    logits = reference.forward(family, model, batch, partner, weight, plan.site, layers, plan.attention_mask)
    loss = reference.pairwise_loss(logits, labels, partner, shares)
    if plan.clean_weight is None:
        return logits, loss
    plain = model(**batch).logits
    clean_loss = reference.pairwise_loss(plain, labels, partner, [1.0] * rows)
    return torch.cat([plain, logits]), plan.clean_weight * clean_loss + (1 - plan.clean_weight) * loss


def attentionmix(family, model, batch, labels, plan):
    """The ratio of each token is its relevance over that of both tokens, the label's the mean of these."""
    partner, tokens = plan.partner.tolist(), batch["attention_mask"].bool()
    eager = tiny_model(family, attention="eager").eval()
    attentions = eager(**batch, output_attentions=True).attentions[plan.probe.layer - 1][:, plan.probe.head]
    ratios, shares = reference.attention_ratios(attentions, tokens, partner)
    logits = reference.forward(family, model, batch, partner, ratios.unsqueeze(-1), plan.site, (), plan.attention_mask)
    return logits, reference.pairwise_loss(logits, labels, partner, shares)


def batchmixup(family, model, batch, labels, plan):
    """-log sigmoid of the dot product of the mixed vectors and the equally mixed rows of the classifier."""
    pooled, layer = reference.read_by_classifier(family, model, batch)
    losses = []
    for weights in plan.weights:
        mixed = sum(weights[row] * pooled[row] for row in range(len(labels)))
        target = sum(weights[row] * layer.weight[label] for row, label in enumerate(labels))
        losses.append(torch.log(1 + torch.exp(-(mixed @ target))))
    return None, torch.stack(losses).mean()


def batchmixup_code(family, model, batch, labels, plan):
    """Weighted means of the pooled vectors, and the equally weighted mean of their cross-entropies."""
    pooled, layer = reference.read_by_classifier(family, model, batch)
    logits, total = [], 0.0
    for weights in plan.weights:
        logits.append(layer.weight @ sum(weights[row] * pooled[row] for row in range(len(labels))) + layer.bias)
        for row, label in enumerate(labels):
            total = total - weights[row] * torch.log_softmax(logits[-1], dim=0)[label] / len(plan.weights)
    return torch.stack(logits), total


FORMULAS = {
    "amplify": pairs,
    "amplify-code": pairs,
    "embedmix": pairs,
    "sentmix": pairs,
    "mixup-transformer": pairs,
    "manifold": pairs,
    "tmix": pairs,
    "nonlinear": pairs,
    "attentionmix": attentionmix,
    "batchmixup": batchmixup,
    "batchmixup-code": batchmixup_code,
    "mixup-pairs": batchmixup_code,
}


def test_every_method_has_a_formula():
    assert set(FORMULAS) == set(METHODS) - {"none", "ssmix"}


def mixup_of(method, model):
    return Mixup(
        METHODS[method].with_options(start=0.0, stop=1.0, **OPTIONS.get(method, {})),
        num_layers=NUM_LAYERS,
        hidden_size=32,
        num_heads=4,
        special_ids=[CLS, SEP, PAD[model.config.model_type]],
    )


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("method", FORMULAS)
def test_logits_and_loss_equal_the_formula(family, method, rows):
    model = tiny_model(family).eval()
    batch, labels = tiny_batch(family, rows), [0, 2, 1, 1, 0][:rows]
    mixup, places = mixup_of(method, model), set()
    for step in range(40):
        plan = mixup.plan(batch, torch.tensor(labels), StepKey(1, step=step))
        # Two rows are often their own partners, and the largest of many draws is often 1.
        if plan is None:
            continue
        drawn = getattr(plan, "drawn", None)
        place = plan.site if drawn is None else drawn.item()
        if place in places:
            continue
        places.add(place)
        expected_logits, expected_loss = FORMULAS[method](family, model, batch, labels, plan)
        outputs = model(**batch, mixup=plan)
        if expected_logits is not None:
            torch.testing.assert_close(outputs.logits, expected_logits, atol=1e-5, rtol=1e-5)
        objective = Objective("single_label_classification")
        losses = objective(outputs.logits, torch.tensor(labels), plan, outputs.label_weight)
        torch.testing.assert_close(weighted_mean(*losses), torch.as_tensor(expected_loss), atol=1e-5, rtol=1e-5)
    expected_places = {"manifold": NUM_LAYERS + 2, "tmix": 2, "nonlinear": 2}.get(method, 1)
    assert len(places) == expected_places


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_a_batch_of_one_is_a_plain_step(family, method):
    mixup = mixup_of(method, tiny_model(family))
    assert mixup.plan(tiny_batch(family, 1), torch.tensor([1]), StepKey(1)) is None


@pytest.mark.parametrize("rows", [2, 5])
def test_ssmix_swaps_by_the_gradient_of_the_clean_loss(family, rows):
    model = tiny_model(family).eval()
    batch, labels = tiny_batch(family, rows, length=24), torch.tensor([0, 2, 1, 1, 0][:rows])
    lengths = batch["attention_mask"].sum(dim=-1).tolist()
    for row, length in enumerate(lengths):
        batch["input_ids"][row, [0, length - 1]] = torch.tensor([CLS, SEP])
    mixup = mixup_of("ssmix", model)
    plan = next(filter(None, (mixup.plan(batch, labels, StepKey(1, step=step)) for step in range(20))))
    objective = Objective("single_label_classification")

    tap = torch.zeros(rows, 24, 32, requires_grad=True)
    clean = objective(model(**batch, mixup=plan.tapped(tap)).logits, labels, plan)
    weighted_mean(clean[0], clean[1] * 2).backward()
    ids, swapped = plan.swapped(batch["input_ids"], batch["attention_mask"], tap.grad)
    mixed = objective(model(**{**batch, "input_ids": ids}, mixup=swapped).logits, labels, swapped)
    found = (clean[0] + mixed[0]).sum() / rows

    # The same with transformers' own class, a hook on its embeddings, and loops.
    parent = tiny_model(family, mixup=False).eval()
    seen = []
    handle = getattr(parent, family).embeddings.register_forward_hook(lambda *call: seen.append(call[2]))
    clean_loss = parent(**batch, labels=labels).loss
    handle.remove()
    gradient = torch.autograd.grad(clean_loss, seen[0])[0]
    saliency = gradient.square().mean(dim=-1).sqrt()
    saliency = saliency / saliency.amax(dim=-1, keepdim=True)
    runs = [[(1, length - 1)] for length in lengths]
    expected_ids, shares = swap_loop(
        batch["input_ids"].tolist(), saliency.tolist(), plan.partner.tolist(), runs, window=0.1
    )
    assert ids.tolist() == expected_ids
    assert swapped.label_weight.tolist() == pytest.approx(shares)
    logits = parent(torch.tensor(expected_ids), attention_mask=batch["attention_mask"]).logits
    mixed_loss = reference.pairwise_loss(logits, labels.tolist(), plan.partner.tolist(), shares)
    torch.testing.assert_close(found, 0.5 * clean_loss + 0.5 * mixed_loss, atol=1e-5, rtol=1e-5)
