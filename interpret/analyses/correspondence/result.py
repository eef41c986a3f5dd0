"""Whether a network's features change alike when the same part of an object is hidden: what `correspond` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed
from interpret.support.errors import unknown
from interpret.support.wording import count

MASKS = ("part", "random", "shared")
"""What is hidden: the part; a box of its size at a random place of each image's own; one at a random place that all
images share."""


@dataclass(repr=False, eq=False)
class Correspondence(Result):
    """Δ of each layer for P parts and for random masks of their size, over B images."""

    kind = "correspondence"
    drawn_by = "interpret.analyses.correspondence.figure:plot_correspondence"

    model: str
    images: int
    parts: list[str]
    draws: int
    """How many random places each control is the mean of."""
    colour: str
    """What lies over a masked part."""
    features: dict[str, int]
    """Layer to how many features an image has there."""
    scores: dict[str, NDArray[np.float64]]
    """Layer to [3, P]: Δ, 0 to 1, of each of `MASKS` for each part; lower is more consistent."""
    errors: dict[str, NDArray[np.float64]]
    """Layer to [3, P]: its standard error over the images."""
    gains: dict[str, NDArray[np.float64]]
    """Layer to [2, P]: Δ of "random" and of "shared" minus that of the part, image by image the same ones."""
    gain_errors: dict[str, NDArray[np.float64]]
    """Layer to [2, P]: its standard error over the images."""

    @property
    def layers(self) -> list[str]:
        """The layers' names."""
        return list(self.scores)

    def table(self, layers: Sequence[str] | None = None) -> str:
        """Return Δ ± standard error as a Markdown table, a row a part and for each its two controls.

        Args:
            layers: which columns; None: all.
        """
        shown = self.layers if layers is None else list(layers)
        for layer in shown:
            if layer not in self.scores:
                raise unknown("layer", layer, self.layers)
        lines = ["| masked | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
        for column, part in enumerate(self.parts):
            names = (part, f"random, of the size of {part}", f"random, one place for all, of the size of {part}")
            for row, name in enumerate(names):
                cells = [
                    f"{self.scores[layer][row, column]:.3f} ± {self.errors[layer][row, column]:.3f}" for layer in shown
                ]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    @property
    def title(self) -> str:
        return f"Correspondence of parts in {self.model}"

    @property
    def extent(self) -> str:
        return f"{count(len(self.parts), 'part')}, {count(len(self.layers), 'layer')}, {count(self.images, 'image')}"

    def columns(self) -> dict[str, Any]:
        """Return a row for each layer, part and mask (see `MASKS`): score and error."""
        columns = crossed(layer=self.layers, mask=MASKS, part=self.parts)
        return columns | {
            name: np.concatenate([of[layer].ravel() for layer in self.layers])
            for name, of in (("score", self.scores), ("error", self.errors))
        }

    @property
    def reading(self) -> str:
        return (
            "Δ is the share of a layer's features that change with a different sign (up, down or not at all) in two "
            f"images when the same part is masked in both, mean over all pairs of {count(self.images, 'image')}, ± "
            "standard error over images. Where a part lies below random masks of its size, the layer answers to it "
            f"alike in different images. Random masks lie at {count(self.draws, 'place')}, of each image's own (as in "
            "Zeiler & Fergus 2014, Table 1) or the same in all images: the second tells what comes of the part from "
            "what comes of its place."
        )
