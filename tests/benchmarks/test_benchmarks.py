"""The benchmarks measure time, which no test may: here, only that each script still knows what it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.scripts import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_finds_all_it_imports(script: Path) -> None:
    asked = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert f"python benchmarks/{script.name}" in asked.stdout
