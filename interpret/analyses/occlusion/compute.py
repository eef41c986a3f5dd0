"""Occlusion: a network's answers while a square hides a part of the image, for every place of the square."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.compute import mine
from interpret.analyses.occlusion.occluder import Occluder
from interpret.analyses.occlusion.result import Occlusion
from interpret.analyses.occlusion.windowed_forward import Windowed
from interpret.analyses.projection.compute import project
from interpret.analyses.projection.hit_projection import project_hits
from interpret.backprop.rules import Rule
from interpret.execution.batch_size import LARGEST_BATCH, batch_size_for
from interpret.execution.execution import prepared
from interpret.images.display import contrast, inputs_to_bytes, to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.images.opening import open_images
from interpret.network.answers import Reading, find_reading, main_output, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import WITH_UNITS, first_outputs
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.tracing import layer_with_units, trace

OTHER_IMAGES = 3
"""How many other images of a feature map are projected, as in the paper's figure."""


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
    """Move an occluder over images and measure the network's answers at each place.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> occlusion = occlude(network, torch.rand(2, 3, 20, 20), labels=[0, 1], size=8, stride=4)
    >>> occlusion.probabilities.shape, occlusion.activations.shape
    ((2, 4, 4), (2, 4, 4))
    >>> occlusion.attributions().shape
    (2, 20, 20)

    Places begin at the image's corner and are `stride` apart, until the occluder reaches the far border, over which
    the last may stick out. The values are those of running every occluded image, up to float rounding: an occluder
    changes a window of each feature map, and only that is computed again
    (`interpret.analyses.occlusion.windowed_forward`).

    Args:
        model: the network; how its outputs [B, classes] become probabilities, `interpret.network.answers` finds out on
            the clean image, or the model's `outputs` says. One output for each image is the score of the second of
            two classes.
        images: B of them, [B, C, H, W] as the module takes them, or anything else that `interpret.open_images` takes.
        labels: [B] the true classes; None: each image's most probable one.
        size, stride: the occluder's and its step, in pixels, or as (height, width).
        items: which of the images, in this order; None: all.
        layer: whose strongest feature map is followed; None: the last convolution.
        channels: [B] the feature maps to follow instead of the strongest.
        feature_map: whether to follow one at all; without it, only the network's answers are measured.
        fill: "grey" (mid-grey as the preprocessing maps it; 0 where the model has none), "mean" (each image's own
            mean colour), or a value or one for each channel, in units of the network's input.
        others: data in which to look for other images that excite the same feature maps.
        rule: the backward rule of the projections.
        batch_size, device: how the network runs; see `interpret`. The batches are of one image's places, of which
            only the windows are computed; None: 32.
        resume_from: a file that keeps what is found in `others`, every minute, at the end and at an interrupt, from
            which the same call continues; it stays until you delete it. None: nothing is kept.

    Raises:
        InterpretError: an occluder larger than the image, a stride below 1, labels that are not classes of the
            network, a layer without feature maps.

    The five columns are those of Zeiler & Fergus 2014, Fig. 7 (Fig. 6 in some versions). The paper leaves open how
    wide the square and its steps are, and which response makes a feature map the strongest: here it is the sum over
    its positions, negative activations of a layer named before its rectifier counting as zero.
    """
    model = as_model(model)
    task = _check(model, open_inputs(images, model, items), size, stride, fill, layer, feature_map, batch_size, device)
    answers = _run(model, task, labels, channels)
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
    )


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What is to be measured, checked."""

    opened: Inputs
    occluder: Occluder
    layer: str | None
    """Whose feature maps are followed; None: none."""
    batch_size: int | None
    """As the user says it."""
    device: str | torch.device | None

    @property
    def images(self) -> Tensor:
        return self.opened.tensor

    @property
    def places_at_once(self) -> int:
        """The size of batches: all of about one size, so that no worker waits for another's longer ones."""
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
    """Refuse what cannot be measured before the network runs."""
    images = opened.tensor
    if batch_size is not None:
        batch_size_for(batch_size, 1, images.device)
    refuse_other_type(model.module, images)
    occluder = Occluder.of(model, images, size, stride, fill)
    followed = _feature_layer(model.module, tuple(images.shape[1:]), layer) if feature_map else None
    return _Task(opened, occluder, followed, batch_size, device)


def _feature_layer(module: nn.Module, shape: tuple[int, ...], layer: str | None) -> str:
    """Return the layer whose feature maps are followed: the one named, or the last convolution that runs."""
    traced = trace(module, shape)
    parts = dict(module.named_modules())
    if layer is None:
        found = [
            name
            for name, one in traced.items()
            if isinstance(parts[name], WITH_UNITS) and len(one.output_shape) == 3 and one.batched
        ]
        if not found:
            raise InterpretError("the network has no convolution whose feature map could be followed: name a layer")
        return found[-1]
    if len(layer_with_units(module, traced, layer).output_shape) != 3:
        raise InterpretError(f"layer {layer!r} has no feature maps: choose a convolution or what follows one")
    return layer


def _one_for_each(name: str, numbers: Any, count: int) -> Tensor:
    """Return whole numbers, one for each image, as a tensor."""
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
    """What the network returns for B clean images, and with the occluder at P places of each."""

    reading: Reading
    labels: Tensor
    """[B]"""
    channels: Tensor
    """[B] the feature map that is followed in each image."""
    clean_outputs: Tensor
    """[B, K]"""
    clean_sums: Tensor
    """[B, C] sums over each feature map."""
    outputs: Tensor
    """[B, P, K]"""
    sums: Tensor
    """[B, P] sums over the feature map that is followed."""


