"""The list of layers on the network's page: a row each, with the flow of data beside the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpret.gallery.layer_page import LayerPage
from interpret.gallery.rails import HEAD, RailDrawing, contract, draw_rail, lay_rails

SMALL_HEAD = 28
"""Height in pixels of the part of a row in which lanes bend, for rows without units."""
JOIN_NAMES = {"add": "sum", "sub": "difference", "cat": "concatenation", "mul": "product", "concat": "concatenation"}


@dataclass(frozen=True)
class Row:
    """A row of the list: a mined layer, consecutive layers that were not mined, or a place where branches meet."""

    rail: RailDrawing | None
    head: int = SMALL_HEAD
    """Height in pixels of the rail's head."""
    layer: LayerPage | None = None
    unmined: tuple[LayerPage, ...] = ()
    join: str = ""


def list_rows(layers: Sequence[LayerPage], flow: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of the list.

    Args:
        layers: the network's layers in order of execution.
        flow: modules and joins in order of execution with what feeds them, as `Study.flow` returns them; empty: the
            rows have no rails.
    """
    groups = _group(_with_joins(layers, flow))
    heads = [HEAD if _is_mined(group) else SMALL_HEAD for group in groups]
    drawings = _draw_rails(groups, heads, flow) if flow else [None] * len(groups)
    kinds = {node["name"]: node["kind"] for node in flow if node["join"]}
    rows = []
    for group, head, drawing in zip(groups, heads, drawings, strict=True):
        if isinstance(group, str):
            rows.append(Row(drawing, head, join=JOIN_NAMES.get(kinds[group], kinds[group])))
        elif group[0].mined:
            rows.append(Row(drawing, head, layer=group[0]))
        else:
            rows.append(Row(drawing, head, unmined=tuple(group)))
    return rows


def _with_joins(layers: Sequence[LayerPage], flow: Sequence[Mapping[str, Any]]) -> list[LayerPage | str]:
    """Return the layers with the names of the joins where these are executed."""
    order: list[LayerPage | str] = []
    place = {node["name"]: j for j, node in enumerate(flow)}
    passed = 0
    for layer in layers:
        until = place.get(layer.name, passed)
        order += [node["name"] for node in flow[passed:until] if node["join"]]
        passed = max(passed, until)
        order.append(layer)
    return order + [node["name"] for node in flow[passed:] if node["join"]]


def _group(order: Sequence[LayerPage | str]) -> list[list[LayerPage] | str]:
    """Gather consecutive layers that were not mined; a mined layer and a join stand alone."""
    groups: list[list[LayerPage] | str] = []
    for one in order:
        before = groups[-1] if groups else None
        if isinstance(one, str):
            groups.append(one)
        elif isinstance(before, list) and not one.mined and not before[-1].mined:
            before.append(one)
        else:
            groups.append([one])
    return groups


def _is_mined(group: list[LayerPage] | str) -> bool:
    return not isinstance(group, str) and group[0].mined


def _draw_rails(
    groups: Sequence[list[LayerPage] | str], heads: Sequence[int], flow: Sequence[Mapping[str, Any]]
) -> list[RailDrawing | None]:
    traced = {node["name"] for node in flow}
    nodes: list[str | None] = []
    for group in groups:
        name = group if isinstance(group, str) else group[0].name if group[0].mined else None
        nodes.append(name if name in traced else None)
    sources = contract({node["name"]: node["sources"] for node in flow}, {node for node in nodes if node})
    rails = lay_rails(nodes, sources)
    lanes = max((lane + 1 for rail in rails for lane in (*rail.below, *rail.into, rail.dot or 0)), default=1)
    return [draw_rail(rail, lanes, head) for rail, head in zip(rails, heads, strict=True)]
