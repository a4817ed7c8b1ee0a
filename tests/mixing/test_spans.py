"""Which spans are swapped, against loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hf_mixup.mixing.attention import attention_relevance, mean_over_tokens, token_ratio
from hf_mixup.mixing.spans import gradient_saliency, own_share, segment_numbers, swap_spans

CLS, SEP, PAD = 2, 3, 0
SPECIAL = torch.tensor([PAD, CLS, SEP])


def row(*segments, separators=1, length=20):
    ids = [CLS]
    for number, segment in enumerate(segments):
        ids += [SEP] * (separators - 1 if number else 0) + list(segment) + [SEP]
    return ids + [PAD] * (length - len(ids))


def loop(ids, saliency, partner, runs, window):
    """Runs of content tokens are given as (start, end) of each row; search every pair of windows."""
    mixed, shares = [list(r) for r in ids], []
    for i, j in enumerate(partner):
        swapped = total = 0
        for own, theirs in zip(runs[i], runs[j], strict=True):
            n, m = own[1] - own[0], theirs[1] - theirs[0]
            k = max(int(n * window), 1)
            total += n
            if n < k or m < k or i == j:
                continue
            least = min(range(own[0], own[1] - k + 1), key=lambda s: sum(saliency[i][s : s + k]))
            most = max(range(theirs[0], theirs[1] - k + 1), key=lambda s: sum(saliency[j][s : s + k]))
            mixed[i][least : least + k] = ids[j][most : most + k]
            swapped += k
        shares.append(1 - swapped / total)
    return mixed, shares


@st.composite
def batches(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, pair = draw(st.integers(1, 5)), draw(st.booleans())
    ids, runs = [], []
    for _ in range(rows):
        lengths = generator.integers(1, 25, 2 if pair else 1)
        segments = [generator.integers(10, 99, n).tolist() for n in lengths]
        ids.append(row(*segments, separators=draw(st.sampled_from([1, 2])), length=60))
        starts = [t for t in range(60) if ids[-1][t] >= 10 and (t == 0 or ids[-1][t - 1] < 10)]
        runs.append([(start, start + n) for start, n in zip(starts, lengths, strict=True)])
    return torch.tensor(ids), torch.from_numpy(generator.random((rows, 60))), generator.permutation(rows), runs


@settings(deadline=None, max_examples=80)
@given(batches(), st.sampled_from([0.1, 0.3]))
def test_spans_are_the_least_and_the_most_salient_of_each_segment(batch, window):
    ids, saliency, partner, runs = batch
    segments = segment_numbers(ids, None, SPECIAL)
    mixed = swap_spans(ids, saliency, segments, torch.from_numpy(partner), window)
    share = own_share(segments, torch.from_numpy(partner), window)
    expected, shares = loop(ids.tolist(), saliency.tolist(), partner.tolist(), runs, window)
    assert mixed.tolist() == expected
    assert share.tolist() == pytest.approx(shares)
    # Special tokens stay where they are, and none is brought in.
    assert torch.equal(segments == 0, segment_numbers(mixed, None, SPECIAL) == 0)


def test_segments_follow_special_tokens_and_the_mask():
    ids = torch.tensor(
        [row([7, 8], [9], length=8), row([7, 8, 9], length=8), row([7], [8, 9], separators=2, length=8)]
    )
    assert segment_numbers(ids, None, SPECIAL).tolist() == [
        [0, 1, 1, 0, 2, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 2, 2, 0, 0],
    ]
    mask = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]] * 3)
    assert segment_numbers(ids, mask, SPECIAL).tolist() == [[0, 1, 0, 0, 0, 0, 0, 0]] * 3


def test_a_text_of_special_tokens_alone_stays_as_it_is():
    ids = torch.tensor([row([], length=4), row([7, 8], length=4)])
    segments, partner = segment_numbers(ids, None, SPECIAL), torch.tensor([1, 0])
    assert torch.equal(swap_spans(ids, torch.rand(2, 4), segments, partner), ids)
    assert own_share(segments, partner).tolist() == [1.0, 1.0]


class FloatSums(TorchDispatchMode):
    """Counts the cumulative sums of floats, of which a GPU has no deterministic algorithm."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.cumsum.default and args[0].is_floating_point()
        return function(*args, **(kwargs or {}))


def test_spans_are_swapped_by_deterministic_algorithms():
    segments = torch.ones(2, 30, dtype=torch.int64)
    with FloatSums() as sums:
        torch.rand(2, 30).cumsum(dim=-1)
        swap_spans(torch.arange(60).reshape(2, 30), torch.rand(2, 30), segments, torch.tensor([1, 0]))
    assert sums.count == 1


def test_saliency_is_the_root_mean_square_over_the_largest():
    gradient = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]], [[0.0, 0.0]] * 3])
    assert gradient_saliency(gradient).tolist() == [[0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_relevance_and_ratio_of_tokens(seed):
    generator = np.random.default_rng(seed)
    rows, heads, length, size = 3, 2, 4, 5
    query, key = (torch.from_numpy(generator.normal(size=(rows, heads, length, size))) for _ in range(2))
    lengths = generator.integers(1, length + 1, rows)
    tokens = torch.from_numpy(np.arange(length) < lengths[:, None])
    partner = generator.permutation(rows)
    relevance = attention_relevance(0.7 * query @ key.mT, tokens)
    expected = np.zeros((rows, length))
    for i in range(rows):
        n = lengths[i]
        for head in range(heads):
            for position in range(n):
                scores = np.exp(0.7 * query[i, head, position].numpy() @ key[i, head, :n].numpy().T)
                expected[i, :n] += scores / scores.sum() / heads
        expected[i] /= expected[i].sum()
    np.testing.assert_allclose(relevance, expected, atol=1e-5)
    ratio = token_ratio(relevance, torch.from_numpy(partner))
    means = mean_over_tokens(ratio, tokens, torch.from_numpy(partner))
    for i, j in enumerate(partner):
        either = [t for t in range(length) if t < max(lengths[i], lengths[j])]
        values = [expected[i, t] / (expected[i, t] + expected[j, t]) for t in either]
        np.testing.assert_allclose(ratio[i, either], values, atol=1e-5)
        np.testing.assert_allclose(means[i], np.mean(values), atol=1e-5)
    assert ((ratio >= 0) & (ratio <= 1)).all()
