"""Where a study's results come from: what study.json says, and whether a model and data are the study's."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from interpret.images.sources import Images
from interpret.network.layers import has_units
from interpret.network.model import Model
from interpret.results.study_file import FORMAT
from interpret.study.reader import StudyReader, local_field
from interpret.support.errors import InterpretError
from interpret.support.files import WORKSPACE
from interpret.support.wording import readable
from interpret.tracing.receptive_field import ReceptiveField
from interpret.tracing.tracing import Layer, Trace

UNFINISHED_FOLDERS = ("unfinished", "features")
"""The folders that an interrupted analysis leaves in a study without a result."""


def describe(model: Model, data: Images, dtype: str, layers: Trace, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what study.json says of a model on data before anything is computed."""
    return {
        "format": FORMAT,
        "versions": {name: version_of(name) for name in ("interpret-cnn", "torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
        "model": {
            "name": model.name,
            "spec": model.spec,
            "weights": model.weights,
            "origin": model.origin,
            "weights_hash": model.weights_hash,
            "params": sum(parameter.numel() for parameter in model.module.parameters()),
            "input_shape": list(shape),
            "classes": list(model.classes) if model.classes is not None else None,
            "card": model.card,
            "uncounted": layers.uncounted,
            "preprocess": model.preprocess.to_dict() if model.preprocess is not None else None,
        },
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "items": len(data),
            "sources": len(np.unique(data.sources)),
            "classes": list(data.classes) if data.classes is not None else None,
            "skipped": dict(data.skipped),
            "left_out": {kind: list(found) for kind, found in data.left_out.items()},
            "opened_from": data.opened_from,
            "notes": list(data.notes),
            "shown": data.pixel_scale.said,
        },
        "settings": {"dtype": dtype},
        "layers": [_layer_record(layer, model.module.get_submodule(layer.name)) for layer in layers.values()],
    }


def version_of(package: str) -> str:
    """Return the version of an installed package, or "unknown"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _layer_record(layer: Layer, module: nn.Module) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "leaf": layer.leaf,
        "batched": layer.batched,
        "boxes": layer.boxes,
        "placed": layer.units is not None or not has_units(module),
        "units": layer.units,
        "grid": None if layer.grid is None else list(layer.grid),
        "input_shape": None if layer.input_shape is None else list(layer.input_shape),
        "output_shape": list(layer.output_shape),
        "params": layer.params,
        "macs": layer.macs,
        "receptive_field": _field_record(layer.receptive_field),
        "local_field": _field_record(layer.local_field),
        "global_from": layer.global_from,
        "local_global_from": layer.local_global_from,
    }


def _field_record(field: ReceptiveField | None) -> dict[str, Any] | None:
    if field is None:
        return None
    record: dict[str, Any] = {key: list(getattr(field, key)) for key in ("size", "stride", "start")}
    return record if field.exact else record | {"exact": False}


def check_is_new(path: Path) -> None:
    """Refuse to start a study in a folder that holds something else.

    Raises:
        InterpretError: the path is a file, or a folder with other content than unfinished work, or not UTF-8.
    """
    if readable(str(path)) != str(path):
        raise InterpretError(
            f"the study {readable(str(path))!r} is not UTF-8, as its files must be: name another folder"
        )
    if path.exists() and not (path.is_dir() and all(_may_come_first(one) for one in path.iterdir())):
        raise InterpretError(f"{path} exists and is no study: choose another folder")


def _may_come_first(path: Path) -> bool:
    """Return whether a path in a study's folder may be older than the study: after a crash, or in a second process."""
    return (
        path.name in UNFINISHED_FOLDERS
        or path.name.startswith(WORKSPACE)
        # as earlier versions left it behind
        or (path.name.startswith(".study.json.") and not any(path.rglob("*")))
    )


def check_is_of(study: StudyReader, described: Mapping[str, Any]) -> None:
    """Refuse to continue a study of other weights, inputs, data or precision than those described.

    What an earlier version did not keep of the layers is added.

    Raises:
        InterpretError: the study holds results of something else.
    """
    for part, key, what in (
        ("model", "weights_hash", "weights"),
        ("model", "input_shape", "inputs"),
        ("data", "fingerprint", "data"),
        ("settings", "dtype", "precision"),
    ):
        if study.info[part][key] != described[part][key]:
            raise InterpretError(
                f"{study.path} holds results of other {what} ({part} {study.info[part].get('name', '')!r}): "
                "choose another folder"
            )
    records = {layer["name"]: layer for layer in described["layers"]}
    for layer in study.layers:
        if layer["name"] not in records:
            continue
        if local_field(layer) != local_field(records[layer["name"]]) and study.is_mined(layer["name"]):
            raise InterpretError(
                f"{study.path} holds hits of another network or of an earlier version, whose neurons see other windows "
                f"(layer {layer['name']!r}): project with the model and data that were mined, or choose another folder"
            )
        layer.update(records[layer["name"]])


def autocast_type(dtype: str) -> torch.dtype | None:
    """Return the type in which the network runs, None for that of its weights.

    Raises:
        InterpretError: another type than float32 and bfloat16.
    """
    if dtype not in ("float32", "bfloat16"):
        raise InterpretError(f"dtype must be float32 or bfloat16, not {dtype!r}")
    return torch.bfloat16 if dtype == "bfloat16" else None
