"""The signal at the input of a convolution, by each way of computing it, against the definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from interpret.backprop import input_signal as module
from interpret.backprop.input_signal import convolve, input_signal


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_definition(
    size: tuple[int, ...], weight: Tensor, signal: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Add the signal of each output, times each weight, at the input that it multiplies."""
    found = torch.zeros(size, dtype=torch.float64)
    for y in range(signal.shape[2]):
        for x in range(signal.shape[3]):
            for row in range(weight.shape[2]):
                for column in range(weight.shape[3]):
                    below = (y * stride[0] - padding[0] + row, x * stride[1] - padding[1] + column)
                    if 0 <= below[0] < size[2] and 0 <= below[1] < size[3]:
                        found[:, :, below[0], below[1]] += signal[:, :, y, x] @ weight[:, :, row, column]
    return found


@given(
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)) | st.integers(1, 4).map(lambda n: (n, n)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_that_of_the_definition(
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    channels_last: bool,
    seed: int,
) -> None:
    size = (2, channels, *(max(1, k - 2 * p) + m for k, p, m in zip(kernel, padding, more, strict=True)))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    weight = numbers(3, channels, *kernel, seed=seed).contiguous(memory_format=layout)
    x = numbers(*size, seed=seed + 1).contiguous(memory_format=layout).requires_grad_()
    output = convolve(
        {"input": x, "weight": weight, "bias": None, "stride": stride, "padding": padding, "dilation": 1, "groups": 1}
    )
    assert torch.equal(output, F.conv2d(x, weight, None, stride, padding))
    signal = numbers(*output.shape, seed=seed + 2).contiguous(memory_format=layout)
    expected = by_definition(size, weight, signal, stride, padding)
    found = input_signal(size, weight, signal, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (passed,) = torch.autograd.grad(output, x, signal)
    torch.testing.assert_close(passed, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "side", "stride", "way"),
    [(3, 7, 2, "_by_phases"), (3, 11, 4, "_by_phases"), (1, 7, 2, "_by_taps"), (3, 3, 2, "_by_taps"), (8, 7, 2, None)],
)
def test_the_fastest_way_is_taken(
    monkeypatch: pytest.MonkeyPatch, channels: int, side: int, stride: int, way: str | None
) -> None:
    taken: list[str] = []
    for name in ("_by_phases", "_by_taps"):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, plain=plain: (taken.append(name), plain(*args))[1])
    size = (1, channels, 20 * stride, 20 * stride)
    weight = torch.rand(4, channels, side, side)
    signal = torch.rand_like(F.conv2d(torch.rand(size), weight, stride=stride))
    input_signal(size, weight, signal, (stride, stride))
    assert taken == ([] if way is None else [way])


def test_other_convolutions_run_as_they_are() -> None:
    plain = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    x, weight = torch.rand(1, 2, 9, 9, requires_grad=True), torch.rand(4, 2, 3, 3)
    many, grouped = (torch.rand(1, 8, 9, 9, requires_grad=True), torch.rand(4, 8, 3, 3)), torch.rand(4, 1, 3, 3)
    others = [
        {"input": x, "weight": weight.clone().requires_grad_()},
        {"input": x, "weight": weight, "dilation": 2},
        {"input": x, "weight": grouped, "groups": 2},
        {"input": many[0], "weight": many[1]},
    ]
    names = [type(convolve(plain | other).grad_fn).__name__ for other in others]
    assert names == ["ConvolutionBackward0"] * len(others)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(plain | {"input": x, "weight": weight}).dtype == torch.bfloat16
