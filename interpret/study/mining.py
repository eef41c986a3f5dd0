"""Mine the layers of a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interpret.analyses.mining.compute import mine_remaining
from interpret.analyses.mining.miner import STATE_FORMAT, Miner, no_boxes
from interpret.analyses.mining.result import MinedLayer, mined_file
from interpret.analyses.projection.crop import Crop
from interpret.execution.ranks import alone, ranks
from interpret.execution.reading import learn
from interpret.execution.resume import Unfinished, layers_to_resume
from interpret.figures.drawn_inputs import boxes_in_picture
from interpret.network.layers import select_layers, split_patterns
from interpret.study.reader import UNFINISHED_MINING, is_left_out
from interpret.study.source_pictures import keep_source_pictures
from interpret.support.errors import InterpretError

if TYPE_CHECKING:
    from interpret.study.study import Study


def mine_layers(
    study: Study, layers: str | Iterable[str] | None, k: int, seed: int, part: tuple[int, int] | None = None
) -> None:
    """Mine the layers that have not been mined, and keep their hits with sources, labels and boxes.

    Of one part of the data alone, keep the unfinished state.
    """
    model, data = study.to_compute()
    settings = study.info["settings"]
    if study.mined_layers and (settings["k"], settings["seed"]) != (k, seed):
        raise InterpretError(
            f"{study.path} was mined with k={settings['k']} and seed={settings['seed']}, not k={k} and seed={seed}: "
            "choose another folder, or the same values"
        )
    chosen = select_layers(
        model.module, layers, among={layer["name"] for layer in study.layers if not is_left_out(layer)}
    )
    missing = ranks().once(lambda: _missing_layers(study, chosen, k, seed))
    if not missing:
        return
    miner = Miner(model, data, missing, k, seed=seed)
    unfinished = unfinished_mining(study, missing, k, seed)
    state = mine_remaining(miner, unfinished, study.batch_size, study.workers, study.device, study.dtype, part)
    if part is not None or not ranks().first:
        return
    learn(data, state)
    miner.load_state_dict(state)
    mined = miner.result(refuse=False)
    without = [name for name in missing if name not in mined]
    for name in without:
        study.layer(name)["without_boxes"] = True
    study.info["settings"] |= {"k": k, "seed": seed}
    study.note_skipped()
    study.write_info()
    places = {name: _places_in_sources(study, name, layer) for name, layer in mined.items()}
    _keep_pictures_of_hits(study, places.values())
    for name, layer in mined.items():  # last: a layer's file says that all of the layer is done
        replace(layer, **places[name]).save(mined_file(study.path, name))
    unfinished.forget()
    named = [] if layers is None else split_patterns(layers, without)
    for name in without:
        if name in named:
            raise no_boxes(name)


def _missing_layers(study: Study, chosen: list[str], k: int, seed: int) -> list[str]:
    """Return the layers that have not been mined, or those of unfinished mining that is to be resumed."""
    missing = [name for name in chosen if not study.is_mined(name)]
    return layers_to_resume(
        study.path / UNFINISHED_MINING, missing, study.is_mined, format=STATE_FORMAT, k=k, seed=seed
    )


def unfinished_mining(study: Study, layers: list[str], k: int, seed: int) -> Unfinished:
    """Return the state of unfinished mining."""
    settings = {"format": STATE_FORMAT, "layers": layers, "k": k, "seed": seed}
    return Unfinished(study.path / UNFINISHED_MINING, settings, study.write_info)


def _places_in_sources(study: Study, name: str, layer: MinedLayer) -> dict[str, Any]:
    """Return each hit's source, its label, and the box in the source that the neuron sees."""
    _, data = study.to_compute()
    filled = layer.images >= 0
    items = layer.images[filled]
    sources = np.full(layer.images.shape, -1, np.int64)
    labels = np.full(layer.images.shape, -1, np.int64)
    boxes = np.zeros((*layer.images.shape, 4), np.float32)
    sources[filled], labels[filled] = data.sources[items], data.labels[items]
    sides = tuple(study.info["model"]["input_shape"][1:])
    positions = torch.from_numpy(layer.positions[filled])
    windows_seen = Crop.of(study.traced[name], sides).boxes(positions).numpy()
    inside = boxes_in_picture(windows_seen if layer.rois is None else layer.rois[filled], sides)
    windows = {item: data.window(item) for item in np.unique(items).tolist()}
    window = np.array([windows[item] for item in items.tolist()], np.float64).reshape(-1, 4)
    corner, size = window[:, [0, 1, 0, 1]], (window[:, 2:] - window[:, :2])[:, [0, 1, 0, 1]]
    boxes[filled] = np.clip(corner + inside * size, 0, 1)
    return {"sources": sources, "labels": labels, "boxes": boxes}


def _keep_pictures_of_hits(study: Study, places: Iterable[dict[str, Any]]) -> None:
    """Keep a small picture of each source that has hits."""
    pairs = [np.stack([arrays["sources"].ravel(), arrays["labels"].ravel()]) for arrays in places]
    sources, labels = np.concatenate([np.zeros((2, 0), np.int64), *pairs], 1)
    sources, firsts = np.unique(sources, return_index=True)
    hits = sources >= 0
    with alone():
        keep_source_pictures(study, sources[hits], labels[firsts][hits])
