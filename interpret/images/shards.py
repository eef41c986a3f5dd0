"""Shards of WebDataset: tar archives whose members of one name make up a sample, read by their place in the archive."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from interpret.images.file_names import FileNames
from interpret.images.storage import read_patiently
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.support.wording import readable

NEEDS_WEBDATASET = "needs webdataset: install it with pip install 'interpret-cnn[webdataset]'"


def is_shards(data: object) -> bool:
    """Return whether data is the name of shards, such as "shards-{000..009}.tar"."""
    return isinstance(data, str | os.PathLike) and os.fspath(data).lower().endswith((".tar", ".tar.gz", ".tgz"))


def expand(spec: str | os.PathLike[str]) -> list[Path]:
    """Return the shards that a name with braces stands for, in order.

    >>> [path.name for path in expand("shards-{000..002}.tar")]
    ['shards-000.tar', 'shards-001.tar', 'shards-002.tar']

    Raises:
        InterpretError: webdataset is not installed; the braces do not match; shards are not local.
    """
    if find_spec("webdataset") is None:
        raise InterpretError(f"data {os.fspath(spec)!r} {NEEDS_WEBDATASET}")
    import webdataset

    try:
        names = webdataset.shardlists.expand_urls(os.fspath(spec))
    except ValueError as error:  # unbalanced braces
        raise InterpretError(f"data {os.fspath(spec)!r} is no name of shards: {error}") from None
    return local_paths(names)


def local_paths(urls: Sequence[str]) -> list[Path]:
    """Return shards as paths.

    Raises:
        InterpretError: shards are read over a network or from a program.
    """
    for url in urls:
        if url.startswith("pipe:") or ("://" in url and not url.startswith("file://")):
            raise InterpretError(
                f"shard {url!r} is not a local file, and hits are read again by their place in it: copy it, or mount it"
            )
    return [Path(url.removeprefix("file:").removeprefix("//") if url.startswith("file:") else url) for url in urls]


class Shards:
    """The samples of shards, and where their members lie: a sample is read without what comes before it.

    >>> import io, tempfile
    >>> shard = Path(tempfile.mkdtemp(), "shard.tar")
    >>> with tarfile.open(shard, "w") as tar:
    ...     for name, content in [("cat/1.jpg", b"picture"), ("cat/1.cls", b"3")]:
    ...         member = tarfile.TarInfo(name)
    ...         member.size = len(content)
    ...         tar.addfile(member, io.BytesIO(content))
    >>> shards = Shards([shard])
    >>> len(shards), shards.name(0), shards.read(0, "cls")
    (1, 'shard.tar/cat/1', b'3')

    Members are grouped as WebDataset groups them: those that follow each other and have one name up to the first dot.

    Raises:
        InterpretError: a shard does not exist, is compressed, or is damaged.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        select: Callable[[str], bool] | None = None,
        rename: Callable[[str], str] | None = None,
    ) -> None:
        self.paths = [path.expanduser().absolute() for path in paths]
        root = Path(os.path.commonpath([path.parent for path in self.paths]))
        self._shown = [readable(path.relative_to(root).as_posix()) for path in self.paths]
        keys: list[FileNames] = []
        self._suffixes: dict[str, int] = {}
        samples, members = [0], []
        with progress(len(self.paths), "indexing shards", "shard") as bar:
            for path in self.paths:
                found = list(_samples(path, select, rename))
                keys.append(FileNames(sample["__key__"] for sample in found))
                samples.append(samples[-1] + len(found))
                members.append(self._members(found))
                bar.update()
        self._keys = keys
        self._firsts = np.array(samples, np.int64)
        """[S + 1] the first sample of each shard."""
        counts = np.concatenate([count for count, _ in members])
        self._places = np.concatenate([places for _, places in members])
        """int64 [M, 3]: the suffix, offset and size of each member of each sample."""
        self._ends = np.concatenate([[0], np.cumsum(counts)])

    def _members(self, samples: list[dict[str, Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        counts, places = [], []
        for sample in samples:
            inside = [(suffix, place) for suffix, place in sample.items() if not suffix.startswith("__")]
            counts.append(len(inside))
            places += [(self._suffixes.setdefault(suffix, len(self._suffixes)), *place) for suffix, place in inside]
        return np.array(counts, np.int64), np.array(places, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def _shard(self, sample: int) -> int:
        return int(np.searchsorted(self._firsts, sample, "right")) - 1

    def key(self, sample: int) -> str:
        """Return the name that a sample's members share."""
        shard = self._shard(sample)
        return self._keys[shard][sample - int(self._firsts[shard])]

    def name(self, sample: int) -> str:
        """Return the shard and the key of a sample."""
        return f"{self._shown[self._shard(sample)]}/{readable(self.key(sample))}"

    def members(self, sample: int) -> dict[str, tuple[int, int]]:
        """Return the offset and the size of each member of a sample, by suffix."""
        suffixes = list(self._suffixes)
        places = self._places[self._ends[sample] : self._ends[sample + 1]].tolist()
        return {suffixes[suffix]: (offset, size) for suffix, offset, size in places}

    def path(self, sample: int) -> Path:
        return self.paths[self._shard(sample)]

    def read(self, sample: int, suffix: str) -> bytes:
        """Read a member.

        Raises:
            UnreadableImage: the shard is shorter than it was.
            InterpretError: the storage fails.
        """
        offset, size = self.members(sample)[suffix]
        path = self.path(sample)

        def read() -> bytes:
            with path.open("rb") as file:
                return _read_at(file, offset, size)

        return read_patiently(self.name(sample), read, path)

    def contents(self, sample: int) -> dict[str, Any]:
        """Read a whole sample as WebDataset gives it: its members by suffix, `__key__` and `__url__`."""
        read = {suffix: self.read(sample, suffix) for suffix in self.members(sample)}
        return {"__key__": self.key(sample), "__url__": str(self.path(sample)), **read}

    def identity(self) -> list[NDArray[Any]]:
        """Return what tells these samples from others: the shards' names, the keys, and the members' places."""
        names = ["\0".join(self._shown), *self._suffixes]
        shown = np.frombuffer("\0".join(names).encode(), np.uint8)
        keys = [array.numpy() for keys in self._keys for array in keys.arrays()]
        return [shown, *keys, self._firsts, self._ends, self._places]


def _samples(
    path: Path, select: Callable[[str], bool] | None, rename: Callable[[str], str] | None
) -> Iterator[dict[str, Any]]:
    """Yield the samples of a shard, with the offset and size of each member in place of its content."""
    from webdataset.tariterators import group_by_keys

    if not path.is_file():
        raise InterpretError(f"shard {str(path)!r} does not exist: name shards as in 'shards-{{000..009}}.tar'")
    try:
        with path.open("rb") as file:
            yield from group_by_keys(_files(path, file, select, rename))
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        if isinstance(error, InterpretError):
            raise
        why = error.args[0] if error.args else error  # webdataset adds the stream
        raise InterpretError(f"shard {str(path)!r} is damaged ({why}): make it again") from None


def _files(
    path: Path, file: BinaryIO, select: Callable[[str], bool] | None, rename: Callable[[str], str] | None
) -> Iterator[dict[str, Any]]:
    """Yield the files of a shard as `webdataset.tariterators.tar_file_iterator` does, which reads them all."""
    if file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
        raise InterpretError(
            f"shard {str(path)!r} is compressed, and hits are read by their place: unpack it to a .tar"
        )
    file.seek(0)
    length = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            vars(tar)["members"] = []  # it would remember all
            if not member.isreg() or member.issparse() or re.match(r"__[^/]*__($|/)", member.name):
                continue
            if member.offset_data + member.size > length:
                raise tarfile.ReadError("it ends within a member")
            name = member.name if rename is None else rename(member.name)
            if select is None or select(name):
                yield {"fname": name, "data": (member.offset_data, member.size), "__url__": str(path)}


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise OSError("its shard is shorter than it was")
    return content


def label_in(shards: Shards, sample: int) -> int:
    """Return a sample's label: the number in its member `cls`, or in its `json`; −1 if there is none."""
    from interpret.images.items import as_label

    members = shards.members(sample)
    for suffix in ("cls", "json"):
        if suffix in members and members[suffix][1] <= 2**16:
            content = shards.read(sample, suffix)
            try:
                label = as_label(json.loads(content))
            except ValueError:
                continue
            if label is not None:
                return label
    return -1
