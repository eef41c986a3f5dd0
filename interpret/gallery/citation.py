"""What "Cite this unit" gives: lines of Python that make a unit's pictures again, and its numbers as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interpret.gallery.hits import Hit
from interpret.gallery.layer_page import LayerPage
from interpret.study.views.network import NetworkView


def write_code(network: NetworkView[Any], layer: LayerPage, unit: int, hits: Sequence[Hit]) -> str:
    """Return the lines of Python that make a unit's pictures again."""
    positions = [f"positions = {[hit.position for hit in hits]}"] if layer.positioned else []
    at = ", positions" if layer.positioned else ""
    if layer.by_box:
        boxes = [layer.data.rois[unit, hit.rank - 1].round(3).tolist() for hit in hits]
        positions.append(f"boxes = {boxes}  # top, left, bottom, right")
        at += ", boxes=boxes"
    kind = layer.rules[0] if layer.rules else "deconvnet"
    rule, _, overlap = kind.partition("-")
    how = (f", rule={rule!r}" if layer.rules else "") + (f", overlap={overlap!r}" if overlap else "")
    return "\n".join(
        [
            "import interpret, torch",
            "",
            *_opening(network),
            f"items = {[hit.image for hit in hits]}",
            *positions,
            "inputs = torch.stack([images[item][0] for item in items])",
            f"shown = interpret.project(model, inputs, {layer.name!r}, {unit}{at}{how})",
            "interpret.plot(shown)  # patches: shown.pictures, projections: shown.pixels",
        ]
    )


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


def record(network: NetworkView[Any], layer: LayerPage, unit: int, hits: Sequence[Hit]) -> dict[str, Any]:
    """Return what is known of a unit as numbers, for other programs."""
    data = layer.data
    density = float(data.density[unit])
    return {
        "network": network.model["name"],
        "data": network.data["name"],
        "layer": layer.name,
        "unit": unit,
        "dead": bool(data.dead[unit]),
        "density": round(density, 6) if math.isfinite(density) else None,
        "histogram": {
            "start": float(data.histogram_start[unit]),
            "width": float(data.histogram_width[unit]),
            "counts": data.histogram[unit].tolist(),
        },
        "values": [float(f"{hit.value:.6g}") for hit in hits],
        "items": [hit.image for hit in hits],
        "positions": [hit.position for hit in hits],
        **({"boxes": layer.data.rois[unit][: len(hits)].round(3).tolist()} if layer.by_box else {}),
        "sources": [hit.source.name for hit in hits],
        "labels": [hit.label_name for hit in hits],
    }
