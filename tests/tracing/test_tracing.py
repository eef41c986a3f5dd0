"""What `trace` reports of a network: layers in order, shapes, counts by hand, and errors that say what is wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

import interpret
from interpret import InterpretError, Model, Preprocess, trace


class Small(nn.Module):
    """Shared and functional parts, a layer that runs twice, one that returns two tensors and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(1, 2), bias=False)
        self.act = nn.ReLU(inplace=True)
        self.mixed = Mixed()
        self.two = Two()
        self.unused = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.mixed(x)
        x, _ = self.two(x)
        x = self.act(F.max_pool2d(x, 2))
        return self.head(x.mean(dim=(2, 3)))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1, groups=4)


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.tied = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.tied.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.conv(self.conv(x)))


def test_layers_come_in_order_of_execution() -> None:
    network = nn.Sequential()
    network.add_module("last", nn.Linear(3, 2))
    network.add_module("first", nn.Conv2d(1, 3, 2))
    network.forward = lambda x: network.last(network.first(x).amax(dim=(2, 3)))  # type: ignore[method-assign]
    assert list(trace(network, (1, 4, 4))) == ["first", "last"]
    resnet = trace(models.resnet18(), (3, 64, 64))
    assert list(resnet)[:10] == [
        *("conv1", "bn1", "relu", "maxpool"),
        *("layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "layer1.0.conv2", "layer1.0.bn2", "layer1.0"),
    ]
    assert [name for name, layer in resnet.items() if not layer.leaf][:3] == ["layer1.0", "layer1.1", "layer1"]


def test_every_fact_of_a_layer() -> None:
    layers = trace(Small(), (3, 10, 12))
    assert list(layers) == ["stem", "act", "mixed", "head"]  # `two` returns no single tensor

    stem = layers["stem"]
    assert (stem.kind, stem.input_shape, stem.output_shape) == ("Conv2d", (3, 10, 12), (8, 10, 6))
    assert stem.params == 8 * 3 * 3 * 5
    assert stem.macs == 8 * 10 * 6 * 3 * 3 * 5
    assert stem.receptive_field == interpret.ReceptiveField(size=(3, 5), stride=(1, 2), start=(-1, -2))
    assert stem.croppable and stem.leaf and stem.axes == (-2, -1)

    act = layers["act"]  # the first of its two runs
    assert act.output_shape == (8, 10, 6) and act.receptive_field == stem.receptive_field and act.params == 0

    mixed = layers["mixed"]  # a functional convolution in 4 groups
    assert mixed.params == 8 * 2 * 9 and mixed.macs == 8 * 10 * 6 * 2 * 9
    assert mixed.receptive_field == interpret.ReceptiveField(size=(5, 9), stride=(1, 2), start=(-2, -4))

    head = layers["head"]
    assert (head.input_shape, head.output_shape, head.params, head.macs) == ((8,), (4,), 36, 32)
    assert head.receptive_field is None and head.axes is None and not head.croppable

    assert layers.input_shape == (3, 10, 12)
    assert layers.params == stem.params + mixed.params + head.params + 2  # and the layer that never runs
    assert layers.macs == stem.macs + mixed.macs + head.macs


def test_repeated_and_tied_layers() -> None:
    layers = trace(Repeated(), (2, 5, 5))
    once = 2 * 2 * 9 * 25
    assert layers["conv"].macs == 2 * once and layers["tied"].macs == once and layers.macs == 3 * once
    assert layers.params == 36  # one kernel
    assert layers["conv"].receptive_field == interpret.ReceptiveField((3, 3), (1, 1), (-1, -1))  # its first run
    assert layers["tied"].receptive_field == interpret.ReceptiveField((7, 7), (1, 1), (-3, -3))


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(6, 9, (2, 3), stride=2, groups=3, dilation=2), (6, 11, 11), 9 * 5 * 4 * 2 * 6),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5), 4 * 25 * 6 * 9),
        (nn.Linear(7, 5), (3, 4, 7), 3 * 4 * 7 * 5),
        (nn.BatchNorm2d(4), (4, 5, 5), 0),
        (nn.MultiheadAttention(6, 2, batch_first=True), None, 0),
    ],
)
def test_multiply_accumulates_by_hand(layer: nn.Module, shape: tuple[int, int, int] | None, macs: int) -> None:
    if shape is None:

        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = layer

            def forward(self, x: Tensor) -> Tensor:
                tokens = x.flatten(2).transpose(1, 2)
                return self.attention(tokens, tokens, tokens, need_weights=False)[0]

        # 20 tokens of 6 features: projections in and out, then queries by keys and weights by values
        assert trace(Attention(), (6, 4, 5)).macs == 20 * 6 * 18 + 20 * 6 * 6 + 2 * 20 * 20 * 6
    else:
        assert trace(nn.Sequential(layer), shape)["0"].macs == macs


