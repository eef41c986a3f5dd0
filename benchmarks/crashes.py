"""Crash each subcommand before its file operations, hundreds of times, and write what came of it into the docs.

    python benchmarks/crashes.py [--crashes 40] [--seconds 1800] [--markdown docs/robustness.md]

A crash is a kill, an interrupt or a full disk before one file operation, drawn by the seed of `--seed`. Then the same
command runs again, and must end with the same bytes, leave nothing over, and repeat no more forward passes than those
between two saved parts. `tests/package/test_crashes.py` has the commands, and tries a few in each run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE / "tests"), str(HERE / "tests" / "package")]

import test_crashes as crashes  # noqa: E402 - after the path

HEADING = "## Crashes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crashes", type=int, default=40, help="of each subcommand")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no further one is begun")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    crashes.SEED = options.seed
    failures, rows = campaign(options.crashes, options.seconds)
    print("\n".join(failures), file=sys.stderr)
    text = section(rows)
    print(text)
    if options.markdown:
        before = options.markdown.read_text("utf-8").partition(HEADING)[0].rstrip()
        options.markdown.write_text(f"{before}\n\n{text}", "utf-8")


def campaign(count: int, seconds: float) -> tuple[list[str], list[tuple[crashes.Crashes, int, int]]]:
    """Crash all subcommands in turn; return what failed, and how often each was crashed and failed."""
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    server = crashes.Server("crashes.txt")
    try:
        states = crashes.make_states(server, root)
        all_of = [crashes.Crashes(verb, server, states) for verb in crashes.VERBS]
        began = time.monotonic()  # of the crashes: on a busy machine, what comes before takes minutes
        drawn = [list(crashes.drawn_crashes(one.verb, count, one.operations)) for one in all_of]
        tried, failed, failures = dict.fromkeys(crashes.VERBS, 0), dict.fromkeys(crashes.VERBS, 0), []
        for number in range(count):
            for one, at in zip(all_of, drawn, strict=True):
                if time.monotonic() - began > seconds:
                    break
                found = list(one.failures(*at[number]))
                tried[one.verb] += 1
                failed[one.verb] += bool(found)
                failures += found
        return failures, [(one, tried[one.verb], failed[one.verb]) for one in all_of]
    finally:
        server.close()
        shutil.rmtree(root)


def section(rows: list[tuple[crashes.Crashes, int, int]]) -> str:
    total, failed = sum(tried for _, tried, _ in rows), sum(failed for _, _, failed in rows)
    lines = [
        HEADING,
        "",
        f"{total:,} crashes, of which {failed} went wrong: a process was killed (SIGKILL), interrupted (SIGINT, "
        "SIGTERM) or given a full disk before one of its file operations, drawn at random, and the same command ran "
        "again. It went right if that ended with the bytes of an undisturbed run, left nothing over, and repeated no "
        "more forward passes than those since the last saved part, and those of a new start (tracing, dry runs). State "
        "was saved after every batch instead of every minute. Written by `benchmarks/crashes.py`; "
        "`tests/package/test_crashes.py` tries five of each in CI.",
        "",
        "| subcommand | file operations | crashes | went wrong | forward passes | most repeated |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one, tried, wrong in rows:
        numbers = (one.operations, tried, wrong, one.whole["forwards"], one.repeated)
        lines.append(f"| {one.verb} | {' | '.join(f'{number:,}' for number in numbers)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
