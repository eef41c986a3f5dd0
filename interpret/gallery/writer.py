"""Write a gallery: the pages of a study and their pictures, in one folder."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from interpret.gallery import link_lists
from interpret.gallery.cards import render_card
from interpret.gallery.class_page import ClassPages
from interpret.gallery.classes import Classes
from interpret.gallery.correlation import correlate
from interpret.gallery.findings import Finding, findings
from interpret.gallery.image_list import list_pages
from interpret.gallery.image_page import ImagePages
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.search_index import SearchIndex
from interpret.gallery.unit_data import UNITS_PER_FILE, UnitData, data_file
from interpret.gallery.unit_page import read_unit
from interpret.gallery.units_by_class import UnitsByClass
from interpret.study.damage import refuse_damage
from interpret.study.reader import StudyReader
from interpret.study.views.pictures import Picture
from interpret.support import numbers
from interpret.support.errors import InterpretError
from interpret.support.html import breakable, json_in_html
from interpret.support.manifest import MANIFEST, check_folder, read_manifest, updating
from interpret.support.progress import progress
from interpret.support.version import __version__
from interpret.support.wording import count as counted

FORMAT = 2
MARKER = "gallery.json"
_PAGES = ("index.html", "how-to-read.html", "findings.html", "compare.html", "favourites.html")
_ASSETS = ("gallery.css", "gallery.js", "pictures.js", "icon.svg")


def write_gallery(
    study: StudyReader | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    context: bool = True,
    every_image: bool = True,
) -> Path:
    """Write a study as static pages and return the path of the first one.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> folder = Path(tempfile.mkdtemp())
    >>> study = Study(folder / "study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> study.project()
    >>> page = write_gallery(study, folder / "gallery")
    >>> page.name, (page.parent / "layers" / "2" / "1.html").exists()
    ('index.html', True)

    The pages open from disk or from a static host, without a network. Without JavaScript they show each unit's
    patches, projections, numbers and hits; its range, its related units, search, comparison and favourites need it.

    The same study gives the same bytes. An older gallery is replaced at once, when all files are written; unchanged
    files are kept. The gallery lists its files in ``interpret.sha256``, and other files are never removed. Pictures are
    hard links to the study's files where possible, otherwise copies.

    Each image of the study has a page and an entry in the list of images, with its prediction.

    Args:
        study: a study or its folder.
        out: the folder to write: a new or empty folder, or an older gallery.
        context: whether to show whole images: source images and the sample. Without, the gallery has patches only,
            except in layers whose units see the whole input.
        every_image: whether each image has a page, or those of hits and of the sample alone; a page takes some 3 kB,
            and the picture of one of more than 10,000 photographs 7 kB.

    Returns:
        the path of the first page, index.html.

    Raises:
        InterpretError: `out` is a file or contains anything but an unchanged gallery; the study has no mined layer.
    """
    if not isinstance(study, StudyReader):
        study = StudyReader(study)
    out = Path(out).resolve()
    check_target(out)
    study.refuse_among_images(out, "the gallery")
    refuse_damage(study)
    network = NetworkPage(study, context, every_image)
    if not network.mined_layers:
        raise InterpretError(f"study {str(study.path)!r} has no mined layer yet: mine it first")
    with updating(out) as folder:
        _Writer(network, folder, older=out).write()
    return out / "index.html"


def check_target(out: str | os.PathLike[str]) -> None:
    """Check that a gallery may be written to a folder: it is new, empty, or contains an unchanged gallery.

    >>> check_target("there-is-no-such-folder")

    Raises:
        InterpretError: `out` is a file, or contains files that interpret did not write there.
    """
    out = Path(out)
    if (out / MARKER).is_file() and read_manifest(out) is None:
        raise InterpretError(
            f"out {str(out)!r} holds a gallery without {MANIFEST}, which says what interpret wrote and may replace: "
            "name a new or an empty folder"
        )
    check_folder(out)


class _Writer:
    """Writes the pages of a study into an empty folder."""

    def __init__(self, network: NetworkPage, folder: Path, older: Path) -> None:
        self.network, self.folder, self.older = network, folder, older
        self.templates = Environment(
            loader=PackageLoader("interpret.gallery"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        for name in ("value", "count", "compact", "share", "product", "pixels", "extent", "signed"):
            self.templates.filters[name] = getattr(numbers, name)
        self.templates.filters |= {
            "counted": counted,
            "breakable": breakable,
            "json_in_html": json_in_html,
        }
        self.templates.globals |= {
            name: getattr(link_lists, name) for name in ("unit_links", "hit_links", "class_units")
        }
        self.found: list[Finding] = []
        self.image_pages = ImagePages(network)
        self.class_pages = ClassPages(network)
        self.classes = Classes([], [], [])
        self.templates.globals.update(network=network, version=__version__, found=self.found)
        self.made: set[Path] = set()

    def write(self) -> None:
        network = self.network
        self._assets()
        for layer in network.filtered_layers:
            self._picture(layer.filters)
        self.found += findings(network.study, network.context)
        self._correlate()
        self._choose_classes()
        with progress(network.unit_count, "writing the gallery", unit="unit") as bar:
            for place, layer in enumerate(network.mined_layers):
                before = network.mined_layers[place - 1] if place else None
                after = network.mined_layers[place + 1] if place + 1 < len(network.mined_layers) else None
                self._layer(layer, before, after, bar)
        for sample in network.samples.values():
            self._picture(sample.picture)
        self._image_and_class_pages()
        for finding in self.found:
            self._bytes(finding.path, finding.picture)
        card = render_card(network.model["card"] or "")
        self._page("index.html", "network.html", root="", card=card)
        for page, template in zip(_PAGES[1:], ("guide", "findings", "compare", "favourites"), strict=True):
            self._page(page, f"{template}.html", root="")
        for path, text in self.search_index.scripts(self.found):
            self._text(path, text)
        self._text(MARKER, json.dumps(self._marker(), indent=1, sort_keys=True) + "\n")

    def _marker(self) -> dict[str, Any]:
        model, data = self.network.model, self.network.data
        return {
            "format": FORMAT,
            "made_by": f"interpret {__version__}",
            "model": model["name"],
            "weights_hash": model["weights_hash"],
            "data": data["name"],
            "fingerprint": data["fingerprint"],
        }

    def _assets(self) -> None:
        here = Path(__file__).parent / "assets"
        for name in _ASSETS:
            self._text(f"assets/{name}", (here / name).read_text(encoding="utf-8"))

    def _correlate(self) -> None:
        """Find correlated units, among the layers that were mined on the same sample."""
        maxima, sample = {}, None
        for layer in self.network.mined_layers:
            if sample is None:
                sample = layer.data.sample_images
            same = np.array_equal(sample, layer.data.sample_images)
            # other layers keep their index, to which results refer
            maxima[layer.name] = layer.data.sample_maxima if same else np.zeros((len(sample), layer.unit_count), "f4")
            layer.forget()
        with progress(self.network.unit_count, "comparing units", unit="unit") as bar:
            self.network.correlates_inside, self.network.correlates_outside = correlate(maxima, step=bar.update)

    def _choose_classes(self) -> None:
        """Choose which classes have pages: those of the labels, and those that the network predicts."""
        network, labelled = self.network, 0
        predicted: set[int] = set(network.sources.best.tolist()) - {-1}
        for layer in network.mined_layers:
            if layer.data.class_means is not None:
                labelled = max(labelled, len(layer.data.class_means))
            predicted |= set(range(len(layer.output_classes)))
            layer.forget()
        labels = [network.label_name(label) or "" for label in range(labelled)]
        self.classes = Classes(labels, network.class_names, predicted)
        self.templates.globals["classes"] = self.classes
        self.units_by_class = UnitsByClass(network, self.classes)
        self.search_index = SearchIndex(network, self.classes, self.units_by_class)

    def _layer(self, layer: LayerPage, before: LayerPage | None, after: LayerPage | None, bar: Any) -> None:
        self._picture(layer.filters)
        own = [finding for finding in self.found if finding.name == layer.name]
        self._page(
            f"{layer.folder}/index.html",
            "layer.html",
            root="../../",
            layer=layer,
            before=before,
            after=after,
            own=own,
        )
        for collector in (self.image_pages, self.class_pages, self.units_by_class, self.search_index):
            collector.add_layer(layer)
        for made in self.network.optimised_of(layer).values():
            self._bytes(made.path, made.picture)
        template = self.templates.get_template("unit.html")
        for index in range(layer.unit_count):
            if index % UNITS_PER_FILE == 0:
                data = UnitData(self.network, layer)
            unit = read_unit(self.network, layer, index)
            for column in unit.columns:
                self._picture(column.sprite)
            for drawn in (*unit.optimised, unit.strip, unit.occlusion):
                if drawn is not None:
                    self._bytes(drawn.path, drawn.picture)
            text = template.render(root="../../", layer=layer, unit=unit, own=own, data_file=data_file(index))
            self._text(f"{layer.folder}/{index}.html", text)
            data.add(index, unit.hits)
            if index + 1 == layer.unit_count or (index + 1) % UNITS_PER_FILE == 0:
                self._text(f"{layer.folder}/{data_file(index)}", data.script())
            bar.update()
        layer.forget()

    def _image_and_class_pages(self) -> None:
        network = self.network
        with progress(network.image_count, "writing images", unit="page") as bar:
            template = self.templates.get_template("image.html")
            for image in self.image_pages.pages():
                self._picture(image.source.picture)
                self._text(image.source.href, template.render(root="../", image=image))
                bar.update()
        with progress(network.image_count, "listing images", unit="image") as bar:
            for listed in list_pages(network):
                self._page(listed.href, "images.html", root="../", page=listed)
                if listed.picture is not None:
                    self._bytes(listed.picture.path, listed.content)
                bar.update(len(listed.entries))
        for page in self.class_pages.pages(self.classes, self.units_by_class):
            for source in page.sources:
                self._picture(source.picture)
            for made in page.optimised:
                self._bytes(made.path, made.picture)
            self._page(page.entry.href, "class.html", root="../", page=page)
            for part in page.lists:
                self._page(part.href, "class_images.html", root="../", page=part)

    def _page(self, path: str, template: str, **shown: Any) -> None:
        self._text(path, self.templates.get_template(template).render(**shown))

    def _text(self, path: str, text: str) -> None:
        # a file name that is not Unicode contains lone surrogates, which UTF-8 cannot encode
        self._bytes(path, text.encode("utf-8", errors="replace"))

    def _bytes(self, path: str, content: bytes) -> None:
        target, older = self._place(Path(path)), self.older / path
        try:
            # an unchanged file is kept, so that synchronising a copy transfers little
            if older.stat().st_size == len(content) and older.read_bytes() == content:
                os.link(older, target)
                return
        except OSError:  # there is none, or the file system has no links
            pass
        target.write_bytes(content)

    def _picture(self, picture: Picture | None) -> None:
        if picture is None:
            return
        origin, target = self.network.study.path / picture.path, self._place(Path(picture.path))
        try:
            os.link(origin, target)
        except FileExistsError:
            return
        except OSError:
            if target.exists():
                return
            older = self.older / picture.path
            if older.is_file() and filecmp.cmp(origin, older, shallow=False):
                shutil.copy2(older, target)
            else:
                shutil.copyfile(origin, target)

    def _place(self, path: Path) -> Path:
        target = self.folder / path
        if target.parent not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(target.parent)
        return target
