"""The figure of a trace: what each layer costs, and how much of the image it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from interpret.errors import InterpretError
from interpret.plots.style import CATEGORIES, HAIRLINE, WIDTH, figure_grid, in_style, shorten
from interpret.plots.tiles import Names, choose

if TYPE_CHECKING:
    from interpret.tracing import Trace

MOST = 80
"""Layers in a figure."""


@in_style
def plot_trace(
    result: Trace,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Draw each layer's multiply-accumulates, parameters and receptive field, in the order in which they run.

    Layers that hold others, and those that cost nothing and see as much as the one before, are left out.

    Args:
        result: what `interpret.trace` returned.
        panels: "operations", "parameters", "receptive field"; None: all.
        width: of the figure, in inches.
        figsize: width and height in inches instead.
        ax: axes to draw one of them into, the first unless another is named; None: a figure of its own.
    """
    costly = [layer for layer in result.values() if layer.leaf and (layer.macs or layer.params)] or [*result.values()]
    layers = costly[:MOST]
    rows = np.arange(len(layers))
    side = min(result.input_shape[1:])
    seen = [side if layer.receptive_field is None else min(*layer.receptive_field.size, side) for layer in layers]
    drawn = {
        "operations": ("multiply-accumulates (millions)", [layer.macs / 1e6 for layer in layers], CATEGORIES[0]),
        "parameters": ("parameters (thousands)", [layer.params / 1e3 for layer in layers], CATEGORIES[1]),
        "receptive field": (f"receptive field (pixels of {side})", seen, CATEGORIES[2]),
    }
    chosen = [list(drawn)[place] for place in choose(panels, list(drawn), len(drawn) if ax is None else 1)]
    if ax is not None and len(chosen) > 1:
        raise InterpretError(f"panels names {len(chosen)} panels, and ax takes one: draw each into axes of its own")
    size = figsize or (width or WIDTH, 0.75 + 0.14 * len(layers))
    figure, grid = figure_grid(1, len(chosen), size, sharey=True) if ax is None else (None, np.array([[ax]]))
    for axes, name in zip(grid[0], chosen, strict=True):
        label, values, colour = drawn[name]
        axes.barh(rows, values, 0.72, color=colour)
        axes.set_xlabel(label, fontsize=7)
        axes.grid(axis="x", color=HAIRLINE, linewidth=0.3, alpha=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    grid[0, 0].set_yticks(rows, shorten([layer.name for layer in layers]), fontsize=6)
    grid[0, 0].set_ylim(len(layers) - 0.4, -0.6)
    if figure is None:
        return ax
    shape = " × ".join(map(str, result.input_shape))
    left_out = len(costly) - len(layers)
    cut = f", the first {MOST} of {len(costly)}" if left_out > 0 else ""
    figure.suptitle(f"{result.title} on {shape} pixels{cut}", fontsize=9)
    return figure
