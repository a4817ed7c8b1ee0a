"""Files of all kinds as tables, and the cache of them."""

import gzip
import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mixup.errors import UsageError
from hf_mixup.glue import tables
from hf_mixup.glue.loading import Split, load_local_split
from tests.data_files import write_csv, write_json_lines

# Texts with all that a format has marks for.
ROWS = [("a, b; c", "red"), ('a "quoted" text', "NA"), ("two\nlines", "007"), ("schön 文", "1.50")]


def frame():
    return pd.DataFrame(ROWS, columns=["text", "label"])


def write(path, name):
    """Write the rows as a file of the kind that the name says, by pandas, and return its path."""
    path = path / name
    writers = {
        ".csv": lambda: frame().to_csv(path, index=False),
        ".tsv": lambda: frame().to_csv(path, index=False, sep="\t"),
        ".json": lambda: frame().to_json(path, orient="records"),
        ".jsonl": lambda: frame().to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame().to_parquet(path),
    }
    writers[os.path.splitext(name.removesuffix(".gz"))[1]]()
    return str(path)


def values(split):
    return [tuple(row) for row in zip(*(split.values(name) for name in ("text", "label")), strict=True)]


@pytest.mark.parametrize("ending", tables.ENDINGS)
def test_every_kind_of_file_gives_the_same_texts(tmp_path, ending):
    path = write(tmp_path, f"rows{ending}")
    assert path.endswith(".gz") == (open(path, "rb").read(2) == b"\x1f\x8b")
    tables.check_file(path, "--train_file")
    split = load_local_split(path)
    assert split.columns == ["text", "label"] and values(split) == ROWS
    assert split.texts(("text",))["text"][:] == [text for text, _ in ROWS]


@pytest.mark.parametrize(("delimiter", "given"), [(";", ";"), ("\t", r"\t"), ("|", "|")])
def test_other_delimiters(tmp_path, delimiter, given):
    path = str(tmp_path / "rows.csv")
    frame().to_csv(path, index=False, sep=delimiter)
    assert values(load_local_split(path, tables.check_delimiter(given, [path]))) == ROWS


@pytest.mark.parametrize(
    ("text", "path", "sentence"),
    [
        (";;", "a.csv", "';;' should be one character"),
        ("", "a.csv", "'' should be one character"),
        ('"', "a.csv", "should be one character"),
        (";", "a.jsonl", "is for CSV and TSV files, and a.jsonl is of another kind"),
    ],
)
def test_delimiters_that_cannot_be(text, path, sentence):
    with pytest.raises(UsageError, match=sentence):
        tables.check_delimiter(text, [path])


@settings(max_examples=25)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "text": st.text(st.characters(codec="utf-8"), max_size=5),
                "value": st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=2),
                "more": st.lists(st.integers(0, 3) | st.text("ab", max_size=2), max_size=2),
            },
        ),
        min_size=1,
        max_size=7,
    )
)
def test_json_values_stay_what_they_are(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.write_text(text)
    if not names or "\\ud" in text:
        return
    split = load_local_split(str(path))
    assert split.columns == names
    for name in names:
        wanted = [row.get(name) for row in rows]
        # 1, 1.0 and true are equal in Python.
        assert list(map(repr, split.values(name))) == list(map(repr, wanted))


def test_a_value_of_another_type_after_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 3)
    rows = [{"text": f"row {n}", "label": str(n)} for n in range(8)] + [{"text": "last", "label": 8, "late": 1}]
    split = load_local_split(write_json_lines(tmp_path / "rows.jsonl", rows))
    assert split.values("label") == [*map(str, range(8)), 8] and split.values("late") == [None] * 8 + [1]
    assert [len(chunk) for chunk in split.data.data.column("text").chunks] == [3, 3, 3]


def test_parquet_columns_keep_their_types(tmp_path):
    data = pd.DataFrame({"text": ["a", "b", "c"], "label": pd.Categorical(["x", "y", "x"]), "score": [1, 2, 3]})
    data.set_index(pd.Index([5, 6, 7], name="id")).to_parquet(tmp_path / "rows.parquet")
    split = load_local_split(str(tmp_path / "rows.parquet"))
    assert split.columns == ["text", "label", "score"]
    assert split.values("label") == ["x", "y", "x"] and split.values("score") == [1, 2, 3]
    named = Dataset.from_dict({"text": ["a", "b"], "label": ["no", "yes"]}).class_encode_column("label")
    named.to_parquet(str(tmp_path / "named.parquet"))
    assert load_local_split(str(tmp_path / "named.parquet")).feature("label").names == ["no", "yes"]


