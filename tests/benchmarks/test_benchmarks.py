"""The benchmarks measure time, which no test may: here, only that each script still knows what it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.scripts import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_finds_all_it_imports(script: Path) -> None:
    asked = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert f"python benchmarks/{script.name}" in asked.stdout


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.count("\n") == 1 and "no CUDA device" in ended.stdout


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_processor(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- gpu:begin -->\nold\n<!-- gpu:end -->\nafter\n")
    small = "--images 4 --batch-size 2 --side 32 --neurons 2 --peer-neurons 1 --rounds 1 --networks convnext_tiny"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", *small.split(), "--readme", readme],
        check=True, capture_output=True,
    )  # fmt: skip
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert lines[2].startswith("Measured on cpu with torch ")
    (mined,) = [line for line in lines if line.startswith("| convnext_tiny | 2 |")]
    assert all(float(cell.replace(",", "")) >= 0 for cell in mined.split(" | ")[2:6])
    assert sum(line.startswith("| convnext_tiny | `features.") for line in lines) == 2
