"""Tensors as pictures: contrast, size, bytes, sheets of tiles and WebP files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.figures.drawn_inputs import PATCH_SIZE, blank_of, draw_lines, planes
from interpret.figures.pictures import signal_levels
from interpret.figures.tile_grid import TileGrid
from interpret.network.pixel_scale import PixelScale

LOSSLESS_BELOW = 32
"""Tiles with a smaller side, in pixels, are stored as lossless WebP."""


def contrast(signals: Tensor, channels: str = "RGB") -> Tensor:
    """Return signals [n, C, h, w] as pictures [n, 3, h, w] in 0 … 1 on the CPU, with zero as mid-grey.

    >>> signal = torch.tensor([-2.0, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    >>> contrast(signal, "L")[0, 0]
    tensor([[0.0000, 0.5000],
            [0.7500, 1.0000]])

    Signals [n, C, t] of one axis are drawn as lines, those of volumes [n, C, d, h, w] in three slices. See
    `interpret.figures.contrast.stretch_contrast`.
    """
    signals = signals.detach().cpu()
    signals = signals if signals.dtype == torch.float64 else signals.float()
    return torch.from_numpy(np.ascontiguousarray(signal_levels(signals.numpy(), channels, signals.dim() - 2)))


def shrink(pictures: Tensor, side: int) -> Tensor:
    """Shrink pictures [n, C, h, w] to a longer side of `side` pixels by area averaging; smaller ones are unchanged.

    >>> shrink(torch.arange(4.0).reshape(1, 1, 2, 2), 1)
    tensor([[[[1.5000]]]])
    >>> shrink(torch.zeros(1, 1, 100, 200), 64).shape
    torch.Size([1, 1, 32, 64])
    """
    if pictures.dim() != 4:
        return pictures  # pictures of signals have a size of their own
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


def inputs_to_pictures(inputs: Tensor, scale: PixelScale, size: tuple[int, int] = PATCH_SIZE) -> Tensor:
    """Return a network's inputs, or windows of them, as pictures [n, 3, h, w] in 0 … 1.

    Images [n, C, h, w] are displayed on the scale, signals [n, C, t] drawn as lines in pictures of a size, and volumes
    [n, C, d, h, w] shown in three slices through their middle.
    """
    inputs = inputs.detach().float()
    if inputs.dim() == 3:
        zero = scale.levels(inputs.new_zeros(1, inputs.shape[1], 1))[0, :, 0]
        return torch.from_numpy(draw_lines(scale.levels(inputs).cpu().numpy(), zero.cpu().numpy(), size))
    if inputs.dim() == 5:
        pictures = scale.display(torch.from_numpy(planes(inputs.cpu().numpy())))
        return pictures.masked_fill(torch.from_numpy(blank_of(*inputs.shape[2:])), 1)
    return scale.display(inputs)


def inputs_to_bytes(inputs: Tensor, scale: PixelScale, size: tuple[int, int] = PATCH_SIZE) -> NDArray[np.uint8]:
    """Return a network's inputs [n, C, h, w], or windows of them, as uint8 pictures [n, h, w, 3].

    >>> inputs_to_bytes(torch.tensor([0.0, 5.0]).reshape(1, 1, 1, 2), PixelScale(range=5.0))[0, 0, :, 0]
    array([  0, 255], dtype=uint8)

    See `inputs_to_pictures` for signals and volumes.
    """
    return to_bytes(inputs_to_pictures(inputs, scale, size))


def sheet(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join k tiles [k, h, w, 3] row by row in the most nearly square grid; missing tiles are grey.

    >>> sheet(np.zeros((9, 4, 4, 3), np.uint8)).shape
    (12, 12, 3)
    """
    return TileGrid.square(*tiles.shape[:3]).join(tiles)


def webp(picture: NDArray[np.uint8], tile: int) -> bytes:
    """Encode a picture [h, w, 3] of tiles as WebP; `tile` is the side of a tile in pixels.

    >>> webp(np.zeros((4, 4, 3), np.uint8), tile=4)[8:12]
    b'WEBP'

    Lossy WebP halves the resolution of colour, which blurs small tiles; these are stored losslessly.
    """
    file = BytesIO()
    lossless = tile < LOSSLESS_BELOW
    Image.fromarray(picture).save(file, "WEBP", lossless=lossless, quality=70 if lossless else 80, method=2)
    return file.getvalue()
