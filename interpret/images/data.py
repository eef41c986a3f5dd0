"""Images to analyse: folders, named sets, tensors and data sets, all read in the same way."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from interpret.images.datasets import DATASETS, load_dataset
from interpret.images.display import inputs_to_bytes
from interpret.images.folder import (
    UnreadableImage,
    extensions,
    labels_of,
    list_images,
    read_picture,
    read_size,
    upright_size,
    why_unreadable,
)
from interpret.images.items import (
    Item,
    as_image,
    channels_last,
    classes_in,
    labels_in,
    no_image,
    pixels_last,
    read_item,
)
from interpret.images.loaders import iterable, loaded_by
from interpret.network.forward import is_several, weights_type
from interpret.network.model import Model, as_model
from interpret.network.pixel_scale import Normalisation, PixelScale, find_pixel_scale
from interpret.network.preprocess import Cut, Preprocess, upright
from interpret.network.torch_transforms import normalisation_of, random_steps
from interpret.support.errors import InterpretError, unknown, warn
from interpret.support.interrupts import deaf_to_interrupts, interrupts_held
from interpret.support.progress import progress

Crops = Literal["center", "tiles"]

NAMED = ("photographs", *DATASETS)
"""The sets that `open_images` knows by name."""
LOOKED_AT = 64
"""Items that the scale of a data set's pictures is found from."""
READ_AGAIN = 12
"""How often an item is read to see whether a random transform changes it."""
MOST_AT_ONCE = 256
"""How many images that are not in memory an analysis holds together, unless it is told which."""


