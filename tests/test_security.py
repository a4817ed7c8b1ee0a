"""What docs/security.md promises: no code comes out of files, and no file name out of data."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers.trainer import safe_globals

import run_glue_mixup
from hf_mixup.errors import UsageError
from tests.data_files import labelled_sentences, write_csv

TRAIN = ["--do_train", "--max_steps", "4", "--save_steps", "2", "--per_device_train_batch_size", "4"]
COMMON = ["--max_seq_length", "16", "--use_cpu", "true", "--log_level", "error", "--disable_tqdm", "true"]
WRITTEN_BY_TORCH = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


class Touch:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path) -> Path:
    """What foreign code would write, if it ran."""
    return tmp_path / "foreign code was here"


@pytest.fixture
def run(tiny_bert_folder, tmp_path):
    """Run the script on sentences with three labels, into `out`."""
    rows = labelled_sentences(["red", "green", "blue"], 12)
    train = write_csv(tmp_path / "train.csv", ("sentence", "label"), rows)

    def call(*flags, model=tiny_bert_folder):
        argv = ["--model_name_or_path", str(model), "--output_dir", str(tmp_path / "out"), "--train_file", train]
        return run_glue_mixup.main([*argv, *COMMON, *map(str, flags)])

    return call


def test_weights_are_safetensors_and_the_rest_reads_without_running_code(run, tmp_path):
    run(*TRAIN, "--mixup_method", "amplify")
    files = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    by_torch = {path for path in files if path.read_bytes()[:2] == b"PK"}
    assert {path.name for path in by_torch} == {*WRITTEN_BY_TORCH, "training_args.bin"}
    assert not {path for path in files - by_torch if path.read_bytes()[:1] == b"\x80"}
    for path in by_torch:
        if path.name != "training_args.bin":
            with safe_globals():
                torch.load(path, weights_only=True)
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} == {
        *("out", "checkpoint-2", "checkpoint-4")
    }


@pytest.mark.parametrize(
    "name", ["optimizer.pt", *(pytest.param(n, marks=pytest.mark.slow) for n in ("scheduler.pt", "rng_state.pth"))]
)
def test_a_pickle_in_a_checkpoint_is_not_loaded(run, tmp_path, mark, name):
    run(*TRAIN)
    folder = tmp_path / "out" / "checkpoint-2"
    torch.save({"state": Touch(mark)}, folder / name)
    with pytest.raises(UsageError, match=name):
        run(*TRAIN, "--resume_from_checkpoint", folder)
    assert not mark.exists()
    torch.load(folder / name, weights_only=False)
    assert mark.exists()  # so much for loading it as it is


def test_the_arguments_in_a_checkpoint_are_not_read_at_all(run, tmp_path, mark):
    run(*TRAIN)
    folder = tmp_path / "out" / "checkpoint-2"
    torch.save(Touch(mark), folder / "training_args.bin")
    run(*TRAIN, "--resume_from_checkpoint", folder)
    assert not mark.exists()


def test_a_pickle_in_a_model_folder_is_not_loaded(run, tmp_path, mark, tiny_bert_folder):
    model = Path(shutil.copytree(tiny_bert_folder, tmp_path / "model"))
    (model / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Touch(mark)}, model / "pytorch_model.bin")
    with pytest.raises(UsageError, match="could not be loaded"):
        run(*TRAIN, model=model)
    assert not mark.exists()


def test_settings_in_yaml_are_plain_data(run, tmp_path, mark):
    (tmp_path / "run.yaml").write_text(f"seed: !!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    with pytest.raises(UsageError, match="is not valid YAML: could not determine a constructor"):
        run(*TRAIN, "--config", tmp_path / "run.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_code_in_a_model_folder_runs_only_if_it_is_trusted(
    run, tmp_path, mark, tiny_bert_folder, trusted, monkeypatch
):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = Path(shutil.copytree(tiny_bert_folder, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config["model_type"] = "unheard-of"
    config["auto_map"] = {
        "AutoConfig": "theirs.TheirConfig",
        "AutoModelForSequenceClassification": "theirs.TheirModel",
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "theirs.py").write_text(
        "from pathlib import Path\nfrom transformers import BertConfig, BertForSequenceClassification\n"
        f"Path({str(mark)!r}).touch()\n"
        "class TheirConfig(BertConfig):\n    model_type = 'unheard-of'\n"
        "class TheirModel(BertForSequenceClassification):\n    config_class = TheirConfig\n"
    )
    if trusted:
        run(*TRAIN, "--trust_remote_code", "true", model=model)
    else:
        with pytest.raises(UsageError, match="could not be loaded"):
            run(*TRAIN, model=model)
    assert mark.exists() == trusted


def test_names_in_the_data_never_become_paths(run, tmp_path):
    names = ["../outside", str(tmp_path / "absolute"), "a/b", "..", "C:\\x"]
    rows = labelled_sentences(names, 15)
    # In place of the train file of the fixture.
    file = write_csv(tmp_path / "train.csv", ("sentence", "label"), rows)
    splits = ["--validation_file", file, "--test_file", file]
    run(*TRAIN, *splits, "--do_eval", "--do_predict", "--mixup_method", "amplify", "--save_strategy", "no")
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {"train.csv", "out"}
    assert all(Path(name).parent == Path("out") for name in made)
    assert "out/predict_results_None.txt" in made


@pytest.mark.parametrize("flag", ["--task_name", "--mixup_method"])
def test_names_on_the_command_line_that_become_file_names_are_from_a_list(run, tmp_path, flag):
    with pytest.raises(UsageError, match="choose one of"):
        run(*TRAIN, flag, "../outside")
    assert not (tmp_path / "out").exists()


def test_every_test_that_the_page_names_exists():
    """`tests/a.py::test_b` names a test, and a later `::test_c` another one of the same file."""
    root, file, named = Path(__file__).parents[1], None, 0
    page = (root / "docs" / "security.md").read_text(encoding="utf-8")
    for path, test in re.findall(r"`(tests/[\w/]+(?:\.py)?)?(?:::(\w+))?`", page):
        file = root / path if path else file
        assert file.exists(), file
        if test:
            definitions = ast.parse(file.read_text(encoding="utf-8")).body
            assert test in {getattr(node, "name", None) for node in definitions}, f"{file.name} has no {test}"
            named += 1
    assert named > 20
