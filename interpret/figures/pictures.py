"""Signals as pictures, and mosaics of tiles; without torch, which `interpret.images.display` uses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from interpret.figures.style import look

PERCENTILE = 0.99


def signals_as_pictures(signals: NDArray[Any], channels: str) -> NDArray[np.uint8]:
    """Return signals [..., C, h, w] as pictures [..., h, w, 3], with zero as mid-grey.

    >>> signals_as_pictures(np.array([[[-2.0, 0.0, 1.0, 2.0]]]), "L")[0, :, 0]
    array([  0, 128, 191, 255], dtype=uint8)

    Each is scaled by the 99th percentile of its strongest colour's magnitude and clipped, as in `display.contrast`.

    Args:
        signals: raw projections.
        channels: what the C channels are: "RGB", "BGR" or "L".
    """
    signals = np.asarray(signals)
    magnitude = np.abs(signals).max(-3).reshape(*signals.shape[:-3], -1)
    rank = max(1, math.ceil(PERCENTILE * magnitude.shape[-1]))
    scale = np.partition(magnitude, rank - 1, -1)[..., rank - 1]
    # without this, a signal that is zero at almost all pixels would be divided by zero
    scale = np.maximum(np.where(scale > 0, scale, magnitude.max(-1)), np.finfo(signals.dtype).tiny)
    # in the dtype of the signal, as in display.contrast: both give the same bytes
    pictures = np.clip(signals / (2 * scale[..., None, None, None]) + signals.dtype.type(0.5), 0, 1)
    if channels == "BGR":
        pictures = pictures[..., ::-1, :, :]
    elif pictures.shape[-3] != 3:
        # two or four channels are no colours: show their mean
        pictures = np.broadcast_to(pictures.mean(-3, keepdims=True), (*pictures.shape[:-3], 3, *pictures.shape[-2:]))
    return np.rint(np.moveaxis(pictures, -3, -1) * 255).astype(np.uint8)


def mosaic(
    tiles: NDArray[np.uint8], gap: float = 0.08, least: int = 24, between: int | None = None
) -> tuple[NDArray[np.uint8], int, int]:
    """Return tiles [rows, columns, h, w, 3] as one picture with a space between them, and the tiles' pitch in it.

    >>> picture, down, across = mosaic(np.zeros((2, 3, 10, 10, 3), np.uint8))
    >>> picture.shape, down, across
    ((62, 94, 4), 32, 32)

    Args:
        tiles: the pictures, one size.
        gap: the space between tiles, as a share of the longer side of a tile.
        least: the least length in pixels of a tile's longer side; smaller tiles are magnified by a whole factor.
        between: the grey between tiles; None: transparent.

    Returns:
        uint8 [H, W, 4], red, green, blue and opacity, and how many pixels lie between the tops of two rows and between
        the left sides of two columns.
    """
    rows, columns, height, width, _ = tiles.shape
    zoom = math.ceil(least / max(height, width))
    space = max(1, round(gap * zoom * max(height, width)))
    down, across = height * zoom + space, width * zoom + space
    picture = np.zeros((rows * down - space, columns * across - space, 4), np.uint8)
    # transparent pixels have the background's colour, or the edges of shrunk tiles would be dark
    picture[...] = [*np.rint(np.array(to_rgb(look().paper)) * 255), 0] if between is None else [*[between] * 3, 255]
    for row, column in np.ndindex(rows, columns):
        tile = tiles[row, column].repeat(zoom, 0).repeat(zoom, 1)
        top, left = row * down, column * across
        picture[top : top + height * zoom, left : left + width * zoom, :3] = tile
        picture[top : top + height * zoom, left : left + width * zoom, 3] = 255
    return picture, down, across
