"""Synthesis: make the image that a neuron, unit, class, layer or direction responds to most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.analyses.synthesis.components import (
    FEWEST,
    LARGEST,
    Components,
    PrincipalComponents,
    natural_components,
    suit_components,
)
from interpret.analyses.synthesis.cone import Part
from interpret.analyses.synthesis.natural import Strongest, natural_windows, strongest_natural
from interpret.analyses.synthesis.objectives import OUTPUT, Kind, Objective, objectives_of
from interpret.analyses.synthesis.optimisation import Climb, Climbed, climb, run_layers, values_of
from interpret.analyses.synthesis.parametrisation import (
    LARGEST_DECAY,
    NAMES,
    Colours,
    Parametrisation,
    colours_of,
    contrast_for,
    decay_for,
    first_noise,
    natural_magnitudes,
    parametrise,
    rate_for,
)
from interpret.analyses.synthesis.parametrisation import Name as ParametrisationName
from interpret.analyses.synthesis.pixels import to_inputs, to_pixels
from interpret.analyses.synthesis.result import DAMAGES, Synthesised
from interpret.analyses.synthesis.robustness import Robustness, centre
from interpret.analyses.synthesis.scene import Scene, in_cone, set_scene
from interpret.analyses.synthesis.truth import damaged, describe_images, distances_to, early_layers
from interpret.execution.batch_size import batch_size_for
from interpret.execution.execution import Execution, on_device, prepared, warn_of_slow_type
from interpret.execution.parallel import images_at_once, torch_threads
from interpret.images.display import inputs_to_bytes
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.network.answers import scores_of
from interpret.network.forward import call_network, weights_type
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.network.pixel_scale import PixelScale
from interpret.support.errors import InterpretError, refuse_below_one, unknown, warn
from interpret.support.progress import progress
from interpret.tracing.meta_trace import trace_on_meta

STEPS = 160
LARGEST_CROPS = 8
"""The largest default batch on a processor: more take as long each, and leave cores idle."""
PIXELS_AT_ONCE = 2 * 224 * 224
"""The most pixels of a default batch on a processor: two large images share the reading of weights, a fourth of the
time of deep layers; more leave cores idle."""


@torch.inference_mode(False)  # the caller may be in inference mode
def synthesise(
    model: Model | nn.Module,
    layer: str | Objective | Sequence[Objective] | None = None,
    units: int | Iterable[int] | None = None,
    kind: Kind = "neuron",
    *,
    directions: Any = None,
    negative: bool = False,
    versions: int = 1,
    diversity: float = 1.0,
    natural: Any = None,
    parametrisation: ParametrisationName = "auto",
    decay: float | None = None,
    contrast: float | Literal["auto"] | None = "auto",
    colours: Any = "imagenet",
    start: Any = None,
    size: int | Sequence[int] | None = None,
    steps: int = STEPS,
    rate: float | None = None,
    robustness: Robustness | str | None = "auto",
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Synthesised:
    """Optimise images for neurons, units, classes, a layer, or directions, and measure how true they are.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))
    >>> found = synthesise(network, "3", [0, 2], size=(3, 32, 32), steps=8)
    >>> found.pictures.shape  # a neuron's image has the size of its receptive field
    (2, 10, 10, 3)
    >>> both = Objective.unit("3", 0) - 0.5 * Objective.unit("3", 1)
    >>> synthesise(network, both, size=(3, 32, 32), steps=8).names
    ['unit 0 of 3 − 0.5·unit 1 of 3']

    The kinds are "neuron" (a unit at one position), "unit" (the mean of its map), "class" (an output of the network,
    before a softmax that the network does not contain) and "layer" (the mean square of all activations: DeepDream). For
    neurons, only the part of an image that they see is run, so that shallow layers take little time.

    Give `natural=` images, or what `mine` returned, to have beside each optimised image the strongest natural one, how
    much both keep after JPEG compression, a shift and a blur, and the distance to natural images. An image that does
    not beat the natural ones says little about its unit.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        layer: the layer of the units; or one or several objectives; None for classes.
        units: the units or classes; None: all of them.
        kind: what is maximised.
        directions: [n, C] or [C], weights of the layer's channels, instead of units.
        negative: minimise instead: the image that silences the unit.
        versions: the number of images for each objective.
        diversity: how strongly versions of one objective are made different, 0 for not at all.
        natural: natural images, or the result of `mine`, to compare with.
        parametrisation: "fourier": the coefficients of waves; "components": those of the principal components of the
            natural images, so that an image varies where and as they vary, for units that see whole inputs of at most
            64 × 64 pixels, and 256 natural images at least; "auto": components where they can be taken, and no start,
            decay or colours are given, else fourier; "pixels"; or "maco": the magnitudes of the natural images, or of
            `start`, stay, and only phases are optimised. Without either, magnitudes are proportional to the wavelength.
        decay: for "fourier": how much coarse waves come before fine ones, as a power of the wavelength. 1 is that of
            natural images and shows the finest detail, 2 shows shapes. None: what suits the size of the image.
        contrast: the largest contrast of an image, the root mean square of its pixels' logits from the neutral pixel's
            (1.4 from grey is an even 0.2 or 0.8): it shows what the unit needs, and stays neutral elsewhere. Neutral is
            what the preprocessing turns into zero. "auto": 1.4, more from a neutral pixel that is not grey, and no
            limit below 12 pixels; with "components", from the mean image, what natural images have. None, or with
            "maco" or `start`: no limit.
        colours: the correlation of the channels: "imagenet" for three channels, "data" for that of `natural`, a matrix
            [C, C], or None. Other numbers of channels are independent with "imagenet". Components have their own.
        start: an input [C, H, W] or [n, C, H, W] to start from; None: noise. Of whole inputs, the centre is taken for
            neurons; a patch must have the size of the receptive field.
        size: height and width of the image, one number for both, or (C, H, W) for a network that does not say how many
            channels it takes. None: the receptive field for neurons of one layer, else the network's input.
        steps: the number of steps of Adam.
        rate: the step of Adam; None: 0.2, and 0.05 for images below 12 pixels.
        robustness: the random movements of each step: "auto", None, or a `Robustness`.
        seed: seed of the noise and the movements. An image does not depend on the others that are made with it, but for
            other versions of its objective.
        batch_size, device: see `interpret`. Versions of one objective are always in one batch.
        dtype: `torch.bfloat16` or `torch.float16`: optimise under autocast, faster and less precise.

    Returns:
        `Synthesised`, with one row per image: for each objective its versions.

    Raises:
        InterpretError: an unknown layer, unit, class, kind or parametrisation; a direction of another length; a size
            smaller than a receptive field; no steps; a network that cannot be differentiated up to the layer;
            activations that are NaN at the first step.

    Warns:
        UserWarning: an activation became NaN or infinite: its image is that of the step before.

    Source: Erhan et al., "Visualizing higher-layer features of a deep network", 2009; Olah, Mordvintsev & Schubert,
    "Feature visualization", Distill, 2017; Fel et al. 2023 (MACO); Haufe et al. 2014 (components). Borowski et al. 2021
    find that natural images explain activations better than optimised ones: look at both.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "synthesise", "it optimises colours in rows and columns")
    task = _check(
        model, layer, units, kind, directions, negative, versions, diversity, natural, parametrisation, decay, contrast,
        colours, start, size, steps, rate, robustness, seed,
    )  # fmt: skip
    with prepared(model, task.first, device, _until(task.objectives)) as run:
        warn_of_slow_type(run.device, dtype)
        climbed = _run(model, task, run, batch_size, dtype)
        result = _aggregate(model, task, climbed)
        _measure(model, task, run, result, climbed.canvases, batch_size)
    _report_stopped(result)
    return result


