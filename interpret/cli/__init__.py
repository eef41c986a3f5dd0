"""The `interpret` command. Subcommands import torch only when they run, so that --help is fast."""

from interpret.cli.app import main

__all__ = ["main"]
