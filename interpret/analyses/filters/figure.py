"""The figure of a layer's kernels, in the manner of figure 3 of the AlexNet paper."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from interpret.analyses.filters.compute import Kernels, Scale, find_kernels
from interpret.analyses.filters.sheet import FilterTiles, arrange_tiles
from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Panel, lay_out, width_in_inches
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look, points
from interpret.network.model import Model, as_model

MOST_HEIGHT, LEAST_WIDTH = 9.6, 4.0
"""Size limits of the whole figure in inches, if no size is given."""
LARGEST_TILE = 1.1
"""Largest longer side of a kernel, in inches."""


@overload
def plot_filters(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 24,
    numbers: bool = False,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: None = None,
) -> Figure: ...


@overload
def plot_filters(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 24,
    numbers: bool = False,
    *,
    ax: Axes,
) -> Axes: ...


def plot_filters(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 24,
    numbers: bool = False,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Plot a layer's kernels as in figure 3 of the AlexNet paper.

    >>> figure = plot_filters(nn.Sequential(nn.Conv2d(3, 64, 11)))
    >>> len(figure.axes[0].images)
    64
    >>> figure.savefig("filters.pdf")  # doctest: +SKIP

    Colour kernels and kernels with one input channel are drawn in a grid, row by row in the order of the units. Kernels
    with more input channels are drawn as a table of grey slices, with one row per unit and one column per input
    channel. Missing connections, as in LeNet-5's C3, are hatched.

    Args:
        model: the network.
        layer: a convolution, or a linear layer that reads the pixels; None: the first convolution.
        scale: "filter": divide each filter by its own largest weight; "shared": divide all by the layer's largest.
        channel: the only input channel to show of each filter; None: all.
        limit: largest number of rows and of columns in a table of slices; the figure says what is left out.
        numbers: whether to print each unit's number in the grid; a table always has them.
        width, figsize, ax: as in `interpret.plot`; without any of them, the figure is up to 7.2 inches wide.

    Returns:
        A matplotlib figure, or `ax` if you pass it. Save a figure with `figure.savefig(path)`.

    Raises:
        InterpretError: as `filter_images`; a limit below 1.
    """
    model = as_model(model)
    kernels = find_kernels(model, layer)
    return _figure(
        kernels, arrange_tiles(kernels, scale, channel, limit), scale, channel, model.name, numbers, width, figsize, ax
    )


@in_style
def _figure(
    kernels: Kernels,
    tiles: FilterTiles,
    scale: Scale,
    channel: int | None,
    model: str,
    numbers: bool,
    width: float | None,
    figsize: tuple[float, float] | None,
    ax: Axes | None,
) -> Figure | Axes:
    if width is None and figsize is None and ax is None:
        most = width_in_inches(None)
        width = min(most, max(LEAST_WIDTH, _Layout(kernels, tiles, channel, model, numbers, most).needed + 0.1))

    def draw(axes: Axes, wide: float, _: bool) -> None:
        layout = _Layout(kernels, tiles, channel, model, numbers, wide)
        layout.draw(axes)
        _draw_scale(layout, kernels, scale, colours=bool(kernels.colours) and channel is None)

    def height(wide: float) -> float:
        return _Layout(kernels, tiles, channel, model, numbers, wide).height

    return lay_out([[Panel("filters", draw, WHOLE_LINE, height)]], width, figsize, ax)


