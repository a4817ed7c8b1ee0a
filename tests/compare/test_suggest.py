"""`hf-mixup suggest`: successive halving in a given time, on made-up runs whose worth is known, and the command."""

from __future__ import annotations

import io
import json
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from hf_mixup.cli import main
from hf_mixup.compare import runner
from hf_mixup.compare import suggest as suggesting
from hf_mixup.compare.data import load_cell_data, split_off_test
from hf_mixup.compare.grid import ARGUMENTS, Cell, Task, make_grid
from hf_mixup.compare.packing import pack
from hf_mixup.compare.results import Results
from hf_mixup.compare.suggest import sentence, suggest
from hf_mixup.compare.timing import Timing, time_steps
from hf_mixup.errors import UsageError
from hf_mixup.glue.arguments import parse_arguments
from tests.compare.conftest import CLASSES, OPTIONS
from tests.data_files import labelled_sentences, write_csv

METHODS = ["none", "amplify", "tmix", "embedmix", "sentmix"]
TEST_ROWS = 400


class World:
    """Runs that take no time: a clock, and what each method is worth.

    A run takes `beside` seconds and `of_a_row` for each train row; its accuracy on both validation and test rows is
    that of its method, give or take a little by the seed.
    """

    def __init__(self) -> None:
        self.now, self.beside, self.of_a_row = 1000.0, 4.0, 0.1
        self.accuracy = dict.fromkeys(METHODS, 0.7)
        self.timing = Timing(load=0.0, step=0.0, row=0.0)
        self.broken: set[str] = set()
        self.made: list[tuple[str, str, int]] = []
        self.rows: dict[tuple[str, str], int] = {}

    def rows_of(self, job) -> int:
        """The train rows of a run, which its method and its seed do not change."""
        where = (job.task.fingerprint, job.cell.size)
        if where not in self.rows:
            self.rows[where] = len(load_cell_data(job.task, job.cell).splits["train"])
        return self.rows[where]

    def launch(self, waiting, at_once, log):
        while waiting:
            job = waiting.popleft()
            yield job, None
            cell, rows = job.cell, self.rows_of(job)
            self.made.append((cell.size, cell.method, cell.seed))
            seconds = self.beside + self.of_a_row * rows
            self.now += seconds
            where = {"seconds": seconds, "machine": "none", "versions": {}}
            if cell.method in self.broken:
                yield job, {**job.failed("RuntimeError: it burns"), **where}
                continue
            right = np.arange(TEST_ROWS) < round(TEST_ROWS * (self.accuracy[cell.method] + cell.seed % 3 / 100))
            labels = np.arange(TEST_ROWS) % 4
            content = {
                "metrics": {"accuracy": right.mean()},
                "validation": {"accuracy": self.accuracy[cell.method], "loss": 0.5},
                "rows": {"train": rows, "test": TEST_ROWS},
                "cost": {"steps": 10, "step_seconds": self.of_a_row * rows / 10},
                "loss": [],
                "test": {"labels": pack(labels), "predictions": pack(np.where(right, labels, (labels + 1) % 4))},
            }
            yield job, {**job.record({"status": "done", **content}), **where}


