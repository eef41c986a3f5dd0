"""Damaged files and odd invocations at random: an answer or an `InterpretError`, never another exception.

INTERPRET_FUZZ=20000 gives the number of examples of each reader and a tenth as many invocations; by default 40 and 30.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from helpers.hostile_models import HEAD
from helpers.odd_options import invocations
from interpret.cli import main
from interpret.images.folder import read_picture, read_size
from interpret.images.shards import Shards, label_in
from interpret.loading.array_pickles import read_arrays
from interpret.loading.checkpoints import read_state
from interpret.loading.recipes import read_recipe
from interpret.results.kinds import BUILT_IN
from interpret.study.overview import overview, overview_text
from interpret.study.reader import StudyReader
from interpret.study.study import Study
from interpret.support.errors import InterpretError

COUNT = int(os.environ.get("INTERPRET_FUZZ", "40"))
FEW = settings(
    max_examples=COUNT,
    derandomize="INTERPRET_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
STUDY_FILES = (".json", ".safetensors", ".jsonl", ".npy", ".sha256")
STRUCTURE = [b"\xff" * 4, b"\x00" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80", b"{", b"}", b'"', b"[", b"null",
             b"-1", b"1e999", b"NaN", b"F32", b"I64", b"\n", b"=", b"]]", b"'''", b"..", b"/", b"\xc3\x28",
             b"\xed\xa0\x80"]  # fmt: skip


class Mark:
    """An object whose pickle would write a file, where code in it ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


PIECE = st.one_of(st.sampled_from(STRUCTURE), st.binary(max_size=6))
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "repeat", "cut"]), st.floats(0, 1), PIECE, st.integers(0, 64)
    ),
    min_size=1,
    max_size=5,
)


def edited(content: bytes, edits: list[tuple[str, float, bytes, int]]) -> bytes:
    """Return a file's content after random edits; most are at its start, where headers are."""
    for what, place, piece, count in edits:
        at = int(place**3 * len(content))
        if what == "set":
            content = content[:at] + piece + content[at + len(piece) :]
        elif what == "insert":
            content = content[:at] + piece + content[at:]
        elif what == "delete":
            content = content[:at] + content[at + count :]
        elif what == "repeat":
            content = content[: at + count] + content[at:]
        else:
            content = content[:at]
    return content


