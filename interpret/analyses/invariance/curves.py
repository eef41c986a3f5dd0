"""Accumulate the invariance curves job by job."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.analyses.invariance.batch_distances import BatchDistances, ClassAnswers, LayerDistances
from interpret.analyses.invariance.prober import Prober
from interpret.analyses.invariance.result import InvarianceCurves, quotient
from interpret.execution.exact_sums import ExactSums
from interpret.execution.ranks import State
from interpret.execution.reading import merge_read
from interpret.execution.resume import below
from interpret.images.sources import Images


class CurveAccumulator:
    """Collects the curves from the measurements of jobs; the jobs of a group of images arrive one after the other."""

    BY_IMAGE = ("seen", "labels", "probabilities", "top", "filled_fraction")
    BY_IMAGE_AND_LAYER = ("distances", "norms", "equivariance")
    SUMS = ("unit_distances", "unit_norms", "unit_shifted")

    def __init__(self, prober: Prober, images: Images, jobs: int) -> None:
        self.prober, self.images = prober, images
        self.jobs = jobs
        """The number of jobs per group of images."""
        self._waiting: list[BatchDistances] = []
        self.seen = np.zeros(len(images), bool)
        shape, layers = (len(images), len(prober.values)), prober.layers
        self.identities = [column for column, value in enumerate(prober.values) if prober.change.is_identity(value)]
        """The columns of values that change nothing."""
        self.distances = {name: np.zeros(shape, prober.kind) for name in layers}
        self.norms = {name: np.zeros(len(images), prober.kind) for name in layers}
        self.equivariance = {name: np.zeros(shape, prober.kind) for name in prober.strides}
        # per unit, sums over the images
        self.unit_distances: dict[str, ExactSums] = {}
        self.unit_norms: dict[str, ExactSums] = {}
        self.unit_shifted: dict[str, ExactSums] = {}
        self.labels = np.full(len(images), -1, np.int64)
        self.probabilities = np.full(shape, np.nan, prober.kind)
        self.top = np.zeros(shape, np.int64)
        self.filled_fraction = np.zeros(shape)

    def update(self, found: BatchDistances) -> bool:
        """Add the measurements of a job, once all jobs of its group have arrived, and return whether they have."""
        self._waiting.append(found)
        if len(self._waiting) < self.jobs:
            return False
        for one in self._waiting:
            self._add(one)
        self._waiting = []
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors, for `load_state_dict`."""
        arrays = {f"image/{key}": getattr(self, key) for key in self.BY_IMAGE}
        for key in self.BY_IMAGE_AND_LAYER:
            arrays |= {f"image/{key}/{name}": array for name, array in getattr(self, key).items()}
        state = {key: torch.tensor(array) for key, array in arrays.items()}
        for key in self.SUMS:
            for name, sums in getattr(self, key).items():
                state |= {f"sum/{key}/{name}/{part}": value for part, value in sums.state_dict().items()}
        return state

    def load_state_dict(self, state: State) -> None:
        """Load the state of an accumulator with the same model, data and settings."""
        for key, tensor in below("image/", state).items():
            name, of_layer, layer = key.partition("/")
            if of_layer:
                getattr(self, name)[layer] = tensor.numpy().copy()
            else:
                setattr(self, name, tensor.numpy().copy())
        for key, sums in _sums(state).items():
            name, _, layer = key.partition("/")
            getattr(self, name)[layer] = sums

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
        units = len(found.unit_norms)

        def add(sums: dict[str, ExactSums], terms: NDArray[np.float64]) -> None:
            own = sums.setdefault(name, ExactSums(*terms.shape[:-1], count))
            every = np.zeros((*terms.shape[:-1], count))
            every[..., columns] = terms
            own.add(torch.from_numpy(every))

        add(self.unit_distances, found.unit_distances)
        if first:
            self.norms[name][rows] = found.norms
            self.unit_norms.setdefault(name, ExactSums(units)).add(torch.from_numpy(found.unit_norms))
        if found.shifted is not None and found.unit_shifted is not None:
            self.equivariance[name][places] = quotient(*found.shifted)
            at_identity = np.where(self.norms[name][rows] > 0, 0, np.nan)
            self.equivariance[name][np.ix_(rows, self.identities)] = at_identity[:, None]
            add(self.unit_shifted, found.unit_shifted)

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
                name: quotient(_value(self.unit_distances[name]), _value(self.unit_norms[name])[:, None]).astype(
                    self.prober.kind
                )
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
            errors = quotient(*_value(self.unit_shifted[name]))
            errors[:, self.identities] = np.where(_value(self.unit_norms[name]) > 0, 0, np.nan)[:, None]
            result.unit_equivariance[name] = errors.astype(self.prober.kind)
        return result


def merge_curves(first: State, second: State) -> dict[str, Tensor]:
    """Merge the states of two accumulators of one probe, which have seen different images."""
    if not first or not second:
        return dict(first or second)
    merged = merge_read(first, second)
    seen = second["image/seen"]
    for key, value in below("image/", first).items():
        merged[f"image/{key}"] = whole = value.clone()
        whole[seen] = second[f"image/{key}"][seen]
    both = _sums(first)
    for key, sums in _sums(second).items():  # one that has seen no image that decodes has no sums
        if key in both:
            both[key].merge(sums)
        else:
            both[key] = sums
    for key, sums in both.items():
        merged |= {f"sum/{key}/{part}": value for part, value in sums.state_dict().items()}
    return merged


def _sums(state: State) -> dict[str, ExactSums]:
    """Return the sums in a state, by what they are of and layer."""
    found: dict[str, ExactSums] = {}
    for key in below("sum/", state):
        if key.endswith("/digits"):
            name = key.removesuffix("/digits")
            found[name] = ExactSums()
            found[name].load_state_dict(below(f"sum/{name}/", state))
    return found


def _value(sums: ExactSums) -> NDArray[np.float64]:
    return sums.value().numpy()
