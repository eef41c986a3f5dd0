"""The tiles of hits, patches and projections, and the sprites that they are written as."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.projection.hit_projection import HitBatch
from interpret.images.display import contrast, inputs_to_bytes, sheet, shrink, to_bytes, webp
from interpret.network.model import Model
from interpret.network.pixel_scale import PixelScale
from interpret.support.manifest import updating

TILE_KINDS = ("patches", "projections")


def tiles_of(batch: HitBatch, side: int, model: Model, scale: PixelScale) -> dict[str, NDArray[np.uint8]]:
    """Return the tiles of a batch of hits, by their kind, each [n, h, w, 3]."""
    return {
        "projections": to_bytes(contrast(shrink(batch.projections, side), model.colours)),
        "patches": inputs_to_bytes(shrink(batch.patches, side), scale),
    }


class HitTiles:
    """The tiles of a layer's hits in files, which remain when the work is interrupted."""

    def __init__(
        self, path: Path, filled: NDArray[np.bool_], side: int, checksums: NDArray[np.int64] | None = None
    ) -> None:
        """Find the tiles of interrupted work.

        Args:
            path: of the files, without their endings.
            filled: [C, k] which hits there are.
            side: of a tile, in pixels.
            checksums: those of the interrupted work; a tile that differs counts as not done.
        """
        self.files = {what: path.with_name(f"{path.name}.{what}.npy") for what in TILE_KINDS}
        self.filled = filled
        self.side = side
        self.done = np.zeros(filled.shape, bool)
        """[C, k] which hits have their tiles in the files."""
        self.checksums = np.full((len(TILE_KINDS), *filled.shape), -1, np.int64)
        """[2, C, k] of the tiles of each kind; −1 where there is none."""
        if checksums is not None and checksums.shape == self.checksums.shape:
            found = np.stack([self._checksums_of(file) for file in self.files.values()])
            self.done = ((found == checksums) & (checksums >= 0)).all(0)
            self.checksums[:, self.done] = checksums[:, self.done]

    def _checksums_of(self, file: Path) -> NDArray[np.int64]:
        """Return the checksums of the tiles in a file [C, k]; −1 where it is too short, or no file of tiles."""
        try:
            tiles = np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return np.full(self.filled.shape, -1, np.int64)
        if tiles.shape[:2] != self.filled.shape:
            return np.full(self.filled.shape, -1, np.int64)
        return np.array([[crc32(tile.tobytes()) for tile in unit] for unit in tiles], np.int64)

    @property
    def complete(self) -> bool:
        return bool((self.done | ~self.filled).all())

    def update(self, units: NDArray[np.int64], ranks: NDArray[np.int64], tiles: dict[str, NDArray[np.uint8]]) -> None:
        """Write the tiles of some hits into the files."""
        for number, (what, file) in enumerate(self.files.items()):
            shape = tiles[what].shape[1:]
            if not self.done.any():
                file.parent.mkdir(parents=True, exist_ok=True)
                np.lib.format.open_memmap(file, "w+", np.uint8, (*self.filled.shape, *shape))
            size = math.prod(shape)
            with file.open("r+b") as opened:  # not a memory map, through which a full disk crashes the process
                begin = opened.seek(0, os.SEEK_END) - self.filled.size * size
                for unit, rank, tile in zip(units, ranks, tiles[what], strict=True):
                    opened.seek(begin + (unit * self.filled.shape[1] + rank) * size)
                    content = tile.tobytes()
                    opened.write(content)
                    self.checksums[number, unit, rank] = crc32(content)
        self.done[units, ranks] = True

    def write_sprites(self, folder: Path, what: str, units: Collection[int]) -> None:
        """Write the tiles of each of these units as one picture, grey where there is no hit, and keep those of others.

        Without any hit, there is no picture.
        """
        with updating(folder) as new, ThreadPoolExecutor(os.cpu_count()) as pool:
            new.mkdir(exist_ok=True)
            for kept in sprites_in(folder).values():
                shutil.copy2(kept, new)
            if not self.done.any():
                return
            tiles: NDArray[np.uint8] = np.load(self.files[what], mmap_mode="r")

            def write(unit: int) -> None:
                own = np.array(tiles[unit])
                own[~self.done[unit]] = 128
                (new / sprite_name(unit)).write_bytes(webp(sheet(own), self.side))

            list(pool.map(write, units))


def sprite_name(unit: int) -> str:
    """Return the name of the file of a unit's sprite."""
    return f"{unit:04d}.webp"


def sprites_in(folder: Path) -> dict[int, Path]:
    """Return the sprites in a folder, which need not exist, by their units."""
    return {int(file.stem): file for file in folder.glob("*.webp") if file.stem.isdecimal()}
