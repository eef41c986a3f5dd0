"""Images to analyse: the base class of all image sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.images.listing import LeftOut
from interpret.images.sampling import sample_by_hash
from interpret.images.storage import UnreadableImage
from interpret.network.modes import unchanged_random_state
from interpret.network.pixel_scale import Normalisation, PixelScale, find_pixel_scale
from interpret.network.preprocess import Preprocess

SCALE_SAMPLE_SIZE = 64
"""Number of items from which the display scale of a data set's inputs is inferred."""


class Images(ABC):
    """Inputs for a network, each with its source picture and its label if known; every analysis reads these.

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.zeros(4, 3, 8, 8), nn.Conv2d(3, 1, 1))
    >>> len(images), images[0][0].shape, images[0][1]
    (4, torch.Size([3, 8, 8]), -1)

    An item is one input. Several items may be parts of one source, such as tiles of one photograph; analyses can
    therefore ask for distinct sources.
    """

    preprocess: Preprocess | None = None
    """How to turn a picture into an input; None if the model does not say."""
    most_workers: int | None = None
    """The number of worker processes that can share the reading; None: any."""
    dtype = torch.float32
    """Type of inputs made from pictures: that of the network's weights."""

    def __init__(
        self,
        name: str,
        sources: NDArray[np.int64],
        labels: NDArray[np.int64] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.sources = sources
        """int64 [N]: the source of each item."""
        self.labels = np.full(len(sources), -1, np.int64) if labels is None else labels
        """int64 [N]: indices into `classes`; −1 if unknown."""
        self.labels_learnt = False
        """Whether reading has found other labels than these at the opening: some data gives them only when read."""
        self.classes = classes
        """Names of the classes that the labels index."""
        self.starts: list[int] = [0]
        """The items at which batches begin anew: the first, and of joined data the first of each part."""
        self.channels: int | None = None
        """Number of channels that are the image, if the others hold further inputs of the network; None: all."""
        self.skipped: dict[str, str] = {}
        """The sources found not to decode: name to reason."""
        self.left_out: dict[str, LeftOut] = {}
        """Of a folder, the files that are no images of a known format, by kind: their number and the first one."""
        self.skipped_at: dict[str, int] = {}
        """For each of these, the first item that was found not to decode."""
        self.opened_from: dict[str, Any] | None = None
        """Arguments of `open_images` to open the data again: "data", "crops" and "scales"; None for data in memory."""
        self.notes: list[str] = []
        """Sentences on the parts of the data that are not used."""

    def __len__(self) -> int:
        return len(self.sources)

    def count_readable(self) -> tuple[int, int]:
        """Return the numbers of items and of sources, without those found not to decode."""
        sources, items_of = np.unique(self.sources, return_counts=True)
        if self.skipped:
            kept = ~self.are_named(sources, self.skipped)
            sources, items_of = sources[kept], items_of[kept]
        return int(items_of.sum()), len(sources)

    def are_named(self, sources: NDArray[np.int64], names: Container[str]) -> NDArray[np.bool_]:
        """Return which of some sources have one of these names."""
        return np.array([self.source_name(source) in names for source in sources.tolist()], bool)

    @abstractmethod
    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        """Return an input [C, H, W] and its label, −1 if unknown.

        Raises:
            UnreadableImage: the item does not decode.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over what determines the items: the same for the same data on any machine."""

    def window(self, item: int) -> tuple[float, float, float, float]:
        """Return the position of an input in its source picture: (top, left, bottom, right).

        Positions are fractions of the picture's height and width; below 0 or above 1 if the input was padded.
        """
        return (0.0, 0.0, 1.0, 1.0)

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Return an input with its surroundings in the source picture, at the same scale.

        Args:
            item: the item.
            box: (top, left, bottom, right) of the region to return, in pixels from the input's top left corner; it
                must contain the input.

        Returns:
            [C, h, w], the part of the box that is inside the source, and the row and column of its top left pixel,
            both at most 0. A crop of it is bit-identical to an item at that place. If only the input itself is known,
            without a source picture around it, the input is returned.

        Raises:
            UnreadableImage: the item does not decode.
        """
        return self[item][0], (0, 0)

    def central(self) -> Images:
        """Return the same sources with one input each: the central crop instead of tiles."""
        return self

    @cached_property
    def pixel_scale(self) -> PixelScale:
        """How to show inputs as pictures: by inverting the preprocessing, or on one scale for all inputs.

        >>> from torch import nn
        >>> from interpret.images.opening import open_images
        >>> images = open_images(torch.linspace(0, 1, 64).reshape(4, 1, 4, 4), nn.Conv2d(1, 1, 3))
        >>> images.pixel_scale.said
        'Inputs are shown from 0 (black) to 1 (white).'
        """
        sample = sample_by_hash(len(self), SCALE_SAMPLE_SIZE).tolist()
        if self.preprocess is not None:
            first = next(self._readable(sample), None)
            if first is None or len(first) == self.preprocess.count:
                return self.preprocess.pixel_scale
        return find_pixel_scale(list(self._readable(sample)), self._normalisation())

    def _readable(self, items: Iterable[int]) -> Iterator[Tensor]:
        """Yield the inputs that decode."""
        for item in items:
            with suppress(UnreadableImage):
                yield self[item][0][: self.channels]

    def _normalisation(self) -> Normalisation | None:
        """Return the normalisation of the inputs if the data defines it."""
        return None

    def doubt(self, item: int) -> str:
        """Return a sentence if an item changes each time it is read, or ""."""
        with unchanged_random_state():
            same = torch.equal(self[item][0], self[item][0])
        return "" if same else f"item {item} of data {self.name!r} is another image each time that it is read"

    @abstractmethod
    def source_name(self, source: int) -> str:
        """Return the name of a source; in a folder, its path relative to the folder."""

    @abstractmethod
    def source_picture(self, source: int) -> Image.Image:
        """Return the whole source picture, RGB and upright.

        Raises:
            UnreadableImage: the source does not decode.
        """
