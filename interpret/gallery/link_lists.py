"""Lists of links to units, as terse HTML: a gallery holds a hundred thousand of them.

An entry is a link and what the list tells of the unit; of units of one layer in a row, only the first names the layer.
The script `pictures.js` adds the layer's name to the others, the unit's picture, whose address follows from that of the
unit, and the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from interpret.gallery.image_page import HitLink, LayerHits
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.related_units import UnitLink
from interpret.gallery.units_by_class import UnitOfClass
from interpret.study.views.sprites import PATCHES
from interpret.support import numbers

FORMS: dict[str, Callable[[float], str]] = {
    "signed": numbers.signed,
    "share": numbers.share,
    "0 to 1": "{:.2f}".format,
}
"""How the numbers of a list are written."""


def unit_links(
    links: Iterable[UnitLink], root: str, form: str, said: LayerPage | None = None, output: UnitLink | None = None
) -> Markup:
    """Return a list of units with a number each.

    Args:
        links: the units.
        root: the address of the gallery's root from the page.
        form: how the numbers are written: one of `FORMS`.
        said: the layer that the page names before, and the list need not.
        output: the unit whose output is the subject, which comes first if it has a picture.
    """
    write, entries = FORMS[form], []
    if output is not None and output.layer.picture_of(output.index):
        entries.append(_entry(output.layer, output.index, "the output", root, said))
        said = output.layer
    for one in links:
        entries.append(_entry(one.layer, one.index, write(one.value), root, said, kernel=one.kernel))
        said = one.layer
    return _list(entries)


def hit_links(hits: LayerHits, links: Iterable[HitLink], root: str) -> Markup:
    """Return a list of units of a layer among whose hits an image is."""
    layer = hits.layer
    kind = ("named " if layer.output_classes else "") + ("pixels " if hits.single_tiles and layer.sheet_pixels else "")
    tiles = f" data-columns={layer.grid.columns}" if hits.single_tiles else ""
    entries = (
        _entry(layer, one.unit, numbers.value(one.value), root, layer, one.rank, layer.output_classes) for one in links
    )
    return _list(entries, kind, tiles)


def class_units(units: Iterable[UnitOfClass], root: str) -> Markup:
    """Return a list of units, with how many of their hits are predicted as a class."""
    entries, said = [], None
    for one in units:
        told = f"{one.count} of {one.layer.hits_of(one.unit)}"
        entries.append(_entry(one.layer, one.unit, told, root, said, rank=one.rank))
        said = one.layer
    return _list(entries)


def _list(entries: Iterable[str], kind: str = "", about: str = "") -> Markup:
    lines = "\n".join(entries)
    return Markup(f'<ul class="{kind}others units"{about}>\n{lines}\n</ul>')


def _entry(
    layer: LayerPage,
    unit: int,
    told: str,
    root: str,
    said: LayerPage | None,
    rank: int | None = None,
    titles: Sequence[str] = (),
    kernel: str = "",
) -> str:
    """Return an entry; addresses are quoted, and so need no quotation marks as attributes."""
    picture = layer.picture_folder(unit)
    about = "" if picture == PATCHES else f' data-of="{picture}"'
    if kernel:
        about += f' data-kernel="{kernel}"'
    name = "unit" if layer is said else str(layer.bidi_name)
    if titles:
        name = f"<bdi>{escape(titles[unit])}</bdi>"
    # from one unit's page to another's there is a shorter way than by the root
    address = "../" + layer.base.removeprefix("layers/") if root == "../../" else root + layer.base
    anchor = "" if rank is None else f"#hit-{rank + 1}"
    return f"<li{about}><a href={address}{unit}.html{anchor}>{name} {unit}</a> {told}"
