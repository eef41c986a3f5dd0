"""The maxima of a batch: each unit's strongest activation on each image, and its position."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.top_k import Candidates
from interpret.execution.execution import Execution, send
from interpret.images.batches import Batch
from interpret.network.forward import call_network
from interpret.network.layers import Layout, first_outputs
from interpret.support.errors import InterpretError
from interpret.support.wording import AXES


@dataclass
class BatchMaxima:
    """The maxima of all units over the positions of each image in a batch; the units of all layers are concatenated."""

    items: Tensor
    """[B]"""
    labels: Tensor
    """[B], −1 if unknown."""
    shapes: dict[str, torch.Size]
    """The output shape of each layer that ran, (C, H, W) or (C,); of signals (C, T), of volumes (C, D, H, W)."""
    values: Tensor
    """[B, units] each unit's strongest activation on each image, on the device where the network runs."""
    places: Tensor
    """[B, units] its position in the feature map, as a row-major index."""
    positive: dict[str, Tensor]
    """Layer to [2, C]: the number of positions at which each unit is above zero, and the number of positions counted,
    on the images of the batch in the density sample; empty without such images."""
    axes: int = 2
    """The number of axes of the inputs: 1 for signals, 2 images, 3 volumes."""
    boxes: dict[str, list[Tensor]] = field(default_factory=dict)
    """Of layers that run once a box: the boxes of each image, B of [n, 4], top, left, bottom, right in pixels. Places
    are then row-major indices in the maps of an image's boxes, one map after the other; values of images without boxes
    are −inf."""

    @classmethod
    def joined(cls, batches: Sequence[BatchMaxima]) -> BatchMaxima:
        """Concatenate several batches, without the counts of positions."""
        items, labels, values, places = (
            torch.cat([getattr(batch, name) for batch in batches]) for name in ("items", "labels", "values", "places")
        )
        boxes = {name: [own for batch in batches for own in batch.boxes[name]] for name in batches[0].boxes}
        return cls(items, labels, batches[0].shapes, values, places, {}, batches[0].axes, boxes)

    def only(self, layers: Sequence[str]) -> BatchMaxima:
        """Return the maxima of some of the layers; their order is unchanged."""
        if list(self.shapes) == list(layers):
            return self
        columns = torch.arange(self.values.shape[1]).split([shape[0] for shape in self.shapes.values()])
        chosen = torch.cat([own for name, own in zip(self.shapes, columns, strict=True) if name in layers])
        return BatchMaxima(
            self.items,
            self.labels,
            {name: self.shapes[name] for name in layers},
            self.values[:, chosen],
            self.places[:, chosen],
            {name: value for name, value in self.positive.items() if name in layers},
            self.axes,
            {name: boxes for name, boxes in self.boxes.items() if name in layers},
        )

    @property
    def missing(self) -> Tensor:
        """[B, units] whether the layer ran on no box of the image, on the host; [0, 0] if each runs once an image."""
        if not self.boxes:
            return torch.zeros(0, 0, dtype=torch.bool)
        none = torch.zeros(len(self.items), dtype=torch.bool)
        columns = [
            (torch.tensor([not len(own) for own in self.boxes[name]]) if name in self.boxes else none)[:, None].expand(
                -1, shape[0]
            )
            for name, shape in self.shapes.items()
        ]
        return torch.cat(columns, 1)

    def candidates(self, threshold: Tensor) -> Candidates:
        """Return the activations above their units' thresholds [units], on the host."""
        values, places = self.values.cpu(), self.places.cpu()
        units, rows = (values > threshold.to(values)).t().nonzero(as_tuple=True)
        sizes = map_sizes(self.shapes, self.axes)[units]
        at = places[rows, units]
        boxes = (
            self._boxes_of(units, rows, at // sizes.prod(1)) if self.boxes else np.zeros((len(units), 0), np.float32)
        )
        return Candidates(
            units.numpy(),
            rows.numpy(),
            values[rows, units].double().numpy(),
            positions_of(at, sizes).numpy(),
            boxes,
        )

    def _boxes_of(self, units: Tensor, rows: Tensor, numbers: Tensor) -> NDArray[np.float32]:
        """Return the boxes [n, 4] of candidates, by their numbers among those of the image; NaN where there is none."""
        found = np.full((len(units), 4), np.nan, np.float32)
        end = 0
        for name, shape in self.shapes.items():
            begin, end = end, end + shape[0]
            if name in self.boxes:
                for place in ((units >= begin) & (units < end)).nonzero()[:, 0].tolist():
                    found[place] = self.boxes[name][int(rows[place])][int(numbers[place])].numpy()
        return found


def map_sizes(shapes: Mapping[str, Sequence[int]], axes: int) -> Tensor:
    """Return the size of each unit's feature map, [units, axes], for layers one after the other; 1 without a map.

    >>> map_sizes({"conv": (2, 5, 6), "linear": (1,)}, 2).tolist()
    [[5, 6], [5, 6], [1, 1]]
    """
    sizes = torch.tensor([tuple(shape[1:]) or (1,) * axes for shape in shapes.values()])
    return sizes.repeat_interleave(torch.tensor([shape[0] for shape in shapes.values()]), 0)


def positions_of(places: Tensor, sizes: Tensor) -> Tensor:
    """Return row-major indices [...] in feature maps of sizes [..., axes] as positions [..., axes].

    >>> positions_of(torch.tensor([7]), torch.tensor([[2, 5]]))
    tensor([[1, 2]])
    """
    within = sizes.flip(-1).cumprod(-1).flip(-1)
    return places[..., None] % within // (within // sizes)


def batch_maxima(
    module: nn.Module,
    batch: Batch,
    run: Execution,
    layers: Sequence[str],
    density_items: Collection[int] = (),
    dtype: torch.dtype | None = None,
    layouts: Mapping[str, Layout] | None = None,
) -> BatchMaxima:
    """Run a batch and return the maxima of the layers' units on each image; a pure function.

    >>> from interpret.execution.execution import prepared
    >>> from interpret.network.model import as_model
    >>> network, images = nn.Conv2d(1, 4, 3), torch.rand(2, 1, 6, 6)
    >>> batch = Batch(images, torch.tensor([0, 1]), torch.tensor([-1, -1]))
    >>> model = as_model(nn.Sequential(network))
    >>> with prepared(model, images) as run:
    ...     found = batch_maxima(model.module, batch, run, ["0"])
    >>> found.values.shape, found.shapes
    (torch.Size([2, 4]), {'0': torch.Size([4, 4, 4])})

    Args:
        module: the network, or a copy of it.
        batch: the images.
        run: how the network runs.
        layers: names of layers; those that do not run are left out of the result.
        density_items: the items on which to count positions above zero.
        dtype: the type for autocast; None or float32: no autocast.
        layouts: how outputs are arranged that are no map [B, C, H, W].

    Raises:
        InterpretError: a layer whose output has no units; a failing forward pass.
    """
    images = run.place(batch.images)
    rows = [row for row, item in enumerate(batch.items.tolist()) if item in density_items]
    counted = send(torch.tensor(rows), run.device) if rows else None
    values: dict[str, Tensor] = {}
    places: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    positive: dict[str, Tensor] = {}
    boxes: dict[str, list[Tensor]] = {}
    by_box = {name: layout.boxes for name, layout in (layouts or {}).items() if layout.boxes}

    def receive(name: str, output: Tensor) -> None:
        values[name], places[name] = strongest_places(name, output, images.dim() - 2)
        shapes[name] = output.shape[1:]
        call = by_box.get(name)
        if call is not None:
            boxes[name] = calls[call].of_images()
            most = max(1, *map(len, boxes[name]))
            shapes[name] = torch.Size([output.shape[1], output.shape[2] // most, output.shape[3]])
        if counted is not None:
            positive[name] = _count_positive(output[counted])

    hooks = first_outputs(module, layers, receive, stop=True, count=len(images), layouts=layouts)
    with torch.inference_mode(), run.autocast(dtype), hooks as calls:
        call_network(module, images)
    ran = [name for name in layers if name in shapes]
    return BatchMaxima(
        batch.items,
        batch.labels,
        {name: shapes[name] for name in ran},
        torch.cat([values[name] for name in ran], 1) if ran else torch.empty(0),
        torch.cat([places[name] for name in ran], 1) if ran else torch.empty(0),
        positive,
        images.dim() - 2,
        {name: boxes[name] for name in ran if name in boxes},
    )


def strongest_places(name: str, output: Tensor, axes: int = 2) -> tuple[Tensor, Tensor]:
    """Return each unit's strongest activation on each image, and its first position as a row-major index; both [B, C].

    >>> strongest_places("conv", torch.tensor([[[[1.0, 2.0], [5.0, 5.0]]]]))
    (tensor([[5.]]), tensor([[2]]))
    """
    if output.dim() == 2:
        return output.clone(), torch.zeros_like(output, dtype=torch.int64)  # a later layer may change it in place
    if output.dim() != axes + 2:
        wanted = f"[B, C, {AXES[axes]}]"
        raise InterpretError(f"layer {name!r} returns {output.dim()} dimensions: units need {wanted} or [B, C]")
    if axes != 2:
        output = output.flatten(2)[:, :, None]
    if output.device.type != "cpu":
        return output.flatten(2).max(2)
    # Global max-pooling: the only operation that returns maxima with indices and is vectorised on CPUs, as fast as
    # amax. On GPUs, a single thread would process each map.
    output = output.contiguous(memory_format=torch.channels_last)
    values, places = F.max_pool2d(output, output.shape[2:], return_indices=True)
    return values.flatten(1), places.flatten(1)


def _count_positive(output: Tensor) -> Tensor:
    """Return for each unit the number of positions above zero, and the number of positions: [2, C]."""
    # Sums of float32 ones are vectorised, sums of booleans are not; they are exact for each image.
    ones = output.sign().clamp_(min=0).reshape(*output.shape[:2], -1)
    above = ones.sum(2, dtype=torch.float32).long().sum(0)
    # −inf stands for boxes that an image does not have
    counted = (output[:, 0] > -torch.inf).sum()
    return torch.stack([above, counted.expand(len(above))])