def test_parquet_files_of_several_programs_go_together(tmp_path):
    columns = {"text": ["a", "b"], "label": ["x", "y"]}
    maps = pa.array([[("key", 1)], None], pa.map_(pa.string(), pa.int64()))
    parts = {
        "a": pa.table({**columns, "more": pa.nulls(2), "map": maps}),
        "b": pa.table(
            {name: pa.array(column, pa.large_string()) for name, column in columns.items()} | {"more": [1, 2]}
        ),
        "c": pa.table(
            {name: pa.array(column).dictionary_encode() for name, column in columns.items()} | {"more": [3, 4]}
        ),
    }
    paths = [str(tmp_path / f"{name}.parquet") for name in parts]
    for path, part in zip(paths, parts.values(), strict=True):
        pq.write_table(part, path)
    split = load_local_split(paths)
    assert values(split) == 3 * [("a", "x"), ("b", "y")] and split.values("more") == [None, None, 1, 2, 3, 4]


@pytest.mark.parametrize("feature", [ClassLabel(names=["y", "x"]), Value("int64")])
def test_parquet_files_with_other_names_for_their_ids_do_not_go_together(tmp_path, feature):
    paths = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    for path, own in zip(paths, (ClassLabel(names=["x", "y"]), feature), strict=True):
        data = {"text": ["a", "b"], "label": [0, 1]}
        Dataset.from_dict(data, Features({"text": Value("string"), "label": own})).to_parquet(path)
    with pytest.raises(UsageError, match="have values of different types in the column 'label'"):
        load_local_split(paths)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.parquet", b"nothing at all", "is not a valid Parquet file"),
        ("rows.csv.gz", b"nothing at all", "is not a whole gzip file"),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9999)[:-20], "is not a whole gzip file"),
        ("rows.csv.gz", gzip.compress(b"text,label\na,1\n" * 9999)[:-20], "is not a whole gzip file"),
        (
            "rows.tsv",
            b'text\tlabel\nfine\t1\n"He said\t0\nno more\t1\nso "\t0\n',
            "row 2 has a cell that begins with a quote and goes on over several rows",
        ),
        ("rows.tsv", b"text,label\na,1\n", "it looks comma-separated; give --delimiter ',', or save it with tabs"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as caught:
        load_local_split(str(path))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_several_files_are_read_one_after_the_other(tmp_path):
    first = write_csv(tmp_path / "a.csv", ("text", "label"), [("a", "x"), ("b", "y")])
    (tmp_path / "b.tsv").write_text("label\ttext\nz\tc\n")
    split = load_local_split([first, str(tmp_path / "b.tsv"), first])
    assert values(split) == [("a", "x"), ("b", "y"), ("c", "z"), ("a", "x"), ("b", "y")]
    assert split.source == "a.csv and 2 more"
    assert [split.row_name(row) for row in range(5)] == [
        "a.csv, row 1",
        "a.csv, row 2",
        "b.tsv, row 1",
        "a.csv, row 1",
        "a.csv, row 2",
    ]
    part = split.select([4, 2])
    assert part.row_name(0) == "a.csv, row 2" and values(part) == [("b", "y"), ("c", "z")]


def test_json_files_may_lack_keys_but_not_differ_in_types(tmp_path):
    first = write_json_lines(tmp_path / "a.jsonl", [{"text": "a", "label": 1}])
    second = write_json_lines(tmp_path / "b.jsonl", [{"label": 2, "more": "m", "text": "b"}])
    split = load_local_split([first, second])
    assert values(split) == [("a", 1), ("b", 2)] and split.values("more") == [None, "m"]
    third = write_json_lines(tmp_path / "c.jsonl", [{"text": "a", "label": "x"}])
    with pytest.raises(UsageError, match="values of different types in the column 'label'; write them in one way"):
        load_local_split([first, third])
    # A column without a value goes with all others, which have to go together.
    empty = write_json_lines(tmp_path / "d.jsonl", [{"text": "d", "label": 3, "more": None}])
    split = load_local_split([empty, first, second])
    assert values(split) == [("d", 3), ("a", 1), ("b", 2)] and split.values("more") == [None, None, "m"]
    number = write_json_lines(tmp_path / "e.jsonl", [{"text": "e", "label": 4, "more": 1}])
    with pytest.raises(UsageError, match="b.jsonl and .*e.jsonl have values of different types in the column 'more'"):
        load_local_split([empty, first, second, number])


def test_files_that_do_not_go_together(tmp_path):
    first = write_csv(tmp_path / "a.csv", ("text", "label"), [("a", "x")])
    second = write_csv(tmp_path / "b.csv", ("text", "class"), [("a", "x")])
    with pytest.raises(UsageError, match="do not have the same columns .only one has class, label."):
        load_local_split([first, second])
    third = write_json_lines(tmp_path / "c.jsonl", [{"text": "a", "label": "x"}])
    with pytest.raises(UsageError, match="are of different kinds; give files of one kind"):
        load_local_split([first, third])


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    read = []
    reader = tables._READERS["csv"]
    monkeypatch.setitem(tables._READERS, "csv", lambda *given: read.append(given) or reader(*given))
    path = write_csv(tmp_path / "a.csv", ("text", "label"), [("one", "x")])
    cache = str(tmp_path / "cache")

    def texts(**options):
        return load_local_split(path, cache_dir=cache, **options).texts(("text",))["text"][:]

    first = load_local_split(path, cache_dir=cache)
    assert texts() == texts() == ["one"] and len(read) == 1
    # The fingerprint is what the cache of tokens is found by.
    assert load_local_split(path, cache_dir=cache).data._fingerprint == first.data._fingerprint
    # Of the same size, and with the old time.
    times = os.stat(path)
    shutil.copy(write_csv(tmp_path / "b.csv", ("text", "label"), [("two", "x")]), tmp_path / "c.csv")
    os.replace(tmp_path / "c.csv", path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert texts() == ["two"] and len(read) == 2
    # At the same place on the disk.
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text().replace("two", "six"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert texts() == ["six"] and len(read) == 3
    assert first.values("text") == ["one"]
    with pytest.raises(UsageError, match="it looks comma-separated"):
        load_local_split(path, ";", cache)
    assert sorted(os.listdir(cache)) == ["hf_mixup"]
    assert all(name.startswith("rows-") for name in os.listdir(tmp_path / "cache" / "hf_mixup"))


@pytest.mark.parametrize("kept", ["nothing", "a part of a row", "the first chunk", "all but the end"])
def test_a_damaged_cache_is_written_again(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(tables, "CHUNK", 2)
    path = write(tmp_path, "rows.csv")
    load_local_split(path, cache_dir=str(tmp_path))
    (place,) = (tmp_path / "hf_mixup").iterdir()
    with pa.OSFile(str(place)) as file:
        pa.ipc.open_stream(file).read_next_batch()
        end = file.tell()
    size = {"nothing": 0, "a part of a row": end - 9, "the first chunk": end, "all but the end": -3}[kept]
    place.write_bytes(place.read_bytes()[:size])
    assert values(load_local_split(path, cache_dir=str(tmp_path))) == ROWS


def test_a_file_that_changes_while_it_is_read_is_one_sentence(tmp_path, monkeypatch):
    path = write(tmp_path, "rows.csv")
    reader = tables._READERS["csv"]

    def read(*given):
        with open(path, "a") as file:
            file.write("late,red\n")
        return reader(*given)

    monkeypatch.setitem(tables._READERS, "csv", read)
    with pytest.raises(UsageError, match="rows.csv changed while it was read; start again when it stays as it is"):
        load_local_split(path, cache_dir=str(tmp_path))
    assert list((tmp_path / "hf_mixup").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("text", "label"), [("one", "x")])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the cache .* cannot be written .*; set HF_DATASETS_CACHE to a folder"):
        load_local_split(path, cache_dir=str(tmp_path / "file"))


def test_a_full_disk_is_no_mistake_of_the_user(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = write_csv(tmp_path / "a.csv", ("text", "label"), [("one", "x")])
    monkeypatch.setattr(tables.pa, "OSFile", full)
    cache = tmp_path / "cache"
    with pytest.raises(OSError, match="No space left"):
        load_local_split(path, cache_dir=str(cache))
    assert list((cache / "hf_mixup").iterdir()) == []


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"])), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_distinct_rows_are_the_first_of_their_kind(rows, random):
    table = pa.table(
        {"text": [text for text, _ in rows], "label": pa.array([label for _, label in rows], pa.string())}
    )
    whole = Split(Dataset(table), "rows", "csv", range(1, len(rows) + 1))
    order = list(range(len(rows)))
    random.shuffle(order)
    for split, own in ((whole, rows), (whole.select(order), [rows[place] for place in order])):
        for columns, key in ((("label",), lambda row: row[1]), (("text", "label"), lambda row: row)):
            distinct, codes = split.distinct(columns)
            wanted = list(dict.fromkeys(map(key, own)))
            assert [wanted.index(key(row)) for row in own] == codes.tolist()
            assert np.array_equal(distinct.rows, [split.rows[list(map(key, own)).index(each)] for each in wanted])


def test_rows_are_taken_from_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 4)
    monkeypatch.setattr("hf_mixup.glue.loading._BATCH", 5)
    path = write_csv(tmp_path / "a.csv", ("text", "label"), [(f"row {n}", str(n)) for n in range(23)])
    split = load_local_split(path)
    order = np.random.default_rng(0).permutation(23)[:17]
    part = split.select(order)
    assert part.values("text") == [f"row {n}" for n in order]
    assert part.texts(("text",))["text"][:] == part.values("text")
    assert part.head(3).values("label") == [str(n) for n in order[:3]]
    assert [part.row_name(2), len(part.sample(4))] == [f"a.csv, row {order[2] + 1}", 4]


def test_an_empty_text_far_back_is_found(tmp_path):
    rows = [("文字", "x")] * 12_000 + [(" \u3000\x1f", "x"), ("end", "x")]
    split = load_local_split(write_csv(tmp_path / "a.csv", ("text", "label"), rows))
    with pytest.raises(UsageError, match="a.csv, row 12001 has no text in column 'text'"):
        split.texts(("text",))
    # Marks alone are a text.
    assert len(load_local_split(write_csv(tmp_path / "b.csv", ("text", "label"), [("…", "x")])).texts(("text",))) == 1
