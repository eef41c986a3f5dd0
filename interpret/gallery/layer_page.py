"""One layer of the network, with what only a gallery shows of it: addresses, colours, selectivity, drawings."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from interpret.figures.tile_grid import TileGrid
from interpret.gallery.colours import COLOURS, Colour, colour_of
from interpret.gallery.drawings import FieldDrawing, draw_field
from interpret.gallery.selectivity import Selectivity, measure_selectivity
from interpret.study.filter_tiles import knows_its_tiles, read_filter_grid
from interpret.study.views.layer import LayerView
from interpret.study.views.pictures import Picture
from interpret.study.views.sprites import PATCHES
from interpret.support.files import layer_path
from interpret.support.html import breakable

LARGEST_SHARP_TILE = 48
"""Largest side in pixels of a tile that a unit's own page magnifies without smoothing."""


class LayerPage(LayerView):
    """One layer of the network as the gallery's templates read it."""

    def forget(self) -> None:
        """Drop the arrays, so that a large study never lies in memory as a whole."""
        super().forget()
        for name in ("connections", "range_examples"):
            self.__dict__.pop(name, None)

    @cached_property
    def folder(self) -> str:
        """The folder of its pages, relative to the gallery's root, as it is on disk."""
        return f"layers/{layer_path(self.name)}"

    @cached_property
    def base(self) -> str:
        """The address of its folder, relative to the gallery's root."""
        return quote(self.folder) + "/"

    @property
    def href(self) -> str:
        """The address of its page, relative to the gallery's root."""
        return self.base + "index.html"

    @cached_property
    def breakable(self) -> Markup:
        """Its name, escaped, that may break into lines after each dot."""
        return breakable(self.name)

    @cached_property
    def bidi_name(self) -> Markup:
        """Its name as an element whose direction is its own."""
        return Markup("<bdi class=name>{}</bdi>").format(self.name)

    @cached_property
    def drawing(self) -> FieldDrawing:
        """Its receptive field, to scale."""
        return draw_field(self.field, self.input_shape)

    # the arrays of the study, until `forget`

    @cached_property
    def connections(self) -> dict[str, Any] | None:
        """The strongest weights between its units and others; None where the study has none."""
        return self._study.connections(self.name)

    @cached_property
    def range_examples(self) -> dict[str, Any] | None:
        """Examples from the whole range of its units; None where the study has none, and without context."""
        return self._study.activation_range_examples(self.name) if self._context else None

    # its filters

    @property
    def filters_unplaced(self) -> bool:
        """Whether its filters were drawn by an older version, which did not keep where each unit's tile is."""
        return self.filters is not None and not knows_its_tiles(self._study.path / self.filters.path)

    @cached_property
    def _filter_grid(self) -> TileGrid | None:
        return None if self.filters is None else read_filter_grid(self._study.path / self.filters.path)

    def filter_of(self, unit: int) -> tuple[Picture, str] | None:
        """Return the picture of its filters, and as a viewBox the part that is a unit's, where each has one tile."""
        if self.filters is None or self._filter_grid is None:
            return None
        top, left = self._filter_grid.corner(unit)
        return self.filters, f"{left} {top} {self._filter_grid.width} {self._filter_grid.height}"

    # its units

    def picture_of(self, unit: int) -> Picture | None:
        """Return a unit's patches, or its projections where there are no patches."""
        return self.sprites.first(unit)

    def picture_folder(self, unit: int) -> str:
        """Return what pictures of its kind are in, relative to the gallery's root, as an address; "" without one."""
        picture = self.picture_of(unit)
        return "" if picture is None else picture.href.rsplit("/", 2)[0]

    def hits_of(self, unit: int) -> int:
        """Return how many hits a unit has."""
        return self._hit_counts[unit]

    @cached_property
    def _hit_counts(self) -> list[int]:
        return [int(count) for count in (self.data.images >= 0).sum(1)]

    @cached_property
    def colours(self) -> list[Colour]:
        """The colour of each unit; of share 0 where the network sees no colours, and without pictures."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._colour, range(self.unit_count)))

    def _colour(self, unit: int) -> Colour:
        hits = int((self.data.images[unit] >= 0).sum())
        if not hits or len(self.input_shape) != 3 or int(self.input_shape[0]) != 3:
            return Colour(0, 0)
        patches = self.sprites.tiles(PATCHES, unit, self.grid)
        if patches is None:
            return Colour(0, 0)
        projections = self.sprites.tiles(self.rules[0], unit, self.grid) if self.rules else None
        return colour_of(patches[:hits], None if projections is None else projections[:hits])

    @property
    def seen_colours(self) -> list[str]:
        """The colours that its units have."""
        return [COLOURS[place] for place in sorted({one.place for one in self.colours if one.share})]

    @cached_property
    def selectivity(self) -> Selectivity | None:
        """How much each unit prefers which class; None where no label is known."""
        return None if self.data.class_means is None else measure_selectivity(self.data.class_means)

    @cached_property
    def maxima(self) -> dict[str, Any] | None:
        """The histogram of all its units' largest values on the sample, for `pictures.js`."""
        values = self.data.sample_maxima.ravel()
        values = values[np.isfinite(values)]
        if not len(values) or values.min() == values.max():
            return None
        try:
            counts, edges = np.histogram(values.astype(np.float64), bins=64)
        except ValueError:  # the values differ by less than 64 numbers can tell apart
            return None
        return {"start": float(edges[0]), "width": float(edges[1] - edges[0]), "counts": counts.tolist()}

    # its sprites on the page of a unit

    @property
    def shows_range_patches(self) -> bool:
        """Whether its range examples are patches, cut from pictures of inputs; a drawn input is shown whole."""
        return len(self.input_shape) == 3

    @property
    def unit_pixels(self) -> bool:
        """Whether the page of a unit magnifies its tiles without smoothing."""
        return self.real_pixels and max(self.seen) <= LARGEST_SHARP_TILE
