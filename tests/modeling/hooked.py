"""Mixed forward passes of every family: transformers' own model with hooks that mix what its modules return.

Nothing here comes from the library; rows are mixed in loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PRE_NORM = ("gpt2", "llama", "modernbert", "qwen2", "qwen3")
DECODERS = ("gpt2", "llama", "qwen2", "qwen3")


def blocks_of(family: str, model: nn.Module) -> list[nn.Module]:
    base = model.base_model
    if family == "albert":
        groups = base.encoder.albert_layer_groups
        return [groups[0].albert_layers[0]]
    if family == "distilbert":
        return list(base.transformer.layer)
    if family == "gpt2":
        return list(base.h)
    return list(base.layers if family in PRE_NORM else base.encoder.layer)


def attention_of(family: str, block: nn.Module) -> nn.Module:
    """The module whose output is that of self-attention, but for an affine map where none ends before it."""
    if family == "albert":
        return block.attention.dense
    if family == "mpnet":
        return block.attention.attn
    if family in ("gpt2", "modernbert"):
        return block.attn
    if family in PRE_NORM:
        return block.self_attn
    return block.attention if family == "distilbert" else block.attention.self


def rows_mixed(states: Tensor, partner: list[int], weight: float) -> Tensor:
    return torch.stack([weight * states[i] + (1 - weight) * states[j] for i, j in enumerate(partner)])


def mask_of_policy(mask: Tensor | None, partner: list[int], policy: str) -> Tensor | None:
    """Row by row; what is visible is True or 1, or to be added and 0."""
    if mask is None or policy == "own":
        return mask
    pick = torch.maximum if policy == "union" else torch.minimum
    return torch.stack([pick(mask[i], mask[j]) for i, j in enumerate(partner)])


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, states: Tensor) -> Any:
    return (states, *output[1:]) if isinstance(output, tuple) else states


@contextmanager
def mixing_hooks(
    family: str,
    model: nn.Module,
    batch: dict[str, Tensor],
    partner: list[int],
    weight: float,
    site: str,
    layers: tuple[int, ...],
    policy: str,
) -> Iterator[None]:
    """While it lasts, the parent model mixes."""
    number, block_input, handles = 0, None, []
    seen = batch["attention_mask"]
    start = 0 if site in ("word_embeddings", "embeddings") else min(layers, default=99)
    mixed_tokens = mask_of_policy(seen, partner, policy) if start < 99 else seen

    def mixed(states: Tensor) -> Tensor:
        return rows_mixed(states, partner, weight)

    def enter_block(module, args, kwargs):
        nonlocal number, block_input
        number += 1
        args, kwargs = list(args), dict(kwargs)
        if number == 1 and (site == "embeddings" or (site == "hidden" and 0 in layers)):
            args[0] = mixed(args[0])
        if start < number:
            if "attention_mask" in kwargs:
                kwargs["attention_mask"] = mask_of_policy(kwargs["attention_mask"], partner, policy)
            else:
                position = 2 if family == "gpt2" else 1
                args[position] = mask_of_policy(args[position], partner, policy)
        block_input = args[0]
        return tuple(args), kwargs

    def after_attention(module, args, output):
        if site == "attention" and number in layers:
            return with_first(output, mixed(first(output)))
        if site == "attention_block" and number in layers and family in PRE_NORM:
            return with_first(output, mixed(block_input + first(output)) - block_input)
        return None

    def after_attention_block(module, args, output):
        return with_first(output, mixed(first(output))) if site == "attention_block" and number in layers else None

    def after_block(module, args, output):
        return with_first(output, mixed(first(output))) if site == "hidden" and number in layers else None

    def classify(module, args):
        states = args[0]
        if family in DECODERS:
            # The parent reads the last token of each row afterwards, so what it shall read is put there.
            own, last = (
                [max(t for t in range(mask.shape[1]) if mask[i, t]) for i in range(len(mask))]
                for mask in (seen, mixed_tokens)
            )
            read = torch.stack([states[i, t] for i, t in enumerate(last)])
            read = mixed(read) if site == "pooled" else read
            rows = [torch.cat([s[:t], r[None], s[t + 1 :]]) for s, t, r in zip(states, own, read, strict=True)]
            return (torch.stack(rows),)
        return (mixed(states),) if site == "pooled" else None

    blocks = blocks_of(family, model)
    for block in blocks:
        handles.append(block.register_forward_pre_hook(enter_block, with_kwargs=True))
        handles.append(attention_of(family, block).register_forward_hook(after_attention))
        if family == "distilbert":
            handles.append(block.sa_layer_norm.register_forward_hook(after_attention_block))
        elif family not in PRE_NORM:
            handles.append(block.attention.register_forward_hook(after_attention_block))
        handles.append(block.register_forward_hook(after_block))
    head = model.score if family in DECODERS else model.classifier
    last_linear = getattr(head, "out_proj", head)
    handles.append(last_linear.register_forward_pre_hook(classify))
    if site == "word_embeddings":
        words = model.get_input_embeddings()
        handles.append(words.register_forward_hook(lambda module, args, output: mixed(output)))
        if family == "deberta-v2":

            def show_mixed(module, args, kwargs):
                return args, {**kwargs, "mask": mixed_tokens}

            embeddings = model.deberta.embeddings
            handles.append(embeddings.register_forward_pre_hook(show_mixed, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward(
    family: str,
    model: nn.Module,
    batch: dict[str, Tensor],
    partner: list[int],
    weight: float,
    site: str,
    layers: tuple[int, ...] = (),
    policy: str = "own",
) -> Tensor:
    """The logits of a mixed batch from a model of transformers."""
    with mixing_hooks(family, model, batch, partner, weight, site, layers, policy):
        logits = model(**batch).logits
    return rows_mixed(logits, partner, weight) if site == "logits" else logits
