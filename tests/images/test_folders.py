"""Folders: many files, odd names, and what is no image."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import random
import socket
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.commands import command, refused
from helpers.files import noise
from interpret.cli.answers import in_one_sentence, say_skipped
from interpret.cli.subjects import worker_count
from interpret.execution.ranks import Ranks
from interpret.images import picture_images
from interpret.images.file_names import FileNames
from interpret.images.listing import LeftOut, list_images
from interpret.images.opening import LeftAside, open_images
from interpret.images.sampling import sample_by_hash
from interpret.images.storage import UnreadableImage
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study.study import Study
from interpret.support.errors import InterpretError

MODEL = Model(nn.Conv2d(3, 2, 3), name="tiny", preprocess=Preprocess((16, 16)))

NET = """
import torch
from torch import nn
from interpret import Model, Preprocess

def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Model(nn.Sequential(*layers), "net", Preprocess((16, 16)), classes=("a", "b"))
"""


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed=seed).save(path)


def touch(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = Path(root, os.fsdecode(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# ---- many names -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name and b"/" not in name)))
def test_names_are_those_of_a_list(encoded) -> None:
    names = [os.fsdecode(name) for name in encoded]
    compact = FileNames(names)
    assert list(compact) == names == [compact[at] for at in range(len(compact))] and len(compact) == len(names)
    assert list(compact[1::2]) == names[1::2] and list(pickle.loads(pickle.dumps(compact))) == names
    assert list(FileNames.of_folders([(b"", encoded), (b"x/", encoded)])) == names + [f"x/{name}" for name in names]
    with pytest.raises(IndexError):
        compact[len(names)]


def _address_and_name(names: FileNames) -> tuple[str, bool]:
    return names[99_999], names.arrays()[0].is_shared()


@pytest.mark.slow
def test_names_take_their_bytes_and_eight_more_and_are_shared_with_workers() -> None:
    names = FileNames(f"class/{number:08d}.jpg" for number in range(100_000))
    assert sum(array.untyped_storage().nbytes() for array in names.arrays()) == 100_000 * (18 + 8) + 8
    from torch import multiprocessing as shared

    with shared.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_address_and_name, (names,)) == ("class/00099999.jpg", True)
    assert multiprocessing.active_children() == []


def test_a_tree_is_listed_in_the_order_of_its_whole_paths(tmp_path) -> None:
    draw = random.Random(0)
    parts = ["a", "a-b", "a.b", "a b", "A", "é", "z", "0", "a_", "~"]
    for _ in range(300):
        folders = [f"{draw.choice(parts)}{draw.choice(['', '1'])}" for _ in range(draw.randint(0, 3))]
        touch(tmp_path, "/".join([*folders, f"{draw.choice(parts)}.{draw.choice(['png', 'PNG', 'jpg'])}"]))
    expected = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    listing = list_images(tmp_path)
    assert list(listing.names) == expected and listing.left_out == {}
    assert [run for run, number in listing.runs for _ in range(number)] == [
        name.partition("/")[0] if "/" in name else "" for name in expected
    ]


def test_the_fingerprint_of_a_large_folder_samples_the_sizes(tmp_path, monkeypatch) -> None:
    for number in range(40):
        (tmp_path / f"{number:02d}.png").write_bytes(b"x" * number)
    small = open_images(tmp_path, MODEL)
    expected = hashlib.sha256(small._cutting())
    for number in range(40):
        expected.update(f"{number:02d}.png\0{number}\0".encode())
    assert small.fingerprint == expected.hexdigest()

    monkeypatch.setattr(picture_images, "ALL_SIZES_COUNT", 39)
    monkeypatch.setattr(picture_images, "SIZES_SAMPLED", 10)
    asked: list[str] = []
    original = picture_images.FileImages._size_in_bytes
    monkeypatch.setattr(
        picture_images.FileImages, "_size_in_bytes", lambda self, name: asked.append(name) or original(self, name)
    )
    first = open_images(tmp_path, MODEL).fingerprint
    assert len(set(asked)) == 10 and first == open_images(tmp_path, MODEL).fingerprint != small.fingerprint
    (tmp_path / asked[3]).write_bytes(b"another size than before")
    changed = open_images(tmp_path, MODEL).fingerprint
    unasked = next(f"{number:02d}.png" for number in range(40) if f"{number:02d}.png" not in asked)
    (tmp_path / unasked).rename(tmp_path / f"{unasked[:2]}a.png")
    assert len({first, changed, open_images(tmp_path, MODEL).fingerprint}) == 3


# ---- what is no image -----------------------------------------------------------------------------------------------


def test_what_is_no_image_is_counted_and_told(tmp_path, capsys, monkeypatch) -> None:
    data = tmp_path / "data"
    save(data / "a.png")
    save(data / "sub/b.png")
    touch(data, "c.svg", "sub/d.SVG", "e.heic", "notes.txt", "LICENSE", ".hidden.svg", "odd.reallylongextension")
    (data / "circle").symlink_to(data / "circle")
    (data / "circle.png").symlink_to(data / "circle.png")
    (data / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (data / "sub/up").symlink_to(data)
    (data / "sub/top").symlink_to("/")
    (data / "again").symlink_to(data / "sub")
    os.mkfifo(data / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as open_socket:
        monkeypatch.chdir(data)  # a socket's path is short
        open_socket.bind("socket.png")
    with pytest.warns(LeftAside, match=r"8 files were left out: 2 × .*1 × socket \(socket.png\)"):
        images = open_images(data, MODEL)
    assert list(images.names) == ["a.png", "sub/b.png"]
    assert images.left_out == {
        ".svg": LeftOut(2, "c.svg"),
        ".heic": LeftOut(1, "e.heic"),
        ".txt": LeftOut(1, "notes.txt"),
        "file without extension": LeftOut(2, images.left_out["file without extension"].first),
        "link that leads back to itself": LeftOut(2, images.left_out["link that leads back to itself"].first),
        "link to nothing": LeftOut(1, "gone.jpg"),
        "named pipe": LeftOut(1, "pipe.jpg"),
        "socket": LeftOut(1, "socket.png"),
    }
    with in_one_sentence():
        say_skipped(images)
    said = capsys.readouterr().err
    assert said.startswith("11 files were left out: 2 × ") and "1 × named pipe (pipe.jpg)" in said


def test_kinds_of_files_without_end_are_counted_together(tmp_path) -> None:
    touch(tmp_path, "a.png", *(f"b.x{number}" for number in range(50)))
    found = list_images(tmp_path).left_out
    assert len(found) == 21 and found["other file"].number == 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_inside_that_may_not_be_read_is_left_out(tmp_path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.warns(LeftAside, match="1 × folder that may not be read"):
        assert list(open_images(tmp_path, MODEL).names) == ["a.png"]


def test_a_folder_without_images_says_what_it_holds(tmp_path) -> None:
    touch(tmp_path, "a.heic", "b.heic")
    with pytest.raises(InterpretError, match=r"holds no image files \(2 files were left out: 2 × .heic \(.*heic …\)\)"):
        open_images(tmp_path, MODEL)


# ---- names that are not UTF-8 ---------------------------------------------------------------------------------------


def odd_folder(tmp_path: Path) -> Path:
    data = tmp_path / os.fsdecode(b"d\xe9j\xe0")
    for folder in (b"k\xfcche", b"wald"):
        for number in range(3):
            save(data / os.fsdecode(folder) / os.fsdecode(b"p\xfe%d.png" % number), seed=number + 3 * len(folder))
    (data / "wald" / os.fsdecode(b"t\xff.png")).write_bytes(b"no image")
    return data


@pytest.mark.slow
def test_names_that_are_not_utf8_pass_from_mining_to_the_report(tmp_path, monkeypatch, capsys) -> None:
    data = odd_folder(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    study, pages = tmp_path / "study", tmp_path / "pages"
    mine = ("mine", f"{tmp_path}/net.py:build", data, "--study", study, "-k", "2")
    command(monkeypatch, *mine)
    assert r"1 of 7 files could not be read: wald/t\xff.png (it is no image" in capsys.readouterr().err
    command(monkeypatch, "project", study, "--layers", "0")
    command(monkeypatch, "gallery", study, "--out", pages)
    command(monkeypatch, "report", study, "--out", tmp_path / "report.html")
    kept = {file: file.read_bytes() for file in study.rglob("*.safetensors")}
    command(monkeypatch, *mine)
    command(monkeypatch, "project", study)
    assert kept and {file: file.read_bytes() for file in kept} == kept
    info = json.loads((study / "study.json").read_text("utf-8"))
    assert info["data"]["name"] == r"d\xe9j\xe0" and list(info["data"]["skipped"]) == [r"wald/t\xff.png"]
    assert info["data"]["classes"] == [r"k\xfcche", "wald"]
    assert os.fsencode(info["data"]["opened_from"]["data"]) == os.fsencode(data)
    assert {source["name"] for source in Study.open(study).sources().values()} >= {r"k\xfcche/p\xfe0.png"}
    assert r"p\xfe0.png" in "".join(page.read_text("utf-8") for page in pages.rglob("*.html"))


def test_names_that_are_not_utf8_are_read_and_shown_as_escapes(tmp_path) -> None:
    images = open_images(odd_folder(tmp_path), MODEL)
    assert [images.source_name(source) for source in range(7)] == [
        *(rf"k\xfcche/p\xfe{number}.png" for number in range(3)),
        *(rf"wald/p\xfe{number}.png" for number in range(3)),
        r"wald/t\xff.png",
    ]
    assert torch.equal(images[1][0], MODEL.preprocess(noise(seed=1 + 3 * 5)))
    with pytest.raises(UnreadableImage, match=r"image 'wald/t\\\\xff.png' cannot be read: it is no image"):
        images[6]


def test_a_study_whose_own_name_is_not_utf8_is_refused(tmp_path) -> None:
    save(tmp_path / "data/a.png")
    with pytest.raises(InterpretError, match=r"s\\\\xff' is not UTF-8, .* name another folder"):
        Study(tmp_path / os.fsdecode(b"s\xff"), MODEL, tmp_path / "data")


# ---- output among the images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [
        ("gallery", "MODEL", "DATA", "--out", "DATA/pages"),
        ("gallery", "MODEL", "DATA", "--out", "OUT", "--study", "DATA/study"),
        ("gallery", "STUDY", "--out", "DATA/pages"),
        ("mine", "MODEL", "DATA", "--study", "DATA/study"),
        ("plot", "STUDY", "--out", "DATA/a.png"),
        *((verb, "MODEL", "DATA", "--out", "DATA/a.png") for verb in ("probe", "occlude", "attribute", "sanity")),
        *((verb, "STUDY", "--out", "DATA/sub/a.png") for verb in ("probe", "occlude", "attribute", "sanity")),
        ("evolve", "MODEL", "DATA", "--out", "DATA/a.png"),
        ("neighbours", "MODEL", "DATA", "--layer", "0", "--out", "DATA/a.png"),
    ],
    ids=" ".join,
)
def test_output_among_the_images_is_refused_before_anything_is_written(verb, mined, monkeypatch, capsys) -> None:
    before = sorted(mined.rglob("*"))
    places = {"DATA": mined / "data", "OUT": mined / "out", "MODEL": f"{mined}/net.py:build", "STUDY": mined / "study"}
    arguments = [
        f"{places.get(part.partition('/')[0], part.partition('/')[0])}/{part.partition('/')[2]}".rstrip("/")
        for part in verb
    ]
    assert "would lie among the images of" in refused(capsys, monkeypatch, *arguments)
    assert sorted(mined.rglob("*")) == before


@pytest.fixture(scope="module")
def mined(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mined")
    for number in range(3):
        save(root / f"data/{number}.png", seed=number)
    (root / "net.py").write_text(NET)
    from interpret.loading.loading import load

    study = Study(
        root / "study",
        load(f"{root}/net.py:build"),
        root / "data",
        made_from={"model": f"{root}/net.py:build", "data": str(root / "data"), "weights": None, "crops": None},
    )
    study.mine(k=1)
    study.predict()
    return root


def test_a_study_among_the_images_is_refused_in_python_too(mined) -> None:
    with pytest.raises(InterpretError, match=r"the study '.*data/study' would lie among the images of '.*data', and"):
        Study(mined / "data/study", MODEL, mined / "data")


# ---- workers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 0), (3, 1, 1), (16, 1, 14), (64, 1, 16), (64, 8, 7), (4, 4, 0)]
)
def test_workers_take_what_this_process_may_use(monkeypatch, cores, processes, workers) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(Ranks, "local_size", processes)
    assert worker_count(None) == workers and worker_count(5) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100, 10_007])
def test_the_sample_by_hash_is_that_of_sorting_all(count) -> None:
    def splitmix(item: int) -> int:
        z = ((item + 1) * 0x9E3779B97F4A7C15 + 3) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    expected = sorted(range(count), key=splitmix)
    for size in (0, 1, 2, 5, 99, 100, 101, 20_000):
        assert sample_by_hash(count, size, seed=3).tolist() == expected[:size]
