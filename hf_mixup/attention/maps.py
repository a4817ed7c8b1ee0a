"""Attention maps of one pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_mixup.attention.measures import attention_entropy, attention_share
from hf_mixup.attention.passes import attend, compared_methods, encode, separator_ids
from hf_mixup.modeling.sequence_classification import MixupModel
from hf_mixup.shown import visible


@dataclass(frozen=True)
class AttentionMap:
    """Who attends to whom in one row at one block.

    Args:
        title: what row this is.
        tokens: the tokens of the row; those of a mixed row name both parents, `film + play`.
        weights: `[tokens, tokens]`, the attention that the token of each line pays to the token of each column.
        entropy: the mean entropy of the lines, in nats.
        separator_share: the mean share of the lines that goes to separators of the row itself; None without any.
    """

    title: str
    tokens: tuple[str, ...]
    weights: NDArray[np.float64]
    entropy: float
    separator_share: float | None

    def summary(self) -> str:
        """The two numbers in words.

        Example:
            >>> AttentionMap("text", ("a",), np.ones((1, 1)), entropy=0.0, separator_share=0.25).summary()
            'entropy 0.00 nats, 25 % on separators'
        """
        share = "" if self.separator_share is None else f", {100 * self.separator_share:.0f} % on separators"
        return f"entropy {self.entropy:.2f} nats{share}"


def attention_maps(
    model: MixupModel,
    tokenizer: PreTrainedTokenizerBase,
    text: Sequence[str],
    partner: Sequence[str],
    layer: int,
    head: int | None = None,
    lam: float = 0.5,
    site: str = "attention",
    max_length: int = 128,
) -> list[AttentionMap]:
    """Four maps: the text, its partner, and the text mixed with the partner by `amplify` and by `embedmix`.

    The mixing methods are those of training, with a fixed share. Attention comes before the place where AMPLIFY mixes,
    so that a block's map shows what the mixing in the blocks below it does; at block 1 it is the clean one.

    Args:
        model: in evaluation mode, with eager attention.
        tokenizer: of the model, with a token to pad with.
        text, partner: one text each, or two that are read as a pair.
        layer: the block, 1..N.
        head: the head, from 0; None is the mean of the heads.
        lam: the share of `text`, in [0, 1].
        site: where `amplify` mixes, `attention` or `attention_block`.
        max_length: texts are cut to this number of tokens.

    Raises:
        ValueError: a block or a head that the model does not have, or another share or site.

    Example:
        >>> maps = attention_maps(model, tokenizer, ["a dull film"], ["a great play"], layer=4)  # doctest: +SKIP
        >>> maps[2].tokens  # doctest: +SKIP
        ('[CLS]', 'a', 'dull + great', 'film + play', '[SEP]')
    """
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    if not 1 <= layer <= layers:
        raise ValueError(f"layer={layer} does not fit: the model has blocks 1 to {layers}.")
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head={head} does not fit: the model has heads 0 to {heads - 1}, or average.")
    batch = encode(tokenizer, [tuple(text), tuple(partner)], max_length, model.device)
    own, other = ([_label(tokenizer, token) for token in row] for row in batch["input_ids"].tolist())
    both = [one if one == two else f"{one} + {two}" for one, two in zip(own, other, strict=True)]
    is_separator = torch.isin(batch["input_ids"], torch.tensor(separator_ids(tokenizer), device=model.device))
    is_separator &= batch["attention_mask"].bool()
    passes = {name: attend(model, batch, method) for name, method in compared_methods(lam, site).items()}
    maps = []
    for title, name, row, labels in (
        ("clean text", "clean", 0, own),
        ("clean partner", "clean", 1, other),
        (f"amplify: {lam:g} text + {1 - lam:g} partner", "amplify", 0, both),
        (f"embedmix: {lam:g} text + {1 - lam:g} partner", "embedmix", 0, both),
    ):
        attentions, seen = passes[name]
        weights = attentions[layer - 1][row : row + 1]
        weights = weights.mean(dim=1, keepdim=True) if head is None else weights[:, head : head + 1]
        seen, columns = seen[row : row + 1], is_separator[row : row + 1]
        kept = seen[0].nonzero()[:, 0]
        maps.append(
            AttentionMap(
                title=title,
                tokens=tuple(labels[position] for position in kept.tolist()),
                weights=weights[0, 0][kept][:, kept].double().cpu().numpy(),
                entropy=float(attention_entropy(weights, seen)),
                separator_share=float(attention_share(weights, seen, columns)) if columns.any() else None,
            )
        )
    return maps


def _label(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """A token as people read it; as it stands in the vocabulary where it is only part of a character, or a blank."""
    text = tokenizer.decode([token_id]).strip()
    is_read = text and "\ufffd" not in text and visible(text) == text
    return text if is_read else visible(tokenizer.convert_ids_to_tokens(token_id))
