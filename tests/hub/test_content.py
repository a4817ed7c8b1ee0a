"""What of a folder is uploaded, and what stays behind: by the command, at the end of a run, with its checkpoints."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import transformers

from hf_mixup.cli import main as command
from hf_mixup.errors import UsageError
from hf_mixup.hub import CHECKPOINT_FILES, MODEL_FILES, content_of, push_command, snapshot
from tests.hub.test_push import saved_model, trainer
from tests.tiny import tiny_model

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----"
MODEL = {"config.json", "model.safetensors"}
STAYS = (
    *(
        ".env",
        ".netrc",
        "token",
        "train.csv",
        "data.jsonl",
        "data.json",
        ".ipynb_checkpoints/README.md",
        ".git/config",
    ),
    *("opt.PT", "a.BIN", "cache.dill", "f.pk", "x.pickle.gz", "training_args.bin", "pytorch_model.bin", "m.joblib"),
    *("optimizer.pt", "checksums.json", "run_settings.json", "CONFIG.JSON", "config.json.bak", "notes.txt", "run.py"),
    *("other/config.json", "checkpoint-2/model.safetensors", "old-checkpoint-2/config.json"),
    "_part-of-push-x/config.json",
    *("last-good-weights.safetensors", "_part-of-README.md", ".x_results.json", "runs/train.csv", "runs/a/token"),
    *("runs/.x/events.out.tfevents.1", "predict_results.py", "deep/er/README.md", "model.safetensors.tmp"),
)
GOES = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *("merges.txt", "spiece.model", "added_tokens.json", "chat_template.jinja", "README.md", "LICENSE"),
    *("eval_results.json", "all_results.json", "predict_results_mnli-mm.txt", "predictions.csv", "predictions-mm.csv"),
    *("trainer_state.json", "label_gate.safetensors", "runs/Sep01_host/events.out.tfevents.1.host.2.0"),
    *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json"),
    "adapter_model.safetensors",
)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(SECRET)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A saved model, and no more."""
    folder = tmp_path / "model"
    tiny_model("bert").save_pretrained(folder)
    return folder


def test_a_model_goes_up_and_nothing_else_of_its_folder(model):
    write(model, *STAYS, *GOES)
    content = content_of(model)
    assert set(content.files) == MODEL | set(GOES)
    assert {name.split("/")[0] for name in STAYS} - {"runs"} == {name.split("/")[0] for name in content.left} - {
        "runs"
    }
    assert {"runs/train.csv", "runs/a/", ".ipynb_checkpoints/"} <= set(content.left)


def test_the_tokenizer_files_of_every_family_go_up():
    """As transformers itself lists them."""
    sources = Path(transformers.__file__).parent.glob("models/*/tokenization_*.py")
    names = {
        name
        for source in sources
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VOCAB_FILES_NAMES"
        for name in ast.literal_eval(node.value).values()
    }
    assert {"vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.json"} < names
    assert names <= set(MODEL_FILES)


def test_no_link_goes_up_wherever_it_leads(here, model, tmp_path, capsys):
    key = tmp_path / "id_rsa"
    key.write_bytes(SECRET)
    write(model, ".env")
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", "events.out.tfevents.1")
    for name, target in {
        "README.md": key,
        "eval_results.json": key,
        "link_key": key,
        "vocab.txt": ".env",
        "runs": tmp_path / "elsewhere",
        "LICENSE": "nowhere",
    }.items():
        (model / name).symlink_to(target)
    # The folder itself may be a link: it was named.
    (tmp_path / "link").symlink_to(model)
    assert command(["push", str(tmp_path / "link"), "me/tiny", "--include", "config.json", "--include", ".env"]) == 0
    files = here.repositories["me/tiny"].files
    assert set(files) == {".gitattributes", ".env", *MODEL}
    assert "not uploaded: LICENSE (a link), README.md (a link), eval_results.json (a link)" in capsys.readouterr().out
    # No pattern brings one in.
    for pattern in ("link_key", "link*", "runs/*", "README.md"):
        assert command(["push", str(model), "me/tiny", "--include", pattern]) == 2
    assert not any(SECRET in content for name, content in files.items() if name != ".env")


