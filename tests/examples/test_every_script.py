"""Every script in `examples/` is run by a test, and says how it is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from helpers.scripts import EXAMPLES, run_script

TESTS = Path(__file__).parents[1]
SCRIPTS = sorted(EXAMPLES.rglob("*.py"))
RUNNERS = {"run", "run_script", "example", "load_script"}
"""What the tests run scripts with; `load_script` where they call its `main` themselves."""


def scripts_run(path: Path) -> set[str]:
    """Return the names that the tests in a file give to what runs scripts."""
    found = set()
    for test in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        for call in ast.walk(test):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in RUNNERS:
                texts = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                found.update(text.rpartition("/")[2] for text in texts[:1])
    return found


def test_figures_hold_no_formulas() -> None:
    """Text is drawn as it is, so that names of layers and files are."""
    assert [script.stem for script in SCRIPTS if re.search(r"\$\w+_", script.read_text(encoding="utf-8"))] == []


def test_help_and_wrong_options_end_as_argparse_ends_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_script(monkeypatch, capsys, "lecture/edge_detectors", "--help")
    printed = capsys.readouterr()
    assert ended.value.code == 0 and "--out" in printed.out and printed.err == ""
    with pytest.raises(SystemExit) as ended:
        run_script(monkeypatch, capsys, "lecture/edge_detectors", "--nonsense")
    printed = capsys.readouterr()
    assert ended.value.code == 2 and "unrecognized arguments: --nonsense" in printed.err and "raised" not in printed.err


RUN = {name for path in TESTS.rglob("test_*.py") for name in scripts_run(path)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_is_run_by_a_test_and_says_how_it_is_run(script: Path) -> None:
    assert script.stem in RUN
    assert f"examples/{script.relative_to(EXAMPLES).as_posix()}" in script.read_text(encoding="utf-8")
