"""The stamp in a figure or a report, which shows later that this program wrote the file and nobody changed it."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

KINDS = ("png", "gif", "svg", "pdf", "html")
NOTE = b"written by interpret, sha256 without this note "


def stamped(content: bytes, kind: str) -> bytes:
    """Return a file's content with a stamp that viewers do not show.

    >>> stamped(b"<p>Hi</p>", "html")[:36]
    b'<p>Hi</p>\\n<!-- written by interpret,'
    """
    place = _place(content, kind)
    return content[:place] + _stamp(content, kind) + content[place:]


def is_stamped(path: Path) -> bool:
    """Return whether a file is unchanged since this program wrote it.

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
    end = _place(content, kind)
    start = end - len(_stamp(b"", kind))
    return start >= 0 and content[start:end] == _stamp(content[:start] + content[end:], kind)


def says_it_is_stamped(path: Path) -> bool:
    """Return whether a file has a stamp, which need not be that of its content."""
    return NOTE in path.read_bytes()


def _place(content: bytes, kind: str) -> int:
    """Return where a stamp ends: before the part that must be last in a file of this kind."""
    if kind == "pdf":
        return max(0, content.rfind(b"startxref"))
    return len(content) - {"png": 12, "gif": 1}.get(kind, 0)


def _stamp(content: bytes, kind: str) -> bytes:
    """Return the stamp of a content; its length is the same for every content."""
    note = NOTE + hashlib.sha256(content).hexdigest().encode()
    if kind == "pdf":
        return b"% " + note + b"\n"
    if kind == "gif":
        return b"!\xfe" + len(note).to_bytes(1) + note + b"\0"
    if kind != "png":
        return b"\n<!-- " + note + b" -->\n"
    chunk = b"tEXtSoftware\0" + note
    return (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