# ---- check -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """The validated arguments."""

    objectives: list[Objective]
    """One for each row: all versions of the first objective, then of the second …"""
    units: list[int]
    versions: list[int]
    scene: Scene
    settings: Climb
    scale: PixelScale
    colours: Colours
    parametrisation: str
    decay: float
    contrast: float | None
    start: Tensor | None
    """[1 or n, C, h + 2p, w + 2p] pixels."""
    magnitudes: Tensor | None
    components: PrincipalComponents | None
    natural: Images | None
    windows: Tensor | None
    """[m, C, h, w] natural windows of the size of what is shown."""
    mined: Mined | MinedLayer | None
    seed: int
    target: str
    layer: str
    first: Tensor
    """[1, C, H, W] an input, to try the network."""
    described: dict[str, Any]

    @property
    def sign(self) -> float:
        return self.settings.sign


def _check(
    model: Model,
    layer: Any,
    units: Any,
    kind: str,
    directions: Any,
    negative: bool,
    versions: int,
    diversity: float,
    natural: Any,
    parametrisation: str,
    decay: float | None,
    contrast: float | str | None,
    colours: Any,
    start: Any,
    size: Any,
    steps: int,
    rate: float | None,
    robustness: Robustness | str | None,
    seed: int,
) -> _Task:
    """Validate the arguments before the network runs."""
    refuse_below_one(steps=steps, versions=versions)
    if (rate is not None and not rate > 0) or diversity < 0:
        raise InterpretError(f"rate must be above 0 and diversity at least 0, not {rate} and {diversity}")
    if decay is not None and not 0 <= decay <= LARGEST_DECAY:
        raise InterpretError(f"decay must be a power from 0 to {LARGEST_DECAY}, not {decay}")
    if contrast not in (None, "auto") and (isinstance(contrast, str) or not contrast > 0):
        raise InterpretError(f"contrast must be above 0, 'auto', or None for no limit, not {contrast!r}")
    if parametrisation not in NAMES:
        raise unknown("parametrisation", parametrisation, NAMES)
    images, mined = _natural_images(natural, model)
    whole, chosen_size = _input_shape(model, images, start, size)
    objectives, own_units, target = _objectives(model, layer, units, kind, directions, whole, chosen_size)
    scene = _scene(model, objectives, whole, chosen_size)
    outputs = {OUTPUT: _classes(model, scene.shape)} if any(OUTPUT in one.layers for one in objectives) else {}
    for objective in objectives:
        objective.check(scene.channels | outputs)
    rate = rate_for(scene.side) if rate is None else rate
    scale = _scale(model, images)
    plain = start is None and decay is None and isinstance(colours, str) and colours == "imagenet"
    by_components = _by_components(parametrisation, images, scene, plain)
    moves = _robustness(robustness, scene.side, by_components)
    components = natural_components(images, moves.padding) if by_components and images is not None else None
    if parametrisation == "auto":
        parametrisation = "fourier" if components is None else "components"
    windows = None if images is None else natural_windows(images, scene.shown)
    padded = (scene.shape[1] + 2 * moves.padding, scene.shape[2] + 2 * moves.padding)
    natural_pixels = None if windows is None else to_pixels(windows, scale)
    space, colours_said = colours_of(colours, whole[0], scale, natural_pixels)
    limit = contrast
    if isinstance(contrast, str):
        limit = contrast_for(scene.side, space) if components is None else components.contrast
    power = decay_for(scene.side) if decay is None else float(decay)
    magnitudes = None
    if parametrisation == "maco" and images is not None and start is None:
        large = natural_windows(images, padded)
        if large is not None:
            magnitudes = natural_magnitudes(space, to_pixels(large, scale))
    rows = [
        (one, unit, version) for one, unit in zip(objectives, own_units, strict=True) for version in range(versions)
    ]
    layers = frozenset().union(*(one.layers for one in objectives))
    positions = scene.positions
    settings = Climb(
        int(steps), float(rate), moves, float(diversity) if versions > 1 else 0.0, -1.0 if negative else 1.0,
        partial(to_inputs, scale=scale, dtype=weights_type(model.module)), positions, layers,
        scene.layouts, part=scene.part,
    )  # fmt: skip
    return _Task(
        objectives=[one for one, _, _ in rows],
        units=[unit for _, unit, _ in rows],
        versions=[version for _, _, version in rows],
        scene=scene,
        settings=settings,
        scale=scale,
        colours=space,
        parametrisation=parametrisation,
        decay=power,
        contrast=None if limit is None else float(limit),
        start=None if start is None else _start(start, scene, moves, scale, len(objectives), versions),
        magnitudes=magnitudes,
        components=components,
        natural=images,
        windows=windows,
        mined=mined,
        seed=int(seed),
        target=target,
        layer=next(iter(layers)) if len(layers) == 1 else "",
        first=_blank(model, scene.crop_shape),
        described={
            "parametrisation": parametrisation,
            "magnitudes": ("natural" if magnitudes is not None else "start" if start is not None else "wavelength")
            if parametrisation == "maco"
            else "",
            "decay": power if parametrisation == "fourier" else None,
            "contrast": None if limit is None or parametrisation == "maco" or start is not None else float(limit),
            "colours": colours_said if components is None else "data",
            "steps": int(steps),
            "rate": float(rate),
            "robustness": moves.settings,
            "diversity": float(diversity) if versions > 1 else 0.0,
            "seed": int(seed),
            "start": start is not None,
            "ran": list(scene.shape),
        },
    )


