"""Files of Keras: whole models, weights alone, and what is refused."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import interpret
from helpers.packages import needs
from interpret.loading import keras_model
from interpret.loading.keras_model import keras_on_torch
from interpret.network.keras_layers import MapLayout
from interpret.support.errors import InterpretError

needs_keras = needs("keras")
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",  # as Keras saves
    "ignore:You are saving your model as an HDF5 file",
)

BUILD = """
import keras

def build():
    return keras.Sequential([
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(4, 3, activation="relu", name="conv1"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(3, activation="softmax", name="classes"),
    ], name="small")
"""


@pytest.fixture(scope="module")
def keras() -> Any:
    with keras_on_torch():
        return importlib.import_module("keras")


@pytest.fixture
def built(keras: Any, tmp_path: Path) -> Any:
    (tmp_path / "net.py").write_text(BUILD)
    space: dict[str, Any] = {}
    exec(BUILD, space)
    return space["build"]()


@needs_keras
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_whole_model_is_loaded(built: Any, tmp_path: Path, ending: str) -> None:
    built.save(tmp_path / f"net.{ending}")
    model = interpret.load(tmp_path / f"net.{ending}")
    assert (model.name, model.input_shape) == ("net", (1, 12, 12))
    assert model.origin == f"weights from the file net.{ending}" and not model.module.training
    images = torch.rand(2, 1, 12, 12)
    assert torch.allclose(model(images), built(MapLayout(True).channels_last(images)), atol=1e-6)
    random, again = (interpret.load(tmp_path / f"net.{ending}", "random") for _ in range(2))
    assert random.weights_hash == again.weights_hash != model.weights_hash
    assert "random weights" in random.origin


@needs_keras
@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras", "net.h5"])
def test_weights_alone_go_into_a_network_that_a_function_builds(built: Any, tmp_path: Path, name: str) -> None:
    (built.save_weights if "weights" in name else built.save)(tmp_path / name)
    model = interpret.load(f"{tmp_path}/net.py:build", tmp_path / name)
    images = torch.rand(2, 1, 12, 12)
    assert torch.allclose(model(images), built(MapLayout(True).channels_last(images)), atol=1e-6)
    assert model.origin == f"weights from the file {name}"
    fresh = [interpret.load(f"{tmp_path}/net.py:build") for _ in range(2)]
    assert fresh[0].weights_hash == fresh[1].weights_hash != model.weights_hash
    # a network in hand keeps its weights
    before = [values.copy() for values in built.get_weights()]
    built.set_weights([np.zeros_like(values) for values in before])
    assert torch.equal(interpret.load(built, tmp_path / name)(images), model(images))
    assert not any(values.any() for values in built.get_weights())


@needs_keras
def test_analyses_and_a_study_work_from_a_file(built: Any, tmp_path: Path) -> None:
    built.save(tmp_path / "net.keras")
    preprocess = interpret.Preprocess((12, 12), channels="L")
    model = interpret.load(tmp_path / "net.keras", preprocess=preprocess, classes=("a", "b", "c"))
    images = torch.rand(8, 1, 12, 12)
    study = interpret.Study(tmp_path / "study", model, images)
    study.mine(k=3)
    study.project()
    interpret.write_gallery(study, tmp_path / "pages")
    assert (tmp_path / "pages" / "layers" / "conv1" / "3.html").exists()
    assert (tmp_path / "pages" / "layers" / "classes" / "2.html").exists()
    found = interpret.occlude(model, images[:2], [0, 1], size=4, stride=4)
    assert found.probabilities.shape[0] == 2
    curves = interpret.probe(model, images, "translation", values=[0, 1])
    assert list(curves.distances) == ["conv1", "classes"]


@needs_keras
def test_what_cannot_be_loaded_is_refused(keras: Any, built: Any, tmp_path: Path) -> None:
    built.save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "torn.h5").write_bytes(b"torn")
    (tmp_path / "torn.keras").write_bytes(b"torn")
    other = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Conv2D(5, 3)])
    other.save_weights(tmp_path / "other.weights.h5")
    build = f"{tmp_path}/net.py:build"
    refused: list[tuple[Any, Any, str]] = [
        (tmp_path / "net.weights.h5", None, "holds weights alone: give the function that builds the network"),
        (tmp_path / "torn.h5", None, "is damaged or no HDF5 file"),
        (tmp_path / "torn.keras", None, "torn.keras' cannot be loaded"),
        (build, tmp_path / "other.weights.h5", "other.weights.h5' do not fit the network"),
        (build, f"{tmp_path}/net.weights.h5:no-head", "are a file of Keras: give it without a suffix"),
        ("lenet", tmp_path / "net.weights.h5", "are a file of Keras, and 'lenet' is not a network of Keras"),
    ]
    for spec, weights, sentence in refused:
        with pytest.raises(InterpretError, match=sentence) as raised:
            interpret.load(spec, weights)
        assert "\n" not in str(raised.value)


@needs_keras
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_code_in_a_file_is_not_run(keras: Any, tmp_path: Path, ending: str) -> None:
    target = str(tmp_path / "made")

    def harm(images: Any) -> Any:
        Path(target).touch()
        return images

    layer = keras.layers.Lambda(lambda images: harm(images))
    keras.Sequential([keras.Input((8, 8, 1)), layer]).save(tmp_path / f"net.{ending}")
    Path(target).unlink(missing_ok=True)
    with pytest.raises(InterpretError, match=r"holds Python code \(a Lambda layer\), which is not run"):
        interpret.load(tmp_path / f"net.{ending}")
    assert not Path(target).exists()


@needs_keras
def test_a_class_that_keras_does_not_know_is_named(keras: Any, tmp_path: Path) -> None:
    class Blur(keras.Layer):
        def call(self, images: Any) -> Any:
            return images

    keras.Sequential([keras.Input((8, 8, 1)), Blur()]).save(tmp_path / "net.keras")
    with pytest.raises(InterpretError, match=r"has a class 'Blur' that Keras does not know: build .*file.py:function"):
        interpret.load(tmp_path / "net.keras")


def test_the_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'keras'", name="keras")

    (tmp_path / "net.h5").write_bytes(b"")
    monkeypatch.setattr(keras_model.importlib, "import_module", missing)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(
        InterpretError, match=r"net.h5' needs Keras, and there is no keras: install .*interpret-cnn\[keras\]"
    ):
        interpret.load(tmp_path / "net.h5")


@pytest.mark.slow
@needs_keras
def test_the_command_chooses_the_backend_and_says_when_it_cannot(built: Any, tmp_path: Path) -> None:
    built.save(tmp_path / "net.keras")
    built.save_weights(tmp_path / "net.weights.h5")
    apart = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "interpret", *arguments]
        return subprocess.run(words, capture_output=True, text=True, env=apart | environment, cwd=tmp_path)

    found = command("summary", "net.keras")
    assert found.returncode == 0 and "conv1_relu" in found.stdout and "4 × 10 × 10" in found.stdout, found.stderr
    by_function = command("filters", "net.py:build", "--weights", "net.weights.h5", "--out", "filters.png")
    assert by_function.returncode == 0 and (tmp_path / "filters.png").exists(), by_function.stderr
    refused = command("summary", "net.keras", KERAS_BACKEND="jax")
    assert refused.returncode == 2 and "was imported with 'jax'" not in refused.stdout
    assert "needs Keras on its torch backend" in refused.stderr and "KERAS_BACKEND=torch" in refused.stderr
    (tmp_path / "pictures").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "pictures" / "one.png")
    asked = command("gallery", "net.keras", "pictures")
    assert asked.returncode == 2 and "returns interpret.load('net.keras', preprocess=" in asked.stderr
