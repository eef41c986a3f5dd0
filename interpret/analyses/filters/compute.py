"""Filters: the kernels of a layer as pictures, as in figure 3 of the AlexNet paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args, overload

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Panel, lay_out, width_in_inches
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look, points
from interpret.figures.tile_grid import TileGrid
from interpret.network.model import Model, as_model
from interpret.network.weights import kind_of, named_layers, weight_of
from interpret.network.wrappers import refuse_without_numbers
from interpret.support.errors import InterpretError, unknown

Scale = Literal["filter", "shared"]
Pictures = NDArray[np.float32]


def filter_images(
    model: Model | nn.Module, layer: str | None = None, scale: Scale = "filter", channel: int | None = None
) -> Pictures:
    """Return the kernels of a layer as pictures [n, h, w, 3] in 0 … 1, with a weight of zero as mid-grey.

    A kernel is drawn as the pattern that it answers to: positive weights light, negative ones dark. This one finds
    edges that are dark on the left and light on the right:

    >>> network = nn.Sequential(nn.Conv2d(1, 1, 3))
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]))
    >>> filter_images(network)[0, :, :, 0]
    array([[0.25, 0.5 , 0.75],
           [0.  , 0.5 , 1.  ],
           [0.25, 0.5 , 0.75]], dtype=float32)

    Args:
        model: the network.
        layer: a convolution, or a linear layer on the pixels themselves; None: the first convolution.
        scale: "filter": each filter by its own largest weight, over all its input channels; "shared": all filters by
            the largest weight of the layer, so that strong and weak ones can be told apart.
        channel: one input channel to show of every filter; None: all.

    Returns:
        One colour picture a filter where the layer has three input channels, which are taken to be the picture's red,
        green and blue, whatever order the model has them in. Otherwise grey slices: one a filter if it has one input
        channel or `channel` names one, and else, filter by filter, one for every input channel (of its group, in a
        grouped convolution). A slice all of whose weights are zero, in a filter that has others, is no connection,
        as in LeNet-5, whose table leaves some out, or in a pruned network: it is white all over, and not mid-grey.

    Raises:
        InterpretError: an unknown layer or scale, a layer without kernels, a channel out of range, weights that are
            not finite.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    figure 3. Like theirs, the pictures show the weights as they are, before any of the preprocessing's scales.
    """
    pictures = _drawn(_find_kernels(as_model(model), layer), scale, channel)
    return pictures.reshape(-1, *pictures.shape[2:])


def filter_sheet(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 32,
) -> NDArray[np.uint8]:
    """Return the kernels of a layer as one picture [H, W, 3]: tiles with white between them, every weight a square.

    >>> filter_sheet(nn.Sequential(nn.Conv2d(3, 64, 11))).shape  # 4 rows of 16 tiles of 44 pixels, 4 pixels between
    (188, 764, 3)

    Where a filter has many grey slices, each row is a filter and each column an input channel, the first `limit` of
    both; what is not connected is hatched. Arguments, order and errors are those of `filter_images` and `plot_filters`.
    """
    return tiled_filter_sheet(model, layer, scale, channel, limit)[0]


def tiled_filter_sheet(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 32,
) -> tuple[NDArray[np.uint8], TileGrid | None]:
    """Return the picture of `filter_sheet`, and where its tiles are if it has one for each unit, in their order.

    >>> tiled_filter_sheet(nn.Sequential(nn.Conv2d(3, 64, 11)))[1]
    TileGrid(rows=4, columns=16, height=44, width=44, gap=4)
    >>> tiled_filter_sheet(nn.Sequential(nn.Conv2d(2, 4, 3)))[1]  # a tile for each unit and input channel
    """
    found = _arranged(_find_kernels(as_model(model), layer), scale, channel, limit)
    height, width = found.tiles.shape[1:3]
    zoom = max(1, round(_SHEET_TILE / max(height, width)))
    grid = TileGrid(found.rows, found.columns, height * zoom, width * zoom, _SHEET_GAP)
    tiles = found.tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    for place in np.flatnonzero(found.absent):
        tiles[place] = _hatched(tiles[place])
    return grid.join(tiles, background=255), None if found.table else grid


_SHEET_TILE, _SHEET_GAP = 44, 4
"""Pixels of the longer side of a tile, about, and between tiles."""


def _hatched(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a tile of the same size with thin slanting lines on white."""
    down, right = np.indices(tile.shape[:2])
    return np.where(((down + right) % 8 == 0)[..., None], np.uint8(190), np.uint8(255)).repeat(3, -1)


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
    """Plot the kernels of a layer as a figure in the manner of figure 3 of the AlexNet paper.

    >>> figure = plot_filters(nn.Sequential(nn.Conv2d(3, 64, 11)))
    >>> len(figure.axes[0].images)
    64
    >>> figure.savefig("filters.pdf")  # doctest: +SKIP

    Colour kernels, and those of one input channel, stand in a grid in the order of their units, row by row. Kernels
    over many input channels come as a table of grey slices: a row is a unit, a column an input channel; a place without
    connection, as in LeNet-5's C3, is hatched.

    Args:
        model: the network.
        layer: a convolution, or a linear layer on the pixels themselves; None: the first convolution.
        scale: "filter": each filter by its own largest weight; "shared": all by the largest of the layer.
        channel: one input channel to show of every filter; None: all.
        limit: at most so many rows and columns of a table of slices; the figure says what is left out.
        numbers: whether to print each unit's number in the grid; a table always has them.
        width, figsize, ax: as in `interpret.plot`; without any of them, the figure is up to 7.2 inches wide.

    Returns:
        A matplotlib figure, to save with `figure.savefig(path)`, or `ax`.

    Raises:
        InterpretError: as `filter_images`, and a limit below 1.
    """
    model = as_model(model)
    kernels = _find_kernels(model, layer)
    return _figure(
        kernels, _arranged(kernels, scale, channel, limit), scale, channel, model.name, numbers, width, figsize, ax
    )


