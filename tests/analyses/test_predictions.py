"""Predictions against a softmax spelled out in float64."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import interpret
from interpret.analyses.predictions.compute import different_classes, predict
from interpret.analyses.predictions.result import Predictions
from interpret.cli import main
from interpret.network.answers import Reading
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


def build(seed: int = 0, classes: int = 6) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, classes))
    return network.double().eval()


def pictures(count: int = 7, seed: int = 0) -> Tensor:
    return 5 * torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_softmax_of_the_outputs() -> None:
    network, images = build(), pictures()
    found = predict(network, images, [6, 1, 3], k=4, labels=[2, -1, 5], batch_size=2)
    for row, item in enumerate((6, 1, 3)):
        scores = network(images[item : item + 1])[0].tolist()
        total = sum(math.exp(score) for score in scores)
        expected = sorted(((-math.exp(score) / total, label) for label, score in enumerate(scores)))[:4]
        assert found.top[row].tolist() == [label for _, label in expected]
        assert found.probabilities[row] == pytest.approx([-negative for negative, _ in expected], rel=1e-12)
        label = found.truth[row]
        if label >= 0:
            assert found.true_probabilities[row] == pytest.approx(math.exp(scores[label]) / total, rel=1e-12)
    assert np.isnan(found.true_probabilities[1]) and not found.hits[1]
    assert found.hits.tolist() == [label in top for label, top in zip([2, -1, 5], found.top.tolist(), strict=True)]
    assert found.names == ["image 6", "image 1", "image 3"]


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(-30, 30), min_size=5, max_size=5), min_size=1, max_size=4),
    shift=st.floats(-100, 100),
)
def test_probabilities_are_such_and_do_not_depend_on_a_shift(scores: list[list[float]], shift: float) -> None:
    raw = torch.tensor(scores, dtype=torch.float64)
    reading = Reading("softmax", raw.shape[1])
    found = reading.probabilities(raw)
    assert bool((found >= 0).all()) and torch.allclose(found.sum(1), torch.ones(len(found), dtype=torch.float64))
    torch.testing.assert_close(reading.probabilities(raw + shift), found, rtol=1e-9, atol=1e-12)


def test_a_network_that_ends_in_a_softmax_gets_no_second_one() -> None:
    network, images = build(), pictures()
    plain, softened = predict(network, images), predict(nn.Sequential(network, nn.Softmax(1)), images)
    assert np.array_equal(plain.top, softened.top)
    np.testing.assert_allclose(plain.probabilities, softened.probabilities, rtol=1e-12)


def test_labels_count_where_they_are_of_the_networks_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "dog")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(tmp_path / name / f"{number}.png")
    preprocess = Preprocess((8, 8), channels="L")
    knows = Model(build(classes=3).float(), "knows", preprocess, classes=("bird", "dog", "cat"))
    assert predict(knows, tmp_path, k=1).truth.tolist() == [2, 1, 1]
    other = Model(build(classes=3).float(), "other", preprocess, classes=("a", "b", "c"))
    assert predict(other, tmp_path, k=1).truth.tolist() == [-1, -1, -1]
    with_given = predict(other, tmp_path, k=1, labels=[0, 1, 2])
    assert with_given.truth.tolist() == [0, 1, 2] and with_given.class_name(1) == "b"


def test_the_shipped_network_knows_its_digits() -> None:
    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)
    found = predict(model, digits, range(0, 5000, 50))
    assert found.pictures.shape == (64, 28, 28, 3) and len(found.names) == 100
    assert np.array_equal(found.pictures[63][..., 0], np.asarray(digits.source_picture(63 * 50).convert("L")))
    assert found.truth.tolist() == [item // 500 for item in range(0, 5000, 50)]
    assert (found.top[:, 0] == found.truth).mean() > 0.98 and found.hits.all()
    assert f"it comes first in {(found.top[:, 0] == found.truth).sum()} and is among them in 100" in found.reading


def test_it_is_kept_and_drawn_with_the_right_class_marked(tmp_path: Path) -> None:
    found = predict(build(), pictures(), k=3, labels=[0, 1, 2, 3, 4, -1, 5])
    found.save(tmp_path / "p")
    kept = Predictions.load(tmp_path / "p")
    assert np.array_equal(kept.top, found.top) and kept.classes is None
    figure = plot(kept)
    assert len(figure.axes) == 7 + 1
    right, other = (handle.get_facecolor() for handle in figure.axes[7].get_legend().legend_handles)
    for image, axes in enumerate(figure.axes[:7]):
        left, far, *_ = axes.images[0].get_extent()
        assert [bar.get_x() for bar in axes.patches] == pytest.approx([left] * 3)
        assert [bar.get_width() / (far - left) for bar in axes.patches] == pytest.approx(found.probabilities[image])
        title = [str(found.truth[image])] * bool(found.truth[image] >= 0)
        names = [*title, *map(str, found.top[image]), "0", "0.5", "1"]
        assert [text.get_text() for text in axes.texts] == names
        marked = [bar.get_facecolor() == right for bar in axes.patches]
        assert marked == (found.top[image] == found.truth[image]).tolist()
        assert all(bar.get_facecolor() in (right, other) for bar in axes.patches) and right != other


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k": 0}, "k must be from 1 to 6, the network's number of classes, not 0"),
        ({"k": 7}, "k must be from 1 to 6, the network's number of classes, not 7"),
        ({"items": [0, 7]}, "items must be from 0 to 6 in data 'tensor', not 7"),
        ({"items": []}, "items is empty"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"labels": [1, 2]}, "labels must be one for each of the 7 items, not 2"),
        ({"labels": [0, 1, 2, 3, 4, 5, 6]}, "labels must be from 0 to 5, or -1 for none, not 6"),
        ({"model": nn.Conv2d(1, 3, 3).double()}, r"for each class, \[B, K\], not shape \[2, 3, 6, 6\]"),
        ({"data": torch.full((2, 1, 8, 8), torch.nan, dtype=torch.float64)}, "outputs are NaN or infinite"),
        ({"data": pictures().float()}, "images are torch.float32"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given = {"model": build(), "data": pictures(), "k": 3} | arguments
    with pytest.raises(InterpretError, match=sentence) as caught:
        predict(**given)
    assert "\n" not in str(caught.value)


def test_items_of_different_classes_by_label_and_by_prediction() -> None:
    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)  # five hundred of each, one after the other
    assert different_classes(model, digits, 10) == sorted(different_classes(model, digits, 10))
    assert sorted(digits.labels[different_classes(model, digits, 10)].tolist()) == list(range(10))
    # nothing but twos and a few sevens, and no labels
    twos = [digits[item][0] for item in (*range(1000, 1040), *range(3500, 3504))]
    images = torch.stack(twos)
    chosen = different_classes(model, images, 2)
    assert set(predict(model, images, chosen).top[:, 0]) == {2, 7}
    # 32 of them are looked at: of the quarter at each end, those whose probability is nearest to 0.8
    answers = predict(model, images, np.linspace(0, 43, 32).round().astype(int).tolist())
    off = np.abs(answers.probabilities[:, 0] - 0.8)
    off[-8:][answers.top[-8:, 0] == 2] = 1  # the other one is a two
    looked_at = np.linspace(0, 43, 32).round().astype(int)
    assert chosen == [looked_at[:8][off[:8].argmin()], looked_at[-8:][off[-8:].argmin()]]
    # of one class only, others fill up
    assert len(set(different_classes(model, images[:5], 4))) == 4 and different_classes(model, images[:3], 9) == [
        0,
        1,
        2,
    ]


def test_the_command_occludes_images_of_different_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder whose first and last files are of one class."""
    digits = interpret.load_dataset("digits")
    (tmp_path / "pictures").mkdir()
    for place, item in enumerate([1500, 1501, 10, 2600, 1502, 1503]):
        Image.fromarray(digits.images[item]).save(tmp_path / "pictures" / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    command = ["occlude", "lenet", "pictures", "--size", "7", "--stride", "7", "--images", "3", "--no-others"]
    monkeypatch.setattr(sys, "argv", ["interpret", *command, "--study", "kept"])
    main()
    assert capsys.readouterr().out == "Open occlusion.png\n"
    study = interpret.Study.open(tmp_path / "kept")
    kept: Any = study.result(*study.results[0])
    assert sorted(kept.clean_predictions.tolist()) == [0, 3, 5]
