"""Kills, interrupts and full disks before each file operation of each subcommand, and then the same command again.

Each run takes a sample by a fixed seed; INTERPRET_CRASHES sets how many crashes each subcommand gets.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import crash_server

pytestmark = pytest.mark.slow

CRASHES = int(os.environ.get("INTERPRET_CRASHES", "5"))
SEED = int(os.environ.get("INTERPRET_CRASH_SEED", "0"))
HOW = {"SIGKILL": (-9,), "SIGINT": (130,), "SIGTERM": (143,), "ENOSPC": (2,), "EFBIG": (2,)}

NETWORK = """
import builtins
import torch
from torch import nn
import interpret

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 3, 3, stride=2)
        self.head = nn.Linear(3, 3)

    def forward(self, images):
        getattr(builtins, "count_forward", lambda: None)()
        return self.head(torch.relu(self.second(torch.relu(self.first(images)))).mean((2, 3)))

def network():
    torch.manual_seed(0)
    return Tiny()

def build():
    return interpret.load(network(), preprocess=interpret.Preprocess((12, 12)), classes=["a", "b", "c"])
"""
MODEL_FOLDER = NETWORK.replace("def build", "def unused").replace("def network", "def build")
RECIPE = """
[input]
size = [12, 12]

[data]
name = "few"

[train]
lr = 0.05
momentum = 0.9
batch_size = 8
epochs = 3
keep = [1, 3]
seed = 7
"""
WORKERS = "--workers 0"
RUN = f"--batch-size 2 {WORKERS}"
MINING = f"net.py:build images --study study -k 2 {RUN}"
PART = f"mine net.py:build images --study {{}} --part {{}} -k 2 {RUN}"


@dataclass(frozen=True)
class Verb:
    """A subcommand, and the state of the folder that it begins in."""

    command: str
    begins: str
    restarted: int = 12
    """Forward passes that a second start may take before it goes on: tracing, and the dry runs of an analysis."""


VERBS = {
    "mine": Verb(f"mine {MINING}", "nothing"),
    "gallery": Verb(f"gallery {MINING} --out out", "nothing"),
    "gallery again": Verb(f"gallery {MINING} --out out", "gallery"),
    "project": Verb("project study", "mined"),
    "probe": Verb("probe study --transform scale --values 1,2 --images 3 --batch-size 2", "mined"),
    "evolve": Verb(f"evolve study --checkpoints epochs --units 1 {RUN}", "mined"),
    "neighbours": Verb(f"neighbours study --layer second -k 2 --queries 0,1 {RUN}", "mined"),
    "occlude": Verb("occlude study --size 4 --stride 4 --images 1 --layer second --batch-size 2", "mined", 36),
    "attribute": Verb("attribute study --images 1 --methods gradient,occlusion", "mined", 36),
    "sanity": Verb("sanity study --images 1 --steps 2 --methods gradient", "mined", 36),
    "synthesise": Verb("synthesise study --units 2 --batch-size 2", "mined", 36),
    "merge": Verb(f"merge one two --study study {WORKERS}", "parts"),
    "train": Verb("train tiny", "nothing"),
    "train elsewhere": Verb("train tiny --out copy", "nothing"),
    "report": Verb("report study", "probed"),
}


class Server:
    """Runs commands in forks of a process that has everything imported."""

    def __init__(self, output: str = "output.txt") -> None:
        self.process = subprocess.Popen(
            [sys.executable, crash_server.__file__, output], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def run(self, folder: Path, command: str, how: str | None = None, at: int = 0) -> dict[str, Any]:
        self.ask(folder, command, how, at)
        return self.answer()

    def ask(self, folder: Path, command: str, how: str | None = None, at: int = 0) -> None:
        assert self.process.stdin is not None
        asked = {"argv": command.split(), "folder": str(folder), "how": how, "at": at}
        print(json.dumps(asked), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def states(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The states of the folder that subcommands begin in, in memory, where waiting for the disk takes no time."""
    root = tmp_path_factory.mktemp("states")
    if os.access("/dev/shm", os.W_OK):
        root = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield make_states(server, root)
    shutil.rmtree(root)


