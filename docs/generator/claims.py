"""The page on two claims of the literature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, median

from docs.generator.results import evidence
from docs.generator.tables import DOCS, table
from hf_mixup.compare.evidence import Evidence, Line
from hf_mixup.compare.statistics import BASELINE, Row, Setting, percent, summarize

# Batches of alike length say nothing of the claims.
_GROUPED = "train_sampling_strategy"
_WHICH = ("data", "train rows", "wrong labels", "method", "seeds")
CLAIMS = """# Two claims of the literature, checked

On the runs of the [results](results.md) but for those in batches of alike length: every method against `none` on the
same seeds. Better and worse are called where the interval of the difference, corrected by Holm for the methods of a
setting, excludes 0; the intervals in the tables are these. Where one method stands with several settings of its own,
as along a curve of alpha, its comparisons are not independent: the counts say how many there are, and not how sure the
whole is. Generated from the raw output by `python docs/generate.py`.

## Mixup halves the calibration error

The claim: mixup of inputs, hidden layers or sentence embeddings lowers the calibration error of BERT by up to 50 %
(Zhang and Vaidya 2021, [arXiv 2102.11402](https://arxiv.org/abs/2102.11402)).

Measured: the expected calibration error over 15 bins on the test rows, times 100, as trained and after dividing the
logits by the temperature that fits the validation rows best; their labels are right. The
intervals are of Student's t over the seeds, on these test rows. RTE was learned by no method, nor by plain
fine-tuning: its lines say how sure models are that know nothing. `amplify:draws=5` is `amplify` with its default
written out, so that the same comparison stands here twice.

{calibration}
## Mixup is robust to wrong labels

The claim: a network trained with mixup learns wrong labels by heart less, and is more accurate for it (Zhang et al.
2018, [arXiv 1710.09412](https://arxiv.org/abs/1710.09412), for images).

Measured: accuracy on the test rows, times 100, and the share of the rows with a wrong label whose wrong label the
model gives after the training; beside it the share of the rows with a right label that it gives back. The
intervals of the accuracy are of a bootstrap over seeds and test rows, those of what was learned of Student's t over
the seeds.

Plain fine-tuning with other options stands in the table, and is not counted.

{noise}"""


def pages() -> dict[Path, str]:
    """The page by its path, if there are runs that tell of the claims."""
    found = evidence()
    if not found:
        return {}
    return {DOCS / "claims.md": CLAIMS.format(calibration=calibration_claim(found), noise=noise_claim(found))}


def calibration_claim(found: Mapping[str, Evidence]) -> str:
    """How often the calibration error fell, in words and in a table; the runs by the name of their grid."""
    head = [*_WHICH, "ECE, `none`", "ECE", "times", "difference", "verdict"]
    head += ["ECE scaled, `none`", "ECE scaled", "times", "difference", "verdict"]
    names = {"ece": "As trained", "ece_scaled": "After temperature scaling"}
    cells, judged = [], defaultdict(list)
    for grid_name, grid, setting, method in _comparisons(found):
        if not _mixes(grid, method) or not grid.rows[setting, method].pairs:
            continue
        wrong = wrong_share(grid, setting)
        cell = _which(grid_name, grid, setting, method)
        for name in names:
            rows = {row.method: row for row in summarize(_runs(grid, setting), name)}
            # Without a single wrong validation row no temperature fits, and nothing is scaled.
            if method not in rows or rows[method].difference is None:
                cell += [""] * 5
                continue
            own, plain = rows[method], rows[BASELINE]
            times = own.mean / plain.mean
            judged[name, wrong > 0].append((times, own.verdict, grid.rows[setting, method].verdict == "worse"))
            cell += [f"{100 * plain.mean:.1f}", f"{100 * own.mean:.1f}", f"{times:.2f}", difference(own), own.verdict]
        cells.append(cell)
    words = ""
    for (name, is_wrong), verdicts in sorted(judged.items(), key=lambda entry: entry[0][1]):
        times, clear, inaccurate = zip(*verdicts, strict=True)
        # What has learned little has little to be too sure of.
        given_up = sum(each == "better" and worse for each, worse in zip(clear, inaccurate, strict=True))
        halved = [worse for each, worse in zip(times, inaccurate, strict=True) if each <= 0.5]
        lost = f", {sum(halved)} of them for a method that is clearly less accurate" if any(halved) else ""
        less = f", {given_up} of them for a method that is clearly less accurate than `none`," if given_up else ""
        words += (
            f"{names[name]}, with {'wrong labels' if is_wrong else 'right labels'}: clearly lower in "
            f"{clear.count('better')} of {len(times)} comparisons{less} and clearly higher in {clear.count('worse')}; "
            f"{min(times):.2f} to {max(times):.2f} times the error of `none`, the median is {median(times):.2f}; at "
            f"most half in {len(halved)}{lost}.\n\n"
        )
    return f"{words}{_temperatures(found)}\n\n{table(head, cells)}"


def _temperatures(found: Mapping[str, Evidence]) -> str:
    """In how many settings plain fine-tuning is too sure, in words."""
    plain = [(grid, setting) for _, grid, setting, method in _comparisons(found) if method == BASELINE]
    rows = [row for grid, setting in plain for row in summarize(_runs(grid, setting), "temperature")]
    fitted = [row.mean for row in rows if row.method == BASELINE]
    return (
        f"Plain fine-tuning is itself too sure, with a temperature above 1, in {sum(each > 1 for each in fitted)} of "
        f"{len(fitted)} settings. In the others it is not sure enough already: there a method that makes models less "
        "sure adds to the error as trained, and whether they are better calibrated shows after scaling alone."
    )


def noise_claim(found: Mapping[str, Evidence]) -> str:
    """Accuracy and what was learned by heart of wrong labels, in words and in a table; the runs as above."""
    head = [*_WHICH, "accuracy by seed", "mean", "difference", "verdict"]
    head += ["wrong labels learned", "difference", "verdict", "right labels learned", "difference", "verdict"]
    cells, verdicts, learned, fewer_right = [], [], [], 0
    for grid_name, grid, setting, method in _comparisons(found):
        by_heart = {row.method: row for row in summarize(_runs(grid, setting), "flipped_rows_memorized")}
        if not wrong_share(grid, setting) or method not in by_heart:
            continue
        row, wrong = grid.rows[setting, method], by_heart[method]
        right = {each.method: each for each in summarize(_runs(grid, setting), "clean_rows_accuracy")}[method]
        runs = grid.by_setting[setting][method]
        scores = sorted((run["cell"]["seed"], 100 * run["metrics"]["accuracy"]) for run in runs)
        cell = [
            *_which(grid_name, grid, setting, method),
            " / ".join(f"{score:.1f}" for _, score in scores),
            f"{100 * row.mean:.1f}",
        ]
        cell += [difference(row), row.verdict]
        for each in (wrong, right):
            cell += [f"{100 * each.mean:.1f}", difference(each), each.verdict]
        cells.append(cell)
        if _mixes(grid, method) and row.verdict:
            verdicts.append(row.verdict)
            learned.append(wrong.verdict)
            fewer_right += (wrong.verdict, right.verdict) == ("better", "worse")
    words = (
        f"Of {len(verdicts)} comparisons on wrong labels the accuracy is clearly better in {verdicts.count('better')} "
        f"and clearly worse in {verdicts.count('worse')}; fewer wrong labels are learned in "
        f"{learned.count('better')}, of the right ones too in {fewer_right} of these; more in "
        f"{learned.count('worse')}.\n"
    )
    return f"{words}\n{table(head, cells)}"


def wrong_share(grid: Evidence, setting: Setting) -> float:
    """The share of the train labels that are known to be wrong: those that the file has and those that were made."""
    shares = [(run.get("wrong_train_labels") or 0) / run["rows"]["train"] for run in _runs(grid, setting)]
    return round(mean(shares), 3)


def _runs(grid: Evidence, setting: Setting) -> list[Line]:
    return [run for _, runs in grid.in_order(setting) for run in runs]


def _which(name: str, grid: Evidence, setting: Setting, method: str) -> list[object]:
    """Which comparison it is, for the columns of `_WHICH`."""
    rows, pairs = round(grid.train_rows(setting)), grid.rows[setting, method].pairs
    return [f"[{setting.task}](evidence/{name}.md)", rows, percent(wrong_share(grid, setting)), f"`{method}`", pairs]


def _comparisons(found: Mapping[str, Evidence]) -> Iterator[tuple[str, Evidence, Setting, str]]:
    """Each method of each setting; what was trained with the same options and seeds in several grids is taken once."""
    seen = set()
    for name, grid in found.items():
        for setting in grid.settings:
            for method, runs in grid.in_order(setting):
                if _GROUPED in grid.words[method]:
                    continue
                runs = frozenset((run["key"], run["data"], *sorted(run["options"].items())) for run in runs)
                if runs not in seen:
                    seen.add(runs)
                    yield name, grid, setting, method


def _mixes(grid: Evidence, method: str) -> bool:
    """Whether a method is one of mixup, and not plain fine-tuning with other options."""
    return grid.words[method].split(":")[0] != BASELINE


def difference(row: Row) -> str:
    """A difference to `none` in points with its corrected interval; nothing for `none` itself."""
    if row.difference is None:
        return ""
    interval = f" [{100 * row.corrected_low:+.1f}, {100 * row.corrected_high:+.1f}]" if row.pairs > 1 else ""
    return f"{100 * row.difference:+.1f}{interval}"
