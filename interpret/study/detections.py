"""Keep the boxes that a detector finds in the source images of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.execution.execution import Execution, prepared
from interpret.execution.ranks import ranks
from interpret.images.batches import first_images
from interpret.images.sources import Images
from interpret.network.forward import call_network
from interpret.support.checksums import sealed_json
from interpret.support.errors import InterpretError
from interpret.support.files import any_file, write_text
from interpret.support.progress import progress

if TYPE_CHECKING:
    from interpret.study.study import Study

LEAST_SCORE = 0.5
"""The least score of a box that is kept."""
MOST_BOXES = 20
"""The most boxes that are kept of an image."""


def detect_in_sources(study: Study, images: Images, items: NDArray[np.int64]) -> None:
    """Keep what a detector finds in the central part of source images; nothing of another network.

    Args:
        study: the study, which is not given what it has already.
        images: the central parts.
        items: which of them.
    """
    if not ranks().first or not len(items):
        return
    model, _ = study.to_compute()
    known: dict[int, list[dict[str, Any]]] = study.detections()
    missing = [item for item in items.tolist() if int(images.sources[item]) not in known]
    if not missing:
        return
    with prepared(model, first_images(images), study.device) as run:
        if find_boxes(run.module, run.place(first_images(images)[:1])) is None:
            return
        size = run.batch_size(study.batch_size)
        with progress(len(missing), "detecting", "img") as bar:
            for start in range(0, len(missing), size):
                part = missing[start : start + size]
                known |= _found_in(run, images, part, model.classes)
                bar.update(len(part))
    kept = {str(source): known[source] for source in sorted(known)}
    write_text(study.detections_file, sealed_json(kept, indent=0), any_file)


def _found_in(
    run: Execution, images: Images, items: list[int], classes: tuple[str, ...] | None
) -> dict[int, list[dict[str, Any]]]:
    """Return what is found, by source; nothing of images that do not decode."""
    read = []
    for item in items:
        try:
            read.append((item, images[item][0]))
        except InterpretError:  # which mining has named
            continue
    answers = find_boxes(run.module, run.place(torch.stack([image for _, image in read]))) if read else None
    found = {}
    for (item, image), answer in zip(read, answers or (), strict=True):
        top, left, bottom, right = images.window(item)
        sides = np.array([*image.shape[1:]] * 2)
        kept = []
        for box, score, label in answer:
            inside = np.array(box)[[1, 0, 3, 2]] / sides * ([bottom - top, right - left] * 2) + [top, left] * 2
            name = "" if label is None else classes[label] if classes and label < len(classes) else f"class {label}"
            box = np.clip(inside, 0, 1).round(4).tolist()
            kept.append({"box": box, "score": round(score, 4), "name": name})
        found[int(images.sources[item])] = kept
    return found


_Box = tuple[list[float], float, int | None]


def find_boxes(module: nn.Module, images: Tensor) -> list[list[_Box]] | None:
    """Return the boxes that a detector finds in images [B, C, H, W]; None for a network that is no detector.

    >>> find_boxes(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4)) is None
    True

    A detector returns, or its method `detect` does, for each image a mapping with `boxes` [n, 4], as (left, top, right,
    bottom) in pixels, `scores` [n] and, if it has classes, `labels` [n]. Of each image at most 20 boxes with scores of
    at least 0.5 are returned, the surest first, each with its score and label.
    """
    detect = getattr(type(module), "detect", None)  # not a layer of this name
    with torch.inference_mode():
        try:
            answers = detect(module, images) if callable(detect) else call_network(module, images)
        except Exception:  # a method of this name that takes something else
            return None
    if not isinstance(answers, list | tuple) or len(answers) != len(images):
        return None
    if not all(isinstance(one, Mapping) and {"boxes", "scores"} <= one.keys() for one in answers):
        return None
    found = []
    for one in answers:
        scores = one["scores"].cpu()
        order = scores.argsort(descending=True, stable=True)[:MOST_BOXES]
        order = order[scores[order] >= LEAST_SCORE]
        labels = one["labels"].cpu()[order].tolist() if "labels" in one else [None] * len(order)
        found.append(list(zip(one["boxes"].cpu()[order].tolist(), scores[order].tolist(), labels, strict=True)))
    return found
