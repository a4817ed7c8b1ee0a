"""Plans, keys and the mix itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.utils import _apply_to_tensors

from hf_mixup.mixing import BatchPlan, PairPlan, StepKey, mix
from hf_mixup.mixing.plan import _sent

SHAPES = {
    "scalar": lambda rows, length, width: (),
    "row": lambda rows, length, width: (rows, 1, 1),
    "token": lambda rows, length, width: (rows, length, 1),
    "feature": lambda rows, length, width: (rows, 1, width),
}


@st.composite
def cases(draw):
    rows, length, width = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(sorted(SHAPES)))
    states = torch.from_numpy(generator.normal(size=(rows, length, width)))
    weight = torch.from_numpy(np.asarray(generator.random(SHAPES[kind](rows, length, width))))
    return states, torch.from_numpy(generator.permutation(rows)), weight


def loop(states, partner, weight):
    full = weight.expand(states.shape)
    mixed = torch.empty_like(states)
    for i in range(states.shape[0]):
        for t in range(states.shape[1]):
            for f in range(states.shape[2]):
                w = full[i, t, f]
                mixed[i, t, f] = w * states[i, t, f] + (1 - w) * states[partner[i], t, f]
    return mixed


@settings(deadline=None, max_examples=60)
@given(cases())
def test_mix_equals_a_loop_forward_and_backward(case):
    states, partner, weight = case
    torch.testing.assert_close(mix(states, partner, weight), loop(states, partner, weight), atol=1e-12, rtol=1e-12)
    one, two = states.clone().requires_grad_(), states.clone().requires_grad_()
    upstream = torch.from_numpy(np.random.default_rng(0).normal(size=states.shape))
    mix(one, partner, weight).backward(upstream)
    loop(two, partner, weight).backward(upstream)
    torch.testing.assert_close(one.grad, two.grad, atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_every_mixed_row_is_a_convex_combination(case):
    states, partner, weight = case
    mixed, theirs = mix(states, partner, weight), states[partner]
    assert (mixed >= torch.minimum(states, theirs) - 1e-12).all()
    assert (mixed <= torch.maximum(states, theirs) + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(cases())
def test_permuting_the_batch_and_the_plan_permutes_the_result(case):
    states, partner, weight = case
    order = torch.randperm(len(partner))
    position = torch.argsort(order)
    moved = mix(states[order], position[partner[order]], weight[order] if weight.ndim else weight)
    torch.testing.assert_close(moved, mix(states, partner, weight)[order], atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(cases())
def test_weight_one_is_the_identity_and_weight_zero_the_partner(case):
    states, partner, _ = case
    assert torch.equal(mix(states, partner, torch.tensor(1.0, dtype=torch.float64)), states)
    assert torch.equal(mix(states, partner, torch.tensor(0.0, dtype=torch.float64)), states[partner])


@settings(deadline=None, max_examples=20)
@given(cases(), st.floats(0, 1))
def test_one_weight_for_all_rows_equals_a_weight_per_row(case, value):
    states, partner, _ = case
    scalar = torch.tensor(value, dtype=torch.float64)
    rows = scalar.expand(len(partner), 1, 1)
    torch.testing.assert_close(mix(states, partner, scalar), mix(states, partner, rows), atol=1e-12, rtol=1e-12)


def test_a_weight_per_row_survives_half_precision():
    states = torch.tensor([[[100.0]], [[0.0]]]).bfloat16()
    weight = torch.tensor([[[0.999]], [[0.999]]])
    partner = torch.tensor([1, 0])
    expected = torch.tensor([99.9, 0.1]).bfloat16()
    for given_weight in (weight, torch.tensor(0.999)):
        mixed = mix(states, partner, given_weight)
        assert mixed.dtype == torch.bfloat16
        torch.testing.assert_close(mixed.flatten(), expected, atol=2e-3, rtol=0)


def test_a_plan_mixes_half_precision_as_the_function_does():
    generator = torch.Generator().manual_seed(0)
    partner = torch.tensor([1, 2, 0])
    for weight in (0.999, 0.3, 1 / 3):
        plan = PairPlan(partner, torch.tensor(weight), "attention", (1, 2))
        for layer in (1, 2):
            states = [torch.randn(3, 4, 2, generator=generator).bfloat16().requires_grad_()]
            states.append(states[0].detach().clone().requires_grad_())
            outputs = plan.mix(states[0], "attention", layer), mix(states[1], partner, torch.tensor(weight))
            for output in outputs:
                (output * torch.arange(24).reshape(3, 4, 2)).sum().backward()
            assert torch.equal(*outputs) and torch.equal(states[0].grad, states[1].grad)


def test_gradcheck_also_for_a_learned_weight():
    states = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    partner = torch.tensor([2, 0, 3, 1])
    for shape in ((), (4, 1, 1), (4, 3, 1), (4, 1, 2)):
        weight = torch.rand(shape, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x, w=weight: mix(x, partner, w), (states,))
        assert torch.autograd.gradgradcheck(lambda x, w=weight: mix(x, partner, w), (states,))
        learned = weight.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, w: mix(x, partner, w), (states, learned))


@pytest.mark.parametrize("shape", [(5, 3, 4), (3, 1, 2, 2), (4, 128, 384), (4, 6), (4,), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_any_shape_and_layout(shape, transposed):
    """Also of over 32,768 elements, which a CPU would copy one by one, and of tensors that are not contiguous."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(shape, generator=generator)
    if transposed and len(shape) > 2:
        states = torch.randn((*shape[:-2], shape[-1], shape[-2]), generator=generator).transpose(-1, -2)
    partner = torch.randperm(shape[0], generator=generator)
    states.requires_grad_()
    mixed = mix(states, partner, torch.tensor(0.25))
    mixed.backward(2 * states.detach())
    for row in range(shape[0]):
        torch.testing.assert_close(mixed[row], 0.25 * states[row] + 0.75 * states[partner[row]])
        lender = int((partner == row).nonzero())
        torch.testing.assert_close(states.grad[row], 2 * (0.25 * states[row] + 0.75 * states[lender]).detach())


