"""What each page shows, read from a study: the views that the templates render."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from interpret.gallery import numbers
from interpret.gallery.drawings import (
    BoxDrawing,
    FieldDrawing,
    Histogram,
    draw_box,
    draw_field,
    draw_histogram,
)
from interpret.study import Study, layer_path

LIVELIEST = 8
"""How many units of each layer the network's page shows at most, on a wide screen."""
TOP_CLASSES = 5
UNSMOOTHED = 16, 48
"""Widest tile, in pixels, that is magnified without smoothing in a sheet, and on a unit's own page."""


@dataclass(frozen=True)
class Picture:
    """A picture file: where the gallery keeps it, relative to its root, and its size in pixels."""

    path: Path
    width: int
    height: int

    @property
    def href(self) -> str:
        return quote(self.path.as_posix())


@dataclass(frozen=True)
class Source:
    """A source picture: what it is called, and the small copy that the study kept of it."""

    name: str
    picture: Picture | None


@dataclass(frozen=True)
class Hit:
    """One of the strongest examples of a unit."""

    rank: int
    value: float
    position: tuple[int, int] | None
    """Row and column in the layer's output; None for a layer without positions."""
    image: int
    label: str | None
    source: Source
    box: BoxDrawing | None
    view: str
    """The part of the unit's sprites that is the hit's tile, as the viewBox of an SVG."""


@dataclass(frozen=True)
class UnitLine:
    """A unit as a sheet or a strip shows it."""

    index: int
    value: float
    rank: int
    """Its place among the layer's units by largest value, from 1."""
    answer: str
    """The class that it answers for; empty in all but the last layer."""
    dead: bool
    hits: int
    patches: Picture | None
    projections: Picture | None


@dataclass(frozen=True)
class Column:
    """One kind of picture of a unit: its patches, or its projections by one rule."""

    key: str
    """"patches" or "projections"."""
    title: str
    note: str
    """How large the patches really are, or the rule of the projections."""
    one: str
    """What one tile of it is."""
    sprite: Picture


@dataclass(frozen=True)
class ClassMean:
    """A class, the mean over its images of the unit's largest activation, and that as a share of the largest."""

    name: str
    mean: float
    share: float


@dataclass(frozen=True)
class UnitPage:
    """All that the page of one unit shows."""

    index: int
    answer: str
    dead: bool
    density: float | None
    value: float
    rank: int
    hits: list[Hit]
    columns: list[Column]
    histogram: Histogram | None
    code: str
    classes: list[ClassMean]


