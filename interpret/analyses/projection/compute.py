"""Projection: what in the image a neuron answers to, as a signal passed back from it to the pixels."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.projection.result import Projections
from interpret.backprop.rules import BackwardRule, Overlap, Rule
from interpret.execution.batch_size import batch_size_for
from interpret.execution.execution import Execution, on_device, prepared
from interpret.execution.parallel import images_at_once
from interpret.images.batches import first_images
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.images.several_inputs import SeveralImages, as_one, is_several, open_together
from interpret.images.sources import Images
from interpret.network.dry_run import check_answers
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import first_outputs
from interpret.network.model import Model, as_model
from interpret.network.weights import copied
from interpret.support.errors import InterpretError, unknown
from interpret.support.progress import progress
from interpret.tracing.tracing import Layer, layer_with_units, trace

Start = Literal["activation", "one"]

LARGE = 0.6
"""The share of an image from which on a part is not worth cutting: the whole image's forward pass serves all hits."""
EVEN = 0.75
"""How many hits an image needs, as a share of the most, to run together with the one that has the most."""
POOL = 128
"""How many whole images wait to be sorted by their number of hits."""


@torch.inference_mode(False)  # whose caller may be in it
def project(
    model: Model | nn.Module,
    images: Any,
    layer: str,
    channels: int | Sequence[int] | Tensor,
    positions: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
    rule: Rule = "deconvnet",
    *,
    items: Sequence[int] | None = None,
    start: Start = "activation",
    overlap: Overlap = "add",
    strict: bool = False,
    to: str | int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> Projections:
    """Project one neuron of each image, or several neurons of one image, back to the pixels.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))
    >>> images = torch.rand(2, 3, 32, 32)
    >>> projections = project(network, images, "3", channels=1)
    >>> projections.pixels.shape, projections.boxes.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 4]))
    >>> projections.full((32, 32)).shape
    torch.Size([2, 3, 32, 32])
    >>> project(network, images[:1], "3", channels=[0, 1, 2]).pixels.shape
    torch.Size([3, 3, 8, 8])

    The signal starts as the neuron's activation and passes down by the rule (Zeiler & Fergus 2014, section 2.1: all
    other activations of the layer are set to zero, and the map goes through unpooling, rectification and filtering).
    Only the part of the image that the neuron sees is run, where the network allows it; the result is that of the
    whole image. The window is the layer's local field (see `interpret.Layer`): a gate behind which the layer lies may
    see more, and is held constant. The rule "gradient" holds none, and has the receptive field for its window.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        images: B of them, [B, C, H, W] as the module takes them, or anything else that `interpret.open_images` takes;
            the result has the inputs' type and lies where they do. One image serves all of several channels or
            positions. For a network of several inputs a tuple or a dict of them, each [B, …]; then whole images run.
        layer: the layer whose neurons are projected, by name.
        channels: the neuron's channel, one for all or one for each image.
        positions: its (row, column) in the feature map, one for all or one for each image; None: where the channel
            is strongest.
        rule: "deconvnet", "guided" or "gradient"; see `interpret.BackwardRule`.
        items: which of the images, in this order; None: all.
        start: "activation" starts with the neuron's value, as the paper does, "one" with 1, as a gradient does.
        overlap: what shared switches of overlapping max-pooling windows do: "add" up, or "overwrite", which needs
            the whole image.
        strict: raise where the rule does not cover an operation, instead of warning.
        to: which of several inputs is projected to, by its name or place, the others being constants; None: the first
            of floats [B, C, H, W].
        batch_size, device: how the network runs; see `interpret`. What runs are the parts of the images that neurons
            see, where the network allows it, so that many fit.

    Raises:
        InterpretError: an unknown layer or rule, a channel or position that the layer does not have, images that the
            network cannot take.

    Warns:
        UncoveredOperation: the network has an operation that is neither linear nor covered by the rule.
    """
    model = as_model(model)
    if is_several(images):
        model, packed, packing = as_one(model, images, to)
        images = SeveralImages(model, packed, packing)
    if start not in ("activation", "one"):
        raise InterpretError(f"start must be 'activation' or 'one', not {start!r}")
    opened = open_inputs(images, model, items)
    images = opened.tensor
    refuse_other_type(model.module, images)
    traced = layer_with_units(model.module, _trace_quickly(model.module, tuple(images.shape[1:])), layer)
    count = len(images) if len(images) > 1 else max(_count(channels, 0), _count(positions, 1))
    channel_of = _channels(channels, traced, count)
    how = _How(rule, start, overlap, strict)
    crop = Crop.of(traced, tuple(images.shape[2:]), overlap, rule)
    home = images.device
    with on_device(model.module, device) as target:
        images = images.to(target)
        at_once = crop.batch_size if batch_size is None else batch_size_for(batch_size, 1, target)
        check_answers(model, images[:2, :, : crop.size[0], : crop.size[1]], layer)
        if positions is not None:
            at = _positions(positions, traced, count)
        else:
            at = _strongest_positions(model.module, images, layer, channel_of, crop, batch_size)
        signals, values = [], []
        # of one image, a forward pass and n backward passes cost no more than n of both on half of it
        shared = count > len(images) and crop.share > 0.5
        if shared:
            crop = replace(crop, size=crop.image)
        for part in torch.arange(count).split(count if shared else at_once):
            corners = crop.corners(at[part])
            local = at[part] - crop.neurons(corners)
            inputs = images if shared else crop.cut(images.expand(count, -1, -1, -1)[part], corners)
            run = _project_image if shared else _project_batch
            signal, value = run(model.module, inputs, layer, channel_of[part], local, how)
            signals.append(crop.window(signal, crop.boxes(at[part]), corners))
            values.append(value)
    boxes = crop.boxes(at)
    return Projections(
        torch.cat(signals)[:, : opened.images.channels].to(home),
        boxes,
        torch.cat(values).to(home),
        at,
        channels=channel_of,
        images=torch.tensor(list(opened.items)).expand(count),
        layer=layer,
        rule=rule,
        model=model.name,
        colours=model.colours,
        pictures=_pictures(opened, boxes, crop),
        shown=opened.images.pixel_scale.said,
    )


def _pictures(opened: Inputs, boxes: Tensor, crop: Crop) -> NDArray[np.uint8]:
    """Return what neurons see of their images, as pictures; one image serves all neurons."""
    images, scale = opened.tensor[:, : opened.images.channels], opened.images.pixel_scale
    if len(images) == 1 and crop.field == crop.image:
        shown = inputs_to_bytes(images.detach(), scale)
        return np.broadcast_to(shown, (len(boxes), *shown.shape[1:]))
    windows = crop.window(images.detach().expand(len(boxes), -1, -1, -1), boxes, torch.zeros_like(boxes[:, :2]))
    return inputs_to_bytes(windows, scale)


def _trace_quickly(module: nn.Module, shape: tuple[int, ...]) -> Mapping[str, Layer]:
    """Trace a copy of the network without numbers, which runs in no time; the network itself where that fails."""
    on_meta = {
        id(tensor): nn.Parameter(tensor.to("meta"), False) if isinstance(tensor, nn.Parameter) else tensor.to("meta")
        for tensor in (*module.parameters(), *module.buffers())
    }
    try:
        traced = trace(copied(module, on_meta), shape)
    except Exception:  # it needs the numbers, or may not be copied; or it is the user's mistake, which trace explains
        return trace(module, shape)
    # without numbers, an empty feature map is no error, and a rule may need some to see what is a rectifier
    whole = traced.has_signal and all(all(layer.output_shape) for layer in traced.values())
    return traced if whole else trace(module, shape)


@dataclass(frozen=True)
class _How:
    """How a projection is made."""

    rule: Rule = "deconvnet"
    start: Start = "activation"
    overlap: Overlap = "add"
    strict: bool = False


@dataclass(frozen=True)
class Crop:
    """Which part of an image must run to get a layer's neuron and its projection exactly.

    With J the layer's stride, R its receptive field and H the image's side, the part has the side T, the smallest of
    at least R + J − 1 with T ≡ H (mod J), and begins at a multiple of J. All layers below then see the same grid as
    in the whole image, at both borders; and what the zero padding at the part's own edges touches lies outside of
    what the neuron sees. Behind a gate that sees the whole image, this has to run, though the projection is not zero
    in a window alone.
    """

    image: tuple[int, int]
    """(H, W) of the image."""
    size: tuple[int, int]
    """(height, width) of the part that runs: the whole image where the layer cannot be cropped."""
    begin: tuple[int, int]
    """Top and left of what the first neuron sees, from which on its part runs."""
    field: tuple[int, int]
    """(height, width) of the window from which the signal comes, at most the image's."""
    stride: tuple[int, int]
    start: tuple[int, int]
    """Top and left of the first neuron's window."""

    @classmethod
    def of(cls, layer: Layer, image: tuple[int, ...], overlap: Overlap = "add", rule: Rule = "deconvnet") -> Crop:
        """Return the part for neurons of a layer in images of a size (H, W).

        Which of overlapping windows overwrites the others is decided outside of what the neuron sees, too: to
        overwrite needs the whole image. The gradient holds no gate constant: its window is the receptive field.
        """
        height, width = image
        seen = layer.receptive_field
        window = seen if rule == "gradient" else layer.local_field
        # of a feature map that lies transposed, the whole image runs
        if window is None or layer.axes in ((-1, -2), (-2, -3)):
            return cls((height, width), (height, width), (0, 0), (height, width), (1, 1), (0, 0))
        size, begin = [height, width], (0, 0)
        if seen is not None and layer.croppable and overlap == "add":
            sides = zip(seen.size, seen.stride, image, strict=True)
            size, begin = [_crop_side(field, stride, side) for field, stride, side in sides], seen.start
        field = [min(field, side) for field, side in zip(window.size, image, strict=True)]
        return cls((height, width), (size[0], size[1]), begin, (field[0], field[1]), window.stride, window.start)

    @property
    def whole(self) -> bool:
        return self.size == self.image

    @property
    def share(self) -> float:
        """How much of the image's area the part is."""
        return self.size[0] * self.size[1] / (self.image[0] * self.image[1])

    @property
    def batch_size(self) -> int:
        return min(1024, images_at_once(self.size[0] * self.size[1]))

    def corners(self, positions: Tensor) -> Tensor:
        """Return where the parts for neurons at positions [B, 2] begin, [B, 2]."""
        stride, begin = torch.tensor(self.stride), torch.tensor(self.begin)
        aligned = torch.div(begin + positions * stride, stride, rounding_mode="floor") * stride
        last = torch.tensor(self.image) - torch.tensor(self.size)
        return torch.minimum(aligned, last).clamp(min=0)

    def neurons(self, corners: Tensor) -> Tensor:
        """Return how far the feature map of a part is shifted against that of the image, [B, 2]."""
        return corners // torch.tensor(self.stride)

    def boxes(self, positions: Tensor) -> Tensor:
        """Return the windows from which the signal comes, moved into the image at its borders, [B, 4]."""
        top_left = torch.tensor(self.start) + positions * torch.tensor(self.stride)
        last = torch.tensor(self.image) - torch.tensor(self.field)
        top_left = torch.minimum(top_left, last).clamp(min=0)
        return torch.cat([top_left, top_left + torch.tensor(self.field)], 1)

    def cut(self, images: Tensor, corners: Tensor) -> Tensor:
        """Return the parts of images [B, C, H, W] that begin at the corners."""
        (height, width), rows = self.size, corners.tolist()
        return torch.stack(
            [image[:, y : y + height, x : x + width] for image, (y, x) in zip(images, rows, strict=True)]
        )

    def window(self, signal: Tensor, boxes: Tensor, corners: Tensor) -> Tensor:
        """Return what a signal on the parts holds in the boxes, [B, C, h, w]."""
        (height, width), rows = self.field, (boxes[:, :2] - corners).tolist()
        return torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(signal, rows, strict=True)])


