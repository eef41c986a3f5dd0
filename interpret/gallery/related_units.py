"""The units that one unit is connected to or correlates with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interpret.gallery.drawings import KernelDrawing, draw_kernel
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.study.views.pictures import Picture


@dataclass(frozen=True)
class UnitLink:
    """Another unit, and the number that connects it with this one."""

    layer: LayerPage
    index: int
    value: float
    picture: Picture | None
    kernel: KernelDrawing | None = None


@dataclass(frozen=True)
class Relation:
    """One relation of a unit, and the units at its other end."""

    title: str
    note: str
    links: list[UnitLink]
    signed: bool
    """Whether the numbers are weights, which are shown with their sign."""


def link_to(layer: LayerPage, unit: int, value: float) -> UnitLink:
    """Return a link to a unit, with its picture."""
    return UnitLink(layer, unit, value, layer.picture_of(unit))


def inputs_of(network: NetworkPage, layer: LayerPage, unit: int) -> list[UnitLink]:
    """Return the units of the layers before with the largest weights to a unit."""
    found = layer.connections
    if found is None:
        return []
    kernels = found["kernels"][unit] if found["kernels"].size else None
    return _connected(network, found["in_layers"][unit], found["in_units"][unit], found["in_weights"][unit], kernels)


def outputs_of(network: NetworkPage, layer: LayerPage, unit: int) -> list[UnitLink]:
    """Return the units of the layers after with the largest weights from a unit."""
    found = layer.connections
    if found is None:
        return []
    return _connected(network, found["out_layers"][unit], found["out_units"][unit], found["out_weights"][unit])


def relations_of(network: NetworkPage, layer: LayerPage, unit: int) -> list[Relation]:
    """Return the relations in which a unit has any other unit."""
    found = [
        Relation(
            "Strongest connections from earlier layers",
            "largest weights, + excites, − inhibits",
            inputs_of(network, layer, unit),
            signed=True,
        ),
        Relation(
            "Strongest connections to later layers", "largest weights", outputs_of(network, layer, unit), signed=True
        ),
    ]
    for title, correlates in (
        ("Most correlated units in this layer", network.correlates_inside),
        ("Most correlated units in other layers", network.correlates_outside),
    ):
        if layer.name in correlates:
            of_layer = correlates[layer.name]
            triples = zip(of_layer.layers[unit], of_layer.units[unit], of_layer.values[unit], strict=True)
            links = [
                link_to(network.mined_layers[int(place)], int(other), float(value))
                for place, other, value in triples
                if place >= 0
            ]
            found.append(Relation(title, "correlation of the largest values on the sample", links, signed=False))
    return [relation for relation in found if relation.links]


def _connected(
    network: NetworkPage, layers: Any, units: Any, weights: Any, kernels: Iterable[Any] | None = None
) -> list[UnitLink]:
    """Return the units at the other ends of weights, of the layers that were mined."""
    drawn = [None] * len(layers) if kernels is None else list(kernels)
    found = []
    for place, unit, weight, kernel in zip(layers.tolist(), units.tolist(), weights.tolist(), drawn, strict=True):
        layer = network.traced_at.get(place)
        if layer is not None:
            drawing = None if kernel is None else draw_kernel(kernel)
            found.append(UnitLink(layer, unit, weight, layer.picture_of(unit), drawing))
    return found
