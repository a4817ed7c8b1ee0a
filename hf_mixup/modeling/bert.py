"""BERT with mixup in the graph."""

from __future__ import annotations

from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertAttention, BertLayer, BertSelfAttention

from hf_mixup.modeling.layers import AttentionBlockMixup, BlockMixup, SelfAttentionMixup
from hf_mixup.modeling.sequence_classification import MixupModel


class MixupBertSelfAttention(SelfAttentionMixup, BertSelfAttention):
    """Multi-head self-attention whose output, the concatenated heads, is mixed."""


class MixupBertAttention(AttentionBlockMixup, BertAttention):
    """The attention block whose output is mixed."""


class MixupBertLayer(BlockMixup, BertLayer):
    """The block whose output is mixed."""


class MixupBertForSequenceClassification(MixupModel, BertForSequenceClassification):
    """`BertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupBertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = BertForSequenceClassification
    mixup_modules = {
        BertSelfAttention: MixupBertSelfAttention,
        BertAttention: MixupBertAttention,
        BertLayer: MixupBertLayer,
    }
