"""Some items of other images, as images of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.images.sources import Images


class SelectedImages(Images):
    """Some items of other images, in the given order.

    >>> import torch
    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.arange(4.0).reshape(4, 1, 1, 1), nn.Conv2d(1, 1, 1))
    >>> chosen = SelectedImages(images, np.array([3, 0]))
    >>> len(chosen), chosen[0][0].item(), chosen.sources
    (2, 3.0, array([3, 0]))
    """

    def __init__(self, images: Images, items: NDArray[np.int64]) -> None:
        super().__init__(images.name, images.sources[items], images.labels[items], images.classes)
        self.images, self.items = images, items
        self.preprocess, self.most_workers, self.dtype = images.preprocess, images.most_workers, images.dtype
        self.channels, self.skipped, self.opened_from = images.channels, images.skipped, images.opened_from

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.images[int(self.items[item])]

    @property
    def fingerprint(self) -> str:
        return self.images.fingerprint

    def window(self, item: int) -> tuple[float, float, float, float]:
        return self.images.window(int(self.items[item]))

    def source_name(self, source: int) -> str:
        return self.images.source_name(source)

    def source_picture(self, source: int) -> Image.Image:
        return self.images.source_picture(source)
