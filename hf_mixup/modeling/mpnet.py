"""MPNet with mixup in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import MPNetForSequenceClassification
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, create_position_ids_from_input_ids

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import FindsPlan, for_rows
from hf_mixup.modeling.roberta import RobertaHeadMixup
from hf_mixup.modeling.sequence_classification import PlanOnBlocks, WithoutTokenTypes, dot_product_scores


class MixupMPNetLayer(FindsPlan, MPNetLayer):
    """The block whose self-attention, attention half or output is mixed; upstream passes no plan down to its parts."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        attention, bias = self.attention, for_rows(position_bias, len(hidden_states))
        attn_output, *attn_weights = attention.attn(hidden_states, attention_mask, bias, output_attentions)
        attn_output = mixup.mix(attn_output, "attention", self.mixup_layer)
        attn_output = attention.LayerNorm(attention.dropout(attn_output) + hidden_states)
        attn_output = mixup.mix(attn_output, "attention_block", self.mixup_layer)
        layer_output = self.output(self.intermediate(attn_output), attn_output)
        return mixup.mix(layer_output, "hidden", self.mixup_layer), *attn_weights


class MixupMPNetForSequenceClassification(
    PlanOnBlocks, WithoutTokenTypes, RobertaHeadMixup, MPNetForSequenceClassification
):
    """`MPNetForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupMPNetForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = MPNetForSequenceClassification
    mixup_modules = {MPNetLayer: MixupMPNetLayer}
    scores_need_arguments = True

    def _positions(self, input_ids: Tensor) -> Tensor:
        return create_position_ids_from_input_ids(input_ids, self.mpnet.embeddings.padding_idx)

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        bias = self.mpnet.encoder.compute_position_bias(hidden_states)
        return [{**given, "position_bias": bias} for given in super()._block_arguments(inputs, hidden_states)]

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        attention, bias = self._blocks()[number - 1].attention.attn, arguments["position_bias"]
        scores = dot_product_scores(attention.q, attention.k, hidden_states, head, attention.num_attention_heads)
        return scores + (bias if head is None else bias[:, head : head + 1])
