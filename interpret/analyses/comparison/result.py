"""The result of `interpret.compare`: the overlap of units' top-activating images in two networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed, stacked
from interpret.support.errors import unknown
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Comparison(Result):
    """The overlap of each unit's top-activating images in two networks, such as two checkpoints."""

    kind = "comparison"
    drawn_by = "interpret.analyses.comparison.figure:plot_comparison"

    before: str
    """Name of the first network."""
    after: str
    data: str
    k: int
    """Number of hits of each unit that are compared."""
    sample: int
    """Number of images over which the correlation is taken."""
    overlap: dict[str, NDArray[np.float64]]
    """Layer to [C]: average overlap of the two rankings of images, from 0 to 1; see `interpret.compare`."""
    shared_images: dict[str, NDArray[np.int64]]
    """Layer to [C]: number of images among the hits of both."""
    shared_patches: dict[str, NDArray[np.int64]]
    """Layer to [C]: number of these images in which the strongest neuron is at the same position."""
    correlation: dict[str, NDArray[np.float64]]
    """Layer to [C]: Pearson's correlation of the unit's maxima on the sample; NaN where one network's are constant."""
    maximum_before: dict[str, NDArray[np.float32]]
    """Layer to [C]: the strongest activation."""
    maximum_after: dict[str, NDArray[np.float32]]
    dead_before: dict[str, NDArray[np.bool_]]
    """Layer to [C]: whether the unit is above zero on no image."""
    dead_after: dict[str, NDArray[np.bool_]]
    shown_layers: list[str]
    """[S] the layers of the units that are shown, those that changed most first."""
    shown_units: list[int]
    pictures_before: dict[str, NDArray[np.uint8]]
    """Place among the shown, "0", "1" …, to [n, h, w, 3]: the patches of its hits; empty without the images."""
    pictures_after: dict[str, NDArray[np.uint8]]

    @property
    def layers(self) -> list[str]:
        """The layers' names."""
        return list(self.overlap)

    def most_changed(self, layer: str | None = None, most: int | None = None) -> list[tuple[str, int]]:
        """Return units as (layer, unit), sorted by lowest overlap, then by lowest correlation.

        Args:
            layer: of this layer alone; None: of all.
            most: how many at most; None: all.

        Raises:
            InterpretError: a layer that was not compared.
        """
        layers = self.layers if layer is None else [layer]
        if layer is not None and layer not in self.overlap:
            raise unknown("compared layer", layer, self.overlap)
        found = []
        for place, name in enumerate(layers):
            overlap = self.overlap[name]
            # a unit that died or came alive has no correlation, and changed as far as can be
            alike = np.where(np.isnan(self.correlation[name]), np.where(overlap == 1, 1, -1), self.correlation[name])
            found += [
                (*both, place, unit) for unit, both in enumerate(zip(overlap.tolist(), alike.tolist(), strict=True))
            ]
        return [(layers[place], unit) for _, _, place, unit in sorted(found)[:most]]

    @property
    def title(self) -> str:
        if self.before == self.after:
            return f"What changed in {self.before}"
        return f"What changed from {self.before} to {self.after}"

    @property
    def sides(self) -> tuple[str, str]:
        """Labels of the two networks: their names, or "before" and "after" if the names are equal."""
        return ("before", "after") if self.before == self.after else (self.before, self.after)

    @property
    def extent(self) -> str:
        units = sum(len(one) for one in self.overlap.values())
        mean = float(np.mean(np.concatenate(list(self.overlap.values()))))
        return f"{count(len(self.layers), 'layer')}, {count(units, 'unit')}, mean overlap {mean:.2f}"

    @property
    def reading(self) -> str:
        shown = (
            " Below, the units that changed most: the windows of the images that excite them most, strongest "
            "first, in the one network and in the other."
            if self.shown_units
            else ""
        )
        before, after = self.sides if self.before == self.after else (f"in {self.before}", f"in {self.after}")
        return (
            f"Each dot is a unit: how far the {count(self.k, 'image')} of {self.data} exciting it most are the same "
            f"{before} and {after}, and in the same order. 1: the same images, 0: none of them; it is the "
            f"average overlap of the two rankings. Bars are the layers' medians.{shown}"
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per unit: layer, unit, and the fields of this class."""
        fields = (
            "overlap", "shared_images", "shared_patches", "correlation", "maximum_before", "maximum_after",
            "dead_before", "dead_after",
        )  # fmt: skip
        return stacked(
            [
                crossed(layer=[layer], unit=range(len(self.overlap[layer])))
                | {name: getattr(self, name)[layer] for name in fields}
                for layer in self.layers
            ]
        )
