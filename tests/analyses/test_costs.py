"""Operations of all of torchvision's classifiers against its metadata, and figures whose labels can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation
from torch import nn
from torchvision import models

import interpret
from helpers.scripts import run_script
from interpret.analyses.costs.compute import without_memory
from interpret.analyses.costs.result import NetworkCosts
from interpret.figures.labels import label_points
from interpret.results import Result
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


@pytest.fixture(scope="module")
def published() -> NetworkCosts:
    """The costs of all classifiers as torchvision publishes them, for figures: counting them takes a minute."""
    names = models.list_models(module=models)
    metas = [models.get_model_weights(name).DEFAULT.meta for name in names]
    macs, params = np.array([meta["_ops"] for meta in metas]), np.array([meta["num_params"] for meta in metas])
    top1 = np.array([meta["_metrics"]["ImageNet-1K"]["acc@1"] for meta in metas])
    return NetworkCosts(names, top1, macs, macs, params, params, np.full(len(names), 224))


@pytest.mark.slow
def test_costs_of_every_classifier_are_the_published_ones_and_are_kept(tmp_path: Path) -> None:
    costs = interpret.compare_costs()
    assert costs.names == models.list_models(module=models) and len(costs.names) >= 80
    published = [models.get_model_weights(name).DEFAULT.meta for name in costs.names]
    assert [round(macs, 3) for macs in costs.macs] == [meta["_ops"] for meta in published]
    assert costs.disagreeing == [] and "For all of them" in costs.reading
    np.testing.assert_array_equal(costs.top1, [meta["_metrics"]["ImageNet-1K"]["acc@1"] for meta in published])

    counted = dict(zip(costs.names, costs.params.tolist(), strict=True))
    params = dict(zip(costs.names, costs.published_params.tolist(), strict=True))
    # published with the auxiliary classifier, which runs in training only
    assert params.pop("inception_v3") - counted.pop("inception_v3") == 3_326_696
    assert counted == params

    costs.save(tmp_path / "costs.safetensors")
    again = Result.load(tmp_path / "costs.safetensors")
    assert isinstance(again, NetworkCosts) and again.names == costs.names
    np.testing.assert_array_equal(again.macs, costs.macs)


def test_counts_that_differ_are_named() -> None:
    costs = NetworkCosts(
        ["a", "b", "c"], np.ones(3), np.array([1.0004, 2.001, 3.0]), np.array([1.0, 2.0, 3.001]), np.ones(3, int),
        np.ones(3, int), np.full(3, 224),
    )  # fmt: skip
    assert costs.disagreeing == ["b", "c"] and "For 1 of them" in costs.reading and "for b, c." in costs.reading


def test_without_memory_keeps_shapes_and_makes_no_values() -> None:
    network = without_memory(lambda: models.regnet_y_400mf(weights=None))
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
    real = models.regnet_y_400mf(weights=None)
    assert {n: v.shape for n, v in network.state_dict().items()} == {n: v.shape for n, v in real.state_dict().items()}
    assert nn.Linear(2, 2).weight.device.type == "cpu" and torch.empty(1).device.type == "cpu"


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(InterpretError, match="unknown torchvision model 'resnet1': did you mean"):
        interpret.compare_costs(["resnet1"])
    with pytest.raises(InterpretError, match="names is empty"):
        interpret.compare_costs([])


def boxes_of(figure: Figure, kind: type) -> list[tuple[float, float, float, float]]:
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        for child in axes.get_children():
            if isinstance(child, kind):
                # an annotation's own window extent includes its line
                box = super(Annotation, child).get_window_extent() if isinstance(child, Annotation) else None
                found.append(tuple((box or child.get_window_extent()).extents))
    return found


def overlapping(boxes: list[tuple[float, float, float, float]]) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, (l1, b1, r1, t1) in enumerate(boxes)
        for j, (l2, b2, r2, t2) in enumerate(boxes)
        if i < j and min(r1, r2) > max(l1, l2) and min(t1, t2) > max(b1, b2)
    ]


def test_no_label_of_the_chart_covers_another_or_a_legend_or_leaves_it(published: NetworkCosts) -> None:
    figure = plot(published)
    figure.draw_without_rendering()
    labels, legends = boxes_of(figure, Annotation), boxes_of(figure, Legend)
    assert len(labels) == len(published.names) and len(legends) == 2  # of sizes, and below of families
    assert overlapping(labels + legends) == []
    inside = figure.axes[0].get_window_extent()
    for left, bottom, right, top in labels:
        assert inside.x0 <= left < right <= inside.x1 and inside.y0 <= bottom < top <= inside.y1


def test_bubbles_lie_at_operations_and_accuracy_and_have_the_parameters_for_area(published: NetworkCosts) -> None:
    axes = plot(published).axes[0]
    bubbles = next(child for child in axes.get_children() if isinstance(child, PathCollection))
    np.testing.assert_allclose(bubbles.get_offsets(), np.stack([published.macs, published.top1], 1))
    np.testing.assert_allclose(bubbles.get_sizes() / bubbles.get_sizes()[0], published.params / published.params[0])
    assert axes.get_xscale() == "log"


def test_accuracies_are_sorted_and_named(published: NetworkCosts) -> None:
    axes = plot(published, panels="accuracies").axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    dots = next(child for child in axes.get_children() if isinstance(child, PathCollection)).get_offsets()
    drawn = dict(zip(names, np.asarray(dots)[:, 0].tolist(), strict=True))
    assert drawn == dict(zip(published.names, published.top1.tolist(), strict=True))
    assert (np.diff(np.asarray(dots)[:, 0]) >= 0).all()


def test_labels_of_a_crowd_do_not_overlap() -> None:
    generator = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in generator.normal(0, 1, (60, 2))]
    axes: Axes = Figure(figsize=(6, 6)).subplots()
    axes.plot(*zip(*points, strict=True), "o", ms=2)
    labels = label_points(axes, points, [f"point {number}" for number in range(60)])
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    assert overlapping(boxes_of(figure, Annotation)) == []
    assert [label.get_text() for label in labels] == [f"point {number}" for number in range(60)]
    # each dot is free: no text lies on it
    texts = boxes_of(figure, Annotation)
    for x, y in axes.transData.transform(points):
        assert not any(left < x < right and bottom < y < top for left, bottom, right, top in texts)


def test_the_example_draws_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ("alexnet", "vgg16", "resnet18")
    told = run_script(monkeypatch, capsys, "papers/canziani_figure1_2", *networks, "--out", tmp_path)
    assert (tmp_path / "figure1.png").stat().st_size > 1e4 and (tmp_path / "figure2.png").stat().st_size > 1e4
    assert "For all of them the counts equal torchvision's" in "\n".join(told)
