"""The figures of a report. Each is drawn once, and written as PNG on paper or as SVG that follows light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# So many methods share a panel: more lines cannot be followed, and there are not more colours.
_MOST_LINES = 7
# What reaches more than four times as far as three quarters of all does leaves the scale.
_USUAL, _FAR = 0.75, 4
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


def scale_of(spans: Iterable[tuple[float, float]], centre: float = 0.0) -> tuple[float, float]:
    """From where to where a scale goes that shows spans around a centre, so that outliers do not flatten the others.

    Args:
        spans: the ends of what is drawn; those that are not finite do not count.
        centre: what is on the scale in any case.

    Example:
        >>> scale_of([(-1, 1), (-2, 0), (0, 1), (-80, -70)])
        (-2.12, 1.12)
    """
    found = sorted(
        (max(abs(low - centre), abs(high - centre)), low, high)
        for low, high in spans
        if math.isfinite(low) and math.isfinite(high)
    )
    if found:
        usual = found[math.ceil(_USUAL * len(found)) - 1][0]
        found = [span for span in found if span[0] <= _FAR * usual or usual == 0]
    low, high = min([centre, *(low for _, low, _ in found)]), max([centre, *(high for _, _, high in found)])
    margin = 0.04 * (high - low) or 0.01
    return low - margin, high + margin


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
        limits: the ends of the scale, before that; an arrow with its number is what lies beyond.
    """
    ends = (limits[0] * factor, limits[1] * factor)
    with _rows([row.method for row in rows], title, 1) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1)
        for place, (row, has_interval) in enumerate(zip(rows, sure, strict=True)):
            intervals = [(row.corrected_low, row.corrected_high), (row.low, row.high)] if has_interval else []
            intervals = [(low * factor, high * factor) for low, high in intervals]
            clear = has_interval and row.verdict != "not clear"
            difference = row.difference * factor
            _mark(axes, place, difference, intervals, look[row.method], ends, clear, f"{difference:+.1f}")
        axes.set_xlim(ends)
        axes.set_xlabel(xlabel)
    return figure


def draw_ratios(
    names: Sequence[str],
    ratios: Sequence[tuple[float, float, float]],
    targets: Sequence[float | None],
    xlabel: str,
) -> Figure:
    """Ratios with their intervals, a row each, around a line at 1; a bar marks what a ratio is to stay below.

    Args:
        names: of the rows.
        ratios: the ratio and the ends of its interval.
        targets: what each is to stay below; None for nothing.
        xlabel: what stands at the panel.
    """
    style = styles(["none", "mixed"])["mixed"]
    reached = [
        (low, high if most is None else max(high, most)) for (_, low, high), most in zip(ratios, targets, strict=True)
    ]
    ends = scale_of(reached, 1.0)
    with _rows(names, "", 1) as (figure, axes):
        axes.axvline(1, color=INK, linewidth=1)
        for place, ((ratio, low, high), target) in enumerate(zip(ratios, targets, strict=True)):
            text = f"{ratio:.2f}" + ("" if target is None else f", at most {target:.2f}")
            if target is not None and ends[0] <= target <= ends[1]:
                axes.plot(target, place, marker="|", color=list(_HUES)[1], markersize=14, markeredgewidth=2)
            _mark(axes, place, ratio, [(low, high)], style, ends, True, text)
        axes.set_xlim(ends)
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
    together = len(curves) <= _MOST_LINES
    places = {method: number - (len(curves) - 1) / 2 for number, method in enumerate(curves)}

    def line(axes: Axes, method: str, faint: bool) -> None:
        style, (x, y, low, high) = look[method], map(np.array, zip(*sorted(curves[method]), strict=True))
        if faint:
            axes.plot(x, y, color=LINE, linewidth=1)
            return
        # Side by side, so that bars do not cover each other.
        shift = 0.012 * spread * places[method] if together else 0.0
        x = x * math.exp(shift) if log else x + shift
        shape = {"color": style.colour, "marker": style.marker, "linestyle": style.dash}
        axes.errorbar(x, y, np.nan_to_num([y - low, high - y]), **shape, linewidth=1.6, markersize=5, capsize=2.5)

    def frame(axes: Axes) -> None:
        if zero:
            axes.axhline(0, color=INK, linewidth=1)
        if log:
            axes.set_xscale("log")
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.set_xticks([], minor=True)

    spans = {
        method: (min(np.nanmin(point[1:]) for point in points), max(np.nanmax(point[1:]) for point in points))
        for method, points in curves.items()
    }
    return _draw_lines(spans, look, title, xlabel, ylabel, line, frame, start=0.0 if zero else None)


