"""Images with their surroundings, which a transform may move into the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from interpret.analyses.invariance.transforms import FILLS, Box, Fill, surround
from interpret.images.batches import refuse_other_shape
from interpret.images.derived import DerivedImages
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.support.errors import InterpretError, unknown


def choose_fill(fill: Fill | None, data: Images, chosen: Sequence[int], size: tuple[int, int]) -> Fill:
    """Return the given fill, or the default for the data."""
    if fill is not None and fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    if fill not in (None, "context"):
        return fill
    if any(_has_surroundings(data, item, size) for item in chosen[:8]):
        return "context"
    if fill == "context":
        raise InterpretError(
            f"fill='context' needs photographs that reach beyond the input, and those of data {data.name!r} do not: "
            "choose reflect, edge, mean or black, or a preprocessing that resizes to more than it cuts out"
        )
    return "reflect"


def _has_surroundings(data: Images, item: int, size: tuple[int, int]) -> bool:
    try:
        part, _ = data.surroundings(item, (-1, -1, size[0] + 1, size[1] + 1))
    except UnreadableImage:
        return False
    return part.shape != data[item][0].shape


class SurroundedImages(DerivedImages):
    """Chosen images with the surroundings that a transform reads, as [C + 1, h, w]; see `surround`."""

    def __init__(
        self, data: Images, chosen: Sequence[int], shape: Sequence[int], box: Box, fill: Fill, black: Tensor
    ) -> None:
        super().__init__(data, np.array(chosen))
        self.chosen, self.shape = chosen, tuple(shape)
        self.box, self.fill, self.black = box, fill, black

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        original = self.chosen[item]
        if self.fill == "context":
            part, corner = self.data.surroundings(original, self.box)
            label = int(self.data.labels[original])
        else:
            (part, label), corner = self.data[original], (0, 0)
            refuse_other_shape(part.shape, self.shape)
        return surround(part, corner, self.box, self.fill, self.black), label
