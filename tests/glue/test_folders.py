"""Which folders a run may read and write."""

import pytest
import torch

from hf_mixup.glue import folders
from hf_mixup.glue.errors import UsageError, as_one_line, first_line, listed, nearest
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["all_results.json", "notes.txt"],
        ["checkpoint-500/", "other/"],
        ["predict_results_None.txt"],
        ["trainer_state.json"],
        ["runs/"],
    ],
)
def test_output_folders_of_earlier_runs(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    folders.check_output_dir(str(tmp_path))


@pytest.mark.parametrize(
    "names", [["thesis.txt"], ["config.json", "model.safetensors"], ["runs/", "b"], [".git/"], ["checkpoint-x/"]]
)
def test_output_folders_of_others(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(UsageError, match="holds something else than a run of this script"):
        folders.check_output_dir(str(tmp_path))


def test_an_output_folder_that_is_new_or_a_file(tmp_path):
    folders.check_output_dir(str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        folders.check_output_dir(str(tmp_path / "file"))


def test_which_checkpoint_is_meant(tmp_path):
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    for text in ("true", "True"):
        assert folders.find_checkpoint(text, str(tmp_path)) == str(tmp_path / "checkpoint-10")
    named = str(tmp_path / "checkpoint-9")
    assert folders.find_checkpoint(named, "elsewhere") == named
    assert folders.find_checkpoint(None, str(tmp_path)) is None
    assert folders.find_checkpoint("False", str(tmp_path)) is None


@pytest.mark.parametrize(
    "name, sentence", [("true", "finds no checkpoint"), ("nowhere", "is no folder of a checkpoint")]
)
def test_a_checkpoint_that_is_not_there(tmp_path, name, sentence):
    for output_dir in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match=sentence):
            folders.find_checkpoint(name, str(output_dir))


def test_model_folders(tmp_path, tiny_bert_folder):
    folders.check_model_folder(tiny_bert_folder, None)
    folders.check_model_folder("bert-base-uncased", None)
    folders.check_model_folder("google/mobilebert-uncased", None)
    with pytest.raises(UsageError, match="does not exist"):
        folders.check_model_folder(str(tmp_path / "missing"), None)
    with pytest.raises(UsageError, match="has no config.json"):
        folders.check_model_folder(str(tmp_path), None)
    (tmp_path / "config.json").touch()
    with pytest.raises(UsageError, match="has no weights"):
        folders.check_model_folder(str(tmp_path), None)
    with pytest.raises(UsageError, match="is a file"):
        folders.check_model_folder(str(tmp_path / "config.json"), None)


def test_the_longest_input_is_what_the_model_can_embed(family):
    model = tiny_model(family)
    length = folders.longest_input(model)
    model(input_ids=torch.full((1, length), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 7))


def test_words_about_errors():
    assert nearest("Lable", ["sentence", "label"]) == "label"
    assert nearest("xyz", ["sentence", "label"]) is None
    assert listed(range(4), limit=2) == "0, 1 and 2 more"
    assert first_line(ValueError("\n one. \n two")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert as_one_line(ValueError("one\n  two")) == "one two"


def test_results_are_read_back(tmp_path):
    assert folders.read_results(str(tmp_path)) == {}
    (tmp_path / "all_results.json").write_text('{"eval_accuracy": 0.5}')
    assert folders.read_results(str(tmp_path)) == {"eval_accuracy": 0.5}
