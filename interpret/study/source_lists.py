"""The lists of a study's source images, each of a thousand sources beside the folder of their small pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.support.checksums import DamagedFileError, read_json, sealed_json
from interpret.support.files import any_file, write_text

SOURCES_A_LIST = 1000
"""A million images have a thousand lists: to add some rewrites theirs alone, and no folder is large."""

Records = dict[int, dict[str, Any]]
"""What is known of sources, by number: name, width, height, label, size of the small picture, and its checksum."""


@dataclass(frozen=True)
class SourceList:
    """One list, `sources/12.json`, of the pictures `sources/12/12000.jpg` to `sources/12/12999.jpg`."""

    file: Path

    @property
    def folder(self) -> Path:
        return self.file.with_suffix("")

    def picture(self, source: int) -> Path:
        return self.folder / f"{source}.jpg"

    def read(self) -> Records:
        """Return its records, in the order of their numbers; none where there is no file.

        Raises:
            DamagedFileError: the file is not as it was written.
        """
        return read_records(self.file)

    def write(self, records: Records) -> None:
        listed = {str(source): records[source] for source in sorted(records)}
        write_text(self.file, sealed_json(listed, indent=0), any_file)

    def pictured(self) -> set[int]:
        """Return the sources whose picture is in the folder, listed or not."""
        try:
            with os.scandir(self.folder) as entries:
                return {int(entry.name[:-4]) for entry in entries if _is_picture(entry.name)}
        except (FileNotFoundError, NotADirectoryError):
            return set()


class SourceLists:
    """All lists of a study.

    Earlier versions wrote one list, `sources.json`, of pictures in `sources/` itself. Where a study has it, its sources
    stay in it.
    """

    def __init__(self, study: Path) -> None:
        self.study = study
        self._earlier = SourceList(study / "sources.json")
        self._in_earlier: set[int] | None = None

    def list_of(self, source: int) -> SourceList:
        """Return the list of a source, which need not have its record or its file."""
        if self._in_earlier is None:
            self._in_earlier = set(self._earlier.read()) | self._earlier.pictured()
        if source in self._in_earlier:
            return self._earlier
        return SourceList(self.study / "sources" / f"{source // SOURCES_A_LIST}.json")

    def __iter__(self) -> Iterator[SourceList]:
        """Yield the lists that have a file or a folder, in the order of their sources."""
        if self._earlier.file.exists() or self._earlier.pictured():
            yield self._earlier
        folder = self.study / "sources"
        names = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
        for number in sorted(int(name) for name in names if name.isdecimal()):
            one = SourceList(folder / f"{number}.json")
            if one.file.is_file() or one.folder.is_dir():
                yield one

    def records(self) -> Iterator[tuple[SourceList, Records]]:
        """Yield each list with its records."""
        for one in self:
            yield one, one.read()

    def without_picture(self, sources: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some sources that have no record, or no picture, in ascending order."""
        have = [
            np.fromiter(records.keys() & one.pictured(), np.int64) for one, records in self.records()
        ]  # fmt: skip
        return np.setdiff1d(sources, np.concatenate([np.zeros(0, np.int64), *have]))

    def begin(self, source: int) -> None:
        """Make the list of a source, before its picture is there: pictures without a list are damage."""
        one = self.list_of(source)
        if not one.file.exists():
            one.write({})

    def add(self, records: Mapping[int, dict[str, Any]]) -> None:
        """Add records to their lists, whose other records stay."""
        by_list: dict[SourceList, Records] = {}
        for source, record in records.items():
            by_list.setdefault(self.list_of(source), {})[source] = record
        for one, new in by_list.items():
            one.write(one.read() | new)


def read_records(file: Path) -> Records:
    """Read a JSON object whose keys are numbers, in their order; empty where there is no such file.

    Raises:
        DamagedFileError: the file is not as it was written.
    """
    if not file.exists():
        return {}
    found = read_json(file)
    if not isinstance(found, dict) or not all(key.isdecimal() for key in found):
        raise DamagedFileError(file, "its keys are no numbers")
    return {int(key): value for key, value in sorted(found.items(), key=lambda one: int(one[0]))}


def _is_picture(name: str) -> bool:
    return name.endswith(".jpg") and name[:-4].isdecimal()
