"""What a run finds in its output folder: links, checkpoints of an earlier run, another run that is at work."""

import json
import logging
import os
import shutil
import threading

import optuna
import pytest
from transformers import TrainerCallback

import run_glue_mixup
from hf_mixup import MixupTrainer, MixupTrainingArguments, SaveError
from hf_mixup.errors import UsageError
from hf_mixup.files import LOCK, alone
from hf_mixup.trainer.checkpoints import checkpoints
from tests.script import MIX, flags
from tests.tiny import same_weights, tiny_dataset, tiny_model
from tests.trainer.runs import STRONG, train

SAVING = {**STRONG, "save_strategy": "steps", "save_steps": 3}
STEPS = ("--do_train", "--do_eval", "--do_predict", *MIX, "--save_steps", "1")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def saved(folder):
    return [name for name in names(folder) if "checkpoint" in name]


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of six steps, saved after the third and the sixth; for reading only."""
    folder = tmp_path_factory.mktemp("run") / "out"
    train(folder, **SAVING)
    return folder


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


# ---- Checkpoints of an earlier run ----


def test_a_new_run_renames_the_checkpoints_of_the_earlier_one(out, caplog):
    before = {step: content(out / f"checkpoint-{step}") for step in (3, 6)}
    with caplog.at_level(logging.WARNING):
        train(out, **{**SAVING, "save_steps": 4, "max_steps": 4})
    assert names(out) == ["checkpoint-4", "old-checkpoint-3", "old-checkpoint-6"]
    assert {step: content(out / f"old-checkpoint-{step}") for step in (3, 6)} == before
    (line,) = [record.getMessage() for record in caplog.records if "earlier run" in record.getMessage()]
    assert line == (
        f"{out} holds the checkpoints of an earlier run: they are now called old-checkpoint-3, old-checkpoint-6; "
        "overwrite_output_dir removes them instead."
    )
    # A later resume does not take them.
    resumed = train(out, **{**SAVING, "save_steps": 4, "max_steps": 4}, resume=True)
    assert resumed.state.global_step == 4 and checkpoints(str(out)) == [out / "checkpoint-4"]


def test_a_third_run_finds_another_name(out):
    for _ in range(2):
        train(out, **{**SAVING, "max_steps": 3})
    assert names(out) == ["checkpoint-3", "old-checkpoint-3", "old-checkpoint-3-2", "old-checkpoint-6"]


def test_a_run_that_saves_nothing_renames_them_too(out):
    """A resume would else go on with the earlier run."""
    train(out, max_steps=1)
    assert names(out) == ["old-checkpoint-3", "old-checkpoint-6"]


def test_overwrite_output_dir_removes_them(out, caplog):
    with caplog.at_level(logging.WARNING):
        train(out, **{**SAVING, "save_steps": 4, "max_steps": 4}, overwrite_output_dir=True)
    assert names(out) == ["checkpoint-4"]
    (line,) = [record.getMessage() for record in caplog.records if "earlier run" in record.getMessage()]
    assert line == (
        f"{out} holds the checkpoints of an earlier run: checkpoint-3, checkpoint-6 are removed, as "
        "overwrite_output_dir says."
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_goes_on_keeps_its_checkpoints(out, overwrite):
    shutil.rmtree(out / "checkpoint-6")
    for resume in (True, str(out / "checkpoint-3")):
        train(out, **SAVING, resume=resume, overwrite_output_dir=overwrite)
        assert names(out) == ["checkpoint-3", "checkpoint-6"]


def test_a_run_that_goes_on_from_another_folder_keeps_none(finished, out, tmp_path):
    """Those that it finds are not its own."""
    straight = train(tmp_path / "straight", **SAVING)
    resumed = train(out, tiny_model("bert", seed=5), **SAVING, resume=str(finished / "checkpoint-3"))
    assert same_weights(resumed.model, straight.model)
    assert names(out) == ["checkpoint-6", "old-checkpoint-3", "old-checkpoint-6"]
    assert names(finished) == ["checkpoint-3", "checkpoint-6"]


def test_rotation_and_the_best_model_are_those_of_the_new_run(out):
    evaluated = {"trainer_options": {"eval_dataset": tiny_dataset(seed=1)}, "eval_strategy": "steps", "eval_steps": 2}
    best = {"load_best_model_at_end": True, "save_total_limit": 1, "save_steps": 2}
    trainer = train(out, **{**SAVING, **best}, **evaluated)
    new = [name for name in names(out) if not name.startswith("old-")]
    assert names(out) == sorted([*new, "old-checkpoint-3", "old-checkpoint-6"])
    assert os.path.basename(trainer.state.best_model_checkpoint) in new and len(new) <= 2


def test_smaller_batches_are_tried_without_renaming_what_was_saved(tmp_path, monkeypatch):
    """With auto_find_batch_size the training begins again, in the same run."""
    step, failed = MixupTrainer.training_step, []

    def full(self, *args, **kwargs):
        if self.state.global_step == 4 and not failed:
            failed.append(True)
            raise RuntimeError("CUDA out of memory.")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(MixupTrainer, "training_step", full)
    train(tmp_path, **SAVING, auto_find_batch_size=True)
    assert failed and names(tmp_path) == ["checkpoint-3", "checkpoint-6"]


def test_trials_of_a_second_search_rename_those_of_the_first(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arguments = MixupTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, save_steps=2, report_to="none", disable_tqdm=True, use_cpu=True
    )
    for _ in range(2):
        trainer = MixupTrainer(
            args=arguments,
            model_init=lambda: tiny_model("bert"),
            train_dataset=tiny_dataset(),
            eval_dataset=tiny_dataset(),
        )
        trainer.hyperparameter_search(hp_space=lambda trial: {"seed": trial.suggest_int("seed", 1, 9)}, n_trials=2)
    for number in range(2):
        assert names(tmp_path / f"run-{number}") == ["checkpoint-2", "old-checkpoint-2"]


def test_the_folder_of_a_trial_that_is_a_link_is_refused(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (tmp_path / "other" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run-0").symlink_to(tmp_path / "other")
    arguments = MixupTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True
    )
    arguments.overwrite_output_dir = True
    data = {"train_dataset": tiny_dataset(), "eval_dataset": tiny_dataset()}
    trainer = MixupTrainer(args=arguments, model_init=lambda: tiny_model("bert"), **data)
    with pytest.raises(UsageError, match="run-0 is a link"):
        trainer.hyperparameter_search(hp_space=lambda trial: {"seed": trial.suggest_int("seed", 1, 9)}, n_trials=1)
    assert names(tmp_path / "other") == ["checkpoint-2"]


def test_the_script_renames_where_it_trains_and_only_there(run, sentences, tmp_path):
    out = tmp_path / "out"
    run(*flags(sentences), *STEPS)
    run(*flags(sentences, "validation"), "--do_eval", model=out)
    assert saved(out) == ["checkpoint-1", "checkpoint-2"]
    # A mistake that ends the run before it trains renames nothing.
    with pytest.raises(UsageError):
        run(*flags(sentences), *STEPS, "--label_column_name", "missing")
    run(*flags(sentences), *STEPS, "--save_steps", "2")
    assert saved(out) == ["checkpoint-2", "old-checkpoint-1", "old-checkpoint-2"]
    run(*flags(sentences), *STEPS, "--overwrite_output_dir")
    assert saved(out) == ["checkpoint-1", "checkpoint-2", "old-checkpoint-1", "old-checkpoint-2"]


# ---- Links ----


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_file_of_a_run_is_written_through_a_link(run, sentences, tmp_path, link):
    """Every file that a run writes is a link to one of somebody else's when the next run comes."""
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    run(*flags(sentences), *STEPS)
    theirs.mkdir()
    written = [path for path in out.iterdir() if path.is_file()]
    for name in ("README.md", "all_results.json", "config.json", "model.safetensors", "predict_results_None.txt"):
        assert out / name in written
    for path in written:
        path.rename(theirs / path.name)
        for place in (path, out / f"_part-of-{path.name}"):
            link(theirs / path.name, place)
    before = content(theirs)
    run(*flags(sentences), *STEPS, "--seed", "7", "--overwrite_output_dir")
    assert content(theirs) == before
    for path in written:
        assert not path.is_symlink() and path.stat().st_nlink == 1
    # Those of the second run are of another seed.
    assert (out / "model.safetensors").read_bytes() != (theirs / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["checkpoint-6", "checkpoint-700", "last-good-weights"])
