"""Names that look like formulas, hold control characters, or are too long for a file: the whole command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from helpers.commands import command
from interpret.study.study import Study
from interpret.support.files import layer_path

MODEL = """
import torch
from torch import nn
import interpret

NAMES = ["a" * 300, "conv $x^{ ", "x\\x01\\x1b[31m", "é" * 120, "s/l, n\\nl"]

def build():
    network = nn.Sequential()
    channels = 3
    for name in NAMES:
        network.add_module(name, nn.Conv2d(channels, 4, 3, padding=1))
        channels = 4
    network.add_module("end ", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    shown = interpret.Preprocess((16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    return interpret.load(network, preprocess=shown, classes=["$c^ ", "d" * 300, "e\\x07\\x00"])
"""
FOLDERS = ["$x^ ", "d" * 250, "é\x07"]


@pytest.mark.slow
def test_every_verb_takes_hostile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(MODEL, encoding="utf-8")
    random = np.random.default_rng(0)
    for folder in FOLDERS:
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in (" 0 ", "$" + "f" * 240):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(f"data/{folder}/{name}.png")
    command(monkeypatch, "gallery", "m.py:build", "data", "--out", "g", "-k", 2, "--synthesise", 0)
    some = "--images", 2, "--out"
    command(monkeypatch, "probe", "g.study", "--transform", "scale", "--values", "1,1.5", *some, "probe.svg")
    command(monkeypatch, "occlude", "g.study", "--size", 6, "--stride", 6, *some, "occlude.svg")
    command(monkeypatch, "neighbours", "g.study", "-k", 2, "--layer", "a" * 300, "--out", "neighbours.svg")
    command(monkeypatch, "attribute", "g.study", "--methods", "gradient,gradcam", *some, "methods.svg")
    command(monkeypatch, "sanity", "g.study", "--methods", "gradient", "--steps", 2, *some, "sanity.svg")
    command(monkeypatch, "plot", "g.study", "neighbours", "a" * 300, "--out", "again.svg")
    command(monkeypatch, "report", "g.study", "--out", "r.pdf")
    command(monkeypatch, "gallery", "g.study", "--out", "g")
    said = capfd.readouterr()
    assert "\x1b" not in said.out + said.err and "\x01" not in said.out + said.err  # no terminal obeys a layer's name
    drawings = [*Path().glob("*.svg"), *Path("g").rglob("*.svg")]
    assert len(drawings) >= 10
    for drawing in drawings:
        ElementTree.parse(drawing)
    layers = Study.open("g.study").mined_layers
    assert len(layers) == 6 and all(Path("g/layers", layer_path(name), "0.html").is_file() for name in layers)


@pytest.mark.slow
def test_summary_on_an_ascii_terminal() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    arguments = [sys.executable, "-m", "interpret", "summary", "lenet"]
    ended = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0 and "1 x 28 x 28" in ended.stdout and ended.stdout.isascii()
