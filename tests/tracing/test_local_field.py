"""Local fields against the literal definition: the pixels on which the gradient with constant gates is not zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from html import escape
from runpy import run_path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from helpers.fields import CONVOLVED, Calls, check_behind_gates, places, sees
from helpers.scripts import ROOT
from interpret import project, trace
from interpret.backprop.rules import BackwardRule, Rule
from interpret.network.layers import first_outputs
from interpret.tracing.receptive_field import ReceptiveField
from interpret.tracing.summary import summarise

# ---- single operations -----------------------------------------------------------------------------------------------


def gate(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).sigmoid()


def in_place(x: Tensor) -> Tensor:
    x *= gate(x)
    return F.relu_(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * gate(x),
        lambda x: gate(x) * x,
        in_place,
        lambda x: x.relu().mul(gate(x)).relu(),
        lambda x: x + x * gate(x),
        lambda x: x * F.hardsigmoid(F.adaptive_avg_pool2d(x, 1)),
        lambda x: x * x.mean((2, 3), keepdim=True),  # broadcast, though nothing squashed it
        lambda x: x / x.norm(dim=(2, 3), keepdim=True),
        lambda x: x * x.amax(1, keepdim=True).flatten(2).softmax(-1).view(1, 1, 12, 16),  # spatial attention
        lambda x: (torch.stack([x, -x], 1) * torch.stack([gate(x), gate(-x)], 1).softmax(1)).sum(1),  # selective kernel
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.rms_norm(x, x.shape[1:]),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x + x.mean().detach(),
    ],
)
def test_gates_are_held_constant(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and not layer.croppable
    assert layer.local_field == CONVOLVED and layer.axes == (-2, -1)


def test_a_gate_that_sees_parts_of_the_map_has_a_bound() -> None:
    layer = sees(lambda x: x * F.interpolate(F.avg_pool2d(x, 4).sigmoid(), (12, 16)))  # gather-excite
    # a part of four, wherever the neuron lies in it, and the convolution around it
    assert layer.receptive_field == ReceptiveField((9, 9), (1, 1), (-4, -4), exact=False) and not layer.croppable
    assert layer.local_field == CONVOLVED and layer.axes == (-2, -1)


def test_gates_that_see_a_window_widen_only_the_receptive_field() -> None:
    layer = sees(lambda x: x * F.avg_pool2d(x, 5, 1, 2).mean(1, keepdim=True).sigmoid())
    assert layer.receptive_field == ReceptiveField((7, 7), (1, 1), (-3, -3)) and layer.croppable
    assert layer.local_field == CONVOLVED


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x.mean((2, 3), keepdim=True),  # a sum, not a product
        lambda x: x * F.interpolate(F.avg_pool2d(x, 12).expand(-1, -1, 12, 16), (12, 16)),  # neither is the gate
        lambda x: x.mean((2, 3), keepdim=True) / x,  # what is divided carries the signal
        lambda x: x - x.mean((1, 2, 3), keepdim=True),
        lambda x: x[:, :, x.mean((0, 1, 3)).argsort()],  # each image moves its rows elsewhere
    ],
)
def test_what_is_no_gate_stays_global(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and layer.local_field is None


def test_a_gate_alone_is_global() -> None:
    layers = trace(nn.Sequential(nn.Conv2d(3, 4, 3), SqueezeExcitation(4, 2)), (3, 12, 12))
    assert layers["1"].local_field == ReceptiveField((3, 3), (1, 1), (0, 0))
    assert layers["1.fc1"].local_field is None and layers["1.scale_activation"].local_field is None


CAUSES: dict[str, tuple[Callable[[Tensor], Tensor], str | None, str | None]] = {
    "a window": (lambda x: x.relu(), None, None),
    "a mean": (lambda x: x + x.mean((2, 3), keepdim=True), *["'mean' in the network itself"] * 2),
    "a gate": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), "'mean' in the network itself", None),
    "two, the first counts": (lambda x: x.amax((2, 3)).cumsum(1), *["'amax' in the network itself"] * 2),
    "in place": (lambda x: x.clone().add_(x.amax()), *["'amax' in the network itself"] * 2),
    "unknown": (lambda x: x.logcumsumexp(2), *["'logcumsumexp' in the network itself"] * 2),
    "attention": (
        lambda x: (x.flatten(2) @ x.flatten(2).mT).softmax(1) @ x.flatten(2),
        "'matmul' in the network itself",
        None,
    ),
    "reflected": (lambda x: F.pad(x, (2, 2, 2, 2), mode="reflect"), None, None),
    "a class token": (
        lambda x: torch.cat([x.new_zeros(1, 1, 4), x.flatten(2).mT], 1), *["positions that are no known grid"] * 2
    ),
    "no positions": (lambda x: x.flatten(1), None, None),
    "grown": (lambda x: x + x.flip(2, 3), *["windows that have grown to it"] * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_what_made_a_field_global_is_named(name: str) -> None:
    function, full, local = CAUSES[name]
    layer = sees(function)
    assert (layer.global_from, layer.local_global_from) == (full, local)


def test_what_made_a_field_global_is_named_with_its_layer_wherever_layers_are_listed() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5), SqueezeExcitation(8, 2), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(72, 2)
    )
    traced = trace(network, (3, 9, 9))
    gate = "'adaptive_avg_pool2d' in 1.avgpool"
    assert [(traced[name].global_from, traced[name].local_global_from) for name in ("0", "1.fc1", "2")] == [
        (None, None), (gate, gate), (gate, None)
    ]  # fmt: skip
    assert traced["4"].global_from == gate and traced["4"].local_global_from == "'linear' in 4"
    assert gate in repr(traced) and escape(gate) in traced._repr_html_()
    assert gate in summarise(network, (3, 9, 9)) and "whole image from" in summarise(network, (3, 9, 9), "markdown")
    assert "whole image from" not in summarise(network[:1], (3, 9, 9))


def test_a_layer_that_gets_no_signal_keeps_its_receptive_field() -> None:
    assert sees(lambda x: (x > 0).float()).local_field == CONVOLVED
    assert sees(lambda x: x.detach()).local_field == CONVOLVED


def test_what_a_network_keeps_of_its_forward_pass_holds_no_graph() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last, self.all = nn.Conv2d(3, 4, 3), None, []

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.conv(x)
            self.all.append(self.last.relu())
            return self.all[-1]

    network = Keeps()
    trace(network, (3, 8, 8))
    assert not network.all[0].requires_grad
    copy.deepcopy(network)


def test_a_network_that_cannot_run_under_a_rule_is_still_traced() -> None:
    traced = trace(Calls(lambda x: torch.from_numpy((x * gate(x)).numpy())), (3, 12, 16))
    assert not traced.has_signal and traced["conv"].local_field == CONVOLVED and traced["end"].local_field is None
    assert trace(Calls(torch.relu), (3, 12, 16)).has_signal


# ---- whole networks --------------------------------------------------------------------------------------------------


FAMILIES = run_path(str(ROOT / "benchmarks" / "families.py"))["SMALLEST"]


@pytest.mark.parametrize(
    ("name", "side"),
    [("mobilenetv3_small_050", 96), ("tinynet_e", 106), ("test_nfnet", 96), ("ese_vovnet19b_slim_dw", 96)],
)
def test_behind_gates_windows_are_the_support_of_the_gradient(name: str, side: int) -> None:
    timm = pytest.importorskip("timm")
    assert check_behind_gates(timm.create_model(name), (3, side, side + 7), most=3) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_in_all_families_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        try:
            on_meta = timm.create_model(name).eval()
        except NotImplementedError:  # which computes with numbers as it is made
            on_meta = timm.create_model(name).eval()
    shape = on_meta.default_cfg["input_size"]
    traced = trace(on_meta, shape)
    convolutions = [layer for n, layer in traced.items() if isinstance(on_meta.get_submodule(n), nn.Conv2d)]
    if any(layer.local_field != layer.receptive_field for layer in convolutions):
        check_behind_gates(timm.create_model(name), shape)


@pytest.mark.slow
def test_all_families_of_timm_are_there() -> None:
    registry = pytest.importorskip("timm.models._registry")
    assert {registry._model_to_module[name] for name in FAMILIES} == set(registry._model_to_module.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), [("tinynet_e", "deconvnet"), ("test_nfnet", "guided")])
def test_behind_gates_a_projection_is_that_of_the_whole_image(name: str, rule: Rule) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name).double().eval()
    image = torch.rand(1, 3, 106, 99, dtype=torch.float64)
    layers = [
        layer
        for n, layer in trace(network, (3, 106, 99)).items()
        if isinstance(network.get_submodule(n), nn.Conv2d) and layer.local_field != layer.receptive_field
    ]
    parts = 0
    for layer in layers[:: len(layers) // 3]:
        for position in places(layer):
            x = image.clone().requires_grad_()
            outputs: dict[str, Tensor] = {}
            stopping = first_outputs(network, [layer.name], outputs.__setitem__, stop=True)
            with torch.enable_grad(), BackwardRule(network, rule), stopping:
                network(x.clone())
            neuron = outputs[layer.name][0, 1, position[0], position[1]]
            (whole,) = torch.autograd.grad(neuron, x, neuron.detach())
            found = project(network, image, layer.name, 1, position, rule)
            torch.testing.assert_close(found.full((106, 99)), whole, rtol=1e-9, atol=1e-12 * float(whole.abs().max()))
            parts += found.pixels.shape[2:] != image.shape[2:]
    assert parts >= 3
