"""The benchmarks on tiny models: what they count, what they aim at, and what the figures draw."""

import argparse
import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from docs.generator import performance
from hf_mixup.methods import METHODS
from hf_mixup.mixing.ratios import BatchWeights

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--model", "tiny", "--batch", "4", "--length", "16", "--cpu", "--threads", "1")
MIXING = [name for name, method in METHODS.items() if method.site]


@pytest.fixture(scope="module")
def step_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("step_time")


@pytest.fixture(scope="module")
def plain_calls(step_time, tmp_path_factory):
    return step_time.calls(options_of(step_time, tmp_path_factory.mktemp("plain")), mixed=False)


def options_of(step_time, tmp_path, *flags) -> argparse.Namespace:
    return step_time.parser("Flags.").parse_args([*TINY, "--scratch", str(tmp_path), *flags])


@pytest.mark.parametrize("method", MIXING)
def test_the_host_waits_for_no_more_than_the_guard(step_time, plain_calls, tmp_path, method):
    mixed_calls = step_time.calls(options_of(step_time, tmp_path, "--mixup_method", method), mixed=True)
    # Trainer asks of each loss whether it is NaN and whether it is infinite; the guard asks once for both.
    added = 1 - 2
    # For the second pass transformers looks once more whether there is padding.
    added += method == "ssmix"
    # On a CPU, and there alone, one_hot looks for the smallest and the largest of its classes.
    added += 2 * isinstance(METHODS[method].ratio, BatchWeights)
    assert mixed_calls["reads"] == plain_calls["reads"] + added
    assert mixed_calls["operator_calls"] > plain_calls["operator_calls"] > 500


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("method", MIXING)
def test_training_compiles_one_frame_a_site_and_a_plain_one(step_time, tmp_path, method):
    torch.compiler.reset()
    frames, due = step_time.compiled_frames(options_of(step_time, tmp_path, "--mixup_method", method))
    assert frames == due == 2 + (method in ("manifold", "ssmix"))


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        ("--mixup_method amplify", 1.02),
        ("--mixup_method amplify-code", 1.02),
        ("--mixup_method embedmix", 1.01),
        ("--mixup_method attentionmix", 1.08),
        ("--mixup_method ssmix", 2.1),
        # The blocks above the site see twice the rows: the upper two of six; attention mixes inside of the fifth.
        ("--mixup_method tmix --mixup_layers 4 --mixup_clean average", 1 + 2 / 6 + 0.03),
        ("--mixup_method amplify --mixup_layers 5 --mixup_clean average", 1 + 2 / 6 + 0.03),
        ("--mixup_method embedmix --mixup_clean average", 2.03),
        ("--mixup_method sentmix --mixup_clean average", 1.03),
    ],
)
def test_what_a_step_may_cost(step_time, tmp_path, flags, limit):
    assert step_time.target(options_of(step_time, tmp_path, *flags.split())) == pytest.approx(limit)


def test_every_entry_of_a_suite_is_a_method_that_its_model_can_mix(step_time):
    for suite in step_time.SUITES.values():
        for entry in suite:
            options = step_time.parser("Flags.").parse_args(entry.split())
            assert step_time.method_of(options).resolve_layers(step_time.depth_of(options)) is not None


def test_each_family_has_the_shape(step_time, tmp_path, any_family):
    config = step_time.config_of(options_of(step_time, tmp_path, "--family", any_family, "--depth", "3"))
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_labels)
    assert (config.model_type, *sizes) == (any_family, 3, 48, 12, 6)


def test_rounds_have_one_plain_step_and_one_of_each_run(step_time, tmp_path):
    runs = [options_of(step_time, tmp_path, "--pairs", "3", "--mixup_method", name) for name in ("amplify", "ssmix")]
    times, faults = step_time.measure_rounds(runs[0], runs[1:])
    assert times.shape == faults.shape == (3, 3) and (times > 0).all() and (faults >= 0).all()


def test_slopes_are_the_powers(step_time):
    growth = importlib.import_module("growth")
    assert growth.slope((2, 4, 8), [3 * size**1.5 for size in (2, 4, 8)]) == pytest.approx(1.5)


def test_added_operators_are_those_that_only_mixed_steps_have_and_less_those_that_they_leave_out(step_time):
    operators = importlib.import_module("added_operators")
    plain = {("add", "[2]"): (4, 0.4), ("add", "[3]"): (1, 0.2), ("isnan", ""): (1, 0.1), ("mm", "[9]"): (2, 7.0)}
    mixed = {("add", "[2]"): (6, 0.9), ("add", "[3]"): (1, 0.9), ("lerp", "[2]"): (1, 0.5), ("mm", "[9]"): (2, 9.0)}
    # Two more additions of 0.15 seconds each; what only took longer by chance does not count.
    found = {entry["name"]: (entry["calls"], entry["seconds"]) for entry in operators.added(plain, mixed)}
    assert found == {"lerp": (1, 0.5), "add": (2, pytest.approx(0.3)), "isnan": (-1, pytest.approx(-0.1))}
    assert list(found) == ["lerp", "add", "isnan"]