def test_a_folder_that_is_a_link_is_refused_before_the_run(run, sentences, finished, tmp_path, name):
    out, before = tmp_path / "out", content(finished)
    out.mkdir()
    (out / "runs").mkdir()
    (out / name).symlink_to(finished / "checkpoint-6")
    with pytest.raises(UsageError, match=f"{out}/{name} is a link to {finished}/checkpoint-6, which would be written"):
        run(*flags(sentences), *STEPS)
    assert names(out) == sorted([name, "runs"]) and content(finished) == before


@pytest.mark.parametrize("options", [{}, {"overwrite_output_dir": True}])
def test_the_trainer_refuses_a_checkpoint_that_is_a_link(out, finished, options):
    shutil.rmtree(out / "checkpoint-6")
    (out / "checkpoint-6").symlink_to(finished / "checkpoint-6")
    before = content(finished)
    with pytest.raises(ValueError, match=f"{out}/checkpoint-6 is a link to {finished}/checkpoint-6"):
        train(out, **SAVING, **options)
    assert names(out) == ["checkpoint-3", "checkpoint-6"] and content(finished) == before


class Links(TrainerCallback):
    """Puts something in the place of the next checkpoint while the run is at work."""

    def __init__(self, place, make):
        self.place, self.make = place, make

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            self.make(self.place)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_that_comes_while_it_trains_is_not_written_through(finished, tmp_path, kind):
    out, before = tmp_path / "out", content(finished)
    target = finished / "checkpoint-6"
    make = (lambda place: place.symlink_to(target)) if kind == "link" else (lambda place: place.write_text("theirs"))
    callback = Links(out / "checkpoint-6", make)
    with pytest.raises(SaveError, match=f"{out}/checkpoint-6 could not be saved .it is a {kind}.*: remove it, and go"):
        train(out, **SAVING, trainer_options={"callbacks": [callback]})
    assert content(finished) == before and names(out) == ["checkpoint-3", "checkpoint-6"]
    # Nothing that was trained is lost.
    (out / "checkpoint-6").unlink()
    assert train(out, tiny_model("bert", seed=5), **SAVING, resume=True).state.global_step == 6


