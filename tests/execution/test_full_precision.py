"""Convolutions in float32 on a GPU: PyTorch's settings change while they run, and are as they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.backends import cudnn

from interpret.execution.execution import full_precision

GPU = torch.device("cuda")
NEW = hasattr(cudnn, "conv")  # torch 2.9 and later


def precision() -> Any:
    """Return what convolutions do, in whichever way it was set; the older way is part of torch 2.7 and 2.8 alone."""
    settings: Any = cudnn
    return settings.conv.fp32_precision if NEW else settings.allow_tf32


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    settings: Any = cudnn
    before = precision()
    yield
    if NEW:
        settings.conv.fp32_precision = before
    else:
        settings.allow_tf32 = before


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_off_while_it_runs(allowed: bool) -> None:
    with cudnn.flags(enabled=True, allow_tf32=allowed):
        before = precision()
        with pytest.raises(KeyError), full_precision(GPU):
            assert not cudnn.allow_tf32
            raise KeyError
        assert cudnn.allow_tf32 is allowed
        assert precision() == before


@pytest.mark.skipif(not NEW, reason="torch 2.9 brought this setting")
@pytest.mark.parametrize("chosen", ["tf32", "ieee"])
def test_the_newer_setting(chosen: str) -> None:
    settings: Any = cudnn
    settings.conv.fp32_precision = chosen
    with full_precision(GPU):
        assert precision() in ("ieee", "none")
    assert precision() == chosen


def test_other_devices_keep_their_settings() -> None:
    with full_precision(torch.device("cpu")):
        assert cudnn.allow_tf32
