"""Objectives: what an optimised image maximises, as numbers of a network's activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from interpret.support.errors import InterpretError, unknown

Kind = Literal["neuron", "unit", "layer", "class"]
KINDS: tuple[Kind, ...] = ("neuron", "unit", "layer", "class")

OUTPUT = ""
"""The place of the network's own output among the outputs of layers."""

Position = tuple[int, int]


@dataclass(frozen=True)
class Term:
    """A weight times one number of a layer's activations; see the methods of `Objective`."""

    weight: float
    kind: Kind
    layer: str
    unit: int | None = None
    direction: tuple[float, ...] | None = None
    """One weight per channel, instead of a unit."""

    def value(self, output: Tensor, row: int, position: Position) -> Tensor:
        """Return the number for one image (row) of a layer's output, without the weight."""
        features = output[row]
        if self.kind == "layer":
            return features.square().mean()
        if self.kind == "neuron" and features.dim() == 3:
            features = features[:, position[0], position[1]]
        elif self.kind == "unit":
            features = features.flatten(1).mean(1) if features.dim() > 1 else features
        if self.direction is None:
            return features[self.unit]
        return (features * torch.tensor(self.direction, dtype=features.dtype, device=features.device)).sum()

    def __str__(self) -> str:
        if self.kind == "layer":
            return f"layer {self.layer}"
        of = f" of {self.layer}" if self.layer else ""
        return f"direction{of}" if self.unit is None else f"{self.kind} {self.unit}{of}"


@dataclass(frozen=True)
class Objective:
    """What an image maximises: a sum of weighted activations, made with +, − and ·.

    >>> both = Objective.unit("conv2", 3) + 0.5 * Objective.unit("conv2", 7)
    >>> print(both - Objective.neuron("conv1", 0))
    unit 3 of conv2 + 0.5·unit 7 of conv2 − neuron 0 of conv1
    """

    terms: tuple[Term, ...]

    @classmethod
    def neuron(cls, layer: str, unit: int) -> Objective:
        """Return the activation of a unit at the central position of its feature map."""
        return cls((Term(1.0, "neuron", layer, int(unit)),))

    @classmethod
    def unit(cls, layer: str, unit: int) -> Objective:
        """Return the mean of a unit's feature map."""
        return cls((Term(1.0, "unit", layer, int(unit)),))

    @classmethod
    def logit(cls, label: int) -> Objective:
        """Return the network's output for a class, before a softmax if the network has none of its own."""
        return cls((Term(1.0, "class", OUTPUT, int(label)),))

    @classmethod
    def layer(cls, layer: str) -> Objective:
        """Return the mean square of a layer's activations (DeepDream)."""
        return cls((Term(1.0, "layer", layer),))

    @classmethod
    def direction(cls, layer: str, weights: Iterable[float], everywhere: bool = False) -> Objective:
        """Return the sum of a layer's channels, weighted, at the central position or as a mean over all positions."""
        numbers = tuple(float(one) for one in weights)
        return cls((Term(1.0, "unit" if everywhere else "neuron", layer, None, numbers),))

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms)

    def __mul__(self, factor: float) -> Objective:
        return Objective(tuple(replace(term, weight=term.weight * factor) for term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    @property
    def layers(self) -> set[str]:
        """The layers whose outputs it needs; `OUTPUT` for the network's own."""
        return {term.layer for term in self.terms}

    @property
    def is_local(self) -> bool:
        """Whether it needs one position of one layer alone, and thus only a receptive field."""
        return len(self.layers) == 1 and all(term.kind == "neuron" for term in self.terms)

    def value(self, outputs: Mapping[str, Tensor], row: int, positions: Mapping[str, Position]) -> Tensor:
        """Return its value for one image of a batch, given the layers' outputs and the positions of neurons."""
        parts = [
            term.weight * term.value(outputs[term.layer], row, positions.get(term.layer, (0, 0))) for term in self.terms
        ]
        return torch.stack(parts).sum()

    def check(self, channels: Mapping[str, int]) -> None:
        """Refuse units and directions that a layer, with so many channels, does not have."""
        for term in self.terms:
            count = channels[term.layer]
            if term.unit is not None and not 0 <= term.unit < count:
                what = f"layer {term.layer!r}, whose units are" if term.layer else "the network, whose classes are"
                name = "unit" if term.layer else "class"
                raise InterpretError(f"{name} {term.unit} is not in {what} 0 to {count - 1}")
            if term.direction is not None and len(term.direction) != count:
                raise InterpretError(
                    f"the direction has {len(term.direction)} numbers, and layer {term.layer!r} has {count} channels: "
                    "give one number per channel"
                )
            if term.direction is not None and not all(map(math.isfinite, term.direction)):
                raise InterpretError("the direction has numbers that are NaN or infinite: correct it")

    def __str__(self) -> str:
        said = ""
        for term in self.terms:
            sign = ("\N{MINUS SIGN}" if term.weight < 0 else "+") if said else "\N{MINUS SIGN}" * (term.weight < 0)
            factor = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}·"
            said += f" {sign} {factor}{term}" if said else f"{sign}{factor}{term}"
        return said


def objectives_of(kind: str, layer: str | None, units: Sequence[int], directions: Any) -> list[Objective]:
    """Return one objective for each of a layer's units, or directions, or for the layer as a whole.

    >>> [str(one) for one in objectives_of("unit", "conv1", [3, 5], None)]
    ['unit 3 of conv1', 'unit 5 of conv1']
    """
    if kind not in KINDS:
        raise unknown("kind of objective", kind, KINDS)
    if kind == "class":
        return [Objective.logit(unit) for unit in units]
    if layer is None:
        raise InterpretError(f"kind={kind!r} needs a layer: name one, or take kind='class'")
    if kind == "layer":
        return [Objective.layer(layer)]
    if directions is not None:
        rows = torch.as_tensor(directions).double()
        rows = rows[None] if rows.dim() == 1 else rows
        if rows.dim() != 2 or not len(rows):
            raise InterpretError(f"directions must be [n, channels] numbers, not of shape {list(rows.shape)}")
        return [Objective.direction(layer, row, everywhere=kind == "unit") for row in rows.tolist()]
    make = Objective.unit if kind == "unit" else Objective.neuron
    return [make(layer, unit) for unit in units]