@pytest.fixture
def world(monkeypatch) -> World:
    world = World()
    clock = SimpleNamespace(monotonic=lambda: world.now)
    monkeypatch.setattr(suggesting, "time", clock)
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(suggesting, "time_steps", lambda *_: world.timing)
    monkeypatch.setitem(runner.LAUNCHERS, "local", world.launch)
    return world


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A training file of 120 rows: 24 are held out, and of the other 96 in each run 19 for validation."""
    path = tmp_path / "requests.csv"
    write_csv(path, ("sentence", "label"), labelled_sentences(CLASSES, 120))
    return str(path)


@pytest.fixture
def grid(file, tiny_bert_folder, tmp_path):
    """The grid that the command makes."""
    return grid_of(file, tiny_bert_folder, tmp_path)


def grid_of(file, model, folder, methods=METHODS):
    task = split_off_test(Task("requests", {"train": file}), 0.2, 2000, folder)
    files = {f"{split}_file": path for split, path in task.files.items()}
    return make_grid(
        {
            "tasks": [{"name": "requests", **files, "validation_split": 0.2}],
            "methods": methods,
            "models": f"tiny={model}",
            "options": {"learning_rate": 1e-3},
        }
    )


def find(grid, tmp_path, world, seconds):
    return suggest(grid, Results(tmp_path / "out.jsonl"), Console(file=io.StringIO()), world.now + seconds)


def test_the_time_is_divided_evenly_among_the_rounds_and_the_better_half_goes_on(grid, tmp_path, world):
    world.accuracy |= {"tmix": 0.85, "sentmix": 0.75, "embedmix": 0.72}
    # 77 train rows: a run takes 11.7 seconds, and is first thought to take a fifth more.
    start, each, budget = world.now, 4 + 7.7, 800
    found = find(grid, tmp_path, world, budget)
    assert found.method == found.finalist == "tmix" and found.row.verdict == "better"
    left = budget - each
    first = int(left / 3 / (1.2 * each * 5))
    left -= (5 * first - 1) * each
    second = int(left / 2 / (each * 3))
    left -= 3 * second * each
    third = int(left / (each * 2))
    assert [one.seeds for one in found.rounds] == [first, first + second, first + second + third]
    assert [set(one.validation) for one in found.rounds] == [
        set(METHODS),
        {"none", "tmix", "sentmix"},
        {"none", "tmix"},
    ]
    assert budget - 2 * each < world.now - start <= budget
    # The gain is that on the seeds which chose nothing.
    assert found.unseen and found.row.seeds == third
    assert len(set(world.made)) == len(world.made)
    assert found.train_rows == 77
    assert found.row.difference == pytest.approx(0.15, abs=1e-9) and found.chance > 0.99
    assert "Suggestion: tmix" in sentence(found) and "+0.150" in sentence(found)


def test_where_nothing_helps_the_answer_is_none(grid, tmp_path, world):
    found = find(grid, tmp_path, world, 800)
    assert found.method == "none" and found.row.verdict == "not clear"
    # Every run is worth the same.
    assert found.row.difference == 0
    assert "Suggestion: none" in sentence(found) and "it makes no difference" in sentence(found)


def test_a_method_that_is_worse_is_not_suggested(grid, tmp_path, world):
    world.accuracy |= dict.fromkeys(METHODS[1:], 0.4)
    found = find(grid, tmp_path, world, 800)
    assert found.method == "none" and found.row.verdict == "worse" and found.chance < 0.01
    assert "less than 1 % certainty" in sentence(found) and "it is worse" in sentence(found)


def test_a_file_too_large_for_its_time_is_cut(tmp_path, tiny_bert_folder, world):
    path = tmp_path / "large.csv"
    write_csv(path, ("sentence", "label"), labelled_sentences(CLASSES, 2000))
    grid = grid_of(str(path), tiny_bert_folder, tmp_path)
    world.accuracy["amplify"] = 0.9
    start, budget = world.now, 1000
    found = find(grid, tmp_path, world, budget)
    # The pilot has 500 rows and takes 54 seconds; what is left allows in each of 3 rounds 5 methods and 2 seeds.
    affordable = ((budget - 54) / 3 / 10 / 1.2 - 4) / 0.1
    assert found.train_rows == int(affordable / 10) * 10 < 500
    assert world.made[0] == ("500", "none", 1)
    assert found.method == "amplify" and world.now - start <= budget


def test_too_little_time_is_said_with_how_much_it_takes(grid, tmp_path, world):
    with pytest.raises(UsageError, match=r"the time is too short.* give --budget (\d+)m") as error:
        find(grid, tmp_path, world, 60)
    minutes = int(str(error.value).split("--budget ")[1].split("m")[0])
    assert len(world.made) == 1
    # What it asks for suffices; the pilot is not made again.
    found = find(grid, tmp_path, world, 60 * minutes)
    assert found.rounds and world.made.count(("all", "none", 1)) == 1


def test_too_short_a_budget_is_refused_before_anything_is_trained(grid, tmp_path, world):
    # 96 rows, 19 of them for validation: 77 train rows, 3 epochs in batches of 8; the least is 50. A run is loaded
    # twice, validation rows are predicted twice, test rows once. Three rounds for 4 methods and none, 10 runs each.
    world.timing = Timing(load=2.0, step=0.5, row=0.01)

    def run(rows: int) -> float:
        return 2 * 2.0 + 3 * -(-rows // 8) * 0.5 + (2 * 19 + 24) * 0.01

    least, ample = run(77) + 30 * run(50), run(77) + 30 * run(77)
    with pytest.raises(UsageError) as error:
        find(grid, tmp_path, world, least - 1)
    assert str(error.value) == (
        f"the time is too short: the least budget is about {-(-least // 60):.0f}m (30 runs, 0.5 seconds a training "
        f"step as timed just now; an estimate, on 50 rows a run); give --budget {-(-least // 60):.0f}m or more, or "
        "fewer --methods"
    )
    assert not world.made
    console = Console(file=io.StringIO(), width=80)
    suggest(grid, Results(tmp_path / "out.jsonl"), console, world.now + least + 1)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == (
        f"The least budget is about {-(-least // 60):.0f}m for 50 training rows a run, and for all 77 about "
        f"{-(-ample // 60):.0f}m (an estimate: 30 runs, 0.5 seconds a training step as timed just now; starting and "
        "saving come on top)"
    )
    assert lines[1] == "First run: plain fine-tuning on 77 rows, which tells how long the others take"
    titles = [line for line in lines if line.startswith("Round ")]
    assert titles[0].startswith("Round 1 of 3: none against amplify, tmix, embedmix, sentmix; seeds 1 to ")
    assert [title[:12] for title in titles] == ["Round 1 of 3", "Round 2 of 3", "Round 3 of 3"]
    # A line for each run that ended, none of them broken.
    ended = [line for line in lines if ": accuracy 0." in line and "seed=" in line]
    assert len(ended) == len(world.made) and ended[0].startswith(
        "1 of 1: requests tiny all noise=0 none seed=1: accuracy 0.7"
    )


def test_what_cannot_be_timed_is_left_to_the_first_run(grid, tmp_path, world, monkeypatch):
    def broken(*_):
        raise OSError("no weights")

    monkeypatch.setattr(suggesting, "time_steps", broken)
    assert find(grid, tmp_path, world, 800).rounds


def test_steps_are_timed_on_the_model_itself(tiny_bert_folder):
    timing = time_steps(tiny_bert_folder, 4, [("red sky",), ("blue sea and more",)], 16)
    assert 0 < timing.row < 5 and 0 < timing.step < 5 and 0 < timing.load < 60
    with pytest.raises((OSError, ValueError)):
        time_steps("nowhere/at/all", 4, [("red",)], 16)


def test_methods_that_fail_are_left_out(grid, tmp_path, world):
    world.accuracy["tmix"], world.broken = 0.95, {"tmix"}
    found = find(grid, tmp_path, world, 800)
    assert found.finalist != "tmix" and all("tmix" not in one.validation for one in found.rounds)
    assert sentence(found).startswith("Left out, because runs failed: tmix. Suggestion: ")
    # What failed in one call may work in another.
    world.broken = set()
    assert find(grid, tmp_path, world, 800).finalist == "tmix"
    (tmp_path / "out.jsonl").unlink()
    world.broken = set(METHODS[1:])
    with pytest.raises(UsageError, match="^amplify failed with RuntimeError: it burns; .*sentmix failed with"):
        suggest(grid, Results(tmp_path / "two.jsonl"), Console(file=io.StringIO()), world.now + 800)
    world.broken = {"none"}
    with pytest.raises(UsageError, match="plain fine-tuning failed with RuntimeError: it burns"):
        suggest(grid, Results(tmp_path / "three.jsonl"), Console(file=io.StringIO()), world.now + 800)


def test_one_method_is_chosen_by_nothing_and_has_all_seeds(file, tiny_bert_folder, tmp_path, world):
    found = find(grid_of(file, tiny_bert_folder, tmp_path, ["none", "amplify"]), tmp_path, world, 300)
    assert found.unseen and found.row.seeds == found.rounds[-1].seeds == len(world.made) / 2 > 5


def test_seeds_that_also_chose_are_named(grid, tmp_path, world):
    world.accuracy["tmix"] = 0.9
    found = find(grid, tmp_path, world, 800)
    lines = Results(tmp_path / "out.jsonl").runs()
    by_method = {
        name: {
            line["cell"]["seed"]: line for line in lines if line["cell"]["method"] == name and line["cell"]["seed"] < 3
        }
        for name in ("none", "tmix")
    }
    cut = suggesting._compare(by_method, "tmix", found.rounds[:1], {1, 2}, {})
    assert not cut.unseen and cut.row.seeds == 2 and cut.method == "none" and cut.row.verdict == "better"
    assert "it was also chosen by these seeds, which flatters it" in sentence(cut)
    first = {name: {1: runs[1]} for name, runs in by_method.items()}
    one = suggesting._compare(first, "tmix", found.rounds[:1], {1}, {})
    assert one.method == "none" and "one seed only (tmix: accuracy 0.910 against 0.710" in sentence(one)


def test_what_is_done_is_not_done_again(grid, tmp_path, world):
    first = find(grid, tmp_path, world, 800)
    made = len(world.made)
    second = find(grid, tmp_path, world, 800)
    assert len(set(world.made)) == len(world.made) > made
    assert second.rounds[-1].seeds > first.rounds[-1].seeds


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_test_rows_are_a_stratified_part_of_the_file(tmp_path, ending):
    rows = [(f'say "{text}", and\nmore\rthan that', label) for text, label in labelled_sentences(CLASSES, 100)]
    path = tmp_path / f"requests.{ending}"
    if ending == "csv":
        write_csv(path, ("question", "kind"), rows)
    else:
        path.write_text("".join(json.dumps({"question": q, "kind": k}) + "\n" for q, k in rows), encoding="utf-8")
    folder = tmp_path / "parts"
    folder.mkdir()
    task = split_off_test(Task("requests", {"train": str(path)}, label_column_name="kind"), 0.2, 2000, folder)
    data = load_cell_data(task, Cell("requests", "tiny", "all", 0.0, "none", 1))
    found = [
        (text, data.labels.names[label])
        for split in ("train", "validation", "test")
        for (text,), label in zip(data.texts(split), data.encoded(split).tolist(), strict=True)
    ]
    assert sorted(found) == sorted(rows)
    assert np.bincount(data.encoded("test")).tolist() == [5] * 4
    again = split_off_test(Task("requests", {"train": str(path)}, label_column_name="kind"), 0.2, 2000, folder)
    assert again.fingerprint == task.fingerprint
    few = split_off_test(Task("requests", {"train": str(path)}, label_column_name="kind"), 0.2, 8, folder)
    assert len(load_cell_data(few, Cell("requests", "tiny", "all", 0.0, "none", 1)).splits["test"]) == 8


def test_a_text_that_stands_in_several_rows_is_not_both_trained_on_and_tested(tmp_path):
    rows = [(f"text {number}", f"kind {number % 3}") for number in range(60)]
    rows += [rows[number % 30] for number in range(90)]
    path = tmp_path / "requests.csv"
    write_csv(path, ("question", "kind"), rows)
    task = split_off_test(Task("requests", {"train": str(path)}, label_column_name="kind"), 0.25, 2000, tmp_path)
    data = load_cell_data(task, Cell("requests", "tiny", "all", 0.0, "none", 1))
    tested = data.texts("test")
    trained = [*data.texts("train"), *data.texts("validation")]
    # A quarter of the 60 texts, each once; all rows with other texts are trained on.
    assert len(tested) == len(set(tested)) == 15 and not set(tested) & set(trained)
    assert Counter(trained) == Counter((text,) for text, _ in rows if (text,) not in tested)


# ---- The command ----


def run(capsys, *words: str) -> tuple[int, str, str]:
    try:
        code = main(["suggest", *words])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_says_what_to_run(file, tiny_bert_folder, world, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    world.accuracy = {"none": 0.7, "amplify:alpha=0.4": 0.9, "tmix": 0.8}
    words = [file, "--budget", "10m", "--methods", "amplify:alpha=0.4", "--methods", "tmix"]
    words += ["--model", tiny_bert_folder, "--options", "num_train_epochs=2", "--options", "learning_rate=1e-3"]
    code, out, err = run(capsys, *words, "--output", str(tmp_path / "out.jsonl"))
    assert code == 0, err
    assert "Suggestion: amplify:alpha=0.4" in out and "round 2" in out
    line = next(line for line in out.splitlines() if "hf-mixup train" in line)
    (model, data, training), _ = parse_arguments(shlex.split(line)[2:], ARGUMENTS)
    assert (model.model_name_or_path, data.train_file) == (tiny_bert_folder, [file])
    assert (training.mixup_method, training.mixup_alpha, training.num_train_epochs) == ("amplify", 0.4, 2)
    assert training.learning_rate == 1e-3 and not data.pad_to_max_length
    # All of it is there, so that it can be pasted: a folder of its own, beside those that exist.
    assert training.output_dir == "requests-amplify-alpha=0.4" and "OUTPUT" not in line
    assert training.do_train and len(Results(tmp_path / "out.jsonl").runs()) > 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "30"], "'30' is no time; give a number with a unit"),
        (["--budget", "0m"], "'0m' is no time"),
        (["--budget", "-3m"], "budget"),
        ([], "--budget"),
        (["--budget", "1h", "--methods", "ampify"], "there is no method ampify; did you mean amplify?"),
        (["--budget", "1h", "--methods", "none"], "add a method to compare it with"),
        (["--budget", "1h", "--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--budget", "1h", "--text_column_names", "sentense"], "did you mean --text_column_names sentence?"),
        (["--budget", "1h", "--options", "num_train_epochs"], "has no value"),
        (["--budget", "1h", "--options", "num_train_epoch=3"], "did you mean num_train_epochs?"),
        (["--budget", "1h", "--jobs", "0"], "'0' should be a whole number of at least 1"),
    ],
)
def test_bad_input_is_one_sentence(file, world, capsys, words, says):
    code, out, err = run(capsys, file, *words)
    assert code == 2 and says in err and err.count("\n") == 1 and not out
    assert not world.made


def test_a_cut_file_keeps_its_rows_when_it_goes_on(tmp_path, tiny_bert_folder, world):
    path = tmp_path / "large.csv"
    write_csv(path, ("sentence", "label"), labelled_sentences(CLASSES, 2000))
    grid = grid_of(str(path), tiny_bert_folder, tmp_path)
    first, second = find(grid, tmp_path, world, 1000), find(grid, tmp_path, world, 2000)
    assert first.train_rows == second.train_rows and second.rounds[-1].seeds > first.rounds[-1].seeds
    assert {size for size, _, _ in world.made} == {"500", str(first.train_rows)}


def test_the_command_evaluates_where_the_runs_did(file, tiny_bert_folder, world, capsys):
    world.accuracy = {"none": 0.7, "amplify": 0.9}
    options = ["eval_strategy=epoch", "save_strategy=epoch", "load_best_model_at_end=true"]
    words = [file, "--budget", "5m", "--methods", "amplify", "--model", tiny_bert_folder, "--options", *options]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    line = next(line for line in out.splitlines() if "hf-mixup train" in line)
    (_, data, training), _ = parse_arguments(shlex.split(line)[2:], ARGUMENTS)
    assert training.do_eval and data.validation_split == 0.2 and not data.pad_to_max_length


def test_scores_without_a_correlation_are_one_sentence(tmp_path, tiny_bert_folder, world, grid):
    lines = {
        name: {seed: {"metrics": {"pearson": None}, "rows": {"train": 9}, "cell": {}} for seed in (1, 2)}
        for name in METHODS
    }
    for method, runs in lines.items():
        for seed, line in runs.items():
            line["cell"] = {"task": "t", "model": "m", "size": "all", "noise": 0.0, "method": method, "seed": seed}
    with pytest.raises(UsageError, match="no pearson on the test rows"):
        suggesting._compare(lines, "tmix", [], set(), {})


@pytest.mark.parametrize(
    ("words", "there", "named"),
    [
        ("train-none", (), "train-none"),
        ("train-amplify:alpha=0.4", ("train-amplify-alpha=0.4",), "train-amplify-alpha=0.4-2"),
        ("my file (1)-tmix", (), "my-file-1--tmix"),
        ("--x-none", (), "x-none"),
        ("", (), "model"),
    ],
)
def test_the_suggested_folder_is_new_and_needs_no_quotes(words, there, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / name).mkdir()
    assert suggesting._new_folder(words) == named == shlex.quote(named)


def test_files_that_do_not_fit(world, capsys, tmp_path):
    for name, content, says in (
        ("none.csv", None, "does not exist"),
        ("text.txt", "a", "should be a file that ends in"),
        ("one.csv", "sentence,label\nhello,a\n", "one.csv"),
        ("same.csv", "sentence,label\n" + "hello,a\n" * 50, "same.csv"),
        ("score.csv", "sentence,label\n" + "hello,2.5\n" * 50, "score.csv has the label 2.5 in every row"),
        ("few.csv", "sentence,label\nhello,a\nbye,b\nwho,c\n", "few.csv has 3 rows with different texts"),
        ("many.csv", "sentence,label\n" + "".join(f"hi,c{n % 30}\n" for n in range(45)), "give at least 150"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content, encoding="utf-8")
        code, _, err = run(capsys, str(tmp_path / name), "--budget", "1h")
        assert code == 2 and says in err and err.count("\n") == 1, (name, err)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_small_suggestion(file, tiny_bert_folder, capsys):
    words = ["--methods", "amplify", "--model", tiny_bert_folder, "--budget", "90s"]
    options = [f"{name}={value}" for name, value in OPTIONS.items()]
    code, out, err = run(capsys, file, *words, "--options", *options)
    assert code == 0, err
    assert "Suggestion: " in out and "hf-mixup train" in out
