"""Scenes: the size of the image that runs for some objectives, and where in it their neurons are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from interpret.analyses.projection.crop import Crop
from interpret.analyses.synthesis.cone import ConePass, Part
from interpret.analyses.synthesis.objectives import OUTPUT, Objective, Position
from interpret.network.forward import collect_outputs, weights_type
from interpret.network.layers import Layout
from interpret.support.errors import InterpretError
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of

Box = tuple[int, int, int, int]

SMALLEST_CONE = 32
"""The side in pixels of a receptive field below which a crop is as fast as a cone."""


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
    neuron: Position = (0, 0)
    """The position of the neuron of a crop in the feature map of a whole image."""
    part: Part | None = None
    """What the image is of a whole one, if each layer runs where the neuron sees alone (`in_cone`)."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """How outputs of layers are arranged that are no map [B, C, H, W]."""

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """(C, height, width) of what runs where positions run that the neuron does not see, too."""
        return self.shape if self.crop is None else (self.shape[0], self.crop.size[0], self.crop.size[1])

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


def in_cone(module: nn.Module, scene: Scene, device: torch.device) -> Scene:
    """Return a scene in which only the receptive field runs, and at each layer what the neuron sees.

    It is tried once: where it gives another value than the crop, as in networks whose padding depends on the size of
    the image, the scene stays as it is. The network is on the device, in evaluation mode.
    """
    if scene.crop is None or scene.layouts or scene.side < SMALLEST_CONE:
        return scene
    ((name, local),) = scene.positions.items()
    at = torch.tensor([scene.neuron])
    corner, (top, left, bottom, right) = scene.crop.corners(at), scene.crop.boxes(at)[0].tolist()
    part = Part((top, left), (scene.whole[1], scene.whole[2]))
    if (bottom - top, right - left) == part.whole:
        return scene
    image = torch.rand(2, *scene.whole, generator=torch.Generator().manual_seed(0)).to(device, weights_type(module))
    seen, cut = image[:, :, top:bottom, left:right].clone(), scene.crop.cut(image, corner.expand(2, -1))
    with torch.no_grad():
        try:
            with ConePass(seen, part) as cone:
                found = collect_outputs(module, seen, [name])[name]
        except (InterpretError, RuntimeError):
            return scene
        wanted = collect_outputs(module, cut, [name])[name]
    own = cone.part_of(found)
    if own is None:
        return scene
    y, x = (place - first for place, first in zip(scene.neuron, own.corner, strict=True))
    if not (0 <= y < found.shape[2] and 0 <= x < found.shape[3]):
        return scene
    values, wanted = found[:, :, y, x], wanted[:, :, local[0], local[1]]
    if not bool(((values - wanted).abs() <= 1e-3 * wanted.abs() + 1e-4 * wanted.abs().max()).all()):
        return scene
    size = bottom - top, right - left
    return replace(scene, shape=(scene.whole[0], *size), window=(0, 0, *size), positions={name: (y, x)}, part=part)


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
    corner, box = crop.corners(position), crop.boxes(position)
    local = (position - crop.neurons(corner))[0].tolist()
    top, left, bottom, right = (box - corner.repeat(1, 2))[0].tolist()
    shape, at = (whole[0], crop.size[0], crop.size[1]), {layer.name: (local[0], local[1])}
    return Scene(shape, (top, left, bottom, right), at, channels, crop, whole, neuron=_middle(layer))


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
