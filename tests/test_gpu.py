"""The script for a GPU, on a CPU: what it refuses, what it finds, how it goes on, and what the pages make of it."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from docs.generator import gpu as pages
from hf_mixup import MixupTrainer
from hf_mixup.files import LOCK, alone
from tests.compare.test_report import run_line

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def on_gpu():
    """Imports a module of the benchmarks by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module


@pytest.fixture
def setting(on_gpu, tmp_path):
    return on_gpu("on_gpu.setting").Setting("cpu", tmp_path / "scratch", tmp_path / "out")


def call_line(on_gpu, device="cpu", **more):
    return {"kind": "call", **on_gpu("on_gpu.lines").checkout(), "device": device, **more}


def lines_of(out):
    return [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]


# ---- What it refuses --------------------------------------------------------------------------------------------


def refused(on_gpu, capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        on_gpu("gpu").main([str(word) for word in argv])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    return line


def test_without_a_gpu_it_says_so(on_gpu, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU with CUDA: run it on a machine that has one, or give --cpu" in refused(on_gpu, capsys, tmp_path)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "."], "--model . holds no weights: give a folder with config.json and *.safetensors"),
        (["--data", "."], "--data . holds no data sets: give a folder of folders with train.csv"),
        (["--wheels", "."], "--wheels . holds no wheels: give a folder with files that end in .whl"),
        (["--minutes", "0"], "--minutes should be above 0, got 0"),
        (["--parts", "speed"], "invalid choice: 'speed'"),
        (["--jobs", "0"], "'0' should be a whole number of at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(on_gpu, capsys, tmp_path, monkeypatch, flags, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(on_gpu, capsys, tmp_path / "out", "--cpu", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ({"commit": "0" * 40}, "holds the lines of another commit (000000000000, files "),
        ({"code": "other"}, "files other; here "),
        ({"device": "cuda"}, "holds lines of another device (cuda): give a new folder"),
        ("no lines\n", "does not hold lines of benchmarks/gpu.py: give another folder"),
    ],
    ids=str,
)
def test_a_folder_of_something_else_is_left_as_it_is(on_gpu, capsys, tmp_path, held, sentence):
    file = tmp_path / "gpu.jsonl"
    file.write_text(held if isinstance(held, str) else json.dumps(call_line(on_gpu) | held) + "\n")
    before = file.read_text()
    assert sentence in refused(on_gpu, capsys, tmp_path, "--cpu")
    assert file.read_text() == before
    assert "is a file: give a new folder" in refused(on_gpu, capsys, file, "--cpu")


def test_two_calls_do_not_write_to_one_folder(on_gpu, capsys, tmp_path):
    with alone(tmp_path / LOCK, "the first call"):
        assert f"another call writes to {tmp_path}: wait" in refused(on_gpu, capsys, tmp_path, "--cpu")
    assert list(tmp_path.iterdir()) == []


# ---- Lines ------------------------------------------------------------------------------------------------------


def test_a_cut_off_line_goes_and_what_is_done_stays(on_gpu, tmp_path):
    module = on_gpu("on_gpu.lines")
    lines = module.Lines(tmp_path, call_line(on_gpu))
    lines.append({"kind": "part", "part": "a", "checks": ["one", "two", "three", "four"]})
    for name, status in (("one", "passed"), ("two", "error"), ("two", "failed"), ("three", "error")):
        lines.append({"kind": "check", "part": "a", "check": name, "status": status})
    lines._file.write(b'{"kind": "check", "part": "a", "check": "fo')
    lines._file.close()
    again = module.Lines(tmp_path, call_line(on_gpu))
    assert again.done("a") == ["one", "two"] and again.done("b") == []
    assert [line["status"] for line in again.of("a").values()] == ["passed", "failed", "error", "not run"]
    assert [line["kind"] for line in lines_of(tmp_path)] == ["call", "part", *["check"] * 4, "call"]


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        ({"error": (1e-6, 1e-5), "told": 3}, "passed"),
        ({"error": (1e-5, 1e-5)}, "passed"),
        ({"error": (2e-5, 1e-5)}, "failed"),
        ({"error": (float("nan"), 1e-5)}, "failed"),
        ({"error": (9.0, None)}, "passed"),
        ({"failed runs": (0, 0), "unfinished": True}, "unfinished"),
        ({"failed runs": (1, 0), "unfinished": True}, "failed"),
    ],
    ids=str,
)
def test_a_check_passes_within_its_limits(on_gpu, measured, status):
    number = on_gpu("on_gpu.setting").Number
    given = {name: number(*each) if isinstance(each, tuple) else each for name, each in measured.items()}
    assert on_gpu("on_gpu.work").judged(given)["status"] == status


