"""What the command prints: the answer, or the one sentence of a mistake."""

from __future__ import annotations

import sys
from typing import Any, NoReturn


def say(text: str) -> None:
    print(text)


def say_skipped(images: Any) -> None:
    """Say how many files of the data were no images, and which is the first, if there are any."""
    if getattr(images, "skipped", None):
        count, (file, reason) = len(images.skipped), next(iter(images.skipped.items()))
        others = f" and {count - 1} more" if count > 1 else ""
        total = count + images.count_readable()[1]
        print(f"{count} of {total:,} files could not be read: {file} ({reason}){others}", file=sys.stderr)


def fail(sentence: str, status: int = 2) -> NoReturn:
    print(f"interpret: {sentence}", file=sys.stderr)
    sys.exit(status)
