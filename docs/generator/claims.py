"""The page on two claims of the literature."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from docs.generator.results import evidence
from docs.generator.tables import DOCS, table
from hf_mixup.compare.evidence import Evidence
from hf_mixup.compare.statistics import BASELINE, Row, percent, summarize

# Batches of alike length say nothing of the claims.
_NO_CLAIMS = ("fast_settings",)
CLAIMS = """# Two claims of the literature, checked

On the runs of the [results](results.md), every method against `none` on the same seeds. Better and worse are called
where the interval of the difference, corrected by Holm for the methods of a setting, excludes 0; the intervals in the
tables are these. Generated from the raw output by `python docs/generate.py`.

## Mixup halves the calibration error

The claim: mixup of inputs, hidden layers or sentence embeddings lowers the calibration error of BERT by up to 50 %
(Zhang and Vaidya 2021, [arXiv 2102.11402](https://arxiv.org/abs/2102.11402)).

Measured: the expected calibration error over 15 bins on the test rows, times 100, as trained and after dividing the
logits by the temperature that fits the validation rows best. The intervals are of Student's t over the seeds, on these
test rows.

{calibration}
## Mixup is robust to wrong labels

The claim: a network trained with mixup learns wrong labels by heart less, and is more accurate for it (Zhang et al.
2018, [arXiv 1710.09412](https://arxiv.org/abs/1710.09412), for images).

Measured: accuracy on the test rows, times 100, and the share of the rows with a wrong label whose wrong label the
model gives after the training. The intervals of the accuracy are of a bootstrap over seeds and test rows, those of
what was learned of Student's t over the seeds.

{noise}"""


def pages() -> dict[Path, str]:
    """The page by its path, if there are runs that tell of the claims."""
    found = [runs for name, runs in evidence().items() if name not in _NO_CLAIMS]
    if not found:
        return {}
    return {DOCS / "claims.md": CLAIMS.format(calibration=calibration_claim(found), noise=noise_claim(found))}


def calibration_claim(found: Iterable[Evidence]) -> str:
    """How often the calibration error fell, in words and in a table."""
    head = ["data", "labels made wrong", "method", "seeds", "ECE, `none`", "ECE", "times", "difference", "verdict"]
    head += ["ECE scaled, `none`", "ECE scaled", "times", "difference", "verdict"]
    cells, verdicts, ratios = [], {"ece": [], "ece_scaled": []}, {"ece": [], "ece_scaled": []}
    for grid in found:
        rows = {name: {(row.setting, row.method): row for row in summarize(grid.runs, name)} for name in verdicts}
        for row in rows["ece"].values():
            if row.difference is None:
                continue
            cell = [row.setting.task, percent(row.setting.noise), f"`{row.method}`", row.pairs]
            for name, by_method in rows.items():
                own = by_method.get((row.setting, row.method))
                # Without a single wrong validation row no temperature fits, and nothing is scaled.
                if own is None or own.difference is None:
                    cell += [""] * 5
                    continue
                plain = by_method[row.setting, BASELINE]
                ratios[name].append(own.mean / plain.mean)
                verdicts[name].append(own.verdict)
                cell += [f"{100 * plain.mean:.1f}", f"{100 * own.mean:.1f}", f"{ratios[name][-1]:.2f}"]
                cell += [difference(own), own.verdict]
            cells.append(cell)
    words = ""
    for name, label in (("ece", "As trained"), ("ece_scaled", "After temperature scaling")):
        times, clear = ratios[name], verdicts[name]
        words += (
            f"{label}, the error is clearly lower in {clear.count('better')} of {len(times)} comparisons and clearly "
            f"higher in {clear.count('worse')}. It is {min(times):.2f} to {max(times):.2f} times that of `none`, the "
            f"median is {median(times):.2f}; it is at most half in {sum(each <= 0.5 for each in times)}.\n\n"
        )
    return f"{words}{table(head, cells)}"


def noise_claim(found: Iterable[Evidence]) -> str:
    """Accuracy and what was learned by heart of wrong labels, in words and in a table."""
    head = ("data", "labels made wrong", "method", "accuracy by seed", "mean", "difference", "verdict")
    head += ("wrong labels learned", "difference", "verdict")
    cells, verdicts, learned = [], [], []
    for grid in found:
        by_heart = {(row.setting, row.method): row for row in summarize(grid.runs, "flipped_rows_memorized")}
        for setting in grid.settings:
            for method, runs in grid.in_order(setting):
                if (setting, method) not in by_heart:
                    continue
                row, wrong = grid.rows[setting, method], by_heart[setting, method]
                scores = sorted((run["cell"]["seed"], 100 * run["metrics"]["accuracy"]) for run in runs)
                cell = [setting.task, percent(setting.noise), f"`{method}`"]
                cell += [" / ".join(f"{score:.1f}" for _, score in scores), f"{100 * row.mean:.1f}"]
                cell += [difference(row), row.verdict]
                cells.append([*cell, f"{100 * wrong.mean:.1f}", difference(wrong), wrong.verdict])
                verdicts += [row.verdict] if row.verdict else []
                learned += [wrong.verdict] if wrong.verdict else []
    words = (
        f"Of {len(verdicts)} comparisons on wrong labels the accuracy is clearly better in {verdicts.count('better')} "
        f"and clearly worse in {verdicts.count('worse')}; fewer wrong labels are learned in "
        f"{learned.count('better')}, more in {learned.count('worse')}.\n"
    )
    return f"{words}\n{table(head, cells)}"


def difference(row: Row) -> str:
    """A difference to `none` in points with its corrected interval; nothing for `none` itself."""
    if row.difference is None:
        return ""
    interval = f" [{100 * row.corrected_low:+.1f}, {100 * row.corrected_high:+.1f}]" if row.pairs > 1 else ""
    return f"{100 * row.difference:+.1f}{interval}"
