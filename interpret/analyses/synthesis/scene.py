"""Scenes: the size of the image that runs for some objectives, and where in it their neurons are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from interpret.analyses.projection.crop import Crop
from interpret.analyses.synthesis.objectives import OUTPUT, Objective, Position
from interpret.network.layers import Layout
from interpret.support.errors import InterpretError
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """What runs for some objectives, and what is shown of it."""

    shape: tuple[int, int, int]
    """(C, height, width) of the image that runs."""
    window: Box
    """Top, left, bottom and right of what is shown: for neurons, what they see."""
    positions: dict[str, Position]
    """By layer, the position of the neuron in the layer's feature map."""
    channels: dict[str, int]
    """By layer, the number of channels."""
    crop: Crop | None = None
    """How to cut the same part out of a whole image; None if whole images run."""
    whole: tuple[int, int, int] = (0, 0, 0)
    """(C, H, W) of a whole input of the network."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """How outputs of layers are arranged that are no map [B, C, H, W]."""

    @property
    def side(self) -> int:
        """The shorter side of what is shown, in pixels."""
        top, left, bottom, right = self.window
        return min(bottom - top, right - left)

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of what is shown."""
        top, left, bottom, right = self.window
        return bottom - top, right - left

    def show(self, images: Tensor) -> Tensor:
        """Return what is shown of images [..., height, width] that run."""
        top, left, bottom, right = self.window
        return images[..., top:bottom, left:right]

    def part_of(self, image: Tensor, position: Position) -> tuple[Tensor, Tensor, Position]:
        """Return what runs of a whole image [C, H, W] for a neuron, what the neuron sees, and its new position."""
        if self.crop is None:
            return image, image, position
        at = torch.tensor([position])
        corner, box = self.crop.corners(at), self.crop.boxes(at)
        part = self.crop.cut(image[None], corner)
        local = (at - self.crop.neurons(corner))[0].tolist()
        return part[0], self.crop.window(part, box, corner)[0], (local[0], local[1])


def set_scene(
    module: nn.Module, objectives: Sequence[Objective], whole: tuple[int, int, int], size: tuple[int, int] | None
) -> Scene:
    """Return the scene of objectives: a part as large as a receptive field where one suffices, else a whole image.

    Args:
        module: the network.
        objectives: what is maximised.
        whole: (C, H, W) of an input of the network.
        size: (height, width) of the image instead; None: chosen.

    Raises:
        InterpretError: an unknown layer, unit or direction; a size below a receptive field.
    """
    layers = sorted(set().union(*(objective.layers for objective in objectives)) - {OUTPUT})
    shape = whole if size is None else (whole[0], *size)
    found, layouts = _layers(module, layers, whole)
    local = len(layers) == 1 and all(objective.is_local for objective in objectives)
    if local and size is None:
        return replace(_cropped(found[layers[0]], whole), layouts=layouts)
    if size is not None:
        seen_by_neurons = {term.layer for one in objectives for term in one.terms if term.kind == "neuron"}
        for name in seen_by_neurons:
            _refuse_small(found[name], size, whole)
        found, layouts = _layers(module, layers, shape)
    positions = {name: _middle(layer) for name, layer in found.items()}
    channels = {name: layer.output_shape[0] for name, layer in found.items()}
    return Scene(shape, (0, 0, shape[1], shape[2]), positions, channels, whole=whole, layouts=layouts)


def _layers(
    module: nn.Module, names: Sequence[str], shape: tuple[int, int, int]
) -> tuple[Mapping[str, Layer], Mapping[str, Layout]]:
    """Return the layers as they run on images of this shape, and how their outputs are arranged."""
    if not names:
        return {}, {}
    traced = trace_on_meta(module, shape)
    return {name: layer_with_units(traced, name) for name in names}, layouts_of(traced, names)


def _cropped(layer: Layer, whole: tuple[int, int, int]) -> Scene:
    crop = Crop.of(layer, whole[1:], rule="gradient")
    position = torch.tensor([_middle(layer)])
    channels = {layer.name: layer.output_shape[0]}
    if crop.whole:
        return Scene(whole, (0, 0, *whole[1:]), {layer.name: _middle(layer)}, channels, whole=whole)
    corner, box = crop.corners(position), crop.boxes(position)
    local = (position - crop.neurons(corner))[0].tolist()
    top, left, bottom, right = (box - corner.repeat(1, 2))[0].tolist()
    height, width = crop.size
    shape = (whole[0], height, width)
    return Scene(shape, (top, left, bottom, right), {layer.name: (local[0], local[1])}, channels, crop, whole)


def _middle(layer: Layer) -> Position:
    height, width = layer.output_shape[1:] or (1, 1)
    return height // 2, width // 2


def _refuse_small(layer: Layer, size: tuple[int, int], whole: tuple[int, int, int]) -> None:
    """Refuse a size below a receptive field, of which the network's own input may hold only a part."""
    field = layer.receptive_field
    if field is None:
        return
    needed = [min(seen, side) for seen, side in zip(field.size, whole[1:], strict=True)]
    if any(side < least for side, least in zip(size, needed, strict=True)):
        raise InterpretError(
            f"size {size[0]} × {size[1]} is smaller than the receptive field of {layer.name!r}, "
            f"{field.size[0]} × {field.size[1]}: give at least {needed[0]} × {needed[1]}, or leave size out"
        )
