"""The signal at the input of a convolution, from that at its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from interpret.backprop.windowed_convolution import is_plain, pair

Pair = tuple[int, int]

FEW_CHANNELS = 4
"""Up to this many channels of the input, other ways than PyTorch's are two to six times as fast on a processor.

Kernels for convolutions compute many channels of a position at once, and leave most of a vector idle there."""

FEWEST_PHASES, FEWEST_TAPS = 12, 16
"""From so many values on, of all channels in a square of a stride, and taps of the kernel, all values of a square are
computed as channels of one convolution; with fewer, most of a vector would be idle again, or many taps would be
zeros."""


def input_signal(
    size: Sequence[int],
    weight: Tensor,
    signal: Tensor,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Return the signal [n, C, H, W] at the input of a convolution: the transposed convolution of that at its output.

    >>> signal, weight = torch.rand(1, 8, 5, 5), torch.rand(8, 3, 7, 7)
    >>> found = input_signal((1, 3, 15, 15), weight, signal, stride=(2, 2))
    >>> torch.allclose(found, F.conv_transpose2d(signal, weight, stride=2), atol=1e-5)
    True

    Args:
        size: [n, C, H, W] the shape of the input.
        weight, stride, padding, dilation, groups: those of the convolution.
        signal: [n, O, h, w]
    """
    if weight.shape[1] > FEW_CHANNELS or groups != 1 or dilation != (1, 1) or signal.device.type != "cpu":
        return conv2d_input(size, weight, signal, stride, padding, dilation, groups)
    found = transposed_to_few(signal, weight, stride)
    (top, left), (height, width) = padding, found.shape[2:]
    if (top, left) == (0, 0) and (height, width) == tuple(size[2:]):
        return found
    # beyond the last window are positions that the convolution does not read
    return F.pad(found, (-left, size[3] + left - width, -top, size[2] + top - height))


def transposed_to_few(signal: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """Return a transposed convolution to few channels, of a size without padding."""
    channels, kernel = weight.shape[1], weight.shape[2:]
    if stride[0] == stride[1] and channels * stride[0] ** 2 >= FEWEST_PHASES and kernel.numel() >= FEWEST_TAPS:
        return _by_phases(signal, weight, stride[0])
    return _by_taps(signal, weight, stride)


def _by_taps(signal: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """One matrix product for all taps of the kernel, then their sum."""
    kernel = weight.shape[2:]
    by_tap = weight.permute(1, 2, 3, 0).flatten(0, 2)
    products = torch.matmul(by_tap, signal.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2))
    if products.dtype == torch.bfloat16:
        products = products.float()
    return F.fold(products, _spread(signal, kernel, stride), kernel, stride=stride)


def _by_phases(signal: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One convolution whose channels are those of each position in a square of the stride, then put in place."""
    height, width = kernel = weight.shape[2:]
    rows, columns = -(-height // stride), -(-width // stride)
    padded = F.pad(weight, (0, columns * stride - width, 0, rows * stride - height))
    phases = padded.reshape(*weight.shape[:2], rows, stride, columns, stride).permute(1, 3, 5, 0, 2, 4).flip(4, 5)
    turned = phases.reshape(-1, len(weight), rows, columns).contiguous(memory_format=torch.channels_last)
    found = F.pixel_shuffle(F.conv2d(signal, turned, padding=(rows - 1, columns - 1)), stride)
    tall, wide = _spread(signal, kernel, (stride, stride))
    return found[:, :, :tall, :wide]


def _spread(signal: Tensor, kernel: Sequence[int], stride: Pair) -> Pair:
    """Return the size of the input that windows at all positions of a signal cover."""
    height, width = ((n - 1) * s + k for n, s, k in zip(signal.shape[2:], stride, kernel, strict=True))
    return height, width


def convolve(given: Mapping[str, Any]) -> Tensor:
    """Run `F.conv2d` with arguments by name, with a backward pass by `input_signal` where that is faster.

    Where weights carry a signal, on other devices and under autocast, it runs as it is.
    """
    few = given["weight"].shape[1] <= FEW_CHANNELS and given["groups"] == 1 and pair(given["dilation"]) == (1, 1)
    if not few or not is_plain(**given):
        return F.conv2d(**given)
    fixed = (given[name] for name in ("input", "weight", "bias"))
    output: Tensor = _FewChannels.apply(*fixed, pair(given["stride"]), pair(given["padding"]))
    return output


class _FewChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = x.shape, stride, padding
        return torch.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return input_signal(ctx.size, weight, signals[0], ctx.stride, ctx.padding), *[None] * 4
