"""The methods' settings, options and draws."""

import numpy as np
import pytest
import torch

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.methods.method import parse_layers
from hf_mixup.mixing import StepKey

LABELS = torch.arange(8)


def plans(method, count=2000, labels=LABELS, **options):
    mixup = Mixup(METHODS[method].with_options(**options), num_layers=12)
    return [mixup.plan({}, labels, StepKey(seed=1, step=step)) for step in range(count)]


def test_amplify_is_the_papers():
    amplify = METHODS["amplify"]
    assert (amplify.site, amplify.layers, amplify.partner, amplify.attention_mask) == (
        "attention",
        "all",
        "random",
        "own",
    )
    assert (amplify.ratio.kind, amplify.ratio.draws, amplify.ratio.alpha) == ("max-of-n", 5, 0.1)
    assert "2309.12689" in amplify.paper.url
    assert METHODS["amplify-code"].site == "attention_block"
    assert amplify.resolve_layers(12) == tuple(range(1, 13))
    for layer in (4, 8, 12):
        assert amplify.with_options(layers=str(layer)).resolve_layers(12) == (layer,)


def test_the_draw_of_a_key_is_numpys():
    plan = plans("amplify", count=1, alpha=1.0)[0]
    generator = np.random.default_rng([1, 0, 0, 0])
    generator.random()
    partner = generator.permutation(8)
    lam = generator.beta(1.0, 1.0, (1, 5)).max().astype(np.float32)
    assert plan.partner.tolist() == partner.tolist()
    assert plan.weight.item() == lam and plan.label_weight.tolist() == [lam] * 8


def test_a_step_that_would_mix_nothing_is_a_plain_step():
    share = sum(plan is None for plan in plans("amplify")) / 2000
    assert share == pytest.approx(0.37, abs=0.03)
    assert plans("none", count=3) == [None] * 3
    assert all(plan is None for plan in plans("amplify", count=20, labels=torch.tensor([1]), alpha=1.0))
    assert all(plan is None for plan in plans("amplify", count=20, ratio="constant", lam=1.0))
    # A permutation of two rows is the identity half of the time.
    two = plans("amplify", labels=torch.tensor([0, 1]), ratio="constant", lam=0.5)
    assert sum(plan is None for plan in two) / 2000 == pytest.approx(0.5, abs=0.04)
    assert all(plan is None or plan.partner.tolist() == [1, 0] for plan in two)


def test_one_ratio_per_row():
    plan = next(plan for plan in plans("amplify", count=5, per_sample=True, alpha=1.0))
    assert plan.weight.shape == (8, 1, 1) and len(set(plan.label_weight.tolist())) == 8
    assert torch.equal(plan.weight.flatten(), plan.label_weight)


def test_the_coin_decides_for_a_batch_and_moves_nothing_else():
    always = plans("amplify", ratio="beta", alpha=1.0)
    sometimes = plans("amplify", ratio="beta", alpha=1.0, prob=0.3)
    kept = [(a, s) for a, s in zip(always, sometimes, strict=True) if s is not None]
    assert len(kept) / 2000 == pytest.approx(0.3, abs=0.03)
    assert all(torch.equal(a.weight, s.weight) and torch.equal(a.partner, s.partner) for a, s in kept)
    assert all(plan is None for plan in plans("amplify", count=20, ratio="beta", alpha=1.0, prob=0.0))


def test_processes_and_micro_batches_draw_differently():
    mixup = Mixup(METHODS["amplify"].with_options(ratio="beta", alpha=1.0), num_layers=2)
    keys = [StepKey(1, rank, step, micro) for rank in (0, 1) for step in (0, 1) for micro in (0, 1)]
    drawn = [mixup.plan({}, LABELS, key) for key in keys]
    assert len({plan.weight.item() for plan in drawn}) == len(keys)
    again = [mixup.plan({}, LABELS, key) for key in reversed(keys)][::-1]
    pairs = zip(drawn, again, strict=True)
    assert all(torch.equal(a.weight, b.weight) and torch.equal(a.partner, b.partner) for a, b in pairs)


def test_another_ratio_keeps_the_parameters_that_it_uses():
    amplify = METHODS["amplify"]
    assert amplify.with_options(ratio="beta-max").ratio.alpha == 0.1
    assert amplify.with_options(ratio="beta-max").ratio.draws is None
    assert amplify.with_options(draws=9).ratio.draws == 9
    assert amplify.with_options(ratio="constant", lam=0.8).ratio.alpha is None


