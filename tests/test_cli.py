"""The `hf-mixup` command, in process and as users start it."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import hf_mixup
import run_glue_mixup
from hf_mixup.cli import main
from hf_mixup.methods.table import rows

ALL_COMMANDS = "demo, train, suggest, compare, report, attention, calibrate, push, methods"


def run_main(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version(capsys):
    assert run_main(["--version"], capsys) == (0, f"hf-mixup {hf_mixup.__version__}\n", "")


def test_installed_command_prints_the_version():
    command = Path(sysconfig.get_path("scripts")) / "hf-mixup"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hf-mixup {hf_mixup.__version__}\n", "")


def test_version_and_help_do_not_wait_for_torch():
    program = (
        "import sys\n"
        "from hf_mixup.cli import main\n"
        "try:\n"
        "    main([sys.argv[1]])\n"
        "except SystemExit as stop:\n"
        "    sys.exit(stop.code or int('torch' in sys.modules or 'transformers' in sys.modules))\n"
    )
    for option in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{option} imports torch or transformers"


def test_help_names_every_command(capsys):
    code, out, err = run_main(["--help"], capsys)
    assert (code, err) == (0, "")
    commands = ("demo", "train", "compare", "report", "attention", "calibrate", "push", "methods")
    assert all(f"\n  {command} " in out for command in commands)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            [],
            f"a command is missing, give one of {ALL_COMMANDS}",
        ),
        (["method"], "unknown command 'method': did you mean methods?"),
        (["trian", "--seed", "1"], "unknown command 'trian': did you mean train?"),
        (
            ["xyz"],
            f"unknown command 'xyz': give one of {ALL_COMMANDS}.",
        ),
        (["--verbose"], "unknown flag --verbose"),
        (["methods", "amplify"], "a word that belongs to no flag"),
        (["push", "out"], "the following arguments are required: REPO"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(arguments, wanted, capsys):
    code, out, err = run_main(arguments, capsys)
    assert (code, out) == (2, "")
    assert wanted in err
    assert err.startswith("hf-mixup") and err.count("\n") == 1


@pytest.mark.parametrize("width", [80, 200])
def test_methods_shows_settings_and_papers(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = run_main(["methods"], capsys)
    assert (code, err) == (0, "")
    # AMPLIFY's settings as the paper states them: the largest of 5 draws from Beta(0.1, 0.1).
    words = " ".join(out.split())
    starts = {tuple(line.split()[:2]) for line in out.splitlines()}
    assert {("none", "one"), ("amplify", "attention,"), ("amplify-code", "attention_block,")} <= starts
    assert words.count("max-of-n, alpha 0.1, draws 5") == 2
    # Whole, not folded.
    assert sorted(re.findall(r"https?://[^\s,]+", out)) == sorted(
        address for row in rows() for address in re.findall(r"https?://[^\s,]+", row.paper)
    )
    assert max(map(len, out.splitlines())) <= width


def test_train_names_itself_in_its_help(capsys):
    assert run_main(["train", "--help"], capsys)[1].startswith("usage: hf-mixup train [-h]")
    with pytest.raises(SystemExit):
        run_glue_mixup.cli(["--help"])
    assert capsys.readouterr().out.startswith("usage: run_glue_mixup.py [-h]")


@pytest.mark.parametrize("command", ["suggest", "compare", "report", "attention", "push", "demo"])
def test_help_breaks_no_name(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run_main([command, "--help"], capsys)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    described = lines[lines.index(next(line for line in lines if line.startswith(("options:", "positional")))) :]
    assert not [line for line in described if line.endswith("-")]


def test_train_is_the_script(capsys, tmp_path):
    train_file = tmp_path / "train.csv"
    train_file.write_text("sentence,label\ngood,1\nbad,0\n", encoding="utf-8")
    needed = [
        "--model_name_or_path",
        "nowhere",
        "--train_file",
        str(train_file),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    arguments = ["train", *needed, "--do_train", "--mixup_methd", "amplify"]
    code, out, err = run_main(arguments, capsys)
    assert (code, out) == (2, "")
    assert "--mixup_methd" in err and "--mixup_method" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [train_file]


def test_train_help_lists_the_script_flags(capsys):
    code, out, _ = run_main(["train", "--help"], capsys)
    assert code == 0
    assert all(flag in out for flag in ("--task_name", "--train_file", "--mixup_method", "--num_train_epochs"))


def test_demo_help_is_the_help_of_the_demo(capsys):
    code, out, err = run_main(["demo", "--help"], capsys)
    assert (code, err) == (0, "")
    assert "--output_dir" in out and "--seed" in out


LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["report", LONG, "--output", "out"],
        ["push", LONG, "me/model"],
        ["suggest", f"{LONG}.csv", "--budget", "1m"],
        ["compare", "--tasks", LONG, "--methods", "none", "--output", "out.jsonl"],
    ],
)
def test_a_path_that_is_too_long_is_one_sentence(words, capsys):
    code, _, sentence = run_main(words, capsys)
    assert code == 2
    assert sentence.startswith(f"hf-mixup {words[0]}: aaa") and sentence.count("\n") == 1
    assert sentence.endswith("cannot be read or written (its name is too long); give another path\n")
