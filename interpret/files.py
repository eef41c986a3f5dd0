"""Writing files so that a reader sees the old content or the new, never half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place, whole, when the block ends without an error.

    What the block makes there may be a file or a folder; an error or an interrupt leaves the old one as it was.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "answer.txt") as new:
    ...     _ = new.write_text("42")
    >>> (folder / "answer.txt").read_text()
    '42'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    new, old = workspace / "new", workspace / "old"
    try:
        yield new
        # only a file can take a file's place at once
        if os.path.lexists(path) and (new.is_dir() or (path.is_dir() and not path.is_symlink())):
            path.rename(old)
        new.replace(path)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; a file name in it that is not UTF-8 shows question marks.

    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_text(target, "π")
    >>> target.read_text(encoding="utf-8")
    'π'
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", errors="replace", newline="\n")
