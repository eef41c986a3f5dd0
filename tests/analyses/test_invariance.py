"""The invariance probe against a literal loop over images, values and pixels, in float64."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchvision.ops import SqueezeExcitation

import interpret
from helpers.commands import command, refused
from helpers.tensors import uniform
from interpret import InterpretError, probe
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.analyses.invariance.transforms import TRANSFORMS, Transform, named_transform, surround
from interpret.execution import resume as unfinished
from interpret.figures.saving import write_figure
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.preprocess import Cut, Preprocess
from interpret.results import Result
from interpret.results.plotting import plot

FEW = settings(max_examples=15, deadline=None)
H, W = 11, 8


def network(seed: int = 0) -> nn.Sequential:
    """Padding, rectifiers in place, a pool, and at the end a row of classes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1, stride=(1, 2)),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 5 * 2, 6),
    ).double()


def features_one_by_one(module: nn.Sequential, image: Tensor) -> dict[str, Tensor]:
    """Run one image, layer by layer."""
    found, values = {}, image[None]
    with torch.no_grad():
        for name, layer in module.named_children():
            values = layer(values.clone())
            found[name] = values[0].clone()
    return found


# the transforms, pixel by pixel


def mirror(place: int, length: int) -> int:
    while not 0 <= place < length:
        place = -place if place < 0 else 2 * (length - 1) - place
    return place


