"""A small study and its gallery."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.gallery_study import make_study
from interpret.gallery import write_gallery


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "study")


@pytest.fixture(scope="session")
def gallery(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(study, tmp_path_factory.mktemp("galleries") / "gallery").parent
