"""The stamp in a figure or a report, by which this program knows later that it wrote the file, and all of it."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

KINDS = ("png", "svg", "pdf", "html")
IEND = 12
"""Bytes of the chunk that a PNG ends with."""


def stamped(content: bytes, kind: str) -> bytes:
    """Return a file's content with a stamp, which no viewer shows.

    >>> stamped(b"<p>Hi</p>", "html")[:36]
    b'<p>Hi</p>\\n<!-- written by interpret,'
    """
    place = len(content) - _tail(kind)
    return content[:place] + _stamp(content, kind) + content[place:]


def is_stamped(path: Path) -> bool:
    """Return whether a file is as this program wrote it.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp(), "page.html")
    >>> _ = page.write_bytes(stamped(b"<p>Hi</p>", "html"))
    >>> is_stamped(page)
    True
    >>> _ = page.write_bytes(page.read_bytes().replace(b"Hi", b"Ho"))
    >>> is_stamped(page)
    False
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        return False
    content = path.read_bytes()
    end = len(content) - _tail(kind)
    start = end - len(_stamp(b"", kind))
    return start >= 0 and content[start:end] == _stamp(content[:start] + content[end:], kind)


def _tail(kind: str) -> int:
    return IEND if kind == "png" else 0


def _stamp(content: bytes, kind: str) -> bytes:
    """Return the stamp of a content: as long for any other."""
    note = b"written by interpret, sha256 without this note " + hashlib.sha256(content).hexdigest().encode()
    if kind == "pdf":
        return b"\n% " + note + b"\n"
    if kind != "png":
        return b"\n<!-- " + note + b" -->\n"
    chunk = b"tEXtSoftware\0" + note
    return (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