def pixel(image: Tensor, channel: int, y: int, x: int, fill: str) -> float:
    height, width = image.shape[1:]
    inside = 0 <= y < height and 0 <= x < width
    if fill == "black" and not inside:
        return 0.0
    if fill == "mean" and not inside:
        return float(image[channel].mean())
    if fill == "edge":
        return float(image[channel, min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
    return float(image[channel, mirror(y, height), mirror(x, width)])


def between(image: Tensor, channel: int, y: float, x: float, fill: str) -> float:
    """Interpolate bilinearly."""
    top, left = math.floor(y), math.floor(x)
    below, right = y - top, x - left
    return (
        (1 - below) * (1 - right) * pixel(image, channel, top, left, fill)
        + (1 - below) * right * pixel(image, channel, top, left + 1, fill)
        + below * (1 - right) * pixel(image, channel, top + 1, left, fill)
        + below * right * pixel(image, channel, top + 1, left + 1, fill)
    )


def warped(image: Tensor, looked_up: Callable[[float, float], tuple[float, float]], fill: str, samples: int) -> Tensor:
    """Look every pixel up elsewhere; (x, y) from the image's middle, x to the right and y down."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for row in range(height):
            for column in range(width):
                values = []
                for i in range(samples):
                    for j in range(samples):
                        y = row + (i + 0.5) / samples - 0.5 - (height - 1) / 2
                        x = column + (j + 0.5) / samples - 0.5 - (width - 1) / 2
                        sx, sy = looked_up(x, y)
                        values.append(between(image, c, sy + (height - 1) / 2, sx + (width - 1) / 2, fill))
                result[c, row, column] = sum(values) / len(values)
    return result


def transformed(image: Tensor, transform: str, value: float, fill: str, item: int = 0) -> Tensor:
    """Apply a transform as its description says, one pixel at a time."""
    height, width = image.shape[1:]
    angle = math.radians(value)
    if transform == "translation":
        return warped(image, lambda x, y: (x, y - value), fill, 1)
    if transform == "scale":
        return warped(image, lambda x, y: (x / value, y / value), fill, max(1, math.ceil(1 / value - 1e-6)))
    if transform == "rotation":
        # counter-clockwise to the eye, y pointing down: the result at angle a shows the image at angle a − v
        def turned(x: float, y: float) -> tuple[float, float]:
            radius, at = math.hypot(x, y), math.atan2(-y, x)
            return radius * math.cos(at - angle), -radius * math.sin(at - angle)

        return warped(image, turned, fill, 1)
    if transform == "viewpoint":
        away = max(height, width)

        def on_the_wall(x: float, y: float) -> tuple[float, float]:
            # x = X cos(v) · away / (away + X sin(v)), solved for X
            wall = x / (math.cos(angle) - x * math.sin(angle) / away)
            return wall, y * (away + wall * math.sin(angle)) / away

        steps = []
        for row in range(height):
            for column in range(width):
                here = np.array(on_the_wall(column - (width - 1) / 2, row - (height - 1) / 2))
                if column + 1 < width:
                    steps.append(np.hypot(*(on_the_wall(column + 1 - (width - 1) / 2, row - (height - 1) / 2) - here)))
                if row + 1 < height:
                    steps.append(np.hypot(*(on_the_wall(column - (width - 1) / 2, row + 1 - (height - 1) / 2) - here)))
        return warped(image, on_the_wall, fill, max(1, math.ceil(max(steps) - 1e-6)))
    if transform == "illumination":
        return image * value
    if transform == "contrast":
        return image.mean() + value * (image - image.mean())
    if transform == "noise":
        noise = np.random.default_rng([0, item]).standard_normal(tuple(image.shape), np.float32)
        return image + value * torch.from_numpy(noise).double()
    assert transform == "blur"
    radius = math.ceil(3 * value)
    weights = [math.exp(-0.5 * (step / value) ** 2) for step in range(-radius, radius + 1)]
    total = sum(weights)
    result = torch.zeros_like(image)
    for c in range(len(image)):
        for row in range(height):
            for column in range(width):
                result[c, row, column] = sum(
                    weights[i] * weights[j] / total**2 * pixel(image, c, row + i - radius, column + j - radius, fill)
                    for i in range(2 * radius + 1)
                    for j in range(2 * radius + 1)
                )
    return result


VALUES = {
    "translation": [-3, 0, 1, 2.5],
    "scale": [0.4, 1, 1.7],
    "rotation": [0, 30, 200],
    "viewpoint": [-35, 0, 50],
    "illumination": [0.5, 1, 2],
    "contrast": [0, 1, 1.5],
    "blur": [0, 0.4, 1],
    "noise": [0, 0.2],
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("fill", ["reflect", "edge", "mean", "black"])
def test_distances_and_probabilities_as_in_a_literal_loop(transform: str, fill: str) -> None:
    if fill != "reflect" and transform in ("illumination", "contrast", "noise"):
        pytest.skip("nothing comes into the picture")
    module, images, labels = network(), uniform(2, 2, H, W), [3, 5]
    curves = probe(
        module, images, transform, VALUES[transform], layers="0,1,2,3,4,5,6", labels=labels, fill=fill, batch_size=3
    )
    assert curves.layers == ["0", "1", "2", "3", "4", "5", "6"]
    assert curves.probabilities is not None and curves.top is not None
    for b, image in enumerate(images):
        before = features_one_by_one(module, image)
        for v, value in enumerate(VALUES[transform]):
            identity = value == named_transform(transform).identity
            changed = image if identity else transformed(image, transform, value, fill, item=b)
            after = features_one_by_one(module, changed)
            for name in curves.layers:
                far = math.sqrt(sum(float(d) ** 2 for d in (after[name] - before[name]).flatten()))
                length = math.sqrt(sum(float(d) ** 2 for d in before[name].flatten()))
                assert curves.distances[name][b, v] == pytest.approx(far, rel=1e-6, abs=1e-9)
                assert curves.norms[name][b] == pytest.approx(length, rel=1e-12)
                assert curves.relative[name][b, v] == pytest.approx(far / length, rel=1e-6, abs=1e-9)
                assert not identity or curves.distances[name][b, v] == 0
            outputs = [math.exp(float(output)) for output in after["6"]]
            assert curves.probabilities[b, v] == pytest.approx(outputs[labels[b]] / sum(outputs), rel=1e-6)
            assert curves.top[b, v] == max(range(6), key=lambda k: outputs[k])


def test_units_as_in_a_literal_loop() -> None:
    module, images, values = network(), uniform(3, 2, H, W), [-2, 0, 1]
    curves = probe(module, images, "translation", values, fill="black", batch_size=2)
    for v, value in enumerate(values):
        pairs = [
            (
                features_one_by_one(module, transformed(image, "translation", value, "black")),
                features_one_by_one(module, image),
            )
            for image in images
        ]
        for name in ("0", "3", "6"):
            for unit in range(len(curves.unit_distances[name])):
                far = sum(math.sqrt(float((a[name][unit] - b[name][unit]).square().sum())) for a, b in pairs)
                near = sum(math.sqrt(float(b[name][unit].square().sum())) for _, b in pairs)
                assert curves.unit_distances[name][unit, v] == pytest.approx(far / near, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("direction", ["vertical", "horizontal", "diagonal"])
def test_equivariance_error_as_in_a_literal_loop(direction: str) -> None:
    module, images, values = network(), uniform(2, 2, H, W), [-7, -3, -1, 0, 1, 2, 2.5, 20]
    curves = probe(module, images, "translation", values, layers="0,1,2,3,4,5,6", direction=direction, fill="edge")  # type: ignore[arg-type]
    strides = {"0": (1, 1), "1": (1, 1), "2": (2, 2), "3": (2, 4), "4": (2, 4)}
    assert list(curves.equivariance) == list(strides)
    down, right = {"vertical": (1, 0), "horizontal": (0, 1), "diagonal": (1, 1)}[direction]
    for v, value in enumerate(values):
        units: dict[str, list[Any]] = {name: [] for name in strides}
        for b, image in enumerate(images):
            before = features_one_by_one(module, image)
            moved_image = warped(image, lambda x, y, v=value: (x - right * v, y - down * v), "edge", 1)  # type: ignore[misc]
            after = features_one_by_one(module, moved_image)
            for name, stride in strides.items():
                shift = (down * value / stride[0], right * value / stride[1])
                per_unit = [literal_error(f, g, shift) for f, g in zip(before[name], after[name], strict=True)]
                units[name].append(per_unit)
                far, near = (math.sqrt(sum(part[i] for part in per_unit)) for i in (0, 1))
                expected = far / near if near else math.nan
                found = curves.equivariance[name][b, v]
                assert found == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True), (name, value)
        for name, per_image in units.items():
            for unit in range(len(per_image[0])):
                far, near = (sum(math.sqrt(one[unit][i]) for one in per_image) for i in (0, 1))
                expected = far / near if near else math.nan
                found = curves.unit_equivariance[name][unit, v]
                assert found == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


def literal_error(before: Tensor, after: Tensor, shift: tuple[float, float]) -> tuple[float, float]:
    """Return the squared distance of a map to the moved one, and its squared norm, where there is something to move."""
    height, width = before.shape
    far = near = 0.0
    for y in range(height):
        for x in range(width):
            at_y, at_x = y - shift[0], x - shift[1]
            rows = {math.floor(at_y): 1 - (at_y - math.floor(at_y)), math.ceil(at_y): at_y - math.floor(at_y)}
            columns = {math.floor(at_x): 1 - (at_x - math.floor(at_x)), math.ceil(at_x): at_x - math.floor(at_x)}
            if at_y.is_integer():
                rows = {int(at_y): 1.0}
            if at_x.is_integer():
                columns = {int(at_x): 1.0}
            if min(rows) < 0 or max(rows) >= height or min(columns) < 0 or max(columns) >= width:
                continue
            value = sum(wy * wx * float(before[r, c]) for r, wy in rows.items() for c, wx in columns.items())
            far += (float(after[y, x]) - value) ** 2
            near += value**2
    return far, near


def test_areas_consistency_and_deviations_as_defined() -> None:
    module, images = network(), uniform(4, 2, H, W)
    values = [3, -3, 0, 1]
    curves = probe(module, images, "translation", values, labels=[0, 1, 2, 3], fill="edge")
    assert curves.consistency is not None and curves.deviations is not None
    assert curves.top is not None and curves.probabilities is not None
    for b in range(4):
        relative = dict(zip(values, curves.relative["3"][b].tolist(), strict=True))
        area = 3 * (relative[-3] + relative[0]) / 2 + 1 * (relative[0] + relative[1]) / 2
        area += 2 * (relative[1] + relative[3]) / 2
        assert curves.areas["3"][b] == pytest.approx(area / 6)
        pairs = [(i, j) for i in range(4) for j in range(i)]
        same = sum(int(curves.top[b, i] == curves.top[b, j]) for i, j in pairs)
        assert curves.consistency[b] == pytest.approx(same / len(pairs))
        mean = sum(curves.probabilities[b]) / 4
        spread = math.sqrt(sum((p - mean) ** 2 for p in curves.probabilities[b]) / 4)
        assert curves.deviations[b] == pytest.approx(spread)
    areas = curves.unit_areas["3"]
    ranked = curves.ranked_units("3")
    assert sorted(ranked.tolist()) == [0, 1, 2, 3]
    assert all(areas[a] <= areas[b] for a, b in pairwise(ranked))


# what must hold whatever the numbers


@given(
    transform=st.sampled_from(sorted(TRANSFORMS)),
    fill=st.sampled_from(["reflect", "edge", "mean", "black"]),
    seed=st.integers(0, 5),
    batch_size=st.integers(1, 9),
)
@FEW
def test_identity_is_the_untransformed_image(transform: str, fill: str, seed: int, batch_size: int) -> None:
    change = named_transform(transform)
    values = [change.identity, *change.defaults((H, W))[:3]]
    curves = probe(network(seed), uniform(3, 2, H, W, seed=seed), transform, values, labels="predicted", fill=fill)
    again = probe(
        network(seed), uniform(3, 2, H, W, seed=seed), transform, values, fill=fill, batch_size=batch_size, layers="3,6"
    )
    for name in again.layers:
        assert (curves.distances[name][:, 0] == 0).all()
        assert (curves.distances[name] >= 0).all()
        np.testing.assert_allclose(curves.distances[name], again.distances[name], rtol=1e-9, atol=1e-12)
    assert curves.probabilities is not None and curves.top is not None and curves.filled_fraction is not None
    assert curves.labels is not None and (curves.top[:, 0] == curves.labels).all()
    assert curves.filled_fraction[0] == 0 and ((curves.filled_fraction >= 0) & (curves.filled_fraction <= 1)).all()
    assert again.consistency is not None and ((again.consistency >= 0) & (again.consistency <= 1)).all()


@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    margins=st.tuples(*[st.integers(0, 12)] * 4),
    fill=st.sampled_from(["reflect", "edge", "mean", "black"]),
)
@FEW
def test_surround_pads_as_numpy_does(height: int, width: int, margins: tuple[int, ...], fill: str) -> None:
    part = uniform(2, height, width)
    top, left, bottom, right = margins
    box = (-top, -left, height + bottom, width + right)
    found = surround(part, (0, 0), box, fill, torch.full((2, 1, 1), -3.0))  # type: ignore[arg-type]
    pads = ((top, bottom), (left, right))
    for c in range(2):
        if fill in ("reflect", "edge"):
            expected = np.pad(part[c].numpy(), pads, mode=fill)  # type: ignore[call-overload]
        else:
            colour = -3.0 if fill == "black" else part[c].mean().item()
            expected = np.pad(part[c].numpy(), pads, constant_values=colour)
        np.testing.assert_array_equal(found[c].numpy(), expected)
    np.testing.assert_array_equal(found[2].numpy(), np.pad(np.ones((height, width)), pads))


@given(seed=st.integers(0, 20), stride=st.sampled_from([1, 2, 3]), steps=st.integers(-2, 2))
@FEW
def test_a_network_without_padding_is_equivariant_to_its_stride(seed: int, stride: int, steps: int) -> None:
    """Without filled pixels, translation by the stride moves the features and does nothing else to them."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(stride), nn.Conv2d(3, 2, 2)).double()
    image = torch.zeros(1, 1, 22, 22, dtype=torch.float64)
    image[:, :, 8:14, 8:14] = uniform(1, 1, 6, 6, seed=seed)  # on black, so that black may come in
    curves = probe(module, image, "translation", [steps * stride], layers="3", direction="diagonal", fill="black")
    assert curves.equivariance["3"][0, 0] == pytest.approx(0, abs=1e-9)
    assert steps == 0 or curves.relative["3"][0, 0] > 0.01


def test_behind_a_gate_the_stride_is_known() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 7, 2), SqueezeExcitation(4, 2)).double().eval()
    image = uniform(1, 1, 16, 16)  # 5 positions, which by the ratio of sizes would be 3 pixels apart
    curves = probe(module, image, "translation", [0, 2], layers="1", fill="edge")
    moved = warped(image[0], lambda x, y: (x, y - 2), "edge", 1)[None]
    with torch.no_grad():
        before, after = module(image)[0], module(moved)[0]
    errors = [literal_error(f, g, (1.0, 0.0)) for f, g in zip(before, after, strict=True)]
    far, near = (math.sqrt(sum(part[i] for part in errors)) for i in (0, 1))
    assert curves.equivariance["1"][0, 1] == pytest.approx(far / near, rel=1e-6)


