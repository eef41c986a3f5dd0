"""Evolution: how the strongest activation of each unit, and the features, change from epoch to epoch of training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.evolution.result import Evolution
from interpret.analyses.mining.compute import mine
from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.analyses.projection.hit_projection import project_hits
from interpret.backprop.rules import Rule
from interpret.execution.execution import Execution, prepared
from interpret.execution.ranks import ranks
from interpret.images.batches import first_images
from interpret.images.display import inputs_to_bytes
from interpret.images.opening import open_images
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.loading.checkpoints import State, list_epochs, load_state, read_state, with_network_names
from interpret.loading.folders import model_folder
from interpret.loading.loading import load
from interpret.network.forward import collect_outputs
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.network.weights import copied
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

Checkpoint = str | os.PathLike[str] | State
Checkpoints = str | os.PathLike[str] | Mapping[int, Checkpoint]


def evolve(
    checkpoints: Checkpoints,
    data: Any,
    layers: str | Iterable[str] | None = None,
    units: int | Sequence[int] | Mapping[str, Sequence[int]] = 6,
    *,
    model: str | os.PathLike[str] | Model | nn.Module | None = None,
    rule: Rule = "deconvnet",
    sample: int = 256,
    batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
    resume_from: str | os.PathLike[str] | None = None,
) -> Evolution:
    """Track units and features during training: top-activating images per epoch, and how much features change.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    >>> early = {name: torch.full_like(value, 0.1) for name, value in network.state_dict().items()}
    >>> images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> evolution = evolve({1: early, 5: network.state_dict()}, images, units=[0, 2], model=network)
    >>> evolution.epochs, evolution.values["2"].shape, evolution.projections["2"].shape
    (array([1, 5]), (2, 2), (2, 2, 1, 5, 5))
    >>> evolution.movement["2"].shape, evolution.jumps["2"][:, 0]
    ((1,), array([False, False]))

    For each unit and epoch, `mine` finds the strongest activation over all images, and the rule projects it to the
    pixels. A **jump** is an epoch at which the strongest activation is on another item of the data than at the epoch
    before.

    **Movement** measures how fast a layer's features change. For an image's features f at consecutive kept epochs
    a < b, it is ‖f_b − f_a‖ / ‖f_a‖ / (b − a), averaged over images. Features are the layer's outputs, compared
    position by position. Images whose earlier features are all zero are left out of the layer's mean.

    Args:
        checkpoints: a model folder or the name of a shipped model ("lenet"), whose `epochs/NN.safetensors` are read;
            another folder of checkpoints, with the epoch as the last number in each file name; or a mapping from epoch
            to a file or a state dict.
        data: the images, as `interpret.open_images` takes them; the paper uses all training images.
        layers: names or globs; None: every convolutional and linear layer.
        units: the number of units per layer, chosen randomly (by hash) among those that are not dead at the last epoch;
            or the units, for all layers or per layer.
        model: the network of the checkpoints; not needed for a model folder. Its own weights are ignored, and it is
            restored afterwards.
        rule: the rule of the projections; see `interpret.project`.
        sample: number of images, chosen by hash, on which movement is measured.
        batch_size, workers, device: see `interpret` and, for workers, `interpret.mine`.
        seed: seed of the choice of units and of the sample.
        resume_from: a folder for the state of mining, written every minute and when interrupted. The same call resumes
            from it; the folder stays until you delete it. None: keep no state.

    Returns:
        `Evolution`, which `interpret.plot` draws.

    Raises:
        InterpretError: no checkpoints; no network for them; a checkpoint of another architecture (checked before
            mining); an unknown layer; a unit that a layer does not have.

    Source: Zeiler & Fergus 2014, section 4 ("Feature evolution during training") and Fig. 4. The paper shows "a
    randomly chosen subset of model features" and does not say whether it includes dead ones; here it does not. It calls
    a jump a change "in the image from which the strongest activation originates"; here, each crop of a photograph is an
    image. Movement is not in the paper: it puts a number on the paper's argument that lower layers converge within a
    few epochs and upper layers late.
    """
    if sample < 1:
        raise InterpretError(f"sample must be at least 1 image, not {sample}")
    network, kept = _opened(checkpoints, model)
    refuse_other_than_images(network.module, "evolve", "it draws projections in rows and columns")
    images = open_images(data, network)
    _check(network, kept)
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "seed": seed, "device": device}
    mined = _mine(network, kept, images, layers, resume_from, how)
    last = mined[max(kept)]
    chosen = _choose(units, last, seed)
    movement = _movement(network, kept, images, list(chosen), sample, seed, batch_size, device)
    pictures = _draw(network, kept, images, mined, chosen, rule, device)
    return Evolution(
        model=network.name,
        data=images.name,
        items=int(next(iter(last.values())).histogram[0].sum()),
        rule=str(rule),
        epochs=np.array(list(kept), np.int64),
        units=chosen,
        **_aggregate(mined, chosen),
        **movement,
        **pictures,
    )


# ---- check -----------------------------------------------------------------------------------------------------------


def _opened(
    checkpoints: Checkpoints, model: str | os.PathLike[str] | Model | nn.Module | None
) -> tuple[Model, dict[int, Checkpoint]]:
    """Return a copy of the network to load weights into, and the checkpoints by epoch, ascending."""
    folder = model_folder(checkpoints) if isinstance(checkpoints, str | os.PathLike) else None
    if model is None:
        if folder is None:
            raise InterpretError(
                "checkpoints need the network that they belong to: pass model=... (--model on the command line), "
                "or a model folder that keeps epochs"
            )
        model = folder
    # its own weights are not needed, and may be missing
    loaded = load(model, weights="random") if isinstance(model, str | os.PathLike) else as_model(model)
    return replace(loaded, module=copied(loaded.module)), _by_epoch(checkpoints, folder)


def _by_epoch(checkpoints: Checkpoints, folder: Path | None) -> dict[int, Checkpoint]:
    if isinstance(checkpoints, Mapping):
        if not checkpoints:
            raise InterpretError("checkpoints is empty: give at least one epoch")
        odd = next((epoch for epoch in checkpoints if not isinstance(epoch, int) or epoch < 0), None)
        if odd is not None:
            raise InterpretError(f"checkpoints must map epochs, whole numbers from 0 on, to files, not {odd!r}")
        return dict(sorted(checkpoints.items()))
    if not isinstance(checkpoints, str | os.PathLike):
        raise InterpretError(
            f"checkpoints must be a folder or a mapping from epoch to file, not {type(checkpoints).__name__}"
        )
    if folder is None:
        return dict(list_epochs(checkpoints))
    if not (folder / "epochs").is_dir():
        raise InterpretError(
            f"model folder {folder.name!r} keeps no epochs: write keep = [1, 2, 5] under [train] in its recipe.toml, "
            "and train it with interpret train"
        )
    return dict(list_epochs(folder / "epochs"))


def _check(network: Model, kept: Mapping[int, Checkpoint]) -> None:
    """Read every checkpoint, to refuse an invalid one before mining."""
    with progress(len(kept), "reading checkpoints", "epoch") as bar:
        for epoch in kept:
            _load_epoch(network, kept, epoch)
            bar.update()


def _load_epoch(network: Model, kept: Mapping[int, Checkpoint], epoch: int) -> None:
    """Load a checkpoint's weights into the network."""
    checkpoint = kept[epoch]
    if isinstance(checkpoint, Mapping):
        state, source = checkpoint, f"the weights of epoch {epoch}"
    else:
        state, source = (
            read_state(checkpoint, network.module),
            f"the weights of epoch {epoch} in {Path(checkpoint).name!r}",
        )
    load_state(network.module, with_network_names(state, network.module), source)