def draw_reliability(
    panels: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]], look: Mapping[str, Style], title: str
) -> Figure:
    """Accuracy against confidence before and after scaling; the larger a mark the more rows it has.

    A panel for each of the two, or for each method where there are many. Bins with less than a hundredth of the rows
    are left out: the accuracy of a few rows is chance.

    Args:
        panels: by the panel's name and the method the `count`, `confidence` and `accuracy` of the bins.
        look: the style of each method.
        title: what stands above.
    """
    methods = list(next(iter(panels.values())))

    def line(axes: Axes, bins: Mapping[str, ArrayLike], style: Style, dash: str | tuple, most: float) -> None:
        count, confidence, accuracy = (np.array(bins[part]) for part in ("count", "confidence", "accuracy"))
        drawn = count >= max(1, _LEAST_SHARE * count.sum())
        x, y, area = confidence[drawn], accuracy[drawn], 5 + most * count[drawn] / count.sum()
        axes.plot(x, y, color=style.colour, linestyle=dash, linewidth=1.3)
        hollow = {} if dash == style.dash else {"facecolor": PAPER, "edgecolor": style.colour}
        axes.scatter(x, y, area, color=style.colour, marker=style.marker, linewidths=1 if hollow else 0, **hollow)

    def frame(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])

    if len(methods) > _MOST_LINES:
        marks = f"confidence {' (hollow) and '.join(panels)} (filled)"
        with _multiples(methods, title, marks, "accuracy", 1.75) as (figure, by_method):
            for method, axes in by_method.items():
                frame(axes)
                for number, found in enumerate(panels.values(), start=1):
                    style = look[method]
                    last = number == len(panels)
                    if method in found:
                        line(axes, found[method], style, style.dash if last else (0, (1, 1)), 40)
        return figure
    with panel(title, height=2.75, legend=look, methods=methods, columns=len(panels)) as (figure, *all_axes):
        for axes, (name, by_method) in zip(all_axes, panels.items(), strict=True):
            frame(axes)
            for method, bins in by_method.items():
                line(axes, bins, look[method], look[method].dash, 90)
            axes.set_xlabel(f"confidence {name}")
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

    def line(axes: Axes, method: str, faint: bool) -> None:
        (steps, means, deviations), style = curves[method], look[method]
        if faint:
            axes.plot(steps, means, color=LINE, linewidth=1)
            return
        means = np.asarray(means)
        axes.plot(steps, means, color=style.colour, linestyle=style.dash, linewidth=1.6)
        axes.fill_between(steps, means - deviations, means + deviations, color=style.colour, alpha=0.15, linewidth=0)

    spans = {method: (min(means), max(means)) for method, (_, means, _) in curves.items()}
    return _draw_lines(spans, look, title, "step", "training loss", line, lambda axes: None, start=0.0, markers=False)


