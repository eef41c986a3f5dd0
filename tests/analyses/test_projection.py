"""Projection against a literal deconvnet, against whole images, and against captum."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.deconvnet import forward_with_switches, literal_deconvnet
from helpers.tensors import normal, seeded
from interpret.analyses.mining.compute import mine
from interpret.analyses.projection import hit_groups
from interpret.analyses.projection.compute import Projections, project
from interpret.analyses.projection.crop import Crop
from interpret.analyses.projection.hit_projection import HitBatch, project_hits
from interpret.backprop.rules import BackwardRule, Rule, UncoveredOperation
from interpret.execution import parallel
from interpret.support.errors import InterpretError
from interpret.tracing.tracing import Layer, trace

doubled = partial(seeded, dtype=torch.float64)
RULES = ("deconvnet", "guided", "gradient")


def seen_whole(
    network: nn.Module, image: Tensor, layer: str, channel: int, position: tuple[int, int], rule: Rule = "deconvnet"
) -> tuple[Tensor, Tensor]:
    """The projection of one neuron by way of the whole image [C, H, W], and the neuron's value."""
    outputs: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output.clone())

    x = image[None].clone().requires_grad_()
    handle = network.get_submodule(layer).register_forward_hook(keep)
    with warnings.catch_warnings(), BackwardRule(network, rule):
        warnings.simplefilter("ignore", UncoveredOperation)
        network(x.clone())
    handle.remove()
    output = outputs[0]
    neuron = output[0, channel, *position] if output.dim() == 4 else output[0, channel]
    (signal,) = torch.autograd.grad(neuron, x, neuron.detach())
    return signal[0], neuron.detach()


def assert_close(found: Tensor, expected: Tensor) -> bool:
    """Assert that both are equal up to the rounding of a convolution; return whether they are equal bit by bit."""
    assert found.dtype == expected.dtype == torch.float64 and found.shape == expected.shape
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-12 * scale
    return torch.equal(found, expected)


# a literal deconvnet


CHAINS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(4, 6, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 4, 3, padding=1),
        ),
        79,
    ),
    "vgg": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(4, 5, 3, padding=1),
            nn.ReLU(),
        ),
        30,
    ),
    "squeezenet": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(4, 4, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3, padding=1, groups=2),
        ),
        38,
    ),
    "dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=2, dilation=2), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 3, (1, 5), (3, 2))
        ),
        25,
    ),
}


