"""The figure of a correspondence: Δ of each part beside its random masks, layer by layer."""

from __future__ import annotations

import numpy as np

from interpret.plots.style import ACCENT, CATEGORIES, QUIET, WIDTH, Figure, figure_grid, in_style, shorten
from interpret.results.correspondence import Correspondence

NAMES = ("this part", "random, a place of each image's own", "random, one place for all images")
COLOURS = (ACCENT, QUIET, CATEGORIES[0])
MARKERS = ("o", "s", "^")
ACROSS = 3


@in_style
def plot_correspondence(result: Correspondence) -> Figure:
    """Draw a correspondence: a panel a part, Δ ± standard error against the layers (Zeiler & Fergus 2014, Table 1)."""
    columns = min(ACROSS, len(result.parts))
    rows = -(-len(result.parts) // columns)
    long = max(map(len, shorten(result.layers))) > 6 or len(result.layers) > 8
    figure, grid = figure_grid(rows, columns, (WIDTH, 0.7 + rows * (2.3 + 0.7 * long)), sharex=True, sharey=True)
    places = np.arange(len(result.layers))
    for panel, axes in enumerate(grid.flat):
        if panel >= len(result.parts):
            axes.set_axis_off()
            continue
        for row, (name, colour, marker) in enumerate(zip(NAMES, COLOURS, MARKERS, strict=True)):
            scores, errors = (
                np.array([of[layer][row, panel] for layer in result.layers]) for of in (result.scores, result.errors)
            )
            # side by side, so that no error bar hides another
            x = places + 0.14 * (row - 1)
            axes.plot(x, scores, color=colour, linewidth=0.6, alpha=0.6)
            axes.errorbar(
                x, scores, errors, color=colour, fmt=marker, markersize=3.5, elinewidth=0.9, capsize=1.5, label=name
            )
        axes.set_title(result.parts[panel])
        axes.set_xticks(places, shorten(result.layers), rotation=60 if long else 0, ha="right" if long else "center")
        axes.tick_params(axis="x", labelbottom=True)
        axes.set(xlim=(-0.5, len(places) - 0.5), ylim=(0, None))
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.5)
        if panel % columns == 0:
            axes.set_ylabel("Δ, share of features whose\nsigns of change differ")
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    figure.suptitle(f"{result.title}: {result.images} images, ± standard error", fontsize=9)
    return figure
