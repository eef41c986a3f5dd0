"""Cones: a layer that runs where one neuron sees gives the values and gradients of the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret import synthesise
from interpret.analyses.synthesis.cone import ConePass, OutsideCones, Part
from interpret.analyses.synthesis.objectives import Objective
from interpret.analyses.synthesis.scene import in_cone, set_scene


class Residual(nn.Module):
    """Shortcuts of every spelling, over convolutions that shrink the map, with and without stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.BatchNorm2d(4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.second, self.third = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.short, self.last = nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.first(x)))
        x = self.second(x) + x
        y = self.plain(self.third(x))
        y += self.short(x)
        y, z = y.chunk(2, dim=1)
        result: Tensor = self.last(torch.cat([y, F.avg_pool2d(z, 3, 1, 1), y * torch.ones_like(z), z], 1))
        return result


class Padded(nn.Module):
    """Padding as a function, as exporters write it, dilation, and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.second(F.hardswish(self.first(F.pad(x, (0, 1, 0, 1))))), 3, 2, 1)


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 4, 3, padding=1),
        nn.AvgPool2d(2), nn.GELU(), nn.Conv2d(4, 4, 3, padding=1),
    )  # fmt: skip


def random(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    for buffer in network.buffers():  # statistics of batches
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 2)
    return network.double().eval()


@pytest.mark.parametrize("make", [pooled, Residual, Padded])
def test_a_part_has_the_values_and_gradients_of_the_whole(make: Any) -> None:
    network, image = random(make()), torch.rand(2, 3, 61, 66, dtype=torch.float64, requires_grad=True)
    whole = network(image)
    for top, left, bottom, right in [(5, 10, 52, 55), (0, 3, 46, 66), (15, 0, 61, 50)]:
        cut = image[:, :, top:bottom, left:right].detach().requires_grad_()
        with ConePass(given := cut.clone(), Part((top, left), (61, 66))) as cone:
            found = network(given)
        part = cone.part_of(found)
        assert part is not None and part.whole == tuple(whole.shape[2:])
        rows, columns = (slice(first, first + size) for first, size in zip(part.corner, found.shape[2:], strict=True))
        assert torch.allclose(found, whole[:, :, rows, columns], rtol=1e-12, atol=1e-12)
        wanted, own = (
            torch.autograd.grad(value.square().sum(), of, retain_graph=True)[0]
            for value, of in ((whole[:, :, rows, columns], image), (found, cut))
        )
        assert torch.allclose(own, wanted[:, :, top:bottom, left:right], rtol=1e-12, atol=1e-12)
        assert own.abs().sum() == pytest.approx(float(wanted.abs().sum()))  # nothing outside is seen


def test_the_backward_pass_keeps_the_layout() -> None:
    """In another layout than that of the maps, pooling takes three times as long."""
    network, signals = random(Residual()), list[Tensor]()

    def watch(_part: Any, _inputs: Any, output: Tensor) -> None:
        output.register_hook(signals.append)

    image = torch.rand(2, 3, 61, 61, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    cut = image[:, :, 5:52, 10:55].contiguous(memory_format=torch.channels_last).requires_grad_()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.Conv2d):
            part.register_forward_hook(watch)
    with ConePass(given := cut.clone(), Part((5, 10), (61, 61))):
        found = network(given)
    found.square().sum().backward()
    assert len(signals) == 7
    assert all(signal.is_contiguous(memory_format=torch.channels_last) for signal in signals)


def test_a_receptive_field_has_one_position() -> None:
    scene = set_scene(random(pooled()), [Objective.neuron("6", 0)], (3, 128, 128), None)
    cone = in_cone(random(pooled()), scene, torch.device("cpu"))
    assert cone.shape[1:] == cone.shown == scene.shown and scene.shape[1:] > scene.shown
    assert cone.part is not None and cone.positions == {"6": (0, 0)}


class SizeDependent(nn.Module):
    """It pads as TensorFlow does, by the size of what it is given, and so not alike in a part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 33, stride=2), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1)) if x.shape[-1] % 2 else x
        result: Tensor = self.second(self.first(x))
        return result


class Gated(SizeDependent):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result: Tensor = self.second(x * x.mean((2, 3), keepdim=True).sigmoid())
        return result


@pytest.mark.parametrize("make", [SizeDependent, Gated])
def test_networks_that_have_no_cones_run_crops_or_whole_images(make: Any) -> None:
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        network.first.weight.normal_()
    scene = set_scene(network, [Objective.neuron("second", 0)], (3, 64, 64), None)
    assert in_cone(network, scene, torch.device("cpu")) == scene
    found = synthesise(network, "second", 0, size=(3, 64, 64), steps=2)
    assert found.inputs is not None
    x = torch.rand(1, 3, 9, 9)
    with pytest.raises(OutsideCones), ConePass(x, Part((1, 1), (20, 20))):
        x.mean((2, 3))
