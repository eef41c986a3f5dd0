"""Positions: which dimensions of each tensor are the rows and columns of a grid over the image.

A map [B, C, H, W] has them in two dimensions of their own, tokens [B, N, C] in one. They are followed through every
operation, also where each position sees the whole image, as behind attention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, operation_name

Part = tuple[int, int]
"""An axis of the input (of an image, 0 is y and 1 is x), and its number of positions."""
Positions = tuple[tuple[Part, ...], ...]
"""For each dimension of a tensor the axes that it counts, the slowest first: none, one, or several in one dimension."""


class Arrangement(NamedTuple):
    """Where the units and the positions of a layer's output are."""

    units: int
    """The dimension that counts the units, from the last."""
    grid: tuple[int, ...] | None
    """The number of positions along each axis, rows and columns; None without positions."""


def of_image(shape: Sequence[int]) -> Positions:
    """Return the positions of an image [B, C, H, W].

    >>> of_image((1, 3, 8, 6))
    ((), (), ((0, 8),), ((1, 6),))
    """
    return ((), (), *(((axis, size),) for axis, size in enumerate(shape[2:])))


def without(shape: Sequence[int]) -> Positions:
    """Return the positions of a tensor that has none, such as a weight."""
    return ((),) * len(shape)


def arrangement(shape: Sequence[int], positions: Positions | None, last: bool, axes: int = 2) -> Arrangement | None:
    """Return where units and positions are in a layer's output; None if the positions are no known grid.

    >>> arrangement((1, 48, 16), ((), ((0, 8), (1, 6)), ()), last=True)
    Arrangement(units=-1, grid=(8, 6))
    >>> arrangement((1, 49, 16), ((), (), ()), last=True) is None  # a token more than positions
    True

    Args:
        shape: the output's shape, with the batch.
        positions: what its dimensions count; None if that is not known.
        last: whether the units are in the last dimension, as those of a linear layer are.
        axes: the number of axes of the input.
    """
    if len(shape) < 2:
        return None
    if len(shape) == 2:
        return Arrangement(-1, None)
    is_map = Arrangement(-axes - 1, tuple(shape[2:])) if len(shape) == axes + 2 and not last else None
    if positions is None or positions[0]:
        return is_map
    others = [dim for dim in range(1, len(shape)) if not positions[dim] and shape[dim] > 1]
    units = len(shape) - 1 if last else others[0] if others else next((d for d in (1, -1) if not positions[d]), 1)
    parts = [part for place in positions for part in place]
    found = [axis for axis, _ in parts]
    if set(others) - {units} or positions[units] or found != sorted(set(found)) or max(found, default=0) >= axes:
        return is_map
    sizes = dict(parts)
    return Arrangement(units - len(shape), tuple(sizes.get(axis, 1) for axis in range(axes)))


# ---- operations ------------------------------------------------------------------------------------------------------


def positions_after(call: Any) -> list[Positions | None]:
    """Return what the dimensions of each result of an operation count; None where it is not known.

    `call` is an `interpret.tracing.receptive_field.Call`, whose operands know their positions.
    """
    if not call.results:
        return []
    shapes = [tuple(result.shape) for result in call.results]
    given = [operand.positions for operand in call.operands]
    if call.operation.grid is Grid.NEW or (given and all(one is not None and not any(one) for one in given)):
        return [without(shape) for shape in shapes]
    if not any(one is not None for one in given):
        return [None] * len(shapes)
    name, grid = operation_name(call.func), call.operation.grid
    if grid in _WINDOWS or name in _OTHER_WINDOWS:
        found = [_windowed(call, shape) for shape in shapes]
    elif grid in (Grid.LAYOUT, Grid.SPLIT):
        found = _moved(call, shapes)
    elif name in _MATRICES:
        found = [_MATRICES[name](call)] * len(shapes)
    elif grid in _FOLLOW:
        found = [_FOLLOW[grid](call, shape) for shape in shapes]
    elif call.operation.backward is Backward.NORMALISATION:
        found = [_same(call, shape) for shape in shapes]
    else:
        found = [None] * len(shapes)
    return [
        one if one is not None and len(one) == len(shape) else None for one, shape in zip(found, shapes, strict=True)
    ]


