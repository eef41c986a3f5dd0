"""Run the Python and shell blocks of a page, in order, and show below each what it prints and draws.

All blocks of a page share a folder, which is empty at first, and one Python namespace. A block that fails fails the
build. A block with a caption is a file of that name. The class `not-run` says that a block is shown only. A sentence
above the first block says how a reader runs them.
"""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from interpret.figures.style import screen_picture

DRAWN = "/_drawn/"
START = "start/index"


class Page:
    """The state that the blocks of a page share."""

    def __init__(self, app: Sphinx, docname: str) -> None:
        self.docname = docname
        self.folder = Path(app.outdir).parent / "runs" / docname
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.pictures = Path(app.srcdir) / "_drawn" / docname
        shutil.rmtree(self.pictures, ignore_errors=True)
        self.variables: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: nodes.literal_block) -> list[nodes.Node]:
        """Run a block; return what to show below it."""
        run = self.run_python if block["language"] == "python" else self.run_shell
        try:
            with chdir(self.folder), own_modules(self.folder):
                return run(block.astext())
        except (Exception, SystemExit) as error:
            raise ExtensionError(f"{self.docname}:{block.line}: {type(error).__name__}: {error}", error) from error

    def run_python(self, code: str) -> list[nodes.Node]:
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed, value = io.StringIO(), None
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            exec(compile(tree, self.docname, "exec"), self.variables)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), self.docname, "eval"), self.variables)
        shown: list[nodes.Node] = []
        drawn = self.draw(value)
        if value is not None and not drawn:
            print(repr(value), file=printed)
        if printed.getvalue().strip():
            shown.append(self.output(printed.getvalue()))
        plt.close("all")
        return shown + drawn

    def run_shell(self, code: str) -> list[nodes.Node]:
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "110"}
        done = subprocess.run(
            ["bash", "-e", "-c", code], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise ExtensionError(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return [self.output(done.stdout)] if done.stdout.strip() else []

    def output(self, text: str) -> nodes.Node:
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), ".")
        # sentences are wrapped, tables are not
        lines = (line if "  " in line or "|" in line else textwrap.fill(line, 96) for line in text.splitlines())
        text = "\n".join(lines)
        return nodes.literal_block(text, text.rstrip(), language="none", classes=["printed"])

    def draw(self, value: Any) -> list[nodes.Node]:
        """Show what a notebook would show: a table, or the figure of a result."""
        html = getattr(value, "_repr_html_", lambda: None)()
        if html:
            return [nodes.raw("", f'<div class="drawn" tabindex="0">{html}</div>', format="html")]
        picture = screen_picture(value) if isinstance(value, Figure) else getattr(value, "_repr_png_", lambda: None)()
        if not picture:
            return []
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{len(list(self.pictures.glob('*'))) + 1}.png"
        path.write_bytes(picture[0])
        alt = f"{value.title}. {value.reading}" if hasattr(value, "reading") else "The figure that the code above draws"
        uri = f"{DRAWN}{self.docname}/{path.name}"
        return [nodes.image("", uri=uri, alt=alt, classes=["drawn"], width=f"{picture[1]['width']}px")]


@contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """Let a block import the files of its page, and forget them afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)


def run_blocks(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.current_document.docname
    if docname.split("/")[0] not in app.config.executed_folders:
        return
    page = None
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") in ("python", "sh") and "not-run" not in block["classes"]:
            if page is None:
                page = Page(app, docname)
                say_how_to_run(app, docname, block)
            parent = block.parent
            captions = list(parent.findall(nodes.caption)) if "literal-block-wrapper" in parent["classes"] else []
            if captions:
                (page.folder / captions[0].astext()).write_text(block.astext() + "\n", encoding="utf-8")
            else:
                place = parent.index(block) + 1
                parent[place:place] = page.run(block)
    for image in doctree.findall(nodes.image):
        if image["uri"].startswith(DRAWN):
            path = image["uri"].removeprefix("/")
            image["uri"], image["candidates"] = path, {"*": path}
            app.env.images.add_file(docname, path)


def say_how_to_run(app: Sphinx, docname: str, first: nodes.literal_block) -> None:
    """Say above the first block what a reader needs, unless the page says itself how to install."""
    if docname.split("/")[0] in app.config.executed_folders_that_install:
        return
    link = nodes.reference("", "Install", refuri=app.builder.get_relative_uri(docname, START), internal=True)
    said = nodes.paragraph("", "", link, nodes.Text(" with "), nodes.literal("", "pip install '.[examples]'"))
    said += nodes.Text(", then run the blocks of this page in order, in an empty folder.")
    block = first.parent if "literal-block-wrapper" in first.parent["classes"] else first
    block.parent.insert(block.parent.index(block), nodes.container("", said, classes=["to-follow"]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("executed_folders_that_install", [], "env")
    app.add_config_value("executed_folders", [], "env")
    app.connect("doctree-read", run_blocks)
    return {"parallel_read_safe": True}
