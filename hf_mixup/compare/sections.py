"""What a report says: its sections, with tables and figures, as far as the runs support them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean, stdev

import numpy as np
import yaml

from hf_mixup.compare import figures
from hf_mixup.compare.blocks import NOTHING, Code, Entry, Picture, Section, Table
from hf_mixup.compare.evidence import Evidence, Line, Measure, measure, setting_of
from hf_mixup.compare.statistics import (
    BASELINE,
    LESS_IS_BETTER,
    Ranks,
    Row,
    Setting,
    average_ranks,
    percent,
    summarize,
    value_of,
)
from hf_mixup.methods import METHODS

_CALIBRATION = tuple(f"{name}{suffix}" for suffix in ("", "_scaled") for name in ("nll", "brier", "ece", "ace"))
_NOISE = ("clean_rows_accuracy", "flipped_rows_accuracy", "flipped_rows_memorized")
_OOD = tuple(f"ood_{kind}_{score}" for score in ("probability", "energy") for kind in ("auroc", "fpr95"))
_COST = ("step_seconds", "peak_memory_mib")
_NOT_JUDGED = ("temperature", *_COST)
_POINTS = Measure("")
_CURVES = (
    "Bars go one standard deviation over the seeds to either side; the methods are drawn side by side so that their "
    "bars can be told apart."
)
_GAINS = (
    "Under each figure stands the difference to none on the same seeds with its 95 % interval, which is what tells "
    "methods apart: seeds that are hard for one method are hard for all."
)
_SEEDS_DIFFER = (
    "Not all methods have the same seeds, so that their means are of other runs; the differences to none are of the "
    "same seeds."
)


def sections(lines: Iterable[Line], results_name: str) -> list[Section]:
    """The sections of the report on a file of results; those without data are left out.

    Args:
        lines: of `Results.lines`.
        results_name: the name of the file.
    """
    evidence = Evidence(lines)
    parts: Sequence[Callable[[Evidence], Section | None]] = (
        _overview,
        _results,
        _differences,
        _ranks,
        _sizes,
        _noise,
        _alphas,
        _calibration,
        _wrong_labels,
        _ood,
        _losses,
        _cost,
        _other_metrics,
        _failures,
    )
    found = [part(evidence) for part in parts] if evidence.runs else [_failures(evidence)]
    return [*filter(None, found), _what_was_run(evidence, results_name)]


# ---- What came out ----------------------------------------------------------------------------------------------


def _overview(evidence: Evidence) -> Section | None:
    rows = [row for setting in evidence.settings for row in evidence.compared(setting)]
    if not rows:
        return None
    if not any(map(evidence.is_sure, rows)):
        return Section(
            "What came out",
            [
                "No method has two seeds in common with none, and one seed says nothing about others: there are no "
                "intervals here, and no method is called better or worse. Run more seeds."
            ],
        )
    found = {
        method: {row.setting: row for row in rows if row.method == method and evidence.is_sure(row)}
        for method in evidence.methods
    }
    found = {method: by_setting for method, by_setting in found.items() if by_setting}
    # Means over other settings do not compare.
    shared = [setting for setting in evidence.settings if all(setting in each for each in found.values())]
    entries = []
    for method, by_setting in found.items():
        verdicts = [row.verdict for row in by_setting.values()]
        counts = [verdicts.count(verdict) for verdict in ("better", "worse", "not clear")]
        average = mean(by_setting[setting].difference for setting in shared) if shared else math.nan
        times = [time for setting in shared for time in evidence.relative_time(setting, method)]
        where = "; ".join(
            f"{evidence.names[setting]} {_POINTS.signed(row.difference)}"
            for setting, row in by_setting.items()
            if row.verdict != "not clear"
        )
        numbers = [Entry(str(count), count) for count in (*counts, evidence.failed[method])]
        means = [Entry(_POINTS.signed(average), average) if shared else NOTHING]
        means += [Entry(f"{mean(times):.2f}", mean(times)) if times else NOTHING]
        entries.append([Entry(method), *numbers, *means, Entry(where or "nowhere")])
    caption = "In how many settings each method is better or worse than none, or neither is clear"
    if shared:
        which = f"the {len(shared)} of {len(evidence.settings)} settings that all of them have"
        everywhere = len(shared) == len(evidence.settings)
        caption += f"; mean difference and time over {'all settings' if everywhere else which}"
    columns = ["method", "better", "worse", "not clear", "failed runs", "mean difference, points"]
    columns += ["step time over none", "clear where"]
    text = [
        "Every method is compared with none, plain fine-tuning, on the same seeds: the same train rows, held-out rows "
        "and first weights. Better and worse mean that the interval of the difference, corrected by Holm for the "
        "number of methods in the setting, does not hold 0. It is not corrected for the number of settings and "
        "measures: where no method does anything, up to one setting in twenty still shows one. Not clear is not the "
        "same as no difference: how large it may be is in the intervals below."
    ]
    if any(evidence.failed[method] for method in found):
        text.append(
            "Runs that failed count in their own column alone; the other numbers are of the seeds that a method got "
            "through."
        )
    return Section("What came out", text, [Table(f"{caption}.", columns, entries)])


def _results(evidence: Evidence) -> Section:
    metrics = list(dict.fromkeys(evidence.metric.values()))
    same = len(metrics) == 1
    columns = [
        evidence.names[each] + ("" if same else f" ({measure(evidence.metric[each]).name})")
        for each in evidence.settings
    ]
    rows = [
        [Entry(method), *(_mean(evidence, evidence.rows.get((each, method))) for each in evidence.settings)]
        for method in evidence.methods
    ]
    counts = {row.seeds for row in evidence.rows.values()} or {0}
    seeds = f"{_plural(min(counts), 'seed')}" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    what = f"Test {measure(metrics[0]).name}, times 100" if same else "The first metric of each task, times 100"
    spread = ": mean ± standard deviation" if max(counts) > 1 else ""
    marks = "; bold: better than none; ▼: worse" if any(map(evidence.is_sure, evidence.rows.values())) else ""
    caption = f"{what}, {seeds}{spread}{marks}."
    differ = not all(map(evidence.same_seeds, evidence.settings))
    return Section("Results", [_SEEDS_DIFFER] if differ else [], [Table(caption, ["method", *columns], rows)])


def _differences(evidence: Evidence) -> Section | None:
    pictures, entries, limits = [], [], _limits(evidence)
    for number, setting in enumerate(evidence.settings, start=1):
        rows = evidence.compared(setting)
        if not rows:
            continue
        kind = measure(evidence.metric[setting])
        sure = [evidence.is_sure(row) for row in rows]
        title, xlabel = evidence.names[setting], f"{kind.name} minus that of none, points"
        draw = partial(figures.draw_differences, rows, sure, evidence.look, title, xlabel, kind.factor, limits)
        label = f"{title}: " + "; ".join(f"{row.method} {kind.signed(row.difference)}" for row in rows)
        pictures.append(Picture(f"difference_{number}", draw, f"Differences to none. {label}"))
        for row, has_interval in zip(rows, sure, strict=True):
            intervals = [NOTHING, NOTHING, NOTHING, Entry("–")]
            if has_interval:
                ends = ((row.low, row.high), (row.corrected_low, row.corrected_high))
                intervals = [Entry(" to ".join(map(kind.signed, each)), each[0]) for each in ends]
                p = "<0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
                intervals += [Entry(p, row.p_holm), Entry(row.verdict, better=row.verdict == "better")]
            difference = Entry(kind.signed(row.difference), row.difference)
            words = [Entry(row.method), *evidence.setting_entries(setting), Entry(str(row.pairs), row.pairs)]
            entries.append([*words, difference, *intervals])
    if not entries:
        return None
    text = [
        "The difference is the mean over the seeds that the method and none both have. The interval for accuracy "
        "comes from a paired bootstrap over seeds and test rows, that for correlations from Student's t over the "
        "seeds, on these test rows: other rows would add to it. In the figures the thick line is the 95 % interval, "
        "the thin one the corrected interval; a filled mark is clear of 0, a hollow one is not."
    ]
    if not all(evidence.is_sure(row) for setting in evidence.settings for row in evidence.compared(setting)):
        text.append("Where there is only one seed there is no interval: it would say nothing about other seeds.")
    numbers = ["seeds", "difference", "95 % interval", "corrected interval", "p, corrected", "verdict"]
    columns = ["method", *evidence.setting_columns(), *numbers]
    table = Table("Differences to none in points, with their intervals.", columns, entries)
    return Section("Differences to none", text, [table], pictures)


def _ranks(evidence: Evidence) -> Section | None:
    complete = [
        setting for setting in evidence.settings if all((setting, each) in evidence.rows for each in evidence.methods)
    ]
    if len(complete) < 2 or len(evidence.methods) < 2:
        return None
    rows = [row for setting in complete for row in _on_shared_seeds(evidence, setting)]
    complete = list(dict.fromkeys(row.setting for row in rows))
    if len(complete) < 2:
        return None
    # Of the metrics that tasks are judged by more is better, so they can be ranked together.
    ranks = average_ranks(rows, evidence.metric[complete[0]])
    text = [
        f"The rank of each method by its mean over the seeds that all methods have, averaged over the "
        f"{ranks.settings} settings with such; 1 is the best. A bar joins methods whose ranks differ by less than the "
        "critical difference (Nemenyi, 5 %)."
    ]
    if not math.isnan(ranks.p):
        text.append(f"Friedman's test that all methods are alike: p = {ranks.p:.3f}.")
    if len({setting.task for setting in complete}) < len(complete):
        text.append("Several settings are of one task, and so are less independent than these tests take them to be.")
    label = "; ".join(f"{method} {rank:.2f}" for method, rank in _by_rank(ranks))
    entries = [[Entry(method), Entry(f"{rank:.2f}", rank)] for method, rank in _by_rank(ranks)]
    table = Table(f"Average ranks over {ranks.settings} settings.", ["method", "average rank"], entries)
    picture = Picture("ranks", partial(figures.draw_ranks, ranks, evidence.look), f"Average ranks. {label}")
    return Section("Average rank", text, [table], [picture])


def _sizes(evidence: Evidence) -> Section | None:
    pictures = _curves(evidence, "size", "rows", "train rows", evidence.train_rows)
    return Section("Size of the training set", [_CURVES, _GAINS], pictures=pictures) if pictures else None


def _noise(evidence: Evidence) -> Section | None:
    pictures = _curves(evidence, "noise", "noise", "train labels made wrong, %", lambda setting: 100 * setting.noise)
    return Section("Share of wrong labels", [_CURVES, _GAINS], pictures=pictures) if pictures else None


def _alphas(evidence: Evidence) -> Section | None:
    """Two panels for each setting that has a method with several alphas."""
    # Tuned methods have the alpha that was found, whatever their names say, and learning rates of their own.
    if any(run["tune"] for run in evidence.runs):
        return None
    families: dict[str, dict[float, str]] = defaultdict(dict)
    for method in evidence.methods:
        family, alpha = family_and_alpha(method)
        if alpha is not None:
            families[family][alpha] = method
    panels = []
    for setting in evidence.settings:
        rows = {
            family: [
                (alpha, evidence.rows[setting, name])
                for alpha, name in names.items()
                if (setting, name) in evidence.rows
            ]
            for family, names in families.items()
        }
        rows = {family: points for family, points in rows.items() if len(points) > 1}
        if not rows:
            continue
        alphas = sorted({alpha for points in rows.values() for alpha, _ in points})
        plain = [(alpha, row) for row in _present(evidence, [setting], BASELINE) for alpha in alphas]
        look = {
            family: evidence.look.get(family, evidence.look[next(iter(families[family].values()))]) for family in rows
        }
        look[BASELINE] = evidence.look[BASELINE]
        curves = {**({BASELINE: plain} if plain else {}), **rows}
        panels.append(_two_panels(evidence, setting, curves, look, evidence.names[setting], "alpha", log=True))
    text = f"none has no alpha and is drawn as a level line. {_CURVES}"
    return Section("Alpha", [text, _GAINS], pictures=_numbered("alpha", panels)) if panels else None


def family_and_alpha(method: str) -> tuple[str, float | None]:
    """A method without its alpha, and the alpha: the given one, else its default; None where it draws by none.

    Example:
        >>> family_and_alpha("amplify:alpha=0.4:layers=1,2")
        ('amplify:layers=1,2', 0.4)
    """
    name, *pairs = method.split(":")
    others = [pair for pair in pairs if not pair.startswith("alpha=")]
    given = next((pair.removeprefix("alpha=") for pair in pairs if pair.startswith("alpha=")), None)
    default = getattr(METHODS[name].ratio, "alpha", None) if name in METHODS else None
    alpha = default if given is None else float(given)
    return ":".join([name, *others]), alpha


def _curves(evidence: Evidence, axis: str, stem: str, xlabel: str, x_of: Callable[[Setting], float]) -> list[Picture]:
    """A panel for each stretch of settings that differ on one axis alone."""
    others = [name for name in ("task", "model", "size", "noise") if name != axis]
    stretches: dict[tuple, list[Setting]] = defaultdict(list)
    for setting in evidence.settings:
        stretches[tuple(getattr(setting, name) for name in others)].append(setting)
    panels = []
    for settings in stretches.values():
        if len(settings) < 2:
            continue
        curves = {
            method: [(x_of(row.setting), row) for row in _present(evidence, settings, method)]
            for method in evidence.methods
        }
        curves = {method: points for method, points in curves.items() if points}
        words = evidence.setting_words(settings[0])
        title = ", ".join(words[name] for name in others if name in words)
        panels.append(_two_panels(evidence, settings[0], curves, evidence.look, title, xlabel, log=axis == "size"))
    return _numbered(stem, panels)


def _numbered(stem: str, panels: Iterable[Sequence[Picture]]) -> list[Picture]:
    """The pictures of all panels, called by what they show, the number of their panel and what they add to it."""
    return [
        replace(picture, name=f"{stem}_{number}{picture.name}")
        for number, panel in enumerate(panels, start=1)
        for picture in panel
    ]


def _two_panels(
    evidence: Evidence,
    setting: Setting,
    curves: Mapping[str, Sequence[tuple[float, Row]]],
    look: Mapping[str, figures.Style],
    title: str,
    xlabel: str,
    log: bool,
) -> list[Picture]:
    """The means of the methods against something, and, if there is `none`, their differences to it."""
    metric = measure(evidence.metric[setting]).name
    means = {
        method: [(x, *(100 * y for y in (row.mean, row.mean - row.sd, row.mean + row.sd))) for x, row in points]
        for method, points in curves.items()
    }
    gains = {
        method: [
            (x, *(100 * y for y in (row.difference, row.low, row.high)))
            for x, row in points
            if row.difference is not None
        ]
        for method, points in curves.items()
    }
    pictures = []
    for name, what, points, zero in (
        ("", f"{metric}, times 100", means, False),
        ("_gain", f"{metric} minus that of none, points", gains, True),
    ):
        points = {method: each for method, each in points.items() if each}
        if points:
            draw = partial(figures.draw_curves, points, look, title, xlabel, what, log=log, zero=zero)
            pictures.append(Picture(name, draw, f"{what} against {xlabel}, a line for each method. {title}"))
    return pictures


def _calibration(evidence: Evidence) -> Section | None:
    tables = _measure_table(evidence, (*_CALIBRATION, "temperature"), "Calibration on the test rows, mean ± sd")
    if not tables:
        return None
    pictures = []
    for number, setting in enumerate(evidence.settings, start=1):
        by_method = {
            method: [run["reliability"] for run in runs if "reliability" in run]
            for method, runs in _in_order(evidence, setting)
        }
        panels = {
            name: {
                method: _pooled(bins)
                for method, found in by_method.items()
                if (bins := [each[part] for each in found if part in each])
            }
            for part, name in (("raw", "before scaling"), ("scaled", "after scaling"))
        }
        if panels["before scaling"]:
            title = evidence.names[setting]
            draw = partial(figures.draw_reliability, panels, evidence.look, title)
            label = f"Reliability diagrams before and after temperature scaling, a line for each method. {title}"
            pictures.append(Picture(f"reliability_{number}", draw, label))
    text = [
        "NLL, Brier score, expected calibration error over 15 bins (ECE) and over bins of equally many rows (adaptive "
        "ECE), these two times 100; scaled: after dividing the logits by the temperature that fits the validation "
        "rows best. Less is better for all of them; a temperature above 1 means that the model was too sure. The "
        "diagrams pool the test rows of all seeds in 15 bins; on the dashed line confidence is what it says, below it "
        "the model is too sure. Bold and ▼ come from Student's t over the seeds, on these test rows."
    ]
    unscaled = sum("measures" in run and run["measures"]["temperature"] is None for run in evidence.runs)
    if unscaled:
        text.append(
            f"In {_plural(unscaled, 'run')} all validation rows were right, which no temperature fits best: the "
            "scaled measures are without them."
        )
    return Section("Calibration", text, tables, pictures)


def _wrong_labels(evidence: Evidence) -> Section | None:
    text = (
        "Accuracy on the train rows: of those with a right label; of those with a wrong one, by their true class "
        "(more is better) and by the wrong one, which is to have learned the mistake by heart (less is better)."
    )
    tables = _measure_table(evidence, _NOISE, "Accuracy on train rows in percent, mean ± sd")
    return Section("What is made of wrong labels", [text], tables) if tables else None


def _ood(evidence: Evidence) -> Section | None:
    text = (
        "How well the texts of no known class are told from the test rows, by the largest probability and by the "
        "energy of the logits: area under the ROC curve, and the share of foreign texts that still pass where 95 % of "
        "the test rows do."
    )
    tables = _measure_table(evidence, _OOD, "Out-of-distribution texts, in percent, mean ± sd")
    return Section("Out-of-distribution texts", [text], tables) if tables else None


def _losses(evidence: Evidence) -> Section | None:
    pictures = []
    for number, setting in enumerate(evidence.settings, start=1):
        curves = {method: _loss_curve(runs) for method, runs in _in_order(evidence, setting)}
        curves = {method: curve for method, curve in curves.items() if len(curve[0]) > 1}
        if curves:
            title = evidence.names[setting]
            draw = partial(figures.draw_losses, curves, evidence.look, title)
            pictures.append(Picture(f"loss_{number}", draw, f"Training loss by step, a line for each method. {title}"))
    text = (
        "The training loss as it was logged, mean over the seeds with a band of one standard deviation. The loss of "
        "mixed rows is taken against mixed labels: where it settles says nothing of one method against another."
    )
    return Section("Training loss", [text], pictures=pictures) if pictures else None


def _cost(evidence: Evidence) -> Section | None:
    tables = _measure_table(evidence, _COST, "Cost, mean ± sd", with_relative_time=True)
    if not tables:
        return None
    pictures = []
    for number, setting in enumerate(evidence.settings, start=1):
        metric, title = measure(evidence.metric[setting]), evidence.names[setting]
        points = {
            row.method: (1000 * mean(run["cost"]["step_seconds"] for run in runs), row.mean * 100, row.sd * 100)
            for method, runs in _in_order(evidence, setting)
            for row in _present(evidence, [setting], method)
        }
        draw = partial(
            figures.draw_cost, points, evidence.look, title, "ms per training step", f"{metric.name}, times 100"
        )
        label = f"{metric.name} against the time of a training step, a mark for each method. {title}"
        pictures.append(Picture(f"cost_{number}", draw, label))
    text = [
        "The time of a step is that of the whole training by its steps, batches that are not mixed included. Runs "
        "that share a machine slow each other down; peak memory is that of the GPU, else of the whole process."
    ]
    if len({run["machine"] for run in evidence.runs}) > 1:
        text.append("The runs are from several machines, so that their times do not compare.")
    return Section("Cost", text, tables, pictures)


def _other_metrics(evidence: Evidence) -> Section | None:
    names = dict.fromkeys(
        name for run in evidence.runs for name in run["metrics"] if name != evidence.metric[setting_of(run)]
    )
    tables = _measure_table(evidence, (*names, "worst_class_accuracy"), "Further metrics on the test rows, mean ± sd")
    text = "Shares and correlations times 100."
    return Section("Further metrics", [text], tables) if tables else None


# ---- What was run -----------------------------------------------------------------------------------------------


def _failures(evidence: Evidence) -> Section | None:
    failed = [line for line in evidence.lines if line["status"] == "failed"]
    rows = [[Entry(line["kind"]), Entry(line["key"]), Entry(line["error"])] for line in failed]
    table = Table("What failed, with its error.", ["kind", "which", "error"], rows)
    text = "These are in none of the numbers above. hf-mixup compare makes them again with --retry."
    return Section("Failures", [text], [table]) if failed else None


def _what_was_run(evidence: Evidence, results_name: str) -> Section:
    lines = [line for line in evidence.lines if line["kind"] == "run"]
    cells = [line["cell"] for line in lines]
    axes = {name: list(dict.fromkeys(cell[name] for cell in cells)) for name in (cells or [{}])[0]}
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
        "methods": axes.get("method", []),
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
    command = f"hf-mixup compare grid.yaml --output {results_name} --report report"
    return Section("What was run", text, tables, code=[Code("yaml", yaml_text), Code("bash", command)])


def _options(lines: Sequence[Line]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The options of each task alone, and those of all runs; those of the methods are in their names."""
    by_task: dict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        names = {pair.partition("=")[0] for pair in line["cell"]["method"].split(":")[1:]}
        owned = {"mixup_method", *names, *(f"mixup_{name}" for name in names)}
        by_task[line["cell"]["task"]] |= {name: text for name, text in line["options"].items() if name not in owned}
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


