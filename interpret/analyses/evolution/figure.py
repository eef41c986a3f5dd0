"""The figure of an evolution: one block of projections per layer, and the curve of the features' movement."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from interpret.analyses.evolution.result import Evolution
from interpret.figures.lettering import fit, width_of, without_overlaps
from interpret.figures.panels import WHOLE_LINE, Key, Names, Panel, Size, choose, lay_out
from interpret.figures.pictures import mosaic, signals_as_pictures
from interpret.figures.style import bare, by_depth, evenly, in_style, look, points
from interpret.support.errors import unknown
from interpret.support.wording import count

CURVE = 1.9
"""Height of the curve, in inches."""
GAP = 0.14
"""Gap between tiles, as a fraction of a tile's longer side."""


@in_style
def plot_evolution(
    result: Evolution,
    panels: Names = None,
    show: str = "projections",
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Plot an evolution: one block per layer, with units as rows and epochs as columns, and below it the movement.

    Zeiler & Fergus 2014, Fig. 4, has only the blocks.

    Args:
        result: the result of `interpret.evolve`.
        panels: names of layers, for their blocks, and "movement".
        show: "projections", or "patches" for the windows of the images.
        width, figsize, ax: as in `interpret.plot`.
    """
    if show not in ("projections", "patches"):
        raise unknown("show", show, ("projections", "patches"))
    moved = len(result.epochs) > 1
    names = [*result.layers, *(["movement"] if moved else [])]
    chosen = choose(panels, names, ax=ax, main="movement" if moved else None)
    blocks = [_block(result, layer, show) for layer in result.layers if layer in chosen]
    legend: list[Key] = []
    curve: list[Panel] = []
    if moved and "movement" in chosen:
        curve.append(Panel("movement", lambda axes, wide, _: _draw_movement(axes, result, wide), WHOLE_LINE,
                           lambda _: CURVE))  # fmt: skip
        colours = by_depth(len(result.layers))
        legend += [(Line2D([], [], color=colours[place]), result.layers[place]) for place in evenly(len(colours))]
    if any(result.jumps[panel.name].any() for panel in blocks):
        jump = Line2D([], [], color=look().accent, linewidth=1.4, ls="", marker="|", markersize=8, markeredgewidth=1.4)
        legend.append((jump, "the strongest image changed"))
    title = f"{result.title}: strongest activation of each unit over {count(result.items, 'image')}"
    return (
        lay_out([blocks, curve], width, figsize, ax, title, legend)
        if blocks
        else lay_out([curve], width, figsize, ax, result.title, legend)
    )


def _block(result: Evolution, layer: str, show: str) -> Panel:
    units, epochs, _, height, breadth = result.projections[layer].shape
    beside = 0.6 * look().scale

    def high(wide: float) -> float:
        tile = (wide - beside) / (epochs * (1 + GAP))
        return units * tile * height / breadth * (1 + GAP) + 0.55 * look().scale

    return Panel(layer, lambda axes, wide, _: _draw_block(axes, result, layer, show, wide - beside),
                 max(1.6, 0.42 + 0.34 * epochs), high)  # fmt: skip


def _draw_block(axes: Axes, result: Evolution, layer: str, show: str, wide: float) -> None:
    signals, tiles = result.projections[layer], result.patches[layer]
    if show == "projections":
        tiles = signals_as_pictures(signals, result.channels)
    picture, grid = mosaic(tiles.reshape(-1, *tiles.shape[2:]), tiles.shape[1], gap=GAP)
    down, across = grid.height + grid.gap, grid.width + grid.gap
    axes.imshow(picture, interpolation="nearest")
    bare(axes)
    for unit, epoch in np.argwhere(result.jumps[layer]).tolist():
        x = epoch * across - grid.gap / 2 - 0.5
        axes.plot([x, x], [unit * down, unit * down + grid.height - 1], color=look().accent, linewidth=1.4,
                  clip_on=False)  # fmt: skip
    places = np.arange(tiles.shape[1]) * across + grid.width / 2 - 0.5
    epochs = list(map(str, result.epochs.tolist()))
    axes.set_xticks(places, without_overlaps(epochs, places.tolist(), wide, points("xtick.label")))
    axes.set_yticks(np.arange(len(tiles)) * down + grid.height / 2 - 0.5, result.units[layer].tolist())
    axes.tick_params(length=0, pad=2)
    axes.set(xlim=(-0.5 - grid.gap, picture.shape[1] - 0.5))
    axes.set_xlabel("epoch", labelpad=1)
    axes.set_ylabel("unit", labelpad=2)
    height, width = signals.shape[-2:]
    field, size = f": receptive field {height} × {width} px", points("axes.title")
    axes.set_title(fit(layer, wide - width_of(field, size), size) + field, loc="left")


def _draw_movement(axes: Axes, result: Evolution, wide: float) -> None:
    """Draw each layer's movement as a step between consecutive kept epochs."""
    starts, ends = result.epochs[:-1], result.epochs[1:]
    logarithmic = bool(result.epochs[0] > 0 and result.epochs[-1] > 8 * result.epochs[0])
    for color, layer in zip(by_depth(len(result.layers)), result.layers, strict=True):
        moved, error = result.movement[layer] * 100, result.movement_errors[layer] * 100
        x, y = np.stack([starts, ends], 1).ravel(), moved.repeat(2)
        axes.plot(x, y, color=color, label=layer, solid_capstyle="butt")
        axes.fill_between(x, y - error.repeat(2), y + error.repeat(2), color=color, alpha=0.2, linewidth=0)
    moves = np.concatenate([result.movement[layer] for layer in result.layers])
    if np.isfinite(moves).any() and np.nanmin(moves) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leads(value) else "")
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    places = np.log(result.epochs) if logarithmic else result.epochs.astype(float)
    labels = list(map(str, result.epochs.tolist()))
    axes.set_xticks(result.epochs, without_overlaps(labels, places.tolist(), wide - 0.6, points("xtick.label")))
    axes.set(xlim=(result.epochs[0], result.epochs[-1]), xlabel="epoch")
    axes.set_ylabel("features move\n(% of their norm per epoch)")
    axes.grid(axis="y")


def _leads(value: float) -> bool:
    """Return whether a number on a logarithmic axis is 2 or 5 times a power of ten."""
    return round(value / 10 ** math.floor(math.log10(value))) in (2, 5)
