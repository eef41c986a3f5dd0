"""Patches: crop the windows that hits see from the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.projection.box_projection import warp_box
from interpret.analyses.projection.hit_projection import project_hits
from interpret.analyses.projection.hits import locate_hits
from interpret.backprop.composite import RuleName
from interpret.images.display import inputs_to_bytes, shrink
from interpret.images.opening import open_images
from interpret.network.model import Model, as_model

SMALL = 80
"""Longer side of a patch in a table, in pixels."""


def cut_patches(
    model: Model | nn.Module, data: Any, mined: Mapping[str, Any], layers: str | Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Crop the windows [n, C, h, w] of the network's inputs that each layer's hits see; does not run the network.

    >>> from interpret import mine
    >>> network, images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), torch.rand(6, 1, 12, 12)
    >>> cut_patches(network, images, mine(network, images, k=2))["0"].shape
    torch.Size([8, 1, 3, 3])

    Patches are sorted by unit, then by rank; missing hits are left out. The data is read once. The
    patch of a layer that runs once a box is the box, warped to a square.

    Args:
        model, data, mined, layers: as in `interpret.analyses.projection.hit_projection.project_hits`.

    Raises:
        InterpretError: a layer that was not mined; hits that do not fit the network or the data.
    """
    model = as_model(model)
    images = open_images(data, model)
    hits, crops, _ = locate_hits(model, images, mined, layers)
    found: list[Tensor] = [torch.empty(0)] * len(hits.items)
    for item, rows in hits.by_item():
        image = images[item][0][: images.channels]
        for row in rows.tolist():
            if np.isfinite(hits.rois[row]).all():
                found[row] = warp_box(image, hits.rois[row]).cpu()
                continue
            crop = crops[hits.layers[int(hits.layer[row])]]
            position = torch.from_numpy(hits.positions[row : row + 1])
            found[row] = crop.window(image[None], crop.boxes(position), torch.zeros_like(position))[0].cpu()
    order = np.lexsort((hits.ranks, hits.units)).tolist()
    rows_of = {name: [row for row in order if hits.layer[row] == place] for place, name in enumerate(hits.layers)}
    return {name: torch.stack([found[row] for row in rows]) for name, rows in rows_of.items() if rows}


def patches_of_units(
    model: Model, data: Any, layer: MinedLayer, units: Sequence[int], most: int | None = None
) -> list[NDArray[np.uint8]]:
    """Return pictures [n, h, w, 3] of each unit's patches, strongest first, at most `most` per unit."""
    chosen = _strongest(layer, np.asarray(units, np.int64), most)
    counts = (chosen.images >= 0).sum(1)
    found = cut_patches(model, data, {layer.name: chosen}).get(layer.name)
    if found is None:
        return [np.zeros((0, 1, 1, 3), np.uint8) for _ in units]
    shown = pictures_of(model, data, found)
    ends = np.cumsum(counts)
    return [shown[ends[unit] - counts[unit] : ends[unit]] for unit in units]


def strongest_patches(
    model: Model, data: Any, layers: Mapping[str, MinedLayer], most: int
) -> dict[str, list[NDArray[np.uint8]]]:
    """Return small pictures of the strongest patch of each layer's most active units."""
    units = {name: layer.most_active[:most] for name, layer in layers.items()}
    found = cut_patches(model, data, {name: _strongest(layer, units[name], 1) for name, layer in layers.items()})
    shown: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in layers}
    for name, patches in found.items():
        small = pictures_of(model, data, shrink(patches, SMALL))
        # patches are sorted by unit
        shown[name] = [small[place] for place in np.argsort(np.argsort(units[name])).tolist()]
    return shown


def project_unit(model: Model, data: Any, layer: MinedLayer, unit: int, rule: RuleName) -> Tensor:
    """Return the projections [n, C, h, w] of a unit's hits, strongest first."""
    found: dict[int, Tensor] = {}
    for batch in project_hits(model, data, {layer.name: layer.only(np.array([unit]))}, rule=rule):
        for rank, projection in zip(batch.ranks.tolist(), batch.projections, strict=True):
            found[rank] = projection.cpu()
    return torch.stack([found[rank] for rank in sorted(found)])


def pictures_of(model: Model, data: Any, patches: Tensor) -> NDArray[np.uint8]:
    """Return windows [n, C, h, w] of the data's inputs as pictures [n, h, w, 3]."""
    return inputs_to_bytes(patches, open_images(data, model).pixel_scale)


def _strongest(layer: MinedLayer, units: NDArray[np.int64], most: int | None) -> MinedLayer:
    """Return the layer with only the strongest hits of some units."""
    chosen = layer.only(units)
    return (
        chosen
        if most is None
        else replace(chosen, images=np.where(np.arange(layer.images.shape[1]) < most, chosen.images, -1))
    )
