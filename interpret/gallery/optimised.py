"""Optimised images of units and classes, with the numbers that tell whether they are true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from interpret.gallery.tiles import side_by_side
from interpret.study.reader import StudyReader
from interpret.support.files import layer_path

TILE = 160
GAP = 4
SMALL_TILE = 128
"""Side in pixels of an optimised image on sheets."""


@dataclass(frozen=True)
class Kept:
    """The share of an activation that is left after an image was damaged, and the same for the natural image."""

    how: str
    share: float
    natural: float | None


@dataclass(frozen=True)
class Optimised:
    """The optimised images of one unit or class, of one kind."""

    path: str
    picture: bytes
    width: int
    height: int
    title: str
    note: str
    value: float
    share: float | None
    """As a share of the strongest natural one; None where that is not above zero."""
    beats_natural: bool
    kept: list[Kept]
    distance: float | None
    distance_layers: list[str]


@dataclass(frozen=True)
class SmallOptimised:
    """A unit's optimised image as sheets show it."""

    path: str
    picture: bytes
    width: int
    height: int
    value: float
    share: float | None
    beats_natural: bool
    pixels: bool
    """Whether it is magnified without smoothing."""

    @property
    def href(self) -> str:
        """The path as a relative address."""
        return quote(self.path)


TITLES = {
    "neuron": "Optimised image",
    "unit": "Optimised image for its whole map",
    "class": "Optimised image of the class",
}
DAMAGES = {"jpeg": "JPEG", "shift": "shift", "blur": "blur"}


class OptimisedImages:
    """A study's optimised images of units, and of classes, which belong to no layer."""

    def __init__(self, study: StudyReader) -> None:
        known = [one for one in study.readable_results("synthesised").values() if one.target in TITLES]
        self._results = sorted(known, key=lambda one: (list(TITLES).index(one.target), one.negative))

    def of(self, layer: str, unit: int, with_natural: bool) -> list[Optimised]:
        """Return a unit's optimised images, or a class's with layer ""; `with_natural` beside the strongest natural."""
        return [
            _optimised(result, layer, unit, rows, with_natural)
            for result in self._results
            if result.layer == layer and len(rows := np.flatnonzero(result.units == unit))
        ]

    def of_layer(self, layer: str) -> dict[int, SmallOptimised]:
        """Return the first optimised image of each unit of a layer that has one, in the order in which they were made.

        An image that silences a unit is no image of it.
        """
        found: dict[int, SmallOptimised] = {}
        for result in self._results:
            if result.layer != layer or result.negative:
                continue
            for row, unit in enumerate(result.units.tolist()):
                if unit not in found:
                    found[unit] = _small(result, layer, unit, row)
        return found


def _optimised(result: Any, layer: str, unit: int, rows: Any, with_natural: bool) -> Optimised:
    tiles = list(result.pictures[rows])
    natural = result.natural_pictures
    beside = with_natural and natural is not None and natural.shape[1:] == result.pictures.shape[1:]
    if natural is not None and beside:
        tiles.append(natural[rows[0]])
    picture, size = side_by_side(np.stack(tiles)[None], TILE, GAP)
    row, name = int(rows[0]), f"{result.target}{'-negative' * result.negative}"
    made = f"made from noise in {result.settings_of(row).get('steps')} steps"
    if beside:
        made += f", beside the strongest {'image' if result.target == 'class' else 'patch'}"
    if result.redirected[row]:
        made += f"; silent at first, so that {int(result.redirected[row])} of the steps passed through flat rectifiers"
    if own := result.own_settings_in_words(row):
        made += f"; not all units of the layer have its {own}"
    return Optimised(
        path=f"{_folder(layer)}/{name}-{unit}.png",
        picture=picture,
        width=size[0],
        height=size[1],
        title=TITLES[result.target],
        note=made,
        value=float(result.values[row]),
        share=_finite(result.shares, row),
        beats_natural=_beats(result, row),
        kept=[
            Kept(DAMAGES[how], float(shares[row]), _finite(result.natural_kept.get(how), row))
            for how, shares in result.kept.items()
            if math.isfinite(shares[row])
        ],
        distance=_finite(result.distances, row),
        distance_layers=result.distance_layers,
    )


def _small(result: Any, layer: str, unit: int, row: int) -> SmallOptimised:
    picture, size = side_by_side(result.pictures[row][None, None], SMALL_TILE, 0)
    return SmallOptimised(
        path=f"{_folder(layer)}/{unit}.png",
        picture=picture,
        width=size[0],
        height=size[1],
        value=float(result.values[row]),
        share=_finite(result.shares, row),
        beats_natural=_beats(result, row),
        pixels=max(result.pictures.shape[1:3]) <= SMALL_TILE // 2,
    )


def _folder(layer: str) -> str:
    return f"optimised/{layer_path(layer)}" if layer else "optimised-classes"


def _beats(result: Any, row: int) -> bool:
    return result.beats_natural is None or bool(result.beats_natural[row])


def _finite(values: Any, row: int) -> float | None:
    return float(values[row]) if values is not None and math.isfinite(values[row]) else None