def test_the_network_is_left_as_it_was() -> None:
    network = models.squeezenet1_1(num_classes=3)
    network.train()
    network.features[3].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = [part.training for part in network.modules()]
    trace(network, (3, 64, 64))
    assert [part.training for part in network.modules()] == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(InterpretError):
        trace(network, (3, 8, 8))
    assert [part.training for part in network.modules()] == training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


@pytest.mark.slow
def test_the_same_on_any_device_and_type() -> None:
    network = models.shufflenet_v2_x0_5(num_classes=10)
    with torch.device("meta"):
        nowhere = models.shufflenet_v2_x0_5(num_classes=10)
    here = trace(network, (3, 64, 96))
    assert trace(nowhere, (3, 64, 96)) == here
    assert trace(network.double(), (3, 64, 96)) == here
    assert trace(network.to(memory_format=torch.channels_last), (3, 64, 96)) == here
    with torch.inference_mode():
        assert trace(network, (3, 64, 96)) == here
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert trace(network, (3, 64, 96)) == here


def test_a_model_brings_its_input_shape() -> None:
    preprocess = Preprocess(size=(16, 20), channels="L", mean=(0.5,), std=(0.5,))
    model = Model(nn.Sequential(nn.Conv2d(1, 2, 3)), name="one layer", preprocess=preprocess)
    assert trace(model)["0"].output_shape == (2, 14, 18)
    assert trace(model, (1, 9, 9))["0"].output_shape == (2, 7, 7)
    with pytest.raises(InterpretError, match="does not say what its input looks like"):
        trace(model.module)


def test_squeeze_and_excitation_sees_everything() -> None:
    layers = trace(models.efficientnet_b0(), (3, 96, 96))
    assert layers["features.1.0.block.0"].receptive_field is not None
    assert layers["features.1.0.block.1"].receptive_field is None  # the gate
    assert layers["features.1.0.block.2"].receptive_field is None
    assert not any(layer.croppable for name, layer in layers.items() if name > "features.1.0.block.1")


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (models.alexnet, (3, 30, 30), r"input_shape \(3, 30, 30\) is too small .* layer 'features.5' \(MaxPool2d\)"),
        (models.alexnet, (1, 224, 224), r"has 1 channel, but layer 'features.0' \(Conv2d\) takes 3"),
        (models.alexnet, (4, 224, 224), r"has 4 channels, but layer 'features.0' \(Conv2d\) takes 3"),
        (models.alexnet, (224, 224), r"must be \(channels, height, width\), .* not \(224, 224\)"),
        (models.alexnet, (1, 3, 224, 224), r"must be \(channels, height, width\)"),
        (models.alexnet, torch.zeros(1, 3, 9, 9), r"not a tensor of \(1, 3, 9, 9\): give tuple\(images.shape\[1:\]\)$"),
        (models.alexnet, (3, 224, 0), r"three whole numbers above zero, not \(3, 224, 0\)"),
        (models.alexnet, (3, 224.0, 224), r"three whole numbers"),
        (models.alexnet, 224, r"three whole numbers above zero, not 224"),
    ],
)
def test_errors(network: type[nn.Module], shape: tuple[int, ...], message: str) -> None:
    with torch.device("meta"):
        module = network()
    with pytest.raises(InterpretError, match=message):
        trace(module, shape)


def test_a_size_that_does_not_fit_names_the_layer() -> None:
    lenet = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Flatten(), nn.Linear(4 * 24 * 24, 10))
    with pytest.raises(InterpretError, match=r"\(1, 32, 32\) does not fit the network: layer '2' \(Linear\) fails on"):
        trace(lenet, (1, 32, 32))