def _run(model: Model, task: _Task, labels: Any, channels: Any) -> _Answers:
    """Run the clean images, and each image with the occluder at every place."""
    occluder, layer, count = task.occluder, task.layer, task.places_at_once
    with (
        prepared(model, task.images, task.device) as run,
        progress(len(task.images) * len(occluder.places), "occluding") as bar,
    ):
        images = [run.place(image[None]) for image in task.images]
        with torch.no_grad():
            reading = find_reading(model, images[0])
        clean = [_answer(model.module, image.clone(), layer) for image in images]
        clean_outputs, clean_sums = torch.cat([one for one, _ in clean]), torch.cat([one for _, one in clean])
        labels = _labels(labels, clean_outputs, reading)
        followed = clean_sums.argmax(1) if channels is None else _channels(channels, clean_sums)
        in_windows = _answers_windows_alike(model.module, images[0], occluder, layer, int(followed[0]), count)

        def jobs() -> Iterator[Callable[[nn.Module], tuple[int, int, Tensor, Tensor]]]:
            for row, image in enumerate(images):
                for start in range(0, len(occluder.places), count):
                    yield partial(
                        _answer_places, image=image, row=row, start=start, count=count,
                        occluder=occluder, layer=layer, channel=int(followed[row]), in_windows=in_windows,
                    )  # fmt: skip

        outputs = clean_outputs.new_zeros(len(images), len(occluder.places), clean_outputs.shape[1])
        sums = clean_sums.new_zeros(len(images), len(occluder.places))
        for row, start, found, total in run.side_by_side(jobs()):
            outputs[row, start : start + len(found)] = found
            sums[row, start : start + len(found)] = total
            bar.update(len(found))
    return _Answers(reading, labels, followed, clean_outputs, clean_sums, outputs, sums)


def _answer_places(
    module: nn.Module,
    image: Tensor,
    row: int,
    start: int,
    count: int,
    occluder: Occluder,
    layer: str | None,
    channel: int,
    in_windows: bool,
) -> tuple[int, int, Tensor, Tensor]:
    """Answer a batch of places of one image."""
    image = image.clone()  # which the network may rectify in place
    hidden = occluder.hide(image, row, occluder.places[start : start + count])
    return row, start, *_answer(module, hidden if in_windows else hidden.whole(), layer, channel)


def _answers_windows_alike(
    module: nn.Module, image: Tensor, occluder: Occluder, layer: str | None, channel: int, at_once: int
) -> bool:
    """Return whether a network gives the same answers for windows as for whole images, tried at a few places.

    The network's own code may read more of a tensor than `Windowed` holds, such as its memory.
    """
    some = sorted({0, len(occluder.places) // 2, len(occluder.places) - 1})[:at_once]
    places = [occluder.places[place] for place in some]
    hidden = occluder.hide(image.clone(), 0, places)
    expected = _answer(module, hidden.whole(), layer, channel)
    try:
        found = _answer(module, hidden, layer, channel)
    except Exception:  # whatever the user's code raises there
        return False
    tolerance = torch.finfo(image.dtype).eps ** 0.5
    return all(
        torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance * float(other.abs().max()))
        for one, other in zip(found, expected, strict=True)
    )


def _answer(module: nn.Module, images: Tensor, layer: str | None, channel: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the network's outputs [n, classes], and the sums of a layer's feature maps [n, C], or of one of them [n].

    Without a layer, there is one map, whose sum is zero.
    """
    sums = torch.zeros((len(images), 1) if channel is None else len(images), dtype=images.dtype)

    def receive(_name: str, output: Tensor) -> None:
        nonlocal sums
        if channel is None:
            sums = output.clamp(min=0).sum((2, 3))
        else:
            own = output.channel(channel) if isinstance(output, Windowed) else output[:, channel]
            sums = own.clamp(min=0).sum((1, 2))

    with torch.no_grad(), first_outputs(module, [] if layer is None else [layer], receive, count=len(images)):
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
    """Return the images and, of the feature maps that are followed, their projections as pictures."""
    scale = task.opened.images.pixel_scale
    pictures = {
        "pictures": inputs_to_bytes(task.images, scale),
        "shown": scale.said,
        "projections": None,
        "others": {},
    }
    if task.layer is not None:
        pictures["projections"] = _projections(model, task, answers.channels, rule)
        pictures["others"] = _other_projections(model, task, answers.channels, others, rule, resume_from)
    return pictures


def _projections(model: Model, task: _Task, channels: Tensor, rule: Rule) -> NDArray[np.uint8]:
    """Return each image's feature map's strongest neuron, projected into the whole image."""
    assert task.layer is not None
    found = project(model, task.images, task.layer, channels, rule=rule, batch_size=task.batch_size, device=task.device)
    return to_bytes(contrast(found.full((task.images.shape[2], task.images.shape[3])), model.colours))


def _other_projections(
    model: Model,
    task: _Task,
    channels: Tensor,
    others: Any,
    rule: Rule,
    resume_from: str | os.PathLike[str] | None,
) -> dict[str, NDArray[np.uint8]]:
    """Return, for each image's feature map, projections from the other images that excite it most."""
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
    """Return values in their own type; NumPy has none for bfloat16."""
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
