"""A detector as a file that other runtimes take, with proof that it finds the same; and such a file as a detector."""

from fpn.export.loading import load_any as load

__all__ = ["load"]
