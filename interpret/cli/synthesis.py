"""The subcommand that makes optimised images of a study's units."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interpret.cli.answers import say
from interpret.cli.options import LARGEST_SEED, Device, Layers, OwnBatchSize, choice, counted
from interpret.cli.reading import read_units
from interpret.cli.subjects import reopen


def synthesise(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study that has been mined.")],
    layers: Layers = None,
    units: Annotated[
        str, typer.Option(help="Number of the liveliest units of each layer, 'all', or 'auto': those of one minute.")
    ] = "16",
    kind: Annotated[
        str,
        choice(
            "neuron",
            "unit",
            "class",
            help="neuron (of the receptive field's size), unit (the mean of its map), or class.",
        ),
    ] = "neuron",
    parametrisation: Annotated[
        str | None,
        choice(
            "auto",
            "fourier",
            "components",
            "pixels",
            "maco",
            help="auto (default: components of small images, else fourier), pixels, or maco: natural magnitudes.",
        ),
    ] = None,
    steps: Annotated[int | None, counted(help="Steps of the optimisation (default 160).")] = None,
    seed: Annotated[
        int | None, counted(least=0, most=LARGEST_SEED, help="Seed of the noise from which images begin (default 0).")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make units again that have their image, as with other defaults.")
    ] = False,
    device: Device = None,
    batch_size: OwnBatchSize = None,
) -> None:
    """Optimise images that units respond to most, and keep them in a study beside the mined ones.

    Units that have their image are skipped, and others made as they were, unless an option says otherwise. interpret
    plot and interpret report show them.
    """
    count = read_units(units, "--units", least=1)
    opened = reopen(study, device, batch_size=batch_size)
    opened.synthesise(
        layers, count, kind, parametrisation=parametrisation, steps=steps, seed=seed, again=again,  # type: ignore[arg-type]
    )  # fmt: skip
    kept = [name for one, name in opened.results if one == "synthesised"]
    say(f"Optimised images of {', '.join(kept)} are in {study}")
    say(f"Next: interpret report {study}, or interpret plot {study} synthesised {kept[-1]!r}")
