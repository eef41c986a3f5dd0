"""The invariance probe: how much a network's features change while its input is transformed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.invariance.batch_distances import BatchDistances, batch_distances
from interpret.analyses.invariance.curves import CurveAccumulator, merge_curves
from interpret.analyses.invariance.labelling import Labelling
from interpret.analyses.invariance.prober import Prober
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.analyses.invariance.surroundings import SurroundedImages, choose_fill
from interpret.analyses.invariance.transforms import (
    INTERPOLATION,
    Direction,
    Fill,
    Levels,
    Photometric,
    Transform,
    Translation,
    checked_reach,
    named_transform,
)
from interpret.execution.execution import Execution, prepared
from interpret.execution.ranks import ranks
from interpret.execution.reading import Reading, done_in, learn
from interpret.execution.resume import Unfinished
from interpret.images.display import inputs_to_pictures, shrink, to_bytes
from interpret.images.folded import FoldedImages, fold, folded_model, unfold
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.network.forward import refuse_other_type
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.wording import elements

EXAMPLES, EXAMPLE_VALUES, EXAMPLE_SIDE = 5, 5, 96
"""Number of images, number of values and side in pixels of the example pictures in a figure."""


def probe(
    model: Model | nn.Module,
    images: Any,
    transform: str | Transform,
    values: Iterable[float] | None = None,
    layers: str | Iterable[str] | None = None,
    labels: Iterable[int] | str | None = None,
    *,
    direction: Direction | None = None,
    fill: Fill | None = None,
    items: Iterable[int] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> InvarianceCurves:
    """Measure how much each layer's features and the label's probability change under a transform.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> curves = probe(network, images, "translation", [-2, -1, 0, 1], labels=[0, 1, 1])
    >>> curves.distances["0"].shape, curves.probabilities.shape
    ((3, 4), (3, 4))
    >>> curves.distances["0"][:, 2]
    array([0., 0., 0.], dtype=float32)
    >>> curves.unit_distances["0"].shape
    (4, 4)

    The transforms are "translation", "scale", "rotation", "illumination", "contrast", "blur", "noise" and "viewpoint".
    Geometric transforms interpolate bilinearly, with enough samples per
    pixel when they shrink; a translation by whole pixels copies the pixels.

    The **distance** of a layer is the Euclidean distance between its features of the transformed and of the
    untransformed image. The **equivariance error** of a translation measures whether features have merely moved: it
    translates the features of the untransformed image by the translation divided by the layer's stride, and takes their
    Euclidean distance to the features of the translated image, divided by the norm of the former. Fractional shifts
    interpolate linearly between neighbouring positions. Positions that enter over the border are left out of distance
    and norm; the error is NaN if none remains. Layers without positions have no equivariance error. The stride is that
    of the local field or, after an operation that mixes the whole image, the rounded ratio of input and output size.

    A job runs some images untransformed and at up to 32 values. Only distances are kept, so memory use does not grow
    with the numbers of images and values.

    The model's `outputs` field says how outputs become probabilities; if it is None, this is found from
    the first image's. A single output per image is the score of the second of two classes.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        images: inputs [B, C, H, W], or anything else that `interpret.open_images` takes. Signals and volumes are
            translated alone: signals in time, volumes along their rows and columns.
        transform: a name, or your own `Transform`.
        values: the values in the transform's unit, such as pixels, ratios or degrees. None: the paper's values (−60 …
            60 pixels of 224, ratios 1 … 1.8, 0 … 350 degrees); for the other transforms, a range that includes the
            identity.
        layers: names or globs; None: every convolutional and linear layer. A glob matches only layers that run.
        labels: B indices of the network's outputs, −1 if unknown; "predicted": the network's prediction for the
            untransformed image; None: the labels of the data, if it has any.
        direction: direction of a translation: "vertical" (the default), "horizontal" or "diagonal".
        fill: how to fill pixels that enter the picture: "context" (the photograph that the image was cropped from, and
            its reflection beyond the photograph's border), "reflect", "edge", "mean" (the image's mean colour) or
            "black". None: "context" if the source is larger than the input, otherwise "reflect".
        items: indices of the images; None: all.
        batch_size: number of images per forward pass; see `interpret`.
        workers: number of processes that decode images; 0: decode in the main process.
        seed: seed of the noise.
        device: the device that the network runs on; None: that of its parameters.
        resume_from: a file for the state, written every minute, at the end and when interrupted. The same call resumes
            from it; the file stays until you delete it. None: keep no state.

    Returns:
        `InvarianceCurves`, with one row per image that decodes, in the order of the images.

    Raises:
        InterpretError: an unknown transform, direction, layer or fill; values that are not finite or out of the
            transform's range, such as a scale of 0; labels that are not output indices, or not one per image; images
            that do not decode or do not fit the network; features that are not finite.

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.1 and figure 5. The
    paper does not say how it fills pixels that enter the picture and how it interpolates; the result records both. It
    plots distances in the first and the seventh layer and does not say whether it normalises them; the result has
    distances and norms.
    """
    model = as_model(model)
    data = open_images(images, model)
    task = _check(model, data, transform, values, layers, labels, direction, fill, items, seed)
    result = _run(task, batch_size, workers, device, resume_from).result()
    _describe(result, task)
    _draw(result, task)
    return result


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """The validated arguments."""

    model: Model
    data: Images
    images: SurroundedImages
    """The images to probe."""
    first: Tensor
    """[C, H, W] the first input that decodes."""
    prober: Prober
    labelling: Labelling
    shape: tuple[int, ...]
    """That of an input; signals and volumes are probed as `fold` makes images of them."""


def _check(
    model: Model,
    data: Images,
    transform: str | Transform,
    values: Iterable[float] | None,
    layers: str | Iterable[str] | None,
    labels: Iterable[int] | str | None,
    direction: Direction | None,
    fill: Fill | None,
    items: Iterable[int] | None,
    seed: int,
) -> _Task:
    """Validate the arguments before the network runs on the images."""
    chosen = _checked_items(items, len(data))
    first = _first_input(data, chosen)
    refuse_other_type(model.module, first)
    shape = tuple(first.shape)
    change = named_transform(transform, _direction_in(shape, transform, direction))
    if len(shape) != 3:
        moved = "translation" if len(shape) == 2 else change.axis.partition(" (")[0]
        change.axis = f"{moved} ({elements(len(shape) - 1)})"
        model, data, first = folded_model(model, shape), FoldedImages(data), fold(first[None])[0]
    size = (first.shape[1], first.shape[2])
    wanted = change.defaults(size) if values is None else change.checked(values)
    box = checked_reach(change, wanted.tolist(), size)
    levels = Levels.of(model.preprocess, len(first))
    surrounded = SurroundedImages(data, chosen, first.shape, box, choose_fill(fill, data, chosen, size), levels.black)
    prober = Prober(model, first, change, wanted, layers, levels, box, chosen, seed, shape)
    classes = None if prober.reading is None else prober.reading.classes
    return _Task(model, data, surrounded, first, prober, Labelling(labels, chosen, data, model, classes), shape)


def _direction_in(shape: Sequence[int], transform: str | Transform, direction: Direction | None) -> Direction | None:
    """Return the direction of a translation of inputs of a shape; refuse what only moves pixels of images."""
    if len(shape) == 3:
        return direction
    kind = {2: "signals", 4: "volumes"}[len(shape)]
    if transform != "translation" and not isinstance(transform, Translation):
        name = transform if isinstance(transform, str) else transform.name
        raise InterpretError(f"{name!r} changes images, and the network takes {kind}: probe them by translation")
    if len(shape) == 4:
        return direction
    moves = direction or (transform.direction if isinstance(transform, Translation) else "horizontal")
    if moves != "horizontal":
        raise InterpretError(f"direction {moves!r} moves rows, and signals have none: leave it out, or 'horizontal'")
    return None if isinstance(transform, Translation) else "horizontal"


def _checked_items(items: Iterable[int] | None, count: int) -> list[int]:
    chosen = list(range(count)) if items is None else [int(item) for item in items]
    if not chosen:
        raise InterpretError("items is empty: name at least one image, or leave it out for all")
    for item in chosen:
        if not 0 <= item < count:
            raise InterpretError(f"items must be from 0 to {count - 1}, not {item}")
    return chosen


def _first_input(data: Images, chosen: Sequence[int]) -> Tensor:
    """Return the first input that decodes."""
    reason: UnreadableImage | None = None
    for item in chosen:
        try:
            return data[item][0]
        except UnreadableImage as error:
            reason = reason or error
    raise InterpretError(f"none of the images can be read: {reason}")


# ---- run -------------------------------------------------------------------------------------------------------------


def _run(
    task: _Task,
    batch_size: int | None,
    workers: int,
    device: str | torch.device | None,
    resume_from: str | os.PathLike[str] | None,
) -> CurveAccumulator:
    """Run all images at all values, resuming an unfinished probe; of several ranks, each runs a share."""
    prober, images = task.prober, task.images
    group, spans = prober.plan(batch_size)
    curves = CurveAccumulator(prober, images, len(spans))
    unfinished = _unfinished(task, resume_from)
    before = unfinished.load() if ranks().first else {}
    reading = Reading(images, group, ranks().agreed(done_in(before)))

    def jobs(run: Execution) -> Iterator[Callable[[nn.Module], BatchDistances]]:
        for batch in reading.batches(workers):
            labels = task.labelling.of(batch)
            for span in spans:
                yield partial(batch_distances, prober=prober, batch=batch, labels=labels, columns=span, run=run)

    until = prober.layers if prober.reading is None else None
    with (
        prepared(task.model, task.first[None], device, until) as run,
        reading.progress("probing", len(prober.values)) as bar,
    ):

        def update(found: BatchDistances) -> None:
            if curves.update(found):
                reading.reach(found.rows[0])
            bar.update(len(found.rows) * len(found.columns))

        def state() -> dict[str, Tensor]:
            own = reading.state_dict() | curves.state_dict() if len(reading.done) else {}
            return merge_curves(before, ranks().reduced(own, merge_curves))

        found = unfinished.process(reading.to_the_end(run.side_by_side(jobs(run))), update, state)
    found = ranks().agreed(found)
    curves.load_state_dict(found)
    learn(images, found)
    task.data.skipped.update(images.skipped)
    return curves


def _unfinished(task: _Task, resume_from: str | os.PathLike[str] | None) -> Unfinished:
    """Return the state from which the same call resumes."""
    change = task.prober.change
    return Unfinished.of(
        resume_from,
        task.model,
        task.data,
        format=4,  # of the state
        transform=[type(change).__qualname__, {key: repr(value) for key, value in vars(change).items()}],
        values=task.prober.values.tolist(),
        layers=task.prober.layers,
        labels=task.labelling.settings,
        fill=task.images.fill,
        items=list(task.prober.items),
        seed=task.prober.seed,
    )


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _describe(result: InvarianceCurves, task: _Task) -> None:
    """Add the settings of the probe to the result."""
    change, reading = task.prober.change, task.prober.reading
    result.direction = change.direction if isinstance(change, Translation) else ""
    result.predicted = task.labelling.predicted
    result.model, result.data, result.seed = task.model.name, task.data.name, task.prober.seed
    if reading is not None:
        result.outputs, result.part = reading.outputs, reading.part
    if not isinstance(change, Photometric):  # photometric transforms do not move pixels
        result.fill, result.interpolation = task.images.fill, INTERPOLATION


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(result: InvarianceCurves, task: _Task) -> None:
    """Add pictures of a few images at a few values, both evenly spaced over the probed ones."""
    assert result.items is not None
    model, data, prober = task.model, task.data, task.prober
    values, scale = np.unique(result.values), (data.data if isinstance(data, FoldedImages) else data).pixel_scale
    shown, rows = values[_spread(len(values), EXAMPLE_VALUES)], _spread(len(result.items), EXAMPLES)
    pictures, names = [], []
    for place in rows.tolist():
        item = int(result.items[place])
        row = prober.items.index(item)
        scene = prober.scene(task.images[row][0][None], [row])
        inputs = torch.cat([prober.change(scene, float(value))[:, :-1] for value in shown]).float()
        drawn = inputs_to_pictures(unfold(inputs, task.shape), scale)
        pictures.append(to_bytes(shrink(drawn, EXAMPLE_SIDE)))
        label = -1 if result.labels is None else int(result.labels[place])
        if label >= 0:
            names.append(model.classes[label] if model.classes is not None else str(label))
        else:
            names.append(data.source_name(int(data.sources[item])))
    result.examples, result.example_rows, result.example_values = np.stack(pictures), rows, shown
    result.shown = scale.said
    result.names = names


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` evenly spaced indices from 0 to `count` − 1."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
