"""Cones: run at each layer only the positions that one neuron sees, on nothing but its receptive field.

A part that is cut out of an image runs with padding at its edges, and so do positions that the neuron does not see.
Without that padding, each layer's map shrinks to what the next one needs, and the neuron's own layer has one position.
The values are those in the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.backprop.input_signal import convolve
from interpret.backprop.windowed_convolution import pair
from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, is_in_place, operation_name, operation_of
from interpret.support.errors import InterpretError


class OutsideCones(InterpretError):  # noqa: N818 - what sees more runs as a crop
    """An operation that does not run on a part of a map, or whose part is empty."""

    def __init__(self) -> None:
        super().__init__("an operation does not run on parts of a map")


@dataclass(frozen=True)
class Part:
    """Where a tensor [..., h, w] lies in the map of the whole image."""

    corner: tuple[int, int]
    """Its first row and column."""
    whole: tuple[int, int]
    """The size of the map."""


class ConePass(TorchFunctionMode):
    """A forward pass in which an image is a part of a larger one, and layers run where that part suffices.

    >>> from torch import nn
    >>> network, image = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)), torch.rand(1, 3, 20, 20)
    >>> part = image[:, :, 5:9, 5:9].clone()
    >>> with ConePass(part, Part((5, 5), (20, 20))) as cone:
    ...     found = network(part)
    >>> found.shape, cone.part_of(found)
    (torch.Size([1, 4, 1, 1]), Part(corner=(3, 3), whole=(10, 10)))
    >>> torch.allclose(found, network(image)[:, :, 3:4, 3:4], atol=1e-5)
    True

    Raises:
        OutsideCones: an operation that is not known to run on parts.
    """

    def __init__(self, image: Tensor, part: Part) -> None:
        super().__init__()
        self._parts = WeakTensorKeyDictionary()
        self._parts[image] = part

    def part_of(self, value: Tensor) -> Part | None:
        """Return the part of the map that a tensor is; None for one that does not depend on positions."""
        found: Part | None = self._parts.get(value)
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        parts = [part for value in tensors_in((args, kwargs)) if (part := self.part_of(value)) is not None]
        operation, name = operation_of(func), operation_name(func)
        if not parts or (operation.backward is Backward.QUERY and operation.grid is None):
            return func(*args, **kwargs)
        if name in WINDOWS:
            return self._slide(func, WINDOWS[name], args, kwargs)
        if operation.grid is Grid.PAD:
            return self._pad(func, *args, **kwargs)
        if operation.grid is Grid.CONCATENATE and _along_channels(args, kwargs, 1):
            aligned, part = self._aligned(args[0])
            return self._noted(func(aligned, *args[1:], **kwargs), part)
        if operation.grid is Grid.SPLIT and _along_channels(args, kwargs, 2):
            return self._noted(func(*args, **kwargs), parts[0])
        if not (operation.is_local or operation.grid is Grid.NEW) or _takes_statistics(func, args, kwargs):
            raise OutsideCones
        values, part = self._aligned([*args, *kwargs.values()])
        if is_in_place(func) and values[0] is not args[0]:
            raise OutsideCones  # it would write into a part of its operand alone
        own, others = values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))
        if func is F.batch_norm:
            func = _normalise
        return self._noted(func(*own, **others), part)

    def _noted(self, result: Any, part: Part) -> Any:
        for value in tensors_in(result):
            self._parts[value] = part
        return result

    def _aligned(self, values: Sequence[Any]) -> tuple[list[Any], Part]:
        """Return operands, cut to the positions that all of them have."""
        parts = [self.part_of(value) if isinstance(value, Tensor) else None for value in values]
        maps = [(value, part) for value, part in zip(values, parts, strict=True) if part is not None]
        constants = [v for v, part in zip(values, parts, strict=True) if isinstance(v, Tensor) and part is None]
        if len({part.whole for _, part in maps}) > 1 or any(_has_positions(value) for value in constants):
            raise OutsideCones
        first = [max(part.corner[axis] for _, part in maps) for axis in (0, 1)]
        stop = [min(part.corner[axis] + value.shape[axis - 2] for value, part in maps) for axis in (0, 1)]
        if any(end <= begin for begin, end in zip(first, stop, strict=True)):
            raise OutsideCones
        found = []
        for value, part in zip(values, parts, strict=True):
            if part is not None:
                around = [
                    (part.corner[axis] - first[axis], stop[axis] - part.corner[axis] - value.shape[axis - 2])
                    for axis in (0, 1)
                ]
                value = _padded(value, around, 0.0)
            found.append(value)
        return found, Part((first[0], first[1]), maps[0][1].whole)

    def _slide(self, func: Callable[..., Any], window: Window, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a convolution or pooling at the positions whose windows the part contains."""
        given = window.arguments(*args, **kwargs)
        x = given["input"]
        part, fill = self.part_of(x), window.fill(given)
        if part is None or x.dim() != 4 or isinstance(given["padding"], str) or given.get("return_indices"):
            raise OutsideCones
        kernel = pair(given["weight"].shape[2:] if "weight" in given else given["kernel_size"])
        stride = pair(given["stride"] or kernel)
        around, corner, whole = [], [], []
        for axis in (0, 1):
            step, padding, begin = stride[axis], pair(given["padding"])[axis], part.corner[axis]
            span = pair(given.get("dilation", 1))[axis] * (kernel[axis] - 1) + 1
            side, extent = part.whole[axis], x.shape[2 + axis]
            count = _positions(side, span, step, padding, given.get("ceil_mode", False))
            first = 0 if begin == 0 else -(-(begin + padding) // step)
            last = count - 1 if begin + extent == side else (begin + extent + padding - span) // step
            if last < first:
                raise OutsideCones
            start, end = first * step - padding, last * step - padding + span
            around.append((begin - start, end - begin - extent))
            corner.append(first)
            whole.append(count)
        if fill is None and any(more > 0 for pads in around for more in pads):
            raise OutsideCones
        cut = _padded(x, around, fill or 0.0)
        given |= {"input": cut, "padding": 0, "stride": stride}
        if "ceil_mode" in given:
            given["ceil_mode"] = False
        result = convolve(given) if "weight" in given else func(*given.values())
        return self._noted(result, Part((corner[0], corner[1]), (whole[0], whole[1])))

    def _pad(
        self, func: Callable[..., Any], input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None
    ) -> Any:
        """Pad at those borders that the part touches."""
        part = self.part_of(input)
        if part is None or mode != "constant" or len(pad) > 4 or min(pad) < 0:
            raise OutsideCones
        sides = [*pad, 0, 0][:4]
        around, corner, whole = list(sides), [], []
        for axis, (before, after) in enumerate((sides[2:], sides[:2])):
            begin, side = part.corner[axis], part.whole[axis]
            if begin > 0:
                around[2 - 2 * axis] = 0
            if begin + input.shape[axis - 2] < side:
                around[3 - 2 * axis] = 0
            corner.append(begin + before if begin > 0 else 0)
            whole.append(side + before + after)
        return self._noted(func(input, around, mode, value), Part((corner[0], corner[1]), (whole[0], whole[1])))


def _padded(value: Tensor, around: Sequence[tuple[int, int]], fill: float) -> Tensor:
    """Return a map padded before and behind, along y and x; cut where that is negative, and itself where it is zero.

    Cutting as padding keeps the memory layout in the backward pass, too, unlike slices.
    """
    return F.pad(value, (*around[1], *around[0]), value=fill) if any(map(any, around)) else value


def _positions(side: int, span: int, stride: int, padding: int, up: bool) -> int:
    """Return the number of positions of a window along a side.

    >>> _positions(113, 3, 2, 0, True), _positions(112, 3, 2, 0, True), _positions(112, 3, 2, 1, False)
    (56, 56, 56)
    """
    free = side + 2 * padding - span
    count = (-(-free // stride) if up else free // stride) + 1
    # a window that would start beyond the image and its padding is left out
    return count - 1 if up and (count - 1) * stride >= side + padding else count


def _has_positions(constant: Tensor) -> bool:
    """Return whether a tensor may differ between positions of a map."""
    return constant.dim() > 1 and max(constant.shape[-2:]) > 1


def _along_channels(args: Any, kwargs: Mapping[str, Any], place: int) -> bool:
    return kwargs.get("dim", args[place] if len(args) > place else 0) in (1, -3)


def _normalise(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise a batch by constants, as one product and sum, whose backward pass is faster than PyTorch's."""
    if input.dtype != running_var.dtype:  # under autocast
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    scale = (running_var + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - running_mean * scale
    by_channel = (1, -1, *[1] * (input.dim() - 2))
    return torch.addcmul(shift.reshape(by_channel), input, scale.reshape(by_channel))


def _takes_statistics(func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operation takes statistics from the image."""
    if operation_of(func).grid is not Grid.STATISTICS:
        return False
    return func is not F.batch_norm or bool(kwargs.get("training", args[5] if len(args) > 5 else False))


# ---- operations on windows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """An operation on windows: how its arguments are called, and the value of its padding, None if it has none."""

    arguments: Callable[..., dict[str, Any]]
    fill: Callable[[Mapping[str, Any]], float | None]


def _conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> dict[str, Any]:  # fmt: skip
    return locals()


def _max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> dict[str, Any]:  # fmt: skip
    found = locals()
    return found if return_indices else {name: found[name] for name in found if name != "return_indices"}


def _avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    return locals()


def _fill_of_average(given: Mapping[str, Any]) -> float | None:
    """Return 0 where padding counts in every mean."""
    return 0.0 if given["count_include_pad"] and not given["ceil_mode"] else None


WINDOWS = {
    "conv2d": Window(_conv2d, lambda _: 0.0),
    "max_pool2d": Window(_max_pool2d, lambda _: -torch.inf),
    "avg_pool2d": Window(_avg_pool2d, _fill_of_average),
}
