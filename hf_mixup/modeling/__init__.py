"""Models that mix in their own forward pass: one file a family, and the Auto class."""

from hf_mixup.modeling.albert import MixupAlbertForSequenceClassification
from hf_mixup.modeling.auto import AutoMixupModelForSequenceClassification
from hf_mixup.modeling.bert import MixupBertForSequenceClassification
from hf_mixup.modeling.camembert import MixupCamembertForSequenceClassification
from hf_mixup.modeling.deberta_v2 import MixupDebertaV2ForSequenceClassification
from hf_mixup.modeling.distilbert import MixupDistilBertForSequenceClassification
from hf_mixup.modeling.electra import MixupElectraForSequenceClassification
from hf_mixup.modeling.gpt2 import MixupGPT2ForSequenceClassification
from hf_mixup.modeling.llama import MixupLlamaForSequenceClassification
from hf_mixup.modeling.modernbert import MixupModernBertForSequenceClassification
from hf_mixup.modeling.mpnet import MixupMPNetForSequenceClassification
from hf_mixup.modeling.qwen2 import MixupQwen2ForSequenceClassification
from hf_mixup.modeling.qwen3 import MixupQwen3ForSequenceClassification
from hf_mixup.modeling.roberta import MixupRobertaForSequenceClassification
from hf_mixup.modeling.sequence_classification import MixupModel, MixupSequenceClassifierOutput
from hf_mixup.modeling.xlm_roberta import MixupXLMRobertaForSequenceClassification

__all__ = [
    "AutoMixupModelForSequenceClassification",
    "MixupAlbertForSequenceClassification",
    "MixupBertForSequenceClassification",
    "MixupCamembertForSequenceClassification",
    "MixupDebertaV2ForSequenceClassification",
    "MixupDistilBertForSequenceClassification",
    "MixupElectraForSequenceClassification",
    "MixupGPT2ForSequenceClassification",
    "MixupLlamaForSequenceClassification",
    "MixupMPNetForSequenceClassification",
    "MixupModel",
    "MixupModernBertForSequenceClassification",
    "MixupQwen2ForSequenceClassification",
    "MixupQwen3ForSequenceClassification",
    "MixupRobertaForSequenceClassification",
    "MixupSequenceClassifierOutput",
    "MixupXLMRobertaForSequenceClassification",
]