def test_what_a_translation_between_strides_loses() -> None:
    """Max-pooling gives back the same only at multiples of its stride."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2)).double()
    curves = probe(module, uniform(1, 1, 20, 20), "translation", [1, 2], layers="2", fill="edge")
    assert curves.equivariance["2"][0, 0] > 0.05
    inner = probe(module, uniform(1, 1, 20, 20), "translation", [2], layers="0", fill="edge")
    assert inner.equivariance["0"][0, 0] == pytest.approx(0, abs=1e-9) or inner.equivariance["0"][0, 0] < 1


# photographs


RECORDED: list[Tensor] = []


class Recorder(nn.Module):
    """Keeps a copy of every input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        RECORDED.append(images.clone())
        return self.layer(images).mean((2, 3))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for number, size in enumerate([(90, 120), (120, 90), (100, 100)]):
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


PREPROCESS = Preprocess((30, 40), "BGR", 255.0, (104, 117, 124), resize=60)


@pytest.mark.parametrize("crops", ["center", "tiles"])
@pytest.mark.parametrize("direction", ["vertical", "horizontal", "diagonal"])
def test_translation_with_context_is_cropping_elsewhere(photographs: Path, direction: str, crops: Any) -> None:
    model = Model(Recorder(3), "recorder", PREPROCESS)
    images = open_images(photographs, model, crops=crops, scales=(60,))
    picture = Image.open(photographs / "1.png").convert("RGB")
    item = int(np.flatnonzero(images.sources == 1)[0 if crops == "center" else 2])  # of tiles, the one at the left
    cut = PREPROCESS.central(120, 90) if crops == "center" else Cut(*images.cuts[item].tolist())  # type: ignore[attr-defined]
    down, right = {"vertical": (1, 0), "horizontal": (0, 1), "diagonal": (1, 1)}[direction]
    values = [
        v
        for v in range(-12, 13)
        if v and 0 <= cut.top - down * v <= cut.height - 30 and 0 <= cut.left - right * v <= cut.width - 40
    ]
    assert len(values) > 8
    for some in (values[:12], values[12:]):  # more would be several jobs, which run in no order
        RECORDED.clear()
        curves = probe(model, images, "translation", [0, *some], direction=direction, items=[item])  # type: ignore[arg-type]
        assert curves.fill == "context" and curves.filled_fraction is not None and (curves.filled_fraction == 0).all()
        fed = torch.cat([one for one in RECORDED if one.shape[2:] == (30, 40)])[-len(some) :] if some else []
        for value, found in zip(some, fed, strict=True):
            elsewhere = cut._replace(top=cut.top - down * value, left=cut.left - right * value)
            assert torch.equal(found, PREPROCESS.encode(PREPROCESS.cut(picture, elsewhere)))


