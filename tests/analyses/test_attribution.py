"""Attribution: the same as captum where captum is right, as the papers say where it is not, and what maps are about."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

import interpret
from helpers.packages import needs_photographs, needs_squeezenet
from helpers.scripts import run_script
from interpret.analyses.attribution.cam_layer import find_cam_layer
from interpret.analyses.attribution.compute import attribute
from interpret.analyses.attribution.result import METHODS
from interpret.analyses.attribution.similarity import (
    DETAIL_SIDE,
    DETAIL_SIGMA,
    detail,
    rank_correlation,
    scaled,
    structural_similarity,
)
from interpret.analyses.attribution.superpixels import superpixels
from interpret.analyses.attribution.target import TruncatedModel, find_target
from interpret.analyses.methods.compute import compare_methods
from interpret.network.model import Model, as_model
from interpret.network.preprocess import Preprocess
from interpret.results import Result
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError

SIDE = 18


class Network(nn.Module):
    """Convolutions, batch norm, pooling, rectifiers as modules or as functions, and a linear end."""

    def __init__(self, functional: bool = False, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.fc1 = nn.Linear(8 * 8 * 8, 12)
        self.relu3 = nn.ReLU(inplace)
        self.fc2 = nn.Linear(12, 5)
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (F.relu,) * 3 if self.functional else (self.relu1, self.relu2, self.relu3)
        x = self.pool(first(self.norm(self.conv1(x))))
        x = second(self.conv2(x))
        return self.fc2(third(self.fc1(x.flatten(1))))


def make(seed: int = 0, **kind: bool) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(**kind).double().eval()
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


TARGETS = [1, 4, 0]


def with_gradient(images: Tensor) -> Tensor:
    return images.clone().requires_grad_()


# ---- against captum --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "guided", "deconvnet", "integrated_gradients"])
def test_output_equals_captums(images: Tensor, method: Any, inplace: bool) -> None:
    network = make(inplace=inplace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it sets hooks
        expected = {
            "gradient": lambda x: captum.attr.Saliency(network).attribute(x, TARGETS, abs=False),
            "gradient_x_input": lambda x: captum.attr.InputXGradient(network).attribute(x, TARGETS),
            "guided": lambda x: captum.attr.GuidedBackprop(network).attribute(x, TARGETS),
            "deconvnet": lambda x: captum.attr.Deconvolution(network).attribute(x, TARGETS),
            "integrated_gradients": lambda x: captum.attr.IntegratedGradients(network).attribute(x, target=TARGETS),
        }[method](with_gradient(images))
    found = attribute(network, images, method, TARGETS)
    assert found.maps.shape == images.shape
    rtol = 1e-9 if method == "integrated_gradients" else 0  # which here adds up its points in another order
    torch.testing.assert_close(found.maps, expected.detach(), rtol=rtol, atol=rtol * 1e-6)
    assert float(found.maps.abs().max()) > 0
    torch.testing.assert_close(found.scores, network(images)[torch.arange(3), torch.tensor(TARGETS)].detach())


@pytest.mark.parametrize("method", ["gradient", "guided", "deconvnet", "integrated_gradients"])
def test_hidden_neuron_equals_captums(images: Tensor, method: Any) -> None:
    network = make()
    kind = {
        "gradient": captum.attr.NeuronGradient,
        "guided": captum.attr.NeuronGuidedBackprop,
        "deconvnet": captum.attr.NeuronDeconvolution,
        "integrated_gradients": captum.attr.NeuronIntegratedGradients,
    }[method]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = kind(network, network.conv2).attribute(with_gradient(images), (5, 2, 3))
    found = attribute(network, images, method, 5, layer="conv2", position=(2, 3))
    rtol = 1e-9 if method == "integrated_gradients" else 0  # which here adds up its points in another order
    torch.testing.assert_close(found.maps, expected.detach(), rtol=rtol, atol=rtol * 1e-6)
    assert float(found.maps.abs().max()) > 0


@pytest.mark.parametrize("method", ["gradient", "guided", "deconvnet", "gradcam"])
@pytest.mark.parametrize("spec", ["resnet18", "squeezenet1_1"])
def test_real_architectures_equal_captums(spec: str, method: Any) -> None:
    network = interpret.load(f"torchvision:{spec}", weights="random").module.double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = int(network(image).argmax())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = {"guided": captum.attr.GuidedBackprop, "deconvnet": captum.attr.Deconvolution}.get(method)
        if kind is not None:
            expected = kind(network).attribute(with_gradient(image), target)
        elif method == "gradient":
            expected = captum.attr.Saliency(network).attribute(with_gradient(image), target, abs=False)
        else:
            layer = network.get_submodule({"resnet18": "layer4", "squeezenet1_1": "classifier.1"}[spec])
            cam = captum.attr.LayerGradCam(network, layer).attribute(
                with_gradient(image), target, relu_attributions=True
            )
            expected = captum.attr.LayerAttribution.interpolate(cam, (64, 64), "bilinear")
    found = attribute(network, image, method, target)
    assert torch.equal(found.maps, expected.detach()) and bool(found.maps.any())


def test_grad_cam_and_guided_grad_cam_equal_captums(images: Tensor) -> None:
    network = make()
    x = with_gradient(images)
    cam = captum.attr.LayerGradCam(network, network.conv2).attribute(x, TARGETS, relu_attributions=True)
    enlarged = captum.attr.LayerAttribution.interpolate(cam, (SIDE, SIDE), "bilinear")
    torch.testing.assert_close(attribute(network, images, "gradcam", TARGETS).maps, enlarged.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guided = captum.attr.GuidedGradCam(network, network.conv2).attribute(x, TARGETS, interpolate_mode="bilinear")
    torch.testing.assert_close(attribute(network, images, "guided_gradcam", TARGETS).maps, guided.detach())


def test_smoothgrad_occlusion_and_kernel_shap_equal_captums(images: Tensor) -> None:
    pytest.importorskip("sklearn", reason="captum's regression")
    network, image = make(), images[:1]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        spread = 0.2 * float(image.max() - image.min())
        expected = captum.attr.NoiseTunnel(captum.attr.Saliency(network)).attribute(
            with_gradient(image), nt_samples=6, stdevs=spread, target=1, abs=False
        )
    found = attribute(network, image, "smoothgrad", 1, samples=6, noise=0.2, seed=3)
    torch.testing.assert_close(found.maps, expected)

    drops = captum.attr.Occlusion(network).attribute(images, (3, 5, 5), strides=(3, 2, 2), target=TARGETS)
    found = attribute(network, images, "occlusion", TARGETS, window=5, stride=2)
    torch.testing.assert_close(found.maps, drops[:, :1])

    model = Model(network, "network", Preprocess((SIDE, SIDE)))
    picture = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    mask = torch.from_numpy(superpixels(picture, 6)).long()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        values = captum.attr.KernelShap(network).attribute(
            image, target=1, feature_mask=mask[None, None].expand_as(image), n_samples=60
        )
    found = attribute(model, image, "kernel_shap", 1, superpixels=6, passes=60, seed=3)
    # captum fits in single precision
    torch.testing.assert_close(found.maps.float(), values[:, :1].float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["guided", "deconvnet"])
def test_functional_rectifiers_make_no_difference_here(images: Tensor, method: Any) -> None:
    modules, functions = make(), make(functional=True)
    ours = attribute(functions, images, method, TARGETS).maps
    assert torch.equal(ours, attribute(modules, images, method, TARGETS).maps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = {"guided": captum.attr.GuidedBackprop, "deconvnet": captum.attr.Deconvolution}[method]
        captums = kind(functions).attribute(with_gradient(images), TARGETS)
    torch.testing.assert_close(captums, attribute(functions, images, "gradient", TARGETS).maps)
    assert not torch.allclose(captums, ours)


# ---- against the papers, literally -----------------------------------------------------------------------------------


def score(network: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(network(image[None])[0, target])


def test_gradient_is_the_slope(images: Tensor) -> None:
    network, image, step = make(), images[0], 1e-6
    found = attribute(network, image[None], "gradient", 2).maps[0]
    for place in [(0, 3, 4), (1, 9, 9), (2, 12, 7)]:
        up, down = image.clone(), image.clone()
        up[place] += step
        down[place] -= step
        slope = (score(network, up, 2) - score(network, down, 2)) / (2 * step)
        assert float(found[place]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_integrated_gradients_add_up_to_the_score(images: Tensor) -> None:
    network = make()
    found = attribute(network, images, "integrated_gradients", TARGETS, points=400, baseline=0.25)
    for image, target, maps in zip(images, TARGETS, found.maps, strict=True):
        difference = score(network, image, target) - score(network, torch.full_like(image, 0.25), target)
        assert float(maps.sum()) == pytest.approx(difference, rel=2e-3)


def test_grad_cam_literally(images: Tensor) -> None:
    network, image = make(), images[:1]
    features = network.relu2(network.conv2(network.pool(network.relu1(network.norm(network.conv1(image))))))
    raw = network.conv2(network.pool(network.relu1(network.norm(network.conv1(image))))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.fc2(F.relu(network.fc1(F.relu(raw).flatten(1))))[0, 3], raw)
    expected = np.zeros(raw.shape[2:])
    for channel in range(8):
        weight = sum(float(gradient[0, channel, y, x]) for y in range(8) for x in range(8)) / 64
        expected += weight * raw[0, channel].detach().numpy()
    enlarged = F.interpolate(torch.from_numpy(expected.clip(0))[None, None], (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(attribute(network, image, "gradcam", 3).maps, enlarged)
    assert features.min() >= 0  # the rectified maps are another choice, by name
    assert attribute(network, image, "gradcam", 3, cam_layer="relu2").maps.shape == (1, 1, SIDE, SIDE)


def test_occlusion_literally(images: Tensor) -> None:
    network, image, window, stride = make(), images[1], 6, 4
    sums, counts = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    whole = score(network, image, 2)
    for top in [*range(0, SIDE - window, stride), SIDE - window]:
        for left in [*range(0, SIDE - window, stride), SIDE - window]:
            covered = image.clone()
            covered[:, top : top + window, left : left + window] = 0.5
            sums[top : top + window, left : left + window] += whole - score(network, covered, 2)
            counts[top : top + window, left : left + window] += 1
    found = attribute(network, image[None], "occlusion", 2, window=window, stride=stride, baseline=0.5)
    # captum adds up in single precision
    np.testing.assert_allclose(found.maps[0, 0].numpy(), sums / counts, rtol=1e-6, atol=1e-9)


def test_smoothgrad_is_a_mean_of_gradients_of_noisy_copies(images: Tensor) -> None:
    network, image = make(), images[:1]
    still = attribute(network, image, "smoothgrad", 1, noise=0.0).maps
    torch.testing.assert_close(still, attribute(network, image, "gradient", 1).maps)
    # more noise than there is between two kinks of the network: another map
    assert not torch.allclose(still, attribute(network, image, "smoothgrad", 1, noise=1.0).maps)
    noisy = attribute(network, image, "smoothgrad", 1, samples=4, seed=0).maps
    assert torch.equal(noisy, attribute(network, image, "smoothgrad", 1, samples=4, seed=0).maps)
    assert not torch.equal(noisy, attribute(network, image, "smoothgrad", 1, samples=4, seed=1).maps)


def shapley_values(network: nn.Module, image: Tensor, mask: NDArray[np.int32], target: int) -> list[float]:
    """Shapley's formula over all coalitions of regions."""
    regions = range(int(mask.max()) + 1)

    def worth(coalition: frozenset[int]) -> float:
        kept = torch.from_numpy(np.isin(mask, list(coalition)))
        return score(network, image * kept, target)

    values = []
    for region in regions:
        others = [other for other in regions if other != region]
        total = 0.0
        for size in range(len(others) + 1):
            weight = math.factorial(size) * math.factorial(len(others) - size) / math.factorial(len(others) + 1)
            for coalition in itertools.combinations(others, size):
                total += weight * (worth(frozenset((*coalition, region))) - worth(frozenset(coalition)))
        values.append(total)
    return values


