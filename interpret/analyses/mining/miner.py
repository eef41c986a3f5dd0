"""The miner: accumulates hits and statistics batch by batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.batch_maxima import BatchMaxima
from interpret.analyses.mining.on_device import NEVER, OnDevice, images_that_wait, stays_on_device, takes_too_much
from interpret.analyses.mining.result import Mined, MinedLayer, Subject
from interpret.analyses.mining.statistics import Statistics
from interpret.analyses.mining.top_k import TopK
from interpret.execution.ranks import State
from interpret.execution.resume import below
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.network.layers import Layout, did_not_run, select_layers, split_patterns
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one

SAMPLE_SIZE = 256
"""Number of images in the sample whose maxima are kept individually."""
DENSITY_SAMPLE_SIZE = 32
"""Number of images of the sample on which positions above zero are counted."""
FLUSH_SIZE = 64
"""Number of waiting images from which on their batches are added to the hits and statistics on the host."""

STATE_FORMAT = 4
"""The format of the state of unfinished mining; states of another one are not resumed."""

logger = logging.getLogger(__name__)


class Miner:
    """Collects the hits and statistics of layers from the maxima of batches, which arrive in the order of the data.

    >>> from interpret.images.opening import open_images
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> miner = Miner(network, open_images(torch.zeros(3, 1, 4, 4), network), k=1)
    >>> values = torch.tensor([[1.0, 5.0], [4.0, 2.0]])
    >>> found = BatchMaxima(
    ...     items=torch.tensor([0, 1]), labels=torch.tensor([-1, -1]), shapes={"0": torch.Size([2, 2, 2])},
    ...     values=values, places=torch.zeros(2, 2, dtype=torch.int64), positive={},
    ... )
    >>> miner.update(found)
    >>> miner.result()["0"].images
    array([[1],
           [0]])

    Args:
        model, data, layers, k, seed: as in `mine`.
    """

    def __init__(
        self,
        model: Model | nn.Module,
        data: Images,
        layers: str | Iterable[str] | None = None,
        k: int = 9,
        *,
        seed: int = 0,
    ) -> None:
        refuse_below_one(k=k)
        self.model = as_model(model)
        self.data = data
        self.k = k
        patterns = None if layers is None else split_patterns(layers, dict(self.model.module.named_modules()))
        self.layers = select_layers(self.model.module, patterns)
        self._named = set(patterns or ())
        self.layouts: dict[str, Layout] = {}
        """How the outputs of layers are arranged that are no map [B, C, H, W]."""
        self.sample = sample_by_hash(len(data), SAMPLE_SIZE, seed)
        self._sample_rows = {int(item): row for row, item in enumerate(self.sample)}
        self.density_items = frozenset(self.sample[:DENSITY_SAMPLE_SIZE].tolist())
        """The items on which positions above zero are counted."""
        self._columns: dict[str, slice] = {}
        """Each layer's range in the concatenated units of all layers."""
        self._top: TopK | None = None
        self._statistics: Statistics | None = None
        self._positive: dict[str, Tensor] = {}
        """`BatchMaxima.positive`, summed over batches."""
        self._waiting: list[BatchMaxima] = []
        self._on_device: OnDevice | None = None
        """Hits and statistics that the host does not have yet."""

    def leave_out(self, layers: Collection[str], error: Callable[[str], InterpretError]) -> None:
        """Leave out layers that cannot be mined; raise the error if one was given by name, or if none would remain.

        After the first update, it is an error to leave out any layer.
        """
        gone = [name for name in self.layers if name in layers]
        none_left = len(gone) == len(self.layers)
        refused = [name for name in gone if name in self._named or none_left or self._columns]
        if refused:
            raise error(refused[0])
        for name in gone:
            logger.info("left out: %s", error(name))
        self.layers = [name for name in self.layers if name not in gone]

    def update(self, found: BatchMaxima) -> None:
        """Add the maxima of the next batch. Layers that did not run in the first one are left out."""
        self.leave_out([name for name in self.layers if name not in found.shapes], did_not_run)
        found = found.only(self.layers)
        if not self._columns:
            self._allocate({name: found.shapes[name][0] for name in self.layers}, found.axes, bool(found.boxes))
        for name, positive in found.positive.items():
            self._positive[name] = self._positive.get(name, 0) + positive
        self._waiting.append(found)
        # several batches at once cost little more than one
        if sum(len(batch.items) for batch in self._waiting) >= self._enough(found):
            self._flush()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors, for `load_state_dict`; empty before the first update."""
        self._flush()
        self._collect()
        if self._top is None or self._statistics is None:
            return {}
        state = {f"statistics/{name}": value for name, value in self._statistics.state_dict().items()}
        state |= {f"top/{name}": value for name, value in self._top.state_dict().items()}
        state |= {f"units/{name}": torch.tensor(own.stop - own.start) for name, own in self._columns.items()}
        return state | {f"above_zero/{name}": value.clone().cpu() for name, value in self._positive.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the state of a miner with the same model, data, layers, k and seed."""
        if "top/values" not in state:  # no image was added
            return
        self.layers = [name for name in self.layers if f"units/{name}" in state]
        axes = state["top/positions"].shape[2]
        units = {name: int(state[f"units/{name}"]) for name in self.layers}
        top, statistics = self._allocate(units, axes, by_box=state["top/boxes"].shape[2] > 0)
        top.load_state_dict(below("top/", state))
        statistics.load_state_dict(below("statistics/", state))
        self._positive = below("above_zero/", state)

    def result(self, refuse: bool = True) -> Mined:
        """Return the hits and statistics of all images added so far.

        Layers that run once a box, and for which no image had one, are left out; with `refuse`, raise an error if one
        was given by name, or if none would remain.
        """
        self._flush()
        self._collect()
        if self._top is None or self._statistics is None:
            raise InterpretError("data holds no image that can be read: give at least one")
        without = [name for name, columns in self._columns.items() if (self._top.images[columns] < 0).all()]
        for name in without:
            if refuse and (name in self._named or len(without) == len(self._columns)):
                raise no_boxes(name)
            logger.info("left out: %s", no_boxes(name))
        layers: dict[str, MinedLayer] = {}
        for name, columns in self._columns.items():
            if name in without:
                continue
            values, rois = self._top.values[columns], self._top.boxes[columns]
            positive, counted = self._positive.get(name, torch.zeros(2, len(values))).double().cpu()
            layers[name] = MinedLayer(
                values=values.astype(np.float32),
                images=self._top.images[columns].copy(),
                positions=self._top.positions[columns].copy(),
                dead=~(values[:, 0] > 0),
                density=(positive / counted).float().numpy(),
                rois=rois.copy() if np.isfinite(rois).any() else None,
                **self._statistics.of(columns),
            )
        return Mined(
            layers,
            self.sample[self._statistics.sampled.numpy()],
            dict(self.data.skipped),
            self.model.name,
            self.data.name,
            subject=Subject(self.model, self.data),
        )

    def _allocate(self, units: Mapping[str, int], axes: int, by_box: bool = False) -> tuple[TopK, Statistics]:
        """Allocate hits and statistics for the concatenated units of all layers."""
        ends = np.cumsum([units[name] for name in self.layers]).tolist()
        starts = [0, *ends[:-1]]
        self._columns = {name: slice(start, end) for name, start, end in zip(self.layers, starts, ends, strict=True)}
        classes = None if self.data.classes is None else len(self.data.classes)
        self._top = TopK(ends[-1], self.k, axes, by_box)
        self._statistics = Statistics(ends[-1], len(self.sample), classes)
        return self._top, self._statistics

    def _enough(self, found: BatchMaxima) -> int:
        """Return of how many images maxima are added at once."""
        device, units = found.values.device, found.values.shape[1]
        if found.boxes or device.type != "cuda":
            return FLUSH_SIZE
        return max(FLUSH_SIZE, images_that_wait(units, device))

    def _flush(self) -> None:
        """Add the waiting batches to the hits and the statistics."""
        if not self._waiting or self._top is None or self._statistics is None:
            return
        found, self._waiting = BatchMaxima.joined(self._waiting), []
        items = found.items.numpy()
        rows = torch.tensor([self._sample_rows.get(item, -1) for item in items.tolist()])
        if self._add_on_device(found, rows):
            return
        values = found.values.float().cpu()  # float32, since hits are float32
        missing = found.missing if found.boxes else None
        known = values if missing is None else values.masked_fill(missing, 0)
        if not math.isfinite(float(known.sum(dtype=torch.float64))):
            raise self._not_finite(*first_not_finite(known, items))
        self._top.update(found.candidates(self._top.threshold), items, self.data.sources[items])
        self._statistics.update(values, found.labels, rows, missing)

    def _add_on_device(self, found: BatchMaxima, rows: Tensor) -> bool:
        """Add a batch to what is on its device, and return whether it may stay there."""
        values = found.values
        if found.boxes or not stays_on_device(values.device, values.dtype):
            return False
        classes = int(found.labels.max()) + 1 if self.data.classes is None else len(self.data.classes)
        if takes_too_much(values.shape[1], classes, values.device):
            return False
        if self._on_device is None:
            self._on_device = OnDevice(found.shapes, self.k, len(self.sample), values.device, found.axes)
        sources = self.data.sources[found.items.numpy()]
        self._on_device.update(found, sources, rows, self._distinct_sources, classes)
        return True

    def _collect(self) -> None:
        """Add what is on the device to what the host has."""
        if self._on_device is None or self._top is None or self._statistics is None:
            return
        collected, self._on_device = self._on_device, None
        items, values = collected.not_finite()
        if (items != NEVER).any():
            raise self._not_finite(items, values)
        top, statistics = collected.collect()
        self._top.merge(top)
        self._statistics.merge(statistics)

    @cached_property
    def _distinct_sources(self) -> bool:
        """Whether each source has one item; ascending sources show it."""
        sources = self.data.sources
        return bool((sources[1:] > sources[:-1]).all())

    def _not_finite(self, items: NDArray[np.int64], values: NDArray[np.float32]) -> InterpretError:
        """Return the error for the first layer with a maximum that is not finite; see `first_not_finite`."""
        name = next(name for name in self.layers if (items[self._columns[name]] != NEVER).any())
        unit = int(items[self._columns[name]].argmin())
        item = int(items[self._columns[name]][unit])
        source = self.data.source_name(int(self.data.sources[item]))
        return InterpretError(
            f"layer {name!r} gives {values[self._columns[name]][unit]} in unit {unit} on image {item} ({source}): "
            "check the weights, or leave the image out"
        )


