"""The study on disk: what it holds, how it goes on, and what it refuses."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin
from safetensors.numpy import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset

from helpers.files import contents, noise
from interpret.analyses.mining.compute import mine, prepared_to_mine
from interpret.analyses.mining.miner import Miner
from interpret.analyses.projection import hit_projection as projection_module
from interpret.analyses.projection.compute import project
from interpret.execution import resume as unfinished_module
from interpret.images.display import contrast, to_bytes
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study import projection_budget, synthesis_budget
from interpret.study import projections as study_projections
from interpret.study.study import Study
from interpret.support.checksums import read_json
from interpret.support.errors import InterpretError
from interpret.support.files import layer_path
from interpret.support.progress import progress
from interpret.tracing.tracing import trace

SIDE = 24


def network(seed: int = 0, channels: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(144, 3),
        )


def model(seed: int = 0) -> Model:
    preprocess = Preprocess((SIDE, SIDE), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return Model(network(seed), "small", preprocess, classes=("ant", "bee", "cat"), card="# Small\n\nπ")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lossless pictures in two classes; two files hold no picture."""
    root = tmp_path_factory.mktemp("photographs")
    for index in range(8):
        folder = root / ("ant" if index % 3 else "bee")
        folder.mkdir(exist_ok=True)
        noise(48, 48 + 12 * (index % 4), seed=index).save(folder / f"{index}.png")
    (root / "ant" / "0.png").write_bytes(b"no picture")
    (root / "bee" / "7.jpg").write_bytes(b"nor this")
    return root


def tiled(root: Path, of: Model) -> Any:
    """Windows of the pictures as they are: nothing is resized."""
    return open_images(root, of, crops="tiles", scales=(48,))


def begin(path: Path, root: Path, **options: Any) -> Study:
    of = model()
    return Study(path, of, tiled(root, of), batch_size=4, **options)


def complete(path: Path, root: Path, **options: Any) -> Study:
    study = begin(path, root, **options)
    study.mine(k=5)
    study.project()
    study.project(rule="guided")
    study.draw_filters()
    return study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Study:
    return complete(tmp_path_factory.mktemp("done") / "study", photographs)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.rglob("*")}


def litter(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


# what it holds


def test_a_study_keeps_the_results_of_mining(done: Study, photographs: Path) -> None:
    of = model()
    data = tiled(photographs, of)
    mined = mine(of, data, k=5, batch_size=4)
    assert done.mined_layers == list(mined) == ["0", "3", "6"]
    for name, layer in mined.items():
        stored = done.mined(name)
        for key, array in layer.arrays().items():
            np.testing.assert_array_equal(getattr(stored, key), array)
            assert getattr(stored, key).dtype == array.dtype
        np.testing.assert_array_equal(stored.sample_images, mined.sample_images)
        filled = layer.images >= 0
        np.testing.assert_array_equal(stored.sources[filled], data.sources[layer.images[filled]])
        np.testing.assert_array_equal(stored.labels[filled], data.labels[layer.images[filled]])
        assert (stored.sources[~filled] == -1).all() and not stored.boxes[~filled].any()
        # the best of distinct photographs
        for row in stored.sources:
            assert len(set(row.tolist())) == len(row)


def test_study_json_describes_the_computation(done: Study) -> None:
    info = read_json(done.path / "study.json")
    assert info == done.info == Study.open(done.path).info
    assert info["format"] == 1 and info["versions"]["torch"] == torch.__version__.split("+")[0]
    assert info["model"] == {
        "name": "small",
        "spec": None,
        "origin": "",
        "weights_hash": model().weights_hash,
        "params": 456 + 220 + 435,
        "input_shape": [3, SIDE, SIDE],
        "classes": ["ant", "bee", "cat"],
        "card": "# Small\n\nπ",
        "uncounted": [],
        "weights": None,
        "preprocess": Preprocess((SIDE, SIDE), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)).to_dict(),
    }
    assert info["data"]["sources"] == 8 and info["data"]["items"] > 20
    assert info["data"]["classes"] == ["ant", "bee", "cat"]
    assert sorted(info["data"]["skipped"]) == ["ant/0.png", "bee/7.jpg"]
    assert info["settings"] == {"dtype": "float32", "k": 5, "seed": 0}
    assert [layer["name"] for layer in info["layers"]] == list("0123456")
    assert info["layers"][3]["receptive_field"] == {"size": [15, 15], "stride": [4, 4], "start": [-6, -6]}
    assert info["layers"][6]["receptive_field"] is None


@pytest.fixture(scope="module")
def tiles_of(done: Study) -> Callable[[Path, str], NDArray[np.uint8]]:
    def cut(sprite: Path, name: str) -> NDArray[np.uint8]:
        """A sprite's tiles, by the rule for its grid: as many columns as the root of their number, rounded up."""
        side, (rows, columns) = done.tile(name), (2, 3)
        with Image.open(sprite) as opened:
            assert opened.format == "WEBP" and opened.size == (columns * side, rows * side)
            sheet = np.asarray(opened.convert("RGB"))
        places = [(row * side, column * side) for row in range(rows) for column in range(columns)]
        return np.stack([sheet[y : y + side, x : x + side] for y, x in places])

    return cut


