"""Project the hits of a study's mined layers, and cut their patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.projection.hit_projection import HitBatch, project_hits
from interpret.backprop.composite import Composite, RuleName
from interpret.backprop.rules import Overlap
from interpret.execution.ranks import State, ranks
from interpret.execution.resume import Unfinished
from interpret.network.layers import select_layers
from interpret.study.projection_budget import liveliest_within
from interpret.study.provenance import autocast_type, version_of
from interpret.study.tiles import TILE_KINDS, HitTiles, sprites_in, tiles_of
from interpret.support.errors import InterpretError, refuse_below_one, warn
from interpret.support.files import discard, layer_path
from interpret.support.wording import count

if TYPE_CHECKING:
    from interpret.study.study import Study

MOST_WAITING_TILES = 2**30
"""Bytes of tiles that may wait on the disk until their units are complete."""


Units = int | Literal["auto"] | None
"""So many of the liveliest units of each layer, as many as a budget pays for, or all."""


def project_layers(
    study: Study,
    layers: str | Iterable[str] | None,
    rule: RuleName | Iterable[RuleName],
    overlap: Overlap,
    units: Units = None,
    dtype: str = "float32",
) -> None:
    """Project the hits of mined layers by one rule or several, and cut their patches."""
    if isinstance(units, int):
        refuse_below_one(units=units)
    elif units not in (None, "auto"):
        raise InterpretError(f"units must be a number, 'auto' or None, not {units!r}")
    model, _ = study.to_compute()
    among = ranks().once(lambda: study.mined_layers)
    chosen = among if layers is None else select_layers(model.module, layers, among=among)
    if isinstance(rule, Composite):
        raise InterpretError(
            "a study keeps projections by the names of their rules: project(…, rule=composite) instead"
        )
    asked = ranks().once(lambda: _chosen_units(study, chosen, units))
    rules: Iterable[RuleName] = [rule] if isinstance(rule, str) else rule
    for one in dict.fromkeys(rules):
        kind = one if overlap == "add" else f"{one}-{overlap}"
        precision = autocast_type(dtype)
        kind = kind if precision is None else f"{kind}-{dtype}"
        missing = ranks().once(partial(_missing, study, asked, kind))
        # a process that was killed at the end leaves a state of which nothing is missing
        left = ranks().once(_state_file(study, kind).exists)
        if missing or left:
            _project_by_rule(study, missing, asked, one, overlap, precision, kind)


def _state_file(study: Study, kind: str) -> Path:
    """Return the file of the state of interrupted projecting."""
    return study.path / "unfinished" / "projections" / kind / "done.safetensors"


def _chosen_units(study: Study, chosen: Iterable[str], units: Units) -> dict[str, NDArray[np.int64]]:
    """Return the units of each layer to project; say so where they are not all because all would take hours."""
    mined = {name: study.mined(name) for name in chosen}
    every = {name: np.arange(len(layer.values)) for name, layer in mined.items()}
    if units is None or not mined:
        return every
    if isinstance(units, int):
        return {name: layer.most_active[:units] for name, layer in mined.items()}
    found = liveliest_within(study.traced, mined, tuple(study.info["model"]["input_shape"][1:]))
    if found is None:
        return every
    some, total = (sum(map(len, of_layers.values())) for of_layers in (found, every))
    warn(
        f"to project all {total:,} units of {count(len(mined), 'layer')} would take hours: {some:,} of them, the "
        "liveliest of each layer, get pictures; to add others, choose layers or units"
    )
    return found


def _missing(study: Study, asked: Mapping[str, NDArray[np.int64]], kind: str) -> dict[str, MinedLayer]:
    """Return the layers with units that have not been projected by a rule, with the hits of these units alone."""
    found = {}
    for name, units in asked.items():
        folders = (study.patch_sprite(name, 0).parent, study.projection_sprite(kind, name, 0).parent)
        layer, (patches, projections) = study.mined(name), map(sprites_in, folders)
        units = np.setdiff1d(units, list(patches.keys() & projections.keys()))
        if kind not in study.rules(name) or (layer.images[units] >= 0).any():
            found[name] = layer.only(units)
    return found


def _project_by_rule(
    study: Study,
    mined: Mapping[str, MinedLayer],
    asked: Mapping[str, NDArray[np.int64]],
    rule: RuleName,
    overlap: Overlap,
    dtype: torch.dtype | None,
    kind: str,
) -> None:
    """Project hits of layers by one rule, and write pictures of the units; `kind` is the folder of its projections.

    Of several ranks, each projects a share of the hits and sends the tiles to rank 0, which writes them.
    """
    model, data = study.to_compute()
    folder = _state_file(study, kind).parent
    settings = {"rule": kind, "version": version_of("interpret-cnn")}
    unfinished = Unfinished(_state_file(study, kind), settings, study.write_info)
    interrupted = {name: checksums.numpy() for name, checksums in ranks().once(unfinished.load).items()}
    published = ranks().once(lambda: [name for name in interrupted if kind in study.rules(name)])
    for name in published:
        del interrupted[name]
    names = [
        "done.safetensors",
        *(f"{layer_path(name)}.{what}.npy" for name in study.mined_layers for what in TILE_KINDS),
    ]
    ranks().once(lambda: unfinished.refuse_others(names))
    found = {name: (layer.images >= 0, study.tile(name), interrupted.pop(name, None)) for name, layer in mined.items()}
    tiles = ranks().once(lambda: {name: HitTiles(folder / layer_path(name), *one) for name, one in found.items()})
    order = list(tiles)
    waiting: list[State] = []  # until another rank than the first sends it

    def masks() -> dict[str, torch.Tensor]:
        # of interrupted layers that are not asked for now, too
        done = {name: found.checksums for name, found in tiles.items()} | interrupted
        return {name: torch.from_numpy(checksums) for name, checksums in done.items()}

    def draw(batch: HitBatch) -> State:
        arrays: dict[str, NDArray[Any]] = dict(tiles_of(batch, tiles[batch.layer].side, model, data.pixel_scale))
        arrays |= {"units": batch.units, "ranks": batch.ranks, "layer": np.array(order.index(batch.layer))}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def update(part: State) -> None:
        if ranks().first:
            write(part)
        else:
            waiting.append(part)

    def write(part: State) -> None:
        if not folder.exists():
            unfinished.save(masks())  # from now on, the folder is known to be the study's
        arrays = {name: tensor.numpy() for name, tensor in part.items()}
        tiles[order[int(arrays.pop("layer"))]].update(arrays.pop("units"), arrays.pop("ranks"), arrays)

    def state() -> dict[str, torch.Tensor]:
        for part in ranks().arriving(waiting):
            write(part)
        waiting.clear()
        return masks()

    def publish(group: Iterable[str]) -> None:
        for name in group:
            own = tiles.pop(name)
            if not ranks().first:
                continue
            sprites = (study.patch_sprite(name, 0).parent, study.projection_sprite(kind, name, 0).parent)
            for what, place in zip(TILE_KINDS, sprites, strict=True):
                missing = [unit for unit in asked[name].tolist() if unit not in sprites_in(place)]
                if missing or not place.exists():
                    own.write_sprites(place, what, missing)
            discard(folder, [file.name for file in own.files.values()])

    publish([name for name, found in tiles.items() if found.complete])
    for group in _groups(study, {name: mined[name] for name in tiles}):
        hits, done = {name: mined[name] for name in group}, {name: tiles[name].done for name in group}
        how: dict[str, Any] = {"batch_size": study.batch_size, "workers": study.workers, "device": study.device}
        how |= {"rule": rule, "overlap": overlap, "dtype": dtype}
        batches = project_hits(model, data, hits, done=done, then=draw, **how)
        unfinished.process(batches, update, state)
        publish(group)
    if not ranks().first:
        return
    unfinished.save(masks() if interrupted else {})
    ours = [f"{layer_path(name)}.{what}.npy" for name in published for what in TILE_KINDS]
    if not interrupted:
        ours.append("done.safetensors")
    discard(study.path / "unfinished", [f"projections/{kind}/{name}" for name in ours])


def _groups(study: Study, mined: Mapping[str, MinedLayer]) -> Iterator[list[str]]:
    """Yield layers in groups whose tiles may wait together: each group reads the data once."""
    group: list[str] = []
    held = 0
    for name in mined:
        size = 2 * 3 * int((mined[name].images >= 0).sum()) * study.tile(name) ** 2
        if group and held + size > MOST_WAITING_TILES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
