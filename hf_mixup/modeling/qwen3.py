"""Qwen3 with mixup in the graph."""

from __future__ import annotations

from transformers import Qwen3ForSequenceClassification
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer

from hf_mixup.modeling.decoder import DecoderBlockMixup, DecoderMixup
from hf_mixup.modeling.layers import SelfAttentionMixup


class MixupQwen3Attention(SelfAttentionMixup, Qwen3Attention):
    """Multi-head self-attention whose output, after its dense layer, is mixed."""


class MixupQwen3DecoderLayer(DecoderBlockMixup, Qwen3DecoderLayer):
    """The block whose residual stream is mixed."""


class MixupQwen3ForSequenceClassification(DecoderMixup, Qwen3ForSequenceClassification):
    """`Qwen3ForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupQwen3ForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = Qwen3ForSequenceClassification
    mixup_modules = {Qwen3Attention: MixupQwen3Attention, Qwen3DecoderLayer: MixupQwen3DecoderLayer}
