"""Boxes on a grid of cells: the targets and the outputs of YOLO.

J. Redmon, S. Divvala, R. Girshick and A. Farhadi, "You only look once: unified, real-time object detection", 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

BOX_UNITS = 5
"""Units of a predicted box: x, y, the roots of its width and height, and its confidence."""


def encode_boxes(
    boxes: Tensor, labels: Tensor, classes: int, cells: tuple[int, int], size: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """Return boxes as the outputs that a network with one box a cell should give, [5 + classes, rows, columns].

    >>> grid = encode_boxes(torch.tensor([[4, 8, 20, 24]]), torch.tensor([1]), 3, (2, 2), (32, 32), torch.float32)
    >>> grid[:, 1, 0].tolist()
    [0.75, 0.0, 0.7071067690849304, 0.7071067690849304, 1.0, 0.0, 1.0, 0.0]

    The cell that holds the middle of a box is responsible for it. Its units are x and y of the middle, as parts of the
    cell; the square roots of width and height, as parts of the image, so that an error weighs more in a small box; the
    confidence, 1; and 1 for the box's class. All other units are 0. Of boxes with their middles in one cell, the last
    stays.

    Args:
        boxes: [N, 4] as (left, top, right, bottom) in pixels, inside the image.
        labels: int64 [N], from 0.
        classes: the number of classes.
        cells: rows and columns of the grid.
        size: height and width of the image.
        dtype: of the result.
    """
    rows, columns = cells
    height, width = size
    left, top, right, bottom = boxes.to(dtype).unbind(1)
    x, y = (left + right) / 2 * (columns / width), (top + bottom) / 2 * (rows / height)
    column, row = x.long().clamp(max=columns - 1), y.long().clamp(max=rows - 1)
    grid = torch.zeros(BOX_UNITS + classes, rows, columns, dtype=dtype)
    units = torch.stack(
        [x - column, y - row, ((right - left) / width).sqrt(), ((bottom - top) / height).sqrt(), torch.ones_like(x)], 1
    )
    entries = torch.cat([units, F.one_hot(labels, classes).to(dtype)], 1)
    # one after the other: of an index that occurs twice, torch does not say which stays
    for y_cell, x_cell, entry in zip(row.tolist(), column.tolist(), entries, strict=True):
        grid[:, y_cell, x_cell] = entry
    return grid


def box_corners(units: Tensor) -> Tensor:
    """Return predicted boxes as (left, top, right, bottom), in parts of the image, [..., 4, rows, columns].

    Args:
        units: [..., at least 4, rows, columns]: x, y and the roots of width and height, as `encode_boxes` gives them.
    """
    rows, columns = units.shape[-2:]
    x, y, root_width, root_height = units[..., :4, :, :].unbind(-3)
    x = (x + torch.arange(columns, dtype=units.dtype, device=units.device)) / columns
    y = (y + torch.arange(rows, dtype=units.dtype, device=units.device)[:, None]) / rows
    half_width, half_height = root_width.square() / 2, root_height.square() / 2
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -3)


def decode_boxes(
    outputs: Tensor, classes: int, size: tuple[int, int], threshold: float = 0.25, overlap: float = 0.5
) -> list[dict[str, Tensor]]:
    """Return the boxes that a network's outputs stand for, the surest first.

    >>> grid = encode_boxes(torch.tensor([[4, 8, 20, 24]]), torch.tensor([1]), 3, (2, 2), (32, 32), torch.float64)
    >>> (found,) = decode_boxes(grid[None], 3, (32, 32))
    >>> found["boxes"].round().tolist(), found["labels"].tolist(), found["units"].tolist()
    ([[4.0, 8.0, 20.0, 24.0]], [1], [[4, 1, 0]])

    A box's score for a class is its confidence times its cell's output for the class. Of boxes of one class that
    overlap, the surest is kept (non-maximum suppression).

    Args:
        outputs: [B, 5 · boxes + classes, rows, columns]: for each box of a cell x, y, the roots of width and height,
            and the confidence; then the classes, as `encode_boxes` gives them.
        classes: the number of classes.
        size: height and width of the images, in pixels.
        threshold: the least score.
        overlap: of two boxes of one class that share more than this part of their union, the surer one is kept.

    Returns:
        For each image, as torchvision's detectors: `boxes` [N, 4] as (left, top, right, bottom) in pixels, clipped to
        the image, `scores` [N], `labels` [N] from 0; and `units` [N, 3]: the unit that gave the confidence, and its
        position (y, x).
    """
    height, width = size
    predicted, chances = outputs[:, :-classes].unflatten(1, (-1, BOX_UNITS)), outputs[:, -classes:]
    scores = predicted[:, :, 4, None] * chances[:, None]  # [B, boxes, classes, rows, columns]
    scale = outputs.new_tensor([width, height, width, height])
    corners = box_corners(predicted).clamp(0, 1).movedim(2, -1) * scale  # [B, boxes, rows, columns, 4]
    answers = []
    for of_image, places in zip(scores, corners, strict=True):
        box, label, row, column = (of_image > threshold).nonzero().unbind(1)
        boxes, found = places[box, row, column], of_image[box, label, row, column]
        kept = batched_nms(boxes, found, label, overlap)
        units = torch.stack([BOX_UNITS * box + 4, row, column], 1)
        answers.append({"boxes": boxes[kept], "scores": found[kept], "labels": label[kept], "units": units[kept]})
    return answers
