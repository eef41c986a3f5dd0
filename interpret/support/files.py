"""Write files atomically and durably, and never over files that this program did not write."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from interpret.support.errors import InterpretError
from interpret.support.interrupts import interrupts_delayed
from interpret.support.locks import LOCK, lock_file, unlock

WORKSPACE = ".interpret-"
"""The prefix of the temporary folder in which new content is made."""
_WORKSPACE = re.compile(re.escape(WORKSPACE) + "[a-z0-9_]{8}")
NEW, OLD, PLAN = "new", "old", "plan.json"
"""In a temporary folder: the new content; and while `manifest` exchanges it, the old content and what is exchanged."""
SYNCED_TOGETHER = 16
"""Files that are written to the disk at once."""

_swept: set[str] = set()
"""The folders that this process has swept."""

LONGEST_NAME = 180
"""The most characters of a file name without its ending; systems allow 255 bytes."""

Ours = Callable[[Path], bool]
"""Returns whether the existing file at a path may be replaced, as this program wrote it."""


def never(path: Path) -> bool:
    """Allow no existing file."""
    return False


def any_file(path: Path) -> bool:
    """Allow any existing file, because its content was read and is written again."""
    return True


@contextmanager
def replacing(path: str | os.PathLike[str], ours: Ours = never, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    The block makes a file or a folder there; an error or an interrupt leaves everything as it was. Only a file can be
    replaced, and only one that is `ours`. If `path` is a link, the file that it points to is replaced. Unless it need
    not be `durable`, the content is on the disk before it replaces the old one, so that a power cut leaves either.

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
    make_folder(path.parent)
    with workspace(path.parent) as made:
        new = made / NEW
        yield new
        check_place(path, never if new.is_dir() else ours)  # the work may have taken an hour
        if durable:
            sync(new)
        new.replace(path)
        if durable:
            sync_folder(path.parent)


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`, for content that is then moved out of it.

    It is removed in the end. If the process is killed, the next one that writes into `folder` removes it: it knows from
    its lock, which is free then, that nobody needs it.
    """
    sweep_once(folder)
    made, lock = _make_workspace(folder)
    try:
        yield made
    finally:
        with interrupts_delayed():
            remove_made(made / NEW)
            if lock is not None:
                unlock(made / LOCK, lock)
            with suppress(OSError):  # it holds old content, which the next call restores
                made.rmdir()


def _make_workspace(folder: Path) -> tuple[Path, int | None]:
    """Make a temporary folder and lock it; None: the file system has no locks."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=WORKSPACE, dir=folder))
        try:
            return made, lock_file(made / LOCK)
        except FileNotFoundError:  # another process has just swept the empty folder
            continue
        except OSError as error:
            if error.errno == errno.ENOLCK:
                return made, None
            made.rmdir()
            raise


def sweep_once(folder: Path) -> None:
    """Sweep a folder that this process has not swept."""
    if str(folder) not in _swept:
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary folders in a folder whose process has been killed, and nothing else."""
    _swept.add(str(folder))
    for made in left_behind(folder):
        if not (made / PLAN).exists() and not (made / OLD).exists():  # an exchange, which `manifest` undoes
            remove_made(made / NEW)


def left_behind(folder: Path) -> Iterator[Path]:
    """Yield the temporary folders in a folder whose process has been killed, and remove each if it is empty then."""
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _WORKSPACE.fullmatch(entry.name) and _is_folder(entry)]
    for made in sorted(found):
        try:
            if not any(made.iterdir()):  # killed before it was locked; a living process makes another
                made.rmdir()
                continue
            if not ((made / LOCK).is_file() or (made / PLAN).is_file()):
                continue  # nothing says that this program made it
            lock = lock_file(made / LOCK)
        except OSError:
            continue
        if lock is None:
            continue
        try:
            yield made
        finally:
            unlock(made / LOCK, lock)
            with suppress(OSError):
                made.rmdir()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def sweep_tree(folder: Path) -> None:
    """Sweep a folder and all folders in it."""
    for at, inside, _ in os.walk(folder):
        inside[:] = [name for name in inside if not _WORKSPACE.fullmatch(name)]
        sweep(Path(at))


def remove_made(path: Path) -> None:
    """Remove what a block made at its temporary path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def move_to_free(path: Path, place: Path) -> Path:
    """Move a file or a folder to a place or, if something is there, to one with a number; return where it is."""
    free, number = place, 2
    while os.path.lexists(free):
        free, number = place.with_name(f"{place.name}.{number}"), number + 1
    make_folder(free.parent)
    path.rename(free)
    return free


def sync(path: Path) -> None:
    """Wait until a file, or all of a folder, is on the disk."""
    if not path.is_dir():
        _sync_file(path)
        return
    folders = [Path(at) for at, _, _ in os.walk(path)]
    sync_files(file for at in folders for file in at.iterdir() if file.is_file() and not file.is_symlink())
    for one in folders:
        sync_folder(one)


def sync_files(files: Iterable[Path]) -> None:
    """Wait until files are on the disk; together they take less than one after another."""
    with ThreadPoolExecutor(SYNCED_TOGETHER) as pool:
        list(pool.map(_sync_file, files))


def _sync_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; not every file system needs or knows this."""
    with suppress(PermissionError):  # Windows opens no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


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


def refuse_inside(path: str | os.PathLike[str], images: str | os.PathLike[str], what: str) -> None:
    """Refuse to write into a folder of images, where the next run would read the pictures written as images.

    >>> refuse_inside("figure.png", "photographs", "the figure")

    Raises:
        InterpretError: `path` is the folder `images` or lies in it.
    """
    if Path(images).is_dir() and Path(path).resolve().is_relative_to(Path(images).resolve()):
        raise InterpretError(
            f"{what} {os.fspath(path)!r} would lie among the images of {os.fspath(images)!r}, and the next run would "
            "read it as images: name another place"
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
    >>> len(layer_path("a" * 300)), len(layer_path("é" * 300))
    (180, 17)

    A name that is too long for a file is cut, and ends in its hash. A cut name is a name of the same file.
    """
    path = quote(name, safe="", errors="backslashreplace")
    if len(path) <= LONGEST_NAME:
        return path
    # up to the first letter whose escape has several parts
    start = re.match(r"(?:[^%]|%[0-7].)*", path[: LONGEST_NAME - 17])
    return f"{start[0] if start else ''}~{sha256(path.encode()).hexdigest()[:16]}"
