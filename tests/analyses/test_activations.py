"""Feature maps against the layers' own outputs, and their figure against the maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import interpret
from interpret.analyses.feature_maps.compute import feature_maps
from interpret.analyses.feature_maps.figure import _Block, plot_feature_maps
from interpret.analyses.feature_maps.result import FeatureMaps
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


def build() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 9, 4)
        )
    return network.double().eval()


def picture() -> Tensor:
    return torch.rand(1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_maps_are_what_each_layer_returns() -> None:
    network = build()
    found = feature_maps(network, picture(), "4,0,1,2")
    assert list(found.maps) == ["0", "1", "2", "4"], "in the order in which they run"
    for layer, maps in found.maps.items():
        with torch.no_grad():
            # the rectifier works in place: the convolution's own output is before it
            expected = network[: int(layer) + 1](picture()[None])[0]
        np.testing.assert_allclose(maps, expected.float().numpy(), rtol=1e-6)
    assert found.maps["0"].min() < 0 == found.maps["1"].min()
    assert found.kinds == {"0": "Conv2d", "1": "ReLU", "2": "MaxPool2d", "4": "Linear"}
    assert list(feature_maps(network, picture()[None]).maps) == ["0", "4"]


def test_a_picture_passes_through_the_preprocessing() -> None:
    preprocess = Preprocess((8, 8), channels="L", mean=(0.2,), std=(0.5,))
    model = Model(build().float(), "small", preprocess)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (10, 12), np.uint8))
    of_picture, of_tensor = feature_maps(model, image), feature_maps(model, preprocess(image))
    assert all(np.array_equal(of_picture.maps[layer], of_tensor.maps[layer]) for layer in of_tensor.maps)
    assert of_picture.picture.shape == (8, 8, 3)
    with pytest.raises(InterpretError, match="does not say how a picture becomes its input"):
        feature_maps(build(), image)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 40), signed=st.booleans())
def test_colours_follow_the_activations(seed: int, count: int, signed: bool) -> None:
    """White is zero, and a stronger activation is never paler."""
    values = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    values[0] = 0
    block = _Block(values if signed else np.abs(values), 6.4)
    tile = block.picture[0, 0, :3].astype(int)
    assert (np.abs(tile - 247) <= 1).all(), "zero"
    assert block.low == (-block.high if signed and values.min() < 0 else 0)
    shades = block.colours((np.sort(np.abs(values)) - block.low) / (block.high - block.low))[:, :3].sum(1)
    assert (np.diff(shades) <= 1e-9).all()


def test_a_map_of_zeros_is_drawn() -> None:
    block = _Block(np.zeros((3, 4, 4), np.float32), 6.4)
    assert block.high == 1.0 and block.low == 0.0 and block.extend == "neither"


def test_it_is_kept_and_drawn(tmp_path: Path) -> None:
    network = build()
    study = interpret.Study(tmp_path / "study", network, picture()[None])
    study.keep(feature_maps(network, picture(), "0,2,4"))
    kept = study.result("feature-maps")
    assert isinstance(kept, FeatureMaps)
    figure = plot(kept)
    titles = [axes.texts[0].get_text() for axes in figure.axes]
    assert titles == ["input", "0 (Conv2d): 5 maps, 6 × 6", "2 (MaxPool2d): 5 maps, 3 × 3", "4 (Linear): 4 units"]
    few = plot_feature_maps(kept, most=3)
    assert "0 (Conv2d): 5 maps, 6 × 6, the first 3" in [axes.texts[0].get_text() for axes in few.axes]
    with pytest.raises(InterpretError, match="most must be at least 1"):
        plot_feature_maps(kept, most=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image": torch.rand(2, 1, 8, 8).double()}, "image must be one image, not 2"),
        (
            {"image": torch.rand(8, 8).double()},
            r"inputs must be floating point, .* and pictures uint8, not torch.float64 \[8, 8\]",
        ),
        ({"image": "cat.jpg"}, "data 'cat.jpg' does not exist"),
        ({"image": picture().float()}, "images are torch.float32"),
        ({"layers": "5"}, "unknown layer '5'"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given = {"model": build(), "image": picture()} | arguments
    with pytest.raises(InterpretError, match=sentence) as caught:
        feature_maps(**given)
    assert "\n" not in str(caught.value)
