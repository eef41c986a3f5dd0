"""Progress: a bar on a terminal, elsewhere one logged line a minute."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from interpret.support.numbers import duration, value
from interpret.support.processes import is_first_process
from interpret.support.recording import Step, add_step

LOG_EVERY = 60.0
"""Seconds between two lines where there is no terminal."""

logger = logging.getLogger("interpret.progress")
"""The lines, at level INFO: set it to that level to see them in a script's log."""


class Progress:
    """The progress of one step of the work: how much is done, how fast, and how long the rest will take."""

    bars = True
    """Whether a terminal shows bars; the command's `--log-json` switches them off."""

    def __init__(self, total: int, description: str, unit: str, initial: int) -> None:
        self.total, self.description, self.unit, self.initial = total, description, unit, initial
        self.done = initial
        self._began = self._logged = time.monotonic()
        first = is_first_process()  # torchrun's processes share a terminal
        self._speaks = first or not self.bars
        """Whether lines are logged: as JSON, which names the rank, by all processes."""
        # disable=None: tqdm checks whether the stream is a terminal
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=initial,
            desc=description,
            unit=unit,
            disable=None if self.bars and first else True,
            delay=0.5,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Count what has been done since the last call."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and self._speaks and now - self._logged >= LOG_EVERY:
            self._logged = now
            self._log(now - self._began)

    def set_postfix(self, **values: object) -> None:
        """Show values after the bar."""
        self._bar.set_postfix(**values)

    def close(self) -> None:
        """End the step; what it did goes into the recording."""
        self._bar.close()
        took = time.monotonic() - self._began
        add_step(Step(self.description, self.unit, self.done - self.initial, took))
        logging.getLogger(__name__).info(
            "%s: %s %s in %s, %s %s/s",
            self.description,
            f"{self.done - self.initial:,}",
            self.unit,
            duration(took),
            value(self._speed(took)),
            self.unit,
            extra={"fields": {"step": self.description, "unit": self.unit, "done": self.done, "seconds": took}},
        )

    def _speed(self, took: float) -> float:
        return (self.done - self.initial) / max(took, 1e-9)

    def _log(self, took: float) -> None:
        speed = self._speed(took)
        fields: dict[str, Any] = {"step": self.description, "unit": self.unit, "done": self.done}
        fields |= {"per_second": round(speed, 3)}
        text = f"{self.description}: {self.done:,} {self.unit}, {value(speed)} {self.unit}/s"
        if self.total > 0 and speed > 0:
            left = max(0.0, (self.total - self.done) / speed)
            fields |= {"total": self.total, "seconds_left": round(left, 1)}
            text = (
                f"{self.description}: {self.done:,} of {self.total:,} {self.unit}, {value(speed)} {self.unit}/s, "
                f"{duration(left)} left"
            )
        logger.info(text, extra={"fields": fields})


def progress(total: int, description: str, unit: str = "it", initial: int = 0) -> Progress:
    """Return the progress over `total` steps (0: unknown): a bar on a terminal, elsewhere one logged line a minute.

    The lines go to the logger `interpret.progress` at level INFO, which the command prints. When it ends, the time and
    the count go to `support.recording`.

    >>> with progress(3, "counting") as bar:
    ...     for _ in range(3):
    ...         bar.update()
    """
    return Progress(total, description, unit, initial)
