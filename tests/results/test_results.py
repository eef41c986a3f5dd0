"""Every result prints a line, has a table and a figure, shows in a notebook, and comes back from its file as it was."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

import interpret
from helpers.figure_results import make
from interpret import InterpretError, Mined, Result, Study
from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.mining.unit import Unit
from interpret.results.kinds import BUILT_IN as KINDS
from interpret.results.kinds import result_class
from interpret.tracing.tracing import Trace

TABLES = ("trace", "mined")
"""Which print a line for each layer, and show a table."""


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return {kind: make(kind, layers=4, images=3) for kind in KINDS}


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, to the bit and to the type."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Result):
        return type(one) is type(other) and same(one._stored_fields(), other._stored_fields())
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints_short(kind: str, results: dict[str, Any]) -> None:
    lines = repr(results[kind]).split("\n")
    name = type(results[kind]).__name__
    assert lines[0].startswith(f"<{name}: ") and lines[0].endswith(">") and "array(" not in lines[0]
    assert len(lines) == (2 + len(results[kind]) if kind in TABLES else 1)
    assert max(map(len, lines)) < 200
    assert results[kind].reading.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_its_table_has_a_row_for_each_thing(kind: str, results: dict[str, Any]) -> None:
    result = results[kind]
    columns, table = result.columns(), result.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and list(table) == list(columns)
    assert {len(column) for column in columns.values()} == {len(table)}
    expected: dict[str, Any] = {
        "predictions": lambda: result.top.size,
        "feature-maps": lambda: sum(map(len, result.maps.values())),
        "evolution": lambda: sum(values.size for values in result.values.values()),
        "invariance": lambda: sum(curves.size for curves in result.distances.values()),
        "occlusion": lambda: result.probabilities.size,
        "neighbours": lambda: result.items.size,
        "correspondence": lambda: sum(scores.size for scores in result.scores.values()),
        "methods": lambda: len(result.maps) * len(result.pictures),
        "sanity": lambda: sum(values.size for values in result.rank.values()),
        "costs": lambda: len(result.names),
        "effective-fields": lambda: len(result.layers),
        "trace": lambda: len(result),
        "mined": lambda: sum((layer.images >= 0).sum() for layer in result.layers.values()),
        "mined-layer": lambda: (result.images >= 0).sum(),
        "unit": lambda: len(result.values),
        "projections": lambda: len(result.pixels),
        "attribution": lambda: len(result.maps),
        "inversions": lambda: result.errors.size,
        "atlas": lambda: len(result.cells),
        "synthesised": lambda: len(result.names),
        "comparison": lambda: sum(map(len, result.overlap.values())),
    }
    assert len(table) == expected[kind]()


def test_tables_hold_the_numbers_at_their_places(results: dict[str, Any]) -> None:
    occlusion = results["occlusion"]
    table = occlusion.to_dataframe()
    row = table[(table.image == 1) & (table.top == occlusion.tops[4]) & (table.left == occlusion.lefts[7])].iloc[0]
    assert row.probability == occlusion.probabilities[1, 4, 7] and row.activation == occlusion.activations[1, 4, 7]
    assert row.lost == occlusion.clean_probabilities[1] - occlusion.probabilities[1, 4, 7]
    curves = results["invariance"]
    table, layer = curves.to_dataframe(), curves.layers[2]
    row = table[(table.layer == layer) & (table.image == 2) & (table.value == curves.values[5])].iloc[0]
    assert row.distance == curves.distances[layer][2, 5] and row.probability == curves.probabilities[2, 5]
    sanity = results["sanity"]
    table = sanity.to_dataframe()
    row = table[(table.method == "guided") & (table.image == 1) & (table.step == 3)].iloc[0]
    assert row["rank"] == sanity.rank["guided"][1, 3] and row.layer == sanity.steps[3]
    mined = results["mined"]
    table, layer = mined.to_dataframe(), list(mined)[2]
    row = table[(table.layer == layer) & (table.unit == 5) & (table["rank"] == 1)].iloc[0]
    found = mined[layer]
    assert (row.value, row.image) == (found.values[5, 1], found.images[5, 1])
    assert (row.row, row.column) == tuple(found.positions[5, 1]) and row.source == f"image {found.images[5, 1]}"
    methods = results["methods"]
    table = methods.to_dataframe()
    row = table[(table.method == "gradcam") & (table.image == 2)].iloc[0]
    assert row.same_for_other == methods.same_for_other["gradcam"][2] and row.target == methods.target_names[2]


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_gives_the_same_result(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    result, file = results[kind], tmp_path / "result.safetensors"
    result.save(file)
    for again in (Result.load(file), type(result).load(file)):
        assert same(again, result) and repr(again).split("\n")[0] == repr(result).split("\n")[0]
        again.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert same(pickle.loads(pickle.dumps(result)), result)
    other = "occlusion" if kind != "occlusion" else "invariance"
    with pytest.raises(InterpretError, match=f"holds a result of kind '{kind}', not '{other}'"):
        result_class(other).load(file)


def test_files_without_a_result_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InterpretError, match="does not exist"):
        Result.load(tmp_path / "nothing.safetensors")
    (tmp_path / "notes.txt").write_text("notes")
    save_file({"a": np.zeros(1)}, tmp_path / "weights.safetensors")
    for name in ("notes.txt", "weights.safetensors"):
        with pytest.raises(InterpretError, match=f"{name} holds no result of interpret's"):
            Result.load(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_shows_it(kind: str, results: dict[str, Any]) -> None:
    result = results[kind]
    if kind in TABLES:
        html = result._repr_html_()
        assert html.count("<tr") == 1 + len(result) and result._repr_png_() is None
        assert all(f">{name}</td>" in html for name in result)
        return
    data, size = result._repr_png_()
    picture = Image.open(BytesIO(data))
    assert picture.format == "PNG" and picture.width == 2 * size["width"]
    assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_drawn_at_a_width_and_into_given_axes(kind: str, results: dict[str, Any]) -> None:
    figure = results[kind].plot(width=3.3)
    assert isinstance(figure, Figure) and round(figure.get_size_inches()[0], 3) == 3.3
    axes = Figure(figsize=(6, 6)).subplots()
    drawn = results[kind].plot(ax=axes)
    assert isinstance(drawn, Axes) and drawn is axes and axes.has_data()


def test_without_pandas_the_error_names_columns(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InterpretError, match=r"needs pandas, which is not installed: run pip install pandas"):
        results["mined"].to_dataframe()
    assert results["mined"].columns()["unit"][0] == 0


# what was mined


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.Flatten(),
                         nn.Linear(20, 6)).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return torch.rand(30, 3, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", ["0", "3", "5"])
@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_a_units_patches_and_projections_are_those_of_single_calls(
    network: nn.Module, images: Tensor, layer: str, rule: Any
) -> None:
    unit = interpret.mine(network, images, k=4)[layer].unit(2)
    patches, projections = unit.patches, unit.projections(rule)
    assert len(patches) == len(projections) == len(unit.values) == 4 and patches.device.type == "cpu"
    for rank, image in enumerate(unit.images.tolist()):
        alone = interpret.project(network, images[[image]], layer, 2, unit.positions[rank].tolist(), rule)
        top, left, bottom, right = alone.boxes[0].tolist()
        assert torch.equal(patches[rank], images[image, :, top:bottom, left:right])
        torch.testing.assert_close(projections[rank], alone.pixels[0], rtol=1e-4, atol=1e-6)
    assert unit.projections(rule) is projections  # found once


def test_a_unit_has_its_hits_by_rank_without_unfilled_ones(network: nn.Module, images: Tensor) -> None:
    mined = interpret.mine(network, images[:3], k=9)
    unit = mined["0"].unit(1)
    assert len(unit.values) == len(unit.patches) == len(unit.projections()) == 3
    assert (np.diff(unit.values) <= 0).all() and unit.names == [f"image {image}" for image in unit.images]
    for wrong in (4, -1):
        with pytest.raises(InterpretError, match=f"unit {wrong} is not in layer '0', whose units are 0 to 3"):
            mined["0"].unit(wrong)
    with pytest.raises(InterpretError, match="unknown mined layer '8'"):
        mined["8"]
    assert "8" not in mined and mined.get("8") is None


def test_most_active_is_by_the_strongest_activation(network: nn.Module, images: Tensor) -> None:
    layer = interpret.mine(network, images)["3"]
    strongest = network[:4](images).amax((0, 2, 3))
    assert layer.most_active.tolist() == strongest.argsort(descending=True).tolist()


def test_a_loaded_result_says_that_it_needs_model_and_data(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    mined = interpret.mine(network, images, k=2)
    file = tmp_path / "mined.safetensors"
    mined.save(file)
    assert file.stat().st_size < sum(a.nbytes for layer in mined.values() for a in layer.arrays().values()) + 20_000
    read = Mined.load(file)
    assert read.subject.model is None and read["3"].subject is read.subject
    assert "<table" in (read["3"]._repr_html_() or "") and read["3"]._repr_png_() is None  # still something to see
    assert "<table" in read._repr_html_() and "<img" not in read._repr_html_() and "<img" in mined._repr_html_()
    for ask in (lambda: read["3"].unit(1).patches, lambda: read["3"].unit(1).projections(), lambda: read.plot()):
        with pytest.raises(InterpretError, match=r"read from a file holds no images: call \.attach\(model, data\)"):
            ask()
    with pytest.raises(InterpretError, match=r"is not what was mined \(its fingerprint differs\)"):
        read.attach(network, images + 1)
    assert torch.equal(read.attach(network, images)["3"].unit(1).patches, mined["3"].unit(1).patches)


def test_a_saved_unit_keeps_its_pictures(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    unit = interpret.mine(network, images, k=3)["3"].unit(1)
    guided, picture = unit.projections("guided"), unit._repr_png_()
    unit.save(tmp_path / "unit.safetensors")
    read = Unit.load(tmp_path / "unit.safetensors")
    assert torch.equal(read.patches, unit.patches) and torch.equal(read.projections("guided"), guided)
    assert read._repr_png_() == picture
    with pytest.raises(InterpretError, match="Unit 1 of 3 was read from a file without its projections by 'gradient'"):
        read.projections("gradient")


def test_neither_network_nor_images_are_pickled_with_it(network: nn.Module) -> None:
    images = torch.rand(400, 3, 10, 10)
    mined = interpret.mine(network, images, k=1)
    mined._repr_html_()  # which keeps its pictures
    assert len(pickle.dumps(mined)) < images.nbytes / 4
    again = pickle.loads(pickle.dumps(mined))
    assert again.subject.data is None and again["3"].subject is again.subject
    assert copy.deepcopy(mined)["3"].unit(0).patches.shape == (1, 3, 8, 8)  # a copy refers to the same


def test_other_weights_are_refused_and_other_images_show_nothing_wrong(network: nn.Module, images: Tensor) -> None:
    unit = interpret.mine(network, images, k=3)["3"].unit(1)
    with torch.no_grad():
        network[3].weight.mul_(3)
    with pytest.raises(InterpretError, match="project with the model and data that were mined"):
        unit.projections()


def test_a_study_gives_the_same_mined_layers(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    study = Study(tmp_path / "study", network, images)
    study.mine(k=3)
    mined, direct = study.all_mined(), interpret.mine(network, images, k=3)
    assert list(mined) == list(direct) and mined.searched == 30
    for name in direct:
        for key, array in direct[name].arrays().items():
            assert same(getattr(mined[name], key), array), key
    assert torch.equal(mined["3"].unit(1).patches, direct["3"].unit(1).patches)
    file = next((tmp_path / "study" / "mined").glob("3.*"))
    assert same(Result.load(file).values, direct["3"].values) and MinedLayer.load(file).name == "3"
    read = Mined.load(tmp_path / "study")
    assert same(read["5"].values, direct["5"].values) and read.attach(network, images)["5"].unit(0).patches.ndim == 4
    study.keep(direct["3"].unit(1), "favourite")
    assert isinstance(study.result("unit", "favourite"), Unit)


def test_mined_prints_a_line_for_each_layer(network: nn.Module, images: Tensor) -> None:
    lines = repr(interpret.mine(network, images)).split("\n")
    assert [line.split()[0] for line in lines[2:]] == ["0", "3", "5"]
    strongest = network[0](images).amax((0, 2, 3))
    assert f"{strongest.max():.4g} (unit {strongest.argmax()})" in lines[2]
    deep = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(100)])
    lines = repr(interpret.mine(deep, torch.rand(2, 1, 4, 4))).split("\n")
    assert len(lines) == 63 and lines[32].startswith("…")


def test_a_trace_comes_back_with_its_totals(network: nn.Module, tmp_path: Path) -> None:
    traced = interpret.trace(network, (3, 10, 10))
    traced.save(tmp_path / "trace.safetensors")
    read = Trace.load(tmp_path / "trace.safetensors")
    assert read == traced and vars(read) == vars(traced) and read["0"].receptive_field == traced["0"].receptive_field
    assert re.search(r"Conv2d +4 × 8 × 8 +112 +6,912 +3 × 3 +1 × 1", repr(traced))
    table = traced.to_dataframe()
    assert table.params.sum() == traced.params and table.set_index("name").macs["0"] == 6912


def test_projections_show_the_windows_of_their_images(network: nn.Module) -> None:
    images = torch.rand(3, 3, 10, 10)
    found = interpret.project(network, images, "0", channels=[1, 2, 3], positions=[(0, 0), (7, 7), (3, 4)])
    for row, (top, left, bottom, right) in enumerate(found.boxes.tolist()):
        assert found.pictures is not None and found.pictures[row].shape == (3, 3, 3)
        window = images[row, :, top:bottom, left:right].permute(1, 2, 0).numpy()
        # brighter pixels stay brighter, whatever the scale
        assert (np.argsort(window.ravel()) == np.argsort(found.pictures[row].ravel(), kind="stable")).mean() > 0.5
    table = found.to_dataframe()
    assert table.channel.tolist() == [1, 2, 3] and table.image.tolist() == [0, 1, 2]
    assert table[["row", "column"]].to_numpy().tolist() == [[0, 0], [7, 7], [3, 4]]
    of_one = interpret.project(network, images[:1], "5", channels=[1, 2])
    assert of_one.images is not None and of_one.images.tolist() == [0, 0] and of_one._repr_png_()
