"""Reading image files: storage that fails, pictures that are too large, and JPEGs at a reduced scale."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from helpers.commands import command
from helpers.files import contents, noise
from helpers.packages import needs_photographs
from interpret.images import picture_images, storage
from interpret.images.batches import batches
from interpret.images.folder import Decoding, read_decoded, read_size
from interpret.images.opening import open_images
from interpret.images.storage import UnreadableImage
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study.study import Study
from interpret.support.errors import InterpretError

MODEL = Model(nn.Conv2d(3, 2, 3), name="tiny", preprocess=Preprocess((16, 16)))
FAILS = "/proc/self/mem"
"""A file that opens, and gives an I/O error when it is read from its start."""
needs_failing_file = pytest.mark.skipif(not Path(FAILS).exists(), reason="needs Linux's /proc")


def folder_of_three(root: Path) -> Path:
    root.mkdir()
    for number in range(3):
        noise(seed=number).save(root / f"{number}.png")
    return root


# ---- storage that fails ---------------------------------------------------------------------------------------------


@needs_failing_file
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_disk_stops_and_counts_no_file_as_unreadable(tmp_path, monkeypatch, workers) -> None:
    data = folder_of_three(tmp_path / "data")
    (data / "1.png").unlink()
    (data / "1.png").symlink_to(FAILS)
    monkeypatch.setattr(storage, "PAUSES", (0.01, 0.02))
    images = open_images(data, MODEL)
    with pytest.raises(
        InterpretError,
        match=r"image '1.png' cannot be read, as the storage in '.*data' fails \(Input/output err",
    ) as caught:
        list(batches(images, 1, workers=workers))
    assert not isinstance(caught.value, UnreadableImage) and images.skipped == {}


@needs_failing_file
def test_a_disk_that_comes_back_is_waited_for(tmp_path, monkeypatch) -> None:
    data = folder_of_three(tmp_path / "data")
    (data / "1.png").rename(tmp_path / "aside.png")
    (data / "1.png").symlink_to(FAILS)
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 3:
            (tmp_path / "aside.png").replace(data / "1.png")

    monkeypatch.setattr(storage.time, "sleep", pause)
    images = open_images(data, MODEL)
    read = torch.cat([batch.images for batch in batches(images, 1)])
    assert torch.equal(read, torch.stack([MODEL.preprocess(noise(seed=number)) for number in range(3)]))
    assert paused == [1, 2, 4] and images.skipped == {}


@pytest.mark.parametrize("kept", ["nothing", "the empty folder"])
def test_a_share_that_is_no_longer_mounted_stops(tmp_path, monkeypatch, kept) -> None:
    images = open_images(folder_of_three(tmp_path / "data"), MODEL)
    monkeypatch.setattr(storage, "PAUSES", (0.01,))
    reading = batches(images, 1)
    next(reading)
    shutil.rmtree(tmp_path / "data")
    if kept == "the empty folder":
        (tmp_path / "data").mkdir()
    with pytest.raises(InterpretError, match=r"'1.png' cannot be read, as the storage .* fails \(No such file"):
        list(reading)
    with pytest.raises(InterpretError, match=r"as the storage .* fails"):
        images.fingerprint  # noqa: B018
    assert images.skipped == {}


def test_an_error_of_the_disk_in_a_data_set_stops(monkeypatch) -> None:
    class OnShare(Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, item: int) -> torch.Tensor:
            if item == 1:
                raise OSError(116, os.strerror(116))
            if item == 2:
                raise OSError("truncated")
            return torch.zeros(3, 16, 16)

    monkeypatch.setattr(storage, "PAUSES", ())
    images = open_images(OnShare(), MODEL)
    with pytest.raises(InterpretError, match=r"image 'image 1' cannot be read, as the storage fails \(Stale"):
        list(batches(images, 1))
    assert [batch.items.tolist() for batch in batches(images, spans=np.array([[2, 3]]))] == []
    assert images.skipped == {"image 2": "truncated"}


@needs_failing_file
def test_mining_that_the_disk_stopped_gives_the_same_when_it_is_back(tmp_path, monkeypatch, capsys) -> None:
    data = folder_of_three(tmp_path / "data")
    monkeypatch.setattr(storage, "PAUSES", ())
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom interpret import Model, Preprocess\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return Model(nn.Sequential(nn.Conv2d(3, 2, 3)), 'net', Preprocess((16, 16)))\n"
    )
    mine = ("mine", f"{tmp_path}/net.py:build", data, "--batch-size", "1", "--study")
    command(monkeypatch, *mine, tmp_path / "sound")
    size = (data / "2.png").stat().st_size
    (data / "2.png").rename(tmp_path / "aside.png")
    (data / "2.png").symlink_to(FAILS)
    original = picture_images.FileImages._size_in_bytes
    monkeypatch.setattr(
        picture_images.FileImages,
        "_size_in_bytes",
        lambda self, name: size if name == "2.png" else original(self, name),
    )
    command(monkeypatch, *mine, tmp_path / "study", status=2)
    assert "see that it is there, and run the same again" in capsys.readouterr().err
    assert (tmp_path / "study/mining.safetensors").exists()  # the first two images are done
    (tmp_path / "aside.png").replace(data / "2.png")
    command(monkeypatch, *mine, tmp_path / "study")
    assert contents(tmp_path / "study") == contents(tmp_path / "sound")


# ---- pictures that are too large ------------------------------------------------------------------------------------


def bomb() -> bytes:
    """Return a PNG whose header says 20,000 × 20,000 pixels."""
    content = io.BytesIO()
    Image.new("1", (1, 1)).save(content, "PNG")
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + content.getvalue()[24:29]
    return content.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + content.getvalue()[33:]


def test_a_bomb_is_refused_by_its_header(tmp_path) -> None:
    folder_of_three(tmp_path / "data")
    (tmp_path / "data/bomb.png").write_bytes(bomb())
    images = open_images(tmp_path / "data", MODEL)
    assert sum(len(batch.items) for batch in batches(images)) == 3
    assert images.skipped == {"bomb.png": "its 400.0 megapixels are more than the 100.0 that are decoded"}
    for number, limit in ((0, 600), (1, 599)):
        small = open_images(tmp_path / "data", MODEL, max_pixels=limit)
        if number == 0:
            assert small[0][0].shape == (3, 16, 16)
        else:
            with pytest.raises(UnreadableImage, match=r"its 0.0 megapixels are more than"):
                small[0]
    with pytest.raises(InterpretError, match="max_pixels must be at least 1, not 0"):
        open_images(tmp_path / "data", MODEL, max_pixels=0)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_a_bomb_in_a_data_set_is_refused(tmp_path) -> None:
    sound = io.BytesIO()
    noise().save(sound, "PNG")
    images = open_images([(sound.getvalue(), 0), (bomb(), 0)], MODEL)
    assert [batch.items.tolist() for batch in batches(images)] == [[0]]
    assert images.skipped == {"image 1": "its 400.0 megapixels are more than the 100.0 that are decoded"}


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path) -> None:
    smooth(805, 1203).save(tmp_path / "a.jpg", quality=95)
    found = read_decoded(tmp_path, "a.jpg", Decoding(most_pixels=100_000))
    assert found.size == (805, 1203) == read_size(tmp_path, "a.jpg") and found.picture.size == (301, 202)
    images = open_images(tmp_path, MODEL, max_pixels=100_000)
    assert images.window(0) == open_images(tmp_path, MODEL).window(0)
    difference = (images[0][0] - open_images(tmp_path, MODEL)[0][0]).abs() * 255
    assert difference.max() <= 3
    with pytest.raises(UnreadableImage, match=r"its 1.0 megapixels are more than the 0.0 that are decoded"):
        read_decoded(tmp_path, "a.jpg", Decoding(most_pixels=10_000))


def test_a_large_progressive_jpeg_is_refused_as_it_is_held_in_memory_whole(tmp_path) -> None:
    smooth(805, 1203).save(tmp_path / "a.jpg", progressive=True)
    with pytest.raises(UnreadableImage, match=r"its 1.0 megapixels are more than the 0.1 that are decoded"):
        read_decoded(tmp_path, "a.jpg", Decoding(most_pixels=100_000))
    assert read_decoded(tmp_path, "a.jpg", Decoding(most_pixels=1_000_000)).picture.size == (1203, 805)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RGBA", "I;16", "JPEG"])
def test_a_picture_takes_about_ten_bytes_a_pixel(tmp_path, kind) -> None:
    code = f"""
        import resource, sys
        from PIL import Image
        if {kind!r} == "JPEG":
            Image.new("RGB", (10_000, 20_000), "red").save("a.jpg")
        else:
            picture = Image.new({kind!r}, (5_000, 10_000))
            picture.save("a.png", compress_level=1, **({{"transparency": 0}} if {kind!r} == "P" else {{}}))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True)
    measure = f"""
        import resource
        from interpret.images.folder import Decoding, read_decoded
        from PIL import Image
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_decoded(".", {"a.jpg" if kind == "JPEG" else "a.png"!r}, Decoding(most_pixels=50_000_000))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(measure)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert int(told.stdout) < 0.6e6  # kilobytes


# ---- JPEGs at a reduced scale ---------------------------------------------------------------------------------------


def smooth(height: int, width: int) -> Image.Image:
    """Return a picture with shades and edges, whose every part looks different."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(a * x + b * y) for a, b in ((9, 4), (-5, 13), (7, -8))]
    pixels = 127.5 * (1 + np.stack(waves, -1))
    pixels[height // 3 : height // 2, width // 3 : width // 2] = (255, 0, 0)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(129, 201), (128, 200), (135, 199)])
def test_a_picture_at_a_reduced_scale_lies_where_the_whole_one_does(tmp_path, orientation, size) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(*size).save(tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    for crops in ("center", "tiles"):
        whole = open_images(tmp_path, MODEL, crops=crops, scales=(20,))
        reduced = open_images(tmp_path, MODEL, crops=crops, scales=(20,), reduced=True)
        assert len(whole) == len(reduced) and whole.fingerprint != reduced.fingerprint
        assert whole._decoded(0).picture.size != reduced._decoded(0).picture.size
        assert whole.source_picture(0).tobytes() == reduced.source_picture(0).tobytes()
        for item in range(len(whole)):
            assert whole.window(item) == reduced.window(item)
            difference = (whole[item][0] - reduced[item][0]).abs() * 255
            # a shift by half a pixel would be 10 levels on average
            assert difference.mean() <= 2 and difference.max() <= 32


def test_only_what_is_shrunk_to_less_than_half_is_reduced(tmp_path) -> None:
    smooth(100, 120).save(tmp_path / "a.jpg")
    smooth(100, 120).save(tmp_path / "a.png")
    at = partial(read_decoded, tmp_path, decoding=Decoding(reduced=True))
    for needed, size in ((50, (120, 100)), (26, (120, 100)), (25, (60, 50)), (13, (60, 50)), (12, (30, 25))):
        assert at("a.jpg", needed=lambda *_, needed=needed: (needed, needed)).picture.size == size
    assert at("a.png", needed=lambda *_: (5, 5)).picture.size == (120, 100)
    assert at("a.jpg").picture.size == (120, 100)


@needs_photographs
@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_photographs_at_a_reduced_scale_are_within_the_stated_bound(interpolation) -> None:
    package = find_spec("ai_benchmark")
    files = sorted(Path(package.submodule_search_locations[0], "data").rglob("*.jpg"))[::3]
    model = Model(nn.Conv2d(3, 2, 3), "tiny", preprocess=Preprocess((64, 64), interpolation=interpolation))
    whole, reduced = open_images(files, model), open_images(files, model, reduced=True)
    assert len(files) > 60
    for item in range(len(files)):
        difference = (whole[item][0] - reduced[item][0]).abs() * 255
        assert difference.max() <= 32 and difference.mean() <= 2


def test_a_study_keeps_how_its_files_are_decoded(tmp_path, monkeypatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        smooth(100 + number, 120).save(data / f"{number}.jpg")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom interpret import Model, Preprocess\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return Model(nn.Sequential(nn.Conv2d(3, 2, 3)), 'net', Preprocess((16, 16)))\n"
    )
    options = ("--max-megapixels", "0.01", "--reduced")
    command(monkeypatch, "mine", f"{tmp_path}/net.py:build", data, "--study", tmp_path / "study", "-k", "1", *options)
    command(monkeypatch, "project", tmp_path / "study")  # which opens the images again
    info = Study.open(tmp_path / "study").info
    assert info["data"]["opened_from"] | {"max_pixels": 10_000, "reduced": True} == info["data"]["opened_from"]
    images = open_images(**info["data"]["opened_from"] | {"scales": (1,)}, model=MODEL)
    assert images.fingerprint == info["data"]["fingerprint"] != open_images(data, MODEL).fingerprint
    command(monkeypatch, "mine", f"{tmp_path}/net.py:build", data, "--study", tmp_path / "study", "-k", "1", status=2)
    for number in ("0", "-1", "nan", "1e9"):
        more = ("--study", tmp_path / "other", "--max-megapixels", number)
        command(monkeypatch, "mine", f"{tmp_path}/net.py:build", data, *more, status=2)
