"""A layer's units, in the order of their numbers, with their ranks and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interpret.analyses.mining.result import MinedLayer
from interpret.study.views.pictures import Picture
from interpret.study.views.sprites import PATCHES, Sprites


@dataclass(frozen=True)
class Unit:
    """One unit of a layer."""

    index: int
    value: float
    """Its largest value."""
    rank: int
    """Its place among the layer's units by largest value, from 1; dead units come last."""
    output_class: str
    """The class that it is the output for; empty in all but the last layer."""
    dead: bool
    hits: int
    density: float
    patches: Picture | None
    projections: Picture | None
    """By the first of the layer's rules."""

    @property
    def pictured(self) -> bool:
        """Whether there is a picture of it."""
        return self.patches is not None or self.projections is not None


def read_units(data: MinedLayer, sprites: Sprites, rule: str | None, output_classes: Sequence[str]) -> list[Unit]:
    """Return the units of a mined layer.

    Args:
        data: the mined arrays.
        sprites: the layer's pictures.
        rule: by which the projections are; None: no projections.
        output_classes: what the units are the outputs for; empty in all but the last layer.
    """
    strongest = data.values[:, 0]
    order = np.lexsort((np.arange(len(strongest)), -strongest, data.dead))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    hits = (data.images >= 0).sum(1)
    columns = (strongest, ranks, data.dead, hits, data.density)
    return [
        Unit(
            index=unit,
            value=value,
            rank=rank,
            output_class=output_classes[unit] if output_classes else "",
            dead=dead,
            hits=count,
            density=density,
            patches=sprites.picture(PATCHES, unit),
            projections=sprites.picture(rule, unit) if rule else None,
        )
        for unit, (value, rank, dead, count, density) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]
