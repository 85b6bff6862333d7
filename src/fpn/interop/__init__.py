"""Other toolkits' weights -> ours: one file a toolkit."""

from fpn.interop.conversion import TOOLKITS, convert
from fpn.interop.converted import Converted

__all__ = ["TOOLKITS", "Converted", "convert"]
