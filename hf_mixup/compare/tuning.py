"""The same number of Optuna trials for every method, so that all are compared on equal terms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from transformers import AutoConfig

from hf_mixup.compare.data import load_cell_data
from hf_mixup.compare.grid import Cell, Task
from hf_mixup.compare.results import primary_metric
from hf_mixup.compare.run import train, training_arguments, validation_metrics
from hf_mixup.mixing.ratios import BatchWeights, Ratio
from hf_mixup.trainer import MixupTrainingArguments, NonFiniteLossError

LEARNING_RATES = (1e-5, 3e-4)
ALPHAS = (0.05, 10.0)
# A trial first trains a quarter of the epochs, and all of them if it is then among the best quarter.
_FACTOR = 4
_OWN = "default"


def tune(
    cell: Cell, task: Task, model: str, options: Mapping[str, Any], fixed: Mapping[str, Any], trials: int
) -> dict[str, Any]:
    """Look for the learning rate, alpha and layers of a method that do best on the validation rows.

    Learning rate, alpha (where the method draws by one) and layers (its own, or the lower, middle or upper third of
    the blocks) are searched by TPE, the given settings first, with successive halving: a trial trains for a quarter
    of the epochs, and for all of them, from the start, if that puts it among the best quarter so far (Li et al. 2020,
    A System for Massively Parallel Hyperparameter Tuning, https://arxiv.org/abs/1810.05934).

    Args:
        cell: task, model, size, noise and method; its seed is that of all trials.
        task: its task.
        model: the folder or the name of its model.
        options: the flags of the runs.
        fixed: those of them that belong to the method and are not searched.
        trials: how many, at least 1.

    Returns:
        `best` and `trials`, as in `hf_mixup.compare.results`.

    Raises:
        ValueError: no trial came to its end.
    """
    data = load_cell_data(task, cell)
    files = {"train_file": task.files["train"], "validation_file": task.files["test"]}
    arguments = training_arguments(options, files, task, model)
    length = "max_steps" if arguments.max_steps > 0 else "num_train_epochs"
    whole = getattr(arguments, length)
    layers = _thirds(model)

    def value_of(flags: Mapping[str, Any], share: int) -> float:
        part = max(1, whole // share) if length == "max_steps" else whole / share
        with tempfile.TemporaryDirectory() as folder:
            settings = {**options, **flags, length: part}
            metrics = validation_metrics(train(data, task, model, settings, cell.seed, Path(folder)))
        return metrics[primary_metric(metrics)]

    def objective(trial: optuna.Trial) -> float:
        flags = _suggest(trial, arguments, fixed, layers)
        trial.set_user_attr("flags", flags)
        trial.report(value_of(flags, _FACTOR), step=1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value_of(flags, 1)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=cell.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_FACTOR),
    )
    study.enqueue_trial(_given(arguments))
    study.optimize(objective, n_trials=trials, catch=(NonFiniteLossError,))
    if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        raise ValueError(f"none of the {trials} trials of {cell.method} came to its end")
    return {
        "best": study.best_trial.user_attrs["flags"],
        "trials": [
            {"flags": trial.user_attrs["flags"], "value": trial.value, "state": trial.state.name}
            for trial in study.trials
        ],
    }


def _suggest(
    trial: optuna.Trial, arguments: MixupTrainingArguments, fixed: Mapping[str, Any], layers: Mapping[str, str]
) -> dict[str, Any]:
    """The flags of a trial."""
    method, flags = arguments.mixup(), {}
    if "learning_rate" not in fixed:
        flags["learning_rate"] = trial.suggest_float("learning_rate", *LEARNING_RATES, log=True)
    draws_by_alpha = isinstance(method.ratio, Ratio | BatchWeights) and method.ratio.alpha is not None
    if draws_by_alpha and "mixup_alpha" not in fixed:
        flags["mixup_alpha"] = trial.suggest_float("mixup_alpha", *ALPHAS, log=True)
    if method.layers and "mixup_layers" not in fixed:
        chosen = trial.suggest_categorical("mixup_layers", [_OWN, *layers])
        flags |= {} if chosen == _OWN else {"mixup_layers": layers[chosen]}
    return flags


def _given(arguments: MixupTrainingArguments) -> dict[str, Any]:
    """The settings of the first trial: those without tuning, as far as they are in the range that is searched."""
    given = {"mixup_layers": _OWN}
    alpha = getattr(arguments.mixup().ratio, "alpha", None)
    for name, value, (low, high) in (
        ("learning_rate", arguments.learning_rate, LEARNING_RATES),
        ("mixup_alpha", alpha, ALPHAS),
    ):
        if value is not None and low <= value <= high:
            given[name] = value
    return given


def _thirds(model: str) -> dict[str, str]:
    """The blocks of the lower, middle and upper third of a model, as --mixup_layers takes them."""
    blocks = np.array_split(np.arange(1, AutoConfig.from_pretrained(model).num_hidden_layers + 1), 3)
    named = zip(("lower", "middle", "upper"), blocks, strict=True)
    return {name: ",".join(map(str, part)) for name, part in named if len(part)}
