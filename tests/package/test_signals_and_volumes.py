"""Networks of signals (Conv1d) and volumes (Conv3d), against the literal references that images are tested by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import interpret
from helpers.deconvnet import forward_with_switches, literal_deconvnet
from helpers.fields import Linearised, check, outputs_of, places, positive, support
from helpers.tensors import normal, seeded
from interpret.analyses.projection.crop import Crop
from interpret.analyses.projection.hit_projection import project_hits
from interpret.figures.drawn_inputs import blank_of, draw_lines, planes
from interpret.network.layers import select_layers
from interpret.support.errors import InterpretError
from interpret.support.wording import PLACES
from interpret.tracing.summary import summarise

doubled = partial(seeded, dtype=torch.float64)
AXES = pytest.mark.parametrize("axes", [1, 3])
SHAPES = {1: (2, 95), 2: (2, 37, 41), 3: (2, 17, 20, 23)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are faster on one thread than on many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def of(name: str, axes: int, *args: Any, **kwargs: Any) -> nn.Module:
    """A layer of torch for inputs of so many axes."""
    layer: nn.Module = getattr(nn, f"{name}{axes}d")(*args, **kwargs)
    return layer


def chain(axes: int) -> nn.Sequential:
    """Convolutions with strides, padding, dilation and groups, and pools that overlap and that do not."""
    return nn.Sequential(
        of("Conv", axes, 2, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), of("MaxPool", axes, 3, 1, padding=1),
        of("Conv", axes, 4, 6, 3, padding=2, dilation=2, groups=2), nn.ReLU(), of("MaxPool", axes, 2),
        of("Conv", axes, 6, 5, tuple(range(1, axes + 1)) if axes > 1 else 2),
    )  # fmt: skip


def classifier(axes: int) -> nn.Sequential:
    return nn.Sequential(
        *chain(axes), of("BatchNorm", axes, 5), nn.ReLU(), of("AdaptiveAvgPool", axes, 1), nn.Flatten(), nn.Linear(5, 3)
    )


@AXES
def test_windows_are_the_support_of_the_gradient(axes: int) -> None:
    shape = (2, *(2 * side for side in SHAPES[axes][1:]))
    network = positive(nn.Sequential(*chain(axes), of("ConvTranspose", axes, 5, 4, 3, padding=1)))
    traced = interpret.trace(network, shape)
    assert traced.input_shape == shape and traced["6"].axes == tuple(range(-axes, 0))
    image = torch.rand(1, *shape, dtype=torch.float64, requires_grad=True)
    names = ["0", "2", "3", "5", "6", "7"]
    with Linearised():
        outputs = outputs_of(network, image, names)
    for name in names:
        field, met = traced[name].receptive_field, set()
        assert field is not None and field == traced[name].local_field
        for position in places(traced[name]):
            met |= check(
                support(outputs[name], image, traced[name], position),
                field.window(position),
                shape[1:],
                square=name not in ("6", "7"),
            )
        assert met == set(range(2 * axes)) or (axes, name) == (3, "7"), name


@AXES
def test_projections_are_a_literal_deconvnet(axes: int) -> None:
    network, image = doubled(chain, axes), normal(*SHAPES[axes], seed=1)
    plain = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in network]
    traced, cropped, alive = interpret.trace(network, image.shape), set(), 0
    for depth in (1, 4, 7):
        layer = traced[str(depth - 1)]
        steps = forward_with_switches(nn.Sequential(*plain[:depth]), image[None])
        cropped |= {name for name in (layer.name,) if not Crop.of(layer, tuple(image.shape[1:])).whole}
        for rule, overlap in (("deconvnet", "add"), ("deconvnet", "overwrite"), ("guided", "add")):
            for position in places(layer):
                expected = literal_deconvnet(steps, 2, position, overlap, guided=rule == "guided")[0]
                found = interpret.project(network, image[None], layer.name, 2, position, rule, overlap=overlap)
                assert found.pixels.shape[2:] == tuple(map(min, layer.receptive_field.size, image.shape[1:]))
                torch.testing.assert_close(found.full(image.shape[1:])[0], expected, rtol=0, atol=1e-12)
                alive += bool(expected.abs().max() > 1e-3)
    assert cropped >= {"0", "3"} and alive >= 9


@AXES
def test_hits_are_those_of_a_literal_loop_and_projected_as_alone(axes: int) -> None:
    network, inputs = doubled(classifier, axes), normal(7, *SHAPES[axes], seed=2)
    mined = interpret.mine(network, inputs, k=3, batch_size=2)
    assert list(mined) == ["0", "3", "6", "11"]
    with torch.no_grad():
        outputs = outputs_of(network, inputs.clone(), list(mined))
    for name, layer in mined.items():
        assert layer.positions.shape[-1] == axes
        for unit in range(len(layer.values)):
            maxima = [float(output[unit].max()) for output in outputs[name]]
            order = sorted(range(len(maxima)), key=lambda item: -maxima[item])[:3]
            assert layer.images[unit].tolist() == order
            for rank, item in enumerate(order):
                where = outputs[name][item, unit]
                expected = np.unravel_index(int(where.flatten().argmax()), where.shape) if where.dim() else (0,) * axes
                assert layer.positions[unit, rank].tolist() == list(expected)
                np.testing.assert_allclose(layer.values[unit, rank], maxima[item], rtol=1e-6)
    for batch in project_hits(network, inputs, mined, rule="guided"):
        layer = mined[batch.layer]
        for unit, rank, signal in list(zip(batch.units, batch.ranks, batch.projections, strict=True))[::4]:
            item = layer.images[unit, rank]
            alone = interpret.project(
                network, inputs[item][None], batch.layer, unit, layer.positions[unit, rank].tolist(), "guided"
            )
            torch.testing.assert_close(signal, alone.pixels[0], rtol=0, atol=1e-12)


@AXES
def test_sizes_parameters_and_operations(axes: int) -> None:
    network, shape = classifier(axes), SHAPES[axes]
    traced = interpret.trace(network, shape)
    for name in ("0", "3", "6"):
        layer, module = traced[name], network[int(name)]
        assert layer.params == sum(weight.numel() for weight in module.parameters())
        assert layer.macs == math.prod(layer.output_shape[1:]) * module.weight.numel()  # type: ignore[operator]
    rows = summarise(network, shape, "markdown").splitlines()
    assert all(f"+ 1 = {traced[name].output_shape[-1]}" in rows[2 + int(name)] for name in ("0", "2", "3", "5", "6"))
    sizes = " × ".join(map(str, shape))
    assert f"| {sizes} | {' × '.join(['3'] * axes)} |" in rows[2]


def test_units_are_the_convolutions_along_the_inputs_axes() -> None:
    class Gated(nn.Module):
        """An efficient channel attention (Wang et al. 2020): a Conv1d over the channels of an image."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Conv1d(1, 1, 3, padding=1), nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            gate = self.gate(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
            return self.last(x * gate)

    assert select_layers(Gated()) == ["conv", "last"]
    assert list(interpret.mine(Gated(), torch.rand(3, 3, 9, 9), k=1)) == ["conv", "last"]


