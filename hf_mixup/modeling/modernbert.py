"""ModernBERT with mixup in the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ModernBertForSequenceClassification
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.modeling_outputs import ModelOutput
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertAttention,
    ModernBertEncoderLayer,
    apply_rotary_pos_emb,
)

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import SelfAttentionMixup, for_rows
from hf_mixup.modeling.sequence_classification import WithoutTokenTypes, masked


class MixupModernBertAttention(SelfAttentionMixup, ModernBertAttention):
    """Multi-head self-attention whose output, after its dense layer and dropout, is mixed."""


class MixupModernBertEncoderLayer(ModernBertEncoderLayer):
    """A block whose residual stream is mixed after attention (site `attention_block`) or at its end (`hidden`)."""

    mixup_layer: int

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, position_embeddings, **kwargs)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        # Written out because no module ends after the first residual sum.
        attn_output, _ = self.attn(
            self.attn_norm(hidden_states),
            position_embeddings=tuple(for_rows(part, len(hidden_states)) for part in position_embeddings),
            attention_mask=attention_mask,
            mixup=mixup,
            **kwargs,
        )
        hidden_states = mixup.mix(hidden_states + attn_output, "attention_block", self.mixup_layer)
        hidden_states = hidden_states + self.mlp(self.mlp_norm(hidden_states))
        return mixup.mix(hidden_states, "hidden", self.mixup_layer)


class MixupModernBertForSequenceClassification(WithoutTokenTypes, ModernBertForSequenceClassification):
    """`ModernBertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupModernBertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = ModernBertForSequenceClassification
    mixup_modules = {
        ModernBertAttention: MixupModernBertAttention,
        ModernBertEncoderLayer: MixupModernBertEncoderLayer,
    }
    scores_need_arguments = True

    def _blocks(self) -> nn.ModuleList:
        return self.model.layers

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        return self.model.embeddings(input_ids=inputs["input_ids"], inputs_embeds=inputs["inputs_embeds"])

    def _encode(self, inputs: dict[str, Tensor | None], mixup: Plan, **kwargs: Any) -> ModelOutput:
        return self.model(**inputs, mixup=mixup, **kwargs)

    def _block_arguments(self, inputs: dict[str, Tensor | None], hidden_states: Tensor) -> list[dict[str, Any]]:
        positions = inputs["position_ids"]
        if positions is None:
            positions = torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0)
        given = {
            "config": self.config,
            "inputs_embeds": hidden_states,
            "attention_mask": inputs["attention_mask"],
        }
        masks = {
            "full_attention": create_bidirectional_mask(**given),
            "sliding_attention": create_bidirectional_sliding_window_mask(**given),
        }
        return [
            {
                "attention_mask": masks[kind],
                "position_embeddings": self.model.rotary_emb(hidden_states, positions, kind),
            }
            for kind in self.config.layer_types
        ]

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        block = self._blocks()[number - 1]
        heads = block.attn.Wqkv(block.attn_norm(hidden_states)).unflatten(-1, (3, -1, block.attn.head_dim))
        query, key, _ = heads.transpose(1, 3).unbind(dim=2)
        query, key = apply_rotary_pos_emb(query, key, *arguments["position_embeddings"], unsqueeze_dim=1)
        scores = query @ key.mT * block.attn.head_dim**-0.5
        scores = scores if head is None else scores[:, head : head + 1]
        return masked(scores, arguments["attention_mask"])

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        states, mask = outputs.last_hidden_state, inputs["attention_mask"]
        if self.config.classifier_pooling == "cls":
            pooled = states[:, 0]
        elif mask is None:
            pooled = states.mean(dim=1)
        else:
            seen = mixup.mask_after(mask, self.config.num_hidden_layers).unsqueeze(-1)
            pooled = (states * seen).sum(dim=1) / seen.sum(dim=1)
        return self.drop(self.head(pooled))
