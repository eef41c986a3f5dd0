#!/bin/sh
# Build the documentation into docs/_build/html; warnings are errors. Then check what was built.
set -e
cd "$(dirname "$0")"
python -m sphinx -W --keep-going -q -b html . _build/html
python check.py _build/html
