"""XLM-RoBERTa with mixup in the graph."""

from __future__ import annotations

from transformers import XLMRobertaForSequenceClassification
from transformers.models.xlm_roberta.modeling_xlm_roberta import (
    XLMRobertaAttention,
    XLMRobertaLayer,
    XLMRobertaSelfAttention,
)

from hf_mixup.modeling.layers import AttentionBlockMixup, BlockMixup, SelfAttentionMixup
from hf_mixup.modeling.roberta import RobertaHeadMixup


class MixupXLMRobertaSelfAttention(SelfAttentionMixup, XLMRobertaSelfAttention):
    """Multi-head self-attention whose output, the concatenated heads, is mixed."""


class MixupXLMRobertaAttention(AttentionBlockMixup, XLMRobertaAttention):
    """The attention block whose output is mixed."""


class MixupXLMRobertaLayer(BlockMixup, XLMRobertaLayer):
    """The block whose output is mixed."""


class MixupXLMRobertaForSequenceClassification(RobertaHeadMixup, XLMRobertaForSequenceClassification):
    """`XLMRobertaForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupXLMRobertaForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = XLMRobertaForSequenceClassification
    mixup_modules = {
        XLMRobertaSelfAttention: MixupXLMRobertaSelfAttention,
        XLMRobertaAttention: MixupXLMRobertaAttention,
        XLMRobertaLayer: MixupXLMRobertaLayer,
    }
