"""Other toolkits' weights -> ours, one file a toolkit; and back to those that can hold them.

Each name is imported when first used, so that a file can be looked into before a network is built.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "TOOLKITS": "conversion",
    "ExportedWeights": "exporting",
    "ImportedWeights": "imported",
    "convert_weights": "exporting",
    "export_weights": "exporting",
    "import_weights": "importing",
}

__all__ = ["TOOLKITS", "ExportedWeights", "ImportedWeights", "convert_weights", "export_weights", "import_weights"]

if TYPE_CHECKING:
    from fpn.interop.conversion import TOOLKITS
    from fpn.interop.exporting import ExportedWeights, convert_weights, export_weights
    from fpn.interop.imported import ImportedWeights
    from fpn.interop.importing import import_weights


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