def draw_cost(
    points: Mapping[str, tuple[float, float, float, float]],
    look: Mapping[str, Style],
    title: str,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """A line for each method: what it gains, with a bar of one standard deviation, and what it costs.

    Args:
        points: for each method the cost, the mean gain and the ends of its bar (nan for none).
        look: the style of each method.
        title: what stands above.
        xlabel, ylabel: the names of cost and gain.
    """
    spans = [(low, high) if low == low else (mean, mean) for _, mean, low, high in points.values()]
    first = next(iter(points.values()))
    costs = scale_of(((0.0, cost) for cost, *_ in points.values()), first[0])
    with _rows(list(points), title, 2) as (figure, gains, times):
        gain_ends, time_ends = scale_of(spans, first[1]), (0.0, 1.04 * costs[1])
        for place, (method, (cost, mean, low, high)) in enumerate(points.items()):
            _mark(
                gains, place, mean, [(low, high)] if low == low else [], look[method], gain_ends, True, f"{mean:.1f}"
            )
            _mark(times, place, cost, [], look[method], time_ends, True, f"{cost:.0f}")
        for axes, ends, label in ((gains, gain_ends, ylabel), (times, time_ends, xlabel)):
            axes.set_xlim(ends)
            axes.set_xlabel(label)
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
    with panel("", height=0.9 + 0.34 * depth, width=width) as (figure, axes):
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
    return ElementTree.tostring(_svg(figure, name, label, "none"), encoding="unicode")


def save_svg(figure: Figure, file: Path, label: str) -> None:
    """Write a figure as SVG that follows light and dark by itself, where a page shows it as a picture.

    It has paper of its own: a page may be light where the system is dark.
    """
    root = _svg(figure, file.stem, label, PAPER)
    style = ElementTree.Element(f"{{{_SVG}}}style")
    dark = "".join(f"--c{light[1:]}: {dark}; " for light, dark in DARK.items())
    style.text = f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
    root.insert(0, style)
    file.write_text(f"{ElementTree.tostring(root, encoding='unicode')}\n", encoding="utf-8")


def _svg(figure: Figure, name: str, label: str, paper: str) -> ElementTree.Element:
    """A figure as SVG whose colours are variables."""
    buffer = io.BytesIO()
    with rc_context({**_RC, "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor=paper, metadata=nothing)
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
    return root


@contextmanager
def panel(
    title: str,
    height: float,
    legend: Mapping[str, Style] | None = None,
    methods: Sequence[str] = (),
    columns: int = 1,
    rows: int = 1,
    width: float = _WIDTH,
    markers: bool = True,
    labels: Sequence[str] | None = None,
) -> Iterator[tuple]:
    """A figure with its axes to be filled, and a legend of the methods below them.

    Args:
        title: what stands above.
        height, width: of the figure without its legend, in inches.
        legend: the style of each method, for a legend.
        methods: that are in it.
        columns, rows: how many panels.
        markers: whether the lines have marks.
        labels: what the methods are called in the legend, if not by their names.
    """
    labels = [_wrapped(label) for label in (labels or methods)]
    across = 1 if any(len(line) > 26 for label in labels for line in label.split("\n")) else 2
    lines_of, half = [1 + label.count("\n") for label in labels], math.ceil(len(labels) / across)
    high = max(sum(lines_of[:half]), sum(lines_of[half:]))
    with rc_context(_RC):
        figure = Figure(figsize=(width, height + 0.2 * high), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(rows, columns, squeeze=False).ravel()
        yield figure, *axes
        if legend:
            handles = [
                axes[0].plot(
                    [],
                    [],
                    color=legend[method].colour,
                    marker=legend[method].marker if markers else "",
                    linestyle=legend[method].dash,
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


@contextmanager
def _rows(names: Sequence[str], title: str, columns: int) -> Iterator[tuple]:
    """A figure of panels that share rows, each with a name at the left."""
    labels = [_wrapped(name) for name in names]
    height = max(label.count("\n") + 1 for label in labels)
    longest = max(len(line) for label in labels for line in label.split("\n"))
    size = {"height": 1.1 + max(0.3, 0.1 + 0.17 * height) * len(names), "width": max(_WIDTH, 2.6 + 0.085 * longest)}
    with panel(title, **size, columns=columns) as (figure, *all_axes):
        yield figure, *all_axes
        for axes in all_axes:
            axes.set_yticks(range(len(names)), labels if axes is all_axes[0] else [""] * len(names))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)


def _mark(
    axes: Axes,
    place: int,
    value: float,
    intervals: Sequence[tuple[float, float]],
    style: Style,
    ends: tuple[float, float],
    filled: bool,
    text: str,
) -> None:
    """A mark with its intervals, the later ones thicker, in a row; arrows and the text for what is off the scale."""
    colour = style.colour
    for number, (low, high) in enumerate(intervals):
        low, high = (min(max(end, ends[0]), ends[1]) for end in (low, high))
        axes.hlines(place, low, high, colour, linewidth=3.5 if number else 1.2)
    arrow = {"color": colour, "markersize": 6, "linestyle": "none", "clip_on": False}
    if any(low < ends[0] for low, _ in intervals) or value < ends[0]:
        axes.plot(ends[0], place, marker="<", **arrow)
    if any(high > ends[1] for _, high in intervals) or value > ends[1]:
        axes.plot(ends[1], place, marker=">", **arrow)
    if ends[0] <= value <= ends[1]:
        mark = {"marker": style.marker, "markersize": 7, "markeredgewidth": 1.6, "color": colour}
        axes.plot(value, place, **mark, markerfacecolor=colour if filled else PAPER)
        return
    at, side, align = (ends[0], 8, "left") if value < ends[0] else (ends[1], -8, "right")
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
    where = {"xytext": (side, 0), "textcoords": "offset points", "ha": align, "va": "center"}
    axes.annotate(text.replace("-", "\u2212"), (at, place), **where, color=colour, fontsize=9, bbox=box)


def _draw_lines(
    spans: Mapping[str, tuple[float, float]],
    look: Mapping[str, Style],
    title: str,
    xlabel: str,
    ylabel: str,
    line: Callable[[Axes, str, bool], None],
    frame: Callable[[Axes], None],
    start: float | None,
    markers: bool = True,
) -> Figure:
    """Lines of methods: all in a panel, or where they are many a panel each, with the others in grey.

    Args:
        spans: for each method from where to where it goes; what is far beyond the others leaves the panel, and its
            name says how far it goes.
        look: the style of each method.
        title, xlabel, ylabel: what stands at the panels.
        line: draws the line of a method into a panel; the last argument is whether it is one of the others.
        frame: draws what a panel has otherwise.
        start: what is on the scale in any case.
        markers: whether the lines have marks.
    """
    methods = list(spans)
    low, high = scale_of(spans.values(), float(np.median(list(spans.values()))) if start is None else start)
    if start == 0 <= min(end for end, _ in spans.values()):
        low = 0.0
    names = [f"{method}{_beyond(spans[method], low, high)}" for method in methods]
    if len(methods) <= _MOST_LINES:
        with panel(title, height=3.2, legend=look, methods=methods, markers=markers, labels=names) as (figure, axes):
            for method in methods:
                line(axes, method, False)
            frame(axes)
            axes.set(ylim=(low, high), xlabel=xlabel, ylabel=ylabel)
        return figure
    with _multiples(methods, title, xlabel, ylabel, 1.45, names) as (figure, by_method):
        for method, axes in by_method.items():
            for other in methods:
                line(axes, other, True)
            line(axes, method, False)
            frame(axes)
            axes.set_ylim(low, high)
    return figure


def _beyond(span: tuple[float, float], low: float, high: float) -> str:
    """What is said of a line that leaves the scale."""
    ends = [f"{end:.3g}" for end, outside in zip(span, (span[0] < low, span[1] > high), strict=True) if outside]
    return f" (goes to {' and '.join(ends)})".replace("-", "\u2212") if ends else ""


@contextmanager
def _multiples(
    methods: Sequence[str], title: str, xlabel: str, ylabel: str, height: float, names: Sequence[str] = ()
) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """A figure with a small panel for each method, three in a row, which share their scales."""
    labels = ["\n".join(wrap(_wrapped(name).replace("\n", " "), 24)) for name in names or methods]
    rows = math.ceil(len(methods) / 3)
    high = 0.8 + (height + 0.14 * max(label.count("\n") for label in labels)) * rows
    with panel(title, high, columns=3, rows=rows) as (figure, *all_axes):
        by_method = dict(zip(methods, all_axes, strict=False))
        yield figure, by_method
        for number, (axes, label) in enumerate(zip(all_axes, labels, strict=False)):
            axes.set_title(label, fontsize=8.5, fontweight="normal")
            axes.tick_params(labelsize=8.5, labelleft=number % 3 == 0, labelbottom=number + 3 >= len(methods))
        for axes in all_axes[len(methods) :]:
            axes.remove()
        figure.supxlabel(xlabel, fontsize=10)
        figure.supylabel(ylabel, fontsize=10)


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
