"""Connectivity: which layers feed which, through branches and joins, and which unit arrives in which channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.network.forward import call_network, first_weight
from interpret.network.layers import kinds_with_units, tensors_in
from interpret.network.model import Model, as_model
from interpret.network.modes import evaluating
from interpret.network.operations import Grid, operation_name, operation_of
from interpret.network.weights import has_layers, kind_of, named_layers, weight_of
from interpret.support.progress import progress
from interpret.tracing.conv_arithmetic import is_convolution

Units = dict[str, "NDArray[np.int64]"]
"""Units by layer: the unit of the layer that arrives in each channel, [C]; −1 if none of its units does."""

INPUT = ""
"""The name of the node for the image."""


@dataclass
class Node:
    """A module without parts, or a join of branches, and the nodes that feed it."""

    name: str
    """As `named_modules()` spells it; "join 1", "join 2" … for joins."""
    kind: str
    """The module's class, or the operation that joins the branches: "add", "cat", "mul" …"""
    sources: list[str]
    """The nodes whose outputs are its inputs; "" is the image."""
    join: bool = False


@dataclass
class Flow:
    """The nodes of a network in order of execution, and the units that arrive at the layers with units."""

    nodes: list[Node] = field(default_factory=list)
    arriving: dict[str, Units] = field(default_factory=dict)
    """For each convolutional and linear layer, the units in its input channels, as far as known."""

    def sources(self) -> dict[str, list[str]]:
        """Return the sources of each node, by name."""
        return {node.name: node.sources for node in self.nodes}


def trace_flow(model: Model | nn.Module, input_shape: Sequence[int] | None = None) -> Flow:
    """Run a network once on an image of zeros and return its connectivity.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
    ...     def forward(self, x):
    ...         x = self.first(x)
    ...         return x + self.second(x).relu()
    >>> flow = trace_flow(Block(), (3, 8, 8))
    >>> flow.sources()
    {'first': [''], 'second': ['first'], 'join 1': ['first', 'second']}
    >>> flow.arriving["second"]
    {'first': array([0, 1, 2, 3])}

    Channels are followed through operations that do not mix them: rectifiers, pools, norms, sums, concatenations along
    channels, flattening. After any other, such as a channel shuffle or attention, the layers are known but not their
    units. A module that runs several times counts with its first run.

    Args:
        model: the network, which takes one batch of images; it is left as it was.
        input_shape: (channels, height, width) of one image; None: the model's own.
    """
    model = as_model(model)
    shape = tuple(model.input_shape if input_shape is None else input_shape)
    module = model.module
    image = first_weight(module).new_zeros(1, *shape)
    tracker = _Tracker(module, image)
    with torch.inference_mode(False), evaluating(module), torch.no_grad(), tracker.watching(module), tracker:
        call_network(module, image)
    return tracker.flow


@dataclass(frozen=True)
class _State:
    """The nodes that made a tensor, and the units in its channels."""

    nodes: tuple[str, ...]
    units: Mapping[str, NDArray[np.int64]]


