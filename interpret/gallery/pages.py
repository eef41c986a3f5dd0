"""What each page shows, read from a study: the views that the templates render."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from PIL import Image

from interpret.gallery.analyses import Analyses, Curve, Occluded, Strip
from interpret.gallery.colours import COLOURS, colour_shares, main_colour
from interpret.gallery.drawings import (
    BoxDrawing,
    FieldDrawing,
    Histogram,
    KernelDrawing,
    draw_box,
    draw_field,
    draw_histogram,
    draw_kernel,
)
from interpret.gallery.rails import HEAD, RailDrawing, contract, draw_rail, lay_rails
from interpret.gallery.relations import Correlates, Selectivity, select
from interpret.network.readings import in_words
from interpret.study.reader import MOST_SOURCES_PREDICTED, UNPREDICTED, StudyReader, local_field, source_picture_size
from interpret.support import numbers
from interpret.support.files import layer_path
from interpret.support.html import breakable

LIVELIEST = 8
"""How many units of each layer the network's page shows at most, on a wide screen."""
TOP_CLASSES = 5
LEAST_LIKELY = 0.005
"""The smallest probability of a prediction that is shown."""
GROUPS = ("strongest quarter", "second quarter", "third quarter", "last quarter", "weakest")
"""What the groups of a study's spread are called."""
UNSMOOTHED = 16, 48
"""Widest tile, in pixels, that is magnified without smoothing in a sheet, and on a unit's own page."""


@dataclass(frozen=True)
class Picture:
    """A picture file: where the gallery keeps it, relative to its root, and its size in pixels."""

    path: str
    width: int
    height: int

    @cached_property
    def href(self) -> str:
        return quote(self.path)

    @cached_property
    def drawn(self) -> Markup:
        """The picture as an element of an SVG on a page two folders down."""
        return Markup(f'<image href="../../{self.href}" width="{self.width}" height="{self.height}"/>')


@dataclass(frozen=True)
class Likely:
    """One of the classes that the network finds most probable for an image."""

    answer: int
    """Which of the network's classes."""
    name: str
    probability: float


@dataclass(frozen=True)
class Source:
    """A source picture: what it is called, and the small copy that the study kept of it."""

    number: int
    name: str
    picture: Picture | None
    label: int = -1
    size: tuple[int, int] = (0, 0)
    """Width and height of the picture, also where it is left out."""
    likeliest: tuple[Likely, ...] = ()
    """What the network makes of its central part, likeliest first; empty where that is not known."""
    addresses: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)
    """Those of the network, which it shares."""

    @property
    def href(self) -> str:
        """Where its page is, or its entry in the list, relative to the gallery's root; empty where it has neither."""
        return self.addresses.get(self.number, "")


@dataclass(frozen=True)
class Hit:
    """One of the strongest examples of a unit."""

    rank: int
    value: float
    position: tuple[int, int] | None
    """Row and column in the layer's output; None for a layer without positions."""
    image: int
    label: int
    """What it is labelled; −1 where it is not."""
    label_name: str | None
    source: Source
    box: BoxDrawing
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
    density: float
    selectivity: float
    preferred: int
    """The class that it prefers; −1 where none is known."""
    colour: Colour
    patches: Picture | None
    projections: Picture | None

    @property
    def pictured(self) -> bool:
        return self.patches is not None or self.projections is not None


@dataclass(frozen=True)
class UnitLink:
    """Another unit, and the number that connects it with this one."""

    layer: LayerView
    index: int
    value: float
    picture: Picture | None
    kernel: KernelDrawing | None = None


@dataclass(frozen=True)
class Colour:
    """The colour that most of a unit's pictures have."""

    place: int
    """Which of `COLOURS`."""
    share: float
    """How much of what carried the excitation has it, 0 to 1; 0 where that is not known."""

    @property
    def name(self) -> str:
        return COLOURS[self.place]


@dataclass(frozen=True)
class Relation:
    """A way in which units belong together, and the units that do."""

    title: str
    note: str
    links: list[UnitLink]


