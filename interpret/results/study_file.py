"""study.json: what a study's folder says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interpret.support.errors import InterpretError

FORMAT = 1


def read_study_file(path: Path) -> dict[str, Any]:
    file = path / "study.json"
    if not file.exists():
        raise InterpretError(f"{path} is no study: it has no study.json")
    try:
        info = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InterpretError(f"{file} is damaged ({error}): delete the folder and compute the study again") from None
    written = info.get("format") if isinstance(info, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise InterpretError(f"{file} has format {written}, and this version reads format {FORMAT}: update interpret")
    if written != FORMAT:
        raise InterpretError(f"{file} has another format than this version's {FORMAT}: compute the study again")
    missing = [part for part in ("model", "data", "settings", "layers") if part not in info]
    if missing:
        raise InterpretError(f"{file} is damaged (no {missing[0]!r}): delete the folder and compute the study again")
    return info
