"""The command, called in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpret.cli import main


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object, status: int = 0) -> None:
    """Run the command in this process; it must end with this exit status."""
    monkeypatch.setattr(sys, "argv", ["interpret", *map(str, arguments)])
    ended = 0
    try:
        main()
    except SystemExit as ending:
        ended = int(ending.code or 0)
    assert ended == status


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run the command, which must exit with status 2 and say why: return that sentence."""
    command(monkeypatch, *arguments, status=2)
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def run_apart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "interpret", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "160"},
    )
