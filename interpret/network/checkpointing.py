"""Run checkpointed networks without checkpointing.

Checkpointing (`torch.utils.checkpoint`) runs parts of the network again in the backward pass. By then a backward rule
is no longer active, and `torch.autograd.grad` cannot reach what the reentrant form hides. Checkpointing saves memory
and does not change values, so that it can be left out.
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
    """Disable checkpointing in this block, on this thread.

    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with plain_checkpoints():
    ...     y = torch.utils.checkpoint.checkpoint(torch.exp, x, use_reentrant=True)
    >>> y.grad_fn.name()
    'ExpBackward0'

    It does not matter how the network has imported `checkpoint`: the two functions that it calls are replaced.
    """
    _enter(1)
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1
        _enter(-1)


def _enter(change: int) -> None:
    """Replace torch's functions when the first block is entered, and restore them when the last is left."""
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
    """Replaces the function of the reentrant form."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if _is_plain_here():
            return function(*args)
        return CheckpointFunction.apply(function, preserve_rng_state, *args)


def _plain_hook(frame: Any) -> Any:
    """Replaces the hook by which the other form saves no tensors."""
    return nullcontext() if _is_plain_here() else checkpoint_hook(frame)
