"""A network's structure changes with all that decides how it runs, and not with its weights' values."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret
import interpret.network.dry_run as dry_run
import interpret.tracing.meta_trace as meta_trace
from interpret import InterpretError, project
from interpret.network.structure import state_of, structure_of


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.act = F.relu
        self.settings = {"pools": [2]}

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(F.max_pool2d(self.act(self.first(x)), self.settings["pools"][0]))
        return output


def replace_layer(network: Small) -> None:
    network.second = nn.Conv2d(4, 4, 5)


def change_class(network: Small) -> None:
    network.__class__ = type("Other", (Small,), {"forward": lambda self, x: self.second(self.first(x))})


CHANGES: dict[str, Callable[[Small], object]] = {
    "stride": lambda network: setattr(network.second, "stride", (2, 2)),
    "nested": lambda network: network.settings["pools"].__setitem__(0, 3),
    "function": lambda network: setattr(network, "act", torch.tanh),
    "layer": replace_layer,
    "class": change_class,
    "own forward": lambda network: setattr(network, "forward", lambda x: network.second(network.first(x))),
    "hook": lambda network: network.first.register_forward_hook(lambda *args: F.max_pool2d(args[2], 2)),
    "pre-hook": lambda network: network.second.register_forward_pre_hook(lambda *args: F.max_pool2d(args[1][0], 2)),
    "weight": lambda network: setattr(network.second, "weight", nn.Parameter(torch.rand(4, 4, 1, 1))),
    "object": lambda network: setattr(network, "state", object()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_has_another_structure_or_none(change: str) -> None:
    network = Small()
    before = structure_of(network)
    assert before is not None
    CHANGES[change](network)
    assert structure_of(network) != before


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("weight", "object", "own forward")])
def test_a_changed_network_is_projected_as_it_is_now(change: str) -> None:
    network, images = Small(), torch.rand(2, 1, 24, 24)
    project(network, images, "second", 1)
    CHANGES[change](network)
    fresh = Small()
    CHANGES[change](fresh)
    fresh.load_state_dict(network.state_dict())
    found, expected = project(network, images, "second", 1), project(fresh, images, "second", 1)
    assert torch.equal(found.boxes, expected.boxes) and torch.equal(found.pixels, expected.pixels)


def test_the_trace_is_remembered_while_only_values_change(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    trace = meta_trace.trace
    monkeypatch.setattr(meta_trace, "trace", lambda module, shape: shapes.append(shape) or trace(module, shape))
    network = Small()
    for side in (16, 16, 20, 16):
        with torch.no_grad():
            network.first.weight.mul_(2)
        project(network, torch.rand(1, 1, side, side), "second", 1)
    assert shapes == [(1, 16, 16), (1, 20, 20)]
    network.second.stride = (2, 2)
    project(network, torch.rand(1, 1, 16, 16), "second", 1)
    assert len(shapes) == 3


def test_a_network_that_was_traced_is_not_kept() -> None:
    network = Small()
    project(network, torch.rand(1, 1, 16, 16), "second", 1)
    kept = weakref.ref(network)
    del network
    gc.collect()
    assert kept() is None


class KeepsMode(nn.BatchNorm2d):
    """A batch norm that evaluation mode does not reach."""

    def train(self, mode: bool = True) -> nn.BatchNorm2d:
        return self


class Checked(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = KeepsMode(4)
        self.norm.training = False
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(F.dropout(self.norm(self.first(x)), self.rate))
        return output


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is checked by a dry run."""
    found: list[object] = []

    class Counted(dry_run.DryRun):
        def __init__(self, *given: Any) -> None:
            found.append(given)
            super().__init__(*given)

    monkeypatch.setattr(dry_run, "DryRun", Counted)
    return found


REWRITTEN: dict[str, Callable[[Small], object]] = {
    "written": lambda network: nn.init.ones_(network.first.weight),
    "written through data": lambda network: network.first.weight.data.mul_(2),
    "written through NumPy": lambda network: network.first.weight.detach().numpy().fill(2),
    "other data": lambda network: setattr(network.first.weight, "data", torch.ones(4, 1, 3, 3)),
    "loaded": lambda network: network.load_state_dict(Small().state_dict()),
    "trained": lambda network: torch.optim.SGD(network.parameters(), 0.1).step() or nn.init.zeros_(network.first.bias),
}


@pytest.mark.parametrize("change", [name for name in [*CHANGES, *REWRITTEN] if name != "own forward"])
def test_a_changed_network_is_checked_again(change: str, checks: list[object]) -> None:
    network, images = Small(), torch.rand(2, 1, 24, 24)
    for _ in range(3):
        project(network, images, "second", 1)
    assert len(checks) == 1
    (CHANGES | REWRITTEN)[change](network)
    if change == "weight":
        network.second.kernel_size = (1, 1)
    project(network, images, "second", 1)
    assert len(checks) == 2


def test_what_is_asked_for_the_first_time_is_checked(checks: list[object]) -> None:
    network, images = Small(), torch.rand(2, 1, 24, 24)
    model = interpret.Model(network, "small")
    for _ in range(2):
        for layer in ("second", "first"):
            project(model, images, layer, 1)
        project(model, images[:1, :, :21], "second", 1)
        project(model, images.flip(3)[:1], "second", [1, 2], rule="gradient")  # the same pass
        project(interpret.Model(network, "small", varying=True), images, "second", 1)
    assert len(checks) == 4
    for images in (torch.zeros(2, 1, 24, 24), torch.ones(1, 1, 24, 24)):  # which tell nothing
        before = len(checks)
        for _ in range(2):
            project(network, images, "first", 1)
        assert len(checks) == before + 2


def test_what_passed_once_is_refused_when_it_varies() -> None:
    network, images = Checked(), torch.rand(2, 1, 24, 24)
    project(network, images, "norm", 1)
    network.norm.training = True
    with pytest.raises(InterpretError, match="layer 'norm' gives an image another output when a second image"):
        project(network, images, "norm", 1)
    network.norm.training = False
    project(network, images, "norm", 1)
    network.train()  # which neither the batch norm nor the network as it is run takes note of
    project(network, images, "norm", 1)
    network = Checked()
    project(network, images, "second", 1)
    network.rate = 0.5
    with pytest.raises(InterpretError, match="layer 'second' gives another output when the same image runs again"):
        project(network, images, "second", 1)


def test_images_that_tell_nothing_do_not_let_others_pass() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    project(network, torch.ones(1, 1, 24, 24), "1", 1)
    with pytest.raises(InterpretError, match="when a second image is in the batch"):
        project(network, torch.rand(1, 1, 24, 24), "1", 1)


def test_tensors_that_cannot_be_compared_leave_a_network_without_a_state() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3))
    network.register_buffer("waves", torch.ones(3, dtype=torch.complex64).conj())
    before = state_of(network)
    assert before is not None and state_of(network) == before
    network.register_buffer("graph", torch.eye(3).to_sparse())
    assert state_of(network) is None
