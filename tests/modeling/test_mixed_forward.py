"""What the mixed forward pass computes, against the equations written out in loops."""

import pytest
import torch

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import AttentionProbe, BatchPlan, Objective, PairPlan, StepKey, weighted_mean
from tests.modeling import reference
from tests.tiny import NUM_LAYERS, tiny_batch, tiny_model

PARTNER = [2, 0, 1, 4, 3]
ALL = tuple(range(1, NUM_LAYERS + 1))
LABELS = [0, 2, 1, 1, 0]
# The same sums in another order: on another CPU too they differ by less. What mixing changes is more than 1e-3.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def check(family, site, layers=(), weight=0.7, policy="own", attention="sdpa"):
    model = tiny_model(family, attention=attention).eval()
    batch = tiny_batch(family)
    weight_tensor = torch.tensor(weight)
    plan = PairPlan(
        partner=torch.tensor(PARTNER),
        weight=weight_tensor if weight_tensor.ndim == 0 else weight_tensor.reshape(-1, 1, 1),
        site=site,
        layers=layers,
        attention_mask=policy,
    )
    outputs = model(**batch, mixup=plan)
    expected = reference.forward(family, model, batch, PARTNER, weight, site, layers, policy)
    torch.testing.assert_close(outputs.logits, expected, **TOLERANCE)
    plain = model(**batch).logits
    assert (outputs.logits - plain).abs().max() > 1e-3

    weights = [weight] * 5 if isinstance(weight, float) else weight
    labels = torch.tensor(LABELS)
    losses = Objective("single_label_classification")(outputs.logits, labels, plan)
    expected_loss = reference.pairwise_loss(expected, LABELS, PARTNER, weights)
    torch.testing.assert_close(weighted_mean(*losses), expected_loss, **TOLERANCE)


@pytest.mark.parametrize("layers", [ALL, (1,), (2,), (NUM_LAYERS,), (1, 3)], ids=str)
@pytest.mark.parametrize("site", ["attention", "attention_block"])
def test_amplify_equals_a_loop_over_the_layers(family, site, layers):
    check(family, site, layers)


@pytest.mark.parametrize("layers", [(0,), (1,), (NUM_LAYERS,), (0, 2)], ids=str)
def test_hidden_states(family, layers):
    check(family, "hidden", layers)


@pytest.mark.parametrize(("attention", "clean_weight"), [("sdpa", None), ("eager", 0.25)])
@pytest.mark.parametrize("policy", ["own", "union", "intersection"])
@pytest.mark.parametrize("site", ["hidden", "attention", "attention_block"])
def test_the_drawn_one_of_the_layers_is_mixed_alone(family, site, policy, clean_weight, attention):
    model = tiny_model(family, attention=attention).eval()
    batch = tiny_batch(family)
    for drawn in (1, 2, NUM_LAYERS):
        plan = PairPlan(
            torch.tensor(PARTNER),
            torch.tensor(0.7),
            site,
            layers=ALL,
            drawn=torch.tensor(drawn),
            attention_mask=policy,
            clean_weight=clean_weight,
        )
        logits = model(**batch, mixup=plan).logits
        if clean_weight is not None:
            plain, logits = logits.chunk(2)
            torch.testing.assert_close(plain, model(**batch).logits, **TOLERANCE)
        expected = reference.forward(family, model, batch, PARTNER, 0.7, site, (drawn,), policy)
        torch.testing.assert_close(logits, expected, **TOLERANCE)


@pytest.mark.parametrize("site", ["word_embeddings", "embeddings", "pooled", "logits"])
def test_sites_without_layers(family, site):
    check(family, site)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("policy", ["union", "intersection"])
@pytest.mark.parametrize(
    ("site", "layers"), [("word_embeddings", ()), ("embeddings", ()), ("hidden", (1,)), ("attention", (1, 2))], ids=str
)
def test_attention_sees_the_mask_of_the_policy_once_rows_are_mixed(family, site, layers, policy, attention):
    check(family, site, layers, policy=policy, attention=attention)


