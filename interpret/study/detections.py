"""Keep the boxes that a detector finds in the source images of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.execution.execution import prepared
from interpret.execution.ranks import LostRank, State, ranks
from interpret.execution.resume import UnfinishedParts
from interpret.images.batches import first_images
from interpret.images.selected_images import SelectedImages
from interpret.images.sources import Images
from interpret.network.forward import call_network
from interpret.study.answering import ReadingFailed, answers_to_images, forget, to_answer
from interpret.support.checksums import sealed_json
from interpret.support.errors import InterpretError, warn
from interpret.support.files import any_file, write_text

if TYPE_CHECKING:
    from interpret.study.study import Study

LEAST_SCORE = 0.5
"""The least score of a box that is kept."""
MOST_BOXES = 20
"""The most boxes that are kept of an image."""

_Box = tuple[list[float], float, int | None]
"""(left, top, right, bottom) in pixels, the score and the label."""


def detect_in_sources(study: Study, images: SelectedImages) -> None:
    """Keep what a detector finds in the central parts of source images, one for each; nothing of another network.

    Each save keeps what was found since the last, and what the study has is not looked for again.
    """
    model, _ = study.to_compute()
    unfinished = UnfinishedParts(study.path / "unfinished" / "detections", {}, study.write_info)
    known = ranks().once(lambda: np.array(sorted(study.detections()), np.int64))
    if not to_answer(study, images, known).any():
        ranks().once(lambda: forget(study, unfinished))
        return
    first = first_images(images)
    with prepared(model, first, study.device) as run:
        if find_boxes(run.module, run.place(first[:1])) is None:
            return

        def answer(items: NDArray[np.int64], shown: Tensor) -> State:
            answers = find_boxes(run.module, run.place(shown))
            if answers is None:
                name = images.source_name(int(images.sources[items[0]]))
                raise InterpretError(
                    f"the network returns no boxes for the batch of {len(items)} that begins with {name!r}, but does "
                    "for one image"
                )
            return _columns(images, items, shown.shape[2:], answers)

        try:
            found = answers_to_images(study, run, images, known, unfinished, "detecting", answer)
        except (LostRank, ReadingFailed):
            raise
        except InterpretError as error:
            warn(f"{error}: the pages of images show no boxes")
            return
    ranks().once(lambda: _keep(study, found))
    ranks().once(lambda: forget(study, unfinished))


def _columns(images: Images, items: NDArray[np.int64], sides: tuple[int, ...], answers: list[list[_Box]]) -> State:
    """Return how many boxes each image has, and all boxes in fractions of the pictures, their scores and labels."""
    places = []
    for item, answer in zip(items.tolist(), answers, strict=True):
        top, left, bottom, right = images.window(item)
        corners = np.array([box for box, _, _ in answer]).reshape(-1, 4)[:, [1, 0, 3, 2]] / np.array([*sides] * 2)
        places.append(np.clip(corners * ([bottom - top, right - left] * 2) + [top, left] * 2, 0, 1))
    together = [one for answer in answers for one in answer]
    return {
        "counts": torch.tensor([len(answer) for answer in answers]),
        "boxes": torch.from_numpy(np.concatenate(places)),
        "scores": torch.tensor([score for _, score, _ in together], dtype=torch.float64),
        "labels": torch.tensor([-1 if label is None else label for _, _, label in together], dtype=torch.int64),
    }


def _keep(study: Study, found: list[State]) -> None:
    """Keep what was found with what the study had, by source."""
    model, _ = study.to_compute()
    classes = model.classes or ()
    kept: dict[int, list[dict[str, Any]]] = study.detections()
    for part in found:
        counts = part["counts"].tolist()
        columns = (part[name].split(counts) for name in ("boxes", "scores", "labels"))
        for source, boxes, scores, labels in zip(part["sources"].tolist(), *columns, strict=True):
            kept[source] = [
                {
                    "box": box.numpy().round(4).tolist(),
                    "score": round(score, 4),
                    "name": "" if label < 0 else classes[label] if label < len(classes) else f"class {label}",
                }
                for box, score, label in zip(boxes, scores.tolist(), labels.tolist(), strict=True)
            ]
    by_source = {str(source): kept[source] for source in sorted(kept)}
    write_text(study.detections_file, sealed_json(by_source, indent=0), any_file)


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
