"""Pushing models to a hub: the real client against the loopback server."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_mixup import MixupTrainer, MixupTrainingArguments
from hf_mixup.cli import main as command
from hf_mixup.hub import push_command
from tests.hub.conftest import ROOT
from tests.hub.server import TOKEN
from tests.tiny import SENTENCES, tiny_dataset, tiny_model

SCRIPT = ROOT / "run_glue_mixup.py"
# In a process that knows nothing of this library: the logits of the sentences given, by the pushed model.
LOAD = """
import sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
name, *texts = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(name).eval()
tokenizer = AutoTokenizer.from_pretrained(name)
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
assert "hf_mixup" not in sys.modules
torch.save(logits, "logits.pt")
"""
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def local_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(SENTENCES, padding=True, return_tensors="pt")).logits


def is_pickle(content: bytes) -> bool:
    """As the Hub's scanner sees it: a pickle, also inside of the zip file that torch.save writes."""
    return content[:1] == b"\x80" or (content[:2] == b"PK" and b"data.pkl" in content)


def trainer(folder: Path, **options) -> MixupTrainer:
    options = {"save_strategy": "no", "max_steps": 2, "report_to": "none", "use_cpu": True, **options}
    args = MixupTrainingArguments(output_dir=str(folder), disable_tqdm=True, **options)
    return MixupTrainer(tiny_model("bert"), args, train_dataset=tiny_dataset(12), eval_dataset=tiny_dataset(6))


def saved_model(folder: Path) -> Path:
    """A folder as a finished run leaves it: with a model, and with files that belong to nobody else."""
    tiny_model("bert").save_pretrained(folder)
    torch.save({"any": "pickle"}, folder / "training_args.bin")
    (folder / "checkpoint-2").mkdir()
    torch.save({}, folder / "checkpoint-2" / "optimizer.pt")
    shutil.copy(folder / "model.safetensors", folder / "checkpoint-2")
    return folder


def test_the_script_pushes_and_plain_transformers_loads(process, server, flags, tmp_path):
    done = process(SCRIPT, *flags, "--hub_private_repo", "true", "--hub_token", TOKEN, token=None)
    assert done.returncode == 0, done.stderr
    repository = server.repositories["me/tiny"]
    assert repository.private and set(repository.files) >= {*MODEL_FILES, "README.md", "all_results.json"}
    assert not any(is_pickle(content) for content in server.objects.values())
    assert not any("training_args" in path or "checkpoint" in path for path in repository.files)
    assert repository.messages[-1] == "End of training"
    # The log names what goes up, and what does not.
    assert re.search(
        r"Uploading to me/tiny: README.md \(\d.* model.safetensors \(\d.*; not uploaded: .*training_args.bin",
        done.stdout,
    )

    loaded = process("-c", LOAD, "me/tiny", *SENTENCES)
    assert loaded.returncode == 0, loaded.stderr
    assert torch.equal(torch.load(tmp_path / "logits.pt"), local_logits(tmp_path / "out"))

    # The access token stands in nothing that the run has said, written or sent as a file.
    assert TOKEN not in done.stdout + done.stderr
    for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "home").rglob("*")]:
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert not any(TOKEN.encode() in content for content in [*repository.files.values(), *server.objects.values()])
    card = ModelCard(repository.files["README.md"].decode())
    assert "--hub_token $HF_TOKEN" in card.text and {"mixup", "amplify"} <= set(card.data.tags)


def test_the_push_command_uploads_the_model_and_nothing_else(here, tmp_path, capsys):
    folder = saved_model(tmp_path / "model")
    assert command(["push", str(folder), "tiny", "--private"]) == 0
    said = capsys.readouterr().out
    size = (folder / "model.safetensors").stat().st_size
    assert f"  {size / 1024:>6.1f} KiB  model.safetensors\n" in said and "config.json\n" in said
    assert "\nnot uploaded: checkpoint-2/, training_args.bin\n" in said
    assert said.endswith(f"\n{folder} is uploaded to {here.url}/me/tiny\n")
    assert here.repositories["me/tiny"].private
    assert set(here.repositories["me/tiny"].files) == {".gitattributes", "config.json", "model.safetensors"}
    # A second time the repository is there already.
    (folder / "eval_results.json").write_text("{}")
    assert command(["push", str(folder), "me/tiny", "--revision", "other"]) == 0
    assert "eval_results.json" in here.repositories["me/tiny"].files
    assert here.requests[-1] == "POST /api/models/me/tiny/commit/other"


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_the_push_command_wants_a_model(here, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert command(["push", str(tmp_path / name), "me/tiny"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hf-mixup push: the folder ") and said.count("\n") == 1
    assert here.requests == []


def test_every_save_pushes_the_model_of_the_checkpoint(here, tmp_path):
    run = trainer(
        tmp_path / "tiny", push_to_hub=True, hub_strategy="every_save", save_strategy="steps", save_steps=1,
        save_total_limit=1, hub_always_push=True,
    )  # fmt: skip
    run.train()
    repository = here.repositories["me/tiny"]
    assert repository.messages == ["Training in progress, step 1", "Training in progress, step 2"]
    assert set(repository.files) == {".gitattributes", "config.json", "model.safetensors"}
    weights = load(repository.files["model.safetensors"])
    assert all(torch.equal(weights[name], value) for name, value in run.model.state_dict().items())
    # The snapshot that was uploaded is gone.
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"checkpoint-2"}
    assert not any(is_pickle(content) for content in here.objects.values())


@pytest.mark.parametrize(
    ("strategy", "folder"),
    [
        ("checkpoint", "last-checkpoint"),
        pytest.param("all_checkpoints", "checkpoint-2", marks=pytest.mark.slow),
    ],
)
def test_whole_checkpoints_are_pushed_only_when_asked_for_and_resume(here, tmp_path, strategy, folder):
    options = {"push_to_hub": True, "hub_strategy": strategy, "save_strategy": "steps", "save_steps": 2}
    straight = trainer(tmp_path / "tiny", **options, max_steps=4)
    straight.train()
    repository = here.repositories["me/tiny"]
    step_2 = next(files for _, message, files in repository.commits if message.endswith("step 2, checkpoint"))
    state = {path: content for path, content in step_2.items() if path.startswith(f"{folder}/")}
    names = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "checksums.json")
    assert {f"{folder}/{name}" for name in names} <= set(state) and "checksums.json" not in step_2
    assert not any("training_args" in path for path in repository.files)
    # They hold nothing but tensors and numbers: no code runs when they are read.
    assert torch.load(io.BytesIO(state[f"{folder}/optimizer.pt"]), weights_only=True)["state"]

    copy = tmp_path / "copy" / "checkpoint-2"
    copy.mkdir(parents=True)
    for path, content in state.items():
        (copy / Path(path).name).write_bytes(content)
    resumed = trainer(tmp_path / "copy", save_strategy="no", max_steps=4)
    resumed.train(resume_from_checkpoint=str(copy))
    weights = straight.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in resumed.model.state_dict().items())