def _by_components(parametrisation: str, images: Images | None, scene: Scene, plain: bool) -> bool:
    """Return whether principal components of the natural images are optimised."""
    if parametrisation not in ("auto", "components"):
        return False
    whole = scene.shown == scene.shape[1:]
    suited = plain and whole and images is not None and suit_components(images, scene.shape)
    if parametrisation == "components" and not suited:
        raise InterpretError(
            f"parametrisation='components' needs natural= with {FEWEST} images of at most {LARGEST:,} pixels and units "
            "that see whole ones, without start, decay or colours: take 'fourier'"
        )
    return suited


def _natural_images(natural: Any, model: Model) -> tuple[Images | None, Mined | MinedLayer | None]:
    """Return the natural images, and what was mined in them."""
    if natural is None:
        return None, None
    if isinstance(natural, Mined | MinedLayer):
        return natural.subject.both()[1], natural
    return open_images(natural, model), None


def _input_shape(
    model: Model, images: Images | None, start: Any, size: Any
) -> tuple[tuple[int, int, int], tuple[int, int] | None]:
    """Return the shape of an input of the network, and the size that was asked for."""
    given = [size, size] if isinstance(size, int) else None if size is None else [int(one) for one in size]
    if given is not None and (len(given) not in (2, 3) or min(given) < 1):
        raise InterpretError(f"size must be a number of pixels, (height, width) or (C, H, W), not {size!r}")
    if given is not None and len(given) == 3:
        return (given[0], given[1], given[2]), None
    asked = None if given is None else (given[0], given[1])
    if model.preprocess is not None:
        return model.input_shape, asked
    if images is not None:
        channels, height, width = images[0][0].shape
        return (channels, height, width), asked
    if isinstance(start, Tensor) and start.dim() in (3, 4):
        channels, height, width = start.shape[-3:]
        return (channels, height, width), asked
    raise InterpretError(
        f"model {model.name!r} does not say what its input looks like: give size=(C, H, W), or "
        f"{model.preprocess_remedy}"
    )


