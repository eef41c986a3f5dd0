"""The log of the command: on the error stream, as text or as JSON, before and after the subcommand."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from helpers.commands import command
from helpers.files import noise
from interpret.study.timings import TIMINGS, read_timings
from interpret.support import progress as progress_module
from interpret.support.progress import Progress


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        noise(seed=number).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    return folder


def test_verbose_says_what_is_done(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    command(monkeypatch, "mine", "lenet", pictures, "--study", study, "--layers", "conv1", "-v", "--workers", 0)
    out, err = capsys.readouterr()
    assert out.startswith("Mined 20 units of 1 layer")
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in err.splitlines()]
    assert any(re.fullmatch(r"mining: 5 img in [\d.]+ m?s, [\d,.]+ img/s", line) for line in said)
    assert "lenet runs on cpu, channels_last" in said and any(line.startswith("skipped 'broken.png'") for line in said)
    assert len(said) > 8

    command(monkeypatch, "-v", "mine", "lenet", pictures, "--study", study, "--layers", "conv2", "--workers", 0)
    again = capsys.readouterr().err
    assert "continuing the study" in again and "lenet runs on cpu" in again


def test_without_verbose_only_results_are_said(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    command(monkeypatch, "mine", "lenet", pictures, "--study", study, "--layers", "conv1", "--workers", 0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("lenet: ") and lines[1].startswith("1 of 6 files could not be read")


def test_without_a_terminal_a_line_says_how_far_it_is(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here after every batch, instead of every minute."""
    monkeypatch.setattr(progress_module, "LOG_EVERY", 0.0)
    own = ["--layers", "conv1", "--workers", 0, "--batch-size", 2, "--crops", "center"]
    command(monkeypatch, "mine", "lenet", pictures, "--study", tmp_path / "study", *own)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mining: ")]
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(r"mining: \d of 6 img, [\d.,]+ img/s, [\d.]+.(ms|s) left", line), line


@pytest.mark.parametrize("place", ["before", "after"])
def test_every_line_is_json(
    place: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also an error in the input, and one of the command line."""
    levels = [logging.getLogger(name).level for name in ("interpret", "interpret.cli", "interpret.progress")]
    own = ["mine", "lenet", pictures, "--study", tmp_path / "study", "--layers", "conv1", "--workers", 0]
    options = ["--log-json", "-v"]
    for arguments, status in ((own, 0), ([*own, "-k", 0], 2), ([*own, "-k", "many"], 2)):
        line = [*options, *arguments] if place == "before" else [*arguments, *options]
        command(monkeypatch, *line, status=status)
        records = [json.loads(one) for one in capsys.readouterr().err.splitlines()]
        assert records and all({"time", "level", "logger", "message"} <= set(record) for record in records)
        if status:
            assert records[-1]["level"] == "error" and records[-1]["status"] == 2
        else:
            assert next(one for one in records if one.get("step") == "mining")["done"] == 5
            assert next(one for one in records if one.get("skipped")) | {"skipped": 1, "files": 6}
    assert levels == [logging.getLogger(name).level for name in ("interpret", "interpret.cli", "interpret.progress")]
    assert Progress.bars and not logging.getLogger("interpret").handlers


def test_a_rank_says_which_it_is(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    command(monkeypatch, "summary", "lenet", "--log-json")
    assert json.loads(capsys.readouterr().err)["rank"] == 3


def test_an_analysis_is_timed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    (pictures / "broken.png").unlink()
    command(
        monkeypatch, "probe", "lenet", pictures, "--study", study, "--transform", "rotation", "--values", "0,10",
        "--images", 2, "--crops", "center", "--out", tmp_path / "figure.png", "--workers", 0,
    )  # fmt: skip
    (entry,) = read_timings(study)
    assert (entry["part"], entry["outcome"], entry["device"]) == ("invariance rotation", "done", "cpu")
    steps = [(step["name"], step["unit"], step["count"]) for step in entry["steps"]]
    assert steps == [("finding images", "file", 5), ("probing", "img", 2)]
    assert 0 < entry["steps"][1]["seconds"] <= entry["seconds"]
    assert (study / TIMINGS).read_text().count("\n") == 1