class Images(ABC):
    """What every analysis reads: inputs for a network, each with its source picture and, where known, its label.

    >>> images = open_images(torch.zeros(4, 3, 8, 8), nn.Conv2d(3, 1, 1))
    >>> len(images), images[0][0].shape, images[0][1]
    (4, torch.Size([3, 8, 8]), -1)

    An item is one input. Several items may be parts of one source, a photograph say, so that an analysis can ask
    for different sources and not for different parts of the same one.
    """

    preprocess: Preprocess | None = None
    """How a picture becomes an input, where somebody said."""
    dtype = torch.float32
    """Of the inputs that are made of pictures: that of the network's weights."""

    def __init__(
        self,
        name: str,
        sources: NDArray[np.int64],
        labels: NDArray[np.int64] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.sources = sources
        """int64 [N]: the source of each item."""
        self.labels = np.full(len(sources), -1, np.int64) if labels is None else labels
        """int64 [N]: indices into `classes`, −1 where there is none."""
        self.classes = classes
        """What the labels stand for."""
        self.channels: int | None = None
        """How many of an input's channels are the image, where the network takes more than that; None: all."""
        self.skipped: dict[str, str] = {}
        """Source name to reason, for those that turned out not to decode."""
        self.opened_from: dict[str, Any] | None = None
        """What `open_images` takes to open them again: "data", "crops" and "scales"; None for what lies in memory."""
        self.notes: list[str] = []
        """What of the data is not used, a sentence each."""

    def __len__(self) -> int:
        return len(self.sources)

    def count_readable(self) -> tuple[int, int]:
        """Return how many items and how many sources there are, but for those that turned out not to decode."""
        sources, items_of = np.unique(self.sources, return_counts=True)
        if self.skipped:
            kept = np.array([self.source_name(source) not in self.skipped for source in sources.tolist()])
            sources, items_of = sources[kept], items_of[kept]
        return int(items_of.sum()), len(sources)

    @abstractmethod
    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        """Return an input, [C, H, W], and its label or −1.

        Raises:
            UnreadableImage: an item that does not decode.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over what decides the items: the same for the same data, whatever machine."""

    def window(self, item: int) -> tuple[float, float, float, float]:
        """Return where an input lies in its source picture: (top, left, bottom, right).

        In fractions of the picture's height and width; below 0 or above 1 where the input was padded.
        """
        return (0.0, 0.0, 1.0, 1.0)

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Return an input together with what lies around it in its source, on the same scale.

        Args:
            box: (top, left, bottom, right) of what is wanted, in pixels from the input's top left corner; at least
                the input itself.

        Returns:
            [C, h, w], as much of the box as the source has, and the row and the column of its top left pixel, which
            are not above 0. What is cut out of it is bit for bit what an item there would be. A source that is known
            as an input only has nothing around it.

        Raises:
            UnreadableImage: an item that does not decode.
        """
        return self[item][0], (0, 0)

    def central(self) -> Images:
        """Return the same sources as one input each: of pictures that are cut into tiles, the central part of each."""
        return self

    @cached_property
    def pixel_scale(self) -> PixelScale:
        """How its inputs are shown as pictures: as the preprocessing says, or on one scale for all of them.

        >>> images = open_images(torch.linspace(0, 1, 64).reshape(4, 1, 4, 4), nn.Conv2d(1, 1, 3))
        >>> images.pixel_scale.said
        'Inputs are shown from 0 (black) to 1 (white).'
        """
        sample = sample_by_hash(len(self), LOOKED_AT).tolist()
        if self.preprocess is not None:
            first = next(self._readable(sample), None)
            if first is None or len(first) == len(self.preprocess.channels):
                return self.preprocess.pixel_scale
        return find_pixel_scale(list(self._readable(sample)), self._normalisation())

    def _readable(self, items: Iterable[int]) -> Iterator[Tensor]:
        """Yield those inputs that decode."""
        for item in items:
            with suppress(UnreadableImage):
                yield self[item][0][: self.channels]

    def _normalisation(self) -> Normalisation | None:
        """Return what the inputs are normalised by, if the data tells that."""
        return None

    def doubt(self, item: int) -> str:
        """Say what is wrong with an item that is another image each time it is read; "" of all others."""
        with _own_randomness():
            same = torch.equal(self[item][0], self[item][0])
        return "" if same else f"item {item} of data {self.name!r} is another image each time that it is read"

    @abstractmethod
    def source_name(self, source: int) -> str:
        """Return what a source is called, in a folder its path relative to that folder."""

    @abstractmethod
    def source_picture(self, source: int) -> Image.Image:
        """Return the whole source picture, RGB and upright.

        Raises:
            UnreadableImage: a source that does not decode.
        """


class PictureImages(Images):
    """Items that are cut from pictures: the central part of each, or tiles at several scales."""

    def __init__(
        self,
        name: str,
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
    ) -> None:
        """Take one label a picture; without `scales`, the central part of each."""
        self.preprocess: Preprocess = preprocess
        self.cuts: NDArray[np.int32] | None = None
        """int32 [N, 4], a `Cut` each; None: the central one."""
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
        """Return how many tiles each picture has, and all of them."""
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
        # to where the picture ends, or the input, which sticks out where it was padded
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
        whole.__dict__.pop("fingerprint", None)  # which is that of the tiles
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
        # neighbouring items share their source: it is decoded once, and fails once
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
        """Hash what decides the items' values beside the pictures themselves."""
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
        """Take the files' paths under `root` and their sizes in bytes, as `list_images` returns them."""
        self.root = root
        self.names = names
        self.sizes = sizes
        super().__init__(name, labels, classes, preprocess, scales)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths relative to the folder, sizes in bytes, the preprocessing and the tiles.

        Contents are not read: a file that changes and keeps its size goes unnoticed.
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
    """Images in memory: uint8 pixels [N, H, W] or [N, H, W, C], or a list of pictures and of such pixels."""

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
        return _hash([*pixels, self.labels], self._cutting())

    def source_name(self, source: int) -> str:
        file = getattr(self.pictures[source], "filename", "")  # of a picture that was opened from one
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


class TensorImages(Images):
    """Inputs in memory, exactly as the network takes them: a tensor [N, C, H, W]."""

    def __init__(self, tensor: Tensor, model: Model, name: str = "tensor") -> None:
        super().__init__(name, np.arange(len(tensor)))
        self.tensor = tensor
        self.preprocess = model.preprocess

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.tensor[range(len(self))[item]], -1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over type, shape and values."""
        return _hash([self.tensor])

    def source_name(self, source: int) -> str:
        return f"image {source}"

    def source_picture(self, source: int) -> Image.Image:
        return _shown(self.tensor[source], self.pixel_scale)


class DatasetImages(Images):
    """A map-style data set, such as PyTorch's and Hugging Face's; `interpret.images.items` says what its items may be.

    Its images may be inputs [C, H, W], taken as they are, or pictures, which the model's preprocessing turns into
    inputs. The same index must always give the same image.
    """

    def __init__(self, dataset: Any, model: Model) -> None:
        count = len(dataset)
        labels = labels_in(dataset, count)
        classes = classes_in(dataset) or model.classes
        super().__init__(type(dataset).__name__, np.arange(count), labels, classes)
        self.dataset = dataset
        self.preprocess = model.preprocess
        self.model_name, self.remedy = model.name, model.preprocess_remedy
        if labels is not None and count:
            self._check_label(int(labels.argmax()), int(labels.max()))

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        item = range(len(self))[item]
        try:
            image, label, *_ = self._item(item)
            if isinstance(image, Tensor):
                return image, label
            if self.preprocess is not None:
                return self.preprocess(image).to(self.dtype), label
        except OSError as error:
            raise UnreadableImage(self.source_name(item), why_unreadable(error)) from None
        raise InterpretError(
            f"data set {self.name!r} holds pictures, and model {self.model_name!r} does not say how they "
            f"become its input: {self.remedy}"
        )

    def _item(self, item: int) -> Item:
        """Read an item."""
        value = self.dataset[item]
        found = read_item(value, self.classes or ())
        if found is None:
            raise no_image(item, self.name, value)
        if found.label < 0:  # it may be known all the same, to the data set
            return found._replace(label=int(self.labels[item]))
        self._check_label(item, found.label)
        return found

    def _check_label(self, item: int, label: int) -> None:
        if self.classes is not None and label >= len(self.classes):
            raise InterpretError(
                f"label {label} of item {item} of data set {self.name!r} is none of the {len(self.classes)} classes "
                f"({self.classes[0]} to {self.classes[-1]}): give the data set its own `classes`, counted from 0"
            )

    def look(self) -> None:
        """Note what its items hold beside image and label, and refuse images that differ each time they are read."""
        for item in range(min(len(self), 8)):
            try:
                found = self._item(item)
            except OSError:
                continue
            if found.left:
                label = f", the label {found.used[1]}" if len(found.used) > 1 else ", and there is no label"
                self.notes.append(
                    f"data set {self.name!r}: the image is {found.used[0]}{label}; left aside: {', '.join(found.left)}"
                )
            if doubt := self.doubt(item):
                raise InterpretError(f"{doubt}: give it without augmentation, as for validation")
            return

    def doubt(self, item: int) -> str:
        steps = random_steps(self.dataset)
        with _own_randomness(), suppress(OSError):
            first = _numbers(self._item(item).image)
            for _ in range(READ_AGAIN if steps else 1):
                again = _numbers(self._item(item).image)
                if first.shape != again.shape or not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
                    which = f" ({', '.join(steps)})" if steps else ""
                    return (
                        f"item {item} of data set {self.name!r} is another image each time that it is read, most "
                        f"likely by a random transform{which}"
                    )
        return ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the kind of data set, its length, and 64 of its items, spread evenly."""
        items = np.unique(np.linspace(0, len(self) - 1, 64).astype(int)).tolist()
        kind = f"{type(self.dataset).__qualname__} {len(self)}"
        return _hash(self._readable(items), kind.encode())

    def _normalisation(self) -> Normalisation | None:
        return normalisation_of(self.dataset)

    def source_name(self, source: int) -> str:
        return f"image {source}"

    def source_picture(self, source: int) -> Image.Image:
        try:
            image = self._item(source).image
            return _shown(image, self.pixel_scale) if isinstance(image, Tensor) else upright(image)
        except OSError as error:
            raise UnreadableImage(self.source_name(source), why_unreadable(error)) from None


def _numbers(image: Tensor | Image.Image) -> NDArray[Any]:
    return np.asarray(image if isinstance(image, Image.Image) else image.double().cpu())


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave all random numbers as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - which a data set may use
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def sample_by_hash(count: int, size: int, seed: int = 0) -> NDArray[np.int64]:
    """Return `size` of the items 0 … count − 1, those with the lowest hash, in the order of their hashes.

    >>> sample_by_hash(5, 3, seed=0)
    array([2, 4, 1])

    The hash is splitmix64 (Steele et al. 2014) of the item and the seed, so that a larger sample extends a smaller.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.argsort(z, kind="stable")[:size].astype(np.int64)


def _hash(values: Iterable[Tensor | NDArray[Any]], seed: bytes = b"") -> str:
    digest = hashlib.sha256(seed)
    for value in values:
        digest.update(f"{value.dtype} {tuple(value.shape)};".encode())
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _shown(image: Tensor, scale: PixelScale) -> Image.Image:
    return Image.fromarray(inputs_to_bytes(image[None], scale)[0])


def open_images(
    data: object,
    model: Model | nn.Module,
    *,
    crops: Crops | None = None,
    scales: Sequence[int] = (256, 384, 512),
) -> Images:
    """Open images as inputs of a model.

    >>> model = Model(nn.Conv2d(1, 4, 5), name="edges", preprocess=Preprocess((28, 28), channels="L"))
    >>> digits = open_images("digits", model)
    >>> len(digits), digits[0][0].shape, digits.classes[digits[0][1]]
    (5000, torch.Size([1, 28, 28]), '0')

    Args:
        data: one of

            - a folder of image files, searched recursively, an image file, or a list of such files;
            - a set by name: `"photographs"` (the 230 that come with the demo packages), `"digits"`, `"fashion-mnist"`
              or `"emoji"` (see `interpret.images.datasets`); a folder of such a name is written `./digits`;
            - inputs as the network takes them: a floating-point tensor or array [N, C, H, W] or [C, H, W];
            - pictures: Pillow's, one or a list; uint8 pixels, [N, H, W], [N, H, W, C] or [N, C, H, W], or one of these;
            - a map-style data set, PyTorch's or Hugging Face's, or any list, whose items are images, tuples or dicts
              (see `interpret.images.items.read_item`); a `DataLoader` stands for its data set;
            - `Images`, returned as they are.
        model: whose preprocessing the pictures pass through, and whose classes the labels index where a folder's
            subfolders carry their names or, for ImageNet's, their WordNet ids. Otherwise subfolders are classes
            in alphabetical order, if there are at least two and every image lies in one.
        crops: "center": the standard input of each picture, as the preprocessing says; "tiles": windows of the
            input's size all over the picture, at several scales, about ¾ of the input apart and evenly spread
            from edge to edge. None: tiles for `"photographs"`, otherwise center.
        scales: lengths of the picture's short side for "tiles", in pixels.

    Raises:
        InterpretError: no such data, nothing in it, images that do not fit the model, or that are other ones each time
            they are read.

    Warns:
        LeftAside: what of the data is not used; it also stands in `Images.notes`.
    """
    model = as_model(model)
    if crops not in (None, "center", "tiles"):
        raise unknown("crops", crops, ("center", "tiles"))
    if not scales or min(scales) < 1:
        raise InterpretError(f"scales must be short sides of at least 1 pixel, not {list(scales)}")
    if is_several(data):
        raise InterpretError(
            "several inputs are taken by mine, project, trace and layer_outputs alone: elsewhere, load the network "
            "with call=lambda network, images: …, which adds the others"
        )
    if isinstance(data, Images):
        images = data
    else:
        with _own_randomness():
            images = _open(data, model, crops, tuple(scales))
            images.dtype = weights_type(model.module)
        for note in images.notes:
            warn(note, LeftAside)
    if len(images) == 0:
        raise _none_left(images)
    if not isinstance(images, PictureImages):
        with _own_randomness():
            _check_first(images, model)
    if isinstance(data, str | os.PathLike):
        named = isinstance(data, str) and data in NAMED
        tiled = isinstance(images, PictureImages) and images.cuts is not None
        images.opened_from = {
            "data": data if named else str(Path(data).expanduser().resolve()),
            "crops": "tiles" if tiled else "center",
            "scales": list(scales) if tiled else [],
        }
    return images


class LeftAside(UserWarning):
    """Data holds something that is not used, such as a mask beside each image."""


def _open(data: object, model: Model, crops: Crops | None, scales: tuple[int, ...]) -> Images:
    tiled = scales if crops == "tiles" else None
    if isinstance(data, str) and data in DATASETS:
        dataset = load_dataset(data)
        return ArrayImages(data, dataset.images, dataset.labels, dataset.classes, _preprocess(model), tiled)
    if isinstance(data, str) and data == "photographs":
        return _photographs(model, scales if crops is None else tiled)
    if isinstance(data, str | os.PathLike):
        path = Path(data).expanduser()
        is_image = path.is_file() and path.name.lower().endswith(extensions())
        return _files([path], path.name, model, tiled) if is_image else _folder(data, model, tiled)
    if isinstance(data, list | tuple) and data and all(isinstance(one, str | os.PathLike) for one in data):
        return _files([Path(one).expanduser() for one in data], "files", model, tiled)
    pictures = _pictures(data)
    if pictures is not None:
        unlabelled = np.full(len(pictures), -1, np.int64)
        name = "array" if isinstance(pictures, np.ndarray) else "pictures"
        return ArrayImages(name, pictures, unlabelled, None, _preprocess(model), tiled)
    if crops == "tiles":
        raise InterpretError(f"crops='tiles' cuts up pictures: it does not apply to a {type(data).__name__}")
    if isinstance(data, Tensor | np.ndarray):
        return TensorImages(_inputs(data, model), model, "tensor" if isinstance(data, Tensor) else "array")
    return _dataset(data, model)


def _pictures(data: object) -> NDArray[np.uint8] | list[Image.Image] | None:
    """Return pictures in memory as a list of them or as pixels [N, H, W] or [N, H, W, C]; None for anything else."""
    if isinstance(data, Image.Image):
        return [data]
    if isinstance(data, list | tuple) and all(isinstance(one, Image.Image | Tensor | np.ndarray) for one in data):
        pictures: list[Image.Image] = []
        for one in data:
            picture = None if isinstance(one, Tensor) and one.is_floating_point() else as_image(one)
            if not isinstance(picture, Image.Image):
                return None
            pictures.append(picture)
        return pictures or None
    if not isinstance(data, Tensor | np.ndarray):
        return None
    tensor = isinstance(data, Tensor)
    if data.dtype not in (torch.uint8, np.uint8):
        return None
    pixels: NDArray[np.uint8] = data.detach().cpu().numpy() if isinstance(data, Tensor) else data
    if pixels.ndim == 2 or (pixels.ndim == 3 and (channels_last(pixels.shape) or (tensor and len(pixels) in (1, 3)))):
        pixels = pixels[None]
    together = pixels_last(pixels, channels_first=tensor) if pixels.ndim == 4 else pixels
    if pixels.ndim not in (3, 4) or together is None:
        raise InterpretError(f"uint8 pixels must be [N, H, W], [N, H, W, C] or [N, C, H, W], not {list(pixels.shape)}")
    return together


def _inputs(data: Tensor | NDArray[Any], model: Model) -> Tensor:
    """Return a tensor or array of inputs as a tensor [N, C, H, W]."""
    if isinstance(data, Tensor):
        tensor = data.as_subclass(Tensor)
    else:
        if data.dtype.kind == "f" and data.ndim in (3, 4) and channels_last(data.shape):
            raise InterpretError(
                f"an array of floats must be inputs as the network takes them, [N, C, H, W], not {list(data.shape)}: "
                "transpose it, or pass pictures as uint8"
            )
        dtype = weights_type(model.module)
        tensor = torch.from_numpy(np.ascontiguousarray(data)).to(dtype) if data.dtype.kind == "f" else data  # type: ignore[assignment]
    if tensor.ndim not in (3, 4) or not str(tensor.dtype).removeprefix("torch.").startswith(("float", "bfloat")):
        raise InterpretError(
            f"inputs must be floating point, [N, C, H, W] or [C, H, W], and pictures uint8, not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return tensor if tensor.ndim == 4 else tensor[None]


def _dataset(data: Any, model: Model) -> Images:
    notes: list[str] = []
    if isinstance(data, DataLoader):
        data, notes = loaded_by(data)
    if isinstance(data, list) and len(data) == 2 and all(isinstance(one, Tensor) for one in data):
        inputs, labels = data
        if inputs.ndim == 4 and labels.shape[:1] == inputs.shape[:1] and labels.ndim < 4:  # a batch of a loader
            data = TensorDataset(inputs, labels)
    if isinstance(data, Mapping):
        raise InterpretError(f"data is a {type(data).__name__} of several: choose one of {', '.join(map(repr, data))}")
    if isinstance(data, IterableDataset) or (isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        raise iterable(type(data).__name__)
    if not (isinstance(data, Sized) and hasattr(data, "__getitem__")):
        raise InterpretError(
            f"data must be a folder or files, one of {', '.join(NAMED)}, a tensor, pictures, or a map-style data set, "
            f"not a {type(data).__name__}"
        )
    images = DatasetImages(data, model)
    images.notes += notes
    images.look()
    return images


def _check_first(images: Images, model: Model) -> None:
    """Refuse a first item that is no input, or has other channels than the preprocessing makes.

    What a network without a preprocessing takes, it says itself when it runs.
    """
    if len(images) == 0:
        return
    try:
        found = len(images[0][0][: images.channels])
    except UnreadableImage:
        return
    wanted = found if model.preprocess is None else len(model.preprocess.channels)
    if found != wanted:
        raise InterpretError(
            f"data {images.name!r} has images of {found} channel{'s' * (found != 1)}, and model {model.name!r} takes "
            f"{wanted}"
        )


def _preprocess(model: Model) -> Preprocess:
    if model.preprocess is None:
        raise InterpretError(
            f"model {model.name!r} does not say how a picture becomes its input: {model.preprocess_remedy}"
        )
    return model.preprocess


def _files(paths: Sequence[Path], name: str, model: Model, scales: tuple[int, ...] | None) -> FileImages:
    """Open files as the folder that holds them all would be, in their own order."""
    gone = next((path for path in paths if not path.is_file()), None)
    if gone is not None:
        raise InterpretError(f"data names the file {str(gone)!r}, which does not exist: leave it out")
    full = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in full]))
    names = [path.relative_to(root).as_posix() for path in full]
    sizes = np.array([path.stat().st_size for path in full], np.int64)
    labels, classes = labels_of(names, model.classes)
    return FileImages(name, root, names, sizes, labels, classes, _preprocess(model), scales)


def _photographs(model: Model, scales: tuple[int, ...] | None) -> FileImages:
    # found without importing it: the package imports TensorFlow
    package = find_spec("ai_benchmark")
    if package is None or not package.submodule_search_locations:
        raise InterpretError(
            "data 'photographs' needs the demo packages: install them with pip install 'interpret-cnn[demo]'"
        )
    root = Path(package.submodule_search_locations[0], "data")
    names, sizes = list_images(root)
    folders = ("classification/", "enhancement/", "segmentation/")
    chosen = [i for i, name in enumerate(names) if name.startswith(folders) and "_segmented" not in name]
    names, labels = [names[i] for i in chosen], np.full(len(chosen), -1, np.int64)
    return FileImages("photographs", root, names, sizes[chosen], labels, None, _preprocess(model), scales)


def _folder(path: str | os.PathLike[str], model: Model, scales: tuple[int, ...] | None) -> FileImages:
    root = Path(path).expanduser()
    if root.is_file():
        raise InterpretError(f"data {str(path)!r} is a file and no image: give an image, or a folder of images")
    if not root.is_dir():
        if len(root.parts) == 1 and not root.name.lower().endswith(extensions()):
            raise unknown("folder or data set", path, NAMED)
        raise InterpretError(f"data {str(path)!r} does not exist: give a folder of images")
    try:
        names, sizes = list_images(root)
    except OSError as error:
        raise InterpretError(f"data {str(path)!r} cannot be read: {error.strerror}") from None
    if not names:
        raise InterpretError(
            f"data {str(path)!r} holds no image files: give a folder with some of {' '.join(extensions())}"
        )
    labels, classes = labels_of(names, model.classes)
    return FileImages(root.resolve().name, root, names, sizes, labels, classes, _preprocess(model), scales)


def tiles(preprocess: Preprocess, height: int, width: int, scales: Iterable[int]) -> list[Cut]:
    """Return the windows of the input's size that cover a picture at each scale.

    Along each axis they are about ¾ of the input apart and evenly spread from edge to edge; where the picture is
    hardly longer than the input, one in the middle.

    >>> [cut.left for cut in tiles(Preprocess((227, 227)), 512, 768, [512]) if cut.top == 0]
    [0, 180, 361, 541]
    >>> tiles(Preprocess((227, 227)), 256, 256, [256])
    [Cut(height=256, width=256, top=14, left=14)]

    Args:
        height, width: of the picture.
        scales: lengths of its short side, larger where the input needs it.
    """
    sizes = dict.fromkeys(preprocess.resized(height, width, scale) for scale in scales)
    return [
        Cut(*size, top, left)
        for size in sizes
        for top in _starts(size[0], preprocess.size[0])
        for left in _starts(size[1], preprocess.size[1])
    ]


def _starts(length: int, window: int) -> list[int]:
    """Spread windows over a length."""
    slack = length - window
    gaps = min(round(slack / (0.75 * window)), slack)
    return [round(i * slack / gaps) for i in range(gaps + 1)] if gaps else [slack // 2]


class Batch(NamedTuple):
    """Some items, read: images [B, C, H, W], and for each its item and its label (int64 [B])."""

    images: Tensor
    items: Tensor
    labels: Tensor


def first_images(images: Images) -> Tensor:
    """Return the first image or two that decode, [B, C, H, W].

    >>> first_images(open_images(torch.zeros(5, 1, 4, 3), nn.Conv2d(1, 1, 3))).shape
    torch.Size([2, 1, 4, 3])
    """
    return next(batches(images, 2)).images


def batches(images: Images, batch_size: int = 32, workers: int = 0, start: int = 0) -> Iterator[Batch]:
    """Read items from `start` on, in order, in batches.

    >>> images = open_images(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3))
    >>> [batch.items.tolist() for batch in batches(images, batch_size=2)]
    [[0, 1], [2, 3], [4]]

    Items that do not decode are left out and recorded in `images.skipped`; a batch may be smaller for it. The
    order is the same whatever the number of workers, processes that read ahead; an interrupt ends them quietly.

    Raises:
        InterpretError: a batch size below 1, fewer than 0 workers, or no item at all that decodes.
    """
    if batch_size < 1:
        raise InterpretError(f"batch_size must be at least 1, not {batch_size}")
    if workers < 0:
        raise InterpretError(f"workers must be at least 0, not {workers}")
    items = range(start, len(images))
    loader: DataLoader[Any] = DataLoader(
        _Reader(images),
        batch_size,
        sampler=items,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),  # of its own: it draws a seed for the workers
    )
    with deaf_to_interrupts() if workers else nullcontext():
        arriving = iter(loader)
    read = 0
    try:
        while True:
            # so that none tears a batch that a worker is handing over
            with interrupts_held() if workers else nullcontext():
                batch, errors = next(arriving, (None, None))
            if errors is None:
                break
            for error in errors:
                if not isinstance(error, UnreadableImage):
                    raise error
                images.skipped[error.name] = error.reason
            if batch is not None:
                read += len(batch.items)
                images.labels[batch.items.numpy()] = batch.labels.numpy()  # a plain data set tells them only now
                yield batch
    finally:
        del arriving  # ends the workers, whoever still holds the traceback
    if items and start == 0 and not read:
        raise _none_left(images)


def of_one_shape(batches: Iterable[Batch], shape: Sequence[int]) -> Iterator[Batch]:
    """Yield batches, and refuse images of another shape (C, H, W).

    Raises:
        InterpretError: an image of another shape.
    """
    for batch in batches:
        refuse_other_shape(batch.images.shape[1:], shape)
        yield batch


def refuse_other_shape(found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise an error where an image has another shape than the others of its data."""
    if tuple(found) != tuple(expected):
        raise InterpretError(
            f"images of one data set must have one shape, not {list(expected)} and {list(found)}: resize them, or cut "
            "them to one size"
        )