def test_kernel_shap_estimates_shapley_values(images: Tensor) -> None:
    network = make()
    model = Model(network, "network", Preprocess((SIDE, SIDE)))
    picture = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    mask = superpixels(picture, 4)
    expected = shapley_values(network, images[0], mask, 1)
    found = attribute(model, images[:1], "kernel_shap", 1, superpixels=4, passes=1500).maps[0, 0].numpy()
    estimated = [float(found[mask == region][0]) for region in range(len(expected))]
    spread = max(expected) - min(expected)
    np.testing.assert_allclose(estimated, expected, atol=0.08 * spread)
    # what is fixed whatever the sample: all together make the whole score
    assert sum(estimated) == pytest.approx(
        score(network, images[0], 1) - score(network, torch.zeros_like(images[0]), 1), rel=1e-3
    )


def test_kernel_shap_is_exact_where_regions_add_up(images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)).double()
    model = Model(linear, "linear", Preprocess((SIDE, SIDE)))
    picture = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    mask = superpixels(picture, 9)
    found = attribute(model, images[:1], "kernel_shap", 0, superpixels=9, passes=40).maps[0, 0].numpy()
    weight = (linear[1].weight[0].reshape(3, SIDE, SIDE) * images[0]).sum(0).detach().numpy()
    for region in range(int(mask.max()) + 1):
        assert found[mask == region][0] == pytest.approx(weight[mask == region].sum(), abs=2e-5)
        assert np.ptp(found[mask == region]) == 0


