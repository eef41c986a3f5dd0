"""Sphinx's settings: `docs/build.sh` builds the site."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "extensions")]

import matplotlib.pyplot as plt  # noqa: E402
from accessible import mend_pages  # noqa: E402
from example_pages import FIGURES, blocks_that_are_run, copy_examples  # noqa: E402
from inventories import write_inventories  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import interpret  # noqa: E402

plt.rcdefaults()
logging.getLogger("interpret").setLevel(logging.ERROR)
# joblib replaces a process that has grown, and its example runs to the end
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)

project = "interpret"
author = "The interpret-cnn authors"
copyright = f"2026, {author}"
version = release = interpret.__version__

BUILD = DOCS / "_build"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "executed_blocks",
    "mathml",
    "references",
]
exclude_patterns = ["_build", "extensions", "inventories"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # settings that are functions or classes
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# ---- text ------------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
executed_folders = ["start", "lecture", "howto", "how-it-works", "es"]
executed_folders_that_install = ["start", "es"]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre, div.highlight-text pre"

# ---- reference -------------------------------------------------------------------------------------------------------

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Warns", "returns_style")]
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
default_role = "py:obj"  # `name` in a docstring links to the name where there is one
nitpicky = True
nitpick_ignore_regex = [  # what users never make or read, in signatures alone
    (
        "py:.*",
        r"(interpret\..*\.)?(Checkpoints|Cut|Epoch|Layout|LeftOut|Operation|OwnRule|Scene|SourceLists|Subject|Term|UnreadableImage)",
    ),
]
python_maximum_signature_line_length = 88

intersphinx_mapping = {
    name: (url, str(file)) for name, (url, file) in write_inventories(DOCS / "inventories", BUILD).items()
}

# ---- examples --------------------------------------------------------------------------------------------------------

examples = copy_examples(DOCS.parent / "examples", BUILD / "examples")
sphinx_gallery_conf = {
    "examples_dirs": [str(examples)],
    "gallery_dirs": ["examples"],
    "filename_pattern": blocks_that_are_run(examples),
    "ignore_pattern": r"__init__\.py",
    "backreferences_dir": "api/used-by",
    "doc_module": ("interpret",),
    "reset_argv": "example_pages.arguments_of",
    "image_scrapers": ("example_pages.take_figures",),
    "abort_on_example_error": True,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 10_000,
    "parallel": True,  # as many as Sphinx has with -j
    "plot_gallery": os.environ.get("DOCS_WITHOUT_EXAMPLES") is None,
    "remove_config_comments": True,
    "default_thumb_file": str(DOCS / "_static" / "units.jpg"),
    "nested_sections": True,
    "within_subsection_order": "FileNameSortKey",
    "first_notebook_cell": "# The script's arguments, as in its first lines\nimport sys\n\nsys.argv[1:] = []",
    "last_notebook_cell": (
        "# The figures that the script wrote\nfrom pathlib import Path\n\n"
        "from IPython.display import Image, display\n\n"
        f"for path in sorted(Path().glob('*')):\n    if path.suffix in {FIGURES}:\n        display(Image(path))"
    ),
}

# ---- pages -----------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "interpret"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("index", "start/index", "es/index")}
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "interpret"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
}

shutil.rmtree(BUILD / "runs", ignore_errors=True)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", mend_pages)
