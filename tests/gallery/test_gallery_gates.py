"""Units behind a gate, from mining to the page: shown where their signal comes from, not on the whole image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from helpers.pages import completed
from interpret.gallery import write_gallery
from interpret.study.study import Study
from interpret.support.errors import InterpretError

SIDE = 24


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), SqueezeExcitation(4, 2), nn.Conv2d(4, 5, 3)).eval()


def images() -> Tensor:
    return torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(tmp_path_factory.mktemp("gates") / "one.study", network(), images())
    made.mine(["0", "3"], k=4)
    made.project()
    made.project(rule="gradient")
    return made


def test_boxes_tiles_and_sprites_are_of_the_local_field(study: Study) -> None:
    assert study.layer("3")["receptive_field"] is None
    assert study.layer("3")["local_field"] == {"size": [5, 5], "stride": [1, 1], "start": [0, 0]}
    assert study.tile("3") == 5
    mined = study.mined("3")
    corners = np.round(mined.boxes * SIDE).astype(int)
    assert (corners[..., :2] == mined.positions).all() and (corners[..., 2:] - corners[..., :2] == 5).all()


def test_pages_say_that_a_gate_looks_further_and_mark_the_place(study: Study, tmp_path: Path, browser: Any) -> None:
    for context in (True, False):
        out = write_gallery(study, tmp_path / str(context), context=context).parent
        behind, before = ((out / f"layers/{name}/0.html").read_text("utf-8") for name in "30")
        assert "The receptive field, with gates, is the whole image." in behind and "<dt>Local field<dd>" in behind
        assert "the gradient passes through it" in behind
        assert "with gates" not in before and "<dt>Receptive field<dd>" in before
        of_layer = (out / "layers/3/index.html").read_text("utf-8").replace("<wbr>", "")
        assert "The receptive field, with gates," in of_layer
        assert "from &#39;adaptive_avg_pool2d&#39; in 2.avgpool</small>" in of_layer
        assert "<dt>Gate, local field</dt>" in (out / "how-to-read.html").read_text("utf-8")
        tags = completed(browser, out, "layers/3/0.html").tags
        assert sum(attributes.get("class") == "frame" for _, attributes in tags) == 4
        assert any(attributes.get("class") == "outline" for _, attributes in tags) is not context


def test_a_study_of_before_is_read_and_not_mixed_with(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "old.study"
    shutil.copytree(study.path, path)
    info = json.loads((path / "study.json").read_text("utf-8"))
    del info["sha256"]
    for layer in info["layers"]:
        del layer["local_field"]
    (path / "study.json").write_text(json.dumps(info), encoding="utf-8")
    assert Study.open(path).tile("3") == SIDE
    page = write_gallery(Study.open(path), tmp_path / "old").parent / "layers/3/0.html"
    assert "with gates" not in page.read_text("utf-8")
    with pytest.raises(InterpretError, match=r"earlier version.* \(layer '3'\): .*choose another folder"):
        Study(path, network(), images())
    shutil.rmtree(path / "mined")
    assert Study(path, network(), images()).tile("3") == 5
