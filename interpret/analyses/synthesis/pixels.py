"""Pixels in 0 … 1 as inputs of a network, and back."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from interpret.network.pixel_scale import PixelScale


@lru_cache(maxsize=64)
def per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return one number per channel, [C, 1, 1], from memory: each step of an optimisation needs it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def to_inputs(pixels: Tensor, scale: PixelScale, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return pixels [n, C, h, w] in 0 … 1, in the network's order of channels, as inputs.

    >>> to_inputs(torch.ones(1, 1, 1, 1), PixelScale((0.5,), (0.25,))).item()
    2.0
    """
    mean, std = (per_channel(tuple(one), pixels.dtype, pixels.device) for one in (scale.mean, scale.std))
    return ((pixels * scale.range - mean) / std).to(dtype)


def to_pixels(inputs: Tensor, scale: PixelScale) -> Tensor:
    """Return inputs [n, C, h, w] as pixels in 0 … 1, in the same order of channels: the inverse of `to_inputs`."""
    mean, std = (per_channel(tuple(one), torch.float32, inputs.device) for one in (scale.mean, scale.std))
    return ((inputs.float() * std + mean) / scale.range).clamp(0, 1)
