"""The result of `interpret.project`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import EDGES, PLACES, ZERO, count, elements, place_in_words

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(repr=False, eq=False)
class Projections(Result):
    """Projections of B neurons, each in the window of the image that its neuron sees."""

    kind = "projections"
    drawn_by = "interpret.analyses.projection.figure:plot_projections"
    shows_images = True

    pixels: Tensor
    """[B, C, h, w] the signal in the window, in units of activation per unit of input; not scaled for display."""
    boxes: Tensor
    """[B, 4] the windows in the image: top, left, bottom, right; at a border, the window is moved into the
    image. Of signals [B, 2], of volumes [B, 6]: where windows begin on each axis, then where they end."""
    values: Tensor
    """[B] the neurons' activations."""
    positions: Tensor
    """[B, 2] the neurons' rows and columns in the feature map; of signals [B, 1], of volumes [B, 3]."""
    channels: Tensor | None = None
    """[B] the neurons' channels."""
    images: Tensor | None = None
    """[B] the item that each neuron was projected in."""
    layer: str = ""
    rule: str = ""
    model: str = ""
    colours: str = "RGB"
    """Order of the C channels: "RGB", "BGR" or "L"."""
    pictures: NDArray[np.uint8] | None = None
    """[B, h, w, 3] the windows of the images, as pictures."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""
    rois: Tensor | None = None
    """[B, 4] the boxes that a layer which runs once a box ran on, top, left, bottom, right in pixels; positions are in
    the maps of the boxes, and windows are whole images. None for all other layers."""

    def full(self, size: tuple[int, ...]) -> Tensor:
        """Return the projections in whole images of a size (H, W), [B, C, H, W], zero outside the windows.

        >>> import torch
        >>> one = Projections(torch.ones(1, 1, 1, 1), torch.tensor([[1, 0, 2, 1]]), torch.ones(1), torch.zeros(1, 2))
        >>> one.full((2, 2))
        tensor([[[[0., 0.],
                  [1., 0.]]]])
        """
        whole = self.pixels.new_zeros(*self.pixels.shape[:2], *size)
        for row, box in enumerate(self.boxes.tolist()):
            within = map(slice, box[: len(size)], box[len(size) :])
            whole[row][(slice(None), *within)] = self.pixels[row]
        return whole

    @property
    def title(self) -> str:
        return f"Projections of neurons of {self.layer}" if self.layer else "Projections of neurons"

    @property
    def extent(self) -> str:
        sizes, axes = self.pixels.shape[2:], self.pixels.dim() - 2
        by = f", by {self.rule}" if self.rule else ""
        return f"{count(len(self.pixels), 'neuron')}, windows of {' × '.join(map(str, sizes))} {elements(axes)}{by}"

    @property
    def reading(self) -> str:
        axes = self.pixels.dim() - 2
        return (
            f"Neurons of {self.layer} of {self.model}. Each pair shows the neuron's receptive field in the image, and "
            f"its projection by the rule {self.rule!r}, {ZERO[axes]}. Below: unit, image, activation, and "
            f"{place_in_words(axes)} in the feature map.{self.shown and ' ' + self.shown}"
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per neuron: image, channel, row, column, value, and its window's top, left, bottom, right."""
        found = {name: of.tolist() for name in ("images", "channels") if (of := getattr(self, name)) is not None}
        found = {name.removesuffix("s"): column for name, column in found.items()}
        axes = self.pixels.dim() - 2
        found |= dict(zip(PLACES[axes], self.positions.T.tolist(), strict=True))
        found["value"] = self.values.tolist()
        return found | dict(zip(EDGES[axes], self.boxes.T.tolist(), strict=True))
