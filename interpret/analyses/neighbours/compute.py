"""Neighbours: the images that lie nearest to others in the space of a layer's features."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.neighbours.result import Neighbours
from interpret.analyses.predictions.compute import PICTURES
from interpret.execution.batch_size import default_batch_size
from interpret.execution.execution import Execution, prepared
from interpret.execution.resume import Unfinished, pack, unpack
from interpret.images.batches import Batch, batches, first_images
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import check_items
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import WITH_UNITS, first_outputs
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, unknown
from interpret.support.files import discard
from interpret.support.progress import progress
from interpret.tracing.tracing import trace

Metric = Literal["euclidean", "cosine"]

BLOCK = 2**26
"""Bytes of features that are compared at once."""
OF_AN_INDEX = ("unfinished.safetensors", "all.npy", "features.npy", "items.npy", "index.json")
"""What lies in the folder of an index while it is written."""
QUERIES_AT_ONCE = 2**26
"""Distances that are held at once."""


def find_neighbours(
    model: Model | nn.Module,
    queries: Any,
    data: Any,
    layer: str | None = None,
    k: int = 6,
    *,
    metric: Metric = "euclidean",
    average: bool = False,
    index: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
) -> Neighbours:
    """Find for each query the k images whose features at a layer are nearest to its own.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    >>> images = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> found = find_neighbours(network, [3, 8], images, k=2)
    >>> found.layer, found.items.shape, bool((found.items[0] != 3).all())
    ('2', (2, 2), True)

    The search is exact: each query is compared with every image, in double precision. Neighbours come from distinct
    sources (photographs), and not from the query's own where the query is an item of the data; where distances tie, the
    lowest item comes first.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        queries: items of the data, by number; or images of one's own, as `interpret.open_images` takes them.
        data: the images that are searched.
        layer: whose features, by name; None: the last hidden layer, which is the layer that runs before the last
            convolution or linear layer.
        k: how many neighbours.
        metric: "euclidean", or "cosine" (1 − cos; of features that are all zero, 1 to all others).
        average: whether features of maps are averaged over positions, so that it does not matter where in the image a
            thing lies, and the index is smaller by as much.
        index: a folder in which the features are kept, memory-mapped, for the next search, such as
            `study.path / "features"`; None: they are computed, and held in memory.
        batch_size, workers, device: how the network runs; see `interpret` and, for workers, `interpret.mine`.

    Returns:
        `Neighbours`, to be drawn by `interpret.results.plotting.plot`.

    Raises:
        InterpretError: fewer images than neighbours asked for, an unknown layer or metric, a query that the data does
            not have, an index of other weights or data.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    section 6.1 and Fig. 4 (right): six training images whose "feature vectors in the last hidden layer" have the
    smallest Euclidean distance to a test image's. Whether before or after rectification it does not say; here it is
    what the last layer receives.
    """
    model = as_model(model)
    images = open_images(data, model)
    if metric not in get_args(Metric):
        raise unknown("metric", metric, get_args(Metric))
    if k < 1:
        raise InterpretError(f"k must be at least 1, not {k}")
    own = _items(queries)
    if own is not None:
        check_items("queries", own, images)
    _check_count(k, len(np.unique(images.sources)), own, images)
    layer = layer_of(model, images, layer)
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    features = index_features(model, images, layer, average, index, **how)
    _check_count(k, len(np.unique(images.sources[features.items])), own, images)

    if own is not None:
        asked, shown_of, shown = features.rows_of(own, images), own, images
    else:
        shown = open_images(queries, model)
        of_queries = index_features(model, shown, layer, average, None, **how)
        asked, shown_of = np.array(of_queries.features), of_queries.items.tolist()
        if asked.shape[1] != features.features.shape[1]:
            raise InterpretError(
                f"queries have {asked.shape[1]} features at layer {layer!r} and the data's images "
                f"{features.features.shape[1]}: give images of one size, or average=True"
            )
    sources = images.sources[features.items]
    excluded = None if own is None else images.sources[own]
    rows, distances = nearest(features.features, asked, k, metric, sources, excluded)
    items = features.items[rows]

    def pictures(of: Images, wanted: Sequence[int]) -> NDArray[np.uint8]:
        return inputs_to_bytes(torch.stack([of[item][0] for item in wanted]), images.pixel_scale)

    near = pictures(images, items[:PICTURES].ravel().tolist())
    classes = images.classes
    return Neighbours(
        model=model.name,
        data=images.name,
        shown=images.pixel_scale.said,
        searched=len(features.items),
        layer=layer,
        averaged=average,
        metric=metric,
        query_names=[shown.source_name(int(shown.sources[item])) for item in shown_of],
        query_pictures=pictures(shown, shown_of[:PICTURES]),
        query_labels=_same_classes(shown, images)[shown_of],
        items=items,
        distances=distances,
        pictures=near.reshape(-1, k, *near.shape[1:]),
        names=[[images.source_name(int(images.sources[item])) for item in row] for row in items.tolist()],
        labels=images.labels[items],
        classes=None if classes is None else list(classes),
    )


def _items(queries: Any) -> list[int] | None:
    """Return queries that are numbers of items; None for images."""
    if isinstance(queries, np.ndarray) and queries.ndim == 1 and queries.dtype.kind in "iu":
        queries = queries.tolist()
    if isinstance(queries, list | tuple | range) and all(isinstance(query, int) for query in queries):
        return list(queries)
    return None


def _check_count(k: int, sources: int, own: list[int] | None, images: Images) -> None:
    others = sources - (own is not None)
    if others < k:
        raise InterpretError(
            f"k={k} neighbours need as many images of distinct sources, and data {images.name!r} has {others}"
            f"{' beside the query' if own is not None else ''}: ask for fewer, or give more images"
        )


def _same_classes(queries: Images, images: Images) -> NDArray[np.int64]:
    """Return the queries' labels where they stand for what the data's do."""
    return queries.labels if queries.classes == images.classes else np.full(len(queries), -1, np.int64)


def layer_of(model: Model, images: Images, layer: str | None) -> str:
    """Return the layer's name; of None, the one that runs before the last convolution or linear layer."""
    shape = next(batches(images, 1)).images.shape[1:]
    traced = trace(model, tuple(shape))
    if layer is not None:
        if layer not in traced:
            raise unknown("layer", layer, traced)
        return layer
    leaves = [name for name, one in traced.items() if one.leaf and one.batched]
    with_units = [n for n, name in enumerate(leaves) if isinstance(model.module.get_submodule(name), WITH_UNITS)]
    if not with_units or with_units[-1] == 0:
        raise InterpretError(f"model {model.name!r} has no hidden layer that could be found: name one with layer=...")
    return leaves[with_units[-1] - 1]


