"""Evolution against mining each checkpoint by brute force, and its movement against the formula, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import interpret
from interpret.analyses.evolution.compute import evolve
from interpret.analyses.evolution.figure import plot_evolution
from interpret.analyses.evolution.result import Evolution
from interpret.figures.pictures import mosaic, signals_as_pictures
from interpret.images.display import contrast, to_bytes
from interpret.loading.checkpoints import list_epochs
from interpret.results import Result
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError

EPOCHS = (1, 2, 5)


def build(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 9, 5),
        )
    return network.double().eval()


def pictures(count: int = 15, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def states(seeds: Sequence[int] = (1, 2, 3)) -> dict[int, dict[str, Tensor]]:
    return {epoch: build(seed).state_dict() for epoch, seed in zip(EPOCHS, seeds, strict=True)}


def output(network: nn.Sequential, images: Tensor, layer: int) -> Tensor:
    with torch.no_grad():
        return network[: layer + 1](images)


def strongest(network: nn.Sequential, images: Tensor, layer: int, unit: int) -> tuple[float, int, tuple[int, int]]:
    """The strongest activation of one unit, its image and position: every one of them looked at in its turn."""
    best: tuple[float, int, tuple[int, int]] = (-float("inf"), -1, (0, 0))
    features = output(network, images, layer)
    for image, maps in enumerate(features):
        grid = maps[unit].reshape(1, 1) if maps.dim() == 1 else maps[unit]
        for y in range(grid.shape[0]):
            for x in range(grid.shape[1]):
                if float(grid[y, x]) > best[0]:
                    best = (float(grid[y, x]), image, (y, x))
    return best


def test_it_is_mining_and_projecting_each_checkpoint() -> None:
    images, kept = pictures(), states()
    evolution = evolve(kept, images, units=[0, 3, 4], layers="3,6", model=build(9), rule="guided")
    assert evolution.epochs.tolist() == list(EPOCHS) and evolution.layers == ["3", "6"] and evolution.items == 15
    for column, seed in enumerate((1, 2, 3)):
        network = build(seed)
        for layer in evolution.layers:
            assert evolution.units[layer].tolist() == [0, 3, 4]
            for row, unit in enumerate((0, 3, 4)):
                value, image, position = strongest(network, images, int(layer), unit)
                assert evolution.values[layer][row, column] == pytest.approx(value, rel=1e-6)
                assert evolution.images[layer][row, column] == image
                assert tuple(evolution.positions[layer][row, column]) == position
                one = interpret.project(network, images[image : image + 1], layer, unit, position, "guided")
                np.testing.assert_allclose(
                    evolution.projections[layer][row, column], one.pixels[0].numpy(), rtol=1e-5, atol=1e-7
                )
                top, left, bottom, right = one.boxes[0].tolist()
                window = images[image, 0, top:bottom, left:right]
                shown = (window * 255).round().numpy()  # from 0 to 1, as the values of all images are
                assert np.array_equal(evolution.patches[layer][row, column][..., 0], shown)


def test_a_jump_is_another_image_than_before() -> None:
    evolution = evolve(states(), pictures(), units=4, model=build(9))
    for layer, images in evolution.images.items():
        for unit in range(len(images)):
            expected = [False] + [images[unit, epoch] != images[unit, epoch - 1] for epoch in (1, 2)]
            assert evolution.jumps[layer][unit].tolist() == expected
    assert any(jumps.any() for jumps in evolution.jumps.values())
    still = evolve(states((1, 1, 1)), pictures(), units=4, model=build(9))
    assert not any(jumps.any() for jumps in still.jumps.values())


def literal_movement(kept: Sequence[int], images: Tensor, layer: int) -> list[tuple[float, float]]:
    """‖f_b − f_a‖ / ‖f_a‖ / (b − a) of each image in its turn: their mean, and its standard error."""
    found = []
    for (first, a), (second, b) in zip(
        zip(EPOCHS[:-1], kept[:-1], strict=True), zip(EPOCHS[1:], kept[1:], strict=True), strict=True
    ):
        moved = []
        for image in images:
            before = output(build(a), image[None], layer).flatten().tolist()
            after = output(build(b), image[None], layer).flatten().tolist()
            distance = sum((y - x) ** 2 for x, y in zip(before, after, strict=True)) ** 0.5
            moved.append(distance / sum(x * x for x in before) ** 0.5 / (second - first))
        mean = sum(moved) / len(moved)
        deviation = (sum((one - mean) ** 2 for one in moved) / (len(moved) - 1)) ** 0.5
        found.append((mean, deviation / len(moved) ** 0.5))
    return found


def test_movement_is_the_formula() -> None:
    images = pictures(7)
    evolution = evolve(states(), images, layers="0,3,6", model=build(9), batch_size=3)
    assert evolution.sample == 7
    for layer in ("0", "3", "6"):
        for step, (mean, error) in enumerate(literal_movement((1, 2, 3), images, int(layer))):
            assert evolution.movement[layer][step] == pytest.approx(mean, rel=1e-12)
            assert evolution.movement_errors[layer][step] == pytest.approx(error, rel=1e-9)


@settings(max_examples=12, deadline=None)
@given(scale=st.floats(0.1, 8), gap=st.integers(1, 40), sample=st.integers(1, 12))
def test_scaling_the_last_layer_moves_its_features_by_that_much(scale: float, gap: int, sample: int) -> None:
    """f_b = s · f_a is a movement of |s − 1| over the epochs between, whatever the images, and none below."""
    before = build(1).state_dict()
    after = before | {name: before[name] * scale for name in ("6.weight", "6.bias")}
    evolution = evolve({3: before, 3 + gap: after}, pictures(8), layers="3,6", units=[0], model=build(9), sample=sample)
    assert evolution.sample == min(sample, 8)
    assert evolution.movement["6"][0] == pytest.approx(abs(scale - 1) / gap, rel=1e-9, abs=1e-12)
    assert evolution.movement["3"][0] == 0.0
    assert evolution.values["6"][0, 1] == pytest.approx(evolution.values["6"][0, 0] * scale, rel=1e-6) or (
        evolution.values["6"][0, 0] <= 0
    )


def test_an_image_without_earlier_features_is_left_out() -> None:
    kept = states((1, 2, 3))
    dead = {name: torch.zeros_like(value) for name, value in kept[1].items()}
    evolution = evolve({0: dead, 1: kept[1], 2: kept[2]}, pictures(4), layers="3", units=[0], model=build(9))
    assert np.isnan(evolution.movement["3"][0]) and evolution.movement["3"][1] > 0
    plot(evolution).savefig("/dev/null", format="png")


def test_units_are_drawn_among_the_living() -> None:
    kept = states()
    kept[5]["3.bias"][:] = torch.tensor([5.0, -1e3, 5.0, 5.0, -1e3, 5.0])  # units 1 and 4 are never above zero
    evolution = evolve(kept, pictures(), layers="3", units=6, model=build(9))
    assert evolution.units["3"].tolist() == [0, 2, 3, 5]
    few = [evolve(kept, pictures(), layers="3", units=2, model=build(9), seed=seed).units["3"] for seed in range(6)]
    assert len({tuple(units) for units in few}) > 1, "another seed draws other units"
    assert all(set(units.tolist()) <= {0, 2, 3, 5} and len(units) == 2 for units in few)
    layered = evolve(kept, pictures(), layers="0,3", units={"3": [5, 1]}, model=build(9))
    assert layered.layers == ["3"] and layered.units["3"].tolist() == [1, 5]


def test_files_give_what_states_give_and_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    kept, network = states(), build(9).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch, state in kept.items():
        if epoch == 2:
            torch.save({"epoch": 2, "state_dict": {f"module.{name}": value for name, value in state.items()}},
                       tmp_path / "checkpoint_0002.pth")  # fmt: skip
        else:
            save_file(state, tmp_path / f"checkpoint_{epoch:04d}.safetensors")
    save_file(kept[1], tmp_path / "best.safetensors")
    of_files = evolve(tmp_path, pictures(), model=network, units=2)
    of_states = evolve(kept, pictures(), model=build(9), units=2)
    of_files.save(tmp_path / "files"), of_states.save(tmp_path / "states")
    assert (tmp_path / "files").read_bytes() == (tmp_path / "states").read_bytes()
    assert network.training and all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_a_shipped_model_brings_its_epochs() -> None:
    digits = interpret.open_images("digits", interpret.load("lenet"))
    few = torch.stack([digits[item][0] for item in range(0, 5000, 100)])
    evolution = evolve("lenet", few, layers="conv2", units=[3], sample=20)
    assert evolution.epochs.tolist() == [1, 2, 5, 10, 20, 30, 40, 64]
    assert evolution.channels == "L" and evolution.projections["conv2"].shape == (1, 8, 1, 14, 14)
    # the last kept epoch is the model itself
    mined = interpret.mine(interpret.load("lenet"), few, "conv2", k=1)
    assert evolution.values["conv2"][0, -1] == mined["conv2"].values[3, 0]
    assert evolution.images["conv2"][0, -1] == mined["conv2"].images[3, 0]


def test_a_study_keeps_it_and_it_is_drawn(tmp_path: Path) -> None:
    evolution = evolve(states(), pictures(), units=3, layers="3,6", model=build(9))
    study = interpret.Study(tmp_path / "study", build(3), pictures())
    study.keep(evolution, "3")
    kept = study.result("evolution", "3")
    assert isinstance(kept, Evolution)
    for layer in evolution.layers:
        assert np.array_equal(kept.projections[layer], evolution.projections[layer])
        assert np.array_equal(kept.jumps[layer], evolution.jumps[layer])
    figure = plot(kept)
    blocks, curve = figure.axes[:2], figure.axes[2]
    for axes, layer in zip(blocks, kept.layers, strict=True):
        assert axes.get_title(loc="left").startswith(f"{layer}: receptive field ")
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "5"]
        assert [text.get_text() for text in axes.get_yticklabels()] == [str(unit) for unit in kept.units[layer]]
        assert len(axes.lines) == kept.jumps[layer].sum(), "one bar a jump"
    for line, layer in zip(curve.lines, kept.layers, strict=True):
        np.testing.assert_allclose(line.get_ydata()[::2], kept.movement[layer] * 100)
    assert curve.get_xlabel() == "epoch" and "%" in curve.get_ylabel()
    assert kept.title in figure.get_suptitle() and "15 images" in kept.reading
    assert [text.get_text() for text in figure.axes[3].get_legend().get_texts()][:2] == kept.layers
    assert len(plot_evolution(kept, show="patches").axes) == 4
    with pytest.raises(InterpretError, match="patches"):
        plot_evolution(kept, show="patch")


def test_one_epoch_has_no_curve() -> None:
    evolution = evolve({4: states()[1]}, pictures(), layers="3", units=2, model=build(9))
    assert evolution.movement["3"].shape == (0,)
    assert [bool(axes.images) for axes in plot(evolution).axes] == [True]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), channels=st.sampled_from(["RGB", "BGR", "L"]), side=st.integers(1, 9))
def test_pictures_without_torch_are_those_of_display(seed: int, channels: str, side: int) -> None:
    count = 1 if channels == "L" else 3
    signals = torch.randn(4, count, side, side, generator=torch.Generator().manual_seed(seed))
    signals[1] = 0
    signals[2].flatten()[1:] = 0
    assert np.array_equal(signals_as_pictures(signals.numpy(), channels), to_bytes(contrast(signals, channels)))


def test_a_mosaic_has_each_tile_in_its_place() -> None:
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 3), np.uint8)
    flat = tiles.reshape(6, 4, 5, 3)
    picture, grid = mosaic(flat, 3, least=9)
    (down, _), (_, across) = grid.corner(3), grid.corner(1)
    for row, column in np.ndindex(2, 3):
        found = picture[row * down : row * down + 8, column * across : column * across + 10]
        assert np.array_equal(found[..., :3], tiles[row, column].repeat(2, 0).repeat(2, 1))
        assert (found[..., 3] == 255).all()
    # between them the paper shows through
    assert picture.shape == (down + 8, 2 * across + 10, 4) and (picture[8:down, :, 3] == 0).all()
    assert (mosaic(flat, 3, least=9, between=200)[0][8:down] == [200, 200, 200, 255]).all()
    # a missing tile is transparent, whatever lies between the others
    missing = mosaic(flat[:5], 3, least=9, between=200)[0]
    assert (missing[down:, 2 * across :, 3] == 0).all() and (missing[down:, : 2 * across, 3] == 255).all()


def wrong_shape() -> dict[str, Tensor]:
    return build(1).state_dict() | {"3.weight": torch.zeros(6, 4, 5, 5, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"checkpoints": {}}, "checkpoints is empty"),
        ({"checkpoints": {-1: {}}}, "epochs, whole numbers from 0 on, to files, not -1"),
        (
            {"checkpoints": {1: states()[1], 7: wrong_shape()}},
            r"the weights of epoch 7 do not fit the network: .*3\.weight is 6×4×5×5",
        ),
        ({"checkpoints": "lenet5", "model": None}, "model folder 'lenet5' keeps no epochs: write keep"),
        ({"checkpoints": "nowhere"}, "checkpoints 'nowhere' are not a folder"),
        ({"checkpoints": [1, 2]}, "a folder or a mapping from epoch to file, not list"),
        ({"model": None}, "checkpoints need the network that they belong to: pass model="),
        ({"layers": "4x"}, "unknown layer '4x'"),
        ({"units": 0}, "units must be at least 1 a layer, not 0"),
        ({"units": [0, 4], "layers": "0"}, "units must be from 0 to 3 in layer '0', not 4"),
        ({"units": []}, "units is empty"),
        ({"units": {"3": [0]}, "layers": "0"}, "units names layer '3', which is not among layers"),
        ({"sample": 0}, "sample must be at least 1 image, not 0"),
        ({"rule": "deconv"}, "deconvnet"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given = {"checkpoints": states(), "data": pictures(3), "model": build(9)} | arguments
    with pytest.raises(InterpretError, match=sentence) as caught:
        evolve(**given)
    assert "\n" not in str(caught.value)


def test_folders_that_name_no_epochs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "best.pth").touch()
    with pytest.raises(InterpretError, match="hold no file with an epoch in its name"):
        list_epochs(tmp_path)
    (tmp_path / "epoch5.pth").touch(), (tmp_path / "late_05.pt").touch()
    with pytest.raises(InterpretError, match=r"'epoch5\.pth' and 'late_05\.pt' are both of epoch 5"):
        list_epochs(tmp_path)


def test_the_result_is_read_without_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    evolve({4: states()[1], 9: states()[2]}, pictures(), layers="3", units=2, model=build(9)).save(tmp_path / "e")
    code = (
        "import sys; from interpret.results import Result; from interpret.results.plotting import plot; "
        f"plot(Result.load({str(tmp_path / 'e')!r})); print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
    assert isinstance(Result.load(tmp_path / "e"), Evolution)
