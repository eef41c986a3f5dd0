"""Local fields against the literal definition: the pixels on which the gradient with constant gates is not zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from interpret import trace
from interpret.receptive_field import ReceptiveField
from interpret.tracing import Layer

# ---- single operations -----------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """A convolution, then a function, then an identity whose output is looked at."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.function(self.conv(x)))


def sees(function: Callable[[Tensor], Tensor], side: tuple[int, int] = (12, 16)) -> Layer:
    return trace(Calls(function), (3, *side))["end"]


conv = ReceptiveField((3, 3), (1, 1), (-1, -1))


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
        lambda x: x * F.interpolate(F.avg_pool2d(x, 4).sigmoid(), (12, 16)),  # gather-excite
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
    assert layer.local_field == conv and layer.axes == (-2, -1)


def test_gates_that_see_a_window_widen_only_the_receptive_field() -> None:
    layer = sees(lambda x: x * F.avg_pool2d(x, 5, 1, 2).mean(1, keepdim=True).sigmoid())
    assert layer.receptive_field == ReceptiveField((7, 7), (1, 1), (-3, -3)) and layer.croppable
    assert layer.local_field == conv


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x.mean((2, 3), keepdim=True),  # a sum, not a product
        lambda x: x * F.interpolate(F.avg_pool2d(x, 12).expand(-1, -1, 12, 16), (12, 16)),  # neither is the gate
        lambda x: x.mean((2, 3), keepdim=True) / x,  # what is divided carries the signal
        lambda x: x - x.mean((1, 2, 3), keepdim=True),
        lambda x: x.softmax(-1),
        lambda x: x.flip(-1) * gate(x),
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


def test_a_layer_that_gets_no_signal_keeps_its_receptive_field() -> None:
    assert sees(lambda x: (x > 0).float()).local_field == conv
    assert sees(lambda x: x.detach()).local_field == conv


def test_a_network_that_cannot_run_under_a_rule_is_still_traced() -> None:
    traced = trace(Calls(lambda x: torch.from_numpy((x * gate(x)).numpy())), (3, 12, 16))
    assert not traced.has_signal and traced["conv"].local_field == conv and traced["end"].local_field is None
    assert trace(Calls(torch.relu), (3, 12, 16)).has_signal
