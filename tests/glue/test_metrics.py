"""The offline metrics against numbers worked out by hand and against scikit-learn and SciPy."""

import math
import warnings

import evaluate
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef, precision_score, recall_score, roc_auc_score

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
    scores, references = np.array([[0.0, 1.0], [1.0, 0.0]]), [1, 1]
    assert metrics.load_metric("single", 2, None, "theirs", None)(scores, references) == pytest.approx({"f1": 2 / 3})
    with pytest.raises(UsageError, match="--metric_name theirs does not fit labels of this kind .single, 3 outputs."):
        metrics.load_metric("single", 3, None, "theirs", None)


def test_a_hub_metric_without_a_network_is_one_sentence():
    with pytest.raises(UsageError, match="--metric_name no_such_metric could not be loaded.*accuracy, f1, precision"):
        metrics.load_metric("single", 2, None, "no_such_metric", None)


def test_which_metric_a_run_gets():
    second = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert metrics.load_metric("single", 2, "mrpc", None, None)(second, [1, 0]) == pytest.approx(
        {"accuracy": 0.5, "f1": 2 / 3}
    )
    assert metrics.load_metric("single", 2, "mrpc", "recall", None)(second, [1, 0]) == {"recall": 1.0}
    soft = metrics.load_metric("soft", 2, None, None, None)(second, [[0.0, 1.0], [1.0, 0.0]])
    assert set(soft) == {"accuracy", "cross_entropy"}


