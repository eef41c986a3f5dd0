"""Writing files so that a reader sees the old content or the new, and nothing is lost that somebody else wrote."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from interpret.support.errors import InterpretError

Ours = Callable[[Path], bool]
"""Tells whether this program wrote the file that stands at a path, so that it may be replaced."""


def never(path: Path) -> bool:
    """No file may stand there."""
    return False


def taken_over(path: Path) -> bool:
    """Whatever file stands there: it has been read, and what it holds is written again."""
    return True


@contextmanager
def replacing(path: str | os.PathLike[str], ours: Ours = never) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place, whole, when the block ends without an error.

    What the block makes there may be a file or a folder; an error or an interrupt leaves all as it was. Only a file
    can be replaced, and only one that is `ours`. Of a link, it is what the link points to.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "answer.txt") as new:
    ...     _ = new.write_text("42")
    >>> (folder / "answer.txt").read_text()
    '42'

    Raises:
        InterpretError: a folder, or a file that is not `ours`, stands at `path`, or a file where a folder should be.
    """
    path = Path(os.path.realpath(path))
    check_place(path, ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    new = workspace / "new"
    try:
        yield new
        check_place(path, never if new.is_dir() else ours)  # the work may have taken an hour
        new.replace(path)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def check_place(path: str | os.PathLike[str], ours: Ours = never) -> None:
    """Refuse a place for a file where something stands that may not be replaced.

    >>> check_place("there-is-no-such-folder/file.txt")

    Raises:
        InterpretError: a folder, or a file that is not `ours`, stands there, or a file where a folder should be.
    """
    path = Path(os.path.realpath(path))
    if not os.path.lexists(path):
        nearest = next(folder for folder in path.parents if folder.exists())
        if not nearest.is_dir():
            raise InterpretError(f"{str(nearest)!r} is a file, where a folder is needed: name another place")
        return
    if path.is_dir():
        raise InterpretError(f"{str(path)!r} is a folder, where a file is to be written: move it or name another file")
    if not stat.S_ISREG(path.stat().st_mode) or not ours(path):
        raise InterpretError(
            f"{str(path)!r} is not as interpret wrote it, or not by interpret: move it or name another file"
        )


def write_text(path: str | os.PathLike[str], text: str, ours: Ours = never) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; a file name in it that is not UTF-8 shows question marks.

    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_text(target, "π")
    >>> target.read_text(encoding="utf-8")
    'π'
    """
    with replacing(path, ours) as new:
        new.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def discard(folder: Path, files: Iterable[str]) -> None:
    """Remove these files, and the folders that are empty then; whatever else there is stays."""
    for path in files:
        with suppress(FileNotFoundError):
            (folder / path).unlink()
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(at).rmdir()


def layer_path(name: str) -> str:
    """Return a layer's name as the name of a file on any system.

    >>> layer_path("features.3/a b")
    'features.3%2Fa%20b'
    """
    return quote(name, safe="")