class _Tracker(TorchFunctionMode):
    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        self._with_units, self._dims = kinds_with_units(module), image.dim()
        self.flow = Flow()
        self._known = WeakTensorKeyDictionary()
        self._known[image] = _State((INPUT,), {})
        self._inside: list[str] = []
        self._joins = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = [
            (tensor, tuple(tensor.shape), self._known[tensor])
            for tensor in tensors_in([args, kwargs])
            if tensor in self._known
        ]
        result = func(*args, **kwargs)
        results = list(tensors_in(result))
        if operands and results:
            nodes = self._nodes(operation_name(func), [state for _, _, state in operands])
            for place, tensor in enumerate(results):
                units = _units(func, args, kwargs, operands, results, place)
                self._known[tensor] = _State(nodes, units)
        return result

    def _nodes(self, name: str, states: list[_State]) -> tuple[str, ...]:
        """Return the nodes that make a result: those that made its operands, or a new join if these differ."""
        met = list(dict.fromkeys(node for state in states for node in state.nodes))
        if len({state.nodes for state in states}) == 1 or self._inside:
            return states[0].nodes if len({state.nodes for state in states}) == 1 else tuple(met)
        self._joins += 1
        self.flow.nodes.append(Node(f"join {self._joins}", name, met, join=True))
        return (f"join {self._joins}",)

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Note the inputs and outputs of each module without parts."""
        handles = []
        for name, part in named_layers(module):
            if name and not has_layers(part):
                handles.append(part.register_forward_pre_hook(self._enter(name), with_kwargs=True))
                handles.append(part.register_forward_hook(self._leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any, kwargs: Any) -> None:
            self._inside.append(name)
            states = [self._known[tensor] for tensor in tensors_in([args, kwargs]) if tensor in self._known]
            if any(node.name == name for node in self.flow.nodes):
                return
            sources = dict.fromkeys(node for state in states for node in state.nodes)
            self.flow.nodes.append(Node(name, kind_of(part), list(sources)))
            if isinstance(part, self._with_units):
                self.flow.arriving[name] = {layer: units for state in states for layer, units in state.units.items()}

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        runs = 0

        def hook(part: nn.Module, _inputs: object, output: object) -> None:
            nonlocal runs
            runs += 1
            self._inside.pop()
            for tensor in tensors_in(output):
                before = self._known.get(tensor)
                if isinstance(part, self._with_units):
                    first = isinstance(part, nn.Linear) or tensor.dim() < self._dims
                    channels = tensor.shape[-1 if first and tensor.dim() != 2 else 1]
                    kept = tensor.dim() in (2, self._dims) and not (isinstance(part, nn.Linear) and tensor.dim() > 2)
                    self._known[tensor] = _State((name,), {name: np.arange(channels)} if kept else {})
                elif before is not None and runs == 1:
                    self._known[tensor] = _State((name,), before.units)

        return hook


def _units(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    operands: list[tuple[Tensor, tuple[int, ...], _State]],
    results: list[Tensor],
    place: int,
) -> Units:
    """Return the units in the channels of a function's result."""
    name, operation, shape = operation_name(func), operation_of(func), tuple(results[place].shape)
    if operation.mixes_units or len(shape) < 2:
        return {}
    dim = kwargs.get("dim", args[operation.dim] if len(args) > operation.dim else 0)
    if operation.grid is Grid.CONCATENATE and name != "stack" and dim in (1, 1 - len(shape)):
        return _side_by_side(tensors_in(args[0] if args else kwargs["tensors"]), operands)
    if operation.grid is Grid.SPLIT:
        if dim not in (1, 1 - len(shape)) or name == "unbind":
            return {}
        start = sum(int(one.shape[1]) for one in results[:place])
        return {layer: units[start : start + shape[1]] for layer, units in operands[0][2].units.items()}
    merged: Units = {}
    for _, own, state in operands:
        if len(own) < 2:
            return {}
        if own[1] == shape[1]:
            repeats = 1
        elif name in ("flatten", "reshape", "view") and len(shape) == 2 and shape[1] == math.prod(own[1:]):
            repeats = math.prod(own[2:])
        else:
            return {}
        if name == "getitem" and len(own) != len(shape):
            return {}
        for layer, units in state.units.items():
            arriving = np.repeat(units, repeats)
            # one layer arrives along two paths in different orders: a channel has two units
            if layer in merged and not np.array_equal(merged[layer], arriving):
                return {}
            merged[layer] = arriving
    return merged


def _side_by_side(parts: Iterator[Tensor], operands: list[tuple[Tensor, tuple[int, ...], _State]]) -> Units:
    """Return the units in the channels of a concatenation."""
    known = {id(tensor): state for tensor, _, state in operands}
    tensors = list(parts)
    total = sum(tensor.shape[1] for tensor in tensors)
    found: Units = {}
    start = 0
    for tensor in tensors:
        end = start + tensor.shape[1]
        state = known.get(id(tensor))
        for layer, units in (state.units if state else {}).items():
            found.setdefault(layer, np.full(total, -1, np.int64))[start:end] = units
        start = end
    return found


# ---- weights between units ------------------------------------------------------------------------------------------


