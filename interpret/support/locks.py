"""Locks that a crash releases: of a folder that two processes must not write at once."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from interpret.support.errors import warn
from interpret.support.interrupts import interrupts_delayed
from interpret.support.processes import is_first_process

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt  # on Windows
except ImportError:
    msvcrt = None  # type: ignore[assignment]

LOCK = ".interpret-lock"
"""The lock file in a folder while a process works on it: who that is."""
POLL = 0.2
"""Seconds between two tries to get a lock."""

LOCKED_BYTE = 2**30
"""The byte that is locked on Windows, beyond the content: a locked one cannot be read."""

_open: set[int] = set()
"""The descriptors of the locks that this process holds."""
_held: dict[str, int] = {}
"""How often this process has entered the lock of each folder that it holds."""


def lock_file(file: Path) -> int | None:
    """Make a file and lock it; return its descriptor for `unlock`, or None if another holds it.

    The system releases the lock when the process ends, however it ends.

    Raises:
        OSError: ENOLCK where the system or the file system has no locks.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            # the file of a lock that was released meanwhile is gone
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                _open.add(descriptor)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(file)) from error
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: another holds the lock.
        OSError: there are no locks.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    if msvcrt is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError from None
        raise
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def unlock(file: Path, descriptor: int) -> None:
    """Remove a lock file and release its lock."""
    _open.discard(descriptor)
    if fcntl is not None:
        with suppress(FileNotFoundError):
            file.unlink()  # while it is locked: nobody else takes this file for the lock any more
        os.close(descriptor)
    else:
        os.close(descriptor)
        with suppress(OSError):  # Windows removes no open file: another process has it now
            file.unlink()


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold the lock of a folder; wait for a process that holds it, and say which one that is.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with locked(folder) as newly:
    ...     newly, [file.name for file in folder.iterdir()]
    (True, ['.interpret-lock'])
    >>> list(folder.iterdir())
    []

    A process may enter the lock of a folder again. The ranks of one job (torchrun) share that of the first. Where the
    file system has no locks, or the folder is read-only, the block runs without.

    Yields:
        Whether the lock was entered, not entered again.
    """
    folder = Path(os.path.realpath(folder))
    key = str(folder)
    if key in _held or not is_first_process():
        _held[key] = _held.get(key, 0) + 1
        try:
            yield False
        finally:
            _leave(key)
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK
    descriptor = _wait(file)
    try:
        _held[key] = 1
        if descriptor is not None:
            with suppress(OSError):  # of a full disk
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_this_process()).encode())
        yield True
    finally:
        with interrupts_delayed():
            _leave(key)
            if descriptor is not None:
                unlock(file, descriptor)
            if made:
                with suppress(OSError):  # it holds something now
                    folder.rmdir()


def _leave(key: str) -> None:
    _held[key] = _held.get(key, 1) - 1
    if _held[key] < 1:
        del _held[key]


def _wait(file: Path) -> int | None:
    """Return the descriptor of the lock; None where there can be none."""
    said = False
    while True:
        try:
            descriptor = lock_file(file)
        except FileNotFoundError:  # another process has just removed the folder that it had made
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EACCES, errno.EPERM, errno.EROFS):  # as it has none, or is read-only
                return None
            raise
        if descriptor is not None:
            return descriptor
        if not said:
            warn(f"{str(file.parent)!r} is in use by {_holder(file)}: waiting until it ends")
            said = True
        time.sleep(POLL)


def _this_process() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(file: Path) -> str:
    """Return who holds a lock, in words."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        who = json.loads(file.read_text("utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    return "another process"


def _close_in_child() -> None:
    """Give up a fork's copies of the locks, which stay with the parent."""
    for descriptor in _open:
        with suppress(OSError):
            os.close(descriptor)
    _open.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
