"""Items of data sets: find the image and the label in an item, and list what is not used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from interpret.images.folder import open_picture, read_picture
from interpret.support.errors import InterpretError
from interpret.support.wording import AXES

IMAGE_KEYS = "image pixel_values img images x input inputs picture photo jpg jpeg png webp data".split()
"""Names of an item's image, the likeliest first."""
LABEL_KEYS = "label labels target targets class class_id class_idx category fine_label y cls".split()
"""Names of an item's label, the likeliest first."""


class Item(NamedTuple):
    """The image and the label found in an item of a data set."""

    image: Tensor | Image.Image
    """An input [C, H, W], [C, T] or [C, D, H, W], or a picture."""
    label: int
    """−1 if there is none."""
    used: tuple[str, ...]
    """The names or indices of the image and the label in the item; empty if the item is itself an image."""
    left: tuple[str, ...]
    """The parts of the item that are not used."""


def read_item(value: Any, classes: Sequence[str] = (), axes: int = 2) -> Item | None:
    """Return the image and the label of an item in any common form; None if no part of it is an image.

    >>> read_item({"pixel_values": torch.zeros(3, 4, 4), "labels": 2, "boxes": [[0, 0, 1, 1]]})[1:]
    (2, ("'pixel_values'", "'labels'"), ("'boxes'",))
    >>> read_item((torch.zeros(3, 4, 4), 1, torch.zeros(4, 4)))[1:]
    (1, ('element 0', 'element 1'), ('element 2 (Tensor [4, 4])',))

    An item is an image, a tuple or list, a named tuple or a mapping. The image is the part with the likeliest name, or
    else the first part that can be one: an input, a picture, uint8 pixels in any order, a file or its bytes. The label
    is the part with a label's name, or else the first part after the image that is a whole number or the name of a
    class. Multi-label targets, such as a vector of zeros and ones, do not count as a label.

    Args:
        value: the item.
        classes: names of classes that labels may be given by.
        axes: the number of axes of inputs: 1 for signals [C, T], 2 for images, 3 for volumes [C, D, H, W].
    """
    alone = as_image(value, axes)
    if alone is not None:
        return Item(alone, -1, (), ())
    parts = _parts(value)
    for key in sorted(parts, key=lambda key: _rank(key, IMAGE_KEYS)):
        image = as_image(parts[key], axes)
        if image is not None:
            break
    else:
        return None
    order = list(parts)
    # first what follows the image: an item may begin with its own number
    others = order[order.index(key) + 1 :] + order[: order.index(key)]
    for name in sorted(others, key=lambda name: _rank(name, LABEL_KEYS)):
        label = as_label(parts[name], classes)
        if label is not None and (isinstance(name, int) or name in LABEL_KEYS):
            return Item(image, label, (_called(key), _called(name)), _left(parts, key, name))
    return Item(image, -1, (_called(key),), _left(parts, key))


