"""Every kind of figure: its panels, its widths, the user's style, and nothing cut or covered."""

from __future__ import annotations

import dataclasses
import re
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import interpret
from helpers import figure_results
from helpers.figure_checks import drawn, faults
from helpers.figure_results import make
from interpret.analyses.costs.figure import FAMILIES
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, CATEGORIES, figure_grid, ignoring_user_style, in_style
from interpret.results.kinds import BUILT_IN
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError

KINDS = list(BUILT_IN)
COLUMN, PAGE = 3.3, 7.0


@pytest.fixture(autouse=True)
def clean_settings() -> Any:
    with matplotlib.rc_context():
        yield
    plt.close("all")


# ---- nothing is cut or covered ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("width", "layers", "images"), [(COLUMN, 9, 3), (PAGE, 26, 2), (COLUMN, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_or_covered(kind: str, width: float, layers: int, images: int) -> None:
    figure = plot(make(kind, layers, images), width=width)
    assert faults(figure) == []
    assert figure.get_size_inches()[0] == width


@pytest.mark.parametrize("kind", ["invariance", "occlusion", "correspondence", "methods", "sanity", "unit"])
def test_nothing_is_cut_or_covered_with_large_letters(kind: str) -> None:
    matplotlib.rcParams["font.size"] = 11
    assert faults(plot(make(kind, 9, 2), width=5)) == []


def test_the_checks_find_faults() -> None:
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, "one", ha="center")
    figure.text(0.55, 0.5, "two", ha="center")
    figure.text(0.9, 0.9, "beyond the edge")
    figure.text(0.2, 0.1, "lies", rotation=30)
    figure.text(0.2, 0.16, "beside", rotation=30)
    assert faults(figure) == ["'beyond the edge' is cut", "'one' covers 'two'"]
    first, second = figure.add_axes((0, 0, 0.3, 0.3)), figure.add_axes((0.2, 0.2, 0.3, 0.3))
    first.imshow(np.zeros((2, 2)))
    second.set_axis_off()
    assert "axes '' cover axes ''" in faults(figure) and "'lies' covers a picture" in faults(figure)


def test_names_with_signs_of_formulas_are_written_as_they_are() -> None:
    assert "$2 bill, or £3" in [word.text for word in drawn(plot(make("predictions"))).words]


HOSTILE = ["$x^", r"\frac{$", "a\x07b\x00", "\x1b[31m", "\ud800", "$$", "]]>&<!--", "\x85\u2028"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_drawn_as_they_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_results, "CLASSES", HOSTILE)
    monkeypatch.setattr(figure_results, "LONG", [".".join(HOSTILE), HOSTILE[0]])
    monkeypatch.setattr(figure_results, "layer_names", lambda count: [f"{HOSTILE[n % 8]}{n}" for n in range(count)])
    matplotlib.rcParams["text.usetex"] = True  # no name survives LaTeX
    result = make(kind, 6, 3)
    for shown in vars(result):
        if isinstance(getattr(result, shown), str) and shown in ("model", "data"):
            object.__setattr__(result, shown, HOSTILE[1])
    figure, file = plot(result), BytesIO()
    figure.savefig(file, format="svg")
    ElementTree.fromstring(file.getvalue())
    matplotlib.rcParams["text.usetex"] = False
    mine, axes = plt.subplots()
    axes.set_title("$a^2$")
    plot(result, ax=axes)
    mine.savefig(file := BytesIO(), format="svg")
    ElementTree.fromstring(file.getvalue())
    assert axes.get_title() != "$a^2$" or axes.title.get_parse_math()  # the user's own words remain a formula


# ---- panels ----------------------------------------------------------------------------------------------------------


