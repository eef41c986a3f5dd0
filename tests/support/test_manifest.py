"""Folders whose files are this program's: nothing else in them is ever lost, and they are old or new, never half."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interpret.support.files as temporary
from interpret.support.errors import InterpretError
from interpret.support.files import NEW as MADE
from interpret.support.files import WORKSPACE
from interpret.support.locks import LOCK
from interpret.support.manifest import MANIFEST, check_folder, updating

OLD = {"index.html": "old", "assets/style.css": "the same", "layers/conv1/0.html": "old", "layers/conv9/0.html": "old"}
NEW = {"index.html": "new", "assets/style.css": "the same", "layers/conv1/0.html": "new", "images/0.html": "new"}


def make(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write(folder: Path, files: dict[str, str], **how: bool) -> None:
    with updating(folder, **how) as new:
        make(new, files)


def content(folder: Path) -> dict[str, str | bytes]:
    """All that is there: links by what they point to, and empty folders."""
    found: dict[str, str | bytes] = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
            elif not any(path.iterdir()):
                found[str(path.relative_to(folder))] = "empty"
    return found


def pages(folder: Path) -> dict[str, Any]:
    return {name: text.decode() for name, text in content(folder).items() if name != MANIFEST}  # type: ignore[union-attr]


def test_new_content_replaces_the_old_in_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    write(folder, OLD)
    assert pages(folder) == OLD
    inode = folder.stat().st_ino
    write(folder, NEW)
    assert pages(folder) == NEW and folder.stat().st_ino == inode
    assert sorted(folder.parent.iterdir()) == [folder]
    (folder / "images" / "0.html").unlink()  # what is missing is no obstacle
    write(folder, OLD)
    assert pages(folder) == OLD


def test_the_working_directory_can_be_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write(Path(), OLD)
    write(Path(), NEW)
    assert list(Path().iterdir()) and pages(Path.cwd()) == NEW
    monkeypatch.chdir(folder / "layers")
    write(Path(".."), OLD)
    assert pages(folder) == OLD


def test_sha256sum_checks_the_list(tmp_path: Path) -> None:
    write(tmp_path / "folder", {**OLD, "layers/odd%2F name/0.html": "π"})
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", MANIFEST]
        finished = subprocess.run(command, cwd=tmp_path / "folder", capture_output=True, text=True, check=True)
        assert finished.stdout.count(": OK") == 5


def file(text: str) -> Callable[[Path], None]:
    return lambda path: make(path.parent, {path.name: text})


@pytest.mark.parametrize(
    ("name", "put", "named"),
    [
        ("mine.txt", file("x"), "mine.txt' was not written"),
        ("layers/mine.txt", file("x"), "layers/mine.txt' was not written"),
        ("layers/conv1/deep/er/mine.txt", file("x"), "layers/conv1/deep/er/mine.txt' was not written"),
        ("Index.html", file("x"), "Index.html' was not written"),
        (".hidden", file(""), r"\.hidden' was not written"),
        ("layers/nothing", lambda path: path.mkdir(), "layers/nothing' was not written"),
        ("layers/link", lambda path: path.symlink_to("/etc"), "layers/link' was not written"),
        ("layers/conv1/0.html", file("by hand"), "0.html' has been changed since interpret wrote it"),
        ("index.html", lambda path: (path.unlink(), path.mkdir()), "index.html' was not written"),
        ("index.html", lambda path: (path.unlink(), path.symlink_to("/etc/hosts")), "index.html' was not written"),
        ("layers", lambda path: (path.rename("gone"), path.write_text("x")), "layers' was not written"),
        (MANIFEST, file("0  mine.txt"), "style.css' was not written"),
        (MANIFEST, lambda path: path.unlink(), "style.css' was not written"),
    ],
)  # fmt: skip
def test_changed_files_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, put: Callable[[Path], Any], named: str
) -> None:
    folder = tmp_path / "folder"
    monkeypatch.chdir(tmp_path)
    write(folder, OLD)
    put(folder / name)
    before = content(tmp_path)
    with pytest.raises(InterpretError, match=named):
        check_folder(folder, thorough=True)
    with pytest.raises(InterpretError, match=named):
        write(folder, NEW)
    assert content(tmp_path) == before


def test_a_file_that_changed_to_the_new_content_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    (tmp_path / "index.html").write_text("new")
    write(tmp_path, NEW)
    assert pages(tmp_path) == NEW


def test_files_that_appear_during_the_update_are_refused(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    with pytest.raises(InterpretError, match="late"), updating(tmp_path) as new:
        make(new, NEW)
        (tmp_path / "layers" / "late").write_text("x")
    assert pages(tmp_path) == OLD | {"layers/late": "x"}


def test_other_files_may_be_there_under_other_names(tmp_path: Path) -> None:
    make(tmp_path, {"model.py": "mine", "data/1.png": "mine"})
    write(tmp_path, OLD, among_others=True)
    write(tmp_path, NEW, among_others=True)
    assert pages(tmp_path) == NEW | {"model.py": "mine", "data/1.png": "mine"}
    make(tmp_path, {"epochs/7": "mine"})
    with pytest.raises(InterpretError, match="epochs/7' was not written"):
        write(tmp_path, OLD | {"epochs/1": "new"}, among_others=True)
    assert pages(tmp_path) == NEW | {"model.py": "mine", "data/1.png": "mine", "epochs/7": "mine"}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("step", range(1, 14))
def test_an_interrupt_leaves_the_old_or_the_new_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, late: bool
) -> None:
    write(tmp_path / "folder", OLD)
    steps = 0

    def interrupted(move: Callable[..., Any]) -> Callable[..., Any]:
        def moved(*args: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step and not late:
                raise KeyboardInterrupt
            result = move(*args)
            if steps == step:
                raise KeyboardInterrupt
            return result

        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted(Path.rename))
        patch.setattr(Path, "replace", interrupted(Path.replace))
        try:
            write(tmp_path / "folder", NEW)
        except KeyboardInterrupt:
            assert pages(tmp_path / "folder") == OLD
        else:
            assert pages(tmp_path / "folder") == NEW and steps < step
    assert not list((tmp_path / "folder").glob(".*"))


DIE = """
import os, sys
from pathlib import Path
from interpret.support.manifest import updating
left, rename = int(sys.argv[2]), Path.rename
def dying(*args):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    return rename(*args)
Path.rename = dying
with updating(sys.argv[1]) as new:
    for name in sys.argv[3:]:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_text("new")
