"""A face detector: an SSD on MobileNet V1.

W. Liu et al., "SSD: single shot multibox detector", 2016; A. Howard et al., "MobileNets: efficient convolutional neural
networks for mobile vision applications", 2017. Trained by Z. Yang on WIDER FACE, 2017; layers have the names of
TensorFlow's object detection API.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Maps after the first convolution and after each of the thirteen separable ones."""
HALVING = (2, 4, 6, 12)
"""The separable convolutions with stride 2."""
EXTRA = ((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (64, 1), (128, 3))
"""Maps and kernel size of the further convolutions; those of 3 × 3 halve the resolution."""
MAPS = ((512, 3), (1024, 6), (512, 6), (256, 6), (256, 6), (128, 6))
"""Maps and anchors at each of the six resolutions."""


class Padded(nn.Conv2d):
    """A 3 × 3 convolution as TensorFlow pads it: with stride 2 and an even side, below and on the right only."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride == (1, 1):
            return super().forward(maps)
        rows, columns = (1 - side % 2 for side in maps.shape[2:])
        return super().forward(nn.functional.pad(maps, (1 - columns, 1, 1 - rows, 1)))


def padded(inputs: int, maps: int, size: int, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps the resolution, or halves it."""
    padding = size // 2 if stride == 1 else 0
    return Padded(inputs, maps, size, stride, padding, groups=groups, bias=bias)


class MobileNet(nn.Module):
    """The first convolution and the thirteen separable ones."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_0_pointwise = padded(3, WIDTHS[0], 3, stride=2)
        for number in range(1, len(WIDTHS)):
            inputs, maps = WIDTHS[number - 1 : number + 1]
            stride = 2 if number in HALVING else 1
            name = f"Conv2d_{number}"
            self.add_module(f"{name}_depthwise", padded(inputs, inputs, 3, stride, groups=inputs, bias=False))
            self.add_module(f"{name}_depthwise_norm", nn.BatchNorm2d(inputs, eps=0.001))
            self.add_module(f"{name}_pointwise", nn.Conv2d(inputs, maps, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps after the eleventh and after the last separable convolution."""
        maps = rectified(self.Conv2d_0_pointwise(images))
        middle = maps
        for number in range(1, len(WIDTHS)):
            name = f"Conv2d_{number}"
            maps = getattr(self, f"{name}_depthwise")(maps)
            maps = rectified(getattr(self, f"{name}_depthwise_norm")(maps))
            maps = rectified(getattr(self, f"{name}_pointwise")(maps))
            middle = maps if number == 11 else middle
        return middle, maps


class BoxPredictor(nn.Module):
    """For each place and anchor, how its box differs from the anchor, and a score for each of three classes."""

    def __init__(self, maps: int, anchors: int) -> None:
        super().__init__()
        self.BoxEncodingPredictor = nn.Conv2d(maps, 4 * anchors, 1)
        self.ClassPredictor = nn.Conv2d(maps, 3 * anchors, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as [B, places and anchors, 4 or 3]."""
        boxes, classes = (layer(maps).permute(0, 2, 3, 1) for layer in (self.BoxEncodingPredictor, self.ClassPredictor))
        return boxes.reshape(len(maps), -1, 4), classes.reshape(len(maps), -1, 3)


class Prediction(nn.Module):
    """Further convolutions at ever lower resolutions, and a box predictor at each."""

    def __init__(self) -> None:
        super().__init__()
        inputs = WIDTHS[-1]
        for number, (maps, size) in enumerate(EXTRA):
            self.add_module(f"Conv2d_{number}_pointwise", padded(inputs, maps, size, stride=2 if size == 3 else 1))
            inputs = maps
        for number, (maps, anchors) in enumerate(MAPS):
            self.add_module(f"BoxPredictor_{number}", BoxPredictor(maps, anchors))

    def forward(self, middle: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        levels, maps = [middle, last], last
        for number, (_, size) in enumerate(EXTRA):
            maps = rectified(getattr(self, f"Conv2d_{number}_pointwise")(maps))
            if size == 3:
                levels.append(maps)
        found = [getattr(self, f"BoxPredictor_{number}")(maps) for number, maps in enumerate(levels)]
        boxes, classes = zip(*found, strict=True)
        return torch.cat(boxes, 1), torch.cat(classes, 1)


class Anchors(nn.Module):
    """The anchors, [1, 5118, 4] as (top, left, bottom, right) in parts of the image's side."""

    extra_dim: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("extra_dim", torch.zeros(1, 5118, 4))

    def forward(self, encoded: Tensor) -> Tensor:
        """Return boxes [B, 5118, 4] as (left, top, right, bottom)."""
        top, left, bottom, right = self.extra_dim.unbind(2)
        y, x, height, width = encoded.unbind(2)
        centre_y = (top + bottom) / 2 + y / 10 * (bottom - top)
        centre_x = (left + right) / 2 + x / 10 * (right - left)
        half_y, half_x = (height / 5).exp() * (bottom - top) / 2, (width / 5).exp() * (right - left) / 2
        return torch.stack([centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y], 2)


class SSDFaceDetector(nn.Module):
    """An SSD with one class, faces."""

    def __init__(self) -> None:
        super().__init__()
        self.MobilenetV1 = MobileNet()
        self.Prediction = Prediction()
        self.Output = Anchors()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return `boxes` [B, 5118, 4], in parts of the image's side, and `scores` [B, 5118], before the sigmoid."""
        encoded, classes = self.Prediction(*self.MobilenetV1(images))
        return {"boxes": self.Output(encoded), "scores": classes[..., 1]}

    def detect(self, images: Tensor, threshold: float = 0.5, overlap: float = 0.5) -> list[dict[str, Tensor]]:
        """Return the faces in each image [3, 512, 512], the surest first.

        Args:
            images: [B, 3, 512, 512].
            threshold: the least score.
            overlap: of two boxes that share more than this part of their union, the surer one is kept.

        Returns:
            For each image, as torchvision's detectors: `boxes` [N, 4] as (left, top, right, bottom) in pixels, and
            `scores` [N].
        """
        found = self(images)
        answers = []
        for boxes, scores in zip(found["boxes"] * images.shape[-1], found["scores"].sigmoid(), strict=True):
            sure = scores > threshold
            boxes, scores = boxes[sure], scores[sure]
            kept = nms(boxes, scores, overlap)
            answers.append({"boxes": boxes[kept], "scores": scores[kept]})
        return answers


def rectified(maps: Tensor) -> Tensor:
    """Return maps limited to the range from 0 to 6."""
    return nn.functional.relu6(maps)


def build() -> nn.Module:
    """Return the network with random weights, for images [B, 3, 512, 512]."""
    return SSDFaceDetector()