def test_a_key_draws_the_same_numbers_again_and_another_key_others():
    key = StepKey(seed=42, rank=0, step=7, micro=1)
    first = key.generator().random(4)
    np.testing.assert_array_equal(first, np.random.default_rng([42, 0, 7, 1]).random(4))
    assert (key.generator().random(4) == first).all()
    for other in (key._replace(seed=43), key._replace(rank=1), key._replace(step=8), key._replace(micro=0)):
        assert (other.generator().random(4) != first).all()


def test_a_plan_is_frozen_and_keeps_the_own_label_share():
    plan = PairPlan(torch.tensor([1, 0, 2]), torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1), "pooled")
    assert torch.equal(plan.label_weight, torch.tensor([0.2, 0.3, 0.4]))
    assert torch.equal(plan.partner[plan.inverse], torch.arange(3))
    with pytest.raises(AttributeError):
        plan.site = "logits"
    moved = plan.to("cpu")
    assert torch.equal(moved.weight, plan.weight) and moved.site == plan.site


def test_masks_are_joined_from_the_block_after_the_mixing_on():
    partner, weight = torch.tensor([1, 0]), torch.tensor(0.5)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    union = PairPlan(partner, weight, "hidden", layers=(1, 2), attention_mask="union")
    states = torch.zeros(2, 4, 1)

    def mask_of(plan, mask, layer):
        hidden_states, found = plan.enter_block(states, mask, layer)
        assert torch.equal(hidden_states, states)
        return found

    assert torch.equal(mask_of(union, mask, 1), mask)
    assert mask_of(union, mask, 2).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]
    assert mask_of(union, mask.bool(), 2).tolist() == [[True, True, True, False]] * 2
    added = torch.where(mask == 1, 0.0, -1e9)
    assert torch.equal(mask_of(union, added, 3), torch.where(mask_of(union, mask, 3) == 1, 0.0, -1e9))
    both = PairPlan(partner, weight, "embeddings", attention_mask="intersection")
    assert mask_of(both, mask, 1).tolist() == [[1, 0, 0, 0]] * 2
    assert mask_of(union, None, 2) is None
    assert torch.equal(mask_of(PairPlan(partner, weight, "embeddings"), mask, 1), mask)