@dataclass
class Connections:
    """The strongest weights into and out of each of a layer's C units, at most n each, the strongest first."""

    in_layers: NDArray[np.int64]
    """[C, n] the layer at the other end, as an index into the given names; −1 if there are fewer than n."""
    in_units: NDArray[np.int64]
    in_weights: NDArray[np.float32]
    """[C, n] the root of the sum of squares over the kernel, with the sign of the kernel's sum."""
    out_layers: NDArray[np.int64]
    out_units: NDArray[np.int64]
    out_weights: NDArray[np.float32]
    kernels: NDArray[np.float32]
    """[C, n, h, w] the kernels of the incoming weights; 0 × 0 if they are single weights, or too large to draw."""


def _with_progress(names: Sequence[str]) -> Iterator[str]:
    with progress(len(names), "connecting", "layer") as bar:
        for name in names:
            yield name
            bar.update()


LARGEST_KERNEL = 11
"""The largest side of a kernel that is kept for drawing."""


def connect(module: nn.Module, flow: Flow, names: Sequence[str], n: int = 6) -> dict[str, Connections]:
    """Return the strongest weights between the units of layers that feed each other.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    >>> with torch.no_grad():
    ...     _ = network[2].weight.copy_(torch.tensor([0.5, -2.0]).reshape(1, 2, 1, 1))
    >>> found = connect(network, trace_flow(network, (1, 4, 4)), ["0", "2"])
    >>> found["2"].in_units[0, :2], found["2"].in_weights[0, :2]
    (array([1, 0]), array([-2. ,  0.5], dtype=float32))
    >>> int(found["0"].out_units[1, 0]), float(found["0"].out_weights[1, 0])
    (0, -2.0)

    The weight between two units is the norm of all weights that connect them: a kernel, or the weights at all positions
    for a linear layer on a flattened feature map. Normalisation and scales between the layers are not included.

    Args:
        module: the network.
        flow: the result of `trace_flow`.
        names: the layers to connect; others are left out.
        n: the number of weights to keep for each unit.
    """
    index = {name: j for j, name in enumerate(names)}
    parts = dict(module.named_modules())
    incoming: dict[str, list[_Strongest]] = {name: [] for name in names}
    outgoing: dict[str, list[_Strongest]] = {name: [] for name in names}
    counts: dict[str, int] = {}
    for name in _with_progress(names):
        weights = _weights(parts.get(name))
        if weights is None:
            continue
        counts[name] = len(weights)
        for source, units in flow.arriving.get(name, {}).items():
            if source not in index or len(units) != weights.shape[1] or not (units >= 0).any():
                continue
            strengths = _strengths(weights, units)
            counts.setdefault(source, strengths.shape[1])
            incoming[name].append(_Strongest.of(strengths, index[source], n))
            outgoing[source].append(_Strongest.of(strengths.T, index[name], n))
    found = {}
    for name, count in counts.items():
        into, out = _Strongest.merge(incoming[name], count, n), _Strongest.merge(outgoing[name], count, n)
        kernels = _kernels(_weights(parts.get(name)), flow.arriving.get(name, {}), names, into)
        found[name] = Connections(into.layers, into.units, into.weights, out.layers, out.units, out.weights, kernels)
    return found


def _weights(part: nn.Module | None) -> NDArray[np.float32] | None:
    """Return a layer's weights as [units, input channels, h, w], zero between groups; of a signal, h is 1.

    Of a volume, they are [units, input channels, d, h, w].
    """
    if part is None or not (isinstance(part, nn.Linear) or is_convolution(part)):
        return None
    found, layer = weight_of(part), cast(Any, part)
    assert found is not None
    weight = found.float().cpu().numpy()
    if isinstance(part, nn.Linear):
        return weight[:, :, None, None]
    weight = weight[:, :, None] if weight.ndim == 3 else weight
    if weight.ndim not in (4, 5):
        return None
    groups = layer.groups
    if layer.transposed:
        blocks = [block.swapaxes(0, 1) for block in np.split(weight, groups)]
    else:
        blocks = np.split(weight, groups)
    if groups == 1:
        return np.ascontiguousarray(blocks[0])
    dense = np.zeros((layer.out_channels, layer.in_channels, *weight.shape[2:]), np.float32)
    for j, block in enumerate(blocks):
        rows, columns = layer.out_channels // groups, layer.in_channels // groups
        dense[j * rows : (j + 1) * rows, j * columns : (j + 1) * columns] = block
    return dense