# ---- Parts of sections ------------------------------------------------------------------------------------------


def _measure_table(
    evidence: Evidence, names: Sequence[str], caption: str, with_relative_time: bool = False
) -> list[Table]:
    """A table of measures with a line for each setting and method; none if no run has them."""
    names = [name for name in names if any(value_of(run, name) is not None for run in evidence.runs)]
    if not names:
        return []
    found = {(name, row.setting, row.method): row for name in names for row in summarize(evidence.runs, name)}
    rows = []
    for setting in evidence.settings:
        for method, _ in _in_order(evidence, setting):
            mine = [found.get((name, setting, method)) for name in names]
            if not any(mine):
                continue
            entries = [
                _mean(evidence, row, measure(name), name not in _NOT_JUDGED)
                for name, row in zip(names, mine, strict=True)
            ]
            if with_relative_time:
                times = evidence.relative_time(setting, method)
                ends = f" ({min(times):.2f} to {max(times):.2f})" if len(times) > 1 and method != BASELINE else ""
                entries.append(Entry(f"{mean(times):.2f}{ends}", mean(times)) if times else NOTHING)
            rows.append([Entry(method), *evidence.setting_entries(setting), *entries])
    judged = any(entry.better or entry.worse for row in rows for entry in row)
    marks = "; bold: better than none; ▼: worse" if judged else ""
    headings = [measure(name).name + _direction(name) for name in names]
    headings += ["time over none, mean (range)"] if with_relative_time else []
    return [Table(f"{caption}{marks}.", ["method", *evidence.setting_columns(), *headings], rows)]


