"""Image files: which formats are read, and how much of a large picture is decoded."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from interpret.images.storage import read_patiently
from interpret.network.preprocess import upright
from interpret.support.errors import InterpretError
from interpret.support.wording import readable

Result = TypeVar("Result")

MOST_PIXELS = 100_000_000
"""Pixels up to which a picture is decoded, unless another budget is given: it then takes at most about 1 GB."""
LARGEST_FILE = 2**31
"""Bytes up to which a file is read."""
REDUCED_AT_LEAST = 2.0
"""A picture decoded at a reduced scale is at least this many times as large as it is needed."""


@dataclass(frozen=True)
class Decoding:
    """How image files are decoded."""

    most_pixels: int = MOST_PIXELS
    """Pixels up to which a picture is decoded. A larger JPEG is decoded at a half, quarter or eighth of its scale."""
    reduced: bool = False
    """Whether to decode JPEG files at a reduced scale where they are shrunk to less than half of it anyway.

    About three times as fast for pictures of 12 megapixels. Pixels then differ: by at most 32 levels of 255, and by
    at most 2 on average over a picture.
    """

    def __post_init__(self) -> None:
        if self.most_pixels < 1:
            raise InterpretError(f"max_pixels must be at least 1, not {self.most_pixels}")


class Decoded(NamedTuple):
    """A picture, upright and RGB, perhaps decoded at a reduced scale."""

    picture: Image.Image
    size: tuple[int, int]
    """Height and width of the whole picture at full scale."""
    box: tuple[float, float, float, float]
    """(left, top, right, bottom) of the whole picture in `picture`, which may end in part of a pixel."""


@cache
def picture_formats() -> tuple[str, ...]:
    """Return Pillow's picture formats, without those that start another program, such as EPS."""
    Image.init()
    wanted = "AVIF BMP DIB GIF ICO JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split()
    return tuple(name for name in wanted if name in Image.OPEN)


@cache
def extensions() -> tuple[str, ...]:
    """Return the file name extensions of images, in lower case.

    >>> ".jpg" in extensions(), ".txt" in extensions()
    (True, False)
    """
    return tuple(sorted(ext for ext, name in Image.registered_extensions().items() if name in picture_formats()))


def read_picture(root: str | os.PathLike[str], name: str) -> Image.Image:
    """Read an image file of any mode as an upright RGB picture.

    Raises:
        UnreadableImage: the file is missing or does not decode.
        InterpretError: the storage fails.
    """
    return read_decoded(root, name).picture


def read_decoded(
    root: str | os.PathLike[str],
    name: str,
    decoding: Decoding = Decoding(),
    needed: Callable[[int, int], tuple[int, int]] | None = None,
) -> Decoded:
    """Read an image file as an upright RGB picture.

    Args:
        root, name: the folder and the path in it.
        decoding: how it is decoded.
        needed: returns, for the picture's height and width, those to which it is going to be shrunk; None: not at all.

    Raises:
        UnreadableImage: the file is missing, does not decode, or has too many pixels.
        InterpretError: the storage fails.
    """

    def read(file: BinaryIO) -> Decoded:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise OSError(f"its {size / 1e9:,.1f} GB are more than the {LARGEST_FILE / 1e9:.1f} GB that are read")
        # at once, so that a decoder does not take an error of the storage for damage
        return decode(BytesIO(file.read()), decoding, needed)

    return _read(root, name, read)


def read_size(root: str | os.PathLike[str], name: str) -> tuple[int, int]:
    """Read the height and width of an image file's upright picture from its header.

    Raises:
        UnreadableImage: the file is missing or not an image.
        InterpretError: the storage fails.
    """
    return _read(root, name, size_of)


def _read(root: str | os.PathLike[str], name: str, read: Callable[[BinaryIO], Result]) -> Result:
    path = Path(root, name)

    def opened() -> Result:
        with path.open("rb") as file:
            return read(file)

    return read_patiently(readable(name), opened, path)


def decode(file: BinaryIO, decoding: Decoding, needed: Callable[[int, int], tuple[int, int]] | None = None) -> Decoded:
    """Decode an image file, as `read_decoded` says; it may raise any exception."""
    # Pillow warns of harmless oddities in a file's metadata
    with warnings.catch_warnings(action="ignore"), open_picture(file, None) as picture:
        height, width = size = upright_size(picture)
        scale = _scale(picture, size, decoding, None if needed is None else needed(height, width))
        pixels = math.ceil(height / scale) * math.ceil(width / scale)
        if pixels > decoding.most_pixels:
            raise _too_large(height * width, decoding.most_pixels)
        orientation = _orientation(picture)
        if scale > 1:
            stored = picture.size
            picture.draft(picture.mode, (stored[0] // scale, stored[1] // scale))
        found = upright(picture)
        # where the picture is turned, the part of a pixel at its end may come first
        left = found.width - width / scale if orientation in (2, 3, 6, 7) else 0.0
        top = found.height - height / scale if orientation in (3, 4, 7, 8) else 0.0
        return Decoded(found, size, (left, top, left + width / scale, top + height / scale))


def _scale(picture: Image.Image, size: tuple[int, int], decoding: Decoding, needed: tuple[int, int] | None) -> int:
    """Return by how much a picture is reduced when it is decoded: 1, 2, 4 or 8."""
    scale = 1
    if picture.format not in ("JPEG", "MPO"):
        return scale
    # of a progressive JPEG, all coefficients are held in memory
    while scale < 8 and size[0] * size[1] > decoding.most_pixels * scale**2 and not picture.info.get("progressive"):
        scale *= 2
    if decoding.reduced and needed is not None:
        while scale < 8 and all(
            have >= REDUCED_AT_LEAST * 2 * scale * want for have, want in zip(size, needed, strict=True)
        ):
            scale *= 2
    return scale


def size_of(file: BinaryIO) -> tuple[int, int]:
    """Return the height and width of an image file's upright picture from its header; it may raise any exception."""
    with warnings.catch_warnings(action="ignore"), open_picture(file, None) as picture:
        return upright_size(picture)


def open_picture(file: BinaryIO, most_pixels: int | None = MOST_PIXELS) -> Image.Image:
    """Open an image file of one of the formats that are read, and refuse one of more pixels.

    Raises:
        OSError: it is no image of a known format, or has too many pixels.
    """
    # Pillow's own limit warns of less and refuses what the user allows
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        picture = Image.open(file, formats=picture_formats())
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if most_pixels is not None and picture.width * picture.height > most_pixels:
        raise _too_large(picture.width * picture.height, most_pixels)
    return picture


def _too_large(pixels: int, most_pixels: int) -> OSError:
    return OSError(f"its {pixels / 1e6:,.1f} megapixels are more than the {most_pixels / 1e6:,.1f} that are decoded")


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the height and width of a picture after it is turned upright.

    >>> upright_size(Image.new("L", (3, 2)))
    (2, 3)
    """
    width, height = picture.size
    if _orientation(picture) in (5, 6, 7, 8):
        with suppress(Exception):  # damaged EXIF: as in `upright`
            if isinstance(picture, TiffImageFile):  # its `size` may be that of the turned picture already
                width, height = (picture.tag_v2[tag] for tag in (IMAGEWIDTH, IMAGELENGTH))
            return width, height
    return height, width


def _orientation(picture: Image.Image) -> int:
    with suppress(Exception):  # damaged EXIF: as in `upright`
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return 1
