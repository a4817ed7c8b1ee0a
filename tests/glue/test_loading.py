"""Reading files, choosing columns, taking a validation set out of train."""

import json
from collections import Counter

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, NamedSplit, Value
from datasets.exceptions import DatasetGenerationError

from hf_mixup.errors import UsageError
from hf_mixup.glue import loading, tables
from hf_mixup.glue.loading import Split
from hf_mixup.glue.tasks import get_task
from tests.data_files import split_of, write_csv, write_json_lines


def content(split):
    """All values by column."""
    return {name: split.values(name) for name in split.columns}


def test_csv_cells_stay_the_text_they_are(tmp_path):
    rows = [("None", "NA"), ('a "quoted", long\ntext', "007"), ("nan", "1.50")]
    split = loading.load_local_split(write_csv(tmp_path / "train.csv", ("sentence", "label"), rows))
    assert split.columns == ["sentence", "label"]
    assert split.values("sentence") == ["None", 'a "quoted", long\ntext', "nan"]
    assert split.values("label") == ["NA", "007", "1.50"]
    assert split.row_name(2) == "train.csv, row 3"


@pytest.mark.parametrize(("name", "content"), [("train.csv", "text\na\n"), ("train.json", '[{"text": "a"}]')])
def test_a_file_larger_than_the_memory_is_a_sentence_about_the_file(monkeypatch, tmp_path, name, content):
    def build(*args, **options):
        raise MemoryError

    (tmp_path / name).write_text(content)
    monkeypatch.setattr(tables.pa, "table", build)
    with pytest.raises(UsageError, match=f"{name} does not fit into the memory of this machine; give a part of it"):
        loading.load_local_split(str(tmp_path / name))


def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes("\ufeffsentence,label\r\ngrüße,1\r\n".encode())
    assert content(loading.load_local_split(str(path))) == {"sentence": ["grüße"], "label": ["1"]}


