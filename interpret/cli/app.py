"""The `interpret` command: each verb works on a study folder and says at the end what to open."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Annotated

import typer

from interpret.cli import analyses, main_job, publishing
from interpret.cli.answers import fail, say

INTERRUPTED = 130
"""The exit status, as shells have it."""

app = typer.Typer(
    help="Look inside convolutional networks: what every unit answers to, as pictures.",
    epilog="A MODEL is a shipped name (lenet, lenet5, emoji_alexnet, squeezenet1_1, efficientnet_lite0 …), "
    "torchvision:NAME, timm:NAME, a model folder, or file.py:function. "
    "DATA is a folder of images, or photographs, digits, fashion-mnist or emoji.",
    rich_markup_mode=None,  # by which "[demo]" is text
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    main_job.gallery,
    main_job.mine,
    main_job.project,
    analyses.probe,
    analyses.occlude,
    analyses.evolve,
    analyses.neighbours,
    analyses.attribute,
    analyses.sanity,
    publishing.plot,
    publishing.report,
    main_job.filters,
    main_job.summary,
    main_job.train,
):
    app.command(short_help=str(inspect.getdoc(verb)).partition("\n\n")[0])(verb)


def _show_version(asked: bool) -> None:
    if asked:
        import interpret

        say(f"interpret {interpret.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command: a user's mistake is one sentence and exit status 2."""
    try:
        if app(standalone_mode=False, prog_name="interpret") == INTERRUPTED:  # typer makes this of it, or an Abort
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        fail(
            "Interrupted. What a study or a model folder holds is kept, and the same command goes on from there.",
            INTERRUPTED,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        from interpret.errors import InterpretError

        if isinstance(error, InterpretError):
            fail(str(error))
        if hasattr(error, "format_message"):  # a mistake in the command line itself
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        if isinstance(error, OSError) and error.errno is not None:  # a full disk, a folder that may not be read …
            where = f" {str(error.filename)!r}" if error.filename else ""
            fail(f"the system cannot read or write{where}: {error.strerror}; free it, or choose another place")
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            fail("the memory is full: take fewer images at a time with --batch-size, fewer --layers, or smaller images")
        raise
