"""Other toolkits' weights -> ours: one file a toolkit."""

from fpn.interop.conversion import TOOLKITS, import_weights
from fpn.interop.imported import ImportedWeights

__all__ = ["TOOLKITS", "ImportedWeights", "import_weights"]
