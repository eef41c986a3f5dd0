"""Data sets that can only be iterated: each item as often as it is asked for, and always the same one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from helpers.files import noise
from interpret.analyses.mining.compute import mine
from interpret.images import streams
from interpret.images.batches import batches
from interpret.images.opening import open_images
from interpret.images.streams import Stream
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.study.study import Study
from interpret.support.errors import InterpretError

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
MODEL = Model(NETWORK, name="tiny", preprocess=Preprocess((16, 16)), classes=tuple("abc"))


class Pictures(IterableDataset):
    """Pictures in the order of their numbers; counts how often it is begun and how many items it gives."""

    def __init__(self, count: int) -> None:
        self.count, self.begun, self.given = count, 0, 0

    def __iter__(self) -> Iterator[tuple]:
        self.begun += 1
        for number in range(self.count):
            self.given += 1
            yield noise(20, 20, seed=number), number % 3


def numbers(stream: Stream) -> list[int]:
    return [stream[item] for item in range(len(stream))]


def digits(value: int) -> bytes:
    return b"%d" % value


class Counted:
    """Numbers; counts how often they are begun."""

    def __init__(self, count: int) -> None:
        self.count, self.begun = count, 0

    def __iter__(self) -> Iterator[int]:
        self.begun += 1
        return iter(range(self.count))


def test_any_order_gives_the_items_of_their_numbers() -> None:
    data = Counted(1000)
    stream = Stream(data, digits, "numbers")
    assert len(stream) == 1000 and data.begun == 2  # counted, and the first items compared
    assert numbers(stream) == list(range(1000)) and data.begun == 3
    asked = [7, 500, 3, 999, 7, 500, -1, 0]
    assert [stream[item] for item in asked] == [item % 1000 for item in asked]
    begun = data.begun
    random.Random(0).shuffle(asked)
    assert [stream[item] for item in asked if item not in (0, -1)] == [item for item in asked if item not in (0, -1)]
    assert data.begun == begun  # those asked for out of order are kept
    with pytest.raises(IndexError):
        stream[1000]
    assert pickle.loads(pickle.dumps(stream))[42] == 42


@pytest.mark.parametrize("count", [0, 1, 7, 128, 129, 130, 1000, 5000])
def test_the_items_that_are_compared_are_spread_over_the_data(count) -> None:
    stream = Stream(range(count), digits, "numbers")
    assert len(stream) == count and all(found == b"%d" % item for item, found in stream.digests.items())
    places = sorted(stream.digests)
    assert min(count, 64) <= len(places) <= 2 * 64 + 9
    gaps = np.diff([*places, count])
    assert gaps.max(initial=0) <= max(1, count / 64)


def test_mining_a_stream_gives_what_a_list_gives(tmp_path) -> None:
    data = Pictures(50)
    study = Study(tmp_path / "study", MODEL, data, batch_size=8)
    opened = data.begun
    study.mine(k=3)
    # once for all layers, once for the hits' pictures; those in one run after 0 are not kept
    assert data.begun - opened <= 3
    study.project()
    study.find_activation_range_examples()
    study.predict()
    assert data.begun - opened <= 8
    other = mine(MODEL, list(Pictures(50)), k=3, batch_size=8)
    for name in ("0", "2"):
        assert np.array_equal(study.mined(name).images, other[name].images)
        assert np.array_equal(study.mined(name).values, other[name].values)
    again = Study(tmp_path / "study", MODEL, Pictures(50), batch_size=8)  # the same data
    assert again.mined_layers == ["0", "2"]
    with pytest.raises(InterpretError, match="holds results of other data"):
        Study(tmp_path / "study", MODEL, Pictures(51))


@pytest.mark.parametrize("workers", [0, 3])
def test_workers_read_each_item_once(workers) -> None:
    images = open_images(DataLoader(Pictures(20), batch_size=4), MODEL)
    images[3]  # the parent is in the midst of an iteration
    read = torch.cat([batch.images for batch in batches(images, 6, workers=workers)])
    assert torch.equal(read, torch.stack([MODEL.preprocess(noise(20, 20, seed=number)) for number in range(20)]))
    assert images.labels.tolist() == [number % 3 for number in range(20)]


def test_hugging_face_streams(tmp_path) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    for number in range(6):
        noise(20, 20, seed=number).save(tmp_path / f"{number}.png")
    features = Features({"image": Picture(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"image": [str(tmp_path / f"{number}.png") for number in range(6)], "label": [0, 1] * 3}
    whole = Dataset.from_dict(rows, features=features)
    streamed = open_images(whole.to_iterable_dataset(num_shards=2), MODEL)
    mapped = open_images(whole, MODEL)
    assert streamed.classes == ("cat", "dog") and len(streamed) == 6
    for item in (5, 0, 3, 2):
        assert torch.equal(streamed[item][0], mapped[item][0]) and streamed[item][1] == mapped[item][1] == item % 2
    shuffled = whole.to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=3)
    assert len(open_images(shuffled, MODEL)) == 6  # its order is fixed by the seed
    assert open_images(shuffled, MODEL).fingerprint != streamed.fingerprint


# ---- mistakes -------------------------------------------------------------------------------------------------------


class Once(IterableDataset):
    def __init__(self) -> None:
        self.items = iter([torch.zeros(3, 16, 16)] * 3)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self.items


class Shuffled(IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.rand(20, 3, 16, 16))


class LaterShuffled(IterableDataset):
    """In order for the first items, as far as they are compared at once."""

    def __init__(self) -> None:
        self.begun = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.begun += 1
        generator = torch.Generator().manual_seed(0)
        items = list(torch.rand(20, 3, 16, 16, generator=generator))
        return iter(items[:10] + items[10:][:: 1 if self.begun == 1 else -1])


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield torch.zeros(3, 16, 16)


def test_data_without_a_second_iteration_or_an_end_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(streams, "MOST_ITEMS", 100)
    one_by_one = (torch.zeros(3, 16, 16) for _ in range(3))
    for data, words in [
        (one_by_one, r"data is a generator, which can be iterated only once, .*islice\(data, 1000\)"),
        (Once(), "data 'Once' can be iterated only once, and hits are read again"),
        (Shuffled(), "item 0 of data 'Shuffled' is another one than when it was first iterated: .*fixed order"),
        (Endless(), "data 'Endless' does not end after 100 items"),
        (DataLoader(Endless()), "data 'Endless' does not end"),
        (DataLoader(Pictures(2), collate_fn=list), "with its own collate_fn: give its data set, data.dataset"),
        (Pictures(0), "holds no images"),
    ]:
        with pytest.raises(InterpretError, match=words):
            open_images(data, MODEL)


def test_an_order_that_changes_later_is_found_when_it_is_read() -> None:
    images = open_images(LaterShuffled(), MODEL)
    with pytest.raises(InterpretError, match="item 10 of data 'LaterShuffled' is another one than when"):
        list(batches(images, 4))


def test_a_stream_that_became_shorter_is_found() -> None:
    class Shrinking:
        ends = 5

        def __iter__(self) -> Iterator[int]:
            return iter(range(self.ends))

    stream = Stream(data := Shrinking(), digits, "numbers")
    data.ends = 4
    with pytest.raises(InterpretError, match="'numbers' had 5 items when it was first iterated, and now ends after 4"):
        numbers(stream)
