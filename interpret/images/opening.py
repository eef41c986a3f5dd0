"""Opening images: folders, named data sets, tensors, pictures and data sets, all as `Images`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from interpret.images.array_files import SUFFIX, ArrayFiles
from interpret.images.batches import none_left
from interpret.images.dataset_images import DatasetImages, open_stream
from interpret.images.datasets import DATASETS, load_dataset
from interpret.images.file_names import FileNames
from interpret.images.folder import MOST_PIXELS, Decoding, extensions
from interpret.images.items import as_image, channels_last, pixels_last
from interpret.images.joined_images import JoinedImages
from interpret.images.kept_listing import list_or_remember
from interpret.images.listing import describe_left_out, labels_of, list_images, unexpected
from interpret.images.loaders import loaded_by
from interpret.images.picture_images import ArrayImages, FileImages, PictureImages
from interpret.images.shard_images import ShardImages, ShardSamples
from interpret.images.shards import expand, is_shards
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.images.streams import iterable_once
from interpret.images.tensor_images import TensorImages
from interpret.network.forward import is_several, weights_type
from interpret.network.layers import input_axes
from interpret.network.model import Model, as_model
from interpret.network.modes import unchanged_random_state
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError, unknown, warn
from interpret.support.wording import AXES, readable

Crops = Literal["center", "tiles"]


NAMED = ("photographs", *DATASETS)
"""The sets that `open_images` knows by name."""


def open_images(
    data: object,
    model: Model | nn.Module,
    *,
    crops: Crops | None = None,
    scales: Sequence[int] = (256, 384, 512),
    max_pixels: int = MOST_PIXELS,
    reduced: bool = False,
) -> Images:
    """Open images as inputs of a model.

    >>> model = Model(nn.Conv2d(1, 4, 5), name="edges", preprocess=Preprocess((28, 28), channels="L"))
    >>> digits = open_images("digits", model)
    >>> len(digits), digits[0][0].shape, digits.classes[digits[0][1]]
    (5000, torch.Size([1, 28, 28]), '0')

    Args:
        data: one of

            - a folder of image files, searched recursively, an image file, or a list of image files or of folders,
              which are read one after the other;
            - a folder of NumPy's `.npy` files, one signal [C, T] or [T], volume or image a file, as the network takes
              them; subfolders are classes;
            - the name of a data set: `"photographs"` (230 photographs from the demo packages), `"digits"`,
              `"fashion-mnist"` or `"emoji"`; for a folder of that name, write `./digits`;
            - inputs as the network takes them: a floating-point tensor or array [N, C, H, W] or [C, H, W]; signals
              [N, C, T] or [C, T] and volumes [N, C, D, H, W] or [C, D, H, W] for a network whose first convolution is
              `Conv1d` or `Conv3d`;
            - pictures: one Pillow image or a list; uint8 pixels [N, H, W], [N, H, W, C] or [N, C, H, W], or those of
              one picture;
            - shards of WebDataset on a local disk: `"shards-{000..009}.tar"`, or a list of such names (needs
              webdataset). Labels are the numbers in members `cls` or `json`;
            - a map-style data set of PyTorch or Hugging Face, or any list, whose items are images, tuples or dicts;
              of a `DataLoader`, its data set is read;
            - a `webdataset.WebDataset`, whose steps are applied to one sample after the other;
            - an iterable data set, such as one that Hugging Face streams, that can be iterated several times in one
              order. It is iterated once to count its items, and again for each analysis;
            - `Images`, which are returned unchanged.
        model: the model whose preprocessing turns pictures into inputs. Labels index its classes if all subfolders of a
            folder are named after them or, for ImageNet, after their WordNet ids. Otherwise, subfolders are classes in
            alphabetical order, if there are at least two and every image is in one.
        crops: "center": one central crop per picture, as the preprocessing says; "tiles": windows of the input's size
            that cover the picture at several scales, about ¾ of the input apart and evenly spaced from edge to edge.
            None: "tiles" for `"photographs"`, otherwise "center".
        scales: lengths of the picture's short side for "tiles", in pixels.
        max_pixels: of files, the pixels up to which a picture is decoded, which takes about 10 bytes a pixel. A larger
            JPEG is decoded at a half, quarter or eighth of its scale; other larger pictures are skipped, as unreadable.
        reduced: of files, whether to decode JPEGs at a half, quarter or eighth of their scale where they are shrunk to
            less than half of that. Three times as fast for pictures of 12 megapixels, but pixels differ: by at most 32
            levels of 255, by at most 2 on average over a picture.

    Returns:
        `Images`: item i is the input [C, H, W] and its label.

    Raises:
        InterpretError: data that does not exist or is empty; images that do not fit the model; images that change each
            time they are read, as under random augmentation.

    Warns:
        LeftAside: a part of the data is not used; `Images.notes` says so, too.
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
        with unchanged_random_state():
            images = _open(data, model, crops, tuple(scales), Decoding(max_pixels, reduced))
            images.dtype = weights_type(model.module)
        for note in [] if isinstance(images, JoinedImages) else images.notes:  # each of joined data has said its own
            warn(note, LeftAside)
    if len(images) == 0:
        raise none_left(images)
    if not isinstance(images, PictureImages | JoinedImages):
        with unchanged_random_state():
            _check_first(images, model)
    if isinstance(data, list | tuple) and isinstance(images, JoinedImages):
        images.opened_from = {
            **(images.parts[0].opened_from or {}),
            "data": [(part.opened_from or {})["data"] for part in images.parts],
        }
    if isinstance(data, str | os.PathLike):
        named = isinstance(data, str) and data in NAMED
        tiled = isinstance(images, PictureImages) and images.cuts is not None
        images.opened_from = {
            "data": data if named else str(Path(data).expanduser().resolve()),
            "crops": "tiles" if tiled else "center",
            "scales": list(scales) if tiled else [],
        }
        images.opened_from |= {} if max_pixels == MOST_PIXELS else {"max_pixels": max_pixels}
        images.opened_from |= {"reduced": True} if reduced else {}
    return images


