"""Signals: a network of one-dimensional convolutions recognises heartbeats, and shows what it looks for.

    python examples/lecture/signals.py --out figures

Convolutions slide along any number of axes; along one, over time. A small network learns to tell three kinds of beats
in made-up electrocardiograms: normal ones, those whose wide peak comes early (premature ventricular beats), and those
without the small wave before the peak (as in atrial fibrillation). For each kind, the figure shows the stretches of
signal that excite a unit most, their projections by the deconvnet, and where hiding a stretch costs the class its
probability: at the beat that makes the difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import CATEGORIES, WIDTH, figure_grid, in_style

KINDS = ("normal", "premature", "no P wave")
RATE = 100
"""Samples a second."""
LENGTH = 512
WAVES = {"P": (-0.20, 0.025, 0.15), "Q": (-0.04, 0.010, -0.12), "R": (0.0, 0.012, 1.0), "S": (0.04, 0.012, -0.25),
         "T": (0.28, 0.055, 0.3)}  # fmt: skip
"""Seconds from the peak, width in seconds and height of the waves of a beat."""
EPOCHS, BATCH = 6, 32
HIDDEN = 40
"""Samples that are hidden at once."""


def heartbeats(count: int, seed: int) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Return signals [N, 1, T], their kinds [N], and the sample of the odd beat; −1 where there is none."""
    draw = np.random.default_rng(seed)
    times = np.arange(LENGTH) / RATE
    signals, kinds, odd = np.zeros((count, LENGTH)), np.arange(count) % 3, np.full(count, -1)
    for row, kind in enumerate(kinds):
        gap, at, peaks = draw.uniform(0.75, 0.95), draw.uniform(0.1, 0.5), []
        while at < times[-1] + 0.3:
            peaks.append(at)
            at += gap * draw.uniform(0.97, 1.03)
        early = draw.integers(2, 4) if kind == 1 else -1
        for number, peak in enumerate(peaks):
            waves = {name: wave for name, wave in WAVES.items() if not (kind == 2 and name == "P")}
            if number == early:  # early and wide, with an inverted T wave and no P wave
                peak -= 0.3 * gap
                odd[row] = round(peak * RATE)
                waves = {"R": (0.0, 0.045, 1.1), "T": (0.25, 0.07, -0.4)}
            for shift, width, height in waves.values():
                height *= draw.uniform(0.9, 1.1)
                signals[row] += height * np.exp(-0.5 * ((times - peak - shift) / width) ** 2)
        signals[row] += 0.05 * np.sin(2 * np.pi * (0.25 * times + draw.uniform()))  # the chest moves with the breath
    signals += 0.02 * draw.standard_normal(signals.shape)
    return torch.from_numpy(signals).float()[:, None], torch.from_numpy(kinds), odd


def train(seed: int = 0) -> nn.Sequential:
    """Return a network that has learnt to tell the kinds of beats."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv1d(1, 12, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(12, 16, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 24, 9, padding=4), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    signals, kinds, _ = heartbeats(1500, seed)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(signals)).split(BATCH):
            loss = F.cross_entropy(network(signals[rows]), kinds[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


def unit_of(mined: interpret.Mined, kind: int) -> int:
    """Return the unit of the last convolution whose maxima on signals of a kind stand out most from those of others."""
    means = mined["6"].class_means
    assert means is not None
    others = np.delete(means, kind, 0).max(0)
    return int(np.argmax(means[kind] - others))


@in_style
def draw(units: list[Any], signals: Tensor, occlusion: interpret.Occlusion, odd: NDArray[np.int64]) -> Figure:
    figure, axes = figure_grid(3, 3, (WIDTH, 5.2))
    titles = ("one unit: its strongest patches", "their projections", "the signal, and what hiding costs")
    for row, (kind, unit) in enumerate(zip(KINDS, units, strict=True)):
        for place, parts in enumerate((unit.patches[:3, 0], unit.projections()[:3, 0])):
            panel = axes[row][place]
            for n, part in enumerate(parts):
                scale = 1.0 if place == 0 else float(part.abs().max())
                panel.plot(np.arange(len(part)) / RATE, part / scale - 1.6 * n, lw=1.1, color=CATEGORIES[place])
            panel.set(yticks=[], title=titles[place] if row == 0 else "")
            panel.set_ylabel(f"{kind}\nunit {unit.unit}" if place == 0 else "")
        panel, times = axes[row][2], np.arange(LENGTH) / RATE
        panel.plot(times, signals[row, 0], lw=0.8, color=CATEGORIES[0])
        lost = occlusion.clean_probabilities[row] - occlusion.probabilities[row, 0]
        middle = (occlusion.lefts + HIDDEN / 2) / RATE
        panel.fill_between(middle, -1.05, -1.05 + 0.5 * np.clip(lost, 0, 1), step="mid", color=CATEGORIES[1], lw=0)
        if odd[row] >= 0:
            panel.annotate("early beat", (odd[row] / RATE, 1.2), ha="center", fontsize=6)
        panel.set(yticks=[], ylim=(-1.1, 1.6), title=titles[2] if row == 0 else "")
    for panel in axes[-1]:
        panel.set_xlabel("seconds")
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for signals.png")
    out = parser.parse_args(arguments).out / "signals.png"

    network = train()
    signals, kinds, odd = heartbeats(300, seed=1)
    with torch.inference_mode():
        accuracy = float((network(signals).argmax(1) == kinds).float().mean())
    print(f"{accuracy:.1%} of 300 new signals are recognised")
    print(interpret.summarise(network, (1, LENGTH)))
    model = interpret.load(network, classes=KINDS)
    mined = interpret.mine(model, [*zip(signals, kinds.tolist(), strict=True)])
    units = [mined["6"].unit(unit_of(mined, kind)) for kind in range(3)]
    occlusion = interpret.occlude(
        model, signals[:3], kinds[:3].tolist(), size=HIDDEN, stride=8, fill="mean", feature_map=False
    )
    write_figure(draw(units, signals[:3], occlusion, odd[:3]), out)
    print(f"Open {out}")
    lost = occlusion.clean_probabilities[1] - occlusion.probabilities[1, 0]
    return {"accuracy": accuracy, "lost": lost, "lefts": occlusion.lefts, "odd": int(odd[1]), "units": units}


if __name__ == "__main__":
    with in_one_sentence():
        main()
