"""RoBERTa with mixup in the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import RobertaForSequenceClassification
from transformers.modeling_outputs import ModelOutput
from transformers.models.roberta.modeling_roberta import RobertaAttention, RobertaLayer, RobertaSelfAttention

from hf_mixup.mixing.plan import PairPlan, Plan
from hf_mixup.modeling.layers import AttentionBlockMixup, BlockMixup, SelfAttentionMixup
from hf_mixup.modeling.sequence_classification import MixupModel


class MixupRobertaSelfAttention(SelfAttentionMixup, RobertaSelfAttention):
    """Multi-head self-attention whose output, the concatenated heads, is mixed."""


class MixupRobertaAttention(AttentionBlockMixup, RobertaAttention):
    """The attention block whose output is mixed."""


class MixupRobertaLayer(BlockMixup, RobertaLayer):
    """The block whose output is mixed."""


class RobertaHeadMixup(MixupModel):
    """What the relatives of RoBERTa share: a head of two layers, and positions counted over the tokens alone."""

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        head = self.classifier
        return head.dropout(torch.tanh(head.dense(head.dropout(outputs.last_hidden_state[:, 0]))))

    def _classifier(self) -> nn.Linear:
        return self.classifier.out_proj

    def _mixed_word_embeddings(
        self, inputs: dict[str, Tensor | None], mixup: PairPlan
    ) -> tuple[dict[str, Tensor | None], PairPlan]:
        # Given embeddings, this family counts positions through the padding; given tokens, it does not.
        if inputs["position_ids"] is None and inputs["input_ids"] is not None:
            inputs = {**inputs, "position_ids": self._positions(inputs["input_ids"])}
        return super()._mixed_word_embeddings(inputs, mixup)

    def _positions(self, input_ids: Tensor) -> Tensor:
        embeddings = self.base_model.embeddings
        return embeddings.create_position_ids_from_input_ids(input_ids, embeddings.padding_idx)


class MixupRobertaForSequenceClassification(RobertaHeadMixup, RobertaForSequenceClassification):
    """`RobertaForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupRobertaForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = RobertaForSequenceClassification
    mixup_modules = {
        RobertaSelfAttention: MixupRobertaSelfAttention,
        RobertaAttention: MixupRobertaAttention,
        RobertaLayer: MixupRobertaLayer,
    }
