"""Attribution: which pixels speak for a class or a hidden unit, by ten methods of the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interpret.analyses.attribution.maps import attribution_maps
from interpret.analyses.attribution.result import METHODS, Attribution
from interpret.analyses.attribution.settings import Method, Settings, check_method
from interpret.analyses.attribution.target import TruncatedModel, find_target, target_names_of
from interpret.backprop.composite import Composite
from interpret.execution.execution import on_device
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.network.dry_run import check_answers
from interpret.network.forward import refuse_other_type
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.support.progress import progress


@torch.inference_mode(False)  # the caller may be in inference mode
def attribute(
    model: Model | nn.Module,
    images: Any,
    method: Method | Composite,
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
    """Return maps of how much each pixel speaks for a class of the output, or for a hidden unit.

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
    | "gradient_x_input"     | the gradient times the input (Shrikumar et al. 2016)                                   |
    | "guided"               | guided backpropagation (Springenberg et al. 2015, section 3.4)                         |
    | "deconvnet"            | Zeiler & Fergus 2014, section 2.1                                                      |
    | "integrated_gradients" | the mean gradient between baseline and image, times their difference (Sundararajan et  |
    |                        | al. 2017)                                                                              |
    | "smoothgrad"           | the mean gradient of noisy copies (Smilkov et al. 2017)                                |
    | "gradcam"              | feature maps, weighed by their mean gradients, rectified (Selvaraju et al. 2017)       |
    | "guided_gradcam"       | guided backpropagation times Grad-CAM (Selvaraju et al. 2017, section 3.2)             |
    | "occlusion"            | how far the score drops behind a grey square (Zeiler & Fergus 2014, section 4.2)       |
    | "kernel_shap"          | Shapley values of superpixels, estimated (Lundberg & Lee 2017, section 4.1)            |

    captum computes them, except guided backpropagation and the deconvnet, which are this project's
    `interpret.BackwardRule`: captum changes what `nn.ReLU` modules do, and a network that rectifies otherwise gets
    plain gradients from it. Where captum is right, these are the same. The signal of both starts as 1, as a gradient
    does. KernelSHAP's regression is solved here in double precision, so that scikit-learn is not needed.

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        images: B of them, [B, C, H, W] as the module takes them, or anything else that `interpret.open_images` takes.
        method: one of the table, or a rule of your own, an `interpret.Composite`.
        target: a class by number or name, or with `layer` a channel; one for all images or one for each; None: each
            image's strongest.
        layer: the layer of a hidden unit; None: the network's output.
        position: the hidden neuron's (row, column), one for all or one for each image; None: where the channel is
            strongest in the image as it is.
        items: which of the images, in this order; None: all.
        cam_layer: the feature maps that Grad-CAM weighs; None: the last ones below the target.
        baseline: the input value that stands for "no information": integrated gradients start there, and occlusion and
            KernelSHAP replace pixels by it.
        points: points on the path of integrated gradients.
        samples: noisy copies of each image for SmoothGrad.
        noise: standard deviation of their noise, as a share of the image's range of values.
        window: side of the occluding square in pixels; None: a seventh of the image's shorter side.
        stride: step of the square in pixels; None: half its side.
        superpixels: approximate number of regions for KernelSHAP.
        passes: images with some regions replaced that KernelSHAP shows to the network.
        seed: seed of SmoothGrad's noise and of KernelSHAP's choice of regions, which are drawn batch by batch.
        batch_size, device: how the network runs; see `interpret`. The maps lie where the images do.

    Returns:
        an `Attribution` with `maps` [B, C, H, W], one map for each image; [B, 1, H, W] for methods that do not
        tell colours apart.

    Raises:
        InterpretError: an unknown method, layer or class; a setting out of its range; a channel or position that the
            layer does not have; Grad-CAM with no feature maps below the target; superpixels on an image of one pixel.

    Warns:
        UncoveredOperation: guided backpropagation or the deconvnet met an operation that they do not cover.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "attribute", "its maps are over rows and columns")
    if not isinstance(method, Composite):
        check_method(method)
    how = Settings(
        cam_layer, baseline, points, samples, noise, window, stride, superpixels, passes, seed, batch_size
    )  # fmt: skip
    opened = own_images(model, images, items)
    images, home = opened.tensor, opened.tensor.device
    with on_device(model.module, device) as place:
        images = images.to(place)
        check_answers(model, images, layer)
        truncated = TruncatedModel(model.module, layer)
        resolved = find_target(model, truncated, images, target, position, how.images_per_pass)
        with progress(len(images), METHODS.get(str(method), str(method)), "img") as bar:
            maps = attribution_maps(model, truncated, images, resolved, method, how, bar.update)
    return Attribution(
        maps.to(home),
        resolved.channels.to(home),
        None if resolved.positions is None else resolved.positions.to(home),
        resolved.scores.to(home),
        method=str(method),
        layer=layer,
        model=model.name,
        target_names=target_names_of(model, layer, resolved),
        pictures=inputs_to_bytes(images, opened.images.pixel_scale),
        shown=opened.images.pixel_scale.said,
    )


def own_images(model: Model, images: Any, items: Sequence[int] | None = None) -> Inputs:
    """Return images as a batch that the caller may change and differentiate."""
    opened = open_inputs(images, model, items)
    refuse_other_type(model.module, opened.tensor)
    return opened._replace(tensor=opened.tensor.detach().clone())  # a clone of an inference tensor takes gradients
