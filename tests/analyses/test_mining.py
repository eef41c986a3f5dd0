"""Mining against a literal loop over images, units and positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from interpret.analyses.mining.batch_maxima import batch_maxima, strongest_places
from interpret.analyses.mining.compute import mine, prepared_to_mine
from interpret.analyses.mining.histogram import BINS, DyadicHistogram
from interpret.analyses.mining.miner import Miner
from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.execution.batch_size import batch_size_for, batch_that_fits, gpu_batch_size
from interpret.execution.execution import Execution
from interpret.execution.reading import Reading, remaining_batches
from interpret.execution.resume import Unfinished
from interpret.images.batches import Batch, batches
from interpret.images.opening import open_images
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError

FEW = settings(max_examples=20, deadline=None)
MANY = settings(max_examples=150, deadline=None)


class Items(Images):
    """Inputs in memory with sources and labels as wanted; some do not decode."""

    def __init__(
        self,
        tensor: Tensor,
        sources: Sequence[int] | None = None,
        labels: Sequence[int] | None = None,
        classes: tuple[str, ...] | None = None,
        broken: Sequence[int] = (),
    ) -> None:
        super().__init__(
            "items",
            np.asarray(range(len(tensor)) if sources is None else sources, np.int64),
            None if labels is None else np.asarray(labels, np.int64),
            classes,
        )
        self.tensor, self.broken = tensor, broken

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        if item in self.broken:
            raise UnreadableImage(self.source_name(int(self.sources[item])), "it is torn")
        return self.tensor[item], int(self.labels[item])

    @property
    def fingerprint(self) -> str:
        return "0" * 64

    def source_name(self, source: int) -> str:
        return f"{source}.jpg"

    def source_picture(self, source: int) -> Image.Image:
        return Image.new("RGB", (4, 4))


def integers(*shape: int, seed: int = 0, low: int = -3, high: int = 3) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).double()


def integer_network(seed: int = 0) -> nn.Sequential:
    """A network whose sums are exact in any order, so that nothing depends on how a batch is computed."""
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(inplace=True),
        nn.Linear(5, 2),
    ).double()
    for index, parameter in enumerate(network.parameters()):
        parameter.data = integers(*parameter.shape, seed=100 * seed + index, low=-2, high=2)
    return network


def outputs_of(network: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """Each layer's output, step by step, on a copy that nothing changes in place."""
    found, x = {}, images
    with torch.no_grad():
        for name, layer in network.named_children():
            x = layer(x.clone())
            found[name] = x.clone()
    return found


Hit = tuple[float, int, tuple[int, int]]


def update(miner: Miner, batch: Batch, run: Execution) -> None:
    miner.update(batch_maxima(miner.model.module, batch, run, miner.layers, miner.density_items))


def literal_hits(
    output: Tensor, items: Sequence[int], sources: NDArray[np.int64], k: int
) -> tuple[list[list[float]], list[list[int]], list[list[tuple[int, int]]]]:
    """The rule, word by word: of each source its strongest item (ties: the lowest item, then the lowest position),
    of these the k strongest (ties: the lowest item)."""
    if output.dim() == 2:
        output = output[:, :, None, None]
    columns: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for unit in range(output.shape[1]):
        best: dict[int, Hit] = {}
        for row, item in enumerate(items):
            for y in range(output.shape[2]):
                for x in range(output.shape[3]):
                    value, source = float(output[row, unit, y, x]), int(sources[item])
                    if source not in best or value > best[source][0]:
                        best[source] = (value, item, (y, x))
        hits = sorted(best.values(), key=lambda hit: (-hit[0], hit[1]))[:k]
        hits += [(-math.inf, -1, (0, 0))] * (k - len(hits))
        for column, values in zip(columns, zip(*hits, strict=True), strict=True):
            column.append(list(values))
    return columns


def assert_hits(layer: MinedLayer, output: Tensor, items: Sequence[int], sources: Any, k: int) -> None:
    values, images, positions = literal_hits(output, items, sources, k)
    assert layer.values.tolist() == values
    assert layer.images.tolist() == images
    assert [[tuple(place) for place in row] for row in layer.positions.tolist()] == positions
    assert layer.dead.tolist() == [not best[0] > 0 for best in values]


def maxima_of(output: Tensor) -> NDArray[np.float32]:
    return (output.amax((2, 3)) if output.dim() == 4 else output).float().numpy()


