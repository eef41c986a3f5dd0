"""The source images of a study: their small pictures and predictions, of all of them, in lists of a thousand."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from helpers.files import contents, noise
from interpret.execution import resume
from interpret.gallery import write_gallery
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study import source_lists
from interpret.study.damage import find_damage
from interpret.study.overview import overview, overview_text
from interpret.study.study import Study
from interpret.study.timings import read_timings
from interpret.support.checksums import KEY

COUNT, TORN = 26, (3, 17)


class Watched(nn.Sequential):
    """Notes what it sees, and is interrupted before a forward pass."""

    seen: ClassVar[list[Tensor]] = []
    stop: ClassVar[float] = float("inf")

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1 and len(Watched.seen) >= Watched.stop:
            raise KeyboardInterrupt
        Watched.seen.append(images)
        return super().forward(images)


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lists of ten sources, saved after each batch."""
    monkeypatch.setattr(source_lists, "SOURCES_A_LIST", 10)
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    yield
    Watched.stop = float("inf")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        noise(30, 40, number).save(folder / f"{number:02}.png")
    for number in TORN:
        (folder / f"{number:02}.png").write_bytes((folder / f"{number:02}.png").read_bytes()[:900])
    return folder


READABLE = [number for number in range(COUNT) if number not in TORN]