def _same(call: Any, shape: tuple[int, ...]) -> Positions | None:
    """Those of the first operand."""
    first = call.operands[0]
    return first.positions if first.shape == shape else None


def _together(call: Any, shape: tuple[int, ...]) -> Positions | None:
    """Those of all operands, which are broadcast."""
    return _joined(((operand.shape, operand.positions) for operand in call.operands), shape)


def _joined(operands: Iterable[tuple[tuple[int, ...], Positions | None]], shape: tuple[int, ...]) -> Positions | None:
    """Return the positions of operands that are broadcast to a shape.

    An operand of unknown positions adds to what is at the known ones, as the branch of a residual block does.
    """
    joined: list[tuple[Part, ...]] = [()] * len(shape)
    unknown = False
    for own, positions in operands:
        unknown |= positions is None
        for dim, (size, place) in enumerate(zip(reversed(own), reversed(positions or ()), strict=False), start=1):
            if place and size == shape[-dim]:
                if joined[-dim] not in ((), place):
                    return None
                joined[-dim] = place
    return None if unknown and not any(joined) else tuple(joined)


def _along(call: Any, shape: tuple[int, ...]) -> Positions | None:
    """Those of the first operand, without the dimensions that vanish."""
    first = call.operands[0]
    if first.positions is None:
        return None
    dims = call.argument(call.operation.dim, "dim")
    rank = len(first.shape)
    if dims is None or isinstance(dims, bool):
        return first.positions if shape == first.shape else without(shape)
    dims = {dim % rank for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}
    if len(shape) != rank:
        return tuple(place for dim, place in enumerate(first.positions) if dim not in dims)
    return tuple(
        place if size == before else tuple((axis, 1) for axis, _ in place)
        for place, before, size in zip(first.positions, first.shape, shape, strict=True)
    )


def _extremum(call: Any, shape: tuple[int, ...]) -> Positions | None:
    return _together(call, shape) if len(call.operands) > 1 else _along(call, shape)


def _concatenated(call: Any, shape: tuple[int, ...]) -> Positions | None:
    """Tensors one after the other; along positions, these are no grid any more."""
    dim = call.argument(1, "dim", 0) % len(shape)
    stacked = operation_name(call.func) == "stack"
    rest = tuple(size for d, size in enumerate(shape) if d != dim)
    parts = []
    for operand in call.operands:
        own, positions = operand.shape, operand.positions
        if not stacked:
            own = own[:dim] + own[dim + 1 :]
            positions = None if positions is None else positions[:dim] + positions[dim + 1 :]
        parts.append((own, positions))
    joined = _joined(parts, rest)
    return None if joined is None else (*joined[:dim], (), *joined[dim:])


def _linear(call: Any, _shape: tuple[int, ...]) -> Positions | None:
    first = call.operands[0].positions
    return None if first is None else (*first[:-1], ())


def _windowed(call: Any, shape: tuple[int, ...]) -> Positions | None:
    """Convolutions, pools and resampling: the same axes, of another size.

    In two dimensions, the last two of the result are the rows and columns of a map, whatever was known before.
    """
    first = call.operands[0]
    count = len(shape) - 2 if call.operation.grid in (Grid.RESAMPLE, Grid.WINDOW) else axes_of(call)
    if len(first.shape) != len(shape) or len(shape) <= count:
        return None
    before = first.positions or without(shape)
    found: list[tuple[Part, ...]] = [() if dim else before[0] for dim in range(len(shape) - count)]
    if len(shape) == count + 2 and not call.operation.mixes_units:
        found[1] = before[1]
    for dim in range(-count, 0):
        place, size = before[dim], shape[dim]
        if len(place) == 1:
            place = ((place[0][0], size),)
        elif size != first.shape[dim] and place:
            place = ()  # windows over tokens in a row, which reach beyond a line of the grid
        found.append(place)
    if count == 2 and not found[-1] and not found[-2]:
        found[-2:] = ((0, shape[-2]),), ((1, shape[-1]),)
    return tuple(found)


