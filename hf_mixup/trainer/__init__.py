"""`MixupTrainer`, its arguments, and the mixin for a Trainer subclass of your own."""

from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.trainer import MixupTrainer, MixupTrainerMixin, NonFiniteLossError

__all__ = ["MixupTrainer", "MixupTrainerMixin", "MixupTrainingArguments", "NonFiniteLossError"]
