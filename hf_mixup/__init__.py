"""Mixup for fine-tuning Transformers on text: the mixup models, the trainer and the methods.

Example:
    >>> from hf_mixup import AutoMixupModelForSequenceClassification, MixupTrainer, MixupTrainingArguments
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_mixup.methods import METHODS, Method, Mixup
    from hf_mixup.mixing import Objective, PairPlan, StepKey, weighted_mean
    from hf_mixup.modeling import (
        AutoMixupModelForSequenceClassification,
        MixupBertForSequenceClassification,
        MixupDistilBertForSequenceClassification,
        MixupRobertaForSequenceClassification,
    )
    from hf_mixup.trainer import (
        CheckpointError,
        MixupTrainer,
        MixupTrainerMixin,
        MixupTrainingArguments,
        NonFiniteLossError,
        SaveError,
        save_on_sigterm,
    )

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "AutoMixupModelForSequenceClassification",
    "CheckpointError",
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
    "SaveError",
    "StepKey",
    "save_on_sigterm",
    "weighted_mean",
]


def __getattr__(name: str) -> Any:
    # Loaded at first use, so that `hf-mixup --version` and `--help` do not wait for torch and transformers.
    if name in __all__:
        for part in ("methods", "mixing", "modeling", "trainer"):
            module = import_module(f"{__name__}.{part}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
