"""The result of `interpret.predict`: the most probable classes of images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interpret.network.readings import in_words
from interpret.results.result import Result, crossed
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Predictions(Result):
    """The k most probable classes of N images."""

    kind = "predictions"
    drawn_by = "interpret.analyses.predictions.figure:plot_predictions"
    shows_images = True
    format_version = 2  # version 1 kept the names as a list in the file's header, which has no room for a million

    model: str
    data: str
    names: list[str]
    """Names of the images."""
    pictures: NDArray[np.uint8]
    """[n, h, w, 3] the network's inputs as pictures, of the first n ≤ 64 images."""
    top: NDArray[np.int64]
    """[N, k] the most probable classes, most probable first."""
    probabilities: NDArray[np.float64]
    """[N, k] their probabilities, 0 to 1."""
    truth: NDArray[np.int64]
    """[N] the true class; −1 if unknown."""
    true_probabilities: NDArray[np.float64]
    """[N] the probability of the true class; NaN if unknown."""
    classes: list[str] | None
    """Names of the classes; None: their numbers."""
    outputs: str = ""
    """How outputs became probabilities: "softmax", "sigmoid", "probabilities" or "log-probabilities"."""
    part: str = ""
    """Which output was used, if the network has several."""
    sources: NDArray[np.int64] | None = None
    """[N] the source that each image was taken from; None in a result of an older version."""
    class_count: int | None = None
    """Number of the network's classes."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    def _stored_fields(self) -> dict[str, Any]:
        names = json.dumps(self.names).encode()
        return super()._stored_fields() | {"names": np.frombuffer(names, np.uint8)}

    @classmethod
    def _from_stored(cls, kept: dict[str, Any]) -> Self:
        names = kept["names"]
        return cls(**kept | {"names": names if isinstance(names, list) else json.loads(names.tobytes())})

    def class_name(self, label: int) -> str:
        """Return the name of a class."""
        return str(label) if self.classes is None else self.classes[label]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """[N] whether the true class is among the k."""
        return (self.top == self.truth[:, None]).any(1) & (self.truth >= 0)

    @property
    def title(self) -> str:
        return f"Predictions of {self.model}"

    @property
    def extent(self) -> str:
        return f"{count(len(self.names), 'image')}, {self.top.shape[1]} classes each"

    def columns(self) -> dict[str, Any]:
        """Return one row per image and rank: name, class, probability, truth ("" where it is not known)."""
        columns = crossed(image=range(len(self.names)), rank=range(self.top.shape[1]))
        truth = [self.class_name(label) if label >= 0 else "" for label in self.truth.tolist()]
        return columns | {
            "name": np.array(self.names, object)[columns["image"]],
            "class": np.array([self.class_name(label) for label in self.top.ravel().tolist()], object),
            "probability": self.probabilities.ravel(),
            "truth": np.array(truth, object)[columns["image"]],
        }

    @property
    def reading(self) -> str:
        known = int((self.truth >= 0).sum())
        accuracy = (
            f" The right one is marked; of {count(known, 'image')} whose class is known, it comes first in "
            f"{int((self.top[:, 0] == self.truth)[self.truth >= 0].sum())} and is among them in {int(self.hits.sum())}."
        )
        return (
            f"Images of {self.data}, each with the {self.top.shape[1]} classes that {self.model} finds most probable; "
            f"bars are probabilities from 0 to 1. {in_words(self.outputs, self.part)}{accuracy if known else ''}"
            f"{self.shown and ' ' + self.shown}"
        )
