"""Receptive fields, computed through all operations that a network executes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from operator import add, mul, sub
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.network.layers import tensors_in
from interpret.network.operations import PROPERTY, Backward, Grid, Operation, operation_name, operation_of
from interpret.network.torch_internals import is_view, storage_id
from interpret.support.errors import InterpretError
from interpret.tracing.boxes import Boxes, boxes_after, evenly_spaced, taken_by_resampling
from interpret.tracing.masks import Mask, mask_after, needs_values, zeros_in
from interpret.tracing.positions import (
    Positions,
    axes_of,
    key_of,
    moved_coordinates,
    of_image,
    positions_after,
    without,
)

Sizes = tuple[int, ...]
"""One number per axis of the input: (y, x) of an image, (t,) of a signal, (z, y, x) of a volume."""


Strides = tuple[float, ...]
"""The same, of numbers that behind resizing by a fraction are not whole."""


@dataclass(frozen=True)
class ReceptiveField:
    """The windows of the image that the neurons of a layer see, in pixels along (y, x).

    Those of a signal are in samples along (t,), those of a volume in voxels along (z, y, x).

    The neuron at position `p` of an axis sees the pixels from `start + p·stride` up to, and without,
    `start + p·stride + size`. Beyond the image's border it sees padding. The window is the smallest that holds those of
    all units of the layer: after a concatenation, some units may see less.

    >>> field = ReceptiveField(size=(11, 11), stride=(4, 4), start=(-2, -2))  # the first layer of AlexNet
    >>> field.window((0, 0))
    (-2, -2, 9, 9)
    >>> field.window((1, 10))
    (2, 38, 13, 49)
    >>> ReceptiveField(size=(9,), stride=(4,), start=(-4,)).window((10,))  # samples of a signal
    (36, 45)

    Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016 (arXiv:1603.07285); Araujo,
    Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill, 2019.
    """

    size: Sizes
    """Height and width of the window; dilated kernels count with their gaps."""
    stride: Strides
    """The distance between the windows of neighbouring neurons: the product of all strides so far. Behind resizing by a
    fraction it is a fraction, and windows begin at the pixel in which it ends."""
    start: Sizes
    """Top and left of the first neuron's window; negative where it begins in the padding."""
    exact: bool = field(default=True, repr=False)
    """Whether the windows are what neurons see; otherwise each is a bound, sure to hold what its neuron sees."""

    def __repr__(self) -> str:
        numbers = f"size={self.size}, stride={self.stride}, start={self.start}"
        return f"ReceptiveField({numbers}{'' if self.exact else ', exact=False'})"

    @property
    def steps(self) -> Sizes:
        """The stride where it is whole, as it is of all windows but bounds."""
        return tuple(map(int, self.stride))

    def window(self, position: Sizes) -> Sizes:
        """Return (top, left, bottom, right) of the neuron at `position` (y, x), not clipped to the image.

        Of a signal or a volume: where the window begins on each axis, then where it ends.

        >>> ReceptiveField((3, 3), (1, 1), (-1, -1)).window((0, 5))
        (-1, 4, 2, 7)

        Raises:
            InterpretError: a position below zero, or with another number of axes.
        """
        axes = len(self.size)
        if len(position) != axes:
            raise InterpretError(f"position must have {axes} number{'s' * (axes > 1)}, one per axis, not {position}")
        if min(position) < 0:
            raise InterpretError(
                f"position must not be negative, but is {tuple(position)}: positions count from {(0,) * axes}"
            )
        first = tuple(
            start + math.floor(at * stride) for start, at, stride in zip(self.start, position, self.stride, strict=True)
        )
        return (*first, *map(add, first, self.size))


class Reach(Enum):
    """What a tensor sees of the image if that is no window: nothing, or possibly everything."""

    NOTHING = "no pixel: the same for every image"
    EVERYTHING = "possibly every pixel"


