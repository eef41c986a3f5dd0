"""Activation atlas: lay a layer's activations out in two dimensions, and make an image for the mean of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.synthesis.activation_atlas import ActivationAtlas
from interpret.analyses.synthesis.compute import STEPS, synthesise
from interpret.analyses.synthesis.objectives import OUTPUT
from interpret.analyses.synthesis.optimisation import run_layers
from interpret.execution.execution import prepared
from interpret.images.batches import first_images, read_parts
from interpret.images.opening import open_images
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.network.answers import NoScores
from interpret.network.layers import Layout as UnitLayout
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import progress
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import layer_with_units, layouts_of

Layout = Callable[[NDArray[np.float32]], Any]
"""From activations [n, C] to places [n, 2]."""
FEWEST = 8
"""Fewer activations make no map."""


@torch.inference_mode(False)  # the caller may be in inference mode
def map_activations(
    model: Model | nn.Module,
    images: Any,
    layer: str,
    *,
    grid: int = 10,
    samples: int = 1000,
    fewest: int = 3,
    layout: Layout | None = None,
    steps: int = STEPS,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> ActivationAtlas:
    """Make an activation atlas: what a layer distinguishes, as images on a map.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> pictures = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> atlas = map_activations(network, pictures, "2", grid=2, steps=4, layout=lambda found: found[:, :2])
    >>> atlas.pictures.shape[1:], int(atlas.counts.sum())
    ((5, 5, 3), 40)

    Of each image, the activations at one random position are taken, not at the border of the map. They are laid out in
    two dimensions, so that like ones lie together, and for the mean of each cell of a grid, an image is made from
    noise: as `synthesise` does for a direction. The direction is the mean's difference to the mean of all activations,
    each channel divided by its variance.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        images: natural images, as many as there are; hundreds at least make a map of a deep layer.
        layer: a layer with channels.
        grid: rows and columns of the map.
        samples: the largest number of images from which activations are taken; chosen by hash.
        fewest: cells with fewer activations stay empty.
        layout: a function of activations [n, C] that returns places [n, 2], such as `umap.UMAP().fit_transform`; None:
            t-SNE, by scikit-learn (`pip install 'interpret-cnn[atlas]'`).
        steps: steps of the optimisation of each image.
        seed: seed of the positions, of t-SNE and of the noise.
        batch_size, device: see `interpret`.
        dtype: `torch.bfloat16` or `torch.float16`: optimise under autocast, faster and less precise.

    Returns:
        an `ActivationAtlas` with the m images [m, h, w, 3] and the cells [m, 2] in which they lie.

    Raises:
        InterpretError: an unknown layer; too few images; a layout of another shape; a layer that does not depend on
            the images.

    Source: Carter et al., "Activation atlas", Distill, 2019. The paper whitens with the full covariance, and
    multiplies the objective with the cosine.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "map_activations", "it makes pictures")
    refuse_below_one(grid=grid, samples=samples, fewest=fewest, steps=steps)
    opened = open_images(images, model)
    first = first_images(opened)
    shape = tuple(first.shape[1:])
    traced = trace_on_meta(model.module, shape)
    layer_with_units(traced, layer)
    items = np.sort(sample_by_hash(len(opened), samples))
    taken = _take(model, opened, first, items, layer, layouts_of(traced, [layer]), seed, batch_size, device)
    if len(taken.items) < max(FEWEST, fewest):
        raise InterpretError(
            f"images has {len(taken.items)} that can be read, and a map needs at least {max(FEWEST, fewest)}: give more"
        )
    places = _places(taken.activations, layout, seed)
    cells, rows = _cells(places, grid, fewest)
    if not len(cells):
        raise InterpretError(f"no cell has {fewest} activations: give a smaller grid, fewer in a cell, or more images")
    made = synthesise(
        model, layer, directions=_directions(taken.activations, rows), steps=steps, seed=seed, size=shape,
        natural=opened if model.preprocess is None else None, batch_size=batch_size, device=device, dtype=dtype,
    )  # fmt: skip
    labels, shares = _labels(model, taken.predicted, rows)
    return ActivationAtlas(
        model=model.name,
        layer=layer,
        grid=(grid, grid),
        cells=cells,
        counts=np.array([len(own) for own in rows]),
        pictures=made.pictures,
        values=np.asarray(made.values, np.float64),
        labels=labels,
        label_shares=shares,
        layout=places,
        items=taken.items,
        positions=taken.positions,
        settings=made.settings | {"samples": int(samples), "fewest": int(fewest), "layout": _said(layout)},
        data=opened.name,
        shown=made.shown,
    )


# ---- activations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Taken:
    activations: NDArray[np.float32]
    """[n, C]"""
    items: NDArray[np.int64]
    positions: NDArray[np.int64]
    """[n, 2]"""
    predicted: NDArray[np.int64] | None
    """[n] the class with the largest score; None for a network without scores."""


