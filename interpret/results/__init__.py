"""What all results have in common, without torch: a line to print, a figure, a table, and a file."""

from interpret.results.result import KINDS, Result, result_class

__all__ = ["KINDS", "Result", "result_class"]
