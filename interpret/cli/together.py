"""Run a subcommand in several processes, which torchrun starts."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from interpret.execution.ranks import join_ranks, leave_ranks, ranks


@contextmanager
def together() -> Iterator[None]:
    """Connect this process with the others that torchrun started; only the first one writes to the terminal."""
    joined = join_ranks()
    if not joined.first:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends
    yield
    leave_ranks()  # after an error, the others may not answer


def alone(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a subcommand that refuses to run in several processes."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> Any:
        from interpret.support.errors import InterpretError

        if ranks().size > 1:
            raise InterpretError(f"interpret {verb.__name__} runs in one process: start it without torchrun")
        return verb(*args, **kwargs)

    return run
