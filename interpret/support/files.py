"""Write files atomically, and never over files that this program did not write."""

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
"""Returns whether the existing file at a path may be replaced, as this program wrote it."""


def never(path: Path) -> bool:
    """Allow no existing file."""
    return False


def any_file(path: Path) -> bool:
    """Allow any existing file, because its content was read and is written again."""
    return True


@contextmanager
def replacing(path: str | os.PathLike[str], ours: Ours = never) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    The block makes a file or a folder there; an error or an interrupt leaves everything as it was. Only a file can be
    replaced, and only one that is `ours`. If `path` is a link, the file that it points to is replaced.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "answer.txt") as new:
    ...     _ = new.write_text("42")
    >>> (folder / "answer.txt").read_text()
    '42'

    Raises:
        InterpretError: a folder, or a file that is not `ours`, is at `path`, or a file where a folder is needed.
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
    """Refuse a path for a file if something that may not be replaced is there.

    >>> check_place("there-is-no-such-folder/file.txt")

    Raises:
        InterpretError: a folder, or a file that is not `ours`, is there, or a file where a folder is needed.
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
    """Write `text` to `path` as UTF-8, atomically; characters that UTF-8 cannot encode become question marks.

    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_text(target, "π")
    >>> target.read_text(encoding="utf-8")
    'π'
    """
    with replacing(path, ours) as new:
        new.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def discard(folder: Path, files: Iterable[str]) -> None:
    """Remove these files and the folders that are empty then, and nothing else."""
    for path in files:
        with suppress(FileNotFoundError):
            (folder / path).unlink()
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(at).rmdir()


def layer_path(name: str) -> str:
    """Return a layer's name as a file name that is valid on every system.

    >>> layer_path("features.3/a b")
    'features.3%2Fa%20b'
    """
    return quote(name, safe="")
