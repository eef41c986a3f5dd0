"""Galleries of whatever layers are chosen, projected or not: every page is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.commands import command
from helpers.pages import Page, completed, crawl, opened, pages
from interpret.gallery import write_gallery
from interpret.study.study import Study

NETWORK = """
from torch import nn
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess

def build():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU())
    network = nn.Sequential()
    network.features, network.pool, network.flat = features, nn.AdaptiveAvgPool2d(2), nn.Flatten()
    network.hidden, network.act, network.answers = nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)
    return Model(network, "small", Preprocess((24, 24)), classes=("red fox", "green apple", "blue jay"))

def build_otherwise():
    model = build()
    model.module.hidden.bias.data += 1
    return model

def build_without_filters():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5), nn.ReLU(), nn.Linear(5, 3))
    return Model(network, "perceptron", Preprocess((24, 24)))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of networks, and pictures in subfolders."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for number in range(9):
        kind = folder / "pictures" / ("blue jay", "green apple", "red fox")[number % 3]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(kind / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("build", ""),
        ("build", "--layers features.3"),
        ("build", "--layers features.4 --no-context"),
        ("build", "--layers hidden,answers --crops tiles"),
        ("build", "--layers features.3,answers --no-context"),
        ("build_without_filters", ""),
        ("build_without_filters", "--layers 3 --no-context"),
    ],
)
def test_every_page_is_whole_whatever_layers_are_chosen(
    browser: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, options: str
) -> None:
    out = tmp_path / "gallery"
    command(
        monkeypatch,
        "gallery",
        f"{made}/net.py:{network}",
        made / "pictures",
        "--out",
        out,
        "-k",
        4,
        "--synthesise",
        0,
        *options.split(),
    )
    mined = Study.open(tmp_path / "gallery.study").mined_layers
    assert crawl(browser, out) > sum(len(Study.open(tmp_path / "gallery.study").mined(name).values) for name in mined)
    filters = "filters/features.0.png"
    assert (filters in set(Page(out / "index.html").links)) == (network == "build")
    assert (out / filters).exists() == (network == "build")


@pytest.mark.slow
def test_pages_without_pictures_say_how_to_make_them(
    browser: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "study", tmp_path / "gallery"
    command(monkeypatch, "mine", f"{made}/net.py:build", made / "pictures", "--study", study, "-k", 4)
    command(monkeypatch, "gallery", study, "--out", out)
    crawl(browser, out)
    shown = [out / "index.html", *(out / "layers").rglob("*.html")]
    assert len(shown) == 1 + 4 + 4 + 5 + 6 + 3
    for file in shown:
        assert "interpret project STUDY" in Page(file).text, file
    command(monkeypatch, "project", study, "--layers", "features.3")
    command(monkeypatch, "gallery", study, "--out", out)
    crawl(browser, out)
    said = {file for file in pages(out) if "interpret project" in Page(file).text}
    assert said == {file for file in (out / "layers").rglob("*.html") if file.parent.name != "features.3"}


@pytest.mark.slow
def test_a_layer_of_whole_images_keeps_its_projections_without_context(browser: Any, tmp_path: Path) -> None:
    """Its patches stay out: its projections show in any view, and fill its strip on the first page."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    begun = Study(tmp_path / "study", network, torch.rand(6, 3, 8, 8))
    begun.mine("3", k=2)
    begun.project()
    out = write_gallery(begun, tmp_path / "gallery", context=False).parent
    crawl(browser, out)
    for path in ("index.html", "layers/3/index.html"):
        with opened(browser, out, path) as page:
            for view in ("Patches", "Projections", "Both"):
                page.get_by_text(view, exact=True).click()
                assert page.locator(".unit .projections").count() == 3
                assert all(one.is_visible() for one in page.locator(".unit .projections").all())


# citing a unit


def cited(browser: Any, out: Path, layer: str, unit: int) -> str:
    """Return the lines of Python that stand on the page of a unit."""
    with opened(browser, out, f"layers/{layer}/{unit}.html") as page:
        return str(page.locator("pre[aria-label=Python] code").text_content())


def tiles_of(study: Study, layer: str, unit: int, count: int) -> dict[str, np.ndarray]:
    """Return the tiles of a unit's sprites, [count, h, w, 3], as they are in the files."""
    found = {}
    sprites = {"patches": study.patch_sprite(layer, unit)}
    sprites |= {rule: study.projection_sprite(rule, layer, unit) for rule in study.rules(layer)}
    for kind, file in sprites.items():
        with Image.open(file) as sprite:
            pixels = np.asarray(sprite.convert("RGB"))
        columns = int(np.ceil(np.sqrt(study.mined(layer).values.shape[1])))
        side = pixels.shape[1] // columns
        grid = pixels.reshape(-1, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        found[kind] = grid[:count]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options", "layers"),
    [
        ("build", "--crops tiles", ("features.0", "features.3", "hidden", "answers")),
        ("build", "--rule guided --layers features.3", ("features.3",)),
        ("build", "--weights WEIGHTS --layers features.*", ("features.3",)),
    ],
)
def test_cited_lines_make_the_very_pictures_of_the_page(
    browser: Any,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    options: str,
    layers: tuple[str, ...],
) -> None:
    """Run exactly as they stand on the page, they give the patches and the projections of all its tiles."""
    import interpret
    from interpret.images.display import contrast, shrink, to_bytes

    torch.manual_seed(5)
    other = interpret.load(f"{made}/net.py:build").module
    torch.nn.init.normal_(next(other.parameters()))
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    options = options.replace("WEIGHTS", str(tmp_path / "weights.pt"))
    out = tmp_path / "gallery"
    command(
        monkeypatch,
        "gallery",
        f"{made}/net.py:{network}",
        made / "pictures",
        "--out",
        out,
        "-k",
        4,
        "--synthesise",
        0,
        *options.split(),
    )
    study = Study.open(tmp_path / "gallery.study")
    monkeypatch.chdir(tmp_path)
    compared = 0
    for layer in layers:
        for unit in range(2):
            said: dict[str, Any] = {}
            exec(cited(browser, out, layer, unit), said)
            hits = study.mined(layer)
            count = int((hits.images[unit] >= 0).sum())
            assert said["items"] == hits.images[unit, :count].tolist()
            text = " ".join(completed(browser, out, f"layers/{layer}/{unit}.html").text.split())
            for item, source in zip(said["items"], hits.sources[unit].tolist(), strict=False):
                assert f"image {source}" in text
                assert f"input {item}" in text or "--crops" not in options
            tiles = tiles_of(study, layer, unit, count)
            np.testing.assert_array_equal(said["shown"].pictures, tiles["patches"])
            signals = to_bytes(contrast(shrink(said["shown"].pixels, 64), said["shown"].colours))
            np.testing.assert_array_equal(signals, tiles[study.rules(layer)[0]])
            compared += count
    assert compared >= 4 * len(layers)


def test_cited_lines_refuse_other_weights_and_other_images(
    browser: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--layers", "features.3", "--out", tmp_path / "gallery", "-k", 4, "--synthesise", 0)
    command(monkeypatch, "gallery", f"{made}/net.py:build", made / "pictures", *options)
    lines = cited(browser, tmp_path / "gallery", "features.3", 0)
    for there, other in (("py:build'", "py:build_otherwise'"), ("pictures'", "pictures/red fox'")):
        assert there in lines
        with pytest.raises(AssertionError):
            exec(lines.replace(there, other), {})
