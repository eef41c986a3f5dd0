"""The random transforms of training images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn
from torchvision.transforms import v2

from interpret.loading.recipes import AugmentTable
from interpret.network.preprocess import Preprocess


def augmentation(table: AugmentTable, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Return a transform that shifts, rotates and scales an input at random, and fills uncovered pixels with a grey.

    >>> import torch
    >>> move = augmentation(AugmentTable(translate=2), Preprocess((28, 28), channels="L"))
    >>> move(torch.ones(1, 28, 28)).shape
    torch.Size([1, 28, 28])
    """
    if table == AugmentTable():
        return nn.Identity()
    height, width = preprocess.size
    fill = preprocess.encode(np.full((1, 1), table.fill, np.uint8)).flatten().tolist()
    return v2.RandomAffine(
        degrees=table.rotate,
        translate=(table.translate / width, table.translate / height),
        scale=(1 - table.scale, 1 + table.scale),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=fill,
    )
