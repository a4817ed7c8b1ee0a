"""What a report says: its sections, with tables and figures, as far as the runs support them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev

import numpy as np

from hf_mixup.compare import figures
from hf_mixup.compare.blocks import NOTHING, Entry, Picture, Section, Table
from hf_mixup.compare.curves import alpha_curves, noise_curves, size_curves
from hf_mixup.compare.evidence import Evidence, Line, Measure, measure, setting_of
from hf_mixup.compare.statistics import (
    BASELINE,
    LESS_IS_BETTER,
    Ranks,
    Row,
    Setting,
    average_ranks,
    summarize,
    value_of,
)
from hf_mixup.compare.what_was_run import failures, what_was_run

_CALIBRATION = ("nll", "brier", "ece", "ace")
_NOISE = ("clean_rows_accuracy", "flipped_rows_accuracy", "flipped_rows_memorized")
_OOD = tuple(f"ood_{kind}_{score}" for score in ("probability", "energy") for kind in ("auroc", "fpr95"))
_COST = ("step_seconds", "peak_memory_mib")
_NOT_JUDGED = ("temperature", *_COST)
_POINTS = Measure("")
# So many methods are named in the sentence at the top.
_MOST_NAMED = 4
_SEEDS_DIFFER = (
    "Not all methods have the same seeds, so that their means are of other runs; the differences to none are of the "
    "same seeds."
)


def sections(evidence: Evidence, results_name: str) -> list[Section]:
    """The sections of the report on a file of results; those without data are left out.

    Args:
        evidence: its lines.
        results_name: the name of the file.
    """
    parts: Sequence[Callable[[Evidence], Section | None]] = (
        _overview,
        _results,
        _differences,
        _ranks,
        size_curves,
        noise_curves,
        alpha_curves,
        _calibration,
        _wrong_labels,
        _ood,
        _losses,
        _cost,
        _other_metrics,
        failures,
    )
    found = [part(evidence) for part in parts] if evidence.runs else [failures(evidence)]
    return [*filter(None, found), what_was_run(evidence, results_name)]


def opening(evidence: Evidence) -> str:
    """What the runs of a file of results say, in a sentence."""
    rows = [row for setting in evidence.settings for row in evidence.compared(setting)]
    sure = [row for row in rows if evidence.is_sure(row)]
    if not evidence.runs:
        return "All runs failed, so that nothing can be compared."
    if not rows:
        return "No method has a seed in common with plain fine-tuning (none), so that nothing is compared with it."
    if not sure:
        return f"One seed {_where(evidence, rows)} does not tell whether a method is better than plain fine-tuning."
    pairs = [row.pairs for row in sure]
    seeds = _number(min(pairs)) if len(set(pairs)) == 1 else f"{_number(min(pairs))} to {_number(max(pairs))}"
    better, worse = (_clear_ones(sure, verdict) for verdict in ("better", "worse"))
    said = _count_and_names(better, "better than plain fine-tuning")
    if worse:
        said += f"; {_count_and_names(worse, 'worse')}"
    elif not better:
        said = "nothing is clearly better or worse than plain fine-tuning"
    return f"{seeds.capitalize()} seeds {_where(evidence, sure)}: {said}."


def _clear_ones(rows: Sequence[Row], verdict: str) -> dict[str, str]:
    """The methods with a verdict somewhere, those with more of it first, and in how many of their settings."""
    hits = Counter(row.method for row in rows if row.verdict == verdict)
    tried = Counter(row.method for row in rows)
    return {method: f"in {count} of {tried[method]}" * (tried[method] > 1) for method, count in hits.most_common()}


def _count_and_names(found: Mapping[str, str], verdict: str) -> str:
    """How many methods are clearly better or worse, and which ones."""
    if not found:
        return f"nothing is clearly {verdict}"
    names = [f"{method} {where}".strip() for method, where in found.items()]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    methods = "one method is" if len(names) == 1 else f"{_number(len(names))} methods are"
    return f"{methods} clearly {verdict} ({', '.join(names[:_MOST_NAMED])}{more})"


def _where(evidence: Evidence, rows: Sequence[Row]) -> str:
    """On which tasks, and in how many settings, something was compared."""
    settings = dict.fromkeys(row.setting for row in rows)
    tasks = dict.fromkeys(setting.task for setting in settings)
    on = f"on {next(iter(tasks))}" if len(tasks) == 1 else f"on {_number(len(tasks))} tasks"
    return on if len(settings) == len(tasks) else f"in {_number(len(settings))} settings {on}"


def _number(count: int) -> str:
    """A small number as a word."""
    words = "zero one two three four five six seven eight nine ten eleven twelve".split()
    return words[count] if count < len(words) else str(count)


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
    text = [] if all(map(evidence.same_seeds, evidence.settings)) else [_SEEDS_DIFFER]
    named = [f"{name} is {words}" for name, words in evidence.words.items() if words != name]
    text += [f"{'; '.join(named)}."] if named else []
    return Section("Results", text, [Table(caption, ["method", *columns], rows)])


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
            judged = [Entry("–"), NOTHING, NOTHING, NOTHING]
            if has_interval:
                ends = ((row.low, row.high), (row.corrected_low, row.corrected_high))
                intervals = [Entry(" to ".join(map(kind.signed, each)), each[0]) for each in ends]
                p = "<0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
                judged = [Entry(row.verdict, better=row.verdict == "better"), *intervals, Entry(p, row.p_holm)]
            difference = Entry(kind.signed(row.difference), row.difference)
            words = [Entry(row.method), *evidence.setting_entries(setting), Entry(str(row.pairs), row.pairs)]
            entries.append([*words, difference, *judged])
    if not entries:
        return None
    text = [
        "The difference is the mean over the seeds that the method and none both have. The interval for accuracy "
        "comes from a paired bootstrap over seeds and test rows, and does not go where the accuracy of the method "
        "would be below 0 or above 100 %; that for correlations comes from Student's t over the seeds, on these test "
        "rows: other rows would add to it. In the figures the thick line is the 95 % interval, the thin one the "
        "corrected interval; a filled mark is clear of 0, a hollow one is not. Arrows show what lies far beyond the "
        "others, with its number."
    ]
    if not all(evidence.is_sure(row) for setting in evidence.settings for row in evidence.compared(setting)):
        text.append("Where there is only one seed there is no interval: it would say nothing about other seeds.")
    numbers = ["seeds", "difference", "verdict", "95 % interval", "corrected interval", "p, corrected"]
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


def _calibration(evidence: Evidence) -> Section | None:
    scaled = [f"{name}_scaled" for name in _CALIBRATION]
    tables = [
        *_measure_table(evidence, _CALIBRATION, "Calibration on the test rows as trained, mean ± sd"),
        *_measure_table(evidence, (*scaled, "temperature"), "Calibration after temperature scaling, mean ± sd"),
    ]
    if not tables:
        return None
    pictures = []
    for number, setting in enumerate(evidence.settings, start=1):
        by_method = {
            method: [run["reliability"] for run in runs if "reliability" in run]
            for method, runs in evidence.in_order(setting)
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
        "diagrams pool the test rows of all seeds in 15 bins, without those that hold less than one row in a hundred; "
        "on the dashed line confidence is what it says, below it the model is too sure. Bold and ▼ come from "
        "Student's t over the seeds, on these test rows."
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
        curves = {method: _loss_curve(runs) for method, runs in evidence.in_order(setting)}
        curves = {method: curve for method, curve in curves.items() if len(curve[0]) > 1}
        if curves:
            title = evidence.names[setting]
            draw = partial(figures.draw_losses, curves, evidence.look, title)
            pictures.append(Picture(f"loss_{number}", draw, f"Training loss by step, a line for each method. {title}"))
    text = (
        "The training loss as it was logged, mean over the seeds with a band of one standard deviation. The loss of "
        "mixed rows is taken against mixed labels: where it settles says nothing of one method against another. "
        "Many methods have a panel each, with the others in grey."
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
            row.method: (
                1000 * mean(run["cost"]["step_seconds"] for run in runs),
                row.mean * 100,
                *(100 * end for end in evidence.spread(row)),
            )
            for method, runs in evidence.in_order(setting)
            for row in evidence.present([setting], method)
        }
        if not points:
            continue
        draw = partial(
            figures.draw_cost, points, evidence.look, title, "ms per training step", f"{metric.name}, times 100"
        )
        label = f"{metric.name} and the time of a training step, a line for each method. {title}"
        pictures.append(Picture(f"cost_{number}", draw, label))
    text = [
        "The time of a step is that of the whole training by its steps, batches that are not mixed included. Runs "
        "that share a machine slow each other down; peak memory is that of the GPU, else of the whole process. In the "
        "figures bars go one standard deviation over the seeds to either side."
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
        for method, _ in evidence.in_order(setting):
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
    """From where to where differences and intervals of all settings go, without outliers: one scale for all panels."""
    rows = [row for setting in evidence.settings for row in evidence.compared(setting)]
    ends = ("difference", "low", "high", "corrected_low", "corrected_high")
    spans = [[getattr(row, end) for end in (ends if evidence.is_sure(row) else ends[:1])] for row in rows]
    return figures.scale_of((min(span), max(span)) for span in spans)


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
        for method, runs in evidence.in_order(setting)
    }
    seeds = set.intersection(*(set(each) for each in values.values()))
    return [
        Row(setting, method, len(seeds), len(seeds), mean(each[seed] for seed in seeds), math.nan)
        for method, each in values.items()
        if seeds
    ]


def _by_rank(ranks: Ranks) -> list[tuple[str, float]]:
    return sorted(ranks.ranks.items(), key=lambda entry: entry[1])


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


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
