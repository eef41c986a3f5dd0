"""Every analysis of networks with every shape of head, against the plain network; occlusion's own are in its tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.heads import HEADS, Headed, pictures
from interpret import InterpretError, attribute, mine, predict, probe, project

WITHOUT_GRADIENT = {
    "through NumPy": "does not depend on the image",
    "in place": "overwrites a tensor that the gradient needs",
}


@pytest.mark.parametrize("name", HEADS)
def test_every_analysis_of_every_head(name: str) -> None:
    module = Headed(*HEADS[name]).double().eval()
    images = pictures(3, 19, 23)
    leaf = images.clone().requires_grad_()
    answers, maps = module(leaf), module.body[:3](images).detach()
    right = answers.detach().softmax(1).numpy()

    predicted = predict(module, images, k=5, labels=[0, 1, 2], batch_size=2)
    np.testing.assert_allclose(predicted.true_probabilities, right[range(3), range(3)], rtol=1e-9)
    np.testing.assert_array_equal(predicted.top, np.argsort(-right, 1, kind="stable"))

    curves = probe(module, images, "translation", [0, 2], labels=[3, 4, 0], fill="black")
    moved = torch.zeros_like(images)
    moved[:, :, 2:] = images[:, :, :-2]
    both = [right, module(moved).detach().softmax(1).numpy()]
    for column, expected in enumerate(both):
        np.testing.assert_allclose(curves.probabilities[:, column], expected[range(3), [3, 4, 0]], rtol=1e-9)

    mined = mine(module, images, "body.2", k=2)["body.2"]
    np.testing.assert_allclose(mined.values, maps.amax((2, 3)).T.topk(2, 1).values.float().numpy(), rtol=1e-6)

    found = project(module, images, "body.2", 4, rule="gradient")
    strongest = module.body[:3](leaf)[:, 4].flatten(1).amax(1)
    (signal,) = torch.autograd.grad((strongest**2 / 2).sum(), leaf)
    torch.testing.assert_close(found.full((19, 23)), signal, rtol=1e-9, atol=1e-12)

    if name in WITHOUT_GRADIENT:
        for method in ("gradient", "integrated_gradients"):
            with pytest.raises(InterpretError, match=WITHOUT_GRADIENT[name]):
                attribute(module, images, method, 1)
    else:
        (gradient,) = torch.autograd.grad(module(leaf)[:, 1].sum(), leaf)
        torch.testing.assert_close(attribute(module, images, "gradient", 1).maps, gradient, rtol=1e-9, atol=1e-12)