def test_csv_header_cells_are_stripped(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(",sentence , label\n0, a ,1\n")
    data = content(loading.load_local_split(str(path)))
    assert (data["sentence"], data["label"]) == ([" a "], ["1"])


def test_json_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes('{"sentence": "a\u2028b\u0085c"}\r\n{"sentence": "d"}\n'.encode())
    assert content(loading.load_local_split(str(path))) == {"sentence": ["a\u2028b\u0085c", "d"]}


def test_csv_rows_that_are_too_short_have_missing_cells(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("sentence,label\nonly a text\n")
    assert loading.load_local_split(str(path)).values("label")[0] in (None, "")


@pytest.mark.parametrize("as_list", [False, True])
def test_json_lines_and_lists_of_objects(tmp_path, as_list):
    rows = [{"sentence": "a", "label": 1}, {"sentence": "b"}, {"label": None, "sentence": "c", "more": [1]}]
    path = tmp_path / "train.json"
    if as_list:
        path.write_text(json.dumps(rows, indent=1))
    else:
        write_json_lines(path, rows)
    assert content(loading.load_local_split(str(path))) == {
        "sentence": ["a", "b", "c"],
        "label": [1, None, None],
        "more": [None, None, [1]],
    }


def test_a_changed_file_is_read_anew(tmp_path):
    path = tmp_path / "train.csv"
    for text in ("one", "two"):
        write_csv(path, ("sentence", "label"), [(text, "x")])
        dataset = loading.load_local_split(str(path)).texts(["sentence"])
        assert dataset["sentence"][0] == text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"sentence,label\n\xff\xfe,1\n", "is not UTF-8 text"),
        ("a.json", b'{"sentence": "\xff"}\n', "is not UTF-8 text"),
        ("a.csv", b"sentence,label\n", "has no rows"),
        ("a.csv", b"\n\n", "is empty"),
        ("a.json", b"\n", "has no rows"),
        ("a.csv", b"sentence,label\na,1\nb,2,3\n", "not a valid CSV file: Expected 2 fields in line 3, saw 3"),
        ("a.csv", b"sentence,label\na,1,x\nb,2,y\n", "more cells than its header"),
        ("a.csv", b'sentence,label\n"a,1\nb,2\n', "not a valid CSV file"),
        ("a.json", b'{"sentence": "a"}\nword\n', "line 2 is not valid JSON"),
        ("a.json", b'[{"sentence": "a"},]', "is not valid JSON"),
        ("a.json", b'["a", "b"]', "row 1 is not an object"),
        ("a.json", b'{"sentence": "a"}\n{"sentence": "\\ud800"}\n', "row 2 has half of a character"),
        ("a.json", b'[{"sentence": ["\\udc00"]}]', "row 1 has half of a character"),
        ("a.json", b"[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("a.json", b'[{"a": ' + b"9" * 5000 + b"}]", "is not valid JSON: it has a number of too many digits"),
        ("a.json", b'{"a": ' + b"9" * 5000 + b"}", "line 1 is not valid JSON (it has a number of too many digits"),
        ("a.json", b'{"a":' * 100_000, "line 1 is not valid JSON (it is nested too deeply"),
        ("a.csv", b"label,sentence, label\n1,a,2\n", "has the column 'label' twice"),
        (
            "a.csv",
            b"sentence;label\na, b;1\nc;2\n",
            "it looks semicolon-separated; give --delimiter ';', or save it with commas",
        ),
        ("a.csv", b"sentence\tlabel\na\t1\n", "it looks tab-separated; give it a name that ends in .tsv"),
        ("a.json", b'{"data": [{"text": "a"}]}', "holds all rows in one object"),
        ("a.json", b'{"text": ["a", "b"], "label": [0, 1]}', "holds all rows in one object"),
        ("a.json", b'{\n"text": {"0": "a"},\n"label": {"0": 1}\n}', "holds all rows in one object"),
        ("a.json", b'{\n"text": "a",\n"label": 1\n', "line 1 is not valid JSON"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        loading.load_local_split(str(path))
    assert sentence in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table"])
def test_a_json_file_that_pandas_wrote_column_by_column(tmp_path, orient):
    path = tmp_path / "a.json"
    frame = pd.DataFrame({"text": [f"a text {number}" for number in range(9000)], "label": [0, 1] * 4500})
    frame.to_json(path, orient=orient)
    with pytest.raises(
        UsageError, match=r"a.json holds all rows .* df.to_json\(path, orient=.records., lines=True\)"
    ) as caught:
        loading.load_local_split(str(path))
    assert len(str(caught.value)) < 300
    frame.to_json(path, orient="records", lines=True)
    assert content(loading.load_local_split(str(path))) == frame.to_dict("list")


def test_one_row_with_a_list_is_a_row(tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", [{"text": "a", "label": ["x"], "more": {"y": 1}}])
    assert len(loading.load_local_split(path)) == 1


def test_long_values_of_a_file_are_cut(tmp_path):
    long = "x" * 5000
    (tmp_path / "a.csv").write_text(f"{long};b\n1;2\n")
    (tmp_path / "b.csv").write_text(f"{long},{long}\n1,2\n")
    for name in ("a.csv", "b.csv"):
        with pytest.raises(UsageError, match=r"xxx\.\.\. \(5,00[0-9] characters\)") as caught:
            loading.load_local_split(str(tmp_path / name))
        assert len(str(caught.value)) < 400
    split = split_of({long: [[long]], "b": [1]})
    for columns in (("b", "c"), (long,)):
        with pytest.raises(UsageError, match=r"\(5,0[0-9]+ characters\)") as caught:
            split.texts(columns)
        assert len(str(caught.value)) < 500


def test_files_are_checked_by_name_first(tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    for name, sentence in (
        ("train.xlsx", "should be a file that ends in .csv, .tsv, .json, .jsonl, .parquet, .csv.gz"),
        ("missing.csv", "does not exist"),
        ("empty.csv", "is empty"),
        ("folder.csv", "is not a file"),
    ):
        with pytest.raises(UsageError, match=f"--train_file .*{name} {sentence}"):
            tables.check_file(str(tmp_path / name), "--train_file")


@pytest.mark.parametrize(
    ("columns", "requested", "task", "chosen"),
    [
        ({"text": ["a"], "label": ["1"]}, None, None, ("text",)),
        ({"label": ["1"], "first": ["a"], "second": ["b"], "third": ["c"]}, None, None, ("first", "second")),
        (
            {"note": ["x"], "sentence2": ["b"], "sentence1": ["a"], "label": ["1"]},
            None,
            None,
            ("sentence1", "sentence2"),
        ),
        ({"id": ["17"], "text": ["a"], "label": ["1"]}, None, None, ("text",)),
        ({"id": [17], "tags": [["a"]], "text": ["a"], "label": [1]}, None, None, ("text",)),
        ({"a": ["x"], "b": ["y"], "label": ["1"]}, ("b",), None, ("b",)),
        ({"question": ["x"], "sentence": ["y"], "idx": ["0"], "label": ["1"]}, None, "qnli", ("question", "sentence")),
        ({"a": ["x"], "b": ["y"], "label": ["1"]}, ("b", "a"), "mrpc", ("b", "a")),
    ],
)
def test_text_columns(columns, requested, task, chosen):
    task = None if task is None else get_task(task)
    assert loading.choose_text_columns(split_of(columns), ("label",), requested, task) == chosen


@pytest.mark.parametrize(
    ("requested", "task", "sentence"),
    [
        (("texd",), None, "has no text column 'texd'.*did you mean --text_column_names text"),
        (("label",), None, "both by"),
        (("text", "id", "label"), None, "one or two columns, got 3"),
        (None, "mrpc", "has no text column of task mrpc 'sentence1', its columns are text, id, label"),
    ],
)
def test_text_columns_that_cannot_be(requested, task, sentence):
    task = None if task is None else get_task(task)
    with pytest.raises(UsageError, match=sentence):
        loading.choose_text_columns(split_of({"text": ["a"], "id": [1], "label": [1]}), ("label",), requested, task)


def test_no_text_column():
    with pytest.raises(UsageError, match="no text column beside the label"):
        loading.choose_text_columns(split_of({"id": ["1", "2"], "label": ["a", "b"]}), ("label",), None, None)


@pytest.mark.parametrize(
    "value, sentence", [(None, "has no text"), ("  ", "has no text"), (3, "3 in column 'b', which is no text")]
)
def test_missing_texts_name_the_row(value, sentence):
    split = split_of({"a": ["x", "y", "z"], "b": ["x", value, "z"]})
    with pytest.raises(UsageError, match=f"train.json, row 2 has .*{sentence.removeprefix('has ')}"):
        split.texts(("a", "b"))


def test_an_empty_text_of_the_hub_is_a_text_but_a_missing_one_is_not():
    features = Features({"a": Value("string")})
    data = Dataset.from_dict({"a": ["", "x"]}, features)
    assert Split(data, "hub", "hub", range(1, 3)).texts(("a",))["a"][:] == ["", "x"]
    data = Dataset.from_dict({"a": ["x", None]}, features)
    with pytest.raises(UsageError, match="hub, row 2 has no text"):
        Split(data, "hub", "hub", range(1, 3)).texts(("a",))


def test_rows_keep_their_numbers_and_features():
    features = Features({"a": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_dict({"a": list("xyz"), "label": [0, 1, 1]}, features)
    part = Split(data, "hub", "hub", range(1, 4)).select([2, 0])
    assert part.values("a") == ["z", "x"] and part.row_name(0) == "hub, row 3"
    assert part.feature("label").names == ["no", "yes"]
    assert len(part.head(1)) == 1 and part.head(None) is part and part.head(9) is part


def test_parse_float():
    assert [loading.parse_float(text) for text in ("5.000", " 4", "1e-3", "x", "", "1_0")] == [
        5,
        4,
        0.001,
        None,
        None,
        None,
    ]


CLASSES = ["a"] * 60 + ["b"] * 30 + ["c"] * 9 + ["d"]


def held_out(seed=1, share=0.2, classes=CLASSES):
    size = len(CLASSES)
    train, validation = loading.split_off_validation(
        split_of({"n": range(size), "label": CLASSES}), share, seed, classes
    )
    return train.values("n"), validation.values("n"), validation


def test_a_validation_split_divides_the_rows():
    train, validation, split = held_out()
    assert sorted(train + validation) == list(range(100))
    assert train == sorted(train) and validation == sorted(validation)
    assert len(validation) == 20
    assert split.row_name(0) == f"the validation part of train.json, row {validation[0] + 1}"


def test_a_validation_split_is_stratified_and_keeps_single_rows_in_train():
    train, validation, _ = held_out()
    # 20 of 99 rows of the classes that occur more than once: 12.1, 6.1 and 1.8 of them.
    assert Counter(CLASSES[i] for i in validation) == {"a": 12, "b": 6, "c": 2}
    assert 99 in train


def test_a_validation_split_depends_on_the_seed_alone():
    assert held_out(seed=1)[:2] == held_out(seed=1)[:2]
    assert held_out(seed=1)[1] != held_out(seed=2)[1]


def test_a_validation_split_of_few_rows_or_without_classes_is_a_plain_draw():
    assert len(held_out(share=0.02)[1]) == 2
    assert len(held_out(classes=None)[1]) == 20


@pytest.mark.parametrize(
    "share, sentence",
    [(0.0, "above 0"), (1.0, "below 1"), (0.004, "no rows for validation"), (0.997, "no rows for train")],
)
def test_validation_shares_that_cannot_be(share, sentence):
    with pytest.raises(UsageError, match=sentence):
        held_out(share=share)


TWO_CONFIGURATIONS = b"""---
configs:
- {config_name: a, data_files: a.csv}
- {config_name: b, data_files: b.csv}
---
"""
# Names and contents of a folder's files, and what the sentence has.
BROKEN_FOLDERS = {
    "a CSV file with a row too long": (
        {"train.csv": b"text,label\na,1\nb,2,3\n"},
        "Expected 2 fields in line 3, saw 3",
    ),
    "no UTF-8": ({"train.csv": b"text,label\n\xff,1\n"}, "can't decode byte 0xff"),
    "an empty file": ({"train.csv": b""}, "No columns to parse from file"),
    "a header alone": ({"train.csv": b"text,label\n"}, "no data"),
    "an empty split": ({"train.csv": b"text\na\n", "test.csv": b"text\n"}, "no data"),
    "broken JSON": ({"train.jsonl": b'{"text": "a"}\nword\n'}, "JSON parse error"),
    "a JSON file column by column": (
        {"train.json": b'{"text": {"0": "a"}, "label": {"0": 1}}'},
        "holds all rows in one",
    ),
    "broken Parquet": ({"train.parquet": b"nothing"}, "Parquet"),
    "a broken archive": ({"train.zip": b"PK nothing"}, "not a zip file"),
    "a broken compressed file": ({"train.csv.gz": b"nothing"}, "Not a gzipped file"),
    "other columns": ({"train-1.csv": b"text,label\na,1\n", "train-2.csv": b"text,more\na,b\n"}, "more"),
    "a script": ({"DATA.py": b"import datasets\n"}, "scripts are no longer supported"),
    "no files": ({}, "doesn't contain any data files"),
    "other files": ({"train.xyz": b"a"}, "No (supported) data files"),
    "a broken head of the README": ({"README.md": b"---\nconfigs:\n- [\n---\n", "train.csv": b"text\na\n"}, "parsing"),
    "several configurations": (
        {
            "README.md": TWO_CONFIGURATIONS,
            "a.csv": b"text\na\n",
            "b.csv": b"text\na\n",
        },
        "['a', 'b']",
    ),
    "a broken state": ({"state.json": b"{", "dataset_info.json": b"{}"}, "Expecting property name"),
    "no rows on disk": (
        {"dataset_dict.json": b'{"splits": ["train"]}', "train/state.json": b"{}", "train/dataset_info.json": b"{}"},
        "DATA could not be loaded",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_FOLDERS)
def test_a_broken_folder_is_one_sentence(tmp_path, fault):
    files, sentence = BROKEN_FOLDERS[fault]
    folder = tmp_path / "DATA"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        loading.load_hub_splits(str(folder), None, str(tmp_path / "cache"), None)
    assert sentence in str(caught.value) and str(folder) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert ("--dataset_config_name" in str(caught.value)) == (fault == "several configurations")


def rows_to_save():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["2", "0", "1"])})
    return Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 2]}, features)


