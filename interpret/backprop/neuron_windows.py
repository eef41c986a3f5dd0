"""Backward passes of many neurons at once, each on the windows of the maps that its signal can reach.

One neuron's signal fills a small part of each map: through four convolutions of 3 × 3, at most 9 × 9 positions.
Autograd passes whole maps back, one signal per image. Here the graph that it recorded is followed for many neurons of
the same layer, of one image or of several, with the window of each neuron cut from its maps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import GradientEdge

from interpret.backprop.input_signal import FEW_CHANNELS, input_signal, transposed_to_few
from interpret.backprop.windowed_convolution import pair
from interpret.network.torch_internals import node_device, node_shape, node_type, saved

Pair = tuple[int, int]

MOST_VALUES = 2**21
"""Values of a map of all signals that pass back at once; of more of them, the maps leave the processor's cache."""

HOOKED = "interpret: hooked"
"""Key in the metadata of nodes of autograd's graph at which the network itself has put a hook."""


@dataclass(frozen=True)
class Windows:
    """Signals of n neurons, each in a window of a map; zero outside of it."""

    values: Tensor
    """[n, C, h, w]"""
    corners: NDArray[np.int64]
    """[n, 2] top and left of each window, which lies in the map."""
    shared: bool = False
    """Whether another branch of the graph reads `values`, too, so that they must not be changed."""

    @property
    def size(self) -> Pair:
        height, width = self.values.shape[2:]
        return height, width

    def within(self, corners: NDArray[np.int64], size: Pair) -> Tensor:
        """Return the signals in other windows of the map, [n, C, h, w]."""
        if self.size == size and (self.corners == corners).all():
            return self.values
        return _shifted(self.values, corners - self.corners, size)


Step = Callable[[Windows, Tensor], list[Windows]]
"""Passes signals back through an operation, of the images at `rows` [n], to each of its operands."""


