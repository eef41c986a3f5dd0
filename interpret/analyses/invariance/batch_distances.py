"""Measure how much the features of some images change at some values of the transform: the work of one job."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.invariance.feature_distances import DifferenceBuffer, ShiftedFeatures
from interpret.analyses.invariance.prober import Prober
from interpret.execution.execution import Execution
from interpret.images.batches import Batch
from interpret.images.folded import fold
from interpret.network.answers import Reading, scores_of
from interpret.network.forward import call_network
from interpret.network.layers import first_outputs
from interpret.support.errors import InterpretError


@dataclass
class LayerDistances:
    """Distances between the features of transformed and untransformed images: C units, n images, v values."""

    distances: NDArray[np.float64]
    """[n, v]"""
    norms: NDArray[np.float64]
    """[n] of the untransformed images' features."""
    unit_distances: NDArray[np.float64]
    """[C, v] sums over the images."""
    unit_norms: NDArray[np.float64]
    """[C] sums over the images."""
    shifted: NDArray[np.float64] | None
    """[2, n, v] the distances to the shifted features and the norms of these, where both are known; None for layers
    without an equivariance error."""
    unit_shifted: NDArray[np.float64] | None
    """[2, C, v] sums over the images."""


@dataclass
class ClassAnswers:
    """The network's predictions for n images: untransformed in the first column, then at v values."""

    labels: NDArray[np.int64]
    """[n]"""
    probabilities: NDArray[np.float64]
    """[n, 1 + v] of the label; NaN without one."""
    top: NDArray[np.int64]
    """[n, 1 + v] the most probable class."""


@dataclass
class BatchDistances:
    """The measurements of one job on n images at v values."""

    rows: list[int]
    """[n] indices of the images."""
    columns: list[int]
    """[v] indices of the values."""
    filled_fraction: NDArray[np.float64]
    """[n, v] the share of the pixels that come from the fill."""
    layers: dict[str, LayerDistances]
    classes: ClassAnswers | None
    """None if the network's output is not a row of classes."""