class LayerView:
    """One layer of the network; `mined` says whether it has units to show."""

    def __init__(self, network: NetworkView, record: dict[str, Any], mined: bool) -> None:
        self._network, self._study = network, network.study
        self.mined = mined
        self.name: str = record["name"]
        self.kind: str = record["kind"]
        self.input_shape: Sequence[int] = record["input_shape"]
        self.output_shape: Sequence[int] = record["output_shape"]
        self.params: int = record["params"]
        self.macs: int = record["macs"]
        self.field: dict[str, Any] | None = record["receptive_field"]

    @cached_property
    def folder(self) -> str:
        """The folder of its pages, relative to the gallery's root, as it is on disk."""
        return f"layers/{layer_path(self.name)}"

    @property
    def base(self) -> str:
        """The address of its folder, relative to the gallery's root."""
        return quote(self.folder) + "/"

    @property
    def href(self) -> str:
        return self.base + "index.html"

    @cached_property
    def drawing(self) -> FieldDrawing:
        return draw_field(self.field, self._network.input_shape)

    @cached_property
    def data(self) -> Any:
        """The mined arrays."""
        return self._study.mined(self.name)

    def forget(self) -> None:
        """Drop the arrays, so that a large study never lies in memory as a whole."""
        self.__dict__.pop("data", None)

    @cached_property
    def rules(self) -> list[str]:
        """The backward rules that it was projected by, the deconvnet first."""
        return sorted(self._study.rules(self.name), key=lambda rule: (rule != "deconvnet", rule))

    # its pictures

    @cached_property
    def k(self) -> int:
        """How many hits each unit has at most."""
        return int(self.data.values.shape[1])

    @cached_property
    def columns(self) -> int:
        """Tiles in a row of a sprite."""
        return math.isqrt(self.k - 1) + 1

    @cached_property
    def tile(self) -> tuple[int, int]:
        """Width and height of a tile, in pixels: those of the file, whichever sprite there is."""
        for unit in range(self.unit_count):
            sprite = self._study.patch_sprite(self.name, unit)
            if sprite.is_file():
                width, height = _size(sprite)
                return width // self.columns, height // -(-self.k // self.columns)
        return 1, 1

    def _sprite(self, path: Path) -> Picture | None:
        if not path.is_file():
            return None
        width, height = self.tile
        return Picture(path.relative_to(self._study.path), self.columns * width, -(-self.k // self.columns) * height)

    @cached_property
    def seen(self) -> tuple[int, int]:
        """Height and width in pixels of what a unit sees of the input."""
        height, width = (int(side) for side in self._network.input_shape[-2:])
        if self.field is None:
            return height, width
        return min(self.field["size"][0], height), min(self.field["size"][1], width)

    @property
    def real_pixels(self) -> bool:
        """Whether a pixel of a tile is a pixel of the input."""
        return self.seen == self.tile[::-1]

    @property
    def sheet_pixels(self) -> bool:
        return self.real_pixels and max(self.tile) <= UNSMOOTHED[0]

    @property
    def unit_pixels(self) -> bool:
        return self.real_pixels and max(self.tile) <= UNSMOOTHED[1]

    @cached_property
    def picture_size(self) -> str:
        """How large a patch really is and how it is kept, in words."""
        seen = numbers.product(self.seen[::-1]) + f"{numbers.THIN}px"
        return f"{seen}, magnified" if self.real_pixels else f"{seen}, shrunk to {max(self.tile)}{numbers.THIN}px"

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Left and top of each tile in a sprite, in pixels."""
        width, height = self.tile
        return [(j % self.columns * width, j // self.columns * height) for j in range(self.k)]

    @cached_property
    def _views(self) -> list[str]:
        width, height = self.tile
        # a smoothed edge would mix with the tile beside it: stop at the middle of the outermost pixels
        inset = 0.02 if self.unit_pixels else 0.5
        size = f"{width - 2 * inset:g} {height - 2 * inset:g}"
        return [f"{left + inset:g} {top + inset:g} {size}" for left, top in self.places]

    @cached_property
    def gaps(self) -> str:
        """The lines between the tiles of a sprite, as an SVG path."""
        width, height = self.tile
        rows = -(-self.k // self.columns)
        upright = (f"M{j * width} 0V{rows * height}" for j in range(1, self.columns))
        level = (f"M0 {j * height}H{self.columns * width}" for j in range(1, rows))
        return "".join([*upright, *level])

    @property
    def positioned(self) -> bool:
        """Whether its output has rows and columns."""
        return len(self.output_shape) == 3

    @cached_property
    def filters(self) -> Picture | None:
        """The picture of its kernels, where the study has one."""
        return self._network.picture(self._study.filter_sheet(self.name))

    # its units

    @cached_property
    def unit_count(self) -> int:
        return len(self.data.values)

    @cached_property
    def answers(self) -> list[str]:
        """What each unit answers for, in the layer whose outputs are the network's classes; else empty."""
        classes = self._network.model["classes"] or []
        last = self._network.mined_layers[-1] is self
        return [str(name) for name in classes] if last and len(classes) == self.unit_count else []

    @cached_property
    def dead_count(self) -> int:
        return int(self.data.dead.sum())

    @property
    def dead_share(self) -> float:
        return self.dead_count / max(self.unit_count, 1)

    @cached_property
    def units(self) -> list[UnitLine]:
        strongest = self.data.values[:, 0]
        order = np.lexsort((np.arange(len(strongest)), -strongest, self.data.dead))
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        filled = (self.data.images >= 0).sum(axis=1)
        rule = self.rules[0] if self.rules else None
        return [
            UnitLine(
                index=unit,
                value=value,
                rank=rank,
                answer=self.answers[unit] if self.answers else "",
                dead=dead,
                hits=hits,
                patches=self._sprite(self._study.patch_sprite(self.name, unit)),
                projections=self._sprite(self._study.projection_sprite(rule, self.name, unit)) if rule else None,
            )
            for unit, (value, rank, dead, hits) in enumerate(
                zip(strongest.tolist(), ranks.tolist(), self.data.dead.tolist(), filled.tolist(), strict=True)
            )
        ]

    @cached_property
    def liveliest(self) -> list[UnitLine]:
        """Its units with the largest values, strongest first, the dead left out."""
        lively = [unit for unit in self.units if not unit.dead and unit.patches]
        return sorted(lively, key=lambda unit: unit.rank)[:LIVELIEST]

    def unit_page(self, unit: int) -> UnitPage:
        line, data = self.units[unit], self.data
        columns = [Column("patches", "Patches", self.picture_size, "Patch", line.patches)] if line.patches else []
        for rule in self.rules:
            sprite = self._sprite(self._study.projection_sprite(rule, self.name, unit))
            if sprite:
                columns.append(Column("projections", "Projections", rule, f"Projection, {rule},", sprite))
        hits = self._hits(unit)
        density = float(data.density[unit])
        histogram = draw_histogram(
            data.histogram[unit],
            float(data.histogram_start[unit]),
            float(data.histogram_width[unit]),
            [hit.value for hit in hits],
        )
        return UnitPage(
            index=unit,
            answer=line.answer,
            dead=line.dead,
            density=density if math.isfinite(density) else None,
            value=line.value,
            rank=line.rank,
            hits=hits,
            columns=columns,
            histogram=histogram,
            code=self._code(unit, hits[0]) if hits else "",
            classes=self._top_classes(unit),
        )

    def _code(self, unit: int, hit: Hit) -> str:
        """The lines of Python that make the strongest hit's projection."""
        model, data = self._network.model, self._network.data
        load = f"interpret.load({model['spec']!r})" if model["spec"] else f"...  # the network {model['name']!r}"
        position = f", positions={list(hit.position)}" if hit.position else ""
        rule = f", rule={self.rules[0]!r}" if self.rules and self.rules[0] != "deconvnet" else ""
        return "\n".join(
            [
                f"model = {load}",
                f"image, label = interpret.open_images({data['name']!r}, model)[{hit.image}]",
                f"interpret.project(model, image[None], {self.name!r}, {unit}{position}{rule}).pixels",
            ]
        )

    def _hits(self, unit: int) -> list[Hit]:
        data, network = self.data, self._network
        hits = []
        for j in np.flatnonzero(data.images[unit] >= 0).tolist():
            source = network.sources[int(data.sources[unit, j])]
            picture = source.picture
            row, column = data.positions[unit, j].tolist()
            hits.append(
                Hit(
                    rank=j + 1,
                    value=float(data.values[unit, j]),
                    position=(row, column) if self.positioned else None,
                    image=int(data.images[unit, j]),
                    label=network.class_name(int(data.labels[unit, j])),
                    source=source,
                    box=draw_box(data.boxes[unit, j].tolist(), picture.width, picture.height) if picture else None,
                    view=self._views[j],
                )
            )
        return hits

    def _top_classes(self, unit: int) -> list[ClassMean]:
        if self.data.class_means is None:
            return []
        means = self.data.class_means[:, unit]
        finite = np.flatnonzero(np.isfinite(means))
        best = finite[np.argsort(-means[finite], kind="stable")][:TOP_CLASSES]
        largest = float(np.abs(means[best]).max(initial=0)) or 1.0
        return [
            ClassMean(self._network.class_name(j) or "", float(means[j]), max(float(means[j]) / largest, 0.0))
            for j in best.tolist()
        ]


class NetworkView:
    """A whole study: the model, its data and its layers in order of execution."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.model: dict[str, Any] = study.info["model"]
        self.data: dict[str, Any] = study.info["data"]
        self.versions: dict[str, str] = study.info["versions"]
        self.settings: dict[str, Any] = study.info["settings"]
        self.input_shape: Sequence[int] = self.model["input_shape"]
        mined = set(study.mined_layers)
        # a block's layers are shown one by one, the block itself only where it was mined
        self.layers = [
            LayerView(self, record, record["name"] in mined)
            for record in study.layers
            if record["leaf"] or record["name"] in mined
        ]

    @cached_property
    def mined_layers(self) -> list[LayerView]:
        return [layer for layer in self.layers if layer.mined]

    @cached_property
    def unit_count(self) -> int:
        total = 0
        for layer in self.mined_layers:
            total += layer.unit_count
            layer.forget()
        return total

    @property
    def filtered_layers(self) -> list[LayerView]:
        return [layer for layer in self.layers if layer.filters]

    @cached_property
    def passages(self) -> list[list[LayerView]]:
        """The layers in order, those without units gathered into the passages between the others."""
        passages: list[list[LayerView]] = []
        for layer in self.layers:
            if passages and not layer.mined and not passages[-1][-1].mined:
                passages[-1].append(layer)
            else:
                passages.append([layer])
        return passages

    @property
    def item_count(self) -> int:
        """Inputs that the network was shown."""
        return int(self.data["items"])

    @property
    def source_count(self) -> int:
        """Pictures that they were cut from."""
        return int(self.data["sources"])

    @cached_property
    def macs(self) -> int:
        """Multiply–adds of one forward pass: those of the outermost layers, which count what is inside them."""
        names = {record["name"] for record in self.study.layers}

        def inside_another(name: str) -> bool:
            parts = name.split(".")
            return any(".".join(parts[:j]) in names for j in range(1, len(parts)))

        return sum(record["macs"] for record in self.study.layers if not inside_another(record["name"]))

    def class_name(self, label: int) -> str | None:
        if label < 0:
            return None
        classes = self.data["classes"]
        return str(classes[label]) if classes and label < len(classes) else f"class {label}"

    @cached_property
    def sources(self) -> dict[int, Source]:
        return {
            key: Source(
                name=record["name"],
                picture=self.picture(self.study.source_picture(key)),
            )
            for key, record in self.study.sources().items()
        }

    def picture(self, path: Path) -> Picture | None:
        """Return one of the study's pictures, None where it has none."""
        return Picture(path.relative_to(self.study.path), *_size(path)) if path.is_file() else None


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size
