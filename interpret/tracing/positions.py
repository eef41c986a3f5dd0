"""Positions: which dimensions of each tensor are the rows and columns of a grid over the image.

A map [B, C, H, W] has them in two dimensions of their own, tokens [B, N, C] in one, and tokens in windows [B·P, N, C]
have some in each of two. They are followed through every operation, also where each position sees the whole image, as
behind attention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, operation_name


class Part(NamedTuple):
    """What a dimension counts of an axis: all of its positions, or one digit of their number.

    Where a map of 56 rows is cut into windows of 7 rows, one dimension counts the 8 windows and another the 7 rows in a
    window: the row is 7 times the one plus the other.
    """

    axis: int
    """An axis of the input (of an image, 0 is y and 1 is x), `OTHER` or `IMAGES`."""
    size: int
    """How many there are to count."""
    step: int = 1
    """The distance of neighbours in positions."""
    order: tuple[int, ...] | None = None
    """The positions in the order in which the axis now has them, if it was rolled or flipped."""


OTHER, IMAGES = -1, -2
"""What is no axis: units, for example, and the images of a batch."""

Positions = tuple[tuple[Part, ...], ...]
"""For each dimension of a tensor the axes that it counts, the slowest first: none, one, or several in one dimension."""


class Arrangement(NamedTuple):
    """Where the units and the positions of a layer's output are."""

    units: int
    """The dimension that counts the units, from the last."""
    grid: tuple[int, ...] | None
    """The number of positions along each axis, rows and columns; None without positions."""
    order: tuple[int, ...] | None = None
    """For each position, row by row, its place among all those of the output; None if they are in this order."""
    parts: int = 1
    """Into how many parts along the first dimension the positions of one image are divided."""


def of_image(shape: Sequence[int]) -> Positions:
    """Return the positions of an image [B, C, H, W].

    >>> [[tuple(part)[:2] for part in place] for place in of_image((1, 3, 8, 6))]
    [[], [], [(0, 8)], [(1, 6)]]
    """
    images = (Part(IMAGES, shape[0]),) if shape[0] > 1 else ()
    return (images, (), *((Part(axis, size),) for axis, size in enumerate(shape[2:])))


def without(shape: Sequence[int]) -> Positions:
    """Return the positions of a tensor that has none, such as a weight."""
    return ((),) * len(shape)


def arrangement(shape: Sequence[int], positions: Positions | None, last: bool, axes: int = 2) -> Arrangement | None:
    """Return where units and positions are in a layer's output; None if the positions are no known grid.

    >>> arrangement((1, 48, 16), ((), (Part(0, 8), Part(1, 6)), ()), last=True)
    Arrangement(units=-1, grid=(8, 6), order=None, parts=1)
    >>> arrangement((1, 49, 16), ((), (), ()), last=True) is None  # a token more than positions
    True
    >>> arrangement((2, 3, 16), ((Part(0, 2),), (Part(1, 3),), ()), last=True)  # rows are parts
    Arrangement(units=-1, grid=(2, 3), order=(0, 1, 2, 3, 4, 5), parts=2)

    Args:
        shape: the output's shape, with the batch.
        positions: what its dimensions count; None if that is not known.
        last: whether the units are in the last dimension, as those of a linear layer are.
        axes: the number of axes of the input.
    """
    if len(shape) < 2:
        return None
    in_parts = positions is not None and bool(positions[0])
    if len(shape) == 2 and not in_parts:
        return Arrangement(-1, None)
    is_map = Arrangement(-axes - 1, tuple(shape[2:])) if len(shape) == axes + 2 and not last else None
    if positions is None:
        return is_map
    others = [dim for dim in range(1, len(shape)) if not positions[dim] and shape[dim] > 1]
    units = len(shape) - 1 if last else others[0] if others else next((d for d in (1, -1) if not positions[d]), 1)
    units %= len(shape)
    if set(others) - {units} or positions[units]:
        return is_map
    if is_map and not in_parts and all(_is_axis(place, positions) for place in positions[2:]):
        return is_map  # also a transposed one
    ordered = _ordered([place for dim, place in enumerate(positions) if dim != units], axes)
    if ordered is None:
        return is_map
    grid, order = ordered
    if not in_parts and order == tuple(range(len(order))):
        return Arrangement(units - len(shape), grid)
    return Arrangement(units - len(shape), grid, order, shape[0] if in_parts else 1)


