"""From grid to file of results: what is left after a kill, failures, other grids, processes and Ray."""

from __future__ import annotations

import io
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml
from rich.console import Console

from hf_mixup.compare import launchers, main, runner, tuning
from hf_mixup.compare.grid import make_grid
from hf_mixup.compare.launchers import perform
from hf_mixup.compare.packing import pack
from hf_mixup.compare.results import Results
from hf_mixup.compare.runner import run_grid
from hf_mixup.errors import UsageError
from hf_mixup.trainer import NonFiniteLossError
from tests.compare.conftest import OPTIONS

TIMES = ("seconds", "cost", "machine")


def lines_of(path: Path) -> list[dict]:
    """The lines without what may differ from run to run."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def made_up_run(cell, task, model, options):
    """What a run is worth, without a run: numbers that follow from the cell."""
    accuracy = zlib.crc32(cell.key.encode()) % 1000 / 1000
    return {
        "rows": {"train": 20, "test": 1},
        "metrics": {"accuracy": accuracy, "f1_macro": accuracy / 2},
        "validation": {"accuracy": accuracy, "loss": 0.5},
        "measures": {"temperature": None, "lr": float(options["learning_rate"])},
        "cost": {"steps": 2, "step_seconds": 0.1},
        "loss": [],
        "test": {"labels": pack(np.array([1])), "predictions": pack(np.array([0]))},
    }


@pytest.fixture
def in_this_process(monkeypatch):
    """A launcher that needs no process of its own, of made-up runs; after `stop_after` jobs it is interrupted."""
    state = {"stop_after": None, "done": 0}

    def launch(waiting, at_once, log):
        while waiting:
            job = waiting.popleft()
            yield job, None
            if state["done"] == state["stop_after"]:
                raise KeyboardInterrupt
            state["done"] += 1
            yield job, perform(job)

    monkeypatch.setitem(runner.LAUNCHERS, "local", launch)
    monkeypatch.setattr(launchers, "run_cell", made_up_run)
    return state


def go(grid, path, **options) -> Results:
    results = Results(path)
    results.check_grid(grid, options.get("retry", False))
    run_grid(grid, results, Console(file=io.StringIO()), **options)
    return results


def test_a_stopped_grid_goes_on_and_gives_the_same_file(grid, tmp_path, in_this_process):
    go(grid, tmp_path / "whole.jsonl")
    in_this_process |= {"stop_after": 2, "done": 0}
    path = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        go(grid, path)
    assert len(lines_of(path)) == 2
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"key": "colours tiny all noi')  # killed while it wrote
    in_this_process["stop_after"] = None
    go(grid, path)
    assert lines_of(path) == lines_of(tmp_path / "whole.jsonl")
    assert [line["key"] for line in lines_of(path)] == [cell.key for cell in grid.cells()]
    before = path.read_bytes()
    go(grid, path)  # nothing is left to do
    assert path.read_bytes() == before


def test_a_last_line_without_its_end_is_kept(grid, tmp_path, in_this_process):
    in_this_process["stop_after"] = 1
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        go(grid, path)
    whole = path.read_bytes()
    path.write_bytes(whole.rstrip(b"\n"))
    in_this_process["stop_after"] = None
    go(grid, path)
    assert path.read_bytes().startswith(whole) and len(lines_of(path)) == 4


def test_a_failed_run_is_recorded_and_the_rest_goes_on(grid, tmp_path, in_this_process, monkeypatch):
    broken = {"amplify:alpha=1:ratio=beta"}

    def run_cell(cell, *rest):
        if cell.method in broken and cell.seed == 1:
            raise RuntimeError("the disk\nburns")
        return made_up_run(cell, *rest)

    monkeypatch.setattr(launchers, "run_cell", run_cell)
    path = tmp_path / "out.jsonl"
    results = go(grid, path)
    states = {line["key"]: line["status"] for line in lines_of(path)}
    assert list(states.values()) == ["done", "failed", "done", "done"]
    failed = results.lines["colours tiny all noise=0 amplify:alpha=1:ratio=beta seed=1"]
    assert failed["error"] == "RuntimeError: the disk burns" and "metrics" not in failed
    broken.clear()
    go(grid, path)  # failed runs stay as they are
    assert len(lines_of(path)) == 4
    results = go(grid, path, retry=True)
    assert len(lines_of(path)) == 5 and len(results.runs()) == 4
    assert len(Results(path).runs()) == 4


def test_failed_runs_may_be_made_again_with_other_options(settings, tmp_path, in_this_process, monkeypatch):
    def run_cell(cell, *rest):
        if cell.seed == 1:
            raise RuntimeError("out of memory")
        return made_up_run(cell, *rest)

    monkeypatch.setattr(launchers, "run_cell", run_cell)
    path = tmp_path / "out.jsonl"
    go(make_grid({**settings, "seeds": "1"}), path)
    monkeypatch.setattr(launchers, "run_cell", made_up_run)
    settings["options"] = {**settings["options"], "gradient_checkpointing": True}
    with pytest.raises(UsageError, match="an option of .* was another"):
        go(make_grid({**settings, "seeds": "1"}), path)
    results = go(make_grid({**settings, "seeds": "1"}), path, retry=True)
    assert len(results.runs()) == 2 and results.runs()[0]["options"]["gradient_checkpointing"] == "true"
    with pytest.raises(UsageError, match="an option of .* was another"):
        go(make_grid({**settings, "seeds": "1", "options": OPTIONS}), path, retry=True)


def test_errors_do_not_name_folders_that_are_gone(settings, tmp_path, in_this_process, monkeypatch):
    def run_cell(cell, task, model, options):
        with tempfile.TemporaryDirectory() as folder:
            raise ValueError(f"{folder}/run/config.json of {model} is broken")

    monkeypatch.setattr(launchers, "run_cell", run_cell)
    results = go(make_grid({**settings, "seeds": "1", "methods": "none"}), tmp_path / "out.jsonl")
    (line,) = results.lines.values()
    assert line["error"] == "ValueError: run/config.json of tiny is broken"


def test_nothing_begins_that_would_end_too_late(grid, tmp_path, in_this_process, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def launch(waiting, at_once, log):
        busy = []
        while waiting or busy:
            while waiting and len(busy) < at_once:
                busy.append(waiting.popleft())
                yield busy[-1], None
            # Runs that began together end one after the other.
            clock.now += 10 / at_once
            yield (job := busy.pop(0)), {**perform(job), "seconds": 10.0}

    monkeypatch.setitem(runner.LAUNCHERS, "local", launch)
    results = go(grid, tmp_path / "out.jsonl", until=29.0)
    assert clock.now == 20 and len(results.runs()) == 2
    go(grid, tmp_path / "out.jsonl")
    assert len(Results(tmp_path / "out.jsonl").runs()) == 4
    # When the first of two ends, there is no time for a third; the second has begun, and ends.
    clock.now = 0.0
    assert len(go(grid, tmp_path / "two.jsonl", until=14.0, at_once=2).runs()) == 2


def test_what_another_command_adds_is_not_lost(grid, tmp_path, in_this_process):
    path = tmp_path / "out.jsonl"
    go(grid, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    first, second = Results(path), Results(path)
    first.append(json.loads(lines[1]))
    second.append(json.loads(lines[2]))
    assert path.read_bytes() == b"".join(lines[:3])
    # A line that was cut off is taken away, but not if the file has grown since it was read.
    path.write_bytes(lines[0] + lines[1][:40])
    first, second = Results(path), Results(path)
    first.append(json.loads(lines[1]))
    second.append(json.loads(lines[2]))
    assert path.read_bytes() == b"".join(lines[:3])


def test_one_command_at_a_time_writes_to_a_file(grid, tmp_path, in_this_process):
    path = tmp_path / "out.jsonl"
    with (
        Results(path).alone(),
        pytest.raises(UsageError, match="another command writes to --output .*out.jsonl; wait"),
    ):
        go(grid, path)
    assert not path.exists() and len(go(grid, path).runs()) == 4


def test_the_log_of_a_grid_is_not_added_to_through_a_link(grid, tmp_path, in_this_process):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "out.jsonl.log").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match=f"out.jsonl.log is a link to {tmp_path}/theirs"):
        go(grid, tmp_path / "out.jsonl")
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "out.jsonl").exists()


def test_a_lock_that_cannot_be_made_is_not_taken_for_another_command(grid, tmp_path, in_this_process):
    (tmp_path / "out.jsonl.lock").mkdir()
    with pytest.raises(UsageError, match="the lock file .*out.jsonl.lock cannot be made .is a directory"):
        go(grid, tmp_path / "out.jsonl")


def test_a_grid_may_grow(settings, tmp_path, in_this_process):
    path = tmp_path / "out.jsonl"
    go(make_grid({**settings, "seeds": "1"}), path)
    before = path.read_bytes()
    go(make_grid({**settings, "methods": [*settings["methods"], "tmix"]}), path)
    assert path.read_bytes().startswith(before)
    assert len(Results(path).runs()) == 6


def test_a_line_says_what_a_method_of_a_given_name_is(settings, tmp_path, task_folder, in_this_process):
    path = tmp_path / "out.jsonl"
    settings |= {"methods": ["none", "much=amplify:alpha=1:ratio=beta"], "seeds": "1"}
    plain, named = go(make_grid(settings), path).runs()
    assert named["cell"]["method"] == "much" and named["method"] == "amplify:alpha=1:ratio=beta"
    assert named["options"]["mixup_alpha"] == "1" and "method" not in plain
    before = path.read_bytes()
    # On another task too: one name has one meaning in a file.
    for tasks in (settings["tasks"], [*settings["tasks"], f"other={task_folder}"]):
        others = {"tasks": tasks, "methods": ["none", "much=amplify:alpha=2:ratio=beta"]}
        with pytest.raises(UsageError, match="has another method called much, which is amplify:alpha=1:ratio=beta"):
            go(make_grid({**settings, **others}), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("method", [None, 5, ["amplify"], "", "garbage", "tmix:alpha=1", "amplify:alpha=abc"])
def test_a_line_with_a_damaged_method_is_left_out(settings, tmp_path, in_this_process, method):
    path = tmp_path / "out.jsonl"
    go(make_grid({**settings, "methods": ["none", "much=amplify:alpha=1"], "seeds": "1"}), path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[1]["method"] = method
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    results = Results(path)
    assert list(results.lines) == [lines[0]["key"]] and "method" in results.damaged[2]


def test_the_run_of_a_damaged_line_is_made_again_and_the_line_stays(grid, settings, tmp_path, in_this_process, capsys):
    path = tmp_path / "out.jsonl"
    whole = go(grid, path).lines
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    damaged = first + second.replace(b'"steps": 2', b'"steps": -2') + b"".join(others)
    path.write_bytes(damaged)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert main.main([str(tmp_path / "grid.yaml"), "--output", str(path)]) == 0
    said = capsys.readouterr().err
    assert f"{path} has damaged lines, which are left out: line 2 (cost.steps is not a whole number" in said
    assert path.read_bytes().startswith(damaged) and len(path.read_bytes().splitlines()) == 5
    for line in (whole, again := Results(path).lines):
        for each in line.values():
            del each["seconds"]
    assert again == whole


def test_names_with_brackets_are_shown(settings, tmp_path, in_this_process, task_folder):
    settings |= {"tasks": [f"[/t]={task_folder}"], "methods": ["none", "[/x]=amplify:alpha=1"], "seeds": "1"}
    grid, results, text = make_grid(settings), Results(tmp_path / "out.jsonl"), io.StringIO()
    console = Console(file=text, width=200)
    run_grid(grid, results, console)
    for table in main.tables(results.runs()):
        console.print(table)
    shown = text.getvalue()
    # In a line for each run, the table of the progress, and the title of the results.
    assert "[/x]" in shown and "[/t]: accuracy" in shown and shown.count("[/t]") == 4


def test_every_run_that_ends_is_a_line_where_there_is_no_terminal(settings, tmp_path, in_this_process, task_folder):
    class Text(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    settings |= {"tasks": [f"colours={task_folder}"], "methods": ["none"], "seeds": "1-2"}
    grid, results, text = make_grid(settings), Results(tmp_path / "out.jsonl"), Text()
    run_grid(grid, results, Console(file=text, width=40))
    lines = [line for line in text.getvalue().splitlines() if "seed=" in line]
    # Not broken at the width of what is no terminal, and written at once.
    wanted = r"{} of 2: colours tiny all noise=0 none seed={}: accuracy 0\.\d{{3}} \(\d+ seconds, {}\)"
    assert len(lines) == 2 and text.flushed >= 2
    assert re.fullmatch(wanted.format(1, 1, r"about 0:00:\d\d left"), lines[0]), lines[0]
    assert re.fullmatch(wanted.format(2, 2, "nothing left"), lines[1]), lines[1]


@pytest.mark.parametrize("other", ["options", "data", "tasks", "tune", "model", "options of another size"])
def test_files_of_other_grids_are_left_alone(
    settings, tmp_path, task_folder, tiny_bert_folder, in_this_process, other
):
    path = tmp_path / "out.jsonl"
    go(make_grid({**settings, "seeds": "1", "methods": "none"}), path)
    before = path.read_bytes()
    if other == "options":
        settings["options"] = {**settings["options"], "max_steps": 3}
    elif other == "data":
        with open(Path(task_folder, "train.csv"), "a", encoding="utf-8") as file:
            file.write("one more,red\n")
    elif other == "model":
        shutil.copytree(tiny_bert_folder, tmp_path / "other")
        (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
        settings["models"] = [f"tiny={tmp_path / 'other'}"]
    elif other == "options of another size":
        settings |= {"sizes": "20", "options": {**settings["options"], "max_steps": 3}}
    elif other == "tasks":
        settings["tasks"] = [f"other={task_folder}"]
    else:
        settings["tune"] = 3
    with pytest.raises(UsageError, match="another grid") as error:
        go(make_grid(settings), path)
    assert "\n" not in str(error.value) and path.read_bytes() == before


@pytest.mark.parametrize("content", ["hello", "hello\n", '{"a": 1}\n', "[1]\n", "1", "{\n"])
def test_files_of_something_else_are_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="is no file of results"):
        Results(path)
    assert path.read_text(encoding="utf-8") == content


def test_an_output_that_cannot_be_a_file(grid, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--output .* cannot be made"):
        go(grid, tmp_path / "file" / "out.jsonl")


def test_the_table_counts(grid, tmp_path, in_this_process):
    results = go(grid, tmp_path / "out.jsonl")
    console = Console(file=io.StringIO(), width=120)
    console.print(runner.Progress(grid, results, 1).table())
    row = next(line for line in console.file.getvalue().splitlines() if "colours" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:5] == ["colours", "4", "0", "0", "0"]
    accuracies = {}
    for line in results.runs():
        accuracies.setdefault(line["cell"]["method"], []).append(line["metrics"]["accuracy"])
    best = max(sum(values) / 2 for values in accuracies.values())
    assert f"accuracy {best:.3f} (2)" in row


def test_tuning_comes_first_and_all_methods_get_as_many_trials(settings, tmp_path, in_this_process, monkeypatch):
    lengths = []

    def made_up_train(data, task, model, options, seed, folder):
        lengths.append(int(options["max_steps"]))
        # Best at a learning rate of 1e-4, and a little better for longer runs.
        closeness = 1 / (1 + abs(math.log10(float(options["learning_rate"]) / 1e-4)))
        return {"eval_loss": 1.0, "eval_accuracy": closeness + lengths[-1] / 1000, "train_loss": 1.0}

    monkeypatch.setattr(tuning, "train", made_up_train)
    settings |= {"methods": ["none", "amplify", "tmix:learning_rate=0.0002"], "seeds": "1", "tune": 12}
    settings["options"] = {**settings["options"], "max_steps": 8, "learning_rate": 2e-5}
    results = go(make_grid(settings), tmp_path / "out.jsonl")
    lines = list(results.lines.values())
    assert [line["kind"] for line in lines] == ["tuning"] * 3 + ["run"] * 3
    searched = [{"learning_rate"}, {"learning_rate", "mixup_alpha"}, {"mixup_alpha"}]
    for tuned, run, names in zip(lines[:3], lines[3:], searched, strict=True):
        assert len(tuned["trials"]) == 12
        assert run["tuned"] == tuned["best"] and set(tuned["best"]) - {"mixup_layers"} == names
        done = [trial for trial in tuned["trials"] if trial["state"] == "COMPLETE"]
        assert tuned["best"] == max(done, key=lambda trial: trial["value"])["flags"]
        assert run["measures"]["lr"] == tuned["best"].get("learning_rate", 0.0002)
    for tuned in lines[:2]:
        assert tuned["trials"][0]["flags"]["learning_rate"] == 2e-5
        assert 7e-5 < tuned["best"]["learning_rate"] < 1.4e-4
        assert {trial["state"] for trial in tuned["trials"]} == {"COMPLETE", "PRUNED"}
    # The first trial has the settings that runs without tuning have: AMPLIFY's alpha of 0.1, all layers.
    assert lines[1]["trials"][0]["flags"]["mixup_alpha"] == 0.1
    assert "mixup_layers" not in lines[1]["trials"][0]["flags"]
    # Every trial begins with a quarter of the steps; those that go on make all of them.
    states = [trial["state"] for line in lines[:3] for trial in line["trials"]]
    assert (lengths.count(2), lengths.count(8)) == (36, states.count("COMPLETE"))
    before = results.path.read_bytes()
    go(make_grid(settings), results.path)
    assert results.path.read_bytes() == before


def test_methods_whose_tuning_failed_are_not_run(settings, tmp_path, in_this_process, monkeypatch):
    def diverging(*_):
        raise NonFiniteLossError("the loss is nan")

    monkeypatch.setattr(tuning, "train", diverging)
    results = go(make_grid({**settings, "methods": "none", "tune": 2}), tmp_path / "out.jsonl")
    (line,) = results.lines.values()
    assert (line["kind"], line["status"]) == ("tuning", "failed") and "none" in line["error"]


# ---- The command in processes of its own ----


@pytest.fixture
def command(settings, tmp_path):
    """The command line of a grid of 12 cells, in a file."""
    settings |= {"seeds": "1-3", "noise": [0, 0.25]}
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def line(output: str, *flags: str) -> list[str]:
        return [sys.executable, "-m", "hf_mixup.cli", "compare", str(file), "--output", str(tmp_path / output), *flags]

    return line


# One thread in every process: sums in another order end in other last bits, and training makes more of them.
ENVIRONMENT = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


def run_command(line: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(line, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_grid_of_twelve_cells_goes_on_and_gives_the_same_file(command, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_command(command("whole.jsonl"))
    assert done.returncode == 0, done.stderr
    # Two minutes of work: what the clock says depends on what else the machine does.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 120
    whole = lines_of(tmp_path / "whole.jsonl")
    assert len(whole) == 12 and all(line["status"] == "done" for line in whole)
    shown = " ".join(done.stdout.split())
    assert "amplify" in shown and "not clear" in shown and "25% of their labels made wrong" in shown

    path = tmp_path / "killed.jsonl"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command("killed.jsonl"), env=ENVIRONMENT, **silent)
    while not path.exists() or path.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert children and not alive, "a worker outlives its parent"
    assert 3 <= len(lines_of(path)) < 12
    assert run_command(command("killed.jsonl", "--seeds", "1-3")).returncode == 0
    assert lines_of(path) == whole


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_make_the_same_lines_and_survive_one_that_dies(command, settings, tmp_path, monkeypatch):
    grid = make_grid(settings)
    assert run_command(command("one.jsonl", "--noise", "0")).returncode == 0
    died, path = [], tmp_path / "two.jsonl"
    real = Results.append

    def append(self, record):
        real(self, record)
        if not died:
            workers = psutil.Process().children()
            died.extend(worker.pid for worker in workers if "spawn_main" in " ".join(worker.cmdline()))
            os.kill(died[0], signal.SIGKILL)

    monkeypatch.setattr(Results, "append", append)
    grid = make_grid({**settings, "noise": 0})
    results = go(grid, path, at_once=2)
    failed = [line for line in results.lines.values() if line["status"] == "failed"]
    assert all("its process ended with code -9" in line["error"] for line in failed) and len(failed) <= 1
    monkeypatch.undo()
    go(grid, path, at_once=2, retry=True)
    one = {line["key"]: line for line in lines_of(tmp_path / "one.jsonl")}
    two = {line["key"]: line for line in lines_of(path)}
    assert one == two


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ray_makes_the_same_lines(command, tmp_path):
    pytest.importorskip("ray")
    assert run_command(command("here.jsonl", "--noise", "0", "--seeds", "1-2")).returncode == 0
    done = run_command(command("ray.jsonl", "--noise", "0", "--seeds", "1-2", "--launcher", "ray", "--jobs", "2"))
    assert done.returncode == 0, done.stderr
    here, there = ({line["key"]: line for line in lines_of(tmp_path / name)} for name in ("here.jsonl", "ray.jsonl"))
    assert len(here) == 4 and here == there


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ctrl_c_stops_all_of_it(command, tmp_path):
    path = tmp_path / "out.jsonl"
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
    listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command("out.jsonl"), **pipes, preexec_fn=listens)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130 and "the same command goes on" in error
    assert not psutil.wait_procs(children, timeout=60)[1]


def test_a_device_is_no_file_of_results(tmp_path):
    """One without an end would fill the memory."""
    (tmp_path / "results.jsonl").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="results.jsonl is no file; give another one"):
        Results(tmp_path / "results.jsonl")
