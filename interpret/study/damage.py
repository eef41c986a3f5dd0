"""Find what is damaged in a study, or missing from an incomplete copy, and set it aside to be computed again."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from safetensors import SafetensorError, safe_open

from interpret.results.study_file import NAME, is_damaged, write_study_file
from interpret.support.checksums import KEY, DamagedFileError, check_seal, read_json
from interpret.support.errors import InterpretError, warn
from interpret.support.files import layer_path, move_to_free
from interpret.support.manifest import MANIFEST, digest, read_manifest
from interpret.support.stamps import is_stamped, says_it_is_stamped

if TYPE_CHECKING:
    from interpret.study.reader import StudyReader

DAMAGED = "damaged"
"""The folder in a study to which damaged files are moved."""
FEATURES = "features"
"""The folder in a study of the feature indices, which `neighbours` checks when it opens one."""
NAMED = 3
"""Damaged files that an error names."""


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, and what has to be computed again for it."""

    file: Path
    why: str
    part: Path
    """The file, or the folder that is written as a whole."""


def find_all_damage(study: StudyReader) -> Iterator[Damage]:
    """Yield every file of a study that is not as it was written, or is missing from it."""
    if is_damaged(study.path):
        yield Damage(study.path / NAME, "its copy is read instead", study.path / NAME)
    yield from find_damage(study)
    yield from _results(study)
    for index in sorted((study.path / FEATURES).glob("*/index.json")):
        yield from _features(index)


def find_damage(study: StudyReader) -> Iterator[Damage]:
    """Yield what a gallery or a report cannot show as it was computed; `results` are checked as they are read."""
    for layer in study.layers:
        name = layer["name"]
        if study.is_mined(name):
            yield from _safetensors(study.path / "mined" / f"{layer_path(name)}.safetensors")
        if study.activation_range_file(name).is_file():
            yield from _safetensors(study.activation_range_file(name))
        sheet = study.filter_sheet(name)
        if sheet.is_file() and not _is_whole_picture(sheet):
            yield Damage(sheet, "its checksum differs", sheet)
        yield from _sprites(study, name)
    yield from _folder(study.path / "connections")
    for one in study.source_lists:
        # of the earlier form, they are listed before the first layer has its file
        needed = one.file.parent != study.path or bool(study.mined_layers)
        yield from _pictures(one.file, ".jpg", needed)
    yield from _pictures(study.path / "samples.json", ".webp", any((study.path / "spread").glob("*.safetensors")))
    if study.detections_file.exists():
        yield from _detections(study)


def refuse_damage(study: StudyReader) -> None:
    """Refuse to show a study that is damaged.

    Raises:
        InterpretError: a file is damaged or missing; the message names the first ones, and how to compute them again.
    """
    found = list(find_damage(study))
    if not found:
        return
    named = "; ".join(f"{str(one.file)!r} ({one.why})" for one in found[:NAMED])
    others = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise InterpretError(
        f"the study is damaged: {named}{others}: copy it again, or run the commands that computed it, which compute "
        "again what is damaged"
    )


def set_damage_aside(study: StudyReader) -> None:
    """Move what is damaged into the folder `damaged` of the study, where nothing reads it, and say so."""
    if is_damaged(study.path):  # its copy was read, and is written in its place
        _move_aside(study.path / NAME, study.path)
        write_study_file(study.path, study.info)
    parts: dict[Path, Damage] = {}
    for one in (*find_damage(study), *_results(study)):
        parts.setdefault(one.part, one)
    for part, damage in parts.items():
        if part.is_symlink() or (part == damage.file and part.is_dir()):
            continue  # it is not this program's: what writes there refuses it
        warn(f"{str(damage.file)!r} is damaged ({damage.why}): it is computed again")
        _move_aside(part, study.path)


def _move_aside(part: Path, study: Path) -> None:
    """Move a file or a folder of a study into the folder of what is damaged, if there is one."""
    if os.path.lexists(part):
        move_to_free(part, study / DAMAGED / part.relative_to(study))


