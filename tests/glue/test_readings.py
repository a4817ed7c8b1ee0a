"""The flags about labels: several classes in a row, rows without a label, classes of other files, scores, weights."""

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertConfig

from hf_mixup.errors import UsageError
from hf_mixup.glue.cells import Reading, row_weights
from hf_mixup.glue.labels import infer_labels, labelled_rows, labels_of_model
from hf_mixup.glue.loading import Split
from hf_mixup.glue.tasks import get_task
from tests.data_files import split_of

LABEL = ("label",)
TOXIC = ("toxic", "insult", "threat")


def rows(*labels, kind="csv"):
    return split_of({"text": ["x"] * len(labels), "label": list(labels)}, f"train.{kind}", kind)


def hub(labels, feature):
    data = Dataset.from_dict({"label": labels}, Features({"label": feature}))
    return Split(data, "hub", "hub", range(1, len(labels) + 1))


@pytest.mark.parametrize(
    ("kind", "one", "none"),
    [("csv", "1", "0"), ("csv", "1.0", "0.0"), ("csv", "True", "False"), ("json", 1, 0), ("json", True, False)],
)
def test_a_column_of_0_and_1_for_each_class(kind, one, none):
    columns = dict(zip(TOXIC, ([one, none, none], [one, none, one], [none, none, none]), strict=True))
    split = split_of(columns, kind=kind)
    labels = infer_labels(split, TOXIC, None)
    assert (labels.kind, labels.names, labels.problem_type) == ("multi", TOXIC, "multi_label_classification")
    assert labels.encode(split) == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert labels.decode([1, 0, 1]) == '["toxic", "threat"]'
    ordered = labels.ordered_as({0: "threat", 1: "toxic", 2: "insult"})
    assert ordered.encode(split) == [[0, 1, 1], [0, 0, 0], [0, 0, 1]]
    ids = dict(enumerate(reversed(TOXIC)))
    config = BertConfig(
        architectures=["BertForSequenceClassification"], id2label=ids, problem_type="multi_label_classification"
    )
    assert labels_of_model(config, TOXIC, None).encode(split) == [[0, 1, 1], [0, 0, 0], [0, 1, 0]]


def test_columns_of_which_one_is_1_in_each_row_are_probabilities():
    split = split_of({"a": ["1", "0"], "b": ["0", "1"]}, kind="csv")
    assert infer_labels(split, ("a", "b"), None).kind == "soft"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("2", "row 2: the label 2 in column 'insult' should be 0 or 1"),
        ("", "row 2 has no label in column 'insult'.*--drop_unlabelled"),
        ("-1", "row 2: the label -1 stands for 'unlabelled'.*--drop_unlabelled, or .*--extra_labels=-1"),
    ],
)
def test_a_column_for_each_class_holds_0_and_1_alone(value, sentence):
    train = split_of({"toxic": ["1", "0"], "insult": ["1", "0"], "threat": ["0", "0"]}, kind="csv")
    labels = infer_labels(train, TOXIC, None)
    wrong = split_of({"toxic": ["1", "0"], "insult": ["1", value], "threat": ["0", "0"]}, "v.csv", "csv")
    with pytest.raises(UsageError, match=sentence):
        labels.encode(wrong)


@pytest.mark.parametrize(
    "labels",
    [[[0, 1, 1], [0, 0, 0]], [[False, True, True], [False] * 3], [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]],
)
def test_lists_of_0_and_1(labels):
    for split in (rows(*labels, kind="json"), rows(*map(str, labels))):
        found = infer_labels(split, LABEL, None)
        assert (found.kind, found.names) == ("multi", ("LABEL_0", "LABEL_1", "LABEL_2"))
        assert found.encode(split) == [[0, 1, 1], [0, 0, 0]]
    config = BertConfig(
        architectures=["BertForSequenceClassification"],
        id2label={0: "a", 1: "b", 2: "c"},
        problem_type="multi_label_classification",
    )
    assert labels_of_model(config, LABEL, None).encode(split) == [[0, 1, 1], [0, 0, 0]]


