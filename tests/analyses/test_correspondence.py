"""Correspondence against the paper's formula, spelled out pair by pair and feature by feature in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import interpret
from interpret.analyses.correspondence import compute as correspondence
from interpret.analyses.correspondence.compute import correspond, hamming
from interpret.analyses.correspondence.result import MASKS, Correspondence
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


def build(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 16, 7)
        )
    return network.double().eval()


def pictures(count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sign(value: float, largest: float) -> int:
    if abs(value) <= 64 * 2**-52 * largest:
        return 0
    return 1 if value > 0 else -1


def literal_signs(network: nn.Sequential, image: Tensor, box: Any, layer: int, colour: float = 0.0) -> list[int]:
    """Sign of ε = x − x̃, feature by feature."""
    masked = image.clone()
    for y, x in itertools.product(range(box[0], box[2]), range(box[1], box[3])):
        masked[:, y, x] = colour
    with torch.no_grad():
        before, after = (network[: layer + 1](one[None]).flatten().tolist() for one in (image, masked))
    largest = max(map(abs, before + after))
    return [sign(x - y, largest) for x, y in zip(before, after, strict=True)]


def literal_delta(signs: list[list[int]]) -> float:
    """The sum over i ≠ j of the Hamming distance of the signs, over pairs and features."""
    distances = [
        sum(a != b for a, b in zip(signs[i], signs[j], strict=True)) / len(signs[i])
        for i in range(len(signs))
        for j in range(len(signs))
        if i != j
    ]
    return sum(distances) / len(distances)


def literal_error(signs: list[list[int]]) -> float:
    """The jackknife: Δ again without each image in its turn."""
    without = [literal_delta(signs[:i] + signs[i + 1 :]) for i in range(len(signs))]
    mean = sum(without) / len(without)
    return math.sqrt((len(signs) - 1) / len(signs) * sum((one - mean) ** 2 for one in without))


BOXES = np.array([[0, 0, 4, 5], [1, 2, 5, 7], [6, 5, 10, 10], [3, 3, 7, 8], [0, 5, 4, 10]])


@pytest.mark.parametrize("layer", ["0", "1", "4"])
def test_delta_is_the_formula(layer: str) -> None:
    network, images = build(), pictures()
    found = correspond(network, images, {"own": BOXES, "one": (2, 1, 5, 9)}, layer, batch_size=2)
    assert found.features == {layer: {"0": 256, "1": 256, "4": 7}[layer]}
    for column, boxes in enumerate((BOXES.tolist(), [(2, 1, 5, 9)] * 5)):
        signs = [literal_signs(network, image, box, int(layer)) for image, box in zip(images, boxes, strict=True)]
        assert found.scores[layer][0, column] == pytest.approx(literal_delta(signs), abs=1e-14)
        assert found.errors[layer][0, column] == pytest.approx(literal_error(signs), abs=1e-12)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note how each masking of the images is chosen."""
    variants: list[Any] = []
    choose = correspondence._variants

    def note(*arguments: Any) -> Any:
        variants.extend(choose(*arguments))
        return iter(variants)

    monkeypatch.setattr(correspondence, "_variants", note)
    return variants


def test_controls_are_the_formula_at_random_places_of_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, variants = build(), pictures(), recorded(monkeypatch)
    within = BOXES * 0 + np.array([0, 0, 8, 9])
    found = correspond(network, images, {"own": BOXES}, "4", draws=3, within=within, seed=5)
    own, shared = ([variant.boxes for variant in variants if variant.kind == kind] for kind in ("random", "shared"))
    assert len(own) == len(shared) == 3
    for boxes in (*own, *shared):
        assert (boxes[:, 2:] - boxes[:, :2] == BOXES[:, 2:] - BOXES[:, :2]).all()
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [8, 9]).all()
    assert all((boxes == boxes[0]).all() for boxes in shared) and not all((boxes == boxes[0]).all() for boxes in own)
    assert len({tuple(boxes[0]) for boxes in shared}) > 1, "each draw has a place of its own"
    deltas = {}
    for row, draws in ((1, own), (2, shared)):
        signs = [
            [literal_signs(network, image, box, 4) for image, box in zip(images, boxes.tolist(), strict=True)]
            for boxes in draws
        ]
        deltas[row] = [literal_delta(one) for one in signs]
        assert found.scores["4"][row, 0] == pytest.approx(np.mean(deltas[row]), abs=1e-14)
        without = [np.mean([literal_delta(one[:i] + one[i + 1 :]) for one in signs]) for i in range(5)]
        variance = 4 / 5 * ((np.array(without) - np.mean(without)) ** 2).sum()
        variance += np.var(deltas[row], ddof=1) / 3 if row == 2 else 0
        assert found.errors["4"][row, 0] == pytest.approx(math.sqrt(variance), abs=1e-12)
    assert found.gains["4"][:, 0] == pytest.approx(found.scores["4"][1:, 0] - found.scores["4"][0, 0])


