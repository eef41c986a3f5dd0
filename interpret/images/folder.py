"""A folder of image files: list them, find their labels by subfolder, and read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from interpret.images.imagenet import class_names, wnids
from interpret.network.preprocess import upright
from interpret.support.errors import InterpretError
from interpret.support.progress import progress

Result = TypeVar("Result")


class UnreadableImage(InterpretError):  # noqa: N818 - the name that the interfaces agreed on
    """An image that does not decode: `name` is the file, `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"image {self.name!r} cannot be read: {self.reason}"


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


def list_images(root: str | os.PathLike[str]) -> tuple[list[str], NDArray[np.int64]]:
    """List the image files under a folder, sorted by path, with their sizes in bytes; opens no file.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> Image.new("L", (1, 1)).save(root / "b.bmp")
    >>> Image.new("L", (1, 1)).save(root / "a.bmp")
    >>> list_images(root)[0]
    ['a.bmp', 'b.bmp']

    Paths are relative to `root` and use `/`. Files and folders whose names start with a dot are left out. A folder that
    links reach a second time is listed once.
    """
    found: list[tuple[str, int]] = []
    seen: set[tuple[int, int]] = set()
    folders = [""]
    with progress(0, "finding images", "file") as bar:
        while folders:
            prefix = folders.pop()
            status = Path(root, prefix).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(Path(root, prefix)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(f"{prefix}{entry.name}/")
                elif entry.name.lower().endswith(extensions()) and entry.is_file():
                    found.append((prefix + entry.name, entry.stat().st_size))
                    bar.update()
    found.sort()
    return [name for name, _ in found], np.array([size for _, size in found], np.int64)


def labels_of(
    names: Sequence[str], classes: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Label files by their first-level subfolder; return the labels and the classes that they index.

    >>> labels_of(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"])
    (array([0, 0, 1]), ('cat', 'dog'))
    >>> labels_of(["cat/1.jpg", "dog/1.jpg"], classes=("bird", "dog", "cat"))
    (array([2, 1]), ('bird', 'dog', 'cat'))
    >>> labels_of(["n02123045/1.jpg", "n01440764/1.jpg"], classes=class_names())[0]
    array([281,   0])
    >>> labels_of(["1.jpg", "cat/1.jpg"])
    (array([-1, -1]), None)

    Args:
        names: relative paths, with `/`.
        classes: the network's classes. Labels index them if every subfolder has the name or WordNet id of one of them;
            upper and lower case, and underscores and spaces, are the same. Otherwise labels index the subfolders.

    Returns:
        Labels, int64, and their classes. If a file is in no subfolder or there is only one subfolder: −1 and None.
    """
    folders = [name.partition("/")[0] for name in names if "/" in name]
    known = sorted(set(folders))
    if len(folders) < len(names) or len(known) < 2:
        return np.full(len(names), -1, np.int64), None
    spelled = wnids() if classes == class_names() and known[0] in wnids() else classes or ()
    # reversed, so that the first of two classes with the same name counts
    index = {_plain(name): i for i, name in reversed(list(enumerate(spelled)))}
    if not all(_plain(folder) in index for folder in known):
        return np.searchsorted(known, folders).astype(np.int64), tuple(known)
    return np.array([index[_plain(folder)] for folder in folders], np.int64), classes


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")


def read_picture(root: str | os.PathLike[str], name: str) -> Image.Image:
    """Read an image file of any mode as an upright RGB picture.

    Raises:
        UnreadableImage: the file is missing or does not decode.
    """
    return _open(root, name, upright)


def read_size(root: str | os.PathLike[str], name: str) -> tuple[int, int]:
    """Read the height and width of an image file's upright picture from its header.

    Raises:
        UnreadableImage: the file is missing or not an image.
    """
    return _open(root, name, upright_size)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the height and width of a picture after it is turned upright.

    >>> upright_size(Image.new("L", (3, 2)))
    (2, 3)
    """
    width, height = picture.size
    with suppress(Exception):  # damaged EXIF: as in `upright`
        if picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            if isinstance(picture, TiffImageFile):  # its `size` may be that of the turned picture already
                width, height = (picture.tag_v2[tag] for tag in (IMAGEWIDTH, IMAGELENGTH))
            return width, height
    return height, width


def _open(root: str | os.PathLike[str], name: str, read: Callable[[Image.Image], Result]) -> Result:
    try:
        with warnings.catch_warnings(), Path(root, name).open("rb") as file:
            # Pillow warns of harmless oddities in a file's metadata
            warnings.simplefilter("ignore")
            with Image.open(file, formats=picture_formats()) as picture:
                return read(picture)
    except Exception as error:  # damaged files can make a decoder raise any exception
        raise UnreadableImage(name, why_unreadable(error)) from None


def why_unreadable(error: Exception) -> str:
    """Return in a few words, without absolute paths, why an image could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
