"""Images to analyse: folders, named sets, tensors and data sets, all read in the same way."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import nullcontext, suppress
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
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from interpret.datasets import DATASETS, load_dataset
from interpret.errors import InterpretError, unknown
from interpret.folder import (
    UnreadableImage,
    extensions,
    labels_of,
    list_images,
    read_picture,
    read_size,
    why_unreadable,
)
from interpret.forward import is_several
from interpret.interrupts import deaf_to_interrupts, interrupts_held
from interpret.model import Model, as_model
from interpret.preprocess import Cut, Preprocess, upright
from interpret.progress import progress

Crops = Literal["center", "tiles"]

NAMED = ("photographs", *DATASETS)
"""The sets that `open_images` knows by name."""


class Images(ABC):
    """What every analysis reads: inputs for a network, each with its source picture and, where known, its label.

    >>> images = open_images(torch.zeros(4, 3, 8, 8), nn.Conv2d(3, 1, 1))
    >>> len(images), images[0][0].shape, images[0][1]
    (4, torch.Size([3, 8, 8]), -1)

    An item is one input. Several items may be parts of one source, a photograph say, so that an analysis can ask
    for different sources and not for different parts of the same one.
    """

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

    def __len__(self) -> int:
        return len(self.sources)

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
        self.preprocess = preprocess
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
        return self.preprocess.encode(pixels), int(self.labels[item])

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
    """Images that are pixels in memory: uint8 [N, H, W] or [N, H, W, 3]."""

    def __init__(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
    ) -> None:
        self.pixels = pixels
        super().__init__(name, labels, classes, preprocess, scales)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels, the preprocessing and the tiles."""
        return _hash([self.pixels, self.labels], self._cutting())

    def source_name(self, source: int) -> str:
        return f"image {source}"

    def _read(self, source: int) -> Image.Image:
        return upright(Image.fromarray(self.pixels[source]))

    def _size(self, source: int) -> tuple[int, int]:
        height, width = self.pixels.shape[1:3]
        return height, width


class TensorImages(Images):
    """Inputs in memory, exactly as the network takes them: a tensor [N, C, H, W]."""

    def __init__(self, tensor: Tensor, model: Model) -> None:
        super().__init__("tensor", np.arange(len(tensor)))
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
        return _picture(self.tensor[source], self.preprocess)


