"""What this package uses of Keras that Keras does not publish: all of it, in one place.

`tests/network/test_keras_graph.py` fails if a version of Keras changes what these functions return.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def function_of(operation: Any) -> Any:
    """Return the `keras.Function` of a functional or sequential model; None for another operation."""
    function = getattr(operation, "_functional", None) or operation
    return function if hasattr(function, "_nodes_by_depth") else None


def calls_of(function: Any) -> Iterator[Any]:
    """Yield the calls of a `keras.Function` in the order in which they run."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)


def outputs_of(function: Any) -> Any:
    """Return the outputs of a `keras.Function`, nested as it returns them."""
    return function._outputs_struct


def layers_in(operation: Any) -> list[Any]:
    """Return a layer and all layers inside it; none for an operation that is no layer."""
    return list(operation._flatten_layers()) if hasattr(operation, "_flatten_layers") else []


def learnt_by(layer: Any) -> list[Any]:
    """Return a layer's own variables that training changes, also while it is frozen."""
    return list(layer._trainable_variables)


def takes_training(operation: Any) -> bool:
    """Return whether an operation is called with `training`."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def built_for(model: Any) -> list[Any]:
    """Return the shapes of the inputs with which a model was built; none before."""
    return list((getattr(model, "_build_shapes_dict", None) or {}).values()) if model.built else []


@contextmanager
def calls_forgotten(layer: Any) -> Iterator[None]:
    """Let a layer, and all inside it, forget at the end of the block how they were called in it."""
    before = [(one, list(one._inbound_nodes), list(one._outbound_nodes)) for one in layers_in(layer)]
    try:
        yield
    finally:
        for one, inbound, outbound in before:
            one._inbound_nodes[:], one._outbound_nodes[:] = inbound, outbound