@pytest.mark.parametrize("overlap", ["add", "overwrite"])
@pytest.mark.parametrize("name", CHAINS)
def test_deconvnet_is_unpooling_rectifying_and_filtering(name: str, overlap: Any) -> None:
    build, side = CHAINS[name]
    network = doubled(build)
    chain, image = list(network), normal(3, side, side + 3, seed=1)
    plain = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in chain]
    for depth in (1, len(chain) - 1, len(chain)):
        layer = str(depth - 1)
        height, width = trace(network, (3, side, side + 3))[layer].output_shape[1:]
        for position in [(0, 0), (height - 1, width - 1), (height // 2, 0), (height // 2, width // 2)]:
            expected = literal_deconvnet(forward_with_switches(plain[:depth], image[None]), 2, position, overlap)[0]
            found = project(network, image[None], layer, 2, position, overlap=overlap)
            assert_close(found.full((side, side + 3))[0], expected)


# part of an image against the whole


class Residual(nn.Module):
    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Excitation(nn.Module):
    """Squeeze-and-excitation: every position's gate sees the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


def up_to(top: int, low: int = 0) -> st.SearchStrategy[int]:
    return st.integers(low, top)


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 2
    kinds = "conv conv conv conv relu max-pool average pad mirror residual branches norm response cut".split()
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6)):
        if kind == "conv":
            kernel, step = draw(st.tuples(up_to(7, 1), up_to(7, 1))), draw(st.tuples(up_to(4, 1), up_to(4, 1)))
            pad = (draw(up_to(kernel[0] // 2 + 1)), draw(up_to(kernel[1] // 2 + 1)))
            dilation, groups = draw(st.sampled_from([1, 1, 1, 2, 3])), draw(st.sampled_from([1, 2]))
            layers.append(nn.Conv2d(channels, 4, kernel, step, pad, dilation, groups))
            channels = 4
        elif kind == "relu":
            layers.append(nn.ReLU(inplace=bool(layers) and not isinstance(layers[-1], nn.ReLU) and draw(st.booleans())))
        elif kind == "max-pool":
            kernel = draw(up_to(4, 1))
            layers.append(
                nn.MaxPool2d(
                    kernel,
                    draw(up_to(4, 1)),
                    draw(up_to(kernel // 2)),
                    draw(up_to(2, 1)),
                    ceil_mode=draw(st.booleans()),
                )
            )
        elif kind == "average":
            kernel, ceil, counted = draw(up_to(4, 1)), draw(st.booleans()), draw(st.booleans())
            layers.append(nn.AvgPool2d(kernel, draw(up_to(4, 1)), draw(up_to(kernel // 2)), ceil, counted))
        elif kind == "pad":
            layers.append(nn.ZeroPad2d(draw(st.tuples(*[up_to(3)] * 4))))
        elif kind == "cut":
            layers.append(nn.ZeroPad2d(draw(st.tuples(*[up_to(1, -1)] * 4))))
        elif kind == "mirror":
            layers += [nn.ReflectionPad2d(draw(st.tuples(*[up_to(2)] * 4))), nn.Conv2d(channels, 4, 5)]
            channels = 4
        elif kind == "residual":
            layers.append(Residual(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)))
        elif kind == "branches":
            step = draw(up_to(2, 1))
            layers.append(
                Branches(
                    nn.Conv2d(channels, 2, 1, step),
                    nn.Sequential(nn.Conv2d(channels, 2, 5, step, 2), nn.ReLU(inplace=True)),
                    nn.MaxPool2d(3, step, 1),
                )
            )
            channels += 4
        elif kind == "norm":
            layers.append(nn.BatchNorm2d(channels))
        else:
            layers.append(nn.LocalResponseNorm(3))
    return nn.Sequential(*layers)


def places(layer: Layer, more: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """All corners, and a few places between them."""
    height, width = layer.output_shape[1:]
    corners = [(y, x) for y in (0, height - 1) for x in (0, width - 1)]
    return corners + [(int(y * height), int(x * width)) for y, x in more]


def assert_boxes(projections: Projections, layer: Layer, image: tuple[int, int]) -> None:
    """One shape for all, inside the image, the neuron's window where it lies inside, and what is left of it else."""
    boxes = projections.boxes.tolist()
    shapes = {(bottom - top, right - left) for top, left, bottom, right in boxes}
    assert shapes == {tuple(projections.pixels.shape[2:])}
    for box, position in zip(boxes, projections.positions.tolist(), strict=True):
        if layer.receptive_field is None:
            assert box == [0, 0, *image]
            continue
        window = layer.receptive_field.window(position)
        for axis in (0, 1):
            begin, end, low, high, side = box[axis], box[axis + 2], window[axis], window[axis + 2], image[axis]
            assert 0 <= begin < end <= side
            if low >= 0 and high <= side:
                assert (begin, end) == (low, high)
            elif max(low, 0) < min(high, side):
                assert begin <= max(low, 0) and min(high, side) <= end


@pytest.mark.slow
def test_parts_of_an_image_give_what_the_whole_gives(capsys: pytest.CaptureFixture[str]) -> None:
    tally: Counter[str] = Counter()
    between = st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2), min_size=3, max_size=3)

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(networks(), up_to(40, 6), up_to(40, 6), st.sampled_from(RULES), st.floats(0, 1, exclude_max=True), between)
    def check(drawn: nn.Module, height: int, width: int, rule: Any, which: float, more: Any) -> None:
        network = doubled(lambda: drawn)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(len(parameter)))
        try:
            layers = trace(network, (2, height, width))
        except InterpretError:
            assume(False)
        layer = list(layers.values())[int(which * len(layers))]
        assume(all(layer.output_shape))  # a negative padding may leave no neuron
        image, at = normal(2, height, width, seed=height), places(layer, more)
        channels = [place % layer.output_shape[0] for place in range(len(at))]
        images = image.expand(len(at), -1, -1, -1)
        found = project(network, images, layer.name, channels, at, rule)
        assert_boxes(found, layer, (height, width))
        crop = Crop.of(layer, (height, width))
        kind = "whole image" if crop.whole else "part"
        for signal, value, channel, place in zip(found.full((height, width)), found.values, channels, at, strict=True):
            expected, neuron = seen_whole(network, image, layer.name, channel, place, rule)
            assert float((value - neuron).abs()) <= 1e-12 * max(1.0, float(neuron.abs()))
            tally[f"{kind}, {'bit-equal' if assert_close(signal, expected) else 'rounded'}"] += 1

    check()
    assert tally["part, bit-equal"] > tally["part, rounded"]
    with capsys.disabled():
        print(f" [{', '.join(f'{count} × {kind}' for kind, count in sorted(tally.items()))}]", end="")


