"""The page of one unit: its hits, patches and projections, and its numbers; `unit_data` has what a script adds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from interpret.gallery.colours import Colour
from interpret.gallery.hits import Hit, hits_of
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.optimised import Optimised
from interpret.gallery.unit_results import Curve, Occluded, Strip
from interpret.study.views.pictures import Picture
from interpret.study.views.sprites import PATCHES

TOP_CLASSES = 5
"""How many of the classes with the largest means are shown."""


@dataclass(frozen=True)
class Column:
    """One kind of picture of a unit: its patches, or its projections by one rule."""

    key: str
    """"patches" or "projections"."""
    title: str
    note: str
    """How large the patches really are, or the rule of the projections."""
    sprite: Picture
    rule: int = 0
    """Which of the network's rules made it, counted from 1; 0 for patches."""


@dataclass(frozen=True)
class ClassMean:
    """A class, the mean over its images of the unit's largest activation, and that as a share of the largest mean."""

    label: int
    name: str
    mean: float
    share: float


@dataclass(frozen=True)
class UnitPage:
    """All that the page of one unit shows."""

    index: int
    output_class: str
    dead: bool
    density: float | None
    value: float
    rank: int
    hits: list[Hit]
    columns: list[Column]
    classes: list[ClassMean]
    selectivity: float | None
    colour: Colour
    filter: tuple[Picture, str] | None
    """The layer's filters, and the part of them that is the unit's own, as a viewBox."""
    curves: list[Curve]
    optimised: list[Optimised]
    strip: Strip | None
    occlusion: Occluded | None


def read_unit(network: NetworkPage, layer: LayerPage, unit: int) -> UnitPage:
    """Return the page of a unit."""
    line, data, results = layer.units[unit], layer.data, network.unit_results
    hits = hits_of(network, layer, unit)
    density = float(data.density[unit])
    return UnitPage(
        index=unit,
        output_class=line.output_class,
        dead=line.dead,
        density=density if math.isfinite(density) else None,
        value=line.value,
        rank=line.rank,
        hits=hits,
        columns=_columns(network, layer, unit),
        classes=_top_classes(network, layer, unit),
        selectivity=float(layer.selectivity.values[unit]) if layer.selectivity else None,
        colour=layer.colours[unit],
        filter=layer.filter_of(unit),
        curves=results.curves(layer.name, unit),
        optimised=results.optimised.of(layer.name, unit, network.context or not layer.whole),
        strip=results.strip(layer.name, unit) if network.context or not layer.whole else None,
        occlusion=results.occluded(layer.name, unit) if network.context else None,
    )


def _columns(network: NetworkPage, layer: LayerPage, unit: int) -> list[Column]:
    patches = layer.sprites.picture(PATCHES, unit)
    columns = [Column("patches", "Patches", layer.picture_size, patches)] if patches else []
    for rule in layer.rules:
        sprite = layer.sprites.picture(rule, unit)
        if sprite:
            columns.append(Column("projections", "Projections", rule, sprite, network.rules.index(rule) + 1))
    return columns


def _top_classes(network: NetworkPage, layer: LayerPage, unit: int) -> list[ClassMean]:
    if layer.data.class_means is None:
        return []
    means = layer.data.class_means[:, unit]
    finite = np.flatnonzero(np.isfinite(means))
    best = finite[np.argsort(-means[finite], kind="stable")][:TOP_CLASSES]
    largest = float(np.abs(means[best]).max(initial=0)) or 1.0
    return [
        ClassMean(j, network.label_name(j) or "", float(means[j]), max(float(means[j]) / largest, 0.0))
        for j in best.tolist()
    ]
