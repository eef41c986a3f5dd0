"""The result of `interpret.occlude`: outputs and activations for each place of the occluder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from interpret.network.readings import in_words
from interpret.results.result import Result, crossed
from interpret.support.wording import count, elements


@dataclass(repr=False, eq=False)
class Occlusion(Result):
    """The network's outputs for B images as an occluder moves over R rows and K columns of places.

    Activations have the network's type.
    """

    kind: ClassVar[str] = "occlusion"
    drawn_by = "interpret.analyses.occlusion.figure:plot_occlusion"
    shows_images = True

    tops: NDArray[np.int64]
    """[R] top of the occluder at each place, in pixels."""
    lefts: NDArray[np.int64]
    """[K] left of the occluder at each place, in pixels."""
    size: list[int]
    """(height, width) of the occluder, which may extend beyond the far borders of the image."""
    labels: NDArray[np.int64]
    """[B] the class whose probability is measured: the true one, or the most probable one without the occluder."""
    probabilities: NDArray[np.floating[Any]]
    """[B, R, K] the probability of that class, 0 to 1."""
    clean_probabilities: NDArray[np.floating[Any]]
    """[B] without the occluder."""
    predictions: NDArray[np.int64]
    """[B, R, K] the most probable class."""
    clean_predictions: NDArray[np.int64]
    """[B] without the occluder."""
    layer: str | None
    """The layer whose strongest feature map is measured; None, like all fields about it, if none is."""
    channels: NDArray[np.int64] | None
    """[B] the measured map: the one with the largest sum without the occluder, or the given one."""
    activations: NDArray[np.floating[Any]] | None
    """[B, R, K] the map's activations above zero, summed over positions."""
    clean_activations: NDArray[np.floating[Any]] | None
    """[B] without the occluder."""
    pictures: NDArray[np.uint8]
    """[B, H, W, 3] the images."""
    projections: NDArray[np.uint8] | None
    """[B, H, W, 3] projection of the map's strongest neuron, with the contrast of `display.contrast`."""
    others: dict[str, NDArray[np.uint8]]
    """Image index "0", "1" … to projections [n, h, w, 3] of its map in other images, strongest first; if there are."""
    classes: list[str] | None
    """Names of the classes; None if unknown."""
    model: str
    settings: dict[str, Any]
    predicted: bool = False
    """Whether the labels are the network's predictions without the occluder."""
    outputs: str = ""
    """How outputs became probabilities: "softmax", "sigmoid", "probabilities" or "log-probabilities"."""
    part: str = ""
    """Which output was used, if the network has several."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    sides: list[int] | None = None
    """Height and width of the images in pixels; of signals 1 and their length. None: those of the pictures."""
    axes: int = 2
    """The number of axes of the inputs: signals are hidden for some time, volumes in every slice."""

    @property
    def size_of_images(self) -> tuple[int, int]:
        """Height and width in pixels of what is hidden."""
        height, width = self.sides or self.pictures.shape[1:3]
        return height, width

    @property
    def hidden(self) -> str:
        """What hides a part of the input, in words."""
        height, width = self.size
        square = f"square of {height} × {width} {elements(self.axes)}"
        return {1: f"stretch of {width} samples", 2: square, 3: f"{square} in every slice"}[self.axes]

    @property
    def title(self) -> str:
        # a study keeps one result per measured layer
        losers = "the network loses" if self.layer is None else f"the network and {self.layer} lose"
        return f"What {losers} where a {'square' if self.axes == 2 else 'part'} is hidden"

    @property
    def extent(self) -> str:
        _, rows, columns = self.probabilities.shape
        return f"{count(len(self.labels), 'image')}, {rows} × {columns} places"

    def columns(self) -> dict[str, Any]:
        """Return one row per image and place: top, left, label, probability, lost, prediction, and activation.

        `lost` is the probability without the occluder minus that with it.
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
        followed = f"the summed activation of the feature map of {self.layer} that is strongest without it, "
        which = "class that is most probable without it" if self.predicted else "true class"
        projected = "The projections show which pixels activate the same feature map, in this image and in others. "
        return (
            f"A {self.settings['fill']} {self.hidden} hides a part of the image, and the network "
            f"runs again. Each map shows at the square's position what was measured with the square there: "
            f"{followed if self.layer else ''}the probability of the {which}, and the most probable class. "
            f"Where a map is dark, the network needs what the square hides. {in_words(self.outputs, self.part)} "
            f"{projected if self.layer else ''}"
            f"Measured on {len(self.labels)} image{'s' * (len(self.labels) > 1)} with {self.model}, after Zeiler & "
            f"Fergus 2014, Fig. 7.{self.shown and ' ' + self.shown}"
        )

    def class_name(self, label: int) -> str:
        """Return the name of a class."""
        return self.classes[label] if self.classes and label < len(self.classes) else f"class {label}"

    def attributions(self) -> NDArray[np.float64]:
        """Return each pixel's loss of probability, averaged over the occluders that cover it, [B, H, W].

        It equals the result of `captum.attr.Occlusion` for the probability of the class.
        """
        count, (height, width) = len(self.pictures), self.size_of_images
        sums, hidden = np.zeros((count, height, width)), np.zeros((height, width))
        lost = self.clean_probabilities[:, None, None].astype(np.float64) - self.probabilities
        for row, top in enumerate(self.tops.tolist()):
            for column, left in enumerate(self.lefts.tolist()):
                part = slice(top, top + self.size[0]), slice(left, left + self.size[1])
                sums[:, *part] += lost[:, row, column, None, None]
                hidden[part] += 1
        return sums / np.maximum(hidden, 1)
