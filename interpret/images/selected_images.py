"""Some items of other images, as images of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from interpret.images.derived import DerivedImages
from interpret.images.sources import Images


class SelectedImages(DerivedImages):
    """Some items of other images, in the given order.

    >>> import torch
    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.arange(4.0).reshape(4, 1, 1, 1), nn.Conv2d(1, 1, 1))
    >>> chosen = SelectedImages(images, np.array([3, 0]))
    >>> len(chosen), chosen[0][0].item(), chosen.sources
    (2, 3.0, array([3, 0]))
    """

    def __init__(self, data: Images, items: NDArray[np.int64]) -> None:
        super().__init__(data, items)
        self.items = items
        self.preprocess, self.most_workers, self.dtype = data.preprocess, data.most_workers, data.dtype
        self.channels, self.skipped, self.opened_from = data.channels, data.skipped, data.opened_from

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.data[int(self.items[item])]

    def window(self, item: int) -> tuple[float, float, float, float]:
        return self.data.window(int(self.items[item]))