# ---- What the checks find ---------------------------------------------------------------------------------------


def beyond(numbers):
    return [name for name, each in numbers.items() if getattr(each, "most", None) is not None and each[0] > each[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["amplify", "sentmix", "nonlinear"])
def test_another_partner_on_the_device_is_found(on_gpu, setting, monkeypatch, method, dtype):
    numerics = on_gpu("on_gpu.numerics")
    step = numerics.step

    def other(model, batch, plan, swaps=None):
        if swaps is not None:
            plan = dataclasses.replace(plan, partner=plan.partner.flip(0), inverse=None)
        return step(model, batch, plan, swaps)

    assert beyond(numerics.tiny(setting, "bert", method, dtype)) == []
    monkeypatch.setattr(numerics, "step", other)
    assert "gradient" in beyond(numerics.tiny(setting, "bert", method, dtype))


def test_a_mix_with_another_gradient_is_found(on_gpu, setting, monkeypatch):
    kernels = on_gpu("on_gpu.kernels")
    right = kernels.mix

    def wrong(states, partner, weight):
        made = right(states, partner, weight)
        return made + 0.001 * (states - states.detach())

    monkeypatch.setattr(kernels, "mix", wrong)
    assert beyond(kernels.mixed(setting, "row", torch.float32, 1e-6)) == ["gradient"]


class Waiting(MixupTrainer):
    """Reads four values of each loss."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        for _ in range(4):
            loss.item()
        return loss


def test_a_step_that_waits_is_found(on_gpu, setting, monkeypatch):
    training = on_gpu("on_gpu.training")
    assert beyond(training.waited(setting, "amplify", training.waits.Reads)) == []
    monkeypatch.setattr(training, "MixupTrainer", Waiting)
    assert beyond(training.waited(setting, "amplify", training.waits.Reads)) == ["waits more than stock Trainer's"]


def test_every_part_lists_its_checks_on_both_devices(on_gpu, setting):
    for phase, (_, _, parts) in on_gpu("gpu").PHASES.items():
        for part in parts:
            module = on_gpu(f"on_gpu.{part}")
            for device in ("cpu", "cuda"):
                assert module.checks(dataclasses.replace(setting, device=device)), (phase, part)


# ---- Processes --------------------------------------------------------------------------------------------------

FAKE = """
import os, time
from on_gpu.setting import Number, Skip

def checks(setting):
    def raises():
        raise RuntimeError("not today")
    def skips():
        raise Skip("needs a moon")
    return {
        "passes": lambda: {"error": Number(0, 1)},
        "fails": lambda: {"error": Number(2, 1)},
        "raises": raises,
        "dies": lambda: os._exit(3),
        "skips": skips,
        "hangs": lambda: time.sleep(600),
        "passes again": lambda: {"error": Number(1, 1), "seen": setting.device},
    }
"""


@pytest.mark.slow
def test_what_ends_or_holds_up_a_process_costs_its_own_check_alone(on_gpu, tmp_path, monkeypatch, capsys):
    script = on_gpu("gpu")
    (tmp_path / "fake_first.py").write_text(FAKE)
    (tmp_path / "fake_second.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(script, "PHASES", {"correctness": (1.0, 2, ("first", "second")), "rest": (1.0, 1, ())})
    monkeypatch.setattr(script, "MODULE", "fake_{}")
    monkeypatch.setattr(script, "LONGEST", {"cpu": 15})
    out = tmp_path / "out"
    call = [str(out), "--cpu", "--minutes", "3", "--parts", "correctness"]
    assert script.main(call) == 1
    found = on_gpu("on_gpu.lines").latest(lines_of(out))
    states = {name: line["status"] for name, line in found["first"].items()}
    assert states == {
        "passes": "passed",
        "fails": "failed",
        "raises": "error",
        "dies": "error",
        "skips": "skipped",
        "hangs": "error",
        "passes again": "passed",
    }
    tracebacks = {name: line.get("traceback", "") for name, line in found["first"].items()}
    assert tracebacks["raises"].endswith("RuntimeError: not today\n")
    assert tracebacks["dies"].endswith("ended, or ended by itself: code 3")
    assert tracebacks["hangs"].endswith("it took longer than 15 seconds")
    assert found["first"]["skips"]["reason"] == "needs a moon"
    assert "ImportError: no such luck" in found["second"]["its process"]["traceback"]
    shown = capsys.readouterr().out
    assert "What did not pass" in shown and "error 2.0 (at most 1)" in shown
    # Another call tries again what raised, and leaves alone what passed or failed.
    before = len(lines_of(out))
    assert script.main(call) == 1
    again = [line["check"] for line in lines_of(out)[before:] if line["kind"] == "check" and line["part"] == "first"]
    assert again == ["raises", "dies", "skips", "hangs"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_the_middle_the_next_call_goes_on_to_the_end(on_gpu, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), str(out), "--cpu", "--minutes", "6"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not (out / "gpu.jsonl").exists() or len(lines_of(out)) < 10:
            time.sleep(0.2)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    before = [line for line in lines_of(out) if line["kind"] == "check" and line["status"] == "passed"]
    # On a busy machine its time may be up before its end.
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    found = on_gpu("on_gpu.lines").latest(lines_of(out))
    states = {(part, name): line["status"] for part, checks in found.items() for name, line in checks.items()}
    assert set(states.values()) == {"passed", "skipped"}
    reasons = {
        line["reason"].split(":")[0] for checks in found.values() for line in checks.values() if "reason" in line
    }
    assert reasons == {"needs CUDA", "needs weights and data"}
    assert list(found) and set(found) == {part for _, _, parts in on_gpu("gpu").PHASES.values() for part in parts}
    # What the killed call had passed was not made again.
    passed = [(line["part"], line["check"]) for line in lines_of(out) if line.get("status") == "passed"]
    assert len(before) >= 5 and len(passed) == len(set(passed))


@pytest.mark.slow
def test_the_grids_run_on_the_weights_that_are_given(on_gpu, data_folder, tiny_bert_folder, tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out"), "--cpu", "--minutes", "4", "--parts", "evidence"]
    command += ["--model", tiny_bert_folder, "--data", str(data_folder), "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (line,) = (line for line in lines_of(tmp_path / "out") if line["kind"] == "check")
    assert line["status"] == "passed" and line["told"]["runs"] == line["told"]["of"] == 2
    (file,) = (tmp_path / "out" / "evidence").iterdir()
    runs = [json.loads(text) for text in file.read_text().splitlines()]
    assert sorted(run["cell"]["method"] for run in runs) == ["amplify", "none"]


# ---- Pages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def found(tmp_path):
    """Made-up lines of a GPU."""
    call = {"kind": "call", "commit": "c" * 40, "code": "f00", "device": "cuda", "machine": "EPYC, 16 cores, NVIDIA X"}
    call |= {
        "versions": {"torch": "2.11.0"},
        "command": "python benchmarks/gpu.py OUT --minutes 8",
        "card": "NVIDIA X",
    }
    options = {"mixup_method": "amplify", "model": "bert-base", "depth": None, "batch": 32, "length": 128}
    timing = {"options": {**options, "compile": False, "pairs": 30}, "ratio_median": 1.0123, "ratio_target": 1.03}
    timing |= {"ratio_interval_95": [1.001, 1.021], "plain_step_median_seconds": 0.0351, "memory_ratio": 1.0049}
    timing |= {"added_per_step": {"kernel_launches": 48, "host_waits": -1}, "plain_seconds": 2.0}
    timing |= {"added_seconds": 0.02, "operators": [{"name": "aten::lerp_", "calls": 24, "seconds": 0.01}]}
    check = {"kind": "check", "card": "NVIDIA X", "seconds": 1.0}
    lines = [
        call,
        {"kind": "part", "part": "numerics", "checks": ["one", "two", "three"]},
        {**check, "part": "numerics", "check": "one", "status": "passed"},
        {**check, "part": "numerics", "check": "two", "status": "failed"}
        | {"measured": {"loss": 0.5, "logits": 0.1}, "at_most": {"loss": 0.25, "logits": 0.2}},
        {**check, "part": "launched", "check": "ddp", "status": "error", "traceback": "Traceback\nNCCLError: a | b\n"},
        {**check, "part": "timing", "check": "amplify", "status": "passed", "told": {"line": timing}},
    ]
    (tmp_path / "gpu.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "evidence").mkdir()
    runs = [run_line(0.8 + 0.01 * seed, method, seed) for method in ("none", "amplify") for seed in (1, 2, 3)]
    text = "".join(json.dumps({**run, "machine": "EPYC, NVIDIA X, 2 threads"}) + "\n" for run in runs)
    (tmp_path / "evidence" / "more_tasks.jsonl").write_text(text)
    return tmp_path


def test_the_pages_say_what_was_found_and_on_which_card(found):
    checked, timed, compared = pages.checked(found), pages.timed(found), pages.compared(found)
    assert "On NVIDIA X, by the checks" in checked and "Commit cccccccccccc (files f00)" in checked
    assert "against float64 on the CPU | 1 | 1 | 0 | 0 | 0 | 1 |" in checked
    assert "| two | failed | loss 0.5 (at most 0.25) |" in checked
    assert "| ddp | error | NCCLError: a \\| b |" in checked and "| three | not run |" in checked
    assert "On NVIDIA X, in bfloat16" in timed
    row = next(line for line in timed.splitlines() if line.startswith("| `amplify`"))
    assert row == (
        "| `amplify` | bert-base | all | 32 x 128 | eager | 30 | 35.1 | 1.012 | 1.001 to 1.021 | 1.030 | 1.005 | 48 "
        "| -1 | 1.00% | lerp_ 0.50% |"
    )
    assert "6 runs, 0 failed, on EPYC, NVIDIA X, 2 threads" in compared and "82.0 ± 1.0" in compared
    for text in (checked, timed, compared):
        assert text.startswith("## On a GPU\n") and "Not run" not in text


def test_without_lines_the_pages_say_that_nothing_was_run(tmp_path):
    for section in (pages.checked, pages.timed, pages.compared):
        assert "Not run on a GPU yet: `python benchmarks/gpu.py OUT`" in section(tmp_path)


def test_lines_of_a_cpu_are_no_lines_of_a_gpu(found):
    text = (found / "gpu.jsonl").read_text().replace('"device": "cuda"', '"device": "cpu"')
    (found / "gpu.jsonl").write_text(text)
    with pytest.raises(ValueError, match="lines of a CPU"):
        pages.timed(found)


def test_a_section_takes_the_place_of_the_one_before_it():
    page = "# Page\n\nText.\n\n## On a GPU\n\nOld.\n\n## Next\n\nMore.\n"
    assert pages.with_section(page, "## On a GPU\n\nNew.\n") == page.replace("Old", "New")
