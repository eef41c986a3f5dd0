"""The result of `interpret.effective_receptive_field`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class EffectiveFields(Result):
    """How much of their receptive fields layers use."""

    kind = "effective-fields"
    drawn_by = "interpret.analyses.effective_fields.figure:plot_effective_fields"

    model: str
    data: str
    images: int
    """The number of images over which energies were averaged."""
    share: float
    """The share of the energy that the windows hold."""
    layers: list[str]
    """In the order in which they run."""
    boxes: NDArray[np.int64]
    """[L, 4] top, left, bottom and right of the effective windows, in the layers' energy; 0 where that is zero."""
    theoretical: NDArray[np.int64]
    """[L, 2] height and width of what the middle neuron sees, inside the image."""
    energy: dict[str, NDArray[np.float32]]
    """Layer to [h, w], the energy of the pixels that its middle neuron sees; their sum is 1."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[L, 2] height and width of the effective windows, in pixels."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def title(self) -> str:
        return f"Effective receptive fields of {self.model}"

    @property
    def extent(self) -> str:
        return f"{count(len(self.layers), 'layer')}, {count(self.images, 'image')}"

    @property
    def reading(self) -> str:
        return (
            f"Each square is what the middle neuron of a layer sees. The darker a pixel, the more it changes the "
            f"layer's units: the square of the gradient, over all units and {count(self.images, 'image')}. The frame "
            f"holds {100 * self.share:g} % of the whole: the effective receptive field, which is often much smaller "
            "than the receptive field."
        )

    def size_of(self, layer: str) -> tuple[int, int] | None:
        """Return height and width of a layer's effective window; None if it was not measured, or is empty."""
        if layer not in self.layers:
            return None
        height, width = self.sizes[self.layers.index(layer)].tolist()
        return (height, width) if height else None

    def columns(self) -> dict[str, Any]:
        """Return one row per layer: the two windows, and the energy's standard deviations, in pixels."""
        spreads = np.array([_spread(self.energy[name]) for name in self.layers]).reshape(-1, 2)
        return {
            "layer": self.layers,
            "height": self.sizes[:, 0],
            "width": self.sizes[:, 1],
            "theoretical_height": self.theoretical[:, 0],
            "theoretical_width": self.theoretical[:, 1],
            "deviation_y": spreads[:, 0],
            "deviation_x": spreads[:, 1],
        }


def _spread(energy: NDArray[np.float32]) -> tuple[float, float]:
    """Return the standard deviations of an energy along y and x."""
    found = []
    for axis in (1, 0):
        line = energy.sum(axis, dtype=np.float64)
        places, total = np.arange(len(line)), max(float(line.sum()), 1e-300)
        mean = (line * places).sum() / total
        found.append(float(np.sqrt((line * (places - mean) ** 2).sum() / total)))
    return found[0], found[1]
