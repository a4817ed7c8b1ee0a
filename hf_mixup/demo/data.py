"""SYNTHETIC customer requests: a small noisy training set and a clean test set from other templates.

Nothing here was written by a customer. Each sentence is a hand-written template (`hf_mixup.demo.templates`) with
filled slots, sometimes a greeting, a closing and a typing error. A third of the training labels is wrong, as when
annotators are in a hurry: mostly the confusable neighbour of the true intent, sometimes any other intent.
"""

import csv
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_mixup.demo.templates import CLOSERS, INTENTS, OPENERS, SLOTS
from hf_mixup.files import written_beside

TRAIN_ROWS_PER_TEMPLATE = 3
TEST_ROWS_PER_TEMPLATE = 6
WRONG_LABEL_SHARE = 1 / 3
NEIGHBOUR_SHARE = 0.75
OPENER_PROBABILITY = 0.4
CLOSER_PROBABILITY = 0.4
TYPO_PROBABILITY = 0.35


@dataclass(frozen=True)
class Request:
    """One synthetic customer request.

    Attributes:
        sentence: the text.
        label: the label as annotated, wrong in a third of the training rows.
        true_label: the intent whose template made the sentence.
        template: that template, with its slots unfilled.
    """

    sentence: str
    label: str
    true_label: str
    template: str


@dataclass(frozen=True)
class DemoData:
    """The two splits.

    Attributes:
        train: 432 requests (12 intents, 12 templates each, 3 rows per template), 144 of them with a wrong label.
        test: 576 requests (12 intents, 8 templates each, 6 rows per template), all with the true label.
    """

    train: tuple[Request, ...]
    test: tuple[Request, ...]


def generate(seed: int) -> DemoData:
    """Draw the synthetic data set.

    The same seed gives the same texts, labels and order on every machine. No text occurs twice, within a split or
    across the two, and no template serves both.

    Args:
        seed: a non-negative integer.

    Raises:
        ValueError: if `seed` is negative.

    Example:
        >>> data = generate(42)
        >>> len(data.train), len(data.test)
        (432, 576)
    """
    if seed < 0:
        raise ValueError(f"The data seed is {seed}, but it must be an integer of at least 0.")
    rng = np.random.default_rng(seed)
    taken: set[str] = set()
    train = _draw_split(rng, "train", TRAIN_ROWS_PER_TEMPLATE, taken)
    test = _draw_split(rng, "test", TEST_ROWS_PER_TEMPLATE, taken)
    return DemoData(train=tuple(_mislabel(rng, train)), test=tuple(test))


def write(data: DemoData, folder: str | Path) -> dict[str, Path]:
    """Write the data set as UTF-8 CSV files with `\\n` line ends, creating the folder if needed.

    `train.csv` and `test.csv` have the columns `sentence,label`. `origin.csv` tells how every row came about, with
    the columns `split,sentence,label,true_label,template`; training never reads it.

    Returns:
        The paths under the keys `train`, `test` and `origin`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.csv" for name in ("train", "test", "origin")}
    _write_csv(paths["train"], ["sentence", "label"], [[row.sentence, row.label] for row in data.train])
    _write_csv(paths["test"], ["sentence", "label"], [[row.sentence, row.label] for row in data.test])
    origin = [
        [split, row.sentence, row.label, row.true_label, row.template]
        for split, rows in (("train", data.train), ("test", data.test))
        for row in rows
    ]
    _write_csv(paths["origin"], ["split", "sentence", "label", "true_label", "template"], origin)
    return paths


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with written_beside(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _draw_split(rng: np.random.Generator, split: str, rows_per_template: int, taken: set[str]) -> list[Request]:
    rows = [
        Request(_draw_sentence(rng, template, taken), name, name, template)
        for name, intent in INTENTS.items()
        for template in getattr(intent, split)
        for _ in range(rows_per_template)
    ]
    return [rows[index] for index in rng.permutation(len(rows))]


def _draw_sentence(rng: np.random.Generator, template: str, taken: set[str]) -> str:
    while True:
        sentence = _phrase(rng, template)
        if sentence not in taken:
            taken.add(sentence)
            return sentence


def _phrase(rng: np.random.Generator, template: str) -> str:
    fillers = {name: _pick(rng, options) for name, options in SLOTS.items()}
    fillers["order"] = str(rng.integers(1000, 100000))
    fillers["number"] = str(rng.integers(2, 200))
    for name in ("item", "colour"):
        fillers[f"{name}2"] = _pick(rng, [option for option in SLOTS[name] if option != fillers[name]])
    opener = f"{_pick(rng, OPENERS)} " if rng.random() < OPENER_PROBABILITY else ""
    closer = f", {_pick(rng, CLOSERS)}" if rng.random() < CLOSER_PROBABILITY else ""
    sentence = f"{opener}{template}{closer}".replace("?,", "?").format_map(fillers)
    if rng.random() < TYPO_PROBABILITY:
        for _ in range(rng.integers(1, 3)):
            sentence = _mistype(rng, sentence)
    return sentence


def _mistype(rng: np.random.Generator, sentence: str) -> str:
    """Drop, double, swap or replace one inner letter of one word of at least four letters."""
    words = sentence.split(" ")
    candidates = [index for index, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not candidates:
        return sentence
    chosen = _pick(rng, candidates)
    word = words[chosen]
    at = int(rng.integers(1, len(word) - 1))
    edits = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + _pick(rng, string.ascii_lowercase) + word[at + 1 :],
    )
    words[chosen] = _pick(rng, edits)
    return " ".join(words)


def _mislabel(rng: np.random.Generator, rows: list[Request]) -> list[Request]:
    """Give a fixed number of randomly chosen rows a wrong label, mostly the neighbour of the true one."""
    noisy = list(rows)
    for index in rng.permutation(len(rows))[: round(len(rows) * WRONG_LABEL_SHARE)]:
        row = rows[index]
        neighbour = INTENTS[row.true_label].neighbour
        if rng.random() < NEIGHBOUR_SHARE:
            wrong = neighbour
        else:
            wrong = _pick(rng, [name for name in INTENTS if name not in (row.true_label, neighbour)])
        noisy[index] = Request(row.sentence, wrong, row.true_label, row.template)
    return noisy


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]
