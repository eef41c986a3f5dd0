"""Load networks of torchvision and timm, with the weights that these libraries download."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision import models

from interpret.images.imagenet import class_names
from interpret.loading.checkpoints import State, only_tensors_loaded
from interpret.loading.model_source import ModelSource
from interpret.network.preprocess import Preprocess
from interpret.network.torch_internals import keep_versions, versions_of
from interpret.support.errors import InterpretError, unknown


def torchvision_classifiers() -> list[str]:
    """Return the names of torchvision's classifiers.

    >>> "resnet18" in torchvision_classifiers()
    True
    """
    return models.list_models(models)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers, detectors and segmenters.

    >>> {"resnet18", "fasterrcnn_resnet50_fpn", "fcn_resnet50"} <= set(torchvision_names())
    True
    """
    return [*torchvision_classifiers(), *models.list_models(models.detection), *models.list_models(models.segmentation)]


def torchvision_source(name: str, weights: str | None = None) -> ModelSource:
    """Return the source of a network of torchvision.

    >>> torchvision_source("resnet50").origin
    "torchvision's weights IMAGENET1K_V2"

    Args:
        name: one of `torchvision_names()`.
        weights: torchvision's name of the weights, on which the preprocessing depends; otherwise the default ones.

    Raises:
        InterpretError: an unknown name, with similar ones.
    """
    if name not in torchvision_names():
        raise unknown("torchvision model", name, torchvision_names())
    build = models.get_model_builder(name)
    choices = models.get_model_weights(name)
    chosen = choices[weights] if weights in choices.__members__ else choices.DEFAULT
    fresh, trained = partial(build, weights=None), partial(build, weights=chosen)
    if name not in torchvision_classifiers():
        fresh = partial(fresh, weights_backbone=None)
    if name in ("googlenet", "inception_v3"):
        # Their auxiliary classifiers run in training only, their own initialisation takes a minute, and torchvision's
        # published weights need the networks to normalise their input a second time.
        trained = partial(trained, aux_logits=False)
        fresh = partial(fresh, aux_logits=False, init_weights=False, transform_input=True)
    transform = chosen.transforms()
    if name in models.list_models(models.detection):  # which resize and normalise by themselves
        preprocess = Preprocess((_DETECTOR_SIDES.get(name, 800),) * 2, rule="pad")
    elif name in models.list_models(models.segmentation):
        side = transform.resize_size[0]
        preprocess = Preprocess((side, side), mean=tuple(transform.mean), std=tuple(transform.std))
    else:
        preprocess = Preprocess.from_torchvision(transform)
    if name.startswith("vit_"):
        # the size of the position embedding depends on the input on which these weights were trained
        fresh = partial(fresh, image_size=transform.crop_size[0])
    return ModelSource(
        name,
        fresh,
        partial(_downloaded, f"torchvision:{name}", trained),
        f"torchvision's weights {chosen.name}",
        preprocess=preprocess,
        classes=tuple(chosen.meta["categories"]),
        weights=tuple(choices.__members__),
        adapt=_with_current_names,
    )


_DETECTOR_SIDES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 320,
    "ssd300_vgg16": 300,
    "ssdlite320_mobilenet_v3_large": 320,
}
"""The sides to which detectors resize their images, other than 800."""


def _with_current_names(state: State) -> State:
    """Return torchvision's published weights by the current names of its networks.

    DenseNet's were saved when a module could have the name `norm.1`. GoogLeNet's and Inception's contain the auxiliary
    classifiers, which are left out.
    """
    renamed: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in state.items():
        if not name.startswith(("aux1.", "aux2.", "AuxLogits.")):
            parts = name.split(".")
            if len(parts) > 3 and parts[-4].startswith("denselayer") and parts[-2].isdecimal():
                parts[-3:-1] = [parts[-3] + parts[-2]]
            renamed[".".join(parts)] = tensor
    keep_versions(renamed, versions_of(state))
    return renamed


def timm_source(name: str, weights: str | None = None) -> ModelSource:
    """Return the source of a network of timm.

    >>> timm_source("resnet18", weights="random").preprocess.size
    (224, 224)

    Args:
        name: timm's name, with or without the tag of the weights: `resnet18.a1_in1k`.
        weights: None: timm's weights are needed.

    Raises:
        InterpretError: timm is not installed, the name is unknown, or timm has no weights for it.
    """
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError:
        raise InterpretError(
            f"model 'timm:{name}' needs timm: install it with pip install 'interpret-cnn[timm]'"
        ) from None
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    if weights is None and not timm.is_model_pretrained(name):
        raise InterpretError(f"timm has no weights for {name!r}: pass weights='random' or the path of a local file")
    known = timm.get_pretrained_cfg(name)
    config = {} if known is None else known.to_dict()
    return ModelSource(
        name,
        partial(timm.create_model, name, pretrained=False),
        partial(_downloaded, f"timm:{name}", partial(timm.create_model, name, pretrained=True)),
        f"timm's weights {config.get('tag', '')}".strip(),
        preprocess=_timm_preprocess(resolve_data_config(pretrained_cfg=config)) if config else None,
        classes=class_names() if config.get("num_classes") == 1000 else None,
    )


def _timm_preprocess(config: dict[str, Any]) -> Preprocess | None:
    """Return the preprocessing of timm's evaluation transform; None for inputs of other than 1 or 3 channels."""
    count, height, width = config["input_size"]
    if count not in (1, 3):
        return None
    rule = {"squash": "squash", "border": "pad"}.get(config["crop_mode"], "crop")
    return Preprocess(
        (height, width),
        "RGB" if count == 3 else "L",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=math.floor(min(height, width) / config["crop_pct"]) if rule == "crop" else None,
        rule=rule,  # type: ignore[arg-type]
        interpolation=config["interpolation"],
    )


def _downloaded(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        with only_tensors_loaded():
            return make()
    except Exception as error:  # libraries and proxies raise many types of error
        reason = str(getattr(error, "reason", "")) or str(error).strip().partition("\n")[0] or type(error).__name__
        raise InterpretError(
            f"the weights of {spec!r} could not be downloaded or read ({reason}): pass weights='random', or the path "
            "of a local file as weights"
        ) from error
