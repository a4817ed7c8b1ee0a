"""Attention maps as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hf_mixup.attention.maps import AttentionMap

# Perceptually uniform; nothing is paper, much is ink.
COLOURS = "magma_r"
_INCHES_PER_TOKEN = 0.24
_SMALLEST_SIDE = 2.8


def save_figure(maps: Sequence[AttentionMap], title: str, file: Path) -> None:
    """Draw the maps in two columns, with one size of cells and one scale of colours for all, and save them as PNG.

    Args:
        maps: of one pair of texts, see `attention_maps`.
        title: stands above all of them.
        file: the picture.
    """
    longest, rows = max(len(each.tokens) for each in maps), (len(maps) + 1) // 2
    side = max(_SMALLEST_SIDE, _INCHES_PER_TOKEN * longest)
    figure = Figure(figsize=(2 * side + 3.6, rows * (side + 1.9) + 0.4), dpi=120, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    figure.suptitle(title, fontsize=13, fontweight="bold", parse_math=False)
    panels = figure.subplots(rows, 2, squeeze=False)
    highest = max(each.weights.max() for each in maps)
    for panel, each in zip(panels.flat, maps, strict=True):
        image = panel.imshow(each.weights, cmap=COLOURS, vmin=0, vmax=highest, interpolation="nearest")
        panel.set(xlim=(-0.5, longest - 0.5), ylim=(longest - 0.5, -0.5))
        panel.spines[:].set_visible(False)
        panel.xaxis.set_label_position("top")
        panel.set_xlabel("attended to", fontsize=9, loc="left")
        panel.set_ylabel("attends", fontsize=9, loc="top")
        panel.tick_params(length=0, labeltop=True, labelbottom=False)
        positions = range(len(each.tokens))
        # A dollar sign in a text begins no formula.
        panel.set_xticks(positions, each.tokens, rotation=90, fontsize=8, parse_math=False)
        panel.set_yticks(positions, each.tokens, fontsize=8, parse_math=False)
        panel.set_title(f"{each.title}\n{each.summary()}", fontsize=10, fontweight="bold", pad=10)
    figure.colorbar(image, ax=panels, shrink=0.5, aspect=30, label="attention (each line sums to 1)")
    with warnings.catch_warnings():
        # The page beside the picture has every script; the picture has a box for what its font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file)