def _crop_side(field: int, stride: int, side: int) -> int:
    least = field + stride - 1
    return min(side, least + (side - least) % stride)


@dataclass
class HitBatch:
    """Projections of n hits of one layer, as `project_hits` yields them."""

    layer: str
    units: NDArray[np.int64]
    """[n] the hits' units."""
    ranks: NDArray[np.int64]
    """[n] which of the unit's hits each one is; 0 is the strongest."""
    projections: Tensor
    """[n, C, h, w] the signal in the window from which it comes."""
    patches: Tensor
    """[n, C, h, w] the same window of the network's input."""


@torch.inference_mode(False)
def project_hits(
    model: Model | nn.Module,
    data: Any,
    mined: Mapping[str, Any],
    layers: str | Iterable[str] | None = None,
    rule: Rule = "deconvnet",
    *,
    overlap: Overlap = "add",
    strict: bool = False,
    device: str | torch.device | None = None,
    done: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Iterator[HitBatch]:
    """Project all mined hits of some layers, and yield them in batches as they come.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> images = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> from interpret import mine
    >>> mined = mine(network, images, k=2)
    >>> batches = list(project_hits(network, images, mined))
    >>> sorted((batch.layer, len(batch.units), tuple(batch.projections.shape[1:])) for batch in batches)
    [('0', 8, (1, 3, 3)), ('2', 4, (1, 5, 5))]

    Each projection is that of `project` in the layer's local field; of the rule "gradient", what passes through a gate
    may lie outside, and is cut off. The data is read once, in its order. Layers whose neurons see only a part
    of the image run on parts, many hits together; for the others an image's forward pass runs once for all its hits.

    Args:
        model: the network, the same as was mined.
        data: the data that was mined.
        mined: what `mine` returned, or any mapping of layers to values, images and positions.
        layers: which of the mined layers, by name; None: all.
        rule, overlap, strict: as for `project`.
        device: where the network runs; see `interpret`.
        done: which hits of a layer [C, k] have been projected already. Batches of such alone are left out, and the
            others come as they would without.

    Raises:
        InterpretError: a layer that was not mined, or activations that are not those which were mined.
    """
    model, images = open_together(as_model(model), data)
    hits, crops = locate_hits(model, images, mined, layers, overlap)
    if not len(hits.items):
        return
    how = _How(rule, "activation", overlap, strict)
    first = first_images(images)
    left, size = hits.left(done or {}), images_at_once(math.prod(first.shape[1:]))
    plan = [together for together in _plan(hits, crops, size) if left[together.rows].any()]
    begun = len(hits.items) - sum(len(together.rows) for together in plan)
    with (
        prepared(model, first, device, hits.layers) as run,
        progress(len(hits.items), f"projecting ({rule})", "hit", initial=begun) as bar,
    ):
        try:
            for finished in run.side_by_side(_jobs(images, plan, hits, crops, how, run)):
                for batch in finished:
                    bar.update(len(batch.units))
                    own = batch.projections[:, : images.channels], batch.patches[:, : images.channels]
                    yield replace(batch, projections=own[0], patches=own[1])
        except _OtherValue as error:
            doubt = images.doubt(error.item)
            raise InterpretError(f"{error}{doubt and f' ({doubt})'}") from None


def locate_hits(
    model: Model,
    images: Images,
    mined: Mapping[str, Any],
    layers: str | Iterable[str] | None = None,
    overlap: Overlap = "add",
) -> tuple[Hits, dict[str, Crop]]:
    """Return the mined hits of some layers as a table, and of each layer what its neurons see of an image."""
    names = list(mined) if layers is None else [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    for name in names:
        if name not in mined:
            raise unknown("mined layer", name, mined)
    last = max((int(mined[name].images.max()) for name in names), default=-1)
    if last < 0:
        return Hits.of(mined, []), {}
    if last >= len(images):
        raise InterpretError(f"data has {len(images)} items, and item {last} was mined: project with the same data")
    shape = tuple(images[last][0].shape)
    traced = _trace_quickly(model.module, shape)
    layers_of = {name: layer_with_units(model.module, traced, name) for name in names}
    for name, layer in layers_of.items():
        _check_shape(mined[name], layer)
    crops = {name: Crop.of(layer, shape[1:], overlap) for name, layer in layers_of.items()}
    return Hits.of(mined, names), crops


@dataclass
class Hits:
    """Hits of several layers as a table, ordered by item."""

    layers: list[str]
    layer: NDArray[np.int64]
    units: NDArray[np.int64]
    ranks: NDArray[np.int64]
    items: NDArray[np.int64]
    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    scales: NDArray[np.float64]
    """The largest value of all in the hit's layer."""

    @classmethod
    def of(cls, mined: Mapping[str, Any], names: list[str]) -> Hits:
        none, whole = np.zeros(0), np.zeros(0, np.int64)
        columns: list[list[NDArray[Any]]] = [[whole, whole, whole, whole, np.zeros((0, 2), np.int64), none, none]]
        for index, name in enumerate(names):
            found = mined[name]
            units, ranks = np.nonzero(found.images >= 0)
            values = found.values[units, ranks].astype(np.float64)
            columns.append(
                [
                    np.full(len(units), index),
                    units,
                    ranks,
                    found.images[units, ranks],
                    found.positions[units, ranks],
                    values,
                    # of all units, even if only some are projected
                    np.full(len(units), np.abs(found.values[np.isfinite(found.values)]).max(initial=0)),
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
        )

    def left(self, done: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return which hits are not among those that are done."""
        left = np.ones(len(self.items), bool)
        for index, name in enumerate(self.layers):
            if name in done:
                own = self.layer == index
                left[own] = ~done[name][self.units[own], self.ranks[own]]
        return left

    def by_item(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each item with the rows of its hits."""
        starts = np.flatnonzero(np.diff(self.items, prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(self.items)), strict=True):
            yield int(self.items[start]), np.arange(start, end)


@dataclass(frozen=True)
class _Together:
    """Hits that run together: of one layer, on parts of images; or on whole images, with the hits of each."""

    after: int
    """The item with which all their images have been read."""
    whole: bool
    of_images: list[NDArray[np.int64]]
    """The rows of the hits of each image; of parts, a row each."""

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.concatenate(self.of_images)


def _plan(hits: Hits, crops: Mapping[str, Crop], size: int) -> Iterator[_Together]:
    """Yield which hits run together, as the data brings them: the same ones whichever of them are done already.

    `size` is how many whole images run at once.
    """
    waiting: dict[int, list[int]] = defaultdict(list)
    pool: list[NDArray[np.int64]] = []
    is_large = np.array([crops[name].share > LARGE for name in hits.layers])
    item = -1
    for item, rows in hits.by_item():
        large = is_large[hits.layer[rows]]
        for row in rows[~large].tolist():
            index = int(hits.layer[row])
            waiting[index].append(row)
            if len(waiting[index]) == crops[hits.layers[index]].batch_size:
                yield _Together(item, False, list(np.array(waiting.pop(index))[:, None]))
        if large.any():
            pool.append(rows[large])
        if len(pool) == POOL:
            yield from (_Together(item, True, images) for images in _alike(pool, size))
            pool = []
    for parts in waiting.values():
        yield _Together(item, False, list(np.array(parts)[:, None]))
    yield from (_Together(item, True, images) for images in _alike(pool, size))


def _alike(pool: list[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """Yield batches of images with about as many hits each: a place whose hits are done runs on, empty."""
    pool = sorted(pool, key=lambda rows: -len(rows))
    while pool:
        least = EVEN * len(pool[0])
        together = [rows for rows in pool[:size] if len(rows) >= least]
        yield together
        pool = pool[len(together) :]


_Job = Callable[[nn.Module], list[HitBatch]]


def _jobs(
    images: Any, plan: list[_Together], hits: Hits, crops: Mapping[str, Crop], how: _How, run: Execution
) -> Iterator[_Job]:
    """Read the data once, as far as it is needed, and yield what there is to run as soon as its images are read."""
    needed = np.zeros(len(hits.items), bool)
    whole = np.zeros(len(hits.items), bool)
    for together in plan:
        needed[together.rows] = True
        whole[together.rows] = together.whole
    parts: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}
    coming = deque(plan)
    for item, rows in hits.by_item():
        rows = rows[needed[rows]]
        if len(rows):
            image = images[item][0]
        for row in rows[~whole[rows]].tolist():
            crop = crops[hits.layers[int(hits.layer[row])]]
            parts[row] = crop.cut(image[None], crop.corners(torch.from_numpy(hits.positions[row : row + 1])))[0]
        if whole[rows].any():
            read[item] = image
        while coming and coming[0].after <= item:
            together = coming.popleft()
            if together.whole:
                inputs = [(read.pop(int(hits.items[own[0]])), own) for own in together.of_images]
                yield partial(_run_whole, together=inputs, hits=hits, crops=crops, how=how, run=run)
            else:
                waiting = [(row, parts.pop(row)) for row in together.rows.tolist()]
                crop = crops[hits.layers[int(hits.layer[waiting[0][0]])]]
                yield partial(_run_parts, waiting=waiting, hits=hits, crop=crop, how=how, run=run)


def _run_parts(
    module: nn.Module, waiting: list[tuple[int, Tensor]], hits: Hits, crop: Crop, how: _How, run: Execution
) -> list[HitBatch]:
    """Project hits of one layer on parts of their images."""
    chosen = hits[np.array([row for row, _ in waiting])]
    name = chosen.layers[int(chosen.layer[0])]
    parts = torch.stack([part for _, part in waiting])
    at = torch.from_numpy(chosen.positions)
    corners, boxes = crop.corners(at), crop.boxes(at)
    channels = torch.from_numpy(chosen.units)
    signal, values = _project_batch(module, run.place(parts), name, channels, at - crop.neurons(corners), how)
    _check_values(name, chosen, values)
    windows = (crop.window(whole, boxes, corners) for whole in (signal, parts))
    return [HitBatch(name, chosen.units, chosen.ranks, *windows)]


def _run_whole(
    module: nn.Module,
    together: list[tuple[Tensor, NDArray[np.int64]]],
    hits: Hits,
    crops: Mapping[str, Crop],
    how: _How,
    run: Execution,
) -> list[HitBatch]:
    """Project hits on their whole images: one forward pass an image, one backward pass a hit."""
    finished: list[HitBatch] = []
    inputs = torch.stack([image for image, _ in together])
    layers = np.unique(hits.layer[np.concatenate([rows for _, rows in together])])
    names = [hits.layers[index] for index in layers]
    x, outputs = _forward(module, run.place(inputs), names, how)
    for step in range(max(len(rows) for _, rows in together)):
        members = [(place, rows[step]) for place, (_, rows) in enumerate(together) if step < len(rows)]
        places = torch.tensor([place for place, _ in members])
        chosen = hits[np.array([row for _, row in members])]
        used = [hits.layers[index] for index in np.unique(chosen.layer)]
        rows_of = {name: np.flatnonzero(chosen.layer == hits.layers.index(name)) for name in used}
        seeds, values_of = [], {}
        for name in used:
            own = torch.from_numpy(rows_of[name])
            index = _neurons(
                outputs[name], places[own], torch.from_numpy(chosen.units)[own], torch.from_numpy(chosen.positions)[own]
            )
            seed, values_of[name] = _seed(outputs[name], index, how)
            seeds.append(seed)
        (signal,) = torch.autograd.grad([outputs[name] for name in used], x, seeds, retain_graph=True)
        for name in used:
            one = chosen[rows_of[name]]
            _check_values(name, one, values_of[name])
            boxes = crops[name].boxes(torch.from_numpy(one.positions))
            at = places[torch.from_numpy(rows_of[name])]
            origin = torch.zeros_like(boxes[:, :2])
            windows = (crops[name].window(whole[at], boxes, origin) for whole in (signal, inputs))
            finished.append(HitBatch(name, one.units, one.ranks, *windows))
    return finished


def _check_shape(found: Any, layer: Layer) -> None:
    """Refuse hits at neurons that the layer does not have."""
    units, *size = layer.output_shape if len(layer.output_shape) == 3 else (*layer.output_shape, 1, 1)
    if len(found.images) != units or bool((found.positions.max((0, 1)) >= size).any()):
        raise InterpretError(
            f"layer {layer.name!r} has outputs of shape {layer.output_shape}, and hits of another shape were mined: "
            "project with the model and data that were mined"
        )


class _OtherValue(InterpretError):  # noqa: N818
    """A neuron's activation on an item is not the one that was mined."""

    def __init__(self, sentence: str, item: int) -> None:
        super().__init__(sentence, item)
        self.item = item

    def __str__(self) -> str:
        return str(self.args[0])


def _check_values(name: str, hits: Hits, values: Tensor) -> None:
    """Refuse hits whose activations are not those that were mined, up to the rounding of reduced precision."""
    found = values.detach().double().cpu().numpy()
    if not np.allclose(found, hits.values, rtol=0.05, atol=0.02 * hits.scales):
        worst = int(np.abs(found - hits.values).argmax())
        raise _OtherValue(
            f"layer {name!r} gives {found[worst]:.4g} on item {hits.items[worst]} where {hits.values[worst]:.4g} was "
            "mined: project with the model and data that were mined",
            int(hits.items[worst]),
        )


def _forward(module: nn.Module, images: Tensor, names: list[str], how: _How) -> tuple[Tensor, dict[str, Tensor]]:
    """Run images under the rule; return the tensor to differentiate by, and each named layer's output."""
    x = images.detach().requires_grad_()
    outputs: dict[str, Tensor] = {}

    def receive(name: str, output: Tensor) -> None:
        # a copy, if the pass goes on: what comes after may rectify the output in place
        outputs[name] = output if len(names) == 1 else output.clone()

    with torch.enable_grad(), BackwardRule(module, how.rule, overlap=how.overlap, strict=how.strict) as rule:
        with first_outputs(module, names, receive, stop=True, count=len(images)):
            call_network(module, x.clone())
        for name, output in outputs.items():
            if not output.requires_grad:
                raise InterpretError(f"layer {name!r} does not depend on the image: choose another")
            rule.check(output)
    return x, outputs


def _neurons(output: Tensor, rows: Tensor, channels: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    return (rows, channels, positions[:, 0], positions[:, 1]) if output.dim() == 4 else (rows, channels)


def _seed(output: Tensor, neurons: tuple[Tensor, ...], how: _How) -> tuple[Tensor, Tensor]:
    """Return the signal to start with, zero but at the neurons, and the neurons' activations."""
    values = output.detach()[neurons]
    seed = torch.zeros_like(output)
    seed[neurons] = values if how.start == "activation" else torch.ones_like(values)
    return seed, values


def _project_batch(
    module: nn.Module, images: Tensor, layer: str, channels: Tensor, positions: Tensor, how: _How
) -> tuple[Tensor, Tensor]:
    """Return the signals [B, C, H, W] of one neuron of each image, and the neurons' activations [B]."""
    x, outputs = _forward(module, images, [layer], how)
    seed, values = _seed(outputs[layer], _neurons(outputs[layer], torch.arange(len(images)), channels, positions), how)
    (signal,) = torch.autograd.grad(outputs[layer], x, seed)
    return signal, values


def _project_image(
    module: nn.Module, image: Tensor, layer: str, channels: Tensor, positions: Tensor, how: _How
) -> tuple[Tensor, Tensor]:
    """Return the signals [B, C, H, W] of B neurons of one image [1, C, H, W], and their activations [B]."""
    x, outputs = _forward(module, image, [layer], how)
    signals: list[Tensor] = []
    values: list[Tensor] = []
    for channel, position in zip(channels[:, None], positions[:, None], strict=True):
        seed, value = _seed(outputs[layer], _neurons(outputs[layer], torch.tensor([0]), channel, position), how)
        signals += torch.autograd.grad(outputs[layer], x, seed, retain_graph=True)
        values.append(value)
    return torch.cat(signals), torch.cat(values)


def _strongest_positions(
    module: nn.Module, images: Tensor, layer: str, channels: Tensor, crop: Crop, batch_size: int | None
) -> Tensor:
    """Return where each image's channel is strongest, [B, 2]; one image serves all channels."""
    found: list[Tensor] = []
    at_once = images_at_once(crop.image[0] * crop.image[1]) if batch_size is None else batch_size
    for part in torch.arange(len(images)).split(at_once):
        outputs: dict[str, Tensor] = {}
        with torch.inference_mode(), first_outputs(module, [layer], outputs.__setitem__, stop=True, count=len(part)):
            call_network(module, images[part].clone())
        output = outputs[layer]
        own = channels[part] if len(images) > 1 else channels
        if output.dim() == 2:
            found.append(torch.zeros(len(own), 2, dtype=torch.long))
            continue
        flat = output[torch.arange(len(part)), own].flatten(1).argmax(1).cpu()
        found.append(torch.stack([flat // output.shape[3], flat % output.shape[3]], 1))
    return torch.cat(found)


def _count(given: Any, dim: int) -> int:
    """Return how many channels (of 0 dimensions each) or positions (of 1) were given; 1 where it is one for all."""
    shape = [] if given is None else list(torch.as_tensor(given).shape)
    return max(1, shape[0]) if len(shape) > dim else 1


def _channels(channels: int | Sequence[int] | Tensor, layer: Layer, count: int) -> Tensor:
    given = torch.as_tensor(channels)
    if given.is_floating_point() or given.dim() > 1 or (given.dim() == 1 and len(given) != count):
        raise InterpretError(
            f"channels must be one whole number, or one for each image or position ({count}), not {channels}"
        )
    bad = (given < 0) | (given >= layer.output_shape[0])
    if bool(bad.any()):
        raise InterpretError(
            f"channel {int(given[bad].reshape(-1)[0])} is not in layer {layer.name!r}, whose channels are "
            f"0 to {layer.output_shape[0] - 1}"
        )
    return given.cpu().expand(count)


def _positions(positions: Any, layer: Layer, count: int) -> Tensor:
    given = torch.as_tensor(positions)
    if given.is_floating_point() or given.shape not in ((2,), (count, 2)):
        raise InterpretError(
            f"positions must be one (row, column), or one for each image or channel ({count}), not of shape "
            f"{list(given.shape)}"
        )
    size = torch.tensor(layer.output_shape[1:] or (1, 1))
    given = given.cpu().expand(count, 2)
    bad = ((given < 0) | (given >= size)).any(1)
    if bool(bad.any()):
        raise InterpretError(
            f"position {tuple(given[bad][0].tolist())} is not in layer {layer.name!r}, whose feature map is "
            f"{size[0]} × {size[1]}"
        )
    return given
