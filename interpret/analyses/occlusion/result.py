"""What an occluder hides from a network, as `interpret.occlude` measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from interpret.network.readings import in_words
from interpret.results.result import Result, crossed
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Occlusion(Result):
    """What B images' outputs become as an occluder moves over R rows and K columns of places.

    Activations keep the network's type.
    """

    kind: ClassVar[str] = "occlusion"
    drawn_by = "interpret.analyses.occlusion.figure:plot_occlusion"
    shows_images = True

    tops: NDArray[np.int64]
    """[R] first row of the occluder at each place, in pixels."""
    lefts: NDArray[np.int64]
    """[K] first column."""
    size: list[int]
    """(height, width) of the occluder; at the far borders of the image it sticks out."""
    labels: NDArray[np.int64]
    """[B] the class whose probability is followed: the true one, or the most probable one without the occluder."""
    probabilities: NDArray[np.floating[Any]]
    """[B, R, K] that class's probability, 0 to 1."""
    clean_probabilities: NDArray[np.floating[Any]]
    """[B] without the occluder."""
    predictions: NDArray[np.int64]
    """[B, R, K] the most probable class."""
    clean_predictions: NDArray[np.int64]
    """[B] without the occluder."""
    layer: str | None
    """The layer whose strongest feature map is followed; None, as in all that tells of it, where none is."""
    channels: NDArray[np.int64] | None
    """[B] that map: the one with the largest sum without the occluder, or the one asked for."""
    activations: NDArray[np.floating[Any]] | None
    """[B, R, K] the map's activations above zero, summed over positions."""
    clean_activations: NDArray[np.floating[Any]] | None
    """[B] without the occluder."""
    pictures: NDArray[np.uint8]
    """[B, H, W, 3] the images."""
    projections: NDArray[np.uint8] | None
    """[B, H, W, 3] the map's strongest neuron, projected into the whole image; contrast as in `display.contrast`."""
    others: dict[str, NDArray[np.uint8]]
    """Of image "0", "1" …, projections [n, h, w, 3] of its map in other images, strongest first; those that exist."""
    classes: list[str] | None
    """The classes' names, where they are known."""
    model: str
    settings: dict[str, Any]
    predicted: bool = False
    """Whether the labels are what the network says of the image without the occluder."""
    outputs: str = ""
    """How the network's outputs were read: "softmax", "sigmoid", "probabilities" or "log-probabilities"."""
    part: str = ""
    """Which of several outputs that was."""
    shown: str = ""
    """The sentence on where the colours of its pictures come from; empty where a preprocessing says so."""

    @property
    def title(self) -> str:
        # a study keeps one for each layer that was followed
        losers = "the network loses" if self.layer is None else f"the network and {self.layer} lose"
        return f"What {losers} where a square is hidden"

    @property
    def extent(self) -> str:
        _, rows, columns = self.probabilities.shape
        return f"{count(len(self.labels), 'image')}, {rows} × {columns} places"

    def columns(self) -> dict[str, Any]:
        """Return a row for each image and place: top, left, label, probability, lost, prediction, and activation.

        `lost` is how far the probability lies below that without the occluder.
        """
        columns = crossed(image=range(len(self.labels)), top=self.tops, left=self.lefts)
        image = columns["image"]
        columns |= {
            "label": np.array([self.class_name(label) for label in self.labels.tolist()], object)[image],
            "probability": self.probabilities.ravel(),
            "lost": self.clean_probabilities[image] - self.probabilities.ravel(),
            "prediction": np.array([self.class_name(one) for one in self.predictions.ravel().tolist()], object),
        }
        return columns if self.activations is None else columns | {"activation": self.activations.ravel()}

    @property
    def reading(self) -> str:
        height, width = self.size
        followed = f"the summed activation of the feature map of {self.layer} that is strongest without it, "
        which = "class that is most probable without it" if self.predicted else "true class"
        projected = "The projections show what in this image, and in others, the same feature map answers to. "
        return (
            f"A {self.settings['fill']} square of {height} × {width} pixels hides a part of the image, and the network "
            f"answers again. Each map shows at the square's place what was measured with the square there: "
            f"{followed if self.layer else ''}the probability of the {which}, and the most probable class. "
            f"Where a map is dark, the network needs what the square hides. {in_words(self.outputs, self.part)} "
            f"{projected if self.layer else ''}"
            f"Measured on {len(self.labels)} image{'s' * (len(self.labels) > 1)} with {self.model}, after Zeiler & "
            f"Fergus 2014, Fig. 7.{self.shown and ' ' + self.shown}"
        )

    def class_name(self, label: int) -> str:
        """Return what a class is called."""
        return self.classes[label] if self.classes and label < len(self.classes) else f"class {label}"

    def attributions(self) -> NDArray[np.float64]:
        """Return each pixel's mean loss of probability over the occluders that hide it, [B, H, W].

        That is what `captum.attr.Occlusion` returns for the class's probability.
        """
        count, height, width = self.pictures.shape[:3]
        sums, hidden = np.zeros((count, height, width)), np.zeros((height, width))
        lost = self.clean_probabilities[:, None, None].astype(np.float64) - self.probabilities
        for row, top in enumerate(self.tops.tolist()):
            for column, left in enumerate(self.lefts.tolist()):
                part = slice(top, top + self.size[0]), slice(left, left + self.size[1])
                sums[:, *part] += lost[:, row, column, None, None]
                hidden[part] += 1
        return sums / np.maximum(hidden, 1)
