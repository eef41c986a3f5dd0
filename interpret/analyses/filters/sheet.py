"""The kernels of a layer as tiles in a grid, and as one picture of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from interpret.analyses.filters.compute import Kernels, Scale, find_kernels, kernel_pictures, unconnected
from interpret.figures.tile_grid import TileGrid
from interpret.network.model import Model, as_model
from interpret.support.errors import refuse_below_one

TILE_SIDE, TILE_GAP = 44, 4
"""Pixels of the longer side of a tile, approximately, and between two tiles."""


def filter_sheet(
    model: Model | nn.Module,
    layer: str | None = None,
    scale: Scale = "filter",
    channel: int | None = None,
    limit: int = 32,
) -> NDArray[np.uint8]:
    """Return the kernels of a layer as one picture [H, W, 3]: tiles on white, in which every weight is a square.

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
    found = arrange_tiles(find_kernels(as_model(model), layer), scale, channel, limit)
    height, width = found.pictures.shape[1:3]
    zoom = max(1, round(TILE_SIDE / max(height, width)))
    grid = TileGrid(found.rows, found.columns, height * zoom, width * zoom, TILE_GAP)
    tiles = found.pictures.repeat(zoom, axis=1).repeat(zoom, axis=2)
    for place in np.flatnonzero(found.unconnected):
        tiles[place] = _hatched(tiles[place])
    return grid.join(tiles, background=255), None if found.table else grid


def _hatched(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a tile of the same size with thin slanting lines on white."""
    down, right = np.indices(tile.shape[:2])
    return np.where(((down + right) % 8 == 0)[..., None], np.uint8(190), np.uint8(255)).repeat(3, -1)


@dataclass(frozen=True)
class FilterTiles:
    """The kernels as tiles of a grid, row by row."""

    pictures: NDArray[np.uint8]
    """[tiles, h, w, 3]"""
    rows: int
    columns: int
    table: bool
    """Whether rows are units and columns input channels."""
    unconnected: NDArray[np.bool_]
    """[tiles] whether the unit has no weights for the input channel."""


def arrange_tiles(kernels: Kernels, scale: Scale, channel: int | None, limit: int) -> FilterTiles:
    """Return a tile for each unit, or for each of the first `limit` units and input channels."""
    refuse_below_one(limit=limit)
    pictures = np.round(kernel_pictures(kernels, scale, channel) * 255).astype(np.uint8)
    units, slices, height, width, _ = pictures.shape
    without = unconnected(kernels)
    if slices == 1:
        columns = _columns(units, height / width)
        # in a colour picture, a colour without weights is no missing connection
        alone = np.zeros(units, bool) if kernels.colours else without[:, channel or 0]
        return FilterTiles(pictures[:, 0], -(-units // columns), columns, table=False, unconnected=alone)
    pictures = pictures[:limit, :limit]
    rows, columns = pictures.shape[:2]
    return FilterTiles(pictures.reshape(-1, height, width, 3), rows, columns, True, without[:limit, :limit].ravel())


def _columns(count: int, ratio: float) -> int:
    """Return the number of columns of a grid about twice as wide as high, if possible without a gap at its end.

    >>> [_columns(count, ratio=1) for count in (6, 20, 64, 96)]
    [3, 5, 16, 12]
    """
    wanted = math.sqrt(2 * count * ratio)

    def cost(columns: int) -> float:
        return abs(math.log(columns / wanted)) + (0.4 if count % columns else 0)

    return min(range(count, 0, -1), key=cost)
