"""Sums without rounding, so that they depend neither on the order of their terms nor on who adds which."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BITS = 32
"""Bits of a digit. An int64 holds the sum of 2³¹ digits."""


class ExactSums:
    """Sums of floating-point numbers without rounding, one for each place of an array.

    >>> sums = ExactSums(2)
    >>> for term in ([1e30, 1.0], [1.0, 0.5], [-1e30, 0.25]):
    ...     sums.add(torch.tensor(term, dtype=torch.float64))
    >>> sums.value()
    tensor([1.0000, 1.7500], dtype=torch.float64)

    A sum is a number in base 2³² with signed digits, as many as the terms have needed so far.
    Source: the small superaccumulator of Neal, "Fast exact summation using small and large superaccumulators", 2015.
    """

    def __init__(self, *shape: int) -> None:
        self.digits = torch.zeros(0, *shape, dtype=torch.int64)
        """[D, *shape]; the lowest first."""
        self.lowest = 0
        """The place of the lowest digit, whose value is 2^(32 · lowest)."""
        self.not_finite = torch.zeros(shape, dtype=torch.float64)
        """[*shape] the sum of the terms that are infinite or NaN, 0 without any, whose order does not matter either."""

    def add(self, terms: Tensor, rows: Tensor | None = None) -> None:
        """Add terms, float [*shape]; with `rows`, terms [n, …] to these rows of the array."""
        terms = terms.double()
        if not terms.numel():
            return
        finite = torch.isfinite(terms)
        if not bool(finite.all()):
            odd = terms.masked_fill(finite, 0)
            self.not_finite = self.not_finite + odd if rows is None else self.not_finite.index_add(0, rows, odd)
            terms = terms.masked_fill(~finite, 0)
        place = _place(float(terms.abs().max()))
        while bool(terms.any()):
            # exact, as these are multiplications by powers of two, and the difference leaves fewer bits
            digit = _scaled(terms, -BITS * place).trunc_()
            terms = terms - _scaled(digit, BITS * place)
            if bool(digit.any()):
                self._with_place(place)
                own = self.digits[place - self.lowest]
                if rows is None:
                    own += digit.long()
                else:
                    own.index_add_(0, rows, digit.long())
            place -= 1

    def grow(self, count: int) -> None:
        """Append zeros until the array has `count` rows."""
        more = count - self.digits.shape[1]
        if more > 0:
            new = self.digits.new_zeros(len(self.digits), more, *self.digits.shape[2:])
            self.digits = torch.cat([self.digits, new], 1)
            self.not_finite = torch.cat([self.not_finite, self.not_finite.new_zeros(more, *self.digits.shape[2:])])

    def merge(self, other: ExactSums) -> None:
        """Add other sums of the same shape."""
        for place, digit in enumerate(other.digits, other.lowest):
            self._with_place(place)
            self.digits[place - self.lowest] += digit
        self.not_finite = self.not_finite + other.not_finite

    def of(self, columns: slice) -> ExactSums:
        """Return the sums of some columns of the array."""
        new = ExactSums()
        new.digits, new.lowest, new.not_finite = self.digits[:, :, columns], self.lowest, self.not_finite[:, columns]
        return new

    def value(self) -> Tensor:
        """Return the sums, float64 [*shape], which depend on the terms alone."""
        normal = self.normalised()
        total = torch.zeros(self.digits.shape[1:], dtype=torch.float64)
        for place, digit in enumerate(normal.digits, normal.lowest):
            total += _scaled(digit.double(), BITS * place)
        return total + self.not_finite

    def normalised(self) -> ExactSums:
        """Return the same sums, with digits that the sums alone determine: from 0 to 2³² − 1 but for the highest.

        The highest digits have the sign; zeros below and above those that are needed are left out.
        """
        new = ExactSums()
        digits, carry = [], torch.zeros(self.digits.shape[1:], dtype=torch.int64)
        for digit in self.digits:
            carried = digit + carry
            digits.append(carried & (2**BITS - 1))
            carry = carried >> BITS  # rounds down, also below zero
        digits.append(carry)
        # all above are the sign: −1 in the place above is −2³² in this one
        while len(digits) > 1 and bool(((digits[-1] == 0) | (digits[-1] == -1)).all()):
            sign = digits.pop()
            digits[-1] = digits[-1] + (sign << BITS)
        start = next((n for n, digit in enumerate(digits) if bool(digit.any())), len(digits))
        new.digits = torch.stack(digits)[start:]
        new.lowest = self.lowest + start if len(new.digits) else 0
        new.not_finite = self.not_finite
        return new

    def state_dict(self) -> dict[str, Tensor]:
        """Return the normalised sums as tensors, for `load_state_dict`."""
        normal = self.normalised()
        state = {"digits": normal.digits.clone(), "lowest": torch.tensor(normal.lowest)}
        return state | ({"not_finite": self.not_finite.clone()} if bool(self.not_finite.any()) else {})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors from `state_dict`."""
        self.digits, self.lowest = state["digits"].clone(), int(state["lowest"])
        zeros = torch.zeros(self.digits.shape[1:], dtype=torch.float64)
        self.not_finite = state.get("not_finite", zeros).clone()

    def _with_place(self, place: int) -> None:
        """Add digits so that there is one at this place."""
        if not len(self.digits):
            self.lowest = place
        below, above = max(0, self.lowest - place), max(0, place - self.lowest - len(self.digits) + 1)
        if below or above:
            zeros = self.digits.new_zeros(below + above, *self.digits.shape[1:])
            self.digits = torch.cat([zeros[:below], self.digits, zeros[below:]])
            self.lowest -= below


def _place(largest: float) -> int:
    """Return the place of the highest digit of a number."""
    return (int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent) - 1) // BITS


def _scaled(values: Tensor, exponent: int) -> Tensor:
    """Return values · 2^exponent, in two steps, neither of which leaves the range of float64."""
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)
