"""Results of one model on one data set, in a folder."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.study.reader", "interpret.study.study")
