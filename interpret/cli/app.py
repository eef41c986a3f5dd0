"""The `interpret` command: each subcommand works on a study folder and names the file to open at the end."""

from __future__ import annotations

import inspect
import sys
from typing import Annotated

import typer

from interpret.cli import analyses, main_job, publishing, synthesis
from interpret.cli.answers import INTERRUPTED, Ended, fail, in_one_sentence, say
from interpret.cli.logs import LogJson, Verbose, error_stream, logged
from interpret.cli.subjects import releasing
from interpret.cli.together import alone, together

app = typer.Typer(
    help="Look inside convolutional networks: show what activates each unit.",
    epilog="A MODEL is a shipped name (lenet, lenet5, emoji_alexnet, squeezenet1_1, efficientnet_lite0 …), "
    "torchvision:NAME, timm:NAME, a model folder, or file.py:function. "
    "DATA is a folder of images, or photographs, digits, fashion-mnist or emoji.",
    rich_markup_mode=None,  # otherwise "[demo]" would be markup
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SPLIT = (
    main_job.gallery,
    main_job.mine,
    main_job.project,
    analyses.probe,
    analyses.evolve,
    analyses.neighbours,
)
"""The subcommands whose work torchrun's processes share."""

for verb in (
    main_job.gallery,
    main_job.mine,
    main_job.merge,
    main_job.project,
    analyses.probe,
    analyses.occlude,
    analyses.evolve,
    analyses.neighbours,
    analyses.attribute,
    analyses.sanity,
    synthesis.synthesise,
    publishing.plot,
    publishing.report,
    publishing.study,
    main_job.filters,
    main_job.summary,
    main_job.train,
):
    own = verb if verb in SPLIT else alone(verb)
    app.command(short_help=str(inspect.getdoc(verb)).partition("\n\n")[0])(releasing(logged(own)))


def _show_version(requested: bool) -> None:
    if requested:
        from interpret.support.version import __version__

        say(f"interpret {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Verbose = 0,
    log_json: LogJson = False,
) -> None:
    error_stream.choose(verbose, log_json)


def main() -> None:
    """Run the command; invalid input ends it with one sentence and exit status 2."""
    with in_one_sentence(), together():
        try:
            if (
                app(standalone_mode=False, prog_name="interpret") == INTERRUPTED
            ):  # typer returns this status, or raises Abort
                raise KeyboardInterrupt
        except typer.Abort as aborted:
            if isinstance(aborted.__cause__, EOFError):  # of a file or a model; typer takes it for Ctrl-D
                raise aborted.__cause__ from None
            raise KeyboardInterrupt from None
        except Exception as error:
            if hasattr(error, "format_message"):  # an invalid command line
                if "--log-json" in sys.argv:  # it may stand after what is invalid
                    error_stream.choose(0, True)
                    fail(error.format_message())
                error.show()  # type: ignore[attr-defined]
                raise Ended(2) from None
            raise