def test_masks_are_joined_once_for_all_blocks_that_get_the_same_one():
    mask = torch.tensor([[True, True, False, False], [True, True, True, False], [True, False, False, False]])
    other = mask.flip(0)
    plan = PairPlan(torch.tensor([2, 0, 1]), torch.tensor(0.5), "hidden", (2, 3), attention_mask="union")
    states = torch.zeros(3, 4, 1)
    joined = [plan.enter_block(states, mask, layer)[1] for layer in (1, 2, 3, 4, 5)]
    # Another mask, as of blocks that look elsewhere, is joined for itself.
    joined.append(plan.enter_block(states, other, 5)[1])
    union, others = (
        [[a or b for a, b in zip(rows[row], rows[plan.partner[row]], strict=True)] for row in range(3)]
        for rows in (mask.tolist(), other.tolist())
    )
    assert [found.tolist() for found in joined] == [mask.tolist()] * 2 + [union] * 3 + [others]
    assert joined[2] is joined[3] is joined[4]
    # Which block mixes may be drawn: the others are the row's own up to it.
    drawn = replace(plan, drawn=torch.tensor(3))
    found = [drawn.enter_block(states, mask, layer)[1].tolist() for layer in (2, 3, 4, 5)]
    assert found == [mask.tolist()] * 2 + [union] * 2
    # A plan for another batch knows nothing of it.
    assert replace(plan, partner=torch.tensor([0, 1, 2]), inverse=None).enter_block(states, mask, 6)[1].equal(mask)


def test_fsdp_can_make_a_plan_anew():
    # What FSDP does to dataclasses among the inputs of a module, to cast their tensors.
    plan = PairPlan(torch.tensor([1, 0]), torch.tensor(0.5), "embeddings", attention_mask="union")
    plan.enter_block(torch.zeros(2, 3, 1), torch.ones(2, 3, dtype=torch.bool), 1)
    again = _apply_to_tensors(lambda values: values, plan)
    assert again.partner.equal(plan.partner) and again.attention_mask == "union"


@pytest.mark.parametrize("clean_weight", [None, 0.3])
@pytest.mark.parametrize("drawn", [1, 2, 4])
def test_a_drawn_layer_that_the_host_knows_changes_nothing(drawn, clean_weight):
    generator = torch.Generator().manual_seed(drawn)
    states, mask = torch.randn(3, 4, 2, generator=generator), torch.rand(3, 4, generator=generator) > 0.4
    weight = torch.tensor([0.3, 0.6, 0.9]).reshape(3, 1, 1)
    partner = torch.tensor([2, 0, 1])
    plan = PairPlan(
        partner, weight, "hidden", (1, 2, 4), torch.tensor(drawn), None, "union", clean_weight=clean_weight
    )
    known = replace(plan, drawn_layer=drawn)
    found = []
    for each in (plan, known):
        hidden_states, seen = states.clone().requires_grad_(), []
        out = hidden_states
        for layer in range(1, 6):
            out, block_mask = each.enter_block(out, mask, layer)
            out = each.mix(3 * out, "hidden", layer)
            seen += [block_mask, out]
        out.square().sum().backward()
        found.append([*seen, hidden_states.grad])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


def test_clean_rows_go_beside_the_mixed_ones_from_the_first_mixed_block_on():
    mask = torch.tensor([[1, 1], [1, 0]])
    states = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    plan = PairPlan(
        torch.tensor([1, 0]), torch.tensor(0.5), "attention", (2, 3), attention_mask="union", clean_weight=0.3
    )
    before, before_mask = plan.enter_block(states, mask, 1)
    assert before.shape[0] == before_mask.shape[0] == 2
    twice, twice_mask = plan.enter_block(states, mask, 2)
    assert torch.equal(twice, torch.cat([states, states])) and twice_mask.tolist() == [[1, 1], [1, 0]] * 2
    mixed = plan.mix(twice, "attention", 2)
    assert torch.equal(mixed[:2], states)
    assert torch.equal(mixed[2:], torch.tensor([[[2.0], [3.0]]] * 2))
    later, later_mask = plan.enter_block(mixed, mask, 3)
    assert torch.equal(later, mixed) and later_mask.tolist() == [[1, 1], [1, 0], [1, 1], [1, 1]]


