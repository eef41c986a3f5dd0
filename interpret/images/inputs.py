"""Read some images of the data as one batch of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from interpret.images.batches import read_items
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.images.tensor_images import TensorImages
from interpret.network.model import Model
from interpret.support.errors import InterpretError

MOST_INPUTS = 256
"""The largest number of images that an analysis reads into memory without `items`."""


class Inputs(NamedTuple):
    """Some images of the data as one batch."""

    tensor: Tensor
    """[B, C, H, W] the network's inputs."""
    images: Images
    """The data."""
    items: Sequence[int]
    """[B] the items of the data."""


def open_inputs(data: object, model: Model | nn.Module, items: Sequence[int] | None = None) -> Inputs:
    """Open data as `open_images` does, and read some of its images as one batch.

    >>> import torch
    >>> open_inputs(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3), items=[3, 0]).tensor.shape
    torch.Size([2, 1, 4, 4])

    Args:
        data: anything that `open_images` takes; a tensor of inputs is used unchanged.
        model: the network that the inputs are for.
        items: indices of the images, in this order; None: all, at most 256 unless they are inputs in memory.

    Raises:
        InterpretError: as `open_images`; an item out of range or that does not decode; too many images.
    """
    images = open_images(data, model, crops="center")
    if type(images) is TensorImages and items is None:
        return Inputs(images.tensor, images, range(len(images)))
    if items is None and len(images) > MOST_INPUTS and not isinstance(images, TensorImages):
        raise InterpretError(
            f"data {images.name!r} has {len(images):,} images, and at most {MOST_INPUTS} are taken at once: choose "
            f"some of them, such as items=range({MOST_INPUTS})"
        )
    chosen = range(len(images)) if items is None else [int(item) for item in items]
    check_items("items", chosen, images)
    batch = read_items(images, chosen)
    if len(batch.items) < len(chosen):
        gone = next(item for item in chosen if item not in batch.items)
        name = images.source_name(int(images.sources[gone]))
        raise InterpretError(
            f"image {name!r} cannot be read ({images.skipped.get(name, 'it does not decode')}): leave it out, by items "
            f"without {gone}"
        )
    return Inputs(batch.images, images, chosen)


def check_items(what: str, items: Sequence[int], images: Images) -> None:
    """Refuse items out of range and empty lists of items."""
    if not items:
        raise InterpretError(f"{what} is empty: name at least one image")
    odd = next((item for item in items if not 0 <= item < len(images)), None)
    if odd is not None:
        raise InterpretError(f"{what} must be from 0 to {len(images) - 1} in data {images.name!r}, not {odd}")
