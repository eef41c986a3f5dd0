"""Images in the shards of WebDataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from interpret.images.fingerprints import hash_arrays
from interpret.images.folder import Decoded, Decoding, decode, extensions, size_of
from interpret.images.items import IMAGE_KEYS
from interpret.images.listing import LeftOut
from interpret.images.picture_images import PictureImages
from interpret.images.shards import Shards, label_in, local_paths
from interpret.images.storage import UnreadableImage, read_patiently
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError
from interpret.support.progress import progress


class ShardImages(PictureImages):
    """The pictures of shards, with the labels in their members `cls` or `json`; a source is a shard and a key."""

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        classes: tuple[str, ...] | None,
        preprocess: Preprocess,
        scales: tuple[int, ...] | None,
        decoding: Decoding,
    ) -> None:
        self.shards = Shards(paths)
        found = [_picture(list(self.shards.members(sample))) for sample in range(len(self.shards))]
        self._samples = np.array([sample for sample, suffix in enumerate(found) if suffix], np.int64)
        """int64: the sample of each source."""
        self._suffixes = [suffix for suffix in found if suffix]
        with progress(len(self._samples), "reading labels", "sample") as bar:
            labels = np.full(len(self._samples), -1, np.int64)
            for source, sample in enumerate(self._samples.tolist()):
                labels[source] = label_in(self.shards, sample)
                bar.update()
        if classes is not None and len(labels) and labels.max() >= len(classes):
            classes = None
        super().__init__(name, labels, classes, preprocess, scales, decoding)
        if without := [sample for sample, suffix in enumerate(found) if not suffix]:
            self.left_out = {"sample without an image": LeftOut(len(without), self.shards.name(without[0]))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the shards' names, the places of their members, the preprocessing and the tiles."""
        return hash_arrays(self.shards.identity(), self._cutting())

    def source_name(self, source: int) -> str:
        return f"{self.shards.name(int(self._samples[source]))}.{self._suffixes[source]}"

    def _content(self, source: int) -> BytesIO:
        return BytesIO(self.shards.read(int(self._samples[source]), self._suffixes[source]))

    def _read(self, source: int, whole: bool) -> Decoded:
        content, needed = self._content(source), None if whole else self._needed
        return read_patiently(self.source_name(source), lambda: decode(content, self.decoding, needed))

    def _size(self, source: int) -> tuple[int, int]:
        content = self._content(source)
        return read_patiently(self.source_name(source), lambda: size_of(content))


def _picture(suffixes: Sequence[str]) -> str:
    """Return the suffix of a sample's image, the likeliest first; "" if it has none.

    >>> _picture(["seg.png", "jpg", "cls"]), _picture(["image.png", "mask.png"]), _picture(["txt"])
    ('jpg', 'image.png', '')
    """
    images = [suffix for suffix in suffixes if f".{suffix.rpartition('.')[2]}" in extensions()]

    def rank(suffix: str) -> tuple[int, int]:
        first = suffix.partition(".")[0]
        return suffix.count("."), IMAGE_KEYS.index(first) if first in IMAGE_KEYS else len(IMAGE_KEYS)

    return min(images, key=rank, default="")


class ShardSamples(Dataset[Any]):
    """The items of a `webdataset.WebDataset` by number: its samples, passed through its steps one by one.

    Raises:
        InterpretError: a step that does not treat each sample by itself.
    """

    def __init__(self, pipeline: Any) -> None:
        from webdataset import shardlists

        stages = list(pipeline.pipeline)
        shards = stages[0]
        if not isinstance(shards, shardlists.SimpleShardList):
            raise InterpretError(
                f"data is a {type(pipeline).__name__} of a {type(shards).__name__}, whose samples have no order: "
                "give one of a list of shards"
            )
        by_name = {_name(stage): place for place, stage in enumerate(stages)}
        if "group_by_keys" not in by_name:
            raise InterpretError(
                f"data is a {type(pipeline).__name__} without the step group_by_keys: make it with WebDataset(…)"
            )
        opened = stages[by_name["tar_file_expander"]].kw if "tar_file_expander" in by_name else {}
        self.shards = Shards(local_paths(shards.urls), opened.get("select_files"), opened.get("rename_files"))
        self.notes: list[str] = []
        self._steps = []
        ignored = [stage for stage in stages[: by_name["group_by_keys"]] if _shuffles(stage)]
        for stage in stages[by_name["group_by_keys"] + 1 :]:
            name = _name(stage)
            if name in _ONE_BY_ONE:
                self._steps.append(stage)
            elif name in _OF_THE_STREAM:
                ignored.append(stage)
            elif name != "check_empty":
                raise InterpretError(
                    f"data is a {type(pipeline).__name__} whose step {name!r} does not treat each sample by itself, "
                    "and hits are read again one by one: leave it out, or do the same with .map(…)"
                )
        if ignored:
            names = ", ".join(dict.fromkeys(_name(stage) for stage in ignored))
            self.notes.append(
                f"the WebDataset's {names} is not used: items come one by one, in the order of the shards"
            )

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, item: int) -> Any:
        found: Any = iter([self.shards.contents(item)])
        for step in self._steps:
            found = step(found)
        made = list(found)
        if len(made) != 1:
            what = "leave it out" if not made else f"make {len(made)} items of it"
            raise UnreadableImage(self.source_name(item), f"the steps of the WebDataset {what}")
        return made[0]

    def source_name(self, item: int) -> str:
        return self.shards.name(item)

    @property
    def identity(self) -> bytes:
        return hashlib.sha256(hash_arrays(self.shards.identity()).encode()).digest()


_ONE_BY_ONE = frozenset(
    "map decode xdecode to_tuple map_tuple map_dict rename rename_keys extract_keys select log_keys info".split()
)
_OF_THE_STREAM = frozenset(("shuffle", "detshuffle", "batched", "unbatched", "listed", "unlisted"))


def _name(stage: Any) -> str:
    """Return the name of a step of a WebDataset."""
    function = getattr(stage, "f", stage)
    return str(getattr(function, "__name__", type(function).__name__)).lstrip("_")


def _shuffles(stage: Any) -> bool:
    return "shuffle" in _name(stage) and bool(getattr(stage, "args", None)) and bool(stage.args[0])
