"""Which layers feed which, and the weights between units, against literal counterparts and the network's behaviour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret.tracing.connectivity import Connections, connect, trace_flow


class Branching(nn.Module):
    """A fire module, a residual block with a grouped convolution, and a linear layer over a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(2, 3, 1)
        self.one = nn.Conv2d(3, 4, 1)
        self.three = nn.Conv2d(3, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        x = self.norm(torch.cat([self.one(x).relu(), self.three(x).relu()], 1))
        x = self.pool(x + self.relu(self.grouped(x)))
        return self.head(torch.flatten(x, 1))


@pytest.fixture
def network() -> Branching:
    torch.manual_seed(0)
    return Branching().eval()


def test_sources_follow_branches_and_joins(network: Branching) -> None:
    flow = trace_flow(network, (2, 4, 4))
    sources = flow.sources()
    assert sources["squeeze"] == [""]
    assert sources["one"] == sources["three"] == ["relu"]
    assert sources["join 1"] == ["one", "three"]
    assert sources["norm"] == ["join 1"] and sources["grouped"] == ["norm"]
    assert sources["join 2"] == ["norm", "grouped"]  # the rectifier that runs again does not count twice
    assert sources["head"] == ["pool"] and sources["pool"] == ["join 2"]
    assert [node.kind for node in flow.nodes if node.join] == ["cat", "add"]


def test_units_arrive_by_their_channels(network: Branching) -> None:
    arriving = trace_flow(network, (2, 4, 4)).arriving
    assert arriving["squeeze"] == {}
    assert arriving["one"]["squeeze"].tolist() == [0, 1, 2]
    assert arriving["grouped"]["one"].tolist() == [0, 1, 2, 3, -1, -1]
    assert arriving["grouped"]["three"].tolist() == [-1, -1, -1, -1, 0, 1]
    # both ways of the sum arrive at the linear layer, each channel at four places
    assert arriving["head"]["grouped"].tolist() == np.repeat(np.arange(6), 4).tolist()
    assert arriving["head"]["one"].tolist() == np.repeat([0, 1, 2, 3, -1, -1], 4).tolist()


NAMES = ["squeeze", "one", "three", "grouped", "head"]


def literal(network: Branching, target: str, source: str) -> np.ndarray:
    """The strengths [O, U] between two layers, by following each single weight, in float64."""
    module = network.get_submodule(target)
    weight = module.weight.detach().double().numpy()
    arriving = trace_flow(network, (2, 4, 4)).arriving[target][source]
    count = network.get_submodule(source).out_channels
    groups = getattr(module, "groups", 1)
    strengths = np.zeros((weight.shape[0], count))
    for out in range(weight.shape[0]):
        for unit in range(count):
            found = []
            for channel, arrives in enumerate(arriving.tolist()):
                if arrives != unit:
                    continue
                per_group = len(arriving) // groups
                if channel // per_group == out // (weight.shape[0] // groups):
                    found += weight[out, channel % per_group].ravel().tolist()
            norm = float(np.sqrt(sum(value * value for value in found)))
            strengths[out, unit] = -norm if sum(found) < 0 else norm
    return strengths


def test_weights_are_those_of_a_literal_count(network: Branching) -> None:
    found = connect(network, trace_flow(network, (2, 4, 4)), NAMES, n=100)
    for target, sources in {
        "one": ["squeeze"],
        "grouped": ["one", "three"],
        "head": ["one", "three", "grouped"],
    }.items():
        for source in sources:
            expected = literal(network, target, source)
            got = np.zeros_like(expected)
            layers, units, weights = found[target].in_layers, found[target].in_units, found[target].in_weights
            for out, j in np.argwhere(layers == NAMES.index(source)).tolist():
                got[out, units[out, j]] = weights[out, j]
            np.testing.assert_allclose(got, expected, rtol=1e-6)
            back = np.zeros_like(expected)
            layers, units, weights = found[source].out_layers, found[source].out_units, found[source].out_weights
            for unit, j in np.argwhere(layers == NAMES.index(target)).tolist():
                back[units[unit, j], unit] = weights[unit, j]
            np.testing.assert_allclose(back, expected, rtol=1e-6)


def test_strongest_come_first_and_few_are_kept(network: Branching) -> None:
    every = connect(network, trace_flow(network, (2, 4, 4)), NAMES, n=100)
    few = connect(network, trace_flow(network, (2, 4, 4)), NAMES, n=2)
    for name in NAMES:
        for key in ("in_layers", "in_units", "in_weights", "out_layers", "out_units", "out_weights"):
            np.testing.assert_array_equal(getattr(few[name], key), getattr(every[name], key)[:, :2])
        assert (np.diff(np.abs(every[name].in_weights), axis=1) <= 0).all()


def test_a_unit_without_weight_to_another_does_not_reach_it(network: Branching) -> None:
    """What `connect` leaves out has no effect on the next layer, and what it finds has one."""
    found = connect(network, trace_flow(network, (2, 4, 4)), ["three", "grouped"], n=100)
    image = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(1)) + 1
    outputs: dict[str, Tensor] = {}
    network.grouped.register_forward_hook(lambda *call: outputs.update(grouped=call[2].detach().clone()))
    network(image)
    before = outputs["grouped"]
    for unit in range(2):
        handle = network.three.register_forward_hook(
            lambda module, inputs, output, unit=unit: output.index_add(
                1, torch.tensor([unit]), torch.ones_like(output[:, :1]) * 9
            )
        )
        network(image)
        handle.remove()
        changed = (outputs["grouped"] != before).flatten(2).any(2)[0]
        reached = {out for out in range(6) if unit in found["grouped"].in_units[out]}
        assert {out for out in range(6) if changed[out]} == reached


def test_kernels_are_the_weights(network: Branching) -> None:
    found = connect(network, trace_flow(network, (2, 4, 4)), NAMES)["three"]
    assert isinstance(found, Connections) and found.kernels.shape == (2, 6, 3, 3)
    for out in range(2):
        for j in range(3):
            expected = network.three.weight[out, int(found.in_units[out, j])].detach().numpy()
            np.testing.assert_array_equal(found.kernels[out, j], expected)
    assert connect(network, trace_flow(network, (2, 4, 4)), NAMES)["one"].kernels.size == 0  # single weights


def test_transposed_convolution_has_its_weights_the_other_way_round() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2))
    found = connect(network, trace_flow(network, (1, 3, 3)), ["0", "1"], n=4)["1"]
    weight = network[1].weight.detach().double()  # [in, out of a group, h, w]
    for out in range(6):
        for j, unit in enumerate(found.in_units[out].tolist()):
            if unit < 0:
                continue
            assert unit // 2 == out // 3
            norm = weight[unit, out % 3].norm().item()
            assert abs(found.in_weights[out, j]) == pytest.approx(norm, rel=1e-6)
        assert (found.in_units[out] >= 0).sum() == 2


def test_after_a_shuffle_layers_are_known_and_units_are_not() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ChannelShuffle(2), nn.Conv2d(4, 2, 1))
    flow = trace_flow(network, (1, 3, 3))
    assert flow.sources()["2"] == ["1"] and flow.sources()["1"] == ["0"]
    assert flow.arriving["2"] == {}


def test_splits_keep_their_part_of_the_channels() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 6, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).chunk(2, dim=1)[1])

    assert trace_flow(Split(), (1, 3, 3)).arriving["second"]["first"].tolist() == [3, 4, 5]


def test_network_is_left_as_it_was(network: Branching) -> None:
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace_flow(network, (2, 4, 4))
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
