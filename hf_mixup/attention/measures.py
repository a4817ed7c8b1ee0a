r"""How scattered attention is, and how much of it goes to separators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_mixup.attention.passes import attend, compared_methods, encode, in_pairs, separator_ids
from hf_mixup.modeling.sequence_classification import MixupModel

_BATCH = 16


def attention_entropy(weights: Tensor, tokens: Tensor) -> Tensor:
    r"""$-\sum_j a_{ij} \ln a_{ij}$ in nats, the mean over the heads and over the tokens $i$ of each row.

    Args:
        weights: `[batch, heads, length, length]`, each line summing to 1.
        tokens: `[batch, length]` bool, True where there is a token.

    Returns:
        `[batch]` in float64, from 0 (each token attends to one other) to $\ln$ of the number of tokens (to all alike).

    Example:
        >>> attention_entropy(torch.full((1, 1, 2, 2), 0.5), torch.tensor([[True, True]]))
        tensor([0.6931], dtype=torch.float64)
    """
    return _over_tokens(torch.special.entr(weights.double()).sum(dim=-1), tokens)


def attention_share(weights: Tensor, tokens: Tensor, columns: Tensor) -> Tensor:
    r"""$\sum_{j \in C} a_{ij}$, the mean over the heads and over the tokens $i$ of each row.

    Args:
        weights, tokens: as in `attention_entropy`.
        columns: `[batch, length]` bool, the positions $C$.

    Returns:
        `[batch]` in float64, from 0 to 1.

    Example:
        >>> weights, columns = torch.tensor([[[[0.9, 0.1], [0.5, 0.5]]]]), torch.tensor([[False, True]])
        >>> attention_share(weights, torch.tensor([[True, True]]), columns)
        tensor([0.3000], dtype=torch.float64)
    """
    return _over_tokens((weights.double() * columns[:, None, None, :]).sum(dim=-1), tokens)


def _over_tokens(values: Tensor, tokens: Tensor) -> Tensor:
    """`[batch, heads, length]` as `[batch]`."""
    # What padding attends to may be anything, also no number.
    return torch.where(tokens, values.mean(dim=1), 0.0).sum(dim=-1) / tokens.sum(dim=-1)


def measure_texts(
    model: MixupModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, ...]],
    lam: float = 0.5,
    site: str = "attention",
    max_length: int = 128,
    seed: int = 42,
) -> list[dict[str, Any]]:
    """Entropy of attention and its share on separators, at each block: the means over texts, heads and tokens.

    The texts are mixed in pairs; the last of an odd number has one as its partner that is in a pair already.

    Args:
        model: in evaluation mode, with eager attention.
        tokenizer: of the model, with a token to pad with.
        texts: two at least; each row has one text, or two that are read as a pair.
        lam: the own text's share, in [0, 1].
        site: where `amplify` mixes, `attention` or `attention_block`.
        max_length: texts are cut to this number of tokens.
        seed: of who is mixed with whom.

    Returns:
        For each method (`clean`, `amplify`, `embedmix`) and block (1..N) a dict: `method`, `layer`, `tokens` (how many
        positions attention sees), `entropy` (nats), `separator_share` (of the separators of the row itself) and
        `partner_separator_share` (of positions where only the partner has one; None for `clean`). Shares are None
        where no text has a separator.

    Raises:
        ValueError: fewer than two texts, or another share or site.

    Example:
        >>> rows = measure_texts(model, tokenizer, [("a dull film",), ("a great play",)])  # doctest: +SKIP
        >>> rows[0]["method"], rows[0]["layer"]  # doctest: +SKIP
        ('clean', 1)
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} text is not enough: give two or more, so that each has another as partner.")
    order, separators = np.random.default_rng(seed).permutation(len(texts)).tolist(), separator_ids(tokenizer)
    methods, layers = compared_methods(lam, site), model.config.num_hidden_layers
    sums = {name: torch.zeros(layers, 4, dtype=torch.float64) for name in methods}
    found = False
    batches, done = list(in_pairs(order, _BATCH)), 0
    for rows in track(batches, "attention", console=Console(stderr=True), transient=True):
        batch = encode(tokenizer, [texts[row] for row in rows], max_length, model.device)
        is_separator = torch.isin(batch["input_ids"], torch.tensor(separators, device=model.device))
        is_separator &= batch["attention_mask"].bool()
        partners = is_separator.flip(0) & ~is_separator
        found = found or bool(is_separator.any())
        for name, method in methods.items():
            attentions, seen = attend(model, batch, method)
            for layer, weights in enumerate(attentions):
                measured = (
                    seen.sum(dim=-1).double(),
                    attention_entropy(weights, seen),
                    attention_share(weights, seen, is_separator),
                    attention_share(weights, seen, partners),
                )
                # The row that comes again to make the number even is measured once.
                sums[name][layer] += torch.stack(measured)[:, : len(texts) - done].sum(dim=-1).cpu()
        done += len(rows)
    return [
        {
            "method": name,
            "layer": layer,
            "tokens": tokens / len(texts),
            "entropy": entropy / len(texts),
            "separator_share": share / len(texts) if found else None,
            "partner_separator_share": partner_share / len(texts) if found and name != "clean" else None,
        }
        for name, by_layer in sums.items()
        for layer, (tokens, entropy, share, partner_share) in enumerate(by_layer.tolist(), start=1)
    ]
