"""Images cropped from pictures, in files or in memory."""

from __future__ import annotations

import copy
import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.images.fingerprints import hash_arrays
from interpret.images.folder import UnreadableImage, read_picture, read_size, upright_size, why_unreadable
from interpret.images.sources import Images
from interpret.images.tiling import tiles
from interpret.network.pixel_scale import PixelScale
from interpret.network.preprocess import Cut, Preprocess, upright
from interpret.support.progress import progress


class PictureImages(Images):
    """Items cropped from pictures: the central crop of each, or tiles at several scales."""

    def __init__(
        self,
        name: str,
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
    ) -> None:
        """Take one label per picture; without `scales`, use the central crop of each picture."""
        self.preprocess: Preprocess = preprocess
        self.cuts: NDArray[np.int32] | None = None
        """int32 [N, 4], one `Cut` per item; None: the central crops."""
        self._own_labels = labels
        skipped: dict[str, str] = {}
        sources = np.arange(len(labels))
        if scales is not None:
            counts, self.cuts = self._tile(len(labels), scales, skipped)
            sources = np.repeat(sources, counts)
        super().__init__(name, sources, labels[sources], classes)
        self.skipped.update(skipped)
        self._last: tuple[int, Image.Image | UnreadableImage] | None = None
        self._last_resized: tuple[tuple[int, int, int], Image.Image] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "_last_resized": None}

    def _tile(
        self, count: int, scales: tuple[int, ...], skipped: dict[str, str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the number of tiles of each picture, and all tiles."""
        counts, cuts = np.zeros(count, np.int64), []
        with progress(count, "measuring images", "image") as bar:
            for source in range(count):
                try:
                    tiling = tiles(self.preprocess, *self._size(source), scales)
                    counts[source] = len(tiling)
                    cuts += tiling
                except UnreadableImage as error:
                    skipped[error.name] = error.reason
                bar.update()
        return counts, np.array(cuts, np.int32).reshape(-1, 4)

    @cached_property
    def pixel_scale(self) -> PixelScale:
        return self.preprocess.pixel_scale

    @abstractmethod
    def _read(self, source: int) -> Image.Image:
        """Return a picture, upright."""

    @abstractmethod
    def _size(self, source: int) -> tuple[int, int]:
        """Return the height and width of a picture, upright."""

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        item = range(len(self))[item]
        source = int(self.sources[item])
        picture = self.source_picture(source)
        cut = self._cut(item, (picture.height, picture.width))
        pixels = self.preprocess.cut(self._resized(source, picture, cut), cut)
        return self.preprocess.encode(pixels).to(self.dtype), int(self.labels[item])

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        item = range(len(self))[item]
        source = int(self.sources[item])
        picture = self.source_picture(source)
        cut = self._cut(item, (picture.height, picture.width))
        # up to the border of the picture, or of the input if padding extends it beyond the picture
        top, left = max(box[0], min(0, -cut.top)), max(box[1], min(0, -cut.left))
        bottom = min(box[2], max(self.preprocess.size[0], cut.height - cut.top))
        right = min(box[3], max(self.preprocess.size[1], cut.width - cut.left))
        wider = replace(self.preprocess, size=(bottom - top, right - left))
        part = Cut(cut.height, cut.width, cut.top + top, cut.left + left)
        pixels = wider.cut(self._resized(source, picture, cut), part)
        return self.preprocess.encode(pixels), (top, left)

    def central(self) -> Images:
        if self.cuts is None:
            return self
        whole = copy.copy(self)
        whole.__dict__.pop("fingerprint", None)  # the tiles' fingerprint does not apply
        whole.cuts, whole.sources, whole.labels = None, np.arange(len(self._own_labels)), self._own_labels
        return whole

    def _cut(self, item: int, size: tuple[int, int]) -> Cut:
        return self.preprocess.central(*size) if self.cuts is None else Cut(*self.cuts[item].tolist())

    def _resized(self, source: int, picture: Image.Image, cut: Cut) -> Image.Image:
        """Resize a picture once for all its tiles of one scale."""
        if self.cuts is None or not cut.fits_in_memory:
            return picture
        key = (source, cut.height, cut.width)
        if self._last_resized is None or self._last_resized[0] != key:
            self._last_resized = (key, self.preprocess.resize_picture(picture, cut.height, cut.width))
        return self._last_resized[1]

    def source_picture(self, source: int) -> Image.Image:
        # neighbouring items share their source: decode it, or fail to, only once
        if self._last is None or self._last[0] != source:
            try:
                self._last = (source, self._read(source))
            except UnreadableImage as error:
                self._last = (source, error)
        picture = self._last[1]
        if isinstance(picture, UnreadableImage):
            raise picture
        return picture

    def window(self, item: int) -> tuple[float, float, float, float]:
        item = range(len(self))[item]
        cut = self._cut(item, self._size(int(self.sources[item])))
        bottom, right = cut.top + self.preprocess.size[0], cut.left + self.preprocess.size[1]
        return (cut.top / cut.height, cut.left / cut.width, bottom / cut.height, right / cut.width)

    def _cutting(self) -> bytes:
        """Hash what determines the items' values besides the pictures: the preprocessing and the tiles."""
        settings = json.dumps(self.preprocess.to_dict(), sort_keys=True).encode()
        return hashlib.sha256(settings + (b"" if self.cuts is None else self.cuts.tobytes())).digest()


class FileImages(PictureImages):
    """Images in files under a folder."""

    def __init__(
        self,
        name: str,
        root: Path,
        names: Sequence[str],
        sizes: NDArray[np.int64],
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
    ) -> None:
        """Take the files' paths relative to `root` and their sizes in bytes, as `list_images` returns them."""
        self.root = root
        self.names = names
        self.sizes = sizes
        super().__init__(name, labels, classes, preprocess, scales)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths relative to the folder, sizes in bytes, the preprocessing and the tiles.

        Contents are not read: a change that keeps a file's size is not detected.
        """
        digest = hashlib.sha256(self._cutting())
        for name, size in zip(self.names, self.sizes.tolist(), strict=True):
            digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def source_name(self, source: int) -> str:
        return self.names[source]

    def _read(self, source: int) -> Image.Image:
        return read_picture(self.root, self.names[source])

    def _size(self, source: int) -> tuple[int, int]:
        return read_size(self.root, self.names[source])


class ArrayImages(PictureImages):
    """Images in memory: uint8 pixels [N, H, W] or [N, H, W, C], or a list of pictures or of pixels per picture."""

    def __init__(
        self,
        name: str,
        pictures: NDArray[np.uint8] | Sequence[Image.Image | NDArray[np.uint8]],
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
    ) -> None:
        self.pictures = pictures
        super().__init__(name, labels, classes, preprocess, scales)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels, the preprocessing and the tiles."""
        pixels = [self.pictures] if isinstance(self.pictures, np.ndarray) else map(np.asarray, self.pictures)
        return hash_arrays([*pixels, self.labels], self._cutting())

    def source_name(self, source: int) -> str:
        file = getattr(self.pictures[source], "filename", "")  # set on pictures that were opened from a file
        return Path(file).name if file else f"image {source}"

    def _picture(self, source: int) -> Image.Image:
        picture = self.pictures[source]
        return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)

    def _read(self, source: int) -> Image.Image:
        try:
            return upright(self._picture(source))
        except OSError as error:
            raise UnreadableImage(self.source_name(source), why_unreadable(error)) from None

    def _size(self, source: int) -> tuple[int, int]:
        return upright_size(self._picture(source))