class NeuronWindows:
    """The graph of autograd below a layer, for the signals of single neurons.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 4, 3)).requires_grad_(False)
    >>> x = torch.rand(5, 1, 12, 12, requires_grad=True)
    >>> graph = NeuronWindows.below(network(x))
    >>> rows, channels, ones = torch.tensor([0, 4, 4]), torch.tensor([3, 0, 2]), torch.ones(3)
    >>> (found,) = graph.signals(rows, channels, torch.tensor([[0, 0], [4, 5], [9, 9]]), ones)
    >>> found.values.shape, found.corners.tolist()
    (torch.Size([3, 1, 5, 5]), [[0, 0], [3, 4], [7, 7]])
    """

    def __init__(self, node: Any, steps: Sequence[tuple[Any, Step]], leaf: Any) -> None:
        self._shape = node_shape(node)
        self._steps = steps
        self._growth = _growth([one for one, _ in steps])
        self._leaf = leaf

    @classmethod
    def below(cls, output: Tensor, known: dict[Any, Step | None] | None = None) -> NeuronWindows | None:
        """Return the graph below a layer's output; None where this module does not know one of its operations.

        What a network does to its images before its first convolution may be anything, such as a detector's resizing:
        autograd passes the signals back through it, one of each image at once.

        Args:
            output: the layer's output [B, C, H, W], made by a forward pass that autograd recorded.
            known: what other calls for the same forward pass found; the same dictionary for all of them saves work.
        """
        return None if output.grad_fn is None else cls.from_node(output.grad_fn, known)

    @classmethod
    @torch.no_grad()
    def from_node(cls, node: Any, known: dict[Any, Step | None] | None = None) -> NeuronWindows | None:
        """Return the graph below the node of autograd's graph that made a layer's output; see `below`."""
        if len(node_shape(node)) != 4 or node_device(node).type != "cpu":
            return None  # elsewhere, the many small operations cost more than they save
        known = {} if known is None else known
        steps: list[tuple[Any, Step]] = []
        leaves: set[Any] = set()
        before: set[Any] = set()
        """What is done to the images before this module knows every operation."""
        for one in _in_order(node):
            if _is_leaf(one):
                leaves.add(one)
            if one in before or _is_leaf(one):
                continue
            if one not in known:
                make = _STEPS.get(type(one).__name__)
                plain = make is not None and len(node_shape(one)) == 4 and HOOKED not in one.metadata
                known[one] = make(one) if make is not None and plain else None
            step = known[one]
            if step is None:
                below = _in_order(one)
                if not steps or any(type(part).__name__ in _WEIGHTED for part in below):
                    return None
                before.update(below)
                continue
            steps.append((one, step))
        entered = [edge for one, _ in steps for edge in _operands(one) if edge[0] in before]
        if len(leaves) != 1 or any(place or len(node_shape(under)) != 4 for under, place in entered):
            return None
        return cls(node, steps, *leaves)

    @torch.no_grad()
    def signals(
        self,
        rows: Tensor,
        channels: Tensor,
        positions: Tensor,
        start: Tensor,
        corners: NDArray[np.int64] | None = None,
        size: Pair | None = None,
        dtype: torch.dtype | None = None,
    ) -> Iterator[Windows]:
        """Yield the signals of n neurons at the input, in their order, those of some neurons at a time.

        Args:
            rows: [n] their images in the batch.
            channels, positions: [n] and [n, 2] where they are in the layer's output.
            start: [n] the signal at each of them.
            corners, size: [n, 2] the top and left, and the size, of windows that hold all of each signal; None: the
                whole input. They save memory where autograd passes signals back to it.
            dtype: the type in which signals pass back, to be returned in that of `start`; None: in that.
        """
        values = start.new_zeros(len(rows), self._shape[1], 1, 1, dtype=dtype)
        values[torch.arange(len(rows)), channels, 0, 0] = start.to(values.dtype)
        if corners is None or size is None:
            corners, size = np.zeros((len(rows), 2), np.int64), _size(self._leaf)
        for found in self._pass_back(0, Windows(values, positions.numpy()), rows, corners, size):
            yield Windows(found.values.to(start.dtype), found.corners)

    def _pass_back(
        self, place: int, windows: Windows, rows: Tensor, corners: NDArray[np.int64], size: Pair
    ) -> Iterator[Windows]:
        """Pass signals back from the step at a place, through which all of them go.

        Where the maps grow, fewer signals pass back at once, so that their windows stay in the processor's cache.
        """
        waiting = defaultdict(list, {self._steps[place][0]: [windows]})
        for here, (node, step) in enumerate(self._steps[place:], place):
            windows = _sum(waiting.pop(node), _size(node))
            if not waiting:  # no other branch is open
                at_once = max(1, int(MOST_VALUES / (math.prod(windows.size) * self._growth[here])))
                if at_once < len(rows):
                    for first in range(0, len(rows), at_once):
                        some = slice(first, first + at_once)
                        part = Windows(windows.values[some], windows.corners[some], windows.shared)
                        yield from self._pass_back(here, part, rows[some], corners[some], size)
                    return
            for (below, _), part in zip(_operands(node), step(windows, rows), strict=True):
                waiting[below].append(part)
        found = {below: _sum(parts, _size(below)) for below, parts in waiting.items()}
        if found.keys() == {self._leaf}:
            yield found[self._leaf]
        else:
            yield self._by_autograd(found, rows, corners, size)

    def _by_autograd(self, found: dict[Any, Windows], rows: Tensor, corners: NDArray[np.int64], size: Pair) -> Windows:
        """Pass signals back to the input from the operations that this module does not know, in windows of it."""
        direct = found.pop(self._leaf, None)
        whole = node_shape(self._leaf)
        values = torch.zeros(len(rows), whole[1], *size, dtype=node_type(self._leaf))
        if direct is not None:
            values += direct.within(corners, size)
        turns = np.array([int((rows[:n] == row).sum()) for n, row in enumerate(rows)])
        for turn in range(turns.max(initial=-1) + 1):
            own = np.flatnonzero(turns == turn)
            starts = []
            for below, windows in found.items():
                starts.append(torch.zeros(node_shape(below), dtype=node_type(below)))
                for n, row in zip(own.tolist(), rows[own].tolist(), strict=True):
                    (y, x), (height, width) = windows.corners[n].tolist(), windows.size
                    starts[-1][row, :, y : y + height, x : x + width] = windows.values[n]
            edges = [GradientEdge(below, 0) for below in found]
            (signal,) = torch.autograd.grad(edges, self._leaf.variable, starts, retain_graph=True)
            values[torch.from_numpy(own)] += _cut(signal, rows[own], corners[own], size)
        return Windows(values, corners)