def test_folders_of_save_to_disk(tmp_path):
    rows, alone, pair = rows_to_save(), tmp_path / "alone", tmp_path / "pair"
    rows.with_format("numpy").save_to_disk(alone)
    DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk(pair)
    before = sorted(tmp_path.rglob("*"))
    for folder, sizes in ((alone, {"train": 3}), (pair, {"train": 3, "test": 1})):
        splits = loading.load_hub_splits(str(folder), None, None, None)
        assert {name: len(split) for name, split in splits.items()} == sizes
        assert splits["train"].values("label") == [0, 1, 2] and type(splits["train"].values("label")[0]) is int
        assert splits["train"].feature("label").names == ["2", "0", "1"]
        texts = splits["train"].texts(("text",)).map(lambda row: {"size": [len(row["text"])]})
        assert texts["size"][:] == [[1], [1], [1]]
    # Nothing is written beside the data.
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match="no configurations; leave --dataset_config_name small out"):
        loading.load_hub_splits(str(pair), "small", None, None)


def test_one_saved_split_keeps_its_name(tmp_path):
    rows = rows_to_save()
    Dataset(rows.data, split=NamedSplit("validation")).save_to_disk(tmp_path / "data")
    assert list(loading.load_hub_splits(str(tmp_path / "data"), None, None, None)) == ["validation"]