@pytest.mark.parametrize("name", ["0", "3", "6"])
def test_sprites_hold_each_hit_in_its_place(
    done: Study, photographs: Path, name: str, tiles_of: Callable[[Path, str], NDArray[np.uint8]]
) -> None:
    of = model()
    data, hits = tiled(photographs, of), done.mined(name)
    assert done.tile(name) == {"0": 5, "3": 15, "6": 24}[name]
    for unit in range(len(hits.values)):
        images = torch.stack([data[item][0] for item in hits.images[unit]])
        for rule in ("deconvnet", "guided"):
            found = project(of, images, name, unit, hits.positions[unit].tolist(), rule)  # type: ignore[arg-type]
            pictures = tiles_of(done.projection_sprite(rule, name, unit), name)
            # a signal at the edge between two greys may round to either
            difference = np.abs(pictures[:5].astype(int) - to_bytes(contrast(found.pixels)))
            assert difference.max() <= 1 and (difference > 0).mean() < 0.01
            assert (pictures[5] == 128).all()
        patches = tiles_of(done.patch_sprite(name, unit), name)
        assert of.preprocess is not None
        for rank, (top, left, bottom, right) in enumerate(found.boxes.tolist()):
            patch = of.preprocess.display(images[rank, :, top:bottom, left:right])[None]
            np.testing.assert_array_equal(patches[rank], to_bytes(patch)[0])
            # and the box on the photograph says where it was cut
            source = data.source_picture(int(hits.sources[unit, rank]))
            edges = hits.boxes[unit, rank] * [source.height, source.width, source.height, source.width]
            np.testing.assert_allclose(edges, edges.round(), atol=1e-4)
            y, x, below, right = edges.round().astype(int).tolist()
            np.testing.assert_array_equal(np.asarray(source)[y:below, x:right], patches[rank])


