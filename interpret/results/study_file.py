"""study.json: the description in a study's folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from interpret.support.checksums import KEY, DamagedFileError, read_json, sealed_json
from interpret.support.errors import InterpretError
from interpret.support.files import any_file, write_text

FORMAT = 1
"""The version of the format of study.json."""


def read_study_file(path: Path) -> dict[str, Any]:
    """Read study.json of a study's folder.

    Raises:
        InterpretError: the folder is no study, the file is damaged, or it has another format.
    """
    file = path / "study.json"
    if not file.exists():
        raise InterpretError(f"{path} is no study: it has no study.json")
    try:
        info = read_json(file)
    except DamagedFileError as error:
        remedy = f"if you have edited it, delete its entry {KEY!r}; if not, compute the study again in another folder"
        raise InterpretError(f"{file} is damaged ({error.why}): {remedy}") from None
    written = info.get("format") if isinstance(info, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise InterpretError(f"{file} has format {written}, and this version reads format {FORMAT}: update interpret")
    if written != FORMAT:
        raise InterpretError(f"{file} has another format than this version's {FORMAT}: compute the study again")
    missing = [part for part in ("model", "data", "settings", "layers") if part not in info]
    if missing:
        raise InterpretError(f"{file} is damaged (no {missing[0]!r}): delete the folder and compute the study again")
    return info


def write_study_file(path: Path, info: dict[str, Any]) -> None:
    """Write study.json of a study's folder, over the one that was read."""
    text = sealed_json(info, indent=1)
    # paths that are not UTF-8 hold surrogates, which JSON writes as escapes
    write_text(path / "study.json", re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text), any_file)
