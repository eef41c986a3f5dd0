"""What the command prints: the answer, or the one sentence of a mistake."""

from __future__ import annotations

import sys
from typing import NoReturn


def say(text: str) -> None:
    print(text)


def fail(sentence: str, status: int = 2) -> NoReturn:
    print(f"interpret: {sentence}", file=sys.stderr)
    sys.exit(status)
