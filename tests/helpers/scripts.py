"""The scripts in `examples/`, loaded as modules and run as their user runs them."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def load_script(name: str) -> ModuleType:
    """Load a script, such as "papers/canziani_figure1_2", without running its `main`.

    As for one that is run, its own folder comes first on the path while it imports.
    """
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where a dataclass looks for its module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend((EXAMPLES / name).parent)
        spec.loader.exec_module(module)
    return module


def run_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: object
) -> list[str]:
    """Run a script with arguments and return the lines that it prints."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()
