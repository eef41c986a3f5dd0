"""Incremental forward pass: images that differ from one clean image in a window each.

A local change of the image affects only the activations whose receptive fields contain it. Each layer's output is
recomputed in the window that the change can reach; elsewhere it is copied from the clean image (Nakandala et al. 2019,
"Incremental and Approximate Inference for Faster Occlusion-based Deep CNN Explanations").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.backprop.windowed_convolution import pair
from interpret.network.layers import tensors_in
from interpret.network.operations import is_in_place, operation_name, operation_of
from interpret.network.torch_internals import NO_TORCH_FUNCTION, operator_arguments, wrapper_tensor

LARGEST_WINDOW = 0.75
"""The share of a feature map from which on computing the whole map is as fast as computing the window."""

Box = tuple[int, int]
"""(first, size) along one axis"""


class Windowed(Tensor):
    """B images [B, C, H, W] that each differ from one clean image in a window.

    Local operations run on the windows only. All others run on the whole images, in the default memory layout. A view
    of the images or an in-place change converts them permanently to whole images, which share memory with the view.

    >>> clean = torch.zeros(1, 1, 8, 8)
    >>> images = Windowed.of(clean, torch.ones(2, 1, 2, 2), [(0, 0), (3, 4)])
    >>> blurred = F.avg_pool2d(images, 3, stride=1)
    >>> blurred.shape, blurred.patch.shape
    (torch.Size([2, 1, 6, 6]), torch.Size([2, 1, 4, 4]))
    >>> torch.equal(blurred.whole(), F.avg_pool2d(images.whole(), 3, stride=1))
    True
    """

    clean: Tensor
    """[1, C, H, W]"""
    patch: Tensor
    """[B, C, h, w] the contents of the windows."""
    corners: list[tuple[int, int]]
    """The (row, column) of each window's top left corner; B of them."""
    images: Tensor | None
    """[B, C, H, W] the whole images, after a view or an in-place change; the windows are then unused. None before."""

    __torch_function__ = NO_TORCH_FUNCTION  # type: ignore[assignment]

    @staticmethod
    def of(clean: Tensor, patch: Tensor, corners: Sequence[tuple[int, int]]) -> Windowed:
        """Return B images: a clean image [1, C, H, W] with each of the patches [B, C, h, w] at its corner."""
        size = (len(patch), *clean.shape[1:])
        made: Windowed = wrapper_tensor(Windowed, size, clean)
        made.clean, made.patch, made.corners, made.images = clean, patch, list(corners), None
        return made

    def whole(self) -> Tensor:
        """Return the images as a tensor, in the memory layout of the clean image."""
        if self.images is not None:
            return self.images.clone()
        images = self.clean.repeat(len(self.patch), 1, 1, 1).contiguous(memory_format=layout_of(self.clean))
        height, width = self.patch.shape[2:]
        for image, patch, (top, left) in zip(images, self.patch, self.corners, strict=True):
            image[:, top : top + height, left : left + width] = patch
        return images

    def channel(self, index: int) -> Tensor:
        """Return one channel of the whole images, [B, H, W]."""
        if self.images is not None:
            return self.images[:, index]
        one = slice(index, index + 1)
        return Windowed.of(self.clean[:, one], self.patch[:, one], self.corners).whole()[:, 0]

    def window(self, corners: Sequence[tuple[int, int]], size: Sequence[int], around: Tensor, shift: Box) -> Tensor:
        """Return other windows [B, C, h, w] of the images, with the given corners and size.

        Args:
            corners: the top left corner of each window, in coordinates of `around`.
            size: (height, width) of the windows.
            around: the clean image with its padding.
            shift: the (row, column) of the clean image in `around`.
        """
        count, channels = len(self.patch), self.patch.shape[1]
        windows = torch.empty(
            (count, channels, *size), dtype=self.dtype, device=self.patch.device, memory_format=layout_of(self.clean)
        )
        height, width = self.patch.shape[2:]
        for window, patch, (top, left), (own_top, own_left) in zip(
            windows, self.patch, corners, self.corners, strict=True
        ):
            window.copy_(around[0, :, top : top + size[0], left : left + size[1]])
            down, right = own_top + shift[0] - top, own_left + shift[1] - left
            rows, columns = _overlap(down, height, size[0]), _overlap(right, width, size[1])
            if rows is not None and columns is not None:
                window[:, rows[0], columns[0]] = patch[:, rows[1], columns[1]]
        return windows

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = _with_whole_images(args), _with_whole_images(kwargs or {})
        if not any(map(_is, tensors_in((args, kwargs)))):
            return func(*args, **kwargs)
        rule = _RULES.get(operation_name(func)) or (_pointwise if operation_of(func).is_local else None)
        result = NotImplemented if rule is None else rule(func, args, kwargs)
        if result is not NotImplemented:
            return result
        return _on_whole_images(func, args, kwargs, any_layout=rule is not None)

    def _open(self) -> Tensor:
        """Convert to whole images, whose memory views and in-place changes share."""
        if self.images is None:
            self.images = self.whole().contiguous()
        return self.images


