"""Projection: propagate a neuron's activation back to the pixels that it sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.projection.box_projection import locate_in_boxes
from interpret.analyses.projection.crop import MOST_PARTS, Crop
from interpret.analyses.projection.result import Projections
from interpret.analyses.projection.signals import (
    SignalSettings,
    Start,
    signals_of_batch,
    signals_of_image,
)
from interpret.backprop.rules import Overlap, Rule
from interpret.execution.batch_size import batch_size_for, largest_gpu_batch
from interpret.execution.execution import full_precision, on_device, warn_of_slow_type
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.images.several_inputs import SeveralImages, as_one, is_several
from interpret.network.dry_run import check_answers
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import first_outputs
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of


@torch.inference_mode(False)  # the caller may be in inference mode
def project(
    model: Model | nn.Module,
    images: Any,
    layer: str,
    channels: int | Sequence[int] | Tensor,
    positions: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
    rule: Rule = "deconvnet",
    *,
    boxes: Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
    items: Sequence[int] | None = None,
    start: Start = "activation",
    overlap: Overlap = "add",
    strict: bool = False,
    to: str | int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Projections:
    """Project one neuron of each image, or several neurons of one image, back to the pixels.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))
    >>> images = torch.rand(2, 3, 32, 32)
    >>> projections = project(network, images, "3", channels=1)
    >>> projections.pixels.shape, projections.boxes.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 4]))
    >>> projections.full((32, 32)).shape
    torch.Size([2, 3, 32, 32])
    >>> project(network, images[:1], "3", channels=[0, 1, 2]).pixels.shape
    torch.Size([3, 3, 8, 8])

    The signal at the layer is the neuron's activation, and zero for all other neurons. The rule propagates it backward
    to the input, for "deconvnet" through unpooling, rectification and filtering.

    The result is restricted to the layer's local field (see `interpret.Layer`), with gates held constant; for the rule
    "gradient", which does not hold gates constant, to the receptive field. If the network allows it, only the part of
    the image that the neuron sees is run; the result equals that of the whole image. Of a layer that runs once a box,
    the signal passes back through the pooling of the features, with the box held constant, to the whole image.

    On a CUDA device, float32 is convolved in float32 even where PyTorch is set to TF32: rounding to it is 2 to 5 % of
    a projection's size.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        images: B inputs [B, C, H, W], or anything else that `interpret.open_images` takes. The result has their type
            and device. With one image, several channels or positions all refer to it. For a network with several
            inputs: a tuple or dict of tensors [B, …]; whole images run then.
        layer: name of the layer whose neurons are projected.
        channels: the neuron's channel; one for all images or one per image.
        positions: the neuron's (row, column) in the feature map; one for all images or one per image; None: where the
            channel is strongest.
        rule: "deconvnet", "guided", "gradient", or an `interpret.Composite`; see `interpret.BackwardRule`.
        boxes: the box (top, left, bottom, right) in pixels, for a layer that runs once a box (see
            `interpret.Layer.boxes`): one for all neurons or one per neuron, also boxes that the network does not find;
            None: the one of the network's boxes where the channel is strongest.
        items: indices of the images, in this order; None: all.
        start: "activation": start with the neuron's activation, as the paper does; "one": start with 1, as a gradient.
        overlap: how to unpool switches shared by overlapping max-pooling windows: "add" their signals, or "overwrite",
            which needs the whole image.
        strict: raise an error if the rule does not cover an operation, instead of a warning.
        to: name or position of the input to project to, in a network with several inputs; the others are constants.
            None: the first float tensor [B, C, H, W].
        batch_size, device: see `interpret`. A batch holds only the parts of images that neurons see, if the network
            allows it, and can therefore be large.
        dtype: `torch.bfloat16`: on a CPU, images pass forward in the type of the network, with its switches and gates,
            and signals in whole images pass back in bfloat16; those in parts of images, and of linear layers, do not.
            Where the processor has AMX, VGG-16 is then 1.2 (conv4_3) to 1.8 times as fast (conv5_3), DenseNet-121 1.2
            times, SqueezeNet as fast as before; signals are 0.4 to 1.4 % of their norm away. On a GPU, both run under
            autocast, whose rounded activations tie and switch otherwise: signals are 5 to 24 % away. None or float32:
            neither.

    Returns:
        `Projections` with `pixels` [B, C, h, w], as large as the window that a neuron sees, and `boxes` [B, 4],
        where it lies in the image: top, left, bottom, right. `full((H, W))` gives images that are zero outside.

    Raises:
        InterpretError: an unknown layer or rule; a channel or position that the layer does not have; images that do not
            fit the network.

    Warns:
        UncoveredOperation: the network has an operation that is neither linear nor covered by the rule.

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, section 2.1.
    """
    model = as_model(model)
    if is_several(images):
        model, packed, packing = as_one(model, images, to)
        images = SeveralImages(model, packed, packing)
    task = _check(
        model, open_inputs(images, model, items), layer, channels, positions, boxes, rule, start, overlap, strict, dtype
    )
    signals, values, at, rois = _run(model, task, batch_size, device)
    return Projections(
        signals,
        task.crop.boxes(at),
        values,
        at,
        channels=task.channels,
        images=torch.tensor(list(task.opened.items)).expand(len(at)),
        layer=layer,
        rule=str(rule),
        model=model.name,
        colours=model.colours,
        pictures=_draw(task, at),
        shown=task.opened.images.pixel_scale.said,
        rois=rois,
    )


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """The validated arguments."""

    opened: Inputs
    layer: str
    channels: Tensor
    """[n] the neurons' channels."""
    positions: Tensor | None
    """[n, axes] the neurons' positions; None: where their channels are strongest."""
    crop: Crop
    settings: SignalSettings
    boxes: Tensor | None
    """[n, 4] the boxes that are given for the neurons of a layer that runs once a box."""

    @property
    def call(self) -> str | None:
        """The call that pools features in boxes, of a layer that runs once a box."""
        layout = self.settings.layouts.get(self.layer)
        return None if layout is None else layout.boxes