def bytes_of(mined: Mined) -> dict[str, bytes]:
    found = {
        f"{name}/{key}": f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        for name, layer in mined.items()
        for key, array in layer.arrays().items()
    }
    return found | {"sample_images": mined.sample_images.tobytes()}


# hits


@st.composite
def activations(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """Few values, so that most tie, and sources that repeat in any order."""
    count, units, height, width = (draw(st.integers(1, top)) for top in (9, 3, 3, 3))
    values = draw(st.lists(st.integers(-2, 2), min_size=count * units * height * width, max_size=None))
    tensor = torch.tensor(values[: count * units * height * width], dtype=torch.float64)
    sources = draw(
        st.one_of(
            st.just(list(range(count))),
            st.lists(st.integers(0, 3), min_size=count, max_size=count).map(sorted),
            st.lists(st.integers(0, 3), min_size=count, max_size=count),
        )
    )
    return tensor.reshape(count, units, height, width), sources


@MANY
@given(activations(), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
@example((torch.zeros(3, 1, 2, 2, dtype=torch.float64), [5, 5, 2]), 4, 2, 1)
@example((torch.tensor([1.0, 3, 2, 3, 5], dtype=torch.float64).reshape(5, 1, 1, 1), [0, 1, 0, 2, 0]), 2, 1, 1)
def test_hits_equal_a_literal_loop(
    drawn: tuple[Tensor, list[int]], k: int, batch_size: int, taken_together: int
) -> None:
    output, sources = drawn
    data = Items(output, sources)
    with mock.patch("interpret.analyses.mining.miner.FLUSH_SIZE", taken_together):
        mined = mine(nn.Sequential(nn.Identity()), data, "0", k, batch_size=batch_size)
    assert_hits(mined["0"], output, range(len(output)), data.sources, k)


@pytest.mark.slow
@FEW
@given(st.integers(0, 99), st.integers(1, 7), st.sampled_from([1, 2, 4]))
def test_every_layer_of_a_network_equals_a_literal_loop_at_every_batch_size(seed: int, k: int, tiles: int) -> None:
    network, images = integer_network(seed), integers(9, 2, 6, 6, seed=seed + 1)
    data = Items(images, [item // tiles for item in range(9)], [item % 3 for item in range(9)], ("a", "b", "c"))
    outputs = outputs_of(network, images)
    every = ("0", "1", "2", "3", "4", "6", "7", "8")
    found = [mine(network, data, every, k, batch_size=size) for size in (1, 2, 4, 9)]
    with mock.patch("interpret.analyses.mining.miner.FLUSH_SIZE", 3):
        found += [mine(network, data, every, k, batch_size=size) for size in (1, 2, 4)]
    # a rectifier's name stands for what is rectified, that of the layer before it for the raw values
    assert min(outputs["0"].min(), outputs["6"].min()) < 0 <= min(outputs["1"].min(), outputs["7"].min())
    for name in every:
        assert_hits(found[0][name], outputs[name], range(9), data.sources, k)
        np.testing.assert_array_equal(found[0][name].sample_maxima, maxima_of(outputs[name])[found[0].sample_images])
    assert all(bytes_of(other) == bytes_of(found[0]) for other in found[1:])


def test_default_layers_are_those_with_units() -> None:
    assert list(mine(integer_network(), integers(3, 2, 6, 6))) == ["0", "3", "6", "8"]


def test_unfilled_places_are_empty() -> None:
    layer = mine(integer_network(), integers(3, 2, 6, 6), "3", k=5)["3"]
    assert np.isneginf(layer.values[:, 3:]).all() and np.isfinite(layer.values[:, :3]).all()
    assert (layer.images[:, 3:] == -1).all() and (layer.positions[:, 3:] == 0).all()


def test_a_unit_that_is_never_above_zero_is_dead() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1))
    network[0].weight.data, network[0].bias.data = torch.tensor([1.0, 0, -1]).reshape(3, 1, 1, 1), torch.zeros(3)
    layer = mine(network, torch.rand(5, 1, 2, 2) + 0.1)["0"]
    assert layer.dead.tolist() == [False, True, True]
    assert layer.maximum.tolist() == layer.values[:, 0].tolist()


def test_a_module_that_runs_twice_counts_with_its_first_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(2, 2, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(-5 * self.conv(self.relu(self.conv(x))))

    network, images = Twice().double(), integers(6, 2, 3, 3)
    mined = mine(network, images, "conv,relu", k=4, batch_size=4)
    with torch.no_grad():
        raw = network.conv(images)
    for name, output in (("conv", raw), ("relu", raw.relu())):
        np.testing.assert_array_equal(mined[name].sample_maxima, maxima_of(output)[mined.sample_images])
        values = np.array(literal_hits(output, range(6), np.arange(6), 4)[0])
        np.testing.assert_allclose(mined[name].values, values, rtol=1e-7)


class ChannelsLast(nn.Module):
    """A block as ConvNeXt has them: linear layers at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.act = nn.Conv2d(2, 3, 1), nn.Linear(3, 5), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.wide(self.stem(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["wide", "act"])
def test_the_units_of_layers_that_keep_channels_last_are_their_features(name: str) -> None:
    network, images = ChannelsLast().double(), integers(4, 2, 3, 6)
    layer = mine(network, images, name, k=3)[name]
    with torch.no_grad():
        output = network.wide(network.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        output = network.act(output) if name == "act" else output
    values, found, positions = literal_hits(output, range(4), np.arange(4), 3)
    np.testing.assert_allclose(layer.values, values, rtol=1e-6)
    assert layer.images.tolist() == found
    assert layer.positions.tolist() == [[list(place) for place in row] for row in positions]


# statistics


def literal_histogram(values: Sequence[float]) -> tuple[list[int], float, float]:
    """In exact fractions: the narrowest power of two by whose multiples 64 bins hold all values."""
    low, high = Fraction(min(values)), Fraction(max(values))
    largest = max(abs(min(values)), abs(max(values)), float(np.finfo(np.float32).tiny))
    width = Fraction(2) ** max(-60, math.frexp(largest)[1] - 24)
    while high // width - low // width >= BINS:
        width *= 2
    first = low // width
    counts = [0] * BINS
    for value in values:
        counts[Fraction(value) // width - first] += 1
    return counts, float(first * width), float(width)


def assert_histogram(histogram: DyadicHistogram, values: NDArray[np.float32]) -> None:
    counts, starts, widths = histogram.of(slice(None))
    for unit in range(values.shape[1]):
        assert (counts[unit].tolist(), starts[unit], widths[unit]) == literal_histogram(values[:, unit].tolist())


finite = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 8.0, 10.0, 1.0, 5.0, 100.0, 3.4e38, 1e-45]),
    st.integers(-20, 20).map(float),
    st.floats(7, 9, width=32),
)


@MANY
@given(st.lists(finite, min_size=1, max_size=12), st.integers(1, 12), st.randoms(use_true_random=False))
@example([10.0, 11.0, 300.0], 1, None)
@example([0.0, 1e-20, 0.0], 1, None)
@example([10.0] * 5, 2, None)
def test_histogram_is_literal_whatever_the_batches_and_the_order(values: list[float], size: int, shuffle: Any) -> None:
    column = np.array(values, np.float32)
    orders = [column, column[::-1].copy()]
    if shuffle is not None:
        shuffle.shuffle(values)
        orders.append(np.array(values, np.float32))
    for order in orders:
        histogram = DyadicHistogram(2)
        both = np.stack([order, -order], 1)
        for start in range(0, len(both), size):
            histogram.update(torch.from_numpy(both[start : start + size]))
        assert_histogram(histogram, both)


def test_histogram_of_a_layer_counts_each_images_maximum_once() -> None:
    images = torch.randn(70, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU())
    mined = mine(network, images, "0,1", batch_size=32)
    for name, output in outputs_of(network, images).items():
        layer = mined[name]
        assert layer.histogram.sum(1).tolist() == [70] * 5
        # maxima from another batch size may round over the edge of a bin
        for unit, values in enumerate(maxima_of(output).T):
            edges = layer.histogram_start[unit] + layer.histogram_width[unit] * np.arange(BINS + 1)
            assert np.abs(np.histogram(values, edges)[0] - layer.histogram[unit]).sum() <= 2


def test_class_means_are_those_of_a_literal_loop() -> None:
    images, labels = integers(10, 2, 6, 6), [0, 2, 2, -1, 0, 2, 0, 0, 2, 7]
    network = integer_network()
    data = Items(images, labels=labels, classes=("ant", "bee", "cat"))
    for name, output in outputs_of(network, images).items():
        if name == "5":
            continue
        means = mine(network, data, name, batch_size=3)[name].class_means
        assert means is not None and means.dtype == np.float32
        for unit, values in enumerate(maxima_of(output).T):
            for label in (0, 2):
                own = [float(value) for value, of in zip(values, labels, strict=True) if of == label]
                assert means[label, unit] == np.float32(sum(own) / len(own))
            assert math.isnan(means[1, unit])


def test_class_means_need_labels_but_no_names() -> None:
    network, images = integer_network(), integers(4, 2, 6, 6)
    assert mine(network, images)["0"].class_means is None
    assert mine(network, Items(images, classes=("ant",)))["0"].class_means is None
    means = mine(network, TensorDataset(images, torch.tensor([1, 0, 1, 3])))["8"].class_means
    assert means is not None
    np.testing.assert_array_equal(means[3], maxima_of(outputs_of(network, images)["8"])[3])
    assert np.isnan(means[2]).all()
    # a plain list tells its labels only as it is read
    told = [(image, label) for image, label in zip(images, (1, 0, 1, 3), strict=True)]
    for size in (1, 2, 4):
        np.testing.assert_array_equal(mine(network, told, batch_size=size)["8"].class_means, means)


def test_the_sample_is_chosen_by_splitmix64() -> None:
    def splitmix64(item: int, seed: int) -> int:
        z = ((item + 1) * 0x9E3779B97F4A7C15 + seed) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    for seed in (0, 1, -1, 2**64 + 3):
        hashes = [splitmix64(item, seed) for item in range(1000)]
        assert sample_by_hash(1000, 20, seed).tolist() == sorted(range(1000), key=hashes.__getitem__)[:20]
    assert sorted(sample_by_hash(3, 20, 0)) == [0, 1, 2]


def test_sample_and_density_are_those_of_a_literal_loop() -> None:
    images, broken = integers(300, 2, 6, 6), sample_by_hash(300, 40, 5)[[0, 7, 35]]
    network = integer_network()
    outputs = outputs_of(network, images)
    mined = mine(network, Items(images, broken=broken.tolist()), "*", batch_size=7, seed=5)
    sample = [item for item in sample_by_hash(300, 256, 5).tolist() if item not in broken]
    probe = [item for item in sample_by_hash(300, 32, 5).tolist() if item not in broken]
    assert mined.sample_images.tolist() == sample and len(sample) == 253 and len(probe) == 30
    assert mined.skipped == {f"{item}.jpg": "it is torn" for item in sorted(broken.tolist())}
    for name, layer in mined.items():
        np.testing.assert_array_equal(layer.sample_maxima, maxima_of(outputs[name])[sample])
        for unit in range(len(layer.density)):
            values = outputs[name][probe, unit].flatten().tolist()
            assert layer.density[unit] == np.float32(sum(value > 0 for value in values) / len(values))


def test_density_is_unknown_where_none_of_its_sample_decodes() -> None:
    broken = sample_by_hash(40, 32, 0).tolist()
    layer = mine(integer_network(), Items(integers(40, 2, 6, 6), broken=broken))["0"]
    assert np.isnan(layer.density).all() and layer.sample_maxima.shape == (8, 4)


def test_another_seed_takes_another_sample_and_finds_the_same_hits() -> None:
    network, images = integer_network(), integers(300, 2, 6, 6)
    one, other = mine(network, images, "3"), mine(network, images, "3", seed=1)
    assert sorted(one.sample_images) != sorted(other.sample_images)
    np.testing.assert_array_equal(one["3"].images, other["3"].images)


# the same result


def float_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3),
        nn.Flatten(),
        nn.Linear(216, 4),
    )


def test_the_same_call_gives_the_same_bytes_and_another_batch_size_no_more_than_rounding() -> None:
    network, images = float_network(), torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first, again = mine(network, images, batch_size=8), mine(network, images, batch_size=8)
    assert bytes_of(first) == bytes_of(again)
    for name, layer in mine(network, images, batch_size=40).items():
        np.testing.assert_allclose(layer.values, first[name].values, rtol=1e-5, atol=1e-6)
        assert (layer.images == first[name].images).mean() > 0.95


def test_worker_processes_change_nothing() -> None:
    network, data = integer_network(), Items(integers(12, 2, 6, 6), broken=[3, 11])
    alone, helped = mine(network, data, batch_size=5), mine(network, data, batch_size=5, workers=2)
    assert bytes_of(alone) == bytes_of(helped)
    assert alone.skipped == helped.skipped == {"3.jpg": "it is torn", "11.jpg": "it is torn"}


@FEW
@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_a_restored_miner_goes_on_to_the_same_bytes(cut: int, before: int, after: int, seed: int) -> None:
    network, data = (
        integer_network(),
        Items(integers(12, 2, 6, 6), [i // 3 for i in range(12)], [i % 2 for i in range(12)], ("a", "b")),
    )

    def run(miner: Miner, size: int, stop: int) -> Miner:
        with prepared_to_mine(miner) as execution:
            for batch in batches(data, spans=remaining_batches(12, size, np.array([[0, seen[miner]]]))):
                if int(batch.items[-1]) >= stop:
                    break
                update(miner, batch, execution)
                seen[miner] = int(batch.items[-1]) + 1
        return miner

    new = [Miner(as_model(network.eval()), data, "*", 3, seed=seed) for _ in range(3)]
    seen = dict.fromkeys(new, 0)
    whole = run(new[0], 4, 12).result()
    half = run(new[1], before, cut)
    state = half.state_dict()
    seen[new[2]] = seen[half]
    assert seen[half] <= cut
    run(half, after, 12)  # what goes on must not change a state that was taken
    new[2].load_state_dict(state)
    assert bytes_of(run(new[2], after, 12).result()) == bytes_of(whole) == bytes_of(half.result())


def test_interrupted_mining_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    class Torn(Dataset[tuple[Tensor, int]]):
        """Images of which one does not decode, read by someone who loses patience at another."""

        stop: int | None = None

        def __len__(self) -> int:
            return 12

        def __getitem__(self, item: int) -> tuple[Tensor, int]:
            if item == self.stop:
                raise KeyboardInterrupt
            if item == 3:
                raise OSError("torn")
            return integers(12, 2, 6, 6)[item], item % 2

    network, file = integer_network(), tmp_path / "mining.safetensors"

    def run(stop: int | None, resume_from: Path | None, k: int = 3) -> Mined:
        data = Torn()
        images = open_images(data, network)
        _ = images.fingerprint  # which reads all of them
        data.stop = stop
        return mine(network, images, k=k, batch_size=2, resume_from=resume_from)

    whole = run(None, None)
    assert whole.skipped == {"image 3": "torn"}
    with pytest.raises(KeyboardInterrupt):
        run(7, file)
    found = run(None, file)
    assert bytes_of(found) == bytes_of(whole) and found.skipped == whole.skipped
    # what is whole is not read again but for the first two, and what is of other settings not taken up
    assert bytes_of(run(2, file)) == bytes_of(whole)
    assert bytes_of(run(None, file, k=2)) == bytes_of(run(None, None, k=2))


def test_a_state_of_an_earlier_version_is_not_resumed(tmp_path: Path) -> None:
    network, file = integer_network(), tmp_path / "mining.safetensors"
    images = open_images(integers(12, 2, 6, 6), network)
    earlier = {"layers": ["0", "3"], "k": 3, "seed": 0, "dtype": "None"}
    Unfinished.of(file, as_model(network), images, **earlier).save({"seen_items": torch.tensor(6)})
    assert Unfinished.of(file, as_model(network), images, **earlier).load()
    assert bytes_of(mine(network, images, k=3, resume_from=file)) == bytes_of(mine(network, images, k=3))


def test_a_result_taken_midway_stays_as_it_is() -> None:
    network, data = integer_network(), Items(integers(12, 2, 6, 6))
    miner = Miner(as_model(network), data, k=2)
    taken: list[tuple[Mined, dict[str, bytes]]] = []
    with prepared_to_mine(miner) as execution:
        for batch in batches(data, 3):
            update(miner, batch, execution)
            taken.append((miner.result(), bytes_of(miner.result())))
    assert all(bytes_of(result) == before for result, before in taken)
    for seen, (result, _) in enumerate(taken, 1):
        half = mine(network, Items(data.tensor[: 3 * seen]), k=2)
        np.testing.assert_array_equal(result["3"].images, half["3"].images)


def test_what_is_held_does_not_grow_with_the_number_of_images() -> None:
    def held(count: int) -> int:
        miner = Miner(as_model(integer_network()), Items(integers(count, 2, 6, 6)))
        with prepared_to_mine(miner) as execution:
            for batch in batches(miner.data, 100):
                update(miner, batch, execution)
                assert not miner._waiting  # a batch of so many is sorted in at once
        return sum(tensor.numel() * tensor.element_size() for tensor in miner.state_dict().values())

    assert held(2000) == held(300)


def test_bfloat16_runs_and_comes_close() -> None:
    network, images = float_network(), torch.rand(20, 3, 8, 8)
    exact, fast = mine(network, images), mine(network, images, dtype=torch.bfloat16)
    for name, layer in exact.items():
        difference = np.abs(layer.values - fast[name].values).max()
        assert 0 < difference < 0.05 * np.abs(layer.values).max()


def test_a_network_and_images_in_double_precision() -> None:
    network, images = float_network().double(), torch.rand(9, 3, 8, 8, dtype=torch.float64)
    layer = mine(network, images, "0", k=9)["0"]
    with torch.no_grad():
        output = network.eval()[0](images)
    np.testing.assert_allclose(layer.values, -np.sort(-output.amax((2, 3)).numpy().T, 1), rtol=1e-6)


# the network afterwards


class Untidy(nn.Module):
    """Mixed modes, a shared layer, a frozen weight, a buffer of four dimensions and a tensor that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9)
        self.same = self.first
        self.register_buffer("map", torch.rand(1, 4, 6, 5))
        self.plain = torch.rand(1, 4, 6, 5)
        self.first.weight.requires_grad_(False)
        self.drop.eval()
        (self.first(torch.rand(1, 3, 8, 7)) * self.map).sum().backward()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.first(x) + self.map * self.plain))


