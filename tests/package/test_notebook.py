"""The cells of a notebook, run by a real kernel, and what they show."""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from helpers.scripts import ROOT

pytestmark = pytest.mark.slow

CELLS = {
    "setup": """
import interpret
import torch
from torchvision.models import resnet18

torch.manual_seed(0)
model = resnet18().eval()
images = torch.nn.functional.interpolate(torch.rand(12, 3, 6, 6), 64, mode="bicubic").clamp(0, 1)
""",
    "mined": "mined = interpret.mine(model, images)\nmined",
    "layer": 'mined["layer3.0.conv2"]',
    "unit": 'unit = mined["layer3.0.conv2"].unit(12)\nunit',
    "tensors": '[list(one.shape) for one in (unit.patches, unit.projections("guided"))]',
    "project": 'interpret.project(model, images, "layer3.0.conv2", channels=12)',
    "probe": 'curves = interpret.probe(model, images[:2], "rotation", [-10, 0, 10], layers="layer3.0.conv2")\ncurves',
    "axes": """
from matplotlib.figure import Figure

figure = Figure(figsize=(4, 3))
axes = figure.subplots()
curves.plot(ax=axes)
axes.has_data(), axes.figure is figure
""",
    "tables": "mined.to_dataframe()",
    "curves": "curves.to_dataframe()",
    "outputs": '{name: list(one.shape) for name, one in interpret.layer_outputs(model, images, "layer3.*").items()}',
    "trace": "interpret.trace(model, (3, 64, 64))",
    "figure": "interpret.plot(mined)",
    "compare": 'interpret.compare(mined, interpret.mine(resnet18().eval(), images), "layer4.*")',
    "attribute": 'interpret.attribute(model, images[:2], "guided")',
    "predict": "interpret.predict(model, images)",
    "refused": "try:\n    mined['layer3'].unit(1)\nexcept interpret.InterpretError as error:\n    print(error)",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Any]]]:
    """Run the cells in one kernel, and give of each what it puts out."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    folder = tmp_path_factory.mktemp("notebook")
    own = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "PYTHONWARNINGS": "error::UserWarning"}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute()
    finally:
        loop.close()
        asyncio.set_event_loop(None)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if out := os.environ.get("INTERPRET_NOTEBOOK_OUT"):  # to look at it
        nbformat.write(notebook, out)
    yield {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def data(shown: dict[str, list[Any]], name: str) -> Any:
    """Return the one thing that a cell shows, by its types; nothing else may be printed."""
    (output,) = shown[name]
    assert output.output_type == "execute_result", output
    return output.data


def picture(shown: dict[str, list[Any]], name: str) -> Any:
    """Return the picture that a cell shows as grey levels; it is as large as its size on the screen says, and twice."""
    (output,) = shown[name]
    pixels = Image.open(BytesIO(b64decode(output.data["image/png"])))
    assert pixels.width == 2 * output.metadata["image/png"]["width"]
    return np.asarray(pixels.convert("L")).astype(float)


@pytest.mark.parametrize("name", ["layer", "unit", "project", "probe", "figure", "compare", "attribute", "predict"])
def test_it_shows_a_picture_and_prints_a_line(shown: dict[str, list[Any]], name: str) -> None:
    assert len(data(shown, name)["text/plain"]) < 200 and "\n" not in data(shown, name)["text/plain"]
    grey = picture(shown, name)
    assert grey.std() > 20 and grey.shape[1] > 600  # neither blank nor a stamp
    dark = (grey < 200).mean(0)
    assert (dark > 0).mean() > 0.5  # something along most of its width


@pytest.mark.parametrize(("name", "lines"), [("mined", 21), ("trace", 67)])
def test_a_network_shows_a_line_for_each_layer(shown: dict[str, list[Any]], name: str, lines: int) -> None:
    found = data(shown, name)
    assert found["text/html"].count("<tr") == lines + 1
    assert len(found["text/plain"].split("\n")) <= min(lines, 61) + 2 and "array" not in found["text/plain"]


def test_the_lines_of_what_was_mined_have_patches(shown: dict[str, list[Any]]) -> None:
    html = data(shown, "mined")["text/html"]
    assert html.count("<img") == 21 * 6
    first = Image.open(BytesIO(b64decode(html.partition("base64,")[2].partition('"')[0])))
    assert first.size == (7, 7) and np.asarray(first).std() > 5


def test_a_unit_has_each_patch_beside_its_projection(shown: dict[str, list[Any]]) -> None:
    # mid-grey around the signal, on the right of each pair
    pixels = Image.open(BytesIO(b64decode(data(shown, "unit")["image/png"]))).convert("RGB")
    grey = (np.abs(np.asarray(pixels).astype(int) - 128).max(2) <= 2).mean(0)
    assert (grey > 0.2).any()
    assert data(shown, "unit")["text/plain"].startswith("<Unit: Unit 12 of layer3.0.conv2, 9 hits, the strongest ")


def test_tensors_tables_and_own_axes(shown: dict[str, list[Any]]) -> None:
    assert data(shown, "tensors")["text/plain"] == "[[9, 3, 64, 64], [9, 3, 64, 64]]"
    assert data(shown, "axes")["text/plain"] == "(True, True)"
    for name in ("tables", "curves"):
        assert "<table" in data(shown, name)["text/html"]
    assert "'layer3.0.conv2': [12, 256, 4, 4]" in data(shown, "outputs")["text/plain"]


def test_an_error_is_one_sentence(shown: dict[str, list[Any]]) -> None:
    (output,) = shown["refused"]
    assert output.output_type == "stream" and output.text.startswith("unknown mined layer 'layer3': did you mean")