@dataclass(frozen=True)
class View:
    """Each element of a tensor sees one window of the image, and the windows are evenly spaced."""

    field: ReceptiveField
    axes: Sizes = (-2, -1)
    """Which dimensions are y and x, counted from the last; of a signal t, of a volume z, y and x."""
    columns: int | None = None
    """How many positions a row has, if one dimension counts the positions row by row, as that of tokens [B, N, C]."""
    crops: bool = True
    """Whether the operations give a crop of this tensor for an aligned crop of the image."""
    mirrored: Sizes = (0, 0)
    """The number of positions, per axis, that the next window must reach inwards from the border to hold the elements
    that a reflecting padding shows there. Until then, border elements see pixels outside their window."""
    reflected: Boxes | None = None
    """What each element sees until then."""
    within: Boxes | None = None
    """What each element sees, where those at one position see parts of its window, as in a map cut into windows."""

    def grid(self, shape: Sequence[int]) -> Sizes:
        """Return the number of positions along each axis in a tensor of a shape."""
        sizes = tuple(shape[axis] for axis in self.axes)
        return sizes if self.columns is None else (sizes[0] // self.columns, self.columns)


Sees = Reach | View | Boxes
NOTHING, EVERYTHING = Reach.NOTHING, Reach.EVERYTHING


class FieldTracker(TorchFunctionMode):
    """Follows what each tensor sees of the image, through every operation that runs in the `with` block.

    Windows are exact through the operations of the table, boxes where they are not evenly spaced; any other gives
    `EVERYTHING`, as does a tensor of unknown origin. Values that leave their tensor (`item`) and return as numbers are
    not followed.

    Beside what influences a tensor, it follows where the backward signal goes: along tensors that require a gradient,
    if the image does. A `BackwardRule` inside the block holds gates constant, as it does in a projection; so are the
    statistics of a normalisation.

    >>> image, conv = torch.zeros(1, 3, 32, 32), nn.Conv2d(3, 8, 5, stride=2)
    >>> with torch.no_grad(), FieldTracker(conv, image) as tracker:
    ...     output = conv(image).relu()
    >>> tracker.sees(output).field
    ReceptiveField(size=(5, 5), stride=(2, 2), start=(0, 0))
    >>> with torch.no_grad(), tracker:
    ...     maximum = output.amax()
    >>> tracker.sees(maximum)
    <Reach.EVERYTHING: 'possibly every pixel'>
    >>> from interpret.backprop.rules import BackwardRule
    >>> with FieldTracker(conv, image.requires_grad_()) as tracker, BackwardRule(conv):
    ...     output = conv(image)
    ...     output = output * output.mean((2, 3), keepdim=True).sigmoid()
    >>> tracker.sees(output), tracker.local(output).field.size
    (<Reach.EVERYTHING: 'possibly every pixel'>, (5, 5))
    """

    def __init__(
        self, module: nn.Module, image: Tensor, constants: Iterable[Tensor] = (), with_boxes: bool = True
    ) -> None:
        """Follow an image through a module; the module's own tensors and `constants` do not depend on it.

        Without boxes, only evenly spaced windows are followed.
        """
        super().__init__()
        self._has_signal = image.requires_grad
        self.place = ""
        """The layer that runs, which is named where an operation sees the whole image."""
        self.needs_values = False
        """Whether windows depend on values of constants, which tensors on the meta device have not."""
        self._sights = WeakTensorKeyDictionary()
        self._sides = tuple(image.shape[2:]) if with_boxes else None
        for constant in constants:
            self._sights[constant] = _constant(constant)
        for part in module.modules():
            for constant in tensors_in(list(vars(part).values())):
                self._sights[constant] = _constant(constant)
        ones, zeros = (1,) * (image.dim() - 2), (0,) * (image.dim() - 2)
        pixel = View(ReceptiveField(ones, ones, zeros), tuple(range(-len(ones), 0)), mirrored=zeros)
        self._sights[image] = Sight(pixel, pixel, of_image(image.shape))

    def sees(self, tensor: Tensor) -> Sees:
        """Return what `tensor` sees of the image."""
        return self._sight(tensor).full

    def local(self, tensor: Tensor) -> Sees:
        """Return the part of the image to which the signal of `tensor` passes back; what it sees, without a signal."""
        return self._local(self._sight(tensor), tensor)

    def _local(self, sight: Sight, tensor: Tensor) -> Sees:
        if not self._has_signal:
            return sight.full
        return sight.local if tensor.requires_grad else NOTHING

    def _operand(self, tensor: Tensor) -> Operand:
        sight = self._sight(tensor)  # looked up once, since every operation asks
        local = self._local(sight, tensor)
        causes = (sight.cause, sight.local_cause if self._has_signal else sight.cause)
        return Operand(tensor, tuple(tensor.shape), sight.full, local, sight.positions, sight.mask, *causes)

    def causes(self, tensor: Tensor) -> tuple[str | None, str | None]:
        """Return from which operation on `tensor` may see every pixel, and its signal reach it; None if it does not.

        >>> image = torch.zeros(1, 3, 8, 8)
        >>> with FieldTracker(nn.Identity(), image) as tracker:
        ...     gate = image.mean((2, 3), keepdim=True).sigmoid()
        >>> tracker.causes(gate)[0]
        "'mean' in the network itself"
        """
        sight = self._sight(tensor)
        return sight.cause, sight.local_cause if self._has_signal else sight.cause

    def positions(self, tensor: Tensor) -> Positions | None:
        """Return which dimensions of `tensor` count positions; None if that is not known."""
        return self._sight(tensor).positions

    def detach_kept(self) -> None:
        """Detach the tensors that the network has kept from the forward pass, so that it can be copied."""
        for tensor in list(self._sights):
            if tensor.grad_fn is not None and not is_view(tensor):  # a view cannot be detached in place
                tensor.detach_()

    def _sight(self, tensor: Tensor) -> Sight:
        sight: Sight = self._sights.get(tensor, Sight(EVERYTHING, EVERYTHING, None))
        return sight

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = operation_of(func)
        if operation is PROPERTY:  # networks ask for many
            answer = func(*args, **kwargs)
            if not isinstance(answer, Tensor) or answer in self._sights:
                return answer
        operands = list(map(self._operand, tensors_in([args, kwargs])))
        if operation.grid is Grid.SAMPLE:
            self.needs_values = self.needs_values or any(operand.tensor.is_meta for operand in operands)
        result = func(*args, **kwargs)
        call = Call(operation, func, args, kwargs, operands, list(tensors_in(result)), self._sides)
        if self._sides is not None and needs_values(call):
            self.needs_values = True
        if operation.grid is Grid.WRITE:
            self._write(operands[0].tensor, self._after(call)[0])
        if not call.results:
            return result
        for tensor, sight in zip(call.results, self._after(call), strict=False):
            if any(tensor is operand.tensor for operand in operands):
                self._write(tensor, sight)
            else:
                self._sights[tensor] = sight
        return result

    def _after(self, call: Call) -> list[Sight]:
        """Return what each of the results sees, and where its signal goes."""
        mask = mask_after(call) if call.sides is not None else None
        call = call._replace(zeros=zeros_in(call, mask) if call.sides is not None else None)
        full = _after(call)
        local = _after_locally(call, full) if self._has_signal else full
        positions = positions_after(call) or [call.operands[0].positions if call.operands else None]
        operands = call.operands
        cause = self._cause(call, (operand.cause for operand in operands if operand.sees is EVERYTHING))
        local_cause = self._cause(call, (operand.local_cause for operand in operands if operand.local is EVERYTHING))
        return [
            Sight(
                sees, near, at, mask, cause if sees is EVERYTHING else None, local_cause if near is EVERYTHING else None
            )
            for sees, near, at in zip(full, local, positions, strict=True)
        ]

    def _cause(self, call: Call, before: Iterable[str | None]) -> str:
        """Return what made a result see every pixel: an operation before, or this one."""
        known = next((cause for cause in before if cause), None)
        return known or f"{operation_name(call.func)!r} in {self.place or 'the network itself'}"

    def _write(self, tensor: Tensor, sight: Sight) -> None:
        """Note what `tensor` sees after an in-place operation; tensors that share its memory may see everything."""
        before = self._sight(tensor)
        if before == sight:
            return
        storage = storage_id(tensor)
        for other, seen in list(self._sights.items()):
            if other.layout is torch.strided and storage_id(other) == storage:
                self._sights[other] = Sight(
                    seen.full if before.full == sight.full else _filled(tensor, other, sight.full, seen.full),
                    seen.local if before.local == sight.local else _filled(tensor, other, sight.local, seen.local),
                    seen.positions if before.positions == sight.positions else None,
                    cause=seen.cause or sight.cause,
                    local_cause=seen.local_cause or sight.local_cause,
                )
        self._sights[tensor] = sight


def _filled(part: Tensor, whole: Tensor, sees: Sees, before: Sees) -> Sees:
    """Return what a tensor of constants sees after an image was written into a part of it, as into a padded batch."""
    ahead = part.storage_offset() - whole.storage_offset()
    if isinstance(sees, Boxes) and before is NOTHING and ahead >= 0 and whole.is_contiguous():
        return sees.written_into(tuple(whole.shape), tuple(part.shape), part.stride(), int(ahead))
    axes = part.ndim - 1
    known = isinstance(sees, View) and sees.columns is None and sees.axes == tuple(range(-axes, 0))
    if not known or before is not NOTHING or whole.ndim <= axes or part.stride()[-axes:] != whole.stride()[-axes:]:
        return EVERYTHING
    assert isinstance(sees, View)
    if ahead < 0 or not whole.is_contiguous():
        return EVERYTHING
    offsets = [
        int(ahead // step % size) for step, size in zip(whole.stride()[-axes:], whole.shape[-axes:], strict=True)
    ]
    moved = zip(sees.field.start, offsets, sees.field.steps, strict=True)
    field = replace(sees.field, start=tuple(first - offset * step for first, offset, step in moved))
    return replace(sees, field=field, crops=False)


class Sight(NamedTuple):
    """What a tensor sees of the image, and the part of the image to which its signal passes back."""

    full: Sees
    local: Sees
    positions: Positions | None
    """Which of its dimensions count positions."""
    mask: Mask | None = None
    """What constants have added to it, or which of its elements they have made zero."""
    cause: str | None = None
    """The operation from which on it may see every pixel, and its layer."""
    local_cause: str | None = None
    """The same of its signal."""


def _constant(tensor: Tensor) -> Sight:
    return Sight(NOTHING, NOTHING, without(tensor.shape))


class Operand(NamedTuple):
    """An input of an operation, as it was before the operation, which may change it in place."""

    tensor: Tensor
    shape: tuple[int, ...]
    sees: Sees
    local: Sees
    positions: Positions | None
    mask: Mask | None
    cause: str | None
    local_cause: str | None

    @property
    def sees_pixels(self) -> bool:
        return self.sees is not NOTHING

    @property
    def sees_part(self) -> bool:
        """Whether it sees something of the image, and not possibly everything."""
        return not isinstance(self.sees, Reach)


class Call(NamedTuple):
    """One operation as it ran."""

    operation: Operation
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Operand]
    results: list[Tensor]
    sides: Sizes | None
    """Those of the image; None if boxes are not followed."""
    zeros: Tensor | None = None
    """Which weights of attention are zero for every image, because a mask hides places."""

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return one argument, given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)


