"""The networks of the npm package face-api: their weights, their outputs beside its own, and the examples with them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import interpret
from helpers.packages import needs
from helpers.scripts import load_script
from interpret.loading import face_api, mtcnn
from interpret.support.errors import InterpretError

needs_face_api = pytest.mark.skipif("INTERPRET_FACE_API" not in os.environ, reason="needs the package face-api")
NAMES = ("tiny_face_detector", "ssd_face_detector", "face_landmarks", "face_expressions", "face_recognition")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package, and an empty cache."""
    monkeypatch.setenv("INTERPRET_FACE_API", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_package_that_is_not_there_is_asked_for_in_one_sentence(package: Path, name: str) -> None:
    with pytest.raises(InterpretError, match=r"are not in .*: run npm install @vladmandic/face-api@1\.7\.15 here, or"):
        interpret.load(name)
    assert interpret.load(name, weights="random").origin.startswith("random weights")


def test_files_of_another_version_are_refused(package: Path) -> None:
    (package / "model/tiny_face_detector_model.bin").write_bytes(b"0")
    (package / "model/tiny_face_detector_model-weights_manifest.json").write_text("[]")
    with pytest.raises(InterpretError, match="install that version again"):
        interpret.load("tiny_face_detector")


def test_a_recipe_that_names_other_weights_is_refused(package: Path) -> None:
    (package / "model.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 2, 1)\n")
    (package / "recipe.toml").write_text('[model]\nface_api = "face_recognition"\n')
    with pytest.raises(InterpretError, match="unknown weights of face-api 'face_recognition': did you mean 'face_reco"):
        interpret.load(package)


def flat_file(package: Path, name: str, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write arrays as the package has them: float32, or uint8 with scale 0.5 and minimum −3; and expect their hash."""
    numbers, weights = b"", []
    for place, (key, array) in enumerate(arrays.items()):
        weight: dict[str, Any] = {"name": key, "shape": list(array.shape), "dtype": "float32"}
        if place % 2:
            weight["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -3.0}
        numbers += (((array + 3) / 0.5).astype(np.uint8) if place % 2 else array.astype("<f4")).tobytes()
        weights.append(weight)
    manifest = json.dumps([{"weights": weights, "paths": [f"{name}.bin"]}]).encode()
    (package / f"model/{name}.bin").write_bytes(numbers)
    (package / f"model/{name}-weights_manifest.json").write_bytes(manifest)
    monkeypatch.setitem(face_api.SHA256, name, hashlib.sha256(numbers + manifest).hexdigest())


def test_flat_files_are_read_by_name_and_cached(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)
    arrays = {
        key: rng.randint(-6, 7, shape) / 2
        for key, shape in {
            "conv0/filters": (3, 3, 2, 4),
            "conv0/bias": (4,),
            "conv1/depthwise_filter": (3, 3, 4, 1),
            "conv1/pointwise_filter": (1, 1, 4, 5),
            "conv1/bias": (5,),
            "a/b_depthwise/BatchNorm/moving_variance": (5,),
            "fc": (5, 7),
        }.items()
    }
    flat_file(package, "tiny_face_detector_model", arrays, monkeypatch)
    state = face_api.face_api_state("tiny_face_detector_model")
    assert set(state) == {
        "conv0.weight", "conv0.bias", "conv1.depthwise.weight", "conv1.pointwise.weight", "conv1.pointwise.bias",
        "a.b_depthwise_norm.running_var", "fc.weight",
    }  # fmt: skip
    for out, inputs, y, x in np.ndindex(4, 2, 3, 3):
        assert state["conv0.weight"][out, inputs, y, x] == arrays["conv0/filters"][y, x, inputs, out]
    for channel, y, x in np.ndindex(4, 3, 3):
        assert state["conv1.depthwise.weight"][channel, 0, y, x] == arrays["conv1/depthwise_filter"][y, x, channel, 0]
    np.testing.assert_array_equal(state["conv1.pointwise.bias"], arrays["conv1/bias"])
    np.testing.assert_array_equal(state["fc.weight"], arrays["fc"].T)
    for file in (package / "model").iterdir():
        file.unlink()
    again = face_api.face_api_state("tiny_face_detector_model")  # from the cache
    assert state.keys() == again.keys() and all(bool((again[key] == value).all()) for key, value in state.items())


@pytest.mark.parametrize("side", [32, 96, 160])
def test_a_box_is_where_yolo_puts_it(side: int) -> None:
    """The boxes of a random network, beside the paper's formula for each cell and anchor."""
    network = interpret.load("tiny_face_detector", weights="random").module
    with torch.no_grad():
        network.conv8.weight.mul_(20)
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))
        maps, (faces,) = network(image)[0], network.detect(image, threshold=0.4, overlap=1)
    assert maps.shape == (25, side // 32, side // 32)
    expected = []
    for anchor, row, column in np.ndindex(5, side // 32, side // 32):
        x, y, width, height, score = maps[5 * anchor : 5 * anchor + 5, row, column].double()
        if score.sigmoid() > 0.4:
            centre = np.array([column + x.sigmoid(), row + y.sigmoid()])
            half = np.array([width.exp(), height.exp()]) * network.anchors[anchor].double().numpy() / 2
            expected.append([*(32 * (centre - half)), *(32 * (centre + half)), float(score.sigmoid())])
    found = torch.cat([faces["boxes"], faces["scores"][:, None]], 1).numpy()
    expected = np.array(sorted(expected, key=lambda one: -one[4]))
    assert len(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    for (unit, y, x), score in zip(faces["units"].tolist(), faces["scores"].tolist(), strict=True):
        assert float(maps[unit, y, x].sigmoid()) == pytest.approx(score)


@pytest.mark.parametrize("name", NAMES)
def test_all_convolutions_have_an_exact_field_and_mine(name: str) -> None:
    model = interpret.load(name, weights="random")
    side = {"tiny_face_detector": 64, "ssd_face_detector": 512}.get(name, model.input_shape[1])
    traced = interpret.trace(model, (3, side, side))
    convolutions = [layer for layer in traced.values() if layer.kind in ("Conv2d", "Padded")]
    assert len(convolutions) > 10
    assert all(layer.receptive_field is not None for layer in convolutions if layer.output_shape[1:] != (1, 1))
    if name != "ssd_face_detector":
        mined = interpret.mine(model, torch.rand(2, 3, side, side), k=1)
        assert set(mined) == {layer.name for layer in traced.values() if layer.kind in ("Conv2d", "Linear")}


def as_the_package_resizes(pixels: np.ndarray, side: int) -> Tensor:
    """Pad below or on the right in black, and resize bilinearly from corner to corner, as TensorFlow does."""
    longest = max(pixels.shape[:2])
    square = np.zeros((longest, longest, 3), np.float32)
    square[: pixels.shape[0], : pixels.shape[1]] = pixels
    place = np.arange(side) * (longest / side)
    low = place.astype(int)
    high, share = np.minimum(low + 1, longest - 1), (place - low).astype(np.float32)[:, None, None]
    rows = square[low] + (square[high] - square[low]) * share
    columns = rows[:, low] + (rows[:, high] - rows[:, low]) * share[None, :, 0]
    return torch.from_numpy(columns.transpose(2, 0, 1)[None].copy())


def centred(pixels: np.ndarray, side: int) -> Tensor:
    """Pad on both sides to a square, and resize it."""
    height, width = pixels.shape[:2]
    square = np.zeros((max(height, width),) * 2 + (3,), pixels.dtype)
    top, left = ((max(height, width) - size) // 2 for size in (height, width))
    square[top : top + height, left : left + width] = pixels
    return as_the_package_resizes(square, side)


def run(name: str, pixels: Tensor, detect: bool = False) -> Any:
    model = interpret.load(name)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.preprocess.mean, model.preprocess.std))
    with torch.no_grad():
        return (model.module.detect if detect else model)((pixels - mean) / std)[0]


@needs_face_api
def test_networks_answer_as_the_package_does() -> None:
    """Beside face-api 1.7.15 itself, on tfjs's plain backend: boxes, landmarks, expressions and a descriptor."""
    pixels = np.asarray(load_script("lecture/object_detection").photographs()[1])
    scale = pixels.shape[1]
    faces = run("ssd_face_detector", as_the_package_resizes(pixels, 512), detect=True)
    assert faces["scores"].tolist() == pytest.approx(
        [0.9891935586929321, 0.8834555745124817, 0.7565348744392395], abs=1e-5
    )
    # the package rounds the height of the padded picture to whole pixels
    boxes = (faces["boxes"] * scale / 512).numpy()
    assert boxes[:, 0] == pytest.approx([1447.035, 901.538, 360.983], abs=0.01)
    assert boxes[:, 1] == pytest.approx([153.432, 219.842, 125.681], abs=0.5)
    faces = run("tiny_face_detector", as_the_package_resizes(pixels, 416), detect=True)
    assert faces["scores"].tolist() == pytest.approx([0.851381], abs=1e-5)
    left, top, width, height = 1403.474, 173.397, 276.620, 263.767
    expected = [left, top, left + width, top + height]
    assert (faces["boxes"][0] * scale / 416).tolist() == pytest.approx(expected, abs=0.5)

    x, y, w, h = (int(number) for number in (left, top, width, height))
    face = pixels[y : y + h, x : x + w]
    corner = torch.tensor([left, top]) - torch.tensor([(max(w, h) - w) / 2, (max(w, h) - h) / 2])
    points = run("face_landmarks", centred(face, 112)).reshape(68, 2) * max(w, h) + corner
    eye = [[1470.492, 278.584], [1474.838, 275.901], [1487.105, 272.92], [1500.123, 275.731]]
    np.testing.assert_allclose(points[36:40], eye, atol=0.02)
    x, y, w, h = 1425, 187, 249, 220  # the package's box around the landmarks
    expressions = run("face_expressions", centred(pixels[y : y + h, x : x + w], 112)).softmax(0)
    assert expressions[:3].tolist() == pytest.approx([0.02312, 0.00502, 0.97186], abs=1e-4)
    centres = torch.stack([points[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68))])
    side = int((centres[2] - centres[:2]).norm(dim=1).mean() / 0.45)
    x, y = (int(number) for number in centres.mean(0) - torch.tensor([0.5, 0.43]) * side)
    descriptor = run("face_recognition", centred(pixels[y : y + side, x : x + side], 150))
    assert descriptor[:6].tolist() == pytest.approx(
        [-0.081666, 0.06358, 0.077956, -0.074169, -0.124245, -0.033572], abs=1e-4
    )


@needs_face_api
@pytest.mark.slow
def test_the_lectures_faces_are_detected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("lecture/object_detection")
    found = script.main(["--out", str(tmp_path)])
    assert f"Open {tmp_path / 'object_detection.png'}" in capsys.readouterr().out
    with Image.open(tmp_path / "object_detection.png") as picture:
        assert picture.width > 1000
    assert [len(faces["boxes"]) for faces in found["found"]] == [3, 1, 3, 5, 5, 4]
    # the box of the surest face is at most a fortieth of the image and has a third of the signal
    assert min(found["inside"]) > 1 / 3
    # each scoring unit responds most to a face of about its own size
    for _, size, _, box, score in found["strong"]:
        assert score > 0.6 and float(box[3] - box[1]) == pytest.approx(float(size[1]), rel=0.45)


MEASURED = Path(__file__).parents[2] / "examples" / "lecture" / "face_recognition.json"


def check_recognised(script: Any, found: dict[str, Any]) -> None:
    """Check that copies are nearer to their own face than to others, and that a turned face moves away from itself."""
    for own, other in found["copies"].values():
        assert np.less(own, other).all() and max(own) < script.THRESHOLD
    distances = np.array(found["distances"])
    assert distances.shape == (22, 22) and np.median(distances[~np.eye(22, dtype=bool)]) > script.THRESHOLD
    turned = found["curves"]["rotation"][1]
    assert turned[6] == 0 and turned[5] < script.THRESHOLD < turned[0]


def test_recognition_is_drawn_from_measured_numbers_without_the_package(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, figures = load_script("lecture/face_recognition"), []
    monkeypatch.setattr(script, "write_figure", lambda figure, _: figures.append(figure))
    found = script.main(["--measured", str(MEASURED)])
    check_recognised(script, found)
    printed = capsys.readouterr().out
    assert f"Measured on {found['date']} with @vladmandic/face-api@1.7.15, on 22 faces" in printed
    assert "darker: 22 of 22 faces recognised, at a distance of 0.10" in printed
    drawn = {axis.get_title(): axis for axis in figures[0].axes}
    assert set(drawn) == {"distances of copies", "distances of 22 faces", "rotation", "scale", "translation", ""}
    assert drawn["scale"].lines[0].get_ydata().tolist() == found["curves"]["scale"][1]
    assert list(drawn["distances of copies"].lines[0].get_xdata()) == found["copies"]["mirrored"][0]
    for text in ("", "{", "[]", json.dumps(found | {"distances": [[0]]})):
        (tmp_path / "torn.json").write_text(text)
        with pytest.raises(InterpretError, match="is no file that --keep has written"):
            script.main(["--measured", str(tmp_path / "torn.json")])


@needs_face_api
@pytest.mark.slow
def test_the_lectures_faces_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("lecture/face_recognition")
    found = script.main(["--out", str(tmp_path), "--keep", str(tmp_path / "found.json")])
    assert "mirrored: 22 of 22 faces recognised" in capsys.readouterr().out
    check_recognised(script, found)
    # what is committed is what is measured
    again, kept = script.read_measured(tmp_path / "found.json"), script.read_measured(MEASURED)
    for table in ("copies", "curves"):
        for name in kept[table]:
            np.testing.assert_allclose(again[table][name], kept[table][name], atol=0.003)
    np.testing.assert_allclose(again["distances"], kept["distances"], atol=0.003)
    # landmarks: eyes above the mouth, left of right
    for points in (one for of in found["points"] for one in of):
        left, right, mouth = points[36:42].mean(0), points[42:48].mean(0), points[48:].mean(0)
        assert left[0] < right[0] and max(left[1], right[1]) < mouth[1]


@needs("facenet_pytorch")  # pip install --no-deps facenet-pytorch==2.6.0, since it asks for an old torch
@pytest.mark.parametrize(("name", "side", "field"), [("PNet", 12, 12), ("RNet", 24, None), ("ONet", 48, None)])
def test_the_networks_of_mtcnn_load_mine_and_project(name: str, side: int, field: int | None) -> None:
    from facenet_pytorch.models import mtcnn

    network = getattr(mtcnn, name)().eval()
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    traced, mined = interpret.trace(network, (3, side, side)), interpret.mine(network, images, k=2)
    assert list(mined) == [key for key, layer in traced.items() if layer.kind in ("Conv2d", "Linear")]
    last = list(mined)[-1]
    if field is not None:  # the first network sees 12 × 12 pixels, as Zhang et al. 2016 say
        assert traced[last].receptive_field.size == (field, field)
    outputs = interpret.layer_outputs(network, images, last)[last].flatten(2 if field else 1)
    strongest = (outputs.amax(2) if field else outputs).topk(2, dim=0).values.T
    torch.testing.assert_close(torch.from_numpy(mined[last].values), strongest, rtol=1e-4, atol=1e-5)
    assert interpret.project(network, images[:1], last, 0).pixels.abs().sum() > 0


@needs("facenet_pytorch")
def test_mtcnns_cascade_finds_the_faces_that_the_package_finds() -> None:
    from facenet_pytorch import MTCNN

    model, pictures = interpret.load("mtcnn"), [astronaut(), astronaut()[:, ::-1].copy(), np.zeros((512, 512, 3), "u1")]
    with torch.no_grad():
        found = model.module(torch.stack([torch.from_numpy(one).permute(2, 0, 1).float() for one in pictures]))
    for picture, own in zip(pictures, found, strict=True):
        boxes, scores, points = MTCNN().detect(Image.fromarray(picture), landmarks=True)
        if boxes is None:
            assert len(own["boxes"]) == 0
            continue
        for name, theirs in (("boxes", boxes), ("scores", scores), ("keypoints", points)):
            np.testing.assert_allclose(own[name], theirs.astype("f4"), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@needs("facenet_pytorch")
def test_the_networks_of_mtcnns_cascade_are_mined_by_image_and_crop() -> None:
    model = interpret.load("mtcnn")
    image = model.preprocess(Image.fromarray(astronaut()))  # type: ignore[misc]
    images = torch.stack([image, torch.zeros_like(image), image.flip(2)])
    mined = interpret.mine(model, images, k=3)
    assert {name.partition(".")[0] for name in mined} == {"pnet", "rnet", "onet"}
    assert all((layer.rois is None) == name.startswith("pnet") for name, layer in mined.items())
    face = mined["onet.dense6_1"]
    assert sorted(face.images[1].tolist()) == [-1, 0, 2]  # no face is proposed in the black image
    assert face.rois is not None
    for item, value, (top, left, bottom, right) in zip(face.images[1], face.values[1], face.rois[1], strict=True):
        if item < 0:
            continue
        crop = images[item][None, :, int(top) : int(bottom), int(left) : int(right)].clone().requires_grad_()
        module, kept = model.module, []
        handle = module.onet.dense6_1.register_forward_hook(lambda *call, kept=kept: kept.append(call[2][0, 1]))
        module.onet((torch.nn.functional.interpolate(crop, (48, 48), mode="area") - 127.5) / 128)
        handle.remove()
        np.testing.assert_allclose(kept[0].item(), value, rtol=1e-4)
        (expected,) = torch.autograd.grad(kept[0], crop)
        box = [float(top), float(left), float(bottom), float(right)]
        found = interpret.project(
            model, images[item][None], "onet.dense6_1", 1, None, "gradient", boxes=box, start="one"
        )
        whole = torch.zeros_like(images[:1])
        whole[:, :, int(top) : int(bottom), int(left) : int(right)] = expected
        torch.testing.assert_close(found.pixels, whole, rtol=1e-3, atol=1e-6)
    deconvnet = interpret.project(model, images[:1], "onet.dense6_1", 1, strict=True)  # every operation is covered
    assert deconvnet.pixels.abs().sum() > 0


def astronaut() -> Any:
    """A face in the public domain."""
    from skimage import data

    return data.astronaut()


def test_a_package_of_mtcnn_that_is_not_there_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    for weights in (None, "random"):
        with pytest.raises(InterpretError, match="needs facenet-pytorch: install it with pip install --no-deps"):
            interpret.load("mtcnn", weights)
