"""Neighbours against brute force, difference by difference, in float64; and the index that keeps the features."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import interpret
from helpers.files import contents
from interpret.analyses.neighbours import feature_index, search
from interpret.analyses.neighbours.compute import find_neighbours
from interpret.analyses.neighbours.feature_index import index_features
from interpret.analyses.neighbours.figure import plot_krizhevsky_figure4
from interpret.analyses.neighbours.result import Neighbours
from interpret.analyses.neighbours.search import nearest
from interpret.network.model import Model, as_model
from interpret.network.preprocess import Preprocess
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError


def build(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 36, 6), nn.ReLU(), nn.Linear(6, 4)
        )
    return network.double().eval()


def pictures(count: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal_distance(a: list[float], b: list[float], metric: str) -> float:
    if metric == "euclidean":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    lengths = math.sqrt(sum(x * x for x in a)), math.sqrt(sum(y * y for y in b))
    if not all(lengths):
        return 1.0
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (lengths[0] * lengths[1])


def brute_force(
    features: NDArray[Any], query: NDArray[Any], k: int, metric: str, sources: list[int], excluded: int | None
) -> list[tuple[float, int]]:
    """Every distance, sorted; of each source the first."""
    distances = [literal_distance(one, query.tolist(), metric) for one in features.tolist()]
    found: list[tuple[float, int]] = []
    taken = {excluded}
    for distance, row in sorted((distance, row) for row, distance in enumerate(distances)):
        if sources[row] not in taken:
            taken.add(sources[row])
            found.append((distance, row))
    return found[:k]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), metric=st.sampled_from(["euclidean", "cosine"]), block=st.sampled_from([8, 200, 2**26]))
def test_the_search_is_brute_force(data: st.DataObject, metric: Any, block: int) -> None:
    """Whole numbers, so that distances tie and are exact; sources, exclusion, blocks of any size."""
    count, width = data.draw(st.integers(3, 14)), data.draw(st.integers(1, 5))
    numbers = st.integers(-3, 3)
    features = data.draw(arrays(np.int64, (count, width), elements=numbers)).astype(np.float32)
    queries = data.draw(arrays(np.int64, (3, width), elements=numbers)).astype(np.float32)
    sources = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    excluded = data.draw(st.lists(st.sampled_from(sources), min_size=3, max_size=3))
    most = len(set(sources)) - 1
    if most < 1:
        return
    k = data.draw(st.integers(1, most))
    before = search.BLOCK_BYTES, search.DISTANCES_AT_ONCE
    search.BLOCK_BYTES, search.DISTANCES_AT_ONCE = block, block
    try:
        rows, distances = nearest(features, queries, k, metric, np.array(sources), np.array(excluded))
    finally:
        search.BLOCK_BYTES, search.DISTANCES_AT_ONCE = before
    for number in range(3):
        expected = brute_force(features, queries[number], k, metric, sources, excluded[number])
        assert distances[number] == pytest.approx([distance for distance, _ in expected], abs=1e-12)
        assert all(distances[number][:-1] <= distances[number][1:]), "nearest first"
        assert len({sources[row] for row in rows[number].tolist()} | {excluded[number]}) == k + 1
        if metric == "euclidean":  # where cosines tie, the last bit decides
            assert rows[number].tolist() == [row for _, row in expected]


def test_cancellation_does_not_reorder_neighbours() -> None:
    """Far from the origin a matrix product is off by more than what lies between the neighbours."""
    generator = np.random.default_rng(0)
    features = 1e8 + generator.random((200, 20))
    query = features[:1] + 1e-3
    rows, distances = nearest(features, query, 5)
    exact = np.sqrt(((features - query) ** 2).sum(1))
    assert rows[0].tolist() == np.argsort(exact, kind="stable")[:5].tolist()
    np.testing.assert_array_equal(distances[0], exact[rows[0]])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100))
def test_what_leaves_order_alone(seed: int, scale: float) -> None:
    """A factor scales Euclidean distances and leaves cosine ones; a shift leaves Euclidean ones."""
    generator = np.random.default_rng(seed)
    features, queries = generator.normal(size=(30, 4)), generator.normal(size=(2, 4))
    rows, distances = nearest(features, queries, 5)
    scaled = nearest(features * scale, queries * scale, 5)
    assert np.array_equal(scaled[0], rows) and np.allclose(scaled[1], distances * scale)
    shifted = nearest(features + 0.5, queries + 0.5, 5)
    assert np.array_equal(shifted[0], rows) and np.allclose(shifted[1], distances)
    rows, distances = nearest(features, queries, 5, "cosine")
    scaled = nearest(features * scale, queries, 5, "cosine")
    assert np.array_equal(scaled[0], rows) and np.allclose(scaled[1], distances)
    assert (distances >= 0).all() and (distances <= 2).all()


@pytest.mark.parametrize(("layer", "average"), [("0", False), ("0", True), ("1", False), ("3", False), (None, False)])
def test_it_compares_the_features_of_the_layer(layer: str | None, average: bool) -> None:
    network, images, asked = build(), pictures(), pictures(2, seed=9)
    found = find_neighbours(network, asked, images, layer, k=4, average=average, batch_size=5)
    assert found.layer == (layer or "4"), "the last hidden layer"
    with torch.no_grad():
        of = [network[: int(found.layer) + 1](part) for part in (images, asked)]
    features, queries = (part.mean((2, 3)) if average else part.flatten(1) for part in of)
    for number in range(2):
        expected = brute_force(features.numpy(), queries[number].numpy(), 4, "euclidean", list(range(12)), None)
        assert found.items[number].tolist() == [item for _, item in expected]
        assert found.distances[number] == pytest.approx([distance for distance, _ in expected], rel=1e-12)


def test_a_query_that_is_an_item_is_not_its_own_neighbour() -> None:
    images = pictures()
    images[7] = images[2]
    found = find_neighbours(build(), [2, 5], images, k=11)
    assert found.items[0, 0] == 7 and found.distances[0, 0] == 0
    for query, items in zip((2, 5), found.items.tolist(), strict=True):
        assert sorted([query, *items]) == list(range(12))
    of_images = find_neighbours(build(), images[[2]], images, k=2)
    assert of_images.items[0].tolist() == [2, 7], "an image of one's own may be found"
    of_array = find_neighbours(build(), np.array([2, 5]), images, k=11)
    assert np.array_equal(of_array.items, found.items)


def folder_of(tmp_path: Path, broken: bool = False) -> tuple[Model, Path]:
    folder = tmp_path / "pictures"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(10):
        place = folder / ("cats" if number < 6 else "dogs") / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (20, 20), np.uint8)).save(place)
    if broken:
        (folder / "cats" / "3.png").write_bytes(b"no picture")
    return Model(build().float(), "small", Preprocess((8, 8), channels="L")), folder


def test_tiles_of_one_photograph_are_one_neighbour(tmp_path: Path) -> None:
    model, folder = folder_of(tmp_path)
    images = interpret.open_images(folder, model, crops="tiles", scales=[8, 14, 20])
    assert len(images) > 3 * 10
    found = find_neighbours(model, [0, 20], images, k=9)
    for query, items in zip((0, 20), found.items, strict=True):
        assert len(set(images.sources[items].tolist()) | {int(images.sources[query])}) == 10
    with pytest.raises(InterpretError, match=r"k=10 neighbours need .* data 'pictures' has 9 beside the query"):
        find_neighbours(model, [0], images, k=10)


def test_pictures_are_kept_of_the_first_queries() -> None:
    images = pictures(70)
    found = find_neighbours(build(), range(70), images, k=2, batch_size=64)
    assert found.items.shape == (70, 2) and found.pictures.shape == (64, 2, 8, 8, 3)
    shown = (images[found.items[63, 1]] * 255).round()  # from 0 to 1, as the values of all images are
    assert np.array_equal(found.pictures[63, 1, ..., 0], shown[0].numpy())
    assert len(plot(found).axes) == 16 and len(plot(found, panels=map(str, range(64))).axes) == 64


def test_labels_and_names_are_told(tmp_path: Path) -> None:
    model, folder = folder_of(tmp_path)
    found = find_neighbours(model, [0, 9], folder, k=3)
    assert found.classes == ["cats", "dogs"] and found.query_labels.tolist() == [0, 1]
    assert found.query_names == ["cats/0.png", "dogs/9.png"]
    for row in range(2):
        for column in range(3):
            name, label = found.names[row][column], int(found.labels[row, column])
            assert name.startswith(found.label_name(label)) and found.items[row, column] == int(name[5:-4])
    assert found.label_name(-1) == ""


def test_an_index_is_kept_mapped_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = folder_of(tmp_path, broken=True)
    study = interpret.Study(tmp_path / "study", model, folder)
    in_memory = find_neighbours(model, [0, 8], folder, k=4)
    kept = find_neighbours(model, [0, 8], folder, k=4, index=study.path / "features")
    assert 3 not in kept.items and kept.searched == 9
    place = study.path / "features" / "4"
    assert sorted(path.name for path in place.iterdir()) == ["features.npy", "index.json", "items.npy"]
    assert np.load(place / "features.npy").shape == (9, 6)
    assert np.load(place / "items.npy").tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert list((study.path / "features").iterdir()) == [place], "nothing half-written is left"

    def never(*_: object) -> Any:
        raise AssertionError("the index is there")

    monkeypatch.setattr(feature_index, "_index", never)
    again = find_neighbours(model, [0, 8], folder, k=4, index=study.path / "features")
    for one in (kept, again):
        assert np.array_equal(one.items, in_memory.items) and np.array_equal(one.distances, in_memory.distances)
    opened = index_features(model, interpret.open_images(folder, model), "4", folder=study.path / "features")
    assert isinstance(opened.features, np.memmap)
    study.keep(kept, "4")
    loaded = study.result("neighbours", "4")
    assert isinstance(loaded, Neighbours) and loaded.names == kept.names
    assert np.array_equal(loaded.pictures, kept.pictures)

    other = Model(build(1).float(), "other", model.preprocess)
    with pytest.raises(InterpretError, match="is of other weights: choose another folder"):
        find_neighbours(other, [0], folder, k=4, index=study.path / "features")
    Image.new("L", (9, 9)).save(folder / "cats" / "new.png")
    with pytest.raises(InterpretError, match="is of other data: choose another folder"):
        find_neighbours(model, [0], folder, k=4, index=study.path / "features")


@pytest.mark.parametrize("name", ["features.npy", "items.npy", "index.json"])
def test_a_damaged_index_is_computed_again(tmp_path: Path, name: str) -> None:
    model, folder = folder_of(tmp_path, broken=True)
    images, kept = interpret.open_images(folder, model), tmp_path / "features"

    def index() -> dict[str, bytes]:
        index_features(model, images, "4", folder=kept)
        return {path: content for path, content in contents(kept).items() if path.startswith("4/")}

    whole = index()
    file = kept / "4" / name
    content = file.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    for number, damaged in enumerate((b"", content[: len(content) // 2], flipped, None)):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged .*: it is computed again, and is now '.*damaged"):
            assert index() == whole
        aside = kept / ("4.damaged" if number == 0 else f"4.damaged.{number + 1}")
        assert (aside / name).read_bytes() == damaged if damaged is not None else not (aside / name).exists()
    assert index() == whole
    (kept / "4" / "mine.txt").write_text("mine")  # it is not this program's alone: it stays where it is
    file.write_bytes(b"")
    before = contents(kept)
    with pytest.raises(InterpretError, match="is damaged or no feature index: delete it"):
        index()
    assert contents(kept) == before


class Torn(Dataset[Tensor]):
    """Pictures of which some do not decode, read by someone who loses patience at one of them."""

    stop: int | None = None

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 12

    def __getitem__(self, item: int) -> Tensor:
        self.read.append(item)
        if item == self.stop:
            raise KeyboardInterrupt
        if item in (1, 11):
            raise OSError("torn")
        return pictures()[item]


@pytest.mark.parametrize("stop", [0, 1, 2, 7, 11])
def test_an_interrupted_index_goes_on_to_the_same_bytes(tmp_path: Path, stop: int) -> None:
    def run(data: Torn, folder: Path, stop: int | None = None) -> None:
        images = interpret.open_images(data, build())
        _ = images.fingerprint  # which reads all of them
        data.read, data.stop = [], stop
        index_features(as_model(build()), images, "0", folder=folder, batch_size=2)
        assert list(images.skipped) == ["image 1", "image 11"]

    run(Torn(), tmp_path / "whole")
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole" / "0").iterdir()}
    assert set(whole) == {"features.npy", "items.npy", "index.json"}
    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        run(Torn(), kept, stop)
    begun = [] if stop < 2 else ["0.unfinished"]
    assert [path.name for path in kept.glob("*")] == begun
    data = Torn()
    run(data, kept)
    done = {0: 0, 1: 0, 2: 2, 7: 6, 11: 10}[stop]
    assert data.read == [0, 1, *range(done, 12)]  # the first two for the dry run
    assert [path.name for path in kept.iterdir()] == ["0"]
    assert {file.name: file.read_bytes() for file in (kept / "0").iterdir()} == whole


class Whole(Torn):
    """Pictures that all decode."""

    def __getitem__(self, item: int) -> Tensor:
        self.read.append(item)
        return pictures()[item]


@pytest.mark.parametrize("of", [Torn, Whole])
@pytest.mark.parametrize("step", ["np.save", "sealed_json", "_publish", "sync_folder", "discard"])
def test_an_index_that_is_interrupted_as_it_is_finished_reads_no_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: type[Torn], step: str
) -> None:
    def run(folder: Path) -> list[int]:
        data = of()
        images = interpret.open_images(data, build())
        _ = images.fingerprint  # which reads all of them
        data.read = []
        index_features(as_model(build()), images, "0", folder=folder, batch_size=2)
        return data.read

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    run(tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"interpret.analyses.neighbours.feature_index.{step}", interrupted)
        run(tmp_path / "kept")
    assert set(run(tmp_path / "kept")) <= {0, 1}  # for the dry run
    assert contents(tmp_path / "kept") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["features", "cut features", "state", "weights", "other"])
def test_a_damaged_or_other_unfinished_index_is_begun_again(tmp_path: Path, damage: str) -> None:
    data = Torn()
    images = interpret.open_images(data, build())
    _ = images.fingerprint
    data.stop = 7
    with pytest.raises(KeyboardInterrupt):
        index_features(as_model(build()), images, "0", folder=tmp_path, batch_size=2)
    begun = tmp_path / "0.unfinished"
    module = build()
    if damage == "features":
        (begun / "all.npy").unlink()
    elif damage == "cut features":  # by a full disk
        (begun / "all.npy").write_bytes((begun / "all.npy").read_bytes()[:40])
    elif damage == "state":
        (begun / "unfinished.safetensors").write_bytes(b"half")
    elif damage == "other":
        (begun / "mine.npy").write_bytes(b"mine")
    else:
        module[0].weight.data *= 2  # type: ignore[operator]
    data.stop = None
    if damage in ("state", "other"):  # which is somebody else's
        before = {file.name: file.read_bytes() for file in begun.iterdir()}
        with pytest.raises(InterpretError, match=r"not by interpret|not written by interpret"):
            index_features(as_model(module), images, "0", folder=tmp_path, batch_size=2)
        assert {file.name: file.read_bytes() for file in begun.iterdir()} == before
        return
    found = index_features(as_model(module), images, "0", folder=tmp_path, batch_size=2)
    fresh = index_features(as_model(module), images, "0", batch_size=2)
    np.testing.assert_array_equal(found.features, fresh.features)
    np.testing.assert_array_equal(found.items, fresh.items)


def test_what_cannot_be_indexed_leaves_nothing(tmp_path: Path) -> None:
    images = [torch.rand(1, 8, 8).double()] * 3 + [torch.rand(1, 9, 9).double()]
    with pytest.raises(InterpretError, match="must have one shape"):
        index_features(as_model(build()), interpret.open_images(images, build()), "0", folder=tmp_path, batch_size=1)
    assert list(tmp_path.iterdir()) == []


def test_it_is_drawn_and_so_is_the_whole_figure() -> None:
    images = pictures()
    found = find_neighbours(build(), [2, 5, 7], images, k=4, metric="cosine")
    figure = plot(found)
    assert len(figure.axes) == 3 and "cosine" in figure.get_suptitle()
    for row, axes in enumerate(figure.axes):
        query, *near = axes.images
        assert np.array_equal(query.get_array(), found.query_pictures[row])
        told = [text.get_text() for text in axes.texts]
        assert told[-4:] == [f"{distance:.3g}" for distance in found.distances[row]]
        for column, picture in enumerate(near):
            assert np.array_equal(picture.get_array(), found.pictures[row, column])
    assert "12 images of tensor" in found.reading and "cosine" in found.reading
    answers = interpret.predict(build(), images, [0, 1, 2], k=3, labels=[0, 1, -1])
    whole = plot_krizhevsky_figure4(answers, found)
    assert [len(axes.images) for axes in whole.axes] == [1] * 3 + [5] * 3
    assert plot_krizhevsky_figure4(answers, found, width=3.3).get_size_inches()[0] == 3.3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        (
            {"k": 12},
            "k=12 neighbours need as many images of distinct sources, and data 'tensor' has 11 beside the query",
        ),
        ({"k": 13, "queries": pictures(1)}, "and data 'tensor' has 12: ask for fewer, or give more images"),
        ({"queries": [12]}, "queries must be from 0 to 11 in data 'tensor', not 12"),
        ({"queries": []}, "queries is empty"),
        ({"metric": "cosin"}, "unknown metric 'cosin': did you mean 'cosine'"),
        ({"layer": "33"}, "unknown layer '33'"),
        ({"model": nn.Sequential(nn.Flatten(), nn.ReLU())}, "has no hidden layer that could be found: name one"),
        ({"queries": pictures(1).float()}, "images are torch.float32"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    given = {"model": build(), "queries": [0], "data": pictures(), "k": 2} | arguments
    with pytest.raises(InterpretError, match=sentence) as caught:
        find_neighbours(**given)
    assert "\n" not in str(caught.value)


def test_queries_of_another_size_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    large = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    small = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InterpretError, match="give images of one size, or average=True"):
        find_neighbours(network, large, small, "1", k=2)
    assert find_neighbours(network, large, small, "1", k=2, average=True).items.shape == (2, 2)
