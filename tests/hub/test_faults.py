"""A hub that fails: nothing that was trained is lost, and one sentence says what to do."""

from __future__ import annotations

import logging
import re
import shlex

import pytest
import torch
from safetensors.torch import load, load_file
from transformers import AutoModelForSequenceClassification

import run_glue_mixup
from hf_mixup.cli import main as command
from hf_mixup.errors import UsageError
from hf_mixup.hub import HubError, open_repository
from tests.hub.conftest import ROOT
from tests.hub.server import TOKEN
from tests.hub.test_push import trainer

COMMIT, PUT, PREUPLOAD, CREATE = "POST .*/commit/", "PUT /lfs/", "POST .*/preupload/", "POST /api/repos/create"
# What fails from then on, and what the sentence says about it.
LASTING = {
    "401": (COMMIT, 401, "the access token is missing, wrong or expired (401; set HF_TOKEN, or run hf auth login)"),
    "403": (COMMIT, 403, "the access token does not allow it (403; it must be one that may write there)"),
    "409": (COMMIT, 409, "another change of the repository came in between (409)"),
    "422": (COMMIT, 422, "the Hub answered 422 (a fault of the test)"),
    "500": (COMMIT, 500, "the Hub answered 500 (a fault of the test)"),
    "a connection cut in an upload": (PUT, None, "of a "),
    "a connection cut in the commit": (COMMIT, None, "of a "),
}
PASSING = {
    "500 to an upload": (PUT, 500, 2),
    "500 to the first question": (PREUPLOAD, 500, 1),
    "500 to the commit": (COMMIT, 500, 2),
    "503 to the creation": (CREATE, 503, 1),
    "429 to the commit": (COMMIT, 429, 1),
    "an upload cut once": (PUT, None, 1),
}


