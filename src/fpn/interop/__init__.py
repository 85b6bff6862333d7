"""Other toolkits' weights -> ours: one file a toolkit."""

from fpn.interop.conversion import TOOLKITS
from fpn.interop.imported import ImportedWeights
from fpn.interop.importing import import_weights

__all__ = ["TOOLKITS", "ImportedWeights", "import_weights"]
