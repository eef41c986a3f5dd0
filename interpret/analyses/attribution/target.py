"""What is explained: a class of the output, or a unit of a hidden layer, in each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret.analyses.attribution.settings import DEFAULT_BATCH_SIZE
from interpret.network.answers import check_class_names, main_output, scores_of, why_no_numbers
from interpret.network.forward import call_network
from interpret.network.layers import first_outputs
from interpret.network.model import Model
from interpret.support.errors import InterpretError, unknown
from interpret.tracing.tracing import trace


class TruncatedModel(nn.Module):
    """Run a network up to its output, or up to one layer's; units are the output's second dimension.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 5))
    >>> TruncatedModel(network, "0")(torch.rand(1, 1, 8, 8)).shape
    torch.Size([1, 2, 6, 6])
    """

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        if layer is not None and layer not in dict(network.named_modules()):
            raise unknown("layer", layer, [name for name, _ in network.named_modules() if name])

    @property
    def name(self) -> str:
        return "the network's output" if self.layer is None else f"layer {self.layer!r}"

    def forward(self, images: Tensor) -> Tensor:
        found: dict[str, Any] = {}
        # copied, since the first operation may be in place
        if self.layer is None:
            output = main_output(call_network(self.network, images.clone()))[1]
            # [B]: one score for each image, or the scores of one image whose dimension the network squeezes
            found[""] = output if not isinstance(output, Tensor) or output.dim() > 1 else scores_of(output, len(images))
        else:
            with first_outputs(self.network, [self.layer], found.__setitem__, stop=True):
                call_network(self.network, images.clone())
        output = found.get(self.layer or "")
        unusable = why_no_numbers(output) if isinstance(output, Tensor) else ""
        if not isinstance(output, Tensor) or output.dim() not in (2, 4) or len(output) != len(images) or unusable:
            what = "nothing" if output is None else type(output).__name__
            what = f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else what
            what = unusable or what
            raise InterpretError(f"{self.name} is {what}: a target needs [B, C] or [B, C, H, W], so name a layer")
        return output


@dataclass(frozen=True)
class Target:
    """The neuron that is explained in each image."""

    channels: Tensor
    """[B] the class, or the channel of the layer."""
    positions: Tensor | None
    """[B, 2] row and column; None where the output has no positions."""
    scores: Tensor
    """[B] the neuron's value."""

    def __getitem__(self, part: slice) -> Target:
        return Target(self.channels[part], None if self.positions is None else self.positions[part], self.scores[part])

    @property
    def captum_target(self) -> list[Any]:
        """The index of each image's neuron, in the form that captum expects."""
        if self.positions is None:
            return list(self.channels.tolist())
        return [(channel, *at) for channel, at in zip(self.channels.tolist(), self.positions.tolist(), strict=True)]

    def of(self, output: Tensor) -> Tensor:
        """Return the values [B] of the neurons in an output."""
        rows = torch.arange(len(output), device=output.device)
        if self.positions is None:
            return output[rows, self.channels]
        return output[rows, self.channels, self.positions[:, 0], self.positions[:, 1]]


