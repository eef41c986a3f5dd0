"""Composed rules, against the same written out layer by layer in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret import BackwardRule, Composite, InterpretError, Study, attribute, project

EPSILON = 1e-3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 3),
    ).double()


IMAGE = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def passed_back(module: nn.Module, rule: Any, seed: Tensor | None = None) -> Tensor:
    x = IMAGE.clone().requires_grad_()
    with BackwardRule(module, rule, strict=True):
        output = module(x.clone())
    assert torch.equal(output, module(IMAGE.clone()))
    seed = torch.eye(3, dtype=torch.float64)[1:2] * output.detach() if seed is None else seed
    return torch.autograd.grad(output, x, seed)[0]


# ---- layer-wise relevance propagation --------------------------------------------------------------------------------


def epsilon(signal: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    output = function(*inputs)
    shares = torch.autograd.grad(output, inputs, signal / (output + EPSILON * output.sign()))
    return [one * share for one, share in zip(inputs, shares, strict=True)]


def unchanged(signal: Tensor, function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return signal


def matrix_of(layer: nn.Module, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return a linear layer as a matrix and a bias, on flattened inputs of a shape."""
    count = int(torch.tensor(shape).prod())
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    columns = [layer(one.reshape(1, *shape)).flatten() - zero for one in torch.eye(count, dtype=torch.float64)]
    return torch.stack(columns, 1), zero


def relevance_below(layer: nn.Module, x: Tensor, relevance: Tensor) -> Tensor:
    """Bach et al. 2015, equation 58, entry by entry: each input has its share of each output's sum."""
    weights, bias = matrix_of(layer, x.shape[1:])
    inputs, outputs = x.flatten().tolist(), relevance.flatten().tolist()
    below = [0.0] * len(inputs)
    for j, arriving in enumerate(outputs):
        parts = [float(weights[j, i]) * inputs[i] for i in range(len(inputs))]
        total = sum(parts) + float(bias[j])
        total += EPSILON if total > 0 else -EPSILON if total < 0 else 0.0
        for i, part in enumerate(parts):
            below[i] += part / total * arriving
    return torch.tensor(below, dtype=torch.float64).reshape(x.shape)


def test_relevance_propagation_is_the_literal_one() -> None:
    module = network()
    rule = Composite(by_operation={"conv2d": epsilon, "linear": epsilon, "rectifier": unchanged}, otherwise="gradient")
    with torch.no_grad():
        first = module[0][0](IMAGE)
        pooled, switches = F.max_pool2d(first.relu(), 2, return_indices=True)
        second = module[1][0](pooled)
        output = module[3](second.relu().flatten(1))
        relevance = torch.eye(3, dtype=torch.float64)[1:2] * output
        relevance = relevance_below(module[3], second.relu().flatten(1), relevance).reshape(second.shape)
        relevance = relevance_below(module[1][0], pooled, relevance)
        relevance = F.max_unpool2d(relevance, switches, 2)
        relevance = relevance_below(module[0][0], IMAGE, relevance)
    torch.testing.assert_close(passed_back(module, rule), relevance, rtol=1e-9, atol=1e-12)


# ---- by layer --------------------------------------------------------------------------------------------------------


def literal(module: nn.Sequential, first: str, second: str, seed: Tensor) -> Tensor:
    """Pass a signal back, with one rule for each of the two rectifiers."""

    def rectified(signal: Tensor, x: Tensor, rule: str) -> Tensor:
        signal = signal if rule == "gradient" else signal.clamp(min=0)
        return signal if rule == "deconvnet" else signal * (x > 0)

    with torch.no_grad():
        below = module[0][0](IMAGE)
        pooled, switches = F.max_pool2d(below.relu(), 2, return_indices=True)
        above = module[1][0](pooled)
        signal = (seed @ module[3].weight).reshape(above.shape)
        signal = F.conv_transpose2d(rectified(signal, above, second), module[1][0].weight)
        signal = F.max_unpool2d(signal, switches, 2)
        return F.conv_transpose2d(rectified(signal, below, first), module[0][0].weight, padding=1)