def refused_or_read(read: Callable[[], object]) -> None:
    """Call a reader, which may only answer or raise an `InterpretError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except InterpretError as error:
            assert str(error).strip()


def _pictures() -> list[tuple[str, bytes]]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "ICO", "JPEG2000"):
        file = io.BytesIO()
        more: dict[str, Any] = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
        (picture.convert("P") if kind == "GIF" else picture).save(file, kind, **more)
        found.append((f"picture.{kind.lower()}", file.getvalue()))
    return found


@pytest.mark.slow
@FEW
@given(st.sampled_from(_pictures()), EDITS)
def test_pictures(tmp_path_factory: pytest.TempPathFactory, picture: tuple[str, bytes], edits: Any) -> None:
    folder = _folder(tmp_path_factory, "pictures")
    (folder / picture[0]).write_bytes(edited(picture[1], edits))
    refused_or_read(lambda: read_size(folder, picture[0]))
    refused_or_read(lambda: read_picture(folder, picture[0]))
    assert {path.name for path in folder.iterdir()} <= {name for name, _ in _pictures()}


WEIGHTS = {"conv.weight": torch.ones(2, 1, 3, 3), "conv.bias": torch.zeros(2), "steps": torch.tensor(3)}


@pytest.mark.slow
@FEW
@given(EDITS)
def test_safetensors(tmp_path_factory: pytest.TempPathFactory, edits: Any) -> None:
    file = _folder(tmp_path_factory, "safetensors") / "weights.safetensors"
    file.write_bytes(edited(save(WEIGHTS, {"format": "pt"}), edits))
    refused_or_read(lambda: read_state(file))


def _saved(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def _checkpoints(mark: Path) -> list[bytes]:
    return [
        _saved(WEIGHTS),
        _saved({"epoch": 3, "state_dict": WEIGHTS}, _use_new_zipfile_serialization=False),
        _saved({"model": WEIGHTS, "more": Mark(mark)}),
        pickle.dumps({"model": Mark(mark)}),
    ]


@pytest.mark.slow
@FEW
@given(st.integers(0, 3), EDITS)
def test_state_dicts_run_no_code(tmp_path_factory: pytest.TempPathFactory, which: int, edits: Any) -> None:
    folder = _folder(tmp_path_factory, "states")
    (folder / "weights.pt").write_bytes(edited(_checkpoints(folder / "ran")[which], edits))
    refused_or_read(lambda: read_state(folder / "weights.pt"))
    assert [path.name for path in folder.iterdir()] == ["weights.pt"]


@pytest.mark.slow
@FEW
@given(st.booleans(), EDITS)
def test_pickles_of_arrays_run_no_code(tmp_path_factory: pytest.TempPathFactory, hostile: bool, edits: Any) -> None:
    folder = _folder(tmp_path_factory, "pickles")
    # without arrays: NumPy itself does not survive a damaged type, and the one such file is read by its hash alone
    content = pickle.dumps({"conv1": ([1.5, 2], {"a": Mark(folder / "ran") if hostile else None})})
    refused_or_read(lambda: read_arrays(edited(content, edits)))
    assert not list(folder.iterdir())


RECIPE = b"""\
[input]
size = [28, 28]
channels = "L"
mean = [0.5]
std = [0.5]
[model]
title = "net"
classes = ["a", "b"]
[data]
name = "digits"
[augment]
translate = 2
rotate = 10
[train]
lr = 0.1
batch_size = 64
epochs = 10
keep = [1, 5]
schedule = "step"
steps = [3, 6]
"""
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec="utf-8", exclude_characters='"\\\n'), max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


@pytest.mark.slow
@FEW
@given(EDITS, st.integers(0, 30), VALUES)
def test_recipes(tmp_path_factory: pytest.TempPathFactory, edits: Any, line: int, value: Any) -> None:
    file = _folder(tmp_path_factory, "recipes") / "recipe.toml"
    file.write_bytes(edited(RECIPE, edits))
    refused_or_read(lambda: read_recipe(file))
    lines = RECIPE.decode().splitlines()
    lines[line % len(lines)] = f"{lines[line % len(lines)].partition('=')[0].strip(' []')} = {_toml(value)}"
    file.write_text("\n".join(lines), encoding="utf-8")
    refused_or_read(lambda: read_recipe(file))


def _shard() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("a/1.jpg", "a/1.cls", "../../2.jpg", "../../2.json", "/etc/3.jpg"):
            content = b'{"label": 1}' if name.endswith("json") else b"7"
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()[: 5 * 1024 + 1024]


@pytest.mark.slow
@FEW
@given(EDITS)
def test_shards(tmp_path_factory: pytest.TempPathFactory, edits: Any) -> None:
    pytest.importorskip("webdataset")
    folder = _folder(tmp_path_factory, "shards")
    (folder / "shard.tar").write_bytes(edited(_shard(), edits))

    def read() -> None:
        shards = Shards([folder / "shard.tar"])
        for sample in range(len(shards)):
            shards.contents(sample)
            label_in(shards, sample)

    refused_or_read(read)
    assert [path.name for path in folder.iterdir()] == ["shard.tar"]


def _folder(made: pytest.TempPathFactory, name: str) -> Path:
    """Return one folder for all examples of a test."""
    folder = made.getbasetemp() / f"fuzz-{name}"
    folder.mkdir(exist_ok=True)
    return folder


# ---- a study, and the command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures, a model, a study of them, and a user's own and odd files."""
    place = tmp_path_factory.mktemp("command") / "work"
    numbers = np.random.default_rng(0)
    for name in "ab":
        (place / "data" / name).mkdir(parents=True)
        for number in range(2):
            picture = Image.fromarray(numbers.integers(0, 256, (14, 16, 3), np.uint8))
            picture.save(place / f"data/{name}/{number}.png")
    (place / "m.py").write_text(HEAD)
    for name in ("afile", "notes.txt"):
        (place / name).write_text("the user's own")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nowhere")
    for name in ("pipe", "pipe.png", "pipe.safetensors"):
        os.mkfifo(place / name)
    for name in ("folder", "folder.png"):
        (place / name).mkdir()
    (place / "weights.pt").write_bytes(_saved(WEIGHTS))
    before = Path.cwd()
    os.chdir(place)
    try:
        assert (
            _run(
                [
                    "gallery",
                    "m.py:build",
                    "data",
                    "--out",
                    "g",
                    "--study",
                    "kept",
                    "--workers",
                    "0",
                    "-k",
                    "2",
                    "--synthesise",
                    "0",
                ]
            )
            == 0
        )
        assert _run(["probe", "kept", "--transform", "scale", "--values", "1,1.5", "--images", "2"]) == 0
        assert _run(["neighbours", "kept", "-k", "1", "--workers", "0"]) == 0
        assert _run(["synthesise", "kept", "--steps", "2", "--units", "2"]) == 0
        assert _run(["mine", "m.py:build", "data", "--study", "one", "--part", "1/1", "-k", "2", "--workers", "0"]) == 0
    finally:
        os.chdir(before)
    return place


