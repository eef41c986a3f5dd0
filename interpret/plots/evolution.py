"""The figure of an evolution: blocks of projections, a layer each, and the curve of how far features still move."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray

from interpret.errors import unknown
from interpret.plots.pictures import mosaic, signals_as_pictures
from interpret.plots.style import ACCENT, QUIET, WIDTH, Figure, by_depth, in_style, shorten
from interpret.results.evolution import Evolution

BLOCKS_ACROSS = 2
CURVE = 2.1
"""Inches that the curve is high."""


@in_style
def plot_evolution(result: Evolution, show: str = "projections") -> Figure:
    """Draw an evolution: rows of units, columns of epochs, one block a layer, and below the features' movement.

    Zeiler & Fergus 2014, Fig. 4, has the blocks alone.

    Args:
        result: what `interpret.evolve` returned.
        show: "projections", or "patches" for the images' windows that they come from.
    """
    if show not in ("projections", "patches"):
        raise unknown("show", show, ("projections", "patches"))
    moved = len(result.epochs) > 1
    across = min(BLOCKS_ACROSS, len(result.layers))
    lines = [result.layers[start : start + across] for start in range(0, len(result.layers), across)]
    width = WIDTH / across
    heights = [max(_height(result, layer, width) for layer in line) for line in lines]
    legend = moved * 0.17 * -(-(len(result.layers) + 1) // _legend_columns(result))
    size = WIDTH, 0.35 + sum(heights) + moved * CURVE + legend
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(lines) + moved, across, height_ratios=[*heights, *([CURVE] if moved else [])])
    for row, line in enumerate(lines):
        for column, layer in enumerate(line):
            _draw_block(figure.add_subplot(grid[row, column]), result, layer, show)
    if moved:
        _draw_movement(figure.add_subplot(grid[len(lines), :]), result)
    figure.suptitle(f"{result.title}: strongest activation of each unit over {result.items:,} images", fontsize=9)
    return figure


def _height(result: Evolution, layer: str, width: float) -> float:
    """Return the inches that a layer's block needs at a width."""
    units, epochs, _, height, breadth = result.projections[layer].shape
    tile = (width - 0.55) / epochs
    return units * tile * height / breadth + 0.55


def _draw_block(axes: Axes, result: Evolution, layer: str, show: str) -> None:
    signals, tiles = result.projections[layer], result.patches[layer]
    if show == "projections":
        tiles = signals_as_pictures(signals, result.channels)
    picture, down, across = mosaic(tiles, gap=0.14)
    axes.imshow(picture, interpolation="nearest")
    tile_height, tile_width = _tile(picture.shape[0], down, len(tiles)), _tile(picture.shape[1], across, tiles.shape[1])
    for unit, epoch in np.argwhere(result.jumps[layer]).tolist():
        x = epoch * across - (across - tile_width) / 2 - 0.5
        axes.plot([x, x], [unit * down, unit * down + tile_height - 1], color=ACCENT, linewidth=1.4, clip_on=False)
    axes.set_xticks(np.arange(tiles.shape[1]) * across + tile_width / 2 - 0.5, result.epochs.tolist())
    axes.set_yticks(np.arange(len(tiles)) * down + tile_height / 2 - 0.5, result.units[layer].tolist())
    axes.tick_params(length=0, pad=2)
    axes.set(xlim=(-0.5 - (across - tile_width), picture.shape[1] - 0.5))
    axes.spines[:].set_visible(False)
    axes.set_xlabel("epoch", labelpad=1)
    axes.set_ylabel("unit", labelpad=2)
    height, width = signals.shape[-2:]
    axes.set_title(f"{shorten([layer])[0]}: sees {height} × {width} px", fontsize=8, loc="left")


def _tile(length: int, pitch: int, count: int) -> int:
    """Return the side of one of the tiles that lie a pitch apart in a length."""
    return length - (count - 1) * pitch


def _draw_movement(axes: Axes, result: Evolution) -> None:
    """Draw each layer's movement as a step from one kept epoch to the next."""
    starts, ends = result.epochs[:-1], result.epochs[1:]
    logarithmic = result.epochs[0] > 0 and result.epochs[-1] > 8 * result.epochs[0]
    for color, name, layer in zip(by_depth(len(result.layers)), shorten(result.layers), result.layers, strict=True):
        moved, error = result.movement[layer] * 100, result.movement_errors[layer] * 100
        x, y = np.stack([starts, ends], 1).ravel(), moved.repeat(2)
        axes.plot(x, y, color=color, label=name, solid_capstyle="butt")
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
    room = _far_apart(np.log(result.epochs) if logarithmic else result.epochs.astype(float))
    labels = [str(epoch) if has else "" for epoch, has in zip(result.epochs.tolist(), room.tolist(), strict=True)]
    axes.set_xticks(result.epochs, labels)
    axes.set(xlim=(result.epochs[0], result.epochs[-1]), xlabel="epoch")
    axes.set_ylabel("features move\n(% of their norm per epoch)")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.5)
    jump = Line2D([], [], color=ACCENT, linewidth=1.4, label="above: the strongest image changed")
    handles, _ = axes.get_legend_handles_labels()
    # outside of the axes, where it hides no curve
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.legend(handles=[*handles, jump], loc="outside lower center", labelcolor=QUIET, ncols=_legend_columns(result))


def _legend_columns(result: Evolution) -> int:
    return 5 if max(map(len, result.layers)) < 12 else 4


def _far_apart(places: NDArray[np.float64], least: float = 0.025) -> NDArray[np.bool_]:
    """Return which labels at ascending places have room, each at least a share of the whole away from the one before.

    >>> _far_apart(np.array([0.0, 50.0, 51.0, 100.0]))
    array([ True,  True, False,  True])
    """
    kept = np.zeros(len(places), bool)
    last = -np.inf
    for number, place in enumerate((places - places[0]) / (places[-1] - places[0])):
        if place - last >= least:
            kept[number], last = True, place
    return kept


def _leads(value: float) -> bool:
    """Whether a number on a logarithmic axis is 2 or 5 times a power of ten."""
    return round(value / 10 ** math.floor(math.log10(value))) in (2, 5)
