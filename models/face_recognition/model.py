"""Face recognition: a residual network that describes a face by 128 numbers.

K. He et al., "Deep residual learning for image recognition", 2016, with 29 convolutions and half the kernels, as D.
King trained it for dlib, 2017: descriptors of one person lie within 0.6 of each other, those of two people further
apart.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scale(nn.Module):
    """A factor and an offset for each map: what is left of batch normalisation after training."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.weight[:, None, None] + self.bias[:, None, None]


class Scaled(nn.Sequential):
    """A convolution, and a factor and an offset for each of its maps."""

    def __init__(self, inputs: int, maps: int, size: int = 3, stride: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(inputs, maps, size, stride, padding=1 if stride == 1 else 0)
        layers["scale"] = Scale(maps)
        super().__init__(layers)


class Residual(nn.Module):
    """Two convolutions, to which the input is added; with `half`, at half the resolution."""

    def __init__(self, inputs: int, maps: int, half: bool = False) -> None:
        super().__init__()
        self.extra = maps - inputs
        self.conv1 = Scaled(inputs, maps, stride=2 if half else 1)
        self.conv2 = Scaled(maps, maps)
        self.pool = nn.AvgPool2d(2) if half else None

    def forward(self, maps: Tensor) -> Tensor:
        branch = self.conv2(F.relu(self.conv1(maps)))
        if self.pool is not None:
            maps = self.pool(maps)
            # the pool may give one more row and column; missing maps and places are zero
            rows, columns = maps.shape[2] - branch.shape[2], maps.shape[3] - branch.shape[3]
            branch = F.pad(branch, (0, columns, 0, rows))
            maps = F.pad(maps, (0, 0, 0, 0, 0, self.extra))
        return F.relu(maps + branch)


class FaceRecognition(nn.Sequential):
    """A convolution and fourteen residual blocks, an average over all positions, and the descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = Scaled(3, 32, size=7, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2)
        for number in range(1, 4):
            self.add_module(f"conv32_{number}", Residual(32, 32))
        for inputs, maps, count in ((32, 64, 3), (64, 128, 2), (128, 256, 2)):
            self.add_module(f"conv{maps}_down", Residual(inputs, maps, half=True))
            for number in range(1, count + 1):
                self.add_module(f"conv{maps}_{number}", Residual(maps, maps))
        self.conv256_down_out = Residual(256, 256, half=True)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(256, 128, bias=False)


def build() -> nn.Module:
    """Return the network with random weights: faces [B, 3, 150, 150] to descriptors [B, 128]."""
    return FaceRecognition()