class LeftAside(UserWarning):
    """The data holds something that is not used, such as a mask for each image."""


def _open(data: object, model: Model, crops: Crops | None, scales: tuple[int, ...], decoding: Decoding) -> Images:
    tiled = scales if crops == "tiles" else None
    if isinstance(data, str) and data in DATASETS:
        dataset = load_dataset(data)
        if dataset.labels.ndim > 1:  # a class for each pixel, and none for the image
            unlabelled = np.full(len(dataset.images), -1, np.int64)
            return ArrayImages(data, dataset.images, unlabelled, None, _preprocess(model), tiled)
        return ArrayImages(data, dataset.images, dataset.labels, dataset.classes, _preprocess(model), tiled)
    if isinstance(data, str) and data == "photographs":
        return _photographs(model, scales if crops is None else tiled, decoding)
    if is_shards(data):
        data = [data]
    if isinstance(data, list | tuple) and data and all(map(is_shards, data)):
        name = readable(Path(data[0]).name) if len(data) == 1 else "shards"
        shards = [path for spec in data for path in expand(spec)]
        return ShardImages(name, shards, model.classes, _preprocess(model), tiled, decoding)
    if isinstance(data, str | os.PathLike):
        path = Path(data).expanduser()
        is_image = path.is_file() and path.name.lower().endswith(extensions())
        return _files([path], path.name, model, tiled, decoding) if is_image else _folder(data, model, tiled, decoding)
    if isinstance(data, list | tuple) and data and all(isinstance(one, str | os.PathLike) for one in data):
        if all(Path(one).expanduser().is_dir() for one in data):
            how: dict[str, Any] = {"max_pixels": decoding.most_pixels, "reduced": decoding.reduced}
            return JoinedImages([open_images(one, model, crops=crops, scales=scales, **how) for one in data])
        return _files([Path(one).expanduser() for one in data], "files", model, tiled, decoding)
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
    """Return pictures in memory as a list or as pixels [N, H, W] or [N, H, W, C]; None for other data."""
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
    axes = input_axes(model.module)
    if isinstance(data, Tensor):
        tensor = data.as_subclass(Tensor)
    else:
        if data.dtype.kind == "f" and axes == 2 and data.ndim in (3, 4) and channels_last(data.shape):
            raise InterpretError(
                f"an array of floats must be inputs as the network takes them, [N, C, H, W], not {list(data.shape)}: "
                "transpose it, or pass pictures as uint8"
            )
        dtype = weights_type(model.module)
        tensor = torch.from_numpy(np.ascontiguousarray(data)).to(dtype) if data.dtype.kind == "f" else data  # type: ignore[assignment]
    is_float = str(tensor.dtype).removeprefix("torch.").startswith(("float", "bfloat"))
    if tensor.ndim not in (axes + 1, axes + 2) or not is_float:
        one = f"C, {AXES[axes]}"
        raise InterpretError(
            f"inputs must be floating point, [N, {one}] or [{one}], and pictures uint8, not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return tensor if tensor.ndim == axes + 2 else tensor[None]


def _dataset(data: Any, model: Model) -> Images:
    notes: list[str] = []
    while _is_webdataset(data) and isinstance(data.pipeline[0], DataLoader):  # a WebLoader
        data = data.pipeline[0]
    if isinstance(data, DataLoader):
        data, notes = loaded_by(data)
    if _is_webdataset(data):
        name, data = type(data).__name__, ShardSamples(data)
        images = DatasetImages(data, model, name)
        images.notes += notes + data.notes
        images.check()
        return images
    if isinstance(data, list) and len(data) == 2 and all(isinstance(one, Tensor) for one in data):
        inputs, labels = data
        if (
            inputs.ndim == input_axes(model.module) + 2 > labels.ndim and labels.shape[:1] == inputs.shape[:1]
        ):  # a batch of a loader
            data = TensorDataset(inputs, labels)
    if isinstance(data, Mapping):
        raise InterpretError(f"data is a {type(data).__name__} of several: choose one of {', '.join(map(repr, data))}")
    if isinstance(data, IterableDataset) or (isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        if isinstance(data, Iterator):
            raise iterable_once(f"is a {type(data).__name__}, which")
        images = open_stream(data, model)
        images.notes += notes
        if len(images):
            images.check()
        return images
    if not (isinstance(data, Sized) and hasattr(data, "__getitem__")):
        raise InterpretError(
            f"data must be a folder or files, one of {', '.join(NAMED)}, a tensor, pictures, or a map-style data set, "
            f"not a {type(data).__name__}"
        )
    images = DatasetImages(data, model)
    images.notes += notes
    images.check()
    return images


def _is_webdataset(data: object) -> bool:
    return any(kind.__module__ == "webdataset.pipeline" for kind in type(data).__mro__) and hasattr(data, "pipeline")


def _check_first(images: Images, model: Model) -> None:
    """Refuse data whose first item is not an input or has another number of channels than the model takes.

    A network without preprocessing is not checked here: it raises its own error when it runs.
    """
    if len(images) == 0:
        return
    try:
        found = len(images[0][0][: images.channels])
    except UnreadableImage:
        return
    wanted = found if model.preprocess is None else model.preprocess.count
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


def _files(
    paths: Sequence[Path], name: str, model: Model, scales: tuple[int, ...] | None, decoding: Decoding
) -> FileImages:
    """Open files as their common parent folder would be opened, in the given order."""
    gone = next((path for path in paths if not path.is_file()), None)
    if gone is not None:
        raise InterpretError(f"data names the file {str(gone)!r}, which does not exist: leave it out")
    full = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in full]))
    names = [path.relative_to(root).as_posix() for path in full]
    labels, classes = labels_of([(name[: max(name.find("/"), 0)], 1) for name in names], model.classes)
    return FileImages(readable(name), root, FileNames(names), labels, classes, _preprocess(model), scales, decoding)