PANELS = {
    "predictions": ("2", "9"), "feature-maps": ("input", "inputs"), "evolution": ("movement", "move"),
    "invariance": ("layers", "layer"), "occlusion": ("classes", "class"), "neighbours": ("1", "-1"),
    "correspondence": ("mouth", "nose2"), "methods": ("detail", "details"), "sanity": ("ssim", "sim"),
    "costs": ("accuracies", "accuracy"), "trace": ("parameters", "params"), "mined-layer": ("3", "8"),
    "unit": ("0", "4"), "projections": ("1", "7"), "attribution": ("1", "7"),
    "comparison": ("units", "unit"), "synthesised": ("1", "7"), "inversions": ("1", "7"), "atlas": ("1", "17"),
    "effective-fields": ("features.1.expand3x3", "features.2.expand3x3x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PANELS)
def test_a_panel_is_chosen_and_an_unknown_one_refused(kind: str) -> None:
    result, (known, wrong) = make(kind, 4, 4), PANELS[kind]
    whole, part = plot(result), plot(result, panels=known, width=COLUMN)
    assert len(drawn(part).words) < len(drawn(whole).words) or kind == "costs"
    assert faults(part) == []
    with pytest.raises(InterpretError, match=f"unknown panel '{wrong}'.*'"):
        plot(result, panels=[known, wrong])
    with pytest.raises(InterpretError, match="panels is empty"):
        plot(result, panels=[])


def test_the_error_lists_the_panels() -> None:
    with pytest.raises(InterpretError) as caught:
        plot(make("occlusion"), panels="map")
    assert str(caught.value) == (
        "unknown panel 'map': the figure has 'image', 'activation', 'projections', 'probability', 'classes'"
    )


def test_panels_stand_in_the_figures_order() -> None:
    curves = make("invariance", 5)
    titles = [axes.get_title() for axes in plot(curves, panels=["probability", "first"]).axes]
    assert titles == ["conv0", "true label", ""]  # and the legend


def test_chosen_images_of_an_occlusion() -> None:
    occlusion: Any = make("occlusion")
    figure = interpret.plot_occlusion(occlusion, panels=["image", "probability"], images=[2, 0])
    maps = [axes.images[0].get_array() for axes in figure.axes]
    for place, expected in enumerate([occlusion.pictures[2], occlusion.probabilities[2], occlusion.pictures[0],
                                      occlusion.probabilities[0]]):  # fmt: skip
        np.testing.assert_array_equal(maps[place], expected)
    with pytest.raises(InterpretError, match="images must be from 0 to 3, the occluded images, not 4"):
        interpret.plot_occlusion(occlusion, images=4)


# ---- axes and sizes of one's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_drawn_into_ones_own_axes(kind: str) -> None:
    figure, (mine, other) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    assert plot(make(kind, 4, 2), ax=mine) is mine
    assert mine.images or mine.lines or mine.patches or mine.collections
    assert figure.axes == [mine, other] and not other.has_data()
    figure.savefig(BytesIO(), format="png")


def test_one_panel_for_ones_own_axes() -> None:
    curves: Any = make("invariance", 5)
    ax = plt.figure().add_subplot()
    assert isinstance(plot(curves, panels="last", ax=ax), Axes)
    (line, *_) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), curves.relative[curves.layers[-1]][0])
    ax.set_title("as I like it")
    for wrong, told in [({"panels": ["first", "last"]}, "ax takes one"), ({"width": 3.0}, "ax already has a size")]:
        with pytest.raises(InterpretError, match=told):
            plot(curves, ax=ax, **wrong)  # type: ignore[call-overload]


def test_a_legend_leaves_small_axes_of_ones_own_to_the_curves() -> None:
    curves: Any = make("invariance", 5)
    large = plt.figure(figsize=(3.3, 2.4), layout="constrained").add_subplot()
    plot(curves, ax=large)
    assert large.get_legend() is not None
    large.figure.savefig(BytesIO(), format="png")
    assert large.get_legend().get_window_extent().height < 0.7 * large.get_window_extent().height
    assert large.get_legend().get_frame_on()  # what lies under it does not run through its words
    halves = plt.figure(figsize=(3.3, 1.8), layout="constrained").subplots(1, 2)
    for panel, ax in zip(["layers", "probability"], halves, strict=True):
        plot(curves, panel, ax=ax)
        assert ax.get_legend() is None and ax.lines


def test_occlusions_of_two_layers_are_told_apart() -> None:
    """A study keeps both, and its findings and its report list them by title."""
    occlusion: Any = make("occlusion", 4, 2)
    titles = [dataclasses.replace(occlusion, layer=layer).title for layer in ("conv1", "conv2", None)]
    assert titles[0] == "What the network and conv1 lose where a square is hidden"
    assert titles[2] == "What the network loses where a square is hidden" and len(set(titles)) == 3


