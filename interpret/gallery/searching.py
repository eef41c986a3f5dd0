"""What search goes through: names, and what units show: the classes of their hits, and their colours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.gallery import image_list
from interpret.gallery.classes import Classes
from interpret.gallery.colours import COLOURS, LETTERS
from interpret.gallery.findings import Finding
from interpret.gallery.pages import LayerView, NetworkView

INDEX = "assets/index.js"
SHOWN = "assets/shown.js"
OF_LAYER = 12
"""How many units of a layer a class leads to at most."""


@dataclass(frozen=True)
class UnitOfClass:
    """A unit among whose hits are images that the network takes for a class."""

    layer: LayerView
    unit: int
    count: int
    """How many of its hits are such images."""
    rank: int
    """The place of the first of them among its hits, from 0."""


class SearchIndex:
    """Collects from layer after layer what units show, and writes what search loads.

    Classes are those that have pages, by their place among them. Units of a class are sorted by how many of their hits
    the network takes for it, then by how early the first of those hits comes, then from the last layer to the first.
    """

    def __init__(self, network: NetworkView, classes: Classes) -> None:
        self.network, self.classes = network, classes
        self._layers: list[LayerView] = []
        self._colours: list[str] = []
        self._found: list[NDArray[np.int64]] = [np.zeros((0, 5), np.int64)]
        """Rows of class, layer, unit, count and rank."""
        self._class_of = np.full(max(network.sources, default=0) + 1, -1, np.int64)
        place = {entry.number: j for j, entry in enumerate(classes.entries)}
        for number, source in network.sources.items():
            entry = classes.of_answer(source.likeliest[0].answer) if source.likeliest else None
            if entry is not None:
                self._class_of[number] = place[entry.number]

    def take(self, layer: LayerView) -> None:
        """Take in a layer while its arrays are at hand."""
        found = strongest_of_each(self._class_of[layer.data.sources], layer.data.images >= 0)
        self._found.append(np.insert(found, 1, len(self._layers), axis=1))
        self._layers.append(layer)
        colours = layer.colours
        self._colours.append("".join(LETTERS[one.place] + str(min(int(10 * one.share), 9)) for one in colours))

    @property
    def _sorted(self) -> NDArray[np.int64]:
        rows = np.concatenate(self._found)
        kind, layer, unit, count, rank = rows.T
        return rows[np.lexsort((unit, -layer, rank, -count, kind))]

    def by_class(self) -> Iterator[list[UnitOfClass]]:
        """Yield for each class that has a page the units whose hits are taken for it."""
        rows = self._sorted
        bounds = np.searchsorted(rows[:, 0], np.arange(len(self.classes.entries) + 1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield [
                UnitOfClass(self._layers[layer], unit, count, rank)
                for _, layer, unit, count, rank in rows[start:end].tolist()
            ]

    def _images(self) -> dict[str, Any]:
        """Return the listed images in few bytes: where each is found follows from its number."""
        numbers = list(self.network.addresses)
        names = [self.network.source(number).name for number in numbers]
        return {
            "listed": runs(numbers),
            "paged": runs(sorted(self.network.paged)),
            "of": image_list.TO_A_PAGE,
            "names": names if any(name != f"image {j}" for j, name in zip(numbers, names, strict=True)) else [],
            "classes": self._class_of[numbers].tolist(),
        }

    def scripts(self, found: list[Finding]) -> Iterator[tuple[str, str]]:
        """Yield paths and contents of what search loads: scripts, since a page opened from disk can load nothing else.

        Names come at once, and what units show only with a question.
        """
        network = self.network
        index = {
            "layers": [[layer.name, layer.base, layer.unit_count] for layer in network.mined_layers],
            "classes": [[entry.name, entry.href] for entry in self.classes.entries],
            "images": self._images(),
            "findings": [[finding.title, f"findings.html#{finding.anchor}"] for finding in found],
        }
        starts = np.cumsum([0, *(layer.unit_count for layer in network.mined_layers)])
        rows = self._sorted
        units = starts[rows[:, 1]] + rows[:, 2]
        bounds = np.searchsorted(rows[:, 0], np.arange(len(self.classes.entries) + 1))
        shown = {
            # of each class, units one after the other, each behind how many of its hits are of it
            "classes": [
                np.stack([rows[start:end, 3], units[start:end]], 1).ravel().tolist()
                for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
            ],
            "colours": self._colours,
            "names": dict(zip(LETTERS, COLOURS, strict=True)),
        }
        for path, name, content in ((INDEX, "interpretIndex", index), (SHOWN, "interpretShown", shown)):
            yield path, f"window.{name} = {json.dumps(content, separators=(',', ':'))};\n"


def runs(numbers: Sequence[int]) -> list[int]:
    """Return ascending numbers as runs: of each its first number and its length, one run after the other.

    >>> runs([0, 1, 2, 7, 8, 11])
    [0, 3, 7, 2, 11, 1]
    """
    starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    return np.stack([np.asarray(numbers, np.int64)[starts], np.diff([*starts, len(numbers)])], 1).ravel().tolist()


def strongest_of_each(kinds: NDArray[Any], there: NDArray[np.bool_], most: int = OF_LAYER) -> NDArray[np.int64]:
    """Return for each class the units [rows of class, unit, count, rank] with the most hits of it, at most so many.

    >>> strongest_of_each(np.array([[3, 3, -1], [7, 3, 3], [7, -1, -1]]), np.ones((3, 3), bool), most=1)
    array([[3, 0, 2, 0],
           [7, 1, 1, 0]])

    Args:
        kinds: [C, k] the class of each hit of C units, −1 for none.
        there: [C, k] which hits there are.
    """
    units, ranks = np.nonzero(there & (kinds >= 0))
    key = kinds[units, ranks] * len(kinds) + units
    # ranks ascend within a unit: the first of each pair is the earliest hit
    pairs, firsts, counts = np.unique(key, return_index=True, return_counts=True)
    kind, unit = np.divmod(pairs, len(kinds))
    rows = np.stack([kind, unit, counts, ranks[firsts]], 1)
    rows = rows[np.lexsort((unit, rows[:, 3], -counts, kind))]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    place = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)]))
    return rows[place < most]