def _strengths(weights: NDArray[np.float32], units: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return [O, U] the signed norm of the weights that connect each output to each unit of one source layer."""
    known = units >= 0
    order = np.argsort(units[known], kind="stable")
    present, starts = np.unique(units[known][order], return_index=True)
    columns = np.flatnonzero(known)[order]
    strengths = np.zeros((len(weights), int(units.max()) + 1), np.float32)
    inside = tuple(range(1, weights.ndim - 1))
    for row, kernels in enumerate(weights):  # one unit at a time, to save memory
        chosen = kernels[columns].astype(np.float64)
        norm = np.sqrt(np.add.reduceat(np.square(chosen).sum(inside), starts))
        strengths[row, present] = np.where(np.add.reduceat(chosen.sum(inside), starts) < 0, -norm, norm)
    return strengths


@dataclass
class _Strongest:
    """For each of some units, the strongest connections: layers, units and weights [C, n]."""

    layers: NDArray[np.int64]
    units: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, strengths: NDArray[np.float32], layer: int, n: int) -> _Strongest:
        """Return each row's n strongest weights; of equal ones, the lowest unit comes first."""
        size = np.abs(strengths)
        if size.shape[1] > n:
            # only sort what reaches a row's n-th largest, since sorting a large matrix takes long
            least = -np.partition(-size, n - 1, axis=1)[:, n - 1 : n]
            size = np.where(size >= least, size, -1)
        rows = [np.flatnonzero(row >= 0) for row in size]
        best = [row[np.argsort(-one[row], kind="stable")[:n]] for row, one in zip(rows, size, strict=True)]
        order = np.array(best, np.int64).reshape(len(strengths), -1)
        return cls(np.full(order.shape, layer), order, np.take_along_axis(strengths, order, 1))

    @classmethod
    def merge(cls, several: Sequence[_Strongest], count: int, n: int) -> _Strongest:
        """Return the n strongest of several; weights of zero are left out."""
        # there are fewer rows than units if the source's last units arrive nowhere
        padded = [one._filled(count) for one in several] or [cls._none(count, n)]
        layers, units, weights = (
            np.concatenate([getattr(one, key) for one in padded], 1) for key in ("layers", "units", "weights")
        )
        order = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :n]
        layers, units, weights = (np.take_along_axis(one, order, 1) for one in (layers, units, weights))
        nothing = weights == 0
        return cls(np.where(nothing, -1, layers), np.where(nothing, -1, units), weights)._wide(n)

    @classmethod
    def _none(cls, count: int, n: int) -> _Strongest:
        empty = np.full((count, n), -1, np.int64)
        return cls(empty, empty.copy(), np.zeros((count, n), np.float32))

    def _filled(self, count: int) -> _Strongest:
        filled = self._none(count, self.units.shape[1])
        rows = min(count, len(self.units))
        filled.layers[:rows], filled.units[:rows] = self.layers[:rows], self.units[:rows]
        filled.weights[:rows] = self.weights[:rows]
        return filled

    def _wide(self, n: int) -> _Strongest:
        wide = self._none(len(self.units), n)
        have = self.units.shape[1]
        wide.layers[:, :have], wide.units[:, :have], wide.weights[:, :have] = self.layers, self.units, self.weights
        return wide


def _kernels(
    weights: NDArray[np.float32] | None, arriving: Units, names: Sequence[str], into: _Strongest
) -> NDArray[np.float32]:
    """Return the kernels of the incoming connections; those of a volume are not kept, since they are no pictures."""
    count, n = into.units.shape
    if weights is None or weights.ndim > 4 or not 1 < max(weights.shape[2:]) <= LARGEST_KERNEL:
        return np.zeros((count, n, 0, 0), np.float32)
    kernels = np.zeros((count, n, *weights.shape[2:]), np.float32)
    channel = {layer: {int(unit): c for c, unit in enumerate(units) if unit >= 0} for layer, units in arriving.items()}
    for unit, j in np.argwhere(into.layers >= 0).tolist():
        kernels[unit, j] = weights[unit, channel[names[into.layers[unit, j]]][int(into.units[unit, j])]]
    return kernels
