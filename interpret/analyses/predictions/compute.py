"""Predict the most probable classes of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.predictions.result import Predictions
from interpret.execution.execution import Execution, prepared
from interpret.execution.ranks import ranks
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import check_items
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.answers import Reading, check_class_names, find_reading, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.model import Model, as_model
from interpret.results.result import stacked
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

MOST_PICTURES = 64
"""The largest number of images whose pictures a result keeps."""
INFORMATIVE_PROBABILITY = 0.8
"""Probability at which the network is sure of the class, and hiding a part of the image can still lower it."""


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

    The model's `outputs` field says how outputs become probabilities; if it is None, this is found from
    the values. The result's `outputs` says which way was used. A single output per image is the score of
    the second of two classes.

    Args:
        model: the network, whose output is one score per class; it runs in evaluation mode and is restored afterwards.
        data: the images, as `interpret.open_images` takes them.
        items: indices of the images, in this order; None: all. The result keeps the pictures of the first 64.
        k: number of classes to return, at most the network's number of classes; None: 5, or all if there are fewer.
        labels: the true class of each item, −1 if unknown; None: the data's labels, if they index the network's
            classes.
        batch_size, device: see `interpret`.

    Returns:
        `Predictions`, which `interpret.plot` draws. Classes of equal probability are sorted by index.

    Raises:
        InterpretError: k or an item is out of range; a label is not a class index, or there is not one label per item;
            the output is not one finite score per class.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    Fig. 4 (left).
    """
    model = as_model(model)
    images = open_images(data, model)
    chosen = list(range(len(images))) if items is None else list(items)
    check_items("items", chosen, images)
    first = torch.stack([images[item][0] for item in chosen[:2]])
    refuse_other_type(model.module, first)
    with prepared(model, first, device) as run, progress(len(chosen), "predicting", "img") as bar:
        size = run.batch_size(batch_size)
        reading = find_class_reading(model, run.place(first))
        k = check_k(k, reading.classes)
        truth = right_classes(model, images, chosen, labels, reading.classes)

        def answer(start: int) -> tuple[dict[str, NDArray[Any]], Tensor]:
            batch = torch.stack([images[item][0] for item in chosen[start : start + size]])
            refuse_other_type(model.module, batch)
            found = most_probable(model, run, reading, batch, truth[start : start + size], k)
            bar.update(len(batch))
            return found, batch[: max(0, MOST_PICTURES - start)].clone()

        found = ranks().mapped(range(0, len(chosen), size), answer)
    tables = stacked([table for table, _ in found])
    return predictions_of(model, images, chosen, tables, torch.cat([inputs for _, inputs in found]), reading, truth)


def check_k(k: int | None, classes: int) -> int:
    """Return how many of a network's classes are returned for each image."""
    if k is None:
        return min(5, classes)
    if not 1 <= k <= classes:
        raise InterpretError(f"k must be from 1 to {classes}, the network's number of classes, not {k}")
    return k


def find_class_reading(model: Model, images: Tensor) -> Reading:
    """Return how the network's outputs become probabilities, from the first image."""
    reading = find_reading(model, images)
    check_class_names(model, reading.classes)
    return reading


def most_probable(
    model: Model, run: Execution, reading: Reading, batch: Tensor, truth: NDArray[np.int64], k: int
) -> dict[str, NDArray[Any]]:
    """Return the k most probable classes of a batch, their probabilities, and that of the true class, if known."""
    with torch.inference_mode():
        outputs = call_network(model.module, run.place(batch))
        scores = reading.probabilities(scores_of(outputs, len(batch))).cpu().numpy()
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    of_truth = scores[np.arange(len(scores)), np.maximum(truth, 0)]
    return {
        "top": top.astype(np.int64),
        "probabilities": np.take_along_axis(scores, top, 1),
        "true_probabilities": np.where(truth >= 0, of_truth, np.nan),
    }


