"""A type of lower precision that the processor does not compute in is slower, and that is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from interpret import mine, project, synthesise
from interpret.analyses.projection.hit_projection import project_hits
from interpret.execution import execution

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))


def hits(dtype: torch.dtype | None) -> None:
    net = network()
    list(project_hits(net, IMAGES, mine(net, IMAGES, k=2), dtype=dtype))


WAYS: dict[str, Callable[[torch.dtype | None], Any]] = {
    "mine": lambda dtype: mine(network(), IMAGES, k=2, dtype=dtype),
    "project": lambda dtype: project(network(), IMAGES, "2", 1, dtype=dtype),
    "project_hits": hits,
    "synthesise": lambda dtype: synthesise(network(), "2", [0], size=(3, 16, 16), steps=2, dtype=dtype),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_type_that_the_processor_does_not_compute_in_is_named(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "computes_in", lambda _: False)
    with pytest.warns(UserWarning, match="this processor does not compute in bfloat16, which is slower on it than flo"):
        WAYS[way](torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WAYS[way](None)
        WAYS[way](torch.float32)
        monkeypatch.setattr(execution, "computes_in", lambda _: True)
        WAYS[way](torch.bfloat16)
