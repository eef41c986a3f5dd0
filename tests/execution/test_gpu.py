"""On a CUDA device, analyses agree with the CPU and leave the network where it was.

Comparisons are in float64: in float32 a GPU of the Ampere generation or later rounds the factors of convolutions to
TF32, PyTorch's own default.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import interpret
from helpers.networks import STYLES, make

CUDA = os.environ.get("INTERPRET_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.skipif(
        CUDA.startswith("cuda") and not torch.cuda.is_available(),
        reason="needs a CUDA device; INTERPRET_TEST_DEVICE=cpu tries the tests themselves",
    ),
    # PyTorch's, at the first product of matrices in the thread of its backward passes
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]


def network() -> nn.Module:
    """A network with a gate, overlapping pooling and a residual sum."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 5, stride=2, padding=2)
            self.pool = nn.MaxPool2d(3, 2)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.gate = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.conv1(x).relu())
            x = x + self.norm(self.conv2(x)).relu()
            x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
            return self.head(x.mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Network().double().eval()


def images(count: int = 24, side: int = 40) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors and arrays of floating point numbers inside a result, in its order."""
    if isinstance(value, Tensor):
        return [value.detach().cpu()] if value.is_floating_point() else []
    if isinstance(value, np.ndarray):
        return tensors_of(torch.from_numpy(value)) if value.dtype.kind == "f" else []
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in tensors_of(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    if hasattr(value, "__dict__") and type(value).__module__.startswith("interpret."):
        return tensors_of({name: part for name, part in vars(value).items() if name not in ("model", "network")})
    return []


ANALYSES: dict[str, Callable[[nn.Module, str], Any]] = {
    "mine": lambda net, device: interpret.mine(net, images(), device=device),
    "project": lambda net, device: interpret.project(net, images(4), "conv2", [0, 3, 5, 7], device=device),
    "project through the gate": lambda net, device: interpret.project(net, images(4), "head", 2, device=device),
    "project by guided backpropagation": lambda net, device: interpret.project(
        net, images(2), "conv2", 1, rule="guided", device=device
    ),
    "probe": lambda net, device: interpret.probe(net, images(6), "rotation", [0, 30, 90], device=device),
    "occlude": lambda net, device: interpret.occlude(net, images(2), [0, 1], size=8, stride=8, device=device),
    "predict": lambda net, device: interpret.predict(net, images(6), device=device),
    "find_neighbours": lambda net, device: interpret.find_neighbours(net, images(2), images(), "conv2", device=device),
    "layer_outputs": lambda net, device: interpret.layer_outputs(net, images(3), ["conv1", "head"], device=device),
    "feature_maps": lambda net, device: interpret.feature_maps(net, images(1), device=device),
    "effective_receptive_field": lambda net, device: interpret.effective_receptive_field(
        net, images(8), ["conv2"], count=8, device=device
    ),
    "attribute": lambda net, device: interpret.attribute(net, images(2), "integrated_gradients", 1, device=device),
    "sanity_check": lambda net, device: interpret.sanity_check(net, images(2), ["gradient"], 1, device=device),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_the_same_numbers_as_on_the_cpu(name: str) -> None:
    found = {}
    for device in ("cpu", CUDA):
        net = network()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found[device] = tensors_of(ANALYSES[name](net, device))
        assert all(parameter.device.type == "cpu" for parameter in net.parameters())
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert found["cpu"], "nothing to compare"
    assert len(found["cpu"]) == len(found[CUDA])
    for here, there in zip(found["cpu"], found[CUDA], strict=True):
        # results kept in float32 or half precision may round to the neighbouring number
        tolerance = 1e-9 if here.dtype == torch.float64 else 2 * torch.finfo(here.dtype).eps
        torch.testing.assert_close(there, here, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("style", sorted(STYLES.keys() - {"module_containers"}))  # it holds a layer in a plain list
def test_networks_as_people_write_them(style: str) -> None:
    """Mining and projecting of every style of network give the CPU's hits and projections."""
    written = STYLES[style]
    shape = (6, *written.shape)
    pictures = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    hits, projections = {}, {}
    for device in ("cpu", CUDA):
        net = make(style).to(torch.float64 if written.dtype == torch.float32 else written.dtype)
        inputs = pictures.to(next(iter([*net.parameters(), *net.buffers()])).dtype)
        mined = interpret.mine(net, inputs, [written.hidden], k=3, device=device)
        hits[device] = mined[written.hidden].images
        projections[device] = interpret.project(net, inputs[:2], written.hidden, 1, device=device).pixels
    assert torch.equal(torch.as_tensor(hits["cpu"]), torch.as_tensor(hits[CUDA]))
    torch.testing.assert_close(projections[CUDA].cpu(), projections["cpu"], rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not CUDA.startswith("cuda"), reason="needs a second device")
def test_a_layer_that_stays_on_the_cpu_is_an_error_of_one_sentence() -> None:
    with pytest.raises(interpret.InterpretError, match="holds tensors that do not move to cuda"):
        interpret.mine(make("module_containers"), images(4, 12).float(), device=CUDA)


def test_mining_in_float32_without_tf32() -> None:
    """Hits and statistics that were added up on the device, as every float32 network's are."""
    net, pictures = network().float(), images(200).float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        here, there = (interpret.mine(net, pictures, batch_size=16, device=device) for device in ("cpu", CUDA))
    for name in here:
        np.testing.assert_allclose(there[name].values, here[name].values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(there[name].density, here[name].density, rtol=1e-3, atol=1e-3)
        assert there[name].histogram.sum() == here[name].histogram.sum()


def test_mining_gives_the_same_bytes_again() -> None:
    """In float32, with PyTorch's own settings."""
    net, pictures = network().float(), images(64).float()
    found = [tensors_of(interpret.mine(net, pictures, device=CUDA)) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_projections_in_float32_without_tf32() -> None:
    """CUDA adds up the signals of overlapping windows in any order, so that they agree but for rounding."""
    net, pictures = network().float(), images(64).float()
    here, there, again = (interpret.project(net, pictures, "conv2", 1, device=one) for one in ("cpu", CUDA, CUDA))
    assert torch.equal(here.positions, there.positions)
    for other in (there, again):
        torch.testing.assert_close(other.pixels, here.pixels, rtol=1e-4, atol=1e-6)


def test_expanded_images() -> None:
    grey = torch.rand(1, 1, 40, 40, dtype=torch.float64).expand(3, 3, 40, 40)
    here, there = (interpret.project(network(), grey, "conv2", 1, device=device) for device in ("cpu", CUDA))
    torch.testing.assert_close(there.pixels, here.pixels)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_optimised_images(dtype: torch.dtype | None) -> None:
    net = network().float()
    made = interpret.synthesise(net, "conv2", [0, 3], size=(3, 40, 40), steps=16, device=CUDA, dtype=dtype)
    assert np.isfinite(made.values).all()
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())


def test_commands_choose_the_gpu(tmp_path: Path) -> None:
    """A whole gallery of folders of images, with no `--device`; the study says where it ran."""
    generator = np.random.default_rng(0)
    for kind in ("a", "b"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(generator.integers(0, 255, (28, 28), np.uint8)).save(
                tmp_path / "data" / kind / f"{number}.png"
            )
    command = [sys.executable, "-m", "interpret", "gallery", "lenet", "data", "--study", "st", "--out", "site"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
    if CUDA.startswith("cuda"):
        shown = subprocess.run(
            [sys.executable, "-m", "interpret", "study", "st"], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, env=environment,
        )  # fmt: skip
        assert torch.cuda.get_device_name(0) in shown.stdout