def _on_whole_images(func: Any, args: Any, kwargs: Any, any_layout: bool) -> Any:
    """Run an operation on the whole images; make them contiguous unless its result is the same in any layout."""

    def whole(argument: Any, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(whole(argument, one) for one in value)
        if not _is(value):
            return value
        if argument.alias_info is not None:  # the operation returns a view or changes the argument in place
            return value._open()
        return value.whole() if any_layout else value.whole().contiguous()

    arguments = operator_arguments(func)
    named = {argument.name: argument for argument in arguments}
    return func(
        *(whole(argument, value) for argument, value in zip(arguments, args, strict=False)),
        **{key: whole(named[key], value) for key, value in kwargs.items()},
    )


def layout_of(tensor: Tensor) -> torch.memory_format:
    """Return the memory layout of a tensor [B, C, H, W]: channels-last or contiguous."""
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _with_whole_images(value: Any) -> Any:
    """Replace windowed images that were converted to whole images by plain tensors in a call's arguments."""
    if isinstance(value, Windowed) and value.images is not None:
        return value.images
    if isinstance(value, (list, tuple)):
        return type(value)(_with_whole_images(one) for one in value)
    if isinstance(value, dict):
        return {key: _with_whole_images(one) for key, one in value.items()}
    return value


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice] | None:
    """Intersect [start, start + length) with [0, size): return its slices in the latter and in the former, or None."""
    first, last = max(start, 0), min(start + length, size)
    return (slice(first, last), slice(first - start, last - start)) if first < last else None


def _pointwise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an elementwise operation on the clean image and on the windows."""
    windowed = [value for value in args if isinstance(value, Windowed)]
    others = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and not _is(value)]
    # an in-place operation changes only its first argument
    in_place = is_in_place(func)
    if (in_place and not _is(args[0])) or any(_is(value) for value in kwargs.values()) or _makes_view(func):
        return NotImplemented
    normalises = operation_name(func) == "batch_norm"
    if normalises and _argument(func, args, "training"):  # the batch statistics depend on the whole images
        return NotImplemented
    if not normalises and not all(_is_alike_everywhere(value) for value in others):
        return NotImplemented
    if len({tuple(one.shape) for one in windowed}) > 1:
        return NotImplemented
    corners, patches = _aligned(windowed)
    if patches is None:
        return NotImplemented
    own = iter(patches)
    clean = func(*(value.clean if _is(value) else value for value in args), **kwargs)
    patch = func(*(next(own) if _is(value) else value for value in args), **kwargs)
    if in_place:
        args[0].patch, args[0].corners = patch, corners
        return args[0]
    if isinstance(clean, tuple):  # batch norm also returns statistics, which are unused
        return (Windowed.of(clean[0], patch[0], corners), *clean[1:])
    return Windowed.of(clean, patch, corners)


def _is(value: Any) -> bool:
    return isinstance(value, Windowed)


def _makes_view(func: Any) -> bool:
    """Return whether an operator returns a view of an operand."""
    aliases = (argument.alias_info for argument in operator_arguments(func))
    return any(alias is not None and not alias.is_write for alias in aliases)


def _argument(func: Any, args: tuple[Any, ...], name: str) -> Any:
    """Return an operator's argument by name; None if it has none of that name."""
    return next((value for one, value in zip(operator_arguments(func), args, strict=False) if one.name == name), None)


def _is_alike_everywhere(value: Tensor) -> bool:
    """Return whether a tensor is the same at every position and for every image, such as one value per channel."""
    return value.dim() == 0 or (value.dim() in (3, 4) and value.shape[-2:] == (1, 1) and value.shape[:-3] in ((), (1,)))


def _aligned(images: Sequence[Windowed]) -> tuple[list[tuple[int, int]], list[Tensor] | None]:
    """Return windows common to several sets of images, and each set's contents in them; None if they are too large."""
    first = images[0]
    if len(images) == 1 or all(
        one.corners == first.corners and one.patch.shape[2:] == first.patch.shape[2:] for one in images
    ):
        return first.corners, [one.patch for one in images]
    boxes = [
        _join((one.corners[row][axis], one.patch.shape[2 + axis]) for one in images)
        for row in range(len(first.patch))
        for axis in (0, 1)
    ]
    corners, size = _uniform(boxes[::2], boxes[1::2], first.clean.shape[2:])
    if _is_large(size, first.clean.shape[2:]):
        return corners, None
    return corners, [one.window(corners, size, one.clean, (0, 0)) for one in images]


def _join(boxes: Iterable[Box]) -> Box:
    boxes = list(boxes)
    first, last = min(start for start, _ in boxes), max(start + size for start, size in boxes)
    return first, last - first