def make_states(server: Server, root: Path) -> dict[str, Path]:
    import torch
    from safetensors.torch import save_file

    folder = root / "nothing"
    (folder / "images").mkdir(parents=True)
    (folder / "epochs").mkdir()
    (folder / "tiny").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (7, 14, 15, 3), np.uint8)
    for number, picture in enumerate(noise):
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
    (folder / "images" / "torn.png").write_bytes(b"no picture")
    (folder / "net.py").write_text(NETWORK)
    (folder / "tiny" / "model.py").write_text(MODEL_FOLDER)
    (folder / "tiny" / "recipe.toml").write_text(RECIPE)
    (folder / "notes.txt").write_text("mine")
    shapes = {"first": (4, 3, 3, 3), "second": (3, 4, 3, 3), "head": (3, 3)}
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
        weights |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
        save_file(weights, folder / "epochs" / f"{epoch}.safetensors")
    found = {"nothing": folder}
    steps = {
        "mined": ("nothing", VERBS["mine"].command),
        "part": ("nothing", PART.format("one", "1/2")),
        "parts": ("part", PART.format("two", "2/2")),
        "gallery": ("nothing", VERBS["gallery"].command + " --no-context"),
        "probed": ("mined", VERBS["probe"].command),
        "drawn": ("probed", VERBS["neighbours"].command),
        "full": ("drawn", f"gallery {MINING} --out out"),
    }
    for name, (before, command) in steps.items():
        found[name] = root / name
        work = at_work(found, before)
        done = server.run(work, command)
        assert done["status"] == 0, done["output"]
        shutil.copytree(work, found[name], symlinks=True)
    return found


def at_work(states: dict[str, Path], name: str) -> Path:
    """Return a folder in this state; its path is always the same, as studies keep where their model and data are."""
    folder = states["nothing"].parent / "work" / "here"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(states[name], folder, symlinks=True)
    return folder


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Return all files, links and empty folders, without how long the work took."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            if path.name != "timings.jsonl":
                found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = "an empty folder"
    return found


class Crashes:
    """Crashes of one subcommand, and what comes of the same command afterwards."""

    def __init__(self, verb: str, server: Server, states: dict[str, Path]) -> None:
        self.verb, self.what, self.server, self.states = verb, VERBS[verb], server, states
        folder = at_work(states, self.what.begins)
        self.whole = server.run(folder, self.what.command)
        assert self.whole["status"] == 0, self.whole["output"]
        self.expected = snapshot(folder)
        self.operations: int = self.whole["operations"]
        self.repeated = 0
        """The most forward passes that were done twice."""

    def failures(self, how: str, at: int) -> Iterator[str]:
        """Crash before a file operation, run the same again, and yield what is not as it should be."""
        folder = at_work(self.states, self.what.begins)
        crashed = self.server.run(folder, self.what.command, how, at)
        case = f"{self.verb}, {how} before operation {at} of {self.operations}"
        if crashed["status"] not in (*HOW[how], 0) or "Traceback" in crashed["output"]:
            yield f"{case}: status {crashed['status']}\n{crashed['output'][-1500:]}"
        left = snapshot(folder)
        again = self.server.run(folder, self.what.command)
        if again["status"] != 0:
            yield f"{case}: then status {again['status']}\n{again['output'][-1500:]}"
            return
        found = snapshot(folder)
        differing = [name for name in {**self.expected, **found} if self.expected.get(name) != found.get(name)]
        if differing:
            yield f"{case}: then other files: {sorted(differing)[:8]}"
        if all(left.get(name) == content for name, content in self.expected.items()):
            return  # all was done: the same command again is a second run
        repeated = crashed["forwards"] + again["forwards"] - self.whole["forwards"]
        self.repeated = max(self.repeated, repeated)
        if repeated > self.last_part(at) + self.what.restarted:
            yield (
                f"{case}: {crashed['forwards']} and then {again['forwards']} forward passes, where "
                f"{self.whole['forwards']} are needed: more than the last {self.last_part(at)} are repeated"
            )

    def last_part(self, at: int) -> int:
        """Return how many forward passes there are between an operation and the last one before them."""
        before = self.whole["forwards_before"][:at]
        return before[-1] - max((count for count in before if count < before[-1]), default=0)