def _safetensors(file: Path) -> Iterator[Damage]:
    try:
        check_seal(file)
        with safe_open(file, "np"):
            pass
    except DamagedFileError as error:
        yield Damage(file, error.why, file)
    except (SafetensorError, OSError) as error:
        yield Damage(file, str(error), file)


def _is_whole_picture(sheet: Path) -> bool:
    """Return whether a picture is as it was stamped or, as earlier versions had no stamp, is whole and has none."""
    if is_stamped(sheet) or says_it_is_stamped(sheet):
        return is_stamped(sheet)
    try:
        with Image.open(sheet, formats=("PNG",)) as picture:
            picture.verify()  # the checksums of its parts
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        return False
    return True


def _sprites(study: StudyReader, name: str) -> Iterator[Damage]:
    """Yield damaged sprites of a layer, and whole kinds of them that are missing from a copy."""
    patches = study.patch_sprite(name, 0).parent
    projected = [study.projection_sprite(rule, name, 0).parent for rule in study.rules(name)]
    for folder in (patches, *projected):
        yield from _folder(folder)
    if projected and not patches.is_dir():
        yield Damage(patches, "it is missing", patches)
    mined = study.path / "mined" / f"{layer_path(name)}.safetensors"
    if (projected or patches.is_dir()) and not mined.exists():
        yield Damage(mined, "it is missing", mined)


def _folder(folder: Path) -> Iterator[Damage]:
    """Yield files of a folder that are not as its list says; folders of earlier versions have no list."""
    listed = read_manifest(folder) if folder.is_dir() else None
    file = folder / MANIFEST
    if file.is_file() and (listed is None or len(listed) != len(file.read_bytes().splitlines()) - 1):
        yield Damage(file, "it is no whole list", folder)
    elif listed:
        yield from _differing({folder / path: checksum for path, checksum in listed.items()}, folder)
    elif folder.is_dir():
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.stat().st_size:
                yield Damage(file, "it is empty", folder)


def _pictures(listed: Path, ending: str, needed: bool) -> Iterator[Damage]:
    """Yield pictures that are not as JSON lists them, or the list itself."""
    folder = listed.with_suffix("")
    if not listed.exists():
        if needed and folder.is_dir():
            yield Damage(listed, "it is missing", listed)
        return
    try:
        records: Mapping[str, Any] = read_json(listed)
        files = {folder / f"{number}{ending}": record.get(KEY) for number, record in records.items()}
    except DamagedFileError as error:
        yield Damage(listed, error.why, listed)
    except AttributeError:
        yield Damage(listed, "it lists no pictures", listed)
    else:
        yield from _differing(files, None)


def _detections(study: StudyReader) -> Iterator[Damage]:
    try:
        study.detections()
    except DamagedFileError as error:
        yield Damage(error.file, error.why, error.file)


def _features(index: Path) -> Iterator[Damage]:
    """Yield files of a feature index that are not as it says; `neighbours` computes a damaged one again."""
    try:
        kept = read_json(index)
    except DamagedFileError as error:
        yield Damage(index, error.why, index.parent)
    else:
        checksums = kept.get("checksums", {}) if isinstance(kept, dict) else {}
        yield from _differing({index.parent / name: checksum for name, checksum in checksums.items()}, index.parent)


def _differing(files: Mapping[Path, str | None], part: Path | None) -> Iterator[Damage]:
    """Yield files that are missing or have another checksum; None: it is not known."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, why in zip(files, pool.map(_why, files, files.values()), strict=True):
            if why:
                yield Damage(file, why, part or file)


def _why(file: Path, checksum: str | None) -> str:
    try:
        if not file.stat().st_size:
            return "it is empty"
        return "" if checksum in (None, digest(file)) else "its checksum differs"
    except OSError as error:
        return "it is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)


def _results(study: StudyReader) -> Iterator[Damage]:
    for file in sorted((study.path / "results").glob("*/*.safetensors")):
        yield from _safetensors(file)
