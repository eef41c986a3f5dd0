"""The feature index: a layer's features of all images, in memory or in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.neighbours.search import blocks
from interpret.execution.execution import Execution, prepared
from interpret.execution.ranks import State, ranks
from interpret.execution.reading import Reading, done_in, learn, merge_read
from interpret.execution.resume import Unfinished
from interpret.images.batches import Batch, first_images, of_one_shape
from interpret.images.sources import Images
from interpret.network.forward import collect_outputs, refuse_other_type
from interpret.network.model import Model
from interpret.support.checksums import DamagedFileError, read_json, sealed_json
from interpret.support.errors import InterpretError, warn
from interpret.support.files import discard, layer_path, move_to_free, sync, sync_folder
from interpret.support.manifest import digest

STATE, ALL = "unfinished.safetensors", "all.npy"
"""The files that an index no longer has: the state of unfinished work, and the features of all images."""
INDEX_FILES = (STATE, ALL, "features.npy", "items.npy", "index.json")
"""The files in the folder of an index while it is written."""


@dataclass(frozen=True)
class FeatureIndex:
    """A layer's features of all images that decode."""

    features: NDArray[Any]
    """[M, D] the layer's outputs; a memory map if they are kept in a folder."""
    items: NDArray[np.int64]
    """[M] the items of the data, ascending."""

    def rows_of(self, items: list[int], images: Images) -> NDArray[Any]:
        """Return the features of some items, [n, D]."""
        rows = np.searchsorted(self.items, items)
        for item, row in zip(items, rows.tolist(), strict=True):
            if row == len(self.items) or self.items[row] != item:
                images[item]  # raises the reason why it does not decode
        return np.array(self.features[rows])


def index_features(
    model: Model,
    images: Images,
    layer: str,
    average: bool = False,
    folder: str | os.PathLike[str] | None = None,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
) -> FeatureIndex:
    """Return a layer's features of all images; read them from a folder if it has them, or else store them there.

    >>> import tempfile
    >>> from interpret.images.opening import open_images
    >>> from interpret.network.model import as_model
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    >>> images = open_images(torch.rand(5, 1, 3, 3), network)
    >>> kept = tempfile.mkdtemp() + "/features"
    >>> index_features(as_model(network), images, "1", folder=kept).features.shape
    (5, 4)
    >>> [path.name for path in sorted(Path(kept, "1").iterdir())]
    ['features.npy', 'index.json', 'items.npy']

    An index is a folder named after the layer, with `features.npy` [M, D], `items.npy` [M], and `index.json`, which
    identifies the weights and the data. It is written completely or not at all: an unfinished index is in a folder next
    to it whose name ends in ".unfinished", from which the same call resumes after an interrupt.

    Raises:
        InterpretError: an index of other weights or data; a layer that does not return a tensor; images of different
            shapes.
    """
    about = {
        "weights_hash": model.weights_hash,
        "fingerprint": images.fingerprint,
        "layer": layer,
        "average": average,
        "items": len(images),
    }
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    if folder is None:
        rows, items = _index(model, images, layer, average, Unfinished(None, {}), {}, None, **how)
        return ranks().once(lambda: FeatureIndex(rows.of(items), items))
    place = Path(folder) / (layer_path(layer) + (".average" if average else ""))
    checked = ranks().once(lambda: _check(place)) and ranks().first
    if ranks().once(lambda: not place.exists()):
        unfinished_folder = place.with_name(f"{place.name}.unfinished")
        if not ranks().once(lambda: _is_finished(unfinished_folder, about)):
            unfinished = Unfinished(unfinished_folder / STATE, about | {"format": 3})  # of the state
            before: dict[str, Tensor] = {}
            if ranks().first:
                before = unfinished.load()
                unfinished.refuse_others(INDEX_FILES)
            file = unfinished_folder / ALL
            try:
                _, items = _index(model, images, layer, average, unfinished, before, file, **how)
            except InterpretError:
                if ranks().first:
                    discard(unfinished_folder, INDEX_FILES)
                raise
            ranks().once(lambda: _finish(unfinished_folder, items, about, images))
        ranks().once(lambda: _publish(unfinished_folder, place))
    return _open(place, about, images, checked)


