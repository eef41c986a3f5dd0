"""Predictions: the classes that a network finds most probable for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.predictions.result import Predictions
from interpret.execution.batch_size import batch_size_for
from interpret.execution.execution import prepared
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import check_items
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.answers import Reading, find_reading, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

PICTURES = 64
"""How many images' pictures a result keeps."""
TELLING = 0.8
"""Probability of a class that the network knows, and can still be made to doubt where a part is hidden."""


def predict(
    model: Model | nn.Module,
    data: Any,
    items: Sequence[int] | None = None,
    k: int | None = None,
    *,
    labels: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> Predictions:
    """Return the k most probable classes of some images, with their probabilities.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    >>> predictions = predict(network, torch.rand(9, 1, 4, 4), items=[0, 7], k=3, labels=[5, 2])
    >>> predictions.top.shape, predictions.truth
    ((2, 3), array([5, 2]))
    >>> bool((predictions.probabilities.sum(1) <= 1).all())
    True

    Args:
        model: the network, whose output is one score a class; it runs in evaluation mode and is left as it was.
        data: the images, as `interpret.open_images` takes them.
        items: which of them, in this order; None: all. The result keeps the pictures of the first 64.
        k: how many classes, at most as many as the network has; None: 5, or all if there are fewer.
        labels: the right class of each of the items, −1 where it is not known; None: those of the data, if they are
            labels of the network's classes.
        batch_size, device: how the network runs; see `interpret`.

    Returns:
        `Predictions`, to be drawn by `interpret.results.plotting.plot`. Classes of one probability come in their order.

    Raises:
        InterpretError: k or an item out of range, labels that are no classes or not one an item, an output that is no
            finite score a class.

    The network's outputs become probabilities as `interpret.network.answers` finds, or as the model's `outputs` says;
    the result tells which way. One output for each image is the score of the second of two classes.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    Fig. 4 (left).
    """
    model = as_model(model)
    images = open_images(data, model)
    chosen = list(range(len(images))) if items is None else list(items)
    check_items("items", chosen, images)
    inputs: list[Tensor] = []
    probabilities: list[Tensor] = []
    reading: Reading | None = None
    first = torch.stack([images[item][0] for item in chosen[:2]])
    refuse_other_type(model.module, first)
    with prepared(model, first, device) as run, progress(len(chosen), "predicting", "img") as bar:
        size = batch_size_for(batch_size, math.prod(first.shape[2:]), run.device)
        for start in range(0, len(chosen), size):
            batch = torch.stack([images[item][0] for item in chosen[start : start + size]])
            refuse_other_type(model.module, batch)
            with torch.inference_mode():
                placed = run.place(batch)
                reading = reading or find_reading(model, placed)
                outputs = call_network(model.module, placed)
                probabilities.append(reading.probabilities(scores_of(outputs, len(batch))).cpu())
            if start < PICTURES:
                inputs.append(batch[: PICTURES - start].clone())
            bar.update(len(batch))
    assert reading is not None
    scores = torch.cat(probabilities).numpy()
    if k is None:
        k = min(5, scores.shape[1])
    if not 1 <= k <= scores.shape[1]:
        raise InterpretError(f"k must be from 1 to {scores.shape[1]}, the network's number of classes, not {k}")
    truth = _truth(model, images, chosen, labels, scores.shape[1])
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    known = truth >= 0
    of_truth = np.where(known, scores[np.arange(len(scores)), np.maximum(truth, 0)], np.nan)
    return Predictions(
        model=model.name,
        data=images.name,
        names=[images.source_name(int(images.sources[item])) for item in chosen],
        pictures=inputs_to_bytes(torch.cat(inputs), images.pixel_scale),
        shown=images.pixel_scale.said,
        top=top.astype(np.int64),
        probabilities=np.take_along_axis(scores, top, 1),
        truth=truth,
        true_probabilities=of_truth,
        classes=None if model.classes is None else list(model.classes),
        outputs=reading.outputs,
        part=reading.part,
        sources=images.sources[chosen],
        class_count=scores.shape[1],
    )


def known_labels(model: Model, images: Images) -> NDArray[np.int64]:
    """Return the data's labels where they are of the network's classes, otherwise −1 for all."""
    if model.classes is not None and images.classes is not None and tuple(images.classes) != tuple(model.classes):
        return np.full(len(images), -1, np.int64)
    return images.labels


def _truth(
    model: Model, images: Images, chosen: list[int], labels: Sequence[int] | None, classes: int
) -> NDArray[np.int64]:
    if labels is None:
        truth = known_labels(model, images)[chosen]
        return np.where((truth >= 0) & (truth < classes), truth, -1)
    if len(labels) != len(chosen):
        raise InterpretError(f"labels must be one for each of the {len(chosen)} items, not {len(labels)}")
    odd = next((label for label in labels if not -1 <= label < classes), None)
    if odd is not None:
        raise InterpretError(f"labels must be from 0 to {classes - 1}, or -1 for none, not {odd}")
    return np.array(labels, np.int64)


def different_classes(
    model: Model | nn.Module,
    data: Any,
    count: int,
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> list[int]:
    """Return items of a data set that are of different classes, as examples of what a network does.

    >>> images = torch.eye(16)[[7, 7, 3, 7]].view(4, 1, 4, 4)
    >>> different_classes(nn.Flatten(), images, 2)  # whose outputs are the pixels: the brightest is the class
    [0, 2]

    They are spread over the data, each of another source. Where the data has labels these are their classes, and
    otherwise what the network says of sixteen times as many images as are asked for: of each part of the data, the one
    to which it gives a probability nearest to 0.8: it knows the image, and can still be made to doubt. Those that
    cannot be read are passed over. Where there are fewer classes than that, items of the same one fill up.

    Args:
        model: the network, whose output is one score a class.
        data: the images, as `interpret.open_images` takes them.
        count: how many, at most as many as there are.
        batch_size, device: as in `predict`.
    """
    model = as_model(model)
    images = open_images(data, model)
    _, firsts = np.unique(images.sources, return_index=True)
    among = firsts if count <= len(firsts) else np.arange(len(images))
    classes, off = images.labels[among], np.zeros(len(among))
    if (classes < 0).any():
        spread = np.unique(np.linspace(0, len(among) - 1, min(16 * count, len(among))).round().astype(int))
        among = np.array([item for item in among[spread].tolist() if _can_be_read(images, item)], np.int64)
        if not len(among):
            raise InterpretError(f"data {images.name!r} has no image that can be read")
        answers = predict(model, images, among.tolist(), 1, batch_size=batch_size, device=device)
        classes, off = answers.top[:, 0], np.abs(answers.probabilities[:, 0] - TELLING)
    # evenly spread places first; from each, the most telling item around it, or the nearest, of a new class
    found: list[int] = []
    spacing = len(among) / count
    for place in np.linspace(0, len(among) - 1, min(count, len(among))):
        distance = np.abs(np.arange(len(among)) - place)
        order = np.lexsort((distance, np.where(distance < spacing / 2, off, 1))).tolist()
        seen = {classes[one] for one in found}
        new = [one for one in order if classes[one] not in seen] or [one for one in order if one not in found]
        found.append(new[0])
    return [int(among[one]) for one in sorted(found)]


def _can_be_read(images: Images, item: int) -> bool:
    try:
        images[item]
    except InterpretError:
        return False
    return True
