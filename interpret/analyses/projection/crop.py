"""The part of an image that must run for a layer's neurons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from interpret.backprop.rules import Overlap, Rule
from interpret.execution.parallel import PIXELS_AT_ONCE
from interpret.tracing.receptive_field import Sizes, Strides
from interpret.tracing.tracing import Layer

MOST_PARTS = 1024
"""Largest number of parts of images that run together."""


@dataclass(frozen=True)
class Crop:
    """The part of an image that must run for a layer's neuron and its projection to be exact.

    Let J be the layer's stride, R its receptive field and H the side of the image. The part has the side T, the
    smallest number of at least R + J − 1 with T ≡ H (mod J), and begins at a multiple of J. All layers below then have
    the same grid as in the whole image, at both borders, and the zero padding at the part's own edges affects nothing
    that the neuron sees. Behind a gate that sees the whole image, the whole image must run, even though the projection
    is zero outside a window.
    """

    image: Sizes
    """(H, W) of the image, or the length of each axis of another input."""
    size: Sizes
    """(height, width) of the part that runs: the whole image if the layer cannot be cropped."""
    begin: Sizes
    """Top and left of the first neuron's receptive field, at which its part begins."""
    field: Sizes
    """(height, width) of the window of the projection, at most the image's."""
    stride: Strides
    start: Sizes
    """Top and left of the first neuron's window."""

    @classmethod
    def of(cls, layer: Layer, image: tuple[int, ...], overlap: Overlap = "add", rule: Rule = "deconvnet") -> Crop:
        """Return the part for neurons of a layer in images of a size (H, W).

        "overwrite" needs the whole image, since windows outside of the neuron's receptive field also decide which
        window overwrites the others. The gradient holds no gate constant: its window is the receptive field.
        """
        seen = layer.receptive_field
        window = layer.local_field if rule in ("deconvnet", "guided") else seen
        # run the whole image for a transposed feature map
        if window is None or (layer.axes is not None and list(layer.axes) != sorted(layer.axes)):
            ones, zeros = (1,) * len(image), (0,) * len(image)
            return cls(image, image, zeros, image, ones, zeros)
        size, begin = image, (0,) * len(image)
        if seen is not None and layer.croppable and overlap == "add":
            sides = zip(seen.size, seen.steps, image, strict=True)
            size, begin = tuple(_crop_side(field, stride, side) for field, stride, side in sides), seen.start
        return cls(image, size, begin, tuple(map(min, window.size, image)), window.stride, window.start)

    @property
    def whole(self) -> bool:
        return self.size == self.image

    @property
    def share(self) -> float:
        """The part's share of the image's area."""
        return math.prod(self.size) / math.prod(self.image)

    def batch_size(self, pixels: int = PIXELS_AT_ONCE) -> int:
        """Return the number of parts that run together, for a number of pixels of a batch."""
        return min(MOST_PARTS, max(1, pixels // math.prod(self.size)))

    def corners(self, positions: Tensor) -> Tensor:
        """Return the top left corners of the parts for neurons at positions [B, axes], [B, axes]."""
        if self.whole:
            return torch.zeros_like(positions)
        stride, begin = torch.tensor(self.stride), torch.tensor(self.begin)
        aligned = torch.div(begin + positions * stride, stride, rounding_mode="floor") * stride
        last = torch.tensor(self.image) - torch.tensor(self.size)
        return torch.minimum(aligned, last).clamp(min=0)

    def neurons(self, corners: Tensor) -> Tensor:
        """Return the offsets of the parts' feature maps in those of the whole images, in positions, [B, axes]."""
        return corners if self.whole else corners // torch.tensor(self.stride)

    def boxes(self, positions: Tensor) -> Tensor:
        """Return the windows of the projections, moved into the image at its borders, [B, 2·axes]."""
        steps = positions.double() * torch.tensor(self.stride, dtype=torch.float64)
        top_left = torch.tensor(self.start) + steps.floor().long()
        last = torch.tensor(self.image) - torch.tensor(self.field)
        top_left = torch.minimum(top_left, last).clamp(min=0)
        return torch.cat([top_left, top_left + torch.tensor(self.field)], 1)

    def cut(self, images: Tensor, corners: Tensor) -> Tensor:
        """Return the parts of images [B, C, H, W] with the given top left corners."""
        return _cut(images, corners, self.size)

    def window(self, signal: Iterable[Tensor], boxes: Tensor, corners: Tensor) -> Tensor:
        """Crop a signal on the parts to the boxes, [B, C, h, w]."""
        return _cut(signal, boxes[:, : corners.shape[1]] - corners, self.field)


def _cut(images: Iterable[Tensor], corners: Tensor, size: Sizes) -> Tensor:
    parts = []
    for image, corner in zip(images, corners.tolist(), strict=True):
        parts.append(image[(slice(None), *(slice(at, at + side) for at, side in zip(corner, size, strict=True)))])
    return torch.stack(parts)


def _crop_side(field: int, stride: int, side: int) -> int:
    least = field + stride - 1
    return min(side, least + (side - least) % stride)