"""


def test_the_next_call_repairs_the_folder_after_a_power_cut(tmp_path: Path) -> None:
    names = ["index.html", "layers/conv1/0.html", "images/0.html"]
    for steps in (0, 1, 3, 5, 20):
        folder = tmp_path / str(steps)
        write(folder, OLD)
        died = subprocess.run(["python", "-c", DIE, str(folder), str(steps), *names], check=False).returncode == 9
        assert died == (steps < 20)
        check_folder(folder)
        assert pages(folder) == (OLD if died else dict.fromkeys(names, "new"))
        write(folder, NEW)
        assert pages(folder) == NEW


# whatever is done, foreign files survive

NAMES = st.sampled_from(["index.html", "layers", "conv1", "0.html", "mine.txt", "assets", MANIFEST, ".git", "Ä b"])
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.text("xyz", max_size=3), max_size=5)
PLACES = st.sampled_from(["out", "out/layers", "out/sub", "."])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PLACES, st.one_of(TREES, st.sampled_from([OLD, NEW]))), max_size=6), st.data())
@pytest.mark.slow
def test_random_trees_of_foreign_files_survive_any_sequence(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, dict[str, str]]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("root")
    foreign: dict[Path, str] = {}
    for place, tree in steps:
        if tree in (OLD, NEW):
            try:
                write(root / place, tree, among_others=data.draw(st.booleans()))
            except InterpretError:
                pass
            else:
                assert all((root / place / name).read_text() == text for name, text in tree.items())
        else:  # somebody writes files, over ours as well
            for name, text in tree.items():
                path = root / place / name
                try:
                    make(path.parent, {path.name: text})
                except OSError:  # a folder in the place of a file, or the other way round
                    continue
                foreign[path] = text
    assert {path: path.read_text() for path in foreign} == foreign
    shutil.rmtree(root)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_was_making_is_removed(kind: str, tmp_path: Path) -> None:
    made = tmp_path / f"{WORKSPACE}abcd1234"
    made.mkdir()
    (made / LOCK).touch()  # nobody holds it
    if kind == "file":
        (made / MADE).write_text("half")
    else:
        (made / MADE).mkdir()
        (made / MADE / "page.html").write_text("half")
    check_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_left_beside_the_folder_that_it_had_made_is_removed(tmp_path: Path) -> None:
    made = tmp_path / f"{WORKSPACE}abcd1234"  # killed after it had moved the new folder out of here
    made.mkdir()
    (made / LOCK).touch()
    make(tmp_path, {"pages/index.html": "mine"})
    with pytest.raises(InterpretError, match="was not written by interpret"):
        write(tmp_path / "pages", NEW)
    assert content(tmp_path) == {"pages/index.html": b"mine"}


def test_an_interrupt_waits_until_the_temporary_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = temporary.remove_made

    def interrupted(path: Path) -> None:
        if path.parent.parent == tmp_path:  # after the new folder was moved to its place
            signal.raise_signal(signal.SIGINT)
        remove(path)

    monkeypatch.setattr(temporary, "remove_made", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "pages", OLD)
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]