def condition(network: nn.Module) -> dict[str, Any]:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        "objects": {name: id(tensor) for name, tensor in tensors.items()},
        "memory": {name: (tensor.data_ptr(), tensor.stride(), str(tensor.device)) for name, tensor in tensors.items()},
        "values": {name: tensor.tolist() for name, tensor in tensors.items()},
        "learning": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "gradients": {name: tensor.grad.stride() for name, tensor in tensors.items() if tensor.grad is not None},
        "training": {name: layer.training for name, layer in network.named_modules()},
        "hooks": [(len(layer._forward_hooks), len(layer._forward_pre_hooks)) for layer in network.modules()],
    }


@pytest.mark.parametrize("spoilt", [None, float("nan")])
def test_the_network_is_left_as_it_was(spoilt: float | None) -> None:
    network, images = Untidy(), torch.rand(5, 3, 8, 7)
    kept = images.clone()
    if spoilt is not None:
        images[3, 1, 2, 2] = spoilt
    before = condition(network)
    if spoilt is None:
        mine(network, images, "*", device="cpu")
        assert torch.equal(images, kept)
    else:
        with pytest.raises(InterpretError):
            mine(network, images, "*")
    assert condition(network) == before


def test_images_are_not_changed_by_a_network_that_begins_in_place() -> None:
    images = -torch.rand(4, 1, 3, 3)
    kept = images.clone()
    layer = mine(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 1, 1)), images, "0", k=4)["0"]
    assert layer.values.tolist() == [[0] * 4]
    assert torch.equal(images, kept)


