"""The scripts in examples/papers: each runs, and what it claims is so."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

import interpret
from helpers.scripts import load_script
from interpret.images.datasets import load_dataset
from interpret.support.errors import InterpretError


class Example:
    """Runs a script's `main` in a folder of its own, and keeps the figures that it saves."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.capsys, self.monkeypatch, self.folder = capsys, monkeypatch, folder
        self.figures: list[Figure] = []
        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda figure, *a, **k: (self.figures.append(figure), save(figure, *a, **k))
        )
        monkeypatch.chdir(folder)

    def __call__(self, name: str, *arguments: object) -> str:
        """Return what a script printed; the last line names a picture, which must have something in it."""
        self.monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        load_script(f"papers/{name}").main()
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


@pytest.mark.slow
def test_lower_layers_settle_before_upper_ones(example: Example) -> None:
    """Zeiler & Fergus, Fig. 4: what the paper concludes of its figure holds for the shipped LeNet, in numbers."""
    printed = example("zeiler_fergus_figure4", "--units", 2)
    moves = {
        layer: (float(first), float(last))
        for layer, first, last in numbers(r"(\w+): features change by ([\d.]+) % .*? by ([\d.]+) % at last", printed)
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


@pytest.mark.slow
def test_parts_change_features_more_alike_than_random_boxes(example: Example, tmp_path: Path) -> None:
    """Zeiler & Fergus, Table 1, on drawn faces: parts lie below random boxes, and boxes at one place do, too."""
    count = 8
    draw_faces(tmp_path, load_script("papers/zeiler_fergus_table1").FACES[:count])
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
    table1 = load_script("papers/zeiler_fergus_table1")
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


@pytest.mark.slow
def test_patches_are_the_windows_that_excite_a_unit_most(example: Example) -> None:
    """Zeiler & Fergus, Fig. 2, of LeNet's conv2 against every activation on every digit."""
    printed = example("zeiler_fergus_figure2", "lenet", "digits", "conv2", "--units", 3)
    model, digits = interpret.load("lenet"), load_dataset("digits")
    encoded = torch.stack([model.preprocess.encode(image) for image in digits.images])
    to_conv2 = torch.nn.Sequential(*list(model.module.children())[:4])
    with torch.no_grad():
        outputs = torch.cat([to_conv2(part) for part in encoded.split(500)])
    maxima = outputs.flatten(2).amax(2)
    told = numbers(r"unit (\d+): activations ([\d.]+) to ([\d.]+)", printed)
    assert [int(unit) for unit, _, _ in told] == maxima.amax(0).argsort(descending=True)[:3].tolist()
    figure = example.figures[0]
    patches = figure.axes[3:]
    # groups of nine lie apart: several times what lies between two of their pictures
    boxes = [axes.get_window_extent() for axes in patches]
    pixel = boxes[0].width / patches[0].images[0].get_array().shape[1]
    assert all(right.x0 - left.x1 > 4 * pixel for left, right in pairwise(boxes))
    assert all(
        above.get_window_extent().y0 - box.y1 > 4 * pixel for above, box in zip(figure.axes, boxes, strict=False)
    )
    for (number, first, last), axes in zip(told, patches, strict=True):
        unit = int(number)
        best = maxima[:, unit].argsort(descending=True)[:9].tolist()
        assert float(first) == pytest.approx(float(maxima[best[0], unit]), abs=2e-3)
        assert float(last) == pytest.approx(float(maxima[best[8], unit]), abs=2e-3)
        drawn = axes.images[0].get_array()
        for rank, image in enumerate(best):
            y, x = divmod(int(outputs[image, unit].argmax()), 8)
            window = digits.images[image, 2 * y : 2 * y + 14, 2 * x : 2 * x + 14].repeat(2, 0).repeat(2, 1)
            top, left = (29 * place for place in divmod(rank, 3))
            found = drawn[top : top + 28, left : left + 28, 0].astype(int)
            assert np.abs(found - window).max() <= 1, (unit, rank)


def test_kernels_are_the_first_layers_weights(example: Example) -> None:
    """Krizhevsky et al., Fig. 3: SqueezeNet's weights, whose input is blue, green, red; a third are coloured."""
    printed = example("krizhevsky_figure3", "squeezenet1_1")
    weights = interpret.load("squeezenet1_1").module.features[0].weight.detach().numpy()
    pictures = example.figures[0].axes[0].images
    assert len(pictures) == len(weights) == 64
    coloured = 0
    for kernel, picture in zip(weights, pictures, strict=True):
        expected = (0.5 + kernel[::-1].transpose(1, 2, 0) / (2 * np.abs(kernel).max())) * 255
        assert np.abs(np.asarray(picture.get_array(), float) - expected).max() <= 0.51
        grey = kernel.mean(0)
        coloured += float(((kernel - grey) ** 2).sum()) > float((3 * grey**2).sum())
    ((share, count),) = numbers(r"(\d+)% of the (\d+) kernels are coloured", printed)
    assert int(count) == 64 and int(share) == round(100 * coloured / 64)
    assert 25 <= int(share) <= 75, "both kinds are there"


@pytest.mark.slow
def test_what_lenet_sees_in_digits(example: Example) -> None:
    """Krizhevsky et al., Fig. 4, on the digits that LeNet was not trained on."""
    printed = example("krizhevsky_figure4", "--images", 4, "--index", "kept")
    ((known, first, among),) = numbers(
        r"Of ([\d,]+) labelled test images, ([\d,]+) are correct \(top 1\) and ([\d,]+) within the top 5\.", printed
    )
    assert known == "1,000" and int(first) == 992, "the accuracy that LeNet's card states"
    assert int(among.replace(",", "")) >= 999
    ((alike,),) = numbers(r"Of the nearest neighbours, (\d+)% have the query's class", printed)
    assert int(alike) >= 95
    assert np.load("kept/relu3/features.npy").shape == (5000, 128)
    axes = example.figures[0].axes
    assert [len(one.images) for one in axes] == [1] * 4 + [7] * 4
    # the right class is the one in another colour than the others
    model = interpret.load("lenet")
    for answered in axes[:4]:
        title, *names = [text.get_text() for text in answered.texts][:6]
        colours = [bar.get_facecolor() for bar in answered.patches]
        marked = [name for name, colour in zip(names, colours, strict=True) if colours.count(colour) == 1]
        assert marked == [title] and set(names) <= set(model.classes)


def test_the_class_of_a_labelled_file_is_marked(example: Example, tmp_path: Path) -> None:
    """The class is read from the end of a file's name; digits stand in for photographs."""
    (tmp_path / "tests").mkdir()
    for number, label in enumerate((3, 0, 9)):
        digits = load_dataset("digits")
        picture = Image.fromarray(digits.images[500 * label + 7])
        picture.save(tmp_path / "tests" / f"digit_{number}_{label}.png")
    printed = example("krizhevsky_figure4", "lenet", "digits", "--tests", tmp_path / "tests", "--images", 3)
    assert "Of 3 labelled test images, 3 are correct (top 1) and 3 within the top 5." in printed
    titles = {axes.texts[0].get_text() for axes in example.figures[0].axes[:3]}
    assert titles == {"3", "0", "9"}


def test_feature_maps_of_a_digit(example: Example) -> None:
    printed = example("feature_maps", "--item", 3777)
    assert "This is a 7." in printed and "The largest output is 7." in printed
    told = {
        layer: (int(units), size, int(share))
        for layer, units, size, share in numbers(r"(\w+): (\d+) units, ([^;]+); (\d+)% of the act", printed)
    }
    assert [told[layer][:2] for layer in told] == [
        (20, "24 × 24"), (20, "12 × 12"), (50, "8 × 8"), (50, "4 × 4"), (128, "no positions"), (10, "no positions")
    ]  # fmt: skip
    module, digits = interpret.load("lenet").module, load_dataset("digits")
    x = interpret.load("lenet").preprocess.encode(digits.images[3777])[None]
    for name, layer in module.named_children():
        with torch.no_grad():
            x = layer(x)
        if name in told:
            assert told[name][2] == pytest.approx(100 * float((x > 0).double().mean()), abs=0.51), name


@pytest.mark.slow
def test_what_layers_know_of_a_digit(example: Example) -> None:
    printed = example("mahendran_vedaldi", "--items", 1234)
    pixels = [float(one) for one in re.findall(r"pixels by ([0-9.]+)", printed)]
    assert len(pixels) == 4 and pixels[0] < 0.5 * pixels[1] and pixels[1] < pixels[-1]  # conv1, conv2, and ten numbers


@pytest.mark.slow
def test_waves_and_movements_leave_more_after_jpeg(example: Example) -> None:
    """Olah et al. 2017: free pixels fool the network, and lose it; waves and movements keep it."""
    printed = example("olah_2017", "emoji_alexnet", "--layer", "conv4", "--units", 3, 8, "--label", 0, "--steps", 60)
    left = {name: int(share) for name, share in numbers(r"(.+): activation [0-9.]+, of which (\d+)% are left", printed)}
    assert list(left) == ["free pixels", "waves", "waves, colours", "and movements", "and coarse waves"]
    assert min(left["and movements"], left["and coarse waves"]) > left["waves"] > left["free pixels"]
    found = load_script("papers/olah_2017").main(
        ["emoji_alexnet", "--layer", "conv4", "--units", "3", "8", "--label", "0", "--steps", "30"]
    )
    maps = interpret.layer_outputs(interpret.load("emoji_alexnet"), found["sums"].inputs, "conv4")["conv4"]
    first, both, second, apart = maps[:, [3, 8]].mean((2, 3)).tolist()
    assert both[0] > second[0] and both[1] > first[1] > apart[1]  # a sum shows what each of its units responds to
    assert found["silent"].values[0] < 0 < found["sums"].values[3]


@pytest.mark.slow
def test_a_cell_of_an_atlas_is_of_one_digit(example: Example) -> None:
    """Carter et al. 2019: like activations lie together, also in a layer that was trained on classes alone."""
    arguments = ["lenet", "digits", "--layer", "fc1", "--grid", 6, "--samples", 400, "--steps", 10]
    printed = example("carter_atlas", *arguments)
    ((share,),) = numbers(r"most frequent class in (\d+)%", printed)
    assert int(share) > 75  # of ten digits
