"""Attribution: which pixels a class or a hidden unit answers to, by ten methods of the field."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import TqdmWarning

from interpret.analyses.attribution.result import METHODS, Attribution
from interpret.analyses.attribution.superpixels import superpixels
from interpret.backprop.rules import BackwardRule, Rule
from interpret.execution.execution import on_device
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.network.answers import main_output, scores_of
from interpret.network.dry_run import check_answers
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import first_outputs
from interpret.network.model import Model, as_model
from interpret.network.pixel_scale import find_pixel_scale
from interpret.support.errors import InterpretError, unknown
from interpret.support.progress import progress
from interpret.tracing.tracing import trace

with warnings.catch_warnings():  # a notebook without widgets, which captum's progress bars ask for
    warnings.simplefilter("ignore", TqdmWarning)
    from captum._utils.models.model import Model as InterpretableModel
    from captum.attr import (
        InputXGradient,
        IntegratedGradients,
        KernelShap,
        LayerGradCam,
        NoiseTunnel,
        Occlusion,
        Saliency,
    )

Method = Literal[
    "gradient",
    "gradient_x_input",
    "guided",
    "deconvnet",
    "integrated_gradients",
    "smoothgrad",
    "gradcam",
    "guided_gradcam",
    "occlusion",
    "kernel_shap",
]
assert set(METHODS) == set(get_args(Method))

AT_ONCE = 8
"""How many images go through the network together."""


@dataclass(frozen=True)
class Settings:
    """What the methods leave to their user; `interpret.attribute` takes each by name."""

    cam_layer: str | None = None
    """The feature maps that Grad-CAM weighs; None: the last ones below the target (see `find_cam_layer`)."""
    baseline: float = 0.0
    """What stands for "nothing", in the network's input: where integrated gradients begin, and what occlusion and
    KernelSHAP put in a pixel's place. 0 is the mean colour where the preprocessing subtracts the mean."""
    points: int = 50
    """On the path of integrated gradients."""
    samples: int = 25
    """Noisy copies of each image for SmoothGrad."""
    noise: float = 0.15
    """Their noise's deviation, as a share of the image's range of values."""
    window: int | None = None
    """Side of the occluding square in pixels; None: a seventh of the image's shorter side."""
    stride: int | None = None
    """How far it moves; None: half its side."""
    superpixels: int = 50
    """Regions for KernelSHAP, about."""
    passes: int = 250
    """Mixtures of regions that KernelSHAP shows to the network."""
    seed: int = 0
    """For SmoothGrad's noise and KernelSHAP's mixtures, the same for every image."""
    batch_size: int | None = None
    """Images, or noisy copies or mixtures of one, in one pass; None: 8, of which a pass back keeps all activations."""

    @property
    def at_once(self) -> int:
        """How many images go through the network together."""
        return AT_ONCE if self.batch_size is None else self.batch_size

    def changed(self) -> dict[str, Any]:
        """Return what decides the maps and is not as by default, by name."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch_size"}
        return {name: value for name, value in chosen.items() if value != getattr(Settings, name)}

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InterpretError(f"batch_size must be at least 1, not {self.batch_size}")
        for name, least in (("points", 1), ("samples", 1), ("superpixels", 2), ("passes", 3)):
            if getattr(self, name) < least:
                raise InterpretError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("window", "stride"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InterpretError(f"{name} must be at least 1 pixel, not {getattr(self, name)}")
        if self.noise < 0:
            raise InterpretError(f"noise must be 0 or more, not {self.noise}")
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise InterpretError(
                f"stride must be at most the window's {self.window} pixels, not {self.stride}: pixels would be left out"
            )


@torch.inference_mode(False)  # whose caller may be in it
def attribute(
    model: Model | nn.Module,
    images: Any,
    method: Method,
    target: int | str | Sequence[int | str] | Tensor | None = None,
    layer: str | None = None,
    position: Sequence[int] | Tensor | None = None,
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
) -> Attribution:
    """Return what in each image speaks for a class of the output, or for a hidden unit.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    >>> images = torch.rand(2, 3, 10, 10)
    >>> attribute(network, images, "gradient", target=7).maps.shape
    torch.Size([2, 3, 10, 10])
    >>> attribute(network, images, "gradcam", target=[7, 3]).maps.shape
    torch.Size([2, 1, 10, 10])
    >>> attribute(network, images, "guided", target=1, layer="2").positions.shape
    torch.Size([2, 2])

    | method                 | what it is                                                                             |
    |------------------------|----------------------------------------------------------------------------------------|
    | "gradient"             | the score's derivative (Simonyan et al. 2014, section 3), with its sign                |
    | "gradient_x_input"     | times the input (Shrikumar et al. 2016)                                                |
    | "guided"               | guided backpropagation (Springenberg et al. 2015, section 3.4)                         |
    | "deconvnet"            | Zeiler & Fergus 2014, section 2.1                                                      |
    | "integrated_gradients" | the mean gradient on the way from a baseline, times the way (Sundararajan et al. 2017) |
    | "smoothgrad"           | the mean gradient of noisy copies (Smilkov et al. 2017)                                |
    | "gradcam"              | feature maps, weighed by their mean gradients, rectified (Selvaraju et al. 2017)       |
    | "guided_gradcam"       | guided backpropagation times Grad-CAM (there, section 3.2)                             |
    | "occlusion"            | how far the score drops behind a grey square (Zeiler & Fergus 2014, section 4.2)       |
    | "kernel_shap"          | Shapley values of superpixels, estimated (Lundberg & Lee 2017, section 4.1)            |

    captum computes them, except guided backpropagation and the deconvnet, which are this project's
    `interpret.BackwardRule`: captum changes what `nn.ReLU` modules do, and a network that rectifies otherwise gets
    plain gradients from it. Where captum is right, these are the same. The signal of both starts as 1, as a gradient
    does. KernelSHAP's regression is solved here in double precision, so that scikit-learn is not needed.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        images: B of them, [B, C, H, W] as the module takes them, or anything else that `interpret.open_images` takes.
        method: one of the table.
        target: a class by number or name, or with `layer` a channel; one for all images or one for each; None: each
            image's strongest.
        layer: the layer of a hidden unit; None: the network's output.
        position: the hidden neuron's (row, column), one for all or one for each image; None: where the channel is
            strongest in the image as it is.
        items: which of the images, in this order; None: all.
        cam_layer: the feature maps that Grad-CAM weighs; None: the last ones below the target.
        baseline: what stands for "nothing", in the network's input: where integrated gradients begin, and what
            occlusion and KernelSHAP put in a pixel's place.
        points: on the path of integrated gradients.
        samples: noisy copies of each image for SmoothGrad.
        noise: their noise's deviation, as a share of the image's range of values.
        window: side of the occluding square in pixels; None: a seventh of the image's shorter side.
        stride: how far it moves; None: half its side.
        superpixels: regions for KernelSHAP, about.
        passes: mixtures of regions that KernelSHAP shows to the network.
        seed: of SmoothGrad's noise and KernelSHAP's mixtures, which are drawn batch by batch.
        batch_size, device: how the network runs; see `interpret`. The maps lie where the images do.

    Raises:
        InterpretError: an unknown method, layer or class; a setting out of its range; a channel or position that the
            layer does not have; Grad-CAM with no feature maps below the target; superpixels on an image of one pixel.

    Warns:
        UncoveredOperation: guided backpropagation or the deconvnet met an operation that they have no reading for.
    """
    model = as_model(model)
    check_method(method)
    how = Settings(
        cam_layer, baseline, points, samples, noise, window, stride, superpixels, passes, seed, batch_size
    )  # fmt: skip
    opened = take_images(model, images, items)
    images, home = opened.tensor, opened.tensor.device
    with on_device(model.module, device) as place:
        images = images.to(place)
        check_answers(model, images, layer)
        head = Head(model.module, layer)
        aim = find_aim(model, head, images, target, position, how.at_once)
        with progress(len(images), METHODS[method], "img") as bar:
            maps = maps_of(model, head, images, aim, method, how, bar.update)
    return Attribution(
        maps.to(home),
        aim.channels.to(home),
        None if aim.positions is None else aim.positions.to(home),
        aim.scores.to(home),
        method=method,
        layer=layer,
        model=model.name,
        target_names=names_of(model, layer, aim),
        pictures=inputs_to_bytes(images, opened.images.pixel_scale),
        shown=opened.images.pixel_scale.said,
    )


def check_method(method: str) -> None:
    """Raise an error for a method that there is not."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)


