"""A small study of generated pictures, with names that a careless page would not survive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from interpret.analyses.predictions.result import Predictions
from interpret.support.files import layer_path

EVIL_CLASS = "<script>alert(1)</script>"
EVIL_FILE = '"><img src=x onerror=alert(1)>.jpg'
RTL = "صورة القطة.jpg"
LONG = "long" * 75
NAMES = [EVIL_FILE, RTL, LONG, "emoji 🐈.jpg", *(f"photo {i} & co.jpg" for i in range(4, 12))]
SAMPLE = np.arange(len(NAMES)) * 10 + 1
"""The items of the sample, one of each picture."""
CLASSES = [EVIL_CLASS, "tabby cat", "ship"]
# name, kind, channels, side of the output, receptive field and stride, mined
LAYERS: list[tuple[str, str, int, int | None, tuple[int, int] | None, bool]] = [
    ("features.0", "Conv2d", 8, 30, (3, 2), True),
    ("features.1", "ReLU", 8, 30, (3, 2), False),
    ("odd/layer <b> 100%", "Conv2d", 6, 14, (15, 4), True),
    ("features", "Sequential", 6, 14, (15, 4), False),
    ("classifier.1", "Conv2d", 5, 2, (200, 16), True),
    ("fc", "Linear", 4, None, None, True),
]
EACH_TYPE = (
    "index.html",
    "how-to-read.html",
    "findings.html",
    "favourites.html",
    "compare.html#features.0/0,features.0/2",
    "layers/features.0/index.html",
    "layers/features.0/0.html",
    "images/index.html",
    "images/0.html",
    "classes/0.html",
)


def make_study(path: Path, k: int = 9, without: tuple[str, ...] = ()) -> Path:
    """Write a small study of generated pictures in the format of `interpret.Study`."""
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    def save(image: Image.Image, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)

    (path / "mined").mkdir(parents=True)
    records = []
    for name, kind, channels, side, field, mined in LAYERS:
        records.append(
            {
                "name": name,
                "kind": kind,
                "leaf": kind != "Sequential",
                "input_shape": [3, 64, 64],
                "output_shape": [channels, side, side] if side else [channels],
                "params": 100,
                "macs": 12_345,
                "receptive_field": {"size": [field[0]] * 2, "stride": [field[1]] * 2, "start": [0, 0]}
                if field
                else None,
            }
        )
        if not mined or name in without:
            continue
        tile = min(field[0], 64) if field else 64
        columns = int(np.ceil(np.sqrt(k)))
        rows = int(np.ceil(k / columns))
        sources = np.stack([rng.permutation(len(NAMES))[:k] for _ in range(channels)])
        values = -np.sort(-rng.gamma(3, 10, (channels, k)), axis=1).astype(np.float32)
        images = sources * 10 + 1
        dead = np.zeros(channels, bool)
        dead[1], values[1] = True, -np.arange(1, k + 1)
        values[2, 2:], images[2, 2:], sources[2, 2:] = -np.inf, -1, -1  # a unit with two hits
        values[3], images[3], sources[3] = -np.inf, -1, -1  # and one without any
        low = rng.random((channels, k, 2), np.float32) / 2
        class_means = rng.random((len(CLASSES), channels), np.float32)
        class_means[1] = np.nan
        save_file(
            {
                "values": values,
                "images": images,
                "sources": sources,
                "labels": np.where(sources >= 0, sources % 4 - 1, -1),
                "positions": rng.integers(0, side, (channels, k, 2)) if side else np.zeros((channels, k, 2), np.int64),
                "boxes": np.concatenate([low, low + 0.3], axis=2),
                "dead": dead,
                "histogram": rng.integers(0, 9, (channels, 64)) * (np.arange(channels) != 3)[:, None],
                "histogram_start": np.full(channels, -8.0),
                "histogram_width": np.full(channels, 0.5),
                "density": rng.random(channels, np.float32),
                "class_means": class_means,
                "sample_images": SAMPLE,
                "sample_maxima": rng.normal(size=(len(SAMPLE), channels)).astype(np.float32),
            },
            path / "mined" / f"{layer_path(name)}.safetensors",
        )
        for unit in range(channels):
            rules = ("deconvnet", "guided") if name == "features.0" else ("deconvnet",)
            for folder in ("patches", *(f"projections/{rule}" for rule in rules)):
                sprite = picture(rows * tile, columns * tile)
                save(sprite, path / folder / layer_path(name) / f"{unit:04d}.webp")
        extend_study(path, rng, name, channels, len(records) - 1)
    save(picture(44, 4 * 8 * 12 - 4), path / "filters" / "features.0.png")
    samples = {}
    for j, item in enumerate(SAMPLE.tolist()):
        save(picture(64, 64), path / "samples" / f"{item}.webp")
        samples[item] = {"source": j, "name": NAMES[j], "label": j % 4 - 1}
        samples[item] |= {"classes": [0, 3], "probabilities": [0.75, 0.25]}
    (path / "samples.json").write_text(json.dumps(samples))
    flow = [("features.0", "Conv2d", [""]), ("features.1", "ReLU", ["features.0"])]
    flow += [("odd/layer <b> 100%", "Conv2d", ["features.1"]), ("join 1", "add", ["odd/layer <b> 100%", "features.1"])]
    flow += [("classifier.1", "Conv2d", ["join 1"]), ("fc", "Linear", ["classifier.1"])]
    nodes = [{"name": n, "kind": kind, "sources": of, "join": n.startswith("join")} for n, kind, of in flow]
    (path / "flow.json").write_text(json.dumps(nodes))
    for source in range(len(NAMES)):
        save(picture(48, 64), path / "sources" / f"{source}.jpg")
    info = {
        "format": 1,
        "versions": {"interpret-cnn": "0"},
        "model": {
            "name": "net <i>",
            "spec": "net",
            "origin": "Made for a test & nothing else.",
            "weights_hash": "0123456789abcdef" * 4,
            "params": 1_235_496,
            "input_shape": [3, 64, 64],
            "classes": [*CLASSES, "lighthouse"],
            "card": f"# A card\n\nIt says `{EVIL_CLASS}`.\n\n- one\n\n| a | b |\n|---|---|\n| 1 | 2 |",
            "preprocess": None,
        },
        "data": {
            "name": "pictures",
            "fingerprint": "ab" * 32,
            "items": 120,
            "sources": len(NAMES),
            "classes": CLASSES,
            "skipped": {EVIL_FILE: "does not decode"},
        },
        "settings": {"k": k, "seed": 0},
        "layers": records,
    }
    (path / "study.json").write_text(json.dumps(info))
    numbers = np.arange(len(NAMES))
    Predictions(
        model="net <i>",
        data="pictures",
        names=NAMES,
        pictures=np.zeros((1, 4, 4, 3), np.uint8),
        top=np.stack([numbers % 4, (numbers + 1) % 4], 1),
        probabilities=np.tile([0.875, 0.125], (len(NAMES), 1)),
        truth=np.full(len(NAMES), -1),
        true_probabilities=np.full(len(NAMES), np.nan),
        classes=[*CLASSES, "lighthouse"],
        sources=numbers,
        class_count=4,
    ).save(path / "results" / "predictions" / "images.safetensors")
    sources = {i: {"name": name, "width": 640, "height": 480, "label": i % 4 - 1} for i, name in enumerate(NAMES)}
    (path / "sources.json").write_text(json.dumps(sources))
    return path


def extend_study(path: Path, rng: np.random.Generator, name: str, channels: int, place: int) -> None:
    """Write a layer's spread, and weights that connect each of its units with unit 0 of the first layer."""
    items = np.full((channels, 5, 4), -1, np.int64)
    items[:, :, :3] = rng.permuted(np.broadcast_to(SAMPLE, (channels, 5, len(SAMPLE))), axis=2)[:, :, :3]
    low = rng.random((channels, 5, 4, 2), np.float32) / 2
    arrays = {
        "items": items,
        "values": rng.random((channels, 5, 4), np.float32),
        "positions": np.zeros((channels, 5, 4, 2), np.int64),
        "boxes": np.concatenate([low, low + 0.2], axis=3),
    }
    for folder in ("spread", "connections"):
        (path / folder).mkdir(exist_ok=True)
    save_file(arrays, path / "spread" / f"{layer_path(name)}.safetensors")
    none, one = np.full((channels, 6), -1), np.zeros((channels, 6), np.int64)
    into = none.copy()
    into[:, 0] = 0 if place else -1
    out = none.copy()
    out[0, 0] = 2
    arrays = {"in_layers": into, "in_units": one, "in_weights": np.full((channels, 6), -0.5, np.float32)}
    arrays |= {"out_layers": out, "out_units": one, "out_weights": np.full((channels, 6), 0.25, np.float32)}
    arrays |= {"kernels": rng.normal(size=(channels, 6, 3, 3)).astype(np.float32)}
    save_file(arrays, path / "connections" / f"{layer_path(name)}.safetensors")
