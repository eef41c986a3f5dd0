"""Olah, Mordvintsev & Schubert 2017, "Feature visualization": objectives, diversity, regularisers, sums of units.

    python examples/papers/olah_2017.py
    python examples/papers/olah_2017.py emoji_alexnet --layer conv4 --units 3 8 --label 0

Each row changes one thing alone:

- objectives: one neuron, the mean of its map, an output of the network, and all of a layer (DeepDream);
- diversity: several images of one unit that differ in what else they show;
- regularisers: from free pixels to waves under random movements. Below, how much of the activation is left after JPEG
  compression. The first ones are high and lost: the network is fooled, and nobody sees by what;
- sums: two units, alone, added and subtracted, and what silences the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import interpret
from interpret import Objective, Synthesised
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Row, Tiles

REGULARISERS: dict[str, dict[str, Any]] = {
    "free pixels": {"parametrisation": "pixels", "colours": None, "robustness": None, "contrast": None},
    "waves": {"decay": 1.0, "colours": None, "robustness": None, "contrast": None},
    "waves, colours": {"decay": 1.0, "robustness": None, "contrast": None},
    "and movements": {"decay": 1.0, "contrast": None},
    "and coarse waves": {"decay": 2.0, "contrast": None},
}
"""From none to all; the movements are those that `interpret.synthesise` chooses."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("--layer", default="features.9.expand3x3")
    parser.add_argument("--units", type=int, nargs=2, default=[40, 77], help="two units of the layer")
    parser.add_argument("--label", type=int, default=107, help="a class, by number; 107 is the jellyfish of ImageNet")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--out", type=Path, default=Path("olah_2017.png"))
    given = parser.parse_args(arguments)
    model, layer, (one, other) = interpret.load(given.model), given.layer, given.units

    def make(*what: Any, **how: Any) -> Synthesised:
        return interpret.synthesise(model, *what, steps=given.steps, **how)

    first, second = Objective.unit(layer, one), Objective.unit(layer, other)
    objectives = {
        "neuron": make(layer, one),
        "unit": make(layer, one, "unit"),
        "class": make(None, given.label, "class"),
        "layer": make(layer, kind="layer"),
    }
    diverse = make(layer, one, "unit", versions=4, diversity=2.0)
    regularised = {name: make(layer, one, "unit", **how) for name, how in REGULARISERS.items()}
    sums = make([first, first + second, second, first - second])
    silent = make([first], negative=True)

    rows = [
        Row([_cell(made, 0, name) for name, made in objectives.items()], "objectives"),
        Row([_cell(diverse, place, f"unit {one}") for place in range(4)], "diversity"),
        Row([_cell(made, 0, name, kept=True) for name, made in regularised.items()], "regularisers"),
        Row(
            [
                *(_cell(sums, place, name) for place, name in enumerate((f"{one}", f"{one} + {other}", f"{other}"))),
                _cell(sums, 3, f"{one} − {other}"),
                _cell(silent, 0, f"− {one}"),
            ],
            "sums of units",
        ),
    ]
    write_figure(_draw(rows, f"{model.name}, {layer}: objectives, diversity, regularisers and sums"), given.out)
    for name, made in regularised.items():
        print(f"{name}: activation {made.values[0]:.3g}, of which {made.kept['jpeg'][0]:.0%} are left after JPEG")
    print(f"Open {given.out}")
    return {"objectives": objectives, "diverse": diverse, "regularised": regularised, "sums": sums, "silent": silent}


def _cell(made: Synthesised, row: int, name: str, kept: bool = False) -> Cell:
    caption = f"{name}\n{made.values[row]:.3g}" + (f", JPEG {made.kept['jpeg'][row]:.0%}" if kept else "")
    return Cell([made.pictures[row]], caption)


@in_style
def _draw(rows: list[Row], title: str) -> Any:
    note = "Below each image, the value of its objective."
    return Tiles(rows, max(len(row.cells) for row in rows), title, note).draw()


if __name__ == "__main__":
    with in_one_sentence():
        main()
