"""The built wheel, unpacked where nothing of the checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.scripts import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what a wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("interpret_cnn-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installed_wheel_runs_the_main_job_with_a_shipped_model(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "interpret", "gallery", "lenet", "digits", "--layers", "conv1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"Open {tmp_path / 'interpret-gallery' / 'index.html'}"
    assert (tmp_path / "interpret-gallery" / "layers" / "conv1" / "19.html").is_file()


def test_a_wheel_holds_every_shipped_model_and_no_tests(installed: Path) -> None:
    shipped = {file.parent.name for file in (ROOT / "models").glob("*/model.py")}
    assert {file.parent.name for file in (installed / "interpret" / "models").glob("*/model.py")} == shipped
    assert {entry.name for entry in installed.iterdir()} == {
        "interpret",
        *(e.name for e in installed.glob("*.dist-info")),
    }
