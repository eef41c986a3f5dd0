"""The number of images per forward pass."""

from __future__ import annotations

import math

import torch

from interpret.execution.parallel import images_at_once
from interpret.images.batches import first_images
from interpret.images.sources import Images
from interpret.support.errors import refuse_below_one

LARGEST_BATCH = 32
"""The largest default batch size."""


def batch_size_for(batch_size: int | None, pixels: int, device: torch.device) -> int:
    """Return the given batch size, or the default for a device and a number of pixels per image.

    >>> batch_size_for(None, 224 * 224, torch.device("cpu")), batch_size_for(100, 224 * 224, torch.device("cpu"))
    (8, 100)

    Raises:
        InterpretError: a batch size below 1.
    """
    if batch_size is None:
        return LARGEST_BATCH if device.type != "cpu" else min(LARGEST_BATCH, images_at_once(pixels))
    refuse_below_one(batch_size=batch_size)
    return batch_size


def default_batch_size(data: Images, device: torch.device) -> int:
    """Return the default batch size for images on a device."""
    return batch_size_for(None, math.prod(first_images(data).shape[2:]), device)
