"""The loss functions that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.network.grid_boxes import BOX_UNITS, box_corners

RUBBISH_DISTANCE = 10.0
"""The constant j of the maximum a posteriori criterion; the paper does not give its value."""


def map_criterion(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the maximum a posteriori criterion of outputs that are negative distances, averaged over the images.

    >>> import torch
    >>> map_criterion(torch.tensor([[-1.0, -30.0]]), torch.tensor([0])).item() < 0.001
    True

    With a distance y_i to each class i and the right class D, it is y_D + log(e^-j + sum_i e^-y_i): the cross-entropy
    over the classes and one more, "rubbish", at the constant distance j = 10 from every image. So the distance to the
    right class must be small, and not only smaller than the others.

    Args:
        outputs: [B, classes].
        labels: int64 [B].

    Source: LeCun et al. 1998, section II.C, equation 9.
    """
    return F.cross_entropy(F.pad(outputs, (0, 1), value=-RUBBISH_DISTANCE), labels)


PLACE_WEIGHT, EMPTY_WEIGHT = 5.0, 0.5
"""The constants lambda_coord and lambda_noobj of YOLO's loss."""


def yolo_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of YOLO: squared errors of boxes, confidences and classes, averaged over the images.

    >>> from interpret.network.grid_boxes import encode_boxes
    >>> grid = encode_boxes(torch.tensor([[4, 8, 20, 24]]), torch.tensor([1]), 3, (2, 2), (32, 32), torch.float32)
    >>> yolo_loss(grid[None], grid[None]).item()
    0.0

    Of the boxes of a cell that is responsible for an object, the one that overlaps it most is responsible: its place
    and size count, 5 times, and its confidence should be the overlap (intersection over union). The confidence of
    every other box should be 0, and counts half. The classes count in cells that are responsible for an object.

    Args:
        outputs: [B, 5 · boxes + classes, rows, columns], as `interpret.network.grid_boxes.decode_boxes` takes them.
        targets: [B, 5 + classes, rows, columns], as `interpret.network.grid_boxes.encode_boxes` gives them.

    Source: Redmon et al. 2016, section 2.2, equation 3.
    """
    classes = targets.shape[1] - BOX_UNITS
    predicted, wanted = outputs[:, :-classes].unflatten(1, (-1, BOX_UNITS)), targets[:, None, :BOX_UNITS]
    with torch.no_grad():
        overlaps = _overlaps(box_corners(predicted), box_corners(wanted))  # [B, boxes, rows, columns]
        responsible = wanted[:, :, 4] * F.one_hot(overlaps.argmax(1), predicted.shape[1]).movedim(-1, 1)
    places = (predicted[:, :, :4] - wanted[:, :, :4]).square().sum(2)
    confidence = predicted[:, :, 4]
    kinds = (outputs[:, -classes:] - targets[:, BOX_UNITS:]).square().sum(1)
    errors = [
        (PLACE_WEIGHT * responsible * places).sum(),
        (responsible * (confidence - overlaps).square()).sum(),
        (EMPTY_WEIGHT * (1 - responsible) * confidence.square()).sum(),
        (targets[:, 4] * kinds).sum(),
    ]
    return torch.stack(errors).sum() / len(outputs)


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes [..., 4, rows, columns], each with the one at its own place."""
    low, high = torch.maximum(first, second), torch.minimum(first, second)
    joint = torch.cat([low[..., :2, :, :], high[..., 2:, :, :]], -3)
    both = _area(joint)
    return both / (_area(first) + _area(second) - both).clamp(min=torch.finfo(both.dtype).tiny)


def _area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes [..., 4, rows, columns]; 0 for one that ends before it begins."""
    left, top, right, bottom = boxes.unbind(-3)
    return (right - left).clamp(min=0) * (bottom - top).clamp(min=0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "map": map_criterion,
    "yolo": yolo_loss,
}
