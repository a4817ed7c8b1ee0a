"""The sections of a report on what was run, what failed, and how to run it again."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence

import yaml

from hf_mixup.compare.blocks import NOTHING, Code, Entry, Section, Table
from hf_mixup.compare.evidence import Evidence, Line
from hf_mixup.compare.results import words_of
from hf_mixup.compare.statistics import percent
from hf_mixup.shown import is_secret


def failures(evidence: Evidence) -> Section | None:
    """What failed, with its error; None if nothing did."""
    failed = [line for line in evidence.lines if line["status"] == "failed"]
    rows = [[Entry(line["kind"]), Entry(line["key"]), Entry(line["error"])] for line in failed]
    table = Table("What failed, with its error.", ["kind", "which", "error"], rows)
    text = "These are in none of the numbers above. hf-mixup compare makes them again with --retry."
    return Section("Failures", [text], [table]) if failed else None


def what_was_run(evidence: Evidence, results_name: str) -> Section:
    """Machine, versions, options and data, and how to run it again."""
    lines = [line for line in evidence.lines if line["kind"] == "run"]
    cells = [line["cell"] for line in lines]
    axes = {name: list(dict.fromkeys(cell[name] for cell in cells)) for name in (cells or [{}])[0]}
    words = {line["cell"]["method"]: words_of(line) for line in lines}
    by_task, common = _options(lines)
    reading = {line["cell"]["task"]: line.get("reading", {}) for line in lines}
    versions = dict.fromkeys(", ".join(f"{name} {each}" for name, each in line["versions"].items()) for line in lines)
    seconds = sum(line["seconds"] for line in evidence.lines)
    facts = {
        "runs": f"{len(evidence.runs)} done, {len(lines) - len(evidence.runs)} failed",
        "seeds": ", ".join(map(str, sorted(axes.get("seed", [])))),
        "models": ", ".join(axes.get("model", [])),
        "machines": "; ".join(dict.fromkeys(line["machine"] for line in lines)),
        "versions": "; ".join(versions),
        "time": f"{seconds / 3600:.1f} hours, all runs one after the other",
        "options": ", ".join(f"{name}={value}" for name, value in sorted(common.items())),
        **{
            f"options of {task}": ", ".join(f"{name}={value}" for name, value in sorted(own.items()))
            for task, own in by_task.items()
            if own
        },
    }
    tables = [Table("Facts.", ["what", "is"], [[Entry(name), Entry(text)] for name, text in facts.items() if text])]
    if evidence.runs:
        tables.append(_data_table(evidence))
    tunings = [line for line in evidence.lines if line["kind"] == "tuning" and line["status"] == "done"]
    if tunings:
        tables.append(_tuning_table(tunings))
    grid = {
        "tasks": [
            {"name": task, "folder": "FOLDER", **reading.get(task, {}), **({"options": dict(own)} if own else {})}
            for task, own in by_task.items()
        ],
        "methods": [name if said == name else f"{name}={said}" for name, said in words.items()],
        "sizes": axes.get("size", []),
        "noise": axes.get("noise", []),
        "seeds": sorted(axes.get("seed", [])),
        "models": [name if name == "minilm" else f"{name}=MODEL" for name in axes.get("model", [])],
        "options": dict(common),
        "tune": max((line["tune"] for line in evidence.lines), default=0),
    }
    text = [
        "To run it again, put the grid below into a file grid.yaml, with the folder of each task's data in place of "
        "FOLDER (or its files and columns) and the folder or the name of each model in place of MODEL. With another "
        "file of results all of it is run; with the same one what is missing."
    ]
    yaml_text = yaml.safe_dump(grid, sort_keys=False, allow_unicode=True, width=110)
    command = shlex.join(["hf-mixup", "compare", "grid.yaml", f"--output={results_name}", "--report=report"])
    return Section("What was run", text, tables, code=[Code("yaml", yaml_text), Code("bash", command)])


def _options(lines: Sequence[Line]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The options of each task alone, and those of all runs; those of the methods are in their words."""
    by_task: dict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        names = {pair.partition("=")[0] for pair in words_of(line).split(":")[1:]}
        owned = {"mixup_method", *names, *(f"mixup_{name}" for name in names)}
        by_task[line["cell"]["task"]] |= {
            name: text for name, text in line["options"].items() if name not in owned and not is_secret(name)
        }
    common = dict(set.intersection(*(set(options.items()) for options in by_task.values()))) if by_task else {}
    own = {
        task: {name: text for name, text in options.items() if name not in common} for task, options in by_task.items()
    }
    return own, dict(sorted(common.items()))


def _data_table(evidence: Evidence) -> Table:
    splits = list(dict.fromkeys(name for run in evidence.runs for name in run["rows"]))
    knows_wrong = any(run.get("wrong_train_labels") is not None for run in evidence.runs)
    rows = []
    for setting in evidence.settings:
        runs = [run for by_method in evidence.by_setting[setting].values() for run in by_method]
        counts = [sorted({run["rows"].get(split, 0) for run in runs}) for split in splits]
        numbers = [Entry(_span(each), each[0]) for each in counts]
        content = Entry(", ".join(dict.fromkeys(run["data"] for run in runs)))
        wrong = sorted({run["wrong_train_labels"] for run in runs if run.get("wrong_train_labels") is not None})
        if knows_wrong:
            numbers.append(Entry(_span(wrong), wrong[0]) if wrong else NOTHING)
        rows.append([*evidence.setting_entries(setting), *numbers, content])
    columns = [*evidence.setting_columns(), *(f"{split} rows" for split in splits)]
    columns += [*(["wrong train labels"] if knows_wrong else []), "fingerprint of the files"]
    return Table("The data.", columns, rows)


def _tuning_table(tunings: Sequence[Line]) -> Table:
    rows = []
    for line in tunings:
        states = [trial["state"] for trial in line["trials"]]
        best = max(trial["value"] for trial in line["trials"] if trial["state"] == "COMPLETE")
        found = ", ".join(f"{name}={value}" for name, value in line["best"].items())
        whole = sum(state == "COMPLETE" for state in states)
        numbers = [Entry(str(len(states)), len(states)), Entry(str(whole), whole), Entry(f"{best * 100:.1f}", best)]
        cell = line["cell"]
        words = (cell["task"], cell["model"], cell["size"], percent(cell["noise"]), cell["method"])
        rows.append([*map(Entry, words), *numbers, Entry(found)])
    columns = ["task", "model", "train rows", "wrong labels", "method", "trials", "trained to the end"]
    caption = "Tuning on the validation rows: the same number of trials for each method."
    return Table(caption, [*columns, "best, times 100", "flags found"], rows)


def _span(numbers: Sequence[int]) -> str:
    """From the first to the last of numbers in order."""
    return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