def batch_distances(
    module: nn.Module, prober: Prober, batch: Batch, labels: Tensor | None, columns: list[int], run: Execution
) -> BatchDistances:
    """Run images untransformed and at some values, and compare the features of every layer.

    Args:
        module: the network, or a copy of it.
        prober: the layers and values to probe.
        batch: the images with their surroundings, [n, C + 1, h, w].
        labels: [n]; None: the network's predictions for the untransformed images.
        columns: indices of the values.
        run: how the network runs.

    Raises:
        InterpretError: features that are not finite; a failing forward pass.
    """
    rows = batch.items.tolist()
    scene = prober.scene(batch.images.to(run.device), rows)
    comparison = _Comparison(prober, len(rows))
    filled = [torch.zeros(len(rows), 0, dtype=torch.float64, device=run.device)]
    per_pass = max(1, prober.batch_size // len(rows))
    with torch.inference_mode():
        outputs = [_outputs(module, prober, scene.window(), run, comparison.keep)[:, None]]
        for start in range(0, len(columns), per_pass):
            comparison.columns = columns[start : start + per_pass]
            values = prober.values[comparison.columns].tolist()
            changed = torch.stack([prober.change(scene, value) for value in values], 1)
            filled.append(1 - changed[:, :, -1].double().mean((2, 3)))
            found = _outputs(module, prober, changed.flatten(0, 1), run, comparison.compare)
            outputs.append(found.unflatten(0, (len(rows), -1)))
        items = [prober.items[row] for row in rows]
        layers = {name: comparison.summary(name, items) for name in comparison.references}
        classes = None if prober.reading is None else _classes(torch.cat(outputs, 1), prober.reading, labels)
    return BatchDistances(rows, columns, torch.cat(filled, 1).cpu().numpy(), layers, classes)


def _outputs(
    module: nn.Module, prober: Prober, inputs: Tensor, run: Execution, receive: Callable[[str, Tensor], None]
) -> Tensor:
    """Run inputs, whose last channel marks the pixels that are not filled, and return the network's outputs."""
    images = run.place(inputs[:, :-1])
    with first_outputs(module, prober.layers, receive, count=len(images), layouts=prober.layouts):
        outputs = call_network(module, images)
    return scores_of(outputs, len(images)) if prober.reading is not None else images.new_zeros(len(images), 1)


class _Comparison:
    """Compares the features of transformed images with those of the untransformed ones, layer by layer."""

    def __init__(self, prober: Prober, images: int) -> None:
        self.prober, self.images = prober, images
        self.columns: list[int] = []
        """Indices of the values in the current pass."""
        self.references: dict[str, Tensor] = {}
        """By layer, the features of the untransformed images."""
        self._shifted: dict[str, ShiftedFeatures] = {}
        self._buffer = DifferenceBuffer()
        self._squares: dict[str, list[Tensor]] = {name: [] for name in prober.layers}
        """By layer, squared distances [n, v, C], pass by pass."""
        self._shifted_squares: dict[str, list[Tensor]] = {name: [] for name in prober.strides}
        """By layer, squared distances to the shifted features and squared norms of these, [2, n, v, C]."""

    def keep(self, name: str, output: Tensor) -> None:
        """Keep a layer's features of the untransformed images."""
        self.references[name] = output.clone()  # a later layer may change it in place
        if name in self.prober.strides:
            self._shifted[name] = ShiftedFeatures(fold(self.references[name]))

    def compare(self, name: str, output: Tensor) -> None:
        """Compare a layer's features of the transformed images."""
        output = output.unflatten(0, (self.images, len(self.columns)))
        self._squares[name].append(self._buffer.squared_distances(output, self.references[name][:, None]))
        if name in self.prober.strides:
            stride = self.prober.strides[name]
            pairs = zip(output.split(1, 1), self.columns, strict=True)
            squares = [
                self._shifted[name].squares(fold(one[:, 0])[:, None], self.prober.shift(stride, column), self._buffer)
                for one, column in pairs
            ]
            # the slices of a unit in a volume were channels of their own
            together = torch.cat(squares, 2)
            units = output.shape[2]
            self._shifted_squares[name].append(
                together if together.shape[3] == units else together.unflatten(3, (units, -1)).sum(4)
            )

    def summary(self, name: str, items: list[int]) -> LayerDistances:
        """Return a layer's distances, and those of its units summed over the images."""
        reference = self.references[name]
        # units without positions: nothing to sum over
        lengths = (reference.flatten(2).square().sum(2) if reference.dim() > 2 else reference.square()).double()
        squares = torch.cat([lengths[:, None], *self._squares[name]], 1)
        finite = torch.isfinite(squares).flatten(1).all(1).tolist()
        if not all(finite):
            raise InterpretError(
                f"layer {name!r} gives NaN or infinity on image {items[finite.index(False)]}: "
                "check the image and the network's weights"
            )
        squares = squares[:, 1:]
        pair = torch.cat(shifted, 2) if (shifted := self._shifted_squares.get(name)) else None
        return LayerDistances(
            distances=squares.sum(2).sqrt().cpu().numpy(),
            norms=lengths.sum(1).sqrt().cpu().numpy(),
            unit_distances=squares.sqrt().sum(0).T.cpu().numpy(),
            unit_norms=lengths.sqrt().sum(0).cpu().numpy(),
            shifted=None if pair is None else pair.sum(3).sqrt().cpu().numpy(),
            unit_shifted=None if pair is None else pair.sqrt().sum(1).mT.cpu().numpy(),
        )


def _classes(outputs: Tensor, reading: Reading, labels: Tensor | None) -> ClassAnswers:
    """Return the most probable class and the label's probability from outputs [n, 1 + v, K]."""
    flat = outputs.flatten(0, 1)
    top = reading.best(flat).unflatten(0, outputs.shape[:2]).cpu().numpy()
    labels = torch.from_numpy(top[:, 0]) if labels is None else labels
    probabilities = reading.probabilities(flat).unflatten(0, outputs.shape[:2]).cpu()
    index = labels.clamp(min=0)[:, None, None].expand(-1, probabilities.shape[1], 1)
    chosen = probabilities.gather(2, index)[:, :, 0]
    chosen[labels < 0] = math.nan
    return ClassAnswers(labels.numpy(), chosen.numpy(), top)
