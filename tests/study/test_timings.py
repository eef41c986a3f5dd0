"""How long the parts of a study took: recorded, and without influence on its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.commands import command, refused
from helpers.files import contents, noise
from interpret.execution import resume
from interpret.study.study import Study
from interpret.study.timings import TIMINGS, read_timings, timed
from interpret.support.errors import InterpretError
from interpret.support.progress import Progress, progress


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


def images() -> torch.Tensor:
    return torch.rand(24, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def counts(study: Study, part: str) -> list[tuple[str, int]]:
    return [
        (entry["outcome"], entry["steps"][0]["count"]) for entry in read_timings(study.path) if entry["part"] == part
    ]


def test_each_part_is_timed_once(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", network(), images(), batch_size=8)
    for _ in range(2):  # the second finds all done
        study.mine(k=2)
        study.project()
        study.draw_filters(every=True)
        study.connect()
        study.find_activation_range_examples()
    found = {entry["part"]: entry for entry in read_timings(study.path)}
    assert list(found) == ["mining", "projection", "filters", "connections", "activation range"]
    assert len(read_timings(study.path)) == 5
    assert counts(study, "mining") == [("done", 24)]
    assert counts(study, "projection") == [("done", 2 * 6)]
    assert found["mining"]["batch_size"] == 8 and found["mining"]["device"] == "cpu"
    assert [step["unit"] for step in found["mining"]["steps"]] == ["img", "picture"]


def test_interrupted_work_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path / "study", network(), images(), batch_size=4)
    seen = 0
    original = resume.Unfinished.save

    def save(self: Any, found: Any) -> None:
        nonlocal seen
        original(self, found)
        seen += 1
        if seen == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(resume.Unfinished, "save", save)
    with pytest.raises(KeyboardInterrupt):
        study.mine(k=2)
    monkeypatch.undo()
    Study(tmp_path / "study", network(), images(), batch_size=4).mine(k=2)
    (first, before), (second, after) = counts(study, "mining")
    assert (first, second) == ("interrupted", "done") and before > 0 and after > 0 and before + after == 24


def test_results_do_not_depend_on_it(tmp_path: Path) -> None:
    for name in ("one", "other"):
        Study(tmp_path / name, network(), images()).mine(k=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert (tmp_path / "one" / TIMINGS).exists()
    (tmp_path / "one" / TIMINGS).unlink()
    assert read_timings(tmp_path / "one") == []


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    for part in ("mining", "projection"):
        with timed(tmp_path, part), progress(1, part) as bar:
            bar.update()
        with (tmp_path / TIMINGS).open("a") as file:
            file.write('{"part": "predictions", "outc')
    assert [entry["part"] for entry in read_timings(tmp_path)] == ["mining", "projection"]


def test_a_file_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    (tmp_path / TIMINGS).write_text("my own times\n")
    with pytest.raises(InterpretError, match="not as interpret wrote it"), timed(tmp_path, "mining"):
        pass
    assert (tmp_path / TIMINGS).read_text() == "my own times\n"


def test_nothing_is_written_where_there_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), timed(tmp_path, "mining"), progress(1, "mining"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


NET = """
import torch
from torch import nn
from interpret import Model, Preprocess

def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Model(nn.Sequential(*layers), "net", Preprocess((16, 16)), classes=("a", "b"))
"""
VERBS = {
    "probe": ("--transform", "scale", "--values", "1,2", "--images", "all", "--batch-size", 2, "--workers", 0),
    "occlude": ("--size", 4, "--stride", 4, "--images", 1),
    "neighbours": ("--queries", "0,1", "-k", 2, "--batch-size", 2, "--workers", 0),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "net.py").write_text(NET)
    (folder / "images").mkdir()
    for number in range(6):
        noise(20, 60, number).save(folder / "images" / f"{number}.png")
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupted_subcommand_leaves_how_long_it_took(
    verb: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(monkeypatch, "mine", f"{pictures}/net.py:build", pictures / "images", "--study", tmp_path / "study")
    before = len(read_timings(tmp_path / "study"))
    original = Progress.update

    def update(self: Progress, number: int = 1) -> None:
        original(self, number)
        if self.description != "finding images":
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", update)
    command(monkeypatch, verb, tmp_path / "study", *VERBS[verb], "--out", tmp_path / "a.png", status=130)
    found = read_timings(tmp_path / "study")[before:]
    assert [(entry["part"], entry["outcome"]) for entry in found] == [(verb, "interrupted")]
    assert found[0]["steps"][0]["count"] >= 1
    monkeypatch.setattr(Progress, "update", original)
    command(monkeypatch, verb, tmp_path / "study", *VERBS[verb], "--out", tmp_path / "a.png")
    assert read_timings(tmp_path / "study")[-1]["outcome"] == "done"


@pytest.mark.parametrize("verb", VERBS)
def test_subcommands_decode_pictures_as_asked(
    verb: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = (f"{pictures}/net.py:build", pictures / "images", "--out", tmp_path / "a.png", "--max-megapixels", 0.001)
    said = refused(capsys, monkeypatch, verb, *subject, *VERBS[verb])
    assert "megapixels are more than" in said or said.endswith("has no image that can be read")
    command(monkeypatch, verb, *subject[:-1], 0.01, "--reduced", *VERBS[verb], "--study", tmp_path / "study")
    assert Study.open(tmp_path / "study").info["made_from"]["max_pixels"] == 10_000
    assert Study.open(tmp_path / "study").info["data"]["opened_from"]["reduced"] is True
    capsys.readouterr()
    for option in (("--max-megapixels", 1), ("--reduced",)):
        said = refused(capsys, monkeypatch, verb, tmp_path / "study", *option, "--out", tmp_path / "b.png")
        assert said.endswith(f"leave out {' '.join(map(str, option))}".replace(" 1", " 1.0"))
