"""What may be shown: no access token, and no character that does more than be seen."""

from __future__ import annotations

import ast
import csv
import io
import logging
import unicodedata
from dataclasses import fields

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run_glue_mixup
from hf_mixup.compare.grid import ARGUMENTS, make_grid, parse_options
from hf_mixup.errors import OneSentenceParser, UsageError, cut, first_line, listed, quoted
from hf_mixup.shown import (
    SECRET_FIELDS,
    LogFormatter,
    code_block,
    code_span,
    field_of_file,
    markdown,
    python_string,
    visible,
    visible_lines,
    without_folders,
    without_tokens,
)
from tests.data_files import labelled_sentences, write_csv

TOKEN = "hf_" + "aB3" * 12
ESCAPES = {
    "\x1b[2J": r"\x1b[2J",
    "a\nb\r\tc": r"a\nb\r\tc",
    "\u202eevil": r"\u202eevil",
    "\u2067x\u2069": r"\u2067x\u2069",
    "\ufeffx": r"\ufeffx",
    "\x9b1m": r"\x9b1m",
    "\udc80": r"\udc80",
    "\u2028": r"\u2028",
    "\U000e0041": r"\U000e0041",
}
# Text of people: accents, a no-break space, joiners of Persian and of emoji, a blank of Japanese.
PLAIN = ["Größe", "na\xa0ja", "می\u200cخواهم", "👩\u200d💻", "東\u3000京", "", "a_b", "\ue000"]


@pytest.mark.parametrize(("text", "seen"), [*ESCAPES.items(), *((text, text) for text in PLAIN)])
def test_characters_that_cannot_be_seen_are_escaped(text, seen):
    assert visible(text) == seen


@given(st.text(st.characters(), max_size=30))
def test_nothing_unseen_is_left(text):
    for shown in (
        visible(text),
        cut(text),
        quoted(text),
        listed([text]),
        first_line(ValueError(text)),
        markdown(text),
    ):
        kinds = {unicodedata.category(each) for each in shown if each not in "\u200c\u200d"}
        assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        # It can be written anywhere.
        shown.encode("utf-8")


@pytest.mark.parametrize("text", [TOKEN, f"url?{TOKEN}&", f"--hub_token={TOKEN}", f"{TOKEN}\n"])
def test_what_looks_like_a_token_is_never_shown(text):
    shown = (
        visible(text),
        cut(text),
        quoted(text),
        listed([text]),
        first_line(ValueError(text)),
        str(UsageError(text)),
    )
    assert not [each for each in shown if TOKEN[:10] in each]


def test_words_that_begin_like_a_token_are_shown():
    assert visible("hf_mixup and hf_internal_testing/tiny_random_bert") == (
        "hf_mixup and hf_internal_testing/tiny_random_bert"
    )


def test_every_field_that_could_hold_a_secret_is_known():
    """A new version of transformers may bring one."""
    names = {option.name for arguments in ARGUMENTS for option in fields(arguments)}
    suspect = {name for name in names if {"token", "key", "secret", "password", "auth"} & set(name.split("_"))}
    assert suspect <= SECRET_FIELDS


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        (["--token", "hf_x", "--seed", "1"], ["--token", "$HF_TOKEN", "--seed", "1"]),
        (["--hub_token=hf_x"], ["--hub_token=$HF_TOKEN"]),
        (["--hub-token", "hf_x"], ["--hub-token", "$HF_TOKEN"]),
        (["--use_auth_token", "hf_x"], ["--use_auth_token", "$HF_TOKEN"]),
        # argparse understands the beginning of a flag too; the value is known from the parsed arguments.
        (["--hub_tok", "hf_secret"], ["--hub_tok", "$HF_TOKEN"]),
        (["--hub_tok=hf_secret"], ["--hub_tok=$HF_TOKEN"]),
        (["--tokenizer_name", "token"], ["--tokenizer_name", "token"]),
    ],
)
def test_tokens_in_a_command_line_are_masked(words, masked):
    assert without_tokens(words, ("hf_secret", None)) == masked


@pytest.mark.parametrize("flags", [["--tok=hf_x"], ["--unknown", "hf_x"], ["--unknown=hf_x"], ["word", "hf_x"]])
def test_what_follows_an_unknown_flag_is_not_repeated(flags, capsys):
    parser = OneSentenceParser(prog="hf-mixup")
    parser.add_argument("--token")
    parser.add_argument("--tokenizer")
    with pytest.raises(SystemExit):
        parser.parse_args(flags)
    assert "hf_x" not in capsys.readouterr().err
    with pytest.raises(UsageError) as error:
        run_glue_mixup.main(["--model_name_or_path", "m", "--output_dir", "o", "--train_file", "t", *flags])
    assert "hf_x" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"options": {"token": TOKEN}}, "--options has token"),
        ({"options": {"hub_token": "hf_x"}}, "--options has hub_token"),
        ({"options": {"hub-token": "hf_x"}}, "--options has hub-token"),
        ({"options": parse_options(["use_auth_token=hf_x"])}, "--options has use_auth_token"),
        ({"methods": ["none", "amplify:hub_token=hf_x"]}, "the method amplify has hub_token"),
        ({"methods": ["none", "mine=amplify:alpha=1:token=hf_x"]}, "the method amplify has token"),
    ],
)
def test_a_comparison_takes_no_tokens(settings, named, tmp_path):
    """They would stand in the results, and in the reports made of them."""
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", ("sentence", "label"), labelled_sentences(["a", "b"], 4))
    task = {"folder": str(tmp_path), "name": "t"}
    with pytest.raises(UsageError, match=named) as error:
        make_grid({"tasks": [task], "methods": ["none"], **settings})
    assert "hf_" not in str(error.value)
    with pytest.raises(UsageError, match="of the task t has token"):
        make_grid({"tasks": [{**task, "options": {"token": "hf_x"}}], "methods": ["none"]})


