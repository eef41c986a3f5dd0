"""Project mined hits in batches, reading the data once."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.projection.box_projection import project_in_boxes
from interpret.analyses.projection.crop import Crop
from interpret.analyses.projection.hit_groups import HitGroup, plan_hits
from interpret.analyses.projection.hits import (
    HitBatch,
    Hits,
    Job,
    ValueMismatch,
    boxes_of,
    check_values,
    finish,
    locate_hits,
    names_of,
)
from interpret.analyses.projection.signals import (
    SignalSettings,
    forward_under_rule,
    neuron_index,
    seed_signal,
    signals_in_windows,
    signals_of_batch,
)
from interpret.backprop.neuron_windows import NeuronWindows
from interpret.backprop.rules import Overlap, Rule
from interpret.execution.batch_size import MEASURED_IMAGES, largest_gpu_batch
from interpret.execution.execution import Execution, prepared, warn_of_slow_type
from interpret.execution.parallel import PIXELS_AT_ONCE, images_at_once
from interpret.execution.ranks import ranks
from interpret.images.batches import Batch, batches, first_images
from interpret.images.several_inputs import open_together
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import progress

MOST_VALUES = 2**23
"""Most values of signals in windows of an image that are computed before they are drawn."""


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
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    done: Mapping[str, NDArray[np.bool_]] | None = None,
    then: Callable[[HitBatch], Any] | None = None,
) -> Iterator[Any]:
    """Project all mined hits of some layers, and yield the projections in batches of type `HitBatch`.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> images = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> from interpret import mine
    >>> mined = mine(network, images, k=2)
    >>> batches = list(project_hits(network, images, mined))
    >>> sorted((batch.layer, len(batch.units), tuple(batch.projections.shape[1:])) for batch in batches)
    [('0', 8, (1, 3, 3)), ('2', 4, (1, 5, 5))]

    Each projection equals that of `project` in the layer's local field. With the rule "gradient", signals through gates
    may reach further; they are cut off. The data is read once, in order. Layers whose neurons see only a part of the
    image run on parts, many hits per batch. For the others, the forward pass of an image runs once for all its hits.
    Of several ranks, each yields a share. Patches and projections of layers that run once a box are those of the box,
    warped to a square, as RoI pooling warps it; see `project_in_boxes`.

    Args:
        model: the network that was mined.
        data: the data that was mined.
        mined: the result of `mine`, or any mapping from layers to objects with values, images and positions.
        layers: names of mined layers; None: all.
        rule, overlap, strict: as in `project`.
        batch_size: number of whole images per forward pass; None: what suits a CPU's cache, or fits a GPU's memory.
        workers: number of processes that decode images; 0: decode in the main process.
        device: the device that the network runs on; see `interpret`.
        dtype: as in `project`.
        done: layer to [C, k], which hits are already projected. A batch is left out if all its hits are done; other
            batches do not change.
        then: a function of a batch, whose result is yielded in place of it. It runs in the threads that project, so
            that what it computes takes no time from them.

    Raises:
        InterpretError: a layer that was not mined; activations that differ from those that were mined.
    """
    refuse_below_one(batch_size=batch_size)
    model, images = open_together(as_model(model), data)
    names = names_of(mined, layers)
    in_boxes = [name for name in names if boxes_of(mined[name]) is not None]
    if in_boxes:
        yield from project_in_boxes(
            model,
            images,
            mined,
            in_boxes,
            rule,
            overlap=overlap,
            strict=strict,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            done=done,
            then=then,
        )
    names = [name for name in names if name not in in_boxes]
    hits, crops, layouts = locate_hits(model, images, mined, names, overlap)
    if not len(hits.items):
        return
    settings = SignalSettings(rule, "activation", overlap, strict, layouts, dtype)
    first = first_images(images)
    remaining = hits.remaining(done or {})
    with prepared(model, first, device, hits.layers) as run, ExitStack() as opened:
        warn_of_slow_type(run.device, dtype)
        windowed, size, pixels = _dry_run(run, first[:1], hits.layers, settings)
        groups = plan_hits(hits, crops, batch_size or size, windowed, pixels)
        plan = [together for together in groups if remaining[together.rows].any()]
        projected = len(hits.items) - sum(len(together.rows) for together in plan)
        plan = plan[ranks().share(len(plan))]
        total = projected + sum(len(together.rows) for together in plan)
        bar = opened.enter_context(progress(total, f"projecting ({rule})", "hit", initial=projected))
        try:
            jobs = _jobs(images, plan, hits, crops, settings, run, workers, windowed)
            for finished in run.side_by_side(partial(finish, job, run, images.channels, then) for job in jobs):
                for count, result in finished:
                    bar.update(count)
                    yield result
        except ValueMismatch as error:
            doubt = images.doubt(error.item)
            raise InterpretError(f"{error}{doubt and f' ({doubt})'}") from None


def _dry_run(run: Execution, image: Tensor, names: list[str], settings: SignalSettings) -> tuple[set[str], int, int]:
    """Return the layers whose signals need only windows of the maps of a whole image, and what runs at once.

    The numbers of whole images and of pixels of parts that run at once suit a CPU's cache, or fit a GPU's memory.
    """
    if run.device.type != "cuda":
        _, outputs = forward_under_rule(run.module, run.place(image), names, settings)
        windowed = {name for name, output in outputs.items() if NeuronWindows.below(output) is not None}
        return windowed, images_at_once(math.prod(image.shape[2:])), PIXELS_AT_ONCE

    def back_and_forth() -> None:
        few = run.place(image.expand(MEASURED_IMAGES, *image.shape[1:]))
        x, outputs = forward_under_rule(run.module, few, names, settings)
        torch.autograd.grad(list(outputs.values()), x, [torch.ones_like(output) for output in outputs.values()])

    size = ranks().agreed(largest_gpu_batch(run.device, MEASURED_IMAGES, back_and_forth))
    return set(), size, size * math.prod(image.shape[2:])


def _jobs(
    images: Any,
    plan: list[HitGroup],
    hits: Hits,
    crops: Mapping[str, Crop],
    settings: SignalSettings,
    run: Execution,
    workers: int,
    windowed: Collection[str],
) -> Iterator[Job]:
    """Read the needed items once, in order, and yield each group's job when its images are read."""
    needed = np.zeros(len(hits.items), bool)
    whole = np.zeros(len(hits.items), bool)
    for together in plan:
        needed[together.rows] = True
        whole[together.rows] = together.whole
    items = np.unique(hits.items[needed])
    arriving = (
        batches(images, workers=workers, spans=np.stack([items, items + 1], 1)) if workers else iter(list[Batch]())
    )
    parts: dict[int, Tensor] = {}
    read: dict[int, Tensor] = {}
    groups_of = Counter(int(hits.items[own[0]]) for together in plan if together.whole for own in together.of_images)
    coming = deque(plan)
    for item, rows in hits.by_item():
        rows = rows[needed[rows]]
        if len(rows):
            ahead = next(arriving, None)
            # without workers, or of an item that does not decode any more, which raises the error
            image = images[item][0] if ahead is None or int(ahead.items[0]) != item else ahead.images[0]
        for row in rows[~whole[rows]].tolist():
            crop = crops[hits.layers[int(hits.layer[row])]]
            parts[row] = crop.cut(image[None], crop.corners(torch.from_numpy(hits.positions[row : row + 1])))[0]
        if whole[rows].any():
            read[item] = image
        while coming and coming[0].after <= item:
            together = coming.popleft()
            if together.whole:
                inputs = [(read[int(hits.items[own[0]])], own) for own in together.of_images]
                for own in together.of_images:
                    groups_of[int(hits.items[own[0]])] -= 1
                    if not groups_of[int(hits.items[own[0]])]:  # after its last group
                        del read[int(hits.items[own[0]])]
                how: dict[str, Any] = {"crops": crops, "settings": settings, "run": run, "windowed": windowed}
                yield partial(_run_whole, together=inputs, hits=hits, **how)
            else:
                waiting = [(row, parts.pop(row)) for row in together.rows.tolist()]
                crop = crops[hits.layers[int(hits.layer[waiting[0][0]])]]
                yield partial(_run_parts, waiting=waiting, hits=hits, crop=crop, settings=settings, run=run)


