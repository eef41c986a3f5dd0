"""The figure of inversions: one row an image, one column a layer (Mahendran & Vedaldi 2015, figure 6)."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from interpret.analyses.synthesis.inversions import Inversions
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Names, Row, Tiles, choose

MOST = 12


@in_style
def plot_inversions(
    result: Inversions,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot images, and beside each what its features in each layer are inverted to.

    Args:
        result: the result of `interpret.invert`.
        panels: numbers of images, "0" for the first; None: the first 12.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    rows = choose(panels, [str(row) for row in range(len(result.originals))], MOST)
    lines = []
    for row in rows:
        cells = [Cell([result.originals[row]], "image")]
        for place, layer in enumerate(result.layers):
            cells.append(Cell([result.pictures[place, row]], f"{layer}\n{result.errors[place, row]:.2g}"))
        lines.append(Row(cells, str(row)))
    note = "Below each: layer, and the squared distance of its features as a share of their squares"
    return Tiles(lines, len(result.layers) + 1, result.title, note).draw(width, figsize, ax)