def test_a_split_without_rows_is_refused(tmp_path, monkeypatch):
    data = DatasetDict({"train": rows_to_save(), "validation": rows_to_save().select([])})
    data.save_to_disk(tmp_path / "data")
    with pytest.raises(UsageError, match="data.* has no rows"):
        loading.load_hub_splits(str(tmp_path / "data"), None, None, None)
    monkeypatch.setattr(loading, "load_dataset", lambda *args, **options: data)
    with pytest.raises(UsageError, match="me/data, split validation has no rows; give it rows"):
        loading.load_hub_splits("me/data", None, None, None)


def test_a_data_set_that_is_a_file_or_nowhere(tmp_path):
    file = write_csv(tmp_path / "a.csv", ("text", "label"), [("a", 1)])
    with pytest.raises(UsageError, match="a.csv is a file; give it with --train_file"):
        loading.load_hub_splits(file, None, None, None)
    with pytest.raises(UsageError, match="nowhere does not exist; check --dataset_name"):
        loading.load_hub_splits(str(tmp_path / "nowhere"), None, None, None)


@pytest.mark.parametrize("cause", [MemoryError(), OSError(28, "No space left on device")])
def test_a_full_disk_or_memory_is_not_a_fault_of_the_data(monkeypatch, cause):
    def load(*args, **options):
        raise DatasetGenerationError("An error occurred while generating the dataset") from cause

    monkeypatch.setattr(loading, "load_dataset", load)
    with pytest.raises(type(cause)):
        loading.load_hub_splits("me/data", None, None, None)


