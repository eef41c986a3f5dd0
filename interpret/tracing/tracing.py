"""Trace a network: the shapes, parameters, multiply-accumulates and receptive field of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from operator import ge
from typing import Any, Self

import torch
from torch import Tensor, nn

from interpret.backprop.rules import BackwardRule
from interpret.images.several_inputs import with_examples
from interpret.network.box_layers import find_box_layers
from interpret.network.boxes import watched_boxes
from interpret.network.dry_run import answers_of, is_batched
from interpret.network.forward import call_network, constants_of, first_weight
from interpret.network.layers import (
    Layout,
    StopForward,
    did_not_run,
    has_units,
    input_axes,
    not_batched,
    select_layers,
)
from interpret.network.model import Model, as_model
from interpret.network.modes import evaluating
from interpret.network.weights import has_layers, kind_of, named_layers
from interpret.results.result import Result
from interpret.results.tables import as_html, as_text
from interpret.support.errors import InterpretError, unknown
from interpret.support.numbers import product
from interpret.support.wording import count, elements
from interpret.tracing.boxes import Boxes, fit, windows_of_grid
from interpret.tracing.macs import MacCounter
from interpret.tracing.positions import IMAGES, Arrangement, Part, Positions, arrangement, axes_of_grid
from interpret.tracing.receptive_field import NOTHING, FieldTracker, ReceptiveField, Sees, View

__all__ = ["Layer", "ReceptiveField", "Trace", "trace"]


@dataclass(frozen=True)
class Layer:
    """One named module as it ran; a module that ran several times counts with its first output.

    >>> layer = trace(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), (1, 8, 8))["0"]
    >>> layer.kind, layer.input_shape, layer.output_shape
    ('Conv2d', (1, 8, 8), (4, 8, 8))
    >>> layer.params, layer.macs  # 4 kernels of 3×3 and 4 biases; 9 products for each of 4×8×8 outputs
    (40, 2304)
    """

    name: str
    """As `named_modules()` spells it."""
    kind: str
    """The module's class."""
    input_shape: tuple[int, ...] | None
    """Shape of the first input without the batch; None where that is not a tensor."""
    output_shape: tuple[int, ...]
    """Shape of the output without the batch."""
    params: int
    """Number of parameters of the module and all inside it, shared ones once."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products executed inside the module for one image."""
    receptive_field: ReceptiveField | None
    """The window that each position of the output sees; None if it may see the whole image, or has no position."""
    local_field: ReceptiveField | None
    """The window to which the signal of each position passes back, with gates and the statistics of normalisations held
    constant, as the backward rules hold them; the receptive field if there are none."""
    axes: tuple[int, ...] | None
    """The dimensions of the output that are y and x, counted from the last: (-2, -1) unless channels come last; twice
    the same if one dimension counts all positions, as that of tokens [B, N, C]; of a signal t, of a volume z, y and x.
    None if there is no local field, or several dimensions count the positions of an axis, as of tokens in windows."""
    units: int | None
    """The dimension of the output that counts its units, from the last; None if the positions are no known grid over
    the image, as those of tokens with a class token. Those of tokens in windows are a known grid."""
    grid: tuple[int, ...] | None
    """How many positions the units have along each axis, rows and columns; None if they have none, or these
    are no known grid."""
    order: tuple[int, ...] | None
    """For each position, row by row, its place among the output's; None if they are in this order."""
    parts: int
    """Into how many rows of the first dimension an image is divided: windows of tokens [B·P, N, C]."""
    croppable: bool
    """Whether the layer gives a crop of its output for an aligned crop of the image."""
    leaf: bool
    """Whether it contains no other module."""
    batched: bool = True
    """Whether the output's first dimension counts images; otherwise boxes, time steps or parts of an image."""
    global_from: str | None = None
    """From what on neurons may see the whole image: an operation and its layer, such as "'adaptive_avg_pool2d' in
    blocks.1.se", or words; None if the receptive field is a window, or no pixel is seen."""
    local_global_from: str | None = None
    """The same of the local field."""
    boxes: str | None = None
    """The call that pools features in boxes, such as "roi_heads.box_roi_pool 0", if the first dimension counts these
    boxes; its units are mined by image and box. None for a layer that runs once an image."""

    @property
    def layout(self) -> Layout | None:
        """How the output is arranged; None if it is [B, C, H, W] or [B, C], or its positions are not known."""
        if self.boxes is not None and self.units is not None:
            return Layout(self.units, boxes=self.boxes)
        if self.units is None or self.grid is None:
            return None
        if self.order is not None:
            return Layout(self.units, self.grid, self.order, self.parts)
        positions = self.output_shape[: self.units] + self.output_shape[len(self.output_shape) + self.units + 1 :]
        layout = Layout(self.units, None if positions == self.grid else self.grid)
        return None if layout == Layout(-len(self.grid) - 1) else layout


