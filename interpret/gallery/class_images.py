"""Which images are predicted as each class, and the lists of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpret.gallery.classes import ClassEntry
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.sources import Prediction, Source, Sources

IMAGES_PER_PAGE = 240
"""The number of images on a page of a class's list."""

Ranked = tuple[NDArray[np.int64], NDArray[np.float64]]
"""The numbers of images and the probabilities of a class for them, the most probable first."""


@dataclass(frozen=True)
class ImageOfClass:
    """An image, the probability of a class for it, and its most probable class."""

    source: Source
    probability: float
    best: Prediction


@dataclass(frozen=True)
class ClassList:
    """A page of the list of all images that are predicted as a class."""

    entry: ClassEntry
    number: int
    last: int
    images: list[ImageOfClass]
    count: int
    """How many images the whole list has."""

    @property
    def href(self) -> str:
        return class_list_href(self.entry, self.number)

    @property
    def before(self) -> str | None:
        return class_list_href(self.entry, self.number - 1) if self.number > 1 else None

    @property
    def after(self) -> str | None:
        return class_list_href(self.entry, self.number + 1) if self.number < self.last else None


def class_list_href(entry: ClassEntry, page: int = 1) -> str:
    """Return the address of a page of a class's list, counted from 1, relative to the gallery's root.

    >>> class_list_href(ClassEntry(3, "goldfish")), class_list_href(ClassEntry(3, "goldfish"), 2)
    ('classes/3-images.html', 'classes/3-images-2.html')
    """
    return f"classes/{entry.number}-images{'' if page == 1 else f'-{page}'}.html"


class ImagesByClass:
    """The images with a page, by the classes that are predicted for them and by their labels."""

    def __init__(self, sources: Sources) -> None:
        numbers, top = sources.listed, sources.top[sources.paged]
        places, ranks = np.nonzero(top >= 0)
        outputs, shares = top[places, ranks], sources.probabilities[sources.paged][places, ranks]
        order = np.lexsort((numbers[places], -shares, outputs))
        self._outputs: NDArray[np.int64] = outputs[order]
        self._numbers: NDArray[np.int64] = numbers[places][order]
        self._shares: NDArray[np.float64] = shares[order]
        self._first: NDArray[np.bool_] = ranks[order] == 0
        labels = sources.labels[sources.paged]
        order = np.argsort(labels, kind="stable")
        self._labels: NDArray[np.int64] = labels[order]
        self._labelled: NDArray[np.int64] = numbers[order]
        self._best: NDArray[np.int64] = sources.best[sources.paged][order]

    def predicted_as(self, output: int | None, first: bool = True) -> Ranked:
        """Return the images whose most probable class it is, or those of which it is among the others."""
        if output is None:
            return self._numbers[:0], self._shares[:0]
        part = slice(*np.searchsorted(self._outputs, [output, output + 1]).tolist())
        chosen = self._first[part] == first
        return self._numbers[part][chosen], self._shares[part][chosen]

    def labelled(self, label: int | None, output: int | None) -> NDArray[np.int64]:
        """Return the images that have a label and another most probable class."""
        if label is None:
            return self._labelled[:0]
        part = slice(*np.searchsorted(self._labels, [label, label + 1]).tolist())
        return self._labelled[part][self._best[part] != (-1 if output is None else output)]


def images_of(network: NetworkPage, ranked: Ranked, part: slice) -> list[ImageOfClass]:
    """Return some of the images of a class."""
    numbers, shares = (array[part].tolist() for array in ranked)
    sources = map(network.source, numbers)
    return [ImageOfClass(source, share, source.predictions[0]) for source, share in zip(sources, shares, strict=True)]


def class_lists(network: NetworkPage, entry: ClassEntry, ranked: Ranked) -> Iterator[ClassList]:
    """Yield the pages of the list of all images that are predicted as a class."""
    count = len(ranked[0])
    last = -(-count // IMAGES_PER_PAGE)
    for page in range(last):
        images = images_of(network, ranked, slice(page * IMAGES_PER_PAGE, (page + 1) * IMAGES_PER_PAGE))
        yield ClassList(entry, page + 1, last, images, count)
