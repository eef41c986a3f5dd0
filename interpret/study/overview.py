"""What a study holds, from what it was computed, how long that took and what was skipped; without torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from interpret.study.damage import find_all_damage
from interpret.study.reader import UNFINISHED_MINING, UNPREDICTED, StudyReader, is_left_out, units_of
from interpret.study.timings import read_timings
from interpret.support.numbers import THIN, duration, storage, value
from interpret.support.wording import count

NAMED = 3
"""Skipped files that are named for each reason."""


def overview(study: StudyReader, check: bool = False) -> dict[str, Any]:
    """Return what `interpret study --json` prints, as values that JSON can represent.

    With `check`, all files are read to find those that are damaged.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> from torch import nn
    >>> study = Study(tempfile.mkdtemp() + "/study", nn.Sequential(nn.Conv2d(1, 4, 3)), torch.rand(12, 1, 10, 10))
    >>> study.mine(k=2)
    >>> found = overview(study)
    >>> found["holds"]["mined"], found["holds"]["units"], found["took"][0]["steps"][0]["count"]
    (['0'], 4, 12)
    """
    info = study.info
    model = {key: found for key, found in info["model"].items() if key not in ("card", "preprocess", "classes")}
    data = {key: found for key, found in info["data"].items() if key != "classes"}
    timings = read_timings(study.path)
    found = {
        "path": str(study.path),
        "bytes": sum(file.stat().st_size for file in _files(study.path)),
        "model": model | {"classes": len(info["model"]["classes"] or ())},
        "data": data | {"classes": len(info["data"]["classes"] or ())},
        "settings": info["settings"],
        "versions": info.get("versions", {}),
        "made_from": info.get("made_from", {}),
        "holds": _held(study),
        "took": [_took(part, timings) for part in dict.fromkeys(entry["part"] for entry in timings)],
        "runs": timings,
    }
    if check:
        damage = find_all_damage(study)
        found["damaged"] = [{"file": str(one.file.relative_to(study.path)), "why": one.why} for one in damage]
    return found


def _files(folder: Path) -> Iterator[Path]:
    for at, _, names in os.walk(folder):
        yield from (file for name in names if (file := Path(at, name)).is_file())


def _held(study: StudyReader) -> dict[str, Any]:
    mined = study.mined_layers
    projected: dict[str, list[str]] = {}
    for name in mined:
        for rule in study.rules(name):
            projected.setdefault(rule, []).append(name)
    sizes = Counter(
        tuple(one.get("picture", ())) for _, records in study.source_lists.records() for one in records.values()
    )
    unfinished = [file for file in _files(study.path / "unfinished") if file.suffix == ".safetensors"]
    unfinished += [file for file in (study.path / UNFINISHED_MINING,) if file.exists()]
    return {
        "layers": len(study.layers),
        "mined": mined,
        "units": sum(units_of(study.layer(name)) for name in mined),
        "left_out": [layer["name"] for layer in study.layers if is_left_out(layer)],
        "projected": projected,
        "filters": [layer["name"] for layer in study.layers if study.filter_sheet(layer["name"]).exists()],
        "connections": (study.path / "connections" / "layers.json").exists(),
        "activation_range": [name for name in mined if study.activation_range_file(name).exists()],
        "pictures": sum(sizes.values()),
        "picture_side": max((max(size) for size in sizes if size), default=None),
        "results": [{"kind": kind, "name": name} for kind, name in study.results],
        "unfinished": sorted(file.relative_to(study.path).as_posix() for file in unfinished),
    }


def _took(part: str, timings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what all runs of a part did together; interrupted ones count, killed ones left no record."""
    runs = [entry for entry in timings if entry["part"] == part]
    steps: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in runs:
        for step in entry["steps"]:
            key = str(step["name"]), str(step["unit"])
            own = steps.setdefault(key, {"name": key[0], "unit": key[1], "count": 0, "seconds": 0.0})
            own["count"] += step["count"]
            own["seconds"] = round(own["seconds"] + step["seconds"], 3)
    for own in steps.values():
        own["per_second"] = round(own["count"] / own["seconds"], 3) if own["seconds"] else None
    on = ("device", "threads", "batch_size", "workers", "ranks")
    last: dict[str, Any] = {key: runs[-1][key] for key in on if key in runs[-1]}
    return {
        "part": part,
        "outcome": runs[-1]["outcome"],
        "runs": len(runs),
        "began": runs[0]["began"],
        "seconds": round(sum(entry["seconds"] for entry in runs), 3),
        "steps": list(steps.values()),
        **last,
    }


