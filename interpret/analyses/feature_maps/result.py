"""The result of `interpret.feature_maps`: the activations of each layer on one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed, stacked
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class FeatureMaps(Result):
    """The activations of every unit on one image, layer by layer."""

    kind = "feature-maps"
    drawn_by = "interpret.analyses.feature_maps.figure:plot_feature_maps"
    shows_images = True

    model: str
    picture: NDArray[np.uint8]
    """[h, w, 3] the network's input as a picture."""
    maps: dict[str, NDArray[np.float32]]
    """Layer to [C, H, W], or [C] where it has no positions."""
    kinds: dict[str, str]
    """Layer to the class of its module."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def title(self) -> str:
        return f"Feature maps of one image in {self.model}"

    @property
    def extent(self) -> str:
        units = sum(len(maps) for maps in self.maps.values())
        return f"{count(len(self.maps), 'layer')}, {count(units, 'unit')}"

    def columns(self) -> dict[str, Any]:
        """Return one row per layer and unit: its largest and mean activation, and its share of places above zero."""
        flat = {layer: maps.reshape(len(maps), -1) for layer, maps in self.maps.items()}
        return stacked(
            [
                crossed(layer=[layer], unit=range(len(maps)))
                | {"maximum": maps.max(1), "mean": maps.mean(1), "density": (maps > 0).mean(1)}
                for layer, maps in flat.items()
            ]
        )

    @property
    def reading(self) -> str:
        return (
            "Each small picture is a unit's activations at all positions of the one image at the top, in the order of "
            "the units, row by row: white is zero, red above, blue below. A layer's units share one scale, beside "
            "them, so that weak ones look weak; where it is pointed, one activation in a thousand exceeds it. A layer "
            f"without positions is drawn as a strip, a cell a unit.{self.shown and ' ' + self.shown}"
        )