def _objectives(
    model: Model,
    layer: Any,
    units: Any,
    kind: str,
    directions: Any,
    whole: tuple[int, int, int],
    size: tuple[int, int] | None,
) -> tuple[list[Objective], list[int], str]:
    """Return the objectives, the unit of each (−1 for none) and what kind they are."""
    if layer is not None and not isinstance(layer, str):
        given = [layer] if isinstance(layer, Objective) else list(layer)
        if not given or not all(isinstance(one, Objective) for one in given):
            raise InterpretError(f"layer must be a layer's name or objectives, not {layer!r}")
        return given, [-1] * len(given), "objective"
    if kind == "class" and layer is not None:
        raise InterpretError(f"classes are outputs of the network, not of layer {layer!r}: leave layer out")
    if directions is not None or kind == "layer":
        found = objectives_of(kind, layer, [], directions)
        return found, [-1] * len(found), "layer" if kind == "layer" else "direction"
    if units is None:
        shape = whole if size is None else (whole[0], *size)
        if kind == "class":
            units = range(_classes(model, shape))
        elif layer is not None:
            units = range(set_scene(model.module, [Objective.neuron(layer, 0)], whole, None).channels[layer])
        else:
            units = []
    chosen = [int(units)] if isinstance(units, int | np.integer) else [int(one) for one in units]
    found = objectives_of(kind, layer, chosen, None)
    if not found:
        raise InterpretError("units is empty: name at least one, or leave it out for all")
    return found, chosen, kind


def _scene(
    model: Model, objectives: Sequence[Objective], whole: tuple[int, int, int], size: tuple[int, int] | None
) -> Scene:
    """Return the scene of objectives, in which only what neurons see runs where the network allows it."""
    scene = set_scene(model.module, objectives, whole, size)
    if scene.crop is None:
        return scene
    with on_device(model.module) as device:
        return in_cone(model.module, scene, device)


def _blank(model: Model, shape: tuple[int, int, int]) -> Tensor:
    """Return an input of zeros, [1, C, H, W]."""
    return torch.zeros(1, *shape, dtype=weights_type(model.module))


