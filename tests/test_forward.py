"""How the user's network is called: what its own code raises, in every analysis."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret.errors import InterpretError
from interpret.forward import call_network


class Raising(nn.Module):
    """A network that fails inside its second block in the way that it is told."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.ReLU(), _Failing(error))
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images)).mean((2, 3)))


class _Failing(nn.Module):
    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.fc((self.conv(images) * mask).mean((2, 3)))


def images(count: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


ANALYSES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "trace": lambda network, x: interpret.trace(network, tuple(x.shape[1:])),
    "mine": lambda network, x: interpret.mine(network, x),
    "project": lambda network, x: interpret.project(network, x, "head", 0),
    "probe": lambda network, x: interpret.probe(network, x, "translation", [0.0, 1.0]),
    "occlude": lambda network, x: interpret.occlude(network, x, size=4, stride=4),
    "predict": lambda network, x: interpret.predict(network, x),
    "attribute": lambda network, x: interpret.attribute(network, x, "gradient"),
    "sanity_check": lambda network, x: interpret.sanity_check(network, x, ["gradient"]),
    "correspond": lambda network, x: interpret.correspond(network, x, {"corner": (0, 0, 3, 3)}),
    "find_neighbours": lambda network, x: interpret.find_neighbours(network, [0], x, "head", k=1),
    "feature_maps": lambda network, x: interpret.feature_maps(network, x[0]),
}
every_analysis = pytest.mark.parametrize("analysis", ANALYSES)


@every_analysis
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (lambda: KeyError("image"), r"KeyError: 'image'"),
        (lambda: AttributeError("'NoneType' object has no attribute 'shape'"), "AttributeError: 'NoneType'"),
        (lambda: NotImplementedError(), r"\(NotImplementedError\)"),
        (lambda: ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (lambda: RuntimeError("no luck\nat all"), r"\(no luck\)"),
    ],
)
def test_whatever_the_forward_pass_raises_names_the_layer(
    analysis: str, error: Callable[[], BaseException], told: str
) -> None:
    with pytest.raises(InterpretError, match=rf"layer 'block.1' \(_Failing\) fails on an input of 4×6×6.*{told}"):
        ANALYSES[analysis](Raising(error), images())


@every_analysis
def test_a_missing_input_is_named(analysis: str) -> None:
    with pytest.raises(InterpretError, match=r"network \(TwoInputs\) takes more than one input.*'mask'"):
        ANALYSES[analysis](TwoInputs(), images())


@every_analysis
def test_wrong_channels_name_the_layer(analysis: str) -> None:
    network = nn.Sequential()
    network.add_module("stem", nn.Conv2d(4, 4, 3))
    network.add_module("pool", nn.Flatten())
    network.add_module("head", nn.Linear(144, 5))
    with pytest.raises(InterpretError, match=r"has 3 channels, but layer 'stem' \(Conv2d\) takes 4"):
        ANALYSES[analysis](network, images())


@pytest.mark.parametrize("passed_on", [MemoryError, torch.OutOfMemoryError, KeyboardInterrupt, RuntimeWarning])
def test_what_is_no_fault_of_the_network_stays_what_it_is(passed_on: type[BaseException]) -> None:
    with pytest.raises(passed_on):
        call_network(Raising(lambda: passed_on("stop")), images())


def test_the_error_keeps_its_cause_and_the_network_its_state() -> None:
    network = Raising(lambda: KeyError("image")).train()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InterpretError) as caught:
        interpret.mine(network, images())
    assert isinstance(caught.value.__cause__, KeyError)
    assert all(part.training for part in network.modules())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