@pytest.mark.parametrize("site", ["attention", "attention_block", "hidden", "embeddings", "pooled", "logits"])
def test_one_ratio_per_row(family, site):
    layers = ALL if site in ("attention", "attention_block", "hidden") else ()
    check(family, site, layers, weight=[0.1, 0.9, 0.5, 0.25, 1.0])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("policy", ["own", "union"])
@pytest.mark.parametrize(
    ("site", "layers"),
    [
        ("word_embeddings", ()),
        ("embeddings", ()),
        ("hidden", (2,)),
        ("hidden", (NUM_LAYERS,)),
        ("attention", ALL),
        ("attention_block", (2, 3)),
        ("pooled", ()),
        ("logits", ()),
    ],
    ids=str,
)
def test_clean_rows_trained_along_are_the_plain_forward_pass(family, site, layers, policy, attention):
    model = tiny_model(family, attention=attention).eval()
    batch = tiny_batch(family)
    plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), site, layers, attention_mask=policy, clean_weight=0.25)
    outputs = model(**batch, mixup=plan)
    plain, mixed = outputs.logits.chunk(2)
    torch.testing.assert_close(plain, model(**batch).logits, **TOLERANCE)
    expected = reference.forward(family, model, batch, PARTNER, 0.7, site, layers, policy)
    torch.testing.assert_close(mixed, expected, **TOLERANCE)
    labels = torch.tensor(LABELS)
    losses = Objective("single_label_classification")(outputs.logits, labels, plan)
    clean_loss = torch.nn.functional.cross_entropy(plain, labels)
    mixed_loss = reference.pairwise_loss(expected, LABELS, PARTNER, [0.7] * 5)
    torch.testing.assert_close(weighted_mean(*losses), 0.25 * clean_loss + 0.75 * mixed_loss, **TOLERANCE)


@pytest.mark.parametrize(("site", "layers"), [("embeddings", ()), ("hidden", (2,)), ("attention", ALL)], ids=str)
def test_skip_mixes_tokens_only(family, site, layers):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), site, layers).skip_padding(batch["attention_mask"])
    tokens = batch["attention_mask"].tolist()
    rows = [
        [0.7 if tokens[i][t] and tokens[j][t] else 1.0 for t in range(len(tokens[i]))] for i, j in enumerate(PARTNER)
    ]
    expected = reference.forward(family, model, batch, PARTNER, torch.tensor(rows).unsqueeze(-1), site, layers)
    torch.testing.assert_close(model(**batch, mixup=plan).logits, expected, **TOLERANCE)


@pytest.mark.parametrize("policy", ["intersection", "skip", "union"])
def test_what_stands_in_padding_cannot_move_the_result(family, policy):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    mask = batch["attention_mask"]
    plan = PairPlan(
        torch.tensor(PARTNER), torch.tensor(0.7), "hidden", (0,), attention_mask="own" if policy == "skip" else policy
    )
    if policy == "skip":
        plan = plan.skip_padding(mask)
    # Under union, what is padding in one row alone is a token of the mixed row: only where both have none may change.
    changeable = mask == 0
    if policy == "union":
        inverse = torch.argsort(plan.partner)
        changeable = changeable & (mask[plan.partner] == 0) & (mask[inverse] == 0)
        assert changeable.any()
    embeddings = torch.randn(*mask.shape, 32)
    changed = torch.where(changeable.unsqueeze(-1), 100 * torch.randn(*mask.shape, 32), embeddings)
    one, two = (model(inputs_embeds=e, attention_mask=mask, mixup=plan).logits for e in (embeddings, changed))
    torch.testing.assert_close(one, two, **TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("layer", "head"), [(1, 0), (1, 3), (2, 1), (NUM_LAYERS, None)])