def named(name, kind, scores, references):
    """A named metric, without a network and without warnings."""
    scores = np.asarray(scores, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metrics.load_metric(kind, scores.shape[1], None, name, None)(scores, np.asarray(references))


def no_network(*args, **kwargs):
    raise AssertionError("the metric was loaded by evaluate")


SHARES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_named_metrics_of_two_classes_by_hand(monkeypatch):
    monkeypatch.setattr(evaluate, "load", no_network)
    scores = [[-0.5, 0.5] if prediction else [0.5, -0.5] for prediction in PREDICTIONS]
    assert named("accuracy", "single", scores, REFERENCES) == {"accuracy": ACCURACY}
    assert named("f1", "single", scores, REFERENCES) == pytest.approx({"f1": F1})
    assert named("precision", "single", scores, REFERENCES) == pytest.approx({"precision": 3 / 4})
    assert named("recall", "single", scores, REFERENCES) == pytest.approx({"recall": 3 / 5})
    # Of the 2 * 2 pairs of a row of each class, the second class has more in three, and as much in one.
    scores = [[0.0, 3.0], [0.0, -1.0], [0.0, -1.0], [1.0, -4.0]]
    assert named("roc_auc", "single", scores, [1, 1, 0, 0]) == {"roc_auc": 3.5 / 4}


@pytest.mark.parametrize("classes", [3, 7])
@pytest.mark.parametrize("kind", ["single", "soft"])
def test_named_metrics_of_more_classes_are_scikit_learns(rng, classes, kind):
    scores = rng.normal(size=(60, classes)) * 2
    references = np.concatenate([np.arange(classes), rng.integers(0, classes, 60 - classes)])
    predictions, labels = scores.argmax(axis=1), references
    if kind == "soft":
        labels = rng.dirichlet(np.ones(classes), 60)
        references = labels.argmax(axis=1)
    for name, share in SHARES.items():
        expected = {
            f"{name}_{average}": share(references, predictions, average=average) for average in ("macro", "micro")
        }
        assert named(name, kind, scores, labels) == pytest.approx(expected)
    assert named("accuracy", kind, scores, labels) == {"accuracy": np.mean(references == predictions)}
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = roc_auc_score(references, probabilities, multi_class="ovr", average="macro")
    assert named("roc_auc", kind, scores, labels) == pytest.approx({"roc_auc": expected}, abs=1e-6)


def test_named_metrics_of_soft_labels_of_two_classes():
    scores, labels = [[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]], [[0.3, 0.7], [0.9, 0.1], [0.4, 0.6]]
    # Classes 1, 0, 1; predicted 1, 1, 0.
    for name in SHARES:
        assert named(name, "soft", scores, labels) == {name: 0.5}
    assert named("roc_auc", "soft", scores, labels) == {"roc_auc": 0.0}
    assert named("accuracy", "soft", scores, labels) == pytest.approx({"accuracy": 1 / 3})


def test_named_metrics_of_lists_of_classes_are_scikit_learns(rng):
    scores, references = rng.normal(size=(40, 4)), rng.integers(0, 2, (40, 4))
    predictions = (scores > 0).astype(int)
    for name, share in SHARES.items():
        expected = {
            f"{name}_{average}": share(references, predictions, average=average) for average in ("macro", "micro")
        }
        assert named(name, "multi", scores, references.astype(float)) == pytest.approx(expected)
    expected = roc_auc_score(references, scores, average="macro")
    assert named("roc_auc", "multi", scores, references.astype(float)) == pytest.approx({"roc_auc": expected})
    hits = np.mean((predictions == references).all(axis=1))
    assert named("accuracy", "multi", scores, references) == {"subset_accuracy": hits}


def test_a_class_of_one_value_has_no_area():
    # Class 0 is in all rows and class 1 in no row; class 2 ranks one of two pairs right.
    scores, references = [[1.0, 0.5, 0.4], [0.3, 0.1, 0.5], [0.0, 0.0, 0.3]], [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert named("roc_auc", "multi", scores, references) == {"roc_auc": 0.5}
    # Class 2 does not occur. Class 0 ranks its row above both others, class 1 one of its two rows above the other.
    scores = [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, -1.0, 3.0]]
    assert named("roc_auc", "single", scores, [0, 1, 1]) == {"roc_auc": (1.0 + 0.5) / 2}
    for kind, references in (("single", [1, 1, 1]), ("multi", [[1, 0, 1]] * 3)):
        assert math.isnan(named("roc_auc", kind, scores, references)["roc_auc"])


def test_what_is_divided_by_0_is_0():
    scores = [[1.0, 0.0], [1.0, 0.0]]
    for name in SHARES:
        assert named(name, "single", scores, [0, 0]) == {name: 0.0}
        # No row of class 2 and none predicted as that: of lists a class that counts 0, of single classes none.
        three = [[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]]
        assert named(name, "multi", three, [[1, 0, 0], [0, 1, 0]]) == pytest.approx(
            {f"{name}_macro": 2 / 3, f"{name}_micro": 1.0}
        )
        assert named(name, "single", three, [0, 1]) == {f"{name}_macro": 1.0, f"{name}_micro": 1.0}


def test_mse():
    assert named("mse", "regression", [[1.0], [2.0], [4.0]], [1.0, 0.0, 3.0]) == pytest.approx({"mse": 5 / 3})


@pytest.mark.parametrize("name", metrics.CLASS_METRICS)
def test_a_metric_of_classes_has_no_meaning_for_scores(name):
    with pytest.raises(UsageError, match=f"--metric_name {name} does not fit .*regression.; choose one of mse, or"):
        metrics.load_metric("regression", 1, "stsb", name, None)


@pytest.mark.parametrize("kind", ["single", "multi", "soft"])
def test_mse_has_no_meaning_for_classes(kind):
    sentence = f"mse does not fit .*{kind}.; choose one of accuracy, f1, precision, recall, roc_auc, or leave it out"
    with pytest.raises(UsageError, match=sentence):
        metrics.load_metric(kind, 3, None, "mse", None)


@pytest.mark.parametrize("outputs", [2, 3, 3_000])
@pytest.mark.parametrize("kind", ["single", "multi", "soft"])
def test_made_up_outputs_have_every_number_that_a_run_reports(rng, kind, outputs):
    made_up = metrics.made_up_outputs(kind, outputs)
    real = rng.normal(size=(50, outputs))
    labels = rng.integers(0, 2, (50, outputs)) if kind != "single" else rng.integers(0, outputs, 50)
    for name in metrics.CLASS_METRICS:
        tried = named(name, kind, made_up.predictions, made_up.label_ids)
        assert np.isfinite(list(tried.values())).all()
        if outputs < 1000:
            assert set(tried) == set(named(name, kind, real, labels))