def read_items(images: Images, items: Iterable[int]) -> Batch:
    """Read some items as one batch; those that do not decode are left out and recorded in `images.skipped`.

    >>> images = open_images(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3))
    >>> read_items(images, [0, 3]).items
    tensor([0, 3])

    Raises:
        InterpretError: no item that decodes, or items of different shapes.
    """
    reader = _Reader(images)
    batch, errors = _collate([reader[item] for item in items])
    for error in errors:
        if not isinstance(error, UnreadableImage):
            raise error
        images.skipped[error.name] = error.reason
    if batch is None:
        raise _none_left(images)
    return batch


def _none_left(images: Images) -> InterpretError:
    if not images.skipped:
        return InterpretError(f"data {images.name!r} holds no images: give at least one")
    file, reason = next(iter(images.skipped.items()))
    why = f"{file!r}, because {reason}"
    if len(images.skipped) == 1:
        return InterpretError(f"the only image of data {images.name!r} cannot be read: {why}")
    return InterpretError(
        f"none of the {len(images.skipped)} images of data {images.name!r} can be read: the first, {why}"
    )


class Inputs(NamedTuple):
    """Some images of data as one batch."""

    tensor: Tensor
    """[B, C, H, W] as the network takes them."""
    images: Images
    """The data."""
    items: Sequence[int]
    """[B] which of its items."""


