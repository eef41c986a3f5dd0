"""Checkpointed forward passes, run plainly: as if the network kept what it computes for the backward pass.

Checkpointing (`torch.utils.checkpoint`) runs parts of the network again in the backward pass. There a rule is no
longer at work, and `torch.autograd.grad` cannot reach what the reentrant form hides. It changes no value, but memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from interpret.network.torch_internals import CheckpointFunction, checkpoint_hook, set_checkpointing

_here = threading.local()
_lock = threading.Lock()
_users = 0


@contextmanager
def plain_checkpoints() -> Iterator[None]:
    """Run what is checkpointed in this block, on this thread, as it would run without.

    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with plain_checkpoints():
    ...     y = torch.utils.checkpoint.checkpoint(torch.exp, x, use_reentrant=True)
    >>> y.grad_fn.name()
    'ExpBackward0'

    However the network has imported `checkpoint`: this stands in for the two things that it calls.
    """
    _enter(1)
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1
        _enter(-1)


def _enter(change: int) -> None:
    """Put the stand-ins in place with the first block that is entered, and take them away with the last."""
    global _users
    with _lock:
        _users += change
        if _users:
            set_checkpointing(_PlainFunction, _plain_hook)
        else:
            set_checkpointing(CheckpointFunction, checkpoint_hook)


def _is_plain_here() -> bool:
    return getattr(_here, "depth", 0) > 0


class _PlainFunction:
    """Stands in for the reentrant form's function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if _is_plain_here():
            return function(*args)
        return CheckpointFunction.apply(function, preserve_rng_state, *args)


def _plain_hook(frame: Any) -> Any:
    """Stands in for what keeps the other form from saving tensors."""
    return nullcontext() if _is_plain_here() else checkpoint_hook(frame)
