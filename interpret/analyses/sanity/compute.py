"""Check whether the maps of attribution methods depend on the weights that a network has learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.attribution.cam_layer import find_cam_layer
from interpret.analyses.attribution.compute import own_images
from interpret.analyses.attribution.maps import attribution_maps
from interpret.analyses.attribution.settings import Method, Settings, resolve_methods
from interpret.analyses.attribution.similarity import rank_correlation, scaled, structural_similarity
from interpret.analyses.attribution.target import (
    Target,
    TruncatedModel,
    Window,
    find_target,
    target_names_of,
    visible_windows,
)
from interpret.analyses.methods.compute import magnitude
from interpret.analyses.sanity.result import SanityCheck
from interpret.execution.execution import on_device
from interpret.images.display import inputs_to_bytes
from interpret.network.dry_run import check_answers
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.network.weights import copied, draw_again, held_by, named_layers
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import progress

DEFAULT_STEPS = 10
TrainedWeights = dict[str, dict[str, Tensor]]
"""The trained values of each layer's own tensors, by layer and name."""
MOST_DRAWS = 20
"""The largest number of times that random weights are drawn, if they give the target a zero gradient."""


@torch.inference_mode(False)
def sanity_check(
    model: Model | nn.Module,
    images: Any,
    methods: Sequence[Method] | None = None,
    target: int | str | Sequence[int | str] | Tensor | None = None,
    layer: str | None = None,
    position: Sequence[int] | Tensor | None = None,
    steps: int | None = DEFAULT_STEPS,
    seed: int = 0,
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
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> SanityCheck:
    """Compare each method's maps before and after randomising the network's weights, layer by layer from the top.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    >>> check = sanity_check(network, torch.rand(2, 1, 8, 8), ["gradient", "guided"])
    >>> check.steps, check.depths
    (['', '4', '2', '0'], array([0, 1, 2, 3]))
    >>> check.rank["guided"].shape, check.rank["gradient"][:, 0]
    ((2, 4), array([1., 1.]))

    A map that stays the same under randomised weights does not show what the network has learnt. The layers are the
    modules that hold weights themselves, in the order in which they run. Each layer is reinitialised by its own
    `reset_parameters`; if that changes no weight, its weights are permuted. The target, Grad-CAM's layer and the
    superpixels remain those of the trained network. The trained weights are restored at the end.

    Maps are compared within the target's receptive field, since all maps are zero outside. The measures are the
    paper's: Spearman's rank correlation of the maps' magnitudes and of the signed maps, and structural similarity
    (SSIM). The paper does not say how it scales maps for SSIM. Here, each map is divided by the 99th percentile of its
    magnitude, as in the figure, and compared in the window of Wang et al. 2004.

    In a network that ends in a rectifier, such as SqueezeNet, random weights may make the target zero, and with it all
    gradients. This says nothing about the methods, so the weights are then drawn again, up to 20 times. If a map is
    still zero everywhere, its similarity is NaN.

    Args:
        model, images, target, layer, position, items: as in `interpret.attribute`, and so are all from `cam_layer` on.
        methods: the methods to check, by name; None: all.
        steps: number of steps from no layer to all layers, as equal as possible; None: one step per layer.
        seed: seed of the random weights, of SmoothGrad's noise and of KernelSHAP's choice of regions.

    Returns:
        a `SanityCheck` with each method's similarities [B, S] to the trained network's map, for S steps.

    Raises:
        InterpretError: as `interpret.attribute`; no weights below the target; fewer than 1 step.

    Source: Adebayo et al., "Sanity checks for saliency maps", 2018, section 3.1 (cascading randomisation).
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "sanity_check", "it compares maps over rows and columns")
    chosen = resolve_methods(methods)
    refuse_below_one(steps=steps)
    how = Settings(
        cam_layer, baseline, points, samples, noise, window, stride, superpixels, passes, seed, batch_size
    )  # fmt: skip
    settings = {name: value for name, value in how.changed().items() if name != "seed"}
    opened = own_images(model, images, items)
    images = opened.tensor
    with on_device(model.module, device) as place, _restored_weights(model.module) as trained:
        images = images.to(place)
        check_answers(model, images, layer)
        truncated = TruncatedModel(model.module, layer)
        resolved = find_target(model, truncated, images, target, position, how.images_per_pass)
        if how.cam_layer is None and {"gradcam", "guided_gradcam"} & set(chosen):
            how = Settings(**vars(how) | {"cam_layer": find_cam_layer(truncated, images[:1], resolved[:1])})
        from_top = layers_with_weights(truncated, images[:1])[::-1]
        if not from_top:
            raise InterpretError(f"{truncated.name} depends on no weights: there is nothing to randomise")
        depths = np.unique(np.linspace(0, len(from_top), (steps or len(from_top)) + 1).round().astype(np.int64))
        windows = visible_windows(model, truncated, images, resolved)
        found: list[dict[str, NDArray[np.float64]]] = []
        draws: list[int] = []
        with progress(len(depths) * len(chosen) * len(images), "sanity check", "map") as bar:
            for depth in depths.tolist():
                draw = draws[-1] if draws else 0
                draws.append(_randomise_top(truncated, trained, images, resolved, from_top[:depth], how, draw))
                found.append({})
                for method in chosen:
                    maps = attribution_maps(model, truncated, images, resolved, method, how, bar.update)
                    if not bool(maps.isfinite().all()):
                        raise InterpretError(
                            f"the maps of {method!r} are not finite with {depth} layers randomised: leave it out"
                        )
                    found[-1][method] = maps.double().cpu().numpy()
    return SanityCheck(
        model=model.name,
        layer=layer,
        steps=["", *(from_top[depth - 1] for depth in depths[1:])],
        depths=depths,
        layers=len(from_top),
        rank=_similarities(found, windows, lambda one, other: rank_correlation(magnitude(one), magnitude(other))),
        rank_signed=_similarities(found, windows, lambda one, other: rank_correlation(one.sum(0), other.sum(0))),
        ssim=_similarities(found, windows, _ssim_of_magnitudes),
        pictures=inputs_to_bytes(images, opened.images.pixel_scale),
        shown=opened.images.pixel_scale.said,
        maps={
            method: np.stack([scaled(maps[method][0].sum(0)) for maps in found]).astype(np.float16) for method in chosen
        },
        target_names=target_names_of(model, layer, resolved),
        seed=seed,
        draws=np.array(draws),
        settings=settings,
    )


@contextmanager
def _restored_weights(network: nn.Module) -> Iterator[TrainedWeights]:
    """Yield a copy of all trained weights, and restore them at the end."""
    held = {name: held_by(layer) for name, layer in named_layers(network)}
    trained = {name: {key: tensor.detach().clone() for key, tensor in own.items()} for name, own in held.items()}
    try:
        yield trained
    finally:
        with torch.no_grad():
            for name, own in held.items():
                for key, tensor in own.items():
                    tensor.copy_(trained[name][key])


def _randomise_top(
    truncated: TruncatedModel,
    trained: TrainedWeights,
    images: Tensor,
    resolved: Target,
    layers: list[str],
    how: Settings,
    draw: int,
) -> int:
    """Randomise the topmost layers so that the target has a gradient on each image; return the number of the draw."""
    answering: dict[int, int] = {}
    for attempt in range(draw, draw + MOST_DRAWS):
        _draw_weights(truncated, trained, layers, how.seed, attempt)
        answering[attempt] = _count_with_gradient(truncated, images, resolved, how.images_per_pass)
        if not layers or answering[attempt] == len(images):
            return attempt
    best = max(answering, key=lambda attempt: answering[attempt])
    _draw_weights(truncated, trained, layers, how.seed, best)
    return best


def _draw_weights(truncated: TruncatedModel, trained: TrainedWeights, layers: list[str], seed: int, draw: int) -> None:
    for place, name in enumerate(layers):
        layer = truncated.network.get_submodule(name)
        # start from the trained weights: they may be permuted
        with torch.no_grad():
            for key, tensor in held_by(layer).items():
                tensor.copy_(trained[name][key])
        # a seed for each layer, so that layers of equal shape get different weights
        randomise(layer, int(np.random.SeedSequence([seed, draw, place]).generate_state(1)[0]))


def _count_with_gradient(truncated: TruncatedModel, images: Tensor, resolved: Target, batch_size: int) -> int:
    """Return the number of images on which the target's score has a gradient that is not zero."""
    found = 0
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        with torch.enable_grad():
            x = images[part].clone().requires_grad_()
            score = resolved[part].of(truncated(x)).sum()
            if not score.requires_grad:
                return 0
            (gradient,) = torch.autograd.grad(score, x)
        found += int((gradient.flatten(1) != 0).any(1).sum())
    return found


def _similarities(
    found: list[dict[str, NDArray[np.float64]]],
    windows: list[Window],
    compare: Callable[[NDArray[Any], NDArray[Any]], float],
) -> dict[str, NDArray[np.float64]]:
    """Return for each method the similarities [B, S] of its maps to those of the trained network, within `windows`.

    NaN where a map is constant.
    """

    def similarity(step: int, method: str, row: int) -> float:
        one, other = (found[at][method][row][:, *windows[row]] for at in (0, step))
        return np.nan if np.ptp(one) == 0 or np.ptp(other) == 0 else compare(one, other)

    return {
        method: np.array([[similarity(step, method, row) for step in range(len(found))] for row in range(len(windows))])
        for method in found[0]
    }


def _ssim_of_magnitudes(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return structural_similarity(scaled(magnitude(one)), scaled(magnitude(other)))


def layers_with_weights(truncated: TruncatedModel, image: Tensor) -> list[str]:
    """Return the modules that hold weights themselves, in the order in which they run up to the target.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    >>> layers_with_weights(TruncatedModel(network, None), torch.zeros(1, 1, 4, 4))
    ['0', '1', '3']
    """
    names: list[str] = []
    handles = [
        part.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, part in named_layers(truncated.network)
        if any(isinstance(tensor, nn.Parameter) for tensor in held_by(part).values())
    ]
    try:
        with torch.no_grad():
            truncated(image)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(names))


def randomise(layer: nn.Module, seed: int = 0) -> None:
    """Draw a layer's weights anew, the same for the same seed; the state of the random generator is restored.

    >>> layer = nn.Linear(2, 2)
    >>> randomise(layer)
    >>> before = layer.weight.clone()
    >>> randomise(layer)
    >>> torch.equal(layer.weight, before)
    True

    The layer's own `reset_parameters` draws them. Weights that it does not change, such as those that a hook computes
    from others, are permuted.
    """
    # drawn on the CPU, so that the weights are the same on every device
    here = all(tensor.device.type == "cpu" for tensor in held_by(layer).values())
    drawn = layer if here else copied(layer).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        draw_again(drawn)
    if not here:
        layer.load_state_dict(drawn.state_dict())