def _uniform(
    rows: Sequence[Box], columns: Sequence[Box], map_size: Sequence[int]
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the corners and the common size of windows inside the map that contain the given boxes."""
    height, width = max(size for _, size in rows), max(size for _, size in columns)
    tops = (max(0, min(first, map_size[0] - height)) for first, _ in rows)
    lefts = (max(0, min(first, map_size[1] - width)) for first, _ in columns)
    return list(zip(tops, lefts, strict=True)), (height, width)


def _is_large(size: Sequence[int], map_size: Sequence[int]) -> bool:
    return size[0] * size[1] >= LARGEST_WINDOW * map_size[0] * map_size[1]


def _slide(
    run: Callable[[Tensor], Tensor],
    images: Windowed,
    clean: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    fill: float,
) -> Any:
    """Run a convolution or pooling on the windows that the change can reach.

    Args:
        run: the operation, without padding.
        images: its input.
        clean: its output for the clean image.
        kernel, stride, padding, dilation: as (vertical, horizontal).
        fill: the padding value.
    """
    reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
    bounds: list[list[Box]] = [[], []]
    for corner in images.corners:
        for axis in (0, 1):
            start, length = corner[axis], images.patch.shape[2 + axis]
            first = max(0, -(-(start + padding[axis] - reach[axis]) // stride[axis]))
            last = min(clean.shape[2 + axis] - 1, (start + length - 1 + padding[axis]) // stride[axis])
            bounds[axis].append((min(first, clean.shape[2 + axis] - 1), max(last - first + 1, 1)))
    corners, size = _uniform(bounds[0], bounds[1], clean.shape[2:])
    if _is_large(size, clean.shape[2:]):
        return NotImplemented
    # the padding at the far border that the last position needs: in ceil mode, more than `padding`
    far = [
        max(0, (clean.shape[2 + axis] - 1) * stride[axis] + reach[axis] + 1 - padding[axis] - images.shape[2 + axis])
        for axis in (0, 1)
    ]
    around = F.pad(images.clean, (padding[1], far[1], padding[0], far[0]), value=fill)
    inputs = images.window(
        [(top * stride[0], left * stride[1]) for top, left in corners],
        [(size[axis] - 1) * stride[axis] + reach[axis] + 1 for axis in (0, 1)],
        around,
        (padding[0], padding[1]),
    )
    return Windowed.of(clean, run(inputs), corners)


def _convolution(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    images, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    if kwargs or transposed or not _is(images) or weight.dim() != 4 or _is(weight):
        return NotImplemented
    clean = func(images.clean, *args[1:])

    def run(inputs: Tensor) -> Tensor:
        result: Tensor = func(inputs, weight, bias, stride, [0, 0], dilation, transposed, output_padding, groups)
        return result

    return _slide(run, images, clean, weight.shape[2:], pair(stride), pair(padding), pair(dilation), 0.0)


def _with_defaults(args: tuple[Any, ...], *defaults: Any) -> tuple[Any, ...]:
    """Add defaults for omitted positional arguments; the first two have none."""
    return (*args, *defaults[len(args) - 2 :])


def _max_pool(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    images, kernel, stride, padding, dilation, _ = _with_defaults(args, [], 0, 1, False)
    if kwargs or not _is(images):
        return NotImplemented
    clean, indices = func(images.clean, *args[1:])
    kernel, stride = pair(kernel), pair(stride or kernel)

    def run(inputs: Tensor) -> Tensor:
        result: Tensor = func(inputs, kernel, stride, [0, 0], dilation)[0]
        return result

    result = _slide(run, images, clean, kernel, stride, pair(padding), pair(dilation), -math.inf)
    if result is NotImplemented:
        return func(images.whole(), *args[1:])
    return result, indices.expand(len(images), -1, -1, -1)  # the clean image's indices: no operation here unpools


def _average_pool(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    images, kernel, stride, padding, ceil_mode, counts_padding, divisor = _with_defaults(args, [], 0, False, True, None)
    # the divisor differs between positions: run the whole images
    differs = ceil_mode or (any(pair(padding)) and not counts_padding)
    if kwargs or not _is(images) or (differs and divisor is None):
        return NotImplemented
    clean = func(images.clean, *args[1:])
    kernel, stride = pair(kernel), pair(stride or kernel)

    def run(inputs: Tensor) -> Tensor:
        result: Tensor = func(inputs, kernel, stride, [0, 0], False, True, divisor)
        return result

    return _slide(run, images, clean, kernel, stride, pair(padding), (1, 1), 0.0)


def _cat(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parts, dim = args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if dim not in (1, -3) or not all(_is(part) for part in parts):
        return NotImplemented
    corners, patches = _aligned(parts)
    if patches is None:
        return NotImplemented
    return Windowed.of(torch.cat([part.clean for part in parts], 1), torch.cat(patches, 1), corners)


_RULES: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _average_pool,
    "cat": _cat,
}
