"""What the script `pictures.js` shows on the pages of units, as data in files that neighbouring units share.

A page holds what can be read without a script: the pictures, numbers and links of its unit. The places of its hits, its
range, its relations and how to cite it take a fifth of the bytes as data that they would take as markup.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from interpret.gallery import citation
from interpret.gallery.hits import Hit
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.range_examples import GROUP_TITLES, Example, range_groups
from interpret.gallery.related_units import UnitLink, relations_of
from interpret.support import numbers

UNITS_PER_FILE = 64
"""How many units share a file, which is then some 100 kB long."""


def data_file(unit: int) -> str:
    """Return the name of the file with a unit's data, in the folder of its layer.

    >>> data_file(0), data_file(100)
    ('units-0.js', 'units-64.js')
    """
    return f"units-{unit - unit % UNITS_PER_FILE}.js"


class UnitData:
    """Collects the data of a layer's units that share a file."""

    def __init__(self, network: NetworkPage, layer: LayerPage) -> None:
        self._network, self._layer = network, layer
        pictures = (sample.picture for sample in network.samples.values())
        self._size = next(((one.width, one.height) for one in pictures if one), (0, 0))
        """Of the first input of the sample; others may have another one."""
        self._layers: dict[str, int] = {}
        """The layers that relations lead to: their place in the file, by name."""
        self._pictures: dict[tuple[Any, ...], int] = {}
        """The pictures of hits, "" where one is left out, and their sizes: their place in the file."""
        self._units: dict[int, dict[str, Any]] = {}
        self._linked: list[list[str]] = []

    def add(self, unit: int, hits: Sequence[Hit]) -> None:
        """Add a unit."""
        groups = range_groups(self._network, self._layer, unit)
        relations = relations_of(self._network, self._layer, unit)
        self._units[unit] = citation.record(self._layer, unit, hits) | {
            "places": [self._place(hit) for hit in hits],
            "range": [
                [GROUP_TITLES.index(group.title), [self._example(one) for one in group.examples]] for group in groups
            ],
            "relations": {one.kind: [self._link(link, one.signed) for link in one.links] for one in relations},
        }

    def script(self) -> str:
        """Return the content of the file."""
        network, layer, grid = self._network, self._layer, self._layer.grid
        data = {
            "names": {"network": network.model["name"], "data": network.data["name"], "layer": layer.name},
            "sentence": citation.sentence_pieces(network, layer),
            "code": citation.code_pieces(network, layer),
            "tiles": [grid.rows, grid.columns, grid.width, grid.height],
            "pixels": layer.unit_pixels,
            "patched": layer.shows_range_patches,
            "warped": layer.by_box,
            "size": self._size,
            "layers": self._linked,
            "pictures": list(self._pictures),
            "groups": GROUP_TITLES,
            "units": self._units,
        }
        # ASCII, and so safe in a script of any encoding; other bytes of a name are lone surrogates, which JSON can hold
        return f"window.interpretUnits = {json.dumps(data, separators=(',', ':'))};\n"

    def _example(self, one: Example) -> list[Any]:
        """Return an example's item, its image, its value, and the part of its picture; then its size if it differs."""
        shown = [one.item, one.source.number, _number(numbers.value(one.value)), *one.view]
        return shown if one.size == self._size else [*shown, *one.size]

    def _link(self, link: UnitLink, signed: bool) -> list[Any]:
        """Return the place of a unit's layer, the unit, the number, and the kernel if there is one."""
        layer = link.layer
        place = self._layers.setdefault(layer.name, len(self._layers))
        if place == len(self._linked):
            self._linked.append([layer.name, layer.base, layer.picture_folder(0)])
        number = _number(numbers.signed(link.value) if signed else f"{link.value:.2f}")
        return [place, link.index, number, link.kernel] if link.kernel else [place, link.index, number]

    def _place(self, hit: Hit) -> list[Any] | None:
        """Return the place of a hit's picture, and the hit's box in it; None where nothing is shown."""
        if hit.source.picture is None and (self._network.context or hit.box is None):
            return None
        picture = (hit.source.picture.href if hit.source.picture else "", *hit.source.size)
        return [self._pictures.setdefault(picture, len(self._pictures)), *(hit.box or ())]


def _number(text: str) -> float | None:
    """Return the number that the script writes as a text; None for a dash.

    >>> _number("1,234"), _number("−0.250"), _number("–")
    (1234, -0.25, None)
    """
    if text == "–":
        return None
    found = float(text.replace(",", "").replace("−", "-"))
    return int(found) if found.is_integer() else found
