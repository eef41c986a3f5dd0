"""Backward pass of convolutions on the window in which the signal is not zero: one neuron's fills a small part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input

LARGEST_WINDOW = 0.8
"""The share of a map above which the backward pass of the whole map is as fast as that of a window."""

FEWEST_MACS = 2**26
"""The multiply-accumulates for one image below which finding the window costs more than it saves."""


def convolve(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Run `F.conv2d` as called, with a backward pass on the windows in which the signal is not zero.

    >>> import torch.nn.functional as F
    >>> x, weight = torch.rand(1, 2, 9, 9, requires_grad=True), torch.rand(3, 2, 3, 3)
    >>> (signal,) = torch.autograd.grad(convolve(F.conv2d, (x, weight), {})[0, 1, 4, 4], x)
    >>> torch.equal(signal[0, :, 4:7, 4:7], weight[1]), int(signal.count_nonzero())
    (True, 18)

    The signal is that of the whole map, up to the rounding of a convolution of another size. A small convolution, one
    that is not two-dimensional, or one whose weights carry a signal runs as usual.
    """
    bound = _arguments(*args, **kwargs)
    if not is_plain(**bound) or _work(**bound) < FEWEST_MACS:
        return func(*args, **kwargs)
    output: Tensor = _Convolution.apply(*bound.values())
    return output


def _arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> dict[str, Any]:
    """Bind the arguments of `F.conv2d`."""
    return locals()


def is_plain(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, **_: Any) -> bool:
    """Return whether a convolution with these arguments of `F.conv2d` may have a backward pass of its own."""
    constants = [value for value in (weight, bias) if value is not None]
    return (
        input.dim() == 4
        and input.device.type == "cpu"  # elsewhere, finding the window costs more than it saves
        and not isinstance(padding, str)
        and not any(value.requires_grad for value in constants)
        and not torch.is_autocast_enabled(input.device.type)
    )


def _work(input: Tensor, weight: Tensor, stride: Any, **_: Any) -> float:
    """Return the approximate number of multiply-accumulates for one image."""
    return input[0, 0].numel() * weight.numel() / math.prod(pair(stride))


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return one size for both axes, or one for each, as (vertical, horizontal).

    >>> pair(3), pair([2]), pair((1, 2))
    ((3, 3), (2, 2), (1, 2))
    """
    vertical, horizontal = (value, value) if isinstance(value, int) else (*value, *value)[:2]
    return vertical, horizontal


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size = x.shape
        ctx.stride, ctx.padding, ctx.dilation = pair(stride), pair(padding), pair(dilation)
        ctx.groups = groups
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (signal,) = signals
        # whether any channel is not zero at each position; amax and amin are faster than a map of booleans
        boxes = [_bounds(some) for some in (signal.amax(1) != 0) | (signal.amin(1) != 0)]
        union = _union(boxes)
        if union is None:
            return signal.new_zeros(ctx.size), *[None] * 6
        together = _mean_area(boxes) >= LARGEST_WINDOW * _area(union)
        if together and _area(union) >= LARGEST_WINDOW * signal[0, 0].numel():
            return _back(ctx, signal, ctx.size, ctx.padding), *[None] * 6
        count, channels, height, width = ctx.size
        if signal.is_contiguous(memory_format=torch.channels_last):
            below = signal.new_zeros(count, height, width, channels).permute(0, 3, 1, 2)
        else:
            below = signal.new_zeros(ctx.size)
        for rows, box in [(slice(None), union)] if together else [(slice(i, i + 1), b) for i, b in enumerate(boxes)]:
            if box is not None:
                _back_through_window(ctx, signal[rows], box, below[rows])
        return below, *[None] * 6


def _back(ctx: Any, signal: Tensor, size: Sequence[int], padding: tuple[int, int]) -> Tensor:
    (weight,) = ctx.saved_tensors
    return conv2d_input(size, weight, signal, ctx.stride, padding, ctx.dilation, ctx.groups)


def _back_through_window(ctx: Any, signal: Tensor, box: tuple[slice, slice], below: Tensor) -> None:
    """Compute the input's window under a window of the signal."""
    kernel = ctx.saved_tensors[0].shape[2:]
    size, inside, target = [len(signal), ctx.size[1]], [], []
    for axis in (0, 1):
        start = box[axis].start * ctx.stride[axis] - ctx.padding[axis]
        length = (box[axis].stop - box[axis].start - 1) * ctx.stride[axis] + ctx.dilation[axis] * (kernel[axis] - 1) + 1
        first = max(start, 0)
        last = max(first, min(start + length, ctx.size[2 + axis]))  # empty if all of it is padding
        size.append(length)
        target.append(slice(first, last))
        inside.append(slice(first - start, last - start))
    window = _back(ctx, signal[:, :, box[0], box[1]], size, (0, 0))
    below[:, :, target[0], target[1]] = window[:, :, inside[0], inside[1]]


def _bounds(some: Tensor) -> tuple[slice, slice] | None:
    """Return the rows and columns that hold all true elements of [H, W]; None if none is true."""
    rows, columns = some.any(1).nonzero().flatten().tolist(), some.any(0).nonzero().flatten().tolist()
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if rows else None


def _union(boxes: Sequence[tuple[slice, slice] | None]) -> tuple[slice, slice] | None:
    some = [box for box in boxes if box is not None]
    if not some:
        return None
    rows, columns = (
        slice(min(box[axis].start for box in some), max(box[axis].stop for box in some)) for axis in (0, 1)
    )
    return rows, columns


def _area(box: tuple[slice, slice]) -> int:
    return (box[0].stop - box[0].start) * (box[1].stop - box[1].start)


def _mean_area(boxes: Sequence[tuple[slice, slice] | None]) -> float:
    return sum(0 if box is None else _area(box) for box in boxes) / len(boxes)
