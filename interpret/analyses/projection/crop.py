"""The part of an image that must run for a layer's neurons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from interpret.backprop.rules import Overlap, Rule
from interpret.execution.parallel import images_at_once
from interpret.tracing.tracing import Layer

MOST_WINDOWS = 64
"""Largest number of neurons whose signals propagate at once."""


@dataclass(frozen=True)
class Crop:
    """The part of an image that must run for a layer's neuron and its projection to be exact.

    Let J be the layer's stride, R its receptive field and H the side of the image. The part has the side T, the
    smallest number of at least R + J − 1 with T ≡ H (mod J), and begins at a multiple of J. All layers below then have
    the same grid as in the whole image, at both borders, and the zero padding at the part's own edges affects nothing
    that the neuron sees. Behind a gate that sees the whole image, the whole image must run, even though the projection
    is zero outside a window.
    """

    image: tuple[int, int]
    """(H, W) of the image."""
    size: tuple[int, int]
    """(height, width) of the part that runs: the whole image if the layer cannot be cropped."""
    begin: tuple[int, int]
    """Top and left of the first neuron's receptive field, at which its part begins."""
    field: tuple[int, int]
    """(height, width) of the window of the projection, at most the image's."""
    stride: tuple[int, int]
    start: tuple[int, int]
    """Top and left of the first neuron's window."""

    @classmethod
    def of(cls, layer: Layer, image: tuple[int, ...], overlap: Overlap = "add", rule: Rule = "deconvnet") -> Crop:
        """Return the part for neurons of a layer in images of a size (H, W).

        "overwrite" needs the whole image, since windows outside of the neuron's receptive field also decide which
        window overwrites the others. The gradient holds no gate constant: its window is the receptive field.
        """
        height, width = image
        seen = layer.receptive_field
        window = layer.local_field if rule in ("deconvnet", "guided") else seen
        # run the whole image for a transposed feature map
        if window is None or layer.axes in ((-1, -2), (-2, -3)):
            return cls((height, width), (height, width), (0, 0), (height, width), (1, 1), (0, 0))
        size, begin = [height, width], (0, 0)
        if seen is not None and layer.croppable and overlap == "add":
            sides = zip(seen.size, seen.stride, image, strict=True)
            size, begin = [_crop_side(field, stride, side) for field, stride, side in sides], seen.start
        field = [min(field, side) for field, side in zip(window.size, image, strict=True)]
        return cls((height, width), (size[0], size[1]), begin, (field[0], field[1]), window.stride, window.start)

    @property
    def whole(self) -> bool:
        return self.size == self.image

    @property
    def share(self) -> float:
        """The part's share of the image's area."""
        return self.size[0] * self.size[1] / (self.image[0] * self.image[1])

    @property
    def batch_size(self) -> int:
        return min(1024, images_at_once(self.size[0] * self.size[1]))

    @property
    def windows_at_once(self) -> int:
        """The number of neurons whose signals propagate at once, each in its windows of the maps of whole images."""
        return min(MOST_WINDOWS, images_at_once(self.field[0] * self.field[1]))

    def corners(self, positions: Tensor) -> Tensor:
        """Return the top left corners of the parts for neurons at positions [B, 2], [B, 2]."""
        stride, begin = torch.tensor(self.stride), torch.tensor(self.begin)
        aligned = torch.div(begin + positions * stride, stride, rounding_mode="floor") * stride
        last = torch.tensor(self.image) - torch.tensor(self.size)
        return torch.minimum(aligned, last).clamp(min=0)

    def neurons(self, corners: Tensor) -> Tensor:
        """Return the offsets of the parts' feature maps in those of the whole images, in positions, [B, 2]."""
        return corners // torch.tensor(self.stride)

    def boxes(self, positions: Tensor) -> Tensor:
        """Return the windows of the projections, moved into the image at its borders, [B, 4]."""
        top_left = torch.tensor(self.start) + positions * torch.tensor(self.stride)
        last = torch.tensor(self.image) - torch.tensor(self.field)
        top_left = torch.minimum(top_left, last).clamp(min=0)
        return torch.cat([top_left, top_left + torch.tensor(self.field)], 1)

    def cut(self, images: Tensor, corners: Tensor) -> Tensor:
        """Return the parts of images [B, C, H, W] with the given top left corners."""
        (height, width), rows = self.size, corners.tolist()
        return torch.stack(
            [image[:, y : y + height, x : x + width] for image, (y, x) in zip(images, rows, strict=True)]
        )

    def window(self, signal: Iterable[Tensor], boxes: Tensor, corners: Tensor) -> Tensor:
        """Crop a signal on the parts to the boxes, [B, C, h, w]."""
        (height, width), rows = self.field, (boxes[:, :2] - corners).tolist()
        return torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(signal, rows, strict=True)])


def _crop_side(field: int, stride: int, side: int) -> int:
    least = field + stride - 1
    return min(side, least + (side - least) % stride)
