"""Which units lead to a class: those among whose hits are images that are predicted as it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.gallery.classes import Classes
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage

MOST_OF_LAYER = 12
"""How many units of a layer are kept for a class at most."""


@dataclass(frozen=True)
class UnitOfClass:
    """A unit among whose hits are images that are predicted as a class."""

    layer: LayerPage
    unit: int
    count: int
    """How many of its hits are such images."""
    rank: int
    """The place of the first of them among its hits, from 0."""


class UnitsByClass:
    """Collects from layer after layer the units whose hits are predicted as each class.

    Classes are those that have pages, by their place among them. Units of a class are sorted by how many of their hits
    are predicted as it, then by the rank of the first of those hits, then from the last layer to the first.
    """

    def __init__(self, network: NetworkPage, classes: Classes) -> None:
        self._layers: list[LayerPage] = []
        self._class_count = len(classes.entries)
        self._found: list[NDArray[np.int64]] = [np.zeros((0, 5), np.int64)]
        """Rows of class, layer, unit, count and rank."""
        sources = network.sources
        self.class_of = np.full(int(sources.numbers.max(initial=0)) + 1, -1, np.int64)
        """The class that each source is predicted as, by the source's number; −1 for none."""
        place = {entry.number: j for j, entry in enumerate(classes.entries)}
        for output in np.unique(sources.best[sources.best >= 0]).tolist():
            entry = classes.of_output(output)
            if entry is not None:
                self.class_of[sources.numbers[sources.best == output]] = place[entry.number]

    def add_layer(self, layer: LayerPage) -> None:
        """Add the units of a layer, while its arrays are in memory."""
        found = strongest_of_each(self.class_of[layer.data.sources], layer.data.images >= 0)
        self._found.append(np.insert(found, 1, len(self._layers), axis=1))
        self._layers.append(layer)

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """Yield for each class its units as rows [n, 5] of class, layer, unit, count and rank."""
        rows = np.concatenate(self._found)
        kind, layer, unit, count, rank = rows.T
        rows = rows[np.lexsort((unit, -layer, rank, -count, kind))]
        bounds = np.searchsorted(rows[:, 0], np.arange(self._class_count + 1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield rows[start:end]

    def by_class(self) -> Iterator[list[UnitOfClass]]:
        """Yield for each class its units."""
        for rows in self.rows():
            yield [UnitOfClass(self._layers[layer], unit, count, rank) for _, layer, unit, count, rank in rows.tolist()]


def strongest_of_each(kinds: NDArray[Any], exists: NDArray[np.bool_], most: int = MOST_OF_LAYER) -> NDArray[np.int64]:
    """Return for each class the units [rows of class, unit, count, rank] with the most hits of it, at most so many.

    >>> strongest_of_each(np.array([[3, 3, -1], [7, 3, 3], [7, -1, -1]]), np.ones((3, 3), bool), most=1)
    array([[3, 0, 2, 0],
           [7, 1, 1, 0]])

    Args:
        kinds: [C, k] the class of each hit of C units, −1 for none.
        exists: [C, k] which hits exist.
        most: how many units of a class are returned at most.
    """
    units, ranks = np.nonzero(exists & (kinds >= 0))
    key = kinds[units, ranks] * len(kinds) + units
    # ranks ascend within a unit: the first of each pair is the earliest hit
    pairs, firsts, counts = np.unique(key, return_index=True, return_counts=True)
    kind, unit = np.divmod(pairs, len(kinds))
    rows = np.stack([kind, unit, counts, ranks[firsts]], 1)
    rows = rows[np.lexsort((unit, rows[:, 3], -counts, kind))]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    place = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)]))
    return rows[place < most]