def chosen_methods(methods: Sequence[Method] | None) -> list[Method]:
    """Return the methods asked for, all for None, and raise an error for one that there is not."""
    chosen = cast(list[Method], list(METHODS) if methods is None else list(methods))
    if not chosen:
        raise InterpretError("methods is empty: name at least one, or leave it out for all")
    for method in chosen:
        check_method(method)
    return chosen


def take_images(model: Model, images: Any, items: Sequence[int] | None = None) -> Inputs:
    """Return images as a batch of their own."""
    opened = open_inputs(images, model, items)
    refuse_other_type(model.module, opened.tensor)
    return opened._replace(tensor=opened.tensor.detach().clone())  # which is no inference tensor


# ---- the target ------------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """A network as a function to its output, or to one layer's, with units as the second dimension."""

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        if layer is not None and layer not in dict(network.named_modules()):
            raise unknown("layer", layer, [name for name, _ in network.named_modules() if name])

    @property
    def name(self) -> str:
        return "the network's output" if self.layer is None else f"layer {self.layer!r}"

    def forward(self, images: Tensor) -> Tensor:
        found: dict[str, Any] = {}
        # a copy: the first operation may be in place
        if self.layer is None:
            output = main_output(call_network(self.network, images.clone()))[1]
            # one score for each image, or one image that a `squeeze` has taken the dimension of
            found[""] = output if not isinstance(output, Tensor) or output.dim() > 1 else scores_of(output, len(images))
        else:
            with first_outputs(self.network, [self.layer], found.__setitem__, stop=True):
                call_network(self.network, images.clone())
        output = found.get(self.layer or "")
        if not isinstance(output, Tensor) or output.dim() not in (2, 4):
            what = "nothing" if output is None else type(output).__name__
            what = f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else what
            raise InterpretError(f"{self.name} is {what}: a target needs [B, C] or [B, C, H, W], so name a layer")
        return output


