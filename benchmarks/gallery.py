"""Time and size of writing a gallery of many units, and time of opening it from disk in headless Chromium.

    python benchmarks/gallery.py [--units 100000] [--keep FOLDER] [--sizes]
    python benchmarks/gallery.py --parts docs/gallery.md [--study STUDY] [--before STUDY GALLERY] [-- ARGUMENTS]
    python benchmarks/gallery.py --parts docs/gallery.md --added STUDY

The study is synthetic. Its patches are cut from the 230 demo photographs; its projections are edges of these patches,
which compress about as well as a deconvnet's. Sprites are hard links to a pool of two thousand, so that the disk
stores each only once; bytes per unit count each link. Browser times run from the start of a navigation until all
visible images are decoded. With `--parts`, a real gallery is made instead, by `interpret gallery` with these arguments
or from a study that is there, and the time and the bytes of its parts are written, beside those of an earlier one.
With `--added`, the CPU time that optimised images add to a study without them is written below.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from interpret.gallery import write_gallery
from interpret.study.study import Study
from interpret.study.timings import read_timings
from interpret.support.files import layer_path

K, SIDE, SAMPLE, CLASSES, WIDEST = 9, 64, 256, 20, 2048
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync".split()


# ---- a synthetic study ---------------------------------------------------------------------------------------


def photographs() -> list[Image.Image]:
    package = find_spec("ai_benchmark")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("needs the photographs of the demo packages: pip install 'interpret-cnn[demo]'")
    root = Path(package.submodule_search_locations[0], "data")
    files = sorted(file for file in root.rglob("*.jpg") if "_segmented" not in file.name)
    found = []
    for file in files[:230]:
        picture = Image.open(file).convert("RGB")
        picture.thumbnail((512, 512))
        found.append(picture)
    return found


def tiles(rng: np.random.Generator, pictures: list[Image.Image], side: int) -> np.ndarray:
    """Return nine patches [9, side, side, 3], each from a different photograph, at random scales."""
    cut = []
    for choice in rng.choice(len(pictures), K, replace=False).tolist():
        picture = pictures[choice]
        size = int(rng.integers(side // 2, min(picture.size)))
        left, top = (int(rng.integers(0, length - size + 1)) for length in picture.size)
        cut.append(np.asarray(picture.resize((side, side), Image.Resampling.BOX, (left, top, left + size, top + size))))
    return np.stack(cut)


def signals(rng: np.random.Generator, patches: np.ndarray) -> np.ndarray:
    """Return synthetic projections of the patches: their edges around a random point, on mid-grey."""
    values = patches.astype(np.float32)
    edges = (
        values - (np.roll(values, 2, 1) + np.roll(values, -2, 1) + np.roll(values, 2, 2) + np.roll(values, -2, 2)) / 4
    )
    side = patches.shape[1]
    y, x = np.mgrid[:side, :side] / side
    centre = rng.uniform(0.3, 0.7, (2, K, 1, 1))
    window = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.05)[..., None]
    signal = edges * window
    signal /= np.percentile(np.abs(signal), 99, axis=(1, 2, 3), keepdims=True) + 1e-6
    return (np.clip(signal / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def sheet(nine: np.ndarray) -> np.ndarray:
    side = nine.shape[1]
    return nine.reshape(3, 3, side, side, 3).swapaxes(1, 2).reshape(3 * side, 3 * side, 3)


def encode(picture: np.ndarray, form: str = "WEBP", quality: int = 80) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, form, quality=quality, **({"method": 2} if form == "WEBP" else {}))
    return file.getvalue()


def make_study(path: Path, units: int, pool: int = 2000) -> list[int]:
    """Write a study of `units` units in layers of up to 2,048, and return the layer widths."""
    rng = np.random.default_rng(0)
    pictures = photographs()
    path.mkdir(parents=True)

    def sprites(seed: int) -> tuple[bytes, bytes]:
        rng = np.random.default_rng(seed)
        patches = tiles(rng, pictures, SIDE)
        return encode(sheet(patches)), encode(sheet(signals(rng, patches)))

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        made = list(workers.map(sprites, range(min(pool, units))))
    (path / "pool").mkdir()
    for number, pair in enumerate(made):
        for kind, content in zip(("patches", "projections"), pair, strict=True):
            (path / "pool" / f"{kind}{number}").write_bytes(content)

    widths = [WIDEST] if units > WIDEST else []  # one wide layer, to time its sheet; the others as in a typical network
    while sum(widths) < units:
        widths.insert(len(widths) - 1 if widths else 0, min(64 << min(len(widths) // 12, 4), units - sum(widths)))
    names = [f"stage{j // 12 + 1}.{j % 12}.conv" for j in range(len(widths))]
    factors = rng.normal(size=(SAMPLE, 12)).astype(np.float32)
    records, nodes, before = [], [], ""
    for index, (name, width) in enumerate(zip(names, widths, strict=True)):
        size = min(7 + 6 * index, 224)
        records.append(record(name, width, size))
        save_layer(path, rng, name, index, widths, factors, len(pictures))
        nodes.append({"name": name, "kind": "Conv2d", "sources": [before], "join": False})
        before = name
        if index % 3 == 2:
            nodes.append({"name": f"join {index}", "kind": "add", "sources": [name, names[index - 2]], "join": True})
            before = f"join {index}"
        for kind in ("patches", "projections"):
            folder = path / ("projections/deconvnet" if kind == "projections" else kind) / layer_path(name)
            folder.mkdir(parents=True)
            for unit in range(width):
                os.link(path / "pool" / f"{kind}{(index * 97 + unit) % len(made)}", folder / f"{unit:04d}.webp")
    shutil.rmtree(path / "pool")
    save_pictures(path, rng, pictures)
    (path / "flow.json").write_text(json.dumps(nodes))
    info = {
        "format": 1,
        "versions": {},
        "model": {"name": "synthetic", "spec": None, "origin": f"{units:,} synthetic units", "weights_hash": "0" * 64}
        | {"params": 1, "input_shape": [3, 224, 224], "classes": None, "card": None, "preprocess": None},
        "data": {"name": "photographs", "fingerprint": "0" * 64, "items": 4004, "sources": len(pictures)}
        | {"classes": [f"class {label}" for label in range(CLASSES)], "skipped": {}},
        "settings": {"k": K, "seed": 0, "dtype": "float32"},
        "made_from": {},
        "layers": records,
    }
    (path / "study.json").write_text(json.dumps(info))
    return widths


def record(name: str, width: int, size: int) -> dict[str, Any]:
    field = {"size": [size, size], "stride": [4, 4], "start": [0, 0]}
    shape = {"input_shape": [64, 56, 56], "output_shape": [width, 56, 56]}
    return {
        "name": name,
        "kind": "Conv2d",
        "leaf": True,
        "params": 9 * width,
        "macs": 1,
        "receptive_field": field,
    } | shape


def save_layer(
    path: Path, rng: np.random.Generator, name: str, index: int, widths: list[int], factors: np.ndarray, sources: int
) -> None:
    width = widths[index]
    chosen = np.argsort(rng.random((width, sources)), axis=1)[:, :K]
    low = rng.random((width, K, 2), np.float32) / 2
    maxima = factors @ rng.normal(size=(12, width)).astype(np.float32) + rng.normal(size=(SAMPLE, width)).astype("f4")
    dead = rng.random(width) < 0.02
    mined = {
        "values": -np.sort(-rng.gamma(3, 10, (width, K)), axis=1).astype(np.float32),
        "images": chosen * 17,
        "sources": chosen,
        "labels": chosen % CLASSES,
        "positions": rng.integers(0, 56, (width, K, 2)),
        "boxes": np.concatenate([low, low + 0.3], axis=2),
        "dead": dead,
        "histogram": rng.poisson(200 * np.exp(-((np.arange(64) - 25) ** 2) / 200), (width, 64)),
        "histogram_start": np.full(width, -8.0),
        "histogram_width": np.full(width, 0.5),
        "density": rng.random(width, np.float32),
        "class_means": rng.gamma(1, 1, (CLASSES, width)).astype(np.float32),
        "sample_images": np.arange(SAMPLE) * 13,
        "sample_maxima": maxima,
    }
    low = rng.random((width, 5, 4, 2), np.float32) / 2
    spread = {
        "items": rng.integers(0, SAMPLE, (width, 5, 4)) * 13,
        "values": rng.random((width, 5, 4), np.float32),
        "positions": np.zeros((width, 5, 4, 2), np.int64),
        "boxes": np.concatenate([low, low + 0.3], axis=3),
    }
    weights: dict[str, np.ndarray] = {"kernels": rng.normal(size=(width, 6, 3, 3)).astype(np.float32)}
    for direction, other in (("in", index - 1), ("out", index + 1)):
        exists = 0 <= other < len(widths)
        weights[f"{direction}_layers"] = np.full((width, 6), other if exists else -1)
        weights[f"{direction}_units"] = (
            rng.integers(0, widths[other], (width, 6)) if exists else np.full((width, 6), -1)
        )
        weights[f"{direction}_weights"] = rng.normal(size=(width, 6)).astype(np.float32)
    for folder, arrays in (("mined", mined), ("spread", spread), ("connections", weights)):
        (path / folder).mkdir(exist_ok=True)
        save_file(
            {key: np.ascontiguousarray(one) for key, one in arrays.items()},
            path / folder / f"{layer_path(name)}.safetensors",
        )


def save_pictures(path: Path, rng: np.random.Generator, pictures: list[Image.Image]) -> None:
    (path / "sources").mkdir()
    (path / "samples").mkdir()
    sources, samples = {}, {}
    for number, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((320, 320))
        small.save(path / "sources" / f"{number}.jpg", quality=85)
        sources[number] = {"name": f"photograph {number}.jpg", "width": picture.width, "height": picture.height}
        sources[number]["label"] = number % CLASSES
    for item in (np.arange(SAMPLE) * 13).tolist():
        number = int(rng.integers(len(pictures)))
        pictures[number].resize((224, 224)).save(path / "samples" / f"{item}.webp", quality=80, method=2)
        samples[item] = {"source": number, "name": sources[number]["name"], "label": number % CLASSES}
    (path / "sources.json").write_text(json.dumps(sources))
    (path / "samples.json").write_text(json.dumps(samples))


# ---- measurements ------------------------------------------------------------------------------------------------


def print_sizes(gallery: Path, units: int) -> None:
    sizes: dict[str, int] = {}
    for folder, _, files in os.walk(gallery):
        top = Path(folder).relative_to(gallery).parts[:1] or ("",)
        sizes[top[0]] = sizes.get(top[0], 0) + sum((Path(folder) / name).stat().st_size for name in files)
    pictures = sizes["patches"] + sizes["projections"]
    print(
        f"per unit: images {pictures / units / 1024:.1f} KB (target: 16), HTML {sizes['layers'] / units / 1024:.1f} KB"
    )
    print(
        f"total {sum(sizes.values()) / 1e6:,.0f} MB: "
        + ", ".join(f"{k or 'pages'} {v / 1e6:,.1f}" for k, v in sizes.items())
    )


# in sheets and lists of layers, test the rows first, because measuring an image inside a row lays out the row
PICTURES = """const inView = (e) => { const r = e.getBoundingClientRect();
        return r.bottom > 0 && r.top < innerHeight && r.width > 0; };
    const rows = '.sheet > li, .layers > li';
    const pictures = [...document.querySelectorAll('img, svg image')].filter((e) => !e.closest(rows));
    for (const row of document.querySelectorAll(rows)) {
        if (inView(row)) pictures.push(...row.querySelectorAll('img'));
    }
    const shown = pictures.filter((e) => e.checkVisibility() && inView(e));
