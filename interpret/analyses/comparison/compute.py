"""Compare the units of two networks, such as two checkpoints, by the images that excite them most."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.comparison.result import Comparison
from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.network.layers import split_patterns
from interpret.support.errors import InterpretError, unknown

DEFAULT_SHOWN = 8
"""Number of units that are shown with their patches."""


def compare(
    before: Mined, after: Mined, layers: str | Iterable[str] | None = None, *, shown: int = DEFAULT_SHOWN
) -> Comparison:
    """Compare the top-activating images of each unit in two networks, such as two checkpoints.

    >>> import copy, torch
    >>> from torch import nn
    >>> from interpret import mine
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> later, images = copy.deepcopy(network), torch.rand(40, 3, 10, 10)
    >>> with torch.no_grad():
    ...     _ = later[0].weight[2].normal_()       # change one unit
    >>> changes = compare(mine(network, images), mine(later, images), layers="0")
    >>> changes.most_changed(most=1)
    [('0', 2)]
    >>> changes.overlap["0"][[0, 1, 3]]
    array([1., 1., 1.])

    For two checkpoints on the same images:

        before = interpret.mine(interpret.load("lenet", "models/lenet/epochs/01.safetensors"), "digits")
        after = interpret.mine(interpret.load("lenet", "models/lenet/epochs/64.safetensors"), "digits")
        changes = interpret.compare(before, after)       # in a notebook, the figure
        changes.to_dataframe().sort_values("overlap")    # one row per unit

    The result holds four measures per unit:

    - **Overlap**: the average overlap of the unit's two rankings of top-activating images, that is, the mean over the
      depths d = 1 … k of |A_d ∩ B_d| / d. It is 1 for identical rankings and 0 for rankings without a common image; the
      first ranks weigh most. Hits with the value zero are left out, since a rectifier gives zero on any image. If
      neither ranking has other hits, the overlap is 1.
    - **Shared images**: the number of images that are hits in both networks.
    - **Shared patches**: the number of these that are also at the same position of the feature map.
    - **Correlation**: Pearson's correlation of the unit's maxima on the images of both samples. It also depends on
      images that are not top-activating.

    Units are compared by their number. Therefore both networks must have the same architecture and be trained from the
    same initial weights; from other initial weights, units come out in another order.

    Args:
        before, after: the results of `interpret.mine` for the two networks, on the same images.
        layers: names or globs; None: all layers that were mined in both.
        shown: number of units to show with their patches, those that changed most, if the images are available.

    Returns:
        a `Comparison` with the four measures of each unit of the layers that both have.

    Raises:
        InterpretError: different images, an unknown layer, a layer whose number of units differs, no common layer.

    Source: Fagin, Kumar & Sivakumar, "Comparing top k lists", SIAM Journal on Discrete Mathematics 17, 2003, section 3
    (the intersection metric, of which this is 1 minus); for the correlation Li, Yosinski, Clune, Lipson & Hopcroft,
    "Convergent learning: do different neural networks learn the same representations?", ICLR 2016, section 2.
    """
    _check_inputs(before, after)
    names = _common_layers(before, after, layers)
    pairs = {name: (before[name], after[name]) for name in names}
    for name, (one, other) in pairs.items():
        if len(one.values) != len(other.values):
            raise InterpretError(
                f"layer {name!r} has {len(one.values)} units before and {len(other.values)} after: compare networks of "
                "one architecture"
            )
    _, rows_before, rows_after = np.intersect1d(before.sample_images, after.sample_images, return_indices=True)
    k = min(min(one.values.shape[1], other.values.shape[1]) for one, other in pairs.values())
    found = {
        name: [_unit_overlap(one, other, unit, k) for unit in range(len(one.values))]
        for name, (one, other) in pairs.items()
    }
    changes = Comparison(
        before=before.model,
        after=after.model,
        data=before.data,
        k=k,
        sample=len(rows_before),
        overlap={name: np.array([overlap for overlap, _, _ in of]) for name, of in found.items()},
        shared_images={name: np.array([images for _, images, _ in of]) for name, of in found.items()},
        shared_patches={name: np.array([patches for _, _, patches in of]) for name, of in found.items()},
        correlation={
            name: correlations(one.sample_maxima[rows_before], other.sample_maxima[rows_after])
            for name, (one, other) in pairs.items()
        },
        maximum_before={name: one.maximum for name, (one, _) in pairs.items()},
        maximum_after={name: other.maximum for name, (_, other) in pairs.items()},
        dead_before={name: one.dead for name, (one, _) in pairs.items()},
        dead_after={name: other.dead for name, (_, other) in pairs.items()},
        shown_layers=[],
        shown_units=[],
        pictures_before={},
        pictures_after={},
    )
    _add_patches(changes, before, after, shown)
    return changes


def average_overlap(one: list[int], other: list[int]) -> float:
    """Return the average overlap of two rankings, from 0 to 1: the mean share of common items over all depths.

    >>> average_overlap([7, 8, 9], [7, 8, 9]), average_overlap([1, 2], [3, 4]), average_overlap([7, 8], [8, 7])
    (1.0, 0.0, 0.5)
    """
    depth = max(len(one), len(other))
    if not depth:
        return 1.0
    return sum(len({*one[:d]} & {*other[:d]}) / d for d in range(1, depth + 1)) / depth


def correlations(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Pearson's correlation of each column of two arrays [n, C]; NaN where a column is constant."""
    a, b = (values.astype(np.float64) - values.astype(np.float64).mean(0) for values in (one, other))
    # the variance of a constant column may be a rounding error above zero
    constant = (np.ptp(one, axis=0) == 0) | (np.ptp(other, axis=0) == 0) if len(one) else np.ones(one.shape[1], bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(constant, np.nan, found)


def _unit_overlap(one: MinedLayer, other: MinedLayer, unit: int, k: int) -> tuple[float, int, int]:
    """Return a unit's overlap, and the numbers of shared images and shared patches."""
    ranked = []
    for layer in (one, other):
        real = (layer.images[unit, :k] >= 0) & (layer.values[unit, :k] != 0)
        images, positions = layer.images[unit, :k][real].tolist(), layer.positions[unit, :k][real].tolist()
        ranked.append(dict(zip(images, map(tuple, positions), strict=True)))
    a, b = ranked
    shared = a.keys() & b.keys()
    return average_overlap(list(a), list(b)), len(shared), sum(a[image] == b[image] for image in shared)


def _check_inputs(before: Mined, after: Mined) -> None:
    for name, mined in (("before", before), ("after", after)):
        if not isinstance(mined, Mined):
            raise InterpretError(f"{name} must be a result of interpret.mine, not {type(mined).__name__}")
    if before.subject.known_fingerprint != after.subject.known_fingerprint:
        raise InterpretError(
            f"before was mined on {before.data!r} and after on other images, of {after.data!r}: mine both on the same"
        )


def _common_layers(before: Mined, after: Mined, layers: str | Iterable[str] | None) -> list[str]:
    common = [name for name in before if name in after]
    if not common:
        raise InterpretError("before and after have no layer in common: compare networks of one architecture")
    if layers is None:
        return common
    matched: set[str] = set()
    for pattern in split_patterns(layers, common):
        names = [name for name in common if name == pattern or fnmatchcase(name, pattern)]
        if not names:
            raise unknown("layer", pattern, common)
        matched.update(names)
    return [name for name in common if name in matched]


def _add_patches(changes: Comparison, before: Mined, after: Mined, most: int) -> None:
    """Add the patches of the units that changed most, if the images are available."""
    from interpret.analyses.mining.patches import patches_of_units

    if before.subject.data is None or after.subject.data is None:
        return
    for place, (layer, unit) in enumerate(changes.most_changed(most=most)):
        changes.shown_layers.append(layer)
        changes.shown_units.append(unit)
        for mined, pictures in ((before, changes.pictures_before), (after, changes.pictures_after)):
            model, data = mined.subject.both()
            pictures[str(place)] = patches_of_units(model, data, mined[layer], [unit], changes.k)[0]
