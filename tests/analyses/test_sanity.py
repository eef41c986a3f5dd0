"""The sanity check: what is randomised, what is compared, and that it tells methods apart as Adebayo et al. report."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import interpret
from helpers.packages import needs_photographs, needs_squeezenet
from helpers.scripts import run_script
from interpret.analyses.attribution.compute import attribute
from interpret.analyses.attribution.result import METHODS
from interpret.analyses.attribution.similarity import scaled, structural_similarity
from interpret.analyses.attribution.target import TruncatedModel
from interpret.analyses.sanity import compute as sanity
from interpret.analyses.sanity.compute import layers_with_weights, randomise, sanity_check
from interpret.network.model import Model
from interpret.results import Result
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


class Scaled(nn.Module):
    """Weights without an initialiser of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def make(end: nn.Module | None = None) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Scaled(), nn.Conv2d(6, 6, 3), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 8 * 8, 4), end or nn.Identity())
    return network.double().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_layers_are_randomised_by_their_own_initialiser() -> None:
    layer, generator = nn.Conv2d(3, 5, 3), torch.get_rng_state()
    trained = copy.deepcopy(layer)
    randomise(layer, seed=4)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        trained.reset_parameters()
    assert torch.equal(layer.weight, trained.weight) and torch.equal(layer.bias, trained.bias)
    assert torch.equal(torch.get_rng_state(), generator)
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    norm.running_mean.fill_(3.0)
    randomise(norm)
    assert norm.weight.tolist() == [1, 1, 1] and norm.running_mean.tolist() == [0, 0, 0]


def test_weights_without_an_initialiser_are_permuted() -> None:
    layer = Scaled()
    before = layer.weight.detach().clone()
    randomise(layer, seed=1)
    assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.flatten().sort().values, before.flatten().sort().values)
    inside = nn.Sequential(Scaled())  # holds no weights itself
    randomise(inside, seed=1)
    assert torch.equal(inside[0].weight, before)


def test_layers_come_in_the_order_in_which_they_run(images: Tensor) -> None:
    network = make()
    assert layers_with_weights(TruncatedModel(network, None), images[:1]) == ["0", "1", "3", "4", "7"]
    assert layers_with_weights(TruncatedModel(network, "4"), images[:1]) == ["0", "1", "3", "4"]
    assert layers_with_weights(TruncatedModel(network, "2"), images[:1]) == ["0", "1"]


def test_similarities_literally(images: Tensor) -> None:
    network = make()
    check = sanity_check(network, images, ["gradient", "guided"], target=[1, 2], steps=None, seed=5)
    assert check.steps == ["", "7", "4", "3", "1", "0"] and check.depths.tolist() == [0, 1, 2, 3, 4, 5]
    assert check.layers == 5 and not check.draws.any()
    forgetting, from_top = copy.deepcopy(network), ["7", "4", "3", "1", "0"]
    trained = {method: attribute(network, images, method, [1, 2]).maps.numpy() for method in check.rank}
    for step in range(6):
        if step:
            own = int(np.random.SeedSequence([5, 0, step - 1]).generate_state(1)[0])
            randomise(forgetting.get_submodule(from_top[step - 1]), own)
        for method in check.rank:
            maps = attribute(forgetting, images, method, [1, 2]).maps.numpy()
            for row in range(2):
                one, other = trained[method][row], maps[row]
                magnitudes = [np.abs(one).sum(0), np.abs(other).sum(0)]
                rho = spearmanr(magnitudes[0].ravel(), magnitudes[1].ravel()).statistic
                assert check.rank[method][row, step] == pytest.approx(rho, abs=1e-12)
                rho = spearmanr(one.sum(0).ravel(), other.sum(0).ravel()).statistic
                assert check.rank_signed[method][row, step] == pytest.approx(rho, abs=1e-12)
                ssim = structural_similarity(scaled(magnitudes[0]), scaled(magnitudes[1]))
                assert check.ssim[method][row, step] == pytest.approx(ssim, abs=1e-12)
            np.testing.assert_array_equal(check.maps[method][step], scaled(maps[0].sum(0)).astype(np.float16))
    # nothing is left of the trained weights
    assert not torch.equal(forgetting[4].weight, network[4].weight)


def test_maps_of_a_hidden_neuron_are_compared_where_it_sees(images: Tensor) -> None:
    network = make()
    check = sanity_check(network, images, ["gradient"], 2, layer="4", position=(3, 2), steps=1, seed=5)
    assert check.steps == ["", "0"] and check.layers == 4
    forgotten = copy.deepcopy(network)
    for place, name in enumerate(["4", "3", "1", "0"]):
        randomise(forgotten.get_submodule(name), int(np.random.SeedSequence([5, 0, place]).generate_state(1)[0]))
    for row in range(2):
        one, other = (
            attribute(which, images[row : row + 1], "gradient", 2, "4", (3, 2)).maps[0, :, 3:8, 2:7].abs().sum(0)
            for which in (network, forgotten)
        )
        assert check.rank["gradient"][row, 1] == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_at_one_and_leaves_the_network_alone(images: Tensor, method: Any) -> None:
    network = make().train()
    before, generator = Model(network, "n").weights_hash, torch.get_rng_state()
    few: dict[str, Any] = {"samples": 3, "passes": 20, "points": 3, "superpixels": 6, "cam_layer": "4", "steps": 2}
    check = sanity_check(network, images, [method], **few)
    again = sanity_check(network, images, [method], **few)
    np.testing.assert_array_equal(check.rank[method], again.rank[method])
    np.testing.assert_allclose(check.rank[method][:, 0], 1, atol=1e-12)
    np.testing.assert_allclose(check.ssim[method][:, 0], 1, atol=1e-12)
    assert Model(network, "n").weights_hash == before and network.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_layers_of_one_shape_get_weights_of_their_own(images: Tensor) -> None:
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(3)]
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(3 * 144, 2)).double()
    seen: list[list[tuple[float, ...]]] = []
    original = sanity.attribution_maps

    def look(*given: Any) -> Any:
        seen.append([tuple(network[block][0].weight.flatten().tolist()) for block in range(3)])  # type: ignore[index]
        return original(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sanity, "attribution_maps", look)
        one = sanity_check(network, images, ["gradient"], steps=None, seed=0)
        sanity_check(network, images, ["gradient"], steps=None, seed=1)
    assert len(seen) == 2 * len(one.steps)
    assert len({*seen[len(one.steps) - 1], *seen[-1]}) == 6  # with all layers randomised
    assert len(one.steps) == 5


