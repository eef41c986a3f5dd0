"""The scripts in examples/papers: each runs, and what it claims is so."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples" / "papers"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Example:
    """Runs a script's `main` in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.capsys, self.monkeypatch, self.folder = capsys, monkeypatch, folder
        monkeypatch.chdir(folder)

    def __call__(self, name: str, *arguments: object) -> str:
        """Return what a script printed; the last line names a picture, which must have something in it."""
        self.monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        script(name).main()
        printed = self.capsys.readouterr().out
        picture = Image.open(self.folder / printed.strip().splitlines()[-1].removeprefix("Open "))
        assert min(picture.size) > 300 and np.asarray(picture.convert("L")).std() > 10
        return printed


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Example:
    return Example(capsys, monkeypatch, tmp_path)


def numbers(pattern: str, text: str) -> list[tuple[str, ...]]:
    found = re.findall(pattern, text)
    assert found, text
    return [one if isinstance(one, tuple) else (one,) for one in found]


def test_lower_layers_settle_before_upper_ones(example: Example) -> None:
    """Zeiler & Fergus, Fig. 4: what the paper concludes of its figure holds for the shipped LeNet, in numbers."""
    printed = example("zeiler_fergus_figure4", "--units", 2)
    moves = {
        layer: (float(first), float(last))
        for layer, first, last in numbers(r"(\w+): features move ([\d.]+) % .*? and ([\d.]+) % at last", printed)
    }
    assert list(moves) == ["conv1", "conv2", "fc1", "fc2"]
    assert all(last < first / 20 for first, last in moves.values()), "every layer settles"
    for when in (0, 1):
        assert moves["conv1"][when] < moves["conv2"][when] < moves["fc1"][when], "lower layers move less"
    assert "4,000 images of the training digits" in printed
    jumps = [(int(jumps), int(steps)) for jumps, steps in numbers(r"changed in (\d+) of (\d+) steps", printed)]
    assert all(0 < changed < steps == 14 for changed, steps in jumps), "the strongest image jumps, and not always"
