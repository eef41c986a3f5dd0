"""Pixels in 0 … 1 as inputs of a network, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from interpret.network.pixel_scale import PixelScale


def to_inputs(pixels: Tensor, scale: PixelScale, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return pixels [n, C, h, w] in 0 … 1, in the network's order of channels, as inputs.

    >>> to_inputs(torch.ones(1, 1, 1, 1), PixelScale((0.5,), (0.25,))).item()
    2.0
    """
    mean, std = (torch.tensor(one, dtype=pixels.dtype, device=pixels.device).view(-1, 1, 1)
                 for one in (scale.mean, scale.std))  # fmt: skip
    return ((pixels * scale.range - mean) / std).to(dtype)


def to_pixels(inputs: Tensor, scale: PixelScale) -> Tensor:
    """Return inputs [n, C, h, w] as pixels in 0 … 1, in the same order of channels: the inverse of `to_inputs`."""
    mean, std = (torch.tensor(one, device=inputs.device).view(-1, 1, 1) for one in (scale.mean, scale.std))
    return ((inputs.float() * std + mean) / scale.range).clamp(0, 1)
