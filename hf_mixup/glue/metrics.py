"""Metrics as `evaluate` modules that are part of this library, so that no run needs the network for them.

They have the interface of any module that `evaluate.load` returns: `metric.compute(predictions=..., references=...)`.
`GlueMetric` has the keys that `run_glue.py` reports for the nine GLUE tasks, the others are for files without a task.
"""

from __future__ import annotations

import uuid
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_squared_error
from transformers import EvalPrediction

from hf_mixup.errors import UsageError, first_line
from hf_mixup.glue.tasks import TASKS

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
) -> evaluate.EvaluationModule:
    """Return the metric of a run: `metric_name` from the Hub if given, else the task's, else that of the label kind.

    A Hub metric is tried once on a small made-up input, so that one that does not fit (binary F1 for five classes,
    say) is refused before the training and not after it.

    Raises:
        UsageError: if the Hub metric cannot be loaded, or does not fit the labels.
    """
    if metric_name is None:
        if task_name is not None:
            return GlueMetric(task_name, keep_in_memory=True)
        return _METRIC_OF_KIND[kind](keep_in_memory=True)
    try:
        # Own experiment id: processes of one run, or of two runs on one machine, must not share a file.
        metric = evaluate.load(metric_name, keep_in_memory=True, cache_dir=cache_dir, experiment_id=uuid.uuid4().hex)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--metric_name {metric_name} could not be loaded: {first_line(error)}") from error
    tried = made_up_outputs(kind, num_labels)
    try:
        metric.compute(predictions=scores_to_predictions(kind, tried.predictions), references=tried.label_ids)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"--metric_name {metric_name} does not fit labels of this kind ({kind}, {num_labels} outputs), leave it "
            f"out or choose another: {first_line(error)}"
        ) from error
    return metric


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
