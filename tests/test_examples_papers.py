"""The scripts in examples/papers: each runs, and what it claims is so."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw

from interpret.errors import InterpretError

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


def draw_faces(folder: Path, names: list[str]) -> None:
    """Draw faces of 64 × 64 pixels with eyes and mouths of many shapes where the emoji have theirs."""
    generator = np.random.default_rng(0)
    for name in names:
        face = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        draw = ImageDraw.Draw(face)
        draw.ellipse((2, 3, 61, 59), fill=(252, 204, 50))
        height, width = generator.integers(3, 7, 2).tolist()
        for centre in (22, 42):
            draw.ellipse((centre - width, 25 - height, centre + width, 25 + height), fill=(66, 43, 13))
        mouth = generator.integers(0, 3)
        box = (20, 38 + int(mouth), 44, 50)
        draw.ellipse(box, fill=(66, 43, 13)) if mouth else draw.arc(box, 0, 180, fill=(66, 43, 13), width=3)
        face.save(folder / f"{name}.png")


def test_parts_change_features_more_alike_than_random_boxes(example: Example, tmp_path: Path) -> None:
    """Zeiler & Fergus, Table 1, on drawn faces: parts lie below random boxes, and boxes at one place do, too."""
    count = 8
    draw_faces(tmp_path, script("zeiler_fergus_table1").FACES[:count])
    layers = "features.2,features.5,features.8"
    printed = example("zeiler_fergus_table1", tmp_path, "--faces", count, "--draws", 2, "--layers", layers)
    gains = numbers(r"(?:left|right|mouth) \+?(-?[\d.]+) ± ([\d.]+)", printed)
    assert len(gains) == 9 and all(float(gain) > float(error) > 0 for gain, error in gains)
    rows = numbers(r"\| ([\w, ]+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \|", printed)
    assert len(rows) == 9
    for part, own, shared in zip(rows[0::3], rows[1::3], rows[2::3], strict=True):
        assert own[0] == f"random, of the size of {part[0]}" and "one place for all" in shared[0]
        assert all(float(low) < float(high) for low, high in zip(part[1:], own[1:], strict=True))
        assert all(float(low) < float(high) for low, high in zip(shared[1:], own[1:], strict=True))


def test_emoji_are_read_from_the_sheet_as_from_their_files(tmp_path: Path) -> None:
    table1 = script("zeiler_fergus_table1")
    names = table1.FACES[:3]
    pictures = tmp_path / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    draw_faces(pictures, names)
    sheet, listed = Image.new("RGBA", (2 * 66, 2 * 66)), []
    for number, name in enumerate(names):
        x, y = divmod(number, 2)
        sheet.paste(Image.open(pictures / f"{name}.png"), (66 * x + 1, 66 * y + 1))
        listed.append({"image": f"{name}.png", "sheet_x": x, "sheet_y": y})
    sheet.save(tmp_path / "img" / "64.png")
    (tmp_path / "emoji.json").write_text(json.dumps(listed))
    of_files = table1.read_faces(tmp_path, names)
    assert of_files.shape == (3, 64, 64, 3) and (of_files[:, 0, 0] == 255).all()
    assert np.array_equal(of_files, table1.read_faces(pictures, names))
    assert np.array_equal(of_files, table1.read_faces(tmp_path / "img" / "64.png", names))
    with pytest.raises(InterpretError, match=r"holds no 1f600\.png: unpack emoji-datasource-google"):
        table1.read_faces(tmp_path / "img", names)
