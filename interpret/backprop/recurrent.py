"""Recurrent layers: the signal passes back step by step, with their gates held constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from interpret.network.operations import operation_name

_Step = Callable[[Tensor, list[Tensor]], list[Tensor]]
"""From the input of a step and the states before it, the states after it; the first is its output."""


def is_covered(args: Sequence[Any]) -> bool:
    """Return whether these are the arguments of `torch.lstm` and its like for whole sequences, without projections.

    Those of packed sequences have the sizes of the batches in the second place.
    """
    if len(args) != 9 or not isinstance(args[-1], bool):
        return False
    _, _, weights, biases, layers, _, _, both_ways, _ = args
    return len(weights) == layers * (1 + both_ways) * (2 + 2 * biases)


class PassRecurrent(torch.autograd.Function):
    """An LSTM, GRU or RNN that runs as written, and whose backward pass is that of its steps with constant gates.

    In tanh(a)·sigmoid(b), the sigmoid is the gate, as it is in other products; tanh has its derivative.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, func: Callable[..., Any], args: Any, kwargs: Any, rectifier: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x)
        ctx.again = operation_name(func), args, rectifier
        return tuple(func(*args, **kwargs))

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        name, args, rectifier = ctx.again
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            results = _run(name, x, args, rectifier)
            (below,) = torch.autograd.grad(results, x, signals)
        return below, None, None, None, None


def _run(name: str, x: Tensor, args: Any, rectifier: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Run a recurrent layer step by step and return what it returns."""
    _, states, weights, biases, layers, _, _, both_ways, batch_first = args
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    sequence = x.transpose(0, 1) if batch_first else x
    count, last = 2 + 2 * biases, []
    for layer in range(layers):
        ways = []
        for way in range(1 + both_ways):
            place = layer * (1 + both_ways) + way
            step = _STEPS[name](weights[place * count : (place + 1) * count], rectifier)
            steps = list(_steps(sequence.flip(0) if way else sequence, [state[place] for state in states], step))
            outputs = torch.stack([one[0] for one in steps])
            ways.append(outputs.flip(0) if way else outputs)
            last.append(steps[-1])
        sequence = torch.cat(ways, -1)
    output = sequence.transpose(0, 1) if batch_first else sequence
    return [output, *(torch.stack(ends) for ends in zip(*last, strict=True))]


def _steps(sequence: Tensor, states: list[Tensor], step: _Step) -> Iterator[list[Tensor]]:
    for one in sequence:
        states = step(one, states)
        yield states


def _affine(weights: Sequence[Tensor], x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the input and the hidden state give to the gates."""
    given, recurrent, *biases = weights
    own, other = biases or (0, 0)
    return x @ given.T + own, hidden @ recurrent.T + other


def _lstm(weights: Sequence[Tensor], _rectifier: Any) -> _Step:
    def step(x: Tensor, states: list[Tensor]) -> list[Tensor]:
        hidden, cell = states
        given, before = _affine(weights, x, hidden)
        enter, forget, new, leave = (given + before).chunk(4, -1)
        enter, forget, leave = (gate.sigmoid().detach() for gate in (enter, forget, leave))
        cell = forget * cell + enter * new.tanh()
        return [leave * cell.tanh(), cell]

    return step


def _gru(weights: Sequence[Tensor], _rectifier: Any) -> _Step:
    def step(x: Tensor, states: list[Tensor]) -> list[Tensor]:
        (hidden,) = states
        given, before = (both.chunk(3, -1) for both in _affine(weights, x, hidden))
        reset, keep = ((one + other).sigmoid().detach() for one, other in zip(given[:2], before[:2], strict=True))
        new = (given[2] + reset * before[2]).tanh()
        return [(1 - keep) * new + keep * hidden]

    return step


def _rnn_tanh(weights: Sequence[Tensor], _rectifier: Any) -> _Step:
    return lambda x, states: [torch.add(*_affine(weights, x, *states)).tanh()]


def _rnn_relu(weights: Sequence[Tensor], rectifier: Callable[[Tensor], Tensor]) -> _Step:
    return lambda x, states: [rectifier(torch.add(*_affine(weights, x, *states)))]


_STEPS: dict[str, Callable[[Sequence[Tensor], Callable[[Tensor], Tensor]], _Step]] = {
    "lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu,
}  # fmt: skip
