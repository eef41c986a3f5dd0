"""Mining on a GPU: the same bytes as on the CPU, without waiting for the GPU from batch to batch."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import interpret
from helpers.simulated_device import DEVICE, Simulation, prepared_on_simulated_device
from interpret.analyses.mining import compute as compute_module
from interpret.analyses.mining import miner as miner_module
from interpret.analyses.mining import on_device
from interpret.analyses.mining.batch_maxima import BatchMaxima
from interpret.analyses.mining.miner import Miner
from interpret.cli.subjects import find_device
from interpret.execution.parallel import torch_threads
from interpret.images.opening import open_images
from interpret.support.errors import InterpretError

SHAPES = {"0": torch.Size([6, 5, 7]), "2": torch.Size([5, 3, 3]), "4": torch.Size([4])}
UNITS = sum(shape[0] for shape in SHAPES.values())


class Items(Dataset[Any]):
    """Images with labels; several items may come from one photograph."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return torch.zeros(1, 12, 12), int(self.labels[item])


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(5 * 8 * 8, 4)
    )  # fmt: skip


def some_values(kind: str, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return activations: with many ties and both zeros, of all magnitudes, or as they are in a network."""
    if kind == "ties":
        values = torch.randint(-2, 4, shape, generator=generator).float()
        return torch.where(torch.rand(shape, generator=generator) < 0.3, -0.0, values)
    if kind == "magnitudes":
        exponents = torch.randint(-149, 127, shape, generator=generator)
        return ((torch.rand(shape, generator=generator, dtype=torch.float64) - 0.3) * 2.0**exponents).float()
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("kind", ["ties", "magnitudes", "network"])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_state_as_on_the_host(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 5, (90,), generator=generator)
    states = []
    for device in (False, True):
        monkeypatch.setattr(miner_module, "stays_on_device", lambda *_, device=device: device)
        generator = torch.Generator().manual_seed(seed)
        model = interpret.load(network())
        data = open_images(Items(labels), model)
        if seed % 2:  # photographs whose items are neighbours, and ones whose items are not
            data.sources[:] = np.random.default_rng(seed).permutation(np.arange(90) // 4)
            data.sources[45:] = np.sort(data.sources[45:])
        miner = Miner(model, data, k=3 + seed)
        monkeypatch.setattr(miner_module, "FLUSH_SIZE", 16)
        start = 0
        while start < 90:
            count = min(int(torch.randint(1, 14, (1,), generator=generator)), 90 - start)
            items = torch.arange(start, start + count)
            values = some_values(kind, (count, UNITS), generator)
            limits = torch.tensor([shape[1:].numel() for shape in SHAPES.values()])
            limits = limits.repeat_interleave(torch.tensor([shape[0] for shape in SHAPES.values()]))
            places = torch.randint(0, 2**31, (count, UNITS), generator=generator) % limits
            positive = {name: torch.ones(2, shape[0], dtype=torch.int64) for name, shape in SHAPES.items()}
            miner.update(BatchMaxima(items, labels[items], SHAPES, values, places, positive))
            if start // 30 != (start + count) // 30:
                miner.state_dict()  # as each minute
            start += count
        states.append(miner.state_dict())
    host, there = states
    assert host.keys() == there.keys()
    for name, value in host.items():
        assert value.dtype == there[name].dtype and value.numpy().tobytes() == there[name].numpy().tobytes(), name
    assert (host["top/images"] >= 0).any()


def test_sums_carry_before_they_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """70,000 of the values with most bits set: more than a digit holds."""
    value = float(np.nextafter(np.float32(2.0), np.float32(0)))
    sums = on_device._SumsOnDevice(2, torch.device("cpu"))
    for _ in range(7):
        sums.add(torch.tensor([[value, -value]]).expand(10_000, 2), torch.zeros(10_000, dtype=torch.int64), 1)
    assert sums.collect().value().tolist() == [[70_000 * value, -70_000 * value]]


def mined(waits: Counter[str] | None, count: int, **settings: Any) -> dict[str, bytes]:
    """Mine LeNet, and return the result's arrays as bytes."""
    images = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labelled = torch.utils.data.TensorDataset(images, torch.arange(count) % 7)
    # with one thread, as two batches at once round otherwise than one on two threads
    with torch_threads(1), Simulation() as simulation:
        found = interpret.mine(interpret.load("lenet"), labelled, k=4, batch_size=4, **settings)
    if waits is not None:
        waits.update(simulation.waits)
    return {f"{name}/{key}": array.tobytes() for name, layer in found.items() for key, array in layer.arrays().items()}


def test_the_host_does_not_wait_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies to the host are those of one state, however many batches there are; each is of one whole array."""
    expected = {count: mined(None, count) for count in (12, 36)}
    monkeypatch.setattr(compute_module, "prepared", prepared_on_simulated_device)
    monkeypatch.setattr(miner_module, "stays_on_device", lambda device, dtype: device == DEVICE)
    monkeypatch.setattr(miner_module, "FLUSH_SIZE", 1)
    waits: dict[int, Counter[str]] = {12: Counter(), 36: Counter()}
    for count, found in waits.items():
        assert mined(found, count) == expected[count]
    few, many = waits[12], waits[36]
    assert few == many, (few, many)
    assert set(many) <= {"_to_copy to the host", "_local_scalar_dense"}
    assert 10 <= sum(many.values()) <= 60, many


def test_a_simulated_wait_is_counted() -> None:
    """So that the test above can fail."""
    with Simulation() as simulation:
        tensor = torch.zeros(3, device=DEVICE)
        assert tensor.device == DEVICE and (tensor + 1).device == DEVICE
        bool((tensor > 0).any())
        tensor[tensor > 0]
        tensor.nonzero()
        assert (tensor + 2).cpu().tolist() == [2.0, 2.0, 2.0]
        torch.zeros(3).copy_(tensor)
    assert simulation.waits == {
        "_local_scalar_dense": 1, "index": 1, "nonzero": 1, "_to_copy to the host": 1, "copy_ to the host": 1,
    }  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_named_as_on_the_host(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for device in (False, True):
        monkeypatch.setattr(miner_module, "stays_on_device", lambda *_, device=device: device)
        model = interpret.load(network())
        miner = Miner(model, open_images(Items(torch.zeros(8, dtype=torch.int64)), model), k=2)
        values = torch.ones(8, UNITS)
        values[5, 8] = values[3, 9] = value
        miner.update(BatchMaxima(torch.arange(8), torch.zeros(8, dtype=torch.int64), SHAPES, values, values.long(), {}))
        with pytest.raises(InterpretError) as error:
            miner.result()
        said.append(str(error.value))
    assert said[0] == said[1] and f"layer '2' gives {value} in unit 3 on image 3" in said[0]


def test_the_command_uses_a_gpu_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, found in ((True, "cuda"), (False, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch, "zeros", lambda *_, device: device)  # asks whether the device works
        assert find_device(None) == found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch itself raises an error where a batch would wait; the state is that of a second run, bit for bit."""
    update = Miner.update

    def without_waiting(self: Miner, found: BatchMaxima) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            update(self, found)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Miner, "update", without_waiting)
    assert mined(None, 64, device="cuda") == mined(None, 64, device="cuda")


def test_more_images_wait_on_a_larger_gpu_but_few_for_many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    device = torch.device("cuda")
    assert on_device.images_that_wait(26560, device) == 1263  # of 80 GiB, 1/16 for 160 bytes each
    card.total_memory = 8 * 2**30
    assert on_device.images_that_wait(26560, device) == 126
    assert on_device.images_that_wait(10**9, device) == 0  # the miner then adds FLUSH_SIZE at once
