"""Kernels as pictures: exact grey values, true colours, scales, layouts and errors."""

from __future__ import annotations

import io
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from helpers.figure_checks import faults
from helpers.packages import needs_squeezenet
from interpret import InterpretError, Model, Preprocess, filter_images, load, plot_filters
from interpret.analyses.filters.sheet import filter_sheet

SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def with_weights(layer: nn.Module, weights: Tensor) -> nn.Sequential:
    with torch.no_grad():
        layer.weight.copy_(weights)
    return nn.Sequential(layer)


def colour_model(channels: str) -> Model:
    """Two filters: one likes red at its top left and dislikes blue at its bottom right, the other is half as strong."""
    weights = torch.zeros(2, 3, 2, 2)
    weights[0, channels.index("R"), 0, 0] = 4.0
    weights[0, channels.index("B"), 1, 1] = -2.0
    weights[1, channels.index("G"), 0, 1] = 2.0
    preprocess = Preprocess((8, 8), channels=channels, std=(1.0, 2.0, 4.0))
    return Model(with_weights(nn.Conv2d(3, 2, 2), weights), name="two filters", preprocess=preprocess)


def test_an_edge_detector_comes_out_as_one_would_draw_it() -> None:
    pictures = filter_images(with_weights(nn.Conv2d(1, 1, 3), SOBEL))
    assert pictures.dtype == np.float32 and pictures.shape == (1, 3, 3, 3)
    expected = np.array([[0.25, 0.5, 0.75], [0.0, 0.5, 1.0], [0.25, 0.5, 0.75]])
    for colour in range(3):
        np.testing.assert_array_equal(pictures[0, :, :, colour], expected)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_colours_are_true_in_either_order(channels: str) -> None:
    first, second = filter_images(colour_model(channels))
    np.testing.assert_array_equal(first[0, 0], [1.0, 0.5, 0.5])  # red
    np.testing.assert_array_equal(first[1, 1], [0.5, 0.5, 0.25])  # short of blue
    np.testing.assert_array_equal(first[0, 1], [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(second[0, 1], [0.5, 1.0, 0.5])  # green


def test_scale() -> None:
    each, shared = filter_images(colour_model("RGB")), filter_images(colour_model("RGB"), scale="shared")
    assert each[0].max() == 1.0 and each[1].max() == 1.0
    assert shared[0].max() == 1.0 and shared[1].max() == 0.75
    np.testing.assert_array_equal(shared[0], each[0])


def test_a_filter_of_zeros_is_grey() -> None:
    for scale in ("filter", "shared"):
        assert (filter_images(with_weights(nn.Conv2d(3, 2, 3), torch.zeros(2, 3, 3, 3)), scale=scale) == 0.5).all()


def test_slices_come_unit_by_unit_on_the_scale_of_their_filter() -> None:
    weights = torch.arange(1.0, 25.0).reshape(2, 3, 2, 2)[:, [0, 1, 2, 0]]
    network = with_weights(nn.Conv2d(4, 2, 2), weights)
    pictures = filter_images(network)
    assert pictures.shape == (8, 2, 2, 3)
    for unit in range(2):
        for channel in range(4):
            expected = 0.5 + weights[unit, channel].numpy() / (2 * (12.0, 24.0)[unit])
            np.testing.assert_allclose(pictures[4 * unit + channel, :, :, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(filter_images(network, channel=2), pictures[[2, 6]])


def test_one_channel_of_a_colour_layer_is_grey() -> None:
    model = colour_model("BGR")
    red = filter_images(model, channel=2)  # as the layer counts them: blue, green, red
    assert red.shape == (2, 2, 2, 3) and red[0, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert (red[1] == 0.5).all()


def test_depthwise_grouped_and_transposed() -> None:
    assert filter_images(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))).shape == (8, 3, 3, 3)
    assert filter_images(nn.Sequential(nn.Conv2d(8, 4, 3, groups=2))).shape == (16, 3, 3, 3)
    # a group of three channels has no colours
    assert filter_images(nn.Sequential(nn.Conv2d(6, 4, 3, groups=2))).shape == (12, 3, 3, 3)

    layer = nn.ConvTranspose2d(4, 6, 2, groups=2)
    pictures = filter_images(nn.Sequential(layer), "0", scale="shared").reshape(6, 2, 2, 2, 3)
    largest = layer.weight.abs().max().item()
    for unit in range(6):
        for channel in range(2):
            kernel = layer.weight[2 * (unit // 3) + channel, unit % 3].detach().numpy()
            np.testing.assert_allclose(pictures[unit, channel, :, :, 0], 0.5 + kernel / (2 * largest), rtol=1e-5)


def test_a_linear_layer_on_the_pixels() -> None:
    layer = nn.Linear(2 * 3 * 3, 5)
    digits = Preprocess((6, 3), channels="L")
    model = Model(nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(5, 2)), name="perceptron", preprocess=digits)
    pictures = filter_images(model, "1", scale="shared")
    assert pictures.shape == (5, 6, 3, 3)
    expected = 0.5 + layer.weight.detach().reshape(5, 6, 3) / (2 * layer.weight.abs().max().item())
    np.testing.assert_allclose(pictures[..., 0], expected, rtol=1e-5)
    with pytest.raises(InterpretError, match=r"layer '3' \(Linear\) has no kernels to draw"):
        filter_images(model, "3")


def test_the_first_convolution_is_the_default() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 2), nn.Conv2d(5, 7, 3))
    np.testing.assert_array_equal(filter_images(network), filter_images(network, "1"))
    assert filter_images(nn.Conv2d(3, 5, 2)).shape == (5, 2, 2, 3)  # a bare layer


def test_what_is_not_connected_is_not_drawn_as_zeros() -> None:
    """LeNet-5's C3 sees of S2 what Table I of the paper says."""
    model = load("lenet5")
    connected = model.module.c3.table.numpy()
    pictures = filter_images(model, "c3").reshape(16, 6, 5, 5, 3)
    assert connected.sum() == 60
    assert (pictures[~connected] == 1).all() and not (pictures[connected] == 1).all((1, 2, 3)).any()
    np.testing.assert_array_equal(filter_images(model, "c3", channel=2), pictures[:, 2])
    (axes,) = plot_filters(model, "c3").axes
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(axes.images) == 60 and len(hatched) == 36
    tile = hatched[0].get_width() * 1.1
    left, top = min(one.get_extent()[0] for one in axes.images), min(one.get_extent()[3] for one in axes.images)
    places = {(round((patch.get_y() - top) / tile), round((patch.get_x() - left) / tile)) for patch in hatched}
    assert places == set(map(tuple, np.argwhere(~connected).tolist()))
    assert "hatched: no connection" in texts(plot_filters(model, "c3")) and "hatched" not in texts(plot_filters(model))
    sheet = filter_sheet(model, "c3")
    for unit, channel in np.ndindex(16, 6):
        size = 9 * 5
        found = sheet[unit * (size + 4) :, channel * (size + 4) :][:size, :size]
        assert (set(np.unique(found)) == {190, 255}) == (not connected[unit, channel])


def test_a_pruned_slice_is_none_and_a_filter_of_zeros_stays_grey() -> None:
    network = nn.Sequential(nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        network[0].weight[0] = 0
        network[0].weight[1, 3] = 0
    pictures = filter_images(network).reshape(2, 4, 3, 3, 3)
    assert (pictures[0] == 0.5).all() and (pictures[1, 3] == 1).all() and not (pictures[1, 0] == 1).all()
    # a colour that a colour kernel has no weights for is no gap
    network = nn.Sequential(nn.Conv2d(3, 1, 3))
    with torch.no_grad():
        network[0].weight[0, 1] = 0
    assert (filter_images(network)[0, :, :, 1] == 0.5).all()
    assert not [patch for patch in plot_filters(network).axes[0].patches if patch.get_hatch()]


@pytest.mark.parametrize(
    ("layer", "settings"),
    [("c3", {}), ("c3", {"width": 3.3}), ("c1", {"width": 2.5, "numbers": True}), ("c5", {"scale": "shared"}),
     ("c5", {"channel": 15, "width": 3.3, "numbers": True})],
)  # fmt: skip
def test_nothing_is_cut_or_covered(layer: str, settings: dict[str, Any]) -> None:
    figure = plot_filters(load("lenet5"), layer, **settings)
    assert faults(figure) == []
    assert figure.get_size_inches()[0] == settings.get("width", figure.get_size_inches()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "feature"}, r"unknown layer 'feature': did you mean 'features'\?"),
        ({"layer": "act"}, r"layer 'act' \(ReLU\) has no kernels to draw: choose a convolution, such as 'features'"),
        ({"layer": "norm"}, r"layer 'norm' \(BatchNorm2d\) has no kernels"),
        ({"scale": "fliter"}, r"unknown scale 'fliter': did you mean 'filter'\?"),
        ({"channel": 3}, r"channel must be from 0 to 2, the input channels of 'features', not 3"),
        ({"channel": -1}, r"channel must be from 0 to 2"),
        ({"layer": "broken"}, r"layer 'broken' has weights that are not finite"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    network = nn.Sequential()
    network.add_module("features", nn.Conv2d(3, 4, 3))
    network.add_module("norm", nn.BatchNorm2d(4))
    network.add_module("act", nn.ReLU())
    network.add_module("broken", with_weights(nn.Conv2d(1, 1, 1), torch.full((1, 1, 1, 1), torch.nan))[0])
    for draw in (filter_images, filter_sheet, plot_filters):
        with pytest.raises(InterpretError, match=message):
            draw(network, **arguments)


def test_no_convolution_and_no_room() -> None:
    with pytest.raises(InterpretError, match="'Sequential' has no convolution"):
        plot_filters(nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(InterpretError, match="limit must be at least 1, not 0"):
        plot_filters(nn.Sequential(nn.Conv2d(3, 4, 3)), limit=0)


# ---- the sheet -------------------------------------------------------------------------------------------------------


def test_a_sheet_holds_every_tile_unsmoothed() -> None:
    model = colour_model("BGR")
    sheet = filter_sheet(model)
    assert sheet.dtype == np.uint8 and sheet.shape == (44, 44 + 4 + 44, 3)  # a weight is a square of 22 pixels
    tiles = np.round(filter_images(model) * 255)
    np.testing.assert_array_equal(sheet[::22, :44:22], tiles[0])
    np.testing.assert_array_equal(sheet[::22, 48::22], tiles[1])
    np.testing.assert_array_equal(sheet[:22, :22], np.broadcast_to([255, 128, 128], (22, 22, 3)))
    assert (sheet[:, 44:48] == 255).all()


def test_a_sheet_of_slices_has_a_row_a_unit() -> None:
    sheet = filter_sheet(nn.Sequential(nn.Conv2d(5, 3, 4)))
    assert sheet.shape == (3 * 48 - 4, 5 * 48 - 4, 3)
    assert filter_sheet(nn.Sequential(nn.Conv2d(5, 3, 4)), limit=2).shape == (2 * 48 - 4, 2 * 48 - 4, 3)
    # empty places are white, and rectangular kernels keep their shape
    seven = filter_sheet(nn.Sequential(nn.Conv2d(1, 7, 4)))
    assert seven.shape == (2 * 48 - 4, 4 * 48 - 4, 3) and (seven[-44:, -44:] == 255).all()
    assert filter_sheet(nn.Sequential(nn.Conv2d(1, 1, (1, 11)))).shape == (4, 44, 3)


# ---- the figure ------------------------------------------------------------------------------------------------------


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in [*figure.texts, *(t for axes in figure.axes for t in axes.texts)])


def test_a_figure_has_a_tile_a_filter() -> None:
    figure = plot_filters(nn.Sequential(nn.Conv2d(3, 64, 11)))
    images = figure.axes[0].images
    assert len(images) == 64 and len({tuple(image.get_extent()) for image in images}) == 64
    assert all(image.get_interpolation() == "nearest" for image in images)
    assert "0 of Sequential" in texts(figure) and "64 filters of 11 × 11 weights in each of three colours" in texts(
        figure
    )
    assert figure.get_size_inches()[0] == 7.2


def test_a_figure_of_slices_says_what_it_leaves_out() -> None:
    network = nn.Sequential(nn.Conv2d(12, 40, 3))
    figure = plot_filters(network, limit=10)
    assert len(figure.axes[0].images) == 100
    assert "40 filters of 3 × 3 weights on 12 input channels; shown: the first 10 units and 10 channels" in texts(
        figure
    )
    assert len(plot_filters(network).axes[0].images) == 24 * 12
    assert "shown" not in texts(plot_filters(nn.Sequential(nn.Conv2d(6, 16, 5))))
    assert len(plot_filters(network, channel=11).axes[0].images) == 40
    assert "on input channel 11 of 12" in texts(plot_filters(network, channel=11))


def test_a_figure_states_its_scale() -> None:
    model = colour_model("RGB")
    assert "−1 | +1 | 0 | times the filter's largest weight, in each colour" in texts(plot_filters(model))
    assert "−4 | +4 | 0 | weight, the same for all filters" in texts(plot_filters(model, scale="shared"))
    assert "0 | 1" in texts(plot_filters(model, numbers=True)) and "0 | 1" not in texts(plot_filters(model))


def test_a_figure_shows_the_values_of_the_images() -> None:
    figure = plot_filters(colour_model("BGR"))
    figure.savefig(file := io.BytesIO(), format="png", dpi=200)
    pixels = np.asarray(Image.open(file).convert("RGB"))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert {(255, 128, 128), (128, 128, 64), (128, 255, 128)} <= colours
    # unsmoothed: of each colour there is a whole square
    assert (pixels == (255, 128, 128)).all(-1).sum() > 100**2


def test_no_global_state_of_matplotlib_is_touched() -> None:
    backend = matplotlib.get_backend(auto_select=False)
    plot_filters(nn.Sequential(nn.Conv2d(1, 2, 3))).savefig(io.BytesIO(), format="pdf")
    assert matplotlib.get_backend(auto_select=False) == backend
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@needs_squeezenet
def test_real_first_layer_of_a_bgr_network() -> None:
    model = load("squeezenet1_1")
    pictures = filter_images(model)
    assert pictures.shape == (64, 3, 3, 3)
    weights = model.module.features[0].weight[5].detach().numpy()
    np.testing.assert_allclose(pictures[5, :, :, 0], 0.5 + weights[2] / (2 * np.abs(weights).max()), rtol=1e-6)
