"""A network of Keras as a network of torch, which runs Keras's graph operation by operation.

A layer of Keras is a module of torch, but a call of it runs no hooks of torch, and a model does not list its layers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from interpret.network.keras_internals import (
    built_for,
    calls_forgotten,
    calls_of,
    function_of,
    layers_in,
    outputs_of,
    takes_training,
)
from interpret.network.keras_layers import KerasOperation, MapLayout, Shared, mapped, parts_of
from interpret.support.errors import InterpretError
from interpret.support.wording import count


def keras_graph(model: Any) -> KerasGraph | None:
    """Return the graph of a `keras.Model`; None for anything else.

    Raises:
        InterpretError: the model is on another backend than torch, has no weights yet, or has no graph of layers.
    """
    keras: Any = sys.modules.get("keras")
    layer: Any = getattr(keras, "Layer", None)
    if layer is None or not isinstance(model, layer):
        return None
    if keras.backend.backend() != "torch":
        raise other_backend(f"model {model.name!r}", keras.backend.backend())
    if not isinstance(model, keras.Model):
        raise InterpretError(
            f"model {model.name!r} is a layer of Keras: make it a model, keras.Sequential([keras.Input(shape), layer])"
        )
    function = function_of(model)
    if function is not None:
        return KerasGraph(model, function, _layout(model, function))
    shapes = built_for(model)
    if not shapes:
        raise InterpretError(
            f"model {model.name!r} has no weights yet: run it once on an image, or give it a keras.Input first"
        )
    inputs = [keras.KerasTensor(one, model.input_dtype) for one in shapes]
    with _called(model, tuple(inputs), {}) as function:
        if function is None:
            raise InterpretError(
                f"model {model.name!r} is a class whose call() cannot be followed as a graph of Keras's layers: use "
                "only layers and keras.ops in it, or make the model with the functional interface"
            )
        return KerasGraph(model, function, _layout(model, function), renamed=True)


def other_backend(what: str, backend: str) -> InterpretError:
    """Return the error for a model that Keras runs on another backend than torch."""
    return InterpretError(
        f"{what} needs Keras on its torch backend, and Keras was imported with {backend!r}: set the environment "
        "variable KERAS_BACKEND=torch before Keras is first imported"
    )


class KerasGraph(nn.Module):
    """The layers of a network of Keras by their names, and the order in which they run.

    Maps are [B, C, H, W], whatever the layout in Keras. The weights are Keras's own, in the same memory.
    """

    def __init__(self, source: Any, function: Any, layout: MapLayout, renamed: bool = False) -> None:
        """Make the graph of a `keras.Function`.

        Args:
            source: the model or layer whose function it is.
            function: inputs, outputs and the calls between them.
            layout: how maps are arranged in Keras.
            renamed: whether operations that are no layers are numbered here, since Keras numbers them in each process.
        """
        super().__init__()
        self.source = Shared(source)
        self.network_name: str = source.name
        self.layout = layout
        self.input_names = [tensor.name for tensor in function.inputs]
        self.declared_shape = _declared_shape(function.inputs[0].shape, layout.last)
        self._steps: list[_Step] = []
        self._renamed = renamed
        self._follow(function)

    def _follow(self, function: Any) -> None:
        """Note the calls of a function in their order, and the last use of each value."""
        places = {id(tensor): _Place(number) for number, tensor in enumerate(function.inputs)}
        modules: dict[int, list[str]] = {}
        for node in calls_of(function):
            operation = node.operation
            if id(operation) not in modules:
                modules[id(operation)] = [self._add(name, module) for name, module in self._parts(node)]
            args, kwargs = node.arguments.convert(lambda one: places.get(id(one), one))
            outputs = [places.setdefault(id(tensor), _Place(len(places))) for tensor in node.outputs]
            self._steps.append(_Step(modules[id(operation)], args, kwargs, outputs))
        ends = mapped(lambda one: places.get(id(one), one), outputs_of(function))
        self._ends = ends[0] if isinstance(ends, list | tuple) and len(ends) == 1 else ends
        needed = set(_places(self._ends))
        for step in reversed(self._steps):
            used = {*_places((step.args, step.kwargs)), *step.outputs}
            step.last_used = used - needed
            needed |= used

    def _parts(self, node: Any) -> list[tuple[str, nn.Module]]:
        operation = node.operation
        name = re.sub(r"[./]", "_", operation.name)
        if self._renamed and not hasattr(operation, "add_weight"):
            name = re.sub(r"_\d+$", "", name)
        function = function_of(operation)
        if function is not None:
            return [(name, KerasGraph(operation, function, self.layout))]
        if _is_composed(operation):
            with _called(operation, node.arguments.args, node.arguments.kwargs) as function:
                if function is not None:
                    return [(name, KerasGraph(operation, function, self.layout, renamed=True))]
        return parts_of(operation, name, self.layout)

    def _add(self, name: str, module: nn.Module) -> str:
        free, number = name, 1
        while hasattr(self, free):
            free, number = f"{name}_{number}", number + 1
        self.add_module(free, module)
        return free

    def forward(self, *inputs: Any, **named: Any) -> Any:
        given = [*_leaves(inputs), *(named[name] for name in self.input_names if name in named)]
        if len(given) != len(self.input_names):
            raise InterpretError(
                f"the network takes {count(len(self.input_names), 'input')} ({', '.join(self.input_names)}), "
                f"not {len(given)}"
            )
        values = {_Place(number): value for number, value in enumerate(given)}

        def value_of(one: Any) -> Any:
            return values[one] if isinstance(one, _Place) else one

        for step in self._steps:
            result = self._run(step.modules, mapped(value_of, step.args), mapped(value_of, step.kwargs))
            values.update(zip(step.outputs, _leaves([result]), strict=True))
            for place in step.last_used:
                values.pop(place, None)
        return mapped(value_of, self._ends)

    def _run(self, names: list[str], args: Any, kwargs: Any) -> Any:
        """Run the modules of one operation, each on the result of the one before it."""
        for name in names:
            module: nn.Module = getattr(self, name)
            if isinstance(module, nn.Linear):  # it works along the last dimension of Keras
                args = (self.layout.channels_first(module(self.layout.channels_last(args[0]))),)
            elif isinstance(module, KerasOperation):
                args = (module(*args, **kwargs),)
            else:
                args = (module(*_leaves(args)),)
            kwargs = {}
        return args[0]


@dataclass(frozen=True)
class _Place:
    """The place of a tensor among the values of a forward pass."""

    number: int


@dataclass
class _Step:
    """One call of an operation."""

    modules: list[str]
    args: Any
    """With places instead of tensors."""
    kwargs: Any
    outputs: list[_Place]
    last_used: set[_Place] = field(default_factory=set)
    """The places that no later step needs."""


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        tree = [tree[name] for name in sorted(tree)]
    if isinstance(tree, list | tuple):
        for branch in tree:
            yield from _leaves(branch)
    else:
        yield tree


def _places(tree: Any) -> list[_Place]:
    return [one for one in _leaves(tree) if isinstance(one, _Place)]


# ---- Keras's graph ---------------------------------------------------------------------------------------------------


def _is_composed(operation: Any) -> bool:
    """Return whether this is a layer of the user's own, or of another library, with layers inside it."""
    return len(layers_in(operation)) > 1 and not type(operation).__module__.startswith("keras.src.layers")


