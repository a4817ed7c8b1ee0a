"""A small task of four classes, and a grid over it that runs on tiny random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_mixup.compare.grid import Grid, make_grid
from tests.data_files import labelled_sentences, write_csv

CLASSES = ["red", "green", "blue", "grey"]
OPTIONS = {"max_steps": 2, "per_device_train_batch_size": 4, "max_seq_length": 16, "learning_rate": 1e-3}


@pytest.fixture
def task_folder(tmp_path: Path) -> str:
    """A folder with train, test and OOD files; the held-out rows come from train."""
    folder = tmp_path / "colours"
    folder.mkdir()
    rows = labelled_sentences(CLASSES, 61)
    write_csv(folder / "train.csv", ("sentence", "label"), rows[:40])
    write_csv(folder / "test.csv", ("sentence", "label"), rows[40:])
    write_csv(folder / "ood.csv", ("sentence",), [("what is this",), ("where am i",)])
    return str(folder)


@pytest.fixture
def settings(task_folder: str, tiny_bert_folder: str) -> dict[str, Any]:
    """The settings of a grid of two methods and two seeds."""
    return {
        "tasks": [task_folder],
        "methods": ["none", "amplify:alpha=1:ratio=beta"],
        "seeds": "1-2",
        "models": [f"tiny={tiny_bert_folder}"],
        "options": OPTIONS,
    }


@pytest.fixture
def grid(settings: dict[str, Any]) -> Grid:
    """That grid."""
    return make_grid(settings)