def drawn_crashes(verb: str, count: int, operations: int) -> Iterator[tuple[str, int]]:
    """Yield how to crash and before which operation, by the seed."""
    drawn = random.Random(f"{SEED} {verb}")
    for number in range(count):
        yield (list(HOW)[number % len(HOW)] if number >= 2 else "SIGKILL"), drawn.randint(1, operations)


@pytest.mark.parametrize("verb", VERBS)
def test_after_a_crash_the_same_command_ends_as_if_nothing_had_been(
    verb: str, server: Server, states: dict[str, Path]
) -> None:
    crashes = Crashes(verb, server, states)
    assert crashes.operations > 3
    failures = [
        failure for one in drawn_crashes(verb, CRASHES, crashes.operations) for failure in crashes.failures(*one)
    ]
    assert not failures, f"{len(failures)} of {CRASHES} failed\n" + "\n".join(failures)


@pytest.mark.parametrize("verb", ["mine", "evolve", "train elsewhere"])
def test_of_two_processes_on_one_folder_the_second_waits(verb: str, server: Server, states: dict[str, Path]) -> None:
    what = VERBS[verb]
    folder = at_work(states, what.begins)
    assert server.run(folder, what.command)["status"] == 0
    expected = snapshot(folder)
    at_work(states, what.begins)
    other = Server("other.txt")
    try:
        # both begin; the fork that comes second finds the lock held, or all of the work done
        for one in (server, other):
            one.ask(folder, what.command)
        found = [one.answer() for one in (server, other)]
    finally:
        other.close()
    assert [one["status"] for one in found] == [0, 0], found
    assert not any("Traceback" in one["output"] for one in found)
    assert snapshot(folder) == expected


# damaged studies

KINDS = (
    "study.json", "sources/*.json", "samples.json", "timings.jsonl", "mined/*", "spread/*", "filters/*", "sources/*/*",
    "samples/*", "patches/*/0000.webp", "patches/*/interpret.sha256", "projections/*/*/0001.webp",
    "projections/*/*/interpret.sha256", "connections/*.safetensors", "connections/flow.json", "connections/layers.json",
    "connections/interpret.sha256", "results/invariance/*", "results/predictions/*", "results/synthesised/*",
    "results/neighbours/*", "features/*/features.npy", "features/*/items.npy", "features/*/index.json",
)  # fmt: skip
OPTIONAL = ("filters", "spread", "results", "features", "timings.jsonl")
"""What a study may lack: without these files, it is one that has not computed them yet."""
DAMAGES = ("emptied", "halved", "flipped", "extended", "deleted")
READERS = {
    "plot": "plot study invariance scale",
    "gallery": "gallery study --out shown",
    "report": "report study",
    "study": "study study",
    "check": "study study --check",
    "project": "project study",
    "neighbours": VERBS["neighbours"].command,
}
DAMAGED = int(os.environ.get("INTERPRET_DAMAGED", "20"))


