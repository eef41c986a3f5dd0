"""Signals of single neurons in their windows, against autograd on whole maps, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor, nn

from interpret.analyses.projection.signals import SignalSettings, forward_under_rule
from interpret.backprop import neuron_windows
from interpret.backprop.composite import RULES, Rule
from interpret.backprop.neuron_windows import NeuronWindows, Windows


class Net(nn.Module):
    """A network written as a function of its convolutions, each of which is made when it is first called."""

    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.parts = nn.ModuleDict()

    def conv(self, name: str, x: Tensor, channels: int, kernel: int, **settings: int) -> Tensor:
        if name not in self.parts:
            self.parts[name] = nn.Conv2d(x.shape[1], channels, kernel, dtype=torch.float64, **settings)
        output: Tensor = self.parts[name](x)
        return output

    def norm(self, name: str, x: Tensor) -> Tensor:
        if name not in self.parts:
            made = nn.BatchNorm2d(x.shape[1], dtype=torch.float64).eval()
            nn.init.normal_(made.weight)
            nn.init.uniform_(made.running_var, 0.5, 2)
            self.parts[name] = made
        output: Tensor = self.parts[name](x)
        return output

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.conv("a", x, 6, 3, stride=2))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return net.conv("out", F.relu_(net.conv("b", x, 5, 3, padding=1)), 4, 3, padding=1)


def fire(net: Net, x: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(net.conv("a", x, 6, 3, padding=1)), 3, 2, 1)
    low = F.relu(net.conv("b", x, 3, 1))
    x = torch.cat([F.relu(net.conv("c", low, 4, 1)), F.relu(net.conv("d", low, 5, 3, padding=1))], 1)
    return net.conv("out", x, 4, 5, padding=2, dilation=1)


def residual(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.norm("n", net.conv("a", x, 6, 5, stride=2, padding=2)))
    y = net.norm("o", net.conv("b", x, 6, 3, padding=2, dilation=2, groups=3))
    x = F.relu(x + y)
    return net.conv("out", F.relu(x + net.conv("c", x, 6, 3, padding=1, groups=6)), 4, 3, padding=1)


def dense(net: Net, x: Tensor) -> Tensor:
    x = F.avg_pool2d(net.conv("a", x, 6, 3, padding=1), 2)
    x = torch.cat([x, F.relu(net.conv("b", x, 3, 3, padding=1)), F.avg_pool2d(x, 3, 1, 1)], 1)
    return net.conv("out", 0.5 * F.max_pool2d(x, 2, dilation=2), 4, 3, stride=2)


def gated(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.conv("a", x, 6, 3, stride=2))
    x = x * torch.sigmoid(net.conv("gate", x.mean((2, 3), keepdim=True), 6, 1))
    x = x * torch.sigmoid(net.conv("where", x, 1, 3, padding=1))
    return net.conv("out", x, 4, 3, padding=1)


def pyramid(net: Net, x: Tensor) -> Tensor:
    high = F.relu(net.conv("a", x, 6, 3, padding=1))
    low = F.relu(net.conv("b", high, 6, 3, stride=3, padding=1))
    return net.conv("out", F.interpolate(high + F.interpolate(low, high.shape[2:]), scale_factor=1.7), 4, 3)


def resizing(net: Net, x: Tensor) -> Tensor:
    """Prepares each image by itself, as torchvision's detectors do, beside a branch of the images as they are."""
    prepared = x.new_zeros(x.shape)
    height, width = x.shape[2] - 3, x.shape[3] - 2
    for row, image in enumerate(x):
        resized = F.interpolate((image[None] - 0.4) / 0.2, (height, width), mode="bilinear")[0]
        prepared[row, :, :height, :width].copy_(resized)
    return net.conv("out", F.relu(net.conv("a", prepared, 6, 5, padding=2) + net.conv("b", x, 6, 1)), 4, 3, padding=1)


NETWORKS = {body.__name__: body for body in (plain, fire, residual, dense, gated, pyramid, resizing)}