def test_images_are_not_texts_and_are_not_even_read(monkeypatch):
    broken = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"image": [{"path": None, "bytes": b"no image"}] * 2, "label": [0, 1]}, broken)
    split = Split(data, "hub", "hub", range(1, 3))
    monkeypatch.setattr(loading, "load_dataset", lambda *args, **options: DatasetDict({"train": data.select([0])}))
    assert len(loading.load_hub_splits("me/data", None, None, None)["train"]) == 1
    with pytest.raises(UsageError, match="no text column beside the label, its columns are image, label"):
        loading.choose_text_columns(split, ("label",), None, None)
    with pytest.raises(UsageError, match="has Image.* in column 'image', which is no text"):
        split.texts(("image",))


def test_structs_are_neither_texts_nor_labels():
    data = Dataset.from_dict({"text": [{"a": "x"}, {"a": "y"}], "label": [0, 1]})
    split = Split(data, "hub", "hub", range(1, 3))
    with pytest.raises(UsageError, match="no text column beside the label"):
        loading.choose_text_columns(split, ("label",), None, None)
    with pytest.raises(UsageError, match="row 1 has {'a': 'x'} in column 'text', which is no text"):
        split.texts(("text",))


def test_a_hub_data_set_without_a_network_is_one_sentence():
    with pytest.raises(UsageError, match="nyu-mll/glue .mrpc. could not be loaded from the Hub") as caught:
        loading.load_glue_splits(get_task("MRPC"), None, None)
    assert "\n" not in str(caught.value)


def test_task_names():
    assert get_task("StsB").is_regression and not get_task("cola").is_regression
    with pytest.raises(UsageError, match="choose one of cola, .*did you mean mrpc"):
        get_task("mrcp")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (json.dumps({"text": ["a", "b"], "label": ["x", "y"]}, indent=2), "holds all rows in one object"),
        ('{\n "text": "a",\n "label": "x"\n}\n{\n "text": "b",\n "label": "y"\n}', "line 1 is not valid JSON"),
    ],
)
def test_a_file_of_indented_objects_gets_one_sentence_and_not_two(tmp_path, text, sentence):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        loading.load_local_split(str(path))
    assert sentence in str(caught.value) and str(caught.value).count("a.json") == 1
