"""Every script of the lecture runs, and what it says is so: its numbers are computed again here in another way."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.signal import convolve2d, correlate2d
from torch import nn

import interpret
from helpers.packages import needs
from helpers.scripts import EXAMPLES, load_script

SCRIPTS = EXAMPLES / "lecture"
NAMES = {path.stem for path in SCRIPTS.glob("*.py")}


def run(name: str, out: Path, capsys: pytest.CaptureFixture[str], ending: str = "png") -> tuple[ModuleType, Any, str]:
    """Run a script as the command does; return its module, what it found and what it printed."""
    module = load_script(f"lecture/{name}")
    found = module.main(["--out", str(out / "figures")])
    printed = capsys.readouterr().out
    path = out / "figures" / f"{name}.{ending}"
    assert f"Open {path}" in printed
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # a figure and not an empty sheet
    assert pixels.shape[0] > 200 and pixels.shape[1] > 500 and 0.02 < (pixels < 250).any(2).mean() < 0.95
    return module, found, printed


def test_cross_correlation_gives_the_lectures_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, printed = run("cross_correlation", tmp_path, capsys)
    # the lecture computes in float32
    assert found["correlation"].item() == pytest.approx(-1.1026558, abs=2e-7)
    assert found["convolution"].item() == pytest.approx(-0.2611365, abs=2e-7)
    assert "-1.102656  (SciPy: -1.102656)" in printed and "-0.261136  (SciPy: -0.261136)" in printed
    generator = np.random.default_rng(0)
    for height, width, side in ((3, 3, 2), (7, 9, 3), (6, 5, 2)):
        image, kernel = generator.normal(size=(height, width)), generator.normal(size=(side, side + 1))
        np.testing.assert_allclose(module.cross_correlate(image, kernel), correlate2d(image, kernel, "valid"))
        np.testing.assert_allclose(module.convolve(image, kernel), convolve2d(image, kernel, "valid"))
    # turning the kernel of the lower rows can be seen: neither itself nor its opposite comes out
    kernel, turned = found["kernel"], found["kernel"][::-1, ::-1]
    for other in (kernel, -kernel):
        assert np.abs(turned - other).max() > 0.9 * kernel.max() and (turned * other).sum() < 0.2 * (kernel**2).sum()
    pixel = np.zeros((15, 15))
    pixel[7, 7] = 1
    np.testing.assert_allclose(module.convolve(pixel, kernel)[1:8, 1:8], kernel)
    np.testing.assert_allclose(module.cross_correlate(pixel, kernel)[1:8, 1:8], turned)


def test_output_sizes_and_parameters_are_the_lectures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, printed = run("output_sizes", tmp_path, capsys)
    assert tuple(found["layer"].weight.shape) == (8, 1, 5, 5) and tuple(found["layer"].bias.shape) == (8,)
    assert found["lecture"]["output_shape"] == [8, 24, 24] and found["lecture"]["params"] == 208
    assert "weights (8, 1, 5, 5), bias (8,), output (8, 24, 24)" in printed
    # seventeen thousand times as many, says the docstring
    assert found["lecture"]["dense_params"] == (28 * 28 + 1) * 24 * 24 * 8
    assert 17_000 < found["lecture"]["dense_params"] / found["lecture"]["params"] < 18_000
    for kernel, stride, padding in itertools.product(range(1, 12), (1, 2, 4), (0, 2)):
        image = torch.zeros(1, 1, 28, 28)
        size = F.conv2d(image, torch.zeros(1, 1, kernel, kernel), stride=stride, padding=padding).shape[-1]
        assert module.output_size(28, kernel, stride, padding) == size == (28 - kernel + 2 * padding) // stride + 1
    for layer in found["layers"]:
        if layer["kernel_size"]:
            assert layer["dense_params"] > 300 * layer["params"]


def test_a_shared_weights_gradient_is_the_sum_over_its_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, found, _ = run("weight_sharing", tmp_path, capsys)
    paths = found["paths"]
    assert paths["sum"] == pytest.approx(paths["autograd"], rel=1e-12) and paths["first"] * paths["second"] < 0
    torch.testing.assert_close(found["parts"].sum((0, 1)), found["autograd"], rtol=1e-10, atol=1e-12)
    # each path by itself is the derivative when only its own copy of the weight changes
    x1, x2, w, v1, v2, target, step = 0.4, 0.9, -0.3, 0.8, -1.5, 0.1, 1e-6

    def loss(first: float, second: float) -> float:
        return float((v1 * np.tanh(first * x1) + v2 * np.tanh(second * x2) - target) ** 2)

    parts = module.two_paths(x1, x2, w, v1, v2, target)
    numeric = (loss(w + step, w) - loss(w - step, w)) / (2 * step)
    assert parts["first"] == pytest.approx(numeric, rel=1e-6)
    numeric = (loss(w, w + step) - loss(w, w - step)) / (2 * step)
    assert parts["second"] == pytest.approx(numeric, rel=1e-6)


def test_one_place_gives_the_gradient_of_its_own_copy_of_the_kernel() -> None:
    module = load_script("lecture/weight_sharing")
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    copies = torch.randn(3, 4, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    upstream = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    answers = torch.stack(
        [
            torch.stack([(image[y : y + 3, x : x + 3] * copies[y, x]).sum() for x in range(4)])
            for y in range(3)
        ]
    )  # fmt: skip
    (expected,) = torch.autograd.grad((answers * upstream).sum(), copies)
    torch.testing.assert_close(module.kernel_gradient_by_position(image, upstream, 3), expected)


def test_a_convolution_is_a_sparse_matrix_with_shared_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, found, printed = run("sparse_connectivity", tmp_path, capsys)
    matrix = found["matrix"]
    assert matrix.shape == (16, 36) and ((matrix > 0).sum(1) == 9).all() and set(np.unique(matrix)) == set(range(10))
    assert "144 of 576 entries are nonzero, with 9 distinct weights" in printed
    np.testing.assert_allclose(found["by_matrix"], found["by_layer"], atol=1e-12)
    # column by column: what the layer answers to a single bright pixel
    layer = nn.Conv2d(1, 1, 2, bias=False)
    layer.weight.data = torch.arange(1.0, 5.0).view(1, 1, 2, 2)
    pixels = torch.eye(16).view(16, 1, 4, 4)
    np.testing.assert_array_equal(layer(pixels).detach().numpy().reshape(16, 9).T, module.weight_indices(4, 2))
    assert found["sizes"] == [3, 5, 7] == module.receptive_fields(3)


def test_edge_detectors_find_the_step_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, printed = run("edge_detectors", tmp_path, capsys)
    assert found["vertical"].tolist() == [[0, 30, 30, 0]] * 4 and not found["horizontal"].any()
    assert "30., 30." in printed
    lying = found["step"].T
    assert torch.equal(module.detect(lying, module.HORIZONTAL), found["vertical"].T)
    assert (
        not module.detect(lying, module.VERTICAL).any() and not module.detect(torch.ones(6, 6), module.VERTICAL).any()
    )
    # a one stands upright: more of its edges are vertical ones; and each digit has edges on both sides of its strokes
    for name, image in found["images"][1:]:
        vertical, horizontal = module.detect(image, module.VERTICAL), module.detect(image, module.HORIZONTAL)
        assert vertical.min() < -1 < 1 < vertical.max() and horizontal.min() < -1 < 1 < horizontal.max()
        if name == "a 1":
            assert vertical.abs().sum() > 1.3 * horizontal.abs().sum()
        np.testing.assert_allclose(vertical, correlate2d(image, module.VERTICAL, "valid"), atol=1e-6)


def test_channels_are_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, printed = run("several_channels", tmp_path, capsys)
    assert found["image"].shape == (3, 128, 128) and found["kernel"].shape == (3, 7, 7)
    assert tuple(found["layer"].weight.shape) == (24, 3, 7, 7) and "weights (24, 3, 7, 7)" in printed
    torch.testing.assert_close(found["total"], found["at_once"])
    image, kernel = found["image"].numpy(), found["kernel"].numpy()
    expected = sum(correlate2d(image[channel], kernel[channel], "valid") for channel in range(3)) + found["bias"]
    np.testing.assert_allclose(found["total"], expected, atol=1e-9)
    # what the script says of the unit: bright above dark in red and green, and hardly blue
    above, below = kernel[:, :3].sum((1, 2)), kernel[:, 4:].sum((1, 2))
    assert (above[:2] > 1 + below[:2]).all() and np.square(kernel[2]).sum() < 0.2 * np.square(kernel[:2]).sum()


def test_pooling_makes_locally_invariant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, _ = run("pooling", tmp_path, capsys)
    changes, shifts = found["changes"], module.SHIFTS
    assert found["small"].tolist() == [[20, 30], [112, 37]]
    for name, values in changes.items():
        assert values[0] == 0, name
        # local: the further, the less of it is left
        assert all(later > earlier for earlier, later in itertools.pairwise(values)), name
    for place in range(1, len(shifts)):
        in_order = [changes[name][place] for name in ("no pooling", "max 2 × 2", "max 4 × 4", "max 8 × 8")]
        assert in_order == sorted(in_order, reverse=True)
    assert changes["max 4 × 4"][1] < 0.6 * changes["no pooling"][1]
    # "nearly as much"
    assert changes["max 4 × 4"][1] < changes["mean 4 × 4"][1] < 1.1 * changes["max 4 × 4"][1]
    # within a window, the maximum does not notice a move at all
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 4] = 1
    assert torch.equal(module.POOLS["max 4 × 4"](image), module.POOLS["max 4 × 4"](module.moved(image, 3)))
    assert not torch.equal(module.POOLS["max 4 × 4"](image), module.POOLS["max 4 × 4"](module.moved(image, 4)))


@pytest.mark.slow
def test_the_detector_slides_over_all_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, _ = run("sliding_detector", tmp_path, capsys, "gif")
    torch.testing.assert_close(found["sums"], found["layer"], rtol=1e-4, atol=1e-5)
    assert found["layer"].shape == (24, 24) and found["layer"].max() > 1 and found["layer"].min() < 0
    places = module.shown_positions(24, 24)
    assert places[0] == (0, 0) and places[-1] == (23, 23) and len(places) == found["frames"] == 193
    with Image.open(tmp_path / "figures/sliding_detector.gif") as animation:
        assert animation.n_frames == 193 and animation.info["loop"] == 0
        frames = []
        for number in (0, 96, 192):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("L")).astype(float))
    # the map on the right fills up, while the detector in the middle stays
    width = frames[0].shape[1]
    assert all((after != before).mean() > 0.001 for before, after in itertools.pairwise(frames))
    middle = slice(width * 2 // 5, width * 3 // 5)
    upper = slice(0, len(frames[0]) // 2)
    assert (frames[0][upper, middle] == frames[2][upper, middle]).all()


@pytest.mark.slow
@needs("keras")
def test_pytorch_and_keras_have_the_same_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, found, printed = run("cnns_in_pytorch_and_keras", tmp_path, capsys)
    assert found["difference"] < 1e-6 and found["accuracy"] > 0.96
    assert printed.count("the same\n") == len(module.PAIRS) and "different" not in printed
    assert found["keras"]["conv2"].macs == 50 * 20 * 5 * 5 * 8 * 8 and found["keras"].params == found["torch"].params
    # a kernel's and a matrix's elements are where the script says
    shipped = interpret.load("lenet").module
    twin = module.with_weights_of(shipped, module.build_in_keras())
    kernel = twin.get_layer("conv2").kernel.value
    assert kernel[3, 1, 7, 40] == shipped.conv2.weight[40, 7, 3, 1]
    matrix = twin.get_layer("fc1").kernel.value
    assert matrix[(2 * 4 + 3) * 50 + 9, 5] == shipped.fc1.weight[5, (9 * 4 + 2) * 4 + 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_script_without_its_packages_says_what_to_install(name: str, tmp_path: Path) -> None:
    """SciPy and mlxtend come with the extra "examples"; who has not installed it reads one sentence."""
    code = (
        "import sys, runpy\n"
        "sys.modules['scipy'] = sys.modules['mlxtend'] = None\n"
        f"sys.path.insert(0, {str(SCRIPTS)!r})\n"
        f"sys.argv = ['script', '--out', {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(SCRIPTS / (name + '.py'))!r}, run_name='__main__')\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    if finished.returncode:
        assert finished.returncode == 2 and finished.stderr.startswith("interpret: "), finished.stderr
        assert re.search(r"pip install 'interpret-cnn\[|run npm install", finished.stderr)
        assert finished.stderr.count("\n") == 1
    alone = ("output_sizes", "several_channels", "signals", "sparse_connectivity")
    assert (finished.returncode == 2) == (name not in alone)


def test_image_synthesis_makes_digits_that_are_read_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, printed = run("image_synthesis", tmp_path, capsys)
    made = found["made"]
    # a 1 is so simple that the strongest one is hard to beat
    assert found["answers"] == list(range(10)) and made.beats_natural.sum() >= 9
    assert printed.count("read as") == 10
    # the strongest digit of each class, from the network alone
    model = interpret.load("lenet")
    with torch.no_grad():
        strongest = model.module.eval()(found["natural"]).amax(0).numpy()
    np.testing.assert_allclose(made.natural_values, strongest, rtol=1e-4)


@pytest.mark.slow
def test_a_network_of_signals_looks_for_the_beat_that_makes_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, found, printed = run("signals", tmp_path, capsys)
    assert found["accuracy"] > 0.95 and f"{found['accuracy']:.1%} of 300 new signals" in printed
    # hiding the early beat, and no other stretch, costs the class its probability
    worst = found["lefts"][found["lost"].argmax()]
    assert found["lost"].max() > 0.5 and worst - 20 <= found["odd"] < worst + module.HIDDEN + 20
    away = (found["lefts"] > found["odd"] + 60) | (found["lefts"] + module.HIDDEN < found["odd"] - 60)
    assert found["lost"][away].max() < 0.5
