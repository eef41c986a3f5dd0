"""Draw the costs of networks: accuracy against operations, and accuracy by network."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from interpret.analyses.costs.result import NetworkCosts
from interpret.figures.labels import label_points
from interpret.figures.lettering import fit, width_of
from interpret.figures.panels import WHOLE_LINE, Key, Names, Panel, Size, choose, lay_out
from interpret.figures.style import WIDTH, in_style, look, mix, points

FAMILIES = {
    "AlexNet, VGG": "alexnet|vgg",
    "GoogLeNet, Inception": "googlenet|inception",
    "ResNet, ResNeXt, DenseNet": "resnet|resnext|wide_resnet|densenet",
    "SqueezeNet, MobileNet, ShuffleNet, MNASNet": "squeezenet|mobilenet|shufflenet|mnasnet",
    "EfficientNet": "efficientnet",
    "RegNet": "regnet",
    "ConvNeXt, transformers": "convnext|vit|swin|maxvit",
}
BUBBLE_AREA = 1.6
"""Area of a bubble per million parameters, in points², in a figure as wide as a page."""


@in_style
def plot_costs(
    costs: NetworkCosts,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw the accuracy of networks against their operations.

    Source: Canziani et al. 2016, figures 2 and 1, but with a logarithmic axis, since operations span four powers of
    ten, and with horizontal rows of accuracies, so that names can be read.

    Args:
        costs: what `interpret.compare_costs` returned.
        panels: "operations", the default: top-1 accuracy against multiply-accumulates, a bubble a network, its area the
            number of parameters; "accuracies": top-1 accuracy by network, the best one on top. In a small figure with
            many networks, those whose names find no place are drawn without.
        width, figsize, ax: as in `interpret.plot`.
    """
    drawn = {
        "operations": Panel("operations", lambda axes, wide, _: _operations(axes, costs, wide), WHOLE_LINE,
                            lambda wide: 0.97 * wide + 0.4),
        "accuracies": Panel("accuracies", lambda axes, wide, _: _accuracies(axes, costs, wide), WHOLE_LINE,
                            lambda _: max(1.6, 0.125 * look().scale * len(costs.names) + 0.6)),
    }  # fmt: skip
    chosen = choose(panels, list(drawn), ["operations"], ax)
    return lay_out([[drawn[name]] for name in chosen], width, figsize, ax, legend=_families(costs))


def _operations(axes: Axes, costs: NetworkCosts, wide: float) -> None:
    colors = [_color(name) for name in costs.names]
    millions = costs.params / 1e6
    area = BUBBLE_AREA * min(1.0, wide / WIDTH)
    axes.scatter(costs.macs, costs.top1, area * millions, c=colors, alpha=0.22, lw=0, zorder=2)
    axes.scatter(costs.macs, costs.top1, 4, c=colors, lw=0, zorder=3)
    low, high = costs.macs.min(), costs.macs.max()
    axes.set_xscale("log")
    axes.set(xlim=(low / 1.5, high * 2.2), ylim=(costs.top1.min() - 2.5, costs.top1.max() + 2.5))
    axes.set(xlabel="multiply-accumulates for one image (billions)", ylabel="top-1 accuracy (%)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(axis="y")
    sizes = [
        Line2D([], [], ls="", marker="o", mfc=look().quiet, mec="none", alpha=0.3, ms=np.sqrt(area * size),
               label=f"{size} M")
        for size in _round_sizes(millions)
    ]  # fmt: skip
    largest = max(size.get_markersize() for size in sizes) / points("legend.font")
    axes.legend(
        handles=sizes, loc="upper left", title="parameters", ncols=len(sizes), alignment="left",
        handletextpad=0.3 + largest / 3, columnspacing=1 + largest / 2, borderpad=0.4 + largest / 4, borderaxespad=0.5,
    )  # fmt: skip
    label_points(
        axes,
        list(zip(costs.macs, costs.top1, strict=True)),
        [fit(_short(name), 1.2) for name in costs.names],
        5.2 * look().scale,
        [mix(color, look().ink, 0.4) for color in colors],
        first=_best(costs),
    )


def _best(costs: NetworkCosts) -> list[int]:
    """Return the networks that no cheaper network surpasses; they are labelled first where there is little room."""
    return [
        item for item in range(len(costs.names))
        if not ((costs.macs < costs.macs[item]) & (costs.top1 > costs.top1[item])).any()
    ]  # fmt: skip


def _accuracies(axes: Axes, costs: NetworkCosts, wide: float) -> None:
    order = np.argsort(costs.top1, kind="stable")
    rows = np.arange(len(order))
    colors = [_color(costs.names[item]) for item in order]
    start = np.floor(costs.top1.min() / 5) * 5 - 5
    small = 5.8 * look().scale
    # dots and not bars: the axis does not begin at zero
    axes.hlines(rows, start, costs.top1[order], color=look().hairline, lw=0.3, zorder=1)
    axes.scatter(costs.top1[order], rows, 14, c=colors, lw=0, zorder=2)
    for row, item in zip(rows, order, strict=True):
        axes.annotate(f"{costs.top1[item]:.1f}", (costs.top1[item], row), (4, 0), textcoords="offset points",
                      va="center", fontsize=small, color=look().quiet)  # fmt: skip
    names = [fit(costs.names[item], 0.4 * wide, small) for item in order]
    axes.set_yticks(rows, names, fontsize=small, color=look().ink)
    # room for the last number beside its dot
    span = (costs.top1.max() - start) * (1 + (width_of("00.0 ", small) + 0.1) / (0.55 * wide))
    axes.set(xlim=(start, start + span), ylim=(-0.7, len(order) - 0.3), xlabel="top-1 accuracy (%)")
    axes.tick_params(axis="y", length=0)


def _families(costs: NetworkCosts) -> list[Key]:
    present = [family for family in FAMILIES if any(_family(name) == family for name in costs.names)]
    return [(Line2D([], [], ls="", marker="o", ms=4, color=_color_of(family)), family) for family in present]


def _family(name: str) -> str | None:
    return next((family for family, pattern in FAMILIES.items() if re.match(pattern, name)), None)


def _color_of(family: str | None) -> Any:
    return look().ink if family is None else look().categories[list(FAMILIES).index(family)]


def _color(name: str) -> Any:
    return _color_of(_family(name))


def _short(name: str) -> str:
    """Return a name with its family shortened, for a crowded figure."""
    for long, short in (
        ("efficientnet", "effnet"), ("mobilenet", "mobile"), ("shufflenet", "shuffle"), ("squeezenet", "squeeze"),
        ("densenet", "dense"), ("regnet", "reg"),
    ):  # fmt: skip
        name = name.replace(long, short)
    return name


def _round_sizes(millions: Any) -> list[int]:
    """Return three sizes for a legend, one of them near the largest."""
    top = float(millions.max())
    return sorted({size for size in (1, 5, 10, 25, 50, 100, 150, 300, 600) if size <= top}, reverse=True)[:6:2][
        ::-1
    ] or [1]
