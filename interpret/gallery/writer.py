"""Writing a gallery: every page of a study, and the pictures they show, into one folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import interpret
from interpret.errors import InterpretError
from interpret.files import replacing
from interpret.gallery import cards, numbers
from interpret.gallery.pages import LayerView, NetworkView, Picture
from interpret.progress import progress
from interpret.study import Study

FORMAT = 1
MARKER = "gallery.json"
_OURS = {MARKER, "index.html", "how-to-read.html", "assets", "layers", "patches", "projections", "sources", "filters"}
_ASSETS = ("gallery.css", "gallery.js", "icon.svg")


def write_gallery(study: Study | str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a study as static pages and return the path of the first one.

    >>> import tempfile, torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> folder = Path(tempfile.mkdtemp())
    >>> study = Study(folder / "study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> study.project()
    >>> page = write_gallery(study, folder / "gallery")
    >>> page.name, (page.parent / "layers" / "2" / "1.html").exists()
    ('index.html', True)

    The folder opens from disk or from any static host; the pages need no network, and read the same without
    JavaScript. It is a function of the study alone: the same study gives the same bytes. Pictures are hard links to
    the study's where the file system has them, else copies.

    Args:
        study: a study or its folder.
        out: the folder to write: a new or an empty one, or an older gallery, which is replaced whole at the end.

    Raises:
        InterpretError: `out` is a file or holds anything that is not a gallery's; the study has no mined layer.
    """
    if not isinstance(study, Study):
        study = Study.open(study)
    out = Path(out).resolve()
    check_target(out)
    network = NetworkView(study)
    if not network.mined_layers:
        raise InterpretError(f"study {str(study.path)!r} has no mined layer yet: mine it first")
    with replacing(out) as folder:
        _Writer(network, folder).write()
    return out / "index.html"


def check_target(out: str | os.PathLike[str]) -> None:
    """Refuse a place for a gallery that holds something else.

    >>> check_target("there-is-no-such-folder")

    Raises:
        InterpretError: `out` is a file or holds anything that is not a gallery's.
    """
    out = Path(out).resolve()
    if not out.exists():
        return
    if not out.is_dir():
        raise InterpretError(f"out {str(out)!r} is a file: name a folder for the gallery")
    names = {entry.name for entry in out.iterdir()}
    if names and MARKER not in names:
        raise InterpretError(f"out {str(out)!r} holds something that is not a gallery: name a new or an empty folder")
    foreign = sorted(names - _OURS)
    if foreign:
        shown = ", ".join(repr(name) for name in foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise InterpretError(
            f"out {str(out)!r} holds files beside its gallery ({shown}): move them or name another folder"
        )


class _Writer:
    """Writes the pages of one study into a folder that is still empty."""

    def __init__(self, network: NetworkView, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.templates = Environment(
            loader=PackageLoader("interpret.gallery"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        for name in ("value", "count", "compact", "share", "product", "pixels", "breakable"):
            self.templates.filters[name] = getattr(numbers, name)
        self.templates.globals.update(network=network, version=interpret.__version__)
        self.made: set[Path] = set()

    def write(self) -> None:
        network = self.network
        self._assets()
        with progress(network.unit_count, "writing the gallery", unit="unit") as bar:
            for place, layer in enumerate(network.mined_layers):
                before = network.mined_layers[place - 1] if place else None
                after = network.mined_layers[place + 1] if place + 1 < len(network.mined_layers) else None
                self._layer(layer, before, after, bar)
        for source in network.sources.values():
            self._picture(source.picture)
        card = cards.parse_card(network.model["card"] or "")
        self._page("index.html", "network.html", root="", card=card)
        self._page("how-to-read.html", "guide.html", root="")
        self._text(MARKER, json.dumps(self._marker(), indent=1, sort_keys=True) + "\n")

    def _marker(self) -> dict[str, Any]:
        model, data = self.network.model, self.network.data
        return {
            "format": FORMAT,
            "made_by": f"interpret {interpret.__version__}",
            "model": model["name"],
            "weights_hash": model["weights_hash"],
            "data": data["name"],
            "fingerprint": data["fingerprint"],
        }

    def _assets(self) -> None:
        here = Path(__file__).parent / "assets"
        for name in _ASSETS:
            self._text(f"assets/{name}", (here / name).read_text(encoding="utf-8"))

    def _layer(self, layer: LayerView, before: LayerView | None, after: LayerView | None, bar: Any) -> None:
        self._picture(layer.filters)
        self._page(f"{layer.folder}/index.html", "layer.html", root="../../", layer=layer, before=before, after=after)
        for index in range(layer.unit_count):
            unit = layer.unit_page(index)
            for column in unit.columns:
                self._picture(column.sprite)
            self._page(f"{layer.folder}/{index}.html", "unit.html", root="../../", layer=layer, unit=unit)
            bar.update()
        layer.forget()

    def _page(self, path: str, template: str, **shown: Any) -> None:
        self._text(path, self.templates.get_template(template).render(**shown))

    def _text(self, path: str, text: str) -> None:
        # a file name that is not Unicode arrives as lone surrogates, which UTF-8 has no bytes for
        self._place(Path(path)).write_bytes(text.encode("utf-8", errors="replace"))

    def _picture(self, picture: Picture | None) -> None:
        if picture is None:
            return
        origin, target = self.network.study.path / picture.path, self._place(picture.path)
        try:
            os.link(origin, target)
        except OSError:
            shutil.copyfile(origin, target)

    def _place(self, path: Path) -> Path:
        target = self.folder / path
        if target.parent not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(target.parent)
        return target