@pytest.mark.parametrize("axes, given", [(1, (4, 2, 9, 9)), (3, (4, 2, 9)), (2, (4, 2, 9, 9, 9))])
def test_inputs_with_other_axes_are_refused(axes: int, given: tuple[int, ...]) -> None:
    with pytest.raises(InterpretError, match=r"inputs must be floating point, \[N, C, "):
        interpret.mine(chain(axes), torch.rand(given))


@pytest.mark.parametrize("shape", [(95,), (2, 95, 1), (2, 0), 95])
def test_shapes_with_other_axes_are_refused(shape: Any) -> None:
    with pytest.raises(InterpretError, match=r"input_shape must be \(channels, length\), two whole numbers above zero"):
        interpret.trace(chain(1), shape)


@AXES
def test_what_looks_at_rows_and_columns_is_refused_in_a_sentence(axes: int) -> None:
    network, inputs = classifier(axes).eval(), torch.rand(2, *SHAPES[axes])
    for call in (
        lambda: interpret.synthesise(network, "6", [0]),
        lambda: interpret.invert(network, inputs, "3"),
        lambda: interpret.attribute(network, inputs, "gradient"),
        lambda: interpret.sanity_check(network, inputs, ["gradient"]),
        lambda: interpret.compare_methods(network, inputs),
        lambda: interpret.correspond(network, inputs, {}),
        lambda: interpret.feature_maps(network, inputs[0]),
        lambda: interpret.filter_images(network),
        lambda: interpret.evolve({1: network.state_dict()}, inputs, model=network),
        lambda: interpret.map_activations(network, inputs, "6"),
    ):
        with pytest.raises(
            InterpretError, match=f"takes networks of images, not of {'signals' if axes == 1 else 'vol'}"
        ):
            call()


