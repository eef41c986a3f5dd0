"""The subcommands that show the results of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from interpret.cli.answers import fail, note, say
from interpret.cli.reading import read_names


def plot(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    kind: Annotated[str | None, typer.Argument(help="Kind of result, such as invariance.")] = None,
    name: Annotated[str | None, typer.Argument(help="Its name, if there are several of the kind: rotation.")] = None,
    out: Annotated[Path | None, typer.Option(help="The figure to write: .png, .svg or .pdf.")] = None,
    panels: Annotated[
        str | None,
        typer.Option(help="Parts of the figure, with commas; an unknown name lists them. Default: all."),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(min=2, max=200, help="Inches: 3.3 is a column of a paper. Default: 7.2, two columns."),
    ] = None,
) -> None:
    """Draw a result of a study; list the results if several match."""
    from interpret.figures.saving import check_figure_path, write_figure
    from interpret.results.plotting import plot as draw
    from interpret.study.study import Study
    from interpret.support.errors import unknown
    from interpret.support.files import layer_path

    if out is not None:
        check_figure_path(out, "--out")
    opened = Study.open(study)
    kept = opened.drawable_results()
    if not kept:
        fail(f"{study} keeps no results to draw: make one, for example with interpret probe {study}")
    wanted = None if name is None else layer_path(name)
    fitting = [one for one in kept if kind in (None, one[0]) and wanted in (None, layer_path(one[1]))]
    if not fitting:
        raise unknown("result", f"{kind} {name or ''}".strip(), [" ".join(one).strip() for one in kept])
    if len(fitting) > 1:
        listed = "".join(f"\n    {one[0]} {one[1]}".rstrip() for one in fitting)
        fail(f"{study} keeps {len(fitting)} results that fit, choose one of them by kind and name:{listed}")
    result = opened.result(*fitting[0])
    target = out or Path("-".join(layer_path(part) for part in fitting[0] if part) + ".png")
    opened.refuse_among_images(target, "the figure")
    write_figure(draw(result, read_names(panels), width=width), target)
    note(f"{result.title}. {result.reading}")
    say(f"Open {target}")


def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: .html or .pdf.")] = Path("report.html"),
) -> None:
    """Write a study as one file to read, print or send."""
    from interpret.report.writer import write_report

    say(f"Open {write_report(study, out)}")


def study(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with each run's times.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read all files, and name those that are damaged.")] = False,
) -> None:
    """Say what a study holds, from which weights and data, how long each part took and what was skipped."""
    from interpret.study.overview import overview, overview_text
    from interpret.study.reader import StudyReader

    found = overview(StudyReader(study), check)
    say(json.dumps(found, indent=1) if as_json else overview_text(found))
