"""The figure of a comparison: how far each layer's units changed, and those that changed most, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from interpret.errors import InterpretError
from interpret.plots.style import CATEGORIES, HAIRLINE, INK, WIDTH, Figure, in_style, shorten
from interpret.plots.tiles import Cell, Names, Row, Sheet, choose
from interpret.results.comparison import Comparison

PANELS = ("units", "patches")
LINE = 0.2
"""Inches of a layer."""
MOST_PATCHES = 6


@in_style
def plot_comparison(
    result: Comparison,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Draw each layer's units by their overlap, and below them the patches of the units that changed most.

    Args:
        result: what `interpret.compare` returned.
        panels: "units", "patches"; None: both, if there are patches.
        width: of the figure, in inches.
        figsize: width and height in inches instead.
        ax: axes to draw one of them into, the first unless another is named; None: a figure of its own.
    """
    there = PANELS if result.shown_units else PANELS[:1]
    chosen = [there[place] for place in choose(panels, there, len(there) if ax is None else 1)]
    if ax is not None and len(chosen) > 1:
        raise InterpretError(f"panels names {len(chosen)} panels, and ax takes one: draw each into axes of its own")
    if ax is not None:
        return _draw_units(ax, result) if chosen == ["units"] else _sheet(result).draw(ax=ax)
    if chosen == ["patches"]:
        return _sheet(result).draw(width, figsize)
    wide = figsize[0] if figsize else width or WIDTH
    above = 0.85 + LINE * len(result.layers)
    below = _sheet(result).height(wide) if "patches" in chosen else 0.0
    figure = Figure(figsize=figsize or (wide, above + below), facecolor="white")
    total = figure.get_size_inches()[1]
    left = min(0.3 + 0.065 * max(map(len, shorten(result.layers))), 0.3 * wide)
    place = (left / wide, (below + 0.45) / total, 1 - (left + 0.15) / wide, LINE * len(result.layers) / total)
    _draw_units(figure.add_axes(place), result)
    figure.text(0.06 / wide, 1 - 0.06 / total, result.title, fontsize=9, color=INK, va="top", parse_math=False)
    if below:
        _sheet(result).draw(ax=figure.add_axes((0, 0, 1, below / total)))
    return figure


def _draw_units(axes: Axes, result: Comparison) -> Axes:
    """Draw a dot for each unit, spread where many are alike, and a bar for each layer's median."""
    for row, layer in enumerate(result.layers):
        overlap = result.overlap[layer]
        spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(overlap))
        axes.scatter(overlap, row + spread, 5, color=CATEGORIES[0], alpha=0.45, linewidths=0)
        axes.vlines(np.median(overlap), row - 0.38, row + 0.38, color=CATEGORIES[1], linewidth=1.6)
    axes.set_yticks(range(len(result.layers)), shorten(result.layers), fontsize=6.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(result.layers) - 0.5, -0.5))
    axes.set_xlabel(f"overlap of the {result.k} strongest images (bar: the layer's median)", fontsize=7)
    axes.grid(axis="x", color=HAIRLINE, linewidth=0.3, alpha=0.6)
    axes.tick_params(axis="y", length=0)
    return axes


def _sheet(result: Comparison) -> Sheet:
    """Return the units that changed most, a row each."""
    most = min(MOST_PATCHES, result.k)
    rows = []
    for place, (layer, unit) in enumerate(zip(result.shown_layers, result.shown_units, strict=True)):
        pictures = [of[str(place)][:most] for of in (result.pictures_before, result.pictures_after)]
        label = f"{layer}\nunit {unit}\noverlap {result.overlap[layer][unit]:.2f}"
        captions = (result.before, result.after) if place == len(result.shown_units) - 1 else ("", "")
        rows.append(Row([Cell(list(of), caption) for of, caption in zip(pictures, captions, strict=True)], label))
    title = "The units that changed most: before, and after"
    return Sheet(rows, 2, title, most=most)
