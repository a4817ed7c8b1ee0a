"""Lines of results that are damaged: each is named and left out, the others are as they were, and nothing is lost."""

from __future__ import annotations

import base64
import copy
import json
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hf_mixup.cli import main
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.figures import to_svg
from hf_mixup.compare.grid import Cell
from hf_mixup.compare.packing import pack, unpack
from hf_mixup.compare.results import Results
from hf_mixup.compare.schema import read_line
from hf_mixup.compare.sections import sections
from hf_mixup.errors import UsageError
from tests.compare.test_report import failed_line, run_line

DOCS = Path(__file__).parents[2] / "docs" / "results"
COMMITTED = sorted(file for file in DOCS.glob("*.jsonl") if b'"cell": ' in file.read_bytes()[:1000])
ROWS = 20


def whole_run(method: str = "none", seed: int = 1, **changes: Any) -> dict[str, Any]:
    """A run with every field that there is."""
    labels = np.arange(ROWS) % 3
    line = run_line(0.9 - seed / 100, method, seed, reading={"validation_split": 0.2}, weights="a")
    line["rows"] = {"train": 4000, "validation": 100, "test": ROWS, "ood": 5}
    line |= {"test": {"labels": pack(labels), "predictions": pack(labels[::-1])}, "wrong_train_labels": 5}
    line["measures"] |= {"clean_rows_accuracy": 0.9, "nll": 0.5, "brier": 0.2, "ood_auroc_energy": 0.7}
    return {**line, **changes}


def whole_tuning() -> dict[str, Any]:
    line = run_line(seed=0)
    kept = ("cell", "data", "options", "status", "seconds", "machine", "versions")
    flags = {"learning_rate": 2e-5, "mixup_alpha": 0.5, "mixup_layers": "1,2"}
    trials = [{"flags": flags, "value": 0.75, "state": "COMPLETE"}, {"flags": {}, "value": None, "state": "FAIL"}]
    head = {"key": f"tuning {line['key']}", "kind": "tuning", "tune": 2}
    return {**head, **{name: line[name] for name in kept}, "best": flags, "trials": trials}


# As they are read from a file: no two parts are one object.
LINES = json.loads(
    json.dumps(
        [
            *(whole_run(method, seed) for method in ("none", "amplify:alpha=0.4") for seed in (1, 2)),
            whole_tuning(),
            failed_line("ValueError: no", seed=4),
        ]
    )
)


def write(path: Path, lines: list[Any]) -> Path:
    """A file with these lines, each as JSON or as the text that it is."""
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of everything in a line."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield (*path, name)
        yield from places(entry, (*path, name))


def put(line: dict[str, Any], path: tuple, value: Any) -> dict[str, Any]:
    """A copy of a line with another value there, or without it."""
    line = copy.deepcopy(line)
    inner = line
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return line


def at(path: tuple) -> str:
    """As the sentence names it."""
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in path).removeprefix(".")


NEEDED = {
    *("key", "kind", "cell", "data", "options", "tune", "status", "seconds", "machine", "versions"),
    *(f"cell.{name}" for name in ("task", "model", "size", "noise", "method", "seed")),
    *("rows", "rows.train", "rows.test", "metrics", "validation", "validation.loss", "validation.accuracy", "cost"),
    *("cost.steps", "cost.step_seconds", "loss", "test", "test.labels", "test.predictions", "measures.temperature"),
    *(f"reliability.{part}.{name}" for part in ("raw", "scaled") for name in ("count", "confidence", "accuracy")),
    "metrics.accuracy",
}


def test_each_field_that_is_needed_is_missed_by_its_name():
    for path in places(LINES[0]):
        line = put(LINES[0], path, ...)
        # A point of the loss may be missing, but not a part of it.
        if at(path) in NEEDED or (isinstance(path[-1], int) and path[:-1] != ("loss",)):
            with pytest.raises(ValueError) as error:
                read_line(json.dumps(line).encode())
            assert at(path[:-1]) in str(error.value) or "accuracy" in at(path)
        else:
            assert read_line(json.dumps(line).encode()) == line, path


