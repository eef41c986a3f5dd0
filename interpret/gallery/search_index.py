"""What search loads: names of layers, classes, images and findings, and what units show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from interpret.gallery.classes import Classes
from interpret.gallery.colours import COLOURS, LETTERS
from interpret.gallery.findings import Finding
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.units_by_class import UnitsByClass

NAMES_FILE = "assets/index.js"
UNITS_FILE = "assets/shown.js"
IMAGES_FILE = "assets/images.js"


class SearchIndex:
    """Collects the colours of units from layer after layer, and writes what search loads."""

    def __init__(self, network: NetworkPage, classes: Classes, units_by_class: UnitsByClass) -> None:
        self.network, self.classes, self.units_by_class = network, classes, units_by_class
        self._colours: list[str] = []

    def add_layer(self, layer: LayerPage) -> None:
        """Add the colours of a layer's units: of each a letter, and its share in tenths."""
        self._colours.append("".join(LETTERS[one.place] + str(min(int(10 * one.share), 9)) for one in layer.colours))

    def scripts(self, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
        """Yield paths and contents of what search loads: scripts, since a page opened from disk can load nothing else.

        Names of layers and classes are loaded first; what units show and what images are called may take longer.
        """
        network = self.network
        listed = network.sources.listed.tolist()
        names = {
            "layers": [[layer.name, layer.base, layer.unit_count] for layer in network.mined_layers],
            "classes": [[entry.name, entry.href] for entry in self.classes.entries],
            "images": runs(listed),
            "findings": [[finding.title, f"findings.html#{finding.anchor}"] for finding in findings],
        }
        starts = np.cumsum([0, *(layer.unit_count for layer in network.mined_layers)])
        units = {
            # of each class, units one after the other, each behind how many of its hits are predicted as it
            "classes": [
                np.stack([rows[:, 3], starts[rows[:, 1]] + rows[:, 2]], 1).ravel().tolist()
                for rows in self.units_by_class.rows()
            ],
            "colours": self._colours,
            "names": dict(zip(LETTERS, COLOURS, strict=True)),
        }
        called = [network.source(number).name for number in listed]
        images = {
            "names": called if any(name != f"image {j}" for j, name in zip(listed, called, strict=True)) else [],
            "classes": self.units_by_class.class_of[listed].tolist(),
        }
        for path, name, content in (
            (NAMES_FILE, "interpretIndex", names),
            (UNITS_FILE, "interpretShown", units),
            (IMAGES_FILE, "interpretImages", images),
        ):
            yield path, f"window.{name} = {json.dumps(content, separators=(',', ':'))};\n"


def runs(numbers: Sequence[int]) -> list[int]:
    """Return ascending numbers as runs: of each its first number and its length, one run after the other.

    >>> runs([0, 1, 2, 7, 8, 11])
    [0, 3, 7, 2, 11, 1]
    """
    starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    return np.stack([np.asarray(numbers, np.int64)[starts], np.diff([*starts, len(numbers)])], 1).ravel().tolist()
