"""Images in memory that are already inputs of the network."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor

from interpret.figures.drawn_inputs import WHOLE_SIZE
from interpret.images.display import inputs_to_bytes
from interpret.images.fingerprints import hash_arrays
from interpret.images.sources import Images
from interpret.network.model import Model
from interpret.network.pixel_scale import PixelScale


class TensorImages(Images):
    """Inputs in memory, passed to the network unchanged: a tensor [N, C, H, W]."""

    def __init__(self, tensor: Tensor, model: Model, name: str = "tensor") -> None:
        super().__init__(name, np.arange(len(tensor)))
        self.tensor = tensor
        self.preprocess = model.preprocess

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.tensor[range(len(self))[item]], -1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over type, shape and values."""
        return hash_arrays([self.tensor])

    def source_name(self, source: int) -> str:
        return f"image {source}"

    def source_picture(self, source: int) -> Image.Image:
        return picture_of(self.tensor[source], self.pixel_scale)


def picture_of(image: Tensor, scale: PixelScale) -> Image.Image:
    """Return an input [C, H, W], [C, T] or [C, D, H, W] as a picture; see `inputs_to_pictures`."""
    return Image.fromarray(inputs_to_bytes(image[None], scale, WHOLE_SIZE)[0])
