"""The result of `interpret.find_neighbours`: the nearest images in feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result, crossed
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class Neighbours(Result):
    """The k images whose features at a layer are nearest to those of each of Q queries."""

    kind = "neighbours"
    drawn_by = "interpret.analyses.neighbours.figure:plot_neighbours"
    shows_images = True

    model: str
    data: str
    searched: int
    """Number of images that were compared with each query."""
    layer: str
    averaged: bool
    """Whether features are means over positions."""
    metric: str
    """"euclidean" or "cosine"."""
    query_names: list[str]
    query_pictures: NDArray[np.uint8]
    """[q, h, w, 3] pictures of the first q ≤ 64 queries."""
    query_labels: NDArray[np.int64]
    """[Q] −1 if unknown."""
    items: NDArray[np.int64]
    """[Q, k] items of the data, nearest first."""
    distances: NDArray[np.float64]
    """[Q, k] in units of activation; for "cosine", 1 − cos, from 0 to 2."""
    pictures: NDArray[np.uint8]
    """[q, k, h, w, 3] pictures of the neighbours of the first q ≤ 64 queries."""
    names: list[list[str]]
    """Names of the neighbours' sources."""
    labels: NDArray[np.int64]
    """[Q, k] −1 if unknown."""
    classes: list[str] | None
    """Names of the data's classes; None if unknown."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    def label_name(self, label: int) -> str:
        """Return the name of a label, or "" if it is unknown."""
        if label < 0:
            return ""
        return str(label) if self.classes is None else self.classes[label]

    @property
    def title(self) -> str:
        return f"Nearest images at {self.layer} of {self.model}"

    @property
    def extent(self) -> str:
        queries = f"{len(self.items):,} quer{'y' if len(self.items) == 1 else 'ies'}"
        return f"{queries}, {self.items.shape[1]} of {count(self.searched, 'image')} each"

    def columns(self) -> dict[str, Any]:
        """Return one row per query and rank: query_name, item, name, label, distance."""
        columns = crossed(query=range(len(self.items)), rank=range(self.items.shape[1]))
        return columns | {
            "query_name": np.array(self.query_names, object)[columns["query"]],
            "item": self.items.ravel(),
            "name": np.array([name for names in self.names for name in names], object),
            "label": np.array([self.label_name(label) for label in self.labels.ravel().tolist()], object),
            "distance": self.distances.ravel(),
        }

    @property
    def reading(self) -> str:
        features = f"{self.layer}'s features" + (" averaged over positions" if self.averaged else "")
        measure = "Euclidean distance" if self.metric == "euclidean" else "cosine distance, 1 − cos,"
        return (
            f"Each row is a query, framed, and the {self.items.shape[1]} of {count(self.searched, 'image')} of "
            f"{self.data} whose {features} are nearest to its own, nearest first, at most one of a source; below each, "
            f"the {measure} between the features. Images far apart in pixels that come out near are alike to the "
            "network."
            f"{self.shown and ' ' + self.shown}"
        )
