"""Keep small pictures of a study's source images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from interpret.execution.ranks import State, ranks
from interpret.execution.resume import Unfinished, pack, unpack
from interpret.images.batches import Spans, most_readers, read_ahead
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.study.reader import source_picture_side
from interpret.support.checksums import KEY
from interpret.support.errors import InterpretError
from interpret.support.files import any_file, replacing, sync_files
from interpret.support.progress import progress

if TYPE_CHECKING:
    from interpret.study.study import Study

AT_ONCE = 16
"""Pictures that a process makes before it passes them on."""


def keep_source_pictures(study: Study, sources: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    """Keep a small picture of each of these sources, with its label; one that does not decode is noted and skipped.

    Of several ranks, each makes a share of the pictures, and rank 0 writes them.
    """
    _, data = study.to_compute()
    missing = ranks().once(lambda: _missing(study, sources))
    if not len(missing):
        return
    study.write_info()  # what lies in the folder is a study's
    label_of = labels[np.searchsorted(sources, missing)]
    own = ranks().share(len(missing))
    pictures = SmallPictures(data, missing[own], label_of[own], source_picture_side(len(np.unique(data.sources))))
    waiting: list[State] = []  # until another rank than the first sends it
    lists = study.source_lists
    new: dict[int, dict[str, Any]] = {}
    unreadable: dict[str, str] = {}

    def write(part: State) -> None:
        found = unpack(part["records"])
        unreadable.update(found["unreadable"])
        content, begin = part["pictures"].numpy(), 0
        for number, record in found["records"].items():
            source, size = int(number), record.pop("bytes")
            lists.begin(source)
            write_listed(lists.list_of(source).picture(source), content[begin : begin + size].tobytes())
            new[source] = record
            begin += size

    def state() -> State:
        for part in ranks().arriving(waiting):
            write(part)
        waiting.clear()
        # what is listed is on the disk
        sync_files([lists.list_of(source).picture(source) for source in new])
        lists.add(new)
        new.clear()
        return {}

    with progress(len(pictures), "keeping pictures", "picture") as bar:

        def update(part: State) -> None:
            write(part) if ranks().first else waiting.append(part)
            bar.update(sum(map(len, unpack(part["records"]).values())))

        Unfinished(None, {}).process(pictures.parts(study.workers), update, state)
    data.skipped.update(ranks().agreed(unreadable))
    study.note_skipped()


def _missing(study: Study, sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sources without a picture, but those that do not decode."""
    _, data = study.to_compute()
    skipped = study.info["data"]["skipped"]
    missing = study.source_lists.without_picture(sources)
    return missing[~data.are_named(missing, skipped)] if skipped else missing


class SmallPictures(Dataset[Any]):
    """Makes small pictures of some sources, in this process or in workers."""

    def __init__(self, data: Images, sources: NDArray[np.int64], labels: NDArray[np.int64], side: int) -> None:
        self.data, self.sources, self.labels, self.side = data, sources, labels, side

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, place: int) -> tuple[int, dict[str, Any], bytes] | InterpretError:
        source = int(self.sources[place])
        try:
            picture = self.data.source_picture(source).convert("RGB")
        except InterpretError as error:  # returned, as an exception would leave a worker altered
            return error.with_traceback(None)
        size = {"width": picture.width, "height": picture.height}
        picture.thumbnail((self.side, self.side))
        picture.info.clear()  # no comment or profile of the original is copied
        file = BytesIO()
        picture.save(file, "JPEG", quality=85, optimize=True)
        content = file.getvalue()
        record = {"name": self.data.source_name(source), **size, "label": int(self.labels[place])}
        record |= {"picture": list(picture.size), KEY: hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return source, record, content

    def parts(self, workers: int) -> Iterator[State]:
        """Yield the pictures of a few sources at a time, one after the other, with their records."""
        starts = np.arange(0, len(self), AT_ONCE)
        spans = np.stack([starts, np.minimum(starts + AT_ONCE, len(self))], 1)
        with closing(read_ahead(self, Spans(spans), most_readers(self.data, workers), _joined)) as arriving:
            for errors, part in arriving:
                for error in errors:
                    raise error
                yield part


def _joined(made: list[Any]) -> tuple[list[InterpretError], State]:
    """Return pictures and their records as tensors, and errors of the storage."""
    unreadable = {one.name: one.reason for one in made if isinstance(one, UnreadableImage)}
    errors = [one for one in made if isinstance(one, InterpretError) and not isinstance(one, UnreadableImage)]
    pictures = [one for one in made if not isinstance(one, InterpretError)]
    content = b"".join(one[2] for one in pictures)
    records = {str(source): record for source, record, _ in pictures}
    return errors, {
        "records": pack({"records": records, "unreadable": unreadable}),
        "pictures": torch.from_numpy(np.frombuffer(content, np.uint8).copy()),
    }


def write_listed(path: Path, content: bytes) -> None:
    """Write a picture that JSON lists with its checksum, so that it need not be on the disk before that is written."""
    if path.is_file() and path.read_bytes() == content:
        return
    with replacing(path, any_file, durable=False) as new:
        new.write_bytes(content)
