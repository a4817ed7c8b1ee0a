"""Fixtures: the loopback hub, for this process and for processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

import run_glue_mixup
from hf_mixup import hub as hub_module
from tests.data_files import labelled_sentences, write_csv
from tests.hub.server import TOKEN, HubServer

ROOT = Path(run_glue_mixup.__file__).parent


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture
def here(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The loopback hub, as the one that the client in this process talks to; nobody pauses between attempts."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_module, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=lambda seconds: None))
    hub_module._api.cache_clear()
    yield server
    hub_module._api.cache_clear()


@pytest.fixture
def process(server: HubServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run Python in a process whose hub is the loopback one."""

    def call(*words: object, token: str | None = TOKEN) -> subprocess.CompletedProcess:
        ours = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            ours.pop(name, None)
        return subprocess.run(
            [sys.executable, *map(str, words)],
            env={**ours, **server.environment(tmp_path / "home", token)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return call


@pytest.fixture
def flags(tiny_bert_folder: str, tmp_path: Path) -> list[str]:
    """Flags of a short run of the script that pushes to me/tiny."""
    rows = labelled_sentences(["red", "green", "blue"], 12)
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), rows)
    validation = write_csv(tmp_path / "validation.csv", ("sentence", "label"), rows[:6])
    data = ["--train_file", train, "--validation_file", validation, "--max_seq_length", "16"]
    training = [
        "--do_train",
        "--do_eval",
        "--max_steps",
        "4",
        "--per_device_train_batch_size",
        "4",
        "--use_cpu",
        "true",
    ]
    mixing = ["--mixup_method", "amplify", "--mixup_alpha", "0.5"]
    upload = ["--push_to_hub", "--hub_model_id", "me/tiny"]
    return [
        *[
            "--model_name_or_path",
            tiny_bert_folder,
            "--output_dir",
            "out",
            "--disable_tqdm",
            "true",
            "--use_cpu",
            "true",
        ],
        *[*data, *training, *mixing, *upload],
    ]