"""
IN_VIEW = (
    "async () => {"
    + PICTURES
    + """
    await Promise.all(shown.map((one) => one.decode()));
    await new Promise(requestAnimationFrame);
    return performance.now();
}"""
)
BLANK = "() => {" + PICTURES + "return shown.filter((e) => !(e.complete && e.naturalWidth)).length; }"


def browse(gallery: Path, widths: list[int], names: list[str], visits: int = 30) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto("about:blank")
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url))

        def visit(path: str) -> float:
            page.goto(f"{gallery.as_uri()}/{path}", wait_until="commit")
            page.wait_for_load_state("domcontentloaded")
            return float(page.evaluate(IN_VIEW))

        first = []
        for _ in range(3):
            loaded.clear()
            first.append(visit("index.html"))
        requested = sum("patches/" in url or "projections/" in url for url in loaded)
        print(
            f"first page {statistics.median(first):.0f} ms, at most {max(first):.0f} (target: 1000); "
            f"{requested} sprites loaded"
        )

        choice = random.Random(0)
        took = []
        for _ in range(visits):
            index = choice.randrange(len(names))
            took.append(visit(f"layers/{names[index]}/{choice.randrange(widths[index])}.html"))
        print(f"unit page {statistics.median(took):.0f} ms, at most {max(took):.0f} of {visits} (target: 500)")

        page.goto(f"{gallery.as_uri()}/index.html")
        start = time.perf_counter()
        page.keyboard.press("/")
        page.wait_for_selector("[role=option]")
        opening = 1000 * (time.perf_counter() - start)
        times = page.evaluate(
            """async (queries) => {
                const input = document.querySelector('dialog input');
                const took = [];
                for (const query of queries) {
                    const start = performance.now();
                    input.value = query;
                    input.dispatchEvent(new Event('input'));
                    await new Promise(requestAnimationFrame);
                    took.push(performance.now() - start);
                }
                return took;
            }""",
            ["s", "stage", "stage2 17", "63", "class 1", "photograph 22", "nothing of that name", "7 conv", "1"],
        )
        print(
            f"search opens in {opening:.0f} ms, responds in {statistics.median(times):.0f} ms, "
            f"at most {max(times):.0f} (target: 100)"
        )

        widest = widths.index(max(widths))
        took_sheet = visit(f"layers/{names[widest]}/index.html")
        height = page.evaluate("document.documentElement.scrollHeight")
        blanks, steps = 0, 0
        page.mouse.move(600, 400)
        for _ in range(0, height, 400):
            page.mouse.wheel(0, 400)
            page.evaluate("new Promise(requestAnimationFrame)")
            blanks += page.evaluate(BLANK)
            steps += 1
            if page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2"):
                break
        print(
            f"sheet of {max(widths):,} units {took_sheet:.0f} ms; "
            f"{blanks} blank tiles in {steps} steps of scrolling through it"
        )
        browser.close()


def compare_sizes(count: int = 40) -> None:
    """Print the size, the encoding time and the PSNR of sprites by format, quality and side."""
    pictures = photographs()
    print(f"{'sprite':24} {'patches':>9} {'projections':>12} {'per unit':>9} {'PSNR':>6}")
    for side in (64, 96, 128):
        originals = []
        for one in range(count):
            rng = np.random.default_rng(one)
            patches = tiles(rng, pictures, side)
            originals.append((sheet(patches), sheet(signals(rng, patches))))
        for form, quality in (("WEBP", 80), ("WEBP", 90), ("AVIF", 60), ("AVIF", 75), ("JPEG", 85)):
            start, sizes, errors = time.perf_counter(), [[], []], []
            for pair in originals:
                for kind, picture in enumerate(pair):
                    coded = encode(picture, form, quality)
                    sizes[kind].append(len(coded))
                    decoded = np.asarray(Image.open(BytesIO(coded)).convert("RGB"), np.float64)
                    errors.append(np.mean((decoded - picture) ** 2))
            kilobytes = [statistics.mean(one) / 1024 for one in sizes]
            psnr = 10 * np.log10(255**2 / np.mean(errors))
            each = 1000 * (time.perf_counter() - start) / count
            print(
                f"{side:3} px {form} {quality:3}          {kilobytes[0]:6.1f} KB {kilobytes[1]:9.1f} KB "
                f"{sum(kilobytes):6.1f} KB"
                f" {psnr:6.1f} dB, {each:.0f} ms per unit"
            )


# ---- the parts of a real gallery ------------------------------------------------------------------------------

PARTS = {"mining": "mining", "projection": "projecting", "synthesis": "optimised images", "gallery": "pages"}
REST = "filters, connections, activation range, effective receptive fields, predictions"
BLOCK = 4096
FILES = {
    "patches and projections": ("patches/", "projections/"),
    "other pictures": ("sources/", "samples/", "filters/", "images/index", "findings/", "optimised"),
    "pages of units": ("layers/",),
    "pages of images": ("images/",),
    "pages of classes": ("classes/",),
    "other pages, search, list of checksums": ("",),
}
"""How the paths of the files of each part begin; the first that fits counts."""


def parts(command: list[str], made: Path | None, before: list[Path] | None) -> str:
    """Make a gallery, or write that of a finished study, and return tables of the time and the bytes of its parts."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        what = [made] if made else [*command, "--study", folder / "study"]
        subprocess.run(
            [sys.executable, "-m", "interpret", "gallery", *map(str, what), "--out", folder / "g"], check=True
        )
        study = made or folder / "study"
        times = [*([seconds(before[0])] if before else []), seconds(study)]
        sizes = [*([bytes_of(before[1])] if before else []), bytes_of(folder / "g")]
        opened = Study.open(study)
        units = sum(len(opened.mined(name).values) for name in opened.mined_layers)
        pictures, model = len(opened.sources()), opened.info["model"]["name"]
    columns = ("before", "after") if before else ("",)
    text = (
        "# What a gallery takes\n\n"
        f"`interpret gallery {' '.join(command)}`: {units:,} units of {model}, whose hits lie in {pictures:,} "
        "pictures. Written by `benchmarks/gallery.py --parts`.\n\n"
    )
    if times:
        text += "| part | " + " | ".join(f"seconds {column}" for column in columns[: len(times)]) + " |\n"
        text += "|---|" + "---:|" * len(times) + "\n"
        for part in dict.fromkeys(part for one in times for part in one):
            text += f"| {part} | " + " | ".join(f"{one.get(part, 0):.0f}" for one in times) + " |\n"
        text += f"\nOn {os.cpu_count()} cores.\n\n"
    text += (
        "| files | "
        + " | ".join(f"number {column} | MB {column} | MB of blocks {column}" for column in columns)
        + " |\n"
    )
    text += "|---|" + "---:|" * 3 * len(columns) + "\n"
    for part in [*FILES, "all"]:
        cells = [f"{one[part][0]:,} | {one[part][1] / 1e6:.1f} | {one[part][2] / 1e6:.1f}" for one in sizes]
        text += f"| {part} | " + " | ".join(cells) + " |\n"
    return (
        text
        + f"\nMB are 10⁶ bytes; blocks are of {BLOCK:,} bytes, of which most file systems give a file whole ones.\n"
    )


