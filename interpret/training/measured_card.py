"""Write the measured accuracy into a model card."""

from __future__ import annotations

MEASUREMENT_MARKERS = ("<!-- measured:begin -->", "<!-- measured:end -->")
"""The markers around the accuracy in a model card."""


def with_measurement(card: str, measurement: str) -> str:
    """Return a model card with a measurement between its markers, which are added at its end if it has none.

    >>> print(with_measurement("# LeNet", "99 %"))
    # LeNet
    <BLANKLINE>
    <!-- measured:begin -->
    99 %
    <!-- measured:end -->
    <BLANKLINE>
    """
    begin, end = MEASUREMENT_MARKERS
    block = f"{begin}\n{measurement}\n{end}"
    before, found, rest = card.rpartition(begin)
    _, closed, after = rest.partition(end)
    if found and closed:
        return before + block + after
    return f"{card.rstrip()}\n\n{block}\n".lstrip()
