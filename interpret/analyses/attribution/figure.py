"""Draw an attribution: each image beside its map."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from interpret.analyses.attribution.result import Attribution
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Names, Tiles, choose, in_rows

IMAGES_PER_ROW = 3
MOST_IMAGES = 24
COLOUR_MAP = "RdBu_r"


@in_style
def plot_attribution(
    result: Attribution,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Draw images beside their maps: red speaks for the target named below, blue against it.

    Args:
        result: what `interpret.attribute` returned.
        panels: images by number, "0" the first; None: the first 24.
        width: of the figure, in inches.
        figsize: width and height in inches instead.
        ax: axes to draw into; None: a figure of its own.
    """
    rows = choose(panels, [str(row) for row in range(len(result.maps))], MOST_IMAGES)
    cells = []
    for row, signal in zip(rows, result.maps[rows].detach().cpu().float().numpy().sum(1), strict=True):
        name = f"target {int(result.channels[row])}" if result.target_names is None else result.target_names[row]
        seen = [] if result.pictures is None else [result.pictures[row]]
        cells.append(Cell([*seen, _coloured(signal)], f"{name}\nscore {float(result.scores[row]):.4g}"))
    note = (
        f"The first {MOST_IMAGES} of {len(result.maps):,}" if panels is None and len(result.maps) > MOST_IMAGES else ""
    )
    across = min(IMAGES_PER_ROW, max(len(cells), 2))
    return Tiles(in_rows(cells, across), across, result.title, note, most=2).draw(width, figsize, ax)


def _coloured(signal: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a map [H, W] in colours: white is zero, the deepest the 99th percentile of its magnitude."""
    from interpret.analyses.attribution.similarity import scaled

    colours = matplotlib.colormaps[COLOUR_MAP](scaled(signal) / 2 + 0.5)
    return np.rint(colours[..., :3] * 255).astype(np.uint8)