def _growth(nodes: Sequence[Any]) -> dict[int, float]:
    """Return the places in a graph through which every signal passes, and how many values one position grows to.

    These are the values of the largest map between the place and the next one, for each position of the place's map.
    """
    growth: dict[int, float] = {}
    waiting = {nodes[0]}
    last = 0
    for place, node in enumerate(nodes):
        waiting.discard(node)
        if not waiting:
            last, growth[place] = place, 0.0
        for below, _ in _operands(node):
            growth[last] = max(growth[last], math.prod(node_shape(below)[1:]) / math.prod(_size(nodes[last])))
            waiting.add(below)
    return growth


def _in_order(node: Any) -> list[Any]:
    """Return a node and all below it, each before those that its signal goes to."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(node, False)]
    while stack:
        one, finished = stack.pop()
        if finished:
            order.append(one)
        elif one not in seen:
            seen.add(one)
            stack.append((one, True))
            stack += [(below, False) for below, _ in _operands(one)]
    return order[::-1]


def _operands(node: Any) -> list[tuple[Any, int]]:
    """Return the nodes that made the operands which carry the signal."""
    return [(below, place) for below, place in node.next_functions if below is not None]


def _is_leaf(node: Any) -> bool:
    return not node.next_functions


def _size(node: Any) -> Pair:
    height, width = node_shape(node)[2:]
    return height, width


# ---- windows -----------------------------------------------------------------------------------------------------


def _cut(
    maps: Tensor, rows: Tensor, corners: NDArray[np.int64], size: Pair, minus: NDArray[np.int64] | None = None
) -> Tensor:
    """Return the windows of a size in the maps [B, C, H, W] of images, less a number for each, [n, C, h, w]."""
    by_position = maps.permute(0, 2, 3, 1)
    height, width = size
    if size == tuple(maps.shape[2:]) and minus is None:
        if len(rows) == 1:
            return maps[int(rows)][None]
        return by_position[rows].permute(0, 3, 1, 2)
    found = by_position.new_empty(len(rows), height, width, maps.shape[1])
    places = zip(found, rows.tolist(), corners.tolist(), strict=True)
    for n, (own, row, (y, x)) in enumerate(places):
        part = by_position[row, y : y + height, x : x + width]
        torch.sub(part, int(minus[n]), out=own) if minus is not None else own.copy_(part)
    return found.permute(0, 3, 1, 2)


def _into_map(values: Tensor, corners: NDArray[np.int64], whole: Pair) -> Windows:
    """Return windows that may reach beyond the map as windows inside it, without what lies outside."""
    size = (min(values.shape[2], whole[0]), min(values.shape[3], whole[1]))
    inside = np.clip(corners, 0, np.subtract(whole, size))
    if size != tuple(values.shape[2:]):
        return Windows(_shifted(values, inside - corners, size), inside)
    moved = np.flatnonzero((inside != corners).any(1))
    if len(moved) > len(corners) / 2:
        return Windows(_shifted(values, inside - corners, size), inside)
    if len(moved):
        at = torch.from_numpy(moved)
        values[at] = _shifted(values[at], (inside - corners)[moved], size)
    return Windows(values, inside)


def _shifted(values: Tensor, by: NDArray[np.int64], size: Pair) -> Tensor:
    """Return windows that begin `by` [n, 2] further into `values`, with zeros where these end."""
    count, channels, *have = values.shape
    found = values.new_zeros(count, *size, channels).permute(0, 3, 1, 2)
    for n, (y, x) in enumerate(by.tolist()):
        top, left = max(-y, 0), max(-x, 0)
        bottom, right = max(0, min(y + size[0], have[0])), max(0, min(x + size[1], have[1]))
        part = values[n, :, max(y, 0) : bottom, max(x, 0) : right]
        found[n, :, top : top + part.shape[1], left : left + part.shape[2]] = part
    return found


def _sum(parts: Sequence[Windows], whole: Pair) -> Windows:
    """Add signals that reach the same map, in windows that hold all of theirs."""
    if len(parts) == 1:
        return parts[0]
    first = np.minimum.reduce([part.corners for part in parts])
    last = np.maximum.reduce([part.corners + part.size for part in parts])
    height, width = (last - first).max(0).tolist()
    corners = np.minimum(first, np.subtract(whole, (height, width)))
    fitting = [part for part in parts if part.size == (height, width) and (part.corners == corners).all()]
    base = next((part for part in fitting if not part.shared), None)
    count, channels = parts[0].values.shape[:2]
    if base is None:
        values = parts[0].values.new_zeros(count, height, width, channels).permute(0, 3, 1, 2)
    else:
        values = base.values
    for part in parts:
        if part is not base:
            _add(values, part, part.corners - corners)
    return Windows(values, corners)


def _add(values: Tensor, part: Windows, by: NDArray[np.int64]) -> None:
    """Add windows into larger ones, in which they begin at `by` [n, 2]."""
    height, width = part.size
    if (by == by[0]).all():
        y, x = by[0].tolist()
        values[:, :, y : y + height, x : x + width] += part.values
        return
    for one, own, (y, x) in zip(values, part.values, by.tolist(), strict=True):
        one[:, y : y + height, x : x + width] += own


# ---- operations --------------------------------------------------------------------------------------------------


def _pass(_node: Any) -> Step:
    return lambda windows, _rows: [windows]


def _cast(node: Any) -> Step | None:
    ((below, _),) = _operands(node)
    dtype = node_type(below)
    if node_device(below).type != "cpu":
        return None
    return lambda windows, _rows: [Windows(windows.values.to(dtype), windows.corners, windows.shared)]


def _add_up(node: Any) -> Step | None:
    shapes = [node_shape(below) for below, _ in _operands(node)]
    if saved(node, "alpha") != 1 or any(shape != node_shape(node) for shape in shapes):
        return None

    def step(windows: Windows, _rows: Tensor) -> list[Windows]:
        return [Windows(windows.values, windows.corners, windows.shared or len(shapes) > 1)] * len(shapes)

    return step


def _cat(node: Any) -> Step | None:
    if saved(node, "dim") not in (1, 2**64 - 3) or len(_operands(node)) != len(node.next_functions):
        return None
    channels = [node_shape(below)[1] for below, _ in _operands(node)]

    # slices of one tensor, which are not dense
    return lambda windows, _rows: [
        Windows(part, windows.corners, shared=True) for part in windows.values.split(channels, 1)
    ]


def _rectify(node: Any) -> Step:
    (slope,) = node.saved_tensors

    def step(windows: Windows, rows: Tensor) -> list[Windows]:
        values = windows.values.clamp(min=0) if windows.shared else windows.values.clamp_(min=0)
        if slope is not None:
            values = values.mul_(_cut(slope, rows, windows.corners, windows.size).to(values.dtype))
        return [Windows(values, windows.corners)]

    return step


def _relu(node: Any) -> Step:
    result = saved(node, "result")

    def step(windows: Windows, rows: Tensor) -> list[Windows]:
        positive = _cut(result, rows, windows.corners, windows.size) > 0
        return [Windows(windows.values * positive, windows.corners)]

    return step


def _normalise(node: Any) -> Step | None:
    if saved(node, "training"):
        return None
    scale = (saved(node, "running_var") + saved(node, "eps")).rsqrt()
    weight = saved(node, "weight")
    scale = (scale if weight is None else scale * weight).reshape(1, -1, 1, 1)
    return lambda windows, _rows: [_times(windows, scale)]


def _times(windows: Windows, factor: Tensor) -> Windows:
    factor = factor.to(windows.values.dtype)  # much faster than a product of two types
    values = windows.values * factor if windows.shared else windows.values.mul_(factor)
    return Windows(values, windows.corners)


def _multiply(node: Any) -> Step | None:
    """The product with a constant, such as a gate that a rule holds constant."""
    operands = _operands(node)
    if len(operands) != 1 or node_shape(operands[0][0]) != node_shape(node):
        return None
    factor = saved(node, "other" if node.next_functions[0][0] is not None else "self")
    size = _size(node)
    if factor.dim() not in (0, 4) or (factor.dim() == 4 and tuple(factor.shape[2:]) not in ((1, 1), size)):
        return None

    def step(windows: Windows, rows: Tensor) -> list[Windows]:
        if factor.dim() == 0:
            return [_times(windows, factor)]
        rows = rows if len(factor) > 1 else torch.zeros_like(rows)
        if tuple(factor.shape[2:]) == (1, 1):
            return [_times(windows, factor[rows])]
        return [_times(windows, _cut(factor, rows, windows.corners, windows.size))]

    return step


def _convolve(node: Any) -> Step | None:
    if saved(node, "transposed"):
        return None
    return _convolution(node, saved(node, "weight"), *(saved(node, name) for name in _CONVOLUTION_SETTINGS))


def _convolve_own(node: Any) -> Step | None:
    return _convolution(node, node.saved_tensors[0], node.stride, node.padding, node.dilation, node.groups)


_CONVOLUTION_SETTINGS = ("stride", "padding", "dilation", "groups")


def _convolution(
    node: Any, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Step | None:
    if len(_operands(node)) != 1 or node.next_functions[0][0] is None:
        return None  # the weights carry a signal
    _, channels, *whole = node_shape(_operands(node)[0][0])
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    weight = weight.contiguous(memory_format=torch.channels_last)
    turned = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    in_type = cache(lambda dtype: (weight.to(dtype), turned.to(dtype)))
    plain = groups == 1 and dilation == (1, 1)
    by_position = plain and tuple(weight.shape[2:]) == stride == (1, 1) and padding == (0, 0)

    def step(windows: Windows, _rows: Tensor) -> list[Windows]:
        # PyTorch has fast convolutions in types of lower precision for one group alone
        values = windows.values if groups == 1 else windows.values.to(weight.dtype)
        own, own_turned = in_type(values.dtype)
        if by_position:
            return [Windows(F.conv2d(values, own_turned), windows.corners)]
        corners = windows.corners * stride - padding
        if windows.size == _size(node):
            below = [len(values), channels, *whole]
            found, corners = input_signal(below, own, values, stride, padding, dilation, groups), 0 * corners
        elif plain and channels <= FEW_CHANNELS:
            found = transposed_to_few(values, own, stride)
        else:
            found = F.conv_transpose2d(values, own, stride=stride, groups=groups, dilation=dilation)
        found = found if groups == 1 else found.to(windows.values.dtype)
        return [_into_map(found, corners, (whole[0], whole[1]))]

    return step


def _pooling(node: Any) -> tuple[Pair, Pair, Pair]:
    """Return the kernel, the stride and the padding of a pool; the stride is kept empty where it is the kernel."""
    kernel = pair(saved(node, "kernel_size"))
    return kernel, pair(saved(node, "stride") or kernel), pair(saved(node, "padding"))


def _average_pool(node: Any) -> Step | None:
    kernel, stride, padding = _pooling(node)
    whole = _size(_operands(node)[0][0])
    last = np.multiply(np.subtract(_size(node), 1), stride) + kernel
    if (last > np.add(whole, np.multiply(2, padding))).any() or (
        padding != (0, 0) and not saved(node, "count_include_pad")
    ):
        return None  # the windows at the border average fewer positions
    share = 1 / (saved(node, "divisor_override") or kernel[0] * kernel[1])

    def step(windows: Windows, _rows: Tensor) -> list[Windows]:
        values, (height, width) = windows.values * share, windows.size
        size = [(n - 1) * s + k for n, s, k in zip(windows.size, stride, kernel, strict=True)]
        found = values.new_zeros(len(values), *size, values.shape[1]).permute(0, 3, 1, 2)
        for y in range(kernel[0]):
            for x in range(kernel[1]):
                found[:, :, y : y + stride[0] * height : stride[0], x : x + stride[1] * width : stride[1]] += values
        return [_into_map(found, windows.corners * stride - padding, whole)]

    return step


def _max_pool(node: Any) -> Step | None:
    kernel, stride, padding = _pooling(node)
    dilation = pair(saved(node, "dilation"))
    indices, whole = saved(node, "result1"), _size(_operands(node)[0][0])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    switches: dict[int, Tensor] = {}
    """By the width of the windows, and the line of each switch under 0."""

    def step(windows: Windows, rows: Tensor) -> list[Windows]:
        size = _limited([(n - 1) * s + r for n, s, r in zip(windows.size, stride, reach, strict=True)], whole)
        corners = np.clip(windows.corners * stride - padding, 0, np.subtract(whole, size))
        if size == whole:
            local = _cut(indices, rows, windows.corners, windows.size)
        else:
            if size[1] not in switches:
                # the index y·W + x of the map, as y·w + x in a window of the width w
                lines = switches.get(0)
                lines = indices.div(whole[1], rounding_mode="floor") if lines is None else lines
                switches.clear()  # other widths are those of other layers
                switches.update({0: lines, size[1]: torch.add(indices, lines, alpha=size[1] - whole[1])})
            local = _cut(switches[size[1]], rows, windows.corners, windows.size, minus=corners @ [size[1], 1])
        below = windows.values.new_empty(len(rows), *size, windows.values.shape[1]).permute(0, 3, 1, 2)  # its shape
        values = torch.ops.aten.max_pool2d_with_indices_backward(
            windows.values.contiguous(memory_format=torch.channels_last),
            below,
            _kernel_between(size, windows.size),
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            local,
        )
        return [Windows(values, corners)]

    return step


def _repeat(node: Any) -> Step:
    """Enlarging by the nearest position."""
    whole, size = _size(_operands(node)[0][0]), _size(node)
    scales = [saved(node, f"scales_{axis}") for axis in "hw"]
    nearest = [
        torch.ops.aten.upsample_nearest1d(torch.arange(float(below))[None, None], [above], scale)[0, 0].long().numpy()
        for below, above, scale in zip(whole, size, scales, strict=True)
    ]

    def step(windows: Windows, _rows: Tensor) -> list[Windows]:
        axes = list(zip(nearest, windows.corners.T, windows.size, strict=True))
        first = np.stack([places[corner] for places, corner, _ in axes], 1)
        last = np.stack([places[corner + length - 1] for places, corner, length in axes], 1)
        height, width = (last - first).max(0).tolist()
        corners = np.minimum(first, np.subtract(whole, (height + 1, width + 1)))
        found = windows.values
        for axis, (places, corner, length) in enumerate(axes):
            local = places[corner[:, None] + np.arange(length)] - corners[:, axis, None]
            taps = torch.from_numpy(local[:, None] == np.arange((height + 1, width + 1)[axis])[:, None]).to(found)
            found = taps[:, None] @ found if axis == 0 else found @ taps[:, None].mT
        return [Windows(found, corners)]

    return step


def _kernel_between(size: Pair, pooled: Pair) -> list[int]:
    """Return a kernel by which a map would be pooled to a size; the operator checks that, and uses the switches."""
    return [size[0] - pooled[0] + 1, size[1] - pooled[1] + 1]


def _limited(size: Sequence[int], whole: Pair) -> Pair:
    return min(size[0], whole[0]), min(size[1], whole[1])


_STEPS: dict[str, Callable[[Any], Step | None]] = {
    "CloneBackward0": _pass,
    "ToCopyBackward0": _cast,
    "AddBackward0": _add_up,
    "CatBackward0": _cat,
    "_RectifyBackward": _rectify,
    "ReluBackward0": _relu,
    "NativeBatchNormBackward0": _normalise,
    "ConvolutionBackward0": _convolve,
    "_ConvolutionBackward": _convolve_own,
    "MulBackward0": _multiply,
    "AvgPool2DBackward0": _average_pool,
    "MaxPool2DWithIndicesBackward0": _max_pool,
    "UpsampleNearest2DBackward0": _repeat,
}

_WEIGHTED = {"ConvolutionBackward0", "_ConvolutionBackward", "AddmmBackward0", "MmBackward0", "BmmBackward0"}
"""Operations that cost much more than what is done to images before them."""
