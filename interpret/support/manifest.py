"""Update folders of files that this program wrote: a list in the folder names them, and no other file is touched."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from interpret.support.errors import InterpretError
from interpret.support.files import (
    NEW,
    OLD,
    PLAN,
    WORKSPACE,
    check_place,
    discard,
    left_behind,
    remove_made,
    replacing,
    sweep_once,
    sync,
    sync_folder,
    workspace,
)
from interpret.support.interrupts import interrupts_delayed

MANIFEST = "interpret.sha256"
HEADER = f"# Written by interpret, which replaces no other files here. To check them: sha256sum --check {MANIFEST}\n"


@contextmanager
def updating(folder: str | os.PathLike[str], among_others: bool = False) -> Iterator[Path]:
    """Yield a new folder whose content replaces, as a whole, what this program wrote into `folder` earlier.

    The folder itself is kept, as a shell or a server may be working in it. An error or an interrupt leaves everything
    as it was. If the computer fails during the exchange, the next call restores the old content.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "pages")
    >>> for text in ("first", "second"):
    ...     with updating(folder) as new:
    ...         new.mkdir(exist_ok=True)
    ...         _ = (new / "page.html").write_text(text)
    >>> (folder / "page.html").read_text(), sorted(path.name for path in folder.iterdir())
    ('second', ['interpret.sha256', 'page.html'])
    >>> _ = (folder / "page.html").write_text("by hand")
    >>> check_folder(folder, thorough=True)
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: ...page.html' has been changed since interpret wrote it: move it...

    Args:
        folder: where; it need not exist.
        among_others: whether the folder may hold other files, which are kept.

    Raises:
        InterpretError: what `check_folder` refuses.
    """
    folder = Path(os.path.realpath(folder))
    if not os.path.lexists(folder):
        with replacing(folder) as new:
            yield new
            write_manifest(new, listing(new))
        return
    with suppress(OSError):  # of a folder that is not this user's to read
        sweep_once(folder.parent)  # in which the folder was made, by a process that was killed before it had cleaned up
    check_folder(folder, () if among_others else None)
    with workspace(folder) as made:
        new = made / NEW
        yield new
        coming = listing(new)
        if read_manifest(folder) != coming or not _linked(folder / MANIFEST, new / MANIFEST):
            write_manifest(new, coming)
        sync(new)
        _refuse_foreign(folder, coming, _top_names(coming) if among_others else None)
        _exchange(folder, made, {*_top_names(coming), *_top_names(read_manifest(folder) or {}), MANIFEST})


def check_folder(
    folder: str | os.PathLike[str], names: Collection[str] | None = None, *, thorough: bool = False
) -> None:
    """Refuse to write into a folder that holds files that this program did not write.

    >>> check_folder("there-is-no-such-folder")

    Args:
        folder: where; it need not exist.
        names: the names to write, beside other files; None: all files must be this program's.
        thorough: whether to read all files, to find those that have changed since.

    Raises:
        InterpretError: a file instead of a folder; a first file, link or folder that this program did not write.
    """
    folder = Path(os.path.realpath(folder))
    if not os.path.lexists(folder):
        check_place(folder)
        return
    if not folder.is_dir():
        raise InterpretError(f"{str(folder)!r} is a file, where a folder is needed: name another place")
    for made in left_behind(folder):
        if (made / PLAN).is_file():
            _undo(folder, made)
        elif (made / OLD).is_dir():
            _remove_listed(folder, made / OLD)
            discard(made / NEW, [])  # all of it has been moved into the folder
        else:
            remove_made(made / NEW)  # a folder, or a single file of `replacing`
    if thorough:
        _refuse_foreign(folder, {}, names)
    else:
        _refuse_unlisted(folder, read_manifest(folder) or {}, names)


def _linked(old: Path, new: Path) -> bool:
    """Make a hard link to a file, and return whether the file system supports it."""
    try:
        os.link(old, new)
    except OSError:
        return False
    return True


def listing(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            path.relative_to(folder).as_posix(): found
            for path, found in zip(paths, pool.map(digest, paths), strict=True)
        }


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, files: Mapping[str, str]) -> None:
    """Write the list of files, with their SHA-256, into a folder."""
    lines = "".join(f"{files[path]}  {path}\n" for path in sorted(files))
    with replacing(folder / MANIFEST, is_manifest) as new:
        new.write_text(HEADER + lines, encoding="utf-8", newline="\n")


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return the listed files of a folder with their SHA-256; None without a list."""
    file = folder / MANIFEST
    if file.is_symlink() or not file.is_file() or not is_manifest(file):
        return None
    lines = file.read_text("utf-8", "replace").splitlines()[1:]  # a damaged list names a file that is not there
    found = [re.fullmatch("([0-9a-f]{64})  (.+)", line) for line in lines]
    return {match[2]: match[1] for match in found if match}


