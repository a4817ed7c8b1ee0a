"""What a calibration changed and which thresholds there are: tables, sentences, bins, and the note in the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import softmax

from hf_mixup.calibrate.temperature import Question, measures
from hf_mixup.calibrate.thresholds import CONFIDENCE, Threshold, thresholds
from hf_mixup.compare.calibration import reliability_bins
from hf_mixup.shown import visible
from hf_mixup.trainer.model_card import CALIBRATION_MEASURES

_CONFIDENTLY = f"{CONFIDENCE * 100:.0f} % confidence"


@dataclass(frozen=True)
class Calibrated:
    """One question, before and after.

    Attributes:
        asked: the question with the measured rows, and their logits before.
        scaled: their logits after; each is divided by a temperature that its own row did not fit.
        temperature: what the new checkpoint divides by; None where none fits best, and nothing is divided.
    """

    asked: Question
    scaled: NDArray[np.float64]
    temperature: float | None

    @property
    def before(self) -> dict[str, float]:
        """The measures of the model as it was."""
        return measures(self.asked.logits, self.asked.labels)

    @property
    def after(self) -> dict[str, float]:
        """The measures after dividing."""
        return measures(self.scaled, self.asked.labels)


@dataclass(frozen=True)
class Chosen:
    """The thresholds for a wished precision.

    Attributes:
        tried: all that accept a row, the lowest first.
        answers: how many rows are answered so, of which the thresholds accept a part.
        on_these_rows: the lowest one that has the precision on the measured rows.
        sure: the lowest one that has it with a confidence of 95 %.
    """

    tried: list[Threshold]
    answers: int
    on_these_rows: Threshold | None
    sure: Threshold | None


# ---- Thresholds ----


def choose(found: Sequence[Calibrated], names: Sequence[str], precision: float, per_class: bool) -> dict[str, Chosen]:
    """The thresholds for a precision: for all rows by the name `all classes`, or for each class by its own.

    The precision of all is the share of right answers among the accepted rows. That of a class is the share of rows
    with this class among the rows that are accepted as it: those whose most probable class it is or, where a row may
    have several classes, all whose probability of this class is high enough.
    """
    if not per_class:
        (each,) = found
        probabilities = softmax(each.scaled, axis=1)
        answer, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        return {"all classes": _chosen(sure, answer == each.asked.labels, precision, 1 / len(names))}
    if found[0].asked.name is None:
        (each,) = found
        probabilities = softmax(each.scaled, axis=1)
        answer, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        own = {name: answer == index for index, name in enumerate(names)}
        right = answer == each.asked.labels
        return {name: _chosen(sure[rows], right[rows], precision, 1 / len(names)) for name, rows in own.items()}
    return {
        each.asked.name: _chosen(softmax(each.scaled, axis=1)[:, 1], each.asked.labels == 1, precision, 0.0)
        for each in found
    }


def _chosen(probabilities: NDArray[np.float64], right: NDArray[np.bool_], precision: float, lowest: float) -> Chosen:
    tried = thresholds(probabilities, right, lowest)
    here = next((each for each in tried if each.precision >= precision), None)
    sure = next((each for each in tried if each.at_least >= precision), None)
    return Chosen(tried, len(right), here, sure)


# ---- The note ----


def note(
    found: Sequence[Calibrated],
    fitted_on: str,
    measured_on: str,
    chosen: Mapping[str, Chosen],
    precision: float | None,
) -> dict[str, Any]:
    """What the config of the new checkpoint says, and its card."""
    temperatures = {each.asked.name: each.temperature or 1.0 for each in found}
    noted: dict[str, Any] = {
        "temperature": temperatures.get(None, temperatures),
        "fitted_on": fitted_on,
        "measured_on": measured_on,
        "before": _mean([each.before for each in found]),
        "after": _mean([each.after for each in found]),
    }
    if precision is not None:
        at = {
            name: {kind: None if each is None else each.at for kind, each in _kinds(own).items()}
            for name, own in chosen.items()
        }
        noted["thresholds"] = {"precision": precision, "by_class": at}
    return noted


def _kinds(own: Chosen) -> dict[str, Threshold | None]:
    return {"on_these_rows": own.on_these_rows, "sure": own.sure}


def _mean(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([numbers[name] for numbers in each])) for name in CALIBRATION_MEASURES}


# ---- Tables and sentences ----


def bins(found: Sequence[Calibrated], name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What the reliability picture shows, before and after; of several questions all answers together."""
    labels = np.concatenate([each.asked.labels for each in found])
    panels = {}
    for panel in ("before", "after"):
        logits = np.concatenate([each.asked.logits if panel == "before" else each.scaled for each in found])
        counted = reliability_bins(softmax(logits, axis=1), labels)
        panels[panel] = {name: dict(zip(("count", "confidence", "accuracy"), counted, strict=True))}
    return panels