def _after(call: Call) -> list[Sees]:
    """Return what each of the results sees."""
    count = max(1, len(call.results))
    seen = {operand.sees for operand in call.operands}
    if seen <= {NOTHING} or call.operation.grid is Grid.NEW:
        return [NOTHING] * count
    if EVERYTHING in seen or call.kwargs.get("out") is not None:
        return [EVERYTHING] * count
    if any(isinstance(sees, Boxes) for sees in seen):
        return _in_boxes(call, count)
    found = _in_windows(call, count)
    divided = any(isinstance(sees, View) and sees.within is not None for sees in seen)
    if not divided and not any(one is EVERYTHING or _is_divided(one, call) for one in found):
        return found
    return [_finer(one, boxes) for one, boxes in zip(found, _in_boxes(call, count), strict=True)]


def _is_divided(sees: Sees, call: Call) -> bool:
    """Return whether an operation has put neighbouring positions into one, as space to depth does."""
    before = call.operands[0].sees
    rearranged = call.operation.grid in _LAYOUT and isinstance(before, View) and isinstance(sees, View)
    return rearranged and sees.field.size != before.field.size  # type: ignore[union-attr]


def _finer(sees: Sees, boxes: Sees) -> Sees:
    """Return what a tensor sees from its windows, and from the boxes of its elements."""
    if not isinstance(sees, View):
        return boxes
    if isinstance(boxes, View):
        return sees if sees.field == boxes.field else boxes
    return replace(sees, within=boxes if isinstance(boxes, Boxes) else None)