def no_boxes(name: str) -> InterpretError:
    """Return the error for a layer that runs once a box where the network finds none."""
    return InterpretError(
        f"layer {name!r} runs once a box, and the network finds no box in these images: give images that show what it "
        "detects, or lower the score that its boxes need"
    )


def first_not_finite(values: Tensor, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each unit's first item whose value in [B, units] is not finite, or `NEVER`, and that value."""
    bad = ~np.isfinite(values.numpy())
    row = bad.argmax(0)
    return np.where(bad.any(0), items[row], NEVER), np.take_along_axis(values.numpy(), row[None], 0)[0]


def merge_states(first: State, second: State) -> dict[str, Tensor]:
    """Merge the states of two miners of the same model, data, layers, k and seed, which have seen different images.

    The result does not depend on which images each has seen, nor in what order states are merged.

    Raises:
        InterpretError: one layer ran for the images of one miner alone.
    """
    if "top/values" not in first or "top/values" not in second:
        return dict(first) if "top/values" in first else dict(second)
    units = [{name for name in state if name.startswith("units/")} for state in (first, second)]
    if units[0] != units[1]:
        raise did_not_run(min(units[0] ^ units[1]).removeprefix("units/"))
    top, other_top = (TopK.of_state(below("top/", state)) for state in (first, second))
    statistics, other_statistics = (Statistics.of_state(below("statistics/", state)) for state in (first, second))
    top.merge(other_top)
    statistics.merge(other_statistics)
    merged = {name: first[name] for name in units[0]}
    merged |= {f"top/{name}": value for name, value in top.state_dict().items()}
    merged |= {f"statistics/{name}": value for name, value in statistics.state_dict().items()}
    for name in (name for name in first.keys() | second.keys() if name.startswith("above_zero/")):
        counted = [state[name] for state in (first, second) if name in state]
        merged[name] = torch.stack(counted).sum(0)
    return merged


def mined_in_whole(state: State, first_item: int, first_source: int, sample: int) -> dict[str, Tensor]:
    """Return what was mined of a part of joined data, with the items and sources of the whole.

    Without what depends on the samples, which are others in the whole, of so many images.
    """
    if "top/values" not in state:
        return {}
    found = {name: value for name, value in state.items() if name.startswith(("top/", "statistics/", "units/"))}
    for name, first in (("top/images", first_item), ("top/sources", first_source)):
        found[name] = torch.where(found[name] >= 0, found[name] + first, found[name])
    maxima = found["statistics/sample_maxima"]
    found["statistics/sample_maxima"] = maxima.new_zeros(sample, maxima.shape[1])
    found["statistics/sampled"] = torch.zeros(sample, dtype=torch.bool)
    return found


def sample_in(state: State) -> dict[str, Tensor]:
    """Return what depends on the samples."""
    own = ("statistics/sample_maxima", "statistics/sampled")
    return {name: value for name, value in state.items() if name in own or name.startswith("above_zero/")}