SEED = torch.tensor([[1.0, -0.5, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    [
        (Composite({"0": "guided"}), "guided", "deconvnet"),
        (Composite({"1.*": "gradient"}, otherwise="guided"), "guided", "gradient"),
        (Composite({"0.1": "gradient", "?": "guided"}), "gradient", "guided"),  # the first that fits
        (Composite({"1": "gradient"}, {"relu": "guided"}), "guided", "gradient"),  # layers before operations
        (Composite(by_operation={"rectifier": "guided"}, otherwise="gradient"), "guided", "guided"),
        (Composite({"0": Composite(by_operation={"relu": "gradient"})}, otherwise="guided"), "gradient", "guided"),
        (Composite(otherwise="guided"), "guided", "guided"),
    ],
    ids=str,
)
def test_layers_and_operations_have_the_rule_that_is_named(rule: Composite, first: str, second: str) -> None:
    module = network()
    torch.testing.assert_close(
        passed_back(module, rule, SEED), literal(module, first, second, SEED), rtol=1e-12, atol=1e-12
    )


def test_a_function_takes_rectifiers_that_are_written_out() -> None:
    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)

    x = torch.randn(1, 5, dtype=torch.float64).requires_grad_()
    with BackwardRule(Written(), Composite(by_operation={"rectifier": unchanged}), strict=True):
        output = Written()(x)
    signal = torch.randn(1, 5, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(output, x, signal)[0], signal)


def test_a_sum_gives_each_of_its_operands_a_share() -> None:
    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x + 2 * x], 1)

    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    rule = Composite(by_operation={"add": epsilon, "mul": unchanged}, otherwise="gradient")
    with BackwardRule(Residual(), rule):
        output = Residual()(x)
    found = torch.autograd.grad(output, x, torch.tensor([[0.0, 0.0, 6.0, 9.0]], dtype=torch.float64))[0]
    # of x + 2x a third each way, then unchanged through the product
    expected = torch.tensor([[6.0, 9.0]], dtype=torch.float64) * torch.tensor([3 / (3 + EPSILON), 9 / (9 + EPSILON)])
    torch.testing.assert_close(found, expected)


# ---- where a rule is taken -------------------------------------------------------------------------------------------


def test_project_and_attribute_take_a_composite() -> None:
    module = network()
    rule = Composite(by_operation={"conv2d": epsilon, "linear": epsilon, "rectifier": unchanged}, otherwise="gradient")
    found = attribute(module, IMAGE, rule, target=1)
    assert found.method == "composite(conv2d: epsilon, linear: epsilon, rectifier: unchanged, otherwise gradient)"
    seed = torch.eye(3, dtype=torch.float64)[1:2]
    torch.testing.assert_close(found.maps, passed_back(module, rule, seed), rtol=1e-12, atol=1e-14)

    projected = project(module, IMAGE, "1.0", channels=2, positions=(1, 0), rule=rule)
    assert projected.rule == str(rule)
    x = IMAGE.clone().requires_grad_()
    with BackwardRule(module, rule):
        neuron = module[1][0](module[0](x.clone()))[0, 2, 1, 0]
    (expected,) = torch.autograd.grad(neuron, x, neuron.detach())
    torch.testing.assert_close(projected.full((8, 8)), expected, rtol=1e-12, atol=1e-14)


def test_a_study_refuses_what_it_has_no_name_for(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", network().float(), IMAGE.float().expand(4, -1, -1, -1).clone())
    study.mine("1.0", k=1)
    with pytest.raises(InterpretError, match="by the names of their rules"):
        study.project(rule=Composite())  # type: ignore[arg-type]


def wrong_shape(signal: Tensor, function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return signal


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composite({"0": "guidet"}), "rule must be one of"),  # type: ignore[dict-item]
        (lambda: Composite(by_operation={"conv2": "guided"}), "did you mean 'conv2d'"),
        (lambda: passed_back(network(), Composite({"features": "guided"})), "unknown layer 'features'"),
        (lambda: passed_back(network(), Composite(by_operation={"conv2d": wrong_shape})), "return one like each input"),
        (lambda: passed_back(network(), unchanged), "rule must be one of"),
    ],
)
def test_mistakes_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InterpretError, match=message):
        make()
