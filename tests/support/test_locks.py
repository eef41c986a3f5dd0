"""Locks and temporary folders that a crash leaves: who holds what, and what may be removed."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from interpret.support import locks
from interpret.support.files import replacing, sweep, sweep_tree, workspace
from interpret.support.interrupts import terminated_like_interrupted
from interpret.support.locks import LOCK, lock_file, locked, unlock

HOLD = """
import sys
from interpret.support.{module} import {name}
from pathlib import Path
with {name}(Path(sys.argv[1])) as made:
    if isinstance(made, Path):
        (made / "new").mkdir()
        (made / "new" / "half.txt").write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(module: str, name: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds something of a folder until it is killed or its input ends."""
    code = HOLD.format(module=module, name=name)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_says_for_whom(tmp_path: Path) -> None:
    with hold("locks", "locked", tmp_path) as first:
        who = json.loads((tmp_path / LOCK).read_text())
        assert who["pid"] == first.pid and who["host"] == socket.gethostname()
        code = "import sys; from interpret.support.locks import locked\nwith locked(sys.argv[1]): print('mine')"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stderr is not None and second.stdout is not None
            said = second.stderr.readline()
            assert f"in use by process {first.pid} on {who['host']} since {who['since']}: waiting" in said
            assert second.poll() is None
            first.communicate("")
            assert second.stdout.readline() == "mine\n"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with hold("locks", "locked", tmp_path) as first:
        first.kill()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path) as newly, locked(tmp_path) as again:
        assert newly and not again
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_its_lock_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a"):
        pass
    with locked(tmp_path / "b"):
        (tmp_path / "b" / "kept").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_only_temporary_folders_of_dead_processes_are_swept(tmp_path: Path) -> None:
    foreign = [".interpret-mine", ".interpret-12345678/notes.txt", ".interpret-abcdefgh/sub/notes.txt", ".a.b1234567/x"]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / ".interpret-linked__").symlink_to(tmp_path / ".interpret-12345678")
    with hold("files", "workspace", tmp_path) as dead:
        dead.kill()
    (tmp_path / "deep").mkdir()
    with hold("files", "workspace", tmp_path / "deep") as dead_below:
        dead_below.kill()
    with hold("files", "workspace", tmp_path) as living, workspace(tmp_path) as own:
        (own / "new").write_text("own")
        before = {path.name for path in tmp_path.iterdir()}
        assert len(before) == 8  # the first new temporary folder replaced that of the dead process
        sweep_tree(tmp_path)
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == before and (own / "new").read_text() == "own"
        assert [*(tmp_path / "deep").iterdir()] == []
        living.communicate("")
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name.split("/")[0] for name in foreign} | {".interpret-linked__", "deep"}


def test_new_content_is_on_the_disk_before_it_replaces_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = {"fsync": os.fsync, "replace": Path.replace}

    def fsync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real["fsync"](descriptor)

    def replace(path: Path, target: Path) -> Path:
        done.append("replaced")
        return real["replace"](path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    with replacing(tmp_path / "deep" / "file") as new:
        new.write_text("text")
    assert done == [tmp_path.name, "new", "replaced", "deep"]
    done.clear()
    with replacing(tmp_path / "folder") as new:
        (new / "sub").mkdir(parents=True)
        (new / "sub" / "file").write_text("text")
    assert done == ["file", "new", "sub", "replaced", tmp_path.name]


def test_sigterm_interrupts_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted() as received:
        signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is before


class Windows:
    """The locks of Windows: of bytes, from the place in the file on, for one open file at a time."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        byte = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        assert byte[1] > 10**6  # the content can be read
        if self.held.get(byte) in self.open_files() - {descriptor}:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held[byte] = descriptor

    @staticmethod
    def open_files() -> set[int]:
        return {int(one.name) for one in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it asks which files are open")
def test_locks_as_windows_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", Windows())
    file = tmp_path / LOCK
    with locked(tmp_path):
        assert json.loads(file.read_text())["pid"] == os.getpid()
        before = Windows.open_files()
        assert lock_file(file) is None and Windows.open_files() == before
    assert not file.exists()
    again = lock_file(file)
    assert again is not None and lock_file(file) is None
    unlock(file, again)
    assert list(tmp_path.iterdir()) == []
    with workspace(tmp_path) as made:
        assert [one.name for one in made.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(locks, "msvcrt", None)  # a system with neither
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        lock_file(file)
    with locked(tmp_path) as newly:
        assert newly
