"""Other toolkits' weights -> ours, one file a toolkit; and back to those that can hold them."""

from fpn.interop.conversion import TOOLKITS
from fpn.interop.exporting import ExportedWeights, convert_weights, export_weights
from fpn.interop.imported import ImportedWeights
from fpn.interop.importing import import_weights

__all__ = ["TOOLKITS", "ExportedWeights", "ImportedWeights", "convert_weights", "export_weights", "import_weights"]
