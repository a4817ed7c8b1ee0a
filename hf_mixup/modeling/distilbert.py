"""DistilBERT with mixup in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DistilBertForSequenceClassification
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention, TransformerBlock
from transformers.utils import can_return_tuple

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.layers import SelfAttentionMixup
from hf_mixup.modeling.sequence_classification import MixupModel, dot_product_scores


class MixupDistilBertSelfAttention(SelfAttentionMixup, DistilBertSelfAttention):
    """Multi-head self-attention whose output is mixed.

    DistilBERT's module ends with its dense layer. An affine map commutes with a mix whose weights sum to 1, so mixing
    after it equals mixing the concatenated heads, as in BERT, for every weight that is one number per row or token.
    """


class MixupTransformerBlock(TransformerBlock):
    """A block whose attention half (site `attention_block`) or output (site `hidden`) is mixed."""

    mixup_layer: int

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, mixup: Plan | None = None, **kwargs: Any
    ) -> Tensor:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        # Written out because no module of its own ends after the first LayerNorm.
        attention_output, _ = self.attention(hidden_states, attention_mask=attention_mask, mixup=mixup, **kwargs)
        attention_output = self.sa_layer_norm(attention_output + hidden_states)
        attention_output = mixup.mix(attention_output, "attention_block", self.mixup_layer)
        block_output = self.output_layer_norm(self.ffn(attention_output) + attention_output)
        return mixup.mix(block_output, "hidden", self.mixup_layer)


class MixupDistilBertForSequenceClassification(MixupModel, DistilBertForSequenceClassification):
    """`DistilBertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupDistilBertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = DistilBertForSequenceClassification
    mixup_modules = {DistilBertSelfAttention: MixupDistilBertSelfAttention, TransformerBlock: MixupTransformerBlock}
    # Upstream names none, so that sharding would take the whole encoder as one piece.
    _no_split_modules = ["TransformerBlock"]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """As `MixupModel.forward`, for a family without token types."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
            "position_ids": position_ids,
        }
        if mixup is None:
            return self.parent_class.forward(self, **inputs, labels=labels, **kwargs)
        return self._mixed_forward(inputs, labels, mixup, **kwargs)

    def _blocks(self) -> nn.ModuleList:
        return self.distilbert.transformer.layer

    def _attention_scores(
        self, number: int, hidden_states: Tensor, arguments: dict[str, Any], head: int | None
    ) -> Tensor:
        attention = self._blocks()[number - 1].attention
        return dot_product_scores(attention.q_lin, attention.k_lin, hidden_states, head, attention.n_heads)

    def _pooled(self, outputs: ModelOutput, inputs: dict[str, Tensor | None], mixup: Plan) -> Tensor:
        return self.dropout(self.pre_classifier(outputs.last_hidden_state[:, 0]).relu())
