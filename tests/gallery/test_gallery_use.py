"""The gallery in use: relations, images, classes, findings, search, keys, comparison, favourites, privacy, access."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from helpers.files import contents
from helpers.gallery_study import CLASSES, EACH_TYPE, EVIL_CLASS, LAYERS, NAMES, SAMPLE, make_study
from helpers.pages import STORAGE_OFF, Page, completed, opened, pages
from interpret.analyses.evolution.result import Evolution
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.gallery import image_list, image_page, write_gallery
from interpret.results import Result
from interpret.study.study import Study
from interpret.support import numbers
from interpret.support.files import layer_path

HERE = Path(__file__).parent


def words(page: Page) -> str:
    return " ".join(page.text.split()).replace("\u202f", " ")


# what the pages hold


def test_unit_page_shows_its_range_and_its_relations(study: Path, gallery: Path, browser: Any) -> None:
    spread = Study.open(study).activation_range_examples("classifier.1")
    assert spread is not None
    page = completed(browser, gallery, "layers/classifier.1/0.html")
    text = words(page)
    for title in ("strongest quarter", "second quarter", "third quarter", "last quarter", "weakest"):
        assert title in text
    examples = [
        str(attributes["href"]) for tag, attributes in page.tags if tag == "image" and "samples/" in str(attributes)
    ]
    expected = [f"../../samples/{item}.webp" for item in spread["items"][0].ravel().tolist() if item >= 0]
    assert examples == expected and len(examples) == 15
    assert "Strongest connections from earlier layers" in text and "features.0 0" in text and "−0.500" in text
    # by its place among all traced layers, also those that have no page
    links = {str(attributes["href"]) for tag, attributes in page.tags if tag == "a"}
    assert "../../layers/features.0/0.html" in links
    assert "../../patches/features.0/0000.webp" in set(page.links)
    feeds = completed(browser, gallery, "layers/features.0/0.html")
    assert "../../layers/odd%252Flayer%2520%253Cb%253E%2520100%2525/0.html" in set(feeds.links)
    assert "+0.250" in words(feeds)


def test_kernel_is_drawn_in_greys(study: Path, gallery: Path, browser: Any) -> None:
    connections = Study.open(study).connections("classifier.1")
    assert connections is not None
    kernel = connections["kernels"][0, 0]
    level = np.round(kernel / np.abs(kernel).max() * 4).astype(int) + 4
    page = completed(browser, gallery, "layers/classifier.1/0.html")
    drawn = {
        attributes["class"]: attributes["d"]
        for tag, attributes in page.tags
        if re.fullmatch(r"g\d", str(attributes.get("class")))
    }
    for grey in range(9):
        squares = {(x, y) for y in range(3) for x in range(3) if level[y, x] == grey}
        path = str(drawn.get(f"g{grey}", ""))
        found = {(int(x), int(y or 0)) for x, y in re.findall(r"M(\d) (\d?)\.5h1", path)}
        assert found == (squares if grey != 4 else set())


def test_histogram_of_a_unit_is_drawn_to_scale(study: Path, gallery: Path, browser: Any) -> None:
    mined = Study.open(study).mined("features.0")
    counts, start, width = mined.histogram[0], mined.histogram_start[0], mined.histogram_width[0]
    filled = np.flatnonzero(counts)
    bins = counts[filled[0] : filled[-1] + 1]
    tags = {
        attributes.get("class"): attributes
        for _, attributes in completed(browser, gallery, "layers/features.0/0.html").tags
    }
    steps = re.findall(r"(?:v(-?\d+))?h1", str(tags["counts"]["d"]))
    heights = -np.cumsum([int(step or 0) for step in steps])
    assert heights.tolist() == np.where(bins > 0, np.maximum(np.round(bins / bins.max() * 96), 1), 0).tolist()
    low, high = start + filled[0] * width, start + (filled[-1] + 1) * width
    ticks = [float(x) for x in re.findall(r"M([\d.]+) 97v9", str(tags["hit"]["d"]))]
    np.testing.assert_allclose(ticks, np.clip((mined.values[0] - low) / (high - low), 0, 1) * 300, atol=0.06)


def test_image_page_tells_what_it_excites(study: Path, gallery: Path) -> None:
    opened = Study.open(study)
    text = words(Page(gallery / "images" / "2.html"))
    assert NAMES[2] in text and "tabby cat" in text and "75 %" in text
    page = Page(gallery / "images" / "0.html")
    for name, _, _, _, _, mined in LAYERS:
        if not mined:
            continue
        data = opened.mined(name)
        row = data.sample_images.tolist().index(SAMPLE[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(data.values[:, 0] > 0, data.sample_maxima[row] / data.values[:, 0], -1)
        strongest = int(share.argmax())
        prefix = f"../layers/{layer_path(name).replace('%', '%25')}"
        if share[strongest] > 0:
            assert f"{prefix}/{strongest}.html" in set(page.links)
        hits = sorted((j, -float(data.values[unit, j]), unit) for unit, j in np.argwhere(data.sources == 0).tolist())
        expected = [f"{prefix}/{unit}.html#hit-{j + 1}" for j, _, unit in hits]
        assert [link for link in page.links if link.startswith(prefix) and "#hit" in link] == expected
        for _, value, unit in hits:
            assert f"{unit} {numbers.value(-value)}" in " ".join(page.text.split())


def test_nearest_images_are_those_of_the_last_hidden_layer(study: Path, gallery: Path) -> None:
    data = Study.open(study).mined("fc")  # its four units are the network's four classes
    hidden = Study.open(study).mined("classifier.1")
    assert data.values.shape[0] == 4
    vectors = np.maximum(hidden.sample_maxima.astype(np.float64), 0)
    cosine = [
        float(vectors[0] @ one / (np.linalg.norm(vectors[0]) * np.linalg.norm(one))) if one.any() else 0.0
        for one in vectors
    ]
    nearest = int(np.argsort([-1 if j == 0 else value for j, value in enumerate(cosine)])[-1])
    text = words(Page(gallery / "images" / "0.html"))
    assert f"{NAMES[nearest]} {cosine[nearest]:.2f}" in text


def test_image_page_shows_its_own_patch_of_each_unit(browser: Any, gallery: Path, study: Path) -> None:
    """The tile that is seen is the hit's, cut out of the sprite of the unit's patches."""
    data = Study.open(study).mined("odd/layer <b> 100%")  # 15 × 15 pixels of an input of 64 × 64
    with opened(browser, gallery, "images/0.html") as page:
        links = page.locator("a[href*='odd'][href*='#hit-']")
        assert links.count() == (data.sources == 0).sum() > 0
        for link in links.all():
            unit, rank = re.findall(r"/(\d+)\.html#hit-(\d+)$", str(link.get_attribute("href")))[0]
            tile = link.locator(".tile")
            tile.scroll_into_view_if_needed()
            page.wait_for_function("() => [...document.images].every((one) => !one.src || one.complete)")
            with (
                Image.open(BytesIO(tile.screenshot())) as shown,
                Image.open(Study.open(study).patch_sprite("odd/layer <b> 100%", int(unit))) as sprite,
            ):
                row, column = divmod(int(rank) - 1, 3)
                patch = sprite.convert("RGB").crop((15 * column, 15 * row, 15 * column + 15, 15 * row + 15))
                expected = np.asarray(patch.resize(shown.size, Image.Resampling.NEAREST)).astype(int)
                inner = np.s_[8:-8, 8:-8]
                difference = np.abs(np.asarray(shown.convert("RGB")).astype(int) - expected)[inner]
                other = np.abs(np.asarray(shown.convert("RGB")).astype(int) - expected[:, ::-1])[inner]
                assert difference.mean() < other.mean() / 2


def test_image_page_folds_what_is_too_much(browser: Any, gallery: Path, study: Path, tmp_path: Path) -> None:
    """A picture that is not in the sample: its page shows a few units, more on demand, and counts the rest."""
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    samples = json.loads((copy / "samples.json").read_text())
    samples.pop(next(item for item, record in samples.items() if record["source"] == 2))
    (copy / "samples.json").write_text(json.dumps(samples))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image_page, "FIRST_UNITS", 2)
        patched.setattr(image_page, "MOST_UNITS", 4)
        out = write_gallery(copy, tmp_path / "gallery").parent
    data = Study.open(copy).mined("features.0")
    count = int((data.sources == 2).any(1).sum())
    assert count > 4
    page = Page(out / "images" / "2.html")
    assert "not in the sample" in words(page) and "Units that it activates most" not in words(page)
    assert f"2 of the {count - 2} others" in words(page)
    with opened(browser, out, "images/2.html") as shown:
        links = shown.locator("a[href*='features.0'][href*='#hit-']")
        assert [one.is_visible() for one in links.all()] == [True, True, False, False]
        shown.locator("summary").first.focus()
        shown.keyboard.press("Enter")
        assert all(one.is_visible() for one in links.all())


def test_index_of_images_lists_each_once(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_list, "IMAGES_PER_PAGE", 5)
    out = write_gallery(study, tmp_path / "gallery").parent
    assert "images/index.html" in set(Page(out / "index.html").links)
    assert "index.html" in set(Page(out / "images" / "0.html").links)
    listed: list[int] = []
    for name, count in (("index.html", 5), ("index-2.html", 5), ("index-3.html", 2)):
        page = Page(out / "images" / name)
        numbers = [int(link[:-5]) for link in page.links if re.fullmatch(r"\d+\.html", link)]
        assert len(numbers) == count and {f"image-{number}" for number in numbers} <= set(page.ids)
        assert [attributes["href"] for tag, attributes in page.tags if tag == "image"] == [
            f"../images/{name}".replace("html", "webp")
        ]
        views = [attributes["viewbox"] for tag, attributes in page.tags if tag == "svg" and "viewbox" in attributes]
        assert views == [f"{48 * j} 0 48 48" for j in range(count)]  # the central squares of pictures of 64 × 48
        listed += numbers
    assert listed == list(range(len(NAMES)))
    beside = {attributes["rel"]: attributes["href"] for _, attributes in page.tags if attributes.get("rel") == "prev"}
    assert beside == {"prev": "../images/index-2.html"}


def test_class_page_shows_the_units_that_prefer_it(study: Path, gallery: Path) -> None:
    from interpret.gallery.selectivity import measure_selectivity

    for label, name in enumerate(CLASSES):
        page = Page(gallery / "classes" / f"{label}.html")
        assert name in page.text
        for layer, _, _, _, _, mined in LAYERS:
            if not mined:
                continue
            found = measure_selectivity(Study.open(study).mined(layer).class_means)
            for unit in np.flatnonzero(found.classes == label).tolist():
                prefix = f"../layers/{layer_path(layer).replace('%', '%25')}"
                assert f"{prefix}/{unit}.html" in set(page.links)


def test_network_page_draws_the_flow(gallery: Path) -> None:
    page = Page(gallery / "index.html")
    rows = [str(attributes.get("class")) for tag, attributes in page.tags if tag == "li"]
    kinds = [name for name in rows if name in ("layer", "passage", "join")]
    assert kinds == ["layer", "passage", "layer", "join", "layer", "layer"]
    assert "sum" in page.text
    heads = [attributes for tag, attributes in page.tags if attributes.get("class") == "head"]
    assert len(heads) == 6 and {attributes["width"] for attributes in heads} == {"24"}  # two lanes


def test_network_page_says_how_often_it_is_right(study: Path, tmp_path: Path) -> None:
    assert "Accuracy" not in words(Page(write_gallery(study, tmp_path / "first")))  # the classes are not the labels'
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    info = json.loads((copy / "study.json").read_text())
    info["model"]["classes"] = info["data"]["classes"]
    (copy / "study.json").write_text(json.dumps(info))
    samples = json.loads((copy / "samples.json").read_text())
    for sample in samples.values():
        sample["classes"] = [0, 1]
    (copy / "samples.json").write_text(json.dumps(samples))
    labels = [sample["label"] for sample in samples.values() if sample["label"] >= 0]
    assert f"{labels.count(0) / len(labels):.0%}".replace(
        "%", " %"
    ) + f" on {len(labels)} inputs of the sample" in words(Page(write_gallery(copy, tmp_path / "second")))


def test_older_study_without_what_came_later(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    for name in ("spread", "connections", "samples"):
        shutil.rmtree(copy / name)
    for name in ("samples.json", "flow.json"):
        (copy / name).unlink()
    out = write_gallery(copy, tmp_path / "gallery").parent
    text = Page(out / "layers" / "features.0" / "0.html").text
    assert "Hits" in text and "Activation range" not in text and "Strongest connections" not in text
    assert not any(attributes.get("class") == "rail" for _, attributes in Page(out / "index.html").tags)


def test_a_layer_that_takes_a_list_of_tensors_has_its_place(tmp_path: Path) -> None:
    """A dense block passes on a list: what such a layer takes has no one shape."""
    import torch
    from torch import Tensor, nn

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 2, 1)

        def forward(self, parts: list[Tensor]) -> Tensor:
            return self.conv(torch.cat(parts, 1))

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.joined = nn.Conv2d(1, 3, 1), Joined()

        def forward(self, x: Tensor) -> Tensor:
            return self.joined([x, self.first(x)])

    begun = Study(tmp_path / "study", Dense(), torch.rand(4, 1, 8, 8))
    begun.mine(k=2)
    begun.connect()
    assert [node["kind"] for node in begun.flow()] == ["Conv2d", "cat", "Conv2d"]
    out = write_gallery(begun, tmp_path / "gallery").parent
    assert "concatenation" in Page(out / "index.html").text


# findings


@dataclass
class Curve(Result):
    kind = "gallery-curve"
    drawn_by = f"{__name__}:draw_curve"
    values: NDArray[np.float64]

    @property
    def title(self) -> str:
        return f"A curve {EVIL_CLASS}"

    @property
    def reading(self) -> str:
        return "Read it from left to right; measured on nothing."


def draw_curve(result: Curve) -> Figure:
    figure = Figure(figsize=(4, 2))
    axes = figure.add_subplot()
    axes.plot(result.values)
    axes.fill_between([0, 1], [0, 1])
    return figure


@pytest.fixture
def with_finding(study: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    Study.open(copy).keep(Curve(np.arange(4.0)), "odd/layer <b> 100%")
    return copy


def test_findings_show_any_result(with_finding: Path, tmp_path: Path) -> None:
    out = write_gallery(with_finding, tmp_path / "gallery").parent
    text = words(Page(out / "findings.html"))
    assert f"A curve {EVIL_CLASS}" in text and "Read it from left to right; measured on nothing." in text
    [figure] = list((out / "findings").iterdir())
    assert figure.suffix == ".svg" and "<svg" in figure.read_text()
    folder = out / "layers" / layer_path("odd/layer <b> 100%")
    for page in (Page(folder / "index.html"), Page(folder / "0.html")):
        assert "Findings on this layer" in page.text and EVIL_CLASS in page.text
    assert "Findings on this layer" not in Page(out / "layers" / "features.0" / "0.html").text
    again = write_gallery(with_finding, tmp_path / "again").parent
    assert contents(again) == contents(out)


def test_gallery_with_findings_needs_no_torch(with_finding: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]; import {Path(__file__).stem};"
        "from interpret.gallery import write_gallery;"
        f"write_gallery({str(with_finding)!r}, {str(tmp_path / 'out')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def analysed(study: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    rng = np.random.default_rng(0)
    layer, units = "features.0", 8
    curves = rng.random((units, 3))
    curves[3] = np.nan
    values = np.array([-1.0, 0.0, 1.0])
    begun = Study.open(copy)
    distances, norms = {layer: rng.random((5, 3))}, {layer: np.ones(5)}
    begun.keep(
        InvarianceCurves("translation", "shift (px)", 0, values, distances, norms, {layer: curves}), "translation"
    )
    pictures = rng.integers(0, 256, (2, 4, 3, 3, 3), dtype=np.uint8)
    signals = rng.normal(size=(2, 4, 3, 3, 3)).astype(np.float32)
    begun.keep(
        Evolution(
            "network", "images", 9, "deconvnet", "RGB", np.array([0, 1, 2, 4]), {layer: np.array([5, 2])},
            {layer: rng.random((2, 4), np.float32)}, {layer: rng.integers(0, 9, (2, 4))},
            {layer: np.zeros((2, 4, 2), np.int64)}, {layer: signals}, {layer: pictures},
            {layer: rng.random(3)}, {layer: np.zeros(3)}, 9,
        ),
        "all",
    )  # fmt: skip
    return copy


def test_filters_of_every_mined_convolution_are_drawn(tmp_path: Path) -> None:
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    begun = Study(tmp_path / "study", network, torch.rand(4, 1, 12, 12))
    begun.mine(["1", "2"], k=2)
    begun.draw_filters()
    assert [file.name for file in (begun.path / "filters").iterdir()] == ["0.png"]
    begun.draw_filters(every=True)  # not of single weights, nor of a layer that was not mined
    assert sorted(file.name for file in (begun.path / "filters").iterdir()) == ["0.png", "2.png"]


@pytest.mark.slow
def test_units_show_their_invariance_and_their_training(analysed: Path, tmp_path: Path, browser: Any) -> None:
    begun = Study.open(analysed)
    out = write_gallery(analysed, tmp_path / "gallery").parent
    folder = out / "layers" / "features.0"
    probe = begun.result("invariance", "translation")
    with opened(browser, out, "layers/features.0/index.html") as page:
        page.get_by_text("Invariance", exact=True).first.click()
        order = page.evaluate("[...document.querySelectorAll('.sheet .unit')].map(u => Number(u.dataset.index))")
        areas = probe.unit_areas["features.0"]  # type: ignore[attr-defined]
        assert order[-1] == 3  # nothing is known of it
        assert order[:-1] == sorted((unit for unit in range(8) if unit != 3), key=lambda unit: round(areas[unit], 3))
        assert page.get_by_role("heading", name="Invariance").is_visible()
    for path in ("index.html", "layers/features.0/index.html", "layers/features.0/2.html", "findings.html"):
        with opened(browser, out, path, viewport={"width": 360, "height": 700}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path  # with all that there can be
    assert "Invariance" in Page(folder / "0.html").text and "shift (px)" in Page(folder / "0.html").text
    assert "how far it moves" not in Page(folder / "3.html").text
    evolution = begun.result("evolution", "all")
    with Image.open(out / "evolution" / "features.0" / "all-2.png") as strip:
        assert strip.size == (4 * 65 - 2, 2 * 65 - 2)  # 3 × 3 pixels magnified 21 times, and 2 between
        shown = np.asarray(strip)
    for epoch in range(4):
        patch = evolution.patches["features.0"][1, epoch]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(shown[10:63:21, epoch * 65 + 10 : epoch * 65 + 63 : 21], patch)
    assert "During training" in Page(folder / "2.html").text
    assert "During training" not in Page(folder / "1.html").text
    with opened(browser, out, "layers/features.0/2.html") as page:
        assert page.locator(".strip-of img").is_visible()
        page.locator(".strip-of img").scroll_into_view_if_needed()
        assert page.evaluate("document.querySelector('.strip-of img').decode().then(() => true)")


# writing again


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of each file."""
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_writing_again_touches_nothing_that_stays_the_same(study: Path, tmp_path: Path) -> None:
    out = write_gallery(study, tmp_path / "gallery").parent
    before = files(out)
    write_gallery(study, out)
    assert files(out) == before