# what is refused


def test_mistakes_are_refused() -> None:
    network, images = integer_network(), integers(3, 2, 6, 6)
    for wrong, options in [
        ("k must be at least 1, not 0", {"k": 0}),
        ("batch_size must be at least 1, not 0", {"batch_size": 0}),
        ("unknown layer 'feature.0'", {"layers": "feature.0"}),
        ("layers is empty", {"layers": []}),
        ("dtype must be", {"dtype": torch.float64}),
    ]:
        with pytest.raises(InterpretError, match=wrong):
            mine(network, images, **options)  # type: ignore[arg-type]
    with pytest.raises(InterpretError, match=r"images are torch.float32, and the network's weights torch.float64"):
        mine(network, images.float())
    with pytest.raises(InterpretError, match=r"too small.*'0'"):
        mine(nn.Sequential(nn.Conv2d(2, 2, 5)), torch.rand(2, 2, 3, 3))
    with pytest.raises(InterpretError, match="takes 2"):
        mine(network.float(), torch.rand(2, 3, 6, 6))
    with pytest.raises(InterpretError, match=r"does not fit.*'6'"):
        mine(network, torch.rand(2, 2, 9, 9))
    with pytest.raises(InterpretError, match="no convolutional or linear layer"):
        mine(nn.Sequential(nn.ReLU()), torch.rand(2, 2, 3, 3))
    with pytest.raises(InterpretError, match="the positions of layer '1' are no known grid"):
        mine(nn.Sequential(nn.Flatten(2), nn.Linear(9, 9)), torch.rand(2, 2, 3, 3))
    with pytest.raises(InterpretError, match="none of the 3"):
        mine(network, Items(images, broken=[0, 1, 2]))


