"""Keep small pictures of a study's source images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interpret.images.storage import UnreadableImage
from interpret.study.reader import LARGEST_SOURCE_PICTURE
from interpret.support.files import any_file, replacing, write_text
from interpret.support.progress import progress

if TYPE_CHECKING:
    from interpret.images.sources import Images
    from interpret.study.study import Study


def keep_source_pictures(study: Study, labels: Mapping[int, int]) -> None:
    """Keep a small picture of each of these sources, with its label; one that does not decode is noted and skipped."""
    _, data = study.to_compute()
    known = study.sources()
    missing = [source for source in sorted(labels) if source not in known or not study.source_picture(source).exists()]
    if not missing:
        return
    with progress(len(missing), "keeping pictures", "picture") as bar:
        for source in missing:
            _keep_picture(study, data, source, labels[source], known)
            bar.update()
    listed = {str(source): known[source] for source in sorted(known)}
    write_text(study.path / "sources.json", json.dumps(listed, ensure_ascii=False, indent=0) + "\n", any_file)


def _keep_picture(study: Study, data: Images, source: int, label: int, known: dict[int, dict[str, Any]]) -> None:
    """Keep a small picture of a source, and add to `known` what is known of it."""
    name = data.source_name(source)
    if name in study.info["data"]["skipped"]:
        return
    try:
        picture = data.source_picture(source).convert("RGB")
    except UnreadableImage as error:
        study.info["data"]["skipped"][name] = error.reason
        return
    known[source] = {"name": name, "width": picture.width, "height": picture.height, "label": label}
    if study.source_picture(source).exists():
        return
    picture.thumbnail((LARGEST_SOURCE_PICTURE, LARGEST_SOURCE_PICTURE))
    picture.info.clear()  # no comment or profile of the original is copied
    with replacing(study.source_picture(source)) as new:
        picture.save(new, "JPEG", quality=85, optimize=True)
