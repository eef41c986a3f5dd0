"""Top-activating patches of a layer and their deconvnet projections, as in Zeiler & Fergus (2014), Figure 2.

    python examples/papers/zeiler_fergus_figure2.py squeezenet1_1 photographs features.6.expand3x3 --units 8
    python examples/papers/zeiler_fergus_figure2.py lenet digits conv2 --units 8

For each unit, the figure shows its nine top-activating image patches, from nine different photographs, strongest first:
above, the projections of the activations to pixels; below, the patches, cropped to the receptive field.
"""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import interpret
from interpret.analyses.projection.hit_projection import project_hits
from interpret.cli.answers import in_one_sentence
from interpret.figures.lettering import fit, height_of
from interpret.figures.pictures import mosaic
from interpret.figures.saving import write_figure
from interpret.figures.style import WIDTH, figure_grid, in_style, points, show
from interpret.images.display import contrast, inputs_to_bytes, to_bytes

GROUP_GAP = 0.14
"""Gap between two groups of nine images, in inches: several times that within a group."""
IMAGE_GAP = 0.03
"""Gap between two images of a group, as a fraction of their side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("layer")
    parser.add_argument("--units", type=int, default=8, help="number of units, those with the highest activations")
    parser.add_argument("--width", type=float, default=WIDTH, help="figure width, in inches")
    parser.add_argument("--out", default="figure2.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    images = interpret.open_images(arguments.data, model)
    mined = interpret.mine(model, images, arguments.layer)

    tiles: dict[str, dict[tuple[int, int], NDArray[np.uint8]]] = {"projections": {}, "patches": {}}
    channels = "RGB" if model.preprocess is None else model.preprocess.channels
    for batch in project_hits(model, images, mined):
        hits = list(zip(batch.units.tolist(), batch.ranks.tolist(), strict=True))
        tiles["projections"] |= zip(hits, to_bytes(contrast(batch.projections, channels)), strict=True)
        tiles["patches"] |= zip(hits, inputs_to_bytes(batch.patches, model.preprocess), strict=True)

    found = mined[arguments.layer]
    units = np.argsort(-found.maximum, kind="stable")[: arguments.units].tolist()
    title = f"{model.name}, {arguments.layer}: deconvnet projections (above) of the top-activating patches (below)"
    write_figure(draw(title, units, tiles, arguments.width), arguments.out)
    for unit in units:
        values = found.values[unit]
        print(f"unit {unit}: activations {values[0]:.3f} to {values[np.isfinite(values)][-1]:.3f}")
    print(f"Open {arguments.out}")


@in_style
def draw(
    title: str, units: list[int], tiles: dict[str, dict[tuple[int, int], NDArray[np.uint8]]], width: float
) -> Figure:
    """Draw each unit's nine projections above its nine patches."""
    title = fit(title, width - 0.2, points("figure.title"), lines=3)
    words = height_of(title, points("figure.title")) + height_of("unit", points("axes.title"))
    figure, axes = figure_grid(2, len(units), (width, 2 * width / len(units) + words + 0.1))
    figure.get_layout_engine().set(w_pad=GROUP_GAP / 2, h_pad=GROUP_GAP / 2, wspace=0, hspace=0)
    for column, unit in enumerate(units):
        for row, kind in enumerate(tiles):
            nine = np.full((9, *tiles[kind][unit, 0].shape), 255, np.uint8)  # white if there are fewer than nine
            for rank in range(9):
                nine[rank] = tiles[kind].get((unit, rank), nine[rank])
            grid = mosaic(nine, 3, gap=IMAGE_GAP)[0]
            show(axes[row, column], grid, f"unit {unit}" if row == 0 else "", interpolation="nearest")
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    with in_one_sentence():
        main()
