"""Mined hits as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.projection.crop import Crop
from interpret.backprop.rules import Overlap
from interpret.execution.execution import Execution, full_precision
from interpret.images.sources import Images
from interpret.network.layers import Layout
from interpret.network.model import Model
from interpret.support.errors import InterpretError, unknown
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of


@dataclass
class Hits:
    """Hits of several layers as a table, ordered by item."""

    layers: list[str]
    layer: NDArray[np.int64]
    """[n] indices into `layers`."""
    units: NDArray[np.int64]
    """[n]"""
    ranks: NDArray[np.int64]
    """[n] rank of each hit among its unit's; 0 is the strongest."""
    items: NDArray[np.int64]
    """[n] ascending."""
    positions: NDArray[np.int64]
    """[n, axes]"""
    values: NDArray[np.float64]
    """[n] activations."""
    scales: NDArray[np.float64]
    """[n] the largest absolute value of a hit in the layer."""
    rois: NDArray[np.float32]
    """[n, 4] the boxes of hits of layers that run once a box: top, left, bottom, right in pixels; otherwise NaN."""

    @classmethod
    def of(cls, mined: Mapping[str, Any], names: list[str]) -> Hits:
        """Return the hits of some mined layers."""
        none, whole = np.zeros(0), np.zeros(0, np.int64)
        axes = mined[names[0]].positions.shape[-1] if names else 2
        columns: list[list[NDArray[Any]]] = [
            [whole, whole, whole, whole, np.zeros((0, axes), np.int64), none, none, np.zeros((0, 4), np.float32)]
        ]
        for index, name in enumerate(names):
            found = mined[name]
            units, ranks = np.nonzero(found.images >= 0)
            values = found.values[units, ranks].astype(np.float64)
            rois = boxes_of(found)
            columns.append(
                [
                    np.full(len(units), index),
                    units,
                    ranks,
                    found.images[units, ranks],
                    found.positions[units, ranks],
                    values,
                    # over all mined units, even if only some are projected
                    np.full(len(units), np.abs(found.values[np.isfinite(found.values)]).max(initial=0)),
                    np.full((len(units), 4), np.nan, np.float32) if rois is None else rois[units, ranks],
                ]
            )
        table = cls(names, *(np.concatenate(column) for column in zip(*columns, strict=True)))
        return table[np.argsort(table.items, kind="stable")]

    def __getitem__(self, rows: Any) -> Hits:
        return Hits(
            self.layers,
            self.layer[rows],
            self.units[rows],
            self.ranks[rows],
            self.items[rows],
            self.positions[rows],
            self.values[rows],
            self.scales[rows],
            self.rois[rows],
        )

    def remaining(self, done: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Mark hits that are not done yet."""
        remaining = np.ones(len(self.items), bool)
        for index, name in enumerate(self.layers):
            if name in done:
                own = self.layer == index
                remaining[own] = ~done[name][self.units[own], self.ranks[own]]
        return remaining

    def by_item(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each item with the rows of its hits."""
        starts = np.flatnonzero(np.diff(self.items, prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(self.items)), strict=True):
            yield int(self.items[start]), np.arange(start, end)


@dataclass
class HitBatch:
    """Projections of n hits of one layer, yielded by `project_hits`."""

    layer: str
    units: NDArray[np.int64]
    """[n] the hits' units."""
    ranks: NDArray[np.int64]
    """[n] rank of each hit among its unit's; 0 is the strongest."""
    projections: Tensor
    """[n, C, h, w] the signal in the window that the neuron sees; of layers that run once a box, in the box."""
    patches: Tensor
    """[n, C, h, w] the same window of the network's input."""


Job = Callable[[nn.Module], Iterator[HitBatch]]
"""Projects some hits by a network or a copy of it, in batches, so that each can be drawn before the next is made."""


def finish(
    job: Job, run: Execution, channels: int | None, then: Callable[[HitBatch], Any] | None, module: nn.Module
) -> list[tuple[int, Any]]:
    """Run a job; return of each batch the number of its hits, and what is yielded for it."""
    finished = []
    with full_precision(run.device):
        for batch in job(module):
            own = replace(batch, projections=batch.projections[:, :channels], patches=batch.patches[:, :channels])
            finished.append((len(own.units), own if then is None else then(own)))
    return finished


class ValueMismatch(InterpretError):  # noqa: N818
    """A neuron's activation on an item differs from the one that was mined."""

    def __init__(self, sentence: str, item: int) -> None:
        super().__init__(sentence, item)
        self.item = item

    def __str__(self) -> str:
        return str(self.args[0])


def check_values(name: str, hits: Hits, values: Tensor) -> None:
    """Refuse hits whose activations differ from those that were mined by more than reduced precision explains."""
    found = values.detach().double().cpu().numpy()
    if not np.allclose(found, hits.values, rtol=0.05, atol=0.02 * hits.scales):
        worst = int(np.abs(found - hits.values).argmax())
        raise ValueMismatch(
            f"layer {name!r} gives {found[worst]:.4g} on item {hits.items[worst]} where {hits.values[worst]:.4g} was "
            "mined: project with the model and data that were mined",
            int(hits.items[worst]),
        )


def boxes_of(found: Any) -> NDArray[np.float32] | None:
    """Return the boxes of a mined layer's hits [C, k, 4]; None for a layer that runs once an image."""
    boxes: NDArray[np.float32] | None = getattr(found, "rois", None)
    return boxes


def names_of(mined: Mapping[str, Any], layers: str | Iterable[str] | None) -> list[str]:
    """Return the names of chosen mined layers; None: all.

    Raises:
        InterpretError: a layer that was not mined.
    """
    names = list(mined) if layers is None else [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    for name in names:
        if name not in mined:
            raise unknown("mined layer", name, mined)
    return names


def locate_hits(
    model: Model,
    images: Images,
    mined: Mapping[str, Any],
    layers: str | Iterable[str] | None = None,
    overlap: Overlap = "add",
) -> tuple[Hits, dict[str, Crop], dict[str, Layout]]:
    """Return the mined hits of some layers as a table, the part of an image that must run for each, and layouts."""
    names = names_of(mined, layers)
    last = max((int(mined[name].images.max()) for name in names), default=-1)
    if last < 0:
        return Hits.of(mined, []), {}, {}
    if last >= len(images):
        raise InterpretError(f"data has {len(images)} items, and item {last} was mined: project with the same data")
    shape = tuple(images[last][0].shape)
    traced = trace_on_meta(model.module, shape)
    layers_of = {name: layer_with_units(traced, name, by_box=boxes_of(mined[name]) is not None) for name in names}
    for name, layer in layers_of.items():
        _check_shape(mined[name], layer)
    crops = {name: Crop.of(layer, shape[1:], overlap) for name, layer in layers_of.items()}
    return Hits.of(mined, names), crops, layouts_of(traced, names)


def _check_shape(found: Any, layer: Layer) -> None:
    """Refuse hits of neurons that the layer does not have."""
    axes = found.positions.shape[-1]
    units, *size = layer.output_shape if len(layer.output_shape) > 1 else (*layer.output_shape, *[1] * axes)
    if len(found.images) != units or len(size) != axes or bool((found.positions.max((0, 1)) >= size).any()):
        raise InterpretError(
            f"layer {layer.name!r} has outputs of shape {layer.output_shape}, and hits of another shape were mined: "
            "project with the model and data that were mined"
        )
