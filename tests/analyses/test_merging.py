"""What ranks and parts have mined, merged: an algebra, whose results are those of one pass."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interpret.analyses.mining.batch_maxima import BatchMaxima
from interpret.analyses.mining.compute import merge_mined
from interpret.analyses.mining.miner import Miner
from interpret.execution.reading import Reading
from interpret.images.opening import open_images
from interpret.network.model import as_model
from interpret.support.errors import InterpretError

LONG = int(os.environ.get("INTERPRET_LONG", "1"))
"""How many times as many examples to draw, at random, in a long run."""
UNITS = {"0": 3, "1": 2}
NETWORK = as_model(nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)))


@st.composite
def mined_in_parts(draw: Any) -> dict[str, Any]:
    count = draw(st.integers(1, 14))
    seed = draw(st.integers(0, 10**6))
    values = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    if draw(st.booleans()):  # ties, and zeros of both signs
        values = (np.round(values) * np.float32(draw(st.sampled_from([1, -0.0, 1e-30])))).astype(np.float32)
    sources = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count))
    torn = draw(st.sets(st.integers(0, count - 1), max_size=3))
    size = draw(st.integers(1, 4))
    batches = -(-count // size)
    owner = draw(st.lists(st.integers(0, 2), min_size=batches, max_size=batches))
    return {"values": values, "sources": sources, "labels": labels, "torn": torn, "size": size, "owner": owner,
            "k": draw(st.integers(1, 4)), "order": draw(st.permutations(range(3)))}  # fmt: skip


def opened(case: dict[str, Any]) -> Any:
    images = open_images(torch.zeros(len(case["values"]), 1, 2, 2), NETWORK)
    images.sources = np.array(case["sources"], np.int64)
    return images


def state_of(case: dict[str, Any], batches: list[int]) -> dict[str, Tensor]:
    """Return the state of a process that mines some batches."""
    images, count, size = opened(case), len(case["values"]), case["size"]
    others = np.array([[n * size, min(n * size + size, count)] for n in range(len(case["owner"])) if n not in batches])
    reading = Reading(images, size, others.reshape(-1, 2).astype(np.int64))
    miner = Miner(NETWORK, images, list(UNITS), case["k"])
    for first, last in reading.spans.tolist():
        for item in sorted(case["torn"] & set(range(first, last))):
            images.skipped[f"item {item}"], images.skipped_at[f"item {item}"] = "torn", item
        items = [item for item in range(first, last) if item not in case["torn"]]
        if not items:
            continue
        labels = torch.tensor([case["labels"][item] for item in items])
        images.labels[items] = labels.numpy()
        values = torch.from_numpy(case["values"][items])
        places = torch.tensor(items)[:, None].expand(-1, 5).remainder(4)
        positive = {name: torch.tensor([[len(items)] * c, [4] * c]) for name, c in UNITS.items()}
        shapes = {name: torch.Size([c, 2, 2]) for name, c in UNITS.items()}
        miner.update(BatchMaxima(torch.tensor(items), labels, shapes, values, places, positive))
        reading.reach(items[0])
    list(reading.to_the_end([]))
    return reading.state_dict() | miner.state_dict() if len(reading.done) else {}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first
    )


@settings(max_examples=40 * LONG, deadline=None, derandomize=LONG == 1)
@given(mined_in_parts())
def test_merging_is_an_algebra_and_gives_one_pass(case: dict[str, Any]) -> None:
    parts = [state_of(case, [n for n, owner in enumerate(case["owner"]) if owner == part]) for part in range(3)]
    a, b, c = (parts[place] for place in case["order"])
    whole = state_of(case, list(range(len(case["owner"]))))
    assert same(merge_mined(merge_mined(a, b), c), whole)
    assert same(merge_mined(a, merge_mined(b, c)), whole)
    assert same(merge_mined(a, b), merge_mined(b, a))
    assert same(merge_mined({}, whole), whole) and same(merge_mined(whole, {}), whole)


@settings(max_examples=20 * LONG, deadline=None, derandomize=LONG == 1)
@given(mined_in_parts())
def test_hits_are_those_of_a_literal_loop(case: dict[str, Any]) -> None:
    parts = [state_of(case, [n for n, owner in enumerate(case["owner"]) if owner == part]) for part in range(3)]
    state = merge_mined(parts[2], merge_mined(parts[0], parts[1]))
    readable = [item for item in range(len(case["values"])) if item not in case["torn"]]
    if not readable:
        assert not [key for key in state if key.startswith("top/")]
        return
    for unit in range(5):
        found: list[tuple[float, int]] = []
        seen: set[int] = set()
        for item in sorted(readable, key=lambda item: (-float(case["values"][item, unit]), item)):
            if case["sources"][item] not in seen:
                seen.add(case["sources"][item])
                found.append((float(case["values"][item, unit]), item))
        expected = (found + [(-np.inf, -1)] * case["k"])[: case["k"]]
        assert state["top/images"][unit].tolist() == [item for _, item in expected]
        assert state["top/values"][unit].tolist() == [value for value, _ in expected]
    assert state["statistics/counts"].sum(1).tolist() == [len(readable)] * 5


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_before_it_is_merged(odd: float) -> None:
    values = np.ones((2, 5), np.float32)
    values[1, 4] = odd
    case = {"values": values, "sources": [0, 1], "labels": [0, 0], "torn": set(), "size": 1, "owner": [0, 1], "k": 1}
    assert state_of(case, [0])
    with pytest.raises(InterpretError, match=r"layer '1' gives .* in unit 1 on image 1"):
        state_of(case, [1])
