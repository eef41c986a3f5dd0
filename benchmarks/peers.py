"""What other tools do with a deconvnet, and what they have that this one does not; writes docs/peers.md.

    pip install captum zennit torchlens torch-lucent zennit-crp --no-deps
    python benchmarks/peers.py [--markdown docs/peers.md]

First, a network of two convolutions with one rectifier between them, in several spellings: each tool's deconvnet beside
one that is written out with transposed convolutions, in float64. Then the parts of each tool that the comparison in the
documentation names, looked up in the installed distribution.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import torch
import torch.nn.functional as F
from captum.attr import Deconvolution
from torch import Tensor, nn

import interpret

SPELLINGS: dict[str, Callable[[], tuple[nn.Module | None, Callable[[Tensor], Tensor]]]] = {
    "nn.ReLU": lambda: (nn.ReLU(), F.relu),
    "F.relu": lambda: (None, F.relu),
    "nn.ReLU6": lambda: (nn.ReLU6(), F.relu6),
    "nn.SiLU": lambda: (nn.SiLU(), F.silu),
    "nn.GELU": lambda: (nn.GELU(), F.gelu),
}

ELSEWHERE = {
    "captum": {
        "layer-wise relevance propagation": "captum/attr/_core/lrp.py",
        "DeepLIFT": "captum/attr/_core/deep_lift.py",
        "Shapley values of any groups of inputs": "captum/attr/_core/shapley_value.py",
        "attributions of language models": "captum/attr/_core/llm_attr.py",
        "concepts (TCAV)": "captum/concept/_core/tcav.py",
        "influence of training examples": "captum/influence/_core/tracincp.py",
    },
    "zennit": {
        "layer-wise relevance propagation with rules by layer": "zennit/composites.py",
        "merging of batch norms before relevance": "zennit/canonizers.py",
    },
    "zennit-crp": {"relevance of concepts, and the images most relevant for them": "crp/maximization.py"},
    "torch-lucent": {
        "images made by a network of coordinates (CPPN)": "lucent/optvis/param/cppn.py",
        "images made by a GAN": "lucent/optvis/param/gan.py",
        "InceptionV1 as Lucid trained it": "lucent/modelzoo/inceptionv1/InceptionV1.py",
    },
    "torchlens": {
        "every operation of a forward pass, with its tensor": "torchlens/data_classes/op.py",
        "interventions: replace a tensor and run on": "torchlens/intervention/__init__.py",
        "transformers and their parts": "torchlens/mechinterp/__init__.py",
    },
}
"""Tool to what it has and this toolkit has not, or has otherwise, with the file in which it is."""


class Network(nn.Module):
    """Two convolutions with an activation between them, as a module or as a function."""

    def __init__(self, module: nn.Module | None, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3)
        self.act = module
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        inner = self.first(images)
        inner = self.function(inner) if self.act is None else self.act(inner)
        return self.second(inner).mean((2, 3))

    def literal(self, images: Tensor, channel: int) -> Tensor:
        """The deconvnet, written out: transpose, rectify, transpose."""
        height, width = (side - 4 for side in images.shape[2:])
        signal = torch.zeros(len(images), 4, height, width, dtype=images.dtype)
        signal[:, channel] = 1 / (height * width)
        signal = F.relu(F.conv_transpose2d(signal, self.second.weight))
        return F.conv_transpose2d(signal, self.first.weight)


def by_captum(network: Network, images: Tensor) -> Tensor:
    return Deconvolution(network).attribute(images.clone(), target=0)


def by_zennit(network: Network, images: Tensor) -> Tensor:
    from zennit.composites import DeconvNet

    inputs = images.clone().requires_grad_()
    with DeconvNet().context(network) as hooked:
        (signal,) = torch.autograd.grad(hooked(inputs)[:, 0].sum(), inputs)
    return signal


def by_interpret(network: Network, images: Tensor) -> Tensor:
    inputs = images.clone().requires_grad_()
    with interpret.BackwardRule(network, "deconvnet"):
        output = network(inputs)
    (signal,) = torch.autograd.grad(output[:, 0].sum(), inputs)
    return signal


def judge(found: Tensor, literal: Tensor, gradient: Tensor) -> str:
    """Say what a signal is."""
    scale = literal.abs().max()
    if (found - literal).abs().max() < 1e-12 * scale:
        return "the deconvnet"
    if (found - gradient).abs().max() < 1e-12 * scale:
        return "the plain gradient"
    return f"differs by {(found - literal).abs().max() / scale:.0%}"


def rows() -> list[list[str]]:
    """Return what each tool computes for each spelling."""
    found = []
    for name, make in SPELLINGS.items():
        torch.manual_seed(0)
        network = Network(*make()).double().eval()
        images = torch.rand(2, 2, 10, 10, dtype=torch.float64)
        literal = network.literal(images, 0).detach()
        inputs = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(inputs)[:, 0].sum(), inputs)
        tools = (by_captum, by_zennit, by_interpret)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum says that it sets hooks
            found.append([f"`{name}`", *(judge(tool(network, images).detach(), literal, gradient) for tool in tools)])
    return found


def elsewhere() -> list[list[str]]:
    """Return the parts of other tools, each looked up in its distribution."""
    found = []
    for tool, parts in ELSEWHERE.items():
        listed = {str(path) for path in files(tool) or ()}
        for what, path in parts.items():
            if path not in listed:
                raise SystemExit(f"{tool} {version(tool)} has no {path}: mend ELSEWHERE")
            found.append([tool, what, f"`{path}`"])
    return found


def table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    try:
        versions = ", ".join(f"{name} {version(name)}" for name in ELSEWHERE)
        text = "\n\n".join(
            [
                "# Other tools",
                f"Written by `benchmarks/peers.py`, with {versions}.",
                "## The deconvnet of one network, by the spelling of its rectifier",
                "Two convolutions with a rectifier between them, in float64, beside transposed convolutions and the "
                "rectification written out. They agree to 1e-12, or the cell says what is there instead.",
                table(["rectifier", "captum", "zennit", "interpret"], rows()),
                "## What they have",
                "Parts that this toolkit does not have, or has in another form; each was found in the distribution.",
                table(["tool", "what", "where"], elsewhere()),
            ]
        )
    except (PackageNotFoundError, ImportError) as error:
        raise SystemExit(f"{error}: install the packages that this script's first lines name") from None
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
