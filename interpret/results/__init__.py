"""The base class of results, without torch: text, figure, table and file."""

from interpret.results.kinds import all_kinds, result_class
from interpret.results.result import Result

__all__ = ["Result", "all_kinds", "result_class"]