def _run_parts(
    module: nn.Module,
    waiting: list[tuple[int, Tensor]],
    hits: Hits,
    crop: Crop,
    settings: SignalSettings,
    run: Execution,
) -> Iterator[HitBatch]:
    """Project hits of one layer on parts of their images."""
    chosen = hits[np.array([row for row, _ in waiting])]
    name = chosen.layers[int(chosen.layer[0])]
    parts = torch.stack([part for _, part in waiting])
    at = torch.from_numpy(chosen.positions)
    corners, boxes = crop.corners(at), crop.boxes(at)
    channels = torch.from_numpy(chosen.units)
    placed = run.place(parts)
    signal, values = signals_of_batch(module, placed, name, channels, at - crop.neurons(corners), settings)
    check_values(name, chosen, values)
    windows = (crop.window(whole, boxes, corners) for whole in (signal, _on_gpu(placed, parts)))
    yield HitBatch(name, chosen.units, chosen.ranks, *windows)


def _run_whole(
    module: nn.Module,
    together: list[tuple[Tensor, NDArray[np.int64]]],
    hits: Hits,
    crops: Mapping[str, Crop],
    settings: SignalSettings,
    run: Execution,
    windowed: Collection[str],
) -> Iterator[HitBatch]:
    """Project hits on their whole images: one forward pass per image serves all its hits."""
    inputs = torch.stack([image for image, _ in together])
    rows = np.concatenate([own for _, own in together])
    places = np.repeat(np.arange(len(together)), [len(own) for _, own in together])
    names = [hits.layers[index] for index in np.unique(hits.layer[rows])]
    own = {name: hits.layer[rows] == hits.layers.index(name) for name in names}
    neurons = {
        name: tuple(torch.from_numpy(found[own[name]]) for found in (places, hits.units[rows], *hits.positions[rows].T))
        for name in names
        if name in windowed
    }
    x, outputs = forward_under_rule(module, run.place(inputs), names, settings, neurons=neurons)
    known: dict[Any, Any] = {}
    graphs = {name: NeuronWindows.from_node(_indexed_node(outputs[name]), known) for name in neurons}
    if None in graphs.values():  # on these images, the network runs other operations than on the first one
        yield from _run_whole(module, together, hits, crops, settings, run, ())
        return
    for name, graph in graphs.items():
        assert graph is not None
        chosen, (at, channels, *axes) = hits[rows[own[name]]], neurons[name]
        values, positions = outputs.pop(name).detach(), torch.stack(axes, 1)
        check_values(name, chosen, values)
        at_once = max(1, MOST_VALUES // math.prod((inputs.shape[1], *crops[name].field)))
        for part in torch.arange(len(values)).split(at_once):
            where = (at[part], channels[part], positions[part])
            signal = signals_in_windows(graph, values[part], *where, settings, crops[name])
            patches = _cut_patches(inputs, at[part], positions[part], crops[name])
            yield HitBatch(name, chosen.units[part.numpy()], chosen.ranks[part.numpy()], signal, patches)
    left = np.isin(hits.layer[rows], [hits.layers.index(name) for name in outputs])
    others = [rows[left & (places == place)] for place in range(len(together))]
    yield from _run_autograd(x, _on_gpu(x.detach(), inputs), outputs, others, hits, crops, settings)


def _on_gpu(placed: Tensor, images: Tensor) -> Tensor:
    """Return inputs where their windows are cut faster: on a GPU, or else in the layout in which they were read."""
    return placed if placed.device.type == "cuda" else images


def _indexed_node(values: Tensor) -> Any:
    """Return the node of autograd's graph that made the tensor from which values were taken by an index."""
    assert values.grad_fn is not None
    return values.grad_fn.next_functions[0][0]


def _run_autograd(
    x: Tensor,
    inputs: Tensor,
    outputs: Mapping[str, Tensor],
    of_images: list[NDArray[np.int64]],
    hits: Hits,
    crops: Mapping[str, Crop],
    settings: SignalSettings,
) -> Iterator[HitBatch]:
    """Project hits by backward passes through all images of a batch, each for one hit per image."""
    for step in range(max(map(len, of_images))):
        members = [(place, rows[step]) for place, rows in enumerate(of_images) if step < len(rows)]
        places = torch.tensor([place for place, _ in members])
        chosen = hits[np.array([row for _, row in members])]
        used = [hits.layers[index] for index in np.unique(chosen.layer)]
        rows_of = {name: np.flatnonzero(chosen.layer == hits.layers.index(name)) for name in used}
        seeds, values_of = [], {}
        for name in used:
            own = torch.from_numpy(rows_of[name])
            index = neuron_index(
                outputs[name], places[own], torch.from_numpy(chosen.units)[own], torch.from_numpy(chosen.positions)[own]
            )
            seed, values_of[name] = seed_signal(outputs[name], index, settings)
            seeds.append(seed)
        (signal,) = torch.autograd.grad([outputs[name] for name in used], x, seeds, retain_graph=True)
        for name in used:
            one = chosen[rows_of[name]]
            check_values(name, one, values_of[name])
            positions, at = torch.from_numpy(one.positions), places[torch.from_numpy(rows_of[name])]
            windows = (_cut_patches(whole, at, positions, crops[name]) for whole in (signal, inputs))
            yield HitBatch(name, one.units, one.ranks, *windows)


def _cut_patches(whole: Tensor, rows: Tensor, positions: Tensor, crop: Crop) -> Tensor:
    """Return the windows of neurons in the images at `rows`, or in signals of their size."""
    boxes = crop.boxes(positions)
    return crop.window((whole[row] for row in rows.tolist()), boxes, torch.zeros_like(positions))