def test_context_beyond_the_photograph_is_counted(photographs: Path) -> None:
    model = Model(Recorder(3), "recorder", PREPROCESS)
    # the photograph is 60 pixels high where the input's 30 begin at 15
    curves = probe(model, photographs, "translation", [-30, -15, 0, 15, 30], items=[0])
    assert curves.filled_fraction is not None
    np.testing.assert_allclose(curves.filled_fraction, [0.5, 0, 0, 0, 0.5])
    assert "at most 50% of the pixels" in curves.reading


def test_default_fill(photographs: Path) -> None:
    squash = Model(Recorder(3), "recorder", Preprocess((30, 40), rule="squash"))
    assert probe(squash, photographs, "translation", [1]).fill == "reflect"  # the input is the whole photograph
    with pytest.raises(InterpretError, match="fill='context' needs photographs"):
        probe(squash, photographs, "translation", [1], fill="context")
    pad = Model(Recorder(3), "recorder", Preprocess((30, 40), rule="pad"))
    assert probe(pad, photographs, "rotation", [0, 45]).fill == "reflect"


class Torn(Dataset[Any]):
    """Pictures of which some do not decode, read by someone who loses patience at one of them."""

    def __init__(self) -> None:
        self.stop: int | None = None
        self.by: type[BaseException] = KeyboardInterrupt
        self.read: list[int] = []

    def __len__(self) -> int:
        return 12

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.read.append(item)
        if item == self.stop:
            raise self.by()
        if item in (1, 5, 6, 7, 8, 9, 11):
            raise OSError("torn")
        return uniform(2, H, W, seed=item), item % 6