@dataclass(frozen=True)
class Aim:
    """The neuron of each image that is explained."""

    channels: Tensor
    positions: Tensor | None
    scores: Tensor

    def __getitem__(self, part: slice) -> Aim:
        return Aim(self.channels[part], None if self.positions is None else self.positions[part], self.scores[part])

    @property
    def captums(self) -> list[Any]:
        """One index for each image, as captum takes them."""
        if self.positions is None:
            return list(self.channels.tolist())
        return [(channel, *at) for channel, at in zip(self.channels.tolist(), self.positions.tolist(), strict=True)]

    def of(self, output: Tensor) -> Tensor:
        """Return the neurons' values [B]."""
        rows = torch.arange(len(output), device=output.device)
        if self.positions is None:
            return output[rows, self.channels]
        return output[rows, self.channels, self.positions[:, 0], self.positions[:, 1]]


def find_aim(model: Model, head: Head, images: Tensor, target: Any, position: Any, at_once: int = AT_ONCE) -> Aim:
    """Return the neuron that a target means in each image."""
    with torch.no_grad():
        output = torch.cat([head(part) for part in images.split(at_once)])
    strongest = output if output.dim() == 2 else output.flatten(2).amax(2)
    channels = _channels(model, head, target, strongest).to(output.device)
    positions = _positions(head, position, output, channels)
    aim = Aim(channels, positions, channels)
    return Aim(channels, positions, aim.of(output))


