"""The number of images per forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from interpret.execution.parallel import images_at_once
from interpret.network.forward import call_network
from interpret.support.errors import refuse_below_one

LARGEST_BATCH = 32
"""The largest default batch size, but for those that are chosen by a GPU's memory."""
LARGEST_GPU_BATCH = 256
"""From here on, larger batches keep no GPU busier."""
GPU_SHARE = 0.4
"""The share of a GPU's memory that a forward pass may take; the rest is left to what is added up there."""
MEASURED_IMAGES = 4
"""The number of images with which the memory of a forward pass is measured."""

logger = logging.getLogger(__name__)


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


def batch_that_fits(per_image: int, memory: int, most: int = LARGEST_GPU_BATCH) -> int:
    """Return the largest power of two of images that take this share of a GPU's memory.

    It depends on the whole memory and not on what is free now, so that the same call has the same batches.

    >>> batch_that_fits(40 * 2**20, 80 * 2**30), batch_that_fits(200 * 2**20, 8 * 2**30), batch_that_fits(2**40, 2**33)
    (256, 16, 1)
    """
    fitting = max(1, int(GPU_SHARE * memory / per_image))
    return min(most, 2 ** (fitting.bit_length() - 1))


def gpu_batch_size(module: nn.Module, images: Tensor) -> int:
    """Return the default batch size on the GPU on which a network and its first images are.

    The memory of an image is measured by a forward pass of a few.
    """
    few = images[:1].expand(MEASURED_IMAGES, *images.shape[1:]).contiguous()

    def run() -> None:
        with torch.inference_mode():
            call_network(module, few)

    return largest_gpu_batch(images.device, MEASURED_IMAGES, run)


def largest_gpu_batch(
    device: torch.device, count: int, run: Callable[[], object], most: int = LARGEST_GPU_BATCH
) -> int:
    """Return how many images fit a GPU's memory at once, after a run of `count` of them, which is measured."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    per_image = max(1, (torch.cuda.max_memory_allocated(device) - before) // count)
    memory = torch.cuda.get_device_properties(device).total_memory
    size = batch_that_fits(per_image, memory, most)
    logger.info("an image takes %.0f MB of %.0f GB: batches of %d", per_image / 1e6, memory / 1e9, size)
    return size
