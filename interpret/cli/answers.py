"""Print the command's output, and errors as one sentence."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from interpret.cli.characters import similar_characters
from interpret.cli.logs import error_stream, logging_to_error_stream
from interpret.execution.ranks import ranks
from interpret.support.wording import printable

logger = logging.getLogger("interpret.cli")

MEMORY_IS_FULL = "the memory is full: use a smaller --batch-size, fewer --layers, or smaller images"
NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "numel: integer multiplication overflow")
"""What torch says on a processor, as a RuntimeError, where the memory is too small."""
REMEDIES = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EMFILE: "let the shell open more files (ulimit -n), or use fewer --workers",
} | dict.fromkeys((errno.EACCES, errno.EPERM), "choose another place, or change its permissions")
"""What to do about an error of the system; for all others, choose another place."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells use it."""
TERMINATED = 143
"""The exit status after SIGTERM."""
EXAMPLE_PACKAGES = ("scipy", "mlxtend")
"""Packages that the examples import."""


def say(text: str) -> None:
    """Print a line of output."""
    print(printable(text))


def note(text: str, **fields: Any) -> None:
    """Print a line beside the output, to the error stream; the fields come with it in a log of JSON objects."""
    logger.info("%s", text, extra={"fields": fields})


def say_skipped(images: Any) -> None:
    """Print how many files of the data are not read or could not be read, and why."""
    if getattr(images, "left_out", None):
        from interpret.images.listing import describe_left_out

        note(describe_left_out(images.left_out), left_out=sum(found.number for found in images.left_out.values()))
    if getattr(images, "skipped", None):
        count = len(images.skipped)
        total = count + images.count_readable()[1]
        first: dict[str, str] = {}
        for file, reason in images.skipped.items():
            first.setdefault(reason, file)
        numbers = Counter(images.skipped.values()).most_common(5)
        why = [
            f"{first[reason]} ({reason})" + (f" and {number - 1:,} more" if number > 1 else "")
            for reason, number in numbers
        ]
        others = count - sum(number for _, number in numbers)
        why += [f"{others:,} for other reasons"] if others else []
        note(f"{count:,} of {total:,} files could not be read: {', '.join(why)}", skipped=count, files=total)


class Ended(SystemExit):
    """The end of the command by its own decision; any other SystemExit comes from the code of a model or a package."""


def fail(sentence: str, status: int = 2) -> NoReturn:
    """Print an error and exit; of several processes, the first that fails prints it."""
    if ranks().speaks_first():
        logger.error("interpret: %s", sentence, extra={"fields": {"status": status}})
    raise Ended(status)


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Print errors of input and system as one sentence, and exit.

    Each warning is printed once, without the line of code that raises it.
    """
    with similar_characters(), logging_to_error_stream(), _logged_as_sentences():
        yield


@contextmanager
def _logged_as_sentences() -> Iterator[None]:
    """Log errors and warnings as sentences; exit after an error."""
    before = warnings.showwarning
    said = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **line: Any) -> None:
        if not issubclass(category, UserWarning) and not error_stream.json_lines:
            before(message, category, *where, **line)
        elif str(message) not in said:
            said.add(str(message))
            logger.warning("interpret: %s", message, extra={"fields": {"category": category.__name__}})

    from interpret.support.interrupts import terminated_like_interrupted

    warnings.showwarning = show
    terminated: list[int] = []
    try:
        with terminated_like_interrupted() as terminated:
            yield
    except KeyboardInterrupt:
        fail(
            f"{'Terminated' if terminated else 'Interrupted'}. Finished work is kept in the study or model folder; the "
            "same command continues from there.",
            TERMINATED if terminated else INTERRUPTED,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Ended(1) from None
    except Ended:
        raise
    except BaseException as error:
        from interpret.support.errors import InterpretError, reason_of

        if isinstance(error, InterpretError):
            fail(str(error))
        if isinstance(error, OSError) and error.errno is not None:  # a full disk, a folder that may not be read …
            where = f" {str(error.filename)!r}" if error.filename else ""
            remedy = REMEDIES.get(error.errno, "choose another place")
            fail(f"the system cannot read or write{where}: {error.strerror}; {remedy}")
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            fail(MEMORY_IS_FULL)
        if isinstance(error, RuntimeError) and "Symlink loop" in reason_of(error):  # of Path.resolve
            fail(f"the system cannot read or write a path ({error}): choose another place")
        if isinstance(error, RuntimeError) and any(phrase in reason_of(error) for phrase in NO_MEMORY):
            fail(MEMORY_IS_FULL)
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] in EXAMPLE_PACKAGES:
            fail(f"this needs the package {error.name.split('.')[0]}: pip install 'interpret-cnn[examples]'")
        line = _line_of_model(error)
        if line is None and isinstance(error, SystemExit) and _is_of_argparse(error):  # --help of an example
            raise
        if line is not None or isinstance(error, SystemExit):
            fail(f"{line or 'the code of the model, or of a package,'} raised {reason_of(error)}")
        if error_stream.json_lines:
            logger.critical("interpret: %s", reason_of(error), exc_info=True)
            raise Ended(1) from None
        raise
    finally:
        warnings.showwarning = before


def _is_of_argparse(error: BaseException) -> bool:
    """Return whether argparse ends the program, after its help or its own message."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") == "argparse"


def _line_of_model(error: BaseException) -> str | None:
    """Return the last line of a model's file that an exception came through; None if it came through none."""
    from interpret.support.errors import MODEL_FILE

    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, line in reversed(frames):
        if str(frame.f_globals.get("__name__")).startswith(MODEL_FILE):
            return f"line {line} of {frame.f_code.co_filename!r}"
    return None