def test_skip_mixes_only_where_both_rows_have_a_token():
    plan = PairPlan(torch.tensor([1, 0, 2]), torch.tensor(0.25), "attention", (1,))
    skipping = plan.skip_padding(torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]))
    assert skipping.weight.squeeze(-1).tolist() == [[0.25, 0.25, 1.0], [0.25, 0.25, 1.0], [0.25, 1.0, 1.0]]
    assert skipping.label_weight.tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"site": "attentions"},
            "site='attentions' is unknown .did you mean 'attention'.*: choose one of word_emb",
        ),
        ({"attention_mask": "ones"}, "attention_mask='ones' is unknown: choose one of own, union, intersection"),
        ({"site": "input_ids"}, "site='input_ids' is unknown"),
        ({"layers": ()}, "does not fit site='attention'"),
        ({"layers": (0,)}, "does not fit site='attention': hidden takes blocks from 0, attention and"),
        ({"site": "embeddings", "layers": (3,)}, "does not fit site='embeddings'"),
        ({"site": "hidden", "layers": (-1,)}, "layer=-1 is not allowed"),
        ({"site": "pooled"}, "does not fit site='pooled'"),
        ({"partner": torch.tensor([0, 0])}, "is not a permutation of the rows"),
        ({"weight": None}, "either a weight or a probe"),
        ({"partner": torch.tensor([0.0, 1.0])}, "partner must be an int64 tensor"),
        ({"weight": torch.ones(2)}, "weight of shape \\[2\\] does not fit"),
        ({"weight": torch.ones(2, 3, 4)}, "does not fit"),
        ({"weight": torch.ones(2, 3, 1), "site": "pooled", "layers": ()}, "does not fit site='pooled'"),
        ({"weight": torch.ones(2, 3, 1)}, "label_weight must be given"),
        ({"clean_weight": 1.0}, "clean_weight=1.0 is not allowed"),
        ({"weight": torch.tensor(1.7)}, "weight must be in \\[0, 1\\], got values from 1.7 to 1.7"),
        ({"weight": torch.tensor(float("nan"))}, "weight must be in \\[0, 1\\]"),
        ({"weight": torch.tensor(1)}, "weight must be a floating-point tensor, got torch.int64"),
        ({"weight": 0.7}, "weight must be a floating-point tensor, got float"),
        ({"label_weight": torch.tensor([0.5, -0.5])}, "label_weight must be in \\[0, 1\\]"),
        ({"partner": [1, 0]}, "partner must be an int64 tensor \\[batch\\], got a list"),
        ({"layers": ("1",)}, "layer='1' is not allowed: give a whole number"),
        ({"drawn": torch.tensor([1])}, "drawn of shape \\[1\\] does not fit"),
        ({"drawn": torch.tensor(1), "site": "pooled", "layers": ()}, "does not fit site='pooled': give one number"),
        ({"label_weight": torch.ones(3)}, "label_weight must have shape \\[2\\]"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, message):
    fields = {"partner": torch.tensor([1, 0]), "weight": torch.tensor(0.5), "site": "attention", "layers": (1,)}
    with pytest.raises(ValueError, match=message):
        PairPlan(**{**fields, **change})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]], "weights must be a floating-point tensor, got list"),
        (torch.tensor([[3.0, 4.0]]), "weights must be in"),
        (torch.tensor([[0.3, 0.3]]), "must sum to 1 over the batch"),
        (torch.tensor([0.5, 0.5]), "weights of shape \\[2\\] do not fit"),
    ],
)
def test_weights_of_a_batch_that_make_no_sense_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        BatchPlan(weights)


def test_a_key_of_other_things_than_whole_numbers_is_refused():
    for key in (StepKey("1"), StepKey(-1), StepKey(0, rank=1.5)):
        with pytest.raises(ValueError, match="give a whole number of at least 0"):
            key.generator()


def test_what_is_sent_together_arrives_as_it_was():
    tensors = {
        "weight": torch.tensor(0.3),
        "half": torch.tensor([[0.25], [0.5], [0.75]], dtype=torch.bfloat16),
        "partner": torch.tensor([2, 0, 1]),
        "label_weight": torch.tensor(0.7, dtype=torch.float64).expand(3),
        "special_ids": torch.tensor([101, 102]),
    }
    sent = _sent(tensors, torch.device("cpu"))
    assert set(sent) == set(tensors)
    for name, tensor in tensors.items():
        assert sent[name].dtype == tensor.dtype
        torch.testing.assert_close(sent[name], tensor, rtol=0, atol=0)
    assert len({tensor.untyped_storage().data_ptr() for tensor in sent.values()}) == 1


def test_a_plan_that_is_there_already_stays_as_it_is():
    plan = PairPlan(torch.tensor([1, 0]), torch.tensor(0.5), "pooled")
    assert plan.to("cpu") is plan
