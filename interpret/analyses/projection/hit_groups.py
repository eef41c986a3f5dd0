"""Groups of hits that run together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.projection.crop import Crop
from interpret.analyses.projection.hits import Hits
from interpret.execution.parallel import PIXELS_AT_ONCE

WHOLE_IMAGE_SHARE = 0.6
"""Above this share of the image, parts are not cropped: one forward pass of the whole image serves all its hits."""
SMALL_SHARE = 0.1
"""Below this share of the image, parts are cropped even if the whole image runs for other hits."""
SIMILAR_HITS_SHARE = 0.75
"""Images run together if each has at least this share of the largest number of hits of an image."""
IMAGES_TO_SORT = 128
"""Number of whole images to sort by their number of hits at once."""
MOST_HITS = 256
"""Most hits of a whole image that are projected before what is done can be kept; others run the image again."""


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


def plan_hits(
    hits: Hits,
    crops: Mapping[str, Crop],
    size: int,
    windowed: Collection[str] = (),
    pixels: int = PIXELS_AT_ONCE,
) -> Iterator[HitGroup]:
    """Yield groups of hits in the order in which their images are read, regardless of which hits are already done.

    Args:
        hits: all hits.
        crops: layer to the part of an image that must run for its neurons.
        size: number of whole images per batch.
        windowed: the layers whose signals need only windows of the maps of a whole image. Their hits run on it if
            their parts are together larger than `WHOLE_IMAGE_SHARE` of it.
        pixels: number of pixels of a batch of parts.
    """
    waiting: dict[int, list[int]] = defaultdict(list)
    pool: list[NDArray[np.int64]] = []
    share = np.array([crops[name].share for name in hits.layers])
    shares = np.array([crops[name].share > SMALL_SHARE and name in windowed for name in hits.layers])
    item = -1
    for item, rows in hits.by_item():
        layers = hits.layer[rows]
        large = share[layers] > WHOLE_IMAGE_SHARE
        together = large | shares[layers]
        if share[layers][together].sum() > WHOLE_IMAGE_SHARE:
            large = together
        for row in rows[~large].tolist():
            index = int(hits.layer[row])
            waiting[index].append(row)
            if len(waiting[index]) == crops[hits.layers[index]].batch_size(pixels):
                yield HitGroup(item, False, list(np.array(waiting.pop(index))[:, None]))
        if large.any():
            own = rows[large]
            pool += [own[start : start + MOST_HITS] for start in range(0, len(own), MOST_HITS)]
        if len(pool) >= max(IMAGES_TO_SORT, 2 * size):
            yield from (HitGroup(item, True, images) for images in _batches(pool, size, hits, windowed))
            pool = []
    for parts in waiting.values():
        yield HitGroup(item, False, list(np.array(parts)[:, None]))
    yield from (HitGroup(item, True, images) for images in _batches(pool, size, hits, windowed))


def _batches(
    pool: list[NDArray[np.int64]], size: int, hits: Hits, windowed: Collection[str]
) -> Iterator[list[NDArray[np.int64]]]:
    """Yield batches of images with similar numbers of hits whose signals need whole maps.

    Such an image stays in its batch after its last hit.
    """
    whole = np.array([name not in windowed for name in hits.layers])
    counts = [int(whole[hits.layer[rows]].sum()) for rows in pool]
    order = sorted(range(len(pool)), key=lambda place: -counts[place])
    while order:
        least = SIMILAR_HITS_SHARE * counts[order[0]]
        together = [place for place in order[:size] if counts[place] >= least]
        yield [pool[place] for place in together]
        order = order[len(together) :]
