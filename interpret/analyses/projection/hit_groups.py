"""Groups of hits that run together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.projection.crop import Crop
from interpret.analyses.projection.hits import Hits

WHOLE_IMAGE_SHARE = 0.6
"""Above this share of the image, parts are not cropped: one forward pass of the whole image serves all its hits."""
SIMILAR_HITS_SHARE = 0.75
"""Images run together if each has at least this share of the largest number of hits of an image."""
IMAGES_TO_SORT = 128
"""Number of whole images to sort by their number of hits at once."""


@dataclass(frozen=True)
class HitGroup:
    """Hits that run together: of one layer on parts of images, or of several layers on whole images."""

    after: int
    """The item after which all images of the group have been read."""
    whole: bool
    of_images: list[NDArray[np.int64]]
    """The rows of the hits of each image; for parts, one row each."""

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.concatenate(self.of_images)


def plan_hits(hits: Hits, crops: Mapping[str, Crop], size: int) -> Iterator[HitGroup]:
    """Yield groups of hits in the order in which their images are read, regardless of which hits are already done.

    Args:
        hits: all hits.
        crops: layer to the part of an image that must run for its neurons.
        size: number of whole images per batch.
    """
    waiting: dict[int, list[int]] = defaultdict(list)
    pool: list[NDArray[np.int64]] = []
    is_large = np.array([crops[name].share > WHOLE_IMAGE_SHARE for name in hits.layers])
    item = -1
    for item, rows in hits.by_item():
        large = is_large[hits.layer[rows]]
        for row in rows[~large].tolist():
            index = int(hits.layer[row])
            waiting[index].append(row)
            if len(waiting[index]) == crops[hits.layers[index]].batch_size:
                yield HitGroup(item, False, list(np.array(waiting.pop(index))[:, None]))
        if large.any():
            pool.append(rows[large])
        if len(pool) == IMAGES_TO_SORT:
            yield from (HitGroup(item, True, images) for images in _similar_batches(pool, size))
            pool = []
    for parts in waiting.values():
        yield HitGroup(item, False, list(np.array(parts)[:, None]))
    yield from (HitGroup(item, True, images) for images in _similar_batches(pool, size))


def _similar_batches(pool: list[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """Yield batches of images with similar numbers of hits, since an image stays in its batch after its last hit."""
    pool = sorted(pool, key=lambda rows: -len(rows))
    while pool:
        least = SIMILAR_HITS_SHARE * len(pool[0])
        together = [rows for rows in pool[:size] if len(rows) >= least]
        yield together
        pool = pool[len(together) :]
