"""Mining: which images excite each unit most, and how the unit behaves on all of them, in one pass."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.result import Mined, MinedLayer, Subject
from interpret.execution.batches import default_batch_size
from interpret.execution.execution import Execution, prepared
from interpret.execution.resume import Unfinished, pack, unpack
from interpret.images.data import Batch, Images, batches, first_images, sample_by_hash
from interpret.images.several_inputs import open_together
from interpret.network.dry_run import DryRun, not_batched
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import WITH_UNITS, first_outputs, select_layers, split_patterns
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.tracing import layer_with_units, trace

BINS = 64
SAMPLE_SIZE = 256
DENSITY_SAMPLE_SIZE = 32
TAKEN_TOGETHER = 64
"""How many images' maxima are sorted in at once."""


def mine(
    model: Model | nn.Module,
    data: Any,
    layers: str | Iterable[str] | None = None,
    k: int = 9,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> Mined:
    """Find for every unit the k images that excite it most, in one pass over the data.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> mined = mine(network, images, k=3)
    >>> mined["0"].values.shape, mined["0"].positions.shape
    ((4, 3), (4, 3, 2))
    >>> image, (y, x) = mined["0"].images[2, 0], mined["0"].positions[2, 0]
    >>> bool(torch.isclose(network[0](images)[image, 2, y, x], torch.tensor(mined["0"].values[2, 0])))
    True

    Activations are taken as the layer returns them: name the rectifier for rectified ones. A unit's hits come from
    distinct sources (photographs), each with its strongest item and position; where values tie, the lowest item
    comes first, then the lowest position. The same call gives the same bytes; another batch size changes values by
    the rounding of the forward pass at most. Memory does not depend on how many images there are.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        data: images [N, C, H, W], a data set of (image, label) or image, a folder, or an `Images`; for a network of
            several inputs a tuple or a dict of them, tensors [N, …], of which the first of floats [N, C, H, W] is the
            images, or a data set whose items are such tuples or dicts of one image each.
        layers: names or globs; None: every convolutional and linear layer. Of globs, the layers that run.
        k: hits to keep for each unit, at least 1.
        batch_size: how many images run together; see `interpret`.
        workers: processes that decode images; 0: this one.
        seed: chooses the sample on which density and the sample maxima are taken.
        device: where the network runs; see `interpret`.
        dtype: `torch.bfloat16` runs the network under autocast, faster and less exact; None or float32: as it is.
        resume_from: a file that keeps what is done, from time to time and at the end, an interrupt's, too, so that the
            same call goes on from there; it stays until you delete it. None: nothing is kept.

    Raises:
        InterpretError: an unknown layer, k or batch size below 1, no image that decodes, images that do not fit the
            network or each other, or a unit whose maximum is NaN or infinite, naming layer and image.

    The nine strongest with their patches are Zeiler & Fergus 2014, Fig. 2.
    """
    model, images = open_together(as_model(model), data)
    miner = Miner(model, images, layers, k, seed=seed)
    settings = {"layers": miner.layers, "k": k, "seed": seed, "dtype": str(dtype)}
    miner.run(Unfinished.of(resume_from, model, miner.data, **settings), batch_size, workers, device, dtype)
    return miner.result()


class Miner:
    """Mining in progress: fed batch by batch in the order of the data, and readable at any time."""

    def __init__(
        self, model: Model, data: Images, layers: str | Iterable[str] | None = None, k: int = 9, *, seed: int = 0
    ) -> None:
        if k < 1:
            raise InterpretError(f"k must be at least 1, not {k}")
        self.model, self.module = model, model.module
        self.data = data
        patterns = None if layers is None else split_patterns(layers)
        self.layers = select_layers(model.module, patterns)
        self._named = set(patterns or ())
        self.k = k
        self.sample = sample_by_hash(len(data), SAMPLE_SIZE, seed)
        self._sample_rank = {int(item): rank for rank, item in enumerate(self.sample)}
        self._columns: dict[str, slice] = {}
        """Where each layer's units lie among those of all layers."""
        self._top: TopK | None = None
        self._above_zero: dict[str, Tensor] = {}
        self._statistics: Statistics | None = None
        self._image_shape: torch.Size | None = None
        self._waiting: list[Look] = []
        """What was taken and is not sorted in yet."""
        self.seen_items = 0
        """Where in the data to go on: one past the last item that was taken in."""

    def run(
        self,
        unfinished: Unfinished,
        batch_size: int | None = None,
        workers: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Go through the data, from where unfinished mining stopped."""
        self.restore(unfinished.load())
        with self.prepared(device, dtype) as run, progress(len(self.data), "mining", "img", self.seen_items) as bar:

            def take(look: Look) -> None:
                self.take(look)
                bar.update(len(look.items))

            looks = self.looks(self.unseen(run.device, batch_size, workers), run, dtype)
            unfinished.take_all(looks, take, self.state)

    @contextmanager
    def prepared(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Iterator[Execution]:
        """Make the network ready to run, and leave out what is no layer of units after all."""
        first = first_images(self.data)
        self._check(first, dtype)
        with prepared(self.model, first, device, self.layers) as run:
            self._leave_out_unbatched(run.dry_run)
            yield run

    def _leave_out_unbatched(self, dry_run: DryRun) -> None:
        """Leave out layers whose first dimension is not the image, or refuse those that were asked for by name."""
        unbatched = [name for name in self.layers if name in dry_run.unbatched]
        refused = [name for name in unbatched if name in self._named or len(unbatched) == len(self.layers)]
        if refused:
            raise not_batched(refused[0])
        self.layers = [name for name in self.layers if name not in unbatched]

    def unseen(self, device: torch.device, batch_size: int | None = None, workers: int = 0) -> Iterator[Batch]:
        """Return the batches to go on with, of a size that suits the device unless one is given."""
        size = default_batch_size(self.data, device) if batch_size is None else batch_size
        return batches(self.data, size, workers, start=self.seen_items)

    def looks(self, batches: Iterable[Batch], run: Execution, dtype: torch.dtype | None = None) -> Iterator[Look]:
        """Run batches, several at once on a processor, and yield in their order what there is to `take` from each."""

        def jobs() -> Iterator[Callable[[nn.Module], Look]]:
            for batch in batches:
                self._check(batch.images, dtype)
                yield partial(self._look, batch=batch, run=run, dtype=dtype)

        return run.side_by_side(jobs())

    def update(self, batch: Batch, run: Execution, dtype: torch.dtype | None = None) -> None:
        """Run one batch and take from each layer's output what there is to take."""
        self._check(batch.images, dtype)
        self.take(self._look(self.module, batch, run, dtype))

    def _look(self, module: nn.Module, batch: Batch, run: Execution, dtype: torch.dtype | None) -> Look:
        images = run.place(batch.images)
        probe = [
            row
            for row, item in enumerate(batch.items.tolist())
            if self._sample_rank.get(item, SAMPLE_SIZE) < DENSITY_SAMPLE_SIZE
        ]
        maxima: dict[str, Tensor] = {}
        places: dict[str, Tensor] = {}
        shapes: dict[str, torch.Size] = {}
        above_zero: dict[str, Tensor] = {}

        def receive(name: str, output: Tensor) -> None:
            maxima[name], places[name] = strongest_places(name, output)
            shapes[name] = output.shape[1:]
            if probe:
                above_zero[name] = _above_zero(output[probe])

        autocast = torch.autocast(images.device.type, dtype) if dtype not in (None, torch.float32) else nullcontext()
        hooks = first_outputs(module, self.layers, receive, stop=True, count=len(images))
        with torch.inference_mode(), autocast, hooks:
            call_network(module, images)
        ran = [name for name in self.layers if name in shapes]
        return Look(
            batch.items,
            batch.labels,
            {name: shapes[name] for name in ran},
            torch.cat([maxima[name] for name in ran], 1).cpu() if ran else torch.empty(0),
            torch.cat([places[name] for name in ran], 1).cpu() if ran else torch.empty(0),
            above_zero,
        )

    def take(self, look: Look) -> None:
        """Take in what was seen in a batch; batches come in the order of the data."""
        self._leave_out([name for name in self.layers if name not in look.shapes])
        if self._top is None or self._statistics is None:
            units = self._lay_out({name: look.shapes[name][0] for name in self.layers})
            self._statistics = self._no_statistics(units)
            self._top = TopK(units, self.k)
        for name, above in look.above_zero.items():
            self._above_zero[name] = self._above_zero.get(name, 0) + above
        self._waiting.append(look)
        self.seen_items = int(look.items[-1]) + 1
        if sum(len(look.items) for look in self._waiting) >= TAKEN_TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Sort in what was taken and waits, several batches at once, which costs little more than one."""
        if not self._waiting or self._top is None or self._statistics is None:
            return
        look, self._waiting = Look.of_all(self._waiting), []
        if not math.isfinite(float(look.maxima.float().sum(dtype=torch.float64))):  # float32 is what is kept
            raise self._not_finite(look)
        found = look.above(self._top.threshold)
        items = look.items.numpy()
        self._top.insert(found, items, self.data.sources[items])
        rows = [self._sample_rank.get(item, -1) for item in look.items.tolist()]
        self._statistics.update(look.maxima.float(), look.labels, torch.tensor(rows))

    def _leave_out(self, idle: list[str]) -> None:
        """Forget layers that do not run, such as auxiliary classifiers, if nobody asked for them by name."""
        wanted = [name for name in idle if name in self._named]
        if wanted or len(idle) == len(self.layers) or (idle and self._statistics is not None):
            raise InterpretError(f"layer {(wanted or idle)[0]!r} did not run in the forward pass: choose another")
        self.layers = [name for name in self.layers if name not in idle]

    def _check(self, images: Tensor, dtype: torch.dtype | None) -> None:
        """Refuse images that do not fit the network or each other, and layers whose units mining would not find."""
        shape = images.shape[1:]
        if self._image_shape is not None:
            if shape != self._image_shape:
                raise InterpretError(
                    f"images of one data set must have one shape, not {list(self._image_shape)} and {list(shape)}"
                )
            return
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise InterpretError(f"dtype must be torch.bfloat16, torch.float16 or None, not {dtype}")
        refuse_other_type(self.module, images)
        # of the usual kinds it is known where their units are
        if not all(isinstance(self.module.get_submodule(name), WITH_UNITS) for name in self.layers):
            traced = trace(self.module, tuple(shape))
            for name in traced.keys() & self.layers:
                layer_with_units(self.module, traced, name)
        self._image_shape = shape

    def _lay_out(self, units: Mapping[str, int]) -> int:
        """Lay the layers' units side by side, and return how many there are."""
        ends = np.cumsum([units[name] for name in self.layers]).tolist()
        starts = [0, *ends[:-1]]
        self._columns = {name: slice(*ends) for name, *ends in zip(self.layers, starts, ends, strict=True)}
        return int(ends[-1])

    def _no_statistics(self, units: int) -> Statistics:
        return Statistics(units, len(self.sample), None if self.data.classes is None else len(self.data.classes))

    def state(self) -> dict[str, Tensor]:
        """Return all that was found up to now as tensors, for `restore` to go on from."""
        self._settle()
        if self._top is None or self._statistics is None:
            return {}
        state = {f"statistics/{name}": value.clone() for name, value in self._statistics.tensors().items()}
        state |= {f"top/{key}": torch.tensor(getattr(self._top, key)) for key in TopK.STATE}
        state |= {f"units/{name}": torch.tensor(own.stop - own.start) for name, own in self._columns.items()}
        state |= {f"above_zero/{name}": value.clone() for name, value in self._above_zero.items()}
        # what reading told: labels that come with the images, and what does not decode
        state |= {"labels": torch.from_numpy(self.data.labels), "skipped": pack(self.data.skipped)}
        return state | {"seen_items": torch.tensor(self.seen_items)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state of another miner of the same model, data, layers and settings."""
        if "seen_items" not in state:  # nothing had been taken in yet
            return
        self.seen_items = int(state["seen_items"])
        self.data.labels[: self.seen_items] = state["labels"][: self.seen_items].numpy()
        self.data.skipped.update(unpack(state["skipped"]))
        self.layers = [name for name in self.layers if f"units/{name}" in state]
        units = self._lay_out({name: int(state[f"units/{name}"]) for name in self.layers})
        self._top = TopK(units, self.k)
        for key in TopK.STATE:
            setattr(self._top, key, state[f"top/{key}"].numpy().copy())
        self._top.threshold = torch.from_numpy(self._top.values[:, -1].copy())
        self._above_zero = {name: state[key] for name in self.layers if (key := f"above_zero/{name}") in state}
        self._statistics = self._no_statistics(units)
        self._statistics.restore({key: state[f"statistics/{key}"] for key in self._statistics.tensors()})

    def _not_finite(self, look: Look) -> InterpretError:
        bad = ~torch.isfinite(look.maxima.float())
        name = next(name for name in self.layers if bool(bad[:, self._columns[name]].any()))
        row, unit = bad[:, self._columns[name]].nonzero()[0].tolist()
        source = self.data.source_name(int(self.data.sources[look.items[row]]))
        return InterpretError(
            f"layer {name!r} gives {look.maxima[:, self._columns[name]][row, unit].item()} in unit {unit} on image "
            f"{int(look.items[row])} ({source}): mend the weights or leave the image out"
        )

    def result(self) -> Mined:
        """Return what was found up to now."""
        self._settle()
        if self._top is None or self._statistics is None:
            raise InterpretError("data holds no image that can be read: give at least one")
        layers: dict[str, MinedLayer] = {}
        for name, columns in self._columns.items():
            values = self._top.values[columns]
            above, counted = self._above_zero.get(name, torch.zeros(2, len(values))).double()
            layers[name] = MinedLayer(
                values=values.astype(np.float32),
                images=self._top.images[columns].copy(),
                positions=self._top.positions[columns].copy(),
                dead=~(values[:, 0] > 0),
                density=(above / counted).float().numpy(),
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


def strongest_places(name: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return each unit's strongest activation on each image, and its first place, counted row by row; both [B, C]."""
    if output.dim() == 2:
        return output.clone(), torch.zeros_like(output, dtype=torch.int64)  # what comes after may rectify it in place
    if output.dim() != 4:
        raise InterpretError(f"layer {name!r} returns {output.dim()} dimensions: units need [B, C, H, W] or [B, C]")
    if output.device.type != "cpu":
        return output.flatten(2).max(2)
    # one window over the whole map: of all that finds a maximum with its place, the one that processors vectorise,
    # and as fast as amax, which finds no place; on GPUs a single thread would take each map
    output = output.contiguous(memory_format=torch.channels_last)
    values, places = F.max_pool2d(output, output.shape[2:], return_indices=True)
    return values.flatten(1), places.flatten(1)


def _above_zero(output: Tensor) -> Tensor:
    """Return of each unit at how many positions it is above zero, and at how many it is at all, [2, C]."""
    # ones and zeros as float32, whose sums are vectorised, as those of booleans are not, and exact for any one image
    ones = output.sign().clamp_(min=0).reshape(*output.shape[:2], -1)
    above = ones.sum(2, dtype=torch.float32).long().sum(0).cpu()
    return torch.stack([above, torch.full_like(above, output[:, 0].numel())])


EMPTY = {"values": -np.inf, "images": -1, "sources": -1, "positions": 0}
"""What stands where a unit has fewer than k hits."""


class TopK:
    """The k strongest hits of each of C units so far, no two from one source."""

    STATE = tuple(EMPTY)

    def __init__(self, units: int, k: int) -> None:
        self.k = k
        self.values = np.full((units, k), EMPTY["values"], np.float64)
        self.images = np.full((units, k), EMPTY["images"], np.int64)
        self.sources = np.full((units, k), EMPTY["sources"], np.int64)
        self.positions = np.full((units, k, 2), EMPTY["positions"], np.int64)
        self.threshold = torch.full((units,), -torch.inf, dtype=torch.float64)
        """[C] what a value must beat to enter."""

    def insert(self, found: Candidates, items: NDArray[np.int64], item_sources: NDArray[np.int64]) -> None:
        """Take in the candidates of a batch of items [B] and their sources [B]; items ascend from batch to batch."""
        touched, starts, counts = np.unique(found.units, return_index=True, return_counts=True)
        if not len(touched):
            return
        # a row for each unit, with the hits so far and the candidates after them, in the order of their images
        place = np.repeat(np.arange(len(touched)), counts), self.k + np.arange(counts.sum()) - np.repeat(starts, counts)
        new = {
            "values": found.values,
            "images": items[found.rows],
            "sources": item_sources[found.rows],
            "positions": found.positions,
        }
        hits = {key: self._with_room(key, touched, int(counts.max())) for key in self.STATE}
        for key, values in new.items():
            hits[key][place] = values
        # the best first and, as the sort is stable, the earlier image of equals; of each source that one alone
        order = np.argsort(-hits["values"], 1, kind="stable")
        repeated = _repeated(np.take_along_axis(hits["sources"], order, 1))
        kept = np.argsort(repeated, 1, kind="stable")[:, : self.k]
        rows = np.arange(len(touched))[:, None]
        best = rows, order[rows, kept]
        gone = repeated[rows, kept]
        for key in self.STATE:
            own = getattr(self, key)
            own[touched] = np.where(gone.reshape(*gone.shape, *[1] * (own.ndim - 2)), EMPTY[key], hits[key][best])
        self.threshold = torch.from_numpy(self.values[:, -1].copy())

    def _with_room(self, key: str, units: NDArray[np.int64], room: int) -> NDArray[Any]:
        """Return what units have of one kind, [n, k + room, …]."""
        own = getattr(self, key)[units]
        return np.concatenate([own, np.full((len(own), room, *own.shape[2:]), EMPTY[key], own.dtype)], 1)


def _repeated(sources: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return what of each row stands further left as well; −1 is no source."""
    order = np.argsort(sources, 1, kind="stable")
    ascending = np.take_along_axis(sources, order, 1)
    repeated = np.zeros(sources.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], (ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0), 1)
    return repeated


@dataclass
class Candidates:
    """What of a batch may enter the hits: n places, each a unit on a row of the batch, in the order of the units."""

    units: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    positions: NDArray[np.int64]
    """[n, 2] rows and columns in the feature map."""


@dataclass
class Look:
    """What `Miner.take` needs to know of a batch that ran, of all layers' units side by side."""

    items: Tensor
    """[B]"""
    labels: Tensor
    """[B]"""
    shapes: dict[str, torch.Size]
    """Of each layer that ran, (C, H, W) or (C,)."""
    maxima: Tensor
    """[B, units] each unit's strongest activation on each image."""
    places: Tensor
    """[B, units] where it lies in the feature map, counted row by row."""
    above_zero: dict[str, Tensor] = field(default_factory=dict)
    """At how many positions units are above zero, and at how many they are at all, [2, C], on images of the sample."""

    @classmethod
    def of_all(cls, looks: list[Look]) -> Look:
        """Return the looks at several batches as one, without the counts of what is above zero."""
        items, labels, maxima, places = (
            torch.cat([getattr(look, name) for look in looks]) for name in ("items", "labels", "maxima", "places")
        )
        return cls(items, labels, looks[0].shapes, maxima, places)

    def above(self, threshold: Tensor) -> Candidates:
        """Return what beats the units' thresholds, by units and of a unit by images."""
        units, rows = (self.maxima > threshold.to(self.maxima)).t().nonzero(as_tuple=True)
        maps = self.shapes.values()
        widths = torch.tensor([shape[-1] if len(shape) == 3 else 1 for shape in maps])
        widths = widths.repeat_interleave(torch.tensor([shape[0] for shape in maps]))[units]
        places = self.places[rows, units]
        positions = torch.stack([places // widths, places % widths], 1)
        return Candidates(units.numpy(), rows.numpy(), self.maxima[rows, units].double().numpy(), positions.numpy())


class Statistics:
    """Histograms, class means and the sample's maxima of all units, from their per-image maxima."""

    def __init__(self, units: int, sample: int, classes: int | None = None) -> None:
        """Begin with nothing seen; without a number of classes, there are as many as labels turn up."""
        self.histogram = DyadicHistogram(units)
        self.sample_maxima = torch.zeros(sample, units, dtype=torch.float32)
        self.sampled = torch.zeros(sample, dtype=torch.bool)
        self.open_ended = classes is None
        self.class_sums = torch.zeros(classes or 0, units, dtype=torch.float64)
        self.class_counts = torch.zeros(classes or 0, dtype=torch.int64)

    def update(self, maxima: Tensor, labels: Tensor, sample_rows: Tensor) -> None:
        """Take in a batch: maxima [B, units], labels [B] (−1 unknown), places in the sample [B] (−1 none)."""
        maxima = maxima.cpu()
        self.histogram.update(maxima)
        chosen = sample_rows >= 0
        self.sample_maxima[sample_rows[chosen]] = maxima[chosen]
        self.sampled[sample_rows[chosen]] = True
        more = int(labels.max()) + 1 - len(self.class_counts)
        if self.open_ended and more > 0:
            self.class_sums = F.pad(self.class_sums, (0, 0, 0, more))
            self.class_counts = F.pad(self.class_counts, (0, more))
        known = (labels >= 0) & (labels < len(self.class_counts))
        if bool(known.any()):
            self.class_sums.index_add_(0, labels[known], maxima[known].double())
            self.class_counts += torch.bincount(labels[known], minlength=len(self.class_counts))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that hold it all, by name."""
        return {key: getattr(owner, key) for key, owner in self._owners().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` returned."""
        for key, owner in self._owners().items():
            setattr(owner, key, tensors[key].clone())

    def _owners(self) -> dict[str, Any]:
        own = ("sample_maxima", "sampled", "class_sums", "class_counts")
        bins = ("counts", "exponent", "first", "low", "high")
        return dict.fromkeys(own, self) | dict.fromkeys(bins, self.histogram)

    def of(self, columns: slice) -> dict[str, Any]:
        """Return the statistics of some units under the names that `MinedLayer` has for them."""
        counts, starts, widths = self.histogram.of(columns)
        found: dict[str, Any] = {
            "histogram": counts,
            "histogram_start": starts,
            "histogram_width": widths,
            "sample_maxima": self.sample_maxima[self.sampled, columns].numpy(),
        }
        if int(self.class_counts.sum()):
            with np.errstate(invalid="ignore"):
                means = self.class_sums[:, columns].numpy() / self.class_counts.numpy()[:, None]
            found["class_means"] = means.astype(np.float32)
        return found


class DyadicHistogram:
    """Histograms of values that arrive in batches, whose range nobody knows in advance.

    A bin is a power of two wide, at least what float32 resolves at the largest value, and begins at a multiple of its
    width. When the values outgrow the 64 bins, neighbours are merged two by two, which is exact: the result depends
    on the values alone, not on their order or the batches.
    """

    def __init__(self, units: int) -> None:
        self.counts = torch.zeros(units, BINS, dtype=torch.int64)
        self.exponent = torch.full((units,), -60, dtype=torch.int64)
        self.first = torch.zeros(units, dtype=torch.int64)
        self.low = torch.full((units,), torch.inf, dtype=torch.float64)
        self.high = torch.full((units,), -torch.inf, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Count values [B, units]."""
        low, high = torch.aminmax(values.double(), dim=0)
        grown = (low < self.low) | (high > self.high)
        if bool(grown.any()):
            self._make_room(grown, low, high)
        bins = (values.double() / torch.exp2(self.exponent.double())).floor_().long().sub_(self.first)
        self.counts.scatter_add_(1, bins.t(), torch.ones_like(bins).t())

    def _make_room(self, grown: Tensor, low: Tensor, high: Tensor) -> None:
        units = grown.nonzero()[:, 0]
        low = torch.minimum(self.low, low)[units]
        high = torch.maximum(self.high, high)[units]
        # a narrower bin would tell nothing apart, and its number would not fit into an integer
        largest = torch.maximum(-low, high).clamp(min=torch.finfo(torch.float32).tiny)
        resolution = torch.frexp(largest).exponent.long() - 24
        exponent = torch.maximum(self.exponent[units], resolution)
        span = torch.floor(high / torch.exp2(exponent.double())) - torch.floor(low / torch.exp2(exponent.double()))
        # a span of n bins shrinks to between n/2^s and n/2^s + 1: start just below the answer and step up to it
        exponent += (torch.log2(span.clamp(min=1) / BINS).floor().long() - 1).clamp(min=0)
        while True:
            width = torch.exp2(exponent.double())
            first, last = torch.floor(low / width), torch.floor(high / width)
            too_many = last - first >= BINS
            if not bool(too_many.any()):
                break
            exponent += too_many
        first = first.long()
        old = self.first[units][:, None] + torch.arange(BINS)
        moved = (old >> (exponent - self.exponent[units])[:, None]) - first[:, None]
        counts = torch.zeros(len(units), BINS, dtype=torch.int64)
        # empty old bins may fall outside: they carry no count anywhere
        counts.scatter_add_(1, moved.clamp(0, BINS - 1), self.counts[units])
        self.counts[units], self.exponent[units], self.first[units] = counts, exponent, first
        self.low[units], self.high[units] = low, high

    def of(self, columns: slice) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return counts [C, 64], where bin 0 begins [C] and the bins' width [C]."""
        width = torch.exp2(self.exponent[columns].double())
        return self.counts[columns].numpy().copy(), (self.first[columns] * width).numpy(), width.numpy()