@pytest.mark.slow
@AXES
def test_a_study_and_its_gallery(axes: int, tmp_path: Path) -> None:
    network, inputs = classifier(axes).eval(), normal(6, *SHAPES[axes], dtype=torch.float32)
    study = interpret.Study(tmp_path / "study", network, [(one, n % 3) for n, one in enumerate(inputs)])
    study.mine(k=2)
    study.project()
    study.find_activation_range_examples()
    study.connect()
    mined, sides, inside = study.mined("3"), SHAPES[axes][1:], 0
    # a signal's box reaches over the height of its line; a volume's is in the middle slice of its picture
    across = sides[0] if axes == 1 else sides[2] + 1 + sides[0]
    for position, box in zip(mined.positions.reshape(-1, axes).tolist(), mined.boxes.reshape(-1, 4), strict=True):
        window = study.traced["3"].receptive_field.window(tuple(position))
        if window[axes - 1] >= 0 and window[-1] <= sides[-1]:
            inside += 1
            np.testing.assert_allclose(box[[1, 3]] * across, [window[axes - 1], window[-1]], rtol=1e-5)
        assert axes == 3 or box[[0, 2]].tolist() == [0, 1]
    assert inside
    interpret.write_gallery(study, tmp_path / "gallery")
    page = (tmp_path / "gallery" / "layers" / "3" / "0.html").read_text()
    at = mined.positions[0, 0].tolist()
    assert f"map {', '.join(f'{name} {one}' for name, one in zip(PLACES[axes], at, strict=True))}" in page
    assert f"{'samples' if axes == 1 else 'voxels'}, stride" in page
    with Image.open(study.patch_sprite("3", 0)) as sprite:
        size = sprite.size
    field = study.traced["3"].receptive_field.size
    tile = (128, 64) if axes == 1 else (field[2] + 1 + field[0], field[1] + 1 + field[0])
    assert size == (2 * tile[0], tile[1])


def test_lines_go_through_the_samples() -> None:
    levels = np.array([[[0.0, 1.0, 0.5]]])
    picture = draw_lines(levels, size=(100, 201))[0].mean(0)  # dark where the line is
    dark = (picture * 0 + np.arange(100)[:, None])[picture < 0.5].reshape(-1)
    assert dark.min() >= 5 and dark.max() <= 95  # within the margins
    rows = [float(np.average(np.arange(100), weights=picture.max() - picture[:, column])) for column in (0, 100, 200)]
    heights = (rows[0] - np.array(rows)) / (rows[0] - rows[1])
    np.testing.assert_allclose(heights, [0, 1, 0.5], atol=0.03)


def test_slices_are_those_through_the_middle() -> None:
    volume = normal(2, 3, 4, 5)
    found = planes(volume.numpy())
    np.testing.assert_array_equal(found[:, :4, :5], volume[:, 1])
    np.testing.assert_array_equal(found[:, :4, 6:], volume[:, :, :, 2].transpose(1, 2))
    np.testing.assert_array_equal(found[:, 5:, :5], volume[:, :, 2])
    assert blank_of(3, 4, 5).sum() == found[0].size - 4 * 5 - 4 * 3 - 3 * 5


