"""Signals as pictures, and mosaics of tiles; without torch, which `interpret.images.display` uses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from interpret.figures.contrast import contrast_scale, stretch_contrast
from interpret.figures.drawn_inputs import SIGNAL_INK, blank_of, draw_lines, planes
from interpret.figures.style import look
from interpret.figures.tile_grid import TileGrid


def signals_as_pictures(signals: NDArray[Any], channels: str, axes: int = 2) -> NDArray[np.uint8]:
    """Return signals [..., C, h, w] as pictures [..., h, w, 3], with zero as mid-grey.

    >>> signals_as_pictures(np.array([[[-2.0, 0.0, 1.0, 2.0]]]), "L")[0, :, 0]
    array([  0, 128, 191, 255], dtype=uint8)

    Those of inputs with one axis, [n, C, t], are lines around zero; those with three, [n, C, d, h, w], three slices.

    Args:
        signals: raw projections.
        channels: the meaning of the C channels: "RGB", "BGR" or "L".
        axes: the number of axes of the inputs.
    """
    pictures = signal_levels(np.asarray(signals), channels, axes)
    return np.rint(np.moveaxis(pictures, -3, -1) * 255).astype(np.uint8)


def signal_levels(signals: NDArray[Any], channels: str, axes: int = 2) -> NDArray[Any]:
    """Return signals as `signals_as_pictures` does, but [..., 3, h, w] in 0 … 1."""
    if axes == 1:
        scale = contrast_scale(np.abs(signals))[..., None, None]
        return draw_lines(signals / (2 * scale) + 0.5, 0.5, colour=SIGNAL_INK)
    if axes == 3:
        pictures = stretch_contrast(planes(signals), channels).copy()
        pictures[..., blank_of(*signals.shape[-3:])] = 1
        return pictures
    return stretch_contrast(signals, channels)


def mosaic(
    tiles: NDArray[np.uint8], columns: int, gap: float = 0.08, least: int = 24, between: int | None = None
) -> tuple[NDArray[np.uint8], TileGrid]:
    """Return tiles [n, h, w, 3] as one picture with a space between them, and where they are in it.

    >>> picture, grid = mosaic(np.zeros((5, 10, 10, 3), np.uint8), columns=3)
    >>> picture.shape, grid.corner(4)
    ((62, 94, 4), (32, 32))

    Args:
        tiles: the pictures, row by row.
        columns: how many are in a row.
        gap: the space between tiles, as a share of the longer side of a tile.
        least: the least length in pixels of a tile's longer side; smaller tiles are magnified by a whole factor.
        between: the grey between tiles; None: transparent. Missing tiles of the last row are transparent.

    Returns:
        uint8 [H, W, 4], red, green, blue and opacity, and the grid of the tiles.
    """
    count, height, width, _ = tiles.shape
    zoom = math.ceil(least / max(height, width))
    space = max(1, round(gap * zoom * max(height, width)))
    grid = TileGrid(-(-count // columns), columns, height * zoom, width * zoom, space)
    opaque = np.concatenate([tiles, np.full((*tiles.shape[:3], 1), 255, np.uint8)], -1)
    # transparent pixels have the background's colour, or the edges of shrunk tiles would be dark
    paper = [*np.rint(np.array(to_rgb(look().paper)) * 255), 0]
    magnified = opaque.repeat(zoom, 1).repeat(zoom, 2)
    picture = grid.join(magnified, paper if between is None else [between, between, between, 255])
    if count < grid.rows * columns:
        top, left = grid.corner(count)
        picture[top:, left:] = paper
    return picture, grid
