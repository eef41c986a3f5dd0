"""The image files of a folder, and their labels by subfolder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import methodcaller
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interpret.images.file_names import FileNames
from interpret.images.folder import extensions
from interpret.images.imagenet import class_names, wnids
from interpret.support.progress import progress
from interpret.support.wording import count, readable

PICTURES_LEFT_OUT = frozenset(
    ".svg .svgz .heic .heif .hif .jxl .psd .eps .pdf .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .exr .hdr .dcm".split()
)
"""Extensions of pictures that are not read."""
MOST_KINDS = 20
"""Kinds of files left out that are counted apart; more are counted together."""

NO_EXTENSION, OTHERS = "file without extension", "other file"


class LeftOut(NamedTuple):
    """The files of a kind that are not read."""

    number: int
    first: str
    """The first one, its path relative to the folder."""


class Listing(NamedTuple):
    """The image files of a folder."""

    names: FileNames
    """Paths relative to the folder, with `/`, sorted."""
    runs: list[tuple[str, int]]
    """The first-level subfolder, "" for none, of so many names that follow each other."""
    left_out: dict[str, LeftOut]
    """What is not read, by its kind, such as ".svg" or "link to nothing"."""


class Visited:
    """The folders that were listed, with what tells whether one has changed since."""

    def __init__(self) -> None:
        self.folders: list[bytes] = []
        """Paths relative to the folder that is listed, which is empty itself; the others end with a slash."""
        self.stamps: list[tuple[int, int, int]] = []
        self.links = False
        """Whether there are links, whose targets may change while the folders do not."""

    def settled(self, before: int) -> bool:
        """Return whether no folder has changed since a time, in nanoseconds: such a change need not show."""
        return all(max(stamp[:2]) < before for stamp in self.stamps)


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return what differs after a file in a folder was made, removed or renamed."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def list_images(
    root: str | os.PathLike[str],
    visited: Visited | None = None,
    many: int | None = None,
    at_many: Callable[[], object] = lambda: None,
) -> Listing:
    """List the image files under a folder, sorted by path; opens no file, and asks the system for none's size.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ["b.bmp", "a.bmp", "a.svg"]:
    ...     (root / name).touch()
    >>> listing = list_images(root)
    >>> list(listing.names), listing.left_out
    (['a.bmp', 'b.bmp'], {'.svg': LeftOut(number=1, first='a.svg')})

    Files and folders whose names start with a dot are left out without a word. A folder that links reach a second time
    is listed once, at its own place if it has one under `root`.

    Args:
        root: the folder.
        visited: where to note the folders that are listed.
        many, at_many: what to call once when so many files have been found.
    """
    left_out: dict[str, LeftOut] = {}
    runs: list[tuple[str, int]] = []
    seen_by = Visited() if visited is None else visited

    def folders() -> Iterator[tuple[bytes, list[bytes]]]:
        with progress(0, "finding images", "file") as bar:
            found = 0
            for prefix, names in _folders(Path(root), left_out, seen_by):
                first = os.fsdecode(prefix.partition(b"/")[0])
                bar.update(len(names))
                if many is not None and found < many <= found + len(names):
                    at_many()
                found += len(names)
                if runs and runs[-1][0] == first:
                    names_before = runs.pop()[1]
                    runs.append((first, names_before + len(names)))
                else:
                    runs.append((first, len(names)))
                yield prefix, names

    return Listing(FileNames.of_folders(folders()), runs, left_out)


def _folders(root: Path, left_out: dict[str, LeftOut], visited: Visited) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield the image files of one folder after the other, so that the paths are sorted; note what is left out."""
    seen: set[tuple[int, int]] = set()
    top = os.path.join(os.fsencode(root), b"")  # noqa: PTH118 - bytes
    todo: list[tuple[bytes, list[bytes] | None]] = [(b"", None)]
    while todo:
        prefix, names = todo.pop()
        if names is not None:
            yield prefix, names
            continue
        try:
            status = os.stat(top + prefix)  # noqa: PTH116 - bytes
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            visited.folders.append(prefix)
            visited.stamps.append(stamp_of(status))
            inside = sorted(_entries(top, prefix, left_out, visited))
        except OSError as error:
            if not prefix or error.errno not in (errno.EACCES, errno.EPERM):
                raise
            _note(left_out, "folder that may not be read", prefix)
            continue
        if not any(map(_is_folder, inside)):  # most often
            yield prefix, inside
            continue
        found: list[tuple[bytes, list[bytes] | None]] = []
        for is_folder, group in groupby(inside, key=_is_folder):
            members = list(group)
            found += [(prefix + name, None) for name in members] if is_folder else [(prefix, members)]
        todo += reversed(found)


_is_folder = methodcaller("endswith", b"/")


