"""Load networks of Keras 3 on its torch backend: `.keras` files, HDF5 files, and weights alone."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from interpret.loading.model_source import ModelSource
from interpret.network.keras_graph import other_backend
from interpret.network.model import Model
from interpret.network.weights import copied
from interpret.network.wrappers import plain_network
from interpret.support.errors import InterpretError

HDF5 = (".h5", ".hdf5")
ENDINGS = (".keras", *HDF5)
"""The suffixes of Keras's files, of models and of weights alone."""

_BACKEND = "KERAS_BACKEND"


@contextmanager
def keras_on_torch() -> Iterator[None]:
    """Make Keras choose its torch backend if it is first imported in the block, unless the user has chosen one."""
    if "keras" in sys.modules or _BACKEND in os.environ:
        yield
        return
    os.environ[_BACKEND] = "torch"
    try:
        yield
    finally:
        del os.environ[_BACKEND]


def keras_source(path: Path) -> ModelSource:
    """Return the source of a network in a file of Keras. Python code in the file is never run.

    Raises:
        InterpretError: when the network is made: a file that is missing, damaged, or holds weights alone; Keras is not
            installed or has another backend; the network has a layer of the user's own, or Python code.
    """
    return ModelSource.of_file(path.name.partition(".")[0], path, _read, _fresh)


def with_keras_weights(model: Model, path: Path) -> Model:
    """Return a model whose module has the weights of a Keras file; the network that it was made from stays as it is.

    Raises:
        InterpretError: the model is not of Keras, or the weights do not fit it.
    """
    source: Any = getattr(getattr(model.module, "source", None), "value", None)
    if source is None:
        raise InterpretError(
            f"weights {str(path)!r} are a file of Keras, and {model.name!r} is not a network of Keras: give the "
            "function that builds it, as file.py:function"
        )
    before = [variable.value.detach().clone() for variable in source.weights]
    try:
        source.load_weights(str(path))
        module = copied(plain_network(source))
    except InterpretError:
        raise
    except Exception as error:  # Keras raises whatever its parts do
        raise InterpretError(f"weights {str(path)!r} do not fit the network: {_first_line(error)}") from error
    finally:
        for variable, values in zip(source.weights, before, strict=True):
            variable.assign(values)
    return replace(model, module=module)


def _fresh(path: Path) -> Any:
    """Return the network of a file with newly drawn weights."""
    model = _read(path)
    try:
        return _keras(path).models.clone_model(model)
    except Exception as error:
        raise InterpretError(
            f"model {str(path)!r} cannot be made with new weights ({_first_line(error)}): build it in a function, and "
            "give file.py:function"
        ) from error


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InterpretError(f"model {str(path)!r} does not exist: give the path of a file of Keras")
    keras = _keras(path)
    if path.suffix.lower() in HDF5:
        _refuse_weights_alone(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts do
        raise InterpretError(f"model {str(path)!r} {_reason(error)}") from error


def _keras(path: Path) -> Any:
    """Return the package Keras on its torch backend."""
    chosen = os.environ.get(_BACKEND) or "torch"
    if "keras" not in sys.modules and chosen != "torch":
        raise other_backend(f"model {str(path)!r}", chosen)
    try:
        with keras_on_torch():
            keras: Any = importlib.import_module("keras")
    except ModuleNotFoundError as error:
        raise InterpretError(
            f"model {str(path)!r} needs Keras, and there is no {error.name}: install it with "
            "pip install 'interpret-cnn[keras]'"
        ) from None
    if keras.backend.backend() != "torch":
        raise other_backend(f"model {str(path)!r}", keras.backend.backend())
    return keras


def _refuse_weights_alone(path: Path) -> None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    except OSError:
        raise InterpretError(f"model {str(path)!r} is damaged or no HDF5 file: save it again from Keras") from None
    if not whole:
        raise InterpretError(
            f"{str(path)!r} holds weights alone: give the function that builds the network, as file.py:function, and "
            "this file as weights"
        )


def _reason(error: Exception) -> str:
    """Return why Keras cannot load a model, as the end of a sentence."""
    text = str(error)
    if "lambda" in text.lower() and "safe" in text.lower():
        return (
            "holds Python code (a Lambda layer), which is not run: build the network in a function, and give "
            "file.py:function and the file as weights"
        )
    if (unknown := re.search(r"Could not locate (\w+ '[^']+')", text)) is not None:
        return (
            f"has a {unknown[1]} that Keras does not know: build the network in a function of a file "
            "that defines the class, and give file.py:function and this file as weights"
        )
    return f"cannot be loaded ({type(error).__name__}: {_first_line(error)}): save it again with Keras 3"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].strip().rstrip(".:")