def show_measures(console: Console, found: Sequence[Calibrated], noted: Mapping[str, Any]) -> None:
    """Print the measures before and after, and with several questions a line for each."""
    table = _table()
    if found[0].asked.name is None:
        console.print(f"Temperature {found[0].temperature:.3f}, which fits {noted['fitted_on']} best.")
        for head in ("measure", "before", "after"):
            table.add_column(head, justify="left" if head == "measure" else "right")
        for name, words in CALIBRATION_MEASURES.items():
            table.add_row(words, f"{noted['before'][name]:.3f}", f"{noted['after'][name]:.3f}")
        accuracy = f"{found[0].asked.right.mean():.3f}"
        table.add_row("accuracy", accuracy, accuracy)
    else:
        console.print(f"A temperature for each class, which fits {noted['fitted_on']} best.")
        table.add_column("class", overflow="fold", min_width=12)
        for head in ("temperature", "NLL\nbefore", "NLL\nafter", "ECE\nbefore", "ECE\nafter"):
            table.add_column(head, justify="right")
        for each in found:
            temperature = "none fits" if each.temperature is None else f"{each.temperature:.3f}"
            table.add_row(visible(each.asked.name), temperature, *_pairs(each.before, each.after))
        table.add_row("mean", "", *_pairs(noted["before"], noted["after"]))
    console.print(table)
    console.print(f"Measured on {noted['measured_on']}. Less NLL, ECE and Brier score is better.\n")


def _pairs(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return [f"{own[name]:.3f}" for name in ("nll", "ece") for own in (before, after)]


def show_thresholds(console: Console, chosen: Mapping[str, Chosen], precision: float) -> None:
    """Print for each class, or all of them, both thresholds with what they accept."""
    console.print(f"Probability from which on answers have a precision of {precision:g}:")
    table = _table()
    table.add_column("answers", overflow="fold", min_width=12)
    table.add_column("reached", min_width=13)
    for head in ("from", "accepted", "coverage", "precision", "bound"):
        table.add_column(head, justify="right")
    for name, own in chosen.items():
        for (words, each), first in zip(
            {"on these rows": own.on_these_rows, "by the bound": own.sure}.items(), (name, ""), strict=True
        ):
            numbers = ["none"]
            if each is not None:
                shares = (each.accepted / own.answers, each.precision, each.at_least)
                numbers = [f"{each.at:.2f}", str(each.accepted), *(f"{share:.3f}" for share in shares)]
            table.add_row(visible(first), words, *numbers)
    console.print(table)
    console.print(
        "Precision is the share of right answers among the accepted, coverage the share of answers that are accepted. "
        f"On new rows of the same kind the precision is at least the bound, with {_CONFIDENTLY} for all "
        f"thresholds together{', for one class at a time' if len(chosen) > 1 else ''}.\n"
    )


def sentences(found: Sequence[Calibrated], noted: Mapping[str, Any], chosen: Mapping[str, Chosen]) -> list[str]:
    """What the tables do not say by themselves."""
    said = []
    if noted["after"]["nll"] >= noted["before"]["nll"]:
        said.append(
            "On rows that did not fit it the temperature does not lower the NLL: the model was calibrated as well as "
            "a temperature can tell from so many rows."
        )
    unfitted = [each.asked.name for each in found if each.temperature is None]
    if unfitted:
        said.append(
            f"{len(unfitted)} of {len(found)} classes have fewer than two wrong rows, or logits that say nothing of "
            "the class; they stay as they were."
        )
    for own in chosen.values() if len(chosen) == 1 else ():
        precision = noted["thresholds"]["precision"]
        if own.on_these_rows is None:
            best = max(own.tried, key=lambda each: each.precision)
            said.append(
                f"No threshold has a precision of {precision:g} on these rows; the highest is {best.precision:.3f}, "
                f"from {best.at:.2f} on."
            )
        elif own.sure is None:
            best = max(own.tried, key=lambda each: each.at_least)
            said.append(
                f"No threshold has a precision of {precision:g} with {_CONFIDENTLY}: the highest lower "
                f"bound is {best.at_least:.3f}, from {best.at:.2f} on; more rows raise it."
            )
    return said


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0))
