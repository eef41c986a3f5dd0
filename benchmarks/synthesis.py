"""Seconds an optimised image takes: of what a neuron sees, of a whole image, and by a peer; and what activation it has.

    python benchmarks/synthesis.py [--markdown docs/synthesis.md]

Per layer, ways to optimise a unit, in turn, each round; the least CPU time of all threads counts, as other work on the
machine hardly changes it:

- neuron: `interpret.synthesise` of what a neuron sees, all units in one batch;
- the same neuron in whole images, which is what others run;
- unit: the mean of its map, on whole images, all units in one batch;
- set alike: the same, moved as Horama moves images, by shifts of a seventh of the side without turns, of waves as its
  own, whose size is proportional to their length, and without a limit of contrast;
- Horama's `fourier` (pip install --no-deps horama einops): the mean of its map on whole images, one after the other,
  as it takes one objective. Six crops a step are its default. Here it has two of nearly the whole image, the fewest
  with which version 0.3.0 runs: beside ours stands half its time, which is that of one.

No way runs what follows the layer. The activations are means of the map as the layer returns it, measured by one
function on the finished images, without any movement. Networks without weights here are random: their times are those
of trained ones, and their activations compare the optimisers alone.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import interpret
from interpret import Model, Objective, Robustness
from interpret.network.layers import select_layers
from interpret.support.wording import count

NETWORKS = {
    "squeezenet1_1": "features.0,features.4.expand3x3,features.7.expand3x3,features.9.expand3x3,features.12.expand3x3",
    "torchvision:resnet18": "conv1,layer1.1.conv2,layer2.1.conv2,layer3.1.conv2,layer4.1.conv2",
}

SHIFT = 1 / 7
"""About the mean distance by which Horama shifts images, as a share of the side."""


class Reached(Exception):  # noqa: N818
    """Stops the network at the layer, so that no way pays for what follows."""


def objective_of(model: Model, layer: str, unit: int) -> Callable[[Tensor], Tensor]:
    """Return the mean of a unit's map, for pixels [n, 3, H, W] in 0 … 1."""
    encode = to_inputs(model)
    return lambda pixels: mean_of_map(model, layer, unit, encode(pixels))


def mean_of_map(model: Model, layer: str, unit: int, inputs: Tensor) -> Tensor:
    """Return the mean of a unit's map, for inputs [n, 3, H, W] of the network."""
    found: list[Tensor] = []

    def receive(_: Any, __: Any, output: Tensor) -> None:
        found.append(output[:, unit].mean())  # here, as a later layer may write over it
        raise Reached

    hook = model.module.get_submodule(layer).register_forward_hook(receive)
    try:
        model.module(inputs)
    except Reached:
        pass
    finally:
        hook.remove()
    return found[0]


def to_inputs(model: Model) -> Callable[[Tensor], Tensor]:
    """Return the map from pixels in 0 … 1 to inputs of the network."""
    from interpret.analyses.synthesis.pixels import to_inputs as convert

    assert model.preprocess is not None
    scale = model.preprocess.pixel_scale
    return lambda pixels: convert(pixels, scale, torch.float32)


def peer_of(model: Model, layer: str, units: Sequence[int], steps: int) -> Callable[[], list[Tensor]] | None:
    """Return what optimises the units by Horama, or None where it is not installed."""
    try:
        from horama import fourier
    except ImportError:
        return None
    side = model.input_shape[1]
    even = side - side % 2  # its waves make images of even sides alone

    def run() -> list[Tensor]:
        made = []
        for unit in units:
            image, _ = fourier(
                objective_of(model, layer, unit), total_steps=steps, image_size=even, model_input_size=side,
                values_range=(0, 1), crops_per_iteration=2, box_size=(0.95, 0.99), device="cpu",
            )  # fmt: skip
            made.append(image.detach())
        return made

    return run


def activation(model: Model, layer: str, units: Sequence[int], inputs: Sequence[Tensor]) -> float:
    """Return the mean over units of each one's own map's mean, on inputs [3, H, W] of the network."""
    with torch.no_grad():
        values = [mean_of_map(model, layer, unit, one[None]) for unit, one in zip(units, inputs, strict=True)]
    return float(torch.stack(values).mean())


