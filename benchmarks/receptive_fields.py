"""Compare receptive fields of convolutions with torchlens's, and write docs/receptive-fields.md.

    pip install torchlens==2.36.0
    python benchmarks/receptive_fields.py                    # 30 networks, some ten minutes
    python benchmarks/receptive_fields.py resnet18 vgg11     # some of them
    python benchmarks/receptive_fields.py resnet18 --update  # and replace their rows of the table

Both trace the network from torchvision with random weights, on one image. torchlens is the only other tool that says
where its windows are bounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

import interpret
from interpret.support.files import any_file, replacing

NETWORKS = """alexnet vgg11 vgg16_bn squeezenet1_0 squeezenet1_1 resnet18 resnet34 resnet50 resnext50_32x4d
    wide_resnet50_2 densenet121 googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5
    mnasnet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0 regnet_x_400mf regnet_y_400mf efficientnet_b0 efficientnet_v2_s
    convnext_tiny convnext_small swin_t maxvit_t fcn_resnet50 lraspp_mobilenet_v3_large""".split()
SIDES = {"inception_v3": 299, "maxvit_t": 224, "googlenet": 128}
INTRODUCTION = """# Receptive fields beside torchlens

Written by `benchmarks/receptive_fields.py` with torchlens {version}: convolutions of 30 networks of torchvision, on
one image.

- *Windows*: convolutions with a receptive field here; *bounds*: of these, those that are marked as bounds; *local*:
  those with a local field, gates held constant, which torchlens does not have. Bounds that hold the whole image count
  as none.
- *There*: windows that torchlens calls exact; *bounds there*: those that it does not.
- *Both exact*: convolutions for which both give an exact window; *equal*: of these, those of the same size, stride and
  start. *Only here*, *only there*: exact windows that the other does not give.

| network | convs | windows | bounds | local | there | bounds there | both exact | equal | only here | only there |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


RESIZING: dict[str, dict[str, Any]] = {
    "twice, bilinear": {"scale_factor": 2, "mode": "bilinear"},
    "1.5 times, nearest": {"scale_factor": 1.5},
    "1.5 times, bilinear": {"scale_factor": 1.5, "mode": "bilinear"},
    "0.75 times, bilinear": {"scale_factor": 0.75, "mode": "bilinear"},
    "2.5 times, bicubic": {"scale_factor": 2.5, "mode": "bicubic"},
}
RESIZED = """
## Bounds behind resizing

Two convolutions of stride 2, `interpolate`, and a convolution, whose windows are compared; on images of 64 and of 192
pixels. *Seen* is the largest extent of a neuron's gradient in the network with positive weights: no bound may be less.

| resized | side | seen | here | stride | there | stride there |
|---|---:|---:|---:|---:|---:|---:|
"""


class Resized(nn.Module):
    """A map that is resized between convolutions."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.last, self.settings = nn.Conv2d(4, 4, 3, padding=1), settings

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.interpolate(self.second(self.first(x)), **self.settings))


@dataclass(frozen=True)
class Window:
    """A receptive field in the form in which both are compared."""

    size: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[int, ...]
    exact: bool


def axes_there(network: nn.Module, image: Tensor) -> Iterator[tuple[str, list[Any], str]]:
    """Yield convolutions with what torchlens says of both axes, and whether that is exact."""
    import torchlens
    from torchlens.receptive_field import _engine

    traced = torchlens.trace(network, image)
    found = set()
    for operation in traced.ops:
        module = str(getattr(operation, "module", "") or "")
        name, _, run = module.rpartition(":")
        if "conv" not in str(operation.func_name) or run != "1" or name in found:
            continue
        (field, *others) = _engine.lookup(traced, operation).values()
        axes = [axis for axis in field.axes or () if axis.kind == "windowed"]
        if not others and len(axes) == 2:
            found.add(name)
            yield name, axes, str(field.status.value)


def windows_there(network: nn.Module, image: torch.Tensor) -> dict[str, Window]:
    """Return torchlens's windows, by module."""
    found: dict[str, Window] = {}
    for name, axes, status in axes_there(network, image):
        sizes, jumps = tuple(axis.size for axis in axes), tuple(axis.jump for axis in axes)
        starts = tuple(axis.center0 - (axis.size - 1) / 2 for axis in axes)
        if any(value is None or value != int(value) for value in (*sizes, *jumps, *starts)):
            continue
        exact = status == "exact" and all(axis.exact for axis in axes)
        found[name] = Window(*(tuple(map(int, one)) for one in (sizes, jumps, starts)), exact)
    return found


