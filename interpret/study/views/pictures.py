"""The picture files of a study."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from interpret.study.reader import StudyReader


@dataclass(frozen=True)
class Picture:
    """A picture file: its path, relative to the study and to the gallery, and its size in pixels."""

    path: str
    width: int
    height: int

    @cached_property
    def href(self) -> str:
        """The path as a relative address."""
        return quote(self.path)


def find_picture(study: StudyReader, path: Path) -> Picture | None:
    """Return the picture at a path inside a study, or None where there is no file."""
    if not path.is_file():
        return None
    width, height = size_of(path)
    return Picture(path.relative_to(study.path).as_posix(), width, height)


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height of a picture file in pixels."""
    with Image.open(path) as picture:
        return picture.size
