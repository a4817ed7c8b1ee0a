"""Every family: the parent without a plan; with one, what hooks on the parent's own modules compute."""

import inspect

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.mixing import AttentionProbe, Objective, PairPlan, StepKey, weighted_mean
from hf_mixup.modeling.auto import MODELS
from tests.modeling import hooked, reference
from tests.tiny import (
    CONFIGS,
    EAGER_ONLY,
    NUM_LAYERS,
    PAD,
    PARENTS,
    same_weights,
    tiny_batch,
    tiny_config,
    tiny_model,
)

PARTNER = [2, 0, 1, 4, 3]
ALL = tuple(range(1, NUM_LAYERS + 1))
LABELS = torch.tensor([0, 2, 1, 1, 0])
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def both(family, **options):
    """The mixup model and its parent with the same weights, dropout off."""
    return tiny_model(family, **options).eval(), tiny_model(family, mixup=False, **options).eval()


def test_every_family_of_the_auto_class_is_tested():
    assert set(CONFIGS) == set(MODELS)


def test_initial_weights_logits_and_checkpoints_are_the_parents(any_family, tmp_path):
    model, parent = both(any_family)
    batch = tiny_batch(any_family)
    assert same_weights(parent, model)
    assert torch.equal(parent(**batch, labels=LABELS).loss, model(**batch, labels=LABELS).loss)
    model.save_pretrained(tmp_path)
    plain, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(plain) is PARENTS[any_family]
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert torch.equal(plain.eval()(**batch).logits, model(**batch).logits)
    loaded = MODELS[any_family].from_pretrained(tmp_path)
    assert same_weights(loaded, plain)


def test_the_data_columns_are_the_parents(any_family):
    outputs = {"mixup", "kwargs", "output_attentions", "output_hidden_states", "return_dict"}
    signatures = [inspect.signature(model.forward) for model in (PARENTS[any_family], MODELS[any_family])]
    expected, found = ([name for name in signature.parameters if name not in outputs] for signature in signatures)
    assert found == expected


def test_what_may_not_be_split_is_named_by_its_mixup_class(any_family):
    model, parent = both(any_family)
    for module in (module for module in model.modules() if isinstance(module, PreTrainedModel)):
        for name in module._no_split_modules:
            assert any(type(part).__name__ == name for part in model.modules()), name
    assert len(model._no_split_modules) >= len(parent._no_split_modules or ())


# Eager attention gets its masks in another form: once where mixing begins below the blocks, in one and in all of them.
@pytest.mark.parametrize(
    ("site", "layers", "attention"),
    [
        ("word_embeddings", (), "sdpa"),
        ("word_embeddings", (), "eager"),
        ("embeddings", (), "sdpa"),
        ("hidden", (0,), "sdpa"),
        ("hidden", (2,), "sdpa"),
        ("hidden", (2,), "eager"),
        ("hidden", (NUM_LAYERS,), "sdpa"),
        ("attention", ALL, "sdpa"),
        ("attention", ALL, "eager"),
        ("attention", (2,), "sdpa"),
        ("attention_block", ALL, "sdpa"),
        ("attention_block", (1, 3), "sdpa"),
        ("pooled", (), "sdpa"),
        ("logits", (), "sdpa"),
    ],
    ids=str,
)
def test_every_site_equals_hooks_on_the_parent(any_family, site, layers, attention):
    if attention == "eager" and any_family in EAGER_ONLY:
        pytest.skip("This family has one implementation of attention.")
    model, parent = both(any_family, attention=attention)
    batch = tiny_batch(any_family)
    plain = parent(**batch).logits
    for policy in ("own", "union", "intersection") if site not in ("pooled", "logits") else ("own",):
        options = {"partner": torch.tensor(PARTNER), "weight": torch.tensor(0.7), "site": site, "layers": layers}
        expected = hooked.forward(any_family, parent, batch, PARTNER, 0.7, site, layers, policy)
        mixed = model(**batch, mixup=PairPlan(**options, attention_mask=policy)).logits
        torch.testing.assert_close(mixed, expected, **TOLERANCE)
        assert (mixed - plain).abs().max() > 1e-3
        along = model(**batch, mixup=PairPlan(**options, attention_mask=policy, clean_weight=0.3)).logits
        torch.testing.assert_close(along, torch.cat([plain, expected]), **TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_without_padding_and_mask(any_family, attention):
    model, parent = both(any_family, attention=attention)
    ids = tiny_batch(any_family)["input_ids"][:1].expand(5, -1).roll(1, 0).clone()
    ids[:, 1:] = (ids[:, 1:] + torch.arange(5).unsqueeze(1)).clamp(5, 89)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for site, layers in (("hidden", (1,)), ("word_embeddings", ()), ("attention", ALL)):
        for clean_weight in (None, 0.3):
            plan = PairPlan(
                torch.tensor(PARTNER),
                torch.tensor(0.7),
                site,
                layers,
                attention_mask="union",
                clean_weight=clean_weight,
            )
            expected = hooked.forward(any_family, parent, batch, PARTNER, 0.7, site, layers)
            for given in (batch, {"input_ids": ids}):
                torch.testing.assert_close(model(**given, mixup=plan).logits[-5:], expected, **TOLERANCE)


def test_gradients_equal_those_of_hooks_on_the_parent(any_family):
    model, parent = both(any_family)
    batch = tiny_batch(any_family)
    for site, layers in (("attention_block", ALL), ("hidden", (1,))):
        plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), site, layers, attention_mask="union")
        model.zero_grad()
        parent.zero_grad()
        model(**batch, mixup=plan).logits.square().sum().backward()
        hooked.forward(any_family, parent, batch, PARTNER, 0.7, site, layers, "union").square().sum().backward()
        for (name, one), two in zip(model.named_parameters(), parent.parameters(), strict=True):
            if two.grad is not None:
                torch.testing.assert_close(one.grad, two.grad, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_no_bit(any_family, reentrant):
    batch = tiny_batch(any_family)
    if not tiny_model(any_family).supports_gradient_checkpointing:
        assert not both(any_family)[1].supports_gradient_checkpointing
        pytest.skip("Upstream has no activation checkpointing for this family.")
    plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), "attention", ALL, clean_weight=0.3)
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(any_family).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(5)
        model(**batch, mixup=plan).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize(("layer", "head"), [(1, 0), (2, 3), (NUM_LAYERS, None)])
