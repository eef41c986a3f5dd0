"""The feature index: a layer's features of all images, in memory or in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.neighbours.search import blocks
from interpret.execution.batch_size import default_batch_size
from interpret.execution.execution import Execution, prepared
from interpret.execution.resume import Unfinished, pack, unpack
from interpret.images.batches import Batch, batches, first_images, of_one_shape
from interpret.images.sources import Images
from interpret.network.forward import collect_outputs, refuse_other_type
from interpret.network.model import Model
from interpret.support.errors import InterpretError
from interpret.support.files import discard, layer_path
from interpret.support.progress import progress

INDEX_FILES = ("unfinished.safetensors", "all.npy", "features.npy", "items.npy", "index.json")
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
    parts = partial(_features, model, images, layer, average, batch_size, workers, device)
    if folder is None:
        found = list(parts(0))
        return FeatureIndex(np.concatenate([one for _, one in found]), np.concatenate([items for items, _ in found]))
    place = Path(folder) / (layer_path(layer) + (".average" if average else ""))
    if not place.exists():
        unfinished_folder = place.with_name(f"{place.name}.unfinished")
        unfinished = Unfinished(unfinished_folder / INDEX_FILES[0], about)
        state = unfinished.load()
        unfinished.refuse_others(INDEX_FILES)
        try:
            _write(unfinished_folder, parts, about, images, unfinished, state)
        except InterpretError:
            discard(unfinished_folder, INDEX_FILES)
            raise
        unfinished_folder.rename(place)
    return _open(place, about, images)


def _open(place: Path, about: Mapping[str, Any], images: Images) -> FeatureIndex:
    damaged = InterpretError(
        f"index {str(place)!r} is damaged or no feature index: delete it, or choose another folder"
    )
    try:
        kept = json.loads((place / "index.json").read_text("utf-8"))
        features, items = np.load(place / "features.npy", mmap_mode="r"), np.load(place / "items.npy")
    except (OSError, ValueError, EOFError):
        raise damaged from None
    if not isinstance(kept, dict) or features.ndim != 2 or len(features) != len(items):
        raise damaged
    for key, what in (("weights_hash", "weights"), ("fingerprint", "data"), ("items", "data")):
        if kept.get(key) != about[key]:
            raise InterpretError(f"index {str(place)!r} is of other {what}: choose another folder")
    images.skipped.update(kept.get("skipped", {}))
    return FeatureIndex(features, items)


def _write(
    folder: Path,
    parts: Callable[[int], Iterator[tuple[NDArray[np.int64], NDArray[Any]]]],
    about: Mapping[str, Any],
    images: Images,
    unfinished: Unfinished,
    state: Mapping[str, Tensor],
) -> None:
    """Write features as they arrive; at the end, shorten the array if images did not decode."""
    whole = folder / "all.npy"
    items: list[int] = []
    kept: Any = None
    if state and whole.exists():
        items, kept = state["items"].tolist(), np.load(whole, mmap_mode="r+")
        images.skipped.update(unpack(state["skipped"]))

    def append(part: tuple[NDArray[np.int64], NDArray[Any]]) -> None:
        nonlocal kept
        numbers, features = part
        if kept is None:
            unfinished.save(
                {"items": torch.tensor(items), "skipped": pack(images.skipped)}
            )  # marks the folder as written by this package
            shape = (about["items"], features.shape[1])
            kept = np.lib.format.open_memmap(whole, "w+", features.dtype, shape)
        kept[len(items) : len(items) + len(features)] = features
        items.extend(numbers.tolist())

    def state_dict() -> dict[str, Tensor]:
        if kept is None:
            return {}
        kept.flush()
        return {"items": torch.tensor(items), "skipped": pack(images.skipped)}

    unfinished.process(parts(items[-1] + 1 if items else 0), append, state_dict)
    if len(items) == about["items"]:
        whole.rename(folder / "features.npy")
    else:  # some images did not decode
        shorter = np.lib.format.open_memmap(folder / "features.npy", "w+", kept.dtype, (len(items), kept.shape[1]))
        for rows in blocks(shorter):
            shorter[rows] = kept[rows]
        shorter.flush()
        whole.unlink()
    np.save(folder / "items.npy", np.array(items))
    index = {**about, "skipped": images.skipped}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    unfinished.forget()


def _features(
    model: Model,
    images: Images,
    layer: str,
    average: bool,
    batch_size: int | None,
    workers: int,
    device: str | torch.device | None,
    start: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Yield items [b] from `start` on and their features [b, D], batch by batch."""
    first = first_images(images)
    refuse_other_type(model.module, first)
    with (
        prepared(model, first, device, [layer]) as run,
        progress(len(images), "indexing", "img", start) as bar,
    ):
        run.dry_run.refuse_unbatched(layer)
        size = default_batch_size(images, run.device) if batch_size is None else batch_size
        arriving = of_one_shape(batches(images, size, workers, start), run.input_shape)
        jobs = (partial(_batch_features, batch=batch, run=run, layer=layer, average=average) for batch in arriving)
        for items, features in run.side_by_side(jobs):
            bar.update(len(items))
            yield items, features


def _batch_features(
    module: nn.Module, batch: Batch, run: Execution, layer: str, average: bool
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Run a batch and return its items [b] and their features [b, D]."""
    refuse_other_type(module, batch.images)
    with torch.inference_mode():
        output = collect_outputs(module, run.place(batch.images), [layer])[layer]
        features = (output.flatten(2).mean(2) if average and output.dim() > 2 else output).flatten(1)
    # NumPy has no bfloat16
    return batch.items.numpy(), (features.float() if features.dtype is torch.bfloat16 else features).cpu().numpy()
