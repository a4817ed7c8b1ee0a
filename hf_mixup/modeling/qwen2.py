"""Qwen2 with mixup in the graph."""

from __future__ import annotations

from transformers import Qwen2ForSequenceClassification
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer

from hf_mixup.modeling.decoder import DecoderBlockMixup, DecoderMixup
from hf_mixup.modeling.layers import SelfAttentionMixup


class MixupQwen2Attention(SelfAttentionMixup, Qwen2Attention):
    """Multi-head self-attention whose output, after its dense layer, is mixed."""


class MixupQwen2DecoderLayer(DecoderBlockMixup, Qwen2DecoderLayer):
    """The block whose residual stream is mixed."""


class MixupQwen2ForSequenceClassification(DecoderMixup, Qwen2ForSequenceClassification):
    """`Qwen2ForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupQwen2ForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = Qwen2ForSequenceClassification
    mixup_modules = {Qwen2Attention: MixupQwen2Attention, Qwen2DecoderLayer: MixupQwen2DecoderLayer}
