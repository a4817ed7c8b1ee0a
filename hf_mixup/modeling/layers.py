"""The mixing modules of a block, written once for all families whose modules end where a site is.

A family puts each before the class of transformers whose output it mixes. Without a plan such a module is its parent.
"""

from __future__ import annotations

from typing import Any

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
