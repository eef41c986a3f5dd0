"""The result of `interpret.invert`: the images whose features in each layer are nearest to those of given images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Inversions(Result):
    """B images, inverted from their features in L layers."""

    kind = "inversions"
    drawn_by = "interpret.analyses.synthesis.inversions_figure:plot_inversions"
    shows_images = True

    model: str
    layers: list[str]
    pictures: NDArray[np.uint8]
    """[L, B, H, W, 3] the inverted images."""
    originals: NDArray[np.uint8]
    """[B, H, W, 3] the given images."""
    errors: NDArray[np.float64]
    """[L, B] squared distance of the features to those of the given image, divided by the squares of the latter."""
    noise_errors: NDArray[np.float64]
    """[L, B] the same for the noise that the optimisation starts from."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Steps, total variation and the other settings."""
    shown: str = ""
    """A sentence on how inputs are shown as pictures; empty if the preprocessing defines it."""

    @property
    def title(self) -> str:
        return f"What each layer of {self.model or 'a network'} still knows of an image"

    @property
    def extent(self) -> str:
        return f"{count(len(self.originals), 'image')}, {count(len(self.layers), 'layer')}"

    @property
    def reading(self) -> str:
        text = (
            "Left the image, then for each layer an image, made from noise, whose features in that layer are nearest. "
            "Below: the squared distance of the features, as a share of their squares. What differs from the image "
            "is what the layer does not tell, or what the optimisation did not find."
        )
        return f"{text} {self.shown}".rstrip()

    def columns(self) -> dict[str, Any]:
        """Return one row per layer and image: the error of the inverted image, and that of noise."""
        axes = crossed(layer=np.array(self.layers, object), image=np.arange(len(self.originals)))
        return axes | {"error": self.errors.ravel(), "noise_error": self.noise_errors.ravel()}
