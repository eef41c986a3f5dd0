"""Pages that begin from the outside: what one image excites, and which units prefer one class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpret.gallery.pages import LayerView, NetworkView, Picture, Sample, Source, UnitLink

STRONGEST = 4
NEIGHBOURS = 6
FIRST, LISTED = 6, 24
"""How many units of a layer an image's page shows as having it among their hits: at once, and at most."""
CUT = 8
"""Most columns of a sprite that the style sheet can show a single tile of."""
OF_CLASS = 8
TO_A_PAGE = 240
"""How many images a page of their index shows."""


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
    label: str | None
    parts: list[SamplePart]
    hits: list[LayerHits]


@dataclass(frozen=True)
class IndexPage:
    """A page of the index of the images."""

    number: int
    last: int
    sources: list[Source]

    @property
    def href(self) -> str:
        """Its address, relative to the gallery's root."""
        return self._at(self.number)

    @property
    def before(self) -> str | None:
        return self._at(self.number - 1) if self.number > 1 else None

    @property
    def after(self) -> str | None:
        return self._at(self.number + 1) if self.number < self.last else None

    def _at(self, number: int) -> str:
        return "images/index.html" if number == 1 else f"images/index-{number}.html"


@dataclass
class ClassPage:
    """All that the page of one class shows."""

    label: int
    name: str
    layers: list[tuple[LayerView, list[UnitLink], int]]
    """Of each layer, the units that prefer it most, and how many prefer it at all."""
    answer: UnitLink | None
    reads: list[UnitLink]
    """The units that the answer reads from, by weight."""
    samples: list[tuple[Sample, float]]
    """Inputs of the sample that the network takes for it, with the probability."""


class Subjects:
    """Collects from layer after layer what pages of images and of classes show."""

    def __init__(self, network: NetworkView) -> None:
        self.network = network
        self._parts = {item: SamplePart(sample) for item, sample in network.samples.items()}
        self._hits: dict[int, list[LayerHits]] = defaultdict(list)
        self._preferring: dict[int, list[tuple[LayerView, list[UnitLink], int]]] = defaultdict(list)
        self._answers: dict[str, tuple[UnitLink, list[UnitLink]]] = {}
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
        for unit, name in enumerate(layer.answers):
            line = layer.units[unit]
            answer = UnitLink(layer, unit, line.value, layer.picture_of(unit))
            self._answers.setdefault(name, (answer, layer.reads(unit)))

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
            if int(sources[start]) not in self.network.paged:
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
            label = self.network.class_name(source.label)
            yield ImagePage(source, label, parts.get(number, []), self._hits.get(number, []))

    def index(self) -> Iterator[IndexPage]:
        """Yield the pages of the index of all images that have a page."""
        numbers = sorted(self.network.paged)
        starts = range(0, len(numbers), TO_A_PAGE)
        for place, start in enumerate(starts):
            sources = [self.network.source(number) for number in numbers[start : start + TO_A_PAGE]]
            yield IndexPage(place + 1, len(starts), sources)

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

    def classes(self, names: Sequence[str]) -> Iterator[ClassPage]:
        """Yield the page of each class."""
        taken: dict[str, list[tuple[Sample, float]]] = defaultdict(list)
        for item in sorted(self._parts):
            sample = self._parts[item].sample
            if sample.likeliest:
                taken[sample.likeliest[0][0]].append((sample, sample.likeliest[0][1]))
        for label, name in enumerate(names):
            samples = sorted(taken.get(name, []), key=lambda pair: -pair[1])[:OF_CLASS]
            answer, reads = self._answers.get(name, (None, []))
            yield ClassPage(label, name, self._preferring.get(label, []), answer, reads, samples)


def _strongest_of_each(classes: Any, values: Any) -> Iterator[tuple[int, list[int], int]]:
    """Yield each class that any unit prefers, the units that do so most, and how many do."""
    order = np.lexsort((np.arange(len(classes)), -values, classes))
    order = order[classes[order] >= 0]
    bounds = np.flatnonzero(np.diff(classes[order], prepend=-2))
    for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(order)], strict=True):
        yield int(classes[order[start]]), order[start : min(end, start + OF_CLASS)].tolist(), end - start