def _limits(evidence: Evidence) -> tuple[float, float]:
    """From where to where differences and intervals of all settings go: one scale for all panels."""
    rows = [row for setting in evidence.settings for row in evidence.compared(setting)]
    ends = [row.difference for row in rows] + [
        end
        for row in filter(evidence.is_sure, rows)
        for end in (row.low, row.high, row.corrected_low, row.corrected_high)
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin


def _mean(evidence: Evidence, row: Row | None, kind: Measure = _POINTS, judged: bool = True) -> Entry:
    """Mean and standard deviation, marked where they are clear."""
    if row is None:
        return NOTHING
    text = kind.number(row.mean) + ("" if math.isnan(row.sd) else f" ± {kind.number(row.sd)}")
    sure = judged and evidence.is_sure(row)
    return Entry(text, row.mean, sure and row.verdict == "better", sure and row.verdict == "worse")


def _direction(name: str) -> str:
    if name in _NOT_JUDGED:
        return ""
    # After a blank at which no line is broken.
    return "\u00a0↓" if name in LESS_IS_BETTER else "\u00a0↑"


def _on_shared_seeds(evidence: Evidence, setting: Setting) -> list[Row]:
    """The means of all methods of a setting over the seeds that all of them have; none without such a seed."""
    name = evidence.metric[setting]
    values = {
        method: {run["cell"]["seed"]: value for run in runs if (value := value_of(run, name)) is not None}
        for method, runs in _in_order(evidence, setting)
    }
    seeds = set.intersection(*(set(each) for each in values.values()))
    return [
        Row(setting, method, len(seeds), len(seeds), mean(each[seed] for seed in seeds), math.nan)
        for method, each in values.items()
        if seeds
    ]


def _by_rank(ranks: Ranks) -> list[tuple[str, float]]:
    return sorted(ranks.ranks.items(), key=lambda entry: entry[1])


def _in_order(evidence: Evidence, setting: Setting) -> Iterator[tuple[str, list[Line]]]:
    """The methods of a setting, and their runs."""
    runs = evidence.by_setting[setting]
    return ((method, runs[method]) for method in evidence.methods if method in runs)


def _present(evidence: Evidence, settings: Sequence[Setting], method: str) -> list[Row]:
    rows = (evidence.rows.get((setting, method)) for setting in settings)
    return [row for row in rows if row is not None]


def _pooled(bins: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """The bins of several runs as those of all their rows together."""
    counts = np.array([each["count"] for each in bins])
    count = counts.sum(axis=0)
    means = {
        part: (counts * np.array([each[part] for each in bins])).sum(axis=0) / np.maximum(count, 1)
        for part in ("confidence", "accuracy")
    }
    return {"count": count, **means}


def _loss_curve(runs: Sequence[Line]) -> tuple[list[int], list[float], np.ndarray]:
    """The steps that all runs logged, with mean and standard deviation of their losses."""
    by_step = [{step: loss for step, loss in run["loss"] if loss is not None} for run in runs]
    steps = sorted(set.intersection(*map(set, by_step)))
    losses = [[curve[step] for curve in by_step] for step in steps]
    spread = [stdev(each) if len(each) > 1 else 0.0 for each in losses]
    return steps, [mean(each) for each in losses], np.array(spread)


def _span(numbers: Sequence[int]) -> str:
    """From the first to the last of numbers in order."""
    return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
