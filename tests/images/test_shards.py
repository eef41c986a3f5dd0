"""Shards of WebDataset: the same samples as the library reads, in its order, and each read by itself."""

from __future__ import annotations

import gc
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.commands import command, refused
from helpers.files import contents, noise
from interpret.analyses.mining.compute import mine
from interpret.images.batches import batches
from interpret.images.opening import LeftAside, open_images
from interpret.images.shards import Shards
from interpret.images.storage import UnreadableImage
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError

webdataset = pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*s-0:pytest.PytestUnraisableExceptionWarning")

MODEL = Model(nn.Sequential(nn.Conv2d(3, 4, 3)), name="tiny", preprocess=Preprocess((16, 16)), classes=tuple("abcd"))


def png(seed: int) -> bytes:
    content = io.BytesIO()
    noise(40, 30, seed=seed).save(content, "PNG")
    return content.getvalue()


def write(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def by_library(data) -> list:
    """Return what webdataset itself reads, which leaves files open: their warnings belong to this test."""
    read = list(data)
    gc.collect()
    return read


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Three shards of four samples each: pictures, labels of both kinds, and a mask."""
    for shard in range(3):
        files = []
        for number in range(4 * shard, 4 * shard + 4):
            label = (
                ("json", json.dumps({"label": number % 4}).encode()) if number % 3 else ("cls", b"%d" % (number % 4))
            )
            files += [(f"set/{number:04d}.{label[0]}", label[1]), (f"set/{number:04d}.png", png(number))]
            files += [(f"set/{number:04d}.mask.png", png(99))]
        write(tmp_path / f"s-{shard:02d}.tar", *files)
    return f"{tmp_path}/s-{{00..02}}.tar"


def test_shards_are_read_as_the_library_reads_them(shards) -> None:
    images = open_images(shards, MODEL)
    read = by_library(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(images) == len(read) == 12
    for item, sample in enumerate(read):
        assert torch.equal(images[item][0], MODEL.preprocess(sample["png"]))
        assert (
            images.labels[item]
            == images[item][1]
            == item % 4
            == sample.get("cls", sample.get("json", {}).get("label", item % 4))
        )
        assert images.source_name(item) == f"s-{item // 4:02d}.tar/{sample['__key__']}.png"
        assert np.array_equal(np.asarray(images.source_picture(item)), np.asarray(sample["png"]))
    assert images.classes == tuple("abcd") and images.name == "s-{00..02}.tar"


def test_a_sample_is_read_without_what_comes_before_it(shards, monkeypatch) -> None:
    images = open_images(shards, MODEL)
    read: list[int] = []
    original = io.BufferedReader.read

    class Counted(io.BufferedReader):
        def read(self, size: int = -1) -> bytes:
            read.append(size)
            return original(self, size)

    monkeypatch.setattr(Path, "open", lambda self, mode: Counted(io.FileIO(self, "r")))
    images[11]
    assert read == [len(png(11))]


def test_tiles_of_shards_are_those_of_the_files(shards, tmp_path) -> None:
    (tmp_path / "files").mkdir()
    for number in range(12):
        (tmp_path / f"files/{number:02d}.png").write_bytes(png(number))
    ours = open_images(shards, MODEL, crops="tiles", scales=(20, 40))
    theirs = open_images(tmp_path / "files", MODEL, crops="tiles", scales=(20, 40))
    assert len(ours) == len(theirs) > 24
    assert all(torch.equal(ours[item][0], theirs[item][0]) for item in range(len(ours)))
    for workers in (0, 2):
        read = torch.cat([batch.images for batch in batches(ours, 5, workers=workers)])
        assert torch.equal(read, torch.stack([theirs[item][0] for item in range(len(theirs))]))


def test_the_fingerprint_is_that_of_the_shards_wherever_they_lie(shards, tmp_path) -> None:
    first = open_images(shards, MODEL).fingerprint
    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"), dirs_exist_ok=True)
    assert open_images(shards.replace(tmp_path.name, "elsewhere"), MODEL).fingerprint == first
    assert open_images(shards.replace("02", "01"), MODEL).fingerprint != first
    assert open_images([shards.replace("{00..02}", f"0{n}") for n in (2, 1, 0)], MODEL).fingerprint != first
    assert open_images([shards.replace("{00..02}", f"0{n}") for n in range(3)], MODEL).fingerprint == first


@pytest.mark.slow
def test_the_command_mines_projects_and_publishes_shards(shards, tmp_path, monkeypatch) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom interpret import Model, Preprocess\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return Model(nn.Sequential(nn.Conv2d(3, 2, 3)), 'net', Preprocess((16, 16)))\n"
    )
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "mine", "net.py:build", "s-{00..02}.tar", "--study", "study", "-k", "3")
    monkeypatch.chdir("/")
    command(monkeypatch, "project", tmp_path / "study")
    command(monkeypatch, "gallery", tmp_path / "study", "--out", tmp_path / "pages")
    assert "0003.png" in "".join(page.read_text("utf-8") for page in (tmp_path / "pages").rglob("*.html"))
    before = contents(tmp_path / "study")
    command(monkeypatch, "mine", tmp_path / "net.py:build", shards, "--study", tmp_path / "study", "-k", "3")
    assert contents(tmp_path / "study") == before


# ---- odd shards -----------------------------------------------------------------------------------------------------


def test_what_is_no_sample_of_a_picture(tmp_path) -> None:
    shard = write(
        tmp_path / "odd.tar",
        ("__meta__", b"x"),
        ("README", b"no suffix"),
        ("a/1.txt", b"words"),
        ("a/2.jpg", b"no picture"),
        ("a/3.image.png", png(3)),
        ("a/3.alpha.png", png(4)),
        ("a/3.cls", b"77"),
        ("a/4.PNG", png(5)),
        ("a/4.cls", b"words"),
    )
    with tarfile.open(shard, "a") as tar:
        link = tarfile.TarInfo("a/5.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    images = open_images(shard, MODEL)
    assert [images.source_name(source) for source in range(3)] == [
        "odd.tar/a/2.jpg", "odd.tar/a/3.image.png", "odd.tar/a/4.png",
    ]  # fmt: skip
    assert images.labels.tolist() == [-1, 77, -1] and images.classes is None
    assert images.left_out == {"sample without an image": (1, "odd.tar/a/1")}
    assert torch.cat([batch.items for batch in batches(images)]).tolist() == [1, 2]
    assert images.skipped == {"odd.tar/a/2.jpg": "it is no image of a known format"}


def test_shards_that_cannot_be_read_are_refused(tmp_path, monkeypatch, capsys) -> None:
    whole = write(tmp_path / "whole.tar", ("1.png", png(1)), ("2.png", png(2)))
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:6000])
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "words.tar").write_text("no archive")
    write(tmp_path / "twice.tar", ("1.png", png(1)), ("1.png", png(1)))
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(whole, "whole")
    write(tmp_path / "none.tar", ("1.txt", b"words"))
    for name, words in [
        ("gone.tar", "gone.tar' does not exist"),
        ("s-{00..", "s-{00...tar' is no name of shards"),
        ("cut.tar", r"cut.tar' is damaged \(it ends within a member\)"),
        ("empty.tar", "empty.tar' is damaged"),
        ("words.tar", "words.tar' is damaged"),
        ("twice.tar", "twice.tar' is damaged .*duplicate file name"),
        ("packed.tar", r"packed.tar' is compressed, .* unpack it"),
        ("none.tar", "data 'none.tar' holds no images"),
    ]:
        spec = f"{tmp_path}/{name}" if name.endswith(".tar") else f"{tmp_path}/{name}.tar"
        with pytest.raises(InterpretError, match=words):
            open_images(spec, MODEL)
    for url in ("pipe:cat a.tar", "http://there/a.tar", "s3://there/a.tar"):
        with pytest.raises(InterpretError, match="is not a local file, and hits are read again"):
            open_images(url, MODEL)
    assert "gone.tar' does not exist" in refused(
        capsys, monkeypatch, "mine", "lenet", tmp_path / "gone.tar", "--study", tmp_path / "study"
    )


def test_a_shard_that_was_cut_off_since(shards, tmp_path) -> None:
    images = open_images(shards, MODEL)
    cut = tmp_path / "s-02.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(UnreadableImage, match=r"'s-02.tar/set/0011' cannot be read: its shard is shorter than it was"):
        images[11]


# ---- a WebDataset in Python -----------------------------------------------------------------------------------------


def test_a_webdataset_is_read_item_by_item(shards) -> None:
    def small(picture: Image.Image) -> Image.Image:
        return picture.resize((16, 16))

    data = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").rename(cls="cls;json").to_tuple("png", "cls")
    data = data.map_tuple(small, lambda label: label["label"] if isinstance(label, dict) else label)
    images, read = open_images(data, MODEL), by_library(data)
    for item, (picture, label) in enumerate(read):
        assert torch.equal(images[item][0], MODEL.preprocess(picture)) and images[item][1] == label == item % 4
    assert len(images) == 12 and images.source_name(5) == "s-01.tar/set/0005"
    assert images.fingerprint == open_images(data, MODEL).fingerprint
    mined = mine(MODEL, data, k=2)
    assert torch.equal(torch.as_tensor(mined["0"].images), torch.as_tensor(mine(MODEL, read, k=2)["0"].images))


def test_a_webdataset_without_decoding_is_decoded(shards) -> None:
    with pytest.warns(LeftAside, match=r"the image is 'png', and there is no label|left aside: 'mask.png'"):
        images = open_images(webdataset.WebDataset(shards, shardshuffle=False), MODEL)
    read = torch.cat([batch.images for batch in batches(images, 5)])
    assert torch.equal(read, torch.stack([MODEL.preprocess(noise(40, 30, seed=number)) for number in range(12)]))


def test_steps_of_a_stream_are_not_used_and_selected_samples_alone_are_read(shards) -> None:
    plain = webdataset.WebDataset(shards, shardshuffle=3).shuffle(10).decode("pil")
    some = plain.select(lambda sample: sample["__key__"] > "set/0008").to_tuple("png").batched(2)
    with pytest.warns(LeftAside, match=r"the WebDataset's shuffle, batched is not used"):
        images = open_images(some, MODEL)
    assert torch.cat([batch.items for batch in batches(images)]).tolist() == [9, 10, 11]
    assert images.skipped["s-00.tar/set/0000"] == "the steps of the WebDataset leave it out"
    loader = webdataset.WebLoader(plain.to_tuple("png"), batch_size=4)
    with pytest.warns(LeftAside, match="the WebDataset's shuffle is not used"):
        assert len(open_images(loader, MODEL)) == 12


def test_a_webdataset_without_order_is_refused(shards) -> None:
    for data, words in [
        (
            webdataset.WebDataset(shards, resampled=True, shardshuffle=False),
            "a ResampledShards, whose samples have no order",
        ),
        (webdataset.WebDataset(shards, shardshuffle=False).rsample(0.5), "step 'rsample' does not treat each sample"),
        (webdataset.WebDataset(shards, shardshuffle=False).slice(3), "step 'islice' does not treat each sample"),
        (webdataset.WebDataset("pipe:cat x.tar", shardshuffle=False), "is not a local file"),
    ]:
        with pytest.raises(InterpretError, match=words):
            open_images(data, MODEL)


def test_members_are_kept_by_their_place_and_no_more(shards) -> None:
    found = Shards([Path(shards.replace("{00..02}", f"0{number}")) for number in range(3)])
    assert sum(array.nbytes for array in found.identity()) < 12 * (3 * 3 * 8 + 8 + 8 + 10) + 200
