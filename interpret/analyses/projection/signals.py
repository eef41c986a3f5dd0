"""Signals: propagate from neurons back to the input by a backward rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from interpret.analyses.projection.crop import Crop
from interpret.backprop.neuron_windows import NeuronWindows
from interpret.backprop.rules import BackwardRule, Overlap, Rule
from interpret.execution.execution import autocast
from interpret.network.boxes import Given
from interpret.network.forward import call_network
from interpret.network.layers import Layout, first_outputs
from interpret.support.errors import InterpretError

Start = Literal["activation", "one"]


@dataclass(frozen=True)
class SignalSettings:
    """How a signal starts and propagates backward; see `interpret.project`."""

    rule: Rule = "deconvnet"
    start: Start = "activation"
    overlap: Overlap = "add"
    strict: bool = False
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """How outputs of layers are arranged that are no map [B, C, H, W]."""
    dtype: torch.dtype | None = None
    """None or float32: both passes in the type of the network. bfloat16: on a GPU, both under autocast; on a CPU, only
    signals in whole images pass back in it, as a rounded forward pass would have other switches and gates."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, torch.float32, torch.bfloat16):  # float16 overflows at a signal of 65,504
            raise InterpretError(f"dtype must be torch.bfloat16, torch.float32 or None, not {self.dtype}")

    @property
    def of_signals(self) -> torch.dtype | None:
        """The type in which signals pass back on a CPU; None for that of the network."""
        return self.dtype if self.dtype == torch.bfloat16 else None


def forward_under_rule(
    module: nn.Module,
    images: Tensor,
    names: list[str],
    settings: SignalSettings,
    boxes: Given | None = None,
    neurons: Mapping[str, tuple[Tensor, ...]] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run images under the rule; return the input tensor for differentiation, and each named layer's output.

    `boxes` stand in for those of some calls that pool features. Of a layer in `neurons`, return in place of its output
    only the values at these indices.
    """
    x = images.detach().requires_grad_()
    outputs: dict[str, Tensor] = {}

    def receive(name: str, output: Tensor) -> None:
        if neurons is not None and name in neurons:
            outputs[name] = output[neurons[name]]
        else:  # a copy if the forward pass continues, since a later layer may change the output in place
            outputs[name] = output if len(names) == 1 else output.clone()

    with (
        torch.enable_grad(),
        autocast(images.device, None if images.device.type == "cpu" else settings.dtype),
        BackwardRule(module, settings.rule, overlap=settings.overlap, strict=settings.strict) as rule,
    ):
        hooks = first_outputs(
            module, names, receive, stop=True, count=len(images), layouts=settings.layouts, boxes=boxes
        )
        with hooks:
            call_network(module, x.clone())
        for name, output in outputs.items():
            if not output.requires_grad:
                raise InterpretError(
                    f"no signal leads from layer {name!r} to the image: it does not depend on it, or runs without "
                    "gradients, as in torch.no_grad() or inside a custom autograd function; choose another"
                )
            rule.check(output)
        rule.signals_from(outputs.values())
    return x, outputs


def neuron_index(output: Tensor, rows: Tensor, channels: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
    """Return the index of neurons in a layer's output, each given by image (row), channel and position."""
    return (rows, channels, *positions.unbind(1)) if output.dim() > 2 else (rows, channels)


def seed_signal(output: Tensor, neurons: tuple[Tensor, ...], settings: SignalSettings) -> tuple[Tensor, Tensor]:
    """Return the signal at the layer, which is zero except at the neurons, and the neurons' activations."""
    values = output.detach()[neurons]
    seed = torch.zeros_like(output)
    seed[neurons] = values if settings.start == "activation" else torch.ones_like(values)
    return seed, values


def signals_of_batch(
    module: nn.Module,
    images: Tensor,
    layer: str,
    channels: Tensor,
    positions: Tensor,
    settings: SignalSettings,
    boxes: Given | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the signals [B, C, H, W] of one neuron of each image, and the neurons' activations [B].

    `boxes` are one of each image, for a layer that runs once a box.
    """
    x, outputs = forward_under_rule(module, images, [layer], settings, boxes)
    seed, values = seed_signal(
        outputs[layer], neuron_index(outputs[layer], torch.arange(len(images)), channels, positions), settings
    )
    (signal,) = torch.autograd.grad(outputs[layer], x, seed)
    return signal, values


def signals_of_image(
    module: nn.Module,
    image: Tensor,
    layer: str,
    channels: Tensor,
    positions: Tensor,
    settings: SignalSettings,
    crop: Crop,
    windowed: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Return the signals [B, C, h, w] of B neurons of one image [1, C, H, W] in their windows, and their activations.

    With `windowed`, None where each neuron's backward pass would be that of the whole image.
    """
    x, outputs = forward_under_rule(module, image, [layer], settings)
    output, rows = outputs[layer], torch.zeros(len(channels), dtype=torch.long)
    graph = NeuronWindows.below(output)
    if graph is not None:
        found = output.detach()[neuron_index(output, rows, channels, positions)]
        return signals_in_windows(graph, found, rows, channels, positions, settings, crop), found
    if windowed:
        return None
    signals: list[Tensor] = []
    values: list[Tensor] = []
    for channel, position in zip(channels[:, None], positions[:, None], strict=True):
        seed, value = seed_signal(output, neuron_index(output, torch.tensor([0]), channel, position), settings)
        signals += torch.autograd.grad(output, x, seed, retain_graph=True)
        values.append(value)
    boxes = crop.boxes(positions)
    return crop.window(torch.cat(signals), boxes, torch.zeros_like(positions)), torch.cat(values)


def signals_in_windows(
    graph: NeuronWindows,
    values: Tensor,
    rows: Tensor,
    channels: Tensor,
    positions: Tensor,
    settings: SignalSettings,
    crop: Crop,
) -> Tensor:
    """Return the signals [n, C, h, w] of neurons with activations `values` [n], of the images at `rows`."""
    starts = values if settings.start == "activation" else torch.ones_like(values)
    corners, (height, width) = crop.boxes(positions)[:, :2].numpy(), crop.field
    signals: list[Tensor] = []
    for windows in graph.signals(rows, channels, positions, starts, corners, (height, width), settings.of_signals):
        done = sum(map(len, signals))
        signals.append(windows.within(corners[done : done + len(windows.corners)], (height, width)))
    return torch.cat(signals)
