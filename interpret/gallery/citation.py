"""What "Cite this unit" gives: a sentence, lines of Python that make a unit's pictures again, and its numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interpret.gallery.hits import Hit
from interpret.gallery.layer_page import LayerPage
from interpret.study.views.network import NetworkView
from interpret.support.version import __version__
from interpret.support.wording import count as counted


def code_pieces(network: NetworkView[Any], layer: LayerPage) -> list[str]:
    """Return the lines of Python that make a unit's pictures again: text and, at each second place, what to put there.

    That is "items", "positions", "boxes" or "unit".
    """
    kind = layer.rules[0] if layer.rules else "deconvnet"
    rule, _, overlap = kind.partition("-")
    how = (f", rule={rule!r}" if layer.rules else "") + (f", overlap={overlap!r}" if overlap else "")
    at = ", positions" if layer.positioned else ""
    opening = "\n".join(["import interpret, torch", "", *_opening(network), "items = "])
    positions = ["\npositions = ", "positions"] if layer.positioned else []
    if layer.by_box:
        positions += ["\nboxes = ", "boxes"]
        at += ", boxes=boxes"
    inputs = (
        f"{'  # top, left, bottom, right' if layer.by_box else ''}"
        f"\ninputs = torch.stack([images[item][0] for item in items])"
        f"\nshown = interpret.project(model, inputs, {layer.name!r}, "
    )
    end = f"{at}{how})\ninterpret.plot(shown)  # patches: shown.pictures, projections: shown.pixels"
    return [opening, "items", *positions, inputs, "unit", end]


def sentence_pieces(network: NetworkView[Any], layer: LayerPage) -> list[str]:
    """Return what is said of a unit after its number: text and, at each second place, a name."""
    model, data = network.model, network.data
    method = ", projected as by Zeiler and Fergus (ECCV 2014)" if "deconvnet" in layer.rules else ""
    return [
        " of ",
        layer.name,
        " in ",
        model["name"],
        f" (weights {model['weights_hash'][:12]}): the {layer.k} strongest of {counted(network.item_count, 'input')} "
        f"from {counted(network.source_count, 'image')} of ",
        data["name"],
        f" ({data['fingerprint'][:12]}){method}. interpret {__version__}.",
    ]


def _opening(network: NetworkView[Any]) -> list[str]:
    """Return the lines of Python that load the network and open the images, and refuse others than these."""
    model, data, made_from = network.model, network.data, network.study.info.get("made_from") or {}
    spec, weights = made_from.get("model") or model["spec"], made_from.get("weights") or model.get("weights")
    load = f"model = ...  # your network {model['name']!r}"
    if spec:
        load = f"model = interpret.load({_from_home(spec)!r}"
        load += f", weights={_from_home(weights)!r})" if weights else ")"
    opened = data.get("opened_from") or made_from  # which older studies have alone
    images = f"images = interpret.open_images(..., model)  # your images {data['name']!r}"
    if opened:
        images = f"images = interpret.open_images({_from_home(opened['data'])!r}, model"
        images += f", crops={opened['crops']!r}" if opened.get("crops") else ""
        images += f", scales={tuple(opened['scales'])}" if opened.get("scales") else ""
        images += f", max_pixels={opened['max_pixels']}" if opened.get("max_pixels") else ""
        images += ", reduced=True)" if opened.get("reduced") else ")"
    return [
        load,
        f"assert model.weights_hash.startswith({model['weights_hash'][:12]!r})",
        images,
        f"assert images.fingerprint.startswith({data['fingerprint'][:12]!r})",
    ]


def _from_home(path: str | list[str]) -> str | list[str]:
    """Return a path, or several, with ~ in place of the user's home folder, so that pages do not give its name away."""
    if isinstance(path, list):
        return [str(_from_home(one)) for one in path]
    home = f"{Path.home()}{os.sep}"
    return f"~/{path.removeprefix(home)}" if path.startswith(home) else path


def record(layer: LayerPage, unit: int, hits: Sequence[Hit]) -> dict[str, Any]:
    """Return what is known of a unit as numbers; a download adds its names and those of its hits."""
    data = layer.data
    density = float(data.density[unit])
    return {
        "dead": bool(data.dead[unit]),
        "density": round(density, 6) if math.isfinite(density) else None,
        "histogram": _histogram(data, unit),
        "values": [float(f"{hit.value:.6g}") for hit in hits],
        "items": [hit.image for hit in hits],
        "positions": [hit.position for hit in hits],
        **({"boxes": layer.data.rois[unit][: len(hits)].round(3).tolist()} if layer.by_box else {}),
    }


def _histogram(data: Any, unit: int) -> dict[str, Any] | None:
    start, width = float(data.histogram_start[unit]), float(data.histogram_width[unit])
    if not math.isfinite(start) or not math.isfinite(width):
        return None
    return {"start": start, "width": width, "counts": data.histogram[unit].tolist()}
