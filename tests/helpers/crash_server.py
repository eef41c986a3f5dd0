"""Runs the command in forks of one process that has torch imported, and kills each before a chosen file operation.

It reads one JSON object a line: `argv`, `folder` (its working directory), `how` and `at`. It answers with the exit
status, the number of file operations, that of forward passes, in all and before each operation, and what the command
printed.
"""

from __future__ import annotations

import builtins
import errno
import json
import mmap
import os
import resource
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
OPERATIONS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
OUTPUT = sys.argv[1] if __name__ == "__main__" else ""
"""The file, beside the folder, for what the command prints."""
MOST_OPERATIONS = 100_000
NEED_SPACE = ("open", "os.mkdir", "os.link", "fsync")
"""The operations that fail on a full disk."""


class Crash:
    """Counts the operations that change files in a folder, and does something before one of them."""

    def __init__(self, folder: Path, how: str | None, at: int, counts: Any) -> None:
        self.root, self.how, self.at, self.counts = os.path.realpath(folder), how, at, counts
        self.lock = threading.Lock()
        self.full = False
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            self.operation("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        os.fsync = synced  # type: ignore[assignment]
        sys.addaudithook(self.audit)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str) and flags & WRITING:
                self.operation(event, path)
        elif event in OPERATIONS:
            self.operation(event, os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else "")

    def operation(self, event: str, path: str) -> None:
        if not os.path.realpath(os.path.dirname(os.path.abspath(path))).startswith(self.root) or "timings" in path:  # noqa: PTH100, PTH120
            return
        with self.lock:
            self.counts[0] += 1
            self.counts[1 + self.counts[0]] = self.counts[1]
            now = self.counts[0] == self.at
        if now and self.how == "ENOSPC":
            self.full = True
        elif now and self.how == "EFBIG":
            resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
        elif now and self.how is not None:
            os.kill(os.getpid(), getattr(signal, self.how))
        if self.full and event in NEED_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def run(argv: list[str], folder: str, how: str | None, at: int, counts: Any) -> None:
    os.chdir(folder)
    out = os.open(f"../{OUTPUT}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.argv = ["interpret", *argv]

    def count() -> None:
        counts[1] += 1

    builtins.count_forward = count  # type: ignore[attr-defined]
    from interpret.cli import main

    Crash(Path(folder), how, at, counts)
    status = 0
    try:
        main()
    except SystemExit as ending:
        status = int(ending.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def prepare() -> None:
    """Import all that the commands need, and make the data set that `train` uses."""
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import torch

    torch.set_num_threads(1)
    import interpret.cli.app
    import interpret.study.computing
    from interpret.analyses.evolution import compute as evolution
    from interpret.analyses.evolution import figure as _evolution
    from interpret.analyses.invariance import compute as invariance
    from interpret.analyses.invariance import figure as _invariance
    from interpret.analyses.neighbours import compute as neighbours
    from interpret.analyses.neighbours import figure as _neighbours
    from interpret.analyses.occlusion import compute as occlusion
    from interpret.analyses.occlusion import figure as _occlusion
    from interpret.execution import resume
    from interpret.gallery import writer
    from interpret.images import datasets
    from interpret.report import writer as _writer
    from interpret.study import source_pictures, study
    from interpret.training import training

    assert all((evolution, invariance, neighbours, occlusion, writer, training, matplotlib, interpret))
    assert all((_evolution, _invariance, _neighbours, _occlusion, _writer))
    # few steps of an optimisation, each of which is like the others
    study.Study.synthesise.__kwdefaults__["steps"] = 6  # type: ignore[index]
    # the last minute of the work is the last part of it
    resume.SAVE_EVERY = source_pictures.SAVE_EVERY = 0.0
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (24, 12, 12, 3), np.uint8)
    labels = np.arange(24) % 3
    few = datasets.Dataset("few", "A few", images, labels, ("a", "b", "c"), np.arange(24) % 4 == 0)
    datasets.DATASETS["few"] = lambda: few


def main() -> None:
    prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        counts = np.frombuffer(mmap.mmap(-1, 8 * MOST_OPERATIONS), np.int64)
        child = os.fork()
        if child == 0:
            run(asked["argv"], asked["folder"], asked["how"], asked["at"], counts)
        _, status = os.waitpid(child, 0)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "operations": int(counts[0]),
            "forwards": int(counts[1]),
            "forwards_before": counts[2 : 2 + counts[0]].tolist(),
            "output": Path(asked["folder"], f"../{OUTPUT}").read_text(errors="replace"),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
