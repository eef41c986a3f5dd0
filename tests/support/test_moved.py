"""Modules by their old names."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from interpret.support.moved import NEW_NAMES

PACKAGES = {
    "execution": "execution.execution",
    "loading": "loading.loading",
    "report": "report.writer",
    "study": "study.study",
    "tracing": "tracing.tracing",
    "training": "training.training",
}


@pytest.mark.parametrize("old", sorted(NEW_NAMES))
def test_an_old_name_is_the_module_of_the_new_name(old: str) -> None:
    new = import_module(f"interpret.{NEW_NAMES[old]}")
    if (package := old.rpartition(".")[0]) in NEW_NAMES:
        with pytest.warns(DeprecationWarning):  # an old name itself, which warns where it is imported first
            sys.modules.pop(f"interpret.{package}", None)
            import_module(f"interpret.{package}")
    sys.modules.pop(f"interpret.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"interpret.{old} is now interpret.{NEW_NAMES[old]}: "):
        module = import_module(f"interpret.{old}")
    names = [name for name in vars(new) if not name.startswith("__")]
    assert names and all(getattr(module, name) is getattr(new, name) for name in names)


HELD = {
    "attribution": "Settings attribute find_cam_layer",
    "data": """ArrayImages Batch DatasetImages FileImages Images Inputs LeftAside PictureImages TensorImages batches
        check_items first_images open_images open_inputs read_items sample_by_hash tiles""",
    "neighbours": "FeatureIndex find_neighbours index_features layer_of nearest",
    "projection": "Crop HitBatch Hits locate_hits project project_hits",
    "filters": "filter_images filter_sheet plot_filters",
    "mining": "DyadicHistogram Miner Statistics TopK mine strongest_places",
}
"""What modules of the version before held that are several now."""


@pytest.mark.parametrize("old, name", [(old, name) for old, names in HELD.items() for name in names.split()])
def test_a_split_module_has_its_content_by_the_old_name(old: str, name: str) -> None:
    sys.modules.pop(f"interpret.{old}", None)
    with pytest.warns(DeprecationWarning, match="is now"):
        module = import_module(f"interpret.{old}")
    assert getattr(module, name).__name__ == name and name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_with_the_name_of_an_old_module_has_its_content(package: str) -> None:
    room, new = import_module(f"interpret.{package}"), import_module(f"interpret.{PACKAGES[package]}")
    name = next(
        name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__ and name[0] != "_"
    )
    with pytest.warns(DeprecationWarning, match="is now"):
        assert getattr(room, name) is getattr(new, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = room.nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("interpret.training.map_criterion", "interpret.training.losses"),
        ("interpret.training.Score", "interpret.training.scores"),
        ("interpret.study.local_field", "interpret.study.reader"),
    ],
)
def test_a_package_has_the_content_of_a_split_module(old: str, new: str) -> None:
    package, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=rf"{old} is now {new}\.{name}"):
        assert getattr(import_module(package), name) is getattr(import_module(new), name)


@pytest.mark.slow
def test_a_script_for_the_earlier_version_runs_with_warnings() -> None:
    script = """
import interpret
import interpret.plots.style
from interpret.mining import mine
from interpret.results.mined import Mined
from interpret.study import Study
assert mine is interpret.mine and Mined is interpret.Mined and Study is interpret.Study
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    told = [line for line in run.stderr.splitlines() if "DeprecationWarning" in line]
    assert len(told) == 5 and all(line.startswith("<string>:") for line in told)
