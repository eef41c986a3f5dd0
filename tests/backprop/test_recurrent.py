"""Recurrent layers: the same written out step by step, whose products are covered one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret.backprop.rules import BackwardRule, UncoveredOperation

KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "LSTM without biases": (nn.LSTM, {"bias": False, "batch_first": True}),
    "two layers of LSTMs, both ways": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "GRU": (nn.GRU, {"bidirectional": True}),
    "RNN": (nn.RNN, {"batch_first": True}),
    "RNN of rectifiers": (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
}


class Rows(nn.Module):
    """A convolution, and a recurrent layer that reads the rows of its map, as in ReNet."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer, settings = KINDS[kind]
        self.conv, self.rows = nn.Conv2d(2, 4, 3), layer(4, 3, **settings)
        self.end = nn.Conv2d(3 * (1 + self.rows.bidirectional), 2, 1)
        self.double().eval()

    def read(self, sequences: Tensor) -> Tensor:
        return self.rows(sequences)[0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        sequences = x.permute(0, 2, 3, 1).flatten(0, 1)  # [B·H, W, C]
        first = 0 if self.rows.batch_first else 1
        read = self.read(sequences.transpose(first, 0)).transpose(first, 0)
        return self.end(read.unflatten(0, (len(x), -1)).permute(0, 3, 1, 2))


class WrittenOut(Rows):
    """The equations of the documentation of torch, one step after another."""

    def read(self, sequences: Tensor) -> Tensor:
        if self.rows.batch_first:
            sequences = sequences.transpose(0, 1)
        for layer in range(self.rows.num_layers):
            ways = [self.one_way(sequences, layer, "")]
            if self.rows.bidirectional:
                ways.append(self.one_way(sequences.flip(0), layer, "_reverse").flip(0))
            sequences = torch.cat(ways, -1)
        return sequences.transpose(0, 1) if self.rows.batch_first else sequences

    def one_way(self, sequences: Tensor, layer: int, way: str) -> Tensor:
        hidden = cell = 0 * sequences[0, :, :3]  # so that the gates of the first step are factors of signals, too
        found = []
        for x in sequences:
            given, before = self.part("ih", layer, way, x), self.part("hh", layer, way, hidden)
            if isinstance(self.rows, nn.LSTM):
                i, f, g, o = (a + b for a, b in zip(given, before, strict=True))
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                hidden = o.sigmoid() * cell.tanh()
            elif isinstance(self.rows, nn.GRU):
                r, z = ((a + b).sigmoid() for a, b in zip(given[:2], before[:2], strict=True))
                hidden = (1 - z) * (given[2] + r * before[2]).tanh() + z * hidden
            else:
                hidden = given[0] + before[0]
                hidden = hidden.relu() if self.rows.nonlinearity == "relu" else hidden.tanh()
            found.append(hidden)
        return torch.stack(found)

    def part(self, name: str, layer: int, way: str, x: Tensor) -> tuple[Tensor, ...]:
        weight = getattr(self.rows, f"weight_{name}_l{layer}{way}")
        bias = getattr(self.rows, f"bias_{name}_l{layer}{way}") if self.rows.bias else None
        return nn.functional.linear(x, weight, bias).split(3, -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rule", ["deconvnet", *(pytest.param(one, marks=pytest.mark.slow) for one in ("guided", "gradient"))]
)
def test_a_recurrent_layer_passes_the_signal_as_its_steps_do(kind: str, rule: Any) -> None:
    image = torch.randn(1, 2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    signal = torch.randn(1, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for network in (Rows(kind), WrittenOut(kind)):
        x = image.clone().requires_grad_()
        with BackwardRule(network, rule, strict=True):
            output = network(x)
        found.append((output.detach(), *torch.autograd.grad(output, x, signal)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert found[0][1].abs().max() > 0
    projected = interpret.project(Rows(kind), image, "end", 0, positions=[(2, 3)], rule=rule, start="one")
    network, x = WrittenOut(kind), image.clone().requires_grad_()
    with BackwardRule(network, rule):
        output = network(x)[0, 0, 2, 3]
    torch.testing.assert_close(projected.full((6, 8)), *torch.autograd.grad(output, x), rtol=1e-10, atol=1e-12)


def test_recurrent_layers_of_other_forms_are_named() -> None:
    network = Rows("LSTM")
    network.rows = nn.LSTM(4, 3, proj_size=2).double().eval()
    network.end = nn.Conv2d(2, 2, 1).double()
    with pytest.warns(UncoveredOperation, match="'lstm' in rows"):
        interpret.project(network, torch.rand(1, 2, 6, 8).double(), "end", 0)
