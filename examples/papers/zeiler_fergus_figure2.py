"""Top patches and their deconvnet projections of a layer, as in Zeiler & Fergus (2014), Figure 2.

python examples/zeiler_fergus_figure2.py squeezenet1_1 photographs features.6.expand3x3 --units 8
python examples/zeiler_fergus_figure2.py lenet digits conv2 --units 8
"""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import interpret
from interpret.display import contrast, sheet, to_bytes
from interpret.projection import project_hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("layer")
    parser.add_argument("--units", type=int, default=8, help="how many, those with the strongest activations")
    parser.add_argument("--out", default="figure2.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    images = interpret.open_images(arguments.data, model)
    mined = interpret.mine(model, images, arguments.layer)

    patches: dict[tuple[int, int], NDArray[np.uint8]] = {}
    projections: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for batch in project_hits(model, images, mined):
        hits = list(zip(batch.units.tolist(), batch.ranks.tolist(), strict=True))
        patches |= zip(hits, to_bytes(model.preprocess.display(batch.patches)), strict=True)
        projections |= zip(hits, to_bytes(contrast(batch.projections, model.preprocess.channels)), strict=True)

    found = mined[arguments.layer]
    units = np.argsort(-found.maximum, kind="stable")[: arguments.units].tolist()
    figure = Figure(figsize=(2.2 * len(units), 4.8), layout="constrained")
    axes = figure.subplots(2, len(units), squeeze=False)
    for column, unit in enumerate(units):
        hits = [(unit, rank) for rank in range(found.values.shape[1]) if (unit, rank) in patches]
        for row, tiles in enumerate((projections, patches)):
            axes[row, column].imshow(sheet(np.stack([tiles[hit] for hit in hits])), interpolation="nearest")
            axes[row, column].set_axis_off()
        axes[0, column].set_title(f"unit {unit}", fontsize=10)
    figure.suptitle(f"{model.name}, {arguments.layer}: deconvnet projections of the strongest hits above their patches")
    figure.savefig(arguments.out, dpi=150)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    main()
