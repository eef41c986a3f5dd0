"""Loading: from what a user names to a network that can be fed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interpret.loading.checkpoints import (
    NO_HEAD,
    State,
    load_state,
    read_state,
    split_weights,
    with_plain_names,
    without_head,
)
from interpret.loading.folders import file_source, folder_source, model_folder, shipped_models
from interpret.loading.packages import PACKAGED
from interpret.loading.sources import SEED, Source
from interpret.loading.torchvision_timm import timm_source, torchvision_names, torchvision_source
from interpret.network.forward import CalledBy
from interpret.network.model import Model, as_model
from interpret.network.preprocess import Preprocess
from interpret.network.readings import READINGS
from interpret.network.weights import copied
from interpret.support.errors import InterpretError, unknown

RANDOM = ("random", "none")
"""What to pass as `weights` for a network that has learnt nothing."""


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
    """Load a network, ready to be fed and in evaluation mode.

    >>> model = load("torchvision:resnet18", weights="random")
    >>> model.name, model.input_shape, model.classes[281], model.origin
    ('resnet18', (3, 224, 224), 'tabby', 'random weights (seed 0): this network has learnt nothing')

    Args:
        spec: one of

            - a shipped model, such as `"lenet"` or `"lenet5"`;
            - `"squeezenet1_1"` or `"efficientnet_lite0"`, with ImageNet weights from the demo packages;
            - `"torchvision:NAME"` or `"timm:NAME"`, with the library's own weights, which it downloads once;
            - a model folder: `model.py` with a function `build()`, `weights.safetensors`, and in `recipe.toml` the
              tables `[input]` (the fields of `Preprocess`) and `[model]` (`classes`);
            - `"path/to/file.py:function"`, a function without arguments that returns an `nn.Module` or a `Model`;
            - an `nn.Module` or a `Model`. It stays as trained, and is copied only to get `weights`.
        weights: None: the network's own, as above; `"random"`: newly drawn, the same ones each time; the name of
            torchvision weights, such as `"IMAGENET1K_V1"`; or a local file of weights (see `read_state`), which
            replace all of the network's: `"last.ckpt"`, or `"last.ckpt:ema"` where it holds several state dicts. What
            stands before all names (`module.`, `model.`, `backbone.`) is left out where that makes them fit.
        preprocess: how pictures become its input, instead of what is known of that.
        classes: what its outputs stand for, instead of what is known of that.
        outputs: how its outputs become probabilities, "softmax", "sigmoid" (one score a label, or one for two classes),
            "probabilities" (as they are) or "log-probabilities"; None: as they show, see `interpret.network.answers`.
        call: how the network is called on images [B, C, H, W], where it takes more than these or is not called as a
            whole: a function of the network and the images, such as
            `lambda network, images: network(images, mask.expand(len(images), -1))`; it calls the network that it is
            given. Then every analysis takes it as one that takes images alone.
        varying: True lets analyses go on though the network's answers vary by chance or with the other images of a
            batch, which they refuse otherwise; None: what the model says.
        ignore_head: True leaves out the file's head, if it is of another number of classes: the network keeps its own,
            random one, and what comes before it is as trained. The same as `"last.ckpt:no-head"`.

    Returns:
        A model whose `origin` says where its weights come from.

    Raises:
        InterpretError: an unknown name, with near ones; weights that cannot be downloaded or read, or do not fit;
            a package that is not installed; a file that raises an error of its own.
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
    """Load a file into a model's module, and say where its weights come from."""
    path, key, ignore_head = split_weights(weights)
    if not path.exists():
        others = f"neither a file nor one of {', '.join(known)}: give one of these" if known else "no file: give one"
        raise InterpretError(f"weights {weights!r} are {others}")
    state = adapt(with_plain_names(read_state(path, model.module, key), model.module))
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
    """Draw the same random numbers each time, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        yield


def find_source(spec: str, weights: str | None = None) -> Source:
    """Return where a network that is given by name comes from.

    >>> find_source("squeezenet1_1").origin
    'ImageNet weights of the package ndf 0.1.4'

    Raises:
        InterpretError: a name that means nothing, with those that come near.
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
    path, _, function = spec.rpartition(":")
    if path.endswith(".py"):
        return file_source(Path(path).expanduser(), function)
    raise _unknown_model(spec)


LIBRARIES = ("torchvision", "timm")
OTHER_FORMATS = {
    "a Keras model": (".keras", ".h5", ".hdf5"),
    "a TensorFlow model": (".pb", ".tflite"),
    "an ONNX model": (".onnx",),
    "a Caffe model": (".caffemodel", ".prototxt"),
    "a Core ML model": (".mlmodel", ".mlpackage"),
    "an OpenVINO model": (".xml",),
    "a TensorRT engine": (".engine", ".trt"),
    "a GGUF model": (".gguf",),
}
WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar")
SUPPORTED = "give a PyTorch network, as torchvision:NAME, timm:NAME, a model folder or file.py:function"


def _unsupported(spec: str) -> InterpretError | None:
    """Return why a model cannot be loaded that is of a kind which others load; None where it is not."""
    path, (kind, colon, name) = Path(spec).expanduser(), spec.partition(":")
    if "://" in spec:
        return InterpretError(f"model {spec!r} is a web address, and none is loaded from there: {SUPPORTED}")
    # of "onnx:net.onnx", too, and of what a file is called with a function or version behind it
    for what, endings in OTHER_FORMATS.items():
        if path.suffix.lower() in endings:
            return InterpretError(f"model {spec!r} is {what}, which is not supported: {SUPPORTED}")
    if colon and len(kind) > 1 and Path(kind).suffix != ".py":  # one letter is a drive
        near = get_close_matches(kind.lower(), LIBRARIES, n=1)
        if near:
            return InterpretError(f"unknown model {spec!r}: did you mean {f'{near[0]}:{name}'!r}?")
        return InterpretError(f"models of the kind {kind + ':'!r} are not supported: {SUPPORTED}")
    if path.suffix.lower() in WEIGHTS:
        return InterpretError(
            f"{spec!r} is a file of weights, no model: name the network, and pass the file as weights"
        )
    if "/" in spec and not path.exists():
        return InterpretError(f"model {spec!r} is no folder here, and no model is fetched by such a name: {SUPPORTED}")
    return None


def _unknown_model(spec: str) -> InterpretError:
    path = Path(spec).expanduser()
    if (unsupported := _unsupported(spec)) is not None:
        return unsupported
    if path.is_dir():
        return InterpretError(f"{spec!r} is no model folder: it has no model.py")
    if path.suffix == ".py":
        return InterpretError(f"model {spec!r} does not name a function: write {spec}:build")
    if path.is_file():
        return InterpretError(f"{spec!r} is a file, no model: name the network, and pass the file as weights")
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
    """Return the models that `load` knows by name: shipped, from packages, and torchvision's classifiers.

    >>> [name for name in known_models() if "squeezenet" in name]
    ['squeezenet1_1', 'torchvision:squeezenet1_0', 'torchvision:squeezenet1_1']
    """
    return [*_local_names(), *(f"torchvision:{name}" for name in torchvision_names())]
