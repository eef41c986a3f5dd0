"""The report: what it holds, that it stands alone, that it is a function of the study, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import interpret
from helpers.commands import command
from helpers.pages import Page
from helpers.scripts import run_script
from interpret.analyses.methods.compute import compare_methods
from interpret.analyses.sanity.compute import sanity_check
from interpret.cli import main
from interpret.figures import style
from interpret.network.model import Model
from interpret.report.contents import UNITS, Report
from interpret.report.pdf import write_pdf
from interpret.report.writer import write_report
from interpret.results.kinds import BUILT_IN, result_class
from interpret.study.study import Study
from interpret.support.errors import InterpretError

EVIL = "</title><script>alert(1)</script>"
CLASSES = (EVIL, "$x^2$ & co", "ship 🚢")


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(5 * 25, 3)).eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(network(), EVIL, classes=CLASSES, origin="drawn at random, with <b>seed</b> 0")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Model, images: torch.Tensor) -> Path:
    """A study that holds one of each."""
    study = Study(tmp_path_factory.mktemp("report") / "study", model, images)
    study.mine(k=4)
    study.project()
    study.draw_filters()
    # kept in another order than they shall be shown
    study.keep(sanity_check(model, images[:2], ["gradient", "deconvnet"], steps=2))
    study.keep(compare_methods(model, images[:2], ["gradient", "deconvnet"], layer="3", target=1), "3")
    study.keep(compare_methods(model, images[:2], ["gradient", "deconvnet"]))
    return study.path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return write_report(folder, folder.parent / "report.html").read_text("utf-8")


def test_it_holds_what_the_study_holds(folder: Path, text: str) -> None:
    page, study = Page(text), Study.open(folder)
    results = [study.result(*one) for one in study.results]
    assert [one.kind for one in results] == ["methods", "methods", "sanity"]
    wanted = ["provenance", "layers", "filters", "units", *(f"result-{number}" for number in (1, 2, 3))]
    assert page.ids == wanted
    said = " ".join(page.text.split())
    for result in results:
        assert " ".join(result.title.split()) in said and " ".join(result.reading.split()) in said
    assert study.info["model"]["weights_hash"] in said and study.info["data"]["fingerprint"] in said
    assert "Conv2d" in said and "6 × 14 × 14" in said
    pictures = [given for tag, given in page.tags if tag == "img"]
    # the filters, patches and projections of each layer's strongest units, and a figure for each result
    units = sum(len(Report(study).units(layer)) for layer in Report(study).shown_layers)
    assert 3 < units <= 3 * UNITS and len(pictures) == 1 + 2 * units + 3
    assert all(given["alt"] for given in pictures)


def test_pictures_are_the_studys_own(folder: Path, text: str) -> None:
    uris = [str(given["src"]) for tag, given in Page(text).tags if tag == "img"]
    contents = [base64.b64decode(uri.partition(",")[2]) for uri in uris]
    assert contents[0] == Study.open(folder).filter_sheet("0").read_bytes()
    study = Study.open(folder)
    strongest = int(np.lexsort((np.arange(6), -study.mined("0").values[:, 0]))[0])
    assert contents[1] == study.patch_sprite("0", strongest).read_bytes()
    assert contents[2] == study.projection_sprite("deconvnet", "0", strongest).read_bytes()
    assert Image.open(BytesIO(contents[1])).format == "WEBP"
    assert contents[-1].startswith(b"\x89PNG")


def test_it_stands_alone(text: str) -> None:
    page = Page(text)
    policy = next(given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    style_text = text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style_text.encode()).digest()).decode() in policy
    assert "url(" not in style_text and "@import" not in style_text
    for tag, given in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert not any(name.startswith("on") or name == "style" for name in given)
        if "src" in given:
            assert str(given["src"]).startswith("data:image/")
        if "href" in given:
            assert str(given["href"]).startswith("#") and str(given["href"])[1:] in page.ids


def test_names_are_data(text: str) -> None:
    assert "<script" not in text and "<b>seed" not in text
    assert "&lt;/title&gt;&lt;script&gt;" in text and "$x^2$ &amp; co" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["html", "pdf"])
def test_the_same_study_gives_the_same_bytes(folder: Path, tmp_path: Path, kind: str) -> None:
    """Also in processes whose dictionaries of strings hash differently, at another time, without torch."""
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'captum'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import interpret\n"
        "interpret.write_report(sys.argv[1], sys.argv[2])\n"
    )
    files = []
    for seed, zone in ((1, "UTC"), (2, "Asia/Tokyo")):
        files.append(tmp_path / f"{seed}" / f"report.{kind}")
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "TZ": zone}
        command = [sys.executable, "-W", "error", "-c", code, str(folder), str(files[-1])]
        subprocess.run(command, check=True, env=environment, timeout=300)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() == write_report(folder, tmp_path / f"here.{kind}").read_bytes()


@pytest.mark.slow
def test_the_pdf_has_a_page_for_each_figure(folder: Path, tmp_path: Path) -> None:
    content = write_report(folder, tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert b"CreationDate" not in content
    pages = [tuple(map(float, box.split()[2:])) for box in re.findall(rb"/MediaBox \[([^\]]*)\]", content)]
    assert len(pages) >= 2 + 3
    assert all(width == pytest.approx(595.4, abs=1) and height >= 841 for width, height in pages)


@pytest.mark.slow
def test_the_pdf_begins_with_pictures_and_ends_with_the_table_of_layers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read off the pages as they are saved: which have pictures, and which have the heading of the table."""
    told: list[tuple[bool, list[str]]] = []
    save = PdfPages.savefig

    def saved(file: PdfPages, figure: Figure, **settings: Any) -> None:
        told.append((any(axes.images for axes in figure.axes), [text.get_text() for text in figure.texts]))
        save(file, figure, **settings)

    monkeypatch.setattr(PdfPages, "savefig", saved)
    write_report(folder, tmp_path / "report.pdf")
    tables = [page for page, (_, words) in enumerate(told) if "Layers" in words]
    assert len(tables) == 1 and not any(pictured for pictured, _ in told[tables[0] :])
    assert all(pictured for pictured, _ in told[1 : tables[0]]) and tables[0] > 1
    assert "Network report" in told[0][1] and told[-1][1][-1] == str(len(told))


