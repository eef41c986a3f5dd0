"""How long the parts of a study took: recorded, and without influence on its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.files import contents
from interpret.execution import resume
from interpret.study.study import Study
from interpret.study.timings import TIMINGS, read_timings, timed
from interpret.support.errors import InterpretError
from interpret.support.progress import progress


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