def find_target(
    model: Model,
    truncated: TruncatedModel,
    images: Tensor,
    target: Any,
    position: Any,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Target:
    """Return the neuron of each image that the user's `target` and `position` name.

    >>> from interpret.network.model import as_model
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> find_target(as_model(network), TruncatedModel(network, "0"), torch.rand(2, 1, 8, 8), 1, (4, 5)).captum_target
    [(1, 4, 5), (1, 4, 5)]
    """
    with torch.no_grad():
        output = torch.cat([truncated(part) for part in images.split(batch_size)])
    if not output.numel():
        raise InterpretError(f"{truncated.name} has no units: it is a tensor of shape {list(output.shape)}")
    bad = ~output.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        raise InterpretError(
            f"{truncated.name} is NaN or infinite on image {int(bad.nonzero()[0])}: check the weights, or leave the "
            "image out"
        )
    if truncated.layer is None:
        check_class_names(model, output.shape[1])
    strongest = output if output.dim() == 2 else output.flatten(2).amax(2)
    channels = _channels(model, truncated, target, strongest).to(output.device)
    positions = _positions(truncated, position, output, channels)
    unscored = Target(channels, positions, channels)
    return Target(channels, positions, unscored.of(output))


def _channels(model: Model, truncated: TruncatedModel, target: Any, strongest: Tensor) -> Tensor:
    """Return the channel [B] of each image, given the strongest value of each channel, [B, C]."""
    count, units = strongest.shape
    if target is None:
        return strongest.argmax(1)
    if isinstance(target, Tensor):
        target = target.tolist()
    given = list(target) if isinstance(target, Sequence | np.ndarray) and not isinstance(target, str) else [target]
    if len(given) not in (1, count):
        raise InterpretError(f"target must be one class or {count}, one for each image, not {len(given)}")
    classes = model.classes if truncated.layer is None and model.classes is not None else ()
    found = []
    for one in given:
        if isinstance(one, str):
            if not classes:
                raise InterpretError(f"target {one!r} is a name, and {truncated.name} has no names: give a number")
            if one not in classes:
                raise unknown("class", one, classes)
            one = classes.index(one)
        if isinstance(one, bool) or not isinstance(one, int | np.integer):
            raise InterpretError(f"target must be a whole number or a class's name, not {one!r}")
        if not 0 <= one < units:
            raise InterpretError(f"target {one} does not exist: {truncated.name} has the units 0 to {units - 1}")
        found.append(int(one))
    return torch.tensor(found).expand(count)


def _positions(truncated: TruncatedModel, position: Any, output: Tensor, channels: Tensor) -> Tensor | None:
    """Return the position [B, 2] of each image: as given, or where its channel is strongest."""
    if output.dim() == 2:
        if position is not None:
            raise InterpretError(f"position must be left out, not {position}: {truncated.name} has no positions")
        return None
    count, (height, width) = len(output), output.shape[2:]
    if position is None:
        flat = output[torch.arange(count), channels].flatten(1).argmax(1)
        return torch.stack([flat // width, flat % width], 1)
    given = torch.as_tensor(position)
    if given.is_floating_point() or given.shape not in ((2,), (count, 2)):
        raise InterpretError(
            f"position must be one (row, column) or {count}, one for each image, not of shape {list(given.shape)}"
        )
    given = given.to(output.device).expand(count, 2)
    bad = ((given < 0) | (given >= torch.tensor([height, width], device=given.device))).any(1)
    if bool(bad.any()):
        raise InterpretError(
            f"position {tuple(given[bad][0].tolist())} is not in {truncated.name}, whose map is {height} × {width}"
        )
    return given


Window = tuple[slice, slice]
"""Rows and columns."""


def visible_windows(model: Model, truncated: TruncatedModel, images: Tensor, target: Target) -> list[Window]:
    """Return each target's receptive field in its image, as slices of rows and columns.

    >>> from interpret.network.model import as_model
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> model, truncated, images = as_model(network), TruncatedModel(network, "0"), torch.rand(1, 1, 8, 8)
    >>> visible_windows(model, truncated, images, find_target(model, truncated, images, 0, (1, 5)))
    [(slice(1, 4, None), slice(5, 8, None))]
    """
    traced = None if truncated.layer is None else trace(model.module, tuple(images.shape[1:])).get(truncated.layer)
    field = None if traced is None else traced.receptive_field
    height, width = images.shape[2:]
    if field is None or target.positions is None:
        return [(slice(0, height), slice(0, width))] * len(images)
    seen = [field.window((row, column)) for row, column in target.positions.tolist()]
    return [
        (slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width)))
        for top, left, bottom, right in seen
    ]


def target_names_of(model: Model, layer: str | None, target: Target) -> list[str]:
    """Return the name of each image's target, such as "tabby cat" or "unit 12 at 3, 4"."""
    channels = target.channels.tolist()
    if layer is None and model.classes is not None:
        return [model.classes[channel] for channel in channels]
    what = "class" if layer is None else "unit"
    places = [""] * len(channels)
    if target.positions is not None:
        places = [f" at\u00a0{row},\u00a0{column}" for row, column in target.positions.tolist()]
    return [f"{what} {channel}{place}" for channel, place in zip(channels, places, strict=True)]
