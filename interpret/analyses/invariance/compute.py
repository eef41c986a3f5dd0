"""The invariance probe: how far a network's features move while its input is translated, scaled or rotated."""

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
from interpret.analyses.invariance.curves import CurveAccumulator
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
from interpret.execution.resume import Unfinished
from interpret.images.batches import batches
from interpret.images.display import shrink, to_bytes
from interpret.images.folder import UnreadableImage
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.forward import refuse_other_type
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

EXAMPLES, EXAMPLE_VALUES, EXAMPLE_SIDE = 5, 5, 96
"""Images, values and pixels of the pictures that a figure shows."""


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
    """Measure how far each layer's features move under a transform, and how sure the network stays.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> curves = probe(network, images, "translation", [-2, -1, 0, 1], labels=[0, 1, 1])
    >>> curves.distances["0"].shape, curves.probabilities.shape
    ((3, 4), (3, 4))
    >>> curves.distances["0"][:, 2]
    array([0., 0., 0.], dtype=float32)
    >>> curves.unit_distances["0"].shape
    (4, 4)

    The untransformed image goes through the network once for every job of up to 32 values, transformed ones in
    batches; all layers are compared as they return, and nothing but distances is kept, so that memory does not depend
    on how many images and values there are. Values between pixels are found bilinearly, from as many samples as an
    image that shrinks needs; a translation by whole pixels copies them. See `interpret.analyses.invariance.transforms`
    for what each transform does: "translation", "scale", "rotation", "illumination", "contrast", "blur", "noise",
    "viewpoint".

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        images: [B, C, H, W], or whatever `interpret.open_images` opens.
        transform: a name, or a `Transform` of your own.
        values: pixels, ratios or degrees; None: the paper's −60 … 60 pixels (of 224), 1 … 1.8 and 0 … 350 degrees,
            and for the other transforms a range on both sides of what still can be recognised.
        layers: names or globs; None: every convolutional and linear layer. Of globs, the layers that run.
        labels: B indices of the network's outputs, −1 for none; "predicted": what the network says of the
            untransformed image; None: those of the images, where they have any.
        direction: of a translation: "vertical" (the default), "horizontal" or "diagonal".
        fill: what comes into the picture: "context", the larger photograph that the image was cut from, and beyond
            its edge its reflection; "reflect", "edge", "mean" (the image's own) or "black". None: "context" where the
            source is larger than the input, otherwise "reflect".
        items: which of the images; None: all.
        batch_size: how many inputs run together; see `interpret`.
        workers: processes that decode images; 0: this one.
        seed: chooses the noise.
        device: where the network runs; None: where its parameters are.
        resume_from: a file that keeps the state, every minute, at the end and at an interrupt, from which the same call
            continues; it stays until you delete it. None: nothing is kept.

    Returns:
        Distances, norms, probabilities and the rest, with rows for the images that decode, in their order.

    Raises:
        InterpretError: an unknown transform, direction, layer or fill; values that are not finite or that the
            transform cannot take, such as a scale of 0 or less; labels that are not one an image or not among the
            network's outputs; images that do not decode or do not fit the network; features that are not finite.

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.1 and figure 5.
    The paper leaves open what comes into the picture as it moves, and how values between pixels are found; both are
    choices here, kept in the result. It plots distances in the first and the seventh layer, and does not say whether
    it divides them: here are both, distances and norms.

    The equivariance error of a layer asks whether what changed has merely moved: it translates the features of the
    untransformed image by the translation over the layer's stride and takes the Euclidean distance to the features of
    the translated image, over the norm of the former. A translation that is no multiple of the stride interpolates
    linearly between neighbouring positions. Positions that come in over the border have nothing to be compared with
    and are left out, in both; NaN where none is left. Layers without positions have no such error. The stride is
    that of the local field, or, after an operation that mixes the whole image, the ratio of sizes, rounded.

    How the network's outputs become probabilities, `interpret.network.answers` finds out on the first image, or the
    model's `outputs` says. One output for each image is the score of the second of two classes.
    """
    model = as_model(model)
    task = _check(model, open_images(images, model), transform, values, layers, labels, direction, fill, items, seed)
    result = _run(task, batch_size, workers, device, resume_from).result()
    _describe(result, task)
    _draw(result, task)
    return result


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What is to be probed, checked."""

    model: Model
    data: Images
    images: SurroundedImages
    """Those of the data that are probed."""
    first: Tensor
    """[C, H, W] the first input that decodes."""
    prober: Prober
    labelling: Labelling


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
    """Refuse what cannot be probed before the network runs on the images."""
    chosen = _checked_items(items, len(data))
    first = _first_input(data, chosen)
    refuse_other_type(model.module, first)
    size = (first.shape[1], first.shape[2])
    change = named_transform(transform, direction)
    wanted = change.defaults(size) if values is None else change.checked(values)
    box = checked_reach(change, wanted.tolist(), size)
    levels = Levels.of(model.preprocess, len(first))
    surrounded = SurroundedImages(data, chosen, first.shape, box, choose_fill(fill, data, chosen, size), levels.black)
    prober = Prober(model, first, change, wanted, layers, levels, box, chosen, seed)
    classes = None if prober.reading is None else prober.reading.classes
    return _Task(model, data, surrounded, first, prober, Labelling(labels, chosen, data, model, classes))


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
    """Run all images at all values, from where an unfinished probe stopped."""
    prober, images = task.prober, task.images
    group, spans = prober.plan(batch_size)
    curves = CurveAccumulator(prober, images, group, len(spans))
    unfinished = _unfinished(task, resume_from)
    curves.load_state_dict(unfinished.load())

    def jobs(run: Execution) -> Iterator[Callable[[nn.Module], BatchDistances]]:
        for batch in batches(images, group, workers, start=curves.seen_items):
            labels = task.labelling.of(batch)
            for span in spans:
                yield partial(batch_distances, prober=prober, batch=batch, labels=labels, columns=span, run=run)

    total, done = len(images) * len(prober.values), curves.seen_items * len(prober.values)
    until = prober.layers if prober.reading is None else None
    with (
        prepared(task.model, task.first[None], device, until) as run,
        progress(total, "probing", "img", done) as bar,
    ):

        def update(found: BatchDistances) -> None:
            curves.update(found)
            bar.update(len(found.rows) * len(found.columns))

        unfinished.process(run.side_by_side(jobs(run)), update, curves.state_dict)
    task.data.skipped.update(images.skipped)
    return curves


def _unfinished(task: _Task, resume_from: str | os.PathLike[str] | None) -> Unfinished:
    """Return the file from which the same call continues."""
    change = task.prober.change
    return Unfinished.of(
        resume_from,
        task.model,
        task.data,
        format=2,  # of the state
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
    """Add what was probed, and how, to the curves."""
    change, reading = task.prober.change, task.prober.reading
    result.direction = change.direction if isinstance(change, Translation) else ""
    result.predicted = task.labelling.predicted
    result.model, result.data, result.seed = task.model.name, task.data.name, task.prober.seed
    if reading is not None:
        result.outputs, result.part = reading.outputs, reading.part
    if not isinstance(change, Photometric):  # which leaves all pixels where they are
        result.fill, result.interpolation = task.images.fill, INTERPOLATION


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(result: InvarianceCurves, task: _Task) -> None:
    """Add pictures of a few images at a few values, both spread over those that were probed."""
    assert result.items is not None
    model, data, prober = task.model, task.data, task.prober
    values = np.unique(result.values)
    shown, rows = values[_spread(len(values), EXAMPLE_VALUES)], _spread(len(result.items), EXAMPLES)
    pictures, names = [], []
    for place in rows.tolist():
        item = int(result.items[place])
        row = prober.items.index(item)
        scene = prober.scene(task.images[row][0][None], [row])
        inputs = torch.cat([prober.change(scene, float(value))[:, :-1] for value in shown]).float()
        pictures.append(to_bytes(shrink(data.pixel_scale.display(inputs), EXAMPLE_SIDE)))
        label = -1 if result.labels is None else int(result.labels[place])
        if label >= 0:
            names.append(model.classes[label] if model.classes is not None else str(label))
        else:
            names.append(data.source_name(int(data.sources[item])))
    result.examples, result.example_rows, result.example_values = np.stack(pictures), rows, shown
    result.shown = data.pixel_scale.said
    result.names = names


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many places of `count`, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