@pytest.mark.parametrize("rule", RULES)
def test_every_position_of_a_layer_gives_what_the_whole_image_gives(rule: Any) -> None:
    network = doubled(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 5, stride=2, padding=3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(3, 2, 3, padding=2),
        )
    )
    height, width = 29, 46
    layer = trace(network, (1, height, width))["3"]
    assert not Crop.of(layer, (height, width)).whole
    rows, columns = layer.output_shape[1:]
    at = [(y, x) for y in range(rows) for x in range(columns)]
    image = normal(1, height, width)
    found = project(network, image.expand(len(at), -1, -1, -1), "3", 1, at, rule)
    assert_boxes(found, layer, (height, width))
    for signal, place in zip(found.full((height, width)), at, strict=True):
        assert_close(signal, seen_whole(network, image, "3", 1, place, rule)[0])


def test_a_part_has_the_least_side_that_keeps_the_grid() -> None:
    layers = trace(torchvision.models.alexnet(weights=None), (3, 224, 224))
    sides = {name: Crop.of(layers[f"features.{name}"], (224, 224)).size[0] for name in ("0", "3", "6", "8", "10")}
    for name, side in sides.items():
        field = layers[f"features.{name}"].receptive_field
        assert field is not None
        least = field.size[0] + field.stride[0] - 1
        assert side == next(s for s in range(least, least + 64) if s % field.stride[0] == 224 % field.stride[0])
    assert sides["0"] == 16 and not Crop.of(layers["features.10"], (224, 224)).whole


# what comes back


def small() -> Any:
    return doubled(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(5 * 8 * 6, 7),
            nn.ReLU(inplace=True),
            nn.Linear(7, 3),
        )
    )


def test_full_is_zero_outside_the_boxes() -> None:
    found = project(small(), normal(4, 3, 20, 16), "3", 1, [(0, 0), (7, 5), (3, 3), (0, 5)])
    full = found.full((20, 16))
    for signal, pixels, (top, left, bottom, right) in zip(full, found.pixels, found.boxes.tolist(), strict=True):
        assert torch.equal(signal[:, top:bottom, left:right], pixels)
        signal[:, top:bottom, left:right] = 0
        assert not signal.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_images_stays(dtype: torch.dtype) -> None:
    found = project(small().to(dtype), normal(2, 3, 20, 16).to(dtype), "3", 1)
    assert found.pixels.dtype == found.values.dtype == found.full((20, 16)).dtype == dtype


def test_bfloat16_comes_close() -> None:
    network, image = small().float(), normal(1, 3, 20, 16).float()
    places = [(row, column) for row in range(4) for column in range(3)]  # so many run in the whole image
    exact = project(network, image, "3", [1] * 12, places)
    found = project(network, image, "3", [1] * 12, places, dtype=torch.bfloat16)
    difference = (found.pixels - exact.pixels).norm() / exact.pixels.norm()
    assert found.pixels.dtype == torch.float32 and 0 < difference < 0.01
    assert torch.equal(found.values, exact.values)  # the forward pass stays
    one, same = (project(network, image, "3", 1, (3, 4), dtype=dtype) for dtype in (None, torch.bfloat16))
    assert torch.equal(one.pixels, same.pixels)  # which runs in a part of it


def test_one_channel_for_all_is_that_channel_for_each() -> None:
    network, images = small(), normal(4, 3, 20, 16)
    together = project(network, images, "3", 2, (1, 4))
    several = project(network, images, "3", [2, 2, 2, 2], [(1, 4)] * 4)
    mixed = project(network, images, "3", torch.tensor([0, 1, 2, 3]), torch.tensor([[0, 0], [1, 1], [1, 4], [2, 2]]))
    assert torch.equal(together.pixels, several.pixels)
    assert_close(mixed.pixels[2], together.pixels[2])
    for row, (channel, place) in enumerate(zip(range(4), [(0, 0), (1, 1), (1, 4), (2, 2)], strict=True)):
        expected, value = seen_whole(network, images[row], "3", channel, place)
        assert_close(mixed.full((20, 16))[row], expected)
        assert torch.allclose(mixed.values[row], value, rtol=1e-12)


