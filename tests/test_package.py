"""The package around the code: versions, requirements, public names, README, wheel."""

import ast
import inspect
import re
import subprocess
import sys
import warnings
import zipfile
from dataclasses import fields
from importlib.metadata import distribution, entry_points, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hf_mixup
from tests.launching import python
from tests.tiny import SENTENCES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Requirement("hf_mixup[demo,test,dev]")
RUN_AND_TESTED = Requirement("hf_mixup[compare,demo,test]")
CUDA = ("nvidia-", "cuda-", "triton")  # what a CUDA build of torch asks for beside
README = (ROOT / "README.md").read_text(encoding="utf-8")


def requirements_of(requirement: Requirement) -> list[Requirement]:
    """What the installed package declares for this environment and the extras asked for."""
    found = map(Requirement, distribution(requirement.name).requires or [])
    extras = ["", *requirement.extras]
    return [one for one in found if one.marker is None or any(one.marker.evaluate({"extra": each}) for each in extras)]


def pins(file: str = "requirements.txt") -> dict[str, Version]:
    """The content of a file of requirements; every line pins one package exactly."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found: dict[str, Version] = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        (specifier,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        assert specifier.operator == "==" and not specifier.version.endswith("*"), requirement
        assert name not in found, f"{name} is pinned twice"
        found[name] = Version(specifier.version)
    return found


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert version("hf_mixup") == str(Version(hf_mixup.__version__)) == citation["version"]
    assert hf_mixup.__version__ in changelog


WITHOUT_DATA_PACKAGES = """
import sys

sys.modules |= dict.fromkeys(("datasets", "evaluate", "pyarrow"))
import hf_mixup.mixing, hf_mixup.methods, hf_mixup.modeling, hf_mixup.trainer
from tests.trainer.runs import logged, train

assert logged(train(sys.argv[1], max_steps=2, mixup_method="tmix"), "mixup_applied") == [1, 1]
"""


def test_what_trains_imports_without_datasets_and_evaluate(tmp_path):
    python("-c", WITHOUT_DATA_PACKAGES, tmp_path)


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="hf-mixup")
    from hf_mixup.cli import main

    assert command.load() is main


def test_pins_satisfy_the_declared_ranges():
    pinned = pins()
    for requirement in requirements_of(PROJECT):
        name = canonicalize_name(requirement.name)
        if name == "hf-mixup":  # an extra that takes in another one
            continue
        assert name in pinned, f"{name} is declared in pyproject.toml and not pinned in requirements.txt"
        assert requirement.specifier.contains(pinned[name]), f"{name}=={pinned[name]} is outside of {requirement}"


def test_core_dependencies_have_both_bounds():
    for requirement in requirements_of(Requirement("hf_mixup")):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, f"{requirement} needs a lower and an upper bound"


def test_minimums_are_the_declared_lower_bounds():
    """make compat runs on what pyproject.toml says, no more and no less."""
    lowest: dict[str, Version] = {}
    for requirement in requirements_of(RUN_AND_TESTED):
        bounds = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        if requirement.name != "hf_mixup":
            (lowest[canonicalize_name(requirement.name)],) = bounds
    assert pins("requirements-minimum.txt") == lowest


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, PendingDeprecationWarning])
@pytest.mark.parametrize("module", ["transformers.trainer", "torch.utils.checkpoint", "hf_mixup.cli", __name__])
def test_deprecations_of_transformers_and_torch_are_errors(module, category):
    """Where the warning says it comes from: from within, or from the line of ours that made the call."""
    with pytest.raises(category, match="old"):
        warnings.warn_explicit("old", category, "file.py", 1, module=module)
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn_explicit("old", category, "file.py", 1, module="datasets.load")
    assert [warning.category for warning in seen] == [category]


@pytest.mark.slow
def test_a_run_uses_nothing_deprecated(tmp_path, tiny_bert_folder, write_csv):
    """Neither warned of nor, what only shows in a process of its own, logged: transformers logs a thing but once."""
    rows = "".join(f"{text},{label}\n" for text, label in zip(SENTENCES, "abababab", strict=True))
    data = write_csv("data.csv", "text,label\n" + rows.replace(", ", " "))
    flags = ["--train_file", data, "--validation_file", data, "--do_train", "--do_eval", "--do_predict"]
    flags += ["--test_file", data, "--model_name_or_path", tiny_bert_folder, "--output_dir", tmp_path / "out"]
    flags += ["--mixup_method", "amplify", "--max_steps", "2", "--save_steps", "1", "--use_cpu"]
    done = subprocess.run(
        [sys.executable, "-W", "default", ROOT / "run_glue_mixup.py", *flags],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    old = [line for line in done.stderr.splitlines() if "deprecat" in line.lower()]
    assert [line for line in old if "site-packages" not in line or re.search(r"/(transformers|torch)/", line)] == []


def test_pins_have_no_local_versions_and_no_cuda():
    for name, pinned in pins().items():
        assert pinned.local is None, f"{name}=={pinned} exists on no package index"
        assert not name.startswith(CUDA), f"{name} follows from the build of torch"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="requirements.txt is for Python 3.11 or newer")
def test_pins_are_exactly_the_closure_of_what_is_declared():
    """Nothing transitive is left to chance, and nothing is pinned that nobody needs."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [PROJECT]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen or name.startswith(CUDA):
            continue
        seen.add((name, frozenset(requirement.extras)))
        todo += requirements_of(requirement)
    assert {name for name, _ in seen} - {"hf-mixup"} == set(pins())


