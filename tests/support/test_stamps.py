"""Stamps: a file is known to be this program's, every change of it is seen, and viewers see none of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from interpret.support.stamps import KINDS, is_stamped, stamped


def content(kind: str) -> bytes:
    if kind == "html":
        return b"<!doctype html><p>Hello</p>\n"
    file = BytesIO()
    if kind == "gif":
        frames = [Image.new("L", (9, 7), shade) for shade in (0, 128, 255)]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], loop=0)
    else:
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        figure.savefig(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_of_a_stamped_file_is_seen(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"file.{kind.upper()}"
    plain = content(kind)
    for other in (plain, b"", b"x", plain[:50]):
        file.write_bytes(other)
        assert not is_stamped(file)
    whole = stamped(plain, kind)
    file.write_bytes(whole)
    assert is_stamped(file)
    assert stamped(plain, kind) == whole  # and the same each time
    for place in {*range(0, len(whole), max(1, len(whole) // 40)), *range(len(whole) - 150, len(whole))}:
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert not is_stamped(file), place
    for changed in (whole + b"\n", whole[:-1], b" " + whole, whole + whole):
        file.write_bytes(changed)
        assert not is_stamped(file)
    (tmp_path / "file.txt").write_bytes(whole)
    assert not is_stamped(tmp_path / "file.txt")


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_stamp_does_not_change_the_picture(kind: str) -> None:
    plain, whole = (Image.open(BytesIO(one)) for one in (content(kind), stamped(content(kind), kind)))
    assert getattr(plain, "n_frames", 1) == getattr(whole, "n_frames", 1)
    for frame in range(getattr(plain, "n_frames", 1)):
        plain.seek(frame)
        whole.seek(frame)
        assert plain.convert("RGB").tobytes() == whole.convert("RGB").tobytes()