# ---- what it is called with ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_images_one_by_one(images: Tensor, method: Any) -> None:
    network = make()
    few: dict[str, Any] = {"samples": 3, "passes": 30, "points": 8, "superpixels": 6}
    together = attribute(network, images, method, layer="conv2", target=2, **few)
    assert together.positions is not None
    for row, image in enumerate(images):
        alone = attribute(network, image[None], method, layer="conv2", target=2, **few)
        torch.testing.assert_close(together.maps[row], alone.maps[0])
        # where the channel is strongest
        output = network.conv2(network.pool(F.relu(network.norm(network.conv1(image[None])))))[0, 2].detach()
        y, x = together.positions[row].tolist()
        assert float(output[y, x]) == float(output.max()) == pytest.approx(float(together.scores[row]))


def test_targets_by_name_number_list_and_none(images: Tensor) -> None:
    model = Model(make(), "network", classes=("a", "b", "c", "d", "e"))
    by_name = attribute(model, images, "gradient", "e")
    assert by_name.channels.tolist() == [4, 4, 4] and by_name.positions is None
    assert torch.equal(by_name.maps, attribute(model, images, "gradient", torch.tensor([4, 4, 4])).maps)
    strongest = model(images).argmax(1)
    assert attribute(model, images, "gradient").channels.tolist() == strongest.tolist()
    mixed = attribute(model, images, "gradient", ["a", 1, "c"])
    assert mixed.channels.tolist() == [0, 1, 2]


