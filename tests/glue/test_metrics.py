"""The offline metrics against numbers worked out by hand and against scikit-learn and SciPy."""

import math

import evaluate
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef

from hf_mixup.errors import UsageError
from hf_mixup.glue import metrics
from hf_mixup.glue.tasks import TASKS

PREDICTIONS = [1, 0, 1, 1, 0, 1, 0, 0]
REFERENCES = [1, 0, 0, 1, 1, 1, 0, 1]
# By hand: 3 true positives, 1 false positive, 2 false negatives, 2 true negatives.
ACCURACY = 5 / 8
F1 = 2 * 3 / (2 * 3 + 1 + 2)
MATTHEWS = (3 * 2 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (2 + 1) * (2 + 2))


def compute(metric, predictions, references):
    return metric(keep_in_memory=True).compute(predictions=predictions, references=references)


@pytest.mark.parametrize("task", TASKS)
def test_glue_keys_and_values(task):
    metric = metrics.GlueMetric(task, keep_in_memory=True)
    assert isinstance(metric, evaluate.Metric)
    if task == "stsb":
        # Ranks 1 2 3 4 against 1 3 2 4: rho = 1 - 6 * 2 / (4 * 15).
        result = metric.compute(predictions=[0.0, 1.0, 2.0, 5.0], references=[0.5, 3.0, 2.5, 4.0])
        assert result["spearmanr"] == pytest.approx(0.8)
        assert result["pearson"] == pytest.approx(np.corrcoef([0, 1, 2, 5], [0.5, 3, 2.5, 4])[0, 1], abs=1e-6)
        assert set(result) == {"pearson", "spearmanr"}
        return
    result = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    expected = {"accuracy": ACCURACY}
    if task == "cola":
        expected = {"matthews_correlation": MATTHEWS}
    elif task in ("mrpc", "qqp"):
        expected["f1"] = F1
    assert result == pytest.approx(expected)


def test_glue_metric_can_be_used_again_and_takes_arrays():
    metric = metrics.GlueMetric("cola", keep_in_memory=True)
    rng = np.random.default_rng(0)
    for _ in range(3):
        predictions, references = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
        result = metric.compute(predictions=predictions, references=references)
        assert result["matthews_correlation"] == pytest.approx(matthews_corrcoef(references, predictions))


def test_unknown_glue_task():
    with pytest.raises(UsageError, match="no GLUE metric 'snli'"):
        metrics.GlueMetric("snli")


def test_classification():
    # Class 0: P 1/2, R 1 -> 2/3. Class 1: P 1, R 1/2 -> 2/3. Class 2: 1. Class 3 is predicted only: 0.
    result = compute(metrics.ClassificationMetric, [0, 0, 1, 2, 3, 2], [0, 1, 1, 2, 2, 2])
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 4 / 5 + 0) / 4)


def test_regression():
    rng = np.random.default_rng(1)
    predictions, references = rng.normal(size=40), rng.normal(size=40)
    result = compute(metrics.RegressionMetric, predictions, references)
    assert result["pearson"] == pytest.approx(pearsonr(predictions, references)[0], abs=1e-6)
    assert result["spearmanr"] == pytest.approx(spearmanr(predictions, references)[0])
    assert result["mse"] == pytest.approx(np.mean((predictions - references) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    "predictions, references", [([1.0], [2.0]), ([1.0, 1.0], [0.0, 2.0]), ([0.0, 1.0], [3.0, 3.0])]
)
def test_a_correlation_that_does_not_exist_is_nan(predictions, references):
    result = compute(metrics.RegressionMetric, predictions, references)
    assert math.isnan(result["pearson"]) and math.isnan(result["spearmanr"])
    assert result["mse"] == pytest.approx(np.mean((np.array(predictions) - references) ** 2))


def test_multi_label():
    predictions = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]]
    references = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    result = compute(metrics.MultiLabelMetric, predictions, references)
    # 3 hits, 1 false, 1 missed; class F1s 1, 1/2 and (never there) 0; rows 1 and 4 are all right.
    assert result == pytest.approx({"f1_micro": 6 / 8, "f1_macro": 0.5, "subset_accuracy": 0.5})
    rng = np.random.default_rng(2)
    predictions, references = rng.integers(0, 2, (30, 4)), rng.integers(0, 2, (30, 4))
    result = compute(metrics.MultiLabelMetric, predictions, references)
    assert result["f1_macro"] == pytest.approx(f1_score(references, predictions, average="macro"))


def test_soft_labels():
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]])
    result = compute(metrics.SoftLabelMetric, logits, [[0.5, 0.5, 0.0], [0.1, 0.1, 0.8]])
    first = 0.5 * math.log(0.7) + 0.5 * math.log(0.2)
    second = 0.1 * math.log(0.25) + 0.1 * math.log(0.5) + 0.8 * math.log(0.25)
    by_hand = -(first + second) / 2
    assert result["accuracy"] == 0.5
    assert result["cross_entropy"] == pytest.approx(by_hand, rel=1e-5)


def test_soft_labels_that_are_certain_give_the_log_loss():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(20, 4)), rng.integers(0, 4, 20)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    result = compute(metrics.SoftLabelMetric, logits, np.eye(4)[labels])
    assert result["cross_entropy"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)


def test_scores_to_predictions():
    scores = np.array([[0.2, -1.0, 3.0], [-0.1, -0.5, -0.2]])
    assert metrics.scores_to_predictions("single", scores).tolist() == [2, 0]
    assert metrics.scores_to_predictions("multi", scores).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert metrics.scores_to_predictions("regression", np.array([[1.5]])).tolist() == [1.5]
    assert metrics.scores_to_predictions("soft", scores) is scores


class BinaryOnly(evaluate.Metric):
    """Stands for a metric of the Hub that refuses more than two classes."""

    def _info(self):
        return metrics.ClassificationMetric._info(self)

    def _compute(self, predictions, references):
        return {"f1": float(f1_score(references, predictions))}


def test_a_hub_metric_is_tried_before_the_training(monkeypatch):
    monkeypatch.setattr(evaluate, "load", lambda name, **options: BinaryOnly(keep_in_memory=True))
    assert metrics.load_metric("single", 2, None, "f1", None).compute(
        predictions=[1, 0], references=[1, 1]
    ) == pytest.approx({"f1": 2 / 3})
    with pytest.raises(UsageError, match="--metric_name f1 does not fit labels of this kind .single, 3 outputs."):
        metrics.load_metric("single", 3, None, "f1", None)


def test_a_hub_metric_without_a_network_is_one_sentence():
    with pytest.raises(UsageError, match="--metric_name no_such_metric could not be loaded"):
        metrics.load_metric("single", 2, None, "no_such_metric", None)


def test_which_metric_a_run_gets():
    assert isinstance(metrics.load_metric("single", 2, "mrpc", None, None), metrics.GlueMetric)
    assert isinstance(metrics.load_metric("soft", 2, None, None, None), metrics.SoftLabelMetric)
