"""The scripts on invariance, at reduced sizes: what each claims, and the figure that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.scripts import load_script


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


@pytest.mark.slow
def test_figure5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    figure5 = load_script("papers/zeiler_fergus_figure5")
    kept = []
    original = figure5.probe
    monkeypatch.setattr(figure5, "probe", lambda every: kept.extend(original(every)) or kept)
    figure5.main(["--every", "12", "--out", str(tmp_path / "figure.png")])
    assert width(tmp_path / "figure.png") == 1440
    assert [curves.transform for curves in kept] == ["translation", "scale", "rotation"]
    for curves in kept:
        assert curves.names == list(figure5.PHOTOGRAPHS.values())
        assert curves.fill == "context" and (curves.filled_fraction == 0).all()  # the photographs reach far enough
        identity = curves.values == curves.identity
        assert (curves.top[:, identity] == curves.labels[:, None]).all()  # the labels given by eye are the network's
        found = figure5.claims(curves)
        assert found["probability at identity"] > 0.9
        # the paper's first claim, with much to spare
        assert found["last layer, small"] < found["first layer, small"] / 4
        assert f"{found['first layer, small']:.3f}" in capsys.readouterr().out or curves is not kept[0]
    translation, scale, rotation = (figure5.claims(curves) for curves in kept)
    assert translation["mean probability"] > scale["mean probability"]
    assert rotation["lowest probability"] < 0.8 * translation["probability at identity"]


@pytest.mark.slow
def test_pooling_and_invariance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pooling = load_script("papers/pooling_and_invariance")
    kept = []
    original = pooling.measure
    monkeypatch.setattr(pooling, "measure", lambda *sizes: kept.append(original(*sizes)) or kept[0])
    pooling.main(["--images", "2000", "--epochs", "4", "--probed", "60", "--out", str(tmp_path / "figure.png")])
    assert width(tmp_path / "figure.png") == 1440
    (measured,) = kept
    assert all(accuracy > 0.7 for accuracy in measured.accuracy.values())
    not_invariant, local, worse = pooling.claims(measured)
    assert all(not_invariant.holds.values()) and len(not_invariant.holds) == 12
    assert all(local.holds.values()) and list(local.holds) == ["max-pooling", "average pooling"]
    for transform, probes in measured.probes.items():
        lowest = min(probes[name].probabilities.mean() for name in pooling.CONVOLUTIONAL)
        assert worse.holds[transform] == (probes["perceptron"].probabilities.mean() < lowest)
        # not as sure of itself, in so short a training, as the best of the others
        highest = max(probes[name].probabilities.mean() for name in pooling.CONVOLUTIONAL)
        assert probes["perceptron"].probabilities.mean() < highest
    written = capsys.readouterr().out
    assert written.count("confirmed") == 3
    assert ("not confirmed" in written) == (not all(worse.holds.values()))


@pytest.mark.slow
def test_antialiased_pooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    antialiased = load_script("papers/antialiased_pooling")
    kept = []
    original = antialiased.measure
    monkeypatch.setattr(antialiased, "measure", lambda *sizes: kept.append(original(*sizes)) or kept[0])
    antialiased.main(["--images", "2000", "--epochs", "4", "--probed", "60", "--out", str(tmp_path / "figure.png")])
    assert width(tmp_path / "figure.png") == 1440
    plain, blurred = (antialiased.statistics(curves) for curves in kept[0].probes.values())
    for stride in (2, 4):
        between = f"error between multiples of {stride} pixels"
        assert plain[between] > 1.5 * plain[f"error at multiples of {stride} pixels"]  # the teeth of the saw
        assert blurred[between] < 0.8 * plain[between]
    assert blurred["consistency up to 3 pixels"] > plain["consistency up to 3 pixels"]
    assert f"{blurred['consistency up to 3 pixels']:.3f}" in capsys.readouterr().out


def test_blur_pool_is_the_binomial_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    layer = load_script("papers/antialiased_pooling").BlurPool(2)
    maps = torch.arange(2 * 7 * 7.0).reshape(1, 2, 7, 7).square()
    padded = np.pad(maps[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for c in range(2):
        for y in range(4):
            for x in range(4):
                expected = (weights * padded[c, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum()
                assert layer(maps)[0, c, y, x].item() == pytest.approx(expected, rel=1e-6)