def test_attentionmix_reads_the_attention_of_the_parent(any_family, layer, head):
    model, parent = both(any_family)
    batch = tiny_batch(any_family)
    probe = AttentionProbe(layer, head)
    plan = PairPlan(torch.tensor(PARTNER), None, "embeddings", attention_mask="union", probe=probe)
    found = model.train()(**batch, mixup=plan).label_weight

    eager = tiny_model(any_family, mixup=False, attention="eager").eval()
    attentions = eager(**batch, output_attentions=True).attentions[layer - 1]
    attentions = attentions.mean(dim=1) if head is None else attentions[:, head]
    _, expected = reference.attention_ratios(attentions, batch["attention_mask"].bool(), PARTNER)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_every_method_draws_plans_that_the_family_runs(any_family, method):
    model = tiny_model(any_family)
    batch = tiny_batch(any_family)
    options = {"attention_head": 3} if method == "attentionmix" else {}
    mixup = Mixup(
        METHODS[method].with_options(start=0.0, **options), NUM_LAYERS, 32, 4, special_ids=[2, 3, PAD[any_family]]
    )
    plans = (mixup.plan(batch, LABELS, StepKey(1, step=step)) for step in range(20))
    plan = next(plan for plan in plans if plan is not None)
    objective = Objective("single_label_classification")
    if method == "ssmix":
        tap = torch.zeros(*batch["input_ids"].shape, 32, requires_grad=True)
        weighted_mean(*objective(model(**batch, mixup=plan.tapped(tap)).logits, LABELS, plan)).backward()
        assert tap.grad.abs().sum() > 0
        ids, plan = plan.swapped(batch["input_ids"], batch["attention_mask"], tap.grad)
        assert not torch.equal(ids, batch["input_ids"])
        batch = {**batch, "input_ids": ids}
    outputs = model(**batch, mixup=plan)
    loss = weighted_mean(*objective(outputs.logits, LABELS, plan, outputs.label_weight))
    loss.backward()
    assert torch.isfinite(loss) and all(
        parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters()
    )


def test_the_tap_of_ssmix_receives_the_gradient_of_the_first_blocks_input(any_family):
    model, parent = both(any_family)
    batch = tiny_batch(any_family)
    mixup = Mixup(METHODS["ssmix"], NUM_LAYERS, 32, 4, special_ids=[2, 3, PAD[any_family]])
    plan = mixup.plan(batch, LABELS, StepKey(1))
    tap = torch.zeros(*batch["input_ids"].shape, 32, requires_grad=True)
    model(**batch, mixup=plan.tapped(tap)).logits.square().sum().backward()
    seen = []
    block = hooked.blocks_of(any_family, parent)[0]
    handle = block.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits = parent(**batch).logits
    handle.remove()
    expected = torch.autograd.grad(logits.square().sum(), seen[0])[0]
    torch.testing.assert_close(tap.grad, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", ["own", "union"])
def test_modernbert_takes_the_mean_over_the_tokens_of_the_policy(policy):
    model, parent = both("modernbert", classifier_pooling="mean")
    batch = tiny_batch("modernbert")
    plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), "embeddings", attention_mask=policy)
    mask = hooked.mask_of_policy(batch["attention_mask"], PARTNER, policy)
    with hooked.mixing_hooks("modernbert", parent, batch, PARTNER, 0.7, "embeddings", (), policy):
        states = parent.model(**batch).last_hidden_state
    pooled = torch.stack([states[i, mask[i].bool()].mean(dim=0) for i in range(5)])
    expected = parent.classifier(parent.head(pooled))
    torch.testing.assert_close(model(**batch, mixup=plan).logits, expected, **TOLERANCE)


def test_left_padding_of_a_decoder():
    model, parent = both("qwen2")
    batch = {name: values.flip(1) for name, values in tiny_batch("qwen2").items()}
    for policy in ("own", "union"):
        plan = PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), "hidden", (1,), attention_mask=policy)
        expected = hooked.forward("qwen2", parent, batch, PARTNER, 0.7, "hidden", (1,), policy)
        torch.testing.assert_close(model(**batch, mixup=plan).logits, expected, **TOLERANCE)


def test_deberta_with_a_convolution_is_refused():
    model = tiny_model("deberta-v2", conv_kernel_size=3, conv_act="gelu").eval()
    batch = tiny_batch("deberta-v2")
    assert model(**batch).logits.shape == (5, 3)
    with pytest.raises(ValueError, match="convolution beside its first block"):
        model(**batch, mixup=PairPlan(torch.tensor(PARTNER), torch.tensor(0.7), "pooled"))


def test_albert_counts_passes_through_shared_weights():
    config = tiny_config("albert", num_hidden_groups=3)
    shared = tiny_model("albert")
    apart = MODELS["albert"](config)
    assert len({id(block) for block in shared._blocks()}) == 1
    assert len({id(block) for block in apart._blocks()}) == 3
