"""The shipped architectures against what their papers and authors publish; none of them needs weights for that."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import interpret
from interpret.loading.folders import build_from_file, shipped_models
from interpret.loading.loading import load
from interpret.support.errors import InterpretError
from interpret.tracing.tracing import Trace, trace

ARCHITECTURES = ("alexnet2012", "zfnet", "nin", "enet")


@pytest.fixture(scope="module")
def traced() -> Callable[[str], Trace]:
    """Traces by name, each made once, on the meta device: no memory and no time for the values."""
    made: dict[str, Trace] = {}

    def of(name: str) -> Trace:
        if name not in made:
            with torch.device("meta"):
                module = build_from_file(shipped_models() / name / "model.py", "build")
            assert isinstance(module, nn.Module)
            made[name] = trace(module, load_settings(name))
        return made[name]

    return of


def load_settings(name: str) -> tuple[int, int, int]:
    return interpret.loading.loading.find_source(name).preprocess.input_shape  # type: ignore[union-attr]


def test_alexnet_has_the_neurons_of_the_paper(traced: Callable[[str], Trace]) -> None:
    # section 3.5 lists them from the second layer on; its 253,440 for the first is half of another size than 55 × 55
    layers = traced("alexnet2012")
    neurons = [math.prod(layers[name].output_shape) for name in "conv2 conv3 conv4 conv5 fc6 fc7 fc8".split()]
    assert neurons == [186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert layers["conv1"].output_shape == (96, 55, 55)


def test_alexnet_has_the_published_parameters_and_operations(traced: Callable[[str], Trace]) -> None:
    layers = traced("alexnet2012")
    assert layers.params == 60_965_224
    # Sze et al. 2017, table II: 61 M weights and 724 M MACs, of which 2.3 M and 666 M in convolutions, 58.6 M in others
    convolutions = [layer for layer in layers.values() if layer.kind == "Conv2d"]
    dense = [layer for layer in layers.values() if layer.kind == "Linear"]
    assert round(layers.macs / 1e6) == 724
    assert round(sum(layer.macs for layer in convolutions) / 1e6) == 666
    assert round(sum(layer.params for layer in convolutions) / 1e6, 1) == 2.3
    assert round(sum(layer.macs for layer in dense) / 1e6, 1) == round(sum(x.params for x in dense) / 1e6, 1) == 58.6


@pytest.mark.parametrize("name", ["alexnet2012", "zfnet"])
def test_response_normalisation_is_the_papers_formula(name: str) -> None:
    with torch.device("meta"):
        norm = build_from_file(shipped_models() / name / "model.py", "build").norm1  # type: ignore[union-attr]
    maps = 10 * torch.randn(1, 12, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(maps)
    for i in range(12):
        sum_of_squares = sum(maps[0, j] ** 2 for j in range(max(0, i - 2), min(11, i + 2) + 1))
        expected[0, i] = maps[0, i] / (2 + 1e-4 * sum_of_squares) ** 0.75
    torch.testing.assert_close(norm(maps), expected)


def test_alexnet_begins_training_as_the_paper_says() -> None:
    module: Any = load("alexnet2012", weights="random").module
    for name, bias in (("conv1", 0), ("conv2", 1), ("conv3", 0), ("conv4", 1), ("conv5", 1), ("fc6", 1), ("fc8", 0)):
        layer = module.get_submodule(name)
        assert (layer.bias == bias).all() and layer.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_zfnet_has_the_sizes_of_figure_3(traced: Callable[[str], Trace]) -> None:
    layers = traced("zfnet")
    sides = [layers[name].output_shape[1] for name in "conv1 norm1 conv2 norm2 conv3 conv4 conv5 pool5".split()]
    assert sides == [110, 55, 26, 13, 13, 13, 13, 6]
    maps = [layers[name].output_shape[0] for name in "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8".split()]
    assert maps == [96, 256, 384, 384, 256, 4096, 4096, 1000]
    assert layers["conv1"].receptive_field.size == (7, 7) and layers["conv1"].receptive_field.stride == (2, 2)  # type: ignore[union-attr]
    # from the figure's numbers alone
    convolutions = [(96, 3, 7), (256, 96, 5), (384, 256, 3), (384, 384, 3), (256, 384, 3)]
    dense = [(4096, 9216), (4096, 4096), (1000, 4096)]
    expected = sum(maps * inputs * side**2 + maps for maps, inputs, side in convolutions)
    assert layers.params == expected + sum(outputs * inputs + outputs for outputs, inputs in dense)


def test_nin_has_the_published_size_and_no_fully_connected_layer(traced: Callable[[str], Trace]) -> None:
    layers = traced("nin")
    assert not any(layer.kind == "Linear" for layer in layers.values())
    assert round(4 * layers.params / 2**20) == 29  # megabytes of the authors' file
    assert layers["mlpconv4.cccp8"].output_shape == (1000, 6, 6) and layers["flatten"].output_shape == (1000,)
    assert [layers[f"pool{number}"].output_shape[1] for number in (1, 2, 3)] == [27, 13, 6]


@pytest.fixture(scope="module")
def enet() -> nn.Module:
    module = build_from_file(shipped_models() / "enet/model.py", "build_segmentation")
    assert isinstance(module, nn.Module)
    return module.eval()


def test_enet_has_the_published_size(enet: nn.Module) -> None:
    stored = sum(value.numel() for value in enet.state_dict().values())
    assert round(stored / 1e6, 2) == 0.37
    assert round(2 * stored / 2**20, 1) == 0.7  # megabytes in float16


def test_enet_has_the_sizes_of_table_1(enet: nn.Module) -> None:
    layers = trace(enet, (3, 512, 512))
    expected = {
        "encoder.initial": (16, 256, 256),
        "encoder.bottleneck1_0": (64, 128, 128),
        "encoder.bottleneck1_4": (64, 128, 128),
        "encoder.bottleneck2_0": (128, 64, 64),
        "encoder.bottleneck2_8": (128, 64, 64),
        "encoder.bottleneck3_8": (128, 64, 64),
        "bottleneck4_0": (64, 128, 128),
        "bottleneck4_2": (64, 128, 128),
        "bottleneck5_0": (16, 256, 256),
        "bottleneck5_1": (16, 256, 256),
        "fullconv": (12, 512, 512),
    }
    assert {name: layers[name].output_shape for name in expected} == expected


def test_enet_takes_no_more_operations_than_published(enet: nn.Module) -> None:
    # the paper counts more than convolutions, and does not say what: 3.83 GFLOPs on 640 × 360
    assert 0.85 * 3.83e9 < 2 * trace(enet, (3, 360, 640)).macs < 3.83e9


def test_enet_unpools_to_where_each_maximum_was(enet: Any) -> None:
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    stage = enet.bottleneck4_0
    with torch.no_grad():
        first = enet.encoder.bottleneck1_4(enet.encoder[:5](images))
        switches = torch.nn.functional.max_pool2d(first, 2, return_indices=True)[1]
        maps = torch.ones(1, 128, 2, 2)
        main = stage.unpool(stage.norm0(stage.main(maps)), switches)
    for channel in range(64):
        for y in range(2):
            for x in range(2):
                window = first[0, channel, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                unpooled = main[0, channel, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                assert unpooled.flatten().abs().argmax() == window.argmax() and (unpooled != 0).sum() == 1


LAYERS = {"alexnet2012": "conv3", "zfnet": "conv3", "nin": "mlpconv2.cccp4", "enet": "bottleneck2_1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_neuron_sees_its_receptive_field_and_its_projection_is_that_of_the_whole_image(name: str) -> None:
    model = load(name, weights="random")
    model.module.double()
    images = torch.randn(1, *model.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer, channel, kept = LAYERS[name], 5, {}

    def keep(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        kept["output"] = output

    handle = model.module.get_submodule(layer).register_forward_hook(keep)
    with interpret.BackwardRule(model.module, "deconvnet"):
        model(images.requires_grad_())
    place = kept["output"][0, channel].flatten().argmax()
    value = kept["output"][0, channel].flatten()[place]
    (whole,) = torch.autograd.grad(value, images, value.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an operation that the rule does not cover is named in one
        projection = interpret.project(model, images.detach(), layer, channel)
    torch.testing.assert_close(projection.full(images.shape[2:]), whole)
    assert projection.pixels.abs().max() > 0

    top, left, bottom, right = projection.boxes[0].tolist()
    outside = torch.ones_like(images, dtype=torch.bool)
    outside[:, :, top:bottom, left:right] = False
    with torch.no_grad():
        model(torch.where(outside, -3.0, images))
    assert kept["output"][0, channel].flatten()[place] == value
    handle.remove()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_that_are_random_are_said_to_be(name: str) -> None:
    with pytest.warns(UserWarning, match=f"model folder '{name}' is an architecture without weights: these are random"):
        model = load(name)
    assert "learnt nothing" in model.origin and model.card is not None and "without weights" in model.card
    assert model.classes is not None and model.classes[281] == "tabby"


def test_weights_from_a_file_are_taken(tmp_path: Path) -> None:
    model = load("enet", weights="random")
    for parameter in model.module.parameters():
        nn.init.constant_(parameter, 0.25)
    save_file(model.module.state_dict(), tmp_path / "enet.safetensors")
    loaded = load("enet", weights=tmp_path / "enet.safetensors")
    assert loaded.weights_hash == model.weights_hash and loaded.origin == "weights from the file enet.safetensors"


def test_an_architecture_is_not_trained() -> None:
    with pytest.raises(InterpretError, match=r"there is no table \[data\]: add it"):
        interpret.train("nin")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cards_say_what_was_counted(name: str, traced: Callable[[str], Trace]) -> None:
    card = (shipped_models() / name / "card.md").read_text(encoding="utf-8")
    layers = traced(name)
    assert f"{layers.params:,} parameters" in card and f"{layers.macs:,} multiply-accumulates" in card
    for named, output, params in re.findall(r"^\| `(\w+)` \| ([\d× ]+) \| ([\d,]+) \|", card, re.M):
        assert " × ".join(map(str, layers[named].output_shape)) == output
        assert f"{layers[named].params:,}" == params
