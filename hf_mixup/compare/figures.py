"""The figures of a report. Each is drawn once, and written as PNG on paper or as SVG that follows light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from hf_mixup.compare.statistics import BASELINE, Ranks, Row

PAPER, INK, SOFT, LINE = "#ffffff", "#1b1b1f", "#5a5a66", "#d4d4dc"
_HUES = {
    "#0072b2": "#56b4e9",
    "#d55e00": "#ff9248",
    "#007d60": "#3fd0a4",
    "#b0488f": "#f0a3d2",
    "#8a6800": "#e8c547",
    "#5a3da8": "#b9a3ff",
}
# What takes the place of each colour in the dark.
DARK = {PAPER: "#15141a", INK: "#ececf1", SOFT: "#a9a9b6", LINE: "#3d3c46", **_HUES}
_COLOURS = re.compile("|".join(DARK))
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_RC = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 10),
    **{"legend.fontsize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold"},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.7},
    # A dollar sign in a name begins no formula.
    **{"text.parse_math": False, "svg.fonttype": "none", "font.size": 10},
}
_WIDTH = 5.0
# Of the rows of a reliability diagram, for a bin to be drawn.
_LEAST_SHARE = 0.01
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Style:
    """How a method looks in all figures; colour, marker and line each tell it from others of its neighbourhood."""

    colour: str
    marker: str
    dash: str | tuple


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """The style of each method: `none` is black, or white in the dark."""
    hues, others = list(_HUES), [method for method in methods if method != BASELINE]
    found = {
        method: Style(hues[i % len(hues)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(hues) % len(_DASHES)])
        for i, method in enumerate(others)
    }
    return {BASELINE: Style(INK, "o", "-"), **found}


def draw_differences(
    rows: Sequence[Row],
    sure: Sequence[bool],
    look: Mapping[str, Style],
    title: str,
    xlabel: str,
    factor: float,
    limits: tuple[float, float],
) -> Figure:
    """The differences to `none` with their intervals: thick at 95 %, thin as corrected; filled where 0 is outside.

    Args:
        rows: those with a difference.
        sure: for each, whether it has an interval.
        look: the style of each method.
        title, xlabel: what stands at the panel.
        factor: the numbers are drawn times this.
        limits: the ends of the scale, before that.
    """
    names = [_wrapped(row.method).split("\n") for row in rows]
    height, longest = max(map(len, names)), max(len(line) for name in names for line in name)
    size = {"height": 1.1 + max(0.42, 0.1 + 0.17 * height) * len(rows), "width": max(_WIDTH, 2.6 + 0.085 * longest)}
    with _panel(title, **size) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1)
        for place, (row, has_interval) in enumerate(zip(rows, sure, strict=True)):
            colour = look[row.method].colour
            if has_interval:
                axes.hlines(place, row.corrected_low * factor, row.corrected_high * factor, colour, linewidth=1.2)
                axes.hlines(place, row.low * factor, row.high * factor, colour, linewidth=3.5)
            clear = has_interval and row.verdict != "not clear"
            mark = {"marker": look[row.method].marker, "markersize": 7.5, "markeredgewidth": 1.6, "color": colour}
            axes.plot(row.difference * factor, place, **mark, markerfacecolor=colour if clear else PAPER)
        axes.set_yticks(range(len(rows)), [_wrapped(row.method) for row in rows])
        axes.set(xlim=[end * factor for end in limits], ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(xlabel)
    return figure


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]],
    look: Mapping[str, Style],
    title: str,
    xlabel: str,
    ylabel: str,
    log: bool,
    zero: bool = False,
) -> Figure:
    """A line for each method through its points, with a bar at each.

    Args:
        curves: for each method its points: x, y and the ends of the bar (nan for none).
        look: the style of each method.
        title, xlabel, ylabel: what stands at the panel.
        log: whether x has a logarithmic scale.
        zero: whether a line marks 0.
    """
    positions = sorted({point[0] for points in curves.values() for point in points})
    spread = math.log(positions[-1] / positions[0]) if log else positions[-1] - positions[0]
    with _panel(title, height=3.2, legend=look, methods=list(curves)) as (figure, axes):
        for number, (method, points) in enumerate(curves.items()):
            style, (x, y, low, high) = look[method], map(np.array, zip(*sorted(points), strict=True))
            # Side by side, so that bars do not cover each other.
            shift = 0.012 * spread * (number - (len(curves) - 1) / 2)
            x = x * math.exp(shift) if log else x + shift
            line = {"color": style.colour, "marker": style.marker, "linestyle": style.dash}
            bars = np.nan_to_num([y - low, high - y])
            axes.errorbar(x, y, bars, **line, linewidth=1.6, markersize=6, capsize=2.5)
        if zero:
            axes.axhline(0, color=INK, linewidth=1)
        if log:
            axes.set_xscale("log")
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return figure


def draw_reliability(
    panels: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]], look: Mapping[str, Style], title: str
) -> Figure:
    """Accuracy against confidence, a panel each before and after scaling; the larger a mark the more rows it has.

    Bins with less than a hundredth of the rows are left out: the accuracy of a few rows is chance.

    Args:
        panels: by the panel's name and the method the `count`, `confidence` and `accuracy` of the bins.
        look: the style of each method.
        title: what stands above.
    """
    methods = list(next(iter(panels.values())))
    with _panel(title, height=2.75, legend=look, methods=methods, columns=len(panels)) as (figure, *all_axes):
        for axes, (name, by_method) in zip(all_axes, panels.items(), strict=True):
            axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
            for method, bins in by_method.items():
                count, confidence, accuracy = (np.array(bins[part]) for part in ("count", "confidence", "accuracy"))
                drawn, style = count >= max(1, _LEAST_SHARE * count.sum()), look[method]
                x, y, area = confidence[drawn], accuracy[drawn], 5 + 90 * count[drawn] / count.sum()
                axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.3)
                axes.scatter(x, y, area, color=style.colour, marker=style.marker, linewidths=0)
            axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", xlabel=f"confidence {name}")
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        all_axes[0].set_ylabel("accuracy")
    return figure


def draw_losses(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], look: Mapping[str, Style], title: str
) -> Figure:
    """The training loss against the step, mean over the seeds, with a band of one standard deviation.

    Args:
        curves: for each method steps, means and standard deviations (0 for one seed).
        look: the style of each method.
        title: what stands above.
    """
    with _panel(title, height=3.2, legend=look, methods=list(curves), markers=False) as (figure, axes):
        for method, (steps, means, deviations) in curves.items():
            style, means = look[method], np.asarray(means)
            axes.plot(steps, means, color=style.colour, linestyle=style.dash, linewidth=1.6)
            band = (means - deviations, means + deviations)
            axes.fill_between(steps, *band, color=style.colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="step", ylabel="training loss")
        axes.set_ylim(bottom=0)
    return figure


def draw_cost(
    points: Mapping[str, tuple[float, float, float]], look: Mapping[str, Style], title: str, xlabel: str, ylabel: str
) -> Figure:
    """A mark for each method: what it costs and what it gains, with a bar of one standard deviation.

    Args:
        points: for each method x, mean and standard deviation (nan for none).
        look: the style of each method.
        title, xlabel, ylabel: what stands at the panel.
    """
    with _panel(title, height=3.0, legend=look, methods=list(points), lines=False) as (figure, axes):
        for method, (x, mean, deviation) in points.items():
            style = look[method]
            mark = {"color": style.colour, "marker": style.marker, "markersize": 7.5, "linestyle": "none"}
            axes.errorbar(x, mean, 0 if math.isnan(deviation) else deviation, **mark, capsize=2.5)
        axes.set_xlim(0, 1.08 * max((x for x, _, _ in points.values()), default=1))
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def draw_ranks(ranks: Ranks, look: Mapping[str, Style]) -> Figure:
    """The critical-difference figure: methods at their average ranks, bars over those that are not different.

    Paper: Statistical Comparisons of Classifiers over Multiple Data Sets. Demsar, 2006.
    https://jmlr.org/papers/v7/demsar06a.html
    """
    ordered = sorted(ranks.ranks.items(), key=lambda entry: entry[1])
    groups = _groups([rank for _, rank in ordered], ranks.critical_difference)
    count, left = len(ordered), (len(ordered) + 1) // 2
    below = 0.5 + 0.35 * len(groups)
    depth = below + left
    # Many methods need a longer axis, and long names more room on both sides of it.
    longest = max(len(line) for method in ranks.ranks for line in _wrapped(method).split("\n"))
    width = max(_WIDTH if count <= 6 else 6.5, 2 + 0.17 * longest)
    with _panel("", height=0.9 + 0.34 * depth, width=width) as (figure, axes):
        axes.axis("off")
        # The ends of the axis have room for the names beside them.
        margin = 0.66 * (count - 1)
        axes.set(xlim=(1 - margin, count + margin), ylim=(depth, -2.4))
        axes.hlines(0, 1, count, INK, linewidth=1.2)
        for rank in range(1, count + 1):
            axes.vlines(rank, -0.2, 0, INK, linewidth=1)
            if count <= 8 or rank % 2:
                axes.text(rank, -0.35, str(rank), ha="center", va="bottom")
        ruler = min(ranks.critical_difference, count - 1)
        axes.plot([1, 1 + ruler], [-1.45, -1.45], color=INK, linewidth=1.6, marker="|", markersize=8)
        cut = "" if ruler == ranks.critical_difference else ", more than the axis"
        axes.text(1, -1.7, f"critical difference {ranks.critical_difference:.2f}{cut}", va="bottom")
        for number, (first, last) in enumerate(groups):
            height = 0.35 + 0.35 * number
            axes.hlines(height, ordered[first][1] - 0.02, ordered[last][1] + 0.02, SOFT, linewidth=4)
        for place, (method, rank) in enumerate(ordered):
            on_left = place < left
            height = below + (place if on_left else count - 1 - place) + 0.3
            end = 1 - 0.05 * margin if on_left else count + 0.05 * margin
            style = look[method]
            axes.plot([rank, rank, end], [0, height, height], color=style.colour, linewidth=1, solid_joinstyle="miter")
            axes.plot(rank, 0, marker=style.marker, color=style.colour, markersize=6.5, clip_on=False)
            name, _, options = _wrapped(method).partition("\n")
            text = "\n".join(filter(None, (f"{name}  {rank:.2f}" if on_left else f"{rank:.2f}  {name}", options)))
            gap, side = (-0.02, "right") if on_left else (0.02, "left")
            axes.text(end + gap * count, height, text, ha=side, va="center", ma=side)
    return figure


def save_png(figure: Figure, file: Path) -> None:
    """Write a figure on white."""
    with rc_context(_RC):
        figure.savefig(file, dpi=160, facecolor=PAPER)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """A figure as SVG to stand in a page, its colours variables of the page, its identifiers begun by the name.

    Args:
        figure: one of this module.
        name: unlike those of the other figures of the page.
        label: what a screen reader says.
    """
    buffer = io.BytesIO()
    with rc_context({**_RC, "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # The style would hold for the whole page.
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
        for attribute, value in parent.attrib.items():
            if attribute == "id":
                value = f"{name}-{value}"
            elif attribute == f"{{{_XLINK}}}href":
                value = value.replace("#", f"#{name}-")
            else:
                value = value.replace("url(#", f"url(#{name}-")
                value = _COLOURS.sub(lambda found: f"var(--c{found[0][1:]}, {found[0]})", value)
            parent.set(attribute, value)
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def _panel(
    title: str,
    height: float,
    legend: Mapping[str, Style] | None = None,
    methods: Sequence[str] = (),
    columns: int = 1,
    width: float = _WIDTH,
    markers: bool = True,
    lines: bool = True,
) -> Iterator[tuple]:
    """A figure with its axes to be filled, and a legend of the methods below them."""
    labels = [_wrapped(method) for method in methods]
    across = 1 if any(len(line) > 26 for label in labels for line in label.split("\n")) else 2
    lines_of, half = [1 + label.count("\n") for label in labels], math.ceil(len(labels) / across)
    rows = max(sum(lines_of[:half]), sum(lines_of[half:]))
    with rc_context(_RC):
        figure = Figure(figsize=(width, height + 0.2 * rows), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(1, columns, squeeze=False)[0]
        yield figure, *axes
        if legend:
            handles = [
                axes[0].plot(
                    [],
                    [],
                    color=legend[method].colour,
                    marker=legend[method].marker if markers else "",
                    linestyle=legend[method].dash if lines else "none",
                    label=label,
                )[0]
                for method, label in zip(methods, labels, strict=True)
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=across)
        if title:
            figure.suptitle("\n".join(wrap(title, 58)), x=0.01, ha="left", fontsize=11, fontweight="bold")
        # The layout is made once, and not again for each file.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def _wrapped(method: str) -> str:
    """A method with its options on lines of their own."""
    name, _, options = method.partition(":")
    return "\n".join([name, *wrap(options.replace(":", ", "), 40, break_on_hyphens=False)])


def _groups(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """The longest stretches of ordered ranks of which first and last are not different."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank < critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
