"""The `interpret` command. No verb imports torch before it runs, so that --help answers at once."""

from interpret.cli.app import main

__all__ = ["main"]