def test_a_silent_network_is_drawn_again(images: Tensor) -> None:
    network = make(end=nn.ReLU())
    network[7].bias.data.fill_(3.0)  # the trained one answers
    drawn = []
    for seed in range(8):
        check = sanity_check(network, images, ["gradient"], target=0, steps=3, seed=seed)
        assert not np.isnan(check.rank["gradient"]).any()
        drawn.append(int(check.draws.max()))
    assert max(drawn) > 0  # some seed's first draw was silent


def test_a_map_that_is_zero_everywhere_is_left_out(images: Tensor) -> None:
    network = make(end=nn.ReLU())
    network[7].bias.data.fill_(-50.0)  # silent to begin with
    check = sanity_check(network, images, ["gradient"], target=0, steps=2)
    assert np.isnan(check.rank["gradient"]).all() and np.isnan(check.mean("rank", "gradient")).all()
    assert "6 of 6 maps are zero everywhere and left out" in check.reading
    plot(check)


def test_result_survives_and_is_drawn(images: Tensor, tmp_path: Path) -> None:
    check = sanity_check(make(), images, ["gradient", "deconvnet"], steps=2)
    check.save(tmp_path / "sanity.safetensors")
    again: Any = Result.load(tmp_path / "sanity.safetensors")
    assert again.reading == check.reading and "2 images" in again.reading
    figure = plot(again)
    assert [len(axes.images) for axes in figure.axes] == [0, 0, 0, 0, 1 + 2 * 3]  # three curves, their legend, maps
    assert len(figure.axes[0].lines) == 3  # two methods, and zero
    figure.savefig(tmp_path / "sanity.png", dpi=50)


def test_mistakes_are_one_sentence(images: Tensor) -> None:
    network = make()
    for arguments, said in [
        ({"methods": []}, "methods is empty"),
        ({"methods": ["gradients"]}, "did you mean 'gradient'"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"target": 4}, "target 4 does not exist"),
        ({"methods": ["gradcam"], "layer": "0", "target": 0}, "Grad-CAM needs a convolution below layer '0'"),
    ]:
        with pytest.raises(InterpretError, match=said):
            sanity_check(network, images, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InterpretError, match="nothing to randomise"):
        sanity_check(nn.Flatten(), images, ["gradient"])


# ---- the claim -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_squeezenet
@needs_photographs
def test_it_separates_methods_as_adebayo_et_al_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SqueezeNet, two photographs: guided backpropagation and the deconvnet barely change, gradient and Grad-CAM do."""
    out, methods = tmp_path / "figure.png", ["gradient", "gradcam", "guided", "deconvnet"]
    arguments = ["--methods", *methods, "--items", 12, 64, "--steps", 8, "--out", out]
    told = run_script(monkeypatch, capsys, "papers/adebayo_figure2", *arguments)
    rows = {tuple(words[:2]): [float(word) for word in words[2:]] for words in map(str.split, told[1:13])}
    assert out.stat().st_size > 20_000
    # with the top 3 to 10 of 26 layers random; the thresholds leave room for another draw, not for another finding
    for method in ("guided", "deconvnet"):
        assert min(rows[method, "rank"][1:4]) > 0.85 and min(rows[method, "rank_signed"][1:4]) > 0.9
    for method in ("gradient", "gradcam"):
        assert max(rows[method, "rank"][1:4]) < 0.75 and max(rows[method, "ssim"][1:4]) < 0.6
    assert max(map(abs, rows["gradient", "rank_signed"][1:4])) < 0.4
    for step in (1, 2, 3):
        unmoved = min(rows[method, "rank"][step] for method in ("guided", "deconvnet"))
        moved = max(rows[method, "rank"][step] for method in ("gradient", "gradcam"))
        assert unmoved > moved + 0.2


def test_on_digits_guided_backpropagation_moves_least() -> None:
    """LeNet, whose top layers are linear with weights of both signs: there the deconvnet does change."""
    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)
    images = torch.stack([digits[item][0] for item in (600, 1100, 1700, 3600, 4100, 2600)])
    check = sanity_check(model, images, ["gradient", "gradcam", "guided", "deconvnet"], steps=None)
    assert check.steps == ["", "fc2", "fc1", "conv2", "conv1"]
    means = {method: check.mean("rank", method)[1:3] for method in check.rank}
    assert means["guided"].min() > 0.85
    for method in ("gradient", "gradcam"):
        assert means[method].max() < means["guided"].min() - 0.15