def test_another_site_takes_its_own_layers():
    amplify = METHODS["amplify"]
    assert amplify.with_options(site="hidden").resolve_layers(2) == (0, 1, 2)
    assert amplify.with_options(site="hidden", layers=[0]).resolve_layers(2) == (0,)
    assert amplify.with_options(site="pooled").resolve_layers(2) == ()


def test_flip_and_roll():
    rows = plans("amplify", count=1, partner="flip", alpha=1.0)[0].partner
    assert rows.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    rows = plans("amplify", count=1, partner="roll", alpha=1.0)[0].partner
    assert rows.tolist() == [7, 0, 1, 2, 3, 4, 5, 6]
    odd = plans("amplify", count=1, partner="flip", alpha=1.0, labels=torch.arange(3))[0].partner
    assert odd.tolist() == [2, 1, 0]


def test_neighbours():
    rows = plans("amplify", count=1, partner="neighbour", alpha=1.0)[0].partner
    assert rows.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    odd = plans("amplify", count=1, partner="neighbour", alpha=1.0, labels=torch.arange(3))[0].partner
    assert odd.tolist() == [1, 0, 2]


def test_mixing_between_two_fractions_of_the_training():
    mixup = Mixup(METHODS["amplify"].with_options(alpha=1.0, start=0.25, stop=0.75), num_layers=2)
    mixed = [mixup.plan({}, LABELS, StepKey(1, step=step), progress=step / 8) is not None for step in range(8)]
    assert mixed == [False, False, True, True, True, True, False, False]
    transformer = Mixup(METHODS["mixup-transformer"], num_layers=2)
    mixed = [transformer.plan({}, LABELS, StepKey(1, step=step), progress=step / 4) for step in range(4)]
    assert [plan and plan.weight.item() for plan in mixed] == [None, None, 0.5, 0.5]


def test_manifold_draws_every_eligible_place_equally_often():
    mixup = Mixup(METHODS["manifold"], num_layers=3)
    drawn = [mixup.plan({}, LABELS, StepKey(1, step=step)) for step in range(3000)]
    places = [plan.site if plan.drawn is None else plan.drawn.item() for plan in drawn]
    expected = [0, 1, 2, 3, "pooled"]
    assert set(places) == set(expected)
    assert {plan.layers for plan in drawn if plan.site == "hidden"} == {(0, 1, 2, 3)}
    assert all(abs(places.count(place) / 3000 - 0.2) < 0.03 for place in expected)
    assert {plan.attention_mask for plan in drawn if plan.site == "hidden"} == {"union"}
    assert METHODS["manifold"].with_options(layers="0,2,pooled").resolve_layers(3) == (0, 2, "pooled")


@pytest.mark.parametrize(
    ("depth", "blocks"), [(12, (7, 9, 12)), (24, (14, 18, 24)), (6, (4, 5, 6)), (4, (3, 4)), (2, (2,)), (1, (1,))]
)
def test_tmix_takes_the_same_fractions_of_another_depth(depth, blocks):
    assert METHODS["tmix"].resolve_layers(depth) == blocks


def test_the_papers_defaults():
    for name, site, kind, alpha, mask in (
        ("embedmix", "embeddings", "beta-max", 0.2, "union"),
        ("sentmix", "pooled", "beta-max", 0.2, "own"),
        ("manifold", "hidden", "beta", 2.0, "union"),
        ("tmix", "hidden", "beta", 16.0, "union"),
    ):
        method = METHODS[name]
        found = (method.site, method.ratio.kind, method.ratio.alpha, method.attention_mask)
        assert found == (site, kind, alpha, mask)
    assert METHODS["mixup-transformer"].ratio.lam == 0.5 and METHODS["mixup-transformer"].start == 0.5
    assert all(method.paper is not None for name, method in METHODS.items() if name != "none")


def test_batch_methods_draw_whole_batches():
    mixup = Mixup(METHODS["batchmixup"].with_options(points=5), num_layers=2, hidden_size=6)
    plan = mixup.plan({}, LABELS, StepKey(1))
    assert plan.weights.shape == (5, 8, 6) and plan.dot_product and plan.site == "pooled"
    code = Mixup(METHODS["batchmixup-code"], num_layers=2).plan({}, LABELS, StepKey(1))
    assert code.weights.shape == (400, 8) and not code.dot_product
    pairs = Mixup(METHODS["mixup-pairs"], num_layers=2).plan({}, LABELS, StepKey(1))
    assert pairs.weights.shape == (15 * 64, 8)
    assert mixup.plan({}, LABELS[:1], StepKey(1)) is None
    hot, cold = (METHODS["batchmixup-code"].with_options(temperature=t).ratio.temperature for t in (2.0, 0.1))
    assert (hot, cold) == (2.0, 0.1)


