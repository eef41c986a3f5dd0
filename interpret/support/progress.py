"""Progress bars, on a terminal alone."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress(total: int, description: str, unit: str = "it", initial: int = 0) -> tqdm[Any]:
    """Return a progress bar over `total` steps, silent when the error stream is not a terminal.

    >>> with progress(3, "counting") as bar:
    ...     for _ in range(3):
    ...         _ = bar.update()
    """
    # disable=None: tqdm checks whether the stream is a terminal
    return tqdm(total=total, initial=initial, desc=description, unit=unit, disable=None, delay=0.5, dynamic_ncols=True)
