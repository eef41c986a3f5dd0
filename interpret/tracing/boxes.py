"""Boxes: what each element of a tensor sees of the image, where the windows of its positions are not evenly spaced.

Window attention, a class token, shifted maps and resampling leave no even windows. Every element still sees a box, and
what an operation gives sees the smallest box that holds those of the elements it was made of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.network.layers import tensors_in
from interpret.network.operations import Grid, operation_name
from interpret.tracing.positions import axes_of, key_of

UNSEEN = 2.0**40
"""The end of a box that holds no pixel."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The box of the image that each element of a tensor sees."""

    ends: tuple[Tensor, ...]
    """Where boxes begin along each axis, then where they end, negated, so that the box that holds several has the
    smallest of each. They have the tensor's dimensions, of size 1 where all elements have the same."""
    exact: bool = True
    """Whether each is the smallest box that holds what its element sees; otherwise it may be larger."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Boxes)
            and self.exact == other.exact
            and len(self.ends) == len(other.ends)
            and all(map(torch.equal, self.ends, other.ends))
        )

    def __hash__(self) -> int:
        return hash(tuple(end.shape for end in self.ends))

    def mapped(self, change: Callable[[Tensor], Tensor], exact: bool = True) -> Boxes:
        """Return boxes whose ends have gone through a function."""
        return Boxes(tuple(compressed(change(end)) for end in self.ends), self.exact and exact)

    def over(self, dims: Sequence[int]) -> Boxes:
        """Return the boxes that hold those along dimensions, which keep size 1."""
        return self.mapped(lambda end: end.amin(tuple(dims), keepdim=True)) if dims else self

    def written_into(self, whole: Sequence[int], part: Sequence[int], strides: Sequence[int], offset: int) -> Boxes:
        """Return the boxes of a tensor of constants, into a part of whose memory these were written."""

        def write(end: Tensor) -> Tensor:
            filled = torch.full(tuple(whole), UNSEEN, dtype=torch.float64)
            filled.as_strided(tuple(part), tuple(strides), offset).copy_(end.expand(part))
            return filled

        return self.mapped(write)

    def is_unseen(self) -> bool:
        """Return whether no element sees a pixel."""
        return all(bool((end >= UNSEEN / 2).all()) for end in self.ends)

    def are_alike(self, sides: Sequence[int]) -> bool:
        """Return whether all elements see the same of an image: the whole, or the same box."""
        axes = len(sides)
        begins = [end.clamp(min=0) for end in self.ends[:axes]]
        lasts = [(-end).clamp(max=side) for end, side in zip(self.ends[axes:], sides, strict=True)]
        return all(bool((one == one.flatten()[:1]).all()) for one in (*begins, *lasts))  # of no elements, too


def evenly_spaced(shape: Sequence[int], axes: Sequence[int], columns: int | None, field: Any) -> Boxes:
    """Return the windows of a field (size, stride, start) as boxes, in a tensor whose axes are those dimensions."""
    begins = []
    for index, (axis, stride, start) in enumerate(zip(axes, field.stride, field.start, strict=True)):
        count = torch.arange(shape[axis], dtype=torch.float64)
        if columns is not None:
            count = torch.div(count, columns, rounding_mode="floor") if index == 0 else count % columns
        begins.append(
            (start + stride * count).reshape([-1 if d - len(shape) == axis else 1 for d in range(len(shape))])
        )
    lasts = [-(begin + size) for begin, size in zip(begins, field.size, strict=True)]
    return Boxes((*begins, *lasts), field.exact)


def boxes_after(call: Any, given: Sequence[Boxes | None]) -> list[Boxes | None]:
    """Return the boxes of each result of an operation; None where its elements may see everything.

    Args:
        call: an `interpret.tracing.receptive_field.Call`.
        given: the boxes of its operands; None for those that see nothing.
    """
    count = max(1, len(call.results))
    name, grid = operation_name(call.func), call.operation.grid
    follow = _BY_NAME.get(name) or _BY_GRID.get(grid)
    if follow is None or not call.results:
        return [None] * count
    try:
        return follow(call, list(given))
    except (RuntimeError, IndexError, ValueError, TypeError):  # another form of the operation than is known here
        return [None] * count


def fit(begin: Tensor, end: Tensor, side: int) -> tuple[int, float, int, bool]:
    """Return size, stride and start of the smallest evenly spaced windows that hold boxes, and whether they are these.

    >>> begin = torch.tensor([0, 0, 0, 12, 12, 12, 24, 24, 24])  # a map of stride 4 in windows of three positions
    >>> fit(begin, begin + 12, 36)
    (20, 4, -8, False)
    >>> begin = torch.tensor([0, 1, 3, 4, 6, 7])  # resized by a fraction
    >>> fit(begin, begin + 2, 9)
    (2, 1.5, 0, False)
    """
    known = (begin < UNSEEN / 2).nonzero()[:, 0]
    spacing = side / len(begin)
    if not len(known):
        return 1, max(1, round(spacing)), 0, False
    begin, end = begin[known].long(), end[known].long()
    found = []
    for step in (*range(1, math.ceil(2 * spacing) + 2), *_fractions(known, begin, end, spacing)):
        places = (known.double() * step).floor().long()
        first, last = int((begin - places).min()), int((end - places).max())
        exact = isinstance(step, int) and bool((begin - places == first).all() and (end - places == last).all())
        found.append((last - first, isinstance(step, float), abs(step - spacing), step, first, exact))
    size, _, _, step, first, exact = min(found)
    return size, step, first, exact


def _fractions(known: Tensor, begin: Tensor, end: Tensor, spacing: float) -> list[float]:
    """Return strides that are no whole numbers by which windows may be smaller: that of all positions, and the best."""

    def size(step: float) -> float:
        places = known * step
        return float((end - places).max() - (begin - places).min())

    low, high = 0.0, 2 * spacing + 1
    while high - low > 1e-6:  # the size of windows is convex in their stride
        third = (high - low) / 3
        low, high = (low + third, high) if size(low + third) > size(high - third) else (low, high - third)
    best = {float(Fraction((low + high) / 2).limit_denominator(most)) for most in (2, 4, 8, 16)}
    return [step for step in sorted({spacing, *best}) if step > 0 and step % 1]


def windows_of_grid(boxes: Boxes, shape: Sequence[int], arranged: Any) -> list[tuple[Tensor, Tensor]] | None:
    """Return where the windows of a layer's positions begin and end along each axis, for each position on it.

    `arranged` is the `Arrangement` of the layer's output, of the shape given; None if it has more than one image.
    """
    grid = arranged.grid
    if math.prod(grid) * shape[arranged.units] != math.prod(shape):
        return None
    found = []
    ends = []
    for end in boxes.ends:
        lowest = end.amin(arranged.units, keepdim=True)
        places = lowest.expand([1 if d - len(shape) == arranged.units else n for d, n in enumerate(shape)]).flatten()
        places = places if arranged.order is None else places[torch.tensor(arranged.order)]
        ends.append(places.reshape(grid))
    for axis in range(len(grid)):
        others = tuple(other for other in range(len(grid)) if other != axis)
        begin, last = (ends[place].amin(others) if others else ends[place] for place in (axis, axis + len(grid)))
        found.append((begin, -last))
    return found


def compressed(end: Tensor) -> Tensor:
    """Return a tensor without the dimensions along which it does not change."""
    for dim, size in enumerate(end.shape):
        if size > 1:
            first = end.narrow(dim, 0, 1)
            if bool((end == first).all()):
                end = first
    return end.clone() if end.is_contiguous() else end.contiguous()  # without the memory of the whole


def _held(boxes: Iterable[Boxes | None]) -> Boxes | None:
    """Return the boxes that hold those of several tensors, which are broadcast."""
    known = [one for one in boxes if one is not None]
    if not known:
        return None
    ends = zip(*(one.ends for one in known), strict=True)
    return Boxes(tuple(functools.reduce(torch.minimum, end) for end in ends), all(one.exact for one in known))


def _alone(one: Boxes | None) -> list[Boxes | None]:
    return [one]


# ---- each element by itself, and dimensions -------------------------------------------------------------------------


def _together(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    rank = call.results[0].ndim
    held = _held(given)
    return _alone(held and held.mapped(lambda end: end.reshape((1,) * (rank - end.ndim) + tuple(end.shape))))


def _first(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    return _alone(given[0])


def _statistics(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    of_image = call.argument(5, "training", False) or call.kwargs.get("use_input_stats", False)
    return _alone(None if of_image else given[0])


def _channels(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    return _alone(given[0] and given[0].over([1]))


def _trailing(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    return _alone(given[0] and given[0].over(range(-len(call.argument(1, "normalized_shape")), 0)))


def _along(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    dims, first = call.argument(call.operation.dim, "dim"), given[0]
    if dims is None or isinstance(dims, bool) or first is None:
        return [None] * len(call.results)
    rank = len(call.operands[0].shape)
    dims = sorted({dim % rank for dim in (dims if isinstance(dims, (list, tuple)) else [dims])})
    held = first.over(dims)
    if call.results[0].ndim < rank:
        held = held.mapped(lambda end: end.squeeze(tuple(dims)))
    return [held] * len(call.results)


def _softmax(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Along a dimension, but for places that a mask hides: their weights are zero."""
    if call.zeros is None:
        return _along(call, given)
    seen = [one and _without(one, call.zeros) for one in given]
    return [one and _without(one, call.zeros) for one in _along(call, seen)]


