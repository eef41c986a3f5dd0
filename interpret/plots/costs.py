"""Figures of what networks cost: accuracy by network, and accuracy against operations."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from interpret.plots.labels import label_points
from interpret.plots.style import CATEGORIES, HAIRLINE, INK, QUIET, WIDTH, Figure, figure_grid, in_style
from interpret.results.costs import NetworkCosts

FAMILIES = {
    "AlexNet, VGG": "alexnet|vgg",
    "GoogLeNet, Inception": "googlenet|inception",
    "ResNet, ResNeXt, DenseNet": "resnet|resnext|wide_resnet|densenet",
    "SqueezeNet, MobileNet, ShuffleNet, MNASNet": "squeezenet|mobilenet|shufflenet|mnasnet",
    "EfficientNet": "efficientnet",
    "RegNet": "regnet",
    "ConvNeXt, transformers": "convnext|vit|swin|maxvit",
}
BUBBLE = 1.6
"""Points² of a bubble's area for a million parameters."""


@in_style
def plot_costs(costs: NetworkCosts) -> Figure:
    """Draw top-1 accuracy against multiply-accumulates, a bubble a network, its area the number of parameters.

    Source: Canziani et al. 2016, figure 2, with a logarithmic axis, as operations span four powers of ten by now.
    """
    figure, ((axes,),) = figure_grid(1, 1, (WIDTH, 7.4))
    colors = [_color(name) for name in costs.names]
    millions = costs.params / 1e6
    axes.scatter(costs.macs, costs.top1, BUBBLE * millions, c=colors, alpha=0.22, lw=0, zorder=2)
    axes.scatter(costs.macs, costs.top1, 4, c=colors, lw=0, zorder=3)
    low, high = costs.macs.min(), costs.macs.max()
    axes.set_xscale("log")
    axes.set(xlim=(low / 1.5, high * 2.2), ylim=(costs.top1.min() - 2.5, costs.top1.max() + 2.5))
    axes.set(xlabel="multiply-accumulates for one image (billions)", ylabel="top-1 accuracy (%)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=HAIRLINE, lw=0.3, zorder=0)
    present = [family for family in FAMILIES if any(_family(name) == family for name in costs.names)]
    dots = [Line2D([], [], ls="", marker="o", ms=4, color=_color_of(family), label=family) for family in present]
    families = axes.legend(handles=dots, loc="lower right")
    axes.add_artist(families)
    sizes = [
        Line2D(
            [], [], ls="", marker="o", mfc=QUIET, mec="none", alpha=0.3, ms=np.sqrt(BUBBLE * size), label=f"{size} M"
        )
        for size in _round_sizes(millions)
    ]
    axes.legend(
        handles=sizes, loc="upper left", title="parameters", title_fontsize=7, ncols=len(sizes), alignment="left",
        handletextpad=1.8, columnspacing=3, borderpad=1.2, borderaxespad=1,
    )  # fmt: skip
    label_points(
        axes,
        list(zip(costs.macs, costs.top1, strict=True)),
        [_short(name) for name in costs.names],
        5.2,
        [_darker(color) for color in colors],
    )
    return figure


@in_style
def plot_accuracies(costs: NetworkCosts) -> Figure:
    """Draw top-1 accuracy by network, the best one on top.

    Source: Canziani et al. 2016, figure 1, lying down, so that names can be read.
    """
    order = np.argsort(costs.top1, kind="stable")
    figure, ((axes,),) = figure_grid(1, 1, (WIDTH, max(2.0, 0.125 * len(order) + 0.6)))
    rows = np.arange(len(order))
    colors = [_color(costs.names[item]) for item in order]
    start = np.floor(costs.top1.min() / 5) * 5 - 5
    # dots and not bars: the axis does not begin at zero
    axes.hlines(rows, start, costs.top1[order], color=HAIRLINE, lw=0.3, zorder=1)
    axes.scatter(costs.top1[order], rows, 14, c=colors, lw=0, zorder=2)
    for row, item in zip(rows, order, strict=True):
        axes.text(costs.top1[item] + 0.5, row, f"{costs.top1[item]:.1f}", va="center", fontsize=5.5, color=QUIET)
    axes.set_yticks(rows, [costs.names[item] for item in order], fontsize=5.8, color=INK)
    axes.set(xlim=(start, costs.top1.max() + 3), ylim=(-0.7, len(order) - 0.3), xlabel="top-1 accuracy (%)")
    axes.tick_params(axis="y", length=0)
    present = [family for family in FAMILIES if any(_family(name) == family for name in costs.names)]
    bars = [Line2D([], [], ls="", marker="o", ms=4, color=_color_of(family), label=family) for family in present]
    axes.legend(handles=bars, loc="lower right")
    return figure


def _family(name: str) -> str | None:
    return next((family for family, pattern in FAMILIES.items() if re.match(pattern, name)), None)


def _color_of(family: str | None) -> str:
    return INK if family is None else CATEGORIES[list(FAMILIES).index(family)]


def _color(name: str) -> Any:
    return _color_of(_family(name))


def _darker(color: str) -> Any:
    """Return a colour in which small letters can be read on white."""
    return tuple(0.6 * np.array(to_rgb(color)))


def _short(name: str) -> str:
    """Return a name with its family's long words cut, for a crowded figure."""
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
