"""Images cropped from pictures, in files or in memory."""

from __future__ import annotations

import copy
import hashlib
import json
import os
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

from interpret.images.file_names import FileNames
from interpret.images.fingerprints import hash_arrays
from interpret.images.folder import Decoded, Decoding, read_decoded, read_size, upright_size
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage, read_patiently
from interpret.images.tiling import tiles
from interpret.network.pixel_scale import PixelScale
from interpret.network.preprocess import Cut, Preprocess, upright
from interpret.support.progress import progress
from interpret.support.wording import readable

ALL_SIZES_COUNT = 100_000
"""Files up to which the size of each is part of a folder's fingerprint."""
SIZES_SAMPLED = 10_000
"""Files whose sizes are part of the fingerprint of a larger folder."""


class PictureImages(Images):
    """Items cropped from pictures: the central crop of each, or tiles at several scales."""

    def __init__(
        self,
        name: str,
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
        decoding: Decoding = Decoding(),  # noqa: B008 - it cannot be changed
    ) -> None:
        """Take one label per picture; without `scales`, use the central crop of each picture."""
        self.preprocess: Preprocess = preprocess
        self.decoding = decoding
        self.scales = scales
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
        self._last: tuple[int, Decoded | UnreadableImage] | None = None
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
    def _read(self, source: int, whole: bool) -> Decoded:
        """Return a picture, upright, decoded `whole` or as far as the items need it."""

    @abstractmethod
    def _size(self, source: int) -> tuple[int, int]:
        """Return the height and width of a picture, upright."""

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        item = range(len(self))[item]
        source = int(self.sources[item])
        decoded = self._decoded(source)
        cut = self._cut(item, decoded.size)
        pixels = self._pixels(self.preprocess, source, decoded, cut)
        return self.preprocess.encode(pixels).to(self.dtype), int(self.labels[item])

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        item = range(len(self))[item]
        source = int(self.sources[item])
        decoded = self._decoded(source)
        cut = self._cut(item, decoded.size)
        # up to the border of the picture, or of the input if padding extends it beyond the picture
        top, left = max(box[0], min(0, -cut.top)), max(box[1], min(0, -cut.left))
        bottom = min(box[2], max(self.preprocess.size[0], cut.height - cut.top))
        right = min(box[3], max(self.preprocess.size[1], cut.width - cut.left))
        wider = replace(self.preprocess, size=(bottom - top, right - left))
        part = Cut(cut.height, cut.width, cut.top + top, cut.left + left)
        pixels = self._pixels(wider, source, decoded, part)
        return self.preprocess.encode(pixels), (top, left)

    def central(self) -> Images:
        if self.cuts is None:
            return self
        whole = copy.copy(self)
        whole.__dict__.pop("fingerprint", None)  # the tiles' fingerprint does not apply
        whole.cuts, whole.sources, whole.labels = None, np.arange(len(self._own_labels)), self._own_labels
        whole.scales = whole._last = None
        return whole

    def _cut(self, item: int, size: tuple[int, int]) -> Cut:
        return self.preprocess.central(*size) if self.cuts is None else Cut(*self.cuts[item].tolist())

    def _pixels(self, preprocess: Preprocess, source: int, decoded: Decoded, cut: Cut) -> NDArray[np.uint8]:
        """Return the pixels of a cut, and resize a picture once for all its tiles of one scale."""
        if self.cuts is None or not cut.fits_in_memory:
            return preprocess.cut(decoded.picture, cut, decoded.box)
        key = (source, cut.height, cut.width)
        if self._last_resized is None or self._last_resized[0] != key:
            resized = preprocess.resize_picture(decoded.picture, cut.height, cut.width, decoded.box)
            self._last_resized = (key, resized)
        return preprocess.crop(self._last_resized[1], cut.top, cut.left)

    def _decoded(self, source: int) -> Decoded:
        # neighbouring items share their source: decode it, or fail to, only once
        if self._last is None or self._last[0] != source:
            try:
                self._last = (source, self._read(source, whole=False))
            except UnreadableImage as error:
                self._last = (source, error)
        decoded = self._last[1]
        if isinstance(decoded, UnreadableImage):
            raise decoded
        return decoded

    def _needed(self, height: int, width: int) -> tuple[int, int]:
        """Return the largest height and width to which a picture is resized for its items."""
        if self.scales is None:
            return self.preprocess.central(height, width)[:2]
        return self.preprocess.resized(height, width, max(self.scales))

    def source_picture(self, source: int) -> Image.Image:
        return self._read(source, whole=True).picture if self.decoding.reduced else self._decoded(source).picture

    def window(self, item: int) -> tuple[float, float, float, float]:
        item = range(len(self))[item]
        cut = self._cut(item, self._size(int(self.sources[item])))
        bottom, right = cut.top + self.preprocess.size[0], cut.left + self.preprocess.size[1]
        return (cut.top / cut.height, cut.left / cut.width, bottom / cut.height, right / cut.width)

    def _cutting(self) -> bytes:
        """Hash what determines the items' values besides the pictures: the preprocessing, the tiles, the decoding."""
        settings = json.dumps(self.preprocess.to_dict(), sort_keys=True).encode()
        if self.decoding != Decoding():
            settings += repr(self.decoding).encode()
        return hashlib.sha256(settings + (b"" if self.cuts is None else self.cuts.tobytes())).digest()


class FileImages(PictureImages):
    """Images in files under a folder."""

    def __init__(
        self,
        name: str,
        root: Path,
        names: FileNames,
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
        decoding: Decoding = Decoding(),  # noqa: B008 - it cannot be changed
    ) -> None:
        """Take the files' paths relative to `root`."""
        self.root = root
        self.names = names
        super().__init__(name, labels, classes, preprocess, scales, decoding)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths relative to the folder, sizes in bytes, the preprocessing and the tiles.

        Of more than 100,000 files, the sizes of 10,000 count, chosen by hash: to ask a share for a size takes as long
        as to open the file. Contents are not read: a change that keeps a file's size is not detected.
        """
        digest = hashlib.sha256(self._cutting())
        if len(self.names) <= ALL_SIZES_COUNT:
            for name in self.names:
                digest.update(f"{name}\0{self._size_in_bytes(name)}\0".encode("utf-8", "surrogateescape"))
            return digest.hexdigest()
        for array in self.names.arrays():
            digest.update(array.numpy().data)
        sample = sample_by_hash(len(self.names), SIZES_SAMPLED)
        digest.update(np.array([self._size_in_bytes(self.names[file]) for file in sample.tolist()], "<i8").data)
        return digest.hexdigest()

    def _size_in_bytes(self, name: str) -> int:
        path = self.root / name
        try:
            return read_patiently(readable(name), lambda: path.stat().st_size, path)
        except UnreadableImage:
            return -1

    def source_name(self, source: int) -> str:
        return readable(self.names[source])

    def _read(self, source: int, whole: bool) -> Decoded:
        return read_decoded(self.root, self.names[source], self.decoding, None if whole else self._needed)

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
        return readable(Path(os.fsdecode(file)).name) if file else f"image {source}"

    def _picture(self, source: int) -> Image.Image:
        picture = self.pictures[source]
        return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)

    def _read(self, source: int, whole: bool) -> Decoded:
        picture = read_patiently(self.source_name(source), lambda: upright(self._picture(source)))
        return Decoded(picture, (picture.height, picture.width), (0, 0, picture.width, picture.height))

    def _size(self, source: int) -> tuple[int, int]:
        return upright_size(self._picture(source))
