"""Project hits of layers that run once a box, each in its box."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.projection.hits import HitBatch, Hits, Job, ValueMismatch, check_values, finish, locate_hits
from interpret.analyses.projection.signals import SignalSettings, forward_under_rule, neuron_index, seed_signal
from interpret.backprop.rules import Overlap, Rule
from interpret.execution.execution import Execution, prepared
from interpret.execution.parallel import images_at_once
from interpret.execution.ranks import ranks
from interpret.images.batches import first_images
from interpret.images.sources import Images
from interpret.network.forward import call_network
from interpret.network.layers import first_outputs
from interpret.network.model import Model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

BOX_SIDE = 128
"""Side in pixels to which boxes are warped."""
MOST_HITS = 32
"""Most hits of an image that are projected before what is done can be kept."""


def warp_box(image: Tensor, box: NDArray[Any]) -> Tensor:
    """Cut a box (top, left, bottom, right) out of an image [C, H, W] and warp it to a square, [C, 128, 128].

    >>> warp_box(torch.ones(3, 40, 60), np.array([10.5, 20.0, 30.0, 90.0])).shape
    torch.Size([3, 128, 128])

    Its edges are moved outward to whole pixels, and into the image. Pixels are interpolated bilinearly, or averaged
    where there are more than 128 of them.
    """
    top, left, bottom, right = pixels_of(box, (image.shape[-2], image.shape[-1]))
    cut = image[None, :, top:bottom, left:right]
    exact = cut if cut.dtype == torch.float64 else cut.float()
    warped = F.interpolate(exact, (BOX_SIDE, BOX_SIDE), mode="bilinear", antialias=True, align_corners=False)
    return warped[0].to(image.dtype)


def pixels_of(box: NDArray[Any], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the whole pixels of an image that a box covers, at least one: top, left, bottom, right.

    >>> pixels_of(np.array([-3.2, 4.1, 5.5, 4.2]), (8, 9))
    (0, 4, 6, 5)
    """
    top, left = (min(max(math.floor(at), 0), side - 1) for at, side in zip(box[:2], size, strict=True))
    bottom, right = (max(min(math.ceil(at), side), 1) for at, side in zip(box[2:], size, strict=True))
    return top, left, max(bottom, top + 1), max(right, left + 1)


def project_in_boxes(
    model: Model,
    images: Images,
    mined: Mapping[str, Any],
    names: list[str],
    rule: Rule = "deconvnet",
    *,
    overlap: Overlap = "add",
    strict: bool = False,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    done: Mapping[str, NDArray[np.bool_]] | None = None,
    then: Callable[[HitBatch], Any] | None = None,
) -> Iterator[Any]:
    """Project the hits of layers that run once a box, and yield the projections in batches.

    The network runs on whole images, and its head on the boxes of the hits alone, which stand in for the boxes that
    the network finds. The signal passes back through the pooling, with the boxes held constant, to the pixels. It is
    cut to the box and warped to a square, like the patch. `interpret.project` returns it in the whole image.

    Args:
        names: the layers; for the other arguments see `project_hits`.
    """
    hits, _, layouts = locate_hits(model, images, mined, names, overlap)
    if not len(hits.items):
        return
    settings = SignalSettings(rule, "activation", overlap, strict, layouts, dtype)
    first = first_images(images)
    remaining, size = hits.remaining(done or {}), batch_size or images_at_once(math.prod(first.shape[1:]))
    plan = [group for group in _groups(hits, layouts, size) if remaining[np.concatenate(group)].any()]
    total = len(hits.items)
    initial = total - sum(len(rows) for group in plan for rows in group)
    with (
        prepared(model, first, device, hits.layers) as run,
        progress(total, f"projecting in boxes ({rule})", "hit", initial=initial) as bar,
    ):
        try:
            jobs = _jobs(images, plan[ranks().share(len(plan))], hits, settings, run)
            for finished in run.side_by_side(partial(finish, job, run, images.channels, then) for job in jobs):
                for count, result in finished:
                    bar.update(count)
                    yield result
        except ValueMismatch as error:
            doubt = images.doubt(error.item)
            raise InterpretError(f"{error}{doubt and f' ({doubt})'}") from None


