"""How long each part of a study took: one line of JSON for each run, in a file that no result depends on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interpret.results.study_file import is_study
from interpret.support.files import check_place
from interpret.support.numbers import duration
from interpret.support.processes import is_first_process
from interpret.support.recording import Recording, outcome_of, recording
from interpret.support.version import __version__

TIMINGS = "timings.jsonl"
"""The file in a study's folder. It differs between two runs of the same work: leave it out to compare studies."""

STEP: Mapping[str, type | tuple[type, ...]] = {"name": str, "unit": str, "count": int, "seconds": (int, float)}
"""What is recorded of each step of a part."""

logger = logging.getLogger(__name__)


def read_timings(folder: Path) -> list[dict[str, Any]]:
    """Return what was recorded, the oldest first: part, outcome, began, seconds, steps and on what it ran.

    A last line that a killed process wrote in part is left out.
    """
    file = folder / TIMINGS
    lines = file.read_bytes().splitlines() if file.is_file() else []
    return [found for found in map(_entry, lines) if found is not None]


@contextmanager
def timed(folder: Path, part: str) -> Iterator[None]:
    """Time a part of the work on a study, and record it at the end, also of work that fails or is interrupted.

    >>> import tempfile
    >>> from interpret.support.progress import progress
    >>> study = Path(tempfile.mkdtemp())
    >>> _ = (study / "study.json").write_text("{}")
    >>> with timed(study, "mining"), progress(3, "mining", "img") as bar:
    ...     bar.update(3)
    >>> [(entry["part"], entry["outcome"], entry["steps"][0]["count"]) for entry in read_timings(study)]
    [('mining', 'done', 3)]

    Raises:
        InterpretError: a file of this name that this program did not write.
    """
    check_place(folder / TIMINGS, _holds_timings)
    outcome = "done"
    with recording() as work:
        try:
            yield
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            if work.steps:  # otherwise all was done before
                record_timing(folder, part, work, outcome)


def record_timing(folder: Path, part: str, work: Recording, outcome: str = "done") -> None:
    """Add a line on a part to a study's folder, once it is a study; torchrun's first process writes for all."""
    found = {"part": part, "outcome": outcome, **work.as_record(), "version": __version__}
    logger.info("%s: %s in %s", part, outcome, duration(found["seconds"]), extra={"fields": found})
    if not is_first_process() or not is_study(folder):
        return
    if "WORLD_SIZE" in os.environ:
        found["ranks"] = int(os.environ["WORLD_SIZE"])
    line = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    file = folder / TIMINGS
    try:
        check_place(file, _holds_timings)
        with file.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # a process was killed while it wrote
                    line = b"\n" + line
            stream.write(line)
    except (OSError, ValueError) as error:
        # a full disk must neither undo work that is done nor hide why it failed
        logger.warning("%r does not say how long %s took: %s", str(file), part, error)


def _holds_timings(file: Path) -> bool:
    """Return whether a file is this program's, or the start of one that a full disk or a kill stopped."""
    content = file.read_bytes()
    lines = content.splitlines()
    begun = len(lines) == 1 and content[:9] == b'{"part": '[: len(content)]
    return not lines or begun or any(_entry(line) is not None for line in lines[:2])


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    required: Mapping[str, type | tuple[type, ...]] = {
        "part": str, "outcome": str, "began": str, "seconds": (int, float), "steps": list
    }  # fmt: skip
    return found if _has(found, required) and all(_has(step, STEP) for step in found["steps"]) else None


def _has(found: Any, required: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Return whether a value of JSON is an object with these entries of these types."""
    return isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in required.items())