@AXES
def test_occlusion_is_that_of_a_literal_loop(axes: int) -> None:
    network, inputs = doubled(classifier, axes), normal(2, *SHAPES[axes], seed=3)
    size, stride = (21, 17) if axes == 1 else ((9, 11), (7, 8))
    found = interpret.occlude(network, inputs, size=size, stride=stride, fill=0.5, layer="3")
    assert found.sides == [1, 95] if axes == 1 else found.sides == [20, 23]
    high, wide = found.size
    for row, one in enumerate(inputs):
        for y, top in enumerate(found.tops):
            for x, left in enumerate(found.lefts):
                hidden = one.clone()
                hidden[..., *((slice(top, top + high),) if axes == 3 else ()), slice(left, left + wide)] = 0.5
                with torch.no_grad():
                    maps = network[:4](hidden[None])[0, int(found.channels[row])]
                    expected = network(hidden[None]).softmax(1)[0, int(found.labels[row])]
                np.testing.assert_allclose(found.activations[row, y, x], maps.clamp(min=0).sum(), rtol=1e-9)
                np.testing.assert_allclose(found.probabilities[row, y, x], expected, rtol=1e-9)


@AXES
def test_translation_is_that_of_a_literal_loop(axes: int) -> None:
    network, inputs, by = doubled(classifier, axes), normal(2, *SHAPES[axes], seed=4), [-4, 0, 6]
    direction = None if axes == 1 else "horizontal"
    found = interpret.probe(network, inputs, "translation", by, ["0", "11"], direction=direction, fill="black")
    assert found.axis == ("translation (samples)" if axes == 1 else "horizontal translation (voxels)")
    for row, one in enumerate(inputs):
        for column, shift in enumerate(by):
            moved = torch.zeros_like(one)
            moved[..., max(shift, 0) : one.shape[-1] + min(shift, 0)] = one[
                ..., max(-shift, 0) : one.shape[-1] - max(shift, 0)
            ]
            with torch.no_grad():
                before, after = network[0](one[None]), network[0](moved[None])
                distance, scores = (before - after).norm(), (network(one[None]) - network(moved[None])).norm()
            # the first layer has a stride of 2: its features move by half as many positions
            steps = shift // 2
            kept = slice(max(steps, 0), before.shape[-1] + min(steps, 0))
            there = before[..., max(-steps, 0) : before.shape[-1] - max(steps, 0)]
            error = (after[..., kept] - there).norm() / there.norm()
            np.testing.assert_allclose(found.distances["0"][row, column], distance, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(found.distances["11"][row, column], scores, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(found.equivariance["0"][row, column], error, rtol=1e-5, atol=1e-9)


@AXES
def test_other_transforms_are_refused(axes: int) -> None:
    with pytest.raises(InterpretError, match=r"'rotation' changes images, and the network takes .*: probe them by"):
        interpret.probe(classifier(axes), torch.rand(1, *SHAPES[axes]), "rotation")


class Waves(nn.Module):
    """Takes [B, T], without channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 4, 9, stride=4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x[:, None]).relu().mean(2))


def test_a_network_of_signals_without_channels_is_loaded_with_a_call() -> None:
    with pytest.raises(
        interpret.InterpretError, match=r"not \(64,\); if the network takes \[B, T\], load it with call="
    ):
        interpret.trace(Waves().eval(), (64,))
    model = interpret.load(Waves().eval(), call=lambda network, signals: network(signals[:, 0]))
    layers = interpret.trace(model, (1, 64))
    name = next(iter(interpret.mine(model, torch.rand(5, 1, 64), k=2)))
    assert layers[name].receptive_field == interpret.ReceptiveField((9,), (4,), (0,))
    assert interpret.project(model, torch.rand(1, 1, 64), name, 0).pixels.shape == (1, 1, 9)
