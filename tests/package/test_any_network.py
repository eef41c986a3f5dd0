"""Every analysis of every style of network, against plain PyTorch: one thread, one contiguous image at a time.

The styles are in `networks.py`. The references use forward hooks, autograd and loops, and nothing of this project.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret
from helpers.networks import STYLES, Written, make

pytestmark = [
    pytest.mark.filterwarnings("ignore::interpret.backprop.rules.UncoveredOperation"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning"),  # which people call all the same
]

CLASSIFIERS = [name for name, written in STYLES.items() if written.reading is not None]


def inputs(written: Written, count: int) -> Tensor:
    images = torch.rand(count, *written.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return images.to(written.dtype)


def layers_of(name: str) -> dict[str, nn.Module]:
    """Return the layers that are mined unless the user says otherwise, by a list of their kinds."""
    network = plain(make(name))
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {
        layer: part
        for layer, part in network.named_modules()
        if isinstance(part, kinds) and layer not in STYLES[name].left_out
    }


def plain(network: nn.Module) -> nn.Module:
    return network.module if isinstance(network, nn.DataParallel) else network


@contextmanager
def first_output(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer returns, the first time in each pass, as it was before anything changed it in place."""
    found: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: found.append(output.clone()))
    try:
        yield found
    finally:
        handle.remove()


def outputs_of(network: nn.Module, layer: str, image: Tensor, grad: bool = False) -> Tensor:
    """Return a layer's first output on one image [C, H, W], units first, without the dimension of the batch."""
    part = network.get_submodule(layer)
    with torch.set_grad_enabled(grad), first_output(part) as found:
        network(image[None])
    output = found[0][0] if len(found[0]) == 1 else found[0]  # a squeeze takes the dimension away
    return output.movedim(-1, 0) if isinstance(part, nn.Linear) and output.dim() > 1 else output


