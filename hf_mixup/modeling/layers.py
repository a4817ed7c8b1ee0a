"""The mixing modules of a block, written once for all families whose modules end where a site is.

A family puts each before the class of transformers whose output it mixes. Without a plan such a module is its parent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_mixup.mixing.plan import Plan


class SelfAttentionMixup:
    """Self-attention whose output is mixed (site `attention`)."""

    mixup_layer: int

    def forward(self, *args: Any, mixup: Plan | None = None, **kwargs: Any) -> tuple[Tensor, ...]:
        if mixup is None:
            return super().forward(*args, **kwargs)
        attn_output, *rest = super().forward(*args, **kwargs)
        return mixup.mix(attn_output, "attention", self.mixup_layer), *rest


class AttentionBlockMixup:
    """Self-attention, dense, dropout, residual and LayerNorm, whose output is mixed (site `attention_block`)."""

    mixup_layer: int

    def forward(self, *args: Any, mixup: Plan | None = None, **kwargs: Any) -> tuple[Tensor, ...]:
        if mixup is None:
            return super().forward(*args, **kwargs)
        attention_output, *rest = super().forward(*args, mixup=mixup, **kwargs)
        return mixup.mix(attention_output, "attention_block", self.mixup_layer), *rest


class BlockMixup:
    """A block whose output is mixed (site `hidden`); the first block also mixes its input, the embeddings."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        hidden_states = super().forward(hidden_states, attention_mask, *args, mixup=mixup, **kwargs)
        return mixup.mix(hidden_states, "hidden", self.mixup_layer)


class FindsPlan:
    """A block of a family whose encoder does not pass keyword arguments on: it finds the plan on itself."""

    mixup_plan: Plan | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Here and not in forward: activation checkpointing runs forward again when the plan is no longer there.
        return super().__call__(*args, mixup=self.mixup_plan, **kwargs)


def for_rows(given: Tensor | None, rows: int) -> Tensor | None:
    """What a block is given for each row of the batch, twice if clean and mixed rows are in it."""
    return given if given is None or given.shape[0] in (1, rows) else torch.cat([given, given])
