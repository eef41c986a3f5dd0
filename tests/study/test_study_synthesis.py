"""Optimised images in a study: kept per unit, skipped when done, and made again with other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import interpret.study.synthesis as synthesis
from helpers.commands import command, refused
from interpret import InterpretError, Study, write_gallery

IMAGES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(576, 3))
    made = Study(tmp_path / "study", network, IMAGES)
    made.mine(["0", "2"], k=2)
    return made


def test_units_that_are_done_are_skipped_and_others_added(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []
    run = synthesis.synthesise

    def counting(model: Any, layer: Any, units: list[int], *rest: Any, **settings: Any) -> Any:
        made.append(units)
        return run(model, layer, units, *rest, **settings)

    monkeypatch.setattr(synthesis, "synthesise", counting)
    monkeypatch.setattr(synthesis, "UNITS_IN_A_CALL", 2)
    study.synthesise("2", 2, steps=3)
    liveliest = study.mined("2").most_active.tolist()
    assert made == [liveliest[:2]]
    study.synthesise("2", 2, steps=3)
    assert len(made) == 1
    first = study.synthesised("2")
    study.synthesise("2", None, steps=3)
    assert made[1:] == [liveliest[2:]]
    assert study.result("synthesised 2 neuron").units.tolist() == study.result("synthesised", "2 neuron").units.tolist()
    with pytest.raises(InterpretError, match="unknown result 'synthesised 0 neuron': did you mean 'synthesised 2 n"):
        study.result("synthesised 0 neuron")
    found = Study.open(study.path).synthesised("2")
    assert found.units.tolist() == liveliest and np.array_equal(found.pictures[:2], first.pictures)
    assert found.natural_values.tolist() == study.mined("2").values[liveliest, 0].tolist()
    with pytest.warns(UserWarning, match="layer '2' keeps 3 images made with other steps"):
        study.synthesise("2", [liveliest[0]], steps=4)
    found = study.synthesised("2")
    assert made[-1] == liveliest[:1] and found.units.tolist() == liveliest[1:] + liveliest[:1]
    assert [found.settings_of(row)["steps"] for row in range(4)] == [3, 3, 3, 4]


def test_units_are_added_to_those_made_with_other_defaults(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older version made them: they stay, are said to differ, and are made again when asked."""
    liveliest, run = study.mined("2").most_active.tolist(), synthesis.synthesise
    monkeypatch.setattr(synthesis, "synthesise", lambda *given, **settings: run(*given, **settings, rate=0.3))
    study.synthesise("2", 2, steps=3)
    old = study.synthesised("2")
    monkeypatch.setattr(synthesis, "synthesise", run)
    with pytest.warns(UserWarning, match="keeps 2 images made with other rate, .* again=True"):
        study.synthesise("2", 3, steps=3)
    found = study.synthesised("2")
    assert found.units.tolist() == liveliest[:3] and np.array_equal(found.pictures[:2], old.pictures)
    assert [found.settings_of(row)["rate"] for row in range(3)] == [0.3, 0.3, 0.05]
    assert found.columns()["rate"].tolist() == [0.3, 0.3, 0.05] and "rate" not in found.settings
    assert "not made with the same rate" in found.reading.replace("Not all images were", "not")
    write_gallery(study, tmp_path / "pages", every_image=False)
    pages = tmp_path / "pages" / "layers" / "2"
    assert "not all units of the layer have its rate 0.3" in (pages / f"{liveliest[0]}.html").read_text()
    study.synthesise("2", 3, steps=3, again=True)
    found = study.synthesised("2")
    assert sorted(found.units.tolist()) == sorted(liveliest[:3]) and found.settings["rate"] == 0.05