def test_the_output_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "scratch")
    train(tmp_path / "out", **SAVING)
    train(tmp_path / "out", **SAVING, resume=True)
    assert names(tmp_path / "scratch") == ["checkpoint-3", "checkpoint-6"]


# ---- Another run that is at work ----


@pytest.fixture
def at_work(tmp_path):
    """The output folder of a run that is at work."""
    folder = tmp_path / "out"
    with alone(folder / LOCK, "unused"):
        yield folder


def test_a_second_run_is_refused_before_anything_is_written(at_work, sentences, tiny_bert_folder, tmp_path, capsys):
    code = []
    words = ["--model_name_or_path", tiny_bert_folder, "--output_dir", str(at_work), *flags(sentences), *STEPS]
    # A lock belongs to a thread.
    thread = threading.Thread(target=lambda: code.append(run_glue_mixup.cli([*words, "--use_cpu"])))
    thread.start()
    thread.join()
    said = capsys.readouterr().err.splitlines()
    assert code == [2] and said == [
        f"another run writes into {at_work}, and one of the two models would be lost; wait until it ends, or give "
        "another output_dir"
    ]
    assert names(at_work) == [LOCK]


def test_a_trainer_is_refused_too_and_the_lock_is_gone_when_it_ends(tmp_path):
    seen = []

    class Second(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                thread = threading.Thread(target=self.second)
                thread.start()
                thread.join()

        def second(self):
            try:
                train(tmp_path, **SAVING, max_steps=1)
            except ValueError as error:
                seen.append(str(error))

    train(tmp_path, **SAVING, trainer_options={"callbacks": [Second()]})
    assert len(seen) == 1 and seen[0].startswith(f"another run writes into {tmp_path}, and one of the two models")
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6"]


def test_what_a_killed_run_leaves_is_no_lock_and_an_empty_folder(run, sentences, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).touch()
    run(*flags(sentences), *STEPS)
    assert LOCK not in names(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 2


def test_a_mistake_leaves_no_folder(run, sentences, tmp_path):
    with pytest.raises(UsageError):
        run(*flags(sentences), *STEPS, "--label_column_name", "missing", out=tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
