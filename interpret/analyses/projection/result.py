"""The result of `interpret.project`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import count

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
    """[B, 4] the windows in the image: top, left, bottom, right; at a border, the window is moved into the image."""
    values: Tensor
    """[B] the neurons' activations."""
    positions: Tensor
    """[B, 2] the neurons' rows and columns in the feature map."""
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

    def full(self, size: tuple[int, int]) -> Tensor:
        """Return the projections in whole images of a size (H, W), [B, C, H, W], zero outside the windows.

        >>> import torch
        >>> one = Projections(torch.ones(1, 1, 1, 1), torch.tensor([[1, 0, 2, 1]]), torch.ones(1), torch.zeros(1, 2))
        >>> one.full((2, 2))
        tensor([[[[0., 0.],
                  [1., 0.]]]])
        """
        whole = self.pixels.new_zeros(*self.pixels.shape[:2], *size)
        for row, (top, left, bottom, right) in enumerate(self.boxes.tolist()):
            whole[row, :, top:bottom, left:right] = self.pixels[row]
        return whole

    @property
    def title(self) -> str:
        return f"Projections of neurons of {self.layer}" if self.layer else "Projections of neurons"

    @property
    def extent(self) -> str:
        height, width = self.pixels.shape[-2:]
        by = f", by {self.rule}" if self.rule else ""
        return f"{count(len(self.pixels), 'neuron')}, windows of {height} × {width} pixels{by}"

    @property
    def reading(self) -> str:
        return (
            f"Neurons of {self.layer} of {self.model}. Each pair shows the neuron's receptive field in the image, and "
            f"its projection by the rule {self.rule!r}, grey where it is zero. Below: unit, image, activation, and row "
            f"and column in the feature map.{self.shown and ' ' + self.shown}"
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per neuron: image, channel, row, column, value, and its window's top, left, bottom, right."""
        found = {name: of.tolist() for name in ("images", "channels") if (of := getattr(self, name)) is not None}
        found = {name.removesuffix("s"): column for name, column in found.items()}
        positions, boxes = self.positions.tolist(), self.boxes.tolist()
        found |= {name: [at[place] for at in positions] for place, name in enumerate(("row", "column"))}
        found["value"] = self.values.tolist()
        return found | {
            name: [box[place] for box in boxes] for place, name in enumerate(("top", "left", "bottom", "right"))
        }
