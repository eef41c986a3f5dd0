"""Checksums inside files: of safetensors and JSON, whose metadata and objects have room for one."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from interpret.support.errors import InterpretError

KEY = "sha256"
"""The key of the checksum, of the file without it."""
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedFileError(InterpretError):
    """A file is not as this program wrote it."""

    def __init__(self, file: Path, why: str = "its checksum differs") -> None:
        super().__init__(f"{str(file)!r} is damaged ({why})")
        self.file, self.why = file, why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.why)


def content_of(file: Path) -> bytes:
    """Return what a file holds; a pipe would be waited for, and a device may have no end.

    Raises:
        DamagedFileError: it is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise DamagedFileError(file, "it is no file")
    return file.read_bytes()


def sealed(content: bytes) -> bytes:
    """Return the content of a safetensors file with its checksum in the metadata.

    >>> from safetensors.numpy import load
    >>> content = sealed(save({"a": np.ones(2)}, {"made": "here"}))
    >>> load(content), is_whole(content), is_whole(content.replace(b"here", b"hero"))
    ({'a': array([1., 1.])}, True, False)
    """
    start = len(_head(content))
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {})
    # sorted, as safetensors writes several entries in any order
    header = {"__metadata__": {**dict(sorted(metadata.items())), KEY: "0" * 64}, **header}
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    whole = b"".join((len(written).to_bytes(8, "little"), written, memoryview(content)[start:]))
    place = _SEAL.search(_head(whole))
    assert place is not None
    return b"".join((whole[: place.start(1)], hashlib.sha256(whole).hexdigest().encode(), whole[place.end(1) :]))


def sealed_arrays(arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> bytes:
    """Return a sealed safetensors file of arrays in any memory order.

    >>> from safetensors.numpy import load
    >>> columns = np.asfortranarray([[1, 2], [3, 4]])  # safetensors would write it in the order of its memory
    >>> load(sealed_arrays({"a": columns}))
    {'a': array([[1, 2],
           [3, 4]])}
    """
    return sealed(save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata))


def is_whole(content: bytes) -> bool | None:
    """Return whether a safetensors file is as it was sealed; None where it never was."""
    place = _SEAL.search(_head(content))
    if place is None:
        return None
    checksum = hashlib.sha256(content[: place.start(1)])
    checksum.update(b"0" * 64)
    checksum.update(memoryview(content)[place.end(1) :])
    return checksum.hexdigest().encode() == place[1]


def _head(content: bytes) -> bytes:
    """Return the start of a safetensors file, to the end of its JSON."""
    return content[: 8 + int.from_bytes(content[:8], "little")]


def check_seal(file: Path) -> None:
    """Check a safetensors file that may have been sealed.

    Raises:
        DamagedFileError: it is not as it was sealed.
    """
    if is_whole(content_of(file)) is False:
        raise DamagedFileError(file)


def sealed_json(value: dict[str, Any], **style: Any) -> str:
    """Return an object as JSON, with a checksum of what it says as its first entry.

    >>> sealed_json({"b": 1})
    '{"sha256": "cae1fd1cafc3a224720d8b52c3615332619526ae2526b2cd7afb72a7405ee526", "b": 1}\\n'
    """
    return json.dumps({KEY: _checksum(value), **value}, ensure_ascii=False, **style) + "\n"


def read_json(file: Path) -> Any:
    """Return what a JSON file holds, without the checksum.

    Raises:
        DamagedFileError: it is no JSON, or not as it was sealed.
    """
    try:
        value = json.loads(content_of(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(file, str(error)) from None
    if isinstance(value, dict) and KEY in value and value.pop(KEY) != _checksum(value):
        raise DamagedFileError(file)
    return value


def _checksum(value: dict[str, Any]) -> str:
    # a name that is not Unicode is written with question marks
    written = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return hashlib.sha256(written).hexdigest()
