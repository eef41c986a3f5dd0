"""A small face detector: a Tiny YOLOv2 with separable convolutions, one grid and five anchors.

J. Redmon and A. Farhadi, "YOLO9000: better, faster, stronger", 2016. The network is that of face-api.js, V. Mühler,
2018.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.ops import nms

ANCHORS = ((1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308))
"""Width and height of each anchor, in cells."""
STRIDE = 32
"""The side of a cell, in pixels."""


class Separable(nn.Sequential):
    """A 3 × 3 convolution of each map alone, a 1 × 1 convolution across maps, and a leaky rectifier."""

    def __init__(self, inputs: int, maps: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["depthwise"] = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        layers["pointwise"] = nn.Conv2d(inputs, maps, 1)
        layers["leaky"] = nn.LeakyReLU(0.1)
        super().__init__(layers)


class TinyFaceDetector(nn.Sequential):
    """Six convolutions and pools, and for each cell and anchor a box's place, its size and its score."""

    stride = STRIDE

    @property
    def anchors(self) -> Tensor:
        """Width and height of the faces that each anchor is for, in cells: [5, 2]."""
        return self.conv8.weight.new_tensor(ANCHORS)

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 16, 3)  # without padding: the first pool makes up for it
        self.leaky0 = nn.LeakyReLU(0.1)
        for number in range(1, 6):
            self.add_module(f"pool{number - 1}", nn.MaxPool2d(2, ceil_mode=True))
            self.add_module(f"conv{number}", Separable(8 * 2**number, 16 * 2**number))
        # the last pool keeps the resolution: its windows reach one cell beyond the border
        self.border = nn.ReplicationPad2d((0, 1, 0, 1))
        self.pool5 = nn.MaxPool2d(2, stride=1)
        self.conv8 = nn.Conv2d(512, 25, 1)

    def detect(self, images: Tensor, threshold: float = 0.5, overlap: float = 0.4) -> list[dict[str, Tensor]]:
        """Return the faces in each image, the surest first.

        Args:
            images: [B, 3, H, W], for H and W divisible by 32.
            threshold: the least score.
            overlap: of two boxes that share more than this part of their union, the surer one is kept.

        Returns:
            For each image, as torchvision's detectors: `boxes` [N, 4] as (left, top, right, bottom) in pixels, `scores`
            [N], and `units` [N, 3]: the unit of `conv8` that gave the score, and its position (y, x).
        """
        return [self._faces(maps, threshold, overlap) for maps in self(images)]

    def _faces(self, maps: Tensor, threshold: float, overlap: float) -> dict[str, Tensor]:
        x, y, width, height, score = maps.unflatten(0, (len(self.anchors), 5)).unbind(1)  # each [5, rows, columns]
        scores = score.sigmoid()
        chosen = (scores > threshold).nonzero()
        anchor, row, column = chosen.unbind(1)
        centre = torch.stack([column + x[tuple(chosen.T)].sigmoid(), row + y[tuple(chosen.T)].sigmoid()], 1)
        size = torch.stack([width[tuple(chosen.T)], height[tuple(chosen.T)]], 1).exp() * self.anchors[anchor]
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1) * self.stride
        found = scores[tuple(chosen.T)]
        kept = nms(boxes, found, overlap)
        units = torch.stack([5 * anchor + 4, row, column], 1)
        return {"boxes": boxes[kept], "scores": found[kept], "units": units[kept]}


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, H, W] to [B, 25, H / 32, W / 32]."""
    return TinyFaceDetector()
