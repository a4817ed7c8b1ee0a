"""Kinds of labels, their classes and numbers, and the sentences about wrong ones."""

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from transformers import BertConfig

from hf_mixup.errors import UsageError
from hf_mixup.glue.labels import infer_labels, labels_of_model
from hf_mixup.glue.loading import Split
from hf_mixup.glue.tasks import get_task
from tests.data_files import split_of

LABEL = ("label",)


def csv(*labels, source="train.csv"):
    return split_of({"sentence": ["x"] * len(labels), "label": labels}, source, "csv")


def json_split(*labels, source="train.json"):
    return split_of({"sentence": ["x"] * len(labels), "label": labels}, source)


def hub(labels, feature):
    data = Dataset.from_dict({"label": labels}, Features({"label": feature}))
    return Split(data, "hub, split train", "hub", range(1, len(labels) + 1))


def soft(kind="json", **columns):
    return split_of(columns, "train.csv", kind)


@pytest.mark.parametrize(
    ("split", "kind", "names", "encoded"),
    [
        (csv("b", "a", "b"), "single", ("a", "b"), [1, 0, 1]),
        (csv("10", "9", " 9"), "single", ("9", "10"), [1, 0, 0]),
        (csv("007", "x"), "single", ("007", "x"), [0, 1]),
        (csv("None", "good"), "single", ("None", "good"), [0, 1]),
        (csv("True", "False"), "single", ("False", "True"), [1, 0]),
        (csv("5.000", "3.8", "4"), "regression", (), [5.0, 3.8, 4.0]),
        (csv("['a', 'b']", "[]", '["c"]'), "multi", ("a", "b", "c"), [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        (csv("[0, 2]", "[1]"), "multi", ("0", "1", "2"), [[1, 0, 1], [0, 1, 0]]),
        (json_split(1, 0, 5), "single", ("0", "1", "5"), [1, 0, 2]),
        (json_split("10", "9"), "single", ("10", "9"), [0, 1]),
        (json_split(True, False), "single", ("False", "True"), [1, 0]),
        (json_split(1, 2.5), "regression", (), [1.0, 2.5]),
        (json_split(["a"], [], ["b", "a"]), "multi", ("a", "b"), [[1, 0], [0, 0], [1, 1]]),
        (hub([1, 0], ClassLabel(names=["no", "yes", "maybe"])), "single", ("no", "yes", "maybe"), [1, 0]),
        (
            hub([[2], []], Sequence(ClassLabel(names=["x", "y", "z"]))),
            "multi",
            ("x", "y", "z"),
            [[0, 0, 1], [0, 0, 0]],
        ),
        (hub([0.5, 2.0], Value("float32")), "regression", (), [0.5, 2.0]),
    ],
)
def test_kinds_classes_and_numbers(split, kind, names, encoded):
    labels = infer_labels(split, LABEL, None)
    assert (labels.kind, labels.names) == (kind, names)
    assert labels.encode(split) == encoded
    assert labels.num_labels == max(1, len(names))
    assert all(type(value) in (int, float, list) for value in labels.encode(split))


def test_soft_labels_are_made_to_sum_to_one():
    split = soft("csv", p_neg=["0.333", "1"], p_neu=["0.333", "0"], p_pos=["0.333", "0.0"])
    labels = infer_labels(split, ("p_neg", "p_neu", "p_pos"), None)
    assert (labels.kind, labels.names, labels.problem_type) == (
        "soft",
        ("p_neg", "p_neu", "p_pos"),
        "single_label_classification",
    )
    assert labels.encode(split) == [pytest.approx([1 / 3, 1 / 3, 1 / 3]), [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("values", [("1", "0", "1"), ("equivalent", "not_equivalent", "equivalent")])
def test_a_task_takes_its_ids_and_its_names(values):
    labels = infer_labels(csv(*values), LABEL, get_task("mrpc"))
    assert labels.names == ("not_equivalent", "equivalent")
    assert labels.encode(csv(*values)) == [1, 0, 1]


def test_the_regression_task_reads_whole_numbers_as_scores():
    labels = infer_labels(csv("4", "5"), LABEL, get_task("stsb"))
    assert (labels.kind, labels.problem_type, labels.encode(csv("4", "5"))) == ("regression", "regression", [4.0, 5.0])


def test_columns_of_another_type_in_the_validation_file():
    assert infer_labels(csv("0.5", "2"), LABEL, None).encode(csv("1", "2")) == [1.0, 2.0]
    assert infer_labels(csv("1", "x"), LABEL, None).encode(csv("1", "1")) == [0, 0]


def test_the_order_of_a_trained_model_is_kept():
    labels = infer_labels(csv("0", "1"), LABEL, get_task("sst2")).ordered_as({0: "POSITIVE", 1: "NEGATIVE"})
    assert labels.names == ("positive", "negative")
    assert labels.encode(csv("0", "1")) == [1, 0] and labels.encode(csv("positive", "negative")) == [0, 1]
    assert labels.decode(0) == "positive"
    assert labels.ordered_as({0: "LABEL_0", 1: "LABEL_1"}) is labels
    columns = {"a": [0.9, 0.2], "b": [0.1, 0.8]}
    swapped = infer_labels(soft(**columns), ("a", "b"), None).ordered_as({0: "b", 1: "a"})
    assert swapped.encode(soft(**columns)) == [pytest.approx([0.1, 0.9]), pytest.approx([0.8, 0.2])]


def trained_config(**options):
    return BertConfig(architectures=["BertForSequenceClassification"], **options)


def test_labels_of_a_trained_model():
    config = trained_config(id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    assert labels_of_model(config, LABEL, None).encode(csv("good", "bad")) == [1, 0]
    assert labels_of_model(config, LABEL, None).encode(csv("1", "0")) == [1, 0]
    assert labels_of_model(trained_config(num_labels=1), LABEL, None).kind == "regression"
    multi = trained_config(num_labels=3, problem_type="multi_label_classification")
    assert labels_of_model(multi, LABEL, None).encode(json_split([0, 2])) == [[1, 0, 1]]
    config = trained_config(id2label={0: "b", 1: "a"}, label2id={"b": 0, "a": 1})
    encoded = labels_of_model(config, ("a", "b"), None).encode(soft(a=[0.75], b=[0.25]))
    assert encoded == [[0.25, 0.75]]
    with pytest.raises(UsageError, match="no trained classifier"):
        labels_of_model(BertConfig(architectures=["BertModel"]), LABEL, None)
    with pytest.raises(UsageError, match="the labels of the model are b, a"):
        labels_of_model(config, ("a", "c"), None)


STARS = ("1", "2", "3", "4", "5")


def model_with(*names, **options):
    """The configuration of a model that was trained with these classes."""
    ids = dict(enumerate(names))
    return trained_config(id2label=ids, label2id={name: index for index, name in ids.items()}, **options)


@pytest.mark.parametrize(
    ("names", "ids"),
    [(STARS, [0, 1, 2, 3, 4]), (("2", "0", "1"), [0, 1, 2, 0]), (("0", "1", "10", "2"), [3, 2]), (("b", "1"), [1, 0])],
)
def test_a_column_of_class_ids_holds_ids_whatever_its_names_are(names, ids):
    """The names 1 to 5 were once looked up as names: the ids 1 to 4 became the classes before, and 0 the first."""
    labels = infer_labels(hub(ids, ClassLabel(names=list(names))), LABEL, None)
    assert labels.names == names
    assert labels.encode(hub(ids, ClassLabel(names=list(names)))) == ids
    assert [labels.decode(index) for index in ids] == [names[index] for index in ids]


def test_lists_of_class_ids_hold_ids_whatever_the_names_are():
    split = hub([[1, 2], [0], []], Sequence(ClassLabel(names=["1", "2", "3"])))
    labels = infer_labels(split, LABEL, None)
    assert labels.encode(split) == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert labels.decode([0, 1, 1]) == '["2", "3"]'
    model = labels_of_model(model_with("3", "2", "1", problem_type="multi_label_classification"), LABEL, None)
    assert model.encode(split) == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_each_split_is_read_by_its_own_class_names():
    labels = infer_labels(hub([0, 1, 2], ClassLabel(names=["bad", "fair", "good"])), LABEL, None)
    assert labels.encode(hub([0, 1], ClassLabel(names=["good", "bad"]))) == [2, 0]
    assert labels.encode(hub([0, 1], ClassLabel(names=["GOOD", "Bad", "fair"]))) == [2, 0]
    assert labels.encode(hub(["good", "bad"], Value("string"))) == [2, 0]
    assert labels.encode(hub([2, 0], Value("int64"))) == [2, 0]
    other = hub([1, 0], ClassLabel(names=["awful", "bad"]))
    with pytest.raises(UsageError, match="row 2: the class 'awful' is not one of the classes of hub, split train"):
        labels.encode(other)
    with pytest.raises(UsageError, match="row 1: the label -1 stands for"):
        labels.encode(hub([-1, 0], ClassLabel(names=["good", "bad"])))
    # A class that no row has is not looked up.
    assert labels.encode(hub([1, 1], ClassLabel(names=["awful", "bad"]))) == [0, 0]


def test_class_ids_go_to_the_classes_of_a_trained_model_by_name():
    names = ClassLabel(names=["neg", "pos"])
    assert labels_of_model(model_with("POS", "NEG"), LABEL, None).encode(hub([0, 1], names)) == [1, 0]
    # The names that transformers makes up say nothing, so ids are ids.
    assert labels_of_model(trained_config(num_labels=2), LABEL, None).encode(hub([0, 1], names)) == [0, 1]
    with pytest.raises(UsageError, match="the class 'neg' is not one of the labels of the model, which are LABEL_0"):
        labels_of_model(trained_config(num_labels=3), LABEL, None).encode(hub([0, 1], names))
    with pytest.raises(UsageError, match="the class 'neg' is not one of the labels of the model, which are no, yes"):
        labels_of_model(model_with("no", "yes"), LABEL, None).encode(hub([0, 1], names))
    stars = hub([0, 4], ClassLabel(names=list(STARS)))
    assert labels_of_model(model_with(*reversed(STARS)), LABEL, None).encode(stars) == [4, 0]


@pytest.mark.parametrize("make", [csv, json_split])
@pytest.mark.parametrize(
    ("names", "values", "encoded"),
    [
        (STARS, (1, 2, 5), [0, 1, 4]),
        (("2", "0", "1"), (0, 1, 2), [1, 2, 0]),
        (("a", "b", "c"), (0, 2), [0, 2]),
        (("a", "b", "c"), ("c", "a"), [2, 0]),
        (("LABEL_0", "LABEL_1"), (1, 0), [1, 0]),
        (("01", "02"), ("01", "02"), [0, 1]),
        (("01", "x"), (1, 1), [0, 0]),
        (("01", "1"), ("1", "01"), [1, 0]),
        (("1.0", "2.0"), ("2.0", "1.0"), [1, 0]),
        (("no", "yes"), (" 1", "+0"), [1, 0]),
    ],
)
def test_a_column_is_read_as_names_or_as_ids_as_a_whole(make, names, values, encoded):
    split = make(*(map(str, values) if make is csv else values))
    assert labels_of_model(model_with(*names), LABEL, None).encode(split) == encoded


@pytest.mark.parametrize("make", [csv, json_split])
@pytest.mark.parametrize(
    ("names", "values", "sentence"),
    [
        (
            STARS,
            (4, 0, 1),
            "row 2: the label '0' is not one of the labels of the model, which are 1, 2, 3, 4, 5 (which are numbers",
        ),
        (("1", "other"), (0, 1), "row 1: the label '0' is not one of"),
        (("1.0", "2.0"), (0, 1), "row 1: the label '0' is not one of"),
        (("1", "+1"), (" 1",), "row 1: the label ' 1' is not one of"),
        (("a", "b"), (0, 2), "row 2: the label '2' is not one of"),
        (("a", "b"), ("0", "a", "b"), "row 1: the label '0' is an id, and the label 'a' of row 2 is a name"),
        (("a", "b"), ("0", "a", "c"), "row 3: the label 'c' is not one of"),
        (("a", "b"), ("A", "b"), "row 1: the label 'A' is not one of"),
        (("1", "2"), ("2.0", "1.0"), "row 1: the label 2.0 has a decimal point where a class is needed, one of 1, 2;"),
        (("no", "yes"), ("true", "false"), "row 1: the label 'true' is not one of"),
        (("a", "b"), (1, -1), "row 2: the label -1 stands for 'unlabelled'"),
    ],
)
def test_a_column_that_is_neither_names_nor_ids_is_one_sentence(make, names, values, sentence):
    split = make(*(map(str, values) if make is csv else values))
    with pytest.raises(UsageError) as caught:
        labels_of_model(model_with(*names), LABEL, None).encode(split)
    assert sentence in str(caught.value)


def test_lists_are_read_as_names_or_as_ids_as_a_whole():
    def read(names, *rows):
        config = model_with(*names, problem_type="multi_label_classification")
        return labels_of_model(config, LABEL, None).encode(json_split(*rows))

    assert read(("1", "2", "3"), [1, 2], [3]) == [[1, 1, 0], [0, 0, 1]]
    assert read(("a", "b", "c"), [1, 2], []) == [[0, 1, 1], [0, 0, 0]]
    with pytest.raises(UsageError, match="row 2: the label '0' is not one of"):
        read(("1", "2", "3"), [1, 2], [0])
    with pytest.raises(UsageError, match="row 2: the label 1 is an id, and the label 'a' of row 1 is a name"):
        read(("a", "b", "c"), ["a"], [1])


def test_names_that_differ_by_case_alone_stay_two_classes():
    labels = infer_labels(csv("red", "Red", "blue"), LABEL, None)
    assert labels.names == ("Red", "blue", "red")
    ordered = labels.ordered_as({0: "red", 1: "blue", 2: "Red"})
    assert ordered.names == ("red", "blue", "Red") and ordered.encode(csv("red", "Red", "blue")) == [0, 2, 1]
    # Which of the two is RED cannot be told.
    assert not labels.agrees_with({0: "RED", 1: "red", 2: "blue"})
    assert not infer_labels(csv("red", "blue"), LABEL, None).agrees_with({0: "red", 1: "RED"})


def test_a_model_with_one_name_for_two_classes_is_refused():
    config = trained_config(id2label={0: "a", 1: "b", 2: "a"})
    with pytest.raises(UsageError, match="two labels of the name 'a'"):
        labels_of_model(config, LABEL, None)


def test_long_labels_are_cut_in_messages():
    long = "x" * 5000
    labels = infer_labels(csv("a", "b"), LABEL, None)
    wrong = [csv("a", long), json_split([long]), json_split({"k": long}), hub([long], Value("string"))]
    wrong += [csv(str(10**300) + ".5")]
    for split in wrong:
        with pytest.raises(UsageError) as caught:
            labels.encode(split)
        assert len(str(caught.value)) < 400
    with pytest.raises(UsageError) as caught:
        infer_labels(json_split(dict.fromkeys(map(str, range(9999)), 1), 2), LABEL, None)
    assert len(str(caught.value)) < 400
    named = infer_labels(csv(*(f"{number}{long}" for number in range(30))), LABEL, None)
    with pytest.raises(UsageError) as caught:
        named.encode(csv("c"))
    assert len(str(caught.value)) < 2000 and "and 18 more" in str(caught.value)


def test_predictions_in_words():
    assert infer_labels(csv("x", "y"), LABEL, None).decode(1) == "y"
    assert infer_labels(csv("0.5", "1.5"), LABEL, None).decode(2.34567) == "2.346"
    assert infer_labels(json_split(["ä"], ["b"]), LABEL, None).decode([0, 1]) == '["ä"]'


@pytest.mark.parametrize(
    ("train", "task", "sentence"),
    [
        (csv("a", ""), None, "row 2 has no label in column 'label'"),
        (csv("a", None), None, "row 2 has no label"),
        (json_split("a", None), None, "row 2 has no label"),
        (csv("1", "NA", "0"), None, "row 2: the label 'NA' is not a number"),
        (csv("0.5", "nan"), None, "row 2: the label 'nan' is not a number"),
        (csv("0.5", "inf"), None, "row 2: the label inf is not a finite number"),
        (csv("0.5", "1e39"), None, "row 2: the label 1e+39 is not a finite number in single precision"),
        (json_split(0.5, 10**400), None, "(401 characters) is not a finite number in single precision"),
        (csv("0", "-1", "1"), None, "row 2: the label -1 stands for 'unlabelled'"),
        (csv("0", "-1"), "mrpc", "row 2: the label -1 stands for 'unlabelled'"),
        (csv("4.5", "-1"), "stsb", "row 2: the label -1 stands for 'unlabelled'"),
        (csv("0.5", "1"), "mrpc", "row 1: the label 0.5 is a fraction where a class is needed"),
        (csv("1.0", "0.0"), "mrpc", "row 1: the label 1.0 has a decimal point where a class is needed"),
        (
            csv("2", "0"),
            "mrpc",
            "row 1: the label '2' is not one of the labels of task mrpc, which are not_equivalent",
        ),
        (csv("x", "4.5"), "stsb", "row 1: the label 'x' should be a number"),
        (csv("a", "a"), None, "only one class, a"),
        (csv("1", "9" * 5000), None, "row 2: the label inf is not a finite number"),
        (csv("['a']", "['a', b]"), None, "row 2: the label ['a', b] should be a list"),
        (csv("[]", "[]"), None, "0 different classes"),
        (json_split(["a", "c"], "b"), None, "row 2: the label 'b' should be a list"),
        (json_split(["a", "b"], ["a", "a"]), None, "row 2: the list of labels has 'a' twice"),
        (json_split([0, 1, 1], [0, 2]), None, "row 1: the list of labels has 1 twice"),
        (json_split(["a", "b"], [None]), None, "row 2: the list of labels holds an empty entry"),
        (json_split("a", 1), None, "both names and numbers"),
        (json_split(True, 1, 0), None, "both numbers and true or false"),
        (json_split(["a", 1], ["b"]), None, "both names and numbers"),
        (hub([0, 0], ClassLabel(names=["only"])), None, "only one class, only"),
        (
            csv("equivalent", "1"),
            "mrpc",
            "row 2: the label '1' is an id, and the label 'equivalent' of row 1 is a name",
        ),
        (csv("0", "1", "not_equivalent"), "mrpc", "the label 'not_equivalent' of row 3 is a name"),
        (csv("[[]]", "[{[]: 1}]"), None, "row 2: the label [{[]: 1}] should be a list"),
        (json_split({"x": 1}, {"x": 2}), None, "should be a name or a whole number"),
        (json_split([0.5, 0.5], [0.1, 0.9]), None, "should be a name or a whole number"),
        (hub([0, -1], ClassLabel(names=["no", "yes"])), None, "row 2: the label -1 stands for 'unlabelled'"),
        (hub([0, None], ClassLabel(names=["no", "yes"])), None, "row 2 has no label"),
    ],
)
def test_wrong_train_labels_are_one_sentence(train, task, sentence):
    with pytest.raises(UsageError) as caught:
        infer_labels(train, LABEL, None if task is None else get_task(task)).encode(train)
    assert sentence in str(caught.value)
    assert train.source in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "validation", "sentence"),
    [
        (
            csv("a", "b"),
            csv("a", "c", source="v.csv"),
            "v.csv, row 2: the label 'c' is not one of the labels of train.csv, which are a, b",
        ),
        (csv("0", "1"), csv("0", "-1", source="v.csv"), "v.csv, row 2: the label -1 stands for"),
        (csv("0", "1"), csv("0.5", source="v.csv"), "v.csv, row 1: the label 0.5 is a fraction"),
        (csv("0.5", "1"), csv("good", source="v.csv"), "v.csv, row 1: the label 'good' should be a number"),
        (
            json_split("a", "b"),
            json_split(["a"], source="v.json"),
            "v.json, row 1: the label ['a'] should be one class",
        ),
    ],
)
def test_wrong_validation_labels_are_one_sentence(train, validation, sentence):
    labels = infer_labels(train, LABEL, None)
    with pytest.raises(UsageError) as caught:
        labels.encode(validation)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("row", [(0.5, 0.6), (1.2, -0.2), (0.2, 0.2)])
def test_soft_labels_that_are_no_probabilities(row):
    split = soft(a=[0.5, row[0]], b=[0.5, row[1]])
    with pytest.raises(
        UsageError, match="row 2: the probabilities .* in the columns a, b should be at least 0 and sum to 1"
    ):
        infer_labels(split, ("a", "b"), None).encode(split)


@pytest.mark.parametrize(
    ("columns", "label_columns", "sentence"),
    [
        (
            {"sentence": ["x"], "lable": ["1"]},
            LABEL,
            "no label column 'label', its columns are sentence, lable; did you mean --label_column_name lable",
        ),
        ({"sentence": ["x"], "class": ["1"]}, LABEL, "name yours with --label_column_name"),
        ({"sentence": ["x"]}, LABEL, "has only the column 'sentence'; a text column and a label column are needed"),
        ({"sentence": ["x"], "a": ["1"]}, ("a", "b"), "no label column 'b'"),
    ],
)
def test_a_missing_label_column(columns, label_columns, sentence):
    with pytest.raises(UsageError) as caught:
        infer_labels(split_of(columns, "train.csv", "csv"), label_columns, None)
    assert sentence in str(caught.value)


def test_a_task_has_one_label_column():
    with pytest.raises(UsageError, match="task mrpc has one label column, --label_column_name names 2"):
        infer_labels(soft(a=[0.5], b=[0.5]), ("a", "b"), get_task("mrpc"))


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\x1b[31mb", "\u202eb", "a\x00"])
def test_class_names_that_cannot_be_seen_are_refused(name):
    sentence = r"the class name '.*' in the labels of .* has a character that cannot be seen"
    with pytest.raises(UsageError, match=sentence):
        infer_labels(json_split(name, "fine"), LABEL, None)
    with pytest.raises(UsageError, match=sentence):
        infer_labels(json_split([name], ["fine"]), LABEL, None)
    config = BertConfig(id2label={0: "fine", 1: name}, architectures=["BertForSequenceClassification"])
    with pytest.raises(UsageError, match="in the labels of the model has a character"):
        labels_of_model(config, LABEL, None)