def axes_of(call: Any) -> int:
    """Return the number of axes that an operation over windows works along: that in its name, or two."""
    named = re.search(r"(\d)d(_with_indices)?$", operation_name(call.func))
    return int(named[1]) if named else 2


def _padded(call: Any, shape: tuple[int, ...]) -> Positions | None:
    first = call.operands[0]
    if first.positions is None:
        return None
    return tuple(
        place if size == before else ((place[0][0], size),) if len(place) == 1 else ()
        for place, before, size in zip(first.positions, first.shape, shape, strict=True)
    )


# ---- products of matrices --------------------------------------------------------------------------------------------


def _matrices(call: Any) -> Positions | None:
    """Rows of the first, columns of the second factor."""
    one, other = call.operands[-2:]
    if operation_name(call.func) == "rmatmul":
        one, other = other, one
    if len(one.shape) < 2 or len(other.shape) < 2:
        return None
    before = _joined(
        (
            (operand.shape[:-2], None if operand.positions is None else operand.positions[:-2])
            for operand in (one, other)
        ),
        torch.broadcast_shapes(one.shape[:-2], other.shape[:-2]),
    )
    if one.positions is None or other.positions is None:
        return None
    return (*(before or ()), one.positions[-2], other.positions[-1])


def _einsum(call: Any) -> Positions | None:
    equation = call.args[0]
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    given, result = equation.replace(" ", "").split("->")
    places: dict[str, tuple[Part, ...]] = {}
    for letters, operand in zip(given.split(","), call.operands, strict=True):
        if operand.positions is None:
            return None
        for letter, place in zip(letters, operand.positions, strict=True):
            places[letter] = places.get(letter) or place
    return tuple(places[letter] for letter in result)


def _attention(call: Any) -> Positions | None:
    """The queries' positions."""
    first = call.operands[0].positions
    return None if first is None else (*first[:-1], ())


_MATRICES: dict[str, Callable[[Any], Positions | None]] = {
    **dict.fromkeys("matmul rmatmul mm bmm addmm baddbmm".split(), _matrices),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _attention,
}

_WINDOWS = (
    Grid.CONVOLUTION,
    Grid.TRANSPOSED_CONVOLUTION,
    Grid.MAX_POOL,
    Grid.AVERAGE_POOL,
    Grid.POWER_POOL,
    Grid.ADAPTIVE_POOL,
    Grid.RESAMPLE,
    Grid.WINDOW,
)
_OTHER_WINDOWS = ("max_unpool2d", "max_unpool3d", "pixel_shuffle", "pixel_unshuffle", "deform_conv2d")
"""Operations of other kinds that keep the axes too, with another number of positions."""

_FOLLOW: dict[Grid | None, Callable[[Any, tuple[int, ...]], Positions | None]] = {
    **dict.fromkeys((Grid.ELEMENTWISE, Grid.CONVERT, Grid.STATISTICS, Grid.CHANNELS, Grid.TRAILING), _same),
    Grid.BROADCAST: _together,
    Grid.LAST_DIMENSION: _linear,
    Grid.ALONG: _along,
    Grid.EXTREMUM: _extremum,
    Grid.CONCATENATE: _concatenated,
    Grid.PAD: _padded,
}


# ---- layout ----------------------------------------------------------------------------------------------------------


def _moved(call: Any, shapes: list[tuple[int, ...]]) -> list[Positions | None]:
    """Operations that move elements: run again on the coordinates of the elements, which show where they went."""
    first = call.operands[0]
    if first.positions is None or not call.args or call.args[0] is not first.tensor:
        return [None] * len(shapes)
    key = key_of((call.func, first.shape, first.positions, call.args[1:], call.kwargs))
    found = _KNOWN.get(key) if key is not None else None
    if found is None:
        found = _move(call, first, shapes)
        if key is not None and len(_KNOWN) < 1000:
            _KNOWN[key] = found
    return found


_KNOWN: dict[Any, list[Positions | None]] = {}