def _in_windows(call: Call, count: int) -> list[Sees]:
    """Return what each of the results sees, if the operands see evenly spaced windows."""
    if call.operation.grid in _LAYOUT:
        return _rearranged(call)
    follow = _FOLLOW.get(call.operation.grid)
    return [follow(call) if follow else EVERYTHING] * count


def _in_boxes(call: Call, count: int) -> list[Sees]:
    """Return what each of the results sees, as boxes."""
    if call.sides is None:
        return [EVERYTHING] * count
    views = [operand.sees for operand in call.operands if isinstance(operand.sees, View)]
    if any(any(view.mirrored) and view.reflected is None for view in views):
        return [EVERYTHING] * count
    found: list[Sees] = []
    for boxes in boxes_after(call, list(map(_boxes_of, call.operands))):
        if boxes is not None and boxes.is_unseen():  # as of a slice without elements
            found.append(NOTHING)
        elif boxes is None or boxes.are_alike(call.sides):
            found.append(EVERYTHING)
        else:
            found.append(_as_windows(boxes) or boxes)
    return found


def _boxes_of(operand: Operand) -> Boxes | None:
    """Return what an operand sees as boxes; None if that is nothing."""
    sees = operand.sees
    if isinstance(sees, View):
        return sees.reflected or sees.within or evenly_spaced(operand.shape, sees.axes, sees.columns, sees.field)
    return sees if isinstance(sees, Boxes) else None


def _as_windows(boxes: Boxes) -> View | None:
    """Return boxes that are evenly spaced along one dimension for each axis as windows; None for others."""
    count = len(boxes.ends) // 2
    lines = [_evenly_spaced(begin, -end) for begin, end in zip(boxes.ends[:count], boxes.ends[count:], strict=True)]
    axes = [line[0] for line in lines if line is not None]
    if len(set(axes)) < count:
        return None
    dims, size, stride, start = zip(*(line for line in lines if line is not None), strict=True)
    field = ReceptiveField(size, stride, start, boxes.exact)
    return View(field, dims, crops=False, mirrored=(0,) * count)


def _evenly_spaced(begin: Tensor, end: Tensor) -> tuple[int, int, int, int] | None:
    """Return the dimension along which windows are evenly spaced, their size, stride and start; None for others."""
    dims = [dim for dim in range(-begin.ndim, 0) if begin.shape[dim] > 1]
    if len(dims) != 1 or end.shape != begin.shape:
        return None
    begin, size = begin.flatten(), (end - begin).flatten()
    steps = begin.diff()
    if not bool((size == size[0]).all() and (steps == steps[0]).all()) or steps[0] < 1:
        return None
    return dims[0], int(size[0]), int(steps[0]), int(begin[0])