# ---- run -------------------------------------------------------------------------------------------------------------


def _mine(
    network: Model,
    kept: Mapping[int, Checkpoint],
    images: Images,
    layers: str | Iterable[str] | None,
    resume_from: str | os.PathLike[str] | None,
    how: Mapping[str, Any],
) -> dict[int, Mined]:
    """Find the strongest activation of each unit at each kept epoch."""
    mined: dict[int, Mined] = {}
    for epoch in kept:
        _load_epoch(network, kept, epoch)
        kept_in = None if resume_from is None else Path(resume_from) / f"{epoch}.safetensors"
        mined[epoch] = mine(network, images, layers, 1, **how, resume_from=kept_in)
    return mined


def _choose(
    units: int | Sequence[int] | Mapping[str, Sequence[int]], mined: Mined, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return the units of each mined layer to show, ascending."""
    if isinstance(units, Mapping):
        for layer in units:
            if layer not in mined:
                raise InterpretError(f"units names layer {layer!r}, which is not among layers: add it there")
        return {layer: _named(units[layer], layer, mined[layer]) for layer in mined if layer in units}
    if isinstance(units, int):
        if units < 1:
            raise InterpretError(f"units must be at least 1 a layer, not {units}")
        return {layer: _drawn(units, found, seed) for layer, found in mined.items()}
    return {layer: _named(units, layer, found) for layer, found in mined.items()}


def _named(units: Sequence[int], layer: str, found: MinedLayer) -> NDArray[np.int64]:
    count = len(found.values)
    odd = next((unit for unit in units if not 0 <= unit < count), None)
    if odd is not None:
        raise InterpretError(f"units must be from 0 to {count - 1} in layer {layer!r}, not {odd}")
    if not len(units):
        raise InterpretError(f"units is empty for layer {layer!r}: name at least one")
    return np.unique(np.array(units, np.int64))


def _drawn(count: int, found: MinedLayer, seed: int) -> NDArray[np.int64]:
    """Draw units among those that are not dead; among all units if all are dead."""
    living = np.flatnonzero(~found.dead) if not found.dead.all() else np.arange(len(found.dead))
    return np.sort(living[sample_by_hash(len(living), count, seed)])


def _movement(
    network: Model,
    kept: Mapping[int, Checkpoint],
    images: Images,
    layers: list[str],
    sample: int,
    seed: int,
    batch_size: int | None,
    device: str | torch.device | None,
) -> dict[str, Any]:
    """Return each layer's mean movement between consecutive kept epochs, its standard error, and the number of images.

    Both epochs' networks run on the same batch, so that no features are stored.
    """
    epochs = list(kept)
    chosen = np.sort(sample_by_hash(len(images), sample, seed)).tolist()
    earlier, later = (replace(network, module=copied(network.module)) for _ in range(2))
    found: dict[str, dict[str, NDArray[np.float64]]] = {
        key: {layer: np.full(len(epochs) - 1, np.nan) for layer in layers} for key in ("movement", "movement_errors")
    }
    measured = 0
    first = first_images(images)
    with progress((len(epochs) - 1) * len(chosen), "comparing epochs", "img") as bar:
        for step, (before, after) in enumerate(pairwise(epochs)):
            _load_epoch(earlier, kept, before)
            _load_epoch(later, kept, after)
            with prepared(earlier, first, device, layers) as run, prepared(later, first, device, layers):
                size = run.batch_size(batch_size)

                def move(items: list[int], run: Execution = run) -> dict[str, NDArray[np.float64]]:
                    batch = _read(images, items)
                    bar.update(len(items))
                    return {} if batch is None else _moved(earlier.module, later.module, run.place(batch), layers)

                parts = ranks().mapped([chosen[at : at + size] for at in range(0, len(chosen), size)], move)
            for layer in layers:
                moved = np.concatenate([part[layer] for part in parts if part]) / (after - before)
                measured, moved = len(moved), moved[np.isfinite(moved)]
                if len(moved):
                    found["movement"][layer][step] = moved.mean()
                    error = moved.std(ddof=1) / np.sqrt(len(moved)) if len(moved) > 1 else np.nan
                    found["movement_errors"][layer][step] = error
    return {**found, "sample": measured}


def _read(images: Images, items: list[int]) -> Tensor | None:
    """Return some items as a batch, without those that do not decode; None if none does."""
    found: list[Tensor] = []
    for item in items:
        with suppress(UnreadableImage):
            found.append(images[item][0])
    return torch.stack(found) if found else None


@torch.inference_mode()
def _moved(earlier: nn.Module, later: nn.Module, images: Tensor, layers: list[str]) -> dict[str, NDArray[np.float64]]:
    """Return ‖f_later − f_earlier‖ / ‖f_earlier‖ per layer and image; NaN or infinity if ‖f_earlier‖ is 0."""
    before, after = (collect_outputs(network, images, layers) for network in (earlier, later))
    moved: dict[str, NDArray[np.float64]] = {}
    for layer, output in after.items():
        first = before.pop(layer).flatten(1).double()
        distance, norm = (output.flatten(1).double() - first).norm(dim=1), first.norm(dim=1)
        moved[layer] = (distance / norm).cpu().numpy()
    return moved


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _aggregate(mined: Mapping[int, Mined], chosen: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Return the hits of the chosen units per layer, with epochs along the second axis."""
    return {
        field: {
            layer: np.stack([getattr(found[layer], field)[units, 0] for found in mined.values()], 1)
            for layer, units in chosen.items()
        }
        for field in ("values", "images", "positions")
    }


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(
    network: Model,
    kept: Mapping[int, Checkpoint],
    images: Images,
    mined: Mapping[int, Mined],
    chosen: Mapping[str, NDArray[np.int64]],
    rule: Rule,
    device: str | torch.device | None,
) -> dict[str, Any]:
    """Return the chosen units' projections and patches per layer, each [units, epochs, …]."""
    projections: dict[str, NDArray[np.float32]] = {}
    patches: dict[str, NDArray[np.uint8]] = {}
    for column, epoch in enumerate(kept):
        _load_epoch(network, kept, epoch)
        hits = {layer: mined[epoch][layer].only(units) for layer, units in chosen.items()}
        for batch in ranks().concatenated(project_hits(network, images, hits, rule=rule, device=device)):
            shown = inputs_to_bytes(batch.patches, images.pixel_scale)
            signals = batch.projections.float().cpu().numpy()
            size = (len(chosen[batch.layer]), len(kept))
            rows = np.searchsorted(chosen[batch.layer], batch.units)
            projections.setdefault(batch.layer, np.zeros((*size, *signals.shape[1:]), np.float32))[rows, column] = (
                signals
            )
            patches.setdefault(batch.layer, np.zeros((*size, *shown.shape[1:]), np.uint8))[rows, column] = shown
    # a layer without hits has nothing to show
    return {
        "projections": {layer: projections.get(layer, np.zeros(0, np.float32)) for layer in chosen},
        "patches": {layer: patches.get(layer, np.zeros(0, np.uint8)) for layer in chosen},
        "channels": network.colours,
        "shown": images.pixel_scale.said,
    }