class _Layout:
    """The position of each part of the figure, in inches, for a given width."""

    def __init__(
        self, kernels: Kernels, tiles: FilterTiles, channel: int | None, model: str, numbers: bool, width: float
    ) -> None:
        self.tiles, self.width, self.look = tiles, width, look()
        self.numbers = numbers and not tiles.table
        self.size = points("figure.title")
        self.title = fit(_title(kernels, model), width, self.size, lines=2)
        self.contents = fit(_contents(kernels, tiles, channel), width, lines=4)
        self.head = height_of(self.title, self.size) + height_of(self.contents) + 0.08
        self.labels = 0.36 * self.look.scale if tiles.table else 0.0
        height, breadth = tiles.pictures.shape[1:3]
        # for tiles whose longer side is 1, with a tenth of that between them
        shape = height / max(height, breadth), breadth / max(height, breadth)
        down, across = tiles.rows * (shape[0] + 0.1) - 0.1, tiles.columns * (shape[1] + 0.1) - 0.1
        room = width - self.labels - 0.02
        side = min(LARGEST_TILE, room / across, (MOST_HEIGHT - self.head - self.labels - 0.4) / down)
        self.tile = shape[0] * side, shape[1] * side
        number = 1.4 * self.look.small / 72 if self.numbers else 0.0
        self.pitch = self.tile[0] + 0.1 * side + number, self.tile[1] + 0.1 * side
        self.top, self.left = self.head + self.labels, self.labels
        self.needed = tiles.columns * self.pitch[1] - 0.1 * side + self.labels
        self.foot = self.top + tiles.rows * self.pitch[0] - 0.1 * side + 0.12
        self.height = self.foot + 0.3 * self.look.scale + height_of("x\nx") * (width < 3.8 * self.look.scale)

    def draw(self, axes: Axes) -> None:
        self.sheet = Sheet(axes, self.width, self.height)
        self.sheet.write(0, 0, self.title, self.size)
        self.sheet.write(0, height_of(self.title, self.size), self.contents, color=self.look.quiet)
        for place, picture in enumerate(self.tiles.pictures):
            row, column = divmod(place, self.tiles.columns)
            x, y = self.left + column * self.pitch[1], self.top + row * self.pitch[0]
            if self.tiles.unconnected[place]:
                edge = self.look.hairline
                self.sheet.box(x, y, self.tile[1], self.tile[0], fill=False, edgecolor=edge, hatch="////////")
                self.sheet.axes.patches[-1].set_hatch_linewidth(0.4)
            else:
                self.sheet.picture(x, y, self.tile[1], self.tile[0], picture, interpolation="nearest")
            self.sheet.frame(x, y, self.tile[1], self.tile[0], self.look.hairline, 0.3)
            if self.numbers and place % self._every(str(len(self.tiles.pictures)), self.pitch[1]) == 0:
                self.sheet.write(x, y + self.tile[0] + 0.02, str(place), color=self.look.quiet)
        if self.tiles.table:
            self._number_table()

    def _every(self, longest: str, pitch: float) -> int:
        """Return the least step between numbers that have room beside each other."""
        return max(1, math.ceil((width_of(longest) + 0.03) / pitch))

    def _number_table(self) -> None:
        """Number the units beside the rows and the input channels above the columns, as many as have room."""
        quiet, line = self.look.quiet, height_of("0")
        beside = line + width_of(str(self.tiles.rows))
        for row in range(0, self.tiles.rows, max(1, math.ceil(line / self.pitch[0]))):
            middle = self.top + row * self.pitch[0] + self.tile[0] / 2
            self.sheet.write(self.left - 0.05, middle, str(row), color=quiet, ha="right", va="center_baseline")
        for column in range(0, self.tiles.columns, self._every(str(self.tiles.columns), self.pitch[1])):
            middle = self.left + column * self.pitch[1] + self.tile[1] / 2
            self.sheet.write(middle, self.top - 0.04, str(column), color=quiet, ha="center", va="bottom")
        self.sheet.write(self.left - 0.08 - beside, self.top, "unit", color=quiet, rotation=90)
        self.sheet.write(self.left, self.top - 0.05 - line, "input channel", color=quiet, va="bottom")


def _title(kernels: Kernels, model: str) -> str:
    return f"{kernels.layer} of {model}" if kernels.layer else model


def _contents(kernels: Kernels, tiles: FilterTiles, channel: int | None) -> str:
    units, channels, height, width = kernels.weights.shape
    size = f"{units} filter{'s' * (units > 1)} of {height} × {width} weights"
    within = " of their group" if kernels.groups > 1 else ""
    if kernels.colours and channel is None:
        return f"{size} in each of three colours"
    if channel is not None:
        return f"{size} on input channel {channel} of {channels}{within}"
    if not tiles.table:
        return f"{size} on one input channel{' each' * (kernels.groups > 1)}"
    text = f"{size} on {channels} input channels{within}"
    if (tiles.rows, tiles.columns) != (units, channels):
        text += f"; shown: the first {tiles.rows} units and {tiles.columns} channels"
    return text


def _draw_scale(layout: _Layout, kernels: Kernels, scale: Scale, colours: bool) -> None:
    """Draw a strip of greys with the weights that they stand for."""
    sheet, quiet, line = layout.sheet, layout.look.quiet, height_of("0")
    largest = float(kernels.weights.abs().max())
    ends = ("−1", "+1") if scale == "filter" else (f"−{largest:.2g}", f"+{largest:.2g}")
    left, high, wide, top = width_of(ends[0]) + 0.05, 0.09, 1.0, layout.foot
    strip = sheet.axes.inset_axes((left, top, wide, high), transform=sheet.axes.transData)
    strip.imshow(np.linspace(0, 1, 256)[None], cmap="gray", aspect="auto", vmin=0, vmax=1)
    strip.set_axis_off()
    sheet.frame(left, top, wide, high, layout.look.hairline, 0.3)
    middle = top + high / 2
    sheet.write(left - 0.04, middle, ends[0], color=quiet, ha="right", va="center_baseline")
    sheet.write(left + wide + 0.04, middle, ends[1], color=quiet, va="center_baseline")
    sheet.write(left + wide / 2, top + high + 0.03, "0", color=quiet, ha="center")
    words = "times the filter's largest weight" if scale == "filter" else "weight, the same for all filters"
    words += ", in each colour" if colours else ""
    words += "; hatched: no connection" if layout.tiles.unconnected.any() else ""
    beside = left + wide + 0.1 + width_of(ends[1])
    if layout.width < 3.8 * layout.look.scale:
        sheet.write(0, top + high + 0.05 + line, fit(words, layout.width, lines=2), color=quiet)
    else:
        sheet.write(beside, middle, fit(words, layout.width - beside, lines=2), color=quiet, va="center")
