"""Attention maps as a web page of its own: tables that can be read without colours, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from jinja2 import Environment
from matplotlib.colors import Colormap, to_hex

from hf_mixup.attention.figure import COLOURS
from hf_mixup.attention.maps import AttentionMap

_LEVELS = 50
_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { --paper: #ffffff; --ink: #1b1b1f; --soft: #5a5a66; --line: #d4d4dc; }
body { margin: 0 auto; padding: 1.5rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
.maps { display: flex; flex-wrap: wrap; gap: 2rem; }
.map { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .75rem; }
caption { text-align: left; font-size: .95rem; padding-bottom: .5rem; }
caption strong { display: block; }
th { font-weight: 400; white-space: nowrap; }
thead th { vertical-align: bottom; padding: .2rem 0; }
thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
tbody th { text-align: right; padding: 0 .4rem; position: sticky; left: 0; background: var(--paper); }
tbody tr:hover th { font-weight: 700; }
td { width: 1.7rem; min-width: 1.7rem; height: 1.7rem; padding: 0; text-align: center; font-size: .62rem;
  border: 1px solid var(--paper); }
body:not(:has(#numbers:checked)) td:not(:hover) { color: transparent; }
.scale { display: flex; align-items: center; gap: .5rem; margin: 1rem 0; color: var(--soft); }
.bar { display: flex; width: 20rem; max-width: 50vw; height: 1rem; border: 1px solid var(--line); }
.bar i { flex: 1; }
{% for level in light %}.a{{ loop.index0 }} { background: {{ level[0] }}; color: {{ level[1] }}; }
{% endfor %}
@media (prefers-color-scheme: dark) {
:root { --paper: #15141a; --ink: #ececf1; --soft: #a9a9b6; --line: #3d3c46; }
{% for level in dark %}.a{{ loop.index0 }} { background: {{ level[0] }}; color: {{ level[1] }}; }
{% endfor %}
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<dl>
{% for name, value in facts.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>
<p>Each line shows where the token at its left attends to; it sums to 1. A token of a mixed row names both texts'
tokens at that place.</p>
<div class="scale"><span>0</span><span class="bar" role="img"
aria-label="Scale of colours, from 0 to {{ '%.2f' % highest }}">{% for level in light %}\
<i class="a{{ loop.index0 }}"></i>{% endfor %}</span><span>{{ '%.2f' % highest }}</span></div>
<p><label><input type="checkbox" id="numbers"> Show the numbers</label></p>
<main class="maps">
{% for map in maps %}<div class="map" role="region" aria-label="{{ map.title }}" tabindex="0"><table>
<caption><strong>{{ map.title }}</strong> {{ map.summary() }}</caption>
<thead><tr><td></td>{% for token in map.tokens %}<th scope="col"><span>{{ token }}</span></th>{% endfor %}</tr></thead>
<tbody>
{% for token in map.tokens %}{% set line = map.weights[loop.index0] %}<tr><th scope="row">{{ token }}</th>\
{% for weight in line %}<td class="a{{ (levels * weight / highest) | round | int }}">{{ '%.2f' % weight }}</td>\
{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% endfor %}</main>
</body>
</html>
"""


def page(maps: Sequence[AttentionMap], title: str, facts: dict[str, str]) -> str:
    """The maps as HTML that needs nothing else: no network, no script, no picture.

    Args:
        maps: of one pair of texts, see `attention_maps`.
        title: the heading.
        facts: what the maps were made of, by name.
    """
    ink = matplotlib.colormaps[COLOURS]
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(
        maps=maps,
        title=title,
        facts=facts,
        levels=_LEVELS,
        highest=max(float(each.weights.max()) for each in maps),
        light=_levels(ink),
        dark=_levels(ink.reversed()),
    )


def _levels(colours: Colormap) -> list[tuple[str, str]]:
    """The colour of each level, and black or white to be read on it."""
    colours = [colours(level / _LEVELS)[:3] for level in range(_LEVELS + 1)]
    return [(to_hex(colour), "#000000" if _luminance(colour) > 0.18 else "#ffffff") for colour in colours]


def _luminance(colour: tuple[float, float, float]) -> float:
    """The relative luminance of WCAG 2; on colours above 0.18 black has the larger contrast, below it white."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
