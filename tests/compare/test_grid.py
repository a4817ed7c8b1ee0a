"""The grid from settings, and what is wrong with them: one sentence each, exit code 2, nothing overwritten."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from hf_mixup.cli import main
from hf_mixup.compare import run
from hf_mixup.compare.grid import make_grid, parse_seeds
from hf_mixup.errors import UsageError
from hf_mixup.glue.settings import read_settings
from tests.data_files import write_csv


def test_cells_are_all_combinations_and_each_once(settings, tiny_roberta_folder):
    settings |= {"sizes": ["all", "8-shot", "100%"], "noise": [0, 0.2, 0.2], "seeds": [1, "1-2"]}
    settings["models"] = [*settings["models"], f"roberta={tiny_roberta_folder}"]
    cells = make_grid(settings).cells()
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 2 * 2 * 2 * 2
    assert cells[0].key == "colours tiny all noise=0 none seed=1"
    assert [cell.method for cell in cells[:2]] == ["none", "amplify:alpha=1:ratio=beta"]


def test_seeds():
    assert parse_seeds(["1-3", 7, "2"]) == (1, 2, 3, 7)


def test_a_range_of_seeds_that_nobody_means():
    with pytest.raises(UsageError, match="more than 1000 seeds"):
        parse_seeds(["1-400000000"])


def test_flags_and_grid_files_say_the_same(settings, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    assert make_grid(read_settings(str(file), "grid file")) == make_grid(settings)


def test_options_of_the_method_go_before_the_task_s_and_these_before_the_grid_s(settings, task_folder):
    settings["options"] = {"max_seq_length": 8, "learning_rate": 1, "weight_decay": 0.5, "fp16": False}
    settings["tasks"] = [{"folder": task_folder, "options": {"learning_rate": 2, "weight_decay": 0.25}}]
    settings["methods"] = ["none", "none:weight_decay=0.125", "amplify:layers=1,2"]
    grid = make_grid(settings)
    options = grid.run_options(grid.cells()[1])
    wanted = {"mixup_method": "none", "max_seq_length": "8", "learning_rate": "2", "weight_decay": "0.125"}
    assert wanted.items() <= options.items() and options["fp16"] == "false"
    assert grid.run_options(grid.cells()[2])["mixup_layers"] == "1,2"


def test_a_folder_without_test_file_is_tested_on_its_validation_file(task_folder, settings):
    Path(task_folder, "test.csv").rename(Path(task_folder, "validation.csv"))
    files = make_grid(settings).tasks["colours"].files
    assert {split: Path(path).name for split, path in files.items()} == {
        "train": "train.csv",
        "test": "validation.csv",
        "ood": "ood.csv",
    }


def test_columns_may_be_a_list(task_folder, settings):
    entry = {"folder": task_folder, "text_column_names": ["sentence", "label2"], "label_column_name": "label"}
    (task,) = make_grid({**settings, "tasks": [entry]}).tasks.values()
    assert (task.text_column_names, task.label_column_name) == ("sentence,label2", "label")
    with pytest.raises(UsageError, match="^the task colours: .*has no text column 'label2'.*text_column_names"):
        run.check_runs(make_grid({**settings, "tasks": [entry]}))


def test_a_fingerprint_names_the_content(settings, task_folder):
    before = make_grid(settings).tasks["colours"].fingerprint
    assert make_grid(settings).tasks["colours"].fingerprint == before
    with open(Path(task_folder, "test.csv"), "a", encoding="utf-8") as file:
        file.write("one more,red\n")
    assert make_grid(settings).tasks["colours"].fingerprint != before


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"task": []}, "unknown key task; did you mean tasks?"),
        ({"tasks": []}, "the grid is empty: give --tasks"),
        ({"methods": None}, "the grid is empty: give --methods"),
        ({"seeds": []}, "the grid is empty"),
        ({"tasks": ["nowhere/trec"]}, "there is no task nowhere/trec"),
        ({"tasks": [{"name": "a", "train_fil": "x.csv"}]}, "unknown key train_fil; did you mean train_file?"),
        ({"tasks": [{"name": "a"}]}, "the task a has no train file"),
        ({"tasks": [{"train_file": "x.csv"}]}, "a task has no name"),
        ({"methods": ["none", "amplfy"]}, "there is no method amplfy; did you mean amplify?"),
        ({"methods": ["amplify"]}, "add none to --methods"),
        ({"methods": ["none", "amplify:alpa=1"]}, "unknown key alpa; did you mean alpha?"),
        ({"methods": ["none", "amplify:alpha"]}, "option alpha without a value"),
        ({"methods": ["none", "amplify:alpha=1:alpha=2"]}, "has alpha twice"),
        ({"methods": ["none", "mine=amplfy"]}, "there is no method amplfy; did you mean amplify?"),
        ({"methods": ["none", "tmix=amplify:alpha=1"]}, "has the name of a method; call it otherwise"),
        ({"methods": ["none", "none=amplify:alpha=1"]}, "has the name of a method; call it otherwise"),
        ({"methods": ["none", "=amplify:alpha=1"]}, "should have a name of 1 to 40 characters"),
        ({"methods": ["none", f"{'a' * 41}=amplify"]}, "should have a name of 1 to 40 characters"),
        ({"methods": ["none", "a\x07b=amplify"]}, r"the method 'a\x07b' has characters that cannot be shown"),
        ({"methods": ["none", "none:run_name=a\x07"]}, r"the method 'none:run_name=a\x07' has characters"),
        ({"methods": ["none", "m\udcfcch=amplify"]}, r"the method 'm\udcfcch' has characters that cannot be shown"),
        ({"methods": ["none", {"much": "amplify:alpha=1"}]}, "a method should be words such as"),
        ({"methods": ["none", "much="]}, "a method is empty"),
        ({"methods": ["none", ""]}, "a method is empty"),
        ({"methods": ["none", "m=amplify:"]}, "has the option nothing without a value"),
        ({"methods": ["none", "m=amplify:seed=3"]}, "has seed, which is set for each run"),
        ({"methods": ["none", "mine=amplify", "mine=tmix"]}, "two methods are called mine"),
        ({"methods": ["plain=none"]}, "add none to --methods"),
        ({"sizes": "0%"}, "--sizes 0% is out of range"),
        ({"sizes": "ten"}, "--sizes ten is no training size"),
        ({"noise": 1.5}, "--noise 1.5 is no share"),
        ({"seeds": "5-1"}, "--seeds 5-1 is no seed and no range of seeds"),
        ({"seeds": "1-"}, "--seeds 1- is no seed and no range of seeds"),
        ({"seeds": "a"}, "--seeds a is no seed and no range of seeds"),
        ({"models": ["./nowhere"]}, "the model folder ./nowhere does not exist"),
        ({"options": {"learning_rat": 1}}, "unknown key learning_rat; did you mean learning_rate?"),
        ({"options": {"output_dir": "x"}}, "has output_dir, which is set for each run"),
        ({"options": ["a"]}, "--options should be a mapping"),
        ({"tune": "some"}, "--tune some is no number of trials"),
        ({"tune": "²"}, "--tune ² is no number of trials"),
        ({"tune": "9" * 5000}, "... (5,000 characters) is no number of trials"),
        ({"tune": 10_001}, "--tune 10001 is no number of trials; give a whole number such as 20, at most 10000"),
        ({"seeds": "9" * 5000}, "... (5,000 characters) is no seed"),
        ({"seeds": [f"{n}-{n + 499}" for n in range(0, 2000, 500)]}, "makes more than 1000 seeds"),
        ({"seeds": [[1, 2]]}, "seeds of the grid should be a flat list of values"),
        ({"sizes": "9" * 5000}, "... (5,000 characters) is no training size"),
        ({"sizes": [["all"]]}, "sizes of the grid should be a flat list of values"),
        ({"models": [None]}, "models of the grid should be a flat list of values"),
        ({"options": {"max_steps": [[1]]}}, "max_steps in --options should be a value"),
        ({"sizes": list(range(1, 10_002)), "seeds": "1-10"}, "has 200,020 runs; give at most 100,000"),
    ],
)
def test_mistakes_in_settings(settings, changes, wanted):
    with pytest.raises(UsageError) as error:
        make_grid({**settings, **changes})
    assert wanted in str(error.value) and "\n" not in str(error.value)


def test_methods_may_have_names_of_their_own(settings):
    words = "amplify:alpha=0.4:layers=1,2"
    grid = make_grid({**settings, "methods": ["none", f"much={words}", words, "amplify"], "seeds": "1"})
    assert list(grid.methods) == ["none", "much", words, "amplify"]
    assert grid.methods["much"] == grid.methods[words]
    assert grid.methods[words] == {"mixup_method": "amplify", "mixup_alpha": "0.4", "mixup_layers": "1,2"}
    assert [cell.method for cell in grid.cells()] == list(grid.methods)
    # Said twice it is still one.
    assert list(make_grid({**settings, "methods": ["none", "m=tmix", "m=tmix"]}).methods) == ["none", "m"]


def test_two_tasks_and_two_models_of_one_name(settings, task_folder, tiny_roberta_folder):
    with pytest.raises(UsageError, match="two tasks are called colours"):
        make_grid({**settings, "tasks": [task_folder, task_folder]})
    with pytest.raises(UsageError, match="two models are called tiny"):
        make_grid({**settings, "models": [*settings["models"], f"tiny={tiny_roberta_folder}"]})
    assert list(make_grid({**settings, "tasks": [task_folder, f"other={task_folder}"]}).tasks) == ["colours", "other"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [("- 1\n", "should hold one mapping"), ("a: [1\n", "is not valid YAML"), (None, "cannot be read")],
)
def test_grid_files_that_are_none(tmp_path, content, wanted):
    file = tmp_path / "grid.yaml"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=wanted):
        read_settings(str(file), "grid file")


@pytest.fixture
def command(settings, tmp_path, capsys):
    """Run the command on the grid with more flags; the exit code and what stands on stderr."""

    def call(*flags: str) -> tuple[int, str]:
        options = [f"{name}={value}" for name, value in settings["options"].items()]
        argv = ["--tasks", *settings["tasks"], "--methods", *settings["methods"], "--models", *settings["models"]]
        try:
            code = main(["compare", *argv, "--options", *options, "--output", str(tmp_path / "out.jsonl"), *flags])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--seeds", "5-1"], "no range of seeds"),
        (["--methods", "none", "tmx"], "there is no method tmx"),
        (["--options", "label_column_name=x"], "which is set for each run"),
        (["--options", "mixup_alpha=1"], "has mixup_alpha, which none does not take; write it to a method, such as"),
        (["--options", "learning_rate=-1"], "learning_rate=-1.0 is not allowed: give a number from 0"),
        (["--options", "learning_rate=fast"], "none cannot be run on colours"),
        (["--options", "max_steps"], "--options max_steps has no value"),
        (["--methods", "none", "amplify:alpha=-1"], "amplify:alpha=-1 cannot be run on colours"),
        (["--sizes", "37"], "--sizes 37 is 37 of the 36 train rows that the task colours has beside its validation"),
        (["--sizes", "3"], "--sizes 3 is 3 of the 36 train rows"),
        (["--sizes", "10-shot"], "asks for 10 rows of each class, and the task colours has a class with 9"),
        (["--jobs", "0"], "'0' should be a whole number of at least 1"),
        (["--launcher", "cloud"], "invalid choice: 'cloud'"),
    ],
)
def test_mistakes_on_the_command_line(command, tmp_path, flags, wanted):
    before = sorted(tmp_path.rglob("*"))
    code, error = command(*flags)
    assert code == 2 and wanted in error
    assert error.startswith("hf-mixup compare: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_columns_and_labels_are_looked_at_first(command, settings, tmp_path):
    folder = Path(settings["tasks"][0])
    write_csv(folder / "test.csv", ("sentence", "colour"), [("a", "red")])
    code, error = command()
    assert code == 2 and "test.csv has no label column 'label', its columns are sentence, colour" in error
    write_csv(folder / "test.csv", ("sentence", "label"), [("a", "mauve")])
    code, error = command()
    assert code == 2 and "test.csv, row 1: the label 'mauve' is not one of" in error
    assert error.count("\n") == 1 and not (tmp_path / "out.jsonl").exists()


def test_scores_take_no_noise_and_no_shots(command, settings):
    folder = Path(settings["tasks"][0])
    for name in ("train", "test"):
        write_csv(folder / f"{name}.csv", ("sentence", "label"), [(f"t{n}", n + 0.5) for n in range(20)])
    for flags in (["--noise", "0.2"], ["--sizes", "8-shot"]):
        code, error = command(*flags)
        assert code == 2 and f"{flags[0]}" in error and "are scores" in error


@pytest.mark.parametrize(("package", "flags"), [("optuna", ["--tune", "2"]), ("ray", ["--launcher", "ray"])])
def test_packages_of_the_extras_are_named_where_they_are_missing(command, tmp_path, monkeypatch, package, flags):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    code, error = command(*flags)
    assert code == 2 and f'needs the package {package}; run pip install -e ".[' in error
    assert not (tmp_path / "out.jsonl").exists()


def test_the_grid_in_the_documentation_is_one(settings):
    page = Path(__file__).resolve().parents[2] / "docs" / "compare.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    shown = yaml.safe_load(block)
    grid = make_grid({**shown, "tasks": settings["tasks"], "models": settings["models"]})
    assert len(grid.cells()) == 4 * 4 * 3 * 5
    run.check_runs(make_grid({**shown, "tasks": settings["tasks"], "models": settings["models"], "sizes": "all"}))
    with pytest.raises(UsageError, match="train_file of the task hausa: data/hausa/train_noisy.csv does not exist"):
        make_grid({**shown, "tasks": shown["tasks"][2:]})


LONG = {"a": "x" * 5000}


@pytest.mark.parametrize(
    "part", [{"methods": [LONG]}, {"options": [LONG]}, {"y" * 5000: 1}, {"methods": ["m" * 5000 + "=none"]}]
)
def test_long_settings_are_cut_in_messages(settings, part):
    with pytest.raises(UsageError) as caught:
        make_grid({**settings, **part})
    assert len(str(caught.value)) < 700
