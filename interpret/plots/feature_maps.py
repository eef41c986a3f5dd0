"""The figure of feature maps: one image, and below it every layer's maps of it."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from numpy.typing import NDArray

from interpret.errors import InterpretError
from interpret.plots.pictures import mosaic
from interpret.plots.style import HAIRLINE, WIDTH, Figure, in_style, show
from interpret.results.feature_maps import FeatureMaps

TALLEST = 1.5
"""Inches that a layer's block may be high, roughly."""
COLOURS = "RdBu_r"
"""White is zero, red above, blue below; told apart by colour-blind readers, too."""
CLIPPED = 0.999
"""The share of a layer's activations within the scale: by the one largest, most others would be pale."""
BETWEEN = 200
"""The grey of the lines between maps, which may be white."""


@in_style
def plot_feature_maps(result: FeatureMaps, most: int = 64) -> Figure:
    """Draw feature maps layer by layer, from the image down to the last layer.

    A layer's maps share one colour scale, in which white is zero and the deepest colour what 99.9 % of the magnitudes
    drawn do not exceed (the scale is pointed where some do): so a reader sees which units answer; scaled one by one, a
    map of noise would look like one of edges.

    Args:
        result: what `interpret.feature_maps` returned.
        most: how many maps of a layer at most, the first ones, and four times as many units of one without positions;
            what is left out is said.
    """
    if most < 1:
        raise InterpretError(f"most must be at least 1 unit, not {most}")
    blocks = {layer: _Block(maps[: _most(maps, most)]) for layer, maps in result.maps.items()}
    heights = [1.1, *(block.height for block in blocks.values())]
    figure = Figure(figsize=(WIDTH, 0.4 + sum(heights) + 0.34 * len(blocks)), facecolor="white")
    figure.set_layout_engine("constrained", hspace=0.02, h_pad=0.02)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    show(figure.add_subplot(grid[0]), result.picture, "input")
    for row, (layer, block) in enumerate(blocks.items(), 1):
        axes = figure.add_subplot(grid[row])
        _draw(axes, block)
        axes.set_title(_title(result, layer, most), fontsize=7.5, loc="left")
        shades = ScalarMappable(Normalize(block.low, block.high), block.colours)
        bar = figure.colorbar(
            shades, ax=axes, fraction=0.02, pad=0.01, aspect=max(1.2, 8 * block.height), extend=block.extend
        )
        bar.outline.set(linewidth=0.4, edgecolor=HAIRLINE)
        # beside a strip there is room for the ends alone
        ticks = sorted({block.low, block.high, *([0.0] if block.height > 0.5 else [])})
        bar.set_ticks(ticks, labels=[f"{value:.3g}".replace("-", "−") for value in ticks])
        bar.ax.tick_params(length=2, labelsize=6)
    figure.suptitle(result.title, fontsize=9)
    return figure


class _Block:
    """A layer's maps, laid out."""

    def __init__(self, maps: NDArray[np.float32]) -> None:
        self.flat = _is_flat(maps)
        tiles = maps.reshape(-1, 1, 1) if self.flat else maps
        magnitudes = np.abs(maps)
        largest = float(magnitudes.max())
        self.high = float(np.quantile(magnitudes, CLIPPED, method="higher")) or largest or 1.0
        self.low = -self.high if maps.min() < 0 else 0.0
        self.extend = "neither" if largest <= self.high else "both" if self.low < 0 else "max"
        self.colours: Colormap = matplotlib.colormaps[COLOURS]
        if self.low == 0:
            self.colours = ListedColormap(self.colours(np.linspace(0.5, 1, 256)))
        count, height, width = tiles.shape
        self.columns = _columns(count, height / width, self.flat)
        rows = -(-count // self.columns)
        colours = np.full((rows * self.columns, height, width, 3), 255, np.uint8)
        shades = self.colours((tiles - self.low) / (self.high - self.low))
        colours[:count] = np.rint(shades[..., :3] * 255)
        grid = colours.reshape(rows, self.columns, height, width, 3)
        self.picture, down, across = mosaic(grid, gap=0.04, between=BETWEEN)
        empty = rows * self.columns - count
        if empty:
            self.picture[(rows - 1) * down :, (self.columns - empty) * across :] = 255
        # of the width that the colour bar leaves
        self.height = (WIDTH - 0.8) * self.picture.shape[0] / self.picture.shape[1]


def _most(maps: NDArray[np.float32], most: int) -> int:
    return 4 * most if _is_flat(maps) else most


def _is_flat(maps: NDArray[np.float32]) -> bool:
    """Whether a layer has no positions, or a single one."""
    return maps.ndim == 1 or maps.shape[1:] == (1, 1)


def _columns(count: int, ratio: float, flat: bool) -> int:
    """Return how many maps of a ratio of height to width stand in a row, so that a block is not too high.

    >>> _columns(20, 1, False), _columns(64, 1, False), _columns(10, 1, True)
    (10, 16, 32)
    """
    if flat:
        return 32 if count <= 32 else 64
    least = math.ceil(math.sqrt(count * ratio * (WIDTH - 0.8) / TALLEST))
    rows = -(-count // min(count, least))
    return max(-(-count // rows), 6)


def _draw(axes: Axes, block: _Block) -> None:
    show(axes, block.picture)
    axes.set_anchor("W")


def _title(result: FeatureMaps, layer: str, most: int) -> str:
    maps = result.maps[layer]
    size = "" if _is_flat(maps) else f", {maps.shape[1]} × {maps.shape[2]}"
    kept = f", the first {_most(maps, most)}" if len(maps) > _most(maps, most) else ""
    units = "units" if _is_flat(maps) else "maps"
    return f"{layer} ({result.kinds[layer]}): {len(maps)} {units}{size}{kept}"
