"""Natural images beside optimised ones: the strongest of each objective, and what they keep when damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.analyses.synthesis.objectives import Objective, Position
from interpret.analyses.synthesis.optimisation import run_layers
from interpret.analyses.synthesis.scene import Scene
from interpret.execution.execution import Execution
from interpret.images.batches import Batch, read_parts
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

MOST_SEARCHED = 1024
"""The largest number of natural images that are searched for the strongest one."""
MOST_COMPARED = 128
"""The largest number of natural patches to which distances are measured."""
MOST_HELD = 2**26
"""The largest number of values of natural images that are held between calls: 256 MiB in float32."""


@dataclass(frozen=True)
class Strongest:
    """The natural image on which each of n objectives is largest."""

    values: list[float]
    items: list[int]
    positions: list[Position]


def strongest_natural(
    module: nn.Module,
    run: Execution,
    images: Images,
    objectives: Sequence[Objective],
    scene: Scene,
    sign: float,
    mined: Mined | MinedLayer | None,
    batch_size: int | None = None,
) -> Strongest:
    """Return on which image each objective is largest (sign 1) or smallest (−1), and where.

    Values of mined units are those that were mined. Others are found in a sample of the images.
    """
    known = None if mined is None or sign < 0 else [_mined_value(mined, objective) for objective in objectives]
    if known is not None and all(one is not None for one in known):
        columns = [one for one in known if one is not None]
        return Strongest(*(list(column) for column in zip(*columns, strict=True)))
    items = np.sort(sample_by_hash(len(images), MOST_SEARCHED))
    best: list[tuple[float, int, Position]] = [(-np.inf * sign, -1, (0, 0))] * len(objectives)
    size = run.batch_size(batch_size)
    layers = frozenset().union(*(objective.layers for objective in objectives))
    with progress(len(items), "searching natural images", "img") as bar, torch.no_grad():
        for batch in read_parts(images, np.split(items, range(size, len(items), size))):
            outputs = run_layers(module, run.place(batch.images), layers, scene.layouts)
            for place, objective in enumerate(objectives):
                values, at = _everywhere(objective, outputs, scene, sign)
                row = int((sign * values).argmax())
                if sign * float(values[row]) > sign * best[place][0]:
                    best[place] = (float(values[row]), int(batch.items[row]), at[row])
            bar.update(len(batch.items))
    if any(item < 0 for _, item, _ in best):
        raise InterpretError("an activation is NaN on all natural images: correct the weights or leave natural out")
    return Strongest(*(list(column) for column in zip(*best, strict=True)))


def _mined_value(mined: Mined | MinedLayer, objective: Objective) -> tuple[float, int, Position] | None:
    """Return value, item and position of a mined unit's strongest hit; None for another objective."""
    term, *others = objective.terms
    if others or term.kind != "neuron" or term.unit is None or term.weight != 1:
        return None
    layer = mined if isinstance(mined, MinedLayer) else mined.layers.get(term.layer)
    if layer is None or layer.name != term.layer or layer.images[term.unit, 0] < 0:
        return None
    y, x = layer.positions[term.unit, 0].tolist()
    return float(layer.values[term.unit, 0]), int(layer.images[term.unit, 0]), (y, x)


def _everywhere(
    objective: Objective, outputs: dict[str, Tensor], scene: Scene, sign: float
) -> tuple[Tensor, list[Position]]:
    """Return an objective's value for each image [B], of one neuron at its best position, and that position."""
    count = len(next(iter(outputs.values())))
    if not objective.is_local:
        values = [objective.value(outputs, row, scene.positions) for row in range(count)]
        return torch.stack(values).double().cpu(), [(0, 0)] * count
    total: Tensor | None = None
    for term in objective.terms:
        output = outputs[term.layer]
        if term.unit is not None:
            own = output[:, term.unit]
        else:
            own = torch.einsum("bc...,c->b...", output, torch.tensor(term.direction).to(output))
        total = term.weight * own if total is None else total + term.weight * own
    assert total is not None
    flat = total.reshape(count, -1).double().cpu()
    best = (sign * flat).argmax(1)
    width = total.shape[-1] if total.dim() == 3 else 1
    return flat[torch.arange(count), best], [(place // width, place % width) for place in best.tolist()]


def natural_windows(images: Images, size: tuple[int, int], most: int = MOST_COMPARED) -> Tensor | None:
    """Return windows [n, C, h, w] at random places of natural images; None where the images are smaller."""
    found = []
    for batch in _sampled(images, most):
        for image, item in zip(batch.images, batch.items.tolist(), strict=True):
            room = [side - wanted for side, wanted in zip(image.shape[1:], size, strict=True)]
            if min(room) < 0:
                return None
            generator = torch.Generator().manual_seed(item)
            y, x = (int(torch.randint(one + 1, (), generator=generator)) for one in room)
            found.append(image[: images.channels, y : y + size[0], x : x + size[1]])
    return torch.stack(found)


@contextmanager
def natural_images_held() -> Iterator[None]:
    """Read the images of `natural_windows` once for all calls in the block: those of a study's layers are the same.

    Those of a data set whose sample has more than `MOST_HELD` values are read again.
    """
    token = _HELD.set({})
    try:
        yield
    finally:
        _HELD.reset(token)


_HELD: ContextVar[dict[tuple[int, int], tuple[Images, list[Batch]]] | None] = ContextVar("natural images", default=None)
"""By the identity of a data set and the number of images: the data set, so that it lives, and its sample."""


def _sampled(images: Images, most: int) -> Iterator[Batch]:
    """Yield a sample of natural images in batches."""
    held, key = _HELD.get(), (id(images), most)
    if held is not None and key in held:
        yield from held[key][1]
        return
    items = sample_by_hash(len(images), most, seed=1)
    kept: list[Batch] = []
    values = 0
    for batch in read_parts(images, np.split(items, range(32, len(items), 32))):
        values += batch.images.numel()
        if held is not None and values <= MOST_HELD:
            kept.append(batch)
        yield batch
    if held is not None and values <= MOST_HELD:
        held[key] = images, kept