def _take(
    model: Model,
    images: Images,
    first: Tensor,
    items: NDArray[np.int64],
    layer: str,
    layouts: Mapping[str, UnitLayout],
    seed: int,
    batch_size: int | None,
    device: str | torch.device | None,
) -> _Taken:
    """Return the activations at one position of each image."""
    activations, seen, positions, predicted = [], [], [], []
    with prepared(model, first, device) as run, torch.no_grad():
        layers = _with_scores(model, run.place(first), layer)
        size = run.batch_size(batch_size)
        with progress(len(items), "taking activations", "img") as bar:
            for batch in read_parts(images, np.split(items, range(size, len(items), size))):
                outputs = run_layers(model.module, run.place(batch.images), layers, layouts)
                at = [_position(outputs[layer], int(item), seed) for item in batch.items]
                found = outputs[layer].float()
                own = [found[row, :, y, x] if found.dim() == 4 else found[row] for row, (y, x) in enumerate(at)]
                activations.append(torch.stack(own).cpu())
                seen += [int(item) for item in batch.items]
                positions += at
                if OUTPUT in layers:
                    predicted.append(outputs[OUTPUT].argmax(1).cpu())
                bar.update(len(batch.items))
    return _Taken(
        torch.cat(activations).numpy(),
        np.array(seen),
        np.array(positions).reshape(-1, 2),
        torch.cat(predicted).numpy() if predicted else None,
    )


def _with_scores(model: Model, images: Tensor, layer: str) -> frozenset[str]:
    """Return the layer, and the network's output if that is one score for each named class."""
    if model.classes is None:
        return frozenset([layer])
    try:
        run_layers(model.module, images, frozenset([layer, OUTPUT]))
    except NoScores:
        return frozenset([layer])
    return frozenset([layer, OUTPUT])


def _position(output: Tensor, item: int, seed: int) -> tuple[int, int]:
    """Return a random position of a feature map, not at its border unless there is nothing else."""
    if output.dim() != 4:
        return 0, 0
    random = np.random.default_rng([seed, item])
    y, x = (int(random.integers(min(1, (side - 1) // 2), side - min(1, (side - 1) // 2))) for side in output.shape[2:])
    return y, x


# ---- map -------------------------------------------------------------------------------------------------------------


def _places(activations: NDArray[np.float32], layout: Layout | None, seed: int) -> NDArray[np.float64]:
    """Return where activations [n, C] lie on the map, [n, 2] from 0 to 1."""
    if layout is None:
        layout = _tsne(seed)
    try:
        found = np.asarray(layout(activations), np.float64)
    except (TypeError, ValueError) as error:
        raise InterpretError(f"layout must return one place for each activation, [n, 2]: {error}") from error
    if found.shape != (len(activations), 2) or not np.isfinite(found).all():
        raise InterpretError(
            f"layout must return one finite place for each activation, [{len(activations)}, 2], not {list(found.shape)}"
        )
    # a few places far outside must not leave the rest of the map empty
    low, high = np.percentile(found, [1, 99], axis=0)
    return np.clip((found - low) / np.maximum(high - low, 1e-12), 0, 1)


def _tsne(seed: int) -> Layout:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise InterpretError(
            "an atlas needs scikit-learn: pip install 'interpret-cnn[atlas]', or give a layout of your own"
        ) from None

    def lay_out(activations: NDArray[np.float32]) -> Any:
        perplexity = min(30.0, (len(activations) - 1) / 3)
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(activations)

    return lay_out


def _said(layout: Layout | None) -> str:
    return "t-SNE" if layout is None else str(getattr(layout, "__qualname__", type(layout).__name__))


def _cells(places: NDArray[np.float64], grid: int, fewest: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return row and column of each cell with enough activations, and which they are."""
    at = np.minimum((places * grid).astype(np.int64), grid - 1)
    cells, inverse = np.unique(at, axis=0, return_inverse=True)
    rows = [np.flatnonzero(inverse.reshape(-1) == place) for place in range(len(cells))]
    enough = [place for place, own in enumerate(rows) if len(own) >= fewest]
    return cells[enough], [rows[place] for place in enough]


def _directions(activations: NDArray[np.float32], rows: list[NDArray[np.int64]]) -> Tensor:
    """Return for each cell the direction from the mean of all activations to the cell's, in units of the variance."""
    values = torch.from_numpy(activations).double()
    variance = values.var(0, correction=0)
    # channels that hardly vary must not decide
    scale = variance + 0.1 * variance.mean()
    means = torch.stack([values[torch.from_numpy(own)].mean(0) for own in rows])
    found = (means - values.mean(0)) / scale
    return found / found.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _labels(
    model: Model, predicted: NDArray[np.int64] | None, rows: list[NDArray[np.int64]]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the class predicted most often in each cell, and its share."""
    names = model.classes
    if predicted is None or names is None:
        return [""] * len(rows), np.full(len(rows), np.nan)
    labels, shares = [], []
    for own in rows:
        counts = np.bincount(predicted[own])
        best = int(counts.argmax())
        labels.append(str(names[best]) if best < len(names) else str(best))
        shares.append(counts[best] / len(own))
    return labels, np.array(shares)
