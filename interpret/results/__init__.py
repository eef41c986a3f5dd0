"""What all results have in common, without torch: a line to print, a figure, a table, and a file."""

from interpret.results.kinds import all_kinds, result_class
from interpret.results.result import Result

__all__ = ["Result", "all_kinds", "result_class"]
