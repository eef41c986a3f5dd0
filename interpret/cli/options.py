"""The arguments and options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from interpret.cli.reading import DIGITS, read_whole_number
from interpret.network.readings import READINGS

LARGEST = 65_536
"""The largest number of things to count: more than any network or figure has room for."""
LARGEST_SEED = 10**DIGITS - 1


def whole_number(least: int, most: int) -> Callable[[object], int]:
    """Return a parser of an option that is a whole number in a range.

    >>> whole_number(1, 9)("9")
    9
    """

    def parse(text: object) -> int:
        number = read_whole_number(str(text))
        if number is None or not least <= number <= most:
            raise typer.BadParameter(f"{text} is no whole number from {least:,} to {most:,}")
        return number

    return parse


def counted(*names: str, least: int = 1, most: int = LARGEST, help: str) -> Any:
    """Return an option that is a whole number in a range."""
    return typer.Option(*names, parser=whole_number(least, most), metavar="INTEGER", help=help)


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser of an option that is one of these words.

    >>> one_of("text", "json")("json")
    'json'
    """

    def parse(text: str) -> str:
        from interpret.support.errors import unknown

        if text not in choices:
            raise typer.BadParameter(str(unknown("value", text, choices)))
        return text

    return parse


def choice(*choices: str, help: str) -> Any:
    """Return an option that is one of these words."""
    return typer.Option(parser=one_of(*choices), metavar="NAME", help=help)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="The network: a name, a folder, file.py:function, or a .keras, .onnx or .pt2 file."
    ),
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Images to look at: a folder, a named set, or shards as 'shards-{000..009}.tar'."
    ),
]
Subject = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="The network: a name, a folder, file.py:function, or a study's folder."),
]
OwnData = Annotated[
    str | None, typer.Argument(metavar="DATA", help="Images: a folder, or a named set. A study has its own.")
]
ImageCount = Annotated[str, typer.Option("--images", help="Number of images, evenly spread over the data, or 'all'.")]
Weights = Annotated[
    str | None,
    typer.Option(help="A checkpoint, FILE or FILE:KEY of several state dicts, :no-head without its head; or 'random'."),
]
Outputs = Annotated[
    str | None,
    choice(
        *READINGS,
        help="How outputs become probabilities: softmax, sigmoid, probabilities or log-probabilities. "
        "Default: found from the values.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(help="Layer names, or globs of convolutions and linear layers, with commas. Default: all of these."),
]
Out = Annotated[Path | None, typer.Option(help="Where to write.")]
StudyFolder = Annotated[Path | None, typer.Option("--study", help="The folder that keeps the results.")]
Picture = Annotated[Path, typer.Option(help="The figure to write: .png, .svg or .pdf.")]
Pictures = Annotated[
    str | None,
    typer.Argument(metavar="IMAGES", help="An image file, a folder, or a named set. A study has its own."),
]
Methods = Annotated[str | None, typer.Option(help="Names, separated by commas: gradient,deconvnet. Default: all ten.")]
Target = Annotated[str | None, typer.Option(help="A class by number or name, or a channel. Default: the strongest.")]
Hidden = Annotated[str | None, typer.Option(help="The layer of a hidden unit. Default: the network's output.")]
RuleName = Annotated[str, typer.Option("--rule", help="deconvnet, guided or gradient.")]
RuleNames = Annotated[str, typer.Option("--rule", help="deconvnet, guided or gradient; several, separated by commas.")]
K = Annotated[int, counted("-k", help="Hits for each unit.")]
Crops = Annotated[
    str | None, choice("center", "tiles", help="'center', or 'tiles': windows at several sizes of each picture.")
]
Megapixels = Annotated[
    float | None,
    typer.Option(
        "--max-megapixels",
        min=0.001,
        max=100_000,
        help="Size up to which a picture is decoded; larger JPEGs are decoded at a reduced scale, others skipped. "
        "Default: 100.",
    ),
]
Reduced = Annotated[
    bool,
    typer.Option(
        "--reduced",
        help="Decode large JPEGs at a half, quarter or eighth of their scale: faster, and pixels differ a little.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps … Default: a GPU if there is one.")]
Workers = Annotated[
    int | None,
    counted(least=0, most=256, help="Processes that read images. Default: two fewer than cores, at most 16."),
]
Seed = Annotated[int, counted(least=0, most=LARGEST_SEED, help="Seed of the sample on which statistics are measured.")]
BatchSize = Annotated[int, counted(help="Images in one forward pass.")]
OwnBatchSize = Annotated[
    int | None, counted("--batch-size", help="Images in one forward pass. Default: what suits the device.")
]
Dtype = Annotated[str, choice("float32", "bfloat16", help="float32, or bfloat16: twice as fast and less exact.")]
EveryImage = Annotated[
    bool,
    typer.Option(
        "--every-image/--no-every-image",
        help="Predict and show every image, or those of hits and of the sample alone: for very many images.",
    ),
]