WRONG = {
    "key": ["", 5, LINES[1]["key"]],
    "kind": ["runs", None, ["run"]],
    "status": ["ok", {}],
    "cell.noise": [-0.1, 1.1, "0.2", True],
    "cell.seed": [-1, 1.0, 2**32, True, "1"],
    "cell.task": ["", "a\nb", "a\x1b[31mb", "\ud800", "x" * 1001, 5],
    "cell.method": ["amplify:alpha=abc", "amplify:alpha=nan", "amplify:alpha=-1", "amplify:alpha=1e999", "x" * 101],
    "options": [[], {"a": []}, {"a": {}}, {"a": float("inf")}],
    "tune": [-1, 1.5, "1"],
    "seconds": [-1, float("nan"), "1", None],
    "versions": [{"torch": 2}, []],
    "rows": [{}, []],
    "rows.train": [0, -1, 4.5, True],
    "rows.test": [19, 21, 0, 10**9],
    "rows.validation": [-1, None],
    "wrong_train_labels": [-1, 4001, 0.5],
    "metrics": [{}, None, {"f1": 0.5}],
    "metrics.accuracy": ["0.8", -0.1, 1.1, float("nan"), float("-inf"), True, [0.8]],
    "validation.loss": ["a", -1],
    "measures.temperature": [-1, "a"],
    "measures.ece": [-0.1, 1.1],
    "measures.nll": [-0.1, 1e101],
    "measures.brier": [2.1],
    "cost.steps": [0, 1.5],
    "cost.step_seconds": [0, -1, None, float("inf")],
    "cost.peak_memory_mib": [-1, "a"],
    "loss": [{}, [[1]], [[1, 2, 3]], [["1", 2]], [[-1, 2]], [1], [[1, float("inf")]]],
    "reliability": [[], {"raw": None}, {"raw": {}}],
    "reliability.raw.count": [[1] * 14, [1] * 16, [-1] * 15, [0.5] * 15],
    "reliability.raw.confidence": [[2.0] * 15, ["0"] * 15],
    "test.labels": ["", "<u2", "<u2 abc", "<f8 " + LINES[0]["test"]["labels"][4:], LINES[0]["test"]["labels"][:-8]],
    "test.predictions": [pack(np.arange(19)), pack(np.arange(21)), "|O eJwDAAAAAAE=", 5],
    "machine": [None, 5],
    "reading": [[], {"task_name": []}],
    "method": ["tmix", "none:alpha=1", 5],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_or_out_of_range_is_told_by_its_name(name):
    path = tuple(name.split("."))
    for value in WRONG[name]:
        with pytest.raises(ValueError) as error:
            read_line(json.dumps(put(LINES[0], path, value)).encode())
        assert path[0] in str(error.value), value


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"best": {"output_dir": "/"}}, None),  # left out: flags that no tuning looks for are not trained with
        ({"best": {"learning_rate": [1]}}, "best.learning_rate is not a number"),
        ({"trials": []}, "no trial of it is complete"),
        ({"trials": [{"flags": {}, "value": None, "state": "COMPLETE"}]}, "no trial of it is complete"),
        ({"trials": [{"flags": {}, "value": 1.0, "state": "DONE"}]}, r"trials\[0\].state is not one of"),
    ],
)
def test_tunings_are_checked_too(changes, said):
    line = json.dumps({**whole_tuning(), **changes}).encode()
    if said is None:
        assert read_line(line)["best"] == {}
    else:
        with pytest.raises(ValueError, match=said):
            read_line(line)


def test_what_is_no_field_is_not_read():
    assert read_line(json.dumps({**LINES[0], "more": [1]}).encode()) == LINES[0]
    # A failed run has neither metrics nor anything else that follows.
    failed = {**LINES[-1], "metrics": 5, "rows": None}
    assert read_line(json.dumps(failed).encode()) == LINES[-1]


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_the_results_of_the_documents_are_whole_and_read_as_they_are(file):
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    results = Results(file)
    assert results.damaged == {} and results.lines == {line["key"]: line for line in lines}
    assert len(COMMITTED) >= 7 and len(lines) >= 20


