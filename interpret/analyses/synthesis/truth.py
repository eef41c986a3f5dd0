"""What tells whether an optimised image is true: what it keeps when damaged, and its distance to natural images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from interpret.network.forward import collect_outputs
from interpret.network.layers import has_units
from interpret.tracing.tracing import Layer

JPEG_QUALITY = 75
SHIFT = 1 / 32
"""The shift as a share of the shorter side, at least one pixel."""
BLUR = 1 / 150
"""The deviation of the blur as a share of the shorter side, at least half a pixel."""
EARLY = 1 / 3
"""Layers count as early if they see at most this share of the image's shorter side."""


def damaged(pixels: Tensor, how: str, side: int) -> list[Tensor]:
    """Return pixels [C, h, w] in 0 … 1 damaged as "jpeg", "shift" (in four directions) or "blur".

    >>> [tuple(one.shape) for one in damaged(torch.rand(3, 16, 16), "blur", 16)]
    [(3, 16, 16)]

    `side` is the shorter side of what the unit sees, from which shift and blur are computed.
    """
    if how == "jpeg":
        return [_compressed(pixels)]
    if how == "blur":
        return [_blurred(pixels, max(0.5, side * BLUR))]
    by = max(1, round(side * SHIFT))
    padded = F.pad(pixels[None], (by, by, by, by), mode="replicate")[0]
    height, width = pixels.shape[1:]
    corners = [(0, by), (2 * by, by), (by, 0), (by, 2 * by)]
    return [padded[:, y : y + height, x : x + width] for y, x in corners]


def _compressed(pixels: Tensor) -> Tensor:
    """Return pixels after JPEG compression: three channels as a colour picture, others each as a grey one."""
    numbers = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    parts = [np.moveaxis(numbers, 0, -1)] if len(numbers) == 3 else list(numbers)
    found = []
    for part in parts:
        file = BytesIO()
        Image.fromarray(part).save(file, "JPEG", quality=JPEG_QUALITY)
        found.append(np.asarray(Image.open(file)))
    read = np.moveaxis(found[0], -1, 0) if len(numbers) == 3 else np.stack(found)
    return torch.from_numpy(read.copy()).to(pixels.dtype) / 255


def _blurred(pixels: Tensor, deviation: float) -> Tensor:
    reach = max(1, round(3 * deviation))
    reach = min(reach, min(pixels.shape[1:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2).to(pixels)
    weights = weights / weights.sum()
    padded = F.pad(pixels[None], (reach,) * 4, mode="replicate")[0][:, None]
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))[:, 0]


def early_layers(module: nn.Module, traced: Mapping[str, Layer], side: int) -> list[str]:
    """Return the layers whose features are compared: the first one with units, and the deepest that is early.

    A network whose layers all see more has only the first, if that sees a part of the image.
    """
    seeing = {
        name: max(layer.receptive_field.size)
        for name, layer in traced.items()
        if layer.receptive_field is not None
        and len(layer.output_shape) == 3
        and layer.batched
        and has_units(module.get_submodule(name))
        and max(layer.receptive_field.size) <= side
    }
    if not seeing:
        return []
    first, *others = seeing
    early = [name for name in others if seeing[name] <= EARLY * side]
    return [first, *early[-1:]]


def describe_images(module: nn.Module, images: Tensor, layers: Sequence[str], batch_size: int) -> Tensor:
    """Return features of images [n, C, h, w]: each channel's mean and deviation over positions, [n, features]."""
    found = []
    with torch.no_grad():
        for part in images.split(batch_size):
            outputs = collect_outputs(module, part.clone(), layers)
            own = [outputs[name].flatten(2).double() for name in layers]
            found.append(torch.cat([torch.cat([one.mean(2), one.std(2, correction=0)], 1) for one in own], 1).cpu())
    return torch.cat(found)


def distances_to(natural: Tensor, own: Tensor) -> Tensor:
    """Return the distance [n] of features [n, d] to the nearest natural ones [m, d], relative to those among natural.

    >>> natural = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> distances_to(natural, torch.tensor([[0.0, 0.0], [3.0, 0.0]])).round(decimals=3)
    tensor([0., 2.], dtype=torch.float64)

    Each feature is divided by its deviation over the natural images. The unit is the median distance of a natural image
    to its nearest other.
    """
    deviation = natural.double().std(0)
    used = deviation > 1e-6 * deviation.max()
    natural, own = (one.double()[:, used] / deviation[used] for one in (natural, own))
    among = torch.cdist(natural, natural)
    among.fill_diagonal_(float("inf"))
    return torch.cdist(own, natural).amin(1) / among.amin(1).median()
