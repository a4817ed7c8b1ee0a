"""What cells train on: subsets, held-out rows and wrong labels, the same for all methods."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hf_mixup.compare.data import check_task, flip_labels, load_cell_data, stratified_order
from hf_mixup.compare.grid import Cell, make_grid
from hf_mixup.errors import UsageError
from tests.data_files import write_csv

CELL = Cell("colours", "tiny", "all", 0.0, "none", 1)


@pytest.mark.parametrize("seed", range(3))
def test_every_front_of_the_order_is_stratified_and_has_each_class(seed):
    classes = np.random.default_rng(seed).choice(5, 200, p=[0.5, 0.3, 0.15, 0.04, 0.01])
    order = stratified_order(classes, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(200))
    shares = np.bincount(classes, minlength=5) / 200
    for size in range(5, 201):
        found = np.bincount(classes[order[:size]], minlength=5)
        assert (found[np.bincount(classes, minlength=5) > 0] >= 1).all()
        # One row of each class stands in front of its turn.
        assert (np.abs(found - size * shares) <= 2.5).all()


def test_the_order_is_that_of_the_definition():
    classes = np.random.default_rng(5).integers(0, 7, 60)
    shuffled = np.random.default_rng(1).permutation(60).tolist()
    places = {}
    for label in range(7):
        own = [row for row in shuffled if classes[row] == label]
        places |= {row: 0 if k == 0 else (k + 0.5) / len(own) for k, row in enumerate(own)}
    assert stratified_order(classes, np.random.default_rng(1)).tolist() == sorted(shuffled, key=places.__getitem__)


def test_orders_of_other_seeds_differ():
    classes = np.arange(100) % 4
    orders = [tuple(stratified_order(classes, np.random.default_rng(seed)).tolist()) for seed in range(5)]
    assert len(set(orders)) == 5


@pytest.mark.parametrize("share", [0.2, 0.4, 0.8])
def test_flips_are_as_many_as_asked_and_go_to_all_other_classes_alike(share):
    classes = np.arange(9000) % 3
    flipped = flip_labels(classes, 3, share, np.random.default_rng(0))
    wrong = flipped != classes
    assert wrong.sum() == round(share * 9000)
    pairs = Counter(zip(classes[wrong].tolist(), flipped[wrong].tolist(), strict=True))
    assert len(pairs) == 6
    expected = share * 9000 / 6
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in pairs.values())


def test_rows_of_less_noise_are_among_those_of_more():
    classes = np.arange(500) % 5
    little, much = (flip_labels(classes, 5, share, np.random.default_rng(3)) for share in (0.2, 0.4))
    assert set(np.flatnonzero(little != classes)) <= set(np.flatnonzero(much != classes))


def test_noise_keeps_each_class_or_says_that_it_cannot():
    for seed in range(50):
        assert set(flip_labels(np.arange(3), 3, 0.5, np.random.default_rng(seed)).tolist()) == {0, 1, 2}
    with pytest.raises(UsageError, match="no row of some class"):
        flip_labels(np.arange(3), 3, 0.34, np.random.default_rng(0))


def rows_of(data, split):
    return list(zip(data.texts(split), data.encoded(split).tolist(), strict=True))


def test_held_out_rows_subsets_and_noise_do_not_depend_on_the_method(grid):
    task = grid.tasks["colours"]
    cells = [replace(CELL, size="50%", noise=0.25, method=method) for method in grid.methods]
    first, second = (load_cell_data(task, cell) for cell in cells)
    for split in ("train", "validation", "test", "ood"):
        assert first.texts(split) == second.texts(split)
    assert rows_of(first, "train") == rows_of(second, "train")
    other = load_cell_data(task, replace(cells[0], seed=2))
    assert first.texts("train") != other.texts("train") and first.texts("validation") != other.texts("validation")


def test_splits_share_no_row_and_larger_subsets_hold_smaller_ones(grid):
    task = grid.tasks["colours"]
    sizes = ["1-shot", "2-shot", "10", "40%", "20", "all"]
    found = {size: load_cell_data(task, replace(CELL, size=size)) for size in sizes}
    trained = {size: set(data.texts("train")) for size, data in found.items()}
    assert {size: len(texts) for size, texts in trained.items()} == {
        "1-shot": 4,
        "2-shot": 8,
        "10": 10,
        "40%": 14,
        "20": 20,
        "all": 36,
    }
    for smaller, larger in (("1-shot", "10"), ("10", "40%"), ("40%", "20"), ("20", "all"), ("1-shot", "2-shot")):
        assert trained[smaller] < trained[larger]
    assert Counter(found["2-shot"].encoded("train").tolist()) == dict.fromkeys(range(4), 2)
    held_out = [data.texts("validation") for data in found.values()]
    assert all(texts == held_out[0] for texts in held_out) and len(held_out[0]) == 4
    assert not trained["all"] & set(held_out[0])


def test_wrong_labels_are_known_and_are_those_that_are_trained_on(grid):
    task = grid.tasks["colours"]
    clean, noisy = (load_cell_data(task, replace(CELL, noise=noise)) for noise in (0.0, 0.25))
    assert clean.true_classes is None
    assert clean.texts("train") == noisy.texts("train")
    assert noisy.true_classes.tolist() == clean.encoded("train").tolist()
    assert (noisy.encoded("train") != noisy.true_classes).sum() == 9  # a quarter of 36
    for split in ("validation", "test"):
        assert noisy.encoded(split).tolist() == clean.encoded(split).tolist()


def test_true_labels_from_a_file(task_folder, tiny_bert_folder, tmp_path):
    texts = [f"text {number}" for number in range(20)]
    true = ["ab"[number % 2] for number in range(20)]
    given = ["b" if number < 5 else label for number, label in enumerate(true)]
    names = ("sentence", "label")
    files = {
        "train_file": write_csv(tmp_path / "noisy.csv", names, zip(texts, given, strict=True)),
        "clean_train_file": write_csv(tmp_path / "clean.csv", names, zip(texts, true, strict=True)),
        "test_file": write_csv(tmp_path / "test.csv", names, zip(texts, true, strict=True)),
    }
    base = {"methods": "none", "models": f"tiny={tiny_bert_folder}"}
    task = make_grid({**base, "tasks": [{"name": "real", **files}]}).tasks["real"]
    data = load_cell_data(task, replace(CELL, task="real", size="50%"))
    by_text = dict(zip(texts, true, strict=True))
    assert [data.labels.names[label] for label in data.true_classes] == [
        by_text[text] for (text,) in data.texts("train")
    ]
    by_text = dict(zip(texts, given, strict=True))
    assert [data.labels.names[label] for label in data.encoded("train")] == [
        by_text[text] for (text,) in data.texts("train")
    ]
    files["clean_train_file"] = write_csv(tmp_path / "other.csv", names, zip(reversed(texts), true, strict=True))
    task = make_grid({**base, "tasks": [{"name": "real", **files}]}).tasks["real"]
    with pytest.raises(UsageError, match="same order"):
        load_cell_data(task, replace(CELL, task="real"))


def test_too_few_rows_for_the_classes_are_refused(grid):
    with pytest.raises(UsageError, match="its 4 classes need a row each"):
        load_cell_data(grid.tasks["colours"], replace(CELL, size="5%"))


def test_traps_in_the_files_of_a_task_are_warned_of(grid, tiny_bert_folder, tmp_path, caplog):
    check_task(grid.tasks["colours"], ["all"], [0.0])
    assert caplog.messages == []
    rows = [(f"u-{i}", f"a text, number {i}", ["yes", "Yes", "no"][i % 3]) for i in range(30)]
    file = write_csv(tmp_path / "data.csv", ("user", "text", "label"), rows)
    entry = {"name": "mine", "train_file": file, "test_file": file}
    base = {"methods": "none", "models": f"tiny={tiny_bert_folder}"}
    check_task(make_grid({**base, "tasks": [entry]}).tasks["mine"], ["all"], [0.0])
    classes, columns = caplog.messages
    assert classes.startswith("the task mine: Of the 3 classes some differ") and "'Yes' and 'yes'" in classes
    assert "user looks like single words or ids; name the one or two columns that you mean with text_column" in columns
    caplog.clear()
    check_task(make_grid({**base, "tasks": [{**entry, "text_column_names": "text"}]}).tasks["mine"], ["all"], [0.0])
    assert caplog.messages == [classes]


def test_a_test_file_of_other_numbers_than_the_train_file_is_refused(tiny_bert_folder, tmp_path):
    texts = [f"text {number}" for number in range(12)]
    files = {
        name: write_csv(tmp_path / f"{name}.csv", ("text", "label"), zip(texts, labels, strict=True))
        for name, labels in (("train_file", [1, 2, 3] * 4), ("test_file", [0, 1, 2] * 4))
    }
    base = {"methods": "none", "models": f"tiny={tiny_bert_folder}"}
    with pytest.raises(UsageError, match="test_file.csv, row 1: the label '0' is not one of the labels of train_file"):
        load_cell_data(make_grid({**base, "tasks": [{"name": "n", **files}]}).tasks["n"], replace(CELL, task="n"))