@dataclass(frozen=True)
class Example:
    """An image of the sample, as a unit's spread shows it."""

    item: int
    source: Source
    value: float
    picture: Picture
    view: str
    """The part of the picture that the unit sees, as the viewBox of an SVG."""


@dataclass(frozen=True)
class Group:
    """Some of the examples from one part of a unit's range."""

    title: str
    examples: list[Example]


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
    rule: int = 0
    """Which of the network's rules made it, counted from 1; 0 for patches."""


@dataclass(frozen=True)
class ClassMean:
    """A class, the mean over its images of the unit's largest activation, and that as a share of the largest."""

    label: int
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
    selectivity: float | None
    colour: Colour
    groups: list[Group]
    relations: list[Relation]
    filter: tuple[Picture, str] | None
    """The layer's filters, and the part of them that is the unit's own, as a viewBox."""
    curves: list[Curve]
    strip: Strip | None
    occlusion: Occluded | None
    record: dict[str, Any]
    """What can be downloaded of it, as JSON can hold it."""


class LayerView:
    """One layer of the network; `mined` says whether it has units to show."""

    def __init__(self, network: NetworkView, record: dict[str, Any], mined: bool) -> None:
        self._network, self._study = network, network.study
        self.mined = mined
        self.name: str = record["name"]
        self.kind: str = record["kind"]
        self.output_shape: Sequence[int] = record["output_shape"]
        self.params: int = record["params"]
        self.macs: int = record["macs"]
        self.receptive_field: dict[str, Any] | None = record["receptive_field"]
        self.field = local_field(record)
        """The window of its patches and projections; None for the whole input."""
        self.gated = self.receptive_field != self.field
        """Whether gates see further than that window."""

    @cached_property
    def folder(self) -> str:
        """The folder of its pages, relative to the gallery's root, as it is on disk."""
        return f"layers/{layer_path(self.name)}"

    @cached_property
    def base(self) -> str:
        """The address of its folder, relative to the gallery's root."""
        return quote(self.folder) + "/"

    @cached_property
    def breakable(self) -> Markup:
        """Its name, escaped, that may break into lines after each dot."""
        return breakable(self.name)

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

    @cached_property
    def _connections(self) -> dict[str, Any] | None:
        return self._study.connections(self.name)

    @cached_property
    def _spread(self) -> dict[str, Any] | None:
        return self._study.activation_range_examples(self.name) if self._network.context else None

    def forget(self) -> None:
        """Drop the arrays, so that a large study never lies in memory as a whole."""
        for name in ("data", "_connections", "_spread", "units"):
            self.__dict__.pop(name, None)

    @property
    def whole(self) -> bool:
        """Whether a unit sees the whole input."""
        height, width = (int(side) for side in self._network.input_shape[-2:])
        return self.seen == (height, width)

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
        for folder, names in self._sprites.items():
            for name in sorted(names)[:1]:
                width, height = _size(self._study.path / folder / name)
                return width // self.columns, height // -(-self.k // self.columns)
        return 1, 1

    @cached_property
    def _sprites(self) -> dict[str, set[str]]:
        """The names of the sprites there are, by folder; patches that are whole images stay out without context."""
        folders = [self._study.projection_sprite(rule, self.name, 0).parent for rule in self.rules]
        if self._network.context or not self.whole:
            folders.insert(0, self._study.patch_sprite(self.name, 0).parent)
        return {
            folder.relative_to(self._study.path).as_posix(): {file.name for file in folder.iterdir()}
            for folder in folders
            if folder.is_dir()
        }

    @property
    def pictured(self) -> bool:
        """Whether pictures of its units have been made."""
        return any(self._sprites.values())

    @cached_property
    def _folders(self) -> dict[str, str]:
        """Where the study keeps the layer's sprites: its patches, and its projections by each rule."""
        kinds = {"patches": self._study.patch_sprite(self.name, 0)}
        kinds |= {rule: self._study.projection_sprite(rule, self.name, 0) for rule in self.rules}
        return {kind: path.parent.relative_to(self._study.path).as_posix() for kind, path in kinds.items()}

    def _sprite(self, kind: str, unit: int) -> Picture | None:
        """Return a unit's patches, or its projections by a rule."""
        folder, name = self._folders[kind], f"{unit:04d}.webp"
        if name not in self._sprites.get(folder, ()):
            return None
        width, height = self.tile
        return Picture(f"{folder}/{name}", self.columns * width, -(-self.k // self.columns) * height)

    def picture_of(self, unit: int) -> Picture | None:
        """Return a unit's patches, or where there are none its projections."""
        if unit not in self._pictures:
            found = self._sprite("patches", unit)
            if found is None and self.rules:
                found = self._sprite(self.rules[0], unit)
            self._pictures[unit] = found
        return self._pictures[unit]

    @cached_property
    def _pictures(self) -> dict[int, Picture | None]:
        return {}

    @cached_property
    def colours(self) -> list[Colour]:
        """The colour of each unit; of a network that sees no colours, and without pictures, none has one."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._colour, range(self.unit_count)))

    def _colour(self, unit: int) -> Colour:
        hits = int((self.data.images[unit] >= 0).sum())
        patches = self._tiles("patches", unit)
        if patches is None or not hits or int(self._network.input_shape[0]) != 3:
            return Colour(0, 0)
        projections = self._tiles(self.rules[0], unit) if self.rules else None
        shares = colour_shares(patches[:hits], None if projections is None else projections[:hits])
        place = main_colour(shares)
        return Colour(place, float(shares[place]))

    def _tiles(self, kind: str, unit: int) -> Any:
        """Return the tiles of a sprite [columns · rows, h, w, 3]; None where there is none."""
        sprite = self._sprite(kind, unit)
        if sprite is None:
            return None
        with Image.open(self._study.path / sprite.path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        (width, height), columns = self.tile, self.columns
        tiles = pixels.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
        return tiles.reshape(-1, height, width, 3)

    @cache  # noqa: B019 - lives as long as the gallery is written
    def hit_links(self, count: int) -> Markup:
        """Return the links over a sprite's tiles to each of so many hits."""
        width, height = self.tile
        return Markup(
            "".join(
                f'<a href="#hit-{j + 1}" aria-label="Hit {j + 1}">'
                f'<rect x="{left}" y="{top}" width="{width}" height="{height}"/></a>'
                for j, (left, top) in enumerate(self.places[:count])
            )
        )

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

    def _own_filter(self, unit: int) -> tuple[Picture, str] | None:
        """The part of the filters' picture that is one unit's, where it has a tile for each unit."""
        sheet = self.filters
        if sheet is None or self.field is None:
            return None
        # in the first layer a unit sees what its kernel covers: the tile's size follows, and from it the columns
        high, wide = self.field["size"]
        zoom = max(1, round(44 / max(high, wide)))
        down, right = high * zoom + 4, wide * zoom + 4
        columns, rows = (sheet.width + 4) // right, (sheet.height + 4) // down
        exact = columns * right == sheet.width + 4 and rows * down == sheet.height + 4
        if not exact or not columns * (rows - 1) < self.unit_count <= columns * rows:
            return None
        return sheet, f"{unit % columns * right} {unit // columns * down} {right - 4} {down - 4}"

    # its units

    @cached_property
    def unit_count(self) -> int:
        return len(self.data.values)

    def hits_of(self, unit: int) -> int:
        """Return how many hits a unit has."""
        return self._hit_counts[unit]

    @cached_property
    def _hit_counts(self) -> list[int]:
        return [int(count) for count in (self.data.images >= 0).sum(1)]

    @cached_property
    def answers(self) -> list[str]:
        """What each unit answers for, in the layer whose outputs are the network's classes; else empty."""
        classes = self._network.answers
        last = self._network.mined_layers[-1] is self
        return classes if last and len(classes) == self.unit_count else []

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
        selectivity = self.selectivity
        return [
            UnitLine(
                index=unit,
                value=value,
                rank=rank,
                answer=self.answers[unit] if self.answers else "",
                dead=dead,
                hits=hits,
                density=density,
                selectivity=float(selectivity.values[unit]) if selectivity else math.nan,
                preferred=int(selectivity.classes[unit]) if selectivity else -1,
                colour=self.colours[unit],
                patches=self._sprite("patches", unit),
                projections=self._sprite(rule, unit) if rule else None,
            )
            for unit, (value, rank, dead, hits, density) in enumerate(
                zip(
                    strongest.tolist(),
                    ranks.tolist(),
                    self.data.dead.tolist(),
                    filled.tolist(),
                    self.data.density.tolist(),
                    strict=True,
                )
            )
        ]

    @cached_property
    def selectivity(self) -> Selectivity | None:
        """How much each unit prefers which class; None where no label is known."""
        return None if self.data.class_means is None else select(self.data.class_means)

    @property
    def movement(self) -> list[float | None] | None:
        """How far each unit moves as images are transformed; None where the study holds no such result."""
        found = self._network.analyses.movement.get(self.name)
        if found is None or len(found) != self.unit_count:
            return None
        return [value if math.isfinite(value) else None for value in found.tolist()]

    @property
    def curves(self) -> list[Curve]:
        """How far the layer moves as images are transformed."""
        return self._network.analyses.curves(self.name)

    @cached_property
    def preferred(self) -> list[tuple[int, str]]:
        """The classes that its units prefer, by name."""
        found = {unit.preferred for unit in self.units} - {-1}
        return [(label, self._network.class_name(label) or "") for label in sorted(found)]

    @property
    def seen_colours(self) -> list[str]:
        """The colours that its units have."""
        found = {unit.colour.place for unit in self.units if unit.colour.share}
        return [COLOURS[place] for place in sorted(found)]

    @cached_property
    def maxima(self) -> Histogram | None:
        """The histogram of all its units' largest values on the sample."""
        values = self.data.sample_maxima.ravel()
        values = values[np.isfinite(values)]
        if not len(values) or values.min() == values.max():
            return None
        counts, edges = np.histogram(values, bins=64)
        return draw_histogram(counts, float(edges[0]), float(edges[1] - edges[0]), [])

    @cached_property
    def liveliest(self) -> list[UnitLine]:
        """Its units with the largest values, strongest first, the dead left out."""
        lively = [unit for unit in self.units if not unit.dead and (unit.pictured or not self.pictured)]
        return sorted(lively, key=lambda unit: unit.rank)[:LIVELIEST]

    def unit_page(self, unit: int) -> UnitPage:
        line, data = self.units[unit], self.data
        columns = [Column("patches", "Patches", self.picture_size, "Patch", line.patches)] if line.patches else []
        for rule in self.rules:
            sprite = self._sprite(rule, unit)
            if sprite:
                place = self._network.rules.index(rule) + 1
                columns.append(Column("projections", "Projections", rule, f"Projection, {rule},", sprite, place))
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
            code=self._code(unit, hits) if hits else "",
            classes=self._top_classes(unit),
            selectivity=None if math.isnan(line.selectivity) else line.selectivity,
            colour=line.colour,
            groups=self._groups(unit),
            relations=[relation for relation in self._relations(unit) if relation.links],
            filter=self._own_filter(unit),
            curves=self._network.analyses.curves(self.name, unit),
            strip=None if self.whole and not self._network.context else self._network.analyses.strip(self.name, unit),
            occlusion=self._network.analyses.occluded(self.name, unit) if self._network.context else None,
            record=self._record(unit, hits),
        )

    def _record(self, unit: int, hits: list[Hit]) -> dict[str, Any]:
        """What is known of a unit as numbers, for other programs."""
        data, network = self.data, self._network
        density = float(data.density[unit])
        return {
            "network": network.model["name"],
            "data": network.data["name"],
            "layer": self.name,
            "unit": unit,
            "dead": bool(data.dead[unit]),
            "density": round(density, 6) if math.isfinite(density) else None,
            "histogram": {
                "start": float(data.histogram_start[unit]),
                "width": float(data.histogram_width[unit]),
                "counts": data.histogram[unit].tolist(),
            },
            "values": [float(f"{hit.value:.6g}") for hit in hits],
            "items": [hit.image for hit in hits],
            "positions": [hit.position for hit in hits],
            "sources": [hit.source.name for hit in hits],
            "labels": [hit.label_name for hit in hits],
        }

    def _groups(self, unit: int) -> list[Group]:
        """The unit's examples from all over its range, group by group."""
        spread, network = self._spread, self._network
        if spread is None:
            return []
        pixels = 0.0 if self.unit_pixels else 0.5
        groups = []
        parts = zip(
            GROUPS,
            spread["items"][unit].tolist(),
            spread["values"][unit].tolist(),
            spread["boxes"][unit].tolist(),
            strict=True,
        )
        for title, items, values, boxes in parts:
            examples = []
            for item, value, (top, left, bottom, right) in zip(items, values, boxes, strict=True):
                sample = network.samples.get(item)
                if sample is None or sample.picture is None:
                    continue
                wide, high = sample.picture.width, sample.picture.height
                corner = f"{left * wide + pixels:.4g} {top * high + pixels:.4g}"
                across, down = max((right - left) * wide - 2 * pixels, 1), max((bottom - top) * high - 2 * pixels, 1)
                view = f"{corner} {across:.4g} {down:.4g}"
                examples.append(Example(item, sample.source, value, sample.picture, view))
            if examples:
                groups.append(Group(title, examples))
        return groups

    def reads(self, unit: int) -> list[UnitLink]:
        """Return the units that a unit reads from with the largest weights."""
        connections = self._connections
        if connections is None:
            return []
        return self._network.links(
            connections["in_layers"][unit],
            connections["in_units"][unit],
            connections["in_weights"][unit],
            connections["kernels"][unit] if connections["kernels"].size else None,
        )

    def _relations(self, unit: int) -> Iterable[Relation]:
        connections, network = self._connections, self._network
        if connections is not None:
            note = "units below with the largest weights, + excites, − inhibits"
            yield Relation("Reads from", note, self.reads(unit))
            yield Relation(
                "Feeds",
                "units above with the largest weights",
                network.links(
                    connections["out_layers"][unit], connections["out_units"][unit], connections["out_weights"][unit]
                ),
            )
        for title, correlates in (("Alike in this layer", network.within), ("Alike in others", network.across)):
            found = correlates.get(self.name)
            if found is not None:
                yield Relation(
                    title,
                    "correlation of the largest values on the sample",
                    network.alike(found.layers[unit], found.units[unit], found.values[unit]),
                )

    def _code(self, unit: int, hits: list[Hit]) -> str:
        """The lines of Python that make the unit's pictures again."""
        positions = [f"positions = {[hit.position for hit in hits]}"] if self.positioned else []
        at = ", positions" if self.positioned else ""
        kind = self.rules[0] if self.rules else "deconvnet"
        rule, _, overlap = kind.partition("-")
        how = (f", rule={rule!r}" if self.rules else "") + (f", overlap={overlap!r}" if overlap else "")
        return "\n".join(
            [
                "import interpret, torch",
                "",
                *self._network.opening,
                f"items = {[hit.image for hit in hits]}",
                *positions,
                "inputs = torch.stack([images[item][0] for item in items])",
                f"shown = interpret.project(model, inputs, {self.name!r}, {unit}{at}{how})",
                "interpret.plot(shown)  # patches: shown.pictures, projections: shown.pixels",
            ]
        )

    def _hits(self, unit: int) -> list[Hit]:
        data, network = self.data, self._network
        hits = []
        for j in np.flatnonzero(data.images[unit] >= 0).tolist():
            source = network.source(int(data.sources[unit, j]))
            row, column = data.positions[unit, j].tolist()
            hits.append(
                Hit(
                    rank=j + 1,
                    value=float(data.values[unit, j]),
                    position=(row, column) if self.positioned else None,
                    image=int(data.images[unit, j]),
                    label=int(data.labels[unit, j]),
                    label_name=network.class_name(int(data.labels[unit, j])),
                    source=source,
                    box=draw_box(data.boxes[unit, j].tolist(), *source.size),
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
            ClassMean(j, self._network.class_name(j) or "", float(means[j]), max(float(means[j]) / largest, 0.0))
            for j in best.tolist()
        ]


@dataclass(frozen=True)
class Sample:
    """An input of the sample: where it comes from, how it looks to the network, and what that makes of it."""

    item: int
    source: Source
    label: str | None
    picture: Picture | None
    likeliest: tuple[Likely, ...]
    """The network's likeliest classes; empty where it has no classes."""
    reading: str = ""
    """How the network's outputs became probabilities."""


@dataclass(frozen=True)
class Row:
    """A row of the network's page: a mined layer, a passage of others, or a place where branches meet."""

    rail: RailDrawing | None
    layer: LayerView | None = None
    passage: tuple[LayerView, ...] = ()
    join: str = ""


JOINS = {"add": "sum", "sub": "difference", "cat": "concatenation", "mul": "product", "concat": "concatenation"}


class NetworkView:
    """A whole study: the model, its data and its layers in order of execution.

    Without `context`, whole images stay out: sources, the sample's inputs, and patches that are whole inputs.
    """

    def __init__(self, study: StudyReader, context: bool = True) -> None:
        self.study = study
        self.context = context
        self.model: dict[str, Any] = study.info["model"]
        self.data: dict[str, Any] = study.info["data"]
        self.versions: dict[str, str] = study.info["versions"]
        self.settings: dict[str, Any] = study.info["settings"]
        self.input_shape: Sequence[int] = self.model["input_shape"]
        self.within: dict[str, Correlates] = {}
        self.across: dict[str, Correlates] = {}
        """For each mined layer, the units that its units correlate with: set by who has computed them."""
        self.analyses = Analyses(study)
        self.paged: set[int] = set()
        """The sources that have a page of their own: set by who has counted what there is to show of them."""
        self.addresses: dict[int, str] = {}
        """Where each source of the list is found, in its order: set with `paged`."""
        mined = set(study.mined_layers)
        # a block's layers are shown one by one, the block itself only where it was mined
        self.layers = [
            LayerView(self, record, record["name"] in mined)
            for record in study.layers
            if record["leaf"] or record["name"] in mined
        ]
        self._by_place = {record["name"]: place for place, record in enumerate(study.layers)}

    @cached_property
    def mined_layers(self) -> list[LayerView]:
        return [layer for layer in self.layers if layer.mined]

    @property
    def gated(self) -> bool:
        """Whether units are shown that lie behind a gate."""
        return any(layer.gated for layer in self.mined_layers)

    @cached_property
    def rules(self) -> list[str]:
        """The rules by which any layer was projected, the deconvnet first."""
        found = {rule for layer in self.mined_layers for rule in layer.rules}
        return sorted(found, key=lambda rule: (rule != "deconvnet", rule))

    @property
    def pictured(self) -> bool:
        """Whether pictures of any unit have been made."""
        return any(layer.pictured for layer in self.mined_layers)

    @cached_property
    def _layer_at(self) -> dict[int, LayerView]:
        """The mined layers by their place among all that were traced."""
        return {self._by_place[layer.name]: layer for layer in self.mined_layers}

    @cached_property
    def unit_count(self) -> int:
        total = 0
        for layer in self.mined_layers:
            total += layer.unit_count
            layer.forget()
        return total

    @property
    def filtered_layers(self) -> list[LayerView]:
        """The first layer with filters: those that can be read as they are."""
        return [layer for layer in self.layers if layer.filters][:1]

    def links(self, layers: Any, units: Any, weights: Any, kernels: Any = None) -> list[UnitLink]:
        """Return the units at the other ends of weights."""
        found = []
        for j, (place, unit, weight) in enumerate(zip(layers.tolist(), units.tolist(), weights.tolist(), strict=True)):
            layer = self._layer_at.get(place)
            if layer is not None:
                kernel = None if kernels is None else draw_kernel(kernels[j])
                found.append(UnitLink(layer, unit, weight, layer.picture_of(unit), kernel))
        return found

    def alike(self, layers: Any, units: Any, values: Any) -> list[UnitLink]:
        """Return the units that correlate with one."""
        triples = zip(layers.tolist(), units.tolist(), values.tolist(), strict=True)
        return [
            UnitLink(self.mined_layers[place], unit, value, self.mined_layers[place].picture_of(unit))
            for place, unit, value in triples
            if place >= 0
        ]

    @cached_property
    def rows(self) -> list[Row]:
        """The layers in order, those without units gathered into passages, with the flow of data beside them."""
        flow = self.study.flow()
        joins = {node["name"]: node["kind"] for node in flow if node["join"]}
        order: list[LayerView | str] = []
        at = {node["name"]: j for j, node in enumerate(flow)}
        passed = 0
        for layer in self.layers:
            until = at.get(layer.name, passed)
            order += [node["name"] for node in flow[passed:until] if node["join"]]
            passed = max(passed, until)
            order.append(layer)
        order += [node["name"] for node in flow[passed:] if node["join"]]
        groups: list[list[LayerView] | str] = []
        for one in order:
            before = groups[-1] if groups else None
            gather = isinstance(one, LayerView) and not one.mined and isinstance(before, list) and not before[-1].mined
            if isinstance(one, LayerView) and gather and isinstance(before, list):
                before.append(one)
            else:
                groups.append([one] if isinstance(one, LayerView) else one)
        nodes = [
            group if isinstance(group, str) else group[0].name if group[0].mined and group[0].name in at else None
            for group in groups
        ]
        drawings: list[RailDrawing | None] = [None] * len(groups)
        if flow:
            sources = contract({node["name"]: node["sources"] for node in flow}, {node for node in nodes if node})
            rails = lay_rails(nodes, sources)
            lanes = max((lane + 1 for rail in rails for lane in (*rail.below, *rail.into, rail.dot or 0)), default=1)
            heads = [28 if isinstance(group, str) or not group[0].mined else HEAD for group in groups]
            drawings = [draw_rail(rail, lanes, head) for rail, head in zip(rails, heads, strict=True)]
        return [
            Row(drawing, join=JOINS.get(joins[group], joins[group]))
            if isinstance(group, str)
            else Row(drawing, layer=group[0])
            if group[0].mined
            else Row(drawing, passage=tuple(group))
            for group, drawing in zip(groups, drawings, strict=True)
        ]

    @cached_property
    def opening(self) -> list[str]:
        """The lines of Python that load the network and open the images, and refuse others than these."""
        model, data, made_from = self.model, self.data, self.study.info.get("made_from") or {}
        spec, weights = made_from.get("model") or model["spec"], made_from.get("weights") or model.get("weights")
        load = f"model = ...  # your network {model['name']!r}"
        if spec:
            load = f"model = interpret.load({_from_home(spec)!r}"
            load += f", weights={_from_home(weights)!r})" if weights else ")"
        opened = data.get("opened_from") or made_from  # which older studies have alone
        images = f"images = interpret.open_images(..., model)  # your images {data['name']!r}"
        if opened:
            images = f"images = interpret.open_images({_from_home(opened['data'])!r}, model"
            images += f", crops={opened['crops']!r}" if opened.get("crops") else ""
            images += f", scales={tuple(opened['scales'])})" if opened.get("scales") else ")"
        return [
            load,
            f"assert model.weights_hash.startswith({model['weights_hash'][:12]!r})",
            images,
            f"assert images.fingerprint.startswith({data['fingerprint'][:12]!r})",
        ]

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
    def _predictions(self) -> Any:
        return self.study.predictions()

    @cached_property
    def predicted(self) -> dict[int, tuple[Likely, ...]]:
        """What the network makes of the source images, by number."""
        found = self._predictions
        if found is None:
            return {}
        rows = zip(found.sources.tolist(), found.top.tolist(), found.probabilities.tolist(), strict=True)
        return {number: _likeliest(found.classes, labels, shares) for number, labels, shares in rows}

    @property
    def reading(self) -> str:
        """How the network's outputs became the probabilities of its predictions, as a sentence."""
        found = self._predictions
        return "" if found is None else in_words(found.outputs, found.part)

    @cached_property
    def answers(self) -> list[str]:
        """What the network's answers are called; empty where nobody knows."""
        found = self._predictions
        return [str(name) for name in (self.model["classes"] if found is None else found.classes) or ()]

    @property
    def unpredicted(self) -> str:
        """Why the images have no predictions, as a sentence; empty where they have."""
        if self.predicted:
            return ""
        why = self.settings.get(UNPREDICTED)
        return f"There are no predictions: {why}." if why else "What the network makes of them was not computed."

    @property
    def every_image(self) -> bool:
        """Whether there are so few images that all are listed."""
        return self.source_count <= MOST_SOURCES_PREDICTED

    @cached_property
    def sources(self) -> dict[int, Source]:
        """The pictures that have hits or are in the sample."""
        known = {}
        for key, record in self.study.sources().items():
            picture = self.picture(self.study.source_picture(key)) if self.context else None
            size = (
                (picture.width, picture.height) if picture else source_picture_size(record["width"], record["height"])
            )
            label, likeliest = int(record.get("label", -1)), self.predicted.get(key, ())
            known[key] = Source(key, record["name"], picture, label, size, likeliest, self.addresses)
        if self.context:
            for item, record in self._sampled.items():
                picture = self.picture(self.study.sample_picture(item))
                number = record["source"]
                size = (picture.width, picture.height) if picture else (0, 0)
                label, likeliest = int(record["label"]), self.predicted.get(number, ())
                source = Source(number, record["name"], picture, label, size, likeliest, self.addresses)
                known.setdefault(number, source)
        return known

    def source(self, number: int) -> Source:
        return self.sources[number]

    @cached_property
    def _sampled(self) -> dict[int, dict[str, Any]]:
        return self.study.samples()

    @cached_property
    def samples(self) -> dict[int, Sample]:
        """The inputs of the sample by item; none without context."""
        if not self.context:
            return {}
        return {
            item: Sample(
                item,
                self.source(record["source"]),
                self.class_name(record["label"]),
                self.picture(self.study.sample_picture(item)),
                _likeliest(self.model["classes"] or [], record.get("classes", ()), record.get("probabilities", ())),
                in_words(record.get("outputs", ""), record.get("part", "")),
            )
            for item, record in self._sampled.items()
        }

    @cached_property
    def accuracy(self) -> tuple[float, int] | None:
        """On what share of the sample's labelled images the likeliest class is the label, and how many these are."""
        judged = [
            sample.likeliest[0].name == sample.label
            for sample in self.samples.values()
            if sample.label is not None and sample.likeliest
        ]
        same_names = self.model["classes"] == self.data["classes"]
        return (sum(judged) / len(judged), len(judged)) if judged and same_names else None

    def picture(self, path: Path) -> Picture | None:
        """Return one of the study's pictures, None where it has none."""
        return Picture(path.relative_to(self.study.path).as_posix(), *_size(path)) if path.is_file() else None


def _from_home(path: str) -> str:
    """Return a path without the name of who is at home there."""
    home = f"{Path.home()}{os.sep}"
    return f"~/{path.removeprefix(home)}" if path.startswith(home) else path


def _likeliest(names: Sequence[str], labels: Iterable[int], probabilities: Iterable[float]) -> tuple[Likely, ...]:
    found = zip(labels, probabilities, strict=True)
    return tuple(Likely(label, str(names[label]), share) for label, share in found if share >= LEAST_LIKELY)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size