def test_messages_of_a_log_cannot_be_forged():
    formatter = LogFormatter("%(levelname)s - %(message)s")
    record = logging.LogRecord("x", logging.INFO, "", 0, "label %s", ("a\nERROR\t- forged\x1b[2J\x1b[1m",), None)
    assert formatter.format(record).splitlines() == ["INFO - label a", r"    ERROR   - forged\x1b[2J"]


# ---- Markdown, code, rows ----

NASTY = st.text(st.sampled_from("ab_*`[]<>|#&~$\\\"'=+-@,;\t\n\r 1."), max_size=20)


@given(NASTY)
def test_markdown_shows_the_text(text):
    """Every mark of Markdown is escaped, but for `_` within a word, which has no meaning there."""
    shown, plain = markdown(text), visible(text)
    unescaped, position = [], 0
    while position < len(shown):
        escaped = shown[position] == "\\"
        position += escaped
        if not escaped:
            assert shown[position] not in "*`[]<>|#&~$"
            if shown[position] == "_":
                assert shown[position - 1 : position].isalnum() and shown[position + 1 : position + 2].isalnum()
        unescaped.append(shown[position])
        position += 1
    assert "".join(unescaped) == plain


@given(NASTY)
def test_code_stays_in_its_fence(text):
    span = code_span(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inside = span[len(fence) : -len(fence)]
    assert span.endswith(fence) and fence not in inside and "\n" not in span
    assert inside in (visible(text), f" {visible(text)} ")
    block = code_block(text, "python").split("\n")
    fence = block[0].removesuffix("python")
    assert set(fence) == {"`"} and block[-1] == fence and not any(fence in line for line in block[1:-1])
    assert "\n".join(block[1:-1]) == visible_lines(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_string_of_python_is_the_text(text):
    assert ast.literal_eval(python_string(text)) == text


@given(st.lists(st.one_of(NASTY, st.floats().map("{:3.3f}".format)), min_size=1, max_size=5))
def test_rows_are_read_back_by_csv_and_pandas(texts):
    rows = "".join(f"{index}\t{field_of_file(text)}\n" for index, text in enumerate(texts))
    read = [row[1] for row in csv.reader(io.StringIO(rows, newline=""), delimiter="\t")]
    frame = pd.read_csv(
        io.StringIO(rows), sep="\t", header=None, dtype=str, keep_default_na=False, lineterminator="\n"
    )
    for text, one, other in zip(texts, read, frame[1].tolist(), strict=True):
        assert one == other
        # Nothing but an apostrophe is added, and only before what would be a formula.
        assert one == text or (one == f"'{text}" and text.lstrip()[0] in "=+-@")


@pytest.mark.parametrize(
    "text", ["=1+1", "=cmd|' /C calc'!A0", "@SUM(A1)", "+1+cmd", "-2+3+cmd|x", "＝1", "+a", " =1+1"]
)
def test_formulas_begin_with_an_apostrophe(text):
    assert field_of_file(text).lstrip('"') == f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+1", "-inf", "1e-3", "-", "+", "=", "a=b", "refund", '["red", "round"]'])
def test_numbers_and_plain_labels_stay_as_they_are(text):
    assert field_of_file(text) == text


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--train_file", "/home/me/a b.csv"], ["--train_file", "a b.csv"]),
        (["--output_dir=/home/me/out/"], ["--output_dir=out"]),
        (
            ["--train_file", "HERE/data/train.csv", "--cache_dir=HERE"],
            ["--train_file", "data/train.csv", "--cache_dir=."],
        ),
        (["--train_file", "/a/b.csv,/c/d.csv,e.csv"], ["--train_file", "b.csv,d.csv,e.csv"]),
        (["--optim_args", '{"path": "/home/me/x.json", "a/b": 1}'], ["--optim_args", '{"path": "x.json", "a/b": 1}']),
        (["/home/me/run.yaml"], ["run.yaml"]),
        # Names on the Hub, relative paths, flags and numbers stay.
        (["me/model", "data/train.csv", "../x", "--a_b", "1e-4", "", "a=/b"],) * 2,
    ],
)
def test_a_command_line_has_no_absolute_paths(words, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert without_folders([word.replace("HERE", str(tmp_path)) for word in words]) == shown
