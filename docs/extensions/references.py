"""Links to names: of this reference, or of another library, also by the short name that its users write.

A word in single backticks is a link where it names something and code otherwise. With a library before it
(`torch.no_grad`), it must be found: nitpicky warnings are errors.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

SHORT = {
    "np": "numpy",
    "ExportedProgram": "torch.export.ExportedProgram",
    "DataParallel": "torch.nn.DataParallel",
    "Conv1d": "torch.nn.Conv1d",
    "Conv3d": "torch.nn.Conv3d",
    "nn": "torch.nn",
    "F": "torch.nn.functional",
    "plt": "matplotlib.pyplot",
    "Tensor": "torch.Tensor",
    "DataLoader": "torch.utils.data.DataLoader",
    "NDArray": "numpy.typing.NDArray",
    "Axes": "matplotlib.axes.Axes",
    "Figure": "matplotlib.figure.Figure",
    "interpret.figures.style.Figure": "matplotlib.figure.Figure",
    "DataFrame": "pandas.DataFrame",
}
"""What is written, and the name that it stands for."""
LIBRARIES = {"interpret", "torch", "numpy", "captum", "matplotlib", "PIL", "pandas"}


def full_name(written: str) -> str:
    """Return the name that a short one stands for.

    >>> full_name("nn.Conv2d"), full_name("Tensor"), full_name("Layer")
    ('torch.nn.Conv2d', 'torch.Tensor', 'Layer')
    """
    written = written.partition("[")[0].replace("torch._C.", "torch.")
    first, dot, rest = written.partition(".")
    return SHORT.get(written) or (SHORT[first] + dot + rest if first in SHORT and rest else written)


def find(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    """Expand a short name for intersphinx, which looks for it next; return code for what is no name."""
    if node.get("refdomain") != "py":
        return None
    written = node["reftarget"]
    node["reftarget"] = name = full_name(written)
    if page := page_of(env, name):
        return make_refnode(app.builder, node["refdoc"], *page, shown, name)
    is_name = re.fullmatch(r"[\w.]+", written) and name.partition(".")[0] in LIBRARIES
    return shown if node["reftype"] == "obj" and not is_name else None


def page_of(env: BuildEnvironment, name: str) -> tuple[str, str] | None:
    """Return page and anchor of the one class of this name, whatever its module."""
    if not re.fullmatch(r"[A-Z]\w+", name):
        return None
    found = [
        (entry.docname, entry.node_id)
        for full, entry in env.domains.python_domain.objects.items()
        if full.endswith(f".{name}") and entry.objtype == "class" and not entry.aliased
    ]
    return found[0] if len(found) == 1 else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", find, priority=400)  # before intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
