"""Other results of a study for single layers and units: invariance, evolution during training, occlusion, synthesis."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.figures.pictures import signals_as_pictures
from interpret.gallery.drawings import CurveDrawing, draw_curves
from interpret.gallery.optimised import OptimisedImages
from interpret.gallery.tiles import side_by_side
from interpret.study.reader import StudyReader
from interpret.support.files import layer_path

OCCLUDED_TILE = 160


@dataclass(frozen=True)
class Curve:
    """How far the activations of a layer, and of one unit, move as images are transformed."""

    title: str
    axis: str
    drawing: CurveDrawing


@dataclass(frozen=True)
class Strip:
    """A unit at each stored epoch of the training: its top-activating patch and the projection."""

    path: str
    picture: bytes
    width: int
    height: int
    epochs: list[int]


@dataclass(frozen=True)
class Occluded:
    """Images beside maps of a unit's activation with each place covered by a square."""

    path: str
    picture: bytes
    width: int
    height: int
    cover: str
    """What covers a place, in words."""


class UnitResults:
    """A study's results of invariance probes, evolution during training and occlusion, by layer and unit."""

    def __init__(self, study: StudyReader) -> None:
        self._probes = list(study.readable_results("invariance").values())
        self._evolutions = study.readable_results("evolution")
        self._occlusions = study.readable_results("occlusion")
        self._effective_fields = list(study.readable_results("effective-fields").values())
        self.optimised = OptimisedImages(study)
        areas: dict[str, list[NDArray[Any]]] = defaultdict(list)
        for probe in self._probes:
            for layer, of_units in probe.unit_areas.items():
                areas[layer].append(of_units)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # a unit that is zero on all images has no relative distance
            self.movement = {layer: np.nanmean(np.stack(found), 0) for layer, found in areas.items()}
            """For each layer [C]: the mean distance that each unit moves, over all probes; 0 is invariant."""
            self._of_layers = [
                {layer: np.nanmean(curves, 0) for layer, curves in probe.relative.items()} for probe in self._probes
            ]

    def movement_of(self, layer: str, unit_count: int) -> list[float | None] | None:
        """Return how far each unit of a layer moves; None where no probe measured so many units of it."""
        found = self.movement.get(layer)
        if found is None or len(found) != unit_count:
            return None
        return [value if math.isfinite(value) else None for value in found.tolist()]

    def effective_field(self, layer: str) -> tuple[tuple[int, int], float] | None:
        """Return height and width of a layer's effective receptive field, and the share that it holds."""
        for one in self._effective_fields:
            size = one.size_of(layer)
            if size is not None:
                return size, one.share
        return None

    def curves(self, layer: str, unit: int | None = None) -> list[Curve]:
        """Return the curves of a unit and its layer, one for each probe; without a unit, those of the layer."""
        found = []
        for probe, of_layers in zip(self._probes, self._of_layers, strict=True):
            if layer not in of_layers:
                continue
            units = probe.unit_distances.get(layer)
            own = None
            if unit is not None:
                if units is None or unit >= len(units) or not np.isfinite(units[unit]).any():
                    continue
                own = units[unit]
            found.append(Curve(probe.title, probe.axis, draw_curves(probe.values, of_layers[layer], own)))
        return found

    def strip(self, layer: str, unit: int) -> Strip | None:
        """Return a unit's strip, or None where no evolution contains the unit."""
        for name, evolution in self._evolutions.items():
            places = np.flatnonzero(evolution.units.get(layer, np.zeros(0)) == unit)
            if not len(places):
                continue
            patches = evolution.patches[layer][places[0]]
            projections = signals_as_pictures(evolution.projections[layer][places[0]], evolution.channels)
            picture, size = side_by_side(np.stack([patches, projections]))
            path = f"evolution/{layer_path(layer)}/{layer_path(name) + '-' if name else ''}{unit}.png"
            return Strip(path, picture, *size, evolution.epochs.tolist())
        return None

    def occluded(self, layer: str, unit: int) -> Occluded | None:
        """Return the occlusion maps of a unit, or None where no occlusion contains the unit."""
        for name, occlusion in self._occlusions.items():
            if occlusion.layer != layer:
                continue
            rows = np.flatnonzero(occlusion.channels == unit)
            if not len(rows):
                continue
            tiles = np.stack(
                [np.stack([occlusion.pictures[row], _map_of_sums(occlusion, row)]) for row in rows.tolist()]
            )
            picture, size = side_by_side(tiles.reshape(1, -1, *tiles.shape[2:]), OCCLUDED_TILE)
            path = f"occlusion/{layer_path(layer)}/{layer_path(name) + '-' if name else ''}{unit}.png"
            return Occluded(path, picture, *size, f"a {occlusion.hidden}")
        return None


def _map_of_sums(occlusion: Any, row: int) -> NDArray[np.uint8]:
    """Return the summed activation for each position of the square, as a picture of the image's size.

    Each position is a cell around the centre of the square. The brightest colour is the sum without the square, or
    more; black is zero.
    """
    import matplotlib

    sums = np.asarray(occlusion.activations[row], float)
    shares = sums / max(float(occlusion.clean_activations[row]), float(sums.max()), 1e-12)
    colours = (matplotlib.colormaps["inferno"](np.clip(shares, 0, 1))[..., :3] * 255).round().astype(np.uint8)
    down, right = occlusion.settings["stride"]
    cells = colours.repeat(down, 0).repeat(right, 1)
    top, left = (max(0, (size - stride) // 2) for size, stride in zip(occlusion.size, (down, right), strict=True))
    height, width = occlusion.pictures.shape[1:3]
    high, wide = occlusion.size_of_images  # of a drawn signal another size than its picture's
    # the border, which no centre reaches, shows the nearest position
    rows = np.clip(np.arange(height) * high // height - top, 0, len(cells) - 1)
    columns = np.clip(np.arange(width) * wide // width - left, 0, cells.shape[1] - 1)
    return cells[rows][:, columns]
