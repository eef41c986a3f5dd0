"""Convert the text of an option to values."""

from __future__ import annotations

import math
import re
from typing import Any

from interpret.cli.answers import fail

DIGITS = 15
"""The most digits of a number of things."""
LARGEST_INPUT = 2**28
"""The most numbers in one input, a gigabyte."""


def read_values(text: str) -> list[float]:
    """Return the values of FIRST:LAST:STEP, including the last, or of a list separated by commas."""
    import numpy as np

    if ":" not in text:
        return read_numbers(text, "--values")
    parts = read_numbers(text.replace(":", ","), "--values")
    if len(parts) != 3 or not all(np.isfinite(parts)) or parts[2] == 0 or (parts[1] - parts[0]) / parts[2] < 0:
        fail(f"--values must be FIRST:LAST:STEP, such as -60:60:2, not {text!r}")
    steps = int((parts[1] - parts[0]) / parts[2] + 1e-9)
    if steps > 100_000:
        fail(f"--values {text!r} are {steps + 1:,}: choose a longer step")
    return [parts[0] + parts[2] * step for step in range(steps + 1)]


def read_numbers(text: str, option: str) -> list[float]:
    """Return numbers that are separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        fail(f"{option} must be numbers with commas between, not {text!r}")


def read_whole_numbers(text: str, option: str) -> list[int]:
    """Return whole numbers that are separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    numbers = [found for part in parts if (found := read_whole_number(part)) is not None]
    if len(numbers) < len(parts):
        fail(f"{option} must be whole numbers below 10^{DIGITS} with commas between, not {text!r}")
    return numbers


def read_whole_number(text: str) -> int | None:
    """Return a whole number; None for other text, and for more digits than any count here has.

    >>> read_whole_number("-12"), read_whole_number("²"), read_whole_number("1" * 99)
    (-12, None, None)
    """
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) <= DIGITS else None


def read_decoding(megapixels: float | None, reduced: bool) -> dict[str, Any]:
    """Return how to decode pictures as arguments of `open_images`, those that differ from the default."""
    if megapixels is not None and not 1e-6 <= megapixels <= 1e6:
        fail(f"--max-megapixels must be above 0 and at most 1,000,000, not {megapixels}")
    pixels = {} if megapixels is None else {"max_pixels": round(megapixels * 1e6)}
    return pixels | ({"reduced": True} if reduced else {})


def read_names(text: str | None) -> list[str] | None:
    """Return names that are separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def read_target(text: str | None) -> int | str | None:
    """Return a class or channel as a number, or the name of a class."""
    number = None if text is None else read_whole_number(text)
    return text if number is None else number


def read_queries(text: str | None, count: int) -> Any:
    """Return item numbers, or the path of a folder; for None, up to eight evenly spaced items."""
    if text is None:
        number = min(8, count)
        return [(2 * place + 1) * count // (2 * number) for place in range(number)]
    parts = [part.strip() for part in text.split(",")]
    numbers = [found for part in parts if (found := read_whole_number(part)) is not None]
    return numbers if len(numbers) == len(parts) else text


def read_units(text: str, option: str, least: int) -> Any:
    """Return a number of units, None for all, or "auto"."""
    if text == "auto":
        return text
    count = None if text == "all" else read_whole_number(text)
    if text != "all" and (count is None or count < least):
        fail(f"{option} must be a number of at least {least}, auto, or all, not {text!r}")
    return count


def read_rules(text: str) -> Any:
    """Return the names of rules without repetition."""
    from interpret.backprop.rules import RULES
    from interpret.support.errors import unknown

    rules = list(dict.fromkeys(read_names(text) or []))
    if not rules:
        fail(f"--rule is empty: name at least one of {', '.join(RULES)}")
    for rule in rules:
        if rule not in RULES:
            raise unknown("rule", rule, RULES)
    return rules


def read_rule(text: str) -> Any:
    """Return the name of one rule."""
    rules = read_rules(text)
    if len(rules) > 1:
        fail(f"--rule must be one here, not {text!r}")
    return rules[0]


def read_shape(text: str | None) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) of an input."""
    if text is None:
        return None
    numbers = [read_whole_number(part.strip()) for part in text.split(",")]
    sides = [number for number in numbers if number is not None and number > 0]
    if len(numbers) != 3 or len(sides) != 3:
        fail(f"--input-shape must be three whole numbers above 0 such as 3,224,224, not {text!r}")
    if math.prod(sides) > LARGEST_INPUT:
        fail(f"--input-shape {text!r} is more than {LARGEST_INPUT:,} numbers: choose a smaller input")
    return sides[0], sides[1], sides[2]


def read_part(text: str | None) -> tuple[int, int] | None:
    """Return a part of the data, (2, 8) for "2/8", the second of eight; None for all of it."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        fail(f"--part must be a number and of how many, such as 2/8, not {text!r}")
    return int(found[1]), int(found[2])