def test_attentionmix_asks_for_the_papers_head():
    plan = Mixup(METHODS["attentionmix"], num_layers=12, num_heads=12).plan({}, LABELS, StepKey(1))
    assert plan.probe == (1, 8) and plan.weight is None and plan.label_weight is None
    average = METHODS["attentionmix"].with_options(attention_layer=3, attention_head="average")
    assert average.ratio == (3, None)
    assert Mixup(average, num_layers=12).settings()["ratio"] == {"attention_layer": 3, "attention_head": "average"}


def test_nonlinear_draws_a_weight_for_every_feature():
    plan = Mixup(METHODS["nonlinear"], num_layers=12, hidden_size=6).plan({}, LABELS, StepKey(1))
    assert plan.weight.shape == (8, 1, 6) and plan.layers == (7, 9, 12) and plan.drawn.item() in (7, 9, 12)
    torch.testing.assert_close(plan.label_weight, plan.weight.mean(dim=(1, 2)))


def test_alternate_tosses_a_coin_and_average_trains_both():
    for prob in (None, 0.4):
        drawn = plans("embedmix", clean="alternate", prob=prob, ratio="constant", lam=0.6)
        assert sum(plan is not None for plan in drawn) / 2000 == pytest.approx((prob or 1) / 2, abs=0.03)
    plan = plans("embedmix", count=1, clean="average", clean_weight=0.3, ratio="constant", lam=0.6)[0]
    assert plan.clean_weight == 0.3


@pytest.mark.parametrize("partner", ["flip", "neighbour"])
def test_compounded_label_weights_are_what_repeated_mixing_leaves(partner):
    plan = plans("amplify-code", count=1, partner=partner, label_weight="compounded", ratio="constant", lam=0.9)[0]
    # Twelve blocks that do nothing but mix: follow the own share of a row through them.
    own = 1.0
    for _ in range(12):
        own = 0.9 * own + 0.1 * (1 - own)
    assert plan.label_weight.tolist() == pytest.approx([own] * 8, abs=1e-6)
    assert plan.weight.item() == pytest.approx(0.9)


def test_skip_without_a_mask_says_once_that_padding_is_mixed(caplog):
    mixup = Mixup(METHODS["amplify"].with_options(attention_mask="skip", ratio="constant", lam=0.6), num_layers=2)
    labels = torch.zeros(3)
    mixup.plan({"attention_mask": torch.ones(3, 4)}, labels, StepKey(seed=0, step=0))
    assert not caplog.records
    for step in range(1, 9):
        mixup.plan({}, labels, StepKey(seed=0, step=step))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "the batches have no attention_mask" in record.message


def test_skip_reads_the_attention_mask_of_the_batch():
    mixup = Mixup(METHODS["amplify"].with_options(attention_mask="skip", ratio="constant", lam=0.6), num_layers=2)
    mask = torch.ones(8, 3, dtype=torch.long)
    mask[4:, 1:] = 0
    plan = mixup.plan({"attention_mask": mask}, LABELS, StepKey(0))
    both = mask.bool() & mask[plan.partner].bool()
    assert torch.equal(plan.weight.squeeze(-1), torch.where(both, 0.6, 1.0)) and plan.attention_mask == "own"


@pytest.mark.parametrize(
    ("layers", "expected"), [("all", "all"), ("4", (4,)), (4, (4,)), ("8, 4", (4, 8)), ([1, 1], (1,)), ((2,), (2,))]
)
def test_layers_are_read(layers, expected):
    assert parse_layers(layers) == expected


