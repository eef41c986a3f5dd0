"""The deconvnet of Zeiler & Fergus (2014), section 2.1, layer by layer: the literal reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = tuple[nn.Module, Tensor, Tensor, Tensor | None]
"""A layer, its input, its output, and its switches where it pools."""


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def _of(namespace: Any, name: str, x: Tensor) -> Any:
    """The function of a name for as many axes as a tensor [B, C, …] has."""
    return getattr(namespace, name.format(x.dim() - 2))


@torch.no_grad()
def forward_with_switches(layers: nn.Sequential, image: Tensor) -> list[Step]:
    steps: list[Step] = []
    x = image
    for layer in layers:
        switches = None
        if isinstance(layer, CONVOLUTIONS):
            y = _of(F, "conv{}d", x)(
                x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        elif isinstance(layer, nn.ReLU):
            y = x.clamp(min=0)
        elif isinstance(layer, POOLS):
            y, switches = _of(F, "max_pool{}d", x)(
                x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
            )
        else:
            raise TypeError(layer)
        steps.append((layer, x, y, switches))
        x = y
    return steps


def unpool(signal: Tensor, switches: Tensor, size: torch.Size, overlap: str) -> Tensor:
    """Put each window's signal back where its maximum was, one window after the other."""
    below = np.zeros((size[:2].numel(), size[2:].numel()))
    for channel, places, values in zip(
        below, switches.flatten(0, 1).numpy(), signal.flatten(0, 1).numpy(), strict=True
    ):
        if overlap == "add":
            np.add.at(channel, places.ravel(), values.ravel())
        else:
            channel[places.ravel()] = values.ravel()  # of equal places, the last is kept
    return torch.from_numpy(below).view(size)


@torch.no_grad()
def literal_deconvnet(
    steps: list[Step], unit: int, position: tuple[int, ...], overlap: str = "add", guided: bool = False
) -> Tensor:
    """Unpool, rectify, filter, down to the pixels (Zeiler & Fergus 2014, section 2.1)."""
    top = steps[-1][2]
    signal = torch.zeros_like(top)
    signal[(0, unit, *position)] = top[(0, unit, *position)]
    for layer, x, y, switches in reversed(steps):
        if isinstance(layer, POOLS):
            assert switches is not None
            signal = unpool(signal, switches, x.shape, overlap)
        elif isinstance(layer, nn.ReLU):
            signal = signal.clamp(min=0)
            if guided:
                signal = signal * (y > 0)
        else:
            assert isinstance(layer, CONVOLUTIONS)
            # rows and columns that no window reached at the lower right get no signal
            rest = [
                size + 2 * padding - dilation * (kernel - 1) - 1 - stride * (out - 1)
                for size, padding, dilation, kernel, stride, out in zip(
                    x.shape[2:],
                    layer.padding,
                    layer.dilation,
                    layer.kernel_size,
                    layer.stride,
                    y.shape[2:],
                    strict=True,
                )
            ]
            signal = _of(F, "conv_transpose{}d", x)(
                signal, layer.weight, None, layer.stride, layer.padding, rest, layer.groups, layer.dilation
            )
    return signal
