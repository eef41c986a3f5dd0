"""Pages of images: which units each one excites, of which units it is a hit, and which images are similar to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.related_units import UnitLink
from interpret.gallery.sources import Sample, Source

EXCITED = 4
"""Most units of a layer that are shown as excited by an image."""
SIMILAR = 6
"""Most similar images that are shown."""
FIRST_UNITS, MOST_UNITS = 6, 24
"""How many units of a layer an image's page shows as having it among their hits: at once, and at most."""
MOST_COLUMNS = 8
"""Most columns of a sprite of which the style sheet can show a single tile."""


@dataclass
class SamplePart:
    """What an input of the sample excites: of each layer the units nearest to their own largest value."""

    sample: Sample
    layers: list[tuple[LayerPage, list[UnitLink]]] = field(default_factory=list)
    similar: list[tuple[Sample, float]] = field(default_factory=list)
    """The most similar inputs of the sample, and the cosine between their features."""


@dataclass(frozen=True)
class HitLink:
    """A unit among whose hits an image is."""

    unit: int
    value: float
    rank: int
    """The hit's place among the unit's, from 0."""


@dataclass(frozen=True)
class LayerHits:
    """The units of a layer among whose hits an image is: those of which it is the first hit come first."""

    layer: LayerPage
    links: list[HitLink]
    count: int
    """How many there are, shown or not."""
    single_tiles: bool
    """Whether a unit's picture is the hit's own patch alone, and not all its patches."""

    @property
    def first(self) -> list[HitLink]:
        """Those that are shown at once: a few, or all if no more than one would be left."""
        return self.links if self.count == FIRST_UNITS + 1 else self.links[:FIRST_UNITS]

    @property
    def more(self) -> list[HitLink]:
        """Those that are shown on demand."""
        return self.links[len(self.first) :]


@dataclass
class ImagePage:
    """All that the page of one picture shows."""

    source: Source
    parts: list[SamplePart]
    hits: list[LayerHits]


class ImagePages:
    """Collects from layer after layer what the pages of images show."""

    def __init__(self, network: NetworkPage) -> None:
        self.network = network
        self.hits: dict[int, list[LayerHits]] = defaultdict(list)
        """For each listed image, the units among whose hits it is."""
        self._parts = {item: SamplePart(sample) for item, sample in network.samples.items()}
        self._features: tuple[Any, Any] | None = None

    def add_layer(self, layer: LayerPage) -> None:
        """Add what a layer's units show of each image, while its arrays are in memory."""
        if self.network.context:
            self._add_sample(layer)
            self._add_hits(layer)

    def _add_sample(self, layer: LayerPage) -> None:
        data = layer.data
        maxima, strongest = data.sample_maxima, data.values[:, 0]
        if not layer.output_classes:
            self._features = data.sample_images, maxima
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where((strongest > 0) & (maxima > 0), maxima / strongest, -1)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :EXCITED]
        for row, item in enumerate(data.sample_images.tolist()):
            part = self._parts.get(item)
            if part is None:
                continue
            links = [
                UnitLink(layer, unit, float(shares[row, unit])) for unit in order[row].tolist() if shares[row, unit] > 0
            ]
            if links:
                part.layers.append((layer, links))

    def _add_hits(self, layer: LayerPage) -> None:
        units, ranks = np.nonzero(layer.data.images >= 0)
        sources, values = layer.data.sources[units, ranks], layer.data.values[units, ranks]
        order = np.lexsort((units, -values, ranks, sources))
        sources, units, ranks, values = (array[order] for array in (sources, units, ranks, values))
        starts = np.flatnonzero(np.diff(sources, prepend=-2))
        paged = set(np.intersect1d(sources, self.network.sources.listed).tolist())
        # where units see the whole image, their patches of it would all be the same
        columns = layer.grid.columns
        single_tiles = not layer.whole and columns <= MOST_COLUMNS and layer.grid.width == layer.grid.height
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(sources)], strict=True):
            if int(sources[start]) not in paged:
                continue
            part = slice(start, min(end, start + MOST_UNITS))
            rows = zip(units[part].tolist(), values[part].tolist(), ranks[part].tolist(), strict=True)
            links = [HitLink(unit, value, rank) for unit, value, rank in rows]
            self.hits[int(sources[start])].append(LayerHits(layer, links, end - start, single_tiles))

    def pages(self) -> Iterator[ImagePage]:
        """Yield the page of each picture that has one."""
        self._find_similar()
        parts: dict[int, list[SamplePart]] = defaultdict(list)
        for item in sorted(self._parts):
            parts[self._parts[item].sample.source.number].append(self._parts[item])
        for number in self.network.sources.listed.tolist():
            source = self.network.source(number)
            yield ImagePage(source, parts.get(number, []), self.hits.get(number, []))

    def _find_similar(self) -> None:
        """Find the inputs with the most similar features; other crops of the same picture are left out.

        Features are the units' largest values in the last layer before the output, compared by the cosine.
        """
        if self._features is None:
            return
        items, maxima = self._features
        vectors = np.maximum(maxima.astype(np.float64), 0)
        norms = np.sqrt(np.square(vectors).sum(1, keepdims=True))
        vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        cosines = vectors @ vectors.T
        for row, item in enumerate(items.tolist()):
            part = self._parts.get(item)
            if part is None:
                continue
            seen = {part.sample.source.number}
            for other in np.argsort(-cosines[row], kind="stable").tolist():
                sample = self._parts[int(items[other])].sample if int(items[other]) in self._parts else None
                if sample is None or sample.source.number in seen:
                    continue
                seen.add(sample.source.number)
                part.similar.append((sample, float(cosines[row, other])))
                if len(part.similar) == SIMILAR:
                    break
