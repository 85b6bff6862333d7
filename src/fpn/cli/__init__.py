"""The command line: `fpn VERB ...`. One file a verb, thin; torch is imported inside the commands only."""

from fpn.cli.entry import main

__all__ = ["main"]
