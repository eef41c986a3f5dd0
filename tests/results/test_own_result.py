"""A result class that a user defines is kept, listed, drawn, reported and shown like the built-in ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

import interpret
from interpret import InterpretError, Result, Study, write_gallery, write_report
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.occlusion.result import Occlusion
from interpret.figures.style import figure_grid, laid_out
from interpret.results.kinds import BUILT_IN, all_kinds, result_class
from interpret.support.checksums import read_json


@dataclass
class Tuning(Result):
    """How a unit answers to gratings of each orientation."""

    kind = "tuning"
    drawn_by = f"{__name__}:draw_tuning"
    report_after = "invariance"
    angles: NDArray[np.float64]
    answers: NDArray[np.float64]

    @property
    def title(self) -> str:
        return "Tuning to orientation"

    @property
    def reading(self) -> str:
        return "The answer to a grating of each orientation."

    def columns(self) -> dict[str, Any]:
        return {"angle": self.angles, "answer": self.answers}


def draw_tuning(result: Tuning, width: float = 4) -> Figure:
    figure = Figure(figsize=(width, 2))
    figure.add_subplot().plot(result.angles, result.answers)
    return figure


@dataclass
class Score(Result):
    """A number, drawn by a method of its own."""

    kind = "score"
    value: float
    title = "A score"
    reading = "Higher is better."

    def plot(self) -> Figure:  # type: ignore[override]
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().bar([0], [self.value])
        return figure


@dataclass
class Remark(Result):
    """A result without a figure."""

    kind = "remark"
    words: str
    title = "A remark"
    reading = "Words."


TUNING = Tuning(np.array([0.0, 45.0, 90.0]), np.array([1.0, 0.5, 0.25]))
CURVES = InvarianceCurves("scale", "scale", 1.0, np.array([1.0, 2.0]), {"0": np.ones((1, 2))}, {"0": np.ones(1)})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    study = Study(tmp_path / "study", network, torch.rand(6, 1, 8, 8))
    study.mine(k=2)
    study.project()
    return study


def test_it_is_kept_listed_and_read(study: Study) -> None:
    study.keep(TUNING, "unit 0")
    study.keep(Score(0.5))
    study.keep(CURVES, "scale")
    reader = Study.open(study.path)
    # after the kind that it names; a class that names none comes last
    assert reader.results == [("invariance", "scale"), ("tuning", "unit 0"), ("score", "")]
    read = reader.result("tuning", "unit 0")
    assert isinstance(read, Tuning) and read.answers.tolist() == [1.0, 0.5, 0.25]
    assert read.to_dataframe().answer.sum() == 1.75


def test_it_is_drawn() -> None:
    figure = interpret.plot(TUNING)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1.0, 0.5, 0.25]  # type: ignore[union-attr]
    assert interpret.plot(TUNING, width=3.3).get_size_inches()[0] == 3.3
    assert interpret.plot(Score(0.5)).axes[0].patches[0].get_height() == 0.5  # type: ignore[attr-defined]
    for shown in (TUNING._repr_png_(), Score(0.5)._repr_png_()):
        assert shown is not None and shown[0].startswith(b"\x89PNG") and shown[1]["width"] > 50
    with pytest.raises(InterpretError, match=r"kind 'remark' has no figure: set Remark.drawn_by to 'module:function'"):
        interpret.plot(Remark("fine"))
    assert Remark("fine")._repr_png_() is None


def test_it_is_reported_and_stands_among_the_findings(study: Study, tmp_path: Path) -> None:
    study.keep(TUNING)
    study.keep(Score(0.5))
    page = write_report(study, tmp_path / "report.html").read_text("utf-8")
    findings = (write_gallery(study, tmp_path / "gallery").parent / "findings.html").read_text("utf-8")
    for text in (page, findings):
        assert text.index("Tuning to orientation") < text.index("A score")
        assert "The answer to a grating of each orientation." in text and "Higher is better." in text


def test_the_labels_of_a_users_figure_are_not_cut() -> None:
    figure = Figure(figsize=(3, 1.5))
    axes = figure.add_subplot()
    axes.set_xlabel("orientation\nin degrees")
    laid_out(figure).draw_without_rendering()
    assert figure.get_tightbbox().y0 >= 0 and figure.get_tightbbox().x0 >= 0  # inches
    adjusted = Figure()
    adjusted.subplots_adjust(left=0.3)
    house = figure_grid(1, 1, (3, 2))[0]
    assert laid_out(adjusted).get_layout_engine() is None and laid_out(house) is house


def test_what_has_no_figure_is_named_and_left_out(study: Study, tmp_path: Path) -> None:
    study.keep(TUNING)
    study.keep(Remark("fine"))
    assert ("remark", "") in study.results and study.result("remark").words == "fine"  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="results of kind 'remark' are left out, as they have no figure"):
        page = write_report(study, tmp_path / "report.html").read_text("utf-8")
    assert "Tuning to orientation" in page and "A remark" not in page


@pytest.mark.slow
def test_a_kind_whose_class_is_not_imported_is_named_and_left_out(study: Study, tmp_path: Path) -> None:
    study.keep(TUNING)
    study.keep(CURVES, "scale")
    for verb, out in (("report", "report.html"), ("plot", "figure.png")):
        done = subprocess.run(
            [sys.executable, "-m", "interpret", verb, str(study.path), "--out", str(tmp_path / out)],
            capture_output=True,
            text=True,
            check=True,
        )
        [said] = [line for line in done.stderr.splitlines() if "tuning" in line]
        assert "keeps results of kind 'tuning', which are left out, as no class of that kind is imported" in said
        assert (tmp_path / out).exists()
    code = (
        "import sys, warnings; from interpret import Study, write_gallery; warnings.simplefilter('error');"
        f"study = Study.open({str(study.path)!r}); print(study.results); study.result('tuning')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[('invariance', 'scale')]"
    assert "a kind of your own is known once its class is imported" in done.stderr.splitlines()[-1]


def test_a_kind_belongs_to_one_class() -> None:
    with pytest.raises(InterpretError, match=r"kind 'tuning' of .*Other is that of .*Tuning already"):

        class Other(Result):
            kind = "tuning"

    with pytest.raises(InterpretError, match=r"kind 'occlusion' of .* is that of interpret.analyses.occlusion"):

        class Occluded(Result):
            kind = "occlusion"

    for wrong in ("", "a/b", "..", "two words"):
        with pytest.raises(InterpretError, match="kind of Named must consist of letters, digits"):

            class Named(Result):
                kind = wrong

    assert result_class("tuning") is Tuning and result_class("occlusion") is Occlusion
    assert len(set(all_kinds())) == len(all_kinds()) and [one for one in all_kinds() if one in BUILT_IN] == [*BUILT_IN]


def test_a_class_defined_again_takes_its_own_place() -> None:
    def define() -> type[Result]:  # as a notebook's cell that runs twice
        @dataclass
        class Again(Result):
            kind = "again"

        return Again

    define()
    assert define() is result_class("again")


def test_a_newer_format_is_refused_in_a_sentence(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "tuning.safetensors"
    TUNING.save(file)
    assert header(file)["format"] == 1
    write_header(file, header(file) | {"format": 2})
    with pytest.raises(
        InterpretError, match=r"has format 2 of results of kind 'tuning', and this version reads format 1"
    ):
        Result.load(file)
    mined = study.path / "mined" / "0.safetensors"
    assert header(mined)["format"] == 1
    write_header(mined, header(mined) | {"format": 7})
    for read in (study.mined, lambda _: MinedLayer.load(mined), lambda _: interpret.Mined.load(study.path)):
        with pytest.raises(InterpretError, match=r"has format 7 of results of kind 'mined-layer'"):
            read("0")
    info = read_json(study.path / "study.json")
    (study.path / "study.json").write_text(json.dumps(info | {"format": 2}))
    with pytest.raises(
        InterpretError, match=r"study.json has format 2, and this version reads format 1: update interpret"
    ):
        Study.open(study.path)


def test_a_file_of_version_0_1_0_which_names_no_format_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tuning.safetensors"
    TUNING.save(file)
    write_header(file, {key: value for key, value in header(file).items() if key != "format"})
    assert Tuning.load(file).answers.tolist() == [1.0, 0.5, 0.25]


def header(file: Path) -> Any:
    with safe_open(file, "np") as stored:
        return json.loads(stored.metadata()["result"])


def write_header(file: Path, new: Any) -> None:
    save_file(load_file(file), file, {"result": json.dumps(new)})
