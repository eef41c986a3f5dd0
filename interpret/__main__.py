"""`python -m interpret`."""

from interpret.cli import main

main()
