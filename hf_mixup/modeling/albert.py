"""ALBERT with mixup in the graph: its blocks share weights, so block k is pass k, not a module."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AlbertForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.albert.modeling_albert import (
    AlbertAttention,
    AlbertLayerGroup,
    AlbertTransformer,
    eager_attention_forward,
)

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import BlockMixup
from hf_mixup.modeling.sequence_classification import MixupModel, dot_product_scores


class PlanOfPass(NamedTuple):
    """The plan as one pass through the shared weights reads it, whatever number its modules have."""

    plan: Plan
    number: int

    def mix(self, states: Tensor, site: str, layer: int) -> Tensor:
        return self.plan.mix(states, site, self.number)

    def enter_block(self, hidden_states: Tensor, mask: Tensor | None, layer: int) -> tuple[Tensor, Tensor | None]:
        return self.plan.enter_block(hidden_states, mask, self.number)


class MixupAlbertAttention(AlbertAttention):
    """Multi-head self-attention (site `attention`) and what follows up to the LayerNorm (site `attention_block`)."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        mixup: PlanOfPass | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        # Written out because no module ends after the heads.
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        heads = (project(hidden_states).view(shape).transpose(1, 2) for project in (self.query, self.key, self.value))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout.p if self.training else 0.0
        attn_output, attn_weights = attend(
            self, *heads, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        attn_output = mixup.mix(attn_output.flatten(-2), "attention", self.mixup_layer)
        attn_output = self.LayerNorm(hidden_states + self.output_dropout(self.dense(attn_output)))
        return mixup.mix(attn_output, "attention_block", self.mixup_layer), attn_weights


class MixupAlbertLayerGroup(BlockMixup, AlbertLayerGroup):
    """The block whose output is mixed."""


class MixupAlbertTransformer(AlbertTransformer):
    """The passes through the blocks, each of which reads the plan under its own number."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        hidden_states = self.embedding_hidden_mapping_in(hidden_states)
        for number, group in enumerate(self.passes(), start=1):
            hidden_states = group(hidden_states, attention_mask, mixup=PlanOfPass(mixup, number), **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)

    def passes(self) -> list[nn.Module]:
        """The group of each pass."""
        passes_of_group = self.config.num_hidden_layers / self.config.num_hidden_groups
        return [self.albert_layer_groups[int(i / passes_of_group)] for i in range(self.config.num_hidden_layers)]


class MixupAlbertForSequenceClassification(MixupModel, AlbertForSequenceClassification):
    """`AlbertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupAlbertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = AlbertForSequenceClassification
    mixup_modules = {
        AlbertAttention: MixupAlbertAttention,
        AlbertLayerGroup: MixupAlbertLayerGroup,
        AlbertTransformer: MixupAlbertTransformer,
    }

    def _swap_classes(self) -> None:
        self.albert.encoder.__class__ = MixupAlbertTransformer
        super()._swap_classes()

    def _blocks(self) -> list[nn.Module]:
        return self.albert.encoder.passes()

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        return self.albert.encoder.embedding_hidden_mapping_in(super()._embed(inputs))

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        attention = self._blocks()[number - 1].albert_layers[0].attention
        return dot_product_scores(attention.query, attention.key, hidden_states, head, attention.num_attention_heads)
