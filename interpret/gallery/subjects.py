"""Pages that begin from the outside: what one image excites, and which units prefer one class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpret.gallery.classes import ClassEntry, Classes
from interpret.gallery.image_list import ListPage, list_pages
from interpret.gallery.pages import LayerView, Likely, NetworkView, Picture, Sample, Source, UnitLink
from interpret.gallery.searching import SearchIndex, UnitOfClass

STRONGEST = 4
NEIGHBOURS = 6
FIRST, LISTED = 6, 24
"""How many units of a layer an image's page shows as having it among their hits: at once, and at most."""
CUT = 8
"""Most columns of a sprite that the style sheet can show a single tile of."""
OF_CLASS = 8
IMAGES_OF_CLASS, NEAR, UNITS_OF_CLASS = 24, 8, 16
"""How many images and units the page of a class shows at most."""


@dataclass
class SamplePart:
    """What an input of the sample excites: of each layer the units nearest to their own largest value."""

    sample: Sample
    layers: list[tuple[LayerView, list[UnitLink]]] = field(default_factory=list)
    neighbours: list[tuple[Sample, float]] = field(default_factory=list)
    """The most similar inputs of the sample and how similar they are, by the cosine."""


@dataclass(frozen=True)
class HitLink:
    """A unit among whose hits an image is."""

    unit: int
    value: float
    rank: int
    """The hit's place among the unit's, from 0."""
    picture: Picture | None
    tile: tuple[int, int] | None
    """Column and row in the picture of the hit's own patch; None where the picture is shown as a whole."""


@dataclass(frozen=True)
class LayerHits:
    """The units of a layer among whose hits an image is: those of which it is the first hit come first."""

    layer: LayerView
    links: list[HitLink]
    count: int
    """How many there are, shown or not."""

    @property
    def first(self) -> list[HitLink]:
        """Those that are shown at once: a few, or all if no more than one would be left."""
        return self.links if self.count == FIRST + 1 else self.links[:FIRST]

    @property
    def more(self) -> list[HitLink]:
        return self.links[len(self.first) :]


@dataclass
class ImagePage:
    """All that the page of one picture shows."""

    source: Source
    parts: list[SamplePart]
    hits: list[LayerHits]


@dataclass(frozen=True)
class ImageOfClass:
    """An image, how probable the network finds a class for it, and what it finds likeliest."""

    source: Source
    probability: float
    likeliest: Likely


@dataclass
class ClassPage:
    """All that the page of one class shows."""

    entry: ClassEntry
    before: ClassEntry | None
    after: ClassEntry | None
    layers: list[tuple[LayerView, list[UnitLink], int]]
    """Of each layer, the units that prefer it most, and how many prefer it at all."""
    answer: UnitLink | None
    reads: list[UnitLink]
    """The units that the answer reads from, by weight."""
    excite: list[tuple[Source, float]]
    """The images that excite the answer most, with its value."""
    taken: list[ImageOfClass]
    """The images that the network takes for it, the surest first."""
    taken_count: int
    near: list[ImageOfClass]
    """Images that it takes for others, and finds it among the likeliest."""
    labelled: list[Source]
    """Images that are labelled so, and taken for something else."""
    units: list[UnitOfClass]
    """The units most of whose hits the network takes for it."""

    @property
    def sources(self) -> list[Source]:
        """All images that it shows."""
        images = [image.source for image in (*self.taken, *self.near)]
        return [*images, *self.labelled, *(source for source, _ in self.excite)]


