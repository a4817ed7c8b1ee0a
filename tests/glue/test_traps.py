"""What is allowed but likely a mistake: what is warned of, and what is not."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_mixup.glue import traps
from hf_mixup.glue.labels import infer_labels
from hf_mixup.glue.loading import Split, choose_text_columns
from tests.data_files import split_of

ROWS = 40


def rows_of(**columns):
    data = {name: [make(row) for row in range(ROWS)] for name, make in columns.items()}
    return split_of({**data, "label": ["x", "y"] * (ROWS // 2)}, "train.csv")


def text(row):
    return f"a text of several words, number {row}"


def question(row):
    return f"why does it rain in city {row} ?"


def warnings_of(**columns):
    split = rows_of(**columns)
    return traps.text_column_traps(split, ("label",), choose_text_columns(split, ("label",), None, None))


ODD = {
    "single words or ids": [
        lambda row: f"user-{row}",
        lambda row: f"{row:032x}g",
        lambda row: f"{row}@mail.org",
        lambda row: "Übung" + "x" * row,
    ],
    "dates or numbers": [
        lambda row: f"2021-03-{row % 28 + 1:02} 10:{row}:00",
        lambda row: f"2021-03-{row % 28 + 1:02}T10:00:00Z",
        lambda row: f"{row % 28 + 1}/3/2021",
        lambda row: f"March {row % 28 + 1}, 2021",
        lambda row: f"Mon Apr {row} 22:19:45 PDT 2009",
        # Some rows have no date, or an odd one.
        lambda row: f"2021-03-{row:02}" if row else "not known yet",
        lambda row: f"2021-03-{row:02}" if row % 3 else "",
    ],
    "web addresses": [lambda row: f"https://example.org/page?number={row}", lambda row: f"www.example.org/{row}"],
    "categories (3 different values)": [
        lambda row: ["e-mail", "phone call", "walk in shop"][row % 3],
        lambda row: ["sehr gut", "geht so", "nicht so gut"][row % 3],
    ],
}


@pytest.mark.parametrize(("looks", "make"), [(looks, make) for looks, makes in ODD.items() for make in makes])
def test_a_column_that_is_no_text_is_named_where_it_was_taken_for_one(looks, make):
    (warning,) = warnings_of(first=make, body=text)
    assert f"columns of train.csv, first and body: first looks like {looks}; name the one or two columns" in warning
    (warning,) = warnings_of(body=text, second=make)
    assert f"body and second: second looks like {looks}; name" in warning
    # Where it is left out anyway, the pair is not in doubt.
    assert warnings_of(question=question, body=text, third=make) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"question": question, "passage": text},
        # A question may have several passages, and an answer may be one word.
        {"question": lambda row: question(row // 8), "passage": text},
        {"question": question, "answer": lambda row: "yes" if row % 4 else f"{row} of them"},
        {"title": lambda row: f"Rain {row} in town", "body": text},
        {
            "first": lambda row: f"这部电影很好看{chr(0x4E00 + row)}",
            "second": lambda row: f"ภาพยนตร์{chr(0xE01 + row)}",
        },
        {"sentence1": lambda row: f"word{row}", "sentence2": text, "third": text},
        # One column leaves no choice; numbers are not taken for texts.
        {"word": lambda row: f"word{row}"},
        {"id": str, "text": text},
        {"text": text, "score": lambda row: f"{row}.5"},
        # JSON files may have values of several types in a column.
        {"question": question, "body": text, "third": lambda row: [["a", row], None, f"u-{row}"][row % 3]},
    ],
)
def test_texts_are_texts(columns):
    assert warnings_of(**columns) == []


def test_a_second_label_column_is_named():
    (warning,) = warnings_of(text=text, label_text=lambda row: ["it is a long name", "it is another one"][row % 2])
    assert "text and label_text: label_text looks like the label in other words; name" in warning
    # The same two values beside other labels are a pair of texts.
    assert warnings_of(text=text, target=lambda row: ["it is a long name", "it is another one"][row // 20]) == []


def test_texts_that_are_left_out_are_named():
    (warning,) = warnings_of(id=lambda row: f"u-{row}", title=question, body=text, day=lambda row: f"2021-03-{row:02}")
    assert warning == (
        "The texts are read from the first text columns of train.csv, id and title: id looks like single words or "
        "ids, body, day are left out; name the one or two columns that you mean with --text_column_names."
    )
    (warning,) = warnings_of(title=question, body=text, remark=text)
    assert "title and body: remark is left out; name" in warning


@pytest.mark.parametrize(
    "same",
    [
        ("refund", "refund "),
        ("TRUE", "true"),
        ("not ok", "not\u00a0ok"),
        ("not  ok", "not ok"),
        ("fine", "\ufb01ne"),
        ("caf\u00e9", "cafe\u0301"),
        ("STRASSE", "Straße"),
        ("good", "go\u00adod"),
        ("good", "\ufeffgood"),
        ("1", "01"),
        ("1", "1.0"),
    ],
)
def test_classes_that_a_reader_takes_for_one_are_named(same):
    (warning,) = traps.class_name_traps(("other", *same, "another"))
    assert "Of the 4 classes some differ only in" in warning and f"{same[0]!r} and {same[1]!r}" in warning


def test_other_classes_are_not():
    assert traps.class_name_traps(("refund", "refunds", "re fund", "1", "10", "-1", "café", "cafe", "")) == []


def test_several_groups_of_classes_and_long_ones():
    (warning,) = traps.class_name_traps(("a", "A", "b", "x" * 500, "X" * 500, " b", "c"))
    assert "'a' and 'A'" in warning and "'b' and ' b'" in warning and "'c'" not in warning and len(warning) < 600


def encoded(labels, *values):
    kind = Value("string") if isinstance(values[0], str) else None
    data = {"label": list(values)}
    if kind is not None:
        return labels.encode(
            Split(Dataset.from_dict(data, Features({"label": kind})), "hub", "hub", range(1, len(values) + 1))
        )
    return labels.encode(split_of(data))


def test_classes_that_no_row_has_are_named():
    names = ClassLabel(names=["a", "b", "c"])
    data = Dataset.from_dict({"label": [0, 1, 2]}, Features({"label": names}))
    labels = infer_labels(Split(data, "hub", "hub", range(1, 4)), ("label",), None)
    a, b, c = encoded(labels, "a", "b", "c")
    assert traps.missing_class_traps(labels, [a, b, b, c], None, "training", "why") == []
    assert traps.missing_class_traps(labels, [b, b], None, "training", "shuffle it") == [
        "The 2 rows for training have only 1 of 3 classes, and none of a, c; shuffle it."
    ]
    # Those that the whole split lacks are not lost by taking its first rows.
    assert traps.missing_class_traps(labels, [b, b], [b, b, c], "validation", "") == [
        "The 2 rows for validation have only 1 of 2 classes, and none of c."
    ]
    assert traps.missing_class_traps(labels, [b], [b, b], "validation", "") == []


def test_classes_in_lists_and_in_probabilities_count_where_they_are():
    rows = [["a"], [], ["b", "c"]]
    labels = infer_labels(split_of({"label": rows}), ("label",), None)
    whole = encoded(labels, *rows)
    (warning,) = traps.missing_class_traps(labels, whole[:2], None, "training", "")
    assert "The 2 rows for training have only 1 of 3 classes, and none of b, c." == warning
    assert traps.missing_class_traps(labels, whole, None, "training", "") == []
    soft = split_of({"p": [1.0, 0.5], "q": [0.0, 0.5]})
    labels = infer_labels(soft, ("p", "q"), None)
    (warning,) = traps.missing_class_traps(labels, labels.encode(soft)[:1], None, "training", "")
    assert "only 1 of 2 classes, and none of q" in warning


def test_whole_numbers_with_a_decimal_point_may_be_classes():
    def warnings(*values):
        return traps.whole_score_traps(split_of({"label": values}, "t.csv", "csv"), "label")

    (warning,) = warnings("1.0", "0.0", "1.0")
    assert "labels of t.csv are whole numbers with a decimal point, 0.0, 1.0, and are learned as scores" in warning
    assert warnings("1.0", "0.5") == [] and warnings(*(f"{number}.0" for number in range(21))) == []
