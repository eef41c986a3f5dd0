"""Occlusion: a network's outputs while an occluder hides a part of the image, for every place of the occluder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.compute import mine
from interpret.analyses.occlusion.occluder import Occluder, lengths
from interpret.analyses.occlusion.result import Occlusion
from interpret.analyses.occlusion.windowed_forward import Windowed
from interpret.analyses.projection.compute import project
from interpret.analyses.projection.hit_projection import project_hits
from interpret.backprop.rules import Rule
from interpret.execution.batch_size import LARGEST_BATCH, batch_size_for
from interpret.execution.execution import prepared
from interpret.execution.ranks import ranks
from interpret.execution.resume import Unfinished
from interpret.images.display import contrast, inputs_to_bytes, to_bytes
from interpret.images.fingerprints import hash_arrays
from interpret.images.folded import fold, folded_model
from interpret.images.inputs import Inputs, open_inputs
from interpret.images.opening import open_images
from interpret.network.answers import Reading, check_class_names, find_reading, main_output, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import first_outputs, kinds_with_units
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of, trace

OTHER_IMAGES = 3
"""Number of other images of a feature map to project, as in the paper's figure."""


def occlude(
    model: Model | nn.Module,
    images: Any,
    labels: Sequence[int] | Tensor | None = None,
    size: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] = 16,
    *,
    items: Sequence[int] | None = None,
    layer: str | None = None,
    channels: Sequence[int] | Tensor | None = None,
    feature_map: bool = True,
    fill: str | float | Sequence[float] = "grey",
    others: Any = None,
    rule: Rule = "deconvnet",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> Occlusion:
    """Move an occluder over images and measure the network's outputs at each place.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> occlusion = occlude(network, torch.rand(2, 3, 20, 20), labels=[0, 1], size=8, stride=4)
    >>> occlusion.probabilities.shape, occlusion.activations.shape
    ((2, 4, 4), (2, 4, 4))
    >>> occlusion.attributions().shape
    (2, 20, 20)

    Places start at the image's top left corner and are `stride` apart. At the far borders, the last occluder may extend
    beyond the image. The results equal those of running every occluded image, up to float rounding. Only the windows
    that the occluder can affect are recomputed.

    The model's `outputs` field says how outputs become probabilities; if it is None, this is found from
    the outputs on the clean image. A single output per image is the score of the second of two classes.

    Args:
        model: the network, with outputs [B, classes].
        images: B inputs [B, C, H, W], or anything else that `interpret.open_images` takes.
        labels: [B] the true classes; None: the most probable class of each image.
        size, stride: size and step of the occluder in pixels; one number, or (height, width). Of signals, its length
            and step in samples; in volumes, it hides the same rows and columns of every slice.
        items: indices of the images, in this order; None: all.
        layer: the layer whose strongest feature map is measured; None: the last convolution.
        channels: [B] the feature maps to measure instead of the strongest.
        feature_map: whether to measure a feature map, too; False: only the network's outputs.
        fill: "grey" (mid-grey, mapped by the preprocessing; 0 for a model without one), "mean" (each image's mean
            colour), or one value or one per channel, in units of the network's input.
        others: data in which to find other images that activate the same feature maps.
        rule: the backward rule of the projections.
        batch_size, device: see `interpret`. A batch holds places of one image, of which only windows are computed;
            None: 32.
        resume_from: a file for the state of the search in `others`, written every minute, at the end and when
            interrupted; the places that the occluder has been at are kept beside it, in a file whose name ends in
            `.places.safetensors`. The same call resumes from them; they stay until you delete them. None: keep no
            state.

    Returns:
        an `Occlusion` with the probability of each image's label at each of R × S places, [B, R, S], the most
        probable classes [B, R, S] and, with a layer, the summed activation of a map, [B, R, S].

    Raises:
        InterpretError: an occluder larger than the image; a stride below 1; labels that are not classes of the network;
            a layer without feature maps.

    Source: Zeiler & Fergus 2014, Fig. 7 (Fig. 6 in some versions), whose five columns the figure has. The paper does
    not give the size and step of the occluder, nor how it ranks feature maps. Here, the strongest map has the largest
    sum over its positions, with negative activations (of a layer before its rectifier) counted as zero.
    """
    model = as_model(model)
    opened = open_inputs(images, model, items)
    task = _check(model, opened, size, stride, fill, layer, feature_map, batch_size, device)
    flat = model if opened.tensor.dim() == 4 else folded_model(model, opened.tensor.shape[1:])
    answers = _run(flat, task, labels, channels, resume_from)
    pictures = _draw(model, task, answers, others, rule, resume_from)
    return Occlusion(
        **_aggregate(task, answers),
        **pictures,
        tops=np.array(task.occluder.tops),
        lefts=np.array(task.occluder.lefts),
        size=list(task.occluder.size),
        layer=task.layer,
        classes=list(model.classes) if model.classes is not None else None,
        model=model.name,
        settings={
            "stride": list(task.occluder.stride),
            "fill": fill if isinstance(fill, str) else "chosen",
            "rule": str(rule),
        },
        predicted=labels is None,
        sides=list(task.images.shape[2:]),
        axes=opened.tensor.dim() - 2,
    )


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """The validated arguments."""

    opened: Inputs
    occluder: Occluder
    followed: Layer | None
    """The layer whose feature maps are measured; None: none."""
    batch_size: int | None
    """The argument; None: the default."""
    device: str | torch.device | None

    @cached_property
    def images(self) -> Tensor:
        """[B, C, H, W]; signals and volumes as `fold` makes images of them."""
        return fold(self.opened.tensor)

    @property
    def layer(self) -> str | None:
        return None if self.followed is None else self.followed.name

    @property
    def places_at_once(self) -> int:
        """The batch size, chosen so that all batches have about the same size and no worker waits for another."""
        most = LARGEST_BATCH if self.batch_size is None else batch_size_for(self.batch_size, 1, self.images.device)
        count = len(self.occluder.places)
        return -(-count // -(-count // most))


def _check(
    model: Model,
    opened: Inputs,
    size: Any,
    stride: Any,
    fill: Any,
    layer: str | None,
    feature_map: bool,
    batch_size: int | None,
    device: str | torch.device | None,
) -> _Task:
    """Validate the arguments before the network runs."""
    images = fold(opened.tensor)
    if opened.tensor.dim() == 3:
        size, stride = (1, *lengths("size", size, 1)), (1, *lengths("stride", stride, 1))
    if batch_size is not None:
        batch_size_for(batch_size, 1, images.device)
    refuse_other_type(model.module, images)
    occluder = Occluder.of(model, images, size, stride, fill)
    followed = _feature_layer(model.module, tuple(opened.tensor.shape[1:]), layer) if feature_map else None
    return _Task(opened, occluder, followed, batch_size, device)


def _feature_layer(module: nn.Module, shape: tuple[int, ...], layer: str | None) -> Layer:
    """Return the layer whose feature maps are measured: the named one, or the last convolution that runs."""
    traced = trace(module, shape)
    parts, kinds = dict(module.named_modules()), kinds_with_units(module)
    if layer is None:
        found = [
            name
            for name, one in traced.items()
            if isinstance(parts[name], kinds) and one.grid is not None and one.batched
        ]
        if not found:
            raise InterpretError("the network has no convolution whose feature map could be followed: name a layer")
        return traced[found[-1]]
    if layer_with_units(traced, layer).grid is None:
        raise InterpretError(f"layer {layer!r} has no feature maps: choose a convolution or what follows one")
    return traced[layer]


def _one_for_each(name: str, numbers: Any, count: int) -> Tensor:
    """Return whole numbers, one per image, as a tensor."""
    given = torch.as_tensor(numbers).cpu()
    if given.is_floating_point() or given.shape != (count,):
        raise InterpretError(f"{name} must be {count} whole numbers, one for each image, not {numbers!r}")
    return given


def _labels(labels: Any, outputs: Tensor, reading: Reading) -> Tensor:
    if labels is None:
        return reading.best(outputs).cpu()
    given = _one_for_each("labels", labels, len(outputs))
    bad = (given < 0) | (given >= reading.classes)
    if bool(bad.any()):
        raise InterpretError(
            f"label {int(given[bad][0])} is no class of the network, whose classes are 0 to {reading.classes - 1}"
        )
    return given.long()


def _channels(channels: Any, sums: Tensor) -> Tensor:
    given = _one_for_each("channels", channels, len(sums))
    if bool(((given < 0) | (given >= sums.shape[1])).any()):
        raise InterpretError(f"channels must be from 0 to {sums.shape[1] - 1}, not {channels!r}")
    return given.to(sums.device)


# ---- run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answers:
    """The network's outputs for B clean images, and with the occluder at P places in each."""

    reading: Reading
    labels: Tensor
    """[B]"""
    channels: Tensor
    """[B] the feature map that is measured in each image."""
    clean_outputs: Tensor
    """[B, K]"""
    clean_sums: Tensor
    """[B, C] sums over each feature map."""
    outputs: Tensor
    """[B, P, K]"""
    sums: Tensor
    """[B, P] sums over the measured feature map."""


def _run(model: Model, task: _Task, labels: Any, channels: Any, resume_from: str | os.PathLike[str] | None) -> _Answers:
    """Run the clean images, and each image with the occluder at every place."""
    occluder, layer, count = task.occluder, task.followed, task.places_at_once
    with prepared(model, task.images, task.device) as run:
        images = [run.place(image[None]) for image in task.images]
        with torch.no_grad():
            reading = find_reading(model, images[0])
        check_class_names(model, reading.classes)
        clean = [_answer(model.module, image.clone(), layer) for image in images]
        clean_outputs, clean_sums = torch.cat([one for one, _ in clean]), torch.cat([one for _, one in clean])
        labels = _labels(labels, clean_outputs, reading)
        followed = clean_sums.argmax(1) if channels is None else _channels(channels, clean_sums)
        in_windows = _answers_windows_alike(model.module, images[0], occluder, layer, int(followed[0]), count)

        unfinished = _unfinished(model, task, followed, resume_from)
        state = unfinished.load()
        if not state:
            state = {
                "outputs": clean_outputs.new_zeros(len(images), len(occluder.places), clean_outputs.shape[1]),
                "sums": clean_sums.new_zeros(len(images), len(occluder.places)),
                "done": torch.zeros(len(images), dtype=torch.int64),
            }
        outputs, sums = (state[name].to(clean_outputs.device) for name in ("outputs", "sums"))
        done = state["done"]

        def jobs() -> Iterator[Callable[[nn.Module], tuple[int, int, Tensor, Tensor]]]:
            for row, image in enumerate(images):
                for start in range(int(done[row]), len(occluder.places), count):
                    yield partial(
                        _answer_places, image=image, row=row, start=start, count=count,
                        occluder=occluder, layer=layer, channel=int(followed[row]), in_windows=in_windows,
                    )  # fmt: skip

        def update(answer: tuple[int, int, Tensor, Tensor]) -> None:
            row, start, found, total = answer
            outputs[row, start : start + len(found)] = found
            sums[row, start : start + len(found)] = total
            done[row] = start + len(found)
            bar.update(len(found))

        with progress(len(images) * len(occluder.places), "occluding", initial=int(done.sum())) as bar:
            unfinished.process(
                run.side_by_side(jobs()), update, lambda: {"outputs": outputs.cpu(), "sums": sums.cpu(), "done": done}
            )
    return _Answers(reading, labels, followed, clean_outputs, clean_sums, outputs, sums)


def _unfinished(model: Model, task: _Task, followed: Tensor, resume_from: str | os.PathLike[str] | None) -> Unfinished:
    """Return the state of the places that the occluder has been at."""
    if resume_from is None or ranks().size > 1:  # each of several ranks works alone
        return Unfinished(None, {})
    settings = {
        "weights": model.weights_hash,
        "images": hash_arrays([task.images, followed.cpu(), task.occluder.fill]),
        "occluder": [task.occluder.places, list(task.occluder.size)],
        "layer": task.layer,
        "at_once": task.places_at_once,
    }
    return Unfinished(Path(resume_from).with_suffix(".places.safetensors"), settings)


def _answer_places(
    module: nn.Module,
    image: Tensor,
    row: int,
    start: int,
    count: int,
    occluder: Occluder,
    layer: Layer | None,
    channel: int,
    in_windows: bool,
) -> tuple[int, int, Tensor, Tensor]:
    """Run one image with the occluder at a batch of places."""
    image = image.clone()  # the network may change it in place
    hidden = occluder.hide(image, row, occluder.places[start : start + count])
    return row, start, *_answer(module, hidden if in_windows else hidden.whole(), layer, channel)


def _answers_windows_alike(
    module: nn.Module, image: Tensor, occluder: Occluder, layer: Layer | None, channel: int, at_once: int
) -> bool:
    """Return whether a network gives the same outputs for windows as for whole images, tested at a few places.

    They can differ if the network's code reads a tensor in ways that `Windowed` does not support, such as its memory.
    """
    some = sorted({0, len(occluder.places) // 2, len(occluder.places) - 1})[:at_once]
    places = [occluder.places[place] for place in some]
    hidden = occluder.hide(image.clone(), 0, places)
    expected = _answer(module, hidden.whole(), layer, channel)
    try:
        found = _answer(module, hidden, layer, channel)
    except Exception:  # the network's code may raise anything
        return False
    tolerance = torch.finfo(image.dtype).eps ** 0.5
    return all(
        bool(other.isfinite().all())
        and torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance * float(other.abs().max()))
        for one, other in zip(found, expected, strict=True)
    )


def _answer(
    module: nn.Module, images: Tensor, layer: Layer | None, channel: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the network's outputs [n, classes], and the sums of a layer's feature maps [n, C], or of one of them [n].

    Without a layer, return sums of zero, as of a single map.
    """
    sums = torch.zeros((len(images), 1) if channel is None else len(images), dtype=images.dtype)

    def receive(_name: str, output: Tensor) -> None:
        nonlocal sums
        if channel is None:
            sums = output.clamp(min=0).sum(tuple(range(2, output.dim())))
        else:
            own = output.channel(channel) if isinstance(output, Windowed) else output[:, channel]
            sums = own.clamp(min=0).sum(tuple(range(1, own.dim())))

    layers = {} if layer is None else {layer.name: layer}
    hooks = first_outputs(module, layers, receive, count=len(images), layouts=layouts_of(layers, layers))
    with torch.no_grad(), hooks:
        outputs = call_network(module, images)
    output = main_output(outputs)[1]
    return scores_of(output.whole() if isinstance(output, Windowed) else output, len(images)), sums


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _aggregate(task: _Task, answers: _Answers) -> dict[str, Any]:
    """Return probabilities, predictions and activations, by image and place of the occluder."""
    occluder, reading = task.occluder, answers.reading
    grid = (len(task.images), len(occluder.tops), len(occluder.lefts))
    rows, labels = torch.arange(len(task.images)), answers.labels.to(answers.outputs.device)
    flat = answers.outputs.flatten(0, 1)
    probabilities = reading.probabilities(flat).unflatten(0, answers.outputs.shape[:2])[rows, :, labels]
    found: dict[str, Any] = {
        "labels": answers.labels.numpy(),
        "probabilities": _numpy(probabilities.reshape(grid)),
        "clean_probabilities": _numpy(reading.probabilities(answers.clean_outputs)[rows, labels]),
        "predictions": reading.best(flat).reshape(grid).cpu().numpy(),
        "clean_predictions": reading.best(answers.clean_outputs).cpu().numpy(),
        "outputs": reading.outputs,
        "part": reading.part,
        "channels": None,
        "activations": None,
        "clean_activations": None,
    }
    if task.layer is not None:
        found["channels"] = answers.channels.cpu().numpy()
        found["activations"] = _numpy(answers.sums.reshape(grid))
        found["clean_activations"] = _numpy(answers.clean_sums[rows, answers.channels])
    return found


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(
    model: Model, task: _Task, answers: _Answers, others: Any, rule: Rule, resume_from: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """Return pictures of the images and of the projections of the measured feature maps."""
    scale = task.opened.images.pixel_scale
    pictures = {
        "pictures": inputs_to_bytes(_middle(task.opened.tensor), scale),
        "shown": scale.said,
        "projections": None,
        "others": {},
    }
    if task.layer is not None:
        pictures["projections"] = _projections(model, task, answers.channels, rule)
        pictures["others"] = _other_projections(model, task, answers.channels, others, rule, resume_from)
    return pictures


def _projections(model: Model, task: _Task, channels: Tensor, rule: Rule) -> NDArray[np.uint8]:
    """Project the strongest neuron of each image's feature map, as pictures of the whole image's size."""
    assert task.layer is not None
    inputs = task.opened.tensor
    found = project(model, inputs, task.layer, channels, rule=rule, batch_size=task.batch_size, device=task.device)
    whole = found.full(tuple(inputs.shape[2:]))
    if whole.dim() == 5:
        strongest = whole.abs().amax((1, 3, 4)).argmax(1)
        whole = whole[torch.arange(len(whole)), :, strongest]
    return to_bytes(contrast(whole, model.colours))


def _middle(inputs: Tensor) -> Tensor:
    """Return the middle slices of volumes; signals and images as they are."""
    return inputs[:, :, inputs.shape[2] // 2] if inputs.dim() == 5 else inputs


def _other_projections(
    model: Model,
    task: _Task,
    channels: Tensor,
    others: Any,
    rule: Rule,
    resume_from: str | os.PathLike[str] | None,
) -> dict[str, NDArray[np.uint8]]:
    """Return projections of each image's feature map in its top-activating other images."""
    if others is None or task.layer is None:
        return {}
    data = open_images(others, model)
    mined = mine(
        model,
        data,
        task.layer,
        k=OTHER_IMAGES,
        batch_size=task.batch_size,
        device=task.device,
        resume_from=resume_from,
    )
    found = mined[task.layer].only(np.unique(channels.cpu().numpy()))
    tiles: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for batch in project_hits(model, data, {task.layer: found}, rule=rule, device=task.device):
        hits = zip(batch.units.tolist(), batch.ranks.tolist(), strict=True)
        tiles |= zip(hits, to_bytes(contrast(batch.projections, model.colours)), strict=True)
    return {
        str(row): np.stack([tiles[channel, rank] for rank in range(OTHER_IMAGES) if (channel, rank) in tiles])
        for row, channel in enumerate(channels.tolist())
        if (channel, 0) in tiles
    }


def _numpy(values: Tensor) -> NDArray[Any]:
    """Return values as an array of their own type, bfloat16 as float32, since NumPy has no bfloat16."""
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
