"""What `interpret study` says of a study."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from helpers.commands import command, refused, run_apart
from helpers.files import noise
from interpret.study.overview import overview, overview_text
from interpret.study.reader import StudyReader
from interpret.study.timings import TIMINGS
from interpret.support.errors import InterpretError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overview")
    (folder / "pictures").mkdir()
    for number in range(6):
        noise(seed=number).save(folder / "pictures" / f"{number}.png")
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (folder / "pictures" / name).write_bytes(b"\x89PNG broken")
    with pytest.MonkeyPatch.context() as monkeypatch:
        own = ["--study", folder / "study", "--layers", "conv1", "--workers", 0, "--batch-size", 4]
        command(monkeypatch, "mine", "lenet", folder / "pictures", *own)
        command(monkeypatch, "project", folder / "study", "--rule", "guided")
    return folder / "study"


def test_as_json(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, "study", study, "--json")
    found = json.loads(capsys.readouterr().out)
    info = json.loads((study / "study.json").read_text())
    assert found["model"]["weights_hash"] == info["model"]["weights_hash"]
    assert found["data"]["fingerprint"] == info["data"]["fingerprint"]
    assert (found["data"]["items"], set(found["data"]["skipped"])) == (6, {"a.png", "b.png", "c.png", "d.png"})
    assert found["holds"]["mined"] == ["conv1"] and found["holds"]["units"] == 20
    assert found["holds"]["projected"] == {"guided": ["conv1"]} and found["holds"]["unfinished"] == []
    assert found["bytes"] == sum(file.stat().st_size for file in study.rglob("*") if file.is_file())
    mining, projection = (
        next(one for one in found["took"] if one["part"] == part) for part in ("mining", "projection")
    )
    assert (mining["steps"][0]["count"], mining["batch_size"], mining["device"]) == (6, 4, "cpu")
    assert mining["steps"][0]["per_second"] == pytest.approx(6 / mining["steps"][0]["seconds"], abs=1e-3)
    assert projection["steps"][0] | {"count": 20 * 6, "unit": "hit"} == projection["steps"][0]


def test_as_text(study: Path) -> None:
    text = overview_text(overview(StudyReader(study)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "skipped 4 files, as it is no image of a known format: a.png, b.png, c.png …" in lines
    assert "mined 1 layer, 20 units" in lines and "projected, guided all mined layers" in lines
    assert any(re.fullmatch(r"mining [\d.]+ m?s done cpu, \d+ threads?, batches of 4", line) for line in lines)
    assert any(re.fullmatch(r"projecting \(guided\) [\d.]+ m?s 120 hit [\d,.]+ hit/s", line) for line in lines)


def test_damage_is_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    whole = overview(StudyReader(tmp_path / "study"), check=True)
    assert whole["damaged"] == [] and "damaged   nothing" in overview_text(whole)
    file = tmp_path / "study" / "mined" / "conv1.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (damage,) = overview(StudyReader(tmp_path / "study"), check=True)["damaged"]
    assert damage["file"] == "mined/conv1.safetensors"
    assert "damaged" not in overview(StudyReader(tmp_path / "study"))


def test_damaged_records_are_left_out_or_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    before = overview(StudyReader(study))
    timings = tmp_path / "study" / TIMINGS
    timings.write_bytes(timings.read_bytes().replace(b'"name": "mining"', b'"nome": "mining"'))
    took = [one["part"] for one in overview(StudyReader(tmp_path / "study"))["took"]]
    assert took == [one["part"] for one in before["took"] if one["part"] != "mining"]
    listed = tmp_path / "study" / "sources" / "0.json"
    listed.write_bytes(listed.read_bytes().replace(b'"sha256": ', b'"sha-56": ', 1))  # not sealed, as it seems
    with pytest.raises(InterpretError, match=r"0\.json' is damaged \(its keys are no numbers\)"):
        overview(StudyReader(tmp_path / "study"))


@pytest.mark.parametrize("kept", [0, 40, 0.5, -13, -1])  # the stamp is at the end
def test_a_cut_filter_sheet_is_named(study: Path, tmp_path: Path, kept: float) -> None:
    shutil.copytree(study, tmp_path / "study")
    sheet = tmp_path / "study" / "filters" / "conv1.png"
    content = sheet.read_bytes()
    sheet.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    (damage,) = overview(StudyReader(tmp_path / "study"), check=True)["damaged"]
    assert damage["file"] == "filters/conv1.png"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_and_devices_are_not_read(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    (mined,) = (tmp_path / "study" / "mined").iterdir()
    mined.unlink()
    os.mkfifo(mined)  # who reads it waits for ever
    with pytest.raises(InterpretError, match=r"is damaged \(it is no file\)"):
        StudyReader(tmp_path / "study").mined("conv1")
    study_file = tmp_path / "study" / "study.json"
    study_file.unlink()
    study_file.symlink_to("/dev/zero")  # which has no end
    with pytest.warns(UserWarning, match="its copy"):
        assert StudyReader(tmp_path / "study").info == StudyReader(study).info


@pytest.mark.parametrize(
    "damaged", ["study.json", "features/0/features.npy", "features/0/index.json", "results/neighbours/0.safetensors"]
)
def test_check_reads_all_files(tmp_path: Path, damaged: str) -> None:
    import torch
    from torch import nn

    from interpret import Study, find_neighbours

    study = Study(tmp_path, nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 2)), torch.rand(6, 1, 5, 5))
    study.mine(k=2)
    study.keep(find_neighbours(study.model, [0], study.data, layer="0", k=2, index=study.path / "features"), "0")
    content = bytearray((tmp_path / damaged).read_bytes())
    content[-9] ^= 1
    (tmp_path / damaged).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # study.json is read from its copy
        found = overview(StudyReader(tmp_path), check=True)["damaged"]
    assert [one["file"] for one in found] == [damaged]


def test_a_study_of_an_earlier_version_has_no_times(study: Path, tmp_path: Path) -> None:
    text = (study / "study.json").read_text()
    (tmp_path / "study.json").write_text(text)
    found = overview_text(overview(StudyReader(tmp_path)))
    assert found.endswith("Took: not recorded") and "mined  nothing" in found


def test_unfinished_work_is_named(study: Path, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text((study / "study.json").read_text())
    for name in ("mining.safetensors", "unfinished/probe/rotation.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    line = json.dumps(
        {"part": "mining", "outcome": "interrupted", "began": "2026-11-26T22:00:00+00:00", "seconds": 61.0}
        | {"steps": [{"name": "mining", "unit": "img", "count": 500, "seconds": 50.0}]}
    )
    (tmp_path / TIMINGS).write_text(f"{line}\n{line}\n")
    found = overview(StudyReader(tmp_path))
    assert found["holds"]["unfinished"] == ["mining.safetensors", "unfinished/probe/rotation.safetensors"]
    (mining,) = found["took"]
    assert (mining["outcome"], mining["runs"], mining["seconds"]) == ("interrupted", 2, 122.0)
    assert mining["steps"] == [{"name": "mining", "unit": "img", "count": 1000, "seconds": 100.0, "per_second": 10.0}]
    assert "interrupted in 2 runs" in overview_text(found) and "2 min 2 s" in overview_text(found)


def test_needs_no_torch_and_refuses_what_is_no_study(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"import sys; sys.argv = ['interpret', 'study', {str(study)!r}]\nfrom interpret.cli import main\nmain()\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert refused(capsys, monkeypatch, "study", tmp_path).endswith("is no study: it has no study.json")
    assert run_apart("study", study).stdout.startswith("folder ")
