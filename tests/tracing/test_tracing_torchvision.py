"""Parameters and multiply-accumulates of every classification CNN in torchvision, against its own metadata."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.regnet import BlockParams

from interpret.tracing import tracing

# vit_* and swin_* are transformers: past the patch embedding they have no convolution. maxvit_t is a hybrid and stays.
NETWORKS = [name for name in models.list_models(module=models) if not name.startswith(("vit_", "swin_"))]


@pytest.fixture(autouse=True)
def counts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second run, which would double the time and says nothing of counts."""
    monkeypatch.setattr(tracing, "_find_croppable", lambda module, run: set())


def build(name: str, monkeypatch: pytest.MonkeyPatch, classes: int) -> nn.Module:
    """Return torchvision's network on the meta device: without memory for its weights."""
    settings: dict[str, object] = {"num_classes": classes}
    if name == "googlenet":
        # the metadata leave out its two auxiliary classifiers, which `weights=` removes too
        settings |= {"init_weights": False, "aux_logits": False}
    if name == "inception_v3":
        # the metadata count its auxiliary classifier as parameters, though it does not run in eval mode
        settings |= {"init_weights": False, "aux_logits": True}
    if name.startswith("regnet_"):
        # its widths are computed with tensors
        widths = BlockParams.from_init_params

        def computed(*args: object, **kwargs: object) -> BlockParams:
            with torch.device("cpu"):
                return widths(*args, **kwargs)

        monkeypatch.setattr(BlockParams, "from_init_params", computed)
    with torch.device("meta"):
        return models.get_model(name, weights=None, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_equal_torchvisions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {
        (weights.transforms().crop_size[0], weights.meta["num_params"], weights.meta["_ops"])
        for weights in models.get_model_weights(name)
    }
    network = build(name, monkeypatch, classes=1000)
    measured = set()
    for size, *_ in published:
        layers = tracing.trace(network, (3, size, size))
        measured.add((size, layers.params, round(layers.macs / 1e9, 3)))
    assert measured == published


def test_all_families_are_there() -> None:
    assert len(NETWORKS) >= 60
