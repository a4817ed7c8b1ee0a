"""Models that mix in their own forward pass: one file a family, and the Auto class."""

from hf_mixup.modeling.auto import AutoMixupModelForSequenceClassification
from hf_mixup.modeling.bert import MixupBertForSequenceClassification
from hf_mixup.modeling.distilbert import MixupDistilBertForSequenceClassification
from hf_mixup.modeling.roberta import MixupRobertaForSequenceClassification
from hf_mixup.modeling.sequence_classification import MixupModel, MixupSequenceClassifierOutput

__all__ = [
    "AutoMixupModelForSequenceClassification",
    "MixupBertForSequenceClassification",
    "MixupDistilBertForSequenceClassification",
    "MixupModel",
    "MixupRobertaForSequenceClassification",
    "MixupSequenceClassifierOutput",
]
