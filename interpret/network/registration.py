"""Register functions of the user's own in the table of operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import FunctionType, MethodType
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function, resolve_name

from interpret.network.layers import tensors_in
from interpret.network.operations import (
    BY_FUNCTION,
    REGISTERED,
    UNKNOWN,
    Backward,
    Grid,
    Operation,
    operation_name,
    operation_of,
)
from interpret.support.errors import InterpretError, unknown

PassesBack = Literal["linear", "shape", "bilinear", "rectifier", "slope", "product", "quotient", "query"]
PASSES_BACK = get_args(PassesBack)
GRIDS = ("elementwise", "broadcast", "channels", "layout", "new")

Window = tuple[Any, Any, Any]


class Registration:
    """Returned by `register_operation`; `remove` undoes the registration, and so does the end of a `with` block.

    >>> import torch
    >>> registration = register_operation(torch.erfinv, backward="slope", grid="elementwise")
    >>> operation_of(torch.erfinv).is_local
    True
    >>> registration.remove()
    >>> operation_of(torch.erfinv).is_local
    False
    """

    def __init__(self, undo: Sequence[Callable[[], object]]) -> None:
        self._undo = list(undo)

    def remove(self) -> None:
        """Undo the registration; the second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_error: object) -> None:
        self.remove()


def register_operation(
    function: Callable[..., Any] | str,
    *,
    like: Callable[..., Any] | str | None = None,
    backward: PassesBack | None = None,
    grid: str | Window | Callable[..., Window] | None = None,
    mixes_units: bool | None = None,
) -> Registration:
    """Register a function of your own, so that rules, receptive fields, connectivity and occlusion cover it.

    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from interpret import BackwardRule, register_operation, trace
    >>> class Swish(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return torch.from_numpy(x.detach().numpy() / (1 + np.exp(-x.detach().numpy())))
    ...     @staticmethod
    ...     def backward(ctx, signal):
    ...         (x,) = ctx.saved_tensors
    ...         return signal * (x.sigmoid() * (1 + x * (1 - x.sigmoid())))
    >>> class Network(nn.Module):
    ...     def forward(self, x):
    ...         return Swish.apply(x)
    >>> image = torch.tensor([[-2.0, 3.0]], requires_grad=True)
    >>> with register_operation(Swish, like="silu"), BackwardRule(Network(), "deconvnet", strict=True):
    ...     output = Network()(image)
    >>> torch.autograd.grad(output, image, torch.tensor([[1.0, -1.0]]))[0]  # rectified, as behind nn.SiLU
    tensor([[1., 0.]])

    For a function that works in windows, give their size, stride and padding:

    >>> class Blur(nn.Module):
    ...     def forward(self, x):
    ...         return torch.fft.ifft2(torch.fft.fft2(x)).real[..., ::2, ::2]
    >>> with register_operation(Blur, backward="linear", grid=(3, 2, 1)):
    ...     print(trace(nn.Sequential(nn.Conv2d(1, 2, 3), Blur()), (1, 16, 16))["1"].receptive_field.size)
    (5, 5)

    Args:
        function: the operation. A function of torch, or its name as a warning prints it ("erfinv");
            a subclass of `torch.autograd.Function`, whose `apply` counts as the operation; a subclass of `nn.Module`,
            whose `forward` does; or a Python function, which is replaced wherever a Python module has a name for it (if
            a layer keeps it as an attribute, register the layer's class instead).
        like: an operation of torch with the same properties; the following arguments override them.
        backward: how a signal passes back.

            - "linear": by the transpose, in every rule; "shape": likewise, where values are only moved or copied;
              "bilinear": likewise, if one operand alone carries the signal.
            - "rectifier": rectified as the rule says.
            - "slope": by the derivative, in every rule, as through tanh.
            - "product", "quotient": by the other operand, held constant if it is a gate.
            - "query": not at all.
        grid: how the positions of the result follow from those of the operands; None: each may depend on all.

            - "elementwise": the same positions, of the first operand; "broadcast": of all operands.
            - "channels": the same positions, over the channels [B, C, H, W].
            - "layout": elements are moved; "new": the values do not depend on the operands'.
            - (size, stride, padding) of a window, each a number or (vertical, horizontal); or a function that returns
              these three from the operation's arguments.
        mixes_units: whether a channel of the result is another unit than that channel of the operand; None: no.

    Returns:
        A registration: call its `remove()` to undo it, or use it in a `with` statement.

    Raises:
        InterpretError: neither `like` nor `backward` is given, an unknown value, or a function that is registered
            already.
    """
    operation = _operation(like, backward, grid, mixes_units)
    if isinstance(function, str) or resolve_name(cast(Any, function)) is not None:
        return _register_known(function, operation)
    if isinstance(function, _Whole):
        raise _registered_already(function.__name__)
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        return _replace_attribute(function, "apply", lambda apply: staticmethod(_Whole(apply, function, operation)))
    if isinstance(function, type) and issubclass(function, nn.Module):
        return _replace_attribute(function, "forward", lambda forward: _method(forward, function, operation))
    if isinstance(function, FunctionType):
        return _replace_everywhere(function, _Whole(function, function, operation))
    raise InterpretError(
        f"function must be a function, or a subclass of torch.autograd.Function or nn.Module, not {function!r}"
    )


