"""Where and how a network runs: its device, its batches, its threads, and how interrupted work goes on."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.execution.execution")
