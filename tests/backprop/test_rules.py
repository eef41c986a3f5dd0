"""The backward rules against literal re-implementations, against captum, and against what might slip past them."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import captum.attr
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv
from torchvision.models.inception import BasicConv2d as InceptionConv
from torchvision.models.regnet import BlockParams

from helpers.deconvnet import forward_with_switches, literal_deconvnet, unpool
from helpers.tensors import normal, seeded
from interpret.backprop.composite import Composite
from interpret.backprop.rules import RULES, BackwardRule, UncoveredOperation
from interpret.network.layers import StopForward, first_outputs
from interpret.network.modes import frozen
from interpret.network.operations import Backward, names_of
from interpret.network.pointwise import slope_of
from interpret.support.errors import InterpretError

EVERY_RULE = pytest.mark.parametrize("rule", RULES)
BOTH_OVERLAPS = pytest.mark.parametrize("overlap", ["add", "overwrite"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are faster on one thread than on many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def torchvision_model(name: str, **kwargs: Any) -> nn.Module:
    if name in ("googlenet", "inception_v3"):
        kwargs["init_weights"] = False
    return seeded(torchvision.models.get_model, name, weights=None, **kwargs)


class Calls(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def passed_back(
    network: Callable[[Tensor], Tensor], image: Tensor, rule: Any, start: Tensor | None = None, **options: Any
) -> Tensor:
    """What arrives at the image of a signal that starts at the network's output, as its value if nothing is said."""
    image = image.detach().clone().requires_grad_()
    module = network if isinstance(network, nn.Module) else Calls(network)
    with BackwardRule(module, rule, strict=True, **options):
        output = module(image)
    return torch.autograd.grad(output, image, output.detach() if start is None else start)[0]


def gradient_of(network: Callable[[Tensor], Tensor], image: Tensor, start: Tensor | None = None) -> Tensor:
    image = image.detach().clone().requires_grad_()
    output = network(image)
    return torch.autograd.grad(output, image, output.detach() if start is None else start)[0]


# 1. The paper, literally


def hidden_outputs(network: nn.Module, image: Tensor, names: list[str], rule: Any, **options: Any) -> dict[str, Tensor]:
    """The layers' outputs, recorded so that signals from each can pass back to `image`."""
    outputs: dict[str, Tensor] = {}
    with (
        BackwardRule(network, rule, strict=True, **options),
        first_outputs(network, names, lambda name, output: outputs.__setitem__(name, output.clone()), stop=True),
    ):
        network(image)
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, side, layers",
    [("alexnet", 83, [0, 1, 2, 3, 5, 6, 8, 10, 12]), ("vgg16", 48, [2, 4, 8, 17, 28])],
)
def test_zeiler_and_fergus_literally(name: str, side: int, layers: list[int]) -> None:
    network = torchvision_model(name).double()
    image = normal(1, 3, side, side)
    steps = forward_with_switches(network.features, image)
    for rule, overlap in [("deconvnet", "add"), ("deconvnet", "overwrite"), ("guided", "add"), ("guided", "overwrite")]:
        leaf = image.clone().requires_grad_()
        outputs = hidden_outputs(network.features, leaf, [str(layer) for layer in layers], rule, overlap=overlap)
        for layer in layers:
            output = outputs[str(layer)]
            # the forward pass is the ordinary one, to the bit
            assert torch.equal(output, steps[layer][2])
            height, width = output.shape[2:]
            alive = output[0].amax((1, 2)).argsort(descending=True)
            for unit, corner in [(int(alive[0]), False), (int(alive[7]), True)]:
                strongest = int(output[0, unit].argmax())
                position = (height - 1, width - 1) if corner else (strongest // width, strongest % width)
                start = torch.zeros_like(output)
                start[(0, unit, *position)] = output[(0, unit, *position)].detach()
                (found,) = torch.autograd.grad(output, leaf, start, retain_graph=True)
                expected = literal_deconvnet(steps[: layer + 1], unit, position, overlap, guided=rule == "guided")
                # not to the bit: the adjoint of a convolution and F.conv_transpose2d may sum in another order
                torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14 * float(expected.abs().max() or 1))
                if overlap == "add" and not corner:
                    assert expected.abs().max() > 0


def test_the_two_readings_of_shared_switches_differ() -> None:
    network = torchvision_model("alexnet").double().features[:6]
    image = normal(1, 3, 83, 83)
    assert not torch.allclose(
        passed_back(network, image, "deconvnet"), passed_back(network, image, "deconvnet", overlap="overwrite")
    )