def model() -> Model:
    torch.manual_seed(0)
    network = Watched(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Model(network.eval(), "small", Preprocess((24, 24)), ("fox", "goldfish", "jay"))


def begin(path: Path, photographs: Path) -> Study:
    of = model()
    return Study(path, of, open_images(photographs, of), batch_size=4)


def lists(study: Path) -> dict[str, list[int]]:
    found = {file.name: json.loads(file.read_text()) for file in sorted((study / "sources").glob("*.json"))}
    return {name: [int(key) for key in records if key != KEY] for name, records in found.items()}


def test_every_image_is_in_a_list_with_its_picture_and_its_prediction(tmp_path: Path, photographs: Path) -> None:
    study = begin(tmp_path / "study", photographs)
    study.predict()
    assert lists(study.path) == {
        f"{j}.json": [one for one in READABLE if one // 10 == j] for j in range(3)
    }  # fmt: skip
    found = study.predictions()
    assert found.sources.tolist() == list(study.sources()) == READABLE
    assert found.names == [f"{number:02}.png" for number in READABLE]
    assert list(study.info["data"]["skipped"]) == ["03.png", "17.png"] and study.info["data"]["sources"] == COUNT - 2
    for row, number in enumerate(READABLE):
        with Image.open(photographs / f"{number:02}.png") as picture, torch.inference_mode():
            expected = study.model.module(study.model.preprocess(picture)[None]).double().softmax(1)[0]  # type: ignore[union-attr, misc]
        np.testing.assert_allclose(found.probabilities[row], sorted(expected.tolist(), reverse=True), rtol=1e-5)
        record = study.sources()[number]
        with Image.open(study.source_picture(number)) as picture:
            assert list(picture.size) == record["picture"] == [40, 30]
    steps = {step["name"]: step["count"] for step in read_timings(study.path)[0]["steps"]}
    assert steps["keeping pictures"] == COUNT  # those that do not decode were tried
    before = contents(study.path)
    Watched.seen.clear()
    again = begin(study.path, photographs)
    Watched.seen.clear()
    again.predict()
    assert not Watched.seen and contents(study.path) == before


def test_only_lists_to_which_something_is_added_are_written(tmp_path: Path, photographs: Path) -> None:
    study = begin(tmp_path / "study", photographs)
    study.mine(k=1)
    study.predict(every_image=False)
    before = {file.name: file.stat().st_ino for file in (study.path / "sources").glob("*.json")}
    shown, predicted = set(study.sources()), study.predictions()
    assert 0 < len(shown) < len(READABLE) - 10
    Watched.seen.clear()
    study.predict()
    # each image but those that were known, and the dry run of the first two
    assert sum(map(len, Watched.seen)) <= len(READABLE) - len(shown) + 10
    found = study.predictions()
    kept = np.isin(found.sources, predicted.sources)
    assert found.sources.tolist() == READABLE and (found.probabilities[kept] == predicted.probabilities).all()
    study.predict()
    inodes = {file.name: file.stat().st_ino for file in (study.path / "sources").glob("*.json")}
    again = {file.name: file.stat().st_ino for file in (study.path / "sources").glob("*.json")}
    assert inodes == again and set(before) <= set(inodes)


@pytest.mark.parametrize("mined", [True, False])
def test_an_interrupt_costs_the_last_batch_alone(tmp_path: Path, photographs: Path, mined: bool) -> None:
    whole = begin(tmp_path / "whole", photographs)
    if mined:
        whole.mine(k=2)
    Watched.seen.clear()
    whole.predict()
    passes = len(Watched.seen)
    expected = contents(whole.path)
    for stop in (passes - 5, passes - 3, passes - 1):
        study = begin(tmp_path / f"study{stop}", photographs)
        if mined:
            study.mine(k=2)
        Watched.seen.clear()
        Watched.stop = stop
        with pytest.raises(KeyboardInterrupt):
            study.predict()
        Watched.stop = float("inf")
        parts = sorted((study.path / "unfinished" / "predictions").iterdir())
        assert parts and study.predictions() is None
        size = [file.stat().st_size for file in parts]
        assert max(size) < 2 * min(size)  # each holds what is new
        again = begin(study.path, photographs)
        Watched.seen.clear()
        again.predict()
        assert len(Watched.seen) < passes - len(parts) + 2
        assert contents(study.path) == expected, stop


def test_interrupted_pictures_are_kept(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = begin(tmp_path / "whole", photographs)
    whole.predict()
    study = begin(tmp_path / "study", photographs)
    assert study.data is not None
    made, source_picture = [], study.data.source_picture

    def watched(source: int) -> Any:
        made.append(source)
        if len(made) == 18:
            raise KeyboardInterrupt
        return source_picture(source)

    monkeypatch.setattr(study.data, "source_picture", watched)
    with pytest.raises(KeyboardInterrupt):
        study.predict()
    kept = list(study.sources())
    assert kept == [one for one in READABLE if one < 16]
    again = begin(study.path, photographs)
    monkeypatch.setattr(again.data, "source_picture", lambda source: made.append(source) or source_picture(source))
    made.clear()
    again.predict()
    assert made == list(range(16, COUNT)) or made == [3, *range(16, COUNT)]  # the torn one may be tried again
    assert contents(study.path) == contents(whole.path)


@pytest.fixture
def earlier(tmp_path: Path, photographs: Path) -> Path:
    """A study with one list of the pictures of hits, as earlier versions wrote it, and its predictions."""
    study = begin(tmp_path / "earlier", photographs)
    study.mine(k=2)
    study.project()
    study.predict(every_image=False)
    records = study.sources()
    for number, record in records.items():
        study.source_picture(number).rename(study.path / "sources" / f"{number}.jpg")
        del record["picture"]
    for path in (study.path / "sources").iterdir():
        if not path.name.endswith(".jpg"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (study.path / "sources.json").write_text(json.dumps({str(number): record for number, record in records.items()}))
    return study.path


def test_studies_of_earlier_versions_are_read_and_continued(earlier: Path, photographs: Path, tmp_path: Path) -> None:
    study = Study.open(earlier)
    hits = list(study.sources())
    assert 0 < len(hits) < len(READABLE) and not list(find_damage(study))
    out = write_gallery(study, tmp_path / "gallery").parent
    for number in hits:
        page = (out / "images" / f"{number}.html").read_text()
        assert f'src="../sources/{number}.jpg" width="40" height="30"' in page
    before = (earlier / "sources.json").read_bytes()
    begun = begin(earlier, photographs)
    begun.predict()
    assert list(begun.sources()) == [*hits, *(one for one in READABLE if one not in hits)]
    assert (earlier / "sources.json").read_bytes() == before and not list(find_damage(begun))
    write_gallery(earlier, out)
    assert {file.name for file in (out / "images").glob("[0-9]*")} == {f"{number}.html" for number in READABLE}
    other = next(one for one in READABLE if one not in hits)
    assert f'src="../sources/{other // 10}/{other}.jpg"' in (out / "images" / f"{other}.html").read_text()
    # the list is lost
    (earlier / "sources.json").unlink()
    assert [one.file.name for one in find_damage(begun)] == ["sources.json"]
    with pytest.warns(UserWarning, match="sources.json' is damaged"):
        begin(earlier, photographs).predict()
    assert not list(find_damage(begun)) and sorted(begun.sources()) == READABLE


@pytest.mark.parametrize("damaged", ["sources/1.json", "sources/1/12.jpg"])
@pytest.mark.parametrize("how", ["deleted", "changed", "emptied"])
def test_damage_is_found_and_mended(tmp_path: Path, photographs: Path, damaged: str, how: str) -> None:
    study = begin(tmp_path / "study", photographs)
    study.mine(k=2)
    study.predict()
    expected, file = contents(study.path), study.path / damaged
    if how == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"1", b"2") if how == "changed" else b"")
    assert [one.file for one in find_damage(study)] == [file]
    assert overview(study, check=True)["damaged"][0]["file"] == damaged if damaged.endswith("jpg") else True
    with pytest.warns(UserWarning, match="is damaged"):
        begin(study.path, photographs).predict()
    found = {name: content for name, content in contents(study.path).items() if not name.startswith("damaged")}
    assert found == expected


def test_pictures_of_many_images_are_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpret.study.reader.FEW_SOURCES", 2)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        noise(300, 400, number).save(folder / f"{number}.png")
    for count, side in ((3, 160), (2, 320)):
        study = begin(tmp_path / f"study{count}", folder)
        study.predict()
        assert {tuple(record["picture"]) for record in study.sources().values()} == {(side, side * 3 // 4)}
        for number in range(count):
            with Image.open(study.source_picture(number)) as picture:
                assert picture.size == (side, side * 3 // 4)
        assert f"of {count} sources, {side} pixels at most" in overview_text(overview(study))
        (folder / "2.png").unlink(missing_ok=True)


def test_what_the_network_cannot_answer_is_said_and_pictures_are_kept(tmp_path: Path, photographs: Path) -> None:
    study = begin(tmp_path / "study", photographs)
    assert study.model is not None
    with torch.no_grad():
        study.model.module[4].weight.fill_(float("nan"))  # type: ignore[index]
    study.predict()
    assert "NaN or infinite" in study.info["settings"]["unpredicted"]
    assert list(study.sources()) == READABLE and not (study.path / "unfinished").exists()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where waiting for the disk takes no time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_there_is_no_limit(in_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More images than earlier versions predicted, 10,000, or gave a page, 2,000."""
    monkeypatch.undo()
    count = 10_010
    torch.manual_seed(0)
    images = torch.rand(count, 1, 1, 1).expand(-1, -1, 6, 6)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    study = Study(in_memory / "study", Model(network.eval(), "small", None, ("a", "b", "c")), images)
    study.mine("0", k=2)
    study.predict()
    assert study.predictions().sources.tolist() == list(range(count))
    assert [len(records) for _, records in study.source_lists.records()] == [1000] * 10 + [10]
    out = write_gallery(study, in_memory / "gallery").parent
    assert {file.name for file in (out / "images").glob("[0-9]*")} == {f"{number}.html" for number in range(count)}
    assert len(list((out / "sources").rglob("*.jpg"))) == count
    last = (out / "images" / "index-42.html").read_text()
    assert 'href="10009.html"' in last and f"Page 42 of 42, from image {41 * 240} to image 10009" in last
    assert f'"images":[0,{count}]' in (out / "assets" / "index.js").read_text()
