"""The result of `interpret.compare_methods`: the maps of several methods for the same targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class MethodComparison(Result):
    """Maps of the same images by several methods, and how much each map depends on the target and on the image."""

    kind = "methods"
    drawn_by = "interpret.analyses.methods.figure:plot_methods"
    shows_images = True

    model: str
    layer: str | None
    """The layer of a hidden unit; None: the network's output."""
    pictures: NDArray[np.uint8]
    """[B, H, W, 3] the images."""
    maps: dict[str, NDArray[np.float32]]
    """By method, [B, H, W]: signed maps, summed over the colours, not scaled."""
    targets: NDArray[np.int64]
    """[B] the class or channel that the maps are for."""
    others: NDArray[np.int64]
    """[B] the other class or channel that `same_for_other` compares with."""
    target_names: list[str]
    other_names: list[str]
    scores: NDArray[np.float64]
    """[B] the target's value."""
    other_scores: NDArray[np.float64]
    same_for_other: dict[str, NDArray[np.float64]]
    """By method, [B]: rank correlation of the map's magnitude with that for the other class."""
    same_as_image: dict[str, NDArray[np.float64]]
    """By method, [B]: rank correlation of the map with the fine detail of the image, both with their sign."""
    settings: dict[str, Any]
    """The settings, as for `interpret.attribute`."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def title(self) -> str:
        where = "the output" if self.layer is None else f"a unit of {self.layer}"
        return f"Attribution maps of {self.model} by {count(len(self.maps), 'method')}, for {where}"

    @property
    def extent(self) -> str:
        return f"{count(len(self.pictures), 'image')}, {count(len(self.maps), 'method')}"

    def columns(self) -> dict[str, Any]:
        """Return one row per method and image: target, other, score, same_for_other, same_as_image."""
        methods = list(self.maps)
        columns = crossed(method=methods, image=range(len(self.pictures)))
        image = columns["image"]
        return columns | {
            "target": np.array(self.target_names, object)[image],
            "other": np.array(self.other_names, object)[image],
            "score": self.scores[image],
            "same_for_other": np.concatenate([self.same_for_other[method] for method in methods]),
            "same_as_image": np.concatenate([self.same_as_image[method] for method in methods]),
        }

    @property
    def reading(self) -> str:
        target, other = ("class", "runner-up") if self.layer is None else ("unit", "next channel")
        sentence = (
            f"Red speaks for the {target} named above each image, blue against it; each map is summed over colours and "
            "scaled by the 99th percentile of its magnitude. On the right, rank correlations ρ, a dot for each image "
            f"and a bar for their mean: with the map for the {other} named below it (magnitudes; 1: the map is the "
            "same for both), and with the fine detail of the image itself (signed; 1: the map is the image). Measured "
            f"on {count(len(self.pictures), 'image')}{'' if self.layer is None else ', where the unit sees them'}."
        )
        if "deconvnet" in self.maps:
            sentence += (
                f" The deconvnet's map has ρ = {_mean(self.same_for_other['deconvnet'])} with that for the {other} and "
                f"ρ = {_mean(self.same_as_image['deconvnet'])} with the image"
            )
            if "gradient" in self.maps:
                sentence += (
                    f", the gradient's {_mean(self.same_for_other['gradient'])} and "
                    f"{_mean(self.same_as_image['gradient'])}"
                )
            if self._recovers:
                sentence += f": it tells more of the image than of the {target} (Nie et al. 2018)"
            sentence += "."
        return f"{sentence}{self.shown and ' ' + self.shown}"

    @property
    def _recovers(self) -> bool:
        """Whether the deconvnet's map is nearly the same for the other target, and correlates with the image.

        Not where the gradient's maps are as alike: then the two targets are alike.
        """
        same, image = self.same_for_other["deconvnet"].mean(), self.same_as_image["deconvnet"].mean()
        gradient = self.same_for_other.get("gradient", np.zeros(1)).mean()
        return bool(same > 0.9 and image > 0.1 and gradient < same - 0.05)


def _mean(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f}".replace("-", "−")