@pytest.mark.parametrize(("method", "operator"), [("amplify", "aten::lerp_"), ("sentmix", "aten::lerp_")])
def test_the_mix_is_among_the_added_operators(step_time, tmp_path, method, operator):
    operators = importlib.import_module("added_operators")
    options = options_of(step_time, tmp_path, "--mixup_method", method)
    found = operators.added(*(operators.calls_and_seconds(options, mixed) for mixed in (False, True)))
    calls = {entry["name"]: entry["calls"] for entry in found}
    # Forward and backward, once in each of the six blocks or once at the pooled vector.
    assert calls[operator] == (12 if method == "amplify" else 2)
    # No matrix product is added: both methods take one pass.
    assert "aten::mm" not in calls and "aten::addmm" not in calls


def test_the_figures_draw_what_was_measured():
    line = {"axis": "batch", "sizes": [2, 4], "slopes": {}}
    for number, name in enumerate(("seconds_plain", "seconds_mixed", "mib_plain", "mib_mixed"), start=1):
        line |= {name: [number, 2 * number]}
        line["slopes"][name] = 1.0
    panels = performance.figure_of_growth([line]).axes
    # Those of the legend have no points.
    curves = (list(curve.get_ydata()) for axes in panels for curve in axes.lines)
    drawn = [curve for curve in curves if curve]
    assert drawn == [[1, 2], [2, 4], [3, 6], [4, 8]]
    run = {"options": {"mixup_method": "amplify", "model": "minilm", "batch": 32}, "ratio_target": 1.02}
    run |= {"ratio_median": 1.005, "ratio_interval_95": [1.0, 1.015]}
    drawn = [[float(x) for x in line.get_xdata()] for line in performance.figure_of_ratios([run]).axes[0].lines]
    assert [1.005] in drawn and [1.02] in drawn


def large_file_lines():
    """Three rounds of runs: the CPU seconds of stock are a hundredth of the rows, its peak one MB for each."""
    for rows in (100_000, 400_000):
        for state in ("cold", "warm"):
            for side, factor in (("stock", 1.0), ("hf_mixup", 0.5)):
                for number, off in enumerate((-1, 0, 5), start=1):
                    names = ("seconds", "cpu_seconds", "peak_mib", "anonymous_mib")
                    values = (rows / 50, rows / 100, rows * 1e6 / 2**20, rows / 10)
                    measured = {name: factor * value + off for name, value in zip(names, values, strict=True)}
                    yield {"rows": rows, "state": state, "side": side, "round": number, **measured}


def test_large_files_are_drawn_and_told_by_the_medians_of_their_rounds():
    lines = list(large_file_lines())
    curves = (curve.get_ydata() for axes in performance.figure_of_large_files(lines).axes for curve in axes.lines)
    drawn = [list(curve) for curve in curves if len(curve)]
    mib = [1e11 / 2**20, 4e11 / 2**20]
    assert drawn == [[1000, 4000], [500, 2000], pytest.approx(mib), pytest.approx([half / 2 for half in mib])] * 2
    rows = performance._large_files(lines).splitlines()
    assert rows[2] == "| 100,000 | cold | 3 | 1000.0 | 0.500 | 2000.0 | 0.500 | 95367 | 47684 | 10000 | 5000 |"
    assert len(rows) == 2 + 4
    words = " ".join(performance._large_files_head(lines).split())
    assert "the peak at 400,000 rows is 150000 MB above that at 100,000, of stock 300000 MB" in words
    assert "takes -500.0 CPU seconds compared with stock at 100,000 rows, and -2000.0 at 400,000" in words


def test_the_rows_of_a_large_file(step_time, tmp_path):
    large_files = importlib.import_module("large_files")
    large_files.write_rows(tmp_path / "a.csv", 7, ["moon", "film"])
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["0", "1", "0", "1", "0", "1", "0"]
    assert all(len(words := row["sentence"].split()) == 8 and {*words} <= {"moon", "film"} for row in rows)


@pytest.mark.slow
def test_the_benchmark_of_large_files_runs(tmp_path, tiny_bert_folder):
    # The script itself in place of stock's.
    command = [sys.executable, ROOT / "benchmarks" / "large_files.py", "--stock", ROOT / "run_glue_mixup.py"]
    command += ["--rows", "60", "--model", tiny_bert_folder, "--output", "out.jsonl"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=280)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    runs = [(line["state"], line["side"]) for line in lines]
    assert runs == [(state, side) for state in ("cold", "warm") for side in ("stock", "hf_mixup")]
    assert all(line["peak_mib"] > 100 and line["cpu_seconds"] > 1 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "count"), [("step_time.py", 1), ("growth.py", 4), ("added_operators.py", 1)])
def test_the_benchmarks_run(tmp_path, script, count):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *TINY, "--pairs", "3"]
    subprocess.run([*command, "--output", "out.jsonl"], cwd=tmp_path, check=True, timeout=280)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == count
    for line in lines:
        assert line["command"].startswith(f"python benchmarks/{script}") and "--output" not in line["command"]
        if script == "step_time.py":
            assert len(line["seconds"]) == 3 and line["compiled_frames"] == line["compiled_frames_due"]
