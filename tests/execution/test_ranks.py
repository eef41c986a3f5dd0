"""Several processes on one command: real ones, that torchrun starts, on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from helpers.files import contents, noise
from interpret.execution.ranks import Ranks, ranks, started_together
from interpret.study.timings import read_timings

NETWORK = """
    import os, signal, time, traceback
    from pathlib import Path

    import torch
    from torch import nn

    import interpret

    class Watched(nn.Sequential):
        def forward(self, x):
            log = os.environ.get("WATCHED")
            if log:
                time.sleep(0.05)
                with open(f"{log}.{os.environ['TORCHELASTIC_RESTART_COUNT']}.{os.environ['RANK']}", "a") as file:
                    mines = any("analyses/mining" in frame.filename for frame in traceback.extract_stack())
                    file.write("m\\n" if mines else "-\\n")
                    seen = file.tell() // 2
                if os.environ["RANK"] == os.environ.get("DIES") and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                    if seen > 12:
                        os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x)

    def build():
        generator = torch.Generator().manual_seed(0)
        network = Watched(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
            nn.Conv2d(12, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
        )
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3
        preprocess = interpret.Preprocess((32, 32), mean=(0.5,) * 3, std=(0.2,) * 3, resize=36)
        return interpret.load(network, preprocess=preprocess, classes=list("abcd"))
"""
COMMANDS = """
    gallery net.py:build data --out gallery --study study --batch-size 4 -k 3
    probe study --images 7 --transform translation,rotation --out probe.png --batch-size 8
    neighbours study --queries 1,9,33 --out neighbours.png --batch-size 4
    neighbours net.py:build data --queries data/b --layer 5 --out own.png --batch-size 4
    evolve net.py:build data --checkpoints epochs --study evolved --out evolve.png --batch-size 4
"""
RUN = """
    import os, sys
    from interpret.cli import main
    from interpret.execution import resume
    resume.SAVE_EVERY = float(os.environ.get("SAVE_EVERY", "0.2"))

    for command in open("commands.txt").read().strip().splitlines():
        sys.argv = ["interpret", *command.split()]
        main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, among them some that do not decode: a first one, and a whole batch."""
    folder = tmp_path_factory.mktemp("ranks") / "data"
    for number in range(61):
        file = folder / "ab"[number % 2] / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(40, 48, number // 3).save(file)  # some are equal
    for number in (0, 7, 32, 34, 36, 38, 40, 42):
        (folder / "ab"[number % 2] / f"{number:03}.png").write_bytes(b"torn")
    return folder


def torchrun(
    folder: Path, data: Path, processes: int, commands: str, *options: str, status: int = 0, **environment: str
) -> str:
    """Run commands in a folder by several processes, and return what they print to the error stream."""
    run = start(folder, data, processes, commands, *options, **environment)
    _, errors = run.communicate(timeout=300)
    assert (run.returncode == 0) == (status == 0), errors
    return errors


def start(
    folder: Path, data: Path, processes: int, commands: str, *options: str, **environment: str
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(data)
        (folder / "net.py").write_text(textwrap.dedent(NETWORK))
        epochs(folder / "epochs")
    (folder / "run.py").write_text(textwrap.dedent(RUN))
    (folder / "commands.txt").write_text(textwrap.dedent(commands))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    known = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [*launcher, *options, "run.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=known | {"OMP_NUM_THREADS": "1", **environment},
    )


def epochs(folder: Path) -> None:
    """Write two epochs of the network."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    shapes = {"0": (8, 3, 3, 3), "3": (12, 8, 3, 3), "5": (6, 12, 3, 3), "9": (4, 6)}
    for epoch in (1, 2):
        generator = torch.Generator().manual_seed(epoch)
        state = {f"{name}.weight": torch.randn(shape, generator=generator) / 3 for name, shape in shapes.items()}
        state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
        save_file(state, folder / f"{epoch}.safetensors")


def finished(folder: Path, name: str) -> dict[str, bytes]:
    """Return what the commands wrote, and move the folder away: paths in it are the same for the next run."""
    ours = ("gallery", "study", "evolved")
    found = {f"{room}/{path}": content for room in ours for path, content in contents(folder / room).items()}
    found |= {path.name: path.read_bytes() for path in folder.glob("*.png")}
    folder.rename(folder.with_name(name))
    return found


@pytest.mark.slow
def test_any_number_of_ranks_writes_the_same_bytes(tmp_path: Path, data: Path) -> None:
    said, written = [], []
    for number in (1, 2, 3):
        said.append(torchrun(tmp_path / "run", data, number, COMMANDS))
        written.append(finished(tmp_path / "run", str(number)))
    alone, *others = written
    assert len([path for path in alone if path.startswith("gallery/layers/")]) > 30
    assert {path.partition("/")[0] for path in alone} >= {"gallery", "study", "evolved", "probe.png", "own.png"}
    for other in others:
        assert other.keys() == alone.keys()
        assert [path for path in alone if other[path] != alone[path]] == []
    for errors in said:  # the first process speaks for all
        assert errors.count("files could not be read") == said[0].count("files could not be read") > 0


MINE = "mine net.py:build data --study study --batch-size 1 -k 3"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands run: a study keeps the paths of its model and data."""
    return tmp_path_factory.mktemp("mined") / "run"


@pytest.fixture(scope="module")
def mined(place: Path, data: Path) -> dict[str, bytes]:
    """What one process writes."""
    torchrun(place, data, 1, MINE, WATCHED=str(place.parent / "log"))
    return finished(place, "whole")


def passes_in(folder: Path) -> dict[str, int]:
    """Return how many forward passes each process did to mine, by start and rank."""
    return {path.name: path.read_text().count("m") for path in folder.glob("log.*")}


@pytest.mark.slow
def test_a_killed_rank_costs_what_was_not_saved_and_no_more(
    place: Path, data: Path, mined: dict[str, bytes], tmp_path: Path
) -> None:
    # saved after every batch, instead of every minute
    watched = {"WATCHED": str(tmp_path / "log"), "DIES": "1", "SAVE_EVERY": "0"}
    errors = torchrun(place, data, 2, MINE, "--max-restarts", "1", **watched)
    assert finished(place, "killed") == mined
    assert errors.count("interpret: ") <= 1  # the process that is left says why it ends, unless it is ended first
    passes = passes_in(tmp_path)
    assert set(passes) == {f"log.{generation}.{rank}" for generation in (0, 1) for rank in (0, 1)}
    # all images once, the dry run of each process, and the batches that the two were at
    images = 61 - 8
    dry_run = passes_in(place.parent)["log.0.0"] - images
    assert 0 < dry_run < 10
    assert images + 4 * dry_run <= sum(passes.values()) <= images + 4 * dry_run + 2
    # the first process mines half of what is left, not half of the 61 images
    mining = [found for found in read_timings(place.with_name("killed") / "study") if found["part"] == "mining"]
    assert mining[-1]["outcome"] == "done" and mining[-1]["steps"][0]["count"] <= 27


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(
    place: Path, data: Path, mined: dict[str, bytes], tmp_path: Path
) -> None:
    watched = {"WATCHED": str(tmp_path / "log"), "DIES": "2"}
    lost = torchrun(place, data, 3, MINE, status=1, **watched)
    assert lost.count("interpret: ") <= 1 and (place / "study/mining.safetensors").exists()
    torchrun(place, data, 2, MINE)
    assert finished(place, "lost") == mined


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all_with_one_sentence(tmp_path: Path, data: Path) -> None:
    for command in ("mine net.py:build nowhere --study study", "occlude net.py:build data"):
        errors = torchrun(tmp_path / "run", data, 2, command, status=2)
        assert errors.count("interpret: ") == 1, errors
    assert not (tmp_path / "run" / "study").exists()


@pytest.mark.slow
def test_an_interrupt_ends_all_and_keeps_what_is_done(
    place: Path, data: Path, mined: dict[str, bytes], tmp_path: Path
) -> None:
    run = start(place, data, 2, MINE, WATCHED=str(tmp_path / "log"))
    state = place / "study" / "mining.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode != 0 and state.exists()
    assert errors.count("interpret: Interrupted.") == 1, errors
    torchrun(place, data, 1, MINE)
    assert finished(place, "stopped") == mined


def test_one_process_is_alone_and_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(ranks()) is Ranks
    for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    assert not started_together()
    for variable, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    assert not started_together()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started_together()
    code = "import sys, interpret.cli, interpret.execution.ranks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
