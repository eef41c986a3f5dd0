"""What units and images show: predictions of every image, the colours of units, and how search finds them by both."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor
from torch import nn

from helpers.files import contents
from helpers.gallery_study import CLASSES, LAYERS, NAMES
from helpers.pages import Page, crawl, opened
from interpret.gallery import write_gallery
from interpret.gallery.colours import COLOURS, colour_shares, name_colours, oklab
from interpret.gallery.units_by_class import strongest_of_each
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study.study import Study
from interpret.support import numbers
from interpret.support.files import layer_path

# every image has its prediction and its page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures that are wider than high, of which one does not decode."""
    made = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(8):
        tint = rng.integers(0, 256, 3)
        Image.fromarray(((rng.integers(0, 256, (40, 70, 3)) + tint) // 2).astype(np.uint8)).save(made / f"{number}.png")
    whole = (made / "3.png").read_bytes()
    (made / "3.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    return made


def classifier(classes: tuple[str, ...] | None = ("red fox", "goldfish", "jay")) -> Model:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        network[4].weight.mul_(30)  # so that it decides
    return Model(network.eval(), "small", Preprocess((24, 24)), classes)


def mined(tmp_path: Path, model: Model, folder: Path, crops: Any = "tiles", layers: Any = None) -> Study:
    begun = Study(tmp_path / "study", model, open_images(folder, model, crops=crops, scales=(30, 40)))
    begun.mine(layers, k=2)
    begun.project()
    begun.find_activation_range_examples()
    begun.predict()
    return begun


def central(model: Model, file: Path) -> list[float]:
    """The literal way: the network on the central part of one picture."""
    assert model.preprocess is not None
    with Image.open(file) as picture, torch.inference_mode():
        return model.module(model.preprocess(picture)[None]).double().softmax(1)[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("crops", ["tiles", "center"])
def test_every_image_has_its_prediction_and_its_page(browser: Any, folder: Path, tmp_path: Path, crops: str) -> None:
    model = classifier()
    begun = mined(tmp_path, model, folder, crops)
    found = Study.open(begun.path).predictions()
    assert found.sources.tolist() == [0, 1, 2, 4, 5, 6, 7]  # the fourth does not decode
    assert begun.info["data"]["skipped"].keys() == {"3.png"}
    for source, labels, shares in zip(found.sources.tolist(), found.top, found.probabilities, strict=True):
        expected = central(model, folder / f"{source}.png")
        assert labels.tolist() == sorted(range(3), key=lambda label: -expected[label])
        np.testing.assert_allclose(shares, sorted(expected, reverse=True), rtol=1e-5)
    out = write_gallery(begun, tmp_path / "gallery").parent
    crawl(browser, out)
    assert {file.name for file in (out / "images").glob("[0-9]*")} == {f"{j}.html" for j in found.sources.tolist()}
    names = classifier().classes or ()
    likeliest = {source: names[top[0]] for source, top in zip(found.sources.tolist(), found.top, strict=True)}
    assert len(set(likeliest.values())) > 1
    for source, name in likeliest.items():
        page = Page(out / "images" / f"{source}.html")
        assert name in page.text
        assert f"../images/{source}.html" in set(Page(out / "classes" / f"{names.index(name)}.html").links)
    before = contents(begun.path)
    begun.predict()  # what is known is not done again
    assert contents(begun.path) == before


def test_of_hits_and_of_the_sample_alone_on_request(folder: Path, tmp_path: Path) -> None:
    model = classifier()
    begun = Study(tmp_path / "study", model, open_images(folder, model))
    begun.mine("4", k=1)
    begun.predict(every_image=False)
    hits = sorted(set(begun.mined("4").sources.ravel().tolist()))
    assert begun.predictions().sources.tolist() == list(begun.sources()) == hits and len(hits) < 7
    out = write_gallery(begun, tmp_path / "gallery").parent
    assert f"{len(hits)} of the 7 images" in words(out / "images" / "index.html")
    assert "the study has pictures and predictions of no others" in words(out / "images" / "index.html")
    begun.predict()
    assert begun.predictions().sources.tolist() == list(begun.sources()) == [0, 1, 2, 4, 5, 6, 7]
    begun.predict(every_image=False)  # nothing is lost
    assert begun.predictions().sources.tolist() == [0, 1, 2, 4, 5, 6, 7]
    for every_image, paged in ((False, hits), (True, [0, 1, 2, 4, 5, 6, 7])):
        write_gallery(begun, out, every_image=every_image)
        assert {file.name for file in (out / "images").glob("[0-9]*")} == {f"{number}.html" for number in paged}
        said = words(out / "images" / "index.html")
        assert ("those of hits and of the sample, as was asked for (--no-every-image)" in said) == (not every_image)
        assert ("Each of the 7 images has a page" in said) == every_image
    begun.find_activation_range_examples()
    write_gallery(begun, out, every_image=False)
    assert len(list((out / "images").glob("[0-9]*"))) == 7  # all are in the sample


def words(page: Path) -> str:
    return " ".join(Page(page).text.split())


COLOURED = 60


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of pictures of one colour each, that are called by their numbers, without a sample."""
    torch.manual_seed(0)
    colours = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (COLOURED, 3, 1, 1))) / 255
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    model = Model(network.eval(), "small", None, ("red fox", "goldfish", "jay"))
    begun = Study(tmp_path_factory.mktemp("coloured") / "study", model, colours.float().expand(-1, -1, 24, 24))
    begun.mine(k=4)
    begun.project()
    begun.predict()
    return begun


@pytest.fixture
def listing(coloured: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its gallery, with few images on a page, so that there are several."""
    monkeypatch.setattr("interpret.gallery.image_list.IMAGES_PER_PAGE", 25)
    monkeypatch.setattr("interpret.gallery.class_images.IMAGES_PER_PAGE", 7)
    monkeypatch.setattr("interpret.gallery.class_page.MOST_PREDICTED", 4)
    return write_gallery(coloured, tmp_path / "gallery").parent


@pytest.mark.slow
def test_the_list_shows_each_image_with_its_prediction(browser: Any, coloured: Study, listing: Path) -> None:
    found = coloured.predictions()
    assert found.sources.tolist() == list(range(COLOURED))
    assert {file.name for file in (listing / "images").glob("[0-9]*")} == {f"{j}.html" for j in range(COLOURED)}
    for number in range(COLOURED):
        name = f"index{'' if number < 25 else f'-{number // 25 + 1}'}"
        markup = (listing / "images" / f"{name}.html").read_text()
        entry = markup.partition(f'<li id="image-{number}">')[2].partition("</li>")[0]
        assert f"<bdi>image {number}</bdi>" in entry
        share = numbers.share(float(found.probabilities[number, 0]))
        assert f"<bdi>{found.classes[found.top[number, 0]]}</bdi> {share}" in entry
        assert re.findall('href="(?!#)([^"]+)"', entry) == [f"{number}.html"]
        left, top, side, _ = map(int, re.findall('viewBox="([^"]+)"', entry)[0].split())
        with (
            Image.open(listing / "images" / f"{name}.webp") as sheet,
            Image.open(coloured.source_picture(number)) as own,
        ):
            shown = np.asarray(sheet.convert("RGB"))[top : top + side, left : left + side]
            assert side == 24 and np.abs(shown[6:18, 6:18].mean((0, 1)) - np.asarray(own).mean((0, 1))).max() < 6
    assert f"Each of the {COLOURED} images has a page" in words(listing / "images" / "index.html")
    crawl(browser, listing)


def test_a_class_page_leads_to_all_its_images(coloured: Study, listing: Path) -> None:
    found = coloured.predictions()
    for label in range(3):
        taken = [number for number in range(COLOURED) if found.top[number, 0] == label]
        surest = sorted(taken, key=lambda number: (-found.probabilities[number, 0], number))
        markup = (listing / "classes" / f"{label}.html").read_text()
        page = Page(markup)
        predicted = markup.partition("id=predicted>")[2].partition("</section>")[0]
        links = re.findall(r"href=\.\./(images/\d+\.html)", predicted)
        assert links == [f"images/{number}.html" for number in surest[:4]]
        first = listing / "classes" / f"{label}-images.html"
        assert first.exists() == (len(taken) > 4) == (f"../classes/{first.name}" in page.links)
        listed = []
        for number in range(-(-len(taken) // 7) if len(taken) > 4 else 0):
            part = Page(first if not number else first.with_name(f"{label}-images-{number + 1}.html"))
            listed += [link for link in part.links if "images/" in link]
            assert f"{len(taken)} images predicted as" in " ".join(part.text.split())
        assert listed == [f"../images/{number}.html" for number in surest] * (len(taken) > 4)
    assert max(Counter(found.top[:, 0].tolist()).values()) > 14  # a list has several pages


def test_search_leads_to_each_image(browser: Any, coloured: Study, listing: Path) -> None:
    with opened(browser, listing, "index.html") as page:
        for number in (0, 24, 25, 41, 59):
            open_search(page)
            assert ask(page, f"image {number}")[0] == [f"image {number}", "image"]
            assert [f"image {number}", "image"] in ask(page, str(number))[:2]
            ask(page, f"image {number}")
            page.keyboard.press("Enter")
            page.wait_for_url(f"**/images/{number}.html")


@pytest.mark.slow
def test_a_network_that_is_no_classifier_is_said_to_be_none(browser: Any, folder: Path, tmp_path: Path) -> None:
    begun = mined(tmp_path / "unnamed", classifier(None), folder)
    assert begun.predictions() is None
    out = write_gallery(begun, tmp_path / "unnamed" / "gallery").parent
    for path in ("images/index.html", "images/0.html"):
        assert "There are no predictions: nobody named the classes" in Page(out / path).text
    crawl(browser, out)
    torch.manual_seed(0)
    decoder = Model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)), "decoder", Preprocess((24, 24)))
    decoder.classes = ("a", "b", "c")
    other = mined(tmp_path / "decoder", decoder, folder)
    out = write_gallery(other, tmp_path / "decoder" / "gallery").parent
    text = Page(out / "images/0.html").text
    assert "There are no predictions: the network must return one score for each class" in text


def test_labels_name_the_answers_of_a_network_without_names(tmp_path: Path) -> None:
    """The folders are its classes, if it answers as many: as where `mine` compares classes."""
    rng = np.random.default_rng(0)
    for number in range(6):
        kind = tmp_path / "pictures" / ("cat", "dog", "eel")[number % 3]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(kind / f"{number}.png")
    begun = mined(tmp_path, classifier(None), tmp_path / "pictures")
    assert begun.predictions().classes == ["cat", "dog", "eel"]
    out = write_gallery(begun, tmp_path / "gallery").parent
    assert "Class 2." in Page(out / "classes" / "2.html").text
    assert "dog" in Page(out / "layers" / "4" / "1.html").text


def test_classes_of_the_network_and_of_the_labels_are_told_apart(study: Path, gallery: Path) -> None:
    """Its fourth class is no label: it has a page of its own, with the images that are taken for it."""
    assert {file.name for file in (gallery / "classes").iterdir()} == {"0.html", "1.html", "2.html", "6.html"}
    page = Page(gallery / "classes" / "6.html")
    assert "lighthouse" in page.text and "Class 3 of the network." in page.text
    taken = [str(link) for link in page.links if str(link).startswith("../images/")]
    assert taken[:3] == ["../images/3.html", "../images/7.html", "../images/11.html"]
    text = " ".join(Page(gallery / "classes" / "1.html").text.split()).replace("\u202f", " ")
    assert "Class 1." in text and "Predicted as this class 3 images, with the probability" in text and "88 %" in text
    labelled = "Labelled as this class, not predicted as it"
    assert labelled in text and text.index(NAMES[2]) > text.index(labelled)  # which is labelled 1 and taken for 2


# colours


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("red", "red darkred crimson firebrick"),
        ("orange", "orange darkorange"),
        ("brown", "saddlebrown sienna chocolate tan"),
        ("yellow", "yellow gold"),
        ("green", "green lime forestgreen darkgreen olivedrab"),
        ("turquoise", "turquoise cyan teal"),
        ("blue", "blue navy royalblue steelblue skyblue"),
        ("violet", "purple indigo violet magenta"),
        ("pink", "pink hotpink deeppink lightpink"),
        ("black", "black #111111"),
        ("grey", "gray dimgray silver"),
        ("white", "white snow"),
    ],
)
def test_colours_are_called_what_the_web_calls_them(name: str, words: str) -> None:
    for word in words.split():
        pixel = np.array(ImageColor.getrgb(word), np.uint8)
        assert COLOURS[int(name_colours(pixel[None])[0])] == name, word


def test_oklab_is_that_of_its_source() -> None:
    """The table of XYZ and Lab pairs in Ottosson's article, through sRGB's own matrix."""
    to_srgb = np.linalg.inv(
        np.array(
            [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
        )
    )
    linear = to_srgb @ np.array([0.950, 1.000, 1.089])
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    white = oklab(np.clip(np.round(255 * encoded), 0, 255).astype(np.uint8))
    np.testing.assert_allclose(white, [1, 0, 0], atol=3e-3)
    # and CSS Color 4, where blue is oklch(45.201% 0.31321 264.052)
    lightness, a, b = oklab(np.array([0, 0, 255], np.uint8)).tolist()
    assert (lightness, math.hypot(a, b)) == (pytest.approx(0.45201, abs=1e-4), pytest.approx(0.31321, abs=1e-4))
    assert math.degrees(math.atan2(b, a)) % 360 == pytest.approx(264.052, abs=0.05)


def test_a_patch_counts_where_its_projection_is() -> None:
    patches = np.full((3, 8, 8, 3), (20, 60, 200), np.uint8)  # a blue sky
    patches[:, 2:5, 2:5] = (220, 20, 20)  # and a red ball, on a seventh of it
    projections = np.full_like(patches, 128)
    projections[:, 2:5, 2:5] = (255, 90, 90)
    assert COLOURS[int(colour_shares(patches).argmax())] == "blue"
    shares = colour_shares(patches, projections)
    assert COLOURS[int(shares.argmax())] == "red" and shares.max() == pytest.approx(1)
    projections[:, 2:5, 2:5] = 128  # nothing carried it: all of the patch counts
    assert colour_shares(patches, projections)[COLOURS.index("red")] == pytest.approx(9 / 64)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
@settings(deadline=None)  # the first one makes the table of all colours
def test_shares_are_those_of_a_loop(seed: int, count: int, projected: bool) -> None:
    rng = np.random.default_rng(seed)
    # colours in the middle of the steps that are told apart
    patches = (rng.integers(0, 32, (count, 3, 4, 3)) * 8 + 4).astype(np.uint8)
    projections = rng.integers(0, 256, patches.shape).astype(np.uint8) if projected else None
    expected = np.zeros(len(COLOURS))
    for j in range(count):
        weights = {}
        for y in range(3):
            for x in range(4):
                signal = 1 if projections is None else max(abs(int(value) - 128) for value in projections[j, y, x])
                weights[y, x] = 0 if projected and signal <= 1 else signal
        for (y, x), weight in weights.items():
            expected[int(name_colours(patches[j, y, x][None])[0])] += weight / sum(weights.values()) / count
    np.testing.assert_allclose(colour_shares(patches, projections), expected, atol=1e-12)


# search


@given(st.integers(0, 2**32 - 1))
def test_units_of_a_class_are_those_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds, there = rng.integers(-1, 4, (7, 5)), rng.random((7, 5)) < 0.8
    expected = []
    for kind in range(4):
        found = []
        for unit in range(7):
            ranks = [j for j in range(5) if there[unit, j] and kinds[unit, j] == kind]
            if ranks:
                found.append((-len(ranks), ranks[0], unit))
        expected += [[kind, unit, -count, rank] for count, rank, unit in sorted(found)[:3]]
    assert strongest_of_each(kinds, there, most=3).tolist() == expected


def ask(page: Any, question: str) -> list[list[str]]:
    page.get_by_role("combobox").fill(question)
    return [str(one).split("\n") for one in page.locator("[role=option]").all_inner_texts()]


def open_search(page: Any) -> None:
    page.keyboard.press("/")
    page.wait_for_function("() => window.interpretShown && window.interpretImages")


def test_search_finds_what_units_and_images_show(browser: Any, gallery: Path, study: Path) -> None:
    """The images that are taken for a class, and the units by how many of their hits are."""
    counted = []
    for place, (name, *_, is_mined) in enumerate(LAYERS):
        if is_mined:
            data = Study.open(study).mined(name)
            for unit, (sources, images) in enumerate(zip(data.sources, data.images, strict=True)):
                hits = [j for j in range(len(sources)) if images[j] >= 0 and sources[j] % 4 == 1]
                if hits:
                    counted.append((-len(hits), hits[0], -place, unit, name))
    with opened(browser, gallery, "index.html") as page:
        open_search(page)
        found = ask(page, "tabby")
        assert found[0] == ["tabby cat", "class"]
        assert found[1:4] == [[NAMES[j], "image, tabby cat"] for j in (1, 5, 9)]
        expected = [
            [f"{name} {unit}", f"unit, tabby cat in {-count} hit{'s' if count < -1 else ''}"]
            for count, _, _, unit, name in sorted(counted)
        ]
        assert found[4:] == expected[:26] and len(expected) > 10
        # in one layer alone
        own = [line for line in expected if line[0].startswith("features.0 ")]
        assert [line for line in ask(page, "tabby features.0") if line[1].startswith("unit,")] == own
        page.keyboard.press("Enter")
        page.wait_for_url("**/layers/features.0/*.html")


def test_image_is_found_by_its_number(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "index.html") as page:
        open_search(page)
        assert ask(page, "image 11")[0] == [NAMES[11], "image 11"]
        assert ask(page, "image 12") == []
        ask(page, "image 5")
        page.keyboard.press("Enter")
        page.wait_for_url("**/images/5.html")
        assert "Image 5 of 12" in page.locator("main").inner_text()


def test_search_finds_units_by_their_colour(browser: Any, study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    tints = {("features.0", 4): "red", ("classifier.1", 0): "red", ("classifier.1", 4): "blue", ("fc", 0): "purple"}
    for (name, unit), tint in tints.items():
        for file in (copy / "patches" / layer_path(name), copy / "projections" / "deconvnet" / layer_path(name)):
            with Image.open(file / f"{unit:04d}.webp") as sprite:
                size = sprite.size
            Image.new("RGB", size, tint).save(file / f"{unit:04d}.webp", lossless=True)
    out = write_gallery(copy, tmp_path / "gallery").parent
    with opened(browser, out, "index.html") as page:
        open_search(page)
        first = ask(page, "red")
        assert first[:2] == [["features.0 4", "unit, red"], ["classifier.1 0", "unit, red"]]
        assert ask(page, "Red classifier") == [["classifier.1 0", "unit, red"]]
        assert ask(page, "classifier.1 blue")[0] == ["classifier.1 4", "unit, blue"]
        assert ask(page, "purple")[0] == ["fc 0", "unit, violet"]
        both = ask(page, "red tabby")
        assert both and {line[0] for line in both} <= {"features.0 4", "classifier.1 0"}
    text = " ".join(Page(out / "layers" / "features.0" / "4.html").text.split()).replace("\u202f", " ")
    assert "red 100 % of its patches, weighted by the projections" in text
    with opened(browser, out, "layers/features.0/index.html") as page:
        page.locator("[data-filter=colour]").select_option("red")
        assert [one.get_attribute("data-index") for one in page.locator(".sheet > li:visible").all()] == ["4"]


def test_grey_networks_have_no_colours(tmp_path: Path) -> None:
    begun = Study(tmp_path / "study", nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(4, 1, 8, 8))
    begun.mine(k=2)
    begun.project()
    out = write_gallery(begun, tmp_path / "gallery").parent
    for page in (out / "layers" / "0").iterdir():
        assert "Colour" not in Page(page).text and "grey" not in Page(page).text


def test_a_class_crowds_out_neither_names_nor_units(browser: Any, study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    sources = json.loads((copy / "sources.json").read_text())
    first = min((copy / "sources").glob("*.jpg"))
    for number in range(100, 200):
        sources[str(number)] = {"name": f"tabby {number}.jpg", "width": 1, "height": 1, "label": -1}
        shutil.copyfile(first, first.with_name(f"{number}.jpg"))
    (copy / "sources.json").write_text(json.dumps(sources))
    out = write_gallery(copy, tmp_path / "gallery").parent
    with opened(browser, out, "index.html") as page:
        open_search(page)
        kinds = Counter(line[1].partition(",")[0] for line in ask(page, "tabby"))
    assert kinds["class"] == 1 and kinds["unit"] >= 12 and kinds["image"] >= 12 and sum(kinds.values()) == 30


def test_names_are_found_where_what_units_show_is_missing(browser: Any, gallery: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gallery"
    shutil.copytree(gallery, copy)
    (copy / "assets" / "shown.js").write_text("")
    with opened(browser, copy, "index.html") as page:
        page.keyboard.press("/")
        assert ask(page, CLASSES[1])[0] == [CLASSES[1], "class"]
