"""The result of `interpret.evolve`: how units and features change during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed, stacked
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Evolution(Result):
    """The strongest activations of U units per layer at E kept epochs, and the movement of the features."""

    kind = "evolution"
    drawn_by = "interpret.analyses.evolution.figure:plot_evolution"
    shows_images = True

    model: str
    data: str
    items: int
    """Number of images that were searched for the strongest activations."""
    rule: str
    """The rule of the projections."""
    channels: str
    """Order of the projections' C channels: "RGB", "BGR" or "L"."""
    epochs: NDArray[np.int64]
    """[E] the kept epochs, ascending."""
    units: dict[str, NDArray[np.int64]]
    """Layer to [U]: the units shown."""
    values: dict[str, NDArray[np.float32]]
    """Layer to [U, E]: the strongest activation over all images."""
    images: dict[str, NDArray[np.int64]]
    """Layer to [U, E]: its item of the data."""
    positions: dict[str, NDArray[np.int64]]
    """Layer to [U, E, 2]: its row and column in the feature map."""
    projections: dict[str, NDArray[np.float32]]
    """Layer to [U, E, C, h, w]: the signal in the window that the neuron sees, not scaled for display."""
    patches: dict[str, NDArray[np.uint8]]
    """Layer to [U, E, h, w, 3]: the same window of the image, as a picture."""
    movement: dict[str, NDArray[np.float64]]
    """Layer to [E − 1]: relative distance of the features per epoch, from each kept epoch to the next."""
    movement_errors: dict[str, NDArray[np.float64]]
    """Layer to [E − 1]: its standard error over the images."""
    sample: int
    """Number of images on which movement is measured."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def layers(self) -> list[str]:
        """The layers' names."""
        return list(self.units)

    @property
    def jumps(self) -> dict[str, NDArray[np.bool_]]:
        """Layer to [U, E]: whether the strongest image differs from the previous kept epoch's; False at the first."""
        return {
            layer: np.concatenate([np.zeros((len(images), 1), bool), images[:, 1:] != images[:, :-1]], 1)
            for layer, images in self.images.items()
        }

    @property
    def title(self) -> str:
        return f"Evolution of {self.model} during training"

    @property
    def extent(self) -> str:
        units = sum(len(one) for one in self.units.values())
        return f"{count(len(self.layers), 'layer')}, {count(units, 'unit')}, {count(len(self.epochs), 'epoch')}"

    def columns(self) -> dict[str, Any]:
        """Return one row per layer, unit and epoch: value, image, row, column, jump."""
        jumps = self.jumps
        return stacked(
            [
                crossed(layer=[layer], unit=units, epoch=self.epochs)
                | {
                    "value": self.values[layer].ravel(),
                    "image": self.images[layer].ravel(),
                    "row": self.positions[layer][..., 0].ravel(),
                    "column": self.positions[layer][..., 1].ravel(),
                    "jump": jumps[layer].ravel(),
                }
                for layer, units in self.units.items()
            ]
        )

    @property
    def reading(self) -> str:
        return (
            "Each row is a unit, each column a kept epoch: the unit's single strongest activation over the "
            f"{count(self.items, 'image')} of {self.data}, projected ({self.rule}) to the pixels that it sees, "
            "contrast stretched one by one; a bar before a picture marks a jump, where the strongest image is another "
            "than before. Below, how far each layer's features move per epoch: the Euclidean distance between the "
            "features of one image at two consecutive kept epochs, divided by the norm of the earlier and by the "
            f"epochs between, mean over {count(self.sample, 'image')} (band: standard error); a layer has settled "
            f"where its line is low.{self.shown and ' ' + self.shown}"
        )
