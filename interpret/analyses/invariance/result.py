"""The result of `interpret.probe`: distances of features and probabilities under a transform."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interpret.network.readings import in_words
from interpret.results.result import Result, crossed, stacked
from interpret.support.errors import unknown
from interpret.support.wording import count

Numbers = NDArray[np.floating[Any]]


@dataclass(repr=False, eq=False)
class InvarianceCurves(Result):
    """Invariance curves for B images at V values of a transform, per layer; the result of `interpret.probe`.

    >>> curves = InvarianceCurves(
    ...     "scale", "scale (ratio)", 1.0, np.array([1.0, 1.5, 2.0]),
    ...     distances={"conv1": np.array([[0.0, 2.0, 3.0]])}, norms={"conv1": np.array([4.0])},
    ... )
    >>> curves.relative["conv1"]
    array([[0.  , 0.5 , 0.75]])
    >>> curves.areas["conv1"]
    array([0.4375])
    """

    kind = "invariance"
    drawn_by = "interpret.analyses.invariance.figure:plot_invariance"
    shows_images = True
    format_version = 2  # version 1 calls `filled_fraction` "invented"

    transform: str
    axis: str
    """Name and unit of the values."""
    identity: float
    """The value at which the transform changes nothing."""
    values: NDArray[np.float64]
    """[V] in the given order."""
    distances: dict[str, Numbers]
    """Layer to [B, V]: Euclidean distance between the features of the transformed and the untransformed image."""
    norms: dict[str, Numbers]
    """Layer to [B]: Euclidean norm of the untransformed image's features."""
    unit_distances: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [C, V]: a unit's distances, summed over images, divided by its summed norms; NaN if the unit is zero on
    all images. So images weigh by the unit's response to them."""
    equivariance: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [B, V], for a translation: the equivariance error, see `interpret.probe`."""
    unit_equivariance: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [C, V]: the equivariance error of each unit, summed over images as in `unit_distances`."""
    probabilities: Numbers | None = None
    """[B, V] probability of the label; NaN for images without a label, None if no image has one."""
    labels: NDArray[np.int64] | None = None
    """[B] indices of the network's outputs; −1 if unknown."""
    predicted: bool = False
    """Whether the labels are the network's predictions for the untransformed images, not the true classes."""
    top: NDArray[np.int64] | None = None
    """[B, V] the network's most probable class; None if its output is not a row of classes."""
    filled_fraction: Numbers | None = None
    """[V] mean share of the pixels that come from the fill and not from the photograph."""
    items: NDArray[np.int64] | None = None
    """[B] the items of the data."""
    names: list[str] = field(default_factory=list)
    """Captions of the example images: the names of their labels, or of the images."""
    examples: NDArray[np.uint8] | None = None
    """[n, m, h, w, 3] pictures of the n images `example_rows` at the m values `example_values`."""
    example_rows: NDArray[np.int64] | None = None
    example_values: NDArray[np.float64] | None = None
    direction: str = ""
    """Direction of a translation."""
    model: str = ""
    data: str = ""
    fill: str = ""
    """The fill: "context", "reflect", "edge", "mean" or "black"; "" for transforms that do not move pixels."""
    interpolation: str = ""
    """A description of the interpolation between pixels."""
    seed: int = 0
    """Seed of the noise."""
    outputs: str = ""
    """How outputs became probabilities: "softmax", "sigmoid", "probabilities" or "log-probabilities"; "" if they are
    not a row of classes."""
    part: str = ""
    """Which output was used, if the network has several."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def name(self) -> str:
        """The name in a study: the transform, and the direction of a translation that is not vertical."""
        return self.transform if self.direction in ("", "vertical") else f"{self.transform}-{self.direction}"

    @property
    def invented(self) -> Numbers | None:
        """The old name of `filled_fraction`."""
        warnings.warn("invented is now filled_fraction: use that name", DeprecationWarning, stacklevel=2)
        return self.filled_fraction

    @classmethod
    def _from_stored(cls, kept: dict[str, Any]) -> Self:
        return cls(**{"filled_fraction" if name == "invented" else name: value for name, value in kept.items()})

    @property
    def layers(self) -> list[str]:
        """The layers, in the order of execution."""
        return list(self.distances)

    @property
    def relative(self) -> dict[str, Numbers]:
        """Layer to [B, V]: distances divided by norms; NaN for an image whose features are all zero."""
        return {layer: quotient(far, self.norms[layer][:, None]) for layer, far in self.distances.items()}

    @property
    def areas(self) -> dict[str, Numbers]:
        """Layer to [B]: the area under each image's relative curve, divided by the range of the values.

        This is the curve's mean height, comparable between transforms with different units and ranges; 0 is invariant.
        """
        return {layer: self._area(curve) for layer, curve in self.relative.items()}

    @property
    def unit_areas(self) -> dict[str, Numbers]:
        """Layer to [C]: the area under each unit's relative curve, divided by the range of the values."""
        return {layer: self._area(curve) for layer, curve in self.unit_distances.items()}

    @property
    def consistency(self) -> Numbers | None:
        """[B]: the share of all pairs of values at which the network predicts the same class; None without classes.

        Source: Zhang, "Making convolutional networks shift-invariant again", 2019, section 4, which draws random pairs
        of diagonal shifts; here, all pairs of values of any transform count.
        """
        if self.top is None:
            return None
        count = self.top.shape[1]
        same = (self.top[:, :, None] == self.top[:, None, :]).sum((1, 2)) - count
        return same / (count * (count - 1)) if count > 1 else np.ones(len(self.top))

    @property
    def deviations(self) -> Numbers | None:
        """[B]: the standard deviation of the label's probability over the values; NaN without a label."""
        return None if self.probabilities is None else self.probabilities.std(1)

    def ranked_units(self, layer: str) -> NDArray[np.int64]:
        """Return a layer's units from the most to the least invariant, without units that are always zero.

        Raises:
            InterpretError: the layer was not probed.
        """
        if layer not in self.unit_distances:
            raise unknown("probed layer", layer, self.unit_distances)
        areas = self.unit_areas[layer]
        return np.array([unit for unit in np.argsort(areas, kind="stable") if np.isfinite(areas[unit])], np.int64)

    @property
    def title(self) -> str:
        return f"Invariance to {self.axis.partition(' (')[0]}"

    @property
    def extent(self) -> str:
        images = len(next(iter(self.distances.values())))
        return f"{count(len(self.layers), 'layer')}, {count(images, 'image')}, {count(len(self.values), 'value')}"

    def columns(self) -> dict[str, Any]:
        """Return one row per layer, image and value: distance, relative, equivariance and probability.

        The last two are left out if unknown. The probability of the image's label is the same for all layers.
        """
        relative = self.relative
        rows = range(len(next(iter(self.distances.values()))))
        tables: list[dict[str, Any]] = []
        for layer, distances in self.distances.items():
            table = crossed(layer=[layer], image=rows if self.items is None else self.items, value=self.values)
            table |= {"distance": distances.ravel(), "relative": relative[layer].ravel()}
            if self.equivariance:
                table["equivariance"] = self.equivariance[layer].ravel()
            if self.probabilities is not None:
                table["probability"] = self.probabilities.ravel()
            tables.append(table)
        return stacked(tables)

    @property
    def reading(self) -> str:
        shown = len(next(iter(self.distances.values())))
        parts = [
            f"How far each layer's features of {count(shown, 'image')} move as the input is transformed: Euclidean "
            "distance to the features of the untransformed image, over their norm. 0 is invariant; at 1 the features "
            "have moved as far as they are long.",
            f"Model {self.model}, data {self.data}." if self.model else "",
        ]
        if self.probabilities is None:
            parts.append("The images have no labels, so that there is no probability to show.")
        else:
            labelled = int((self.labels >= 0).sum()) if self.labels is not None else shown
            what = "class predicted for the untransformed image" if self.predicted else "true label"
            only = f" ({labelled:,} of them have one)" if labelled < shown else ""
            parts += [f"Right: the probability of the {what}{only}.", in_words(self.outputs, self.part)]
        if self.fill:
            parts.append(_FILLS.get(self.fill, self.fill))
        if self.filled_fraction is not None and self.filled_fraction.max() > 0:
            parts.append(f"They are at most {self.filled_fraction.max():.0%} of the pixels, at one value.")
        return " ".join(part for part in [*parts, self.shown] if part)

    def _area(self, curves: Numbers) -> Numbers:
        """Return the areas under curves [n, V] divided by the range of the values; their mean if the range is 0."""
        order = np.argsort(self.values, kind="stable")
        values, curves = self.values[order], curves[:, order]
        width = values[-1] - values[0]
        return np.trapezoid(curves, values, axis=1) / width if width > 0 else curves.mean(1)


_FILLS = {
    "context": "Areas that enter the image show what lies around it in the photograph, and beyond that its reflection.",
    "reflect": "Areas that enter the image are filled with its reflection.",
    "edge": "Areas that enter the image are filled with the colours of its edge.",
    "mean": "Areas that enter the image are filled with its mean colour.",
    "black": "Areas that enter the image are black.",
}


def quotient(above: Numbers, below: Numbers) -> Numbers:
    """Divide, with NaN where the divisor is not above zero."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan, above.dtype), where=below > 0)
