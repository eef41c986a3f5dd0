"""Analyses, one per folder: `compute.py`, `result.py` and `figure.py`."""