def key_of(value: Any) -> Any:
    """Return an operation's arguments as a hashable key; None if there are tensors among them."""
    if isinstance(value, (list, tuple)):
        parts = [key_of(part) for part in value]
        return None if None in parts else (type(value).__name__, *parts)
    if isinstance(value, dict):
        return key_of([*value.items()])
    if isinstance(value, slice):
        return key_of(("slice", value.start, value.stop, value.step))
    known = getattr(value, "__hash__", None) is not None and not isinstance(value, Tensor)
    return (type(value).__name__, value) if known else None  # with its type, since 1 == True


def _move(call: Any, first: Any, shapes: list[tuple[int, ...]]) -> list[Positions | None]:
    axes, moved = [], []
    for dim, place in enumerate(first.positions, start=-len(first.shape)):
        for index, (axis, size) in enumerate(place):
            if size == 1:
                continue
            try:
                moved.append(moved_coordinates(call, dim, size, math.prod(n for _, n in place[index + 1 :])))
            except (RuntimeError, IndexError, ValueError, TypeError):
                return [None] * len(shapes)
            axes.append(axis)
    if not axes:
        return [without(shape) for shape in shapes]
    return [_read(axes, [found[n] for found in moved], shape) for n, shape in enumerate(shapes)]


def moved_coordinates(call: Any, dim: int, size: int, period: int) -> list[Tensor]:
    """Return where an operation moves the elements of its first operand, by their coordinates along an axis.

    The axis is of a size; along the dimension `dim`, counted from the last, each coordinate stands `period` times.
    """
    first = call.operands[0]
    device = "cpu" if first.tensor.is_meta else first.tensor.device
    line = torch.arange(first.shape[dim], dtype=torch.int32, device=device) // period % size
    places = line.reshape([-1] + [1] * (-dim - 1)).expand(first.shape).contiguous()
    return list(tensors_in(call.func(places, *call.args[1:], **call.kwargs)))


def _read(axes: list[int], moved: list[Tensor], shape: tuple[int, ...]) -> Positions | None:
    """Return what the dimensions of a tensor count, from the coordinates of its elements along axes."""
    found: list[list[tuple[int, Part, Tensor]]] = [[] for _ in shape]
    for axis, places in zip(axes, moved, strict=True):
        if tuple(places.shape) != shape or not places.numel():
            return None
        lines = []
        for dim, size in enumerate(shape):
            line = places[tuple(slice(None) if d == dim else 0 for d in range(len(shape)))]
            line = line - line[0]
            if size > 1 and bool(line.any()):
                lines.append((dim, line))
        if len(lines) > 1:
            return None  # one axis in several dimensions, as in windows
        whole = places[(0,) * len(shape)].clone()
        for dim, line in lines:
            whole = whole + line.reshape([-1 if d == dim else 1 for d in range(len(shape))])
            period = int(line.ne(0).nonzero()[0])
            found[dim].append((period, (axis, int(line.max()) + 1), line))
        if not bool((places == whole).all()):
            return None
    read: list[tuple[Part, ...]] = []
    for size, parts in zip(shape, found, strict=True):
        parts.sort(key=lambda part: -part[0])
        if len(parts) == 1 and bool((parts[0][2].diff() == parts[0][2][1]).all()) and int(parts[0][2][1]) > 0:
            read.append(((parts[0][1][0], size),))  # also every second position
        elif _enumerates([(part[1], part[2]) for part in parts], size):
            read.append(tuple(part[1] for part in parts))
        else:
            return None
    return tuple(read)


def _enumerates(parts: list[tuple[Part, Tensor]], size: int) -> bool:
    """Return whether a dimension counts all positions of axes, the last one fastest."""
    sizes = [part[1] for part, _ in parts]
    if parts and math.prod(sizes) != size:
        return False
    count = torch.arange(size, device=parts[0][1].device) if parts else torch.empty(0)
    return all(
        bool((line == count // math.prod(sizes[index + 1 :]) % sizes[index]).all())
        for index, (_, line) in enumerate(parts)
    )