def locate_in_boxes(
    module: nn.Module,
    images: Tensor,
    layer: str,
    channels: Tensor,
    positions: Tensor | None,
    boxes: Tensor | None,
    settings: SignalSettings,
    at_once: int,
) -> tuple[Tensor, Tensor]:
    """Return the positions [n, 2] and boxes [n, 4] of n neurons of a layer that runs once a box.

    Positions and boxes that are None are those where the neuron's channel is strongest. Of several images, each has one
    neuron; of a single one, all are.

    Raises:
        InterpretError: the network finds no box in an image.
    """
    call, single = str(settings.layouts[layer].boxes), len(images) == 1
    found_positions, found_boxes = [], []
    for part in torch.arange(len(images)).split(at_once):
        given = None
        if boxes is not None:
            given = {call: [boxes] if single else [boxes[row][None] for row in part.tolist()]}
        outputs: dict[str, Tensor] = {}
        hooks = first_outputs(module, [layer], outputs.__setitem__, stop=True, layouts=settings.layouts, boxes=given)
        with torch.inference_mode(), hooks as calls:
            call_network(module, images[part].clone())
        of_images = calls[call].of_images()
        maps = outputs[layer].unflatten(2, (max(1, *map(len, of_images), 0), -1)).cpu()
        for neuron in range(len(channels)) if single else part.tolist():
            place = 0 if single else neuron - int(part[0])
            known = of_images[place]
            if not len(known):
                raise InterpretError(
                    f"layer {layer!r} runs once a box, and the network finds no box in image {place}: give boxes=(top, "
                    "left, bottom, right), or another image"
                )
            first = neuron if single and boxes is not None else 0
            own = maps[place, channels[neuron], first : first + 1 if boxes is not None else len(known)]
            top, left = (0, 0) if positions is None else positions[neuron].tolist()
            if positions is not None:
                own = own[:, top : top + 1, left : left + 1]
            number, y, x = (int(at) for at in torch.unravel_index(own.argmax(), own.shape))
            found_positions.append(torch.tensor([top + y, left + x]))
            found_boxes.append(known[first + number])
    return torch.stack(found_positions), torch.stack(found_boxes)


_Group = list[NDArray[np.int64]]
"""Hits that run together, of layers behind one call: the rows of each image."""


def _groups(hits: Hits, layouts: Mapping[str, Any], size: int) -> Iterator[_Group]:
    """Yield groups of at most `size` images with similar numbers of hits, at most 32 each."""
    call_of = np.array([layouts[name].boxes for name in hits.layers])
    for call in dict.fromkeys(call_of.tolist()):
        behind = call_of[hits.layer] == call
        of_images = [
            own[start : start + MOST_HITS]
            for _, rows in hits.by_item()
            for own in [rows[behind[rows]]]
            for start in range(0, len(own), MOST_HITS)
        ]
        of_images.sort(key=lambda rows: -len(rows))
        for start in range(0, len(of_images), size):
            yield of_images[start : start + size]


def _jobs(images: Images, plan: list[_Group], hits: Hits, settings: SignalSettings, run: Execution) -> Iterator[Job]:
    for group in plan:
        inputs = torch.stack([images[int(hits.items[rows[0]])][0] for rows in group])
        yield partial(_run, inputs=inputs, group=group, hits=hits, settings=settings, run=run)


def _run(
    module: nn.Module, inputs: Tensor, group: _Group, hits: Hits, settings: SignalSettings, run: Execution
) -> Iterator[HitBatch]:
    """Project hits by backward passes through all images of a group, each for one hit an image."""
    names = [hits.layers[index] for index in np.unique(hits.layer[np.concatenate(group)])]
    found = [np.unique(hits.rois[rows], axis=0, return_inverse=True) for rows in group]
    boxes = [torch.from_numpy(own) for own, _ in found]
    call = settings.layouts[names[0]].boxes
    x, outputs = forward_under_rule(module, run.place(inputs), names, settings, {str(call): boxes})
    most = max(map(len, boxes))
    for step in range(max(map(len, group))):
        members = [(place, rows[step]) for place, rows in enumerate(group) if step < len(rows)]
        places = torch.tensor([place for place, _ in members])
        chosen = hits[np.array([row for _, row in members])]
        numbers = torch.tensor([int(found[place][1].reshape(-1)[step]) for place, _ in members])
        seeds, values_of, used = [], {}, [hits.layers[index] for index in np.unique(chosen.layer)]
        for name in used:
            own = torch.from_numpy(chosen.layer == hits.layers.index(name))
            positions = torch.from_numpy(chosen.positions)[own].clone()
            positions[:, 0] += numbers[own] * (outputs[name].shape[2] // most)
            index = neuron_index(outputs[name], places[own], torch.from_numpy(chosen.units)[own], positions)
            seed, values_of[name] = seed_signal(outputs[name], index, settings)
            seeds.append(seed)
        (signal,) = torch.autograd.grad([outputs[name] for name in used], x, seeds, retain_graph=True)
        for name in used:
            rows = np.flatnonzero(chosen.layer == hits.layers.index(name))
            one = chosen[rows]
            check_values(name, one, values_of[name])
            windows = (
                torch.stack([warp_box(whole[int(places[row])], roi) for row, roi in zip(rows, one.rois, strict=True)])
                for whole in (signal, inputs)
            )
            yield HitBatch(name, one.units, one.ranks, *windows)
