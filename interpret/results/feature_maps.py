"""What each layer makes of one image: what `interpret.feature_maps` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpret.results import Result


@dataclass
class FeatureMaps(Result):
    """Every unit's activations on one image, layer by layer."""

    kind = "feature-maps"
    shows_images = True

    model: str
    picture: NDArray[np.uint8]
    """[h, w, 3] the network's input as a picture."""
    maps: dict[str, NDArray[np.float32]]
    """Layer to [C, H, W], or [C] where it has no positions."""
    kinds: dict[str, str]
    """Layer to the class of its module."""

    @property
    def title(self) -> str:
        return f"Feature maps of one image in {self.model}"

    @property
    def reading(self) -> str:
        return (
            "Each small picture is a unit's activations at all positions of the one image at the top, in the order of "
            "the units, row by row: white is zero, red above, blue below. A layer's units share one scale, beside "
            "them, so that weak ones look weak; where it is pointed, one activation in a thousand exceeds it. A layer "
            "without positions is drawn as a strip, a cell a unit."
        )
