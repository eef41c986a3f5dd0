"""Keep small pictures of a study's source images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret.execution.resume import SAVE_EVERY
from interpret.images.storage import UnreadableImage
from interpret.study.reader import LARGEST_SOURCE_PICTURE
from interpret.support.checksums import KEY, sealed_json
from interpret.support.files import any_file, replacing, sync_files, write_text
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
    waiting: list[Path] = []

    def save() -> None:
        # what is listed is on the disk
        sync_files(waiting)
        waiting.clear()
        listed = {str(source): known[source] for source in sorted(known)}
        write_text(study.path / "sources.json", sealed_json(listed, indent=0), any_file)

    saved = time.monotonic()
    with progress(len(missing), "keeping pictures", "picture") as bar:
        try:
            for source in missing:
                _keep_picture(study, data, source, labels[source], known)
                if source in known:
                    waiting.append(study.source_picture(source))
                bar.update()
                if time.monotonic() - saved > SAVE_EVERY:
                    save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            save()
            raise
    save()


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
    size = {"width": picture.width, "height": picture.height}
    picture.thumbnail((LARGEST_SOURCE_PICTURE, LARGEST_SOURCE_PICTURE))
    picture.info.clear()  # no comment or profile of the original is copied
    content = BytesIO()
    picture.save(content, "JPEG", quality=85, optimize=True)
    write_listed(study.source_picture(source), content.getvalue())
    known[source] = {"name": name, **size, "label": label, KEY: hashlib.sha256(content.getbuffer()).hexdigest()}


def write_listed(path: Path, content: bytes) -> None:
    """Write a picture that JSON lists with its checksum, so that it need not be on the disk before that is written."""
    if path.is_file() and path.read_bytes() == content:
        return
    with replacing(path, any_file, durable=False) as new:
        new.write_bytes(content)