def open_inputs(data: object, model: Model | nn.Module, items: Sequence[int] | None = None) -> Inputs:
    """Open images as `open_images` does, and read some of them as one batch.

    >>> open_inputs(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3), items=[3, 0]).tensor.shape
    torch.Size([2, 1, 4, 4])

    Args:
        data: what `open_images` takes; a tensor of inputs is taken as it is.
        items: which of the images, in this order; None: all, of which there may be 256 at most, unless they are in
            memory as inputs.

    Raises:
        InterpretError: as `open_images`; items that there are not; one that does not decode; too many.
    """
    images = open_images(data, model, crops="center")
    if type(images) is TensorImages and items is None:
        return Inputs(images.tensor, images, range(len(images)))
    if items is None and len(images) > MOST_AT_ONCE and not isinstance(images, TensorImages):
        raise InterpretError(
            f"data {images.name!r} has {len(images):,} images, and at most {MOST_AT_ONCE} are taken at once: choose "
            f"some of them, such as items=range({MOST_AT_ONCE})"
        )
    chosen = range(len(images)) if items is None else [int(item) for item in items]
    check_items("items", chosen, images)
    batch = read_items(images, chosen)
    if len(batch.items) < len(chosen):
        gone = next(item for item in chosen if item not in batch.items)
        name = images.source_name(int(images.sources[gone]))
        raise InterpretError(
            f"image {name!r} cannot be read ({images.skipped.get(name, 'it does not decode')}): leave it out, by items "
            f"without {gone}"
        )
    return Inputs(batch.images, images, chosen)