def signals_of(
    body: Callable[[Net, Tensor], Tensor],
    rule: Rule,
    sides: tuple[int, int],
    seed: int,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the signals of 12 neurons of 3 images in whole images, by autograd and in windows, and their extent."""
    torch.manual_seed(seed)
    net, images = Net(body), torch.randn(3, 2, *sides, dtype=torch.float64)
    net(images)
    x, outputs = forward_under_rule(net, images, ["parts.out"], SignalSettings(rule))
    output = outputs["parts.out"]
    graph = NeuronWindows.below(output)
    assert graph is not None
    rows, channels = torch.randint(3, (12,)), torch.randint(4, (12,))
    positions = torch.stack([torch.randint(side, (12,)) for side in output.shape[2:]], 1)
    positions[:2] = torch.tensor([[0, 0], [output.shape[2] - 1, output.shape[3] - 1]])
    starts = torch.randn(12, dtype=torch.float64)
    expected = []
    for row, channel, (y, z), start in zip(rows, channels, positions.tolist(), starts, strict=True):
        (signal,) = torch.autograd.grad(output[row, channel, y, z], x, start, retain_graph=True)
        expected.append(signal[row])
    found = list(graph.signals(rows, channels, positions, starts, dtype=dtype))
    whole = torch.cat([part.within(0 * part.corners, sides) for part in found])
    return torch.stack(expected), whole, torch.tensor([part.size for part in found]).amax(0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(sides=st.tuples(st.integers(14, 33), st.integers(14, 33)), seed=st.integers(0, 2**31))
def test_signals_in_windows_are_those_of_whole_maps(name: str, rule: Rule, sides: tuple[int, int], seed: int) -> None:
    if name == "gated" and rule == "gradient":
        return  # through the gate, the signal reaches everything
    expected, found, _ = signals_of(NETWORKS[name], rule, sides, seed)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_signals_of_few_neurons_at_a_time_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, together, _ = signals_of(NETWORKS[name], "deconvnet", (29, 31), 1)
    counts: list[int] = []
    add = neuron_windows._sum

    def counting(parts: Sequence[Windows], whole: tuple[int, int]) -> Windows:
        counts.append(len(parts[0].corners))
        return add(parts, whole)

    monkeypatch.setattr(neuron_windows, "_sum", counting)
    monkeypatch.setattr(neuron_windows, "MOST_VALUES", 2**8)
    _, apart, _ = signals_of(NETWORKS[name], "deconvnet", (29, 31), 1)
    assert counts[0] == 12 and min(counts) == (4 if name == "resizing" else 1)  # where no other branch is open
    torch.testing.assert_close(apart, together, rtol=1e-12, atol=1e-12 * float(together.abs().max()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_signals_in_bfloat16_come_close(name: str, rule: Rule) -> None:
    if name == "gated" and rule == "gradient":
        return  # through the gate, the signal reaches everything
    exact, found, _ = signals_of(NETWORKS[name], rule, (29, 31), 0, torch.bfloat16)
    some = exact.flatten(1).any(1)
    assert found.dtype == torch.float64 and int(some.sum()) > 6 and not found[~some].any()
    differences = (found - exact)[some].flatten(1).norm(dim=1) / exact[some].flatten(1).norm(dim=1)
    assert 0 < float(differences.max()) < 2**-6  # of numbers that are rounded to 8 bits again and again


def test_a_window_is_as_small_as_the_receptive_field() -> None:
    expected, _, size = signals_of(residual, "deconvnet", (60, 50), 0)
    assert bool(expected.any(3).any(2).any(1).all())
    assert size.tolist() == [21, 21]  # 5, and then in steps of 2: 2·2, 1·2, 1·2


def test_a_network_with_another_operation_is_left_to_autograd() -> None:
    def other(net: Net, x: Tensor) -> Tensor:
        return net.conv("out", F.interpolate(net.conv("a", x, 2, 3), scale_factor=2, mode="bicubic"), 4, 3)

    net, images = Net(other), torch.rand(1, 1, 12, 12, dtype=torch.float64)
    net(images)
    _, outputs = forward_under_rule(net, images, ["parts.out"], SignalSettings())
    assert NeuronWindows.below(outputs["parts.out"]) is None
    assert NeuronWindows.below(net.parts["out"](torch.rand(1, 2, 9, 9, dtype=torch.float64)).mean((2, 3))) is None


@pytest.mark.parametrize("rule", RULES)
def test_a_hook_that_the_network_puts_on_a_signal_is_called(rule: Rule) -> None:
    def hooked(net: Net, x: Tensor) -> Tensor:
        x = net.conv("a", x, 2, 3)
        if x.requires_grad:
            x.register_hook(lambda signal: 2 * signal)
        return net.conv("out", x, 4, 3)

    net, images = Net(hooked), torch.rand(1, 1, 12, 12, dtype=torch.float64)
    net(images)
    _, outputs = forward_under_rule(net, images, ["parts.out"], SignalSettings(rule))
    assert NeuronWindows.below(outputs["parts.out"]) is None
