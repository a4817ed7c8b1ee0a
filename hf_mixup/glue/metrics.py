"""Metrics that are part of this library, so that no run needs the network for them.

`load_metric` gives the metric of a run as a function of the model's outputs and the labels. What a run reports without
`--metric_name` are `evaluate` modules: `GlueMetric` has the keys that `run_glue.py` reports for the nine GLUE tasks,
the others are for files without a task. The names of `CLASS_METRICS` and `SCORE_METRICS` are computed by scikit-learn.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax, softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_squared_error,
    precision_score,
    recall_score,
    roc_auc_score,
)
from transformers import EvalPrediction

from hf_mixup.errors import UsageError, cut, first_line, listed
from hf_mixup.glue.tasks import TASKS

_SHARES_OF_HITS = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
CLASS_METRICS = ("accuracy", *_SHARES_OF_HITS, "roc_auc")
SCORE_METRICS = ("mse",)
# The outputs of the model `[n, outputs]` and the labels of the same rows.
Metric = Callable[[np.ndarray, Any], dict[str, float]]

_INTEGER = datasets.Value("int64")
_FLOAT = datasets.Value("float32")
_MADE_UP_ROWS = 100


def _module_info(description: str, citation: str, inputs: str, kind: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=inputs,
        features=datasets.Features({"predictions": kind, "references": kind}),
        # evaluate hands over arrays for single values only; rows of values come as lists.
        format="numpy" if isinstance(kind, datasets.Value) else None,
    )


def _correlations(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    # A correlation of fewer than two points, or with a constant, does not exist: nan, and the run goes on.
    if len(predictions) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return {"pearson": float("nan"), "spearmanr": float("nan")}
    return {
        "pearson": float(pearsonr(predictions, references)[0]),
        "spearmanr": float(spearmanr(predictions, references)[0]),
    }


class GlueMetric(evaluate.Metric):
    """The metrics of the GLUE benchmark (Wang et al. 2018, https://arxiv.org/abs/1804.07461), computed offline.

    | task | keys |
    | --- | --- |
    | cola | `matthews_correlation` |
    | mrpc, qqp | `accuracy`, `f1` (of class 1) |
    | stsb | `pearson`, `spearmanr` |
    | all others | `accuracy` |

    Args:
        config_name: the task. Predictions and references are class ids `[n]`, for stsb scores `[n]`.

    Raises:
        UsageError: at construction, if `config_name` is not a GLUE task.

    Example:
        >>> GlueMetric("mrpc", keep_in_memory=True).compute(predictions=[1, 0, 1], references=[1, 1, 1])
        {'accuracy': 0.6666666666666666, 'f1': 0.8}
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in TASKS:
            raise UsageError(f"there is no GLUE metric {self.config_name!r}, choose one of {', '.join(TASKS)}")
        return _module_info(
            description=f"The metrics of the GLUE task {self.config_name}.",
            citation="GLUE, Wang et al. 2018, https://arxiv.org/abs/1804.07461",
            inputs="predictions and references: class ids, or scores for stsb",
            kind=_FLOAT if TASKS[self.config_name].is_regression else _INTEGER,
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if self.config_name == "cola":
            return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
        if self.config_name == "stsb":
            return _correlations(predictions, references)
        result = {"accuracy": float(accuracy_score(references, predictions))}
        if self.config_name in ("mrpc", "qqp"):
            result["f1"] = float(f1_score(y_true=references, y_pred=predictions))
        return result


class ClassificationMetric(evaluate.Metric):
    """Accuracy and the mean of the F1 of each class (macro F1), for files without a task.

    Predictions and references are class ids `[n]`. The mean runs over the classes that occur in either of them, which
    is scikit-learn's `f1_score(average="macro")`; a class that is never hit counts 0.
    Keys: `accuracy`, `f1_macro`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _module_info("Accuracy and macro F1.", "", "predictions and references: class ids", _INTEGER)

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1_macro": float(f1_score(references, predictions, average="macro", zero_division=0.0)),
        }


class RegressionMetric(evaluate.Metric):
    """Pearson's and Spearman's correlation and the mean squared error, for files without a task.

    Predictions and references are scores `[n]`. Keys: `pearson`, `spearmanr`, `mse`; a correlation that does not exist
    (one row, or a constant side) is nan.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _module_info("Correlations and squared error.", "", "predictions and references: scores", _FLOAT)

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {
            **_correlations(predictions, references),
            "mse": float(mean_squared_error(references, predictions)),
        }


class MultiLabelMetric(evaluate.Metric):
    """Micro F1, macro F1 and subset accuracy (the share of rows with every label right) for rows with several labels.

    Predictions and references are 0/1 rows `[n, classes]`. Keys: `f1_micro`, `f1_macro`, `subset_accuracy`; the F1 of
    a class that neither occurs nor is predicted counts 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _module_info(
            "F1 and subset accuracy of sets of labels.",
            "",
            "predictions and references: rows of 0 and 1",
            datasets.Sequence(_INTEGER),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        hits = np.all(np.asarray(predictions) == np.asarray(references), axis=1)
        return {
            "f1_micro": float(f1_score(references, predictions, average="micro", zero_division=0.0)),
            "f1_macro": float(f1_score(references, predictions, average="macro", zero_division=0.0)),
            "subset_accuracy": float(np.mean(hits)),
        }


class SoftLabelMetric(evaluate.Metric):
    """Accuracy against the likeliest class and the mean cross-entropy, for rows with a probability per class.

    Predictions are logits `[n, classes]`, references probabilities `[n, classes]`;
    cross-entropy = mean_i( - sum_c references[i, c] * log softmax(predictions[i])[c] ).
    Keys: `accuracy`, `cross_entropy`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _module_info(
            "Accuracy and cross-entropy against soft labels.",
            "",
            "predictions: logits; references: probabilities",
            datasets.Sequence(_FLOAT),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[float]]) -> dict[str, float]:
        logits, targets = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
        return {
            "accuracy": float(np.mean(logits.argmax(axis=1) == targets.argmax(axis=1))),
            "cross_entropy": float(-np.mean(np.sum(targets * log_softmax(logits, axis=1), axis=1))),
        }


_METRIC_OF_KIND: dict[str, type[evaluate.Metric]] = {
    "single": ClassificationMetric,
    "regression": RegressionMetric,
    "multi": MultiLabelMetric,
    "soft": SoftLabelMetric,
}


def load_metric(
    kind: str, num_labels: int, task_name: str | None, metric_name: str | None, cache_dir: str | None
) -> Metric:
    """Return the metric of a run: `metric_name` if given, else the task's, else that of the label kind.

    The names of `CLASS_METRICS` and `SCORE_METRICS` are computed here, see `numbers_of_classes`. `evaluate` loads any
    other name, or the path of a script; that metric is tried once on a small made-up input, so that one that does not
    fit (a metric of two classes for five, say) is refused before the training and not after it.

    Returns:
        A function of the model's outputs `[n, outputs]` and the labels, which gives the numbers by name.

    Raises:
        UsageError: if the metric cannot be loaded, or does not fit the labels.

    Example:
        >>> metric = load_metric("single", 2, None, "recall", None)
        >>> metric(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), np.array([1, 1, 0]))
        {'recall': 0.5}
    """
    if metric_name in (*CLASS_METRICS, *SCORE_METRICS):
        fitting = SCORE_METRICS if kind == "regression" else CLASS_METRICS
        if metric_name not in fitting:
            raise UsageError(
                f"--metric_name {metric_name} does not fit labels of this kind ({kind}); choose one of "
                f"{listed(fitting)}, or leave it out"
            )
        return _squared_error if kind == "regression" else partial(numbers_of_classes, metric_name, kind)
    if metric_name is not None:
        return _tried(_of_module(kind, _from_hub(metric_name, cache_dir)), metric_name, kind, num_labels)
    if task_name is not None:
        return _of_module(kind, GlueMetric(task_name, keep_in_memory=True))
    return _of_module(kind, _METRIC_OF_KIND[kind](keep_in_memory=True))


def _of_module(kind: str, module: evaluate.EvaluationModule) -> Metric:
    def metric(scores: np.ndarray, references: Any) -> dict[str, float]:
        return module.compute(predictions=scores_to_predictions(kind, scores), references=references)

    return metric


def _from_hub(metric_name: str, cache_dir: str | None) -> evaluate.EvaluationModule:
    try:
        # Own experiment id: processes of one run, or of two runs on one machine, must not share a file.
        return evaluate.load(metric_name, keep_in_memory=True, cache_dir=cache_dir, experiment_id=uuid.uuid4().hex)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"--metric_name {cut(metric_name)} could not be loaded: {first_line(error)}; without a network there are "
            f"{listed((*CLASS_METRICS, *SCORE_METRICS))}"
        ) from error