def test_few_predictions_are_no_larger_than_many() -> None:
    wide = {}
    for count in (1, 2, 4, 6):
        figure = plot(make("predictions", 4, count))
        drawn(figure)
        assert faults(figure) == []
        wide[count] = figure.get_size_inches()[0]
    assert wide == pytest.approx({1: 2.4, 2: 3.6, 4: 7.2, 6: 7.2})
    assert plot(make("predictions", 4, 1), width=7.2).get_size_inches()[0] == pytest.approx(7.2)


def test_sizes() -> None:
    curves = make("invariance", 5)
    assert plot(curves).get_size_inches()[0] == 7.2
    assert tuple(plot(curves, figsize=(5, 4)).get_size_inches()) == (5, 4)
    matplotlib.rcParams["figure.figsize"] = (3.3, 2)
    assert plot(curves).get_size_inches()[0] == 3.3
    for wrong, told in [
        ({"width": 1}, "width must be at least 2 inches, not 1"),
        ({"width": float("nan")}, "width must be at least 2 inches"),
        ({"width": 4, "figsize": (4, 4)}, "width and figsize both"),
    ]:
        with pytest.raises(InterpretError, match=told):
            plot(curves, **wrong)  # type: ignore[call-overload]


# ---- real fonts ------------------------------------------------------------------------------------------------------


def font_types(content: bytes) -> set[bytes]:
    return set(re.findall(rb"/Subtype /(Type\d|TrueType|CIDFontType\d)", content))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["invariance", "methods", "unit"])
def test_fonts_are_embedded_whenever_it_is_saved(kind: str, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure = plot(make(kind, 3, 2))
    figure.savefig(tmp_path / "later.pdf")
    write_figure(figure, tmp_path / "written.pdf")
    for name in ("later.pdf", "written.pdf"):
        assert font_types((tmp_path / name).read_bytes()) == {b"Type0", b"CIDFontType2"}
    figure.savefig(file := BytesIO(), format="eps")
    assert b"/FontType 42" in file.getvalue() and b"/FontType 3" not in file.getvalue()
    assert dict(matplotlib.rcParams) == before
    # what the test looks for is there in a figure of matplotlib's own
    plain = Figure()
    plain.text(0, 0, "plain")
    plain.savefig(file := BytesIO(), format="pdf")
    assert b"Type3" in font_types(file.getvalue())


def test_the_text_of_a_pdf_can_be_found() -> None:
    """Glyphs of Type 42 come with a map back to letters."""
    plot(make("invariance", 3, 2)).savefig(file := BytesIO(), format="pdf")
    streams = re.findall(rb"stream\r?\n(.*?)endstream", file.getvalue(), re.DOTALL)
    texts = []
    for stream in streams:
        try:
            texts.append(zlib.decompress(stream))
        except zlib.error:
            continue
    assert any(b"beginbfchar" in text or b"beginbfrange" in text for text in texts)


# ---- the user's style ------------------------------------------------------------------------------------------------


def colours_of(figure: Figure) -> set[str]:
    return {to_hex(line.get_color()) for axes in figure.axes for line in axes.lines}


def test_the_users_style_takes_effect() -> None:
    plain = plot(make("invariance", 3, 2))
    assert plain.axes[1].title.get_fontsize() == 8 and to_hex(CATEGORIES[0]) in colours_of(plain)
    matplotlib.rcParams.update({
        "font.family": "serif", "font.size": 12, "axes.linewidth": 2.0,
        "axes.prop_cycle": matplotlib.cycler(color=["#123456", "#654321"]),
    })  # fmt: skip
    own = plot(make("invariance", 3, 2))
    assert own.axes[1].title.get_fontsize() == 12 and own.axes[1].title.get_fontfamily() == ["serif"]
    assert {"#123456", "#654321"} <= colours_of(own)
    # what they left alone is ours
    assert own.axes[1].spines["left"].get_linewidth() == 2 and not own.axes[1].spines["top"].get_visible()


def test_it_looks_as_when_it_was_drawn() -> None:
    """matplotlib makes an axis's ticks when it draws them, by the settings of then."""
    with plt.style.context("dark_background"):
        figure = plot(make("invariance", 3, 2))
    figure.savefig(BytesIO(), format="png")
    assert {tick.label1.get_color() for tick in figure.axes[1].xaxis.get_major_ticks()} == {"white"}
    figure = plot(make("invariance", 3, 2))
    with plt.style.context("dark_background"):
        figure.savefig(BytesIO(), format="png")
    assert to_hex(figure.axes[1].xaxis.get_major_ticks()[0].label1.get_color()) != "#ffffff"


def contrast(one: Any, other: Any) -> float:
    """Return the ratio of two colours' luminances, as WCAG 2 defines it."""

    def luminance(color: Any) -> float:
        channels = np.array(to_rgb(color))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot"])
@pytest.mark.parametrize("kind", ["predictions", "evolution", "invariance", "occlusion", "methods", "mined-layer"])
def test_words_can_be_read_in_every_style(kind: str, style: str) -> None:
    matplotlib.style.use(style)
    figure = plot(make(kind, 4, 2))
    drawn(figure)
    paper = figure.get_facecolor()
    for artist in figure.findobj(matplotlib.text.Text):
        if artist.get_visible() and artist.get_text().strip():
            assert contrast(artist.get_color(), paper) > 3, artist.get_text()
    assert faults(figure) == []


def test_a_dark_figure_has_no_white_between_its_pictures() -> None:
    matplotlib.style.use("dark_background")
    figure = plot(make("evolution", 4, 2))
    canvas = drawn(figure)
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    assert (pixels == 255).all(-1).mean() < 0.02 < (pixels == 0).all(-1).mean()


def test_examples_are_drawn_in_the_style_as_well() -> None:
    @in_style
    def line() -> Figure:
        figure, axes = figure_grid(1, 1, (2, 2))
        axes[0, 0].plot([1, 2])
        return figure

    matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=["#ff00ff"])
    assert line().axes[0].lines[0].get_color() == "#ff00ff"


