"""The result of `interpret.map_activations`: what a layer distinguishes, on a map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class ActivationAtlas(Result):
    """m images, each made for the mean of the activations in one cell of a map.

    >>> one = ActivationAtlas("net", "conv1", (2, 2), np.array([[0, 1]]), np.array([7]),
    ...     np.zeros((1, 4, 4, 3), np.uint8), np.array([3.0]), ["dog"], np.array([0.5]))
    >>> one.extent
    '1 cell of 2 × 2'
    """

    kind = "atlas"
    drawn_by = "interpret.analyses.synthesis.atlas_figure:plot_atlas"
    shows_images = True

    model: str
    layer: str
    grid: tuple[int, int]
    """Rows and columns of the map."""
    cells: NDArray[np.int64]
    """[m, 2] row and column of each image."""
    counts: NDArray[np.int64]
    """[m] how many activations lie in the cell."""
    pictures: NDArray[np.uint8]
    """[m, h, w, 3] the images."""
    values: NDArray[np.float64]
    """[m] the value of the image in the direction that it was made for."""
    labels: list[str]
    """[m] the class that is predicted most often for the images of the cell; "" where classes have no names."""
    label_shares: NDArray[np.float64]
    """[m] the share of the cell's images that are predicted as it."""
    layout: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """[n, 2] where each activation lies on the map, down and across, from 0 to 1."""
    items: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n] the image of each activation."""
    positions: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """[n, 2] its position in the feature map."""
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    """The name of the images."""
    shown: str = ""
    """A sentence on how inputs are shown as pictures; empty if the preprocessing defines it."""

    def __post_init__(self) -> None:
        self.grid = (int(self.grid[0]), int(self.grid[1]))

    @property
    def title(self) -> str:
        return f"Activation atlas of {self.layer} of {self.model or 'a network'}"

    @property
    def extent(self) -> str:
        return f"{count(len(self.cells), 'cell')} of {self.grid[0]} × {self.grid[1]}"

    @property
    def reading(self) -> str:
        where = f" of {self.data}" if self.data else ""
        text = (
            f"{len(self.items):,} activations, at one random position of each image{where}, are laid out in two "
            "dimensions so that like ones lie together. For the mean of each cell, an image was made from noise. A "
            "larger image stands for more activations; distances on the map mean little beyond the nearest ones."
        )
        if any(self.labels):
            text += (
                " Below a cell, the class that the network predicts most often for its images: each class once, where "
                "most images are predicted as it, if there is room."
            )
        return f"{text} {self.shown}".rstrip()

    def columns(self) -> dict[str, Any]:
        """Return one row per image: its cell, the number of activations in it, and their most frequent class."""
        return {
            "row": self.cells[:, 0],
            "column": self.cells[:, 1],
            "activations": self.counts,
            "value": self.values,
            "label": np.array(self.labels, object),
            "label_share": self.label_shares,
        }
