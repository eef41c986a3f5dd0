"""Mining: the images that excite each unit most, and statistics of the unit on all images, in one pass."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from interpret.analyses.mining.batch_maxima import BatchMaxima, batch_maxima
from interpret.analyses.mining.miner import Miner
from interpret.analyses.mining.result import Mined
from interpret.execution.batch_size import default_batch_size
from interpret.execution.execution import Execution, prepared
from interpret.execution.resume import Unfinished
from interpret.images.batches import Batch, batches, first_images, of_one_shape
from interpret.images.several_inputs import open_together
from interpret.network.dry_run import not_batched
from interpret.network.forward import refuse_other_type
from interpret.network.layers import WITH_UNITS
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.tracing import layer_with_units, trace


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
        resume_from: a file that keeps the state, every minute, at the end and at an interrupt, from which the same call
            continues; it stays until you delete it. None: nothing is kept.

    Raises:
        InterpretError: an unknown layer, k or batch size below 1, no image that decodes, images that do not fit the
            network or each other, or a unit whose maximum is NaN or infinite, naming layer and image.

    The nine strongest with their patches are Zeiler & Fergus 2014, Fig. 2.
    """
    model, images = open_together(as_model(model), data)
    miner = Miner(model, images, layers, k, seed=seed)
    settings = {"layers": miner.layers, "k": k, "seed": seed, "dtype": str(dtype)}
    unfinished = Unfinished.of(resume_from, model, images, **settings)
    mine_remaining(miner, unfinished, batch_size, workers, device, dtype)
    return miner.result()


def mine_remaining(
    miner: Miner,
    unfinished: Unfinished,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Update a miner with all images that it has not seen, from where unfinished mining stopped."""
    miner.load_state_dict(unfinished.load())
    images = miner.data
    with (
        prepared_to_mine(miner, device, dtype) as run,
        progress(len(images), "mining", "img", miner.seen_items) as bar,
    ):

        def update(found: BatchMaxima) -> None:
            with run.beside_workers():
                miner.update(found)
            bar.update(len(found.items))

        arriving = remaining_batches(miner, run.device, batch_size, workers)
        jobs = (
            partial(
                batch_maxima,
                batch=batch,
                run=run,
                layers=miner.layers,
                density_items=miner.density_items,
                dtype=dtype,
            )
            for batch in of_one_shape(arriving, run.input_shape)
        )
        unfinished.process(run.side_by_side(jobs), update, miner.state_dict)


@contextmanager
def prepared_to_mine(
    miner: Miner, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Iterator[Execution]:
    """Make the miner's network ready to run, and leave out layers whose outputs are no units.

    Raises:
        InterpretError: an unknown dtype, images that do not fit the network, or a layer asked for by name that has to
            be left out.
    """
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise InterpretError(f"dtype must be torch.bfloat16, torch.float16 or None, not {dtype}")
    module, first = miner.model.module, first_images(miner.data)
    refuse_other_type(module, first)
    # the positions of the units are known for the usual kinds of layer
    if not all(isinstance(module.get_submodule(name), WITH_UNITS) for name in miner.layers):
        traced = trace(module, tuple(first.shape[1:]))
        for name in traced.keys() & miner.layers:
            layer_with_units(module, traced, name)
    with prepared(miner.model, first, device, miner.layers) as run:
        miner.leave_out(run.dry_run.unbatched, not_batched)
        yield run


def remaining_batches(
    miner: Miner, device: torch.device, batch_size: int | None = None, workers: int = 0
) -> Iterator[Batch]:
    """Read the images that a miner has not seen, in batches of the size given or the default size for a device."""
    size = default_batch_size(miner.data, device) if batch_size is None else batch_size
    return batches(miner.data, size, workers, start=miner.seen_items)
