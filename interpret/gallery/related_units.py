"""The units that one unit is connected to or correlates with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interpret.gallery.drawings import kernel_levels
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage


@dataclass(frozen=True)
class UnitLink:
    """Another unit, and the number that connects it with this one."""

    layer: LayerPage
    index: int
    value: float
    kernel: str = ""
    """The kernel between the two, as `kernel_levels` writes it; empty where it has but one weight."""


@dataclass(frozen=True)
class Relation:
    """One relation of a unit, and the units at its other end."""

    kind: str
    """Connections "in" or "out", or correlations "inside" the layer or "outside" of it; `pictures.js` has the words."""
    links: list[UnitLink]

    @property
    def signed(self) -> bool:
        """Whether the numbers are weights, which are shown with their sign."""
        return self.kind in ("in", "out")


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
    found = [Relation("in", inputs_of(network, layer, unit)), Relation("out", outputs_of(network, layer, unit))]
    for kind, correlates in (("inside", network.correlates_inside), ("outside", network.correlates_outside)):
        if layer.name in correlates:
            of_layer = correlates[layer.name]
            triples = zip(
                of_layer.layers[unit].tolist(),
                of_layer.units[unit].tolist(),
                of_layer.values[unit].tolist(),
                strict=True,
            )
            links = [UnitLink(network.mined_layers[at], other, value) for at, other, value in triples if at >= 0]
            found.append(Relation(kind, links))
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
            found.append(UnitLink(layer, unit, weight, "" if kernel is None else kernel_levels(kernel)))
    return found