def _after_locally(call: Call, full: list[Sees]) -> list[Sees]:
    """Return where the signal of each result goes; `full` is what the results see."""
    operands = [operand._replace(sees=operand.local) for operand in call.operands]
    if call.operation.backward is Backward.NORMALISATION:
        return [_pointwise(call._replace(operands=operands))] * len(full)
    if operands == call.operands:
        return full
    places = () if _is_shaped_as_another(call) else call.operands[1:]
    if call.operation.grid in (*_LAYOUT, Grid.SAMPLE) and any(operand.sees is not NOTHING for operand in places):
        return [EVERYTHING] * len(full)  # where the elements go depends on the image
    return _after(call._replace(operands=operands))


# ---- operations that treat every position alike --------------------------------------------------------------------


def _pointwise(call: Call) -> Sees:
    """Each element depends on the same position of the first operand."""
    first, *others = call.operands
    return first.sees if all(other.sees is NOTHING for other in others) else EVERYTHING


def _across_channels(call: Call) -> Sees:
    """Local response normalisation: over neighbours along the second dimension."""
    first = call.operands[0]
    if not isinstance(first.sees, View) or 1 - len(first.shape) in first.sees.axes:
        return EVERYTHING
    return _pointwise(call)


def _converted(call: Call) -> Sees:
    """Each element is that of the first operand; others give only their type."""
    return call.operands[0].sees


def _normalised(call: Call) -> Sees:
    """Batch and instance norm: an affine map, unless they take their statistics from the image itself."""
    statistics_of_image = call.argument(5, "training", False) or call.kwargs.get("use_input_stats", False)
    return EVERYTHING if statistics_of_image else _pointwise(call)


def _linear(call: Call) -> Sees:
    """A matrix applied to the last dimension, at every position."""
    first, matrix, *_ = call.operands
    if not isinstance(first.sees, View) or -1 in first.sees.axes or len(matrix.shape) != 2:
        return EVERYTHING
    return _pointwise(call)


def _together(call: Call) -> Sees:
    """Several operands are broadcast: the window holds the windows of all."""
    shape = call.results[0].shape if call.results else call.operands[0].shape
    return _joined(call.operands, shape)


def _joined(operands: list[Operand], shape: Sequence[int]) -> Sees:
    views = [operand for operand in operands if isinstance(operand.sees, View)]
    whole = views[0].sees
    assert isinstance(whole, View)
    for _, own, sees, *_ in views:
        assert isinstance(sees, View)
        if (sees.axes, sees.columns) != (whole.axes, whole.columns) or sees.field.stride != whole.field.stride:
            return EVERYTHING
        if len(shape) < -min(sees.axes) or any(own[axis] != shape[axis] for axis in sees.axes):
            return EVERYTHING
        whole = View(
            field=_union(whole.field, sees.field),
            axes=sees.axes,
            columns=sees.columns,
            crops=whole.crops and sees.crops,
            mirrored=_each(max, whole.mirrored, sees.mirrored),
            reflected=whole.reflected if whole.reflected == sees.reflected else None,
        )
    # a constant that differs between positions, such as a position embedding, fits the whole image only
    constants = [operand.shape for operand in operands if operand.sees is NOTHING]
    sized = any(len(own) >= -axis and own[axis] > 1 for own in constants for axis in whole.axes)
    return replace(whole, crops=whole.crops and not sized)


def _union(one: ReceptiveField, other: ReceptiveField) -> ReceptiveField:
    start = _each(min, one.start, other.start)
    end = _each(max, _each(add, one.start, one.size), _each(add, other.start, other.size))
    return ReceptiveField(_each(sub, end, start), one.stride, start, one.exact and other.exact)


def _each(combine: Callable[[int, int], int], one: Sizes, other: Sizes) -> Sizes:
    return tuple(map(combine, one, other))


def _concatenated(call: Call) -> Sees:
    """Tensors one after the other along a dimension that is neither y nor x."""
    dim = call.argument(1, "dim", 0)
    shape = call.results[0].shape
    dim = dim if dim < 0 else dim - len(shape)
    stacked = operation_name(call.func) == "stack"
    joined = _joined(call.operands, _without(shape, dim) if stacked else shape)
    if not isinstance(joined, View):
        return EVERYTHING
    if stacked:
        return replace(joined, axes=tuple(axis if axis > dim else axis - 1 for axis in joined.axes))
    return EVERYTHING if dim in joined.axes else joined


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return tuple(size for d, size in enumerate(shape) if d != dim + len(shape))


def _along(call: Call) -> Sees:
    """Operations along one or several dimensions, such as softmax or a mean over channels."""
    dims = call.argument(call.operation.dim, "dim")
    first = call.operands[0]
    if dims is None or isinstance(dims, bool) or not isinstance(first.sees, View):
        return EVERYTHING
    rank = len(first.shape)
    dims = {dim if dim < 0 else dim - rank for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}
    if not dims or dims & set(first.sees.axes):
        return EVERYTHING
    if call.results[0].ndim == rank:
        return _pointwise(call)
    return replace(first.sees, axes=tuple(axis + sum(dim > axis for dim in dims) for axis in first.sees.axes))


def _extremum(call: Call) -> Sees:
    """`max` and `min`: of two tensors, or along a dimension."""
    return _together(call) if len(call.operands) > 1 else _along(call)


