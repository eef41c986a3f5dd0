"""Filters: the kernels of a layer as pictures, as in figure 3 of the AlexNet paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.errors import InterpretError, unknown
from interpret.model import Model, as_model
from interpret.plots.style import Figure
from interpret.weights import kind_of, named_layers, weight_of
from interpret.wrappers import refuse_without_numbers

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
        grouped convolution).

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
    both. Arguments, order and errors are those of `filter_images` and `plot_filters`.
    """
    grid = _arranged(_find_kernels(as_model(model), layer), scale, channel, limit)
    height, width = grid.tiles.shape[1:3]
    zoom = max(1, round(_SHEET_TILE / max(height, width)))
    tiles = grid.tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    pitch = height * zoom + _SHEET_GAP, width * zoom + _SHEET_GAP
    sheet = np.full((grid.rows * pitch[0] - _SHEET_GAP, grid.columns * pitch[1] - _SHEET_GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // grid.columns * pitch[0], place % grid.columns * pitch[1]
        sheet[top : top + height * zoom, left : left + width * zoom] = tile
    return sheet


_SHEET_TILE, _SHEET_GAP = 44, 4


def plot_filters(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 24,
    numbers: bool = False,
) -> Figure:
    """Plot the kernels of a layer as a figure in the manner of figure 3 of the AlexNet paper.

    >>> figure = plot_filters(nn.Sequential(nn.Conv2d(3, 64, 11)))
    >>> len(figure.axes[0].images)
    64
    >>> figure.savefig("filters.pdf")  # doctest: +SKIP

    Colour kernels, and those of one input channel, stand in a grid in the order of their units, row by row. Kernels
    over many input channels come as a table of grey slices: a row is a unit, a column an input channel.

    Args:
        model: the network.
        layer: a convolution, or a linear layer on the pixels themselves; None: the first convolution.
        scale: "filter": each filter by its own largest weight; "shared": all by the largest of the layer.
        channel: one input channel to show of every filter; None: all.
        limit: at most so many rows and columns of a table of slices; the figure says what is left out.
        numbers: whether to print each unit's number in the grid; a table always has them.

    Returns:
        A matplotlib figure, up to 7.2 inches wide, to save with `figure.savefig(path)`.

    Raises:
        InterpretError: as `filter_images`, and a limit below 1.
    """
    model = as_model(model)
    kernels = _find_kernels(model, layer)
    return _figure(kernels, _arranged(kernels, scale, channel, limit), scale, channel, model.name, numbers)


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
    if channel is not None:
        values = values[:, channel : channel + 1]
    return values[..., None].repeat(3, axis=-1)


@dataclass(frozen=True)
class _Grid:
    """Tiles in their places, row by row."""

    tiles: NDArray[np.uint8]
    """[tiles, h, w, 3]"""
    rows: int
    columns: int
    table: bool
    """Whether rows are units and columns input channels."""


def _arranged(kernels: _Kernels, scale: Scale, channel: int | None, limit: int) -> _Grid:
    if limit < 1:
        raise InterpretError(f"limit must be at least 1, not {limit}")
    pictures = np.round(_drawn(kernels, scale, channel) * 255).astype(np.uint8)
    units, slices, height, width, _ = pictures.shape
    if slices == 1:
        columns = _columns(units, height / width)
        return _Grid(pictures[:, 0], -(-units // columns), columns, table=False)
    pictures = pictures[:limit, :limit]
    rows, columns = pictures.shape[:2]
    return _Grid(pictures.reshape(-1, height, width, 3), rows, columns, table=True)


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
_WIDTH, _HEIGHT, _NARROWEST = 7.2, 9.6, 4.0
_MARGIN, _HEAD, _FOOT, _LABELS = 0.15, 0.55, 0.5, 0.36
_LARGEST_TILE = 1.1
_INK, _QUIET = "#1a1a1a", "#666666"
_OUTLINE: dict[str, Any] = {"fill": False, "linewidth": 0.3, "edgecolor": "#b0b0b0", "clip_on": False}


def _figure(kernels: _Kernels, grid: _Grid, scale: Scale, channel: int | None, model: str, numbers: bool) -> Figure:
    height, width = grid.tiles.shape[1:3]
    labels = _LABELS if grid.table else 0.0
    # of a tile with a longer side of 1, and a tenth of that between tiles
    shape = height / max(height, width), width / max(height, width)
    down, across = grid.rows * (shape[0] + 0.1) - 0.1, grid.columns * (shape[1] + 0.1) - 0.1
    side = min(_LARGEST_TILE, (_WIDTH - 2 * _MARGIN - labels) / across, (_HEIGHT - _HEAD - _FOOT - labels) / down)
    tile = shape[0] * side, shape[1] * side
    pitch = tile[0] + 0.1 * side + (0.14 if numbers and not grid.table else 0.0), tile[1] + 0.1 * side
    content = grid.rows * pitch[0] - 0.1 * side, grid.columns * pitch[1] - 0.1 * side

    size = max(_NARROWEST, content[1] + labels + 2 * _MARGIN), content[0] + labels + _HEAD + _FOOT
    figure = Figure(figsize=size, facecolor="white")
    axes = _axes(figure, left=_MARGIN + labels, top=_HEAD + labels, width=content[1], height=content[0])
    for place, picture in enumerate(grid.tiles):
        top, left = place // grid.columns * pitch[0], place % grid.columns * pitch[1]
        extent = (left, left + tile[1], top + tile[0], top)
        axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
        axes.add_patch(Rectangle((left, top), tile[1], tile[0], **_OUTLINE))
        if numbers and not grid.table:
            axes.text(left, top + tile[0] + 0.02, str(place), fontsize=5.5, color=_QUIET, va="top")
    axes.set(xlim=(0, content[1]), ylim=(content[0], 0))
    if grid.table:
        _number_table(axes, grid, tile, pitch)

    figure.text(
        _MARGIN / size[0], 1 - 0.12 / size[1], _title(kernels, model), fontsize=10, color=_INK, va="top", weight="bold"
    )
    figure.text(
        _MARGIN / size[0], 1 - 0.31 / size[1], _contents(kernels, grid, channel), fontsize=7.5, color=_QUIET, va="top"
    )
    _draw_scale(figure, kernels, scale, colours=bool(kernels.colours) and channel is None, top=size[1] - _FOOT + 0.2)
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add bare axes at a place in inches from the top left of the figure, measured in inches themselves."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def _number_table(axes: Axes, grid: _Grid, tile: tuple[float, float], pitch: tuple[float, float]) -> None:
    """Write units beside the rows and input channels above the columns: as many as there is room for."""
    style: dict[str, Any] = {"fontsize": 6, "color": _QUIET}
    for row in range(0, grid.rows, max(1, math.ceil(0.1 / pitch[0]))):
        axes.text(-0.05, row * pitch[0] + tile[0] / 2, str(row), ha="right", va="center_baseline", **style)
    for column in range(0, grid.columns, max(1, math.ceil(0.16 / pitch[1]))):
        axes.text(column * pitch[1] + tile[1] / 2, -0.04, str(column), ha="center", va="bottom", **style)
    axes.text(-0.3, 0, "unit", rotation=90, ha="left", va="top", **style)
    axes.text(0, -0.2, "input channel", ha="left", va="bottom", **style)


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


def _draw_scale(figure: Figure, kernels: _Kernels, scale: Scale, colours: bool, top: float) -> None:
    """Draw a strip from the darkest to the lightest weight, and say what they are."""
    largest = float(kernels.weights.abs().max())
    ends = ("−1", "+1") if scale == "filter" else (f"−{largest:.2g}", f"+{largest:.2g}")
    room = 0.055 * len(ends[0]) + 0.05
    axes = _axes(figure, left=_MARGIN + room, top=top, width=1.0, height=0.09)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap="gray", extent=(0, 1, 0, 0.09), aspect="auto", vmin=0, vmax=1)
    axes.add_patch(Rectangle((0, 0), 1, 0.09, **_OUTLINE))
    style: dict[str, Any] = {"fontsize": 6.5, "color": _QUIET, "va": "center_baseline"}
    axes.text(-0.04, 0.045, ends[0], ha="right", **style)
    axes.text(1.04, 0.045, ends[1], ha="left", **style)
    axes.text(0.5, -0.03, "0", ha="center", fontsize=6.5, color=_QUIET, va="top")
    told = "times the filter's largest weight" if scale == "filter" else "weight, the same for all filters"
    axes.text(1.12 + room, 0.045, told + (", in each colour" if colours else ""), ha="left", **style)
