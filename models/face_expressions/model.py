"""Seven expressions of a face: four densely connected blocks of separable convolutions, and a linear layer.

The network of V. Mühler's face-api.js, 2018, after G. Huang et al., "Densely connected convolutional networks", 2017,
with sums in place of concatenations.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class Halving(nn.ZeroPad2d):
    """Pad below and on the right, so that a 3 × 3 convolution with stride 2 halves the resolution."""

    def __init__(self) -> None:
        super().__init__((0, 1, 0, 1))


class Separable(nn.Sequential):
    """A 3 × 3 convolution of each map alone and a 1 × 1 convolution across maps."""

    def __init__(self, inputs: int, maps: int, stride: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if stride == 2:
            layers["pad"] = Halving()
        padding = 0 if stride == 2 else 1
        layers["depthwise"] = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False)
        layers["pointwise"] = nn.Conv2d(inputs, maps, 1)
        super().__init__(layers)


class Block(nn.Module):
    """Four convolutions, each of which takes the rectified sum of those before it."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        first = inputs == 3
        self.pad = Halving() if first else nn.Identity()
        self.conv0 = nn.Conv2d(3, maps, 3, stride=2) if first else Separable(inputs, maps, stride=2)
        self.conv1, self.conv2, self.conv3 = (Separable(maps, maps) for _ in range(3))

    def forward(self, maps: Tensor) -> Tensor:
        first = F.relu(self.conv0(self.pad(maps)))
        second = self.conv1(first)
        third = self.conv2(F.relu(first + second))
        fourth = self.conv3(F.relu(first + second + third))
        return F.relu(first + second + third + fourth)


class FaceExpressions(nn.Sequential):
    """Four blocks, an average over all positions, and a score for each expression."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.dense0 = Block(3, 32)
        self.dense1 = Block(32, 64)
        self.dense2 = Block(64, 128)
        self.dense3 = Block(128, 256)
        self.pool = nn.AvgPool2d(7)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(256, outputs)


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, 112, 112] to [B, 7]."""
    return FaceExpressions(7)