def test_lists_of_two_in_which_each_row_has_a_0_and_a_1_are_no_classes():
    split = rows([0, 1], [1, 0], kind="json")
    assert infer_labels(split, LABEL, None).encode(split) == [[0, 1], [1, 0]]
    # Of different lengths they name the classes of the row.
    split = rows([0, 1], [1], kind="json")
    labels = infer_labels(split, LABEL, None)
    assert labels.encode(split) == [[1, 1], [0, 1]]
    # So they do in a file that has rows of one length alone, by itself or row by row.
    assert labels.encode(rows([0, 1], [0, 1], kind="json")) == [[1, 1], [1, 1]]
    divided = infer_labels(rows("0|1", "1", "0"), LABEL, None, Reading("|"))
    assert divided.encode(rows("0|1")) == [[1, 1]]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_delimiter_divides_classes(kind):
    split = rows("red|round", "round", " blue | red ", kind=kind)
    labels = infer_labels(split, LABEL, None, Reading(delimiter="|"))
    assert (labels.kind, labels.names) == ("multi", ("blue", "red", "round"))
    assert labels.encode(split) == [[0, 1, 1], [0, 0, 1], [1, 1, 0]]
    numbers = rows("10, 9", "9", "1")
    assert infer_labels(numbers, LABEL, None, Reading(delimiter=",")).names == ("1", "9", "10")


@pytest.mark.parametrize(
    ("split", "columns", "sentence"),
    [
        (rows("a|", "b"), LABEL, r"row 1: the label 'a\|' has nothing on one side of '\|'"),
        (rows("a|a", "b"), LABEL, "row 1: the list of labels has 'a' twice"),
        (rows("a", ""), LABEL, "row 2 has no label"),
        (rows(["a"], ["b"], kind="json"), LABEL, "is no text that --label_delimiter can divide"),
        (split_of({"a": ["1"], "b": ["1"]}, kind="csv"), ("a", "b"), "--label_delimiter divides .* leave it out"),
        (hub([0, 1], ClassLabel(names=["a", "b"])), LABEL, "--label_delimiter divides .* leave it out"),
    ],
)
def test_what_a_delimiter_cannot_divide(split, columns, sentence):
    with pytest.raises(UsageError, match=sentence):
        infer_labels(split, columns, None, Reading(delimiter="|")).encode(split)


@pytest.mark.parametrize(
    ("split", "extra", "names", "encoded"),
    [
        (rows("b", "d"), ("c", "a", "b"), ("a", "b", "c", "d"), [1, 3]),
        (rows("9", "-1", "10"), ("-1", "11"), ("-1", "9", "10", "11"), [1, 0, 2]),
        (rows(1, -1, kind="json"), ("-1",), ("-1", "1"), [1, 0]),
        (rows(["b"], ["c"], kind="json"), ("a",), ("a", "b", "c"), [[0, 1, 0], [0, 0, 1]]),
        (hub([1, -1, 0], ClassLabel(names=["no", "yes"])), ("-1", "maybe"), ("no", "yes", "-1", "maybe"), [1, 2, 0]),
    ],
)
def test_classes_that_the_train_rows_need_not_have(split, extra, names, encoded):
    labels = infer_labels(split, LABEL, None, Reading(extra=extra))
    assert labels.names == names and labels.encode(split) == encoded


def test_a_class_of_the_validation_file_alone():
    labels = infer_labels(rows("a", "b"), LABEL, None, Reading(extra=("c",)))
    assert labels.encode(rows("c", "a")) == [2, 0]


@pytest.mark.parametrize(
    ("split", "columns", "task", "sentence"),
    [
        (rows("0.5", "1"), LABEL, None, "adds classes to those of one column, and here are scores"),
        (rows("0", "1"), LABEL, "mrpc", "and here are the labels of task mrpc"),
        (split_of({"a": ["1"], "b": ["0"]}, kind="csv"), ("a", "b"), None, "and here are the label columns"),
        (rows("0", "1"), LABEL, None, "--extra_labels c should be written like the labels of train.csv, such as 0"),
        (rows([0, 1, 1], [0, 0, 1], kind="json"), LABEL, None, "lists of 0 and 1 have none"),
    ],
)
def test_extra_classes_that_cannot_be(split, columns, task, sentence):
    with pytest.raises(UsageError, match=sentence):
        infer_labels(split, columns, task and get_task(task), Reading(extra=("c",)))
    with pytest.raises(UsageError, match="adds classes to those of the train rows"):
        labels_of_model(BertConfig(), LABEL, None, Reading(extra=("c",)))


