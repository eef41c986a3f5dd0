"""The figure of projections: the window that each neuron sees, and its projection."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from interpret.analyses.projection.result import Projections
from interpret.figures.pictures import signals_as_pictures
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Names, Tiles, choose, in_rows

ACROSS = 3
MOST = 24


@in_style
def plot_projections(
    result: Projections,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot projections beside the windows of the image that the neurons see, with unit, value and position below.

    Args:
        result: the result of `interpret.project`.
        panels: numbers of neurons, "0" for the first; None: the first 24.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    rows = choose(panels, [str(row) for row in range(len(result.pixels))], MOST)
    pixels = result.pixels[rows].detach().cpu().float()
    projected = signals_as_pictures(pixels.numpy(), result.colours, pixels.dim() - 2)
    cells = []
    for row, picture in zip(rows, projected, strict=True):
        place = ", ".join(str(int(at)) for at in result.positions[row].tolist())
        unit = "" if result.channels is None else f"unit {int(result.channels[row])}"
        image = "" if result.images is None else f"image {int(result.images[row])}"
        caption = f"{float(result.values[row]):.4g} at ({place})\n{', '.join(filter(None, (unit, image)))}".rstrip()
        seen = [] if result.pictures is None else [result.pictures[row]]
        cells.append(Cell([*seen, picture], caption))
    note = f"The first {MOST} of {len(result.pixels):,}" if panels is None and len(result.pixels) > MOST else ""
    across = min(ACROSS, max(len(cells), 2))
    title = result.title + (f" ({result.rule})" if result.rule else "")
    return Tiles(in_rows(cells, across), across, title, note, most=2).draw(width, figsize, ax)
