"""A convolution's signal through its window alone, against the whole map's, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

import interpret.backprop.windowed_convolution
from interpret.backprop.windowed_convolution import convolve


@pytest.fixture(autouse=True, scope="module")
def small_ones_too() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpret.backprop.windowed_convolution, "FEWEST_MACS", 0)
        yield


def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def passed_back(output: Tensor, x: Tensor, signal: Tensor) -> Tensor:
    return torch.autograd.grad(output, x, signal)[0]


@settings(max_examples=150, deadline=None)
@given(
    kernel=pair(1, 4),
    stride=pair(1, 3),
    padding=pair(0, 4),
    dilation=pair(1, 2),
    groups=st.sampled_from([1, 2]),
    size=pair(8, 16),
    seed=st.integers(0, 2**31),
    spread=st.integers(1, 4),
    channels_last=st.booleans(),
)
def test_window_passes_back_what_the_whole_map_does(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    size: tuple[int, int],
    seed: int,
    spread: int,
    channels_last: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = numbers(3, 2, *size).contiguous(memory_format=layout).requires_grad_()
    weight, bias = numbers(4, 2 // groups, *kernel).contiguous(memory_format=layout), numbers(4)
    rest: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = F.conv2d(x, weight, bias, **rest)
    output = convolve(F.conv2d, (x, weight, bias), rest)
    assert torch.equal(output, expected)
    signal = torch.zeros_like(expected)
    height, width = expected.shape[2:]
    for row in range(2):  # the last item's signal is zero
        y, left = (int(torch.randint(side, (), generator=generator)) for side in (height, width))
        signal[row, :, y : y + spread, left : left + spread] = 1 + numbers(*expected.shape[2:])[:spread, :1].abs().min()
    torch.testing.assert_close(passed_back(output, x, signal), passed_back(expected, x, signal), rtol=1e-12, atol=1e-12)


def test_no_signal_passes_back_none() -> None:
    x = torch.rand(2, 1, 5, 5, requires_grad=True)
    output = convolve(F.conv2d, (x, torch.rand(3, 1, 3, 3)), {})
    assert not passed_back(output, x, torch.zeros_like(output)).any()


def test_full_signal_passes_back_to_the_bit() -> None:
    x, weight = torch.rand(2, 3, 9, 9, requires_grad=True), torch.rand(3, 3, 3, 3)
    output, expected = convolve(F.conv2d, (x, weight), {"padding": 1}), F.conv2d(x, weight, padding=1)
    signal = torch.rand_like(output)
    assert torch.equal(passed_back(output, x, signal), passed_back(expected, x, signal))


def test_only_the_window_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []

    def watched(size: Any, *args: Any) -> Tensor:
        sizes.append(list(size))
        return torch.nn.grad.conv2d_input(size, *args)

    monkeypatch.setattr(interpret.backprop.windowed_convolution, "conv2d_input", watched)
    x = torch.rand(2, 1, 40, 40, requires_grad=True)
    output = convolve(F.conv2d, (x, torch.rand(1, 1, 3, 3)), {"padding": 1})
    signal = torch.zeros_like(output)
    signal[0, 0, 3, 3] = signal[1, 0, 30, 20] = 1
    passed_back(output, x, signal)
    assert sizes == [[1, 1, 3, 3], [1, 1, 3, 3]]


@pytest.mark.parametrize("padding", ["same", "valid", 0])
def test_what_is_not_plain_runs_as_it_is(padding: Any) -> None:
    x, weight = torch.rand(1, 2, 6, 6, requires_grad=True), torch.rand(2, 2, 3, 3, requires_grad=padding == 0)
    output = convolve(F.conv2d, (x, weight), {"padding": padding})
    assert type(output.grad_fn).__name__ == "ConvolutionBackward0"
    assert torch.equal(output, F.conv2d(x, weight, padding=padding))
