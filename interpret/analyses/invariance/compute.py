"""The invariance probe: how far a network's features move as its input is moved, scaled, turned or lit otherwise."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from interpret.analyses.invariance.result import InvarianceCurves, quotient
from interpret.analyses.invariance.transforms import (
    FILLS,
    INTERPOLATION,
    Box,
    Direction,
    Fill,
    Levels,
    Photometric,
    Scene,
    Transform,
    Translation,
    checked_reach,
    named_transform,
    surround,
)
from interpret.execution.execution import Execution, prepared
from interpret.execution.parallel import images_at_once, most_workers
from interpret.execution.resume import Unfinished, pack, unpack
from interpret.images.batches import Batch, batches
from interpret.images.display import shrink, to_bytes
from interpret.images.folder import UnreadableImage
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.answers import NoScores, Reading, find_reading, scores_of
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import WITH_UNITS, first_outputs
from interpret.network.model import Model, as_model
from interpret.network.modes import frozen
from interpret.support.errors import InterpretError, unknown
from interpret.support.progress import progress
from interpret.tracing.tracing import Layer, layer_with_units, select_traced, trace

VALUES_AT_ONCE = 32
"""How many values of one image are one job, which runs the untransformed image once more; jobs run side by side."""
NUMBERS_AT_ONCE = 2**20
"""How many activations are compared together: their differences stay in a processor's cache."""
NO_REDUCTION = 0
"""That of torch's losses, by its number."""
EXAMPLES, EXAMPLE_VALUES, EXAMPLE_SIDE = 5, 5, 96
"""Images, values and pixels of the pictures that a figure shows."""

Shift = tuple[float, float]