def _run(arguments: list[str]) -> object:
    """Run the command in this process, and return its status; any other exception is an error of the test."""
    before = sys.argv
    sys.argv = ["interpret", *arguments]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
    except SystemExit as ending:
        return ending.code
    finally:
        sys.argv = before
    return 0


def _read_all(path: Path) -> None:
    """Read everything that a study holds, as gallery and report do; each part may be refused on its own."""
    study = StudyReader(path)
    parts: list[Callable[[], object]] = [
        lambda: study.results, study.drawable_results, study.flow, study.sources, study.samples, study.predictions,
        study.all_mined, lambda: study.layers, lambda: study.mined_layers, lambda: Study.open(path),
        lambda: overview_text(overview(study, check=True)),
    ]  # fmt: skip
    for name in ("conv", "fc"):
        parts += [
            lambda name=name: study.mined(name),  # type: ignore[misc]
            lambda name=name: study.rules(name),  # type: ignore[misc]
            lambda name=name: study.tile(name),  # type: ignore[misc]
            lambda name=name: study.connections(name),  # type: ignore[misc]
            lambda name=name: study.activation_range_examples(name),  # type: ignore[misc]
        ]
    parts += [lambda kind=kind: study.result(kind, "scale") for kind in BUILT_IN]  # type: ignore[misc]
    for part in parts:
        refused_or_read(part)


@pytest.mark.slow
@FEW
@given(st.integers(0, 1000), EDITS)
def test_studies(workplace: Path, which: int, edits: Any) -> None:
    files = [path for path in sorted((workplace / "kept").rglob("*")) if path.suffix in STUDY_FILES]
    file = files[which % len(files)]
    content = file.read_bytes()
    try:
        file.write_bytes(edited(content, edits))
        refused_or_read(lambda: _read_all(workplace / "kept"))
    finally:
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_odd_invocations(workplace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HOME", str(tmp_path))
    ours = {path: path.read_bytes() for path in _own_files(workplace)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seed = 0 if COUNT == 40 else COUNT
        for arguments in islice(invocations(seed), max(30, COUNT // 10)):
            assert _run(arguments) in (0, 2), arguments
            assert Path.cwd() == workplace
    finally:
        torch.set_num_threads(threads)
    assert {path: path.read_bytes() for path in _own_files(workplace)} == ours
    assert [path.name for path in workplace.parent.iterdir()] == ["work"]


def _own_files(place: Path) -> Iterator[Path]:
    """Yield the files that are the user's."""
    yield from (place / name for name in ("m.py", "afile", "notes.txt", "weights.pt"))
    yield from sorted((place / "data").rglob("*.png"))