def check_items(what: str, items: Sequence[int], images: Images) -> None:
    """Refuse items that the data does not have, or none at all."""
    if not items:
        raise InterpretError(f"{what} is empty: name at least one image")
    odd = next((item for item in items if not 0 <= item < len(images)), None)
    if odd is not None:
        raise InterpretError(f"{what} must be from 0 to {len(images) - 1} in data {images.name!r}, not {odd}")


class _Reader(Dataset[Any]):
    """What a worker reads: an item or the reason why not, because an exception would cross processes mangled."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[int, Tensor, int] | InterpretError:
        try:
            return (item, *self.images[item])
        except InterpretError as error:
            return error.with_traceback(None)


def _collate(read: list[tuple[int, Tensor, int] | InterpretError]) -> tuple[Batch | None, list[InterpretError]]:
    errors = [entry for entry in read if isinstance(entry, InterpretError)]
    entries = [entry for entry in read if not isinstance(entry, InterpretError)]
    if not entries:
        return None, errors
    items, tensors, labels = zip(*entries, strict=True)
    for item, tensor in zip(items, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            mismatch = f"items {items[0]} and {item} are {list(tensors[0].shape)} and {list(tensor.shape)}"
            return None, [InterpretError(f"images of one data set must have one shape: {mismatch}")]
    return Batch(torch.stack(tensors), torch.tensor(items), torch.tensor(labels)), errors