def test_attentionmix_weighs_tokens_by_the_attention_they_receive(family, layer, head, attention):
    # Dropout is on for the model and must stay out of the weights.
    model = tiny_model(family, attention=attention)
    model.get_submodule(family).embeddings.dropout.p = 0.0
    batch = tiny_batch(family)
    tokens = batch["attention_mask"].bool()
    plan = PairPlan(
        torch.tensor(PARTNER), None, "embeddings", attention_mask="union", probe=AttentionProbe(layer, head)
    )
    was_training = [module.training for module in model.modules()]
    found = model(**batch, mixup=plan).label_weight
    assert [module.training for module in model.modules()] == was_training

    eager = tiny_model(family, attention="eager").eval()
    attentions = eager(**batch, output_attentions=True).attentions[layer - 1]
    attentions = attentions.mean(dim=1) if head is None else attentions[:, head]
    ratios, label_weights = reference.attention_ratios(attentions, tokens, PARTNER)
    assert found.tolist() == pytest.approx(label_weights, abs=1e-6)

    outputs = model.eval()(**batch, mixup=plan)
    weight = ratios.unsqueeze(-1)
    expected = reference.forward(family, model, batch, PARTNER, weight, "embeddings", (), "union")
    torch.testing.assert_close(outputs.logits, expected, **TOLERANCE)
    losses = Objective("single_label_classification")(outputs.logits, torch.tensor(LABELS), plan, outputs.label_weight)
    expected_loss = reference.pairwise_loss(expected, LABELS, PARTNER, label_weights)
    torch.testing.assert_close(weighted_mean(*losses), expected_loss, **TOLERANCE)


@pytest.mark.parametrize("site", ["hidden", "pooled"])
def test_nonlinear_weighs_every_feature(family, site):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    weight = torch.rand(5, 1, 32, generator=torch.Generator().manual_seed(0))
    layers = (2,) if site == "hidden" else ()
    plan = PairPlan(torch.tensor(PARTNER), weight, site, layers, label_weight=weight.mean(dim=(1, 2)))
    given = weight if site == "hidden" else weight.squeeze(1)
    expected = reference.forward(family, model, batch, PARTNER, given, site, layers)
    torch.testing.assert_close(model(**batch, mixup=plan).logits, expected, **TOLERANCE)


