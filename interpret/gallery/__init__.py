"""A study as a gallery: static pages that open from disk, with no server and no network.

`write_gallery` reads a study and writes a page for the network, for each layer, unit, class and image of the sample,
and for other results. It needs neither torch nor the network: you can mine on a cluster and write the gallery on a
laptop.
"""

from __future__ import annotations

from interpret.gallery.writer import check_target, write_gallery

__all__ = ["check_target", "write_gallery"]
