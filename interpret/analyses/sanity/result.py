"""The result of `interpret.sanity_check`: whether maps depend on the weights that the network has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.attribution.result import METHODS
from interpret.results.result import Result, crossed
from interpret.support.wording import count

MEASURES = {
    "rank": "rank correlation, magnitude",
    "rank_signed": "rank correlation, with sign",
    "ssim": "structural similarity",
}


@dataclass(repr=False, eq=False)
class SanityCheck(Result):
    """Similarity of maps to those of the trained network while its layers are randomised from the top down."""

    kind = "sanity"
    drawn_by = "interpret.analyses.sanity.figure:plot_sanity"
    shows_images = True

    model: str
    layer: str | None
    """The layer of a hidden unit; None: the network's output."""
    steps: list[str]
    """The lowest layer that is randomised at each step; "" for the trained network."""
    depths: NDArray[np.int64]
    """[S] number of layers with weights that are randomised at each step."""
    layers: int
    """Number of layers with weights below the target."""
    rank: dict[str, NDArray[np.float64]]
    """By method, [B, S]: Spearman's rank correlation of the magnitudes with those of the trained network; here and
    below, NaN if a map is constant."""
    rank_signed: dict[str, NDArray[np.float64]]
    """The same for the signed maps."""
    ssim: dict[str, NDArray[np.float64]]
    """Structural similarity of the magnitudes, scaled by their 99th percentile."""
    pictures: NDArray[np.uint8]
    """[B, H, W, 3] the images."""
    maps: dict[str, NDArray[np.float16]]
    """By method, [S, H, W]: the first image's maps, summed over colours, 1 the 99th percentile of their magnitude."""
    target_names: list[str]
    seed: int
    draws: NDArray[np.int64]
    """[S] the first draw of random weights that gives the target a gradient."""
    settings: dict[str, Any]
    """The settings, as for `interpret.attribute`."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def title(self) -> str:
        return f"Sanity check: whether maps change when the weights of {self.model} are randomised"

    def mean(self, measure: str, method: str) -> NDArray[np.float64]:
        """Return the mean over the images, [S], of "rank", "rank_signed" or "ssim"; NaN where no image has a value."""
        values = getattr(self, measure)[method]
        there = ~np.isnan(values)
        sums, counts = np.where(there, values, 0.0).sum(0), there.sum(0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @property
    def extent(self) -> str:
        methods, steps = count(len(self.rank), "method"), count(len(self.steps), "step")
        return f"{count(len(self.pictures), 'image')}, {methods}, {steps}"

    def columns(self) -> dict[str, Any]:
        """Return one row per method, image and step: depth, layer, and the three measures (see `MEASURES`)."""
        columns = crossed(method=list(self.rank), image=range(len(self.pictures)), step=range(len(self.steps)))
        columns |= {"depth": self.depths[columns["step"]], "layer": np.array(self.steps, object)[columns["step"]]}
        return columns | {
            measure: np.concatenate([values.ravel() for values in getattr(self, measure).values()])
            for measure in MEASURES
        }

    @property
    def reading(self) -> str:
        step = min(1, len(self.depths) - 1)
        sentence = (
            "Layers are randomised from the top down, and each map is compared with that of the trained network "
            "(Adebayo et al. 2018): near 1, a map does not show what these layers have learnt; a method that explains "
            f"the network falls at once. Means over {count(len(self.pictures), 'image')}, one draw of random "
            f"weights (seed {self.seed}); maps below are those of the first image ({self.target_names[0]})."
        )
        means = {method: float(self.mean("rank", method)[step]) for method in self.rank}
        ordered = sorted((method for method in means if not np.isnan(means[method])), key=lambda method: -means[method])
        if ordered:
            named = "; ".join(METHODS.get(one, one) + f" {means[one]:.2f}".replace("-", "−") for one in ordered)
            depth = int(self.depths[step])
            sentence += (
                f" With the top {depth} of {count(self.layers, 'layer')} randomised, the rank correlation of the "
                f"magnitudes is: {named}."
            )
        left_out = sum(int(np.isnan(values).sum()) for values in self.rank.values())
        if left_out:
            maps = sum(values.size for values in self.rank.values())
            are = "is" if left_out == 1 else "are"
            sentence += f" {left_out} of {count(maps, 'map')} {are} zero everywhere and left out."
        return f"{sentence}{self.shown and ' ' + self.shown}"
