"""Hostile labels, names, paths, texts and errors: nothing raw reaches a terminal, a log, a page, a card or a table."""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import run_glue_mixup
from hf_mixup.cli import main
from tests.compare.test_report import failed_line, run_line
from tests.data_files import write_json_lines
from tests.script import SHORT, captured
from tests.tiny import SENTENCES

TOKEN = "hf_" + "Zz9" * 12
PIECES = [
    *("a", "B", "7", " ", "ü", "京", ".", "-", "_", ",", "'", '"', "`", "```", "$", "*", "[", "](x)", "{", "}", "%s"),
    *("<script>", "&amp;", "|", "\\", ";id", "#", "=1+1", "+", "@SUM", "~", "[red]", "[/]", "--token", TOKEN),
    *("\t", "\n", "\r", "\x1b[2J", "\x1b]0;x\x07", "\x9b1m", "\x00", "\u202e", "\u2067", "\u200f", "\ufeff", "\u2028"),
]
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
# What a file may be called on Linux.
NAMES = HOSTILE.map(lambda text: text.replace("\x00", "").replace("/", "")).filter(lambda name: name.strip("."))
LETTERS = st.text("abc", min_size=1, max_size=2)
LENGTHS = [1, pytest.param(12, marks=pytest.mark.slow)]


def examples(count: int) -> settings:
    """So many examples. They are short as they are; making them shorter would take minutes."""
    checks = list(HealthCheck)
    return settings(
        max_examples=count, phases=[Phase.generate], report_multiple_bugs=False, suppress_health_check=checks
    )


def assert_seen(text: str, where: str, lines: bool = True) -> None:
    """Check that a text for people has nothing in it that cannot be seen, and no access token."""
    for character in text:
        kind = unicodedata.category(character)
        fine = kind not in ("Cc", "Cf", "Cs", "Zl", "Zp") or (lines and character == "\n")
        assert fine, f"{where} has {character!a}: {text!a}"
    assert TOKEN[:12] not in text, where


@contextmanager
def fresh_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def code_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("factor", LENGTHS)
def test_the_script(factor, tiny_bert_folder):
    codes = set()

    @examples(10 * factor)
    @given(
        labels=st.lists(HOSTILE | LETTERS, min_size=2, max_size=3, unique=True),
        plain=st.booleans(),
        names=st.tuples(NAMES, NAMES, NAMES),
        text=HOSTILE,
    )
    def check(labels, plain, names, text):
        labels = ["yes", '=1+"no"'] if plain else labels
        file, model, out = names
        with fresh_folder() as folder, captured() as written:
            (folder / "data").mkdir()
            rows = [{"text": f"{text} {SENTENCES[i % 5]} {i}", "label": labels[i % len(labels)]} for i in range(12)]
            data = write_json_lines(folder / "data" / f"{file}.json", rows)
            (folder / "models").mkdir()
            (folder / "models" / model).symlink_to(tiny_bert_folder)
            argv = ["--model_name_or_path", str(folder / "models" / model), "--output_dir", str(folder / out), *SHORT]
            argv += ["--max_steps", "1", "--save_strategy", "no", "--log_level", "info", "--mixup_method", "amplify"]
            for split in ("train", "validation", "test"):
                argv += [f"--{split}_file", data]
            code = code_of(lambda: run_glue_mixup.cli([*argv, "--do_train", "--do_eval", "--do_predict"]))
            codes.add(code)
            assert_seen(written.getvalue(), "the terminal")
            assert code in (0, 2)
            if code == 0:
                assert_seen((folder / out / "README.md").read_text(encoding="utf-8"), "the card")
                file = folder / out / "predict_results_None.txt"
                assert_seen(file.read_text(encoding="utf-8").replace("\t", ""), "the predictions")
                guesses = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)["prediction"]
                assert {guess.removeprefix("'") for guess in guesses} <= {label.removeprefix("'") for label in labels}

    check()
    assert codes == {0, 2}


@pytest.mark.parametrize("factor", LENGTHS)
def test_the_report(factor):
    codes = set()

    @examples(3 * factor)
    @given(task=HOSTILE | LETTERS, method=HOSTILE | LETTERS, error=HOSTILE, value=HOSTILE, name=NAMES)
    def check(task, method, error, value, name):
        lines = [run_line(0.8, "none", seed, task=task) for seed in (1, 2)]
        lines += [{**run_line(0.9, "amplify", seed, task=task, machine=value)} for seed in (1, 2)]
        for line in lines:
            line["options"] |= {"run_name": value, "hub_token": "hf_short"}
        for line in lines[2:]:
            line["cell"]["method"], line["method"] = method, "amplify"
            line["key"] = f"{task} {method} {line['cell']['seed']}"
        lines.append(failed_line(error, seed=3, task=task))
        with fresh_folder() as folder, captured() as written:
            results = write_json_lines(folder / f"{name}.jsonl", lines)
            code = code_of(lambda: main(["report", results, "--output", str(folder / "report")]))
            codes.add(code)
            assert_seen(written.getvalue(), "the terminal")
            assert code in (0, 2)
            for page in folder.glob("report/report.*"):
                content = page.read_text(encoding="utf-8")
                assert_seen(content, page.name)
                assert "hf_short" not in content
                assert content.count("<script>") == (1 if page.suffix == ".html" else content.count(r"\<script\>"))

    check()
    assert 0 in codes


@pytest.mark.parametrize("factor", LENGTHS)
def test_the_attention_page(factor, tiny_bert_folder):
    codes = set()

    @examples(3 * factor)
    @given(text=HOSTILE, partner=HOSTILE, model=NAMES, out=NAMES)
    def check(text, partner, model, out):
        with fresh_folder() as folder, captured() as written:
            (folder / "models").mkdir()
            (folder / "models" / model).symlink_to(tiny_bert_folder)
            argv = ["attention", "--model_name_or_path", str(folder / "models" / model), "--layer", "1"]
            argv += [f"--output_dir={folder / out}", "--text", f" {text}", "--partner", f" {partner}"]
            code = code_of(lambda: main(argv))
            codes.add(code)
            assert_seen(written.getvalue(), "the terminal")
            assert code in (0, 2)
            for page in (folder / out).glob("*.html"):
                content = page.read_text(encoding="utf-8")
                assert_seen(content, "the page")
                assert "<script>" not in content

    check()
    assert 0 in codes


@pytest.mark.parametrize("factor", LENGTHS)
@pytest.mark.parametrize("command", ["demo", "train", "suggest", "compare", "report", "attention", "push", "methods"])
def test_command_lines(factor, command):
    @examples(8 * factor)
    @given(words=st.lists(HOSTILE | st.sampled_from(["--model", "--output", "--tok", "--tasks"]), max_size=4))
    def check(words):
        with fresh_folder() as folder, captured() as written, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert code_of(lambda: main([command, *words, "--no_such_flag=hf_short"])) == 2
            assert_seen(written.getvalue(), "the terminal")
            assert "hf_short" not in written.getvalue()
            assert written.getvalue().count("\n") == 1

    check()


def test_the_checks_see_what_is_raw():
    for raw in ("a\x1b[2J", "\u202ea", f"x {TOKEN}", "a\rb", "\ud800"):
        with pytest.raises(AssertionError):
            assert_seen(raw, "a text")
    assert_seen(json.dumps({"a": np.pi}, indent=1), "a text")