def test_end_pushes_once_and_a_trainer_pushes_without_the_option_too(here, tmp_path):
    run = trainer(tmp_path / "tiny", push_to_hub=True, hub_strategy="end", save_strategy="steps", save_steps=1)
    run.train()
    assert here.repositories["me/tiny"].messages == []
    info = run.push_to_hub(tags="ours")
    assert here.repositories["me/tiny"].messages == ["End of training"] and info.repo_url.repo_id == "me/tiny"
    assert not any("checkpoint" in path for path in here.repositories["me/tiny"].files)

    other = trainer(tmp_path / "other")
    other.model.add_model_tags(["theirs"])
    assert other.push_to_hub("A message", blocking=False, private=True, tags=["ours"]).result().commit_message
    repository = here.repositories["me/other"]
    assert repository.private and repository.messages == ["A message"]
    card = ModelCard(repository.files["README.md"].decode())
    assert card.data.tags == ["ours", "theirs", "generated_from_trainer"]
    # The name of the repository came from the hub, and the card knows it.
    assert 'model="me/other"' in card.text


@pytest.mark.slow
def test_the_model_in_the_repository_is_that_of_its_step_also_when_the_upload_is_slow(here, tmp_path, monkeypatch):
    """The checkpoint is removed, and the next one written, before the first upload has begun."""
    from hf_mixup import hub

    upload = hub.upload

    def slowly(*args, **kwargs):
        time.sleep(0.5)
        return upload(*args, **kwargs)

    monkeypatch.setattr(hub, "upload", slowly)
    run = trainer(
        tmp_path / "tiny", push_to_hub=True, hub_strategy="every_save", save_strategy="steps", save_steps=1,
        save_total_limit=1, hub_always_push=True, max_steps=3,
    )  # fmt: skip
    run.train()
    commits = here.repositories["me/tiny"].commits[1:]
    assert len({files["model.safetensors"] for _, _, files in commits}) == 3
    first = trainer(tmp_path / "one", save_strategy="steps", save_steps=1, max_steps=3)
    first.train()
    for step, (_, _, files) in enumerate(commits, start=1):
        assert files["model.safetensors"] == (tmp_path / f"one/checkpoint-{step}/model.safetensors").read_bytes()


def test_no_checkpoint_holds_the_token(tmp_path):
    run = trainer(tmp_path / "tiny", hub_token=TOKEN, save_strategy="steps", save_steps=1)
    run.train()
    run.save_model()
    files = [path for path in (tmp_path / "tiny").rglob("*") if path.is_file()]
    assert len(files) > 10 and not any(TOKEN.encode() in path.read_bytes() for path in files)
    saved = torch.load(tmp_path / "tiny" / "training_args.bin", weights_only=False)
    assert saved.hub_token is None and run.args.hub_token == TOKEN and saved.max_steps == 2


def test_the_push_command_is_quoted_for_the_shell():
    assert push_command("a b", "me/x", True, "dev") == "hf-mixup push 'a b' me/x --private --revision dev"


def test_the_numbers_of_a_run_are_in_the_repository(here, tmp_path):
    run = trainer(tmp_path / "tiny", push_to_hub=True)
    run.train()
    run.save_metrics("eval", run.evaluate())
    run.push_to_hub()
    files = here.repositories["me/tiny"].files
    assert json.loads(files["eval_results.json"])["eval_loss"] > 0
    assert re.search(r"\| evaluation set \| +\d\.\d{4} \|", files["README.md"].decode())
