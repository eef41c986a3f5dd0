"""Occlusion: what a network answers when a square hides a part of the image, for every place of the square."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.compute import mine
from interpret.analyses.occlusion.result import Occlusion
from interpret.analyses.occlusion.windowed_forward import Windowed, layout_of
from interpret.analyses.projection.compute import project, project_hits
from interpret.backprop.rules import Rule
from interpret.execution.batch_size import LARGEST_BATCH, batch_size_for
from interpret.execution.execution import prepared
from interpret.images.display import contrast, inputs_to_bytes, to_bytes
from interpret.images.inputs import open_inputs
from interpret.images.opening import open_images
from interpret.network.answers import Reading, find_reading, main_output, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import WITH_UNITS, first_outputs
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.tracing import layer_with_units, trace

OTHERS = 3
"""Projections of the same feature map from other images: as many as the paper's figure shows."""


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
    """Move an occluder over images and measure what the network makes of each place.

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
        resume_from: a file that keeps what is found in `others`, from time to time and at the end, an interrupt's, too,
            so that the same call goes on from there; it stays until you delete it. None: nothing is kept.

    Raises:
        InterpretError: an occluder larger than the image, a stride below 1, labels that are not classes of the
            network, a layer without feature maps.

    The five columns are those of Zeiler & Fergus 2014, Fig. 7 (Fig. 6 in some versions). The paper leaves open how
    wide the square and its steps are, and which response makes a feature map the strongest: here it is the sum over
    its positions, negative activations of a layer named before its rectifier counting as zero.
    """
    model = as_model(model)
    opened = open_inputs(images, model, items)
    images = opened.tensor
    how: dict[str, Any] = {"batch_size": batch_size, "device": device}
    at_once = LARGEST_BATCH if batch_size is None else batch_size_for(batch_size, 1, images.device)
    refuse_other_type(model.module, images)
    occluder = _Occluder.of(model, images, size, stride, fill)
    followed = _feature_layer(model.module, tuple(images.shape[1:]), layer) if feature_map else None
    with (
        prepared(model, images, device) as run,
        progress(len(images) * len(occluder.places), "occluding") as bar,
    ):
        on_target = [run.place(image[None]) for image in images]
        with torch.no_grad():
            reading = find_reading(model, on_target[0])
        clean = [_answer(model.module, image.clone(), followed) for image in on_target]
        outputs, sums = torch.cat([one for one, _ in clean]), torch.cat([one for _, one in clean])
        predicted = labels is None
        labels = _labels(labels, outputs, reading)
        strongest = sums.argmax(1) if channels is None else _channels(channels, sums)
        in_windows = _answers_windows_alike(model.module, on_target[0], occluder, followed, int(strongest[0]), at_once)
        # batches of one size, so that no worker waits for another's longer ones
        size_of_batch = -(-len(occluder.places) // -(-len(occluder.places) // at_once))

        def jobs() -> Iterator[Callable[[nn.Module], tuple[int, int, Tensor, Tensor]]]:
            for row, image in enumerate(on_target):
                for start in range(0, len(occluder.places), size_of_batch):
                    yield partial(
                        _run, image=image, row=row, start=start, count=size_of_batch,
                        occluder=occluder, layer=followed, channel=int(strongest[row]), in_windows=in_windows,
                    )  # fmt: skip

        answers = outputs.new_zeros(len(images), len(occluder.places), outputs.shape[1])
        totals = sums.new_zeros(len(images), len(occluder.places))
        for row, start, found, total in run.side_by_side(jobs()):
            answers[row, start : start + len(found)] = found
            totals[row, start : start + len(found)] = total
            bar.update(len(found))
    grid = (len(images), len(occluder.tops), len(occluder.lefts))
    own = torch.arange(len(images))
    flat = answers.flatten(0, 1)
    probabilities = reading.probabilities(flat).unflatten(0, answers.shape[:2])[own, :, labels.to(answers.device)]
    return Occlusion(
        tops=np.array(occluder.tops),
        lefts=np.array(occluder.lefts),
        size=list(occluder.size),
        labels=labels.numpy(),
        probabilities=_numpy(probabilities.reshape(grid)),
        clean_probabilities=_numpy(reading.probabilities(outputs)[own, labels.to(outputs.device)]),
        predictions=reading.best(flat).reshape(grid).cpu().numpy(),
        clean_predictions=reading.best(outputs).cpu().numpy(),
        layer=followed,
        channels=None if followed is None else strongest.cpu().numpy(),
        activations=None if followed is None else _numpy(totals.reshape(grid)),
        clean_activations=None if followed is None else _numpy(sums[own, strongest]),
        pictures=inputs_to_bytes(images, opened.images.pixel_scale),
        shown=opened.images.pixel_scale.said,
        projections=None if followed is None else _projections(model, images, followed, strongest, rule, how),
        others={}
        if followed is None
        else _other_projections(model, others, followed, strongest, rule, how, resume_from),
        classes=list(model.classes) if model.classes is not None else None,
        model=model.name,
        settings={"stride": list(occluder.stride), "fill": fill if isinstance(fill, str) else "chosen", "rule": rule},
        predicted=predicted,
        outputs=reading.outputs,
        part=reading.part,
    )


class _Occluder:
    """A square of constant value, and the places that it takes."""

    def __init__(
        self, tops: list[int], lefts: list[int], size: tuple[int, int], stride: tuple[int, int], fill: Tensor
    ) -> None:
        self.tops, self.lefts, self.size, self.stride = tops, lefts, size, stride
        self.fill = fill
        """[B, C, 1, 1] what the square is filled with in each image."""
        self.places = [(top, left) for top in tops for left in lefts]

    @classmethod
    def of(cls, model: Model, images: Tensor, size: Any, stride: Any, fill: Any) -> _Occluder:
        height, width = _two("size", size)
        down, right = _two("stride", stride)
        if height > images.shape[2] or width > images.shape[3]:
            raise InterpretError(
                f"size {height} × {width} is larger than the images, {images.shape[2]} × {images.shape[3]}: "
                "choose a smaller occluder"
            )
        tops = _places(images.shape[2], height, down)
        lefts = _places(images.shape[3], width, right)
        return cls(tops, lefts, (height, width), (down, right), _fill(model, images, fill))

    def hide(self, image: Tensor, row: int, places: Sequence[tuple[int, int]]) -> Windowed:
        """Return the image [1, C, H, W] with the square at each of the places."""
        (height, width), (rows, columns) = self.size, image.shape[2:]
        # a window that sticks out moves in, and shows the image where the square does not reach
        corners = [(min(top, rows - height), min(left, columns - width)) for top, left in places]
        patches = torch.stack(
            [image[0, :, top : top + height, left : left + width] for top, left in corners]
        ).contiguous(memory_format=layout_of(image))
        for patch, (top, left), (own_top, own_left) in zip(patches, places, corners, strict=True):
            patch[:, top - own_top :, left - own_left :] = self.fill[row].to(patch)
        return Windowed.of(image, patches, corners)


def _places(side: int, size: int, stride: int) -> list[int]:
    """Return where an occluder begins along an axis, until it reaches the far border."""
    return [start for start in range(0, side, stride) if start == 0 or start - stride + size < side]


def _run(
    module: nn.Module,
    image: Tensor,
    row: int,
    start: int,
    count: int,
    occluder: _Occluder,
    layer: str | None,
    channel: int,
    in_windows: bool,
) -> tuple[int, int, Tensor, Tensor]:
    """Answer a batch of places of one image."""
    image = image.clone()  # which the network may rectify in place
    hidden = occluder.hide(image, row, occluder.places[start : start + count])
    return row, start, *_answer(module, hidden if in_windows else hidden.whole(), layer, channel)


def _answers_windows_alike(
    module: nn.Module, image: Tensor, occluder: _Occluder, layer: str | None, channel: int, at_once: int
) -> bool:
    """Whether a network answers windows as it answers whole images, on a few places; what it does to them may differ.

    Code of its own may look at more of a tensor than `Windowed` shows: its memory, or what is no operation of torch's.
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


def _two(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(one, int) and one >= 1 for one in pair):
        raise InterpretError(f"{name} must be a whole number of pixels of at least 1, or two, not {value!r}")
    return pair


def _fill(model: Model, images: Tensor, fill: Any) -> Tensor:
    """Return what the square is filled with, [B, C, 1, 1]."""
    count, channels = images.shape[:2]
    if isinstance(fill, str):
        if fill == "mean":
            return images.mean((2, 3), keepdim=True)
        if fill != "grey":
            raise InterpretError(f"fill must be 'grey', 'mean' or numbers, not {fill!r}")
        grey = 0 if model.preprocess is None else model.preprocess.encode(np.full((1, 1, 3), 128, np.uint8))
        return images.new_zeros(count, channels, 1, 1) + torch.as_tensor(grey).to(images)
    values = torch.as_tensor(fill, dtype=images.dtype).reshape(-1)
    if len(values) not in (1, channels):
        raise InterpretError(f"fill must be one number or {channels}, one for each channel, not {len(values)}")
    return values.expand(channels).reshape(1, channels, 1, 1).expand(count, -1, -1, -1)


def _labels(labels: Any, outputs: Tensor, reading: Reading) -> Tensor:
    if labels is None:
        return reading.best(outputs).cpu()
    given = torch.as_tensor(labels).cpu()
    if given.is_floating_point() or given.shape != (len(outputs),):
        raise InterpretError(f"labels must be {len(outputs)} whole numbers, one for each image, not {labels!r}")
    bad = (given < 0) | (given >= reading.classes)
    if bool(bad.any()):
        raise InterpretError(
            f"label {int(given[bad][0])} is no class of the network, whose classes are 0 to {reading.classes - 1}"
        )
    return given.long()


def _channels(channels: Any, sums: Tensor) -> Tensor:
    given = torch.as_tensor(channels)
    if given.is_floating_point() or given.shape != (len(sums),):
        raise InterpretError(f"channels must be {len(sums)} whole numbers, one for each image, not {channels!r}")
    if bool(((given < 0) | (given >= sums.shape[1])).any()):
        raise InterpretError(f"channels must be from 0 to {sums.shape[1] - 1}, not {channels!r}")
    return given.to(sums.device)


def _projections(
    model: Model, images: Tensor, layer: str, channels: Tensor, rule: Rule, how: dict[str, Any]
) -> NDArray[np.uint8]:
    """Return each image's feature map's strongest neuron, projected into the whole image."""
    found = project(model, images, layer, channels, rule=rule, **how)
    return to_bytes(contrast(found.full((images.shape[2], images.shape[3])), model.colours))


def _other_projections(
    model: Model,
    others: Any,
    layer: str,
    channels: Tensor,
    rule: Rule,
    how: dict[str, Any],
    resume_from: str | os.PathLike[str] | None,
) -> dict[str, NDArray[np.uint8]]:
    """Return, for each image's feature map, projections from the other images that excite it most."""
    if others is None:
        return {}
    data = open_images(others, model)
    mined = mine(model, data, layer, k=OTHERS, resume_from=resume_from, **how)
    found = mined[layer].only(np.unique(channels.cpu().numpy()))
    tiles: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for batch in project_hits(model, data, {layer: found}, rule=rule, device=how["device"]):
        hits = zip(batch.units.tolist(), batch.ranks.tolist(), strict=True)
        tiles |= zip(hits, to_bytes(contrast(batch.projections, model.colours)), strict=True)
    return {
        str(row): np.stack([tiles[channel, rank] for rank in range(OTHERS) if (channel, rank) in tiles])
        for row, channel in enumerate(channels.tolist())
        if (channel, 0) in tiles
    }


def _numpy(values: Tensor) -> NDArray[Any]:
    """Return values in their own type; NumPy has none for bfloat16."""
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
