"""Checks of options on their own, against the labels and against the model, made before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedConfig, get_scheduler
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from hf_mixup.errors import UsageError, as_one_line, cut, first_line, listed, nearest, quoted
from hf_mixup.methods import Mixup
from hf_mixup.mixing.ratios import BatchWeights
from hf_mixup.modeling.auto import MODELS
from hf_mixup.trainer import MixupTrainingArguments

_KINDS_WITHOUT_ONE_CLASS = {"regression": "scores", "multi": "lists of classes"}
_TIMES = ("runtime", "samples_per_second", "steps_per_second")


def check_length_and_schedule(training_args: MixupTrainingArguments) -> None:
    """Check that there is something to train, and that options of schedule and optimizer can be read.

    Raises:
        UsageError: if not.
    """
    _check_schedule(training_args)
    if training_args.max_steps <= 0 and training_args.num_train_epochs <= 0:
        raise UsageError(
            f"--num_train_epochs should be above 0, got {training_args.num_train_epochs}; "
            "or give the number of steps with --max_steps"
        )
    pairs = [pair.split("=") for pair in (training_args.optim_args or "").replace(" ", "").split(",")]
    if training_args.optim_args and any(len(pair) != 2 for pair in pairs):
        raise UsageError(
            f"--optim_args {quoted(training_args.optim_args)} should be name=value, with commas between several"
        )


def _check_schedule(training_args: MixupTrainingArguments) -> None:
    """Make the schedule of the learning rate once, for a model of one weight."""
    name, options = training_args.lr_scheduler_type, training_args.lr_scheduler_kwargs
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    try:
        schedule = get_scheduler(name, optimizer, 1, 10, options)
        for _ in range(0 if name == SchedulerType.REDUCE_ON_PLATEAU else 9):
            optimizer.step()
            schedule.step()
    except (ValueError, TypeError, ArithmeticError, KeyError) as error:
        raise UsageError(
            f"--lr_scheduler_type {name.value} cannot be made with --lr_scheduler_kwargs {cut(str(options))}: "
            f"{first_line(error)}"
        ) from error


def check_label_options(kind: str, num_labels: int, training_args: MixupTrainingArguments) -> None:
    """Check that class weights, label smoothing and the method have a meaning for labels of this kind.

    Args:
        kind: `single`, `regression`, `multi` or `soft`, as in `hf_mixup.glue.labels`.
        num_labels: the number of the model's outputs.
        training_args: the options.

    Raises:
        UsageError: if one has none, or the number of class weights is not that of the classes.
    """
    weights, method = training_args.parse_class_weights(), training_args.mixup()
    smoothing = training_args.label_smoothing_factor
    if kind in _KINDS_WITHOUT_ONE_CLASS:
        given = {
            "--class_weights": weights is not None,
            "--label_smoothing_factor": smoothing > 0,
            f"--mixup_method {method.name}": isinstance(method.ratio, BatchWeights),
        }
        for flag in (flag for flag, is_given in given.items() if is_given):
            raise UsageError(
                f"{flag} is for labels of one class per row, these are {_KINDS_WITHOUT_ONE_CLASS[kind]} ({kind}); "
                f"{'choose another method' if 'method' in flag else 'leave it out'}"
            )
    if method.dot_product and smoothing > 0:
        raise UsageError(
            f"--label_smoothing_factor has no meaning for the dot-product loss of --mixup_method {method.name}; "
            "leave it out"
        )
    if weights == "balanced" and kind == "soft":
        raise UsageError(
            "--class_weights balanced counts the rows of each class, and soft labels have several classes per row; "
            "give one number for each class, such as 1,2.5"
        )
    if isinstance(weights, list) and len(weights) != num_labels:
        raise UsageError(
            f"--class_weights has {len(weights)} numbers, but the labels have {num_labels} classes; give one each"
        )


def check_model_options(config: PreTrainedConfig, training_args: MixupTrainingArguments) -> None:
    """Check that the model has the blocks and heads that the mixup options name.

    Raises:
        UsageError: if not. Families without mixup classes pass: they are refused where the model is loaded.
    """
    method = training_args.mixup()
    if method.site is None or config.model_type not in MODELS:
        return
    try:
        # Which tokens are special changes nothing here, but a method that swaps tokens wants to know.
        Mixup(method, config.num_hidden_layers, config.hidden_size, config.num_attention_heads, special_ids=(0,))
    except ValueError as error:
        raise UsageError(as_one_line(error)) from error


def check_best_metric(keys: Iterable[str], training_args: MixupTrainingArguments) -> None:
    """Check that the evaluations during training report what --metric_for_best_model names.

    Args:
        keys: the names of the numbers that `compute_metrics` gives.
        training_args: the options.

    Raises:
        UsageError: if they do not; the sentence lists the names and the nearest of them.
    """
    wanted = training_args.metric_for_best_model
    if wanted is None or not training_args.do_train or training_args.eval_strategy == IntervalStrategy.NO:
        return
    reported = ["loss", *keys]
    if wanted.removeprefix("eval_") not in (*reported, *_TIMES):
        guess = nearest(wanted.removeprefix("eval_"), reported)
        hint = f"; did you mean {guess}?" if guess else ""
        raise UsageError(f"--metric_for_best_model {wanted} is not reported, choose one of {listed(reported)}{hint}")
