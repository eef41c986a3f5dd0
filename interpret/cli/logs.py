"""The log of the command: text or JSON on the error stream, and the options that choose it."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from interpret.execution.ranks import ranks
from interpret.support.numbers import THIN
from interpret.support.recording import outcome_of, recording
from interpret.support.wording import printable

SAYS_ALWAYS = ("interpret.cli", "interpret.progress")
"""The loggers whose lines at level INFO are printed without --verbose."""
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""The level of all other loggers for no, one and two --verbose."""

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        metavar="",
        help="Print what is done and how long it takes; -vv: in detail. Before or after the subcommand.",
    ),
]
LogJson = Annotated[
    bool, typer.Option("--log-json", help="Print one JSON object a line to the error stream, without progress bars.")
]


class ErrorStream(logging.Handler):
    """Prints log records to the error stream, whole lines above any progress bar."""

    json_lines = False
    verbosity = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not (self.json_lines or ranks().first or record.levelno >= logging.ERROR):
            return  # the first process says it for all
        try:
            line = self._as_json(record) if self.json_lines else self._as_text(record)
            if "tqdm" in sys.modules:
                from tqdm import tqdm

                tqdm.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr)
        except Exception:
            self.handleError(record)

    def _as_text(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        if record.name in SAYS_ALWAYS or record.levelno > logging.INFO:
            return message
        return f"{_time(record).astimezone():%H:%M:%S} {message}".replace(THIN, " ")

    def _as_json(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {"time": _time(record).isoformat(timespec="milliseconds")}
        found |= {"level": record.levelname.lower(), "logger": record.name}
        found |= {"message": record.getMessage().replace(THIN, " ")}
        if "RANK" in os.environ:  # set by torchrun
            found["rank"] = int(os.environ["RANK"])
        if record.exc_info:
            found["traceback"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(found | getattr(record, "fields", {}), default=str)

    def choose(self, verbose: int, log_json: bool) -> None:
        """Add to what was chosen before: an option counts before the subcommand and after it."""
        from interpret.support.progress import Progress

        self.verbosity = min(self.verbosity + verbose, len(LEVELS) - 1)
        self.json_lines |= log_json
        Progress.bars = not self.json_lines
        logging.getLogger("interpret").setLevel(LEVELS[self.verbosity])


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


error_stream = ErrorStream()


@contextmanager
def logging_to_error_stream() -> Iterator[None]:
    """Print the log of this package to the error stream, and leave logging as it was at the end."""
    loggers = [logging.getLogger(name) for name in ("interpret", *SAYS_ALWAYS)]
    before = [logger.level for logger in loggers]
    loggers[0].addHandler(error_stream)
    for logger in loggers[1:]:
        logger.setLevel(logging.INFO)
    error_stream.verbosity, error_stream.json_lines = 0, False
    loggers[0].setLevel(LEVELS[0])
    try:
        yield
    finally:
        if "interpret.support.progress" in sys.modules:
            sys.modules["interpret.support.progress"].Progress.bars = True
        loggers[0].removeHandler(error_stream)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def logged(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a subcommand that also has the options of the log, and whose work is recorded."""

    @functools.wraps(verb)
    def run(*args: Any, verbose: int, log_json: bool, **kwargs: Any) -> Any:
        error_stream.choose(verbose, log_json)
        with recording() as work:
            try:
                return verb(*args, **kwargs)
            except BaseException as error:
                # only here, as it imports more
                from interpret.cli.subjects import record_unfinished

                record_unfinished(verb.__name__, work, outcome_of(error))
                raise

    own = inspect.signature(verb, eval_str=True)
    more = [
        inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=Verbose),
        inspect.Parameter("log_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=LogJson),
    ]
    parameters = [*own.parameters.values(), *more]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
