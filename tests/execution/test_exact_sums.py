"""Sums without rounding, compared with fractions."""

from __future__ import annotations

import math
import os
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpret.execution.exact_sums import ExactSums

LONG = int(os.environ.get("INTERPRET_LONG", "1"))
"""How many times as many examples to draw, at random, in a long run."""
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-4, 4, width=32)
BOUNDED = FINITE.filter(lambda term: abs(term) < 2.0**1000)


def summed(terms: list[float]) -> ExactSums:
    sums = ExactSums(1)
    for term in terms:
        sums.add(torch.tensor([term], dtype=torch.float64))
    return sums


@settings(max_examples=60 * LONG, deadline=None, derandomize=LONG == 1)
@given(st.lists(BOUNDED, max_size=12), st.randoms(use_true_random=False), st.integers(0, 12))
def test_any_order_and_any_split_give_the_exact_sum(terms: list[float], random: object, cut: int) -> None:
    exact = sum(map(Fraction, terms), Fraction())
    whole = summed(terms)
    assert whole.value().item() == pytest.approx(float(exact), rel=3e-16, abs=0)
    digits = whole.normalised()
    held = sum((Fraction(int(d)) * Fraction(2) ** (32 * (digits.lowest + n)) for n, d in enumerate(digits.digits)))
    assert held == exact
    shuffled = terms[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = summed(shuffled[cut:])
    parts.merge(summed(shuffled[:cut]))
    one, other = whole.state_dict(), parts.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@given(st.lists(st.sampled_from([1.0, -2.5, math.inf, -math.inf, math.nan]), max_size=5))
def test_what_is_not_finite_sums_as_floats_do(terms: list[float]) -> None:
    expected = math.fsum([]) + sum(terms)
    found = summed(terms)
    again = ExactSums()
    again.load_state_dict(found.state_dict())
    for sums in (found, again):
        assert sums.value().item() == expected or (math.isnan(expected) and math.isnan(sums.value().item()))


def test_terms_go_to_rows_and_rows_are_added() -> None:
    sums = ExactSums(1, 2)
    sums.grow(3)
    sums.add(torch.tensor([[1e20, 0.5], [1.0, -0.5], [-1e20, 3.0]]), torch.tensor([2, 0, 2]))
    assert sums.value().tolist() == [[1.0, -0.5], [0.0, 0.0], [0.0, 3.5]]
    assert sums.of(slice(1, 2)).value().tolist() == [[-0.5], [0.0], [3.5]]