@pytest.mark.parametrize(("layer", "size"), [("0", (20, 16)), ("3", (20, 16)), ("3", (60, 16)), ("6", (20, 16))])
@pytest.mark.parametrize("given", [False, True])
def test_one_image_serves_several_neurons(layer: str, size: tuple[int, int], given: bool) -> None:
    network, image = small()[: int(layer) + 1], normal(1, 3, *size)
    positions = ([(0, 0)] * 3 if layer == "6" else [(0, 0), (1, 4), (2, 2)]) if given else None
    shared = project(network, image, layer, [2, 0, 2], positions)
    several = project(network, image.expand(3, -1, -1, -1), layer, [2, 0, 2], positions)
    for name in ("boxes", "positions"):
        assert torch.equal(getattr(shared, name), getattr(several, name))
    assert_close(shared.pixels, several.pixels)
    assert torch.allclose(shared.values, several.values, rtol=1e-12)
    if given:
        assert len(project(network, image, layer, 1, positions).pixels) == 3


def test_one_image_runs_once_for_all_its_neurons() -> None:
    network, image = small(), normal(1, 3, 20, 16)
    runs: list[tuple[str, int]] = []
    network[0].register_forward_hook(
        lambda _layer, inputs, _output: runs.append((inputs[0].device.type, len(inputs[0])))
    )
    project(network, image, "6", range(7), [(0, 0)] * 7)
    dry = [("cpu", 1), ("cpu", 2), ("cpu", 1)]
    assert [run for run in runs if run[0] != "meta"] == [*dry, ("cpu", 1)]  # without numbers, it is only traced


@pytest.mark.parametrize("layer", ["0", "3", "4", "6"])
def test_without_positions_the_strongest_neuron_is_projected(layer: str) -> None:
    network, images, channels = small(), normal(5, 3, 20, 16), [0, 1, 2, 3, 4]
    found = project(network, images, layer, channels)
    outputs: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *args: outputs.append(args[2].clone()))
    network(images)
    handle.remove()
    maps = outputs[0] if outputs[0].dim() == 4 else outputs[0][:, :, None, None]
    for row, channel in enumerate(channels):
        best = int(maps[row, channel].argmax())
        assert found.positions[row].tolist() == [best // maps.shape[3], best % maps.shape[3]]
        assert torch.allclose(found.values[row], maps[row, channel].max(), rtol=1e-12)
    at = [tuple(place) for place in found.positions.tolist()]
    assert torch.equal(found.pixels, project(network, images, layer, channels, at).pixels)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", ["6", "8"])
def test_linear_layers_use_the_whole_image(layer: str, rule: Any) -> None:
    network, images = small(), normal(2, 3, 20, 16)
    found = project(network, images, layer, 2, (0, 0), rule)
    assert found.boxes.tolist() == [[0, 0, 20, 16]] * 2
    for signal, image in zip(found.pixels, images, strict=True):
        assert_close(signal, seen_whole(network, image, layer, 2, (0, 0), rule)[0])


@pytest.mark.parametrize("rule", RULES)
def test_behind_squeeze_and_excitation_the_window_is_local(rule: Any) -> None:
    network = doubled(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Excitation(4), nn.Conv2d(4, 3, 3), nn.ReLU())
    )
    image = normal(2, 30, 22)
    behind = (30, 22) if rule == "gradient" else (5, 5)  # which alone holds no gate constant
    for layer, size in (("0", (3, 3)), ("3", behind)):
        for position in ((4, 5), (0, 0), (27, 19)):
            found = project(network, image[None], layer, 1, position, rule)
            assert found.pixels.shape[2:] == size
            assert_close(found.full((30, 22))[0], seen_whole(network, image, layer, 1, position, rule)[0])


def test_hits_behind_squeeze_and_excitation_have_local_windows() -> None:
    network = doubled(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Excitation(4), nn.Conv2d(4, 3, 3), nn.ReLU())
    )
    images = normal(5, 2, 30, 22)
    mined = mine(network, images, "3", k=2)
    seen = 0
    for batch in project_hits(network, images, mined, rule="guided"):
        for row, (unit, rank) in enumerate(zip(batch.units.tolist(), batch.ranks.tolist(), strict=True)):
            image = images[int(mined["3"].images[unit, rank])]
            y, x = mined["3"].positions[unit, rank].tolist()
            found = project(network, image[None], "3", unit, (y, x), "guided")
            top, left, bottom, right = found.boxes[0].tolist()
            assert (bottom - top, right - left) == (5, 5)
            assert torch.equal(batch.patches[row], image[:, top:bottom, left:right])
            assert_close(batch.projections[row], found.pixels[0])
            seen += 1
    assert seen == 6


