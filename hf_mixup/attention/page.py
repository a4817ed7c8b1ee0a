"""Attention maps as a web page of its own: tables that can be read without colours, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from jinja2 import Environment
from matplotlib.colors import Colormap, to_hex

from hf_mixup.attention.figure import COLOURS
from hf_mixup.attention.maps import AttentionMap
from hf_mixup.shown import visible

_LEVELS = 50
_TEMPLATE = Path(__file__).parent / "templates" / "attention.html"


def page(maps: Sequence[AttentionMap], title: str, facts: dict[str, str]) -> str:
    """The maps as HTML that needs nothing else: no network, no script, no picture.

    Args:
        maps: of one pair of texts, see `attention_maps`.
        title: the heading.
        facts: what the maps were made of, by name.
    """
    ink = matplotlib.colormaps[COLOURS]
    template = Environment(autoescape=True, finalize=_visible_text).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        maps=maps,
        title=title,
        facts=facts,
        levels=_LEVELS,
        highest=max(float(each.weights.max()) for each in maps),
        light=_levels(ink),
        dark=_levels(ink.reversed()),
    )


def _visible_text(value: object) -> object:
    """What the template writes: texts with every character seen."""
    return visible(value) if isinstance(value, str) else value


def _levels(colours: Colormap) -> list[tuple[str, str]]:
    """The colour of each level, and black or white to be read on it."""
    colours = [colours(level / _LEVELS)[:3] for level in range(_LEVELS + 1)]
    return [(to_hex(colour), "#000000" if _luminance(colour) > 0.18 else "#ffffff") for colour in colours]


def _luminance(colour: tuple[float, float, float]) -> float:
    """The relative luminance of WCAG 2; on colours above 0.18 black has the larger contrast, below it white."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
