"""Ctrl-C at a moment when it would tear something: held back, or not heard at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, and have the processes that start now ignore it for good: the main one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def interrupts_held(second_too: bool = False) -> Iterator[None]:
    """Let a first Ctrl-C wait for the end of the block; a second one does not wait unless it shall, too.

    >>> done = []
    >>> try:
    ...     with interrupts_held():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("the block")
    ... except KeyboardInterrupt:
    ...     done.append("the interrupt")
    >>> done
    ['the block', 'the interrupt']
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)
    came = False

    def hold(number: int, frame: object) -> None:
        nonlocal came
        came = True
        if not second_too:
            signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        signal.raise_signal(signal.SIGINT)