def is_manifest(file: Path) -> bool:
    """Return whether a file is a list that this program wrote."""
    with file.open("rb") as opened:
        return opened.read(len(HEADER)) == HEADER.encode()


def is_listed(path: Path, folder: Path) -> bool:
    """Return whether a file is listed in a folder and unchanged."""
    return (read_manifest(folder) or {}).get(path.relative_to(folder).as_posix()) == digest(path)


def _unlisted(folder: Path, known: Mapping[str, str], among: Collection[str] | None = None) -> Iterator[Path]:
    """Yield files, links and empty folders that are not listed; with `among`, of these top-level names alone."""
    folders = {str(parent) for path in known for parent in PurePosixPath(path).parents}

    def visit(at: Path, inside: str) -> Iterator[Path]:
        entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        if not entries and inside and inside not in folders:
            yield at
        for entry in entries:
            if not inside and (entry.name.startswith(WORKSPACE) or (among is not None and entry.name not in among)):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from visit(Path(entry.path), path)
            elif path == MANIFEST and not entry.is_symlink() and is_manifest(Path(entry.path)):
                continue
            elif path not in known or not entry.is_file(follow_symlinks=False):
                yield Path(entry.path)

    yield from visit(folder, "")


def _refuse_unlisted(folder: Path, known: Mapping[str, str], among: Collection[str] | None = None) -> None:
    for path in _unlisted(folder, known, among):
        raise InterpretError(f"{str(path)!r} was not written by interpret: move it, or name a new or an empty folder")


def _refuse_foreign(folder: Path, coming: Mapping[str, str], names: Collection[str] | None) -> None:
    """Refuse to replace files that are not listed or have changed."""
    known = read_manifest(folder) or {}
    # other files may be in the folder, but not under the names to write
    _refuse_unlisted(folder, known, None if names is None else {*names, *_top_names(known), MANIFEST})
    there = [path for path in known if os.path.lexists(folder / path)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(there, pool.map(digest, [folder / path for path in there]), strict=True):
            if found not in (known[path], coming.get(path)):
                raise InterpretError(
                    f"{str(folder / path)!r} has been changed since interpret wrote it: move it, or name a new or an "
                    "empty folder"
                )


def _top_names(paths: Mapping[str, str]) -> set[str]:
    return {PurePosixPath(path).parts[0] for path in paths}


def _exchange(folder: Path, made: Path, names: set[str]) -> None:
    """Move the new content into a folder, in exchange for what it held under these names, and remove the old."""
    new, old = made / NEW, made / OLD
    before = sorted(name for name in names if os.path.lexists(folder / name))
    with interrupts_delayed(second_too=True):
        try:
            (made / PLAN).write_text(json.dumps({"before": before, "names": sorted(names)}), encoding="utf-8")
            sync(made / PLAN)
            old.mkdir()
            for name in sorted(names):
                if name in before:
                    (folder / name).rename(old / name)
                if os.path.lexists(new / name):
                    (new / name).rename(folder / name)
            for at in (folder, old):
                sync_folder(at)
        except BaseException:
            _undo(folder, made)
            raise
        (made / PLAN).unlink()
        _remove_listed(folder, old, verify=False)


def _remove_listed(folder: Path, part: Path, verify: bool = True) -> None:
    """Remove a temporary folder's files that are listed in it, and move what else is in it into the folder."""
    listed = read_manifest(part)
    if listed is not None:
        there = [path for path in listed if (part / path).is_file()]
        discard(part, [path for path in there if not verify or digest(part / path) == listed[path]])
        discard(part, [MANIFEST])
    for path in [path for path in part.rglob("*") if path.is_symlink() or not path.is_dir()]:
        back = folder / path.relative_to(part)  # a file that appeared meanwhile
        back.parent.mkdir(parents=True, exist_ok=True)
        path.rename(back)
    discard(part, [])


def _undo(folder: Path, made: Path) -> None:
    """Move the old content back into the folder, and remove the new."""
    new, old = made / NEW, made / OLD
    new.mkdir(exist_ok=True)
    try:
        plan = json.loads((made / PLAN).read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # it was not written to its end: nothing has been moved
        plan = {"before": [], "names": []}
    for name in plan["names"]:
        moved = os.path.lexists(old / name) or name not in plan["before"]
        if moved and os.path.lexists(folder / name) and not os.path.lexists(new / name):
            (folder / name).rename(new / name)
        if os.path.lexists(old / name):
            (old / name).rename(folder / name)
    (made / PLAN).unlink(missing_ok=True)
    discard(old, [])
    _remove_listed(folder, new)