def _entries(top: bytes, prefix: bytes, left_out: dict[str, LeftOut], visited: Visited) -> Iterator[bytes]:
    """Yield the names of a folder's image files, and those of its folders with a slash at the end."""
    endings = _extensions()
    with os.scandir(top + prefix) as scan:
        for entry in scan:
            name = entry.name
            if name[:1] == b".":
                continue
            is_named_so = name.lower().endswith(endings)
            try:
                if is_named_so and entry.is_file(follow_symlinks=False):
                    yield name  # the commonest first: there may be millions
                    continue
                visited.links = visited.links or entry.is_symlink()
                if entry.is_dir():
                    if not (entry.is_symlink() and _is_listed_elsewhere(top, entry.path)):
                        yield name + b"/"
                elif not is_named_so:
                    _note(left_out, _extension(name), prefix + name)
                elif entry.is_file():
                    yield name
                else:
                    _note(left_out, _kind(entry), prefix + name)
            except OSError as error:
                if error.errno not in _LINK_ERRORS:
                    raise
                _note(left_out, _LINK_ERRORS[error.errno], prefix + name)


_LINK_ERRORS = {
    errno.ELOOP: "link that leads back to itself",
    errno.EACCES: "link that may not be followed",
    errno.ENAMETOOLONG: "link with too long a path",
    errno.ENOTDIR: "link to nothing",
}


def _is_listed_elsewhere(top: bytes, link: bytes) -> bool:
    """Return whether the folder that a link leads to is listed at its own place, or holds the folder that is listed."""
    root, target = (os.path.join(os.path.realpath(path), b"") for path in (top, link))  # noqa: PTH118 - bytes
    inside = target.removeprefix(root)
    return root.startswith(target) or (inside != target and not (b"/" + inside).count(b"/."))


def _kind(entry: os.DirEntry[bytes]) -> str:
    """Return what something is that has the name of an image and is no file."""
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 - bytes
        return "link to nothing"
    mode = entry.stat().st_mode
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISSOCK: "socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "device")


def _extension(name: bytes) -> str:
    ending = readable(os.fsdecode(os.path.splitext(name)[1])).lower()  # noqa: PTH122 - bytes
    return ending if 1 < len(ending) <= 8 and ending[1:].isalnum() else NO_EXTENSION


def _note(left_out: dict[str, LeftOut], kind: str, path: bytes) -> None:
    if kind not in left_out and len(left_out) >= MOST_KINDS:
        kind = OTHERS
    number, first = left_out.get(kind, (0, readable(os.fsdecode(path))))
    left_out[kind] = LeftOut(number + 1, first)


@cache
def _extensions() -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, extensions()))


def unexpected(left_out: Mapping[str, LeftOut]) -> dict[str, LeftOut]:
    """Return the kinds left out that somebody may have taken for images: no texts and tables beside the images.

    >>> list(unexpected({".txt": LeftOut(2, "a.txt"), ".svg": LeftOut(1, "a.svg"), "named pipe": LeftOut(1, "b.jpg")}))
    ['.svg', 'named pipe']
    """
    return {
        kind: found
        for kind, found in left_out.items()
        if kind in PICTURES_LEFT_OUT or not (kind.startswith(".") or kind in (NO_EXTENSION, OTHERS))
    }


def describe_left_out(left_out: Mapping[str, LeftOut]) -> str:
    """Say how many files of each kind are not read, and name the first of each kind.

    >>> describe_left_out({".svg": LeftOut(2, "a.svg"), "link to nothing": LeftOut(1, "b.jpg")})
    '3 files were left out: 2 × .svg (a.svg …), 1 × link to nothing (b.jpg)'
    """
    total = sum(found.number for found in left_out.values())
    kinds = ", ".join(
        f"{found.number:,} × {kind} ({found.first}{' …' if found.number > 1 else ''})"
        for kind, found in sorted(left_out.items(), key=lambda pair: -pair[1].number)
    )
    return f"{count(total, 'file')} {'was' if total == 1 else 'were'} left out: {kinds}"


def labels_of(
    runs: Sequence[tuple[str, int]], classes: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Label files by their first-level subfolder; return the labels and the classes that they index.

    >>> labels_of([("cat", 2), ("dog", 1)])
    (array([0, 0, 1]), ('cat', 'dog'))
    >>> labels_of([("cat", 1), ("dog", 1)], classes=("bird", "dog", "cat"))
    (array([2, 1]), ('bird', 'dog', 'cat'))
    >>> labels_of([("n02123045", 1), ("n01440764", 1)], classes=class_names())[0]
    array([281,   0])
    >>> labels_of([("", 1), ("cat", 1)])
    (array([-1, -1]), None)

    Args:
        runs: the first-level subfolder, "" for none, of so many files that follow each other.
        classes: the network's classes. Labels index them if every subfolder has the name or WordNet id of one of them;
            upper and lower case, and underscores and spaces, are the same. Otherwise labels index the subfolders.

    Returns:
        Labels, int64, and their classes. If a file is in no subfolder or there is only one subfolder: −1 and None.
    """
    counts = [number for _, number in runs]
    folders = [readable(folder) for folder, _ in runs]
    known = sorted(set(folders))
    if "" in known or len(known) < 2:
        return np.full(sum(counts), -1, np.int64), None
    spelled = wnids() if classes == class_names() and known[0] in wnids() else classes or ()
    # reversed, so that the first of two classes with the same name counts
    index = {_plain(name): i for i, name in reversed(list(enumerate(spelled)))}
    if all(_plain(folder) in index for folder in known):
        labels = [index[_plain(folder)] for folder in folders]
    else:
        places = {folder: place for place, folder in enumerate(known)}
        labels, classes = [places[folder] for folder in folders], tuple(known)
    return np.repeat(np.array(labels, np.int64), counts), classes


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")
