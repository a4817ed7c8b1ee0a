"""How often a training step waits for the device: by the values that Python asks for, or as CUDA itself tells it."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_mixup import MixupTrainer
from tests.tiny import tiny_dataset, tiny_model, wordpiece_tokenizer
from tests.trainer.runs import train

aten = torch.ops.aten
METHODS = {
    "none": {},
    "amplify": {"mixup_ratio": "constant", "mixup_lambda": 0.7},
    "embedmix": {},
    "attentionmix": {"mixup_attention_head": "1"},
    "ssmix": {},
}


class Reads(TorchDispatchMode):
    """Counts the values of tensors that Python asks for: on a GPU the host waits for each."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
        return function(*args, **(kwargs or {}))


class Syncs(ExitStack):
    """Counts what CUDA reports as a wait of the host; needs a GPU."""

    def __enter__(self):
        super().__enter__()
        self._warnings = self.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        self.callback(torch.cuda.set_sync_debug_mode, torch.cuda.get_sync_debug_mode())
        torch.cuda.set_sync_debug_mode("warn")
        return self

    @property
    def count(self):
        return sum("called a synchronizing CUDA operation" in str(each.message) for each in self._warnings)

    @count.setter
    def count(self, number):
        self._warnings.clear()


def waits_of_steps(folder, trainer_class, counter=Reads, columns=None, **options):
    """The waits of each optimizer step but the last, outside of drawing batches and plans, which the host does."""
    waits, counts = counter(), []

    class Counted(trainer_class):
        def get_batch_samples(self, *args, **kwargs):
            counts.append(waits.count)
            samples = super().get_batch_samples(*args, **kwargs)
            waits.count = 0
            return samples

    # On a CPU values are checked, which is free there; those on a device are not looked at.
    checks = [patch(f"hf_mixup.mixing.{name}.can_read", return_value=False) for name in ("plan", "objectives")]
    with waits, checks[0], checks[1]:
        train(
            folder,
            tiny_model("bert", mixup=issubclass(trainer_class, MixupTrainer)),
            Counted,
            dataset=tiny_dataset(rows=64, **(columns or {})),
            trainer_options={"processing_class": wordpiece_tokenizer()},
            max_steps=4,
            gradient_accumulation_steps=2,
            logging_steps=100,
            **options,
        )
    return counts[1:]
