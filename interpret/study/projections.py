"""Project the hits of a study's mined layers, and cut their patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from interpret.study.provenance import version_of
from interpret.study.tiles import TILE_KINDS, HitTiles, tiles_of, write_sprites
from interpret.support.errors import InterpretError
from interpret.support.files import discard, layer_path

if TYPE_CHECKING:
    from interpret.study.study import Study

MOST_WAITING_TILES = 2**30
"""Bytes of tiles that may wait on the disk until their units are complete."""


def project_layers(
    study: Study, layers: str | Iterable[str] | None, rule: RuleName | Iterable[RuleName], overlap: Overlap
) -> None:
    """Project the hits of mined layers by one rule or several, and cut their patches."""
    model, _ = study.to_compute()
    among = ranks().once(lambda: study.mined_layers)
    chosen = among if layers is None else select_layers(model.module, layers, among=among)
    if isinstance(rule, Composite):
        raise InterpretError(
            "a study keeps projections by the names of their rules: project(…, rule=composite) instead"
        )
    rules: Iterable[RuleName] = [rule] if isinstance(rule, str) else rule
    for one in dict.fromkeys(rules):
        kind = one if overlap == "add" else f"{one}-{overlap}"
        missing = ranks().once(partial(_missing, study, chosen, kind))
        # a process that was killed at the end leaves a state of which nothing is missing
        left = ranks().once(_state_file(study, kind).exists)
        if missing or left:
            _project_by_rule(study, missing, one, overlap, kind)


def _state_file(study: Study, kind: str) -> Path:
    """Return the file of the state of interrupted projecting."""
    return study.path / "unfinished" / "projections" / kind / "done.safetensors"


def _missing(study: Study, chosen: Iterable[str], kind: str) -> dict[str, MinedLayer]:
    """Return the layers that have not been projected by a rule."""
    return {name: study.mined(name) for name in chosen if kind not in study.rules(name)}


def _project_by_rule(
    study: Study, mined: Mapping[str, MinedLayer], rule: RuleName, overlap: Overlap, kind: str
) -> None:
    """Project the hits of layers by one rule; `kind` is the folder of its projections.

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
            if not study.patch_sprite(name, 0).parent.exists():
                write_sprites(study.patch_sprite(name, 0).parent, own.read("patches"), study.tile(name))
            sprites = study.projection_sprite(kind, name, 0).parent
            write_sprites(sprites, own.read("projections"), study.tile(name))
            discard(folder, [file.name for file in own.files.values()])

    publish([name for name, found in tiles.items() if found.complete])
    for group in _groups(study, {name: mined[name] for name in tiles}):
        hits, done = {name: mined[name] for name in group}, {name: tiles[name].done for name in group}
        how: dict[str, Any] = {"batch_size": study.batch_size, "workers": study.workers, "device": study.device}
        batches = project_hits(model, data, hits, rule=rule, overlap=overlap, done=done, then=draw, **how)
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
        size = 2 * 3 * mined[name].values.size * study.tile(name) ** 2
        if group and held + size > MOST_WAITING_TILES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