def _check(
    model: Model,
    opened: Inputs,
    layer: str,
    channels: int | Sequence[int] | Tensor,
    positions: Sequence[int] | Sequence[Sequence[int]] | Tensor | None,
    boxes: Sequence[float] | Sequence[Sequence[float]] | Tensor | None,
    rule: Rule,
    start: Start,
    overlap: Overlap,
    strict: bool,
    dtype: torch.dtype | None,
) -> _Task:
    """Validate the arguments before the network runs on the images."""
    if start not in ("activation", "one"):
        raise InterpretError(f"start must be 'activation' or 'one', not {start!r}")
    images = opened.tensor
    refuse_other_type(model.module, images)
    layers = trace_on_meta(model.module, tuple(images.shape[1:]))
    traced = layer_with_units(layers, layer, by_box=True)
    several = max(_count(channels, 0), _count(positions, 1), _count(boxes, 1))
    count = len(images) if len(images) > 1 else several
    return _Task(
        opened,
        layer,
        _channels(channels, traced, count),
        None if positions is None else _positions(positions, traced, count, images.dim() - 2),
        Crop.of(traced, tuple(images.shape[2:]), overlap, rule),
        SignalSettings(rule, start, overlap, strict, layouts_of(layers, [layer]), dtype),
        None if boxes is None else _boxes(boxes, traced, count),
    )


def _count(given: Any, dim: int) -> int:
    """Return the number of channels (dim 0) or positions (dim 1) given; 1 if there is one for all."""
    shape = [] if given is None else list(torch.as_tensor(given).shape)
    return max(1, shape[0]) if len(shape) > dim else 1


def _channels(channels: int | Sequence[int] | Tensor, layer: Layer, count: int) -> Tensor:
    given = torch.as_tensor(channels)
    if given.is_floating_point() or given.dim() > 1 or (given.dim() == 1 and len(given) != count):
        raise InterpretError(
            f"channels must be one whole number, or one for each image or position ({count}), not {channels}"
        )
    bad = (given < 0) | (given >= layer.output_shape[0])
    if bool(bad.any()):
        raise InterpretError(
            f"channel {int(given[bad].reshape(-1)[0])} is not in layer {layer.name!r}, whose channels are "
            f"0 to {layer.output_shape[0] - 1}"
        )
    return given.cpu().expand(count)


def _positions(positions: Any, layer: Layer, count: int, axes: int) -> Tensor:
    given = torch.as_tensor(positions)
    if given.is_floating_point() or given.shape not in ((axes,), (count, axes)):
        one = {1: "(position,)", 2: "(row, column)", 3: "(slice, row, column)"}[axes]
        raise InterpretError(
            f"positions must be one {one}, or one for each image or channel ({count}), not of shape {list(given.shape)}"
        )
    size = layer.output_shape[1:] or (1,) * axes
    given = given.cpu().expand(count, axes)
    bad = ((given < 0) | (given >= torch.tensor(size))).any(1)
    if bool(bad.any()):
        raise InterpretError(
            f"position {tuple(given[bad][0].tolist())} is not in layer {layer.name!r}, whose feature map is "
            f"{' × '.join(map(str, size))}"
        )
    return given


def _boxes(boxes: Any, layer: Layer, count: int) -> Tensor:
    if layer.boxes is None:
        raise InterpretError(
            f"boxes are for layers that run once a box, and layer {layer.name!r} runs once an image: leave boxes out"
        )
    given = torch.as_tensor(boxes).float()
    if given.shape not in ((4,), (count, 4)):
        raise InterpretError(
            f"boxes must be one (top, left, bottom, right), or one for each image or channel ({count}), not of shape "
            f"{list(given.shape)}"
        )
    given = given.cpu().expand(count, 4)
    bad = ~(given.isfinite().all(1) & (given[:, 2:] > given[:, :2]).all(1))
    if bool(bad.any()):
        raise InterpretError(f"box {tuple(given[bad][0].tolist())} is empty: give (top, left, bottom, right)")
    return given