def test_a_line_that_unpacks_to_much_is_not_unpacked(tmp_path):
    huge = zlib.compress(bytes(100 * 2**20), 1)
    line = put(LINES[0], ("test", "labels"), f"<u2 {base64.b64encode(huge).decode()}")
    file = write(tmp_path / "results.jsonl", [line, LINES[1]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = Results(file)
    assert "test.labels cannot be unpacked" in results.damaged[1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB
    with pytest.raises(ValueError, match="more than 5 rows"):
        unpack(pack(np.arange(6)), most=5)
    assert unpack(pack(np.arange(5)), most=5).tolist() == [0, 1, 2, 3, 4]


BRACKETS = "[" * 20_000 + "]" * 20_000
DAMAGED = {
    "brackets": BRACKETS,
    "brackets in a field": f'{json.dumps(LINES[1])[:-1]}, "more": {BRACKETS}}}',
    "no JSON": "{",
    "nothing": "",
    "a list": "[1]",
    "a long number": '{"seconds": ' + "9" * 5000 + "}",
    "half a line": json.dumps(LINES[1])[:200],
    "a name that breaks lines": json.dumps(put(LINES[1], ("metrics", "a\nb"), "x")),
    "no measures": json.dumps(put(LINES[1], ("cost",), ...)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_named_by_its_number_in_one_sentence(tmp_path, capsys, damage):
    file = write(tmp_path / "results.jsonl", [LINES[0], DAMAGED[damage], LINES[3]])
    results = Results(file)
    results.warn("hf-mixup report")
    said = capsys.readouterr().err
    assert said.startswith(f"hf-mixup report: {file} has damaged lines, which are left out: line 2 (")
    assert said.count("\n") == 1 and len(said) < 600
    assert results.lines == {LINES[0]["key"]: LINES[0], LINES[3]["key"]: LINES[3]}


def test_the_report_is_that_of_the_file_without_the_damaged_lines(tmp_path, capsys):
    pages = []
    for lines in ([LINES[0], LINES[3]], [BRACKETS, LINES[0], *DAMAGED.values(), LINES[3]]):
        file = write(tmp_path / "results.jsonl", lines)
        assert main(["report", str(file), "--output", str(tmp_path / "out")]) == 0
        pages.append((tmp_path / "out" / "report.md").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "left out: line 1 (brackets are nested too deeply), line 3 (" in said


def test_a_file_with_damaged_lines_alone_is_refused(tmp_path, capsys):
    file = write(tmp_path / "results.jsonl", [DAMAGED["brackets"], DAMAGED["no measures"]])
    assert main(["report", str(file), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{file} is no file of results (line 1: brackets are nested too deeply)" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["no measures", "half a line", "brackets"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_damaged_line_stays_in_the_file_that_more_is_added_to(tmp_path, damage, end):
    text = f"{json.dumps(LINES[0])}\n{DAMAGED[damage]}{end}"
    file = tmp_path / "results.jsonl"
    file.write_text(text)
    results = Results(file)
    results.append(LINES[2])
    # Only a line that was cut off at the very end, as its writer was killed, makes room.
    kept = f"{json.dumps(LINES[0])}\n" if (damage, end) == ("half a line", "") else f"{text.removesuffix(end)}\n"
    assert file.read_text() == f"{kept}{json.dumps(LINES[2])}\n"
    assert list(Results(file).lines) == [LINES[0]["key"], LINES[2]["key"]]


def test_runs_on_other_test_rows_are_compared_without_them():
    other = whole_run("amplify:alpha=0.4", 1)
    other["rows"]["test"] = 10
    other["test"] = {"labels": pack(np.arange(10)), "predictions": pack(np.arange(10))}
    lines = [LINES[0], LINES[1], other, LINES[3]]
    assert sections(Evidence(read_line(json.dumps(line).encode()) for line in lines), "")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.sampled_from([0, 1, -1, 2**32, 10**12, 1e100, 1e-300, 0.5, float("nan"), float("inf")])
    | st.floats(0, 1)
    | st.text(max_size=20)
    | st.sampled_from(["", "all", "none", "x" * 2000, "\ud800", "a\x00b", "amplify:alpha=1e99", "COMPLETE", "done"]),
    lambda inner: st.lists(inner, max_size=15) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [(number, path) for number, line in enumerate(LINES) for path in places(line)]


@settings(max_examples=300)
@given(st.sampled_from(PLACES), st.just(...) | VALUES)
def test_whatever_stands_in_a_field_there_is_a_report_and_other_lines_stay(tmp_path_factory, place, value):
    number, path = place
    changed = put(LINES[number], path, value)
    file = tmp_path_factory.getbasetemp() / "changed.jsonl"
    results = Results(write(file, [*LINES[:number], changed, *LINES[number + 1 :]]))
    others = {line["key"]: line for line in LINES if line is not LINES[number]}
    assert {key: line for key, line in results.lines.items() if key in others} == others
    assert set(results.damaged) <= {number + 1} and len(results.lines) + len(results.damaged) == len(LINES)
    found = sections(Evidence(results.lines.values()), file.name)
    assert found[-1].title == "What was run"


@pytest.mark.slow
@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from(PLACES), st.just(...) | VALUES)
def test_whatever_stands_in_a_field_the_command_ends_well(tmp_path_factory, place, value):
    number, path = place
    base, changed = tmp_path_factory.getbasetemp(), put(LINES[number], path, value)
    file = write(base / "changed.jsonl", [changed, *LINES[:number], *LINES[number + 1 :]])
    assert main(["report", str(file), "--output", str(base / "changed")]) == 0
    alone = write(base / "alone.jsonl", [changed])
    assert main(["report", str(alone), "--output", str(base / "alone")]) in (0, 2)


def test_the_largest_and_the_smallest_values_that_are_allowed_can_be_drawn():
    changes = [
        {"metrics": {"accuracy": 0, "f1": 1}},
        {"cost": {"steps": 10**12, "step_seconds": 1e-12, "peak_memory_mib": 1e12}, "seconds": 1e12},
        {"cost": {"steps": 1, "step_seconds": 1e12, "peak_memory_mib": None}, "rows": {"train": 10**12, "test": ROWS}},
        {"measures": {"temperature": 1e100, "nll": 1e100, "ece": 0, "any": -1e100}},
        {"reliability": {"raw": {"count": [10**12] * 15, "confidence": [1] * 15, "accuracy": [0] * 15}}},
        {"reliability": {"scaled": {"count": [0] * 15, "confidence": [0.0] * 15, "accuracy": [0.0] * 15}}},
    ]
    words = ["tmix:alpha=1e-90", "tmix:alpha=1e90", f"{'m' * 100}:layers={'x' * 9000}", "none"]
    loss = [[0, -1e100], [10**12, 1e100]]
    lines = [
        whole_run(method, seed, loss=loss, **change) for seed, change in enumerate(changes, 1) for method in words
    ]
    lines += [whole_run(method, 1) for method in words]
    lines[-1] |= {"cell": {**lines[-1]["cell"], "task": "t" * 1000, "model": "m" * 1000, "noise": 1}}
    for line in lines:
        line["key"] = Cell(**line["cell"]).key
    found = sections(Evidence(read_line(json.dumps(line).encode()) for line in lines), "")
    pictures = [picture for section in found for picture in section.pictures]
    assert {"alpha_1", "cost_1", "loss_1"} <= {picture.name for picture in pictures}
    for picture in pictures:
        to_svg(picture.draw(), picture.name, picture.label)


def test_half_of_a_pair_in_an_error_is_shown_as_an_escape(tmp_path):
    """As a path whose bytes are no text brings it in."""
    file = write(tmp_path / "results.jsonl", [{**LINES[-1], "error": "no file a\udcff", "machine": "\ud800"}])
    assert main(["report", str(file), "--output", str(tmp_path / "out")]) == 0
    assert r"no file a\udcff" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_lines_alone_are_refused_by_the_class_too(tmp_path):
    with pytest.raises(UsageError, match=r"no file of results \(line 1: cost is missing\); give another file"):
        Results(write(tmp_path / "results.jsonl", [put(LINES[0], ("cost",), ...)]))