class DatasetImages(Images):
    """A map-style data set of images or (image, label) pairs, as PyTorch's are.

    Its images may be tensors [C, H, W], taken as they are, or pictures (Pillow's, or uint8 arrays [H, W] and
    [H, W, 3]), which the model's preprocessing turns into inputs. The same index must always give the same image.
    """

    def __init__(self, dataset: Any, model: Model) -> None:
        count = len(dataset)
        classes = _attribute(dataset, "classes")
        if classes is not None:
            classes = tuple(name if isinstance(name, str) else ", ".join(name) for name in classes)
        super().__init__(type(dataset).__name__, np.arange(count), _targets(dataset, count), classes or model.classes)
        self.dataset = dataset
        self.preprocess = model.preprocess
        self.model_name = model.name

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        item = range(len(self))[item]
        try:
            image, label = self._pair(item)
            if isinstance(image, Tensor):
                return image, label
            if self.preprocess is not None:
                return self.preprocess(image), label
        except OSError as error:
            raise UnreadableImage(self.source_name(item), why_unreadable(error)) from None
        raise InterpretError(
            f"data set {self.name!r} holds pictures, and model {self.model_name!r} does not say how they "
            "become its input: load it with preprocess=Preprocess(...)"
        )

    def _pair(self, item: int) -> tuple[Tensor | Image.Image, int]:
        """Read an item as a tensor or a picture, and a label."""
        value = self.dataset[item]
        parts = tuple(value) if isinstance(value, tuple | list) else (value,)
        image, label = parts if len(parts) == 2 else (parts[0] if len(parts) == 1 else value, -1)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = Image.fromarray(image)
        if not isinstance(image, Image.Image) and not (isinstance(image, Tensor) and image.ndim == 3):
            found = f"{type(image).__name__} {list(getattr(image, 'shape', []))}".removesuffix(" []")
            raise InterpretError(
                f"item {item} of data set {self.name!r} must be (image, label) or an image, the image a tensor "
                f"[C, H, W], a Pillow image or a uint8 array [H, W, 3], not {found}"
            )
        try:
            return image, int(label)
        except (TypeError, ValueError):
            raise InterpretError(
                f"the label of item {item} of data set {self.name!r} must be an integer, not {label!r}"
            ) from None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the kind of data set, its length, and 64 of its items, spread evenly."""
        items = np.unique(np.linspace(0, len(self) - 1, 64).astype(int)).tolist()
        kind = f"{type(self.dataset).__qualname__} {len(self)}"
        return _hash(self._readable(items), kind.encode())

    def _readable(self, items: Iterable[int]) -> Iterator[Tensor]:
        for item in items:
            with suppress(UnreadableImage):
                yield self[item][0]

    def source_name(self, source: int) -> str:
        return f"image {source}"

    def source_picture(self, source: int) -> Image.Image:
        try:
            image = self._pair(source)[0]
            return _picture(image, self.preprocess) if isinstance(image, Tensor) else upright(image)
        except OSError as error:
            raise UnreadableImage(self.source_name(source), why_unreadable(error)) from None


def _attribute(dataset: Any, name: str) -> Any:
    """Return what a data set knows, or the one that it is a part of."""
    return _attribute(dataset.dataset, name) if isinstance(dataset, Subset) else getattr(dataset, name, None)


def _targets(dataset: Any, count: int) -> NDArray[np.int64] | None:
    """Return the labels of a data set that has them ready, without reading its images."""
    if isinstance(dataset, Subset):
        parent: Any = dataset.dataset
        whole = _targets(parent, len(parent))
        return None if whole is None else whole[np.asarray(dataset.indices, np.int64)]
    targets: Any = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        targets = dataset.tensors[1]
    if not isinstance(targets, Sequence | np.ndarray | Tensor):
        return None
    labels = np.asarray(targets)
    return labels.astype(np.int64) if labels.shape == (count,) and labels.dtype.kind in "iu" else None


def _hash(values: Iterable[Tensor | NDArray[Any]], seed: bytes = b"") -> str:
    digest = hashlib.sha256(seed)
    for value in values:
        digest.update(f"{value.dtype} {tuple(value.shape)};".encode())
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _picture(image: Tensor, preprocess: Preprocess | None) -> Image.Image:
    """Show an input: as the preprocessing says, or without one from its least to its greatest value."""
    if preprocess is not None:
        pixels = preprocess.display(image)
    else:
        low, high = image.min(), image.max()
        pixels = (image - low) / (high - low).clamp(min=torch.finfo(image.dtype).tiny)
        if len(pixels) != 3:
            pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


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
        data: a folder of image files, searched recursively; a set by name: `"photographs"` (the 230 that come
            with the demo packages), `"digits"`, `"fashion-mnist"` or `"emoji"` (see `interpret.datasets`); a tensor
            [N, C, H, W] of inputs; a uint8 array of pictures [N, H, W] or [N, H, W, 3]; a map-style data set of
            (image, label) or image; or `Images`, returned as they are. A folder that is called like a named set
            is written `./digits`.
        model: whose preprocessing the images pass through, and whose classes the labels index where a folder's
            subfolders carry their names or, for ImageNet's, their WordNet ids. Otherwise subfolders are classes
            in alphabetical order, if there are at least two and every image lies in one.
        crops: "center": the standard input of each picture, as the preprocessing says; "tiles": windows of the
            input's size all over the picture, at several scales, about ¾ of the input apart and evenly spread
            from edge to edge. None: tiles for `"photographs"`, otherwise center.
        scales: lengths of the picture's short side for "tiles", in pixels.

    Raises:
        InterpretError: no such data, nothing in it, or images that do not fit the model.
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
    images = _open(data, model, crops, tuple(scales))
    if len(images) == 0:
        raise _none_left(images)
    if isinstance(data, str | os.PathLike):
        named = isinstance(data, str) and data in NAMED
        tiled = isinstance(images, PictureImages) and images.cuts is not None
        images.opened_from = {
            "data": data if named else str(Path(data).expanduser().resolve()),
            "crops": "tiles" if tiled else "center",
            "scales": list(scales) if tiled else [],
        }
    return images


def _open(data: object, model: Model, crops: Crops | None, scales: tuple[int, ...]) -> Images:
    tiled = scales if crops == "tiles" else None
    if isinstance(data, str) and data in DATASETS:
        dataset = load_dataset(data)
        return ArrayImages(data, dataset.images, dataset.labels, dataset.classes, _preprocess(model), tiled)
    if isinstance(data, str) and data == "photographs":
        return _photographs(model, scales if crops is None else tiled)
    if isinstance(data, str | os.PathLike):
        return _folder(data, model, tiled)
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or not (data.ndim == 3 or (data.ndim == 4 and data.shape[3] == 3)):
            raise InterpretError(
                f"an array of pictures must be uint8 [N, H, W] or [N, H, W, 3], not {data.dtype} "
                f"{list(data.shape)}: inputs that are ready for the network are passed as a tensor [N, C, H, W]"
            )
        return ArrayImages("array", data, np.full(len(data), -1, np.int64), None, _preprocess(model), tiled)
    images = _inputs(data, model, crops)
    _check_first(images, model)
    return images


def _inputs(data: object, model: Model, crops: Crops | None) -> Images:
    if isinstance(data, Images):
        return data
    if crops == "tiles":
        raise InterpretError(f"crops='tiles' cuts up pictures: it does not apply to a {type(data).__name__}")
    if isinstance(data, Tensor):
        if data.ndim != 4 or not data.is_floating_point():
            raise InterpretError(
                f"a tensor of inputs must be floating point [N, C, H, W], not {data.dtype} {list(data.shape)}"
            )
        return TensorImages(data, model)
    if isinstance(data, Sized) and hasattr(data, "__getitem__"):
        return DatasetImages(data, model)
    raise InterpretError(
        f"data must be a folder, one of {', '.join(NAMED)}, a tensor, an array or a map-style data set, "
        f"not a {type(data).__name__}"
    )


def _check_first(images: Images, model: Model) -> None:
    """Refuse a first item that is no input, or has other channels than the preprocessing makes.

    What a network without a preprocessing takes, it says itself when it runs.
    """
    if len(images) == 0:
        return
    try:
        found = len(images[0][0])
    except UnreadableImage:
        return
    wanted = found if model.preprocess is None else len(model.preprocess.channels)
    if found != wanted:
        raise InterpretError(
            f"data {images.name!r} has images of {found} channels, and model {model.name!r} takes {wanted}"
        )


def _preprocess(model: Model) -> Preprocess:
    _ = model.input_shape  # says what is missing where there is no preprocessing
    assert model.preprocess is not None
    return model.preprocess


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
        raise InterpretError(f"data {str(path)!r} is a file: give the folder that holds the images")
    if not root.is_dir():
        if len(root.parts) == 1:
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
    return InterpretError(
        f"none of the {len(images.skipped)} images of data {images.name!r} can be read: "
        f"the first, {file!r}, because {reason}"
    )


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