def overview_text(found: dict[str, Any]) -> str:
    """Return an overview as text for a terminal."""
    model, data, holds = found["model"], found["data"], found["holds"]
    classes = f", {model['classes']:,} classes" if model["classes"] else ""
    sources = "" if data["items"] == data["sources"] else f" of {count(data['sources'], 'source')}"
    settings = ", ".join(f"{key} {text}" for key, text in found["settings"].items() if key != UNPREDICTED)
    about = [
        ("folder", f"{found['path']}, {storage(found['bytes'])}"),
        ("network", f"{model['name']}: {count(model['params'], 'parameter')}{classes}"),
        ("weights", f"{model['origin'] or 'as given'}, SHA-256 {model['weights_hash']}"),
        ("data", f"{data['name']}: {count(data['items'], 'image')}{sources}, fingerprint {data['fingerprint']}"),
        *(("", note) for note in data.get("notes", ())),
        ("settings", settings),
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        *_damage_lines(found),
        *(("skipped" if not number else "", line) for number, line in enumerate(_skipped_lines(data["skipped"]))),
    ]
    lines = [*_table(about), "", "Holds", *_table(_held_lines(holds, found["settings"]), indent=2), ""]
    if not found["took"]:
        return "\n".join([*lines, "Took: not recorded"]).replace(THIN, " ")
    return "\n".join([*lines, "Took", *_table(_took_lines(found["took"]), indent=2)]).replace(THIN, " ")


def _skipped_lines(skipped: dict[str, str]) -> list[str]:
    """Return how many files were skipped for each reason, the commonest first, with the names of the first ones."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        by_reason.setdefault(reason, []).append(name)
    if not by_reason:
        return ["nothing"]
    listed = sorted(by_reason.items(), key=lambda one: -len(one[1]))
    return [
        f"{count(len(names), 'file')}, as {reason}: {', '.join(names[:NAMED])}" + (" …" if len(names) > NAMED else "")
        for reason, names in listed
    ]


def _damage_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "damaged" not in found:
        return []
    lines = [f"{one['file']}: {one['why']}" for one in found["damaged"]] or ["nothing"]
    return [("damaged" if not number else "", line) for number, line in enumerate(lines)]


def _held_lines(holds: dict[str, Any], settings: dict[str, Any]) -> list[tuple[str, str]]:
    mined = holds["mined"]
    lines = [("mined", f"{count(len(mined), 'layer')}, {count(holds['units'], 'unit')}" if mined else "nothing")]
    if holds["left_out"]:
        lines.append(("left out", f"no row for each image, or no box found: {', '.join(holds['left_out'])}"))
    for rule, names in holds["projected"].items():
        lines.append((f"projected, {rule}", _of(names, mined)))
    for key, title in (("filters", "filters"), ("activation_range", "activation range")):
        if holds[key]:
            lines.append((title, _of(holds[key], mined)))
    if holds["connections"]:
        lines.append(("connections", "between the mined layers"))
    if holds["pictures"]:
        side = f", {holds['picture_side']} pixels at most" if holds["picture_side"] else ""
        lines.append(("pictures", f"of {count(holds['pictures'], 'source')}{side}"))
    lines += [("result", f"{one['kind']} {one['name']}".strip()) for one in holds["results"]]
    if UNPREDICTED in settings:
        lines.append(("no predictions", f"as {settings[UNPREDICTED]}"))
    return lines + [("unfinished", name) for name in holds["unfinished"]]


def _of(names: list[str], mined: list[str]) -> str:
    return "all mined layers" if set(names) == set(mined) else count(len(names), "layer")


def _took_lines(took: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for part in took:
        on = [str(part["device"])] if "device" in part else []
        on += [f"rank 0 of {part['ranks']}"] if "ranks" in part else []
        on += [count(part["threads"], "thread")] if "threads" in part else []
        on += [f"batches of {part['batch_size']}"] if "batch_size" in part else []
        outcome = part["outcome"] + (f" in {part['runs']} runs" if part["runs"] > 1 else "")
        lines.append((part["part"], duration(part["seconds"]), outcome, ", ".join(on)))
        for step in part["steps"]:
            speed = "" if step["per_second"] is None else f"{value(step['per_second'])} {step['unit']}/s"
            lines.append((f"  {step['name']}", duration(step["seconds"]), f"{step['count']:,} {step['unit']}", speed))
    return lines


def _table(rows: Iterable[tuple[str, ...]], indent: int = 0) -> list[str]:
    """Return rows as lines whose columns are aligned."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (" " * indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
