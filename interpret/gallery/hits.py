"""A unit's hits: its strongest examples, each with its source picture and the place in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interpret.gallery.drawings import short
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.sources import Source
from interpret.support.wording import PLACES


@dataclass(frozen=True)
class Hit:
    """One of the strongest examples of a unit."""

    rank: int
    value: float
    position: tuple[int, ...] | None
    """Row and column in the layer's output; None for a layer without positions."""
    image: int
    label: int
    """What it is labelled; −1 where it is not."""
    label_name: str | None
    source: Source
    box: list[float] | None
    """The receptive field: left, top, width and height in the source's pixels; None where it is the whole picture."""

    @property
    def place(self) -> str:
        """The position in words, such as "row 3, column 5"."""
        at = self.position or ()
        return ", ".join(f"{name} {number}" for name, number in zip(PLACES[len(at)], at, strict=True)) if at else ""


def hits_of(network: NetworkPage, layer: LayerPage, unit: int) -> list[Hit]:
    """Return a unit's hits, the strongest first."""
    data = layer.data
    hits = []
    for j in np.flatnonzero(data.images[unit] >= 0).tolist():
        source = network.source(int(data.sources[unit, j]))
        label = int(data.labels[unit, j])
        hits.append(
            Hit(
                rank=j + 1,
                value=float(data.values[unit, j]),
                position=tuple(data.positions[unit, j].tolist()) if layer.positioned else None,
                image=int(data.images[unit, j]),
                label=label,
                label_name=network.label_name(label),
                source=source,
                box=_box_on(data.boxes[unit, j].tolist(), *source.size),
            )
        )
    return hits


def _box_on(box: list[float], width: int, height: int) -> list[float] | None:
    """Return a box (top, left, bottom, right), in fractions, on a picture; None where it is all of it."""
    top, left, bottom, right = box
    wide, high = (right - left) * width, (bottom - top) * height
    if wide >= 0.99 * width and high >= 0.99 * height:
        return None
    return [short(left * width), short(top * height), short(wide), short(high)]
