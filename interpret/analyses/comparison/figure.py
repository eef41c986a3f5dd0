"""Draw a comparison: the overlap of each unit, and the patches of those that changed most."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret.analyses.comparison.result import Comparison
from interpret.figures.lettering import fit, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, Size, choose, lay_out
from interpret.figures.style import in_style, look, points
from interpret.figures.tiles import Cell, Row, Tiles
from interpret.support.wording import count

ROW_HEIGHT = 0.2
"""Inches: the height of a layer's row."""
MOST_PATCHES = 6
"""Patches of a unit in each network, at most."""


@in_style
def plot_comparison(
    result: Comparison,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw the overlap of each unit by layer, and below the patches of the units that changed most.

    Args:
        result: what `interpret.compare` returned.
        panels: "units", "patches"; None: both, if it has patches.
        width, figsize, ax: as in `interpret.plot`.
    """
    drawn = {"units": _units_panel(result)}
    if result.shown_units:
        drawn["patches"] = _patches_panel(result)
    chosen = choose(panels, list(drawn), ax=ax)
    return lay_out([[drawn[name]] for name in chosen], width, figsize, ax, result.title)


def _units_panel(result: Comparison) -> Panel:
    """Return a panel with a dot for each unit and a bar for the median of each layer."""

    def draw(axes: Axes, wide: float, _: bool) -> None:
        size = look().small
        for row, layer in enumerate(result.layers):
            overlap = result.overlap[layer]
            spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(overlap))
            axes.scatter(overlap, row + spread, 5, color=look().categories[0], alpha=0.45, linewidths=0)
            axes.vlines(np.median(overlap), row - 0.38, row + 0.38, color=look().accent, linewidth=1.6)
        room = min(max(map(width_of, result.layers)), 0.3 * wide)
        axes.set_yticks(range(len(result.layers)), [fit(name, room, size) for name in result.layers], fontsize=size)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(result.layers) - 0.5, -0.5))
        label = f"overlap of the {count(result.k, 'strongest image')}: a dot a unit, a bar the layer's median"
        axes.set_xlabel(fit(label, wide - room - 0.2, points("axes.label"), lines=4))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    return Panel("units", draw, WHOLE_LINE, lambda _: (0.6 + ROW_HEIGHT * len(result.layers)) * look().scale)


def _patches_panel(result: Comparison) -> Panel:
    """Return a panel with a row for each unit: its patches before on the left, those after on the right."""
    most = min(MOST_PATCHES, result.k)
    rows = []
    for place, (layer, unit) in enumerate(zip(result.shown_layers, result.shown_units, strict=True)):
        pictures = [list(of[str(place)][:most]) for of in (result.pictures_before, result.pictures_after)]
        label = f"{layer}\nunit {unit}\noverlap {result.overlap[layer][unit]:.2f}"
        rows.append(Row([Cell(of, name) for of, name in zip(pictures, result.sides, strict=True)], label))
    return Tiles(rows, 2, most=most).panel("patches")
