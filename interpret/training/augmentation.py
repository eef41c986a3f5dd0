"""The random transforms of training images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from interpret.loading.recipes import AugmentTable
from interpret.network.preprocess import Preprocess


def augmentation(table: AugmentTable, preprocess: Preprocess) -> Callable[..., Any]:
    """Return a transform that moves an input at random, and fills uncovered pixels with a grey.

    >>> import torch
    >>> move = augmentation(AugmentTable(translate=2), Preprocess((28, 28), channels="L"))
    >>> move(torch.ones(1, 28, 28)).shape
    torch.Size([1, 28, 28])
    """
    if table == AugmentTable():
        return lambda *moved: moved if len(moved) > 1 else moved[0]
    height, width = preprocess.size
    fill = preprocess.encode(np.full((1, 1), table.fill, np.uint8)).flatten().tolist()
    affine = v2.RandomAffine(
        degrees=table.rotate,
        translate=(table.translate / width, table.translate / height),
        scale=(1 - table.scale, 1 + table.scale),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=fill,
    )
    return v2.Compose([v2.RandomHorizontalFlip(), affine]) if table.flip else affine


LEAST_SIDE = 4
"""Boxes of which less than this many pixels stay in view, along either axis, are left out."""


def move_boxes(
    augment: Callable[..., Any], image: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a moved image with its moved boxes, clipped to the image, and their labels.

    >>> import torch
    >>> move = augmentation(AugmentTable(translate=2), Preprocess((28, 28), channels="L"))
    >>> boxes, labels = torch.tensor([[9, 9, 19, 19]]), torch.tensor([3])
    >>> image, boxes, labels = move_boxes(move, torch.ones(1, 28, 28), boxes, labels)
    >>> (boxes[:, 2:] - boxes[:, :2]).tolist(), labels.tolist()
    ([[10.0, 10.0]], [3])

    Args:
        augment: what `augmentation` returns.
        image: [C, H, W].
        boxes: [N, 4] as (left, top, right, bottom), in pixels.
        labels: [N].
    """
    size = (image.shape[-2], image.shape[-1])
    corners = tv_tensors.BoundingBoxes(boxes.float(), format="XYXY", canvas_size=size)
    moved, corners = augment(tv_tensors.Image(image), corners)
    corners = corners.as_subclass(Tensor)
    kept = (corners[:, 2:] - corners[:, :2] >= LEAST_SIDE).all(1)
    return moved.as_subclass(Tensor), corners[kept], labels[kept]
