"""Projections of real networks, against layers that were patched one by one from the equations of their papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

import interpret
from helpers.by_paper import patched
from interpret.backprop import rules

NETWORKS = {
    "mobilenet_v3_small": (64, "features.12.0", {"SqueezeExcitation", "Hardswish", "ReLU"}),
    "test_efficientnet": (64, "blocks.4.0.conv_pwl", {"SqueezeExcite", "SiLU"}),
    "seresnet18": (64, "layer4.1.conv2", {"SEModule", "ReLU"}),
    "test_convnext": (64, "stages.3.blocks.0.mlp.fc2", {"GELUTanh", "LayerNorm", "LayerNorm2d"}),
    "test_vit": (160, "blocks.3.mlp.fc2", {"Attention", "GELU", "LayerNorm"}),
    "mobilevit_xxs": (64, "stages.4.1.conv_fusion.conv", {"Attention", "SiLU", "LayerNorm"}),
}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "mobilenet_v3_small":
        return mobilenet_v3_small(weights=None).double().eval()
    return pytest.importorskip("timm").create_model(name).double().eval()  # type: ignore[no-any-return]


def output_of(network: nn.Module, layer: str, image: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *given: kept.append(given[2]))
    network(image)
    handle.remove()
    return kept[0]


def compare(name: str, rule: Any) -> float:
    """Return the largest difference between a projection and the reference, relative to the largest value."""
    side, layer, kinds = NETWORKS[name]
    network, image = network_of(name), torch.rand(1, 3, side, side, dtype=torch.float64)
    reference, replaced = patched(network, rule)
    assert replaced == kinds
    x = image.clone().requires_grad_()
    output, plain = output_of(reference, layer, x), output_of(network, layer, image)
    torch.testing.assert_close(output, plain, rtol=1e-9, atol=1e-11)  # the same network
    unit = output[0, ..., 0] if isinstance(network.get_submodule(layer), nn.Linear) else output[0, 0]
    (expected,) = torch.autograd.grad(unit.amax(), x)
    with rules.BackwardRule(network, rule) as backward:
        x = image.clone().requires_grad_()
        output = output_of(network, layer, x)
        backward.signals_from([output])
    unit = output[0, ..., 0] if isinstance(network.get_submodule(layer), nn.Linear) else output[0, 0]
    (found,) = torch.autograd.grad(unit.amax(), x)
    if unit.dim() > 1:
        projected = interpret.project(network, image, layer, 0, rule=rule, start="one").full((side, side))
        torch.testing.assert_close(projected, found, rtol=1e-9, atol=float(1e-12 * found.abs().max()))
    assert expected.abs().max() > 0
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("name", NETWORKS)
def test_projections_are_those_of_layers_patched_from_their_papers(name: str, rule: Any) -> None:
    assert compare(name, rule) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_a_wrong_decision_would_be_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the other factor of each product, and pass attention along the queries."""
    decide, hold = rules.find_gate, rules.BackwardRule._hold

    def other(func: Any, args: Any, kwargs: Any, signals: list[Tensor]) -> Tensor | None:
        gate = decide(func, args, kwargs, signals)
        return next((one for one in signals if one is not gate), None)

    monkeypatch.setattr(rules, "find_gate", other)
    monkeypatch.setattr(
        rules.BackwardRule, "_hold",
        lambda self, func, args, kwargs, is_held: hold(
            self, func, args, kwargs,
            (lambda place, value: place not in (0, "query")) if "attention" in func.__name__ else is_held,
        ),
    )  # fmt: skip
    assert compare(name, "deconvnet") > 1e-3