def _without(boxes: Boxes, zeros: Tensor) -> Boxes:
    """Return boxes that hold no pixel where an element is zero, or as good as zero."""
    return boxes.mapped(lambda end: torch.where(zeros, UNSEEN, end), exact=False)


def _cumulative(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Each position sees those before it."""
    dim = call.argument(1, "dim")
    size = call.operands[0].shape[dim]
    return [given[0] and given[0].mapped(lambda end: end.cummin(dim).values if end.shape[dim] == size else end)]


def _extremum(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    return _together(call, given) if len(given) > 1 else _along(call, given)


def _concatenated(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    dim, rank = call.argument(1, "dim", 0), call.results[0].ndim
    dim %= rank
    stacked = operation_name(call.func) == "stack"
    known = next(one for one in given if one is not None)
    sizes = [1 if stacked else operand.shape[dim] for operand in call.operands]

    def joined(place: int) -> Tensor:
        ends = []
        for one in given:
            end = torch.full((1,) * (rank - stacked), UNSEEN).double() if one is None else one.ends[place]
            ends.append(end.unsqueeze(dim) if stacked else end)
        shape = torch.broadcast_shapes(*([*end.shape[:dim], 1, *end.shape[dim + 1 :]] for end in ends))
        return torch.cat(
            [end.expand([*shape[:dim], n, *shape[dim + 1 :]]) for end, n in zip(ends, sizes, strict=True)], dim
        )

    exact = all(one is None or one.exact for one in given)
    return _alone(Boxes(tuple(compressed(joined(place)) for place in range(len(known.ends))), exact))


def _moved(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Operations that move elements: run again on the ends of their boxes."""
    first, others = given[0], given[1:]
    if call.args[0] is not call.operands[0].tensor or first is None:
        return [None] * len(call.results)
    if operation_name(call.func).endswith("_as"):
        others = []
    if any(one is not None for one in others):
        return [None] * len(call.results)
    ends_of_each = [moved(call, end, UNSEEN) for end in first.ends]
    return [Boxes(tuple(ends), first.exact) for ends in zip(*ends_of_each, strict=True)]


def moved(call: Any, values: Tensor, beyond: float) -> list[Tensor]:
    """Return where an operation that only moves elements puts these values of its first operand's elements.

    Values have the operand's dimensions, of size 1 where all elements have the same; `beyond` is for what it pads with.
    """
    return [
        compressed(torch.cat([values.new_full((1,), beyond), values.flatten()])[places])
        for places in _places_after(call, tuple(values.shape))
    ]


def _places_after(call: Any, sizes: tuple[int, ...]) -> list[Tensor]:
    """Return where the elements of each result come from in a tensor of these sizes that was expanded to the operand.

    They are counted from 1; 0 is what an operation pads with. Remembered, since a network's blocks repeat.
    """
    shape = tuple(call.operands[0].shape)
    key = key_of((call.func, shape, sizes, call.args[1:], call.kwargs))
    found = _KNOWN_PLACES.get(key)
    if found is None:
        dtype = torch.float64 if operation_name(call.func) == "unfold" else torch.int32
        numbers = torch.arange(1, math.prod(sizes) + 1, dtype=dtype).reshape(sizes).expand(shape).contiguous()
        results = tensors_in(call.func(numbers, *call.args[1:], **call.kwargs))
        found = [compressed(places).long() for places in results]
        if key is not None and len(_KNOWN_PLACES) < 1000:
            _KNOWN_PLACES[key] = found
    return found


_KNOWN_PLACES: dict[Any, list[Tensor]] = {}


def _padded(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    first, amounts = given[0], list(call.argument(1, "pad"))
    mode = call.argument(2, "mode", "constant")
    if first is None:
        return [None]
    shape, rank = call.operands[0].shape, len(call.operands[0].shape)
    touched = {rank - 1 - place // 2 for place, amount in enumerate(amounts) if amount}
    if not touched:
        return [first]

    def pad(end: Tensor) -> Tensor:
        end = end.expand([n if d in touched else own for d, (n, own) in enumerate(zip(shape, end.shape, strict=True))])
        return F.pad(end, amounts, mode, *([UNSEEN] if mode == "constant" else []))

    return [first.mapped(pad)]


def _linear(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """A matrix of weights, applied to the last dimension."""
    first, *others = given
    if first is None or any(one is not None for one in others):
        return [None]
    return [first.over([-1])]


# ---- products of matrices, attention --------------------------------------------------------------------------------


def _matrices(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Rows of the first, columns of the second factor."""
    *added, one, other = given
    if operation_name(call.func) == "rmatmul":
        one, other = other, one
    if any(len(operand.shape) < 2 for operand in call.operands[-2:]):
        return [None]
    held = _held([*added, one and one.over([-1]), other and _weighted(other, call.zeros)])
    rank = call.results[0].ndim
    return [held and held.mapped(lambda end: end.reshape((1,) * (rank - end.ndim) + tuple(end.shape)))]


def _weighted(values: Boxes, zeros: Tensor | None) -> Boxes:
    """Return what rows of weights see of values [..., places, channels], but for weights that are zero."""
    if zeros is None:
        return values.over([-2])
    return _without(values.over([-1]).mapped(lambda end: end.mT), zeros).over([-1])


def _einsum(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    equation = call.args[0].replace(" ", "")
    if "->" not in equation or "." in equation:
        return [None]
    inputs, output = equation.split("->")
    parts = []
    for letters, one in zip(inputs.split(","), given, strict=True):
        if one is None:
            continue
        if len(set(letters)) < len(letters):
            return [None]
        kept = [letter for letter in letters if letter in output]
        one = one.over([place for place, letter in enumerate(letters) if letter not in output])
        order = [letters.index(letter) for letter in output if letter in kept]
        missing = [place for place, letter in enumerate(output) if letter not in kept]

        def arrange(
            end: Tensor, letters: str = letters, order: list[int] = order, missing: list[int] = missing
        ) -> Tensor:
            rest = [place for place in range(len(letters)) if place not in order]
            end = end.permute(*order, *rest).reshape([end.shape[place] for place in order])
            for place in missing:
                end = end.unsqueeze(place)
            return end

        parts.append(one.mapped(arrange))
    return [_held(parts)]


def _attention(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Each query sees all keys and values."""
    roles = {id(operand.tensor): one for operand, one in zip(call.operands, given, strict=True)}
    arguments = [call.argument(place, name) for place, name in enumerate(("query", "key", "value", "attn_mask"))]
    query, key, value, mask = (roles.get(id(argument)) for argument in arguments)
    return [
        _held(
            [
                query and query.over([-1]),
                key and _weighted(key.over([-1]), call.zeros),
                value and _weighted(value, call.zeros),
                mask and mask.over([-1]),
            ]
        )
    ]


def _recurrent(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """An LSTM, GRU or RNN that reads one sequence after another: each step may see the whole sequence."""
    first = given[0]
    if first is None or len(call.operands[0].shape) != 3 or not isinstance(call.args[-1], bool):
        return [None] * len(call.results)
    states: list[Boxes | None] = [None] * (len(call.results) - 1)
    return [first.over([1 if call.args[-1] else 0, 2]), *states]


# ---- windows --------------------------------------------------------------------------------------------------------


def _taken(boxes: Boxes, taps: Sequence[Tensor]) -> Boxes:
    """Return the boxes of windows along the last dimensions: for each new position, the old ones it takes [new, k].

    Those below zero are none.
    """

    def take(end: Tensor) -> Tensor:
        for dim, places in enumerate(taps, start=-len(taps)):
            if end.shape[dim] == 1:
                inside = (places >= 0).any(1).reshape([-1] + [1] * (-dim - 1))
                end = torch.where(inside, end, UNSEEN) if not bool(inside.all()) else end
                continue
            beyond = end.new_full([1 if d == dim + end.ndim else n for d, n in enumerate(end.shape)], UNSEEN)
            padded = torch.cat([end, beyond], dim)
            chosen = torch.where(places >= 0, places, end.shape[dim])
            end = padded.index_select(dim, chosen.flatten()).unflatten(dim, chosen.shape).amin(end.ndim + dim + 1)
        return end

    return boxes.mapped(take)


def _places(new: int, old: int, span: int, step: int, before: int, gap: int = 1) -> Tensor:
    """Return what windows of `span` positions take, every `step` positions, the first from `before` outside."""
    places = torch.arange(new)[:, None] * step - before + torch.arange(span) * gap
    return places.masked_fill((places < 0) | (places >= old), -1)


def _ranges(first: Tensor, last: Tensor) -> Tensor:
    """Return the positions from `first` to `last` of each new position, [new, k]."""
    longest = max(1, int((last - first).max()) + 1)
    places = first[:, None] + torch.arange(longest)
    return places.masked_fill(places > last[:, None], -1)


def windowed(call: Any, given: list[Boxes | None], taps: Sequence[Tensor]) -> list[Boxes | None]:
    """Return the boxes of the first operand's windows; of a convolution, over all of its channels."""
    first, *others = given
    if first is None or any(one is not None for one in others):
        return [None]
    if call.operation.mixes_units:
        first = first.over([-len(taps) - 1])
    return [_taken(first, taps)]


def _moved_by(call: Any, axes: int) -> tuple[list[int], list[int]]:
    """Return the sizes of an operand and of the result along the last axes."""
    return list(call.operands[0].shape[-axes:]), list(call.results[0].shape[-axes:])


def _sizes(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _convolution(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    kernel = call.argument(1, "weight").shape[2:]
    axes = len(kernel)
    step, gap = _sizes(call.argument(3, "stride", 1), axes), _sizes(call.argument(5, "dilation", 1), axes)
    padding = call.argument(4, "padding", 0)
    if isinstance(padding, str):
        before = tuple(g * (k - 1) // 2 if padding == "same" else 0 for g, k in zip(gap, kernel, strict=True))
    else:
        before = _sizes(padding, axes)
    sides = zip(*reversed(_moved_by(call, axes)), kernel, step, before, gap, strict=True)
    return windowed(call, given, [_places(*side) for side in sides])


def _transposed_convolution(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    kernel = call.argument(1, "weight").shape[2:]
    axes = len(kernel)
    step, padding = _sizes(call.argument(3, "stride", 1), axes), _sizes(call.argument(4, "padding", 0), axes)
    gap = _sizes(call.argument(7, "dilation", 1), axes)
    taps = []
    for old, new, k, s, p, g in zip(*_moved_by(call, axes), kernel, step, padding, gap, strict=True):
        reached = torch.arange(new)[:, None] + p - torch.arange(k) * g
        places = torch.div(reached, s, rounding_mode="floor")
        taps.append(places.masked_fill((reached % s != 0) | (places < 0) | (places >= old), -1))
    return windowed(call, given, taps)


def _pool(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    axes, by_power = axes_of(call), call.operation.grid is Grid.POWER_POOL
    kernel = _sizes(call.argument(1 + by_power, "kernel_size"), axes)
    step = _sizes(call.argument(2 + by_power, "stride") or kernel, axes)
    before = (0,) * axes if by_power else _sizes(call.argument(3, "padding", 0), axes)
    dilated = call.operation.grid is Grid.MAX_POOL
    gap = _sizes(call.argument(4, "dilation", 1), axes) if dilated else (1,) * axes
    sides = zip(*reversed(_moved_by(call, axes)), kernel, step, before, gap, strict=True)
    return windowed(call, given, [_places(*side) for side in sides]) * len(call.results)


def _adaptive_pool(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    taps = []
    for old, new in zip(*_moved_by(call, axes_of(call)), strict=True):
        count = torch.arange(new)
        taps.append(_ranges(count * old // new, -(-(count + 1) * old // new) - 1))
    return windowed(call, given, taps) * len(call.results)


def _user_window(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    assert call.operation.window is not None
    axes = len(call.results[0].shape) - 2
    size, step, before = (_sizes(one, axes) for one in call.operation.window(*call.args, **call.kwargs))
    sides = zip(*reversed(_moved_by(call, axes)), size, step, before, strict=True)
    return windowed(call, given, [_places(*side) for side in sides])


def taken_by_resampling(call: Any, axis: int) -> tuple[Tensor, Tensor]:
    """Return the first and last old position that the new ones along an axis take: resample a channel for each old one.

    Each axis is resampled by itself, so the others keep two positions here: torch's anti-aliasing is wrong with one.
    """
    sizes = call.operands[0].shape[2:]
    axes, old = len(sizes), sizes[axis]

    def alone(value: Any, other: int) -> Any:
        values = value if isinstance(value, (list, tuple)) else [value] * axes
        return None if value is None else [one if n == axis else other for n, one in enumerate(values)]

    basis = torch.eye(old, dtype=torch.float64).reshape(1, old, *alone(old, 1)).expand(1, old, *alone(old, 2))
    given = {name: value for name, value in call.kwargs.items() if name not in ("input", "size", "scale_factor")}
    size, scale = alone(call.argument(1, "size"), 2), alone(call.argument(2, "scale_factor"), 1)
    found = call.func(basis, size, scale, *call.args[3:], **given)[0].movedim(1 + axis, 1)
    weights = found.reshape(*found.shape[:2], -1)[..., 0].t() != 0
    count = torch.arange(old).expand(weights.shape)
    return count.masked_fill(~weights, old).amin(1), count.masked_fill(~weights, -1).amax(1)


def _resampled(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    axes = len(call.operands[0].shape) - 2
    return windowed(call, given, [_ranges(*taken_by_resampling(call, axis)) for axis in range(axes)])


def _sampled(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Each position takes those around the place that a grid of constants names."""
    first, grid = given[0], call.argument(1, "grid")
    mode, beyond = call.argument(2, "mode", "bilinear"), call.argument(3, "padding_mode", "zeros")
    if first is None or any(one is not None for one in given[1:]) or grid.is_meta or grid.dim() != 4 or len(grid) > 1:
        return [None]
    height, width = call.operands[0].shape[2:]
    y, x = torch.arange(height).double()[:, None], torch.arange(width).double()
    ramps = torch.stack([y.expand(height, width), x.expand(height, width)])[None]
    aligned = bool(call.argument(4, "align_corners", False))
    beyond = "border" if beyond == "zeros" else beyond
    rows, columns = F.grid_sample(ramps, grid.detach().cpu().double(), "bilinear", beyond, aligned)[0]
    more = 1 + (mode == "bicubic")
    around = range(1 - more, more + 1)
    places = [
        (rows + a).floor().clamp(0, height - 1) * width + (columns + b).floor().clamp(0, width - 1)
        for a in (*around, 1e-6, -1e-6)
        for b in (*around, 1e-6, -1e-6)
    ]

    def sample(end: Tensor) -> Tensor:
        flat = end.expand(*end.shape[:2], height, width).flatten(2)
        return functools.reduce(torch.minimum, (flat[..., place.long()] for place in places))

    return [first.mapped(sample)]


def _folded(call: Any, given: list[Boxes | None]) -> list[Boxes | None]:
    """Windows that are put back into a map and added up where they overlap."""
    first = given[0]
    if first is None or len(call.operands[0].shape) != 3:
        return [None]
    result = call.results[0]
    height, width = result.shape[-2:]
    names = ("kernel_size", "dilation", "padding", "stride")
    settings = [
        call.argument(place, name, default)
        for place, name, default in zip((2, 3, 4, 5), names, (1, 1, 0, 1), strict=True)
    ]
    numbers = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    places = F.unfold(numbers, *settings)[0].long().flatten()  # 0 in the padding

    def fold(end: Tensor) -> Tensor:
        values = end.expand(call.operands[0].shape).reshape(len(result), result.shape[1], -1)
        folded = values.new_full((*result.shape[:2], height * width + 1), UNSEEN)
        folded.scatter_reduce_(2, places.expand(values.shape), values, "amin")
        return folded[..., 1:].reshape(result.shape)

    return [first.mapped(fold)]


_BY_NAME: dict[str, Callable[[Any, list[Boxes | None]], list[Boxes | None]]] = {
    "linear": _linear,
    "softmax": _softmax,
    **dict.fromkeys("matmul rmatmul mm bmm addmm baddbmm".split(), _matrices),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys("lstm gru rnn_tanh rnn_relu".split(), _recurrent),
    **dict.fromkeys("roll flip fliplr flipud rot90 pixel_shuffle gather take_along_dim unfold".split(), _moved),
    "fold": _folded,
    "cumsum": _cumulative,
}

_BY_GRID: dict[Grid | None, Callable[[Any, list[Boxes | None]], list[Boxes | None]]] = {
    Grid.ELEMENTWISE: _together,
    Grid.BROADCAST: _together,
    Grid.CONVERT: _first,
    Grid.STATISTICS: _statistics,
    Grid.CHANNELS: _channels,
    Grid.TRAILING: _trailing,
    Grid.ALONG: _along,
    Grid.EXTREMUM: _extremum,
    Grid.CONCATENATE: _concatenated,
    Grid.LAYOUT: _moved,
    Grid.SPLIT: _moved,
    Grid.PAD: _padded,
    Grid.CONVOLUTION: _convolution,
    Grid.TRANSPOSED_CONVOLUTION: _transposed_convolution,
    Grid.MAX_POOL: _pool,
    Grid.AVERAGE_POOL: _pool,
    Grid.POWER_POOL: _pool,
    Grid.ADAPTIVE_POOL: _adaptive_pool,
    Grid.RESAMPLE: _resampled,
    Grid.WINDOW: _user_window,
    Grid.SAMPLE: _sampled,
}