# ---- the index -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureIndex:
    """A layer's features of all images that decode."""

    features: NDArray[Any]
    """[M, D] as the network gives them; a memory map where they are kept in a folder."""
    items: NDArray[np.int64]
    """[M] the items of the data, ascending."""

    def rows_of(self, items: list[int], images: Images) -> NDArray[Any]:
        """Return the features of some items, [n, D]."""
        rows = np.searchsorted(self.items, items)
        for item, row in zip(items, rows.tolist(), strict=True):
            if row == len(self.items) or self.items[row] != item:
                images[item]  # says why it does not decode
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
    """Return a layer's features of all images, from a folder if they are there, and kept in it otherwise.

    >>> import tempfile
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    >>> images = open_images(torch.rand(5, 1, 3, 3), network)
    >>> kept = tempfile.mkdtemp() + "/features"
    >>> index_features(as_model(network), images, "1", folder=kept).features.shape
    (5, 4)
    >>> [path.name for path in sorted(Path(kept, "1").iterdir())]
    ['features.npy', 'index.json', 'items.npy']

    An index is a folder of its own, named after the layer, that appears whole or not at all: `features.npy` [M, D],
    `items.npy` [M], and `index.json`, which says of what weights and data it is. What is done of one lies beside it in
    a folder whose name ends in ".unfinished", from which the same call goes on after an interrupt.

    Raises:
        InterpretError: an index of other weights or data, a layer that returns no tensor, images of several shapes.
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
    from interpret.support.files import layer_path

    place = Path(folder) / (layer_path(layer) + (".average" if average else ""))
    if not place.exists():
        begun = place.with_name(f"{place.name}.unfinished")
        unfinished = Unfinished(begun / OF_AN_INDEX[0], about)
        state = unfinished.load()
        unfinished.refuse_others(OF_AN_INDEX)
        try:
            _write(begun, parts, about, images, unfinished, state)
        except InterpretError:
            discard(begun, OF_AN_INDEX)
            raise
        begun.rename(place)
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
    begun: Mapping[str, Tensor],
) -> None:
    """Write features as they come, to an array whose length is known when the last has come."""
    whole = folder / "all.npy"
    items: list[int] = []
    kept: Any = None
    if begun and whole.exists():
        items, kept = begun["items"].tolist(), np.load(whole, mmap_mode="r+")
        images.skipped.update(unpack(begun["skipped"]))

    def take(part: tuple[NDArray[np.int64], NDArray[Any]]) -> None:
        nonlocal kept
        numbers, features = part
        if kept is None:
            unfinished.save(
                {"items": torch.tensor(items), "skipped": pack(images.skipped)}
            )  # from now on, the folder is known to be its own
            shape = (about["items"], features.shape[1])
            kept = np.lib.format.open_memmap(whole, "w+", features.dtype, shape)
        kept[len(items) : len(items) + len(features)] = features
        items.extend(numbers.tolist())

    def state() -> dict[str, Tensor]:
        if kept is None:
            return {}
        kept.flush()
        return {"items": torch.tensor(items), "skipped": pack(images.skipped)}

    unfinished.take_all(parts(items[-1] + 1 if items else 0), take, state)
    if len(items) == about["items"]:
        whole.rename(folder / "features.npy")
    else:  # some did not decode
        shorter = np.lib.format.open_memmap(folder / "features.npy", "w+", kept.dtype, (len(items), kept.shape[1]))
        for rows in _blocks(shorter):
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

    def features(module: nn.Module, batch: Batch, run: Execution) -> tuple[NDArray[np.int64], NDArray[Any]]:
        found: list[Tensor] = []

        def receive(_name: str, output: Tensor) -> None:
            if average and output.dim() > 2:
                output = output.flatten(2).mean(2)
            found.append(output.flatten(1).clone())  # what comes after may rectify it in place

        with torch.inference_mode(), first_outputs(module, [layer], receive, stop=True, count=len(batch.items)):
            call_network(module, run.place(batch.images))
        known = found[0].float() if found[0].dtype is torch.bfloat16 else found[0]  # NumPy has no such type
        return batch.items.numpy(), known.cpu().numpy()

    first = first_images(images)
    refuse_other_type(model.module, first)
    with (
        prepared(model, first, device, [layer]) as run,
        progress(len(images), "indexing", "img", start) as bar,
    ):
        run.dry_run.refuse_unbatched(layer)
        size = default_batch_size(images, run.device) if batch_size is None else batch_size
        arriving = batches(images, size, workers, start)

        def jobs() -> Iterator[Any]:
            width = None
            for batch in arriving:
                refuse_other_type(model.module, batch.images)
                shape = tuple(batch.images.shape[1:])
                if width not in (None, shape):
                    raise InterpretError(f"images of one data set must have one shape, not {width} and {shape}")
                width = shape
                yield partial(features, batch=batch, run=run)

        for items, values in run.side_by_side(jobs()):
            bar.update(len(items))
            yield items, values


# ---- the search ------------------------------------------------------------------------------------------------------


def nearest(
    features: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    metric: Metric = "euclidean",
    sources: NDArray[np.int64] | None = None,
    excluded: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of the k nearest features of each query and their distances, both [Q, k], nearest first.

    >>> nearest(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 0.0]]), k=2)
    (array([[0, 2]]), array([[0., 1.]]))

    A matrix product tells, but for rounding, how far all rows are; of those that may be among the nearest, however it
    rounded, the distance is then taken difference by difference. So the result is that of brute force.

    Args:
        features: [M, D], which may be a memory map: it is read in blocks.
        queries: [Q, D].
        k: at most as many as there are sources.
        metric: "euclidean" or "cosine".
        sources: [M] of which each query gets at most one row; None: every row is one.
        excluded: [Q] a source that a query does not get.
    """
    sources = np.arange(len(features)) if sources is None else sources
    at_once = max(1, QUERIES_AT_ONCE // len(features))
    rows, distances = [], []
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once].astype(np.float64)
        about, rounding = _about(features, some, metric)
        for number, (query, far) in enumerate(zip(some, about, strict=True)):
            if excluded is not None:
                far[sources == excluded[start + number]] = np.inf
            found = _best(features, query, far, rounding[number], k, metric, sources)
            rows.append(found[0])
            distances.append(found[1])
    return np.stack(rows), np.stack(distances)