def _layer_norm(call: Call) -> Sees:
    """Layer norm over trailing dimensions: pointwise where they are channels."""
    first = call.operands[0].sees
    depth = len(call.argument(1, "normalized_shape"))
    if not isinstance(first, View) or any(axis >= -depth for axis in first.axes):
        return EVERYTHING
    return _pointwise(call)


# ---- windows ---------------------------------------------------------------------------------------------------------


def _windowed(call: Call, span: Sizes, step: Sizes, before: Sizes) -> Sees:
    """Windows of `span` positions, every `step` positions, of which the first begins `before` positions outside.

    They are for the last dimensions of the tensor, in this order.
    """
    first = call.operands[0].sees
    if _pointwise(call) is not first or not isinstance(first, View):
        return EVERYTHING
    if first.columns is not None or min(first.axes) < -len(span):
        return EVERYTHING
    size, stride, start = [], [], []
    for index, axis in enumerate(first.axes):
        if first.mirrored[index] and span[axis] - before[axis] <= first.mirrored[index]:
            return EVERYTHING
        size.append(first.field.size[index] + (span[axis] - 1) * first.field.steps[index])
        stride.append(first.field.steps[index] * step[axis])
        start.append(first.field.start[index] - before[axis] * first.field.steps[index])
    field = ReceptiveField(tuple(size), tuple(stride), tuple(start), first.field.exact)
    return View(field, first.axes, crops=first.crops, mirrored=(0,) * len(size))


def _with_last_axes(call: Call) -> View | None:
    """Return the first operand's view if its last dimensions are all of its axes, in their order."""
    view, shape = call.operands[0].sees, call.operands[0].shape
    if _pointwise(call) is not view or not isinstance(view, View) or view.columns is not None:
        return None
    return view if view.axes == tuple(range(2 - len(shape), 0)) else None


def _resampled(call: Call) -> Sees:
    """Resampling to the same grid; others are followed as boxes."""
    view, shape = _with_last_axes(call), call.operands[0].shape
    if view is None:
        return EVERYTHING
    for axis in range(len(shape) - 2):
        first, last = taken_by_resampling(call, axis)
        if not torch.equal(first, torch.arange(shape[2 + axis])) or not torch.equal(last, first):
            return EVERYTHING
    return replace(view, crops=False)