def probe(
    model: Model | nn.Module,
    images: Any,
    transform: str | Transform,
    values: Iterable[float] | None = None,
    layers: str | Iterable[str] | None = None,
    labels: Iterable[int] | str | None = None,
    *,
    direction: Direction | None = None,
    fill: Fill | None = None,
    items: Iterable[int] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> InvarianceCurves:
    """Measure how far each layer's features move under a transform, and how sure the network stays.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> curves = probe(network, images, "translation", [-2, -1, 0, 1], labels=[0, 1, 1])
    >>> curves.distances["0"].shape, curves.probabilities.shape
    ((3, 4), (3, 4))
    >>> curves.distances["0"][:, 2]
    array([0., 0., 0.], dtype=float32)
    >>> curves.unit_distances["0"].shape
    (4, 4)

    The untransformed image goes through the network once for every job of up to 32 values, transformed ones in
    batches; all layers are compared as they return, and nothing but distances is kept, so that memory does not depend
    on how many images and values there are. Values between pixels are found bilinearly, from as many samples as an
    image that shrinks needs; a translation by whole pixels copies them. See `interpret.analyses.invariance.transforms`
    for what each transform does: "translation", "scale", "rotation", "illumination", "contrast", "blur", "noise",
    "viewpoint".

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        images: [B, C, H, W], or whatever `interpret.open_images` opens.
        transform: a name, or a `Transform` of your own.
        values: pixels, ratios or degrees; None: the paper's −60 … 60 pixels (of 224), 1 … 1.8 and 0 … 350 degrees,
            and for the other transforms a range on both sides of what still can be recognised.
        layers: names or globs; None: every convolutional and linear layer. Of globs, the layers that run.
        labels: B indices of the network's outputs, −1 for none; "predicted": what the network says of the
            untransformed image; None: those of the images, where they have any.
        direction: of a translation: "vertical" (the default), "horizontal" or "diagonal".
        fill: what comes into the picture: "context", the larger photograph that the image was cut from, and beyond
            its edge its reflection; "reflect", "edge", "mean" (the image's own) or "black". None: "context" where the
            source is larger than the input, otherwise "reflect".
        items: which of the images; None: all.
        batch_size: how many inputs run together; see `interpret`.
        workers: processes that decode images; 0: this one.
        seed: chooses the noise.
        device: where the network runs; None: where its parameters are.
        resume_from: a file that keeps what is done, from time to time and at the end, an interrupt's, too, so that the
            same call goes on from there; it stays until you delete it. None: nothing is kept.

    Returns:
        Distances, norms, probabilities and the rest, with rows for the images that decode, in their order.

    Raises:
        InterpretError: an unknown transform, direction, layer or fill; values that are not finite or that the
            transform cannot take, such as a scale of 0 or less; labels that are not one an image or not among the
            network's outputs; images that do not decode or do not fit the network; features that are not finite.

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.1 and figure 5.
    The paper leaves open what comes into the picture as it moves, and how values between pixels are found; both are
    choices here, kept in the result. It plots distances in the first and the seventh layer, and does not say whether
    it divides them: here are both, distances and norms.

    The equivariance error of a layer asks whether what changed has merely moved: it translates the features of the
    untransformed image by the translation over the layer's stride and takes the Euclidean distance to the features of
    the translated image, over the norm of the former. A translation that is no multiple of the stride interpolates
    linearly between neighbouring positions. Positions that come in over the border have nothing to be compared with
    and are left out, in both; NaN where none is left. Layers without positions have no such error. The stride is
    that of the local field, or, after an operation that mixes the whole image, the ratio of sizes, rounded.

    How the network's outputs become probabilities, `interpret.network.answers` finds out on the first image, or the
    model's `outputs` says. One output for each image is the score of the second of two classes.
    """
    model = as_model(model)
    data = open_images(images, model)
    chosen = _checked_items(items, len(data))
    first = _first_input(data, chosen)
    refuse_other_type(model.module, first)
    size = (first.shape[1], first.shape[2])
    change = named_transform(transform, direction)
    wanted = change.defaults(size) if values is None else change.checked(values)
    box = checked_reach(change, wanted.tolist(), size)
    filled = _checked_fill(fill, data, chosen, size)
    levels = Levels.of(model.preprocess, len(first))
    surrounded = _Surrounded(data, chosen, first.shape, box, filled, levels.black)
    prober = _Prober(model, first, change, wanted, layers, levels, box, chosen, seed)
    labelling = _Labelling(labels, chosen, data, model, None if prober.reading is None else prober.reading.classes)
    group, spans = prober.plan(batch_size)
    curves = _Curves(prober, surrounded, group, len(spans))
    unfinished = Unfinished.of(
        resume_from,
        model,
        data,
        transform=[type(change).__qualname__, {key: repr(value) for key, value in vars(change).items()}],
        values=wanted.tolist(),
        layers=prober.layers,
        labels=labelling.settings,
        fill=filled,
        items=chosen,
        seed=seed,
    )
    curves.restore(unfinished.load())

    def jobs(run: Execution) -> Iterator[Callable[[nn.Module], _Look]]:
        for batch in batches(surrounded, group, workers, start=curves.seen_items):
            said = labelling.of(batch)
            for span in spans:
                yield partial(prober.look, batch=batch, labels=said, span=span, run=run)

    total, done = len(chosen) * len(wanted), curves.seen_items * len(wanted)
    until = prober.layers if prober.reading is None else None
    with prepared(model, first[None], device, until) as run, progress(total, "probing", "img", done) as bar:

        def take(look: _Look) -> None:
            curves.take(look)
            bar.update(look.distances[prober.layers[0]].size)

        unfinished.take_all(run.side_by_side(jobs(run)), take, curves.state)
    data.skipped.update(surrounded.skipped)
    result = curves.result()
    result.direction = change.direction if isinstance(change, Translation) else ""
    result.predicted = labelling.predicted
    result.model, result.data, result.seed = model.name, data.name, seed
    if prober.reading is not None:
        result.outputs, result.part = prober.reading.outputs, prober.reading.part
    if not isinstance(change, Photometric):  # which leaves all pixels where they are
        result.fill, result.interpolation = filled, INTERPOLATION
    _illustrate(result, model, data, surrounded, prober)
    return result


def _checked_items(items: Iterable[int] | None, count: int) -> list[int]:
    chosen = list(range(count)) if items is None else [int(item) for item in items]
    if not chosen:
        raise InterpretError("items is empty: name at least one image, or leave it out for all")
    for item in chosen:
        if not 0 <= item < count:
            raise InterpretError(f"items must be from 0 to {count - 1}, not {item}")
    return chosen


def _first_input(data: Images, chosen: Sequence[int]) -> Tensor:
    """Return the first input that decodes."""
    reason: UnreadableImage | None = None
    for item in chosen:
        try:
            return data[item][0]
        except UnreadableImage as error:
            reason = reason or error
    raise InterpretError(f"none of the images can be read: {reason}")


def _checked_fill(fill: Fill | None, data: Images, chosen: Sequence[int], size: tuple[int, int]) -> Fill:
    """Return the fill asked for, or the one that suits the data."""
    if fill is not None and fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    if fill not in (None, "context"):
        return fill
    if any(_has_surroundings(data, item, size) for item in chosen[:8]):
        return "context"
    if fill == "context":
        raise InterpretError(
            f"fill='context' needs photographs that reach beyond the input, and those of data {data.name!r} do not: "
            "choose reflect, edge, mean or black, or a preprocessing that resizes to more than it cuts out"
        )
    return "reflect"


def _has_surroundings(data: Images, item: int, size: tuple[int, int]) -> bool:
    try:
        part, _ = data.surroundings(item, (-1, -1, size[0] + 1, size[1] + 1))
    except UnreadableImage:
        return False
    return part.shape != data[item][0].shape


class _Surrounded(Images):
    """Some of the images with all that a transform looks at around them, as [C + 1, h, w]; see `surround`."""

    def __init__(
        self, data: Images, chosen: Sequence[int], shape: Sequence[int], box: Box, fill: Fill, black: Tensor
    ) -> None:
        places = np.array(chosen)
        super().__init__(data.name, data.sources[places], data.labels[places], data.classes)
        self.data, self.chosen, self.shape = data, chosen, tuple(shape)
        self.box, self.fill, self.black = box, fill, black

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        original = self.chosen[item]
        if self.fill == "context":
            part, corner = self.data.surroundings(original, self.box)
            label = int(self.data.labels[original])
        else:
            (part, label), corner = self.data[original], (0, 0)
            if tuple(part.shape) != self.shape:
                raise InterpretError(
                    f"images of one data set must have one shape, not {list(self.shape)} and {list(part.shape)}"
                )
        return surround(part, corner, self.box, self.fill, self.black), label

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def source_name(self, source: int) -> str:
        return self.data.source_name(source)

    def source_picture(self, source: int) -> Image.Image:
        return self.data.source_picture(source)


class _Labelling:
    """Which output of the network is the right one for each image."""

    def __init__(
        self, labels: Iterable[int] | str | None, chosen: Sequence[int], data: Images, model: Model, outputs: int | None
    ) -> None:
        self.outputs = outputs
        self.predicted = False
        self.given: Tensor | None = None
        # a folder's own classes are not the network's
        self.known = outputs is not None and (
            None in (data.classes, model.classes) or tuple(data.classes or ()) == tuple(model.classes or ())
        )
        self.settings: Any = [self.known, data.labels[list(chosen)].tolist()]
        """What tells one labelling from another."""
        if labels is None:
            return
        if outputs is None:
            raise InterpretError(
                f"model {model.name!r} returns no row of classes, so that there are no probabilities: leave labels out"
            )
        if isinstance(labels, str):
            if labels != "predicted":
                raise InterpretError(f"labels must be indices of classes, 'predicted' or None, not {labels!r}")
            self.predicted, self.settings = True, labels
            return
        try:
            given = [int(label) for label in labels]
        except (TypeError, ValueError):
            raise InterpretError(f"labels must be whole numbers, one an image, not {labels!r}") from None
        if len(given) != len(chosen):
            raise InterpretError(f"labels must be one for each of the {len(chosen)} images, not {len(given)}")
        self._check(given)
        self.given, self.settings = torch.tensor(given), given

    def of(self, batch: Batch) -> Tensor | None:
        """Return the labels of a batch, −1 for none; None where the network says them itself."""
        if self.predicted:
            return None
        if self.given is not None:
            return self.given[batch.items]
        if not self.known:
            return torch.full_like(batch.labels, -1)
        self._check(batch.labels.tolist())
        return batch.labels

    def _check(self, labels: Iterable[int]) -> None:
        for label in labels:
            if not -1 <= label < (self.outputs or 0):
                raise InterpretError(
                    f"labels must be from 0 to {(self.outputs or 0) - 1}, the network's outputs, or -1 for none, "
                    f"not {label}"
                )


@dataclass
class _Look:
    """What a job saw: n images at v values."""

    rows: list[int]
    items: list[int]
    columns: list[int]
    distances: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [n, v]"""
    norms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [n]"""
    unit_distances: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [C, v], sums over the images"""
    unit_norms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [C], likewise"""
    moved: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [2, n, v]: distance to the moved features, and their norm, where there is something to compare"""
    unit_moved: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Layer to [2, C, v], sums over the images"""
    invented: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """[n, v]"""
    labels: NDArray[np.int64] | None = None
    """[n]"""
    probabilities: NDArray[np.float64] | None = None
    """[n, 1 + v], of the untransformed image first"""
    top: NDArray[np.int64] | None = None
    """[n, 1 + v], likewise"""


class _Prober:
    """Runs transformed inputs and compares what every layer makes of them with what it made of the untransformed."""

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
    ) -> None:
        self.change, self.values, self.levels, self.seed = change, values, levels, seed
        self.box, self.items = box, items
        self.size = (first.shape[1], first.shape[2])
        self.kind: Any = np.float64 if first.dtype == torch.float64 else np.float32
        traced = trace(model, tuple(first.shape))
        self.layers = _in_order(model.module, layers, traced)
        self.strides: dict[str, tuple[int, int]] = {}
        if isinstance(change, Translation):
            found = {name: _stride(traced[name], self.size) for name in self.layers}
            self.strides = {name: stride for name, stride in found.items() if stride is not None}
        self.reading = _find_reading(model, first)

    def plan(self, batch_size: int | None) -> tuple[int, list[list[int]]]:
        """Return how many images go together, and the columns of the values of each job.

        Images that go together share what a transform works out of a value, and values what is kept of an image; the
        more of one, the fewer of the other fit a pass. About twice as many images as values were fastest, on small
        networks and large ones; but no more than a quarter of a pass, for what is kept of them not to take more.
        """
        if batch_size is not None and batch_size < 1:
            raise InterpretError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size or images_at_once(self.size[0] * self.size[1])
        moving = [column for column, value in enumerate(self.values) if not self.change.is_identity(value)]
        # values that move layers by the same part of their strides follow each other, from the finest stride on
        strides = sorted(set(self.strides.values()))
        moving.sort(key=lambda column: [part % 1 for stride in strides for part in self._shift(stride, column)])
        spans = np.array_split(moving, max(1, math.ceil(len(moving) / VALUES_AT_ONCE)))
        some = min(round(math.sqrt(2 * self.batch_size)), self.batch_size // 4)
        fair = len(self.items) * len(spans) // most_workers()  # so that each has something to do
        group = max(1, min(some, fair), self.batch_size // max(1, len(moving)))
        return group, [span.astype(int).tolist() for span in spans]

    def scene(self, canvas: Tensor, rows: Iterable[int]) -> Scene:
        corner = (-self.box[0], -self.box[1])
        items = tuple(self.items[row] for row in rows)
        return Scene(canvas, corner, self.size, self.levels.to(canvas), items, self.seed)

    def look(self, module: nn.Module, batch: Batch, labels: Tensor | None, span: list[int], run: Execution) -> _Look:
        rows = batch.items.tolist()
        scene = self.scene(batch.images.to(run.device), rows)
        look = _Look(rows, [self.items[row] for row in rows], span)
        references: dict[str, Tensor] = {}
        movers: dict[str, _Mover] = {}
        scratch = _Scratch()
        squares: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        moved: dict[str, list[Tensor]] = {name: [] for name in self.strides}
        invented = [torch.zeros(len(rows), 0, dtype=torch.float64, device=run.device)]
        together: list[int] = []  # the columns that are in the batch

        def keep(name: str, output: Tensor) -> None:
            references[name] = output.clone()  # what comes after may rectify it in place
            if name in self.strides:
                movers[name] = _Mover(references[name])

        def compare(name: str, output: Tensor) -> None:
            output = output.unflatten(0, (len(rows), len(together)))
            squares[name].append(scratch.squared_distances(output, references[name][:, None]))
            if name in self.strides:
                pairs = zip(output.split(1, 1), together, strict=True)
                far_and_near = [
                    movers[name].squares(one, self._shift(self.strides[name], column), scratch) for one, column in pairs
                ]
                moved[name].append(torch.cat(far_and_near, 2))

        with torch.inference_mode():
            outputs = [self._run(module, scene.window(), run, keep)[:, None]]
            for start in range(0, len(span), per_pass := max(1, self.batch_size // len(rows))):
                together[:] = span[start : start + per_pass]
                changed = torch.stack([self.change(scene, float(self.values[column])) for column in together], 1)
                invented.append(1 - changed[:, :, -1].double().mean((2, 3)))
                outputs.append(self._run(module, changed.flatten(0, 1), run, compare).unflatten(0, (len(rows), -1)))
            for name, reference in references.items():
                lengths = (
                    reference.flatten(2).square().sum(2).double()
                    if reference.dim() > 2
                    else reference.square().double()
                )
                _summarise(look, name, lengths, squares[name], moved.get(name, []))
            if self.reading is not None:
                _read_classes(look, torch.cat(outputs, 1), self.reading, labels)
        look.invented = torch.cat(invented, 1).cpu().numpy()
        return look

    def _run(self, module: nn.Module, inputs: Tensor, run: Execution, receive: Callable[[str, Tensor], None]) -> Tensor:
        """Run inputs, of which the last channel says where they are filled."""
        images = run.place(inputs[:, :-1])
        with first_outputs(module, self.layers, receive, count=len(images)):
            outputs = call_network(module, images)
        return scores_of(outputs, len(images)) if self.reading is not None else images.new_zeros(len(images), 1)

    def _shift(self, stride: tuple[int, int], column: int) -> Shift:
        """Return by how many positions of a layer a value moves."""
        assert isinstance(self.change, Translation)
        down, right = self.change.shift(float(self.values[column]))
        return down / stride[0], right / stride[1]


def _in_order(module: nn.Module, layers: str | Iterable[str] | None, traced: Mapping[str, Layer]) -> list[str]:
    """Return the layers to probe, in the order of execution."""
    selected = select_traced(module, traced, layers)
    for name in selected:
        if not isinstance(module.get_submodule(name), WITH_UNITS):  # of these it is known where their units are
            layer_with_units(module, traced, name)
    return [name for name in traced if name in selected]


def _stride(layer: Layer, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return how many pixels of the input lie between a layer's positions; None where it has no positions."""
    if len(layer.output_shape) != 3:
        return None
    axes = layer.axes or (-2, -1)
    positions = layer.output_shape[axes[0]], layer.output_shape[axes[1]]
    if positions == (1, 1):
        return None
    if layer.local_field is not None:
        return layer.local_field.stride
    return max(1, round(size[0] / positions[0])), max(1, round(size[1] / positions[1]))


def _find_reading(model: Model, first: Tensor) -> Reading | None:
    """Return how the network's outputs are read as probabilities; None where they are no row of classes."""
    parameter = next(model.module.parameters(), first)
    with frozen(model.module), torch.inference_mode():
        try:
            return find_reading(model, first[None].to(parameter.device))
        except NoScores:
            return None


class _Scratch:
    """Memory for differences, taken once: to ask for it each time costs as much as the subtraction."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def squared_distances(self, far: Tensor, near: Tensor) -> Tensor:
        """Return squared distances [n, v, C] of far [n, v, C, …] to near [n, 1, C, …], summed over positions."""
        if far.dim() == 3:
            far, near = far[..., None], near[..., None]
        # units last, as channels-last has them in memory, for sums over positions to add up whole rows
        far, near = far.movedim(2, -1), near.movedim(2, -1)
        return self._summed(far, near.expand_as(far))

    def _summed(self, far: Tensor, near: Tensor) -> Tensor:
        """Return the sums over … of (far − near)², both [n, v, …, C], half by half where they are large."""
        splits = [axis for axis in (0, 1, 2) if far.shape[axis] > 1]
        if far.numel() <= NUMBERS_AT_ONCE or not splits:
            return self._squared_difference(far, near).sum(tuple(range(2, far.dim() - 1))).double()
        axis = splits[0]
        halves = zip(far.tensor_split(2, axis), near.tensor_split(2, axis), strict=True)
        first, second = (self._summed(*both) for both in halves)
        return torch.cat([first, second], axis) if axis < 2 else first + second

    def _squared_difference(self, left: Tensor, right: Tensor) -> Tensor:
        """Return (left − right)², laid out as `left` is, until the next call."""
        count = left.numel()
        if self._memory.numel() < count or self._memory.dtype != left.dtype:
            self._memory = left.new_empty(count)
        n, v, *positions, units = left.shape
        if left.stride(-1) > left.stride(-2):  # channels first
            memory = self._memory[:count].view(n, v, units, *positions).movedim(2, -1)
        else:
            memory = self._memory[:count].view(left.shape)
        # the difference and its square in one pass over both
        squared: Tensor = torch.ops.aten.mse_loss.out(left, right, NO_REDUCTION, out=memory)
        return squared


class _Mover:
    """Moves the features of untransformed images [n, C, h, w], and remembers what lies between positions."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self._between = _Between((0.0, 0.0), maps)

    def squares(self, output: Tensor, shift: Shift, scratch: _Scratch) -> Tensor:
        """Return [2, n, 1, C]: squared distances of the output to the moved maps, and the squared norms of these.

        Args:
            output: [n, 1, C, h, w]
            shift: by how many positions the maps move down and to the right.
            scratch: memory for the differences.
        """
        known, norms, (rows, columns) = self.moved(shift)
        if known.numel() == 0:
            return output.new_full((2, *output.shape[:3]), math.nan, dtype=torch.float64)
        far = scratch.squared_distances(output[..., rows, columns], known[:, None])
        return torch.stack([far, norms[:, None]])

    def moved(self, shift: Shift) -> tuple[Tensor, Tensor, tuple[slice, slice]]:
        """Return what is known of the moved maps, its squared norms [n, C], and where it lies.

        >>> mover = _Mover(torch.tensor([[[[1.0, 2.0, 4.0]]]]))
        >>> mover.moved((0, 1))
        (tensor([[[[1., 2.]]]]), tensor([[5.]], dtype=torch.float64), (slice(0, 1, None), slice(1, 3, None)))
        >>> mover.moved((0, -0.5))[0]
        tensor([[[[1.5000, 3.0000]]]])
        """
        whole = math.floor(shift[0]), math.floor(shift[1])
        part = shift[0] - whole[0], shift[1] - whole[1]
        if self._between.part != part:
            self._between = _Between(part, self.maps)
        there, known = [], []
        for axis, steps in zip((2, 3), whole, strict=True):
            length, count = self.maps.shape[axis], self._between.maps.shape[axis]
            first = steps + length - count  # what lies between positions is known from the second one on
            low = max(0, first)
            high = max(low, min(length, first + count))
            there.append(slice(low, high))
            known.append(slice(low - first, high - first))
        return *self._between.cut(known[0], known[1]), (there[0], there[1])


class _Between:
    """Maps [n, C, h, w], moved down and to the right by less than one position, where they are known."""

    def __init__(self, part: Shift, maps: Tensor) -> None:
        self.part = part
        for axis, share in zip((2, 3), part, strict=True):
            if share > 0:
                # moved by half a position, a value lies between its own and the one before
                length = maps.shape[axis] - 1
                maps = torch.lerp(maps.narrow(axis, 1, length), maps.narrow(axis, 0, length), share)
        self.maps = maps
        squares = maps.square()
        self.row_norms, self.column_norms = squares.sum(3).double(), squares.sum(2).double()

    def cut(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return some rows and columns, and their squared norms [n, C]."""
        maps = self.maps[:, :, rows, columns]
        if maps.shape[3] == self.maps.shape[3]:
            return maps, self.row_norms[:, :, rows].sum(2)
        if maps.shape[2] == self.maps.shape[2]:
            return maps, self.column_norms[:, :, columns].sum(2)
        return maps, maps.square().sum((2, 3)).double()


def _summarise(look: _Look, name: str, lengths: Tensor, squares: list[Tensor], moved: list[Tensor]) -> None:
    """Take a layer's squared distances as distances of the layer, and of its units over all images."""
    far = torch.cat([lengths[:, None], *squares], 1)
    finite = torch.isfinite(far).flatten(1).all(1).tolist()
    if not all(finite):
        raise InterpretError(
            f"layer {name!r} gives NaN or infinity on image {look.items[finite.index(False)]}: "
            "check the image and the network's weights"
        )
    far = far[:, 1:]
    look.norms[name] = lengths.sum(1).sqrt().cpu().numpy()
    look.unit_norms[name] = lengths.sqrt().sum(0).cpu().numpy()
    look.distances[name] = far.sum(2).sqrt().cpu().numpy()
    look.unit_distances[name] = far.sqrt().sum(0).T.cpu().numpy()
    if moved:
        pair = torch.cat(moved, 2)
        look.moved[name] = pair.sum(3).sqrt().cpu().numpy()
        look.unit_moved[name] = pair.sqrt().sum(1).mT.cpu().numpy()


def _read_classes(look: _Look, outputs: Tensor, reading: Reading, labels: Tensor | None) -> None:
    """Take the most probable class and the label's probability from outputs [n, 1 + v, K]."""
    flat = outputs.flatten(0, 1)
    look.top = reading.best(flat).unflatten(0, outputs.shape[:2]).cpu().numpy()
    told = torch.from_numpy(look.top[:, 0]) if labels is None else labels
    shares = reading.probabilities(flat).unflatten(0, outputs.shape[:2]).cpu()
    index = told.clamp(min=0)[:, None, None].expand(-1, shares.shape[1], 1)
    chosen = shares.gather(2, index)[:, :, 0]
    chosen[told < 0] = math.nan
    look.labels, look.probabilities = told.numpy(), chosen.numpy()


class _Curves:
    """The curves as the looks come in."""

    BY_IMAGE = ("seen", "labels", "probabilities", "top", "invented")
    BY_LAYER = ("distances", "norms", "equivariance", "units", "unit_norms", "units_moved")

    def __init__(self, prober: _Prober, images: Images, group: int, jobs: int) -> None:
        self.prober, self.images = prober, images
        self.group, self.jobs = group, jobs
        """How many images go together, and how many looks there are at them."""
        self.first = 0
        """Where the first group begins."""
        self.seen_items = 0
        """Where to go on: one past the last group that has been taken in."""
        self._waiting: list[_Look] = []
        self.seen = np.zeros(len(images), bool)
        shape, layers = (len(images), len(prober.values)), prober.layers
        self.still = [column for column, value in enumerate(prober.values) if prober.change.is_identity(value)]
        self.distances = {name: np.zeros(shape, prober.kind) for name in layers}
        self.norms = {name: np.zeros(len(images), prober.kind) for name in layers}
        self.equivariance = {name: np.zeros(shape, prober.kind) for name in prober.strides}
        # of the units, sums over the images: of distances and of norms
        self.units: dict[str, NDArray[np.float64]] = {}
        self.unit_norms: dict[str, NDArray[np.float64]] = {}
        self.units_moved: dict[str, NDArray[np.float64]] = {}
        self.labels = np.full(len(images), -1, np.int64)
        self.probabilities = np.full(shape, np.nan, prober.kind)
        self.top = np.zeros(shape, np.int64)
        self.invented = np.zeros(shape)

    def state(self) -> dict[str, Tensor]:
        """Return all that was taken in up to now as tensors, for `restore` to go on from."""
        if not self.seen_items:
            return {}
        arrays = {key: getattr(self, key) for key in self.BY_IMAGE}
        arrays |= {f"{key}/{name}": array for key in self.BY_LAYER for name, array in getattr(self, key).items()}
        state = {key: torch.tensor(array) for key, array in arrays.items()}
        return state | {"seen_items": torch.tensor(self.seen_items), "skipped": pack(self.images.skipped)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of other curves of the same model, data and settings."""
        if not state:
            return
        self.first = self.seen_items = int(state.pop("seen_items"))
        self.images.skipped.update(unpack(state.pop("skipped")))
        for key, tensor in state.items():
            kind, of_layer, name = key.partition("/")
            if of_layer:
                getattr(self, kind)[name] = tensor.numpy().copy()
            else:
                setattr(self, kind, tensor.numpy().copy())

    def take(self, look: _Look) -> None:
        """Take a look in, together with the others at the same images, so that these are done wholly or not at all."""
        self._waiting.append(look)
        if len(self._waiting) == self.jobs:
            for one in self._waiting:
                self._add(one)
            self._waiting = []
            groups = (look.rows[-1] - self.first) // self.group + 1
            self.seen_items = min(self.first + groups * self.group, len(self.images))

    def _add(self, look: _Look) -> None:
        first = not self.seen[look.rows[0]]
        self.seen[look.rows] = True
        places = np.ix_(look.rows, look.columns)
        count = len(self.prober.values)
        for name in self.prober.layers:
            self.distances[name][places] = look.distances[name]
            units = self.units.setdefault(name, np.zeros((len(look.unit_norms[name]), count)))
            units[:, look.columns] += look.unit_distances[name]
            if first:
                self.norms[name][look.rows] = look.norms[name]
                self.unit_norms[name] = self.unit_norms.get(name, 0) + look.unit_norms[name]
        for name, (far, near) in look.moved.items():
            self.equivariance[name][places] = quotient(far, near)
            still = np.where(self.norms[name][look.rows] > 0, 0, np.nan)
            self.equivariance[name][np.ix_(look.rows, self.still)] = still[:, None]
            moved = self.units_moved.setdefault(name, np.zeros((2, len(self.units[name]), count)))
            moved[:, :, look.columns] += look.unit_moved[name]
        self.invented[places] = look.invented
        if look.top is not None and look.probabilities is not None and look.labels is not None:
            self.labels[look.rows] = look.labels
            columns = [*([0] * len(self.still)), *range(1, look.top.shape[1])]
            places = np.ix_(look.rows, self.still + look.columns)
            self.top[places] = look.top[:, columns]
            self.probabilities[places] = look.probabilities[:, columns]

    def result(self) -> InvarianceCurves:
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
                name: quotient(self.units[name], self.unit_norms[name][:, None]).astype(self.prober.kind)
                for name in self.prober.layers
            },
            equivariance={name: errors[rows] for name, errors in self.equivariance.items()},
            probabilities=self.probabilities[rows] if has_labels else None,
            labels=self.labels[rows] if has_labels else None,
            top=self.top[rows] if has_classes else None,
            invented=self.invented[rows].mean(0).round(6),  # the weights of four neighbours only nearly add up to 1
            items=np.array([self.prober.items[row] for row in rows], np.int64),
        )
        for name in [name for name in self.prober.strides if name in self.units_moved]:
            errors = quotient(*self.units_moved[name])
            errors[:, self.still] = np.where(self.unit_norms[name] > 0, 0, np.nan)[:, None]
            result.unit_equivariance[name] = errors.astype(self.prober.kind)
        return result


def _illustrate(result: InvarianceCurves, model: Model, data: Images, surrounded: _Surrounded, prober: _Prober) -> None:
    """Add pictures of a few images at a few values, both spread over those that were probed."""
    assert result.items is not None
    values = np.unique(result.values)
    shown, rows = values[_spread(len(values), EXAMPLE_VALUES)], _spread(len(result.items), EXAMPLES)
    pictures, names = [], []
    for place in rows.tolist():
        item = int(result.items[place])
        row = prober.items.index(item)
        scene = prober.scene(surrounded[row][0][None], [row])
        inputs = torch.cat([prober.change(scene, float(value))[:, :-1] for value in shown]).float()
        pictures.append(to_bytes(shrink(data.pixel_scale.display(inputs), EXAMPLE_SIDE)))
        label = -1 if result.labels is None else int(result.labels[place])
        if label >= 0:
            names.append(model.classes[label] if model.classes is not None else str(label))
        else:
            names.append(data.source_name(int(data.sources[item])))
    result.examples, result.example_rows, result.example_values = np.stack(pictures), rows, shown
    result.shown = data.pixel_scale.said
    result.names = names


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many places of `count`, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
