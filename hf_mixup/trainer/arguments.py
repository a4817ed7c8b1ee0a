"""The options of mixup as flat training arguments: command line, YAML and hyperparameter search reach them all."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any

import torch
from transformers import TrainingArguments

from hf_mixup.methods import METHODS, Method
from hf_mixup.mixing.checks import check_choice, did_you_mean, is_number, plain, plain_in_any_order, shown
from hf_mixup.trainer.legacy import LEGACY_FLAGS
from hf_mixup.trainer.length_pairs import check_even
from hf_mixup.trainer.ranges import check_ranges

logger = logging.getLogger(__name__)

# Others become 0 or infinite where they are multiplied and summed in single precision.
_CLASS_WEIGHTS = 1e-6, 1e6


def _naming_the_right_one(arguments: type) -> type:
    """A dataclass that answers an unknown option with what replaces it, or the option that is spelled most like it."""
    generated = arguments.__init__
    known = [option.name for option in fields(arguments) if option.init]

    @wraps(generated)
    def init(self: Any, *args: Any, **options: Any) -> None:
        for name in options:
            if name not in known:
                raise TypeError(f"{arguments.__name__} has no option {name!r}{_instead(name, known)}.")
        generated(self, *args, **options)

    arguments.__init__ = init
    return arguments


def _instead(name: str, known: list[str]) -> str:
    """What to give in place of an option that does not exist."""
    legacy = LEGACY_FLAGS.get(name)
    # Some belong to the script alone, and some are back in another version of transformers.
    if legacy is not None and (legacy.now is None or legacy.now in known):
        return f", which {legacy.in_python()}"
    return f"{did_you_mean(name, known)}: leave it out, or give the option that you meant"


@_naming_the_right_one
@dataclass
class MixupTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the options of mixup; their defaults are those of the chosen method's paper.

    Args:
        mixup_method: the method, by name (see `hf_mixup.methods.METHODS`); `none` is plain fine-tuning.
        mixup_alpha: parameter of Beta(alpha, alpha), > 0.
        mixup_draws: draws of which the largest is taken, for `max-of-n`, from 1 to 1000.
        mixup_lambda: the own row's share, in [0, 1], for `constant`.
        mixup_ratio: the distribution of lambda: `beta`, `beta-max`, `max-of-n` or `constant`.
        mixup_points: for methods that mix whole batches: how many points of a batch, from 1 to 1000.
        mixup_temperature: of the softmax that weighs the rows of a whole batch, > 0.
        mixup_attention_layer: for `attentionmix`: the block whose attention weighs the tokens, from 1.
        mixup_attention_head: and its head, from 0, or `average`.
        mixup_per_sample: whether every row draws its own lambda.
        mixup_layers: `all`, or blocks such as `4` or `4,8`.
        mixup_site: `word_embeddings`, `embeddings`, `hidden`, `attention`, `attention_block`, `pooled` or `logits`.
        mixup_partner: who is mixed with whom: `random`, `flip`, `roll` or `neighbour`. The first three choose within
            the batch, which `train_sampling_strategy="group_by_length"` fills with texts of alike length; `neighbour`
            mixes rows 2i and 2i + 1, pairs that are then drawn over the whole training set.
        mixup_attention_mask: what attention sees of mixed rows: `own`, `union` or `intersection`; or `skip`, to mix
            only where both rows have a token.
        mixup_clean: `none`, `average` (train the clean rows along) or `alternate` (mix half of the batches).
        mixup_clean_weight: the weight of the clean rows for `average`, above 0 and below 1.
        mixup_label_weight: `ratio`, `compounded` (what several mixes of a residual stream leave of the own row) or
            `learned` (by a gate, for `nonlinear`).
        mixup_updates: how many optimizer updates each batch makes, each with draws of its own, from 1 to 100.
            SIGTERM is answered after the last of them.
        mixup_prob: the share of batches that are mixed, in [0, 1].
        mixup_start, mixup_stop: the fractions of the training between which batches are mixed.
        class_weights: `balanced`, or one weight a class such as `1,2.5`.

    Raises:
        ValueError: a value that is not allowed, or an option without meaning for the chosen method.
        TypeError: an option that does not exist.

    Example:
        >>> args = MixupTrainingArguments(output_dir="out", mixup_method="amplify", mixup_layers="4,8")
        >>> args.mixup().layers
        (4, 8)
    """

    mixup_method: str = field(
        default="none", metadata={"help": "The mixup method: " + ", ".join(METHODS) + ". 'none' is plain fine-tuning."}
    )
    mixup_alpha: float | None = field(
        default=None, metadata={"help": "Parameter of Beta(alpha, alpha), > 0. Default: the method's."}
    )
    mixup_draws: int | None = field(
        default=None,
        metadata={"help": "For max-of-n: the number of draws of lambda, 1 to 1000. Default: the method's."},
    )
    mixup_lambda: float | None = field(
        default=None, metadata={"help": "For --mixup_ratio constant: the own row's share, from 0 to 1."}
    )
    mixup_ratio: str | None = field(
        default=None,
        metadata={"help": "How lambda is drawn: beta, beta-max, max-of-n or constant. Default: the method's."},
    )
    mixup_points: int | None = field(
        default=None,
        metadata={
            "help": "For methods that mix whole batches: the points of a batch, 1 to 1000. Default: the method's."
        },
    )
    mixup_temperature: float | None = field(
        default=None,
        metadata={"help": "Of the softmax that weighs the rows of a whole batch, > 0. Default: the method's."},
    )
    mixup_attention_layer: int | None = field(
        default=None,
        metadata={"help": "For attentionmix: the block whose attention weighs the tokens, from 1. Default: 1."},
    )
    mixup_attention_head: str | None = field(
        default=None, metadata={"help": "For attentionmix: its head, from 0, or average. Default: 8."}
    )
    mixup_per_sample: bool | None = field(
        default=None, metadata={"help": "Whether every row draws its own lambda. Default: the method's."}
    )
    mixup_layers: str | None = field(
        default=None,
        metadata={
            "help": "The blocks to mix in: all, or numbers such as 4 or 4,8; block k is hidden state k, 0 the "
            "embeddings. Default: the method's."
        },
    )
    mixup_site: str | None = field(
        default=None,
        metadata={
            "help": "Where to mix: word_embeddings, embeddings, hidden, attention, attention_block, pooled or logits. "
            "Default: the method's."
        },
    )
    mixup_partner: str | None = field(
        default=None,
        metadata={
            "help": "Who is mixed with whom: random, flip or roll within the batch; or neighbour, rows 0 and 1, 2 and "
            "3, which with --train_sampling_strategy group_by_length are pairs drawn over the whole training set. "
            "Default: the method's."
        },
    )
    mixup_attention_mask: str | None = field(
        default=None,
        metadata={
            "help": "What attention sees of mixed rows: own, union or intersection; skip mixes only where both rows "
            "have a token. Default: the method's."
        },
    )
    mixup_clean: str | None = field(
        default=None,
        metadata={
            "help": "Clean rows: none, average (trained along with the mixed ones) or alternate (half of the batches "
            "stay clean). Default: the method's."
        },
    )
    mixup_clean_weight: float | None = field(
        default=None, metadata={"help": "For --mixup_clean average: the weight of the clean rows. Default: 0.5."}
    )
    mixup_label_weight: str | None = field(
        default=None,
        metadata={
            "help": "The own label's share: ratio (lambda), compounded (for attention_block with --mixup_partner "
            "flip or neighbour) or learned (for nonlinear). Default: the method's."
        },
    )
    mixup_updates: int | None = field(
        default=None,
        metadata={
            "help": "Optimizer updates that each batch makes, 1 to 100, each with draws of its own; SIGTERM waits for "
            "them. Default: 1."
        },
    )
    mixup_prob: float | None = field(
        default=None, metadata={"help": "The share of batches that are mixed, from 0 to 1. Default: the method's."}
    )
    mixup_start: float | None = field(
        default=None, metadata={"help": "Mix from this fraction of the training on. Default: the method's."}
    )
    mixup_stop: float | None = field(
        default=None, metadata={"help": "Mix up to this fraction of the training. Default: the method's."}
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "Whether a new run removes the checkpoints of an earlier one in --output_dir. Default: they are "
            "renamed to old-checkpoint-N."
        },
    )
    class_weights: str | None = field(
        default=None,
        metadata={"help": "Weights of the classes in the training loss: balanced, or one number a class: 1,2.5."},
    )

    def __post_init__(self) -> None:
        # numpy's numbers and arrays become what JSON can hold.
        for option in fields(self):
            setattr(self, option.name, plain(getattr(self, option.name)))
        self.mixup_layers = plain_in_any_order(self.mixup_layers)
        self.mixup()
        self.parse_class_weights()
        check_ranges(self)
        self._join_on_cpus()
        super().__post_init__()
        if self.groups_pairs():
            check_even(self.per_device_train_batch_size)

    def _join_on_cpus(self) -> None:
        """Make one run of several processes on a machine without an accelerator.

        torch counts processes only where it knows a backend for their device: without `use_cpu` each would train
        alone, and all would write into the same folder.
        """
        several = int(os.environ.get("WORLD_SIZE", 1)) > 1
        if several and not self.use_cpu and not torch.accelerator.is_available():
            self.use_cpu = True
            if int(os.environ.get("RANK", 0)) == 0:
                logger.warning("No GPU is found: the processes train together on the CPU, as with use_cpu.")

    def mixup(self) -> Method:
        """The chosen method with the options that were given. Options may change while it trains."""
        check_choice("mixup_method", self.mixup_method, METHODS)
        return METHODS[self.mixup_method].with_options(**self.mixup_options())

    def mixup_options(self) -> dict[str, Any]:
        """The options as `Method.with_options` takes them; None where the method's own setting stays."""
        return {option: getattr(self, name) for name, option in _OPTIONS.items()}

    def groups_pairs(self) -> bool:
        """Whether pairs are drawn over the whole training set and then grouped by length."""
        return self.train_sampling_strategy == "group_by_length" and self.mixup().partner == "neighbour"

    def parse_class_weights(self) -> str | list[float] | None:
        """`class_weights` as `"balanced"`, a list of positive numbers, or None."""
        given = self.class_weights
        if given is None or (isinstance(given, str) and given == "balanced"):
            return given
        if isinstance(given, str):
            try:
                weights = [float(part) for part in given.strip("[] ").split(",")]
            except ValueError:
                weights = []
        else:
            weights = list(given) if isinstance(given, Sequence) else []
        lowest, highest = _CLASS_WEIGHTS
        if not weights or not all(is_number(weight) and lowest <= weight <= highest for weight in weights):
            raise ValueError(
                f"class_weights={shown(given)} is not allowed: give balanced, or one number above 0 for each class, "
                f"such as 1,2.5, from {lowest} to {highest:,.0f}."
            )
        return weights


_OPTIONS = {
    option.name: {"mixup_lambda": "lam"}.get(option.name, option.name.removeprefix("mixup_"))
    for option in fields(MixupTrainingArguments)
    if option.name.startswith("mixup_") and option.name != "mixup_method"
}