# ---- run -------------------------------------------------------------------------------------------------------------


def _run(
    model: Model, task: _Task, batch_size: int | None, device: str | torch.device | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the signals of n neurons in their windows [n, C, h, w], their activations, positions [n, 2] and boxes."""
    crop, count, home = task.crop, len(task.channels), task.opened.tensor.device
    signals, values = [], []
    with on_device(model.module, device) as target, full_precision(target):
        warn_of_slow_type(target, task.settings.dtype)
        images = task.opened.tensor.to(target)
        at_once = crop.batch_size() if batch_size is None else batch_size_for(batch_size, 1, target)
        layout = task.settings.layouts.get(task.layer)
        known = layout is not None and (layout.parts > 1 or layout.boxes is not None)
        check_answers(model, images[(slice(2), slice(None), *map(slice, crop.size))], task.layer, known)
        at, rois = task.positions, task.boxes
        if task.call is not None:
            at, rois = locate_in_boxes(
                model.module, images, task.layer, task.channels, at, rois, task.settings, at_once
            )
        elif at is None:
            at = _strongest_positions(model.module, images, task, batch_size)
        on_gpu = target.type == "cuda"
        together = count > len(images) and rois is None and not on_gpu  # a GPU is faster with a batch of copies
        found = _run_together(model.module, images, task, at) if together else None
        if found is not None:
            signals, values = [found[0]], [found[1]]

        def run(part: Tensor) -> None:
            corners = crop.corners(at[part])
            local = at[part] - crop.neurons(corners)
            parts = crop.cut(images.expand(count, *images.shape[1:])[part], corners)
            given = None
            if task.call is not None and rois is not None:
                given = {task.call: [rois[row][None] for row in part.tolist()]}
            signal, value = signals_of_batch(
                model.module, parts, task.layer, task.channels[part], local, task.settings, given
            )
            signals.append(crop.window(signal, crop.boxes(at[part]), corners))
            values.append(value)

        left = torch.arange(0 if found is not None else count)
        while len(left):
            part, left = left[:at_once], left[at_once:]
            if on_gpu and batch_size is None and not signals:  # the first batch shows how many fit
                at_once = largest_gpu_batch(target, len(part), partial(run, part), MOST_PARTS)
            else:
                run(part)
    return torch.cat(signals)[:, : task.opened.images.channels].to(home), torch.cat(values).to(home), at, rois


def _run_together(module: nn.Module, image: Tensor, task: _Task, at: Tensor) -> tuple[Tensor, Tensor] | None:
    """Run a whole image once for all of its neurons; None where they run faster on parts of it."""
    crop = task.crop
    # one forward and n backward passes on a whole image take no longer than n of both on half of it
    half = crop.share > 0.5
    if not half and len(at) * crop.share < 1:
        return None
    return signals_of_image(module, image, task.layer, task.channels, at, task.settings, crop, windowed=not half)


def _strongest_positions(module: nn.Module, images: Tensor, task: _Task, batch_size: int | None) -> Tensor:
    """Return the strongest position of each image's channel, [B, 2]; a single image is used for all channels."""
    found: list[Tensor] = []
    layer = task.layer
    at_once = batch_size_for(batch_size, math.prod(task.crop.image), images.device)
    for part in torch.arange(len(images)).split(at_once):
        outputs: dict[str, Tensor] = {}
        hooks = first_outputs(
            module, [layer], outputs.__setitem__, stop=True, count=len(part), layouts=task.settings.layouts
        )
        with torch.inference_mode(), hooks:
            call_network(module, images[part].clone())
        output = outputs[layer]
        own = task.channels[part] if len(images) > 1 else task.channels
        if output.dim() == 2:
            found.append(torch.zeros(len(own), images.dim() - 2, dtype=torch.long))
            continue
        flat = output[torch.arange(len(part)), own].flatten(1).argmax(1).cpu()
        found.append(torch.stack(torch.unravel_index(flat, output.shape[2:]), 1))
    return torch.cat(found)


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(task: _Task, positions: Tensor) -> NDArray[np.uint8]:
    """Return pictures of the windows that the neurons see; a single image is used for all neurons."""
    crop, boxes = task.crop, task.crop.boxes(positions)
    images, scale = task.opened.tensor[:, : task.opened.images.channels], task.opened.images.pixel_scale
    if len(images) == 1 and crop.field == crop.image:
        shown = inputs_to_bytes(images.detach(), scale)
        return np.broadcast_to(shown, (len(boxes), *shown.shape[1:]))
    windows = crop.window(images.detach().expand(len(boxes), *images.shape[1:]), boxes, torch.zeros_like(positions))
    return inputs_to_bytes(windows, scale)
