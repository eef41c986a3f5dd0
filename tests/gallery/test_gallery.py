"""The gallery: what is written, that it is a function of the study, that strings are data, and how it works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

import interpret
from helpers.files import contents
from helpers.gallery_study import EACH_TYPE, EVIL_CLASS, LAYERS, NAMES, make_study
from helpers.pages import STORAGE_OFF, Page, completed, opened, pages
from interpret.gallery import write_gallery, writer
from interpret.study.study import Study
from interpret.study.views.layer import LayerView
from interpret.study.views.network import NetworkView
from interpret.support.errors import InterpretError
from interpret.support.files import layer_path

# what is written


def test_the_guide_says_what_a_patch_at_the_border_is(gallery: Path) -> None:
    assert "the patch is moved inside, so that all patches have one size" in (gallery / "how-to-read.html").read_text(
        "utf-8"
    )
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 5, padding=2)).eval()
    corner = interpret.project(network, torch.rand(1, 1, 9, 9), "0", channels=0, positions=[(0, 8)])
    assert corner.boxes.tolist() == [[0, 4, 5, 9]]  # and not from row −2 to 3 and column 6 to 11, as the kernel lies


def test_every_unit_and_layer_has_its_page(gallery: Path) -> None:
    assert (gallery / "index.html").is_file() and (gallery / "how-to-read.html").is_file()
    for name, _, channels, _, _, mined in LAYERS:
        folder = gallery / "layers" / layer_path(name)
        expected = {"index.html", "units-0.js", *(f"{unit}.html" for unit in range(channels))} if mined else set()
        assert {file.name for file in folder.glob("*")} == expected


def test_every_link_resolves(gallery: Path) -> None:
    anchors = {file: Page(file).ids for file in pages(gallery)}
    followed = 0
    for file in pages(gallery):
        for link in Page(file).links:
            parts = urlsplit(link)
            assert not parts.scheme and not parts.netloc, link
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.is_file(), f"{file}: {link}"
            assert target.is_relative_to(gallery)
            if parts.fragment:
                assert parts.fragment in anchors[target], f"{file}: {link}"
            followed += 1
    assert followed > 1000


def test_pictures_are_those_of_the_study(study: Path, gallery: Path) -> None:
    for folder in ("patches", "projections", "sources", "samples", "filters"):
        assert contents(gallery / folder) == contents(study / folder)


def test_network_page_tells_the_facts(gallery: Path) -> None:
    text = Page(gallery / "index.html").text
    for fact in (
        "net <i>",
        "Made for a test & nothing else.",
        "1.24 M",
        "3 × 64 × 64",
        "12 in 120 crops",
        "0123456789ab",
    ):
        assert fact in " ".join(text.split()).replace("\u202f", " "), fact
    for name, *_ in LAYERS:
        assert name in text
    assert "Conv2d" in text and "Sequential" not in text  # a container's layers are shown, not the container


def test_multiply_adds_count_nested_layers_once(study: Path) -> None:
    # features.0 and features.1 lie inside features
    assert NetworkView(Study.open(study), LayerView).macs == 4 * 12_345


def test_unit_page_tells_the_facts(study: Path, gallery: Path, browser: Any) -> None:
    mined = Study.open(study).mined("features.0")
    page = Page(gallery / "layers" / "features.0" / "0.html")
    text = " ".join(page.text.split())
    assert "features.0 · unit 0" in text
    sprites = [str(attributes["href"]) for tag, attributes in page.tags if tag == "image" and "href" in attributes]
    kinds = ("patches", "projections/deconvnet", "projections/guided")
    assert [one for one in sprites if "filters" not in one] == [f"../../{kind}/features.0/0000.webp" for kind in kinds]
    assert {f"../../images/{source}.html" for source in mined.sources[0].tolist()} <= set(page.links)
    for j in range(9):
        row, column = mined.positions[0, j]
        assert NAMES[mined.sources[0, j]] in text
        assert f"map row {row}, column {column}" in text
        assert f"{mined.values[0, j]:.1f}" in text
    page = completed(browser, gallery, "layers/features.0/0.html")
    text = " ".join(page.text.split())
    assert f"items = {mined.images[0].tolist()}" in text
    assert f"positions = {[tuple(place) for place in mined.positions[0].tolist()]}" in text
    assert "interpret.project(model, inputs, 'features.0', 0, positions, rule='deconvnet')" in text
    assert sum(tag == "use" for tag, _ in page.tags) == 27  # nine patches, nine projections by each of two rules


def test_units_of_the_last_layer_are_named_after_their_classes(gallery: Path) -> None:
    assert "network’s output for lighthouse" in Page(gallery / "layers" / "fc" / "3.html").text
    assert "lighthouse" in Page(gallery / "layers" / "fc" / "index.html").text
    assert "lighthouse" not in Page(gallery / "layers" / "features.0" / "index.html").text


def test_units_with_few_hits_or_none(gallery: Path) -> None:
    two = Page(gallery / "layers" / "fc" / "2.html")
    assert {"hit-1", "hit-2"} <= set(two.ids) and "hit-3" not in two.ids
    none = Page(gallery / "layers" / "fc" / "3.html")
    assert "hit-1" not in none.ids and "inf" not in none.text and "row 0" not in none.text
    dead = Page(gallery / "layers" / "fc" / "1.html")
    assert "dead" in dead.text and "It is above zero on no image of this data set" in dead.text


@pytest.mark.slow
def test_other_numbers_of_hits(tmp_path: Path, browser: Any) -> None:
    for k, tiles in ((1, 1), (5, 5), (16, 12)):  # there are but twelve pictures
        study = make_study(tmp_path / f"study{k}", k=min(k, len(NAMES)))
        index = write_gallery(study, tmp_path / f"gallery{k}")
        page = completed(browser, index.parent, "layers/features.0/0.html")
        assert sum(tag == "use" for tag, _ in page.tags) == 3 * tiles


def test_study_that_is_not_yet_projected(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    shutil.rmtree(study / "projections")
    shutil.rmtree(study / "patches")
    gallery = write_gallery(study, tmp_path / "gallery").parent
    for page in ("index.html", "layers/fc/index.html", "layers/fc/0.html"):
        assert "interpret project STUDY" in Page(gallery / page).text


# a function of the study


def test_same_bytes_twice_and_over_an_older_gallery(study: Path, gallery: Path, tmp_path: Path) -> None:
    first = contents(gallery)
    out = tmp_path / "again"
    write_gallery(Study.open(study), str(out))
    assert contents(out) == first
    (out / "index.html").unlink()
    write_gallery(study, out)
    assert contents(out) == first
    # over one of another study, too: nothing of that stays
    write_gallery(make_study(tmp_path / "study", without=("fc",)), tmp_path / "other")
    write_gallery(study, tmp_path / "other")
    assert contents(tmp_path / "other") == first
    shutil.rmtree(tmp_path / "study")
    shutil.rmtree(tmp_path / "other")
    assert list(tmp_path.iterdir()) == [out]  # nothing is left beside it


def test_same_bytes_wherever_the_study_lies(study: Path, gallery: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(study, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    write_gallery("moved", "gallery")
    assert contents(tmp_path / "gallery") == contents(gallery)


def test_permalinks_stay_when_layers_are_added(gallery: Path, tmp_path: Path) -> None:
    smaller = write_gallery(make_study(tmp_path / "study", without=("fc",)), tmp_path / "gallery").parent
    old, new = contents(smaller / "layers"), contents(gallery / "layers")
    assert set(old) < set(new)
    assert all(name.split("/")[0] != "fc" for name in old)


def test_needs_no_torch(study: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from interpret.gallery import write_gallery;"
        f"write_gallery({str(study)!r}, {str(tmp_path / 'out')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# where it may be written


def test_refuses_what_is_not_a_gallery(study: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("all of it")
    with pytest.raises(InterpretError, match=r"chapter\.tex' was not written by interpret: move it, or name a new"):
        write_gallery(study, thesis)
    with pytest.raises(InterpretError, match="is a file"):
        write_gallery(study, thesis / "chapter.tex")
    with pytest.raises(InterpretError, match="was not written by interpret"):
        write_gallery(study, study)
    with pytest.raises(InterpretError, match=r"chapter\.tex' is a file, where a folder is needed"):
        write_gallery(study, thesis / "chapter.tex" / "gallery")
    assert (thesis / "chapter.tex").read_text() == "all of it"
    assert (study / "study.json").exists()


def test_refuses_to_lose_files_beside_a_gallery(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    write_gallery(study, out)
    for name in (".git", "layers/mine.txt", "layers/fc/7777.html"):
        (out / name).write_text("mine")
        with pytest.raises(InterpretError, match=f"{name}' was not written by interpret"):
            write_gallery(study, out)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "index.html").write_text("mine")
    with pytest.raises(InterpretError, match=r"index\.html' has been changed since"):
        write_gallery(make_study(tmp_path / "study", without=("fc",)), out)
    assert (out / "index.html").read_text() == "mine"


def test_takes_no_foreign_site_for_a_gallery(study: Path, tmp_path: Path) -> None:
    for name in ("gallery.json", "index.html", "images/holiday.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(InterpretError, match=r"holds a gallery without interpret\.sha256"):
        write_gallery(study, tmp_path)
    (tmp_path / "gallery.json").unlink()
    with pytest.raises(InterpretError, match=r"images/holiday\.jpg' was not written"):
        write_gallery(study, tmp_path)
    assert contents(tmp_path) == {name: text for name, text in before.items() if name != "gallery.json"}


def test_the_folder_that_a_shell_is_in_stays_the_same(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    for _ in range(2):
        write_gallery(study, ".")
        assert Path.cwd().stat().st_ino == inode and Path("index.html").is_file()


def test_writes_into_an_empty_folder(study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_gallery(study, tmp_path / "empty").is_file()


def test_study_without_mined_layers(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", without=tuple(name for name, *_ in LAYERS))
    with pytest.raises(InterpretError, match="no mined layer"):
        write_gallery(study, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()


def test_an_interrupt_leaves_the_older_gallery(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "gallery"
    write_gallery(study, out)
    before = contents(out)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer._Writer, "_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_gallery(study, out)
    assert contents(out) == before
    assert list(tmp_path.iterdir()) == [out]


# strings from outside


def test_strings_are_data(gallery: Path) -> None:
    shown = ""
    for file in pages(gallery):
        page = Page(file)
        shown += page.text
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") for name in attributes), (file, tag, attributes)
            assert "style" not in attributes and tag not in ("i", "style", "iframe", "object")
            if tag == "script":
                assert re.search(r"(assets/(pictures|gallery)|^units-\d+)\.js$", str(attributes["src"]))
            if tag == "img":
                assert attributes["src"] != "x"
    for name in (EVIL_CLASS, *NAMES, "net <i>"):
        assert name in shown


def test_every_page_has_a_strict_policy_and_what_readers_need(gallery: Path) -> None:
    for file in pages(gallery):
        page = Page(file)
        [policy] = [
            str(attributes["content"])
            for _, attributes in page.tags
            if attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "data:" not in policy
        tags = [tag for tag, _ in page.tags]
        assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
        assert page.tags[0][0] == "html" and page.tags[0][1]["lang"] == "en"
        for tag, attributes in page.tags:
            assert tag != "img" or "alt" in attributes, file
            assert attributes.get("role") != "img" or attributes.get("aria-label"), file


def test_source_names_that_are_not_unicode(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    sources = json.loads((study / "sources.json").read_text())
    for source in sources.values():
        source["name"] = "caf\udce9.jpg"  # a Latin-1 name on disk, as Python reads it
    (study / "sources.json").write_text(json.dumps(sources))
    gallery = write_gallery(study, tmp_path / "gallery").parent
    assert "caf?.jpg" in Page(gallery / "layers" / "features.0" / "0.html").text


# in a browser


@pytest.mark.slow
@pytest.mark.parametrize("path", EACH_TYPE)
def test_page_opens_from_disk_and_shows_every_picture(browser: Any, gallery: Path, path: str) -> None:
    with opened(browser, gallery, path) as page:
        assert page.evaluate("getComputedStyle(document.body).display") == "flex"  # the style sheet is there
        page.evaluate("document.querySelectorAll('[loading=lazy]').forEach(image => image.loading = 'eager')")
        checked = page.evaluate(
            """async () => {
                const pictures = [...document.querySelectorAll('img, svg image')];
                const shown = pictures.filter((picture) => picture.checkVisibility());
                await Promise.all(shown.map((image) => image.decode()));
                return shown.length;
            }"""
        )
        assert (checked > 0) == (path.partition(".")[0] not in ("how-to-read", "favourites", "compare"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_can_be_read(browser: Any, gallery: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800}
    for path in EACH_TYPE:
        with opened(browser, gallery, path, viewport=size, color_scheme=scheme) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.evaluate(CONTRAST) >= 4.5
            dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 20, 20)"
            assert dark == (scheme == "dark")


CONTRAST = """() => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/\\d+/g).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const page = luminance(getComputedStyle(document.documentElement).backgroundColor);
    const texts = [...document.querySelectorAll('a:not(.skip), p, dt, dd, .quiet, small, h1, h2, b')];
    const ratios = texts.map((element) => {
        const ink = luminance(getComputedStyle(element).color);
        return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
    });
    return Math.min(...ratios);
}"""


@pytest.mark.slow
def test_keys_turn_the_page(browser: Any, gallery: Path) -> None:
    def unit(page: Any) -> str:
        return str(page.url).rsplit("/", 1)[1]

    with opened(browser, gallery, "layers/features.0/3.html") as page:
        for key, expected in (("j", "4"), ("ArrowRight", "5"), ("k", "4"), ("ArrowLeft", "3")):
            page.keyboard.press(key)
            page.wait_for_url(f"**/{expected}.html")
        page.keyboard.press("Control+j")
        page.keyboard.press("x")
        assert unit(page) == "3.html"
    with opened(browser, gallery, "layers/features.0/0.html") as page:
        page.keyboard.press("k")  # there is none before the first
        assert unit(page) == "0.html"
    with opened(browser, gallery, "layers/features.0/index.html") as page:
        page.keyboard.press("j")
        page.wait_for_url("**/layers/odd*/index.html")
        page.locator("#view-both").focus()
        page.keyboard.press("ArrowLeft")  # in a switch, arrows choose
        assert page.locator("#view-projections").is_checked()
        assert "odd" in page.url


def visible(page: Any) -> tuple[bool, bool]:
    unit = page.locator(".unit").first
    return unit.locator(".patches").is_visible(), unit.locator(".projections").is_visible()


def test_switch_shows_patches_projections_or_both(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/index.html") as page:
        assert visible(page) == (True, True)
        page.get_by_text("Patches", exact=True).click()
        assert visible(page) == (True, False)
        page.get_by_text("Projections", exact=True).click()
        assert visible(page) == (False, True)
        page.goto((gallery / "index.html").as_uri())  # the choice stays from page to page
        assert visible(page) == (False, True)


def test_sheet_sorts_by_strength(browser: Any, gallery: Path) -> None:
    def ranks(page: Any) -> list[int]:
        return page.evaluate("[...document.querySelectorAll('.sheet .unit')].map(unit => Number(unit.dataset.rank))")

    with opened(browser, gallery, "layers/features.0/index.html") as page:
        first = ranks(page)
        assert sorted(first) == list(range(1, 9)) != first
        page.get_by_text("Largest value", exact=True).click()
        assert ranks(page) == list(range(1, 9))
        assert page.locator(".sheet .unit").last.locator(".badge").count() == 1  # the dead come last
        page.reload()
        assert ranks(page) == list(range(1, 9))
        page.get_by_text("Number", exact=True).click()
        assert ranks(page) == first


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"init": STORAGE_OFF}, {"java_script_enabled": False}], ids=["storage", "script"])
def test_works_without_storage_or_script(browser: Any, gallery: Path, options: dict[str, Any]) -> None:
    with opened(browser, gallery, "layers/features.0/index.html", **options) as page:
        page.get_by_text("Patches", exact=True).click()
        assert visible(page) == (True, False)
        assert page.get_by_text("Largest value", exact=True).is_visible() == ("init" in options)
        page.get_by_role("link", name="Unit 4").click()
        page.wait_for_url("**/4.html")
        if "init" in options:
            page.get_by_role("link", name="Hit 2", exact=True).first.click()
            assert page.url.endswith("#hit-2")
        page.locator("#hit-2 a").last.click()
        page.wait_for_url("**/images/*.html")


def test_link_is_copied(browser: Any, gallery: Path) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, gallery, "layers/features.0/4.html", permissions=permissions) as page:
        page.get_by_text("Copy link").click()
        page.get_by_text("Link copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == (gallery / "layers/features.0/4.html").as_uri()


def test_pointer_marks_the_same_hit_in_every_block(browser: Any, gallery: Path) -> None:
    with opened(browser, gallery, "layers/features.0/4.html") as page:
        page.locator(".nine.patches a").nth(4).hover()
        assert (
            page.evaluate("[...document.querySelectorAll('.same')].map(a => a.getAttribute('href'))") == ["#hit-5"] * 3
        )