def row(name: str) -> str:
    """Compare one network."""
    settings: dict[str, Any] = {"weights": None}
    if name.startswith(("fcn", "lraspp")):
        settings["weights_backbone"] = None
    torch.manual_seed(0)
    network = get_model(name, **settings).eval()
    side = SIDES.get(name, 96)
    there = windows_there(network, torch.zeros(1, 3, side, side))
    layers = [layer for layer in interpret.trace(network, (3, side, side)).values() if layer.kind == "Conv2d"]
    here = {
        layer.name: Window(field.size, field.stride, field.start, field.exact)
        for layer in layers
        if (field := layer.receptive_field) is not None
    }
    names = {layer.name for layer in layers}
    there = {name: window for name, window in there.items() if name in names}
    exact_here = {name for name, window in here.items() if window.exact}
    exact_there = {name for name, window in there.items() if window.exact}
    both = exact_here & exact_there
    differing = sorted(name for name in both if here[name] != there[name])
    for one in differing:
        print(f"{name} {one}: {here[one]} here, {there[one]} there")
    numbers = [
        len(names), len(here), len(here) - len(exact_here), sum(layer.local_field is not None for layer in layers),
        len(exact_there), len(there) - len(exact_there), len(both), len(both) - len(differing),
        len(exact_here - exact_there), len(exact_there - exact_here),
    ]  # fmt: skip
    return f"| {' | '.join([name, *map(str, numbers)])} |"


def resized_rows() -> list[str]:
    """Compare the bounds of a convolution behind resizing."""
    rows = []
    for name, settings in RESIZING.items():
        for side in (64, 192):
            network = Resized(settings).double().eval()
            for weight in network.parameters():
                nn.init.uniform_(weight, 0.5, 1.5)
            field = interpret.trace(network, (3, side, side))["last"].receptive_field
            assert field is not None
            image = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
            output, extents = network(image), []
            for place in range(output.shape[2]):
                (gradient,) = torch.autograd.grad(output[0, :, place, 3].sum(), image, retain_graph=True)
                lines = gradient.abs().sum((0, 1, 3)).nonzero()
                extents.append(int(lines.max() - lines.min()) + 1)
            there = {one: axes[0] for one, axes, _ in axes_there(network.float(), image.detach().float())}.get("last")
            said = ["none", ""] if there is None else [str(there.size), f"{float(there.jump):.3g}"]
            cells = [name, str(side), str(max(extents)), str(field.size[0]), f"{field.stride[0]:.3g}", *said]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="of torchvision; none: 30 of them")
    parser.add_argument("--update", action="store_true", help="replace the rows of the networks that were named")
    parser.add_argument("--out", type=Path, default=Path("docs/receptive-fields.md"))
    options = parser.parse_args()
    rows = []
    for name in options.networks or NETWORKS:
        rows.append(row(name))
        print(rows[-1], flush=True)
    if options.update:
        fresh = dict(zip(options.networks, rows, strict=True))
        kept = options.out.read_text(encoding="utf-8").splitlines()
        kept = kept[: kept.index(RESIZED.split("\n")[1])] if RESIZED.split("\n")[1] in kept else [*kept, ""]
        kept = [*kept, *RESIZED.strip().split("\n"), *resized_rows()]
        lines = [fresh.get(line.partition("|")[2].partition("|")[0].strip(), line) for line in kept]
        with replacing(options.out, any_file) as new:
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif not options.networks:
        from importlib.metadata import version

        with replacing(options.out, any_file) as new:
            text = "\n".join([INTRODUCTION.format(version=version("torchlens")) + rows[0], *rows[1:]])
            text += "\n" + RESIZED + "\n".join(resized_rows()) + "\n"
            new.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
