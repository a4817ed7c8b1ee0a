"""The numbers that options of a training may have: none that crashes it, hangs it or fills the memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hf_mixup.errors import LARGEST_SEED
from hf_mixup.mixing.checks import is_number, is_whole, shown


@dataclass(frozen=True)
class Range:
    """From `lowest` to `highest`, both allowed; with `below` the highest is not.

    Args:
        lowest, highest: the bounds.
        whole: whether only whole numbers are allowed.
        below: whether the number must be below `highest`.

    Example:
        >>> 1 in Range(0, 1), 1 in Range(0, 1, below=True), 0.5 in Range(0, 1, whole=True)
        (True, False, False)
    """

    lowest: float
    highest: float
    whole: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        if not (is_whole(value) if self.whole else is_number(value)):
            return False
        return self.lowest <= value < self.highest if self.below else self.lowest <= value <= self.highest

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number"
        upper = "" if self.highest == math.inf else f"{' and below' if self.below else ' to'} {self.highest}"
        return f"a {kind} from {self.lowest}{upper}"


_STEPS = 1_000_000_000
_ROWS = Range(1, 2**20, whole=True)
# By name, so that an option that a version of transformers lacks is left out.
RANGES = {
    "per_device_train_batch_size": _ROWS,
    "per_device_eval_batch_size": _ROWS,
    # The batches of a step are in memory together.
    "gradient_accumulation_steps": Range(1, 10_000, whole=True),
    "eval_accumulation_steps": Range(1, _STEPS, whole=True),
    "num_train_epochs": Range(0, 1_000_000),
    "max_steps": Range(-1, _STEPS, whole=True),
    # The end of single precision.
    "learning_rate": Range(0, 3e38),
    # Below 1 the share of all steps.
    "warmup_steps": Range(0, _STEPS),
    "weight_decay": Range(0, 1_000_000),
    "adam_beta1": Range(0, 1, below=True),
    "adam_beta2": Range(0, 1, below=True),
    # At 0 a gradient of 0 is divided by 0.
    "adam_epsilon": Range(1e-30, 1_000_000),
    "max_grad_norm": Range(0, math.inf),
    "label_smoothing_factor": Range(0, 1, below=True),
    "neftune_noise_alpha": Range(0, 1_000_000),
    "torch_empty_cache_steps": Range(1, _STEPS, whole=True),
    "logging_steps": Range(0, _STEPS),
    "eval_steps": Range(0, _STEPS),
    "eval_delay": Range(0, _STEPS),
    "save_steps": Range(0, _STEPS),
    "save_total_limit": Range(0, 1_000_000, whole=True),
    # What numpy's generators take.
    "seed": Range(0, LARGEST_SEED, whole=True),
    "data_seed": Range(0, LARGEST_SEED, whole=True),
    # Each is a process, with a copy of what it reads.
    "dataloader_num_workers": Range(0, 256, whole=True),
    "dataloader_prefetch_factor": Range(1, 10_000, whole=True),
    "ddp_bucket_cap_mb": Range(1, 1_000_000, whole=True),
    "ddp_timeout": Range(1, 10_000_000, whole=True),
    "local_rank": Range(-1, 1_000_000, whole=True),
}


def check_ranges(args: Any) -> None:
    """Raise for the first option that is out of its range.

    Args:
        args: `TrainingArguments`, perhaps not yet initialized.

    Raises:
        ValueError: in one sentence that names the option and what it may be.

    Example:
        >>> check_ranges(MixupTrainingArguments("out"))  # doctest: +SKIP
    """
    for name, allowed in RANGES.items():
        value = getattr(args, name, None)
        if value is not None and value not in allowed:
            raise ValueError(f"{name}={shown(value)} is not allowed: give {allowed}.")
