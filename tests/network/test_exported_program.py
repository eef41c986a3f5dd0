"""Programs of `torch.export` are taken apart into the layers that they were exported from."""

from __future__ import annotations

import copy
import io
import os
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torchvision import models

import interpret
from interpret.backprop.rules import BackwardRule
from interpret.network.exported_program import exported_network
from interpret.support.errors import InterpretError


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


class Own(nn.Module):
    """Layers that run twice, a written-out head, and outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding="same")
        self.again = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2)
        self.head = nn.Linear(4 * 16 * 16, 5)
        self.scale = nn.Parameter(torch.rand(5))

    def forward(self, images: Tensor) -> Any:
        maps = self.again(self.stem(images))
        maps = self.up(self.again(maps + 1))
        return {"classes": self.head(maps.reshape(maps.shape[0], -1)) * self.scale, "maps": maps}


def exported(network: nn.Module, side: int, dynamic: bool = False) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what torch itself deprecates
        shapes = ({0: Dim("batch")},) if dynamic else None
        return export(network.eval(), (torch.rand(2, 3, side, side),), dynamic_shapes=shapes)


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_own_network_keeps_its_layers_and_outputs(dynamic: bool) -> None:
    network = Own().eval()
    network.again[0].running_mean.normal_()
    found = exported_network(exported(network, 8, dynamic))
    images = torch.rand(5, 3, 8, 8)
    expected, answers = network(images), found(images)
    assert answers.keys() == expected.keys()
    assert all(torch.equal(answers[name], expected[name]) for name in expected)
    kinds = {name: type(layer).__name__ for name, layer in found.named_modules()}
    assert kinds["stem"] == "Conv2d" and kinds["up"] == "ConvTranspose2d" and kinds["head"] == "Linear"
    assert kinds["again.0"] == "BatchNorm2d" and kinds[""] == "Own"
    assert {name: tuple(one.shape) for name, one in found.named_parameters()} == {
        name: tuple(one.shape) for name, one in network.named_parameters()
    }
    assert torch.equal(copy.deepcopy(found)(images)["maps"], expected["maps"])
    signals = []
    for one in (network, found):
        images.requires_grad_()
        with BackwardRule(one, "deconvnet", strict=True):
            output = one(images)["classes"]
        signals += torch.autograd.grad(output[:, 1].sum(), images)
    assert torch.equal(*signals)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_networks_of_torchvision_give_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = getattr(models, name)(weights=None).eval()
    torch.export.save(exported(network, 64), tmp_path / "net.pt2")
    model = interpret.load(tmp_path / "net.pt2")
    assert (model.name, model.input_shape, model.origin) == ("net", (3, 64, 64), "weights from the file net.pt2")
    images = torch.rand(6, 3, 64, 64)
    assert torch.equal(model(images), network(images))
    layers, expected = interpret.trace(model), interpret.trace(network, (3, 64, 64))
    assert (layers.macs, layers.params, layers.uncounted) == (expected.macs, expected.params, expected.uncounted)
    for layer in expected.values():
        if layer.kind in ("Conv2d", "Linear"):
            assert layers[layer.name] == layer
    convolutions = [layer.name for layer in expected.values() if layer.kind == "Conv2d"]
    chosen = convolutions[:: len(convolutions) // 4]
    one, two = (interpret.mine(each, images, layers=chosen, k=3) for each in (model, network))
    assert all(np.array_equal(one[layer].images, two[layer].images) for layer in chosen)
    for layer in chosen:
        pixels = [interpret.project(each, images[:2], layer, channels=1).pixels for each in (model, network)]
        assert torch.equal(*pixels), layer


def test_a_file_that_is_damaged_is_refused_and_runs_no_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InterpretError, match=r"none.pt2' does not exist"):
        interpret.load(tmp_path / "none.pt2")
    (tmp_path / "torn.pt2").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(InterpretError, match=r"torn.pt2' is damaged or no exported program"):
        interpret.load(tmp_path / "torn.pt2")
    assert not caplog.records  # torch would log a traceback
    torch.export.save(exported(nn.Sequential(nn.Conv2d(3, 4, 3)), 8), tmp_path / "net.pt2")
    harm = io.BytesIO()
    torch.save(Malicious(tmp_path / "made"), harm)
    replaced = 0
    with (
        zipfile.ZipFile(tmp_path / "net.pt2") as whole,
        zipfile.ZipFile(tmp_path / "harm.pt2", "w", zipfile.ZIP_STORED) as bad,
    ):
        for name in whole.namelist():
            pickled = name.endswith(".pt")
            replaced += pickled
            bad.writestr(name, harm.getvalue() if pickled else whole.read(name))
    assert replaced
    with suppress(InterpretError):  # torch may not read the part at all
        interpret.load(tmp_path / "harm.pt2")
    assert not (tmp_path / "made").exists()


def test_new_weights_are_drawn_for_a_file(tmp_path: Path) -> None:
    torch.export.save(exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 8), tmp_path / "net.pt2")
    own, new, same = (interpret.load(tmp_path / "net.pt2", weights) for weights in (None, "random", "random"))
    assert own.weights_hash != new.weights_hash == same.weights_hash
    assert "random weights" in new.origin