def test_boxes_of_resized_and_padded_pictures_are_clipped_fractions(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    noise(96, 48, seed=0).save(root / "tall.png")
    of = Model(network(), "padded", Preprocess((SIDE, SIDE), rule="pad"))
    study = Study(tmp_path / "study", of, root)
    study.mine("6,0", k=1)
    # the picture fills the middle 12 of 24 columns
    np.testing.assert_array_equal(study.mined("6").boxes, np.tile(np.float32([0, 0, 1, 1]), (3, 1, 1)))
    (y, x), box = study.mined("0").positions[0, 0], study.mined("0").boxes[0, 0]
    top, left = (min(max(2 * place - 2, 0), SIDE - 5) for place in (y, x))
    expected = [top / 24, (left - 6) / 12, (top + 5) / 24, (left + 5 - 6) / 12]
    np.testing.assert_allclose(box, np.clip(expected, 0, 1), rtol=1e-6)


def test_places_without_a_hit_are_grey(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", network(), torch.rand(2, 3, SIDE, SIDE))
    study.mine("0", k=4)
    study.project()
    for sprite in (study.patch_sprite("0", 0), study.projection_sprite("deconvnet", "0", 0)):
        with Image.open(sprite) as opened:
            sheet = np.asarray(opened.convert("RGB"))
        assert sheet.shape == (10, 10, 3)
        assert (sheet[5:] == 128).all() and not (sheet[:5] == 128).all()


def test_large_windows_are_shrunk_and_keep_their_shape(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(1, 2, (9, 90), padding=(4, 0)))
    study = Study(tmp_path / "study", wide, torch.rand(4, 1, 30, 100))
    study.mine(k=4)
    study.project()
    assert study.tile("0") == 64
    with Image.open(study.patch_sprite("0", 1)) as opened:
        assert opened.size == (2 * 64, 2 * 6)  # 90 × 9, in 64 × 6.4


def test_source_pictures_are_small_upright_and_without_metadata(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "at home"  # turned by 90°, a description
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise(300, 800, seed=0).save(root / "turned.jpg", exif=exif, comment=b"at home", icc_profile=profile)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "at home")
    noise(50, 40, seed=1).save(root / "little.png", pnginfo=notes, exif=exif)
    study = Study(tmp_path / "study", model(), root)
    study.mine(k=2)
    sources = study.sources()
    assert {entry["name"]: (entry["width"], entry["height"]) for entry in sources.values()} == {
        "turned.jpg": (300, 800),
        "little.png": (50, 40),
    }
    for source, entry in sources.items():
        stored = study.source_picture(source)
        with Image.open(stored) as opened:
            assert opened.format == "JPEG" and opened.size == (
                (120, 320) if entry["name"] == "turned.jpg" else (50, 40)
            )
            assert not opened.getexif() and set(opened.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"at home" not in stored.read_bytes()


def test_filters_are_drawn_once(done: Study) -> None:
    with Image.open(done.filter_sheet("0")) as opened:
        assert opened.format == "PNG" and opened.mode == "RGB"
    assert [file.name for file in (done.path / "filters").iterdir()] == ["0.png"]


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("a/b c%2F", nn.Sequential(nn.Conv2d(3, 2, 3)))
        self.add_module("größe:*?", nn.Conv2d(2, 2, 3))
        self.add_module("Größe", nn.Conv2d(2, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def test_layer_names_may_contain_any_character(tmp_path: Path) -> None:
    assert layer_path("a/b") != layer_path("a%2Fb")
    study = Study(tmp_path / "study", Odd(), torch.rand(5, 3, 12, 12))
    study.mine(k=2)
    study.project()
    study.draw_filters()
    names = ["a/b c%2F.0", "größe:*?", "Größe"]
    again = Study.open(study.path)
    assert again.mined_layers == names
    for name in names:
        assert again.mined(name).values.shape == (2, 2)
        assert again.rules(name) == ["deconvnet"]
        for sprite in (again.patch_sprite(name, 1), again.projection_sprite("deconvnet", name, 1)):
            assert sprite.parent.name == layer_path(name) and sprite.exists()
    assert again.filter_sheet("a/b c%2F.0").exists()
    for file in study.path.rglob("*"):
        assert not set(file.name) & set('/\\:*?"<>| ') and file.name.isascii()


def test_file_names_that_are_not_utf8_are_accepted(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    try:
        noise(30, 30, seed=0).save(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png"))
        Path(os.fsdecode(os.fsencode(root) + b"/broken\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    study = Study(tmp_path / "study", model(), root)
    study.mine(k=1)
    again = Study.open(study.path)
    assert again.sources()[1]["name"] == r"caf\xe9.png"
    assert list(again.info["data"]["skipped"]) == [r"broken\xe9.png"]


def test_images_may_differ_in_size_from_the_preprocessing(tmp_path: Path) -> None:
    whole = nn.Sequential(nn.Conv2d(3, 2, 5, stride=2))
    study = Study(tmp_path / "study", Model(whole, "any size", Preprocess((SIDE, SIDE))), torch.rand(3, 3, 50, 40))
    study.mine(k=3)
    study.project()
    assert study.info["model"]["input_shape"] == [3, 50, 40]
    for place, box in zip(study.mined("0").positions[0], study.mined("0").boxes[0], strict=True):
        top, left = 2 * place
        np.testing.assert_allclose(box, [top / 50, left / 40, (top + 5) / 50, (left + 5) / 40], rtol=1e-6)


def test_labels_and_classes_come_from_the_data(tmp_path: Path, done: Study) -> None:
    assert set(done.mined("0").labels.ravel().tolist()) == {0, 1}
    assert done.mined("0").class_means is not None and np.isnan(done.mined("0").class_means[2]).all()
    assert {entry["label"] for entry in done.sources().values()} == {0, 1}
    study = Study(tmp_path / "study", network(), torch.rand(3, 3, SIDE, SIDE))
    study.mine("0", k=1)
    assert study.mined("0").class_means is None and set(study.mined("0").labels.ravel().tolist()) == {-1}
    with pytest.raises(AttributeError):
        _ = study.mined("0").nothing


# reading


def test_a_study_is_read_without_torch(done: Study) -> None:
    code = """
import sys
from interpret import Study
study = Study.open(sys.argv[1])
assert study.mined_layers == ["0", "3", "6"]
assert study.mined("3").values.shape == (4, 5) and study.mined("3").boxes.shape == (4, 5, 4)
assert study.rules("0") == ["deconvnet", "guided"] and study.tile("3") == 15
assert study.patch_sprite("3", 3).exists() and study.projection_sprite("guided", "3", 3).exists()
assert all(study.source_picture(source).exists() for source in study.sources())
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, done.path], check=True)


def test_missing_layers_and_results_raise_an_error(done: Study) -> None:
    study = Study.open(done.path)
    with pytest.raises(InterpretError, match="unknown mined layer '1'"):
        study.mined("1")
    with pytest.raises(InterpretError, match="unknown layer '9'"):
        study.layer("9")
    for compute in (study.mine, study.project, study.draw_filters):
        with pytest.raises(InterpretError, match="was opened to read"):
            compute()


# going on


def test_finished_layers_are_skipped(done: Study, photographs: Path) -> None:
    before = stamps(done.path)
    study = complete(done.path, photographs)
    study.mine(["0", "6"], k=5)
    study.project("3", "guided")
    assert stamps(done.path) == before


def test_more_layers_and_rules_are_added(tmp_path: Path, done: Study, photographs: Path) -> None:
    study = begin(tmp_path / "study", photographs)
    study.mine("0", k=5)
    study.project()
    first = stamps(study.path / "mined") | stamps(study.path / "patches")
    study.draw_filters()
    study = begin(study.path, photographs)
    study.mine("3,6", k=5)
    for rule in ("deconvnet", "guided"):
        study.project(rule=rule)  # type: ignore[arg-type]
    assert all(stamps(study.path).get(file) == stamp for file, stamp in first.items() if file.endswith(("s", "p")))
    assert contents(study.path) == contents(done.path)


def test_units_are_added_to_those_that_have_pictures(tmp_path: Path, done: Study, photographs: Path) -> None:
    study = begin(tmp_path / "study", photographs)
    study.mine(k=5)
    study.project(units=1)
    liveliest = {name: int(study.mined(name).most_active[0]) for name in study.mined_layers}
    for name, unit in liveliest.items():
        for sprite in (study.patch_sprite(name, 0), study.projection_sprite("deconvnet", name, 0)):
            assert [file.name for file in sprite.parent.glob("*.webp")] == [f"{unit:04d}.webp"]
    first = contents(study.path)
    begin(study.path, photographs).project(units=1)
    assert contents(study.path) == first
    study.project(units="auto")
    study.project(rule="guided", units=2)
    study.project(rule="guided")
    study.draw_filters()
    assert contents(study.path) == contents(done.path)
    for wrong in (0, "some"):
        with pytest.raises(InterpretError, match="units must be"):
            study.project(units=wrong)  # type: ignore[arg-type]


def test_where_all_units_would_take_hours_the_liveliest_get_pictures_and_it_is_said(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path / "study", photographs)
    study.mine(k=5)
    of_layers = {name: study.mined(name) for name in study.mined_layers}
    costs = projection_budget.costs_of_units(study.traced, of_layers, (SIDE, SIDE))
    # what a unit's signals pass through: 12 · 12 · 6 · 75 products below the first layer, in 5 · 5 of 24 · 24 pixels
    first = 12 * 12 * 6 * 75 + synthesis_budget.ELEMENT * 6 * 12 * 12
    assert costs["0"] == pytest.approx(5 * (first * 25 / 576 + projection_budget.HIT))
    monkeypatch.setattr(projection_budget, "MOST", sum(costs.values()))
    monkeypatch.setattr(projection_budget, "BUDGET", 4.5 * costs["0"])
    with pytest.warns(UserWarning, match="to project all 13 units of 3 layers would take hours: 4 of them, the livel"):
        study.project(units="auto")
    pictured = {name: len(list(study.patch_sprite(name, 0).parent.glob("*.webp"))) for name in of_layers}
    assert pictured == {"0": 2, "3": 1, "6": 1}


def test_projections_of_both_overlaps_are_kept(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", network(), torch.rand(3, 3, SIDE, SIDE))
    study.mine("3", k=3)
    for _ in range(2):
        study.project(overlap="overwrite")
        study.project()
    assert study.rules("3") == ["deconvnet", "deconvnet-overwrite"]


def test_equal_studies_have_equal_bytes(tmp_path: Path, done: Study, photographs: Path) -> None:
    assert contents(complete(tmp_path / "again", photographs).path) == contents(done.path)
    assert contents(complete(tmp_path / "helped", photographs, workers=2).path) == contents(done.path)


def test_the_limit_of_waiting_tiles_changes_nothing(
    tmp_path: Path, done: Study, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_projections, "MOST_WAITING_TILES", 1)
    assert contents(complete(tmp_path / "study", photographs).path) == contents(done.path)


class Interrupted(Dataset[Any]):
    """Pictures of which some do not decode, read by someone who loses patience at one of them."""

    targets: tuple[int, ...] | None = tuple(index % 2 for index in range(14))
    classes = ("ant", "bee")

    def __init__(self, stop: int | None = None, by: type[BaseException] = KeyboardInterrupt) -> None:
        self.stop, self.by = stop, by
        self.read: list[int] = []

    def __len__(self) -> int:
        return 14

    def __getitem__(self, item: int) -> tuple[Image.Image, int]:
        if item == self.stop:
            raise self.by()
        self.read.append(item)
        if item in (1, 12):
            raise OSError("torn")
        return noise(SIDE, SIDE, seed=item), item % 2


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("uninterrupted") / "study"
    Study(path, model(), Interrupted(), batch_size=3).mine(k=3)
    return contents(path)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4, 8, 13])
def test_an_interrupted_study_continues_to_the_same_bytes(
    tmp_path: Path, uninterrupted: dict[str, bytes], stop: int
) -> None:
    data = Interrupted()
    study = Study(tmp_path, model(), data, batch_size=3)
    data.stop = stop
    with pytest.raises(KeyboardInterrupt):
        study.mine(k=3)
    assert study.mined_layers == [] and not litter(tmp_path)
    data = Interrupted()
    study = Study(tmp_path, model(), data, batch_size=3)
    data.read.clear()
    study.mine(k=3)
    assert data.read[:2] == [0, 1]  # for the dry run
    assert data.read[2] == stop // 3 * 3  # the rest is not done again, but for the hits' pictures
    assert list(study.info["data"]["skipped"]) == ["image 1", "image 12"]
    assert contents(tmp_path) == uninterrupted


class Untold(Interrupted):
    """The same, but its labels come with its pictures alone."""

    targets = None


def test_labels_that_come_with_the_pictures_survive_an_interrupt(
    tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    data = Untold()
    study = Study(tmp_path, model(), data, batch_size=3)
    assert study.data is not None and set(study.data.labels[1:].tolist()) == {-1}
    data.stop = 8
    with pytest.raises(KeyboardInterrupt):
        study.mine(k=3)
    study = Study(tmp_path, model(), Untold(), batch_size=3)
    study.mine(k=3)
    hits = study.mined("3")
    np.testing.assert_array_equal(hits.labels, hits.images % 2)
    assert {name: content for name, content in contents(tmp_path).items() if "study" not in name} == {
        name: content for name, content in uninterrupted.items() if "study" not in name
    }


STARTED = ("study.json", "study.copy.json", "mining.safetensors")
"""Files that are written before the first result."""


class Auxiliary(nn.Module):
    """A network with a head for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.aux, self.stem, self.head = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).relu())  # type: ignore[no-any-return]


def test_layers_that_do_not_run_are_ignored(tmp_path: Path) -> None:
    of, images = Auxiliary(), torch.rand(3, 3, SIDE, SIDE)
    study = Study(tmp_path, of, images)
    study.mine("*e*", k=2)
    study.project("*")
    assert study.mined_layers == ["stem", "head"] and study.rules("head") == ["deconvnet"]
    before = stamps(tmp_path)
    for layers in (None, "*", "*e*"):
        study.mine(layers, k=2)
        study.project(layers)
    assert stamps(tmp_path) == before
    with pytest.raises(InterpretError, match="'aux' did not run"):
        study.mine("aux", k=2)
    with pytest.raises(InterpretError, match="unknown mined layer 'aux'"):
        study.project("aux")
    with pytest.raises(InterpretError, match="unknown layer 'au"):
        study.mine("au*", k=2)


def test_filters_may_be_drawn_first(tmp_path: Path) -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    for _ in range(2):
        study = Study(tmp_path / "study", network(), images)
        study.draw_filters()
    assert Study.open(study.path).filter_sheet("0").exists()


class Impatient(nn.Sequential):
    """A network whose user presses Ctrl-C while it runs."""

    left = math.inf

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self):
            x = layer(x)
            if index == 2:
                Impatient.left -= 1  # the class's: batches run on copies
                if Impatient.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)
        return x


@pytest.mark.parametrize("batch", [-3, 0, 1, 2, 4])  # from 0 down: in the dry run
def test_an_interrupt_keeps_the_finished_batches(
    tmp_path: Path, uninterrupted: dict[str, bytes], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    impatient = model()
    impatient.module = Impatient(*impatient.module)
    study = Study(tmp_path, impatient, Interrupted(), batch_size=3)
    monkeypatch.setattr(Impatient, "left", 100)
    with prepared_to_mine(Miner(impatient, study.data)) as run:
        assert list(run.side_by_side([])) == []
    monkeypatch.setattr(Impatient, "left", 100 - Impatient.left + batch)
    with pytest.raises(KeyboardInterrupt):
        study.mine(k=3)
    assert signal.getsignal(signal.SIGINT) is handler
    if (tmp_path / "mining.safetensors").exists():  # it does not before a first batch has been taken in
        assert load_file(tmp_path / "mining.safetensors")["read/done"].item(1) % 3 == 0  # whole batches alone
    Study(tmp_path, model(), Interrupted(), batch_size=3).mine(k=3)
    assert contents(tmp_path) == uninterrupted


def test_a_killed_study_continues_from_the_last_saved_state(
    tmp_path: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_module, "SAVE_EVERY", 0.0)
    data = Interrupted(by=SystemExit)
    study = Study(tmp_path, model(), data, batch_size=3)
    data.stop = 10
    with pytest.raises(SystemExit):
        study.mine(k=3)
    data = Interrupted()
    study = Study(tmp_path, model(), data, batch_size=3)
    data.read.clear()
    study.mine(k=3)
    assert data.read[:5] == [0, 1, 9, 10, 11]  # the first two for the dry run
    assert contents(tmp_path) == uninterrupted


def test_an_unfinished_state_of_other_settings_is_ignored(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    data = Interrupted()
    study = Study(tmp_path, model(), data, batch_size=3)
    data.stop = 8
    with pytest.raises(KeyboardInterrupt):
        study.mine("0", k=3)
    Study(tmp_path, model(), Interrupted(), batch_size=3).mine(k=3)
    assert contents(tmp_path) == uninterrupted


# projecting goes on, too


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """After how many batches of hits Ctrl-C is pressed, one number a call; then at none."""
    stops: list[int] = []
    original = projection_module.project_hits

    def project_hits(*args: Any, **kwargs: Any) -> Iterator[Any]:
        stop = stops.pop(0) if stops else math.inf
        for number, batch in enumerate(original(*args, **kwargs)):
            if number == stop:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(study_projections, "project_hits", project_hits)
    yield stops


@pytest.fixture(scope="module")
def mined(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mined") / "study"
    Study(path, model(), tiled(photographs, model())).mine(k=5)
    return path


@pytest.mark.parametrize("at_once", [2**30, 60_000])
@pytest.mark.slow
def test_an_interrupted_projection_continues_to_the_same_bytes(
    mined: Path, photographs: Path, tmp_path: Path, stopped: list[int], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(study_projections, "MOST_WAITING_TILES", at_once)  # all layers together, and in groups
    shutil.copytree(mined, tmp_path / "whole")
    Study(tmp_path / "whole", model(), tiled(photographs, model())).project(rule=("deconvnet", "guided"))
    whole = contents(tmp_path / "whole")
    assert {name.split("/")[1] for name in whole if name.startswith("projections/")} == {"deconvnet", "guided"}
    for stops in ([0], [1], [3, 1, 2], [4, 0, 4]):
        stopped[:] = stops
        path = tmp_path / "-".join(map(str, stops))
        shutil.copytree(mined, path)
        study, interrupts = Study(path, model(), tiled(photographs, model())), 0
        while True:
            try:
                study.project(rule=("deconvnet", "guided"))
                break
            except KeyboardInterrupt:
                interrupts += 1
                assert not litter(path)
        assert interrupts >= 1 and contents(path) == whole, stops


def test_finished_projections_are_not_repeated(
    mined: Path, photographs: Path, tmp_path: Path, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mined, tmp_path / "study")
    study = Study(tmp_path / "study", model(), tiled(photographs, model()))
    seen: list[tuple[int, int]] = []

    def bar(total: int, *args: Any, initial: int = 0, **kwargs: Any) -> Any:
        seen.append((initial, total))
        return progress(total, *args, initial=initial, **kwargs)

    monkeypatch.setattr(projection_module, "progress", bar)
    stopped[:] = [4]
    with pytest.raises(KeyboardInterrupt):
        study.project()
    done = load_file(study.path / "unfinished/projections/deconvnet/done.safetensors")
    hits = sum(int((checksums >= 0).all(0).sum()) for checksums in done.values())
    assert hits > 0
    study.project("0")  # other layers' work waits
    assert (study.path / "unfinished/projections/deconvnet/done.safetensors").exists()
    study.project()
    assert not (study.path / "unfinished").exists()
    whole = sum(int((study.mined(name).images >= 0).sum()) for name in study.mined_layers)
    assert seen[0] == (0, whole)
    # the bar starts where it stopped, but for images whose hits were not all done
    assert sum(initial for initial, _ in seen[1:]) > 0 and sum(total for _, total in seen[1:]) <= whole


@pytest.mark.slow
def test_a_killed_projection_continues(mined: Path, photographs: Path, tmp_path: Path) -> None:
    """By a kill that nothing can be done about, and by a real Ctrl-C."""
    code = (
        "import sys, time\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]\n"
        "from test_study import *\n"
        "from interpret.execution import resume as unfinished\n"
        "from interpret.study import tiles\n"
        "unfinished.SAVE_EVERY = 0.0\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "take = tiles.HitTiles.update\n"
        "def slowly(*args):\n"
        "    take(*args)\n"
        "    print('taken', flush=True)\n"
        "    time.sleep(0.2 if len(sys.argv) > 4 else 0)\n"
        "tiles.HitTiles.update = slowly\n"
        "Study(sys.argv[1], model(), tiled(Path(sys.argv[2]), model())).project()\n"
    )
    command = [sys.executable, "-c", code]
    arguments = [str(photographs), str(torch.get_num_threads())]
    found = {}
    for name, sent in (("whole", None), ("killed", signal.SIGKILL), ("interrupted", signal.SIGINT)):
        path = tmp_path / name
        shutil.copytree(mined, path)
        if sent is not None:
            with subprocess.Popen([*command, str(path), *arguments, "slowly"], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for _ in range(4):
                    process.stdout.readline()
                process.send_signal(sent)
            assert process.returncode != 0
            masks = load_file(path / "unfinished/projections/deconvnet/done.safetensors")
            assert sum(int((checksums >= 0).all(0).sum()) for checksums in masks.values()) > 0
        subprocess.run([*command, str(path), *arguments], check=True, stdout=subprocess.DEVNULL)
        found[name] = contents(path)
    assert found["whole"] == found["killed"] == found["interrupted"]


@pytest.mark.parametrize("name", ["mine.txt", "0.patches.npy", "done.safetensors"])
def test_foreign_files_in_the_folder_of_unfinished_projections_are_refused(
    mined: Path, photographs: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(mined, tmp_path / "study")
    file = tmp_path / "study/unfinished/projections/deconvnet" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InterpretError, match=r"not written by interpret|not by interpret"):
        Study(tmp_path / "study", model(), tiled(photographs, model())).project()
    assert file.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\0\0\0\0\0\0\0no json!", save({"mine": np.ones(2)})])
def test_a_foreign_file_at_the_place_of_the_unfinished_state_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    study = Study(tmp_path / "study", model(), Interrupted(), batch_size=3)
    study.path.mkdir()
    (study.path / "study.json").write_text(json.dumps(study.info))
    (study.path / "mining.safetensors").write_bytes(content)
    with pytest.raises(InterpretError, match=r"mining\.safetensors' is not as interpret wrote it, or not by interpret"):
        study.mine(k=3)
    assert (study.path / "mining.safetensors").read_bytes() == content


# a full disk


class FullDisk:
    """Lets so many files be written, and then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: float) -> None:
        self.room = room
        for owner, method in ((Path, "write_bytes"), (Path, "write_text"), (Image.Image, "save"), (Path, "mkdir")):
            monkeypatch.setattr(owner, method, self.limited(getattr(owner, method), method))

    def limited(self, write: Callable[..., Any], method: str) -> Callable[..., Any]:
        def limited(this: Any, *args: Any, **kwargs: Any) -> Any:
            if method == "mkdir" and this.exists():
                return write(this, *args, **kwargs)
            self.room -= 1
            if self.room < 0:
                target = this if isinstance(this, Path) else args[0]
                if method != "mkdir" and isinstance(target, Path):
                    with target.open("wb") as half:
                        half.write(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            return write(this, *args, **kwargs)

        return limited


@pytest.mark.slow
def test_after_a_full_disk_nothing_is_half_written_and_work_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    tiny = nn.Sequential(nn.Conv2d(3, 2, 5))

    def everything(path: Path) -> None:
        study = Study(path, tiny, images)
        study.mine(k=2)
        study.project()
        study.draw_filters()

    everything(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    room = 0
    while True:
        path = tmp_path / str(room)
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, room)
            try:
                everything(path)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        if disk.room >= 0:
            break
        assert not path.exists() or not litter(path)
        for name, content in contents(path).items():
            unfinished = name.startswith("unfinished/") or name in STARTED
            if name == "sources/0.json":  # a list that grows: what it has is what it will have
                listed, all_listed = json.loads(content), json.loads(whole[name])
                assert {**all_listed, **listed, "sha256": all_listed["sha256"]} == all_listed, room
            else:
                assert content == whole.get(name) or unfinished, (room, name)
        if (path / "study.json").exists():
            Study.open(path)
        copy_alone = not (path / "study.json").exists() and (path / "study.copy.json").exists()
        with pytest.warns(UserWarning, match="its copy") if copy_alone else nullcontext():
            everything(path)
        assert contents(path) == whole, room
        room += 1
    assert room >= 15


def test_a_full_disk_while_saving_unfinished_work_keeps_the_older_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, bytes]
) -> None:
    data = Interrupted()
    study = Study(tmp_path, model(), data, batch_size=3)
    data.stop = 5
    with pytest.raises(KeyboardInterrupt):
        study.mine(k=3)
    before = contents(tmp_path)
    monkeypatch.setattr(unfinished_module, "SAVE_EVERY", 0.0)
    study = Study(tmp_path, model(), Interrupted(), batch_size=3)
    with monkeypatch.context() as patch:
        FullDisk(patch, 0)
        with pytest.raises(OSError, match="No space left"):
            study.mine(k=3)
    assert contents(tmp_path) == before and not litter(tmp_path)
    Study(tmp_path, model(), Interrupted(), batch_size=3).mine(k=3)
    assert contents(tmp_path) == uninterrupted


# what it refuses


@pytest.fixture
def copy(done: Study, tmp_path: Path) -> Path:
    shutil.copytree(done.path, tmp_path / "study")
    return tmp_path / "study"


def test_results_of_other_weights_data_or_precision_are_refused(copy: Path, photographs: Path) -> None:
    before = contents(copy)
    of = model()
    with pytest.raises(InterpretError, match=r"study holds results of other weights \(model 'small'\): choose another"):
        Study(copy, model(1), tiled(photographs, model(1)))
    with pytest.raises(InterpretError, match="holds results of other data"):
        Study(copy, of, open_images(photographs, of))
    with pytest.raises(InterpretError, match="holds results of other precision"):
        Study(copy, of, tiled(photographs, of), dtype="bfloat16")
    with pytest.raises(InterpretError, match="dtype must be float32 or bfloat16, not 'float16'"):
        Study(copy, of, tiled(photographs, of), dtype="float16")
    study = begin(copy, photographs)
    with pytest.raises(InterpretError, match=r"was mined with k=5 and seed=0, not k=9 and seed=0"):
        study.mine()
    with pytest.raises(InterpretError, match=r"not k=5 and seed=1"):
        study.mine("1", k=5, seed=1)
    with pytest.raises(InterpretError, match="unknown layer 'nothing'"):
        study.mine("nothing", k=5)
    with pytest.raises(InterpretError, match="unknown mined layer '1'"):
        study.project("1")
    with pytest.raises(InterpretError, match="rule must be one of"):
        study.project(rule="decon")  # type: ignore[arg-type]
    with pytest.raises(InterpretError, match="overlap must be one of"):
        study.project(overlap="../other")  # type: ignore[arg-type]
    assert contents(copy) == before


def test_images_of_another_size_are_other_inputs(tmp_path: Path) -> None:
    headless = nn.Sequential(*network()[:5])
    Study(tmp_path, headless, torch.rand(2, 3, SIDE, SIDE)).mine(k=1)
    with pytest.raises(InterpretError, match="holds results of other inputs"):
        Study(tmp_path, headless, torch.rand(2, 3, 30, 30))


def test_a_changed_photograph_is_other_data(photographs: Path, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(photographs, root)
    study = begin(tmp_path / "study", root)
    study.mine("0", k=1)
    noise(48, 48, seed=99).save(root / "bee" / "9.png")
    with pytest.raises(InterpretError, match="other data"):
        begin(tmp_path / "study", root)


def test_hits_of_another_network_are_not_projected(tmp_path: Path) -> None:
    """The hash of the weights does not see everything that a network is."""
    images = torch.rand(4, 3, SIDE, SIDE)
    for change in ({"padding": (0, 0)}, {"stride": (3, 3)}, {"dilation": (2, 2)}):
        path = tmp_path / next(iter(change))
        mined, other = (nn.Sequential(*network()[:5]) for _ in range(2))
        Study(path, mined, images).mine(k=3)
        vars(other[0]).update(change)
        before = contents(path)
        with pytest.raises(InterpretError, match="project with the model and data that were mined"):
            Study(path, other, images).project()
        assert contents(path) == before and not litter(path)


@pytest.mark.parametrize("k", [0, -1])
def test_invalid_input_writes_nothing(tmp_path: Path, k: int) -> None:
    study = Study(tmp_path / "study", network(), torch.rand(3, 3, SIDE, SIDE))
    with pytest.raises(InterpretError, match=f"k must be at least 1, not {k}"):
        study.mine(k=k)
    broken = torch.rand(3, 3, SIDE, SIDE)
    broken[1] = math.nan
    study = Study(tmp_path / "study", network(), broken)
    with pytest.raises(InterpretError, match="on image 1"):
        study.mine()
    assert not (tmp_path / "study" / "mined").exists() and not litter(tmp_path)


def test_a_folder_with_other_content_is_refused_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("1")
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with pytest.raises(InterpretError, match="exists and is no study: choose another folder"):
            Study(path, network(), torch.rand(2, 3, SIDE, SIDE))
        with pytest.raises(InterpretError, match=r"is no study: it has no study\.json"):
            Study.open(path)
    assert contents(tmp_path) == {"thesis/chapter.txt": b"1"}
    (tmp_path / "empty").mkdir()
    Study(tmp_path / "empty", network(), torch.rand(2, 3, SIDE, SIDE)).mine("0", k=1)
    assert Study.open(tmp_path / "empty").mined_layers == ["0"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\0", b"[]", b"null", b'{"format": 2}', b'{"format": 1}'])
def test_a_study_whose_study_json_is_damaged_with_its_copy_raises_an_error(
    copy: Path, photographs: Path, content: bytes
) -> None:
    for name in ("study.json", "study.copy.json"):
        (copy / name).write_bytes(content)
    before = contents(copy)
    for begin_or_open in (Study.open, lambda path: begin(path, photographs)):
        with pytest.raises(InterpretError, match=r"study\.json (is damaged|has another format|has format 2, and this)"):
            begin_or_open(copy)
    assert contents(copy) == before


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"format": 1}', "flipped"])
def test_a_damaged_study_json_is_restored_from_its_copy(
    copy: Path, photographs: Path, content: bytes | str | None
) -> None:
    whole = contents(copy)
    file = copy / "study.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b'"k": ', b'"k": 1') if isinstance(content, str) else content)
    damaged = contents(copy).get("study.json")
    with pytest.warns(UserWarning, match=r"study\.json' is damaged or missing: its copy study\.copy\.json is read"):
        assert Study.open(copy).mined_layers == Study.open(copy).mined_layers != []
    assert contents(copy).get("study.json") == damaged  # reading changes nothing
    with pytest.warns(UserWarning, match="its copy"):
        study = begin(copy, photographs)
    study.mine(k=study.info["settings"]["k"])
    found = contents(copy)
    assert found.pop("damaged/study.json", None) == damaged
    assert found == whole


def test_data_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        (tmp_path / "pictures" / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(InterpretError, match="none of the 3 images"):
        Study(tmp_path / "study", model(), tmp_path / "pictures")
    assert not (tmp_path / "study").exists()


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    of = network().train()
    study = Study(tmp_path / "study", of, torch.rand(3, 3, SIDE, SIDE))
    study.mine(k=2)
    study.project()
    assert all(layer.training for layer in of.modules()) and all(weight.requires_grad for weight in of.parameters())
    assert of[0].weight.is_contiguous()


def test_reduced_precision_is_mined_and_projected(tmp_path: Path) -> None:
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    study = Study(tmp_path / "study", network(), images, dtype="bfloat16")
    study.mine(k=2)
    study.project()
    assert study.info["settings"]["dtype"] == "bfloat16" and study.rules("3") == ["deconvnet"]
    study.project(dtype="bfloat16")
    assert study.rules("3") == ["deconvnet", "deconvnet-bfloat16"]  # never mixed
    units = range(len(study.mined("3").values))
    pictures = [
        [np.asarray(Image.open(study.projection_sprite(rule, "3", unit)), float) for unit in units]
        for rule in study.rules("3")
    ]
    assert 0 < np.abs(np.subtract(*pictures)).mean() < 1
    with pytest.raises(InterpretError, match="dtype must be float32 or bfloat16, not 'float16'"):
        study.project(dtype="float16")
    exact = mine(network(), images, k=2)
    assert 0 < np.abs(study.mined("0").values - exact["0"].values).max() < 0.05


def test_its_layers_are_those_of_the_trace(done: Study) -> None:
    layers = trace(network(), (3, SIDE, SIDE))
    assert [record["name"] for record in done.layers] == list(layers)
    for record in done.layers:
        layer = layers[record["name"]]
        assert done.layer(layer.name) is record
        assert (record["kind"], record["params"], record["macs"]) == (layer.kind, layer.params, layer.macs)
        assert (record["input_shape"], record["output_shape"]) == (
            list(layer.input_shape or ()),
            list(layer.output_shape),
        )


def test_parts_run_the_network_dry_once(tmp_path: Path) -> None:
    """Behind the first part that needs all layers, one runs each image, and a pair to find how outputs are read."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    model = Model(network, name="three", classes=("a", "b", "c"))
    study = Study(tmp_path / "study", model, torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    study.mine("0", k=2)
    study.find_activation_range_examples()
    passes: list[int] = []
    network.register_forward_hook(lambda _module, inputs, _outputs: passes.append(len(inputs[0])))
    study.predict()
    assert passes == [2, 6]
