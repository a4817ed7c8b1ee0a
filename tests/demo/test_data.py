"""The synthetic requests: reproducible, clean of leaks between the splits, and as noisy as they say."""

import csv
import hashlib
import os
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from hf_mixup.demo import data as demo_data
from hf_mixup.demo.templates import CLOSERS, INTENTS, OPENERS, SLOTS

SEEDS = (0, 1, 42, 2026)
# The data are frozen: a change of generator, templates or slots shows here and makes older numbers incomparable.
FROZEN = {
    "train": "f7b8bda7c408a4ea0db46aee15a59cba1410a31da86a011e6abcacc86763e1fb",
    "test": "258917bfa22174705610e9e6cec0eeb378690fcf1d7c3b39faac90f1bbe17337",
    "origin": "d55c3c5be2282c83b918b572cea1f81884231e2978a9cd08205d56eb7188340d",
}


@pytest.fixture(scope="module", params=SEEDS)
def data(request):
    return demo_data.generate(request.param)


def pattern_of(template: str) -> str:
    """A regular expression for everything that a template can become, but for typing errors."""
    return ".+".join(re.escape(text) for text, *_ in string.Formatter().parse(template)) + (
        ".+" if template.endswith("}") else ""
    )


def words_of(template: str) -> set[str]:
    return set(re.findall(r"[a-z']+", re.sub(r"\{\w+\}", "", template.lower())))


def all_templates(split: str) -> list[str]:
    return [template for intent in INTENTS.values() for template in getattr(intent, split)]


def test_frozen_data_are_byte_identical(tmp_path):
    paths = demo_data.write(demo_data.generate(42), tmp_path)
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()} == FROZEN


def test_same_seed_in_another_process_gives_the_same_bytes(tmp_path):
    here = demo_data.write(demo_data.generate(7), tmp_path / "here")
    code = "import sys; from hf_mixup.demo import data; data.write(data.generate(7), sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "123", "LC_ALL": "C"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=environment, cwd=root)
    for name, path in here.items():
        assert (tmp_path / "there" / f"{name}.csv").read_bytes() == path.read_bytes()


def test_another_seed_gives_other_texts():
    first, second = (demo_data.generate(seed) for seed in (1, 2))
    assert {row.sentence for row in first.train} != {row.sentence for row in second.train}


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        demo_data.generate(-1)


def test_every_intent_has_enough_templates_with_known_slots():
    known = {*SLOTS, "order", "number", "item2", "colour2"}
    assert len(INTENTS) == 12
    for intent in INTENTS.values():
        assert len(intent.train) >= 8
        assert len(intent.test) >= 6
    for template in [*all_templates("train"), *all_templates("test"), *OPENERS, *CLOSERS]:
        assert {name for _, name, *_ in string.Formatter().parse(template) if name is not None} <= known


def test_neighbours_are_pairs():
    for name, intent in INTENTS.items():
        assert intent.neighbour != name
        assert INTENTS[intent.neighbour].neighbour == name


def test_no_template_serves_both_splits():
    train, test = all_templates("train"), all_templates("test")
    assert len({*train, *test}) == len(train) + len(test)
    closest = max(
        len(words_of(first) & words_of(second)) / len(words_of(first) | words_of(second))
        for first in train
        for second in test
    )
    assert closest < 0.7


def test_no_test_text_could_come_from_a_train_template(data):
    patterns = [re.compile(pattern_of(template)) for template in all_templates("train")]
    assert all(any(pattern.search(row.sentence) for pattern in patterns) is False for row in data.test)
    # The patterns do recognise their own texts, but for those with typing errors.
    recognised = [any(pattern.search(row.sentence) for pattern in patterns) for row in data.train]
    assert 0.6 < sum(recognised) / len(recognised) < 0.95


def test_templates_of_the_rows_belong_to_their_split_and_intent(data):
    for split in ("train", "test"):
        for row in getattr(data, split):
            assert row.template in getattr(INTENTS[row.true_label], split)


def test_no_text_occurs_twice(data):
    sentences = [row.sentence for row in data.train + data.test]
    assert len(set(sentences)) == len(sentences)


def test_texts_are_filled_in(data):
    for row in data.train + data.test:
        assert not set("{}") & set(row.sentence)
        assert row.sentence == row.sentence.strip()
        assert "  " not in row.sentence


def test_two_items_or_colours_in_a_text_differ(data):
    checked = 0
    for row in data.train + data.test:
        match = re.fullmatch(pattern_of(row.template).replace(".+", "(.+?)"), row.sentence)
        slots = [name for _, name, *_ in string.Formatter().parse(row.template) if name]
        for first, second in (("item", "item2"), ("colour", "colour2")):
            if match and {first, second} <= set(slots):
                filled = dict(zip(slots, match.groups(), strict=True))
                assert filled[first] != filled[second]
                checked += 1
    assert checked > 5


def test_row_counts_and_label_sets(data):
    assert len(data.train) == 432
    assert len(data.test) == 576
    assert Counter(row.true_label for row in data.train) == dict.fromkeys(INTENTS, 36)
    assert Counter(row.true_label for row in data.test) == dict.fromkeys(INTENTS, 48)
    assert {row.label for row in data.train} == {row.label for row in data.test} == set(INTENTS)


def test_a_third_of_the_train_labels_is_wrong_and_no_test_label(data):
    wrong = [row for row in data.train if row.label != row.true_label]
    assert len(wrong) == 144
    assert all(row.label == row.true_label for row in data.test)


def test_wrong_labels_are_mostly_the_neighbour(data):
    wrong = [row for row in data.train if row.label != row.true_label]
    neighbours = sum(INTENTS[row.true_label].neighbour == row.label for row in wrong)
    # 144 draws at 0.75 have a standard deviation of 0.036.
    assert 0.62 < neighbours / len(wrong) < 0.88
    others = {row.label for row in wrong if INTENTS[row.true_label].neighbour != row.label}
    assert len(others) > 6


def test_the_true_intent_is_still_the_most_frequent_label(data):
    for name in INTENTS:
        labels = Counter(row.label for row in data.train if row.true_label == name)
        assert labels.most_common(1)[0][0] == name


def test_order_tells_nothing_about_labels(data):
    for split in (data.train, data.test):
        neighbours_equal = sum(a.true_label == b.true_label for a, b in zip(split, split[1:], strict=False))
        assert neighbours_equal / len(split) < 0.2


def test_files_hold_the_rows_and_only_the_noisy_labels_are_in_the_training_file(data, tmp_path):
    paths = demo_data.write(data, tmp_path / "new" / "folder")
    for split in ("train", "test"):
        raw = paths[split].read_bytes()
        assert b"\r" not in raw
        with paths[split].open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["sentence", "label"]
        assert rows[1:] == [[row.sentence, row.label] for row in getattr(data, split)]
    origin = pd.read_csv(paths["origin"])
    assert list(origin.columns) == ["split", "sentence", "label", "true_label", "template"]
    assert list(origin["true_label"]) == [row.true_label for row in data.train + data.test]
    assert list(origin["template"]) == [row.template for row in data.train + data.test]
    assert Counter(origin["split"]) == {"train": 432, "test": 576}
