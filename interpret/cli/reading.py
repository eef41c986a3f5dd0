"""Convert the text of an option to values."""

from __future__ import annotations

import re
from typing import Any

from interpret.cli.answers import fail


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
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        fail(f"{option} must be whole numbers with commas between, not {text!r}")


def read_megapixels(number: float | None) -> int | None:
    """Return a budget in megapixels as pixels."""
    if number is not None and not 1e-6 <= number <= 1e6:
        fail(f"--max-megapixels must be above 0 and at most 1,000,000, not {number}")
    return None if number is None else round(number * 1e6)


def read_names(text: str | None) -> list[str] | None:
    """Return names that are separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def read_target(text: str | None) -> int | str | None:
    """Return a class or channel as a number, or the name of a class."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def read_queries(text: str | None, count: int) -> Any:
    """Return item numbers, or the path of a folder; for None, up to eight evenly spaced items."""
    if text is None:
        number = min(8, count)
        return [(2 * place + 1) * count // (2 * number) for place in range(number)]
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else text


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
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        fail(f"--input-shape must be three whole numbers such as 3,224,224, not {text!r}")
    return channels, height, width


def read_part(text: str | None) -> tuple[int, int] | None:
    """Return a part of the data, (2, 8) for "2/8", the second of eight; None for all of it."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        fail(f"--part must be a number and of how many, such as 2/8, not {text!r}")
    return int(found[1]), int(found[2])
