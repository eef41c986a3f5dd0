"""A study as a report in one file."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.report.writer")