@pytest.mark.parametrize(
    ("split", "columns", "task", "reading", "kept"),
    [
        (rows("a", "", None, "-1", " ", "b"), LABEL, None, Reading(), [0, 5]),
        (rows("1", "NA", "0", "-1"), LABEL, None, Reading(), [0, 2]),
        # Where labels are names, NA may be one of them.
        (rows("good", "NA"), LABEL, None, Reading(), [0, 1]),
        (rows(1, None, -1, 0, kind="json"), LABEL, None, Reading(), [0, 3]),
        (rows("0.5", "-1", "", "nan"), LABEL, None, Reading(), [0, 1]),
        (rows("4", "-1", ""), LABEL, None, Reading(is_regression=True), [0, 1]),
        (rows("4.5", "-1", ""), LABEL, "stsb", Reading(), [0]),
        (rows("1.0", "-1.0", ""), LABEL, None, Reading(is_regression=False), [0]),
        (rows("a", "-1", ""), LABEL, None, Reading(extra=("-1",)), [0, 1]),
        (
            split_of({"a": ["1", "-1", "0", ""], "b": ["0", "1", "0", "1"]}, kind="csv"),
            ("a", "b"),
            None,
            Reading(),
            [0, 2],
        ),
        (
            split_of({"a": ["0.5", "-1", "1.0"], "b": ["0.5", "-1", "0.0"]}, kind="csv"),
            ("a", "b"),
            None,
            Reading(),
            [0, 2],
        ),
        (rows([1, 2], [-1], [], -1, None, kind="json"), LABEL, None, Reading(), [0, 2]),
        (rows("[1, 2]", "[-1]", "[]"), LABEL, None, Reading(), [0, 2]),
        (rows("1|2", "-1", "2"), LABEL, None, Reading("|"), [0, 2]),
        (rows("-1", "-1"), LABEL, None, Reading(is_regression=True), []),
        (hub([0, -1, None, 1], ClassLabel(names=["a", "b"])), LABEL, "mrpc", Reading(), [0, 3]),
        (hub([0.5, -1.0], Value("float32")), LABEL, "stsb", Reading(), [0]),
    ],
)
def test_rows_with_a_label(split, columns, task, reading, kept):
    assert labelled_rows(split, columns, task and get_task(task), reading).tolist() == kept


def test_known_labels_tell_what_minus_one_is():
    # Whole numbers alone, which by themselves would be classes.
    other = rows("2", "-1", "", "0")
    scores = infer_labels(rows("1.5", "2.0", "-1.0"), LABEL, None)
    assert labelled_rows(other, LABEL, None, labels=scores).tolist() == [0, 1, 3]
    config = BertConfig(architectures=["BertForSequenceClassification"], id2label={0: "-1", 1: "0", 2: "2"})
    classes = labels_of_model(config, LABEL, None)
    assert labelled_rows(other, LABEL, None, labels=classes).tolist() == [0, 1, 3]
    assert labelled_rows(
        rows("2.0", "-1.0"), LABEL, None, labels=infer_labels(rows("2", "0"), LABEL, None)
    ).tolist() == [0]


@pytest.mark.parametrize(
    ("split", "reading"),
    [
        (rows([1, 2], [-1], kind="json"), Reading()),
        (rows("[1, 2]", "[-1]"), Reading()),
        (rows("1|2", "-1"), Reading("|")),
    ],
)
def test_minus_one_in_a_list_is_no_class_either(split, reading):
    with pytest.raises(UsageError, match="row 2: the label -1 stands for 'unlabelled'"):
        infer_labels(split, LABEL, None, reading)
    with_it = infer_labels(split, LABEL, None, Reading(reading.delimiter, extra=("-1",)))
    assert with_it.names == ("-1", "1", "2") and with_it.encode(split) == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("options", "reading", "sentence"),
    [
        ({}, Reading(is_regression=True), "--do_regression true does not go with the labels of the model"),
        ({}, Reading("|"), "--label_delimiter divides the texts of one label column into classes; leave it out"),
        ({"problem_type": "regression"}, Reading(is_regression=False), "--do_regression false does not go with"),
    ],
)
def test_flags_that_do_not_go_with_a_trained_model(options, reading, sentence):
    config = BertConfig(architectures=["BertForSequenceClassification"], id2label={0: "a", 1: "b"}, **options)
    with pytest.raises(UsageError, match=sentence):
        labels_of_model(config, LABEL, None, reading)


