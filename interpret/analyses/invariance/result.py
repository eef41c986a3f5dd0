"""What an invariance probe measured: how far features move, and how sure the network stays."""

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
    """Curves of V values of a transform for B images, layer by layer, as `interpret.probe` returns them.

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
    """The values' name and unit."""
    identity: float
    """The value that changes nothing."""
    values: NDArray[np.float64]
    """[V] as they were asked for."""
    distances: dict[str, Numbers]
    """Layer to [B, V]: Euclidean distance between the features of the transformed and the untransformed image."""
    norms: dict[str, Numbers]
    """Layer to [B]: Euclidean norm of the untransformed image's features."""
    unit_distances: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [C, V]: a unit's distances, summed over images, over its norms, summed likewise; NaN where it is
    zero on all of them. Images count by how strongly the unit answers them."""
    equivariance: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [B, V], of a translation: how far the features are from those of the untransformed image moved by
    as much, relative to these; see `interpret.probe`."""
    unit_equivariance: dict[str, Numbers] = field(default_factory=dict)
    """Layer to [C, V]: the same of each unit, summed over images as `unit_distances` is."""
    probabilities: Numbers | None = None
    """[B, V] of the label; NaN for images without one, None where no image has one."""
    labels: NDArray[np.int64] | None = None
    """[B] indices of the network's outputs, −1 where there is none."""
    predicted: bool = False
    """Whether the labels are what the network says of the untransformed image, and not the truth."""
    top: NDArray[np.int64] | None = None
    """[B, V] the network's most probable class; None where its output is no row of classes."""
    filled_fraction: Numbers | None = None
    """[V] mean share of the pixels that come from the fill and not from the photograph."""
    items: NDArray[np.int64] | None = None
    """[B] which of the data the images are."""
    names: list[str] = field(default_factory=list)
    """What the example images show: their labels' names, or what they are called."""
    examples: NDArray[np.uint8] | None = None
    """[n, m, h, w, 3] pictures of the n images `example_rows` at the m values `example_values`."""
    example_rows: NDArray[np.int64] | None = None
    example_values: NDArray[np.float64] | None = None
    direction: str = ""
    """Of a translation."""
    model: str = ""
    data: str = ""
    fill: str = ""
    """What comes into the picture: "context", "reflect", "edge", "mean" or "black"; "" where nothing does."""
    interpolation: str = ""
    """How values between pixels are found."""
    seed: int = 0
    """Of the noise."""
    outputs: str = ""
    """How the network's outputs were read: "softmax", "sigmoid", "probabilities" or "log-probabilities"; "" where they
    are no row of classes."""
    part: str = ""
    """Which of several outputs that was."""
    shown: str = ""
    """The sentence on where the colours of its pictures come from; empty where a preprocessing says so."""

    @property
    def name(self) -> str:
        """What a study calls it: the transform, and which translation it is where it is not the vertical one."""
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
        """Layer to [B, V]: distances over norms; NaN for an image whose features are all zero."""
        return {layer: quotient(far, self.norms[layer][:, None]) for layer, far in self.distances.items()}

    @property
    def areas(self) -> dict[str, Numbers]:
        """Layer to [B]: the area under each image's relative curve, over the range of the values.

        That is the curve's mean height, so that transforms with other units and ranges compare: 0 is invariant.
        """
        return {layer: self._area(curve) for layer, curve in self.relative.items()}

    @property
    def unit_areas(self) -> dict[str, Numbers]:
        """Layer to [C]: the area under each unit's relative curve, over the range of the values."""
        return {layer: self._area(curve) for layer, curve in self.unit_distances.items()}

    @property
    def consistency(self) -> Numbers | None:
        """[B]: of all pairs of two values, the share at which the network gives the same most probable class.

        Source: Zhang, "Making convolutional networks shift-invariant again", 2019, section 4, which draws pairs of
        diagonal shifts at random; here are all pairs of the values, and of whatever transform it is.
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
        """Return a layer's units from the most to the least invariant; those that are always zero are left out.

        Raises:
            InterpretError: a layer that was not probed.
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
        """Return a row for each layer, image and value: distance, relative, and where known the last two.

        These are equivariance, and the probability of the image's label, which is the same for all layers.
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
            parts.append(f"That is at most {self.filled_fraction.max():.0%} of the pixels, at one value.")
        return " ".join(part for part in [*parts, self.shown] if part)

    def _area(self, curves: Numbers) -> Numbers:
        """Return the areas under curves [n, V] over the range of the values; the mean where that is nothing."""
        order = np.argsort(self.values, kind="stable")
        values, curves = self.values[order], curves[:, order]
        width = values[-1] - values[0]
        return np.trapezoid(curves, values, axis=1) / width if width > 0 else curves.mean(1)


_FILLS = {
    "context": "What comes into the picture is what lies around it in the photograph, and beyond that its reflection.",
    "reflect": "What comes into the picture is its reflection.",
    "edge": "What comes into the picture is the colour of its edge.",
    "mean": "What comes into the picture is its mean colour.",
    "black": "What comes into the picture is black.",
}


def quotient(above: Numbers, below: Numbers) -> Numbers:
    """Divide, with NaN for what is divided by zero."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan, above.dtype), where=below > 0)