def final_scores(name: str, network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        answer = STYLES[name].logits(network(image[None]))
    return answer if answer.dim() == 2 else answer[None]


def probabilities_of(name: str, network: nn.Module, images: Tensor) -> Tensor:
    reading = STYLES[name].reading
    assert reading is not None
    return torch.cat([reading(final_scores(name, network, image).double()) for image in images])


@contextmanager
def rectified_backwards() -> Iterator[None]:
    """Make every ReLU pass the signal back rectified, whoever calls it, as Zeiler & Fergus's deconvnet does."""

    class Rectifier(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: Tensor) -> Tensor:
            return clamp(x, min=0)

        @staticmethod
        def backward(_ctx: Any, signal: Tensor) -> Tensor:  # type: ignore[override]
            return clamp(signal, min=0)

    clamp = Tensor.clamp

    def relu(input: Tensor, inplace: bool = False) -> Tensor:
        return Rectifier.apply(input)

    def clamped(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
        return Rectifier.apply(x) if min == 0 and max is None and x.requires_grad else clamp(x, min, max)

    def relu6(input: Tensor, inplace: bool = False) -> Tensor:
        return Ceiling.apply(input)

    class Ceiling(Rectifier):
        @staticmethod
        def forward(_ctx: Any, x: Tensor) -> Tensor:
            return clamp(x, 0, 6)

    def larger(x: Tensor, other: Tensor) -> Tensor:
        return Rectifier.apply(x)  # of zeros, in the only network that calls it

    patched: list[tuple[Any, str, Callable[..., Tensor]]] = [
        (torch, "relu", relu), (F, "relu", relu), (F, "relu6", relu6), (Tensor, "relu", relu), (Tensor, "relu_", relu),
        (Tensor, "clamp", clamped), (torch, "max", larger), (nn.ReLU, "forward", lambda _self, x: relu(x)),
        (nn.ReLU6, "forward", lambda _self, x: relu6(x)),
    ]  # fmt: skip
    with warnings.catch_warnings():
        patches = [mock.patch.object(owner, attribute, new) for owner, attribute, new in patched]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


@pytest.mark.parametrize("name", STYLES)
def test_trace(name: str) -> None:
    written, network = STYLES[name], make(name)
    traced = interpret.trace(network, written.shape)
    image = inputs(written, 1)[0]
    assert {layer for layer in layers_of(name) if layer in traced} == set(layers_of(name))
    for layer in layers_of(name):
        shape = tuple(outputs_of(plain(network), layer, image).shape)
        found = interpret.trace(network, written.shape)[layer].output_shape
        assert (found if len(found) < 3 or found == shape else (found[-1], *found[:-1])) == shape
        assert traced[layer].batched
    for layer in written.left_out:
        assert layer not in traced or not traced[layer].batched
    assert traced.params == sum(parameter.numel() for parameter in network.parameters())
    # what a neuron sees: where its gradient is, for a neuron in the middle
    field = traced[written.hidden].receptive_field
    if field is not None:
        x = image.clone().requires_grad_()
        output = outputs_of(plain(network), written.hidden, x, grad=True)
        at = output.shape[1] // 2, output.shape[2] // 2
        (gradient,) = torch.autograd.grad(output[:, at[0], at[1]].sum(), x)
        top, left, bottom, right = field.window(at)
        outside = gradient.clone()
        outside[:, max(0, top) : bottom, max(0, left) : right] = 0
        assert not outside.any()


@pytest.mark.parametrize("name", STYLES)
def test_mine(name: str) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 13)
    mined = interpret.mine(network, images, k=3, batch_size=4)  # whose last batch is one image
    assert list(mined) == list(layers_of(name))
    for layer in layers_of(name):
        maps = torch.stack([outputs_of(plain(network), layer, image) for image in images])
        best = maps.flatten(2).max(2).values if maps.dim() > 2 else maps
        values, items = best.sort(dim=0, descending=True, stable=True)
        np.testing.assert_array_equal(mined[layer].images, items[:3].T)
        np.testing.assert_allclose(mined[layer].values, values[:3].T.float(), rtol=1e-4, atol=1e-6)
        for unit in range(maps.shape[1]):
            item, (y, x) = int(mined[layer].images[unit, 0]), mined[layer].positions[unit, 0].tolist()
            at = maps[item, unit, y, x] if maps.dim() > 2 else maps[item, unit]
            assert float(at) == pytest.approx(float(best[item, unit]), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("rule", ["gradient", "deconvnet"])
def test_project(name: str, rule: Any) -> None:
    written, network = STYLES[name], make(name)
    if rule == "deconvnet" and not written.rectifies:
        pytest.skip("whose rectifiers and gates the tests of the rules compare, one by one")
    images = inputs(written, 3)
    last = list(layers_of(name))[-1]
    for layer in (written.hidden, last):
        for unit in (0, 1) if layer == written.hidden else (0,):
            found = interpret.project(network, images, layer, unit, rule=rule)
            whole = found.full((images.shape[2], images.shape[3]))
            for row, image in enumerate(images):
                x = image.clone().requires_grad_()
                with rectified_backwards() if rule == "deconvnet" else nullcontext():
                    output = outputs_of(plain(network), layer, x, grad=True)
                    neuron = output[unit].flatten()[output[unit].flatten().argmax()]
                    (expected,) = torch.autograd.grad(neuron * neuron.detach(), x)
                torch.testing.assert_close(whole[row], expected, rtol=1e-4, atol=1e-6)
                assert float(found.values[row]) == pytest.approx(float(neuron.detach()), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", STYLES)
def test_probe(name: str) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 2)
    moved = torch.cat([images[:, :, :1], images[:, :, :1], images[:, :, :-2]], 2)  # down by two, with its edge
    curves = interpret.probe(network, images, "translation", [0, 2], fill="edge")
    assert set(curves.distances) == set(layers_of(name))
    for layer in layers_of(name):
        for row in range(len(images)):
            before, after = (outputs_of(plain(network), layer, one[row]).double() for one in (images, moved))
            assert curves.distances[layer][row, 0] == 0
            assert curves.distances[layer][row, 1] == pytest.approx(float((after - before).norm()), rel=1e-3, abs=1e-5)
            assert curves.norms[layer][row] == pytest.approx(float(before.norm()), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_probabilities_of_a_probe(name: str) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 2)
    curves = interpret.probe(network, images, "translation", [0], labels=[0, 0], fill="edge")
    assert curves.probabilities is not None
    np.testing.assert_allclose(curves.probabilities[:, 0], probabilities_of(name, network, images)[:, 0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_occlude(name: str) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 2)
    occlusion = interpret.occlude(network, images, labels=[0, 0], size=4, stride=3, fill=0.25, feature_map=False)
    clean = probabilities_of(name, network, images)[:, 0]
    np.testing.assert_allclose(occlusion.clean_probabilities, clean, rtol=1e-4)
    for i, top in enumerate(occlusion.tops.tolist()):
        for j, left in enumerate(occlusion.lefts.tolist()):
            hidden = images.clone()
            hidden[:, :, top : top + 4, left : left + 4] = 0.25
            expected = probabilities_of(name, network, hidden)[:, 0]
            np.testing.assert_allclose(occlusion.probabilities[:, i, j], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predict(name: str) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 5)
    expected = probabilities_of(name, network, images)
    predicted = interpret.predict(network, images, k=min(3, expected.shape[1]))
    values, classes = expected.sort(dim=1, descending=True, stable=True)
    np.testing.assert_array_equal(predicted.top, classes[:, : predicted.top.shape[1]])
    np.testing.assert_allclose(predicted.probabilities, values[:, : predicted.top.shape[1]], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", STYLES)
def test_gallery(name: str, tmp_path: Path) -> None:
    written, network = STYLES[name], make(name)
    images = inputs(written, 6).repeat_interleave(2, 2).repeat_interleave(2, 3)
    images = F.adaptive_avg_pool2d(images, written.shape[1:])
    study = interpret.Study(tmp_path / "study", network, images)
    study.mine(k=2)
    study.project()
    interpret.write_gallery(study, tmp_path / "gallery")
    assert set(study.mined_layers) == set(layers_of(name))
    for layer in layers_of(name):
        maps = torch.stack([outputs_of(plain(network), layer, image) for image in images])
        best = maps.flatten(2).max(2).values if maps.dim() > 2 else maps
        mined = study.mined(layer)
        np.testing.assert_allclose(mined.values[:, 0], best.max(0).values.float(), rtol=1e-4, atol=1e-6)
        pages = list((tmp_path / "gallery").rglob("*.html"))
        assert any(re.search(re.escape(layer), page.read_text("utf-8")) for page in pages)
