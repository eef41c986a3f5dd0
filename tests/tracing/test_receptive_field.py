"""Receptive fields against the literal definition: the pixels on which a neuron's gradient is not zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from helpers.fields import CONVOLVED, Calls, Linearised, check, outputs_of, places, positive, sees, support
from interpret import trace
from interpret.network.layers import first_outputs
from interpret.support.errors import InterpretError
from interpret.tracing.receptive_field import ReceptiveField

# ---- networks of torchvision -----------------------------------------------------------------------------------------

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, list[str], list[str]]] = {
    # name: how it is made, side of the image, layers with a field, layers that see everything
    "alexnet": (
        models.alexnet,
        139,
        ["features.0", "features.2", "features.3", "features.5", "features.8", "features.10"],
        ["classifier.1", "classifier.6"],
    ),
    "vgg11": (models.vgg11, 84, ["features.0", "features.3", "features.8", "features.13", "features.18"], []),
    "resnet18": (
        models.resnet18,
        120,
        ["conv1", "maxpool", "layer1.0", "layer2.0.conv1", "layer2.0.downsample", "layer2.0", "layer3.1.conv1"],
        ["avgpool", "fc"],
    ),
    "squeezenet1_1": (
        models.squeezenet1_1,
        151,
        ["features.0", "features.3.expand1x1", "features.3", "features.6.expand3x3", "features.12", "classifier.1"],
        ["classifier.3"],
    ),
    "googlenet": (
        lambda: models.GoogLeNet(aux_logits=False, init_weights=False),
        120,
        ["conv1", "conv3", "inception3a.branch1", "inception3a.branch4", "inception3a", "inception4a"],
        ["fc"],
    ),
    "densenet121": (
        lambda: models.DenseNet(growth_rate=8, block_config=(6, 12, 24, 16), num_init_features=16),  # thinner
        160,
        ["features.pool0", "features.denseblock1.denselayer2.conv2", "features.denseblock1", "features.transition2"],
        ["classifier"],
    ),
    "mobilenet_v2": (
        models.mobilenet_v2,
        140,
        ["features.0", "features.1", "features.3", "features.4.conv.1", "features.6", "features.11"],
        ["classifier.1"],
    ),
    "shufflenet_v2_x0_5": (
        models.shufflenet_v2_x0_5,
        300,
        ["conv1", "maxpool", "stage2.0", "stage2.1.branch2.3", "stage2.2", "stage3.0", "stage3.1", "conv5"],
        ["fc"],
    ),
    "convnext_tiny": (
        models.convnext_tiny,
        100,
        ["features.0", "features.1.0.block.3", "features.1.0", "features.3.0"],
        [],
    ),
    "dilated resnet50": (
        lambda: models.resnet50(replace_stride_with_dilation=[True, True, True], width_per_group=16),
        100,
        ["layer1", "layer2.0.conv2", "layer2.1.conv2", "layer2", "layer3.0"],
        ["fc"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_windows_are_the_support_of_the_gradient(name: str) -> None:
    make, side, with_field, without = NETWORKS[name]
    network = positive(make())
    layers = trace(network, (3, side, side + 7))
    image = torch.ones(1, 3, side, side + 7, dtype=torch.float64, requires_grad=True)
    with Linearised():
        outputs = outputs_of(network, image, with_field + without)
    for layer_name, output in outputs.items():
        layer = layers[layer_name]
        if layer_name in without:
            assert layer.receptive_field is None
            (gradient,) = torch.autograd.grad(output.flatten()[0], image, retain_graph=True)
            # but for the last rows and columns, which strides of up to 32 can leave over
            assert bool((gradient[..., : side - 31, : side + 7 - 31] != 0).all()), f"{layer_name} does not see all"
            continue
        assert layer.receptive_field is not None, layer_name
        met = set()
        for position in places(layer):
            seen = support(output, image, layer, position)
            met |= check(seen, layer.receptive_field.window(position), (side, side + 7))
        assert met == {0, 1, 2, 3}, f"{layer_name}: the image is too small to see all edges of its windows"


def test_a_window_inside_the_image_is_met_too() -> None:
    # with the corners above, this leaves no side of a window that only padding decides
    network = positive(models.resnet18())
    layer = trace(network, (3, 160, 160))["layer2.1"]
    assert layer.receptive_field == ReceptiveField(size=(99, 99), stride=(8, 8), start=(-49, -49))
    assert layer.receptive_field.window((10, 9)) == (31, 23, 130, 122)
    image = torch.ones(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    with Linearised():
        output = outputs_of(network, image, ["layer2.1"])["layer2.1"]
    assert support(output, image, layer, (10, 9)) == (31, 23, 130, 122)


# ---- random small networks -------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for branch in self.branches:
            total = total + branch(x)
        return total


class Concatenation(nn.Module):
    """Branches side by side, shuffled and mixed: as in GoogLeNet and ShuffleNet."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.mix = nn.Conv2d(len(branches) * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([branch(x) for branch in self.branches], 1)
        batch, channels, height, width = both.shape
        shuffled = both.view(batch, len(self.branches), -1, height, width).transpose(1, 2).contiguous()
        return self.mix(shuffled.view(batch, channels, height, width))


