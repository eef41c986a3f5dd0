"""study.json: the description in a study's folder, and its copy, which is read where it is damaged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from interpret.support.checksums import KEY, DamagedFileError, read_json, sealed_json
from interpret.support.errors import InterpretError, warn
from interpret.support.files import any_file, write_text

FORMAT = 1
"""The version of the format of study.json."""


NAME, COPY = "study.json", "study.copy.json"


def is_study(path: Path) -> bool:
    """Return whether a folder says that it is a study."""
    return (path / NAME).exists() or (path / COPY).exists()


def read_study_file(path: Path) -> dict[str, Any]:
    """Read study.json of a study's folder or, where it is damaged or missing, its copy.

    Raises:
        InterpretError: the folder is no study, both files are damaged, or they have another format.
    """
    try:
        return _read(path / NAME)
    except InterpretError as error:
        if not isinstance(error, DamagedFileError) and (path / NAME).exists():
            raise
        try:
            info = _read(path / COPY)
        except InterpretError:
            raise error from None
        warn(f"{str(path / NAME)!r} is damaged or missing: its copy {COPY} is read instead")
        return info


def is_damaged(path: Path) -> bool:
    """Return whether the study.json of a study is not as it was written, or missing."""
    try:
        _read(path / NAME)
    except InterpretError:
        return True
    return False


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InterpretError(f"{file.parent} is no study: it has no study.json")
    try:
        info = read_json(file)
    except DamagedFileError as error:
        remedy = f"if you have edited it, delete its entry {KEY!r}; if not, compute the study again in another folder"
        raise DamagedStudyError(file, error.why, remedy) from None
    written = info.get("format") if isinstance(info, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise InterpretError(f"{file} has format {written}, and this version reads format {FORMAT}: update interpret")
    if written != FORMAT:
        raise InterpretError(f"{file} has another format than this version's {FORMAT}: compute the study again")
    missing = [part for part in ("model", "data", "settings", "layers") if part not in info]
    if missing:
        remedy = "delete the folder and compute the study again"
        raise DamagedStudyError(file, f"no {missing[0]!r}", remedy)
    return info


class DamagedStudyError(DamagedFileError):
    """study.json is not as it was written."""

    def __init__(self, file: Path, why: str, remedy: str) -> None:
        super().__init__(file, why)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.file} is damaged ({self.why}): {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.why, self.remedy)


def write_study_file(path: Path, info: dict[str, Any]) -> None:
    """Write study.json of a study's folder and its copy, over those that were read."""
    text = sealed_json(info, indent=1)
    # paths that are not UTF-8 hold surrogates, which JSON writes as escapes
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    for name in (COPY, NAME):  # so that the copy is never the older one
        write_text(path / name, text, any_file)