@given(
    seed=st.integers(0, 10**6),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padded=st.booleans(),
    ceil_mode=st.booleans(),
    batch=st.integers(1, 2),
    distinct=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_overwriting_pool_is_max_unpooling(
    seed: int, kernel: Any, stride: int, dilation: int, padded: bool, ceil_mode: bool, batch: int, distinct: bool
) -> None:
    padding = tuple(side // 2 for side in kernel) if padded else 0
    x = normal(batch, 3, 11, 9, seed=seed)
    if not distinct:
        x = x.relu()  # ties everywhere: many windows share a switch
    options = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    values, switches = F.max_pool2d(x, **options, return_indices=True)
    start = normal(*values.shape, seed=seed + 1)
    expected = unpool(start, switches, x.shape, "overwrite")
    for pool in (
        nn.MaxPool2d(**options),
        lambda z: F.max_pool2d(input=z, **options),
        lambda z: torch.max_pool2d(z, kernel, stride, padding, dilation, ceil_mode),
        lambda z: F.max_pool2d(z, kernel, stride, padding, dilation, ceil_mode, True)[0],
        lambda z: nn.MaxPool2d(**options, return_indices=True)(z)[0],
        lambda z: F.max_pool2d(z[0], **options)[None] if batch == 1 else F.max_pool2d(z, **options),
    ):
        for rule in RULES:
            assert torch.equal(passed_back(pool, x, rule, start, overlap="overwrite"), expected)
            assert torch.equal(passed_back(pool, x, rule, start), gradient_of(pool, x, start))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_overwriting_holds_for_every_max_pool(dimensions: int) -> None:
    x = normal(2, 3, *(5, 6, 7)[:dimensions])
    for form, arguments in ((f"max_pool{dimensions}d", (3, 2)), (f"adaptive_max_pool{dimensions}d", (3,))):
        pool = getattr(F, form)
        values, switches = getattr(F, f"{form}_with_indices")(x, *arguments)
        start = normal(*values.shape, seed=1)
        expected = unpool(start, switches, x.shape, "overwrite")
        network = Calls(functools.partial(lambda pool, arguments, z: pool(z, *arguments), pool, arguments))
        assert torch.equal(passed_back(network, x, "guided", start, overlap="overwrite"), expected)
        assert torch.equal(passed_back(network, x, "guided", start), gradient_of(network, x, start))


# 2. captum, where it is right and where it is not


def captums(kind: str, network: nn.Module, image: Tensor) -> Tensor:
    """captum's deconvnet or guided backpropagation of the first class, on networks it can hook: nothing in place."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False
    method = {"deconvnet": captum.attr.Deconvolution, "guided": captum.attr.GuidedBackprop}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets hooks
        return method(network).attribute(image.clone(), target=0).detach()


class FirstClass(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[:, 0]


def ours(rule: str, network: nn.Module, image: Tensor) -> Tensor:
    return passed_back(FirstClass(network), image, rule, torch.ones(len(image), dtype=image.dtype))


@pytest.mark.parametrize(
    "name, side",
    [
        ("alexnet", 67),
        pytest.param("vgg11", 48, marks=pytest.mark.slow),
        ("resnet18", 64),
        ("squeezenet1_1", 67),
        ("shufflenet_v2_x0_5", 64),
        ("mnasnet0_5", 64),
    ],
)
def test_equal_to_captum_where_captum_is_right(name: str, side: int) -> None:
    network = torchvision_model(name)
    image = normal(2, 3, side, side, dtype=torch.float32)
    gradient = gradient_of(FirstClass(network), image, torch.ones(2))
    for rule in ("deconvnet", "guided"):
        found = ours(rule, network, image)
        assert found.abs().max() > 0
        assert torch.equal(found, captums(rule, network, image))
        assert not torch.equal(found, gradient)


class ModuleRelu(nn.ReLU):
    """A rectifier that captum hooks, as it hooks whatever is an nn.ReLU, and that rectifies as another one does."""

    def __init__(self, rectifier: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rectifier = rectifier

    def forward(self, x: Tensor) -> Tensor:
        return self.rectifier(x)


class ModuleConv(nn.Module):
    """The convolution, batch norm and functional ReLU of GoogLeNet and Inception, with the ReLU as a module."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = layer.conv, layer.bn, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class ConstantGate(nn.Module):
    """Squeeze-and-excitation whose gate is a number."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layer._scale(x).detach()


class ConstantStatistics(nn.Module):
    """Layer norm whose mean and deviation are numbers."""

    def __init__(self, layer: nn.LayerNorm) -> None:
        super().__init__()
        self.layer = layer
        self.channels_first = type(layer) is not nn.LayerNorm  # torchvision's LayerNorm2d

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1) if self.channels_first else x
        mean, variance = x.detach().mean(-1, keepdim=True), x.detach().var(-1, correction=0, keepdim=True)
        y = (x - mean) / (variance + self.layer.eps).sqrt() * self.layer.weight + self.layer.bias
        return y.movedim(-1, 1) if self.channels_first else y


def as_captum_needs_it(network: nn.Module) -> nn.Module:
    """An equivalent network for the deconvnet whose rectifiers are modules that captum hooks, and whose gates and
    statistics are numbers."""
    network = copy.deepcopy(network)
    for layer in list(network.modules()):
        for name, child in layer.named_children():
            if isinstance(child, (GoogLeNetConv, InceptionConv)):
                setattr(layer, name, ModuleConv(child))
            elif isinstance(child, (nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)):
                if hasattr(child, "inplace"):
                    child.inplace = False
                setattr(layer, name, ModuleRelu(child))
            elif isinstance(child, torchvision.ops.SqueezeExcitation):
                setattr(layer, name, ConstantGate(child))
            elif isinstance(child, nn.LayerNorm):
                setattr(layer, name, ConstantStatistics(child))
    if isinstance(network, torchvision.models.DenseNet):
        return nn.Sequential(network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classifier)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, side, is_plain_gradient",
    [
        ("googlenet", 64, True),  # F.relu
        ("inception_v3", 80, True),  # F.relu
        ("mobilenet_v2", 48, True),  # nn.ReLU6
        ("efficientnet_b0", 48, True),  # nn.SiLU, and a gate that is differentiated
        ("convnext_tiny", 48, True),  # nn.GELU, and statistics that are differentiated
        ("densenet121", 48, False),  # one F.relu, after the features
        ("mobilenet_v3_small", 48, False),  # nn.Hardswish, and a gate that is differentiated; some nn.ReLU
    ],
)
def test_different_from_captum_where_captum_is_wrong(name: str, side: int, is_plain_gradient: bool) -> None:
    network = torchvision_model(name).double()
    image = normal(1, 3, side, side)
    one = torch.ones(1, dtype=image.dtype)
    gradient = gradient_of(FirstClass(network), image, one)
    found = ours("deconvnet", network, image)
    size = float(found.abs().max())
    assert size > 0

    theirs = captums("deconvnet", network, image)
    # captum hooks nn.ReLU modules only. What else rectifies, it passes over in silence: with no nn.ReLU at all in the
    # network, its "deconvnet" is the plain gradient to the bit, and so is its "guided backpropagation".
    assert not torch.allclose(theirs, found, rtol=0.01, atol=0.01 * size)
    hooked = sum(isinstance(layer, nn.ReLU) for layer in network.modules())
    if is_plain_gradient:
        assert torch.equal(theirs, gradient) and torch.equal(captums("guided", network, image), gradient)
        # EfficientNet's and ConvNeXt's rectifiers are no nn.ReLU either
        assert hooked == 0
    else:
        assert hooked > 0 and not torch.equal(theirs, gradient)

    equivalent = as_captum_needs_it(network)
    torch.testing.assert_close(equivalent(image), network(image), rtol=1e-9, atol=1e-12)
    right = captums("deconvnet", equivalent, image)
    torch.testing.assert_close(found, right, rtol=1e-8, atol=1e-10 * size)
    if name in ("googlenet", "inception_v3", "densenet121", "mobilenet_v2"):
        # nothing but rectifiers between the two: to the bit, and guided backpropagation too
        assert torch.equal(found, right)
        assert torch.equal(ours("guided", network, image), captums("guided", equivalent, image))


# 3. Every rectifier in every form


Form = Callable[[Tensor], Tensor]


def afterwards(change: Callable[[Tensor], Any]) -> Form:
    """A function called for its side effect alone."""

    def form(x: Tensor) -> Tensor:
        change(x)
        return x

    return form


def module_forms(build: Callable[..., nn.Module], *arguments: Any, inplace: bool = True) -> list[Form]:
    forms: list[Form] = [lambda x: build(*arguments).eval()(x)]
    if inplace:
        forms += [
            lambda x: build(*arguments, inplace=True).eval()(x),
            afterwards(build(*arguments, inplace=True).eval()),
        ]
    return forms


def functional_forms(
    function: Callable[..., Tensor], *arguments: Any, inplace: bool = True, **named: Any
) -> list[Form]:
    forms: list[Form] = [
        lambda x: function(x, *arguments, **named),
        lambda x: function(input=x, **named) if not arguments else function(x, *arguments, **named),
    ]
    if inplace:
        forms += [
            lambda x: function(x, *arguments, inplace=True, **named),
            afterwards(lambda x: function(x, *arguments, inplace=True, **named)),
        ]
    return forms


SLOPES = torch.full((3,), 0.3, dtype=torch.float64)

RECTIFIER_FORMS: dict[str, list[Form]] = {
    "relu": [
        *functional_forms(F.relu),
        *module_forms(nn.ReLU),
        lambda x: torch.relu(x),
        lambda x: torch.relu_(x),
        lambda x: F.relu_(x),
        lambda x: x.relu(),
        lambda x: x.relu_(),
        lambda x: torch.ops.aten.relu(x),
        lambda x: torch.ops.aten.relu.default(x),
        afterwards(F.relu_),
        afterwards(lambda x: x.relu_()),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: torch.maximum(torch.zeros_like(x), x),
        lambda x: torch.maximum(input=x, other=x.new_zeros(())),
        lambda x: torch.max(x, torch.zeros_like(x)),
        lambda x: torch.max(torch.zeros_like(x), x),
        lambda x: x.max(x.new_zeros(())),
        lambda x: x.maximum(other=torch.zeros_like(x)),
    ],
    "relu6": [*functional_forms(F.relu6), *module_forms(nn.ReLU6)],
    "leaky_relu": [
        *functional_forms(F.leaky_relu),
        *functional_forms(F.leaky_relu, 0.2),
        *functional_forms(F.leaky_relu, negative_slope=0.2),
        *module_forms(nn.LeakyReLU, 0.2),
        lambda x: F.leaky_relu(x, 0.2, True),
        lambda x: F.leaky_relu_(x, 0.2),
    ],
    "prelu": [
        lambda x: F.prelu(x, SLOPES),
        lambda x: F.prelu(input=x, weight=SLOPES),
        lambda x: torch.prelu(x, SLOPES),
        lambda x: x.prelu(SLOPES),
        lambda x: F.prelu(x, SLOPES[:1]),
    ],
    "rrelu": [
        *functional_forms(F.rrelu),
        *functional_forms(F.rrelu, 0.1, 0.3),
        *module_forms(nn.RReLU),
        lambda x: torch.rrelu_(x),
    ],
    "elu": [*functional_forms(F.elu), *functional_forms(F.elu, 0.5), *module_forms(nn.ELU, 0.5), lambda x: F.elu_(x)],
    "selu": [*functional_forms(F.selu), *module_forms(nn.SELU), lambda x: torch.selu(x), lambda x: torch.selu_(x)],
    "celu": [
        *functional_forms(F.celu),
        *functional_forms(F.celu, 0.5),
        *module_forms(nn.CELU, 0.5),
        lambda x: torch.celu_(x),
    ],
    "silu": [*functional_forms(F.silu), *module_forms(nn.SiLU)],
    "gelu": [
        *functional_forms(F.gelu, inplace=False),
        *functional_forms(F.gelu, approximate="tanh", inplace=False),
        *module_forms(nn.GELU, inplace=False),
    ],
    "mish": [*functional_forms(F.mish), *module_forms(nn.Mish)],
    "softplus": [
        *functional_forms(F.softplus, inplace=False),
        *functional_forms(F.softplus, 2.0, inplace=False),
        *module_forms(nn.Softplus, inplace=False),
    ],
    "hardswish": [*functional_forms(F.hardswish), *module_forms(nn.Hardswish)],
    "threshold": [
        *functional_forms(F.threshold, 0.5, 0.25),
        *module_forms(nn.Threshold, 0.5, 0.25),
        lambda x: torch.threshold(x, 0.0, 0.0),
        lambda x: torch.threshold_(x, 0.0, 0.0),
        lambda x: F.threshold_(x, 0.5, 0.0),
    ],
}
CLAMP_FORMS: dict[str, list[Form]] = {
    "clamp": [
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(0),
        lambda x: x.clamp(0, 1),
        lambda x: torch.clamp(x, 0.0),
        lambda x: torch.clamp(input=x, min=0.5, max=1),
        lambda x: torch.clamp(x, min=torch.zeros_like(x)),
        lambda x: x.clamp_(0),
        lambda x: torch.clamp_(x, min=0, max=6),
        afterwards(lambda x: x.clamp_(min=0)),
    ],
    "clamp_min": [
        lambda x: x.clamp_min(0),
        lambda x: x.clamp_min(min=0.5),
        lambda x: torch.clamp_min(x, 0),
        lambda x: x.clamp_min_(0),
        lambda x: torch.clamp_min_(x, 0),
        afterwards(lambda x: x.clamp_min_(0)),
    ],
    "clip": [lambda x: x.clip(0), lambda x: torch.clip(x, min=0, max=2), lambda x: x.clip_(0)],
    "hardtanh": [
        *functional_forms(F.hardtanh, 0, 1),
        *functional_forms(F.hardtanh, min_val=0.0, max_val=6.0),
        *module_forms(nn.Hardtanh, 0.0, 6.0),
        lambda x: F.hardtanh(x, 0.0, 6.0, True),
        lambda x: F.hardtanh_(x, 0.0, 6.0),
        afterwards(lambda x: F.hardtanh(x, 0.0, 6.0, True)),
    ],
}
SQUASHING_CLAMP_FORMS: dict[str, list[Form]] = {
    "clamp": [
        lambda x: x.clamp(-1, 1),
        lambda x: torch.clamp(x, min=-1),
        lambda x: x.clamp(max=1),
        lambda x: x.clamp(None, 1),
        lambda x: x.clamp_(-1, 1),
        lambda x: torch.clamp(x, min=torch.full_like(x, -1)),
        afterwards(lambda x: x.clamp_(-1, 1)),
    ],
    "clamp_min": [lambda x: x.clamp_min(-1)],
    "clamp_max": [lambda x: x.clamp_max(1), lambda x: torch.clamp_max(x, max=0.5), lambda x: x.clamp_max_(1)],
    "clip": [lambda x: x.clip(-1, 1)],
    "hardtanh": [
        *functional_forms(F.hardtanh),
        *functional_forms(F.hardtanh, max_val=3.0),
        *module_forms(nn.Hardtanh),
    ],
}


def test_no_rectifier_lacks_a_test() -> None:
    assert set(RECTIFIER_FORMS) == names_of(Backward.RECTIFIER)
    assert set(CLAMP_FORMS) | set(SQUASHING_CLAMP_FORMS) == names_of(Backward.CLAMP)


def each_form(forms: dict[str, list[Form]]) -> list[Any]:
    return [pytest.param(form, id=f"{name}-{n}") for name, all in forms.items() for n, form in enumerate(all)]


values = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 3.0, 6.0, -1.0, -3.0]),  # where rectifiers have corners
    st.floats(-8, 8, allow_subnormal=False),
)
triples = st.lists(values, min_size=3, max_size=3).map(lambda found: torch.tensor([found], dtype=torch.float64))


@pytest.mark.parametrize("form", each_form(RECTIFIER_FORMS) + each_form(CLAMP_FORMS))
@given(x=triples, signal=triples)
@settings(max_examples=8, deadline=None)
def test_rectifiers(form: Form, x: Tensor, signal: Tensor) -> None:
    # the rectifier stands between two other operations: neither its input nor its output is the end of anything
    network = Calls(lambda image: 1 * form(image * 1))
    for rule in RULES:
        image = x.clone().requires_grad_()
        with BackwardRule(network, rule, strict=True):
            output = network(image)
        assert torch.equal(output, network(x))
        (found,) = torch.autograd.grad(output, image, signal)
        expected = {
            "deconvnet": signal.clamp(min=0),
            "guided": slope_of(form, x) * signal.clamp(min=0),
            "gradient": gradient_of(network, x, signal),
        }[rule]
        assert torch.equal(found, expected)


@pytest.mark.parametrize("form", each_form(SQUASHING_CLAMP_FORMS))
@given(x=triples, signal=triples)
@settings(max_examples=5, deadline=None)
def test_other_clamps_squash(form: Form, x: Tensor, signal: Tensor) -> None:
    network = Calls(lambda image: form(image * 1))
    for rule in RULES:
        assert torch.equal(passed_back(network, x, rule, signal), gradient_of(network, x, signal))


def test_the_guided_slope_is_that_of_the_values_that_were_drawn() -> None:
    # a randomised leaky ReLU in training mode draws its slopes anew with every call
    x = normal(1, 50)
    image = x.clone().requires_grad_()
    network = nn.RReLU().train()
    with BackwardRule(network, "guided"):
        output = network(image)
    (found,) = torch.autograd.grad(output, image, torch.ones_like(x))
    torch.testing.assert_close(found, (output / x).detach(), rtol=1e-12, atol=0)


def test_one_module_used_twice() -> None:
    relu = nn.ReLU()
    first, second = (nn.Conv2d(3, 3, 3, padding=1).double() for _ in range(2))
    reused = nn.Sequential(first, relu, second, relu, first, relu)
    apart = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(inplace=True), first, nn.ReLU())
    image = normal(1, 3, 7, 7)
    for rule in RULES:
        found = passed_back(reused, image, rule)
        assert torch.equal(found, passed_back(apart, image, rule))
        signal = reused(image).detach()
        if rule == "deconvnet":
            for conv in (first, second, first):
                signal = F.conv_transpose2d(signal.clamp(min=0), conv.weight.detach(), padding=1)
            torch.testing.assert_close(found, signal, rtol=1e-12, atol=1e-14)


def test_in_place_on_a_part_of_a_tensor() -> None:
    def network(image: Tensor) -> Tensor:
        x = image * 2
        x[:, :2].relu_()
        x[0].clamp_(min=-5)
        return 3 * x

    image, signal = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    expected = 6 * signal
    expected[:, :2] = expected[:, :2].clamp(min=0)
    assert torch.equal(passed_back(network, image.clamp(-2, 2), "deconvnet", signal), expected)

    def views(image: Tensor) -> Tensor:
        x = image * 1
        flat, channel = x.flatten(1), x[:, 1]
        x.relu_()  # autograd makes the views anew
        channel.mul_(2)
        return flat.unflatten(1, (4, 3, 3)) + 0

    expected = signal.clone()
    expected[:, 1] *= 2
    assert torch.equal(passed_back(views, image, "deconvnet", signal), expected.clamp(min=0))

    def halves(image: Tensor) -> Tensor:
        left, right = (image * 1).split(2, dim=1)
        return torch.cat([F.relu(left.clone(), inplace=True), right], 1)

    expected = torch.cat([signal[:, :2].clamp(min=0), signal[:, 2:]], 1)
    assert torch.equal(passed_back(halves, image, "deconvnet", signal), expected)


def test_in_place_on_the_image_itself_fails_as_it_does_without_the_rule() -> None:
    image = normal(1, 3, 2, 2).requires_grad_()
    for rule in RULES:
        with pytest.raises(RuntimeError, match="leaf"), BackwardRule(nn.ReLU(True), rule) as mode:
            mode.module(image)


# 4. Squashing, norms, gates, and what is linear


@EVERY_RULE
def test_squashing_functions_pass_the_slope(rule: str) -> None:
    x, signal = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    sigmoid, tanh = 1 / (1 + (-x).exp()), x.tanh()
    softmax = x.exp() / x.exp().sum(1, keepdim=True)
    literal = {
        torch.tanh: signal * (1 - tanh**2),
        torch.sigmoid: signal * sigmoid * (1 - sigmoid),
        F.sigmoid: signal * sigmoid * (1 - sigmoid),
        nn.Tanh(): signal * (1 - tanh**2),
        torch.Tensor.tanh: signal * (1 - tanh**2),
        F.logsigmoid: signal * (1 - sigmoid),
        F.softsign: signal / (1 + x.abs()) ** 2,
        F.hardsigmoid: signal * ((x.abs() < 3) / 6),
        (lambda z: z.softmax(1)): softmax * (signal - (signal * softmax).sum(1, keepdim=True)),
        (lambda z: F.log_softmax(z, dim=1)): signal - softmax * signal.sum(1, keepdim=True),
        (lambda z: (z * 1).sigmoid_()): signal * sigmoid * (1 - sigmoid),
        (lambda z: 1.7159 * torch.tanh(z * 2 / 3)): signal * 1.7159 * 2 / 3 * (1 - (x * 2 / 3).tanh() ** 2),
    }
    for squash, expected in literal.items():
        torch.testing.assert_close(passed_back(squash, x, rule, signal), expected, rtol=1e-10, atol=1e-12)
        assert torch.equal(passed_back(squash, x, rule, signal), gradient_of(squash, x, signal))


def norms() -> dict[str, tuple[Form, Callable[[Tensor], Tensor]]]:
    """Each norm, and the number that it literally multiplies each value with."""
    weight, bias = normal(6).abs() + 0.5, normal(6, seed=1)
    wide = normal(6, 4, 5, seed=2)
    channels = (slice(None), None, None)

    def local_response(x: Tensor) -> Tensor:
        scale = torch.empty_like(x)
        for channel in range(6):
            # five channels, centred; of an even number, one more below than above
            near = x[:, max(0, channel - 2) : channel + 3]
            scale[:, channel] = (2.0 + 0.3 / 5 * (near**2).sum(1)) ** -0.75
        return scale

    def even_local_response(x: Tensor) -> Tensor:
        scale = torch.empty_like(x)
        for channel in range(6):
            scale[:, channel] = (1 + 0.3 / 4 * (x[:, max(0, channel - 2) : channel + 2] ** 2).sum(1)) ** -0.5
        return scale

    def deviation(x: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> Tensor:
        return (((x - x.mean(dims, keepdim=True)) ** 2).mean(dims, keepdim=True) + eps).sqrt()

    def grouped(x: Tensor) -> Tensor:
        return torch.cat([(1 / deviation(part, (1, 2, 3))).expand_as(part) for part in x.split(2, 1)], 1)

    with torch.no_grad():
        group, instance, layer = (
            nn.GroupNorm(3, 6).double(),
            nn.InstanceNorm2d(6, affine=True).double(),
            nn.LayerNorm(5),
        )
        batch = nn.BatchNorm2d(6).double().train()
        for norm in (group, instance, batch):
            norm.weight.copy_(weight)
            norm.bias.copy_(bias)
    return {
        "local response": (lambda x: F.local_response_norm(x, 5, 0.3, 0.75, 2.0), local_response),
        "local response, even": (nn.LocalResponseNorm(4, 0.3, 0.5), even_local_response),
        "layer": (
            lambda x: F.layer_norm(x, (4, 5), wide[0], wide[1], eps=0.1),
            lambda x: wide[0] / deviation(x, (2, 3), 0.1),
        ),
        "layer, all": (
            lambda x: F.layer_norm(input=x, normalized_shape=x.shape[1:]),
            lambda x: 1 / deviation(x, (1, 2, 3)),
        ),
        "layer, module": (layer.double(), lambda x: 1 / deviation(x, (3,))),
        "rms": (
            lambda x: F.rms_norm(x, (4, 5), wide[0], 0.1),
            lambda x: wide[0] / ((x**2).mean((2, 3), keepdim=True) + 0.1).sqrt(),
        ),
        "rms, default": (  # values so small that the default eps counts
            lambda x: F.rms_norm(x * 1e-8, (5,)),
            lambda x: 1e-8 / (((1e-8 * x) ** 2).mean(3, keepdim=True) + 2.0**-52).sqrt(),
        ),
        "group": (group, lambda x: weight[channels] * grouped(x)),
        "instance": (instance, lambda x: weight[channels] / deviation(x, (2, 3))),
        "batch, in training": (batch, lambda x: weight[channels] / deviation(x, (0, 2, 3))),
        "in place afterwards": (
            lambda x: F.group_norm(x, 3).add_(100).relu_(),
            lambda x: grouped(x),
        ),
        "instance, in place afterwards": (
            lambda x: F.instance_norm(x).add_(100).relu_(),
            lambda x: 1 / deviation(x, (2, 3)),
        ),
    }


@pytest.mark.parametrize("name", norms())
def test_norms_are_a_multiplication_with_the_deviation_found(name: str) -> None:
    norm, scale = norms()[name]
    x, signal = normal(2, 6, 4, 5, seed=3), normal(2, 6, 4, 5, seed=4).abs()
    network = norm if isinstance(norm, nn.Module) else Calls(norm)
    for rule in ("deconvnet", "guided"):
        image = x.clone().requires_grad_()
        with BackwardRule(network, rule, strict=True):
            output = network(image)
        assert torch.equal(output, network(x))
        (found,) = torch.autograd.grad(output, image, signal)
        torch.testing.assert_close(found, signal * scale(x), rtol=1e-12, atol=1e-13)
    gradient = gradient_of(network, x, signal)
    assert torch.equal(passed_back(network, x, "gradient", signal), gradient)
    assert not torch.allclose(gradient, signal * scale(x))


@EVERY_RULE
def test_batch_norm_in_evaluation_is_its_affine_map(rule: str) -> None:
    network = seeded(lambda: nn.BatchNorm2d(3)).double()
    x, signal = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    scale = (network.weight / (network.running_var + network.eps).sqrt()).detach()[:, None, None]
    torch.testing.assert_close(passed_back(network, x, rule, signal), signal * scale, rtol=1e-12, atol=0)
    followed = seeded(lambda: nn.InstanceNorm2d(3, track_running_stats=True)).double()
    assert torch.equal(passed_back(followed, x, rule, signal), gradient_of(followed, x, signal))


def test_a_norm_whose_weights_carry_the_signal_is_reported() -> None:
    with pytest.warns(UncoveredOperation, match="'group_norm'"), BackwardRule(nn.Identity()):
        image = normal(1, 4, 3, 3).requires_grad_()
        F.group_norm(image, 2, image.mean((0, 2, 3)))


class Gated(nn.Module):
    """A convolution between two squeeze-and-excitations, which the forms below write in different ways."""

    def __init__(self, weigh: Callable[[Tensor, Tensor], Tensor], size: int | None = None) -> None:
        super().__init__()
        self.conv, self.squeeze, self.weigh = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), weigh

    def gate(self, x: Tensor) -> Tensor:
        return self.squeeze(F.adaptive_avg_pool2d(x, 1).relu()).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.conv(x)
            x = self.weigh(x, self.gate(x)).relu()
        return x


def excite_in_place(x: Tensor, gate: Tensor) -> Tensor:
    x *= gate
    return x


GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x * gate": lambda x, gate: x * gate,
    "gate * x": lambda x, gate: gate * x,
    "torch.mul": lambda x, gate: torch.mul(x, gate),
    "torch.mul by name": lambda x, gate: torch.mul(input=x, other=gate),
    "torch.multiply": lambda x, gate: torch.multiply(gate, other=x),
    "x.mul": lambda x, gate: x.mul(other=gate),
    "x.mul_": lambda x, gate: x.mul_(gate),
    "x *= gate": excite_in_place,
    "side effect": lambda x, gate: afterwards(lambda z: z.mul_(gate))(x),
    "expanded": lambda x, gate: x * gate.expand_as(x),
    "reshaped": lambda x, gate: x * gate.view(1, -1).reshape(4, 1, 1).unsqueeze(0).repeat(1, 1, *x.shape[2:]),
    "interpolated": lambda x, gate: F.interpolate(gate, x.shape[2:]) * x,
}


@pytest.mark.parametrize("form", GATES)
@pytest.mark.parametrize("side", [5, 1])  # of one pixel, the gate is no smaller than what it weighs
def test_gates_are_numbers(form: str, side: int) -> None:
    network = seeded(Gated, GATES[form]).double()
    image = normal(1, 4, side, side)
    literal = copy.copy(network)
    literal.weigh = lambda x, gate: x * gate.detach()
    assert torch.equal(network(image), literal(image))
    for rule in ("deconvnet", "guided"):
        assert torch.equal(passed_back(network, image, rule), passed_back(literal, image, rule))
        signal = network(image).detach()
        assert signal.abs().max() > 0
    assert torch.equal(passed_back(network, image, "gradient"), gradient_of(network, image))
    assert not torch.allclose(gradient_of(network, image), gradient_of(literal, image))


def test_gates_are_known_when_memory_is_used_again() -> None:
    # what marks a gate must not be an address that another tensor or node may get next
    image = normal(1, 4, 3, 3).requires_grad_()
    products = []
    with pytest.warns(UncoveredOperation) as caught, BackwardRule(nn.Identity()):
        for _ in range(200):
            (image * 1).sigmoid()
            products.append((image * 1) * (image * 2))
            product = (image * 3) * (image * 1).flip(1).sigmoid()
    (found,) = torch.autograd.grad(product.sum(), image)
    torch.testing.assert_close(found, 3 * image.detach().flip(1).sigmoid())
    for product in products:
        (found,) = torch.autograd.grad(product.sum(), image)
        torch.testing.assert_close(found, 4 * image.detach())
    # a product of which neither factor is a gate was never taken for one
    assert [str(found.message.operations) for found in caught] == ["[('mul', '')]"]  # type: ignore[union-attr]


SELF_MADE: dict[str, tuple[Form, Form]] = {  # and what they are with the gate or divisor as a number
    "clamp": (lambda x: x * x.clamp(-1, 1), lambda x: x * x.clamp(-1, 1).detach()),
    "quotient": (lambda x: x / (2 + x.sigmoid()), lambda x: x / (2 + x.sigmoid()).detach()),
    "quotient by name": (lambda x: torch.div(x, other=2 + x.tanh()), lambda x: x / (2 + x.tanh()).detach()),
    "quotient, in place": (lambda x: (z := x * 1).div_(2 + z.tanh()), lambda x: x / (2 + x.tanh()).detach()),
    "by its sum": (lambda x: x / x.sum((2, 3), keepdim=True), lambda x: x / x.sum((2, 3), keepdim=True).detach()),
    "spatial attention": (
        lambda x: x * x.mean(1, keepdim=True).sigmoid(),
        lambda x: x * x.mean(1, keepdim=True).sigmoid().detach(),
    ),
    "gate of what was squashed": (
        lambda x: x.tanh() * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: x.tanh() * x.mean((2, 3), keepdim=True).sigmoid().detach(),
    ),
    "by itself": (lambda x: x / x, lambda x: x / x.detach()),
    "selective kernels": (
        lambda x: (
            torch.stack([x, 2 * x]) * torch.stack([x.sum((2, 3)), x.mean((2, 3))]).softmax(0)[..., None, None]
        ).sum(0),
        lambda x: (
            torch.stack([x, 2 * x]) * torch.stack([x.sum((2, 3)), x.mean((2, 3))]).softmax(0)[..., None, None].detach()
        ).sum(0),
    ),
}


@pytest.mark.parametrize("name", SELF_MADE)
def test_self_made_gates_and_quotients(name: str) -> None:
    network, literal = SELF_MADE[name]
    x, signal = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    for rule in ("deconvnet", "guided"):
        torch.testing.assert_close(
            passed_back(network, x, rule, signal), gradient_of(literal, x, signal), rtol=1e-14, atol=1e-15
        )
    assert torch.equal(passed_back(network, x, "gradient", signal), gradient_of(network, x, signal))


SLOPE = torch.tensor([0.3, 0.0, 0.7], dtype=torch.float64).view(3, 1, 1)


def in_place(change: Callable[[Tensor], Any]) -> Form:
    """A form that works on a tensor of its own."""
    return lambda x: change(x * 1)


def written_over(x: Tensor) -> Tensor:
    gate = F.hardsigmoid(x)
    gate *= x
    return gate


# the function of torch, its derivative by hand, and the ways to write it
SPELLINGS: dict[str, tuple[Form | None, Form, list[Form]]] = {
    "silu": (
        F.silu,
        lambda x: 1 / (1 + (-x).exp()) * (1 + x * (1 - 1 / (1 + (-x).exp()))),
        [
            lambda x: x * torch.sigmoid(x),
            lambda x: x.sigmoid() * x,
            lambda x: torch.mul(input=x, other=F.sigmoid(x)),
            lambda x: x.multiply(nn.Sigmoid()(x)),
            lambda x: x * x.clone().sigmoid_(),
            lambda x: x * torch.sigmoid(1.0 * x),
            lambda x: x * (0.5 * (1 + torch.tanh(x / 2))),
            lambda x: x / (1 + torch.exp(-x)),
            lambda x: x.div(1 + (-x).exp()),
            lambda x: x * (1 / (1 + torch.exp(-x))),
            lambda x: 2 * x * (x.sigmoid() * 0.5),
            in_place(lambda z: z.mul_(z.sigmoid())),
        ],
    ),
    "quick gelu": (
        None,
        lambda x: 1 / (1 + (-1.702 * x).exp()) * (1 + 1.702 * x * (1 - 1 / (1 + (-1.702 * x).exp()))),
        [lambda x: x * torch.sigmoid(1.702 * x)],
    ),
    "mish": (
        F.mish,
        lambda x: (1 + x.exp()).log().tanh() + x / (1 + (-x).exp()) * (1 - (1 + x.exp()).log().tanh() ** 2),
        [
            lambda x: x * torch.tanh(F.softplus(x)),
            lambda x: x * nn.Softplus()(x).tanh(),
            lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
            lambda x: x * torch.log1p(x.exp()).tanh(),
        ],
    ),
    "hardswish": (
        F.hardswish,
        lambda x: torch.where(x > 3, 1.0, torch.where(x < -3, 0.0, (2 * x + 3) / 6)),
        [
            lambda x: x * F.relu6(x + 3) / 6,
            lambda x: x * (F.relu6(x + 3) / 6),
            lambda x: x * F.relu6(x + 3, inplace=True) / 6,
            lambda x: x * nn.ReLU6(inplace=True)(x + 3) / 6,
            lambda x: x * (x + 3).clamp(0, 6) / 6,
            lambda x: x * (x + 3).clamp_(0, 6).div_(6),
            lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
        ],
    ),
    "hardswish by its gate": (  # whose slope torch has in single precision
        None,
        lambda x: slope_of(lambda z: z * F.hardsigmoid(z), x),
        [lambda x: x * F.hardsigmoid(x), lambda x: F.hardsigmoid(x).mul_(x), written_over],
    ),
    "gelu": (
        F.gelu,
        lambda x: 0.5 * (1 + (x / 2**0.5).erf()) + x * (-x * x / 2).exp() / (2 * np.pi) ** 0.5,
        [
            lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
            lambda x: 0.5 * x * (1.0 + torch.erf(x / 2**0.5)),
            lambda x: x * (1 + torch.special.erf(x * 0.5**0.5)) / 2,
            lambda x: x * (0.5 * (torch.erf(x.div(2**0.5)) + 1)),
        ],
    ),
    "gelu, tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: slope_of(lambda z: F.gelu(z, approximate="tanh"), x),
        [
            lambda x: 0.5 * x * (1 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3)))),
            lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x))),
        ],
    ),
    "relu": (
        F.relu,
        lambda x: (x > 0).double(),
        [
            lambda x: x * (x > 0),
            lambda x: (x > 0) * x,
            lambda x: x * (x > 0).double(),
            lambda x: x * (x > 0).to(x.dtype),
            lambda x: x * torch.gt(x, 0).type_as(x),
            lambda x: x * ~(x <= 0),
            lambda x: x.clamp(min=0),
            lambda x: (x + x.abs()) / 2,
            lambda x: 0.5 * (torch.abs(x) + x),
            lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
            lambda x: torch.where(x > 0, x, 0.0),
            lambda x: torch.where(x < 0, 0.0, x),
            lambda x: x.where(x > 0, 0.0),
            lambda x: x.masked_fill(x < 0, 0),
            lambda x: torch.max(x, 0 * x),
            lambda x: x * (1 + torch.sign(x)) / 2,
            in_place(lambda z: z.mul_(z > 0)),
        ],
    ),
    "leaky relu": (
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: torch.where(x > 0, 1.0, torch.full_like(x, 0.1)),
        [
            lambda x: torch.maximum(x, 0.1 * x),
            lambda x: torch.max(0.1 * x, x),
            lambda x: x.max(x / 10),
            lambda x: torch.maximum(x * 1, other=x * 0.1),
            lambda x: torch.where(x > 0, x, 0.1 * x),
            lambda x: torch.where(x < 0, x * 0.1, x),
            lambda x: x * torch.where(x > 0, 1.0, torch.full_like(x, 0.1)),
            lambda x: 0.55 * x + 0.45 * x.abs(),
        ],
    ),
    "prelu": (
        lambda x: F.prelu(x, SLOPE.flatten()),
        lambda x: torch.where(x > 0, 1.0, SLOPE),
        [
            lambda x: torch.maximum(x, SLOPE * x),
            lambda x: torch.where(x > 0, x, SLOPE * x),
        ],
    ),
    "elu": (
        F.elu,
        lambda x: torch.where(x > 0, 1.0, x.exp()),
        [
            lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
            lambda x: torch.where(x > 0, x, x.expm1()),
        ],
    ),
    "softplus": (
        F.softplus,
        lambda x: 1 / (1 + (-x).exp()),
        [lambda x: torch.log(1 + torch.exp(x)), lambda x: x.exp().log1p()],
    ),
    "squared relu": (
        None,
        lambda x: 2 * x.clamp(min=0),
        [lambda x: x * F.relu(x), lambda x: F.relu(x) ** 2, lambda x: x.relu().square(), lambda x: F.relu(x).pow(2)],
    ),
}


@EVERY_RULE
@pytest.mark.parametrize(
    "name, form",
    [
        pytest.param(name, form, id=f"{name}-{n}")
        for name, (_, _, forms) in SPELLINGS.items()
        for n, form in enumerate(forms)
    ],
)
def test_a_rectifier_by_any_spelling(name: str, form: Form, rule: str) -> None:
    function, slope, _ = SPELLINGS[name]
    x, signal = 3 * normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    # between two other operations, neither the beginning nor the end of anything
    network = Calls(lambda image: 1 * form(image * 1))
    image = x.clone().requires_grad_()
    with BackwardRule(network, rule, strict=True):
        output = network(image)
    assert torch.equal(output, network(x)), "the values are the network's own"
    (found,) = torch.autograd.grad(output, image, signal)
    literal = {
        "deconvnet": signal.clamp(min=0),
        "guided": slope(x) * signal.clamp(min=0),
        "gradient": slope(x) * signal,
    }[rule]
    torch.testing.assert_close(found, literal, rtol=1e-9, atol=1e-11)
    if function is not None:
        torch.testing.assert_close(network(x), 1 * function(x * 1), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found, passed_back(Calls(function), x, rule, signal), rtol=1e-9, atol=1e-11)


class Inside(torch.autograd.Function):
    """A function of one operand that autograd does not look into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x)
        ctx.form = form
        return form(x)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return slope_of(ctx.form, *ctx.saved_tensors) * signals[0], None


def inside(form: Form) -> Form:
    return lambda x: Inside.apply(x, form)


def twice(x: Tensor) -> Tensor:
    return 2 * x


@EVERY_RULE
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_rectifier_inside_a_custom_function(name: str, rule: str) -> None:
    function, _, forms = SPELLINGS[name]
    x, signal = 3 * normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    for form in forms if function is None else [function, *forms]:
        expected, found = (
            passed_back(nn.Sequential(*(Calls(one) for one in (twice, middle, twice))), x, rule, signal)
            for middle in (form, inside(form))
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_custom_function_has_the_rule_of_rectifiers() -> None:
    """As the memory-efficient Swish of several EfficientNets, in a network whose rules differ between layers."""
    own, plain = (seeded(Spelled, form).double() for form in (inside(lambda x: x * x.sigmoid()), F.silu))
    image = normal(2, 3, 9, 10)
    for rule in (
        Composite(by_operation={"rectifier": "guided"}),
        Composite(by_operation={"rectifier": "deconvnet"}, otherwise="guided"),
    ):
        expected = passed_back(plain, image, rule)
        torch.testing.assert_close(passed_back(own, image, rule), expected, rtol=1e-8, atol=1e-10)


class Spelled(nn.Module):
    """A small residual network with squeeze-and-excitation, whose activation is written in one way or another."""

    def __init__(self, activation: Form) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.three = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.one(x)))
        y = self.activation(self.two(x))
        y = x + y * self.squeeze(self.activation(y.mean((2, 3), keepdim=True))).sigmoid()
        return self.three(y + self.activation(y))


