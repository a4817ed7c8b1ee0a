"""DistilBERT with mixup in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention, TransformerBlock
from transformers.utils import can_return_tuple

from hf_mixup.mixing.plan import Plan
from hf_mixup.modeling.sequence_classification import MixupModel, MixupSequenceClassifierOutput, mixed_output


class MixupDistilBertSelfAttention(DistilBertSelfAttention):
    """Self-attention whose output is mixed (site `attention`).

    DistilBERT's module ends with its dense layer. An affine map commutes with a mix whose weights sum to 1, so mixing
    after it equals mixing the concatenated heads, as in BERT, for every weight that is one number per row or token.
    """

    mixup_layer: int

    def forward(
        self, hidden_states: Tensor, *args: Any, mixup: Plan | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        attn_output, attn_weights = super().forward(hidden_states, *args, **kwargs)
        if mixup is not None:
            attn_output = mixup.mix(attn_output, "attention", self.mixup_layer)
        return attn_output, attn_weights


class MixupTransformerBlock(TransformerBlock):
    """A block whose attention half (site `attention_block`) or output (site `hidden`) is mixed.

    The first block also mixes its input, the embeddings.
    """

    mixup_layer: int

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, mixup: Plan | None = None, **kwargs: Any
    ) -> Tensor:
        if mixup is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        if self.mixup_layer == 1:
            hidden_states = mixup.mix(hidden_states, "embeddings")
            hidden_states = mixup.mix(hidden_states, "hidden", 0)
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
    # Upstream names none, so that sharding would take the whole encoder as one piece.
    _no_split_modules = ["TransformerBlock"]

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        self._swap_classes(
            self._blocks(),
            {DistilBertSelfAttention: MixupDistilBertSelfAttention, TransformerBlock: MixupTransformerBlock},
        )

    def _blocks(self) -> nn.ModuleList:
        return self.distilbert.transformer.layer

    def _embed(self, inputs: dict[str, Tensor | None]) -> Tensor:
        names = ("input_ids", "inputs_embeds", "position_ids")
        return self.distilbert.embeddings(**{name: inputs[name] for name in names})

    @staticmethod
    def _query_key(block: nn.Module) -> tuple[nn.Linear, nn.Linear]:
        return block.attention.q_lin, block.attention.k_lin

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
    ) -> MixupSequenceClassifierOutput:
        """The parent's forward pass, or a mixed one.

        Args:
            input_ids, attention_mask, inputs_embeds, position_ids: as in the parent class.
            labels: as in the parent class; not together with a plan.
            mixup: what to mix; None makes this the parent's forward pass.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
            "position_ids": position_ids,
        }
        if mixup is None:
            return super().forward(**inputs, labels=labels, **kwargs)
        mixup = self._prepared(inputs, mixup)
        if mixup.site == "word_embeddings":
            inputs = self._mixed_word_embeddings(inputs, mixup)
        outputs = self.distilbert(**inputs, return_dict=True, mixup=mixup, **kwargs)
        pooled = self.pre_classifier(outputs.last_hidden_state[:, 0]).relu()
        return mixed_output(outputs, self.dropout(pooled), self.classifier, labels, mixup)
