"""`MixupTrainer`, its arguments, and the mixin for a Trainer subclass of your own."""

from hf_mixup.trainer.arguments import MixupTrainingArguments
from hf_mixup.trainer.checkpoints import CheckpointError, SaveError
from hf_mixup.trainer.length_pairs import LengthGroupedPairSampler
from hf_mixup.trainer.sigterm import save_on_sigterm
from hf_mixup.trainer.trainer import MixupTrainer, MixupTrainerMixin, NonFiniteLossError

__all__ = [
    "CheckpointError",
    "LengthGroupedPairSampler",
    "MixupTrainer",
    "MixupTrainerMixin",
    "MixupTrainingArguments",
    "NonFiniteLossError",
    "SaveError",
    "save_on_sigterm",
]