def test_dense_outputs_have_positions(images: Tensor) -> None:
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
    found = attribute(dense, images, "gradient", 1, position=(3, 5))
    inside = found.maps[:, :, 3:8, 5:10]
    assert int((inside != 0).sum()) == int((found.maps != 0).sum()) > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(images: Tensor, method: Any) -> None:
    network = make(inplace=True).train()
    network.conv1.eval()
    before, generator = interpret.Model(network, "network").weights_hash, torch.get_rng_state()
    flags = [module.training for module in network.modules()]
    kept = images.clone()
    attribute(network, images, method, samples=2, passes=20, points=3, superpixels=4)
    assert interpret.Model(network, "network").weights_hash == before
    assert [module.training for module in network.modules()] == flags
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), generator) and torch.equal(images, kept)
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_grad_cams_layer() -> None:
    def found(spec: str) -> str:
        model = interpret.load(f"torchvision:{spec}", weights="random")
        image = torch.rand(1, 3, 64, 64)
        truncated = TruncatedModel(model.module, None)
        return find_cam_layer(truncated, image, find_target(model, truncated, image, 0, None))

    # a residual block's sum; a plain convolution; and the one whose outputs are the classes' own maps
    assert [found(spec) for spec in ("resnet18", "vgg11", "squeezenet1_1")] == ["layer4", "features.18", "classifier.1"]
    network = make()
    truncated = TruncatedModel(network, "conv2")
    image = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)
    assert find_cam_layer(truncated, image, find_target(as_model(network), truncated, image, 0, None)) == "conv1"


