"""Neighbours: find the nearest images in the feature space of a layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from interpret.analyses.neighbours.feature_index import FeatureIndex, index_features
from interpret.analyses.neighbours.result import Neighbours
from interpret.analyses.neighbours.search import Metric, nearest
from interpret.analyses.predictions.compute import MOST_PICTURES
from interpret.execution.ranks import ranks
from interpret.images.batches import batches
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import check_items
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.layers import kinds_with_units
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one, unknown
from interpret.tracing.tracing import trace


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
    """Find the k nearest images of each query in the feature space of a layer.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    >>> images = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> found = find_neighbours(network, [3, 8], images, k=2)
    >>> found.layer, found.items.shape, bool((found.items[0] != 3).all())
    ('2', (2, 2), True)

    The search is exact: it compares each query with every image, in double precision. Neighbours come from distinct
    sources (photographs), excluding the query's own source if the query is an item of the data. Ties are broken by the
    lower item.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        queries: indices of items of the data; or your own images, as `interpret.open_images` takes them.
        data: the images to search.
        layer: name of the layer; None: the last hidden layer, that is, the layer that runs before the last convolution
            or linear layer.
        k: number of neighbours per query.
        metric: "euclidean", or "cosine" (1 − cos; 1 if either vector is zero).
        average: whether to average feature maps over positions. The distance then does not depend on where an object
            is in the image, and the index is smaller by a factor of the number of positions.
        index: a folder to keep the features in, memory-mapped, for later searches, such as `study.path / "features"`;
            None: keep the features in memory only.
        batch_size, workers, device: see `interpret` and, for workers, `interpret.mine`.

    Returns:
        `Neighbours`, which `interpret.plot` draws.

    Raises:
        InterpretError: fewer images than neighbours; an unknown layer or metric; a query that is not an item of the
            data; an index of other weights or data.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    section 6.1 and Fig. 4 (right), which shows the six training images whose "feature vectors in the last hidden layer"
    have the smallest Euclidean distance to that of a test image. The paper does not say whether these are rectified;
    here, they are the input of the last layer.
    """
    model = as_model(model)
    images = open_images(data, model)
    own = _check(queries, images, k, metric)
    layer = layer_of(model, images, layer)
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    features = index_features(model, images, layer, average, index, **how)
    _check_count(k, len(np.unique(images.sources[features.items])), own, images)
    asked = _query_features(model, queries, own, images, features, layer, average, how)
    return ranks().once(lambda: _search(model, images, layer, average, metric, k, features, own, asked))


# ---- check -----------------------------------------------------------------------------------------------------------


def _check(queries: Any, images: Images, k: int, metric: str) -> list[int] | None:
    """Validate the arguments before the network runs; return queries given as items, None for images."""
    if metric not in get_args(Metric):
        raise unknown("metric", metric, get_args(Metric))
    refuse_below_one(k=k)
    own = _items(queries)
    if own is not None:
        check_items("queries", own, images)
    _check_count(k, len(np.unique(images.sources)), own, images)
    return own


def _items(queries: Any) -> list[int] | None:
    """Return queries given as items; None for images."""
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


def layer_of(model: Model, images: Images, layer: str | None) -> str:
    """Return the layer's name; for None, the layer that runs before the last convolution or linear layer."""
    shape = next(batches(images, 1)).images.shape[1:]
    traced = trace(model, tuple(shape))
    if layer is not None:
        if layer not in traced:
            raise unknown("layer", layer, traced)
        return layer
    leaves = [name for name, one in traced.items() if one.leaf and one.batched and one.parts == 1]
    kinds = kinds_with_units(model.module)
    with_units = [n for n, name in enumerate(leaves) if isinstance(model.module.get_submodule(name), kinds)]
    if not with_units or with_units[-1] == 0:
        raise InterpretError(f"model {model.name!r} has no hidden layer that could be found: name one with layer=...")
    return leaves[with_units[-1] - 1]


# ---- run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Queries:
    """The queries and their features."""

    features: NDArray[Any]
    """[Q, D]"""
    images: Images
    items: list[int]
    """[Q] items of `images`."""


def _query_features(
    model: Model,
    queries: Any,
    own: list[int] | None,
    images: Images,
    features: FeatureIndex,
    layer: str,
    average: bool,
    how: dict[str, Any],
) -> _Queries:
    """Return the queries with their features: items of the data, or the user's images."""
    if own is not None:
        return _Queries(features.rows_of(own, images), images, own)
    given = open_images(queries, model)
    found = index_features(model, given, layer, average, None, **how)
    width, expected = found.features.shape[1], features.features.shape[1]
    if width != expected:
        raise InterpretError(
            f"queries have {width} features at layer {layer!r} and the data's images {expected}: give images of one "
            "size, or average=True"
        )
    return _Queries(np.array(found.features), given, found.items.tolist())


def _search(
    model: Model,
    images: Images,
    layer: str,
    average: bool,
    metric: Metric,
    k: int,
    features: FeatureIndex,
    own: list[int] | None,
    asked: _Queries,
) -> Neighbours:
    excluded = None if own is None else images.sources[own]
    rows, distances = nearest(features.features, asked.features, k, metric, images.sources[features.items], excluded)
    items = features.items[rows]
    return Neighbours(
        model=model.name,
        data=images.name,
        searched=len(features.items),
        layer=layer,
        averaged=average,
        metric=metric,
        items=items,
        distances=distances,
        **_describe(asked, images, items),
        **_draw(asked, images, items),
    )


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _describe(asked: _Queries, images: Images, items: NDArray[np.int64]) -> dict[str, Any]:
    """Return names, labels and classes of the queries and of their neighbours."""
    return {
        "query_names": [asked.images.source_name(int(asked.images.sources[item])) for item in asked.items],
        "query_labels": _same_classes(asked.images, images)[asked.items],
        "names": [[images.source_name(int(images.sources[item])) for item in row] for row in items.tolist()],
        "labels": images.labels[items],
        "classes": None if images.classes is None else list(images.classes),
    }


def _same_classes(queries: Images, images: Images) -> NDArray[np.int64]:
    """Return the queries' labels; −1 if their classes are not the data's."""
    return queries.labels if queries.classes == images.classes else np.full(len(queries), -1, np.int64)


# ---- draw ------------------------------------------------------------------------------------------------------------


def _draw(asked: _Queries, images: Images, items: NDArray[np.int64]) -> dict[str, Any]:
    """Return pictures of the first queries and of their neighbours."""

    def pictures(of: Images, wanted: Sequence[int]) -> NDArray[np.uint8]:
        return inputs_to_bytes(torch.stack([of[item][0] for item in wanted]), images.pixel_scale)

    near = pictures(images, items[:MOST_PICTURES].ravel().tolist())
    return {
        "query_pictures": pictures(asked.images, asked.items[:MOST_PICTURES]),
        "pictures": near.reshape(-1, items.shape[1], *near.shape[1:]),
        "shown": images.pixel_scale.said,
    }
