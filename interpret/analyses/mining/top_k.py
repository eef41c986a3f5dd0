"""The k strongest hits of each unit, updated batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNFILLED = {"values": -np.inf, "images": -1, "sources": -1, "positions": 0, "boxes": np.nan}
"""The values of missing entries of a unit with fewer than k hits."""


@dataclass
class Candidates:
    """Activations of a batch that may become hits: n of them, sorted by unit, then by row."""

    units: NDArray[np.int64]
    """[n]"""
    rows: NDArray[np.int64]
    """[n] indices of the images in the batch."""
    values: NDArray[np.float64]
    """[n]"""
    positions: NDArray[np.int64]
    """[n, 2] rows and columns in the feature map; [n, axes] for inputs with other axes."""
    boxes: NDArray[np.float32] | None = None
    """[n, 4] the boxes, where layers run once a box; NaN for other layers. None, or [n, 0]: no layer does."""


class TopK:
    """The k strongest hits so far of each of C units, from distinct sources.

    >>> hits = TopK(units=1, k=2)
    >>> found = Candidates(np.zeros(3, int), np.arange(3), np.array([5.0, 7.0, 6.0]), np.zeros((3, 2), int))
    >>> hits.update(found, items=np.array([10, 11, 12]), sources=np.array([0, 1, 1]))  # the last two of one photograph
    >>> hits.values, hits.images
    (array([[7., 5.]]), array([[11, 10]]))
    """

    STATE = tuple(UNFILLED)

    def __init__(self, units: int, k: int, axes: int = 2, by_box: bool = False) -> None:
        self.k = k
        self.values = np.full((units, k), UNFILLED["values"], np.float64)
        self.images = np.full((units, k), UNFILLED["images"], np.int64)
        self.sources = np.full((units, k), UNFILLED["sources"], np.int64)
        self.positions = np.full((units, k, axes), UNFILLED["positions"], np.int64)
        self.boxes = np.full((units, k, 4 if by_box else 0), UNFILLED["boxes"], np.float32)
        self.threshold = torch.full((units,), -torch.inf, dtype=torch.float64)
        """[C] each unit's k-th value; a candidate must exceed it to become a hit."""

    def update(self, found: Candidates, items: NDArray[np.int64], sources: NDArray[np.int64]) -> None:
        """Add the candidates of a batch, with its items [B] and their sources [B]; items ascend from batch to batch."""
        touched, starts, counts = np.unique(found.units, return_index=True, return_counts=True)
        if not len(touched):
            return
        # one row per unit with candidates: its hits so far, then its candidates in the order of their images
        place = np.repeat(np.arange(len(touched)), counts), self.k + np.arange(counts.sum()) - np.repeat(starts, counts)
        new = {
            "values": found.values,
            "images": items[found.rows],
            "sources": sources[found.rows],
            "positions": found.positions,
            "boxes": np.zeros((len(found.units), 0), np.float32) if found.boxes is None else found.boxes,
        }
        hits = {key: self._with_room(key, touched, int(counts.max())) for key in self.STATE}
        for key, values in new.items():
            hits[key][place] = values
        # Sort strongest first; the sort is stable, so the earlier of equals comes first. Each source counts once.
        order = np.argsort(-hits["values"], 1, kind="stable")
        repeated = mark_repeated(np.take_along_axis(hits["sources"], order, 1))
        kept = np.argsort(repeated, 1, kind="stable")[:, : self.k]
        rows = np.arange(len(touched))[:, None]
        best = rows, order[rows, kept]
        gone = repeated[rows, kept]
        for key in self.STATE:
            own = getattr(self, key)
            own[touched] = np.where(gone.reshape(*gone.shape, *[1] * (own.ndim - 2)), UNFILLED[key], hits[key][best])
        self.threshold = torch.from_numpy(self.values[:, -1].copy())

    def merge(self, other: TopK) -> None:
        """Add the hits of other images; of equal values, that of the lower item is the stronger."""
        both = {key: np.concatenate([getattr(self, key), getattr(other, key)], 1) for key in self.STATE}
        order = np.lexsort((both["images"], -both["values"]), 1)
        repeated = mark_repeated(np.take_along_axis(both["sources"], order, 1))
        # sort those that repeat a source behind the others, in their order
        kept = np.take_along_axis(order, np.argsort(repeated, 1, kind="stable"), 1)[:, : self.k]
        gone = np.sort(repeated, 1)[:, : self.k]
        rows = np.arange(len(order))[:, None]
        for key in self.STATE:
            found = both[key][rows, kept]
            found[gone] = UNFILLED[key]
            setattr(self, key, found)
        self.threshold = torch.from_numpy(self.values[:, -1].copy())

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> TopK:
        """Return the hits of a `state_dict`."""
        new = cls(*state["values"].shape)
        new.load_state_dict(state)
        return new

    def _with_room(self, key: str, units: NDArray[np.int64], room: int) -> NDArray[Any]:
        """Return one array for some units, [n, k + room, …], with unfilled entries at the end."""
        own = getattr(self, key)[units]
        return np.concatenate([own, np.full((len(own), room, *own.shape[2:]), UNFILLED[key], own.dtype)], 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all arrays as tensors, for `load_state_dict`."""
        return {name: torch.tensor(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors from `state_dict`."""
        for name in self.STATE:
            setattr(self, name, state[name].numpy().copy())
        self.threshold = torch.from_numpy(self.values[:, -1].copy())


def mark_repeated(sources: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark entries that repeat an earlier one in the row; −1 stands for no source and is never a repetition.

    >>> mark_repeated(np.array([[3, 5, 3, -1, -1]]))
    array([[False, False,  True, False, False]])
    """
    order = np.argsort(sources, 1, kind="stable")
    ascending = np.take_along_axis(sources, order, 1)
    repeated = np.zeros(sources.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], (ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0), 1)
    return repeated
