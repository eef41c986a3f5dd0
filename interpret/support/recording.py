"""Record how long the steps of a piece of work take, and how much they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class Step:
    """A step of the work, such as mining or projecting; its bar counts images, hits or layers."""

    name: str
    unit: str
    count: int = 0
    """What was done in this run, without what an earlier one had done."""
    seconds: float = 0.0


@dataclass
class Recording:
    """The steps of a piece of work since it began, and on what it ran."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """On what the work ran: device, batch size, threads."""

    def add(self, step: Step) -> None:
        """Add a step; those of one name and unit are counted together."""
        for known in self.steps:
            if (known.name, known.unit) == (step.name, step.unit):
                known.count += step.count
                known.seconds += step.seconds
                return
        self.steps.append(step)

    def as_record(self) -> dict[str, Any]:
        """Return when the work began, how many seconds ago that was, its steps and on what it ran."""
        steps = [{**vars(step), "seconds": round(step.seconds, 3)} for step in self.steps]
        took = round(time.monotonic() - self.clock, 3)
        return {"began": self.began.isoformat(timespec="seconds"), "seconds": took, "steps": steps, **self.facts}

    def restart(self) -> None:
        """Forget what was recorded, and begin now."""
        vars(self).update(vars(Recording()))


_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the steps that end in this block, but for those of a block inside it.

    >>> with recording() as work:
    ...     add_step(Step("mining", "img", 100, 2.0))
    ...     add_step(Step("mining", "img", 50, 1.0))
    >>> work.steps
    [Step(name='mining', unit='img', count=150, seconds=3.0)]
    """
    work = Recording()
    token = _current.set(work)
    try:
        yield work
    finally:
        _current.reset(token)


def outcome_of(error: BaseException) -> str:
    """Return how work ended that an error ended."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def current_recording() -> Recording | None:
    """Return the innermost recording; None outside of any."""
    return _current.get()


def add_step(step: Step) -> None:
    """Add a step to the innermost recording, if there is one."""
    work = _current.get()
    if work is not None:
        work.add(step)


def add_facts(**facts: Any) -> None:
    """Add to the innermost recording, if there is one, on what the work runs."""
    work = _current.get()
    if work is not None:
        work.facts |= facts