def _photographs(model: Model, scales: tuple[int, ...] | None, decoding: Decoding) -> FileImages:
    # do not import the package: it imports TensorFlow
    package = find_spec("ai_benchmark")
    if package is None or not package.submodule_search_locations:
        raise InterpretError(
            "data 'photographs' needs the demo packages: install them with pip install 'interpret-cnn[demo]'"
        )
    root = Path(package.submodule_search_locations[0], "data")
    folders = ("classification/", "enhancement/", "segmentation/")
    names = [name for name in list_images(root).names if name.startswith(folders) and "_segmented" not in name]
    unlabelled = np.full(len(names), -1, np.int64)
    return FileImages("photographs", root, FileNames(names), unlabelled, None, _preprocess(model), scales, decoding)


def _folder(path: str | os.PathLike[str], model: Model, scales: tuple[int, ...] | None, decoding: Decoding) -> Images:
    root = Path(path).expanduser()
    if root.is_file():
        raise InterpretError(f"data {str(path)!r} is a file and no image: give an image, or a folder of images")
    if not root.is_dir():
        if len(root.parts) == 1 and not root.name.lower().endswith(extensions()):
            raise unknown("folder or data set", path, NAMED)
        raise InterpretError(f"data {str(path)!r} does not exist: give a folder of images")
    try:
        listing = list_or_remember(root)
    except OSError as error:
        raise InterpretError(f"data {str(path)!r} cannot be read: {error.strerror}") from None
    if not listing.names and SUFFIX in listing.left_out:
        files = ArrayFiles(root, input_axes(model.module), weights_type(model.module), model.classes)
        arrays = DatasetImages(files, model, readable(root.resolve().name))
        arrays.check()
        return arrays
    if not listing.names:
        found = f" ({describe_left_out(listing.left_out)})" if listing.left_out else ""
        raise InterpretError(
            f"data {str(path)!r} holds no image files{found}: give a folder with some of {' '.join(extensions())}"
        )
    labels, classes = labels_of(listing.runs, model.classes)
    name = readable(root.resolve().name)
    images = FileImages(name, root, listing.names, labels, classes, _preprocess(model), scales, decoding)
    images.left_out = listing.left_out
    if doubtful := unexpected(listing.left_out):
        images.notes.append(f"of data {name!r}, {describe_left_out(doubtful)}")
    return images