@pytest.mark.parametrize("name", [name for name, (function, _, _) in SPELLINGS.items() if function and name != "prelu"])
def test_networks_that_spell_their_activation_out_are_the_same_network(name: str) -> None:
    function, _, forms = SPELLINGS[name]
    image = normal(2, 3, 9, 10)
    plain = seeded(Spelled, function).double()
    for form in forms:
        spelled = seeded(Spelled, form).double()
        for rule in RULES:
            expected = passed_back(plain, image, rule)
            found = passed_back(spelled, image, rule, plain(image).detach())
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
            assert expected.abs().max() > 0


GATES_OF_OTHERS: dict[str, tuple[Form, Form]] = {  # and the gate as a number
    "pooled": (
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().detach(),
    ),
    "of the neighbour": (lambda x: x * x.roll(1, 2).sigmoid(), lambda x: x * x.roll(1, 2).sigmoid().detach()),
    "of another channel": (
        lambda x: x[:, :2] * x[:, 2:].sigmoid(), lambda x: x[:, :2] * x[:, 2:].sigmoid().detach(),
    ),
    "of what it was before": (lambda x: (x + 1) * x.sigmoid(), lambda x: (x + 1) * x.sigmoid().detach()),
    "of what was written over": (
        lambda x: (z := x * 1).sigmoid() * z.add_(1), lambda x: (x + 1) * x.sigmoid().detach(),
    ),
    "of a view that was written over": (
        lambda x: ((z := x * 1).sigmoid(), z[:, :2].mul_(2), z)[0] * z,
        lambda x: x.sigmoid().detach() * torch.cat([2 * x[:, :2], x[:, 2:]], 1),
    ),
    "held by the network itself": (lambda x: x * x.detach().sigmoid(), lambda x: x * x.sigmoid().detach()),
    "odd": (lambda x: x * x.tanh(), lambda x: x * x.tanh().detach()),
}  # fmt: skip


