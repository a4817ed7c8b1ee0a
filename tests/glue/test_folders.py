"""Which folders a run may read and write."""

import shutil

import pytest
import torch

from hf_mixup import MixupTrainingArguments
from hf_mixup.errors import UsageError, as_one_line, first_line, listed, nearest
from hf_mixup.glue import folders
from hf_mixup.trainer import saving
from tests.tiny import tiny_model
from tests.trainer.runs import train


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["all_results.json", "trainer_state.json", "notes.txt"],
        ["checkpoint-500/", "other/"],
        ["broken-checkpoint-500/", "broken-checkpoint-500-2/"],
        ["old-checkpoint-500/", "old-checkpoint-500-2/"],
        ["_in-use.lock"],
        ["last-good-weights/"],
        ["predict_results_None.txt"],
        ["trainer_state.json"],
        ["runs/"],
    ],
)
def test_output_folders_of_earlier_runs(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text('{"train_loss": 0.5}')
    folders.check_output_dir(str(tmp_path))


def test_what_a_full_disk_leaves_of_results_is_that_of_an_earlier_run(tmp_path):
    for names in (["all_results.json"], ["train_results.json", "runs"], ["_part-of-all_results.json"]):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        folders.check_output_dir(str(folder))
        assert saving.read_results(folder) == {}


def test_results_alone_are_known_by_what_they_hold(tmp_path):
    (tmp_path / "thesis.txt").touch()
    results = tmp_path / "all_results.json"
    for content in ('{"eval_accuracy": 0.5}', '{"train_loss": 0.5}'):
        results.write_text(content)
        folders.check_output_dir(str(tmp_path))
    for content in ('{"score": 1}', "[1]", "", "{"):
        results.write_text(content)
        with pytest.raises(UsageError, match="holds something else than a run of this script"):
            folders.check_output_dir(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000])
def test_results_that_cannot_be_added_to_are_refused_before_the_run(tmp_path, content):
    (tmp_path / "trainer_state.json").touch()
    (tmp_path / "all_results.json").write_text(content)
    with pytest.raises(UsageError, match="an all_results.json that cannot be read; delete it"):
        folders.check_output_dir(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.txt"],
        ["thesis.txt", "_in-use.lock"],
        ["config.json", "model.safetensors"],
        ["runs/", "b"],
        [".git/"],
        ["checkpoint-x/"],
    ],
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The output folder of a run that was saved after steps 9 and 10; for reading only."""
    folder = tmp_path_factory.mktemp("run") / "out"
    train(folder, max_steps=10, save_strategy="steps", save_steps=9)
    return folder


def arguments(output_dir, resume):
    return MixupTrainingArguments(output_dir=str(output_dir), use_cpu=True, resume_from_checkpoint=resume)


def test_which_checkpoint_is_meant(finished):
    for text in ("true", "True"):
        assert folders.find_checkpoint(arguments(finished, text)) == str(finished / "checkpoint-10")
    named = str(finished / "checkpoint-9")
    assert folders.find_checkpoint(arguments("elsewhere", named)) == named
    for text in (None, "False"):
        assert folders.find_checkpoint(arguments(finished, text)) is None


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("true", "--resume_from_checkpoint true: .* has no whole checkpoint to resume from: start afresh"),
        ("nowhere", "--resume_from_checkpoint nowhere: .* cannot be resumed from .it has no trainer_state.json"),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path, name, sentence):
    for output_dir in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match=sentence):
            folders.find_checkpoint(arguments(output_dir, name))


def test_a_checkpoint_that_was_not_finished(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "checkpoint-10" / "optimizer.pt").unlink()
    with pytest.raises(UsageError, match=f"{out}/checkpoint-10 .*it has no optimizer.pt"):
        folders.find_checkpoint(arguments(out, str(out / "checkpoint-10")))
    assert folders.find_checkpoint(arguments(out, "true")) == str(out / "checkpoint-9")
    assert sorted(path.name for path in out.iterdir()) == ["broken-checkpoint-10", "checkpoint-9"]


def test_model_folders(tmp_path, tiny_bert_folder):
    folders.check_model_folder(tiny_bert_folder, None, None)
    folders.check_model_folder("bert-base-uncased", None, None)
    folders.check_model_folder("google/mobilebert-uncased", None, None)
    with pytest.raises(UsageError, match="does not exist"):
        folders.check_model_folder(str(tmp_path / "missing"), None, None)
    with pytest.raises(UsageError, match="has no config.json"):
        folders.check_model_folder(str(tmp_path), None, None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="has no weights"):
        folders.check_model_folder(str(tmp_path), None, None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="has no tokenizer files; give --tokenizer_name"):
        folders.check_model_folder(str(tmp_path), None, None)
    folders.check_model_folder(str(tmp_path), None, tiny_bert_folder)
    with pytest.raises(UsageError, match="is a file"):
        folders.check_model_folder(str(tmp_path / "config.json"), None, None)


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
    assert saving.read_results(tmp_path) == {}
    (tmp_path / "all_results.json").write_text('{"eval_accuracy": 0.5}')
    assert saving.read_results(tmp_path) == {"eval_accuracy": 0.5}