@contextmanager
def _called(layer: Any, args: Any, kwargs: Any) -> Iterator[Any]:
    """Call a layer on tensors without values, and yield the `keras.Function` of what it called; None if that fails.

    At the end, the layers inside it have forgotten the call.
    """
    import keras

    tensors: list[Any] = []

    def fresh(one: Any) -> Any:
        if not isinstance(one, keras.KerasTensor):
            return one
        tensors.append(keras.KerasTensor(one.shape, one.dtype))
        return tensors[-1]

    args = mapped(fresh, args)
    if takes_training(layer):
        kwargs = {**kwargs, "training": False}
    with calls_forgotten(layer):
        try:
            function = keras.Function(tensors, layer.call(*args, **mapped(fresh, kwargs)))
        except Exception:  # the user's code may raise anything
            function = None
        yield function


def _is_channels_last(model: Any) -> bool:
    """Return whether a model's maps are channels-last: as most of its layers say."""
    import keras

    layouts = [layer.data_format for layer in layers_in(model) if getattr(layer, "data_format", None)]
    layouts = layouts or [keras.config.image_data_format()]
    return layouts.count("channels_last") * 2 >= len(layouts)


def _layout(model: Any, function: Any) -> MapLayout:
    """Return how a network arranges its maps: those of images, unless its input has the axes of signals or volumes."""
    axes = len(function.inputs[0].shape or ()) - 2
    return MapLayout(_is_channels_last(model), axes if axes in (1, 3) else 2)


def _declared_shape(shape: Any, last: bool) -> tuple[int, ...] | None:
    """Return (channels, height, width) of one image, or of a signal or volume, if the network says so."""
    sides = tuple(shape or ())[1:]
    if len(sides) not in (2, 3, 4) or None in sides:
        return None
    return (sides[-1], *sides[:-1]) if last else sides
