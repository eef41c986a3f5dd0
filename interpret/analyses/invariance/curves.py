"""Accumulate the invariance curves job by job."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.analyses.invariance.batch_distances import BatchDistances, ClassAnswers, LayerDistances
from interpret.analyses.invariance.prober import Prober
from interpret.analyses.invariance.result import InvarianceCurves, quotient
from interpret.execution.resume import pack, unpack
from interpret.images.sources import Images


class CurveAccumulator:
    """Collects the curves from the measurements of jobs; the jobs of a group of images arrive one after the other."""

    BY_IMAGE = ("seen", "labels", "probabilities", "top", "filled_fraction")
    BY_LAYER = ("distances", "norms", "equivariance", "unit_distances", "unit_norms", "unit_shifted")

    def __init__(self, prober: Prober, images: Images, group: int, jobs: int) -> None:
        self.prober, self.images = prober, images
        self.group, self.jobs = group, jobs
        """The number of images per group, and the number of jobs per group."""
        self.first = 0
        """The first image of the first group."""
        self.seen_items = 0
        """The next image: one past the last complete group."""
        self._waiting: list[BatchDistances] = []
        self.seen = np.zeros(len(images), bool)
        shape, layers = (len(images), len(prober.values)), prober.layers
        self.identities = [column for column, value in enumerate(prober.values) if prober.change.is_identity(value)]
        """The columns of values that change nothing."""
        self.distances = {name: np.zeros(shape, prober.kind) for name in layers}
        self.norms = {name: np.zeros(len(images), prober.kind) for name in layers}
        self.equivariance = {name: np.zeros(shape, prober.kind) for name in prober.strides}
        # per unit, sums over the images
        self.unit_distances: dict[str, NDArray[np.float64]] = {}
        self.unit_norms: dict[str, NDArray[np.float64]] = {}
        self.unit_shifted: dict[str, NDArray[np.float64]] = {}
        self.labels = np.full(len(images), -1, np.int64)
        self.probabilities = np.full(shape, np.nan, prober.kind)
        self.top = np.zeros(shape, np.int64)
        self.filled_fraction = np.zeros(shape)

    def update(self, found: BatchDistances) -> None:
        """Add the measurements of a job, once all jobs of its group have arrived: groups are added only completely."""
        self._waiting.append(found)
        if len(self._waiting) == self.jobs:
            for one in self._waiting:
                self._add(one)
            self._waiting = []
            groups = (found.rows[-1] - self.first) // self.group + 1
            self.seen_items = min(self.first + groups * self.group, len(self.images))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors, for `load_state_dict`; empty before the first group."""
        if not self.seen_items:
            return {}
        arrays = {key: getattr(self, key) for key in self.BY_IMAGE}
        arrays |= {f"{key}/{name}": array for key in self.BY_LAYER for name, array in getattr(self, key).items()}
        state = {key: torch.tensor(array) for key, array in arrays.items()}
        return state | {"seen_items": torch.tensor(self.seen_items), "skipped": pack(self.images.skipped)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the state of an accumulator with the same model, data and settings."""
        if not state:
            return
        self.first = self.seen_items = int(state["seen_items"])
        self.images.skipped.update(unpack(state["skipped"]))
        for key in self.BY_IMAGE:
            setattr(self, key, state[key].numpy().copy())
        for key, tensor in state.items():
            kind, of_layer, name = key.partition("/")
            if of_layer:
                getattr(self, kind)[name] = tensor.numpy().copy()

    def _add(self, found: BatchDistances) -> None:
        first = not self.seen[found.rows[0]]
        self.seen[found.rows] = True
        self.filled_fraction[np.ix_(found.rows, found.columns)] = found.filled_fraction
        for name in self.prober.layers:
            self._add_layer(name, found.layers[name], found.rows, found.columns, first)
        if found.classes is not None:
            self._add_classes(found.classes, found.rows, found.columns)

    def _add_layer(self, name: str, found: LayerDistances, rows: list[int], columns: list[int], first: bool) -> None:
        """Add a layer's distances; add norms only with the first job of a group, since all its jobs measure them."""
        places, count = np.ix_(rows, columns), len(self.prober.values)
        self.distances[name][places] = found.distances
        units = self.unit_distances.setdefault(name, np.zeros((len(found.unit_norms), count)))
        units[:, columns] += found.unit_distances
        if first:
            self.norms[name][rows] = found.norms
            self.unit_norms[name] = self.unit_norms.get(name, 0) + found.unit_norms
        if found.shifted is not None and found.unit_shifted is not None:
            self.equivariance[name][places] = quotient(*found.shifted)
            at_identity = np.where(self.norms[name][rows] > 0, 0, np.nan)
            self.equivariance[name][np.ix_(rows, self.identities)] = at_identity[:, None]
            shifted = self.unit_shifted.setdefault(name, np.zeros((2, len(units), count)))
            shifted[:, :, columns] += found.unit_shifted

    def _add_classes(self, found: ClassAnswers, rows: list[int], columns: list[int]) -> None:
        """Add the network's predictions; at identity values, those for the untransformed images."""
        self.labels[rows] = found.labels
        sources = [*([0] * len(self.identities)), *range(1, found.top.shape[1])]
        places = np.ix_(rows, self.identities + columns)
        self.top[places] = found.top[:, sources]
        self.probabilities[places] = found.probabilities[:, sources]

    def result(self) -> InvarianceCurves:
        """Return the curves of all images added so far."""
        change, rows = self.prober.change, np.flatnonzero(self.seen).tolist()
        has_classes = self.prober.reading is not None
        has_labels = has_classes and bool((self.labels[rows] >= 0).any())
        result = InvarianceCurves(
            change.name,
            change.axis,
            change.identity,
            self.prober.values,
            distances={name: curves[rows] for name, curves in self.distances.items()},
            norms={name: lengths[rows] for name, lengths in self.norms.items()},
            unit_distances={
                name: quotient(self.unit_distances[name], self.unit_norms[name][:, None]).astype(self.prober.kind)
                for name in self.prober.layers
            },
            equivariance={name: errors[rows] for name, errors in self.equivariance.items()},
            probabilities=self.probabilities[rows] if has_labels else None,
            labels=self.labels[rows] if has_labels else None,
            top=self.top[rows] if has_classes else None,
            # bilinear weights sum to 1 only up to rounding
            filled_fraction=self.filled_fraction[rows].mean(0).round(6),
            items=np.array([self.prober.items[row] for row in rows], np.int64),
        )
        for name in [name for name in self.prober.strides if name in self.unit_shifted]:
            errors = quotient(*self.unit_shifted[name])
            errors[:, self.identities] = np.where(self.unit_norms[name] > 0, 0, np.nan)[:, None]
            result.unit_equivariance[name] = errors.astype(self.prober.kind)
        return result