def test_a_folder_of_links_as_in_the_cache_of_the_hub_is_refused_with_the_copy_that_helps(here, tmp_path, capsys):
    blobs, cached = tmp_path / "blobs", tmp_path / "snap shots"
    tiny_model("bert").save_pretrained(blobs)
    cached.mkdir()
    for name in MODEL:
        (cached / name).symlink_to(f"../blobs/{name}")
    assert command(["push", str(cached), "me/tiny"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"(cp -rL '{cached}' COPY)" in said and "config.json in the folder" in said
    assert here.requests == []
    shutil.copytree(cached, tmp_path / "copy")  # follows links, as cp -rL
    assert command(["push", str(tmp_path / "copy"), "me/tiny"]) == 0
    assert set(here.repositories["me/tiny"].files) == {".gitattributes", *MODEL}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*", {"notes.txt", "data.csv"}),
        ("*.csv", {"data.csv"}),
        ("./figures/*.png", {"figures/a.png"}),
        ("figures/deep/b.png", {"figures/deep/b.png"}),
        # Their whole names alone bring in what is delicate.
        (".env", {".env"}),
        ("opt.PT", {"opt.PT"}),
        ("figures/x.pickle.gz", {"figures/x.pickle.gz"}),
        ("token", {"token"}),
        *((pattern, None) for pattern in (".e*", "opt.*", "figures/x.*", "tok*", "id_*", ".*", "*.PEM", "?token")),
        *(
            (pattern, None)
            for pattern in ("training_args.bin", "Training_Args.BIN", "figures", "*.png", "**/*.pickle")
        ),
        *((pattern, None) for pattern in ("", "/", "../outside", "figures/../notes.txt", "/etc/passwd", "[")),
    ],
)
def test_more_goes_up_by_patterns(model, pattern, wanted):
    write(model.parent, "outside")
    write(model, ".env", "opt.PT", "token", "hf_token", "id_rsa", "a.PEM", "notes.txt", "data.csv")
    write(
        model, "figures/a.png", "figures/deep/b.png", "figures/x.pickle.gz", "training_args.bin", "Training_Args.BIN"
    )
    if wanted is None:
        with pytest.raises(UsageError, match="brings in no file of .*; give the name of a file in it or a pattern"):
            content_of(model, include=["config.json", pattern])
    else:
        assert set(content_of(model, include=[pattern]).files) == MODEL | wanted


def test_the_command_that_tries_again_has_the_patterns():
    assert (
        push_command("a", "me/x", include=("*.png", "b c")) == "hf-mixup push a me/x --include '*.png' --include 'b c'"
    )


def test_sizes_are_shown_and_long_lists_are_cut(model):
    (model / "README.md").write_bytes(b"x" * 1023)
    (model / "vocab.txt").write_bytes(b"x" * 1536)
    (model / "merges.txt").write_bytes(b"")
    with (model / "tokenizer.json").open("wb") as file:
        file.truncate(5 * 2**20)
    sizes = content_of(model).sizes()
    assert (sizes["README.md"], sizes["vocab.txt"], sizes["merges.txt"]) == ("1023 B", "1.5 KiB", "0 B")
    assert sizes["tokenizer.json"] == "5.0 MiB"
    write(model, *(f"{number:03}.csv" for number in range(100)))
    assert content_of(model).staying().endswith("011.csv and 88 more")


@pytest.mark.parametrize(
    "name", ["model-\x1b[2J-of-2.safetensors", "a\u202e_results.json", f"hf_{'a' * 34}_results.json"]
)
def test_a_name_that_cannot_be_shown_stays_behind(model, name):
    (model / name).touch()
    content = content_of(model)
    assert name not in content.files and name in content.left
    with pytest.raises(UsageError, match="brings in no file"):
        content_of(model, include=[name])


def test_what_cannot_be_read_as_a_file_stays_behind(model):
    os.mkfifo(model / "vocab.txt")  # reading it would never end
    (model / "merges.txt").mkdir()
    assert set(content_of(model).files) == MODEL