def refused(*given_: Any, **named: Any) -> str:
    with pytest.raises(InterpretError) as error:
        attribute(*given_, **named)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 300
    return sentence


def test_mistakes_are_one_sentence(images: Tensor) -> None:
    network = make()
    assert "did you mean 'gradcam'" in refused(network, images, "grad_cam")
    assert "target 5 does not exist" in refused(network, images, "gradient", 5)
    assert "0 to 7" in refused(network, images, "gradient", 8, layer="conv2")
    assert "target -1 does not exist" in refused(network, images, "gradient", -1)
    assert "has no names" in refused(network, images, "gradient", "cat")
    named = Model(network, "n", classes=("tabby", "b", "c", "d", "e"))
    assert "did you mean 'tabby'" in refused(named, images, "gradient", "taby")
    assert "whole number" in refused(network, images, "gradient", 1.5)
    assert "one for each image" in refused(network, images, "gradient", [1, 2])
    assert "unknown layer 'conv9'" in refused(network, images, "gradient", 0, layer="conv9")
    assert "8 × 8" in refused(network, images, "gradient", 0, layer="conv2", position=(8, 0))
    assert "no positions" in refused(network, images, "gradient", 0, position=(1, 1))
    assert "passes must be at least 3" in refused(network, images, "kernel_shap", 0, passes=1)
    assert "pixels would be left out" in refused(network, images, "occlusion", 0, window=3, stride=4)
    assert "at least one" in refused(network, images[:0], "gradient", 0)
    assert "float64" in refused(network, images.float(), "gradient", 0)


def test_grad_cam_needs_feature_maps(images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)).double()
    for method in ("gradcam", "guided_gradcam"):
        assert "Grad-CAM needs a convolution below the network's output" in refused(linear, images, method, 0)
    points = nn.Sequential(nn.Conv2d(3, 2, SIDE), nn.Flatten(), nn.Linear(2, 3)).double()
    assert "Grad-CAM needs a convolution" in refused(points, images, "gradcam", 0)
    assert "below layer 'conv1'" in refused(make(), images, "gradcam", 0, layer="conv1")
    assert "no feature maps" in refused(make(), images, "gradcam", 0, cam_layer="fc1")
    assert "choose a convolution below it" in refused(make(), images, "gradcam", 0, layer="conv1", cam_layer="conv2")
    assert "choose a convolution below it" in refused(make(), images, "gradcam", 0, layer="conv1", cam_layer="conv1")
    assert "did you mean 'conv2'" in refused(make(), images, "gradcam", 0, cam_layer="conv22")


def test_superpixels_need_more_than_one_pixel() -> None:
    point = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    assert "not 1×1: choose another method" in refused(point, torch.rand(1, 3, 1, 1), "kernel_shap", 0)
    with pytest.raises(InterpretError, match="at least 2"):
        superpixels(np.zeros((4, 4, 3), np.uint8), 1)


# ---- superpixels and similarities ------------------------------------------------------------------------------------


def connected(region: NDArray[np.bool_]) -> bool:
    """Whether all pixels of a region can be reached from the first of them, by sides."""
    ys, xs = np.nonzero(region)
    waiting, reached = [(ys[0], xs[0])], {(ys[0], xs[0])}
    while waiting:
        y, x = waiting.pop()
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = min(near) >= 0 and near[0] < region.shape[0] and near[1] < region.shape[1]
            if inside and region[near] and near not in reached:
                reached.add(near)
                waiting.append(near)
    return len(reached) == region.sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_superpixels_are_connected_and_cover_the_picture(height: int, width: int, count: int, seed: int) -> None:
    if height * width < 2:
        return
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    regions = superpixels(picture, count)
    assert regions.shape == (height, width) and regions.dtype == np.int32
    labels = np.unique(regions)
    assert labels.tolist() == list(range(len(labels)))
    assert all(connected(regions == label) for label in labels)
    np.testing.assert_array_equal(regions, superpixels(picture, count))


