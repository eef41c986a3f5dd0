"""Optimisation: climb the objectives by Adam, all images of a batch at once and each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.synthesis.cone import ConePass, Part
from interpret.analyses.synthesis.objectives import OUTPUT, Objective, Position
from interpret.analyses.synthesis.parametrisation import Parametrisation
from interpret.analyses.synthesis.redirect import redirecting
from interpret.analyses.synthesis.robustness import Robustness
from interpret.network.answers import scores_of
from interpret.network.forward import call_network
from interpret.network.layers import Layout, first_outputs
from interpret.support.errors import InterpretError

NOTED = 32
"""At how many steps the values are noted."""


@dataclass(frozen=True)
class Climb:
    """How images are optimised."""

    steps: int
    rate: float
    robustness: Robustness
    diversity: float
    sign: float
    """1 to maximise the objectives, −1 to minimise them."""
    to_inputs: Callable[[Tensor], Tensor]
    """From pixels in 0 … 1 to inputs of the network."""
    positions: Mapping[str, Position]
    layers: frozenset[str]
    layouts: Mapping[str, Layout]
    """How outputs of layers are arranged that are no map [B, C, H, W]."""
    layout: torch.memory_format = torch.contiguous_format
    """The memory format of inputs."""
    part: Part | None = None
    """What images are of whole ones, if the layers run where neurons see alone; None: whole images, or crops."""

    @property
    def noted(self) -> NDArray[np.int64]:
        """The steps at which values are noted."""
        return np.unique(np.linspace(0, self.steps - 1, min(NOTED, self.steps)).round().astype(np.int64))


@dataclass
class Climbed:
    """n optimised images."""

    canvases: Tensor
    """[n, C, h + 2p, w + 2p] pixels in 0 … 1, on the CPU."""
    curves: NDArray[np.float64]
    """[n, p]"""
    redirected: NDArray[np.int64]
    stopped: NDArray[np.int64]


def climb(
    module: nn.Module,
    images: Parametrisation,
    objectives: Sequence[Objective],
    groups: Tensor,
    generators: Sequence[torch.Generator],
    settings: Climb,
    autocast: Callable[[], AbstractContextManager[object]],
    on_step: Callable[[], None],
) -> Climbed:
    """Optimise n images, each for its own objective.

    Args:
        module: the network, frozen.
        images: the parameters, which are changed.
        objectives: [n]
        groups: [n] the number of each image's objective: images of one group are made different.
        generators: [n] random generators of the transformations.
        settings: how.
        autocast: returns the context in which the network runs.
        on_step: called after each step.

    Raises:
        InterpretError: an objective that does not depend on the image, or is NaN or infinite at the first step.
    """
    count, noted = len(objectives), settings.noted
    fused = images.parameters[0].device.type == "cpu"  # one pass over the parameters
    optimiser = torch.optim.Adam(images.parameters, lr=settings.rate, fused=fused)
    curves = np.zeros((count, len(noted)))
    redirected, stopped = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    before = [parameter.detach().clone() for parameter in images.parameters]
    for step in range(settings.steps):
        progress = step / settings.steps
        states = [generator.get_state() for generator in generators]
        values, gradients = _gradients(module, images, objectives, groups, generators, settings, autocast, progress)
        largest = torch.stack([torch.linalg.vector_norm(one.flatten(1), torch.inf, 1) for one in gradients]).amax(0)
        broken = ~values.isfinite() | ~largest.isfinite()
        silent = largest == 0
        if bool(silent.any()):
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            inside = partial(_redirected, module, autocast)
            _, others = _gradients(module, images, objectives, groups, generators, settings, inside, progress)
            for gradient, other in zip(gradients, others, strict=True):
                gradient[silent] = other[silent].nan_to_num(0, 0, 0)
            helped = torch.stack([(one != 0).flatten(1).any(1) for one in gradients]).any(0)
            redirected += (silent & helped).cpu().numpy() & (stopped < 0)
        newly = broken.cpu().numpy() & (stopped < 0)
        if step == 0 and newly.any():
            raise InterpretError(
                f"the activation of {objectives[int(np.flatnonzero(newly)[0])]} is NaN or infinite at the first step: "
                "correct the weights, or choose another"
            )
        stopped[newly] = step
        curves[:, noted == step] = np.where(stopped < 0, values.double().cpu().numpy(), np.nan)[:, None]
        ended = torch.from_numpy(stopped >= 0)
        with torch.no_grad():
            if bool(ended.any()):  # keep what last gave finite activations
                for parameter, last in zip(images.parameters, before, strict=True):
                    parameter[ended] = last[ended]
            before = [parameter.detach().clone() for parameter in images.parameters]
        for parameter, gradient in zip(images.parameters, gradients, strict=True):
            parameter.grad = -gradient.nan_to_num(0, 0, 0)  # Adam minimises
        optimiser.step()
        on_step()
    with torch.no_grad():
        for parameter, last in zip(images.parameters, before, strict=True):
            parameter[torch.from_numpy(stopped >= 0)] = last[torch.from_numpy(stopped >= 0)]
        return Climbed(images.images().detach().float().cpu(), curves, redirected, stopped)


def _gradients(
    module: nn.Module,
    images: Parametrisation,
    objectives: Sequence[Objective],
    groups: Tensor,
    generators: Sequence[torch.Generator],
    settings: Climb,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: float,
) -> tuple[Tensor, list[Tensor]]:
    """Return the objectives' values [n], and the gradients of what is maximised for each parameter."""
    with torch.enable_grad():
        moved = settings.robustness.move(images.images(), generators, settings.robustness.strength(progress))
        inputs = settings.to_inputs(moved).contiguous(memory_format=settings.layout)
        outputs = run_layers(module, inputs, settings.layers, settings.layouts, autocast, settings.part)
        values = values_of(objectives, outputs, [settings.positions] * len(objectives))
        aim = settings.sign * values.sum()
        if settings.diversity:
            aim = aim - settings.diversity * _likeness(outputs, groups, values)
        if not aim.requires_grad:
            named = ", ".join(sorted(layer or "the output" for layer in settings.layers))
            raise InterpretError(
                f"{named} cannot be differentiated: the network detaches or rounds something before it; choose an "
                "earlier layer"
            )
        gradients = torch.autograd.grad(aim, images.parameters, allow_unused=True)
    if any(gradient is None for gradient in gradients):
        raise InterpretError(
            f"{objectives[0]} does not depend on the image: the network cannot be differentiated up to there; choose "
            "an earlier layer"
        )
    return values.detach(), list(gradients)


