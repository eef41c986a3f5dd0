"""`python -m interpret.cli`."""

from interpret.cli import main

main()