def _about(
    features: NDArray[Any], queries: NDArray[np.float64], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return squared Euclidean distances, or cosine distances, [Q, M], and how far rounding may put each off, [Q]."""
    about = np.empty((len(queries), len(features)))
    if metric == "cosine":
        queries = _unit(queries)
    squares, largest = (queries**2).sum(1), 0.0
    for rows in _blocks(features):
        block = features[rows].astype(np.float64)
        if metric == "cosine":
            about[:, rows] = 1 - queries @ _unit(block).T
        else:
            lengths = (block**2).sum(1)
            about[:, rows] = squares[:, None] + lengths - 2 * (queries @ block.T)
            largest = max(largest, float(lengths.max()))
    size = np.ones(len(queries)) if metric == "cosine" else squares + largest
    return about, 4 * (features.shape[1] + 4) * np.finfo(np.float64).eps * size


def _best(
    features: NDArray[Any],
    query: NDArray[np.float64],
    about: NDArray[np.float64],
    rounding: float,
    k: int,
    metric: str,
    sources: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest rows of distinct sources, and their distances."""
    order = np.argsort(about, kind="stable")
    firsts = np.sort(np.unique(sources[order], return_index=True)[1])
    limit = about[order[firsts[k - 1]]] + 2 * rounding
    rows = np.flatnonzero(about <= limit)
    exact = np.concatenate(
        [_distances(features[rows[part]].astype(np.float64), query, metric) for part in _blocks(features, len(rows))]
    )
    order = np.lexsort((rows, exact))
    firsts = np.sort(np.unique(sources[rows[order]], return_index=True)[1])[:k]
    return rows[order[firsts]].astype(np.int64), exact[order[firsts]]


def _distances(features: NDArray[np.float64], query: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Return the distances of features [n, D] to a query [D], difference by difference."""
    if metric == "euclidean":
        distances: NDArray[np.float64] = np.sqrt(((features - query) ** 2).sum(1))
        return distances
    # half the squared distance of the unit vectors is 1 − cos, and exact where that is nearly 0
    far = ((_unit(features) - _unit(query[None])) ** 2).sum(1) / 2
    return np.where(features.any(1) & query.any(), far, 1.0)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors [n, D] of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _blocks(features: NDArray[Any], count: int | None = None) -> Iterator[slice]:
    """Yield parts of `count` rows that are as large as may be held at once in double precision."""
    size = max(1, BLOCK // (8 * features.shape[1]))
    count = len(features) if count is None else count
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