def as_image(value: Any, axes: int = 2) -> Tensor | Image.Image | None:
    """Return a value as an input [C, H, W] or a picture; None if it is neither in any common form.

    >>> as_image(np.zeros((5, 4, 1), np.uint8)).size
    (4, 5)

    Raises:
        OSError: the image does not decode.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Tensor):
        value = value.detach().as_subclass(Tensor)
        if value.ndim == axes + 2 and len(value) == 1:  # a batch of one, as Hugging Face's image processors return
            value = value[0]
        if value.is_floating_point():
            return value if value.ndim == axes + 1 else None
        return _picture(value.cpu().numpy(), channels_first=True)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.ndim == axes + 1 and (axes != 2 or not channels_last(value.shape)):
            return torch.from_numpy(np.ascontiguousarray(value)).to(torch.get_default_dtype())
        return _picture(value)
    if isinstance(value, str | os.PathLike):
        return read_picture(Path(value).parent, Path(value).name) if _is_file(value) else None
    if isinstance(value, bytes | bytearray):
        return open_picture(BytesIO(value))
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:  # an image that Hugging Face has not decoded
        return as_image(value["bytes"] or value["path"], axes)
    return None


def channels_last(shape: Sequence[int]) -> bool:
    """Return whether a shape is more likely [..., H, W, C] than [..., C, H, W].

    >>> channels_last((8, 8, 3)), channels_last((3, 8, 8))
    (True, False)
    """
    return shape[-1] in (1, 3, 4) and shape[-3] not in (1, 3, 4)


def pixels_last(pixels: NDArray[np.uint8], channels_first: bool = False) -> NDArray[np.uint8] | None:
    """Return pixels in either channel order as [..., H, W] or [..., H, W, C]; None if they are not pictures.

    >>> pixels_last(np.zeros((2, 3, 8, 9), np.uint8)).shape, pixels_last(np.zeros((2, 8, 9, 1), np.uint8)).shape
    ((2, 8, 9, 3), (2, 8, 9))

    Args:
        channels_first: whether to read channels as first if both orders are possible, as in tensors.
    """
    first, last = pixels.shape[-3] in (1, 3, 4), pixels.shape[-1] in (1, 3, 4)
    if not (first or last):
        return None
    if first and (channels_first or not last):
        pixels = np.moveaxis(pixels, -3, -1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _picture(pixels: NDArray[Any], channels_first: bool = False) -> Image.Image | None:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        return None
    found = pixels if pixels.ndim == 2 else pixels_last(pixels, channels_first)
    return None if found is None else Image.fromarray(np.ascontiguousarray(found))


def _is_file(path: str | os.PathLike[str]) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a text that is not a path
        return False


def as_label(value: Any, classes: Sequence[str] = ()) -> int | None:
    """Return a value as a single label; None if it is not one.

    >>> as_label(torch.tensor([3.0])), as_label("dog", ("cat", "dog")), as_label([0, 1, 1]), as_label(0.5)
    (3, 1, None, None)
    """
    if isinstance(value, bytes):  # an undecoded member `cls` of a shard
        return int(value) if value.isdigit() else None
    if isinstance(value, str):
        return classes.index(value) if value in classes else None
    if isinstance(value, Mapping):
        named = {key: value[key] for key in LABEL_KEYS if key in value}
        return next((label for one in named.values() if (label := as_label(one, classes)) is not None), None)
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if value.numel() == 1 else None
    if isinstance(value, list | tuple):
        return as_label(value[0], classes) if len(value) == 1 else None
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else None
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return None
    return int(value) if value == value and value % 1 == 0 and value >= -1 else None


def _parts(value: Any) -> dict[str | int, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "_asdict"):  # a named tuple
        return dict(value._asdict())
    return dict(enumerate(value)) if isinstance(value, tuple | list) else {}


def _rank(key: str | int, keys: list[str]) -> int:
    return keys.index(key) if key in keys else len(keys)


def _called(key: str | int) -> str:
    return f"element {key}" if isinstance(key, int) else repr(key)


def _left(parts: Mapping[str | int, Any], *used: str | int) -> tuple[str, ...]:
    return tuple(
        _called(key) + (f" ({describe(value)})" if isinstance(key, int) else "")
        for key, value in parts.items()
        if key not in used and not (isinstance(key, str) and key.startswith("__"))  # as __key__ of WebDataset
    )


def describe(value: Any) -> str:
    """Describe the type and contents of a value in a few words, for messages.

    >>> describe(torch.zeros(4, 4)), describe({"a": 1}), describe((torch.zeros(2), 3))
    ('Tensor [4, 4]', "dict with 'a'", 'tuple of Tensor [2], int')
    """
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(repr, list(value)[:8]))}"
    if isinstance(value, tuple | list):
        return f"{kind} of {', '.join(map(describe, value[:4]))}" if value else f"{kind} of nothing"
    dtype = getattr(value, "dtype", None)
    unusual = dtype is not None and dtype not in (torch.float32, np.uint8)
    shape = f" {list(value.shape)}" if hasattr(value, "shape") else ""
    return f"{kind}{f' {dtype}' if unusual else ''}{shape}"


def no_image(item: int, name: str, value: Any, axes: int = 2) -> InterpretError:
    """Return the error for an item that holds no input of a network whose inputs have so many axes."""
    pictures = ", a Pillow image, a file or uint8 pixels [H, W, 3]" if axes == 2 else ""
    kind = {1: "a signal", 2: "an image", 3: "a volume"}[axes]
    return InterpretError(
        f"item {item} of data set {name!r} must be {kind}, or a tuple or dict that holds one and perhaps a label: "
        f"a float tensor [C, {AXES[axes]}]{pictures}, not {describe(value)}"
    )


def classes_in(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of a data set's classes; None if neither it nor the data sets that it wraps define them.

    >>> from types import SimpleNamespace
    >>> classes_in(SimpleNamespace(classes=[0, 1])), classes_in(SimpleNamespace(class_to_idx={"dog": 1, "cat": 0}))
    (('0', '1'), ('cat', 'dog'))
    """
    if _is_hugging_face(dataset):
        named = getattr(dataset.features.get(_label_column(dataset)), "names", None)
        return None if named is None else tuple(map(str, named))
    for name in ("classes", "class_names"):
        known = getattr(dataset, name, None)
        if isinstance(known, Mapping) and set(known) == set(range(len(known))):
            known = [known[index] for index in range(len(known))]
        if isinstance(known, Mapping):
            return _by_index(known)
        if isinstance(known, Sequence | np.ndarray) and not isinstance(known, str) and len(known):
            return tuple(", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name) for name in known)
    if isinstance(getattr(dataset, "class_to_idx", None), Mapping):
        return _by_index(dataset.class_to_idx)
    within = {classes_in(part) for part in _parts_of(dataset)}
    return within.pop() if len(within) == 1 else None


def _by_index(indices: Mapping[Any, Any]) -> tuple[str, ...] | None:
    if sorted(indices.values()) != list(range(len(indices))):
        return None
    return tuple(str(name) for name, _ in sorted(indices.items(), key=lambda pair: pair[1]))


def _parts_of(dataset: Any) -> list[Any]:
    """Return the data sets that a data set wraps or concatenates."""
    if isinstance(dataset, ConcatDataset):
        return list(dataset.datasets)
    held = getattr(dataset, "__dict__", None)
    inner = held.get("dataset") if isinstance(held, dict) else None
    return [] if inner is None else [inner]


def _is_hugging_face(dataset: Any) -> bool:
    return isinstance(getattr(dataset, "features", None), Mapping) and hasattr(dataset, "with_format")


def _label_column(dataset: Any) -> str:
    """Return the column of a Hugging Face data set that holds its labels; "" if there is none."""
    return next((key for key in LABEL_KEYS if key in dataset.features), "")


def labels_in(dataset: Any, count: int) -> NDArray[np.int64] | None:
    """Return the labels that a data set stores, int64 [count], without reading its images; None if it stores none.

    >>> from torch.utils.data import Subset, TensorDataset
    >>> labels_in(Subset(TensorDataset(torch.zeros(3, 1, 2, 2), torch.tensor([4, 5, 6])), [2, 0]), 2)
    array([6, 4])
    """
    if isinstance(dataset, Subset):
        parent: Any = dataset.dataset
        whole = labels_in(parent, len(parent))
        return None if whole is None else whole[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [labels_in(part, len(part)) for part in dataset.datasets]  # type: ignore[arg-type]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    if getattr(dataset, "target_transform", None) is not None:
        return None
    targets: Any = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        targets = dataset.tensors[1]
    if _is_hugging_face(dataset):
        column = _label_column(dataset)
        targets = list(dataset.with_format(None)[column]) if column else None
    if not isinstance(targets, Sequence | np.ndarray | Tensor):
        return None
    with suppress(ValueError, TypeError):  # items with different numbers of labels
        labels = np.asarray(targets).reshape(count)
        if labels.dtype.kind in "iufb" and bool((labels % 1 == 0).all()) and bool((labels >= -1).all()):
            return labels.astype(np.int64)
    return None