@pytest.mark.parametrize("layers", ["", "every", "1,x", "-1", [], "1.5", [None]])
def test_layers_that_are_none(layers):
    with pytest.raises(ValueError, match="give 'all' or block numbers such as 4 or 4,8"):
        parse_layers(layers)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("none", {"alpha": 0.1}, "mixup_method='none' does not mix"),
        ("none", {"layers": "1"}, "mixup_method='none' does not mix"),
        (
            "amplify",
            {"site": "attentions"},
            r"mixup_site='attentions' is unknown \(did you mean 'attention'\?\): choose one of input_ids",
        ),
        ("amplify", {"site": "pooled", "layers": "1"}, "mixup_layers='1' has no meaning at mixup_site='pooled'"),
        ("amplify", {"site": "pooled", "attention_mask": "union"}, "has no meaning at mixup_site='pooled'"),
        ("amplify", {"attention_mask": "all"}, "mixup_attention_mask='all' is unknown"),
        ("amplify", {"prob": 1.1}, "mixup_prob=1.1 is not allowed"),
        ("amplify", {"alpha": 0}, "mixup_alpha=0 is not allowed"),
        ("amplify", {"lam": 0.5}, "mixup_lambda=0.5 is not used by mixup_ratio='max-of-n'"),
        ("amplify", {"partner": "next"}, "mixup_partner='next' is unknown: choose one of random, flip, roll"),
        ("amplify", {"clean": "both"}, "mixup_clean='both' is unknown: choose one of none, average, alternate"),
        ("amplify", {"clean_weight": 0.3}, "mixup_clean_weight=0.3 is for mixup_clean='average'"),
        ("amplify", {"clean": "average", "clean_weight": 1.0}, "mixup_clean_weight=1.0 is not allowed"),
        ("amplify", {"start": 0.8, "stop": 0.2}, "mixup_start=0.8 and mixup_stop=0.2 are not allowed"),
        ("amplify", {"start": -0.1}, "mixup_start=-0.1"),
        (
            "amplify",
            {"label_weight": "half"},
            "mixup_label_weight='half' is unknown: choose one of ratio, compounded, learned",
        ),
        (
            "amplify",
            {"label_weight": "compounded"},
            "holds for mixup_site='attention_block' with mixup_partner='flip'",
        ),
        ("amplify-code", {"label_weight": "compounded"}, "holds for mixup_site='attention_block'"),
        ("sentmix", {"layers": "3"}, "mixup_layers='3' has no meaning at mixup_site='pooled'"),
        ("sentmix", {"attention_mask": "skip"}, "mixup_attention_mask='skip' has no meaning at mixup_site='pooled'"),
        ("embedmix", {"layers": "1"}, "mixup_layers='1' has no meaning at mixup_site='embeddings'"),
        ("amplify", {"points": 3}, "mixup_points=3 is not used by mixup_method='amplify': of these options it takes"),
        ("amplify", {"attention_layer": 3}, "mixup_attention_layer=3 is not used by mixup_method='amplify'"),
        ("attentionmix", {"alpha": 0.3}, "mixup_alpha=0.3 is not used by mixup_method='attentionmix'"),
        ("attentionmix", {"site": "pooled"}, "weighs every token"),
        ("attentionmix", {"attention_mask": "skip"}, "weighs every token"),
        ("nonlinear", {"attention_mask": "skip"}, "ratio for every feature"),
        (
            "attentionmix",
            {"attention_head": "first"},
            "mixup_attention_head='first' is not allowed: give the number of a head",
        ),
        (
            "ssmix",
            {"alpha": 0.3},
            "mixup_alpha=0.3 is not used by mixup_method='ssmix': of these options it takes none",
        ),
        ("ssmix", {"site": "embeddings"}, "mixup_site='embeddings' is not for mixup_method='ssmix'"),
        ("ssmix", {"clean": "none"}, "it takes mixup_clean='average'"),
        ("amplify", {"site": "input_ids"}, "input_ids is the site of ssmix"),
        ("batchmixup", {"partner": "flip"}, "mixup_partner='flip' has no meaning for mixup_method='batchmixup'"),
        ("batchmixup", {"clean": "average"}, "mixup_clean='average' has no meaning for mixup_method='batchmixup'"),
        (
            "batchmixup",
            {"site": "logits"},
            "mixup_site='logits' is not for mixup_method='batchmixup': it takes pooled",
        ),
        ("batchmixup-code", {"site": "hidden"}, "it takes pooled or logits"),
        ("batchmixup-code", {"alpha": 0.4}, "mixup_alpha=0.4 is not used by this method"),
        ("mixup-pairs", {"points": 0}, "mixup_points=0 is not allowed"),
        ("amplify", {"ratio": "normal"}, "mixup_ratio='normal' is unknown"),
    ],
)
def test_options_without_meaning_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS[method].with_options(**options)


@pytest.mark.parametrize(
    ("site", "layer", "first"), [("attention", 13, 1), ("attention_block", 0, 1), ("hidden", 13, 0)]
)
def test_a_block_that_the_model_does_not_have(site, layer, first):
    with pytest.raises(
        ValueError, match=f"has 12 blocks, so mixup_method='amplify' at mixup_site='{site}' allows {first} to 12"
    ):
        METHODS["amplify"].with_options(site=site, layers=layer).resolve_layers(12)