class Trace(Result, dict[str, Layer]):
    """The layers by name, in the order in which they finished, and the network's totals.

    >>> layers = trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4))
    >>> layers.params, layers.macs
    (74, 176)
    >>> layers
    <Trace: Layers of a network, 3 layers, 74 parameters, 176 multiply-accumulates>
    layer     kind     output  parameters  MACs  receptive field  stride  whole image from
    0       Conv2d  4 × 2 × 2          40   144            3 × 3   1 × 1
    1      Flatten         16           0     0
    2       Linear          2          34    32                             'linear' in 2
    """

    kind = "trace"
    drawn_by = "interpret.tracing.figure:plot_trace"

    input_shape: tuple[int, ...]
    params: int
    macs: int
    uncounted: list[str]
    """The operations that multiply but are not counted in `macs`, each with its layer."""
    has_signal: bool
    """Whether the network could run under a backward rule; if not, each local field is the receptive field."""
    needs_values: bool = False
    """Whether windows depend on values that the network had not, on the meta device."""

    @property
    def title(self) -> str:
        return "Layers of a network"

    @property
    def extent(self) -> str:
        return f"{count(len(self), 'layer')}, {self.params:,} parameters, {self.macs:,} multiply-accumulates"

    @property
    def reading(self) -> str:
        shape = " × ".join(map(str, self.input_shape))
        return (
            "The layers with parameters or multiply-accumulates, in the order in which they run, on an input of "
            f"{shape}: how many multiply-accumulates and parameters each has, and how many "
            f"{elements(len(self.input_shape) - 1)} a neuron sees along the shortest side, or all of them if its "
            "receptive field is the whole input."
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per layer, with the fields of `Layer`; of receptive and local fields size and stride."""
        layers = list(self.values())
        found: dict[str, Any] = {
            name: [getattr(layer, name) for layer in layers]
            for name in ("name", "kind", "leaf", "input_shape", "output_shape", "params", "macs", "croppable")
        }
        found |= {name: [getattr(layer, name) for layer in layers] for name in ("global_from", "local_global_from")}
        for kind in ("receptive_field", "local_field"):
            fields = [getattr(layer, kind) for layer in layers]
            for name in ("size", "stride", "exact"):
                found[f"{kind}_{name}"] = [None if field is None else getattr(field, name) for field in fields]
        return found

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), as_text(*_table(self.values()))])

    def _repr_png_(self) -> None:
        return None

    def _repr_html_(self) -> str:
        return as_html(self.title, *_table(self.values()), f"{self.extent}.", words=2)

    def _stored_fields(self) -> dict[str, Any]:
        return vars(self) | {"layers": [asdict(layer) for layer in self.values()]}

    @classmethod
    def _from_stored(cls, kept: dict[str, Any]) -> Self:
        layers = [_layer_from(layer) for layer in kept.pop("layers")]
        traced = cls((layer.name, layer) for layer in layers)
        for name, value in kept.items():
            setattr(traced, name, tuple(value) if name == "input_shape" else value)
        return traced


_HEADINGS = ["layer", "kind", "output", "parameters", "MACs", "receptive field", "stride"]


def _table(layers: Iterable[Layer]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table of layers; where some see the whole image, with what made it so."""
    rows = [[*_line(layer), global_from(layer)] for layer in layers]
    if any(row[-1] for row in rows):
        return [*_HEADINGS, GLOBAL_FROM], rows
    return _HEADINGS, [row[:-1] for row in rows]


def _line(layer: Layer) -> list[str]:
    field = layer.receptive_field or layer.local_field
    window = ["", ""] if field is None else [product(sizes) for sizes in (field.size, field.stride)]
    if field is not None and not field.exact:
        window[0] = f"≤ {window[0]}"
    if layer.receptive_field is None and field is not None:
        window[0] = f"local {window[0]}"
    output = " × ".join(map(str, layer.output_shape))
    return [layer.name, layer.kind, output, f"{layer.params:,}", f"{layer.macs:,}", *window]


def global_from(layer: Any) -> str:
    """Return in words what made a layer's fields the whole image: of the local field, if that is something else."""
    full, local = layer.global_from, layer.local_global_from
    return ", local ".join(one for one in dict.fromkeys((full, local)) if one)


def _layer_from(kept: Mapping[str, Any]) -> Layer:
    """Return a layer from JSON, which has lists instead of tuples."""

    def value(one: Any) -> Any:
        if isinstance(one, dict):
            return ReceptiveField(**{name: value(part) for name, part in one.items()})
        return tuple(one) if isinstance(one, list) else one

    return Layer(**{name: value(one) for name, one in kept.items()})


def trace(
    model: Model | nn.Module, input_shape: Sequence[int] | Sequence[Any] | Mapping[str, Any] | None = None
) -> Trace:
    """Run a network once and return what it executed: a dictionary of layers in order of execution.

    Follow the receptive field of LeNet through its first layers: a 5×5 convolution sees 5×5 pixels; 2×2 pooling adds
    one pixel and doubles the stride, so that the next 5×5 convolution adds 4 steps of 2 pixels.

    >>> network = nn.Sequential(
    ...     nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
    ...     nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    ... )
    >>> layers = trace(network, (1, 28, 28))
    >>> for layer in list(layers.values())[:4]:
    ...     field = layer.receptive_field
    ...     print(layer.name, layer.kind, layer.output_shape, field.size, field.stride)
    0 Conv2d (20, 24, 24) (5, 5) (1, 1)
    1 MaxPool2d (20, 12, 12) (6, 6) (2, 2)
    2 Conv2d (50, 8, 8) (14, 14) (2, 2)
    3 MaxPool2d (50, 4, 4) (16, 16) (4, 4)
    >>> layers["2"].receptive_field.window((0, 1))  # top, left, bottom, right in pixels
    (0, 2, 14, 16)
    >>> layers["5"].receptive_field is None  # a linear layer sees the whole image
    True
    >>> layers.params, layers.macs
    (431080, 2293000)

    A gate, as in squeeze-and-excitation, sees the whole image, and so do all layers after it. If the gate is held
    constant, the signal still passes back to a window, the local field:

    >>> from torchvision.ops import SqueezeExcitation
    >>> gated = trace(nn.Sequential(nn.Conv2d(3, 8, 5), SqueezeExcitation(8, 2), nn.Conv2d(8, 8, 3)), (3, 32, 32))
    >>> gated["2"].receptive_field is None, gated["2"].local_field.size
    (True, (7, 7))

    Networks of signals (`Conv1d`) and volumes (`Conv3d`) are traced alike, with one number per axis:

    >>> trace(nn.Sequential(nn.Conv1d(1, 4, 9, stride=4)), (1, 100))["0"].receptive_field
    ReceptiveField(size=(9,), stride=(4,), start=(0,))

    The network runs in evaluation mode on an image of zeros, of its own type and on its own device (also `meta`), and
    again on a larger image. Layers that grow with the image are `croppable`.

    Args:
        model: the network, which takes one batch of images.
        input_shape: (channels, height, width) of one image, (channels, length) of a signal, (channels, depth, height,
            width) of a volume; None: the model's own. For a network of several inputs a
            tuple or a dict of such shapes without the batch, or of tensors [B, …] if zeros do not suit it; all but the
            first of three dimensions are constants.

    Returns:
        Every named module that ran and returned one tensor. Windows are exact for convolutions, pools, paddings, sums,
        concatenations and operations that treat all positions alike. Behind resampling, transposed convolutions
        with a stride and attention in windows, they are bounds (`receptive_field.exact` is False): the smallest evenly
        spaced windows that are sure to hold what neurons see; what a mask of −80 or less hides from an attention, as in
        shifted windows, is not seen. After any other operation there is none.

    Raises:
        InterpretError: an input shape that is missing, malformed, too small for the network, or of the wrong channel
            count.
    """
    model = as_model(model)
    if isinstance(input_shape, Mapping) or (
        isinstance(input_shape, tuple | list) and any(isinstance(one, Sequence | Tensor) for one in input_shape)
    ):
        network, shape = with_examples(model.module, input_shape)
        return trace(replace(model, module=network), shape)
    if input_shape is None and model.known_shape is None:
        raise InterpretError(f"{model.name!r} does not say what its input looks like: give input_shape=(C, H, W)")
    shape = _checked(model.input_shape if input_shape is None else input_shape, input_axes(model.module))
    run = _run(model.module, shape)
    croppable = _find_croppable(model.module, run)
    with watched_boxes(model.module) as calls:
        of_two = _shapes_of_two(model.module, shape)
    in_parts = _find_in_parts(model.module, run)
    layers = [
        replace(
            layer if name in in_parts else _with_batch(layer, run.shapes[name], of_two.get(name), len(shape) - 1),
            croppable=name in croppable,
        )
        for name, layer in run.layers.items()
    ]
    if calls:
        layers = _with_boxes(layers, model.module, shape)
    traced = Trace((layer.name, layer) for layer in layers)
    traced.input_shape, traced.params, traced.macs = shape, _count(model.module), run.macs
    traced.has_signal, traced.uncounted = run.has_signal, run.uncounted
    # which layers run once a box depends on values
    traced.needs_values = run.needs_values or bool(calls)
    return traced


def _run(module: nn.Module, shape: tuple[int, ...]) -> _Run:
    """Run a network under a backward rule, or without one if it cannot run so."""
    run = _Run(module, shape, signal=True)
    if run.failure is not None:
        run = _Run(module, shape)
    if run.failure is not None:
        raise run.failure
    return run


def _zeros(module: nn.Module, count: int, shape: tuple[int, ...]) -> Tensor:
    """Return images of zeros, of the network's type and on its device."""
    return first_weight(module).new_zeros(count, *shape)


def select_traced(
    module: nn.Module, traced: Mapping[str, Layer], patterns: str | Iterable[str] | None = None
) -> list[str]:
    """Return the names of layers that match, as `select_layers` does, among those whose units have known positions.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> select_traced(network, trace(network, (1, 8, 8)))
    ['0', '2']

    Raises:
        InterpretError: an unknown layer, or one named in full that did not run or has no row for each image.
    """
    parts, axes = dict(module.named_modules()), input_axes(module)
    among = [
        name
        for name, layer in traced.items()
        if layer.batched and (layer.units is not None or not has_units(parts[name], axes))
    ]
    names = select_layers(module, patterns, among)
    for name in names:
        if name not in traced:
            raise did_not_run(name)
        if not traced[name].batched:
            raise not_batched(name)
    return names


def _checked(shape: object, axes: int) -> tuple[int, ...]:
    sizes: tuple[Any, ...] = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if len(sizes) != axes + 1 or not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
        wanted = {1: "length), two", 2: "height, width), three", 3: "depth, height, width), four"}[axes]
        alone = (
            "; if the network takes [B, T], load it with call=lambda network, signals: network(signals[:, 0]) and give "
            "(1, T)"
        )
        given = (
            f"a tensor of {tuple(shape.shape)}: give tuple(images.shape[1:])" if isinstance(shape, Tensor) else shape
        )
        raise InterpretError(
            f"input_shape must be (channels, {wanted} whole numbers above zero, not {given}"
            f"{alone if axes == 1 and len(sizes) == 1 else ''}"
        )
    return tuple(map(int, sizes))


class _Run:
    """One forward pass, and the layers that ran before it ended or failed."""

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        until: Iterable[str] = (),
        signal: bool = False,
        images: int = 1,
    ) -> None:
        """Run `module` on one image, or more; with `until`, no further than to the last of those layers.

        With `signal`, it runs under a backward rule; what the rule holds constant passes no signal back.
        """
        self.shape = shape
        self.has_signal = signal
        self._waiting = set(until)
        self.layers: dict[str, Layer] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shapes of the layers' outputs, with the first dimension."""
        self.positions: dict[str, Positions | None] = {}
        """What the dimensions of the layers' outputs count."""
        self.failure: InterpretError | None = None
        self._seen: dict[str, tuple[Sees, Sees, tuple[str | None, str | None], _OfGrid]] = {}
        """What each layer's output sees, where its signal goes, and from what on either may be the whole image."""
        self._running: list[tuple[str, nn.Module, tuple[int, ...] | None, int]] = []
        """Name, module, input shape and MACs before it, for each module that is running, outermost first."""
        self._places: list[str] = []
        """The layer of each operation that was not counted."""
        self._macs: dict[str, int] = {}
        self._counter = MacCounter()
        # composite operators reach the counter as their parts, except in inference mode
        with torch.inference_mode(False), evaluating(module), self._watched(module), self._counter:
            image = _zeros(module, images, shape).requires_grad_(signal)
            self._tracker = FieldTracker(module, image, constants_of(module), with_boxes=not until)
            try:
                with self._tracker, _signalling(module) if signal else torch.no_grad():
                    call_network(module, image.clone(), "input_shape")  # a copy, since the network may write into it
            except StopForward:
                pass
            except InterpretError as failure:
                self.failure = failure
        self._tracker.detach_kept()
        self.needs_values = self._tracker.needs_values
        gone = self.layers.keys() - dict(named_layers(module))
        if gone:
            self.failure = InterpretError(f"the network removes its layer {min(gone)!r} as it runs: keep all layers")
        self.macs = self._counter.total
        places = self._places + [""] * len(self._counter.uncounted)
        named = (f"{one} in {at!r}" if at else one for one, at in zip(self._counter.uncounted, places, strict=False))
        self.uncounted = list(dict.fromkeys(named))
        self.layers = {
            name: _with_fields(replace(layer, macs=self._macs[name]), *self._seen[name])
            for name, layer in self.layers.items()
        }

    @contextmanager
    def _watched(self, module: nn.Module) -> Iterator[None]:
        handles = []
        for name, part in named_layers(module):
            handles.append(part.register_forward_pre_hook(self._enter(name)))
            handles.append(part.register_forward_hook(self._leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note_places(self) -> None:
        """Note the layer of the uncounted operations that have run since the last call."""
        layer = self._running[-1][0] if self._running else ""
        self._places += [layer] * (len(self._counter.uncounted) - len(self._places))

    def _enter(self, name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...]) -> None:
            first = inputs[0] if inputs else None
            shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else None
            self._note_places()
            self._running.append((name, module, shape, self._counter.total))
            self._tracker.place = name

        return hook

    def _leave(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            self._note_places()
            _, _, input_shape, before = self._running.pop()
            self._tracker.place = self._running[-1][0] if self._running else ""
            self._macs[name] = self._macs.get(name, 0) + self._counter.total - before
            if not name or name in self.layers or not isinstance(output, Tensor):
                return
            self.shapes[name] = tuple(output.shape)
            sees, local = self._tracker.sees(output), self._tracker.local(output)
            positions = self.positions[name] = self._tracker.positions(output)
            arranged = arrangement(output.shape, positions, isinstance(module, nn.Linear), len(self.shape) - 1)
            of_grid = (tuple(output.shape), positions, arranged, self.shape[1:])
            cause, local_cause = self._tracker.causes(output)
            causes = cause, cause if local is NOTHING else local_cause
            self._seen[name] = sees, sees if local is NOTHING else local, causes, of_grid
            self.layers[name] = Layer(
                name=name,
                kind=kind_of(module),
                input_shape=input_shape,
                output_shape=tuple(output.shape[1:]),
                params=_count(module),
                macs=0,
                receptive_field=None,  # found when the network has run, free of modes
                local_field=None,
                axes=None,
                units=arranged.units if arranged else None,
                grid=arranged.grid if arranged else None,
                order=arranged.order if arranged else None,
                parts=arranged.parts if arranged else 1,
                croppable=False,
                leaf=not has_layers(module),
            )
            if name in self._waiting:
                self._waiting.remove(name)
                if not self._waiting:
                    raise StopForward

        return hook


@contextmanager
def _signalling(module: nn.Module) -> Iterator[None]:
    """Run under a backward rule, and save no tensors for the backward pass."""
    keep_nothing = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    with torch.enable_grad(), keep_nothing, BackwardRule(module) as rule:
        try:
            yield
        finally:
            rule.forget()  # a projection warns of it


GLOBAL_FROM = "whole image from"
"""The heading over what made a layer's receptive field the whole image."""

_OfGrid = tuple[tuple[int, ...], Positions | None, Arrangement | None, tuple[int, ...]]
"""An output's shape, the positions of its dimensions, how they are arranged, and the sides of the image."""


def _with_fields(
    layer: Layer, sees: Sees, local: Sees, causes: tuple[str | None, str | None], of_grid: _OfGrid
) -> Layer:
    view = _window(sees, *of_grid)
    near = view if local == sees else _window(local, *of_grid)
    arranged = of_grid[2]
    return replace(
        layer,
        receptive_field=view.field if view else None,
        local_field=near.field if near else None,
        axes=(near.axes or None) if near else None,
        croppable=view.crops and view.columns is None if view else False,
        global_from=None if view else causes[0] or _why_none(sees, layer, arranged),
        local_global_from=None if near else causes[1] or _why_none(local, layer, arranged),
    )


def _why_none(sees: Sees, layer: Layer, arranged: Arrangement | None) -> str | None:
    """Return why a layer that sees part of an image has no window, in words; None if it has no positions."""
    if sees is NOTHING or len(layer.output_shape) < 2:
        return None
    known = arranged is not None and arranged.grid is not None
    return "windows that have grown to it" if known else "positions that are no known grid"


def _window(
    sees: Sees,
    shape: tuple[int, ...],
    positions: Positions | None,
    arranged: Arrangement | None,
    sides: tuple[int, ...],
) -> View | None:
    """Return the view of a tensor whose elements see their window and nothing else, in images of these sides.

    Of boxes it has the smallest evenly spaced windows that hold them.
    """
    boxes: Sees | None = sees
    if isinstance(sees, View):
        if any(sees.mirrored):  # behind a reflecting padding, border neurons see more
            boxes = sees.reflected
        elif sees.within is None or arranged is None or sees.grid(shape) == arranged.grid:
            return sees
        else:
            boxes = sees.within
    if not isinstance(boxes, Boxes) or arranged is None or arranged.grid is None:
        return None
    windows = windows_of_grid(boxes, shape, arranged)
    if windows is None:
        return None
    fitted = [fit(begin, end, side) for (begin, end), side in zip(windows, sides, strict=True)]
    size, stride, start, exact = zip(*fitted, strict=True)
    field = ReceptiveField(size, stride, start, boxes.exact and all(exact))
    first, last = field.window((0,) * len(sides)), field.window(tuple(n - 1 for n in arranged.grid))
    if max(last[: len(sides)]) <= 0 and all(map(ge, first[len(sides) :], sides)):
        return None  # each would hold the whole image
    return View(field, axes_of_grid(positions, len(sides)), crops=False)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _find_croppable(module: nn.Module, run: _Run) -> set[str]:
    """Return the layers whose outputs grow with the image by their stride, found by a second run on a larger image.

    Any other layer, or one that the second run does not reach, depends on a size that is fixed in the network: by a
    linear layer, an adaptive pool or a `view` with numbers.
    """
    fields = {
        name: layer.receptive_field
        for name, layer in run.layers.items()
        # a single position needs the whole image as its crop
        if layer.croppable
        and layer.receptive_field
        and math.prod(layer.output_shape[axis] for axis in layer.axes or ()) > 1
    }
    if not fields:
        return set()
    grown = [math.lcm(*strides) for strides in zip(*(field.steps for field in fields.values()), strict=True)]
    shape = (run.shape[0], *(side + more for side, more in zip(run.shape[1:], grown, strict=True)))
    larger = _Run(module, shape, until=fields).layers

    def expected(name: str) -> tuple[int, ...]:
        shape = list(run.layers[name].output_shape)
        for axis, more, stride in zip(run.layers[name].axes or (), grown, fields[name].steps, strict=True):
            shape[axis] += more // stride
        return tuple(shape)

    return {
        name
        for name, field in fields.items()
        if name in larger and larger[name].receptive_field == field and larger[name].output_shape == expected(name)
    }


def _shapes_of_two(module: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of outputs for two images; empty if the network takes one at a time."""
    try:
        with torch.inference_mode(False), evaluating(module):
            return answers_of(module, _zeros(module, 2, shape)).shapes
    except Exception:  # the user's code may raise anything
        return {}


def _find_in_parts(module: nn.Module, run: _Run) -> set[str]:
    """Return the layers whose first dimension counts parts of images, those of one image after another."""
    divided = {name for name, layer in run.layers.items() if layer.parts > 1}
    if not divided:
        return set()
    two = _Run(module, run.shape, until=divided, images=2).positions

    def follow_each_other(name: str) -> bool:
        of_one, of_two = run.positions[name], two.get(name)
        if of_one is None or of_two is None:
            return False
        return of_two == ((Part(IMAGES, 2), *of_one[0]), *of_one[1:])

    return set(filter(follow_each_other, divided))


def _with_batch(layer: Layer, alone: tuple[int, ...], together: tuple[int, ...] | None, axes: int) -> Layer:
    """Return a layer with `batched` set from the shapes for one and two images, one of which a `squeeze` may remove."""
    if together is None or (is_batched(alone, together) and len(alone) == len(together)):
        return layer
    if is_batched(alone, together):
        layer = replace(layer, order=None, parts=1)
        return replace(layer, output_shape=alone, units=-len(alone), grid=alone[1:] if len(alone) == axes + 1 else None)
    return replace(layer, batched=False)


def _with_boxes(layers: Sequence[Layer], module: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Return layers with `boxes` set, and with their units and positions in the map of one box.

    Any layer may be one: where a network finds one box in each image, those behind seem to be batched.
    """
    with torch.inference_mode(False), evaluating(module):
        calls = find_box_layers(module, _zeros(module, 2, shape), [layer.name for layer in layers])

    def of_box(layer: Layer) -> Layer:
        size = layer.output_shape
        if layer.name not in calls or len(size) not in (1, 3):
            return layer
        last = len(size) == 3 and isinstance(module.get_submodule(layer.name), nn.Linear)
        grid = None if len(size) == 1 else size[:2] if last else size[1:]
        layer = replace(layer, receptive_field=None, local_field=None, axes=None, croppable=False)  # others in each box
        layer = replace(layer, batched=False, order=None, parts=1)
        return replace(layer, boxes=calls[layer.name], units=-1 if last else -len(size), grid=grid)

    return [of_box(layer) for layer in layers]


def layer_with_units(traced: Mapping[str, Layer], name: str, by_box: bool = False) -> Layer:
    """Return a traced layer whose outputs are units, with the units as the first dimension of its shape.

    With `by_box`, it may run once a box.

    >>> from torchvision.ops import Permute
    >>> layers = trace(nn.Sequential(Permute([0, 2, 3, 1]), nn.Linear(3, 5)), (3, 7, 7))
    >>> layers["1"].output_shape, layer_with_units(layers, "1").output_shape
    ((7, 7, 5), (5, 7, 7))

    Raises:
        InterpretError: an unknown layer, or one whose outputs are no units or have them elsewhere.
    """
    if name not in traced:
        raise unknown("layer", name, traced)
    layer = traced[name]
    if not layer.batched and not (by_box and layer.boxes):
        raise not_batched(name)
    if layer.units is None:
        raise no_positions(name)
    return replace(layer, output_shape=(layer.output_shape[layer.units], *(layer.grid or ())))


def no_positions(name: str) -> InterpretError:
    """Return the error for a layer whose positions are no known grid over the image."""
    return InterpretError(
        f"the positions of layer {name!r} are no known grid of the image, as those of tokens with a class token are "
        "none, so its units cannot be placed: choose another layer"
    )


def layouts_of(traced: Mapping[str, Layer], names: Iterable[str]) -> dict[str, Layout]:
    """Return how the outputs of layers are arranged that are no map [B, C, H, W], for `first_outputs`.

    >>> from torchvision.ops import Permute
    >>> network = nn.Sequential(Permute([0, 2, 3, 1]), nn.Flatten(1, 2), nn.Linear(3, 5))
    >>> layouts = layouts_of(trace(network, (3, 4, 6)), ["0", "2"])
    >>> {name: (layout.units, layout.grid) for name, layout in layouts.items()}
    {'0': (-1, None), '2': (-1, (4, 6))}
    """
    found = {name: traced[name].layout for name in names if name in traced}
    return {name: layout for name, layout in found.items() if layout is not None}
