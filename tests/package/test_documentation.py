"""The site lists what there is, its checker finds what is broken, and what is said of the package agrees."""

from __future__ import annotations

import ast
import re
import tomllib
from inspect import getdoc, isfunction
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from PIL import Image

import interpret
from helpers.packages import needs_squeezenet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_reference_lists_every_public_name_once() -> None:
    listed = re.findall(r"^   (\w+)$", (DOCS / "api" / "index.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(interpret.__all__)


def test_docstrings_of_functions_have_the_same_parts() -> None:
    functions = {name: value for name in interpret.__all__ if isfunction(value := getattr(interpret, name))}
    assert len(functions) > 25
    missing = {}
    for name, function in functions.items():
        described = getdoc(function) or ""
        parts = [">>> ", "\nArgs:\n", "\nRaises:\n"]
        if function.__annotations__["return"] not in (None, "None"):
            parts.append("\nReturns:\n")
        missing[name] = [part.strip() for part in parts if part not in described]
    assert {name: parts for name, parts in missing.items() if parts} == {}


def test_every_example_is_run_for_the_site_or_says_why_not() -> None:
    tree = ast.parse((DOCS / "extensions" / "example_pages.py").read_text("utf-8"))
    tables = {
        node.targets[0].id: [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
    }
    examples = ROOT / "examples"
    scripts = {path.relative_to(examples).with_suffix("").as_posix() for path in examples.rglob("*.py")}
    assert sorted(tables["ARGUMENTS"] + tables["NOT_RUN"]) == sorted(scripts)


def test_the_readme_links_to_what_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    links = [link for link in re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', text) for link in link if link]
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_tests_that_the_comparison_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "how-it-works" / "comparison.md").read_text("utf-8")))
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 8
    assert sorted(name for name in named if f"def {name}(" not in tests) == []


def test_the_readme_is_one_screen_and_its_code_names_what_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 50
    tree = ast.parse(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "interpret"
    }
    named = set(re.findall(r"`(\w+)`", text.partition("| you ask")[2].partition("\n\n")[0]))
    assert {"load", "mine"} <= used and {"project", "probe"} <= named
    assert used | named <= set(interpret.__all__)


@needs_squeezenet
@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    Path("path/to/images").mkdir(parents=True)
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(values).save(f"path/to/images/{number}.png")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "my-gallery" / "index.html").is_file()


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {interpret.__version__}\n" in citation
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\nlicense: {project['license']}\n" in citation


def test_the_checker_finds_what_is_broken(tmp_path: Path) -> None:
    broken_links = run_path(str(DOCS / "check.py"))["broken_links"]
    (tmp_path / "a.html").write_text('<h2 id="here">A</h2><a href="b.html#there">b</a><img src="c.png" alt="c">')
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2><a href="https://example.org/x">x</a><a href="a.html">a</a>')
    (tmp_path / "c.png").write_bytes(b"")
    assert broken_links(tmp_path) == []
    (tmp_path / "d.html").write_text(
        '<a href="a.html#nowhere">1</a><a href="e.html">2</a><img src="c.png">'
        '<script src="https://example.org/s.js"></script><link rel="stylesheet" href="//example.org/s.css">'
    )
    (tmp_path / "s.css").write_text("@font-face { src: url('https://example.org/f.woff2') }")
    assert sorted(broken_links(tmp_path)) == [
        "d.html: an image without a text: c.png",
        "d.html: fetches //example.org/s.css",
        "d.html: fetches https://example.org/s.js",
        "d.html: no such file: e.html",
        "d.html: no such place: a.html#nowhere",
        "s.css: fetches from elsewhere",
    ]
