"""Compute the map of each method, by captum or by the backward rules of this project."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import TqdmWarning

from interpret.analyses.attribution.cam_layer import find_cam_layer
from interpret.analyses.attribution.settings import Method, Settings
from interpret.analyses.attribution.superpixels import superpixels
from interpret.analyses.attribution.target import Target, TruncatedModel
from interpret.backprop.composite import Composite
from interpret.backprop.rules import BackwardRule, Rule
from interpret.images.display import inputs_to_bytes
from interpret.network.model import Model
from interpret.network.pixel_scale import find_pixel_scale
from interpret.support.errors import InterpretError, reason_of

with warnings.catch_warnings():  # captum's progress bars warn in a notebook that has no widgets
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


def attribution_maps(
    model: Model,
    truncated: TruncatedModel,
    images: Tensor,
    target: Target,
    method: Method | Composite,
    settings: Settings,
    advance: Callable[[int], object],
) -> Tensor:
    """Return a method's maps of images for an target, [B, C or 1, H, W].

    The network must be frozen. `advance` is called with the number of images just done.
    """
    size = 1 if method in ("smoothgrad", "kernel_shap") else settings.images_per_pass
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    compute = _by_rule(method) if isinstance(method, Composite) else _METHODS[method]
    maps = []
    with torch.enable_grad():
        for part in parts:
            x = images[part].clone().requires_grad_()
            try:
                maps.append(compute(model, truncated, x, target[part], settings).detach())
            except _NOT_ITS_OWN:
                raise
            except Exception as error:  # the network's own code may run backwards
                raise _without_gradient(truncated, error) from error
            advance(len(x))
    return torch.cat(maps)


_NOT_ITS_OWN = (InterpretError, Warning, MemoryError, torch.OutOfMemoryError)


def _without_gradient(truncated: TruncatedModel, error: Exception) -> InterpretError:
    """Return the error that explains why the network has no gradient."""
    if "does not require grad" in str(error):
        return InterpretError(
            f"{truncated.name} does not depend on the image, or not through operations of torch: choose another"
        )
    if "modified by an inplace operation" in str(error):
        made = re.search(r"which is output \d+ of (\w+)", str(error))
        return InterpretError(
            f"{truncated.name} has no gradient, since the network overwrites a tensor that the gradient needs"
            f"{f', of {made[1]}' if made else ''}: do not work in place there"
        )
    return InterpretError(f"the gradient of {truncated.name} cannot be computed ({reason_of(error)})")


_Compute = Callable[[Model, TruncatedModel, Tensor, Target, Settings], Tensor]


def _gradient(_: Model, truncated: TruncatedModel, images: Tensor, target: Target, __: Settings) -> Tensor:
    return Saliency(truncated).attribute(images, target=target.captum_target, abs=False)


def _gradient_x_input(_: Model, truncated: TruncatedModel, images: Tensor, target: Target, __: Settings) -> Tensor:
    return InputXGradient(truncated).attribute(images, target=target.captum_target)


def _by_rule(rule: Rule) -> _Compute:
    def compute(_: Model, truncated: TruncatedModel, images: Tensor, target: Target, __: Settings) -> Tensor:
        with BackwardRule(truncated.network, rule) as backward:
            output = truncated(images)
            backward.check(output)
            score = target.of(output).sum()
            backward.signals_from([score])
        if not score.requires_grad:
            raise InterpretError(f"{truncated.name} does not depend on the image: choose another")
        (signal,) = torch.autograd.grad(score, images)
        return signal

    return compute


def _integrated_gradients(
    _: Model, truncated: TruncatedModel, images: Tensor, target: Target, settings: Settings
) -> Tensor:
    return IntegratedGradients(truncated).attribute(
        images,
        baselines=settings.baseline,
        target=target.captum_target,
        n_steps=settings.points,
        internal_batch_size=max(settings.images_per_pass, len(images)),
    )


def _smoothgrad(_: Model, truncated: TruncatedModel, image: Tensor, target: Target, settings: Settings) -> Tensor:
    deviation = settings.noise * float(image.detach().max() - image.detach().min())
    with _seeded(settings.seed):
        return NoiseTunnel(Saliency(truncated)).attribute(
            image,
            nt_type="smoothgrad",
            nt_samples=settings.samples,
            nt_samples_batch_size=min(settings.images_per_pass, settings.samples),
            stdevs=deviation,
            target=target.captum_target[0],
            abs=False,
        )


def _gradcam(_: Model, truncated: TruncatedModel, images: Tensor, target: Target, settings: Settings) -> Tensor:
    layer = truncated.network.get_submodule(find_cam_layer(truncated, images[:1], target[:1], settings.cam_layer))
    cam = LayerGradCam(truncated, layer).attribute(images, target=target.captum_target, relu_attributions=True)
    return F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)


def _guided_gradcam(
    model: Model, truncated: TruncatedModel, images: Tensor, target: Target, settings: Settings
) -> Tensor:
    guided = _by_rule("guided")(model, truncated, images, target, settings)
    return guided * _gradcam(model, truncated, images, target, settings)


def _occlusion(_: Model, truncated: TruncatedModel, images: Tensor, target: Target, settings: Settings) -> Tensor:
    channels, height, width = images.shape[1:]
    side = min(settings.window or max(1, round(min(height, width) / 7)), height, width)
    stride = min(settings.stride or max(1, side // 2), side)
    with torch.no_grad():
        drops = Occlusion(truncated).attribute(
            images,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, stride, stride),
            baselines=settings.baseline,
            target=target.captum_target,
            perturbations_per_eval=max(1, settings.images_per_pass // len(images)),
        )
    return drops[:, :1]


def _kernel_shap(model: Model, truncated: TruncatedModel, image: Tensor, target: Target, settings: Settings) -> Tensor:
    known = model.preprocess is not None and model.preprocess.count == image.shape[1]
    scale = model.preprocess.pixel_scale if known and model.preprocess else find_pixel_scale([image[0]])
    mask = torch.from_numpy(superpixels(inputs_to_bytes(image.detach(), scale)[0], settings.superpixels)).long()
    explainer = KernelShap(truncated)
    explainer.interpretable_model = _LeastSquares()
    with _seeded(settings.seed), torch.no_grad():
        values = explainer.attribute(
            image,
            baselines=settings.baseline,
            target=target.captum_target[0],
            feature_mask=mask.to(image.device)[None, None].expand_as(image),
            n_samples=settings.passes,
            perturbations_per_eval=settings.images_per_pass,
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
    """Fit a weighted linear regression with an intercept in double precision, in place of scikit-learn's."""

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
    """Seed torch's generator within the block, and restore its state at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
