"""How much of each token is kept, read off attention."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_relevance(scores: Tensor, tokens: Tensor) -> Tensor:
    r"""The share of attention that each token receives, $r_j = \sum_i a_{ij} / \sum_{ij} a_{ij}$ over real tokens $i$.

    Args:
        scores: `[batch, heads, length, length]`, whose softmax over the tokens is $a$, -inf where a position must not
            look; the attention of several heads is averaged.
        tokens: `[batch, length]` bool, True where there is a token.

    Returns:
        `[batch, length]` in float32: 0 in the padding, summing to 1 over the tokens.

    Example:
        >>> attention_relevance(torch.zeros(1, 1, 3, 3), torch.tensor([[True, True, False]]))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    attention = scores.float().masked_fill(~tokens[:, None, None, :], -torch.inf).softmax(dim=-1)
    # Where a causal mask leaves padding on the left nothing to look at, the softmax of nothing is no number.
    received = torch.where(tokens[:, None, :, None], attention, 0.0).mean(dim=1).sum(dim=1)
    return received / received.sum(dim=-1, keepdim=True)


def token_ratio(relevance: Tensor, partner: Tensor) -> Tensor:
    r"""The own token's share $\rho_{i,t} = r_{i,t} / (r_{i,t} + r_{\pi(i),t})$; 0.5 where neither row has a token.

    Args:
        relevance: `[batch, length]`, not negative.
        partner: `[batch]` int64.

    Example:
        >>> token_ratio(torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.0, 0.0]]), torch.tensor([1, 0]))
        tensor([[0.7500, 1.0000, 0.5000],
                [0.2500, 0.0000, 0.5000]])
    """
    both = relevance + relevance.index_select(0, partner)
    return torch.where(both > 0, relevance / both.clamp(min=torch.finfo(both.dtype).tiny), 0.5)


def mean_over_tokens(ratio: Tensor, tokens: Tensor, partner: Tensor) -> Tensor:
    """The mean of `[batch, length]` ratios over the positions where either row has a token, `[batch]`."""
    either = (tokens | tokens.index_select(0, partner)).to(ratio.dtype)
    return (ratio * either).sum(dim=-1) / either.sum(dim=-1)