def test_a_flag_that_a_trained_model_needs_is_named():
    config = BertConfig(
        architectures=["BertForSequenceClassification"],
        id2label={0: "a", 1: "b"},
        problem_type="multi_label_classification",
    )
    split = rows("a|b", "b")
    with pytest.raises(
        UsageError, match="row 1: the label 'a.b' should be a list .*, or a text that --label_delimiter"
    ):
        labels_of_model(config, LABEL, None).encode(split)
    assert labels_of_model(config, LABEL, None, Reading("|")).encode(split) == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("split", "reading", "kind", "encoded"),
    [
        (rows("1", "5", "3"), Reading(is_regression=True), "regression", [1.0, 5.0, 3.0]),
        (rows(1, 5, kind="json"), Reading(is_regression=True), "regression", [1.0, 5.0]),
        (rows("1", "2.5", kind="json"), Reading(is_regression=True), "regression", [1.0, 2.5]),
        (rows("1", 2, kind="json"), Reading(is_regression=True), "regression", [1.0, 2.0]),
        (rows("1.0", "5.0", "1"), Reading(is_regression=False), "single", [0, 1, 0]),
        (rows(1.0, 5, kind="json"), Reading(is_regression=False), "single", [0, 1]),
        (rows("1", "5"), Reading(), "single", [0, 1]),
        (rows("4", "5"), Reading(is_regression=False), "single", [0, 1]),
    ],
)
def test_scores_or_classes_as_the_user_says(split, reading, kind, encoded):
    labels = infer_labels(split, LABEL, None, reading)
    assert labels.kind == kind and labels.encode(split) == encoded


@pytest.mark.parametrize(
    ("split", "task", "is_regression", "sentence"),
    [
        (rows("1", "x"), None, True, "row 2: the label 'x' should be a number for --do_regression true"),
        (rows(1, True, kind="json"), None, True, "row 2: the label True should be a number for --do_regression true"),
        (rows("1.5", "2"), None, False, "has the label 1.5, which should be a name or a whole number"),
        (rows("1", "0"), "mrpc", True, "--do_regression true does not go with the labels of task mrpc"),
        (rows("1", "0"), "stsb", False, "--do_regression false does not go with the labels of task stsb"),
    ],
)
def test_scores_or_classes_that_cannot_be(split, task, is_regression, sentence):
    with pytest.raises(UsageError, match=sentence):
        infer_labels(split, LABEL, task and get_task(task), Reading(is_regression=is_regression))


def test_weights_of_rows():
    split = split_of({"w": ["1", "0.5", "0", "1"]}, kind="csv")
    assert row_weights(split, "w").tolist() == [1, 0.5, 0, 1] and row_weights(split, "w").dtype == np.float32
    assert row_weights(split_of({"w": [2, 0.25]}), "w").tolist() == [2, 0.25]
    for wrong in ("-1", "", "nan", "inf", "x"):
        with pytest.raises(UsageError, match=r"row 2: the weight .* in column 'w' should be a finite number"):
            row_weights(split_of({"w": ["1", wrong]}, kind="csv"), "w")
    with pytest.raises(UsageError, match="train.csv has the weight 0 in column 'w' in all rows to train on"):
        row_weights(split_of({"w": ["0", "0.0"]}, "train.csv", "csv"), "w")
    with pytest.raises(UsageError, match="no weight column 'v'.*--weight_column_name"):
        row_weights(split_of({"w": [1.0], "text": ["a"]}), "v")


def test_many_rows_share_what_equal_labels_become():
    split = rows(*(f"['{'ab'[n % 2]}']" for n in range(1000)))
    encoded = infer_labels(split, LABEL, None).encode(split)
    assert len({id(row) for row in encoded}) == 2
    assert pd.DataFrame(encoded).sum().tolist() == [500, 500]