# ---- the kernels -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kernels:
    """The weights of a layer, unit by unit."""

    layer: str
    weights: Tensor
    """[units, input channels of one unit, height, width]"""
    colours: str
    """What the input channels are, "RGB" or "BGR"; empty where they are no colours."""
    groups: int


def _find_kernels(model: Model, layer: str | None) -> _Kernels:
    refuse_without_numbers(model.module)
    modules = {name: module for name, module in named_layers(model.module) if name}
    # a network that is one bare layer has no names
    modules = modules or {"": model.module}
    first = next((name for name, module in modules.items() if isinstance(module, nn.Conv2d)), None)
    if layer is None:
        if first is None:
            raise InterpretError(f"model {model.name!r} has no convolution: name a linear layer on the pixels")
        layer = first
    if layer not in modules:
        raise unknown("layer", layer, modules)
    module = modules[layer]
    weights = _weights_by_unit(module, model)
    if weights is None:
        raise InterpretError(
            f"layer {layer!r} ({kind_of(module)}) has no kernels to draw: choose a convolution"
            + (f", such as {first!r}" if first else "")
        )
    if not bool(weights.isfinite().all()):
        raise InterpretError(f"layer {layer!r} has weights that are not finite: they cannot be drawn")
    groups = module.groups if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else 1
    order = model.colours
    colours = order if weights.shape[1] == 3 == len(order) and groups == 1 else ""
    return _Kernels(layer, weights, colours, groups)


def _weights_by_unit(module: nn.Module, model: Model) -> Tensor | None:
    weights = weight_of(module)
    if weights is None:
        return None
    weights = weights.to("cpu", torch.float32)
    if isinstance(module, nn.ConvTranspose2d):  # kept as [input channels, units of a group, height, width]
        by_group = weights.unflatten(0, (module.groups, -1)).transpose(1, 2)
        return by_group.flatten(0, 1)
    if isinstance(module, nn.Linear) and model.preprocess and module.in_features == math.prod(model.input_shape):
        return weights.unflatten(1, model.input_shape)
    return weights if weights.ndim == 4 else None


# ---- as pictures -----------------------------------------------------------------------------------------------------


def _drawn(kernels: _Kernels, scale: Scale, channel: int | None) -> Pictures:
    """Return the pictures [units, slices, h, w, 3]: one slice a unit in colour, else one an input channel."""
    if scale not in get_args(Scale):
        raise unknown("scale", scale, get_args(Scale))
    weights = kernels.weights
    count = weights.shape[1]
    if channel is not None and not 0 <= channel < count:
        raise InterpretError(
            f"channel must be from 0 to {count - 1}, the input channels of {kernels.layer!r}, not {channel}"
        )
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True)
    if scale == "shared":
        largest = largest.amax(dim=0, keepdim=True)
    # a filter of zeros is grey all over
    values = (0.5 + weights / (2 * torch.where(largest > 0, largest, 1))).numpy()
    if kernels.colours and channel is None:
        return values[:, [kernels.colours.index(colour) for colour in "RGB"]].transpose(0, 2, 3, 1)[:, None]
    if not kernels.colours:
        values[_absent(kernels)] = 1.0
    if channel is not None:
        values = values[:, channel : channel + 1]
    return values[..., None].repeat(3, axis=-1)