def some_slow(cases, *quick):
    """All cases of a table; those not named are slow tests."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture
def quiet(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [*flags, "--log_level", "error"]


def in_repository(repository, folder) -> bool:
    """Whether the weights in the repository are those on disk."""
    pushed, saved = load(repository.files["model.safetensors"]), load_file(folder / "model.safetensors")
    return pushed.keys() == saved.keys() and all(torch.equal(pushed[name], saved[name]) for name in saved)


def retried(sentence: str) -> list[str]:
    """The arguments of the command that a sentence ends with."""
    words = shlex.split(sentence[sentence.rindex("hf-mixup push") :])
    assert words[:2] == ["hf-mixup", "push"]
    return words[1:]


@pytest.mark.parametrize("fault", some_slow(LASTING, "403", "500", "a connection cut in an upload"))
def test_after_a_failed_push_all_is_on_disk_and_the_named_command_uploads_it(here, quiet, tmp_path, capsys, fault):
    request, status, reason = LASTING[fault]
    here.fail(request, status)
    assert run_glue_mixup.cli([*quiet, "--hub_strategy", "end", "--hub_private_repo", "true"]) == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the upload to me/tiny failed because {reason}" in sentence
    assert sentence.endswith("; the model is saved in out, to upload it later: hf-mixup push out me/tiny --private")
    assert TOKEN not in sentence
    out = tmp_path / "out"
    assert {"README.md", "all_results.json", "trainer_state.json"} <= {path.name for path in out.iterdir()}
    assert AutoModelForSequenceClassification.from_pretrained(out).config.num_labels == 3
    assert "model.safetensors" not in here.repositories["me/tiny"].files

    # It still fails, and says so; then it works.
    assert command(retried(sentence)) == 1
    again = capsys.readouterr().err.strip().splitlines()[-1]
    assert again.endswith("; to try again: hf-mixup push out me/tiny --private")
    here.faults.clear()
    assert command(retried(again)) == 0
    repository = here.repositories["me/tiny"]
    assert in_repository(repository, out) and repository.private and "README.md" in repository.files


@pytest.mark.parametrize("fault", some_slow(PASSING, "500 to an upload", "500 to the commit"))
def test_trouble_that_passes_is_waited_out(here, tmp_path, fault):
    request, status, times = PASSING[fault]
    here.fail(request, status, times)
    run = trainer(tmp_path / "tiny", push_to_hub=True)
    run.train()
    run.push_to_hub()
    assert all(left.times == 0 for left in here.faults)
    assert in_repository(here.repositories["me/tiny"], tmp_path / "tiny")


@pytest.mark.parametrize("status", some_slow([401, 403, 500, None], 401))
def test_a_repository_that_cannot_be_opened_stops_the_run_before_the_training(here, quiet, tmp_path, capsys, status):
    here.fail(CREATE, status)
    assert run_glue_mixup.cli(quiet) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("the repository me/tiny could not be opened on the Hub because ")
    assert sentence.endswith("; mend that, or leave push_to_hub out and upload the model afterwards by hf-mixup push")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_existing_repository_may_forbid_its_creation(here, tmp_path):
    """The token of a continuous integration may write into one repository, and create none: 403, and all is well."""
    trainer(tmp_path / "tiny", push_to_hub=True).push_to_hub()
    here.fail(CREATE, 403)
    run = trainer(tmp_path / "tiny", push_to_hub=True, hub_model_id="me/tiny")
    run.push_to_hub("Again")
    assert here.repositories["me/tiny"].messages == ["End of training", "Again"]


def test_a_trainer_saves_before_it_opens_the_repository(here, tmp_path):
    run = trainer(tmp_path / "tiny", hub_model_id="me/tiny")
    here.fail(CREATE, 401)
    with pytest.raises(HubError, match="to upload it later: hf-mixup push .*/tiny me/tiny --revision dev$"):
        run.push_to_hub(revision="dev")
    assert {"model.safetensors", "README.md"} <= {path.name for path in (tmp_path / "tiny").iterdir()}
    with pytest.raises(HubError, match="to upload it later"):
        run.push_to_hub(blocking=True)


@pytest.mark.parametrize("status", some_slow([403, None], 403))
def test_a_failing_push_in_the_middle_of_the_training_changes_nothing(here, tmp_path, caplog, status):
    here.fail(COMMIT, status, times=1)
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    run = trainer(tmp_path / "tiny", push_to_hub=True, hub_strategy="every_save", hub_always_push=True, **saving)
    with caplog.at_level(logging.WARNING):
        run.train()
    assert len(re.findall("the training goes on, and the next checkpoint is pushed again", caplog.text)) == 1
    assert here.repositories["me/tiny"].messages == [f"Training in progress, step {step}" for step in (2, 3)]
    alone = trainer(tmp_path / "alone", **saving)
    alone.train()
    weights = alone.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in run.model.state_dict().items())
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {f"checkpoint-{step}" for step in (1, 2, 3)}


def test_without_space_for_the_snapshot_the_training_goes_on(here, tmp_path, caplog, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_mixup.trainer.hub.snapshot", full)
    run = trainer(tmp_path / "tiny", push_to_hub=True, save_strategy="steps", save_steps=1)
    with caplog.at_level(logging.WARNING):
        assert run.train().global_step == 2
    assert "checkpoint-1 is not pushed, it could not be copied for that: [Errno 28] No space left" in caplog.text


def test_a_push_that_still_runs_is_not_joined_by_another(here, tmp_path, monkeypatch):
    class Running:
        jobs = []

        def is_done(self):
            return False

        def wait_until_done(self):
            pass

    run = trainer(tmp_path / "tiny", push_to_hub=True, save_strategy="steps", save_steps=1)
    run.push_in_progress = Running()
    run.train()
    assert here.repositories["me/tiny"].messages == []


def test_without_network_it_is_a_sentence_too():
    with pytest.raises(HubError, match="on the Hub because HF_HUB_OFFLINE=1 switches the Hub off .unset it"):
        open_repository("me/tiny")


def test_what_a_killed_run_left_is_removed(here, tmp_path):
    (tmp_path / "tiny" / "_part-of-push-abc").mkdir(parents=True)
    trainer(tmp_path / "tiny", push_to_hub=True)
    assert not (tmp_path / "tiny" / "_part-of-push-abc").exists()


def test_a_name_that_no_repository_can_have(here, quiet):
    with pytest.raises(UsageError, match="the repository me/a/b could not be opened on the Hub because"):
        run_glue_mixup.main([*quiet, "--hub_model_id", "me/a/b"])


# ---- As real processes, where the client pauses as it does -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "fault"), [("every_save", "403"), ("end", "a connection cut in an upload")])
def test_a_process_ends_with_code_1_and_the_command(process, server, flags, tmp_path, strategy, fault):
    request, status, reason = LASTING[fault]
    server.fail(request, status)
    done = process(
        ROOT / "run_glue_mixup.py", *flags, "--hub_strategy", strategy, "--save_steps", "2", "--log_level", "warning"
    )
    assert done.returncode == 1, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert f"the upload to me/tiny failed because {reason}" in sentence and "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert ("the training goes on" in done.stdout) == (strategy == "every_save")
    server.faults.clear()
    pushed = process("-m", "hf_mixup.cli", *retried(sentence))
    assert pushed.returncode == 0, pushed.stderr
    assert in_repository(server.repositories["me/tiny"], tmp_path / "out")