def written(curves: InvarianceCurves, folder: Path) -> bytes:
    curves.save(folder / "curves.safetensors")
    return (folder / "curves.safetensors").read_bytes()


@pytest.mark.parametrize("by", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stop", [1, 2, 4, 9, 10])
def test_an_interrupted_probe_goes_on_to_the_same_bytes(
    tmp_path: Path, stop: int, by: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SAVE_EVERY", 0.0 if by is SystemExit else 60.0)
    # names that do not sort as the layers run
    module = nn.Sequential(OrderedDict(zip("gfedcba", network(), strict=True)))
    file = tmp_path / "unfinished.safetensors"

    def run(data: Torn, resume_from: Path | None, stop: int | None = None) -> bytes:
        images = open_images(data, module)
        _ = images.fingerprint, images.pixel_scale  # which read all of them, and a sample
        data.read.clear()
        data.stop, data.by = stop, by
        # two images go together, and the 33 values that move are two jobs
        values = np.arange(-17, 17)
        curves = probe(module, images, "translation", values, fill="edge", batch_size=8, resume_from=resume_from)
        assert list(images.skipped) == [f"image {item}" for item in (1, 5, 6, 7, 8, 9, 11)]
        return written(curves, tmp_path)

    whole = run(Torn(), None)
    with pytest.raises(by):
        run(Torn(), file, stop)
    data = Torn()
    assert run(data, file) == whole
    done = max([0, *(item // 2 * 2 + 2 for item in (0, 2, 3, 4, 10) if item < stop // 2 * 2)])
    # but for the first input and the pictures, what was done is not read again
    assert sorted(set(data.read)) == sorted({0, 2, 3, 4, 10} | set(range(done, 12)))
    # nor anything of what is whole
    data = Torn()
    assert run(data, file) == whole and 1 not in data.read


def test_an_unfinished_probe_of_other_settings_is_not_taken_up(tmp_path: Path) -> None:
    module, file, images = network(), tmp_path / "unfinished.safetensors", uniform(3, 2, H, W)
    probe(module, images, "rotation", [0, 30], fill="edge", resume_from=file)
    for transform, values, other in [
        ("rotation", [0, 40], {}),
        ("viewpoint", [0, 30], {}),
        ("rotation", [0, 30], {"labels": [0, 1, 2]}),
        ("rotation", [0, 30], {"labels": "predicted"}),
        ("rotation", [0, 30], {"fill": "black"}),
        ("rotation", [0, 30], {"items": [2, 1]}),
        ("rotation", [0, 30], {"layers": "0"}),
        ("rotation", [0, 30], {"seed": 1}),
    ]:
        how: dict[str, Any] = {"fill": "edge", **other}
        fresh = probe(module, images, transform, values, **how)
        found = probe(module, images, transform, values, **how, resume_from=file)
        assert written(found, tmp_path) == written(fresh, tmp_path)
    for labels in ([0, 1, 2], [3, 1, 2]):  # which belong to the data
        labelled = TensorDataset(images, torch.tensor(labels))
        fresh, found = (probe(module, labelled, "rotation", [0, 30], resume_from=kept) for kept in (None, file))
        assert found.labels is not None and found.labels.tolist() == labels
        assert written(found, tmp_path) == written(fresh, tmp_path)
    fresh = probe(module, 1 - images, "rotation", [0, 30])
    assert written(probe(module, 1 - images, "rotation", [0, 30], resume_from=file), tmp_path) == written(
        fresh, tmp_path
    )


def test_images_that_do_not_decode_are_left_out(photographs: Path, tmp_path: Path) -> None:
    for file in photographs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1broken.png").write_bytes(b"\x89PNG broken")
    model = Model(Recorder(3), "recorder", PREPROCESS)
    images = open_images(tmp_path, model)
    curves = probe(model, images, "translation", [0, 1])
    whole = probe(model, photographs, "translation", [0, 1])
    assert curves.items is not None and curves.items.tolist() == [0, 1, 3]
    assert list(images.skipped) == ["1broken.png"]
    np.testing.assert_array_equal(curves.distances["layer"], whole.distances["layer"])


def test_levels_are_clipped_where_they_are_known() -> None:
    model = Model(Recorder(1), "recorder", Preprocess((4, 4), "L", mean=(0.5,), std=(0.25,)))
    image = torch.tensor([[-2.0, 0.0, 1.0, 2.0]]).expand(1, 1, 4, 4)  # 0, 0.5, 0.75 and 1 as pixels
    RECORDED.clear()
    probe(model, image, "illumination", [2])
    torch.testing.assert_close(RECORDED[-1][0, 0, 0], torch.tensor([-2.0, 2.0, 2.0, 2.0]))
    probe(model, image, "contrast", [0])
    torch.testing.assert_close(RECORDED[-1][0, 0, 0], torch.full((4,), 0.25))  # the mean, 0.5625, as an input
    probe(model, image, "noise", [0.5])
    assert RECORDED[-1].abs().max() <= 2 and not torch.equal(RECORDED[-1], image)


# labels


def test_labels_of_the_data_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    images = uniform(3, 2, H, W)
    told = probe(network(), TensorDataset(images, torch.tensor([1, 2, 0])), "rotation", [0, 90])
    given = probe(network(), images, "rotation", [0, 90], labels=[1, 2, 0])
    assert told.probabilities is not None and given.probabilities is not None
    np.testing.assert_array_equal(told.probabilities, given.probabilities)
    some = probe(network(), images, "rotation", [0, 90], labels=[1, -1, 0])
    assert some.probabilities is not None and np.isnan(some.probabilities[1]).all()
    np.testing.assert_array_equal(some.probabilities[[0, 2]], given.probabilities[[0, 2]])
    assert "(2 of them have one)" in some.reading
    none = probe(network(), images, "rotation", [0, 90])
    assert none.probabilities is None and none.deviations is None and none.top is not None
    assert none.reading.count("no labels") == 1


def test_a_folders_own_classes_are_not_the_networks(photographs: Path, tmp_path: Path) -> None:
    for number, kind in enumerate(["cat", "dog", "owl"]):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "1.png").write_bytes((photographs / f"{number}.png").read_bytes())
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    theirs = Model(module, "theirs", PREPROCESS, classes=("car", "ship", "bus", "tram"))
    assert probe(theirs, tmp_path, "scale", [1, 1.2]).probabilities is None
    same = Model(module, "same", PREPROCESS, classes=("owl", "dog", "cat", "cow"))
    curves = probe(same, tmp_path, "scale", [1, 1.2])
    assert curves.labels is not None and curves.labels.tolist() == [2, 1, 0]
    assert curves.names == ["cat", "dog", "owl"]


def test_outputs_that_are_probabilities_are_taken_as_they_are() -> None:
    images = uniform(2, 2, H, W)
    plain = probe(network(), images, "rotation", [0, 90], labels=[1, 2])
    soft = probe(nn.Sequential(*network(), nn.Softmax(1)), images, "rotation", [0, 90], labels=[1, 2])
    assert plain.probabilities is not None and soft.probabilities is not None
    np.testing.assert_allclose(plain.probabilities, soft.probabilities, rtol=1e-12)


def test_a_network_without_classes() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).double()
    curves = probe(module, uniform(2, 2, H, W), "rotation", [0, 90])
    assert curves.probabilities is None and curves.top is None and curves.consistency is None
    with pytest.raises(InterpretError, match="returns no row of classes"):
        probe(module, uniform(2, 2, H, W), "rotation", [0, 90], labels=[0, 1])


# a user's mistakes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"transform": "rotate"}, "unknown transform 'rotate': did you mean 'rotation'?"),
        ({"transform": "translation", "direction": "up"}, "unknown direction 'up'"),
        ({"transform": "scale", "direction": "vertical"}, "direction='vertical' applies to translation only"),
        ({"transform": "scale", "values": [1, 0]}, "values of scale must be above 0, not 0"),
        ({"transform": "scale", "values": [-1]}, "values of scale must be above 0, not -1"),
        ({"transform": "rotation", "values": [0, math.nan]}, "values of rotation must be finite, not nan"),
        ({"transform": "translation", "values": [math.inf]}, "values of translation must be finite, not inf"),
        ({"transform": "blur", "values": [-1]}, "values of blur must be at least 0, not -1"),
        ({"transform": "viewpoint", "values": [60]}, "values of viewpoint must be between -60 and 60, not 60"),
        ({"transform": "scale", "values": []}, "values is empty"),
        ({"transform": "scale", "values": ["big"]}, "values must be numbers"),
        ({"transform": "scale", "values": [1e-5]}, "scale by 1e-05 reads"),
        ({"transform": "scale", "values": [1e-320]}, "scale by .* reads"),
        ({"transform": "translation", "values": [1e300]}, "translation by 1e\\+300 reads"),
        ({"transform": "blur", "values": [1e6]}, "blur by 1e\\+06 reads"),
        ({"transform": "scale", "labels": [0, 6]}, "labels must be from 0 to 5, the network's outputs, or -1 .* not 6"),
        ({"transform": "scale", "labels": [-2, 0]}, "not -2"),
        ({"transform": "scale", "labels": [0]}, "labels must be one for each of the 2 images, not 1"),
        ({"transform": "scale", "labels": "guessed"}, "'predicted' or None, not 'guessed'"),
        ({"transform": "scale", "labels": ["a", "b"]}, "labels must be whole numbers"),
        ({"transform": "scale", "fill": "white"}, "unknown fill 'white'"),
        ({"transform": "scale", "fill": "context"}, "fill='context' needs photographs"),
        ({"transform": "scale", "items": [2]}, "items must be from 0 to 1, not 2"),
        ({"transform": "scale", "items": []}, "items is empty"),
        ({"transform": "scale", "batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"transform": "scale", "layers": "9"}, "unknown layer '9'"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InterpretError, match=sentence):
        probe(network(), uniform(2, 2, H, W), **arguments)


def test_labels_of_the_data_out_of_range() -> None:
    data = TensorDataset(uniform(2, 2, H, W), torch.tensor([1, 7]))
    with pytest.raises(InterpretError, match="labels must be from 0 to 5"):
        probe(network(), data, "rotation", [0, 90])


def test_features_that_are_not_finite() -> None:
    images = uniform(2, 2, H, W)
    images[1, 0, 3, 3] = math.nan
    with pytest.raises(InterpretError, match="layer '0' gives NaN or infinity on image 1"):
        probe(network(), images, "rotation", [0, 90])


def test_images_of_several_shapes() -> None:
    class Two(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, item: int) -> Tensor:
            return uniform(2, H, W + item)

    with pytest.raises(InterpretError, match="images of one data set must have one shape"):
        probe(network(), Two(), "rotation", [0, 90])


# what is left behind


def test_leaves_the_network_as_it_was() -> None:
    module = network().train()
    module[0].weight.requires_grad_(True)
    before = {name: (value.clone(), value.stride()) for name, value in module.state_dict().items()}
    probe(module, uniform(2, 2, H, W), "rotation", [0, 90])
    assert module.training and module[0].weight.requires_grad
    assert not any(layer._forward_hooks for layer in module.modules())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name][0]) and value.stride() == before[name][1]


def test_same_call_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        curves = probe(network().float(), uniform(3, 2, H, W).float(), "noise", labels=[0, 1, 2])
        curves.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saved_and_loaded(tmp_path: Path) -> None:
    curves = probe(network(), uniform(3, 2, H, W), "translation", [-1, 0, 1], labels=[0, 1, -1])
    curves.save(tmp_path / "curves")
    loaded = Result.load(tmp_path / "curves")
    assert isinstance(loaded, InvarianceCurves)
    assert loaded.reading == curves.reading and loaded.title == "Invariance to vertical translation"
    for name, distances in curves.distances.items():
        np.testing.assert_array_equal(loaded.distances[name], distances)
        np.testing.assert_array_equal(loaded.unit_distances[name], curves.unit_distances[name])
    np.testing.assert_array_equal(loaded.probabilities, curves.probabilities)


def test_a_transform_of_ones_own() -> None:
    class Negative(TRANSFORMS["illumination"]):  # type: ignore[misc]
        name, axis, identity = "negative", "negative (share)", 0.0

        def change(self, images: Tensor, scene: Any, value: float) -> Tensor:
            return (1 - 2 * value) * images

    own: Transform = Negative()
    module = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False)).double()
    curves = probe(module, uniform(1, 2, H, W), own, [0, 0.5, 1])
    np.testing.assert_allclose(curves.relative["0"][0], [0, 1, 2])


# figures


def test_figure_shows_every_image_layer_and_label(tmp_path: Path) -> None:
    curves = probe(network(), uniform(3, 2, H, W), "translation", [-2, -1, 0, 1, 2], labels=[0, 1, 2], fill="edge")
    turned = probe(network(), uniform(3, 2, H, W), "rotation", [0, 90], labels="predicted")
    figure = interpret.plot_invariance(curves, turned)
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles[:5] == ["", "0", "6", "all layers, mean", "true label"]
    assert titles[5:] == ["", "0", "6", "all layers, mean", "predicted class", ""]
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == curves.layers
    pictures, first, last, layers, label = figure.axes[:5]
    assert len(pictures.images) == 1 and [text.get_text() for text in pictures.get_yticklabels()] == ["0", "1", "2"]
    for axes, expected in ((first, curves.relative["0"]), (last, curves.relative["6"]), (label, curves.probabilities)):
        drawn = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 5]
        np.testing.assert_array_equal(np.stack(drawn), expected)
    drawn = [line.get_ydata() for line in layers.lines if len(line.get_xdata()) == 5]
    np.testing.assert_allclose(drawn[1], curves.relative["3"].mean(0))
    assert first.get_xlabel() == "vertical translation\n(pixels)" and first.get_ylabel() == "distance / norm"
    for kind in ("png", "svg", "pdf"):
        write_figure(figure, tmp_path / f"figure.{kind}")
        assert (tmp_path / f"figure.{kind}").stat().st_size > 5000


