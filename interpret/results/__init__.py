"""What analyses return: arrays and settings, which a study keeps and figures are drawn from; needs no torch."""

from __future__ import annotations

from interpret.results.result import KINDS, Result, result_class

__all__ = ["KINDS", "Result", "result_class"]
