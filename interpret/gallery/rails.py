"""The data flow beside the list of layers, as lanes that branch and join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STEP = 12
"""Distance of lanes in pixels."""
HEAD = 44
"""Height in pixels of the part of a row in which lanes bend; below it they run straight."""


@dataclass
class Rail:
    """The lanes in one row of the list."""

    dot: int | None = None
    """The lane of the row's own node; None where lanes only pass."""
    through: list[int] = field(default_factory=list)
    """Lanes that pass the row's head."""
    into: list[int] = field(default_factory=list)
    """Lanes from which data comes into the node."""
    below: list[int] = field(default_factory=list)
    """Lanes that go on to the next row."""


def lay_rails(rows: Sequence[str | None], sources: Mapping[str, Sequence[str]]) -> list[Rail]:
    """Return the lanes beside each row; a row of None has no node.

    A block of two layers with a skip connection: the block has its own lane until the sum.

    >>> rails = lay_rails(["a", "b", "c", "sum"], {"b": ["a"], "c": ["b"], "sum": ["c", "a"]})
    >>> [(rail.dot, rail.into) for rail in rails]
    [(0, []), (1, [0]), (1, [1]), (0, [1, 0])]
    >>> rails[1].through, rails[1].below
    ([0], [0, 1])

    Args:
        rows: names of the nodes from top to bottom, which is the order of execution.
        sources: the nodes that each node reads from; those without a row are left out.
    """
    place = {name: row for row, name in enumerate(rows) if name is not None}
    last: dict[str, int] = {}
    for node, row in place.items():
        for source in sources.get(node, ()):
            if place.get(source, row) < row:
                last[source] = max(last.get(source, 0), row)
    lanes: list[str | None] = []
    rails = []
    for row, name in enumerate(rows):
        rail = Rail()
        before = {owner: lane for lane, owner in enumerate(lanes) if owner is not None}
        if name is not None:
            rail.into = [before[source] for source in sources.get(name, ()) if source in before]
            ending = [lane for owner, lane in before.items() if last[owner] == row]
            for lane in ending:
                lanes[lane] = None
            rail.dot = min(ending) if ending else _free(lanes)
            rail.through = [lane for lane, owner in enumerate(lanes) if owner is not None]
            if name in last:
                lanes.extend([None] * (rail.dot + 1 - len(lanes)))
                lanes[rail.dot] = name
        else:
            rail.through = sorted(before.values())
        rail.below = [lane for lane, owner in enumerate(lanes) if owner is not None]
        rails.append(rail)
    return rails


def _free(lanes: Sequence[str | None]) -> int:
    return next((lane for lane, owner in enumerate(lanes) if owner is None), len(lanes))


def contract(sources: Mapping[str, Sequence[str]], shown: set[str]) -> dict[str, list[str]]:
    """Return the shown nodes that each shown node reads from, directly or through nodes that are not shown.

    >>> contract({"relu": ["conv"], "pool": ["relu"], "next": ["pool", "conv"]}, {"conv", "next"})
    {'next': ['conv']}
    """
    found: dict[str, list[str]] = {}

    def of(name: str) -> list[str]:
        reached: dict[str, None] = {}
        for source in sources.get(name, ()):
            # nodes are in order of execution, so that a hidden source was resolved before
            reached |= dict.fromkeys([source] if source in shown else hidden.get(source, []))
        return list(reached)

    hidden: dict[str, list[str]] = {}
    for name in sources:
        (found if name in shown else hidden)[name] = of(name)
    return found


@dataclass(frozen=True)
class RailDrawing:
    """A rail as SVG paths, in pixels."""

    width: int
    head: str
    """The lanes in the head."""
    tail: str
    """The lanes below it, in a drawing one unit high."""
    dot: tuple[float, float] | None


def draw_rail(rail: Rail, lanes: int, head: int = HEAD) -> RailDrawing:
    """Return the drawing of a rail among so many lanes.

    >>> draw_rail(Rail(dot=0, into=[0, 1], below=[0]), lanes=2)
    RailDrawing(width=24, head='M6 0V22M18 0C18 16.5 6 5.5 6 22M6 22V44', tail='M6 0V1', dot=(6.0, 22))
    """
    step = STEP if lanes <= 14 else max(14 * STEP / lanes, 4)

    def x(lane: int) -> float:
        return round(step / 2 + lane * step, 1)

    middle = head // 2
    path = "".join(f"M{x(lane):g} 0V{head}" for lane in rail.through)
    if rail.dot is not None:
        end = x(rail.dot)
        for lane in rail.into:
            bend = f"C{x(lane):g} {middle * 0.75:g} {end:g} {middle * 0.25:g} {end:g} {middle}"
            path += f"M{x(lane):g} 0V{middle}" if lane == rail.dot else f"M{x(lane):g} 0{bend}"
        if rail.dot in rail.below:
            path += f"M{end:g} {middle}V{head}"
    tail = "".join(f"M{x(lane):g} 0V1" for lane in rail.below)
    return RailDrawing(round(step * lanes), path, tail, None if rail.dot is None else (x(rail.dot), middle))
