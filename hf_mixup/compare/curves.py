"""The sections of a report that draw the metric against size, noise and alpha."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from hf_mixup.compare import figures
from hf_mixup.compare.blocks import Picture, Section
from hf_mixup.compare.evidence import Evidence, family_and_alpha, measure
from hf_mixup.compare.statistics import BASELINE, Row, Setting

_CURVES = (
    "Bars go one standard deviation over the seeds to either side, as far as the metric can go; methods that share a "
    "panel are drawn side by side so that their bars can be told apart. A line that is far from the others leaves the "
    "panel, and its name says how far it goes."
)
_GAINS = (
    "After each figure comes the difference to none on the same seeds with its 95 % interval, which is what tells "
    "methods apart: seeds that are hard for one method are hard for all."
)


def size_curves(evidence: Evidence) -> Section | None:
    """The section on the size of the training set."""
    pictures = _stretches(evidence, "size", "rows", "train rows", evidence.train_rows)
    return Section("Size of the training set", [_CURVES, _GAINS], pictures=pictures) if pictures else None


def noise_curves(evidence: Evidence) -> Section | None:
    """The section on wrong labels."""
    pictures = _stretches(
        evidence, "noise", "noise", "train labels made wrong, %", lambda setting: 100 * setting.noise
    )
    return Section("Share of wrong labels", [_CURVES, _GAINS], pictures=pictures) if pictures else None


def alpha_curves(evidence: Evidence) -> Section | None:
    """The section on alpha: two panels for each setting that has a method with several alphas."""
    # Tuned methods have the alpha that was found, whatever their names say, and learning rates of their own.
    if any(run["tune"] for run in evidence.runs):
        return None
    families: dict[str, dict[float, str]] = defaultdict(dict)
    for method in evidence.methods:
        family, alpha = family_and_alpha(evidence.words[method])
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
        plain = [(alpha, row) for row in evidence.present([setting], BASELINE) for alpha in alphas]
        look = {
            family: evidence.look.get(family, evidence.look[next(iter(families[family].values()))]) for family in rows
        }
        look[BASELINE] = evidence.look[BASELINE]
        curves = {**({BASELINE: plain} if plain else {}), **rows}
        panels.append(_two_panels(evidence, setting, curves, look, evidence.names[setting], "alpha", log=True))
    text = f"none has no alpha and is drawn as a level line. {_CURVES}"
    return Section("Alpha", [text, _GAINS], pictures=_numbered("alpha", panels)) if panels else None


def _stretches(
    evidence: Evidence, axis: str, stem: str, xlabel: str, x_of: Callable[[Setting], float]
) -> list[Picture]:
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
            method: [(x_of(row.setting), row) for row in evidence.present(settings, method)]
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
        method: [(x, *(100 * y for y in (row.mean, *evidence.spread(row)))) for x, row in points]
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
        # As the label of an axis it is no longer than the axis.
        ("_gain", f"{metric}, points over none", gains, True),
    ):
        points = {method: each for method, each in points.items() if each}
        if points:
            draw = partial(figures.draw_curves, points, look, title, xlabel, what, log=log, zero=zero)
            pictures.append(Picture(name, draw, f"{what} against {xlabel}, a line for each method. {title}"))
    return pictures