ADDED = "## What optimised images add"


def added(study: Path, rounds: int = 2) -> str:
    """Return the CPU time that `--synthesise auto` adds to the gallery of a finished study without optimised images.

    Both commands find everything else done, and write the pages. They alternate, each on a copy of the study.
    """
    opened = Study.open(study)
    origin, spent = opened.info["made_from"], {"0": list[float](), "auto": list[float]()}
    for _ in range(rounds):
        for units, took in spent.items():
            with tempfile.TemporaryDirectory() as temporary:
                copy = shutil.copytree(study, Path(temporary) / "study")
                command = ["gallery", origin["model"], origin["data"], "--study", copy, "--out", Path(temporary) / "g"]
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(
                    [sys.executable, "-m", "interpret", *map(str, command), "--synthesise", units], check=True
                )
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                held = Study.open(copy)
                made = sum(
                    len(np.unique(found.units)) for name in held.mined_layers if (found := held.synthesised(name))
                )
    more = min(spent["auto"]) - min(spent["0"])
    return (
        f"{ADDED}\n\n`--synthesise auto` makes images of {made:,} units of {opened.info['model']['name']}. With them, "
        f"the command takes {' and '.join(f'{one:.0f}' for one in spent['auto'])} s of CPU time on a study that has "
        f"everything else, and {' and '.join(f'{one:.0f}' for one in spent['0'])} s with `--synthesise 0`, in "
        f"{rounds} alternating runs of each. So they add {more:.0f} s of CPU time, which are {more / 2:.0f} s on two "
        f"cores that do nothing else; on these {os.cpu_count()} cores, {os.getloadavg()[2]:.0f} tasks ran or waited.\n"
    )


