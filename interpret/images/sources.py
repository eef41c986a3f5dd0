"""Images to analyse: what every analysis reads, whatever it was opened from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.images.folder import UnreadableImage
from interpret.images.sampling import sample_by_hash
from interpret.network.modes import unchanged_random_state
from interpret.network.pixel_scale import Normalisation, PixelScale, find_pixel_scale
from interpret.network.preprocess import Preprocess

SCALE_SAMPLE_SIZE = 64
"""How many items decide on which scale a data set's inputs are shown as pictures."""


class Images(ABC):
    """What every analysis reads: inputs for a network, each with its source picture and, where known, its label.

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.zeros(4, 3, 8, 8), nn.Conv2d(3, 1, 1))
    >>> len(images), images[0][0].shape, images[0][1]
    (4, torch.Size([3, 8, 8]), -1)

    An item is one input. Several items may be parts of one source, a photograph say, so that an analysis can ask
    for different sources and not for different parts of the same one.
    """

    preprocess: Preprocess | None = None
    """How a picture becomes an input; None where the model does not say."""
    dtype = torch.float32
    """Of the inputs that are made of pictures: that of the network's weights."""

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
        """int64 [N]: indices into `classes`, −1 where there is none."""
        self.classes = classes
        """What the labels stand for."""
        self.channels: int | None = None
        """How many of an input's channels are the image, where the network takes more than that; None: all."""
        self.skipped: dict[str, str] = {}
        """Source name to reason, for those that turned out not to decode."""
        self.opened_from: dict[str, Any] | None = None
        """What `open_images` takes to open them again: "data", "crops" and "scales"; None for what lies in memory."""
        self.notes: list[str] = []
        """What of the data is not used, a sentence each."""

    def __len__(self) -> int:
        return len(self.sources)

    def count_readable(self) -> tuple[int, int]:
        """Return how many items and how many sources there are, but for those that turned out not to decode."""
        sources, items_of = np.unique(self.sources, return_counts=True)
        if self.skipped:
            kept = np.array([self.source_name(source) not in self.skipped for source in sources.tolist()])
            sources, items_of = sources[kept], items_of[kept]
        return int(items_of.sum()), len(sources)

    @abstractmethod
    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        """Return an input, [C, H, W], and its label or −1.

        Raises:
            UnreadableImage: an item that does not decode.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over what decides the items: the same for the same data, whatever machine."""

    def window(self, item: int) -> tuple[float, float, float, float]:
        """Return where an input lies in its source picture: (top, left, bottom, right).

        In fractions of the picture's height and width; below 0 or above 1 where the input was padded.
        """
        return (0.0, 0.0, 1.0, 1.0)

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Return an input together with what lies around it in its source, on the same scale.

        Args:
            box: (top, left, bottom, right) of what is wanted, in pixels from the input's top left corner; at least
                the input itself.

        Returns:
            [C, h, w], as much of the box as the source has, and the row and the column of its top left pixel, which
            are not above 0. What is cut out of it is bit for bit what an item there would be. A source that is known
            as an input only has nothing around it.

        Raises:
            UnreadableImage: an item that does not decode.
        """
        return self[item][0], (0, 0)

    def central(self) -> Images:
        """Return the same sources as one input each: of pictures that are cut into tiles, the central part of each."""
        return self

    @cached_property
    def pixel_scale(self) -> PixelScale:
        """How its inputs are shown as pictures: as the preprocessing says, or on one scale for all of them.

            >>> from torch import nn
        >>> from interpret.images.opening import open_images
        >>> images = open_images(torch.linspace(0, 1, 64).reshape(4, 1, 4, 4), nn.Conv2d(1, 1, 3))
            >>> images.pixel_scale.said
            'Inputs are shown from 0 (black) to 1 (white).'
        """
        sample = sample_by_hash(len(self), SCALE_SAMPLE_SIZE).tolist()
        if self.preprocess is not None:
            first = next(self._readable(sample), None)
            if first is None or len(first) == len(self.preprocess.channels):
                return self.preprocess.pixel_scale
        return find_pixel_scale(list(self._readable(sample)), self._normalisation())

    def _readable(self, items: Iterable[int]) -> Iterator[Tensor]:
        """Yield those inputs that decode."""
        for item in items:
            with suppress(UnreadableImage):
                yield self[item][0][: self.channels]

    def _normalisation(self) -> Normalisation | None:
        """Return the normalisation of the inputs, if the data knows it."""
        return None

    def doubt(self, item: int) -> str:
        """Describe an item that is another image each time it is read; "" for all others."""
        with unchanged_random_state():
            same = torch.equal(self[item][0], self[item][0])
        return "" if same else f"item {item} of data {self.name!r} is another image each time that it is read"

    @abstractmethod
    def source_name(self, source: int) -> str:
        """Return what a source is called, in a folder its path relative to that folder."""

    @abstractmethod
    def source_picture(self, source: int) -> Image.Image:
        """Return the whole source picture, RGB and upright.

        Raises:
            UnreadableImage: a source that does not decode.
        """
