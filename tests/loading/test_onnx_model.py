"""ONNX files: real ones, compared with onnxruntime, and what does not convert."""

from __future__ import annotations

import builtins
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interpret
from helpers.packages import needs
from interpret.support.errors import InterpretError

needs_onnx = needs("onnx", "onnx2torch", "onnxruntime")
needs_text = needs("onnx", "onnx2torch", "onnxruntime", "rapidocr_onnxruntime")

TEXT = {  # of rapidocr, with the size of an input
    "ch_PP-OCRv4_det_infer": (3, 96, 128),
    "ch_PP-OCRv4_rec_infer": (3, 48, 160),
    "ch_ppocr_mobile_v2.0_cls_infer": (3, 48, 96),
}


def text_model(name: str) -> Path:
    spec = find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "models" / f"{name}.onnx"


def outputs_of(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a file that was exported for one image: convolution, slice, resized batch, product with a matrix."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def constant(name: str, values: Any) -> Any:
        return numpy_helper.from_array(np.asarray(values), name)

    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], "/features/features.0/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"], "/features/features.1/Relu"),
        helper.make_node("Slice", ["positive", "starts", "ends", "axes", "steps"], ["part"], "part"),
        helper.make_node("Constant", [], ["shape"], value=constant("", np.int64([1, -1]))),
        helper.make_node("Reshape", ["part", "shape"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"], "head/MatMul"),
        helper.make_node("Add", ["product", "offset"], ["classes"]),
    ]
    weights = [
        constant("kernel", rng.normal(size=(4, 3, 3, 3)).astype(np.float32)),
        constant("starts", np.int64([-1, 1])),
        constant("ends", np.int64([-100, 5])),
        constant("axes", np.int64([2, -1])),
        constant("steps", np.int64([-2, 1])),
        constant("matrix", rng.normal(size=(64, 5)).astype(np.float32)),
        constant("offset", rng.normal(size=5).astype(np.float32)),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("images", [1, 3, 8, 8]), ("classes", [1, 5]))
    ]
    graph = helper.make_graph(nodes, "small", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@needs_onnx
def test_layers_have_the_names_of_the_nodes_and_give_what_onnxruntime_gives(small: Path) -> None:
    model = interpret.load(small)
    assert (model.name, model.input_shape) == ("small", (3, 8, 8))
    assert model.origin == "weights from the file small.onnx" and model.preprocess is None
    images = torch.randn(5, 3, 8, 8)
    expected = [outputs_of(small, one.numpy()) for one in images.split(1)]  # it takes one image at a time
    assert torch.allclose(model(images), torch.from_numpy(np.concatenate(expected)), atol=1e-5)
    layers = interpret.trace(model)
    assert [(layer.name, layer.kind) for layer in layers.values()][:2] == [
        ("features.features.0.Conv", "Conv2d"),
        ("features.features.1.Relu", "ReLU"),
    ]
    assert layers["head.MatMul"].kind == "Linear" and layers.macs == 4 * 27 * 64 + 64 * 5
    mined = interpret.mine(model, images, k=2)
    assert list(mined) == ["features.features.0.Conv", "head.MatMul"]
    interpret.project(model, images, "features.features.0.Conv", channels=1)
    new = [interpret.load(small, "random") for _ in range(2)]
    assert new[0].weights_hash == new[1].weights_hash != model.weights_hash


@needs_text
@needs_onnx
@pytest.mark.parametrize("axes", [1, 3])
def test_networks_of_signals_and_volumes_are_mined_and_projected(axes: int, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, side = np.random.default_rng(0), {1: 16, 3: 6}[axes]
    sizes = {"one": (4, 2, *(3,) * axes), "two": (5, 4, *(2,) * axes)}
    weights = [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), n) for n, size in sizes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["first"], "/first/Conv", pads=[1] * 2 * axes),
        helper.make_node("Relu", ["first"], ["positive"], "/relu/Relu"),
        helper.make_node(
            "MaxPool", ["positive"], ["pooled"], "/pool/MaxPool", kernel_shape=[2] * axes, strides=[2] * axes
        ),
        helper.make_node("Conv", ["pooled", "two"], ["maps"], "/second/Conv"),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"], "/means/GlobalAveragePool"),
    ]
    shapes = {"x": [1, 2, *[side] * axes], "means": [1, 5, *[1] * axes]}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes.items()]
    file = helper.make_model(
        helper.make_graph(nodes, "net", *ends, weights), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(file, tmp_path / "net.onnx")
    model, inputs = interpret.load(tmp_path / "net.onnx"), torch.randn(3, 2, *[side] * axes)
    expected = [outputs_of(tmp_path / "net.onnx", one.numpy()) for one in inputs.split(1)]
    assert torch.allclose(model(inputs), torch.from_numpy(np.concatenate(expected)), atol=1e-5)
    layers = interpret.trace(model, (2, *[side] * axes))
    fields = [layers[name].receptive_field for name in ("first.Conv", "second.Conv")]
    assert [field and field.size for field in fields] == [(3,) * axes, (6,) * axes]
    assert list(interpret.mine(model, inputs, k=2)) == ["first.Conv", "second.Conv"]
    assert interpret.project(model, inputs[:1], "second.Conv", 0).pixels.shape == (1, 2, *(6,) * axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXT)
def test_text_detector_and_recogniser(name: str) -> None:
    model = interpret.load(text_model(name))
    images = torch.randn(3, *TEXT[name])
    expected = outputs_of(text_model(name), images.numpy())
    assert np.allclose(model(images).detach().numpy(), expected, rtol=1e-3, atol=1e-6)  # of probabilities
    layers = interpret.trace(model, TEXT[name])
    assert not layers.uncounted and sum(layer.kind == "Conv2d" for layer in layers.values()) > 30
    mined = interpret.mine(model, images, k=2)
    convolution = list(mined)[5]
    one = interpret.project(model, images, convolution, channels=1)
    assert one.pixels.abs().max() > 0 and layers[convolution].local_field is not None


@needs_onnx
def test_what_does_not_convert_is_named(small: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(small)
    model.graph.node[1].op_type = "Mish"
    model.graph.node[2].op_type = "Unique"
    onnx.save(model, tmp_path / "other.onnx")
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused = {
        "other": "has operations that onnx2torch does not convert, Mish, Unique: load the network that it was exported",
        "torn": "is damaged or no ONNX file",
        "empty": "is damaged or no ONNX file",
        "none": "does not exist",
    }
    for name, sentence in refused.items():
        with pytest.raises(InterpretError, match=sentence) as raised:
            interpret.load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(raised.value)


def test_the_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importing(name, *rest, **more)

    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InterpretError, match=r"there is no onnx: install it with pip install 'interpret-cnn\[onnx\]'"):
        interpret.load(tmp_path / "net.onnx")