def measure(
    model: Model, layer: str, units: Sequence[int], peer_units: Sequence[int], steps: int, rounds: int
) -> list[str]:
    """Return the cells of a layer's row."""
    size = model.input_shape[1:]
    plain = {"neuron": partial(interpret.synthesise, model, layer, units)}
    plain["whole"] = partial(interpret.synthesise, model, [Objective.neuron(layer, unit) for unit in units], size=size)
    plain["unit"] = partial(interpret.synthesise, model, layer, units, "unit")
    shift = round(SHIFT * min(size))
    alike = Robustness(shift, scale=0.02, padding=shift, left=1.0)
    plain["alike"] = partial(
        interpret.synthesise, model, layer, units, "unit", robustness=alike, decay=1.0, contrast=None
    )
    ways: dict[str, Callable[[], Any]] = {name: partial(run, steps=steps) for name, run in plain.items()}
    for run in plain.values():
        run(steps=1)  # what the first run of a network costs
    peer = peer_of(model, layer, peer_units, steps)
    if peer is not None:
        ways["peer"] = peer
    best, made = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.process_time()
            made[name] = run()
            many = len(peer_units if name == "peer" else units)
            best[name] = min(best[name], (time.process_time() - began) / many)
    reached = [
        activation(model, layer, peer_units, [torch.as_tensor(one) for one in own.inputs[: len(peer_units)]])
        for own in (made["unit"], made["alike"])
    ]
    cells = [f"`{layer}`", str(made["neuron"].pictures.shape[1])]
    cells += [f"{best[name]:.2f}" if name in best else "–" for name in ("neuron", "whole", "unit", "peer")]
    cells.append(f"{best['whole'] / best['neuron']:.1f}×")
    cells += [f"{best['peer'] / 2 / best[name]:.1f}×" if peer else "–" for name in ("unit", "neuron")]
    cells += [f"{one:.3g}" for one in reached]
    if peer is None:
        return [*cells, "–"]
    by_peer = [to_inputs(model)(one[None])[0] for one in made["peer"]]
    return [*cells, f"{activation(model, layer, peer_units, by_peer):.3g}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="some of those in NETWORKS")
    parser.add_argument("--layers", help="globs of layers, for one network")
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--peer-units", type=int, default=2, help="the first ones, whose activations are compared")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2, help="the fastest round counts")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*random.*")
    threads = count(torch.get_num_threads(), "thread")
    text = (
        "# Seconds an optimised image takes\n\n"
        f"CPU seconds of one unit, {options.steps} steps, by {threads}, torch {torch.__version__}; "
        f"{options.units} units a row in one call, of Horama {options.peer_units}, the least of {options.rounds} "
        "rounds, in which the ways alternate. "
        "The default of `interpret.synthesise` is 160 steps.\n\n"
        "Horama 0.3.0 optimises the mean of the map in whole images, with two crops a step, the fewest with which it "
        "runs; the gains beside it compare half its time with ours, in whole images and of what a neuron sees. No way "
        "runs what follows the layer. Activations are means of the map at equal steps, on the finished image, which is "
        "not moved: by default, where images are turned and scaled, fine waves come later and contrast is limited, and "
        "set as Horama is: shifts alone, finer waves, and any contrast. Written by `benchmarks/synthesis.py`.\n"
    )
    for spec in options.networks:
        model = interpret.load(spec, "random" if spec.startswith("torchvision:") else None)
        model.module.eval().requires_grad_(False)
        weights = ", random weights" if spec.startswith("torchvision:") else ""
        text += (
            f"\n## {model.name}{weights}\n\n"
            "| layer | px seen | neuron, s | in a whole image, s | unit, whole image, s | Horama, s | crop beside "
            "whole | unit beside Horama | neuron beside Horama | activation | set alike | Horama’s |\n|"
            + "---|" * 12
            + "\n"
        )
        for layer in select_layers(model.module, options.layers or NETWORKS[spec]):
            torch.manual_seed(0)
            row = (
                "| "
                + " | ".join(
                    measure(
                        model, layer, range(options.units), range(options.peer_units), options.steps, options.rounds
                    )
                )
                + " |"
            )
            print(row, flush=True)
            text += row + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
