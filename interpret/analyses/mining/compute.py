"""Mining: the top-activating images of each unit, and statistics of the unit over all images, in one pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.batch_maxima import BatchMaxima, batch_maxima
from interpret.analyses.mining.miner import STATE_FORMAT, Miner, merge_states
from interpret.analyses.mining.result import Mined
from interpret.execution.execution import Execution, prepared, warn_of_slow_type
from interpret.execution.ranks import State, ranks
from interpret.execution.reading import Reading, done_in, learn, merge_read, part_of
from interpret.execution.resume import Unfinished
from interpret.images.batches import first_images, of_one_shape
from interpret.images.several_inputs import open_together
from interpret.network.forward import refuse_other_type
from interpret.network.layers import CONVOLUTIONS, input_axes, not_batched, not_one_tensor
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.recording import add_facts
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import layouts_of, no_positions

logger = logging.getLogger(__name__)


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
    """Find the k top-activating images of every unit, in one pass over the data.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> mined = mine(network, images, k=3)
    >>> mined["0"].values.shape, mined["0"].positions.shape
    ((4, 3), (4, 3, 2))
    >>> image, (y, x) = mined["0"].images[2, 0], mined["0"].positions[2, 0]
    >>> bool(torch.isclose(network[0](images)[image, 2, y, x], torch.tensor(mined["0"].values[2, 0])))
    True

    Activations are the layer's outputs; for rectified activations, name the rectifier as the layer. The hits of a unit
    come from distinct sources (photographs), each with its strongest item and position. Ties are broken by the lower
    item, then by the lower position. The same call gives bit-identical results; another batch size changes values at
    most by the rounding of the forward pass. Memory use does not grow with the number of images.

    A head that runs once a box (`interpret.Layer.boxes`), as in Faster R-CNN, has hits with boxes, `MinedLayer.rois`:
    of each image the box in which the unit is strongest. An image without boxes is no hit of it, and counts as 0 in
    class means and on the sample.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        data: images [N, C, H, W], a data set of images or of (image, label), a folder, or an `Images`. For a network
            with several inputs: a tuple or dict of tensors [N, …], of which the first float tensor [N, C, H, W] holds
            the images, or a data set whose items are such tuples or dicts for one image.
        layers: names or globs; None: every convolutional and linear layer. A glob matches only layers that run.
        k: number of hits to keep per unit, at least 1.
        batch_size: number of images per forward pass; see `interpret`.
        workers: number of processes that decode images; 0: decode in the main process.
        seed: seed of the sample of images on which density and sample maxima are computed.
        device: the device that the network runs on; see `interpret`.
        dtype: `torch.bfloat16` or `torch.float16`: run under autocast, faster and less precise; None or float32: run
            without autocast.
        resume_from: a file for the state, written every minute, at the end and when interrupted. The same call resumes
            from it; the file stays until you delete it. None: keep no state.

    Returns:
        `Mined`: for each layer with C units, values [C, k], images [C, k] and positions [C, k, 2], the
        strongest first. Places that no image fills have the value −inf and the image −1.

    Raises:
        InterpretError: an unknown layer; k or a batch size below 1; no image that decodes; images that do not fit the
            network or differ in shape; a unit whose maximum is NaN or infinite (the message names layer and image).

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, Fig. 2, which shows the nine
    top-activating patches of units.
    """
    model, images = open_together(as_model(model), data)
    miner = Miner(model, images, layers, k, seed=seed)
    settings = {"format": STATE_FORMAT, "layers": miner.layers, "k": k, "seed": seed, "dtype": str(dtype)}
    unfinished = Unfinished.of(resume_from, model, images, **settings)
    state = ranks().agreed(mine_remaining(miner, unfinished, batch_size, workers, device, dtype))
    learn(images, state)
    miner.load_state_dict(state)
    return miner.result()


def mine_remaining(
    miner: Miner,
    unfinished: Unfinished,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    part: tuple[int, int] | None = None,
    holding: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """Mine all images that unfinished mining has not seen yet, or those of one part, and return the whole state.

    With `holding`, mine only the batches that hold some of these items.

    Of several ranks, each mines a share; rank 0 returns the state, the others an empty one.
    """
    before = unfinished.load() if ranks().first else {}
    images = miner.data
    with prepared_to_mine(miner, device, dtype) as run:
        size = run.batch_size(batch_size)
        add_facts(batch_size=size, workers=workers)
        logger.info("mining %d layers in batches of %d, read by %d processes", len(miner.layers), size, workers)
        within = None if part is None else part_of(len(images), size, part, images.starts)
        reading = Reading(images, size, ranks().agreed(done_in(before)), within, holding)
        with reading.progress("mining") as bar:

            def update(found: BatchMaxima) -> None:
                with run.beside_workers():
                    miner.update(found)
                reading.reach(int(found.items[0]))
                bar.update(len(found.items))

            def state() -> dict[str, Tensor]:
                own = reading.state_dict() | miner.state_dict() if len(reading.done) else {}
                return merge_mined(before, ranks().reduced(own, merge_mined))

            jobs = (
                partial(
                    batch_maxima,
                    batch=batch,
                    run=run,
                    layers=miner.layers,
                    density_items=miner.density_items,
                    dtype=dtype,
                    layouts=miner.layouts,
                )
                for batch in of_one_shape(reading.batches(workers), run.input_shape)
            )
            return unfinished.process(reading.to_the_end(run.side_by_side(jobs)), update, state)


def merge_mined(first: State, second: State) -> dict[str, Tensor]:
    """Merge what two ranks have mined: hits, statistics, and which images they have read."""
    if not first or not second:
        return dict(first or second)
    return merge_states(first, second) | merge_read(first, second)


@contextmanager
def prepared_to_mine(
    miner: Miner, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Iterator[Execution]:
    """Prepare the miner's network to run, and leave out layers whose outputs have no units.

    Raises:
        InterpretError: an unknown dtype; images that do not fit the network; a layer given by name that has no units.
    """
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise InterpretError(f"dtype must be torch.bfloat16, torch.float16 or None, not {dtype}")
    module, first = miner.model.module, first_images(miner.data)
    refuse_other_type(module, first)
    with prepared(miner.model, first, device, miner.layers) as run:
        warn_of_slow_type(run.device, dtype)
        miner.leave_out(run.dry_run.not_one_tensor, not_one_tensor)
        # convolutions return maps, and rows of features have no positions
        convolutions, unbatched = CONVOLUTIONS[input_axes(module)], run.dry_run.unbatched
        if (
            not run.dry_run.pools_boxes
            and unbatched.isdisjoint(miner.layers)
            and all(
                isinstance(module.get_submodule(name), convolutions) or run.dry_run.rank(name) == 2
                for name in miner.layers
            )
        ):
            yield run
            return
        traced = trace_on_meta(module, tuple(first.shape[1:]))
        known = {name for name, layer in traced.items() if (layer.batched and layer.parts > 1) or layer.boxes}
        miner.leave_out(unbatched - known, not_batched)
        miner.leave_out([name for name in traced if traced[name].units is None], no_positions)
        miner.layouts = layouts_of(traced, miner.layers)
        yield run
