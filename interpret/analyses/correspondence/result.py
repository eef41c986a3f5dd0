"""The result of `interpret.correspond`."""

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
"""The masks: the part; a box of its size at a random place per image; one at a random place shared by all images."""


@dataclass(repr=False, eq=False)
class Correspondence(Result):
    """Δ per layer for P parts and for random masks of their size, over B images."""

    kind = "correspondence"
    drawn_by = "interpret.analyses.correspondence.figure:plot_correspondence"

    model: str
    images: int
    parts: list[str]
    draws: int
    """Number of random places over which each control is averaged."""
    colour: str
    """Colour of the mask."""
    features: dict[str, int]
    """Layer to its number of features per image."""
    scores: dict[str, NDArray[np.float64]]
    """Layer to [3, P]: Δ, 0 to 1, of each of `MASKS` for each part; lower is more consistent."""
    errors: dict[str, NDArray[np.float64]]
    """Layer to [3, P]: standard error of the scores over the images."""
    gains: dict[str, NDArray[np.float64]]
    """Layer to [2, P]: Δ of "random" and of "shared" minus that of the part, on the same images."""
    gain_errors: dict[str, NDArray[np.float64]]
    """Layer to [2, P]: standard error of the gains over the images, paired by image."""

    @property
    def layers(self) -> list[str]:
        """The layers' names."""
        return list(self.scores)

    def table(self, layers: Sequence[str] | None = None) -> str:
        """Return Δ ± standard error as a Markdown table, with one row per part and per control.

        Args:
            layers: the layers, as columns; None: all.
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
        """Return one row per layer, mask (see `MASKS`) and part: score and error."""
        columns = crossed(layer=self.layers, mask=MASKS, part=self.parts)
        return columns | {
            name: np.concatenate([of[layer].ravel() for layer in self.layers])
            for name, of in (("score", self.scores), ("error", self.errors))
        }

    @property
    def reading(self) -> str:
        return (
            "Δ is the share of a layer's features that change with a different sign (up, down or not at all) in two "
            f"images when the same part is masked in both: the mean over all pairs of {count(self.images, 'image')}, ± "
            "the standard error over images. If Δ is smaller for a part than for random masks of its size, its "
            "features change alike in different images. The random masks lie at "
            f"{count(self.draws, 'place')}, drawn for each image (as in Zeiler & Fergus 2014, Table 1) or the same in "
            "all images: comparing the two separates the effect of the part from that of its place."
        )
