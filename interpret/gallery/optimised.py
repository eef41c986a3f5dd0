"""Optimised images of a unit, beside its strongest patch, with the numbers that tell whether they are true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpret.gallery.tiles import side_by_side
from interpret.study.reader import StudyReader
from interpret.support.files import layer_path

TILE = 160
GAP = 4


@dataclass(frozen=True)
class Kept:
    """The share of an activation that is left after an image was damaged, and the same for the natural image."""

    how: str
    share: float
    natural: float | None


@dataclass(frozen=True)
class Optimised:
    """A unit's optimised images of one kind."""

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


TITLES = {"neuron": "Optimised image", "unit": "Optimised image for its whole map"}
DAMAGES = {"jpeg": "JPEG", "shift": "shift", "blur": "blur"}


def read_optimised(study: StudyReader) -> list[Any]:
    """Return a study's results of optimised images of units."""
    found = [study.readable_result(kind, name) for kind, name in study.results if kind == "synthesised"]
    return [one for one in found if one is not None and one.target in TITLES]


def optimised_of(results: list[Any], layer: str, unit: int, with_natural: bool) -> list[Optimised]:
    """Return a unit's optimised images; `with_natural` beside the strongest natural image."""
    found = []
    for result in results:
        rows = np.flatnonzero(result.units == unit) if result.layer == layer else np.zeros(0, np.int64)
        if not len(rows):
            continue
        tiles = list(result.pictures[rows])
        natural = result.natural_pictures
        beside = with_natural and natural is not None and natural.shape[1:] == result.pictures.shape[1:]
        if natural is not None and beside:
            tiles.append(natural[rows[0]])
        picture, size = side_by_side(np.stack(tiles)[None], TILE, GAP)
        row, name = int(rows[0]), f"{result.target}{'-negative' * result.negative}"
        made = f"made from noise in {result.settings.get('steps')} steps"
        found.append(
            Optimised(
                path=f"optimised/{layer_path(layer)}/{name}-{unit}.png",
                picture=picture,
                width=size[0],
                height=size[1],
                title=TITLES[result.target],
                note=f"{made}, beside the strongest patch" if beside else made,
                value=float(result.values[row]),
                share=_finite(result.shares, row),
                beats_natural=result.beats_natural is None or bool(result.beats_natural[row]),
                kept=[
                    Kept(DAMAGES[how], float(shares[row]), _finite(result.natural_kept.get(how), row))
                    for how, shares in result.kept.items()
                    if math.isfinite(shares[row])
                ],
                distance=_finite(result.distances, row),
                distance_layers=result.distance_layers,
            )
        )
    return found


def _finite(values: Any, row: int) -> float | None:
    return float(values[row]) if values is not None and math.isfinite(values[row]) else None