def _check(place: Path) -> bool:
    """Return whether there is an index that is whole; move one aside that is damaged, to compute it again, and say so.

    A folder that is not this program's is left to `_open`.
    """
    if not place.is_dir() or place.is_symlink():
        return False
    files = list(place.iterdir())
    if len(files) < 2 or not all(one.name in INDEX_FILES and one.is_file() and not one.is_symlink() for one in files):
        return False
    try:
        _read(place)
    except DamagedFileError as error:
        moved = move_to_free(place, place.with_name(f"{place.name}.damaged"))
        warn(f"{error}: it is computed again, and is now {str(moved)!r}")
        return False
    discard(place, (ALL, STATE))  # of a process that was killed as it removed them
    return True


def _read(place: Path, checked: bool = False) -> tuple[dict[str, Any], NDArray[Any], NDArray[np.int64]]:
    """Return what an index says, its features and its items; read all of it for their checksums, unless checked.

    Raises:
        DamagedFileError: it is not as it was written.
    """
    try:
        kept = read_json(place / "index.json")
        for name in ("features.npy", "items.npy"):
            if not (place / name).is_file():
                raise DamagedFileError(place / name, "it is no file")
        features, items = np.load(place / "features.npy", mmap_mode="r"), np.load(place / "items.npy")
    except (OSError, ValueError, EOFError) as error:
        raise DamagedFileError(place, str(error)) from None
    if not isinstance(kept, dict) or features.ndim != 2 or len(features) != len(items):
        raise DamagedFileError(place, "its parts do not fit")
    # an index of an earlier version has no checksums
    for name, checksum in () if checked else kept.get("checksums", {}).items():
        if digest(place / name) != checksum:
            raise DamagedFileError(place / name)
    return kept, features, items


def _open(place: Path, about: Mapping[str, Any], images: Images, checked: bool) -> FeatureIndex:
    try:
        kept, features, items = _read(place, checked)
    except DamagedFileError:
        raise InterpretError(
            f"index {str(place)!r} is damaged or no feature index: delete it, or choose another folder"
        ) from None
    for key, what in (("weights_hash", "weights"), ("fingerprint", "data"), ("items", "data")):
        if kept.get(key) != about[key]:
            raise InterpretError(f"index {str(place)!r} is of other {what}: choose another folder")
    images.skipped.update(kept.get("skipped", {}))
    return FeatureIndex(features, items)


_Part = tuple[NDArray[np.int64], NDArray[Any]]
"""Items [b] and their features [b, D]."""


