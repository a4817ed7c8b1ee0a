"""BERT with mixup in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertAttention, BertLayer, BertSelfAttention
from transformers.utils import can_return_tuple

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.sequence_classification import MixupModel, MixupSequenceClassifierOutput, mixed_output


class MixupBertSelfAttention(BertSelfAttention):
    """Self-attention whose output, the concatenated heads, is mixed (site `attention`)."""

    mixup_layer: int

    def forward(
        self, hidden_states: Tensor, *args: Any, mixup: Plan | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        attn_output, attn_weights = super().forward(hidden_states, *args, **kwargs)
        if mixup is not None:
            attn_output = mixup.mix(attn_output, "attention", self.mixup_layer)
        return attn_output, attn_weights


class MixupBertAttention(BertAttention):
    """Self-attention, dense, dropout, residual and LayerNorm, whose output is mixed (site `attention_block`)."""

    mixup_layer: int

    def forward(
        self, hidden_states: Tensor, *args: Any, mixup: Plan | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if mixup is None:
            return super().forward(hidden_states, *args, **kwargs)
        attention_output, attn_weights = super().forward(hidden_states, *args, mixup=mixup, **kwargs)
        return mixup.mix(attention_output, "attention_block", self.mixup_layer), attn_weights


class MixupBertLayer(BertLayer):
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
        if self.mixup_layer == 1:
            hidden_states = mixup.mix(hidden_states, "embeddings")
            hidden_states = mixup.mix(hidden_states, "hidden", 0)
        hidden_states, attention_mask = mixup.enter_block(hidden_states, attention_mask, self.mixup_layer)
        hidden_states = super().forward(hidden_states, attention_mask, *args, mixup=mixup, **kwargs)
        return mixup.mix(hidden_states, "hidden", self.mixup_layer)


class MixupBertForSequenceClassification(MixupModel, BertForSequenceClassification):
    """`BertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupBertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = BertForSequenceClassification

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self._swap_classes(
            self._blocks(),
            {
                BertSelfAttention: MixupBertSelfAttention,
                BertAttention: MixupBertAttention,
                BertLayer: MixupBertLayer,
            },
        )

    def _blocks(self) -> nn.ModuleList:
        return self.bert.encoder.layer

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        names = ("input_ids", "token_type_ids", "position_ids", "inputs_embeds")
        return self.bert.embeddings(**{name: inputs[name] for name in names})

    @staticmethod
    def _query_key(block: nn.Module) -> tuple[nn.Linear, nn.Linear]:
        return block.attention.self.query, block.attention.self.key

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        mixup: Plan | None = None,
        **kwargs: Any,
    ) -> MixupSequenceClassifierOutput:
        """The parent's forward pass, or a mixed one.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as in the parent class.
            labels: as in the parent class; not together with a plan.
            mixup: what to mix; None makes this the parent's forward pass.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if mixup is None:
            return super().forward(**inputs, labels=labels, **kwargs)
        mixup = self._prepared(inputs, mixup)
        if mixup.site == "word_embeddings":
            inputs = self._mixed_word_embeddings(inputs, mixup)
        outputs = self.bert(**inputs, return_dict=True, mixup=mixup, **kwargs)
        pooled = self.dropout(outputs.pooler_output)
        return mixed_output(outputs, pooled, self.classifier, labels, mixup)
