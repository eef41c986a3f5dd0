"""The plan of a probe: layers, values of the transform, and jobs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.invariance.feature_distances import Shift
from interpret.analyses.invariance.transforms import Box, Levels, Scene, Transform, Translation
from interpret.execution.parallel import MOST_WORKERS, images_at_once
from interpret.network.answers import NoScores, Reading, check_class_names, find_reading
from interpret.network.model import Model
from interpret.network.modes import frozen
from interpret.support.errors import refuse_below_one
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of, select_traced, trace

VALUES_AT_ONCE = 32
"""Largest number of values per job. Jobs run in parallel, and each also runs the untransformed images."""


class Prober:
    """The layers and the values of the transform to probe, and their division into jobs."""

    def __init__(
        self,
        model: Model,
        first: Tensor,
        change: Transform,
        values: NDArray[np.float64],
        layers: str | Iterable[str] | None,
        levels: Levels,
        box: Box,
        items: Sequence[int],
        seed: int,
        shape: Sequence[int] | None = None,
    ) -> None:
        """Prepare a probe.

        Of signals and volumes, `model` and `first` are as `interpret.images.folded` makes them of inputs of a `shape`.
        """
        self.change, self.values, self.levels, self.seed = change, values, levels, seed
        self.box, self.items = box, items
        self.size = (first.shape[1], first.shape[2])
        self.kind: Any = np.float64 if first.dtype == torch.float64 else np.float32
        shape = first.shape if shape is None else shape
        traced = trace(model.module.network if len(shape) != 3 else model, tuple(shape))  # type: ignore[arg-type]
        self.layers = _layers_in_order(model.module, layers, traced)
        self.layouts = layouts_of(traced, self.layers)
        self.strides: dict[str, tuple[float, float]] = {}
        if isinstance(change, Translation):
            found = {name: _stride(traced[name], tuple(shape[1:])) for name in self.layers}
            # of a signal the only row does not move, nor do the slices of a volume
            self.strides = {name: ((1, *stride)[-2], stride[-1]) for name, stride in found.items() if stride}
        self.reading = find_class_reading(model, first)

    def plan(self, batch_size: int | None) -> tuple[int, list[list[int]]]:
        """Return the number of images per group, and the indices of the values of each job.

        The images of a group share a transform's computations for a value, and the values of a job share the features
        of the untransformed images; a forward pass holds some images at some values. About twice as many images as
        values were fastest, on small and large networks. A group takes at most a quarter of a pass, so that the kept
        features take no more memory than the pass.
        """
        refuse_below_one(batch_size=batch_size)
        self.batch_size = batch_size or images_at_once(self.size[0] * self.size[1])
        moving = [column for column, value in enumerate(self.values) if not self.change.is_identity(value)]
        # Sort values so that those with the same fractional shift, from the finest stride on, follow each other.
        strides = sorted(set(self.strides.values()))
        moving.sort(key=lambda column: [part % 1 for stride in strides for part in self.shift(stride, column)])
        spans = np.array_split(moving, max(1, math.ceil(len(moving) / VALUES_AT_ONCE)))
        some = min(round(math.sqrt(2 * self.batch_size)), self.batch_size // 4)
        fair = len(self.items) * len(spans) // MOST_WORKERS  # so that each worker has a group, on any machine
        group = max(1, min(some, fair), self.batch_size // max(1, len(moving)))
        return group, [span.astype(int).tolist() for span in spans]

    def scene(self, canvas: Tensor, rows: Iterable[int]) -> Scene:
        """Return a scene of the images in the given rows, with their surroundings, for a transform."""
        corner = (-self.box[0], -self.box[1])
        items = tuple(self.items[row] for row in rows)
        return Scene(canvas, corner, self.size, self.levels.to(canvas), items, self.seed)

    def shift(self, stride: tuple[float, float], column: int) -> Shift:
        """Return a translation, down and to the right, in positions of a layer with a stride."""
        assert isinstance(self.change, Translation)
        down, right = self.change.shift(float(self.values[column]))
        return down / stride[0], right / stride[1]


def _layers_in_order(module: nn.Module, layers: str | Iterable[str] | None, traced: Mapping[str, Layer]) -> list[str]:
    """Return the layers to probe, in the order of execution."""
    selected = select_traced(module, traced, layers)
    for name in selected:
        layer_with_units(traced, name)
    return [name for name in traced if name in selected]


def _stride(layer: Layer, size: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return the stride of a layer's positions in pixels of the input; None if it has no positions."""
    positions = layer.grid
    if positions is None or set(positions) == {1}:
        return None
    if layer.local_field is not None:
        return layer.local_field.stride
    return tuple(max(1, round(side / count)) for side, count in zip(size, positions, strict=True))


def find_class_reading(model: Model, first: Tensor) -> Reading | None:
    """Return how the network's outputs become probabilities; None if they are not a row of classes."""
    parameter = next(model.module.parameters(), first)
    with frozen(model.module), torch.inference_mode():
        try:
            reading = find_reading(model, first[None].to(parameter.device))
        except NoScores:
            return None
    check_class_names(model, reading.classes)
    return reading