def test_a_linear_layer_at_each_position_has_its_features_as_channels() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.wide, self.back = nn.Conv2d(2, 3, 2, 2), nn.Linear(3, 9), nn.Linear(9, 4)
            self.act = nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            return self.back(self.act(self.wide(self.stem(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

    network, image = doubled(Block), normal(2, 12, 16)
    x = image[None].clone().requires_grad_()
    wide = network.act(network.wide(network.stem(x).permute(0, 2, 3, 1)))
    for layer, neuron in (("back", network(x)[0, 3, 5, 7]), ("act", wide[0, 5, 7, 3])):
        found = project(network, image[None], layer, 3, (5, 7), "gradient")
        assert found.boxes.tolist() == [[10, 14, 12, 16]]
        assert_close(found.full((12, 16))[0], torch.autograd.grad(neuron, x, neuron)[0][0])
    with pytest.raises(InterpretError, match=r"channel 4 is not in layer 'back', whose channels are 0 to 3"):
        project(network, image[None], "back", 4)


def test_a_transposed_feature_map_is_projected_from_the_whole_image() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, (1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.transpose(2, 3))

    network, image = doubled(Turned), normal(1, 12, 9)
    found = project(network, image[None], "conv", 1, (8, 2))
    assert_close(found.full((12, 9))[0], seen_whole(network, image, "conv", 1, (8, 2))[0])


@pytest.mark.parametrize("rule", RULES)
def test_start_one_leaves_out_the_activation(rule: Any) -> None:
    network, images = small(), normal(3, 3, 20, 16)
    one = project(network, images, "3", 1, (2, 3), rule, start="one")
    scaled = project(network, images, "3", 1, (2, 3), rule)
    positive = scaled.values > 0  # a negative start is rectified away, where the rule rectifies
    assert positive.any()
    for row in positive.nonzero()[:, 0].tolist():
        torch.testing.assert_close(one.pixels[row] * one.values[row], scaled.pixels[row], rtol=1e-12, atol=1e-14)


def test_gradient_is_autograds() -> None:
    network, images = small(), normal(3, 3, 20, 16)
    found = project(network, images, "6", [0, 4, 6], rule="gradient", start="one")
    x = images.clone().requires_grad_()
    outputs = network[:7](x)
    (gradient,) = torch.autograd.grad([outputs[0, 0], outputs[1, 4], outputs[2, 6]], x)
    assert_close(found.full((20, 16)), gradient)


@pytest.mark.parametrize("reading", ["channels last", "every other pixel", "permuted", "expanded"])
def test_images_may_lie_in_memory_as_they_like(reading: str) -> None:
    plain = normal(3, 3, 20, 16)
    images = {
        "channels last": lambda: plain.contiguous(memory_format=torch.channels_last),
        "every other pixel": lambda: plain.repeat_interleave(2, 3)[..., ::2],
        "permuted": lambda: plain.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        "expanded": lambda: plain[:1].expand(3, -1, -1, -1),
    }[reading]()
    before = images.clone()
    for layer in ("0", "3", "8"):
        found = project(small(), images, layer, 1)
        expected = project(small(), images.contiguous(), layer, 1)
        assert found.positions.tolist() == expected.positions.tolist()
        torch.testing.assert_close(found.pixels, expected.pixels, rtol=1e-11, atol=1e-14)
    assert torch.equal(images, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(mode: Any) -> None:
    network, images = small(), normal(2, 3, 20, 16)
    expected = project(network, images, "3", 1).pixels
    with mode():
        found = project(network, images.clone(), "3", 1).pixels
    assert torch.equal(found, expected) and not found.requires_grad


def test_the_network_and_the_images_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.double().train()
    network[2].weight.requires_grad_(False)
    network[1].eval()
    images = normal(2, 3, 9, 9).requires_grad_()
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    once, again = (project(network, images, "3", 2) for _ in range(2))
    assert torch.equal(once.pixels, again.pixels)
    assert [layer.training for layer in network.modules()] == [True, True, False, True, True]
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, True, True, True]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())
    assert images.grad is None and torch.equal(images, normal(2, 3, 9, 9))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


# captum


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.alexnet(weights=None).eval()
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # captum's hooks cannot stand them
    return network


@pytest.mark.parametrize(
    ("rule", "peer"), [("deconvnet", captum.attr.NeuronDeconvolution), ("guided", captum.attr.NeuronGuidedBackprop)]
)
@pytest.mark.parametrize(
    ("layer", "channel", "position"),
    [("features.0", 3, (5, 30)), ("features.6", 7, (6, 0)), ("features.10", 9, (3, 4))],
)
def test_it_equals_captum_on_alexnet(
    alexnet: nn.Module, rule: Any, peer: Any, layer: str, channel: int, position: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, 159, 127, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution = peer(alexnet, alexnet.get_submodule(layer)).attribute(image, (channel, *position))
    found = project(alexnet, image, layer, channel, position, rule, start="one")
    assert found.pixels.abs().max() > 0
    torch.testing.assert_close(
        found.full((159, 127)), attribution, rtol=1e-5, atol=1e-6 * float(attribution.abs().max())
    )


# what is refused


def test_mistakes_are_refused() -> None:
    network, images = small(), normal(2, 3, 20, 16)
    wrong: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (r"position \(-1, 0\) is not in layer '3', whose feature map is 8 × 6", (images, "3", 0, (-1, 0)), {}),
        (r"position \(0, 6\) is not in layer '3'", (images, "3", 0, [(0, 0), (0, 6)]), {}),
        (r"position \(0, 1\) is not in layer '6', whose feature map is 1 × 1", (images, "6", 0, (0, 1)), {}),
        (r"channel 5 is not in layer '3', whose channels are 0 to 4", (images, "3", 5), {}),
        (r"channel -1 is not in layer '3'", (images, "3", [0, -1]), {}),
        (
            r"channels must be one whole number, or one for each image or position \(2\), not \[0, 1, 2\]",
            (images, "3", [0, 1, 2]),
            {},
        ),
        (
            r"channels must be one whole number, or one for each image or position \(2\), not 1.5",
            (images, "3", 1.5),
            {},
        ),
        (r"positions must be .* image or channel \(2\), not of shape \[3, 2\]", (images, "3", 0, [(0, 0)] * 3), {}),
        (r"positions must be .* image or channel \(2\), not of shape \[3\]", (images, "3", 0, (1, 2, 3)), {}),
        (r"inputs must be floating point, .* not torch.int64 \[2, 3, 20, 16\]", (images.long(), "3", 0), {}),
        (r"inputs must be floating point, .* not torch.float64 \[20, 16\]", (images[0, 0], "3", 0), {}),
        (r"data 'tensor' holds no images: give at least one", (images[:0], "3", 0), {}),
        (r"items must be from 0 to 1 in data 'tensor', not 2", (images, "3", 0), {"items": [2]}),
        (r"images are torch.float32, and the network's weights torch.float64", (images.float(), "3", 0), {}),
        (r"has 2 channels, but layer '0'", (images[:, :2], "3", 0), {}),
        (r"does not fit the network: layer '6'", (images[:, :, :18], "6", 0), {}),
        (r"unknown layer '33': did you mean '3'", (images, "33", 0), {}),
        (
            r"rule must be one of deconvnet, guided, gradient, or an interpret.Composite, not 'deconv'",
            (images, "3", 0, (0, 0), "deconv"),
            {},
        ),
        (r"start must be 'activation' or 'one', not 'zero'", (images, "3", 0), {"start": "zero"}),
        (r"dtype must be torch.bfloat16, .* not torch.float16", (images, "3", 0), {"dtype": torch.float16}),
        (r"overlap must be one of add, overwrite, not 'max'", (images, "3", 0), {"overlap": "max"}),
    ]
    for message, args, options in wrong:
        with pytest.raises(InterpretError, match=message):
            project(network, *args, **options)
    with pytest.raises(InterpretError, match=r"model must be a Model or an nn\.Module, not str"):
        project("lenet", images, "3", 0)  # type: ignore[arg-type]


def test_a_layer_that_the_image_does_not_reach_is_refused() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.aside(torch.ones_like(x))

    with pytest.raises(
        InterpretError, match="no signal leads from layer 'aside' to the image: it does not depend on it"
    ):
        project(Aside(), torch.rand(1, 1, 6, 6), "aside", 0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_network_that_runs_without_gradients_is_refused(context: Callable[[], AbstractContextManager[None]]) -> None:
    class Without(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            with context():
                return super().forward(x)  # type: ignore[no-any-return]

    network = Without(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    with pytest.raises(InterpretError, match=r"no signal leads from layer '2' to the image.* runs without gradients"):
        project(network, torch.rand(1, 1, 8, 8), "2", 0)


def test_what_the_rule_does_not_cover_is_said() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.after = nn.Conv2d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(torch.sin(self.conv(x)))

    image = torch.rand(1, 1, 6, 6)
    with pytest.warns(UncoveredOperation, match="'sin'"):
        project(Odd(), image, "after", 0)
    project(Odd(), image, "conv", 0)  # nothing is said of what comes after the layer
    with pytest.raises(InterpretError, match="'sin'"):
        project(Odd(), image, "after", 0, strict=True)


# mined hits


def gather(batches: Any) -> dict[tuple[str, int, int], tuple[Tensor, Tensor]]:
    """Each hit's projection and patch; no hit comes twice."""
    found: dict[tuple[str, int, int], tuple[Tensor, Tensor]] = {}
    for batch in batches:
        assert len(batch.units) == len(batch.ranks) == len(batch.projections) == len(batch.patches) > 0
        for unit, rank, signal, patch in zip(
            batch.units.tolist(), batch.ranks.tolist(), batch.projections, batch.patches, strict=True
        ):
            assert (batch.layer, unit, rank) not in found
            found[batch.layer, unit, rank] = signal, patch
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("pixels", "pool"), [(None, None), (2 * 20 * 16, 2), (1, 1)])
def test_mined_hits_are_projected_as_one_by_one(
    monkeypatch: pytest.MonkeyPatch, rule: Any, pixels: int | None, pool: int | None, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # so many batches run side by side
    if pixels is not None:  # so that every batch is cut short somewhere
        monkeypatch.setattr(parallel, "PIXELS_AT_ONCE", pixels)
        monkeypatch.setattr(hit_groups, "IMAGES_TO_SORT", pool)
    network, images = small(), normal(7, 3, 20, 16)
    mined = mine(network, images, ["0", "1", "2", "3", "4", "6", "7", "8"], k=3)
    found = gather(project_hits(network, images, mined, rule=rule))
    assert len(found) == sum(int((layer.images >= 0).sum()) for layer in mined.values())
    kinds = {Crop.of(layer, (20, 16)).whole for layer in trace(network, (3, 20, 16)).values()}
    assert kinds == {True, False}
    for name, layer in mined.items():
        units, ranks = np.nonzero(layer.images >= 0)
        items, at = layer.images[units, ranks], layer.positions[units, ranks]
        expected = project(network, images[items], name, units.tolist(), at.tolist(), rule)
        for row, (unit, rank) in enumerate(zip(units.tolist(), ranks.tolist(), strict=True)):
            signal, patch = found[name, unit, rank]
            assert_close(signal, expected.pixels[row])
            top, left, bottom, right = expected.boxes[row].tolist()
            assert torch.equal(patch, images[items[row], :, top:bottom, left:right])


def test_some_layers_and_the_other_reading_of_overlaps() -> None:
    network = doubled(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 1), nn.Conv2d(4, 3, 3)))
    images = normal(5, 1, 14, 11)
    mined = mine(network, images, k=2)
    for layers in ("3", ["3"], ["3", "0", "3"], None):
        names = {name for name, _, _ in gather(project_hits(network, images, mined, layers))}
        assert names == ({"0", "3"} if layers is None or len(layers) > 1 else {"3"})
    assert gather(project_hits(network, images, mined, [])) == {}
    overwritten = gather(project_hits(network, images, mined, "3", overlap="overwrite"))
    hit = mined["3"]
    for (name, unit, rank), (signal, _) in overwritten.items():
        at = hit.positions[unit, rank].tolist()
        expected = project(network, images[hit.images[unit, rank]][None], name, unit, at, overlap="overwrite")
        assert_close(signal, expected.pixels[0])


def test_hits_of_another_network_or_other_images_are_refused() -> None:
    network, images = small(), normal(7, 3, 20, 16)
    mined = mine(network, images, k=2)
    with pytest.raises(InterpretError, match=r"unknown mined layer '1': "):
        list(project_hits(network, images, mined, ["1"]))
    with pytest.raises(InterpretError, match=r"layer '\d' gives \S+ on item \d where \S+ was mined"):
        list(project_hits(network, images.flip(0), mined))
    network[0].weight.data *= 1.5
    with pytest.raises(InterpretError, match=r"was mined: project with the model and data that were mined"):
        list(project_hits(network, images, mined))


def test_the_network_is_left_as_it_was_even_when_nobody_asks_for_the_rest() -> None:
    network, images = small().train(), normal(7, 3, 20, 16)
    mined = mine(network, images, k=2)
    strides = [parameter.stride() for parameter in network.parameters()]
    batches = project_hits(network, images, mined)
    next(batches)
    batches.close()
    assert all(layer.training for layer in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert [parameter.stride() for parameter in network.parameters()] == strides
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


def test_what_is_made_of_a_batch_is_made_by_the_threads_that_project() -> None:
    network, images = small(), normal(7, 3, 20, 16)
    mined = mine(network, images, k=2)

    def described(batch: HitBatch) -> tuple[str, int, int, bool]:
        return batch.layer, len(batch.units), batch.projections.shape[1], threading.get_ident() == here

    here, threads = threading.get_ident(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plain = [described(batch) for batch in project_hits(network, images, mined)]
        made = list(project_hits(network, images, mined, then=described))
    finally:
        torch.set_num_threads(threads)
    assert [one[:3] for one in made] == [one[:3] for one in plain]
    assert all(main for *_, main in plain) and not any(main for *_, main in made)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_with_many_hits_needs_the_memory_of_few(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    network, images = small(), normal(3, 3, 20, 16)
    mined = mine(network, images, k=3)
    whole = gather(project_hits(network, images, mined))
    held: list[weakref.ref[Tensor]] = []

    def count(batch: HitBatch) -> tuple[int, int]:
        held.append(weakref.ref(batch.projections))
        return len(batch.units), sum(one() is not None for one in held)

    counted = list(project_hits(network, images, mined, then=count))
    # what is drawn of a batch is drawn before the next one is made
    assert len(counted) > 10 and max(alive for _, alive in counted) <= 2 * threads
    monkeypatch.setattr(hit_groups, "MOST_HITS", 4)
    parted = gather(project_hits(network, images, mined))
    assert parted.keys() == whole.keys()
    for hit, (signal, patch) in parted.items():
        assert_close(signal, whole[hit][0])
        assert torch.equal(patch, whole[hit][1])


class Switching(nn.Sequential):
    """A network that adds nothing, by operations that have no windows, unless its images begin with a zero."""

    def forward(self, x: Tensor) -> Tensor:
        half = self[1](self[0](x))
        plain = not x.detach()[:, 0, 0, 0].any()
        return self[3](self[2](half if plain else half + 0 * half.mean((2, 3), True)))


@pytest.mark.parametrize("kind", [nn.Sequential, Switching])
def test_layers_that_are_changed_in_place_or_that_lose_their_windows_are_projected_as_one_by_one(
    kind: type[nn.Sequential],
) -> None:
    layers = nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 7), nn.ReLU(inplace=True)
    network, images = kind(*layers).double(), normal(3, 3, 12, 12)
    images[0, 0, 0, 0] = 0
    mined = mine(network, images, ["0", "2"], k=2)
    for (name, unit, rank), (signal, _) in gather(project_hits(network, images, mined)).items():
        item, at = int(mined[name].images[unit, rank]), mined[name].positions[unit, rank].tolist()
        assert_close(signal, project(network, images[item][None], name, unit, at).pixels[0])


def test_workers_and_batches_of_hits_change_nothing_but_rounding() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 5))
    images = torch.rand(9, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    mined = mine(network, images, k=4)

    def projected(**how: int) -> dict[tuple[str, int, int], Tensor]:
        return {
            (batch.layer, unit, rank): signal
            for batch in project_hits(network, images, mined, **how)  # type: ignore[arg-type]
            for unit, rank, signal in zip(batch.units.tolist(), batch.ranks.tolist(), batch.projections, strict=True)
        }

    alone, helped, single = projected(), projected(workers=2), projected(batch_size=1)
    assert alone.keys() == helped.keys() == single.keys() and len(alone) == 7 * 4
    for hit, signal in alone.items():
        assert torch.equal(signal, helped[hit])
        torch.testing.assert_close(single[hit], signal)
    with pytest.raises(InterpretError, match="batch_size must be at least 1, not 0"):
        next(project_hits(network, images, mined, batch_size=0))
