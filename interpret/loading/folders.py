"""Load models from model folders and from functions in Python files."""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

from torch import nn

from interpret.loading.checkpoints import State, load_state, read_state
from interpret.loading.face_api import PACKAGE as FACE_API
from interpret.loading.face_api import face_api_state
from interpret.loading.keras_model import keras_on_torch
from interpret.loading.model_source import ModelSource
from interpret.loading.recipes import ModelTable, parse_table
from interpret.network.keras_graph import keras_graph
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.support.errors import MODEL_FILE, InterpretError, reason_of, unknown, warn


def shipped_models() -> Path:
    """Return the folder of the shipped models: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def model_folder(spec: str | os.PathLike[str]) -> Path | None:
    """Return the folder of a model, shipped or the user's own; None for any other model.

    >>> model_folder("lenet").name
    'lenet'
    >>> model_folder("torchvision:resnet18")
    """
    for folder in (shipped_models() / spec, Path(spec).expanduser()):
        if (folder / "model.py").is_file():
            return folder
    return None


def folder_source(folder: Path) -> ModelSource:
    """Return the source of a model folder's network.

    Where there is no `weights.safetensors`, the recipe may say `untrained = true`, and the weights are random, which a
    warning says; or `face_api = "NAME"`, and they are those of the npm package face-api.

    >>> folder_source(shipped_models() / "lenet").preprocess.size
    (28, 28)
    >>> folder_source(shipped_models() / "zfnet").origin
    'random weights (seed 0): this network has learnt nothing'

    Raises:
        InterpretError: a recipe with invalid tables `[input]` or `[model]`.
    """
    fresh = partial(build_from_file, folder / "model.py", "build")
    weights = folder / "weights.safetensors"

    def trained() -> nn.Module | Model:
        if table.untrained and not weights.exists():
            warn(
                f"model folder {folder.name!r} is an architecture without weights: these are random, and it has learnt "
                "nothing; give weights=... (--weights) a file, or 'random' if that is intended"
            )
            return fresh()
        if from_package:
            return _loaded(fresh(), face_api_state(table.face_api), f"weights {table.face_api!r}")
        if not weights.exists():
            raise InterpretError(
                f"model folder {str(folder)!r} has no weights.safetensors: train it with interpret train, or load it "
                "with weights='random'"
            )
        return _loaded(fresh(), read_state(weights), f"weights {str(weights)!r}")

    name = folder.resolve().name
    preprocess, table = _read_settings(folder / "recipe.toml")
    origin = f"weights.safetensors in the model folder {name}"
    from_package = bool(table.face_api) and not weights.exists()
    if from_package:
        origin = f"{table.face_api} of the npm package {FACE_API}"
    if table.untrained and not weights.exists():
        origin = ModelSource.fresh_origin
    card = folder / "card.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    return ModelSource(
        name, fresh, trained, origin, preprocess=preprocess, classes=table.class_names or None, card=text
    )


def _loaded(network: nn.Module | Model, state: State, source: str) -> nn.Module | Model:
    """Return a network with these weights."""
    load_state(network.module if isinstance(network, Model) else network, state, source)
    return network


def _read_settings(recipe: Path) -> tuple[Preprocess | None, ModelTable]:
    """Read a recipe's tables on the input and the network; the others are for training."""
    if not recipe.exists():
        return None, ModelTable()
    if not recipe.is_file():
        raise InterpretError(f"recipe {str(recipe)!r} is a folder, a pipe or a device: make it a file")
    try:
        tables = tomllib.loads(recipe.read_text(encoding="utf-8"))
        preprocess = parse_table(Preprocess, "input", tables["input"]) if "input" in tables else None
        table = parse_table(ModelTable, "model", tables.get("model", {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InterpretError(f"recipe {str(recipe)!r} is not TOML: {error}") from None
    except InterpretError as error:
        raise InterpretError(f"recipe {str(recipe)!r}: {error}") from None
    return preprocess, table


def file_source(path: Path, function: str) -> ModelSource:
    """Return the source of a network that a function in a Python file makes.

    >>> file_source(shipped_models() / "lenet/model.py", "build").origin
    'as build() in model.py makes it'
    """
    make = partial(build_from_file, path, function)
    origin = f"as {function}() in {path.name} makes it"
    return ModelSource(path.stem if function == "build" else function, make, make, origin, fresh_origin=origin)


def build_from_file(path: str | os.PathLike[str], function: str) -> nn.Module | Model:
    """Call a function in a Python file without arguments, and return the network that it makes.

    >>> type(build_from_file(shipped_models() / "lenet/model.py", "build")).__name__
    'LeNet'

    The file may import modules from its folder.

    Raises:
        InterpretError: a file that is missing or raises an error; a function that is missing, raises an error or
            returns anything but an `nn.Module` or a `Model`.
    """
    path = Path(path)
    if not path.is_file():
        raise InterpretError(f"model file {str(path)!r} does not exist")
    working, beside = Path.cwd(), str(path.resolve().parent)
    # registered under a unique name, because dataclasses look up their module
    module = ModuleType(f"{MODEL_FILE}{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, beside)
    try:
        with keras_on_torch():
            exec(compile(path.read_bytes(), path, "exec"), vars(module))
            if not callable(getattr(module, function, None)):
                found = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
                raise unknown(f"function in {path.name}", function, found)
            network = getattr(module, function)()
    except (InterpretError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # the user's code may raise anything, and call sys.exit
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"line {lines[-1]} of " if lines else ""
        raise InterpretError(f"{where}{str(path)!r} raised {reason_of(error)}") from error
    finally:
        os.chdir(working)  # where the paths of the user lie
        with suppress(ValueError):
            sys.path.remove(beside)
    keras_graph(network)  # which refuses one on another backend
    if not isinstance(network, nn.Module | Model):
        raise InterpretError(
            f"{function}() in {str(path)!r} must return an nn.Module or a Model, not {type(network).__name__}"
        )
    return network
