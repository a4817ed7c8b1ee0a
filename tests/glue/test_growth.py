"""The time that data take grows with their size and not with its square: rows, classes and columns."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from transformers import BertConfig

from hf_mixup.compare.data import flip_labels, load_cell_data, stratified_order
from hf_mixup.compare.grid import Cell, Task
from hf_mixup.errors import UsageError
from hf_mixup.glue.labels import Labels, infer_labels, labels_of_model
from hf_mixup.glue.loading import choose_text_columns, load_local_split, split_off_validation
from hf_mixup.glue.metrics import made_up_outputs
from hf_mixup.glue.traps import class_name_traps, missing_class_traps, text_column_traps
from tests.data_files import split_of

LABEL = ("label",)


def csv_rows(path, labels):
    """The path of a CSV file with a text for each of the labels."""
    path.write_text("sentence,label\n" + "".join(f"text {n} is here,{each}\n" for n, each in enumerate(labels)))
    return str(path)


def whole_way(path):
    """What the script does with a file of rows before a model is loaded."""
    split = load_local_split(path)
    labels = infer_labels(split, LABEL, None)
    columns = choose_text_columns(split, LABEL, None, None)
    split.texts(columns)
    encoded = labels.encode(split)
    text_column_traps(split, LABEL, columns)
    class_name_traps(labels.names)
    missing_class_traps(labels, encoded[:10], encoded, "training", "")
    split_off_validation(split, 0.1, 1, encoded if labels.kind == "single" else None)
    return labels, encoded


# What is made of a size beforehand, and what is measured; each in the folder of the test.
def two_classes(folder, size):
    path = csv_rows(folder / f"two{size}.csv", (n % 2 for n in range(size)))
    return lambda: whole_way(path)


def scores(folder, size):
    path = csv_rows(folder / f"scores{size}.csv", (n / 2 for n in range(size)))
    return lambda: whole_way(path)


def words_for_no_value(folder, size):
    path = csv_rows(folder / f"words{size}.csv", ("NA" if n % 2 else "good" for n in range(size)))
    return lambda: whole_way(path)


def scores_and_a_word(folder, size):
    path = csv_rows(folder / f"word{size}.csv", (*(n / 2 for n in range(size - size // 2)), *["NA"] * (size // 2)))

    def refused():
        with pytest.raises(UsageError, match=f"row {size - size // 2 + 1}: the label 'NA' is not a number"):
            whole_way(path)

    return refused


def lists(folder, size):
    path = csv_rows(folder / f"lists{size}.csv", (f"[{n % 20}]" for n in range(size)))
    return lambda: whole_way(path)


def json_lines(folder, size):
    path = folder / f"rows{size}.jsonl"
    path.write_text("".join(f"{json.dumps({'text': f'text {n} is here', 'label': n % 2})}\n" for n in range(size)))
    return lambda: whole_way(str(path))


def a_class_for_every_fifth_row(folder, size):
    path = csv_rows(folder / f"classes{size}.csv", (f"class {n % (size // 5)}" for n in range(size)))
    return lambda: whole_way(path)


def ids_of_a_model(folder, size):
    names = {n: f"class {n}" for n in range(size // 5)}
    config = BertConfig(architectures=["BertForSequenceClassification"], id2label=names)
    split = split_of({"label": [n % (size // 5) for n in range(size)]})

    def read():
        labels = labels_of_model(config, LABEL, None)
        labels.ordered_as(dict(enumerate(reversed(names.values())))).encode(split)

    return read


def shots_and_noise(folder, size):
    classes = np.arange(size) % (size // 5)

    def draw():
        stratified_order(classes, np.random.default_rng(0))
        with pytest.raises(UsageError, match="leaves no row of some class"):
            flip_labels(classes[: size // 5], size // 5, 0.5, np.random.default_rng(0))

    return draw


def shots(folder, size):
    path = csv_rows(folder / f"shots{size}.csv", (f"class {n % (size // 10)}" for n in range(size)))
    task = Task("many", {"train": path, "validation": path, "test": path})
    return lambda: load_cell_data(task, Cell("many", "", "3-shot", 0.0, "none", 1))


def columns(folder, size):
    """A fiftieth as many columns as there are rows elsewhere, nearly all of them for labels."""
    names = [f"c{n}" for n in range(size // 50)]
    path = folder / f"columns{size}.csv"
    path.write_text(f"{','.join(names)}\n{','.join(['a text', 'and another', *['0.5'] * (len(names) - 2)])}\n")
    labels = tuple(names[2:])

    def read():
        split = load_local_split(str(path))
        assert choose_text_columns(split, labels, None, None) == ("c0", "c1")
        assert text_column_traps(split, labels, ("c0", "c1")) == []
        assert infer_labels(split, labels, None).num_labels == len(labels)

    return read


def probabilities(folder, size):
    names = tuple(f"c{n}" for n in range(size // 50))
    split = split_of({name: [1 / len(names)] * 2 for name in names})
    labels = Labels("soft", names, names[::-1], names, False, "the label columns")
    return lambda: labels.encode(split)


CASES = [
    *(two_classes, scores, words_for_no_value, scores_and_a_word, lists, json_lines, a_class_for_every_fifth_row),
    *(ids_of_a_model, shots_and_noise, shots, columns, probabilities),
]


def seconds(work):
    """The time of the processor, which other work on the machine does not change much."""
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_fifty_thousand_rows_take_moments(tmp_path, case):
    # A set for each row, or a search of all names, took 20 seconds and more.
    work = case(tmp_path, 50_000)
    assert seconds(work) < 5


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_time_grows_with_the_size(tmp_path, case):
    works = [case(tmp_path, size) for size in (250_000, 500_000, 1_000_000)]
    quarter, half, whole = map(seconds, works)
    # Four times the rows: 16 times the time if it grew with the square, a little more than 4 with sorting.
    assert whole < 8 * max(quarter, 0.05) and half < 4 * max(quarter, 0.05)


def test_made_up_outputs_of_many_classes_are_no_square():
    for kind in ("single", "multi", "soft"):
        outputs = made_up_outputs(kind, 30_000)
        assert outputs.predictions.shape == (100, 30_000) and len(outputs.label_ids) == 100