# ---- What runs push ---------------------------------------------------------------------------------------------


def test_the_end_of_a_run_pushes_the_model_alone_and_says_so(here, tmp_path, caplog):
    folder = saved_model(tmp_path / "tiny")
    write(folder, ".env", "train.csv", "opt.PT")
    (folder / "vocab.txt").symlink_to(folder / ".env")
    run = trainer(folder, push_to_hub=True)
    run.train()
    run.save_state()
    with caplog.at_level(logging.INFO, "hf_mixup.hub"):
        run.push_to_hub()
    assert set(here.repositories["me/tiny"].files) == {".gitattributes", "README.md", "trainer_state.json", *MODEL}
    (line,) = (message for message in caplog.messages if message.startswith("Uploading to me/tiny: README.md ("))
    assert line.endswith(
        "; not uploaded: vocab.txt (a link), .env, old-checkpoint-2/, opt.PT, train.csv, training_args.bin."
    )


@pytest.mark.parametrize("strategy", ["every_save", "all_checkpoints"])
def test_checkpoints_are_pushed_without_what_is_not_theirs(here, tmp_path, monkeypatch, strategy):
    options = {"push_to_hub": True, "hub_strategy": strategy, "save_strategy": "steps", "save_steps": 1}
    run = trainer(tmp_path / "tiny", **options, max_steps=1, hub_always_push=True)
    save = run._save

    def with_others(folder, *args, **kwargs):
        save(folder, *args, **kwargs)
        write(Path(folder), ".env", "more.pkl", "train.csv")
        Path(folder, "vocab.txt").symlink_to(".env")

    monkeypatch.setattr(run, "_save", with_others)
    run.train()
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "checksums.json"}
    wanted = {".gitattributes", *MODEL}
    if strategy == "all_checkpoints":
        wanted |= {f"checkpoint-1/{name}" for name in (*MODEL, *state, "run_settings.json")}
    assert set(here.repositories["me/tiny"].files) == wanted


def test_whole_checkpoints_of_fsdp_and_deepspeed_have_their_shards(tmp_path):
    names = {
        *("pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "optimizer_0/__1_0.distcp"),
        *("optimizer_0/.metadata", "pytorch_model_fsdp.bin", "optimizer.bin", "latest", "zero_to_fp32.py"),
        *("global_step6/mp_rank_00_model_states.pt", "global_step6/zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        *("rng_state_0.pth", "rng_state_1.pth", "scaler.pt", "optimizer.pt", "scheduler.pt"),
    }
    write(tmp_path / "checkpoint-6", *names, "training_args.bin", "other/__0_0.distcp", "global_step6/x.pkl")
    assert set(content_of(tmp_path / "checkpoint-6", CHECKPOINT_FILES).files) == names


@pytest.mark.parametrize("links_work", [True, False])
def test_a_snapshot_follows_no_link(tmp_path, monkeypatch, links_work):
    folder = tmp_path / "checkpoint-1"
    write(folder, "config.json", "train.csv")
    (tmp_path / "key").write_bytes(SECRET)
    (folder / "README.md").symlink_to(tmp_path / "key")
    if not links_work:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    copy = snapshot(folder, tmp_path, MODEL_FILES)
    assert [path.name for path in copy.iterdir()] == ["config.json"]
    assert (copy / "config.json").read_bytes() == SECRET


def test_a_link_in_the_place_of_weights_or_config_is_told_and_one_of_another_name_is_not(
    here, model, tmp_path, capsys
):
    write(tmp_path, "more")
    (model / "adapter_model.safetensors").symlink_to(tmp_path / "more")
    assert command(["push", str(model), "me/tiny"]) == 2
    assert "adapter_model.safetensors in the folder" in capsys.readouterr().err
    (model / "adapter_model.safetensors").unlink()
    (model / "my_model.safetensors").symlink_to(tmp_path / "more")
    assert command(["push", str(model), "me/tiny"]) == 0
    assert json.loads(here.repositories["me/tiny"].files["config.json"])["model_type"] == "bert"