def test_superpixels_follow_colours() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    ys, xs = np.mgrid[:40, :40]
    disc = (ys - 19) ** 2 + (xs - 21) ** 2 < 120
    picture[disc] = (200, 40, 30)
    regions = superpixels(picture, 30)
    assert 15 <= regions.max() + 1 <= 40
    astride = sum(len(np.unique(disc[regions == label])) > 1 for label in range(regions.max() + 1))
    assert astride == 0


MAPS = arrays(np.float64, (6, 7), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]))


@settings(max_examples=60, deadline=None)
@given(MAPS, MAPS)
def test_rank_correlation_is_spearmans(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    found = rank_correlation(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert found == 0
    else:
        assert found == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-12)
    assert rank_correlation(np.exp(one), other) == pytest.approx(found, abs=1e-12)


def test_structural_similarity_literally() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.random((15, 17)), generator.random((15, 17))
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for y in range(5, 10):
        for x in range(5, 12):
            a, b = one[y - 5 : y + 6, x - 5 : x + 6], other[y - 5 : y + 6, x - 5 : x + 6]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 0.0001)
                * (2 * covariance + 0.0009)
                / ((mean_a**2 + mean_b**2 + 0.0001) * (var_a + var_b + 0.0009))
            )
    assert structural_similarity(one, other) == pytest.approx(float(np.mean(values)), abs=1e-10)
    assert structural_similarity(np.zeros((1, 1)), np.ones((1, 1))) < 0.01
    assert structural_similarity(one, one) == pytest.approx(1)


def test_detail_literally() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 31, 3), dtype=np.uint8)
    grey = picture.mean(2)
    offsets = np.arange(DETAIL_SIDE) - DETAIL_SIDE // 2
    line = np.exp(-(offsets**2) / (2 * DETAIL_SIGMA**2))
    window = np.outer(line, line) / line.sum() ** 2
    for y, x in [(8, 8), (15, 20), (21, 22)]:
        around = grey[y - 8 : y + 9, x - 8 : x + 9]
        assert detail(picture)[y, x] == pytest.approx(grey[y, x] - (window * around).sum(), abs=1e-9)


def test_scaled_maps_are_clipped_at_their_99th_percentile() -> None:
    values = np.arange(-100.0, 100).reshape(2, 10, 10)
    found = scaled(values)
    assert np.abs(found).max() == 1 and (np.abs(found[0]) == 1).sum() == 2
    assert not scaled(np.zeros((3, 3))).any()
    spike = np.zeros((20, 20))
    spike[3, 3] = -5
    assert scaled(spike).min() == -1


# ---- side by side ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Model, Tensor]:
    model = interpret.load("lenet")
    found = interpret.open_images("digits", model)
    return model, torch.stack([found[item][0] for item in (600, 1700, 3600)])


def test_comparison_says_what_it_measured(digits: tuple[Model, Tensor], tmp_path: Path) -> None:
    model, images = digits
    compared = compare_methods(model, images, samples=3, points=8, passes=60, superpixels=12)
    assert list(compared.maps) == list(METHODS)
    order = model(images).sort(1, descending=True).indices
    assert compared.targets.tolist() == order[:, 0].tolist() and compared.others.tolist() == order[:, 1].tolist()
    for method in ("gradient", "deconvnet"):
        own = attribute(model, images, method, compared.targets.tolist()).maps.double().numpy()
        other = attribute(model, images, method, compared.others.tolist()).maps.double().numpy()
        np.testing.assert_allclose(compared.maps[method], own.sum(1), rtol=1e-5, atol=1e-6)
        for row in range(3):
            rho = spearmanr(np.abs(own[row]).sum(0).ravel(), np.abs(other[row]).sum(0).ravel()).statistic
            assert compared.same_for_other[method][row] == pytest.approx(rho, abs=1e-9)
            rho = spearmanr(own[row].sum(0).ravel(), detail(compared.pictures[row]).ravel()).statistic
            assert compared.same_as_image[method][row] == pytest.approx(rho, abs=1e-9)
    file = tmp_path / "methods.safetensors"
    compared.save(file)
    again: Any = Result.load(file)
    assert again.reading == compared.reading and "Measured on 3 images" in again.reading
    figure = plot(again)
    (table,) = figure.axes
    assert len(table.images) == 3 * 11 + 1  # and the scale
    texts = [text.get_text() for text in table.texts]
    assert "maps for" in texts and "compared with" in texts
    assert set(compared.target_names) | set(compared.other_names) <= {text.replace("\n", " ") for text in texts}
    explained = " ".join(texts[-1].split())
    assert explained.startswith("ρ: Spearman’s rank correlation of two maps")
    assert "that for the runner-up named below each image" in explained and "fine structure" in explained
    figure.savefig(tmp_path / "methods.png", dpi=50)