class Odd(nn.Module):
    """A layer that does not run, as GoogLeNet's auxiliary classifiers do not, and one that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.pool = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.used(x))[0]  # type: ignore[no-any-return]


def test_layers_that_do_not_run_are_left_out_unless_named() -> None:
    images = torch.rand(5, 1, 4, 4)
    for layers in (None, "*used", ["used", "un*"]):
        assert list(mine(Odd(), images, layers, batch_size=2)) == ["used"]
    for layers in ("unused", "unused,used", ["us*", "unused"], "un*"):
        with pytest.raises(InterpretError, match="'unused' did not run"):
            mine(Odd(), images, layers)


def test_layers_that_return_more_than_a_tensor_are_refused() -> None:
    with pytest.raises(InterpretError, match="'pool' returns several tensors"):
        mine(Odd(), torch.rand(2, 1, 4, 4), "pool")


def test_a_convolution_that_returns_several_tensors_is_left_out_unless_named() -> None:
    class Octave(nn.Conv2d):
        """A convolution of high and low frequencies (Chen et al. 2019)."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x), super().forward(x[..., ::2, ::2])

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.octave, self.end = Octave(1, 2, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            high, low = self.octave(x)
            return self.end(high) + low.mean()  # type: ignore[no-any-return]

    images = torch.rand(5, 1, 4, 4)
    assert list(mine(Network(), images)) == ["end"]
    with pytest.raises(InterpretError, match="'octave' returns several tensors"):
        mine(Network(), images, "octave")


def test_a_layer_that_begins_to_run_is_left_out_as_from_the_first_images() -> None:
    class Late(Odd):
        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) if x.sum() < 0 else self.used(x) + self.unused(x)

    images = torch.rand(8, 1, 4, 4)
    images[:4] *= -1
    late, odd = Late(), Odd()
    late.load_state_dict(odd.state_dict())
    found, expected = (mine(network, images, k=2, batch_size=1) for network in (late, odd))
    assert list(found) == ["used"]
    assert bytes_of(found) == bytes_of(expected)