def seconds(study: Path) -> dict[str, float]:
    """Return the time of each part of a job, as its study recorded it; of a part that ran again, the first run."""
    took: dict[str, float] = {}
    for entry in reversed(read_timings(study)):
        took[entry["part"]] = entry["seconds"]
    named = {name: took.pop(part) for part, name in PARTS.items() if part in took}
    return named | {REST: sum(took.values())}


def bytes_of(folder: Path) -> dict[str, NDArray[np.int64]]:
    """Return number, bytes and bytes of whole blocks of each part's files."""
    found = {part: np.zeros(3, np.int64) for part in [*FILES, "all"]}
    for file in folder.rglob("*"):
        if file.is_file():
            path, size = file.relative_to(folder).as_posix(), file.stat().st_size
            part = next(part for part, starts in FILES.items() if path.startswith(starts))
            if part == "other pictures" and path.endswith((".html", ".js")):
                part = "pages of images"
            for key in (part, "all"):
                found[key] += (1, size, -(-size // BLOCK) * BLOCK)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="a folder to keep the study and the gallery in")
    parser.add_argument("--sizes", action="store_true", help="only compare formats and sizes of sprites")
    parser.add_argument("--parts", type=Path, help="write which part of a gallery takes how long to this file")
    parser.add_argument(
        "--study", type=Path, help="of --parts: a finished study, whose times are told, and whose gallery is written"
    )
    parser.add_argument(
        "--before", type=Path, nargs=2, help="of --parts: the study and the gallery of an earlier version"
    )
    parser.add_argument("--added", type=Path, help="of --parts: time what optimised images add to this study")
    parser.add_argument("command", nargs="*", help="of --parts: arguments of interpret gallery")
    arguments = parser.parse_args()
    if arguments.parts:
        known = arguments.parts.read_text("utf-8") if arguments.parts.exists() else ""
        above, heading, below = known.partition(ADDED)
        if arguments.added:
            text = f"{above.rstrip()}\n\n{added(arguments.added)}"
        else:
            text = parts(arguments.command, arguments.study, arguments.before)
            text += f"\n{heading}{below}" if heading else ""
        print(text)
        arguments.parts.write_text(text, "utf-8")
        return
    if arguments.sizes:
        compare_sizes()
        return
    folder = arguments.keep or Path(tempfile.mkdtemp())
    study, out = folder / "study", folder / "gallery"
    start = time.perf_counter()
    widths = make_study(study, arguments.units)
    names = [layer["name"] for layer in json.loads((study / "study.json").read_text())["layers"]]
    print(f"{sum(widths):,} units in {len(widths)} layers; the study took {time.perf_counter() - start:.0f} s")

    # write without the last layer, then with it: unchanged files must not be rewritten
    last = study / "mined" / f"{layer_path(names[-1])}.safetensors"
    aside = last.rename(study / "aside")
    units = sum(widths[:-1])
    start, busy = time.perf_counter(), time.process_time()
    write_gallery(study, out)
    wall, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"writing {units:,} units: {wall:.0f} s, {units / wall:.0f} units/s (target: 300); CPU time {busy:.0f} s")
    before = file_states(out)
    aside.rename(last)
    start = time.perf_counter()
    write_gallery(study, out)
    after = file_states(out)
    new = [name for name in after if name not in before]
    changed = [name for name in after if name in before and after[name] != before[name]]
    print(
        f"with one more layer of {widths[-1]:,} units: {time.perf_counter() - start:.0f} s; "
        f"{len(new):,} files new, {len(changed):,} changed, {len(after) - len(new) - len(changed):,} untouched"
    )
    print_sizes(out, sum(widths))
    browse(out, widths, names)
    if arguments.keep is None:
        shutil.rmtree(folder)


def file_states(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for directory, _, files in os.walk(folder):
        for name in files:
            status = (Path(directory) / name).stat()
            found[f"{directory}/{name}"] = status.st_ino, status.st_mtime_ns
    return found


if __name__ == "__main__":
    main()