@pytest.mark.parametrize("name", GATES_OF_OTHERS)
def test_a_gate_of_another_tensor_stays_a_gate(name: str) -> None:
    network, literal = GATES_OF_OTHERS[name]
    x, signal = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    signal = signal[:, : network(x).shape[1]]
    for rule in ("deconvnet", "guided"):
        torch.testing.assert_close(
            passed_back(network, x, rule, signal), gradient_of(literal, x, signal), rtol=1e-13, atol=1e-14
        )


def test_a_sum_with_a_rectifier_stays_a_sum() -> None:
    x, signal = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    for network in (lambda x: x + F.relu(x), lambda x: x + x * x.sigmoid(), lambda x: x + torch.maximum(x, 0.1 * x)):
        assert torch.equal(passed_back(network, x, "deconvnet", signal), signal + signal.clamp(min=0))


class Shapely(nn.Module):
    """Whatever is linear once the switches are set."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.average = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.drop = nn.Dropout2d(0.5)
        self.mix = nn.Conv2d(16, 8, 1)
        self.shuffle = nn.PixelShuffle(2)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 5))
        self.bilinear = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem((image - 0.5) / 0.25))
        x = x + self.depthwise(x)
        pooled, mean = self.pool(x), self.average(x)
        y = self.drop(self.mix(torch.cat([pooled, mean], dim=1)))
        y += pooled
        y = F.pad(self.up(y), (0, 1, 0, 1)) - 2 * F.interpolate(y, x.shape[2:], mode="bicubic")
        y = F.channel_shuffle(y, 2) + F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1]
        y[:, 0] = y[:, 3]
        y[:, torch.tensor([1, 2])] = y[:, torch.tensor([5, 1])]
        one, two = y.permute(0, 2, 3, 1).contiguous().movedim(-1, 1).chunk(2, dim=1)
        y = torch.stack([one, torch.roll(two, 1, dims=2)], 2).flatten(1, 2).to(memory_format=torch.channels_last)
        y = F.pixel_unshuffle(self.shuffle(y), 2) + F.adaptive_avg_pool2d(y, 1) + y.mean((2, 3), keepdim=True)
        y = self.bilinear(F.avg_pool2d(y, 2)) / 3 + F.unfold(y, 1).unflatten(2, y.shape[2:]).narrow(2, 0, 6).narrow(
            3, 0, 6
        )
        scores = self.head(y[:, [7, 6, 5, 4, 3, 2, 1, 0]].index_select(1, torch.arange(4).repeat(2)).narrow(1, 0, 2))
        most = (
            y.amax((2, 3))[:, :5] + y.flatten(2).max(dim=2).values[:, 3:] + torch.maximum(y, -y).sum((1, 2, 3))[:, None]
        )
        return torch.einsum("bi,ij->bj", scores, torch.eye(5, dtype=y.dtype)) + most @ torch.eye(5, dtype=y.dtype)


@EVERY_RULE
@pytest.mark.parametrize("training", [False, True])
def test_without_a_rectifier_every_rule_is_the_gradient(rule: str, training: bool) -> None:
    network = seeded(Shapely).double()
    if training:
        for layer in network.modules():
            if isinstance(layer, (nn.Dropout, nn.Dropout2d)):
                layer.train()
    image = normal(2, 3, 13, 14)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = passed_back(network, image, rule, torch.ones(2, 5, dtype=image.dtype))
        torch.manual_seed(0)
        assert torch.equal(found, gradient_of(network, image, torch.ones(2, 5, dtype=image.dtype)))
    assert found.abs().max() > 0


# 5. As found, so left


def traces(network: nn.Module) -> list[Any]:
    return [
        (dict(layer._forward_hooks), dict(layer._forward_pre_hooks), dict(layer._backward_hooks), layer.training)
        for layer in network.modules()
    ] + [parameter.requires_grad for parameter in network.parameters()]


@pytest.mark.parametrize(
    "name, side", [("resnet18", 64), ("googlenet", 64), ("convnext_tiny", 48), ("mobilenet_v3_small", 48)]
)
def test_gradient_is_autograds(name: str, side: int) -> None:
    network = torchvision_model(name)
    before = traces(network)
    image = normal(2, 3, side, side, dtype=torch.float32)
    assert torch.equal(passed_back(network, image, "gradient"), gradient_of(network, image))
    assert traces(network) == before


def test_nothing_is_left_behind() -> None:
    network = torchvision_model("squeezenet1_1").train()
    network.classifier[1].bias.requires_grad_(False)
    before = traces(network)
    image = normal(1, 3, 64, 64, dtype=torch.float32)
    rule = BackwardRule(network, "guided")
    for _ in range(2):  # used twice
        with rule:
            network(image.requires_grad_())
        assert traces(network) == before
    with pytest.raises(ZeroDivisionError), BackwardRule(network):
        network(image)
        _ = 1 / 0
    assert traces(network) == before
    with pytest.raises(RuntimeError), BackwardRule(network):
        network(normal(1, 5, 64, 64).requires_grad_())
    assert traces(network) == before
    with pytest.raises(InterpretError), BackwardRule(network, strict=True):
        network(image).erf()
    assert traces(network) == before
    with pytest.raises(UncoveredOperation), BackwardRule(network):  # warnings are errors here
        network(image).erf()
    assert traces(network) == before


def test_a_rule_used_again_forgets_what_it_found() -> None:
    image = normal(1, 3).requires_grad_()
    rule = BackwardRule(nn.Identity())
    with pytest.warns(UncoveredOperation), rule:
        image.erf()
    with rule:
        image.relu()
    assert not rule.uncovered


def test_stopping_early_inside_and_outside_of_the_block() -> None:
    network = nn.Sequential(
        nn.Linear(3, 3), Calls(torch.erf), nn.Sequential(nn.Linear(3, 3), Calls(torch.abs)), nn.ReLU()
    )
    image = normal(1, 3, dtype=torch.float32)
    received: list[Tensor] = []

    def receive(name: str, output: Tensor) -> None:
        received.append(output)

    with pytest.warns(UncoveredOperation) as caught, BackwardRule(network) as rule:
        with first_outputs(network, ["2.0"], receive, stop=True):
            network(image.requires_grad_())
        image.sqrt()
    assert caught[0].message.operations == [("erf", "1"), ("sqrt", "")]  # type: ignore[union-attr]
    with pytest.warns(UncoveredOperation) as caught, first_outputs(network, ["2.0"], receive, stop=True), rule:
        network(image)
    assert caught[0].message.operations == [("erf", "1")]  # type: ignore[union-attr]
    assert len(received) == 2 and torch.equal(*received)
    with pytest.raises(StopForward), pytest.warns(UncoveredOperation), rule:
        image.sqrt()
        raise StopForward


def test_nested_and_shared_modules_and_repeated_passes() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout())
    network = seeded(
        lambda: nn.Sequential(inner, nn.ModuleDict({"a": inner})["a"], nn.Sequential(inner, nn.ReLU()))
    ).double()
    image = normal(2, 4)
    flat = nn.Sequential(*[nn.Sequential(inner[0], nn.ReLU()) for _ in range(3)], nn.ReLU())
    for rule in RULES:
        leaf = image.clone().requires_grad_()
        with BackwardRule(network, rule, strict=True):
            outputs = [network(leaf), network(leaf)]
            early = torch.autograd.grad(network(leaf).sum(), leaf)[0]  # inside of the block
            network(leaf).sum().backward(inputs=[leaf])
        expected = passed_back(flat, image, rule, torch.ones_like(image))
        for found in (*(torch.autograd.grad(output.sum(), leaf)[0] for output in outputs), early, leaf.grad):
            assert torch.equal(found, expected)


def test_parameters_are_constants_inside_the_block_only() -> None:
    network = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    image = normal(1, 3, dtype=torch.float32).requires_grad_()
    with BackwardRule(network, strict=True):
        output = network(image)
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.autograd.grad(output.sum(), image)


def test_other_threads_are_not_concerned() -> None:
    network = torchvision_model("squeezenet1_1")
    image = normal(1, 3, 48, 48, dtype=torch.float32)
    expected = {rule: passed_back(network, image, rule) for rule in RULES}
    found: dict[str, Tensor] = {}

    def run(target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    def rectified() -> None:  # in a fresh thread, whose autograd counts from zero
        leaf = image.clone().requires_grad_()
        with BackwardRule(network, "deconvnet", strict=True):
            run(lambda: found.update(gradient=gradient_of(network, image)))
            output = network(leaf)
        found["deconvnet"] = torch.autograd.grad(output, leaf, output.detach())[0]

    run(rectified)
    assert torch.equal(found["gradient"], expected["gradient"])
    assert torch.equal(found["deconvnet"], expected["deconvnet"])


def test_frozen_restores_after_an_exception() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout()))
    network[0].bias.requires_grad_(False)
    before = traces(network)
    with pytest.raises(ZeroDivisionError), frozen(network):
        assert not any(layer.training for layer in network.modules())
        _ = 1 / 0
    assert traces(network) == before


# 6. What is not covered


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return 3 * ctx.saved_tensors[0] ** 2 * signals[0]


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return -signals[0]


class Larger(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x > y)
        return torch.maximum(x, y)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (first,) = ctx.saved_tensors
        return signals[0] * first, signals[0] * ~first


class WithMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x > 0)
        return x * (x > 0), x * (x < 0)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return signals[0] * mask + signals[1] * ~mask


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x > 0)
        return x.mul_(x > 0)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return signals[0] * ctx.saved_tensors[0]


UNCOVERED: dict[str, tuple[Callable[[Tensor], Any], list[str]]] = {
    "torch.erf": (torch.erf, ["erf"]),
    "method": (lambda x: x.erf(), ["erf"]),
    "in place": (lambda x: (x * 1).erf_(), ["erf"]),
    "abs": (abs, ["abs"]),
    "x * x": (lambda x: x * x, ["mul"]),
    "two signals": (lambda x: (x + 1) * (x - 1), ["mul"]),
    "two gates": (lambda x: x.sigmoid() * (x + 1).sigmoid(), ["mul"]),
    "two broadcast over each other": (lambda x: x[:, :, :1] * x[:, :, :, :1], ["mul"]),
    "1 / x": (lambda x: 1 / x, ["rdiv"]),
    "constant / x": (lambda x: torch.ones_like(x) / x, ["div"]),
    "rounded quotient": (lambda x: torch.div(x, 2, rounding_mode="floor"), ["div"]),
    "floor division": (lambda x: x // 2, ["floordiv"]),
    "pow": (lambda x: x**2, ["pow"]),
    "2 ** x": (lambda x: 2**x, ["rpow"]),
    "exp": (torch.exp, ["exp"]),
    "norm": (lambda x: x.norm(dim=1), ["norm"]),
    "std": (lambda x: x.std(), ["std"]),
    "a mask that counts": (lambda x: x * (x > 0).double().mean(), ["gt"]),
    "compared the other way": (lambda x: x * (x < 0), ["lt"]),
    "mirrored": (lambda x: torch.where(x > 0, 0.1 * x, x), ["gt", "where"]),
    "a cube": (lambda x: x * x.square(), ["square", "mul"]),
    "a part of a rectifier that goes elsewhere, too": (
        lambda x: torch.cat([x * (1 + (gate := torch.erf(x))), gate], 1),
        ["erf"],
    ),
    "written where": (lambda x: (z := x * 1).__setitem__(z < 0, 0), ["lt"]),
    "cast": (lambda x: x * (x * 1).to(torch.int64), ["to"]),
    "cast by type": (lambda x: (x * 1).type(torch.bool), ["type"]),
    "sort": (lambda x: x.sort().values, ["sort"]),
    "topk": (lambda x: x.topk(2, sorted=False).values, ["topk"]),
    "minimum": (lambda x: torch.minimum(x, torch.zeros_like(x)), ["minimum"]),
    "maximum with a negative": (lambda x: torch.maximum(x, torch.full_like(x, -1)), ["maximum"]),
    "bound that is a signal": (lambda x: torch.clamp(torch.zeros_like(x), min=x), ["clamp"]),
    "slopes that are signals": (lambda x: F.prelu(x, x.mean((0, 2, 3))), ["prelu"]),
    "conv of two": (lambda x: F.conv2d(x, x), ["conv2d"]),
    "matmul of two": (lambda x: x @ x.mT, ["matmul"]),
    "queries and keys": (lambda x: x @ x.transpose(2, 3), ["matmul"]),
    "einsum of two": (lambda x: torch.einsum("bchw,bcij->bhi", x, x), ["einsum"]),
    "another signature": (lambda x: torch.layer_norm(x, (3,)), ["layer_norm"]),
    "hardshrink": (F.hardshrink, ["hardshrink"]),
    "glu": (lambda x: F.glu(x, 1), ["glu"]),
    "custom": (lambda x: Cube.apply(x), ["Cube"]),
    "custom, then linear": (lambda x: Cube.apply(x) + 1, ["Cube"]),
    "two custom": (lambda x: Cube.apply(Reverse.apply(x)).flatten(), ["Cube", "Reverse"]),
    "custom view": (lambda x: Reverse.apply(x).mean(), ["Reverse"]),
    "custom view of a view": (lambda x: Reverse.apply(x[:, 1:]).mT, ["Reverse"]),
    "custom of two operands": (lambda x: Larger.apply(x, -x), ["Larger"]),
    "custom with two results": (lambda x: WithMask.apply(x)[0], ["WithMask"]),
    "custom times what it holds constant": (lambda x: inside(lambda z: z * normal(1, 4, 3, 3))(x), ["Inside"]),
    "custom in place": (lambda x: InPlace.apply(x * 1), ["InPlace"]),
    "custom in a tuple": (lambda x: (x, {"a": Cube.apply(x)}), ["Cube"]),
    "fractional": (lambda x: F.fractional_max_pool2d(x, 2, output_size=1), ["fractional_max_pool2d"]),
}


@pytest.mark.parametrize("case", UNCOVERED)
def test_uncovered_operations_are_named(case: str) -> None:
    function, operations = UNCOVERED[case]
    network = nn.Sequential(nn.Identity(), nn.Sequential(Calls(function)))
    image = normal(1, 4, 3, 3).requires_grad_()
    before = traces(network)
    for rule in ("deconvnet", "guided"):
        with pytest.warns(UncoveredOperation) as caught, BackwardRule(network, rule):
            network(image)
            network(image)
        assert len(caught) == 1  # one warning an exit, each operation once
        message: Any = caught[0].message
        assert message.operations == [(operation, "1.0") for operation in operations]
        assert f"the {rule} rule" in str(message) and all(
            f"'{operation}' in 1.0" in str(message) for operation in operations
        )
        with pytest.raises(InterpretError, match=f"'{operations[0]}' in 1.0"), BackwardRule(network, rule, strict=True):
            network(image)
        assert traces(network) == before
    with BackwardRule(network, "gradient", strict=True):  # the gradient needs no reading of anything
        network(image)


def written_mask(x: Tensor) -> Tensor:
    mask = torch.zeros_like(x)
    mask[x > 0.5] = 1
    return x * mask


DECIDING: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "chosen by a mask": (lambda x: x[x > 0.5], ["gt"]),
    "chosen by an order": (lambda x: x.flatten()[x.flatten().argsort()[2:]], ["argsort"]),
    "times a cast mask, shifted": (lambda x: x * (x.roll(1, 0) > 0.5).to(x.dtype), ["gt"]),
    "times a mask that is cast without gradients": (lambda x: x * cast_without_gradients(x > 0.5), ["gt"]),
    "written into": (written_mask, ["gt"]),
    "a number": (lambda x: 2 * x if bool((x > 0.5).any()) else x, ["gt"]),
    "chosen by boxes": (lambda x: x[nms_of(x)], ["nms"]),
}
"""What comparisons and orders decide about the signal itself."""


def cast_without_gradients(mask: Tensor) -> Tensor:
    with torch.no_grad():
        return mask.double()


def nms_of(x: Tensor) -> Tensor:
    corners = x.flatten(1)[:, :2]
    return torch.ops.torchvision.nms(torch.cat([corners, corners + 1], 1), x.flatten(1)[:, 2], 0.5)


@pytest.mark.parametrize("case", DECIDING)
def test_what_decides_about_a_signal_is_named_and_what_decides_about_others_is_not(case: str) -> None:
    function, operations = DECIDING[case]
    image = normal(4, 1, 3, 3).requires_grad_()
    for decides in (True, False):
        rule = BackwardRule(nn.Identity(), strict=True)
        refused = decides or case == "a number"  # of a number that the network reads, nobody knows what it decides
        refusal = pytest.raises(InterpretError, match=f"not cover '{operations[0]}'") if refused else nullcontext()
        with refusal, rule:
            found, aside = image * 2, function(image * 3)
            rule.signals_from([aside if decides else found])
        assert {operation for operation, _ in rule.uncovered_on_path()} == (set(operations) if refused else set())


def test_the_plain_gradient_stands_in() -> None:
    image, signal = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    leaf = image.clone().requires_grad_()
    network = Calls(lambda x: torch.relu(x.erf()))
    with pytest.warns(UncoveredOperation), BackwardRule(network):
        output = network(leaf)
    (found,) = torch.autograd.grad(output, leaf, signal)
    assert torch.equal(found, gradient_of(torch.erf, image, signal.clamp(min=0)))


def test_a_program_can_tell_what_was_not_covered() -> None:
    network = nn.Sequential(Calls(torch.erf), nn.Sequential(Calls(torch.abs), Calls(torch.erf), Calls(torch.erf)))
    try:
        with BackwardRule(network, "guided"):
            network(normal(1, 2).requires_grad_()).pow(2)
    except UncoveredOperation as found:
        assert found.operations == [("erf", "0"), ("abs", "1.0"), ("erf", "1.1"), ("erf", "1.2"), ("pow", "")]
        assert str(found) == (
            "the guided rule does not cover 'erf' in 0, 'abs' in 1.0, 'erf' in 1.1, 'erf' in 1.2, "
            "'pow' in the network itself: the plain gradient stands in for it there; "
            "interpret.register_operation tells what it does"
        )
    else:
        pytest.fail("no warning")


def test_the_end_of_a_network_that_is_no_layer_is_checked_by_hand() -> None:
    image = normal(1, 3).requires_grad_()
    with pytest.warns(UncoveredOperation, match="'Cube' in the network itself"), BackwardRule(nn.Identity()) as rule:
        rule.check(Cube.apply(image))
    earlier = Cube.apply(image)
    with BackwardRule(nn.Identity(), strict=True) as rule:  # what came before the block is none of its business
        rule.check(earlier)
        rule.check((earlier * 2)[0])


def test_a_custom_function_between_layers_is_named_by_the_layer_that_called_it() -> None:
    class Between(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](Cube.apply(self[0](x)))

    network = nn.Sequential(Between(nn.Identity(), nn.Sequential(nn.Linear(3, 3))))
    with pytest.warns(UncoveredOperation) as caught, BackwardRule(network):
        network(normal(1, 3, dtype=torch.float32).requires_grad_())
    assert caught[0].message.operations == [("Cube", "0")]  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_functions_do_not_slip_through() -> None:
    swish = torch.jit.CompilationUnit("def swish(x):\n    return x * torch.sigmoid(x) + torch.relu(x)\n").swish
    network = nn.Sequential(nn.Linear(3, 3), Calls(swish))
    with pytest.raises(InterpretError, match="in 1"), BackwardRule(network, strict=True):
        network(normal(1, 3, dtype=torch.float32).requires_grad_())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_modules_are_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()).eval()
    compiled_in_place = copy.deepcopy(plain)
    compiled_in_place.compile(backend="eager")
    image = normal(1, 3, 8, 8, dtype=torch.float32)
    for hidden in (
        torch.jit.script(plain),
        torch.jit.trace(plain, image),
        torch.compile(plain, backend="eager"),
        nn.DataParallel(plain),
        compiled_in_place,
    ):
        for network, name in ((hidden, "the network"), (nn.Sequential(nn.Identity(), hidden), "1")):
            before = traces(plain)
            with pytest.raises(InterpretError) as refusal, BackwardRule(network):
                pass
            assert str(refusal.value).startswith(f"{name} is a ") and str(refusal.value).count(".") == 0
            assert traces(plain) == before


@pytest.mark.parametrize("wrong", [{"rule": "deconv"}, {"overlap": "sum"}])
def test_unknown_choices(wrong: dict[str, str]) -> None:
    with pytest.raises(
        InterpretError, match=f"{next(iter(wrong))} must be one of .*, not '{next(iter(wrong.values()))}'"
    ):
        BackwardRule(nn.ReLU(), **wrong)  # type: ignore[arg-type]


ATTENTION = ("vit_", "swin_", "maxvit")
CLASSIFIERS = [
    name for name in torchvision.models.list_models(module=torchvision.models) if not name.startswith(ATTENTION)
]


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build modules without values, so that they cost little to build and to run."""
    original = BlockParams.from_init_params.__func__  # type: ignore[attr-defined]

    def on_cpu(*arguments: Any, **named: Any) -> Any:  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))
        for initialise in ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_"):
            patch.setattr(nn.init, initialise, lambda tensor, *_, **__: tensor)
        yield


