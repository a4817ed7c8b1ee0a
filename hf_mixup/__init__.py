"""Mixup for fine-tuning Transformers on text: the mixup models, the trainer and the methods.

Example:
    >>> from hf_mixup import AutoMixupModelForSequenceClassification, MixupTrainer, MixupTrainingArguments
"""

from hf_mixup.methods import METHODS, Method, Mixup
from hf_mixup.mixing import Objective, PairPlan, StepKey, weighted_mean
from hf_mixup.modeling import (
    AutoMixupModelForSequenceClassification,
    MixupBertForSequenceClassification,
    MixupDistilBertForSequenceClassification,
    MixupRobertaForSequenceClassification,
)
from hf_mixup.trainer import MixupTrainer, MixupTrainerMixin, MixupTrainingArguments, NonFiniteLossError

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "AutoMixupModelForSequenceClassification",
    "Method",
    "Mixup",
    "MixupBertForSequenceClassification",
    "MixupDistilBertForSequenceClassification",
    "MixupRobertaForSequenceClassification",
    "MixupTrainer",
    "MixupTrainerMixin",
    "MixupTrainingArguments",
    "NonFiniteLossError",
    "Objective",
    "PairPlan",
    "StepKey",
    "weighted_mean",
]