class ChannelsLast(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Padding(nn.Module):
    def __init__(self, *amounts: int) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts)


CHANNELS = 4
few = st.integers(0, 2)
kernels = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    kernel, dilation = draw(kernels), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    if draw(st.booleans()):
        padding: Any = draw(st.sampled_from(["same", "valid"]))
        return nn.Conv2d(
            CHANNELS, CHANNELS, kernel, padding=padding, dilation=dilation, groups=draw(st.sampled_from([1, 2, 4]))
        )
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate"]))
    # a reflecting padding wider than half the kernel leaves border neurons that see beyond their window
    padding = tuple(draw(st.integers(0, (k - 1) * d // 2)) for k, d in zip(kernel, dilation, strict=True))
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, draw(strides), padding, dilation, padding_mode=mode)


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    kernel, step, ceil = draw(kernels), draw(strides), draw(st.booleans())
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    kind = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    return kind(kernel, step, padding, ceil_mode=ceil)


@st.composite
def keeping(draw: st.DrawFn) -> nn.Module:
    """A layer that keeps the size of its input: what branches are made of."""
    kernel = draw(kernels)
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding="same", groups=draw(st.sampled_from([1, 4])))


blocks = st.one_of(
    convolutions(),
    convolutions(),
    pools(),
    st.builds(Padding, few, few, few, few),
    st.builds(Residual, keeping(), keeping()),
    st.builds(Concatenation, keeping(), keeping()),
    st.builds(ChannelsLast, st.just(CHANNELS)),
    st.builds(lambda k: nn.ConvTranspose2d(CHANNELS, CHANNELS, k, padding=(k[0] // 2, k[1] // 2)), kernels),
)
networks = st.lists(blocks, min_size=1, max_size=5).map(lambda parts: nn.Sequential(*parts))
sides = st.tuples(st.integers(14, 26), st.integers(14, 26))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60, deadline=None)
@given(networks, sides, st.randoms(use_true_random=False))
def test_random_networks(network: nn.Module, side: tuple[int, int], random: Any) -> None:
    network = positive(network)
    try:
        layers = trace(network, (CHANNELS, *side))
    except InterpretError:
        return  # too small an image for so many strides
    image = torch.ones(1, CHANNELS, *side, dtype=torch.float64, requires_grad=True)
    with Linearised():
        outputs = outputs_of(network, image, [name for name in layers if "." not in name])
    for name, output in outputs.items():
        layer = layers[name]
        assert layer.receptive_field is not None
        assert layer.croppable or min(layer.output_shape[1:]) == 1
        _, height, width = layer.output_shape
        edges = [(0, width // 2), (height - 1, width // 2), (height // 2, 0), (height // 2, width - 1)]
        for position in [*places(layer), *edges, (random.randrange(height), random.randrange(width))]:
            seen, window = support(output, image, layer, position), layer.receptive_field.window(position)
            check(seen, window, side, square=False)


def output_of(module: nn.Module, image: Tensor, name: str) -> Tensor:
    """Run a network no further than to one layer: past it, a crop can be too small."""
    outputs: dict[str, Tensor] = {}
    with torch.no_grad(), first_outputs(module, [name], outputs.__setitem__, stop=True):
        module(image)
    return outputs[name]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=40, deadline=None)
@given(networks, sides, st.randoms(use_true_random=False))
def test_croppable_layers_can_be_computed_on_a_crop(network: nn.Module, side: tuple[int, int], random: Any) -> None:
    torch.manual_seed(0)
    network = network.double().eval()
    side = (side[0] + 24, side[1] + 24)
    try:
        layers = trace(network, (CHANNELS, *side))
    except InterpretError:
        return
    image = torch.randn(1, CHANNELS, *side, dtype=torch.float64)
    for name, layer in layers.items():
        if not layer.croppable or "." in name:
            continue
        assert layer.receptive_field is not None
        position = tuple(random.randrange(size) for size in layer.output_shape[1:])
        window = layer.receptive_field.window((position[0], position[1]))
        crop, moved = [], []
        for axis in (0, 1):
            size, step, length = layer.receptive_field.size[axis], layer.receptive_field.stride[axis], side[axis]
            extent = size + step - 1
            extent = min(length, extent + (length - extent) % step)
            start = max(0, min(window[axis] // step * step, length - extent))
            crop.append(slice(start, start + extent))
            moved.append(position[axis] - start // step)
        here = output_of(network, image, name)[0, :, position[0], position[1]]
        there = output_of(network, image[:, :, crop[0], crop[1]], name)[0, :, moved[0], moved[1]]
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9)


# ---- single operations, functional and in place ----------------------------------------------------------------------


def inplace(x: Tensor) -> Tensor:
    x += 1
    x.mul_(2).clamp_(min=0)
    x -= x.mean(dim=1, keepdim=True)
    return F.relu(x, inplace=True)


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        inplace,
        lambda x: 1 - x / 2,
        lambda x: 2**x,
        lambda x: x * torch.sigmoid(x),
        lambda x: torch.where(x > 0, x, x * 0.1),
        lambda x: x.softmax(dim=1),
        lambda x: F.normalize(x),
        lambda x: x.view(1, 2, 2, 12, 16).amax(dim=2),
        lambda x: x.max(dim=1, keepdim=True).values,
        lambda x: torch.max(*x.chunk(2, dim=1)),
        lambda x: torch.stack(list(x.unbind(1)), dim=1),
        lambda x: x.unflatten(1, (2, 2)).flatten(1, 2),
        lambda x: F.channel_shuffle(x, 2)[:, 1:3],
        lambda x: x.to(torch.float64).contiguous().float().detach().clone(),
        lambda x: x[:, torch.tensor([2, 0])],
        lambda x: torch.cat([x, torch.zeros(1, 2, 12, 16)], dim=1),
        lambda x: F.local_response_norm(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, (12, 16)),
        lambda x: x.permute(0, 2, 3, 1).matmul(torch.ones(4, 5)).permute(0, 3, 1, 2),
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).movedim(-1, 1),
        lambda x: x.transpose(2, 3).transpose(2, 3),
        lambda x: torch.zeros_like(x).add_(x),
        lambda x: x * torch.ones(4, 1, 1).expand_as(x).type_as(x),
        lambda x: torch.arange(4).view(1, 4, 1, 1).to(x) + x.view_as(x),
    ],
)
def test_pointwise_and_layout(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field == layer.local_field == CONVOLVED and layer.axes == (-2, -1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(1),
        lambda x: x.mean(dim=(2, 3), keepdim=True),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x @ x.transpose(2, 3),
        lambda x: torch.ones(16)[x.argmax(1)],
        lambda x: torch.fft.fft2(x).real,
        lambda x: torch.from_numpy(x.detach().numpy()),
    ],
)
def test_everything_else_is_global(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and layer.local_field is None and layer.axes is None and not layer.croppable


def test_writing_into_a_tensor_is_not_missed() -> None:
    def into_a_slice(x: Tensor) -> Tensor:
        x[:, :, 0] = x.sum()
        return x

    def through_a_view(x: Tensor) -> Tensor:
        x[:, :2].add_(x.sum())
        return x

    def into_a_new_tensor(x: Tensor) -> Tensor:
        canvas = torch.zeros(1, 4, 12, 16)
        canvas[:, :, ::2] = x[:, :, ::2].flip(2)
        return canvas

    for function in (into_a_slice, through_a_view, into_a_new_tensor):
        assert sees(function).receptive_field is None


def test_joined_windows() -> None:
    def different_places(x: Tensor) -> Tensor:
        return F.pad(x, (2, -2)) + F.pad(x, (0, 0, -1, 1))

    # 2 pixels to the left of the one, 1 pixel below the other
    assert sees(different_places).receptive_field == ReceptiveField((4, 5), (1, 1), (-1, -3))
    slices = sees(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1))
    assert slices.receptive_field == ReceptiveField((4, 4), (2, 2), (-1, -1))
    assert not slices.croppable


def test_space_to_depth_widens_the_window() -> None:
    def blocks(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = x.view(batch, channels, height // 2, 2, width // 4, 4).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(batch, -1, height // 2, width // 4)

    layer = sees(blocks)
    assert layer.receptive_field == ReceptiveField((4, 6), (2, 4), (-1, -1)) and layer.output_shape == (32, 6, 4)
    network = positive(Calls(blocks))
    image = torch.ones(1, 3, 12, 16, dtype=torch.float64, requires_grad=True)
    assert support(network(image), image, layer, (2, 1)) == layer.receptive_field.window((2, 1)) == (3, 3, 7, 9)
    assert sees(lambda x: F.pixel_unshuffle(x, 2)).receptive_field == ReceptiveField((4, 4), (2, 2), (-1, -1))


def test_the_same_operation_on_other_arguments_is_another() -> None:
    for _ in range(2):  # the second time from what is known
        assert sees(lambda x: x[:, :, 1:]).receptive_field == ReceptiveField((3, 3), (1, 1), (0, -1))
        assert sees(lambda x: x[:, :, 2:]).receptive_field == ReceptiveField((3, 3), (1, 1), (1, -1))
        assert sees(lambda x: x[:, [0, 2]]).receptive_field == CONVOLVED
        assert sees(lambda x: x[:, np.array([2, 0])]).receptive_field == CONVOLVED
        assert sees(lambda x: x[True].squeeze(0)).output_shape == (4, 12, 16)
        assert sees(lambda x: x.index_select(2, torch.tensor([0, 2, 4]))).receptive_field == ReceptiveField(
            (3, 3), (2, 1), (-1, -1)
        )
        assert sees(lambda x: x.index_select(2, torch.tensor([1, 2, 3]))).receptive_field == ReceptiveField(
            (3, 3), (1, 1), (0, -1)
        )


def test_channels_last_keeps_its_axes() -> None:
    layer = sees(lambda x: x.permute(0, 2, 3, 1))
    assert layer.receptive_field == CONVOLVED and layer.axes == (-3, -2) and layer.output_shape == (12, 16, 4)
    turned = sees(lambda x: F.max_pool2d(x.transpose(2, 3), (2, 1)))  # the picture on its side: pools along x
    assert turned.receptive_field == ReceptiveField((3, 4), (1, 2), (-1, -1)) and turned.axes == (-1, -2)


def test_reflecting_padding_needs_a_window_that_covers_it() -> None:
    bound = sees(lambda x: F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 3, 1)).receptive_field
    assert bound is not None and not bound.exact
    covered = sees(lambda x: F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect").relu(), 5, 1))
    assert covered.receptive_field == ReceptiveField((7, 7), (1, 1), (-3, -3))
    replicated = sees(lambda x: F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 3, 1))
    assert replicated.receptive_field == ReceptiveField((5, 5), (1, 1), (-3, -3))


def test_what_cannot_be_computed_on_a_crop() -> None:
    fixed = sees(lambda x: x.view(1, 2, 2, 12, 16).flatten(1, 2))
    free = sees(lambda x: x.view(1, 2, 2, *x.shape[2:]).flatten(1, 2))
    assert fixed.receptive_field == free.receptive_field == CONVOLVED
    assert free.croppable and not fixed.croppable
    assert not sees(lambda x: F.adaptive_max_pool2d(x, (6, 4))).croppable
    assert sees(lambda x: F.adaptive_max_pool2d(x, (6, 4))).receptive_field == ReceptiveField((4, 6), (2, 4), (-1, -1))
    assert not sees(lambda x: x + torch.arange(16.0)).croppable
    assert not sees(lambda x: x + torch.linspace(0, 1, x.shape[-1])).croppable
    assert sees(lambda x: x + torch.ones(4, 1, 1)).croppable
    assert not sees(lambda x: x[:, :, 1:-1]).croppable


def test_positions_count_from_zero() -> None:
    with pytest.raises(InterpretError, match=r"must not be negative, but is \(-1, 0\)"):
        CONVOLVED.window((-1, 0))


def all_of(names: str) -> Iterator[str]:
    yield from names.split()


@pytest.mark.parametrize(
    "name", list(all_of("relu relu6 leaky_relu elu selu celu gelu silu mish softplus hardswish hardtanh"))
)
def test_every_rectifier_in_every_form(name: str) -> None:
    function = getattr(F, name)
    assert sees(function).receptive_field == CONVOLVED
    if name in ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "hardswish", "hardtanh"):
        assert sees(lambda x: function(x, inplace=True)).receptive_field == CONVOLVED
