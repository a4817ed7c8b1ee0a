"""DeBERTa-v2 and DeBERTa-v3 with mixup in the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DebertaV2ForSequenceClassification
from transformers.modeling_outputs import ModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Layer

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import FindsPlan
from hf_mixup.modeling.sequence_classification import PlanOnBlocks


class MixupDebertaV2Layer(FindsPlan, DebertaV2Layer):
    """The block whose self-attention, attention half or output is mixed; upstream passes no plan down to its parts."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
        output_attentions: bool = False,
        mixup: Plan | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        position = {"relative_pos": relative_pos, "rel_embeddings": rel_embeddings}
        if mixup is None:
            return super().forward(
                hidden_states, attention_mask, query_states, **position, output_attentions=output_attentions
            )
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        attn_output, attn_weights = self.attention.self(
            hidden_states, attention_mask, output_attentions, query_states=query_states, **position
        )
        attn_output = mixup.mix(attn_output, "attention", self.mixup_layer)
        attn_output = self.attention.output(attn_output, hidden_states)
        attn_output = mixup.mix(attn_output, "attention_block", self.mixup_layer)
        layer_output = self.output(self.intermediate(attn_output), attn_output)
        return mixup.mix(layer_output, "hidden", self.mixup_layer), attn_weights


class MixupDebertaV2ForSequenceClassification(PlanOnBlocks, DebertaV2ForSequenceClassification):
    """`DebertaV2ForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupDebertaV2ForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = DebertaV2ForSequenceClassification
    mixup_modules = {DebertaV2Layer: MixupDebertaV2Layer}
    scores_need_arguments = True

    def _prepared(self, inputs: dict[str, Tensor | None], mixup: Plan) -> Plan:
        if self.deberta.encoder.conv is not None:
            raise ValueError(
                "This DeBERTa has a convolution beside its first block (conv_kernel_size > 0), where mixing is not "
                "defined: train it with mixup_method='none', or take a checkpoint without it, such as DeBERTa-v3."
            )
        return super()._prepared(inputs, mixup)

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        given = {name: value for name, value in inputs.items() if name != "attention_mask"}
        return self.deberta.embeddings(**given, mask=self._mask(inputs))

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        encoder = self.deberta.encoder
        arguments = {
            "attention_mask": encoder.get_attention_mask(self._mask(inputs)),
            "relative_pos": encoder.get_rel_pos(hidden_states),
            "rel_embeddings": encoder.get_rel_embedding(),
        }
        return [arguments] * len(encoder.layer)

    def _mask(self, inputs: dict[str, Tensor | None]) -> Tensor:
        source = inputs["input_ids"] if inputs["input_ids"] is not None else inputs["inputs_embeds"]
        mask = inputs["attention_mask"]
        return torch.ones(source.shape[:2], device=source.device) if mask is None else mask

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        # Content and position add up inside the module, which always gives the weights; the softmax of their
        # logarithms are the weights again.
        _, weights = self._blocks()[number - 1].attention.self(hidden_states, output_attentions=True, **arguments)
        return (weights if head is None else weights[:, head : head + 1]).log()

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        return self.dropout(self.pooler(outputs.last_hidden_state))
