"""Weights of the npm package @vladmandic/face-api: flat files of numbers, with a JSON manifest beside each."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpret.loading.checkpoints import State
from interpret.loading.converted import converted_once
from interpret.support.errors import InterpretError, unknown

PACKAGE = "@vladmandic/face-api@1.7.15"
SHA256 = {
    "tiny_face_detector_model": "af5160ec0d2596ceff9aa6472674e93dfeb4a05aa8f94f262fcd01af0c71cc72",
    "ssd_mobilenetv1_model": "0dc16fe569238188a22973861d96f8f8eaaac20f2d0c7f1033328c7fe193e944",
    "face_recognition_model": "acd6334bba6cb567dd0d2b741ca8297c1994f73e777a9d43aa18f24818d867d3",
    "face_landmark_68_model": "0824bac2320ad87c027a759738376f14ccfeb0d95e73deb33c35e4d4dcf62b04",
    "face_expression_model": "a8c5334a1a5dd2aa03a862a21d7dc5b91867c68735aa911140bda772916cd051",
}
"""SHA-256 of each file of numbers followed by its manifest."""

_LAST = {
    "filters": "weight",
    "weights": "weight",
    "depthwise_weights": "weight",
    "biases": "bias",
    "convolution_bn_offset": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "depthwise_filter": "depthwise.weight",
    "pointwise_filter": "pointwise.weight",
}
"""The last parts of names, as the package has them and as PyTorch does."""


def face_api_folder() -> Path:
    """Return the folder of the package: `INTERPRET_FACE_API`, or in `node_modules` of the current folder."""
    return Path(os.environ.get("INTERPRET_FACE_API", "node_modules/@vladmandic/face-api")).absolute()


def face_api_state(name: str) -> State:
    """Return a network's weights by PyTorch's names; they are converted once, and cached as safetensors.

    Raises:
        InterpretError: the package has no such weights, is not there, or has other files than expected.
    """
    if name not in SHA256:
        raise unknown("weights of face-api", name, SHA256)
    return converted_once(f"{name}-{SHA256[name][:8]}", lambda: _read(name))


def _read(name: str) -> State:
    folder = face_api_folder() / "model"
    try:
        numbers = (folder / f"{name}.bin").read_bytes()
        manifest = (folder / f"{name}-weights_manifest.json").read_bytes()
    except OSError:
        raise InterpretError(
            f"the weights {name!r} are not in {str(folder)!r}: run npm install {PACKAGE} here, or set the environment "
            "variable INTERPRET_FACE_API to the package's folder"
        ) from None
    if hashlib.sha256(numbers + manifest).hexdigest() != SHA256[name]:
        raise InterpretError(
            f"the weights {name!r} in {str(folder)!r} are not those of {PACKAGE}: install that version again"
        )
    return dict(read_flat(numbers, json.loads(manifest)))


def read_flat(numbers: bytes, manifest: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the float weights of a flat file by PyTorch's names, with axes in PyTorch's order.

    >>> weights = [{"name": "conv0/bias", "shape": [2], "dtype": "float32",
    ...             "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}}]
    >>> dict(read_flat(bytes([0, 4]), [{"weights": weights}]))
    {'conv0.bias': tensor([-1.,  1.])}

    A quantized number q is `q · scale + min`.
    """
    start, names = 0, {weight["name"] for part in manifest for weight in part["weights"]}
    for weight in (weight for part in manifest for weight in part["weights"]):
        quantization = weight.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else weight["dtype"]).newbyteorder("<")
        count = math.prod(weight["shape"])
        values = np.frombuffer(numbers, stored, count, start).reshape(weight["shape"])
        start += count * stored.itemsize
        if weight["dtype"] != "float32" or not weight["shape"]:
            continue  # sizes and constants of the graph
        if quantization:
            values = (values * quantization["scale"] + quantization["min"]).astype(np.float32)
        name = _torch_name(weight["name"], names)
        yield name, torch.from_numpy(_torch_axes(weight["name"], values).copy())


def _torch_name(name: str, among: set[str]) -> str:
    *path, last = name.split("/")
    if not path:  # a matrix without biases
        return f"{last}.weight"
    if path[-1] == "BatchNorm":  # inside the convolution before it
        path = [*path[:-2], f"{path[-2]}_norm"]
    if last == "bias" and "/".join([*path, "pointwise_filter"]) in among:  # added after the pointwise convolution
        last = "pointwise.bias"
    return ".".join([*path, _LAST.get(last, last)])


def _torch_axes(name: str, values: np.ndarray) -> np.ndarray:
    """Return kernels [h, w, in, out] as [out, in, h, w], depthwise ones [h, w, C, 1] as [C, 1, h, w], and matrices
    [in, out] as [out, in]."""
    if values.ndim == 4:
        return values.transpose(2, 3, 0, 1) if "depthwise" in name.rpartition("/")[2] else values.transpose(3, 2, 0, 1)
    return values.T if values.ndim == 2 else values
