"""Weights that are no weights: pipes, other formats, odd keys and numbers. None runs code, hangs or loads silently."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import interpret
from interpret.loading.checkpoints import read_state
from interpret.support.errors import InterpretError


def _saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


WEIGHTS = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "integers.pt": (lambda: _saved({0: torch.ones(1), 1: torch.ones(2)}), "name a tensor 0, and names must be texts"),
    "inner.pt": (lambda: _saved({"state_dict": {0: torch.ones(1)}}), "hold no state_dict"),
    "mixed.pt": (lambda: _saved({**WEIGHTS, 3: torch.ones(1)}), "name a tensor 3"),
    "complex.pt": (lambda: _saved({**WEIGHTS, "weight": torch.ones(1, 2) * 1j}), "weight holds complex numbers"),
    "list.pt": (lambda: _saved([torch.ones(2)]), "hold no state_dict"),
    "nothing.pt": (lambda: _saved({}), "hold no state_dict"),
    "deep.pt": (lambda: _saved({"a": {"b": {"c": {"d": {"e": WEIGHTS}}}}}), "hold no state_dict"),
    "keras.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "are a file of Keras, and 'Linear' is not"),
    "keras.pt": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "are an HDF5 file"),
    "net.onnx": (lambda: b"\x08\x07\x12\x07pytorch\x1a\x032.1" + bytes(50), "are an ONNX model"),
    "net.pth": (lambda: b"\x08\x08\x12\x07pytorch\x1a\x032.1" + bytes(50), "are an ONNX model"),
    "net.tflite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(50), "are a TensorFlow Lite model"),
    "net.gguf": (lambda: b"GGUF" + bytes(50), "are a GGUF model"),
    "net.keras": (lambda: _zipped("config.json", "model.weights.h5"), "are a file of Keras"),
    "net.ckpt": (lambda: _zipped("config.json", "model.weights.h5"), "are a Keras model"),
    "all.zip": (lambda: _zipped("readme.txt"), "are a ZIP archive"),
    "array.npy": (_array, "are a NumPy array"),
    "weights.pt.gz": (lambda: b"\x1f\x8b" + bytes(50), "are a compressed file"),
    # found by the fuzzer: a central directory of zeros
    "holed.pt": (lambda: (whole := _saved(WEIGHTS))[:-200] + bytes(100) + whole[-100:], "are damaged or no checkpoint"),
    "cat.jpg": (lambda: b"\xff\xd8\xff\xe0" + bytes(50), "are a picture"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_sentence_says_what_the_file_is(tmp_path: Path, name: str) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(InterpretError, match=said):
        interpret.load(nn.Linear(2, 1), weights=tmp_path / name)


@pytest.mark.parametrize("name", ["pipe.pt", "pipe.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InterpretError, match="are no plain file but a pipe or a device"):
        read_state(tmp_path / name)
    with pytest.raises(InterpretError, match="are no plain file but a pipe or a device"):
        interpret.load(nn.Linear(2, 1), weights="/dev/zero")


def test_a_pipe_as_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def build(): pass")
    os.mkfifo(tmp_path / "recipe.toml")
    with pytest.raises(InterpretError, match=r"recipe .* is a folder, a pipe or a device"):
        interpret.load(tmp_path)


def test_plain_weights_still_load(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(_saved(WEIGHTS))
    loaded = interpret.load(nn.Linear(2, 1), weights=tmp_path / "a.pt")
    assert torch.equal(loaded.module.weight, torch.ones(1, 2))  # type: ignore[arg-type]