def _absent(kernels: _Kernels) -> NDArray[np.bool_]:
    """Return [units, input channels], whether a unit that has weights has none but zeros for a channel."""
    largest = kernels.weights.abs().amax(dim=(2, 3))
    found: NDArray[np.bool_] = ((largest == 0) & (largest.amax(1, keepdim=True) > 0)).numpy()
    return found


@dataclass(frozen=True)
class _Grid:
    """Tiles in their places, row by row."""

    tiles: NDArray[np.uint8]
    """[tiles, h, w, 3]"""
    rows: int
    columns: int
    table: bool
    """Whether rows are units and columns input channels."""
    absent: NDArray[np.bool_]
    """[tiles] whether there is no connection."""


def _arranged(kernels: _Kernels, scale: Scale, channel: int | None, limit: int) -> _Grid:
    if limit < 1:
        raise InterpretError(f"limit must be at least 1, not {limit}")
    pictures = np.round(_drawn(kernels, scale, channel) * 255).astype(np.uint8)
    units, slices, height, width, _ = pictures.shape
    absent = _absent(kernels)
    if slices == 1:
        columns = _columns(units, height / width)
        # a colour may have no weights
        alone = np.zeros(units, bool) if kernels.colours else absent[:, channel or 0]
        return _Grid(pictures[:, 0], -(-units // columns), columns, table=False, absent=alone)
    pictures = pictures[:limit, :limit]
    rows, columns = pictures.shape[:2]
    return _Grid(pictures.reshape(-1, height, width, 3), rows, columns, True, absent[:limit, :limit].ravel())


def _columns(count: int, ratio: float) -> int:
    """Return the number of columns of a grid about twice as wide as high, and full where that can be.

    >>> [_columns(count, ratio=1) for count in (6, 20, 64, 96)]
    [3, 5, 16, 12]
    """
    wanted = math.sqrt(2 * count * ratio)

    def cost(columns: int) -> float:
        return abs(math.log(columns / wanted)) + (0.4 if count % columns else 0)

    return min(range(count, 0, -1), key=cost)


# ---- as a figure -----------------------------------------------------------------------------------------------------

# inches
_HEIGHT, _NARROWEST = 9.6, 4.0
_LARGEST_TILE = 1.1


@in_style
def _figure(
    kernels: _Kernels,
    grid: _Grid,
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
        width = min(most, max(_NARROWEST, _Layout(kernels, grid, channel, model, numbers, most).needed + 0.1))

    def draw(axes: Axes, wide: float, _: bool) -> None:
        layout = _Layout(kernels, grid, channel, model, numbers, wide)
        layout.draw(axes)
        _draw_scale(layout, kernels, scale, colours=bool(kernels.colours) and channel is None)

    def height(wide: float) -> float:
        return _Layout(kernels, grid, channel, model, numbers, wide).height

    return lay_out([[Panel("filters", draw, WHOLE_LINE, height)]], width, figsize, ax)


class _Layout:
    """Where everything stands in a width, in inches."""

    def __init__(
        self, kernels: _Kernels, grid: _Grid, channel: int | None, model: str, numbers: bool, width: float
    ) -> None:
        self.grid, self.width, self.look = grid, width, look()
        self.numbers = numbers and not grid.table
        self.size = points("figure.title")
        self.title = fit(_title(kernels, model), width, self.size, lines=2)
        self.contents = fit(_contents(kernels, grid, channel), width, lines=4)
        self.head = height_of(self.title, self.size) + height_of(self.contents) + 0.08
        self.labels = 0.36 * self.look.scale if grid.table else 0.0
        height, breadth = grid.tiles.shape[1:3]
        # of a tile with a longer side of 1, and a tenth of that between tiles
        shape = height / max(height, breadth), breadth / max(height, breadth)
        down, across = grid.rows * (shape[0] + 0.1) - 0.1, grid.columns * (shape[1] + 0.1) - 0.1
        room = width - self.labels - 0.02
        side = min(_LARGEST_TILE, room / across, (_HEIGHT - self.head - self.labels - 0.4) / down)
        self.tile = shape[0] * side, shape[1] * side
        number = 1.4 * self.look.small / 72 if self.numbers else 0.0
        self.pitch = self.tile[0] + 0.1 * side + number, self.tile[1] + 0.1 * side
        self.top, self.left = self.head + self.labels, self.labels
        self.needed = grid.columns * self.pitch[1] - 0.1 * side + self.labels
        self.foot = self.top + grid.rows * self.pitch[0] - 0.1 * side + 0.12
        self.height = self.foot + 0.3 * self.look.scale + height_of("x\nx") * (width < 3.8 * self.look.scale)

    def draw(self, axes: Axes) -> None:
        self.sheet = Sheet(axes, self.width, self.height)
        self.sheet.write(0, 0, self.title, self.size)
        self.sheet.write(0, height_of(self.title, self.size), self.contents, color=self.look.quiet)
        for place, picture in enumerate(self.grid.tiles):
            row, column = divmod(place, self.grid.columns)
            x, y = self.left + column * self.pitch[1], self.top + row * self.pitch[0]
            if self.grid.absent[place]:
                edge = self.look.hairline
                self.sheet.box(x, y, self.tile[1], self.tile[0], fill=False, edgecolor=edge, hatch="////////")
                self.sheet.axes.patches[-1].set_hatch_linewidth(0.4)
            else:
                self.sheet.picture(x, y, self.tile[1], self.tile[0], picture, interpolation="nearest")
            self.sheet.frame(x, y, self.tile[1], self.tile[0], self.look.hairline, 0.3)
            if self.numbers and place % self._every(str(len(self.grid.tiles)), self.pitch[1]) == 0:
                self.sheet.write(x, y + self.tile[0] + 0.02, str(place), color=self.look.quiet)
        if self.grid.table:
            self._number_table()

    def _every(self, longest: str, pitch: float) -> int:
        """Return which of the numbers have room: one in so many."""
        return max(1, math.ceil((width_of(longest) + 0.03) / pitch))

    def _number_table(self) -> None:
        """Write units beside the rows and input channels above the columns: as many as there is room for."""
        quiet, line = self.look.quiet, height_of("0")
        beside = line + width_of(str(self.grid.rows))
        for row in range(0, self.grid.rows, max(1, math.ceil(line / self.pitch[0]))):
            middle = self.top + row * self.pitch[0] + self.tile[0] / 2
            self.sheet.write(self.left - 0.05, middle, str(row), color=quiet, ha="right", va="center_baseline")
        for column in range(0, self.grid.columns, self._every(str(self.grid.columns), self.pitch[1])):
            middle = self.left + column * self.pitch[1] + self.tile[1] / 2
            self.sheet.write(middle, self.top - 0.04, str(column), color=quiet, ha="center", va="bottom")
        self.sheet.write(self.left - 0.08 - beside, self.top, "unit", color=quiet, rotation=90)
        self.sheet.write(self.left, self.top - 0.05 - line, "input channel", color=quiet, va="bottom")


def _title(kernels: _Kernels, model: str) -> str:
    return f"{kernels.layer} of {model}" if kernels.layer else model


def _contents(kernels: _Kernels, grid: _Grid, channel: int | None) -> str:
    units, channels, height, width = kernels.weights.shape
    size = f"{units} filter{'s' * (units > 1)} of {height} × {width} weights"
    within = " of their group" if kernels.groups > 1 else ""
    if kernels.colours and channel is None:
        return f"{size} in each of three colours"
    if channel is not None:
        return f"{size} on input channel {channel} of {channels}{within}"
    if not grid.table:
        return f"{size} on one input channel{' each' * (kernels.groups > 1)}"
    text = f"{size} on {channels} input channels{within}"
    if (grid.rows, grid.columns) != (units, channels):
        text += f"; shown: the first {grid.rows} units and {grid.columns} channels"
    return text


def _draw_scale(layout: _Layout, kernels: _Kernels, scale: Scale, colours: bool) -> None:
    """Draw a strip from the darkest to the lightest weight, and say what they are."""
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
    told = "times the filter's largest weight" if scale == "filter" else "weight, the same for all filters"
    told += ", in each colour" if colours else ""
    told += "; hatched: no connection" if layout.grid.absent.any() else ""
    beside = left + wide + 0.1 + width_of(ends[1])
    if layout.width < 3.8 * layout.look.scale:
        sheet.write(0, top + high + 0.05 + line, fit(told, layout.width, lines=2), color=quiet)
    else:
        sheet.write(beside, middle, fit(told, layout.width - beside, lines=2), color=quiet, va="center")