def _tried(metric: Metric, metric_name: str, kind: str, num_labels: int) -> Metric:
    tried = made_up_outputs(kind, num_labels)
    try:
        metric(tried.predictions, tried.label_ids)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"--metric_name {cut(metric_name)} does not fit labels of this kind ({kind}, {num_labels} outputs), leave "
            f"it out or choose another: {first_line(error)}"
        ) from error
    return metric


def numbers_of_classes(name: str, kind: str, scores: np.ndarray, references: Any) -> dict[str, float]:
    """Compute one of `CLASS_METRICS` with scikit-learn.

    - Two classes: `f1`, `precision` and `recall` are those of the second class, `roc_auc` ranks by its probability.
    - More classes: `f1_macro` is the mean over the classes that occur or are predicted, `f1_micro` counts the hits of
      all classes together, likewise for `precision` and `recall`; `roc_auc` is the mean over the classes, each against
      the rest.
    - Lists of classes: as for more classes, where each class is there or not.
    - `accuracy`: for lists of classes `subset_accuracy`, the share of rows with every class right.

    Soft labels count as their likeliest class. What would be divided by 0 is 0. A class has no area under the curve
    where it is in all rows or in no row: it is left out of the mean, which is nan if no class is left.

    Args:
        name: one of `CLASS_METRICS`.
        kind: `single`, `multi` or `soft`.
        scores: logits `[n, classes]`.
        references: class ids `[n]` for `single`; `[n, classes]`, 0 and 1 for `multi`, probabilities for `soft`.

    Example:
        >>> numbers_of_classes("roc_auc", "single", np.array([[0.0, 1.0], [0.0, -1.0]]), np.array([1, 0]))
        {'roc_auc': 1.0}
    """
    scores, references = np.asarray(scores), np.asarray(references)
    if kind == "soft":
        kind, references = "single", references.argmax(axis=1)
    if name == "roc_auc":
        return {"roc_auc": _mean_area(kind, scores, references)}
    predictions, references = scores_to_predictions(kind, scores), references.astype(np.int64)
    if name == "accuracy":
        return {"accuracy" if kind == "single" else "subset_accuracy": float(accuracy_score(references, predictions))}
    averages = {name: "binary"}
    if kind == "multi" or scores.shape[1] > 2:
        averages = {f"{name}_macro": "macro", f"{name}_micro": "micro"}
    share = _SHARES_OF_HITS[name]
    return {
        key: float(share(references, predictions, average=average, zero_division=0.0))
        for key, average in averages.items()
    }