def test_the_gain_of_a_part_over_itself_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random box that has no room to move is the part: the gain is 0, and so is its error."""
    found = correspond(build(), pictures(), {"all": (1, 1, 9, 9)}, "4", within=(1, 1, 9, 9), draws=4)
    assert found.gains["4"].tolist() == [[0.0], [0.0]]
    assert found.gain_errors["4"] == pytest.approx(np.zeros((2, 1)), abs=1e-15)
    assert (found.scores["4"] == found.scores["4"][0]).all()


@settings(max_examples=40, deadline=None)
@given(
    signs=st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([-1, 0, 1]), min_size=width, max_size=width), min_size=2, max_size=6
        )
    ),
    exact=st.integers(1, 5),
)
def test_hamming_counts_places_that_differ(signs: list[list[int]], exact: int) -> None:
    before, correspondence.FEATURES_AT_ONCE = correspondence.FEATURES_AT_ONCE, exact
    try:
        found = hamming(torch.tensor(signs, dtype=torch.int8))
    finally:
        correspondence.FEATURES_AT_ONCE = before
    for i, j in itertools.product(range(len(signs)), repeat=2):
        assert found[i, j] == pytest.approx(
            sum(a != b for a, b in zip(signs[i], signs[j], strict=True)) / len(signs[0])
        )
    # a distance: 0 to itself, the same both ways, no detour is shorter
    assert (found.diagonal() == 0).all() and (found == found.T).all()
    for i, j, k in itertools.product(range(len(signs)), repeat=3):
        assert found[i, k] <= found[i, j] + found[j, k] + 1e-12


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.01, 100), order=st.permutations(range(5)), seed=st.integers(0, 5))
def test_what_leaves_signs_alone_leaves_delta_alone(scale: float, order: list[int], seed: int) -> None:
    """A positive factor on the last layer, and the order of the images."""
    network, images, parts = build(seed), pictures(seed=seed), {"own": BOXES}
    base = correspond(network, images, parts, "4", draws=1)
    moved = correspond(network, images[order], {"own": BOXES[order]}, "4", draws=1)
    assert moved.scores["4"][0] == pytest.approx(base.scores["4"][0], abs=1e-14)
    assert moved.errors["4"][0] == pytest.approx(base.errors["4"][0], abs=1e-12)
    with torch.no_grad():
        network[4].weight *= scale
        network[4].bias *= scale
    scaled = correspond(network, images, parts, "4", draws=1)
    np.testing.assert_array_equal(scaled.scores["4"], base.scores["4"])


def test_alike_images_change_alike_and_opposite_ones_never() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(200, 9, bias=False)).double()
    image = pictures(1)
    alike = correspond(network, image.repeat(4, 1, 1, 1), {"part": (1, 1, 6, 6)}, "1")
    assert alike.scores["1"][0, 0] == 0 and alike.errors["1"][0, 0] == 0
    assert alike.scores["1"][2, 0] == 0, "one place in all images"
    assert alike.scores["1"][1, 0] > 0, "places of their own"
    opposite = correspond(network, torch.cat([image, -image]), {"part": (1, 1, 6, 6)}, "1")
    assert opposite.scores["1"][0, 0] == 1 and np.isnan(opposite.errors["1"][0, 0])


def test_rounding_is_no_change() -> None:
    """In float32, what the mask does not reach has the sign 0 in whatever batch it runs."""
    network = interpret.load("lenet")
    digits = interpret.open_images("digits", network)
    images = torch.stack([digits[item][0] for item in range(0, 5000, 250)])
    one, many = (
        correspond(network, images, {"corner": (0, 0, 9, 9)}, "conv*,fc1", batch_size=size, draws=1) for size in (1, 20)
    )
    for layer in one.layers:
        np.testing.assert_array_equal(one.scores[layer], many.scores[layer])
    # conv1's neurons beyond row and column 8 do not see the corner
    assert one.scores["conv1"][0, 0] <= 81 / 576


@pytest.mark.parametrize(
    ("colour", "value"), [("mean", 0.0), ("grey", (0.5 * 2 - 0.25) / 0.5), ("black", -0.5), ("white", 3.5)]
)
def test_the_mask_has_its_colour(colour: Any, value: float) -> None:
    preprocess = Preprocess((10, 10), channels="L", range=2, mean=(0.25,), std=(0.5,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 6)).double()
    images = pictures()[:, :1]
    found = correspond(Model(network, "flat", preprocess), images, {"own": BOXES}, "1", colour=colour)
    signs = [literal_signs(network, image, box, 1, value) for image, box in zip(images, BOXES.tolist(), strict=True)]
    assert found.scores["1"][0, 0] == pytest.approx(literal_delta(signs), abs=1e-14)


def test_it_runs_in_groups_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = correspond(build(), pictures(), {"own": BOXES, "one": (2, 1, 5, 9)})
    monkeypatch.setattr(correspondence, "SIGNS_AT_ONCE", 1)
    parted = correspond(build(), pictures(), {"own": BOXES, "one": (2, 1, 5, 9)})
    assert whole.layers == parted.layers == ["0", "4"]
    for layer in whole.layers:
        np.testing.assert_array_equal(whole.scores[layer], parted.scores[layer])
        np.testing.assert_array_equal(whole.gain_errors[layer], parted.gain_errors[layer])


def test_the_network_is_left_as_it_was() -> None:
    network = build().train()
    before = [parameter.clone() for parameter in network.parameters()]
    correspond(network, pictures(), {"own": BOXES})
    assert network.training and all(one.requires_grad for one in network.parameters())
    assert all(torch.equal(one, was) for one, was in zip(network.parameters(), before, strict=True))


def test_a_study_keeps_it_and_it_is_drawn(tmp_path: Path) -> None:
    found = correspond(build(), pictures(), {"own": BOXES, "one": (2, 1, 5, 9)})
    study = interpret.Study(tmp_path / "study", build(), pictures())
    study.keep(found)
    kept = study.result("correspondence")
    assert isinstance(kept, Correspondence) and kept.parts == ["own", "one"]
    figure = plot(kept)
    for column, axes in enumerate(figure.axes[:2]):
        assert axes.get_title() == kept.parts[column]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "4"]
        drawn: list[NDArray[Any]] = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
        for row in range(len(MASKS)):
            expected = [kept.scores[layer][row, column] for layer in kept.layers]
            assert any(np.allclose(line, expected) for line in drawn)
    assert "Δ" in figure.axes[0].get_ylabel()
    table = kept.table(["4"]).splitlines()
    assert table[0] == "| masked | 4 |" and len(table) == 2 + 3 * 2
    assert table[2] == f"| own | {kept.scores['4'][0, 0]:.3f} ± {kept.errors['4'][0, 0]:.3f} |"
    with pytest.raises(InterpretError, match="unknown layer '5'"):
        kept.table(["5"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": pictures(1)}, "images must be at least two, because pairs are compared, not 1"),
        (
            {"images": pictures()[0, 0]},
            r"inputs must be floating point, .* not torch.float64 \[10, 10\]",
        ),
        ({"images": pictures().float()}, "images are torch.float32"),
        ({"parts": {}}, "parts must be a mapping"),
        ({"parts": {"eye": (0, 0, 4, 11)}}, r"part 'eye' lies outside image 0 or is empty: .* = \(0, 0, 4, 11\) in 10"),
        ({"parts": {"eye": (-1, 0, 4, 4)}}, "part 'eye' lies outside image 0"),
        ({"parts": {"eye": np.add(BOXES, [[0, 0, 0, 0]] * 2 + [[0, 0, 0, 1]] + [[0, 0, 0, 0]] * 2)}}, "image 2"),
        ({"parts": {"eye": (3, 3, 3, 5)}}, "part 'eye' lies outside image 0 or is empty"),
        ({"parts": {"eye": BOXES[:3]}}, r"one box or one for each of the 5 images, not int64 of shape \[3, 4\]"),
        ({"parts": {"eye": (0.5, 0, 4, 4)}}, "part 'eye' must have whole numbers"),
        ({"within": (0, 0, 3, 9)}, "within is smaller than a part of image 0"),
        ({"within": (0, 0, 30, 9)}, "within lies outside image 0"),
        ({"draws": 0}, "draws must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"layers": "conv9"}, "unknown layer 'conv9'"),
        ({"colour": "gray"}, "did you mean 'grey'"),
        ({"colour": "grey"}, "does not say what grey is"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given = {"model": build(), "images": pictures(), "parts": {"eye": (0, 0, 4, 4)}} | arguments
    with pytest.raises(InterpretError, match=sentence) as caught:
        correspond(**given)
    assert "\n" not in str(caught.value)