def torchvision_shapes(name: str, side: int) -> tuple[nn.Module, Tensor]:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with shapes_only():
        network = torchvision.models.get_model(name, weights=None, **extra).eval()
        return network, torch.empty(1, 3, side, side, requires_grad=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_torchvision_classifier_is_covered(name: str) -> None:
    network, image = torchvision_shapes(name, 80 if name == "inception_v3" else 64)
    with BackwardRule(network, "deconvnet", strict=True):
        network(image)


def test_of_attention_only_queries_and_keys_are_named_and_not_on_the_way_of_a_signal() -> None:
    network, image = torchvision_shapes("maxvit_t", 224)
    with pytest.warns(UncoveredOperation) as caught, BackwardRule(network):
        network(image)
    found: Any = caught[0].message
    assert {operation for operation, _ in found.operations} == {"einsum"}  # queries by keys
    assert all(layer.split(".")[-2:-1] == ["attn_layer"] for _, layer in found.operations)
    with BackwardRule(network, strict=True) as rule:
        rule.signals_from([network(image)])


@pytest.mark.parametrize(
    "name, uncovered",
    [
        ("resnet18", {}),
        ("legacy_seresnet18", {}),  # squeeze-and-excitation
        ("ecaresnet26t", {}),  # a gate that is expanded to the size of what it weighs
        ("skresnet18", {}),  # a softmax that weighs two branches
        ("resnetv2_50x1_bit", {}),  # group norms and standardised weights
        ("convnextv2_atto", {}),  # the norm over positions is a gate
        ("starnet_s1", {}),  # a product of two signals, of which one comes out of a rectifier
        ("mobilevitv2_050", {}),  # attention of one query
        ("levit_128s", {}),  # attention with positional biases
        ("edgenext_xx_small", {}),  # attention between channels, of normalised queries and keys
        ("efficientvit_b0", {}),  # attention without a softmax
        ("focalnet_tiny_srf", {"mul": "modulation"}),  # a product of two signals, of which neither is a gate
    ],
)
def test_timm_models(name: str, uncovered: dict[str, str]) -> None:
    with shapes_only():
        network = timm.create_model(name).eval()
        side = 224 if name.startswith("levit") else 64
        image = torch.empty(1, 3, side, side, requires_grad=True)
    rule = BackwardRule(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncoveredOperation)
        with rule:
            rule.signals_from([network(image)])
    named = rule.uncovered_on_path()
    assert {operation for operation, _ in named} == set(uncovered)
    assert all(layer.endswith(uncovered[operation]) for operation, layer in named)


# 7. What holds whatever the network


class Rectified(nn.Module):
    """A small network of convolutions, rectifiers, pools, sums and concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.one(x).relu_(), 3, 2, ceil_mode=True)
        y = x + F.relu(self.two(x))
        return self.three(torch.cat([x, y], 1)).clamp(min=0)


@given(seed=st.integers(0, 10**6), factor=st.floats(0, 1000))
@settings(max_examples=25, deadline=None)
@BOTH_OVERLAPS
def test_the_deconvnet_is_positively_homogeneous(overlap: str, seed: int, factor: float) -> None:
    network = seeded(Rectified, seed=seed).double()
    image, start = normal(1, 2, 9, 8, seed=seed), normal(1, 3, 2, 2, seed=seed + 1)
    once = passed_back(network, image, "deconvnet", start, overlap=overlap)
    torch.testing.assert_close(
        passed_back(network, image, "deconvnet", factor * start, overlap=overlap), factor * once, rtol=1e-11, atol=1e-11
    )
    # and not homogeneous: a negative signal is not the mirror of a positive one
    both = once + passed_back(network, image, "deconvnet", -start, overlap=overlap)
    assert not both.any() or both.abs().max() > 1e-9


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_deconvnet_knows_of_the_forward_pass_by_its_switches_alone(seed: int) -> None:
    network = seeded(Rectified, seed=seed).double()
    start = normal(1, 3, 2, 2, seed=seed + 1).abs()
    image = normal(1, 2, 9, 8, seed=seed)
    # without biases, a brighter image has other activations and the same switches
    for layer in (network.one, network.two, network.three):
        nn.init.zeros_(layer.bias)
    brighter = 3.7 * image
    assert not torch.allclose(network(image), network(brighter)) or not network(image).any()
    assert torch.equal(
        passed_back(network, image, "deconvnet", start), passed_back(network, brighter, "deconvnet", start)
    )
    # without pools, any two images pass any signal back alike
    network = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.SiLU())).double()
    start = normal(1, 2, 5, 4, seed=seed)
    other = normal(1, 2, 9, 8, seed=seed + 2)
    assert torch.equal(passed_back(network, image, "deconvnet", start), passed_back(network, other, "deconvnet", start))
    assert not torch.equal(passed_back(network, image, "guided", start), passed_back(network, other, "guided", start))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_guided_support_lies_within_the_gradients(seed: int) -> None:
    network = seeded(Rectified, seed=seed).double()
    image = normal(1, 2, 9, 8, seed=seed)
    output = network(image)
    start = torch.zeros_like(output)
    start.view(-1)[seed % start.numel()] = 1.0
    # the support of the gradient through absolute weights: signals cannot cancel there
    positive = copy.deepcopy(network)
    guided = passed_back(network, image, "guided", start)
    recorded = hidden_outputs_signs(network, image)
    with torch.no_grad():
        for layer in (positive.one, positive.two, positive.three):
            layer.weight.abs_()
    reach = reachable(positive, recorded, start)
    assert not guided[reach == 0].any()
    # of a neuron that is not active, nothing comes down
    if not output.view(-1)[seed % start.numel()] > 0:
        assert not guided.any()


def hidden_outputs_signs(network: Rectified, image: Tensor) -> dict[str, Tensor]:
    one = network.one(image).relu()
    pooled, switches = F.max_pool2d(one, 3, 2, ceil_mode=True, return_indices=True)
    two = network.two(pooled)
    three = network.three(torch.cat([pooled, pooled + two.relu()], 1))
    return {"one": one > 0, "switches": switches, "two": two > 0, "three": three > 0}


def reachable(network: Rectified, recorded: dict[str, Tensor], start: Tensor) -> Tensor:
    """How much of the signal's size could arrive where, with nothing cancelled: zero where the gradient must be."""
    with torch.no_grad():
        signal = F.conv_transpose2d(start.abs() * recorded["three"], network.three.weight)
        left, right = signal.split(4, dim=1)
        below = left + right + F.conv_transpose2d(right * recorded["two"], network.two.weight, padding=1)
        below = unpool(below, recorded["switches"], recorded["one"].shape, "add") * recorded["one"]
        return F.conv_transpose2d(below, network.one.weight, padding=1)


# Tensors of other kinds


@EVERY_RULE
@BOTH_OVERLAPS
def test_channels_last_is_only_a_layout(rule: str, overlap: str) -> None:
    network = torchvision_model("squeezenet1_1").double().features
    image = normal(2, 3, 67, 67)
    found = passed_back(network, image, rule, overlap=overlap)
    network = network.to(memory_format=torch.channels_last)
    last = passed_back(network, image.to(memory_format=torch.channels_last), rule, overlap=overlap)
    torch.testing.assert_close(last, found, rtol=1e-10, atol=1e-12 * float(found.abs().max()))


@EVERY_RULE
@BOTH_OVERLAPS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_stay_so(rule: str, overlap: str, dtype: torch.dtype) -> None:
    network = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.ReLU(True),
            nn.MaxPool2d(3, 2),
            nn.SiLU(True),
        )
    )
    image = normal(1, 3, 10, 10, dtype=torch.float32)
    wide = passed_back(network, image, rule, overlap=overlap)
    found = passed_back(network.to(dtype), image.to(dtype), rule, overlap=overlap)
    assert found.dtype == dtype
    assert F.cosine_similarity(found.float().flatten(), wide.flatten(), dim=0) > 0.98


def test_what_is_detached_is_a_constant() -> None:
    def network(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = torch.relu(x).erf()
        return x * weight + x.detach().exp()

    image, signal = normal(1, 3), normal(1, 3, seed=1)
    for rule in RULES:
        assert torch.equal(passed_back(network, image, rule, signal), signal * image.relu().erf())
    with torch.no_grad(), BackwardRule(nn.ReLU(), strict=True) as rule_:
        assert not rule_.module(image.clone().requires_grad_()).erf().requires_grad


def test_hooks_of_others_do_not_disturb() -> None:
    network = seeded(lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())).double()
    image = normal(1, 2, 8, 8)
    expected = passed_back(network, image, "deconvnet")
    seen: list[Any] = []
    handles = [
        network[2].register_full_backward_hook(lambda *_: seen.append(1)),
        network[2].register_forward_hook(lambda *_: seen.append(2)),
    ]
    assert torch.equal(passed_back(network, image, "deconvnet"), expected)
    for handle in handles:
        handle.remove()
    assert sorted(seen) == [1, 2]
