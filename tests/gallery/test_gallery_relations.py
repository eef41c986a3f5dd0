"""Relations between units, the lanes of the data flow and a unit's spread, against literal counterparts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interpret.gallery.correlation import LEAST, correlate
from interpret.gallery.rails import lay_rails
from interpret.gallery.selectivity import measure_selectivity
from interpret.study.study import Study


@pytest.mark.parametrize("sizes", [(3, 5), (40, 700, 90)])
def test_correlations_are_those_of_a_literal_search(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 4))
    layers = {
        f"layer{j}": (shared @ rng.normal(size=(4, size)) + 0.5 * rng.normal(size=(60, size))).astype(np.float32)
        for j, size in enumerate(sizes)
    }
    layers["layer0"][:, 1] = 7  # constant: it correlates with nothing
    within, across = correlate(layers, n=4)
    names = list(layers)
    rows = [(place, unit) for place, name in enumerate(names) for unit in range(layers[name].shape[1])]
    with np.errstate(invalid="ignore", divide="ignore"):
        full = np.nan_to_num(np.corrcoef(np.concatenate(list(layers.values()), 1).astype(np.float64).T))
    for row in range(0, len(rows), 7):
        place, unit = rows[row]
        for found, own in ((within, True), (across, False)):
            candidates = [
                (-full[row, other], other)
                for other in range(len(rows))
                if other != row and (rows[other][0] == place) == own and full[row, other] >= LEAST
            ]
            expected = [rows[other] for _, other in sorted(candidates)[:4]]
            got = found[names[place]]
            pairs = list(zip(got.layers[unit].tolist(), got.units[unit].tolist(), strict=True))
            assert [pair for pair in pairs if pair[0] >= 0] == expected
            for j, (other_place, other_unit) in enumerate(expected):
                value = full[row, rows.index((other_place, other_unit))]
                assert got.values[unit, j] == pytest.approx(value, abs=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 5))
def test_selectivity_is_that_of_the_definition(seed: int, classes: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, units)).astype(np.float32)
    means[rng.integers(classes)] = np.nan  # a class without images
    found = measure_selectivity(means)
    for unit in range(units):
        rectified = {label: max(float(mean), 0.0) for label, mean in enumerate(means[:, unit]) if not np.isnan(mean)}
        best = max(rectified, key=lambda label: rectified[label])
        others = [value for label, value in rectified.items() if label != best]
        if not others or rectified[best] == 0:
            assert found.values[unit] == 0 and found.classes[unit] == -1
            continue
        rest = sum(others) / len(others)
        assert found.values[unit] == pytest.approx((rectified[best] - rest) / (rectified[best] + rest), abs=1e-6)
        assert found.classes[unit] == best


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    count = draw(st.integers(1, 12))
    return {
        str(node): [str(one) for one in draw(st.lists(st.integers(0, node - 1), unique=True, max_size=4))]
        if node
        else []
        for node in range(count)
    }


@given(graphs(), st.sets(st.integers(0, 20)))
@settings(max_examples=200)
def test_lanes_lead_to_each_node_from_its_sources_and_from_nothing_else(
    sources: dict[str, list[str]], gaps: set[int]
) -> None:
    rows: list[str | None] = list(sources)
    for gap in sorted(gaps, reverse=True):
        rows.insert(min(gap, len(rows)), None)
    carries: dict[int, str] = {}
    for name, rail in zip(rows, lay_rails(rows, sources), strict=True):
        assert set(rail.through) <= set(carries)
        arriving = [carries[lane] for lane in rail.into]
        assert sorted(arriving) == sorted(sources[name] if name is not None else [])
        after = {lane: carries[lane] for lane in rail.through}
        if name is not None and rail.dot in rail.below:
            assert rail.dot not in after, "a node may not sit on a lane that passes"
            after[rail.dot] = name
        assert set(rail.below) == set(after)
        carries = after
    assert not carries  # every lane has arrived


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    study = Study(tmp_path_factory.mktemp("spread") / "study", network, images, batch_size=7)
    study.mine(k=3)
    study.find_activation_range_examples()
    study.connect()
    return study


def test_spread_shows_each_part_of_the_range(begun: Study) -> None:
    assert begun.model is not None and begun.data is not None
    images = torch.stack([begun.data[item][0] for item in range(len(begun.data))])
    for name, depth in (("0", 1), ("2", 3), ("4", 5)):
        spread = begun.activation_range_examples(name)
        assert spread is not None
        with torch.no_grad():
            maps = begun.model.module[:depth](images)
        maps = maps.reshape(*maps.shape[:2], -1)
        maxima = maps.amax(2)
        sample = begun.mined(name).sample_images.tolist()
        for unit in range(maps.shape[1]):
            order = sorted(sample, key=lambda item, unit=unit: -float(maxima[item, unit]))
            for group in range(5):
                items = spread["items"][unit, group]
                assert len(set(items.tolist())) == 4 and (items >= 0).all()
                ranks = [order.index(item) for item in items.tolist()]
                low, high = (group * len(order) / 4, (group + 1) * len(order) / 4) if group < 4 else (36, 40)
                assert all(low <= rank < high for rank in ranks), (group, ranks)
                for j, item in enumerate(items.tolist()):
                    assert spread["values"][unit, group, j] == pytest.approx(float(maxima[item, unit]), abs=1e-5)
                    if depth < 5:
                        row, column = spread["positions"][unit, group, j]
                        side = 6 if depth == 1 else 4
                        assert maps[item, unit, row * side + column] == maxima[item, unit]
                        size = 3 if depth == 1 else 5
                        box = np.array([row, column, row + size, column + size]) / 8
                        np.testing.assert_allclose(spread["boxes"][unit, group, j], box, atol=1e-6)
                    else:
                        assert spread["boxes"][unit, group, j].tolist() == [0, 0, 1, 1]


def test_spread_of_few_images_leaves_places_empty(tmp_path: Path) -> None:
    torch.manual_seed(0)
    study = Study(tmp_path / "study", nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(3, 1, 6, 6))
    study.mine(k=2)
    study.find_activation_range_examples()
    spread = study.activation_range_examples("0")
    assert spread is not None
    assert (spread["items"] < 0).any() and (spread["items"][:, 0, 0] >= 0).all()
    assert sorted(set(spread["items"][0, 4].tolist()) - {-1}) == [0, 1, 2]


def test_spread_and_connections_are_computed_once(
    begun: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("interpret.study.connections.trace_flow", never)
    monkeypatch.setattr("interpret.study.activation_range.run_and_locate", never)
    begun.find_activation_range_examples()
    begun.connect()
    other = Study(tmp_path / "study", begun.model, begun.data)
    other.mine(k=3)
    for compute in (other.find_activation_range_examples, other.connect):
        with pytest.raises(AssertionError, match="computed again"):
            compute()


def test_connections_point_to_the_layers_of_the_study(begun: Study) -> None:
    found = begun.connections("2")
    assert found is not None
    names = [layer["name"] for layer in begun.layers]
    assert {names[place] for place in found["in_layers"].ravel().tolist() if place >= 0} == {"0"}
    assert {names[place] for place in found["out_layers"].ravel().tolist() if place >= 0} == {"4"}
    assert [node["name"] for node in begun.flow()] == ["0", "1", "2", "3", "4"]


def test_the_old_names_of_the_examples_work_with_a_warning(begun: Study) -> None:
    with pytest.warns(DeprecationWarning, match=r"Study.spread is now Study.find_activation_range_examples"):
        begun.spread()
    name = begun.mined_layers[0]
    with pytest.warns(DeprecationWarning, match=r"Study.spread_of is now Study.activation_range_examples"):
        found = begun.spread_of(name)
    expected = begun.activation_range_examples(name)
    assert found is not None and expected is not None
    np.testing.assert_array_equal(found["items"], expected["items"])
