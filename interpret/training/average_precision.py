"""Average precision: how well detections find the objects of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou


def average_precisions(
    found: Sequence[Mapping[str, Tensor]], true: Sequence[Mapping[str, Tensor]], classes: int, overlap: float = 0.5
) -> tuple[float, ...]:
    """Return the average precision of each class; NaN for a class without objects.

    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> found = {"boxes": box.repeat(2, 1), "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 1])}
    >>> average_precisions([found], [{"boxes": box, "labels": torch.tensor([0])}], classes=2)
    (1.0, nan)

    Detections are taken from the highest score down. One is right if its image has an object of its class that it
    overlaps by at least `overlap` (intersection over union) and that no detection before it took; of several such
    objects it takes the one that it overlaps most. After each detection, the precision is the right share of those so
    far, and the recall is the share of the objects that they found. The result is the area under the precision over
    the recall, where the precision at a recall is the highest at this or any higher one. Detections of equal scores
    keep their order.

    Args:
        found: for each image the detections: `boxes` [N, 4] as (left, top, right, bottom), `scores` [N], `labels` [N].
        true: for each image the objects: `boxes` [M, 4] and `labels` [M].
        classes: the number of classes.
        overlap: the least overlap.

    Source: Everingham et al., "The Pascal visual object classes challenge", 2010, section 4.2, with the area under
    all points of the curve, as the challenge has it since 2010.
    """
    return tuple(_average_precision(found, true, label, overlap) for label in range(classes))


def _average_precision(
    found: Sequence[Mapping[str, Tensor]], true: Sequence[Mapping[str, Tensor]], label: int, overlap: float
) -> float:
    objects = sum(int((image["labels"] == label).sum()) for image in true)
    scores, right = [], []
    for detections, image in zip(found, true, strict=True):
        chosen = detections["labels"] == label
        order = detections["scores"][chosen].argsort(descending=True, stable=True)
        boxes = detections["boxes"][chosen][order]
        shared = box_iou(boxes, image["boxes"][image["labels"] == label].to(boxes.dtype))
        scores.append(detections["scores"][chosen][order])
        right.append(_take(shared.cpu().numpy(), overlap))
    if not objects:
        return float("nan")
    hits = np.concatenate(right)[torch.cat(scores).argsort(descending=True, stable=True).cpu().numpy()]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / objects)


def _take(shared: np.ndarray, overlap: float) -> np.ndarray:
    """Return which detections (rows, the surest first) are right, where each object (column) is taken once."""
    right, free = np.zeros(len(shared), bool), np.ones(shared.shape[1], bool)
    for row, of_objects in enumerate(shared):
        left = np.where(free, of_objects, -1)
        if left.size and left.max() >= overlap:
            right[row], free[left.argmax()] = True, False
    return right