def test_an_interrupt_keeps_the_units_that_are_done(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = synthesis.synthesise, []

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        calls.append(arguments[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*arguments, **settings)

    monkeypatch.setattr(synthesis, "synthesise", interrupted)
    monkeypatch.setattr(synthesis, "UNITS_IN_A_CALL", 2)
    with pytest.raises(KeyboardInterrupt):
        study.synthesise("0", steps=3)
    assert study.synthesised("0").units.tolist() == calls[0]
    study.synthesise("0", steps=3)
    assert study.synthesised("0").units.tolist() == study.mined("0").most_active.tolist() and len(calls) == 4


def test_classes_and_bad_input(study: Study) -> None:
    study.synthesise(units=[2, 0], kind="class", steps=2)
    assert study.synthesised(kind="class").names == ["class 2", "class 0"]
    with pytest.raises(InterpretError, match="classes have no names or number"):
        study.synthesise(kind="class")
    with pytest.raises(InterpretError, match="leave layers out"):
        study.synthesise("2", [0], "class")
    with pytest.raises(InterpretError, match="units must be at least 1, not 0"):
        study.synthesise(units=0)
    with pytest.raises(InterpretError, match="unknown kind 'layer'"):
        study.synthesise(kind="layer")  # type: ignore[arg-type]
    assert ("synthesised", "class") in study.results and ("synthesised", "2 neuron") not in study.results


def test_a_budget_pays_for_the_liveliest_units(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = synthesis.costs_of(study.traced, ["0", "2"], (16, 16))
    # kernels of 3 × 3: the map of 14 × 14 is run on 3 × 3 pixels of 16 × 16, and the second on 5 × 5
    first, second = 6 * 27 * 196, 4 * 54 * 144
    elements = [6 * 196, 6 * 196 * 2 + 4 * 144]
    assert costs["0"] == pytest.approx(160 * (2 * (first + 16 * elements[0]) * 9 / 256 + 1e7))
    assert costs["2"] == pytest.approx(160 * (2 * (first + second + 16 * elements[1]) * 25 / 256 + 1e7))
    monkeypatch.setattr(synthesis, "BUDGET", 3.5 * costs["2"])
    study.synthesise("2", [1], steps=4)
    study.synthesise("0", 1, steps=3)
    study.synthesise(units="auto", steps=3)
    assert study.synthesised("0").units.tolist() == study.mined("0").most_active[:2].tolist()
    assert study.synthesised("2").units.tolist() == [1]  # made with other settings


def test_a_layer_that_cannot_be_differentiated_is_left_out(tmp_path: Path) -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).detach())

    torch.manual_seed(0)
    made = Study(tmp_path / "study", Rounded(), IMAGES)
    made.mine(k=1)
    with pytest.warns(UserWarning, match="layer 'second' has no optimised images: .* choose an earlier layer"):
        made.synthesise(units="auto", steps=1)
    assert made.synthesised("first") is not None and made.synthesised("second") is None


def test_the_command_makes_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images = tmp_path / "study", tmp_path / "images"
    images.mkdir()
    for number, digit in enumerate(np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)):
        Image.fromarray(digit).save(images / f"{number}.png")
    command(monkeypatch, "mine", "lenet", images, "--study", folder, "--layers", "conv1", "-k", "1")
    command(monkeypatch, "synthesise", folder, "--units", "3", "--steps", "2")
    assert "Optimised images of conv1 neuron are in" in capsys.readouterr().out
    assert len(Study.open(folder).synthesised("conv1").names) == 3
    command(monkeypatch, "gallery", folder, "--out", tmp_path / "pages", "--synthesise", "1")
    assert len(list((tmp_path / "pages" / "optimised" / "conv1").glob("neuron-*.png"))) == 3
    command(monkeypatch, "synthesise", folder, "--units", "4")
    assert Study.open(folder).synthesised("conv1").settings["steps"] == 2  # also of the one that was added
    assert "Optimised" in (tmp_path / "pages" / "layers" / "conv1" / "index.html").read_text()
    capsys.readouterr()
    said = refused(capsys, monkeypatch, "synthesise", folder, "--units", "none")
    assert "--units must be a number of at least 1, auto, or all, not 'none'" in said
