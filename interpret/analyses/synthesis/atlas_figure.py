"""The figure of an activation atlas: its images in their places on the map (Carter et al. 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from interpret.analyses.synthesis.activation_atlas import ActivationAtlas
from interpret.figures.lettering import height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, lay_out
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look
from interpret.figures.tiles import Cell, Tiles, choose, in_rows

GAP = 0.04
"""Space in inches between cells."""
SPACE = 0.08
"""Least space in inches between labels."""
SMALLEST = 0.55
"""The side of the image of a single activation, as a share of that of the most."""
ACROSS = 6


@in_style
def plot_atlas(
    result: ActivationAtlas,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot images in their places on the map, larger for more activations.

    Args:
        result: the result of `interpret.map_activations`.
        panels: numbers of cells, "0" for the first, to be drawn side by side; None: the map.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    if panels is None:
        return lay_out([[_map(result)]], width, figsize, ax, result.title)
    rows = choose(panels, [str(row) for row in range(len(result.cells))], len(result.cells))
    cells = [Cell([result.pictures[row]], _caption(result, row)) for row in rows]
    return Tiles(in_rows(cells, ACROSS), max(2, min(ACROSS, len(cells))), "Cells of an activation atlas").draw(
        width, figsize, ax
    )


def _caption(result: ActivationAtlas, row: int) -> str:
    y, x = result.cells[row].tolist()
    label = f", {result.labels[row]} {result.label_shares[row]:.0%}" if result.labels[row] else ""
    return f"row {y}, column {x}\n{result.counts[row]} activations{label}"


def _map(result: ActivationAtlas) -> Panel:
    rows, columns = result.grid
    named = any(result.labels)

    def sides(width: float) -> tuple[float, float]:
        """Return the side of a cell, and the height of the line below."""
        return (width - (columns - 1) * GAP) / columns, height_of("name") if named else 0.0

    def height(width: float) -> float:
        side, line = sides(width)
        return rows * (side + line + GAP)

    def draw(axes: Axes, width: float, _: Any) -> None:
        sheet = Sheet(axes, width, height(width))
        side, line = sides(width)
        shares = np.sqrt(result.counts / max(int(result.counts.max(initial=1)), 1))
        for (y, x), picture, share in zip(result.cells.tolist(), result.pictures, shares.tolist(), strict=True):
            own = side * (SMALLEST + (1 - SMALLEST) * share)
            left, top = x * (side + GAP), y * (side + line + GAP)
            inset = (side - own) / 2
            sheet.picture(left + inset, top + inset, own, own * picture.shape[0] / picture.shape[1], picture)
        for row, left in labels_that_fit(result, side, width):
            top = int(result.cells[row][0]) * (side + line + GAP)
            sheet.write(left, top + side, result.labels[row], color=look().quiet)

    return Panel("", draw, WHOLE_LINE, height)


def labels_that_fit(result: ActivationAtlas, side: float, width: float) -> list[tuple[int, float]]:
    """Return the cells that are labelled, and the left end in inches of each label, which is written in full.

    Each class is written once, below the cell with the most images that are predicted as it. Labels are as wide as they
    need to be, and those of cells with more such images come first; one that would touch another is left out.
    """
    found: list[tuple[int, float]] = []
    taken: dict[int, list[tuple[float, float]]] = {}
    named: set[str] = set()
    for row in np.argsort(-result.counts * result.label_shares, kind="stable").tolist():
        label, (y, x) = result.labels[row], result.cells[row].tolist()
        if not label or label in named:
            continue
        named.add(label)
        wide = width_of(label)
        left = min(max(x * (side + GAP) + (side - wide) / 2, 0), width - wide)
        others = taken.setdefault(y, [])
        if left >= 0 and all(left + wide + SPACE <= start or end + SPACE <= left for start, end in others):
            others.append((left, left + wide))
            found.append((row, left))
    return found