class Subjects:
    """Collects from layer after layer what pages of images and of classes show."""

    def __init__(self, network: NetworkView) -> None:
        self.network = network
        self._parts = {item: SamplePart(sample) for item, sample in network.samples.items()}
        self._hits: dict[int, list[LayerHits]] = defaultdict(list)
        self._preferring: dict[int, list[tuple[LayerView, list[UnitLink], int]]] = defaultdict(list)
        self._answers: dict[int | None, tuple[UnitLink, list[UnitLink], list[tuple[Source, float]]]] = {}
        self._features: tuple[Any, Any] | None = None

    def take(self, layer: LayerView) -> None:
        """Take in a layer while its arrays are at hand."""
        if self.network.context:
            self._take_sample(layer)
            self._take_hits(layer)
        if layer.selectivity is not None:
            for label, chosen, count in _strongest_of_each(layer.selectivity.classes, layer.selectivity.values):
                links = [
                    UnitLink(layer, unit, float(layer.selectivity.values[unit]), layer.picture_of(unit))
                    for unit in chosen
                ]
                self._preferring[label].append((layer, links, count))
        for unit in range(len(layer.answers)):
            answer = UnitLink(layer, unit, layer.units[unit].value, layer.picture_of(unit))
            self._answers[unit] = answer, layer.reads(unit), self._excite(layer, unit)

    def _excite(self, layer: LayerView, unit: int) -> list[tuple[Source, float]]:
        """Return the listed images among a unit's hits, with their values."""
        sources, values = layer.data.sources[unit].tolist(), layer.data.values[unit].tolist()
        listed = self.network.addresses
        shown = [(number, value) for number, value in zip(sources, values, strict=True) if number in listed]
        return [(self.network.source(number), value) for number, value in shown]

    def _take_sample(self, layer: LayerView) -> None:
        data = layer.data
        maxima, strongest = data.sample_maxima, data.values[:, 0]
        if not layer.answers:
            self._features = data.sample_images, maxima
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where((strongest > 0) & (maxima > 0), maxima / strongest, -1)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :STRONGEST]
        for row, item in enumerate(data.sample_images.tolist()):
            part = self._parts.get(item)
            if part is None:
                continue
            links = [
                UnitLink(layer, unit, float(shares[row, unit]), layer.picture_of(unit))
                for unit in order[row].tolist()
                if shares[row, unit] > 0
            ]
            if links:
                part.layers.append((layer, links))

    def _take_hits(self, layer: LayerView) -> None:
        units, ranks = np.nonzero(layer.data.images >= 0)
        sources, values = layer.data.sources[units, ranks], layer.data.values[units, ranks]
        order = np.lexsort((units, -values, ranks, sources))
        sources, units, ranks, values = (array[order] for array in (sources, units, ranks, values))
        bounds = np.flatnonzero(np.diff(sources, prepend=-2))
        # where units see the whole image, their patches of it would all be the same
        cut = not layer.whole and layer.columns <= CUT and layer.tile[0] == layer.tile[1]
        for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(sources)], strict=True):
            if int(sources[start]) not in self.network.addresses:
                continue
            part = slice(start, min(end, start + LISTED))
            links = [
                HitLink(unit, value, rank, layer.picture_of(unit), divmod(rank, layer.columns)[::-1] if cut else None)
                for unit, value, rank in zip(
                    units[part].tolist(), values[part].tolist(), ranks[part].tolist(), strict=True
                )
            ]
            self._hits[int(sources[start])].append(LayerHits(layer, links, end - start))

    def images(self) -> Iterator[ImagePage]:
        """Yield the page of each picture that has one."""
        self._find_neighbours()
        parts: dict[int, list[SamplePart]] = defaultdict(list)
        for item in sorted(self._parts):
            parts[self._parts[item].sample.source.number].append(self._parts[item])
        for number in sorted(self.network.paged):
            source = self.network.source(number)
            yield ImagePage(source, parts.get(number, []), self._hits.get(number, []))

    def image_list(self) -> Iterator[ListPage]:
        """Yield the pages of the list of images."""
        return list_pages(self.network, self._hits)

    def _find_neighbours(self) -> None:
        """By the cosine of the largest values in the last layer before the answers; other crops of a picture aside."""
        if self._features is None:
            return
        items, maxima = self._features
        vectors = np.maximum(maxima.astype(np.float64), 0)
        norms = np.sqrt(np.square(vectors).sum(1, keepdims=True))
        vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        similar = vectors @ vectors.T
        for row, item in enumerate(items.tolist()):
            part = self._parts.get(item)
            if part is None:
                continue
            seen = {part.sample.source.number}
            for other in np.argsort(-similar[row], kind="stable").tolist():
                sample = self._parts[int(items[other])].sample if int(items[other]) in self._parts else None
                if sample is None or sample.source.number in seen:
                    continue
                seen.add(sample.source.number)
                part.neighbours.append((sample, float(similar[row, other])))
                if len(part.neighbours) == NEIGHBOURS:
                    break

    def classes(self, classes: Classes, index: SearchIndex) -> Iterator[ClassPage]:
        """Yield the page of each class."""
        found: dict[int, list[ImageOfClass]] = defaultdict(list)
        labelled: dict[int, list[Source]] = defaultdict(list)
        for source in map(self.network.source, self.network.addresses):
            for one in source.likeliest:
                found[one.answer].append(ImageOfClass(source, one.probability, source.likeliest[0]))
            if source.label >= 0:
                labelled[source.label].append(source)
        entries = classes.entries
        for j, (entry, units) in enumerate(zip(entries, index.by_class(), strict=True)):
            images = sorted(found.get(entry.answer, []) if entry.answer is not None else [], key=_surest)
            taken = [image for image in images if image.likeliest.answer == entry.answer]
            near = [image for image in images if image.likeliest.answer != entry.answer]
            others = [
                source
                for source in labelled.get(-1 if entry.label is None else entry.label, [])
                if not (source.likeliest and source.likeliest[0].answer == entry.answer)
            ]
            answer, reads, excite = self._answers.get(entry.answer, (None, [], []))
            yield ClassPage(
                entry,
                entries[j - 1] if j else None,
                entries[j + 1] if j + 1 < len(entries) else None,
                self._preferring.get(-1 if entry.label is None else entry.label, []),
                answer,
                reads,
                excite,
                taken[:IMAGES_OF_CLASS],
                len(taken),
                near[:NEAR],
                others[:NEAR],
                units[:UNITS_OF_CLASS],
            )


def _surest(image: ImageOfClass) -> tuple[float, int]:
    return -image.probability, image.source.number


def _strongest_of_each(classes: Any, values: Any) -> Iterator[tuple[int, list[int], int]]:
    """Yield each class that any unit prefers, the units that do so most, and how many do."""
    order = np.lexsort((np.arange(len(classes)), -values, classes))
    order = order[classes[order] >= 0]
    if not len(order):  # no unit prefers any
        return
    bounds = np.flatnonzero(np.diff(classes[order], prepend=-2))
    for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(order)], strict=True):
        yield int(classes[order[start]]), order[start : min(end, start + OF_CLASS)].tolist(), end - start
