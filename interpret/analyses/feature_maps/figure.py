"""Draw feature maps: the image, and below it the maps of each layer."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interpret.analyses.feature_maps.result import FeatureMaps
from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, Size, choose, lay_out
from interpret.figures.pictures import mosaic
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look, points
from interpret.support.errors import InterpretError

MOST_BLOCK_HEIGHT = 1.5
"""Inches: the approximate greatest height of a layer's maps together."""
COLOUR_MAP = "RdBu_r"
"""White is zero, red above, blue below; colour-blind readers can tell them apart."""
SHARE_WITHIN_SCALE = 0.999
"""The share of a layer's activations within the colour scale; a scale up to the largest would leave most pale."""
GAP_GREY = 200
"""The grey value of the lines between maps; maps may be white."""
BAR_WIDTH, BAR_GAP = 0.09, 0.07
"""Inches: the width of the colour bar, and its distance to the maps and to its numbers."""


@in_style
def plot_feature_maps(
    result: FeatureMaps,
    panels: Names = None,
    most: int = 64,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw feature maps layer by layer, from the image down to the last layer.

    A layer's maps share one colour scale, so that weak units look weak: scaled one by one, noise would look like edges.
    White is zero, and the deepest colour is the value that 99.9 % of the magnitudes drawn do not exceed; the colour bar
    ends in a point where some magnitudes exceed it.

    Args:
        result: what `interpret.feature_maps` returned.
        panels: "input" and layers, by name.
        most: at most this many maps of a layer, the first ones, and four times as many units of a layer without
            positions; the title of the layer names what is left out.
        width, figsize, ax: as in `interpret.plot`.
    """
    if most < 1:
        raise InterpretError(f"most must be at least 1 unit, not {most}")
    chosen = choose(panels, ["input", *result.maps], ax=ax, main=next(iter(result.maps), None))
    drawn = [_input(result)] if "input" in chosen else []
    drawn += [_layer(result, layer, most) for layer in result.maps if layer in chosen]
    return lay_out([[panel] for panel in drawn], width, figsize, ax, result.title)


def _input(result: FeatureMaps) -> Panel:
    height, width = result.picture.shape[:2]
    head = height_of("input", points("axes.title"))

    def draw(axes: Axes, wide: float, _: bool) -> None:
        tall = min(1.0, wide * height / width)
        sheet = Sheet(axes, wide, tall + head)
        across = tall * width / height
        sheet.write(wide / 2, 0, "input", points("axes.title"), ha="center")
        sheet.picture((wide - across) / 2, head, across, tall, result.picture)

    return Panel("input", draw, WHOLE_LINE, lambda wide: min(1.0, wide * height / width) + head)


def _layer(result: FeatureMaps, layer: str, most: int) -> Panel:
    maps = result.maps[layer][: _most(result.maps[layer], most)]

    def heading(wide: float) -> str:
        return fit(_title(result, layer, most), wide, points("axes.title"), lines=2)

    def height(wide: float) -> float:
        return _Block(maps, wide - _scale_width()).height + height_of(heading(wide), points("axes.title")) + 0.06

    def draw(axes: Axes, wide: float, _: bool) -> None:
        block = _Block(maps, wide - _scale_width())
        head = height_of(heading(wide), points("axes.title"))
        sheet = Sheet(axes, wide, head + block.height)
        sheet.write(0, 0, heading(wide), points("axes.title"))
        sheet.picture(0, head, block.width, block.height, block.picture)
        _draw_scale(sheet, block, head)

    return Panel(layer, draw, WHOLE_LINE, height)


def _scale_width() -> float:
    """Return the width of a colour bar with its numbers, in inches."""
    return 2 * BAR_GAP + BAR_WIDTH + width_of("−0.0123")


def _draw_scale(sheet: Sheet, block: _Block, top: float) -> None:
    """Draw the colour bar at the right of a block, with numbers at its ends."""
    bar = sheet.axes.inset_axes(
        (block.width + BAR_GAP, top, BAR_WIDTH, block.height), transform=sheet.axes.transData, zorder=3
    )
    shades = ScalarMappable(Normalize(block.low, block.high), block.colours)
    drawn = bar.get_figure(root=True).colorbar(shades, cax=bar, extend=block.extend)  # type: ignore[union-attr]
    drawn.outline.set(linewidth=0.4, edgecolor=look().hairline)
    line = height_of("0")
    ticks = [block.low, block.high, *([0.0] if block.low < 0 and block.height > 3 * line else [])]
    if block.height < 2 * line:
        # a strip is high enough for one number only
        drawn.set_ticks([])
        ends = f"±{block.high:.3g}" if block.low < 0 else f"0 … {block.high:.3g}"
        sheet.write(block.width + 2 * BAR_GAP + BAR_WIDTH, top + block.height / 2, ends, va="center")
        return
    drawn.set_ticks(sorted(set(ticks)), labels=[f"{value:.3g}".replace("-", "−") for value in sorted(set(ticks))])
    bar.tick_params(length=2, labelsize=look().small, pad=2)
    # the numbers at the ends lie within the bar's height
    words = bar.get_yticklabels()
    words[0].set_verticalalignment("bottom")
    words[-1].set_verticalalignment("top")


class _Block:
    """A layer's maps as one picture of a given width, in inches."""

    def __init__(self, maps: NDArray[np.float32], width: float) -> None:
        self.flat = _is_flat(maps)
        tiles = maps.reshape(-1, 1, 1) if self.flat else maps
        magnitudes = np.abs(maps)
        largest = float(magnitudes.max())
        self.high = float(np.quantile(magnitudes, SHARE_WITHIN_SCALE, method="higher")) or largest or 1.0
        self.low = -self.high if maps.min() < 0 else 0.0
        self.extend = "neither" if largest <= self.high else "both" if self.low < 0 else "max"
        self.colours: Colormap = matplotlib.colormaps[COLOUR_MAP]
        if self.low == 0:
            self.colours = ListedColormap(self.colours(np.linspace(0.5, 1, 256)))
        count, height, breadth = tiles.shape
        self.columns = _columns(count, height / breadth, self.flat, width)
        shades = self.colours((tiles - self.low) / (self.high - self.low))
        colours = np.rint(shades[..., :3] * 255).astype(np.uint8)
        self.picture, _ = mosaic(colours, self.columns, gap=0.04, between=GAP_GREY)
        self.width = width
        self.height = width * self.picture.shape[0] / self.picture.shape[1]


def _most(maps: NDArray[np.float32], most: int) -> int:
    return 4 * most if _is_flat(maps) else most


def _is_flat(maps: NDArray[np.float32]) -> bool:
    """Whether a layer has no positions, or a single one."""
    return maps.ndim == 1 or maps.shape[1:] == (1, 1)


def _columns(count: int, ratio: float, flat: bool, width: float) -> int:
    """Return the number of maps per row, so that the block of a given width does not get too high.

    >>> _columns(20, 1, False, 6.4), _columns(64, 1, False, 6.4), _columns(10, 1, True, 6.4)
    (10, 16, 32)
    """
    if flat:
        return 32 if count <= 32 or width < 4 else 64
    least = math.ceil(math.sqrt(count * ratio * width / MOST_BLOCK_HEIGHT))
    rows = -(-count // min(count, least))
    return max(-(-count // rows), 6)


def _title(result: FeatureMaps, layer: str, most: int) -> str:
    maps = result.maps[layer]
    size = "" if _is_flat(maps) else f", {maps.shape[1]} × {maps.shape[2]}"
    kept = f", the first {_most(maps, most)}" if len(maps) > _most(maps, most) else ""
    units = "units" if _is_flat(maps) else "maps"
    return f"{layer} ({result.kinds[layer]}): {len(maps)} {units}{size}{kept}"