def _mean_area(kind: str, scores: np.ndarray, references: np.ndarray) -> float:
    """The area under the curve of each class that some rows have and some do not, in the mean; nan without any."""
    if kind == "single":
        scores = softmax(scores.astype(np.float64), axis=1)
        references = references[:, None] == np.arange(scores.shape[1])
        if scores.shape[1] == 2:
            scores, references = scores[:, 1:], references[:, 1:]
    areas = [
        roc_auc_score(hits, own)
        for hits, own in zip(references.T, scores.T, strict=True)
        if hits.min() < hits.max() and np.isfinite(own).all()
    ]
    return float(np.mean(areas)) if areas else float("nan")


def _squared_error(scores: np.ndarray, references: Any) -> dict[str, float]:
    return {"mse": float(mean_squared_error(references, scores_to_predictions("regression", scores)))}


def made_up_outputs(kind: str, num_labels: int, joined: bool = True) -> EvalPrediction:
    """Return a few made-up outputs and labels, to learn which numbers a `compute_metrics` reports.

    Args:
        kind: `single`, `regression`, `multi` or `soft`.
        num_labels: the number of the model's outputs.
        joined: whether the batches are joined into one array, or (`--eval_do_concat_batches false`) form a list.
    """
    if kind == "regression":
        scores, references = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 2.5])
    else:
        # A row for each class, but of many classes not a square.
        rows = min(num_labels, _MADE_UP_ROWS)
        scores = 2 * np.eye(rows, num_labels) - 1
        references = np.arange(rows) if kind == "single" else np.eye(rows, num_labels)
    return EvalPrediction(scores, references) if joined else EvalPrediction([scores], [references])


def scores_to_predictions(kind: str, scores: np.ndarray) -> np.ndarray:
    """Turn a model's outputs `[n, outputs]` into what the metric of that kind compares.

    Class ids `[n]` for "single", scores `[n]` for "regression", 0/1 rows for "multi" (1 where the probability is above
    one half, that is where the logit is above 0), the logits themselves for "soft".
    """
    if kind == "single":
        return np.argmax(scores, axis=1)
    if kind == "regression":
        return np.reshape(scores, -1)
    if kind == "multi":
        return (scores > 0).astype(np.int64)
    return scores