def test_figure_of_many_images_shows_their_mean() -> None:
    curves = probe(network(), uniform(30, 2, H, W), "scale", [1, 1.5, 2])
    figure = plot(curves)
    (band,) = figure.axes[1].collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(
        np.percentile(curves.relative["0"], 75, axis=0).max()
    )
    mean = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(mean, curves.relative["0"].mean(0))
    assert len(figure.axes) == 5  # without labels there is no probability to show; the last one is the legend
    assert curves.example_rows is not None and curves.example_rows.tolist() == [0, 7, 14, 22, 29]


def test_figure_of_one_layer_without_examples_and_of_a_dead_one() -> None:
    values = np.array([1.0, 2.0])
    dead = InvarianceCurves("scale", "scale (ratio)", 1.0, values, {"a": np.zeros((2, 2))}, {"a": np.zeros(2)})
    assert np.isnan(dead.relative["a"]).all()
    assert [axes.get_title() for axes in plot(dead).axes] == ["a", "all layers, mean", ""]


# the command


def test_command_over_a_model_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figure.pdf"
    chosen = ("--transform", "scale", "--values", "0.5:1.5:0.5", "--images", "3", "--out", out)
    command(monkeypatch, "probe", "lenet", "digits", *chosen)
    captured = capsys.readouterr()
    assert captured.out == f"Open {out}\n" and out.read_bytes().startswith(b"%PDF")
    assert "of 3 images" in captured.err and "true label" in captured.err and "No labels" not in captured.err
    first = out.read_bytes()
    command(monkeypatch, "probe", "lenet", "digits", *chosen)
    assert out.read_bytes() == first


