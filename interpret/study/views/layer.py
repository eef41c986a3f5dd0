"""One layer of a study's network: what it is, its mined arrays, its units and the size of their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from interpret.figures.drawn_inputs import picture_size
from interpret.figures.tile_grid import TileGrid
from interpret.study.reader import StudyReader, local_field
from interpret.study.views.pictures import Picture, find_picture
from interpret.study.views.sprites import Sprites
from interpret.study.views.units import Unit, read_units
from interpret.support import numbers
from interpret.support.wording import elements

STRONGEST_UNITS = 8
"""How many of its strongest units are shown beside a layer at most."""
LARGEST_SHARP_SHEET_TILE = 16
"""Largest side in pixels of a tile that sheets magnify without smoothing."""


class LayerView:
    """One layer of the network; `mined` says whether it has units to show."""

    def __init__(
        self,
        study: StudyReader,
        record: dict[str, Any],
        mined: bool,
        context: bool = True,
        class_names: Sequence[str] = (),
    ) -> None:
        """Read a layer.

        Args:
            study: the study.
            record: what study.json says of the layer.
            mined: whether the study has mined it.
            context: whether patches that are whole images are shown.
            class_names: the network's classes, for the last mined layer.
        """
        self._study, self._context, self._class_names = study, context, class_names
        self.mined = mined
        self.name: str = record["name"]
        self.kind: str = record["kind"]
        self.output_shape: Sequence[int] = record["output_shape"]
        self._grid = record.get("grid", self.output_shape[1:] or None)
        self.params: int = record["params"]
        self.macs: int = record["macs"]
        self.receptive_field: dict[str, Any] | None = record["receptive_field"]
        self.field = local_field(record)
        """The window of its patches and projections; None for the whole input."""
        self.global_from: str | None = record.get("global_from")
        """The operation, and its layer, from which on its units see the whole input; None if they do not."""
        self.local_global_from: str | None = record.get("local_global_from")
        """The same of the local field."""
        self.by_box: bool = record.get("boxes") is not None
        """Whether it runs once a box that the network finds; its patches and projections are those of boxes."""
        self.gated = self.receptive_field != self.field
        """Whether gates see further than that window."""
        self.input_shape: Sequence[int] = study.info["model"]["input_shape"]

    @cached_property
    def data(self) -> Any:
        """The mined arrays."""
        return self._study.mined(self.name)

    def forget(self) -> None:
        """Drop the arrays, so that a large study never lies in memory as a whole."""
        for name in ("data", "units"):
            self.__dict__.pop(name, None)

    @cached_property
    def rules(self) -> list[str]:
        """The backward rules that it was projected by, the deconvnet first."""
        return sorted(self._study.rules(self.name), key=lambda rule: (rule != "deconvnet", rule))

    @property
    def positioned(self) -> bool:
        """Whether its output has rows and columns."""
        return self._grid is not None

    @cached_property
    def filters(self) -> Picture | None:
        """The picture of its kernels, where the study has one."""
        return find_picture(self._study, self._study.filter_sheet(self.name))

    # the window that its units see

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Height and width in pixels of the part of the input that a unit sees; one number for each axis."""
        sides = [int(side) for side in self.input_shape[1:]]
        return tuple(sides if self.field is None else map(min, self.field["size"], sides))

    @property
    def elements(self) -> str:
        """What the input's elements are called, in short."""
        axes = len(self.input_shape) - 1
        return "px" if axes == 2 else elements(axes)

    @property
    def whole(self) -> bool:
        """Whether patches and projections are those of the whole input."""
        return not self.by_box and self.seen == tuple(self.input_shape[1:])

    # its pictures

    @cached_property
    def k(self) -> int:
        """How many hits each unit has at most."""
        return int(self.data.values.shape[1])

    @cached_property
    def sprites(self) -> Sprites:
        """The pictures of its units; without context, those of patches that are whole images or boxes are left out."""
        return Sprites(self._study, self.name, self.rules, patches=self._context or not (self.whole or self.by_box))

    @cached_property
    def grid(self) -> TileGrid:
        """Where the tiles of its hits lie in each sprite."""
        return self.sprites.grid(self.k)

    @property
    def pictured(self) -> bool:
        """Whether pictures of its units have been made."""
        return bool(self.sprites)

    @property
    def real_pixels(self) -> bool:
        """Whether a pixel of a tile is a pixel of the input, and not of a drawn line."""
        return not self.by_box and len(self.seen) > 1 and picture_size(self.seen) == (self.grid.height, self.grid.width)

    @property
    def sheet_pixels(self) -> bool:
        """Whether sheets magnify its tiles without smoothing."""
        return self.real_pixels and max(self.seen) <= LARGEST_SHARP_SHEET_TILE

    @cached_property
    def picture_size(self) -> str:
        """How large a patch really is and how it is kept, in words."""
        axes = len(self.seen)
        if axes != 2:
            return f"{numbers.product(self.seen)}{numbers.THIN}{self.elements}"
        seen = numbers.product(self.seen[::-1]) + f"{numbers.THIN}px"
        tile = max(self.grid.height, self.grid.width)
        if self.by_box:
            return f"boxes, each warped to {numbers.product([tile, tile])}{numbers.THIN}px"
        return f"{seen}, magnified" if self.real_pixels else f"{seen}, shrunk to {tile}{numbers.THIN}px"

    @cached_property
    def gaps(self) -> str:
        """The lines between the tiles of a sprite, as an SVG path."""
        grid = self.grid
        height, width = grid.size
        vertical = (f"M{j * grid.width} 0V{height}" for j in range(1, grid.columns))
        horizontal = (f"M0 {j * grid.height}H{width}" for j in range(1, grid.rows))
        return "".join([*vertical, *horizontal])

    # its units

    @cached_property
    def unit_count(self) -> int:
        """How many units it has."""
        return len(self.data.values)

    @cached_property
    def output_classes(self) -> Sequence[str]:
        """The class that each unit is the output for, in the last layer of a classifier; else empty."""
        return self._class_names if len(self._class_names) == self.unit_count else ()

    @cached_property
    def dead_count(self) -> int:
        """How many of its units no image brought above zero."""
        return int(self.data.dead.sum())

    @property
    def dead_share(self) -> float:
        """The share of its units that are dead."""
        return self.dead_count / max(self.unit_count, 1)

    @cached_property
    def units(self) -> list[Unit]:
        """Its units, by number."""
        return read_units(self.data, self.sprites, self.rules[0] if self.rules else None, self.output_classes)

    @cached_property
    def strongest_units(self) -> list[Unit]:
        """Its units with the largest values, strongest first, the dead left out."""
        alive = [unit for unit in self.units if not unit.dead and (unit.pictured or not self.pictured)]
        return sorted(alive, key=lambda unit: unit.rank)[:STRONGEST_UNITS]
