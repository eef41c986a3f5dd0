"""Calling the user's network: the one place that runs its forward pass, and says in a sentence why one failed."""

from __future__ import annotations

from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from interpret.errors import InterpretError
from interpret.layers import StopForward

_PASSED_ON = (InterpretError, StopForward, Warning, MemoryError, torch.OutOfMemoryError)
"""What a forward pass may raise that is no fault of the network's code; warnings, where the user made them errors."""
_TOO_SMALL = ("too small", "greater than actual input", "must be greater than zero", "can't be greater than")


def call_network(module: nn.Module, images: Tensor, what: str = "an input of shape") -> Any:
    """Return what a network answers to images; whatever its own code raises becomes one sentence.

    >>> call_network(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 6, 6])
    >>> call_network(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)), torch.zeros(2, 1, 8, 8))
    Traceback (most recent call last):
        ...
    interpret.errors.InterpretError: an input of shape (1, 8, 8) has 1 channel, but layer '1' (Conv2d) takes 3

    Every analysis calls the network here, and nowhere else.

    Args:
        module: the network.
        images: [B, C, H, W].
        what: what an image's shape is called in an error.

    Raises:
        InterpretError: the forward pass failed: in which layer, on what and why.
    """
    try:
        return module(images)
    except _PASSED_ON:
        raise
    except Exception as error:  # a user's code may raise anything
        if "can't allocate memory" in str(error):  # which is a plain RuntimeError on processors
            raise
        raise _explained(module, images, error, what) from error


def _explained(module: nn.Module, images: Tensor, error: Exception, what: str) -> InterpretError:
    """Return the error that says where and why a forward pass failed."""
    name, layer, shape = _where(module, error)
    where = f"layer {name!r} ({type(layer).__name__})" if name else f"the network ({type(layer).__name__})"
    given = tuple(images.shape[1:])
    channels = getattr(layer, "in_channels", None)
    if shape is not None and isinstance(channels, int) and len(shape) == 3 and channels != shape[0] == given[0]:
        return InterpretError(
            f"{what} {given} has {shape[0]} channel{'s' * (shape[0] > 1)}, but {where} takes {channels}"
        )
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    if layer is module and isinstance(error, TypeError) and "required positional argument" in reason:
        return InterpretError(f"{where} takes more than one input ({reason}): give it one that takes images alone")
    if type(error) is not RuntimeError:
        reason = f"{type(error).__name__}: {reason}".removesuffix(f": {type(error).__name__}")
    small = any(phrase in reason for phrase in _TOO_SMALL)
    return InterpretError(
        f"{what} {given} {'is too small for' if small else 'does not fit'} the network: {where} fails on "
        f"{'an input of ' + '×'.join(map(str, shape)) if shape else 'its input'} ({reason})"
    )


def _where(module: nn.Module, error: Exception) -> tuple[str, nn.Module, tuple[int, ...] | None]:
    """Return the innermost layer that was running as the error was raised, and its input's shape without the batch.

    The traceback's frames know it: nothing need be noted while a network runs.
    """
    names = {layer: name for name, layer in module.named_modules()}
    found: nn.Module = module
    inputs: dict[nn.Module, object] = {}
    step = error.__traceback__
    while step is not None:
        running = _own(step.tb_frame, names)
        if running is not None:
            found = running
            arguments = step.tb_frame.f_locals.get("args")
            if running not in inputs and isinstance(arguments, tuple) and arguments:
                inputs[running] = arguments[0]
        step = step.tb_next
    first = inputs.get(found)
    return names[found], found, tuple(first.shape[1:]) if isinstance(first, Tensor) else None


def _own(frame: FrameType, names: dict[nn.Module, str]) -> nn.Module | None:
    """Return the layer one of whose methods a frame runs."""
    one = frame.f_locals.get("self")
    return one if isinstance(one, nn.Module) and one in names else None
