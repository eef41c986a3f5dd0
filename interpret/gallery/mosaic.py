"""A mosaic of optimised images: units that respond to the same images lie near each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.gallery.layer_page import LayerPage
from interpret.gallery.optimised import SmallOptimised

MOST_PLACED = 240
WIDE = 3
"""How many times as wide as high a mosaic is."""
FEWEST_PLACED = 8
"""Fewer images tell nothing by their places."""


@dataclass(frozen=True)
class Placed:
    """A unit with its optimised image, in the place of a mosaic."""

    layer: LayerPage
    unit: int
    made: SmallOptimised


def place_by_similarity(layers: Sequence[tuple[LayerPage, Mapping[int, SmallOptimised]]]) -> list[list[Placed]]:
    """Return units that have optimised images, in the rows of a mosaic that is wider than high.

    Of more than `MOST_PLACED`, the first of each layer are taken, then the second, and so on. Similar are units whose
    largest values on the images of the sample correlate; a layer that was mined on another sample is left out.
    """
    rounds = zip_longest(*([(layer, unit, made) for unit, made in found.items()] for layer, found in layers))
    chosen = [one for one in chain.from_iterable(rounds) if one is not None][:MOST_PLACED]
    units: dict[str, list[int]] = {}
    for layer, unit, _ in chosen:
        units.setdefault(layer.name, []).append(unit)
    maxima: dict[tuple[str, int], NDArray[Any]] = {}
    sample = None
    for layer, _ in layers:
        if layer.name not in units:
            continue
        sample = layer.data.sample_images if sample is None else sample
        if np.array_equal(sample, layer.data.sample_images):
            maxima |= {(layer.name, unit): layer.data.sample_maxima[:, unit] for unit in units[layer.name]}
        layer.forget()
    placed = [Placed(*one) for one in chosen if (one[0].name, one[1]) in maxima]
    if len(placed) < FEWEST_PLACED:
        return []
    rows = mosaic(np.stack([maxima[one.layer.name, one.unit] for one in placed]))
    return [[placed[place] for place in row] for row in rows]


def mosaic(features: NDArray[Any]) -> list[list[int]]:
    """Return the rows of a mosaic of n features [n, d], in which those that correlate are neighbours.

    >>> rise, fall = np.arange(4.0), -np.arange(4.0)
    >>> mosaic(np.stack([rise, fall] * 4))[0] in ([0, 2, 4, 6], [1, 3, 5, 7])
    True

    The first principal component of the standardised features gives the row, the second the place in the row.
    """
    finite = np.nan_to_num(np.asarray(features, np.float64), posinf=0, neginf=0)
    centred = finite - finite.mean(1, keepdims=True)
    standard = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    left, sizes, _ = np.linalg.svd(standard - standard.mean(0), full_matrices=False)
    scores = (left * sizes)[:, :2]
    # a component's sign is arbitrary: its largest score is positive
    largest = np.abs(scores).argmax(0)
    scores = (scores * np.sign(scores[largest, range(scores.shape[1])])).round(6)
    by_row = np.argsort(-scores[:, 0], kind="stable")
    across = math.ceil(len(scores) / round(math.sqrt(len(scores) / WIDE)))
    rows = [by_row[start : start + across] for start in range(0, len(by_row), across)]
    return [row[np.argsort(scores[row, -1], kind="stable")].tolist() for row in rows]
