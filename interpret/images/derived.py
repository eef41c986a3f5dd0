"""Inputs made of those of other images: the base class of images that only change how items are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from interpret.images.sources import Images


class DerivedImages(Images):
    """Inputs made of items of other images, `data`, whose sources they keep.

    Args:
        data: the other images.
        items: the items of theirs that are used; None: all.
    """

    def __init__(self, data: Images, items: NDArray[np.int64] | None = None) -> None:
        rows = slice(None) if items is None else items
        super().__init__(data.name, data.sources[rows], data.labels[rows], data.classes)
        self.data = data

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def source_name(self, source: int) -> str:
        return self.data.source_name(source)

    def source_picture(self, source: int) -> Image.Image:
        return self.data.source_picture(source)