@pytest.mark.parametrize("name", hf_mixup.__all__)
def test_public_names_exist_and_are_documented(name):
    thing = getattr(hf_mixup, name)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        # Dataclasses without a docstring get their signature for one, which says nothing.
        text = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
        assert text and not text.startswith(f"{name}("), f"{name} has no docstring"
        assert thing.__module__.startswith("hf_mixup."), name


def test_every_module_has_a_docstring():
    without = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("hf_mixup/**/*.py"), ROOT / "run_glue_mixup.py"]
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert without == []


def test_readme_example_runs(tmp_path, monkeypatch, capsys):
    """The code exactly as printed, which prints what its comments say; both requests must come out right."""
    from transformers import BertForSequenceClassification

    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "readme"}
    exec(compile(code_blocks("python")[0], "README.md", "exec"), names)
    assert type(names["plain"]) is BertForSequenceClassification
    printed = capsys.readouterr().out.splitlines()
    metrics, own = (
        ast.literal_eval([line for line in printed if word in line][-1]) for word in ("eval_loss", "score")
    )
    said = re.findall(r"^# ([{[].*)$", code_blocks("python")[0], re.MULTILINE)
    loss, answers = (ast.literal_eval(line.replace(", ...", "")) for line in said)
    assert loss.keys() <= metrics.keys()
    # Other processors and versions round otherwise.
    assert metrics["eval_loss"] == pytest.approx(loss["eval_loss"], abs=0.1)
    assert [answer["label"] for answer in own] == [answer["label"] for answer in answers] == ["refund", "delivery"]
    assert [answer["score"] for answer in own] == pytest.approx([answer["score"] for answer in answers], abs=0.1)
    assert (tmp_path / "out" / "example" / "model.safetensors").is_file()


def test_what_examples_write_is_ignored():
    """The README's commands and the examples write below out/."""
    assert "/out/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    written = re.findall(r"output_dir[=: ]+\"?([\w/]+)", README)
    assert len(written) > 5
    for path in (ROOT / "examples").glob("*.py"):
        (default,) = re.findall(r'"--output_dir",[^)]*default=(?:Path\()?"([^"]*)"', path.read_text(encoding="utf-8"))
        written.append(default)
    assert [folder for folder in written if not folder.startswith("out/")] == []


def test_the_installation_names_every_extra():
    installation = README.split("## Installation")[1].split("\n## ")[0]
    extras = distribution("hf_mixup").metadata.get_all("Provides-Extra")
    assert set(extras) <= set(re.findall(r"`([a-z]+)`", installation))


def test_readme_uses_flags_that_exist(capsys):
    from hf_mixup.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    known = set(re.findall(r"--\w+", capsys.readouterr().out)) | {"--config"}
    commands = "".join(block for block in code_blocks("bash") if "run_glue_mixup.py" in block)
    table = "".join(line.split("|")[1] for line in README.splitlines() if line.startswith("| `--"))
    used = set(re.findall(r"--\w+", commands + table))
    assert len(used) > 20
    assert used - known == set()
    assert {f"--{field.name}" for field in fields(hf_mixup.MixupTrainingArguments) if "mixup" in field.name} <= used


def test_readme_and_command_list_the_same_methods():
    listed = re.findall(r"^\| `([a-z-]+)` \|.*\|.*\|$", README, re.MULTILINE)
    assert listed == list(hf_mixup.METHODS)


def test_readme_commands_are_make_targets():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README + guide, re.MULTILINE))
    assert {"demo", "test", "test-slow"} <= named <= targets


@pytest.mark.slow
def test_wheel_holds_the_package_and_the_script_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=280,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {
            Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
        }
    files = [path for path in (ROOT / "hf_mixup").rglob("*") if path.suffix in (".py", ".html", ".md")]
    sources = {path.relative_to(ROOT).as_posix() for path in files}
    assert names == sources | {"run_glue_mixup.py"}
    assert f"Version: {hf_mixup.__version__}\n" in metadata["METADATA"]
    assert "License-Expression: Apache-2.0\n" in metadata["METADATA"]
    assert "hf-mixup = hf_mixup.cli:main" in metadata["entry_points.txt"]
    assert "Apache License" in metadata["LICENSE"]
