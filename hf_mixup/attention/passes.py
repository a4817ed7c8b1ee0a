"""The attention of a batch in three forward passes: without mixing, under AMPLIFY and under EmbedMix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_mixup.methods import METHODS, Mixup
from hf_mixup.methods.method import Method
from hf_mixup.mixing.plan import StepKey
from hf_mixup.modeling.sequence_classification import MixupModel

# Where AMPLIFY mixes: in the paper, and in the authors' code.
AMPLIFY_SITES = ("attention", "attention_block")


def compared_methods(lam: float, site: str = "attention") -> dict[str, Method]:
    """`clean`, `amplify` and `embedmix`, with one share for all; the first row and the last are each other's partners.

    AMPLIFY mixes in every block, so that what it mixes in depends on the partner's partner too: here, the row itself.

    Args:
        lam: the own row's share, in [0, 1].
        site: where `amplify` mixes, `attention` or `attention_block`.

    Raises:
        ValueError: another share or site.

    Example:
        >>> compared_methods(0.7)["amplify"].ratio.lam
        0.7
    """
    options = {"ratio": "constant", "lam": lam, "partner": "flip"}
    return {
        "clean": METHODS["none"],
        "amplify": METHODS["amplify"].with_options(site=site, **options),
        "embedmix": METHODS["embedmix"].with_options(**options),
    }


@torch.no_grad()
def attend(model: MixupModel, batch: Mapping[str, Tensor], method: Method) -> tuple[tuple[Tensor, ...], Tensor]:
    """The attention of every block after the softmax, and the positions that it sees.

    Args:
        model: in evaluation mode, with eager attention: other implementations keep no probabilities.
        batch: its inputs, with their `attention_mask`.
        method: one of `compared_methods`.

    Returns:
        `[batch, heads, length, length]` for each block, queries before keys, and `[batch, length]` bool.
    """
    tokens, layers = batch["attention_mask"].bool(), model.config.num_hidden_layers
    plan = Mixup(method, layers).plan(batch, torch.zeros(len(tokens), device=tokens.device), StepKey(0))
    attentions = model(**batch, mixup=plan, output_attentions=True).attentions
    return attentions, tokens if plan is None else plan.mask_after(tokens, layers)


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]], max_length: int, device: torch.device
) -> dict[str, Tensor]:
    """The texts, one or two a row, as a batch that is padded to the longest row."""
    columns = map(list, zip(*texts, strict=True))
    encoded = tokenizer(*columns, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    return dict(encoded.to(device))


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the tokens that separate and end texts: `[SEP]` of BERT, `</s>` of RoBERTa."""
    return sorted({tokenizer.sep_token_id, tokenizer.eos_token_id} - {None})


def in_pairs(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """The rows in even batches, so that each has another as partner; an odd number ends with the second row again.

    Example:
        >>> list(in_pairs([5, 6, 7], 2))
        [[5, 6], [7, 6]]
    """
    rows = [*rows, *rows[1 : 1 + len(rows) % 2]]
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
