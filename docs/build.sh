#!/bin/sh
# Build the documentation into docs/_build/html; warnings are errors. Then check what was built.
# Examples and pages run on all cores, each on one.
set -e
cd "$(dirname "$0")"
OMP_NUM_THREADS=1 python -m sphinx -j auto -W --keep-going -q -b html . _build/html
python check.py _build/html
