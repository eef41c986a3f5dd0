"""Pages of classes: the images that are predicted as one, and the units that prefer it or are its output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpret.gallery.class_images import (
    ClassList,
    ImageOfClass,
    ImagesByClass,
    class_list_href,
    class_lists,
    images_of,
)
from interpret.gallery.classes import ClassEntry, Classes
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.optimised import Optimised
from interpret.gallery.related_units import UnitLink, inputs_of
from interpret.gallery.sources import Source
from interpret.gallery.units_by_class import UnitOfClass, UnitsByClass

MOST_PREFERRING = 8
"""Most units of a layer that are shown as preferring a class."""
MOST_PREDICTED, MOST_OTHERS, MOST_UNITS = 24, 8, 16
"""How many images that are predicted as a class, other images, and units the page of a class shows at most."""


@dataclass(frozen=True)
class Output:
    """The unit whose output is a class."""

    unit: UnitLink
    inputs: list[UnitLink]
    """The units of the layers before with the largest weights to it."""
    images: list[tuple[Source, float]]
    """The images that excite it most, with its value."""


@dataclass
class ClassPage:
    """All that the page of one class shows."""

    entry: ClassEntry
    before: ClassEntry | None
    after: ClassEntry | None
    layers: list[tuple[LayerPage, list[UnitLink], int]]
    """Of each layer, the units that prefer it most, and how many prefer it at all."""
    output: Output | None
    predicted: list[ImageOfClass]
    """The images whose most probable class it is, the most probable first."""
    predicted_count: int
    lists: Iterable[ClassList]
    """The pages of the list of all of them, if there are more."""
    near: list[ImageOfClass]
    """Images of which it is among the most probable classes, but not the first."""
    labelled: list[Source]
    """Images that have its label and another most probable class."""
    units: list[UnitOfClass]
    """The units most of whose hits are predicted as it."""
    optimised: list[Optimised]
    """The images made for its output."""

    @property
    def list_href(self) -> str:
        """The address of the list of all images that are predicted as it."""
        return class_list_href(self.entry)

    @property
    def sources(self) -> list[Source]:
        """All images that it shows."""
        images = [image.source for image in (*self.predicted, *self.near)]
        excited = self.output.images if self.output else []
        return [*images, *self.labelled, *(source for source, _ in excited)]


class ClassPages:
    """Collects from layer after layer what the pages of classes show."""

    def __init__(self, network: NetworkPage) -> None:
        self.network = network
        self._preferring: dict[int | None, list[tuple[LayerPage, list[UnitLink], int]]] = defaultdict(list)
        self._outputs: dict[int | None, Output] = {}

    def add_layer(self, layer: LayerPage) -> None:
        """Add the units of a layer that prefer or are the output of a class, while its arrays are in memory."""
        if layer.selectivity is not None:
            values = layer.selectivity.values
            for label, units, count in _most_selective(layer.selectivity.classes, values):
                links = [UnitLink(layer, unit, float(values[unit])) for unit in units]
                self._preferring[label].append((layer, links, count))
        for unit in range(len(layer.output_classes)):
            link = UnitLink(layer, unit, layer.units[unit].value)
            self._outputs[unit] = Output(link, inputs_of(self.network, layer, unit), self._images_of(layer, unit))

    def _images_of(self, layer: LayerPage, unit: int) -> list[tuple[Source, float]]:
        """Return the images among a unit's hits that have a page, with their values."""
        hits = zip(layer.data.sources[unit].tolist(), layer.data.values[unit].tolist(), strict=True)
        found = [(self.network.source(number), value) for number, value in hits if number >= 0]
        return [(source, value) for source, value in found if source.paged]

    def pages(self, classes: Classes, units_by_class: UnitsByClass) -> Iterator[ClassPage]:
        """Yield the page of each class."""
        found, entries = ImagesByClass(self.network.sources), classes.entries
        for j, (entry, units) in enumerate(zip(entries, units_by_class.by_class(), strict=True)):
            predicted, near = (found.predicted_as(entry.output, first) for first in (True, False))
            others = found.labelled(entry.label, entry.output)[:MOST_OTHERS]
            yield ClassPage(
                entry=entry,
                before=entries[j - 1] if j else None,
                after=entries[j + 1] if j + 1 < len(entries) else None,
                layers=self._preferring.get(entry.label, []),
                output=self._outputs.get(entry.output),
                predicted=images_of(self.network, predicted, slice(MOST_PREDICTED)),
                lists=class_lists(self.network, entry, predicted) if len(predicted[0]) > MOST_PREDICTED else (),
                predicted_count=len(predicted[0]),
                near=images_of(self.network, near, slice(MOST_OTHERS)),
                labelled=[self.network.source(number) for number in others.tolist()],
                units=units[:MOST_UNITS],
                optimised=self._optimised(entry),
            )

    def _optimised(self, entry: ClassEntry) -> list[Optimised]:
        """Return the optimised images of a class, or else of the unit whose output it is."""
        if entry.output is None:
            return []
        images, unit = self.network.unit_results.optimised, self._outputs.get(entry.output)
        found = images.of("", entry.output, self.network.context)
        if found or unit is None:
            return found
        layer = unit.unit.layer
        return images.of(layer.name, unit.unit.index, self.network.context or not layer.whole)


def _most_selective(classes: Any, values: Any) -> Iterator[tuple[int, list[int], int]]:
    """Yield each class that any unit prefers, the most selective of these units, and how many there are."""
    order = np.lexsort((np.arange(len(classes)), -values, classes))
    order = order[classes[order] >= 0]
    if not len(order):
        return
    starts = np.flatnonzero(np.diff(classes[order], prepend=-2))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        yield int(classes[order[start]]), order[start : min(end, start + MOST_PREFERRING)].tolist(), end - start