def test_one_more_layer_touches_only_what_it_changes(tmp_path: Path) -> None:
    smaller = make_study(tmp_path / "smaller", without=("odd/layer <b> 100%",))
    whole = make_study(tmp_path / "whole")
    out = write_gallery(smaller, tmp_path / "gallery").parent
    before, old = files(out), contents(out)
    write_gallery(whole, out)
    after, new = files(out), contents(out)
    assert new == contents(write_gallery(whole, tmp_path / "fresh").parent)
    same = {name for name in old if new.get(name) == old[name]}
    texts = {name for name in same if name.endswith((".html", ".css", ".js", ".svg", ".json"))}
    assert {name for name in texts if after[name] != before[name]} == set()
    assert "assets/gallery.css" in texts and "how-to-read.html" in texts and len(texts) >= 5


# privacy


def test_without_context_no_whole_image_is_written(study: Path, tmp_path: Path) -> None:
    out = write_gallery(study, tmp_path / "gallery", context=False).parent
    whole = {"classifier.1", "fc"}  # their units see the whole input of 64 × 64
    assert not any((out / folder).exists() for folder in ("sources", "samples", "images"))
    assert not any((out / "patches" / layer_path(name)).exists() for name in whole)
    assert (out / "patches" / "features.0" / "0000.webp").exists()
    assert (out / "projections" / "deconvnet" / "fc" / "0000.webp").exists()
    for file in pages(out):
        for link in Page(file).links:
            path = (file.parent / link.partition("#")[0].replace("%25", "%")).resolve()
            assert path.exists() or "%" in link, (file, link)
            assert not any(part in link for part in ("sources/", "samples/", "images/"))
    names = {file.name for file in (study / "sources").iterdir()} | {f.name for f in (study / "samples").iterdir()}
    written = {file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for folder in ("sources", "samples"):
        assert not any(
            (study / folder / name).read_bytes() in written for name in names if (study / folder / name).exists()
        )


@pytest.fixture
def occluded(tmp_path: Path) -> Path:
    """A study of a network that was followed as squares hid parts of two images, in units 0 and 2."""
    import torch
    from torch import nn

    from interpret import occlude

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    images = torch.rand(6, 3, 20, 24)
    begun = Study(tmp_path / "occluded", network, images)
    begun.mine("0", k=2)
    begun.project("0")
    begun.keep(occlude(network, images[:2], size=8, stride=4, layer="0", channels=[2, 0]), "0")
    return begun.path


def test_units_show_what_an_occluder_leaves_of_them(occluded: Path, tmp_path: Path, browser: Any) -> None:
    out = write_gallery(occluded, tmp_path / "gallery").parent
    result: Any = Study.open(occluded).result("occlusion", "0")
    with Image.open(out / "occlusion" / "0" / "0-2.png") as picture:
        shown = np.asarray(picture)
    zoom = 160 // 24  # each pixel a square
    np.testing.assert_array_equal(shown[: 20 * zoom : zoom, : 24 * zoom : zoom], result.pictures[0])
    # the map is darkest in the cell around the centre of the place that costs the most
    row, column = np.unravel_index(result.activations[0].argmin(), result.activations[0].shape)
    cells = shown[::zoom, 24 * zoom + 2 :: zoom].astype(int).sum(2)
    assert cells[row * 4 + 4, column * 4 + 4] == cells.min()
    assert "Occlusion" in Page(out / "layers" / "0" / "2.html").text
    assert "hides the place" not in Page(out / "layers" / "0" / "1.html").text
    with opened(browser, out, "layers/0/2.html") as page:
        page.locator(".strip-of img").scroll_into_view_if_needed()
        assert page.evaluate("document.querySelector('.strip-of img').decode().then(() => true)")


def test_without_context_no_analysis_shows_a_whole_image(occluded: Path, tmp_path: Path) -> None:
    out = write_gallery(occluded, tmp_path / "gallery", context=False).parent
    assert not (out / "occlusion").exists() and not (out / "findings").exists()
    assert "hides the place" not in Page(out / "layers" / "0" / "2.html").text


@pytest.mark.slow
def test_command_leaves_whole_images_out(study: Path, tmp_path: Path) -> None:
    code = "from interpret.cli import main; main()"
    command = [sys.executable, "-c", code, "gallery", str(study), "--out", str(tmp_path / "out"), "--no-context"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert str(tmp_path / "out" / "index.html") in said
    assert not (tmp_path / "out" / "sources").exists() and (tmp_path / "out" / "patches").exists()
    assert "without whole images" in Page(tmp_path / "out" / "how-to-read.html").text


def test_no_metadata_of_the_originals_survives(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from interpret.images.opening import open_images
    from interpret.network.model import Model
    from interpret.network.preprocess import Preprocess

    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for j in range(6):
        exif = Image.Exif()
        exif[0x010E] = "SECRET description"
        exif.get_ifd(0x8825)[1] = "N"
        exif.get_ifd(0x8769)[0x9286] = b"SECRET comment"
        picture = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        picture.save(folder / f"{j}.jpg", exif=exif, comment=b"SECRET too", icc_profile=b"SECRET profile")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    model = Model(network, name="small", preprocess=Preprocess((32, 32)))
    begun = Study(tmp_path / "study", model, open_images(folder, model))
    begun.mine(k=2)
    begun.project()
    begun.find_activation_range_examples()
    out = write_gallery(begun, tmp_path / "gallery").parent
    pictures = [file for file in out.rglob("*") if file.suffix in (".jpg", ".webp", ".png")]
    assert len(pictures) > 10
    for file in pictures:
        assert b"SECRET" not in file.read_bytes()
        with Image.open(file) as picture:
            assert not picture.getexif() and "icc_profile" not in picture.info and "comment" not in picture.info


@pytest.mark.slow
def test_strings_show_as_themselves_on_every_kind_of_page(browser: Any, gallery: Path) -> None:
    for place, name in enumerate(NAMES[:4]):
        with opened(browser, gallery, f"images/{place}.html") as page:
            assert page.locator("h1").inner_text() == name
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    with opened(browser, gallery, "classes/0.html") as page:
        assert page.locator("h1").inner_text() == EVIL_CLASS
    with opened(browser, gallery, "index.html") as page:
        page.keyboard.press("/")
        page.keyboard.type("onerror")
        assert page.locator("[role=option] span").first.inner_text() == NAMES[0]
        page.get_by_role("combobox").fill("script")
        assert page.locator("[role=option] span").first.inner_text() == EVIL_CLASS


# finding one's way


@pytest.mark.slow
def test_search_finds_units_layers_classes_and_images(browser: Any, gallery: Path) -> None:
    def ask(page: Any, question: str) -> list[str]:
        page.get_by_role("combobox").fill(question)
        return [str(one) for one in page.locator("[role=option]").all_inner_texts()]

    with opened(browser, gallery, "layers/features.0/3.html") as page:
        page.keyboard.press("/")
        page.wait_for_function("() => window.interpretImages")
        assert ask(page, "classifier 2")[0] == "classifier.1 2\nunit"
        assert ask(page, "4")[0] == "features.0 4\nunit"  # this page's layer comes first
        assert ask(page, "fc")[0] == "fc\nlayer"
        assert ask(page, "tabby")[0] == "tabby cat\nclass"
        assert ask(page, "PHOTO 11") == ["photo 11 & co.jpg\nimage"]
        assert ask(page, "no such thing") == []
        assert page.get_by_text("No results.").is_visible()
        ask(page, "features.0")
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        page.keyboard.press("/")
        ask(page, "7")
        page.keyboard.press("Enter")
        page.wait_for_url("**/features.0/7.html")
    with opened(browser, gallery, "index.html") as page:
        page.get_by_role("button", name="Search").click()
        example = str(page.get_by_role("combobox").get_attribute("placeholder")).partition(",")[0]
        assert ask(page, example)[0] == f"{example}\nunit"  # what is offered as an example is there
        assert ask(page, "no such thing") == []
        assert page.locator("dialog [role=status] a").get_attribute("href") == "images/index.html"
        ask(page, "photo")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/images/5.html")


def test_search_puts_the_own_layer_first_whatever_its_name(browser: Any, gallery: Path) -> None:
    odd = "odd/layer <b> 100%"
    address = f"layers/{layer_path(odd).replace('%', '%25')}/3.html"
    with opened(browser, gallery, address) as page:
        page.keyboard.press("/")
        page.get_by_role("combobox").fill("4")
        assert page.locator("[role=option]").first.inner_text() == f"{odd} 4\nunit"
        assert str(page.get_by_role("combobox").get_attribute("placeholder")).startswith(f"{odd} 5, ")


def test_units_to_compare_are_offered(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/2.html") as page:
        page.goto((gallery / "compare.html").as_uri())
        page.get_by_role("button", name="Add a unit").click()
        offered = page.locator("[role=option]")
        offered.first.wait_for()
        assert [str(one).split("\n")[0] for one in offered.all_inner_texts()] == [
            f"{name} 0" for name, *_, mined in LAYERS if mined
        ]
        page.goto((gallery / "layers/features.0/2.html").as_uri())
        page.keyboard.press("f")
        page.goto(f"{(gallery / 'compare.html').as_uri()}#fc/3")
        page.get_by_role("button", name="Add a unit").click()
        offered.first.wait_for()
        assert offered.all_inner_texts() == ["features.0 · unit 2\nfavourite", "fc 2\nunit"]
        page.keyboard.press("Enter")
        page.wait_for_url("**/compare.html#fc/3,features.0/2")


@pytest.mark.slow
def test_keyboard_tour(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/3.html") as page:
        page.keyboard.press("?")
        assert "random unit" in page.locator("dialog").inner_text()
        page.keyboard.press("j")  # the list is open: nothing happens
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        assert page.url.endswith("/3.html")
        page.keyboard.press("u")
        page.wait_for_url("**/layers/features.0/index.html#unit-3")
        page.keyboard.press("2")
        assert page.locator("#view-projections").is_checked()
        page.keyboard.press("u")
        page.wait_for_url("**/index.html")
        page.keyboard.press("r")
        page.wait_for_url(re.compile(r"/layers/[^/]+/\d+\.html"))
    with opened(browser, gallery, "classes/0.html") as page:
        page.keyboard.press("j")
        page.wait_for_url("**/classes/1.html")


def test_list_of_keys_has_numbers_where_they_choose_something(browser: Any, gallery: Path) -> None:
    for path, expected in (
        ("index.html", ["1", "2", "3"]),
        ("layers/features.0/0.html", ["1", "2"]),  # projected by two rules
        ("layers/fc/0.html", []),
        ("images/0.html", []),
    ):
        with opened(browser, gallery, path) as page:
            page.keyboard.press("?")
            listed = page.locator("dialog kbd").all_inner_texts()
            assert [key for key in listed if key.isdigit()] == expected and listed[-1] == "?"


@pytest.mark.slow
def test_keyboard_alone_reaches_everything(browser: Any, gallery: Path) -> None:
    """Tab comes by every link and control that is shown, in the order of the page."""
    for path in EACH_TYPE:
        if path.startswith("compare"):
            continue  # its panes are pages of their own
        with opened(browser, gallery, path) as page:
            wanted = page.evaluate(
                """() => [...document.querySelectorAll('a[href], button, select, textarea, summary, input')]
                    .filter((e) => e.checkVisibility() && e.tabIndex >= 0)
                    .filter((e) => e.type !== 'radio' || e.checked).length"""
            )
            reached = 0
            for _ in range(wanted + 5):
                page.keyboard.press("Tab")
                reached += page.evaluate(
                    """() => { const e = document.activeElement;
                        if (!e || e === document.body || e.dataset.seen || e.matches('pre')) return 0;
                        e.dataset.seen = '1'; return 1; }"""
                )
            assert reached == wanted, path


def test_switch_of_rules_keeps_the_place(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/4.html#hit-3") as page:
        first, second = page.locator(".nine.rule-1"), page.locator(".nine.rule-2")
        assert first.is_visible() and not second.is_visible()
        before = page.evaluate("document.querySelector('#hit-3').getBoundingClientRect().top")
        page.keyboard.press("2")
        assert second.is_visible() and not first.is_visible()
        assert page.url.endswith("#hit-3")
        assert abs(page.evaluate("document.querySelector('#hit-3').getBoundingClientRect().top") - before) < 2
        page.reload()
        assert second.is_visible()


def test_sheet_filters_and_sorts_by_every_number(browser: Any, gallery: Path, study: Path) -> None:
    data = Study.open(study).mined("features.0")

    def shown(page: Any) -> list[int]:
        return page.evaluate(
            "[...document.querySelectorAll('.sheet .unit')].filter(u => !u.hidden).map(u => Number(u.dataset.index))"
        )

    with opened(browser, gallery, "layers/features.0/index.html") as page:
        page.locator("[data-filter=dead]").select_option("dead")
        assert shown(page) == np.flatnonzero(data.dead).tolist()
        assert page.locator("#shown").inner_text() == "1 of 8 shown"
        page.locator("[data-filter=dead]").select_option("all")
        page.locator("[data-filter=density]").select_option("10 to 50 %")
        expected = [unit for unit, density in enumerate(data.density.tolist()) if 0.1 <= float(f"{density:.3g}") < 0.5]
        assert shown(page) == expected
        page.locator("[data-filter=density]").select_option("any")
        page.get_by_text("Density", exact=True).last.click()
        assert shown(page) == np.argsort(data.density, kind="stable").tolist()
        from interpret.gallery.selectivity import measure_selectivity

        found = measure_selectivity(data.class_means)
        page.get_by_text("Selectivity", exact=True).click()
        order = page.evaluate(
            "[...document.querySelectorAll('.sheet .unit')].map(u => Number(u.dataset.selectivity ?? -1))"
        )
        assert order == sorted(order, reverse=True)
        page.locator("[data-filter=preferred]").select_option(EVIL_CLASS)
        assert sorted(shown(page)) == np.flatnonzero(found.classes == 0).tolist()


# side by side, favourites, downloads


@pytest.mark.slow
@pytest.mark.parametrize("init", [None, STORAGE_OFF], ids=["storage", "no storage"])
def test_units_side_by_side(browser: Any, gallery: Path, init: str | None) -> None:
    with opened(browser, gallery, "compare.html#features.0/0", init=init) as page:
        assert page.locator("iframe").count() == 1
        page.get_by_role("button", name="Add a unit").click()
        offered = page.locator("[role=option]")
        offered.first.wait_for()
        assert offered.all_inner_texts() == ["features.0 1\nunit"]  # the neighbour of the one that is there
        assert not page.get_by_role("status").inner_text()
        page.get_by_role("combobox").fill("cat")  # a class: the units that its images excite, and nothing else
        assert offered.count() > 0 and all("unit, tabby cat" in str(one) for one in offered.all_inner_texts())
        page.get_by_role("combobox").fill("photo")  # images, and so no unit to compare
        assert offered.count() == 0 and "number" in page.get_by_role("status").inner_text()
        page.get_by_role("combobox").fill("fc 1")
        page.keyboard.press("Enter")
        page.wait_for_url("**/compare.html#features.0/0,fc/1")
        assert page.locator("iframe").count() == 2
        for place, title in enumerate(("features.0 · unit 0", "fc · unit 1")):
            frame = page.frame_locator("iframe").nth(place)
            assert " ".join(frame.locator("h1").inner_text().split()).startswith(title)
            assert not frame.locator(".top").is_visible()
        page.get_by_role("button", name="Remove features.0 unit 0").click()
        assert page.url.endswith("#fc/1")
        page.evaluate("window.location.hash = 'javascript:alert(1)/3,https://example.com/1,../../x/2'")
        page.wait_for_function("document.querySelectorAll('iframe').length === 0")


def test_compare_key_collects_units(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/2.html") as page:
        page.keyboard.press("c")
        page.wait_for_url("**/compare.html#features.0/2")
        page.goto((gallery / "layers/fc/2.html").as_uri())
        page.keyboard.press("c")
        page.wait_for_url("**/compare.html#fc/2,features.0/2")
        assert page.locator("iframe").first.get_attribute("title") == "fc unit 2"  # the one just chosen is in view


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_unit_that_is_added_comes_into_view(browser: Any, gallery: Path, width: int) -> None:
    start = "compare.html#features.0/0,features.0/1,features.0/4,features.0/5"
    with opened(browser, gallery, start, viewport={"width": width, "height": 844}) as page:
        assert page.evaluate("document.querySelector('#panes').scrollLeft") == 0
        page.get_by_role("button", name="Add a unit").click()
        page.get_by_role("combobox").fill("fc 1")
        page.locator("[role=option]").first.wait_for()
        page.keyboard.press("Enter")
        page.wait_for_function(
            """() => { const pane = document.querySelector('.pane:nth-child(5)')?.getBoundingClientRect();
                return pane && pane.left >= 0 && pane.right <= window.innerWidth + 1; }"""
        )


def test_favourites_and_notes_are_kept_and_exported(browser: Any, gallery: Path, tmp_path: Path) -> None:
    note = f"eyes? {EVIL_CLASS}"
    with opened(browser, gallery, "layers/features.0/2.html", accept_downloads=True) as page:
        page.keyboard.press("f")
        assert page.locator("[data-act=favourite]").get_attribute("aria-pressed") == "true"
        page.keyboard.press("n")
        page.keyboard.type(note)
        page.goto((gallery / "favourites.html").as_uri())
        assert page.locator(".kept a").inner_text() == "features.0 · unit 2"
        assert page.locator(".kept p").inner_text() == note
        assert page.evaluate("document.querySelector('.kept img').decode().then(() => true)")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        file = tmp_path / "favourites.json"
        download.value.save_as(file)
        assert json.loads(file.read_text())["kept"]["features.0/2"]["note"] == note
        page.evaluate("window.localStorage.clear()")
        page.reload()
        assert page.locator(".kept li").count() == 0
        page.locator("#import").set_input_files(file)
        page.locator(".kept li").wait_for()
        page.goto((gallery / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("eyes")
        assert page.locator("[role=option]").first.inner_text().endswith("note")
        page.goto((gallery / "layers/features.0/2.html").as_uri())
        assert page.locator("#note").input_value() == note


def test_favourites_of_others_are_data(browser: Any, gallery: Path, tmp_path: Path) -> None:
    kept = {"title": EVIL_CLASS, "note": EVIL_CLASS, "favourite": True, "picture": "patches/../../../secret.webp"}
    file = tmp_path / "hostile.json"
    paths = ("features.0/1", "../../x/2", "..%2f/3", "%2E%2E/4", "javascript:alert(1)/5", "https://example.com/6")
    file.write_text(json.dumps({"kept": dict.fromkeys(paths, kept)}))
    with opened(browser, gallery, "favourites.html") as page:
        page.locator("#import").set_input_files(file)
        page.locator(".kept li").first.wait_for()
        links = page.locator(".kept a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        assert links == ["layers/features.0/1.html", "layers/..%2f/3.html"]  # the second is one name, and no way up
        assert page.locator(".kept img").count() == 0
        assert page.locator(".kept p").first.inner_text() == EVIL_CLASS


def test_unit_is_downloaded_as_json_and_true(browser: Any, study: Path, gallery: Path, tmp_path: Path) -> None:
    with opened(browser, gallery, "layers/features.0/2.html", accept_downloads=True) as page:
        with page.expect_download() as download:
            page.get_by_role("button", name="JSON").click()
        assert download.value.suggested_filename == "features.0-2.json"
        file = tmp_path / "unit.json"
        download.value.save_as(file)
    mined = Study.open(study).mined("features.0")
    record = json.loads(file.read_text())
    assert record["layer"] == "features.0" and record["unit"] == 2 and record["network"] == "net <i>"
    assert record["items"] == mined.images[2, :2].tolist() and record["positions"] == mined.positions[2, :2].tolist()
    assert record["sources"] == [NAMES[source] for source in mined.sources[2, :2].tolist()]
    assert record["labels"] == [
        CLASSES[label] if label >= 0 else None for label in mined.labels[2, :2].tolist()
    ]  # no label but −1 and those of classes
    np.testing.assert_allclose(record["values"], mined.values[2, :2], rtol=1e-5)
    assert record["histogram"]["counts"] == mined.histogram[2].tolist()


@pytest.fixture
def served(gallery: Path) -> Iterator[str]:
    """The gallery on a host of its own, which lives as long as the test."""
    handler = partial(QuietHandler, directory=str(gallery))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_pictures_are_downloaded_as_png_from_a_host(browser: Any, served: str, study: Path, tmp_path: Path) -> None:
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(f"{served}/layers/features.0/0.html")
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename == "features.0-0.png"
    file = tmp_path / "unit.png"
    download.value.save_as(file)
    context.close()
    with Image.open(file) as picture, Image.open(Study.open(study).patch_sprite("features.0", 0)) as patches:
        zoom = -(-160 // patches.height)
        large = patches.convert("RGB").resize((zoom * patches.width, zoom * patches.height), Image.Resampling.NEAREST)
        assert picture.format == "PNG" and picture.width == 2 * large.width + 4
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        shown, title = pixels[-large.height :, : large.width], pixels[: -large.height]
        assert np.abs(shown - np.asarray(large)).mean() < 4  # decoders of WebP differ a little
        assert title.max() == 255 and title.min() < 100  # dark on white
        dark = np.argwhere(title.min(axis=2) < 128)
        assert dark[:, 0].min() > 0 and dark[:, 0].max() < len(title) - 1  # nothing of it is cut
        assert dark[:, 1].max() < title.shape[1] - 1
    assert wrong == []


def test_pictures_are_shown_as_one_to_save_from_disk(browser: Any, gallery: Path, study: Path) -> None:
    """There a script may not read pictures, and the browser's own menu does."""
    with opened(browser, gallery, "layers/features.0/0.html") as page:
        page.get_by_role("button", name="PNG").click()
        dialog = page.get_by_role("dialog", name="Save as PNG")
        picture = dialog.get_by_role("img")
        assert dialog.get_by_text("Save image as").is_visible() and "features.0" in picture.get_attribute("aria-label")
        with Image.open(Study.open(study).patch_sprite("features.0", 0)) as patches:
            side = patches.height * -(-160 // patches.height)
        width, height = picture.evaluate("canvas => [canvas.width, canvas.height]")
        assert width == 2 * side + 4 and height > side + 14  # two blocks, and a title above them
        with Image.open(BytesIO(picture.screenshot())) as shown:
            assert len(np.unique(np.asarray(shown.convert("L")))) > 20
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        links = page.locator("a[download]").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        kinds = ("patches", "projections/deconvnet", "projections/guided")
        assert links == [f"../../{kind}/features.0/0000.webp" for kind in kinds]
        with page.context.expect_page() as beside:  # a browser shows it: not in the place of the page
            page.locator("a[download]").first.click()
        assert beside.value.url.endswith("/patches/features.0/0000.webp") and page.url.endswith("/features.0/0.html")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net", "a " * 60, "long" * 40])
def test_title_of_a_picture_fits(browser: Any, study: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    info = json.loads((copy / "study.json").read_text())
    info["model"]["name"] = name.strip()
    (copy / "study.json").write_text(json.dumps(info))
    out = write_gallery(copy, tmp_path / "gallery").parent
    drawn = """window.drawn = []; const pen = CanvasRenderingContext2D.prototype, fill = pen.fillText;
        pen.fillText = function (text, x, y) {
            window.drawn.push([text, x + this.measureText(text).width, y, this.canvas.width]);
            return fill.call(this, text, x, y); };"""
    with opened(browser, out, "layers/features.0/0.html", init=drawn) as page:
        page.get_by_role("button", name="PNG").click()
        page.locator("canvas").wait_for()
        lines = page.evaluate("window.drawn")
        title = f"{name.strip()}, features.0, unit 0; patches | deconvnet"
        assert " ".join(line[0] for line in lines) == title
        assert all(right <= width for _, right, _, width in lines)


def test_favourites_without_storage_say_so(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "favourites.html", init=STORAGE_OFF) as page:
        assert page.get_by_text("This browser does not store data").is_visible()


# reading it otherwise


@pytest.mark.slow
def test_nothing_is_squashed_or_cut_on_a_phone(browser: Any, gallery: Path) -> None:
    for path in ("index.html", "layers/features.0/index.html"):
        with opened(browser, gallery, path, viewport={"width": 390, "height": 844}) as page:
            filters = page.locator(".filters img")
            filters.scroll_into_view_if_needed()
            filters.evaluate("image => image.decode()")
            drawn, natural = filters.evaluate(
                "image => [image.clientWidth / image.clientHeight, image.naturalWidth / image.naturalHeight]"
            )
            assert drawn == pytest.approx(natural, rel=0.03)  # whole pixels
    for path in ("index.html", "layers/fc/index.html"):
        with opened(browser, gallery, path, viewport={"width": 390, "height": 844}) as page:
            named = page.locator(".answer")
            assert EVIL_CLASS in named.all_text_contents()
            assert not named.evaluate_all("names => names.filter((name) => name.scrollWidth > name.clientWidth).length")


def from_npm(package: str, folder: Path) -> Path:
    """Fetch and unpack a package that only the tests need."""
    if shutil.which("npm") is None:
        pytest.skip(f"needs npm, to fetch {package}")
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["npm", "pack", package, "--silent"], cwd=folder, capture_output=True, timeout=120)
    archives = list(folder.glob("*.tgz"))
    if not archives:
        pytest.skip(f"{package} could not be fetched from npm")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, the checker of accessibility."""
    return (from_npm("axe-core@4.10.3", tmp_path_factory.mktemp("axe")) / "axe.min.js").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, gallery: Path, axe: str, scheme: str) -> None:
    for path in EACH_TYPE:
        with opened(browser, gallery, path, color_scheme=scheme) as page:
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, {iframes: false, preload: false}).then((run) => run.violations)")
            assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == [], path
            if path == "index.html":
                page.keyboard.press("/")
                page.keyboard.type("photo")
                found = page.evaluate("axe.run('dialog', {preload: false}).then((run) => run.violations)")
                assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def leave_hits(study: Path, source: int) -> None:
    """Put another source in the place of one in all hits."""
    for file in (study / "mined").iterdir():
        arrays = load_file(file)
        arrays["sources"][arrays["sources"] == source] = source + 1
        save_file(arrays, file)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_entries_of_the_list_can_be_read(browser: Any, study: Path, tmp_path: Path, axe: str, scheme: str) -> None:
    """A list of few images of many, on a phone."""
    copy = tmp_path / "study"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("samples*", "spread"))
    leave_hits(copy, number := 3)
    out = write_gallery(copy, tmp_path / "gallery", every_image=False).parent
    assert not (out / "images" / f"{number}.html").exists() and (out / "images" / "4.html").exists()
    size = {"width": 390, "height": 800}
    with opened(browser, out, "images/index.html#image-4", viewport=size, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {preload: false}).then((run) => run.violations)")
        assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_photographed(browser: Any, gallery: Path, tmp_path: Path, scheme: str) -> None:
    """Screenshots are kept where INTERPRET_SCREENSHOTS says."""
    folder = Path(os.environ.get("INTERPRET_SCREENSHOTS", tmp_path))
    for path in EACH_TYPE:
        with opened(browser, gallery, path, color_scheme=scheme) as page:
            page.wait_for_load_state("networkidle")
            name = re.sub(r"[^\w.]+", "-", path.partition("#")[0]).removesuffix(".html")
            page.screenshot(path=folder / f"{name}-{scheme}.png")
            with Image.open(folder / f"{name}-{scheme}.png") as shot:
                assert shot.size == (1280, 800)
                assert len(np.unique(np.asarray(shot.convert("L")))) > 4  # something is to be seen


def test_prints_without_controls_and_on_paper_white(browser: Any, gallery: Path) -> None:
    for path in ("layers/features.0/0.html", "layers/features.0/index.html"):
        with opened(browser, gallery, path, color_scheme="dark") as page:
            page.emulate_media(media="print")
            assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
            for selector in (".switch", ".site", ".acts", "#note", "[data-filter]"):
                assert not any(one.is_visible() for one in page.locator(selector).all()), selector
            assert page.locator("h1").is_visible()


def test_pictures_numbers_and_links_are_there_without_script(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/4.html", java_script_enabled=False) as page:
        assert page.locator("h2", has_text="Hits").is_visible()
        assert page.locator(".nine image").first.evaluate("image => image.decode().then(() => true)")
        assert page.locator("#hit-1 a").last.get_attribute("href").startswith("../../images/")
        assert page.locator("a[rel=next]").is_visible() and page.get_by_text("Largest value", exact=True).is_visible()
        assert not page.get_by_role("button").all()
        page.get_by_text("guided", exact=True).first.click()
        assert page.locator(".nine.rule-2").is_visible()


ASSETS = Path(__file__).parents[2] / "interpret" / "gallery" / "assets"
SCRIPTS = [ASSETS / "pictures.js", ASSETS / "gallery.js"]


@pytest.mark.slow
def test_script_is_typed(tmp_path: Path) -> None:
    """The annotations in the scripts hold, and nothing in them is unused."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js, to run the TypeScript compiler")
    compiler = from_npm("typescript@5.9.3", tmp_path) / "bin" / "tsc"
    flags = "--noEmit --allowJs --checkJs --strict --noUnusedLocals --noUnusedParameters --target es2022".split()
    command = ["node", str(compiler), *flags, "--lib", "es2023,dom,dom.iterable", *map(str, SCRIPTS)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


LINTED = """
import js from "@eslint/js";
export default [
  js.configs.recommended,
  {
    languageOptions: { sourceType: "script" },
    rules: {
      "no-undef": "off", // the compiler knows the browser's names
      "no-console": "error", "no-eval": "error", "no-implicit-globals": "error", "no-param-reassign": "error",
      "no-shadow": "error", "no-var": "error", "no-else-return": "error",
      "curly": ["error", "multi-line"], "eqeqeq": "error", "max-len": ["error", 120], "object-shorthand": "error",
      "prefer-const": "error", "prefer-template": "error",
    },
  },
];
"""


@pytest.mark.slow
def test_script_is_linted(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to fetch eslint")
    fetch = "npm install --silent --no-audit --no-fund --ignore-scripts eslint@9.39.5".split()
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(fetch, cwd=tmp_path, capture_output=True, timeout=120)
    linter = tmp_path / "node_modules" / "eslint" / "bin" / "eslint.js"
    if not linter.exists():
        pytest.skip("eslint could not be fetched from npm")
    (tmp_path / "eslint.config.mjs").write_text(LINTED)
    names = [Path(shutil.copy(script, tmp_path)).name for script in SCRIPTS]
    checked = subprocess.run(["node", str(linter), *names], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


COMMITTED = Path(__file__).parents[2] / "gallery" / "lenet"


@pytest.mark.skipif(not COMMITTED.exists(), reason="needs the checkout's gallery/lenet")
def test_committed_gallery_is_small_and_current() -> None:
    """If it is not: gallery/build.sh"""
    import interpret

    assets = Path(interpret.__file__).parent / "gallery" / "assets"
    for file in assets.iterdir():
        assert (COMMITTED / "assets" / file.name).read_bytes() == file.read_bytes()
    marker = json.loads((COMMITTED / "gallery.json").read_text())
    assert marker["weights_hash"] == interpret.load("lenet").weights_hash
    assert sum(file.stat().st_size for file in COMMITTED.rglob("*") if file.is_file()) < 12_500_000
    assert {f"{unit}.html" for unit in range(128)} < {file.name for file in (COMMITTED / "layers" / "fc1").iterdir()}


@pytest.mark.skipif(not COMMITTED.exists(), reason="needs the checkout's gallery/lenet")
def test_committed_gallery_lists_the_digits_of_hits_and_of_the_sample() -> None:
    """Each has an entry with its prediction, on pages that stay light, and a page; 5,000 pages would take 15 MB."""
    listed: list[str] = []
    files = sorted((COMMITTED / "images").glob("index*.html"), key=lambda file: (len(file.name), file.name))
    for file in files:
        page = Page(file)
        here = [str(attributes["id"]) for tag, attributes in page.tags if tag == "li" and "id" in attributes]
        assert file.stat().st_size + file.with_suffix(".webp").stat().st_size < 100_000
        assert page.text.count("\u202f%") == len(here) <= 240
        listed += here
    numbers_listed = [int(one.removeprefix("image-")) for one in listed]
    assert numbers_listed == sorted(set(numbers_listed)) and len(listed) > 1000
    assert f"{len(listed):,} of the 5,000 images have a page" in " ".join(Page(files[0]).text.split()).replace(
        "\u202f", ","
    )
    assert {file.name for file in (COMMITTED / "images").glob("[0-9]*")} == {f"{one}.html" for one in numbers_listed}
    index = json.loads((COMMITTED / "assets" / "index.js").read_text().partition(" = ")[2].rstrip(";\n"))
    assert sum(index["images"][1::2]) == len(listed)
    assert (COMMITTED / "assets" / "index.js").stat().st_size < 20_000