def _sizes(value: Any, axes: int) -> Sizes:
    """Return an int or a sequence as one number per axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _reach(kernel: Sizes, dilation: Sizes) -> Sizes:
    return tuple(gap * (side - 1) for side, gap in zip(kernel, dilation, strict=True))


def _span(kernel: Sizes, dilation: Sizes) -> Sizes:
    return tuple(reach + 1 for reach in _reach(kernel, dilation))


def _convolution(call: Call) -> Sees:
    kernel = tuple(call.argument(1, "weight").shape[2:])
    axes = len(kernel)
    step = _sizes(call.argument(3, "stride", 1), axes)
    dilation = _sizes(call.argument(5, "dilation", 1), axes)
    padding = call.argument(4, "padding", 0)
    named = {"same": tuple(reach // 2 for reach in _reach(kernel, dilation)), "valid": (0,) * axes}
    before = named[padding] if isinstance(padding, str) else _sizes(padding, axes)
    return _windowed(call, _span(kernel, dilation), step, before)


def _transposed_convolution(call: Call) -> Sees:
    """At stride 1 a convolution with the complementary padding; at other strides windows differ."""
    kernel = tuple(call.argument(1, "weight").shape[2:])
    axes = len(kernel)
    step = _sizes(call.argument(3, "stride", 1), axes)
    padding = _sizes(call.argument(4, "padding", 0), axes)
    reach = _reach(kernel, _sizes(call.argument(7, "dilation", 1), axes))
    if set(step) == {1}:
        return _windowed(call, tuple(one + 1 for one in reach), step, _each(sub, reach, padding))
    return EVERYTHING


def _max_pool(call: Call) -> Sees:
    axes = axes_of(call)
    kernel = _sizes(call.argument(1, "kernel_size"), axes)
    step = _sizes(call.argument(2, "stride") or kernel, axes)
    before = _sizes(call.argument(3, "padding", 0), axes)
    dilation = _sizes(call.argument(4, "dilation", 1), axes)
    return _windowed(call, _span(kernel, dilation), step, before)


def _average_pool(call: Call) -> Sees:
    axes = axes_of(call)
    kernel = _sizes(call.argument(1, "kernel_size"), axes)
    step = _sizes(call.argument(2, "stride") or kernel, axes)
    return _windowed(call, kernel, step, _sizes(call.argument(3, "padding", 0), axes))


def _power_pool(call: Call) -> Sees:
    axes = axes_of(call)
    kernel = _sizes(call.argument(2, "kernel_size"), axes)
    return _windowed(call, kernel, _sizes(call.argument(3, "stride") or kernel, axes), (0,) * axes)


def _adaptive_pool(call: Call) -> Sees:
    """Equal windows if the input is a multiple of the output; global pooling sees the whole image."""
    axes = axes_of(call)
    before, after = call.operands[0].shape[-axes:], call.results[0].shape[-axes:]
    if any(a % b or (b == 1 and a > 1) for a, b in zip(before, after, strict=True)):
        return EVERYTHING
    span = tuple(a // b for a, b in zip(before, after, strict=True))
    return _windowed(call, span, span, (0,) * axes)


def _user_window(call: Call) -> Sees:
    """Windows given by `interpret.register_operation`."""
    assert call.operation.window is not None
    first = call.operands[0].sees
    axes = len(first.axes) if isinstance(first, View) else 2
    size, stride, padding = (_sizes(one, axes) for one in call.operation.window(*call.args, **call.kwargs))
    return _windowed(call, size, stride, padding)


def _padded(call: Call) -> Sees:
    """Padding shifts the windows; the next window must cover reflected and replicated borders."""
    first = call.operands[0].sees
    amounts = list(call.argument(1, "pad"))
    mode = call.argument(2, "mode", "constant")
    if not isinstance(first, View):
        return EVERYTHING
    start, mirrored, crops = [], [], first.crops
    for index, axis in enumerate(first.axes):
        last = 2 * (-axis - 1)
        before, after = amounts[last : last + 2] if last < len(amounts) else (0, 0)
        if (before or after) and (any(first.mirrored) or first.columns):
            return EVERYTHING
        start.append(first.field.start[index] - before * first.field.steps[index])
        mirrored.append(first.mirrored[index] + _MIRRORED.get(mode, 0) * max(before, after, 0))
        # a negative padding removes neurons, also those at the edge of a crop
        crops = crops and before >= 0 and after >= 0
    if mode not in ("constant", *_MIRRORED):
        return EVERYTHING
    field = replace(first.field, start=tuple(start))
    reflected = None
    if any(mirrored) and call.sides is not None:
        (reflected,) = boxes_after(call, [_boxes_of(call.operands[0])])
    return replace(first, field=field, crops=crops, mirrored=tuple(mirrored), reflected=reflected)


_MIRRORED = {"reflect": 2, "replicate": 1}
"""The distance from the border of the farthest element that the padding shows, in multiples of the padding."""


# ---- layout ----------------------------------------------------------------------------------------------------------


def _rearranged(call: Call) -> list[Sees]:
    """Operations that move elements: run again on the elements' coordinates, which show where they went."""
    first, *others = call.operands
    count = max(1, len(call.results))
    if _is_shaped_as_another(call):  # the second operand gives only its shape
        others = []
        if first.sees is NOTHING:
            return [NOTHING] * count
    known = isinstance(first.sees, View) and all(other.sees is NOTHING for other in others)
    if not known or not call.args or call.args[0] is not first.tensor:
        return [EVERYTHING] * count
    try:
        moves = _moves(call, first)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return [EVERYTHING] * count
    return [_evenly(first, move) for move in moves]


def _is_shaped_as_another(call: Call) -> bool:
    return operation_name(call.func).endswith("_as")


class _Move(NamedTuple):
    """Where the elements of a rearranged tensor come from: how their old coordinates on each axis increase in it."""

    shape: tuple[int, ...]
    lines: tuple[_Line | None, ...]
    columns: int | None = None
    """How many positions a row has, if y and x increase along one dimension, row by row."""


def _moves(call: Call, first: Operand) -> list[_Move]:
    """Return where the elements of each result come from, cached, since a network's blocks repeat."""
    view = first.sees
    assert isinstance(view, View)
    key = key_of((call.func, first.shape, view.axes, view.columns, call.args[1:], call.kwargs))
    moves = _KNOWN_MOVES.get(key)
    if moves is None:
        periods = (1,) * len(view.axes) if view.columns is None else (view.columns, 1)
        coordinates = zip(view.axes, view.grid(first.shape), periods, strict=True)
        moved = [moved_coordinates(call, *one) for one in coordinates]
        moves = [
            _row_by_row(one) or _Move(tuple(one[0].shape), tuple(map(_line, one))) for one in zip(*moved, strict=True)
        ]
        if key is not None and len(_KNOWN_MOVES) < 1000:
            _KNOWN_MOVES[key] = moves
    return moves


_KNOWN_MOVES: dict[Any, list[_Move]] = {}


def _evenly(operand: Operand, move: _Move) -> Sees:
    """Return the view of a rearranged tensor, if its coordinates still increase in equal steps."""
    before, shape, columns = operand.sees, move.shape, move.columns
    assert isinstance(before, View)
    lines = [line for line in move.lines if line is not None]
    if len(lines) < len(move.lines):
        return EVERYTHING
    axes = _axes([line.dim for line in lines], before.axes, shape)
    if (
        axes is None and len(lines) == 2 and (lines[0].dim is None) != (lines[1].dim is None)
    ):  # tokens of a single row or column
        dim = lines[0].dim or lines[1].dim or 0
        axes, columns = (dim, dim), shape[dim] if lines[0].dim is None else 1
    if axes is None or (len(set(axes)) < len(axes)) != (columns is not None):
        return EVERYTHING
    size, stride, start = before.field.size, before.field.steps, before.field.start
    field = ReceptiveField(
        size=_each(add, size, _each(mul, stride, tuple(line.spread for line in lines))),
        stride=_each(mul, stride, tuple(line.step for line in lines)),
        start=_each(add, start, _each(mul, stride, tuple(line.first for line in lines))),
        exact=before.field.exact,
    )
    after = View(field, axes, columns, before.crops, before.mirrored)
    # a slice of a crop need not be a crop of the slice
    return replace(after, crops=before.crops and after.grid(shape) == before.grid(operand.shape))


