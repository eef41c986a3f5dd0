"""A sample of timm's families: everything is mined, and projections are those by rules patched by hand."""

from __future__ import annotations

from runpy import run_path

import pytest

from helpers.scripts import ROOT

FAMILIES = run_path(str(ROOT / "benchmarks" / "families.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edgenext_xx_small", "starnet_s050", "lcnetv2_small"])
def test_families_are_mined_and_projected_as_by_hand(name: str) -> None:
    pytest.importorskip("timm")
    network = FAMILIES["network_of"](name)
    found = FAMILIES["examine"](name, network, FAMILIES["input_shape"](network))
    assert found["convolution_first"] and found["mined"] == found["layers"] and found["unplaced"] == []
    for rule in FAMILIES["RULES"]:
        assert found[rule]["error"] < 1e-12 and not found[rule]["silent"] and found[rule]["uncovered"] == []