@contextmanager
def _redirected(module: nn.Module, autocast: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Run the network as otherwise, with redirected rectifiers."""
    with autocast(), redirecting(module):
        yield


def run_layers(
    module: nn.Module,
    inputs: Tensor,
    layers: frozenset[str],
    layouts: Mapping[str, Layout] | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    part: Part | None = None,
) -> dict[str, Tensor]:
    """Return the outputs of layers for images, those of the network under the name `OUTPUT`.

    With a part, images are that of whole ones, and layers run where it suffices.
    """
    outputs: dict[str, Tensor] = {}
    named = [layer for layer in layers if layer != OUTPUT]

    def receive(name: str, output: Tensor) -> None:
        # a copy where the pass continues, as a later layer may write over it
        outputs[name] = output if len(layers) == 1 else output.clone()

    hooks = first_outputs(module, named, receive, stop=OUTPUT not in layers, count=len(inputs), layouts=layouts)
    given = inputs.clone()
    with autocast(), nullcontext() if part is None else ConePass(given, part), hooks:
        whole = call_network(module, given)
        if OUTPUT in layers:
            outputs[OUTPUT] = scores_of(whole, len(inputs))
    return outputs


def values_of(
    objectives: Sequence[Objective], outputs: Mapping[str, Tensor], positions: Sequence[Mapping[str, Position]]
) -> Tensor:
    """Return each image's value of its own objective, [n], in float32 at least."""
    found = [
        objective.value(outputs, row, at).float() if next(iter(outputs.values())).dtype != torch.float64
        else objective.value(outputs, row, at)
        for row, (objective, at) in enumerate(zip(objectives, positions, strict=True))
    ]  # fmt: skip
    return torch.stack(found)


def _likeness(outputs: Mapping[str, Tensor], groups: Tensor, values: Tensor) -> Tensor:
    """Return how alike the images of each group are, by the correlations between channels, scaled as the values are.

    Source: Olah et al. 2017, "Diversity": the cosine similarity of Gram matrices of a layer.
    """
    total = values.new_zeros(())
    for output in outputs.values():
        features = output.flatten(2) if output.dim() > 2 else output[:, :, None]
        features = features.float()
        grams = F.normalize((features @ features.transpose(1, 2)).flatten(1), dim=1)
        alike = grams @ grams.T
        same = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool)
        for row in range(len(groups)):
            others = alike[row][same[row].to(alike.device)]
            if len(others):
                # in units of the objective, so that one number suits every layer
                total = total + others.mean() * values[row].detach().abs().clamp(min=1e-3)
    return total / len(outputs)