def _classes(model: Model, shape: tuple[int, int, int]) -> int:
    """Return the number of outputs of a network for an image."""
    with prepared(model, _blank(model, shape)) as run, torch.no_grad():
        inputs = run.place(_blank(model, shape))
        return scores_of(call_network(model.module, inputs), 1).shape[1]


def _scale(model: Model, images: Images | None) -> PixelScale:
    if images is not None:
        return images.pixel_scale
    if model.preprocess is not None:
        return model.preprocess.pixel_scale
    return PixelScale(said="Inputs are shown from 0 (black) to 1 (white), the range in which they were optimised.")


def _robustness(chosen: Any, side: int, by_components: bool) -> Robustness:
    if chosen is None:
        return Robustness()
    if isinstance(chosen, Robustness):
        return chosen
    if chosen != "auto":
        raise InterpretError(f"robustness must be 'auto', None or a Robustness, not {chosen!r}")
    return Robustness.for_components(side) if by_components else Robustness.for_size(side)


def _start(start: Any, scene: Scene, moves: Robustness, scale: PixelScale, objectives: int, versions: int) -> Tensor:
    """Return the pixels [1 or n, C, h + 2p, w + 2p] of canvases that begin as the given inputs."""
    given = torch.as_tensor(start).detach().float().cpu()
    given = given[None] if given.dim() == 3 else given
    sizes = {tuple(scene.shown), tuple(scene.shape[1:]), tuple(scene.whole[1:])}
    if given.dim() != 4 or given.shape[1] != scene.shape[0] or tuple(given.shape[2:]) not in sizes:
        raise InterpretError(
            f"start must be inputs [C, H, W] or [n, C, H, W] of {' or '.join(f'{h} × {w}' for h, w in sorted(sizes))} "
            f"pixels and {scene.shape[0]} channels, not of shape {list(given.shape)}"
        )
    if len(given) not in (1, objectives):
        raise InterpretError(f"start must be one image, or one for each objective ({objectives}), not {len(given)}")
    pixels = to_pixels(given, scale)
    top, left, bottom, right = scene.window
    if tuple(given.shape[2:]) == scene.shown:
        around = (left, scene.shape[2] - right, top, scene.shape[1] - bottom)
    else:
        corner = (
            scene.part.corner
            if scene.part is not None and tuple(given.shape[2:]) == scene.part.whole
            else tuple((have - run) // 2 for have, run in zip(given.shape[2:], scene.shape[1:], strict=True))
        )
        pixels = pixels[:, :, corner[0] : corner[0] + scene.shape[1], corner[1] : corner[1] + scene.shape[2]]
        around = (0, 0, 0, 0)
    around = tuple(side + moves.padding for side in around)  # type: ignore[assignment]
    pixels = nn.functional.pad(pixels, around, mode="replicate")
    return pixels.repeat_interleave(versions, 0) if len(pixels) > 1 else pixels


def _until(objectives: Sequence[Objective]) -> frozenset[str] | None:
    layers = frozenset().union(*(one.layers for one in objectives))
    return None if OUTPUT in layers else layers


# ---- run -------------------------------------------------------------------------------------------------------------


def _run(model: Model, task: _Task, run: Execution, batch_size: int | None, dtype: torch.dtype | None) -> Climbed:
    """Optimise all images in batches; versions of one objective are in one batch."""
    versions = max(task.versions) + 1
    together = max(1, _images_at_once(task, run, batch_size) // versions) * versions
    parts = torch.arange(len(task.objectives)).split(together)
    lock = Lock()
    with progress(len(parts) * task.settings.steps, f"optimising {task.target} images", "step") as bar:

        def on_step() -> None:
            with lock:
                bar.update()

        jobs = (
            partial(_climb_part, rows=part.tolist(), task=task, run=run, dtype=dtype, on_step=on_step) for part in parts
        )
        if len(parts) > 1:
            found = list(run.side_by_side(jobs))
        else:  # no copies of the network for workers; for small images, several threads wait more than they run
            large = task.scene.shape[1] * task.scene.shape[2] > PIXELS_AT_ONCE // 4
            with torch_threads(torch.get_num_threads() if large else 1):
                found = [job(run.module) for job in jobs]
    return Climbed(
        torch.cat([one.canvases for one in found]),
        np.concatenate([one.curves for one in found]),
        np.concatenate([one.redirected for one in found]),
        np.concatenate([one.stopped for one in found]),
    )


def _images_at_once(task: _Task, run: Execution, batch_size: int | None) -> int:
    if batch_size is not None or run.device.type != "cpu":
        return batch_size_for(batch_size, 1, run.device)
    return min(LARGEST_CROPS, max(1, PIXELS_AT_ONCE // (task.scene.shape[1] * task.scene.shape[2])))


def _climb_part(
    module: nn.Module,
    rows: list[int],
    task: _Task,
    run: Execution,
    dtype: torch.dtype | None,
    on_step: Callable[[], None],
) -> Climbed:
    """Optimise some of the images."""
    seeds = [_seed(task, row) for row in rows]
    padding = task.settings.robustness.padding
    channels, height, width = task.scene.shape
    start = None if task.start is None else (task.start[rows] if len(task.start) > 1 else task.start)
    if start is not None:
        start = start.expand(len(rows), -1, -1, -1).to(run.device)
    images: Parametrisation
    if task.components is not None:
        noise = first_noise(seeds, (len(task.components.variances),)).to(run.device)
        images = Components(task.components, noise, task.contrast)
    else:
        noise = first_noise(seeds, (channels, height + 2 * padding, width + 2 * padding)).to(run.device)
        images = parametrise(
            task.parametrisation, task.colours, noise, start, task.magnitudes, task.decay, task.contrast
        )
    numbers = {str(one): place for place, one in enumerate(dict.fromkeys(map(str, task.objectives)))}
    groups = torch.tensor([numbers[str(task.objectives[row])] for row in rows])
    generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
    autocast = nullcontext if dtype is None else partial(run.autocast, dtype)
    settings = replace(task.settings, layout=run.layout)
    return climb(
        module, images, [task.objectives[row] for row in rows], groups, generators, settings, autocast, on_step
    )


def _seed(task: _Task, row: int) -> int:
    """Return the seed of an image, which does not depend on the others."""
    unit = task.units[row] if task.units[row] >= 0 else 1_000_000 + row
    return int(np.random.SeedSequence([abs(task.seed), unit, task.versions[row]]).generate_state(1)[0])


# ---- aggregate -------------------------------------------------------------------------------------------------------


def _aggregate(model: Model, task: _Task, climbed: Climbed) -> Synthesised:
    """Return the result, without what is measured on the images."""
    images = centre(climbed.canvases, task.settings.robustness.padding)
    inputs = task.settings.to_inputs(task.scene.show(images))
    return Synthesised(
        model=model.name,
        layer=task.layer,
        names=[_name(model, one, unit) for one, unit in zip(task.objectives, task.units, strict=True)],
        units=np.array(task.units),
        pictures=inputs_to_bytes(inputs, task.scale),
        values=np.zeros(len(inputs)),
        versions=np.array(task.versions),
        negative=task.sign < 0,
        target=task.target,
        steps=task.settings.noted,
        curves=climbed.curves,
        redirected=climbed.redirected,
        stopped=climbed.stopped,
        settings=task.described,
        data="" if task.natural is None else task.natural.name,
        shown=task.scale.said,
        inputs=inputs,
    )


def _name(model: Model, objective: Objective, unit: int) -> str:
    """Return an objective in words, a class with its name."""
    names = model.classes or ()
    if OUTPUT in objective.layers and 0 <= unit < len(names) and names[unit] != str(unit):
        return f"{objective}, {names[unit]}"
    return str(objective)


def _measure(
    model: Model, task: _Task, run: Execution, result: Synthesised, canvases: Tensor, batch_size: int | None
) -> None:
    """Measure the images' values, what they keep when damaged, and how far they are from natural images."""
    padding, scene = task.settings.robustness.padding, task.scene
    positions = [scene.positions] * len(canvases)

    def measure(
        pixels: Sequence[Tensor], own: Sequence[Objective], at: Sequence[Any], part: Part | None = None
    ) -> NDArray[np.float64]:
        """Return each image's value of its own objective."""
        found = []
        size = batch_size or images_at_once(scene.shape[1] * scene.shape[2])
        for begin in range(0, len(pixels), size):
            some = slice(begin, begin + size)
            inputs = run.place(task.settings.to_inputs(torch.stack(list(pixels[some]))))
            with torch.no_grad():
                outputs = run_layers(model.module, inputs, task.settings.layers, scene.layouts, part=part)
                found.append(values_of(own[some], outputs, at[some]).double().cpu().numpy())
        return np.concatenate(found)

    def kept(
        images: Sequence[Tensor],
        cut: Callable[[Tensor, int], Tensor],
        own: Sequence[Objective],
        at: Sequence[Any],
        whole: NDArray[np.float64],
        part: Part | None = None,
    ) -> dict[str, Any]:
        """Return the share of each value that damaged images keep."""
        shares = {}
        for how in DAMAGES:
            variants = [damaged(image, how, scene.side) for image in images]
            rows = [row for row, many in enumerate(variants) for _ in many]
            flat = [cut(one, row) for row, many in enumerate(variants) for one in many]
            values = measure(flat, [own[row] for row in rows], [at[row] for row in rows], part)
            means = np.bincount(rows, values, len(images)) / np.bincount(rows, minlength=len(images))
            with np.errstate(divide="ignore", invalid="ignore"):
                shares[how] = np.where(whole != 0, means / whole, np.nan)
        return shares

    middle = list(centre(canvases, padding))
    result.values = measure(middle, task.objectives, positions, scene.part)
    if not result.negative:
        result.kept = kept(
            list(canvases), lambda one, _: centre(one, padding), task.objectives, positions, result.values, scene.part
        )
    if task.natural is None:
        return
    first = [row for row, version in enumerate(task.versions) if version == 0]
    strongest = strongest_natural(
        model.module,
        run,
        task.natural,
        [task.objectives[row] for row in first],
        scene,
        task.sign,
        task.mined,
        batch_size,
    )
    shown, values, shares = _natural_beside(task, strongest, first, measure, kept)
    again = [first.index(row - task.versions[row]) for row in range(len(canvases))]
    result.natural_pictures, result.natural_values = shown[again], values[again]
    result.natural_kept = {how: share[again] for how, share in shares.items()}
    _add_distances(model, task, run, result, batch_size)


def _natural_beside(
    task: _Task, strongest: Strongest, rows: Sequence[int], measure: Any, kept: Any
) -> tuple[NDArray[np.uint8], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return the strongest natural images as pictures, their values, and what they keep when damaged."""
    assert task.natural is not None
    scene = task.scene
    images = [task.natural[item][0][: task.natural.channels] for item in strongest.items]
    parts = [scene.part_of(image, at) for image, at in zip(images, strongest.positions, strict=True)]
    shown = np.concatenate([inputs_to_bytes(seen[None], task.scale) for _, seen, _ in parts])
    local = scene.crop is not None or all(task.objectives[row].is_local for row in rows)
    at = [{task.layer: position} if local else scene.positions for _, _, position in parts]
    pixels = [to_pixels(image[None], task.scale)[0] for image in images]
    objectives = [task.objectives[row] for row in rows]

    def cut(one: Tensor, row: int) -> Tensor:
        return scene.part_of(one, strongest.positions[row])[0]

    values = measure([cut(one, row) for row, one in enumerate(pixels)], objectives, at)
    shares = kept(pixels, cut, objectives, at, values) if task.sign > 0 else {}
    return shown, np.array(strongest.values), shares


def _add_distances(model: Model, task: _Task, run: Execution, result: Synthesised, batch_size: int | None) -> None:
    """Measure the distance of each image to the nearest natural patch, in features of early layers."""
    assert result.inputs is not None
    if task.windows is None or len(task.windows) < 3:
        return
    traced = trace_on_meta(model.module, task.scene.whole)
    early = [
        name
        for name in early_layers(model.module, traced, task.scene.side)
        if traced[name].croppable or task.scene.shown == task.scene.whole[1:]
    ]
    if not early:
        return
    size = batch_size or images_at_once(task.scene.shown[0] * task.scene.shown[1])
    natural, own = (
        describe_images(model.module, run.place(one.to(weights_type(model.module))), early, size)
        for one in (task.windows, result.inputs)
    )
    found = distances_to(natural, own).numpy()
    if np.isfinite(found).all():
        result.distances, result.distance_layers = found, early


def _report_stopped(result: Synthesised) -> None:
    """Warn of images that were stopped by an activation that is NaN or infinite."""
    rows = np.flatnonzero(result.stopped >= 0).tolist()
    if rows:
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        warn(
            f"the activation of {result.names[rows[0]]}{others} became NaN or infinite at step "
            f"{int(result.stopped[rows[0]])}: its image is that of the step before"
        )
