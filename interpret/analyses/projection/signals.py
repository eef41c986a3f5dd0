"""Signals: propagate from neurons back to the input by a backward rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interpret.backprop.rules import BackwardRule, Overlap, Rule
from interpret.network.forward import call_network
from interpret.network.layers import first_outputs
from interpret.support.errors import InterpretError

Start = Literal["activation", "one"]


@dataclass(frozen=True)
class SignalSettings:
    """How a signal starts and propagates backward; see `interpret.project`."""

    rule: Rule = "deconvnet"
    start: Start = "activation"
    overlap: Overlap = "add"
    strict: bool = False


def forward_under_rule(
    module: nn.Module, images: Tensor, names: list[str], settings: SignalSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run images under the rule; return the input tensor for differentiation, and each named layer's output."""
    x = images.detach().requires_grad_()
    outputs: dict[str, Tensor] = {}

    def receive(name: str, output: Tensor) -> None:
        # a copy if the forward pass continues, since a later layer may change the output in place
        outputs[name] = output if len(names) == 1 else output.clone()

    with (
        torch.enable_grad(),
        BackwardRule(module, settings.rule, overlap=settings.overlap, strict=settings.strict) as rule,
    ):
        with first_outputs(module, names, receive, stop=True, count=len(images)):
            call_network(module, x.clone())
        for name, output in outputs.items():
            if not output.requires_grad:
                raise InterpretError(f"layer {name!r} does not depend on the image: choose another")
            rule.check(output)
        rule.signals_from(outputs.values())
    return x, outputs


def neuron_index(output: Tensor, rows: Tensor, channels: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """Return the index of neurons in a layer's output, each given by image (row), channel and position."""
    return (rows, channels, positions[:, 0], positions[:, 1]) if output.dim() == 4 else (rows, channels)


def seed_signal(output: Tensor, neurons: tuple[Tensor, ...], settings: SignalSettings) -> tuple[Tensor, Tensor]:
    """Return the signal at the layer, which is zero except at the neurons, and the neurons' activations."""
    values = output.detach()[neurons]
    seed = torch.zeros_like(output)
    seed[neurons] = values if settings.start == "activation" else torch.ones_like(values)
    return seed, values


def signals_of_batch(
    module: nn.Module, images: Tensor, layer: str, channels: Tensor, positions: Tensor, settings: SignalSettings
) -> tuple[Tensor, Tensor]:
    """Return the signals [B, C, H, W] of one neuron of each image, and the neurons' activations [B]."""
    x, outputs = forward_under_rule(module, images, [layer], settings)
    seed, values = seed_signal(
        outputs[layer], neuron_index(outputs[layer], torch.arange(len(images)), channels, positions), settings
    )
    (signal,) = torch.autograd.grad(outputs[layer], x, seed)
    return signal, values


def signals_of_image(
    module: nn.Module, image: Tensor, layer: str, channels: Tensor, positions: Tensor, settings: SignalSettings
) -> tuple[Tensor, Tensor]:
    """Return the signals [B, C, H, W] of B neurons of one image [1, C, H, W], and their activations [B]."""
    x, outputs = forward_under_rule(module, image, [layer], settings)
    signals: list[Tensor] = []
    values: list[Tensor] = []
    for channel, position in zip(channels[:, None], positions[:, None], strict=True):
        seed, value = seed_signal(
            outputs[layer], neuron_index(outputs[layer], torch.tensor([0]), channel, position), settings
        )
        signals += torch.autograd.grad(outputs[layer], x, seed, retain_graph=True)
        values.append(value)
    return torch.cat(signals), torch.cat(values)