def predictions_of(
    model: Model,
    images: Images,
    chosen: Sequence[int] | NDArray[np.int64],
    tables: Mapping[str, NDArray[Any]],
    inputs: Tensor,
    reading: Reading,
    truth: NDArray[np.int64],
) -> Predictions:
    """Return the result of what `most_probable` has found for some items, with pictures of the first inputs."""
    return Predictions(
        model=model.name,
        data=images.name,
        names=[images.source_name(source) for source in images.sources[chosen].tolist()],
        pictures=inputs_to_bytes(inputs, images.pixel_scale),
        shown=images.pixel_scale.said,
        truth=truth,
        classes=None if model.classes is None else list(model.classes),
        outputs=reading.outputs,
        part=reading.part,
        sources=images.sources[chosen],
        class_count=reading.classes,
        **tables,
    )


def known_labels(model: Model, images: Images) -> NDArray[np.int64]:
    """Return the data's labels if its classes are the network's, otherwise −1 for all."""
    if model.classes is not None and images.classes is not None and tuple(images.classes) != tuple(model.classes):
        return np.full(len(images), -1, np.int64)
    return images.labels


def right_classes(
    model: Model, images: Images, chosen: Sequence[int] | NDArray[np.int64], labels: Sequence[int] | None, classes: int
) -> NDArray[np.int64]:
    """Return the right class of each chosen item, −1 where it is unknown."""
    if labels is None:
        truth = known_labels(model, images)[np.asarray(chosen, np.int64)]
        return np.where((truth >= 0) & (truth < classes), truth, -1)
    if len(labels) != len(chosen):
        raise InterpretError(f"labels must be one for each of the {len(chosen)} items, not {len(labels)}")
    wrong = next((label for label in labels if not -1 <= label < classes), None)
    if wrong is not None:
        raise InterpretError(f"labels must be from 0 to {classes - 1}, or -1 for none, not {wrong}")
    return np.array(labels, np.int64)


def different_classes(
    model: Model | nn.Module,
    data: Any,
    count: int,
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> list[int]:
    """Return items of different classes, as examples of a data set.

    >>> images = torch.eye(16)[[7, 7, 3, 7]].view(4, 1, 4, 4)
    >>> different_classes(nn.Flatten(), images, 2)  # the outputs are the pixels: the brightest pixel is the class
    [0, 2]

    They are spread evenly over the data, each from another source. The classes are the data's labels. If there are
    none, the network predicts the classes of sixteen times as many images as are asked for, and of each part of the
    data the image is chosen whose probability is nearest to 0.8: the network knows it, and hiding a part can still
    lower the probability. Images that cannot be read are left out. If there are fewer classes than items, classes
    repeat.

    Args:
        model: the network, whose output is one score per class.
        data: the images, as `interpret.open_images` takes them.
        count: number of items, at most as many as there are.
        batch_size, device: as in `predict`.
    """
    model = as_model(model)
    images = open_images(data, model)
    _, firsts = np.unique(images.sources, return_index=True)
    among = firsts if count <= len(firsts) else np.arange(len(images))
    classes, distance_to_informative = images.labels[among], np.zeros(len(among))
    if (classes < 0).any():
        spread = np.unique(np.linspace(0, len(among) - 1, min(16 * count, len(among))).round().astype(int))
        among = np.array([item for item in among[spread].tolist() if _is_readable(images, item)], np.int64)
        if not len(among):
            raise InterpretError(f"data {images.name!r} has no image that can be read")
        answers = predict(model, images, among.tolist(), 1, batch_size=batch_size, device=device)
        classes, distance_to_informative = (
            answers.top[:, 0],
            np.abs(answers.probabilities[:, 0] - INFORMATIVE_PROBABILITY),
        )
    # near each of `count` evenly spread places: the item of a new class whose probability is nearest to 0.8
    found: list[int] = []
    spacing = len(among) / count
    for place in np.linspace(0, len(among) - 1, min(count, len(among))):
        distance = np.abs(np.arange(len(among)) - place)
        order = np.lexsort((distance, np.where(distance < spacing / 2, distance_to_informative, 1))).tolist()
        seen = {classes[one] for one in found}
        new = [one for one in order if classes[one] not in seen] or [one for one in order if one not in found]
        found.append(new[0])
    return [int(among[one]) for one in sorted(found)]


def _is_readable(images: Images, item: int) -> bool:
    try:
        images[item]
    except InterpretError:
        return False
    return True