@pytest.mark.parametrize("site", ["pooled", "logits"])
def test_batchmixup_of_the_code_classifies_weighted_means(family, site):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    weights = torch.softmax(torch.rand(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    pooled, layer = reference.read_by_classifier(family, model, batch)
    outputs = model(**batch, mixup=BatchPlan(weights, site))
    assert outputs.label_weight is None
    expected_loss = 0.0
    for point in range(7):
        mixed = sum(weights[point, row] * pooled[row] for row in range(5))
        logits = layer.weight @ mixed + layer.bias
        torch.testing.assert_close(outputs.logits[point], logits, **TOLERANCE)
        for row in range(5):
            expected_loss -= weights[point, row] * torch.log_softmax(logits, dim=0)[LABELS[row]] / 7
    losses = Objective("single_label_classification")(outputs.logits, torch.tensor(LABELS), BatchPlan(weights, site))
    torch.testing.assert_close(weighted_mean(*losses), expected_loss, **TOLERANCE)


@pytest.mark.parametrize("per_feature", [True, False])
def test_batchmixup_of_the_paper_is_the_dot_product_of_mixed_vectors_and_labels(family, per_feature):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    shape = (7, 5, 32) if per_feature else (7, 5)
    weights = torch.softmax(torch.rand(shape, generator=torch.Generator().manual_seed(0)), dim=1)
    pooled, layer = reference.read_by_classifier(family, model, batch)
    expected = []
    for point in range(7):
        mixed_input, mixed_target = torch.zeros(32), torch.zeros(32)
        for row in range(5):
            mixed_input = mixed_input + weights[point, row] * pooled[row]
            mixed_target = mixed_target + weights[point, row] * layer.weight[LABELS[row]]
        expected.append(-torch.log(1 / (1 + torch.exp(-(mixed_input @ mixed_target)))))
    plan = BatchPlan(weights, dot_product=True)
    outputs = model(**batch, mixup=plan)
    losses, totals = Objective("single_label_classification")(outputs.logits, torch.tensor(LABELS), plan)
    torch.testing.assert_close(losses, torch.stack(expected), **TOLERANCE)
    torch.testing.assert_close(totals, torch.ones(7))


def test_the_first_layer_counts_from_one_and_hidden_zero_is_the_embeddings(family):
    model = tiny_model(family).eval()
    batch = tiny_batch(family)
    partner, weight = torch.tensor(PARTNER), torch.tensor(0.6)
    embeddings = PairPlan(partner, weight, "embeddings")
    hidden_zero = PairPlan(partner, weight, "hidden", layers=(0,))
    assert torch.equal(model(**batch, mixup=embeddings).logits, model(**batch, mixup=hidden_zero).logits)

    mixed = model(**batch, mixup=PairPlan(partner, weight, "hidden", layers=(2,)), output_hidden_states=True)
    plain = model(**batch, output_hidden_states=True)
    assert len(mixed.hidden_states) == NUM_LAYERS + 1
    assert torch.equal(mixed.hidden_states[1], plain.hidden_states[1])
    expected = reference.mix_rows(plain.hidden_states[2], PARTNER, 0.6)
    torch.testing.assert_close(mixed.hidden_states[2], expected, **TOLERANCE)


@pytest.mark.slow
def test_gradients_agree_with_finite_differences(family):
    model = tiny_model(family, num_labels=2).eval().double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    batch = tiny_batch(family, rows=3, length=4)
    partner = torch.tensor([1, 2, 0])
    embedding = torch.nn.functional.embedding(batch["input_ids"], model.get_input_embeddings().weight)

    def loss(inputs_embeds, weight):
        total = 0
        for site in ("attention", "attention_block"):
            plan = PairPlan(partner, weight, site, layers=(1, 2, 3))
            outputs = model(inputs_embeds=inputs_embeds, attention_mask=batch["attention_mask"], mixup=plan)
            objective = Objective("single_label_classification", label_smoothing=0.1)
            losses = objective(outputs.logits, torch.tensor([0, 1, 1]), plan)
            total = total + weighted_mean(*losses)
        return total

    inputs_embeds = embedding.detach().requires_grad_()
    weight = torch.tensor(0.7, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (inputs_embeds, weight), atol=1e-6)
    per_row = torch.tensor([0.7, 0.2, 0.9], dtype=torch.float64).reshape(-1, 1, 1)
    assert torch.autograd.gradcheck(loss, (inputs_embeds, per_row), atol=1e-6)
    learned = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (inputs_embeds, learned), atol=1e-6)


@pytest.mark.parametrize("head", [4, 8])
def test_a_head_that_the_model_lacks_is_refused(family, head):
    plan = PairPlan(torch.tensor(PARTNER), None, "embeddings", probe=AttentionProbe(layer=2, head=head))
    with pytest.raises(ValueError, match=f"reads attention head {head}, but the model has heads 0 to 3"):
        tiny_model(family)(**tiny_batch(family), mixup=plan)


def test_a_block_that_the_model_lacks_is_refused():
    plan = PairPlan(torch.tensor(PARTNER), None, "embeddings", probe=AttentionProbe(layer=NUM_LAYERS + 1, head=None))
    with pytest.raises(ValueError, match="reads the attention of block 4, but the model has blocks 1 to 3"):
        tiny_model("bert")(**tiny_batch("bert"), mixup=plan)


def test_a_plain_loop_that_leaves_out_num_heads_hears_of_a_missing_head():
    # The default head is 8, the model has 4: the label weight was 0.5 for all rows, whatever the attention.
    mixup = Mixup(METHODS["attentionmix"], num_layers=2)
    plan = mixup.plan({}, torch.tensor(LABELS), StepKey(seed=0))
    with pytest.raises(ValueError, match="reads attention head 8, but the model has heads 0 to 3"):
        tiny_model("bert")(**tiny_batch("bert"), mixup=plan)


@pytest.mark.parametrize(
    ("site", "shape", "states"), [("hidden", (8, 1), (9, 32)), ("pooled", (1, 31), (32,)), ("logits", (1, 32), (3,))]
)
def test_weights_of_another_batch_or_model_are_refused(site, shape, states):
    weight = torch.full((5, *shape), 0.5)
    plan = PairPlan(torch.tensor(PARTNER), weight, site, (1,) if site == "hidden" else (), label_weight=torch.ones(5))
    with pytest.raises(
        ValueError, match=rf"weights for .* but the states at {site} are \[{', '.join(map(str, states))}"
    ):
        tiny_model("bert")(**tiny_batch("bert"), mixup=plan)
