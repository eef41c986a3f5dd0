"""The occluder: a rectangle of constant colour that hides a part of an image, at each place of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpret.analyses.occlusion.windowed_forward import Windowed, layout_of
from interpret.network.model import Model
from interpret.support.errors import InterpretError
from interpret.support.wording import elements


class Occluder:
    """A rectangle of constant colour, and its places in an image.

    >>> from torch import nn
    >>> occluder = Occluder.of(Model(nn.Identity(), "identity"), torch.ones(1, 1, 4, 4), size=2, stride=2, fill=0.0)
    >>> occluder.places
    [(0, 0), (0, 2), (2, 0), (2, 2)]
    >>> occluder.hide(torch.ones(1, 1, 4, 4), row=0, places=[(0, 2)]).whole()[0, 0]
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.],
            [1., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """

    def __init__(
        self, tops: list[int], lefts: list[int], size: tuple[int, int], stride: tuple[int, int], fill: Tensor
    ) -> None:
        self.tops, self.lefts, self.size, self.stride = tops, lefts, size, stride
        self.fill = fill
        """[B, C, 1, 1] the occluder's colour in each image."""
        self.places = [(top, left) for top in tops for left in lefts]

    @classmethod
    def of(cls, model: Model, images: Tensor, size: Any, stride: Any, fill: Any) -> Occluder:
        """Return an occluder with its places in images [B, C, H, W].

        Raises:
            InterpretError: an occluder larger than the images; a stride below 1; an unknown fill.
        """
        height, width = lengths("size", size)
        down, right = lengths("stride", stride)
        if height > images.shape[2] or width > images.shape[3]:
            raise InterpretError(
                f"size {height} × {width} is larger than the images, {images.shape[2]} × {images.shape[3]}: "
                "choose a smaller occluder"
            )
        tops = _places(images.shape[2], height, down)
        lefts = _places(images.shape[3], width, right)
        return cls(tops, lefts, (height, width), (down, right), _fill(model, images, fill))

    def hide(self, image: Tensor, row: int, places: Sequence[tuple[int, int]]) -> Windowed:
        """Return an image [1, C, H, W] with the occluder at each of the places; `row` is its index among the images."""
        (height, width), (rows, columns) = self.size, image.shape[2:]
        # a window that extends beyond the image is moved inside, and holds the image where the occluder does not reach
        corners = [(min(top, rows - height), min(left, columns - width)) for top, left in places]
        patches = torch.stack(
            [image[0, :, top : top + height, left : left + width] for top, left in corners]
        ).contiguous(memory_format=layout_of(image))
        for patch, (top, left), (own_top, own_left) in zip(patches, places, corners, strict=True):
            patch[:, top - own_top :, left - own_left :] = self.fill[row].to(patch)
        return Windowed.of(image, patches, corners)


def _places(side: int, size: int, stride: int) -> list[int]:
    """Return the starts of an occluder along an axis, up to the first that reaches the far border."""
    return [start for start in range(0, side, stride) if start == 0 or start - stride + size < side]


def lengths(name: str, value: Any, axes: int = 2) -> tuple[int, ...]:
    """Return one length, or one per axis, as one per axis: (height, width).

    >>> lengths("size", np.int64(16)), lengths("size", [8, 16]), lengths("size", 16, axes=1)
    ((16, 16), (8, 16), (16,))
    """
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes
    if len(found) != axes or not all(isinstance(one, Integral) and int(one) >= 1 for one in found):
        most = ", or two" if axes == 2 else ""
        raise InterpretError(f"{name} must be a whole number of {elements(axes)} of at least 1{most}, not {value!r}")
    return tuple(map(int, found))


def _fill(model: Model, images: Tensor, fill: Any) -> Tensor:
    """Return the occluder's colour in each image, [B, C, 1, 1]."""
    count, channels = images.shape[:2]
    if isinstance(fill, str):
        if fill == "mean":
            return images.mean((2, 3), keepdim=True)
        if fill != "grey":
            raise InterpretError(f"fill must be 'grey', 'mean' or numbers, not {fill!r}")
        grey = (
            0
            if model.preprocess is None or model.preprocess.bands
            else model.preprocess.encode(np.full((1, 1, 3), 128, np.uint8))
        )
        return images.new_zeros(count, channels, 1, 1) + torch.as_tensor(grey).to(images)
    values = torch.as_tensor(fill, dtype=images.dtype).reshape(-1)
    if len(values) not in (1, channels):
        raise InterpretError(f"fill must be one number or {channels}, one for each channel, not {len(values)}")
    return values.expand(channels).reshape(1, channels, 1, 1).expand(count, -1, -1, -1)
