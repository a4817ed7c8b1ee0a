"""Llama with mixup in the graph."""

from __future__ import annotations

from transformers import LlamaForSequenceClassification
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from hf_mixup.modeling.decoder import DecoderBlockMixup, DecoderMixup
from hf_mixup.modeling.layers import SelfAttentionMixup


class MixupLlamaAttention(SelfAttentionMixup, LlamaAttention):
    """Multi-head self-attention whose output, after its dense layer, is mixed."""


class MixupLlamaDecoderLayer(DecoderBlockMixup, LlamaDecoderLayer):
    """The block whose residual stream is mixed."""


class MixupLlamaForSequenceClassification(DecoderMixup, LlamaForSequenceClassification):
    """`LlamaForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupLlamaForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = LlamaForSequenceClassification
    mixup_modules = {LlamaAttention: MixupLlamaAttention, LlamaDecoderLayer: MixupLlamaDecoderLayer}
