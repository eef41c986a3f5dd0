"""Ignore or delay Ctrl-C while an interrupt would leave something half done, and handle SIGTERM like Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in this block, and for good in processes that start in it, which the main process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def interrupts_delayed(second_too: bool = False) -> Iterator[None]:
    """Delay a first Ctrl-C or SIGTERM until the end of the block, and a second one too if `second_too`.

    >>> done = []
    >>> try:
    ...     with interrupts_delayed():
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
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # a signal that is ignored, or ends the process at once, is not this program's to delay
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}
    received: list[int] = []

    def hold(number: int, frame: object) -> None:
        received.append(number)
        if not second_too:
            restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in previous:
        signal.signal(number, hold)
    try:
        yield
    finally:
        restore()
    if received:
        signal.raise_signal(received[0])


@contextmanager
def terminated_like_interrupted() -> Iterator[list[int]]:
    """Let SIGTERM interrupt this block as Ctrl-C does; the list holds its number once it came."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