def _ordered(places: Sequence[tuple[Part, ...]], axes: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the grid that dimensions count, and for each of its positions its place among theirs; None if no grid."""
    parts = [part for place in places for part in place]
    if any(not 0 <= part.axis < axes for part in parts):
        return None
    grid: list[int] = []
    where = [torch.zeros(1, dtype=torch.int64)] * axes
    for axis in range(axes):
        digits = sorted((part for part in parts if part.axis == axis), key=lambda part: part.step)
        least = digits[0].step if digits else 1
        order = digits[0].order if digits else None
        size = 1
        for digit in digits:
            if digit.step != least * size or digit.order != order:
                return None
            size *= digit.size
        if order is not None and (least > 1 or sorted(order) != list(range(size))):
            return None
        grid.append(size)
        count = torch.zeros([part.size for part in parts], dtype=torch.int64)
        for dim, part in enumerate(parts):
            if part.axis == axis:
                line = torch.arange(part.size) * (part.step // least)
                count = count + line.reshape([-1 if d == dim else 1 for d in range(len(parts))])
        where[axis] = count.flatten() if order is None else torch.tensor(order)[count.flatten()]
    flat = torch.zeros(math.prod(grid), dtype=torch.int64)
    for axis in range(axes):
        flat = flat * grid[axis] + where[axis]
    return tuple(grid), tuple(flat.argsort().tolist())


def axes_of_grid(positions: Positions | None, axes: int) -> tuple[int, ...]:
    """Return the dimension of each axis, counted from the last; empty if one has several or none.

    >>> axes_of_grid(((), (Part(0, 8), Part(1, 6)), ()), 2)
    (-2, -2)
    """
    found = [
        [dim - len(positions or ()) for dim, place in enumerate(positions or ()) for part in place if part.axis == axis]
        for axis in range(axes)
    ]
    return tuple(dims[0] for dims in found) if all(len(dims) == 1 for dims in found) else ()


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
    elif grid in (Grid.LAYOUT, Grid.SPLIT) or name in _REORDERED:
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
        _without_gaps(one) if one is not None and len(one) == len(shape) else None
        for one, shape in zip(found, shapes, strict=True)
    ]


def _without_gaps(positions: Positions) -> Positions:
    """Return positions of which the lowest digit may have gone, as those of a coarser grid."""
    parts = [part for place in positions for part in place if part.size > 1]
    least = {axis: min(part.step for part in parts if part.axis == axis) for axis in {part.axis for part in parts}}
    if all(step == 1 for step in least.values()):
        return positions
    return tuple(
        tuple(part._replace(step=max(1, part.step // least.get(part.axis, 1))) for part in place) for place in positions
    )


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
    gone = [part for dim in dims for part in first.positions[dim] if shape != first.shape and part.size > 1]
    kept = [part for dim, place in enumerate(first.positions) if dim not in dims for part in place]
    if any(one.axis == other.axis and one.step > other.step for one in gone for other in kept):
        return None  # of what was counted by several digits, only the lowest can go: a coarser grid
    if len(shape) != rank:
        return tuple(place for dim, place in enumerate(first.positions) if dim not in dims)
    return tuple(
        place if size == before else tuple(part._replace(size=1, step=1) for part in place)
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
        if size != first.shape[dim] and place:
            place = _coarser(place, before, first.shape[dim], size)
        found.append(place)
    if count == 2 and not any(part.axis >= 0 for place in found for part in place):
        found[-2:] = (Part(0, shape[-2]),), (Part(1, shape[-1]),)
    return tuple(found)


def _coarser(place: tuple[Part, ...], positions: Positions, before: int, after: int) -> tuple[Part, ...]:
    """Return what a dimension counts when windows along it have left another number of positions."""
    if _is_axis(place, positions):
        return (Part(place[0].axis, after),)
    if len(place) == 1 and place[0].step == 1 and place[0].order is None and after and before % after == 0:
        return (place[0]._replace(size=after, step=before // after),)  # in each window of a map that was cut up
    return ()  # windows over several axes reach beyond a line of the grid


def _is_axis(place: Sequence[Part], positions: Positions) -> bool:
    """Return whether a dimension counts one axis, which is in order and nowhere else."""
    return (
        len(place) == 1
        and place[0].order is None
        and sum(part.axis == place[0].axis for other in positions for part in other) == 1
    )


def axes_of(call: Any) -> int:
    """Return the number of axes that an operation over windows works along: that in its name, or two."""
    named = re.search(r"(\d)d(_with_indices)?$", operation_name(call.func))
    return int(named[1]) if named else 2


def _padded(call: Any, shape: tuple[int, ...]) -> Positions | None:
    first = call.operands[0]
    if first.positions is None:
        return None
    amounts = list(call.argument(1, "pad"))
    found = []
    for dim, (place, size) in enumerate(zip(first.positions, shape, strict=True)):
        last = 2 * (len(shape) - dim - 1)
        before, after = amounts[last : last + 2] if last < len(amounts) else (0, 0)
        if place and size != first.shape[dim]:
            alone = _is_axis([place[0]._replace(order=None)], first.positions) and len(place) == 1
            if not alone or (place[0].order is not None and min(before, after) < 0):
                place = ()
            else:
                order = place[0].order
                if order is not None:
                    more = range(before + len(order), size)
                    order = (*range(before), *(before + at for at in order), *more)
                place = (Part(place[0].axis, size, 1, order),)
        found.append(place)
    return tuple(found)


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
_REORDERED = ("roll", "flip", "fliplr", "flipud")
"""Operations that move elements along an axis, for which a receptive field has no even windows."""
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
    parts, moved = [], []
    for dim, place in enumerate(first.positions, start=-len(first.shape)):
        for index, part in enumerate(place):
            if part.size == 1 or part.axis == OTHER:
                continue
            period = math.prod(other.size for other in place[index + 1 :])
            try:
                moved.append(moved_coordinates(call, dim, part.size, period))
            except (RuntimeError, IndexError, ValueError, TypeError):
                return [None] * len(shapes)
            parts.append(part)
    if not parts:
        return [without(shape) for shape in shapes]
    return [_read(parts, [found[n] for found in moved], shape) for n, shape in enumerate(shapes)]


def moved_coordinates(call: Any, dim: int, size: int, period: int) -> list[Tensor]:
    """Return where an operation moves the elements of its first operand, by their coordinates along an axis.

    The axis is of a size; along the dimension `dim`, counted from the last, each coordinate stands `period` times.
    """
    first = call.operands[0]
    device = "cpu" if first.tensor.is_meta else first.tensor.device
    line = torch.arange(first.shape[dim], dtype=torch.int32, device=device) // period % size
    places = line.reshape([-1] + [1] * (-dim - 1)).expand(first.shape).contiguous()
    return list(tensors_in(call.func(places, *call.args[1:], **call.kwargs)))


def _read(parts: list[Part], moved: list[Tensor], shape: tuple[int, ...]) -> Positions | None:
    """Return what the dimensions of a tensor count, from the coordinates of its elements along parts of axes."""
    found: list[list[tuple[int, Part]]] = [[] for _ in shape]
    for part, places in zip(parts, moved, strict=True):
        if tuple(places.shape) != shape or not places.numel():
            return None
        alone = sum(one.axis == part.axis for one in parts) == 1 and part.step == 1
        lines = []
        for dim, size in enumerate(shape):
            line = places[tuple(slice(None) if d == dim else 0 for d in range(len(shape)))]
            line = line - line[0]
            if size > 1 and bool(line.any()):
                lines.append((dim, line))
        first = places[(0,) * len(shape)]
        whole = first.clone()
        for dim, line in lines:
            whole = whole + line.reshape([-1 if d == dim else 1 for d in range(len(shape))])
        if not bool((places == whole).all()):
            return None
        read = [(dim, _digit(line)) for dim, line in lines]
        if int(first) == 0 and _is_number([digit for _, digit in read if digit is not None], len(lines), part.size):
            for dim, digit in read:
                assert digit is not None
                period, size, step = digit
                found[dim].append((period, part._replace(size=size, step=part.step * step)))
        elif alone and len(lines) < 2:
            for (dim, digit), (_, line) in zip(read, lines, strict=True):
                period = digit[0] if digit is not None else 1
                one = _reordered(part, (line + first)[::period].tolist()[: digit and digit[1]])
                if one is None:
                    return None
                found[dim].append((period, one))
        else:
            return None
    each = [_filled(dim, size) for dim, size in zip(found, shape, strict=True)]
    return None if None in each else tuple(one for one in each if one is not None)


def _digit(line: Tensor) -> tuple[int, int, int] | None:
    """Return period, size and step of a line of coordinates that counts in equal steps, again and again."""
    step = int(line[line != 0][0])
    if step < 1:
        return None
    period, size = int(line.ne(0).nonzero()[0]), int(line.max()) // step + 1
    count = torch.arange(len(line), device=line.device) // period % size * step
    return (period, size, step) if bool((line == count).all()) else None


def _is_number(digits: list[tuple[int, int, int]], count: int, size: int) -> bool:
    """Return whether digits (period, size, step), as many as dimensions, count all positions of a size."""
    if len(digits) != count:
        return False
    below = 1
    for _, many, step in sorted(digits, key=lambda digit: digit[2]):
        if step != below:
            return False
        below *= many
    return below == size


def _reordered(part: Part, places: list[int]) -> Part | None:
    """Return an axis of which these positions were taken; None if they are no grid."""
    order = places if part.order is None else [part.order[at] for at in places]
    steps = {after - before for before, after in pairwise(order)}
    if len(steps) == 1 and min(steps) > 0:
        return Part(part.axis, len(order))  # in order, also every second position
    if sorted(order) != list(range(len(order))):
        return None
    return Part(part.axis, len(order), 1, tuple(order))


def _filled(found: list[tuple[int, Part]], size: int) -> tuple[Part, ...] | None:
    """Return all that a dimension counts, the slowest first, from the periods of its parts."""
    if not found:
        return ()
    place: list[Part] = []
    left = size
    for period, part in sorted(found, key=lambda one: -one[0]):
        if left % (period * part.size):
            return None
        others = left // (period * part.size)
        if others > 1:
            place.append(Part(OTHER, others))
        last = place[-1] if place else None
        if last is not None and last[::3] == part[::3] and last.step == part.step * part.size:
            place[-1] = part._replace(size=last.size * part.size)
        else:
            place.append(part)
        left = period
    return (*place, Part(OTHER, left)) if left > 1 else tuple(place)