@pytest.mark.slow
def test_command_over_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures := tmp_path / "pictures").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    study, out = tmp_path / "study", tmp_path / "figure.png"
    chosen = ("--transform", "translation", "--direction", "diagonal", "--values=-2,0,2", "--layers", "conv*")
    command(monkeypatch, "probe", "lenet", pictures, "--study", study, *chosen, "--out", out)
    assert capsys.readouterr().err.count("No labels") == 1
    out.unlink()
    command(monkeypatch, "plot", study, "--out", out)  # there is one result: it need not be named
    assert out.exists() and capsys.readouterr().out == f"Open {out}\n"
    command(
        monkeypatch,
        "probe",
        study,
        "--transform",
        "noise,blur",
        "--images",
        "all",
        "--labels",
        "predicted",
        "--out",
        out,
    )
    capsys.readouterr()
    kept = interpret.Study.open(study)
    assert kept.results == [("invariance", "blur"), ("invariance", "noise"), ("invariance", "translation-diagonal")]
    curves = kept.result("invariance", "translation-diagonal")
    assert isinstance(curves, InvarianceCurves)
    assert (
        curves.layers == ["conv1", "conv2"]
        and curves.distances["conv1"].shape == (5, 3)
        and curves.direction == "diagonal"
    )
    command(monkeypatch, "plot", study, "invariance", "--out", out, status=2)
    listed = capsys.readouterr().err
    assert all(name in listed for name in ("invariance blur", "invariance noise", "invariance translation-diagonal"))
    assert "did you mean 'invariance noise'" in refused(capsys, monkeypatch, "plot", study, "invariance", "nois")
    assert "leave out DATA digits" in refused(capsys, monkeypatch, "probe", study, "digits")
    command(monkeypatch, "plot", study, "invariance", "noise", "--out", out)
    command(monkeypatch, "plot", study, "invariance", "noise", "--panels", "layers,first", "--width", 3.3, "--out", out)
    with Image.open(out) as picture:
        assert picture.width == pytest.approx(660, abs=1)  # of 200 dots an inch
    capsys.readouterr()
    assert "the figure has 'examples', 'first', 'last', 'layers'" in refused(
        capsys, monkeypatch, "plot", study, "invariance", "noise", "--panels", "layer"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("probe", "lenet"), "'lenet' is no study's folder: give the images, too, as DATA"),
        (("probe", "lenet", "digits", "--out", "a.gif"), "--out must end in .png, .svg or .pdf, not 'a.gif'"),
        (("probe", "lenet", "digits", "--batch-size", "0"), "0 is no whole number from 1"),
        (("probe", "lenet", "digits", "--values", "1,2"), "--values are those of one transform"),
        (("probe", "lenet", "digits", "--transform", "scale", "--values", "1:2"), "--values must be FIRST:LAST:STEP"),
        (("probe", "lenet", "digits", "--transform", "scale", "--values", "a"), "--values must be numbers"),
        (
            ("probe", "lenet", "digits", "--transform", "scale", "--values", "0"),
            "values of scale must be above 0, not 0",
        ),
        (("probe", "lenet", "digits", "--transform", "spin"), "unknown transform 'spin'"),
        (("probe", "lenet", "digits", "--images", "0"), "--images must be a number of at least 1, or all, not '0'"),
        (("probe", "lenet", "digits", "--labels", "1.5"), "--labels must be whole numbers"),
        (("probe", "lenet", "digits", "--labels", "12,1,1,1,1"), "labels must be from 0 to 9"),
        (("probe", "lenet", "digits", "--labels", "1"), "labels must be one for each of the 5 images, not 1"),
        (("plot", "nowhere"), "nowhere is no study"),
    ],
)
def test_command_refuses(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(capsys, monkeypatch, *arguments)


def test_plot_of_a_study_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = interpret.Study(tmp_path / "study", network(), uniform(4, 2, H, W))
    study.mine("0", k=1)
    assert "keeps no results to draw" in refused(capsys, monkeypatch, "plot", study.path)


def test_a_file_of_version_0_1_0_and_the_old_name_of_the_filled_fraction_are_read(tmp_path: Path) -> None:
    values = np.array([1.0, 2.0])
    new = InvarianceCurves("scale", "scale (ratio)", 1.0, values, {"a": np.ones((2, 2))}, {"a": np.ones(2)})
    new.filled_fraction = np.array([0.0, 0.25])
    new.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "np") as stored:
        arrays = {name.replace("filled_fraction", "invented"): stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        header = json.loads(stored.metadata()["result"])
    del header["format"]
    save_file(arrays, tmp_path / "old.safetensors", {"result": json.dumps(header)})
    old = InvarianceCurves.load(tmp_path / "old.safetensors")
    np.testing.assert_array_equal(old.filled_fraction, [0, 0.25])
    with pytest.warns(DeprecationWarning, match="invented is now filled_fraction"):
        np.testing.assert_array_equal(old.invented, [0, 0.25])