def test_comparison_of_a_hidden_unit_keeps_the_place(digits: tuple[Model, Tensor]) -> None:
    model, images = digits
    compared = compare_methods(model, images, ["gradient", "guided"], target=9, layer="conv2")
    output = model.module.conv2(model.module.pool1(F.relu(model.module.conv1(images))))  # type: ignore[union-attr]
    for row in range(3):
        flat = int(output[row, 9].argmax())
        place = output[row, :, flat // 8, flat % 8].clone()
        place[9] = -torch.inf
        assert compared.others[row] == int(place.argmax())
        window = np.s_[2 * (flat // 8) : 2 * (flat // 8) + 14, 2 * (flat % 8) : 2 * (flat % 8) + 14]
        own, rival = (
            attribute(model, images[row : row + 1], "guided", int(unit), "conv2", (flat // 8, flat % 8)).maps[0, 0]
            for unit in (9, compared.others[row])
        )
        assert int((own != 0).sum()) <= 14 * 14
        rho = spearmanr(own[window].abs().flatten(), rival[window].abs().flatten()).statistic
        assert compared.same_for_other["guided"][row] == pytest.approx(rho, abs=1e-6)
        assert compared.target_names[row] == f"unit 9 at\u00a0{flat // 8},\u00a0{flat % 8}"
    assert "conv2" in compared.title


def test_comparison_refuses(digits: tuple[Model, Tensor]) -> None:
    model, images = digits
    with pytest.raises(InterpretError, match="methods is empty"):
        compare_methods(model, images, [])
    with pytest.raises(InterpretError, match="target itself"):
        compare_methods(model, images, ["gradient"], target=1, other=1)
    single = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    with pytest.raises(InterpretError, match="single unit"):
        compare_methods(single, images, ["gradient"])


@needs_squeezenet
@needs_photographs
def test_example_shows_that_the_deconvnet_recovers_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, methods = tmp_path / "methods.png", ["gradient", "gradcam", "guided", "deconvnet"]
    told = run_script(
        monkeypatch, capsys, "papers/methods_side_by_side", "--methods", *methods, "--items", 16, 64, "--out", out
    )
    rows = {words[0]: [float(word) for word in words[1:]] for words in map(str.split, told[1:5])}
    assert list(rows) == methods and out.stat().st_size > 20_000
    # measured on SqueezeNet: the same for any class, and the image's own detail; the gradient is neither
    assert min(rows["deconvnet"][0], rows["guided"][0]) > 0.97
    assert rows["gradient"][0] < 0.9 and rows["gradient"][0] < rows["deconvnet"][0] - 0.1
    assert rows["deconvnet"][1] > 0.4 and rows["guided"][1] > 0.5
    assert abs(rows["gradient"][1]) < 0.1 and abs(rows["gradcam"][1]) < 0.1
    assert "it tells more of the image than of the class (Nie et al. 2018)" in "\n".join(told)


def test_example_shows_what_captum_gives_for_googlenet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_script(monkeypatch, capsys, "not_a_deconvnet")
    shares = {line.split()[4].strip(":"): int(line.split("difference ")[1].split("%")[0]) for line in told}
    assert shares["gradient"] == 0 and shares["deconvnet"] > 50
