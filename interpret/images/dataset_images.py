"""Images that are the items of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interpret.images.array_files import ArrayFiles
from interpret.images.fingerprints import hash_arrays
from interpret.images.items import Item, classes_in, labels_in, no_image, read_item
from interpret.images.shard_images import ShardSamples
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage, read_patiently
from interpret.images.streams import Stream
from interpret.images.tensor_images import picture_of
from interpret.network.layers import input_axes
from interpret.network.model import Model
from interpret.network.modes import unchanged_random_state
from interpret.network.pixel_scale import Normalisation
from interpret.network.preprocess import upright
from interpret.network.torch_transforms import normalisation_of, random_steps
from interpret.support.errors import InterpretError

REPEATED_READS = 12
"""Number of times that an item is read again to find out whether a random transform changes it."""


class DatasetImages(Images):
    """A map-style data set, such as PyTorch's and Hugging Face's; `read_item` lists the forms of items.

    Its images are inputs [C, H, W], used unchanged, or pictures, which the model's preprocessing turns into inputs. The
    same index must always give the same image.
    """

    def __init__(self, dataset: Any, model: Model, name: str = "") -> None:
        count = len(dataset)
        labels = labels_in(dataset, count)
        classes = classes_in(dataset) or model.classes
        super().__init__(name or type(dataset).__name__, np.arange(count), labels, classes)
        self.dataset = dataset
        self.preprocess = model.preprocess
        self.axes = input_axes(model.module)
        self.model_name, self.remedy = model.name, model.preprocess_remedy
        if labels is not None and count:
            self._check_label(int(labels.argmax()), int(labels.max()))

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        item = range(len(self))[item]
        image, label, *_ = self._item(item)
        if isinstance(image, Tensor):
            return image, label
        if self.preprocess is None:
            raise InterpretError(
                f"data set {self.name!r} holds pictures, and model {self.model_name!r} does not say how they "
                f"become its input: {self.remedy}"
            )
        return self.preprocess(image).to(self.dtype), label

    def _item(self, item: int) -> Item:
        """Read an item; a picture is upright, RGB and decoded."""
        name = self.source_name(item)
        # other errors of the data set's own code are mistakes in it
        found = read_patiently(name, lambda: self._read(item), damage=OSError)
        if isinstance(picture := found.image, Image.Image):
            found = found._replace(image=read_patiently(name, lambda: upright(picture)))
        if found.label < 0:  # the data set may store the label elsewhere
            return found._replace(label=int(self.labels[item]))
        self._check_label(item, found.label)
        return found

    def _read(self, item: int) -> Item:
        value = self.dataset[item]
        found = read_item(value, self.classes or (), self.axes)
        if found is None:
            raise no_image(item, self.name, value, self.axes)
        return found

    def _check_label(self, item: int, label: int) -> None:
        if self.classes is not None and label >= len(self.classes):
            raise InterpretError(
                f"label {label} of item {item} of data set {self.name!r} is none of the {len(self.classes)} classes "
                f"({self.classes[0]} to {self.classes[-1]}): give the data set its own `classes`, counted from 0"
            )

    def check(self) -> None:
        """Note which parts of items are not used, and refuse images that change each time they are read."""
        for item in range(min(len(self), 8)):
            try:
                found = self._item(item)
            except UnreadableImage:
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
        with unchanged_random_state(), suppress(UnreadableImage):
            first = _numbers(self._item(item).image)
            for _ in range(REPEATED_READS if steps else 1):
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
        """SHA-256 over the data set's class and length, and 64 evenly spaced items."""
        items = np.unique(np.linspace(0, len(self) - 1, 64).astype(int)).tolist()
        kind = f"{type(self.dataset).__qualname__} {len(self)}".encode()
        if isinstance(self.dataset, Stream):  # it noted some items when it was first iterated
            return hashlib.sha256(kind + b"".join(self.dataset.digests.values())).hexdigest()
        identity = self.dataset.identity if isinstance(self.dataset, ShardSamples) else b""
        return hash_arrays(self._readable(items), kind + identity)

    def _normalisation(self) -> Normalisation | None:
        return normalisation_of(self.dataset)

    def source_name(self, source: int) -> str:
        named = isinstance(self.dataset, ShardSamples | ArrayFiles)
        return self.dataset.source_name(source) if named else f"image {source}"

    def source_picture(self, source: int) -> Image.Image:
        image = self._item(source).image
        return picture_of(image, self.pixel_scale) if isinstance(image, Tensor) else image


def open_stream(data: Iterable[Any], model: Model) -> DatasetImages:
    """Open a data set that can only be iterated."""
    name = type(data).__name__
    axes = input_axes(model.module)
    images = DatasetImages(Stream(data, partial(_digest, axes=axes), name), model, name)
    images.most_workers = 1  # each worker would iterate over all of it
    return images


def _digest(value: Any, axes: int = 2) -> bytes:
    """Return bytes that tell an item's image from others."""
    try:
        found = read_item(value, axes=axes)
        numbers = np.empty(0) if found is None else _numbers(found.image)
    except OSError:  # a damaged image
        numbers = np.zeros(1)
    return bytes.fromhex(hash_arrays([numbers]))


def _numbers(image: Tensor | Image.Image) -> NDArray[Any]:
    return np.asarray(image if isinstance(image, Image.Image) else image.double().cpu())