@pytest.mark.parametrize("word", ["WWWW ", "W", "ill.", "$"])
def test_no_line_of_the_pdf_leaves_its_page(
    word: str, model: Model, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide and narrow letters, with and without spaces: lines are as long as they are drawn."""
    study = Study(tmp_path / "study", model, images)
    study.mine("3", k=2)
    study.info["model"]["name"] = word * 60
    study.info["model"]["origin"] = word * 300
    study.info["data"]["name"] = word * 200
    ends: list[float] = []
    longest: list[float] = []

    def saved(_: PdfPages, figure: Figure, **settings: Any) -> None:
        FigureCanvasAgg(figure).draw()
        for text in figure.texts:
            box = text.get_window_extent()
            ends.append(box.x1 / figure.bbox.width)
            longest.append(box.width / figure.bbox.width)

    monkeypatch.setattr(PdfPages, "savefig", saved)
    write_pdf(Report(study), tmp_path / "report.pdf")
    assert max(ends) < 0.95
    assert max(longest) > 0.7  # and they fill the page


def test_only_the_sections_that_there_are(model: Model, images: torch.Tensor, tmp_path: Path) -> None:
    study = Study(tmp_path / "study", model, images)
    study.keep(compare_methods(model, images[:1], ["gradient"]))
    page = Page(write_report(study, tmp_path / "report.html").read_text("utf-8"))
    assert page.ids == ["provenance", "layers", "result-1"]
    write_report(study, tmp_path / "report.pdf")
    # one that has no name is read back as such
    assert study.results == [("methods", "")] and study.result("methods").reading
    mined = Study(tmp_path / "mined", model, images)
    mined.mine("3", k=2)
    page = Page(write_report(mined, tmp_path / "mined.html").read_text("utf-8"))
    assert page.ids == ["provenance", "layers"]  # units without pictures are not shown
    mined.project()
    assert "units" in Page(write_report(mined, tmp_path / "mined.html").read_text("utf-8")).ids


def test_every_kind_of_result_can_be_drawn() -> None:
    assert all(result_class(kind).has_figure() and result_class(kind).kind == kind for kind in BUILT_IN)


def test_figures_outside_of_the_report_keep_their_style(text: str) -> None:
    import matplotlib

    assert text and matplotlib.rcParams["font.size"] != style.FONT_SIZE


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_an_empty_study_is_one_sentence(
    model: Model, images: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    study = Study(tmp_path / "study", model, images)
    study.write_info()  # as an interrupted mining leaves it
    with pytest.raises(InterpretError, match="is empty: mine it"):
        write_report(study, tmp_path / "report.html")
    out = tmp_path / "kept.html"
    out.write_text("older")
    monkeypatch.setattr(sys, "argv", ["interpret", "report", str(study.path), "--out", str(out)])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    assert exit_.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert "is empty: mine it" in said.err and out.read_text() == "older"


def test_other_mistakes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InterpretError, match=r"must end in \.html or \.pdf, not 'report\.docx'"):
        write_report(folder, tmp_path / "report.docx")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InterpretError, match="is a folder"):
        write_report(folder, tmp_path / "folder.html")
    with pytest.raises(InterpretError, match="is no study"):
        write_report(tmp_path / "nothing", tmp_path / "report.html")
    (tmp_path / "mine.pdf").write_text("mine")
    with pytest.raises(InterpretError, match=r"mine\.pdf' is not as interpret wrote it, or not by interpret"):
        write_report(folder, tmp_path / "mine.pdf")
    assert (tmp_path / "mine.pdf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "mine.pdf"]


# ---- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_commands_keep_their_results_in_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lenet = interpret.load("lenet")
    digits = interpret.open_images("digits", lenet)
    study = Study(tmp_path / "study", lenet, digits, made_from={"model": "lenet", "data": "digits"})
    study.draw_filters()
    few = ("--methods", "gradient, guided", "--images", 2)
    command(monkeypatch, "attribute", study.path, *few, "--out", tmp_path / "methods.svg")
    command(monkeypatch, "sanity", study.path, *few, "--steps", 2, "--out", tmp_path / "sanity.png")
    hidden = ("--layer", "conv2", "--target", 3, "--out", tmp_path / "unit.pdf")
    picture = tmp_path / "seven.png"
    Image.new("L", (40, 30), 200).save(picture)
    command(monkeypatch, "attribute", study.path, picture, *few, *hidden)
    assert study.results == [("methods", ""), ("methods", "conv2"), ("sanity", "")]
    kept: Any = study.result("methods", "conv2")
    assert kept.layer == "conv2" and kept.targets.tolist() == [3] and kept.pictures.shape == (1, 28, 28, 3)
    assert len(study.result("methods").pictures) == 2  # type: ignore[attr-defined]
    command(monkeypatch, "report", study.path, "--out", tmp_path / "report.pdf")
    assert capsys.readouterr().out.splitlines()[-1] == f"Open {tmp_path / 'report.pdf'}"
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("methods.svg", "sanity.png", "unit.pdf"))


def test_commands_refuse(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in [
        (("attribute", "lenet", "digits", "--out", "figure.bmp"), "must end in .png, .svg or .pdf"),
        (("attribute", "lenet", "digits", "--images", "0"), "--images must be a number of at least 1, or all, not '0'"),
        (("attribute", "lenet", "digits", "--target", "12"), "target 12 does not exist"),
        (("attribute", "lenet", "digits", "--target", "seven"), "unknown class 'seven'"),
        (("sanity", "lenet", "digits", "--methods", "gradients"), "did you mean 'gradient'"),
        (("attribute", "lenet"), "'lenet' is no study's folder: give the images, too, as IMAGES"),
        (("attribute", folder), "was not made by this command"),
        (("report", tmp_path), "is no study"),
    ]:
        monkeypatch.chdir(tmp_path)
        command(monkeypatch, *arguments, status=2)
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1280])
def test_it_shows_every_picture_and_asks_for_nothing(browser: Any, folder: Path, text: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, told, asked = context.new_page(), [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder.parent / "report.html").as_uri())
    sizes = page.evaluate("[...document.images].map(one => [one.complete, one.naturalWidth, one.clientWidth])")
    assert text and len(sizes) > 10 and all(complete and natural and shown for complete, natural, shown in sizes)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).maxWidth") == "960px"  # the style is let in
    assert not told and [url for url in asked if not url.startswith("data:")] == [page.url]
    context.close()


@pytest.mark.slow
def test_example_writes_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped network's report, as the example makes it."""
    told = run_script(monkeypatch, capsys, "report", "--out", tmp_path / "lenet")
    assert told == [f"Open {tmp_path / 'lenet' / name}" for name in ("report.html", "report.pdf")]
    page = Page((tmp_path / "lenet" / "report.html").read_text("utf-8"))
    assert page.ids == ["provenance", "layers", "filters", "units", "result-1", "result-2", "result-3"]
    assert (tmp_path / "lenet" / "report.pdf").read_bytes().startswith(b"%PDF-")