class _Rows:
    """The features of all items, [N, D], as they arrive: in memory, or in a file."""

    def __init__(self, count: int, file: Path | None, before_writing: Callable[[], object]) -> None:
        self.count, self.file = count, file
        self._before_writing = before_writing
        self.values: NDArray[Any] | None = None
        if file is not None and file.is_file():
            with suppress(ValueError, EOFError):  # a full disk, or a kill, left its start alone
                self.values = np.load(file, mmap_mode="r")

    def add(self, items: NDArray[np.int64], features: NDArray[Any]) -> None:
        if self.values is None:
            shape = (self.count, features.shape[1])
            if self.file is None:
                self.values = np.empty(shape, features.dtype)
            else:
                self._before_writing()
                self.values = np.lib.format.open_memmap(self.file, "w+", features.dtype, shape)
        if self.file is None:
            self.values[items] = features
            return
        size = features.shape[1] * features.itemsize
        with self.file.open("r+b") as opened:  # not the memory map, through which a full disk kills the process
            begin = opened.seek(0, os.SEEK_END) - self.count * size
            for item, row in zip(items.tolist(), features, strict=True):
                opened.seek(begin + item * size)
                opened.write(row.tobytes())

    def flush(self) -> None:
        if self.file is not None and self.file.is_file():
            sync(self.file)

    def of(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Return the features of some items, ascending."""
        assert self.values is not None
        return self.values if len(items) == self.count else self.values[items]


def _index(
    model: Model,
    images: Images,
    layer: str,
    average: bool,
    unfinished: Unfinished,
    before: Mapping[str, Tensor],
    file: Path | None,
    *,
    batch_size: int | None,
    workers: int,
    device: str | torch.device | None,
) -> tuple[_Rows, NDArray[np.int64]]:
    """Return on rank 0 the features of all items, in memory or in a file, and the items that decode."""
    rows = _Rows(len(images), file if ranks().first else None, lambda: unfinished.save({"begun": torch.ones(1)}))
    if rows.values is None or "read/done" not in before:
        before, rows.values = {}, None
    first = first_images(images)
    refuse_other_type(model.module, first)
    with prepared(model, first, device, [layer]) as run:
        run.dry_run.refuse_unbatched(layer)
        size = run.batch_size(batch_size)
        reading = Reading(images, size, ranks().agreed(done_in(before)))
        items: list[NDArray[np.int64]] = []
        waiting: list[State] = []  # until another rank than the first sends it

        def update(part: _Part) -> None:
            if ranks().first:
                rows.add(*part)
            else:
                waiting.append({"items": torch.from_numpy(part[0]), "features": torch.from_numpy(part[1])})
            items.append(part[0])
            reading.reach(int(part[0][0]))
            bar.update(len(part[0]))

        def state() -> dict[str, Tensor]:
            for part in ranks().arriving(waiting):
                rows.add(part["items"].numpy(), part["features"].numpy())
            waiting.clear()
            rows.flush()
            numbers = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *items]))
            own = reading.state_dict() | {"items": numbers} if len(reading.done) else {}
            return _merge(before, ranks().reduced(own, _merge))

        with reading.progress("indexing") as bar:
            arriving = of_one_shape(reading.batches(workers), run.input_shape)
            jobs = (partial(_batch_features, batch=batch, run=run, layer=layer, average=average) for batch in arriving)
            found = unfinished.process(reading.to_the_end(run.side_by_side(jobs)), update, state)
    learn(images, found)
    return rows, found["items"].numpy() if found else np.zeros(0, np.int64)


def _merge(first: State, second: State) -> dict[str, Tensor]:
    """Merge the states of two ranks."""
    if not first or not second:
        return dict(first or second)
    return merge_read(first, second) | {"items": torch.cat([first["items"], second["items"]]).sort().values}


def _finish(folder: Path, items: NDArray[np.int64], about: Mapping[str, Any], images: Images) -> None:
    """Make an index of what was written: without rows for images that did not decode.

    Until the index is whole, all rows and the state stay, from which a killed process goes on.
    """
    whole, features = folder / ALL, folder / "features.npy"
    complete = len(items) == about["items"]
    if not complete:
        kept = np.load(whole, mmap_mode="r")
        with features.open("wb") as opened:
            np.lib.format.write_array_header_1_0(
                opened,
                {
                    "descr": np.lib.format.dtype_to_descr(kept.dtype),
                    "fortran_order": False,
                    "shape": (len(items), kept.shape[1]),
                },
            )
            for rows in blocks(kept, len(items)):
                opened.write(kept[items[rows]].tobytes())
    np.save(folder / "items.npy", items)
    checksums = {"features.npy": digest(whole if complete else features), "items.npy": digest(folder / "items.npy")}
    index = {**about, "skipped": images.skipped, "checksums": checksums}
    (folder / "index.json").write_text(sealed_json(index, indent=1), encoding="utf-8")
    if complete:
        whole.replace(features)


def _is_finished(folder: Path, about: Mapping[str, Any]) -> bool:
    """Return whether an unfinished folder holds a whole index, whose process was killed before it was published."""
    if not (folder / STATE).is_file() or not (folder / "index.json").is_file():
        return False
    try:
        kept, _, _ = _read(folder)
    except DamagedFileError:
        return False
    return all(kept.get(key) == value for key, value in about.items())


def _publish(folder: Path, place: Path) -> None:
    """Move a whole index to its place, and only then remove the state."""
    sync(folder)
    folder.rename(place)
    sync_folder(place.parent)
    discard(place, (ALL, STATE))


def _batch_features(
    module: nn.Module, batch: Batch, run: Execution, layer: str, average: bool
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Run a batch and return its items [b] and their features [b, D]."""
    refuse_other_type(module, batch.images)
    with torch.inference_mode():
        output = collect_outputs(module, run.place(batch.images), [layer])[layer]
        features = (output.flatten(2).mean(2) if average and output.dim() > 2 else output).flatten(1)
    bad = ~features.isfinite().all(1)
    if bool(bad.any()):
        raise InterpretError(
            f"layer {layer!r} gives NaN or infinity on image {int(batch.items[int(bad.nonzero()[0])])}: check the "
            "weights, or leave the image out"
        )
    # NumPy has no bfloat16
    return batch.items.numpy(), (features.float() if features.dtype is torch.bfloat16 else features).cpu().numpy()
