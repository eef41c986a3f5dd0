"""The names of a large folder, listed once: by the next process, and by the other ranks, they are read from a file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from interpret.images.file_names import FileNames
from interpret.images.fingerprints import hash_arrays
from interpret.images.folder import extensions
from interpret.images.listing import LeftOut, Listing, Visited, list_images, stamp_of
from interpret.support.caches import cache_folder
from interpret.support.errors import InterpretError
from interpret.support.files import any_file, replacing
from interpret.support.locks import POLL, lock_file, unlock

KEPT_FROM = 100_000
"""Files from which on the names of a folder are kept: to list fewer takes no time."""
MOST_KEPT = 10
"""Folders whose names are kept; of more, the oldest are forgotten."""
FORMAT = 1
SETTLED = 2 * 10**9
"""Nanoseconds after which a change of a folder shows in its time stamp, whatever the file system."""

logger = logging.getLogger(__name__)


def list_or_remember(root: Path) -> Listing:
    """List the image files under a folder as `list_images` does; of many, keep the names for the next time.

    They are kept in `listings` in the folder of `interpret.support.caches`, and used again while no folder in `root`
    has changed, which its time stamps show. Processes that read them share the memory. Several that come at once, such
    as ranks on one machine, wait for the first. Nothing is kept of a folder with links, whose targets have time stamps
    of their own, or of one that has just changed.
    """
    cache = cache_folder()
    if cache is None:
        return list_images(root)
    file = cache / "listings" / f"{_name_of(root)}.safetensors"
    kept = _read(file, root)
    if kept is not None:
        return kept
    visited, began, before = Visited(), time.time_ns(), _version(file)
    with ExitStack() as held:
        try:
            found = list_images(root, visited, KEPT_FROM, lambda: held.enter_context(_alone(file, before)))
        except _ListedByAnother:
            _wait_for(file)
            kept = _read(file, root)
            return list_images(root) if kept is None else kept
        if len(found.names) >= KEPT_FROM and not visited.links and visited.settled(began - SETTLED):
            with suppress(OSError, SafetensorError, InterpretError):  # of a full disk, or a home that cannot be written
                _keep(file, found, visited)
                return _read(file, root) or found  # to share the memory
    return found


def _name_of(root: Path) -> str:
    """Return a name for what is listed: the folder, and which files of it are images."""
    what = [FORMAT, os.path.realpath(root), extensions()]
    return sha256(json.dumps(what).encode()).hexdigest()[:32]


class _ListedByAnother(Exception):  # noqa: N818 - no error
    """Another process lists the same folder."""


@contextmanager
def _alone(file: Path, before: int | None) -> Iterator[None]:
    """Hold the lock of a listing.

    Args:
        file: the file that keeps it.
        before: the version that is known to be of no use.

    Raises:
        _ListedByAnother: another process holds the lock, or has written a new version.
    """
    lock = None
    with suppress(OSError):  # without locks, each process lists by itself
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(_lock_of(file))
        if lock is None:
            raise _ListedByAnother
    try:
        if _version(file) != before:
            raise _ListedByAnother
        yield
    finally:
        if lock is not None:
            unlock(_lock_of(file), lock)


def _wait_for(file: Path) -> None:
    """Wait until no other process lists."""
    with suppress(OSError):
        while (lock := lock_file(_lock_of(file))) is None:
            time.sleep(POLL)
        unlock(_lock_of(file), lock)


def _version(file: Path) -> int | None:
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return None


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")


def _keep(file: Path, found: Listing, visited: Visited) -> None:
    content, ends = found.names.arrays()
    tensors = {
        "content": content,
        "ends": ends,
        "folders": torch.from_numpy(np.frombuffer(b"\0".join(visited.folders), np.uint8).copy()),
        "stamps": torch.tensor(visited.stamps, dtype=torch.int64),
    }
    said = json.dumps({"runs": found.runs, "left_out": found.left_out})
    checksum = hash_arrays(tensors.values(), said.encode())
    with replacing(file, any_file) as new:
        save_file(tensors, new, {"said": said, "sha256": checksum})
    logger.info("kept %d names in %s", len(found.names), file)
    old = sorted(file.parent.glob("*.safetensors"), key=lambda one: one.stat().st_mtime, reverse=True)[MOST_KEPT:]
    for one in old:
        one.unlink(missing_ok=True)


def _read(file: Path, root: Path) -> Listing | None:
    """Return what is kept of a folder; None without it, or if the folder has changed, or if the file is damaged."""
    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in ("content", "ends", "folders", "stamps")}
            metadata = stored.metadata()
        if not _unchanged(root, tensors["folders"].numpy().tobytes(), tensors["stamps"].tolist()):
            logger.info("%s has changed since its names were kept", root)
            return None
        if hash_arrays(tensors.values(), metadata["said"].encode()) != metadata["sha256"]:
            logger.info("%s is damaged", file)
            return None
        said = json.loads(metadata["said"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    logger.info("read the names in %s from %s", root, file)
    left_out = {kind: LeftOut(*one) for kind, one in said["left_out"].items()}
    runs = [(folder, number) for folder, number in said["runs"]]
    return Listing(FileNames.of_arrays(tensors["content"], tensors["ends"]), runs, left_out)


def _unchanged(root: Path, folders: bytes, stamps: list[list[int]]) -> bool:
    top = os.path.join(os.fsencode(root), b"")  # noqa: PTH118 - bytes
    try:
        return all(
            stamp_of(os.stat(top + folder)) == tuple(stamp)  # noqa: PTH116 - bytes
            for folder, stamp in zip(folders.split(b"\0"), stamps, strict=True)
        )
    except OSError:
        return False