def _operation(like: Any, backward: Any, grid: Any, mixes_units: bool | None) -> Operation:
    if like is None and backward is None:
        raise InterpretError("give like= an operation, or backward= and grid=")
    found = UNKNOWN
    if like is not None:
        found = operation_of(like if callable(like) else _named(like))
        if found is UNKNOWN:
            raise InterpretError(f"like={like!r} is no operation that is known: give backward= and grid= instead")
    if backward is not None and backward not in PASSES_BACK:
        raise unknown("backward", backward, PASSES_BACK)
    passes = found.backward if backward is None else Backward(backward)
    if passes is not None and passes not in (*PASSES_BACK, Backward.CAST, Backward.MAXIMUM, Backward.CHOICE):
        raise InterpretError(
            f"like={like!r} has a backward pass that cannot be reused ({passes}): give backward=, one of "
            f"{', '.join(PASSES_BACK)}, as well"
        )
    moves, window = found.grid, found.window
    if isinstance(grid, str):
        if grid not in GRIDS:
            raise unknown("grid", grid, GRIDS)
        moves = Grid(grid)
    elif grid is not None:
        moves, window = Grid.WINDOW, grid if callable(grid) else lambda *_args, **_kwargs: grid
    mixes = found.mixes_units if mixes_units is None else mixes_units
    return Operation(passes, moves, mixes, found.in_rectifiers, found.dim, window)


def _named(name: str) -> Callable[..., Any]:
    """Return a function with an operation's name."""

    def named() -> None: ...

    named.__name__ = name
    return named


def _registered_already(name: str) -> InterpretError:
    return InterpretError(f"{name!r} is registered already: call remove() of that registration first")


def _register_known(function: Any, operation: Operation) -> Registration:
    """Add a row for a function of torch."""
    key = function if not isinstance(function, str) and function in BY_FUNCTION else None
    if key is None:
        key = operation_name(function if callable(function) else _named(function))
    if key in REGISTERED:
        raise _registered_already(str(key))
    REGISTERED[key] = operation
    return Registration([lambda: REGISTERED.pop(key)])


class _Whole:
    """A function that torch's modes see as one operation."""

    def __init__(self, call: Callable[..., Any], named: Any, operation: Operation) -> None:
        self._call = call
        self.interpret_operation = operation
        self.__name__ = named.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors = tuple(tensors_in((args, kwargs)))
        if has_torch_function(tensors):
            return handle_torch_function(self, tensors, *args, **kwargs)
        return self._call(*args, **kwargs)


def _method(forward: Callable[..., Any], named: Any, operation: Operation) -> Callable[..., Any]:
    @wraps(forward)
    def whole(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _Whole(MethodType(forward, module), named, operation)(*args, **kwargs)

    return whole


def _replace_attribute(owner: type, name: str, replacement: Callable[[Any], Any]) -> Registration:
    own = vars(owner).get(name)
    if name in _REPLACED.get(owner, ()):
        raise _registered_already(owner.__name__)
    setattr(owner, name, replacement(getattr(owner, name)))
    _REPLACED.setdefault(owner, set()).add(name)

    def undo() -> None:
        _REPLACED.pop(owner)
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    return Registration([undo])


_REPLACED: dict[type, set[str]] = {}
"""Registered classes, and the attributes that were replaced."""


def _replace_everywhere(function: FunctionType, whole: _Whole) -> Registration:
    """Replace a function in every Python module that has a name for it."""
    spaces = [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    spaces.append(function.__globals__)
    places = [(space, name) for space in spaces for name, value in list(space.items()) if value is function]
    for space, name in places:
        space[name] = whole

    def undo() -> None:
        for space, name in places:
            if space.get(name) is whole:
                space[name] = function

    return Registration([undo])
