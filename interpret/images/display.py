"""From numbers to pictures: contrast for signals, and sheets of tiles."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.network.pixel_scale import PixelScale, to_rgb

PERCENTILE = 0.99
LOSSLESS_BELOW = 32


def contrast(signals: Tensor, channels: str = "RGB") -> Tensor:
    """Return signals [n, C, h, w] as pictures [n, 3, h, w] in 0 … 1, with zero as mid-grey.

    >>> signal = torch.tensor([-2.0, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    >>> contrast(signal, "L")[0, 0]
    tensor([[0.0000, 0.5000],
            [0.7500, 1.0000]])

    Each is scaled by the 99th percentile of its strongest colour's magnitude and clipped: scaled by the maximum, all
    but the first layers' projections are grey mush. Zeiler & Fergus 2014 enhance contrast too, and do not say how.

    Args:
        signals: raw projections.
        channels: what the C channels are: "RGB", "BGR" or "L".
    """
    magnitude = signals.abs().amax(1).flatten(1)
    rank = max(1, math.ceil(PERCENTILE * magnitude.shape[1]))
    scale = magnitude.kthvalue(rank, 1).values
    # a signal that is zero but for a few pixels would be divided by zero
    scale = torch.where(scale > 0, scale, magnitude.amax(1)).clamp(min=torch.finfo(signals.dtype).tiny)
    pictures = (signals / (2 * scale[:, None, None, None]) + 0.5).clamp(0, 1)
    return to_rgb(pictures, channels)


def shrink(pictures: Tensor, side: int) -> Tensor:
    """Return pictures [n, C, h, w] whose longer side is `side` pixels, averaged over areas; smaller ones stay.

    >>> shrink(torch.arange(4.0).reshape(1, 1, 2, 2), 1)
    tensor([[[[1.5000]]]])
    >>> shrink(torch.zeros(1, 1, 100, 200), 64).shape
    torch.Size([1, 1, 32, 64])
    """
    height, width = pictures.shape[2:]
    longer = max(height, width)
    if longer <= side:
        return pictures
    return F.interpolate(pictures, [max(1, round(length * side / longer)) for length in (height, width)], mode="area")


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """Return pictures [n, 3, h, w] in 0 … 1 as bytes [n, h, w, 3].

    >>> to_bytes(torch.ones(1, 3, 1, 1))
    array([[[[255, 255, 255]]]], dtype=uint8)
    """
    scaled = pictures.mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def inputs_to_bytes(images: Tensor, scale: PixelScale) -> NDArray[np.uint8]:
    """Return a network's inputs [n, C, h, w], or windows of them, as pictures [n, h, w, 3].

    >>> inputs_to_bytes(torch.tensor([0.0, 5.0]).reshape(1, 1, 1, 2), PixelScale(range=5.0))[0, 0, :, 0]
    array([  0, 255], dtype=uint8)
    """
    return to_bytes(scale.display(images.float()))


def sheet(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return k tiles [k, h, w, 3] side by side in as square a grid as there is, row by row; what is left is grey.

    >>> sheet(np.zeros((9, 4, 4, 3), np.uint8)).shape
    (12, 12, 3)
    """
    count, height, width, _ = tiles.shape
    columns = sheet_columns(count)
    rows = -(-count // columns)
    grid = np.full((rows * columns, height, width, 3), 128, np.uint8)
    grid[:count] = tiles
    return grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def sheet_columns(count: int) -> int:
    """Return how many columns a sheet of `count` tiles has.

    >>> sheet_columns(9), sheet_columns(5)
    (3, 3)
    """
    return math.isqrt(count - 1) + 1 if count else 1


def webp(picture: NDArray[np.uint8], tile: int) -> bytes:
    """Return a picture [h, w, 3] of tiles of a side as a WebP file; small tiles keep each pixel.

    >>> webp(np.zeros((4, 4, 3), np.uint8), tile=4)[8:12]
    b'WEBP'

    WebP halves the resolution of colour, which would blur a tile of a few pixels: those are stored without loss.
    """
    file = BytesIO()
    lossless = tile < LOSSLESS_BELOW
    Image.fromarray(picture).save(file, "WEBP", lossless=lossless, quality=70 if lossless else 80, method=2)
    return file.getvalue()
