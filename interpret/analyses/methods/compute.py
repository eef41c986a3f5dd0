"""Compare the maps of several attribution methods, and measure how much each depends on the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.attribution.compute import own_images
from interpret.analyses.attribution.maps import attribution_maps
from interpret.analyses.attribution.settings import Method, Settings, resolve_methods
from interpret.analyses.attribution.similarity import detail, rank_correlation
from interpret.analyses.attribution.target import (
    Target,
    TruncatedModel,
    Window,
    find_target,
    target_names_of,
    visible_windows,
)
from interpret.analyses.methods.result import MethodComparison
from interpret.execution.execution import on_device
from interpret.images.display import inputs_to_bytes
from interpret.network.dry_run import check_answers
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError
from interpret.support.progress import progress


@torch.inference_mode(False)
def compare_methods(
    model: Model | nn.Module,
    images: Any,
    methods: Sequence[Method] | None = None,
    target: int | str | Sequence[int | str] | Tensor | None = None,
    layer: str | None = None,
    position: Sequence[int] | Tensor | None = None,
    other: int | str | Sequence[int | str] | Tensor | None = None,
    *,
    items: Sequence[int] | None = None,
    cam_layer: str | None = Settings.cam_layer,
    baseline: float = Settings.baseline,
    points: int = Settings.points,
    samples: int = Settings.samples,
    noise: float = Settings.noise,
    window: int | None = Settings.window,
    stride: int | None = Settings.stride,
    superpixels: int = Settings.superpixels,
    passes: int = Settings.passes,
    seed: int = Settings.seed,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> MethodComparison:
    """Compare attribution methods on the same targets, and measure how much each map depends on the target.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> compared = compare_methods(network, torch.rand(2, 1, 8, 8), ["gradient", "deconvnet"])
    >>> compared.maps["gradient"].shape, compared.same_for_other["deconvnet"].shape
    ((2, 8, 8), (2,))

    Draw the result with `interpret.plot(compared)`. It holds two measures per map:

    - `same_for_other`: the rank correlation of the map's magnitude (summed over colours) with that of the map for
      another class. Near 1, the map hardly depends on the class.
    - `same_as_image`: the rank correlation of the signed map (summed over colours) with the fine detail of the image:
      its grey values minus its grey values blurred by 2 pixels. Near 1, the map recovers the image.

    Both are computed within the target's receptive field, since all maps are zero outside.

    Args:
        model, images, target, layer, position, items: as in `interpret.attribute`, and so are all from `cam_layer` on.
        methods: the methods to compare, by name; None: all.
        other: the class to compare with; None: the class with the highest score besides the target (for a layer, the
            channel with the highest activation at the same position).

    Returns:
        a `MethodComparison` with, for each method, the maps [B, H, W] and both measures [B].

    Raises:
        InterpretError: as `interpret.attribute`; the network has a single output; `other` equals the target.

    Source: Nie, Zhang & Patel, "A theoretical explanation for perplexing behaviors of backpropagation-based
    visualizations", 2018, which shows in pictures that the deconvnet and guided backpropagation recover the image and
    hardly depend on the class. The two measures are this project's own.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "compare_methods", "it compares maps over rows and columns")
    chosen = resolve_methods(methods)
    how = Settings(
        cam_layer, baseline, points, samples, noise, window, stride, superpixels, passes, seed, batch_size
    )  # fmt: skip
    opened = own_images(model, images, items)
    images = opened.tensor
    with on_device(model.module, device) as place:
        images = images.to(place)
        check_answers(model, images, layer)
        truncated = TruncatedModel(model.module, layer)
        resolved = find_target(model, truncated, images, target, position, how.images_per_pass)
        alternative = _alternative(model, truncated, images, resolved, other, how.images_per_pass)
        windows = visible_windows(model, truncated, images, resolved)
        with progress(2 * len(chosen) * len(images), "comparing methods", "map") as bar:
            raw, others = (
                {
                    method: _as_float64(attribution_maps(model, truncated, images, one, method, how, bar.update))
                    for method in chosen
                }
                for one in (resolved, alternative)
            )
    pictures = inputs_to_bytes(images, opened.images.pixel_scale)
    details = np.stack([detail(picture) for picture in pictures])
    return MethodComparison(
        model=model.name,
        layer=layer,
        pictures=pictures,
        shown=opened.images.pixel_scale.said,
        maps={method: maps.sum(1, dtype=np.float32) for method, maps in raw.items()},
        targets=resolved.channels.cpu().numpy(),
        others=alternative.channels.cpu().numpy(),
        target_names=target_names_of(model, layer, resolved),
        other_names=target_names_of(model, layer, alternative),
        scores=resolved.scores.double().cpu().numpy(),
        other_scores=alternative.scores.double().cpu().numpy(),
        same_for_other={
            method: _correlations(magnitude(raw[method]), magnitude(others[method]), windows) for method in chosen
        },
        same_as_image={method: _correlations(raw[method].sum(1), details, windows) for method in chosen},
        settings=how.changed(),
    )


def magnitude(maps: NDArray[Any]) -> NDArray[Any]:
    """Return the sum over colours of the magnitudes of maps [..., C, H, W]."""
    return np.asarray(np.abs(maps).sum(-3))


def _as_float64(maps: Tensor) -> NDArray[np.float64]:
    return maps.double().cpu().numpy()


def _correlations(ones: NDArray[Any], others: NDArray[Any], windows: list[Window]) -> NDArray[np.float64]:
    pairs = zip(ones, others, windows, strict=True)
    return np.array([rank_correlation(one[window], other[window]) for one, other, window in pairs])


def _alternative(
    model: Model, truncated: TruncatedModel, images: Tensor, resolved: Target, other: Any, batch_size: int
) -> Target:
    """Return the target to compare with, at the same position."""
    if other is not None:
        alternative = find_target(model, truncated, images, other, resolved.positions, batch_size)
        if bool((alternative.channels == resolved.channels).any()):
            raise InterpretError(f"other {other} is the target itself: choose another, or leave it out")
        return alternative
    with torch.no_grad():
        output = torch.cat([truncated(part) for part in images.split(batch_size)])
    at = torch.arange(len(images), device=output.device)
    values = output if resolved.positions is None else output[at, :, resolved.positions[:, 0], resolved.positions[:, 1]]
    if values.shape[1] < 2:
        raise InterpretError(f"{truncated.name} has a single unit: there is no other to compare its maps with")
    values = values.clone()
    values[at, resolved.channels] = -torch.inf
    return find_target(model, truncated, images, values.argmax(1), resolved.positions, batch_size)
