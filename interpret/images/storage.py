"""Reading from storage that may fail: wait for it, or stop, instead of counting its files as unreadable."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import UnidentifiedImageError

from interpret.support.errors import InterpretError

Result = TypeVar("Result")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds to wait before each further attempt to read from storage that fails."""

STORAGE_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        "EIO ESTALE ENOTCONN ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNREFUSED "
        "ECONNRESET EREMOTEIO ENOLINK ECOMM ESHUTDOWN ENODEV ENXIO EMFILE ENFILE ENOMEM"
    ).split()
    if hasattr(errno, name)
)
"""Errors of a disk, a share, the network or the process, which say nothing about the file that is read."""


class UnreadableImage(InterpretError):  # noqa: N818 - the name that the interfaces agreed on
    """An image that does not decode: `name` is the file, `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason
        self.item = -1
        """The item that was read; −1 if it is not known."""

    def __str__(self) -> str:
        return f"image {self.name!r} cannot be read: {self.reason}"


def read_patiently(
    name: str, read: Callable[[], Result], path: Path | None = None, damage: type[Exception] = Exception
) -> Result:
    """Return what `read` reads; wait up to half a minute for storage that fails.

    >>> read_patiently("a.png", lambda: 42)
    42

    Args:
        name: the image, for messages.
        read: reads it; called again after each failure of the storage.
        path: the file, if it is known. If it is gone together with its folder, or with all files there, the storage has
            failed, as a share that is no longer mounted.
        damage: the exceptions that say that the image does not decode; others are raised as they are.

    Raises:
        UnreadableImage: the image itself does not decode, or it alone is gone.
        InterpretError: the storage fails.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except InterpretError:
            raise
        except damage as error:  # damaged files can make a decoder raise any exception
            if not _is_failure_of_storage(error, path):
                raise UnreadableImage(name, why_unreadable(error)) from None
            if pause is None:
                where = "" if path is None else f" in {str(path.parent)!r}"
                raise InterpretError(
                    f"image {name!r} cannot be read, as the storage{where} fails ({why_unreadable(error)}), also after "
                    f"{sum(PAUSES):.0f} seconds: see that it is there, and run the same again"
                ) from None
            time.sleep(pause)
    raise AssertionError  # the last attempt returns or raises


def _is_failure_of_storage(error: Exception, path: Path | None) -> bool:
    if not isinstance(error, OSError):
        return False
    if error.errno in STORAGE_ERRORS:
        return True
    if error.errno not in (errno.ENOENT, errno.ENOTDIR) or path is None:
        return False
    try:
        return not any(path.parent.iterdir())
    except OSError:
        return True


def why_unreadable(error: Exception) -> str:
    """Return in a few words, without absolute paths, why an image could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
