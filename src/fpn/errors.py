"""Everything that `fpn` raises on purpose. Each leaf is also the builtin that fits.

A message says what is wrong, what was found, where, and the remedy; the command line prints it without a traceback.
"""

from __future__ import annotations


class FpnError(Exception):
    """The root: catch this to catch every error that is about the caller's input or surroundings."""


class ConfigError(FpnError, ValueError):
    """A setting has a wrong name, type or range, or two settings contradict each other."""


class ImageError(FpnError, ValueError):
    """An image can't be read, or is not one that can be worked on."""


class DataError(FpnError, ValueError):
    """A dataset's annotations are broken or contradict themselves."""


class DataNotFoundError(FpnError, FileNotFoundError):
    """A dataset, an annotation file, an image or a model file is not where it was said to be."""


class ModelFileError(FpnError, ValueError):
    """A model or weights file is damaged, of another kind, or does not fit the detector."""


class OutputError(FpnError, OSError):
    """A result can't be written: no permission, no space, or something of the user's is in the way."""


class TrainingError(FpnError, RuntimeError):
    """Training can't go on: a loss is not finite, or there is nothing to train on."""


class MissingExtraError(FpnError, ImportError):
    """An optional part is not installed; the message names the extra, which pip adds to an environment that has fpn."""
