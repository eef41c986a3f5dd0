"""Correspondence: whether hiding the same part in different images changes a network's features in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.correspondence.result import MASKS, Correspondence
from interpret.execution.batch_size import batch_size_for
from interpret.execution.execution import prepared
from interpret.images.inputs import open_inputs
from interpret.network.forward import collect_outputs, refuse_other_type
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one, unknown
from interpret.support.progress import progress
from interpret.tracing.tracing import select_traced, trace

Colour = Literal["mean", "grey", "black", "white"]
LEVELS = {"grey": 0.5, "black": 0.0, "white": 1.0}

ROUNDING = 64
"""Changes up to this many units in the last place of a layer's largest feature count as no change."""
SIGNS_AT_ONCE = 2**29
"""Largest number of bytes of signs that are held until all images have run."""
FEATURES_AT_ONCE = 2**20
"""Number of features to compare at once; counts up to it are exact in float32."""


def correspond(
    model: Model | nn.Module,
    images: Any,
    parts: Mapping[str, Any],
    layers: str | Iterable[str] | None = None,
    *,
    items: Sequence[int] | None = None,
    within: Any = None,
    draws: int = 5,
    colour: Colour = "mean",
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Correspondence:
    """Measure whether masking the same part in different images changes a layer's features consistently.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 6))
    >>> images = torch.rand(5, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    >>> found = correspond(network, images, {"corner": (0, 0, 4, 4)}, layers="3")
    >>> found.scores["3"].shape, bool((found.scores["3"] <= 1).all())
    ((3, 1), True)

    Let ε_i = x_i − x̃_i be the change of the features of image i when the part is masked. Δ is the Hamming distance
    between sign ε_i and sign ε_j, averaged over all features and all pairs i ≠ j. It ranges from 0 (all images change
    in the same way) to 1. Lower values mean that the layer responds to the part consistently.

    Each part has two controls of the same size:

    - "random": a box at a random place per image, as in the paper.
    - "shared": a box at one random place for all images, relative to the boxes of `within`. It is not in the paper.
      Masks at the same place change the same neurons, whatever they cover. Only a Δ below this control shows that the
      part itself matters, and not its place.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        images: B ≥ 2 inputs [B, C, H, W], or anything else that `interpret.open_images` takes.
        parts: name to boxes (top, left, bottom, right) in pixels of the input, bottom and right exclusive: [B, 4], or
            one box for all images.
        layers: names or globs; None: every convolutional and linear layer.
        items: indices of the images, in this order; None: all.
        within: boxes of the objects, inside which random masks are placed, [B, 4] or one for all images; None: the
            whole image.
        draws: number of random places over which each control is averaged.
        colour: colour of the mask. "mean" is an input of zero, the training images' mean colour if the preprocessing
            subtracts it; "grey", "black" and "white" need a model with preprocessing.
        seed: seed of the random places.
        batch_size, device: see `interpret`.

    Returns:
        `Correspondence`, with ``.scores``, ``.errors`` and `.table()`, the paper's table.

    Raises:
        InterpretError: fewer than two images; a part that is empty, lies outside its image or does not have one box per
            image; an unknown layer or colour.

    Source: Zeiler & Fergus 2014, section 4 ("Correspondence analysis") and Table 1. Choices that the paper leaves open:

    - Sign of zero: an unchanged feature has the sign 0, which differs from both other signs. Changes up to 64 units in
      the last place of the layer's largest feature in that image count as rounding, that is, as no change.
    - Scale: the paper's formula is a sum over pairs, but its values are below 1; here, Δ is a mean over pairs and
      features.
    - Mask: the paper does not give its colour; see `colour`.
    - Error: the paper does not explain the number after ±. Here, it is the jackknife's standard error over images,
      since pairs of images are not independent. For "shared", the standard error over draws is added in quadrature. It
      is NaN for two images.
    - Features: the layer's outputs.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "correspond", "it masks parts of pictures")
    task = _check(model, open_inputs(images, model, items).tensor, parts, layers, within, draws, colour, seed)
    distances = _run(model, task, batch_size, device)
    return Correspondence(
        model=model.name,
        images=len(task.images),
        parts=list(parts),
        draws=draws,
        colour=colour,
        features=task.features,
        **_aggregate(task, distances),
    )


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """The validated arguments."""

    images: Tensor
    """[B, C, H, W]"""
    parts: int
    """Number of parts."""
    variants: list[_Variant]
    """All ways of masking the images."""
    mask: Tensor
    """[C, 1, 1] the input for a masked pixel."""
    features: dict[str, int]
    """Layer to its number of features."""


@dataclass(frozen=True)
class _Variant:
    """One way of masking all images."""

    kind: str
    part: int
    boxes: NDArray[np.int64]
    """[B, 4]"""


def _check(
    model: Model,
    images: Tensor,
    parts: Mapping[str, Any],
    layers: str | Iterable[str] | None,
    within: Any,
    draws: int,
    colour: str,
    seed: int,
) -> _Task:
    """Validate the arguments before the network runs."""
    if len(images) < 2:
        raise InterpretError(f"images must be at least two, because pairs are compared, not {len(images)}")
    refuse_other_type(model.module, images)
    boxes = _boxes(parts, images)
    area = _area(within, images, boxes)
    refuse_below_one(draws=draws)
    mask = _mask_value(model, images, colour)
    traced = trace(model, tuple(images.shape[1:]))
    features = {name: math.prod(traced[name].output_shape) for name in select_traced(model.module, traced, layers)}
    return _Task(images, len(boxes), list(_variants(boxes, area, draws, seed)), mask, features)


def _boxes(parts: Mapping[str, Any], images: Tensor) -> list[NDArray[np.int64]]:
    if not isinstance(parts, Mapping) or not parts:
        raise InterpretError("parts must be a mapping from a part's name to its boxes, with at least one part")
    return [_box(f"part {name!r}", boxes, images) for name, boxes in parts.items()]


def _box(what: str, boxes: Any, images: Tensor) -> NDArray[np.int64]:
    """Return boxes as int64 [B, 4], one per image; refuse boxes that are empty or outside of their image."""
    array = np.asarray(boxes.cpu() if isinstance(boxes, Tensor) else boxes)
    count, _, height, width = images.shape
    if array.shape not in ((4,), (count, 4)) or array.dtype.kind not in "iuf" or (array % 1 != 0).any():
        raise InterpretError(
            f"{what} must have whole numbers (top, left, bottom, right), one box or one for each of the {count} "
            f"images, not {array.dtype} of shape {list(array.shape)}"
        )
    array = np.broadcast_to(array, (count, 4)).astype(np.int64)
    top, left, bottom, right = array.T
    wrong = (top < 0) | (left < 0) | (bottom > height) | (right > width) | (top >= bottom) | (left >= right)
    if wrong.any():
        image = int(np.flatnonzero(wrong)[0])
        raise InterpretError(
            f"{what} lies outside image {image} or is empty: (top, left, bottom, right) = "
            f"{tuple(array[image].tolist())} in {height} × {width} pixels"
        )
    return array


def _area(within: Any, images: Tensor, boxes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the boxes inside which random masks are placed, [B, 4]."""
    height, width = images.shape[2:]
    area = _box("within", (0, 0, height, width) if within is None else within, images)
    for part in boxes:
        small = (part[:, 2:] - part[:, :2] > area[:, 2:] - area[:, :2]).any(1)
        if small.any():
            image = int(np.flatnonzero(small)[0])
            raise InterpretError(
                f"within is smaller than a part of image {image}: {tuple(area[image].tolist())} has no room for "
                f"{tuple(part[image].tolist())}"
            )
    return area


def _variants(boxes: list[NDArray[np.int64]], area: NDArray[np.int64], draws: int, seed: int) -> Iterator[_Variant]:
    generator = np.random.default_rng(seed)
    for part, masked in enumerate(boxes):
        yield _Variant("part", part, masked)
        size = masked[:, 2:] - masked[:, :2]
        room = area[:, 2:] - area[:, :2] - size + 1
        for _ in range(draws):
            for kind in ("random", "shared"):
                place = generator.random((len(masked) if kind == "random" else 1, 2))
                corner = area[:, :2] + np.floor(place * room).astype(np.int64)
                yield _Variant(kind, part, np.concatenate([corner, corner + size], 1))


def _mask_value(model: Model, images: Tensor, colour: str) -> Tensor:
    """Return the input for a masked pixel, [C, 1, 1]."""
    if colour not in get_args(Colour):
        raise unknown("colour", colour, get_args(Colour))
    zero = images.new_zeros(images.shape[1], 1, 1)
    if colour == "mean":
        return zero
    preprocess = model.preprocess
    if preprocess is None:
        raise InterpretError(
            f"model {model.name!r} does not say what {colour} is: {model.preprocess_remedy}, or use colour='mean'"
        )
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (zero + LEVELS[colour] * preprocess.range - mean) / std


# ---- run -------------------------------------------------------------------------------------------------------------


def _run(
    model: Model, task: _Task, batch_size: int | None, device: str | torch.device | None
) -> dict[str, list[NDArray[np.float64]]]:
    """Return the distances [B, B] between the images' changes, per layer and variant."""
    images, count = task.images, len(task.images)
    together = max(1, SIGNS_AT_ONCE // (count * sum(task.features.values())))
    distances: dict[str, list[NDArray[np.float64]]] = {name: [] for name in task.features}
    with (
        prepared(model, images, device, list(task.features)) as run,
        progress(count * len(task.variants), "masking", "img") as bar,
    ):
        at_once = batch_size_for(batch_size, math.prod(images.shape[2:]), run.device)
        for start in range(0, len(task.variants), together):
            group = task.variants[start : start + together]
            signs = [
                {name: torch.zeros(count, width, dtype=torch.int8) for name, width in task.features.items()}
                for _ in group
            ]
            for rows in torch.arange(count).split(at_once):
                clean = run.place(images[rows])
                before = _features(model.module, clean, task)
                for variant, found in zip(group, signs, strict=True):
                    masked = _masked(clean, variant.boxes[rows.numpy()], task.mask)
                    after = _features(model.module, masked, task)
                    for name in task.features:
                        found[name][rows] = _signs(before[name], after[name]).cpu()
                    bar.update(len(rows))
            for found in signs:
                for name in task.features:
                    distances[name].append(hamming(found[name]))
    return distances


def _masked(images: Tensor, boxes: NDArray[np.int64], value: Tensor) -> Tensor:
    masked, value = images.clone(), value.to(images.device)
    for image, (top, left, bottom, right) in zip(masked, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = value
    return masked


@torch.inference_mode()
def _features(module: nn.Module, images: Tensor, task: _Task) -> dict[str, Tensor]:
    """Return each layer's features of each image, [B, D]."""
    return {name: output.flatten(1) for name, output in collect_outputs(module, images, task.features).items()}


def _signs(before: Tensor, after: Tensor) -> Tensor:
    """Return the sign of ε = before − after, int8 [B, D], 0 for changes within rounding."""
    change = before - after
    largest = torch.maximum(before.abs().amax(1, keepdim=True), after.abs().amax(1, keepdim=True))
    rounding = ROUNDING * torch.finfo(before.dtype).eps * largest
    return torch.where(change.abs() > rounding, change.sign(), 0).to(torch.int8)


def hamming(signs: Tensor) -> NDArray[np.float64]:
    """Return the share of columns in which two rows of signs differ, for all pairs of rows: [B, B].

    >>> hamming(torch.tensor([[1, 0, -1, 1], [1, 1, -1, 0]], dtype=torch.int8))
    array([[0. , 0.5],
           [0.5, 0. ]])

    Args:
        signs: int8 [B, D], each −1, 0 or 1.
    """
    count, width = signs.shape
    agree = torch.zeros(count, count, dtype=torch.float64)
    for part in signs.split(FEATURES_AT_ONCE, 1):
        signed = part.float()
        changed = signed.abs()
        of_each = changed.sum(1)
        # count agreement as (|a||b| + ab) / 2 where both change, plus the number of columns where neither does
        both = changed @ changed.T
        agree += ((both + signed @ signed.T) / 2 + part.shape[1] - of_each[:, None] - of_each[None] + both).double()
    return (1 - agree / width).numpy()


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _aggregate(task: _Task, distances: Mapping[str, list[NDArray[np.float64]]]) -> dict[str, Any]:
    """Return scores, the gains of parts over the controls, and the errors of both, per layer."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {"scores": {}, "errors": {}, "gains": {}, "gain_errors": {}}
    for name, of_variants in distances.items():
        draws: dict[str, list[list[NDArray[np.float64]]]] = {kind: [[] for _ in range(task.parts)] for kind in MASKS}
        for variant, one in zip(task.variants, of_variants, strict=True):
            draws[variant.kind][variant.part].append(one)
        scores = [[_Estimate.of(one, shared=kind == "shared") for one in draws[kind]] for kind in MASKS]
        gains = [[control.minus(part) for control, part in zip(row, scores[0], strict=True)] for row in scores[1:]]
        for means, errors, table in (("scores", "errors", scores), ("gains", "gain_errors", gains)):
            found[means][name] = np.array([[one.mean for one in row] for row in table])
            found[errors][name] = np.array([[one.error for one in row] for row in table])
    return found


@dataclass(frozen=True)
class _Estimate:
    """A mean over pairs of images, with its leave-one-out means and its variance over draws."""

    mean: float
    without: NDArray[np.float64]
    """[B] the mean without each image."""
    between_draws: float
    """The variance of the mean over draws, for places that all images share; otherwise 0."""

    @classmethod
    def of(cls, draws: list[NDArray[np.float64]], shared: bool) -> _Estimate:
        """Estimate from the distances of all pairs, [B, B], per draw; `shared`: the images share the places."""
        distances = np.mean(draws, 0)
        count, total, of_each = len(distances), distances.sum(), distances.sum(1)
        pairs = (count - 1) * (count - 2)
        without = (total - 2 * of_each) / pairs if pairs else np.full(count, np.nan)
        means = [one.sum() / (count * (count - 1)) for one in draws]
        between = np.var(means, ddof=1) / len(means) if shared and len(means) > 1 else 0.0
        return cls(float(total / (count * (count - 1))), without, float(between))

    @property
    def error(self) -> float:
        """The jackknife's standard error over images and the standard error over draws, added in quadrature."""
        count = len(self.without)
        over_images = (count - 1) / count * ((self.without - self.without.mean()) ** 2).sum()
        return float(np.sqrt(over_images + self.between_draws))

    def minus(self, other: _Estimate) -> _Estimate:
        """Return the difference, with leave-one-out means paired by image."""
        return _Estimate(self.mean - other.mean, self.without - other.without, self.between_draws + other.between_draws)