def _row_by_row(places: Sequence[Tensor]) -> _Move | None:
    """Return the move of elements into one dimension that counts positions row by row; None if it is no such move."""
    if len(places) != 2:
        return None
    y, x = places
    for dim, length in enumerate(y.shape, start=-y.ndim):
        corner = tuple(slice(None) if d == dim else 0 for d in range(-y.ndim, 0))
        rows, columns = (one[corner] - one[corner][:1] for one in (y, x)) if length > 1 and y.numel() else (y, x)
        if length < 2 or not y.numel() or not bool(rows.any()) or not bool(columns.any()):
            continue
        width, count = int(rows.ne(0).nonzero()[0]), torch.arange(length, device=y.device)
        step_y, step_x = int(rows[width]), int(columns[min(1, width - 1)])
        lines = (step_y * (count // width), step_x * (count % width))
        if length % width or step_y < 1 or step_x < 1:
            return None
        found = []
        for one, line, step in zip((y, x), lines, (step_y, step_x), strict=True):
            at_one_place = one.select(dim, 0)
            if not bool((one == at_one_place.unsqueeze(dim) + line.reshape([-1] + [1] * (-dim - 1))).all()):
                return None
            first = int(at_one_place.min())
            found.append(_Line(first, dim, step, int(at_one_place.max()) - first))
        return _Move(tuple(y.shape), (found[0], found[1]), width)
    return None


class _Line(NamedTuple):
    """Coordinates that increase from `first` along dimension `dim` in equal steps; None if there is only one.

    At one position along it, they differ by up to `spread`: space to depth puts neighbouring pixels into channels.
    """

    first: int
    dim: int | None
    step: int
    spread: int


def _line(places: Tensor) -> _Line | None:
    """Return how the coordinates of a tensor's elements increase; None if not along one dimension in equal steps."""
    if places.numel() == 0:
        return None
    dim, step = None, 1
    for candidate, length in enumerate(places.shape, start=-places.ndim):
        if length > 1:
            steps = places.diff(dim=candidate)
            least = int(steps.min())
            # the longest step is from neuron to neuron, the others are within a neuron's window
            if least > 0 and least == int(steps.max()) and (dim is None or least > step):
                dim, step = candidate, least
    at_one_place = places if dim is None else places.select(dim, 0)
    first, last = int(at_one_place.min()), int(at_one_place.max())
    if dim is None and first != last:
        return None
    return _Line(first, dim, step, spread=last - first)


def _axes(found: Sequence[int | None], before: Sizes, shape: Sequence[int]) -> Sizes | None:
    """Return the dimensions that are the axes; for a single position, choose among the dimensions of size 1."""
    missing = [index for index, dim in enumerate(found) if dim is None]
    free = [dim for dim in range(1 - len(shape), 0) if shape[dim] == 1 and dim not in found]
    if len(free) < len(missing):
        return None
    if not all(before[index] in free for index in missing):
        chosen = dict(zip(missing, free[-len(missing) :], strict=True))
    else:
        chosen = {index: before[index] for index in missing}
    return tuple(chosen[index] if dim is None else dim for index, dim in enumerate(found))


# ---- which function for which operation ---------------------------------------------------------------------------

_LAYOUT = (Grid.LAYOUT, Grid.SPLIT)

_FOLLOW: dict[Grid | None, Callable[[Call], Sees]] = {
    Grid.ELEMENTWISE: _pointwise,
    Grid.BROADCAST: _together,
    Grid.CONVERT: _converted,
    Grid.STATISTICS: _normalised,
    Grid.CHANNELS: _across_channels,
    Grid.LAST_DIMENSION: _linear,
    Grid.TRAILING: _layer_norm,
    Grid.ALONG: _along,
    Grid.EXTREMUM: _extremum,
    Grid.CONCATENATE: _concatenated,
    Grid.PAD: _padded,
    Grid.CONVOLUTION: _convolution,
    Grid.TRANSPOSED_CONVOLUTION: _transposed_convolution,
    Grid.MAX_POOL: _max_pool,
    Grid.AVERAGE_POOL: _average_pool,
    Grid.POWER_POOL: _power_pool,
    Grid.RESAMPLE: _resampled,
    Grid.ADAPTIVE_POOL: _adaptive_pool,
    Grid.WINDOW: _user_window,
}
