"""The kept names of large folders: used while nothing has changed, and by one process after the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interpret.images import kept_listing
from interpret.images.kept_listing import list_or_remember
from interpret.images.listing import list_images


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which keeps the names of ten files and more, also of folders that have just been made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_listing, "KEPT_FROM", 10)
    monkeypatch.setattr(kept_listing, "SETTLED", -(10**12))
    return tmp_path / "cache" / "interpret-cnn" / "listings"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(12):
        file = tmp_path / "data" / f"class {number % 3}" / os.fsdecode(b"\xff%02d.png" % number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "data" / "drawing.svg").touch()
    return tmp_path / "data"


def listed(data: Path) -> tuple[object, ...]:
    names, *others = list_or_remember(data)
    return list(names), *others


def expected(data: Path) -> tuple[object, ...]:
    names, *others = list_images(data)
    return list(names), *others


def walks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows with each folder that is walked."""
    found: list[Path] = []
    original = kept_listing.list_images
    monkeypatch.setattr(kept_listing, "list_images", lambda root, *how: (found.append(root), original(root, *how))[1])
    return found


def test_names_are_listed_once(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = walks(monkeypatch)
    assert listed(data) == listed(data) == listed(data / ".." / "data") == expected(data)
    assert len(walked) == 1 and len(list(cache.iterdir())) == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda data: (data / "class 1" / "new.png").touch(),
    "a file removed": lambda data: next((data / "class 1").iterdir()).unlink(),
    "a file renamed": lambda data: next((data / "class 2").iterdir()).rename(data / "class 2" / "other.png"),
    "a new file that is no image": lambda data: (data / "class 1" / "new.txt").touch(),
    "a new folder": lambda data: (data / "class 1" / "deep").mkdir(),
    "a folder removed": lambda data: shutil.rmtree(data / "class 0"),
    "the folder in another's place": lambda data: shutil.copytree(data.rename(data.with_name("old")) / "class 1", data),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_they_are_listed_again(
    change: str, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(data)
    CHANGES[change](data)
    walked = walks(monkeypatch)
    assert listed(data) == expected(data) and len(walked) == 1


def test_what_may_change_unseen_is_not_kept(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "class 1" / "link.png").symlink_to(data / "class 0" / "none.png")
    assert listed(data) == expected(data) and not list(cache.glob("*.safetensors"))
    (data / "class 1" / "link.png").unlink()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    monkeypatch.setattr(kept_listing, "KEPT_FROM", 10)
    assert listed(data) == expected(data) and not list(cache.glob("*.safetensors"))  # just changed
    monkeypatch.setattr(kept_listing, "SETTLED", -(10**12))
    monkeypatch.setattr(kept_listing, "KEPT_FROM", 13)
    assert listed(data) == expected(data) and not list(cache.glob("*.safetensors"))  # too few


@pytest.mark.parametrize("damage", ["flipped", "halved", "emptied", "no permission", "not to be looked up"])
def test_a_damaged_or_unwritable_cache_is_listed_anew(
    damage: str, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage == "no permission":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    elif damage == "not to be looked up":  # as in the home of another user
        monkeypatch.setenv("XDG_CACHE_HOME", "/" + "long" * 100)
    else:
        listed(data)
        file = next(cache.iterdir())
        content = bytearray(file.read_bytes())
        content[-20] ^= 1
        file.write_bytes({"flipped": content, "halved": content[:-40], "emptied": b""}[damage])
    walked = walks(monkeypatch)
    assert listed(data) == expected(data) and len(walked) == 1
    assert len(list(data.rglob("*"))) == 16


def test_the_oldest_are_forgotten(tmp_path: Path, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_listing, "MOST_KEPT", 2)
    for number in range(3):
        listed(data if number == 2 else shutil.copytree(data, tmp_path / str(number)))
        for file in cache.glob("*.safetensors"):
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
    walked = walks(monkeypatch)
    for folder in (data, tmp_path / "1", tmp_path / "0"):
        listed(folder)
    assert walked == [tmp_path / "0"]


LIST = """
import sys
from pathlib import Path
from interpret.images import kept_listing
kept_listing.KEPT_FROM, kept_listing.SETTLED = 10, -(10**12)
original = kept_listing.list_images
def slowly(root, visited, many, at_many):
    def begun():
        at_many()
        print("lists", flush=True)
        sys.stdin.readline()
    return original(root, visited, many, begun)
kept_listing.list_images = slowly
print(len(kept_listing.list_or_remember(Path(sys.argv[1])).names), flush=True)
"""


@pytest.mark.slow
def test_a_second_process_waits_for_the_names_of_the_first(data: Path, cache: Path) -> None:
    def start() -> subprocess.Popen[str]:
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", LIST, str(data)], **how)

    first = start()
    assert first.stdout is not None and first.stdout.readline() == "lists\n"
    second = start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=0.1)
    assert first.communicate("\n")[0] == "12\n"
    assert second.communicate()[0] == "12\n"  # without having listed
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]
