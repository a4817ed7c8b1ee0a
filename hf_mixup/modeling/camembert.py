"""CamemBERT with mixup in the graph."""

from __future__ import annotations

from transformers import CamembertForSequenceClassification
from transformers.models.camembert.modeling_camembert import CamembertAttention, CamembertLayer, CamembertSelfAttention

from hf_mixup.modeling.layers import AttentionBlockMixup, BlockMixup, SelfAttentionMixup
from hf_mixup.modeling.roberta import RobertaHeadMixup


class MixupCamembertSelfAttention(SelfAttentionMixup, CamembertSelfAttention):
    """Multi-head self-attention whose output, the concatenated heads, is mixed."""


class MixupCamembertAttention(AttentionBlockMixup, CamembertAttention):
    """The attention block whose output is mixed."""


class MixupCamembertLayer(BlockMixup, CamembertLayer):
    """The block whose output is mixed."""


class MixupCamembertForSequenceClassification(RobertaHeadMixup, CamembertForSequenceClassification):
    """`CamembertForSequenceClassification` that mixes in its own forward pass when it is given a plan.

    Example:
        >>> model = MixupCamembertForSequenceClassification.from_pretrained("FOLDER", num_labels=3)  # doctest: +SKIP
        >>> model(**inputs, mixup=plan).logits.shape  # doctest: +SKIP
        torch.Size([8, 3])
    """

    parent_class = CamembertForSequenceClassification
    mixup_modules = {
        CamembertSelfAttention: MixupCamembertSelfAttention,
        CamembertAttention: MixupCamembertAttention,
        CamembertLayer: MixupCamembertLayer,
    }
