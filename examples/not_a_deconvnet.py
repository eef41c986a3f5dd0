"""captum's deconvnet of GoogLeNet is the plain gradient.

    python examples/not_a_deconvnet.py

captum overrides the backward pass of `nn.ReLU` modules. GoogLeNet calls `F.relu`, so captum overrides nothing and does
not warn. `interpret.BackwardRule` overrides the function.
"""

from __future__ import annotations

import warnings

import torch
from captum.attr import Deconvolution

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.network.modes import frozen


def main() -> None:
    model = interpret.load("torchvision:googlenet", weights="random")
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).requires_grad_()

    signals = {}
    for rule in ("deconvnet", "gradient"):
        with frozen(model.module), interpret.BackwardRule(model.module, rule):
            score = model(image)[0, 0]
        (signals[rule],) = torch.autograd.grad(score, image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum warns that it sets hooks
        from_captum = Deconvolution(model.module).attribute(image, target=0)

    for rule, signal in signals.items():
        difference = (from_captum - signal).abs().max() / signal.abs().max()
        print(f"captum's deconvnet against the {rule:9}: largest difference {difference:.0%} of the largest value")


if __name__ == "__main__":
    with in_one_sentence():
        main()
