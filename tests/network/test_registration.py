"""Functions that users register are followed as what they are like, and not afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret
from interpret import BackwardRule, InterpretError, UncoveredOperation, register_operation, trace
from interpret.analyses.occlusion.windowed_forward import Windowed
from interpret.network.operations import UNKNOWN, operation_of
from interpret.tracing.connectivity import trace_flow


class Swish(torch.autograd.Function):
    """One that no rule recognises, since it computes with NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        values = x.detach().numpy()
        return torch.from_numpy(values / (1 + np.exp(-values)))

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return signal * (x.sigmoid() + x * x.sigmoid() * (1 - x.sigmoid()))


def swish(x: Tensor) -> Tensor:
    return x * torch.sin(x).cos() + x  # sin and cos are no operations that a rule covers


class SwishLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return swish(x)


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


X = torch.tensor([[-2.0, -0.5, 1.0, 3.0]], dtype=torch.float64)
SIGNAL = torch.tensor([[1.0, -2.0, 3.0, -4.0]], dtype=torch.float64)

FORMS: dict[str, tuple[Any, nn.Module]] = {
    "a function of torch": (torch.erfinv, Calls(lambda x: torch.erfinv(x / 4))),
    "its name": ("erfinv", Calls(lambda x: (x / 4).erfinv())),
    "an autograd function": (Swish, Calls(lambda x: Swish.apply(x))),
    "a layer": (SwishLayer, SwishLayer()),
    "a Python function": (swish, Calls(lambda x: swish(x))),
}


def passed_back(network: nn.Module, rule: Any = "deconvnet", strict: bool = True) -> Tensor:
    x = X.clone().requires_grad_()
    with BackwardRule(network, rule, strict=strict):
        output = network(x)
    assert torch.equal(output, network(X))
    return torch.autograd.grad(output, x, SIGNAL)[0]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_registered_as_a_rectifier_is_rectified(form: str) -> None:
    function, network = FORMS[form]
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x)
    scale = 1 / 4 if "erfinv" in str(function) else 1  # the division before it, which is linear
    with register_operation(function, backward="rectifier"):
        torch.testing.assert_close(passed_back(network), SIGNAL.clamp(min=0) * scale, rtol=0, atol=0)
        torch.testing.assert_close(passed_back(network, "guided"), SIGNAL.clamp(min=0) * slope, rtol=1e-12, atol=0)
        torch.testing.assert_close(passed_back(network, "gradient"), SIGNAL * slope, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_registered_as_smooth_passes_its_derivative(form: str) -> None:
    function, network = FORMS[form]
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(x), x, SIGNAL)
    with register_operation(function, backward="slope"):
        torch.testing.assert_close(passed_back(network), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_afterwards_all_is_as_before(form: str) -> None:
    function, network = FORMS[form]
    before = swish, vars(SwishLayer)["forward"], vars(Swish).get("apply"), operation_of(torch.erfinv)
    registration = register_operation(function, backward="rectifier")
    passed_back(network)
    registration.remove()
    registration.remove()
    assert before == (swish, vars(SwishLayer)["forward"], vars(Swish).get("apply"), UNKNOWN)
    with pytest.warns(UncoveredOperation, match=r"interpret\.register_operation tells what it does"):
        passed_back(network, strict=False)
    with pytest.raises(InterpretError, match=r"interpret\.register_operation"):
        passed_back(network)


def test_like_another_operation() -> None:
    with register_operation(Swish, like="silu"):
        network = Calls(lambda x: Swish.apply(x))
        assert torch.equal(passed_back(network), passed_back(nn.SiLU()))
    with register_operation(torch.erfinv, like=torch.sigmoid):  # and its result is a gate
        x = X.clone().requires_grad_()
        with BackwardRule(nn.Identity(), strict=True):
            output = x * (x[:, :1] / 4).erfinv()
        (found,) = torch.autograd.grad(output, x, SIGNAL)
        torch.testing.assert_close(found, SIGNAL * (X[:, :1] / 4).erfinv())


class Blur(nn.Module):
    """An average over 3×3 windows, every second one, in a way that hides it."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(F.pad(x, (1, 1, 1, 1)))
        kernel = torch.zeros_like(x[:1, :1]).expand(1, 1, *x.shape[2:])
        kernel = F.pad(kernel, (1, 1, 1, 1)).clone()
        kernel[..., :3, :3] = 1 / 9
        return torch.fft.ifft2(spectrum * torch.fft.fft2(kernel)).real[..., 2::2, 2::2]


def test_windows_move_the_grid() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), Blur(), nn.Conv2d(2, 2, 3))
    plain = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3))
    assert trace(network, (1, 32, 32))["2"].receptive_field is None
    expected = trace(plain, (1, 32, 32))
    for grid in ((3, 2, 1), ((3, 3), (2, 2), (1, 1)), lambda *args, **kwargs: (3, 2, 1)):
        with register_operation(Blur, backward="linear", grid=grid):
            found = trace(network, (1, 32, 32))
            for name in ("1", "2"):
                assert found[name].receptive_field == expected[name].receptive_field
                assert found[name].local_field == expected[name].local_field


def test_a_registered_window_projects_what_the_whole_image_does() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), Blur(), nn.Conv2d(3, 2, 3)).double()
    images = torch.rand(2, 1, 40, 40, dtype=torch.float64)
    with register_operation(Blur, backward="linear", grid=(3, 2, 1)):
        found = interpret.project(network, images, "3", channels=1, strict=True)
        assert found.pixels.shape[-1] < 40
        for row in range(2):
            x = images[row : row + 1].clone().requires_grad_()
            with BackwardRule(network):
                output = network(x)
            y, column = found.positions[row].tolist()
            neuron = output[0, 1, y, column]
            (signal,) = torch.autograd.grad(neuron, x, neuron.detach())
            torch.testing.assert_close(found.full((40, 40))[row], signal[0], rtol=1e-9, atol=1e-12)


def test_elementwise_functions_keep_images_in_windows_apart() -> None:
    images = Windowed.of(torch.rand(1, 1, 8, 8), torch.rand(2, 1, 2, 2), [(0, 0), (3, 4)])
    with register_operation("erfinv", backward="slope", grid="elementwise"):
        found = images.erfinv()
        assert isinstance(found, Windowed)
        assert torch.equal(found.whole(), images.whole().erfinv())
    assert not isinstance(images.erfinv(), Windowed)


class Mirror(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1


@pytest.mark.parametrize("mixes", [True, False])
def test_units_are_followed_through_what_does_not_mix_them(mixes: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), Mirror(), nn.Conv2d(4, 2, 1))
    with register_operation(Mirror, backward="linear", mixes_units=mixes):
        arriving = trace_flow(network, (1, 4, 4)).arriving["2"]
    assert ("0" in arriving) == (not mixes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give like="),
        ({"like": "relux"}, "like='relux' is no operation"),
        ({"like": F.max_pool2d}, "cannot be reused"),
        ({"backward": "lineal"}, "did you mean 'linear'"),
        ({"backward": "linear", "grid": "elementwize"}, "did you mean 'elementwise'"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InterpretError, match=message):
        register_operation(Swish, **arguments)
    assert "apply" not in vars(Swish)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_registered_twice(form: str) -> None:
    function, _ = FORMS[form]
    with register_operation(function, backward="linear"):
        again = swish if form == "a Python function" else function
        with pytest.raises(InterpretError, match="registered already"):
            register_operation(again, backward="slope")


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(InterpretError, match="must be a function"):
        register_operation(3, backward="linear")  # type: ignore[arg-type]