def _channels(model: Model, head: Head, target: Any, strongest: Tensor) -> Tensor:
    count, units = strongest.shape
    if target is None:
        return strongest.argmax(1)
    if isinstance(target, Tensor):
        target = target.tolist()
    given = list(target) if isinstance(target, Sequence | np.ndarray) and not isinstance(target, str) else [target]
    if len(given) not in (1, count):
        raise InterpretError(f"target must be one class or {count}, one for each image, not {len(given)}")
    classes = model.classes if head.layer is None and model.classes is not None else ()
    found = []
    for one in given:
        if isinstance(one, str):
            if not classes:
                raise InterpretError(f"target {one!r} is a name, and {head.name} has no names: give a number")
            if one not in classes:
                raise unknown("class", one, classes)
            one = classes.index(one)
        if isinstance(one, bool) or not isinstance(one, int | np.integer):
            raise InterpretError(f"target must be a whole number or a class's name, not {one!r}")
        if not 0 <= one < units:
            raise InterpretError(f"target {one} does not exist: {head.name} has the units 0 to {units - 1}")
        found.append(int(one))
    return torch.tensor(found).expand(count)


def _positions(head: Head, position: Any, output: Tensor, channels: Tensor) -> Tensor | None:
    if output.dim() == 2:
        if position is not None:
            raise InterpretError(f"position {position} cannot be taken: {head.name} has no positions, so leave it out")
        return None
    count, (height, width) = len(output), output.shape[2:]
    if position is None:
        flat = output[torch.arange(count), channels].flatten(1).argmax(1)
        return torch.stack([flat // width, flat % width], 1)
    given = torch.as_tensor(position)
    if given.is_floating_point() or given.shape not in ((2,), (count, 2)):
        raise InterpretError(
            f"position must be one (row, column) or {count}, one for each image, not of shape {list(given.shape)}"
        )
    given = given.to(output.device).expand(count, 2)
    bad = ((given < 0) | (given >= torch.tensor([height, width], device=given.device))).any(1)
    if bool(bad.any()):
        raise InterpretError(
            f"position {tuple(given[bad][0].tolist())} is not in {head.name}, whose map is {height} × {width}"
        )
    return given


# ---- the methods -----------------------------------------------------------------------------------------------------


def maps_of(
    model: Model,
    head: Head,
    images: Tensor,
    aim: Aim,
    method: Method,
    settings: Settings,
    advance: Callable[[int], object],
) -> Tensor:
    """Return a method's maps of images for an aim, [B, C or 1, H, W], telling how many images are done.

    The network is frozen.
    """
    size = 1 if method in ("smoothgrad", "kernel_shap") else settings.at_once
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    maps = []
    with torch.enable_grad():
        for part in parts:
            x = images[part].clone().requires_grad_()
            try:
                maps.append(_METHODS[method](model, head, x, aim[part], settings).detach())
            except RuntimeError as error:
                raise _without_gradient(head, error) or error from None
            advance(len(x))
    return torch.cat(maps)


def _without_gradient(head: Head, error: RuntimeError) -> InterpretError | None:
    """Return the error that says why a network has no gradient; None where autograd failed otherwise."""
    if "does not require grad" in str(error):
        return InterpretError(
            f"{head.name} does not depend on the image, or on nothing that torch sees: choose another"
        )
    if "modified by an inplace operation" in str(error):
        made = re.search(r"which is output \d+ of (\w+)", str(error))
        return InterpretError(
            f"{head.name} has no gradient, since the network writes over a tensor that it needs"
            f"{f', of {made[1]}' if made else ''}: do not work in place there"
        )
    return None


_Compute = Callable[[Model, Head, Tensor, Aim, Settings], Tensor]


def _gradient(_: Model, head: Head, images: Tensor, aim: Aim, __: Settings) -> Tensor:
    return Saliency(head).attribute(images, target=aim.captums, abs=False)


def _gradient_x_input(_: Model, head: Head, images: Tensor, aim: Aim, __: Settings) -> Tensor:
    return InputXGradient(head).attribute(images, target=aim.captums)


def _by_rule(rule: Rule) -> _Compute:
    def compute(_: Model, head: Head, images: Tensor, aim: Aim, __: Settings) -> Tensor:
        with BackwardRule(head.network, rule) as backward:
            output = head(images)
            backward.check(output)
            score = aim.of(output).sum()
        if not score.requires_grad:
            raise InterpretError(f"{head.name} does not depend on the image: choose another")
        (signal,) = torch.autograd.grad(score, images)
        return signal

    return compute


def _integrated_gradients(_: Model, head: Head, images: Tensor, aim: Aim, settings: Settings) -> Tensor:
    return IntegratedGradients(head).attribute(
        images,
        baselines=settings.baseline,
        target=aim.captums,
        n_steps=settings.points,
        internal_batch_size=max(settings.at_once, len(images)),
    )


def _smoothgrad(_: Model, head: Head, image: Tensor, aim: Aim, settings: Settings) -> Tensor:
    spread = settings.noise * float(image.detach().max() - image.detach().min())
    with _seeded(settings.seed):
        return NoiseTunnel(Saliency(head)).attribute(
            image,
            nt_type="smoothgrad",
            nt_samples=settings.samples,
            nt_samples_batch_size=min(settings.at_once, settings.samples),
            stdevs=spread,
            target=aim.captums[0],
            abs=False,
        )


def _gradcam(_: Model, head: Head, images: Tensor, aim: Aim, settings: Settings) -> Tensor:
    layer = head.network.get_submodule(find_cam_layer(head, images[:1], aim[:1], settings.cam_layer))
    cam = LayerGradCam(head, layer).attribute(images, target=aim.captums, relu_attributions=True)
    return F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)


def _guided_gradcam(model: Model, head: Head, images: Tensor, aim: Aim, settings: Settings) -> Tensor:
    guided = _by_rule("guided")(model, head, images, aim, settings)
    return guided * _gradcam(model, head, images, aim, settings)


def _occlusion(_: Model, head: Head, images: Tensor, aim: Aim, settings: Settings) -> Tensor:
    channels, height, width = images.shape[1:]
    side = min(settings.window or max(1, round(min(height, width) / 7)), height, width)
    stride = min(settings.stride or max(1, side // 2), side)
    with torch.no_grad():
        drops = Occlusion(head).attribute(
            images,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, stride, stride),
            baselines=settings.baseline,
            target=aim.captums,
            perturbations_per_eval=max(1, settings.at_once // len(images)),
        )
    return drops[:, :1]


def _kernel_shap(model: Model, head: Head, image: Tensor, aim: Aim, settings: Settings) -> Tensor:
    known = model.preprocess is not None and len(model.preprocess.channels) == image.shape[1]
    scale = model.preprocess.pixel_scale if known and model.preprocess else find_pixel_scale([image[0]])
    mask = torch.from_numpy(superpixels(inputs_to_bytes(image.detach(), scale)[0], settings.superpixels)).long()
    explainer = KernelShap(head)
    explainer.interpretable_model = _LeastSquares()
    with _seeded(settings.seed), torch.no_grad():
        values = explainer.attribute(
            image,
            baselines=settings.baseline,
            target=aim.captums[0],
            feature_mask=mask.to(image.device)[None, None].expand_as(image),
            n_samples=settings.passes,
            perturbations_per_eval=settings.at_once,
        )
    return values[:, :1].to(image.dtype)


_METHODS: dict[str, _Compute] = {
    "gradient": _gradient,
    "gradient_x_input": _gradient_x_input,
    "guided": _by_rule("guided"),
    "deconvnet": _by_rule("deconvnet"),
    "integrated_gradients": _integrated_gradients,
    "smoothgrad": _smoothgrad,
    "gradcam": _gradcam,
    "guided_gradcam": _guided_gradcam,
    "occlusion": _occlusion,
    "kernel_shap": _kernel_shap,
}


class _LeastSquares(InterpretableModel):
    """Weighted linear regression with an intercept, solved in double precision."""

    def fit(self, train_data: Any, **_: object) -> None:
        x, y, weights = (torch.cat(part).double().cpu().numpy() for part in zip(*train_data, strict=True))
        root = np.sqrt(weights)
        design = np.column_stack([x, np.ones(len(x))])
        solution, *_rest = np.linalg.lstsq(design * root[:, None], y * root)
        self.coefficients = torch.from_numpy(solution[:-1])

    def representation(self) -> Tensor:
        return self.coefficients

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw the same random numbers each time, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def find_cam_layer(head: Head, image: Tensor, aim: Aim, wanted: str | None = None) -> str:
    """Return the layer whose output are the last feature maps on the way to a target, or the one wanted if it has any.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    >>> image = torch.rand(1, 1, 8, 8)
    >>> head = Head(network, None)
    >>> find_cam_layer(head, image, find_aim(as_model(network), head, image, 0, None))
    '1'

    The paper takes the last convolutional layer. This is the last convolution that the target depends on and whose
    output has more than one position, or, where one of the blocks around it ends in maps of the same size, the
    outermost of these: "layer4" of a ResNet, "features" of a DenseNet, whose last convolution alone is but a part of
    the maps that the classifier sees.

    Raises:
        InterpretError: there is none, or the one wanted has no feature maps or is not below the target.
    """
    parts = dict(head.network.named_modules())
    if wanted is not None and wanted not in parts:
        raise unknown("cam_layer", wanted, [name for name in parts if name])
    sizes = _map_sizes(head, image, aim)
    if wanted is not None:
        if wanted not in sizes:
            raise InterpretError(
                f"cam_layer {wanted!r} has no feature maps that {head.name} depends on: choose a convolution below it"
            )
        return wanted
    last = [name for name, size in sizes.items() if isinstance(parts[name], nn.Conv2d) and size != (1, 1)]
    if not last:
        raise InterpretError(
            f"Grad-CAM needs a convolution below {head.name} whose output has more than one position, and there is "
            "none: choose another method"
        )
    steps = last[-1].split(".")
    blocks = [".".join(steps[:depth]) for depth in range(1, len(steps) + 1)]
    return next(block for block in blocks if sizes.get(block) == sizes[last[-1]])


def _map_sizes(head: Head, image: Tensor, aim: Aim) -> dict[str, tuple[int, int]]:
    """Return height and width of each layer's output that is feature maps on the way to the target, in order."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.requires_grad:
                outputs.setdefault(name, output)

        return hook

    parts = {name: part for name, part in head.network.named_modules() if name and name != head.layer}
    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        with torch.enable_grad():
            score = aim.of(head(image.detach().clone().requires_grad_())).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not outputs or not score.requires_grad:
        return {}
    gradients = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    reached = zip(outputs.items(), gradients, strict=True)
    return {name: (output.shape[2], output.shape[3]) for (name, output), gradient in reached if gradient is not None}


Window = tuple[slice, slice]


def windows_of(model: Model, head: Head, images: Tensor, aim: Aim) -> list[Window]:
    """Return the part of each image that its target sees, as slices of rows and columns.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> head, images = Head(network, "0"), torch.rand(1, 1, 8, 8)
    >>> windows_of(as_model(network), head, images, find_aim(as_model(network), head, images, 0, (1, 5)))
    [(slice(1, 4, None), slice(5, 8, None))]
    """
    traced = None if head.layer is None else trace(model.module, tuple(images.shape[1:])).get(head.layer)
    field = None if traced is None else traced.receptive_field
    height, width = images.shape[2:]
    if field is None or aim.positions is None:
        return [(slice(0, height), slice(0, width))] * len(images)
    seen = [field.window((row, column)) for row, column in aim.positions.tolist()]
    return [
        (slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width)))
        for top, left, bottom, right in seen
    ]


def names_of(model: Model, layer: str | None, aim: Aim) -> list[str]:
    """Return what each image's target is called."""
    channels = aim.channels.tolist()
    if layer is None and model.classes is not None:
        return [model.classes[channel] for channel in channels]
    what = "class" if layer is None else "unit"
    places = [""] * len(channels)
    if aim.positions is not None:
        places = [f" at\u00a0{row},\u00a0{column}" for row, column in aim.positions.tolist()]
    return [f"{what} {channel}{place}" for channel, place in zip(channels, places, strict=True)]