def damage(file: Path, how: str, drawn: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if how == "deleted":
        file.unlink()
        return
    if how == "flipped":
        place = drawn.randrange(len(content))
        content[place] ^= 1 << drawn.randrange(8)
    elif how == "extended":
        content += content[-1:] * 7
    else:
        del content[0 if how == "emptied" else len(content) // 2 :]
    file.write_bytes(content)


def plain(name: str, content: bytes | str | None) -> bytes | str | None:
    """Return a file's content without matplotlib's names of clip paths, which the last bit of a layout changes."""
    if name == "shown/interpret.sha256":  # checksums of the files that are compared
        return None
    return (
        re.sub(rb"\bp[0-9a-f]{10}\b", b"", content) if name.endswith(".svg") and isinstance(content, bytes) else content
    )


def test_damage_is_named_and_never_shown(server: Server, states: dict[str, Path]) -> None:
    folder = at_work(states, "full")
    results = {}
    for reader, command in READERS.items():
        at_work(states, "full")
        found = server.run(folder, command)
        assert found["status"] == 0, found["output"]
        results[reader] = snapshot(folder)
    cases = [
        (kind, how, reader)
        for kind in KINDS
        for how in DAMAGES
        for reader in READERS
        if how != "deleted" or kind.partition("/")[0] not in OPTIONAL
    ]
    drawn = random.Random(SEED)
    failures = []
    for kind, how, reader in drawn.sample(cases, min(DAMAGED, len(cases))):
        at_work(states, "full")
        file = drawn.choice(sorted((folder / "study").glob(kind)))
        damage(file, how, drawn)
        damaged = snapshot(folder)
        found = server.run(folder, READERS[reader])
        case = f"{file.relative_to(folder)} {how}, {reader}"
        if found["status"] not in (0, 2) or "Traceback" in found["output"]:
            failures.append(f"{case}: status {found['status']}\n{found['output'][-1500:]}")
            continue
        named = any(word in found["output"] for word in ("damaged", "left out", "not by interpret", "is no study"))
        made = {name: content for name, content in snapshot(folder).items() if damaged.get(name) != content}
        # whatever is written, without a word, is what the undamaged study gives
        silent = [
            name for name, content in made.items() if plain(name, results[reader].get(name)) != plain(name, content)
        ]
        if not named and (silent or found["status"]):
            failures.append(f"{case}: status {found['status']}, not named: {silent[:5]}\n{found['output'][-600:]}")
    assert not failures, f"{len(failures)} of {DAMAGED} failed\n" + "\n".join(failures)


# what the program did not write

FOREIGN = int(os.environ.get("INTERPRET_FOREIGN", "3"))


def put(path: Path, kind: str, aside: Path) -> None:
    """Put a file, a link or a folder of somebody else's at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    else:
        aside.write_text("mine")
        path.symlink_to(aside)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_others_wrote_is_removed_or_changed(verb: str, server: Server, states: dict[str, Path]) -> None:
    what = VERBS[verb]
    folder = at_work(states, what.begins)
    before = snapshot(folder)
    assert server.run(folder, what.command)["status"] == 0
    written = sorted(name for name in snapshot(folder) if name not in before)
    drawn = random.Random(f"{SEED} {verb} foreign")
    failures = []
    for number in range(FOREIGN if written else 0):
        name, kind = drawn.choice(written), ("file", "folder", "link")[number % 3]
        at_work(states, what.begins)
        place = folder / drawn.choice([name, *map(str, Path(name).parents)][: len(Path(name).parts)])
        if place.exists():  # a folder of the state: put it beside what is written
            place = folder / name
        put(place, kind, folder / "aside.txt")
        found = server.run(folder, what.command)
        case = f"{verb}, a {kind} at {place.relative_to(folder)}"
        if found["status"] not in (0, 2) or "Traceback" in found["output"]:
            failures.append(f"{case}: status {found['status']}\n{found['output'][-1200:]}")
        own = {"file": place, "folder": place / "mine.txt", "link": folder / "aside.txt"}[kind]
        moved = folder / "study" / "damaged" / place.relative_to(folder / "study") if "study" in place.parts else own
        kept = [one for one in (own, moved) if one.is_file() and one.read_text(errors="replace") == "mine"]
        if not kept:
            failures.append(f"{case}: it is gone\n{found['output'][-600:]}")
    assert not failures, f"{len(failures)} failed\n" + "\n".join(failures)