def test_a_layer_that_stops_running_is_refused() -> None:
    class Moody(Odd):
        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) if x.sum() > 0 else self.unused(self.used(x))

    images = torch.ones(4, 1, 2, 2)
    images[:2] *= -1
    with pytest.raises(InterpretError, match="'unused' did not run"):
        mine(Moody(), images, batch_size=2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_is_not_finite_names_layer_unit_and_image(value: float, batch_size: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 2)).double()
    network[0].weight.data = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    images = torch.zeros(7, 1, 2, 2, dtype=torch.float64)
    images[5, 0, 1, 0] = value
    unit = 1 if value == 1e39 else 0  # 0 · ∞ is NaN
    named = rf"layer '0' gives \S+ in unit {unit} on image 5 \(2.jpg\)"
    with pytest.raises(InterpretError, match=named):
        mine(network, Items(images, [0, 0, 1, 1, 2, 2, 3]), batch_size=batch_size)


def test_images_of_several_shapes_are_refused_in_one_batch_or_in_several() -> None:
    class Growing(Dataset[Tensor]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, item: int) -> Tensor:
            return torch.ones(1, 4, 4 + item // 2)

    for size in (1, 2, 4):
        with pytest.raises(InterpretError, match="must have one shape"):
            mine(nn.Sequential(nn.Conv2d(1, 1, 3)), Growing(), batch_size=size)


def test_a_model_and_a_folder(tmp_path: Any) -> None:
    from interpret.network.preprocess import Preprocess

    for index in range(5):
        folder = tmp_path / ("dark" if index < 3 else "light")
        folder.mkdir(exist_ok=True)
        Image.new("L", (12, 9), 40 * index + 10).save(folder / f"{index}.png")
    (tmp_path / "dark" / "9.png").write_bytes(b"no image")
    model = Model(nn.Conv2d(1, 1, 3).requires_grad_(False), "edges", Preprocess((6, 6), channels="L"))
    model.module.weight.fill_(1 / 9)
    model = Model(nn.Sequential(model.module), "edges", model.preprocess)
    data = open_images(tmp_path, model)
    mined = mine(model, data, k=9)
    assert data.classes == ("dark", "light")
    assert mined["0"].images[0, :5].tolist() == [5, 4, 2, 1, 0] and (mined["0"].images[0, 5:] == -1).all()
    assert list(mined.skipped) == ["dark/9.png"]
    bias = float(model.module[0].bias)
    np.testing.assert_allclose(mined["0"].class_means[:, 0], [50 / 255 + bias, 150 / 255 + bias], rtol=1e-5)


def test_an_iterator_of_layers_is_read_once() -> None:
    def names() -> Iterator[str]:
        yield "3"
        yield "0"

    assert list(mine(integer_network(), integers(2, 2, 6, 6), names())) == ["0", "3"]


def test_batches_suit_a_processors_cache() -> None:
    def sizes(side: int, device: str = "cpu") -> list[int]:
        model = as_model(nn.Sequential(nn.Conv2d(1, 1, 1)))
        images = open_images(torch.zeros(40, 1, side, side), model)
        size = batch_size_for(None, side * side, torch.device(device))
        return [len(batch.items) for batch in Reading(images, size).batches()]

    assert sizes(28) == [32, 8]
    assert sizes(224) == [8] * 5
    assert sizes(224, device="cuda") == [32, 8]  # reading needs none
    assert sizes(1000) == [1] * 40


def test_default_batch_size_fits_a_gpu() -> None:
    """A power of two, at least one image."""
    assert [batch_that_fits(2**20 * megabytes, 24 * 2**30) for megabytes in (1, 30, 100, 9_000, 30_000)] == [
        256, 256, 64, 1, 1
    ]  # fmt: skip


def test_default_batch_size_on_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By four copies of the first image, for which torch would say that they took 400 MB of 4 GB."""
    seen = []
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    network.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * 2**20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 410 * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=4 * 2**30))
    image = torch.rand(1, 1, 9, 9)
    assert gpu_batch_size(network, image) == 16
    assert torch.equal(seen[0], image.expand(4, -1, -1, -1))


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (3, 64, 9, 9), (1, 1, 6, 1), (2, 3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_first_of_equal_maxima_is_the_place(
    shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> None:
    few = torch.randint(-3, 0, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    output = few.contiguous(memory_format=torch.channels_last) if channels_last else few
    values, places = strongest_places("layer", output)
    maps = few.double().flatten(2).numpy()
    np.testing.assert_array_equal(values.double().numpy(), maps.max(2))
    np.testing.assert_array_equal(places.numpy(), maps.argmax(2))


def test_a_generator_is_mined_over_latents() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConvTranspose2d(20, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    ).eval()
    latents = torch.randn(12, 20, 1, 1)
    mined = mine(network, latents, k=3)
    for name, depth in (("0", 1), ("3", 4)):
        with torch.no_grad():
            expected = network[:depth](latents).amax((2, 3)).topk(3, dim=0)
        torch.testing.assert_close(torch.from_numpy(mined[name].values), expected.values.T)
        np.testing.assert_array_equal(mined[name].images, expected.indices.T)
    with pytest.raises(
        InterpretError, match=r"inputs must be floating point, \[N, C, H, W\] .* not torch.float32 \[12"
    ):
        mine(network, latents.flatten(1))


class Routed(nn.Module):
    """Sends dark images through one convolution and bright ones through another."""

    def __init__(self) -> None:
        super().__init__()
        self.dark, self.bright, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean((1, 2, 3)) > 0
        maps = images.new_empty(len(images), 4, 6, 6)
        maps[bright], maps[~bright] = self.bright(images[bright]), self.dark(images[~bright])
        return self.head(maps.mean((2, 3)))


def test_a_layer_that_only_some_images_run_through_is_refused() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 3, 8, 8) * torch.tensor([1, 1, 1, 1, -1, 1])[:, None, None, None]
    network = Routed().eval()
    with pytest.raises(InterpretError, match=r"'(dark|bright)' returns [15] rows for 6 images, .* choose other layers"):
        mine(network, images, k=2)
    assert mine(network, images, "head", k=2)["head"].values.shape == (2, 2)
