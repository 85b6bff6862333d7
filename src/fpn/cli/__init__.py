"""The command line: `fpn VERB ...`. One file a verb, thin; torch is imported inside the commands only."""

from fpn.cli.app import main

__all__ = ["main"]