# ---- one colour, one meaning -----------------------------------------------------------------------------------------


def test_a_colour_is_an_image_and_a_grey_a_layer() -> None:
    curves: Any = make("invariance", 9, 4)
    figure = plot(curves)
    examples, first, last, layers, probability, legend = figure.axes
    values = len(curves.values)

    def lines(axes: Axes) -> list[str]:
        return [to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) == values]

    assert lines(first) == lines(last) == lines(probability) == list(CATEGORIES[:4])
    greys = lines(layers)
    assert len(set(greys)) == 9 and all(np.ptp(to_rgb(grey)) < 0.01 for grey in greys)
    assert [np.mean(to_rgb(grey)) for grey in greys] == sorted(np.mean(to_rgb(grey)) for grey in greys)
    # frames: each image's pictures in its own colour
    sheet = np.asarray(examples.images[0].get_array())
    for row, colour in enumerate(CATEGORIES[:4]):
        inks = sheet[sheet.shape[0] * row // 4, : sheet.shape[1] // 5 - 2, :3]
        assert (np.abs(sheet[..., :3] - np.rint(np.array(to_rgb(colour)) * 255)).max(-1) == 0).any(), inks
    # one legend, whose lines are those of the layers that it names
    handles = {text.get_text(): to_hex(line.get_color()) for text, line in
               zip(legend.get_legend().get_texts(), legend.get_legend().get_lines(), strict=True)}  # fmt: skip
    for place in (0, 8):
        assert handles[curves.layers[place]] == greys[place]
    assert sum(axes.get_legend() is not None for axes in figure.axes) == 1


def test_a_mean_has_the_grey_of_its_layer() -> None:
    curves: Any = make("invariance", 9, 12)
    _, first, last, layers, probability, _ = plot(curves).axes
    thick = [next(line for line in axes.lines if line.get_linewidth() == 1.6) for axes in (first, last, probability)]
    assert thick[0].get_color() == layers.lines[0].get_color()
    assert (
        thick[1].get_color()
        == [one for one in layers.lines if len(one.get_xdata()) == len(curves.values)][-1].get_color()
    )
    assert thick[2].get_linestyle() == "--"


def test_images_are_named_where_their_pictures_are_not() -> None:
    figure = plot(make("invariance", 3, 2), panels=["first", "probability"])
    named = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert named[-2:] == ["tench", "European fire salamander"]


# ---- the table of methods --------------------------------------------------------------------------------------------


def test_target_comparison_and_rho_are_named() -> None:
    result: Any = make("methods", images=2)
    (table,) = plot(result).axes
    texts = {text.get_text().replace("\n", " "): text for text in table.texts}
    by_row = {name: texts[name].get_position()[1] for name in ("maps for", "compared with")}
    for name, row in ((result.target_names[0], "maps for"), (result.other_names[1], "compared with")):
        found = next(text for text in table.texts if text.get_text().startswith(name[:4]) and
                     abs(text.get_position()[1] - by_row[row]) < 0.01)  # fmt: skip
        assert found
    explained = table.texts[-1].get_text().replace("\n", " ")
    for words in ("Spearman’s rank correlation", "that for the runner-up named below each image", "A dot an image"):
        assert words in explained
    of_a_unit: Any = make("methods", images=2)
    of_a_unit.layer = "conv2"
    (table,) = plot(of_a_unit).axes
    assert "that for the next channel named below" in table.texts[-1].get_text().replace("\n", " ")


# ---- one of a thing --------------------------------------------------------------------------------------------------


COUNTS = ("items", "sample", "searched", "images", "draws")


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_a_thing_is_not_written_as_many(kind: str) -> None:
    result: Any = make(kind, layers=1, images=1)
    for name in COUNTS:
        if isinstance(vars(result).get(name), int):
            setattr(result, name, 1)
    texts = [text.get_text() for text in plot(result).findobj(Text)]
    told = [*texts, repr(result), *(getattr(result, name, "") for name in ("title", "extent", "reading"))]
    several = re.compile(
        r"(?<![\w.,\N{MINUS SIGN}])1 (?:kept |strongest )?"
        r"(?:images|units|layers|epochs|networks|methods|maps|places|parts|positions|channels|steps)\b"
    )
    assert [sentence for sentence in told if several.search(sentence.replace("\n", " "))] == []
    assert several.search("mean of 1 images") and several.search("1 kept epochs") and not several.search("1 image")


# ---- many networks ---------------------------------------------------------------------------------------------------


def test_a_small_chart_of_many_networks_names_those_that_have_room() -> None:
    costs: Any = make("costs", 26)
    figure = plot(costs, width=COLUMN)
    assert faults(figure) == []
    labels = [one for one in figure.axes[0].texts if one.get_visible()]
    assert 10 < len(labels) < len(costs.names)
    # the cheapest and best are named first
    best = [item for item in range(len(costs.names))
            if not ((costs.macs < costs.macs[item]) & (costs.top1 > costs.top1[item])).any()]  # fmt: skip
    assert all(figure.axes[0].texts[item].get_visible() for item in best)
    assert {text.get_text() for text in figure.axes[1].get_legend().get_texts()} <= set(FAMILIES)


def test_a_font_that_is_there_is_measured() -> None:
    from interpret.figures.lettering import width_of

    sans = width_of("illicit", 10)
    matplotlib.rcParams["font.family"] = "monospace"
    assert width_of("illicit", 10) > sans
    assert to_hex(ACCENT) == "#c2410c"


def test_a_letter_that_no_font_has_is_a_box_on_pages_and_said_elsewhere() -> None:
    def draw() -> None:
        figure = figure_grid(1, 1, (2, 2))[0]
        figure.text(0.5, 0.5, "\N{FOX FACE}.jpg")
        figure.savefig(BytesIO(), format="png")

    with ignoring_user_style():  # warnings are errors here
        draw()
    with pytest.warns(UserWarning, match="FOX FACE"):
        draw()


def test_the_last_bit_of_a_layout_changes_no_byte_of_an_svg(tmp_path: Path) -> None:
    """The solver of layouts orders its variables by their addresses, so that its last bit differs between runs."""
    found = []
    for place, moved in enumerate((0.125, np.nextafter(0.125, 1))):
        figure = Figure()
        for left in (moved, 0.125, 0.6):
            axes = figure.add_axes((float(left), 0.1, 0.3, 0.8))
            axes.plot([1, 3, 2])
        write_figure(figure, tmp_path / f"{place}.svg")
        found.append((tmp_path / f"{place}.svg").read_text())
    assert found[0] == found[1]
    named = re.findall(r'<clipPath id="(\w+)"', found[0])
    assert len(named) == len(set(named)) == 2 and set(re.findall(r"url\(#(\w+)\)", found[0])) == set(named)
    ElementTree.fromstring(found[0])
